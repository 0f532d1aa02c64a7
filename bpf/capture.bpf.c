/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * capture.bpf.c: sees the bytes of TCP connections and hands those of HTTP/1.x to user space. It
 * only reads.
 *
 * One body per direction (sent(), received()), and several ways to hang it up; user space
 * loads the best that the kernel can run (pkg/probe). A body finds the connection's state, decides
 * by the first bytes whether the connection is HTTP, drops what is not wanted before any copy, and
 * writes records into the ring buffer, each with one copy from the process's memory. capture.h says
 * what a record is.
 *
 * A stream position is a TCP sequence number, taken from the socket; `next` in the state is how far
 * a direction was seen, so that a hook that fires twice for the same bytes (tcp_sendmsg_locked
 * does, once per pass; a send repeated after EAGAIN) neither counts nor copies them twice.
 */
#include "kernel.h"
#include "capture.h"
#include "methods.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "GPL";

/* ---- set by user space before loading ---- */

/* State in socket storage (tracing and cgroup_skb programs), else in the hash. */
const volatile bool use_storage = false;
/* Most bytes captured of one call, and of one record (a class that fits the ring buffer). */
const volatile __u32 capture_limit = 20480;
const volatile __u32 record_limit = CAPTURE_DATA_MAX;
const volatile __u32 ring_bytes = 8 << 20;
/* Ask user space to drain when so many bytes wait. */
const volatile __u32 wakeup_bytes = 1 << 20;
const volatile __u32 n_interfaces = 0;
const volatile char interfaces[CAPTURE_INTERFACES_MAX][16] = {};
/* bit: enum capture_direction */
const volatile __u32 directions = 3;
/* Parameters of tcp_recvmsg: 6 before 5.19 (ec095263a965), which removed nonblock; 4 where addr_len
 * is gone too (7.x). */
const volatile __u32 recvmsg_params = 5;
/* Ingress is seen when tcp_recvmsg returns, by kretprobe. */
const volatile bool by_return = false;
/* Ingress comes as packets, by cgroup_skb. */
const volatile bool ingress_packets = false;
/* Egress cannot see the data of TCP Fast Open in the SYN: count it when the connection is
 * established. */
const volatile bool count_fastopen = false;

/* Where the kernel keeps preempt_dynamic_mode; 0: not known. */
const volatile __u64 preempt_mode_at = 0;

/* ---- shared with user space while running ---- */

__u32 preempt_mode = 0; /* its value + 1, once identify() ran */

__u32 own_tgid = 0; /* the loader, in the initial pid namespace */
/* Where the loader listens: for packets to it, where its listening socket cannot hand down its
 * state. */
__u32 own_netns = 0;
__u32 own_port = 0;
__u64 own_addr[2] = {};
__u32 wakeup_asked = 0; /* user space sets it to 0 before it drains */

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 8 << 20);
} ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, CAPTURE_P_MAX);
	__type(key, u32);
	__type(value, struct capture_counters);
} counters SEC(".maps");

/*
 * Connections that user space wants no more of (a tunnel, say): the id at CAPTURE_IGNORE_SLOT(id).
 * Direct-mapped: a later one may push an earlier one out, which is then asked for again.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, CAPTURE_IGNORE_SLOTS);
	__type(key, u32);
	__type(value, u64);
} ignore SEC(".maps");

/* Who reads a connection whose ingress is seen as packets: by connection id. User space looks up
 * what a record lacks. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, u64);
	__type(value, struct capture_owner);
} owners SEC(".maps");

/* ---- state of a connection ---- */

enum verdict { V_JUDGING, V_HTTP, V_OTHER, V_OWN, V_INTERFACE };
enum side { S_UNSEEN, S_MAYBE, S_NOT };

/* Calls without the beginning of a message that a connection which was open before us may make
 * until it is given up. */
#define TRIES_MAX 4096

/* A packet holds up to 64 KiB (GRO), more with BIG TCP: what is beyond so many records is skipped.
 */
#define PACKET_RECORDS_MAX 8

struct conn {
	u64 id;
	u64 cgroup_id;
	u32 pid;
	u32 netns;
	u32 ifindex;
	u32 next[2]; /* sequence number behind what was seen */
	u32 tries;
	u32 isn_difference; /* as the record has it, if isn_known */
	u32 reserved;
	u16 family;
	u16 local_port;
	u16 remote_port;
	u8 verdict;
	u8 fresh;      /* seen from its first byte on */
	u8 seen[2];    /* next is valid */
	u8 side[2];    /* enum side */
	u8 n_start[2]; /* bytes in start, while S_MAYBE */
	u8 ended;      /* bits 1 << direction: END was sent */
	u8 isn_known;
	u64 start[2][2]; /* first bytes of a direction, while S_MAYBE */
	u8 local_addr[16];
	u8 remote_addr[16];
	char comm[16];
	char interface[16];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, u64);
	__type(value, struct conn);
} conns SEC(".maps");

/* The loader's listening socket hands its state (V_OWN) down to the connections that it accepts. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, struct conn);
} storage SEC(".maps");

/*
 * What a program knows of the call that it looks at. By program: they may interrupt each other,
 * none interrupts itself. Functions that take the program's number find it here: they are verified
 * on their own, once (global functions), which keeps the verifier's work small.
 */
struct buffers {
	const struct iovec *vec; /* a list of buffers in kernel memory; NULL: one buffer */
	const void *one;
	u64 off;    /* bytes into it */
	u32 memory; /* enum memory */
	u32 readable;
};

struct call {
	struct buffers b;
	u64 bytes;   /* of the stream, at b */
	u64 waiting; /* bytes in the ring buffer before it */
	/* the next record */
	u64 from;   /* where its bytes are; in a packet: at which offset */
	u32 n;	    /* how many */
	u32 length; /* how many it stands for */
	u32 seq;
	u32 flags;
	u32 direction;
	u32 reserved;
	struct capture_record head; /* the rest of it, if there are several */
	u64 left;		    /* of bytes: behind from */
	u64 wanted;		    /* of left: to be captured */
	u64 seg_left;		    /* in the buffer at from */
	u64 start[2];		    /* the first bytes, little-endian */
	u32 n_start;		    /* how many (<= 16) */
	u32 done;		    /* enum emitted: of the last record */
};

/* tcp_recvmsg's arguments, from its entry on, by thread. Only for kprobes. */
struct receiving {
	u64 sk;
	u64 msg;
	u64 flags;
	u64 room;	  /* bytes that the caller has room for */
	struct buffers b; /* as they are before anything is read */
};
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, u64);
	__type(value, struct receiving);
} receiving SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, CAPTURE_P_MAX);
	__type(key, u32);
	__type(value, struct call);
} calls SEC(".maps");

/* A new connection's state is built here: it is too large for the stack. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, CAPTURE_P_MAX);
	__type(key, u32);
	__type(value, struct conn);
} scratch SEC(".maps");

/* ids: unique per CPU and program, with the CPU in them */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, CAPTURE_P_MAX);
	__type(key, u32);
	__type(value, u64);
} ids SEC(".maps");

/*
 * `btf` is a constant in every caller: whether the pointer is one that the verifier knows by its
 * type (fentry, tp_btf, cgroup_skb), and may be read directly, or a plain number (kprobe).
 */
#define GET(btf, ptr, field) ((btf) ? (ptr)->field : BPF_CORE_READ(ptr, field))

static __always_inline struct capture_counters *counters_of(u32 program)
{
	return bpf_map_lookup_elem(&counters, &program);
}

static __always_inline struct call *call_of(u32 program)
{
	return bpf_map_lookup_elem(&calls, &program);
}

