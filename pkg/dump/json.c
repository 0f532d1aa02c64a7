/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The JSON line. It is written in one pass, straight into the output buffer, without knowing
 * whether it will fit. Only a line that turns out longer than allowed is planned (fit()): then it
 * is written again, each time with tighter limits for its parts.
 */
#include <errno.h>
#include <stdlib.h>

#include "pkg/dump/dump.h"
#include "pkg/dump/escape.h"

/* The longest run of output that is asked for at once (see want()). */
#define WANT_MAX 256
/* What is reserved behind the room for a line. */
#define SLACK (WANT_MAX + ESCAPE_SLACK)
/* What all keys and numbers take, a hash, and the short texts of dump_conn at their worst. */
#define FIXED_MAX 1536
/* What a header takes beside its name and value: "":[""], */
#define FIELD_MAX 8
/* A name to redact has two bytes, its value one: line_bound() needs to know no more of it. */
_Static_assert((FIELD_MAX + 3) * ESCAPE_MAX >= FIELD_MAX + 2 * DUMP_REDACTED_LEN,
	"two hashes take less than what any header may become");
/* Values are not shortened below this; if that does not do, headers are left out. */
#define VALUE_MIN 32
_Static_assert(VALUE_MIN >= DUMP_REDACTED_LEN, "a hash is never cut");
/* Headers up to this number are grouped without an allocation. */
#define FIELDS_INLINE 256

#define NO_LIMIT SIZE_MAX

/* Limits for the parts of a line, in bytes of output. */
struct plan {
	size_t body;
	size_t value; /* of each header value */
	size_t text;  /* of each other text: method, path, ... */
	size_t after; /* to be left free by the headers: those that do not fit are left out */
	bool leave_out;
	bool binary;	  /* the body is known not to be text */
	bool headers_cut; /* write that headers or texts were cut */
};

/* The sizes of all values and texts, by the number of their binary digits. */
struct sizes {
	uint64_t sum[40];
	uint32_t count[40];
};

struct writer {
	const struct dump_format *format;
	const struct dump_message *m;
	struct plan plan;
	uint64_t redact_marks; /* of names that may be among those to redact */
	bool redact_names;     /* there may be names that are more than a name */
	struct sizes *sizes;   /* collected if not NULL */
	char *start;
	size_t room; /* for the line */
	char *p;
	char *end; /* of the memory: WANT_MAX behind the room, so that want() may ask for more than
		      will be used */
	/* The line is too long. What follows goes to scratch, so that nobody but the one who asks
	 * for the result has to look. */
	bool full;
	bool mapped; /* head says which of its bytes need more than a copy */
	struct escape_map head;
	char scratch[WANT_MAX + ESCAPE_SLACK];
};

/* ---- appending ---- */

static void overflow(struct writer *w)
{
	w->full = true;
	w->p = w->scratch;
	w->end = w->scratch + WANT_MAX;
}

/*
 * Where to write the next n bytes (at most WANT_MAX). The parts of a line between texts are written
 * with a pointer of their own: begun with want(), ended by setting w->p.
 */
static inline char *want(struct writer *w, size_t n)
{
	if (unlikely((size_t)(w->end - w->p) < n))
		overflow(w);
	return w->p;
}

static inline char *put(char *d, const char *p, size_t len)
{
	memcpy(d, p, len);
	return d + len;
}

#define PUT(d, literal) put(d, literal, sizeof(literal) - 1)

