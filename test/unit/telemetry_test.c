/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pkg/telemetry/telemetry.h"

/* ---- the format ---- */

static void sample_page(struct metrics *m)
{
	metrics_family(m, "ebpfdump_x_total", METRICS_COUNTER, "Lines \\ of\ntext, \"quoted\".");
	metrics_u64(m, "ebpfdump_x_total", 7, "reason", "limit", "how", "a\"b\\c\nd", NULL);
	metrics_u64(m, "ebpfdump_x_total", UINT64_MAX, "reason",
		"b\xff"
		"d \xc3\xa9 \xe2\x82",
		NULL);
	metrics_family(m, "ebpfdump_ratio", METRICS_GAUGE, "A ratio.");
	metrics_f64(m, "ebpfdump_ratio", 0.1, NULL);
}

START_TEST(format)
{
	struct buf out = BUF_INIT(1 << 20);
	struct metrics m = {.out = &out};

	sample_page(&m);
	metrics_f64(&m, "g", 1700000000.125, "a", "", NULL);
	metrics_f64(&m, "g", NAN, NULL);
	metrics_f64(&m, "g", INFINITY, NULL);
	metrics_f64(&m, "g", -INFINITY, NULL);
	ck_assert_int_eq(m.error, 0);
	ck_assert_int_eq(buf_append(&out, "", 1), 0);
	ck_assert_str_eq(out.data, "# HELP ebpfdump_x_total Lines \\\\ of\\ntext, \"quoted\".\n"
				   "# TYPE ebpfdump_x_total counter\n"
				   "ebpfdump_x_total{reason=\"limit\",how=\"a\\\"b\\\\c\\nd\"} 7\n"
				   "ebpfdump_x_total{reason=\"b\xef\xbf\xbd"
				   "d \xc3\xa9 \xef\xbf\xbd\xef\xbf\xbd\"} "
				   "18446744073709551615\n"
				   "# HELP ebpfdump_ratio A ratio.\n"
				   "# TYPE ebpfdump_ratio gauge\n"
				   "ebpfdump_ratio 0.1\n"
				   "g{a=\"\"} 1700000000.125\n"
				   "g NaN\n"
				   "g +Inf\n"
				   "g -Inf\n");
	buf_done(&out);
}
END_TEST

START_TEST(format_overflow)
{
	struct buf whole = BUF_INIT(1 << 20);
	struct metrics page = {.out = &whole};

	sample_page(&page);
	/* wherever the room ends, the error is kept */
	for (size_t max = 0; max < whole.len; max++) {
		struct buf out = BUF_INIT(max);
		struct metrics m = {.out = &out};

		sample_page(&m);
		ck_assert_int_eq(m.error, -ENOBUFS);
		ck_assert_uint_le(out.len, max);
		buf_done(&out);
	}
	buf_done(&whole);
}
END_TEST

START_TEST(promtool)
{
	struct buf out = BUF_INIT(1 << 20);
	struct metrics m = {.out = &out};
	FILE *tool;

	if (access("/usr/bin/promtool", X_OK) != 0)
		return;
	sample_page(&m);
	tool = popen("/usr/bin/promtool check metrics", "w");
	ck_assert_ptr_nonnull(tool);
	ck_assert_uint_eq(fwrite(out.data, 1, out.len, tool), out.len);
	ck_assert_int_eq(pclose(tool), 0);
	buf_done(&out);
}
END_TEST

/* ---- a loop with a server, and clients in another thread ---- */

struct world {
	struct loop *loop;
	struct telemetry *t;
	struct err err;
	bool ready;
	size_t page_bytes; /* more of /metrics */
	int rendered;
	int done[2];
	void (*clients)(struct world *w);
};

static void render_metrics(void *ctx, struct metrics *m)
{
	struct world *w = ctx;

	w->rendered++;
	metrics_family(m, "ebpfdump_test_total", METRICS_COUNTER, "Renderings.");
	metrics_u64(m, "ebpfdump_test_total", (uint64_t)w->rendered, NULL);
	metrics_family(m, "ebpfdump_many", METRICS_GAUGE, "Many.");
	for (size_t i = 0; i < w->page_bytes / 30; i++) {
		char number[24];

		number[num_format(number, i)] = '\0';
		metrics_u64(m, "ebpfdump_many", i, "n", number, NULL);
	}
}

static bool render_ready(void *ctx, struct buf *out)
{
	struct world *w = ctx;

	ck_assert_int_eq(buf_printf(out, "egress: %s\n", w->ready ? "fentry" : "none"), 0);
	return w->ready;
}

