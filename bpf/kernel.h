/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * kernel.h: the few kernel types that the programs read, and one accessor for each difference
 * between kernels.
 *
 * Only the fields that are used are declared; CO-RE relocates them by name against the running
 * kernel's BTF. A type with
 * ___suffix is another shape of the same kernel type. No decision is made by version number, each
 * by what is there.
 */
#ifndef EBPFDUMP_KERNEL_H
#define EBPFDUMP_KERNEL_H

#include <linux/bpf.h>
#include <stdbool.h>

#define __VMLINUX_H__ /* makes bpf_tracing.h use the kernel's names of the registers */

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s32 s32;

/* The registers at a kprobe: a context is read at fixed offsets, without relocation. The layout is
 * the architecture's ABI. */
#if defined(__TARGET_ARCH_x86)
struct pt_regs {
	unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di;
	unsigned long orig_ax, ip, cs, flags, sp, ss;
};
#elif defined(__TARGET_ARCH_arm64)
struct user_pt_regs {
	u64 regs[31];
	u64 sp, pc, pstate;
};
struct pt_regs {
	struct user_pt_regs user_regs;
};
#endif

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct in6_addr {
	union {
		u8 u6_addr8[16];
	} in6_u;
};

struct ns_common {
	unsigned int inum;
};

struct net {
	struct ns_common ns;
};

typedef struct {
	struct net *net;
} possible_net_t;

struct sock_common {
	__be32 skc_daddr;
	__be32 skc_rcv_saddr;
	__be16 skc_dport;
	u16 skc_num;
	unsigned short skc_family;
	volatile unsigned char skc_state;
	possible_net_t skc_net;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
};

struct net_device {
	char name[16];
	int ifindex;
};

struct dst_entry {
	struct net_device *dev;
};

struct sk_buff {
	unsigned int len;
};

struct sock {
	struct sock_common __sk_common;
	struct dst_entry *sk_dst_cache;
	int sk_err;
	int sk_wmem_queued;
	int sk_sndbuf;
	/* since 5.6 a plain byte; before, a bit field that nothing here reads */
	u8 sk_shutdown;
};

struct tcp_sock {
	u32 copied_seq;
	u32 rcv_nxt;
	u32 rcv_wup;
	u32 rcv_wnd;
	u32 snd_una;
	u32 write_seq;
	u64 bytes_received;
	u64 bytes_acked;
};

struct iovec {
	void *iov_base;
	u64 iov_len;
};

struct iov_iter {
	u8 iter_type; /* since 5.14 (8cd54c1c8480) */
	u64 iov_offset;
	u64 count;
	const struct iovec *__iov; /* since 6.4 (de4f5fed3f23) */
	void *ubuf;		   /* since 6.0 (fcb14cb1bdac) */
	const struct iovec *kvec;
};

struct iov_iter___iov {
	const struct iovec *iov; /* before 6.4 */
	unsigned int type;	 /* before 5.14: the kind, with the direction in bit 0 */
};

struct msghdr {
	struct iov_iter msg_iter;
	unsigned int msg_flags;
};

#pragma clang attribute pop

/* The numbers are the running kernel's: their order changed in 5.14, 6.0 and later. */
enum iter_type { ITER_UBUF, ITER_IOVEC, ITER_KVEC };

#define AF_INET		2
#define AF_INET6	10
#define MSG_OOB		0x1
#define MSG_PEEK	0x2
#define MSG_TRUNC	0x20
#define MSG_ERRQUEUE	0x2000
#define MSG_FASTOPEN	0x20000000
#define TCP_ESTABLISHED 1
#define TCP_SYN_SENT	2
#define TCP_SYN_RECV	3
#define TCP_FIN_WAIT1	4
#define TCP_TIME_WAIT	6
#define TCP_CLOSE	7
#define TCP_CLOSE_WAIT	8
#define TCP_LAST_ACK	9
#define TCP_LISTEN	10
#define TCP_CLOSING	11
#define RCV_SHUTDOWN	1
#define SEND_SHUTDOWN	2

#endif
