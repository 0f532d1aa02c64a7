/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <errno.h>
#include <json-c/json.h>
#include <regex.h>
#include <stdlib.h>
#include <time.h>

#include "pkg/dump/dump.h"
#include "test/unit/dump_reference.h"

#define BIG (16u << 20)

static const struct dump_format unlimited = {.node = "node-1", .line_max = BIG};

#define MESSAGE            \
	CLEANUP(ref_freep) \
	struct ref_message *
#define BUFFER            \
	CLEANUP(buf_done) \
	struct buf
#define OBJECT               \
	CLEANUP(object_putp) \
	struct json_object *

static void object_putp(struct json_object **o)
{
	json_object_put(*o);
}

/* A small generator: the same numbers in every run. */
static uint64_t random_state = 1;

static uint32_t random_below(uint32_t n)
{
	random_state = random_state * UINT64_C(6364136223846793005) + 1442695040888963407;
	return (uint32_t)((random_state >> 32) * n >> 32);
}

static const char *line_of(
	struct buf *out, const struct dump_format *format, const struct dump_message *m)
{
	out->len = 0;
	ck_assert_int_eq(dump_json(format, m, out), 0);
	ck_assert_uint_le(out->len, format->line_max);
	ck_assert_int_eq(buf_append(out, "", 1), 0);
	out->len--;
	return out->data;
}

/* The line is JSON, and equal to what json-c makes of the message. */
static void check_whole(const struct dump_message *m)
{
	BUFFER out = BUF_INIT(2 * BIG);
	const char *line = line_of(&out, &unlimited, m);
	OBJECT object = ref_parse(line, out.len);
	OBJECT expected = ref_object(&unlimited, m);

	ck_assert_msg(object != NULL, "not a line of JSON: %.1500s", line);
	ck_assert_msg(ref_equal(object, expected), "%.1500s\nexpected: %.1500s", line,
		json_object_to_json_string(expected));
}

/* The member as text; the object must have it. */
static const char *member(struct json_object *o, const char *key)
{
	struct json_object *value;

	ck_assert_msg(json_object_object_get_ex(o, key, &value), "no %s", key);
	return json_object_get_string(value);
}

/* ---- the line ---- */

START_TEST(request_line)
{
	MESSAGE r = ref_request(SPAN("GET"), SPAN("/a?b=\"c\""));
	BUFFER out = BUF_INIT(BIG);

	ref_field(r, SPAN("Host"), SPAN("example.org"));
	ref_field(r, SPAN("user-agent"), SPAN("curl/7.88"));
	ref_field(r, SPAN("ACCEPT"), SPAN(""));
	ref_body(r, SPAN("x\ny"));
	ck_assert_str_eq(line_of(&out, &unlimited, ref_done(r)),
		"{\"direction\":0,\"timing_ms\":1700000000123,\"remote_ip\":\"10.0.0.1\","
		"\"remote_port\":50000,\"method\":\"GET\",\"path\":\"/a?b=\\\"c\\\"\","
		"\"status_code\":0,\"version\":\"1.1\",\"headers\":{\"Host\":[\"example.org\"],"
		"\"User-Agent\":[\"curl/7.88\"],\"Accept\":[\"\"]},\"body\":\"x\\ny\","
		"\"src_ip\":\"10.0.0.1\",\"src_port\":50000,\"dst_ip\":\"10.0.0.2\","
		"\"dst_port\":80,\"interface\":\"eth0\",\"node\":\"node-1\",\"pid\":4242,"
		"\"comm\":\"curl\",\"seq\":7,\"body_bytes\":3,\"body_truncated\":false,"
		"\"gap_bytes\":0}\n");
}
END_TEST

START_TEST(response_line)
{
	MESSAGE r = ref_response(404);
	BUFFER out = BUF_INIT(BIG);

	r->m.direction = DUMP_INGRESS;
	ref_field(r, SPAN("set-cookie"), SPAN("a=1"));
	ref_field(r, SPAN("Server"), SPAN("nginx"));
	ref_field(r, SPAN("Set-Cookie"), SPAN("b=2"));
	ref_body(r, span_of("\0\1\2", 3));
	r->m.body_bytes = 10;
	r->m.body_truncated = true;
	r->m.gap_bytes = 7;
	r->m.error = "bad chunk size";
	r->m.request_method = SPAN("GET");
	r->m.request_path = SPAN("/x");
	r->m.request_host = SPAN("example.org");
	r->m.latency_us = 1234;
	ck_assert_str_eq(line_of(&out, &unlimited, ref_done(r)),
		"{\"direction\":1,\"timing_ms\":1700000000123,\"remote_ip\":\"10.0.0.1\","
		"\"remote_port\":50000,\"method\":\"\",\"path\":\"\",\"status_code\":404,"
		"\"version\":\"1.1\",\"headers\":{\"Set-Cookie\":[\"a=1\",\"b=2\"],"
		"\"Server\":[\"nginx\"]},\"body\":\"AAEC\",\"src_ip\":\"10.0.0.2\","
		"\"src_port\":80,\"dst_ip\":\"10.0.0.1\",\"dst_port\":50000,"
		"\"interface\":\"eth0\",\"node\":\"node-1\",\"pid\":4242,\"comm\":\"curl\","
		"\"seq\":7,\"body_bytes\":10,\"body_truncated\":true,"
		"\"body_encoding\":\"base64\",\"gap_bytes\":7,\"error\":\"bad chunk size\","
		"\"latency_us\":1234,\"request\":{\"method\":\"GET\",\"path\":\"/x\","
		"\"host\":\"example.org\"}}\n");
}
END_TEST

