/* SPDX-License-Identifier: Apache-2.0 */
#include "test/kernel/traffic.h"

#include <stdlib.h>
#include <string.h>

char *const *loader_argv;
struct seen seen;

/* Ingress is seen as packets: what the reader does with them does not matter. */
bool by_packets(void)
{
	return loader()->ingress == HOOK_CGROUP_SKB;
}

/* "METHOD path" with a body of n letters (0: none, and no Content-Length). */
struct text request(const char *method, const char *path, size_t n, uint32_t seed)
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

struct text response(int status, size_t n, uint32_t seed)
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

const char *body_of(const struct text *t)
{
	return strstr(t->p, CRLF CRLF) + 4;
}

/* Client to server, then back. Small messages only: one thread does both. */
bool exchange(struct conn *k, const struct text *req, const struct text *resp)
{
	return send_all(k->c, req->p, req->n) && recv_same(k->s, req->p, req->n) &&
	       send_all(k->s, resp->p, resp->n) && recv_same(k->c, resp->p, resp->n);
}

/* An exchange whose messages are forgotten: the next one's place on the connection tells whether
 * the stream is in step. */
bool exchange_plain(struct conn *k, const char *path)
{
	struct text req = request("GET", path, 0, 0), resp = response(200, 5, 1);
	bool ok = exchange(k, &req, &resp);

	text_free(&req);
	text_free(&resp);
	return ok;
}

/* Compares what exchange_plain() made. */
void compare_plain(const struct conn *k, const struct seen *s, int i, const char *path)
{
	struct text answers = text("GET %s", path), resp = response(200, 5, 1);

	compare_all(k, s, i, &(struct want){.method = "GET", .path = path, .body = ""},
		&(struct want){
			.status = 200, .body = body_of(&resp), .n = 5, .answers = answers.p});
	text_free(&answers);
	text_free(&resp);
}

void exchange_over(enum net net)
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

bool converse(struct conn *k, const struct line *lines, size_t n)
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

uint32_t seed_of(int id, int i, int which)
{
	return (uint32_t)(id * 1000 + i * 2 + which);
}
