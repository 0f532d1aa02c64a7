/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "pkg/base/base.h"

/* ---- spans, errors ---- */

START_TEST(spans)
{
	ck_assert(span_eq(SPAN("abc"), span_str("abc")));
	ck_assert(!span_eq(SPAN("abc"), SPAN("abd")));
	ck_assert(!span_eq(SPAN("abc"), SPAN("ab")));
	ck_assert(span_eq(span_of(NULL, 0), SPAN("")));
	ck_assert(span_eq_nocase(span_of(NULL, 0), SPAN("")));
	ck_assert(span_eq_nocase(SPAN("Content-LENGTH"), SPAN("content-length")));
	/* '@' and '`', '[' and '{' differ by the bit of case, and are no letters */
	ck_assert(!span_eq_nocase(SPAN("@"), SPAN("`")));
	ck_assert(!span_eq_nocase(SPAN("["), SPAN("{")));
	ck_assert(!span_eq_nocase(SPAN("\xc9"), SPAN("\xe9")));
}
END_TEST

START_TEST(errors)
{
	struct err err = {0};
	char longer[3000];

	ck_assert_int_eq(err_set(&err, ENOENT, "no file %d", 7), -ENOENT);
	ck_assert_int_eq(err.code, ENOENT);
	ck_assert_str_eq(err.text, "no file 7");
	ck_assert_int_eq(err_wrap(&err, "reading %s", "x"), -ENOENT);
	ck_assert_str_eq(err.text, "reading x: no file 7");
	/* an argument that points into the text itself */
	ck_assert_int_eq(err_set(&err, EIO, "again: %s", err.text), -EIO);
	ck_assert_str_eq(err.text, "again: reading x: no file 7");

	ck_assert_int_eq(err_set(NULL, ENOENT, "x"), -ENOENT);
	ck_assert_int_eq(err_wrap(NULL, "x"), -EIO);

	memset(longer, 'a', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	err_set(&err, EIO, "%s", longer);
	ck_assert_uint_eq(strlen(err.text), sizeof(err.text) - 1);
	err_wrap(&err, "front");
	ck_assert_uint_eq(strlen(err.text), sizeof(err.text) - 1);
	ck_assert_int_eq(strncmp(err.text, "front: aaa", 10), 0);
	/* a context of every length around the end of the buffer */
	for (int n = 1010; n < 1030; n++) {
		err_set(&err, EIO, "tail");
		err_wrap(&err, "%.*s", n, longer);
		ck_assert_uint_le(strlen(err.text), sizeof(err.text) - 1);
		ck_assert_uint_ge(strlen(err.text), 1010);
	}
}
END_TEST

START_TEST(take)
{
	CLEANUP(freep)
	char *text = strdup("x");
	char *mine = TAKE(text);
	CLEANUP(closep)
	int fd = dup(0);
	int my_fd = TAKE_FD(fd);

	ck_assert_ptr_null(text);
	ck_assert_str_eq(mine, "x");
	ck_assert_int_eq(fd, -1);
	ck_assert_int_ge(my_fd, 0);
	ck_assert_int_eq(close(my_fd), 0);
	free(mine);
}
END_TEST

/* ---- buffers ---- */

START_TEST(buffers)
{
	struct buf b = BUF_INIT(1000);
	char block[600];

	memset(block, 'x', sizeof(block));
	ck_assert_int_eq(buf_append(&b, NULL, 0), 0);
	ck_assert_int_eq(buf_append(&b, "hello", 5), 0);
	ck_assert_int_eq(buf_printf(&b, " %s %d", "world", 42), 0);
	ck_assert_mem_eq(b.data, "hello world 42", 14);
	ck_assert_uint_eq(b.len, 14);
	buf_consume(&b, 6);
	ck_assert_mem_eq(b.data, "world 42", 8);
	buf_consume(&b, 8);
	ck_assert_uint_eq(b.len, 0);

	ck_assert_int_eq(buf_append(&b, block, 600), 0);
	ck_assert_int_eq(buf_append(&b, block, 401), -ENOBUFS);
	ck_assert_int_eq(buf_append(&b, block, SIZE_MAX), -ENOBUFS);
	ck_assert_int_eq(buf_printf(&b, "%401s", "x"), -ENOBUFS);
	ck_assert_uint_eq(b.len, 600);
	/* up to the last byte of max, which has no room for printf's NUL */
	ck_assert_int_eq(buf_printf(&b, "%400s", "end"), 0);
	ck_assert_uint_eq(b.len, 1000);
	ck_assert_uint_eq(b.cap, 1000);
	ck_assert_mem_eq(b.data + 997, "end", 3);
	ck_assert_int_eq(buf_append(&b, "y", 1), -ENOBUFS);
	buf_done(&b);
	ck_assert_ptr_null(b.data);
	ck_assert_int_eq(buf_printf(&b, "%s", "anew"), 0);
	ck_assert_mem_eq(b.data, "anew", 4);
	buf_done(&b);
	buf_done(&b);
}
END_TEST

START_TEST(buffer_without_room)
{
	struct buf b = BUF_INIT(0);

	ck_assert_int_eq(buf_append(&b, "", 0), 0);
	ck_assert_int_eq(buf_append(&b, "x", 1), -ENOBUFS);
	ck_assert_int_eq(buf_printf(&b, "%s", ""), 0);
	ck_assert_int_eq(buf_printf(&b, "x"), -ENOBUFS);
	ck_assert_ptr_null(b.data);
	buf_done(&b);
}
END_TEST

START_TEST(buffer_grows_geometrically)
{
	struct buf b = BUF_INIT(64 << 20);
	size_t cap = 0, grown = 0;

	for (int i = 0; i < 1 << 20; i++) {
		ck_assert_int_eq(buf_append(&b, "abcd", 4), 0);
		grown += b.cap != cap;
		cap = b.cap;
	}
	ck_assert_uint_lt(grown, 32);
	buf_done(&b);
}
END_TEST

/* ---- numbers ---- */

enum { PLAIN, SIZE, DURATION };

static const struct {
	int how;
	const char *text;
	uint64_t min, max;
	int r;
	uint64_t value;
} number_cases[] = {
	{PLAIN, "0", 0, UINT64_MAX, 0, 0},
	{PLAIN, "007", 0, 10, 0, 7},
	{PLAIN, "18446744073709551615", 0, UINT64_MAX, 0, UINT64_MAX},
	{PLAIN, "18446744073709551616", 0, UINT64_MAX, -ERANGE, 0},
	{PLAIN, "99999999999999999999999999999", 0, UINT64_MAX, -ERANGE, 0},
	{PLAIN, "4", 5, 9, -ERANGE, 0},
	{PLAIN, "10", 5, 9, -ERANGE, 0},
	{PLAIN, "", 0, 9, -EINVAL, 0},
	{PLAIN, "-1", 0, 9, -EINVAL, 0},
	{PLAIN, "+1", 0, 9, -EINVAL, 0},
	{PLAIN, " 1", 0, 9, -EINVAL, 0},
	{PLAIN, "1 ", 0, 9, -EINVAL, 0},
	{PLAIN, "0x1", 0, 9, -EINVAL, 0},
	{PLAIN, "1K", 0, 9, -EINVAL, 0},
	{PLAIN, "99999999999999999999999999999x", 0, 9, -EINVAL, 0},
	{SIZE, "0", 0, 9, 0, 0},
	{SIZE, "1K", 0, 1 << 20, 0, 1024},
	{SIZE, "1Ki", 0, 1 << 20, 0, 1024},
	{SIZE, "3M", 0, UINT64_MAX, 0, 3 << 20},
	{SIZE, "3Mi", 0, UINT64_MAX, 0, 3 << 20},
	{SIZE, "2G", 0, UINT64_MAX, 0, UINT64_C(2) << 30},
	{SIZE, "2Gi", 0, UINT64_MAX, 0, UINT64_C(2) << 30},
	{SIZE, "17179869184G", 0, UINT64_MAX, -ERANGE, 0},
	{SIZE, "1025", 0, 1024, -ERANGE, 0},
	{SIZE, "2K", 0, 1024, -ERANGE, 0},
	{SIZE, "K", 0, 1024, -EINVAL, 0},
	{SIZE, "1k", 0, 1024, -EINVAL, 0},
	{SIZE, "1KB", 0, 1024, -EINVAL, 0},
	{SIZE, "1i", 0, 1024, -EINVAL, 0},
	{SIZE, "1Kii", 0, 1024, -EINVAL, 0},
	{SIZE, "1.5K", 0, 1024, -EINVAL, 0},
	{SIZE, "1T", 0, UINT64_MAX, -EINVAL, 0},
	{DURATION, "20ms", 1, 1000, 0, 20},
	{DURATION, "1s", 1, 1000, 0, 1000},
	{DURATION, "2m", 0, UINT64_MAX, 0, 120000},
	{DURATION, "24h", 0, UINT64_MAX, 0, 86400000},
	{DURATION, "0", 0, 1000, 0, 0},
	{DURATION, "0s", 0, 1000, 0, 0},
	{DURATION, "0", 1, 1000, -ERANGE, 0},
	{DURATION, "1001ms", 1, 1000, -ERANGE, 0},
	{DURATION, "2s", 1, 1000, -ERANGE, 0},
	{DURATION, "5124095576031h", 0, UINT64_MAX, -ERANGE, 0},
	{DURATION, "20", 1, 1000, -EINVAL, 0},
	{DURATION, "20 ms", 1, 1000, -EINVAL, 0},
	{DURATION, "1d", 1, 1000, -EINVAL, 0},
	{DURATION, "ms", 1, 1000, -EINVAL, 0},
	{DURATION, "", 1, 1000, -EINVAL, 0},
};

START_TEST(numbers)
{
	__typeof__(&number_cases[0]) c = &number_cases[_i];
	int (*parse)(struct span, uint64_t, uint64_t, uint64_t *) = c->how == PLAIN ? num_parse
								    : c->how == SIZE
									    ? num_parse_size
									    : num_parse_duration;
	uint64_t value = 4711;

	ck_assert_msg(parse(span_str(c->text), c->min, c->max, &value) == c->r, "%s", c->text);
	/* outputs are written on success only */
	ck_assert_uint_eq(value, c->r == 0 ? c->value : 4711);
}
END_TEST

START_TEST(number_format)
{
	uint64_t values[] = {0, 1, 9, 10, 99, 100, 12345678901, UINT64_MAX};

	for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
		char want[32], got[32];
		size_t n = num_format(got, values[i]);

		snprintf(want, sizeof(want), "%llu", (unsigned long long)values[i]);
		ck_assert_uint_eq(n, strlen(want));
		ck_assert_mem_eq(got, want, n);
	}
}
END_TEST

