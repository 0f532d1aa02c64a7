/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>

#include "pkg/sink/queue.h"
#include "pkg/sink/secrets.h"

#include <sys/stat.h>
#include <unistd.h>

static char body[3 << 20];

static int push(struct queue *q, uint64_t order, size_t len)
{
	struct queue_item item = {.order = order, .queued_ns = q->seq, .body = span_of(body, len)};

	return queue_push(q, &item);
}

START_TEST(first_in_first_out)
{
	struct queue q;
	struct queue_range range;
	struct queue_item item;
	uint64_t seq = 0, bytes = 0;

	queue_init(&q, 4 << 20, 1);
	ck_assert_uint_eq(q.used_bytes, 0);
	for (size_t i = 0; i < 3000; i++)
		ck_assert_int_eq(push(&q, i, 1 + i % 1000), 0);
	ck_assert_uint_eq(q.messages, 3000);
	while (q.messages > 0) {
		queue_take(&q, 0, 7, SIZE_MAX, &range);
		ck_assert_uint_ge(range.messages, 1);
		ck_assert_uint_le(range.messages, 7);
		ck_assert_uint_eq(range.seq, seq + 1);
		bytes = 0;
		for (struct queue_cursor c = range.first; range.messages > bytes; bytes++) {
			queue_next(&c, &item);
			ck_assert_uint_eq(item.seq, ++seq);
			ck_assert_uint_eq(item.order, seq - 1);
			ck_assert_uint_eq(item.body.len, 1 + (seq - 1) % 1000);
		}
		queue_give_back(&q, &range);
	}
	ck_assert_uint_eq(seq, 3000);
	ck_assert_uint_eq(q.bytes, 0);
	/* what is kept for later is little */
	ck_assert_uint_le(q.used_bytes, 4 << 20);
	ck_assert_uint_le(q.used_bytes, (1 + 16) * q.segment_bytes);
	queue_done(&q);
}
END_TEST

START_TEST(limits_of_a_range)
{
	struct queue q;
	struct queue_range range;

	queue_init(&q, QUEUE_BYTES_MIN, 1);
	for (int i = 0; i < 4; i++)
		ck_assert_int_eq(push(&q, 0, 100), 0);
	queue_take(&q, 0, 10, 250, &range);
	ck_assert_uint_eq(range.messages, 2);
	ck_assert_uint_eq(range.bytes, 200);
	queue_give_back(&q, &range);
	/* one alone may be larger */
	queue_take(&q, 0, 10, 50, &range);
	ck_assert_uint_eq(range.messages, 1);
	queue_give_back(&q, &range);
	queue_take(&q, 0, 10, 100, &range);
	ck_assert_uint_eq(range.messages, 1);
	queue_give_back(&q, &range);
	ck_assert_uint_eq(q.messages, 0);
	queue_done(&q);
}
END_TEST

START_TEST(the_limit)
{
	struct queue q;
	struct queue_range held;
	uint64_t seq, ns, bytes, n = 0;
	int r;

	queue_init(&q, QUEUE_BYTES_MIN, 4);
	ck_assert_int_eq(push(&q, 1, sizeof(body)), -EMSGSIZE);
	while ((r = push(&q, n, 1000)) == 0)
		n++;
	ck_assert_int_eq(r, -ENOBUFS);
	ck_assert_uint_le(q.used_bytes, QUEUE_BYTES_MIN);
	/* not much is wasted */
	ck_assert_uint_gt(n * 1000, QUEUE_BYTES_MIN * 3 / 4);
	/* what is taken cannot be dropped, and its memory is not free */
	r = queue_oldest(&q, &seq, &ns);
	ck_assert_int_ge(r, 0);
	ck_assert_uint_eq(seq, 1);
	queue_take(&q, (uint32_t)r, 1, SIZE_MAX, &held);
	n = queue_drop(&q, (uint32_t)r, &bytes);
	ck_assert_uint_gt(n, 0);
	ck_assert_uint_eq(bytes, n * 1000);
	queue_give_back(&q, &held);
	ck_assert_int_eq(push(&q, 0, 1000), 0);
	/* all of it can be dropped, oldest first */
	for (uint64_t before = 0; (r = queue_oldest(&q, &seq, &ns)) >= 0; before = seq) {
		ck_assert_uint_gt(seq, before);
		ck_assert_uint_gt(queue_drop(&q, (uint32_t)r, NULL), 0);
	}
	ck_assert_uint_eq(q.messages, 0);
	ck_assert_uint_eq(q.bytes, 0);
	/* a large one takes a segment of its own */
	ck_assert_int_eq(push(&q, 0, 600 << 10), 0);
	ck_assert_int_eq(push(&q, 0, 600 << 10), -ENOBUFS);
	ck_assert_uint_eq(queue_drop(&q, queue_lane_of(&q, 0), &bytes), 1);
	ck_assert_uint_eq(bytes, 600 << 10);
	ck_assert_int_eq(push(&q, 0, 600 << 10), 0);
	queue_done(&q);
}
END_TEST

