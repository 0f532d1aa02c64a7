/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A body that is refused is still read to its end, and thrown away: a client that is answered while
 * it sends, and cut off, never reads why. Only who asks first (Expect: 100-continue) is told at
 * once.
 */
#include <errno.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/rand.h>
#include <signal.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "pkg/receiver/server.h"

#define CONNECTION_MEMORY \
	((size_t)64 << 10) /* longest head of a request, roughly; and what is read at a time */
#define IDLE_SECONDS 120   /* without a byte */
#define TICK_MS	     50	   /* how late a stream may hear of something */
#define SWEEP_MS     1000
#define DRAIN_MS     2000
#define KEY_MAX	     255 /* of an Idempotency-Key */
#define BACKLOG	     1024

/* The request of a connection. */
struct request {
	bool ingest;
	bool whole;		/* answered */
	struct verdict verdict; /* status 0: none yet */
	bool gzip;
	struct buf body;
	uint64_t charged; /* of memory_bytes */
};

/* ---- answers ---- */

static const char csp[] =
	"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
	"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

static bool add(struct MHD_Response *response, const char *name, const char *value)
{
	return MHD_add_response_header(response, name, value) == MHD_YES;
}

/* What a browser must not do with it. */
static bool add_for_browsers(struct MHD_Response *response)
{
	return add(response, "Cache-Control", "no-store") &&
	       add(response, "Content-Security-Policy", csp) &&
	       add(response, "Cross-Origin-Opener-Policy", "same-origin") &&
	       add(response, "Cross-Origin-Resource-Policy", "same-origin") &&
	       add(response, "Referrer-Policy", "no-referrer") &&
	       add(response, "X-Content-Type-Options", "nosniff") &&
	       add(response, "X-Frame-Options", "DENY");
}

static bool add_headers(struct MHD_Response *response, const struct answer *a)
{
	char text[128];

	if (!add(response, "Content-Type", a->type ? a->type : "text/plain; charset=utf-8") ||
		(!a->plain && !add_for_browsers(response)))
		return false;
	if (a->retry_after) {
		snprintf(text, sizeof(text), "%u", a->retry_after);
		if (!add(response, "Retry-After", text))
			return false;
	}
	if (a->download) {
		snprintf(text, sizeof(text), "attachment; filename=\"%s\"", a->download);
		if (!add(response, "Content-Disposition", text))
			return false;
	}
	if (a->status == MHD_HTTP_UNAUTHORIZED &&
		!add(response, "WWW-Authenticate", "Bearer realm=\"ebpfdump\""))
		return false;
	if (a->status == MHD_HTTP_UNSUPPORTED_MEDIA_TYPE &&
		(!add(response, "Accept", "application/json, application/x-ndjson") ||
			!add(response, "Accept-Encoding", "gzip")))
		return false;
	return (!a->allow || add(response, "Allow", a->allow)) &&
	       (!a->cookie || add(response, "Set-Cookie", a->cookie));
}

enum MHD_Result answer_with(struct receiver *r, struct MHD_Connection *c, const struct answer *a,
	struct MHD_Response *response)
{
	enum MHD_Result result = MHD_NO;

	if (!response)
		return MHD_NO;
	if (add_headers(response, a)) {
		atomic_fetch_add(&r->answers[MIN(a->status / 100, 5U)], 1);
		own_mark(r->own, c, response);
		result = MHD_queue_response(c, a->status, response);
	}
	MHD_destroy_response(response);
	return result;
}

enum MHD_Result answer_text(struct receiver *r, struct MHD_Connection *c, const struct answer *a,
	const char *text, size_t len)
{
	return answer_with(r, c, a,
		MHD_create_response_from_buffer(
			len, (void *)(uintptr_t)text, MHD_RESPMEM_MUST_COPY));
}

enum MHD_Result answer_error(
	struct receiver *r, struct MHD_Connection *c, unsigned int status, const char *text)
{
	struct answer a = {.status = status, .retry_after = status == 503 ? 5 : 0};
	char line[1100];
	int n = snprintf(line, sizeof(line), "%s\n", text);

	return answer_text(r, c, &a, line, MIN((size_t)MAX(n, 0), sizeof(line) - 1));
}

/* ---- who asks ---- */