static inline char *put_number(char *d, uint64_t value)
{
	static const char pairs[] = "0001020304050607080910111213141516171819"
				    "2021222324252627282930313233343536373839"
				    "4041424344454647484950515253545556575859"
				    "6061626364656667686970717273747576777879"
				    "8081828384858687888990919293949596979899";
	static const uint64_t powers[] = {0, 10, 100, 1000, 10000, 100000, 1000000, 10000000,
		100000000, 1000000000, 10000000000, 100000000000, 1000000000000, 10000000000000,
		100000000000000, 1000000000000000, 10000000000000000, 100000000000000000,
		1000000000000000000, UINT64_C(10000000000000000000)};
	/* 1233 / 4096 is a little less than the logarithm of 2 to the base of 10. */
	unsigned guess = (64 - (unsigned)__builtin_clzll(value | 1)) * 1233 >> 12;
	char *end = d + guess + (value >= powers[guess]);

	d = end;

	for (; value >= 100; value /= 100) {
		d -= 2;
		memcpy(d, pairs + value % 100 * 2, 2);
	}
	if (value >= 10)
		memcpy(d - 2, pairs + value * 2, 2);
	else
		d[-1] = (char)('0' + value);
	return end;
}

static inline char *put_ip(char *d, const struct dump_peer *peer)
{
	memcpy(d, peer->ip, sizeof(peer->ip));
	return d + MIN(peer->ip_len, sizeof(peer->ip) - 1);
}

/* What escape_plain() could not do: from p on. */
static __attribute__((noinline)) void put_text_rest(struct writer *w, struct span s,
	enum text_kind kind, const char *readable, size_t limit, const char *p, char *d)
{
	size_t room = (size_t)(w->end - w->p);
	struct text t = text_of(s, kind, readable);

	t.p = p;
	d = escape(&t, d, w->p + MIN(room, limit));
	if (t.p == t.end) {
		w->p = d;
		return;
	}
	if (w->sizes) {
		size_t size = (size_t)(d - w->p) + escape_size(t);
		int digits = 64 - __builtin_clzll((unsigned long long)size | 1);

		w->sizes->count[MIN(digits, 39)]++;
		w->sizes->sum[MIN(digits, 39)] += size;
	}
	if (room <= limit)
		overflow(w);
	else
		w->p = d;
}

static inline void put_text(
	struct writer *w, struct span s, enum text_kind kind, const char *readable, size_t limit)
{
	size_t room = (size_t)(w->end - w->p);
	const char *p = s.p, *end;
	char *d;

	if (s.len == 0)
		return;
	end = s.p + s.len;
	readable = MAX(readable, end);
	d = escape_plain(&p, end, readable, kind, w->p, w->p + MIN(room, limit));
	if (likely(p == end))
		w->p = d;
	else
		put_text_rest(w, s, kind, readable, limit, p, d);
}

static inline void put_line(struct writer *w, struct span s)
{
	put_text(w, s, TEXT_LINE, NULL, w->plan.text);
}

/* Names of dump_conn: few bytes, never cut. */
static void put_short(struct writer *w, const char *name, size_t size)
{
	w->p = want(w, size * ESCAPE_MAX);
	put_text(w, span_of(name, strnlen(name, size)), TEXT_LINE, name + size, NO_LIMIT);
}

/* ---- headers ---- */

static inline struct span slice(const struct dump_message *m, struct http_slice s)
{
	return span_of(m->bytes + s.off, s.len);
}

static inline struct span name_of(const struct dump_message *m, uint32_t field)
{
	return slice(m, m->head->fields[field].name);
}

/*
 * Which headers have the same name. Nearly always none do, or two or three: a mark per name in a
 * small bit set tells those apart that may (their marks collide), and only these are compared, with
 * the others of their mark. Somebody who knows how marks are made can make them collide; then the
 * names are sorted. So it is a few nanoseconds per header, and n log n at worst.
 */
#define MARKS 512
/* Comparisons per header before sorting. */
#define COMPARISONS 16

struct groups {
	bool any;	 /* else the rest is not set */
	uint32_t *next;	 /* of the same name; NEXT_NONE: last; with NEXT_REPEATED: not the first */
	uint32_t *other; /* one of another name with the same mark; or all in order of names */
	uint16_t *mark;
	void *memory;
	uint32_t next_inline[FIELDS_INLINE];
	uint32_t other_inline[FIELDS_INLINE];
	uint16_t mark_inline[FIELDS_INLINE];
};

#define NEXT_REPEATED UINT32_C(0x80000000)
#define NEXT_NONE     UINT32_C(0x7fffffff)

