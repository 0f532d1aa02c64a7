/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * reference.bpf.c: what the capturing programs are measured against, at the same hooks: a program
 * that does nothing, and the least that a program which hands the bytes of a send to user space
 * must do.
 */
#include "bpf/kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "GPL";

/* Bytes of each send. */
const volatile __u32 send_bytes = 1024;

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 8 << 20);
} ring SEC(".maps");

/* Reserves, reads the bytes, submits without waking anybody. */
static __always_inline int copy(const void *from)
{
	void *record = bpf_ringbuf_reserve(&ring, send_bytes, 0);

	if (!record)
		return 0;
	bpf_probe_read_user(record, send_bytes, from);
	bpf_ringbuf_submit(record, BPF_RB_NO_WAKEUP);
	return 0;
}

SEC("tp_btf/tcp_sendmsg_locked")
int BPF_PROG(reference_tracepoint, struct sock *sk, struct msghdr *msg)
{
	return copy(msg->msg_iter.ubuf);
}

SEC("fentry/tcp_sendmsg")
int BPF_PROG(reference_fentry, struct sock *sk, struct msghdr *msg)
{
	return copy(msg->msg_iter.ubuf);
}

SEC("kprobe/tcp_sendmsg")
int BPF_KPROBE(reference_kprobe, struct sock *sk, struct msghdr *msg)
{
	return copy(BPF_CORE_READ(msg, msg_iter.ubuf));
}

SEC("tp_btf/tcp_sendmsg_locked")
int BPF_PROG(empty_tracepoint, struct sock *sk, struct msghdr *msg)
{
	return 0;
}

SEC("fentry/tcp_sendmsg")
int BPF_PROG(empty_fentry, struct sock *sk, struct msghdr *msg)
{
	return 0;
}

SEC("kprobe/tcp_sendmsg")
int BPF_KPROBE(empty_kprobe, struct sock *sk, struct msghdr *msg)
{
	return 0;
}
