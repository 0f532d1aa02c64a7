/* SPDX-License-Identifier: Apache-2.0 */
#include "test/kernel/harness.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void *need(void *p)
{
	if (!p) {
		perror("out of memory");
		abort();
	}
	return p;
}

int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int64_t wall_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void sleep_ms(int ms)
{
	struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};

	while (nanosleep(&t, &t) && errno == EINTR)
		;
}

/* ---- checks ---- */

static struct {
	int passed, failed, skipped;
	/* of the check that runs */
	pthread_mutex_t lock;
	int failures;
	char text[4096];
	size_t text_len;
	char skip[256];
	int64_t began_wall;
} checks = {.lock = PTHREAD_MUTEX_INITIALIZER};

void check_fail(const char *fmt, ...)
{
	va_list ap;

	pthread_mutex_lock(&checks.lock);
	/* The first ones tell enough. */
	if (checks.failures++ < 8) {
		size_t room = sizeof(checks.text) - checks.text_len;
		int n;

		va_start(ap, fmt);
		n = snprintf(checks.text + checks.text_len, room, "    ");
		checks.text_len += MIN((size_t)n, room - 1);
		room = sizeof(checks.text) - checks.text_len;
		n = vsnprintf(checks.text + checks.text_len, room, fmt, ap);
		checks.text_len += MIN((size_t)n, room - 1);
		room = sizeof(checks.text) - checks.text_len;
		n = snprintf(checks.text + checks.text_len, room, "\n");
		checks.text_len += MIN((size_t)n, room - 1);
		va_end(ap);
	}
	pthread_mutex_unlock(&checks.lock);
}

void check_skip(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(checks.skip, sizeof(checks.skip), fmt, ap);
	va_end(ap);
}

void check_run(const char *prefix, const struct check *check, const char *only)
{
	if (only && !strstr(check->name, only))
		return;
	checks.failures = 0;
	checks.text_len = 0;
	checks.text[0] = checks.skip[0] = '\0';
	checks.began_wall = wall_ms();
	check->run();
	if (checks.failures) {
		checks.failed++;
		printf("not ok - %s%s\n%s", prefix, check->name, checks.text);
		if (checks.failures > 8)
			printf("    ... and %d more\n", checks.failures - 8);
	} else if (checks.skip[0]) {
		checks.skipped++;
		printf("ok - %s%s # skip %s\n", prefix, check->name, checks.skip);
	} else {
		checks.passed++;
		printf("ok - %s%s\n", prefix, check->name);
	}
	fflush(stdout);
}

int check_summary(void)
{
	if (checks.skipped)
		printf("%d skipped\n", checks.skipped);
	printf("%d passed, %d failed\n", checks.passed, checks.failed);
	fflush(stdout);
	return checks.failed == 0 && checks.passed > 0 ? 0 : 1;
}

/* ---- bytes ---- */

void fill(char *p, size_t n, uint32_t seed)
{
	uint32_t x = seed * 2654435761u + 1;

	for (size_t i = 0; i < n; i++) {
		x = x * 1664525u + 1013904223u;
		p[i] = (char)(i % 64 == 63 ? '\n' : 'a' + (x >> 24) % 26);
	}
}

void text_add(struct text *t, const void *p, size_t n)
{
	t->p = need(realloc(t->p, t->n + n + 1));
	if (n)
		memcpy(t->p + t->n, p, n);
	t->n += n;
	t->p[t->n] = '\0';
}

struct text text(const char *fmt, ...)
{
	struct text t = {};
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&t.p, fmt, ap);
	va_end(ap);
	if (n < 0)
		need(NULL);
	t.n = (size_t)n;
	return t;
}

void text_free(struct text *t)
{
	free(t->p);
	*t = (struct text){};
}

/* ---- connections ---- */

#define PORT_V4 8080
#define PORT_V6 8081

void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static socklen_t address(enum net net, bool any, uint16_t port, struct sockaddr_storage *ret)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)ret;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)ret;

	memset(ret, 0, sizeof(*ret));
	if (net == V4 || net == MAPPED_SERVER) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons(port);
		v4->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		return sizeof(*v4);
	}
	v6->sin6_family = AF_INET6;
	v6->sin6_port = htons(port);
	if (any)
		v6->sin6_addr = in6addr_any;
	else
		inet_pton(AF_INET6, net == MAPPED_CLIENT ? "::ffff:127.0.0.1" : "::1",
			&v6->sin6_addr);
	return sizeof(*v6);
}

