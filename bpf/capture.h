/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * capture.h: the contract between the eBPF programs and user space, and the format of recorded
 * files.
 *
 * A capture record says: "bytes [seq, seq + length) of one direction of one TCP connection passed
 * the hook; here are the first `captured` of them". Records of one direction of a connection come
 * in the order of the calls, except those marked CAPTURE_F_PACKET, which come in the order in which
 * packets arrived. A jump in `seq` means that bytes passed unseen; an overlap means that they were
 * seen before.
 *
 * All integers are in host byte order, addresses in network byte order. No padding is implicit: the
 * assertions at the end hold the layout, and a change of it is a change of CAPTURE_VERSION.
 */
#ifndef EBPFDUMP_CAPTURE_H
#define EBPFDUMP_CAPTURE_H

#ifndef EBPFDUMP_BPF
#	include <assert.h>
#	include <linux/types.h>
#endif

#define CAPTURE_VERSION 1

/* The largest `captured` of one record: the largest size class of the ring buffer records. */
#define CAPTURE_DATA_MAX 16384

enum capture_type {
	/* Bytes of the stream. */
	CAPTURE_DATA = 1,
	/* This direction of the connection is over; `seq` is where it ends if known
	   (CAPTURE_F_SEQ). */
	CAPTURE_END = 2,
	/* Only in recorded files: `time_ns` is a monotonic time, `wall_ns` (in `connection`) the
	 * wall-clock time at that moment. Holds for what follows. */
	CAPTURE_CLOCK = 3,
};

enum capture_direction {
	CAPTURE_EGRESS = 0,  /* sent from this machine */
	CAPTURE_INGRESS = 1, /* received on it */
	CAPTURE_BOTH = 2,    /* only with CAPTURE_END */
};

enum capture_flags {
	/* `seq` is valid. Always set on CAPTURE_DATA. */
	CAPTURE_F_SEQ = 1 << 0,
	/* Seen as a packet, not as a call: records may be out of order, and repeat. */
	CAPTURE_F_PACKET = 1 << 1,
	/* The first byte of the record is the first byte of its direction of the connection. */
	CAPTURE_F_FIRST = 1 << 2,
	/* The connection ended by reset (CAPTURE_END). */
	CAPTURE_F_RESET = 1 << 3,
	/* The bytes have no readable memory (pages of sendfile, MSG_TRUNC): captured is 0. */
	CAPTURE_F_UNREADABLE = 1 << 4,
	/*
	 * What earlier records said of the bytes from `seq` on never left: it was offered to the
	 * socket and not accepted, and now other bytes are offered in their place.
	 */
	CAPTURE_F_RETRACT = 1 << 5,
	/* `isn_difference` is valid: not before the connection is established, in recorded files
	 * not always. */
	CAPTURE_F_ISN = 1 << 6,
};

struct capture_record {
	__u16 version;	/* CAPTURE_VERSION */
	__u8 type;	/* enum capture_type */
	__u8 direction; /* enum capture_direction */
	__u32 size; /* of this header and the captured bytes: the record is sizeof header + captured
		     */
	__u64 time_ns;	  /* CLOCK_MONOTONIC at the hook */
	__u64 connection; /* unique while the loader runs: never reused, 0 is not used */
	__u64 cgroup_id;  /* cgroup v2 id of the process, 0 unknown */
	__u32 seq;	  /* TCP sequence number of the first byte */
	__u32 length;	  /* bytes of the stream this record stands for; length >= captured */
	__u32 captured;	  /* bytes that follow the header */
	__u32 flags;	  /* enum capture_flags */
	__u32 pid;	  /* process id in the initial pid namespace, 0 unknown */
	__u32 netns;	  /* inode number of the socket's network namespace */
	__u32 ifindex;	  /* network device of the socket's traffic in its namespace, 0 unknown */
	__u16 family;	  /* AF_INET or AF_INET6; v4-mapped addresses are AF_INET already */
	__u16 local_port; /* host byte order */
	__u16 remote_port;
	__u16 reserved16; /* 0 */
	/*
	 * How far apart the two streams began: the local initial sequence number less the remote
	 * one, as the kernel's counters tell them. These count the SYN of the end that opened the
	 * connection, so there the difference is one too small. With a byte's sequence number it
	 * names a place in all connections, the same at both ends.
	 */
	__u32 isn_difference;
	__u8 local_addr[16]; /* AF_INET: the first 4 bytes */
	__u8 remote_addr[16];
	char comm[16];	    /* thread name, NUL-terminated; empty: unknown */
	char interface[16]; /* name of the network device, NUL-terminated; empty: unknown */
};

