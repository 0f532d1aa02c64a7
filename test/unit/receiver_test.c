/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "pkg/receiver/internal.h"

/* ---- messages ---- */

#define REQUEST                                                                                    \
	"{\"direction\":1,\"timing_ms\":1700000000123,\"remote_ip\":\"10.0.0.1\",\"remote_port\":" \
	"4711,\"method\":\"GET\",\"path\":\"/a?b=\\u00e9\",\"status_code\":0,\"version\":\"1.1\"," \
	"\"headers\":{\"Host\":[\"x.example\"],\"Accept\":[\"*/*\",\"b\"]},\"body\":\"\"}"

static struct span text(const char *s)
{
	return span_str(s);
}

/* All messages of a body: how many, or the error. The last is in m. */
static int scan_all(struct span body, struct message *m, struct err *err)
{
	struct scan s;
	int n = 0, r;

	scan_init(&s, body, err);
	while ((r = scan_next(&s, m)) > 0)
		n++;
	return r < 0 ? r : n;
}

START_TEST(scan_fields)
{
	struct err err = {0};
	struct message m;

	ck_assert_int_eq(scan_all(text(REQUEST), &m, &err), 1);
	ck_assert(span_eq(m.json, text(REQUEST)));
	ck_assert(!m.spaced);
	ck_assert_uint_eq(m.number[MSG_DIRECTION], 1);
	ck_assert_uint_eq(m.number[MSG_TIMING_MS], 1700000000123);
	ck_assert_uint_eq(m.number[MSG_REMOTE_PORT], 4711);
	ck_assert_uint_eq(m.number[MSG_STATUS_CODE], 0);
	ck_assert(span_eq(m.text[MSG_REMOTE_IP], SPAN("10.0.0.1")));
	ck_assert(span_eq(m.text[MSG_METHOD], SPAN("GET")));
	ck_assert(span_eq(m.text[MSG_PATH], SPAN("/a?b=\\u00e9")));
	ck_assert(span_eq(m.text[MSG_HOST], SPAN("x.example")));
	ck_assert_uint_eq(m.text[MSG_BODY].len, 0);
	ck_assert_ptr_null(m.text[MSG_SRC_IP].p);
	ck_assert(!message_has(&m, MSG_LATENCY_US));
}
END_TEST

/* A message with one member replaced, or left out (value NULL). */
static void with(char *out, size_t size, const char *key, const char *value)
{
	static const char *const members[][2] = {{"direction", "0"}, {"timing_ms", "1"},
		{"remote_ip", "\"a\""}, {"remote_port", "2"}, {"method", "\"M\""},
		{"path", "\"/\""}, {"status_code", "200"}, {"version", "\"1.1\""},
		{"headers", "{}"}, {"body", "\"\""}};
	const char *separator = "{";
	bool found = false;
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(members); i++) {
		bool here = strcmp(members[i][0], key) == 0;

		found = found || here;
		if (here && !value)
			continue;
		n += (size_t)snprintf(out + n, size - n, "%s\"%s\":%s", separator, members[i][0],
			here ? value : members[i][1]);
		separator = ",";
	}
	if (!found)
		n += (size_t)snprintf(out + n, size - n, ",\"%s\":%s", key, value);
	snprintf(out + n, size - n, "}");
}

static const struct {
	const char *key, *value;
	const char *wrong; /* NULL: it is right */
} members[] = {
	{"direction", "1", NULL},
	{"direction", "2", "`direction` must be 0 or 1"},
	{"direction", "\"1\"", "`direction` must be 0 or 1"},
	{"direction", "true", "`direction` must be 0 or 1"},
	{"direction", NULL, "`direction` is missing"},
	{"timing_ms", "0", NULL},
	{"timing_ms", "9007199254740991", NULL},
	{"timing_ms", "9007199254740992", "`timing_ms` must be"},
	{"timing_ms", "99999999999999999999999999", "`timing_ms` must be"},
	{"timing_ms", "-1", "`timing_ms` must be"},
	{"timing_ms", "1.5", "`timing_ms` must be"},
	{"timing_ms", "1e3", "`timing_ms` must be"},
	{"timing_ms", "01", "`timing_ms` must be"},
	{"timing_ms", "null", "`timing_ms` must be"},
	{"remote_ip", "\"::1\"", NULL},
	{"remote_ip", "1", "`remote_ip` must be a string"},
	{"remote_ip", NULL, "`remote_ip` is missing"},
	{"remote_port", "65535", NULL},
	{"remote_port", "65536", "`remote_port` must be a number of 0 to 65535"},
	{"method", "\"\"", NULL},
	{"method", "null", "`method` must be a string"},
	{"path", "[]", "`path` must be a string"},
	{"status_code", "999", NULL},
	{"status_code", "\"200\"", "`status_code` must be"},
	{"version", "1.1", "`version` must be a string"},
	{"headers", "{\"A\":[]}", NULL},
	{"headers", "{\"A\":[\"b\",\"c\"],\"D\":[\"\"]}", NULL},
	{"headers", "{\"A\":\"b\"}", "`headers` must be an object of arrays of strings"},
	{"headers", "{\"A\":[1]}", "`headers` must be"},
	{"headers", "{\"A\":[\"b\",null]}", "`headers` must be"},
	{"headers", "[]", "`headers` must be"},
	{"body", "{}", "`body` must be a string"},
	{"body", "\"\\ud83d\\ude00 \xf0\x9f\x98\x80 \\\" \\\\ \\/ \\b\\f\\n\\r\\t\"", NULL},
	{"body", "\"\\ud83d\"", NULL},
	{"body", "\"\\u12g4\"", "four hexadecimal digits"},
	{"body", "\"\\x\"", "no such escape"},
	{"body", "\"a\tb\"", "control character"},
	{"body", "\"\x80\"", "not UTF-8"},
	{"body", "\"\xc0\xaf\"", "not UTF-8"},
	{"body", "\"\xed\xa0\x80\"", "not UTF-8"},
	{"body", "\"\xf4\x90\x80\x80\"", "not UTF-8"},
	{"body", "\"\xe2\x82\"", "not UTF-8"},
	/* those that are not asked for may be anything that is JSON */
	{"node", "1", NULL},
	{"latency_us", "\"soon\"", NULL},
	{"latency_us", "-5", NULL},
	{"src_port", "1e99", NULL},
	{"request", "null", NULL},
	{"request", "{\"method\":1,\"path\":[{}],\"x\":{\"y\":[]}}", NULL},
	{"x", "[1,-0,0.5,1e5,1E-5,1.5e+5,true,false,null,\"\",{},[],{\"a\":{\"b\":[[]]}}]", NULL},
	{"x", "[1,]", "not a JSON value"},
	{"x", "[,1]", "not a JSON value"},
	{"x", "[1 2]", "',' or ']' is missing"},
	{"x", "{\"a\":1,}", "a key is missing"},
	{"x", "{\"a\" 1}", "':' is missing"},
	{"x", "{a:1}", "a key is missing"},
	{"x", "{\"a\":1 \"b\":2}", "',' or '}' is missing"},
	{"x", "01", "',' or '}' is missing"},
	{"x", "1.", "a digit is missing"},
	{"x", "1.e5", "a digit is missing"},
	{"x", "-", "a digit is missing"},
	{"x", "+1", "not a JSON value"},
	{"x", ".5", "not a JSON value"},
	{"x", "1e", "a digit is missing"},
	{"x", "nul", "not a JSON value"},
	{"x", "NaN", "not a JSON value"},
	{"x", "Infinity", "not a JSON value"},
	{"x", "'a'", "not a JSON value"},
	{"x", "\"a\" /* b */", "',' or '}' is missing"},
};