/* MAPPED_SERVER and V6 share one that listens on both families. */
int listener(enum net net)
{
	static int fds[2] = {-1, -1};
	bool dual = net == V6 || net == MAPPED_SERVER;
	struct sockaddr_storage a;
	socklen_t n = address(dual ? V6 : V4, true, dual ? PORT_V6 : PORT_V4, &a);
	int one = 1, fd = fds[dual];

	if (fd >= 0)
		return fd;
	fd = socket(a.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) ||
		bind(fd, (struct sockaddr *)&a, n) || listen(fd, 512)) {
		perror("kernel-checks: listen");
		exit(2);
	}
	return fds[dual] = fd;
}

static void patient(int fd)
{
	struct timeval t = {.tv_sec = WAIT_MS / 1000};
	int one = 1;

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof(t));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

/* Below the ports that the kernel gives out. */
static uint16_t next_client_port(void)
{
	static uint16_t port = 10000;

	if (port == 32000)
		port = 10000;
	return port++;
}

static struct process myself(void)
{
	return (struct process){.pid = getpid(), .comm = "kernel-checks"};
}

bool conn_connect(struct conn *k, enum net net)
{
	bool dual = net == V6 || net == MAPPED_SERVER;
	struct sockaddr_storage a;
	socklen_t n;
	int one = 1;

	listener(net);
	*k = (struct conn){.c = -1, .s = -1, .net = net, .client = myself(), .server = myself()};
	k->client_port = next_client_port();
	k->server_port = dual ? PORT_V6 : PORT_V4;
	n = address(net, false, k->client_port, &a);
	k->c = socket(a.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (k->c < 0 || setsockopt(k->c, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) ||
		bind(k->c, (struct sockaddr *)&a, n)) {
		check_fail("bind: %s", strerror(errno));
		conn_close(k);
		return false;
	}
	patient(k->c);
	n = address(net, false, k->server_port, &a);
	if (connect(k->c, (struct sockaddr *)&a, n)) {
		check_fail("connect: %s", strerror(errno));
		conn_close(k);
		return false;
	}
	return true;
}

bool conn_open(struct conn *k, enum net net)
{
	if (!conn_connect(k, net))
		return false;
	k->s = accept4(listener(net), NULL, NULL, SOCK_CLOEXEC);
	if (k->s < 0) {
		check_fail("accept: %s", strerror(errno));
		conn_close(k);
		return false;
	}
	patient(k->s);
	return true;
}

void conn_close(struct conn *k)
{
	close_fd(&k->c);
	close_fd(&k->s);
}

bool send_all(int fd, const void *p, size_t n)
{
	const char *at = p;

	while (n) {
		ssize_t done = send(fd, at, n, MSG_NOSIGNAL);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0) {
			check_fail("send: %s", strerror(errno));
			return false;
		}
		at += done;
		n -= (size_t)done;
	}
	return true;
}

bool recv_all(int fd, void *p, size_t n)
{
	char *at = p;

	while (n) {
		ssize_t done = recv(fd, at, n, 0);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0) {
			check_fail("recv: %s", done ? strerror(errno) : "end of stream");
			return false;
		}
		at += done;
		n -= (size_t)done;
	}
	return true;
}

bool recv_same(int fd, const void *p, size_t n)
{
	char *got = need(malloc(n + 1));
	bool ok = recv_all(fd, got, n);

	if (ok && memcmp(got, p, n)) {
		check_fail("the connection delivered other bytes than were sent");
		ok = false;
	}
	free(got);
	return ok;
}

static void *pump_send_main(void *arg)
{
	struct pump *pump = arg;

	send_all(pump->fd, pump->p, pump->n);
	return NULL;
}

static void *pump_recv_main(void *arg)
{
	struct pump *pump = arg;

	recv_same(pump->fd, pump->p, pump->n);
	return NULL;
}

static void pump_start(struct pump *pump, int fd, const void *p, size_t n, void *(*run)(void *))
{
	pthread_t thread;

	*pump = (struct pump){.fd = fd, .p = p, .n = n};
	if (pthread_create(&thread, NULL, run, pump))
		need(NULL);
	pump->thread = thread;
}

void pump_send(struct pump *pump, int fd, const void *p, size_t n)
{
	pump_start(pump, fd, p, n, pump_send_main);
}

void pump_recv_same(struct pump *pump, int fd, const void *p, size_t n)
{
	pump_start(pump, fd, p, n, pump_recv_main);
}

void pump_join(struct pump *pump)
{
	pthread_join(pump->thread, NULL);
}

/* ---- the loader ---- */

static struct {
	struct loader pub;
	pthread_mutex_t lock;
	pthread_cond_t more;
	pthread_t reader, logger;
	int out, err;
	bool reading, running;
	size_t line_max;
	/* under the lock */
	struct json_object **lines;
	int n, cap;
	int bad_lines;
	size_t longest;
	char bad[256];
	bool out_ended;
	struct text log;
} ld = {.lock = PTHREAD_MUTEX_INITIALIZER, .out = -1, .err = -1};

const struct loader *loader(void)
{
	return &ld.pub;
}

