/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of this room share. */
#ifndef EBPFDUMP_RECEIVER_INTERNAL_H
#define EBPFDUMP_RECEIVER_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "pkg/receiver/receiver.h"
#include "pkg/receiver/scan.h"

/* ---- filter: which exchanges somebody wants to see; filter.c ---- */

#define FILTER_TEXT_MAX 256

struct filter_text {
	char p[FILTER_TEXT_MAX];
	size_t len;
};

/* Empty parts let everything through. */
struct filter {
	struct filter_text method;     /* beginning of it */
	struct filter_text status;     /* digits and x: "4", "404", "5xx"; or "error": 400 and up */
	struct filter_text host, path; /* part of it */
	struct filter_text node;       /* part of it */
	struct filter_text seen;       /* "client" or "server": whose end of the connection it is */
	struct filter_text text;       /* part of the JSON of either message, as JSON writes it */
};

struct exchange;

/* A parameter of a query. 1: it is one of the filter's; 0: it is not; -EINVAL: it is not allowed.
 */
int filter_set(struct filter *f, const char *name, const char *value, struct err *err);
bool filter_match(const struct filter *f, const struct exchange *x);

/* ---- store: the newest exchanges; store.c ---- */

/* A message that is kept, its spans into the bytes behind it. */
struct kept {
	struct message m;
	char bytes[];
};

struct exchange {
	uint64_t id;			 /* 1 and up, in order of arrival; 0: nothing is here */
	uint64_t version;		 /* of its latest change */
	struct kept *request, *response; /* not both NULL */
	/* where it waits for its other half: a chain of the table of those that do */
	struct exchange *next, **link; /* link NULL: it does not wait */
};

struct store_stats {
	uint64_t messages, bytes, exchanges; /* now */
	uint64_t paired, evicted;	     /* since the beginning; evicted: messages */
};

/* Locked by store_lock() and store_unlock(), around all else. */
struct store;

int store_new(uint64_t keep, uint64_t keep_bytes, uint64_t seed, struct store **ret_store,
	struct err *err) MUST_CHECK;
void store_free(struct store *s);
void store_lock(struct store *s);
void store_unlock(struct store *s);
/* Copies the message, which is compact. -ENOMEM: it is not kept. */
int store_add(struct store *s, const struct message *m);
void store_stats(const struct store *s, struct store_stats *ret_stats);
/* Exchanges by id; NULL if it is not there (any more). */
const struct exchange *store_find(const struct store *s, uint64_t id);
/* ids: first <= id <= last; first > last if there are none. */
uint64_t store_first(const struct store *s);
uint64_t store_last(const struct store *s);
/*
 * Changes: each message that comes changes an exchange, and gives it the next version. What changed
 * with a version, if that was its latest change; else NULL, as for what is gone.
 */
uint64_t store_version(const struct store *s);
const struct exchange *store_change(const struct store *s, uint64_t version);
/* The oldest version that store_change() knows. */
uint64_t store_oldest_change(const struct store *s);

/* How a message lies: which end of the connection saw it. */
static inline bool seen_by_client(const struct message *m)
{
	/* a request that is sent, a response that is received */
	return (m->number[MSG_DIRECTION] == 0) == (m->number[MSG_STATUS_CODE] == 0);
}

/* ---- rows: exchanges as JSON; rows.c ---- */

/* One object. whole: with both messages as they came (`request`, `response`; null). 0 or -errno of
 * buf, what was there stays. */
int row_write(const struct exchange *x, bool whole, struct buf *out) MUST_CHECK;
/* The texts and numbers that a row and a filter have in common. */
struct span exchange_method(const struct exchange *x);
struct span exchange_path(const struct exchange *x);
struct span exchange_host(const struct exchange *x);
uint64_t exchange_status(const struct exchange *x); /* 0: no response */

/* ---- output: where messages go; output.c ---- */

struct output;

struct output_stats {
	uint64_t bytes;		       /* taken */
	uint64_t queued, queued_bytes; /* of standard output: messages that are taken and not out */
	uint64_t lost; /* messages that were taken when standard output broke or the end came */
	uint64_t rotated, removed; /* files */
	uint64_t refused;	   /* batches that found no room */
	int error;		   /* errno; 0: all is well */
};

/* dir NULL: standard output (fd). Else files in dir. */
int output_new(int fd, const char *dir, uint64_t file_bytes, uint64_t files, uint64_t buffer_bytes,
	struct output **ret_output, struct err *err) MUST_CHECK;
