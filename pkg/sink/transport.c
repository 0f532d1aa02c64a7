/* SPDX-License-Identifier: Apache-2.0 */
#include <curl/curl.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <zlib.h>

#include "pkg/sink/retry.h"
#include "pkg/sink/transport.h"

#define NEVER	       UINT64_MAX
#define NS_PER_MS      UINT64_C(1000000)
#define CONNECT_MS     4000L /* a SYN is sent at 0, 1 and 3 s: the last has a second to be answered */
#define DNS_CACHE_S    2L    /* as long as a receiver that moved is looked for at its old address */
#define CONNECTION_S   300L /* then the name is asked for again */
#define CA_CACHE_S     60L  /* then the CA file is read again */
#define UPLOAD_BUFFER  (256L << 10)
#define RECEIVE_BUFFER (16L << 10)
#define ROUNDS_MAX     256 /* in a turn of the loop: others have their turn, too */
#define SWEEP_MS       1000
#define KEPT	       1024 /* bytes of an answer, so that a secret at the end of what is shown is known */
#define GZIP_LEVEL     1 /* the loader must be light: 3 is half as fast, and 5 % smaller */

/* The lines that the loader sets. Their text has a fixed place; the list is put together for each
 * request. */
enum head {
	HEAD_TYPE,
	HEAD_EXPECT,
	HEAD_KEY,
	HEAD_ENCODING,
	HEAD_AGAIN,
	HEAD_SIGNATURE,
	HEAD_HOOK,
	HEAD_MAX
};

struct slot {
	struct transport *t;
	CURL *easy;
	struct transport_request *r; /* NULL: free */
	uint64_t began_ns;
	/* what is sent */
	struct span rest; /* of the piece being read */
	size_t bytes;	  /* of the body as sent */
	char *packed;	  /* gzip */
	size_t packed_cap;
	struct curl_slist lines[HEAD_MAX + SECRETS_LINES_MAX];
	char key[128], signature[128], hook[SINK_LINE_MAX];
	char *user_lines; /* a copy: the file may change while curl reads them */
	uint64_t user_generation;
	size_t n_user;
	/* what came back */
	char error[CURL_ERROR_SIZE];
	char kept[KEPT];
	size_t n_kept, n_body, n_head;
	char retry_after[64];
	size_t n_retry_after; /* 0: none */
};

struct sock {
	struct sock *next;
	struct transport *t;
	curl_socket_t fd;
	bool ours;   /* opened by us, closed by us; else libcurl's (a resolver's pipe) */
	bool parked; /* libcurl does not want to hear of it now */
	struct loop_source *source;
	uint32_t events;
};

struct transport {
	struct loop *loop;
	CURLM *multi;
	struct secrets *secrets;
	struct transport_ops ops;
	void *ctx;
	sink_line_fn line;
	void *line_ctx;
	bool gzip, plain;
	z_stream z;
	bool z_ready;
	struct sock *socks;
	struct loop_source *timer, *sweep;
	uint64_t armed_ns; /* when the timer comes; NEVER */
	uint64_t curl_ns;  /* when libcurl wants to be called */
	uint64_t idle_ns;  /* when idle() wants to be */
	bool running;	   /* inside run() */
	bool closing;
	uint64_t generation; /* of the secrets */
	uint32_t n_slots, n_busy;
	struct slot *slots;
	char *url, *ca, *cert, *key;
	uint64_t timeout_ms;
};

/* ---- the body ---- */

static void rewind_body(struct slot *slot)
{
	slot->rest = span_of(NULL, 0);
	slot->r->rewind(slot->r->body);
}

static size_t on_read(char *out, size_t size, size_t n, void *ctx)
{
	struct slot *slot = ctx;
	size_t room = size * n, len = 0;

	while (len < room) {
		size_t part;

		if (slot->rest.len == 0)
			slot->rest = slot->r->next(slot->r->body);
		if (slot->rest.len == 0)
			break;
		part = MIN(slot->rest.len, room - len);
		memcpy(out + len, slot->rest.p, part);
		slot->rest = span_of(slot->rest.p + part, slot->rest.len - part);
		len += part;
	}
	return len;
}

