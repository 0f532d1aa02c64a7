/* SPDX-License-Identifier: Apache-2.0 */
/* netns: network namespaces and the devices in them. Functions return 0 or -errno. */
#ifndef EBPFDUMP_TEST_KERNEL_NETNS_H
#define EBPFDUMP_TEST_KERNEL_NETNS_H

#include <sys/types.h>

/* This process moves to a network namespace of its own, whose loopback device is up and has this
 * name. */
int netns_own(const char *loopback);
/* A pair of devices: `here` in this namespace, `there` in that of the process. -EOPNOTSUPP: the
 * kernel has no such devices. */
int netns_veth(const char *here, pid_t pid, const char *there);
/* An IPv4 address with 24 bits of prefix; the device goes up. */
int netns_address(const char *device, const char *ip);

#endif
