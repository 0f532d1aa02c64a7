/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What dump_json() should write, built the slow and obvious way with json-c. For dump_test.c and
 * dump_fuzz.c: a line and this object must be equal. Also makes messages from parts.
 */
#ifndef EBPFDUMP_DUMP_REFERENCE_H
#define EBPFDUMP_DUMP_REFERENCE_H

#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

#include "pkg/dump/dump.h"

/* ---- messages ---- */

#define REF_FIELDS 4096

/* A message under construction. Its bytes end where their allocation ends, so that a sanitizer
 * sees every byte read too much. */
struct ref_message {
	struct dump_conn conn;
	struct http_head head;
	struct dump_message m;
	struct http_field *fields;
	char *bytes;
};

static inline struct http_slice ref_add(struct ref_message *r, struct span s)
{
	struct http_slice slice = {.off = r->head.size, .len = (uint32_t)s.len};

	if (s.len > 0) {
		r->bytes = realloc(r->bytes, r->head.size + s.len);
		memcpy(r->bytes + r->head.size, s.p, s.len);
	}
	r->head.size += (uint32_t)s.len;
	return slice;
}

static inline void ref_field(struct ref_message *r, struct span name, struct span value)
{
	struct http_field *field = &r->fields[r->head.n_fields];

	if (r->head.n_fields == REF_FIELDS)
		return;
	field->name = ref_add(r, name);
	field->value = ref_add(r, value);
	if (span_eq_nocase(name, SPAN("host")) && r->head.known[HTTP_HOST] < 0)
		r->head.known[HTTP_HOST] = (int16_t)r->head.n_fields;
	r->head.n_fields++;
}

/* An egress message with plausible values; the caller changes what it likes. */
static inline struct ref_message *ref_new(enum http_kind kind)
{
	struct ref_message *r = calloc(1, sizeof(*r));

	r->fields = calloc(REF_FIELDS, sizeof(*r->fields));
	r->bytes = malloc(1);
	r->conn = (struct dump_conn){
		.local = {.ip = "10.0.0.1", .ip_len = 8, .port = 50000},
		.remote = {.ip = "10.0.0.2", .ip_len = 8, .port = 80},
		.pid = 4242,
		.comm = "curl",
		.interface = "eth0",
	};
	r->head.kind = kind;
	r->head.fields = r->fields;
	r->head.major = r->head.minor = 1;
	for (int i = 0; i < HTTP_KNOWN_MAX; i++)
		r->head.known[i] = -1;
	r->m.conn = &r->conn;
	r->m.head = &r->head;
	r->m.direction = DUMP_EGRESS;
	r->m.time_ns = UINT64_C(1700000000123456789);
	r->m.seq = 7;
	return r;
}

static inline struct ref_message *ref_request(struct span method, struct span target)
{
	struct ref_message *r = ref_new(HTTP_REQUEST);

	r->head.method = ref_add(r, method);
	r->head.target = ref_add(r, target);
	r->head.version = ref_add(r, SPAN("1.1"));
	return r;
}

static inline struct ref_message *ref_response(uint16_t status)
{
	struct ref_message *r = ref_new(HTTP_RESPONSE);

	r->head.status = status;
	r->head.version = ref_add(r, SPAN("1.1"));
	return r;
}

static inline void ref_body(struct ref_message *r, struct span body)
{
	r->m.body = body;
	r->m.body_bytes = body.len;
}

/* Call after the last ref_add(). */
static inline const struct dump_message *ref_done(struct ref_message *r)
{
	r->m.bytes = r->bytes;
	return &r->m;
}

static inline void ref_free(struct ref_message *r)
{
	free(r->fields);
	free(r->bytes);
	free(r);
}

static inline void ref_freep(struct ref_message **r)
{
	if (*r)
		ref_free(*r);
}

/* ---- text ---- */

struct ref_text {
	char *p;
	size_t len;
};

static inline void ref_byte(struct ref_text *t, unsigned char c)
{
	t->p[t->len++] = (char)c;
}

static inline struct ref_text ref_text(struct span s)
{
	struct ref_text t = {.p = malloc(2 * s.len + 1)};
	bool utf8 = utf8_valid(s.p, s.len) == s.len;

	for (size_t i = 0; i < s.len; i++) {
		unsigned char c = (unsigned char)s.p[i];

		if (c < 0x80 || utf8) {
			ref_byte(&t, c);
		} else {
			ref_byte(&t, 0xc0 | c >> 6);
			ref_byte(&t, 0x80 | (c & 0x3f));
		}
	}
	t.p[t.len] = '\0';
	return t;
}

static inline struct ref_text ref_name(struct span s)
{
	struct ref_text t = ref_text(s);
	bool first = true;

	for (size_t i = 0; i < t.len; i++) {
		char c = t.p[i];

		if (first && c >= 'a' && c <= 'z')
			t.p[i] = (char)(c - 'a' + 'A');
		if (!first && c >= 'A' && c <= 'Z')
			t.p[i] = (char)(c - 'A' + 'a');
		first = c == '-';
	}
	return t;
}

