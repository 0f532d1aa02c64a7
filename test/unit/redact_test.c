/* SPDX-License-Identifier: Apache-2.0 */
/* Redaction: what of a head reaches a line, and in which form. */
#include <check.h>
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>

#include "pkg/dump/dump.h"

#define BIG (1u << 20)

#define BUFFER            \
	CLEANUP(buf_done) \
	struct buf
#define MESSAGE                \
	CLEANUP(message_freep) \
	struct message *

static const uint64_t key[2] = {UINT64_C(0x0706050403020100), UINT64_C(0x0f0e0d0c0b0a0908)};
static const char *const credentials[] = {
	"Authorization", "Proxy-Authorization", "Cookie", "Set-Cookie", "X-Api-Key"};

static struct dump_redaction redaction_of(const char *const *names, uint32_t count)
{
	struct dump_redaction r;

	ck_assert_int_eq(dump_redaction_init(&r, names, count, key), 0);
	return r;
}

#define REDACTION(...)                                   \
	redaction_of((const char *const[]){__VA_ARGS__}, \
		ARRAY_SIZE(((const char *const[]){__VA_ARGS__})))

/* ---- messages from what was on the wire ---- */

struct message {
	struct dump_conn conn;
	struct http_head head;
	struct dump_message m;
	struct http_field fields[600];
	char *bytes; /* end where their allocation ends: a sanitizer sees what is read behind */
};

static struct message *message_new(const char *head, size_t len)
{
	struct message *x = calloc(1, sizeof(*x));

	x->conn = (struct dump_conn){
		.local = {.ip = "10.0.0.1", .ip_len = 8, .port = 50000},
		.remote = {.ip = "10.0.0.2", .ip_len = 8, .port = 80},
		.comm = "curl",
	};
	x->bytes = malloc(len);
	memcpy(x->bytes, head, len);
	x->head.fields = x->fields;
	x->head.max_fields = ARRAY_SIZE(x->fields);
	http_head_parse(x->bytes, len, &x->head);
	x->m = (struct dump_message){.conn = &x->conn, .bytes = x->bytes, .head = &x->head};
	if (x->head.kind == HTTP_RESPONSE) {
		x->m.request_method = SPAN("GET");
		x->m.request_path = SPAN("/path");
		x->m.request_host = SPAN("host.test");
	}
	return x;
}

static struct message *message_of(const char *head)
{
	return message_new(head, strlen(head));
}

static void message_freep(struct message **x)
{
	free((*x)->bytes);
	free(*x);
}

static const char *line_of(struct buf *out, const struct dump_redaction *redaction,
	const struct dump_message *m, size_t line_max)
{
	struct dump_format format = {.node = "n", .line_max = line_max, .redaction = redaction};

	out->len = 0;
	ck_assert_int_eq(dump_json(&format, m, out), 0);
	ck_assert_uint_le(out->len, line_max);
	ck_assert_int_eq(buf_append(out, "", 1), 0);
	return out->data;
}

static const char *text_of(
	struct buf *out, const struct dump_redaction *redaction, const struct dump_message *m)
{
	struct dump_format format = {.node = "n", .redaction = redaction};

	out->len = 0;
	ck_assert_int_eq(dump_text(&format, m, out), 0);
	ck_assert_int_eq(buf_append(out, "", 1), 0);
	return out->data;
}

/* "{...}": the headers of the line. */
static const char *headers_of(struct buf *out, const char *line)
{
	const char *from = strstr(line, "\"headers\":"), *to = strstr(line, ",\"body\":");

	ck_assert(from && to && from < to);
	out->len = 0;
	ck_assert_int_eq(buf_printf(out, "%.*s", (int)(to - from - 10), from + 10), 0);
	ck_assert_int_eq(buf_append(out, "", 1), 0);
	return out->data;
}