int loader_lines(void)
{
	int n;

	pthread_mutex_lock(&ld.lock);
	n = ld.n;
	pthread_mutex_unlock(&ld.lock);
	return n;
}

struct json_object *loader_line(int n)
{
	struct json_object *m;

	pthread_mutex_lock(&ld.lock);
	m = n < ld.n ? ld.lines[n] : NULL;
	pthread_mutex_unlock(&ld.lock);
	return m;
}

static const char *const seed_keys[] = {"direction", "timing_ms", "remote_ip", "remote_port",
	"method", "path", "status_code", "version", "headers", "body"};

/* Valid JSON, an object, the seed's keys there. */
static struct json_object *line_parse(const char *line, size_t n)
{
	struct json_tokener *tok = need(json_tokener_new());
	struct json_object *m;

	json_tokener_set_flags(tok, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
	m = json_tokener_parse_ex(tok, line, (int)n);
	if (json_tokener_get_error(tok) != json_tokener_success ||
		json_tokener_get_parse_end(tok) != n || !json_object_is_type(m, json_type_object)) {
		json_object_put(m);
		m = NULL;
	}
	json_tokener_free(tok);
	for (size_t i = 0; m && i < ARRAY_SIZE(seed_keys); i++) {
		if (!json_object_object_get_ex(m, seed_keys[i], NULL)) {
			json_object_put(m);
			m = NULL;
		}
	}
	return m;
}

static void line_take(const char *line, size_t n)
{
	struct json_object *m = line_parse(line, n);

	pthread_mutex_lock(&ld.lock);
	if (n + 1 > ld.longest)
		ld.longest = n + 1;
	if (!m) {
		if (ld.bad_lines++ == 0)
			snprintf(ld.bad, sizeof(ld.bad), "%.*s", (int)MIN(n, sizeof(ld.bad) - 1),
				line);
	} else {
		if (ld.n == ld.cap) {
			ld.cap = ld.cap ? ld.cap * 2 : 256;
			ld.lines = need(realloc(ld.lines, (size_t)ld.cap * sizeof(*ld.lines)));
		}
		ld.lines[ld.n++] = m;
	}
	pthread_cond_broadcast(&ld.more);
	pthread_mutex_unlock(&ld.lock);
}

static void *read_lines(void *arg)
{
	struct text buf = {};
	char chunk[65536];
	ssize_t n;

	(void)arg;
	while ((n = read(ld.out, chunk, sizeof(chunk))) > 0 || (n < 0 && errno == EINTR)) {
		size_t begin = 0;
		char *end;

		if (n < 0)
			continue;
		text_add(&buf, chunk, (size_t)n);
		while ((end = memchr(buf.p + begin, '\n', buf.n - begin))) {
			line_take(buf.p + begin, (size_t)(end - (buf.p + begin)));
			begin = (size_t)(end - buf.p) + 1;
		}
		memmove(buf.p, buf.p + begin, buf.n - begin);
		buf.n -= begin;
	}
	if (buf.n)
		line_take("(unfinished)", 12);
	text_free(&buf);
	pthread_mutex_lock(&ld.lock);
	ld.out_ended = true;
	pthread_cond_broadcast(&ld.more);
	pthread_mutex_unlock(&ld.lock);
	return NULL;
}

static void *read_log(void *arg)
{
	char chunk[4096];
	ssize_t n;

	(void)arg;
	while ((n = read(ld.err, chunk, sizeof(chunk))) > 0 || (n < 0 && errno == EINTR)) {
		if (n < 0)
			continue;
		pthread_mutex_lock(&ld.lock);
		/* A loader that floods its log is a failure of its own; keep the beginning. */
		if (ld.log.n < 1 << 20)
			text_add(&ld.log, chunk, (size_t)n);
		pthread_mutex_unlock(&ld.lock);
	}
	return NULL;
}

char *loader_log(void)
{
	char *copy;

	pthread_mutex_lock(&ld.lock);
	copy = need(strdup(ld.log.p ? ld.log.p : ""));
	pthread_mutex_unlock(&ld.lock);
	return copy;
}

void loader_read(void)
{
	if (ld.reading || ld.out < 0)
		return;
	ld.reading = true;
	if (pthread_create(&ld.reader, NULL, read_lines, NULL))
		need(NULL);
}

void loader_hang_up(void)
{
	if (!ld.reading)
		close_fd(&ld.out);
}

/* More than a server is expected to ignore before a request: to the loader it is not HTTP. */
#define EMPTY_LINES "\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n"

/* The answer to a GET; *ret_status 0: none. */
static char *http_get(uint16_t port, const char *path, bool quiet, int *ret_status)
{
	struct sockaddr_storage a;
	socklen_t len = address(V4, false, port, &a);
	struct text request = text("%sGET %s HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n",
		quiet ? EMPTY_LINES : "", path);
	struct text answer = {};
	char chunk[16384], *body = NULL;
	ssize_t n = -1;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	*ret_status = 0;
	patient(fd);
	if (connect(fd, (struct sockaddr *)&a, len) == 0 &&
		send(fd, request.p, request.n, MSG_NOSIGNAL) == (ssize_t)request.n) {
		while ((n = recv(fd, chunk, sizeof(chunk), 0)) > 0)
			text_add(&answer, chunk, (size_t)n);
	}
	close_fd(&fd);
	text_free(&request);
	if (answer.n > 12 && memcmp(answer.p, "HTTP/1.", 7) == 0) {
		char *head_end = strstr(answer.p, "\r\n\r\n");

		*ret_status = (int)strtol(answer.p + 9, NULL, 10);
		if (head_end)
			body = need(strdup(head_end + 4));
	}
	text_free(&answer);
	return body;
}

char *loader_get(const char *path)
{
	int status;
	char *body = http_get(TELEMETRY_PORT, path, false, &status);

	if (status != 200) {
		free(body);
		return NULL;
	}
	return body;
}

char *loader_quiet_metrics(void)
{
	int64_t until = now_ms() + WAIT_MS;

	for (;;) {
		int status;
		char *page;

		/* a page is served for 100 ms */
		sleep_ms(150);
		page = http_get(TELEMETRY_PORT, "/metrics", true, &status);

		if (status == 200 && metric(page, "ebpfdump_ring_waiting_bytes", "") == 0 &&
			metric(page, "ebpfdump_records_submitted_total", "") ==
				metric(page, "ebpfdump_records_read_total", "") +
					metric(page, "ebpfdump_records_lost_total", ""))
			return page;
		if (now_ms() > until) {
			check_fail("the ring buffer is not emptied, or submitted is not read plus "
				   "lost: status %d, submitted %.0f, read %.0f, lost %.0f, waiting "
				   "bytes %.0f",
				status, metric(page, "ebpfdump_records_submitted_total", ""),
				metric(page, "ebpfdump_records_read_total", ""),
				metric(page, "ebpfdump_records_lost_total", ""),
				metric(page, "ebpfdump_ring_waiting_bytes", ""));
			return page;
		}
		free(page);
	}
}

static enum hook find_hook(
	const char *ready, const enum hook *hooks, const char *const *names, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (strstr(ready, names[i]))
			return hooks[i];
	}
	return HOOK_NONE;
}

