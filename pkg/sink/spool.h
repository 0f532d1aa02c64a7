/* SPDX-License-Identifier: Apache-2.0 */
/*
 * spool: a bounded queue of messages on disk, first in, first out; what the callback sink falls
 * back on while the receiver is away. Internal to this room.
 *
 * A directory of segments, each a file that is only appended to:
 *
 *	spool-<number, 16 hex digits>.seg   header, records, trailer (64 bytes each end)
 *	cursor                              how far it has been read, and what is being delivered
 *
 * Life of a message: spool_append() writes it to the page cache; spool_read() hands it out in a
 * batch; spool_ack() forgets the batch. A segment is removed when nothing in it is left.
 *
 * What survives
 *  - The death of the process at any point (kill -9): every message that spool_append() counted,
 *    and nothing else. A record that was cut short is removed at the next start (torn). The cursor
 *    is on record before a batch is handed out, so the next life hands out the batches that were
 *    not acknowledged with the same boundaries, the same key and `again` set, before all others;
 *    what was acknowledged never comes again.
 *  - The death of the machine: what reached the disk. A whole segment is synced in the background
 *    when it is full, and so is the cursor; the kernel writes the rest within about 30 s by itself.
 *    Whatever the spool holds at the first start after a boot is handed out with `again`.
 *  - Damage: every record and both ends of a segment carry checksums (CRC-32, over the content and
 *    the place where it belongs). A record that is not what was written is never handed out. The
 *    next good one is looked for; its index in the segment says how many messages are lost.
 *  - A full disk: spool_append() fails and leaves nothing half written; it works again later.
 *  - Files in the directory that are not its own: left alone, said once in the log.
 *  - The directory going away: what is open is read to the end, the rest is lost and counted; the
 *    next segment makes the directory again.
 *  - Steps of the wall clock: times are the caller's and not looked at.
 *
 * What blocks: nothing waits for the disk but spool_sync(), spool_free(), and, when a machine has
 * more dirty pages than vm.dirty_ratio allows, write(2) itself. fsync(2) runs in a thread of its
 * own (started when the first segment is full, all signals blocked). A read that misses the page
 * cache waits for the disk's read: at most SEGMENT_WINDOW (256 KiB) at a time. Measured on ext4,
 * virtual disk, quiet machine, messages of 1 KiB one by one (median; 99 of 100; longest):
 *
 *	spool_append()			3.0 us; 8 us; 1 to 5 ms (1.1 us each in groups of 32)
 *	  that ends a segment		0.1 ms; 0.2 ms; 0.2 ms
 *	spool_read()			1.6 us; 3 us; 2 to 4 ms
 *	spool_ack() that removes 8 MiB	3 ms; 4 to 8 ms; 4 to 8 ms
 *
 * One thread calls all of this.
 */
#ifndef EBPFDUMP_SINK_SPOOL_H
#define EBPFDUMP_SINK_SPOOL_H

#include "pkg/base/base.h"

struct spool;

#define SPOOL_BATCHES_MAX 1024	/* handed out and not acknowledged, at a time */
#define SPOOL_KEY_MAX	  64	/* of spool_key(), with the NUL */
#define SPOOL_BYTES_MIN	  65536 /* the least a spool can be limited to */

struct spool_options {
	const char *dir;    /* made (0700) if it is not there; its parent must be */
	uint64_t max_bytes; /* of all segments, as files, without the cursor (at most 100 KiB) */
	uint64_t segment_bytes; /* 0: an eighth of max_bytes, 64 KiB to 8 MiB */
};

/* A message to append. The spool does not look into any of it. */
struct spool_item {
	struct span body;
	uint64_t seq;
	uint64_t order; /* messages with the same value belong in order: a hash of the connection */
	uint64_t queued_ns; /* wall clock, when it was queued first */
};

/* A message in a batch. */
struct spool_record {
	struct span body; /* in the batch */
	uint64_t seq;
	uint64_t order;
	uint64_t queued_ns;
};

/* Bodies lie behind each other without a gap: data is the concatenation of them all. */
struct spool_batch {
	char *data;
	size_t len;
	struct spool_record *records;
	size_t count; /* at least 1 */
	bool again;   /* may have been delivered by an earlier life of the spool */
};

