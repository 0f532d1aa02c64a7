/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench-replay: the user side alone, on one core: capture records in memory to lines of JSON in
 * memory, as `--replay` does it; beside it the same pipeline with json-c as the writer, and with
 * none. All three see the same bytes in the same run, round by round. The two writers are compared
 * first: each message must become the same object.
 *
 * Prints one JSON object: for each writer the CPU nanoseconds per message in each round.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "pkg/flow/flow.h"
#include "pkg/probe/probe.h"
#include "pkg/spec/spec.h"

#define CONNECTIONS   64
#define EXCHANGES     4096 /* so that all records together are about what the ring buffer holds */
#define REQUEST_BYTES 700
#define OUTPUT_BYTES  (1U << 20)
#define PASSES	      4 /* over the records, in one round */
#define ROUNDS_MAX    201

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "bench-replay: %s\n", what);
	exit(1);
}

/* ---- the traffic ---- */

static size_t make_request(char *out, size_t size, unsigned i)
{
	static const char *const things[] = {"orders", "customers", "invoices", "sessions"};
	int n = snprintf(out, size,
		"GET /api/v2/%s/%u?fields=id,name,created,total&page=%u HTTP/1.1\r\n"
		"Host: shop.example.com\r\n"
		"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like "
		"Gecko) "
		"Chrome/128.0.0.0 Safari/537.36\r\n"
		"Accept: application/json, text/plain, */*\r\n"
		"Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n"
		"Accept-Encoding: gzip, deflate, br\r\n"
		"Referer: https://shop.example.com/%s?page=%u\r\n"
		"Connection: keep-alive\r\n"
		"X-Request-Id: 7f3b8a52-4c1d-4e0a-9d21-%012x\r\n"
		"If-None-Match: \"%08x-5f2\"\r\n"
		"Cookie: session=",
		things[i % 4], i, i % 17, things[i % 4], i % 17, i * 2654435761U, i * 40503U);
	size_t len = (size_t)n;

	if (n < 0 || len > REQUEST_BYTES - 4)
		die("the request is too long");
	while (len < REQUEST_BYTES - 4) {
		out[len] = "0123456789abcdef"[(i + len * 7) % 16];
		len++;
	}
	memcpy(out + len, "\r\n\r\n", 4);
	return REQUEST_BYTES;
}

static size_t make_response(char *out, size_t size, unsigned i)
{
	char body[512];
	int b = snprintf(body, sizeof(body),
		"{\"id\":%u,\"name\":\"Ada Lovelace\",\"created\":\"2026-11-23T10:%02u:%02uZ\","
		"\"total\":%u.%02u,\"currency\":\"EUR\",\"items\":[{\"sku\":\"A-%05u\","
		"\"quantity\":%u,"
		"\"title\":\"Analytical engine, small\"},{\"sku\":\"B-%05u\",\"quantity\":1,"
		"\"title\":\"Punched cards (100)\"}],\"note\":\"leave it at the door\"}",
		i, i / 60 % 60, i % 60, i % 900, i % 100, i % 99999, i % 9, i * 7 % 99999);
	int n = snprintf(out, size,
		"HTTP/1.1 200 OK\r\n"
		"Server: nginx/1.26.2\r\n"
		"Date: Mon, 23 Nov 2026 10:%02u:%02u GMT\r\n"
		"Content-Type: application/json; charset=utf-8\r\n"
		"Content-Length: %d\r\n"
		"Connection: keep-alive\r\n"
		"Vary: Accept-Encoding\r\n"
		"ETag: \"%08x-5f2\"\r\n"
		"Cache-Control: private, max-age=0, must-revalidate\r\n"
		"X-Request-Id: 7f3b8a52-4c1d-4e0a-9d21-%012x\r\n\r\n%s",
		i / 60 % 60, i % 60, b, i * 40503U, i * 2654435761U, body);

	if (n < 0 || (size_t)n >= size || b < 0 || (size_t)b >= sizeof(body))
		die("the response is too long");
	return (size_t)n;
}