static void groups_done(struct groups *g)
{
	free(g->memory);
}

static int groups_memory(struct groups *g, uint32_t n)
{
	size_t each = sizeof(*g->next) + sizeof(*g->other) + sizeof(*g->mark);

	g->memory = NULL;
	g->next = g->next_inline;
	g->other = g->other_inline;
	g->mark = g->mark_inline;
	if (n <= FIELDS_INLINE)
		return 0;
	g->memory = malloc(n * each);
	if (!g->memory)
		return -ENOMEM;
	g->next = g->memory;
	g->other = g->next + n;
	g->mark = (uint16_t *)(g->other + n);
	return 0;
}

#define HIGH_BITS UINT64_C(0x8080808080808080)
/* Letters lose their case; that other characters meet does no harm. */
#define NO_CASE UINT64_C(0x2020202020202020)

#define MIX UINT64_C(0x9e3779b97f4a7c15)

/* Equal for names that are the same key. */
static inline unsigned name_mark(struct span name)
{
	uint64_t first = 0, last = 0, any, more;

	if (name.len >= 8) {
		memcpy(&first, name.p, 8);
		memcpy(&last, name.p + name.len - 8, 8);
	} else if (name.len >= 4) {
		uint32_t low, high;

		memcpy(&low, name.p, 4);
		memcpy(&high, name.p + name.len - 4, 4);
		first = low;
		last = high;
	} else if (name.len > 0) {
		first = (unsigned char)name.p[0] | (uint64_t)(unsigned char)name.p[name.len / 2]
							   << 8;
		last = (unsigned char)name.p[name.len - 1];
	}
	any = first | last;
	first |= NO_CASE;
	last |= NO_CASE;
	for (size_t i = 8; i + 8 < name.len; i += 8) {
		memcpy(&more, name.p + i, 8);
		any |= more;
		first = (first ^ (more | NO_CASE)) * MIX;
		first ^= first >> 32;
	}
	if (unlikely(any & HIGH_BITS))
		return escape_hash_name(name) % MARKS;
	first = (first ^ (last << 23 | last >> 41) ^ name.len) * MIX;
	return (unsigned)(first >> 55);
}

static int compare_fields(const void *a, const void *b, void *ctx)
{
	const struct dump_message *m = ctx;
	uint32_t i, j;
	int r;

	memcpy(&i, a, sizeof(i));
	memcpy(&j, b, sizeof(j));
	r = escape_compare_names(name_of(m, i), name_of(m, j));
	return r ? r : i < j ? -1 : i > j;
}

static bool same_name(const struct dump_message *m, uint32_t a, uint32_t b)
{
	return escape_compare_names(name_of(m, a), name_of(m, b)) == 0;
}

static void link_fields(struct groups *g, uint32_t before, uint32_t field)
{
	g->next[before] = (g->next[before] & NEXT_REPEATED) | field;
	g->next[field] = NEXT_NONE | NEXT_REPEATED;
}

/*
 * Each mark has a list of names, each name in it the last field that has it. False: too many
 * comparisons.
 */
static bool link_by_marks(struct groups *g, const struct dump_message *m, const uint64_t *twice)
{
	uint64_t budget = (uint64_t)m->head->n_fields * COMPARISONS;
	uint32_t last[MARKS];

	for (uint32_t i = 0; i < MARKS; i++)
		last[i] = NEXT_NONE;
	for (uint32_t i = 0; i < m->head->n_fields; i++) {
		uint32_t *at = &last[g->mark[i]];

		g->next[i] = g->other[i] = NEXT_NONE;
		if (!(twice[g->mark[i] / 64] >> g->mark[i] % 64 & 1))
			continue;
		while (*at != NEXT_NONE && !same_name(m, i, *at)) {
			at = &g->other[*at];
			if (budget-- == 0)
				return false;
		}
		if (*at != NEXT_NONE) {
			link_fields(g, *at, i);
			g->other[i] = g->other[*at];
		}
		*at = i;
	}
	return true;
}

