/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A reader of HTTP streams on top of pkg/http, shared by the unit test and the fuzzer.
 *
 * It is fed a stream in any split and writes a transcript: one line per message. Every call into
 * the parser gets its input on pages of its own, tight against an inaccessible page on one side, so
 * that a read outside of the input is a crash in every build. What the header promises of each call
 * is checked on the way; a broken promise aborts.
 *
 *     GET / HTTP/1.1|Host=a|length=hello
 *     204|Server=x|!FIELD|none
 *
 * Line ends and other bytes outside of printable ASCII appear as \xNN. A body that the stream's end
 * cut short ends with "~", one that is lost with "?".
 */
#ifndef EBPFDUMP_HTTP_READER_H
#define EBPFDUMP_HTTP_READER_H

#include <stdlib.h>
#include <sys/mman.h>

#include "pkg/http/http.h"

#define READER_FIELDS 128
#define READER_AREA   ((size_t)1 << 20)

#define PROMISE(what)                                                                      \
	do {                                                                               \
		if (!(what)) {                                                             \
			fprintf(stderr, "%s:%d: broken: %s\n", __FILE__, __LINE__, #what); \
			abort();                                                           \
		}                                                                          \
	} while (0)

static const char *const reader_faults[HTTP_FAULT_MAX] = {
	[HTTP_OK] = "",
	[HTTP_FAULT_START_LINE] = "START_LINE",
	[HTTP_FAULT_VERSION] = "VERSION",
	[HTTP_FAULT_FIELD] = "FIELD",
	[HTTP_FAULT_CONTROL] = "CONTROL",
	[HTTP_FAULT_FOLDING] = "FOLDING",
	[HTTP_FAULT_LENGTHS] = "LENGTHS",
	[HTTP_FAULT_LENGTH] = "LENGTH",
	[HTTP_FAULT_LENGTH_AND_CHUNKED] = "LENGTH_AND_CHUNKED",
	[HTTP_FAULT_TRANSFER_ENCODING] = "TRANSFER_ENCODING",
	[HTTP_FAULT_CHUNK] = "CHUNK",
	[HTTP_FAULT_HOST] = "HOST",
	[HTTP_FAULT_TOO_MANY_FIELDS] = "TOO_MANY_FIELDS",
};

static const char *const reader_framings[] = {
	[HTTP_BODY_NONE] = "none",
	[HTTP_BODY_LENGTH] = "length",
	[HTTP_BODY_CHUNKED] = "chunked",
	[HTTP_BODY_CLOSE] = "close",
	[HTTP_BODY_TUNNEL] = "tunnel",
};

/* ---- pages that end where the input does ---- */

/* A copy of the bytes that ends (or, with front, begins) at an inaccessible page. Valid until the
 * next call. */
static const char *reader_guard(const char *p, size_t len, bool front)
{
	static char *area;
	char *at;

	PROMISE(len <= READER_AREA);
	if (!area) {
		size_t page = 1 << 16;

		area = mmap(NULL, READER_AREA + 2 * page, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		PROMISE(area != MAP_FAILED);
		PROMISE(mprotect(area, page, PROT_NONE) == 0);
		PROMISE(mprotect(area + page + READER_AREA, page, PROT_NONE) == 0);
		area += page;
	}
	at = front ? area : area + READER_AREA - len;
	if (len > 0)
		memcpy(at, p, len);
	return at;
}

/* ---- the reader ---- */

struct reader {
	struct span method; /* of the requests that responses are taken to answer */
	uint32_t max_fields;
	bool front;	 /* on which side the inaccessible page is */
	struct buf in;	 /* bytes not consumed yet */
	struct buf body; /* payload so far */
	struct buf text; /* the transcript */
	size_t scanned;
	size_t consumed; /* of the stream */
	bool in_body;
	bool over; /* lost or a tunnel: the rest is only counted */
	struct http_body state;
	struct http_field fields[READER_FIELDS];
};

static void reader_init(struct reader *r, const char *method)
{
	memset(r, 0, sizeof(*r));
	r->method = span_str(method);
	r->max_fields = READER_FIELDS;
	r->in = BUF_INIT(READER_AREA);
	r->body = BUF_INIT(READER_AREA);
	r->text = BUF_INIT(16 * READER_AREA);
}

static void reader_done(struct reader *r)
{
	buf_done(&r->in);
	buf_done(&r->body);
	buf_done(&r->text);
}

static void reader_write(struct reader *r, const char *p, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)p[i];

		if (c >= 0x20 && c < 0x7f)
			PROMISE(buf_append(&r->text, &p[i], 1) == 0);
		else
			PROMISE(buf_printf(&r->text, "\\x%02x", c) == 0);
	}
}

static void reader_slice(struct reader *r, const char *p, size_t size, struct http_slice s)
{
	PROMISE(s.off <= size && s.len <= size - s.off);
	reader_write(r, p + s.off, s.len);
}

static void reader_fault(struct reader *r, enum http_fault fault)
{
	PROMISE(fault < HTTP_FAULT_MAX);
	PROMISE((http_fault_text(fault) == NULL) == (fault == HTTP_OK));
	if (fault != HTTP_OK)
		PROMISE(buf_printf(&r->text, "|!%s", reader_faults[fault]) == 0);
}