/* What a server's loader records, to a file. */
static void write_records(const char *path, unsigned exchanges)
{
	static uint32_t seq[CONNECTIONS][2];
	struct capture_writer *w;
	struct err err = {0};
	char data[2048];

	if (capture_writer_open(path, &w, &err))
		die("the records cannot be written");
	for (unsigned i = 0; i < exchanges * 2; i++) {
		unsigned c = i / 2 % CONNECTIONS;
		bool response = i % 2;
		int direction = response ? CAPTURE_EGRESS : CAPTURE_INGRESS;
		size_t len = response ? make_response(data, sizeof(data), i / 2)
				      : make_request(data, sizeof(data), i / 2);
		struct capture_record r = {
			.version = CAPTURE_VERSION,
			.type = CAPTURE_DATA,
			.direction = (uint8_t)direction,
			.size = (uint32_t)(sizeof(r) + len),
			.time_ns = 1000000000ULL + i * 1000ULL,
			.connection = c + 1,
			.cgroup_id = 4711,
			.seq = seq[c][direction],
			.length = (uint32_t)len,
			.captured = (uint32_t)len,
			.flags = CAPTURE_F_SEQ | (i / 2 < CONNECTIONS ? CAPTURE_F_FIRST : 0U),
			.pid = 1234,
			.netns = 4026531840U,
			.ifindex = 2,
			.family = AF_INET,
			.local_port = 8080,
			.remote_port = (uint16_t)(40000 + c),
			.local_addr = {10, 1, 2, 3},
			.remote_addr = {10, 1, 7, (uint8_t)c},
			.comm = "nginx",
			.interface = "eth0",
		};

		seq[c][direction] += (uint32_t)len;
		if (capture_writer_add(w, &r, data, 1763892000000000000LL, &err))
			die(err.text);
	}
	if (capture_writer_close(w, &err))
		die("the records cannot be written");
}

/* Returns the file in memory. */
static char *make_records(size_t *ret_len)
{
	char path[] = "/tmp/ebpfdump-bench.XXXXXX";
	struct stat st;
	int fd = mkstemp(path);
	char *p;

	if (fd < 0)
		die("the records cannot be written");
	write_records(path, EXCHANGES);
	if (fstat(fd, &st))
		die("the records cannot be written");
	p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
	if (p == MAP_FAILED)
		die("the records cannot be read");
	close(fd);
	unlink(path);
	*ret_len = (size_t)st.st_size;
	return p;
}

/* ---- the writers ---- */

static struct dump_redaction redaction;
static const struct dump_format format = {
	.node = "node-1", .line_max = DUMP_LINE_MAX, .redaction = &redaction};

struct sink_memory {
	struct buf out;
	uint64_t messages, bytes;
};

static void written(struct sink_memory *s, size_t len)
{
	s->messages++;
	s->bytes += len;
	if (s->out.len > OUTPUT_BYTES)
		s->out.len = 0;
}

static void write_none(void *ctx, const struct dump_message *m)
{
	written(ctx, 0);
}

static void write_ours(void *ctx, const struct dump_message *m)
{
	struct sink_memory *s = ctx;
	struct dump_message numbered = *m;
	size_t before = s->out.len;

	numbered.seq = s->messages + 1;
	if (dump_json(&format, &numbered, &s->out))
		die("dump_json");
	written(s, s->out.len - before);
}

#define NEW (JSON_C_OBJECT_ADD_KEY_IS_NEW | JSON_C_OBJECT_ADD_CONSTANT_KEY)

static void add(struct json_object *o, const char *key, struct json_object *value)
{
	if (!value || json_object_object_add_ex(o, key, value, NEW))
		die("json-c");
}

static struct json_object *text(const char *p, size_t len)
{
	return json_object_new_string_len(p, (int)len);
}

static struct json_object *slice(const struct dump_message *m, struct http_slice s)
{
	return text(m->bytes + s.off, s.len);
}

static struct json_object *number(uint64_t value)
{
	return json_object_new_int64((int64_t)value);
}

/* `User-Agent` */
static void header_name(char *out, const char *p, size_t len)
{
	char before = '-';

	for (size_t i = 0; i < len; i++) {
		char c = p[i];

		if (before == '-' && c >= 'a' && c <= 'z')
			c = (char)(c - 32);
		else if (before != '-' && c >= 'A' && c <= 'Z')
			c = (char)(c + 32);
		out[i] = before = c;
	}
	out[len] = 0;
}

static struct json_object *value_of(const struct dump_message *m, const struct http_field *f)
{
	struct span name = span_of(m->bytes + f->name.off, f->name.len);
	char redacted[DUMP_REDACTED_LEN];