/* Against a model: each message comes out once, in order within its lane, whatever is done. */
START_TEST(any_order_of_things)
{
	enum { RANGES = 8, LANES = 5 };
	static uint64_t next[LANES]; /* the least seq that may come */
	struct queue_range held[RANGES] = {0};
	struct queue q;
	uint64_t in = 0, out = 0, dropped = 0;

	srandom((unsigned int)_i);
	memset(next, 0, sizeof(next));
	queue_init(&q, QUEUE_BYTES_MIN, LANES);
	for (int step = 0; step < 20000; step++) {
		uint32_t lane = (uint32_t)random() % LANES;
		struct queue_range *range = &held[random() % RANGES];
		size_t len = random() % 50 == 0 ? (size_t)random() % 300000
						: 1 + (size_t)random() % 2000;

		switch (random() % 8) {
		case 0:
		case 1:
		case 2:
		case 3:
			in += push(&q, (uint64_t)random(), MAX(len, (size_t)1)) == 0;
			break;
		case 4:
		case 5:
			if (range->messages > 0) {
				queue_give_back(&q, range);
				range->messages = 0;
			}
			break;
		case 6:
			if (range->messages > 0 || q.lanes[lane].messages == 0)
				break;
			queue_take(&q, lane, 1 + (uint32_t)random() % 20, 100000, range);
			out += range->messages;
			for (struct queue_cursor c = range->first, *p = &c; p; p = NULL)
				for (uint32_t i = 0; i < range->messages; i++) {
					struct queue_item item;

					queue_next(p, &item);
					ck_assert_uint_gt(item.seq, next[lane]);
					ck_assert_uint_eq(queue_lane_of(&q, item.order), lane);
					next[lane] = item.seq;
				}
			break;
		default:
			if (random() % 20 == 0 && q.lanes[lane].messages > 0)
				dropped += queue_drop(&q, lane, NULL);
		}
		ck_assert_uint_eq(in, out + dropped + q.messages);
		ck_assert_uint_le(q.used_bytes, QUEUE_BYTES_MIN);
	}
	for (int i = 0; i < RANGES; i++)
		if (held[i].messages > 0)
			queue_give_back(&q, &held[i]);
	for (uint32_t i = 0; i < LANES; i++)
		while (q.lanes[i].messages > 0)
			ck_assert_uint_gt(queue_drop(&q, i, NULL), 0);
	ck_assert_uint_le(q.used_bytes, (LANES + 16) * q.segment_bytes);
	queue_done(&q);
}
END_TEST

/* ---- secrets ---- */

static char dir[] = "/tmp/ebpfdump-secrets-XXXXXX", headers[64], key[64];

static void put(const char *path, const char *text, size_t len)
{
	char fresh[80];
	FILE *f;

	/* as a Secret that is mounted changes: another file in its place */
	snprintf(fresh, sizeof(fresh), "%s.new", path);
	f = fopen(fresh, "w");
	ck_assert_ptr_nonnull(f);
	fwrite(text, 1, len, f);
	fclose(f);
	ck_assert_int_eq(rename(fresh, path), 0);
}

static void set_up_dir(void)
{
	memcpy(dir + sizeof(dir) - 7, "XXXXXX", 6);
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(headers, sizeof(headers), "%s/headers", dir);
	snprintf(key, sizeof(key), "%s/key", dir);
}

static void tear_down_dir(void)
{
	unlink(headers);
	unlink(key);
	rmdir(dir);
}

#define PUT(path, text) put(path, text, sizeof(text) - 1)

START_TEST(header_lines)
{
	struct secrets *s;
	struct err err;
	const char *const *lines;

	ck_assert_int_eq(secrets_new(headers, NULL, &s, &err), 0);
	ck_assert(!secrets_ready(s));
	PUT(headers,
		"Authorization: Bearer abc.def-123\r\n\n# a remark\nX-Empty:\nX-Tab:\ta\tb  \n");
	ck_assert(secrets_reload(s));
	ck_assert(secrets_ready(s));
	ck_assert_uint_eq(secrets_lines(s, &lines), 3);
	ck_assert_str_eq(lines[0], "Authorization: Bearer abc.def-123");
	ck_assert_str_eq(lines[1], "X-Empty;");
	ck_assert_str_eq(lines[2], "X-Tab:\ta\tb");
	ck_assert(!secrets_reload(s));
	/* what cannot be used leaves what is there */
	PUT(headers, "no colon\n");
	ck_assert(!secrets_reload(s));
	PUT(headers, "Content-Length: 3\n");
	ck_assert(!secrets_reload(s));
	PUT(headers, "x-ebpfdump-loader: me\n");
	ck_assert(!secrets_reload(s));
	PUT(headers, "A: b\x01\n");
	ck_assert(!secrets_reload(s));
	PUT(headers, "A: b\0c\n");
	ck_assert(!secrets_reload(s));
	PUT(headers, "A b: c\n");
	ck_assert(!secrets_reload(s));
	unlink(headers);
	ck_assert(!secrets_reload(s));
	ck_assert_uint_eq(secrets_lines(s, &lines), 3);
	ck_assert_str_eq(lines[0], "Authorization: Bearer abc.def-123");
	PUT(headers, "Authorization: Bearer new");
	ck_assert(secrets_reload(s));
	ck_assert_uint_eq(secrets_lines(s, &lines), 1);
	ck_assert_str_eq(lines[0], "Authorization: Bearer new");
	secrets_free(s);

	/* no lines are lines, too */
	PUT(headers, "");
	ck_assert_int_eq(secrets_new(headers, NULL, &s, &err), 0);
	ck_assert(secrets_ready(s));
	ck_assert_uint_eq(secrets_lines(s, &lines), 0);
	secrets_free(s);
}
END_TEST