/* ---- UTF-8 ---- */

static size_t encode(uint32_t c, char *out)
{
	if (c < 0x80) {
		out[0] = (char)c;
		return 1;
	}
	if (c < 0x800) {
		out[0] = (char)(0xc0 | c >> 6);
		out[1] = (char)(0x80 | (c & 0x3f));
		return 2;
	}
	if (c < 0x10000) {
		out[0] = (char)(0xe0 | c >> 12);
		out[1] = (char)(0x80 | (c >> 6 & 0x3f));
		out[2] = (char)(0x80 | (c & 0x3f));
		return 3;
	}
	out[0] = (char)(0xf0 | c >> 18);
	out[1] = (char)(0x80 | (c >> 12 & 0x3f));
	out[2] = (char)(0x80 | (c >> 6 & 0x3f));
	out[3] = (char)(0x80 | (c & 0x3f));
	return 4;
}

START_TEST(utf8_every_character)
{
	char text[4];

	/* up to what four bytes can hold: beyond U+10FFFF, and the surrogates, is no character */
	for (uint32_t c = 0; c < 0x200000; c++) {
		bool good = c <= 0x10ffff && (c < 0xd800 || c > 0xdfff);
		size_t len = encode(c, text);

		if (utf8_valid(text, len) != (good ? len : 0) || utf8_incomplete(text, len))
			ck_abort_msg("U+%04X", c);
		for (size_t n = 1; n < len; n++) {
			if (utf8_valid(text, n) != 0)
				ck_abort_msg("U+%04X, %zu bytes of it", c, n);
			if (good && !utf8_incomplete(text, n))
				ck_abort_msg("U+%04X, %zu bytes of it", c, n);
		}
	}
}
END_TEST