/* Only to the beginning: a connection that was kept open turned out to be closed. */
static int on_seek(void *ctx, curl_off_t offset, int origin)
{
	struct slot *slot = ctx;

	if (offset != 0 || origin != SEEK_SET)
		return CURL_SEEKFUNC_CANTSEEK;
	rewind_body(slot);
	return CURL_SEEKFUNC_OK;
}

/* Calls fn for each piece of the body. */
static bool each_piece(
	struct transport_request *r, bool (*fn)(void *ctx, struct span piece), void *ctx)
{
	struct span piece;

	if (r->one.p)
		return fn(ctx, r->one);
	r->rewind(r->body);
	while ((piece = r->next(r->body)).len > 0)
		if (!fn(ctx, piece))
			return false;
	return true;
}

static bool sign_piece(void *ctx, struct span piece)
{
	return secrets_sign_add(ctx, piece);
}

static bool sign(struct slot *slot)
{
	struct secrets *s = slot->t->secrets;
	static const char name[] = "X-Ebpfdump-Signature: ";
	bool ok = secrets_sign_begin(s);

	if (ok && slot->t->gzip)
		ok = secrets_sign_add(s, span_of(slot->packed, slot->bytes));
	else if (ok)
		ok = each_piece(slot->r, sign_piece, s);
	memcpy(slot->signature, name, sizeof(name) - 1);
	return ok && secrets_sign_end(s, slot->signature + sizeof(name) - 1);
}

static bool pack_piece(void *ctx, struct span piece)
{
	z_stream *z = ctx;

	z->next_in = (Bytef *)(uintptr_t)piece.p;
	z->avail_in = (uInt)piece.len;
	return deflate(z, Z_NO_FLUSH) == Z_OK && z->avail_in == 0;
}

static bool pack(struct slot *slot)
{
	z_stream *z = &slot->t->z;
	size_t need;

	if (deflateReset(z) != Z_OK)
		return false;
	need = deflateBound(z, slot->r->bytes) + 64;
	if (need > slot->packed_cap) {
		free(slot->packed);
		slot->packed_cap = 0;
		slot->packed = malloc(need);
		if (!slot->packed)
			return false;
		slot->packed_cap = need;
	}
	z->next_out = (Bytef *)slot->packed;
	z->avail_out = (uInt)slot->packed_cap;
	if (!each_piece(slot->r, pack_piece, z) || deflate(z, Z_FINISH) != Z_STREAM_END)
		return false;
	slot->bytes = slot->packed_cap - z->avail_out;
	return true;
}

/* ---- header lines ---- */

/* slot->user_lines gets the lines of the file, behind each other. */
static int copy_user_lines(struct slot *slot)
{
	const char *const *lines;
	size_t n = secrets_lines(slot->t->secrets, &lines), bytes = 1;
	char *p;

	if (slot->user_generation == slot->t->generation)
		return 0;
	for (size_t i = 0; i < n; i++)
		bytes += strlen(lines[i]) + 1;
	p = malloc(bytes);
	if (!p)
		return -ENOMEM;
	if (slot->user_lines)
		explicit_bzero(slot->user_lines, strlen(slot->user_lines));
	free(slot->user_lines);
	slot->user_lines = p;
	for (size_t i = 0; i < n; i++) {
		size_t len = strlen(lines[i]) + 1;

		memcpy(p, lines[i], len);
		slot->lines[HEAD_MAX + i].data = p;
		p += len;
	}
	*p = '\0';
	slot->n_user = n;
	slot->user_generation = slot->t->generation;
	return 0;
}

