/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "pkg/base/base.h"

/* Digits at the front; what follows them goes to ret_rest. */
static int parse_digits(struct span text, uint64_t *ret_value, struct span *ret_rest)
{
	uint64_t value = 0;
	bool over = false;
	size_t i;

	for (i = 0; i < text.len && text.p[i] >= '0' && text.p[i] <= '9'; i++)
		over |= __builtin_mul_overflow(value, (uint64_t)10, &value) ||
			__builtin_add_overflow(value, (uint64_t)(text.p[i] - '0'), &value);
	if (i == 0)
		return -EINVAL;
	*ret_value = value;
	*ret_rest = span_of(text.p + i, text.len - i);
	return over ? -ERANGE : 0;
}

static int scale_and_check(
	int r, uint64_t value, uint64_t unit, uint64_t min, uint64_t max, uint64_t *ret_value)
{
	if (r < 0)
		return r;
	if (__builtin_mul_overflow(value, unit, &value) || value < min || value > max)
		return -ERANGE;
	*ret_value = value;
	return 0;
}

int num_parse(struct span text, uint64_t min, uint64_t max, uint64_t *ret_value)
{
	uint64_t value = 0;
	struct span rest;
	int r;

	r = parse_digits(text, &value, &rest);
	if (r == -EINVAL || rest.len > 0)
		return -EINVAL;
	return scale_and_check(r, value, 1, min, max, ret_value);
}

int num_parse_size(struct span text, uint64_t min, uint64_t max, uint64_t *ret_value)
{
	uint64_t value = 0, unit;
	struct span rest;
	int r;

	r = parse_digits(text, &value, &rest);
	if (r == -EINVAL)
		return r;
	if (rest.len == 2 && rest.p[1] == 'i')
		rest.len = 1;
	if (rest.len == 0)
		unit = 1;
	else if (rest.len > 1)
		return -EINVAL;
	else if (rest.p[0] == 'K')
		unit = UINT64_C(1) << 10;
	else if (rest.p[0] == 'M')
		unit = UINT64_C(1) << 20;
	else if (rest.p[0] == 'G')
		unit = UINT64_C(1) << 30;
	else
		return -EINVAL;
	return scale_and_check(r, value, unit, min, max, ret_value);
}

int num_parse_duration(struct span text, uint64_t min_ms, uint64_t max_ms, uint64_t *ret_ms)
{
	uint64_t value = 0, unit;
	struct span rest;
	int r;

	r = parse_digits(text, &value, &rest);
	if (r == -EINVAL)
		return r;
	if (span_eq(rest, SPAN("ms")))
		unit = 1;
	else if (span_eq(rest, SPAN("s")))
		unit = 1000;
	else if (span_eq(rest, SPAN("m")))
		unit = 60 * 1000;
	else if (span_eq(rest, SPAN("h")))
		unit = 3600 * 1000;
	else if (rest.len == 0 && value == 0)
		unit = 1; /* nothing needs no unit */
	else
		return -EINVAL;
	return scale_and_check(r, value, unit, min_ms, max_ms, ret_ms);
}

size_t num_format(char *out, uint64_t value)
{
	char digits[20];
	size_t n = 0;

	do {
		digits[n++] = (char)('0' + value % 10);
		value /= 10;
	} while (value > 0);
	for (size_t i = 0; i < n; i++)
		out[i] = digits[n - 1 - i];
	return n;
}
