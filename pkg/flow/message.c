/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "pkg/flow/internal.h"

/* A partial head begins with so much room, and takes further bytes by so many: few of those behind
 * its end are copied. */
#define PARTIAL_FIRST  512
#define PARTIAL_STEP   2048
#define BODY_FIRST     512
#define START_LINE_MAX 8192

/* ---- what is kept of a body ---- */

static void keep_parked(struct flow *flow, struct conn *c, struct parked *k, struct span run)
{
	size_t need = k->m.body.len + run.len;

	if (need > k->body_cap) {
		size_t cap = MAX(MAX(need, (size_t)k->body_cap * 2), (size_t)BODY_FIRST);
		char *body = NULL;

		cap = MIN(cap, (size_t)flow->options.body_bytes);
		if (flow_charge(flow, c, cap - k->body_cap)) {
			body = flow_realloc(k->body, cap);
			if (!body)
				flow_uncharge(flow, c, cap - k->body_cap);
		}
		if (!body) {
			k->m.body_cut = true;
			flow->stats.over_memory++;
			return;
		}
		k->body = body;
		k->body_cap = (uint32_t)cap;
		k->m.body.p = body;
	}
	memcpy(k->body + k->m.body.len, run.p, run.len);
	k->m.body.len += run.len;
}

/* One run of payload. Of a message in hand, only a second one is copied. */
static void keep(struct flow *flow, struct conn *c, struct message *m, struct parked *parked,
	struct span run)
{
	m->body_bytes += run.len;
	run.len = MIN(run.len, flow->options.body_bytes - m->body.len);
	if (run.len == 0 || m->body_cut || m->verdict != FLOW_KEEP)
		return;
	if (parked) {
		keep_parked(flow, c, parked, run);
		return;
	}
	if (m->body.len == 0) {
		m->body = run;
	} else {
		if (!m->scratch)
			memcpy(flow->body, m->body.p, m->body.len);
		m->scratch = true;
		m->body.p = flow->body;
		memcpy(flow->body + m->body.len, run.p, run.len);
		m->body.len += run.len;
	}
}

/* ---- handing on ---- */

static struct span head_span(const struct pending *p, size_t off, size_t len)
{
	return span_of(p->text + off, len);
}

static const char *error_of(
	struct flow *flow, const struct message *m, const struct http_body *body)
{
	enum http_fault fault = m->head.fault != HTTP_OK || !body ? m->head.fault : body->fault;

	if (fault == HTTP_OK)
		return m->error;
	if (!m->error)
		return http_fault_text(fault);
	snprintf(flow->error, sizeof(flow->error), "%s; %s", http_fault_text(fault), m->error);
	return flow->error;
}

static void let_go(struct flow *flow, struct conn *c, struct message *m)
{
	if (m->request && !m->borrowed)
		pair_free(flow, c, m->request);
	m->request = NULL;
}

/* The message is not wanted. */
static void leave_out(struct flow *flow, struct conn *c, struct message *m)
{
	flow->stats.parsed[m->head.kind]++;
	if (m->verdict == FLOW_IGNORE)
		flow->stats.ignored++;
	else
		flow->stats.left_out++;
	flow->stats.bytes_left_out += m->raw;
	let_go(flow, c, m);
}

