/* SPDX-License-Identifier: Apache-2.0 */
#include "pkg/base/base.h"

#define HIGH_BITS UINT64_C(0x8080808080808080)

static bool ascii16(const unsigned char *p)
{
	uint64_t a, b;

	memcpy(&a, p, 8);
	memcpy(&b, p + 8, 8);
	return ((a | b) & HIGH_BITS) == 0;
}

/*
 * RFC 3629's table: length of the sequence that begins with `first`, and what its second byte may
 * be. The bytes after the second are always 80..BF. 0: no sequence begins so.
 */
static size_t sequence(unsigned char first, unsigned char *ret_low, unsigned char *ret_high)
{
	*ret_low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
	*ret_high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
	if (first < 0x80)
		return 1;
	if (first < 0xc2)
		return 0;
	if (first < 0xe0)
		return 2;
	if (first < 0xf0)
		return 3;
	return first < 0xf5 ? 4 : 0;
}

/* How many of the sequence's bytes are there and right, of the `want` that it should have. */
static size_t matched(const unsigned char *p, size_t len, size_t *ret_want)
{
	unsigned char low, high;
	size_t n;

	*ret_want = sequence(p[0], &low, &high);
	if (*ret_want == 0)
		return 0;
	for (n = 1; n < *ret_want && n < len; n++) {
		if (p[n] < low || p[n] > high)
			break;
		low = 0x80;
		high = 0xbf;
	}
	return n;
}

size_t utf8_valid(const char *p, size_t len)
{
	const unsigned char *u = (const unsigned char *)p;
	size_t i = 0, want;

	while (i < len) {
		if (u[i] < 0x80) {
			if (len - i >= 16 && ascii16(u + i))
				i += 16;
			else
				i++;
			continue;
		}
		if (matched(u + i, len - i, &want) != want || want == 0)
			break;
		i += want;
	}
	return i;
}

bool utf8_incomplete(const char *p, size_t len)
{
	size_t want;

	return len > 0 && matched((const unsigned char *)p, len, &want) == len && len < want;
}
