/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "pkg/sink/retry.h"

START_TEST(verdicts)
{
	static const long again[] = {0, 100, 101, 408, 425, 429, 500, 502, 503, 504, 507, 599};
	static const long never[] = {300, 301, 302, 307, 308, 400, 401, 403, 404, 405, 410, 413,
		415, 422, 426, 431, 499, 600, 999};

	for (long s = 200; s < 300; s++)
		ck_assert_int_eq(retry_of_status(s), RETRY_DELIVERED);
	for (size_t i = 0; i < ARRAY_SIZE(again); i++)
		ck_assert_int_eq(retry_of_status(again[i]), RETRY_AGAIN);
	for (size_t i = 0; i < ARRAY_SIZE(never); i++)
		ck_assert_int_eq(retry_of_status(never[i]), RETRY_NEVER);
}
END_TEST

START_TEST(backoff)
{
	uint64_t full = 500;

	for (uint32_t attempts = 1; attempts < 100; attempts++) {
		ck_assert_uint_eq(retry_backoff_ms(attempts, 0), full / 2);
		ck_assert_uint_eq(retry_backoff_ms(attempts, full / 2), full);
		for (int i = 0; i < 100; i++) {
			uint64_t ms = retry_backoff_ms(
				attempts, (uint64_t)random() << 33 | (uint64_t)random());

			ck_assert_uint_ge(ms, full / 2);
			ck_assert_uint_le(ms, full);
		}
		full = MIN(full * 2, UINT64_C(30000));
	}
	ck_assert_uint_le(retry_backoff_ms(0, 7), 500);
	ck_assert_uint_le(retry_backoff_ms(UINT32_MAX, UINT64_MAX), 30000);
}
END_TEST

#define NOW UINT64_C(784111777) /* Sun, 06 Nov 1994 08:49:37 GMT */

static int64_t after(const char *value, uint64_t now)
{
	uint64_t ms = 12345;
	int r = retry_after(span_str(value), now, &ms);

	if (r == 0)
		return (int64_t)ms;
	ck_assert_int_eq(r, -EINVAL);
	ck_assert_uint_eq(ms, 12345);
	return -1;
}

START_TEST(after_seconds)
{
	ck_assert_int_eq(after("0", NOW), 0);
	ck_assert_int_eq(after("1", NOW), 1000);
	ck_assert_int_eq(after(" 120\r\n", NOW), 120000);
	ck_assert_int_eq(after("\t7 ", NOW), 7000);
	ck_assert_int_eq(after("300", NOW), 300000);
	ck_assert_int_eq(after("301", NOW), 300000);
	ck_assert_int_eq(after("99999999999999999999999999", NOW), 300000);
	ck_assert_int_eq(after("", NOW), -1);
	ck_assert_int_eq(after(" ", NOW), -1);
	ck_assert_int_eq(after("-1", NOW), -1);
	ck_assert_int_eq(after("+1", NOW), -1);
	ck_assert_int_eq(after("1.5", NOW), -1);
	ck_assert_int_eq(after("1s", NOW), -1);
	ck_assert_int_eq(after("1, 2", NOW), -1);
}
END_TEST

START_TEST(after_dates)
{
	ck_assert_int_eq(after("Sun, 06 Nov 1994 08:49:37 GMT", NOW), 0);
	ck_assert_int_eq(after("Sun, 06 Nov 1994 08:49:38 GMT", NOW), 1000);
	ck_assert_int_eq(after("Sunday, 06-Nov-94 08:50:37 GMT", NOW), 60000);
	ck_assert_int_eq(after("Sun Nov  6 08:49:47 1994", NOW), 10000);
	ck_assert_int_eq(after("Wed Nov 16 08:49:47 1994", NOW), 300000);
	/* what is past, and what is far */
	ck_assert_int_eq(after("Sun, 06 Nov 1994 08:49:36 GMT", NOW), 0);
	ck_assert_int_eq(after("Thu, 01 Jan 1970 00:00:00 GMT", NOW), 0);
	ck_assert_int_eq(after("Sun, 06 Nov 2094 08:49:37 GMT", NOW), 300000);
	ck_assert_int_eq(after("Fri, 31 Dec 9999 23:59:60 GMT", NOW), 300000);
	ck_assert_int_eq(after("Sat, 01 Jan 0000 00:00:00 GMT", NOW), 0);
	/* two digits: at most 50 years ahead */
	ck_assert_int_eq(after("Sunday, 06-Nov-44 08:49:37 GMT", NOW), 0);
	ck_assert_int_eq(after("Sunday, 06-Nov-94 08:49:37 GMT", NOW + 1000), 0);
	ck_assert_int_eq(after("Friday, 01-Jan-10 00:00:05 GMT", 1262304000), 5000);
	ck_assert_int_eq(after("Friday, 01-Jan-49 00:00:05 GMT", 1262304000), 300000);
	ck_assert_int_eq(after("Friday, 01-Jan-99 00:00:05 GMT", 1262304000), 0);

	ck_assert_int_eq(after("Sun, 06 Nov 1994 08:49:37", NOW), -1);
	ck_assert_int_eq(after("Sun, 06 Nov 1994 08:49:37 CET", NOW), -1);
	ck_assert_int_eq(after("Sun, 6 Nov 1994 08:49:37 GMT", NOW), -1);
	ck_assert_int_eq(after("Sun, 06 nov 1994 08:49:37 GMT", NOW), -1);
	ck_assert_int_eq(after("Sun, 00 Nov 1994 08:49:37 GMT", NOW), -1);
	ck_assert_int_eq(after("Sun, 32 Nov 1994 08:49:37 GMT", NOW), -1);
	ck_assert_int_eq(after("Sun, 06 Nov 1994 24:49:37 GMT", NOW), -1);
	ck_assert_int_eq(after("Sun, 06 Nov 1994 08:60:37 GMT", NOW), -1);
	ck_assert_int_eq(after("Sun, 06 Nov 1994 08:49:37 GMT x", NOW), -1);
	ck_assert_int_eq(after("Su, 06 Nov 1994 08:49:37 GMT", NOW), -1);
	ck_assert_int_eq(after("Sun Nov 06 08:49:47 1994 GMT", NOW), -1);
	ck_assert_int_eq(after("Sun Nov   08:49:47 1994", NOW), -1);
}
END_TEST

/* Against the C library's calendar. */
START_TEST(after_any_date)
{
	char text[64];

	for (int i = 0; i < 20000; i++) {
		time_t at = (time_t)((uint64_t)random() % UINT64_C(7000000000));
		uint64_t before = (uint64_t)random() % 300, want = MIN(before, (uint64_t)at);
		struct tm tm;

		gmtime_r(&at, &tm);
		strftime(text, sizeof(text),
			i % 2 ? "%a, %d %b %Y %H:%M:%S GMT" : "%a %b %e %H:%M:%S %Y", &tm);
		ck_assert_msg(after(text, (uint64_t)at - want) == (int64_t)want * 1000, "%s", text);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("sink_retry");
	TCase *t = tcase_create("retry");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_add_test(t, verdicts);
	tcase_add_test(t, backoff);
	tcase_add_test(t, after_seconds);
	tcase_add_test(t, after_dates);
	tcase_add_test(t, after_any_date);
	suite_add_tcase(s, t);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
