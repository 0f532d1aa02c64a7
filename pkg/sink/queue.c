/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Segments come from mmap(2), not from malloc(): an outage fills the queue, and what it took must
 * go back to the system when it is over.
 */
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "pkg/sink/queue.h"

#define SEGMENT_MIN ((size_t)16 << 10)
#define SEGMENT_MAX ((size_t)256 << 10)
#define SPARES_MAX  16 /* 4 MiB at most: pages that are there need not be asked for */

struct queue_segment {
	struct queue_segment *next; /* in the lane */
	uint32_t refs;		    /* the lane, and ranges that are taken */
	size_t cap, tail;	    /* of data */
	char data[];
};

/* In front of each message. */
struct header {
	uint64_t seq, order, queued_ns;
	uint64_t len;
};

static size_t room_for(size_t len)
{
	return sizeof(struct header) + (len + 7) / 8 * 8;
}

void queue_init(struct queue *q, size_t max_bytes, uint32_t lanes)
{
	size_t bytes = SEGMENT_MAX;

	/* A few segments for each lane: no lane can starve another. */
	while (bytes > SEGMENT_MIN && bytes > max_bytes / (lanes * 4))
		bytes /= 2;
	*q = (struct queue){.max_bytes = max_bytes, .segment_bytes = bytes, .n_lanes = lanes};
}

static void free_segment(struct queue *q, struct queue_segment *s)
{
	size_t bytes = sizeof(*s) + s->cap;

	if (bytes == q->segment_bytes && q->n_spare < SPARES_MAX) {
		s->next = q->spare;
		q->spare = s;
		q->n_spare++;
		return;
	}
	q->used_bytes -= bytes;
	munmap(s, bytes);
}

static struct queue_segment *take_spare(struct queue *q)
{
	struct queue_segment *s = q->spare;

	q->spare = s->next;
	q->n_spare--;
	return s;
}

static void unmap_spare(struct queue *q)
{
	q->used_bytes -= q->segment_bytes;
	munmap(take_spare(q), q->segment_bytes);
}

static void unref(struct queue *q, struct queue_segment *s)
{
	if (--s->refs == 0)
		free_segment(q, s);
}

void queue_done(struct queue *q)
{
	for (uint32_t i = 0; i < q->n_lanes; i++) {
		struct queue_segment *s = q->lanes[i].first;

		while (s) {
			struct queue_segment *next = s->next;

			unref(q, s);
			s = next;
		}
	}
	while (q->spare)
		unmap_spare(q);
	*q = (struct queue){0};
}

uint32_t queue_lane_of(const struct queue *q, uint64_t order)
{
	/* the high bits of a product depend on all bits */
	return (uint32_t)(((order * UINT64_C(0x9e3779b97f4a7c15)) >> 32) * q->n_lanes >> 32);
}

static int new_segment(struct queue *q, size_t room, struct queue_segment **ret_segment)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), bytes = q->segment_bytes;
	struct queue_segment *s;

	if (room > bytes - sizeof(*s))
		bytes = (sizeof(*s) + room + page - 1) / page * page;
	if (q->spare && bytes == q->segment_bytes) {
		s = take_spare(q);
	} else {
		if (bytes > q->max_bytes)
			return -EMSGSIZE;
		while (q->spare && bytes > q->max_bytes - q->used_bytes)
			unmap_spare(q);
		if (bytes > q->max_bytes - q->used_bytes)
			return -ENOBUFS;
		s = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (s == MAP_FAILED)
			return -ENOMEM;
		q->used_bytes += bytes;
	}
	s->next = NULL;
	s->refs = 1;
	s->cap = bytes - sizeof(*s);
	s->tail = 0;
	*ret_segment = s;
	return 0;
}

/* An empty lane begins its segment again: the memory is warm, and none is needed. */
static void rewind_lane(struct queue_lane *lane)
{
	if (lane->messages == 0 && lane->first && lane->first == lane->last &&
		lane->first->refs == 1)
		lane->head = lane->first->tail = 0;
}

int queue_push(struct queue *q, const struct queue_item *item)
{
	struct queue_lane *lane = &q->lanes[queue_lane_of(q, item->order)];
	size_t room = room_for(item->body.len);
	struct queue_segment *s = lane->last;
	struct header h;
	int r;

	rewind_lane(lane);
	if (!s || room > s->cap - s->tail) {
		r = new_segment(q, room, &s);
		if (r < 0)
			return r;
		if (lane->last)
			lane->last->next = s;
		else
			lane->first = s;
		lane->last = s;
		/* the lane was empty: what is behind its head is of no use */
		if (lane->messages == 0 && lane->first != s) {
			unref(q, lane->first);
			lane->first = s;
		}
		if (lane->first == s)
			lane->head = 0;
	}
	h = (struct header){.seq = ++q->seq,
		.order = item->order,
		.queued_ns = item->queued_ns,
		.len = item->body.len};
	memcpy(s->data + s->tail, &h, sizeof(h));
	memcpy(s->data + s->tail + sizeof(h), item->body.p, item->body.len);
	s->tail += room;
	lane->messages++;
	lane->bytes += item->body.len;
	q->messages++;
	q->bytes += item->body.len;
	return 0;
}

