/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <sys/random.h>
#include <time.h>

#include "pkg/kube/kube.h"

uint64_t kube_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return (uint64_t)ts.tv_sec * KUBE_SECOND + (uint64_t)ts.tv_nsec;
}

double kube_random(void)
{
	uint64_t bits = 0;

	/* Not there early at boot, if at all: the jitter is then the clock's. */
	if (getrandom(&bits, sizeof(bits), GRND_NONBLOCK) != sizeof(bits))
		bits = clock_mono_ns() * UINT64_C(0x9E3779B97F4A7C15);
	return (double)(bits >> 11) / (double)(UINT64_C(1) << 53);
}

static void format_seconds(uint64_t wall_ns, char *out)
{
	time_t seconds = (time_t)(wall_ns / KUBE_SECOND);
	struct tm tm;

	gmtime_r(&seconds, &tm);
	strftime(out, KUBE_TIME_MAX, "%Y-%m-%dT%H:%M:%S", &tm);
}

void kube_time_format(uint64_t wall_ns, char *out)
{
	size_t len;

	format_seconds(wall_ns, out);
	len = strlen(out);
	snprintf(out + len, KUBE_TIME_MAX - len, "Z");
}

void kube_micro_time_format(uint64_t wall_ns, char *out)
{
	size_t len;

	format_seconds(wall_ns, out);
	len = strlen(out);
	snprintf(out + len, KUBE_TIME_MAX - len, ".%06uZ",
		(unsigned int)(wall_ns % KUBE_SECOND / 1000));
}

/* n digits at *p, which moves on. */
static bool digits(const char **p, int n, int min, int max, int *ret)
{
	int value = 0;

	for (int i = 0; i < n; i++, (*p)++) {
		if (**p < '0' || **p > '9')
			return false;
		value = value * 10 + (**p - '0');
	}
	*ret = value;
	return value >= min && value <= max;
}

static bool literal(const char **p, char c)
{
	if (**p != c)
		return false;
	(*p)++;
	return true;
}

static bool fraction(const char **p, uint64_t *ret_ns)
{
	uint64_t ns = 0, unit = KUBE_SECOND / 10;

	if (**p < '0' || **p > '9')
		return false;
	for (; **p >= '0' && **p <= '9'; (*p)++, unit /= 10)
		ns += (uint64_t)(**p - '0') * unit;
	*ret_ns = ns;
	return true;
}

static bool offset(const char **p, int *ret_seconds)
{
	int sign = **p == '-' ? -1 : 1, hours, minutes;

	if (literal(p, 'Z') || literal(p, 'z')) {
		*ret_seconds = 0;
		return true;
	}
	if (!literal(p, '+') && !literal(p, '-'))
		return false;
	if (!digits(p, 2, 0, 23, &hours) || !literal(p, ':') || !digits(p, 2, 0, 59, &minutes))
		return false;
	*ret_seconds = sign * (hours * 3600 + minutes * 60);
	return true;
}

int kube_time_parse(const char *text, uint64_t *ret_wall_ns)
{
	static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	struct tm tm = {0};
	uint64_t ns = 0;
	int shift, leap;
	int64_t seconds;

	if (!digits(&text, 4, 0, 9999, &tm.tm_year) || !literal(&text, '-') ||
		!digits(&text, 2, 1, 12, &tm.tm_mon) || !literal(&text, '-') ||
		!digits(&text, 2, 1, 31, &tm.tm_mday) ||
		(!literal(&text, 'T') && !literal(&text, 't')) ||
		!digits(&text, 2, 0, 23, &tm.tm_hour) || !literal(&text, ':') ||
		!digits(&text, 2, 0, 59, &tm.tm_min) || !literal(&text, ':') ||
		!digits(&text, 2, 0, 60, &tm.tm_sec))
		return -EINVAL;
	if (literal(&text, '.') && !fraction(&text, &ns))
		return -EINVAL;
	if (!offset(&text, &shift) || *text != '\0')
		return -EINVAL;
	leap = tm.tm_mon == 2 && tm.tm_year % 4 == 0 &&
	       (tm.tm_year % 100 != 0 || tm.tm_year % 400 == 0);
	if (tm.tm_mday > days[tm.tm_mon - 1] + leap)
		return -EINVAL;
	tm.tm_year -= 1900;
	tm.tm_mon -= 1;
	seconds = (int64_t)timegm(&tm) - shift;
	if (seconds < 0 || seconds > INT64_MAX / (int64_t)KUBE_SECOND - 1)
		return -ERANGE;
	*ret_wall_ns = (uint64_t)seconds * KUBE_SECOND + ns;
	return 0;
}
