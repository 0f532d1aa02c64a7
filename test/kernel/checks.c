/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernel-checks: does the loader see what really passes through this kernel's TCP?
 *
 *   kernel-checks [--only TEXT] [--quick] [--expect HOOKS] -- build/ebpfdump-loader [FLAG...]
 *   kernel-checks --refused TEXT [--unprivileged] -- build/ebpfdump-loader [FLAG...]
 *
 * Runs the loader with the flags (and its own), makes awkward traffic with plain sockets, and
 * compares each message that the loader prints, at the sender's end and at the receiver's. The same
 * program runs on the machine's own kernel and in the virtual machines (matrix.sh). Traffic is in a
 * network namespace of its own.
 *
 *   --only TEXT      the checks whose name holds TEXT
 *   --quick          without those that start further loaders
 *   --expect HOOKS   which hooks are in use, as "kprobe+kretprobe"; anything else fails
 *   --refused TEXT   the loader must not start, and say why in one line that holds TEXT
 *   --unprivileged   as an ordinary user
 *
 * What a kind of hook cannot see is said where it is expected, never left out.
 */
#include "test/kernel/harness.h"
#include "test/kernel/netns.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define CRLF "\r\n"

static char *const *loader_argv;

/* Ingress is seen as packets: what the reader does with them does not matter. */
static bool by_packets(void)
{
	return loader()->ingress == HOOK_CGROUP_SKB;
}

/* ---- plain exchanges ---- */

/* "METHOD path" with a body of n letters (0: none, and no Content-Length). */
static struct text request(const char *method, const char *path, size_t n, uint32_t seed)
{
	struct text t = text("%s %s HTTP/1.1" CRLF "Host: check" CRLF, method, path);
	char length[64], *body;

	if (n) {
		snprintf(length, sizeof(length), "Content-Length: %zu" CRLF CRLF, n);
		text_add(&t, length, strlen(length));
		body = malloc(n);
		if (!body)
			abort();
		fill(body, n, seed);
		text_add(&t, body, n);
		free(body);
	} else {
		text_add(&t, CRLF, 2);
	}
	return t;
}

static struct text response(int status, size_t n, uint32_t seed)
{
	struct text t = text("HTTP/1.1 %d Status" CRLF "Content-Length: %zu" CRLF CRLF, status, n);
	char *body = malloc(n + 1);

	if (!body)
		abort();
	fill(body, n, seed);
	text_add(&t, body, n);
	free(body);
	return t;
}

static const char *body_of(const struct text *t)
{
	return strstr(t->p, CRLF CRLF) + 4;
}

/* Client to server, then back. Small messages only: one thread does both. */
static bool exchange(struct conn *k, const struct text *req, const struct text *resp)
{
	return send_all(k->c, req->p, req->n) && recv_same(k->s, req->p, req->n) &&
	       send_all(k->s, resp->p, resp->n) && recv_same(k->c, resp->p, resp->n);
}

/* An exchange whose messages are forgotten: the next one's place on the connection tells whether
 * the stream is in step. */
static bool exchange_plain(struct conn *k, const char *path)
{
	struct text req = request("GET", path, 0, 0), resp = response(200, 5, 1);
	bool ok = exchange(k, &req, &resp);

	text_free(&req);
	text_free(&resp);
	return ok;
}

/* Compares what exchange_plain() made. */
static void compare_plain(const struct conn *k, const struct seen *seen, int i, const char *path)
{
	struct text answers = text("GET %s", path), resp = response(200, 5, 1);

	compare_all(k, seen, i, &(struct want){.method = "GET", .path = path, .body = ""},
		&(struct want){
			.status = 200, .body = body_of(&resp), .n = 5, .answers = answers.p});
	text_free(&answers);
	text_free(&resp);
}

static struct seen seen;

/* A request and its answer, each field of each view, from two processes. */
static void check_simple(void)
{
	static const char req[] = "POST /a/b?c=d%20e HTTP/1.1" CRLF "host: www.example" CRLF
				  "User-agent: x/1.0 (y)" CRLF "x-list: one" CRLF "Empty:" CRLF
				  "X-LIST: two" CRLF "Content-Length: 5" CRLF CRLF "h\"l\\o";
	static const char resp[] =
		"HTTP/1.1 404 Not Found" CRLF "content-type: text/plain; charset=utf-8" CRLF
		"Content-Length: 7" CRLF CRLF "gr\xc3\xbc\xc3\x9f\n";
	int ok = 1, status;
	struct conn k;
	pid_t child;

	listener(V4);
	fflush(stdout);
	child = fork();
	if (child == 0) {
		char byte;

		prctl(PR_SET_NAME, "checks-server");
		k.s = accept4(listener(V4), NULL, NULL, SOCK_CLOEXEC);
		ok = k.s >= 0 && recv_same(k.s, req, sizeof(req) - 1) &&
		     send_all(k.s, resp, sizeof(resp) - 1) && recv(k.s, &byte, 1, 0) == 0;
		_exit(ok ? 0 : 1);
	}
	if (!conn_connect(&k, V4))
		return;
	k.server = (struct process){.pid = child, .comm = "checks-server"};
	ok = send_all(k.c, req, sizeof(req) - 1) && recv_same(k.c, resp, sizeof(resp) - 1);
	conn_close(&k);
	waitpid(child, &status, 0);
	EXPECT(status == 0, "the server's end: status %d", status);
	if (!ok || !gather(&k, 1, 1, &seen))
		return;
	compare_all(&k, &seen, 0,
		&(struct want){.method = "POST", .path = "/a/b?c=d%20e", .body = "h\"l\\o", .n = 5},
		&(struct want){.status = 404,
			.body = "gr\xc3\xbc\xc3\x9f\n",
			.n = 7,
			.answers = "POST /a/b?c=d%20e"});
	for (int v = 0; v < VIEWS; v++) {
		struct json_object *m = seen.m[v][0], *list;
		const char *text = json_object_to_json_string_ext(
			key(m, "headers"), JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);
		const char *want =
			v == REQ_OUT || v == REQ_IN
				? "{\"Host\":[\"www.example\"],\"User-Agent\":[\"x/1.0 (y)\"],"
				  "\"X-List\":[\"one\",\"two\"],\"Empty\":[\"\"],"
				  "\"Content-Length\":[\"5\"]}"
				: "{\"Content-Type\":[\"text/plain; charset=utf-8\"],"
				  "\"Content-Length\":[\"7\"]}";

		EXPECT(strcmp(text, want) == 0, "%s: headers are %s instead of %s", view_name(v),
			text, want);
		list = key(m, "request");
		if (v == RESP_OUT || v == RESP_IN)
			EXPECT(list && key_string(list, "host") &&
					strcmp(key_string(list, "host"), "www.example") == 0,
				"%s: request.host is not www.example", view_name(v));
		else
			EXPECT(!list, "%s: a request has the key `request`", view_name(v));
	}
}

/* 100 exchanges on one connection; bodies on both sides. */
static void check_keep_alive(void)
{
	struct text req[100], resp[100];
	struct conn k;
	int n = 0;

	if (!conn_open(&k, V4))
		return;
	for (; n < 100; n++) {
		char path[32];

		snprintf(path, sizeof(path), "/keep/%d", n);
		req[n] = request("PUT", path, (size_t)n * 7, (uint32_t)n);
		resp[n] = response(200 + n, (size_t)n * 13, (uint32_t)n + 1000);
		if (!exchange(&k, &req[n], &resp[n])) {
			n++;
			break;
		}
	}
	conn_close(&k);
	if (gather(&k, 100, 100, &seen)) {
		for (int i = 0; i < 100; i++) {
			char path[32], answers[48];

			snprintf(path, sizeof(path), "/keep/%d", i);
			snprintf(answers, sizeof(answers), "PUT %s", path);
			compare_all(&k, &seen, i,
				&(struct want){.method = "PUT",
					.path = path,
					.body = body_of(&req[i]),
					.n = (size_t)i * 7},
				&(struct want){.status = 200 + i,
					.body = body_of(&resp[i]),
					.n = (size_t)i * 13,
					.answers = answers});
		}
	}
	while (n--) {
		text_free(&req[n]);
		text_free(&resp[n]);
	}
}