/* The headers of the line that this head becomes, with the credentials redacted. */
static const char *redacted(struct buf *out, const char *head)
{
	struct dump_redaction r = redaction_of(credentials, ARRAY_SIZE(credentials));
	MESSAGE x = message_of(head);
	BUFFER line = BUF_INIT(BIG);

	return headers_of(out, line_of(&line, &r, &x->m, BIG));
}

struct hash {
	char text[DUMP_REDACTED_LEN + 1];
};

static struct hash hash_of(const struct dump_redaction *r, struct span value)
{
	struct hash h;

	dump_redact(r, value, h.text);
	h.text[DUMP_REDACTED_LEN] = '\0';
	return h;
}

/* ---- the hash ---- */

/* SipHash-2-4 of the bytes 0, 1, 2, ... with the key 0, 1, ... 15: the authors' vectors, also what
 * OpenSSL says. */
static const char *const vectors[64] = {
	"726fdb47dd0e0e31",
	"74f839c593dc67fd",
	"0d6c8009d9a94f5a",
	"85676696d7fb7e2d",
	"cf2794e0277187b7",
	"18765564cd99a68d",
	"cbc9466e58fee3ce",
	"ab0200f58b01d137",
	"93f5f5799a932462",
	"9e0082df0ba9e4b0",
	"7a5dbbc594ddb9f3",
	"f4b32f46226bada7",
	"751e8fbc860ee5fb",
	"14ea5627c0843d90",
	"f723ca908e7af2ee",
	"a129ca6149be45e5",
	"3f2acc7f57c29bdb",
	"699ae9f52cbe4794",
	"4bc1b3f0968dd39c",
	"bb6dc91da77961bd",
	"bed65cf21aa2ee98",
	"d0f2cbb02e3b67c7",
	"93536795e3a33e88",
	"a80c038ccd5ccec8",
	"b8ad50c6f649af94",
	"bce192de8a85b8ea",
	"17d835b85bbb15f3",
	"2f2e6163076bcfad",
	"de4daaaca71dc9a5",
	"a6a2506687956571",
	"ad87a3535c49ef28",
	"32d892fad841c342",
	"7127512f72f27cce",
	"a7f32346f95978e3",
	"12e0b01abb051238",
	"15e034d40fa197ae",
	"314dffbe0815a3b4",
	"027990f029623981",
	"cadcd4e59ef40c4d",
	"9abfd8766a33735c",
	"0e3ea96b5304a7d0",
	"ad0c42d6fc585992",
	"187306c89bc215a9",
	"d4a60abcf3792b95",
	"f935451de4f21df2",
	"a9538f0419755787",
	"db9acddff56ca510",
	"d06c98cd5c0975eb",
	"e612a3cb9ecba951",
	"c766e62cfcadaf96",
	"ee64435a9752fe72",
	"a192d576b245165a",
	"0a8787bf8ecb74b2",
	"81b3e73d20b49b6f",
	"7fa8220ba3b2ecea",
	"245731c13ca42499",
	"b78dbfaf3a8d83bd",
	"ea1ad565322a1a0b",
	"60e61c23a3795013",
	"6606d7e446282b93",
	"6ca4ecb15c5f91e1",
	"9f626da15c9625f3",
	"e51b38608ef25f57",
	"958a324ceb064572",
};

START_TEST(hash)
{
	struct dump_redaction r = REDACTION("a");
	struct hash h;
	char want[DUMP_REDACTED_LEN + 1];

	for (size_t len = 0; len < ARRAY_SIZE(vectors); len++) {
		char *bytes = malloc(MAX(len, (size_t)1)); /* a byte read too much is seen */

		for (size_t i = 0; i < len; i++)
			bytes[i] = (char)i;
		h = hash_of(&r, span_of(bytes, len));
		snprintf(want, sizeof(want), "redacted:%s", vectors[len]);
		ck_assert_str_eq(h.text, want);
		free(bytes);
	}
}
END_TEST