static __always_inline void skip(struct capture_counters *count, u32 reason, u64 bytes)
{
	count->skipped[reason] += bytes;
}

/* ---- the ring buffer: the only place that reserves and submits ---- */

static __always_inline u64 ring_waiting(void)
{
	return bpf_ringbuf_query(&ring, BPF_RB_AVAIL_DATA);
}

/* waiting: bytes in the ring buffer before this call's records */
static __always_inline void submit(struct capture_counters *count, void *rec, u64 waiting)
{
	u64 flags = BPF_RB_NO_WAKEUP;

	if (waiting >= wakeup_bytes && !wakeup_asked) {
		wakeup_asked = 1;
		flags = BPF_RB_FORCE_WAKEUP;
		count->wakeups++;
	}
	bpf_ringbuf_submit(rec, flags);
}

/* Everything of a record that is the same for all records of a call. */
static __always_inline void fill(
	struct capture_record *rec, const struct conn *c, u8 type, u8 direction, u32 seq, u32 flags)
{
	rec->version = CAPTURE_VERSION;
	rec->type = type;
	rec->direction = direction;
	rec->size = sizeof(*rec);
	rec->time_ns = bpf_ktime_get_ns();
	rec->connection = c->id;
	rec->cgroup_id = c->cgroup_id;
	rec->seq = seq;
	rec->length = 0;
	rec->captured = 0;
	rec->flags = flags | (c->isn_known ? CAPTURE_F_ISN : 0);
	rec->pid = c->pid;
	rec->netns = c->netns;
	rec->ifindex = c->ifindex;
	rec->family = c->family;
	rec->local_port = c->local_port;
	rec->remote_port = c->remote_port;
	rec->reserved16 = 0;
	rec->isn_difference = c->isn_difference;
	__builtin_memcpy(rec->local_addr, c->local_addr, 16);
	__builtin_memcpy(rec->remote_addr, c->remote_addr, 16);
	__builtin_memcpy(rec->comm, c->comm, 16);
	__builtin_memcpy(rec->interface, c->interface, 16);
}

/* Where the bytes of a record are. */
enum memory { FROM_USER, FROM_KERNEL, FROM_PACKET };

enum emitted { EMIT_OK, EMIT_FAULT, EMIT_FULL };

/*
 * A record of one size class with call->n bytes from call->from. c: fill the header from it; NULL:
 * it is call->head, for one of several records.
 */
static __always_inline int emit_class(struct capture_counters *count, struct call *call,
	const struct conn *c, u64 max, u32 memory, void *skb)
{
	struct capture_record *rec;
	u64 n = call->n;
	const void *from = (const void *)call->from;
	long failed;

	count->submitted++;
	rec = bpf_ringbuf_reserve(&ring, sizeof(*rec) + max, 0);
	if (!rec) {
		count->lost++;
		return EMIT_FULL;
	}
	/* the verifier does not know what the compiler knows */
	barrier_var(n);
	if (n > max)
		n = max;
	if (memory == FROM_PACKET) {
		/* The helper takes no length of 0, and older verifiers do not learn from != 0. */
		u64 last = n - 1;

		barrier_var(last);
		failed = last >= max || bpf_skb_load_bytes(skb, (u32)call->from, rec + 1, last + 1);
	} else if (memory == FROM_USER) {
		failed = bpf_probe_read_user(rec + 1, n, from);
	} else {
		failed = bpf_probe_read_kernel(rec + 1, n, from);
	}
	if (failed) {
		/* The record goes nowhere: it is as if it had not been meant for user space. */
		count->submitted--;
		bpf_ringbuf_discard(rec, BPF_RB_NO_WAKEUP);
		return EMIT_FAULT;
	}
	if (c)
		fill(rec, c, CAPTURE_DATA, call->direction, call->seq, call->flags);
	else
		__builtin_memcpy(rec, &call->head, sizeof(*rec));
	rec->size = sizeof(*rec) + n;
	rec->length = call->length;
	rec->captured = n;
	submit(count, rec, call->waiting);
	return EMIT_OK;
}

/*
 * The smallest class that holds the bytes: a power of two and a little, so that a buffer of the
 * usual sizes with a head before it fits. user space knows them too (record_limit() in
 * pkg/probe/probe.c).
 */
static __always_inline int emit(struct capture_counters *count, struct call *call,
	const struct conn *c, u32 memory, void *skb)
{
	u32 n = call->n;

	if (n <= 128)
		return emit_class(count, call, c, 128, memory, skb);
	if (n <= 512)
		return emit_class(count, call, c, 512, memory, skb);
	if (n <= 1152)
		return emit_class(count, call, c, 1152, memory, skb);
	if (n <= 2304)
		return emit_class(count, call, c, 2304, memory, skb);
	if (n <= 4608)
		return emit_class(count, call, c, 4608, memory, skb);
	if (n <= 8704)
		return emit_class(count, call, c, 8704, memory, skb);
	return emit_class(count, call, c, CAPTURE_DATA_MAX, memory, skb);
}

/* One record of several. */
static __always_inline int emit_more(u32 program, u32 memory, void *skb)
{
	struct capture_counters *count = bpf_map_lookup_elem(&counters, &program);
	struct call *call = bpf_map_lookup_elem(&calls, &program);

	if (!count || !call)
		return EMIT_FAULT;
	call->head.seq = call->seq;
	call->head.flags = call->flags | (call->head.flags & CAPTURE_F_ISN);
	return emit(count, call, NULL, memory, skb);
}

__noinline int emit_user(u32 program)
{
	return emit_more(program, FROM_USER, NULL);
}

__noinline int emit_kernel(u32 program)
{
	return emit_more(program, FROM_KERNEL, NULL);
}

__noinline int emit_packet(struct __sk_buff *skb, u32 program)
{
	return emit_more(program, FROM_PACKET, skb);
}

/* A record without bytes: that some passed which cannot be read, or that a direction is over. */
static __always_inline void emit_empty(struct capture_counters *count, const struct conn *c,
	u8 type, u8 direction, u32 seq, u32 length, u32 flags)
{
	struct capture_record *rec;

	count->submitted++;
	rec = bpf_ringbuf_reserve(&ring, sizeof(*rec), 0);
	if (!rec) {
		count->lost++;
		return;
	}
	fill(rec, c, type, direction, seq, flags);
	rec->length = length;
	submit(count, rec, ring_waiting());
}

/*
 * What may be captured of one call. As the ring buffer fills up, less and less: the heads of
 * messages last, so that it degrades before it drops.
 */
static __always_inline u32 call_limit(u64 waiting)
{
	u32 limit = capture_limit;

	if (waiting > ring_bytes / 2 && limit > 4096)
		limit = 4096;
	if (waiting > ring_bytes / 4 * 3 && limit > 1024)
		limit = 1024;
	if (waiting > ring_bytes / 8 * 7 && limit > 256)
		limit = 256;
	return limit;
}

/*
 * Counts the `left` of `total` bytes of a call that no record holds. done: what emit() said last;
 * wanted: bytes that the limit would still have let through.
 */
static __always_inline void not_captured(
	struct capture_counters *count, int done, u64 total, u64 left, u64 wanted)
{
	u64 configured, got = total - left;

	if (left == 0)
		return;
	configured = total < capture_limit ? total : capture_limit;
	if (done == EMIT_FULL) {
		skip(count, CAPTURE_SKIP_RING_FULL, left);
	} else if (done == EMIT_FAULT) {
		skip(count, CAPTURE_SKIP_FAULT, left);
	} else if (wanted) {
		skip(count, CAPTURE_SKIP_SEGMENTS, left);
	} else {
		/* what the option would have let through is the ring buffer's fault */
		skip(count, CAPTURE_SKIP_PRESSURE, configured - got);
		skip(count, CAPTURE_SKIP_LIMIT, total - configured);
	}
}

