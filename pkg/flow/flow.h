/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flow: a connection's two streams. Capture records in, messages out.
 *
 * For each connection and direction it keeps the stream in step by TCP sequence number (repeats are
 * dropped, out-of-order packets held for a short while, jumps become gaps), runs the HTTP parser
 * over it in any split, pairs responses with requests in order (keep-alive, pipelining, 1xx),
 * resynchronises after faults and lost bytes, and calls emit for each message. A message that lies
 * in one record is handed on without a copy.
 *
 * One thread. Nothing blocks. Memory is bounded by the options; what a limit costs is in the
 * statistics.
 */
#ifndef EBPFDUMP_FLOW_H
#define EBPFDUMP_FLOW_H

#include "bpf/capture.h"
#include "pkg/dump/dump.h"

struct flow_options {
	uint32_t max_connections; /* beyond it the least recently used one is given up; >= 1 */
	uint32_t body_bytes;	  /* kept of each body */
	uint32_t head_bytes;   /* longest head; a longer one is reported as far as it goes, with an
				  error */
	uint32_t max_fields;   /* header fields of a message */
	uint64_t buffer_bytes; /* of all unfinished messages and held packets together */
	uint32_t max_pending;  /* outstanding requests remembered per connection, for pairing */
	uint32_t hold_ms;      /* how long an out-of-order packet waits for those before it */
	uint32_t idle_ms;      /* a connection without records for so long is given up (its end was
				  lost); 0: never */
};

/* The defaults: 65536, 4096, 65536 + 8192, 256, 64 MiB, 64, 1000 ms, 2 h. */
void flow_options_default(struct flow_options *options);

/*
 * What `error` says of a message when the HTTP is not to blame. If that has a fault as well, it
 * comes first: "missing or invalid host; the connection ended inside the message".
 */
#define FLOW_ERROR_ENDED     "the connection ended inside the message"
#define FLOW_ERROR_RESET     "the connection was reset inside the message"
#define FLOW_ERROR_HEAD_GAP  "bytes of the head are missing"
#define FLOW_ERROR_BODY_GAP  "bytes of the body are missing, and its end cannot be told"
#define FLOW_ERROR_JUMP	     "the stream continues elsewhere: its end was not seen"
#define FLOW_ERROR_RETRACTED "it was offered to the socket, but did not leave as a whole"
#define FLOW_ERROR_HEAD_MAX  "the head is longer than the limit"
#define FLOW_ERROR_MEMORY    "given up unfinished: the buffer memory is used up"
#define FLOW_ERROR_EVICTED   "given up unfinished: too many connections"
#define FLOW_ERROR_EXPIRED   "given up unfinished: the connection was idle for too long"
#define FLOW_ERROR_STOPPED   "the capture ended inside the message"

/*
 * All only grow, but those said to be of now. Each captured byte is in exactly one place:
 *   bytes = bytes_parsed + bytes_repeated + bytes_unparsed + bytes_left_out + bytes_unfinished
 * and each message in one as well:
 *   parsed = handed to emit + ignored + left_out
 */