/* Bytes from 0x80 up, and lengths beyond a byte's, against OpenSSL. */
START_TEST(hash_of_long_values)
{
	struct dump_redaction r = REDACTION("a");
	char bytes[1000];

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (char)(255 - i % 251);
	ck_assert_str_eq(hash_of(&r, span_of(bytes, 255)).text, "redacted:34e0735a396dbf2b");
	ck_assert_str_eq(hash_of(&r, span_of(bytes, 256)).text, "redacted:6d2f0995cca53c6d");
	ck_assert_str_eq(hash_of(&r, span_of(bytes, 1000)).text, "redacted:572badeedf8e18d0");
}
END_TEST

/* Each process has a key of its own. */
START_TEST(random_keys)
{
	struct dump_redaction a, b;

	ck_assert_int_eq(dump_redaction_init(&a, credentials, 5, NULL), 0);
	ck_assert_int_eq(dump_redaction_init(&b, credentials, 5, NULL), 0);
	ck_assert_uint_ne(a.key[0], b.key[0]);
	ck_assert_uint_ne(a.key[1], b.key[1]);
	ck_assert_str_ne(hash_of(&a, SPAN("x")).text, hash_of(&b, SPAN("x")).text);
	ck_assert_str_eq(hash_of(&a, SPAN("x")).text, hash_of(&a, SPAN("x")).text);
}
END_TEST

START_TEST(limits)
{
	char name[DUMP_REDACT_NAME_MAX + 2];
	const char *names[DUMP_REDACT_MAX + 1], *one[] = {name};
	struct dump_redaction r;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		names[i] = "name";
	ck_assert_int_eq(dump_redaction_init(&r, names, DUMP_REDACT_MAX + 1, key), -EINVAL);
	ck_assert_int_eq(dump_redaction_init(&r, names, DUMP_REDACT_MAX, key), 0);
	ck_assert_int_eq(dump_redaction_init(&r, NULL, 0, key), 0);
	ck_assert_int_eq(dump_redaction_match(&r, SPAN("name")), DUMP_REDACT_NOTHING);
	memset(name, 'n', sizeof(name));
	name[DUMP_REDACT_NAME_MAX + 1] = '\0';
	ck_assert_int_eq(dump_redaction_init(&r, one, 1, key), -EINVAL);
	name[DUMP_REDACT_NAME_MAX] = '\0';
	ck_assert_int_eq(dump_redaction_init(&r, one, 1, key), 0);
	name[0] = '\0';
	ck_assert_int_eq(dump_redaction_init(&r, one, 1, key), -EINVAL);
}
END_TEST

/* ---- names ---- */

START_TEST(all_names)
{
	struct dump_redaction r = redaction_of(credentials, ARRAY_SIZE(credentials));
	char name[32];

	for (size_t i = 0; i < ARRAY_SIZE(credentials); i++) {
		size_t len = strlen(credentials[i]);

		/* every pattern of cases in the first 13 letters */
		for (unsigned cases = 0; cases < 1u << MIN(len, (size_t)13); cases++) {
			for (size_t k = 0; k < len; k++)
				name[k] = (char)(cases >> k & 1 ? toupper(credentials[i][k])
								: tolower(credentials[i][k]));
			ck_assert_int_eq(
				dump_redaction_match(&r, span_of(name, len)), DUMP_REDACT_VALUE);
		}
		ck_assert_int_eq(
			dump_redaction_match(&r, span_of(name, len - 1)), DUMP_REDACT_NOTHING);
		ck_assert_int_eq(
			dump_redaction_match(&r, span_of(name + 1, len - 1)), DUMP_REDACT_NOTHING);
		/* what is no letter has no case */
		for (size_t k = 0; k < len; k++) {
			name[k] ^= 0x60;
			ck_assert_int_eq(
				dump_redaction_match(&r, span_of(name, len)), DUMP_REDACT_NOTHING);
			name[k] ^= 0x60;
		}
		/* a longer token is another header; else this is no name */
		for (int c = 0; c < 256; c++) {
			bool token = (c < 0x80 && isalnum(c)) ||
				     (c != 0 && strchr("!#$%&'*+-.^_`|~", c) != NULL);

			name[len] = (char)c;
			ck_assert_int_eq(dump_redaction_match(&r, span_of(name, len + 1)),
				token ? DUMP_REDACT_NOTHING : DUMP_REDACT_ALL);
			ck_assert_int_eq(
				dump_redaction_match(&r, span_of(name, len)), DUMP_REDACT_VALUE);
		}
	}
	ck_assert_int_eq(dump_redaction_match(&r, span_of(NULL, 0)), DUMP_REDACT_NOTHING);
}
END_TEST

