/* SPDX-License-Identifier: Apache-2.0 */
/*
 * identity: from the cgroup of a process to its container and pod.
 *
 * No API server is asked, and nobody needs rights there. The path of a container's cgroup holds the
 * container's id and the pod's uid (all runtimes, both cgroup drivers); the kubelet keeps the pods'
 * logs in directories whose names are the rest:
 *
 *   /var/log/pods/NAMESPACE_POD_UID/
 *   /var/log/containers/POD_NAMESPACE_CONTAINER-ID.log
 *
 * (pkg/kubelet/kuberuntime: BuildPodLogsDirectory(), legacyLogSymlink()). Only names are read, no
 * logs.
 *
 * The cgroups are known before somebody asks: inotify(7) tells of each that is made, so that a
 * container that lives for a moment only still has a name when its last message is looked at.
 * Cgroup v2 alone: its ids, those of bpf_get_current_cgroup_id(), are inode numbers of its files.
 *
 * One thread. identity_new() reads the whole hierarchy, some 20 us for each cgroup; afterwards
 * nothing but directories is read, and that seldom: see identity_find(). Memory: some 300 bytes for
 * each cgroup, 600 in a container, at most `max` of them; and an inotify watch of the kernel's (1
 * KiB) for each that is there.
 */
#ifndef EBPFDUMP_IDENTITY_H
#define EBPFDUMP_IDENTITY_H

#include "pkg/base/base.h"

struct identity_options {
	const char *cgroups; /* root of the cgroup v2 hierarchy; stays the caller's */
	const char
		*pod_logs; /* where `pods` and `containers` are; "": nowhere. Stays the caller's */
	uint32_t max;	   /* cgroups known at once, >= 1: those gone are forgotten for new ones */
};

/* What is not known is empty. Outside of Kubernetes only `container` is set: the first 12 digits of
 * its id, as `docker ps` and `podman ps` show it. */
struct identity_names {
	struct span namespace, pod, container;
};

struct identity_stats {
	uint64_t cgroups;   /* known now, those gone included */
	uint64_t left_out;  /* not entered: there were max, and none of them gone */
	uint64_t unwatched; /* those in which new ones go unseen: fs.inotify.max_user_watches */
	uint64_t overflows; /* times the kernel's queue was full, and the hierarchy read anew */
};

struct identity;

/* options is copied. A hierarchy that cannot be read or watched is an error. */
int identity_new(const struct identity_options *options, struct identity **ret_identity,
	struct err *err) MUST_CHECK;
void identity_free(struct identity *identity);

/* Readable when there is something for identity_update(), which takes it without blocking. */
int identity_fd(const struct identity *identity);
void identity_update(struct identity *identity);

/*
 * Whose cgroup that is. NULL: nobody's that has a name; else valid until the next call of any
 * function here. Where a container's names are not to be found yet (the kubelet makes its link
 * after the start), directories are read again at a later call: after 100 ms, then ever more
 * seldom, up to once a minute. now_ns: CLOCK_MONOTONIC.
 */
const struct identity_names *identity_find(
	struct identity *identity, uint64_t cgroup_id, uint64_t now_ns);

void identity_stats(const struct identity *identity, struct identity_stats *ret_stats);

/* ---- the names themselves: pure ---- */

#define IDENTITY_UID_LEN       36
#define IDENTITY_CONTAINER_LEN 64

/* Each NUL-terminated; "" unknown. */
struct identity_ids {
	char uid[IDENTITY_UID_LEN + 1];		    /* of the pod, as the API writes it */
	char container[IDENTITY_CONTAINER_LEN + 1]; /* its id: 64 hexadecimal digits */
};

/*
 * What the path of a cgroup tells, as systemd's and the cgroupfs driver write it:
 *   kubepods.slice/kubepods-pod0a1b..._2c.slice/cri-containerd-ID.scope
 *   kubepods/burstable/pod0a1b...-2c/ID
 *   system.slice/docker-ID.scope, machine.slice/libpod-ID.scope/container
 * The first container named is the one, and the first pod before it is its: what is below is made
 * by those in the container, who may call it as they like.
 */
void identity_parse_cgroup(const char *path, struct identity_ids *ret_ids);

/* "NAMESPACE_POD_UID"; whether it is one, and of this pod. The spans are parts of name. */
bool identity_parse_pod_dir(
	const char *name, const char *uid, struct span *ret_namespace, struct span *ret_pod);
/* "POD_NAMESPACE_CONTAINER-ID.log" likewise. */
bool identity_parse_link(
	const char *name, const char *container_id, struct identity_names *ret_names);

#endif