START_TEST(scan_members)
{
	struct err err = {0};
	struct message m;
	char json[1024];
	int r;

	with(json, sizeof(json), members[_i].key, members[_i].value);
	r = scan_all(text(json), &m, &err);
	if (!members[_i].wrong) {
		ck_assert_msg(r == 1, "%s: %s", json, err.text);
		return;
	}
	ck_assert_msg(r == -EBADMSG, "%s", json);
	ck_assert_msg(strstr(err.text, members[_i].wrong), "%s: %s", json, err.text);
	ck_assert_msg(strncmp(err.text, "line 1, column ", 15) == 0, "%s", err.text);
}
END_TEST

START_TEST(scan_every_cut)
{
	/* Behind each cut lies memory that must not be read: what is there is another byte each
	 * time. */
	size_t len = strlen(REQUEST);
	struct err err;
	struct message m;

	for (size_t n = 0; n < len; n++) {
		char *piece = malloc(n + 1);

		memcpy(piece, REQUEST, n);
		piece[n] = '"';
		err = (struct err){0};
		ck_assert_int_eq(scan_all(span_of(piece, n), &m, &err), -EBADMSG);
		ck_assert_msg(strstr(err.text, "too early") || strstr(err.text, "no message") ||
				      strstr(err.text, "not a JSON value") ||
				      strstr(err.text, "must be"),
			"%zu: %s", n, err.text);
		free(piece);
	}
}
END_TEST

static const struct {
	const char *body;
	int count; /* negative: wrong */
	const char *wrong;
} bodies[] = {
	{REQUEST "\n", 1, NULL},
	{"  \r\n\t" REQUEST "  ", 1, NULL},
	{REQUEST "\n" REQUEST, 2, NULL},
	{REQUEST "\n\n\r\n" REQUEST "\n", 2, NULL},
	{"[" REQUEST "]", 1, NULL},
	{" [ " REQUEST " , " REQUEST " ] \n", 2, NULL},
	{"[]", 0, NULL},
	{"", -1, "line 1, column 1: there is no message"},
	{" \n ", -1, "line 2, column 2: there is no message"},
	{"1", -1, "line 1, column 1: a message must be a JSON object"},
	{"\"a\"", -1, "a message must be a JSON object"},
	{"[1]", -1, "line 1, column 2: a message must be a JSON object"},
	{"[[" REQUEST "]]", -1, "a message must be a JSON object"},
	{"[" REQUEST, -1, "it ends too early"},
	{"[" REQUEST ",]", -1, "a message must be a JSON object"},
	{"[" REQUEST "] " REQUEST, -1, "something stands behind the array"},
	{REQUEST REQUEST, -1, "something stands behind the object on its line"},
	{REQUEST " " REQUEST, -1, "something stands behind the object on its line"},
	{REQUEST "," REQUEST, -1, "something stands behind the object on its line"},
	{REQUEST "\n" REQUEST "\n{}", -1, "line 3, column 1: `direction` is missing"},
	{REQUEST "\n" REQUEST "\n {\"direction\":7}", -1,
		"line 3, column 15: `direction` must be 0 or 1"},
	{"\xef\xbb\xbf" REQUEST, -1, "a message must be a JSON object"},
};

START_TEST(scan_bodies)
{
	struct err err = {0};
	struct message m;
	int r = scan_all(text(bodies[_i].body), &m, &err);

	if (bodies[_i].count >= 0) {
		ck_assert_msg(r == bodies[_i].count, "%s: %d, %s", bodies[_i].body, r, err.text);
		return;
	}
	ck_assert_int_eq(r, -EBADMSG);
	ck_assert_msg(strstr(err.text, bodies[_i].wrong), "%s: %s", bodies[_i].body, err.text);
}
END_TEST

START_TEST(scan_twice)
{
	struct err err = {0};
	struct message m;
	char json[1024];

	with(json, sizeof(json), "", "1");
	json[strlen(json) - 1] = '\0';
	strncat(json, ",\"body\":\"\"}", sizeof(json) - strlen(json) - 1);
	ck_assert_int_eq(scan_all(text(json), &m, &err), -EBADMSG);
	ck_assert_ptr_nonnull(strstr(err.text, "`body` is there twice"));
}
END_TEST

START_TEST(scan_depth)
{
	char json[2048], deep[512];
	struct err err = {0};
	struct message m;

	for (int depth = SCAN_DEPTH - 2; depth <= SCAN_DEPTH + 1; depth++) {
		/* the message is the first level */
		memset(deep, '[', (size_t)depth);
		memset(deep + depth, ']', (size_t)depth);
		deep[2 * depth] = '\0';
		with(json, sizeof(json), "x", deep);
		ck_assert_int_eq(scan_all(text(json), &m, &err), depth < SCAN_DEPTH ? 1 : -EBADMSG);
	}
	ck_assert_ptr_nonnull(strstr(err.text, "nested too deeply"));
}
END_TEST

START_TEST(scan_compacts)
{
	static const char spaced[] =
		" { \"direction\" :\t1 ,\"timing_ms\":1,\"remote_ip\":\" a b \","
		"\"remote_port\":2,\"method\":\"\\\" {\" ,\"path\":\"/\",\r\n"
		"\"status_code\":0,\"version\":\"\",\"headers\":{ \"A\" : "
		"[ \"b c\" , \"d\" ] },\"body\":\"\\\\\" }",
			  compact[] = "{\"direction\":1,\"timing_ms\":1,\"remote_ip\":\" a b \","
				      "\"remote_port\":2,\"method\":\"\\\" {\",\"path\":\"/\","
				      "\"status_code\":0,\"version\":\"\",\"headers\":{\"A\":"
				      "[\"b c\",\"d\"]},\"body\":\"\\\\\"}";
	struct buf out = BUF_INIT(4096);
	struct err err = {0};
	struct message m;

	ck_assert_int_eq(scan_all(text(spaced), &m, &err), 1);
	ck_assert(m.spaced);
	ck_assert_int_eq(scan_compact(m.json, &out), 0);
	ck_assert(span_eq(span_of(out.data, out.len), text(compact)));
	ck_assert_int_eq(scan_all(text(compact), &m, &err), 1);
	ck_assert(!m.spaced);
	buf_done(&out);
}
END_TEST