static void find_hooks(void)
{
	static const enum hook out[] = {HOOK_FENTRY, HOOK_KPROBE, HOOK_TRACEPOINT};
	static const char *const out_names[] = {
		"fentry/tcp_sendmsg", "kprobe/tcp_sendmsg", "tp_btf/tcp_sendmsg_locked"};
	static const enum hook in[] = {HOOK_FEXIT, HOOK_CLEANUP, HOOK_KRETPROBE, HOOK_CGROUP_SKB};
	static const char *const in_names[] = {"fexit/tcp_recvmsg", "kprobe/tcp_cleanup_rbuf",
		"kretprobe/tcp_recvmsg", "cgroup_skb/ingress"};

	ld.pub.egress = find_hook(ld.pub.ready, out, out_names, ARRAY_SIZE(out));
	ld.pub.ingress = find_hook(ld.pub.ready, in, in_names, ARRAY_SIZE(in));
}

static void loader_reap(void)
{
	int status;

	if (waitpid(ld.pub.pid, &status, 0) == ld.pub.pid)
		ld.pub.exit_status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
	ld.running = false;
	loader_read();
	if (ld.reading)
		pthread_join(ld.reader, NULL);
	pthread_join(ld.logger, NULL);
	close_fd(&ld.out);
	close_fd(&ld.err);
}

const char *loopback = "lo";

static void exec_loader(
	char *const *from, const char *const *more, bool own_interfaces, int out, int err)
{
	const char *const alone[] = {
		"--interface", loopback, "--interface", "wire0", "--interface", "wire1"};
	char *argv[64];
	size_t n = 0;

	for (size_t i = 0; from[i] && n < ARRAY_SIZE(argv) - 8; i++)
		argv[n++] = from[i];
	for (size_t i = 0; more && more[i] && n < ARRAY_SIZE(argv) - 8; i++)
		argv[n++] = (char *)(uintptr_t)more[i];
	for (size_t i = 0; strcmp(loopback, "lo") != 0 && !own_interfaces && i < ARRAY_SIZE(alone);
		i++)
		argv[n++] = (char *)(uintptr_t)alone[i];
	argv[n] = NULL;
	dup2(out, STDOUT_FILENO);
	dup2(err, STDERR_FILENO);
	signal(SIGPIPE, SIG_DFL);
	execvp(argv[0], argv);
	fprintf(stderr, "%s: %s\n", argv[0], strerror(errno));
	_exit(127);
}