/* All of one and two bytes: valid exactly if it is what some character encodes to. */
START_TEST(utf8_every_pair)
{
	static bool valid[0x10000];
	char text[4];

	for (uint32_t c = 0x80; c < 0x800; c++) {
		encode(c, text);
		valid[(uint8_t)text[0] << 8 | (uint8_t)text[1]] = true;
	}
	for (uint32_t i = 0; i < 0x10000; i++) {
		size_t want = i >> 8 >= 0x80 ? (valid[i] ? 2 : 0) : (i & 0xff) < 0x80 ? 2 : 1;

		text[0] = (char)(i >> 8);
		text[1] = (char)i;
		ck_assert_uint_eq(utf8_valid(text, 2), want);
	}
}
END_TEST

START_TEST(utf8_forms)
{
	static const struct {
		struct span text;
		size_t valid;
	} cases[] = {
		{SPAN("\xc0\x80"), 0},		   /* overlong NUL */
		{SPAN("\xe0\x9f\xbf"), 0},	   /* overlong U+07FF */
		{SPAN("\xf0\x8f\xbf\xbf"), 0},	   /* overlong U+FFFF */
		{SPAN("\xed\xa0\x80"), 0},	   /* surrogate */
		{SPAN("\xf4\x90\x80\x80"), 0},	   /* U+110000 */
		{SPAN("\xf8\x88\x80\x80\x80"), 0}, /* five bytes */
		{SPAN("ab\xff"), 2},
		{SPAN("ab\x80"), 2},
		{SPAN("\xe2\x82\xac\xe2\x82"), 3},
		{SPAN("a\0b"), 3},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		ck_assert_uint_eq(utf8_valid(cases[i].text.p, cases[i].text.len), cases[i].valid);
	ck_assert_uint_eq(utf8_valid(NULL, 0), 0);
	ck_assert(!utf8_incomplete(NULL, 0));
	ck_assert(!utf8_incomplete("\xe0\x9f", 2));
	ck_assert(!utf8_incomplete("\xed\xa0", 2));
	ck_assert(!utf8_incomplete("\xf4\x90", 2));
	ck_assert(!utf8_incomplete("\xc1", 1));
	ck_assert(!utf8_incomplete("a", 1));
	ck_assert(utf8_incomplete("\xf4\x8f\xbf", 3));
}
END_TEST

/* A fault, or a character, at every offset of a long ASCII text; memory ends with the text. */
START_TEST(utf8_offsets)
{
	for (size_t len = 1; len < 70; len++) {
		char *text = malloc(len);

		for (size_t at = 0; at < len; at++) {
			memset(text, 'a', len);
			ck_assert_uint_eq(utf8_valid(text, len), len);
			text[at] = (char)0xff;
			ck_assert_uint_eq(utf8_valid(text, len), at);
			if (at + 2 <= len) {
				memcpy(text + at, "\xc3\xa9", 2);
				ck_assert_uint_eq(utf8_valid(text, len), len);
				ck_assert_uint_eq(utf8_valid(text, at + 1), at);
			}
		}
		free(text);
	}
}
END_TEST

/* ---- clock ---- */

START_TEST(clocks)
{
	uint64_t mono = clock_mono_ns();
	int64_t offset = clock_offset_ns();
	int64_t gap = (int64_t)clock_wall_ns() - ((int64_t)clock_mono_ns() + offset);

	ck_assert_uint_ge(clock_mono_ns(), mono);
	/* a clock that is stepped just now is not this test's matter: a minute is no precision */
	ck_assert_int_lt(llabs(gap), INT64_C(60000000000));
}
END_TEST

/* ---- log ---- */

static int log_pipe[2];

static void log_to_pipe(void)
{
	ck_assert_int_eq(pipe(log_pipe), 0);
	ck_assert_int_ge(dup2(log_pipe[1], STDERR_FILENO), 0);
}

static const char *log_read(void)
{
	static char text[1 << 17];
	ssize_t n;

	fcntl(log_pipe[0], F_SETFL, O_NONBLOCK);
	n = read(log_pipe[0], text, sizeof(text) - 1);
	text[n > 0 ? n : 0] = '\0';
	return text;
}

START_TEST(log_text)
{
	unsigned int year, ms;
	const char *line;
	char rest[200];

	log_to_pipe();
	log_setup(LOG_INFO, LOG_TEXT, "loader", "");
	errno = EBADF;
	log_info("message %d", 7);
	ck_assert_int_eq(errno, EBADF);
	line = log_read();
	ck_assert_int_eq(
		sscanf(line, "%4u-%*2u-%*2uT%*2u:%*2u:%*2u.%3uZ%199[^\n]\n", &year, &ms, rest), 3);
	ck_assert_uint_ge(year, 2024);
	ck_assert_str_eq(rest, " INFO loader: message 7");

	log_debug("nothing of it");
	ck_assert_str_eq(log_read(), "");
	ck_assert(log_enabled(LOG_WARN));
	ck_assert(!log_enabled(LOG_DEBUG));

	log_setup(LOG_DEBUG, LOG_TEXT, "loader", "node-1");
	log_debug("a\nb\x1b[31m\xff \xc3\xa9 \xc2\x9b \x7f");
	ck_assert_ptr_nonnull(strstr(log_read(),
		" DEBUG loader@node-1: a\\x0ab\\x1b[31m\\xff \xc3\xa9 \\u009b \\x7f\n"));
}
END_TEST

static struct json_object *parse_line(const char *line)
{
	struct json_tokener *tok = json_tokener_new();
	struct json_object *object;

	/* Not STRICT: json-c 0.18 then refuses every byte of 0x80 and more (its issue 892). What
	 * STRICT is wanted for here: */
	json_tokener_set_flags(tok, JSON_TOKENER_VALIDATE_UTF8);
	for (const char *p = line; *p && *p != '\n'; p++)
		if ((unsigned char)*p < ' ') /* each ck_assert writes to a file */
			ck_abort_msg("a control character in %s", line);
	ck_assert_uint_gt(strlen(line), 2);
	ck_assert_ptr_eq(strchr(line, '\n'), line + strlen(line) - 1);
	object = json_tokener_parse_ex(tok, line, (int)strlen(line) - 1);
	ck_assert_msg(object != NULL, "%s", line);
	ck_assert_uint_eq(json_tokener_get_parse_end(tok), strlen(line) - 1);
	json_tokener_free(tok);
	return object;
}

static const char *json_text(struct json_object *object, const char *key)
{
	return json_object_get_string(json_object_object_get(object, key));
}

START_TEST(log_json)
{
	struct json_object *object;

	log_to_pipe();
	log_setup(LOG_INFO, LOG_JSON, "loader", "node \"1\"\\");
	log_warn("quote \" backslash \\ newline \n escape \x1b bad \xe2\x82 good \xe2\x82\xac");
	object = parse_line(log_read());
	ck_assert_str_eq(json_text(object, "level"), "warn");
	ck_assert_str_eq(json_text(object, "component"), "loader");
	ck_assert_str_eq(json_text(object, "node"), "node \"1\"\\");
	ck_assert_str_eq(json_text(object, "msg"),
		"quote \" backslash \\ newline \n escape \x1b bad \xc3\xa2\xc2\x82 good "
		"\xe2\x82\xac");
	ck_assert_uint_eq(strlen(json_text(object, "time")), strlen("2026-11-23T21:09:00.123Z"));
	json_object_put(object);

	log_setup(LOG_INFO, LOG_JSON, "loader", "");
	log_info("%s", "");
	object = parse_line(log_read());
	ck_assert(!json_object_object_get_ex(object, "node", NULL));
	json_object_put(object);
}
END_TEST

/* Whatever the length and the escapes, a line is whole and at most 4 KiB. */
START_TEST(log_long)
{
	static const char *const units[] = {"a", "\"", "\x01", "\xff", "\xf0\x9f\x98\x80"};
	static char text[9000];
	struct json_object *object;

	log_to_pipe();
	for (size_t u = 0; u < ARRAY_SIZE(units); u++) {
		size_t unit = strlen(units[u]), len = 0;

		while (len + unit < sizeof(text)) {
			memcpy(text + len, units[u], unit);
			len += unit;
		}
		text[len] = '\0';
		for (int cut = 3900; cut < 4200; cut++) {
			log_setup(LOG_INFO, LOG_JSON, "loader", "n");
			log_info("%.*s", cut, text);
			object = parse_line(log_read());
			json_object_put(object);
			log_setup(LOG_INFO, LOG_TEXT, "loader", "n");
			log_info("%.*s", cut, text);
			len = strlen(log_read());
			ck_assert_uint_le(len, 4096);
			ck_assert_uint_gt(len, 3900);
		}
	}
}
END_TEST

/* A reader of standard error that stands still costs lines, not the program. */
START_TEST(log_stopped_reader)
{
	char block[1024];
	const char *text;

	log_to_pipe();
	log_setup(LOG_INFO, LOG_TEXT, "loader", "");
	memset(block, 'x', sizeof(block) - 1);
	block[sizeof(block) - 1] = '\0';
	for (int i = 0; i < 500; i++)
		log_info("%s", block);
	text = log_read();
	ck_assert_uint_gt(strlen(text), 32768);
	log_read();
	log_info("back");
	text = log_read();
	ck_assert_ptr_nonnull(strstr(text, "INFO loader: back\n"));
	ck_assert_ptr_nonnull(strstr(text, " lines of log lost: "));
	log_info("once");
	text = log_read();
	ck_assert_ptr_nonnull(strstr(text, "INFO loader: once\n"));
	ck_assert_ptr_null(strstr(text, "lost"));
}
END_TEST

static void *log_thread(void *ctx)
{
	for (int i = 0; i < 200; i++)
		log_info("%d", *(int *)ctx);
	return NULL;
}

START_TEST(log_threads)
{
	pthread_t threads[4];
	int ids[4], lines = 0;
	char *line, *save = NULL;
	char *text;

	log_to_pipe();
	log_setup(LOG_INFO, LOG_TEXT, "loader", "");
	for (int i = 0; i < 4; i++) {
		ids[i] = i;
		ck_assert_int_eq(pthread_create(&threads[i], NULL, log_thread, &ids[i]), 0);
	}
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	text = strdup(log_read());
	for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save), lines++)
		ck_assert_uint_eq(strlen(line), strlen("2026-11-23T21:09:00.123Z INFO loader: 0"));
	ck_assert_int_eq(lines, 800);
	free(text);
}
END_TEST