static inline struct ref_text ref_value(struct span s)
{
	struct ref_text t = ref_text(s), u = {.p = malloc(t.len + 1)};

	for (size_t i = 0; i < t.len; i++) {
		bool fold =
			t.p[i] == '\n' || (t.p[i] == '\r' && i + 1 < t.len && t.p[i + 1] == '\n');

		if (!fold) {
			u.p[u.len++] = t.p[i];
			continue;
		}
		if (t.p[i] == '\r')
			i++;
		while (i + 1 < t.len && (t.p[i + 1] == ' ' || t.p[i + 1] == '\t'))
			i++;
		u.p[u.len++] = ' ';
	}
	u.p[u.len] = '\0';
	free(t.p);
	return u;
}

/* What of the body can be text; false: none, it is binary. */
static inline bool ref_body_text(struct span body, bool truncated, size_t *ret_len)
{
	size_t len = utf8_valid(body.p, body.len);

	if (len < body.len && !(truncated && utf8_incomplete(body.p + len, body.len - len)))
		return false;
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)body.p[i];

		if ((c < 0x20 && !strchr("\t\n\v\f\r\b\033", c)) || c == 0 || c == 0x7f)
			return false;
		if (c == 0xc2 && (unsigned char)body.p[i + 1] < 0xa0)
			return false;
	}
	*ret_len = len;
	return true;
}

static inline struct ref_text ref_base64(struct span s)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	struct ref_text t = {.p = malloc(s.len * 2 + 8)};
	uint32_t bits = 0;
	int n = 0;

	for (size_t i = 0; i < s.len; i++) {
		bits = bits << 8 | (unsigned char)s.p[i];
		for (n += 8; n >= 6; n -= 6)
			ref_byte(&t, (unsigned char)digits[bits >> (n - 6) & 63]);
	}
	if (n > 0)
		ref_byte(&t, (unsigned char)digits[bits << (6 - n) & 63]);
	while (t.len % 4)
		ref_byte(&t, '=');
	return t;
}

/* ---- the object ---- */

static inline struct json_object *ref_string(struct ref_text t)
{
	struct json_object *o = json_object_new_string_len(t.p, (int)t.len);

	free(t.p);
	return o;
}

static inline struct json_object *ref_slice(const struct dump_message *m, struct http_slice s)
{
	return ref_string(ref_text(span_of(m->bytes + s.off, s.len)));
}

static inline struct span ref_slice_span(const struct dump_message *m, struct http_slice s)
{
	return span_of(m->bytes + s.off, s.len);
}

/* The next field from i on whose name is that of field `like`; n if there is none. */
static inline uint32_t ref_same(const struct ref_text *names, uint32_t n, uint32_t like, uint32_t i)
{
	while (i < n && (names[i].len != names[like].len ||
				memcmp(names[i].p, names[like].p, names[i].len) != 0))
		i++;
	return i;
}

static inline struct json_object *ref_headers(const struct dump_message *m)
{
	struct json_object *headers = json_object_new_object();
	uint32_t n = m->head->n_fields;
	struct ref_text *names = calloc(n + 1, sizeof(*names));

	for (uint32_t i = 0; i < n; i++)
		names[i] = ref_name(ref_slice_span(m, m->head->fields[i].name));
	for (uint32_t i = 0; i < n; i++) {
		struct json_object *list;

		if (ref_same(names, n, i, 0) < i)
			continue;
		list = json_object_new_array();
		for (uint32_t j = i; j < n; j = ref_same(names, n, i, j + 1))
			json_object_array_add(list,
				ref_string(ref_value(ref_slice_span(m, m->head->fields[j].value))));
		/* json-c knows a key only up to its first NUL; of several, the last one holds, here
		 * and in its parser. */
		json_object_object_add(headers, names[i].p, list);
	}
	for (uint32_t i = 0; i < n; i++)
		free(names[i].p);
	free(names);
	return headers;
}

static inline void ref_add_body(struct json_object *o, const struct dump_message *m, bool *ret_b64)
{
	size_t len;

	*ret_b64 = !ref_body_text(m->body, m->body_truncated, &len);
	json_object_object_add(o, "body",
		*ret_b64 ? ref_string(ref_base64(m->body))
			 : json_object_new_string_len(m->body.p ? m->body.p : "", (int)len));
}

static inline void ref_add_known(struct json_object *o, const char *key, struct span value)
{
	if (value.len > 0)
		json_object_object_add(o, key, ref_string(ref_text(value)));
}