struct flow_stats {
	uint64_t records;      /* taken */
	uint64_t records_bad;  /* of these, refused: wrong version, sizes that contradict each other
				*/
	uint64_t bytes;	       /* captured bytes taken */
	uint64_t bytes_parsed; /* of these, in messages handed to emit */
	uint64_t bytes_repeated;   /* of these, seen before (retransmission, a call repeated after
				      EAGAIN) */
	uint64_t bytes_unparsed;   /* of these, in no message (between messages while out of step,
				      tunnels, empty lines between messages, starts that turned out
				      to be no head, the rest of a message given up) */
	uint64_t bytes_left_out;   /* of these, on ignored connections and in messages left out (see
				      flow_on_head()) */
	uint64_t bytes_unfinished; /* of these, in unfinished messages and held packets: now */
	uint64_t gap_bytes;	   /* that passed, but were not captured */
	uint64_t parsed[2];	   /* messages, by enum http_kind */
	uint64_t ignored;	   /* of these, on connections that were then ignored */
	uint64_t left_out;	   /* of these, left out for themselves, or for their request */
	uint64_t faults;	   /* of those handed to emit, with an error */
	uint64_t unpaired;	   /* responses without a request seen */
	uint64_t pending_dropped; /* requests forgotten because max_pending were outstanding, or for
				     buffer_bytes */
	uint64_t resyncs;	  /* times a stream had to look for the next message */
	uint64_t held;		  /* packets that came early and were held */
	uint64_t evicted;	  /* connections given up for max_connections */
	uint64_t expired;	  /* connections given up for idle_ms */
	uint64_t over_memory;	  /* times buffer_bytes forced a message to be cut or given up */
	uint64_t connections_total;
	uint64_t connections_ignored; /* of these */
	uint64_t tunnels;	      /* connections that left HTTP: 101, CONNECT */
	uint64_t connections;	      /* now */
	uint64_t buffered;	      /* bytes now */
};

/* message is valid during the call, which must not call back into flow. message->seq is left 0: it
 * is the receiver's to give. */
typedef void (*flow_emit_fn)(void *ctx, const struct dump_message *message);

struct flow;

int flow_new(const struct flow_options *options, flow_emit_fn emit, void *ctx,
	struct flow **ret_flow, struct err *err) MUST_CHECK;
void flow_free(struct flow *flow); /* without emitting */
void flow_freep(struct flow **flow);

/*
 * Calls fn for each connection that leaves HTTP (101, CONNECT, the preface of HTTP/2): what follows
 * on it would be skipped here, and need not be captured any more. Optional. fn must not call back
 * into flow.
 */
typedef void (*flow_tunnel_fn)(void *ctx, uint64_t connection);
void flow_on_tunnel(struct flow *flow, flow_tunnel_fn fn, void *ctx);

/*
 * Calls fn for each message as soon as its head is complete, long before its end if it has a large
 * body. (Not for a head that never is complete.) Optional. What it answers:
 *
 *   FLOW_KEEP       the message is handed to emit once it is complete
 *   FLOW_LEAVE_OUT  it is not, and, of a request, neither is its response
 *   FLOW_IGNORE     nor is anything else of this connection, in either direction, that was not
 *                   handed out already. It is forgotten when nothing came of it for 10 s: the
 *                   kernel side is expected to know by then
 *
 * fn must not call back into flow; the pointers are valid during the call.
 */
enum flow_verdict { FLOW_KEEP, FLOW_LEAVE_OUT, FLOW_IGNORE };

struct flow_head {
	uint64_t connection;
	const struct dump_conn *conn;
	enum dump_direction direction;
	uint32_t seq;	   /* TCP sequence number of the first byte */
	uint64_t time_ns;  /* wall-clock time at which it passed the hook */
	const char *bytes; /* what head's slices are relative to */
	const struct http_head *head;
};

typedef enum flow_verdict (*flow_head_fn)(void *ctx, const struct flow_head *head);
void flow_on_head(struct flow *flow, flow_head_fn fn, void *ctx);

/*
 * One record; data points at record->captured bytes and is not needed after the call.
 * wall_offset_ns: what makes record->time_ns a wall-clock time. A record that contradicts itself is
 * counted, never trusted. Bytes behind the end of their direction, and records of a connection that
 * is over, are taken as those of one that was open before.
 */
void flow_record(struct flow *flow, const struct capture_record *record, const char *data,
	int64_t wall_offset_ns);

/* Time passes: gives up held packets that waited too long and idle connections. now_ns is on the
 * records' clock. */
void flow_tick(struct flow *flow, uint64_t now_ns);

/* The capture is over: every unfinished message is emitted as far as it goes, with an error. */
void flow_finish(struct flow *flow);

const struct flow_stats *flow_stats(const struct flow *flow);

#endif
