/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sink: where messages go. One interface, two of them behind it:
 *
 *  - output: standard output (any fd), by a thread of its own, so that a slow reader never holds up
 *    the caller;
 *  - callback: POSTed to a URL, from the caller's event loop, with retries, a queue in memory and
 *    one on disk. What a receiver can rely on is in docs/CALLBACK.md.
 *
 * Each is bounded. A message that finds no room is dropped and counted, or takes the place of an
 * older one. At every call of sink_stats(), exactly:
 *
 *	emitted + recovered = delivered + dropped{reason} + queued + spooled
 */
#ifndef EBPFDUMP_SINK_H
#define EBPFDUMP_SINK_H

#include "pkg/base/base.h"

struct sink;

enum sink_drop {
	SINK_DROP_FULL,	    /* no room: the reader or receiver is slower than the traffic */
	SINK_DROP_CLOSED,   /* output: the reader is gone (EPIPE), or the file cannot be written */
	SINK_DROP_SHUTDOWN, /* still queued when the time to flush was over */
	SINK_DROP_REFUSED,  /* callback: the receiver's answer says that it never will take it */
	SINK_DROP_DAMAGED,  /* callback: was spooled, and the disk does not have it any more */
	SINK_DROP_MAX
};
/* "full", "closed", "shutdown", "refused", "damaged": the value of the label `reason`. */
const char *sink_drop_name(enum sink_drop reason);

struct sink_stats {
	uint64_t emitted;   /* messages given to sink_write() */
	uint64_t recovered; /* callback: found in the spool at the start */
	uint64_t delivered; /* output: whole lines taken by write(2); callback: answered by 2xx */
	uint64_t dropped[SINK_DROP_MAX];
	uint64_t queued;       /* in memory, now; those in flight included */
	uint64_t queued_bytes; /* their bytes */
	uint64_t spooled;      /* on disk, now */
	uint64_t delivered_bytes;
	int error; /* output: errno that closed it, or that it waits for to pass (ENOSPC); callback:
		      of the spool's last write. 0: all is well */
};

struct sink_message {
	struct span line;   /* ends with '\n', and holds no other one */
	uint64_t order;	    /* callback: messages with the same value are delivered in order (a hash
			       of the connection) */
	bool body_left_out; /* because sink_wants_bodies() said so: counted */
};

/*
 * A sink that writes to fd (which stays the caller's, blocking or not; O_NONBLOCK is not changed:
 * others may share it). Starts one thread with all signals blocked. SIGPIPE must be ignored by the
 * process. max_bytes: of the buffer (>= 64 KiB).
 *
 * A full disk (ENOSPC, EDQUOT) is waited for: messages queue, then count as FULL, and the line that
 * was cut goes on where it stopped. Any other error than EAGAIN and EINTR closes the sink.
 */
int sink_new(int fd, size_t max_bytes, struct sink **ret_sink, struct err *err) MUST_CHECK;

/* ---- callback ---- */

enum sink_when_full {
	SINK_DROP_OLDEST,
	SINK_DROP_NEWEST,
	SINK_DROP_BODIES, /* from half full on messages come without bodies; then as DROP_OLDEST */
};

#define SINK_CONCURRENCY_MAX 32
#define SINK_QUEUE_MIN	     ((size_t)1 << 20)

/*
 * Asked right before a request goes out on a connected socket, for one more header line ("Name:
 * value", without CR and LF, NUL-terminated). Returns its length; 0: none. It is asked again if the
 * request is repeated.
 */
typedef size_t (*sink_line_fn)(void *ctx, int fd, char *line, size_t size);
#define SINK_LINE_MAX 256

/* All strings are copied. */
struct sink_callback {
	const char *url; /* http or https; checked by spec */
	uint32_t concurrency;
	/* More than 1: several messages in a request (NDJSON), as soon as so many or so many bytes
	 * are there, or the oldest has waited for so long. */
	uint32_t batch_messages;
	size_t batch_bytes;
	uint64_t batch_wait_ms;
	bool gzip;
	uint64_t timeout_ms;		     /* of a request */
	const char *ca, *cert, *key;	     /* NULL: the system's; none */
	const char *header_file, *hmac_file; /* NULL: none; looked at again every second */
	size_t queue_bytes;
	enum sink_when_full when_full;
	const char *spool_dir; /* NULL: none */
	uint64_t spool_bytes;
	sink_line_fn line; /* NULL: none */
	void *line_ctx;
};

