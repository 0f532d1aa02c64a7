/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The body of a POST, against json-c: what the scanner takes is JSON, holds what the scanner says
 * it holds, and comes out as the same JSON; what it refuses is no list of messages. The first byte
 * says what the rest is: a body, one that is packed, or a Retry of the same key. What was taken is
 * paired, filtered and shown.
 */
#include <errno.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <unistd.h>

#include "pkg/receiver/internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct store *store;

static void die(const char *why)
{
	fprintf(stderr, "ingest_fuzz: %s\n", why);
	abort();
}

static struct json_object *parse(struct span json)
{
	struct json_tokener *t = json_tokener_new_ex(SCAN_DEPTH + 2);
	struct json_object *o;

	json_tokener_set_flags(t, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
	o = json_tokener_parse_ex(t, json.p, (int)json.len);
	if (json_tokener_get_error(t) != json_tokener_success ||
		json_tokener_get_parse_end(t) != json.len) {
		json_object_put(o);
		o = NULL;
	}
	json_tokener_free(t);
	return o;
}

static struct json_object *member(struct json_object *o, const char *key, enum json_type type)
{
	struct json_object *value = json_object_object_get(o, key);

	return json_object_is_type(value, type) ? value : NULL;
}

/* The text of the message, which has quotes around it in JSON, is what json-c read. */
static void same_text(struct json_object *o, const char *key, struct span text)
{
	struct json_object *value = member(o, key, json_type_string), *ours;
	struct buf quoted = BUF_INIT(text.len + 2);

	if (!value || buf_append(&quoted, "\"", 1) || buf_append(&quoted, text.p, text.len) ||
		buf_append(&quoted, "\"", 1))
		die(key);
	ours = parse(span_of(quoted.data, quoted.len));
	if (!ours || !json_object_equal(ours, value))
		die(key);
	json_object_put(ours);
	buf_done(&quoted);
}

static void same_number(struct json_object *o, const char *key, uint64_t number)
{
	struct json_object *value = member(o, key, json_type_int);

	if (!value || (uint64_t)json_object_get_int64(value) != number)
		die(key);
}

/* A message without a NUL in a key: json-c's keys end there. */
static bool is_plain(struct span json)
{
	for (size_t i = 0; i + 6 <= json.len; i++)
		if (memcmp(json.p + i, "\\u0000", 6) == 0)
			return false;
	return true;
}

static void check_message(const struct message *m)
{
	struct json_object *o = parse(m->json), *headers;
	struct buf compact = BUF_INIT(m->json.len);
	struct json_object *again;

	if (!o)
		die("json-c refuses what the scanner takes");
	if (scan_compact(m->json, &compact) || compact.len > m->json.len ||
		m->spaced != (compact.len < m->json.len) || memchr(compact.data, '\n', compact.len))
		die("compact");
	again = parse(span_of(compact.data, compact.len));
	if (!again || !json_object_equal(o, again))
		die("compact is another message");
	json_object_put(again);
	buf_done(&compact);
	if (is_plain(m->json)) {
		same_number(o, "direction", m->number[MSG_DIRECTION]);
		same_number(o, "timing_ms", m->number[MSG_TIMING_MS]);
		same_text(o, "remote_ip", m->text[MSG_REMOTE_IP]);
		same_number(o, "remote_port", m->number[MSG_REMOTE_PORT]);
		same_text(o, "method", m->text[MSG_METHOD]);
		same_text(o, "path", m->text[MSG_PATH]);
		same_number(o, "status_code", m->number[MSG_STATUS_CODE]);
		same_text(o, "version", m->text[MSG_VERSION]);
		same_text(o, "body", m->text[MSG_BODY]);
		headers = member(o, "headers", json_type_object);
		if (!headers)
			die("headers");
		json_object_object_foreach(headers, name, values)
		{
			(void)name;
			if (!json_object_is_type(values, json_type_array))
				die("a header is no list");
		}
	}
	json_object_put(o);
}

/* Whether json-c sees one object that has the ten keys: then the scanner must have a reason. */
static bool is_message(struct json_object *o)
{
	static const char *const texts[] = {"remote_ip", "method", "path", "version", "body"},
				 *const numbers[] = {
					 "direction", "timing_ms", "remote_port", "status_code"};

	if (!json_object_is_type(o, json_type_object))
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		if (!member(o, texts[i], json_type_string))
			return false;
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		struct json_object *n = member(o, numbers[i], json_type_int);

		if (!n || json_object_get_int64(n) < 0 ||
			json_object_get_int64(n) > (i == 0	    ? 1
							   : i == 1 ? INT64_C(1) << 53
								    : 65535))
			return false;
	}
	return member(o, "headers", json_type_object) != NULL;
}