/* ---- loop ---- */

struct pipes {
	struct loop *loop;
	int fds[8][2];
	struct loop_source *sources[8];
	int calls[8], removed;
	int fresh_calls;
	struct loop_source *fresh;
};

struct end {
	struct pipes *pipes;
	int index;
};

static struct loop *new_loop(void)
{
	struct loop *loop = NULL;
	struct err err;

	ck_assert_int_eq(loop_new(&loop, &err), 0);
	return loop;
}

static void quit_on_timer(void *ctx)
{
	loop_quit(ctx, 42);
}

static void fresh_readable(void *ctx, int fd, uint32_t events)
{
	struct pipes *p = ctx;

	p->fresh_calls++;
}

/* Whichever comes first removes all the others and itself, closes their fds, reuses their numbers.
 */
static void remove_all(void *ctx, int fd, uint32_t events)
{
	struct end *end = ctx;
	struct pipes *p = end->pipes;

	ck_assert_uint_eq(events, EPOLLIN);
	p->calls[end->index]++;
	for (int i = 0; i < 8; i++) {
		loop_remove(p->sources[i]);
		close(p->fds[i][0]);
		close(p->fds[i][1]);
		p->removed++;
	}
	/* the lowest free number: one of those just closed, with events still in the batch */
	ck_assert_int_eq(pipe(p->fds[0]), 0);
	ck_assert_int_eq(
		loop_add_fd(p->loop, p->fds[0][0], EPOLLIN, fresh_readable, p, &p->fresh), 0);
	ck_assert_int_eq(loop_add_timer(p->loop, 20, 0, quit_on_timer, p->loop, NULL), 0);
}