bool loader_start(const struct loader_options *options)
{
	int out[2], err[2], status = 0;
	int64_t until = now_ms() + START_MS;

	for (int i = 0; i < ld.n; i++)
		json_object_put(ld.lines[i]);
	ld.n = ld.bad_lines = 0;
	ld.longest = 0;
	ld.out_ended = ld.reading = false;
	text_free(&ld.log);
	free(ld.pub.ready);
	ld.pub = (struct loader){
		.views = options->views ? options->views : VIEWS_ALL, .pidns = options->pidns};
	if (pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC))
		need(NULL);
	fflush(stdout);
	ld.pub.pid = fork();
	if (ld.pub.pid == 0) {
		if (options->pidns) {
			pid_t inner;

			/* The one that stays outside passes the signal on, and the exit status. */
			if (unshare(CLONE_NEWPID)) {
				perror("unshare");
				_exit(126);
			}
			inner = fork();
			if (inner) {
				sigset_t set;
				int sig, st = 0;

				sigemptyset(&set);
				sigaddset(&set, SIGTERM);
				sigaddset(&set, SIGCHLD);
				sigprocmask(SIG_BLOCK, &set, NULL);
				close(out[1]);
				close(err[1]);
				while (waitpid(inner, &st, WNOHANG) == 0) {
					if (sigwait(&set, &sig) == 0 && sig == SIGTERM)
						kill(inner, SIGTERM);
				}
				_exit(WIFEXITED(st) ? WEXITSTATUS(st) : 126);
			}
		}
		exec_loader(options->argv, options->more, options->own_interfaces, out[1], err[1]);
	}
	close(out[1]);
	close(err[1]);
	ld.out = out[0];
	ld.err = err[0];
	ld.running = true;
	ld.line_max = options->line_max ? options->line_max : 16384;
	if (pthread_create(&ld.logger, NULL, read_log, NULL))
		need(NULL);
	if (!options->stopped)
		loader_read();

	for (;;) {
		char *ready = http_get(TELEMETRY_PORT, "/readyz", true, &status);
		siginfo_t info = {};
		char *log;

		if (status == 200) {
			ld.pub.ready = ready ? ready : need(strdup(""));
			break;
		}
		free(ready);
		if (waitid(P_PID, (id_t)ld.pub.pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
			info.si_pid == ld.pub.pid) {
			loader_reap();
			log = loader_log();
			check_fail("the loader ended (status %d) before it was ready: %s",
				ld.pub.exit_status, log);
			free(log);
			return false;
		}
		if (now_ms() > until) {
			log = loader_log();
			check_fail("the loader is not ready after %d s: /readyz says %d, log: %s",
				START_MS / 1000, status, log);
			free(log);
			kill(ld.pub.pid, SIGKILL);
			loader_reap();
			return false;
		}
		sleep_ms(20);
	}
	find_hooks();
	return true;
}