/* Emits and lets go of the request. body: for its fault; NULL: none. */
static void finish(struct flow *flow, struct conn *c, unsigned dir, struct message *m,
	const struct http_body *body)
{
	struct dump_message d = {
		.conn = &c->dump,
		.direction = (enum dump_direction)dir,
		.time_ns = m->when.wall_ns,
		.bytes = m->bytes,
		.head = &m->head,
		.body = m->body,
		.body_bytes = m->body_bytes,
		.gap_bytes = m->gap_bytes,
		.body_truncated = m->body.len < m->body_bytes,
		.error = error_of(flow, m, body),
		.exchange_id = m->head.kind == HTTP_REQUEST ? m->exchange_id : 0,
	};
	const struct pending *p = m->request;

	if (unlikely(m->verdict != FLOW_KEEP)) {
		leave_out(flow, c, m);
		return;
	}
	if (p) {
		d.exchange_id = p->exchange_id;
		d.request_method = head_span(p, 0, p->method_len);
		d.request_path = head_span(p, p->method_len, p->path_len);
		d.request_host = head_span(p, (size_t)p->method_len + p->path_len, p->host_len);
		if (m->when.mono_ns > p->mono_ns)
			d.latency_us = (m->when.mono_ns - p->mono_ns) / 1000;
	} else if (m->head.kind == HTTP_RESPONSE) {
		flow->stats.unpaired++;
	}
	flow->stats.parsed[m->head.kind]++;
	flow->stats.faults += d.error != NULL;
	flow->stats.bytes_parsed += m->raw;
	flow->emit(flow->emit_ctx, &d);
	let_go(flow, c, m);
}

static void parked_free(struct flow *flow, struct conn *c, struct stream *s)
{
	struct parked *k = s->parked;

	if (k->m.request)
		pair_free(flow, c, k->m.request);
	flow->stats.bytes_unfinished -= k->m.raw;
	flow_uncharge(flow, c, k->size + k->body_cap);
	free(k->body);
	free(k);
	s->parked = NULL;
}

static void partial_free(struct flow *flow, struct conn *c, struct stream *s)
{
	flow->stats.bytes_unfinished -= s->partial->len;
	flow_uncharge(flow, c, sizeof(*s->partial) + s->partial->cap);
	free(s->partial);
	s->partial = NULL;
}

/* ---- out of step ---- */

static enum stream_role role_of(const struct conn *c, unsigned dir)
{
	switch (c->streams[dir].role ? c->streams[dir].role : c->streams[!dir].role) {
	case ROLE_REQUESTS:
		return c->streams[dir].role ? ROLE_REQUESTS : ROLE_RESPONSES;
	case ROLE_RESPONSES:
		return c->streams[dir].role ? ROLE_RESPONSES : ROLE_REQUESTS;
	}
	return ROLE_UNKNOWN;
}

void message_lose(struct flow *flow, struct conn *c, unsigned dir)
{
	struct stream *s = &c->streams[dir];

	message_drop(flow, c, dir);
	if (s->state != STREAM_LOST && !c->left) {
		flow->stats.resyncs++;
		pair_lost(flow, c, role_of(c, dir));
	}
	s->state = STREAM_LOST;
}

bool message_begins(const char *p, size_t len)
{
	enum http_looks looks = len > 0 ? http_looks_like_known(p, len) : HTTP_LOOKS_OTHER;

	return looks == HTTP_LOOKS_REQUEST || looks == HTTP_LOOKS_RESPONSE;
}

/* Whether the next message begins here. */
static bool resync(struct flow *flow, struct conn *c, unsigned dir, const char *p, size_t len)
{
	struct stream *s = &c->streams[dir];
	enum stream_role role = role_of(c, dir);

	switch (http_looks_like_known(p, len)) {
	case HTTP_LOOKS_REQUEST:
		if (role == ROLE_RESPONSES)
			return false;
		break;
	case HTTP_LOOKS_RESPONSE:
		if (role == ROLE_REQUESTS)
			return false;
		break;
	case HTTP_LOOKS_MAYBE:
		break;
	default:
		return false;
	}
	s->state = STREAM_IDLE;
	s->strict = true;
	/* responses may have passed in what was skipped */
	if (role == ROLE_RESPONSES && c->forgotten > 0)
		pair_lost(flow, c, role);
	return true;
}

static enum http_looks looks_like(const struct stream *s, const char *p, size_t len)
{
	return s->strict ? http_looks_like_known(p, len) : http_looks_like(p, len);
}

void message_start(struct flow *flow, struct conn *c, unsigned dir, bool synced)
{
	struct stream *s = &c->streams[dir];

	s->state = synced ? STREAM_IDLE : STREAM_LOST;
	s->strict = false;
	if (!synced)
		pair_joined(flow, c);
}