static void link_by_names(struct groups *g, const struct dump_message *m)
{
	uint32_t n = m->head->n_fields;

	for (uint32_t i = 0; i < n; i++) {
		g->next[i] = NEXT_NONE;
		g->other[i] = i;
	}
	qsort_r(g->other, n, sizeof(*g->other), compare_fields, (void *)m);
	for (uint32_t i = 1; i < n; i++) {
		if (same_name(m, g->other[i - 1], g->other[i]))
			link_fields(g, g->other[i - 1], g->other[i]);
	}
}

static int groups_init(struct groups *g, const struct dump_message *m)
{
	uint64_t seen[MARKS / 64] = {0}, twice[MARKS / 64] = {0}, any = 0;
	uint32_t n = m->head->n_fields;
	int r = groups_memory(g, n);

	if (r < 0)
		return r;
	for (uint32_t i = 0; i < n; i++) {
		unsigned mark = name_mark(name_of(m, i));
		uint64_t bit = UINT64_C(1) << mark % 64;

		g->mark[i] = (uint16_t)mark;
		any |= seen[mark / 64] & bit;
		twice[mark / 64] |= seen[mark / 64] & bit;
		seen[mark / 64] |= bit;
	}
	g->any = any != 0;
	if (any && !link_by_marks(g, m, twice))
		link_by_names(g, m);
	return 0;
}

static void begin_redaction(struct writer *w)
{
	const struct dump_redaction *r = w->format->redaction;
	/* All names of a head without a fault are tokens. */
	bool odd = r && w->m->head->fault != HTTP_OK;

	w->redact_marks = !r ? 0 : odd ? UINT64_MAX : r->marks;
	w->redact_names = odd;
}

static __attribute__((noinline)) void put_redacted(struct writer *w, struct span s)
{
	char text[DUMP_REDACTED_LEN];

	if (s.len == 0)
		return;
	dump_redact(w->format->redaction, s, text);
	put_text(w, span_of(text, sizeof(text)), TEXT_LINE, NULL, NO_LIMIT);
}

static enum dump_redact redact(const struct writer *w, uint32_t field)
{
	return dump_redaction_match(w->format->redaction, name_of(w->m, field));
}

/* False: certainly not. */
static inline bool may_redact(const struct writer *w, uint32_t field)
{
	struct span name = name_of(w->m, field);

	return w->redact_marks == UINT64_MAX ||
	       (name.len > 0 && (w->redact_marks & dump_redaction_mark(name)));
}

static inline void put_name(struct writer *w, uint32_t field)
{
	const struct dump_message *m = w->m;

	if (unlikely(w->redact_names) && redact(w, field) == DUMP_REDACT_ALL)
		put_redacted(w, name_of(m, field));
	else
		put_text(w, name_of(m, field), TEXT_NAME, m->bytes + m->head->size, NO_LIMIT);
}

static inline void put_value(struct writer *w, uint32_t field)
{
	const struct dump_message *m = w->m;
	const struct http_field *f = &m->head->fields[field];

	if (unlikely(may_redact(w, field)) && redact(w, field) != DUMP_REDACT_NOTHING)
		put_redacted(w, slice(m, f->value));
	else
		put_text(
			w, slice(m, f->value), TEXT_VALUE, m->bytes + m->head->size, w->plan.value);
}

/* The further values of a header that occurs again. */
static void put_repeated(struct writer *w, const struct groups *g, uint32_t field)
{
	uint32_t next = g->next[field];

	while ((next &= ~NEXT_REPEATED) != NEXT_NONE && !w->full) {
		char *p = w->p, *end = w->end;

		w->p = PUT(want(w, FIELD_MAX), "\",\"");
		put_value(w, next);
		if (w->plan.leave_out && (w->full || w->end - w->p < FIELD_MAX)) {
			w->full = false;
			w->p = p;
			w->end = end;
			return;
		}
		next = g->next[next];
	}
}

/* Names up to so many bytes are written at once. */
#define NAME_PLAIN 32

