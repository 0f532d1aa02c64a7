/* SPDX-License-Identifier: Apache-2.0 */
/* Every way in which a process can make TCP send and receive. */
#include "test/kernel/traffic.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* ---- calls with several buffers ---- */

#define SEGMENTS_SEEN 64 /* CAPTURE_SEGMENTS_MAX */
#define SEGMENTS_MAX  70

/* Cuts into n buffers of different lengths; the first holds the head. */
static int cut_buffers(const struct text *t, int n, struct iovec *iov)
{
	size_t head = (size_t)(body_of(t) - t->p), at = head, left = t->n - head;

	if (n == 1) {
		iov[0] = (struct iovec){t->p, t->n};
		return 1;
	}
	iov[0] = (struct iovec){t->p, head};
	for (int i = 1; i < n; i++) {
		/* some are empty */
		size_t len = i % 5 == 4 ? 0 : left / (size_t)(n - i) + (size_t)(i % 2);

		if (i == n - 1 || len > left)
			len = left;
		iov[i] = (struct iovec){t->p + at, len};
		at += len;
		left -= len;
	}
	return n;
}

/* writev and sendmsg with 1 to 70 buffers. */
static void check_writev(void)
{
	struct text req[SEGMENTS_MAX], resp[SEGMENTS_MAX];
	struct conn k;
	int n = 0;
	bool ok = true;

	if (!conn_open(&k, V4))
		return;
	for (; ok && n < SEGMENTS_MAX; n++) {
		struct iovec iov[SEGMENTS_MAX];
		char path[32];

		snprintf(path, sizeof(path), "/writev/%d", n + 1);
		req[n] = request("POST", path, 300, (uint32_t)n);
		resp[n] = response(200, 400, (uint32_t)n + 500);
		ok = writev(k.c, iov, cut_buffers(&req[n], n + 1, iov)) == (ssize_t)req[n].n &&
		     recv_same(k.s, req[n].p, req[n].n);
		if (ok) {
			struct msghdr msg = {.msg_iov = iov,
				.msg_iovlen = (size_t)cut_buffers(&resp[n], n + 1, iov)};

			ok = sendmsg(k.s, &msg, 0) == (ssize_t)resp[n].n &&
			     recv_same(k.c, resp[n].p, resp[n].n);
		}
		EXPECT(ok, "%d buffers were not sent: %s", n + 1, strerror(errno));
	}
	conn_close(&k);
	if (ok && gather(&k, n, n, &seen)) {
		for (int i = 0; i < n; i++) {
			struct want wreq = {.method = "POST", .body = body_of(&req[i]), .n = 300};
			struct want wresp = {.status = 200, .body = body_of(&resp[i]), .n = 400};
			char path[32], answers[48];
			struct iovec iov[SEGMENTS_MAX];

			snprintf(path, sizeof(path), "/writev/%d", i + 1);
			snprintf(answers, sizeof(answers), "POST %s", path);
			wreq.path = path;
			wresp.answers = answers;
			/* What is in buffers beyond the 64th is a gap at the sender's end. */
			cut_buffers(&req[i], i + 1, iov);
			for (int s = 64; s <= i; s++)
				wreq.gap[REQ_OUT] += iov[s].iov_len;
			cut_buffers(&resp[i], i + 1, iov);
			for (int s = 64; s <= i; s++)
				wresp.gap[RESP_OUT] += iov[s].iov_len;
			compare_all(&k, &seen, i, &wreq, &wresp);
		}
	}
	while (n--) {
		text_free(&req[n]);
		text_free(&resp[n]);
	}
}

static bool recv_buffers(int fd, struct iovec *iov, int n, size_t total, bool msg)
{
	struct msghdr hdr = {.msg_iov = iov, .msg_iovlen = (size_t)n};
	ssize_t got = msg ? recvmsg(fd, &hdr, MSG_WAITALL) : readv(fd, iov, n);

	EXPECT(got == (ssize_t)total, "%s of %d buffers: %zd of %zu bytes",
		msg ? "recvmsg" : "readv", n, got, total);
	return got == (ssize_t)total;
}

/* A request read by readv and its response read by recvmsg, with n buffers each. */
static bool exchange_buffers(struct conn *k, int n, const struct text *req, const struct text *resp)
{
	struct iovec iov[SEGMENTS_MAX];
	struct text got = text("%s", req->p);
	bool ok;

	/* cut as the message is, then wiped */
	cut_buffers(&got, n, iov);
	memset(got.p, '?', got.n);
	ok = send_all(k->c, req->p, req->n) && recv_buffers(k->s, iov, n, req->n, false);
	EXPECT(!ok || memcmp(got.p, req->p, got.n) == 0, "readv got something else");
	text_free(&got);
	got = text("%s", resp->p);
	cut_buffers(&got, n, iov);
	ok = ok && send_all(k->s, resp->p, resp->n) && recv_buffers(k->c, iov, n, resp->n, true);
	text_free(&got);
	return ok;
}

/* readv and recvmsg with 1 to 64 buffers. */
static void check_readv(void)
{
	struct text req[SEGMENTS_SEEN], resp[SEGMENTS_SEEN];
	struct conn k;
	int n = 0;
	bool ok = true;

	if (!conn_open(&k, V4))
		return;
	for (; ok && n < SEGMENTS_SEEN; n++) {
		char path[32];

		snprintf(path, sizeof(path), "/readv/%d", n + 1);
		req[n] = request("POST", path, 300, (uint32_t)n);
		resp[n] = response(200, 400, (uint32_t)n + 500);
		ok = exchange_buffers(&k, n + 1, &req[n], &resp[n]);
	}
	ok = ok && exchange_plain(&k, "/after");
	conn_close(&k);
	if (ok && gather(&k, n + 1, n + 1, &seen)) {
		for (int i = 0; i < n; i++) {
			char path[32], answers[48];

			snprintf(path, sizeof(path), "/readv/%d", i + 1);
			snprintf(answers, sizeof(answers), "POST %s", path);
			compare_all(&k, &seen, i,
				&(struct want){.method = "POST",
					.path = path,
					.body = body_of(&req[i]),
					.n = 300},
				&(struct want){.status = 200,
					.body = body_of(&resp[i]),
					.n = 400,
					.answers = answers});
		}
		compare_plain(&k, &seen, n, "/after");
	}
	while (n--) {
		text_free(&req[n]);
		text_free(&resp[n]);
	}
}

