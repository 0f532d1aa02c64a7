/* SPDX-License-Identifier: Apache-2.0 */
/*
 * marker: the header by which loaders know their own traffic, and nobody else can hide.
 *
 * The POST of a loader is HTTP like any other: without more, the loader of the receiver's node
 * would report it, post that, report that one... So every POST carries
 *
 *   X-Ebpfdump-Loader: 1;<kind>;<unix time>;<nonce>;<origin>;<place>
 *   X-Ebpfdump-Loader: 1;s;1764042445;0011223344556677;<32 hex digits>;<32 hex digits>
 *
 * (the receiver's answers too), and a loader that sees a valid one ignores the connection.
 *
 *   origin = HMAC-SHA256(key, "ebpfdump-origin-1" | kind | time | nonce)
 *   place  = HMAC-SHA256(key, "ebpfdump-place-1"  | kind | time | nonce | place's bytes)
 *
 * both cut to 128 bits, time and nonce as 8 bytes each, big-endian. `origin` says that somebody who
 * has the key made it, `place` that it was made for the very place where it was found:
 *
 *   kind s  the TCP sequence number of the message's first byte (4 bytes, big-endian). Both ends of
 *           the connection see the same one, address translation does not change it, and on any
 *           other connection, or later on the same one, it is another. The sender must ask its
 *           socket for it, which needs CAP_NET_ADMIN once for each connection.
 *   kind a  the addresses and ports, sender's first (16 + 2 + 16 + 2 bytes; IPv4 as
 *           ::ffff:a.b.c.d). For who lacks the capability. Where addresses are translated on the
 *           way, only the sender's end knows it.
 *
 * A place that fits once more is no proof either (who has raw sockets can choose sequence numbers):
 * the markers that were accepted are remembered, each counts once for each direction. That memory
 * is bounded (MARKER_REMEMBERED) and each loader's own.
 *
 * The clock of the marker and that of the loader may differ by MARKER_WINDOW_S.
 *
 * One thread for each object. Reading the key file blocks as long as the file system does; nothing
 * else does. The key is in no log, no error and no metric, and is wiped when it is given up.
 */
#ifndef EBPFDUMP_MARKER_H
#define EBPFDUMP_MARKER_H

#include "pkg/base/base.h"

#define MARKER_HEADER "X-Ebpfdump-Loader"
/* Bytes of a value, without NUL: 20 digits of time at most. */
#define MARKER_VALUE_MAX (4 + 20 + 1 + 16 + 1 + 32 + 1 + 32)
/* Of "X-Ebpfdump-Loader: " and a value, with NUL. */
#define MARKER_LINE_MAX (sizeof(MARKER_HEADER) + 2 + MARKER_VALUE_MAX)

/* Seconds that a marker is older or younger than the message it is in, at most. */
#define MARKER_WINDOW_S 300
/* Of a key file, once the newlines at its end are gone. */
#define MARKER_KEY_MIN 16
#define MARKER_KEY_MAX 4096
/* Markers remembered; beyond it the oldest (of a few that share a place in the table) is forgotten.
 */
#define MARKER_REMEMBERED 16384
/* So often at most is the same marker taken for a relayed one: proxies hand it on once or, when
 * they try again, a few times. More often is somebody who hides. */
#define MARKER_RELAYED_MAX 8

/* Where a message is, as far as the one who asks knows. */
struct marker_place {
	bool has_seq, has_ends;
	uint32_t seq;	  /* TCP sequence number of the first byte */
	uint8_t ends[36]; /* source, its port, destination, its port; of the message */
};

enum marker_result {
	MARKER_ACCEPTED,
	MARKER_WRONG,  /* not made with a key that is known here, or no marker at all */
	MARKER_OLD,    /* made with the key, but too long ago, or by a clock that is ahead */
	MARKER_COPIED, /* made with the key, for another place, or used already */
	MARKER_RESULT_MAX
};
/* "accepted", "wrong", "old", "copied": the value of the label `result`. */
const char *marker_result_name(enum marker_result result);

struct marker;

/*
 * key_file (copied): what all loaders of the deployment and the receiver share; NULL or "": none.
 * Without one, or as long as it cannot be read (which is logged, and tried again by
 * marker_reload()), the key is a random one: good for both ends of the connections on this machine
 * whose loader this is. Fails for want of memory or random numbers only.
 */
int marker_new(const char *key_file, struct marker **ret_marker, struct err *err) MUST_CHECK;
void marker_free(struct marker *m);
void marker_freep(struct marker **m);

/*
 * Looks whether the key file changed; call every few seconds. A new key is accepted at once, and
 * used for making markers after MARKER_WINDOW_S: so long may other nodes take to get it. The one
 * before is accepted for twice as long. mono_s: seconds on a clock that only goes forward.
 */
void marker_reload(struct marker *m, uint64_t mono_s);

/* Whether a key file was asked for, and whether its present content is in use. */
bool marker_has_file(const struct marker *m);
bool marker_file_ok(const struct marker *m);

/*
 * The place of the next byte that will be written to this TCP socket: its sequence number, or, if
 * that cannot be had, the connection's ends. The former needs CAP_NET_ADMIN at the first call on a
 * socket, which must come while nothing is on its way (right after connect, or accept and before
 * the answer); it then costs six system calls, and one later. Nothing is sent, and the socket works
 * as before. -errno if the socket has no place at all.
 */
int marker_place_of(int fd, struct marker_place *ret_place);

/* Source and destination of place->ends. Addresses in text form ("10.0.0.1", "fd00::1"). */
int marker_place_ends(struct marker_place *place, const char *src, uint16_t src_port,
	const char *dst, uint16_t dst_port);

/*
 * The value of a header for a message at this place, by the sequence number if it is known, else by
 * the ends. wall_s: Unix time. Returns its length; out is NUL-terminated.
 */
size_t marker_make(struct marker *m, const struct marker_place *place, uint64_t wall_s,
	char out[static MARKER_VALUE_MAX + 1]);
/* The same as "X-Ebpfdump-Loader: value", for curl's and others' lists. */
size_t marker_line(struct marker *m, const struct marker_place *place, uint64_t wall_s,
	char out[static MARKER_LINE_MAX]);

/*
 * What a value proves that was found at this place (has_seq and has_ends) of a connection, by the
 * message's own time. direction 0 or 1, which ends it is seen at; connection: a number that is no
 * other connection's.
 */
enum marker_result marker_check(struct marker *m, struct span value,
	const struct marker_place *place, uint64_t wall_s, uint64_t connection, unsigned direction);
/* Of a value that is MARKER_COPIED: whether it may be taken for one that a proxy handed on, which
 * is so MARKER_RELAYED_MAX times in each direction. */
bool marker_relayed(struct marker *m, struct span value, unsigned direction);

/*
 * How many messages with a copied marker are captured: per_minute of them at once, and as many in
 * each minute. An HTTP proxy between loaders and receiver hands markers on to connections of its
 * own, where they are copies like any other; without a limit, the first one that is captured and
 * posted would make the next one, for ever.
 */
struct marker_budget {
	uint64_t per_minute;
	uint64_t nanos;	  /* what one costs is a minute divided by per_minute */
	uint64_t last_ns; /* 0: full */
};

/* Whether one more may pass, at this time (of a clock that may be set). */
bool marker_budget_take(struct marker_budget *budget, uint64_t now_ns);

#endif