/*
 * "name":["value"] of which nothing needs an escape, as nearly all are: no more than a test and a
 * copy of each. NULL: it is not that simple.
 */
static inline char *put_plain_field(const struct writer *w, uint32_t field, char *d)
{
	const struct dump_message *m = w->m;
	const struct http_field *f = &m->head->fields[field];
	const char *readable = m->bytes + m->head->size, *name = m->bytes + f->name.off;
	size_t size = (size_t)f->name.len + f->value.len + 2 * FIELD_MAX;

	if (!w->mapped || f->name.len > NAME_PLAIN || readable - name < NAME_PLAIN ||
		(size_t)f->value.off + f->value.len > m->head->size ||
		f->value.len > w->plan.value || (size_t)(w->end - d) < size ||
		!escape_map_plain(&w->head, f->name.off, f->name.len) ||
		!escape_map_plain(&w->head, f->value.off, f->value.len))
		return NULL;
	if (unlikely(may_redact(w, field)) &&
		(w->redact_names || redact(w, field) != DUMP_REDACT_NOTHING))
		return NULL;
	*d++ = '"';
	escape_name_case(d, name, '-');
	if (f->name.len > ESCAPE_BLOCK)
		escape_name_case(d + ESCAPE_BLOCK, name + ESCAPE_BLOCK, name[ESCAPE_BLOCK - 1]);
	d = PUT(d + f->name.len, "\":[\"");
	return escape_copy_text(d, m->bytes + f->value.off, f->value.len, readable);
}

static inline void put_field(struct writer *w, const struct groups *g, uint32_t field, bool first)
{
	char *d = want(w, FIELD_MAX), *plain;

	if (!first)
		*d++ = ',';
	plain = put_plain_field(w, field, d);
	if (likely(plain)) {
		w->p = plain;
	} else {
		w->p = PUT(d, "\"");
		put_name(w, field);
		w->p = PUT(want(w, FIELD_MAX), "\":[\"");
		put_value(w, field);
	}
	if (g->any)
		put_repeated(w, g, field);
	w->p = PUT(want(w, FIELD_MAX), "\"]");
}

/* Only those for which there is room. */
static void put_fitting_headers(struct writer *w, const struct groups *g)
{
	char *end = w->end;
	bool first = true;

	w->end = MAX(w->p, w->start + w->room - w->plan.after);
	for (uint32_t i = 0; i < w->m->head->n_fields && !w->full; i++) {
		char *p = w->p, *fields_end = w->end;

		if (g->any && (g->next[i] & NEXT_REPEATED))
			continue;
		put_field(w, g, i, first);
		if (w->full) {
			w->full = false;
			w->p = p;
			w->end = fields_end;
			continue;
		}
		first = false;
	}
	if (!w->full)
		w->end = end;
}

static void put_headers(struct writer *w, const struct groups *g)
{
	bool first = true;

	if (unlikely(w->plan.leave_out)) {
		put_fitting_headers(w, g);
		return;
	}
	for (uint32_t i = 0; i < w->m->head->n_fields && !w->full; i++) {
		if (g->any && (g->next[i] & NEXT_REPEATED))
			continue;
		put_field(w, g, i, first);
		first = false;
	}
}

/* ---- body ---- */

static struct text body_text(const struct dump_message *m)
{
	struct text t = text_of(m->body, TEXT_BODY, NULL);

	t.cut = m->body_truncated;
	return t;
}

static void put_base64(struct writer *w)
{
	struct span body = w->m->body;
	size_t room = (size_t)(w->end - w->p);

	if (w->plan.body != NO_LIMIT)
		body.len = MIN(body.len, MIN(w->plan.body, room) / 4 * 3);
	if (body.len / 3 >= room / 4 && (body.len + 2) / 3 > room / 4)
		overflow(w);
	else
		w->p = escape_base64(w->p, body);
}