START_TEST(loop_remove_in_batch)
{
	struct pipes p = {.loop = new_loop()};
	struct end ends[8];
	int calls = 0;

	for (int i = 0; i < 8; i++) {
		ck_assert_int_eq(pipe(p.fds[i]), 0);
		ck_assert_int_eq(write(p.fds[i][1], "x", 1), 1);
		ends[i] = (struct end){&p, i};
		ck_assert_int_eq(loop_add_fd(p.loop, p.fds[i][0], EPOLLIN, remove_all, &ends[i],
					 &p.sources[i]),
			0);
	}
	ck_assert_int_eq(loop_run(p.loop), 42);
	for (int i = 0; i < 8; i++)
		calls += p.calls[i];
	ck_assert_int_eq(calls, 1);
	ck_assert_int_eq(p.removed, 8);
	ck_assert_int_eq(p.fresh_calls, 0);
	ck_assert_uint_ge(loop_turns(p.loop), 2);
	loop_remove(p.fresh);
	loop_remove(NULL);
	loop_free(p.loop);
}
END_TEST

static void change_others(void *ctx, int fd, uint32_t events)
{
	struct end *end = ctx;
	struct pipes *p = end->pipes;

	p->calls[end->index]++;
	for (int i = 0; i < 8; i++)
		ck_assert_int_eq(loop_change_fd(p->sources[i], 0), 0);
	ck_assert_int_eq(loop_add_timer(p->loop, 10, 0, quit_on_timer, p->loop, NULL), 0);
}