static void add_line(struct curl_slist ***tail, struct curl_slist *line)
{
	line->next = NULL;
	**tail = line;
	*tail = &line->next;
}

static void add_own(struct slot *slot, struct curl_slist ***tail, enum head line, const char *text)
{
	/* libcurl reads them only */
	slot->lines[line].data = (char *)(uintptr_t)text;
	add_line(tail, &slot->lines[line]);
}

static struct curl_slist *put_lines_together(struct slot *slot)
{
	const struct transport_request *r = slot->r;
	struct curl_slist *list = NULL, **tail = &list;

	add_own(slot, &tail, HEAD_TYPE,
		r->ndjson ? "Content-Type: application/x-ndjson"
			  : "Content-Type: application/json");
	/* no "Expect: 100-continue": a receiver that does not answer it would cost a second */
	add_own(slot, &tail, HEAD_EXPECT, "Expect:");
	snprintf(slot->key, sizeof(slot->key), "Idempotency-Key: %s", r->key);
	add_own(slot, &tail, HEAD_KEY, slot->key);
	if (slot->t->gzip)
		add_own(slot, &tail, HEAD_ENCODING, "Content-Encoding: gzip");
	if (r->again)
		add_own(slot, &tail, HEAD_AGAIN, "X-Ebpfdump-Again: 1");
	if (secrets_signs(slot->t->secrets))
		add_own(slot, &tail, HEAD_SIGNATURE, slot->signature);
	for (size_t i = 0; i < slot->n_user; i++)
		add_line(&tail, &slot->lines[HEAD_MAX + i]);
	if (slot->t->line) {
		/* filled when it is known on which connection: see on_connected() */
		slot->hook[0] = '\0';
		add_own(slot, &tail, HEAD_HOOK, slot->hook);
	}
	return list;
}

/* ---- sockets ---- */

static struct sock *find_sock(const struct transport *t, curl_socket_t fd)
{
	struct sock *s = t->socks;

	while (s && s->fd != fd)
		s = s->next;
	return s;
}

static struct sock *add_sock(struct transport *t, curl_socket_t fd, bool ours)
{
	struct sock *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	*s = (struct sock){.next = t->socks, .t = t, .fd = fd, .ours = ours};
	t->socks = s;
	return s;
}

static void remove_sock(struct transport *t, struct sock *s)
{
	struct sock **at = &t->socks;

	while (*at != s)
		at = &(*at)->next;
	*at = s->next;
	loop_remove(s->source);
	free(s);
}

static curl_socket_t on_open_socket(void *ctx, curlsocktype purpose, struct curl_sockaddr *a)
{
	struct transport *t = ctx;
	CLEANUP(closep)
	int fd = socket(a->family, a->socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, a->protocol);

	if (fd < 0 || !add_sock(t, fd, true))
		return CURL_SOCKET_BAD;
	return TAKE_FD(fd);
}

static int on_close_socket(void *ctx, curl_socket_t fd)
{
	struct transport *t = ctx;
	struct sock *s = find_sock(t, fd);

	if (s)
		remove_sock(t, s);
	closep(&fd);
	return 0;
}

static bool has_port(curl_socket_t fd, int port)
{
	union {
		struct sockaddr any;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
	} a;
	socklen_t len = sizeof(a);

	if (getsockname(fd, &a.any, &len) < 0)
		return false;
	return ntohs(a.any.sa_family == AF_INET6 ? a.v6.sin6_port : a.v4.sin_port) == port;
}

/* The socket of a connection, by the port of this end. */
static curl_socket_t socket_of(const struct transport *t, CURL *easy, int port)
{
	curl_socket_t fd = CURL_SOCKET_BAD;

	/* the one that was used last is the one, mostly */
	if (curl_easy_getinfo(easy, CURLINFO_ACTIVESOCKET, &fd) == CURLE_OK &&
		fd != CURL_SOCKET_BAD && has_port(fd, port))
		return fd;
	for (const struct sock *s = t->socks; s; s = s->next)
		if (s->ours && has_port(s->fd, port))
			return s->fd;
	return CURL_SOCKET_BAD;
}