/* Returns whether it is base64. */
static bool put_body(struct writer *w)
{
	size_t room = (size_t)(w->end - w->p);
	struct text t;
	char *d;

	if (w->m->body.len == 0 || w->full)
		return false;
	if (w->plan.binary) {
		put_base64(w);
		return true;
	}
	t = body_text(w->m);
	d = escape(&t, w->p, w->p + MIN(room, w->plan.body));
	if (t.binary) {
		put_base64(w);
		return true;
	}
	if (t.p == t.end || w->plan.body < room)
		w->p = d;
	else
		overflow(w);
	return false;
}

/* ---- the object ---- */

static void put_start(struct writer *w)
{
	const struct dump_message *m = w->m;
	const struct http_head *head = m->head;
	const char *readable = m->bytes + head->size;
	const struct dump_conn *conn = m->conn;
	/* The client of the exchange sent the requests and receives the responses. */
	bool local = (m->direction == DUMP_EGRESS) == (head->kind == HTTP_REQUEST);
	const struct dump_peer *client = local ? &conn->local : &conn->remote;
	char *d;

	d = PUT(want(w, 256), "{\"direction\":");
	d = put_number(d, m->direction);
	d = PUT(d, ",\"timing_ms\":");
	d = put_number(d, m->time_ns / 1000000);
	d = PUT(d, ",\"remote_ip\":\"");
	d = put_ip(d, client);
	d = PUT(d, "\",\"remote_port\":");
	d = put_number(d, client->port);
	w->p = PUT(d, ",\"method\":\"");
	put_text(w, slice(m, head->method), TEXT_LINE, readable, w->plan.text);
	w->p = PUT(want(w, 16), "\",\"path\":\"");
	put_text(w, slice(m, head->target), TEXT_LINE, readable, w->plan.text);
	d = PUT(want(w, 64), "\",\"status_code\":");
	d = put_number(d, head->status);
	w->p = PUT(d, ",\"version\":\"");
	put_text(w, slice(m, head->version), TEXT_LINE, readable, w->plan.text);
	w->p = PUT(want(w, 16), "\",\"headers\":{");
}

/* The two ends of the connection, as seen by this message. */
static void put_ends(struct writer *w)
{
	const struct dump_conn *conn = w->m->conn;
	bool egress = w->m->direction == DUMP_EGRESS;
	const struct dump_peer *src = egress ? &conn->local : &conn->remote;
	const struct dump_peer *dst = egress ? &conn->remote : &conn->local;
	char *d;

	d = PUT(want(w, 256), ",\"src_ip\":\"");
	d = put_ip(d, src);
	d = PUT(d, "\",\"src_port\":");
	d = put_number(d, src->port);
	d = PUT(d, ",\"dst_ip\":\"");
	d = put_ip(d, dst);
	d = PUT(d, "\",\"dst_port\":");
	d = put_number(d, dst->port);
	w->p = PUT(d, ",\"interface\":\"");
	put_short(w, conn->interface, sizeof(conn->interface));
	w->p = PUT(want(w, 16), "\"");
}

static void put_process(struct writer *w)
{
	const struct dump_conn *conn = w->m->conn;
	char *d;

	w->p = PUT(want(w, 16), ",\"node\":\"");
	put_line(w, span_str(w->format->node));
	d = PUT(want(w, 64), "\",\"pid\":");
	d = put_number(d, conn->pid);
	w->p = PUT(d, ",\"comm\":\"");
	put_short(w, conn->comm, sizeof(conn->comm));
	w->p = PUT(want(w, 16), "\"");
}

static void put_known(struct writer *w, struct span key, struct span value)
{
	char *d;

	if (value.len == 0)
		return;
	d = want(w, 32);
	memcpy(d, key.p, key.len);
	w->p = d + key.len;
	put_line(w, value);
	w->p = PUT(want(w, 16), "\"");
}

static void put_pod(struct writer *w)
{
	const struct dump_pod *pod = &w->m->pod;

	put_known(w, SPAN(",\"namespace\":\""), pod->namespace);
	put_known(w, SPAN(",\"pod\":\""), pod->pod);
	put_known(w, SPAN(",\"container\":\""), pod->container);
}