_Static_assert(sizeof(struct capture_record) == 136, "capture_record has no padding");

/*
 * Why bytes that passed a hook were not captured. `seen = captured + sum of skipped` holds for the
 * counters of each program (struct capture_counters).
 */
enum capture_skip {
	CAPTURE_SKIP_OTHER,	/* the connection is not HTTP/1.x */
	CAPTURE_SKIP_OWN,	/* the loader's own traffic, or that of another one, once known */
	CAPTURE_SKIP_INTERFACE, /* not one of --interface */
	CAPTURE_SKIP_LIMIT,	/* beyond --capture-bytes of one call */
	CAPTURE_SKIP_PRESSURE, /* beyond what is captured of one call while the ring buffer fills up
				*/
	CAPTURE_SKIP_RING_FULL,	 /* no room in the ring buffer: the record is lost too */
	CAPTURE_SKIP_UNREADABLE, /* pages (sendfile, splice), MSG_TRUNC, kinds of buffers that carry
				    no address */
	CAPTURE_SKIP_SEGMENTS,	 /* beyond CAPTURE_SEGMENTS_MAX buffers of one call */
	CAPTURE_SKIP_FAULT,	 /* the memory could not be read without a page fault */
	CAPTURE_SKIP_TABLE_FULL, /* no room for the connection in the table */
	CAPTURE_SKIP_MAX
};

/* Which of the programs counts. Each row of counters has one writer on each CPU. */
enum capture_program {
	CAPTURE_P_EGRESS,
	CAPTURE_P_INGRESS,
	CAPTURE_P_STATE,   /* a connection changes its TCP state */
	CAPTURE_P_DESTROY, /* a socket goes away */
	CAPTURE_P_MAX
};

/* One per CPU and program; user space adds the CPUs up. All only grow. */
struct capture_counters {
	__u64 calls;			 /* hook hits that carried bytes */
	__u64 seen;			 /* bytes, each stream offset once */
	__u64 captured;			 /* bytes handed to user space */
	__u64 skipped[CAPTURE_SKIP_MAX]; /* bytes */
	__u64 submitted; /* records meant for user space: read + lost + still in the ring buffer */
	__u64 lost;	 /* records for which the ring buffer had no room */
	__u64 wakeups;	 /* of user space */
	__u64 connections;	 /* for which state was made */
	__u64 connections_http;	 /* of these, judged to be HTTP */
	__u64 connections_other; /* of these, judged not to be */
	__u64 not_placed;	 /* hook hits whose process or iterator could not be understood */
};

/* The most buffers (iovec) of one call that are looked at; further ones are CAPTURE_SKIP_SEGMENTS.
 */
#define CAPTURE_SEGMENTS_MAX 64

/* Who reads a connection: an entry of the map `owners`. */
struct capture_owner {
	__u64 cgroup_id;
	__u32 pid;
	__u32 reserved; /* 0 */
	char comm[16];
};

/* Entries of the map `ignore`, and the one of a connection: ids count up for each CPU and program,
 * so they are mixed. */
#define CAPTURE_IGNORE_SLOTS	16384
#define CAPTURE_IGNORE_SLOT(id) ((__u32)((id)*0x9e3779b97f4a7c15ULL >> 50))
/* Set in an entry (no id has this bit): its bytes are CAPTURE_SKIP_OWN, else CAPTURE_SKIP_OTHER. */
#define CAPTURE_IGNORE_OWN (1ULL << 63)

/* The most --interface names. */
#define CAPTURE_INTERFACES_MAX 16

#endif
