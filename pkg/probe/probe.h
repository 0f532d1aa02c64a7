/* SPDX-License-Identifier: Apache-2.0 */
/*
 * probe: the kernel side seen from user space. Which programs this kernel can run, loading,
 * attaching, draining the ring buffer, the counters; and files of capture records.
 *
 * Nothing is pinned: when the process dies, the programs are gone. One thread.
 */
#ifndef EBPFDUMP_PROBE_H
#define EBPFDUMP_PROBE_H

#include "bpf/capture.h"
#include "pkg/base/base.h"

/* ---- hooks ---- */

/* Best first within each direction, but see probe_hook_order(). The names users see:
 * probe_hook_name(). */
enum probe_hook {
	PROBE_FENTRY,	  /* egress: fentry/tcp_sendmsg */
	PROBE_KPROBE,	  /* egress: kprobe/tcp_sendmsg */
	PROBE_TRACEPOINT, /* egress: tp_btf/tcp_sendmsg_locked, Linux 6.16 and later */
	PROBE_FEXIT,	  /* ingress: fexit/tcp_recvmsg */
	PROBE_CLEANUP,	  /* ingress: kprobe/tcp_recvmsg and kprobe/tcp_cleanup_rbuf */
	PROBE_KRETPROBE,  /* ingress: kprobe and kretprobe/tcp_recvmsg */
	PROBE_CGROUP_SKB, /* ingress: cgroup_skb/ingress on the root cgroup */
	PROBE_HOOK_MAX
};
#define PROBE_NONE PROBE_HOOK_MAX

/* --hook: auto, or a family: fentry (fentry, fexit), kprobe (kprobe, then cleanup or kretprobe),
 * tracepoint (tracepoint, cgroup_skb). */
enum probe_family { PROBE_AUTO, PROBE_FAMILY_FENTRY, PROBE_FAMILY_KPROBE, PROBE_FAMILY_TRACEPOINT };

const char *probe_hook_name(enum probe_hook hook); /* "fentry/tcp_sendmsg"; "none" */
enum capture_direction probe_hook_direction(enum probe_hook hook);
bool probe_hook_in_family(enum probe_hook hook, enum probe_family family);

/*
 * Hook number i (< PROBE_HOOK_MAX) in the order in which they are tried and chosen. A kernel that
 * may stop a thread inside a program (full or lazy preemption) leaves out the runs of fentry and
 * fexit programs by others on that processor meanwhile: under load that costs messages. There the
 * kprobes come first, which it cannot stop.
 */
enum probe_hook probe_hook_order(bool preempts, unsigned i);

#define PROBE_MISSING_RING (1U << PROBE_HOOK_MAX)

/* A bit per hook that counts as missing, from names as in "fentry,kretprobe"; "ring" is the ring
 * buffer (tests: EBPFDUMP_TEST_MISSING). */
int probe_parse_missing(const char *text, uint32_t *ret_mask, struct err *err) MUST_CHECK;

/* What a kernel offers, each found by trying it: loaded and attached. */
struct probe_offer {
	bool works[PROBE_HOOK_MAX];
	char reason[PROBE_HOOK_MAX][256]; /* why not; "" if it works */
	char remedy[PROBE_HOOK_MAX][256]; /* what a person could do about it; "": nothing */
	bool storage[PROBE_HOOK_MAX];	  /* it can keep its state in the socket */
	bool preempts; /* the kernel may stop a thread inside a program, or that cannot be told */
};

struct probe_plan {
	enum probe_hook egress, ingress; /* PROBE_NONE: this direction is not captured */
	bool socket_storage;		 /* state in socket storage, else in a hash by socket */
};

/*
 * Which hooks to use: a pure function. -ENOTSUP if a direction that is wanted has none (err names
 * what was tried and why each failed), except that with `partial` one direction is enough.
 */
int probe_plan(const struct probe_offer *offer, enum probe_family family, bool partial,
	struct probe_plan *ret_plan, struct err *err) MUST_CHECK;

/* ---- running ---- */

struct probe_options {
	uint64_t ring_bytes;	/* rounded up to a power of two of pages */
	uint32_t capture_bytes; /* of one call */
	uint32_t connections;	/* state entries, where sockets have no storage */
	const char *const *interfaces;
	uint32_t n_interfaces; /* 0: all */
	uint32_t directions;   /* bit: enum capture_direction; the others are not attached */
	enum probe_family family;
	uint32_t missing; /* hooks that count as missing (tests) */
};