/* 16 hexadecimal digits. */
static char *put_exchange_id(char *d, uint64_t id)
{
	d = PUT(d, ",\"exchange_id\":\"");
	for (int shift = 60; shift >= 0; shift -= 4)
		*d++ = "0123456789abcdef"[id >> shift & 15];
	return PUT(d, "\"");
}

static void put_amounts(struct writer *w, bool base64)
{
	const struct dump_message *m = w->m;
	char *d;

	d = want(w, 256);
	if (m->exchange_id)
		d = put_exchange_id(d, m->exchange_id);
	d = PUT(d, ",\"seq\":");
	d = put_number(d, m->seq);
	d = PUT(d, ",\"body_bytes\":");
	d = put_number(d, m->body_bytes);
	if (m->body_truncated || w->plan.body != NO_LIMIT)
		d = PUT(d, ",\"body_truncated\":true");
	else
		d = PUT(d, ",\"body_truncated\":false");
	if (base64)
		d = PUT(d, ",\"body_encoding\":\"base64\"");
	d = PUT(d, ",\"gap_bytes\":");
	w->p = put_number(d, m->gap_bytes);
}

static void put_faults(struct writer *w)
{
	if (w->m->error) {
		w->p = PUT(want(w, 16), ",\"error\":\"");
		put_line(w, span_str(w->m->error));
		w->p = PUT(want(w, 16), "\"");
	}
	if (w->plan.headers_cut)
		w->p = PUT(want(w, 32), ",\"headers_truncated\":true");
}

/* What a response answers. */
static void put_request(struct writer *w)
{
	const struct dump_message *m = w->m;
	char *d;

	d = PUT(want(w, 128), ",\"latency_us\":");
	d = put_number(d, m->latency_us);
	w->p = PUT(d, ",\"request\":{\"method\":\"");
	put_line(w, m->request_method);
	w->p = PUT(want(w, 16), "\",\"path\":\"");
	put_line(w, m->request_path);
	w->p = PUT(want(w, 16), "\",\"host\":\"");
	if (w->format->redaction && w->format->redaction->host)
		put_redacted(w, m->request_host);
	else
		put_line(w, m->request_host);
	w->p = PUT(want(w, 16), "\"}");
}

/* From the end of the headers on. */
static void put_tail(struct writer *w)
{
	bool base64;

	w->p = PUT(want(w, 16), "},\"body\":\"");
	base64 = put_body(w);
	w->p = PUT(want(w, 16), "\"");
	put_ends(w);
	put_process(w);
	put_pod(w);
	put_amounts(w, base64);
	put_faults(w);
	if (w->m->request_method.len > 0)
		put_request(w);
	w->p = PUT(want(w, 16), "}\n");
}

static void begin(struct writer *w, const struct plan *plan)
{
	w->plan = *plan;
	w->p = w->start;
	w->end = w->start + w->room + WANT_MAX;
	w->full = false;
}

/* How much was written; 0: more than there is room. */
static size_t written(const struct writer *w)
{
	size_t size = w->full ? 0 : (size_t)(w->p - w->start);

	return size <= w->room ? size : 0;
}

static size_t write_line(struct writer *w, const struct plan *plan, const struct groups *groups)
{
	begin(w, plan);
	put_start(w);
	put_headers(w, groups);
	put_tail(w);
	return written(w);
}

/* ---- lines that are too long ---- */

/*
 * The longest limit under which all texts together take at most `budget`. Sizes are known by powers
 * of two only: those that share one with the limit count as if they reached it, so the limit may be
 * lower than it could be, never higher.
 */
static size_t common_limit(const struct sizes *sizes, size_t budget)
{
	uint64_t below = 0, above = 0, limit = budget;

	for (size_t i = 0; i < ARRAY_SIZE(sizes->count); i++)
		above += sizes->count[i];
	for (size_t i = 0; i < ARRAY_SIZE(sizes->count) && above > 0; i++) {
		limit = (budget - below) / above;
		if (limit < UINT64_C(1) << i)
			break;
		below += sizes->sum[i];
		above -= sizes->count[i];
	}
	return (size_t)limit;
}