/* remote_* is the client of the exchange, whichever end this machine is. */
START_TEST(client)
{
	static const struct {
		enum http_kind kind;
		enum dump_direction direction;
		const char *remote, *src, *dst;
	} cases[] = {
		{HTTP_REQUEST, DUMP_EGRESS, "10.0.0.1", "10.0.0.1", "10.0.0.2"},
		{HTTP_REQUEST, DUMP_INGRESS, "10.0.0.2", "10.0.0.2", "10.0.0.1"},
		{HTTP_RESPONSE, DUMP_EGRESS, "10.0.0.2", "10.0.0.1", "10.0.0.2"},
		{HTTP_RESPONSE, DUMP_INGRESS, "10.0.0.1", "10.0.0.2", "10.0.0.1"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		MESSAGE r = ref_new(cases[i].kind);
		BUFFER out = BUF_INIT(BIG);

		r->m.direction = cases[i].direction;
		r->head.version = ref_add(r, SPAN("1.1"));
		line_of(&out, &unlimited, ref_done(r));
		OBJECT o = ref_parse(out.data, out.len);
		ck_assert_str_eq(member(o, "remote_ip"), cases[i].remote);
		ck_assert_str_eq(member(o, "src_ip"), cases[i].src);
		ck_assert_str_eq(member(o, "dst_ip"), cases[i].dst);
		check_whole(&r->m);
	}
}
END_TEST

START_TEST(numbers)
{
	uint64_t values[256] = {0, 1, UINT64_MAX, INT64_MAX, 1000000000000};
	size_t n = 5;

	for (uint64_t p = 10; n < 60; p *= 10) {
		values[n++] = p - 1;
		values[n++] = p;
		if (p > UINT64_MAX / 10)
			break;
	}
	for (unsigned shift = 0; shift < 64; shift++) {
		values[n++] = UINT64_C(1) << shift;
		values[n++] = (UINT64_C(1) << shift) - 1;
	}
	for (size_t i = 0; i < n; i++) {
		MESSAGE r = ref_response((uint16_t)values[i]);

		r->m.time_ns = r->m.seq = r->m.body_bytes = r->m.gap_bytes = values[i];
		r->m.latency_us = values[i];
		r->m.request_method = SPAN("X");
		r->conn.pid = (uint32_t)values[i];
		r->conn.local.port = r->conn.remote.port = (uint16_t)values[i];
		check_whole(ref_done(r));
	}
}
END_TEST

START_TEST(addresses)
{
	static const char *const ips[] = {"0.0.0.0", "255.255.255.255", "::", "::1", "fe80::1",
		"2001:db8:1111:2222:3333:4444:5555:6666",
		"ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255"};

	for (size_t i = 0; i < ARRAY_SIZE(ips); i++) {
		MESSAGE r = ref_response(200);

		r->conn.local.ip_len = r->conn.remote.ip_len = (uint8_t)strlen(ips[i]);
		memcpy(r->conn.local.ip, ips[i], strlen(ips[i]) + 1);
		memcpy(r->conn.remote.ip, ips[i], strlen(ips[i]) + 1);
		check_whole(ref_done(r));
	}
}
END_TEST

/* ---- text ---- */

/* The text in every place that takes text from the wire. */
static void check_everywhere(struct span s)
{
	char name[16] = "";
	MESSAGE r = ref_request(s, s);
	MESSAGE response = ref_response(200);

	memcpy(name, s.p, MIN(s.len, sizeof(name) - 1));
	memcpy(r->conn.comm, name, sizeof(name));
	memcpy(r->conn.interface, name, sizeof(name));
	r->head.version = ref_add(r, s);
	ref_field(r, s, s);
	ref_body(r, s);
	check_whole(ref_done(r));
	r->m.body_truncated = true;
	check_whole(ref_done(r));
	r->m.pod = (struct dump_pod){s, s, s};
	check_whole(ref_done(r));
	r->m.exchange_id = UINT64_C(0x0123456789abcdef);
	r->m.pod = (struct dump_pod){.container = s};
	check_whole(ref_done(r));

	response->m.request_method = response->m.request_path = response->m.request_host = s;
	check_whole(ref_done(response));
}

/* A test run is a share of all bytes: a process for each byte would cost more than its check. */
#define SHARE 32

START_TEST(every_byte)
{
	for (int c = _i * SHARE; c < (_i + 1) * SHARE; c++) {
		char byte = (char)c, around[3] = {'a', byte, 'z'}, many[100];

		memset(many, byte, sizeof(many));
		check_everywhere(span_of(&byte, 1));
		check_everywhere(span_of(around, 3));
		check_everywhere(span_of(many, sizeof(many)));
	}
}
END_TEST

START_TEST(every_pair)
{
	for (int c = _i * SHARE * 256; c < (_i + 1) * SHARE * 256; c++) {
		MESSAGE r = ref_request(SPAN("GET"), SPAN("/"));
		char pair[2] = {(char)(c / 256), (char)(c % 256)};

		ref_field(r, span_of(pair, 2), span_of(pair, 2));
		ref_body(r, span_of(pair, 2));
		check_whole(ref_done(r));
	}
}
END_TEST

/* A special at each place of a text of each length: wherever blocks begin and end. */
START_TEST(every_place)
{
	static const char *const specials[] = {"\"", "\n", "\r\n \t", "\001", "\177", "\\\\\"",
		"\xe9", "\xc3\xa9", "\xc2\x85", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "-a-A\"b-B",
		"\033"};
	const char *special = specials[_i];
	size_t n = strlen(special);
	char text[128];

	for (size_t len = n; len <= 70; len++) {
		for (size_t at = 0; at + n <= len; at++) {
			MESSAGE r = ref_new(HTTP_REQUEST);
			struct span s = span_of(text, len);

			for (size_t i = 0; i < len; i++)
				text[i] = "xY-z"[i * 7 % 4];
			memcpy(text + at, special, n);
			r->head.target = ref_add(r, s);
			ref_field(r, s, s);
			ref_field(r, SPAN("Y"), SPAN("behind"));
			ref_body(r, s);
			check_whole(ref_done(r));
			/* The same at the end of the memory. */
			r->head.version = ref_add(r, s);
			check_whole(ref_done(r));
		}
	}
}
END_TEST

START_TEST(random_text)
{
	static const char *const pieces[] = {"a", "Z", "-", "\"", "\\", "\n", "\r", " ", "\t",
		"\001", "\177", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\xc2\x80", "\xff",
		"0123456789", "quite a long plain piece of text"};
	uint32_t kinds;
	char text[1024];

	random_state = (uint64_t)_i;
	for (int run = 0; run < 60; run++) {
		MESSAGE r = ref_request(SPAN("GET"), SPAN("/"));

		kinds = 1 + random_below(ARRAY_SIZE(pieces));
		for (int field = 0; field < 6; field++) {
			size_t len = 0, max = random_below(sizeof(text) - 64);

			while (len < max) {
				const char *piece = pieces[random_below(kinds)];

				memcpy(text + len, piece, strlen(piece));
				len += strlen(piece);
			}
			ref_field(r, span_of(text, MIN(len, (size_t)random_below(40))),
				span_of(text, len));
			r->m.body = span_of(text, len);
		}
		r->m.body_truncated = random_below(2) == 1;
		check_whole(ref_done(r));
	}
}
END_TEST

static const struct {
	const char *wire, *value; /* as in a header */
	bool text;		  /* as a body */
} utf8_cases[] = {
	{"plain", "plain", true},
	{"gr\xc3\xbc\xc3\x9f", "gr\xc3\xbc\xc3\x9f", true},
	{"\xe2\x82\xac", "\xe2\x82\xac", true},
	{"\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80", true},
	{"\xf4\x8f\xbf\xbf", "\xf4\x8f\xbf\xbf", true},
	/* Latin-1 */
	{"gr\xfc\xdf", "gr\xc3\xbc\xc3\x9f", false},
	/* overlong: '/' in two, three and four bytes */
	{"\xc0\xaf", "\xc3\x80\xc2\xaf", false},
	{"\xe0\x80\xaf", "\xc3\xa0\\u0080\xc2\xaf", false},
	{"\xf0\x80\x80\xaf", "\xc3\xb0\\u0080\\u0080\xc2\xaf", false},
	/* surrogates, beyond U+10FFFF */
	{"\xed\xa0\x80", "\xc3\xad\xc2\xa0\\u0080", false},
	{"\xf4\x90\x80\x80", "\xc3\xb4\\u0090\\u0080\\u0080", false},
	/* cut */
	{"a\xe2\x82", "a\xc3\xa2\\u0082", false},
	/* one wrong byte turns all of it into Latin-1 */
	{"\xc3\xa9\xff", "\xc3\x83\xc2\xa9\xc3\xbf", false},
	/* controls: C1 in UTF-8 (CSI), DEL, NUL is elsewhere */
	{"\xc2\x9b"
	 "31m",
		"\\u009b31m", false},
	{"\x7f", "\\u007f", false},
	{"\033[0m\b\f\v", "\\u001b[0m\\b\\f\\u000b", true},
	{"\a", "\\u0007", false},
};

START_TEST(utf8)
{
	struct span wire = span_str(utf8_cases[_i].wire);
	MESSAGE r = ref_request(SPAN("GET"), SPAN("/"));
	BUFFER out = BUF_INIT(BIG);
	char expected[128];

	ref_field(r, SPAN("X"), wire);
	ref_body(r, wire);
	line_of(&out, &unlimited, ref_done(r));
	(void)snprintf(
		expected, sizeof(expected), "\"headers\":{\"X\":[\"%s\"]}", utf8_cases[_i].value);
	ck_assert_msg(strstr(out.data, expected) != NULL, "%s in %s", expected, out.data);
	ck_assert_int_eq(
		strstr(out.data, "\"body_encoding\":\"base64\"") == NULL, utf8_cases[_i].text);
	check_everywhere(wire);
}
END_TEST

/* A body cut inside a character is text if the limit cut it, else it is not. */
START_TEST(body_cut_inside_character)
{
	const char text[] = "a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80z";

	for (size_t n = 0; n < sizeof(text); n++) {
		for (int truncated = 0; truncated < 2; truncated++) {
			MESSAGE r = ref_response(200);
			BUFFER out = BUF_INIT(BIG);
			bool whole = utf8_valid(text, n) == n, base64;

			ref_body(r, span_of(text, n));
			r->m.body_truncated = truncated;
			line_of(&out, &unlimited, ref_done(r));
			base64 = strstr(out.data, "base64") != NULL;
			ck_assert_int_eq(base64, !whole && !truncated);
			if (truncated) {
				OBJECT o = ref_parse(out.data, out.len);

				ck_assert_uint_eq(strlen(member(o, "body")), utf8_valid(text, n));
			}
			check_whole(&r->m);
		}
	}
}
END_TEST

START_TEST(base64)
{
	static const char *const cases[][2] = {{"\xff", "/w=="}, {"\xff\xfe", "//4="},
		{"\xff\xfe\xfd", "//79"}, {"\xff\xfe\xfd\xfc", "//79/A=="},
		{"\xfb\xef\xbe", "++++"}};
	char bytes[600];

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		MESSAGE r = ref_response(200);
		BUFFER out = BUF_INIT(BIG);

		ref_body(r, span_str(cases[i][0]));
		line_of(&out, &unlimited, ref_done(r));
		OBJECT o = ref_parse(out.data, out.len);
		ck_assert_str_eq(member(o, "body"), cases[i][1]);
	}
	for (size_t n = 1; n <= sizeof(bytes); n++) {
		MESSAGE r = ref_response(200);

		for (size_t i = 0; i < n; i++)
			bytes[i] = (char)random_below(256);
		bytes[random_below((uint32_t)n)] = '\0';
		ref_body(r, span_of(bytes, n));
		check_whole(ref_done(r));
	}
}
END_TEST