	if (dump_redaction_match(&redaction, name) == DUMP_REDACT_NOTHING)
		return slice(m, f->value);
	dump_redact(&redaction, span_of(m->bytes + f->value.off, f->value.len), redacted);
	return text(redacted, sizeof(redacted));
}

static struct json_object *headers(const struct dump_message *m)
{
	struct json_object *o = json_object_new_object(), *list;

	for (uint32_t i = 0; i < m->head->n_fields; i++) {
		const struct http_field *f = &m->head->fields[i];
		char name[128];

		if (f->name.len >= sizeof(name))
			die("a header name is too long");
		header_name(name, m->bytes + f->name.off, f->name.len);
		if (!json_object_object_get_ex(o, name, &list)) {
			list = json_object_new_array_ext(1);
			json_object_object_add_ex(o, name, list, JSON_C_OBJECT_ADD_KEY_IS_NEW);
		}
		json_object_array_add(list, value_of(m, f));
	}
	return o;
}

static struct json_object *object_of(const struct dump_message *m, uint64_t seq)
{
	const struct dump_conn *c = m->conn;
	bool egress = m->direction == DUMP_EGRESS, request = m->head->kind == HTTP_REQUEST;
	const struct dump_peer *src = egress ? &c->local : &c->remote;
	const struct dump_peer *dst = egress ? &c->remote : &c->local;
	const struct dump_peer *client = request ? src : dst;
	struct json_object *o = json_object_new_object(), *r;

	add(o, "direction", number(m->direction));
	add(o, "timing_ms", number(m->time_ns / 1000000));
	add(o, "remote_ip", text(client->ip, client->ip_len));
	add(o, "remote_port", number(client->port));
	add(o, "method", slice(m, m->head->method));
	add(o, "path", slice(m, m->head->target));
	add(o, "status_code", number(m->head->status));
	add(o, "version", slice(m, m->head->version));
	add(o, "headers", headers(m));
	if (utf8_valid(m->body.p, m->body.len) != m->body.len)
		die("the bodies of this traffic are text");
	add(o, "body", text(m->body.p, m->body.len));
	add(o, "src_ip", text(src->ip, src->ip_len));
	add(o, "src_port", number(src->port));
	add(o, "dst_ip", text(dst->ip, dst->ip_len));
	add(o, "dst_port", number(dst->port));
	add(o, "interface", json_object_new_string(c->interface));
	add(o, "node", json_object_new_string(format.node));
	add(o, "pid", number(c->pid));
	add(o, "comm", json_object_new_string(c->comm));
	add(o, "seq", number(seq));
	add(o, "body_bytes", number(m->body_bytes));
	add(o, "body_truncated", json_object_new_boolean(m->body_truncated));
	add(o, "gap_bytes", number(m->gap_bytes));
	if (m->error)
		add(o, "error", json_object_new_string(m->error));
	if (m->request_method.len > 0) {
		add(o, "latency_us", number(m->latency_us));
		r = json_object_new_object();
		add(r, "method", text(m->request_method.p, m->request_method.len));
		add(r, "path", text(m->request_path.p, m->request_path.len));
		add(r, "host", text(m->request_host.p, m->request_host.len));
		add(o, "request", r);
	}
	return o;
}

static void write_json_c(void *ctx, const struct dump_message *m)
{
	struct sink_memory *s = ctx;
	struct json_object *o = object_of(m, s->messages + 1);
	size_t len;
	const char *p = json_object_to_json_string_length(
		o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE, &len);

	if (!p || buf_append(&s->out, p, len) || buf_append(&s->out, "\n", 1))
		die("json-c");
	written(s, len + 1);
	json_object_put(o);
}

/* The two writers say the same, or the comparison is worth nothing. */
static void write_both(void *ctx, const struct dump_message *m)
{
	struct sink_memory *s = ctx;
	struct dump_message numbered = *m;
	struct json_object *theirs = object_of(m, s->messages + 1), *ours;

	numbered.seq = s->messages + 1;
	s->out.len = 0;
	if (dump_json(&format, &numbered, &s->out) || buf_append(&s->out, "", 1))
		die("dump_json");
	ours = json_tokener_parse(s->out.data);
	if (!ours || !json_object_equal(ours, theirs)) {
		fprintf(stderr, "ours:   %stheirs: %s\n", s->out.data,
			json_object_to_json_string_ext(theirs, JSON_C_TO_STRING_PLAIN));
		die("the two writers differ");
	}
	json_object_put(ours);
	json_object_put(theirs);
	written(s, 0);
}