static const char *header(struct MHD_Connection *c, const char *name)
{
	return MHD_lookup_connection_value(c, MHD_HEADER_KIND, name);
}

/* The name in "name:port", "[v6]:port". */
static struct span host_name(const char *host)
{
	if (host[0] == '[')
		return span_of(host, strcspn(host, "]") + (strchr(host, ']') ? 1 : 0));
	return span_of(host, strcspn(host, ":"));
}

static bool is_loopback_name(struct span name)
{
	struct in_addr address;
	char text[16];

	if (span_eq_nocase(name, SPAN("localhost")) || span_eq(name, SPAN("[::1]")))
		return true;
	if (name.len >= sizeof(text))
		return false;
	memcpy(text, name.p, name.len);
	text[name.len] = '\0';
	return inet_pton(AF_INET, text, &address) == 1 &&
	       ntohl(address.s_addr) >> 24 == IN_LOOPBACKNET;
}

/*
 * A page of another site can make a browser ask us, by a name of its own that it lets point here
 * (DNS rebinding); the Host header gives that away.
 */
static bool is_our_name(const struct receiver *r, const char *host)
{
	struct span name;

	if (!r->local && r->options.hosts_count == 0)
		return true;
	if (!host)
		return true; /* HTTP/1.0: no browser */
	name = host_name(host);
	for (size_t i = 0; i < r->options.hosts_count; i++)
		if (span_eq_nocase(name, span_str(r->options.hosts[i])))
			return true;
	return is_loopback_name(name);
}

bool is_ours(const struct receiver *r, struct MHD_Connection *c, const char **ret_why)
{
	const char *host = header(c, "Host"), *origin = header(c, "Origin"),
		   *site = header(c, "Sec-Fetch-Site");
	const char *authority = origin ? strstr(origin, "://") : NULL;

	*ret_why = "this receiver is not called so: see --host";
	if (!is_our_name(r, host))
		return false;
	*ret_why = "another site's page asks";
	if (site && strcmp(site, "same-origin") != 0 && strcmp(site, "none") != 0)
		return false;
	return !origin ||
	       (authority && host && span_eq_nocase(span_str(authority + 3), span_str(host)));
}

/* The cookie stands for the token, in browsers: they cannot send a header with a stream. */
static bool has_cookie(struct receiver *r, struct MHD_Connection *c)
{
	const char *given = MHD_lookup_connection_value(c, MHD_COOKIE_KIND, "ebpfdump");
	char wanted[65];

	if (!given)
		return false;
	secret_cookie(r->token, r->cookie_key, wanted);
	return wanted[0] && secret_equal(given, wanted);
}

static enum MHD_Result refuse_token(struct receiver *r, struct MHD_Connection *c)
{
	atomic_fetch_add(&r->counters.refused[REFUSED_TOKEN], 1);
	return answer_error(r, c, MHD_HTTP_UNAUTHORIZED, "the token is missing or wrong");
}

bool may_see(struct receiver *r, struct MHD_Connection *c, enum MHD_Result *ret_result)
{
	if (!r->token || secret_is_bearer(r->token, header(c, "Authorization")) || has_cookie(r, c))
		return true;
	*ret_result = refuse_token(r, c);
	return false;
}

enum MHD_Result api_session(struct receiver *r, struct MHD_Connection *c)
{
	struct answer a = {.status = MHD_HTTP_NO_CONTENT};
	char cookie[160], value[65];

	if (r->token && !secret_is_bearer(r->token, header(c, "Authorization")))
		return refuse_token(r, c);
	if (r->token) {
		secret_cookie(r->token, r->cookie_key, value);
		snprintf(cookie, sizeof(cookie), "ebpfdump=%s; Path=/; HttpOnly; SameSite=Strict",
			value);
		a.cookie = cookie;
	}
	return answer_text(r, c, &a, "", 0);
}

/* ---- POST /ingest ---- */

static void refuse(struct request *q, unsigned int status, enum refusal why, const char *text)
{
	if (q->verdict.status)
		return;
	q->verdict.status = status;
	q->verdict.refusal = why;
	err_set(&q->verdict.err, EIO, "%s", text);
}

static bool is_type(const char *type, const char *wanted)
{
	size_t len = strcspn(type, "; \t");

	return span_eq_nocase(span_of(type, len), span_str(wanted));
}