/*
 * Beyond 64 buffers of a receive call. After the call its first buffer cannot be found again, so
 * the message may be missing at the reader's end; then its bytes are counted. What follows on the
 * connection is there.
 */
static void check_readv_beyond(void)
{
	struct text req = request("POST", "/beyond", 300, 1), resp = response(200, 400, 2);
	double before = metric_now("ebpfdump_kernel_skipped_bytes_total", "reason=\"segments\"") +
			metric_now("ebpfdump_kernel_skipped_bytes_total", "reason=\"unreadable\"");
	struct conn k;
	bool ok;

	if (!conn_open(&k, V4))
		return;
	ok = exchange_buffers(&k, SEGMENTS_MAX, &req, &resp) && exchange_plain(&k, "/after");
	conn_close(&k);
	if (ok)
		gather_any(&k, &seen);
	for (int v = 0; ok && v < VIEWS; v++) {
		bool at_reader = v == REQ_IN || v == RESP_IN;
		const char *path;

		EXPECT(seen.n[v] == 2 || (seen.n[v] == 1 && at_reader && !by_packets()),
			"%s: %d messages instead of 2", view_name(v), seen.n[v]);
		if (!seen.n[v])
			continue;
		path = key_string(seen.m[v][seen.n[v] - 1], "path");
		EXPECT((v != REQ_OUT && v != REQ_IN) || (path && strcmp(path, "/after") == 0),
			"%s: the last is %s", view_name(v), path ? path : "nothing");
	}
	before = metric_now("ebpfdump_kernel_skipped_bytes_total", "reason=\"segments\"") +
		 metric_now("ebpfdump_kernel_skipped_bytes_total", "reason=\"unreadable\"") -
		 before;
	EXPECT(!ok || by_packets() || before > 0, "what was not captured is not counted");
	text_free(&req);
	text_free(&resp);
}

/* ---- sizes ---- */

/* 64 KiB of headers, in one send and in many. */
static void check_large_head(void)
{
	struct text req = text("GET /head HTTP/1.1" CRLF "Host: check" CRLF);
	struct conn k;
	bool ok;

	for (int i = 0; i < 60; i++) {
		char value[1024];
		struct text field;

		fill(value, sizeof(value), (uint32_t)i);
		for (size_t at = 0; at < sizeof(value); at++)
			value[at] = value[at] == '\n' ? '.' : value[at];
		field = text("X-%d: %.1000s" CRLF, i, value);
		text_add(&req, field.p, field.n);
		text_free(&field);
	}
	text_add(&req, CRLF, 2);
	if (!conn_open(&k, V4))
		return;
	ok = true;
	for (size_t at = 0; ok && at < req.n; at += 4000)
		ok = send_all(k.c, req.p + at, MIN(4000, req.n - at)) &&
		     recv_same(k.s, req.p + at, MIN(4000, req.n - at));
	ok = ok && exchange_plain(&k, "/after");
	conn_close(&k);
	text_free(&req);
	if (!ok || !gather(&k, 2, 1, &seen))
		return;
	for (int v = REQ_OUT; v <= REQ_IN; v++) {
		const char *path = key_string(seen.m[v][0], "path");

		EXPECT(path && strcmp(path, "/head") == 0, "%s: path is %s", view_name(v), path);
		EXPECT(header(seen.m[v][0], "X-0") && header(seen.m[v][0], "X-59"),
			"%s: headers are missing", view_name(v));
	}
}

/* 10 MiB up and down, the bytes counted exactly. */
static void check_large_bodies(void)
{
	size_t n = 10 << 20;
	struct text req = request("PUT", "/large", n, 1), resp = response(200, n, 2);
	struct pump out, in;
	struct conn k;
	bool ok;

	if (!conn_open(&k, V4))
		return;
	/* one call */
	pump_send(&out, k.c, req.p, req.n);
	pump_recv_same(&in, k.s, req.p, req.n);
	pump_join(&out);
	pump_join(&in);
	/* calls of 64 KiB */
	pump_recv_same(&in, k.c, resp.p, resp.n);
	ok = true;
	for (size_t at = 0; ok && at < resp.n; at += 65536)
		ok = send_all(k.s, resp.p + at, MIN(65536, resp.n - at));
	pump_join(&in);
	ok = ok && exchange_plain(&k, "/after");
	conn_close(&k);
	if (ok && gather(&k, 2, 2, &seen)) {
		compare_all(&k, &seen, 0,
			&(struct want){.method = "PUT",
				.path = "/large",
				.body = body_of(&req),
				.n = n,
				.any_gap = true},
			&(struct want){.status = 200,
				.body = body_of(&resp),
				.n = n,
				.any_gap = true,
				.answers = "PUT /large"});
		for (int v = 0; v < VIEWS; v++) {
			struct json_object *m = seen.m[v][0];
			const struct text *t = v == REQ_OUT || v == REQ_IN ? &req : &resp;

			/* the first bytes are the first call's, which no limit cuts so early */
			EXPECT(json_object_get_string_len(key(m, "body")) == BODY_BYTES &&
					memcmp(json_object_get_string(key(m, "body")), body_of(t),
						BODY_BYTES) == 0,
				"%s: the body does not begin as it was sent", view_name(v));
			EXPECT(json_object_get_boolean(key(m, "body_truncated")),
				"%s: body_truncated is not true", view_name(v));
		}
		compare_plain(&k, &seen, 1, "/after");
	}
	text_free(&req);
	text_free(&resp);
}

