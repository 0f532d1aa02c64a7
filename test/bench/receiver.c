/* SPDX-License-Identifier: Apache-2.0 */
/*
 * usage: bench-receiver PORT
 *
 * The least that takes POSTs: reads what Content-Length says, answers 200, forgets it. What the
 * callback's rate is measured against, so that it is the loader's and not a receiver's. Prints
 * "ready", and at the end of its standard input how many requests and bytes there were.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "pkg/base/base.h"

#define CONNECTIONS 4096

static struct connection {
	char head[8192];
	size_t len;    /* of head */
	uint64_t left; /* of the body */
} * connections[CONNECTIONS];

static uint64_t requests, bytes;
static char trash[1 << 20];

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void answer(int fd)
{
	static const char text[] = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

	requests++;
	if (write(fd, text, sizeof(text) - 1) < 0)
		shutdown(fd, SHUT_RDWR);
}

/* Takes heads off what was read; what is body is counted. */
static void take(int fd, struct connection *c)
{
	char *end, *length;
	size_t head, body;

	while (c->len > 0) {
		c->head[c->len] = '\0';
		end = strstr(c->head, "\r\n\r\n");
		if (!end)
			return;
		length = strcasestr(c->head, "\r\nContent-Length:");
		head = (size_t)(end + 4 - c->head);
		c->left = 0;
		if (length && length < end) {
			length += 17 + strspn(length + 17, " ");
			if (num_parse(span_of(length, strspn(length, "0123456789")), 0, UINT64_MAX,
				    &c->left) < 0)
				exit(1);
		}
		bytes += c->left;
		body = MIN(c->left, (uint64_t)(c->len - head));
		c->left -= body;
		c->len -= head + body;
		memmove(c->head, c->head + head + body, c->len);
		if (c->left > 0)
			return;
		answer(fd);
	}
}

static bool on_readable(int fd)
{
	struct connection *c = connections[fd];
	ssize_t n;

	if (c->left > 0) {
		n = read(fd, trash, MIN(c->left, (uint64_t)sizeof(trash)));
		if (n <= 0)
			return false;
		c->left -= (uint64_t)n;
		if (c->left == 0)
			answer(fd);
		return true;
	}
	if (c->len == sizeof(c->head) - 1)
		return false;
	n = read(fd, c->head + c->len, sizeof(c->head) - 1 - c->len);
	if (n <= 0)
		return false;
	c->len += (size_t)n;
	take(fd, c);
	return true;
}

int main(int argc, char **argv)
{
	int listener = socket(AF_INET, SOCK_STREAM, 0), epoll = epoll_create1(0), on = 1;
	struct epoll_event event = {.events = EPOLLIN}, events[64];
	struct sockaddr_in a = {.sin_family = AF_INET};
	uint64_t port;

	if (argc != 2 || num_parse(span_str(argv[1]), 1, 65535, &port))
		die("usage: bench-receiver PORT");
	a.sin_port = htons((uint16_t)port);
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(listener, (struct sockaddr *)&a, sizeof(a)) || listen(listener, 128))
		die("listen");
	event.data.fd = listener;
	epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
	event.data.fd = STDIN_FILENO;
	epoll_ctl(epoll, EPOLL_CTL_ADD, STDIN_FILENO, &event);
	puts("ready");
	fflush(stdout);
	for (;;) {
		int n = epoll_wait(epoll, events, 64, -1);

		for (int i = 0; i < n; i++) {
			int fd = events[i].data.fd;

			if (fd == STDIN_FILENO) {
				printf("{\"requests\":%" PRIu64 ",\"bytes\":%" PRIu64 "}\n",
					requests, bytes);
				return 0;
			}
			if (fd == listener) {
				fd = accept(listener, NULL, NULL);
				if (fd < 0 || fd >= CONNECTIONS)
					die("accept");
				setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
				connections[fd] = calloc(1, sizeof(struct connection));
				event.data.fd = fd;
				epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
			} else if (!on_readable(fd)) {
				free(connections[fd]);
				close(fd);
			}
		}
	}
}