/* A form of another site's page cannot be of these types. */
static bool is_json_type(const char *type)
{
	static const char *const types[] = {"application/json", "application/x-ndjson",
		"application/ndjson", "application/jsonl", "application/x-jsonlines",
		"application/stream+json"};

	for (size_t i = 0; type && i < ARRAY_SIZE(types); i++)
		if (is_type(type, types[i]))
			return true;
	return false;
}

static void check_encoding(struct request *q, struct MHD_Connection *c)
{
	const char *encoding = header(c, "Content-Encoding");

	if (!encoding || encoding[0] == '\0' || strcasecmp(encoding, "identity") == 0)
		return;
	q->gzip = strcasecmp(encoding, "gzip") == 0 || strcasecmp(encoding, "x-gzip") == 0;
	if (!q->gzip)
		refuse(q, MHD_HTTP_UNSUPPORTED_MEDIA_TYPE, REFUSED_TYPE,
			"the only Content-Encoding that is understood is gzip");
}

/* What the head alone says. */
static void check_head(struct receiver *r, struct request *q, struct MHD_Connection *c)
{
	const char *length = header(c, "Content-Length"), *why;
	uint64_t n;

	if (!is_ours(r, c, &why))
		refuse(q, MHD_HTTP_FORBIDDEN, REFUSED_ORIGIN, why);
	if (r->token && !secret_is_bearer(r->token, header(c, "Authorization")))
		refuse(q, MHD_HTTP_UNAUTHORIZED, REFUSED_TOKEN, "the token is missing or wrong");
	if (!is_json_type(header(c, "Content-Type")))
		refuse(q, MHD_HTTP_UNSUPPORTED_MEDIA_TYPE, REFUSED_TYPE,
			"Content-Type must be application/json or application/x-ndjson");
	check_encoding(q, c);
	if (length && num_parse(span_str(length), 0, UINT64_MAX, &n) == 0 &&
		n > r->options.body_bytes)
		refuse(q, MHD_HTTP_CONTENT_TOO_LARGE, REFUSED_SIZE,
			"the body is larger than --body-bytes");
}

/* bytes more of memory_bytes are this request's. */
static bool charge(struct receiver *r, struct request *q, uint64_t bytes)
{
	int64_t now = atomic_fetch_add(&r->counters.memory, (int64_t)bytes) + (int64_t)bytes;

	q->charged += bytes;
	return now <= (int64_t)r->options.memory_bytes;
}

static void release(struct receiver *r, struct request *q)
{
	buf_done(&q->body);
	atomic_fetch_sub(&r->counters.memory, (int64_t)q->charged);
	q->charged = 0;
}

static void append(struct receiver *r, struct request *q, const char *p, size_t len)
{
	size_t before = q->body.cap;
	int n;

	if (q->verdict.status)
		return;
	n = buf_append(&q->body, p, len);
	if (n == -ENOBUFS)
		refuse(q, MHD_HTTP_CONTENT_TOO_LARGE, REFUSED_SIZE,
			"the body is larger than --body-bytes");
	else if (n < 0 || !charge(r, q, q->body.cap - before))
		refuse(q, MHD_HTTP_TOO_MANY_REQUESTS, REFUSED_MEMORY,
			"too much is being received: later");
	if (q->verdict.status)
		release(r, q);
}

/* The body is replaced by what it holds packed. */
static void unpack(struct receiver *r, struct request *q)
{
	CLEANUP(buf_done)
	struct buf out = BUF_INIT(r->options.body_bytes);
	int n = ingest_unpack(span_of(q->body.data, q->body.len), &out);
	struct buf packed;

	if (n == -EFBIG) {
		refuse(q, MHD_HTTP_CONTENT_TOO_LARGE, REFUSED_SIZE,
			"unpacked, the body is larger than --body-bytes");
	} else if (n == -ENOMEM || !charge(r, q, out.cap)) {
		refuse(q, MHD_HTTP_TOO_MANY_REQUESTS, REFUSED_MEMORY,
			"too much is being received: later");
	} else if (n < 0) {
		refuse(q, MHD_HTTP_BAD_REQUEST, REFUSED_SYNTAX, "the body is not gzip, or damaged");
	} else {
		packed = q->body;
		q->body = out;
		out = packed;
	}
}

