#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Mounts the kernel file systems that the loader can use and that are not there: cgroup2 (to see packets),
# tracefs (kprobes on older kernels), bpffs (for bpftool; the loader pins nothing). What the machine does not allow
# is said, and left: ebpfdump-loader --check tells what it means.
set -u

have() { awk -v t="$1" '$3 == t {found = 1} END {exit !found}' /proc/self/mounts; }

run() {
	if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

mount_one() {
	type=$1 where=$2
	have "$type" && return 0
	[ -d "$where" ] || run mkdir -p "$where" 2>/dev/null
	run mount -t "$type" none "$where" 2>/dev/null ||
		echo "mounts.sh: $type cannot be mounted on $where here" >&2
}

cgroup=/sys/fs/cgroup
# a version 1 tree is there: version 2 goes beside it
[ -d $cgroup/cpu ] && cgroup=$cgroup/unified
mount_one cgroup2 $cgroup
mount_one tracefs /sys/kernel/tracing
mount_one bpf /sys/fs/bpf
exit 0
