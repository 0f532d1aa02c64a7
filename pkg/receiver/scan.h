/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scan: the body of a POST, read in one pass. JSON is checked by the letter (RFC 8259, UTF-8, at
 * most SCAN_DEPTH deep), and what the receiver wants to know of each message is pointed at: nothing
 * is copied, nothing is allocated. That, and not a tree of objects, is what lets one core take some
 * 100 000 messages a second.
 *
 * A body is one object, objects one a line (white space with a newline in it between two), or an
 * array of objects. Each must have the ten keys of a NetworkDump, once, with values of the right
 * type; other keys may hold anything.
 */
#ifndef EBPFDUMP_RECEIVER_SCAN_H
#define EBPFDUMP_RECEIVER_SCAN_H

#include "pkg/base/base.h"

#define SCAN_DEPTH 64 /* objects and arrays within each other, the message being the first */

enum message_text {
	MSG_REMOTE_IP,
	MSG_METHOD,
	MSG_PATH,
	MSG_VERSION,
	MSG_BODY,
	MSG_SRC_IP,
	MSG_DST_IP,
	MSG_NODE,
	MSG_COMM,
	MSG_NAMESPACE,
	MSG_POD,
	MSG_EXCHANGE_ID,
	MSG_ERROR,
	MSG_HOST, /* the first value of the header Host */
	MSG_REQUEST_METHOD,
	MSG_REQUEST_PATH,
	MSG_REQUEST_HOST,
	MSG_TEXTS
};

enum message_number {
	MSG_DIRECTION,
	MSG_TIMING_MS,
	MSG_REMOTE_PORT,
	MSG_STATUS_CODE,
	MSG_SRC_PORT,
	MSG_DST_PORT,
	MSG_BODY_BYTES,
	MSG_LATENCY_US,
	MSG_NUMBERS
};

/* Texts are as they stand between their quotes, escapes and all; p is NULL where a key is missing
 * or has a value of another type (possible only behind MSG_BODY). */
struct message {
	struct span json; /* from { to } */
	bool spaced;	  /* white space is between its tokens */
	uint32_t has;	  /* bit: enum message_number */
	struct span text[MSG_TEXTS];
	uint64_t number[MSG_NUMBERS];
};

static inline bool message_has(const struct message *m, enum message_number n)
{
	return m->has >> n & 1;
}

struct scan {
	const char *begin, *p, *end;
	bool array; /* [ has been read */
	bool started;
	size_t space; /* bytes of white space so far */
	struct err *err;
};

void scan_init(struct scan *s, struct span body, struct err *err);
/* 1: the next message. 0: there is no more. -EBADMSG: err says "line N, column N: what is wrong";
 * columns count bytes. Nothing at all is wrong, too. */
int scan_next(struct scan *s, struct message *ret_message) MUST_CHECK;

/* The message without white space between tokens, so that it is one line. 0 or -errno of buf. */
int scan_compact(struct span json, struct buf *out) MUST_CHECK;

/* The longest beginning of a text of a message that is at most max bytes and ends neither within an
 * escape sequence nor within a character. */
struct span scan_cut(struct span text, size_t max);

#endif