/*
 * The line does not fit as it is. First without its body, to see what the body may take; then with
 * shorter values and texts, the longest first; then with fewer headers. Each attempt stops where
 * the room ends, so that a message costs little more than those that fit, however long it is.
 */
static size_t fit(struct writer *w, const struct groups *groups)
{
	struct plan plan = {.body = NO_LIMIT, .value = NO_LIMIT, .text = NO_LIMIT};
	struct sizes sizes = {0};
	size_t size, limit;

	if (w->m->body.len > 0) {
		plan.binary = escape_is_binary(body_text(w->m));
		plan.body = 0;
		size = write_line(w, &plan, groups);
		if (size > 0) {
			/* One byte is the difference between "false" and "true". */
			plan.body = w->room - size - MIN(w->room - size, (size_t)1);
			return write_line(w, &plan, groups);
		}
	}
	plan.headers_cut = true;
	plan.value = plan.text = 0;
	w->sizes = &sizes;
	size = write_line(w, &plan, groups);
	w->sizes = NULL;
	limit = size > 0 ? common_limit(&sizes, w->room - size) : 0;
	if (limit >= VALUE_MIN) {
		plan.value = plan.text = limit;
		return write_line(w, &plan, groups);
	}
	plan.value = VALUE_MIN * 2;
	plan.text = w->room / 32;
	begin(w, &plan);
	put_tail(w);
	plan.after = written(w);
	plan.leave_out = true;
	return write_line(w, &plan, groups);
}

/* What the line takes at most. */
static size_t line_bound(const struct dump_format *format, const struct dump_message *m)
{
	const struct http_head *head = m->head;
	size_t bytes = head->method.len + head->target.len + head->version.len + m->body.len;

	for (uint32_t i = 0; i < head->n_fields; i++)
		bytes += head->fields[i].name.len + head->fields[i].value.len + FIELD_MAX;
	bytes += strlen(format->node) + (m->error ? strlen(m->error) : 0) + m->request_method.len +
		 m->request_path.len + m->request_host.len + m->pod.namespace.len + m->pod.pod.len +
		 m->pod.container.len;
	return FIXED_MAX + bytes * ESCAPE_MAX;
}

static int append_line(const struct dump_format *format, const struct dump_message *message,
	size_t room, struct buf *out)
{
	static const struct plan no_plan = {.body = NO_LIMIT, .value = NO_LIMIT, .text = NO_LIMIT};
	CLEANUP(groups_done)
	struct groups groups;
	struct writer w;
	size_t size;
	int r;

	r = groups_init(&groups, message);
	if (r < 0)
		return r;
	r = buf_reserve(out, room + SLACK);
	if (r < 0)
		return r;
	w.format = format;
	w.m = message;
	w.sizes = NULL;
	w.mapped = message->head->size <= ESCAPE_MAP_BYTES;
	if (w.mapped)
		escape_map(&w.head, message->bytes, message->head->size);
	begin_redaction(&w);
	w.start = out->data + out->len;
	w.room = room;
	size = write_line(&w, &no_plan, &groups);
	if (unlikely(size == 0))
		size = fit(&w, &groups);
	if (unlikely(size == 0))
		return -ENOBUFS;
	out->len += size;
	return 0;
}

int dump_json(const struct dump_format *format, const struct dump_message *message, struct buf *out)
{
	size_t room = MAX(format->line_max, (size_t)DUMP_LINE_MIN);
	CLEANUP(buf_done)
	struct buf line = BUF_INIT(room + SLACK);
	int r;

	/* not more memory than the line can need, where that is a question */
	if (unlikely(room > DUMP_LINE_MAX)) {
		room = MIN(room, line_bound(format, message));
		line.max = room + SLACK;
	}

	if (likely(out->len <= out->max && out->max - out->len >= room + SLACK))
		return append_line(format, message, room, out);
	/* There may still be room for what the line turns out to be. */
	r = append_line(format, message, room, &line);
	return r < 0 ? r : buf_append(out, line.data, line.len);
}