/* What an earlier callback of the batch switched off is not called any more. */
START_TEST(loop_change_in_batch)
{
	struct pipes p = {.loop = new_loop()};
	struct end ends[8];
	int calls = 0;

	for (int i = 0; i < 8; i++) {
		ck_assert_int_eq(pipe(p.fds[i]), 0);
		ck_assert_int_eq(write(p.fds[i][1], "x", 1), 1);
		ends[i] = (struct end){&p, i};
		ck_assert_int_eq(loop_add_fd(p.loop, p.fds[i][0], EPOLLIN, change_others, &ends[i],
					 &p.sources[i]),
			0);
	}
	ck_assert_int_eq(loop_run(p.loop), 42);
	for (int i = 0; i < 8; i++)
		calls += p.calls[i];
	ck_assert_int_eq(calls, 1);
	loop_free(p.loop);
}
END_TEST

struct ticks {
	struct loop *loop;
	struct loop_source *source;
	int count, once;
};

static void tick(void *ctx)
{
	struct ticks *t = ctx;

	if (++t->count == 3) {
		loop_remove(t->source);
		ck_assert_int_eq(loop_add_timer(t->loop, 15, 0, quit_on_timer, t->loop, NULL), 0);
	}
}

static void tick_once(void *ctx)
{
	struct ticks *t = ctx;

	t->once++;
	if (t->once == 1)
		ck_assert_int_eq(loop_set_timer(t->source, 0, 0), 0);
	else
		loop_quit(t->loop, 7);
}