/* ---- connections ---- */

static __always_inline struct conn *conn_find(bool btf, struct sock *sk)
{
	u64 key = (u64)sk;

	if (btf && use_storage)
		return bpf_sk_storage_get(&storage, sk, 0, 0);
	return bpf_map_lookup_elem(&conns, &key);
}

static __always_inline void conn_drop(bool btf, struct sock *sk)
{
	u64 key = (u64)sk;

	if (btf && use_storage)
		bpf_sk_storage_delete(&storage, sk);
	else
		bpf_map_delete_elem(&conns, &key);
}

static __always_inline void conn_addresses(struct conn *c, struct sock *sk)
{
	struct in6_addr local, remote;
	u32 v4;

	c->family = BPF_CORE_READ(sk, __sk_common.skc_family);
	c->local_port = BPF_CORE_READ(sk, __sk_common.skc_num);
	c->remote_port = bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport));
	if (c->family == AF_INET) {
		v4 = BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr);
		__builtin_memcpy(c->local_addr, &v4, 4);
		v4 = BPF_CORE_READ(sk, __sk_common.skc_daddr);
		__builtin_memcpy(c->remote_addr, &v4, 4);
		return;
	}
	BPF_CORE_READ_INTO(&local, sk, __sk_common.skc_v6_rcv_saddr);
	BPF_CORE_READ_INTO(&remote, sk, __sk_common.skc_v6_daddr);
	__builtin_memcpy(c->local_addr, &local, 16);
	__builtin_memcpy(c->remote_addr, &remote, 16);
	/* ::ffff:a.b.c.d is IPv4 */
	if (*(u64 *)&remote == 0 && *(u32 *)&remote.in6_u.u6_addr8[8] == bpf_htonl(0xffff)) {
		c->family = AF_INET;
		__builtin_memcpy(c->local_addr, &local.in6_u.u6_addr8[12], 4);
		__builtin_memcpy(c->remote_addr, &remote.in6_u.u6_addr8[12], 4);
		__builtin_memset(&c->local_addr[4], 0, 12);
		__builtin_memset(&c->remote_addr[4], 0, 12);
	}
}

static __always_inline bool interface_wanted(const struct conn *c)
{
	const u64 *have = (const u64 *)c->interface;

	if (n_interfaces == 0)
		return true;
	for (u32 i = 0; i < CAPTURE_INTERFACES_MAX; i++) {
		const volatile u64 *want = (const volatile u64 *)interfaces[i];

		if (i >= n_interfaces)
			break;
		if (have[0] == want[0] && have[1] == want[1])
			return true;
	}
	return false;
}

/* The device that carries the socket's traffic, by its route; as named in its own network
 * namespace. */
static __always_inline void conn_interface(struct conn *c, struct sock *sk)
{
	struct dst_entry *dst = BPF_CORE_READ(sk, sk_dst_cache);
	struct net_device *dev;

	if (!dst)
		return;
	dev = BPF_CORE_READ(dst, dev);
	if (!dev)
		return;
	c->ifindex = BPF_CORE_READ(dev, ifindex);
	BPF_CORE_READ_STR_INTO(&c->interface, dev, name);
	/* Not only up to the NUL: names are compared as two words. */
	for (int i = 0, end = 0; i < 16; i++) {
		end |= c->interface[i] == 0;
		if (end)
			c->interface[i] = 0;
	}
}

static __always_inline struct conn *conn_make(
	bool btf, u32 program, struct sock *sk, struct capture_counters *count)
{
	struct conn *c = bpf_map_lookup_elem(&scratch, &program);
	u64 *id = bpf_map_lookup_elem(&ids, &program);
	u64 key = (u64)sk;

	if (!c || !id)
		return NULL;
	__builtin_memset(c, 0, sizeof(*c));
	/* never 0: the counter begins with 1 */
	*id += 1;
	c->id = (u64)bpf_get_smp_processor_id() << 48 | (u64)program << 44 | *id;
	c->netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
	conn_addresses(c, sk);
	conn_interface(c, sk);
	if (c->ifindex && !interface_wanted(c))
		c->verdict = V_INTERFACE;
	count->connections++;
	if (btf && use_storage)
		return bpf_sk_storage_get(&storage, sk, c, BPF_SK_STORAGE_GET_F_CREATE);
	if (bpf_map_update_elem(&conns, &key, c, BPF_ANY))
		return NULL;
	return bpf_map_lookup_elem(&conns, &key);
}

static __always_inline u32 isn_difference(struct tcp_sock *tp)
{
	return BPF_CORE_READ(tp, snd_una) - (u32)BPF_CORE_READ(tp, bytes_acked) -
	       (BPF_CORE_READ(tp, rcv_nxt) - (u32)BPF_CORE_READ(tp, bytes_received));
}

/*
 * Once the connection is established. What the counters count since then, they count in the
 * sequence number as well, a moment earlier: another CPU may be between the two, as packets come
 * while a call is here. What is read twice the same is right.
 */
static __always_inline void conn_isn(struct conn *c, struct sock *sk)
{
	struct tcp_sock *tp = (struct tcp_sock *)sk;
	u8 state = BPF_CORE_READ(sk, __sk_common.skc_state);
	u32 first, second;

	if (state == TCP_SYN_SENT || state == TCP_CLOSE)
		return;
	first = isn_difference(tp);
	second = isn_difference(tp);
	if (first != second) {
		first = second;
		second = isn_difference(tp);
	}
	if (first != second)
		return; /* the next call has another try */
	c->isn_difference = second;
	c->isn_known = 1;
}

/* Who calls. False if it is the loader itself. */
static __always_inline bool conn_owner(struct conn *c)
{
	u32 pid = bpf_get_current_pid_tgid() >> 32;

	if (c->pid == pid)
		return true;
	if (pid == own_tgid)
		return false;
	c->pid = pid;
	c->cgroup_id = bpf_get_current_cgroup_id();
	bpf_get_current_comm(c->comm, sizeof(c->comm));
	return true;
}

/* ---- is it HTTP? ---- */

enum looks { LOOKS_NOT, LOOKS_MAYBE, LOOKS_HTTP };

/* The first n (<= 16) bytes of a stream or of a call, little-endian; 0 behind them. */
__noinline int looks_like(u64 w0, u64 w1, u32 n)
{
	int looks = LOOKS_NOT;
	u64 m0, m1;

	/* A server ignores an empty line or two before a request (RFC 9112, 2.2). */
	for (int i = 0; i < 2; i++) {
		if (n >= 2 && (w0 & 0xffff) == 0x0a0d) {
			w0 = w0 >> 16 | w1 << 48;
			w1 >>= 16;
			n -= 2;
		}
	}
	m0 = n >= 8 ? ~0ULL : (1ULL << (n & 7) * 8) - 1;
	m1 = n >= 16 ? ~0ULL : n > 8 ? (1ULL << (n & 7) * 8) - 1 : 0;
	for (u32 i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
		u64 k0 = methods[i].mask[0], k1 = methods[i].mask[1];

		if ((w0 ^ methods[i].word[0]) & k0 & m0 || (w1 ^ methods[i].word[1]) & k1 & m1)
			continue;
		/* no byte that is there contradicts; are all there? */
		if (!(k0 & ~m0) && !(k1 & ~m1))
			return LOOKS_HTTP;
		looks = LOOKS_MAYBE;
	}
	return looks;
}