/* Of each length that a name may have, and no other header. */
START_TEST(lengths)
{
	char name[DUMP_REDACT_NAME_MAX + 1] = "", head[400], want[400];
	const char *one[] = {name};
	BUFFER line = BUF_INIT(BIG);
	BUFFER headers = BUF_INIT(BIG);

	for (int len = 1; len <= DUMP_REDACT_NAME_MAX; len++) {
		memset(name, 'a', (size_t)len);
		struct dump_redaction r = redaction_of(one, 1);
		/* of the same length, one longer, and one as long modulo 64 */
		snprintf(head, sizeof(head),
			"GET / HTTP/1.0\r\n%s: 1\r\nb%s: 2\r\nb%s: 3\r\n%s%064d: 4\r\n\r\n", name,
			name + 1, name, name, 0);
		MESSAGE x = message_of(head);
		ck_assert_int_eq(x->head.fault, HTTP_OK);
		snprintf(want, sizeof(want),
			"{\"A%s\":[\"%s\"],\"B%s\":[\"2\"],\"B%s\":[\"3\"],\"A%s%064d\":[\"4\"]}",
			name + 1, hash_of(&r, SPAN("1")).text, name + 1, name, name + 1, 0);
		ck_assert_str_eq(headers_of(&headers, line_of(&line, &r, &x->m, BIG)), want);
	}
}
END_TEST

/* ---- lines ---- */

START_TEST(whole_line)
{
	struct dump_redaction r = redaction_of(credentials, ARRAY_SIZE(credentials));
	MESSAGE x = message_of("POST /?token=in-the-path HTTP/1.1\r\nHost: h\r\n"
			       "AUTHORIZATION: x\r\n\r\n");
	BUFFER line = BUF_INIT(BIG);

	/* as in the vectors */
	x->bytes[x->head.fields[1].value.off] = '\0';
	x->m.body = SPAN("X-Api-Key: in the body");
	line_of(&line, &r, &x->m, BIG);
	ck_assert_ptr_nonnull(strstr(line.data,
		"\"headers\":{\"Host\":[\"h\"],\"Authorization\":[\"redacted:74f839c593dc67fd\"]}"));
	ck_assert_ptr_nonnull(strstr(line.data, "\"path\":\"/?token=in-the-path\""));
	ck_assert_ptr_nonnull(strstr(line.data, "\"body\":\"X-Api-Key: in the body\""));
	/* nobody asked */
	line_of(&line, NULL, &x->m, BIG);
	ck_assert_ptr_nonnull(strstr(line.data, "\"Authorization\":[\"\\u0000\"]"));
}
END_TEST

