/* SPDX-License-Identifier: Apache-2.0 */
/*
 * receiver: where the loaders' POSTs arrive, by libmicrohttpd.
 *
 *   POST /ingest ─▶ scan ─▶ output (standard output, or files)
 *                      └──▶ store ─▶ /api/exchanges, /api/stream, the page at /
 *
 * Threads: `threads` of libmicrohttpd take requests, each with an epoll of its own. A body is
 * checked by the thread that received it, outside of any lock, and taken over under one lock, so
 * that messages of one body stay together and an Idempotency-Key counts once. The event loop's
 * thread wakes the streams, closes connections that dawdle, and reads secrets again. Standard
 * output is written by a thread of pkg/sink.
 *
 * A POST is answered 200 when all of its messages are in the buffer of standard output, or written
 * to a file; otherwise nothing of it was taken. Messages come out as they came, one a line, without
 * white space between tokens.
 *
 * All memory is bounded: bodies (memory_bytes), the output's buffer, what the page sees (keep,
 * keep_bytes), connections, streams, idempotency keys. Every refusal is counted by reason.
 */
#ifndef EBPFDUMP_RECEIVER_H
#define EBPFDUMP_RECEIVER_H

#include "pkg/base/base.h"

#define RECEIVER_HOSTS_MAX 16

/* A file of the page. All of it is borrowed for the receiver's life. */
struct receiver_file {
	const char *path; /* "/", "/page.js" */
	const char *type; /* of its content */
	struct span content;
};

struct receiver_options {
	const char *listen;		       /* as listen_open() takes it */
	const char *hosts[RECEIVER_HOSTS_MAX]; /* further names of it; see docs/RECEIVER.md */
	size_t hosts_count;
	uint64_t body_bytes, memory_bytes, idempotency_keys;
	const char *token_file, *hmac_file; /* NULL: none */
	const char *marker_key_file;	    /* NULL: none */
	const char *dir;		    /* NULL: output_fd */
	int output_fd;			    /* stays the caller's */
	uint64_t file_bytes, files, output_buffer;
	uint64_t keep, keep_bytes, streams;
	uint64_t threads, connections, request_timeout_ms;
	const struct receiver_file *pages;
	size_t pages_count;
};

struct receiver;

/*
 * Starts to listen. Strings of options are borrowed. An address, file or directory that cannot be
 * used is an error that names it. SIGPIPE must be ignored by the process.
 */
int receiver_new(struct loop *loop, const struct receiver_options *options,
	struct receiver **ret_receiver, struct err *err) MUST_CHECK;
/* Accepts no more, lets what is being received finish (at most 2 s), ends the streams, and waits
 * until the output is out (at most timeout_ms). Returns how many messages were lost: acknowledged,
 * but not out. In the loop's thread; then only receiver_free(). */
uint64_t receiver_stop(struct receiver *r, uint64_t timeout_ms);
/* In the loop's thread, before loop_free(). */
void receiver_free(struct receiver *r);
void receiver_freep(struct receiver **r);
uint16_t receiver_port(const struct receiver *r);
/* Whether the output is gone for good (the reader of standard output has closed it): there is
 * nothing to live for. */
bool receiver_is_closed(const struct receiver *r);
/* How many messages were taken. */
uint64_t receiver_messages(const struct receiver *r);
/* All metrics as a table in Markdown, for docs/RECEIVER.md. -errno. */
int receiver_reference(FILE *out);

#endif