/* ---- what has no memory to read ---- */

static int file_of(const void *p, size_t n)
{
	int fd = memfd_create("body", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, (off_t)n) || pwrite(fd, p, n, 0) != (ssize_t)n) {
		check_fail("memfd: %s", strerror(errno));
		close_fd(&fd);
	}
	return fd;
}

/* The sender's end of a body by sendfile or splice: by its length only. */
static void compare_pages(const struct conn *k, const struct text *resp, size_t n)
{
	struct want want = {.status = 200, .body = body_of(resp), .n = n, .answers = "GET /pages"};

	if (!gather(k, 2, 2, &seen))
		return;
	want.gap[RESP_OUT] = n;
	compare_all(
		k, &seen, 0, &(struct want){.method = "GET", .path = "/pages", .body = ""}, &want);
	compare_plain(k, &seen, 1, "/after");
}

static bool pages_begin(struct conn *k, const struct text *resp)
{
	struct text req = request("GET", "/pages", 0, 0);
	bool ok = conn_open(k, V4) && send_all(k->c, req.p, req.n) &&
		  recv_same(k->s, req.p, req.n) &&
		  send(k->s, resp->p, (size_t)(body_of(resp) - resp->p), MSG_MORE) > 0;

	text_free(&req);
	return ok;
}

static void check_sendfile(void)
{
	static const size_t sizes[] = {1, 1000, 3000};

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		size_t n = sizes[i];
		struct text resp = response(200, n, 5);
		int file = file_of(body_of(&resp), n);
		off_t at = 0;
		struct conn k = {.c = -1, .s = -1};
		bool ok = file >= 0 && pages_begin(&k, &resp);

		while (ok && (size_t)at < n)
			ok = sendfile(k.s, file, &at, n - (size_t)at) > 0;
		EXPECT(ok, "sendfile: %s", strerror(errno));
		ok = ok && recv_same(k.c, resp.p, resp.n) && exchange_plain(&k, "/after");
		conn_close(&k);
		close_fd(&file);
		if (ok)
			compare_pages(&k, &resp, n);
		text_free(&resp);
	}
}

/* The body is what sendfile sends last: the message is complete without anything after it but the
 * end of the connection. */
static void check_sendfile_last(void)
{
	size_t n = 100000;
	struct text resp = response(200, n, 6);
	int file = file_of(body_of(&resp), n);
	struct want want = {.status = 200, .body = body_of(&resp), .n = n, .answers = "GET /pages"};
	struct pump in;
	struct conn k = {.c = -1, .s = -1};
	off_t at = 0;
	bool ok = file >= 0 && pages_begin(&k, &resp);

	if (ok)
		pump_recv_same(&in, k.c, resp.p, resp.n);
	while (ok && (size_t)at < n && sendfile(k.s, file, &at, n - (size_t)at) > 0)
		;
	if (ok)
		pump_join(&in);
	EXPECT((size_t)at == n, "sendfile: %s", strerror(errno));
	conn_close(&k);
	close_fd(&file);
	if (ok && gather(&k, 1, 1, &seen)) {
		want.gap[RESP_OUT] = n;
		want.any_gap = false;
		compare(&k, RESP_OUT, seen.m[RESP_OUT][0], &want);
		want.any_gap = true;
		compare(&k, RESP_IN, seen.m[RESP_IN][0], &want);
	}
	text_free(&resp);
}

/* splice into the socket. */
static void check_splice_out(void)
{
	size_t n = 3000, at = 0;
	struct text resp = response(200, n, 7);
	int file = file_of(body_of(&resp), n), pipes[2] = {-1, -1};
	struct conn k = {.c = -1, .s = -1};
	bool ok = file >= 0 && pipe(pipes) == 0 && pages_begin(&k, &resp);

	ok = ok && splice(file, NULL, pipes[1], NULL, n, 0) == (ssize_t)n;
	while (ok && at < n) {
		ssize_t done = splice(pipes[0], NULL, k.s, NULL, n - at, 0);

		ok = done > 0;
		at += ok ? (size_t)done : 0;
	}
	EXPECT(ok, "splice: %s", strerror(errno));
	ok = ok && recv_same(k.c, resp.p, resp.n) && exchange_plain(&k, "/after");
	conn_close(&k);
	close_fd(&file);
	close_fd(&pipes[0]);
	close_fd(&pipes[1]);
	if (ok)
		compare_pages(&k, &resp, n);
	text_free(&resp);
}

/* Discards n bytes of the socket in some way that no process reads. */
static bool discard_trunc(int fd, size_t n)
{
	while (n) {
		ssize_t done = recv(fd, NULL, n, MSG_TRUNC);

		if (done <= 0)
			return false;
		n -= (size_t)done;
	}
	return true;
}

static bool discard_splice(int fd, size_t n)
{
	int pipes[2];
	bool ok = pipe(pipes) == 0;
	char buf[8192];

	while (ok && n) {
		ssize_t done = splice(fd, NULL, pipes[1], NULL, MIN(n, sizeof(buf)), 0);

		ok = done > 0 && read(pipes[0], buf, sizeof(buf)) == done;
		n -= ok ? (size_t)done : 0;
	}
	close_fd(&pipes[0]);
	close_fd(&pipes[1]);
	return ok;
}