static void take(struct receiver *r, struct request *q, struct MHD_Connection *c)
{
	const char *key = header(c, "Idempotency-Key");
	struct span body = span_of(q->body.data ? q->body.data : "", q->body.len);

	if (!q->verdict.status && r->hmac &&
		!secret_signed(r->hmac, body, header(c, "X-Ebpfdump-Signature")))
		refuse(q, MHD_HTTP_UNAUTHORIZED, REFUSED_SIGNATURE,
			"X-Ebpfdump-Signature is missing or wrong");
	if (!q->verdict.status && key && strlen(key) > KEY_MAX)
		refuse(q, MHD_HTTP_BAD_REQUEST, REFUSED_SYNTAX,
			"Idempotency-Key is longer than 255 bytes");
	if (!q->verdict.status && q->gzip)
		unpack(r, q);
	if (q->verdict.status)
		return;
	atomic_fetch_add(&r->counters.bytes, body.len);
	body = span_of(q->body.data ? q->body.data : "", q->body.len);
	ingest_take(&r->intake, body, key ? span_str(key) : (struct span){0}, &q->verdict);
}

static enum MHD_Result answer_ingest(
	struct receiver *r, struct request *q, struct MHD_Connection *c)
{
	struct answer a = {.status = q->verdict.status, .plain = true};
	char line[1100];
	int n;

	if (a.status == MHD_HTTP_OK) {
		a.type = "application/json";
		n = snprintf(line, sizeof(line), "{\"messages\":%llu%s}\n",
			(unsigned long long)q->verdict.messages,
			q->verdict.duplicate ? ",\"duplicate\":true" : "");
	} else {
		atomic_fetch_add(&r->counters.refused[q->verdict.refusal], 1);
		a.retry_after = a.status == MHD_HTTP_TOO_MANY_REQUESTS	   ? 1
				: a.status == MHD_HTTP_SERVICE_UNAVAILABLE ? 5
									   : 0;
		n = snprintf(line, sizeof(line), "%s\n", q->verdict.err.text);
		log_debug("ingest: %u: %s", a.status, q->verdict.err.text);
	}
	return answer_text(r, c, &a, line, MIN((size_t)MAX(n, 0), sizeof(line) - 1));
}

static enum MHD_Result begin_ingest(struct receiver *r, struct request *q, struct MHD_Connection *c)
{
	const char *expect = header(c, "Expect");

	atomic_fetch_add(&r->counters.requests, 1);
	q->body = BUF_INIT(r->options.body_bytes);
	check_head(r, q, c);
	if (!q->verdict.status || !expect)
		return MHD_YES;
	q->whole = true;
	return answer_ingest(r, q, c);
}

static enum MHD_Result end_ingest(struct receiver *r, struct request *q, struct MHD_Connection *c)
{
	take(r, q, c);
	release(r, q);
	q->whole = true;
	return answer_ingest(r, q, c);
}

/* ---- all else ---- */

static enum MHD_Result not_allowed(struct receiver *r, struct MHD_Connection *c, const char *allow)
{
	struct answer a = {.status = MHD_HTTP_METHOD_NOT_ALLOWED, .allow = allow};
	char line[64];
	int n = snprintf(line, sizeof(line), "only %s\n", allow);

	return answer_text(r, c, &a, line, (size_t)n);
}

static enum MHD_Result api_health(struct receiver *r, struct MHD_Connection *c)
{
	struct answer a = {.status = MHD_HTTP_OK};
	struct output_stats stats;
	char line[128];
	int n;

	output_stats(r->output, &stats);
	if (!stats.error)
		return answer_text(r, c, &a, "ok\n", 3);
	a.status = MHD_HTTP_SERVICE_UNAVAILABLE;
	n = snprintf(
		line, sizeof(line), "the output cannot be written: %s\n", strerror(stats.error));
	return answer_text(r, c, &a, line, (size_t)n);
}

static const struct receiver_file *find_page(const struct receiver *r, const char *url)
{
	for (size_t i = 0; i < r->options.pages_count; i++)
		if (strcmp(url, r->options.pages[i].path) == 0)
			return &r->options.pages[i];
	return NULL;
}