/* The connection is there, and the request is not written yet. */
static int on_connected(void *ctx, char *peer_ip, char *local_ip, int peer_port, int local_port)
{
	struct slot *slot = ctx;
	struct transport *t = slot->t;
	curl_socket_t fd = socket_of(t, slot->easy, local_port);
	size_t len = 0;

	if (fd != CURL_SOCKET_BAD)
		len = t->line(t->line_ctx, fd, slot->hook, sizeof(slot->hook));
	if (len == 0 || len >= sizeof(slot->hook))
		slot->hook[0] = '\0'; /* libcurl leaves out a line without a colon */
	return CURL_PREREQFUNC_OK;
}

/* ---- the loop ---- */

static void run(struct transport *t, curl_socket_t fd, int events);

static void on_socket(void *ctx, int fd, uint32_t events)
{
	struct sock *s = ctx;
	int flags = 0;

	if (s->parked) {
		/* closed by the receiver, most likely: libcurl looks before it uses it again */
		loop_remove(TAKE(s->source));
		return;
	}
	if (events & (EPOLLIN | EPOLLHUP | EPOLLRDHUP))
		flags |= CURL_CSELECT_IN;
	if (events & EPOLLOUT)
		flags |= CURL_CSELECT_OUT;
	if (events & EPOLLERR)
		flags |= CURL_CSELECT_ERR;
	run(s->t, fd, flags);
}

static int on_want_socket(CURL *easy, curl_socket_t fd, int what, void *ctx, void *sock_ctx)
{
	struct transport *t = ctx;
	struct sock *s = find_sock(t, fd);
	uint32_t events = 0;
	int r;

	if (what == CURL_POLL_REMOVE) {
		if (s && s->ours)
			s->parked = true;
		else if (s)
			remove_sock(t, s);
		return 0;
	}
	if (!s)
		s = add_sock(t, fd, false);
	if (!s)
		return -1;
	if (what & CURL_POLL_IN)
		events |= EPOLLIN;
	if (what & CURL_POLL_OUT)
		events |= EPOLLOUT;
	s->parked = false;
	if (s->source && s->events == events)
		return 0;
	r = s->source ? loop_change_fd(s->source, events)
		      : loop_add_fd(t->loop, fd, events, on_socket, s, &s->source);
	if (r < 0)
		return -1;
	s->events = events;
	return 0;
}

static int on_want_timer(CURLM *multi, long timeout_ms, void *ctx)
{
	struct transport *t = ctx;

	t->curl_ns = timeout_ms < 0 ? NEVER : clock_mono_ns() + (uint64_t)timeout_ms * NS_PER_MS;
	return 0;
}

static void arm(struct transport *t)
{
	uint64_t due = MIN(t->curl_ns, t->idle_ns), now;

	if (due >= t->armed_ns)
		return;
	now = clock_mono_ns();
	if (loop_set_timer(t->timer, due > now ? (due - now + NS_PER_MS - 1) / NS_PER_MS : 0, 0) ==
		0)
		t->armed_ns = due;
}

static void on_timer(void *ctx)
{
	struct transport *t = ctx;

	t->armed_ns = NEVER;
	run(t, CURL_SOCKET_TIMEOUT, 0);
}

/* Nothing depends on it; should a timer be lost, it costs a second. */
static void on_sweep(void *ctx)
{
	struct transport *t = ctx;

	if (t->n_busy > 0)
		t->curl_ns = 0;
	run(t, CURL_SOCKET_TIMEOUT, 0);
}

/* ---- answers ---- */

