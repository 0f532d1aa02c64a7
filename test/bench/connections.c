/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench-connections N: opens N HTTP connections to a server of its own over the loopback device,
 * makes one exchange on each, prints `open` and keeps them until standard input ends.
 */
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <signal.h>
#include <unistd.h>

#include "pkg/base/base.h"

static const char request[] = "GET /items/4711?verbose=1 HTTP/1.1\r\n"
			      "Host: server.example.com\r\n"
			      "User-Agent: bench-connections/1\r\n"
			      "Accept: application/json\r\n"
			      "X-Request-Id: 7f3b8a52-4c1d-4e0a-9d21-0123456789ab\r\n\r\n";
static const char response[] = "HTTP/1.1 200 OK\r\n"
			       "Server: bench-connections/1\r\n"
			       "Content-Type: application/json\r\n"
			       "Content-Length: 17\r\n\r\n"
			       "{\"item\":\"a bolt\"}";

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "bench-connections: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void serve(int listener)
{
	struct epoll_event e = {.events = EPOLLIN, .data.fd = listener};
	int epoll = epoll_create1(EPOLL_CLOEXEC);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &e))
		die("epoll");
	while (epoll_wait(epoll, &e, 1, -1) >= 0) {
		char in[4096];
		int fd = e.data.fd;

		if (fd == listener) {
			e.data.fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
			if (e.data.fd < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, e.data.fd, &e))
				die("accept");
		} else if (recv(fd, in, sizeof(in), 0) <= 0) {
			close(fd);
		} else if (send(fd, response, sizeof(response) - 1, 0) < 0) {
			die("send");
		}
	}
	die("epoll");
}

static void make_exchange(const struct sockaddr_in *to)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char in[4096];
	size_t got = 0;

	if (fd < 0 || connect(fd, (const struct sockaddr *)to, sizeof(*to)))
		die("connect");
	if (send(fd, request, sizeof(request) - 1, 0) < 0)
		die("send");
	while (got < sizeof(response) - 1) {
		ssize_t n = recv(fd, in, sizeof(in), 0);

		if (n <= 0)
			die("recv");
		got += (size_t)n;
	}
}

int main(int argc, char **argv)
{
	struct sockaddr_in to = {
		.sin_family = AF_INET, .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(to);
	struct rlimit files;
	uint64_t n;
	char end;

	if (argc != 2 || num_parse(span_str(argv[1]), 1, 60000, &n)) {
		fputs("usage: bench-connections N\n", stderr);
		return 2;
	}
	if (getrlimit(RLIMIT_NOFILE, &files))
		die("getrlimit");
	files.rlim_cur = n + 16;
	if (files.rlim_max < files.rlim_cur)
		files.rlim_max = files.rlim_cur;
	if (setrlimit(RLIMIT_NOFILE, &files))
		die("open files (ulimit -Hn)");
	if (listener < 0 || bind(listener, (struct sockaddr *)&to, sizeof(to)) ||
		listen(listener, 1024) || getsockname(listener, (struct sockaddr *)&to, &len))
		die("listen");
	switch (fork()) {
	case -1:
		die("fork");
		break;
	case 0:
		serve(listener);
		break;
	}
	for (uint64_t i = 0; i < n; i++)
		make_exchange(&to);
	puts("open");
	fflush(stdout);
	while (read(STDIN_FILENO, &end, 1) > 0)
		;
	return 0;
}