void message_drop(struct flow *flow, struct conn *c, unsigned dir)
{
	struct stream *s = &c->streams[dir];

	if (s->state == STREAM_HEAD) {
		flow->stats.bytes_unparsed += s->partial->len;
		partial_free(flow, c, s);
	} else if (s->state == STREAM_BODY && s->parked) {
		flow->stats.bytes_unparsed += s->parked->m.raw;
		parked_free(flow, c, s);
	}
}

/* ---- heads ---- */

/* The head is set by its parser. Member by member: clearing the whole takes longer than all of the
 * rest here. */
static void message_init(struct message *m, const struct when *when, const char *p, size_t size)
{
	m->when = *when;
	m->bytes = p;
	m->raw = size;
	m->body_bytes = m->gap_bytes = 0;
	m->error = NULL;
	m->verdict = FLOW_KEEP;
	m->body = span_of(NULL, 0);
	m->scratch = m->body_cut = m->borrowed = false;
	m->request = NULL;
	m->exchange_id = 0;
}

/* Where its first byte stands. */
static void message_place(struct message *m, const struct conn *c, unsigned dir, uint32_t seq)
{
	m->seq = seq;
	m->exchange_id = pair_exchange_id(c, dir, seq);
}

static void set_role(struct conn *c, unsigned dir, enum http_kind kind)
{
	c->streams[dir].role = kind == HTTP_REQUEST ? ROLE_REQUESTS : ROLE_RESPONSES;
}

/* A head that will never be complete: the first len bytes of it are there. */
static void finish_cut(struct flow *flow, struct conn *c, unsigned dir, const struct when *when,
	const char *p, size_t len, uint64_t gap, const char *error)
{
	struct message m;

	message_init(&m, when, p, len);
	m.gap_bytes = gap;
	m.error = error;
	m.head.fields = flow->relieving ? flow->fields_relieved : flow->fields;
	m.head.max_fields = flow->options.max_fields;
	http_head_parse(p, len, &m.head);
	set_role(c, dir, m.head.kind);
	if (m.head.kind == HTTP_REQUEST)
		pair_push(flow, c, dir, &m);
	else
		pair_take(flow, c, dir, &m);
	finish(flow, c, dir, &m, NULL);
}

/* The partial head is all there will be. */
static void partial_give_up(
	struct flow *flow, struct conn *c, unsigned dir, uint64_t gap, const char *error)
{
	struct stream *s = &c->streams[dir];
	struct partial *h = s->partial;
	enum http_looks looks = looks_like(s, h->data, h->len);

	if (looks == HTTP_LOOKS_REQUEST || looks == HTTP_LOOKS_RESPONSE)
		finish_cut(flow, c, dir, &h->when, h->data, h->len, gap, error);
	else
		flow->stats.bytes_unparsed += h->len;
	partial_free(flow, c, s);
	s->state = STREAM_IDLE;
}

static void leave_http(struct flow *flow, struct conn *c)
{
	c->left = LEFT_TUNNEL;
	flow->stats.tunnels++;
	pair_forget_all(flow, c);
	for (unsigned dir = 0; dir < 2; dir++) {
		/* a message with a body is still one; what looked like a head is the tunnel's */
		if (c->streams[dir].state == STREAM_HEAD) {
			message_drop(flow, c, dir);
			c->streams[dir].state = STREAM_IDLE;
		}
	}
	if (flow->tunnel)
		flow->tunnel(flow->tunnel_ctx, c->id);
}

/* The preface of HTTP/2 with prior knowledge (RFC 9113, 3.4). */
static bool is_preface(const struct message *m)
{
	return m->head.major == 2 &&
	       span_eq(span_of(m->bytes + m->head.method.off, m->head.method.len), SPAN("PRI"));
}

/*
 * Nothing of this connection is wanted any more. dir: where the message that says so is in hand,
 * finished already.
 */