static __always_inline void start_append(struct call *call, u64 w0, u64 w1, u32 n)
{
	u32 had = call->n_start & 15, shift = (had & 7) * 8;

	if (had >= 8) {
		call->start[1] |= w0 << shift;
	} else {
		call->start[0] |= w0 << shift;
		call->start[1] |= shift ? w1 << shift | w0 >> (64 - shift) : w1;
	}
	call->n_start = had + n > 16 ? 16 : had + n;
}

/*
 * Whether the bytes of this call are wanted, by the first of them. A connection seen from its first
 * byte is told by the first bytes of its two directions, and then for ever (the answer may tell
 * what the request did not: an unregistered method). One that was open before is picked up at a
 * call that begins a message.
 */
static __always_inline bool judge(
	struct capture_counters *count, struct conn *c, u32 direction, struct call *call)
{
	int looks;

	if (c->side[direction] == S_MAYBE) {
		/* a few bytes came before */
		u64 w0 = call->start[0], w1 = call->start[1];
		u32 n = call->n_start;

		call->start[0] = c->start[direction][0];
		call->start[1] = c->start[direction][1];
		call->n_start = c->n_start[direction];
		start_append(call, w0, w1, n);
	}
	looks = looks_like(call->start[0], call->start[1], call->n_start);
	if (looks == LOOKS_HTTP) {
		c->verdict = V_HTTP;
		count->connections_http++;
		return true;
	}
	if (looks == LOOKS_MAYBE && call->n_start < 16) {
		c->side[direction] = S_MAYBE;
		c->n_start[direction] = call->n_start;
		c->start[direction][0] = call->start[0];
		c->start[direction][1] = call->start[1];
		return true;
	}
	c->side[direction] = S_NOT;
	if (c->fresh) {
		/* both directions said no, or one says TLS */
		if (c->side[!direction] == S_NOT ||
			(call->n_start >= 2 && (call->start[0] & 0xffff) == 0x0316)) {
			c->verdict = V_OTHER;
			count->connections_other++;
		}
	} else if (c->tries++ > TRIES_MAX) {
		c->verdict = V_OTHER;
		count->connections_other++;
	}
	return false;
}

/* Bytes of a connection that is not wanted. False if it is wanted, or still to be judged. */
static __always_inline bool unwanted(
	struct capture_counters *count, struct conn *c, struct sock *sk, u64 bytes)
{
	if (n_interfaces && c->ifindex == 0 && c->verdict <= V_HTTP) {
		/* had no route yet */
		conn_interface(c, sk);
		if (c->ifindex == 0) {
			skip(count, CAPTURE_SKIP_INTERFACE, bytes);
			return true;
		}
		if (!interface_wanted(c))
			c->verdict = V_INTERFACE;
	}
	switch (c->verdict) {
	case V_OTHER:
		skip(count, CAPTURE_SKIP_OTHER, bytes);
		return true;
	case V_OWN:
		skip(count, CAPTURE_SKIP_OWN, bytes);
		return true;
	case V_INTERFACE:
		skip(count, CAPTURE_SKIP_INTERFACE, bytes);
		return true;
	}
	return false;
}

/* A connection that is known to be none by this direction's first bytes, until the other one says
 * more. */
static __always_inline bool refused(const struct conn *c, u32 direction)
{
	return c->verdict == V_JUDGING && c->fresh && c->side[direction] == S_NOT;
}

/* Bytes of a connection that user space wants no more of. */
static __always_inline bool ignored(struct capture_counters *count, struct conn *c, u64 bytes)
{
	u32 slot = CAPTURE_IGNORE_SLOT(c->id);
	u64 *entry = bpf_map_lookup_elem(&ignore, &slot);
	u64 id = entry ? *entry : 0;

	if ((id & ~CAPTURE_IGNORE_OWN) != c->id)
		return false;
	if (id & CAPTURE_IGNORE_OWN) {
		c->verdict = V_OWN;
		skip(count, CAPTURE_SKIP_OWN, bytes);
	} else {
		c->verdict = V_OTHER;
		count->connections_other++;
		skip(count, CAPTURE_SKIP_OTHER, bytes);
	}
	return true;
}

/* ---- a call's buffers ---- */

static __always_inline void buffers_of(bool btf, struct msghdr *msg, struct buffers *b)
{
	u32 kind;

	b->off = GET(btf, msg, msg_iter.iov_offset);
	b->vec = NULL;
	b->one = NULL;
	b->memory = FROM_USER;
	b->readable = true;
	if (bpf_core_field_exists(struct iov_iter, iter_type))
		kind = GET(btf, msg, msg_iter.iter_type);
	else
		kind = BPF_CORE_READ((struct iov_iter___iov *)&msg->msg_iter, type) & ~1U;
	if (bpf_core_enum_value_exists(enum iter_type, ITER_UBUF) &&
		kind == bpf_core_enum_value(enum iter_type, ITER_UBUF)) {
		b->one = (const void *)GET(btf, msg, msg_iter.ubuf);
		return;
	}
	if (kind == bpf_core_enum_value(enum iter_type, ITER_IOVEC)) {
		if (bpf_core_field_exists(struct iov_iter, __iov))
			b->vec = BPF_CORE_READ(msg, msg_iter.__iov);
		else
			b->vec = BPF_CORE_READ((struct iov_iter___iov *)&msg->msg_iter, iov);
		return;
	}
	if (kind == bpf_core_enum_value(enum iter_type, ITER_KVEC)) {
		b->vec = BPF_CORE_READ(msg, msg_iter.kvec);
		b->memory = FROM_KERNEL;
		return;
	}
	/* pages, pipes, discard: no address to read from */
	b->readable = false;
}

/*
 * One record of those for the bytes at call->b. 1: there may be more. All that it knows is in
 * memory, none of it in its caller's registers: so the verifier need not follow the loop.
 */
__noinline int capture_piece(u32 program)
{
	struct capture_counters *count = bpf_map_lookup_elem(&counters, &program);
	struct call *call = bpf_map_lookup_elem(&calls, &program);
	struct iovec seg;
	u64 n;

	if (!count || !call)
		return 0;
	if (call->seg_left == 0) {
		if (!call->b.vec)
			return 0;
		if (bpf_probe_read_kernel(&seg, sizeof(seg), call->b.vec)) {
			call->done = EMIT_FAULT;
			return 0;
		}
		call->b.vec++;
		if (seg.iov_len <= call->b.off) {
			call->b.off -= seg.iov_len;
			return 1;
		}
		call->from = (u64)seg.iov_base + call->b.off;
		call->seg_left = seg.iov_len - call->b.off;
		call->b.off = 0;
		if (call->seg_left > call->left)
			call->seg_left = call->left;
	}
	n = call->seg_left;
	if (n > record_limit)
		n = record_limit;
	if (n > call->wanted)
		n = call->wanted;
	call->n = n;
	/* the last one stands for all that is left */
	call->length = n == call->wanted ? call->left : n;
	call->done = call->b.memory == FROM_USER ? emit_user(program) : emit_kernel(program);
	if (call->done != EMIT_OK)
		return 0;
	count->captured += n;
	call->flags &= ~CAPTURE_F_FIRST;
	call->seq += n;
	call->from += n;
	call->seg_left -= n;
	call->left -= n;
	call->wanted -= n;
	return call->wanted != 0;
}

/*
 * Writes records for the call->bytes bytes of the stream that are at call->b and begin at
 * call->seq. What is not captured is counted, and the next record's seq shows it; the last record's
 * length stands for what follows it in this call.
 */
static __always_inline void capture_buffers(
	struct capture_counters *count, u32 program, struct call *call, const struct conn *c)
{
	u64 limit;