START_TEST(scan_cuts)
{
	struct span t = SPAN("a\\n\\u00e9\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80z");
	static const size_t ends[] = {
		0, 1, 1, 3, 3, 3, 3, 3, 3, 9, 9, 11, 11, 11, 14, 14, 14, 14, 18, 19};

	for (size_t max = 0; max < ARRAY_SIZE(ends); max++)
		ck_assert_uint_eq(scan_cut(t, max).len, ends[max]);
	ck_assert_uint_eq(scan_cut(t, 1000).len, t.len);
}
END_TEST

/* ---- the store ---- */

static struct store *new_store(uint64_t keep, uint64_t bytes)
{
	struct store *s = NULL;
	struct err err;

	ck_assert_int_eq(store_new(keep, bytes, 7, &s, &err), 0);
	return s;
}

static void add_json(struct store *s, const char *json)
{
	struct err err = {0};
	struct message m;

	ck_assert_msg(scan_all(text(json), &m, &err) == 1, "%s: %s", json, err.text);
	ck_assert_int_eq(store_add(s, &m), 0);
}

/* What the messages added next have; NULL: none. */
static const char *exchange_id;

static const char *exchange_member(void)
{
	static char member[64];

	member[0] = '\0';
	if (exchange_id)
		snprintf(member, sizeof(member), ",\"exchange_id\":\"%s\"", exchange_id);
	return member;
}

static void add_request(struct store *s, int client, const char *path, int time)
{
	char json[1024];

	snprintf(json, sizeof(json),
		"{\"direction\":0,\"timing_ms\":%d,\"remote_ip\":\"10.0.0.1\",\"remote_port\":%d,"
		"\"method\":\"GET\",\"path\":\"%s\",\"status_code\":0,\"version\":\"1.1\","
		"\"headers\":{\"Host\":[\"h\"]},\"body\":\"\",\"src_ip\":\"10.0.0.1\",\"src_port\":"
		"%d,\"dst_ip\":\"10.0.0.2\",\"dst_port\":80,\"node\":\"n\"%s}",
		time, client, path, client, exchange_member());
	add_json(s, json);
}

static void add_response(
	struct store *s, int client, const char *path, int status, int asked, int took)
{
	char json[1024], request[256] = "";

	if (path)
		snprintf(request, sizeof(request),
			",\"latency_us\":%d000,\"request\":{\"method\":\"GET\",\"path\":\"%s\","
			"\"host\":\"h\"}",
			took, path);
	snprintf(json, sizeof(json),
		"{\"direction\":1,\"timing_ms\":%d,\"remote_ip\":\"10.0.0.1\",\"remote_port\":%d,"
		"\"method\":\"\",\"path\":\"\",\"status_code\":%d,\"version\":\"1.1\","
		"\"headers\":{},\"body\":\"\",\"src_ip\":\"10.0.0.2\",\"src_port\":80,"
		"\"dst_ip\":\"10.0.0.1\",\"dst_port\":%d,\"node\":\"n\"%s%s}",
		asked + took, client, status, client, exchange_member(), request);
	add_json(s, json);
}

/* "path status" of each exchange, in order of id. */
static const char *shown(struct store *s)
{
	static char out[4096];
	size_t n = 0;

	out[0] = '\0';
	for (uint64_t id = store_first(s); id <= store_last(s); id++) {
		const struct exchange *x = store_find(s, id);
		struct span path = exchange_path(x);

		n += (size_t)snprintf(out + n, sizeof(out) - n, "%s%.*s %d%s", n ? ", " : "",
			(int)path.len, path.p, (int)exchange_status(x), x->request ? "" : " alone");
	}
	return out;
}

START_TEST(pair_in_order)
{
	struct store *s = new_store(100, 1 << 20);
	struct store_stats stats;

	add_request(s, 1, "/a", 100);
	add_request(s, 2, "/b", 100);
	add_request(s, 1, "/c", 101);
	add_response(s, 2, "/b", 201, 100, 5);
	add_response(s, 1, "/a", 200, 100, 5);
	add_response(s, 1, "/c", 404, 101, 5);
	ck_assert_str_eq(shown(s), "/a 200, /b 201, /c 404");
	store_stats(s, &stats);
	ck_assert_uint_eq(stats.paired, 3);
	ck_assert_uint_eq(stats.messages, 6);
	ck_assert_uint_eq(stats.exchanges, 3);
	store_free(s);
}
END_TEST

START_TEST(pair_alike)
{
	struct store *s = new_store(100, 1 << 20);

	/* pipelined, in the same ms: the older one first */
	add_request(s, 1, "/a", 100);
	add_request(s, 1, "/a", 100);
	add_response(s, 1, "/a", 200, 100, 5);
	add_response(s, 1, "/a", 404, 100, 6);
	ck_assert_str_eq(shown(s), "/a 200, /a 404");
	/* the same again and again, and one answer is missing */
	add_request(s, 2, "/p", 1000);
	add_request(s, 2, "/p", 1500);
	add_response(s, 2, "/p", 201, 1500, 5);
	ck_assert_str_eq(shown(s), "/a 200, /a 404, /p 0, /p 201");
	/* the answer to a request that never came here */
	add_response(s, 2, "/p", 500, 9000, 5);
	ck_assert_str_eq(shown(s), "/a 200, /a 404, /p 0, /p 201, /p 500 alone");
	store_free(s);
}
END_TEST

START_TEST(pair_response_first)
{
	struct store *s = new_store(100, 1 << 20);

	add_response(s, 1, "/a", 200, 100, 5);
	ck_assert_str_eq(shown(s), "/a 200 alone");
	add_request(s, 1, "/a", 100);
	ck_assert_str_eq(shown(s), "/a 200");
	/* it is complete: the next request is another exchange */
	add_request(s, 1, "/a", 101);
	ck_assert_str_eq(shown(s), "/a 200, /a 0");
	store_free(s);
}
END_TEST

START_TEST(pair_by_id)
{
	struct store *s = new_store(100, 1 << 20);

	/* nothing else tells them apart, and they come in another order */
	exchange_id = "a";
	add_request(s, 1, "/1", 100);
	exchange_id = "b";
	add_request(s, 1, "/1", 100);
	add_response(s, 1, "/1", 202, 100, 5);
	exchange_id = "a";
	add_response(s, 1, "/1", 201, 100, 5);
	ck_assert_str_eq(shown(s), "/1 201, /1 202");
	/* no time or text is better than the id; a long path was cut in one of them */
	exchange_id = "c";
	add_request(s, 1, "/long", 100);
	exchange_id = "d";
	add_response(s, 1, "/long", 500, 100, 5);
	exchange_id = "c";
	add_response(s, 1, "/lo", 203, 90000, 5);
	ck_assert_str_eq(shown(s), "/1 201, /1 202, /long 203, /long 500 alone");
	/* one that has none goes by what it says */
	exchange_id = NULL;
	add_request(s, 1, "/long", 100);
	ck_assert_str_eq(shown(s), "/1 201, /1 202, /long 203, /long 500");
	store_free(s);
}
END_TEST

