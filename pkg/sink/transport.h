/* SPDX-License-Identifier: Apache-2.0 */
/*
 * transport: requests that POST, several at a time, by libcurl's multi interface in an event loop.
 * Knows no queue and no retries. Internal to this room.
 *
 * A request on an open connection costs one send(2), epoll_wait(2), recv(2), and the poll(2) by
 * which libcurl looks whether the connection still lives: sockets stay registered with epoll
 * between requests, the timer is set only when it must come earlier than it is set to.
 */
#ifndef EBPFDUMP_SINK_TRANSPORT_H
#define EBPFDUMP_SINK_TRANSPORT_H

#include "pkg/sink/secrets.h"
#include "pkg/sink/sink.h"

#define TRANSPORT_TEXT_MAX 512 /* of answer.text */
#define TRANSPORT_SHOWN	   256 /* bytes of an answer that a log line shows */
/* More than this is not read of an answer's body, or of its headers: the connection is closed. */
#define TRANSPORT_ANSWER_MAX ((size_t)64 << 10)

struct transport;

/* What is sent. Has to stay as it is until done(), or transport_abort(). */
struct transport_request {
	size_t bytes;
	struct span one; /* the body in one piece; or, if one.p is NULL, in several: */
	void *body;
	void (*rewind)(void *body);
	struct span (*next)(void *body); /* bytes together, none of them empty */
	bool ndjson;
	bool again; /* may have been delivered already, by an earlier process */
	bool fresh; /* on a new connection */
	const char *key;
	uint32_t slot; /* transport's */
};

struct transport_answer {
	long status;		       /* 0: there was none */
	enum sink_retry failure;       /* if there was none */
	char text[TRANSPORT_TEXT_MAX]; /* for people: the failure, or the answer's first bytes; may
					  be "" */
	bool has_retry_after;
	uint64_t retry_after_ms;
	uint64_t latency_ns;
	size_t sent_bytes; /* of the body */
};

struct transport_ops {
	/* From transport_run() or the loop, never from inside transport_start(). */
	void (*done)(void *ctx, struct transport_request *r, const struct transport_answer *a);
	/* Behind done(), when something may be started; and once at the time that it returned last
	 * (monotonic; UINT64_MAX: none). */
	uint64_t (*idle)(void *ctx);
};

/* slots: requests at a time. Options' strings are copied; secrets stay the caller's. */
int transport_new(struct loop *loop, const struct sink_callback *options, uint32_t slots,
	struct secrets *secrets, const struct transport_ops *ops, void *ctx,
	struct transport **ret_transport, struct err *err) MUST_CHECK;
void transport_free(struct transport *t);

/* From inside idle() only; less than `slots` are under way. -errno: it is not. */
int transport_start(struct transport *t, struct transport_request *r) MUST_CHECK;
/* Calls idle(), and lets begin what it started. Not from inside done() and idle(). */
void transport_run(struct transport *t);
/* Ends the request without an answer; its owner's again. Not from inside done() and idle(). */
void transport_abort(struct transport *t, struct transport_request *r);
/* What is built from the secrets is built anew. Requests under way keep what they have. */
void transport_secrets_changed(struct transport *t);

#endif