	call->waiting = ring_waiting();
	limit = call_limit(call->waiting);
	call->left = call->bytes;
	call->wanted = call->left < limit ? call->left : limit;
	if (!call->b.vec) {
		call->seg_left = call->left;
		call->from = (u64)call->b.one + call->b.off;
		if (call->wanted <= record_limit && call->b.memory == FROM_USER) {
			/* most calls: one buffer, one record */
			call->n = call->wanted;
			call->length = call->left;
			call->done = emit(count, call, c, FROM_USER, NULL);
			if (call->done == EMIT_OK) {
				count->captured += call->wanted;
				call->left -= call->wanted;
				call->wanted = 0;
			}
			not_captured(count, call->done, call->bytes, call->left, call->wanted);
			return;
		}
	} else {
		call->seg_left = 0;
	}
	call->done = EMIT_OK;
	fill(&call->head, c, CAPTURE_DATA, call->direction, call->seq, call->flags);
	for (u32 i = 0; i < CAPTURE_SEGMENTS_MAX; i++)
		if (!capture_piece(program))
			break;
	/* too many buffers, or one that cannot be read: a record without bytes stands for the rest
	 */
	if (call->left && call->wanted && call->done != EMIT_FULL)
		emit_empty(count, c, CAPTURE_DATA, call->direction, call->seq, call->left,
			call->flags);
	not_captured(count, call->done, call->bytes, call->left, call->wanted);
}

/* The first bytes that are at call->b, from several buffers if the first ones are short. */
__noinline int first_bytes(u32 program)
{
	struct call *call = bpf_map_lookup_elem(&calls, &program);
	const struct iovec *vec;
	u64 off, left;

	if (!call)
		return 0;
	vec = call->b.vec;
	off = call->b.off;
	left = call->bytes;
	for (int i = 0; i < 4; i++) {
		struct iovec seg = {(void *)call->b.one, off + left};
		u64 n, w[2] = {};

		if (vec && bpf_probe_read_kernel(&seg, sizeof(seg), vec++))
			break;
		if (seg.iov_len <= off) {
			off -= seg.iov_len;
			continue;
		}
		n = seg.iov_len - off;
		if (n > left)
			n = left;
		if (n > 16)
			n = 16;
		if (call->b.memory == FROM_USER ? bpf_probe_read_user(w, n, seg.iov_base + off)
						: bpf_probe_read_kernel(w, n, seg.iov_base + off))
			break;
		start_append(call, w[0], w[1], n);
		left -= n;
		off = 0;
		if (!vec || call->n_start >= 16 || left == 0)
			break;
	}
	return 0;
}

/* How many bytes a socket sent (the SYN may count as one), and how many its process has read. */
static __always_inline u64 bytes_sent(bool btf, struct tcp_sock *tp)
{
	u32 written = GET(btf, tp, write_seq), una = GET(btf, tp, snd_una);

	return GET(btf, tp, bytes_acked) + (u32)(written - una);
}

static __always_inline u64 bytes_read(bool btf, struct tcp_sock *tp)
{
	u32 next = GET(btf, tp, rcv_nxt), copied = GET(btf, tp, copied_seq);

	return GET(btf, tp, bytes_received) - (u32)(next - copied);
}

/* What both directions do with call->bytes new bytes at call->b, counted as seen, for hooks that
 * see a call: decide, then capture. */
static __always_inline void take_call(struct capture_counters *count, u32 program,
	struct call *call, struct conn *c, struct sock *sk, u8 direction, u32 seq, u32 flags)
{
	u64 bytes = call->bytes;

	if (!conn_owner(c)) {
		c->verdict = V_OWN;
		skip(count, CAPTURE_SKIP_OWN, bytes);
		return;
	}
	if (c->verdict == V_HTTP) {
		if (ignored(count, c, bytes))
			return;
	} else {
		call->n_start = 0;
		call->start[0] = 0;
		call->start[1] = 0;
		if (!refused(c, direction) && call->b.readable)
			first_bytes(program);
		if (call->n_start == 0 || !judge(count, c, direction, call)) {
			skip(count, CAPTURE_SKIP_OTHER, bytes);
			return;
		}
	}
	if (!call->b.readable) {
		skip(count, CAPTURE_SKIP_UNREADABLE, bytes);
		emit_empty(count, c, CAPTURE_DATA, direction, seq, bytes,
			flags | CAPTURE_F_UNREADABLE);
		return;
	}
	call->direction = direction;
	call->seq = seq;
	call->flags = flags;
	capture_buffers(count, program, call, c);
}

/* ---- egress ---- */

static __always_inline int sent(bool btf, struct sock *sk, struct msghdr *msg)
{
	struct capture_counters *count = counters_of(CAPTURE_P_EGRESS);
	struct call *call = call_of(CAPTURE_P_EGRESS);
	struct tcp_sock *tp = (struct tcp_sock *)sk;
	u32 seq, flags = CAPTURE_F_SEQ;
	struct conn *c;
	u64 bytes;
	s32 known;

	if (!count || !call)
		return 0;
	if (btf) {
		tp = bpf_skc_to_tcp_sock(sk);
		if (!tp)
			return 0;
	}
	bytes = GET(btf, msg, msg_iter.count);
	if (bytes == 0)
		return 0;
	c = conn_find(btf, sk);
	if (!c) {
		u8 state = GET(btf, sk, __sk_common.skc_state);

		if (state == TCP_CLOSE) {
			/* TCP Fast Open: no addresses yet, the data goes with the SYN. Else it
			 * fails with EPIPE. */
			if (GET(btf, msg, msg_flags) & MSG_FASTOPEN) {
				count->calls++;
				count->seen += bytes;
				skip(count, CAPTURE_SKIP_UNREADABLE, bytes);
			}
			return 0;
		}
		c = conn_make(btf, CAPTURE_P_EGRESS, sk, count);
		if (!c) {
			count->calls++;
			count->seen += bytes;
			skip(count, CAPTURE_SKIP_TABLE_FULL, bytes);
			return 0;
		}
		c->fresh = bytes_sent(btf, tp) <= 1 && bytes_read(btf, tp) == 0;
	}
	if (GET(btf, sk, sk_shutdown) & SEND_SHUTDOWN)
		return 0;
	seq = GET(btf, tp, write_seq);
	if (c->seen[CAPTURE_EGRESS]) {
		/*
		 * Seen before and not counted again: the next pass over the same call, or the rest
		 * of one that was accepted in part. Both end where the call did. Other bytes in the
		 * place of what was offered are new.
		 */
		known = c->next[CAPTURE_EGRESS] - seq;
		if (known > 0) {
			if ((u64)known == bytes)
				return 0;
			flags |= CAPTURE_F_RETRACT;
		}
	} else {
		c->seen[CAPTURE_EGRESS] = 1;
		/* not so if the first call went unseen */
		if (c->fresh && bytes_sent(btf, tp) <= 1)
			flags |= CAPTURE_F_FIRST;
	}
	c->next[CAPTURE_EGRESS] = seq + bytes;
	count->calls++;
	count->seen += bytes;
	if (unwanted(count, c, sk, bytes))
		return 0;
	if (!c->isn_known)
		conn_isn(c, sk);
	buffers_of(btf, msg, &call->b);
	call->bytes = bytes;
	take_call(count, CAPTURE_P_EGRESS, call, c, sk, CAPTURE_EGRESS, seq, flags);
	return 0;
}

SEC("fentry/tcp_sendmsg")
int BPF_PROG(fentry__tcp_sendmsg, struct sock *sk, struct msghdr *msg)
{
	return sent(true, sk, msg);
}

SEC("kprobe/tcp_sendmsg")
int BPF_KPROBE(kprobe__tcp_sendmsg, struct sock *sk, struct msghdr *msg)
{
	return sent(false, sk, msg);
}