static enum MHD_Result answer_page(
	struct receiver *r, struct MHD_Connection *c, const struct receiver_file *page)
{
	struct answer a = {.status = MHD_HTTP_OK, .type = page->type};

	return answer_with(r, c, &a,
		MHD_create_response_from_buffer(page->content.len,
			(void *)(uintptr_t)page->content.p, MHD_RESPMEM_PERSISTENT));
}

/* What shows messages. */
static enum MHD_Result answer_api(struct receiver *r, struct MHD_Connection *c, const char *url)
{
	enum MHD_Result result = MHD_NO;

	if (!may_see(r, c, &result))
		return result;
	if (strcmp(url, "/api/exchanges") == 0)
		return api_exchanges(r, c);
	if (strncmp(url, "/api/exchanges/", 15) == 0)
		return api_exchange(r, c, url + 15);
	if (strcmp(url, "/api/stream") == 0)
		return api_stream(r, c);
	return answer_error(r, c, MHD_HTTP_NOT_FOUND,
		"not here: /api/exchanges, /api/exchanges/ID and /api/stream are");
}

static enum MHD_Result answer_rest(
	struct receiver *r, struct MHD_Connection *c, const char *url, const char *method)
{
	bool get = strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0;
	const struct receiver_file *page = find_page(r, url);
	const char *why;

	if (strcmp(url, "/ingest") == 0)
		return not_allowed(r, c, "POST");
	if (strcmp(url, "/api/session") == 0 && strcmp(method, "POST") != 0)
		return not_allowed(r, c, "POST");
	if (strcmp(url, "/api/session") != 0 && !get)
		return not_allowed(r, c, "GET, HEAD");
	/* Probes ask by addresses, and learn nothing. */
	if (strcmp(url, "/healthz") == 0)
		return api_health(r, c);
	/* A link from elsewhere may lead to the page. */
	if (page && is_our_name(r, header(c, "Host")))
		return answer_page(r, c, page);
	if (!is_ours(r, c, &why)) {
		atomic_fetch_add(&r->counters.refused[REFUSED_ORIGIN], 1);
		return answer_error(r, c, MHD_HTTP_FORBIDDEN, why);
	}
	if (strcmp(url, "/metrics") == 0)
		return api_metrics(r, c);
	if (strcmp(url, "/api/session") == 0)
		return api_session(r, c);
	if (strncmp(url, "/api/", 5) == 0)
		return answer_api(r, c, url);
	return answer_error(r, c, MHD_HTTP_NOT_FOUND,
		"not here: POST /ingest, /, /api/exchanges, /api/stream, /healthz and /metrics are");
}

/* ---- connections ---- */

static struct connection *connection_of(struct MHD_Connection *c)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(c, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

	return info ? info->socket_context : NULL;
}

/* The clock of a connection runs while we wait for it. */
static void wait_since(struct MHD_Connection *c, uint64_t ns)
{
	struct connection *k = connection_of(c);

	if (k)
		atomic_store(&k->since_ns, ns);
}

static enum MHD_Result handle(void *ctx, struct MHD_Connection *c, const char *url,
	const char *method, const char *version, const char *upload_data, size_t *upload_data_size,
	void **request_ctx)
{
	struct request *q = *request_ctx;
	struct receiver *r = ctx;

	if (!q) {
		q = calloc(1, sizeof(*q));
		if (!q)
			return MHD_NO;
		*request_ctx = q;
		q->ingest = strcmp(url, "/ingest") == 0 && strcmp(method, "POST") == 0;
		wait_since(c, clock_mono_ns());
		return q->ingest ? begin_ingest(r, q, c) : MHD_YES;
	}
	if (*upload_data_size > 0) {
		if (q->ingest)
			append(r, q, upload_data, *upload_data_size);
		*upload_data_size = 0;
		return MHD_YES;
	}
	wait_since(c, 0);
	if (q->ingest)
		return end_ingest(r, q, c);
	q->whole = true;
	return answer_rest(r, c, url, method);
}

static void completed(void *ctx, struct MHD_Connection *c, void **request_ctx,
	enum MHD_RequestTerminationCode code)
{
	struct request *q = *request_ctx;
	struct receiver *r = ctx;

	wait_since(c, clock_mono_ns());
	if (!q)
		return;
	if (!q->whole)
		atomic_fetch_add(&r->counters.aborted, 1);
	release(r, q);
	free(q);
	*request_ctx = NULL;
}