/* A body whose reader never has it in its memory: its length is there, and the stream in step. */
static void check_discarded(bool (*discard)(int fd, size_t n))
{
	size_t n = 3000;
	struct text req = request("PUT", "/discard", n, 8), resp = response(200, n, 9);
	struct want wreq = {.method = "PUT", .path = "/discard", .body = body_of(&req), .n = n};
	struct want wresp = {
		.status = 200, .body = body_of(&resp), .n = n, .answers = "PUT /discard"};
	size_t req_head = req.n - n, resp_head = resp.n - n;
	struct conn k;
	bool ok;

	if (!conn_open(&k, V4))
		return;
	ok = send_all(k.c, req.p, req.n) && recv_same(k.s, req.p, req_head) && discard(k.s, n) &&
	     send_all(k.s, resp.p, resp.n) && recv_same(k.c, resp.p, resp_head) && discard(k.c, n);
	EXPECT(ok, "the bytes could not be discarded: %s", strerror(errno));
	ok = ok && exchange_plain(&k, "/after");
	conn_close(&k);
	if (ok && gather(&k, 2, 2, &seen)) {
		wreq.gap[REQ_IN] = wresp.gap[RESP_IN] = by_packets() ? 0 : n;
		compare_all(&k, &seen, 0, &wreq, &wresp);
		compare_plain(&k, &seen, 1, "/after");
	}
	text_free(&req);
	text_free(&resp);
}

static void check_msg_trunc(void)
{
	check_discarded(discard_trunc);
}

static void check_splice_in(void)
{
	check_discarded(discard_splice);
}

/* ---- odd ways to read ---- */

static void check_peek(void)
{
	struct text req = request("POST", "/peek", 100, 1), resp = response(200, 100, 2);
	struct conn k;
	char buf[4096];
	bool ok;

	if (!conn_open(&k, V4))
		return;
	ok = send_all(k.c, req.p, req.n) && recv(k.s, buf, 1, MSG_PEEK) == 1 &&
	     recv(k.s, buf, 10, MSG_PEEK) == 10 && recv(k.s, buf, req.n, MSG_PEEK) > 10 &&
	     recv_same(k.s, req.p, 20) && recv(k.s, buf, 7, MSG_PEEK) == 7 &&
	     recv(k.s, buf, 7, MSG_PEEK | MSG_TRUNC) >= 0 && recv_same(k.s, req.p + 20, req.n - 20);
	ok = ok && send_all(k.s, resp.p, resp.n) && recv(k.c, buf, resp.n, MSG_PEEK) > 0 &&
	     recv_same(k.c, resp.p, resp.n) && exchange_plain(&k, "/after");
	EXPECT(ok, "peeking: %s", strerror(errno));
	conn_close(&k);
	if (ok && gather(&k, 2, 2, &seen)) {
		compare_all(&k, &seen, 0,
			&(struct want){
				.method = "POST", .path = "/peek", .body = body_of(&req), .n = 100},
			&(struct want){.status = 200,
				.body = body_of(&resp),
				.n = 100,
				.answers = "POST /peek"});
		compare_plain(&k, &seen, 1, "/after");
	}
	text_free(&req);
	text_free(&resp);
}

static void check_tiny_reads(void)
{
	struct text req = request("POST", "/tiny", 50, 1), resp = response(200, 50, 2);
	struct conn k;
	bool ok = true;

	if (!conn_open(&k, V4))
		return;
	for (int round = 0; ok && round < 2; round++) {
		ok = send_all(k.c, req.p, req.n);
		for (size_t i = 0; ok && i < req.n; i++)
			ok = recv_same(k.s, req.p + i, 1);
		ok = ok && send_all(k.s, resp.p, resp.n);
		for (size_t i = 0; ok && i < resp.n; i++)
			ok = recv_same(k.c, resp.p + i, 1);
	}
	conn_close(&k);
	if (ok && gather(&k, 2, 2, &seen)) {
		for (int i = 0; i < 2; i++)
			compare_all(&k, &seen, i,
				&(struct want){.method = "POST",
					.path = "/tiny",
					.body = body_of(&req),
					.n = 50},
				&(struct want){.status = 200,
					.body = body_of(&resp),
					.n = 50,
					.answers = "POST /tiny"});
	}
	text_free(&req);
	text_free(&resp);
}

/* A reader that waits for the whole in one call, while it comes in many. */
static void check_waitall(void)
{
	struct text req = request("POST", "/waitall", 2000, 1), resp = response(200, 2000, 2);
	struct conn k;
	char buf[4096];
	bool ok = true;

	if (!conn_open(&k, V4))
		return;
	for (int dir = 0; ok && dir < 2; dir++) {
		const struct text *t = dir ? &resp : &req;
		int from = dir ? k.s : k.c, to = dir ? k.c : k.s;
		struct pump out[4];
		size_t part = t->n / 4;

		pump_send(&out[0], from, t->p, part);
		for (int i = 1; i < 4; i++) {
			pump_join(&out[i - 1]);
			/* So that the reader below sleeps inside its call for the last parts. */
			if (i == 2)
				ok = ok && recv(to, buf, part, MSG_WAITALL) == (ssize_t)part;
			pump_send(&out[i], from, t->p + (size_t)i * part,
				i == 3 ? t->n - 3 * part : part);
		}
		ok = ok && recv(to, buf, t->n - part, MSG_WAITALL) == (ssize_t)(t->n - part);
		pump_join(&out[3]);
	}
	EXPECT(ok, "recv(MSG_WAITALL): %s", strerror(errno));
	ok = ok && exchange_plain(&k, "/after");
	conn_close(&k);
	if (ok && gather(&k, 2, 2, &seen)) {
		compare_all(&k, &seen, 0,
			&(struct want){.method = "POST",
				.path = "/waitall",
				.body = body_of(&req),
				.n = 2000},
			&(struct want){.status = 200,
				.body = body_of(&resp),
				.n = 2000,
				.answers = "POST /waitall"});
		compare_plain(&k, &seen, 1, "/after");
	}
	text_free(&req);
	text_free(&resp);
}

/* ---- odd ways to send ---- */

/* A request and its response in two sends and two reads each, cut at every place of the first
 * line. */