static const struct telemetry_ops ops = {.metrics = render_metrics, .ready = render_ready};

static void open_world(struct world *w, const char *listen)
{
	ck_assert_int_eq(loop_new(&w->loop, &w->err), 0);
	ck_assert_msg(
		telemetry_new(w->loop, listen, &ops, w, &w->t, &w->err) == 0, "%s", w->err.text);
	ck_assert_uint_ne(telemetry_port(w->t), 0);
}

static void close_world(struct world *w)
{
	telemetry_freep(&w->t);
	loop_freep(&w->loop);
}

static void *client_thread(void *ctx)
{
	struct world *w = ctx;

	w->clients(w);
	ck_assert_int_eq(write(w->done[1], "x", 1), 1);
	return NULL;
}

static void on_done(void *ctx, int fd, uint32_t events)
{
	loop_quit(ctx, 0);
}

/* Runs the loop for as long as the clients do. */
static void run_world(struct world *w, void (*clients)(struct world *w))
{
	pthread_t thread;

	w->clients = clients;
	ck_assert_int_eq(pipe(w->done), 0);
	ck_assert_int_eq(loop_add_fd(w->loop, w->done[0], EPOLLIN, on_done, w->loop, NULL), 0);
	ck_assert_int_eq(pthread_create(&thread, NULL, client_thread, w), 0);
	ck_assert_int_eq(loop_run(w->loop), 0);
	pthread_join(thread, NULL);
}