/*
 * Once per pass of tcp_sendmsg_locked's loop. A pass that will find no room (no space in the last
 * segment, and too much memory queued for another) accepts nothing: the call waits and the next
 * pass is seen, or it fails.
 */
SEC("tp_btf/tcp_sendmsg_locked")
int BPF_PROG(tp_btf__tcp_sendmsg_locked, struct sock *sk, struct msghdr *msg, struct sk_buff *skb,
	int size_goal)
{
	if (sk->sk_wmem_queued >= sk->sk_sndbuf && (!skb || (int)skb->len >= size_goal))
		return 0;
	return sent(true, sk, msg);
}

/* ---- ingress, by calls ---- */

/* After a read the iterator stands behind what was read: goes back over call->bytes. 0 if that
 * leads nowhere. */
__noinline int rewind_buffers(u32 program)
{
	struct call *call = bpf_map_lookup_elem(&calls, &program);
	struct iovec seg;
	u64 back;

	if (!call)
		return 0;
	back = call->bytes;
	/* one more: it stands behind the last one */
	for (u32 i = 0; i <= CAPTURE_SEGMENTS_MAX; i++) {
		if (call->b.off >= back) {
			call->b.off -= back;
			return 1;
		}
		if (!call->b.vec)
			return 0;
		back -= call->b.off;
		call->b.vec--;
		if (bpf_probe_read_kernel(&seg, sizeof(seg), call->b.vec))
			return 0;
		call->b.off = seg.iov_len;
	}
	return 0;
}

static __always_inline void end(
	struct capture_counters *count, struct conn *c, u8 direction, u32 seq, u32 flags)
{
	u8 bits = direction == CAPTURE_BOTH ? 3 : 1 << direction;

	if ((c->ended & bits) == bits ||
		(c->verdict != V_HTTP && c->side[0] != S_MAYBE && c->side[1] != S_MAYBE))
		return;
	c->ended |= bits;
	emit_empty(count, c, CAPTURE_END, direction, seq, 0, flags);
}

/* The sequence number behind what the process has read. A FIN that it has read takes one more,
 * which is not the stream's. */
static __always_inline u32 read_up_to(
	bool btf, struct sock *sk, struct tcp_sock *tp, const struct conn *c, s32 bytes)
{
	u32 copied = GET(btf, tp, copied_seq);
	u8 state = GET(btf, sk, __sk_common.skc_state);

	if (c && c->seen[CAPTURE_INGRESS])
		return copied - bytes == c->next[CAPTURE_INGRESS] + 1 ? copied - 1 : copied;
	if (copied == GET(btf, tp, rcv_nxt) && GET(btf, sk, sk_err) == 0 &&
		(state == TCP_CLOSE_WAIT || state == TCP_LAST_ACK || state == TCP_CLOSING ||
			state == TCP_TIME_WAIT || state == TCP_CLOSE))
		return copied - 1;
	return copied;
}

/* saved: the call's buffers before it read anything; NULL: the iterator stands behind what was
 * read. */
static __always_inline int received(bool btf, struct sock *sk, struct msghdr *msg, u32 how,
	s32 bytes, const struct buffers *saved)
{
	struct capture_counters *count = counters_of(CAPTURE_P_INGRESS);
	struct call *call = call_of(CAPTURE_P_INGRESS);
	struct tcp_sock *tp = (struct tcp_sock *)sk;
	u32 seq, flags = CAPTURE_F_SEQ;
	s32 known = 0;
	struct conn *c;

	/* peeked bytes come again; urgent data and the error queue are not the stream */
	if (!count || !call || bytes < 0 || how & (MSG_PEEK | MSG_OOB | MSG_ERRQUEUE))
		return 0;
	if (btf) {
		tp = bpf_skc_to_tcp_sock(sk);
		if (!tp)
			return 0;
	}
	c = conn_find(btf, sk);
	seq = read_up_to(btf, sk, tp, c, bytes) - bytes;
	if (bytes == 0) {
		/* the end of the stream, unless nothing was asked for */
		if (c && GET(btf, msg, msg_iter.count) && GET(btf, sk, sk_shutdown) & RCV_SHUTDOWN)
			end(count, c, CAPTURE_INGRESS, seq, 0);
		return 0;
	}
	if (!c) {
		c = conn_make(btf, CAPTURE_P_INGRESS, sk, count);
		if (!c) {
			count->calls++;
			count->seen += bytes;
			skip(count, CAPTURE_SKIP_TABLE_FULL, bytes);
			return 0;
		}
		c->fresh = bytes_sent(btf, tp) <= 1 && bytes_read(btf, tp) <= (u64)bytes;
	}
	if (c->seen[CAPTURE_INGRESS]) {
		/* a call that waits for more tells what it has several times */
		known = c->next[CAPTURE_INGRESS] - seq;
		if (known >= bytes)
			return 0;
		if (known < 0)
			known = 0;
		seq += known;
		bytes -= known;
	} else {
		c->seen[CAPTURE_INGRESS] = 1;
		/* a FIN that came along counts as one */
		if (c->fresh && bytes_read(btf, tp) <= (u64)bytes + 1)
			flags |= CAPTURE_F_FIRST;
	}
	c->next[CAPTURE_INGRESS] = seq + bytes;
	count->calls++;
	count->seen += bytes;
	if (unwanted(count, c, sk, bytes))
		return 0;
	if (!c->isn_known)
		conn_isn(c, sk);
	call->bytes = bytes;
	if (saved) {
		call->b = *saved;
		call->b.off += known;
	} else {
		buffers_of(btf, msg, &call->b);
		if (call->b.readable && !rewind_buffers(CAPTURE_P_INGRESS)) {
			call->b.readable = false;
			count->not_placed++;
		}
	}
	if (how & MSG_TRUNC)
		call->b.readable = false;
	take_call(count, CAPTURE_P_INGRESS, call, c, sk, CAPTURE_INGRESS, seq, flags);
	return 0;
}

SEC("fexit/tcp_recvmsg")
int fexit__tcp_recvmsg(u64 *ctx)
{
	/*
	 * sk, msg, len, [nonblock,] flags[, addr_len], and what it returned. Each branch reads for
	 * itself: the verifier allows no computed address of the context, and the texts keep the
	 * compiler from joining the branches.
	 */
	u64 flags, bytes;

	if (recvmsg_params == 6) {
		flags = ctx[4];
		bytes = ctx[6];
		asm volatile("%0 += 0" : "+r"(bytes));
	} else if (recvmsg_params == 5) {
		flags = ctx[3];
		bytes = ctx[5];
		asm volatile("%0 |= 0" : "+r"(bytes));
	} else {
		flags = ctx[3];
		bytes = ctx[4];
		asm volatile("%0 ^= 0" : "+r"(bytes));
	}
	return received(true, (struct sock *)ctx[0], (struct msghdr *)ctx[1], flags, bytes, NULL);
}

SEC("kprobe/tcp_recvmsg")
int kprobe__tcp_recvmsg(struct pt_regs *ctx)
{
	u64 thread = bpf_get_current_pid_tgid(), fourth = PT_REGS_PARM4(ctx),
	    fifth = PT_REGS_PARM5(ctx);
	struct msghdr *msg = (struct msghdr *)PT_REGS_PARM2(ctx);
	struct receiving r = {
		.sk = PT_REGS_PARM1(ctx),
		.msg = (u64)msg,
		.room = BPF_CORE_READ(msg, msg_iter.count),
	};

	if (!by_return) {
		/* the update costs more than all the rest: not for what is not wanted */
		struct conn *c = conn_find(false, (struct sock *)r.sk);

		if (c && c->verdict > V_HTTP)
			return 0;
	}
	/* read both: a chosen address of a register is none that the verifier allows */
	barrier_var(fourth);
	barrier_var(fifth);
	r.flags = recvmsg_params == 6 ? fifth : fourth;
	buffers_of(false, msg, &r.b);
	bpf_map_update_elem(&receiving, &thread, &r, BPF_ANY);
	return 0;
}

