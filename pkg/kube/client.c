/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests over libcurl's multi interface, whose sockets and timer are sources of the loop.
 *
 * A request waits in the client's list until it is due (qps, Retry-After), runs in curl, and is
 * freed behind its callback. Curl must not be called from inside its own callbacks, from which
 * streams are handed on: what is cancelled there is only marked, and swept behind it.
 */
#include <curl/curl.h>
#include <errno.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/epoll.h>

#include "pkg/kube/internal.h"

#define URL_TCP		 "http://127.0.0.1:8001"
#define URL_UNIX	 "http://localhost"
#define QPS		 5.0
#define BURST		 10
#define BODY_MAX	 ((size_t)16 << 20)
#define REQUESTS_MAX	 256
#define CONNECT_MS	 2000L
#define TIMEOUT_MS	 30000
#define ATTEMPTS_MAX	 11 /* one, and 10 retries */
#define CUT_RETRY_NS	 KUBE_SECOND
#define WARNING_MAX	 1024
#define CONNECTIONS_KEPT 8L

enum state { WAITING, RUNNING };

struct kube_request {
	struct kube_client *client;
	struct kube_request *next, *prev;
	enum state state;
	bool cancelled;
	/* what is asked */
	enum kube_method method;
	uint32_t flags;
	uint32_t timeout_ms;
	kube_response_fn fn;
	void *ctx;
	bool is_stream;
	struct kube_stream stream;
	char *path, *url, *content_type, *body;
	size_t body_len;
	/* an attempt */
	uint32_t attempts;
	uint64_t due_ns, started_ns, answered_ns;
	CURL *easy;
	struct curl_slist *headers;
	struct buf answer;
	bool too_big;
	bool stopped; /* by on_data */
	long http_code;
	int64_t retry_after_s;
	char *warnings[KUBE_WARNINGS_MAX];
	uint32_t warning_count;
	char curl_error[CURL_ERROR_SIZE];
};

struct kube_client {
	struct kube_client_options options;
	char *url, *unix_socket, *user_agent;
	CURLM *multi;
	struct loop_source *curl_timer; /* what curl asked for */
	struct loop_source *pump_timer; /* the next request that is due */
	struct kube_request *first, *last;
	struct kube_bucket bucket;
	int in_curl;
	bool sweep; /* something that runs was cancelled inside curl */
	struct kube_client_stats stats;
};

/* ---- requests: memory ---- */

static void unlink_request(struct kube_request *q)
{
	struct kube_client *c = q->client;

	if (q->prev)
		q->prev->next = q->next;
	else
		c->first = q->next;
	if (q->next)
		q->next->prev = q->prev;
	else
		c->last = q->prev;
	if (!q->is_stream)
		c->stats.pending--;
}

static void append_request(struct kube_client *c, struct kube_request *q)
{
	q->client = c;
	q->prev = c->last;
	if (c->last)
		c->last->next = q;
	else
		c->first = q;
	c->last = q;
	if (!q->is_stream)
		c->stats.pending++;
}

static void end_attempt(struct kube_request *q)
{
	if (q->easy) {
		curl_multi_remove_handle(q->client->multi, q->easy);
		curl_easy_cleanup(q->easy);
		q->easy = NULL;
	}
	curl_slist_free_all(q->headers);
	q->headers = NULL;
	buf_done(&q->answer);
	for (uint32_t i = 0; i < q->warning_count; i++)
		free(q->warnings[i]);
	q->warning_count = 0;
	q->retry_after_s = -1;
	q->http_code = 0;
	q->answered_ns = 0;
	q->too_big = q->stopped = false;
	q->curl_error[0] = '\0';
	q->state = WAITING;
}

static void free_memory(struct kube_request *q)
{
	if (!q)
		return;
	free(q->path);
	free(q->url);
	free(q->content_type);
	free(q->body);
	free(q);
}

static void free_memoryp(struct kube_request **q)
{
	free_memory(*q);
}

static void free_request(struct kube_request *q)
{
	end_attempt(q);
	unlink_request(q);
	free_memory(q);
}

