/* SPDX-License-Identifier: Apache-2.0 */
/*
 * queue: messages in memory, until a receiver has them. Internal to this room.
 *
 * A queue has lanes; all messages of a connection (the same `order`) go to one lane, and each lane
 * is first in, first out. A lane is a chain of segments to which messages are copied once; a parcel
 * (what one request carries) is a range of a lane and is sent from there. Memory is counted and
 * given back by segments: one is free when the lane has moved past it and no parcel is in it.
 */
#ifndef EBPFDUMP_SINK_QUEUE_H
#define EBPFDUMP_SINK_QUEUE_H

#include "pkg/base/base.h"

#define QUEUE_LANES_MAX 32
#define QUEUE_BYTES_MIN ((size_t)1 << 20)

struct queue_segment;

struct queue_item {
	uint64_t seq;	    /* set by queue_push(): counts messages */
	uint64_t order;	    /* messages with the same value belong in order */
	uint64_t queued_ns; /* wall clock */
	struct span body;
};

struct queue_lane {
	struct queue_segment *first, *last; /* NULL: no segment */
	size_t head;			    /* of first: what has been taken */
	uint64_t messages, bytes;	    /* not taken; bytes of bodies */
};

struct queue {
	size_t max_bytes, used_bytes; /* of segments */
	size_t segment_bytes;
	struct queue_segment *spare; /* a few, for the next ones that are needed */
	uint32_t n_spare;
	uint32_t n_lanes;
	uint64_t seq;		  /* of the last message */
	uint64_t messages, bytes; /* not taken, of all lanes */
	struct queue_lane lanes[QUEUE_LANES_MAX];
};

/* Where one is in a range of messages. */
struct queue_cursor {
	struct queue_segment *segment;
	size_t at;
};

struct queue_range {
	struct queue_cursor first;
	uint32_t messages;
	size_t bytes;		 /* of bodies */
	uint64_t seq, queued_ns; /* of the first message */
};

/* max_bytes >= QUEUE_BYTES_MIN; lanes 1..QUEUE_LANES_MAX. No memory is taken yet. */
void queue_init(struct queue *q, size_t max_bytes, uint32_t lanes);
/* Everything; ranges that are taken must have been given back. */
void queue_done(struct queue *q);

uint32_t queue_lane_of(const struct queue *q, uint64_t order);
/* Copies the message. -ENOBUFS: it would exceed max_bytes; -EMSGSIZE: it would alone; -ENOMEM. */
int queue_push(struct queue *q, const struct queue_item *item) MUST_CHECK;
/* When the lane's oldest message was queued. The lane is not empty. */
uint64_t queue_head_ns(const struct queue *q, uint32_t lane);
/* The oldest messages of a lane (not empty), at most so many and, unless the first alone is more,
 * at most so many bytes. They stay in memory until queue_give_back(). */
void queue_take(struct queue *q, uint32_t lane, uint32_t max_messages, size_t max_bytes,
	struct queue_range *ret_range);
void queue_give_back(struct queue *q, const struct queue_range *range);
/* The message at the cursor; moves it on. Only so often as the range has messages. */
void queue_next(struct queue_cursor *cursor, struct queue_item *ret_item);

/* The lane with the oldest message of all, and when that was queued; -1: all
 * are empty. */
int queue_oldest(const struct queue *q, uint64_t *ret_seq, uint64_t *ret_ns);
/* Gives up the messages of the lane's first segment that are not taken. Returns how many. */
uint64_t queue_drop(struct queue *q, uint32_t lane, uint64_t *ret_bytes);

#endif