START_TEST(values)
{
	struct dump_redaction r = redaction_of(credentials, ARRAY_SIZE(credentials));
	struct hash a = hash_of(&r, SPAN("a=1")), b = hash_of(&r, SPAN("b=2")),
		    folded = hash_of(&r, SPAN("a=1;\r\n  b=2"));
	BUFFER headers = BUF_INIT(BIG);
	char want[400];

	/* repeated: each for itself, equal ones alike, an empty one stays empty */
	snprintf(want, sizeof(want),
		"{\"Set-Cookie\":[\"%s\",\"%s\",\"\",\"%s\"],\"Server\":[\"s\"],\"Cookie\":[\"%s\"]}",
		a.text, b.text, a.text, b.text);
	ck_assert_str_eq(redacted(&headers, "HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nServer: s\r\n"
					    "set-cookie:\tb=2 \r\nSET-cookie:\r\nSet-Cookie:a=1\r\n"
					    "cookie: b=2\r\n\r\n"),
		want);
	/* folded: all of it */
	snprintf(want, sizeof(want), "{\"Cookie\":[\"%s\"],\"Host\":[\"h\"]}", folded.text);
	ck_assert_str_eq(redacted(&headers, "GET / HTTP/1.0\r\nCookie: a=1;\r\n  b=2\r\nHost: h"
					    "\r\n\r\n"),
		want);
	snprintf(want, sizeof(want), "{\"Cookie\":[\"%s\"]}", a.text);
	ck_assert_str_eq(redacted(&headers, "GET / HTTP/1.0\r\nCookie:\r\n\ta=1\r\n\r\n"), want);
	/* cut by lost bytes, with and without the colon */
	ck_assert_str_eq(redacted(&headers, "GET / HTTP/1.0\r\nCookie: a=1"), want);
	ck_assert_str_eq(redacted(&headers, "GET / HTTP/1.0\r\nCookie"), "{\"Cookie\":[\"\"]}");
}
END_TEST

/* However wrong the line is: what follows the name does not show. */
static const char *const odd[] = {
	"Authorization : Basic c2VjcmV0",
	"Authorization\t:Basic c2VjcmV0",
	"authorization Basic c2VjcmV0",
	"Authorization Basic c2VjcmV0:",
	"Authorization Basic: c2VjcmV0",
	"AUTHORIZATION=c2VjcmV0: c2VjcmV0",
	"Authorization\x01: Basic c2VjcmV0",
	"Authorization\xc3\xa9: c2VjcmV0",
	" Authorization: Basic c2VjcmV0",
	"\tAuthorization Basic c2VjcmV0",
	"Authorization:\r\n c2VjcmV0",
	"Authorization\r\n Basic c2VjcmV0",
	"Authorization Basic\r\n c2VjcmV0",
	"Authorization: Basic\rc2VjcmV0",
	"Authorization: \"c2VjcmV0\x7f",
	"Host: h\r\nHost: i\r\nCookie;c2VjcmV0",
	"Cookie: a\r\nCookie, c2VjcmV0\r\nCookie, c2VjcmV0\r\ncookie, c2VjcmV0",
};

START_TEST(odd_lines)
{
	BUFFER headers = BUF_INIT(BIG);
	char head[200];

	snprintf(head, sizeof(head), "GET / HTTP/1.0\r\n%s\r\nServer: s\r\n\r\n", odd[_i]);
	redacted(&headers, head);
	ck_assert_msg(!strcasestr(headers.data, "c2VjcmV0"), "%s: %s", odd[_i], headers.data);
	ck_assert_msg(strstr(headers.data, "redacted:") != NULL, "%s: %s", odd[_i], headers.data);
	ck_assert_ptr_nonnull(strstr(headers.data, "\"Server\":[\"s\"]"));
	/* the check sees it if it is there (a name in the case of names) */
	MESSAGE x = message_of(head);
	ck_assert_ptr_nonnull(strcasestr(line_of(&headers, NULL, &x->m, BIG), "c2VjcmV0"));
}
END_TEST

