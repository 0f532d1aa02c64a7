/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "pkg/base/base.h"

/* host is NULL for all addresses. Both are cut out of text. */
static int split_address(char *text, const char **ret_host, const char **ret_port)
{
	char *colon = strrchr(text, ':');
	uint64_t port;
	size_t len;

	if (!colon || num_parse(span_str(colon + 1), 0, UINT16_MAX, &port) < 0)
		return -EINVAL;
	*colon = '\0';
	*ret_port = colon + 1;
	len = strlen(text);
	if (text[0] == '[') {
		if (len < 3 || text[len - 1] != ']')
			return -EINVAL;
		text[len - 1] = '\0';
		text++;
	} else if (strchr(text, ':')) {
		return -EINVAL;
	}
	*ret_host = len > 0 ? text : NULL;
	return 0;
}

static int listen_at(const struct addrinfo *a, bool all)
{
	CLEANUP(closep)
	int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int on = 1, v6_only = !all;

	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0)
		return -errno;
	if (a->ai_family == AF_INET6 &&
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6_only, sizeof(v6_only)) < 0)
		return -errno;
	if (bind(fd, a->ai_addr, a->ai_addrlen) < 0 || listen(fd, SOMAXCONN) < 0)
		return -errno;
	return TAKE_FD(fd);
}

/* "All addresses" is one IPv6 socket that takes IPv4 as well, or IPv4 where there is no IPv6. */
static int listen_first(const struct addrinfo *list, bool all)
{
	static const int passes[] = {AF_INET6, AF_INET};
	int r = -EADDRNOTAVAIL;

	for (size_t pass = 0; pass < ARRAY_SIZE(passes); pass++) {
		for (const struct addrinfo *a = list; a; a = a->ai_next) {
			if (all && a->ai_family != passes[pass])
				continue;
			r = listen_at(a, all);
			/* another address is no help where this one is taken or forbidden */
			if (r >= 0 || r == -EADDRINUSE || r == -EACCES)
				return r;
		}
		if (!all)
			break;
	}
	return r;
}

static int open_listener(const char *listen_text, struct err *err)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
	CLEANUP(freep)
	char *text = strdup(listen_text);
	struct addrinfo *list = NULL;
	const char *host, *port;
	int r;

	if (!text)
		return err_set(err, ENOMEM, "out of memory");
	if (split_address(text, &host, &port) < 0)
		return err_set(err, EINVAL, "'%s' is no address: HOST:PORT, [IPV6]:PORT or :PORT",
			listen_text);
	r = getaddrinfo(host, port, &hints, &list);
	if (r != 0)
		return err_set(err, EADDRNOTAVAIL, "listening on %s: %s", listen_text,
			r == EAI_SYSTEM ? strerror(errno) : gai_strerror(r));
	r = listen_first(list, host == NULL);
	freeaddrinfo(list);
	if (r < 0)
		return err_set(err, -r, "listening on %s: %s", listen_text, strerror(-r));
	return r;
}

/* Whether only this machine can reach it; and its port. */
static int inspect_listener(int fd, bool *ret_local, uint16_t *ret_port)
{
	union {
		struct sockaddr any;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
	} a;
	socklen_t len = sizeof(a);

	if (getsockname(fd, &a.any, &len) < 0)
		return -errno;
	if (a.any.sa_family == AF_INET6) {
		*ret_local = IN6_IS_ADDR_LOOPBACK(&a.v6.sin6_addr);
		*ret_port = ntohs(a.v6.sin6_port);
	} else {
		*ret_local = ntohl(a.v4.sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
		*ret_port = ntohs(a.v4.sin_port);
	}
	return 0;
}

int listen_open(const char *text, bool *ret_local, uint16_t *ret_port, struct err *err)
{
	int fd = open_listener(text, err), r;

	if (fd < 0)
		return fd;
	r = inspect_listener(fd, ret_local, ret_port);
	if (r < 0) {
		close(fd);
		return err_set(err, -r, "getsockname: %s", strerror(-r));
	}
	return fd;
}