static void note_connection(void *ctx, struct MHD_Connection *c, void **socket_ctx,
	enum MHD_ConnectionNotificationCode code)
{
	const union MHD_ConnectionInfo *info;
	struct connection *k = *socket_ctx;
	struct receiver *r = ctx;

	pthread_mutex_lock(&r->connections_lock);
	if (code == MHD_CONNECTION_NOTIFY_STARTED) {
		info = MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);
		k = info ? calloc(1, sizeof(*k)) : NULL;
		if (k) {
			k->fd = info->connect_fd;
			atomic_store(&k->since_ns, clock_mono_ns());
			k->next = r->connections;
			k->link = &r->connections;
			if (k->next)
				k->next->link = &k->next;
			r->connections = k;
		}
		*socket_ctx = k;
		atomic_fetch_add(&r->counters.connections, 1);
		atomic_fetch_add(&r->counters.connections_accepted, 1);
	} else {
		if (k) {
			*k->link = k->next;
			if (k->next)
				k->next->link = k->link;
			free(k);
		}
		*socket_ctx = NULL;
		atomic_fetch_sub(&r->counters.connections, 1);
	}
	pthread_mutex_unlock(&r->connections_lock);
}

/* The server's own time-out is for silence; this is for who sends a byte now and then. */
static void sweep(void *ctx)
{
	struct receiver *r = ctx;
	uint64_t now = clock_mono_ns(), limit = r->options.request_timeout_ms * 1000000;

	pthread_mutex_lock(&r->connections_lock);
	/* libmicrohttpd closes an fd behind note_connection(), so that it is what it was. */
	for (struct connection *k = r->connections; k; k = k->next) {
		uint64_t since = atomic_load(&k->since_ns);

		if (since == 0 || now < since || now - since <= limit)
			continue;
		shutdown(k->fd, SHUT_RDWR);
		atomic_store(&k->since_ns, 0);
		atomic_fetch_add(&r->counters.connections_timed_out, 1);
	}
	pthread_mutex_unlock(&r->connections_lock);
	secret_refresh(r->token);
	secret_refresh(r->hmac);
	own_refresh(r->own);
}

static void tick(void *ctx)
{
	streams_wake(ctx);
}

static void log_server(void *ctx, const char *fmt, va_list ap) PRINTF(2, 0);

static void log_server(void *ctx, const char *fmt, va_list ap)
{
	char text[512];

	if (!log_enabled(LOG_DEBUG))
		return;
	vsnprintf(text, sizeof(text), fmt, ap);
	text[strcspn(text, "\n")] = '\0';
	log_debug("server: %s", text);
}

/* ---- the whole ---- */

static int start_server(struct receiver *r, struct err *err)
{
	sigset_t all, before;
	int fd;

	fd = listen_open(r->options.listen, &r->local, &r->port, err);
	if (fd < 0)
		return fd;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	/* The socket is the server's from here on. A pool of one thread is none. */
	r->daemon = MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_ERROR_LOG |
					     MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ITC,
		0, NULL, NULL, handle, r, MHD_OPTION_EXTERNAL_LOGGER, log_server, NULL,
		MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_THREAD_POOL_SIZE,
		r->options.threads > 1 ? (unsigned int)r->options.threads : 0U,
		MHD_OPTION_CONNECTION_LIMIT, (unsigned int)r->options.connections,
		MHD_OPTION_CONNECTION_TIMEOUT, (unsigned int)IDLE_SECONDS,
		MHD_OPTION_CONNECTION_MEMORY_LIMIT, CONNECTION_MEMORY, MHD_OPTION_NOTIFY_CONNECTION,
		note_connection, r, MHD_OPTION_NOTIFY_COMPLETED, completed, r, MHD_OPTION_END);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (!r->daemon) {
		close(fd);
		return err_set(err, ENOMEM, "the HTTP server does not start");
	}
	return 0;
}