START_TEST(body_sizes)
{
	CLEANUP(freep)
	char *body = malloc((1u << 20) + 1);

	for (size_t i = 0; i <= 1u << 20; i++)
		body[i] = (char)(' ' + i % 95);
	for (size_t power = 1; power <= 1u << 20; power *= 2) {
		for (size_t n = power - 1; n <= power + 1; n++) {
			MESSAGE text = ref_response(200);
			MESSAGE binary = ref_response(200);

			ref_body(text, span_of(body, n));
			check_whole(ref_done(text));
			if (n == 0)
				continue;
			char last = body[n - 1];
			body[n - 1] = '\0';
			ref_body(binary, span_of(body, n));
			check_whole(ref_done(binary));
			body[n - 1] = last;
		}
	}
}
END_TEST

/* ---- headers ---- */

static const char *const name_cases[][2] = {
	{"host", "Host"},
	{"HOST", "Host"},
	{"hOsT", "Host"},
	{"user-agent", "User-Agent"},
	{"X-FORWARDED-FOR", "X-Forwarded-For"},
	{"x-a-b-c-d-e-f-g-h-i-j-k-l-m-n-o", "X-A-B-C-D-E-F-G-H-I-J-K-L-M-N-O"},
	{"0123456789abcde-fghijklmnopqrst-uvw", "0123456789abcde-Fghijklmnopqrst-Uvw"},
	{"0123456789abcdef-ghijklmnopqrst-uvw", "0123456789abcdef-Ghijklmnopqrst-Uvw"},
	{"0123456789abcd-efghijklmnopqrst-uvw", "0123456789abcd-Efghijklmnopqrst-Uvw"},
	{"--A--b--", "--A--B--"},
	{"etag", "Etag"},
	{"x_y_Z", "X_y_z"},
	{"9lives", "9lives"},
	{"", ""},
	{"[AZ]-[az]-@Z`a-{", "[az]-[az]-@z`a-{"},
	{"a b\tC", "A b\\tc"},
	{"x-\xc3\x89-\xc3\xa9", "X-\xc3\x89-\xc3\xa9"},
	{"x-\xe9-ABC", "X-\xc3\xa9-Abc"},
	{"a\"b-c\"-d-very-long-header-name-BEHIND-it",
		"A\\\"b-C\\\"-D-Very-Long-Header-Name-Behind-It"},
};

START_TEST(names)
{
	MESSAGE r = ref_request(SPAN("GET"), SPAN("/"));
	BUFFER out = BUF_INIT(BIG);
	char expected[128];

	ref_field(r, span_str(name_cases[_i][0]), SPAN("v"));
	line_of(&out, &unlimited, ref_done(r));
	(void)snprintf(
		expected, sizeof(expected), "\"headers\":{\"%s\":[\"v\"]}", name_cases[_i][1]);
	ck_assert_msg(strstr(out.data, expected) != NULL, "%s in %s", expected, out.data);
	check_whole(&r->m);
}
END_TEST