void loader_stop(void)
{
	int64_t began = now_ms();
	char *log;

	if (!ld.running)
		return;
	if (ld.pub.pid > 0)
		kill(ld.pub.pid, SIGTERM);
	for (;;) {
		siginfo_t info = {};

		if (waitid(P_PID, (id_t)ld.pub.pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
			info.si_pid == ld.pub.pid)
			break;
		/* 5 s to flush, and what an emulated machine needs to end a process */
		if (now_ms() - began > 15000) {
			check_fail("the loader still runs 15 s after SIGTERM");
			kill(ld.pub.pid, SIGKILL);
			break;
		}
		sleep_ms(10);
	}
	loader_reap();
	log = loader_log();
	EXPECT(ld.pub.exit_status == 0, "exit status %d after SIGTERM; its log: %.1500s",
		ld.pub.exit_status, log);
	EXPECT(!strstr(log, "ERROR: ") && !strstr(log, "runtime error"), "sanitizer: %.3000s", log);
	free(log);
	EXPECT(ld.longest <= ld.line_max, "a line has %zu bytes", ld.longest);
	EXPECT(ld.bad_lines == 0, "%d lines are no NetworkDump, the first: %s", ld.bad_lines,
		ld.bad);
}

/* Everything until the end of both pipes. */
static void read_both(int fds[2], struct text texts[2])
{
	struct pollfd p[2] = {{.fd = fds[0], .events = POLLIN}, {.fd = fds[1], .events = POLLIN}};

	while ((p[0].fd >= 0 || p[1].fd >= 0) && poll(p, 2, WAIT_MS) > 0) {
		for (int i = 0; i < 2; i++) {
			char chunk[4096];
			ssize_t n;

			if (p[i].fd < 0 || !p[i].revents)
				continue;
			n = read(p[i].fd, chunk, sizeof(chunk));
			if (n > 0)
				text_add(&texts[i], chunk, (size_t)n);
			else
				p[i].fd = -1;
		}
	}
}

int loader_run(char *const *argv, const char *const *more, char **ret_out, char **ret_err)
{
	struct text texts[2] = {text("%s", ""), text("%s", "")};
	int out[2], err[2], fds[2], status = 0;
	pid_t pid;

	if (pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC))
		need(NULL);
	fflush(stdout);
	pid = fork();
	if (pid == 0)
		exec_loader(argv, more, false, out[1], err[1]);
	close(out[1]);
	close(err[1]);
	fds[0] = out[0];
	fds[1] = err[0];
	read_both(fds, texts);
	/* Ended, or silent for so long that it will not. */
	for (int i = 0; waitpid(pid, &status, WNOHANG) == 0; i++) {
		if (i == 100)
			kill(pid, SIGKILL);
		sleep_ms(50);
	}
	close(out[0]);
	close(err[0]);
	*ret_out = texts[0].p;
	*ret_err = texts[1].p;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

double metric(const char *page, const char *name, const char *labels)
{
	size_t len = strlen(name);
	double sum = -1;

	for (const char *line = page; line && *line; line = strchr(line, '\n')) {
		const char *rest, *end;

		line += *line == '\n';
		if (strncmp(line, name, len) || (line[len] != '{' && line[len] != ' '))
			continue;
		rest = line + len;
		end = strchr(rest, '\n');
		if (*rest == '{') {
			const char *close = strstr(rest, "} ");
			const char *found = *labels ? strstr(rest, labels) : rest;

			if (!close || (end && close > end) || !found || found > close)
				continue;
			rest = close + 1;
		} else if (*labels) {
			continue;
		}
		sum = (sum < 0 ? 0 : sum) + strtod(rest, NULL);
	}
	return sum;
}

double metric_now(const char *name, const char *labels)
{
	char *page = loader_quiet_metrics();
	double value = page ? metric(page, name, labels) : -1;

	free(page);
	return value;
}

/* ---- what the loader said ---- */

const char *view_name(enum view view)
{
	static const char *const names[] = {
		"request sent", "request received", "response sent", "response received"};

	return names[view];
}

struct json_object *key(struct json_object *m, const char *name)
{
	struct json_object *value = NULL;

	json_object_object_get_ex(m, name, &value);
	return value;
}

const char *key_string(struct json_object *m, const char *name)
{
	struct json_object *value = key(m, name);

	return json_object_is_type(value, json_type_string) ? json_object_get_string(value) : NULL;
}

int64_t key_int(struct json_object *m, const char *name)
{
	struct json_object *value = key(m, name);

	return json_object_is_type(value, json_type_int) ? json_object_get_int64(value) : -1;
}

const char *header(struct json_object *m, const char *name)
{
	struct json_object *list = key(key(m, "headers"), name);

	return json_object_is_type(list, json_type_array) && json_object_array_length(list)
		       ? json_object_get_string(json_object_array_get_idx(list, 0))
		       : NULL;
}

static enum view view_of(struct json_object *m)
{
	bool ingress = key_int(m, "direction") == 1;

	/* A head that was lost has neither; `status_code` tells. */
	if (key_int(m, "status_code") != 0)
		return ingress ? RESP_IN : RESP_OUT;
	return ingress ? REQ_IN : REQ_OUT;
}

/* Those of the connection. With the lock. */
static void pick(uint16_t client_port, uint16_t server_port, struct seen *ret)
{
	memset(ret->n, 0, sizeof(ret->n));
	for (int i = 0; i < ld.n; i++) {
		int64_t src = key_int(ld.lines[i], "src_port");
		int64_t dst = key_int(ld.lines[i], "dst_port");
		enum view v = view_of(ld.lines[i]);

		if (!(src == client_port && dst == server_port) &&
			!(dst == client_port && src == server_port))
			continue;
		if (ret->n[v] < (int)ARRAY_SIZE(ret->m[v]))
			ret->m[v][ret->n[v]++] = ld.lines[i];
	}
}

static bool enough(const struct seen *seen, const int want[VIEWS])
{
	for (int v = 0; v < VIEWS; v++) {
		if (seen->n[v] < want[v])
			return false;
	}
	return true;
}

static bool wait_for(const struct conn *k, const int want[VIEWS], struct seen *ret)
{
	struct timespec t;
	bool done;

	clock_gettime(CLOCK_REALTIME, &t);
	t.tv_sec += WAIT_MS / 1000;
	pthread_mutex_lock(&ld.lock);
	for (;;) {
		pick(k->client_port, k->server_port, ret);
		done = enough(ret, want);
		if (done || ld.out_ended ||
			pthread_cond_timedwait(&ld.more, &ld.lock, &t) == ETIMEDOUT)
			break;
	}
	pthread_mutex_unlock(&ld.lock);
	return done;
}

static void want_views(int requests, int responses, int ret[VIEWS])
{
	for (int v = 0; v < VIEWS; v++)
		ret[v] = !(ld.pub.views & 1u << v)     ? 0
			 : v == REQ_OUT || v == REQ_IN ? requests
						       : responses;
}

bool barrier(void)
{
	static const char request[] = "GET /barrier HTTP/1.1\r\nHost: b\r\n\r\n";
	static const char response[] = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nb";
	static struct seen seen;
	int want[VIEWS];
	struct conn k;
	bool ok;

	/* One that has ended has said all. */
	if (!ld.running)
		return true;
	want_views(1, 1, want);
	ok = conn_open(&k, V4) && send_all(k.c, request, sizeof(request) - 1) &&
	     recv_same(k.s, request, sizeof(request) - 1) &&
	     send_all(k.s, response, sizeof(response) - 1) &&
	     recv_same(k.c, response, sizeof(response) - 1);
	conn_close(&k);
	if (!ok)
		return false;
	ok = wait_for(&k, want, &seen);
	EXPECT(ok, "a plain exchange after it was not reported: %d %d %d %d", seen.n[0], seen.n[1],
		seen.n[2], seen.n[3]);
	return ok;
}

void gather_any(const struct conn *k, struct seen *ret_seen)
{
	barrier();
	pthread_mutex_lock(&ld.lock);
	pick(k->client_port, k->server_port, ret_seen);
	pthread_mutex_unlock(&ld.lock);
}

bool gather_views(const struct conn *k, const int want[VIEWS], struct seen *ret_seen)
{
	bool ok = wait_for(k, want, ret_seen);

	if (ok)
		gather_any(k, ret_seen);
	for (int v = 0; v < VIEWS; v++) {
		if (ret_seen->n[v] == want[v])
			continue;
		ok = false;
		check_fail("port %u, %s: %d messages instead of %d", k->client_port, view_name(v),
			ret_seen->n[v], want[v]);
		for (int i = 0; i < ret_seen->n[v] && i < 3; i++)
			check_fail("  %.300s", json_object_to_json_string_ext(
						       ret_seen->m[v][i], JSON_C_TO_STRING_PLAIN));
	}
	return ok;
}

bool gather(const struct conn *k, int requests, int responses, struct seen *ret_seen)
{
	int want[VIEWS];

	want_views(requests, responses, want);
	return gather_views(k, want, ret_seen);
}

/* ---- comparing ---- */

static void compare_string(enum view v, struct json_object *m, const char *name, const char *want)
{
	const char *got = key_string(m, name);

	EXPECT(got && strcmp(got, want) == 0, "%s: %s is %s instead of %s", view_name(v), name,
		got ? got : "missing", want);
}

static void compare_int(enum view v, struct json_object *m, const char *name, int64_t want)
{
	struct json_object *value = key(m, name);

	EXPECT(json_object_is_type(value, json_type_int) && json_object_get_int64(value) == want,
		"%s: %s is %s instead of %lld", view_name(v), name,
		value ? json_object_get_string(value) : "missing", (long long)want);
}

static void compare_bool(enum view v, struct json_object *m, const char *name, bool want)
{
	struct json_object *value = key(m, name);

	EXPECT(json_object_is_type(value, json_type_boolean) &&
			json_object_get_boolean(value) == want,
		"%s: %s is %s instead of %d", view_name(v), name,
		value ? json_object_get_string(value) : "missing", want);
}

static void compare_ends(const struct conn *k, enum view v, struct json_object *m)
{
	const char *ip = k->net == V6 ? "::1" : "127.0.0.1";
	const char *client_ip = k->client_ip ? k->client_ip : ip;
	const char *server_ip = k->server_ip ? k->server_ip : ip;
	bool request = v == REQ_OUT || v == REQ_IN;
	bool at_client = v == REQ_OUT || v == RESP_IN;
	const char *interface = at_client ? k->client_interface : k->server_interface;
	const struct process *who = at_client ? &k->client : &k->server;
	int64_t pid = key_int(m, "pid"), time = key_int(m, "timing_ms");
	const char *comm = key_string(m, "comm");

	compare_int(v, m, "direction", v == REQ_IN || v == RESP_IN);
	compare_string(v, m, "src_ip", request ? client_ip : server_ip);
	compare_string(v, m, "dst_ip", request ? server_ip : client_ip);
	compare_string(v, m, "remote_ip", client_ip);
	compare_int(v, m, "src_port", request ? k->client_port : k->server_port);
	compare_int(v, m, "dst_port", request ? k->server_port : k->client_port);
	compare_int(v, m, "remote_port", k->client_port);
	compare_string(v, m, "interface", interface ? interface : loopback);
	EXPECT(time >= checks.began_wall - 1000 && time <= wall_ms() + 1000,
		"%s: timing_ms is %lld, it was %lld to %lld", view_name(v), (long long)time,
		(long long)checks.began_wall, (long long)wall_ms());
	EXPECT(key_int(m, "seq") >= 0, "%s: no seq", view_name(v));
	EXPECT(key_string(m, "node") && *key_string(m, "node"), "%s: no node", view_name(v));
	if (!who->pid)
		return;
	/* A packet comes in nobody's name: its reader is known only once it has read. */
	if (ld.pub.ingress == HOOK_CGROUP_SKB && (v == REQ_IN || v == RESP_IN) && pid <= 0)
		return;
	EXPECT(pid == who->pid, "%s: pid is %lld instead of %d", view_name(v), (long long)pid,
		who->pid);
	EXPECT(comm && strcmp(comm, who->comm) == 0, "%s: comm is %s instead of %s", view_name(v),
		comm ? comm : "missing", who->comm);
}

static void compare_body(enum view v, struct json_object *m, const struct want *want)
{
	size_t limit = want->limit ? want->limit : BODY_BYTES;
	struct json_object *body = key(m, "body");
	size_t n = (size_t)json_object_get_string_len(body), kept = MIN(limit, want->n);
	uint64_t gap = (uint64_t)key_int(m, "gap_bytes");

	if (!key(m, "gap_bytes"))
		gap = 0;
	compare_int(v, m, "body_bytes", (int64_t)want->n);
	if (!want->any_gap)
		EXPECT(gap == want->gap[v], "%s: gap_bytes is %llu instead of %llu", view_name(v),
			(unsigned long long)gap, (unsigned long long)want->gap[v]);
	if (want->any_text || want->any_gap || gap)
		return;
	compare_bool(v, m, "body_truncated", kept < want->n);
	EXPECT(!key(m, "body_encoding"), "%s: the text is written as %s", view_name(v),
		key_string(m, "body_encoding"));
	EXPECT(n == kept, "%s: %zu bytes of body instead of %zu", view_name(v), n, kept);
	EXPECT(memcmp(json_object_get_string(body), want->body, MIN(n, kept)) == 0,
		"%s: the body is not what was sent", view_name(v));
}

static void compare_answers(enum view v, struct json_object *m, const char *want)
{
	struct json_object *request = key(m, "request");
	const char *method = request ? key_string(request, "method") : NULL;
	const char *path = request ? key_string(request, "path") : NULL;
	char got[512];

	snprintf(got, sizeof(got), "%s %s", method ? method : "?", path ? path : "?");
	EXPECT(strcmp(got, want) == 0, "%s: it answers '%s' instead of '%s'", view_name(v), got,
		want);
	EXPECT(key_int(m, "latency_us") >= 0 && key_int(m, "latency_us") <= WAIT_MS * 1000ll,
		"%s: latency_us is %lld", view_name(v), (long long)key_int(m, "latency_us"));
}

void compare(const struct conn *k, enum view v, struct json_object *m, const struct want *want)
{
	compare_ends(k, v, m);
	compare_string(v, m, "method", want->method ? want->method : "");
	compare_string(v, m, "path", want->method ? want->path : "");
	compare_int(v, m, "status_code", want->status);
	compare_string(v, m, "version", "1.1");
	EXPECT(want->any_error || !key(m, "error"), "%s: error is %s", view_name(v),
		key_string(m, "error"));
	if (want->body)
		compare_body(v, m, want);
	if (want->answers)
		compare_answers(v, m, want->answers);
}

/* One id for a request and its response, at both ends. */
static void compare_exchange(const struct seen *seen, int i)
{
	const char *id = NULL;

	for (int v = 0; v < VIEWS; v++) {
		struct json_object *m = i < seen->n[v] ? seen->m[v][i] : NULL;
		const char *got = m ? key_string(m, "exchange_id") : NULL;

		if (!m || ((v == RESP_OUT || v == RESP_IN) && !key(m, "request")))
			continue;
		EXPECT(got && strlen(got) == 16, "%s: exchange_id is %s", view_name(v),
			got ? got : "missing");
		EXPECT(!id || (got && strcmp(got, id) == 0), "%s: exchange_id is %s, not %s",
			view_name(v), got ? got : "missing", id);
		id = got;
	}
}

void compare_all(const struct conn *k, const struct seen *seen, int i, const struct want *req,
	const struct want *resp)
{
	for (int v = 0; v < VIEWS; v++) {
		const struct want *want = v == REQ_OUT || v == REQ_IN ? req : resp;

		if (want && i < seen->n[v])
			compare(k, v, seen->m[v][i], want);
	}
	if (req && resp)
		compare_exchange(seen, i);
}