/* ---- rounds ---- */

static const struct bench_writer {
	const char *name;
	flow_emit_fn emit;
} writers[] = {{"none", write_none}, {"ours", write_ours}, {"json_c", write_json_c}};

static uint64_t cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* One pass over the records; returns the CPU time that it took. */
static uint64_t pass(const char *records, size_t len, flow_emit_fn emit, struct sink_memory *s)
{
	CLEANUP(capture_reader_closep)
	struct capture_reader *reader = NULL;
	CLEANUP(flow_freep)
	struct flow *flow = NULL;
	const struct capture_record *record;
	uint64_t start, messages = s->messages;
	struct flow_options options;
	struct err err = {0};
	const char *data;
	int64_t offset;
	int r;

	flow_options_default(&options);
	if (flow_new(&options, emit, s, &flow, &err) ||
		capture_reader_open_memory(records, len, &reader, &err))
		die(err.text);
	start = cpu_ns();
	while ((r = capture_reader_next(reader, &record, &data, &offset, &err)) > 0)
		flow_record(flow, record, data, offset);
	flow_finish(flow);
	start = cpu_ns() - start;
	if (r < 0)
		die(err.text);
	if (s->messages - messages != EXCHANGES * 2 || flow_stats(flow)->faults ||
		flow_stats(flow)->unpaired)
		die("not every message came out");
	return start;
}

int main(int argc, char **argv)
{
	static double ns[ARRAY_SIZE(writers)][ROUNDS_MAX];
	uint64_t rounds = 15, bytes[ARRAY_SIZE(writers)] = {0}, messages = 0;
	struct sink_memory s = {.out = BUF_INIT(8U << 20)};
	const char *records, *only = NULL; /* to look at one with a profiler */
	struct err err = {0};
	struct spec spec;
	cpu_set_t set;
	size_t len;

	for (int i = 1; i + 1 < argc; i += 2) {
		if (strcmp(argv[i], "--writer") == 0)
			only = argv[i + 1];
		else if (strcmp(argv[i], "--write") == 0) {
			/* for those who want a longer one */
			write_records(argv[i + 1], EXCHANGES * 16);
			return 0;
		} else if (strcmp(argv[i], "--rounds") != 0 ||
			   num_parse(span_str(argv[i + 1]), 1, ROUNDS_MAX, &rounds))
			die("usage: bench-replay [--rounds N] [--writer none|ours|json_c] [--write "
			    "FILE]");
	}
	/* as users run it */
	if (spec_parse_args(&spec, 1, argv, &err) ||
		dump_redaction_init(&redaction, spec.redact.names, spec.redact.count, NULL))
		die("the defaults");
	CPU_ZERO(&set);
	CPU_SET((int)sysconf(_SC_NPROCESSORS_ONLN) - 1, &set);
	(void)sched_setaffinity(0, sizeof(set), &set);
	records = make_records(&len);
	if (!only)
		pass(records, len, write_both, &s);
	for (uint64_t round = 0; round < rounds; round++)
		for (size_t i = 0; i < ARRAY_SIZE(writers); i++) {
			size_t w = (i + round) % ARRAY_SIZE(writers);
			uint64_t took = 0;

			if (only && strcmp(only, writers[w].name) != 0)
				continue;
			s.messages = s.bytes = s.out.len = 0;
			for (int p = 0; p < PASSES; p++)
				took += pass(records, len, writers[w].emit, &s);
			messages = s.messages;
			bytes[w] = s.bytes;
			ns[w][round] = (double)took / (double)s.messages;
		}
	printf("{\"unit\": \"ns\", \"rounds\": %" PRIu64 ", \"messages\": %" PRIu64
	       ", \"writers\": {\n",
		rounds, messages);
	for (size_t w = 0; w < ARRAY_SIZE(writers); w++) {
		printf("  \"%s\": {\"line_bytes\": %.1f, \"per_message\": [", writers[w].name,
			messages ? (double)bytes[w] / (double)messages : 0);
		for (uint64_t i = 0; i < rounds; i++)
			printf("%s%.1f", i ? ", " : "", ns[w][i]);
		printf("]}%s\n", w + 1 < ARRAY_SIZE(writers) ? "," : "");
	}
	printf("}}\n");
	buf_done(&s.out);
	return 0;
}