static void reader_head(struct reader *r, const char *p, size_t size)
{
	struct http_head head = {.fields = r->fields, .max_fields = r->max_fields};
	enum http_framing framing;
	uint64_t length = 0;

	http_head_parse(p, size, &head);
	PROMISE(head.size == size);
	PROMISE(head.n_fields <= r->max_fields);
	PROMISE(head.kind == HTTP_REQUEST || head.method.len + head.target.len == 0);
	if (head.kind == HTTP_REQUEST) {
		PROMISE(head.status == 0);
		reader_slice(r, p, size, head.method);
		reader_write(r, " ", 1);
		reader_slice(r, p, size, head.target);
		PROMISE(buf_printf(&r->text, " %u.%u", head.major, head.minor) == 0);
		PROMISE(head.version.len > 0 || (head.major == 0 && head.minor == 9));
	} else {
		PROMISE(buf_printf(&r->text, "%u %u.%u", head.status, head.major, head.minor) == 0);
	}
	PROMISE(head.version.off <= size && head.version.len <= size - head.version.off);
	for (uint32_t i = 0; i < head.n_fields; i++) {
		reader_write(r, "|", 1);
		reader_slice(r, p, size, head.fields[i].name);
		reader_write(r, "=", 1);
		reader_slice(r, p, size, head.fields[i].value);
	}
	for (int k = 0; k < HTTP_KNOWN_MAX; k++)
		PROMISE(head.known[k] >= -1 && head.known[k] < (int)head.n_fields);
	framing = http_framing(p, &head, r->method, &length);
	PROMISE((framing == HTTP_BODY_LENGTH) == (length > 0));
	reader_fault(r, head.fault);
	if (!http_keep_alive(p, &head))
		reader_write(r, "|last", 5);
	reader_write(r, "|", 1);
	reader_write(r, reader_framings[framing], strlen(reader_framings[framing]));
	http_body_init(&r->state, framing, length);
	PROMISE(!r->state.lost && r->state.fault == HTTP_OK);
	r->in_body = true;
	r->over = framing == HTTP_BODY_TUNNEL;
}

/* The body is done, lost or cut. */
static void reader_message_end(struct reader *r, const char *mark)
{
	if (r->state.framing != HTTP_BODY_NONE && r->state.framing != HTTP_BODY_TUNNEL) {
		reader_write(r, "=", 1);
		reader_write(r, r->body.data, r->body.len);
		reader_write(r, mark, strlen(mark));
	}
	reader_fault(r, r->state.fault);
	PROMISE(buf_append(&r->text, "\n", 1) == 0);
	r->body.len = 0;
	r->scanned = 0;
	r->in_body = false;
}

static void reader_body(struct reader *r)
{
	while (r->in.len > 0 && !r->state.done && !r->state.lost) {
		const char *p = reader_guard(r->in.data, r->in.len, r->front);
		struct span data;
		size_t n = http_body_feed(&r->state, p, r->in.len, &data);

		PROMISE(n <= r->in.len && (n > 0 || r->state.lost));
		PROMISE(!(r->state.done && r->state.lost));
		if (data.len > 0) {
			PROMISE(data.p >= p && data.p + data.len <= p + n);
			PROMISE(buf_append(&r->body, data.p, data.len) == 0);
		}
		buf_consume(&r->in, n);
		r->consumed += n;
	}
	if (r->state.lost) {
		PROMISE(r->state.fault != HTTP_OK);
		r->over = true;
		reader_message_end(r, "?");
	} else if (r->state.done) {
		reader_message_end(r, "");
	}
}

static void reader_feed(struct reader *r, const char *p, size_t len)
{
	PROMISE(buf_append(&r->in, p, len) == 0);
	while (r->in.len > 0 && !r->over) {
		size_t size, before = r->scanned;

		if (!r->in_body) {
			const char *head = reader_guard(r->in.data, r->in.len, r->front);

			size = http_head_end(head, r->in.len, &r->scanned);
			PROMISE(size <= r->in.len);
			/* the search goes on, and all but the last two bytes are behind it */
			PROMISE(r->scanned >= before);
			PROMISE(r->scanned <= (size ? size : r->in.len));
			if (size == 0) {
				PROMISE(r->scanned + 2 >= r->in.len);
				return;
			}
			/* the head alone is all that the parser may look at */
			reader_head(r, reader_guard(r->in.data, size, r->front), size);
			buf_consume(&r->in, size);
			r->consumed += size;
		}
		reader_body(r);
		if (r->in_body)
			return;
	}
}

/* The stream ends: a head that is not complete is parsed as far as it goes. */
static void reader_end(struct reader *r)
{
	if (!r->over && !r->in_body && r->in.len > 0) {
		PROMISE(buf_printf(&r->text, "cut ") == 0);
		reader_head(r, reader_guard(r->in.data, r->in.len, r->front), r->in.len);
		r->over = true;
	}
	if (r->in_body)
		reader_message_end(r, http_body_end(&r->state) ? "" : "~");
	PROMISE(buf_append(&r->text, "", 1) == 0);
}

#endif
