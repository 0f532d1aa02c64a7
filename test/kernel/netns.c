/* SPDX-License-Identifier: Apache-2.0 */
#include "test/kernel/netns.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static int device_up(int fd, const char *device)
{
	struct ifreq r = {};

	snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", device);
	if (ioctl(fd, SIOCGIFFLAGS, &r))
		return -errno;
	r.ifr_flags |= IFF_UP;
	return ioctl(fd, SIOCSIFFLAGS, &r) ? -errno : 0;
}

int netns_own(const char *loopback)
{
	struct ifreq r = {.ifr_name = "lo"};
	int fd, err = 0;

	if (unshare(CLONE_NEWNET))
		return -errno;
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	snprintf(r.ifr_newname, sizeof(r.ifr_newname), "%s", loopback);
	if (strcmp(loopback, "lo") != 0 && ioctl(fd, SIOCSIFNAME, &r))
		err = -errno;
	if (!err)
		err = device_up(fd, loopback);
	close(fd);
	return err;
}

int netns_address(const char *device, const char *ip)
{
	struct ifreq r = {};
	struct sockaddr_in *a = (struct sockaddr_in *)&r.ifr_addr;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), err = 0;

	if (fd < 0)
		return -errno;
	snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", device);
	a->sin_family = AF_INET;
	inet_pton(AF_INET, ip, &a->sin_addr);
	if (ioctl(fd, SIOCSIFADDR, &r))
		err = -errno;
	inet_pton(AF_INET, "255.255.255.0", &a->sin_addr);
	if (!err && ioctl(fd, SIOCSIFNETMASK, &r))
		err = -errno;
	if (!err)
		err = device_up(fd, device);
	close(fd);
	return err;
}

/* A request to rtnetlink that is built attribute by attribute. */
struct message {
	struct nlmsghdr head;
	struct ifinfomsg link;
	char attributes[512];
};

static struct rtattr *add(struct message *m, unsigned short type, const void *p, size_t n)
{
	struct rtattr *a = (struct rtattr *)((char *)m + NLMSG_ALIGN(m->head.nlmsg_len));

	a->rta_type = type;
	a->rta_len = (unsigned short)RTA_LENGTH(n);
	if (n)
		memcpy(RTA_DATA(a), p, n);
	m->head.nlmsg_len = NLMSG_ALIGN(m->head.nlmsg_len) + (uint32_t)RTA_ALIGN(a->rta_len);
	return a;
}

static void close_nest(struct message *m, struct rtattr *a)
{
	a->rta_len = (unsigned short)((char *)m + m->head.nlmsg_len - (char *)a);
}

int netns_veth(const char *here, pid_t pid, const char *there)
{
	struct message m = {
		.head = {.nlmsg_len = NLMSG_LENGTH(sizeof(m.link)),
			.nlmsg_type = RTM_NEWLINK,
			.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL},
		.link = {.ifi_family = AF_UNSPEC}};
	struct {
		struct nlmsghdr head;
		struct nlmsgerr error;
		char rest[512];
	} answer;
	struct ifinfomsg peer_link = {.ifi_family = AF_UNSPEC};
	struct rtattr *info, *data, *peer;
	uint32_t to = (uint32_t)pid;
	ssize_t n;
	int fd, err;

	add(&m, IFLA_IFNAME, here, strlen(here) + 1);
	info = add(&m, IFLA_LINKINFO, NULL, 0);
	add(&m, IFLA_INFO_KIND, "veth", 4);
	data = add(&m, IFLA_INFO_DATA, NULL, 0);
	peer = add(&m, VETH_INFO_PEER, &peer_link, sizeof(peer_link));
	add(&m, IFLA_IFNAME, there, strlen(there) + 1);
	add(&m, IFLA_NET_NS_PID, &to, sizeof(to));
	close_nest(&m, peer);
	close_nest(&m, data);
	close_nest(&m, info);

	fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (fd < 0)
		return -errno;
	n = send(fd, &m, m.head.nlmsg_len, 0);
	if (n > 0)
		n = recv(fd, &answer, sizeof(answer), 0);
	err = n < 0 ? -errno : 0;
	if (!err && (n < (ssize_t)NLMSG_LENGTH(sizeof(answer.error)) ||
			    answer.head.nlmsg_type != NLMSG_ERROR))
		err = -EPROTO;
	if (!err)
		err = answer.error.error;
	close(fd);
	return err;
}
