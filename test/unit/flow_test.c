/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <stdlib.h>

#include "pkg/flow/internal.h"

/* ---- a flow, what it says, and ways to feed it ---- */

/* As ck_assert(), which writes to a file each time, where it is called a million times. */
#define MUST(condition)                                 \
	do {                                            \
		if (!(condition))                       \
			ck_abort_msg("%s", #condition); \
	} while (0)

#define SECOND UINT64_C(1000000000)
#define WALL   INT64_C(1700000000000000000)

struct rig {
	struct flow *flow;
	struct buf log;	   /* a line for each message */
	uint64_t messages; /* lines */
	uint64_t raw;
	uint64_t tunnel; /* connection that became one */
	uint64_t now;
	uint64_t connection;
	uint32_t seq[2];    /* of the next byte */
	bool first[2];	    /* nothing was sent yet */
	bool times;	    /* times are in the log */
	uint32_t heads[16]; /* sequence numbers, as on_head() was told */
	unsigned n_heads;
	uint32_t isn; /* isn_difference; 0: not known */
};

static void log_span(struct buf *log, struct span s)
{
	for (size_t i = 0; i < s.len; i++) {
		char ch = s.p[i];

		if (ch >= ' ' && ch < 127)
			MUST(buf_append(log, &ch, 1) == 0);
		else
			MUST(buf_printf(log, "\\%02x", (unsigned char)ch) == 0);
	}
}

static void log_text(struct buf *log, const char *text)
{
	MUST(buf_append(log, text, strlen(text)) == 0);
}

static void on_message(void *ctx, const struct dump_message *m)
{
	const struct http_head *h = m->head;
	struct rig *r = ctx;
	struct buf *log = &r->log;

	r->messages++;
	MUST(m->seq == 0);
	log_text(log, m->direction == DUMP_EGRESS ? "out " : "in ");
	if (h->kind == HTTP_REQUEST) {
		log_span(log, span_of(m->bytes + h->method.off, h->method.len));
		log_text(log, " ");
		log_span(log, span_of(m->bytes + h->target.off, h->target.len));
	} else {
		MUST(buf_printf(log, "%u", h->status) == 0);
	}
	MUST(buf_printf(log, " %u", h->n_fields) == 0);
	/* every field is read: a view of bytes that are gone shows under ASan */
	for (uint32_t i = 0; i < h->n_fields; i++) {
		const struct http_field *f = &h->fields[i];

		log_text(log, i == 0 ? " [" : ",");
		log_span(log, span_of(m->bytes + f->name.off, f->name.len));
		log_text(log, "=");
		log_span(log, span_of(m->bytes + f->value.off, f->value.len));
	}
	log_text(log, h->n_fields ? "]" : "");
	if (m->body_bytes > 0) {
		log_text(log, " body ");
		log_span(log, m->body);
	}
	if (m->body.len != m->body_bytes)
		MUST(buf_printf(log, " of %llu", (unsigned long long)m->body_bytes) == 0);
	MUST(m->body_truncated == (m->body.len < m->body_bytes));
	if (m->gap_bytes > 0)
		MUST(buf_printf(log, " gap %llu", (unsigned long long)m->gap_bytes) == 0);
	if (m->request_method.len > 0) {
		log_text(log, " for ");
		log_span(log, m->request_method);
		log_text(log, " ");
		log_span(log, m->request_path);
		log_text(log, " ");
		log_span(log, m->request_host);
		if (r->times)
			MUST(buf_printf(log, " %lluus", (unsigned long long)m->latency_us) == 0);
	}
	if (r->times)
		MUST(buf_printf(log, " at %llu", (unsigned long long)(m->time_ns - WALL)) == 0);
	if (m->error) {
		log_text(log, " error ");
		log_text(log, m->error);
	}
	log_text(log, "\n");
}

static void on_tunnel(void *ctx, uint64_t connection)
{
	struct rig *r = ctx;

	MUST(r->tunnel == 0);
	r->tunnel = connection;
}

static void rig_options(struct rig *r, const struct flow_options *options)
{
	struct err err;

	*r = (struct rig){.log = BUF_INIT(64 << 20), .connection = 1, .first = {true, true}};
	r->seq[0] = 1000;
	r->seq[1] = 5000;
	MUST(flow_new(options, on_message, r, &r->flow, &err) == 0);
	flow_on_tunnel(r->flow, on_tunnel, r);
}

static void rig_init(struct rig *r)
{
	struct flow_options options;

	flow_options_default(&options);
	rig_options(r, &options);
}

static void check_ledger(struct flow *flow)
{
	const struct flow_stats *s = flow_stats(flow);

	MUST(s->bytes == s->bytes_parsed + s->bytes_repeated + s->bytes_unparsed +
				 s->bytes_left_out + s->bytes_unfinished);
}

static void rig_done(struct rig *r)
{
	const struct flow_stats *s = flow_stats(r->flow);

	check_ledger(r->flow);
	flow_finish(r->flow);
	check_ledger(r->flow);
	MUST(s->bytes_unfinished == 0);
	MUST(s->buffered == 0);
	MUST(s->connections == 0);
	MUST(s->parsed[0] + s->parsed[1] == r->messages + s->ignored + s->left_out);
	flow_free(r->flow);
	buf_done(&r->log);
}

static struct capture_record record_of(struct rig *r, unsigned dir, uint32_t seq, size_t captured)
{
	struct capture_record rec = {
		.version = CAPTURE_VERSION,
		.type = CAPTURE_DATA,
		.direction = (uint8_t)dir,
		.size = (uint32_t)(sizeof(rec) + captured),
		.time_ns = r->now,
		.connection = r->connection,
		.seq = seq,
		.length = (uint32_t)captured,
		.captured = (uint32_t)captured,
		.flags = CAPTURE_F_SEQ | (r->isn ? CAPTURE_F_ISN : 0),
		.isn_difference = r->isn,
		.pid = 42,
		.family = AF_INET,
		.local_port = 40000,
		.remote_port = 80,
		.local_addr = {10, 0, 0, 1},
		.remote_addr = {10, 0, 0, 2},
		.comm = "curl",
		.interface = "eth0",
	};
	return rec;
}

/* The bytes lie in memory of exactly their size, which is gone afterwards. */
static void give(struct rig *r, struct capture_record rec, const char *p)
{
	char *copy = malloc(rec.captured ? rec.captured : 1);

	MUST(copy);
	if (rec.captured)
		memcpy(copy, p, rec.captured);
	flow_record(r->flow, &rec, copy, WALL);
	if (rec.captured)
		memset(copy, '#', rec.captured);
	free(copy);
}

/* One call. */
static void calln(struct rig *r, unsigned dir, const char *p, size_t len)
{
	while (len > 0) {
		size_t n = MIN(len, (size_t)CAPTURE_DATA_MAX);
		struct capture_record rec = record_of(r, dir, r->seq[dir], n);

		if (r->first[dir])
			rec.flags |= CAPTURE_F_FIRST;
		r->first[dir] = false;
		r->seq[dir] += (uint32_t)n;
		give(r, rec, p);
		p += n;
		len -= n;
	}
}

static void call(struct rig *r, unsigned dir, const char *text)
{
	calln(r, dir, text, strlen(text));
}

static void skip(struct rig *r, unsigned dir, uint32_t n)
{
	r->seq[dir] += n;
	r->first[dir] = false;
}

static void finish_dir(struct rig *r, unsigned dir, uint32_t flags)
{
	struct capture_record rec = record_of(r, dir, 0, 0);

	rec.type = CAPTURE_END;
	rec.flags = flags;
	if (dir < CAPTURE_BOTH)
		rec.seq = r->seq[dir];
	flow_record(r->flow, &rec, NULL, WALL);
}

static void expect(struct rig *r, const char *log)
{
	MUST(buf_append(&r->log, "", 1) == 0);
	ck_assert_str_eq(r->log.data, log);
	r->log.len = 0;
}

#define OUT CAPTURE_EGRESS
#define IN  CAPTURE_INGRESS

/* ---- conversations, and what must be seen of them ---- */

struct line {
	int dir; /* of the client: 0 it sends, 1 it receives; -1: end of the list */
	const char *text;
};

struct conversation {
	const char *name;
	struct line lines[10];
	const char *log; /* at the client's end */
	bool close;	 /* the server closes; else the connection stays open */
};

#define CHUNKS                                                  \
	"5;name=\"va;lue\"\r\nhello\r\n1\r\n,\r\n006\r\n world" \
	"\r\n0\r\nX-Sum: 12\r\n\r\n"

static const struct conversation conversations[] = {
	{.name = "simple",
		.lines = {{0, "GET /a HTTP/1.1\r\nHost: h\r\n\r\n"},
			{1, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"}, {-1, NULL}},
		.log = "out GET /a 1 [Host=h] at 1000\n"
		       "in 200 1 [Content-Length=5] body hello for GET /a h 1us at 2000\n"},
	{.name = "keep-alive",
		.lines = {{0, "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"},
			{1, "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"},
			{0, "GET /b HTTP/1.1\r\nHost: i\r\n\r\n"},
			{1, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"},
			{0, "GET /c HTTP/1.1\r\nHost: j\r\n\r\n"},
			{1, "HTTP/1.1 204 No Content\r\n\r\n"}, {-1, NULL}},
		.log = "out POST /a 2 [Host=h,Content-Length=3] body abc at 1000\n"
		       "in 201 1 [Content-Length=0] for POST /a h 1us at 2000\n"
		       "out GET /b 1 [Host=i] at 3000\n"
		       "in 200 1 [Content-Length=2] body hi for GET /b i 1us at 4000\n"
		       "out GET /c 1 [Host=j] at 5000\n"
		       "in 204 0 for GET /c j 1us at 6000\n"},
	{.name = "pipelining",
		.lines = {{0, "GET /1 HTTP/1.1\r\nHost: h\r\n\r\n"
			      "HEAD /2 HTTP/1.1\r\nHost: h\r\n\r\n"
			      "PUT /3 HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx"
			      "GET /4 HTTP/1.1\r\nHost: h\r\n\r\n"},
			{1, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none"
			    "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"
			    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nthr\r\n2"
			    "\r\nee\r\n0\r\n\r\n"
			    "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n"},
			{-1, NULL}},
		.log = "out GET /1 1 [Host=h] at 1000\n"
		       "out HEAD /2 1 [Host=h] at 1000\n"
		       "out PUT /3 2 [Host=h,Content-Length=1] body x at 1000\n"
		       "out GET /4 1 [Host=h] at 1000\n"
		       "in 200 1 [Content-Length=3] body one for GET /1 h 1us at 2000\n"
		       "in 200 1 [Content-Length=99] for HEAD /2 h 1us at 2000\n"
		       "in 200 1 [Transfer-Encoding=chunked] body three for PUT /3 h 1us at 2000\n"
		       "in 304 1 [Content-Length=7] for GET /4 h 1us at 2000\n"},
	{.name = "100-continue, chunked both ways",
		.lines = {{0, "POST /up HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n"
			      "Transfer-Encoding: chunked\r\n\r\n"},
			{1, "HTTP/1.1 100 Continue\r\n\r\n"}, {0, CHUNKS},
			{1, "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"},
			{1, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" CHUNKS},
			{-1, NULL}},
		.log = "in 100 0 for POST /up h 1us at 2000\n"
		       "out POST /up 3 [Host=h,Expect=100-continue,Transfer-Encoding=chunked] body "
		       "hello, world at 1000\n"
		       "in 103 1 [Link=</x>] for POST /up h 3us at 4000\n"
		       "in 200 1 [Transfer-Encoding=chunked] body hello, world for POST /up h 4us "
		       "at "
		       "5000\n"},
	{.name = "early response",
		.lines = {{0, "POST /up HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\n\r\nabc"},
			{1, "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"}, {0, "def"},
			{-1, NULL}},
		.log = "in 413 1 [Content-Length=0] for POST /up h 1us at 2000\n"
		       "out POST /up 2 [Host=h,Content-Length=6] body abcdef at 1000\n"},
	{.name = "close-delimited",
		.lines = {{0, "GET /a HTTP/1.0\r\n\r\n"}, {1, "HTTP/1.0 200 OK\r\n\r\nall of"},
			{1, " it"}, {-1, NULL}},
		.close = true,
		.log = "out GET /a 0 at 1000\n"
		       "in 200 0 body all of it for GET /a  1us at 2000\n"},
	{.name = "close-delimited, empty",
		.lines = {{0, "GET /a HTTP/1.0\r\n\r\n"}, {1, "HTTP/1.0 200 OK\r\n\r\n"},
			{-1, NULL}},
		.close = true,
		.log = "out GET /a 0 at 1000\n"
		       "in 200 0 for GET /a  1us at 2000\n"},
	{.name = "upgrade",
		.lines = {{0, "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: "
			      "websocket\r\n\r\n"},
			{1, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"},
			{0, "GET /not-http HTTP/1.1\r\n\r\n"}, {1, "HTTP/1.1 200 Not\r\n\r\n"},
			{-1, NULL}},
		.log = "out GET /ws 3 [Host=h,Connection=upgrade,Upgrade=websocket] at 1000\n"
		       "in 101 1 [Upgrade=websocket] for GET /ws h 1us at 2000\n"},
	{.name = "connect",
		.lines = {{0, "CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n"},
			{1, "HTTP/1.1 200 Established\r\nContent-Length: 5\r\n\r\n"},
			{0, "GET /not-http HTTP/1.1\r\n\r\n"}, {1, "HTTP/1.1 200 Not\r\n\r\n"},
			{-1, NULL}},
		.log = "out CONNECT h:443 1 [Host=h:443] at 1000\n"
		       "in 200 1 [Content-Length=5] for CONNECT h:443 h:443 1us at 2000\n"},
	{.name = "connect refused",
		.lines = {{0, "CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n"},
			{1, "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"},
			{0, "GET / HTTP/1.1\r\nHost: p\r\n\r\n"},
			{1, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"}, {-1, NULL}},
		.log = "out CONNECT h:443 1 [Host=h:443] at 1000\n"
		       "in 403 1 [Content-Length=2] body no for CONNECT h:443 h:443 1us at 2000\n"
		       "out GET / 1 [Host=p] at 3000\n"
		       "in 200 1 [Content-Length=0] for GET / p 1us at 4000\n"},
	{.name = "empty lines between messages",
		.lines = {{0, "\r\nPOST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx\r\n"
			      "\r\n\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n"},
			{1, "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n\r\n"},
			{-1, NULL}},
		.log = "out POST /a 2 [Host=h,Content-Length=1] body x at 1000\n"
		       "out GET /b 1 [Host=h] at 1000\n"
		       "in 204 0 for POST /a h 1us at 2000\n"
		       "in 204 0 for GET /b h 1us at 2000\n"},
	{.name = "an unregistered method, bare LF, HTTP/1.0",
		.lines = {{0, "FROBNICATE /x?y HTTP/1.0\nHost: h\n\n"},
			{1, "HTTP/1.0 200 OK\nConnection: keep-alive\nContent-Length: 1\n\n!"},
			{0, "GET http://h/ HTTP/1.0\r\n\r\n"}, {1, "HTTP/1.0 200 OK\r\n\r\n"},
			{-1, NULL}},
		.close = true,
		.log = "out FROBNICATE /x?y 1 [Host=h] at 1000\n"
		       "in 200 2 [Connection=keep-alive,Content-Length=1] body ! for FROBNICATE "
		       "/x?y h 1us at 2000\n"
		       "out GET http://h/ 0 at 3000\n"
		       "in 200 0 for GET http://h/  1us at 4000\n"},
};

/* How the lines become records. */
struct style {
	const char *name;
	bool flip;     /* seen at the server's end */
	bool packets;  /* as packets */
	bool shuffled; /* out of order, and repeated */
	bool offered;  /* the first call offers the whole line, the second one what was not taken */
	bool overlap;  /* the second piece repeats bytes of the first */
	uint32_t seq;  /* of the first byte */
	size_t pieces; /* of so many bytes; 0: cut once */
};

static const struct style styles[] = {
	{.name = "calls", .seq = 1},
	{.name = "calls, at the server", .flip = true, .seq = 1},
	{.name = "calls, sequence numbers wrap", .seq = 0xffffffe0},
	{.name = "calls after EAGAIN", .offered = true, .seq = 0xffffffe0},
	{.name = "calls that overlap", .overlap = true, .seq = 0xfffffff0},
	{.name = "packets", .packets = true, .seq = 0xfffffff0},
	{.name = "packets, shuffled", .packets = true, .shuffled = true, .seq = 0xffffffe8},
	{.name = "single bytes", .pieces = 1, .seq = 0xffffff00},
	{.name = "single bytes, shuffled",
		.pieces = 1,
		.packets = true,
		.shuffled = true,
		.seq = 0},
	{.name = "seven bytes, at the server", .pieces = 7, .flip = true, .seq = 0},
	{.name = "seven bytes, shuffled", .pieces = 7, .packets = true, .shuffled = true, .seq = 0},
};

/* Small, fast, the same everywhere. */
static uint32_t random_next(uint64_t *state)
{
	*state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (uint32_t)(*state >> 33);
}

struct bit {
	size_t from, to;
};

static void call_line(struct rig *r, const struct style *style, const struct line *line, size_t cut,
	uint64_t *random)
{
	unsigned dir = (unsigned)line->dir ^ style->flip;
	size_t len = strlen(line->text), n = 0;
	struct bit bits[1024];
	uint32_t seq = r->seq[dir];

	if (style->pieces) {
		for (size_t at = 0; at < len; at += style->pieces)
			bits[n++] = (struct bit){at, MIN(at + style->pieces, len)};
	} else if (cut > 0 && cut < len) {
		bits[n++] = (struct bit){0, style->offered ? len : cut};
		bits[n++] = (struct bit){style->overlap ? cut / 2 : cut, len};
	} else {
		bits[n++] = (struct bit){0, len};
	}
	MUST(n * 2 <= ARRAY_SIZE(bits));
	if (style->shuffled) {
		for (size_t i = 0, repeats = random_next(random) % 3; i < repeats; i++, n++)
			bits[n] = bits[random_next(random) % n];
		for (size_t i = n - 1; i > 0; i--) {
			size_t j = random_next(random) % (i + 1);
			struct bit swap = bits[i];

			bits[i] = bits[j];
			bits[j] = swap;
		}
		/* a stream begins where a message seems to begin: the true first byte must not be
		 * later */
		for (size_t i = 0; i < n && r->first[dir]; i++) {
			if (bits[i].from == 0)
				break;
			if (!message_begins(line->text + bits[i].from, bits[i].to - bits[i].from))
				continue;
			for (size_t j = i + 1; j < n; j++) {
				if (bits[j].from == 0) {
					struct bit swap = bits[i];

					bits[i] = bits[j];
					bits[j] = swap;
					break;
				}
			}
			break;
		}
	}
	for (size_t i = 0; i < n; i++) {
		struct capture_record rec =
			record_of(r, dir, seq + (uint32_t)bits[i].from, bits[i].to - bits[i].from);

		if (style->packets)
			rec.flags |= CAPTURE_F_PACKET;
		if (r->first[dir] && bits[i].from == 0)
			rec.flags |= CAPTURE_F_FIRST;
		give(r, rec, line->text + bits[i].from);
		check_ledger(r->flow);
	}
	r->first[dir] = false;
	r->seq[dir] += (uint32_t)len;
}

static void flipped(const char *log, struct buf *out)
{
	while (*log) {
		const char *end = strchr(log, '\n') + 1, *rest = log + (*log == 'o' ? 3 : 2);

		log_text(out, *log == 'o' ? "in" : "out");
		MUST(buf_append(out, rest, (size_t)(end - rest)) == 0);
		log = end;
	}
	MUST(buf_append(out, "", 1) == 0);
}

static void run(const struct conversation *talk, const struct style *style, size_t cut_line,
	size_t cut, uint64_t *random)
{
	struct buf want = BUF_INIT(1 << 20);
	struct rig r;

	rig_init(&r);
	r.times = true;
	r.seq[0] = style->seq;
	r.seq[1] = style->seq + 77;
	for (size_t i = 0; talk->lines[i].dir >= 0 && talk->lines[i].text; i++) {
		r.now += 1000;
		call_line(&r, style, &talk->lines[i], i == cut_line ? cut : 0, random);
	}
	if (talk->close)
		finish_dir(&r, CAPTURE_BOTH, 0);
	if (style->flip)
		flipped(talk->log, &want);
	MUST(buf_append(&r.log, "", 1) == 0);
	ck_assert_msg(strcmp(r.log.data, style->flip ? want.data : talk->log) == 0,
		"%s, %s, line %zu cut at %zu:\n%swanted:\n%s", talk->name, style->name, cut_line,
		cut, r.log.data, style->flip ? want.data : talk->log);
	MUST(flow_stats(r.flow)->unpaired == 0);
	MUST(flow_stats(r.flow)->gap_bytes == 0);
	MUST(flow_stats(r.flow)->buffered == 0);
	MUST(flow_stats(r.flow)->bytes_unfinished == 0);
	MUST(flow_stats(r.flow)->resyncs == 0);
	MUST(flow_stats(r.flow)->connections == !talk->close);
	MUST(r.tunnel == (flow_stats(r.flow)->tunnels ? r.connection : 0));
	buf_done(&want);
	rig_done(&r);
}

START_TEST(every_split)
{
	const struct style *style = &styles[_i];
	uint64_t random = 1;

	for (size_t t = 0; t < ARRAY_SIZE(conversations); t++) {
		const struct conversation *talk = &conversations[t];

		if (style->pieces) {
			for (int i = 0; i < 20; i++)
				run(talk, style, 0, 0, &random);
			continue;
		}
		for (size_t l = 0; talk->lines[l].dir >= 0 && talk->lines[l].text; l++) {
			for (size_t cut = 0; cut < strlen(talk->lines[l].text); cut++)
				run(talk, style, l, cut, &random);
		}
	}
}
END_TEST

/* ---- gaps ---- */

#define GET(path) "GET " path " HTTP/1.1\r\nHost: h\r\n\r\n"
#define OK(n)	  "HTTP/1.1 200 OK\r\nContent-Length: " #n "\r\n\r\n"
#define CHUNKED	  "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

/* A call of which only the first n bytes are captured. */
static void call_cut(struct rig *r, unsigned dir, const char *text, size_t captured)
{
	struct capture_record rec = record_of(r, dir, r->seq[dir], captured);

	if (r->first[dir])
		rec.flags |= CAPTURE_F_FIRST;
	r->first[dir] = false;
	rec.length = (uint32_t)strlen(text);
	r->seq[dir] += rec.length;
	give(r, rec, text);
}

START_TEST(gap_in_body)
{
	struct rig r;

	rig_init(&r);
	call(&r, OUT, GET("/a"));
	/* a record that never came */
	call(&r, IN, OK(10) "abc");
	skip(&r, IN, 4);
	call(&r, IN, "xyz" OK(0));
	expect(&r, "out GET /a 1 [Host=h]\n"
		   "in 200 1 [Content-Length=10] body abcxyz of 10 gap 4 for GET /a h\n"
		   "in 200 1 [Content-Length=0]\n");
	ck_assert_uint_eq(flow_stats(r.flow)->faults, 0);
	ck_assert_uint_eq(flow_stats(r.flow)->unpaired, 1);

	/* a call of which the end was not captured; its last byte is the body's */
	call(&r, OUT, GET("/b"));
	call_cut(&r, IN, OK(10) "0123456789", strlen(OK(10)) + 2);
	expect(&r, "out GET /b 1 [Host=h]\n"
		   "in 200 1 [Content-Length=10] body 01 of 10 gap 8 for GET /b h\n");
	/* nothing of the body */
	call(&r, OUT, GET("/c"));
	call_cut(&r, IN, OK(10) "0123456789", strlen(OK(10)));
	call(&r, OUT, GET("/d"));
	call(&r, IN, OK(1) "x");
	expect(&r, "out GET /c 1 [Host=h]\n"
		   "in 200 1 [Content-Length=10] body  of 10 gap 10 for GET /c h\n"
		   "out GET /d 1 [Host=h]\n"
		   "in 200 1 [Content-Length=1] body x for GET /d h\n");
	ck_assert_uint_eq(flow_stats(r.flow)->resyncs, 0);
	ck_assert_uint_eq(flow_stats(r.flow)->gap_bytes, 22);

	/* bytes offered, but not taken by the socket, are known when they come again */
	call(&r, OUT, GET("/e"));
	call_cut(&r, IN, OK(10) "0123456789", strlen(OK(10)) + 2);
	r.seq[IN] -= 5;
	call(&r, IN, "56789" OK(2) "yo");
	expect(&r, "out GET /e 1 [Host=h]\n"
		   "in 200 1 [Content-Length=10] body 01 of 10 gap 8 for GET /e h\n"
		   "in 200 1 [Content-Length=2] body yo\n");
	ck_assert_uint_eq(flow_stats(r.flow)->bytes_repeated, 5);
	rig_done(&r);
}
END_TEST

START_TEST(gap_in_chunks)
{
	struct rig r;

	rig_init(&r);
	/* inside a chunk: only these bytes */
	call(&r, OUT, GET("/a") GET("/b"));
	call(&r, IN, CHUNKED "a\r\n01");
	skip(&r, IN, 6);
	call(&r, IN, "89\r\n0\r\n\r\n" CHUNKED "2\r\nxy");
	expect(&r, "out GET /a 1 [Host=h]\n"
		   "out GET /b 1 [Host=h]\n"
		   "in 200 1 [Transfer-Encoding=chunked] body 0189 of 10 gap 6 for GET /a h\n");
	/* over the end of a chunk: the end is lost */
	skip(&r, IN, 9);
	call(&r, IN, "garbage\r\n0\r\n\r\n");
	call(&r, OUT, GET("/c"));
	call(&r, IN, OK(1) "c");
	expect(&r, "in 200 1 [Transfer-Encoding=chunked] body xy gap 9 for GET /b h error " //
		FLOW_ERROR_BODY_GAP "\n"
		   "out GET /c 1 [Host=h]\n"
		   "in 200 1 [Content-Length=1] body c for GET /c h\n");
	ck_assert_uint_eq(flow_stats(r.flow)->resyncs, 1);
	ck_assert_uint_eq(flow_stats(r.flow)->faults, 1);
	ck_assert_uint_eq(flow_stats(r.flow)->bytes_unparsed, strlen("garbage\r\n0\r\n\r\n"));

	/* the line end behind a chunk costs itself, and nothing else */
	call(&r, OUT, GET("/d"));
	call(&r, IN, CHUNKED "3\r\nabc");
	skip(&r, IN, 2);
	call(&r, IN, "1\r\nd\r\n0\r\n\r\n");
	expect(&r, "out GET /d 1 [Host=h]\n"
		   "in 200 1 [Transfer-Encoding=chunked] body abcd gap 2 for GET /d h\n");
	rig_done(&r);
}
END_TEST

START_TEST(gap_in_head)
{
	struct rig r;

	rig_init(&r);
	call(&r, OUT, "GET /a HTTP/1.1\r\nHost: h\r\nX-Lo");
	skip(&r, OUT, 100);
	call(&r, OUT, "ng: 1\r\n\r\n");
	call(&r, IN, "HTTP/1.1 200 OK\r\nServ");
	skip(&r, IN, 1000);
	call(&r, IN, "rest of a body");
	call(&r, OUT, GET("/b"));
	call(&r, IN, OK(1) "b");
	ck_assert_int_eq(buf_append(&r.log, "", 1), 0);
	/* what is there of a line may or may not count as a field: the parser's choice */
	ck_assert_ptr_nonnull(strstr(r.log.data, "out GET /a "));
	ck_assert_ptr_nonnull(strstr(r.log.data, "[Host=h"));
	ck_assert_ptr_nonnull(strstr(r.log.data, "gap 100 error "));
	ck_assert_ptr_nonnull(strstr(r.log.data, "in 200 "));
	ck_assert_ptr_nonnull(strstr(r.log.data, "gap 1000 for GET /a h error "));
	ck_assert_ptr_nonnull(strstr(r.log.data, FLOW_ERROR_HEAD_GAP "\n"));
	ck_assert_ptr_nonnull(strstr(r.log.data,
		"out GET /b 1 [Host=h]\nin 200 1 [Content-Length=1] body b for GET /b h\n"));
	ck_assert_uint_eq(r.messages, 4);
	ck_assert_uint_eq(flow_stats(r.flow)->resyncs, 2);
	ck_assert_uint_eq(flow_stats(r.flow)->faults, 2);
	rig_done(&r);
}
END_TEST

START_TEST(gap_between)
{
	struct rig r;

	rig_init(&r);
	call(&r, OUT, GET("/0"));
	call(&r, IN, OK(0));
	r.log.len = 0;
	/* a whole exchange, and a half, are lost: the next response must not answer what it does
	 * not
	 */
	call(&r, OUT, GET("/a"));
	skip(&r, IN, 500);
	call(&r, OUT, GET("/b"));
	call(&r, IN, OK(1) "b");
	call(&r, OUT, GET("/c"));
	call(&r, IN, OK(1) "c");
	expect(&r, "out GET /a 1 [Host=h]\n"
		   "out GET /b 1 [Host=h]\n"
		   "in 200 1 [Content-Length=1] body b\n"
		   "out GET /c 1 [Host=h]\n"
		   "in 200 1 [Content-Length=1] body c for GET /c h\n");

	/* over the end of a body and further */
	call(&r, OUT, GET("/d"));
	call(&r, IN, OK(10) "d");
	skip(&r, IN, 50);
	call(&r, IN, "in the middle of something");
	call(&r, IN, "GET /log HTTP/1.1 is what a body may hold, but no response begins so");
	call(&r, OUT, GET("/e"));
	call(&r, IN, OK(1) "e");
	expect(&r, "out GET /d 1 [Host=h]\n"
		   "in 200 1 [Content-Length=10] body d of 10 gap 9 for GET /d h\n"
		   "out GET /e 1 [Host=h]\n"
		   "in 200 1 [Content-Length=1] body e for GET /e h\n");
	ck_assert_uint_eq(flow_stats(r.flow)->gap_bytes, 550);
	rig_done(&r);
}
END_TEST

START_TEST(gap_close_delimited)
{
	struct rig r;

	rig_init(&r);
	call(&r, OUT, GET("/a"));
	call(&r, IN, "HTTP/1.1 200 OK\r\n\r\nabc");
	skip(&r, IN, 1 << 20);
	call(&r, IN, "xyz");
	skip(&r, IN, 7);
	/* the end says that there was more */
	finish_dir(&r, IN, CAPTURE_F_SEQ);
	expect(&r, "out GET /a 1 [Host=h]\n"
		   "in 200 0 body abcxyz of 1048589 gap 1048583 for GET /a h\n");
	ck_assert_uint_eq(flow_stats(r.flow)->connections, 1);
	finish_dir(&r, OUT, CAPTURE_F_SEQ);
	ck_assert_uint_eq(flow_stats(r.flow)->connections, 0);
	rig_done(&r);
}
END_TEST

/* Pages of sendfile: nothing of a record is captured. */
START_TEST(gap_unreadable)
{
	struct capture_record rec;
	struct rig r;

	rig_init(&r);
	call(&r, IN, GET("/a"));
	call(&r, OUT, OK(4000000000));
	rec = record_of(&r, OUT, r.seq[OUT], 0);
	rec.flags |= CAPTURE_F_UNREADABLE;
	rec.length = 4000000000;
	flow_record(r.flow, &rec, NULL, WALL);
	r.seq[OUT] += 4000000000;
	call(&r, OUT, OK(0));
	expect(&r,
		"in GET /a 1 [Host=h]\n"
		"out 200 1 [Content-Length=4000000000] body  of 4000000000 gap 4000000000 for GET "
		"/a h\n"
		"out 200 1 [Content-Length=0]\n");
	rig_done(&r);
}
END_TEST

/* ---- order ---- */

static void packet(struct rig *r, unsigned dir, uint32_t at, const char *text)
{
	struct capture_record rec = record_of(r, dir, at, strlen(text));

	rec.flags |= CAPTURE_F_PACKET;
	give(r, rec, text);
}

START_TEST(hold_expires)
{
	const struct flow_stats *s;
	struct rig r;

	rig_init(&r);
	s = flow_stats(r.flow);
	r.now = SECOND;
	packet(&r, IN, 5000, OK(6) "a");
	packet(&r, IN, 5000 + (uint32_t)strlen(OK(6)) + 5, "f");
	packet(&r, IN, 5000 + (uint32_t)strlen(OK(6)) + 3, "d");
	ck_assert_uint_eq(s->held, 2);
	ck_assert_uint_gt(s->buffered, 0);
	flow_tick(r.flow, SECOND + SECOND);
	expect(&r, "");
	/* the first hole, then the second */
	flow_tick(r.flow, 2 * SECOND + 1);
	ck_assert_uint_eq(s->gap_bytes, 2);
	flow_tick(r.flow, 3 * SECOND + 1);
	ck_assert_uint_eq(s->gap_bytes, 2);
	/* the clock of the records tells as well */
	r.now = 3 * SECOND + 2;
	packet(&r, IN, 5000 + (uint32_t)strlen(OK(6)) + 6, OK(0));
	ck_assert_uint_eq(s->gap_bytes, 3);
	expect(&r, "in 200 1 [Content-Length=6] body adf of 6 gap 3\n"
		   "in 200 1 [Content-Length=0]\n");
	/* too late */
	packet(&r, IN, 5000 + (uint32_t)strlen(OK(6)) + 1, "b");
	ck_assert_uint_eq(s->bytes_repeated, 1);
	ck_assert_uint_eq(s->buffered, 0);
	flow_tick(r.flow, 10 * SECOND);
	rig_done(&r);
}
END_TEST

START_TEST(hold_many)
{
	const struct flow_stats *s;
	struct rig r;

	rig_init(&r);
	s = flow_stats(r.flow);
	packet(&r, IN, 5000, OK(9000));
	/* backwards: the place of each is before all others */
	for (uint32_t i = 5000; i > 0; i--)
		packet(&r, IN, 5000 + (uint32_t)strlen(OK(9000)) + i, "x");
	/* more than are held at a time: the hole was given up */
	ck_assert_uint_gt(s->gap_bytes, 0);
	ck_assert_uint_lt(s->held, 5000);
	check_ledger(r.flow);
	finish_dir(&r, IN, 0);
	ck_assert_uint_eq(s->buffered, 0);
	rig_done(&r);
}
END_TEST

START_TEST(hold_end)
{
	struct rig r;

	rig_init(&r);
	/* the end comes while packets wait: they come first */
	packet(&r, IN, 5000, "HTTP/1.0 200 OK\r\n\r\na");
	packet(&r, IN, 5022, "d");
	finish_dir(&r, CAPTURE_BOTH, 0);
	expect(&r, "in 200 0 body ad of 4 gap 2\n");
	/* a call's record does not wait, and what waits before it goes first */
	r.connection = 2;
	packet(&r, IN, 5000, "HTTP/1.0 200 OK\r\n\r\na");
	packet(&r, IN, 5021, "c");
	r.seq[IN] = 5023;
	r.first[IN] = false;
	call(&r, IN, "e");
	finish_dir(&r, CAPTURE_BOTH, 0);
	expect(&r, "in 200 0 body ace of 5 gap 2\n");
	rig_done(&r);
}
END_TEST

START_TEST(jumps)
{
	struct rig r;

	rig_init(&r);
	call(&r, OUT, GET("/a"));
	call(&r, IN, OK(5) "he");
	/* ahead by more than any window */
	skip(&r, IN, (1U << 30) + 1000);
	call(&r, IN, OK(1) "x");
	skip(&r, IN, -(1U << 30) - 1000);
	call(&r, IN, OK(1) "y");
	expect(&r, "out GET /a 1 [Host=h]\n"
		   "in 200 1 [Content-Length=5] body he for GET /a h error " FLOW_ERROR_JUMP "\n"
		   "in 200 1 [Content-Length=1] body x\n"
		   "in 200 1 [Content-Length=1] body y\n");
	ck_assert_uint_eq(flow_stats(r.flow)->gap_bytes, 0);
	ck_assert_uint_eq(flow_stats(r.flow)->resyncs, 2);
	/* backwards a little: seen before */
	r.seq[IN] -= 10;
	call(&r, IN, "0123456789" OK(1) "z");
	expect(&r, "in 200 1 [Content-Length=1] body z\n");
	rig_done(&r);
}
END_TEST

/* Offered to a socket that did not accept it; then something else was sent. */
START_TEST(retracted)
{
	const char *post = "POST /c HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nab";
	struct capture_record rec;
	const struct flow_stats *s;
	uint32_t seq;
	struct rig r;

	rig_init(&r);
	s = flow_stats(r.flow);
	call(&r, OUT, GET("/a"));
	call(&r, IN, OK(0));
	r.log.len = 0;
	/* a whole request; in its place the beginning of one with a body; in its place a third */
	seq = r.seq[OUT];
	call(&r, OUT, GET("/b"));
	rec = record_of(&r, OUT, seq, strlen(post));
	rec.flags |= CAPTURE_F_RETRACT;
	give(&r, rec, post);
	rec = record_of(&r, OUT, seq, strlen(GET("/d")));
	rec.flags |= CAPTURE_F_RETRACT;
	give(&r, rec, GET("/d"));
	call(&r, IN, OK(0));
	expect(&r,
		"out GET /b 1 [Host=h]\n"
		"out POST /c 2 [Host=h,Content-Length=9] body ab error " FLOW_ERROR_RETRACTED "\n"
		"out GET /d 1 [Host=h]\n"
		"in 200 1 [Content-Length=0] for GET /d h\n");
	/* what could not be read, and did not leave: nobody answers it */
	seq += (uint32_t)strlen(GET("/d"));
	rec = record_of(&r, OUT, seq, 0);
	rec.length = 100;
	give(&r, rec, "");
	rec = record_of(&r, OUT, seq, strlen(GET("/d")));
	rec.flags |= CAPTURE_F_RETRACT;
	give(&r, rec, GET("/d"));
	call(&r, IN, OK(0));
	expect(&r, "out GET /d 1 [Host=h]\n"
		   "in 200 1 [Content-Length=0] for GET /d h\n");
	/* the rest of a call, and more: these are the same bytes */
	r.seq[OUT] = seq + (uint32_t)strlen(GET("/d"));
	call(&r, OUT, "POST /e HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabcdef");
	rec = record_of(&r, OUT, r.seq[OUT] - 4, 7);
	rec.flags |= CAPTURE_F_RETRACT;
	give(&r, rec, "cdefghi");
	expect(&r, "out POST /e 2 [Host=h,Content-Length=9] body abcdefghi\n");
	ck_assert_uint_eq(s->bytes_repeated, 4);
	ck_assert_uint_eq(s->pending_dropped, 0);
	rig_done(&r);
}
END_TEST

/* ---- joining in the middle ---- */

START_TEST(middle)
{
	struct rig r;

	rig_init(&r);
	r.first[0] = r.first[1] = false;
	/* the rest of a response, then the next exchange */
	call(&r, IN, "rest of some body GET / HTTP/1.1");
	call(&r, OUT, GET("/b"));
	call(&r, IN, OK(2) "hi");
	expect(&r, "out GET /b 1 [Host=h]\n"
		   "in 200 1 [Content-Length=2] body hi for GET /b h\n");
	/* a response without its request, then as usual */
	r.connection = 2;
	call(&r, IN, OK(2) "hi");
	call(&r, OUT, GET("/c"));
	call(&r, IN, OK(2) "ho");
	expect(&r, "in 200 1 [Content-Length=2] body hi\n"
		   "out GET /c 1 [Host=h]\n"
		   "in 200 1 [Content-Length=2] body ho for GET /c h\n");
	/* the beginning in pieces too small to tell */
	r.connection = 3;
	call(&r, OUT, "G");
	call(&r, OUT, "E");
	call(&r, OUT, "T /d HTTP/1.1\r\nHost: h\r\n\r\n");
	expect(&r, "out GET /d 1 [Host=h]\n");
	/* pieces that turn out to be something else; a message may begin in the record that shows
	 * it
	 */
	r.connection = 4;
	call(&r, OUT, "G");
	call(&r, OUT, GET("/e"));
	expect(&r, "out GET /e 1 [Host=h]\n");
	/* an unregistered method is nothing to go by in foreign bytes */
	r.connection = 5;
	call(&r, OUT, "THIS /is HTTP/1.1\r\n\r\n");
	call(&r, OUT, GET("/f"));
	call(&r, OUT, "THIS /is HTTP/1.1\r\nHost: h\r\n\r\n");
	expect(&r, "out GET /f 1 [Host=h]\n"
		   "out THIS /is 1 [Host=h]\n");
	/* the response to a HEAD that was not seen: told by the next one */
	r.connection = 6;
	call(&r, IN, OK(1000));
	call(&r, OUT, GET("/g"));
	call(&r, IN, OK(1) "g");
	expect(&r, "out GET /g 1 [Host=h]\n"
		   "in 200 1 [Content-Length=1000]\n"
		   "in 200 1 [Content-Length=1] body g for GET /g h\n");
	rig_done(&r);
}
END_TEST

/* ---- pairing ---- */

START_TEST(pair_limit)
{
	struct flow_options options;
	struct rig r;

	flow_options_default(&options);
	options.max_pending = 2;
	rig_options(&r, &options);
	call(&r, OUT, GET("/1") GET("/2") GET("/3") GET("/4"));
	ck_assert_uint_eq(flow_stats(r.flow)->pending_dropped, 2);
	r.log.len = 0;
	call(&r, IN, "HTTP/1.1 100 Continue\r\n\r\n" OK(0) OK(0) OK(0) OK(0) OK(0));
	expect(&r, "in 100 0\n"
		   "in 200 1 [Content-Length=0]\n"
		   "in 200 1 [Content-Length=0]\n"
		   "in 200 1 [Content-Length=0] for GET /3 h\n"
		   "in 200 1 [Content-Length=0] for GET /4 h\n"
		   "in 200 1 [Content-Length=0]\n");
	ck_assert_uint_eq(flow_stats(r.flow)->unpaired, 4);
	rig_done(&r);
}
END_TEST

START_TEST(pair_long)
{
	char path[9000], request[10000];
	struct rig r;

	rig_init(&r);
	memset(path, 'p', sizeof(path));
	path[0] = '/';
	path[sizeof(path) - 1] = '\0';
	snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\nHost: h\r\n\r\n", path);
	call(&r, OUT, request);
	r.log.len = 0;
	call(&r, IN, OK(0));
	path[2048] = '\0';
	snprintf(request, sizeof(request), "in 200 1 [Content-Length=0] for GET %s h\n", path);
	expect(&r, request);
	rig_done(&r);
}
END_TEST

START_TEST(pair_lost_request)
{
	struct rig r;

	rig_init(&r);
	/* the end of a request's body is lost; its response is not */
	call(&r, OUT, "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab");
	skip(&r, OUT, 10);
	call(&r, IN, OK(0));
	call(&r, OUT, GET("/b"));
	call(&r, IN, OK(0));
	/* the hole shows with the next request, when the response is through */
	expect(&r, "in 200 1 [Content-Length=0] for POST /a h\n"
		   "out POST /a 2 [Host=h,Transfer-Encoding=chunked] body ab of 5 gap 10 "
		   "error " FLOW_ERROR_BODY_GAP "\n"
		   "out GET /b 1 [Host=h]\n"
		   "in 200 1 [Content-Length=0] for GET /b h\n");
	rig_done(&r);
}
END_TEST

/* A request is missing as a whole: what it would be paired with is known by when the hole shows. */
START_TEST(pair_missing_request)
{
	struct rig r;

	rig_init(&r);
	/* one by one: the response came before the next request */
	call(&r, OUT, GET("/1"));
	call(&r, IN, OK(0));
	skip(&r, OUT, 40);
	call(&r, IN, OK(0));
	call(&r, OUT, GET("/3"));
	call(&r, IN, OK(0));
	expect(&r, "out GET /1 1 [Host=h]\n"
		   "in 200 1 [Content-Length=0] for GET /1 h\n"
		   "in 200 1 [Content-Length=0]\n"
		   "out GET /3 1 [Host=h]\n"
		   "in 200 1 [Content-Length=0] for GET /3 h\n");
	/* pipelined: the first response may be that of the missing one */
	skip(&r, OUT, 40);
	call(&r, OUT, GET("/5"));
	call(&r, IN, OK(0) OK(0));
	call(&r, OUT, GET("/6"));
	call(&r, IN, OK(0));
	expect(&r, "out GET /5 1 [Host=h]\n"
		   "in 200 1 [Content-Length=0]\n"
		   "in 200 1 [Content-Length=0]\n"
		   "out GET /6 1 [Host=h]\n"
		   "in 200 1 [Content-Length=0] for GET /6 h\n");
	/* behind others that wait */
	call(&r, OUT, GET("/7"));
	skip(&r, OUT, 40);
	call(&r, OUT, GET("/9") GET("/10"));
	call(&r, IN, OK(0) OK(0));
	call(&r, OUT, GET("/11"));
	call(&r, IN, OK(0) OK(0) OK(0));
	call(&r, OUT, GET("/12"));
	call(&r, IN, OK(0));
	expect(&r, "out GET /7 1 [Host=h]\n"
		   "out GET /9 1 [Host=h]\n"
		   "out GET /10 1 [Host=h]\n"
		   "in 200 1 [Content-Length=0]\n"
		   "in 200 1 [Content-Length=0]\n"
		   "out GET /11 1 [Host=h]\n"
		   "in 200 1 [Content-Length=0]\n"
		   "in 200 1 [Content-Length=0]\n"
		   "in 200 1 [Content-Length=0]\n"
		   "out GET /12 1 [Host=h]\n"
		   "in 200 1 [Content-Length=0] for GET /12 h\n");
	rig_done(&r);
}
END_TEST

/* The response is missing, too, or the request alone: neither may keep others from being paired
 * for ever. */
START_TEST(pair_missing_exchange)
{
	struct rig r;

	rig_init(&r);
	call(&r, OUT, GET("/1"));
	call(&r, IN, OK(0));
	skip(&r, OUT, 40);
	skip(&r, IN, 40);
	call(&r, OUT, GET("/3"));
	call(&r, IN, OK(0));
	call(&r, OUT, GET("/4"));
	call(&r, IN, OK(0));
	expect(&r, "out GET /1 1 [Host=h]\n"
		   "in 200 1 [Content-Length=0] for GET /1 h\n"
		   "out GET /3 1 [Host=h]\n"
		   "in 200 1 [Content-Length=0]\n"
		   "out GET /4 1 [Host=h]\n"
		   "in 200 1 [Content-Length=0] for GET /4 h\n");
	/* responses are out of step while a request goes missing */
	skip(&r, IN, 40);
	call(&r, IN, "the rest of something");
	skip(&r, OUT, 40);
	call(&r, OUT, GET("/6"));
	call(&r, IN, OK(0));
	call(&r, OUT, GET("/7"));
	call(&r, IN, OK(0));
	expect(&r, "out GET /6 1 [Host=h]\n"
		   "in 200 1 [Content-Length=0]\n"
		   "out GET /7 1 [Host=h]\n"
		   "in 200 1 [Content-Length=0] for GET /7 h\n");
	rig_done(&r);
}
END_TEST

START_TEST(latency)
{
	struct rig r;

	rig_init(&r);
	r.times = true;
	r.now = 5000;
	call(&r, OUT, "GET /a HTTP/1.1\r\n");
	r.now = 7000;
	call(&r, OUT, "Host: h\r\n\r\n");
	r.now = 10000;
	call(&r, IN, "HTTP/1.1 20");
	r.now = 20000;
	call(&r, IN, "0 OK\r\nContent-Length: 0\r\n\r\n");
	/* clocks of two processors may differ: never negative */
	call(&r, OUT, GET("/b"));
	r.now = 19000;
	call(&r, IN, OK(0));
	expect(&r, "out GET /a 1 [Host=h] at 5000\n"
		   "in 200 1 [Content-Length=0] for GET /a h 5us at 10000\n"
		   "out GET /b 1 [Host=h] at 20000\n"
		   "in 200 1 [Content-Length=0] for GET /b h 0us at 19000\n");
	rig_done(&r);
}
END_TEST

/* ---- ends ---- */

START_TEST(ends)
{
	struct rig r;

	rig_init(&r);
	/* inside a counted body, inside a head */
	call(&r, OUT, "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc");
	call(&r, IN, "HTTP/1.1 200 OK\r\n");
	finish_dir(&r, CAPTURE_BOTH, 0);
	ck_assert_uint_eq(flow_stats(r.flow)->connections, 0);
	expect(&r, "out POST /a 2 [Host=h,Content-Length=9] body abc error " FLOW_ERROR_ENDED "\n"
		   "in 200 0 for POST /a h error " FLOW_ERROR_ENDED "\n");

	/* by reset: a body that only the close delimits is not known to be whole */
	r.connection = 2;
	r.first[0] = r.first[1] = true;
	call(&r, OUT, GET("/b"));
	call(&r, IN, "HTTP/1.1 200 OK\r\n\r\nabc");
	finish_dir(&r, CAPTURE_BOTH, CAPTURE_F_RESET);
	expect(&r, "out GET /b 1 [Host=h]\n"
		   "in 200 0 body abc for GET /b h error " FLOW_ERROR_RESET "\n");

	/* nothing that looks like a head is no message */
	r.connection = 3;
	r.first[0] = r.first[1] = true;
	call(&r, OUT, "GE");
	call(&r, IN, "\r\n");
	finish_dir(&r, CAPTURE_BOTH, 0);
	expect(&r, "");
	ck_assert_uint_eq(flow_stats(r.flow)->bytes_unparsed, 4);

	/* one direction ends, the other goes on */
	r.connection = 4;
	r.first[0] = r.first[1] = true;
	call(&r, OUT, GET("/c"));
	finish_dir(&r, OUT, CAPTURE_F_SEQ);
	call(&r, IN, OK(2) "ok");
	finish_dir(&r, IN, CAPTURE_F_SEQ);
	ck_assert_uint_eq(flow_stats(r.flow)->connections, 0);
	expect(&r, "out GET /c 1 [Host=h]\n"
		   "in 200 1 [Content-Length=2] body ok for GET /c h\n");
	/* again, and of a connection never seen */
	finish_dir(&r, IN, CAPTURE_F_SEQ);
	r.connection = 99;
	finish_dir(&r, CAPTURE_BOTH, 0);
	/* a connection that is over speaks again */
	r.connection = 4;
	call(&r, OUT, GET("/d"));
	expect(&r, "out GET /d 1 [Host=h]\n");

	/* the capture stops */
	call(&r, OUT, "PUT /e HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc");
	flow_finish(r.flow);
	expect(&r,
		"out PUT /e 2 [Host=h,Content-Length=9] body abc error " FLOW_ERROR_STOPPED "\n");
	rig_done(&r);
}
END_TEST

START_TEST(tunnels)
{
	const struct flow_stats *s;
	struct rig r;

	/* HTTP/2 without asking first */
	rig_init(&r);
	s = flow_stats(r.flow);
	call(&r, OUT, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
	ck_assert_uint_eq(r.tunnel, 1);
	ck_assert_uint_eq(r.messages, 1);
	call(&r, IN, OK(1) "x");
	ck_assert_uint_eq(r.messages, 1);
	ck_assert_uint_eq(s->bytes_unparsed, strlen("SM\r\n\r\n" OK(1) "x"));
	rig_done(&r);

	/* the client does not wait for the answer */
	rig_init(&r);
	s = flow_stats(r.flow);
	call(&r, OUT, "CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\n");
	call(&r, OUT, "GET /maybe-h");
	call(&r, IN, "HTTP/1.1 200 OK\r\n\r\n");
	call(&r, OUT, "idden HTTP/1.1\r\nHost: h\r\n\r\n");
	skip(&r, OUT, 10);
	call(&r, OUT, "more");
	expect(&r, "out CONNECT h:1 1 [Host=h:1]\n"
		   "in 200 0 for CONNECT h:1 h:1\n");
	ck_assert_uint_eq(s->tunnels, 1);
	ck_assert_uint_eq(s->resyncs, 0);
	ck_assert_uint_eq(s->buffered, 0);
	rig_done(&r);

	/* the body of the request that asked for it still is one */
	rig_init(&r);
	call(&r, OUT, "POST /ws HTTP/1.1\r\nHost: h\r\nUpgrade: x\r\nContent-Length: 4\r\n\r\nab");
	call(&r, IN, "HTTP/1.1 101 OK\r\nUpgrade: x\r\n\r\nnot http");
	call(&r, OUT, "cdnot http");
	expect(&r, "in 101 1 [Upgrade=x] for POST /ws h\n"
		   "out POST /ws 3 [Host=h,Upgrade=x,Content-Length=4] body abcd\n");
	rig_done(&r);
}
END_TEST

/* ---- faults ---- */

START_TEST(faults)
{
	struct rig r;

	rig_init(&r);
	/* a fault of the HTTP whose framing is plain: on it goes in the same record */
	call(&r, OUT, "GET /a HTTP/1.1\r\n\r\n" GET("/b"));
	ck_assert_int_eq(buf_append(&r.log, "", 1), 0);
	ck_assert_ptr_nonnull(strstr(r.log.data, "out GET /a 0 error "));
	ck_assert_ptr_nonnull(strstr(r.log.data, "out GET /b 1 [Host=h]\n"));
	ck_assert_uint_eq(flow_stats(r.flow)->resyncs, 0);
	r.log.len = 0;

	/* a bad chunk: the rest of the record is foreign, the next one begins a message */
	call(&r, IN, CHUNKED "3\r\nabc\r\nzz\r\nfoo bar\r\n");
	call(&r, OUT, GET("/c"));
	call(&r, IN, OK(1) "c");
	ck_assert_int_eq(buf_append(&r.log, "", 1), 0);
	ck_assert_ptr_nonnull(
		strstr(r.log.data, "in 200 1 [Transfer-Encoding=chunked] body abc for GET /a  "
				   "error "));
	ck_assert_ptr_nonnull(strstr(r.log.data,
		"out GET /c 1 [Host=h]\nin 200 1 [Content-Length=1] body c for GET /c h\n"));
	ck_assert_uint_eq(flow_stats(r.flow)->resyncs, 1);
	ck_assert_uint_eq(flow_stats(r.flow)->faults, 2);
	r.log.len = 0;

	/* garbage between messages */
	call(&r, OUT, "\001\002\003");
	call(&r, OUT, GET("/d"));
	expect(&r, "out GET /d 1 [Host=h]\n");
	/* no server takes it for a request, but it means to be one */
	call(&r, OUT, " GET /odd HTTP/1.1\r\nHost: h\r\n\r\n");
	ck_assert_int_eq(buf_append(&r.log, "", 1), 0);
	ck_assert_ptr_nonnull(strstr(r.log.data, " error malformed start line\n"));
	r.log.len = 0;
	/* where two readers may see different ends, only what is certainly a message begins one */
	call(&r, OUT,
		"POST /f HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 12\r\n\r\n"
		"FOO /g HTTP/1.1\r\nHost: h\r\n\r\n");
	call(&r, OUT, GET("/h"));
	ck_assert_int_eq(buf_append(&r.log, "", 1), 0);
	ck_assert_ptr_nonnull(strstr(r.log.data, "out POST /f 3 "));
	ck_assert_ptr_null(strstr(r.log.data, "FOO"));
	ck_assert_ptr_nonnull(strstr(r.log.data, "out GET /h 1 [Host=h]\n"));
	r.log.len = 0;
	/* a missing Host leaves no doubt about the end */
	call(&r, OUT, "FOO /i HTTP/1.1\r\n\r\nBAR /j HTTP/1.1\r\n\r\n");
	expect(&r, "out FOO /i 0 error missing or invalid host\n"
		   "out BAR /j 0 error missing or invalid host\n");
	/* two faults in one */
	call(&r, OUT, "POST /e HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc");
	finish_dir(&r, CAPTURE_BOTH, 0);
	ck_assert_int_eq(buf_append(&r.log, "", 1), 0);
	ck_assert_ptr_nonnull(strstr(r.log.data, "; " FLOW_ERROR_ENDED "\n"));
	rig_done(&r);
}
END_TEST

START_TEST(head_limit)
{
	const char *text = "GET /123456789 HTTP/1.1\r\nHost: h\r\nA: 123456789\r\n\r\n";
	struct flow_options options;
	uint64_t random = 1;

	flow_options_default(&options);
	options.head_bytes = (uint32_t)strlen(text);
	for (int fits = 1; fits >= 0; fits--) {
		for (size_t cut = 1; cut < strlen(text); cut++) {
			struct rig r;

			options.head_bytes = (uint32_t)strlen(text) - !fits;
			rig_options(&r, &options);
			calln(&r, OUT, text, cut);
			call(&r, OUT, text + cut);
			ck_assert_uint_eq(r.messages, 1);
			ck_assert_uint_eq(flow_stats(r.flow)->faults, !fits);
			ck_assert_uint_eq(flow_stats(r.flow)->resyncs, !fits);
			call(&r, OUT, "GET / HTTP/1.0\r\n\r\n");
			ck_assert_uint_eq(r.messages, 2);
			rig_done(&r);
		}
	}
	/* a head that never ends, byte by byte */
	for (int i = 0; i < 2; i++) {
		struct rig r;

		options.head_bytes = 65536;
		rig_options(&r, &options);
		call(&r, OUT, i ? "GET /" : "A");
		for (int n = 0; n < 70000; n++)
			call(&r, OUT, i ? (random_next(&random) % 3 ? "a: b" : "\r\n") : "A");
		ck_assert_uint_le(r.messages, 6);
		ck_assert_uint_le(flow_stats(r.flow)->buffered, 70000);
		rig_done(&r);
	}
}
END_TEST

/* ---- limits ---- */

START_TEST(eviction)
{
	struct flow_options options;
	struct rig r;
	uint32_t seq;

	flow_options_default(&options);
	options.max_connections = 2;
	rig_options(&r, &options);
	call(&r, OUT, "POST /1 HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc");
	seq = r.seq[OUT];
	r.connection = 2;
	r.first[0] = r.first[1] = true;
	call(&r, OUT, "GET /2 HTTP/1.1\r\nHost: h\r\nX-La");
	r.connection = 1;
	r.seq[OUT] = seq;
	r.now += SECOND;
	call(&r, OUT, "d");
	expect(&r, "");
	/* the one without a record for longest goes */
	r.connection = 3;
	r.first[0] = r.first[1] = true;
	call(&r, OUT, GET("/3"));
	ck_assert_int_eq(buf_append(&r.log, "", 1), 0);
	ck_assert_ptr_nonnull(strstr(r.log.data, "out GET /2 "));
	ck_assert_ptr_nonnull(strstr(r.log.data, FLOW_ERROR_EVICTED "\nout GET /3 1 [Host=h]\n"));
	r.log.len = 0;
	ck_assert_uint_eq(flow_stats(r.flow)->connections, 2);
	ck_assert_uint_eq(flow_stats(r.flow)->evicted, 1);
	for (int i = 0; i < 1000; i++) {
		r.connection++;
		call(&r, OUT, GET("/n"));
	}
	ck_assert_uint_eq(flow_stats(r.flow)->connections, 2);
	ck_assert_uint_eq(flow_stats(r.flow)->connections_total, 1003);
	rig_done(&r);
}
END_TEST

START_TEST(idle)
{
	struct flow_options options;
	struct rig r;

	flow_options_default(&options);
	options.idle_ms = 1000;
	rig_options(&r, &options);
	r.now = SECOND;
	call(&r, OUT, "POST /1 HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc");
	r.connection = 2;
	r.now += SECOND / 2;
	call(&r, OUT, GET("/2"));
	r.log.len = 0;
	flow_tick(r.flow, 2 * SECOND);
	ck_assert_uint_eq(flow_stats(r.flow)->connections, 2);
	flow_tick(r.flow, 2 * SECOND + 1);
	ck_assert_uint_eq(flow_stats(r.flow)->connections, 1);
	ck_assert_uint_eq(flow_stats(r.flow)->expired, 1);
	expect(&r,
		"out POST /1 2 [Host=h,Content-Length=9] body abc error " FLOW_ERROR_EXPIRED "\n");
	flow_tick(r.flow, 1); /* a clock that is behind */
	ck_assert_uint_eq(flow_stats(r.flow)->connections, 1);
	rig_done(&r);

	options.idle_ms = 0;
	rig_options(&r, &options);
	call(&r, OUT, GET("/1"));
	flow_tick(r.flow, UINT64_MAX);
	ck_assert_uint_eq(flow_stats(r.flow)->connections, 1);
	rig_done(&r);
}
END_TEST

START_TEST(body_limit)
{
	struct flow_options options;

	for (uint32_t limit = 0; limit < 14; limit++) {
		for (size_t cut = 0; cut < 12; cut++) {
			const char *body = "hello, world";
			char want[200];
			struct rig r;

			flow_options_default(&options);
			options.body_bytes = limit;
			rig_options(&r, &options);
			call(&r, IN, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 12\r\n\r\n");
			calln(&r, IN, body, cut);
			call(&r, IN, body + cut);
			snprintf(want, sizeof(want),
				"in POST / 2 [Host=h,Content-Length=12] body %.*s%s\n", (int)limit,
				body, limit < 12 ? " of 12" : "");
			expect(&r, want);
			rig_done(&r);
		}
	}
}
END_TEST

START_TEST(memory)
{
	struct flow_options options;
	const struct flow_stats *s;
	struct rig r;

	flow_options_default(&options);
	options.buffer_bytes = 8192;
	rig_options(&r, &options);
	s = flow_stats(r.flow);
	/* unfinished heads of many: those that are unfinished for longest go */
	for (int i = 0; i < 100; i++) {
		r.connection = 100 + (unsigned)i;
		r.first[0] = r.first[1] = true;
		call(&r, OUT, "GET /slow HTTP/1.1\r\nHost: h\r\nX-Slow: ");
		ck_assert_uint_le(s->buffered, options.buffer_bytes);
		check_ledger(r.flow);
	}
	ck_assert_uint_gt(s->over_memory, 0);
	ck_assert_uint_eq(s->parsed[0], s->over_memory);
	ck_assert_uint_eq(s->faults, s->over_memory);
	r.log.len = 0;
	/* somebody else still gets through */
	r.connection = 1;
	r.first[0] = r.first[1] = true;
	call(&r, OUT, "GET /quick HTTP/1.1\r\n");
	call(&r, OUT, "Host: h\r\n\r\n");
	call(&r, IN, OK(2));
	call(&r, IN, "ok");
	ck_assert_int_eq(buf_append(&r.log, "", 1), 0);
	ck_assert_ptr_nonnull(strstr(r.log.data, "out GET /quick 1 [Host=h]\n"));
	ck_assert_ptr_nonnull(
		strstr(r.log.data, "in 200 1 [Content-Length=2] body ok for GET /quick h\n"));
	rig_done(&r);

	/* a body is cut before a message is given up */
	options.buffer_bytes = 2000;
	rig_options(&r, &options);
	s = flow_stats(r.flow);
	call(&r, OUT, "POST /big HTTP/1.1\r\nHost: h\r\nContent-Length: 4000\r\n\r\n");
	for (int i = 0; i < 1000; i++)
		call(&r, OUT, "data");
	ck_assert_uint_eq(s->over_memory, 1);
	ck_assert_uint_eq(s->faults, 0);
	ck_assert_uint_eq(r.messages, 1);
	ck_assert_int_eq(buf_append(&r.log, "", 1), 0);
	ck_assert_ptr_nonnull(strstr(r.log.data, " of 4000\n"));
	rig_done(&r);

	/* not even the head has room: it is reported at once, and the framing is kept */
	options.buffer_bytes = 100;
	rig_options(&r, &options);
	s = flow_stats(r.flow);
	call(&r, OUT, "POST /big HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nda");
	call(&r, OUT, "ta" GET("/next"));
	expect(&r, "out POST /big 2 [Host=h,Content-Length=4] body da error " FLOW_ERROR_MEMORY "\n"
		   "out GET /next 1 [Host=h]\n");
	ck_assert_uint_eq(s->bytes_unparsed, 2);
	/* its request cannot be remembered either */
	call(&r, IN, OK(0) OK(0) OK(0));
	ck_assert_uint_eq(s->unpaired, 3);
	ck_assert_uint_eq(s->buffered, 0);
	/* packets that cannot be held cost what is before them */
	packet(&r, OUT, r.seq[OUT] + 100,
		"GET /later HTTP/1.1\r\nHost: a-name-of-some-length.example.net\r\n\r\n");
	ck_assert_uint_eq(s->gap_bytes, 100);
	rig_done(&r);
}
END_TEST

/* A head that is cut takes memory, for its request, from another one: both are parsed at a time. */
START_TEST(memory_nested)
{
	struct flow_options options;
	struct rig r;

	flow_options_default(&options);
	options.buffer_bytes = 1200;
	rig_options(&r, &options);
	call(&r, OUT, "GET /first HTTP/1.1\r\nOne: 1\r\nTwo: 2\r\n");
	r.connection = 2;
	call(&r, IN, "GET /second HTTP/1.1\r\nHost: s\r\n");
	r.log.len = 0;
	r.connection = 2;
	ck_assert_uint_eq(flow_stats(r.flow)->over_memory, 0);
	finish_dir(&r, CAPTURE_BOTH, 0);
	ck_assert_uint_eq(flow_stats(r.flow)->over_memory, 1);
	expect(&r, "out GET /first 2 [One=1,Two=2] error missing or invalid host; " //
		FLOW_ERROR_MEMORY "\n"
		   "in GET /second 1 [Host=s] error " FLOW_ERROR_ENDED "\n");
	rig_done(&r);
}
END_TEST

START_TEST(memory_held)
{
	struct flow_options options;
	const struct flow_stats *s;
	struct rig r;

	flow_options_default(&options);
	options.buffer_bytes = 1100;
	rig_options(&r, &options);
	s = flow_stats(r.flow);
	/* a packet that waits, and what it waits behind, make way for another's head */
	packet(&r, IN, 5000, OK(9) "ab");
	ck_assert_uint_gt(s->buffered, 0);
	packet(&r, IN, 5000 + (uint32_t)strlen(OK(9)) + 4, "efg");
	r.connection = 2;
	call(&r, OUT, "GET /x HTTP/1.1\r\nHo");
	expect(&r, "in 200 1 [Content-Length=9] body ab error " FLOW_ERROR_MEMORY "\n");
	ck_assert_uint_eq(s->bytes_unparsed, 3);
	ck_assert_uint_eq(s->over_memory, 1);
	/* the first stream goes on behind the packet */
	r.connection = 1;
	packet(&r, IN, 5000 + (uint32_t)strlen(OK(9)) + 7, OK(1) "x");
	expect(&r, "in 200 1 [Content-Length=1] body x\n");
	ck_assert_uint_eq(s->gap_bytes, 0);
	rig_done(&r);

	/* nobody else has anything: a head that grows, and one that begins */
	options.buffer_bytes = 700;
	rig_options(&r, &options);
	s = flow_stats(r.flow);
	call(&r, OUT, "GET /grow HTTP/1.1\r\nHost: h\r\nX: ");
	for (int i = 0; i < 20; i++)
		call(&r, OUT, "0123456789012345678901234567890123456789");
	ck_assert_uint_eq(s->over_memory, 1);
	ck_assert_int_eq(buf_append(&r.log, "", 1), 0);
	ck_assert_ptr_nonnull(strstr(r.log.data, "out GET /grow "));
	ck_assert_ptr_nonnull(strstr(r.log.data, FLOW_ERROR_MEMORY));
	r.log.len = 0;
	rig_done(&r);

	options.buffer_bytes = 300;
	rig_options(&r, &options);
	s = flow_stats(r.flow);
	call(&r, OUT, "GET /begin HTTP/1.1\r\nHost: h\r\nX: ");
	call(&r, OUT, GET("/next"));
	ck_assert_int_eq(buf_append(&r.log, "", 1), 0);
	ck_assert_ptr_nonnull(strstr(r.log.data, "out GET /begin "));
	ck_assert_ptr_nonnull(strstr(r.log.data, FLOW_ERROR_MEMORY "\nout GET /next 1 [Host=h]\n"));
	rig_done(&r);
}
END_TEST

static int allocations_left;

static void *failing_realloc(void *old, size_t size)
{
	return allocations_left-- == 0 ? NULL : realloc(old, size);
}

/* Each allocation fails once: nothing but messages may be lost by it, and all are accounted for. */
START_TEST(no_memory)
{
	struct flow_options options;
	uint64_t all = 0;
	bool failed = true;

	flow_options_default(&options);
	flow_realloc = failing_realloc;
	for (int n = 0; failed; n++) {
		struct rig r = {.log = BUF_INIT(1 << 20), .seq = {1000, 5000}};
		struct err err;

		allocations_left = n;
		if (flow_new(&options, on_message, &r, &r.flow, &err) < 0) {
			ck_assert_int_eq(err.code, ENOMEM);
			ck_assert_ptr_null(r.flow);
			continue;
		}
		for (unsigned id = 1; id <= 300; id++) {
			r.connection = id;
			r.first[0] = r.first[1] = true;
			call(&r, OUT, "GET /a HTTP/1.1\r\nHo");
			call(&r, OUT, "st: h\r\n\r\n");
			call(&r, IN, OK(1000) "abc");
			for (int i = 0; i < 100 && id < 3; i++)
				call(&r, IN, "0123456789");
			packet(&r, OUT, r.seq[OUT] + 10, GET("/early"));
			if (id > 3)
				continue;
			packet(&r, OUT, r.seq[OUT], "0123456789");
			r.seq[OUT] += 10 + (uint32_t)strlen(GET("/early"));
			finish_dir(&r, CAPTURE_BOTH, 0);
		}
		check_ledger(r.flow);
		flow_finish(r.flow);
		ck_assert_uint_ge(flow_stats(r.flow)->connections_total, 299);
		failed = allocations_left < 0;
		if (!failed)
			all = r.messages;
		else
			ck_assert_uint_ge(r.messages, 598);
		rig_done(&r);
	}
	flow_realloc = realloc;
	ck_assert_uint_ge(all, 600);
}
END_TEST

START_TEST(freed_unfinished)
{
	struct rig r;

	rig_init(&r);
	call(&r, OUT,
		GET("/a") GET("/b") "POST /c HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\na");
	call(&r, IN, OK(9) "abc");
	r.connection = 2;
	call(&r, OUT, "GET /d HTT");
	packet(&r, IN, 77, "ahead");
	r.log.len = 0;
	check_ledger(r.flow);
	ck_assert_uint_gt(flow_stats(r.flow)->bytes_unfinished, 0);
	flow_free(r.flow);
	expect(&r, "");
	buf_done(&r.log);
}
END_TEST

/* A connection between messages costs its slot, and nothing else. */
START_TEST(many_idle)
{
	struct rig r;

	ck_assert_uint_le(sizeof(struct conn), 512);
	rig_init(&r);
	for (unsigned i = 1; i <= 10000; i++) {
		r.connection = i;
		r.seq[0] = r.seq[1] = i;
		r.first[0] = r.first[1] = true;
		call(&r, OUT, GET("/a"));
		call(&r, IN, OK(2));
		call(&r, IN, "hi\r\n");
	}
	ck_assert_uint_eq(flow_stats(r.flow)->connections, 10000);
	ck_assert_uint_eq(flow_stats(r.flow)->buffered, 0);
	ck_assert_uint_eq(flow_stats(r.flow)->parsed[HTTP_REQUEST], 10000);
	ck_assert_uint_eq(flow_stats(r.flow)->parsed[HTTP_RESPONSE], 10000);
	ck_assert_uint_eq(flow_stats(r.flow)->unpaired, 0);
	rig_done(&r);
}
END_TEST

/* ---- records that lie ---- */

START_TEST(bad_records)
{
	struct capture_record good;
	struct rig r;

	rig_init(&r);
	good = record_of(&r, OUT, 1, 4);
	for (int i = 0; i < 16; i++) {
		struct capture_record rec = good;

		switch (i) {
		case 0:
			rec.version++;
			break;
		case 1:
			rec.type = CAPTURE_CLOCK;
			break;
		case 2:
			rec.type = 0;
			break;
		case 3:
			rec.direction = CAPTURE_BOTH;
			break;
		case 4:
			rec.direction = 255;
			break;
		case 5:
			rec.size++;
			break;
		case 6:
			rec.size = 0;
			break;
		case 7:
			rec.captured++;
			break;
		case 8:
			rec.captured = CAPTURE_DATA_MAX + 1;
			rec.size = sizeof(rec) + rec.captured;
			rec.length = rec.captured;
			break;
		case 9:
			rec.captured = UINT32_MAX - 135;
			rec.size = 0;
			rec.length = UINT32_MAX;
			break;
		case 10:
			rec.length = 3;
			break;
		case 11:
			rec.connection = 0;
			break;
		case 12:
			rec.family = AF_UNIX;
			break;
		case 13:
			memset(rec.comm, 'x', sizeof(rec.comm));
			break;
		case 14:
			memset(rec.interface, 'x', sizeof(rec.interface));
			break;
		case 15:
			rec.flags &= ~(uint32_t)CAPTURE_F_SEQ;
			break;
		}
		flow_record(r.flow, &rec, "GET ", WALL);
		ck_assert_uint_eq(flow_stats(r.flow)->records_bad, i + 1);
	}
	ck_assert_uint_eq(flow_stats(r.flow)->connections_total, 0);
	ck_assert_uint_eq(flow_stats(r.flow)->bytes, 0);
	flow_record(r.flow, &good, "GET ", WALL);
	ck_assert_uint_eq(flow_stats(r.flow)->records_bad, 16);
	ck_assert_uint_eq(flow_stats(r.flow)->bytes, 4);
	rig_done(&r);
}
END_TEST

START_TEST(bad_options)
{
	struct flow *flow = NULL;
	struct flow_options options;
	struct err err;

	for (int i = 0; i < 6; i++) {
		flow_options_default(&options);
		switch (i) {
		case 0:
			options.max_connections = 0;
			break;
		case 1:
			options.head_bytes = 0;
			break;
		case 2:
			options.max_fields = 0;
			break;
		case 3:
			options.max_fields = 32768;
			break;
		case 4:
			options.max_pending = 0;
			break;
		case 5:
			options.head_bytes = UINT32_MAX;
			break;
		}
		err.text[0] = '\0';
		ck_assert_int_eq(flow_new(&options, on_message, NULL, &flow, &err), -EINVAL);
		ck_assert_uint_gt(strlen(err.text), 0);
		ck_assert_ptr_null(flow);
	}
	flow_free(NULL);
	flow_freep(&flow);
}
END_TEST

static void on_peer(void *ctx, const struct dump_message *m)
{
	struct dump_conn *c = ctx;

	*c = *m->conn;
}

START_TEST(peers)
{
	struct flow_options options;
	struct capture_record rec;
	struct dump_conn c;
	struct rig r = {.connection = 7};
	struct err err;

	flow_options_default(&options);
	ck_assert_int_eq(flow_new(&options, on_peer, &c, &r.flow, &err), 0);
	rec = record_of(&r, IN, 1, 18);
	flow_record(r.flow, &rec, "GET / HTTP/1.0\r\n\r\n", WALL);
	ck_assert_str_eq(c.local.ip, "10.0.0.1");
	ck_assert_uint_eq(c.local.ip_len, 8);
	ck_assert_uint_eq(c.local.port, 40000);
	ck_assert_str_eq(c.remote.ip, "10.0.0.2");
	ck_assert_uint_eq(c.remote.port, 80);
	ck_assert_uint_eq(c.pid, 42);
	ck_assert_str_eq(c.comm, "curl");
	ck_assert_str_eq(c.interface, "eth0");
	/* handed to another process */
	rec.seq += 18;
	rec.pid = 43;
	memcpy(rec.comm, "nginx\0", 6);
	flow_record(r.flow, &rec, "GET / HTTP/1.0\r\n\r\n", WALL);
	ck_assert_uint_eq(c.pid, 43);
	ck_assert_str_eq(c.comm, "nginx");

	rec.connection = 8;
	rec.family = AF_INET6;
	memset(rec.local_addr, 0, 16);
	memset(rec.remote_addr, 0xff, 16);
	rec.local_addr[15] = 1;
	rec.pid = 0;
	memset(rec.comm, 0, sizeof(rec.comm));
	memset(rec.interface, 0, sizeof(rec.interface));
	flow_record(r.flow, &rec, "GET / HTTP/1.0\r\n\r\n", WALL);
	ck_assert_str_eq(c.local.ip, "::1");
	ck_assert_str_eq(c.remote.ip, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
	ck_assert_uint_eq(c.remote.ip_len, 39);
	ck_assert_uint_eq(c.pid, 0);
	ck_assert_str_eq(c.comm, "");
	/* told by a later record */
	rec.seq += 18;
	rec.pid = 44;
	rec.comm[0] = 'x';
	rec.interface[0] = 'l';
	flow_record(r.flow, &rec, "GET / HTTP/1.0\r\n\r\n", WALL);
	ck_assert_uint_eq(c.pid, 44);
	ck_assert_str_eq(c.comm, "x");
	ck_assert_str_eq(c.interface, "l");
	flow_free(r.flow);
}
END_TEST

/* ---- exchanges ---- */

struct ids {
	uint64_t id[16];
	unsigned n;
};

static void on_exchange(void *ctx, const struct dump_message *m)
{
	struct ids *ids = ctx;

	MUST(ids->n < ARRAY_SIZE(ids->id));
	ids->id[ids->n++] = m->exchange_id;
}

/* One end of a connection. client: it opened it, and sends the requests. */
static struct ids ids_of(bool client, uint32_t client_seq, uint32_t server_seq, bool known)
{
	static const char post[] = "POST /2 HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n"
				   "Content-Length: 2\r\n\r\n";
	unsigned up = client ? OUT : IN, down = !up;
	struct flow_options options;
	struct ids ids = {.n = 0};
	struct rig r = {.connection = 7, .first = {true, true}};
	struct err err;

	r.seq[up] = client_seq;
	r.seq[down] = server_seq;
	/* as the kernel tells it: a SYN was sent by the client, and is counted there */
	if (known)
		r.isn = client ? client_seq - 1 - server_seq : server_seq - client_seq;
	flow_options_default(&options);
	MUST(flow_new(&options, on_exchange, &ids, &r.flow, &err) == 0);
	call(&r, up, "GET /1 HT");
	call(&r, up, "TP/1.1\r\nHost: h\r\n\r\n");
	call(&r, down, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
	call(&r, up, post);
	call(&r, down, "HTTP/1.1 100 Continue\r\n\r\n");
	call(&r, up, "ok");
	call(&r, down, "HTTP/1.1 204 No Content\r\n\r\n");
	/* two at once */
	call(&r, up, "GET /3 HTTP/1.1\r\nHost: h\r\n\r\nGET /4 HTTP/1.1\r\nHost: h\r\n\r\n");
	call(&r, down, "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n");
	/* nobody asked */
	call(&r, down, "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n");
	flow_free(r.flow);
	return ids;
}

START_TEST(exchange_ids)
{
	/* in the order of their ends: GET 200 100 POST 204 GET GET 204 204 408 */
	static const unsigned of[] = {0, 0, 1, 1, 1, 2, 3, 2, 3};
	struct ids a = ids_of(true, 1000, 5000, true), b = ids_of(false, 1000, 5000, true);
	/* where the numbers wrap; a server's end whose number is like the client's here */
	struct ids c = ids_of(true, -10U, 5U, true), d = ids_of(false, -10U, 5U, true);
	struct ids e = ids_of(true, 1000, 5001, true), f = ids_of(true, 1000, 5000, false);
	uint64_t id[4];

	ck_assert_uint_eq(a.n, 10);
	for (unsigned i = 0; i < 9; i++) {
		id[of[i]] = a.id[i];
		for (unsigned k = 0; k < 4; k++)
			ck_assert(k >= of[i] || id[k] != a.id[i]);
	}
	for (unsigned i = 0; i < 10; i++) {
		ck_assert_uint_eq(a.id[i], i < 9 ? id[of[i]] : 0);
		ck_assert_uint_eq(b.id[i], a.id[i]);
		ck_assert_uint_eq(d.id[i], c.id[i]);
		ck_assert(i == 9 || (c.id[i] != a.id[i] && e.id[i] != a.id[i] && a.id[i] != 0));
		ck_assert_uint_eq(f.id[i], 0);
	}
}
END_TEST

/* ---- many connections at once: no byte of one in another ---- */

#define TALKERS	  64
#define EXCHANGES 20

struct talker {
	char *bytes[2]; /* what each direction says in all */
	size_t len[2], sent[2];
	size_t end[2][EXCHANGES]; /* of each message */
	unsigned expected[2];	  /* number of the next message in each direction */
};

struct crowd {
	struct talker talkers[TALKERS];
	uint64_t messages;
	bool lossy;
};

static char body_byte(unsigned id, unsigned n, size_t i)
{
	return (char)('!' + (id * 31 + n * 17 + i * 7 + i / 64) % 90);
}

static uint64_t field_number(const struct dump_message *m, const char *name)
{
	for (uint32_t i = 0; i < m->head->n_fields; i++) {
		const struct http_field *f = &m->head->fields[i];
		uint64_t value;

		if (span_eq(span_of(m->bytes + f->name.off, f->name.len), span_str(name))) {
			MUST(num_parse(span_of(m->bytes + f->value.off, f->value.len), 0,
				     UINT32_MAX, &value) == 0);
			return value;
		}
	}
	return UINT64_MAX;
}

static void on_crowd(void *ctx, const struct dump_message *m)
{
	struct crowd *crowd = ctx;
	unsigned id = m->conn->remote.port, dir = m->direction;
	uint64_t n = field_number(m, "N"), of = field_number(m, "Id"), full = field_number(m, "L");

	crowd->messages++;
	MUST(id < TALKERS);
	if (!crowd->lossy) {
		MUST(of == id);
		MUST(n == crowd->talkers[id].expected[dir]++);
		MUST(!m->error);
		MUST(m->body_bytes == full);
		MUST(m->body.len == MIN(full, 4096));
	}
	/* with losses, a head may be cut, and a body have holes: told by flow */
	if (of == UINT64_MAX || n == UINT64_MAX)
		return;
	MUST(of == id);
	if (m->gap_bytes == 0) {
		for (size_t i = 0; i < m->body.len; i++)
			MUST(m->body.p[i] == body_byte(id, (unsigned)n, i));
	}
	if (m->request_path.len > 0 && !crowd->lossy) {
		char path[40];

		snprintf(path, sizeof(path), "/%u/%u", id, (unsigned)n);
		MUST(span_eq(m->request_path, span_str(path)));
	}
}

static void say(struct buf *out, unsigned id, unsigned n, bool request, uint64_t *random)
{
	size_t most = 1 + random_next(random) % 500;
	size_t len = random_next(random) % 3 == 0 ? random_next(random) % 9000
						  : random_next(random) % 300;
	bool chunked = random_next(random) % 2;

	if (request)
		MUST(buf_printf(out, "POST /%u/%u HTTP/1.1\r\nHost: h\r\n", id, n) == 0);
	else
		log_text(out, "HTTP/1.1 200 OK\r\n");
	MUST(buf_printf(out, "Id: %u\r\nN: %u\r\nL: %zu\r\n", id, n, len) == 0);
	if (chunked)
		log_text(out, "Transfer-Encoding: chunked\r\n\r\n");
	else
		MUST(buf_printf(out, "Content-Length: %zu\r\n\r\n", len) == 0);
	for (size_t i = 0; i < len;) {
		size_t run = chunked ? MIN(most, len - i) : len;

		if (chunked)
			MUST(buf_printf(out, "%zx\r\n", run) == 0);
		for (size_t end = i + run; i < end; i++) {
			char ch = body_byte(id, n, i);

			MUST(buf_append(out, &ch, 1) == 0);
		}
		if (chunked)
			log_text(out, "\r\n");
	}
	if (chunked)
		log_text(out, "0\r\n\r\n");
}

START_TEST(crowds)
{
	static struct crowd crowd;
	struct rig r = {.connection = 1};
	struct flow_options options;
	uint64_t random = 42 + (unsigned)_i;
	bool packets = _i & 1;
	struct err err;
	bool more = true;

	memset(&crowd, 0, sizeof(crowd));
	crowd.lossy = _i & 2;
	flow_options_default(&options);
	ck_assert_int_eq(flow_new(&options, on_crowd, &crowd, &r.flow, &err), 0);
	for (unsigned id = 0; id < TALKERS; id++) {
		for (unsigned dir = 0; dir < 2; dir++) {
			struct buf out = BUF_INIT(1 << 24);

			for (unsigned n = 0; n < EXCHANGES; n++) {
				say(&out, id, n, dir == OUT, &random);
				crowd.talkers[id].end[dir][n] = out.len;
			}
			crowd.talkers[id].bytes[dir] = out.data;
			crowd.talkers[id].len[dir] = out.len;
		}
	}
	while (more) {
		more = false;
		for (unsigned i = 0; i < 4 * TALKERS; i++) {
			unsigned id = random_next(&random) % TALKERS, dir = i & 1;
			struct talker *t = &crowd.talkers[id];
			size_t left = t->len[dir] - t->sent[dir], n, back;
			uint32_t seq = (uint32_t)t->sent[dir] + 0xffff0000;
			struct capture_record rec;

			n = 1 + random_next(&random) % 3000;
			n = MIN(left, n);
			/* a response never before its request, in packets that come in any order */
			for (unsigned e = 0; dir == IN && e < EXCHANGES; e++) {
				if (t->sent[OUT] >= t->end[OUT][e])
					continue;
				left = (e ? t->end[IN][e - 1] : 0) - t->sent[IN];
				n = MIN(left, n);
				break;
			}
			if (left == 0)
				continue;
			more = true;
			r.connection = id + 1;
			r.now += 1000;
			if (crowd.lossy && random_next(&random) % 40 == 0) {
				t->sent[dir] += n;
				continue;
			}
			if (packets) {
				/* the second half before the first, now and then */
				size_t first = n;

				if (n > 1 && t->sent[dir] && random_next(&random) % 2) {
					first = n / 2;
					rec = record_of(&r, dir, seq + (uint32_t)first, n - first);
					rec.remote_port = (uint16_t)id;
					rec.flags |= CAPTURE_F_PACKET;
					give(&r, rec, t->bytes[dir] + t->sent[dir] + first);
				}
				rec = record_of(&r, dir, seq, first);
				rec.remote_port = (uint16_t)id;
				rec.flags |= CAPTURE_F_PACKET;
				if (t->sent[dir] == 0)
					rec.flags |= CAPTURE_F_FIRST;
				give(&r, rec, t->bytes[dir] + t->sent[dir]);
				t->sent[dir] += n;
				continue;
			}
			/* calls repeat what was not taken */
			back = random_next(&random) % 4 ? 0 : random_next(&random) % 100;
			back = MIN(back, t->sent[dir]);
			rec = record_of(&r, dir, seq - (uint32_t)back, n + back);
			rec.remote_port = (uint16_t)id;
			if (t->sent[dir] == 0)
				rec.flags |= CAPTURE_F_FIRST;
			give(&r, rec, t->bytes[dir] + t->sent[dir] - back);
			t->sent[dir] += n;
		}
		check_ledger(r.flow);
		if (more)
			continue;
		for (unsigned id = 0; id < TALKERS; id++)
			for (unsigned dir = 0; dir < 2; dir++)
				more |= crowd.talkers[id].sent[dir] < crowd.talkers[id].len[dir];
	}
	flow_finish(r.flow);
	check_ledger(r.flow);
	ck_assert_uint_eq(flow_stats(r.flow)->buffered, 0);
	if (!crowd.lossy) {
		ck_assert_uint_eq(crowd.messages, TALKERS * EXCHANGES * 2);
		ck_assert_uint_eq(flow_stats(r.flow)->bytes_unparsed, 0);
	} else {
		ck_assert_uint_gt(crowd.messages, TALKERS * EXCHANGES / 2);
		ck_assert_uint_gt(flow_stats(r.flow)->gap_bytes, 0);
	}
	flow_free(r.flow);
	for (unsigned id = 0; id < TALKERS; id++)
		for (unsigned dir = 0; dir < 2; dir++)
			free(crowd.talkers[id].bytes[dir]);
}
END_TEST

/* ---- messages that are left out, connections that are ignored ---- */

/* By a header of the message: "X: leave", "X: ignore". */
static enum flow_verdict on_head(void *ctx, const struct flow_head *h)
{
	struct rig *r = ctx;
	enum flow_verdict verdict = FLOW_KEEP;

	MUST(h->connection == r->connection);
	MUST(strcmp(h->conn->local.ip, "10.0.0.1") == 0 && h->conn->remote.port == 80);
	MUST(h->time_ns == (uint64_t)WALL + r->now);
	MUST(h->head->size >= 4 && memcmp(h->bytes + h->head->size - 4, "\r\n\r\n", 4) == 0);
	if (r->n_heads < ARRAY_SIZE(r->heads))
		r->heads[r->n_heads++] = h->seq;
	for (uint32_t i = 0; i < h->head->n_fields; i++) {
		const struct http_field *f = &h->head->fields[i];
		struct span value = span_of(h->bytes + f->value.off, f->value.len);

		if (span_eq(value, SPAN("leave")))
			verdict = FLOW_LEAVE_OUT;
		else if (span_eq(value, SPAN("ignore")))
			verdict = FLOW_IGNORE;
	}
	return verdict;
}

static void rig_asked(struct rig *r)
{
	rig_init(r);
	flow_on_head(r->flow, on_head, r);
}

#define KEPT	 "GET /kept HTTP/1.1\r\nHost: h\r\n\r\n"
#define LOG_KEPT "out GET /kept 1 [Host=h]\n"
#define POST(mark)                                                                 \
	"POST /p HTTP/1.1\r\nHost: h\r\nX: " mark "\r\nContent-Length: 40\r\n\r\n" \
	"0123456789012345678901234567890123456789"
#define REPLY	  "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
#define LOG_REPLY "in 200 1 [Content-Length=2] body ok"

/* Where each of several messages begins, in whatever pieces they come. */
START_TEST(head_seq)
{
	static const char text[] =
		"\r\n" KEPT POST("no") "\r\n" KEPT "POST / HTTP/1.1\r\nHost: h\r\nTransfer-"
				       "Encoding: chunked\r\n\r\n" CHUNKS KEPT;
	const size_t len = sizeof(text) - 1;
	const uint32_t base = UINT32_MAX - 60; /* it wraps around */
	uint32_t at[5] = {2, 2 + sizeof(KEPT) - 1};

	at[2] = at[1] + (uint32_t)sizeof(POST("no")) - 1 + 2;
	at[3] = at[2] + (uint32_t)sizeof(KEPT) - 1;
	at[4] = (uint32_t)(len - (sizeof(KEPT) - 1));
	for (size_t i = 0; i <= len; i++) {
		struct rig r;

		rig_asked(&r);
		r.seq[OUT] = base;
		calln(&r, OUT, text, i);
		calln(&r, OUT, text + i, len - i);
		ck_assert_uint_eq(r.n_heads, 5);
		for (unsigned k = 0; k < 5; k++)
			ck_assert_uint_eq(r.heads[k], base + at[k]);
		rig_done(&r);
	}
	for (size_t step = 1; step <= 7; step++) {
		struct rig r;

		rig_asked(&r);
		r.seq[OUT] = base;
		for (size_t i = 0; i < len; i += step)
			calln(&r, OUT, text + i, MIN(step, len - i));
		ck_assert_uint_eq(r.n_heads, 5);
		for (unsigned k = 0; k < 5; k++)
			ck_assert_uint_eq(r.heads[k], base + at[k]);
		rig_done(&r);
	}
}
END_TEST

/* After lost bytes, packets that change places and repeats it still is what was on the wire. */
START_TEST(head_seq_faults)
{
	struct capture_record rec;
	uint32_t expected;
	struct rig r;

	rig_asked(&r);
	skip(&r, OUT, 1000);
	expected = r.seq[OUT];
	call(&r, OUT, KEPT);
	skip(&r, OUT, 77);
	call(&r, OUT, KEPT);
	/* the second half first, then the whole again */
	rec = record_of(&r, OUT, r.seq[OUT] + 10, sizeof(KEPT) - 1 - 10);
	rec.flags |= CAPTURE_F_PACKET;
	give(&r, rec, &KEPT[10]);
	rec = record_of(&r, OUT, r.seq[OUT], sizeof(KEPT) - 1);
	rec.flags |= CAPTURE_F_PACKET;
	give(&r, rec, KEPT);
	ck_assert_uint_eq(r.n_heads, 3);
	ck_assert_uint_eq(r.heads[0], expected);
	ck_assert_uint_eq(r.heads[1], expected + sizeof(KEPT) - 1 + 77);
	ck_assert_uint_eq(r.heads[2], r.seq[OUT]);
	rig_done(&r);
}
END_TEST

/* A request that says so, in any two pieces: nothing is seen of it, nor of what comes behind. */
START_TEST(ignored_request)
{
	static const char text[] = POST("ignore");
	const size_t len = sizeof(text) - 1;

	for (size_t i = 0; i <= len; i++) {
		const struct flow_stats *s;
		struct rig r;

		rig_asked(&r);
		s = flow_stats(r.flow);
		call(&r, OUT, KEPT);
		call(&r, IN, REPLY);
		calln(&r, OUT, text, i);
		calln(&r, OUT, text + i, len - i);
		call(&r, IN, REPLY);
		call(&r, OUT, KEPT "GET /half");
		call(&r, IN, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n");
		skip(&r, IN, 4000);
		call(&r, IN, REPLY);
		check_ledger(r.flow);
		ck_assert_uint_eq(s->ignored, 1);
		ck_assert_uint_eq(s->parsed[HTTP_REQUEST], 2);
		ck_assert_uint_eq(s->parsed[HTTP_RESPONSE], 1);
		ck_assert_uint_eq(s->connections_ignored, 1);
		ck_assert_uint_eq(s->bytes_parsed, strlen(KEPT REPLY));
		ck_assert_uint_eq(s->bytes_unparsed, 0);
		ck_assert_uint_eq(s->bytes_unfinished, 0);
		ck_assert_uint_eq(s->gap_bytes, 0);
		ck_assert_uint_eq(s->buffered, 0);
		ck_assert_uint_eq(r.n_heads, 3);
		finish_dir(&r, OUT, CAPTURE_F_SEQ);
		ck_assert_uint_eq(s->connections, 1);
		finish_dir(&r, IN, CAPTURE_F_SEQ);
		ck_assert_uint_eq(s->connections, 0);
		ck_assert_uint_eq(s->gap_bytes, 0);
		expect(&r, LOG_KEPT LOG_REPLY " for GET /kept h\n");
		rig_done(&r);
	}
}
END_TEST

/* An answer that says so; its request was handed out before. */
START_TEST(ignored_response)
{
	static const char text[] = "HTTP/1.1 200 OK\r\nX: ignore\r\nContent-Length: 2\r\n\r\nok";
	const size_t len = sizeof(text) - 1;

	for (size_t i = 0; i <= len; i++) {
		struct rig r;

		rig_asked(&r);
		call(&r, OUT, KEPT);
		call(&r, OUT, "POST /long HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc");
		calln(&r, IN, text, i);
		calln(&r, IN, text + i, len - i);
		call(&r, OUT, "defghi" KEPT);
		call(&r, IN, REPLY REPLY);
		/* the request whose body was under way is one as well */
		ck_assert_uint_eq(flow_stats(r.flow)->ignored, 2);
		ck_assert_uint_eq(flow_stats(r.flow)->bytes_unparsed, 0);
		ck_assert_uint_eq(flow_stats(r.flow)->buffered, 0);
		finish_dir(&r, CAPTURE_BOTH, CAPTURE_F_RESET);
		ck_assert_uint_eq(flow_stats(r.flow)->connections, 0);
		expect(&r, LOG_KEPT);
		rig_done(&r);
	}
}
END_TEST

/* The other direction is in the midst of a head, of a body; packets wait. */
START_TEST(ignored_in_the_midst)
{
	static const char *const others[] = {"HTTP/1.1 200 OK\r\nContent-Len", "HTTP/1.1 2",
		"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", "HTTP/1.1 200 OK\r\n\r\n",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\na"};

	for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
		struct capture_record rec;
		struct rig r;

		rig_asked(&r);
		call(&r, OUT, KEPT);
		call(&r, IN, others[i]);
		for (unsigned dir = 0; dir < 2; dir++) {
			rec = record_of(&r, dir, r.seq[dir] + 4000, 3);
			rec.flags |= CAPTURE_F_PACKET;
			give(&r, rec, "far");
		}
		r.log.len = 0;
		r.messages = flow_stats(r.flow)->parsed[0] + flow_stats(r.flow)->parsed[1];
		call(&r, OUT, POST("ignore"));
		ck_assert_uint_eq(flow_stats(r.flow)->bytes_unparsed, 0);
		ck_assert_uint_eq(flow_stats(r.flow)->bytes_unfinished, 0);
		ck_assert_uint_eq(flow_stats(r.flow)->buffered, 0);
		ck_assert_uint_eq(flow_stats(r.flow)->connections_ignored, 1);
		/* time passes, and nothing comes of it */
		r.now += 10 * SECOND;
		flow_tick(r.flow, r.now);
		call(&r, IN, "def" REPLY);
		expect(&r, "");
		rig_done(&r);
	}
}
END_TEST

/* The mark is in a later packet that waits for one before it. */
START_TEST(ignored_from_held)
{
	struct capture_record rec;
	struct rig r;

	rig_asked(&r);
	call(&r, OUT, KEPT);
	for (uint32_t i = 0; i < 3; i++) {
		rec = record_of(&r, OUT,
			r.seq[OUT] + (uint32_t)strlen(KEPT) + i * (uint32_t)strlen(POST("ignore")),
			strlen(POST("ignore")));
		rec.flags |= CAPTURE_F_PACKET;
		give(&r, rec, POST("ignore"));
	}
	ck_assert_uint_gt(flow_stats(r.flow)->bytes_unfinished, 0);
	call(&r, OUT, KEPT);
	ck_assert_uint_eq(flow_stats(r.flow)->ignored, 1);
	ck_assert_uint_eq(flow_stats(r.flow)->bytes_left_out, 3 * strlen(POST("ignore")));
	expect(&r, LOG_KEPT LOG_KEPT);
	rig_done(&r);
}
END_TEST

/* The kernel side was told, and sends no END of it: it takes no room for long. */
START_TEST(ignored_forgotten)
{
	const struct flow_stats *s;
	struct rig r;

	rig_asked(&r);
	s = flow_stats(r.flow);
	for (r.connection = 1; r.connection <= 3; r.connection++) {
		r.first[OUT] = r.first[IN] = true;
		call(&r, OUT, POST("ignore"));
		r.now += SECOND;
	}
	flow_tick(r.flow, r.now);
	ck_assert_uint_eq(s->connections, 3);
	/* something of the first one was still on its way */
	r.connection = 1;
	r.now += 7 * SECOND + 1;
	call(&r, IN, REPLY);
	flow_tick(r.flow, r.now);
	ck_assert_uint_eq(s->connections, 3);
	r.now += SECOND;
	flow_tick(r.flow, r.now);
	ck_assert_uint_eq(s->connections, 2);
	r.now += 10 * SECOND;
	flow_tick(r.flow, r.now);
	ck_assert_uint_eq(s->connections, 0);
	expect(&r, "");
	rig_done(&r);
}
END_TEST

/* The same again with another connection: what was ignored is no one else's. */
START_TEST(ignored_alone)
{
	struct rig r;

	rig_asked(&r);
	call(&r, OUT, POST("ignore"));
	r.connection = 2;
	r.first[OUT] = r.first[IN] = true;
	call(&r, OUT, KEPT);
	call(&r, IN, REPLY);
	expect(&r, LOG_KEPT LOG_REPLY " for GET /kept h\n");
	/* a connection that is over is forgotten */
	r.connection = 1;
	finish_dir(&r, CAPTURE_BOTH, 0);
	call(&r, OUT, KEPT);
	expect(&r, LOG_KEPT);
	rig_done(&r);
}
END_TEST

/* A request that is left out, in any two pieces: its response is, and nothing else. */
START_TEST(left_out_request)
{
	static const char text[] = POST("leave") KEPT;
	static const char replies[] = "HTTP/1.1 100 Continue\r\n\r\n"
				      "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes" REPLY;
	const size_t len = sizeof(text) - 1, reply_len = sizeof(replies) - 1;

	for (size_t i = 0; i <= len + reply_len; i++) {
		size_t a = MIN(i, len), b = i - a;
		const struct flow_stats *s;
		struct rig r;

		rig_asked(&r);
		s = flow_stats(r.flow);
		calln(&r, OUT, text, a);
		calln(&r, OUT, text + a, len - a);
		calln(&r, IN, replies, b);
		calln(&r, IN, replies + b, reply_len - b);
		ck_assert_uint_eq(s->left_out, 3);
		ck_assert_uint_eq(s->ignored, 0);
		ck_assert_uint_eq(s->parsed[HTTP_REQUEST], 2);
		ck_assert_uint_eq(s->parsed[HTTP_RESPONSE], 3);
		ck_assert_uint_eq(
			s->bytes_left_out, strlen(POST("leave")) + reply_len - strlen(REPLY));
		ck_assert_uint_eq(s->unpaired, 0);
		ck_assert_uint_eq(s->buffered, 0);
		expect(&r, LOG_KEPT LOG_REPLY " for GET /kept h\n");
		rig_done(&r);
	}
}
END_TEST

/* A response alone, one that never is complete, and one to HEAD. */
START_TEST(left_out_others)
{
	struct rig r;

	rig_asked(&r);
	call(&r, OUT, KEPT KEPT);
	call(&r, IN, "HTTP/1.1 200 OK\r\nX: leave\r\nContent-Length: 2\r\n\r\nno" REPLY);
	expect(&r, LOG_KEPT LOG_KEPT LOG_REPLY " for GET /kept h\n");
	call(&r, OUT, "HEAD / HTTP/1.1\r\nHost: h\r\nX: leave\r\n\r\n" KEPT);
	call(&r, IN, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" REPLY);
	expect(&r, LOG_KEPT LOG_REPLY " for GET /kept h\n");
	call(&r, OUT, POST("leave"));
	call(&r, IN, "HTTP/1.1 200 OK\r\nContent-Le");
	finish_dir(&r, CAPTURE_BOTH, 0);
	expect(&r, "");
	rig_done(&r);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("flow");
	TCase *streams = tcase_create("streams"), *rest = tcase_create("rest");
	SRunner *runner;
	int failed;

	tcase_set_timeout(streams, 120);
	tcase_set_timeout(rest, 120);
	tcase_add_loop_test(streams, every_split, 0, ARRAY_SIZE(styles));
	tcase_add_loop_test(streams, crowds, 0, 4);
	suite_add_tcase(suite, streams);
	tcase_add_test(rest, gap_in_body);
	tcase_add_test(rest, gap_in_chunks);
	tcase_add_test(rest, gap_in_head);
	tcase_add_test(rest, gap_between);
	tcase_add_test(rest, gap_close_delimited);
	tcase_add_test(rest, gap_unreadable);
	tcase_add_test(rest, hold_expires);
	tcase_add_test(rest, hold_many);
	tcase_add_test(rest, hold_end);
	tcase_add_test(rest, jumps);
	tcase_add_test(rest, retracted);
	tcase_add_test(rest, middle);
	tcase_add_test(rest, pair_limit);
	tcase_add_test(rest, pair_long);
	tcase_add_test(rest, pair_lost_request);
	tcase_add_test(rest, pair_missing_request);
	tcase_add_test(rest, pair_missing_exchange);
	tcase_add_test(rest, latency);
	tcase_add_test(rest, ends);
	tcase_add_test(rest, faults);
	tcase_add_test(rest, head_limit);
	tcase_add_test(rest, eviction);
	tcase_add_test(rest, idle);
	tcase_add_test(rest, body_limit);
	tcase_add_test(rest, memory);
	tcase_add_test(rest, memory_nested);
	tcase_add_test(rest, memory_held);
	tcase_add_test(rest, no_memory);
	tcase_add_test(rest, freed_unfinished);
	tcase_add_test(rest, tunnels);
	tcase_add_test(rest, many_idle);
	tcase_add_test(rest, bad_records);
	tcase_add_test(rest, bad_options);
	tcase_add_test(rest, peers);
	tcase_add_test(rest, exchange_ids);
	tcase_add_test(rest, head_seq);
	tcase_add_test(rest, head_seq_faults);
	tcase_add_test(rest, ignored_request);
	tcase_add_test(rest, ignored_response);
	tcase_add_test(rest, ignored_in_the_midst);
	tcase_add_test(rest, ignored_from_held);
	tcase_add_test(rest, ignored_alone);
	tcase_add_test(rest, ignored_forgotten);
	tcase_add_test(rest, left_out_request);
	tcase_add_test(rest, left_out_others);
	suite_add_tcase(suite, rest);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