static size_t on_head(char *p, size_t size, size_t n, void *ctx)
{
	struct slot *slot = ctx;
	size_t len = size * n;
	static const char name[] = "retry-after:";

	slot->n_head += len;
	if (slot->n_head > TRANSPORT_ANSWER_MAX)
		return 0;
	if (len > 5 && memcmp(p, "HTTP/", 5) == 0)
		slot->n_retry_after = 0; /* a new head: what came before was a 1xx */
	if (len < sizeof(name) || !span_eq_nocase(span_of(p, sizeof(name) - 1), span_str(name)))
		return len;
	slot->n_retry_after = MIN(len - (sizeof(name) - 1), sizeof(slot->retry_after));
	memcpy(slot->retry_after, p + sizeof(name) - 1, slot->n_retry_after);
	return len;
}

static size_t on_body(char *p, size_t size, size_t n, void *ctx)
{
	struct slot *slot = ctx;
	size_t len = size * n, keep = MIN(len, sizeof(slot->kept) - slot->n_kept);

	memcpy(slot->kept + slot->n_kept, p, keep);
	slot->n_kept += keep;
	slot->n_body += len;
	return slot->n_body > TRANSPORT_ANSWER_MAX ? 0 : len;
}

static enum sink_retry failure_of(CURLcode code)
{
	switch (code) {
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_RESOLVE_PROXY:
		return SINK_RETRY_RESOLVE;
	case CURLE_COULDNT_CONNECT:
	case CURLE_INTERFACE_FAILED:
		return SINK_RETRY_CONNECT;
	case CURLE_OPERATION_TIMEDOUT:
		return SINK_RETRY_TIMEOUT;
	case CURLE_SSL_CONNECT_ERROR:
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CERTPROBLEM:
	case CURLE_SSL_CIPHER:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_ISSUER_ERROR:
	case CURLE_SSL_SHUTDOWN_FAILED:
	case CURLE_SSL_INVALIDCERTSTATUS:
	case CURLE_SSL_CLIENTCERT:
		return SINK_RETRY_TLS;
	case CURLE_SEND_ERROR:
	case CURLE_RECV_ERROR:
	case CURLE_GOT_NOTHING:
	case CURLE_PARTIAL_FILE:
	case CURLE_HTTP2:
	case CURLE_HTTP2_STREAM:
		return SINK_RETRY_RESET;
	default:
		return SINK_RETRY_OTHER;
	}
}

/* One line of what can be printed, without what is secret. */
static void show(const struct slot *slot, char *text, size_t len, char out[TRANSPORT_TEXT_MAX])
{
	size_t n = MIN(len, (size_t)TRANSPORT_SHOWN);

	secrets_hide(slot->t->secrets, text, len);
	n = MIN(n, (size_t)TRANSPORT_TEXT_MAX - 1);
	for (size_t i = 0; i < n; i++)
		out[i] = (unsigned char)text[i] < 0x20 || text[i] == 0x7f ? ' ' : text[i];
	n = utf8_valid(out, n) < n ? utf8_valid(out, n) : n;
	while (n > 0 && out[n - 1] == ' ')
		n--;
	out[n] = '\0';
}