/* 10 requests in one send, 10 responses in one; then the same cut at odd places. */
static void check_pipelining(void)
{
	for (int cut = 0; cut < 2; cut++) {
		struct text reqs = {}, resps = {};
		struct conn k;
		bool ok = true;

		if (!conn_open(&k, V4))
			return;
		for (int i = 0; i < 10; i++) {
			char path[32];
			struct text req, resp;

			snprintf(path, sizeof(path), "/pipe/%d", i);
			req = request("POST", path, (size_t)i, (uint32_t)i);
			resp = response(200 + i, (size_t)i * 3, (uint32_t)i);
			text_add(&reqs, req.p, req.n);
			text_add(&resps, resp.p, resp.n);
			text_free(&req);
			text_free(&resp);
		}
		if (!cut) {
			ok = exchange(&k, &reqs, &resps);
		} else {
			for (size_t at = 0; ok && at < reqs.n; at += 41)
				ok = send_all(k.c, reqs.p + at, MIN(41, reqs.n - at));
			ok = ok && recv_same(k.s, reqs.p, reqs.n);
			for (size_t at = 0; ok && at < resps.n; at += 37)
				ok = send_all(k.s, resps.p + at, MIN(37, resps.n - at));
			for (size_t at = 0; ok && at < resps.n; at += 43)
				ok = recv_same(k.c, resps.p + at, MIN(43, resps.n - at));
		}
		conn_close(&k);
		if (ok && gather(&k, 10, 10, &seen)) {
			for (int i = 0; i < 10; i++) {
				char path[32], answers[48], a[16], b[32];

				snprintf(path, sizeof(path), "/pipe/%d", i);
				snprintf(answers, sizeof(answers), "POST %s", path);
				fill(a, (size_t)i, (uint32_t)i);
				fill(b, (size_t)i * 3, (uint32_t)i);
				compare_all(&k, &seen, i,
					&(struct want){.method = "POST",
						.path = path,
						.body = a,
						.n = (size_t)i},
					&(struct want){.status = 200 + i,
						.body = b,
						.n = (size_t)i * 3,
						.answers = answers});
			}
		}
		text_free(&reqs);
		text_free(&resps);
	}
}

/* Chunked both ways, with extensions and trailers, a send for each piece. */
static void check_chunked(void)
{
	static const char *const out[] = {
		("POST /chunked HTTP/1.1" CRLF "Transfer-Encoding: chunked" CRLF CRLF),
		("5" CRLF "hello"),
		(CRLF "1"),
		("0;ext=\"a;b\"" CRLF "0123456789abcdef"),
		(CRLF "0" CRLF),
		("X-Trailer: t" CRLF),
		CRLF,
	};
	static const char *const in[] = {
		("HTTP/1.1 200 OK" CRLF "Transfer-Encoding: chunked" CRLF CRLF "3"),
		(CRLF "abc" CRLF "2" CRLF "de"),
		(CRLF "00" CRLF CRLF),
	};
	struct conn k;
	bool ok;

	if (!conn_open(&k, V4))
		return;
	ok = true;
	for (size_t i = 0; ok && i < ARRAY_SIZE(out); i++)
		ok = send_all(k.c, out[i], strlen(out[i])) &&
		     recv_same(k.s, out[i], strlen(out[i]));
	for (size_t i = 0; ok && i < ARRAY_SIZE(in); i++)
		ok = send_all(k.s, in[i], strlen(in[i])) && recv_same(k.c, in[i], strlen(in[i]));
	ok = ok && exchange_plain(&k, "/after");
	conn_close(&k);
	if (!ok || !gather(&k, 2, 2, &seen))
		return;
	compare_all(&k, &seen, 0,
		&(struct want){.method = "POST",
			.path = "/chunked",
			.body = "hello0123456789abcdef",
			.n = 21},
		&(struct want){.status = 200, .body = "abcde", .n = 5, .answers = "POST /chunked"});
	compare_plain(&k, &seen, 1, "/after");
}

/* ---- calls with several buffers ---- */

#define SEGMENTS_MAX 70 /* beyond CAPTURE_SEGMENTS_MAX, 64 */

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

/* readv and recvmsg with 1 to 70 buffers. */
static void check_readv(void)
{
	struct text req[SEGMENTS_MAX], resp[SEGMENTS_MAX];
	struct conn k;
	int n = 0;
	bool ok = true;

	if (!conn_open(&k, V4))
		return;
	for (; ok && n < SEGMENTS_MAX; n++) {
		struct iovec iov[SEGMENTS_MAX];
		struct text got;
		char path[32];

		snprintf(path, sizeof(path), "/readv/%d", n + 1);
		req[n] = request("POST", path, 300, (uint32_t)n);
		resp[n] = response(200, 400, (uint32_t)n + 500);
		got = request("POST", path, 300, 77);
		ok = send_all(k.c, req[n].p, req[n].n) &&
		     recv_buffers(k.s, iov, cut_buffers(&got, n + 1, iov), req[n].n, false);
		EXPECT(!ok || memcmp(got.p, req[n].p, got.n) == 0, "readv got something else");
		text_free(&got);
		got = response(200, 400, 77);
		ok = ok && send_all(k.s, resp[n].p, resp[n].n) &&
		     recv_buffers(k.c, iov, cut_buffers(&got, n + 1, iov), resp[n].n, true);
		text_free(&got);
	}
	ok = ok && exchange_plain(&k, "/after");
	conn_close(&k);
	if (ok && gather(&k, n + 1, n + 1, &seen)) {
		for (int i = 0; i < n; i++) {
			struct want wreq = {.method = "POST", .body = body_of(&req[i]), .n = 300};
			struct want wresp = {.status = 200, .body = body_of(&resp[i]), .n = 400};
			char path[32], answers[48];
			struct iovec iov[SEGMENTS_MAX];

			snprintf(path, sizeof(path), "/readv/%d", i + 1);
			snprintf(answers, sizeof(answers), "POST %s", path);
			wreq.path = path;
			wresp.answers = answers;
			/* Also at the reader's end; a packet has no such limit. */
			cut_buffers(&req[i], i + 1, iov);
			for (int s = 64; s <= i && !by_packets(); s++)
				wreq.gap[REQ_IN] += iov[s].iov_len;
			cut_buffers(&resp[i], i + 1, iov);
			for (int s = 64; s <= i && !by_packets(); s++)
				wresp.gap[RESP_IN] += iov[s].iov_len;
			compare_all(&k, &seen, i, &wreq, &wresp);
		}
		compare_plain(&k, &seen, n, "/after");
	}
	while (n--) {
		text_free(&req[n]);
		text_free(&resp[n]);
	}
}

/* ---- sizes ---- */

/* Sends of 2^n - 1, 2^n, 2^n + 1 bytes up to 64 KiB, each byte of each body compared. The loader
 * keeps bodies whole here (LARGE). */
#define LARGE_BODY 131072
static void check_sizes(void)
{
	for (int exp = 0; exp <= 16; exp++) {
		for (int d = -1; d <= 1; d++) {
			size_t n = (1ul << exp) + (size_t)d, head, body;
			struct text req = request("PUT", "/size", n ? n : 1, (uint32_t)n);
			struct text resp = response(200, n, (uint32_t)n + 1);
			struct pump pump;
			struct conn k;
			bool ok;

			if (!conn_open(&k, V4))
				return;
			/* Once the body alone is a send of n bytes, once head and body together. */
			head = (size_t)(body_of(&req) - req.p);
			body = req.n - head;
			ok = send_all(k.c, req.p, head);
			pump_recv_same(&pump, k.s, req.p, req.n);
			ok = ok && send_all(k.c, req.p + head, body);
			pump_join(&pump);
			if (n >= 256) {
				/* the whole response: n bytes */
				size_t cut = n - ((size_t)(body_of(&resp) - resp.p) + 8);

				text_free(&resp);
				resp = response(200, cut, (uint32_t)n + 1);
			}
			pump_recv_same(&pump, k.c, resp.p, resp.n);
			ok = ok && send_all(k.s, resp.p, resp.n);
			pump_join(&pump);
			conn_close(&k);
			if (ok && gather(&k, 1, 1, &seen))
				compare_all(&k, &seen, 0,
					&(struct want){.method = "PUT",
						.path = "/size",
						.body = body_of(&req),
						.n = body,
						.limit = LARGE_BODY},
					&(struct want){.status = 200,
						.body = body_of(&resp),
						.n = resp.n - (size_t)(body_of(&resp) - resp.p),
						.limit = LARGE_BODY,
						.answers = "PUT /size"});
			text_free(&req);
			text_free(&resp);
		}
	}
}

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

/* ---- IPv6 ---- */

static void exchange_over(enum net net)
{
	struct conn k;
	bool ok;

	if (!conn_open(&k, net))
		return;
	ok = exchange_plain(&k, "/net/1") && exchange_plain(&k, "/net/2");
	conn_close(&k);
	if (!ok || !gather(&k, 2, 2, &seen))
		return;
	compare_plain(&k, &seen, 0, "/net/1");
	compare_plain(&k, &seen, 1, "/net/2");
}

static void check_ipv6(void)
{
	exchange_over(V6);
}