START_TEST(loop_timers)
{
	struct ticks t = {.loop = new_loop()};
	int r;

	r = loop_add_timer(t.loop, 0, 2, tick, &t, &t.source);
	ck_assert_int_eq(r, 0);
	ck_assert_int_eq(loop_run(t.loop), 42);
	ck_assert_int_eq(t.count, 3);
	/* once, set again by itself; and a loop can run again after a quit */
	ck_assert_int_eq(loop_add_timer(t.loop, 1, 0, tick_once, &t, &t.source), 0);
	ck_assert_int_eq(loop_run(t.loop), 7);
	ck_assert_int_eq(t.once, 2);
	loop_free(t.loop);
}
END_TEST

static void on_signal(void *ctx, int signo)
{
	int *got = ctx;

	*got += signo;
}

START_TEST(loop_signals)
{
	struct loop *loop = new_loop();
	int term = 0, usr1 = 0;

	ck_assert_int_eq(loop_add_signal(loop, SIGTERM, on_signal, &term), 0);
	ck_assert_int_eq(loop_add_signal(loop, SIGUSR1, on_signal, &usr1), 0);
	ck_assert_int_eq(loop_add_signal(loop, 4711, on_signal, &usr1), -EINVAL);
	ck_assert_int_eq(kill(getpid(), SIGTERM), 0);
	ck_assert_int_eq(kill(getpid(), SIGUSR1), 0);
	ck_assert_int_eq(loop_add_timer(loop, 10, 0, quit_on_timer, loop, NULL), 0);
	ck_assert_int_eq(loop_run(loop), 42);
	ck_assert_int_eq(term, SIGTERM);
	ck_assert_int_eq(usr1, SIGUSR1);
	loop_free(loop);
}
END_TEST