static void read_answer(struct slot *slot, CURLcode code, struct transport_answer *a)
{
	curl_off_t sent = 0;
	long status = 0;

	*a = (struct transport_answer){.latency_ns = clock_mono_ns() - slot->began_ns};
	curl_easy_getinfo(slot->easy, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_getinfo(slot->easy, CURLINFO_SIZE_UPLOAD_T, &sent);
	a->sent_bytes = sent > 0 ? (size_t)sent : 0;
	/*
	 * Once the receiver has said what it thinks, it does not matter how the answer ends. But it
	 * cannot have taken over what it was not sent.
	 */
	if (status >= 300 || (status >= 200 && (code == CURLE_OK || a->sent_bytes >= slot->bytes)))
		a->status = status;
	if (a->status == 0) {
		a->failure = failure_of(code);
		if (!slot->error[0])
			snprintf(slot->error, sizeof(slot->error), "%s", curl_easy_strerror(code));
		show(slot, slot->error, strlen(slot->error), a->text);
		return;
	}
	if (a->status >= 300)
		show(slot, slot->kept, slot->n_kept, a->text);
	a->has_retry_after = slot->n_retry_after > 0 &&
			     retry_after(span_of(slot->retry_after, slot->n_retry_after),
				     clock_wall_ns() / 1000000000, &a->retry_after_ms) == 0;
}

static void free_slot(struct slot *slot)
{
	curl_multi_remove_handle(slot->t->multi, slot->easy);
	slot->r = NULL;
	slot->t->n_busy--;
}

static void read_done(struct transport *t)
{
	struct transport_answer answer;
	struct transport_request *r;
	struct slot *slot;
	CURLMsg *m;
	int left;

	while ((m = curl_multi_info_read(t->multi, &left))) {
		CURLcode code = m->data.result;

		if (m->msg != CURLMSG_DONE ||
			curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &slot) != CURLE_OK)
			continue;
		read_answer(slot, code, &answer);
		r = slot->r;
		free_slot(slot);
		t->ops.done(t->ctx, r, &answer);
	}
}

static void run(struct transport *t, curl_socket_t fd, int events)
{
	int running;

	if (t->running)
		return;
	t->running = true;
	if (fd != CURL_SOCKET_TIMEOUT)
		curl_multi_socket_action(t->multi, fd, events, &running);
	for (int i = 0; i < ROUNDS_MAX; i++) {
		read_done(t);
		t->idle_ns = t->ops.idle(t->ctx);
		if (t->curl_ns > clock_mono_ns())
			break;
		t->curl_ns = NEVER;
		curl_multi_socket_action(t->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	}
	t->running = false;
	arm(t);
}

void transport_run(struct transport *t)
{
	run(t, CURL_SOCKET_TIMEOUT, 0);
}

/* ---- requests ---- */

static struct slot *unused_slot(struct transport *t)
{
	for (uint32_t i = 0; i < t->n_slots; i++)
		if (!t->slots[i].r)
			return &t->slots[i];
	return NULL;
}

int transport_start(struct transport *t, struct transport_request *r)
{
	struct slot *slot = unused_slot(t);
	bool read = !t->gzip && !r->one.p;
	const char *body = t->gzip ? NULL : r->one.p;

	if (!slot)
		return -EBUSY;
	slot->r = r;
	slot->bytes = r->bytes;
	slot->error[0] = '\0';
	slot->n_kept = slot->n_body = slot->n_head = slot->n_retry_after = 0;
	if (copy_user_lines(slot) < 0 || (t->gzip && !pack(slot)) ||
		(secrets_signs(t->secrets) && !sign(slot))) {
		slot->r = NULL;
		return -ENOMEM;
	}
	if (read)
		rewind_body(slot);
	curl_easy_setopt(slot->easy, CURLOPT_POSTFIELDS, t->gzip ? slot->packed : body);
	curl_easy_setopt(slot->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)slot->bytes);
	curl_easy_setopt(slot->easy, CURLOPT_HTTPHEADER, put_lines_together(slot));
	curl_easy_setopt(slot->easy, CURLOPT_FRESH_CONNECT, r->fresh ? 1L : 0L);
	slot->began_ns = clock_mono_ns();
	if (curl_multi_add_handle(t->multi, slot->easy) != CURLM_OK) {
		slot->r = NULL;
		return -ENOMEM;
	}
	r->slot = (uint32_t)(slot - t->slots);
	t->n_busy++;
	return 0;
}

void transport_abort(struct transport *t, struct transport_request *r)
{
	free_slot(&t->slots[r->slot]);
}

void transport_secrets_changed(struct transport *t)
{
	t->generation++;
}

/* ---- making one ---- */