static void check_v4_mapped(void)
{
	exchange_over(MAPPED_CLIENT);
	exchange_over(MAPPED_SERVER);
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
	for (at = 0; at < req.n;) {
		ssize_t done = send(k.c, req.p + at, req.n - at, MSG_NOSIGNAL);

		if (done <= 0)
			break;
		at += (size_t)done;
	}
	/* The body has as many bytes as were accepted and as the rest that follows. */
	EXPECT(at < req.n, "8 MiB fit into a socket");
	EXPECT(send(k.c, never, sizeof(never) - 1, MSG_NOSIGNAL) < 0 && errno == EAGAIN,
		"the send was not refused");
	fcntl(k.c, F_SETFL, 0);
	pump_recv_same(&in, k.s, req.p, req.n);
	ok = send_all(k.c, req.p + at, req.n - at);
	pump_join(&in);
	ok = ok && send_all(k.s, resp.p, resp.n) && recv_same(k.c, resp.p, resp.n) &&
	     exchange_plain(&k, "/after");
	conn_close(&k);
	if (ok && gather(&k, 2, 2, &seen)) {
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

/* The same between two messages: the refused one is a whole request, another one takes its place.
 */
static void check_refused_request(void)
{
	static const char never[] = "GET /never-sent HTTP/1.1" CRLF "Host: nobody" CRLF CRLF;
	struct text one = request("GET", "/filler", 0, 0);
	int small = 1, count = 0;
	ssize_t done = (ssize_t)one.n;
	struct conn k;
	bool ok = true;

	if (!conn_open(&k, V4))
		return;
	setsockopt(k.c, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	setsockopt(k.s, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	fcntl(k.c, F_SETFL, O_NONBLOCK);
	while (count < 100000 && done == (ssize_t)one.n) {
		done = send(k.c, one.p, one.n, MSG_NOSIGNAL);
		count += done == (ssize_t)one.n;
	}
	EXPECT(done < 0 && errno == EAGAIN, "no send was refused as a whole: %zd", done);
	EXPECT(send(k.c, never, sizeof(never) - 1, MSG_NOSIGNAL) < 0 && errno == EAGAIN,
		"the send was not refused");
	for (int i = 0; ok && i < count; i++)
		ok = recv_same(k.s, one.p, one.n);
	fcntl(k.c, F_SETFL, 0);
	ok = ok && exchange_plain(&k, "/after");
	conn_close(&k);
	text_free(&one);
	if (!ok)
		return;
	EXPECT(count + 1 < (int)ARRAY_SIZE(seen.m[0]), "%d requests fit", count);
	if (!gather(&k, count + 1, 1, &seen))
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

/* ---- messages whose end is not told by a length ---- */

/* A scripted conversation: who sends what. */
struct line {
	char from; /* 'c' or 's' */
	const char *text;
};

static bool converse(struct conn *k, const struct line *lines, size_t n)
{
	bool ok = true;

	for (size_t i = 0; ok && i < n; i++) {
		bool client = lines[i].from == 'c';
		size_t len = strlen(lines[i].text);

		ok = send_all(client ? k->c : k->s, lines[i].text, len) &&
		     recv_same(client ? k->s : k->c, lines[i].text, len);
	}
	return ok;
}

/* HEAD, 204, 304: no body whatever the headers say. */
static void check_no_body(void)
{
	static const struct line lines[] = {{'c', "HEAD /h HTTP/1.1" CRLF CRLF},
		{'s', "HTTP/1.1 200 OK" CRLF "Content-Length: 1000" CRLF CRLF},
		{'c', "PUT /p HTTP/1.1" CRLF "Content-Length: 1" CRLF CRLF "x"},
		{'s', "HTTP/1.1 204 No Content" CRLF CRLF},
		{'c', "GET /n HTTP/1.1" CRLF "If-None-Match: *" CRLF CRLF},
		{'s', "HTTP/1.1 304 Not Modified" CRLF "Content-Length: 77" CRLF CRLF}};
	struct conn k;
	bool ok;

	if (!conn_open(&k, V4))
		return;
	ok = converse(&k, lines, ARRAY_SIZE(lines)) && exchange_plain(&k, "/after");
	conn_close(&k);
	if (!ok || !gather(&k, 4, 4, &seen))
		return;
	compare_all(&k, &seen, 0, &(struct want){.method = "HEAD", .path = "/h", .body = ""},
		&(struct want){.status = 200, .body = "", .answers = "HEAD /h"});
	compare_all(&k, &seen, 1,
		&(struct want){.method = "PUT", .path = "/p", .body = "x", .n = 1},
		&(struct want){.status = 204, .body = "", .answers = "PUT /p"});
	compare_all(&k, &seen, 2, &(struct want){.method = "GET", .path = "/n", .body = ""},
		&(struct want){.status = 304, .body = "", .answers = "GET /n"});
	compare_plain(&k, &seen, 3, "/after");
}

static void check_100_continue(void)
{
	static const struct line lines[] = {{'c', "PUT /c HTTP/1.1" CRLF "Expect: 100-continue" CRLF
						  "Content-Length: 4" CRLF CRLF},
		{'s', "HTTP/1.1 100 Continue" CRLF CRLF}, {'c', "data"},
		{'s', "HTTP/1.1 102 Processing" CRLF CRLF},
		{'s', "HTTP/1.1 201 Created" CRLF "Content-Length: 0" CRLF CRLF}};
	struct conn k;
	int want[VIEWS] = {2, 2, 4, 4};
	bool ok;

	if (!conn_open(&k, V4))
		return;
	ok = converse(&k, lines, ARRAY_SIZE(lines)) && exchange_plain(&k, "/after");
	conn_close(&k);
	if (!ok || !gather_views(&k, want, &seen))
		return;
	compare_all(&k, &seen, 0,
		&(struct want){.method = "PUT", .path = "/c", .body = "data", .n = 4},
		&(struct want){.status = 100, .body = "", .answers = "PUT /c"});
	compare_all(
		&k, &seen, 1, NULL, &(struct want){.status = 102, .body = "", .answers = "PUT /c"});
	compare_all(
		&k, &seen, 2, NULL, &(struct want){.status = 201, .body = "", .answers = "PUT /c"});
}

/* The message is reported; what follows is not HTTP, whatever it looks like. */
static void check_tunnels(void)
{
	static const struct line upgrade[] = {
		{'c', "GET /ws HTTP/1.1" CRLF "Connection: Upgrade" CRLF "Upgrade: w" CRLF CRLF},
		{'s', "HTTP/1.1 101 Switching Protocols" CRLF "Upgrade: w" CRLF CRLF},
		{'c', "GET /inside HTTP/1.1" CRLF CRLF}, {'s', "HTTP/1.1 200 OK" CRLF CRLF}};
	static const struct line proxy[] = {
		{'c', "CONNECT example:443 HTTP/1.1" CRLF "Host: example:443" CRLF CRLF},
		{'s', "HTTP/1.1 200 Connected" CRLF CRLF}, {'c', "GET /inside HTTP/1.1" CRLF CRLF},
		{'s', "HTTP/1.1 200 OK" CRLF CRLF}};
	struct conn k;
	bool ok;

	if (!conn_open(&k, V4))
		return;
	ok = converse(&k, upgrade, ARRAY_SIZE(upgrade));
	conn_close(&k);
	if (ok && gather(&k, 1, 1, &seen))
		compare_all(&k, &seen, 0,
			&(struct want){.method = "GET", .path = "/ws", .body = ""},
			&(struct want){.status = 101, .body = "", .answers = "GET /ws"});
	if (!conn_open(&k, V4))
		return;
	ok = converse(&k, proxy, ARRAY_SIZE(proxy));
	conn_close(&k);
	if (ok && gather(&k, 1, 1, &seen))
		compare_all(&k, &seen, 0,
			&(struct want){.method = "CONNECT", .path = "example:443", .body = ""},
			&(struct want){
				.status = 200, .body = "", .answers = "CONNECT example:443"});
}

enum ending { BY_CLOSE, BY_SHUTDOWN, LATE_READER, BY_RESET };

/* A body that only the end of the connection ends. */
static void end_delimits(enum ending how)
{
	static const char head[] = "HTTP/1.1 200 OK" CRLF "Connection: close" CRLF CRLF;
	struct text resp = text("%s", head), req = request("GET", "/close", 0, 0);
	struct linger hard = {.l_onoff = 1};
	size_t n = 2500;
	struct want want = {.status = 200, .n = n, .answers = "GET /close"};
	struct conn k;
	char byte, *body = malloc(n);
	bool ok;

	if (!body)
		abort();
	fill(body, n, (uint32_t)how);
	text_add(&resp, body, n);
	want.body = body;
	/* A body that ends by a reset is not whole for sure. */
	want.any_error = how == BY_RESET;
	if (!conn_open(&k, V4)) {
		free(body);
		return;
	}
	ok = send_all(k.c, req.p, req.n) && recv_same(k.s, req.p, req.n) &&
	     send_all(k.s, resp.p, 100) && recv_same(k.c, resp.p, 100) &&
	     send_all(k.s, resp.p + 100, resp.n - 100);
	if (how == LATE_READER) {
		close_fd(&k.s);
		/* The end has come long before the bytes are read. */
		barrier();
		ok = ok && recv_same(k.c, resp.p + 100, resp.n - 100);
	} else {
		ok = ok && recv_same(k.c, resp.p + 100, resp.n - 100);
	}
	if (how == BY_RESET)
		setsockopt(k.s, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
	if (how == BY_SHUTDOWN)
		shutdown(k.s, SHUT_WR);
	else
		close_fd(&k.s);
	EXPECT(recv(k.c, &byte, 1, 0) == (how == BY_RESET ? -1 : 0), "the end did not arrive");
	if (ok && how == BY_SHUTDOWN) {
		/* It is reported although the other direction is still open. */
		ok = gather(&k, 1, 1, &seen);
	}
	conn_close(&k);
	if (ok && gather(&k, 1, 1, &seen))
		compare_all(&k, &seen, 0,
			&(struct want){.method = "GET", .path = "/close", .body = ""}, &want);
	text_free(&resp);
	text_free(&req);
	free(body);
}

static void check_ended_by_close(void)
{
	end_delimits(BY_CLOSE);
}

static void check_ended_by_shutdown(void)
{
	end_delimits(BY_SHUTDOWN);
}

static void check_ended_late(void)
{
	end_delimits(LATE_READER);
}

static void check_ended_by_reset(void)
{
	end_delimits(BY_RESET);
}

/* A body that stops short of its length: reported as far as it came, with an error. */
static void check_cut_short(void)
{
	static const struct line lines[] = {{'c', "GET /short HTTP/1.1" CRLF CRLF},
		{'s', "HTTP/1.1 200 OK" CRLF "Content-Length: 100" CRLF CRLF "ten bytes."}};
	struct conn k;
	char byte;
	bool ok;

	if (!conn_open(&k, V4))
		return;
	ok = converse(&k, lines, ARRAY_SIZE(lines));
	close_fd(&k.s);
	ok = ok && recv(k.c, &byte, 1, 0) == 0;
	conn_close(&k);
	if (!ok || !gather(&k, 1, 1, &seen))
		return;
	for (int v = RESP_OUT; v <= RESP_IN; v++) {
		EXPECT(key_string(seen.m[v][0], "error"), "%s: no error", view_name(v));
		EXPECT(key_int(seen.m[v][0], "body_bytes") == 10, "%s: body_bytes is %lld",
			view_name(v), (long long)key_int(seen.m[v][0], "body_bytes"));
	}
}

/* ---- what is not HTTP/1.x, and what hardly is ---- */

/* Bytes of other protocols; none of it is reported, also where it says GET later on. */
static void check_other_protocols(void)
{
	static const char hello[] = "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03random random";
	static const char answer[] = "\x16\x03\x03\x00\x7a\x02\x00\x00\x76\x03\x03server random";
	static const char *const talks[][2] = {{"EHLO me" CRLF, "250 you" CRLF},
		{"GETX / HTTP/1.1" CRLF CRLF, "nothing"}, {"get / HTTP/1.1" CRLF, "HTTPS" CRLF},
		{" GET / HTTP/1.1" CRLF, "+OK" CRLF},
		{"\x17\x03\x03GET /in-tls HTTP/1.1" CRLF CRLF, "\x17\x03\x03HTTP/1.1 200 OK" CRLF},
		{"SSH-2.0-x" CRLF, "SSH-2.0-y" CRLF}, {"\n\n\n\n", "*1\r\n$4\r\nPING\r\n"}};
	struct conn k[ARRAY_SIZE(talks) + 1];
	size_t n = 0;
	bool ok = conn_open(&k[0], V4);

	if (ok) {
		n = 1;
		ok = send_all(k[0].c, hello, sizeof(hello) - 1) &&
		     recv_same(k[0].s, hello, sizeof(hello) - 1) &&
		     send_all(k[0].s, answer, sizeof(answer) - 1) &&
		     recv_same(k[0].c, answer, sizeof(answer) - 1);
		for (int i = 0; ok && i < 3; i++)
			ok = exchange_plain(&k[0], "/in-tls");
	}
	for (size_t t = 0; ok && t < ARRAY_SIZE(talks); t++) {
		const struct line lines[] = {{'c', talks[t][0]}, {'s', talks[t][1]},
			{'c', "GET /later HTTP/1.1" CRLF CRLF}, {'s', "HTTP/1.1 200 OK" CRLF CRLF}};

		ok = conn_open(&k[n], V4) && converse(&k[n], lines, ARRAY_SIZE(lines));
		n++;
	}
	for (size_t i = 0; i < n; i++)
		conn_close(&k[i]);
	for (size_t i = 0; ok && i < n; i++)
		ok = gather(&k[i], 0, 0, &seen);
	EXPECT(ok || n == ARRAY_SIZE(talks) + 1, "conversation %zu failed", n);
}

static void check_http2(void)
{
	static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
	static const char frames[] = "\0\0\0\x04\0\0\0\0\0\0\0\0\x04\x01\0\0\0\0";
	struct conn k;
	bool ok;

	if (!conn_open(&k, V4))
		return;
	ok = send_all(k.c, preface, sizeof(preface) - 1) &&
	     recv_same(k.s, preface, sizeof(preface) - 1) &&
	     send_all(k.s, frames, sizeof(frames) - 1) &&
	     recv_same(k.c, frames, sizeof(frames) - 1) && exchange_plain(&k, "/in-http2");
	conn_close(&k);
	if (ok)
		gather(&k, 0, 0, &seen);
}

/* Every method of IANA's HTTP Method Registry but PRI and *, each first on its connection. */
static void check_methods(void)
{
	static const char *const methods[] = {"ACL", "BASELINE-CONTROL", "BIND", "CHECKIN",
		"CHECKOUT", "CONNECT", "COPY", "DELETE", "GET", "HEAD", "LABEL", "LINK", "LOCK",
		"MERGE", "MKACTIVITY", "MKCALENDAR", "MKCOL", "MKREDIRECTREF", "MKWORKSPACE",
		"MOVE", "OPTIONS", "ORDERPATCH", "PATCH", "POST", "PROPFIND", "PROPPATCH", "PUT",
		"QUERY", "REBIND", "REPORT", "SEARCH", "TRACE", "UNBIND", "UNCHECKOUT", "UNLINK",
		"UNLOCK", "UPDATE", "UPDATEREDIRECTREF", "VERSION-CONTROL"};
	struct conn k[ARRAY_SIZE(methods)];
	size_t n = 0;
	bool ok = true;

	for (; ok && n < ARRAY_SIZE(methods); n++) {
		struct text req = request(methods[n], "/m", 0, 0),
			    resp = text("%s", "HTTP/1.1 404 No" CRLF "Content-Length: 0" CRLF CRLF);

		ok = conn_open(&k[n], V4) && exchange(&k[n], &req, &resp);
		conn_close(&k[n]);
		text_free(&req);
		text_free(&resp);
	}
	for (size_t i = 0; ok && i < n; i++) {
		struct text answers = text("%s /m", methods[i]);

		if (gather(&k[i], 1, 1, &seen))
			compare_all(&k[i], &seen, 0,
				&(struct want){.method = methods[i], .path = "/m", .body = ""},
				&(struct want){.status = 404, .body = "", .answers = answers.p});
		text_free(&answers);
	}
}

/* An unknown method on a connection that is known to be HTTP. First on a connection it is nothing
 * that can be told from another protocol: it does no harm. */
static void check_unknown_method(void)
{
	static const struct line brew[] = {{'c', "BREW /pot HTTP/1.1" CRLF CRLF},
		{'s', "HTTP/1.1 418 Teapot" CRLF "Content-Length: 0" CRLF CRLF}};
	struct conn k;
	bool ok;

	if (!conn_open(&k, V4))
		return;
	ok = exchange_plain(&k, "/before") && converse(&k, brew, 2) && exchange_plain(&k, "/after");
	conn_close(&k);
	if (ok && gather(&k, 3, 3, &seen)) {
		compare_plain(&k, &seen, 0, "/before");
		compare_all(&k, &seen, 1,
			&(struct want){.method = "BREW", .path = "/pot", .body = ""},
			&(struct want){.status = 418, .body = "", .answers = "BREW /pot"});
		compare_plain(&k, &seen, 2, "/after");
	}
	if (!conn_open(&k, V4))
		return;
	converse(&k, brew, 2);
	conn_close(&k);
	barrier();
}

/* Bodies of any bytes: base64. */
static void check_binary_body(void)
{
	static const char req[] =
		"POST /bin HTTP/1.1" CRLF "Content-Length: 6" CRLF CRLF "\x00\xff\x01\x80\r\n";
	static const char resp[] = "HTTP/1.1 200 OK" CRLF "Content-Length: 3" CRLF CRLF "\xfe\0\n";
	struct conn k;
	bool ok;

	if (!conn_open(&k, V4))
		return;
	ok = send_all(k.c, req, sizeof(req) - 1) && recv_same(k.s, req, sizeof(req) - 1) &&
	     send_all(k.s, resp, sizeof(resp) - 1) && recv_same(k.c, resp, sizeof(resp) - 1);
	conn_close(&k);
	if (!ok || !gather(&k, 1, 1, &seen))
		return;
	for (int v = 0; v < VIEWS; v++) {
		const char *want = v == REQ_OUT || v == REQ_IN ? "AP8BgA0K" : "/gAK";
		const char *encoding = key_string(seen.m[v][0], "body_encoding");
		const char *body = key_string(seen.m[v][0], "body");

		EXPECT(encoding && strcmp(encoding, "base64") == 0 && body &&
				strcmp(body, want) == 0,
			"%s: body is %s (%s)", view_name(v), body, encoding ? encoding : "text");
	}
}

/* ---- many at once ---- */

#define CONNECTIONS 64
#define REQUESTS    10

struct peer {
	struct conn k;
	int id;
	bool ok;
};

/* Of connection `id`, exchange i, request (0) or response (1). */
static size_t size_of(int id, int i, int which)
{
	return (size_t)(id * 37 + i * 211 + which * 97) % 3000;
}

static uint32_t seed_of(int id, int i, int which)
{
	return (uint32_t)(id * 1000 + i * 2 + which);
}

static struct text message_of(int id, int i, int which)
{
	char path[32];

	snprintf(path, sizeof(path), "/many/%d/%d", id, i);
	return which ? response(200 + i, size_of(id, i, 1), seed_of(id, i, 1))
		     : request("POST", path, size_of(id, i, 0), seed_of(id, i, 0));
}

static bool peer_run(struct peer *p, bool client)
{
	int fd = client ? p->k.c : p->k.s;
	bool ok = true;

	for (int i = 0; ok && i < REQUESTS; i++) {
		struct text req = message_of(p->id, i, 0), resp = message_of(p->id, i, 1);

		ok = client ? send_all(fd, req.p, req.n) && recv_same(fd, resp.p, resp.n)
			    : recv_same(fd, req.p, req.n) && send_all(fd, resp.p, resp.n);
		text_free(&req);
		text_free(&resp);
	}
	return ok;
}

static void *peer_client(void *p)
{
	peer_run(p, true);
	return NULL;
}

static void *peer_server(void *p)
{
	peer_run(p, false);
	return NULL;
}

/* 64 connections at a time, no byte of one in another. */
static void check_concurrent(void)
{
	static struct peer peers[CONNECTIONS];
	pthread_t threads[CONNECTIONS][2];
	int n = 0;

	while (n < CONNECTIONS && conn_open(&peers[n].k, n % 2 ? V4 : V6)) {
		peers[n].id = n;
		n++;
	}
	for (int i = 0; i < n; i++) {
		if (pthread_create(&threads[i][0], NULL, peer_client, &peers[i]) ||
			pthread_create(&threads[i][1], NULL, peer_server, &peers[i]))
			abort();
	}
	for (int i = 0; i < n; i++) {
		pthread_join(threads[i][0], NULL);
		pthread_join(threads[i][1], NULL);
	}
	for (int i = 0; i < n; i++)
		conn_close(&peers[i].k);
	for (int i = 0; i < n; i++) {
		if (!gather(&peers[i].k, REQUESTS, REQUESTS, &seen))
			return;
		for (int r = 0; r < REQUESTS; r++) {
			struct text req = message_of(i, r, 0), resp = message_of(i, r, 1);
			struct text path = text("/many/%d/%d", i, r);
			struct text answers = text("POST %s", path.p);

			compare_all(&peers[i].k, &seen, r,
				&(struct want){.method = "POST",
					.path = path.p,
					.body = body_of(&req),
					.n = size_of(i, r, 0)},
				&(struct want){.status = 200 + r,
					.body = body_of(&resp),
					.n = size_of(i, r, 1),
					.answers = answers.p});
			text_free(&req);
			text_free(&resp);
			text_free(&path);
			text_free(&answers);
		}
	}
}

/* ---- TCP Fast Open ---- */

static bool write_file(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool ok = fd >= 0 && write(fd, value, strlen(value)) == (ssize_t)strlen(value);

	close_fd(&fd);
	return ok;
}

/*
 * The request is in the SYN. The receiver's end reports it as any other. At the sender's end the
 * socket has no addresses yet when the call is made: what is there is right, or is not there. What
 * follows on the connection is as always.
 */
static void check_fast_open(void)
{
	struct text req = request("POST", "/tfo", 20, 1), resp = response(200, 20, 2);
	struct sockaddr_in a = {.sin_family = AF_INET,
		.sin_port = htons(8082),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct conn k = {.c = -1,
		.s = -1,
		.net = V4,
		.server_port = 8082,
		.client_port = 33001,
		.client = {getpid(), "kernel-checks"},
		.server = {getpid(), "kernel-checks"}};
	struct sockaddr_in from = a;
	int on = 16, one = 1, listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool ok, syn_data = false;

	from.sin_port = htons(k.client_port++);
	for (int i = 0; i < 2; i++) {
		/* 0x3: client and server, 0x200: without a cookie */
		if (!write_file("/proc/sys/net/ipv4/tcp_fastopen", "1543")) {
			check_skip("net.ipv4.tcp_fastopen cannot be set");
			break;
		}
	}
	setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	ok = bind(listening, (struct sockaddr *)&a, sizeof(a)) == 0 &&
	     setsockopt(listening, IPPROTO_TCP, TCP_FASTOPEN, &on, sizeof(on)) == 0 &&
	     listen(listening, 16) == 0;
	k.c = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	k.client_port = ntohs(from.sin_port);
	ok = ok && bind(k.c, (struct sockaddr *)&from, sizeof(from)) == 0 &&
	     sendto(k.c, req.p, req.n, MSG_FASTOPEN | MSG_NOSIGNAL, (struct sockaddr *)&a,
		     sizeof(a)) == (ssize_t)req.n;
	if (ok) {
		struct tcp_info info = {};
		socklen_t len = sizeof(info);

		k.s = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
		getsockopt(k.c, IPPROTO_TCP, TCP_INFO, &info, &len);
		syn_data = info.tcpi_options & TCPI_OPT_SYN_DATA;
	}
	EXPECT(ok && k.s >= 0, "fast open: %s", strerror(errno));
	ok = ok && recv_same(k.s, req.p, req.n) && send_all(k.s, resp.p, resp.n) &&
	     recv_same(k.c, resp.p, resp.n) && exchange_plain(&k, "/after");
	conn_close(&k);
	close_fd(&listening);
	if (!syn_data)
		check_skip("the data did not travel in the SYN");
	if (ok) {
		int want[VIEWS];

		gather_any(&k, &seen);
		want[REQ_OUT] = seen.n[REQ_OUT] == 1 ? 1 : 2;
		want[REQ_IN] = want[RESP_OUT] = want[RESP_IN] = 2;
		if (gather_views(&k, want, &seen)) {
			if (want[REQ_OUT] == 1) {
				struct want after = {.method = "GET", .path = "/after", .body = ""};

				compare(&k, REQ_OUT, seen.m[REQ_OUT][0], &after);
				seen.n[REQ_OUT] = 0;
				/* its answer is there all the same, though nobody knows to what */
				compare(&k, RESP_IN, seen.m[RESP_IN][0],
					&(struct want){
						.status = 200, .body = body_of(&resp), .n = 20});
				seen.n[RESP_IN] = 0;
			}
			compare_all(&k, &seen, 0,
				&(struct want){.method = "POST",
					.path = "/tfo",
					.body = body_of(&req),
					.n = 20},
				&(struct want){.status = 200,
					.body = body_of(&resp),
					.n = 20,
					.answers = "POST /tfo"});
			if (want[REQ_OUT] == 2)
				compare_plain(&k, &seen, 1, "/after");
		}
	}
	text_free(&req);
	text_free(&resp);
}

/* ---- a connection that is older than the loader ---- */

static struct conn early, early_idle, early_other;

static void open_early(void)
{
	static const struct line talk[] = {{'c', "EHLO early" CRLF}, {'s', "250 hello" CRLF}};

	if (conn_open(&early, V4))
		exchange_plain(&early, "/before-the-loader");
	conn_open(&early_idle, V4);
	if (conn_open(&early_other, V4))
		converse(&early_other, talk, 2);
}

static void check_early(void)
{
	struct text rest = request("PUT", "/half", 100, 1), resp = response(200, 10, 2);
	bool ok;

	/* in the midst of a message: the next one is whole */
	ok = exchange_plain(&early, "/early/1") && exchange_plain(&early, "/early/2") &&
	     exchange_plain(&early_idle, "/idle/1");
	conn_close(&early);
	conn_close(&early_idle);
	if (ok && gather(&early, 2, 2, &seen)) {
		compare_plain(&early, &seen, 0, "/early/1");
		compare_plain(&early, &seen, 1, "/early/2");
	}
	if (ok && gather(&early_idle, 1, 1, &seen))
		compare_plain(&early_idle, &seen, 0, "/idle/1");
	text_free(&rest);
	text_free(&resp);
}

static struct conn half;
static struct text half_req, half_resp;

static void open_half(void)
{
	half_req = request("PUT", "/half", 1000, 1);
	half_resp = response(200, 1000, 2);
	if (conn_open(&half, V4)) {
		send_all(half.c, half_req.p, half_req.n - 500);
		recv_same(half.s, half_req.p, half_req.n - 500);
	}
}

/* The loader comes in the midst of a request's body: from the response on all is there. */
static void check_half(void)
{
	int want[VIEWS] = {1, 1, 2, 2};
	bool ok;

	ok = send_all(half.c, half_req.p + half_req.n - 500, 500) &&
	     recv_same(half.s, half_req.p + half_req.n - 500, 500) &&
	     send_all(half.s, half_resp.p, half_resp.n) &&
	     recv_same(half.c, half_resp.p, half_resp.n) && exchange_plain(&half, "/after");
	conn_close(&half);
	if (ok && gather_views(&half, want, &seen)) {
		compare_all(&half, &seen, 0,
			&(struct want){.method = "GET", .path = "/after", .body = ""},
			&(struct want){.status = 200, .body = body_of(&half_resp), .n = 1000});
		compare_all(&half, &seen, 1, NULL,
			&(struct want){.status = 200, .answers = "GET /after"});
	}
	text_free(&half_req);
	text_free(&half_resp);
}

/* ---- the loader itself ---- */

/* It never reports its own end of a connection. Ours it does. */
static void check_own_traffic(void)
{
	int before = loader_lines(), ours = 0;

	for (int i = 0; i < 5; i++) {
		char *page = loader_get("/metrics");

		EXPECT(page, "no metrics");
		free(page);
	}
	if (!barrier())
		return;
	for (int i = before; i < loader_lines(); i++) {
		struct json_object *m = loader_line(i);
		bool sent = key_int(m, "direction") == 0;
		int64_t local = key_int(m, sent ? "src_port" : "dst_port");
		int64_t remote = key_int(m, sent ? "dst_port" : "src_port");

		EXPECT(local != TELEMETRY_PORT, "the loader reports itself: %s",
			json_object_to_json_string_ext(m, JSON_C_TO_STRING_PLAIN));
		ours += remote == TELEMETRY_PORT;
	}
	EXPECT(ours == 10, "%d messages of the scrapes' client instead of 10", ours);
}

/* ---- the ledger ---- */

struct row {
	const char *labels;
	const char *left, *right[4]; /* left = sum of right */
};

/* Everything that passed is accounted for, exactly. */
static void compare_ledger(const char *page)
{
	static const struct row rows[] = {
		{"program=\"egress\"", "ebpfdump_kernel_seen_bytes_total",
			{"ebpfdump_kernel_captured_bytes_total",
				"ebpfdump_kernel_skipped_bytes_total"}},
		{"program=\"ingress\"", "ebpfdump_kernel_seen_bytes_total",
			{"ebpfdump_kernel_captured_bytes_total",
				"ebpfdump_kernel_skipped_bytes_total"}},
		{"", "ebpfdump_kernel_seen_bytes_total",
			{"ebpfdump_kernel_captured_bytes_total",
				"ebpfdump_kernel_skipped_bytes_total"}},
		{"", "ebpfdump_records_submitted_total",
			{"ebpfdump_records_read_total", "ebpfdump_records_lost_total"}},
		{"", "ebpfdump_records_read_total", {"ebpfdump_flow_records_total"}},
		{"", "ebpfdump_kernel_captured_bytes_total", {"ebpfdump_flow_bytes_total"}},
		{"", "ebpfdump_messages_parsed_total",
			{"ebpfdump_messages_emitted_total", "ebpfdump_messages_filtered_total",
				"ebpfdump_messages_dropped_total"}},
		{"", "ebpfdump_messages_emitted_total",
			{"ebpfdump_output_delivered_total", "ebpfdump_output_dropped_total",
				"ebpfdump_output_queued"}},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const struct row *r = &rows[i];
		double left = metric(page, r->left, r->labels), sum = 0;
		struct text terms = text("%s", "");

		for (size_t t = 0; t < ARRAY_SIZE(r->right) && r->right[t]; t++) {
			double term = metric(page, r->right[t], r->labels);
			struct text one = text(" + %s %.0f", r->right[t], term);

			EXPECT(term >= 0, "there is no metric %s{%s}", r->right[t], r->labels);
			sum += term;
			text_add(&terms, one.p, one.n);
			text_free(&one);
		}
		EXPECT(left >= 0, "there is no metric %s{%s}", r->left, r->labels);
		EXPECT(left == sum, "%s{%s} %.0f is not%s", r->left, r->labels, left, terms.p + 2);
		text_free(&terms);
	}
}

static void check_ledger(void)
{
	char *page;
	int64_t until = now_ms() + WAIT_MS;
	int lines;
	double delivered;

	barrier();
	page = loader_quiet_metrics();
	compare_ledger(page);
	EXPECT(metric(page, "ebpfdump_records_lost_total", "") == 0, "records were lost");
	EXPECT(metric(page, "ebpfdump_flow_bad_records_total", "") == 0, "there are bad records");
	EXPECT(metric(page, "ebpfdump_kernel_seen_bytes_total", "program=\"egress\"") > 1e6 ||
			!(loader()->views & (1 << REQ_OUT)),
		"hardly anything was seen");
	delivered = metric(page, "ebpfdump_output_delivered_total", "");
	while ((lines = loader_lines()) < delivered && now_ms() < until)
		sleep_ms(20);
	EXPECT(lines == delivered, "%d lines were read, %.0f delivered", lines, delivered);
	free(page);
}

/* seq numbers the messages without a hole. */
static void check_seq(void)
{
	int n = loader_lines();
	int64_t last = n ? key_int(loader_line(0), "seq") : 0;

	for (int i = 1; i < n; i++) {
		int64_t seq = key_int(loader_line(i), "seq");

		EXPECT(seq == last + 1, "line %d has seq %lld after %lld", i, (long long)seq,
			(long long)last);
		last = seq;
	}
	EXPECT(n > 0, "no lines");
}

/* Requests on 8 connections, as fast as they go, with 1 KiB bodies. */
#define BURST_CONNECTIONS 8
#define BURST_REQUESTS	  100
static struct conn burst[BURST_CONNECTIONS];

static void make_burst(void)
{
	for (int c = 0; c < BURST_CONNECTIONS; c++) {
		bool ok = conn_open(&burst[c], V4);

		for (int i = 0; ok && i < BURST_REQUESTS; i++) {
			struct text path = text("/burst/%d/%d", c, i);
			struct text req = request("POST", path.p, 1000, seed_of(c, i, 0));
			struct text resp = response(200, 1000, seed_of(c, i, 1));

			ok = exchange(&burst[c], &req, &resp);
			text_free(&path);
			text_free(&req);
			text_free(&resp);
		}
		conn_close(&burst[c]);
	}
}

/* What is reported whole is what was sent, however much is lost around it. */
static void compare_burst(void)
{
	for (int c = 0; c < BURST_CONNECTIONS; c++) {
		for (int l = 0; l < loader_lines(); l++) {
			struct json_object *m = loader_line(l);
			const char *path = key_string(m, "path"), *body = key_string(m, "body");
			char want[1000];
			int id, i;

			if (!path || sscanf(path, "/burst/%d/%d", &id, &i) != 2 || id != c)
				continue;
			if (key(m, "error") || key_int(m, "gap_bytes") > 0)
				continue;
			fill(want, sizeof(want), seed_of(id, i, 0));
			EXPECT(body && json_object_get_string_len(key(m, "body")) == 1000 &&
					memcmp(body, want, 1000) == 0,
				"%s has another body than was sent, and no gap", path);
		}
	}
}

/* ---- runs of their own ---- */

static void check_one_page(void)
{
	static const char *const flags[] = {"--ring-bytes", "4096", NULL};
	char *page;

	if (!loader_start(&(struct loader_options){.argv = loader_argv, .more = flags}))
		return;
	make_burst();
	page = loader_quiet_metrics();
	compare_ledger(page);
	EXPECT(metric(page, "ebpfdump_records_lost_total", "") +
				metric(page, "ebpfdump_kernel_skipped_bytes_total",
					"reason=\"pressure\"") >
			0,
		"a ring buffer of one page lost nothing: the check checks nothing");
	free(page);
	loader_stop();
	compare_burst();
}

static void check_stopped_reader(void)
{
	static const char *const flags[] = {"--output-buffer", "64K", NULL};
	double delivered;
	char *page;

	if (!loader_start(
		    &(struct loader_options){.argv = loader_argv, .more = flags, .stopped = true}))
		return;
	make_burst();
	page = loader_quiet_metrics();
	compare_ledger(page);
	EXPECT(metric(page, "ebpfdump_output_dropped_total", "reason=\"full\"") > 0,
		"nothing was dropped although nobody reads");
	EXPECT(metric(page, "ebpfdump_output_queued", "") > 0, "nothing is queued");
	EXPECT(metric(page, "ebpfdump_messages_parsed_total", "") >=
			4 * BURST_CONNECTIONS * BURST_REQUESTS,
		"a stopped reader holds up the capture");
	free(page);
	loader_read();
	barrier();
	page = loader_quiet_metrics();
	compare_ledger(page);
	delivered = metric(page, "ebpfdump_output_delivered_total", "");
	EXPECT(metric(page, "ebpfdump_output_queued", "") == 0, "what was queued is not delivered");
	free(page);
	loader_stop();
	EXPECT(loader_lines() == delivered, "%d lines were read, %.0f delivered", loader_lines(),
		delivered);
	compare_burst();
}

static void check_gone_reader(void)
{
	int64_t until = now_ms() + WAIT_MS;
	char *page;
	double closed;

	if (!loader_start(&(struct loader_options){.argv = loader_argv, .stopped = true}))
		return;
	loader_hang_up();
	make_burst();
	do {
		page = loader_quiet_metrics();
		compare_ledger(page);
		closed = metric(page, "ebpfdump_output_dropped_total", "reason=\"closed\"");
		free(page);
	} while (closed < 4 * BURST_CONNECTIONS * BURST_REQUESTS && now_ms() < until);
	EXPECT(closed >= 4 * BURST_CONNECTIONS * BURST_REQUESTS,
		"%.0f messages are counted as dropped: closed", closed);
	loader_stop();
}

/* What passed just before the signal is written. */
static void check_sigterm(void)
{
	struct conn k;
	bool ok;

	if (!loader_start(&(struct loader_options){.argv = loader_argv}))
		return;
	ok = conn_open(&k, V4);
	for (int i = 0; ok && i < 20; i++)
		ok = exchange_plain(&k, "/last");
	loader_stop();
	conn_close(&k);
	if (ok && gather(&k, 20, 20, &seen))
		for (int i = 0; i < 20; i++)
			compare_plain(&k, &seen, i, "/last");
}

static void check_sizes_run(void)
{
	static const char *const flags[] = {"--body-bytes", "128K", "--line-bytes", "512K", NULL};

	if (!loader_start(&(struct loader_options){
		    .argv = loader_argv, .more = flags, .line_max = 512 << 10}))
		return;
	check_sizes();
	loader_stop();
}

/* A container has a pid namespace of its own; the pids reported are the machine's all the same. */
static void check_pid_namespace(void)
{
	if (!loader_start(&(struct loader_options){.argv = loader_argv, .pidns = true}))
		return;
	check_own_traffic();
	check_simple();
	loader_stop();
}

static void check_interface(void)
{
	static const char *const flags[] = {"--interface", "nosuch0", "--interface", "lo", NULL};
	char *page, *log;

	if (!loader_start(&(struct loader_options){.argv = loader_argv, .more = flags}))
		return;
	log = loader_log();
	EXPECT(strstr(log, "nosuch0") && strstr(log, "warn"),
		"no warning of the interface that is not there: %s", log);
	exchange_over(V4);
	page = loader_quiet_metrics();
	EXPECT(metric(page, "ebpfdump_interface_missing", "interface=\"nosuch0\"") == 1 &&
			metric(page, "ebpfdump_interface_missing", "interface=\"lo\"") == 0,
		"ebpfdump_interface_missing does not tell");
	free(page);
	free(log);
	loader_stop();
}

static void check_no_interface(void)
{
	static const char *const flags[] = {"--interface", "nosuch0", NULL};
	struct conn k;
	char *page;

	if (!loader_start(&(struct loader_options){.argv = loader_argv, .more = flags}))
		return;
	if (conn_open(&k, V4))
		exchange_plain(&k, "/nowhere");
	conn_close(&k);
	page = loader_quiet_metrics();
	compare_ledger(page);
	EXPECT(metric(page, "ebpfdump_kernel_skipped_bytes_total", "reason=\"interface\"") > 0,
		"nothing was skipped for its interface");
	EXPECT(metric(page, "ebpfdump_kernel_captured_bytes_total", "") == 0,
		"something was captured");
	free(page);
	loader_stop();
	EXPECT(loader_lines() == 0, "%d messages from an interface that is not there",
		loader_lines());
}

static void filtered(const char *flag, const char *value, uint32_t views)
{
	const char *const flags[] = {flag, value, NULL};
	struct text resp = response(200, 5, 1);
	struct conn k;
	char *page;
	bool ok;

	if (!loader_start(
		    &(struct loader_options){.argv = loader_argv, .more = flags, .views = views})) {
		text_free(&resp);
		return;
	}
	ok = conn_open(&k, V4) && exchange_plain(&k, "/f/1") && exchange_plain(&k, "/f/2");
	conn_close(&k);
	if (ok && gather(&k, 2, 2, &seen))
		for (int i = 0; i < 2; i++)
			compare_all(&k, &seen, i,
				&(struct want){
					.method = "GET", .path = i ? "/f/2" : "/f/1", .body = ""},
				&(struct want){.status = 200, .body = body_of(&resp), .n = 5});
	page = loader_quiet_metrics();
	compare_ledger(page);
	free(page);
	loader_stop();
	text_free(&resp);
}

static void check_direction(void)
{
	filtered("--direction", "egress", 1 << REQ_OUT | 1 << RESP_OUT);
	filtered("--direction", "ingress", 1 << REQ_IN | 1 << RESP_IN);
}

static void check_message(void)
{
	filtered("--message", "request", 1 << REQ_OUT | 1 << REQ_IN);
	filtered("--message", "response", 1 << RESP_OUT | 1 << RESP_IN);
}

/* --check names every hook, and exits with 0. */
static void check_table(void)
{
	static const char *const hooks[] = {"fentry/tcp_sendmsg", "kprobe/tcp_sendmsg",
		"tp_btf/tcp_sendmsg_locked", "fexit/tcp_recvmsg", "kretprobe/tcp_recvmsg",
		"cgroup_skb/ingress"};
	static const char *const flags[] = {"--check", NULL};
	char *out, *err;
	int status = loader_run(loader_argv, flags, &out, &err);

	EXPECT(status == 0, "exit status %d: %s", status, err);
	for (size_t i = 0; i < ARRAY_SIZE(hooks); i++)
		EXPECT(strstr(out, hooks[i]), "%s is not in: %s", hooks[i], out);
	free(out);
	free(err);
}

/* ---- two hosts ---- */

/* The far host: a namespace with one end of a wire; answers two requests. */
static int far_host(int from_parent, int to_parent)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(8080)};
	struct text req = request("GET", "/far", 0, 0), resp = response(200, 5, 1);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), s;
	char byte;

	prctl(PR_SET_NAME, "checks-far");
	close_fd(&fd);
	if (netns_own() || write(to_parent, "1", 1) != 1 || read(from_parent, &byte, 1) != 1 ||
		netns_address("wire1", "10.77.0.2"))
		return 1;
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	inet_pton(AF_INET, "10.77.0.2", &a.sin_addr);
	if (bind(fd, (struct sockaddr *)&a, sizeof(a)) || listen(fd, 1) ||
		write(to_parent, "2", 1) != 1)
		return 2;
	s = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
	for (int i = 0; i < 2; i++)
		if (!recv_same(s, req.p, req.n) || !send_all(s, resp.p, resp.n))
			return 3;
	return recv(s, &byte, 1, 0) == 0 ? 0 : 4;
}

/* Across a wire between two network namespaces: each end's own device and process. */
static void check_two_hosts(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(8080)};
	struct text req = request("GET", "/far", 0, 0), resp = response(200, 5, 1);
	struct conn k = {.c = -1,
		.s = -1,
		.net = V4,
		.client_port = 33100,
		.server_port = 8080,
		.client = {getpid(), "kernel-checks"},
		.client_ip = "10.77.0.1",
		.server_ip = "10.77.0.2",
		.client_interface = "wire0",
		.server_interface = "wire1"};
	struct sockaddr_in from = {.sin_family = AF_INET, .sin_port = htons(k.client_port)};
	int down[2], up[2], err, status;
	struct timeval patience = {.tv_sec = WAIT_MS / 1000};
	bool ok = pipe2(down, O_CLOEXEC) == 0 && pipe2(up, O_CLOEXEC) == 0;
	pid_t child;
	char byte;

	fflush(stdout);
	child = fork();
	if (child == 0) {
		close(down[1]);
		close(up[0]);
		_exit(far_host(down[0], up[1]));
	}
	close_fd(&down[0]);
	close_fd(&up[1]);
	k.server = (struct process){.pid = child, .comm = "checks-far"};
	ok = ok && read(up[0], &byte, 1) == 1;
	err = ok ? netns_veth("wire0", child, "wire1") : -ECHILD;
	if (err == -EOPNOTSUPP || err == -EINVAL) {
		check_skip("this kernel has no veth here: %s", strerror(-err));
		close_fd(&down[1]);
		close_fd(&up[0]);
		waitpid(child, &status, 0);
		text_free(&req);
		text_free(&resp);
		return;
	}
	EXPECT(!err, "veth: %s", strerror(-err));
	err = err ? err : netns_address("wire0", "10.77.0.1");
	EXPECT(!err, "the address of wire0: %s", strerror(-err));
	ok = !err && write(down[1], "1", 1) == 1 && read(up[0], &byte, 1) == 1;
	inet_pton(AF_INET, "10.77.0.1", &from.sin_addr);
	inet_pton(AF_INET, "10.77.0.2", &a.sin_addr);
	k.c = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(k.c, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	ok = ok && bind(k.c, (struct sockaddr *)&from, sizeof(from)) == 0 &&
	     connect(k.c, (struct sockaddr *)&a, sizeof(a)) == 0;
	EXPECT(ok, "the far host cannot be reached: %s", strerror(errno));
	for (int i = 0; ok && i < 2; i++)
		ok = send_all(k.c, req.p, req.n) && recv_same(k.c, resp.p, resp.n);
	close_fd(&k.c);
	close_fd(&down[1]);
	close_fd(&up[0]);
	waitpid(child, &status, 0);
	EXPECT(status == 0, "the far host ended with status %x", status);
	if (ok && gather(&k, 2, 2, &seen))
		for (int i = 0; i < 2; i++)
			compare_plain(&k, &seen, i, "/far");
	text_free(&req);
	text_free(&resp);
}

/* ---- all of it ---- */

/* With one loader that runs all the time, started after open_early() and open_half(). */
static const struct check main_checks[] = {
	{"simple exchange, every key", check_simple},
	{"a connection older than the loader", check_early},
	{"a message that began before the loader", check_half},
	{"keep-alive, 100 exchanges", check_keep_alive},
	{"pipelining", check_pipelining},
	{"chunked both ways", check_chunked},
	{"writev and sendmsg, 1 to 70 buffers", check_writev},
	{"readv and recvmsg, 1 to 70 buffers", check_readv},
	{"64 KiB of headers", check_large_head},
	{"10 MiB up and down", check_large_bodies},
	{"sendfile", check_sendfile},
	{"sendfile, last on its connection", check_sendfile_last},
	{"splice into a socket", check_splice_out},
	{"splice out of a socket", check_splice_in},
	{"MSG_TRUNC", check_msg_trunc},
	{"IPv6", check_ipv6},
	{"IPv4-mapped IPv6", check_v4_mapped},
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
	{"HEAD, 204, 304", check_no_body},
	{"100 Continue, 102", check_100_continue},
	{"101 and CONNECT", check_tunnels},
	{"body ended by close", check_ended_by_close},
	{"body ended by shutdown", check_ended_by_shutdown},
	{"body ended by close, read late", check_ended_late},
	{"body ended by reset", check_ended_by_reset},
	{"body cut short", check_cut_short},
	{"binary bodies", check_binary_body},
	{"other protocols", check_other_protocols},
	{"HTTP/2", check_http2},
	{"every registered method", check_methods},
	{"unknown method", check_unknown_method},
	{"64 connections at a time", check_concurrent},
	{"TCP Fast Open", check_fast_open},
	{"two hosts", check_two_hosts},
	{"own traffic", check_own_traffic},
	{"ledger", check_ledger},
	{"seq", check_seq},
};

/* Each starts loaders of its own. */
static const struct check more_checks[] = {
	{"sizes around powers of two", check_sizes_run},
	{"--interface, one of two is there", check_interface},
	{"--interface, none is there", check_no_interface},
	{"--direction", check_direction},
	{"--message", check_message},
	{"ring buffer of one page", check_one_page},
	{"stopped reader", check_stopped_reader},
	{"reader gone", check_gone_reader},
	{"SIGTERM", check_sigterm},
	{"pid namespace", check_pid_namespace},
	{"--check", check_table},
};

static void start_main(void)
{
	loader_start(&(struct loader_options){.argv = loader_argv});
}

static const char *refused_text, *expected_hooks;

static const char *hooks_text(void)
{
	static const char *const names[] = {
		"none", "fentry", "kprobe", "tracepoint", "fexit", "kretprobe", "cgroup_skb"};
	static char text[64];

	snprintf(text, sizeof(text), "%s+%s", names[loader()->egress], names[loader()->ingress]);
	return text;
}

static void check_hooks(void)
{
	EXPECT(strcmp(hooks_text(), expected_hooks) == 0, "%s are in use instead of %s",
		hooks_text(), expected_hooks);
}

static void check_refused(void)
{
	char *out, *err;
	int status = loader_run(loader_argv, NULL, &out, &err);
	size_t lines = 0;

	for (const char *at = err; (at = strchr(at, '\n')); at++)
		lines++;
	EXPECT(status == 1, "exit status %d instead of 1", status);
	EXPECT(strstr(err, refused_text), "'%s' is not said: %s", refused_text, err);
	EXPECT(lines == 1 && strlen(err) < 2000, "it takes %zu lines to say: %s", lines, err);
	EXPECT(!*out, "there is output: %s", out);
	free(out);
	free(err);
}

int main(int argc, char **argv)
{
	const struct check start = {"the loader is ready", start_main};
	const struct check stop = {"the loader ends", loader_stop};
	const struct check hooks = {"the hooks are as expected", check_hooks};
	const struct check refused = {"the loader refuses this kernel", check_refused};
	const char *only = NULL;
	char prefix[128] = "";
	bool quick = false, unprivileged = false;
	int at = 1, err;

	for (; at < argc && strcmp(argv[at], "--") != 0; at++) {
		if (strcmp(argv[at], "--only") == 0 && at + 1 < argc)
			only = argv[++at];
		else if (strcmp(argv[at], "--refused") == 0 && at + 1 < argc)
			refused_text = argv[++at];
		else if (strcmp(argv[at], "--expect") == 0 && at + 1 < argc)
			expected_hooks = argv[++at];
		else if (strcmp(argv[at], "--unprivileged") == 0)
			unprivileged = true;
		else if (strcmp(argv[at], "--quick") == 0)
			quick = true;
		else
			break;
	}
	if (at + 1 >= argc || strcmp(argv[at], "--") != 0) {
		fprintf(stderr, "usage: kernel-checks [--only TEXT] [--quick] [--expect HOOKS] "
				"[--refused TEXT] [--unprivileged] -- LOADER [FLAG...]\n");
		return 2;
	}
	loader_argv = argv + at + 1;
	prctl(PR_SET_NAME, "kernel-checks");
	err = netns_own();
	if (err) {
		fprintf(stderr, "kernel-checks: no network namespace of its own: %s\n",
			strerror(-err));
		return 2;
	}
	if (refused_text) {
		if (unprivileged &&
			(setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534)))
			perror("kernel-checks: setresuid");
		check_run("", &refused, NULL);
		return check_summary();
	}
	open_early();
	open_half();
	check_run("", &start, NULL);
	if (loader()->ready) {
		snprintf(prefix, sizeof(prefix), "%s: ", hooks_text());
		if (expected_hooks)
			check_run(prefix, &hooks, NULL);
		for (size_t i = 0; i < ARRAY_SIZE(main_checks); i++)
			check_run(prefix, &main_checks[i], only);
		check_run(prefix, &stop, NULL);
		for (size_t i = 0; i < ARRAY_SIZE(more_checks) && !quick; i++)
			check_run(prefix, &more_checks[i], only);
	}
	return check_summary();
}