/*
 * Tries the hooks, each by itself: all of them, or until each direction has one of options->family,
 * best first. Fails only if the kernel cannot do eBPF as needed at all (no BTF, no ring buffer, no
 * permission). Takes up to a second a hook: the kernel verifies the programs.
 */
int probe_try(const struct probe_options *options, bool all, struct probe_offer *ret_offer,
	struct err *err) MUST_CHECK;

/* The table of --check, for people: what this kernel can do, what is missing and how to get it. */
void probe_print_offer(FILE *out, const struct probe_offer *offer, const struct probe_plan *plan);

struct probe;

/* Loads and attaches as planned. */
int probe_open(const struct probe_options *options, const struct probe_plan *plan,
	struct probe **ret_probe, struct err *err) MUST_CHECK;
void probe_close(struct probe *probe);
void probe_closep(struct probe **probe);

/* Readable when the kernel side asks to be drained (enough bytes wait). Drain on a timer as well.
 */
int probe_fd(const struct probe *probe);

/* Both pointers are valid during the call. */
typedef void (*probe_record_fn)(void *ctx, const struct capture_record *record, const char *data);

/* Hands over up to max_records (0: all that wait). Returns how many, or a negative errno. */
int probe_drain(struct probe *probe, uint32_t max_records, probe_record_fn fn, void *ctx);

/*
 * The kernel side gives no more records of this connection: a tunnel, or, with own, the traffic of
 * a loader (then its bytes are counted as skipped for that, else as not HTTP). Best effort, at
 * once: a later call for another connection may undo it, and records on their way still come.
 */
void probe_ignore(struct probe *probe, uint64_t connection, bool own);

struct probe_counters {
	struct capture_counters by_program[CAPTURE_P_MAX]; /* added up over the CPUs */
	uint64_t read;					   /* records handed over */
	uint64_t missed[CAPTURE_P_MAX]; /* runs that the kernel left out (recursion, kretprobe
					   maxactive) */
	uint64_t run_ns[CAPTURE_P_MAX], runs[CAPTURE_P_MAX]; /* 0 unless kernel.bpf_stats_enabled */
	uint64_t ring_bytes, ring_waiting;		     /* size, bytes that wait now */
};
int probe_counters(struct probe *probe, struct probe_counters *ret_counters);

/* The names that options.interfaces holds and no network namespace of this machine has: bit n for
 * interface n. */
uint32_t probe_unknown_interfaces(const struct probe_options *options);

/* ---- files of capture records: docs/REFERENCE.md describes the format ---- */

struct capture_writer;
/* path "-": standard output. A file is made for its owner alone (0600). Written through a buffer of
 * 1 MiB. */
int capture_writer_open(
	const char *path, struct capture_writer **ret_writer, struct err *err) MUST_CHECK;
/* Adds a CAPTURE_CLOCK record first whenever wall_offset_ns moved by more than 1 ms. */
int capture_writer_add(struct capture_writer *w, const struct capture_record *record,
	const char *data, int64_t wall_offset_ns, struct err *err) MUST_CHECK;
/* What was added is in the file, or it is said why not. */
int capture_writer_flush(struct capture_writer *w, struct err *err) MUST_CHECK;
/* Flushes and closes; reports a failed write. */
int capture_writer_close(struct capture_writer *w, struct err *err);

struct capture_reader;
/* path "-": standard input. Refuses what is no such file. */
int capture_reader_open(
	const char *path, struct capture_reader **ret_reader, struct err *err) MUST_CHECK;
/* The same on memory, which stays the caller's (fuzzer, benchmark). */
int capture_reader_open_memory(
	const void *p, size_t len, struct capture_reader **ret_reader, struct err *err) MUST_CHECK;
/*
 * The next record: 1; the end of the file: 0; -EBADMSG: damaged, err names the offset and the
 * reason. CAPTURE_CLOCK records are consumed here: *ret_wall_offset_ns holds for the record.
 * Pointers are valid until the next call.
 */
int capture_reader_next(struct capture_reader *r, const struct capture_record **ret_record,
	const char **ret_data, int64_t *ret_wall_offset_ns, struct err *err) MUST_CHECK;
void capture_reader_close(struct capture_reader *r);
void capture_reader_closep(struct capture_reader **r);

#endif
