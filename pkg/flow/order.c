/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "pkg/flow/internal.h"

/* No TCP window is larger: a sequence number further away is not of this stream as we know it. */
#define JUMP_MAX (1 << 30)
/* Packets held per direction: bounds the search for the place of one. */
#define HELD_MAX 1024

struct piece {
	struct when when;
	uint32_t seq;
	uint32_t length;
	uint32_t captured;
	const char *data;
};

static int32_t ahead(uint32_t seq, uint32_t of)
{
	return (int32_t)(seq - of);
}

/* A piece that begins at or before what is next. */
static void take(struct flow *flow, struct conn *c, unsigned dir, const struct piece *p)
{
	struct stream *s = &c->streams[dir];
	uint32_t known = s->next - p->seq, cut;

	if (known >= p->length) {
		flow->stats.bytes_repeated += p->captured;
		return;
	}
	cut = MIN(known, p->captured);
	flow->stats.bytes_repeated += cut;
	s->next = p->seq + p->length;
	s->at = p->seq + cut;
	if (p->captured > cut)
		message_bytes(flow, c, dir, &p->when, p->data + cut, p->captured - cut);
	known -= cut;
	if (p->length - p->captured > known)
		message_gap(flow, c, dir, p->length - p->captured - known);
}

static void gap_to(struct flow *flow, struct conn *c, unsigned dir, uint32_t seq)
{
	struct stream *s = &c->streams[dir];
	int32_t n = ahead(seq, s->next);

	if (n <= 0)
		return;
	s->next = seq;
	message_gap(flow, c, dir, (uint32_t)n);
}

/* ---- packets that came early ---- */

static void holding_update(struct flow *flow, struct conn *c, uint64_t now_ns)
{
	bool want = c->streams[0].held || c->streams[1].held;

	if (want && link_alone(&c->holding)) {
		c->holding_since_ns = now_ns;
		link_after(flow->holding.prev, &c->holding);
	} else if (!want && !link_alone(&c->holding)) {
		link_remove(&c->holding);
	}
}

static struct held *unhold(struct flow *flow, struct conn *c, struct stream *s)
{
	struct held *h = s->held;

	s->held = h->next;
	if (!s->held)
		s->held_tail = NULL;
	s->n_held--;
	flow->stats.bytes_unfinished -= h->captured;
	flow_uncharge(flow, c, sizeof(*h) + h->captured);
	return h;
}

void order_drop(struct flow *flow, struct conn *c, unsigned dir)
{
	struct stream *s = &c->streams[dir];

	while (s->held) {
		CLEANUP(freep)
		struct held *h = unhold(flow, c, s);

		flow->stats.bytes_unparsed += h->captured;
	}
	holding_update(flow, c, 0);
}

/* Takes the first of those held, whatever is missing before it. */
static void take_held(struct flow *flow, struct conn *c, unsigned dir)
{
	struct stream *s = &c->streams[dir];
	CLEANUP(freep)
	struct held *h = unhold(flow, c, s);

	if (!s->started) {
		s->started = true;
		s->next = h->seq;
		message_start(flow, c, dir, false);
	}
	gap_to(flow, c, dir, h->seq);
	take(flow, c, dir,
		&(struct piece){.when = h->when,
			.seq = h->seq,
			.length = h->length,
			.captured = h->captured,
			.data = h->data});
}

/* Takes those for which nothing is missing any more. */
static void drain(struct flow *flow, struct conn *c, unsigned dir, uint64_t now_ns)
{
	struct stream *s = &c->streams[dir];

	while (s->held && s->started && ahead(s->held->seq, s->next) <= 0)
		take_held(flow, c, dir);
	s->held_since_ns = now_ns;
	holding_update(flow, c, now_ns);
}

void order_flush(struct flow *flow, struct conn *c, unsigned dir)
{
	while (c->streams[dir].held)
		take_held(flow, c, dir);
	holding_update(flow, c, 0);
}

void order_expire(struct flow *flow, struct conn *c, unsigned dir, uint64_t now_ns)
{
	struct stream *s = &c->streams[dir];

	if (!s->held || now_ns <= s->held_since_ns ||
		now_ns - s->held_since_ns <= flow->options.hold_ms * UINT64_C(1000000))
		return;
	take_held(flow, c, dir);
	drain(flow, c, dir, now_ns);
}