START_TEST(folding)
{
	static const char *const cases[][2] = {
		{"a\r\n b", "a b"},
		{"a\n\tb", "a b"},
		{"a\r\n \t \tb\r\n c", "a b c"},
		{"a \r\n b", "a  b"},
		{"a\r b", "a\\r b"},
		{"a\r\r\n b", "a\\r b"},
		{"\r\n b", " b"},
		{"a\r\n", "a "},
		{"a\n\n\n", "a   "},
		{"a value that is longer than one block\r\n \"of\" sixteen\n bytes",
			"a value that is longer than one block \\\"of\\\" sixteen bytes"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		MESSAGE r = ref_request(SPAN("GET"), SPAN("/"));
		BUFFER out = BUF_INIT(BIG);
		char expected[256];

		ref_field(r, SPAN("X"), span_str(cases[i][0]));
		line_of(&out, &unlimited, ref_done(r));
		(void)snprintf(expected, sizeof(expected), "{\"X\":[\"%s\"]}", cases[i][1]);
		ck_assert_msg(strstr(out.data, expected) != NULL, "%s in %s", expected, out.data);
		check_whole(&r->m);
	}
}
END_TEST

START_TEST(repeated_names)
{
	MESSAGE r = ref_request(SPAN("GET"), SPAN("/"));
	BUFFER out = BUF_INIT(BIG);

	ref_field(r, SPAN("b"), SPAN("1"));
	ref_field(r, SPAN("A"), SPAN("2"));
	ref_field(r, SPAN("B"), SPAN("3"));
	ref_field(r, SPAN("caf\xe9"), SPAN("4")); /* Latin-1 */
	ref_field(r, SPAN("a"), SPAN(""));
	ref_field(r, SPAN("CAF\xc3\xa9"), SPAN("5")); /* UTF-8: the same key */
	ref_field(r, SPAN("c"), SPAN("6"));
	ref_field(r, SPAN("b"), SPAN("7"));
	ref_field(r, SPAN(""), SPAN("8"));
	ref_field(r, SPAN(""), SPAN("9"));
	line_of(&out, &unlimited, ref_done(r));
	ck_assert_msg(
		strstr(out.data,
			"\"headers\":{\"B\":[\"1\",\"3\",\"7\"],\"A\":[\"2\",\"\"],"
			"\"Caf\xc3\xa9\":[\"4\",\"5\"],\"C\":[\"6\"],\"\":[\"8\",\"9\"]}") != NULL,
		"%s", out.data);
	check_whole(&r->m);
}
END_TEST

/* What a name is depends on all of it: with a Latin-1 byte behind, the same UTF-8 is another. */
START_TEST(names_alike)
{
	MESSAGE r = ref_request(SPAN("GET"), SPAN("/"));

	ref_field(r, SPAN("\xc3\xa9-------\xc3\xa9"), SPAN("1"));
	ref_field(r, SPAN("\xc3\xa9-------\xe9"), SPAN("2"));
	ref_field(r, SPAN("X-------\xc3\xa9"), SPAN("3"));
	ref_field(r, SPAN("x-------\xe9"), SPAN("4"));
	ref_field(r, SPAN("A-name-that-begins-like-the-next"), SPAN("5"));
	ref_field(r, SPAN("A-name-that-begins-like-the-next-one"), SPAN("6"));
	check_whole(ref_done(r));
}
END_TEST

/* Many headers of few names, of names that are alike, of as many names: grouped as by the obvious
 * way. Numbers around those for which there is memory without an allocation. */
START_TEST(many_headers)
{
	static const uint32_t counts[] = {2, 3, 64, 255, 256, 257, 600};
	char name[64], value[16];

	for (size_t c = 0; c < ARRAY_SIZE(counts); c++) {
		uint32_t n = counts[c];

		for (uint32_t kinds = 1; kinds <= n; kinds = kinds < 5 ? kinds + 1 : kinds * 3) {
			MESSAGE r = ref_request(SPAN("GET"), SPAN("/"));

			for (uint32_t i = 0; i < n; i++) {
				uint32_t which = random_below(kinds);
				int len = snprintf(name, sizeof(name),
					c % 2 ? "x-%u-prefix-and-suffix"
					      : "X-always-the-same-%u-end-of-it",
					which);

				name[0] = (char)(name[0] ^ (random_below(2) ? 0x20 : 0));
				ref_field(r, span_of(name, (size_t)len),
					span_of(value,
						(size_t)snprintf(value, sizeof(value), "%u", i)));
			}
			check_whole(ref_done(r));
		}
	}
}
END_TEST

/* Names that somebody made who knows how marks are computed: they all have the same one (on a
 * little-endian machine). So many that they are sorted. */
START_TEST(many_headers_of_one_mark)
{
	MESSAGE r = ref_request(SPAN("GET"), SPAN("/"));
	char value[16];

	for (uint32_t i = 0; i < 1500; i++) {
		char name[17] = "pppppppppppppppp";

		/* Four bits of each byte of the second half have a counterpart in the first. */
		for (unsigned bit = 0; bit < 12; bit++) {
			unsigned byte = bit / 4, which = bit % 4;

			if (!((i % 1000 * 7 + 1) >> bit & 1))
				continue;
			name[8 + byte] = (char)(name[8 + byte] ^ 2 << which);
			name[byte + 3] = (char)(name[byte + 3] ^ 1 << which);
		}
		ref_field(r, span_of(name, 16),
			span_of(value, (size_t)snprintf(value, sizeof(value), "%u", i)));
	}
	check_whole(ref_done(r));
}
END_TEST

/* ---- the limit ---- */

/* All pairs of random things; long is the size of the largest. */
static struct ref_message *random_message(uint32_t longest)
{
	static const char alphabet[] =
		"abcdefghijABCDEFGHIJ0123456789-_ /?=&\"\\\n\r\t\xe9\xff\001";
	uint32_t fields = random_below(random_below(4) ? 12 : 400);
	uint32_t letters = random_below(2) ? 30 : sizeof(alphabet) - 1;
	CLEANUP(freep)
	char *text = malloc(longest + 1);
	struct ref_message *r;

#define TEXT(n)                                                     \
	({                                                          \
		uint32_t n_ = random_below((n) + 1);                \
		for (uint32_t i_ = 0; i_ < n_; i_++)                \
			text[i_] = alphabet[random_below(letters)]; \
		span_of(text, n_);                                  \
	})
	r = random_below(2) ? ref_request(TEXT(random_below(20) ? 10 : longest), SPAN("/"))
			    : ref_response((uint16_t)random_below(65536));
	if (r->head.kind == HTTP_REQUEST)
		r->head.target = ref_add(r, TEXT(random_below(4) ? 100 : longest));
	if (random_below(10) == 0)
		r->head.version = ref_add(r, TEXT(longest));
	for (uint32_t i = 0; i < fields; i++) {
		struct http_field *field = &r->fields[r->head.n_fields];

		field->name = ref_add(r, TEXT(random_below(20) ? 20 : random_below(longest)));
		field->value = ref_add(r, TEXT(random_below(20) ? 60 : longest));
		r->head.n_fields++;
	}
	return r;
}

static char body_bytes[40000];

static void add_random_body(struct ref_message *r, uint32_t longest)
{
	uint32_t n = random_below(longest);

	for (uint32_t i = 0; i < n; i++)
		body_bytes[i] = "aab\"\xc3\xa9"[random_below(4)];
	if (random_below(3) == 0 && n > 0)
		body_bytes[random_below(n)] = '\0';
	if (random_below(3) == 0)
		for (uint32_t i = 0; i + 1 < n; i += 2)
			memcpy(body_bytes + i, "\xc3\xa9", 2);
	ref_body(r, span_of(body_bytes, n));
	if (r->head.kind == HTTP_RESPONSE) {
		r->m.request_method = span_of(body_bytes, MIN(n, 5u));
		r->m.request_path = span_of(body_bytes, n);
		r->m.request_host = span_of(body_bytes, n / 2);
	}
	r->m.body_truncated = random_below(2);
}

static bool starts_with(struct json_object *whole, struct json_object *part)
{
	int len = json_object_get_string_len(part);

	return len <= json_object_get_string_len(whole) &&
	       memcmp(json_object_get_string(whole), json_object_get_string(part), (size_t)len) ==
		       0;
}

static struct json_object *get(struct json_object *o, const char *key)
{
	struct json_object *value = NULL;

	(void)json_object_object_get_ex(o, key, &value);
	return value;
}

/* What is in cut is the beginning of what is in whole. */
static void check_cut(struct json_object *whole, struct json_object *cut)
{
	bool headers_cut = json_object_get_boolean(get(cut, "headers_truncated"));
	bool body_cut = !json_object_equal(get(whole, "body"), get(cut, "body"));

	ck_assert(headers_cut || body_cut);
	ck_assert(!body_cut || json_object_get_boolean(get(cut, "body_truncated")));
	ck_assert(starts_with(get(whole, "body"), get(cut, "body")));
	ck_assert(json_object_equal(get(whole, "body_encoding"), get(cut, "body_encoding")));
	if (get(cut, "body_encoding"))
		ck_assert_int_eq(json_object_get_string_len(get(cut, "body")) % 4, 0);
	ck_assert(starts_with(get(whole, "path"), get(cut, "path")));
	ck_assert(starts_with(get(whole, "method"), get(cut, "method")));
	ck_assert(starts_with(get(whole, "version"), get(cut, "version")));
	if (!headers_cut) {
		ck_assert(json_object_equal(get(whole, "headers"), get(cut, "headers")));
		ck_assert(json_object_equal(get(whole, "path"), get(cut, "path")));
		ck_assert(json_object_equal(get(whole, "request"), get(cut, "request")));
	} else {
		/* the body goes first */
		ck_assert_int_eq(json_object_get_string_len(get(cut, "body")), 0);
	}
	json_object_object_foreach(get(cut, "headers"), name, values)
	{
		struct json_object *all = get(get(whole, "headers"), name);

		/* json-c's keys end at a NUL; then which header is meant is not certain */
		ck_assert(all != NULL);
		ck_assert_uint_le(json_object_array_length(values), json_object_array_length(all));
		for (size_t i = 0; i < json_object_array_length(values); i++)
			ck_assert(starts_with(json_object_array_get_idx(all, i),
				json_object_array_get_idx(values, i)));
	}
	json_object_object_foreach(cut, key, value)
	{
		if (!strcmp(key, "headers_truncated") || !strcmp(key, "body_truncated"))
			continue;
		ck_assert_msg(get(whole, key) != NULL, "%s", key);
		ck_assert_int_eq(
			json_object_get_type(value), json_object_get_type(get(whole, key)));
	}
}

static void check_limit(const struct dump_message *m, size_t line_max)
{
	struct dump_format format = {.node = "node-1", .line_max = line_max};
	BUFFER whole = BUF_INIT(2 * BIG);
	BUFFER cut = BUF_INIT(2 * BIG);

	line_of(&whole, &unlimited, m);
	line_of(&cut, &format, m);
	if (whole.len <= line_max) {
		ck_assert_str_eq(whole.data, cut.data);
		return;
	}
	OBJECT a = ref_parse(whole.data, whole.len);
	OBJECT b = ref_parse(cut.data, cut.len);
	ck_assert_msg(b != NULL, "line_max %zu: %s", line_max, cut.data);
	check_cut(a, b);
	/* What was cut from the body leaves less room than the next character needs. */
	if (!get(b, "headers_truncated"))
		ck_assert_uint_ge(cut.len, line_max - 8);
}

START_TEST(limit_of_body)
{
	MESSAGE r = ref_request(SPAN("POST"), SPAN("/"));
	BUFFER out = BUF_INIT(BIG);
	char text[4000];
	size_t len;

	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = "abc\"\n\\def"[i % 9];
	if (_i == 1)
		text[2000] = '\0';
	for (size_t i = 0; _i == 2 && i + 4 <= sizeof(text); i += 4)
		memcpy(text + i, "\xf0\x9f\x98\x80", 4);
	ref_field(r, SPAN("Host"), SPAN("example.org"));
	ref_body(r, span_of(text, sizeof(text)));
	line_of(&out, &unlimited, ref_done(r));
	len = out.len;
	ck_assert_uint_gt(len, DUMP_LINE_MIN);
	for (size_t max = DUMP_LINE_MIN; max < DUMP_LINE_MIN + 40; max++)
		check_limit(&r->m, max);
	for (size_t max = len - 40; max < len + 10; max++)
		check_limit(&r->m, max);
	/* a body that is cut by one byte is not called whole */
	struct dump_format format = {.node = "node-1", .line_max = len - 1};
	line_of(&out, &format, &r->m);
	ck_assert_ptr_nonnull(strstr(out.data, "\"body_truncated\":true"));
	r->m.body_truncated = true;
	for (size_t max = len - 40; max < len + 10; max++)
		check_limit(&r->m, max);
}
END_TEST

/* The longest values are cut first, all to the same length, and the line is well used. */
START_TEST(limit_of_headers)
{
	struct dump_format format = {.node = "node-1", .line_max = 4096};
	MESSAGE r = ref_request(SPAN("GET"), SPAN("/path"));
	BUFFER out = BUF_INIT(BIG);
	static char text[60000];

	memset(text, 'v', sizeof(text));
	ref_field(r, SPAN("Host"), SPAN("example.org"));
	ref_field(r, SPAN("Cookie"), span_of(text, 50000));
	ref_field(r, SPAN("Other"), span_of(text, 20000));
	ref_field(r, SPAN("Short"), span_of(text, 100));
	ref_body(r, SPAN("body"));
	line_of(&out, &format, ref_done(r));
	OBJECT o = ref_parse(out.data, out.len);
	ck_assert_uint_gt(out.len, 4096 - 4);
	ck_assert_str_eq(member(o, "headers_truncated"), "true");
	ck_assert_str_eq(member(o, "body_truncated"), "true");
	ck_assert_str_eq(member(o, "body"), "");
	ck_assert_str_eq(member(o, "path"), "/path");
	ck_assert_str_eq(member(get(o, "headers"), "Host"), "[ \"example.org\" ]");
	ck_assert_uint_eq(strlen(member(get(o, "headers"), "Short")), 100 + 6);
	ck_assert_uint_eq(strlen(member(get(o, "headers"), "Cookie")),
		strlen(member(get(o, "headers"), "Other")));
	ck_assert_uint_gt(strlen(member(get(o, "headers"), "Cookie")), 1500);
	for (size_t max = 4096; max < 4200; max++)
		check_limit(&r->m, max);
	line_of(&out, &unlimited, &r->m);
	for (size_t max = out.len - 30; max < out.len + 10; max++)
		check_limit(&r->m, max);
}
END_TEST

/* More headers than there is room for, even without values. */
START_TEST(limit_of_names)
{
	struct dump_format format = {.node = "node-1", .line_max = DUMP_LINE_MAX};
	MESSAGE r = ref_request(SPAN("GET"), SPAN("/path"));
	BUFFER out = BUF_INIT(BIG);
	static char text[60000];
	char name[32];

	memset(text, 'n', sizeof(text));
	ref_field(r, SPAN("Host"), SPAN("example.org"));
	ref_field(r, span_of(text, sizeof(text)), SPAN("left out"));
	for (int i = 0; i < 2000; i++)
		ref_field(r, span_of(name, (size_t)snprintf(name, sizeof(name), "N%d", i % 1500)),
			SPAN("value"));
	line_of(&out, &format, ref_done(r));
	OBJECT o = ref_parse(out.data, out.len);
	ck_assert_str_eq(member(o, "headers_truncated"), "true");
	ck_assert_str_eq(member(get(o, "headers"), "Host"), "[ \"example.org\" ]");
	ck_assert_str_eq(member(get(o, "headers"), "N0"), "[ \"value\", \"value\" ]");
	ck_assert_str_eq(member(o, "path"), "/path");
	ck_assert_uint_gt(out.len, DUMP_LINE_MAX - 64);
	for (size_t max = DUMP_LINE_MIN; max < DUMP_LINE_MIN + 100; max++)
		check_limit(&r->m, max);

	/* one name with more values than there is room for */
	MESSAGE same = ref_request(SPAN("GET"), SPAN("/path"));
	for (int i = 0; i < 3000; i++)
		ref_field(same, SPAN("Cookie"), SPAN("value"));
	for (size_t max = DUMP_LINE_MIN; max < DUMP_LINE_MIN + 30; max++)
		check_limit(ref_done(same), max);
	format.line_max = DUMP_LINE_MAX;
	line_of(&out, &format, &same->m);
	OBJECT p = ref_parse(out.data, out.len);
	ck_assert_uint_gt(json_object_array_length(get(get(p, "headers"), "Cookie")), 1000);
}
END_TEST

/* All texts as long as can be, all numbers too: fits the smallest limit. */
START_TEST(limit_at_its_worst)
{
	static char text[65536], node[5000];
	char byte = "a\001\"\xe9\n"[_i];
	struct dump_format format = {.node = node, .line_max = DUMP_LINE_MIN};
	struct span s = span_of(text, sizeof(text));
	MESSAGE r = ref_request(s, s);
	BUFFER out = BUF_INIT(BIG);

	memset(text, byte, sizeof(text));
	memset(node, byte, sizeof(node) - 1);
	memset(r->conn.comm, byte, 15);
	memset(r->conn.interface, byte, 15);
	memset(r->conn.local.ip, 'f', 45);
	memset(r->conn.remote.ip, 'f', 45);
	r->conn.local.ip_len = r->conn.remote.ip_len = 45;
	r->conn.local.port = r->conn.remote.port = 65535;
	r->conn.pid = UINT32_MAX;
	r->head.status = 65535;
	r->head.version = ref_add(r, s);
	r->m.time_ns = r->m.seq = r->m.body_bytes = r->m.gap_bytes = UINT64_MAX;
	r->m.latency_us = UINT64_MAX;
	r->m.error = node;
	r->m.pod = (struct dump_pod){s, s, s};
	r->m.exchange_id = UINT64_MAX;
	r->m.request_method = r->m.request_path = r->m.request_host = s;
	for (int i = 0; i < 3000; i++)
		ref_field(r, SPAN("A"), span_of(text, 100));
	for (int i = 0; i < 1000; i++)
		ref_field(r, span_of(text, (size_t)i), SPAN(""));
	text[100] = '\0';
	ref_body(r, s);
	for (; format.line_max < DUMP_LINE_MIN + 300; format.line_max += 7) {
		line_of(&out, &format, ref_done(r));
		OBJECT o = ref_parse(out.data, out.len);
		ck_assert_ptr_nonnull(o);
		ck_assert_str_eq(member(o, "headers_truncated"), "true");
		ck_assert_str_eq(member(o, "body_truncated"), "true");
	}
	/* less is taken as the smallest */
	format.line_max = 0;
	out.len = 0;
	ck_assert_int_eq(dump_json(&format, &r->m, &out), 0);
	ck_assert_uint_le(out.len, DUMP_LINE_MIN);
	ck_assert_ptr_nonnull(out.data);
}
END_TEST

START_TEST(limit_random)
{
	random_state = (uint64_t)_i + 1000;
	for (int run = 0; run < 20; run++) {
		MESSAGE r = random_message(20000);

		add_random_body(r, 20000);
		ref_done(r);
		check_whole(&r->m);
		for (int i = 0; i < 5; i++)
			check_limit(&r->m, DUMP_LINE_MIN + random_below(20000));
	}
}
END_TEST

/* A buffer with too little room is left as it was; one with enough is used. */
START_TEST(small_buffer)
{
	MESSAGE r = ref_request(SPAN("GET"), SPAN("/"));
	BUFFER whole = BUF_INIT(BIG);
	struct dump_format format = {.node = "node-1", .line_max = DUMP_LINE_MAX};
	size_t len;

	ref_field(r, SPAN("Host"), SPAN("example.org"));
	ref_body(r, SPAN("a body"));
	line_of(&whole, &format, ref_done(r));
	len = whole.len;
	for (size_t before = 0; before <= 20; before += 20) {
		for (size_t max = before; max < before + len + 3000;
			max += max < len - 20 ? 13 : 1) {
			BUFFER out = BUF_INIT(max);
			int result;

			if (before > 0)
				ck_assert_int_eq(
					buf_append(&out, "01234567890123456789", before), 0);
			result = dump_json(&format, &r->m, &out);
			ck_assert_int_eq(result, max - before < len ? -ENOBUFS : 0);
			ck_assert_uint_eq(out.len, before + (result == 0 ? len : 0));
			ck_assert_uint_le(out.cap, max);
			if (before > 0)
				ck_assert_mem_eq(out.data, "01234567890123456789", before);
			if (result == 0)
				ck_assert_mem_eq(out.data + before, whole.data, len);
		}
	}
	BUFFER text = BUF_INIT(10);
	ck_assert_int_eq(dump_text(&format, &r->m, &text), -ENOBUFS);
	ck_assert_uint_eq(text.len, 0);
}
END_TEST

/* Lines follow each other. */
START_TEST(many_lines)
{
	BUFFER out = BUF_INIT(BIG);
	size_t begin = 0;

	random_state = 5;
	for (int i = 0; i < 200; i++) {
		struct dump_format format = {.node = "n", .line_max = 4000};
		MESSAGE r = random_message(3000);

		add_random_body(r, 3000);
		ck_assert_int_eq(dump_json(&format, ref_done(r), &out), 0);
		OBJECT o = ref_parse(out.data + begin, out.len - begin);
		ck_assert_ptr_nonnull(o);
		begin = out.len;
	}
}
END_TEST

/* ---- the schema ---- */

static bool type_fits(struct json_object *value, const char *type)
{
	if (!strcmp(type, "string"))
		return json_object_is_type(value, json_type_string);
	if (!strcmp(type, "integer"))
		return json_object_is_type(value, json_type_int);
	if (!strcmp(type, "boolean"))
		return json_object_is_type(value, json_type_boolean);
	if (!strcmp(type, "array"))
		return json_object_is_type(value, json_type_array);
	return !strcmp(type, "object") && json_object_is_type(value, json_type_object);
}

static bool matches(struct json_object *value, const char *pattern)
{
	regex_t regex;
	int r;

	ck_assert_int_eq(regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB), 0);
	r = regexec(&regex, json_object_get_string(value), 0, NULL, 0);
	regfree(&regex);
	return r == 0;
}

