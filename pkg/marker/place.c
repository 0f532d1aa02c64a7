/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/tcp.h> /* knows more of struct tcp_info than libc's */
#include <netinet/in.h>
#include <stdatomic.h>
#include <sys/socket.h>

#include "pkg/marker/internal.h"

#define ESTABLISHED 1 /* TCP_ESTABLISHED of the kernel */

static void v4(uint8_t out[16], const void *address)
{
	memset(out, 0, 10);
	memset(out + 10, 0xff, 2);
	memcpy(out + 12, address, 4);
}

static void port(uint8_t out[2], uint16_t host_order)
{
	out[0] = (uint8_t)(host_order >> 8);
	out[1] = (uint8_t)host_order;
}

static int text_end(uint8_t out[18], const char *text, uint16_t number)
{
	struct in_addr a;

	if (inet_pton(AF_INET, text, &a) == 1)
		v4(out, &a);
	else if (inet_pton(AF_INET6, text, out) != 1)
		return -EINVAL;
	port(out + 16, number);
	return 0;
}

static int socket_end(uint8_t out[18], const struct sockaddr_storage *s)
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)s;
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)s;

	switch (s->ss_family) {
	case AF_INET:
		v4(out, &in->sin_addr);
		port(out + 16, ntohs(in->sin_port));
		return 0;
	case AF_INET6: /* v4-mapped addresses are as they should be already */
		memcpy(out, &in6->sin6_addr, 16);
		port(out + 16, ntohs(in6->sin6_port));
		return 0;
	}
	return -EAFNOSUPPORT;
}

int marker_place_ends(struct marker_place *place, const char *src, uint16_t src_port,
	const char *dst, uint16_t dst_port)
{
	int r = text_end(place->ends, src, src_port);

	if (!r)
		r = text_end(place->ends + 18, dst, dst_port);
	place->has_ends = r == 0;
	return r;
}

int place_ends_of(int fd, struct marker_place *place)
{
	struct sockaddr_storage s;
	socklen_t len = sizeof(s);
	int r;

	if (getsockname(fd, (struct sockaddr *)&s, &len))
		return -errno;
	r = socket_end(place->ends, &s);
	if (r)
		return r;
	len = sizeof(s);
	if (getpeername(fd, (struct sockaddr *)&s, &len))
		return -errno;
	r = socket_end(place->ends + 18, &s);
	place->has_ends = r == 0;
	return r;
}

/*
 * The kernel tells the sequence number of the queue that was chosen in repair mode, also when that
 * mode is over (the choice stays with the socket). So the mode is entered once, while nothing is on
 * its way that it could hold up, and left without the window probe that it would send.
 */
static int seq_of(int fd, uint32_t *ret_seq)
{
	int on = TCP_REPAIR_ON, off = TCP_REPAIR_OFF_NO_WP, queue = TCP_SEND_QUEUE;
	struct tcp_info info = {0};
	socklen_t len = sizeof(*ret_seq), info_len = sizeof(info);

	/* not asked again where it is not allowed: capabilities do not come back */
	static atomic_bool denied;

	if (atomic_load_explicit(&denied, memory_order_relaxed))
		return -EPERM;
	if (getsockopt(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, ret_seq, &len) == 0)
		return 0;
	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &info_len))
		return -errno;
	if (info.tcpi_state != ESTABLISHED || info.tcpi_notsent_bytes || info.tcpi_unacked)
		return -EBUSY;
	if (setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &on, sizeof(on))) {
		int error = errno;

		if (error == EPERM)
			atomic_store_explicit(&denied, true, memory_order_relaxed);
		return -error;
	}
	(void)setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, &queue, sizeof(queue));
	if (setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &off, sizeof(off))) {
		/* Linux before 4.19: with the probe, then, which does no harm */
		off = 0;
		(void)setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &off, sizeof(off));
	}
	len = sizeof(*ret_seq);
	return getsockopt(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, ret_seq, &len) ? -errno : 0;
}

int marker_place_of(int fd, struct marker_place *ret_place)
{
	struct marker_place place = {0};
	int r = 0;

	place.has_seq = seq_of(fd, &place.seq) == 0;
	if (!place.has_seq)
		r = place_ends_of(fd, &place);
	if (r == 0)
		*ret_place = place;
	return r;
}