/* Reasons of which json-c knows nothing. */
static bool is_our_reason(const char *text)
{
	static const char *const reasons[] = {"is there twice", "nested too deeply",
		"control character", "not UTF-8", "arrays of strings", "digit is missing",
		"must be", "is missing", "no such escape", "hexadecimal", "not a JSON value"};

	for (size_t i = 0; i < ARRAY_SIZE(reasons); i++)
		if (strstr(text, reasons[i]))
			return true;
	return false;
}

static void check_row(const struct exchange *x, const struct filter *f)
{
	struct buf out = BUF_INIT(1 << 22);
	struct json_object *o;

	(void)filter_match(f, x);
	for (int whole = 0; whole < 2; whole++) {
		out.len = 0;
		if (row_write(x, whole, &out))
			die("row");
		o = parse(span_of(out.data, out.len));
		if (!o)
			die("a row is no JSON");
		json_object_put(o);
	}
	buf_done(&out);
}

static void check_body(struct span body)
{
	const struct exchange *x;
	struct filter filter = {0};
	struct err err = {0};
	struct json_object *o;
	struct message m;
	struct scan s;
	int r, n = 0;

	if (filter_set(&filter, "q", "a", &err) != 1 || filter_set(&filter, "path", "/", &err) != 1)
		die("filter");
	scan_init(&s, body, &err);
	while ((r = scan_next(&s, &m)) > 0) {
		n++;
		check_message(&m);
		if (m.spaced)
			continue;
		if (store_add(store, &m))
			die("store");
		x = store_change(store, store_version(store));
		if (x)
			check_row(x, &filter);
	}
	if (r == 0)
		return;
	if (r != -EBADMSG || strncmp(err.text, "line ", 5) != 0)
		die("an error without a place");
	o = n == 0 ? parse(body) : NULL;
	if (o && is_message(o) && !is_our_reason(err.text)) {
		fprintf(stderr, "%s\n", err.text);
		die("the scanner refuses a message");
	}
	json_object_put(o);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct buf out = BUF_INIT(1 << 20);
	struct span rest;
	struct err err;
	char *copy;

	if (!store && store_new(64, 1 << 20, 1, &store, &err))
		die("store");
	if (size == 0 || size > 1 << 16)
		return 0;
	/* at the end of a block of its own, so that one byte too far is seen */
	copy = malloc(size);
	memcpy(copy, data, size);
	rest = span_of(copy + 1, size - 1);
	if (data[0] == 'z') {
		if (ingest_unpack(rest, &out) == 0)
			check_body(span_of(out.data ? out.data : "", out.len));
	} else {
		check_body(rest);
	}
	for (size_t max = 0; max < MIN(rest.len, (size_t)40); max++)
		if (utf8_valid(rest.p, rest.len) == rest.len && !memchr(rest.p, '\\', rest.len) &&
			utf8_valid(rest.p, scan_cut(rest, max).len) != scan_cut(rest, max).len)
			die("cut within a character");
	buf_done(&out);
	free(copy);
	return 0;
}