static void pump_in(struct kube_client *c, uint64_t ns)
{
	/* a millisecond late is never too early */
	kube_set_timer(c->pump_timer, ns == 0 ? 0 : ns / KUBE_MS + 1);
}

void kube_cancel(struct kube_request *q)
{
	if (!q)
		return;
	if (q->client->in_curl && q->state == RUNNING) {
		q->cancelled = true;
		q->client->sweep = true;
		return;
	}
	free_request(q);
}

/* ---- what curl tells ---- */

static bool header_is(struct span line, const char *name, struct span *ret_value)
{
	size_t len = strlen(name);

	if (line.len < len || strncasecmp(line.p, name, len) != 0)
		return false;
	line.p += len;
	line.len -= len;
	while (line.len > 0 && (*line.p == ' ' || *line.p == '\t')) {
		line.p++;
		line.len--;
	}
	*ret_value = line;
	return true;
}

static void keep_warning(struct kube_request *q, struct span value)
{
	char text[WARNING_MAX];
	char *copy;

	if (q->warning_count == KUBE_WARNINGS_MAX ||
		kube_warning_text(value, text, sizeof(text)) == 0)
		return;
	copy = strdup(text);
	if (copy)
		q->warnings[q->warning_count++] = copy;
}

static void answered(struct kube_request *q)
{
	q->answered_ns = kube_now_ns();
	curl_easy_getinfo(q->easy, CURLINFO_RESPONSE_CODE, &q->http_code);
	q->client->stats.last_answer_ns = q->answered_ns;
	if (q->is_stream && q->http_code == 200) {
		q->client->stats.last_contact_ns = q->answered_ns;
		q->stream.on_answer(q->ctx);
	}
}

static size_t on_header(char *p, size_t size, size_t n, void *ctx)
{
	struct kube_request *q = ctx;
	struct span line = span_of(p, size * n), value;
	uint32_t seconds;

	if (q->cancelled)
		return 0;
	while (line.len > 0 && (line.p[line.len - 1] == '\n' || line.p[line.len - 1] == '\r'))
		line.len--;
	if (line.len == 0) {
		long code = 0;

		/* of 1xx another head follows */
		curl_easy_getinfo(q->easy, CURLINFO_RESPONSE_CODE, &code);
		if (code >= 200 && q->answered_ns == 0)
			answered(q);
	} else if (header_is(line, "Retry-After:", &value)) {
		if (kube_retry_after(value, &seconds) == 0)
			q->retry_after_s = seconds;
	} else if (header_is(line, "Warning:", &value)) {
		keep_warning(q, value);
	}
	return q->cancelled ? 0 : size * n;
}

static size_t on_body(char *p, size_t size, size_t n, void *ctx)
{
	struct kube_request *q = ctx;

	if (q->cancelled)
		return 0;
	if (q->is_stream && q->http_code == 200) {
		q->client->stats.last_contact_ns = q->client->stats.last_answer_ns = kube_now_ns();
		if (q->stream.on_data(q->ctx, p, size * n) < 0)
			q->stopped = true;
		return q->cancelled || q->stopped ? 0 : size * n;
	}
	if (buf_append(&q->answer, p, size * n) < 0) {
		q->too_big = true;
		return 0;
	}
	return size * n;
}

/* ---- an attempt ---- */

static const char *method_name(enum kube_method method)
{
	static const char *const names[] = {"GET", "POST", "PUT", "PATCH", "DELETE"};

	return names[method];
}

static bool add_header(struct kube_request *q, const char *name, const char *value)
{
	char line[256];
	struct curl_slist *list;

	snprintf(line, sizeof(line), "%s:%s%s", name, *value ? " " : "", value);
	list = curl_slist_append(q->headers, line);
	if (list)
		q->headers = list;
	return list;
}

#define SET(option, value)                                          \
	do {                                                        \
		if (curl_easy_setopt(e, option, value) != CURLE_OK) \
			return -ENOMEM;                             \
	} while (0)