/* A name that is redacted is a key as others are: once, and short of nothing. */
START_TEST(odd_names)
{
	struct dump_redaction r = REDACTION("Cookie");
	MESSAGE x = message_of("GET / HTTP/1.0\r\nCookie x\r\nA: b\r\ncookie x: v\r\nCookie2: c\r\n"
			       "Cookie y\r\n\r\n");
	BUFFER line = BUF_INIT(BIG);
	BUFFER headers = BUF_INIT(BIG);
	char want[400];

	snprintf(want, sizeof(want),
		"{\"%s\":[\"\",\"%s\"],\"A\":[\"b\"],\"Cookie2\":[\"c\"],\"%s\":[\"\"]}",
		hash_of(&r, SPAN("Cookie x")).text, hash_of(&r, SPAN("v")).text,
		hash_of(&r, SPAN("Cookie y")).text);
	ck_assert_str_eq(headers_of(&headers, line_of(&line, &r, &x->m, BIG)), want);
}
END_TEST

/*
 * A redacted line is what the line would be if the hashes had been on the wire, under every limit:
 * the values of `head` are read from `plain` with and without the hashes in their place.
 */
static void check_limits(
	const char *const names[], uint32_t count, const char *head, enum http_fault fault)
{
	struct dump_redaction r = redaction_of(names, count);
	MESSAGE x = message_of(head);
	BUFFER hashed = BUF_INIT(BIG);
	BUFFER a = BUF_INIT(BIG);
	BUFFER b = BUF_INIT(BIG);
	size_t from = 0, full;

	for (uint32_t i = 0; i < x->head.n_fields; i++) {
		struct http_slice value = x->head.fields[i].value;
		struct span name =
			span_of(x->bytes + x->head.fields[i].name.off, x->head.fields[i].name.len);
		bool match = false;

		for (uint32_t k = 0; k < count; k++)
			match |= span_eq_nocase(name, span_str(names[k]));
		if (!match || value.len == 0)
			continue;
		ck_assert_int_eq(buf_append(&hashed, x->bytes + from, value.off - from), 0);
		ck_assert_int_eq(buf_append(&hashed,
					 hash_of(&r, span_of(x->bytes + value.off, value.len)).text,
					 DUMP_REDACTED_LEN),
			0);
		from = value.off + value.len;
	}
	ck_assert_int_eq(x->head.fault, fault);
	ck_assert_uint_gt(from, 0);
	ck_assert_int_eq(buf_append(&hashed, x->bytes + from, strlen(head) - from), 0);
	MESSAGE y = message_new(hashed.data, hashed.len);

	line_of(&a, &r, &x->m, BIG);
	ck_assert_str_eq(a.data, line_of(&b, NULL, &y->m, BIG));
	full = a.len;
	for (size_t max = DUMP_LINE_MIN; max < full + 2; max += 1 + full / 4096) {
		line_of(&a, &r, &x->m, max);
		ck_assert_str_eq(a.data, line_of(&b, NULL, &y->m, max));
	}
}

static char long_head[100000];

START_TEST(limit_of_one)
{
	size_t len;

	/* a value that is longer than a line, and others that then have room */
	len = (size_t)snprintf(long_head, sizeof(long_head), "GET / HTTP/1.0\r\nCookie: ");
	memset(long_head + len, 'c', 60000);
	snprintf(
		long_head + len + 60000, 5000, "\r\nOther: %02000d\r\nAuthorization: x\r\n\r\n", 1);
	check_limits(credentials, ARRAY_SIZE(credentials), long_head, HTTP_OK);
}
END_TEST

START_TEST(limit_of_many)
{
	size_t len;

	/* values of a byte become longer; more headers than there is room for */
	len = (size_t)snprintf(long_head, sizeof(long_head), "GET / HTTP/1.0\r\n");
	for (int i = 0; i < 200; i++)
		len += (size_t)snprintf(long_head + len, sizeof(long_head) - len, "%s%.0d:%d\r\n",
			i % 2 ? "N" : "A", i % 2 ? i : 0, i);
	snprintf(long_head + len, sizeof(long_head) - len, "\r\n");
	check_limits((const char *const[]){"a", "n1", "n13", "n199"}, 4, long_head, HTTP_OK);
	/* with a fault, each name is looked at */
	snprintf(long_head + len, sizeof(long_head) - len, "no colon\r\n\r\n");
	check_limits(
		(const char *const[]){"a", "n1", "n13", "n199"}, 4, long_head, HTTP_FAULT_FIELD);
}
END_TEST