/*
 * A sink that POSTs. Everything happens in the loop's thread, and all of the sink belongs to it;
 * nothing blocks on the network, and nothing but the spool (spool.h) on a disk. DNS is asked by a
 * thread of libcurl's. No fault of the receiver, the network or a file of the options is an error
 * here or ends anything: it is logged when it begins and when it is over, is in the stats, and is
 * tried again; where the spool cannot be opened, there is none. Fails for want of memory.
 */
int sink_callback_new(struct loop *loop, const struct sink_callback *options,
	struct sink **ret_sink, struct err *err) MUST_CHECK;

/* Of failed requests that are tried again: why. */
enum sink_retry {
	SINK_RETRY_RESOLVE, /* the name has no address */
	SINK_RETRY_CONNECT, /* refused, unreachable */
	SINK_RETRY_TLS,	    /* handshake or certificate */
	SINK_RETRY_RESET,   /* the connection ended before the answer */
	SINK_RETRY_TIMEOUT,
	SINK_RETRY_BUSY,   /* 408, 425, 429 */
	SINK_RETRY_SERVER, /* 5xx */
	SINK_RETRY_OTHER,
	SINK_RETRY_MAX
};
const char *sink_retry_name(enum sink_retry reason);

#define SINK_LATENCY_BUCKETS 13
extern const double sink_latency_bounds[SINK_LATENCY_BUCKETS]; /* seconds */

struct sink_callback_stats {
	uint64_t requests;  /* answered or failed */
	uint64_t delivered; /* of these by 2xx */
	uint64_t retries[SINK_RETRY_MAX];
	uint64_t refused[600]; /* messages dropped, by status */
	uint64_t bodies_left_out;
	uint64_t sent_bytes;			    /* of request bodies, as sent */
	uint64_t latency[SINK_LATENCY_BUCKETS + 1]; /* answers within the bound; the last: longer */
	double latency_sum;			    /* seconds */
	uint32_t in_flight, waiting; /* requests; waiting: failed, and not due again yet */
	uint64_t oldest_ns;	     /* wall clock; when the oldest message was queued. 0: none */
	bool up;		     /* the last that was heard of the receiver is good */
	bool has_spool;
	uint64_t spool_bytes, spool_disk_bytes, spool_torn, spool_lost_bytes, spool_write_errors;
};

/* NULL: the sink is no callback. Valid until the next call. */
const struct sink_callback_stats *sink_callback_stats(struct sink *sink);
/* Appends a line that says how the receiver does; nothing for other sinks. */
int sink_describe(struct sink *sink, struct buf *out);

/* ---- both; one thread calls all of these but sink_stats() ---- */

/* Never blocks on the reader. 0, or a negative errno for a message that was dropped: counted
 * already. -EINVAL, not counted: the line does not end with '\n'. */
int sink_write_message(struct sink *sink, const struct sink_message *message);
int sink_write(struct sink *sink, const char *line, size_t len);
/* Whether there is room for bodies (see SINK_DROP_BODIES). */
bool sink_wants_bodies(const struct sink *sink);
/* What was written reaches the reader soon: call at the end of a batch (cheap when it is under
 * way). */
void sink_kick(struct sink *sink);
/* Waits until at most so many bytes are queued, or nothing more comes of waiting (output: the
 * reader is gone, the disk full; callback: loop_quit() was called). Runs the callback's loop. */
void sink_wait(struct sink *sink, uint64_t most_bytes);
/*
 * Waits until all is delivered or timeout_ms is over; what is left then is spooled, where there is
 * a spool, else dropped as SHUTDOWN, and so is what is written later: the sink is closed. Runs the
 * callback's loop; loop_quit() ends the waiting. Returns how many were dropped.
 */
uint64_t sink_flush(struct sink *sink, uint64_t timeout_ms);
/* Output: a writer that hangs in write(2) is left behind (its thread ends with the process). */
void sink_free(struct sink *sink);
void sink_freep(struct sink **sink);
/* Output: from any thread. Consistent with itself. */
void sink_stats(struct sink *sink, struct sink_stats *ret_stats);

#endif