static int set_body(struct kube_request *q)
{
	CURL *e = q->easy;

	if (q->method == KUBE_GET)
		return 0;
	/* On a connection that was kept curl would send it again when that turns out to be closed,
	 * and a write must not be sent twice. */
	SET(CURLOPT_FRESH_CONNECT, 1L);
	SET(CURLOPT_FORBID_REUSE, 1L);
	if (q->body_len > 0 || q->method != KUBE_DELETE) {
		SET(CURLOPT_POST, 1L);
		SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)q->body_len);
		SET(CURLOPT_POSTFIELDS, q->body ? q->body : "");
		if (!add_header(q, "Content-Type",
			    q->content_type ? q->content_type : "application/json"))
			return -ENOMEM;
	}
	SET(CURLOPT_CUSTOMREQUEST, method_name(q->method));
	return 0;
}

static int set_up(struct kube_request *q)
{
	struct kube_client *c = q->client;
	CURL *e = q->easy;
	int r;

	SET(CURLOPT_URL, q->url);
	SET(CURLOPT_PATH_AS_IS, 1L);
	SET(CURLOPT_PROTOCOLS_STR, "http");
	SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	SET(CURLOPT_USERAGENT, c->user_agent);
	/* A proxy of the environment must not take what is for this machine (R1.20). */
	SET(CURLOPT_PROXY, "");
	SET(CURLOPT_NOPROXY, "*");
	SET(CURLOPT_NOSIGNAL, 1L);
	SET(CURLOPT_FOLLOWLOCATION, 0L);
	SET(CURLOPT_CONNECTTIMEOUT_MS, CONNECT_MS);
	SET(CURLOPT_TIMEOUT_MS, (long)q->timeout_ms);
	if (c->unix_socket)
		SET(CURLOPT_UNIX_SOCKET_PATH, c->unix_socket);
	SET(CURLOPT_ERRORBUFFER, q->curl_error);
	SET(CURLOPT_HEADERFUNCTION, on_header);
	SET(CURLOPT_HEADERDATA, q);
	SET(CURLOPT_WRITEFUNCTION, on_body);
	SET(CURLOPT_WRITEDATA, q);
	SET(CURLOPT_PRIVATE, q);
	r = set_body(q);
	if (r < 0)
		return r;
	if (!add_header(q, "Accept", "application/json") || !add_header(q, "Expect", ""))
		return -ENOMEM;
	SET(CURLOPT_HTTPHEADER, q->headers);
	return 0;
}

static int start(struct kube_request *q)
{
	int r;

	q->attempts++;
	q->client->stats.calls++;
	if (q->attempts > 1)
		q->client->stats.retries++;
	q->started_ns = kube_now_ns();
	q->answer = BUF_INIT(q->client->options.body_max);
	q->easy = curl_easy_init();
	if (!q->easy)
		return -ENOMEM;
	r = set_up(q);
	if (r == 0 && curl_multi_add_handle(q->client->multi, q->easy) != CURLM_OK)
		r = -ENOMEM;
	if (r < 0) {
		/* it was never added: only it is to be freed */
		curl_easy_cleanup(q->easy);
		q->easy = NULL;
		return r;
	}
	q->state = RUNNING;
	return 0;
}

/* ---- an answer ---- */

static enum kube_result of_curl(const struct kube_request *q, CURLcode code)
{
	if (q->too_big)
		return KUBE_TOO_BIG;
	switch (code) {
	case CURLE_COULDNT_CONNECT:
	case CURLE_COULDNT_RESOLVE_HOST:
		return KUBE_CONNECT;
	case CURLE_OPERATION_TIMEDOUT:
		return KUBE_TIMEOUT;
	case CURLE_PARTIAL_FILE:
	case CURLE_GOT_NOTHING:
	case CURLE_SEND_ERROR:
	case CURLE_RECV_ERROR:
		return KUBE_CUT;
	case CURLE_OUT_OF_MEMORY:
		return KUBE_OTHER;
	default:
		return KUBE_BAD_ANSWER;
	}
}