static void check_split(void)
{
	struct text req = request("DELETE", "/s", 3, 1), resp = response(200, 3, 2);

	for (size_t cut = 1; cut <= 26; cut++) {
		size_t back = MIN(cut, resp.n - 1);
		struct conn k;
		bool ok;

		if (!conn_open(&k, V4))
			return;
		ok = send_all(k.c, req.p, cut) && recv_same(k.s, req.p, cut) &&
		     send_all(k.c, req.p + cut, req.n - cut) &&
		     recv_same(k.s, req.p + cut, req.n - cut) && send_all(k.s, resp.p, back) &&
		     recv_same(k.c, resp.p, back) && send_all(k.s, resp.p + back, resp.n - back) &&
		     recv_same(k.c, resp.p + back, resp.n - back);
		conn_close(&k);
		if (ok && gather(&k, 1, 1, &seen))
			compare_all(&k, &seen, 0,
				&(struct want){.method = "DELETE",
					.path = "/s",
					.body = body_of(&req),
					.n = 3},
				&(struct want){.status = 200,
					.body = body_of(&resp),
					.n = 3,
					.answers = "DELETE /s"});
	}
	text_free(&req);
	text_free(&resp);
}

/* A send for every byte. */
static void check_tiny_sends(void)
{
	struct text req = request("POST", "/drip", 40, 1), resp = response(200, 40, 2);
	struct conn k;
	bool ok = true;

	if (!conn_open(&k, V4))
		return;
	for (size_t i = 0; ok && i < req.n; i++)
		ok = send_all(k.c, req.p + i, 1);
	ok = ok && recv_same(k.s, req.p, req.n);
	for (size_t i = 0; ok && i < resp.n; i++)
		ok = send_all(k.s, resp.p + i, 1) && recv_same(k.c, resp.p + i, 1);
	conn_close(&k);
	if (ok && gather(&k, 1, 1, &seen))
		compare_all(&k, &seen, 0,
			&(struct want){
				.method = "POST", .path = "/drip", .body = body_of(&req), .n = 40},
			&(struct want){.status = 200,
				.body = body_of(&resp),
				.n = 40,
				.answers = "POST /drip"});
	text_free(&req);
	text_free(&resp);
}

static void check_empty_calls(void)
{
	struct text req = request("POST", "/empty", 9, 1), resp = response(200, 9, 2);
	struct iovec none[2] = {};
	struct msghdr msg = {.msg_iov = none, .msg_iovlen = 2};
	struct conn k;
	char byte;
	bool ok;

	if (!conn_open(&k, V4))
		return;
	ok = send(k.c, "", 0, 0) == 0 && send_all(k.c, req.p, 20) && send(k.c, "", 0, 0) == 0 &&
	     sendmsg(k.c, &msg, 0) == 0 && send_all(k.c, req.p + 20, req.n - 20) &&
	     recv(k.s, &byte, 0, 0) == 0 && recv_same(k.s, req.p, 10) &&
	     recv(k.s, &byte, 0, MSG_DONTWAIT) == 0 && recv_same(k.s, req.p + 10, req.n - 10);
	EXPECT(recv(k.s, &byte, 1, MSG_DONTWAIT) == -1, "there is more to read");
	ok = ok && send_all(k.s, resp.p, resp.n) && recv_same(k.c, resp.p, resp.n) &&
	     exchange_plain(&k, "/after");
	EXPECT(ok, "empty calls: %s", strerror(errno));
	conn_close(&k);
	if (ok && gather(&k, 2, 2, &seen)) {
		compare_all(&k, &seen, 0,
			&(struct want){
				.method = "POST", .path = "/empty", .body = body_of(&req), .n = 9},
			&(struct want){.status = 200,
				.body = body_of(&resp),
				.n = 9,
				.answers = "POST /empty"});
		compare_plain(&k, &seen, 1, "/after");
	}
	text_free(&req);
	text_free(&resp);
}