static bool set_options(struct slot *slot)
{
	struct transport *t = slot->t;
	CURL *e = slot->easy;
	bool ok = true;

#define SET(option, value) ok = curl_easy_setopt(e, option, value) == CURLE_OK && ok
	SET(CURLOPT_URL, t->url);
	SET(CURLOPT_PRIVATE, slot);
	SET(CURLOPT_ERRORBUFFER, slot->error);
	SET(CURLOPT_NOSIGNAL, 1L);
	SET(CURLOPT_NOPROGRESS, 1L);
	SET(CURLOPT_PROTOCOLS_STR, "http,https");
	SET(CURLOPT_FOLLOWLOCATION, 0L);
	/* not what the environment says: captured traffic goes where the option says, or nowhere */
	SET(CURLOPT_PROXY, "");
	SET(CURLOPT_POST, 1L);
	SET(CURLOPT_USERAGENT, "ebpfdump-loader/" EBPFDUMP_VERSION);
	SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
	/* with HTTP/2, requests share a connection */
	SET(CURLOPT_PIPEWAIT, t->plain ? 0L : 1L);
	SET(CURLOPT_TIMEOUT_MS, (long)t->timeout_ms);
	SET(CURLOPT_CONNECTTIMEOUT_MS, MIN((long)t->timeout_ms, CONNECT_MS));
	SET(CURLOPT_DNS_CACHE_TIMEOUT, DNS_CACHE_S);
	SET(CURLOPT_MAXLIFETIME_CONN, CONNECTION_S);
	SET(CURLOPT_TCP_KEEPALIVE, 1L);
	SET(CURLOPT_BUFFERSIZE, RECEIVE_BUFFER);
	SET(CURLOPT_UPLOAD_BUFFERSIZE, UPLOAD_BUFFER);
	SET(CURLOPT_SSL_VERIFYPEER, 1L);
	SET(CURLOPT_SSL_VERIFYHOST, 2L);
	SET(CURLOPT_CA_CACHE_TIMEOUT, CA_CACHE_S);
	if (t->ca) {
		SET(CURLOPT_CAINFO, t->ca);
		SET(CURLOPT_CAPATH, NULL);
	}
	if (t->cert)
		SET(CURLOPT_SSLCERT, t->cert);
	if (t->key)
		SET(CURLOPT_SSLKEY, t->key);
	SET(CURLOPT_READFUNCTION, on_read);
	SET(CURLOPT_READDATA, slot);
	SET(CURLOPT_SEEKFUNCTION, on_seek);
	SET(CURLOPT_SEEKDATA, slot);
	SET(CURLOPT_HEADERFUNCTION, on_head);
	SET(CURLOPT_HEADERDATA, slot);
	SET(CURLOPT_WRITEFUNCTION, on_body);
	SET(CURLOPT_WRITEDATA, slot);
	SET(CURLOPT_OPENSOCKETFUNCTION, on_open_socket);
	SET(CURLOPT_OPENSOCKETDATA, t);
	SET(CURLOPT_CLOSESOCKETFUNCTION, on_close_socket);
	SET(CURLOPT_CLOSESOCKETDATA, t);
	if (t->line) {
		SET(CURLOPT_PREREQFUNCTION, on_connected);
		SET(CURLOPT_PREREQDATA, slot);
	}
#undef SET
	return ok;
}

static bool set_multi_options(struct transport *t)
{
	CURLM *m = t->multi;

	return curl_multi_setopt(m, CURLMOPT_SOCKETFUNCTION, on_want_socket) == CURLM_OK &&
	       curl_multi_setopt(m, CURLMOPT_SOCKETDATA, t) == CURLM_OK &&
	       curl_multi_setopt(m, CURLMOPT_TIMERFUNCTION, on_want_timer) == CURLM_OK &&
	       curl_multi_setopt(m, CURLMOPT_TIMERDATA, t) == CURLM_OK &&
	       curl_multi_setopt(m, CURLMOPT_PIPELINING, (long)CURLPIPE_MULTIPLEX) == CURLM_OK &&
	       curl_multi_setopt(m, CURLMOPT_MAXCONNECTS, (long)t->n_slots) == CURLM_OK;
}