static int count_fds(void)
{
	int n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

START_TEST(loop_edges)
{
	struct loop_source *source = (void *)-1;
	int before = count_fds();
	struct loop *loop = new_loop();

	ck_assert_int_eq(count_fds(), before + 1);
	/* a quit before the run is not forgotten */
	loop_quit(loop, 3);
	ck_assert_int_eq(loop_run(loop), 3);
	/* what epoll cannot watch is an error, and no output */
	ck_assert_int_eq(loop_add_fd(loop, -1, EPOLLIN, fresh_readable, NULL, &source), -EBADF);
	ck_assert_ptr_eq(source, (void *)-1);
	ck_assert_int_eq(loop_add_timer(loop, 1, 1, quit_on_timer, loop, NULL), 0);
	ck_assert_int_eq(loop_add_signal(loop, SIGUSR2, on_signal, NULL), 0);
	loop_freep(&loop);
	ck_assert_ptr_null(loop);
	loop_free(NULL);
	ck_assert_int_eq(count_fds(), before);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("base");
	TCase *plain = tcase_create("plain"), *utf8 = tcase_create("utf8"),
	      *log = tcase_create("log"), *loop = tcase_create("loop");

	tcase_add_test(plain, spans);
	tcase_add_test(plain, errors);
	tcase_add_test(plain, take);
	tcase_add_test(plain, buffers);
	tcase_add_test(plain, buffer_without_room);
	tcase_add_test(plain, buffer_grows_geometrically);
	tcase_add_loop_test(plain, numbers, 0, ARRAY_SIZE(number_cases));
	tcase_add_test(plain, number_format);
	tcase_add_test(plain, clocks);
	suite_add_tcase(s, plain);

	tcase_set_timeout(utf8, 60);
	tcase_add_test(utf8, utf8_every_character);
	tcase_add_test(utf8, utf8_every_pair);
	tcase_add_test(utf8, utf8_forms);
	tcase_add_test(utf8, utf8_offsets);
	suite_add_tcase(s, utf8);

	tcase_set_timeout(log, 60);
	tcase_add_test(log, log_text);
	tcase_add_test(log, log_json);
	tcase_add_test(log, log_long);
	tcase_add_test(log, log_stopped_reader);
	tcase_add_test(log, log_threads);
	suite_add_tcase(s, log);

	tcase_set_timeout(loop, 60);
	tcase_add_test(loop, loop_remove_in_batch);
	tcase_add_test(loop, loop_change_in_batch);
	tcase_add_test(loop, loop_timers);
	tcase_add_test(loop, loop_signals);
	tcase_add_test(loop, loop_edges);
	suite_add_tcase(s, loop);
	return s;
}

int main(void)
{
	SRunner *runner = srunner_create(suite());
	int failed;

	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