/* What was read of a connection that is not wanted since the last time; by its position: peeking
 * does not move it. */
static __always_inline void count_unwanted(struct conn *c, struct sock *sk)
{
	struct capture_counters *count = counters_of(CAPTURE_P_INGRESS);
	u32 copied = BPF_CORE_READ((struct tcp_sock *)sk, copied_seq);
	s32 bytes = copied - c->next[CAPTURE_INGRESS];

	if (!count || (c->seen[CAPTURE_INGRESS] && bytes <= 0))
		return;
	c->next[CAPTURE_INGRESS] = copied;
	if (!c->seen[CAPTURE_INGRESS]) {
		/* how much came before is not known: from here on */
		c->seen[CAPTURE_INGRESS] = 1;
		return;
	}
	count->calls++;
	count->seen += bytes;
	unwanted(count, c, sk, bytes);
}

/*
 * tcp_recvmsg calls it once it has copied. Better than the return: a kretprobe has a few instances
 * only, and each thread that waits for data inside tcp_recvmsg occupies one.
 */
SEC("kprobe/tcp_cleanup_rbuf")
int BPF_KPROBE(kprobe__tcp_cleanup_rbuf, struct sock *sk, int copied)
{
	u64 thread = bpf_get_current_pid_tgid();
	struct conn *c = conn_find(false, sk);
	struct receiving *r;
	struct msghdr *msg;

	if (c && c->verdict > V_HTTP) {
		count_unwanted(c, sk);
		return 0;
	}
	r = bpf_map_lookup_elem(&receiving, &thread);
	if (!r || r->sk != (u64)sk || copied < 0)
		return 0;
	msg = (struct msghdr *)r->msg;
	/* Others call it too (splice): the arguments are a finished call's then, and its memory
	 * anything. */
	if (!(r->flags & MSG_TRUNC) && r->room - BPF_CORE_READ(msg, msg_iter.count) != copied)
		return 0;
	return received(false, sk, msg, r->flags, copied, &r->b);
}

SEC("kretprobe/tcp_recvmsg")
int kretprobe__tcp_recvmsg(struct pt_regs *ctx)
{
	u64 thread = bpf_get_current_pid_tgid();
	struct receiving *r = bpf_map_lookup_elem(&receiving, &thread);

	if (!r)
		return 0;
	received(false, (struct sock *)r->sk, (struct msghdr *)r->msg, r->flags, PT_REGS_RC(ctx),
		&r->b);
	bpf_map_delete_elem(&receiving, &thread);
	return 0;
}

/* ---- ingress, by packets ---- */

struct ip4 {
	u8 version_ihl, tos;
	__be16 len;
	u8 rest[5], protocol, more[10];
};

struct ip6 {
	u8 head[6], protocol, hops, addresses[32];
};

struct tcp {
	__be16 source, dest;
	__be32 seq, ack;
	u8 offset, flags;
	u8 rest[6];
};

/* Copies what is needed of the TCP header; returns its offset, 0 if there is none. */
static __always_inline u32 tcp_header(struct __sk_buff *skb, struct tcp *tcp)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	u32 off = sizeof(struct ip6);
	struct ip6 ip;

	/* headers lie in a row at the beginning, nearly always */
	if (data + sizeof(struct ip4) + sizeof(*tcp) <= end && *(u8 *)data == 0x45) {
		__builtin_memcpy(tcp, data + sizeof(struct ip4), sizeof(*tcp));
		return sizeof(struct ip4);
	}
	if (bpf_skb_load_bytes(skb, 0, &ip, 20))
		return 0;
	if (ip.head[0] >> 4 == 4) {
		off = (ip.head[0] & 15) * 4;
	} else if (bpf_skb_load_bytes(skb, 0, &ip, sizeof(ip)) || ip.protocol != 6) {
		return 0;
	}
	return bpf_skb_load_bytes(skb, off, tcp, sizeof(*tcp)) ? 0 : off;
}

static __always_inline bool to_loader(const struct conn *c)
{
	u64 addr[2];

	if (c->local_port != own_port || c->netns != own_netns)
		return false;
	__builtin_memcpy(addr, c->local_addr, 16);
	return (own_addr[0] | own_addr[1]) == 0 ||
	       (addr[0] == own_addr[0] && addr[1] == own_addr[1]);
}

/* What is behind the headers, for a packet that carries data of a connection. Passes every packet.
 */
SEC("cgroup_skb/ingress")
int cgroup_skb__ingress(struct __sk_buff *skb)
{
	struct capture_counters *count = counters_of(CAPTURE_P_INGRESS);
	struct call *call = call_of(CAPTURE_P_INGRESS);
	u32 off, seq, left, wanted, total, limit, flags = CAPTURE_F_SEQ;
	struct bpf_sock *bsk = skb->sk;
	struct tcp_sock *tp;
	struct sock *sk;
	struct conn *c;
	struct tcp tcp;
	s32 known;
	int done = EMIT_OK;

	if (!bsk)
		return 1;
	tp = bpf_skc_to_tcp_sock(bsk);
	if (!tp)
		return 1;
	sk = (struct sock *)tp;
	if (!count || !call)
		return 1;
	off = tcp_header(skb, &tcp);
	if (off == 0) {
		/* extension headers before TCP, or no such packet */
		count->not_placed++;
		return 1;
	}
	off += (tcp.offset >> 4) * 4;
	if (skb->len <= off)
		return 1;
	left = skb->len - off;
	seq = bpf_ntohl(tcp.seq) + (tcp.flags >> 1 & 1); /* a SYN takes one */
	c = conn_find(true, (struct sock *)tp);
	/* what the socket has is not counted again */
	known = tp->rcv_nxt - seq;
	if (known < 0) {
		/* beyond the window: TCP will drop it, and so it cannot put words into somebody's
		 * mouth */
		if ((s32)(seq - (tp->rcv_wup + tp->rcv_wnd)) > 0)
			return 1;
		known = 0;
	}
	if ((u32)known >= left)
		return 1;
	off += known;
	seq += known;
	left -= known;
	if (!c) {
		c = conn_make(true, CAPTURE_P_INGRESS, sk, count);
		if (!c) {
			count->calls++;
			count->seen += left;
			skip(count, CAPTURE_SKIP_TABLE_FULL, left);
			return 1;
		}
		c->fresh = bytes_sent(true, tp) <= 1 && tp->bytes_received == 0;
		/* who made the socket: mostly in the same container as who reads it, which is not
		 * known yet */
		c->cgroup_id = bpf_skb_cgroup_id(skb);
		if (!use_storage && to_loader(c))
			c->verdict = V_OWN;
	}
	count->calls++;
	count->seen += left;
	if (unwanted(count, c, sk, left))
		return 1;
	if (!c->isn_known)
		conn_isn(c, sk);
	if (c->verdict == V_HTTP) {
		if (ignored(count, c, left))
			return 1;
	} else if (!c->fresh || seq == tp->rcv_nxt) {
		/* a packet that comes early on a new connection is taken unjudged: its beginning is
		 * on the way */
		u64 last = (left < 16 ? left : 16) - 1;

		barrier_var(last); /* as in emit_class() */
		call->n_start = 0;
		call->start[0] = 0;
		call->start[1] = 0;
		if (!refused(c, CAPTURE_INGRESS) && last < 16 &&
			bpf_skb_load_bytes(skb, off, call->start, last + 1) == 0)
			call->n_start = last + 1;
		if (call->n_start == 0 || !judge(count, c, CAPTURE_INGRESS, call)) {
			skip(count, CAPTURE_SKIP_OTHER, left);
			return 1;
		}
	}
	if (!c->seen[CAPTURE_INGRESS] && c->fresh && seq == tp->rcv_nxt &&
		tp->bytes_received == 0) {
		c->seen[CAPTURE_INGRESS] = 1;
		flags |= CAPTURE_F_FIRST;
	}
	call->waiting = ring_waiting();
	/* what the socket expects next is in order: what is missing before it will not come */
	if (seq != tp->rcv_nxt)
		flags |= CAPTURE_F_PACKET;
	limit = call_limit(call->waiting);
	wanted = left < limit ? left : limit;
	total = left;
	call->from = off;
	call->seq = seq;
	call->flags = flags;
	call->direction = CAPTURE_INGRESS;
	if (wanted <= record_limit) {
		call->n = wanted;
		call->length = left;
		done = emit(count, call, c, FROM_PACKET, skb);
		if (done == EMIT_OK) {
			count->captured += wanted;
			left -= wanted;
			wanted = 0;
		}
		not_captured(count, done, total, left, wanted);
		return 1;
	}
	fill(&call->head, c, CAPTURE_DATA, CAPTURE_INGRESS, seq, flags);
	for (u32 i = 0; i < PACKET_RECORDS_MAX && wanted; i++) {
		u32 n = wanted < record_limit ? wanted : record_limit;

		call->n = n;
		call->length = n == wanted ? left : n;
		done = emit_packet(skb, CAPTURE_P_INGRESS);
		if (done != EMIT_OK)
			break;
		count->captured += n;
		call->flags &= ~CAPTURE_F_FIRST;
		call->seq += n;
		call->from += n;
		left -= n;
		wanted -= n;
	}
	not_captured(count, done, total, left, wanted);
	return 1;
}