static bool copy(char **ret_copy, const char *text)
{
	*ret_copy = text ? strdup(text) : NULL;
	return !text || *ret_copy;
}

static int init(struct transport *t, const struct sink_callback *o, struct err *err)
{
	int r;

	t->slots = calloc(t->n_slots, sizeof(*t->slots));
	if (!t->slots || !copy(&t->url, o->url) || !copy(&t->ca, o->ca) ||
		!copy(&t->cert, o->cert) || !copy(&t->key, o->key))
		return err_set(err, ENOMEM, "callback: out of memory");
	t->plain = strncasecmp(o->url, "https:", 6) != 0;
	/* 15 + 16: with the head and end of gzip; memory level 8 is zlib's own choice */
	if (t->gzip) {
		if (deflateInit2(&t->z, GZIP_LEVEL, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) !=
			Z_OK)
			return err_set(err, ENOMEM, "callback: zlib does not start");
		t->z_ready = true;
	}
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		return err_set(err, EIO, "callback: libcurl does not start");
	t->multi = curl_multi_init();
	if (!t->multi || !set_multi_options(t))
		return err_set(err, ENOMEM, "callback: libcurl: out of memory");
	for (uint32_t i = 0; i < t->n_slots; i++) {
		t->slots[i].t = t;
		t->slots[i].easy = curl_easy_init();
		if (!t->slots[i].easy || !set_options(&t->slots[i]))
			return err_set(err, ENOMEM, "callback: libcurl does not take the options");
	}
	r = loop_add_timer(t->loop, SWEEP_MS, 0, on_timer, t, &t->timer);
	if (r == 0)
		r = loop_add_timer(t->loop, SWEEP_MS, SWEEP_MS, on_sweep, t, &t->sweep);
	return r < 0 ? err_set(err, -r, "callback: event loop: %s", strerror(-r)) : 0;
}

int transport_new(struct loop *loop, const struct sink_callback *options, uint32_t slots,
	struct secrets *secrets, const struct transport_ops *ops, void *ctx,
	struct transport **ret_transport, struct err *err)
{
	struct transport *t = calloc(1, sizeof(*t));
	int r;

	if (!t)
		return err_set(err, ENOMEM, "callback: out of memory");
	*t = (struct transport){
		.loop = loop,
		.secrets = secrets,
		.ops = *ops,
		.ctx = ctx,
		.line = options->line,
		.line_ctx = options->line_ctx,
		.gzip = options->gzip,
		.armed_ns = NEVER,
		.curl_ns = NEVER,
		.idle_ns = NEVER,
		.generation = 1,
		.n_slots = slots,
		.timeout_ms = options->timeout_ms,
	};
	r = init(t, options, err);
	if (r < 0) {
		transport_free(t);
		return r;
	}
	*ret_transport = t;
	return 0;
}

void transport_free(struct transport *t)
{
	if (!t)
		return;
	t->running = true; /* nothing is started any more */
	for (uint32_t i = 0; t->slots && i < t->n_slots; i++) {
		struct slot *slot = &t->slots[i];

		if (slot->r)
			free_slot(slot);
		curl_easy_cleanup(slot->easy);
		if (slot->user_lines)
			explicit_bzero(slot->user_lines, strlen(slot->user_lines));
		free(slot->user_lines);
		free(slot->packed);
	}
	curl_multi_cleanup(t->multi);
	while (t->socks)
		remove_sock(t, t->socks);
	loop_remove(t->timer);
	loop_remove(t->sweep);
	if (t->z_ready)
		deflateEnd(&t->z);
	free(t->slots);
	free(t->url);
	free(t->ca);
	free(t->cert);
	free(t->key);
	free(t);
}