static void ignore(struct flow *flow, struct conn *c, unsigned dir)
{
	struct flow_stats *stats = &flow->stats;
	uint64_t before = stats->bytes_unparsed;
	struct stream *other = &c->streams[!dir];

	c->left = LEFT_IGNORED;
	stats->connections_ignored++;
	if (other->state == STREAM_BODY && other->parked) {
		other->parked->m.verdict = FLOW_IGNORE;
		finish(flow, c, !dir, &other->parked->m, NULL);
		parked_free(flow, c, other);
	} else {
		message_drop(flow, c, !dir);
	}
	order_drop(flow, c, 0);
	order_drop(flow, c, 1);
	c->streams[0].state = c->streams[1].state = STREAM_IDLE;
	pair_forget_all(flow, c);
	link_after(flow->ignored.prev, &c->ignored);
	stats->bytes_left_out += stats->bytes_unparsed - before;
	stats->bytes_unparsed = before;
}

/* What is to become of m, whose head is complete. */
static void ask(struct flow *flow, struct conn *c, unsigned dir, struct message *m)
{
	const struct flow_head h = {
		.connection = c->id,
		.conn = &c->dump,
		.direction = (enum dump_direction)dir,
		.seq = m->seq,
		.time_ns = m->when.wall_ns,
		.bytes = m->bytes,
		.head = &m->head,
	};
	enum flow_verdict verdict = flow->head(flow->head_ctx, &h);

	/* the response to a request that was left out stays so */
	if (verdict != FLOW_KEEP)
		m->verdict = (uint8_t)verdict;
}

/* Whether two readers of such a head may disagree about where the message ends. */
static bool framing_doubtful(enum http_fault fault)
{
	switch (fault) {
	case HTTP_OK:
	case HTTP_FAULT_HOST:
	case HTTP_FAULT_VERSION:
	case HTTP_FAULT_FOLDING:
	case HTTP_FAULT_TOO_MANY_FIELDS:
		return false;
	default:
		return true;
	}
}

/* The head of m is complete. Finishes it if that is all; else stream->body is ready for its body.
 */
static void begin(struct flow *flow, struct conn *c, unsigned dir, struct message *m, size_t size)
{
	struct stream *s = &c->streams[dir];
	struct span method = {0};
	enum http_framing framing;
	uint64_t length = 0;

	m->head.fields = flow->fields;
	m->head.max_fields = flow->options.max_fields;
	http_head_parse(m->bytes, size, &m->head);
	set_role(c, dir, m->head.kind);
	s->strict = framing_doubtful(m->head.fault);
	if (m->head.kind == HTTP_RESPONSE) {
		pair_take(flow, c, dir, m);
		if (m->request)
			method = head_span(m->request, 0, m->request->method_len);
	}
	if (flow->head) {
		ask(flow, c, dir, m);
		if (unlikely(m->verdict == FLOW_IGNORE)) {
			s->state = STREAM_IDLE;
			finish(flow, c, dir, m, NULL);
			ignore(flow, c, dir);
			return;
		}
	}
	framing = http_framing(m->bytes, &m->head, method, &length);
	if (m->head.kind == HTTP_REQUEST)
		pair_push(flow, c, dir, m);
	http_body_init(&s->body, framing, length);
	if (framing != HTTP_BODY_NONE && framing != HTTP_BODY_TUNNEL) {
		s->state = STREAM_BODY;
		return;
	}
	s->state = STREAM_IDLE;
	finish(flow, c, dir, m, NULL);
	if (framing == HTTP_BODY_TUNNEL || is_preface(m))
		leave_http(flow, c);
}

/* ---- bodies ---- */

/* Feeds the body of m, which is in hand or parked. Returns how many bytes it took. */
static size_t feed(struct flow *flow, struct conn *c, struct stream *s, struct message *m,
	struct parked *parked, const char *p, size_t len)
{
	size_t taken = 0;

	while (taken < len && !s->body.done && !s->body.lost) {
		struct span run = {0};

		taken += http_body_feed(&s->body, p + taken, len - taken, &run);
		if (m && run.len > 0)
			keep(flow, c, m, parked, run);
	}
	if (m)
		m->raw += taken;
	else
		flow->stats.bytes_unparsed += taken;
	return taken;
}