static void read_header(const struct queue_segment *s, size_t at, struct header *ret_header)
{
	memcpy(ret_header, s->data + at, sizeof(*ret_header));
}

/* The lane's head stands on a message, if it has one. */
static void settle_head(struct queue *q, struct queue_lane *lane)
{
	while (lane->first->next && lane->head == lane->first->tail) {
		struct queue_segment *s = lane->first;

		lane->first = s->next;
		lane->head = 0;
		unref(q, s);
	}
}

uint64_t queue_head_ns(const struct queue *q, uint32_t i)
{
	const struct queue_lane *lane = &q->lanes[i];
	struct header h;

	read_header(lane->first, lane->head, &h);
	return h.queued_ns;
}

static void forget(struct queue *q, struct queue_lane *lane, size_t len)
{
	lane->messages--;
	lane->bytes -= len;
	q->messages--;
	q->bytes -= len;
}

void queue_take(struct queue *q, uint32_t i, uint32_t max_messages, size_t max_bytes,
	struct queue_range *ret_range)
{
	struct queue_lane *lane = &q->lanes[i];
	struct queue_range range = {.first = {.segment = lane->first, .at = lane->head}};
	struct queue_segment *counted = NULL;
	struct header h;

	while (lane->messages > 0 && range.messages < max_messages) {
		read_header(lane->first, lane->head, &h);
		if (range.messages > 0 && h.len > max_bytes - MIN(range.bytes, max_bytes))
			break;
		if (range.messages == 0) {
			range.seq = h.seq;
			range.queued_ns = h.queued_ns;
		}
		if (counted != lane->first) {
			counted = lane->first;
			counted->refs++;
		}
		range.messages++;
		range.bytes += h.len;
		lane->head += room_for(h.len);
		forget(q, lane, h.len);
		settle_head(q, lane);
	}
	*ret_range = range;
}

void queue_give_back(struct queue *q, const struct queue_range *range)
{
	struct queue_cursor c = range->first;
	struct queue_segment *s = c.segment;
	uint32_t left = range->messages;
	struct header h;

	while (left > 0) {
		struct queue_segment *next = s->next;

		/* as many as are in this segment */
		for (; left > 0 && c.at < s->tail; left--) {
			read_header(s, c.at, &h);
			c.at += room_for(h.len);
		}
		unref(q, s);
		s = next;
		c.at = 0;
	}
}

void queue_next(struct queue_cursor *cursor, struct queue_item *ret_item)
{
	struct header h;

	if (cursor->at == cursor->segment->tail)
		*cursor = (struct queue_cursor){.segment = cursor->segment->next};
	read_header(cursor->segment, cursor->at, &h);
	*ret_item = (struct queue_item){.seq = h.seq,
		.order = h.order,
		.queued_ns = h.queued_ns,
		.body = span_of(cursor->segment->data + cursor->at + sizeof(h), h.len)};
	cursor->at += room_for(h.len);
}

int queue_oldest(const struct queue *q, uint64_t *ret_seq, uint64_t *ret_ns)
{
	uint64_t best = UINT64_MAX;
	int lane = -1;
	struct header h;

	for (uint32_t i = 0; i < q->n_lanes; i++) {
		if (q->lanes[i].messages == 0)
			continue;
		read_header(q->lanes[i].first, q->lanes[i].head, &h);
		if (h.seq < best) {
			best = *ret_seq = h.seq;
			*ret_ns = h.queued_ns;
			lane = (int)i;
		}
	}
	return lane;
}

uint64_t queue_drop(struct queue *q, uint32_t i, uint64_t *ret_bytes)
{
	struct queue_lane *lane = &q->lanes[i];
	struct queue_segment *s = lane->first;
	uint64_t messages = 0, bytes = 0;
	struct header h;

	while (lane->messages > 0 && lane->first == s && lane->head < s->tail) {
		read_header(s, lane->head, &h);
		lane->head += room_for(h.len);
		forget(q, lane, h.len);
		messages++;
		bytes += h.len;
	}
	settle_head(q, lane);
	/* the lane's only segment, nobody's now */
	if (lane->messages == 0) {
		unref(q, lane->first);
		lane->first = lane->last = NULL;
		lane->head = 0;
	}
	if (ret_bytes)
		*ret_bytes = bytes;
	return messages;
}