/* Who reads, for ingress by packets: these come in no process's name. Tells user space, and finds
 * the loader itself. */
SEC("tp_btf/sock_recv_length")
int BPF_PROG(tp_btf__sock_recv_length, struct sock *sk, int ret)
{
	struct capture_owner owner = {};
	struct conn *c;
	u32 pid;

	if (ret <= 0)
		return 0;
	c = conn_find(true, sk);
	if (!c || c->verdict > V_HTTP)
		return 0;
	pid = c->pid;
	if (!conn_owner(c)) {
		c->verdict = V_OWN;
		return 0;
	}
	if (pid == c->pid)
		return 0;
	owner.pid = c->pid;
	owner.cgroup_id = c->cgroup_id;
	__builtin_memcpy(owner.comm, c->comm, sizeof(owner.comm));
	bpf_map_update_elem(&owners, &c->id, &owner, BPF_ANY);
	return 0;
}

/* ---- the end ---- */

static __always_inline int state_changed(bool btf, struct sock *sk, int before, int now)
{
	struct capture_counters *count = counters_of(CAPTURE_P_STATE);
	struct tcp_sock *tp = (struct tcp_sock *)sk;
	struct conn *c;
	u32 unread;

	if (!count)
		return 0;
	if (now == TCP_SYN_SENT) {
		/* A socket that was connected before may be connected again: that is another
		 * connection. */
		c = conn_find(btf, sk);
		if (c) {
			end(count, c, CAPTURE_BOTH, 0, 0);
			conn_drop(btf, sk);
		}
	}
	if (now == TCP_LISTEN || now == TCP_SYN_SENT) {
		/* the loader's own sockets, before anything passes */
		if (!own_tgid || bpf_get_current_pid_tgid() >> 32 != own_tgid)
			return 0;
		c = conn_make(btf, CAPTURE_P_STATE, sk, count);
		if (!c)
			return 0;
		c->verdict = V_OWN;
		if (now == TCP_LISTEN) {
			own_netns = c->netns;
			own_port = c->local_port;
			__builtin_memcpy(own_addr, c->local_addr, 16);
		}
		return 0;
	}
	if (now == TCP_ESTABLISHED) {
		u64 sent = BPF_CORE_READ(tp, bytes_acked) +
			   (u32)(BPF_CORE_READ(tp, write_seq) - BPF_CORE_READ(tp, snd_una));

		if (count_fastopen && before == TCP_SYN_SENT && sent > 1) {
			count->calls++;
			count->seen += sent - 1;
			skip(count, CAPTURE_SKIP_UNREADABLE, sent - 1);
		}
		/* the same from the other end, whose packets begin behind it */
		sent = BPF_CORE_READ(tp, bytes_received);
		if (ingress_packets && before == TCP_SYN_RECV && sent) {
			count->calls++;
			count->seen += sent;
			skip(count, CAPTURE_SKIP_UNREADABLE, sent);
		}
		return 0;
	}
	c = conn_find(btf, sk);
	if (!c)
		return 0;
	switch (now) {
	case TCP_FIN_WAIT1:
	case TCP_LAST_ACK:
		end(count, c, CAPTURE_EGRESS, BPF_CORE_READ(tp, write_seq), CAPTURE_F_SEQ);
		break;
	case TCP_CLOSE_WAIT:
		/* the FIN takes one sequence number */
		if (ingress_packets)
			end(count, c, CAPTURE_INGRESS, BPF_CORE_READ(tp, rcv_nxt) - 1,
				CAPTURE_F_SEQ);
		break;
	case TCP_CLOSE:
		unread = BPF_CORE_READ(tp, rcv_nxt) - BPF_CORE_READ(tp, copied_seq);
		/* what the process has yet to read comes after the end of the connection */
		end(count, c, ingress_packets || unread <= 1 ? CAPTURE_BOTH : CAPTURE_EGRESS, 0,
			before == TCP_ESTABLISHED || before == TCP_CLOSE_WAIT ||
					BPF_CORE_READ(sk, sk_err)
				? CAPTURE_F_RESET
				: 0);
		break;
	}
	return 0;
}

static __always_inline int destroyed(bool btf, struct sock *sk)
{
	struct capture_counters *count = counters_of(CAPTURE_P_DESTROY);
	struct conn *c = conn_find(btf, sk);

	if (!count || !c)
		return 0;
	end(count, c, CAPTURE_BOTH, 0, 0);
	conn_drop(btf, sk);
	return 0;
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(tp_btf__inet_sock_set_state, struct sock *sk, int before, int now)
{
	return state_changed(true, sk, before, now);
}

SEC("raw_tp/inet_sock_set_state")
int BPF_PROG(raw_tp__inet_sock_set_state, struct sock *sk, int before, int now)
{
	return state_changed(false, sk, before, now);
}

SEC("tp_btf/tcp_destroy_sock")
int BPF_PROG(tp_btf__tcp_destroy_sock, struct sock *sk)
{
	return destroyed(true, sk);
}

SEC("raw_tp/tcp_destroy_sock")
int BPF_PROG(raw_tp__tcp_destroy_sock, struct sock *sk)
{
	return destroyed(false, sk);
}

/* Run once by the loader itself (BPF_PROG_RUN): what its process is called in the initial pid
 * namespace, and a variable of the kernel. */
SEC("raw_tp")
int identify(void *ctx)
{
	int mode;

	if (preempt_mode_at &&
		!bpf_probe_read_kernel(&mode, sizeof(mode), (const void *)preempt_mode_at))
		preempt_mode = mode + 1;
	own_tgid = bpf_get_current_pid_tgid() >> 32;
	return 0;
}