static int init_parts(struct receiver *r, struct err *err)
{
	const struct receiver_options *o = &r->options;
	unsigned char random[40];
	uint64_t seed, instance;
	int n = 0;

	if (RAND_bytes(random, sizeof(random)) != 1)
		return err_set(err, EIO, "no random numbers");
	memcpy(&seed, random, sizeof(seed));
	memcpy(r->cookie_key, random + 8, sizeof(r->cookie_key));
	instance = clock_wall_ns() / 1000 ^ seed >> 1;
	snprintf(r->instance, sizeof(r->instance), "%016llx", (unsigned long long)instance);
	if (o->token_file)
		n = secret_new(o->token_file, SECRET_TOKEN, "--token-file", &r->token, err);
	if (n == 0 && o->hmac_file)
		n = secret_new(o->hmac_file, SECRET_KEY, "--hmac-file", &r->hmac, err);
	if (n == 0 && o->marker_key_file)
		n = own_new(o->marker_key_file, &r->own, err);
	if (n == 0)
		n = store_new(o->keep, o->keep_bytes, seed, &r->store, err);
	if (n == 0 && seen_new(o->idempotency_keys, &r->seen) < 0)
		n = err_set(err, ENOMEM, "no memory for --idempotency-keys");
	if (n == 0)
		n = output_new(o->output_fd, o->dir, o->file_bytes, o->files, o->output_buffer,
			&r->output, err);
	r->intake.output = r->output;
	r->intake.store = r->store;
	r->intake.seen = r->seen;
	r->intake.counters = &r->counters;
	r->intake.keep = o->keep;
	return n;
}

int receiver_new(struct loop *loop, const struct receiver_options *options,
	struct receiver **ret_receiver, struct err *err)
{
	CLEANUP(receiver_freep)
	struct receiver *r = calloc(1, sizeof(*r));
	int n;

	if (!r)
		return err_set(err, ENOMEM, "out of memory");
	r->options = *options;
	r->loop = loop;
	pthread_mutex_init(&r->intake.lock, NULL);
	pthread_mutex_init(&r->connections_lock, NULL);
	pthread_mutex_init(&r->streams_lock, NULL);
	n = init_parts(r, err);
	if (n < 0)
		return n;
	n = loop_add_timer(loop, TICK_MS, TICK_MS, tick, r, &r->ticker);
	if (n == 0)
		n = loop_add_timer(loop, SWEEP_MS, SWEEP_MS, sweep, r, &r->sweeper);
	if (n < 0)
		return err_set(err, -n, "event loop: %s", strerror(-n));
	n = start_server(r, err);
	if (n < 0)
		return n;
	*ret_receiver = TAKE(r);
	return 0;
}

/* Until no request is being received any more. */
static void drain(struct receiver *r)
{
	uint64_t until = clock_mono_ns() + DRAIN_MS * UINT64_C(1000000);

	while (atomic_load(&r->counters.memory) > 0 && clock_mono_ns() < until)
		usleep(5000);
}

static void stop_server(struct receiver *r)
{
	if (!r->daemon)
		return;
	atomic_store(&r->stopping, true);
	streams_wake(r);
	MHD_stop_daemon(r->daemon);
	r->daemon = NULL;
}

uint64_t receiver_stop(struct receiver *r, uint64_t timeout_ms)
{
	struct output_stats stats;
	MHD_socket fd = MHD_quiesce_daemon(r->daemon);

	if (fd != MHD_INVALID_SOCKET)
		close(fd);
	drain(r);
	stop_server(r);
	output_flush(r->output, timeout_ms);
	output_stats(r->output, &stats);
	return stats.lost;
}

void receiver_free(struct receiver *r)
{
	if (!r)
		return;
	stop_server(r);
	loop_remove(r->ticker);
	loop_remove(r->sweeper);
	output_free(r->output);
	store_free(r->store);
	seen_free(r->seen);
	secret_free(r->token);
	secret_free(r->hmac);
	own_free(r->own);
	pthread_mutex_destroy(&r->intake.lock);
	pthread_mutex_destroy(&r->connections_lock);
	pthread_mutex_destroy(&r->streams_lock);
	free(r);
}

void receiver_freep(struct receiver **r)
{
	receiver_free(*r);
	*r = NULL;
}

uint16_t receiver_port(const struct receiver *r)
{
	return r->port;
}

bool receiver_is_closed(const struct receiver *r)
{
	return output_is_closed(r->output);
}

uint64_t receiver_messages(const struct receiver *r)
{
	return atomic_load(&r->counters.messages);
}
