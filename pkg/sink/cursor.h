/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cursor: how far a spool has been read, on disk. Internal to this room.
 *
 * One file with two places, which are written in turn, so that the last one that is whole counts.
 * A store is one write to the page cache: it outlives the process, not the machine. So it holds
 * which boot it belongs to: after another one, it may be older than what was delivered.
 */
#ifndef EBPFDUMP_SINK_CURSOR_H
#define EBPFDUMP_SINK_CURSOR_H

#include "pkg/base/base.h"
#include "pkg/sink/spool.h"

/* A batch that was handed out and not acknowledged. */
struct cursor_batch {
	uint64_t segment;
	uint64_t start, end; /* in the file */
	uint64_t bytes;	     /* of its bodies */
	uint32_t first;	     /* index of the first record */
	uint32_t count;
};

#define CURSOR_BOOT 40

struct cursor {
	char boot[CURSOR_BOOT]; /* which boot this is; empty where that cannot be known */
	uint64_t generation;
	uint64_t segment; /* the first message that was never handed out is in this, */
	uint64_t at;	  /* here */
	uint64_t suspect; /* messages in segments up to this one may have been, all the same */
	uint32_t index;
	uint32_t count;
	struct cursor_batch batches[SPOOL_BATCHES_MAX];
};

#define CURSOR_BYTES ((off_t)2 * ((off_t)sizeof(struct cursor) + 16)) /* of the file, at most */

/* Fills c. 1: it is exact; 0: there is none, or it may be older than what has been handed out (c is
 * then the newest that is known). -ENOMEM. */
int cursor_load(int fd, struct cursor *c) MUST_CHECK;
/* Counts c->generation up. */
int cursor_store(int fd, struct cursor *c) MUST_CHECK;

#endif