/* False: no room. */
static bool hold(struct flow *flow, struct conn *c, unsigned dir, const struct piece *p)
{
	struct stream *s = &c->streams[dir];
	struct held *h, **at = &s->held;
	size_t size = sizeof(*h) + p->captured;

	if (s->n_held >= HELD_MAX)
		return false;
	if (!flow_charge_hard(flow, c, size)) {
		flow->stats.over_memory++;
		return false;
	}
	h = flow_realloc(NULL, size);
	if (!h) {
		flow_uncharge(flow, c, size);
		return false;
	}
	h->when = p->when;
	h->seq = p->seq;
	h->length = p->length;
	h->captured = p->captured;
	if (p->captured > 0)
		memcpy(h->data, p->data, p->captured);
	if (s->held_tail && ahead(p->seq, s->held_tail->seq) >= 0) {
		at = &s->held_tail->next;
	} else {
		while (*at && ahead(p->seq, (*at)->seq) >= 0)
			at = &(*at)->next;
	}
	h->next = *at;
	*at = h;
	if (!h->next)
		s->held_tail = h;
	if (s->n_held++ == 0)
		s->held_since_ns = p->when.mono_ns;
	flow->stats.held++;
	flow->stats.bytes_unfinished += p->captured;
	holding_update(flow, c, p->when.mono_ns);
	return true;
}

/* ---- records ---- */

/* The sequence number has nothing to do with what came before. */
static void restart(struct flow *flow, struct conn *c, unsigned dir, uint32_t seq)
{
	struct stream *s = &c->streams[dir];

	order_flush(flow, c, dir);
	message_give_up(flow, c, dir, FLOW_ERROR_JUMP);
	message_lose(flow, c, dir);
	s->next = seq;
}

/*
 * What was taken from seq on was offered to the socket and did not leave; another message came in
 * its place. A whole message that was offered has been emitted, which cannot be undone; but nobody
 * will answer it.
 */
static void retract(struct flow *flow, struct conn *c, unsigned dir, uint32_t seq)
{
	struct stream *s = &c->streams[dir];

	if (s->state != STREAM_HEAD)
		pair_retract(flow, c, dir);
	message_give_up(flow, c, dir, FLOW_ERROR_RETRACTED);
	message_start(flow, c, dir, false);
	s->next = seq;
}

void order_data(struct flow *flow, struct conn *c, const struct capture_record *record,
	const char *data, struct when when)
{
	unsigned dir = record->direction;
	struct stream *s = &c->streams[dir];
	bool packet = record->flags & CAPTURE_F_PACKET;
	struct piece p = {.when = when,
		.seq = record->seq,
		.length = record->length,
		.captured = record->captured,
		.data = data};

	s->ended = false;
	if (unlikely(!s->started)) {
		bool first = record->flags & CAPTURE_F_FIRST;

		/* in the middle, or the first packets change places */
		if (packet && !first && !message_begins(data, p.captured)) {
			if (hold(flow, c, dir, &p))
				return;
			order_flush(flow, c, dir);
		}
		if (!s->started) {
			s->started = true;
			s->next = p.seq;
			message_start(flow, c, dir, first);
		}
	}
	if (unlikely(record->flags & CAPTURE_F_RETRACT) && ahead(p.seq, s->next) < 0 &&
		message_begins(data, p.captured))
		retract(flow, c, dir, p.seq);
	if (unlikely(p.seq != s->next)) {
		int32_t n = ahead(p.seq, s->next);

		if (n > JUMP_MAX || n < -JUMP_MAX) {
			restart(flow, c, dir, p.seq);
		} else if (n > 0) {
			if (packet && hold(flow, c, dir, &p)) {
				order_expire(flow, c, dir, when.mono_ns);
				return;
			}
			while (s->held && ahead(s->held->seq, p.seq) <= 0)
				take_held(flow, c, dir);
			gap_to(flow, c, dir, p.seq);
		}
	}
	take(flow, c, dir, &p);
	if (unlikely(s->held))
		drain(flow, c, dir, when.mono_ns);
	else if (unlikely(!link_alone(&c->holding)))
		holding_update(flow, c, when.mono_ns);
}

void order_end(struct flow *flow, struct conn *c, const struct capture_record *record, unsigned dir)
{
	struct stream *s = &c->streams[dir];

	order_flush(flow, c, dir);
	if (s->started && record->flags & CAPTURE_F_SEQ && record->direction == dir &&
		ahead(record->seq, s->next) <= JUMP_MAX)
		gap_to(flow, c, dir, record->seq);
	message_end(flow, c, dir, record->flags & CAPTURE_F_RESET);
	s->ended = true;
}