/* All lines or none, each ended by a newline. -ENOBUFS: no room now; other -errno: it is broken or
 * the disk is full. One thread at a time. */
int output_write(struct output *o, const char *lines, size_t len) MUST_CHECK;
/* Waits until all is out, at most timeout_ms. Returns how many messages were left. */
uint64_t output_flush(struct output *o, uint64_t timeout_ms);
void output_free(struct output *o);
void output_stats(struct output *o, struct output_stats *ret_stats);
/* It will not come back: the reader of standard output is gone. */
bool output_is_closed(struct output *o);

/* ---- seen: the latest idempotency keys; seen.c ---- */

struct seen;

int seen_new(uint64_t max, struct seen **ret_seen) MUST_CHECK;
void seen_free(struct seen *s);
/* Whether the key is there; if so it becomes the latest. */
bool seen_has(struct seen *s, struct span key);
/* Puts in a key that is not there; the one not asked about for longest goes when it is full. */
void seen_put(struct seen *s, struct span key);

/* ---- secrets: files that may change; secret.c ---- */

/* One thread reads it anew, others use it. */
struct secret;

enum secret_kind {
	SECRET_TOKEN, /* the file's first line, without white space at its ends: text */
	SECRET_KEY,   /* the whole file, without newlines at its end, as loaders take their
			 --callback-hmac-file: any bytes */
};

/* 1 to 4096 bytes. */
int secret_new(const char *path, enum secret_kind kind, const char *what,
	struct secret **ret_secret, struct err *err) MUST_CHECK;
void secret_free(struct secret *s);
/* Looks whether the file has changed. What cannot be read is said once, and the old one holds. */
void secret_refresh(struct secret *s);
/* "Bearer TOKEN". Takes the same time wherever they differ. */
bool secret_is_bearer(struct secret *s, const char *header);
/* "sha256=" and the HMAC-SHA256 of the body in hexadecimal. */
bool secret_signed(struct secret *s, struct span body, const char *header);
/* For the page's cookie: HMAC-SHA256 of the token under key, in hexadecimal. */
void secret_cookie(struct secret *s, const uint8_t key[32], char ret_cookie[65]);
/* Equal texts, in constant time for equal lengths. */
bool secret_equal(const char *a, const char *b);

/* ---- ingest: a body is taken over; ingest.c ---- */

enum refusal {
	REFUSED_SYNTAX,	   /* 400: what is no message */
	REFUSED_TYPE,	   /* 415: content type or encoding */
	REFUSED_SIZE,	   /* 413 */
	REFUSED_TOKEN,	   /* 401 */
	REFUSED_SIGNATURE, /* 401 */
	REFUSED_ORIGIN,	   /* 403: another site's page asks, or by a wrong name */
	REFUSED_MEMORY,	   /* 429: too much is being received */
	REFUSED_OUTPUT,	   /* 429: standard output is slow */
	REFUSED_BROKEN,	   /* 503: it cannot be written */
	REFUSED_MAX
};

struct counters {
	_Atomic uint64_t requests, bodies, bytes; /* of POST /ingest; bytes as sent */
	_Atomic uint64_t messages, duplicates, duplicate_bodies;
	_Atomic uint64_t refused[REFUSED_MAX];
	_Atomic uint64_t connections_accepted, connections_timed_out;
	_Atomic uint64_t aborted; /* requests that ended before they were whole */
	_Atomic uint64_t stream_events, stream_lost, streams_refused, store_failed;
	_Atomic int64_t connections, streams, memory; /* now */
};

const char *refusal_name(enum refusal r);

/* What takes bodies over: one at a time. */
struct intake {
	pthread_mutex_t lock;
	struct output *output;
	struct store *store;
	struct seen *seen;
	struct counters *counters;
	size_t keep; /* what the store keeps at most */
};

struct verdict {
	unsigned int status;  /* of HTTP: 200, 400, 413, 429, 503 */
	enum refusal refusal; /* unless 200 */
	uint64_t messages;
	bool duplicate;
	struct err err; /* what the sender is told, unless 200 */
};

/* A body of gzip, unpacked: at most max bytes. -EBADMSG damaged, -EFBIG too large, -ENOMEM. */
int ingest_unpack(struct span packed, struct buf *out);
/* Checks all, then takes all or nothing. key: the Idempotency-Key, may be empty. A body that ends
 * with a newline and holds nothing but lines is not even copied. */
void ingest_take(struct intake *in, struct span body, struct span key, struct verdict *ret_verdict);

#endif