/* The part of JSON Schema that ours uses; an unknown keyword fails. */
static void check_schema(struct json_object *schema, struct json_object *value, const char *where)
{
	json_object_object_foreach(schema, keyword, rule)
	{
		if (!strcmp(keyword, "type")) {
			ck_assert_msg(type_fits(value, json_object_get_string(rule)), "%s", where);
		} else if (!strcmp(keyword, "minimum")) {
			ck_assert_msg(json_object_get_int64(value) >= json_object_get_int64(rule),
				"%s", where);
		} else if (!strcmp(keyword, "maximum")) {
			ck_assert_msg(json_object_get_uint64(value) <= json_object_get_uint64(rule),
				"%s", where);
		} else if (!strcmp(keyword, "minItems")) {
			ck_assert_msg(json_object_array_length(value) >=
					      (size_t)json_object_get_int64(rule),
				"%s", where);
		} else if (!strcmp(keyword, "const")) {
			ck_assert_msg(json_object_equal(value, rule), "%s", where);
		} else if (!strcmp(keyword, "pattern")) {
			ck_assert_msg(matches(value, json_object_get_string(rule)), "%s", where);
		} else if (!strcmp(keyword, "items")) {
			for (size_t i = 0; i < json_object_array_length(value); i++)
				check_schema(rule, json_object_array_get_idx(value, i), where);
		} else if (!strcmp(keyword, "required")) {
			for (size_t i = 0; i < json_object_array_length(rule); i++) {
				const char *key =
					json_object_get_string(json_object_array_get_idx(rule, i));

				ck_assert_msg(get(value, key) != NULL, "%s: %s", where, key);
			}
		} else if (!strcmp(keyword, "properties")) {
			json_object_object_foreach(rule, name, sub)
			{
				if (get(value, name))
					check_schema(sub, get(value, name), name);
			}
		} else if (!strcmp(keyword, "additionalProperties")) {
			if (!json_object_is_type(rule, json_type_object))
				continue;
			json_object_object_foreach(value, name, sub) check_schema(rule, sub, name);
		} else {
			ck_assert_msg(!strcmp(keyword, "description") ||
					      !strcmp(keyword, "title") ||
					      !strcmp(keyword, "examples") || keyword[0] == '$',
				"unknown keyword %s", keyword);
		}
	}
}