static bool is_json(const char *content_type)
{
	return content_type && strncasecmp(content_type, "application/json", 16) == 0 &&
	       (content_type[16] == '\0' || content_type[16] == ';' || content_type[16] == ' ');
}

static void describe(const struct kube_request *q, CURLcode code, const char *why,
	const struct kube_response *a, char *out, size_t size)
{
	char text[512];

	if (a->result == KUBE_OK) {
		*out = '\0';
		return;
	}
	if (*why)
		kube_one_line(span_str(why), text, sizeof(text));
	else if (code != CURLE_OK)
		kube_one_line(span_str(*q->curl_error ? q->curl_error : curl_easy_strerror(code)),
			text, sizeof(text));
	else if (a->status.present)
		kube_one_line(span_str(a->status.message), text, sizeof(text));
	else
		kube_one_line(a->body, text, MIN(sizeof(text), (size_t)200));
	if (a->http_code)
		snprintf(out, size, "%s %s: %d: %s", method_name(q->method), q->path, a->http_code,
			text);
	else
		snprintf(out, size, "%s %s: %s", method_name(q->method), q->path, text);
}

static void note_contact(struct kube_request *q, const struct kube_response *a)
{
	struct kube_client_stats *s = &q->client->stats;

	if (a->http_code == 0)
		return;
	if (a->result == KUBE_UNREACHABLE) {
		bool tls = a->body.len > 0 && (memmem(a->body.p, a->body.len, "x509:", 5) ||
						      memmem(a->body.p, a->body.len, "tls:", 4));

		if (!tls)
			s->tls_trouble_since_ns = 0;
		else if (s->tls_trouble_since_ns == 0)
			s->tls_trouble_since_ns = q->answered_ns;
		return;
	}
	if (a->result != KUBE_FILTERED) {
		s->last_contact_ns = q->answered_ns;
		s->tls_trouble_since_ns = 0;
	}
}

static void observe(struct kube_request *q, const struct kube_response *a)
{
	struct kube_client *c = q->client;
	uint64_t end = q->is_stream && q->answered_ns ? q->answered_ns : kube_now_ns();
	char resource[64];
	struct kube_call call = {
		.verb = kube_call_verb(q->method, q->path, q->content_type, q->is_stream),
		.resource = resource,
		.http_code = a->http_code,
		.result = a->result,
		.latency_ns = end - q->started_ns,
	};

	/* one that was not sent is no call, and took no time */
	if (!c->options.observe || q->attempts == 0)
		return;
	kube_call_resource(q->path, resource, sizeof(resource));
	c->options.observe(c->options.ctx, &call);
}

/* Whether it is tried again, and when (R1.14): reads alone. What a write says may be out of date by
 * then, and whoever asked for it knows better. */
static bool retries(struct kube_request *q, const struct kube_response *a)
{
	uint64_t wait_ns;

	if (q->method != KUBE_GET || (q->flags & KUBE_NO_RETRY) || q->attempts >= ATTEMPTS_MAX)
		return false;
	if ((a->http_code == 429 || a->http_code >= 500) && a->retry_after_s >= 0)
		wait_ns = (uint64_t)a->retry_after_s * KUBE_SECOND;
	else if (a->result == KUBE_CUT)
		wait_ns = CUT_RETRY_NS;
	else
		return false;
	end_attempt(q);
	q->due_ns = kube_now_ns() + wait_ns;
	return true;
}

/* Its callback, and its end. The body has been read: object is its JSON, or NULL. */
static void deliver(struct kube_request *q, CURLcode code, const char *why, struct kube_response *a)
{
	char error[1024];

	describe(q, code, why, a, error, sizeof(error));
	a->error = error;
	observe(q, a);
	if (retries(q, a))
		return;
	/* Not in the list any more: the callback may start others, and cancel all it knows. */
	unlink_request(q);
	if (q->fn)
		q->fn(q->ctx, a);
	end_attempt(q);
	free_memory(q);
}