/* Keeps m for later. False: no memory. */
static bool park(struct flow *flow, struct conn *c, struct stream *s, const struct message *m)
{
	size_t fields = m->head.n_fields * sizeof(struct http_field);
	size_t size = sizeof(struct parked) + fields + m->head.size;
	struct parked *k;
	struct span body = m->body;
	char *bytes;

	if (!flow_charge_hard(flow, c, size))
		return false;
	k = flow_realloc(NULL, size);
	if (!k) {
		flow_uncharge(flow, c, size);
		return false;
	}
	bytes = (char *)k->fields + fields;
	k->m = *m;
	k->m.head.fields = k->fields;
	k->m.bytes = bytes;
	k->m.body = (struct span){0};
	k->m.scratch = false;
	if (m->borrowed)
		k->m.request = NULL;
	k->body = NULL;
	k->body_cap = 0;
	k->size = (uint32_t)size;
	memcpy(k->fields, m->head.fields, fields);
	memcpy(bytes, m->bytes, m->head.size);
	if (body.len > 0)
		keep_parked(flow, c, k, body);
	s->parked = k;
	flow->stats.bytes_unfinished += m->raw;
	return true;
}

/* The body is over, one way or the other. */
static void body_over(struct flow *flow, struct conn *c, unsigned dir, struct message *m)
{
	struct stream *s = &c->streams[dir];
	bool lost = s->body.lost;

	if (m)
		finish(flow, c, dir, m, &s->body);
	if (m && s->parked && m == &s->parked->m)
		parked_free(flow, c, s);
	s->state = STREAM_IDLE;
	if (lost)
		message_lose(flow, c, dir);
}

/*
 * A response of which it is not known what it answers may have answered HEAD, and have no body:
 * told by the next response being where its body should begin.
 */
static bool bodiless(struct conn *c, unsigned dir, const char *p, size_t len)
{
	const struct stream *s = &c->streams[dir];
	const struct message *m = &s->parked->m;

	return m->head.kind == HTTP_RESPONSE && !m->request && m->body_bytes == 0 &&
	       m->raw == m->head.size && http_looks_like_known(p, len) == HTTP_LOOKS_RESPONSE;
}

static size_t take_body(struct flow *flow, struct conn *c, unsigned dir, const char *p, size_t len)
{
	struct stream *s = &c->streams[dir];
	struct parked *k = s->parked;
	size_t taken;

	if (k && bodiless(c, dir, p, len)) {
		s->body.fault = HTTP_OK;
		body_over(flow, c, dir, &k->m);
		return 0;
	}
	taken = feed(flow, c, s, k ? &k->m : NULL, k, p, len);
	if (k)
		flow->stats.bytes_unfinished += taken;
	if (s->body.done || s->body.lost)
		body_over(flow, c, dir, k ? &k->m : NULL);
	return taken;
}

/* m has its head; p[0..len) follows it. */
static size_t take_message(struct flow *flow, struct conn *c, unsigned dir, struct message *m,
	size_t size, const char *p, size_t len)
{
	struct stream *s = &c->streams[dir];
	size_t taken;

	s->parked = NULL;
	begin(flow, c, dir, m, size);
	if (s->state != STREAM_BODY)
		return 0;
	taken = feed(flow, c, s, m, NULL, p, len);
	if (s->body.done || s->body.lost) {
		body_over(flow, c, dir, m);
	} else if (!park(flow, c, s, m)) {
		flow->stats.over_memory++;
		m->error = FLOW_ERROR_MEMORY;
		finish(flow, c, dir, m, &s->body);
	}
	return taken;
}

/* ---- the stream ---- */

static size_t skip_all(struct flow *flow, struct conn *c, unsigned dir, size_t len)
{
	message_lose(flow, c, dir);
	flow->stats.bytes_unparsed += len;
	return len;
}

static bool partial_append(
	struct flow *flow, struct conn *c, struct stream *s, const char *p, size_t len)
{
	struct partial *h = s->partial;
	size_t need = (h ? h->len : 0) + len, cap = h ? h->cap : 0;