START_TEST(pair_other_connections)
{
	struct store *s = new_store(100, 1 << 20);

	add_request(s, 1, "/a", 100);
	add_response(s, 2, "/a", 200, 100, 5);
	ck_assert_str_eq(shown(s), "/a 0, /a 200 alone");
	/* the loader did not see the request: nobody else's */
	add_response(s, 1, NULL, 200, 100, 5);
	ck_assert_str_eq(shown(s), "/a 0, /a 200 alone,  200 alone");
	store_free(s);
}
END_TEST

START_TEST(pair_interim)
{
	struct store *s = new_store(100, 1 << 20);
	struct store_stats stats;

	add_request(s, 1, "/a", 100);
	add_response(s, 1, "/a", 100, 100, 1);
	ck_assert_str_eq(shown(s), "/a 100");
	add_response(s, 1, "/a", 103, 100, 2);
	add_response(s, 1, "/a", 200, 100, 3);
	ck_assert_str_eq(shown(s), "/a 200");
	store_stats(s, &stats);
	ck_assert_uint_eq(stats.messages, 2);
	ck_assert_uint_eq(stats.paired, 1);
	/* 101 is the last of its connection */
	add_request(s, 1, "/w", 200);
	add_response(s, 1, "/w", 101, 200, 3);
	add_response(s, 1, "/w", 200, 200, 3);
	ck_assert_str_eq(shown(s), "/a 200, /w 101, /w 200 alone");
	store_free(s);
}
END_TEST

START_TEST(pair_seed)
{
	/* who knows the ten keys only: by the client's address, in order */
	static const char
		request[] =
			"{\"direction\":1,\"timing_ms\":%d,\"remote_ip\":\"c\",\"remote_port\":5,"
			"\"method\":\"GET\",\"path\":\"/%d\",\"status_code\":0,\"version\":\"1.1\","
			"\"headers\":{},\"body\":\"\"}",
		response[] =
			"{\"direction\":0,\"timing_ms\":%d,\"remote_ip\":\"c\",\"remote_port\":"
			"5,\"method\":\"\",\"path\":\"\",\"status_code\":%d,\"version\":"
			"\"1.1\",\"headers\":{},\"body\":\"\"}";
	struct store *s = new_store(100, 1 << 20);
	struct buf out = BUF_INIT(4096);
	char json[512];

	for (int i = 1; i <= 2; i++) {
		snprintf(json, sizeof(json), request, 1000 + i, i);
		add_json(s, json);
	}
	for (int i = 1; i <= 3; i++) {
		snprintf(json, sizeof(json), response, 1010 + i, 200 + i);
		add_json(s, json);
	}
	ck_assert_str_eq(shown(s), "/1 201, /2 202,  203 alone");
	/* a latency that nobody measured is worked out */
	ck_assert_int_eq(row_write(store_find(s, 1), false, &out), 0);
	ck_assert_int_eq(buf_append(&out, "", 1), 0);
	ck_assert_str_eq(out.data,
		"{\"id\":1,\"time_ms\":1001,\"seen\":\"server\",\"client\":\"c:5\",\"method\":"
		"\"GET\",\"host\":\"\",\"path\":\"/1\",\"status\":201,\"latency_us\":10000}");
	buf_done(&out);
	store_free(s);
}
END_TEST

START_TEST(store_keeps_the_newest)
{
	struct store *s = new_store(16, 1 << 20);
	struct store_stats stats;
	char path[16];

	for (int i = 0; i < 1000; i++) {
		snprintf(path, sizeof(path), "/%d", i);
		add_request(s, i, path, i);
		if (i % 3)
			add_response(s, i, path, 200, i, 1);
		store_stats(s, &stats);
		ck_assert_uint_le(stats.messages, 16);
		ck_assert_uint_eq(stats.exchanges, store_last(s) - store_first(s) + 1);
	}
	ck_assert_uint_eq(store_last(s), 1000);
	ck_assert_ptr_null(store_find(s, store_first(s) - 1));
	ck_assert_ptr_null(store_find(s, 1001));
	ck_assert_ptr_nonnull(store_find(s, 1000));
	/* a late answer to what is gone stands alone */
	add_response(s, 0, "/0", 200, 0, 1);
	ck_assert_ptr_null(store_find(s, store_last(s))->request);
	store_free(s);
}
END_TEST

START_TEST(store_keeps_within_bytes)
{
	struct store *s = new_store(1000, 20000);
	struct store_stats stats;

	for (int i = 0; i < 500; i++) {
		add_request(s, i, "/a", i);
		store_stats(s, &stats);
		ck_assert_uint_le(stats.bytes, 20000);
		ck_assert_uint_ge(stats.messages, 1);
	}
	ck_assert_uint_eq(stats.evicted + stats.messages, 500);
	store_free(s);
}
END_TEST

START_TEST(store_changes)
{
	struct store *s = new_store(16, 1 << 20);
	uint64_t seen = 0;

	ck_assert_uint_eq(store_version(s), 0);
	ck_assert_ptr_null(store_change(s, 1));
	add_request(s, 1, "/a", 1);
	add_request(s, 2, "/b", 1);
	ck_assert_uint_eq(store_change(s, 1)->id, 1);
	add_response(s, 1, "/a", 200, 1, 1);
	/* its latest change only */
	ck_assert_ptr_null(store_change(s, 1));
	ck_assert_uint_eq(store_change(s, 2)->id, 2);
	ck_assert_uint_eq(store_change(s, 3)->id, 1);
	ck_assert_ptr_null(store_change(s, 4));
	for (int i = 0; i < 200; i++)
		add_request(s, 100 + i, "/x", i);
	ck_assert_uint_eq(store_oldest_change(s), 203 - 64 + 1);
	for (uint64_t v = store_oldest_change(s); v <= store_version(s); v++)
		seen += store_change(s, v) != NULL;
	ck_assert_uint_eq(seen, 16);
	store_free(s);
}
END_TEST

/* ---- filters ---- */

static const struct {
	const char *name, *value;
	int matches; /* -1: not allowed */
} filter_cases[] = {
	{"method", "", 1},
	{"method", "g", 1},
	{"method", "GET", 1},
	{"method", "GETS", 0},
	{"method", "POST", 0},
	{"status", "404", 1},
	{"status", "4", 1},
	{"status", "4xx", 1},
	{"status", "4X4", 1},
	{"status", "40", 1},
	{"status", "5xx", 0},
	{"status", "04", 0},
	{"status", "error", 1},
	{"status", "4040", -1},
	{"status", "no", -1},
	{"host", "H", 1},
	{"host", "hh", 0},
	{"path", "/Items", 1},
	{"path", "items/7", 1},
	{"path", "items/8", 0},
	{"node", "n", 1},
	{"node", "m", 0},
	{"seen", "client", 1},
	{"seen", "server", 0},
	{"seen", "elsewhere", -1},
	{"q", "items/7\",\"status", 0}, /* a quote is a quote in the text, not of JSON */
	{"q", "he said \"hi\"", 1},
	{"q", "two\nlines", 1},
	{"q", "TWO", 1},
	{"q", "X-Thing", 1},
	{"q", "nowhere", 0},
};