static void complete(struct kube_request *q, CURLcode code)
{
	CLEANUP(json_putp)
	struct json_object *object = NULL;
	struct kube_response a = {.http_code = (int)q->http_code,
		.content_type = "",
		.body = span_of(q->answer.data, q->answer.len),
		.retry_after_s = q->retry_after_s};
	struct err err = {0};
	char *type = NULL;
	bool json;

	curl_easy_getinfo(q->easy, CURLINFO_CONTENT_TYPE, &type);
	if (type)
		a.content_type = type;
	json = is_json(type);
	if (code == CURLE_OK && json && !(q->is_stream && q->http_code == 200))
		json = kube_json_parse(a.body, &object, &err) == 0;
	a.object = object;
	kube_status_parse(object, &a.status);
	for (uint32_t i = 0; i < q->warning_count; i++)
		a.warnings[a.warning_count++] = q->warnings[i];
	if (code != CURLE_OK)
		a.result = of_curl(q, code);
	else if (err.code && q->http_code >= 200 && q->http_code <= 299)
		a.result = KUBE_BAD_ANSWER;
	else
		a.result = kube_classify(q->http_code, json, &a.status);
	note_contact(q, &a);
	deliver(q, code, err.text, &a);
}

static void refuse(struct kube_request *q, enum kube_result result, const char *why)
{
	struct kube_response a = {.result = result,
		.content_type = "",
		.status = {.reason = "", .message = ""},
		.retry_after_s = -1};

	q->flags |= KUBE_NO_RETRY;
	deliver(q, CURLE_OK, why, &a);
}

/* ---- the loop's side ---- */

static void sweep(struct kube_client *c)
{
	struct kube_request *next;

	if (!c->sweep)
		return;
	c->sweep = false;
	for (struct kube_request *q = c->first; q; q = next) {
		next = q->next;
		if (q->cancelled)
			free_request(q);
	}
}

static bool may_go(struct kube_request *q)
{
	const struct kube_client_options *o = &q->client->options;

	return q->method == KUBE_GET || (q->flags & KUBE_UNGUARDED) || !o->may_write ||
	       o->may_write(o->ctx);
}

/* Starts what is due. After a callback, which may have changed the list, from its beginning. */
static void pump(struct kube_client *c)
{
	uint64_t now = kube_now_ns(), wait = UINT64_MAX, w;
	struct kube_request *q = c->first;
	bool dry = false; /* the bucket: later ones wait behind */

	while (q) {
		struct kube_request *next = q->next;

		if (q->state == RUNNING) {
			q = next;
			continue;
		}
		if (q->due_ns > now) {
			wait = MIN(wait, q->due_ns - now);
			q = next;
			continue;
		}
		if (!(q->flags & KUBE_UNLIMITED)) {
			w = dry ? 1 : kube_bucket_take(&c->bucket, now);
			if (w > 0) {
				wait = dry ? wait : MIN(wait, w);
				dry = true;
				q = next;
				continue;
			}
		}
		if (!may_go(q)) {
			c->stats.not_allowed++;
			refuse(q, KUBE_NOT_ALLOWED, "not sent: this process may not write now");
			q = c->first;
		} else if (start(q) < 0) {
			refuse(q, KUBE_OTHER, "out of memory");
			q = c->first;
		} else {
			q = next;
		}
	}
	if (wait != UINT64_MAX)
		pump_in(c, wait);
}

static void on_pump(void *ctx)
{
	pump(ctx);
}

static void act(struct kube_client *c, curl_socket_t fd, int what)
{
	CURLMsg *message;
	int running, left;

	c->in_curl++;
	curl_multi_socket_action(c->multi, fd, what, &running);
	c->in_curl--;
	sweep(c);
	while ((message = curl_multi_info_read(c->multi, &left)) != NULL) {
		struct kube_request *q = NULL;
		CURLcode code = message->data.result;

		if (message->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&q);
		complete(q, code);
	}
	pump(c);
}

static void on_curl_timer(void *ctx)
{
	act(ctx, CURL_SOCKET_TIMEOUT, 0);
}

