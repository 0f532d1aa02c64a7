/* SPDX-License-Identifier: Apache-2.0 */
/* The part of this room that speaks HTTP. */
#ifndef EBPFDUMP_RECEIVER_SERVER_H
#define EBPFDUMP_RECEIVER_SERVER_H

#include <microhttpd.h>

#include "pkg/receiver/internal.h"

struct stream;

/* One connection, from accept to close. */
struct connection {
	struct connection *next, **link;
	int fd;
	_Atomic uint64_t
		since_ns; /* when it began to wait for a request as a whole; 0: it waits for us */
};

/* own.c. From any thread; own may be NULL. */
struct own;
int own_new(const char *key_file, struct own **ret_own, struct err *err) MUST_CHECK;
void own_free(struct own *own);
void own_refresh(struct own *own);
/* Puts the marker into an answer that is about to be queued. */
void own_mark(struct own *own, struct MHD_Connection *c, struct MHD_Response *response);

struct receiver {
	struct receiver_options options;
	struct loop *loop;
	struct loop_source *ticker, *sweeper;
	struct MHD_Daemon *daemon;
	uint16_t port;
	bool local; /* only this machine can reach it */
	struct output *output;
	struct store *store;
	struct seen *seen;
	struct secret *token, *hmac; /* NULL: none */
	struct own *own;	     /* NULL: no key for markers */
	uint8_t cookie_key[32];
	char instance[17]; /* of this process: a stream's position means nothing in another */
	struct counters counters;
	struct intake intake;
	atomic_bool stopping;
	_Atomic uint64_t answers[6]; /* by status class */

	pthread_mutex_t connections_lock;
	struct connection *connections; /* under connections_lock */
	pthread_mutex_t streams_lock;
	struct stream *streams; /* under streams_lock */
};

/* An answer on its way. */
struct answer {
	unsigned int status;
	const char *type;
	unsigned int retry_after; /* s; 0: none */
	const char *allow;	  /* of a 405; NULL: none */
	const char *cookie;	  /* NULL: none */
	const char *download;	  /* name of the file; NULL: it is shown */
	bool plain;		  /* of /ingest: without the headers that only browsers read */
};

/* Queues the response, which is destroyed, with all headers of an answer: the only place that adds
 * any. */
enum MHD_Result answer_with(struct receiver *r, struct MHD_Connection *c, const struct answer *a,
	struct MHD_Response *response);
/* Text is copied. */
enum MHD_Result answer_text(struct receiver *r, struct MHD_Connection *c, const struct answer *a,
	const char *text, size_t len);
enum MHD_Result answer_error(
	struct receiver *r, struct MHD_Connection *c, unsigned int status, const char *text);

/* Whether the request may see what was captured; if not, it has been answered (result). */
bool may_see(struct receiver *r, struct MHD_Connection *c, enum MHD_Result *ret_result);
/* Whether Host and Origin are those of a page of ours. why: what to tell if not. */
bool is_ours(const struct receiver *r, struct MHD_Connection *c, const char **ret_why);

/* Of the query. 0, or -EINVAL with err. */
struct query {
	struct filter filter;
	uint64_t limit;
	uint64_t before; /* only exchanges with a lower id */
	bool summary;	 /* without the messages */
	bool ndjson;
	struct err err;
	bool invalid;
};
void query_parse(
	struct MHD_Connection *c, uint64_t limit, uint64_t limit_max, struct query *ret_query);

enum MHD_Result api_exchanges(struct receiver *r, struct MHD_Connection *c);
enum MHD_Result api_exchange(struct receiver *r, struct MHD_Connection *c, const char *id);
enum MHD_Result api_stream(struct receiver *r, struct MHD_Connection *c);
enum MHD_Result api_session(struct receiver *r, struct MHD_Connection *c);
enum MHD_Result api_metrics(struct receiver *r, struct MHD_Connection *c);

/* In the loop's thread: those that have something to say go on. */
void streams_wake(struct receiver *r);

#endif