/* Keys of value that the schema does not know, in an object that has properties. */
static void check_known(struct json_object *schema, struct json_object *value)
{
	struct json_object *properties = get(schema, "properties");

	if (!properties)
		return;
	json_object_object_foreach(value, key, sub)
	{
		ck_assert_msg(get(properties, key) != NULL, "the schema does not have %s", key);
		check_known(get(properties, key), sub);
	}
}

static struct json_object *load_schema(void)
{
	const char *path = "docs/networkdump.schema.json"; /* tests run in the root of the tree */
	struct json_object *o = json_object_from_file(path);

	ck_assert_msg(o != NULL, "%s: %s", path, json_util_get_last_err());
	return o;
}

START_TEST(schema)
{
	OBJECT document = load_schema();
	struct dump_format small = {.node = "node-1", .line_max = DUMP_LINE_MIN};
	MESSAGE plain = ref_request(SPAN("GET"), SPAN("/"));
	MESSAGE full = ref_response(200);
	BUFFER out = BUF_INIT(BIG);
	static char text[5000];
	struct json_object *required = get(document, "required");
	size_t known = 0;

	ck_assert_str_eq(
		member(document, "$schema"), "https://json-schema.org/draft/2020-12/schema");
	/* The keys that are always there are those that are required, in this order. */
	line_of(&out, &unlimited, ref_done(plain));
	OBJECT a = ref_parse(out.data, out.len);
	check_schema(document, a, "plain");
	check_known(document, a);
	json_object_object_foreach(a, key, value)
	{
		ck_assert_ptr_nonnull(value);
		ck_assert_str_eq(
			key, json_object_get_string(json_object_array_get_idx(required, known)));
		known++;
	}
	ck_assert_uint_eq(known, json_object_array_length(required));

	/* With all others, all that the schema has is there, in the same order. */
	memset(text, 'x', sizeof(text));
	ref_field(full, SPAN("A"), span_of(text, sizeof(text)));
	ref_body(full, span_of("\0", 1));
	full->m.exchange_id = 1;
	full->m.pod = (struct dump_pod){SPAN("shop"), SPAN("web"), SPAN("nginx")};
	full->m.error = "error";
	full->m.request_method = full->m.request_path = full->m.request_host = SPAN("x");
	line_of(&out, &small, ref_done(full));
	OBJECT b = ref_parse(out.data, out.len);
	check_schema(document, b, "full");
	check_known(document, b);
	struct json_object_iterator i = json_object_iter_begin(b);
	json_object_object_foreach(get(document, "properties"), name, sub)
	{
		ck_assert_ptr_nonnull(get(sub, "description"));
		ck_assert_str_eq(name, json_object_iter_peek_name(&i));
		json_object_iter_next(&i);
	}
	struct json_object_iterator end = json_object_iter_end(b);
	ck_assert(json_object_iter_equal(&i, &end));

	random_state = 77;
	for (int run = 0; run < 100; run++) {
		MESSAGE r = random_message(2000);

		add_random_body(r, 2000);
		line_of(&out, &small, ref_done(r));
		OBJECT o = ref_parse(out.data, out.len);
		check_schema(document, o, "random");
		check_known(document, o);
	}
}
END_TEST