static int connect_v4(struct world *w)
{
	struct sockaddr_in a = {.sin_family = AF_INET,
		.sin_port = htons(telemetry_port(w->t)),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	ck_assert_int_eq(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	return fd;
}

static int connect_v6(struct world *w)
{
	struct sockaddr_in6 a = {.sin6_family = AF_INET6,
		.sin6_port = htons(telemetry_port(w->t)),
		.sin6_addr = IN6ADDR_LOOPBACK_INIT};
	int fd = socket(AF_INET6, SOCK_STREAM, 0);

	ck_assert_int_eq(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	return fd;
}

struct reply {
	int status;
	char *text, *body;
	size_t body_len;
};

static void send_text(int fd, const char *text)
{
	ck_assert_int_eq(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

/* Until the server closes: it always does. */
static struct reply read_reply(int fd)
{
	size_t len = 0, cap = 8 << 20;
	struct reply r = {.text = malloc(cap)};
	ssize_t n;

	while (len + 1 < cap && (n = recv(fd, r.text + len, cap - 1 - len, 0)) > 0)
		len += (size_t)n;
	close(fd);
	r.text[len] = '\0';
	r.status = strncmp(r.text, "HTTP/1.1 ", 9) == 0 ? (int)strtol(r.text + 9, NULL, 10) : 0;
	r.body = strstr(r.text, "\r\n\r\n");
	if (r.body) {
		r.body += 4;
		r.body_len = len - (size_t)(r.body - r.text);
	}
	return r;
}

static bool has_header(const struct reply *r, const char *line)
{
	const char *at = strcasestr(r->text, line);

	return at && at[-1] == '\n' && strncmp(at + strlen(line), "\r\n", 2) == 0 && at < r->body;
}

static size_t content_length(const struct reply *r)
{
	const char *at = strcasestr(r->text, "\nContent-Length: ");

	ck_assert_ptr_nonnull(at);
	return strtoul(at + 17, NULL, 10);
}

static struct reply ask_once(struct world *w, int (*connect_to)(struct world *w), const char *text)
{
	int fd = connect_to(w);

	send_text(fd, text);
	return read_reply(fd);
}

/* A machine that stalls for as long as the loop may, or a client, is not these tests' matter. */
static bool was_stalled(const struct reply *r, uint64_t took_ns)
{
	static const char stuck[] = "the event loop does not answer\n";

	if (!r->body || r->status == 0)
		return took_ns > UINT64_C(4000000000);
	if (r->body_len == 0) /* HEAD */
		return r->status == 503 && content_length(r) == sizeof(stuck) - 1;
	return strcmp(r->body, stuck) == 0 ||
	       (r->body_len < content_length(r) && took_ns > UINT64_C(4000000000));
}

static struct reply ask(struct world *w, int (*connect_to)(struct world *w), const char *text)
{
	for (int tries = 1;; tries++) {
		uint64_t began = clock_mono_ns();
		struct reply r = ask_once(w, connect_to, text);

		if (tries == 10 || !was_stalled(&r, clock_mono_ns() - began))
			return r;
		free(r.text);
	}
}

static struct reply request(struct world *w, const char *method, const char *path)
{
	char text[200];

	snprintf(text, sizeof(text), "%s %s HTTP/1.1\r\nHost: x\r\n\r\n", method, path);
	return ask(w, connect_v4, text);
}

static void ask_all(struct world *w)
{
	static const char *const others[] = {"POST", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"};
	struct reply get, head, r;

	r = request(w, "GET", "/healthz");
	ck_assert_int_eq(r.status, 200);
	ck_assert_str_eq(r.body, "ok\n");
	ck_assert(has_header(&r, "Content-Type: text/plain; charset=utf-8"));
	ck_assert(has_header(&r, "Connection: close"));
	ck_assert_uint_eq(content_length(&r), 3);
	free(r.text);

	r = request(w, "GET", "/readyz?verbose=1");
	ck_assert_int_eq(r.status, 503);
	ck_assert_str_eq(r.body, "egress: none\n");
	free(r.text);

	get = request(w, "GET", "/metrics");
	ck_assert_int_eq(get.status, 200);
	ck_assert(has_header(&get, "Content-Type: text/plain; version=0.0.4; charset=utf-8"));
	ck_assert_ptr_nonnull(strstr(get.body, "\nebpfdump_test_total "));
	ck_assert_uint_eq(content_length(&get), get.body_len);
	head = request(w, "HEAD", "/metrics");
	ck_assert_int_eq(head.status, 200);
	ck_assert_uint_eq(head.body_len, 0);
	ck_assert_uint_gt(content_length(&head), 0);
	free(get.text);
	free(head.text);

	for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
		r = request(w, others[i], "/metrics");
		ck_assert_int_eq(r.status, 405);
		ck_assert(has_header(&r, "Allow: GET, HEAD"));
		free(r.text);
	}
	r = request(w, "GET", "/");
	ck_assert_int_eq(r.status, 404);
	ck_assert_ptr_nonnull(strstr(r.body, "/metrics"));
	free(r.text);
	r = request(w, "GET", "/metrics/");
	ck_assert_int_eq(r.status, 404);
	free(r.text);
	r = request(w, "GET", "/healthz/../metrics");
	ck_assert_int_eq(r.status, 404);
	free(r.text);
}

static int count_fds(void)
{
	int n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

START_TEST(pages)
{
	struct world w = {0};
	int before = count_fds();

	open_world(&w, "127.0.0.1:0");
	run_world(&w, ask_all);
	close_world(&w);
	close(w.done[0]);
	close(w.done[1]);
	ck_assert_int_eq(count_fds(), before);
}
END_TEST

static void ask_ready(struct world *w)
{
	struct reply r = request(w, "GET", "/readyz");

	ck_assert_int_eq(r.status, 200);
	ck_assert_str_eq(r.body, "egress: fentry\n");
	free(r.text);
}

static void ask_with_body(struct world *w)
{
	struct reply r = ask(w, connect_v4,
		"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello");

	ck_assert_int_eq(r.status, 405);
	free(r.text);
	/* what is no HTTP is refused, and ends */
	r = ask_once(w, connect_v4, "\x16\x03\x01\x02 quite another thing\r\n\r\n");
	ck_assert_int_ne(r.status, 200);
	free(r.text);
	ask_ready(w);
}

START_TEST(ready)
{
	struct world w = {.ready = true};

	/* not localhost: that is ::1 first, where /etc/hosts says so */
	open_world(&w, "127.0.0.1:0");
	run_world(&w, ask_ready);
	close_world(&w);
}
END_TEST

START_TEST(odd_requests)
{
	struct world w = {.ready = true};

	open_world(&w, "127.0.0.1:0");
	run_world(&w, ask_with_body);
	close_world(&w);
}
END_TEST

static void ask_v4_and_v6(struct world *w)
{
	struct reply r;

	ask_ready(w);
	r = ask(w, connect_v6, "GET /readyz HTTP/1.0\r\n\r\n");
	ck_assert_ptr_nonnull(strstr(r.text, " 200 OK"));
	free(r.text);
}

static void ask_v6(struct world *w)
{
	struct reply r = ask(w, connect_v6, "GET /readyz HTTP/1.1\r\nHost: [::1]\r\n\r\n");

	ck_assert_int_eq(r.status, 200);
	free(r.text);
}

static bool have_v6(void)
{
	struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	int fd = socket(AF_INET6, SOCK_STREAM, 0);
	bool have = fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0;

	close(fd);
	return have;
}

START_TEST(all_addresses)
{
	struct world w = {.ready = true};

	open_world(&w, ":0");
	run_world(&w, have_v6() ? ask_v4_and_v6 : ask_ready);
	close_world(&w);
}
END_TEST

START_TEST(ipv6)
{
	struct world w = {.ready = true};

	if (!have_v6())
		return;
	open_world(&w, "[::1]:0");
	run_world(&w, ask_v6);
	close_world(&w);
}
END_TEST

START_TEST(refused)
{
	static const char *const bad[] = {"", "x", ":", "h:", "h:x", "h:65536", "::1:80", "[::1]",
		"[]:80", "[::1:80", "999.999.999.999:80", "203.0.113.1:0"};
	struct world w = {0}, second = {0};
	int before = count_fds();
	char address[64];

	open_world(&w, "127.0.0.1:0");
	ck_assert_int_eq(loop_new(&second.loop, &second.err), 0);
	snprintf(address, sizeof(address), "127.0.0.1:%u", telemetry_port(w.t));
	ck_assert_int_eq(telemetry_new(second.loop, address, &ops, &second, &second.t, &second.err),
		-EADDRINUSE);
	ck_assert_ptr_nonnull(strstr(second.err.text, address));
	ck_assert_ptr_nonnull(strstr(second.err.text, "in use"));
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		ck_assert_msg(telemetry_new(second.loop, bad[i], &ops, &second, &second.t,
				      &second.err) < 0,
			"%s", bad[i]);
		ck_assert_msg(strstr(second.err.text, bad[i]) != NULL, "%s", second.err.text);
	}
	ck_assert_ptr_null(second.t);
	loop_free(second.loop);
	close_world(&w);
	ck_assert_int_eq(count_fds(), before);
	telemetry_free(NULL);
}
END_TEST

/* ---- many, slow, stuck ---- */

static void *one_of_many(void *ctx)
{
	for (int i = 0; i < 3; i++) {
		struct reply r = request(ctx, "GET", i % 2 ? "/healthz" : "/metrics");

		ck_assert_int_eq(r.status, 200);
		ck_assert_uint_eq(content_length(&r), r.body_len);
		free(r.text);
	}
	return NULL;
}

static void ask_by_hundred(struct world *w)
{
	pthread_t threads[100];

	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, one_of_many, w), 0);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		pthread_join(threads[i], NULL);
}

START_TEST(many_clients)
{
	struct world w = {.page_bytes = 300000};

	open_world(&w, "127.0.0.1:0");
	run_world(&w, ask_by_hundred);
	/* 200 scrapes of one page: many share a rendering */
	ck_assert_int_gt(w.rendered, 0);
	ck_assert_int_lt(w.rendered, 200);
	close_world(&w);
}
END_TEST

struct whisperers {
	int fds[40];
	atomic_bool stop;
};

/* A byte each every second: never silent, never done. */
static void *whisper(void *ctx)
{
	struct whisperers *slow = ctx;

	while (!atomic_load(&slow->stop)) {
		for (size_t i = 0; i < ARRAY_SIZE(slow->fds); i++)
			(void)!send(slow->fds[i], "X", 1, MSG_NOSIGNAL);
		sleep(1);
	}
	return NULL;
}

/* More clients than there are places, none of which ever comes to an end by itself. */
static void ask_beside_slow(struct world *w)
{
	struct whisperers slow = {.stop = false};
	pthread_t thread;
	struct reply r;

	for (size_t i = 0; i < ARRAY_SIZE(slow.fds); i++) {
		slow.fds[i] = connect_v4(w);
		send_text(slow.fds[i], "GET /metrics HTTP/1.1\r\n");
	}
	ck_assert_int_eq(pthread_create(&thread, NULL, whisper, &slow), 0);
	r = request(w, "GET", "/readyz");
	ck_assert_int_eq(r.status, 200);
	free(r.text);
	atomic_store(&slow.stop, true);
	pthread_join(thread, NULL);
	for (size_t i = 0; i < ARRAY_SIZE(slow.fds); i++)
		close(slow.fds[i]);
}

START_TEST(slow_clients)
{
	struct world w = {.ready = true};

	open_world(&w, "127.0.0.1:0");
	run_world(&w, ask_beside_slow);
	ck_assert_uint_gt(loop_turns(w.loop), 5);
	close_world(&w);
}
END_TEST

static void ask_and_not_read(struct world *w)
{
	int deaf = connect_v4(w), small = 4096;
	struct reply r;

	setsockopt(deaf, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	send_text(deaf, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
	usleep(100000);
	for (int i = 0; i < 5; i++) {
		r = request(w, "GET", "/readyz");
		ck_assert_int_eq(r.status, 200);
		free(r.text);
	}
	close(deaf);
}

START_TEST(deaf_client)
{
	struct world w = {.ready = true, .page_bytes = 3 << 20};

	open_world(&w, "127.0.0.1:0");
	run_world(&w, ask_and_not_read);
	close_world(&w);
}
END_TEST

static void ask_too_much(struct world *w)
{
	struct reply r = request(w, "GET", "/metrics");

	ck_assert_int_eq(r.status, 500);
	ck_assert_ptr_nonnull(strstr(r.body, "no metrics: "));
	free(r.text);
}

START_TEST(page_too_long)
{
	struct world w = {.page_bytes = 5 << 20};

	open_world(&w, "127.0.0.1:0");
	run_world(&w, ask_too_much);
	close_world(&w);
}
END_TEST

/* Nobody runs the loop. Then somebody does. */
START_TEST(stuck_loop)
{
	static const char health[] = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
	struct world w = {.ready = true};
	uint64_t began, first, later;
	struct reply r;

	open_world(&w, "127.0.0.1:0");
	began = clock_mono_ns();
	r = ask_once(&w, connect_v4, health);
	first = clock_mono_ns() - began;
	ck_assert_int_eq(r.status, 503);
	ck_assert_str_eq(r.body, "the event loop does not answer\n");
	free(r.text);
	/* it has been asked for long enough: no request waits again */
	began = clock_mono_ns();
	for (int i = 0; i < 20; i++) {
		r = ask_once(&w, connect_v4, health);
		ck_assert_int_eq(r.status, 503);
		free(r.text);
	}
	later = clock_mono_ns() - began;
	ck_assert_msg(later < 20 * first, "each of 20 waited as long as the first");
	run_world(&w, ask_ready);
	close_world(&w);
}
END_TEST

static void *ask_until_closed(void *ctx)
{
	struct reply r = read_reply(*(int *)ctx);

	/* 503, or cut off: never the page of a loop that did not run */
	ck_assert_int_ne(r.status, 200);
	free(r.text);
	return NULL;
}

/* Freed while a request waits for a loop that does not run. */
START_TEST(freed_while_asked)
{
	struct world w = {.ready = true};
	pthread_t threads[4];
	int fds[4];

	open_world(&w, "127.0.0.1:0");
	for (int i = 0; i < 4; i++) {
		fds[i] = connect_v4(&w);
		send_text(fds[i], "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
		ck_assert_int_eq(pthread_create(&threads[i], NULL, ask_until_closed, &fds[i]), 0);
	}
	usleep(100000);
	close_world(&w);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
}
END_TEST

START_TEST(freed_at_once)
{
	int before = count_fds();

	for (int i = 0; i < 50; i++) {
		struct world w = {.ready = true};
		int fd = -1;

		open_world(&w, "127.0.0.1:0");
		if (i % 2)
			fd = connect_v4(&w);
		if (i % 4 == 3)
			send_text(fd, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
		close_world(&w);
		closep(&fd);
	}
	ck_assert_int_eq(count_fds(), before);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("telemetry");
	TCase *t = tcase_create("telemetry");
	SRunner *runner;
	int failed;

	signal(SIGPIPE, SIG_IGN);
	tcase_set_timeout(t, 120);
	tcase_add_test(t, format);
	tcase_add_test(t, format_overflow);
	tcase_add_test(t, promtool);
	tcase_add_test(t, pages);
	tcase_add_test(t, ready);
	tcase_add_test(t, odd_requests);
	tcase_add_test(t, all_addresses);
	tcase_add_test(t, ipv6);
	tcase_add_test(t, refused);
	tcase_add_test(t, many_clients);
	tcase_add_test(t, slow_clients);
	tcase_add_test(t, deaf_client);
	tcase_add_test(t, page_too_long);
	tcase_add_test(t, stuck_loop);
	tcase_add_test(t, freed_while_asked);
	tcase_add_test(t, freed_at_once);
	suite_add_tcase(s, t);
	runner = srunner_create(s);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
