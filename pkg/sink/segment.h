/* SPDX-License-Identifier: Apache-2.0 */
/*
 * segment: one file of the spool. Internal to this room.
 *
 *	mark    64 bytes: magic "EBDSPOOL", version, number, nonce, checksum
 *	record  48 bytes of header, the body; no padding, so that sizes give counts of bytes
 *	...
 *	mark    magic "EBDSPEND", and how many records there are: written when it is full
 *
 * The checksum of a record's header covers the nonce (random, one for each segment) and the offset
 * as well, and the header holds the body's: a record is only one at its own place in its own file,
 * and a body cannot hold bytes that pass for a record. index counts records in the segment: behind
 * a damaged place it says how many are missing. Native byte order (another one reads as another
 * version).
 */
#ifndef EBPFDUMP_SINK_SEGMENT_H
#define EBPFDUMP_SINK_SEGMENT_H

#include "pkg/base/base.h"
#include "pkg/sink/spool.h"

#define SEGMENT_MARK	64 /* bytes at each end */
#define SEGMENT_HEADER	48 /* bytes before each body */
#define SEGMENT_APPEND	64 /* records of one write */
#define SEGMENT_NAME	32 /* with the NUL */
#define SEGMENT_RECORDS (UINT32_MAX - 1)

struct segment {
	struct segment *next; /* the spool's list, oldest first */
	uint64_t number;
	uint64_t nonce;
	uint64_t end;	   /* where the records end */
	uint32_t messages; /* with index 0 to messages - 1 */
	uint64_t first_ns; /* queued_ns of the first */
	int fd;		   /* -1: not open */
	bool sealed;	   /* nothing is appended any more */
	bool nameless;	   /* somebody removed the file: there is only the fd */

	/* Unread: from here to the end. */
	uint64_t read_at;
	uint32_t read_index;
	uint64_t read_ns; /* of the last that was read; 0: none in this life */
	uint32_t out;	  /* batches that point into it */
};

/* What has been read ahead. */
struct segment_window {
	char *data;
	const struct segment *of; /* NULL: nothing */
	uint64_t at;
	size_t len;
};
#define SEGMENT_WINDOW ((size_t)256 << 10)

struct segment_found {
	uint64_t at; /* of the header */
	uint32_t len;
	uint32_t index;
	uint32_t body_crc;
	uint64_t seq, order, queued_ns;
};

void segment_name(char name[SEGMENT_NAME], uint64_t number);
bool segment_number(const char *name, uint64_t *ret_number);

static inline uint32_t segment_unread(const struct segment *s)
{
	return s->messages - s->read_index;
}

/* Bytes of bodies among the unread. */
static inline uint64_t segment_unread_bytes(const struct segment *s)
{
	return s->end - s->read_at - (uint64_t)SEGMENT_HEADER * segment_unread(s);
}

/* What it takes on the disk, with the trailer that comes. */
static inline uint64_t segment_disk(const struct segment *s)
{
	return s->end + SEGMENT_MARK;
}

/* -EEXIST: the number is taken. */
int segment_create(int dir_fd, uint64_t number, struct segment **ret_segment) MUST_CHECK;
/*
 * A segment that is there. One that was not finished is scanned, cut behind its last good record
 * (*ret_torn: how many bytes that cost) and finished. -ENODATA: it holds no record. -EPROTO: it is
 * not ours, or of another version. -EBADMSG: both ends are damaged (*ret_torn: its size).
 */
int segment_load(int dir_fd, uint64_t number, struct segment_window *window,
	struct segment **ret_segment, uint64_t *ret_torn) MUST_CHECK;
void segment_free(struct segment *s);

/* Opens it again for reading and cutting; nothing if it is open. */
int segment_open(int dir_fd, struct segment *s) MUST_CHECK;
/* At most SEGMENT_APPEND items. How many are in the file, or what went wrong with the first. A
 * segment that cannot be cut to what it should hold is sealed. */
int segment_append(struct segment *s, const struct spool_item *items, size_t n) MUST_CHECK;
/* Writes the trailer: the next life need not read it all. Failing that is no harm. */
void segment_seal(struct segment *s);
/* Forgets the unread. */
void segment_cut(struct segment *s);

/* The first good header at or behind `at` with an index of at least `index`, its body ending by
 * `end`. false: there is none. */
bool segment_find(const struct segment *s, struct segment_window *window, uint64_t at,
	uint32_t index, uint64_t end, struct segment_found *ret_found);
/* Reads the body. false: it is damaged. */
bool segment_body(const struct segment *s, struct segment_window *window,
	const struct segment_found *found, char *out);

#endif