/* ---- text ---- */

static const char *text_of_message(struct buf *out, bool colour, const struct dump_message *m)
{
	struct dump_format format = {.node = "node-1", .line_max = DUMP_LINE_MAX, .colour = colour};

	out->len = 0;
	ck_assert_int_eq(dump_text(&format, m, out), 0);
	ck_assert_int_eq(buf_append(out, "", 1), 0);
	out->len--;
	return out->data;
}

static void utc(void)
{
	setenv("TZ", "UTC", 1);
	tzset();
}

START_TEST(text_lines)
{
	MESSAGE request = ref_request(SPAN("GET"), SPAN("/path"));
	MESSAGE response = ref_response(200);
	BUFFER out = BUF_INIT(BIG);

	ref_field(request, SPAN("Host"), SPAN("example.org"));
	ck_assert_str_eq(text_of_message(&out, false, ref_done(request)),
		"22:13:20.123 ↑ 10.0.0.1:50000 → 10.0.0.2:80             GET  example.org/path  "
		"curl[4242]\n");
	ref_body(request, SPAN("0123456789"));
	request->m.direction = DUMP_INGRESS;
	request->head.method = ref_add(request, SPAN("OPTIONS"));
	ck_assert_str_eq(text_of_message(&out, false, ref_done(request)),
		"22:13:20.123 ↓ 10.0.0.2:80 → 10.0.0.1:50000             OPTIONS example.org/path  "
		"10 B  curl[4242]\n");

	ck_assert_str_eq(text_of_message(&out, false, ref_done(response)),
		"22:13:20.123 ↑ 10.0.0.2:80 ← 10.0.0.1:50000         200 (request not seen)  0 B  "
		"curl[4242]\n");
	response->m.direction = DUMP_INGRESS;
	response->m.request_method = SPAN("GET");
	response->m.request_host = SPAN("example.org");
	response->m.request_path = SPAN("/path");
	response->m.latency_us = 3400;
	response->m.body_bytes = 1234;
	response->m.gap_bytes = 100;
	ck_assert_str_eq(text_of_message(&out, false, ref_done(response)),
		"22:13:20.123 ↓ 10.0.0.1:50000 ← 10.0.0.2:80         200 GET  example.org/path  "
		"1.2 kB  3.4 ms  (100 B not captured)  curl[4242]\n");
	response->m.error = "bad chunk size";
	response->conn.pid = 0;
	ck_assert_str_eq(text_of_message(&out, false, ref_done(response)),
		"22:13:20.123 ↓ 10.0.0.1:50000 ← 10.0.0.2:80         200 GET  example.org/path  "
		"1.2 kB  3.4 ms  ! bad chunk size (100 B not captured)  curl\n");
	response->conn.comm[0] = '\0';
	response->m.error = NULL;
	response->m.gap_bytes = 0;
	memcpy(response->conn.local.ip, "::1", 4);
	response->conn.local.ip_len = 3;
	ck_assert_str_eq(text_of_message(&out, false, ref_done(response)),
		"22:13:20.123 ↓ [::1]:50000 ← 10.0.0.2:80            200 GET  example.org/path  "
		"1.2 kB  3.4 ms\n");
	request->m.pod = (struct dump_pod){SPAN("shop"), SPAN("web-5f7"), SPAN("nginx")};
	ck_assert_str_eq(text_of_message(&out, false, ref_done(request)),
		"22:13:20.123 ↓ 10.0.0.2:80 → 10.0.0.1:50000             OPTIONS example.org/path  "
		"10 B  curl[4242]  shop/web-5f7/nginx\n");
	request->m.pod.container = SPAN("");
	ck_assert_ptr_nonnull(strstr(
		text_of_message(&out, false, ref_done(request)), "  curl[4242]  shop/web-5f7\n"));
	request->m.pod = (struct dump_pod){.container = SPAN("0123456789ab")};
	ck_assert_ptr_nonnull(strstr(
		text_of_message(&out, false, ref_done(request)), "  curl[4242]  0123456789ab\n"));
}
END_TEST

START_TEST(text_targets)
{
	static const char *const cases[][3] = {
		{"/", "h", "GET  h/  "},
		{"http://h/x", "other", "GET  http://h/x  "},
		{"*", "h", "GET  h *  "},
		{"*", "", "GET  *  "},
		{"h:443", "h:443", "GET  h:443  "},
		{"", "h", "GET  h  "},
		{"/\xc3\xa9", "h", "GET  h/\xc3\xa9  "},
		{"/\xe9", "h", "GET  h/\xc3\xa9  "},
		{"/\033[2J", "h\r\n", "GET  h\\x0d\\x0a/\\x1b[2J  "},
		{"/\xe2\x80\xae"
		 "gpj",
			"h", "GET  h/\\u{202e}gpj  "},
		{"/\xc2\x9b", "h", "GET  h/\\x9b  "},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		MESSAGE r = ref_request(SPAN("GET"), span_str(cases[i][0]));
		BUFFER out = BUF_INIT(BIG);

		ref_field(r, SPAN("host"), span_str(cases[i][1]));
		text_of_message(&out, false, ref_done(r));
		ck_assert_msg(
			strstr(out.data, cases[i][2]) != NULL, "%s in %s", cases[i][2], out.data);
	}
}
END_TEST