static inline struct json_object *ref_object(
	const struct dump_format *format, const struct dump_message *m)
{
	struct json_object *o = json_object_new_object(), *request;
	const struct dump_peer *local = &m->conn->local, *remote = &m->conn->remote;
	const struct dump_peer *src = m->direction == DUMP_EGRESS ? local : remote;
	const struct dump_peer *dst = m->direction == DUMP_EGRESS ? remote : local;
	const struct dump_peer *client = m->head->kind == HTTP_REQUEST ? src : dst;
	bool base64;

	json_object_object_add(o, "direction", json_object_new_int((int)m->direction));
	json_object_object_add(o, "timing_ms", json_object_new_uint64(m->time_ns / 1000000));
	json_object_object_add(o, "remote_ip", json_object_new_string(client->ip));
	json_object_object_add(o, "remote_port", json_object_new_int(client->port));
	json_object_object_add(o, "method", ref_slice(m, m->head->method));
	json_object_object_add(o, "path", ref_slice(m, m->head->target));
	json_object_object_add(o, "status_code", json_object_new_int(m->head->status));
	json_object_object_add(o, "version", ref_slice(m, m->head->version));
	json_object_object_add(o, "headers", ref_headers(m));
	ref_add_body(o, m, &base64);
	json_object_object_add(o, "src_ip", json_object_new_string(src->ip));
	json_object_object_add(o, "src_port", json_object_new_int(src->port));
	json_object_object_add(o, "dst_ip", json_object_new_string(dst->ip));
	json_object_object_add(o, "dst_port", json_object_new_int(dst->port));
	json_object_object_add(o, "interface", ref_string(ref_text(span_str(m->conn->interface))));
	json_object_object_add(o, "node", ref_string(ref_text(span_str(format->node))));
	json_object_object_add(o, "pid", json_object_new_uint64(m->conn->pid));
	json_object_object_add(o, "comm", ref_string(ref_text(span_str(m->conn->comm))));
	ref_add_known(o, "namespace", m->pod.namespace);
	ref_add_known(o, "pod", m->pod.pod);
	ref_add_known(o, "container", m->pod.container);
	if (m->exchange_id) {
		char id[17];

		snprintf(id, sizeof(id), "%016llx", (unsigned long long)m->exchange_id);
		json_object_object_add(o, "exchange_id", json_object_new_string(id));
	}
	json_object_object_add(o, "seq", json_object_new_uint64(m->seq));
	json_object_object_add(o, "body_bytes", json_object_new_uint64(m->body_bytes));
	json_object_object_add(o, "body_truncated", json_object_new_boolean(m->body_truncated));
	if (base64)
		json_object_object_add(o, "body_encoding", json_object_new_string("base64"));
	json_object_object_add(o, "gap_bytes", json_object_new_uint64(m->gap_bytes));
	if (m->error)
		json_object_object_add(o, "error", ref_string(ref_text(span_str(m->error))));
	if (m->request_method.len == 0)
		return o;
	json_object_object_add(o, "latency_us", json_object_new_uint64(m->latency_us));
	request = json_object_new_object();
	json_object_object_add(request, "method", ref_string(ref_text(m->request_method)));
	json_object_object_add(request, "path", ref_string(ref_text(m->request_path)));
	json_object_object_add(request, "host", ref_string(ref_text(m->request_host)));
	json_object_object_add(o, "request", request);
	return o;
}

/* ---- lines ---- */

/* NULL if the line is not what every line must be: one line, valid UTF-8 without control
 * characters, strict JSON. */
static inline struct json_object *ref_parse(const char *line, size_t len)
{
	struct json_tokener *tokener;
	struct json_object *o;

	if (len == 0 || line[len - 1] != '\n' || utf8_valid(line, len) != len)
		return NULL;
	for (size_t i = 0; i < len - 1; i++) {
		unsigned char c = (unsigned char)line[i];

		if (c < 0x20 || c == 0x7f || (c == 0xc2 && (unsigned char)line[i + 1] < 0xa0))
			return NULL;
	}
	tokener = json_tokener_new();
	/* not STRICT: json-c 0.18 then refuses every byte of 0x80 and more (its issue 892) */
	json_tokener_set_flags(tokener, JSON_TOKENER_VALIDATE_UTF8);
	o = json_tokener_parse_ex(tokener, line, (int)len - 1);
	if (json_tokener_get_error(tokener) != json_tokener_success ||
		json_tokener_get_parse_end(tokener) != len - 1) {
		json_object_put(o);
		o = NULL;
	}
	json_tokener_free(tokener);
	return o;
}

/* Equal, with the keys in the same order. */
static inline bool ref_equal(struct json_object *a, struct json_object *b)
{
	struct json_object_iterator i, j, end;

	if (!json_object_equal(a, b))
		return false;
	if (!json_object_is_type(a, json_type_object))
		return true;
	i = json_object_iter_begin(a);
	j = json_object_iter_begin(b);
	end = json_object_iter_end(a);
	while (!json_object_iter_equal(&i, &end)) {
		if (strcmp(json_object_iter_peek_name(&i), json_object_iter_peek_name(&j)) != 0 ||
			!ref_equal(
				json_object_iter_peek_value(&i), json_object_iter_peek_value(&j)))
			return false;
		json_object_iter_next(&i);
		json_object_iter_next(&j);
	}
	return true;
}

#endif