START_TEST(filters)
{
	static const char response[] =
		"{\"direction\":1,\"timing_ms\":105,\"remote_ip\":\"10.0.0.1\",\"remote_port\":1,"
		"\"method\":\"\",\"path\":\"\",\"status_code\":404,\"version\":\"1.1\","
		"\"headers\":{\"X-Thing\":[\"v\"]},\"body\":\"he said \\\"hi\\\"\\ntwo\\nlines\","
		"\"src_ip\":\"10.0.0.2\",\"src_port\":80,\"node\":\"n\",\"latency_us\":5000,"
		"\"request\":{\"method\":\"GET\",\"path\":\"/items/7\",\"host\":\"h\"}}";
	struct store *s = new_store(100, 1 << 20);
	struct filter f = {0};
	struct err err = {0};
	int r;

	add_request(s, 1, "/items/7", 100);
	add_json(s, response);
	ck_assert_uint_eq(store_last(s), 1);
	r = filter_set(&f, filter_cases[_i].name, filter_cases[_i].value, &err);
	if (filter_cases[_i].matches < 0) {
		ck_assert_int_eq(r, -EINVAL);
	} else {
		ck_assert_int_eq(r, 1);
		ck_assert_int_eq(filter_match(&f, store_find(s, 1)), filter_cases[_i].matches);
	}
	store_free(s);
}
END_TEST