START_TEST(text_amounts)
{
	static const struct {
		uint64_t bytes;
		const char *size;
		uint64_t us;
		const char *latency;
	} cases[] = {
		{0, "0 B", 0, "0 µs"},
		{999, "999 B", 999, "999 µs"},
		{1000, "1.0 kB", 1000, "1.0 ms"},
		{1049, "1.0 kB", 1049, "1.0 ms"},
		{1050, "1.1 kB", 1050, "1.1 ms"},
		{99949, "99.9 kB", 99949, "99.9 ms"},
		{999949, "999.9 kB", 999949, "999.9 ms"},
		{999950, "1.0 MB", 999950, "1.0 s"},
		{1049999, "1.0 MB", 1049999, "1.0 s"},
		{12345678, "12.3 MB", 12345678, "12.3 s"},
		{UINT64_C(5000000000), "5.0 GB", 3600000000, "3600.0 s"},
		{UINT64_MAX, "18.4 EB", UINT64_MAX, "18446744073709.6 s"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		MESSAGE r = ref_response(200);
		BUFFER out = BUF_INIT(BIG);
		char expected[64];

		r->m.request_method = SPAN("GET");
		r->m.request_path = SPAN("/");
		r->m.body_bytes = cases[i].bytes;
		r->m.latency_us = cases[i].us;
		text_of_message(&out, false, ref_done(r));
		(void)snprintf(expected, sizeof(expected), "GET  /  %s  %s  curl", cases[i].size,
			cases[i].latency);
		ck_assert_msg(strstr(out.data, expected) != NULL, "%s in %s", expected, out.data);
	}
}
END_TEST

START_TEST(text_colours)
{
	static const struct {
		uint16_t status;
		const char *colour;
	} cases[] = {{101, "36"}, {200, "32"}, {304, "36"}, {404, "33"}, {503, "31"}, {0, "31"},
		{999, "31"}};
	BUFFER out = BUF_INIT(BIG);
	char expected[64];

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		MESSAGE r = ref_response(cases[i].status);

		r->m.error = "wrong";
		text_of_message(&out, true, ref_done(r));
		(void)snprintf(expected, sizeof(expected), "\033[%sm%3u\033[0m", cases[i].colour,
			(unsigned)cases[i].status);
		ck_assert_msg(strstr(out.data, expected) != NULL, "%s", out.data);
		ck_assert_ptr_nonnull(strstr(out.data, "\033[31m! wrong\033[0m"));
	}
	MESSAGE r = ref_request(SPAN("GET"), SPAN("/"));
	text_of_message(&out, true, ref_done(r));
	ck_assert_ptr_nonnull(strstr(out.data, "\033[1mGET\033[0m  /"));
}
END_TEST

/* Whatever the bytes, the terminal gets text: one line, no control characters, not too long. */
static void check_harmless(const struct dump_message *m)
{
	BUFFER out = BUF_INIT(BIG);

	text_of_message(&out, false, m);
	ck_assert_uint_eq(utf8_valid(out.data, out.len), out.len);
	ck_assert_uint_lt(out.len, 3500);
	ck_assert_int_eq(out.data[out.len - 1], '\n');
	for (size_t i = 0; i < out.len - 1; i++) {
		unsigned char c = (unsigned char)out.data[i];

		ck_assert(c >= 0x20 && c != 0x7f);
		ck_assert(c != 0xc2 || (unsigned char)out.data[i + 1] >= 0xa0);
		/* the directional ones: U+200E.., U+2028.., U+2066.. */
		ck_assert(memcmp(out.data + i, "\xe2\x80\xae", 3) != 0);
	}
}

/* kind 0: one byte, 1: many of it, 2: random bytes, in a response. */
static void check_harmless_byte(char byte, int kind)
{
	MESSAGE r = kind == 2 ? ref_response(200) : ref_request(SPAN("GET"), SPAN("/"));
	char text[3000];
	struct span s = span_of(text, kind == 0 ? 1 : sizeof(text));

	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = kind == 2 ? (char)random_below(256) : byte;
	if (kind != 2)
		r->head.method = r->head.target = ref_add(r, s);
	ref_field(r, SPAN("Host"), s);
	memcpy(r->conn.comm, text, 15);
	r->m.pod = (struct dump_pod){s, s, s};
	r->m.request_method = r->m.request_path = r->m.request_host = s;
	check_harmless(ref_done(r));
}

START_TEST(text_harmless)
{
	for (int c = _i * SHARE; c < (_i + 1) * SHARE; c++) {
		for (int kind = 0; kind < 3; kind++)
			check_harmless_byte((char)c, kind);
	}
}
END_TEST

START_TEST(text_cut)
{
	static char text[9000];

	for (size_t n = 0; n + 4 <= sizeof(text); n += 4)
		memcpy(text + n, "\xf0\x9f\x98\x80", 4);
	/* in the middle of a character, too: then the whole is not UTF-8, or only looks so */
	for (size_t n = 400; n < 600; n++) {
		MESSAGE r = ref_request(SPAN("GET"), span_of(text, n));

		check_harmless(ref_done(r));
		if (n % 4)
			continue;
		BUFFER out = BUF_INIT(BIG);
		text_of_message(&out, false, &r->m);
		ck_assert_int_eq(strstr(out.data, "…") != NULL, n > 480);
		ck_assert_ptr_nonnull(strstr(out.data, "\xf0\x9f\x98\x80"));
	}
	MESSAGE r = ref_request(SPAN("GET"), span_of(text, sizeof(text)));
	check_harmless(ref_done(r));
}
END_TEST

/* ---- filter ---- */

START_TEST(filter)
{
	for (unsigned directions = 0; directions < 4; directions++) {
		for (unsigned kinds = 0; kinds < 4; kinds++) {
			struct dump_filter f = {
				.directions = (uint8_t)directions, .kinds = (uint8_t)kinds};

			for (unsigned i = 0; i < 4; i++) {
				MESSAGE r = ref_new(i & 1 ? HTTP_RESPONSE : HTTP_REQUEST);

				r->m.direction = i & 2 ? DUMP_INGRESS : DUMP_EGRESS;
				ck_assert_int_eq(dump_filter_pass(&f, &r->m),
					(directions & (i & 2 ? 2 : 1)) &&
						(kinds & (i & 1 ? 2 : 1)));
			}
		}
	}
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("dump");
	TCase *line = tcase_create("line"), *text = tcase_create("text"),
	      *limit = tcase_create("limit"), *human = tcase_create("human");

	tcase_set_timeout(line, 120);
	tcase_add_test(line, request_line);
	tcase_add_test(line, response_line);
	tcase_add_test(line, client);
	tcase_add_test(line, numbers);
	tcase_add_test(line, addresses);
	tcase_add_loop_test(line, names, 0, ARRAY_SIZE(name_cases));
	tcase_add_test(line, folding);
	tcase_add_test(line, repeated_names);
	tcase_add_test(line, names_alike);
	tcase_add_test(line, many_headers);
	tcase_add_test(line, many_headers_of_one_mark);
	tcase_add_test(line, base64);
	tcase_add_test(line, body_sizes);
	tcase_add_test(line, schema);
	tcase_add_test(line, filter);
	suite_add_tcase(s, line);

	tcase_set_timeout(text, 120);
	tcase_add_loop_test(text, every_byte, 0, 256 / SHARE);
	tcase_add_loop_test(text, every_pair, 0, 256 / SHARE);
	tcase_add_loop_test(text, every_place, 0, 13);
	tcase_add_loop_test(text, random_text, 0, 8);
	tcase_add_loop_test(text, utf8, 0, ARRAY_SIZE(utf8_cases));
	tcase_add_test(text, body_cut_inside_character);
	suite_add_tcase(s, text);

	tcase_set_timeout(limit, 120);
	tcase_add_loop_test(limit, limit_of_body, 0, 3);
	tcase_add_test(limit, limit_of_headers);
	tcase_add_test(limit, limit_of_names);
	tcase_add_loop_test(limit, limit_at_its_worst, 0, 5);
	tcase_add_loop_test(limit, limit_random, 0, 8);
	tcase_add_test(limit, small_buffer);
	tcase_add_test(limit, many_lines);
	suite_add_tcase(s, limit);

	tcase_set_timeout(human, 120);
	tcase_add_checked_fixture(human, utc, NULL);
	tcase_add_test(human, text_lines);
	tcase_add_test(human, text_targets);
	tcase_add_test(human, text_amounts);
	tcase_add_test(human, text_colours);
	tcase_add_loop_test(human, text_harmless, 0, 256 / SHARE);
	tcase_add_test(human, text_cut);
	suite_add_tcase(s, human);
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