/*
 * Now: messages and bytes include what is handed out. Since spool_open(), exactly, at every call:
 *
 *	recovered + appended = acknowledged + dropped + lost + messages
 */
struct spool_stats {
	uint64_t messages, bytes; /* spooled now; bytes of bodies */
	uint64_t out;		  /* of these handed out */
	uint64_t disk_bytes;	  /* of segment files, now */
	uint64_t segments;	  /* files, now */
	uint64_t oldest_ns; /* queued_ns of the oldest (of the segment's first where the head was
			     * read in an earlier life); 0: there is none */

	uint64_t recovered;	/* found by spool_open() */
	uint64_t appended;	/* accepted by spool_append() */
	uint64_t acknowledged;	/* by spool_ack() */
	uint64_t dropped;	/* by spool_drop_oldest() */
	uint64_t lost;		/* spooled, but damaged or gone when it was their turn */
	uint64_t lost_bytes;	/* bytes of files that were skipped as damaged; also where it is not
				 * known how many messages they held */
	uint64_t torn;		/* ends of segments that were cut off as unfinished, */
	uint64_t torn_bytes;	/* and their size */
	uint64_t foreign;	/* files in the directory that are not ours */
	uint64_t write_errors;	/* appends that failed though the spool was not at its limit */
	uint64_t cursor_errors; /* times the cursor could not be written: what was handed out then
				 * may come again unmarked */
	uint64_t unsynced; /* segments left to the kernel to sync: the disk is slower than we are */
	int error;	   /* errno of the last append that failed so; 0 after one that worked */
};

/*
 * Opens, or makes, a spool and counts what is there. Reads the last 64 bytes of each segment; a
 * segment that was not finished (the last one, after a crash) as a whole. -EBUSY: another process
 * has it; any other error as well names the path. -EINVAL: max_bytes below SPOOL_BYTES_MIN.
 */
int spool_open(
	const struct spool_options *options, struct spool **ret_spool, struct err *err) MUST_CHECK;
/* Finishes the last segment and syncs: may wait for the disk. What is left stays for the next life;
 * batches that are handed out become invalid and are handed out again by it. */
void spool_free(struct spool *spool);
void spool_freep(struct spool **spool);

/*
 * Appends n items, or the first of them. Returns how many (> 0): these are counted, and the
 * caller's no longer. Else none was appended, and nothing is left of it:
 *  -ENOSPC    the spool is at its limit, or the disk is full (stats.error tells: 0 for the limit).
 *             spool_drop_oldest() makes room
 *  -EMSGSIZE  the first item can never fit
 *  other      what the system says (-EIO, -EROFS, -EDQUOT ...): may pass
 */
int spool_append(struct spool *spool, const struct spool_item *items, size_t n) MUST_CHECK;

/*
 * Hands out the oldest messages that are not handed out: at most max_messages, at most max_bytes
 * unless the first alone is larger. Batches of an earlier life come first and keep their
 * boundaries, whatever the limits say. 1; 0: there is none (or SPOOL_BATCHES_MAX are out);
 * negative: cannot now (-EMFILE, -ENOMEM ...), nothing is lost.
 */
int spool_read(struct spool *spool, size_t max_messages, size_t max_bytes,
	struct spool_batch **ret_batch) MUST_CHECK;
/* The fate of these messages is decided: forgets and frees the batch. In any order. NULL is
 * allowed. */
void spool_ack(struct spool *spool, struct spool_batch *batch);
/* Writes the batch's name, which no other batch ever has, in this life or another: for an
 * Idempotency-Key. Hexadecimal digits and '-'. Returns its length; NUL behind it. */
size_t spool_key(const struct spool_batch *batch, char key[SPOOL_KEY_MAX]);

/*
 * Drops the messages of the oldest segment that are not handed out, and frees their space. Returns
 * how many messages that cost; 0: there are none. Their bodies are added to *ret_bytes (may be
 * NULL).
 */
uint64_t spool_drop_oldest(struct spool *spool, uint64_t *ret_bytes);

/* Waits until all is on the disk. */
int spool_sync(struct spool *spool) MUST_CHECK;

void spool_stats(const struct spool *spool, struct spool_stats *ret_stats);

#endif
