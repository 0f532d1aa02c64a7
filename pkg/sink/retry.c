/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "pkg/sink/retry.h"

enum retry_verdict retry_of_status(long status)
{
	if (status >= 200 && status < 300)
		return RETRY_DELIVERED;
	if (status < 200 || status == 408 || status == 425 || status == 429 ||
		(status >= 500 && status < 600))
		return RETRY_AGAIN;
	return RETRY_NEVER;
}

uint64_t retry_backoff_ms(uint32_t attempts, uint64_t random)
{
	uint64_t ms = RETRY_FIRST_MS;

	for (uint32_t i = 1; i < attempts && ms < RETRY_MOST_MS; i++)
		ms *= 2;
	ms = MIN(ms, (uint64_t)RETRY_MOST_MS);
	return ms / 2 + random % (ms / 2 + 1);
}

/* ---- dates ---- */

static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";

/* A fixed number of digits; blanks stand for zeros in front if allowed. */
static bool take_number(struct span *s, size_t digits, bool blanks, uint32_t *ret_value)
{
	uint32_t value = 0;
	bool any = false;

	if (s->len < digits)
		return false;
	for (size_t i = 0; i < digits; i++) {
		char c = s->p[i];

		if (c == ' ' && blanks && !any)
			continue;
		if (c < '0' || c > '9')
			return false;
		any = true;
		value = value * 10 + (uint32_t)(c - '0');
	}
	*s = span_of(s->p + digits, s->len - digits);
	*ret_value = value;
	return any;
}

static bool take_text(struct span *s, const char *text)
{
	size_t len = strlen(text);

	if (s->len < len || memcmp(s->p, text, len) != 0)
		return false;
	*s = span_of(s->p + len, s->len - len);
	return true;
}

static bool take_month(struct span *s, uint32_t *ret_month)
{
	for (uint32_t i = 0; i < 12; i++) {
		if (s->len < 3 || memcmp(s->p, months + (size_t)i * 3, 3) != 0)
			continue;
		*s = span_of(s->p + 3, s->len - 3);
		*ret_month = i + 1;
		return true;
	}
	return false;
}

struct date {
	uint32_t year, month, day, hour, minute, second;
};

static bool take_time(struct span *s, struct date *d)
{
	return take_number(s, 2, false, &d->hour) && take_text(s, ":") &&
	       take_number(s, 2, false, &d->minute) && take_text(s, ":") &&
	       take_number(s, 2, false, &d->second);
}

/* Days since 1970 of a date in the Gregorian calendar. */
static int64_t days_of(const struct date *d)
{
	int64_t year = (int64_t)d->year - (d->month <= 2), era = year / 400;
	int64_t of_era = year % 400;
	int64_t of_year =
		(153 * ((int64_t)d->month + (d->month > 2 ? -3 : 9)) + 2) / 5 + d->day - 1;

	return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

/* Behind the name of the day: "06 Nov 1994 08:49:37 GMT" of ", ", "06-Nov-94 08:49:37 GMT" of a
 * long name and ", ", "Nov  6 08:49:37 1994" of a blank. */
static bool take_date(struct span s, uint64_t now_s, struct date *d)
{
	size_t name = 0;

	while (name < s.len && ((s.p[name] | 0x20) >= 'a' && (s.p[name] | 0x20) <= 'z'))
		name++;
	if (name < 3)
		return false;
	s = span_of(s.p + name, s.len - name);
	if (take_text(&s, " "))
		return take_month(&s, &d->month) && take_text(&s, " ") &&
		       take_number(&s, 2, true, &d->day) && take_text(&s, " ") &&
		       take_time(&s, d) && take_text(&s, " ") &&
		       take_number(&s, 4, false, &d->year) && s.len == 0;
	if (!take_text(&s, ", ") || !take_number(&s, 2, false, &d->day))
		return false;
	if (take_text(&s, " ")) {
		if (!take_month(&s, &d->month) || !take_text(&s, " ") ||
			!take_number(&s, 4, false, &d->year))
			return false;
	} else {
		if (!take_text(&s, "-") || !take_month(&s, &d->month) || !take_text(&s, "-") ||
			!take_number(&s, 2, false, &d->year))
			return false;
		/* RFC 9110, 5.6.7: more than 50 years ahead is the century before */
		d->year += (uint32_t)(1970 + now_s / 31556952) / 100 * 100;
		if (d->year > 1970 + now_s / 31556952 + 50)
			d->year -= 100;
	}
	return take_text(&s, " ") && take_time(&s, d) && take_text(&s, " GMT") && s.len == 0;
}

int retry_after(struct span value, uint64_t now_s, uint64_t *ret_ms)
{
	struct date d = {0};
	uint64_t seconds;
	int64_t at;
	int r;

	while (value.len > 0 && (value.p[0] == ' ' || value.p[0] == '\t'))
		value = span_of(value.p + 1, value.len - 1);
	while (value.len > 0 && memchr(" \t\r\n", value.p[value.len - 1], 4))
		value.len--;
	r = num_parse(value, 0, RETRY_AFTER_MAX_MS / 1000, &seconds);
	if (r == -ERANGE)
		seconds = RETRY_AFTER_MAX_MS / 1000;
	if (r != -EINVAL) {
		*ret_ms = seconds * 1000;
		return 0;
	}
	now_s = MIN(now_s, UINT64_C(253402300799)); /* the end of 9999, the last year of a date */
	if (!take_date(value, now_s, &d) || d.day < 1 || d.day > 31 || d.hour > 23 ||
		d.minute > 59 || d.second > 60)
		return -EINVAL;
	at = days_of(&d) * 86400 + (int64_t)(d.hour * 3600 + d.minute * 60 + d.second);
	at = at > (int64_t)now_s ? at - (int64_t)now_s : 0;
	*ret_ms = MIN((uint64_t)at, RETRY_AFTER_MAX_MS / 1000) * 1000;
	return 0;
}