static void on_socket(void *ctx, int fd, uint32_t events)
{
	int what = 0;

	if (events & EPOLLIN)
		what |= CURL_CSELECT_IN;
	if (events & EPOLLOUT)
		what |= CURL_CSELECT_OUT;
	if (events & (EPOLLERR | EPOLLHUP))
		what |= CURL_CSELECT_ERR;
	act(ctx, fd, what);
}

static int watch_socket(CURL *easy, curl_socket_t fd, int what, void *ctx, void *ctx_of_socket)
{
	struct kube_client *c = ctx;
	struct loop_source *source = ctx_of_socket;
	uint32_t events = 0;

	if (what == CURL_POLL_REMOVE) {
		loop_remove(source);
		curl_multi_assign(c->multi, fd, NULL);
		return 0;
	}
	if (what == CURL_POLL_IN || what == CURL_POLL_INOUT)
		events |= EPOLLIN;
	if (what == CURL_POLL_OUT || what == CURL_POLL_INOUT)
		events |= EPOLLOUT;
	if (source)
		return loop_change_fd(source, events) < 0 ? -1 : 0;
	if (loop_add_fd(c->options.loop, fd, events, on_socket, c, &source) < 0)
		return -1;
	curl_multi_assign(c->multi, fd, source);
	return 0;
}

static int set_curl_timer(CURLM *multi, long timeout_ms, void *ctx)
{
	struct kube_client *c = ctx;

	kube_set_timer(c->curl_timer, timeout_ms < 0 ? KUBE_NEVER_MS : (uint64_t)timeout_ms);
	return 0;
}

/* ---- made and freed ---- */

static int copy(char **out, const char *text)
{
	*out = strdup(text);
	return *out ? 0 : -ENOMEM;
}

/* Without slashes at its end: the proxy sends "//apis" elsewhere. */
static int copy_url(char **out, const char *url)
{
	size_t len = strlen(url);

	while (len > 0 && url[len - 1] == '/')
		len--;
	*out = strndup(url, len);
	return *out ? 0 : -ENOMEM;
}

static int set_up_client(struct kube_client *c)
{
	const struct kube_client_options *o = &c->options;
	int r = 0;

	if (copy_url(&c->url, o->url	       ? o->url
			      : o->unix_socket ? URL_UNIX
					       : URL_TCP) < 0 ||
		copy(&c->user_agent, o->user_agent ? o->user_agent
						   : "ebpfdump-operator/" EBPFDUMP_VERSION) < 0 ||
		(o->unix_socket && copy(&c->unix_socket, o->unix_socket) < 0))
		return -ENOMEM;
	r = loop_add_timer(o->loop, KUBE_NEVER_MS, 0, on_curl_timer, c, &c->curl_timer);
	if (r == 0)
		r = loop_add_timer(o->loop, KUBE_NEVER_MS, 0, on_pump, c, &c->pump_timer);
	if (r < 0)
		return r;
	c->multi = curl_multi_init();
	if (!c->multi)
		return -ENOMEM;
	curl_multi_setopt(c->multi, CURLMOPT_SOCKETFUNCTION, watch_socket);
	curl_multi_setopt(c->multi, CURLMOPT_SOCKETDATA, c);
	curl_multi_setopt(c->multi, CURLMOPT_TIMERFUNCTION, set_curl_timer);
	curl_multi_setopt(c->multi, CURLMOPT_TIMERDATA, c);
	curl_multi_setopt(c->multi, CURLMOPT_MAXCONNECTS, CONNECTIONS_KEPT);
	return 0;
}

int kube_client_new(
	const struct kube_client_options *options, struct kube_client **ret_client, struct err *err)
{
	CLEANUP(kube_client_freep)
	struct kube_client *c = NULL;
	int r;

	/* Plain HTTP alone: without TLS's tables. */
	if (curl_global_init(CURL_GLOBAL_NOTHING) != CURLE_OK)
		return err_set(err, ENOMEM, "kube: libcurl cannot be set up");
	c = calloc(1, sizeof(*c));
	if (!c)
		return err_set(err, ENOMEM, "kube: out of memory");
	c->options = *options;
	if (c->options.qps <= 0)
		c->options.qps = QPS;
	if (c->options.burst == 0)
		c->options.burst = BURST;
	if (c->options.body_max == 0)
		c->options.body_max = BODY_MAX;
	if (c->options.requests_max == 0)
		c->options.requests_max = REQUESTS_MAX;
	kube_bucket_init(&c->bucket, c->options.qps, c->options.burst, kube_now_ns());
	r = set_up_client(c);
	if (r < 0)
		return err_set(err, -r, "kube: the client cannot be set up: %s", strerror(-r));
	*ret_client = TAKE(c);
	return 0;
}

