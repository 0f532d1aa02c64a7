/* SPDX-License-Identifier: Apache-2.0 */
/* Every shape of a conversation, and what only looks like one. */
#include "test/kernel/netns.h"
#include "test/kernel/traffic.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* A request and its answer, each field of each view, from two processes. */
void check_simple(void)
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
		resp[n] = response(400 + n, (size_t)n * 13, (uint32_t)n + 1000);
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
				&(struct want){.status = 400 + i,
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
			resp = response(400 + i, (size_t)i * 3, (uint32_t)i);
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
					&(struct want){.status = 400 + i,
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
		("POST /chunked HTTP/1.1" CRLF "Host: h" CRLF
		 "Transfer-Encoding: chunked" CRLF CRLF),
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

/* ---- IPv6 ---- */

static void check_ipv6(void)
{
	exchange_over(V6);
}

static void check_v4_mapped(void)
{
	exchange_over(MAPPED_CLIENT);
	exchange_over(MAPPED_SERVER);
}

/* ---- messages whose end is not told by a length ---- */

/* HEAD, 204, 304: no body whatever the headers say. */
static void check_no_body(void)
{
	static const struct line lines[] = {{'c', "HEAD /h HTTP/1.1" CRLF "Host: h" CRLF CRLF},
		{'s', "HTTP/1.1 200 OK" CRLF "Content-Length: 1000" CRLF CRLF},
		{'c', "PUT /p HTTP/1.1" CRLF "Host: h" CRLF "Content-Length: 1" CRLF CRLF "x"},
		{'s', "HTTP/1.1 204 No Content" CRLF CRLF},
		{'c', "GET /n HTTP/1.1" CRLF "Host: h" CRLF "If-None-Match: *" CRLF CRLF},
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
	static const struct line lines[] = {
		{'c', "PUT /c HTTP/1.1" CRLF "Host: h" CRLF "Expect: 100-continue" CRLF
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
		{'c', "GET /ws HTTP/1.1" CRLF "Host: h" CRLF "Connection: Upgrade" CRLF
		      "Upgrade: w" CRLF CRLF},
		{'s', "HTTP/1.1 101 Switching Protocols" CRLF "Upgrade: w" CRLF CRLF},
		{'c', "GET /inside HTTP/1.1" CRLF "Host: h" CRLF CRLF},
		{'s', "HTTP/1.1 200 OK" CRLF CRLF}};
	static const struct line proxy[] = {
		{'c', "CONNECT example:443 HTTP/1.1" CRLF "Host: example:443" CRLF CRLF},
		{'s', "HTTP/1.1 200 Connected" CRLF CRLF},
		{'c', "GET /inside HTTP/1.1" CRLF "Host: h" CRLF CRLF},
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
	static const struct line lines[] = {{'c', "GET /short HTTP/1.1" CRLF "Host: h" CRLF CRLF},
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
			{'c', "GET /later HTTP/1.1" CRLF "Host: h" CRLF CRLF},
			{'s', "HTTP/1.1 200 OK" CRLF CRLF}};

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
		const char *target = strcmp(methods[n], "CONNECT") ? "/m" : "m:1";
		struct text req = request(methods[n], target, 0, 0),
			    resp = text("%s", "HTTP/1.1 404 No" CRLF "Content-Length: 0" CRLF CRLF);

		ok = conn_open(&k[n], V4) && exchange(&k[n], &req, &resp);
		conn_close(&k[n]);
		text_free(&req);
		text_free(&resp);
	}
	for (size_t i = 0; ok && i < n; i++) {
		const char *target = strcmp(methods[i], "CONNECT") ? "/m" : "m:1";
		struct text answers = text("%s %s", methods[i], target);

		if (gather(&k[i], 1, 1, &seen))
			compare_all(&k[i], &seen, 0,
				&(struct want){.method = methods[i], .path = target, .body = ""},
				&(struct want){.status = 404, .body = "", .answers = answers.p});
		text_free(&answers);
	}
}

/* An unknown method on a connection that is known to be HTTP. First on a connection it is nothing
 * that can be told from another protocol: it does no harm. */
static void check_unknown_method(void)
{
	static const struct line brew[] = {{'c', "BREW /pot HTTP/1.1" CRLF "Host: h" CRLF CRLF},
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

/* A server ignores an empty line before a request; so does the loader. */
static void check_empty_lines(void)
{
	static const struct line lines[] = {
		{'c', CRLF "GET /empty HTTP/1.1" CRLF "Host: h" CRLF CRLF},
		{'s', "HTTP/1.1 200 OK" CRLF "Content-Length: 0" CRLF CRLF}};
	struct conn k;
	bool ok;

	if (!conn_open(&k, V4))
		return;
	ok = converse(&k, lines, 2) && converse(&k, lines, 2) && exchange_plain(&k, "/after");
	conn_close(&k);
	if (!ok || !gather(&k, 3, 3, &seen))
		return;
	for (int i = 0; i < 2; i++)
		compare_all(&k, &seen, i,
			&(struct want){.method = "GET", .path = "/empty", .body = ""},
			&(struct want){.status = 200, .body = "", .answers = "GET /empty"});
	compare_plain(&k, &seen, 2, "/after");
}

/* Bodies of any bytes: base64. */
static void check_binary_body(void)
{
	static const char req[] = "POST /bin HTTP/1.1" CRLF "Host: h" CRLF
				  "Content-Length: 6" CRLF CRLF "\x00\xff\x01\x80\r\n";
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

/* ---- many at once: together they fit the ring buffer, however late the loader comes to it ---- */

#define CONNECTIONS 64
#define REQUESTS    6

struct peer {
	struct conn k;
	int id;
	bool ok;
};

/* Of connection `id`, exchange i, request (0) or response (1). */
static size_t size_of(int id, int i, int which)
{
	return (size_t)(id * 37 + i * 211 + which * 97) % 1500;
}

static struct text message_of(int id, int i, int which)
{
	char path[32];

	snprintf(path, sizeof(path), "/many/%d/%d", id, i);
	return which ? response(400 + i, size_of(id, i, 1), seed_of(id, i, 1))
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

/* Programs that the kernel leaves out while one of them is preempted on the same processor. */
static bool may_miss(void)
{
	return loader()->egress != HOOK_KPROBE || loader()->ingress == HOOK_FEXIT;
}

/* Compares the r-th request or response of a connection. */
static void compare_message(
	const struct peer *p, int r, enum view v, struct json_object *m, bool whole)
{
	int which = v == RESP_OUT || v == RESP_IN;
	struct text sent = message_of(p->id, r, which), path = text("/many/%d/%d", p->id, r);
	struct text answers = text("POST %s", path.p);
	struct want want = {.method = which ? NULL : "POST",
		.path = path.p,
		.status = which ? 400 + r : 0,
		.body = body_of(&sent),
		.n = size_of(p->id, r, which),
		.answers = whole && which && key(m, "request") ? answers.p : NULL};

	compare(&p->k, v, m, &want);
	text_free(&sent);
	text_free(&path);
	text_free(&answers);
}

/* Which of the connection's exchanges a message belongs to: by its path, or its status. */
static int exchange_of(struct json_object *m)
{
	const char *path = key_string(m, "path");
	int id, r;

	if (key_int(m, "status_code"))
		return (int)key_int(m, "status_code") - 400;
	return path && sscanf(path, "/many/%d/%d", &id, &r) == 2 ? r : -1;
}

/*
 * 64 connections at a time, no byte of one in another.
 *
 * A kretprobe has 10 instances, and a thread that waits inside a receive call occupies one; what
 * further ones receive is not seen. So there are fewer with it. Where a program is
 * left out, messages may be missing, but no more than runs that are counted as missed.
 */
static void check_concurrent(void)
{
	static struct peer peers[CONNECTIONS];
	int most = loader()->ingress == HOOK_KRETPROBE ? 4 : CONNECTIONS;
	double missed = metric_now("ebpfdump_kernel_missed_runs_total", "");
	pthread_t threads[CONNECTIONS][2];
	int n = 0, lacking = 0, unpaired = 0;

	while (n < most && conn_open(&peers[n].k, n % 2 ? V4 : V6)) {
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
	missed = metric_now("ebpfdump_kernel_missed_runs_total", "") - missed;
	for (int i = 0; i < n; i++) {
		bool whole = true;

		if (!may_miss() || missed == 0) {
			if (!gather(&peers[i].k, REQUESTS, REQUESTS, &seen))
				return;
		} else {
			gather_any(&peers[i].k, &seen);
		}
		/* where one is missing, what another answers may be off: docs/ARCHITECTURE.md */
		for (int v = 0; v < VIEWS; v++)
			whole = whole && seen.n[v] == REQUESTS;
		for (int v = 0; v < VIEWS; v++) {
			lacking += REQUESTS - seen.n[v];
			for (int m = 0; m < seen.n[v]; m++) {
				int r = exchange_of(seen.m[v][m]);

				EXPECT(r >= m && r < REQUESTS, "%s: message %d is number %d",
					view_name(v), m, r);
				compare_message(&peers[i], r, v, seen.m[v][m], whole);
				unpaired += (v == RESP_OUT || v == RESP_IN) &&
					    !key(seen.m[v][m], "request");
			}
		}
	}
	EXPECT(lacking <= missed, "%d messages are missing, %.0f missed runs are counted", lacking,
		missed);
	/* where a message is missing, its neighbour may lack its counterpart as well */
	EXPECT(unpaired <= 2 * missed, "%d responses answer nothing, %.0f missed runs are counted",
		unpaired, missed);
}

/* ---- a connection that is older than the loader ---- */

static struct conn early, early_idle, early_other;

void open_early(void)
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

void open_half(void)
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
	if (netns_own("lo") || write(to_parent, "1", 1) != 1 || read(from_parent, &byte, 1) != 1 ||
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

const struct check messages_checks[] = {
	{"simple exchange, every key", check_simple},
	{"a connection older than the loader", check_early},
	{"a message that began before the loader", check_half},
	{"keep-alive, 100 exchanges", check_keep_alive},
	{"pipelining", check_pipelining},
	{"chunked both ways", check_chunked},
	{"IPv6", check_ipv6},
	{"IPv4-mapped IPv6", check_v4_mapped},
	{"HEAD, 204, 304", check_no_body},
	{"100 Continue, 102", check_100_continue},
	{"101 and CONNECT", check_tunnels},
	{"body ended by close", check_ended_by_close},
	{"body ended by shutdown", check_ended_by_shutdown},
	{"body ended by close, read late", check_ended_late},
	{"body ended by reset", check_ended_by_reset},
	{"body cut short", check_cut_short},
	{"empty lines before a request", check_empty_lines},
	{"binary bodies", check_binary_body},
	{"other protocols", check_other_protocols},
	{"HTTP/2", check_http2},
	{"every registered method", check_methods},
	{"unknown method", check_unknown_method},
	{"64 connections at a time", check_concurrent},
	{"two hosts", check_two_hosts},
	{},
};
