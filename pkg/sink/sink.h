/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sink: where messages go. Standard output, by a thread of its own, so that a slow reader never
 * holds up the caller.
 *
 * Between the caller and the writer is a buffer of fixed size. A message that finds no room is
 * dropped and counted. emitted = delivered + dropped + queued holds at every call of sink_stats().
 */
#ifndef EBPFDUMP_SINK_H
#define EBPFDUMP_SINK_H

#include "pkg/base/base.h"

struct sink;

enum sink_drop {
	SINK_DROP_FULL,	    /* the buffer was full: the reader is slower than the traffic */
	SINK_DROP_CLOSED,   /* the reader is gone (EPIPE), or the file cannot be written */
	SINK_DROP_SHUTDOWN, /* still in the buffer when the time to flush was over */
	SINK_DROP_MAX
};
/* "full", "closed", "shutdown": the value of the label `reason`. */
const char *sink_drop_name(enum sink_drop reason);

struct sink_stats {
	uint64_t emitted;   /* messages given to sink_write() */
	uint64_t delivered; /* whole lines taken by write(2) */
	uint64_t dropped[SINK_DROP_MAX];
	uint64_t queued;       /* now */
	uint64_t queued_bytes; /* now */
	uint64_t delivered_bytes;
	int error; /* errno that closed it, or that it waits for to pass (ENOSPC); 0: all is well */
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
/* Never blocks on the reader. line ends with '\n' and holds no other one (-EINVAL, not counted, if
 * the last byte is none). 0, or -ENOBUFS (full), -EPIPE (closed): counted already. One thread calls
 * this, sink_kick() and sink_flush(). */
int sink_write(struct sink *sink, const char *line, size_t len);
/* What was written reaches the reader soon: call at the end of a batch (wakes the writer; cheap
 * when it is awake). */
void sink_kick(struct sink *sink);
/* Waits until all is written or timeout_ms is over; what is left then is dropped as SHUTDOWN, and
 * so is what is written later: the sink is closed. Returns how many were left. */
uint64_t sink_flush(struct sink *sink, uint64_t timeout_ms);
/* A writer that hangs in write(2) is left behind (its thread ends with the process). */
void sink_free(struct sink *sink);
void sink_freep(struct sink **sink);
/* From any thread; consistent with itself. */
void sink_stats(struct sink *sink, struct sink_stats *ret_stats);

#endif