START_TEST(filter_pending)
{
	struct store *s = new_store(100, 1 << 20);
	struct filter f = {0};
	char longer[FILTER_TEXT_MAX + 2];
	struct err err = {0};

	add_request(s, 1, "/a", 100);
	ck_assert_int_eq(filter_set(&f, "status", "", &err), 1);
	ck_assert(filter_match(&f, store_find(s, 1)));
	ck_assert_int_eq(filter_set(&f, "status", "xxx", &err), 1);
	ck_assert(!filter_match(&f, store_find(s, 1)));
	ck_assert_int_eq(filter_set(&f, "sort", "up", &err), 0);
	memset(longer, 'a', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	ck_assert_int_eq(filter_set(&f, "path", longer, &err), -EINVAL);
	store_free(s);
}
END_TEST

/* ---- rows ---- */

START_TEST(rows)
{
	struct store *s = new_store(100, 1 << 20);
	struct buf out = BUF_INIT(1 << 20);
	char path[3000];

	/* a row is short whatever was captured, and never cut within an escape sequence */
	memset(path, 'p', sizeof(path));
	for (size_t i = 1; i + 6 < sizeof(path); i += 6)
		memcpy(path + i, "\\u0041", 6);
	path[1 + 6 * 400] = '\0';
	{
		char json[4096];

		snprintf(json, sizeof(json),
			"{\"direction\":0,\"timing_ms\":1,\"remote_ip\":\"::1\",\"remote_port\":1,"
			"\"method\":\"GET\",\"path\":\"%s\",\"status_code\":0,\"version\":\"\","
			"\"headers\":{},\"body\":\"\",\"dst_ip\":\"::2\",\"dst_port\":2,"
			"\"error\":\"e\",\"pod\":\"p\",\"namespace\":\"ns\",\"comm\":\"c\","
			"\"body_bytes\":9}",
			path);
		add_json(s, json);
	}
	ck_assert_int_eq(row_write(store_find(s, 1), false, &out), 0);
	ck_assert_uint_lt(out.len, 1400);
	ck_assert_int_eq(buf_append(&out, "", 1), 0);
	ck_assert_ptr_nonnull(strstr(out.data, "\"client\":\"[::1]:1\",\"server\":\"[::2]:2\""));
	ck_assert_ptr_nonnull(strstr(out.data, "\\u0041\",\"status\":0"));
	ck_assert_ptr_nonnull(strstr(out.data, "\"request_bytes\":9,\"damaged\":true}"));
	/* where there is no room, nothing is left behind */
	for (size_t max = 0; max < out.len - 1; max += 7) {
		struct buf small = BUF_INIT(max);

		ck_assert_int_eq(row_write(store_find(s, 1), false, &small), -ENOBUFS);
		ck_assert_uint_eq(small.len, 0);
		buf_done(&small);
	}
	buf_done(&out);
	store_free(s);
}
END_TEST

/* ---- idempotency keys ---- */

START_TEST(seen_forgets_the_oldest)
{
	struct seen *s = NULL;
	char key[32];

	ck_assert_int_eq(seen_new(16, &s), 0);
	for (int i = 0; i < 16; i++) {
		snprintf(key, sizeof(key), "key-%d", i);
		ck_assert(!seen_has(s, text(key)));
		seen_put(s, text(key));
	}
	/* 0 is asked about, so that 1 is the oldest */
	ck_assert(seen_has(s, SPAN("key-0")));
	seen_put(s, SPAN("another"));
	ck_assert(seen_has(s, SPAN("key-0")));
	ck_assert(!seen_has(s, SPAN("key-1")));
	ck_assert(seen_has(s, SPAN("key-2")));
	for (int i = 0; i < 10000; i++) {
		snprintf(key, sizeof(key), "more-%d", i);
		ck_assert(!seen_has(s, text(key)));
		seen_put(s, text(key));
		ck_assert(seen_has(s, text(key)));
	}
	ck_assert(!seen_has(s, SPAN("more-9983")));
	ck_assert(seen_has(s, SPAN("more-9984")));
	seen_free(s);
}
END_TEST

/* ---- output ---- */

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static void remove_dir(const char *dir)
{
	nftw(dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

static long long size_of(const char *dir, int number)
{
	char path[256];
	struct stat st;

	snprintf(path, sizeof(path), "%s/messages-%08d.ndjson", dir, number);
	return stat(path, &st) == 0 ? (long long)st.st_size : -1;
}

static struct output *open_dir(const char *dir, uint64_t file_bytes, uint64_t files)
{
	struct output *o = NULL;
	struct err err = {0};

	ck_assert_msg(output_new(-1, dir, file_bytes, files, 0, &o, &err) == 0, "%s", err.text);
	return o;
}

START_TEST(files_rotate)
{
	char dir[] = "/tmp/receiver-test-XXXXXX";
	struct output_stats stats;
	struct output *o, *other = NULL;
	struct err err = {0};
	struct buf big = BUF_INIT(1 << 20);

	ck_assert_ptr_nonnull(mkdtemp(dir));
	o = open_dir(dir, 100, 3);
	ck_assert_int_eq(output_new(-1, dir, 100, 3, 0, &other, &err), -EBUSY);
	ck_assert_ptr_nonnull(strstr(err.text, "another receiver"));
	for (int i = 0; i < 10; i++)
		ck_assert_int_eq(
			output_write(o, "0123456789012345678901234567890123456789\n", 41), 0);
	/* two lines to a file, five files, of which three are left */
	ck_assert_int_eq(size_of(dir, 1), -1);
	ck_assert_int_eq(size_of(dir, 2), -1);
	for (int i = 3; i <= 5; i++)
		ck_assert_int_eq(size_of(dir, i), 82);
	ck_assert_int_eq(size_of(dir, 6), -1);
	output_stats(o, &stats);
	ck_assert_uint_eq(stats.rotated, 4);
	ck_assert_uint_eq(stats.removed, 2);
	ck_assert_uint_eq(stats.bytes, 410);
	/* what is larger than a file has one of its own, whole */
	ck_assert_int_eq(buf_reserve(&big, 1000), 0);
	memset(big.data, 'x', 1000);
	big.data[999] = '\n';
	ck_assert_int_eq(output_write(o, big.data, 1000), 0);
	ck_assert_int_eq(size_of(dir, 6), 1000);
	output_free(o);
	buf_done(&big);
	remove_dir(dir);
}
END_TEST

START_TEST(files_go_on)
{
	char dir[] = "/tmp/receiver-test-XXXXXX", path[256];
	struct output *o;
	int fd;

	ck_assert_ptr_nonnull(mkdtemp(dir));
	o = open_dir(dir, 100, 5);
	ck_assert_int_eq(output_write(o, "a\n", 2), 0);
	output_free(o);
	o = open_dir(dir, 100, 5);
	ck_assert_int_eq(output_write(o, "b\n", 2), 0);
	ck_assert_int_eq(size_of(dir, 1), 4);
	output_free(o);
	/* a line that was torn stays what it is; the next file begins with a whole one */
	snprintf(path, sizeof(path), "%s/messages-00000001.ndjson", dir);
	fd = open(path, O_WRONLY | O_APPEND);
	ck_assert_int_eq(write(fd, "{\"tor", 5), 5);
	close(fd);
	o = open_dir(dir, 100, 5);
	ck_assert_int_eq(output_write(o, "c\n", 2), 0);
	ck_assert_int_eq(size_of(dir, 1), 9);
	ck_assert_int_eq(size_of(dir, 2), 2);
	/* somebody takes the file away */
	snprintf(path, sizeof(path), "%s/messages-00000002.ndjson", dir);
	ck_assert_int_eq(unlink(path), 0);
	ck_assert_int_eq(output_write(o, "d\n", 2), 0);
	ck_assert_int_eq(size_of(dir, 3), 2);
	output_free(o);
	remove_dir(dir);
}
END_TEST

START_TEST(files_full_disk)
{
	char dir[] = "/tmp/receiver-test-XXXXXX";
	struct output_stats stats;
	struct output *o;

	ck_assert_ptr_nonnull(mkdtemp(dir));
	o = open_dir(dir, 1 << 20, 5);
	ck_assert_int_eq(output_write(o, "a\n", 2), 0);
	/* as full as this process may make it: the write is cut, and taken back */
	signal(SIGXFSZ, SIG_IGN);
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &(struct rlimit){6, RLIM_INFINITY}), 0);
	ck_assert_int_eq(output_write(o, "0123456789\n", 11), -EFBIG);
	ck_assert_int_eq(size_of(dir, 1), 2);
	output_stats(o, &stats);
	ck_assert_int_eq(stats.error, EFBIG);
	ck_assert_int_eq(output_write(o, "b\n", 2), 0);
	ck_assert_int_eq(size_of(dir, 1), 4);
	output_stats(o, &stats);
	ck_assert_int_eq(stats.error, 0);
	ck_assert_int_eq(
		setrlimit(RLIMIT_FSIZE, &(struct rlimit){RLIM_INFINITY, RLIM_INFINITY}), 0);
	output_free(o);
	remove_dir(dir);
}
END_TEST

/* ---- taking a body over ---- */

struct rig {
	struct intake in;
	struct counters counters;
	int pipe[2];
};

static void rig_init(struct rig *rig, size_t buffer)
{
	struct err err;

	*rig = (struct rig){0};
	signal(SIGPIPE, SIG_IGN);
	ck_assert_int_eq(pipe(rig->pipe), 0);
	pthread_mutex_init(&rig->in.lock, NULL);
	rig->in.counters = &rig->counters;
	rig->in.keep = 64;
	ck_assert_int_eq(output_new(rig->pipe[1], NULL, 0, 0, buffer, &rig->in.output, &err), 0);
	ck_assert_int_eq(store_new(64, 1 << 20, 1, &rig->in.store, &err), 0);
	ck_assert_int_eq(seen_new(16, &rig->in.seen), 0);
}

static void rig_done(struct rig *rig)
{
	output_free(rig->in.output);
	store_free(rig->in.store);
	seen_free(rig->in.seen);
	closep(&rig->pipe[0]);
	closep(&rig->pipe[1]);
}

static struct verdict take(struct rig *rig, const char *body, const char *key)
{
	struct verdict v;

	ingest_take(&rig->in, text(body), text(key), &v);
	return v;
}

/* What came out, once all is out. */
static const char *printed(struct rig *rig)
{
	static char out[1 << 16];
	ssize_t n;

	ck_assert_uint_eq(output_flush(rig->in.output, 60000), 0);
	n = read(rig->pipe[0], out, sizeof(out) - 1);
	ck_assert_int_ge(n, 0);
	out[n] = '\0';
	return out;
}

START_TEST(take_lines)
{
	struct rig rig;
	struct verdict v;

	rig_init(&rig, 1 << 20);
	v = take(&rig, REQUEST, "");
	ck_assert_uint_eq(v.status, 200);
	ck_assert_uint_eq(v.messages, 1);
	v = take(&rig, REQUEST "\n" REQUEST "\n", "");
	ck_assert_uint_eq(v.messages, 2);
	v = take(&rig, "[ " REQUEST ",\n" REQUEST " ]", "");
	ck_assert_uint_eq(v.messages, 2);
	v = take(&rig, REQUEST "\n\n " REQUEST "\n", "");
	ck_assert_uint_eq(v.messages, 2);
	v = take(&rig, "[]", "");
	ck_assert_uint_eq(v.status, 200);
	ck_assert_str_eq(printed(&rig), REQUEST "\n" REQUEST "\n" REQUEST "\n" REQUEST "\n" REQUEST
						"\n" REQUEST "\n" REQUEST "\n");
	ck_assert_uint_eq(atomic_load(&rig.counters.messages), 7);
	ck_assert_uint_eq(store_version(rig.in.store), 7);
	rig_done(&rig);
}
END_TEST

START_TEST(take_spaced)
{
	/* where the first is a line already, and a later one is not */
	static const char body[] =
		REQUEST "\n"
			"{ \"direction\" : 0,\"timing_ms\":1,\"remote_ip\":\"a\",\"remote_port\":1,"
			"\"method\":\"SPACED\",\"path\":\"/\",\"status_code\":0,\n\"version\":\"\","
			"\"headers\":{},\"body\":\"\"}\n" REQUEST;
	struct rig rig;

	rig_init(&rig, 1 << 20);
	ck_assert_uint_eq(take(&rig, body, "").status, 200);
	ck_assert_str_eq(printed(&rig),
		REQUEST "\n{\"direction\":0,\"timing_ms\":1,\"remote_ip\":\"a\",\"remote_port\":1,"
			"\"method\":\"SPACED\",\"path\":\"/\",\"status_code\":0,\"version\":\"\","
			"\"headers\":{},\"body\":\"\"}\n" REQUEST "\n");
	ck_assert(span_eq(exchange_method(store_find(rig.in.store, 2)), SPAN("SPACED")));
	rig_done(&rig);
}
END_TEST

START_TEST(take_all_or_nothing)
{
	struct rig rig;
	struct verdict v;

	rig_init(&rig, 1 << 20);
	v = take(&rig, REQUEST "\n" REQUEST "\n{}\n", "k");
	ck_assert_uint_eq(v.status, 400);
	ck_assert_int_eq(v.refusal, REFUSED_SYNTAX);
	ck_assert_str_eq(v.err.text, "line 3, column 1: `direction` is missing");
	ck_assert_uint_eq(store_version(rig.in.store), 0);
	ck_assert_uint_eq(atomic_load(&rig.counters.messages), 0);
	/* and its key is not used up */
	v = take(&rig, REQUEST "\n", "k");
	ck_assert_uint_eq(v.status, 200);
	ck_assert(!v.duplicate);
	ck_assert_str_eq(printed(&rig), REQUEST "\n");
	rig_done(&rig);
}
END_TEST

START_TEST(take_once)
{
	struct rig rig;

	rig_init(&rig, 1 << 20);
	ck_assert(!take(&rig, REQUEST "\n", "k").duplicate);
	ck_assert(take(&rig, REQUEST "\n", "k").duplicate);
	ck_assert(!take(&rig, REQUEST "\n", "l").duplicate);
	ck_assert_str_eq(printed(&rig), REQUEST "\n" REQUEST "\n");
	ck_assert_uint_eq(atomic_load(&rig.counters.messages), 2);
	ck_assert_uint_eq(atomic_load(&rig.counters.duplicates), 1);
	ck_assert_uint_eq(atomic_load(&rig.counters.duplicate_bodies), 1);
	rig_done(&rig);
}
END_TEST

static uint64_t output_queued(struct output *o)
{
	struct output_stats stats;

	output_stats(o, &stats);
	return stats.queued_bytes;
}

START_TEST(take_until_full)
{
	struct verdict v = {0};
	uint64_t taken = 0;
	struct rig rig;

	/* nobody reads: a pipe and a buffer of 64 KiB */
	rig_init(&rig, 1 << 16);
	for (int i = 0; i < 2000; i++) {
		v = take(&rig, REQUEST "\n" REQUEST "\n", "again");
		if (v.status != 200)
			break;
		ck_assert(v.duplicate == (i > 0));
		v = take(&rig, REQUEST "\n" REQUEST "\n", "");
		if (v.status != 200)
			break;
		taken += 2;
	}
	ck_assert_uint_eq(v.status, 429);
	ck_assert_int_eq(v.refusal, REFUSED_OUTPUT);
	ck_assert_uint_eq(atomic_load(&rig.counters.messages), taken + 2);
	/* what was taken comes out, all of it */
	fcntl(rig.pipe[0], F_SETFL, O_NONBLOCK);
	{
		uint64_t lines = 0;
		char piece[4096];
		ssize_t n;

		for (bool all = false; !all;) {
			/* looked at before the pipe is: what is out then is read below */
			all = output_queued(rig.in.output) == 0;
			while ((n = read(rig.pipe[0], piece, sizeof(piece))) > 0) {
				for (ssize_t i = 0; i < n; i++)
					lines += piece[i] == '\n';
			}
			usleep(1000);
		}
		ck_assert_uint_eq(lines, taken + 2);
	}
	rig_done(&rig);
}
END_TEST

START_TEST(take_broken)
{
	struct rig rig;
	struct verdict v = {0};

	rig_init(&rig, 1 << 16);
	closep(&rig.pipe[0]);
	for (int i = 0; i < 30000 && v.status != 503; i++) {
		v = take(&rig, REQUEST "\n", "");
		usleep(1000);
	}
	ck_assert_uint_eq(v.status, 503);
	ck_assert_int_eq(v.refusal, REFUSED_BROKEN);
	ck_assert(output_is_closed(rig.in.output));
	rig_done(&rig);
}
END_TEST

START_TEST(take_many)
{
	/* more than the store keeps, and than there is room for without an allocation */
	struct buf body = BUF_INIT(1 << 20);
	struct verdict v;
	struct rig rig;

	rig_init(&rig, 1 << 20);
	for (int i = 0; i < 1000; i++)
		ck_assert_int_eq(buf_printf(&body,
					 "{\"direction\":0,\"timing_ms\":%d,\"remote_ip\":\"a\","
					 "\"remote_port\":1,\"method\":\"M\",\"path\":\"/%d\","
					 "\"status_code\":0,\"version\":\"\",\"headers\":{},"
					 "\"body\":\"\"}\n",
					 i, i),
			0);
	ingest_take(&rig.in, span_of(body.data, body.len), (struct span){0}, &v);
	ck_assert_uint_eq(v.status, 200);
	ck_assert_uint_eq(v.messages, 1000);
	ck_assert_uint_eq(store_last(rig.in.store), 64);
	ck_assert(span_eq(exchange_path(store_find(rig.in.store, 1)), SPAN("/936")));
	ck_assert(span_eq(exchange_path(store_find(rig.in.store, 64)), SPAN("/999")));
	buf_done(&body);
	rig_done(&rig);
}
END_TEST

/* ---- gzip ---- */

static size_t pack(const char *p, size_t len, char *out, size_t size)
{
	z_stream z = {.next_in = (unsigned char *)(uintptr_t)p,
		.avail_in = (uInt)len,
		.next_out = (unsigned char *)out,
		.avail_out = (uInt)size};

	ck_assert_int_eq(
		deflateInit2(&z, 9, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
	ck_assert_int_eq(deflate(&z, Z_FINISH), Z_STREAM_END);
	deflateEnd(&z);
	return size - z.avail_out;
}

START_TEST(unpacks)
{
	static char zeros[1 << 20];
	char packed[4096];
	struct buf out = BUF_INIT(sizeof(zeros));
	size_t n = pack(REQUEST, strlen(REQUEST), packed, sizeof(packed)), more;

	ck_assert_int_eq(ingest_unpack(span_of(packed, n), &out), 0);
	ck_assert(span_eq(span_of(out.data, out.len), text(REQUEST)));
	/* members behind each other are one file */
	more = pack("\n", 1, packed + n, sizeof(packed) - n);
	out.len = 0;
	ck_assert_int_eq(ingest_unpack(span_of(packed, n + more), &out), 0);
	ck_assert_uint_eq(out.len, strlen(REQUEST) + 1);
	/* cut anywhere, or changed */
	for (size_t cut = 0; cut < n; cut++) {
		out.len = 0;
		ck_assert_int_eq(ingest_unpack(span_of(packed, cut), &out), -EBADMSG);
	}
	packed[n - 6] ^= 1;
	out.len = 0;
	ck_assert_int_eq(ingest_unpack(span_of(packed, n), &out), -EBADMSG);
	/* as large as may be, and one byte more */
	n = pack(zeros, sizeof(zeros), packed, sizeof(packed));
	ck_assert_uint_lt(n, 2000);
	out.len = 0;
	ck_assert_int_eq(ingest_unpack(span_of(packed, n), &out), 0);
	ck_assert_uint_eq(out.len, sizeof(zeros));
	buf_done(&out);
	out = BUF_INIT(sizeof(zeros) - 1);
	ck_assert_int_eq(ingest_unpack(span_of(packed, n), &out), -EFBIG);
	buf_done(&out);
}
END_TEST

/* ---- secrets ---- */

static void put_file(const char *path, const char *content)
{
	char other[128];
	FILE *f;

	/* as a mounted Secret changes: another file takes its place */
	snprintf(other, sizeof(other), "%s.new", path);
	f = fopen(other, "w");
	ck_assert_ptr_nonnull(f);
	fputs(content, f);
	fclose(f);
	ck_assert_int_eq(rename(other, path), 0);
}

START_TEST(secrets)
{
	char dir[] = "/tmp/receiver-test-XXXXXX", path[64], cookie[65], other[65];
	static const uint8_t key[32] = {1};
	struct secret *s = NULL;
	struct err err = {0};

	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/token", dir);
	ck_assert_int_eq(secret_new(path, SECRET_TOKEN, "--token-file", &s, &err), -ENOENT);
	put_file(path, " \n");
	ck_assert_int_eq(secret_new(path, SECRET_TOKEN, "--token-file", &s, &err), -EINVAL);
	put_file(path, "  Jefe \r\nsecond line\n");
	ck_assert_int_eq(secret_new(path, SECRET_TOKEN, "--token-file", &s, &err), 0);
	ck_assert(secret_is_bearer(s, "Bearer Jefe"));
	ck_assert(secret_is_bearer(s, "bearer  Jefe"));
	ck_assert(!secret_is_bearer(s, "Bearer jefe"));
	ck_assert(!secret_is_bearer(s, "Bearer Jef"));
	ck_assert(!secret_is_bearer(s, "Bearer "));
	ck_assert(!secret_is_bearer(s, "Basic Jefe"));
	ck_assert(!secret_is_bearer(s, "Be"));
	ck_assert(!secret_is_bearer(s, ""));
	ck_assert(!secret_is_bearer(s, NULL));
	/* RFC 4231, 4.3 */
	ck_assert(secret_signed(s, SPAN("what do ya want for nothing?"),
		"sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"));
	ck_assert(!secret_signed(s, SPAN("what do ya want for nothing!"),
		"sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"));
	ck_assert(!secret_signed(s, SPAN(""), "sha256="));
	ck_assert(!secret_signed(s, SPAN(""), NULL));
	secret_cookie(s, key, cookie);
	ck_assert_uint_eq(strlen(cookie), 64);
	put_file(path, "another");
	secret_refresh(s);
	ck_assert(secret_is_bearer(s, "Bearer another"));
	ck_assert(!secret_is_bearer(s, "Bearer Jefe"));
	secret_cookie(s, key, other);
	ck_assert_str_ne(cookie, other);
	/* what cannot be read does not open the door, nor close it */
	ck_assert_int_eq(unlink(path), 0);
	secret_refresh(s);
	ck_assert(secret_is_bearer(s, "Bearer another"));
	secret_free(s);
	/* a key is what the loader takes for it: inner newlines and blanks count */
	put_file(path, "\n");
	ck_assert_int_eq(secret_new(path, SECRET_KEY, "--hmac-file", &s, &err), -EINVAL);
	put_file(path, " two\nlines \r\n\n");
	ck_assert_int_eq(secret_new(path, SECRET_KEY, "--hmac-file", &s, &err), 0);
	/* by Python's hmac, with the key ' two\\nlines ' */
	ck_assert(secret_signed(s, SPAN("body"),
		"sha256=c7a921e029168fdfeabf60fd76a17c22780d035f11f8cc59c844e17f04f099ed"));
	secret_free(s);
	remove_dir(dir);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("receiver");
	TCase *t = tcase_create("scan");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_test(t, scan_fields);
	tcase_add_loop_test(t, scan_members, 0, ARRAY_SIZE(members));
	tcase_add_test(t, scan_every_cut);
	tcase_add_loop_test(t, scan_bodies, 0, ARRAY_SIZE(bodies));
	tcase_add_test(t, scan_twice);
	tcase_add_test(t, scan_depth);
	tcase_add_test(t, scan_compacts);
	tcase_add_test(t, scan_cuts);
	suite_add_tcase(suite, t);
	t = tcase_create("store");
	tcase_add_test(t, pair_in_order);
	tcase_add_test(t, pair_alike);
	tcase_add_test(t, pair_response_first);
	tcase_add_test(t, pair_by_id);
	tcase_add_test(t, pair_other_connections);
	tcase_add_test(t, pair_interim);
	tcase_add_test(t, pair_seed);
	tcase_add_test(t, store_keeps_the_newest);
	tcase_add_test(t, store_keeps_within_bytes);
	tcase_add_test(t, store_changes);
	tcase_add_loop_test(t, filters, 0, ARRAY_SIZE(filter_cases));
	tcase_add_test(t, filter_pending);
	tcase_add_test(t, rows);
	suite_add_tcase(suite, t);
	t = tcase_create("intake");
	tcase_set_timeout(t, 120);
	tcase_add_test(t, seen_forgets_the_oldest);
	tcase_add_test(t, files_rotate);
	tcase_add_test(t, files_go_on);
	tcase_add_test(t, files_full_disk);
	tcase_add_test(t, take_lines);
	tcase_add_test(t, take_spaced);
	tcase_add_test(t, take_all_or_nothing);
	tcase_add_test(t, take_once);
	tcase_add_test(t, take_until_full);
	tcase_add_test(t, take_broken);
	tcase_add_test(t, take_many);
	tcase_add_test(t, unpacks);
	tcase_add_test(t, secrets);
	suite_add_tcase(suite, t);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