void kube_client_free(struct kube_client *c)
{
	if (!c)
		return;
	while (c->first)
		free_request(c->first);
	if (c->multi)
		curl_multi_cleanup(c->multi);
	loop_remove(c->curl_timer);
	loop_remove(c->pump_timer);
	free(c->url);
	free(c->unix_socket);
	free(c->user_agent);
	free(c);
}

void kube_client_freep(struct kube_client **client)
{
	kube_client_free(*client);
	*client = NULL;
}

void kube_set_timer(struct loop_source *timer, uint64_t ms)
{
	/* of a descriptor that is ours, with bounds that hold: it cannot fail */
	if (loop_set_timer(timer, ms, 0) < 0)
		log_debug("kube: a timer could not be set");
}

struct loop *kube_client_loop(const struct kube_client *c)
{
	return c->options.loop;
}

void kube_client_stats(const struct kube_client *c, struct kube_client_stats *ret_stats)
{
	*ret_stats = c->stats;
}

/* ---- asked for ---- */

static int fill(
	struct kube_request *q, const struct kube_client *c, const struct kube_request_options *o)
{
	CLEANUP(buf_done)
	struct buf url = BUF_INIT(65536);

	q->method = o->method;
	q->flags = o->flags;
	q->timeout_ms = o->timeout_ms ? o->timeout_ms : TIMEOUT_MS;
	q->fn = o->fn;
	q->ctx = o->ctx;
	q->retry_after_s = -1;
	if (buf_printf(&url, "%s%s%s%s", c->url, o->path, o->query ? "?" : "",
		    o->query ? o->query : "") < 0 ||
		buf_append(&url, "", 1) < 0)
		return -EINVAL;
	q->url = TAKE(url.data);
	url = BUF_INIT(0);
	if (copy(&q->path, o->path) < 0 ||
		(o->content_type && copy(&q->content_type, o->content_type) < 0))
		return -ENOMEM;
	if (o->body.len > 0) {
		q->body = malloc(o->body.len);
		if (!q->body)
			return -ENOMEM;
		memcpy(q->body, o->body.p, o->body.len);
		q->body_len = o->body.len;
	}
	return 0;
}

static int ask(struct kube_client *c, const struct kube_request_options *o,
	const struct kube_stream *stream, struct kube_request **ret_request)
{
	CLEANUP(free_memoryp)
	struct kube_request *q = NULL;
	int r;

	if (!o->path || o->path[0] != '/' || strpbrk(o->path, " ?#\r\n"))
		return -EINVAL;
	if (!stream && c->stats.pending >= c->options.requests_max) {
		c->stats.refused++;
		return -ENOBUFS;
	}
	q = calloc(1, sizeof(*q));
	if (!q)
		return -ENOMEM;
	r = fill(q, c, o);
	if (r < 0)
		return r;
	if (stream) {
		q->is_stream = true;
		q->stream = *stream;
		q->flags |= KUBE_UNLIMITED | KUBE_NO_RETRY;
	}
	append_request(c, q);
	pump_in(c, 0);
	if (ret_request)
		*ret_request = q;
	q = NULL; /* the list's now */
	return 0;
}

int kube_request(struct kube_client *c, const struct kube_request_options *o,
	struct kube_request **ret_request)
{
	return ask(c, o, NULL, ret_request);
}

int kube_request_stream(struct kube_client *c, const struct kube_request_options *o,
	const struct kube_stream *stream, struct kube_request **ret_request)
{
	return ask(c, o, stream, ret_request);
}