	if (need > cap) {
		size_t more = h ? 0 : sizeof(*h);

		cap = MIN(MAX(MAX(need, cap * 2), (size_t)PARTIAL_FIRST),
			(size_t)flow->options.head_bytes);
		more += cap - (h ? h->cap : 0);
		if (!flow_charge_hard(flow, c, more))
			return false;
		h = flow_realloc(h, sizeof(*h) + cap);
		if (!h) {
			flow_uncharge(flow, c, more);
			return false;
		}
		if (!s->partial)
			h->scanned = h->len = 0;
		h->cap = (uint32_t)cap;
		s->partial = h;
	}
	memcpy(h->data + h->len, p, len);
	h->len += (uint32_t)len;
	flow->stats.bytes_unfinished += len;
	return true;
}

/*
 * Where a message must begin, what no server takes for one is reported all the same (and its fault
 * named), if it means to be one: its first line is there and ends as that of a request.
 */
static bool is_odd_head(const char *p, size_t len)
{
	const char *end = memchr(p, '\n', MIN(len, (size_t)START_LINE_MAX));

	return end && memmem(p, (size_t)(end - p), " HTTP/1.", 8);
}

static size_t take_idle(struct flow *flow, struct conn *c, unsigned dir, const struct when *when,
	const char *p, size_t len)
{
	struct stream *s = &c->streams[dir];
	struct message m;
	size_t head_max = flow->options.head_bytes, size, empty = 0, scanned = 0;
	enum http_looks looks;

	/* empty lines between messages (RFC 9112, 2.2) hold no memory and start no clock */
	while (empty < len && (p[empty] == '\r' || p[empty] == '\n'))
		empty++;
	if (empty > 0) {
		flow->stats.bytes_unparsed += empty;
		return empty;
	}
	looks = looks_like(s, p, len);
	if (unlikely(looks == HTTP_LOOKS_OTHER && (s->strict || !is_odd_head(p, len))))
		return skip_all(flow, c, dir, len);
	size = http_head_end(p, MIN(len, head_max), &scanned);
	if (likely(size > 0)) {
		message_init(&m, when, p, size);
		message_place(&m, c, dir, s->at);
		return size + take_message(flow, c, dir, &m, size, p + size, len - size);
	}
	if (len >= head_max) {
		finish_cut(flow, c, dir, when, p, head_max, 0, FLOW_ERROR_HEAD_MAX);
		skip_all(flow, c, dir, len - head_max);
		return len;
	}
	s->partial = NULL;
	if (!partial_append(flow, c, s, p, len)) {
		flow->stats.over_memory++;
		finish_cut(flow, c, dir, when, p, len, 0, FLOW_ERROR_MEMORY);
		message_lose(flow, c, dir);
		return len;
	}
	s->partial->when = *when;
	s->partial->scanned = scanned;
	s->undecided = looks == HTTP_LOOKS_MAYBE;
	s->state = STREAM_HEAD;
	return len;
}

static size_t take_head(struct flow *flow, struct conn *c, unsigned dir, const char *p, size_t len)
{
	struct stream *s = &c->streams[dir];
	struct partial *h = s->partial;
	size_t head_max = flow->options.head_bytes, before = h->len, size, own, n;
	struct message m;

	n = MIN(MIN(len, (size_t)PARTIAL_STEP), head_max - before);
	if (!partial_append(flow, c, s, p, n)) {
		flow->stats.over_memory++;
		partial_give_up(flow, c, dir, 0, FLOW_ERROR_MEMORY);
		message_lose(flow, c, dir);
		return 0;
	}
	h = s->partial;
	if (unlikely(s->undecided)) {
		switch (looks_like(s, h->data, h->len)) {
		case HTTP_LOOKS_OTHER:
			/* what came before was no head; these bytes may begin one */
			h->len -= n;
			flow->stats.bytes_unfinished -= n;
			message_lose(flow, c, dir);
			return 0;
		case HTTP_LOOKS_MAYBE:
			break;
		default:
			s->undecided = false;
		}
	}
	size = http_head_end(h->data, h->len, &h->scanned);
	if (size == 0) {
		if (h->len >= head_max) {
			partial_give_up(flow, c, dir, 0, FLOW_ERROR_HEAD_MAX);
			message_lose(flow, c, dir);
		}
		return n;
	}
	/* the bytes behind the head are still in the record */
	own = size - before;
	message_init(&m, &h->when, h->data, size);
	message_place(&m, c, dir, s->at - (uint32_t)before);
	own += take_message(flow, c, dir, &m, size, p + own, len - own);
	flow->stats.bytes_unfinished -= h->len;
	flow_uncharge(flow, c, sizeof(*h) + h->cap);
	free(h);
	return own;
}

