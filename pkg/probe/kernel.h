/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernel: what is known of this kernel and this process besides what loads and attaches: why a hook
 * may fail, what would help, and whether the kernel interrupts itself. Private to probe.
 *
 * Nothing here decides whether a hook works: that is tried. It is for people (--check), and for
 * which of two hooks that work comes first.
 */
#ifndef EBPFDUMP_PROBE_KERNEL_H
#define EBPFDUMP_PROBE_KERNEL_H

#include "pkg/probe/probe.h"

enum { CAP_NET_ADMIN_ = 12, CAP_SYS_ADMIN_ = 21, CAP_PERFMON_ = 38, CAP_BPF_ = 39 };

enum kernel_preemption {
	KERNEL_PREEMPT_UNKNOWN, /* preempt_dynamic_mode + 1, as the kernel counts */
	KERNEL_PREEMPT_NONE,
	KERNEL_PREEMPT_VOLUNTARY,
	KERNEL_PREEMPT_FULL,
	KERNEL_PREEMPT_LAZY,
};

struct kernel_facts {
	uint64_t capabilities; /* effective, by number; all if that cannot be told */
	bool cgroup2;	       /* mounted */
	bool locked;	       /* lockdown=confidentiality */
	bool no_jit;	       /* net.core.bpf_jit_enable is 0 */
	char machine[65];      /* as uname(2) says: x86_64 */
	char version[65];      /* the same: #1 SMP PREEMPT_DYNAMIC Debian 6.1.1-1 (2023-01-01) */
	char cmdline[4096];    /* of the kernel; "" if not known */
	struct buf config;     /* CONFIG_... lines of the kernel; empty if there are none to read */
	/* preempt_dynamic_mode, read from the kernel: what it does now */
	enum kernel_preemption preemption;
};

/* Reads all but preemption. What cannot be read stays unknown. */
void kernel_facts_read(struct kernel_facts *facts);
void kernel_facts_done(struct kernel_facts *facts);

/* Where the kernel keeps a variable; 0 if that cannot be told. */
uint64_t kernel_symbol(const char *name);

/* 'y', 'm' or 'n'; '?' if the configuration is not known. */
char kernel_config(const struct kernel_facts *facts, const char *option);

/*
 * Whether the kernel may stop a thread inside its own code and run another one (full and lazy
 * preemption, PREEMPT_RT). Where that cannot be told: yes.
 */
bool kernel_preempts(const struct kernel_facts *facts);

/* The name of one that the hook needs (PROBE_NONE: any hook) and the process lacks; NULL: none. */
const char *kernel_missing_capability(const struct kernel_facts *facts, enum probe_hook hook);

/*
 * What a person could do about a hook that failed with this errno (positive): the capability, the
 * mount, the setting, the kernel. Writes a phrase without a full stop, NUL-terminated.
 */
void kernel_remedy(
	const struct kernel_facts *facts, enum probe_hook hook, int code, char *out, size_t size);

#endif