/* A line that becomes longer than its message lets expect still finds room, or says that there is
 * none. */
START_TEST(buffers)
{
	struct dump_redaction r = REDACTION("a");
	struct dump_format format = {.node = "n", .line_max = BIG, .redaction = &r};
	BUFFER line = BUF_INIT(BIG);
	size_t len = 0, full;

	for (int i = 0; i < 500; i++)
		len += (size_t)snprintf(long_head + len, sizeof(long_head) - len,
			i ? "a;%d:b\r\n" : "GET / HTTP/1.0\r\n", i);
	MESSAGE x = message_new(long_head, len);
	ck_assert_uint_eq(x->head.n_fields, 499);
	line_of(&line, &r, &x->m, BIG);
	ck_assert_ptr_null(strstr(line.data, "headers_truncated"));
	full = line.len - 1;
	for (size_t max = full - 20; max < full + 20; max++) {
		BUFFER out = BUF_INIT(max);

		ck_assert_int_eq(dump_json(&format, &x->m, &out), max < full ? -ENOBUFS : 0);
		ck_assert_uint_eq(out.len, max < full ? 0 : full);
	}
}
END_TEST

/* Host stands in other places, too. */
START_TEST(host)
{
	struct dump_redaction r = REDACTION("HOST"), other = REDACTION("Cookie");
	MESSAGE request = message_of("GET /path HTTP/1.0\r\nHost: host.test\r\nCookie: secret\r\n"
				     "User-Agent: curl\r\n\r\n");
	MESSAGE response = message_of("HTTP/1.1 200 OK\r\nSet-Cookie: secret\r\n\r\n");
	struct hash h = hash_of(&r, SPAN("host.test"));
	BUFFER out = BUF_INIT(BIG);
	char want[100];

	line_of(&out, &r, &response->m, BIG);
	ck_assert_ptr_null(strstr(out.data, "host.test"));
	snprintf(want, sizeof(want), ",\"host\":\"%s\"}", h.text);
	ck_assert_ptr_nonnull(strstr(out.data, want));
	ck_assert_ptr_nonnull(
		strstr(line_of(&out, &other, &response->m, BIG), ",\"host\":\"host.test\"}"));
	for (int i = 0; i < 2; i++) {
		const struct dump_message *m = i ? &response->m : &request->m;

		text_of(&out, &r, m);
		ck_assert_ptr_null(strstr(out.data, "host.test"));
		snprintf(want, sizeof(want), "GET  %s/path  ", h.text);
		ck_assert_ptr_nonnull(strstr(out.data, want));
		ck_assert_ptr_nonnull(strstr(text_of(&out, &other, m), "GET  host.test/path  "));
		/* nothing else of the headers is in a line for people */
		ck_assert_ptr_null(strstr(text_of(&out, NULL, m), "secret"));
	}
	request->head.known[HTTP_HOST] = -1;
	ck_assert_ptr_nonnull(strstr(text_of(&out, &r, &request->m), "GET  /path  "));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("redact");
	TCase *t = tcase_create("redact");
	SRunner *runner;
	int failed;

	tcase_add_test(t, hash);
	tcase_add_test(t, hash_of_long_values);
	tcase_add_test(t, random_keys);
	tcase_add_test(t, limits);
	tcase_add_test(t, all_names);
	tcase_add_test(t, lengths);
	tcase_add_test(t, whole_line);
	tcase_add_test(t, values);
	tcase_add_loop_test(t, odd_lines, 0, ARRAY_SIZE(odd));
	tcase_add_test(t, odd_names);
	tcase_add_test(t, limit_of_one);
	tcase_add_test(t, limit_of_many);
	tcase_add_test(t, buffers);
	tcase_add_test(t, host);
	suite_add_tcase(s, t);
	runner = srunner_create(s);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