void message_bytes(struct flow *flow, struct conn *c, unsigned dir, const struct when *when,
	const char *p, size_t len)
{
	struct stream *s = &c->streams[dir];

	while (len > 0) {
		size_t n = 0;

		if (s->state == STREAM_BODY) {
			n = take_body(flow, c, dir, p, len);
		} else if (unlikely(c->left == LEFT_IGNORED)) {
			flow->stats.bytes_left_out += len;
			return;
		} else if (unlikely(c->left) ||
			   (s->state == STREAM_LOST && !resync(flow, c, dir, p, len))) {
			flow->stats.bytes_unparsed += len;
			return;
		} else if (s->state == STREAM_HEAD) {
			n = take_head(flow, c, dir, p, len);
		} else {
			n = take_idle(flow, c, dir, when, p, len);
		}
		p += n;
		len -= n;
		s->at += (uint32_t)n;
	}
}

void message_gap(struct flow *flow, struct conn *c, unsigned dir, uint64_t n)
{
	struct stream *s = &c->streams[dir];
	struct message *m;
	uint64_t in_body;

	flow->stats.gap_bytes += n;
	switch (s->state) {
	case STREAM_LOST:
		return;
	case STREAM_IDLE:
		message_lose(flow, c, dir);
		if (role_of(c, dir) == ROLE_REQUESTS && !c->left)
			pair_missed(flow, c);
		return;
	case STREAM_HEAD:
		partial_give_up(flow, c, dir, n, FLOW_ERROR_HEAD_GAP);
		message_lose(flow, c, dir);
		return;
	}
	m = s->parked ? &s->parked->m : NULL;
	in_body = http_body_gap(&s->body, n);
	if (m) {
		m->body_bytes += in_body;
		/* what is behind the end of the message is not missing in it */
		m->gap_bytes += s->body.done ? in_body : n;
		if (s->body.lost && s->body.fault == HTTP_OK)
			m->error = FLOW_ERROR_BODY_GAP;
	}
	if (!s->body.done && !s->body.lost)
		return;
	body_over(flow, c, dir, m);
	if (in_body < n)
		message_lose(flow, c, dir);
}

void message_give_up(struct flow *flow, struct conn *c, unsigned dir, const char *error)
{
	struct stream *s = &c->streams[dir];

	if (s->state == STREAM_HEAD) {
		partial_give_up(flow, c, dir, 0, error);
		message_lose(flow, c, dir);
	} else if (s->state == STREAM_BODY && s->parked) {
		s->parked->m.error = error;
		finish(flow, c, dir, &s->parked->m, &s->body);
		parked_free(flow, c, s);
	}
}

void message_end(struct flow *flow, struct conn *c, unsigned dir, bool reset)
{
	struct stream *s = &c->streams[dir];
	const char *error = reset ? FLOW_ERROR_RESET : FLOW_ERROR_ENDED;

	if (s->state == STREAM_HEAD) {
		partial_give_up(flow, c, dir, 0, error);
	} else if (s->state == STREAM_BODY && s->parked) {
		if (!http_body_end(&s->body) || reset)
			s->parked->m.error = error;
		finish(flow, c, dir, &s->parked->m, &s->body);
		parked_free(flow, c, s);
	}
	s->state = STREAM_LOST;
}