START_TEST(signature)
{
	char text[SECRETS_SIGNATURE_LEN + 1];
	struct secrets *s;
	struct err err;

	PUT(key, "Jefe-Jefe-Jefe-Jefe\n\n");
	ck_assert_int_eq(secrets_new(NULL, key, &s, &err), 0);
	ck_assert(secrets_ready(s) && secrets_signs(s));
	for (int i = 0; i < 2; i++) {
		ck_assert(secrets_sign_begin(s));
		ck_assert(secrets_sign_add(s, SPAN("what do ya want ")));
		ck_assert(secrets_sign_add(s, SPAN("for nothing?")));
		ck_assert(secrets_sign_end(s, text));
		/* printf 'what do ya want for nothing?' | openssl dgst -sha256 -hmac KEY */
		ck_assert_str_eq(text,
			"sha256=3d130ab485fcadc54cf6d4101d0bd5eaa913b7f5d29559e205ee52a0d586f4ec");
	}
	PUT(key, "short\n");
	ck_assert(!secrets_reload(s));
	ck_assert(secrets_signs(s));
	PUT(key, "another key of enough bytes");
	ck_assert(secrets_reload(s));
	secrets_free(s);
	ck_assert_int_eq(secrets_new(NULL, NULL, &s, &err), 0);
	ck_assert(secrets_ready(s) && !secrets_signs(s));
	secrets_free(s);
}
END_TEST

static const char *hidden(const struct secrets *s, const char *text)
{
	static char out[256];

	snprintf(out, sizeof(out), "%s", text);
	secrets_hide(s, out, strlen(out));
	return out;
}

START_TEST(hiding)
{
	struct secrets *s;
	struct err err;

	PUT(headers, "Authorization: Bearer abcdef123456\nX-Pin: 77\n");
	PUT(key, "the key that signs\n");
	ck_assert_int_eq(secrets_new(headers, key, &s, &err), 0);
	ck_assert_str_eq(hidden(s, "got abcdef123456."), "got ************.");
	/* cut off in the middle */
	ck_assert_str_eq(hidden(s, "got abcdef12"), "got ********");
	ck_assert_str_eq(hidden(s, "got abcd"), "got abcd");
	ck_assert_str_eq(hidden(s, "pin 77!"), "pin **!");
	ck_assert_str_eq(hidden(s, "the key that signs it"), "****************** it");
	ck_assert_str_eq(hidden(s, "nothing of it"), "nothing of it");
	ck_assert_str_eq(hidden(s, ""), "");
	/* values of the URL's query, not their names */
	ck_assert_int_eq(secrets_query(s, "http://h/p"), 0);
	ck_assert_int_eq(secrets_query(s, "http://h/p?token=sesame-1234&zz=&barevalue99"), 0);
	ck_assert_str_eq(hidden(s, "no /p?token=sesame-1234&zz=&barevalue99"),
		"no /p?token=***********&zz=&***********");
	secrets_free(s);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("sink_queue");
	TCase *t = tcase_create("queue"), *f = tcase_create("secrets");
	SRunner *r = srunner_create(s);
	int failed;

	memset(body, 'x', sizeof(body));
	log_setup(LOG_ERROR, LOG_TEXT, "test", "");
	tcase_add_test(t, first_in_first_out);
	tcase_add_test(t, limits_of_a_range);
	tcase_add_test(t, the_limit);
	tcase_add_loop_test(t, any_order_of_things, 0, 20);
	tcase_set_timeout(t, 120);
	suite_add_tcase(s, t);
	tcase_add_checked_fixture(f, set_up_dir, tear_down_dir);
	tcase_add_test(f, header_lines);
	tcase_add_test(f, signature);
	tcase_add_test(f, hiding);
	suite_add_tcase(s, f);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