/* What was offered and never accepted is not a message: EPIPE, EFAULT, ECONNRESET. */
static void check_failed_sends(void)
{
	static const char never[] = "GET /never HTTP/1.1" CRLF CRLF;
	struct linger hard = {.l_onoff = 1};
	struct conn k;
	char *hole = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	bool ok;

	/* after shutdown */
	if (!conn_open(&k, V4))
		return;
	ok = exchange_plain(&k, "/before") && shutdown(k.c, SHUT_WR) == 0;
	EXPECT(send(k.c, never, sizeof(never) - 1, MSG_NOSIGNAL) < 0 && errno == EPIPE,
		"a send after shutdown: %s", strerror(errno));
	conn_close(&k);
	if (ok && gather(&k, 1, 1, &seen))
		compare_plain(&k, &seen, 0, "/before");

	/* after a reset */
	if (!conn_open(&k, V4))
		return;
	ok = exchange_plain(&k, "/before");
	setsockopt(k.s, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
	close_fd(&k.s);
	EXPECT(send(k.c, never, sizeof(never) - 1, MSG_NOSIGNAL) < 0, "a send after a reset");
	EXPECT(send(k.c, never, sizeof(never) - 1, MSG_NOSIGNAL) < 0, "a send after a reset");
	conn_close(&k);
	if (ok && gather(&k, 1, 1, &seen))
		compare_plain(&k, &seen, 0, "/before");

	/* memory that is not there; then the same place of the stream with something else */
	munmap(hole, 8192);
	if (!conn_open(&k, V4))
		return;
	ok = exchange_plain(&k, "/before");
	EXPECT(send(k.c, hole, 100, MSG_NOSIGNAL) < 0 && errno == EFAULT, "a send of no memory");
	ok = ok && exchange_plain(&k, "/after");
	conn_close(&k);
	if (ok && gather(&k, 2, 2, &seen)) {
		compare_plain(&k, &seen, 0, "/before");
		compare_plain(&k, &seen, 1, "/after");
	}
}

/*
 * A hook at the entry of tcp_sendmsg cannot know what the socket will accept. Where a process
 * offers something else after a refusal, the sender's end shows what was offered as well
 * (docs/ARCHITECTURE.md); what was sent last is right again. The receiver's end is exact. Returns
 * false where that holds for this run, after having compared it.
 */
static bool knows_accepted(const struct conn *k, int requests)
{
	if (loader()->egress == HOOK_TRACEPOINT)
		return true;
	gather_any(k, &seen);
	EXPECT(seen.n[REQ_IN] == requests, "%d requests received instead of %d", seen.n[REQ_IN],
		requests);
	EXPECT(seen.n[REQ_OUT] >= requests, "%d requests sent instead of %d or more",
		seen.n[REQ_OUT], requests);
	for (int v = REQ_OUT; v <= REQ_IN; v++)
		if (seen.n[v] > 0)
			compare(k, (enum view)v, seen.m[v][seen.n[v] - 1],
				&(struct want){.method = "GET", .path = "/after", .body = ""});
	return false;
}

/*
 * Sends until the socket takes no more; returns the bytes. What was sent may still move on to the
 * receiver's buffer and make room, so a refusal counts once it lasts.
 */
static size_t send_until_full(int fd, const struct text *t)
{
	size_t sent = 0;

	for (int refused = 0; sent < t->n && refused < 3;) {
		ssize_t done = send(fd, t->p + sent, t->n - sent, MSG_NOSIGNAL);

		if (done > 0) {
			sent += (size_t)done;
			refused = 0;
			continue;
		}
		if (errno != EAGAIN) {
			check_fail("send: %s", strerror(errno));
			break;
		}
		refused++;
		sleep_ms(50);
	}
	EXPECT(sent < t->n, "%zu bytes fit into a socket", sent);
	return sent;
}

/*
 * The buffer is full, so a request is refused with EAGAIN; then something else is sent in its
 * place. What was refused never was on the wire.
 */
static void check_refused_send(void)
{
	static const char never[] = "GET /never-sent HTTP/1.1" CRLF "X: 0123456789" CRLF CRLF;
	size_t n = 8 << 20, at;
	struct text req = request("PUT", "/fill", n, 3), resp = response(200, 5, 4);
	struct pump in;
	struct conn k;
	bool ok;

	if (!conn_open(&k, V4))
		return;
	fcntl(k.c, F_SETFL, O_NONBLOCK);
	at = send_until_full(k.c, &req);
	/* The body has as many bytes as were accepted and as the rest that follows. */
	EXPECT(send(k.c, never, sizeof(never) - 1, MSG_NOSIGNAL) < 0 && errno == EAGAIN,
		"the send was not refused");
	fcntl(k.c, F_SETFL, 0);
	pump_recv_same(&in, k.s, req.p, req.n);
	ok = send_all(k.c, req.p + at, req.n - at);
	pump_join(&in);
	ok = ok && send_all(k.s, resp.p, resp.n) && recv_same(k.c, resp.p, resp.n) &&
	     exchange_plain(&k, "/after");
	conn_close(&k);
	if (ok && knows_accepted(&k, 2) && gather(&k, 2, 2, &seen)) {
		compare_all(&k, &seen, 0,
			&(struct want){.method = "PUT",
				.path = "/fill",
				.body = body_of(&req),
				.n = n,
				.any_gap = true},
			&(struct want){.status = 200,
				.body = body_of(&resp),
				.n = 5,
				.answers = "PUT /fill"});
		compare_plain(&k, &seen, 1, "/after");
	}
	text_free(&req);
	text_free(&resp);
}

/*
 * Opens a connection and sends `one` until it is refused as a whole, then `never`, which is refused
 * as well. False if what was sent moved on meanwhile, and made room.
 */
static bool refuse_request(
	struct conn *k, const struct text *one, const struct text *never, int *ret_count)
{
	int small = 1;
	ssize_t done = (ssize_t)one->n;

	if (!conn_open(k, V4))
		return false;
	setsockopt(k->c, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	setsockopt(k->s, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	fcntl(k->c, F_SETFL, O_NONBLOCK);
	*ret_count = -1;
	for (; done == (ssize_t)one->n; ++*ret_count)
		done = send(k->c, one->p, one->n, MSG_NOSIGNAL);
	return done < 0 && errno == EAGAIN && send(k->c, never->p, never->n, MSG_NOSIGNAL) < 0 &&
	       errno == EAGAIN;
}

/* The same between two messages: the refused one is a whole request, another one takes its place.
 */
static void check_refused_request(void)
{
	struct text one = request("GET", "/filler", 0, 0),
		    never = request("GET", "/never-sent", 0, 0);
	int count = 0, tries = 0;
	struct conn k;
	bool ok;

	while (!(ok = refuse_request(&k, &one, &never, &count)) && ++tries < 20)
		conn_close(&k);
	EXPECT(ok, "no request was refused");
	for (int i = 0; ok && i < count; i++)
		ok = recv_same(k.s, one.p, one.n);
	fcntl(k.c, F_SETFL, 0);
	ok = ok && exchange_plain(&k, "/after");
	conn_close(&k);
	text_free(&one);
	text_free(&never);
	if (!ok)
		return;
	EXPECT(count + 1 < (int)ARRAY_SIZE(seen.m[0]), "%d requests fit", count);
	if (!knows_accepted(&k, count + 1) || !gather(&k, count + 1, 1, &seen))
		return;
	for (int i = 0; i <= count; i++)
		compare_all(&k, &seen, i,
			&(struct want){.method = "GET",
				.path = i < count ? "/filler" : "/after",
				.body = ""},
			NULL);
}

/* Non-blocking sends that take a part, and EAGAIN between them. */
static void check_partial_sends(void)
{
	size_t n = 1 << 20, at = 0;
	struct text req = request("PUT", "/partial", n, 3), resp = response(200, 5, 4);
	int small = 4096, partial = 0;
	struct pump in;
	struct conn k;
	bool ok = true, reading = false;

	if (!conn_open(&k, V4))
		return;
	setsockopt(k.c, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	fcntl(k.c, F_SETFL, O_NONBLOCK);
	while (ok && at < req.n) {
		ssize_t done = send(k.c, req.p + at, req.n - at, MSG_NOSIGNAL);

		if (done < 0 && errno == EAGAIN) {
			struct pollfd p = {.fd = k.c, .events = POLLOUT};

			if (!reading)
				pump_recv_same(&in, k.s, req.p, req.n);
			reading = true;
			ok = poll(&p, 1, WAIT_MS) == 1;
			continue;
		}
		ok = done > 0;
		partial += ok && (size_t)done < req.n - at;
		at += ok ? (size_t)done : 0;
	}
	if (reading)
		pump_join(&in);
	EXPECT(ok && reading && partial, "no send was accepted in part");
	fcntl(k.c, F_SETFL, 0);
	ok = ok && send_all(k.s, resp.p, resp.n) && recv_same(k.c, resp.p, resp.n) &&
	     exchange_plain(&k, "/after");
	conn_close(&k);
	if (ok && gather(&k, 2, 2, &seen)) {
		compare_all(&k, &seen, 0,
			&(struct want){.method = "PUT",
				.path = "/partial",
				.body = body_of(&req),
				.n = n,
				.any_gap = true},
			&(struct want){.status = 200,
				.body = body_of(&resp),
				.n = 5,
				.answers = "PUT /partial"});
		compare_plain(&k, &seen, 1, "/after");
	}
	text_free(&req);
	text_free(&resp);
}

/* ---- io_uring ---- */

struct uring {
	int fd;
	uint32_t *sq_tail, *sq_mask, *sq_array, *cq_head, *cq_tail, *cq_mask;
	struct io_uring_sqe *sqes;
	struct io_uring_cqe *cqes;
	void *maps[3];
	size_t sizes[3];
};

static void uring_close(struct uring *u)
{
	for (int i = 0; i < 3; i++) {
		if (u->maps[i])
			munmap(u->maps[i], u->sizes[i]);
	}
	close_fd(&u->fd);
}

static bool uring_open(struct uring *u)
{
	struct io_uring_params p = {};
	static const off_t offsets[3] = {IORING_OFF_SQ_RING, IORING_OFF_CQ_RING, IORING_OFF_SQES};

	*u = (struct uring){};
	u->fd = (int)syscall(__NR_io_uring_setup, 8, &p);
	if (u->fd < 0)
		return false;
	u->sizes[0] = p.sq_off.array + p.sq_entries * sizeof(uint32_t);
	u->sizes[1] = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
	u->sizes[2] = p.sq_entries * sizeof(struct io_uring_sqe);
	for (int i = 0; i < 3; i++) {
		void *m = mmap(NULL, u->sizes[i], PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
			u->fd, offsets[i]);

		if (m == MAP_FAILED) {
			uring_close(u);
			return false;
		}
		u->maps[i] = m;
	}
	u->sq_tail = (uint32_t *)((char *)u->maps[0] + p.sq_off.tail);
	u->sq_mask = (uint32_t *)((char *)u->maps[0] + p.sq_off.ring_mask);
	u->sq_array = (uint32_t *)((char *)u->maps[0] + p.sq_off.array);
	u->cq_head = (uint32_t *)((char *)u->maps[1] + p.cq_off.head);
	u->cq_tail = (uint32_t *)((char *)u->maps[1] + p.cq_off.tail);
	u->cq_mask = (uint32_t *)((char *)u->maps[1] + p.cq_off.ring_mask);
	u->cqes = (struct io_uring_cqe *)((char *)u->maps[1] + p.cq_off.cqes);
	u->sqes = u->maps[2];
	return true;
}

/* One operation, waited for; its result. */
static int uring_do(struct uring *u, int op, int fd, void *p, size_t n)
{
	uint32_t tail = *u->sq_tail, i = tail & *u->sq_mask, head;
	int result;

	u->sqes[i] = (struct io_uring_sqe){.opcode = (uint8_t)op,
		.fd = fd,
		.addr = (uintptr_t)p,
		.len = (uint32_t)n,
		.msg_flags = op == IORING_OP_SEND ? MSG_NOSIGNAL : 0};
	u->sq_array[i] = i;
	__atomic_store_n(u->sq_tail, tail + 1, __ATOMIC_RELEASE);
	if (syscall(__NR_io_uring_enter, u->fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0)
		return -errno;
	head = *u->cq_head;
	if (head == __atomic_load_n(u->cq_tail, __ATOMIC_ACQUIRE))
		return -EAGAIN;
	result = u->cqes[head & *u->cq_mask].res;
	__atomic_store_n(u->cq_head, head + 1, __ATOMIC_RELEASE);
	return result;
}

static bool uring_recv(struct uring *u, int fd, const struct text *t)
{
	char *buf = malloc(t->n);
	size_t at = 0;
	int done = 1;

	while (buf && at < t->n && done > 0) {
		done = uring_do(u, IORING_OP_RECV, fd, buf + at, t->n - at);
		at += done > 0 ? (size_t)done : 0;
	}
	EXPECT(done > 0 && memcmp(buf, t->p, t->n) == 0, "io_uring recv: %d", done);
	free(buf);
	return done > 0;
}

static void check_io_uring(void)
{
	struct text req, resp;
	struct conn k;
	struct uring u;
	bool ok;

	if (!uring_open(&u)) {
		check_skip("io_uring_setup: %s", strerror(errno));
		return;
	}
	req = request("POST", "/uring", 1500, 1);
	resp = response(200, 2500, 2);
	ok = conn_open(&k, V4);
	/* A kernel may let a worker of its own make the call: whose process it is is not certain.
	 */
	k.client.pid = k.server.pid = 0;
	for (int i = 0; ok && i < 2; i++) {
		int done = uring_do(&u, IORING_OP_SEND, k.c, req.p, req.n);

		EXPECT(done == (int)req.n, "io_uring send: %d", done);
		ok = done == (int)req.n && uring_recv(&u, k.s, &req) &&
		     uring_do(&u, IORING_OP_SEND, k.s, resp.p, resp.n) == (int)resp.n &&
		     uring_recv(&u, k.c, &resp);
	}
	uring_close(&u);
	conn_close(&k);
	if (ok && gather(&k, 2, 2, &seen)) {
		for (int i = 0; i < 2; i++)
			compare_all(&k, &seen, i,
				&(struct want){.method = "POST",
					.path = "/uring",
					.body = body_of(&req),
					.n = 1500},
				&(struct want){.status = 200,
					.body = body_of(&resp),
					.n = 2500,
					.answers = "POST /uring"});
	}
	text_free(&req);
	text_free(&resp);
}

/* ---- TCP Fast Open ---- */

static bool write_file(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool ok = fd >= 0 && write(fd, value, strlen(value)) == (ssize_t)strlen(value);

	close_fd(&fd);
	return ok;
}

/* Connects with the request in the SYN; false if it did not travel so. */
static bool fast_open(struct conn *k, const struct text *req)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr_in from = to;
	struct tcp_info info = {};
	socklen_t len = sizeof(info);
	int queue = 16, one = 1, listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ssize_t sent = -1;

	to.sin_port = htons(k->server_port);
	from.sin_port = htons(k->client_port);
	k->c = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(listening, (struct sockaddr *)&to, sizeof(to)) == 0 &&
		setsockopt(listening, IPPROTO_TCP, TCP_FASTOPEN, &queue, sizeof(queue)) == 0 &&
		listen(listening, 16) == 0 &&
		bind(k->c, (struct sockaddr *)&from, sizeof(from)) == 0)
		sent = sendto(k->c, req->p, req->n, MSG_FASTOPEN | MSG_NOSIGNAL,
			(struct sockaddr *)&to, sizeof(to));
	if (sent == (ssize_t)req->n)
		k->s = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
	EXPECT(k->s >= 0, "fast open: %s", strerror(errno));
	close_fd(&listening);
	return getsockopt(k->c, IPPROTO_TCP, TCP_INFO, &info, &len) == 0 &&
	       info.tcpi_options & TCPI_OPT_SYN_DATA;
}

/*
 * The request is in the SYN. The sender's socket has no addresses yet when the call is made, and
 * the receiver's is none yet when the packet comes: such an end may leave the message out, if it
 * counts the bytes. A call that reads sees it as any other. What follows is as always.
 */
static void check_fast_open(void)
{
	struct text req = request("POST", "/tfo", 20, 1), resp = response(200, 20, 2);
	struct conn k = {.c = -1,
		.s = -1,
		.net = V4,
		.server_port = 8082,
		.client_port = 33001,
		.client = {getpid(), "kernel-checks"},
		.server = {getpid(), "kernel-checks"}};
	double before = metric_now("ebpfdump_kernel_skipped_bytes_total", "reason=\"unreadable\"");
	size_t left_out = 0;
	bool ok;

	/* 0x3: client and server, 0x204: both without a cookie */
	if (!write_file("/proc/sys/net/ipv4/tcp_fastopen", "519")) {
		check_skip("net.ipv4.tcp_fastopen cannot be set");
		return;
	}
	if (!fast_open(&k, &req))
		check_skip("the data did not travel in the SYN");
	ok = k.s >= 0 && recv_same(k.s, req.p, req.n) && send_all(k.s, resp.p, resp.n) &&
	     recv_same(k.c, resp.p, resp.n) && exchange_plain(&k, "/after");
	conn_close(&k);
	if (ok)
		gather_any(&k, &seen);
	for (int v = 0; ok && v < VIEWS; v++) {
		struct want first = {.status = 200, .body = body_of(&resp), .n = 20};
		struct want last = {.status = 200, .answers = "GET /after"};
		bool may_lack = v == REQ_OUT || (v == REQ_IN && by_packets());

		if (v == REQ_OUT || v == REQ_IN) {
			first = (struct want){
				.method = "POST", .path = "/tfo", .body = body_of(&req), .n = 20};
			last = (struct want){.method = "GET", .path = "/after", .body = ""};
		}
		EXPECT(seen.n[v] == 2 || (seen.n[v] == 1 && may_lack),
			"%s: %d messages instead of 2", view_name(v), seen.n[v]);
		left_out += seen.n[v] == 1 ? req.n : 0;
		if (seen.n[v] == 2)
			compare(&k, v, seen.m[v][0], &first);
		if (seen.n[v])
			compare(&k, v, seen.m[v][seen.n[v] - 1], &last);
	}
	EXPECT(!ok || metric_now("ebpfdump_kernel_skipped_bytes_total", "reason=\"unreadable\"") -
					before >=
				(double)left_out,
		"%zu bytes were left out, %.0f are counted", left_out,
		metric_now("ebpfdump_kernel_skipped_bytes_total", "reason=\"unreadable\"") -
			before);
	text_free(&req);
	text_free(&resp);
}

const struct check calls_checks[] = {
	{"writev and sendmsg, 1 to 70 buffers", check_writev},
	{"readv and recvmsg, 1 to 64 buffers", check_readv},
	{"readv and recvmsg, 70 buffers", check_readv_beyond},
	{"64 KiB of headers", check_large_head},
	{"10 MiB up and down", check_large_bodies},
	{"sendfile", check_sendfile},
	{"sendfile, last on its connection", check_sendfile_last},
	{"splice into a socket", check_splice_out},
	{"splice out of a socket", check_splice_in},
	{"MSG_TRUNC", check_msg_trunc},
	{"MSG_PEEK", check_peek},
	{"MSG_WAITALL", check_waitall},
	{"reads of one byte", check_tiny_reads},
	{"sends of one byte", check_tiny_sends},
	{"first line split at every place", check_split},
	{"empty sends and reads", check_empty_calls},
	{"failed sends", check_failed_sends},
	{"a refused send in a body", check_refused_send},
	{"a refused request", check_refused_request},
	{"partial sends", check_partial_sends},
	{"io_uring", check_io_uring},
	{"TCP Fast Open", check_fast_open},
	{},
};
