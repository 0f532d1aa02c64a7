/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any message becomes a line that is valid JSON, within its limit, and equal to what json-c makes
 * of it if nothing was cut; and a line of text that is harmless to a terminal.
 *
 * The input: a few bytes of settings, then the message: target, version, headers and body,
 * separated by 0xfe 0xfd (neither occurs in UTF-8, both do in Latin-1).
 */
#include "pkg/dump/dump.h"
#include "test/unit/dump_reference.h"

#define SETTINGS 6

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Up to the next separator, which is skipped. */
static struct span next_part(struct span *rest)
{
	struct span part = *rest;
	const char *end = rest->len > 0 ? memmem(rest->p, rest->len, "\xfe\xfd", 2) : NULL;

	if (!end) {
		*rest = span_of(NULL, 0);
		return part;
	}
	part.len = (size_t)(end - part.p);
	*rest = span_of(end + 2, rest->len - part.len - 2);
	return part;
}

static void check(bool right)
{
	if (!right)
		__builtin_trap();
}

static void check_json(const struct dump_message *m, const char *node, size_t line_max)
{
	struct dump_format format = {.node = node, .line_max = line_max};
	CLEANUP(buf_done)
	struct buf out = BUF_INIT(64u << 20);
	struct json_object *line, *expected;
	bool cut;

	check(dump_json(&format, m, &out) == 0);
	check(out.len <= MAX(line_max, (size_t)DUMP_LINE_MIN));
	line = ref_parse(out.data, out.len);
	check(line != NULL);
	cut = json_object_object_get_ex(line, "headers_truncated", NULL);
	if (!cut && json_object_get_boolean(json_object_object_get(line, "body_truncated")))
		cut = !m->body_truncated || line_max < (32u << 20);
	expected = cut ? NULL : ref_object(&format, m);
	check(cut || ref_equal(line, expected));
	json_object_put(expected);
	json_object_put(line);
}

static void check_text(const struct dump_message *m)
{
	struct dump_format format = {.node = "", .line_max = DUMP_LINE_MAX};
	CLEANUP(buf_done)
	struct buf out = BUF_INIT(1u << 20);

	check(dump_text(&format, m, &out) == 0);
	check(out.len > 0 && out.data[out.len - 1] == '\n');
	check(utf8_valid(out.data, out.len) == out.len);
	for (size_t i = 0; i < out.len - 1; i++) {
		unsigned char c = (unsigned char)out.data[i];

		check(c >= 0x20 && c != 0x7f);
		check(c != 0xc2 || (unsigned char)out.data[i + 1] >= 0xa0);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span rest, body;
	struct ref_message *r;
	char node[16] = "";
	size_t line_max;

	if (size < SETTINGS)
		return 0;
	rest = span_of((const char *)data + SETTINGS, size - SETTINGS);
	r = ref_new(data[0] & 1 ? HTTP_RESPONSE : HTTP_REQUEST);
	r->m.direction = data[0] & 2 ? DUMP_INGRESS : DUMP_EGRESS;
	r->m.body_truncated = data[0] & 4;
	line_max = DUMP_LINE_MIN + (size_t)data[1] * data[2];
	memcpy(node, data, SETTINGS);
	memcpy(r->conn.comm, rest.p, MIN(rest.len, sizeof(r->conn.comm) - 1));
	memcpy(r->conn.interface, data, SETTINGS);
	r->m.seq = r->m.time_ns = (uint64_t)data[3] << (data[4] & 63);
	if (data[0] & 8)
		r->m.error = node;
	r->m.exchange_id = data[0] & 32 ? r->m.time_ns : 0;
	if (data[0] & 16)
		r->m.pod = (struct dump_pod){span_of(node, strlen(node)), rest, rest};

	r->head.status = data[0] & 1 ? (uint16_t)(data[3] << 8 | data[4]) : 0;
	r->head.method = ref_add(r, next_part(&rest));
	r->head.target = ref_add(r, next_part(&rest));
	r->head.version = ref_add(r, next_part(&rest));
	body = next_part(&rest);
	ref_body(r, body);
	r->m.request_method = next_part(&rest);
	r->m.request_path = next_part(&rest);
	r->m.request_host = span_of(body.p, body.len / 2);
	/* the same name again and again, in the ways that it can be written */
	for (struct span name = span_of(NULL, 0); rest.len > 0;) {
		struct span part = next_part(&rest);

		if (part.len > 0 && part.p[0] != '+')
			name = part;
		ref_field(r, name, next_part(&rest));
	}
	ref_done(r);
	check_json(&r->m, node, line_max);
	check_json(&r->m, node, 32u << 20);
	check_text(&r->m);
	ref_free(r);
	return 0;
}
