/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two threads: the loop's, which owns all numbers, and the server's, which libmicrohttpd runs. A
 * request marks its page as wanted, wakes the loop by the eventfd, and waits; the loop renders what
 * is wanted and hands it over under the lock. While the loop stands still the server's thread waits
 * for it once, not once per request: the time runs from when the page was first wanted.
 */
#include <errno.h>
#include <microhttpd.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "pkg/telemetry/telemetry.h"

#define MAX_CONNECTIONS	       32
#define MAX_CONNECTIONS_PER_IP 16		    /* not where all clients are this machine */
#define CONNECTION_MEMORY      (16 << 10)	    /* longest request head, roughly */
#define IDLE_SECONDS	       5		    /* without a byte */
#define LIFE_NS		       UINT64_C(5000000000) /* a client that sends a byte now and then */
#define SWEEP_MS	       1000
#define REUSE_NS	       UINT64_C(100000000)
#define STUCK_NS	       UINT64_C(2000000000)
#define PAGE_BYTES	       ((size_t)4 << 20)

enum page_name { PAGE_HEALTH, PAGE_READY, PAGE_METRICS, PAGE_MAX };

struct page {
	struct buf out;
	unsigned int status;
	bool wanted;
	uint64_t asked_at;    /* if wanted */
	uint64_t rendered_at; /* 0: never */
};

struct connection {
	int fd; /* -1: free */
	uint64_t began_at;
};

struct telemetry {
	struct loop *loop;
	struct telemetry_ops ops;
	void *ctx;
	struct MHD_Daemon *daemon;
	uint16_t port;
	int wake_fd;
	struct loop_source *wake_source, *sweep_source;
	struct buf scratch; /* the loop's: rendered without the lock */

	pthread_mutex_t lock;
	pthread_cond_t rendered;
	/* under lock */
	struct page pages[PAGE_MAX];
	struct connection connections[MAX_CONNECTIONS];
	bool closing;
};

/* ---- the loop's thread ---- */

static unsigned int render(struct telemetry *t, enum page_name name, struct buf *out)
{
	struct metrics m = {.out = out};

	switch (name) {
	case PAGE_READY:
		return t->ops.ready(t->ctx, out) ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE;
	case PAGE_METRICS:
		t->ops.metrics(t->ctx, &m);
		if (m.error == 0)
			return MHD_HTTP_OK;
		/* half a page would be half the truth */
		out->len = 0;
		if (buf_printf(out, "no metrics: %s\n", strerror(-m.error)) < 0)
			out->len = 0;
		return MHD_HTTP_INTERNAL_SERVER_ERROR;
	default:
		if (t->ops.live)
			return t->ops.live(t->ctx, out) ? MHD_HTTP_OK
							: MHD_HTTP_SERVICE_UNAVAILABLE;
		/* that it came to be rendered is all there is to say */
		if (buf_append(out, "ok\n", 3) < 0)
			out->len = 0;
		return MHD_HTTP_OK;
	}
}

static void render_wanted(void *ctx, int fd, uint32_t events)
{
	struct telemetry *t = ctx;
	uint64_t n;

	(void)!read(fd, &n, sizeof(n));
	for (unsigned int i = 0; i < PAGE_MAX; i++) {
		struct page *page = &t->pages[i];
		uint64_t now = clock_mono_ns();
		unsigned int status;
		struct buf old;
		bool wanted;

		pthread_mutex_lock(&t->lock);
		wanted = page->wanted;
		pthread_mutex_unlock(&t->lock);
		if (!wanted)
			continue;
		t->scratch.len = 0;
		status = render(t, (enum page_name)i, &t->scratch);

		pthread_mutex_lock(&t->lock);
		old = page->out;
		page->out = t->scratch;
		t->scratch = old;
		page->status = status;
		page->rendered_at = now;
		page->wanted = false;
		pthread_cond_broadcast(&t->rendered);
		pthread_mutex_unlock(&t->lock);
	}
}

/* The server's own time-out is for silence only; this is for those who whisper. */
static void sweep(void *ctx)
{
	struct telemetry *t = ctx;
	uint64_t now = clock_mono_ns();

	pthread_mutex_lock(&t->lock);
	/* The server closes a connection behind note_connection(), so that the fd is what it was.
	 */
	for (unsigned int i = 0; i < MAX_CONNECTIONS; i++)
		if (t->connections[i].fd >= 0 && now - t->connections[i].began_at > LIFE_NS)
			shutdown(t->connections[i].fd, SHUT_RDWR);
	pthread_mutex_unlock(&t->lock);
}

/* ---- the server's thread ---- */

static struct timespec timespec_of_ns(uint64_t ns)
{
	return (struct timespec){
		.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};
}

static struct MHD_Response *response_of(const char *p, size_t len)
{
	/* copied; the API is not const-correct */
	return MHD_create_response_from_buffer(len, (void *)(uintptr_t)p, MHD_RESPMEM_MUST_COPY);
}

static struct MHD_Response *response_of_str(const char *text)
{
	return response_of(text, strlen(text));
}

/* Waits for the loop to render the page, unless there is a fresh one. */
static struct MHD_Response *page_response(
	struct telemetry *t, enum page_name name, unsigned int *ret_status)
{
	struct page *page = &t->pages[name];
	struct MHD_Response *response;
	uint64_t now = clock_mono_ns(), one = 1;
	struct timespec until;

	pthread_mutex_lock(&t->lock);
	if (!page->wanted && (page->rendered_at == 0 || now - page->rendered_at > REUSE_NS)) {
		page->wanted = true;
		page->asked_at = now;
		(void)!write(t->wake_fd, &one, sizeof(one));
	}
	until = timespec_of_ns(page->asked_at + STUCK_NS);
	while (page->wanted && !t->closing &&
		pthread_cond_timedwait(&t->rendered, &t->lock, &until) == 0)
		;
	if (!page->wanted) {
		*ret_status = page->status;
		response = response_of(page->out.data, page->out.len);
	} else {
		*ret_status = MHD_HTTP_SERVICE_UNAVAILABLE;
		response = response_of_str(
			t->closing ? "shutting down\n" : "the event loop does not answer\n");
	}
	pthread_mutex_unlock(&t->lock);
	return response;
}

static struct MHD_Response *answer(struct telemetry *t, const char *url, const char *method,
	unsigned int *ret_status, const char **ret_type)
{
	static const char *const paths[PAGE_MAX] = {
		[PAGE_HEALTH] = "/healthz", [PAGE_READY] = "/readyz", [PAGE_METRICS] = "/metrics"};

	*ret_type = "text/plain; charset=utf-8";
	if (strcmp(url, "/livez") == 0)
		url = paths[PAGE_HEALTH];
	for (unsigned int i = 0; i < PAGE_MAX; i++) {
		if (strcmp(url, paths[i]) != 0)
			continue;
		if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0) {
			*ret_status = MHD_HTTP_METHOD_NOT_ALLOWED;
			return response_of_str("only GET and HEAD\n");
		}
		if (i == PAGE_METRICS)
			*ret_type = "text/plain; version=0.0.4; charset=utf-8";
		return page_response(t, (enum page_name)i, ret_status);
	}
	*ret_status = MHD_HTTP_NOT_FOUND;
	return response_of_str("not here: /healthz, /livez, /readyz and /metrics are\n");
}

static enum MHD_Result handle(void *ctx, struct MHD_Connection *connection, const char *url,
	const char *method, const char *version, const char *upload_data, size_t *upload_data_size,
	void **request_ctx)
{
	struct MHD_Response *response;
	enum MHD_Result result;
	unsigned int status;
	const char *type;

	response = answer(ctx, url, method, &status, &type);
	if (!response)
		return MHD_NO;
	/* No keep-alive: few places, and a scrape now and then. A body is not read. */
	if (MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type) == MHD_NO ||
		MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close") == MHD_NO ||
		(status == MHD_HTTP_METHOD_NOT_ALLOWED &&
			MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, "GET, HEAD") ==
				MHD_NO)) {
		MHD_destroy_response(response);
		return MHD_NO;
	}
	result = MHD_queue_response(connection, status, response);
	MHD_destroy_response(response);
	return result;
}

static void note_connection(void *ctx, struct MHD_Connection *connection, void **socket_ctx,
	enum MHD_ConnectionNotificationCode code)
{
	const union MHD_ConnectionInfo *info;
	struct telemetry *t = ctx;
	struct connection *c;

	pthread_mutex_lock(&t->lock);
	if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
		c = *socket_ctx;
		if (c)
			c->fd = -1;
	} else {
		info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
		for (unsigned int i = 0; info && i < MAX_CONNECTIONS; i++) {
			c = &t->connections[i];
			if (c->fd >= 0)
				continue;
			*c = (struct connection){info->connect_fd, clock_mono_ns()};
			*socket_ctx = c;
			break;
		}
	}
	pthread_mutex_unlock(&t->lock);
}

static void log_server(void *ctx, const char *fmt, va_list ap) PRINTF(2, 0);

static void log_server(void *ctx, const char *fmt, va_list ap)
{
	char text[512];

	if (!log_enabled(LOG_DEBUG))
		return;
	vsnprintf(text, sizeof(text), fmt, ap);
	text[strcspn(text, "\n")] = '\0';
	log_debug("telemetry: %s", text);
}

/* ---- the whole ---- */

static int start_server(struct telemetry *t, int fd, bool local, struct err *err)
{
	sigset_t all, before;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	/* The socket is the server's from here on. */
	t->daemon = MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_ERROR_LOG, 0, NULL,
		NULL, handle, t, MHD_OPTION_EXTERNAL_LOGGER, log_server, NULL,
		MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT,
		(unsigned int)MAX_CONNECTIONS, MHD_OPTION_PER_IP_CONNECTION_LIMIT,
		local ? 0U : (unsigned int)MAX_CONNECTIONS_PER_IP, MHD_OPTION_CONNECTION_TIMEOUT,
		(unsigned int)IDLE_SECONDS, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
		(size_t)CONNECTION_MEMORY, MHD_OPTION_NOTIFY_CONNECTION, note_connection, t,
		MHD_OPTION_END);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (!t->daemon)
		return err_set(err, ENOMEM, "telemetry: the HTTP server does not start");
	return 0;
}

static int init(struct telemetry *t, struct err *err)
{
	pthread_condattr_t attr;
	int r;

	pthread_mutex_init(&t->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&t->rendered, &attr);
	pthread_condattr_destroy(&attr);
	t->scratch = BUF_INIT(PAGE_BYTES);
	for (unsigned int i = 0; i < PAGE_MAX; i++)
		t->pages[i].out = BUF_INIT(PAGE_BYTES);
	for (unsigned int i = 0; i < MAX_CONNECTIONS; i++)
		t->connections[i].fd = -1;

	t->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (t->wake_fd < 0)
		return err_set(err, errno, "telemetry: eventfd: %s", strerror(errno));
	r = loop_add_fd(t->loop, t->wake_fd, EPOLLIN, render_wanted, t, &t->wake_source);
	if (r == 0)
		r = loop_add_timer(t->loop, SWEEP_MS, SWEEP_MS, sweep, t, &t->sweep_source);
	return r < 0 ? err_set(err, -r, "telemetry: event loop: %s", strerror(-r)) : 0;
}

int telemetry_new(struct loop *loop, const char *listen, const struct telemetry_ops *ops, void *ctx,
	struct telemetry **ret_telemetry, struct err *err)
{
	CLEANUP(telemetry_freep)
	struct telemetry *t = NULL;
	uint16_t port = 0;
	bool local = false;
	int fd, r;

	fd = listen_open(listen, &local, &port, err);
	if (fd < 0)
		return err_wrap(err, "telemetry");
	t = calloc(1, sizeof(*t));
	if (!t) {
		close(fd);
		return err_set(err, ENOMEM, "telemetry: out of memory");
	}
	t->loop = loop;
	t->ops = *ops;
	t->ctx = ctx;
	t->port = port;
	r = init(t, err);
	if (r < 0) {
		close(fd);
		return r;
	}
	r = start_server(t, fd, local, err);
	if (r < 0)
		return r;
	*ret_telemetry = TAKE(t);
	return 0;
}

void telemetry_free(struct telemetry *t)
{
	if (!t)
		return;
	/* The server's thread may wait for us to render a page. */
	pthread_mutex_lock(&t->lock);
	t->closing = true;
	pthread_cond_broadcast(&t->rendered);
	pthread_mutex_unlock(&t->lock);
	if (t->daemon)
		MHD_stop_daemon(t->daemon);
	loop_remove(t->wake_source);
	loop_remove(t->sweep_source);
	closep(&t->wake_fd);
	for (unsigned int i = 0; i < PAGE_MAX; i++)
		buf_done(&t->pages[i].out);
	buf_done(&t->scratch);
	pthread_cond_destroy(&t->rendered);
	pthread_mutex_destroy(&t->lock);
	free(t);
}

void telemetry_freep(struct telemetry **t)
{
	telemetry_free(*t);
	*t = NULL;
}

uint16_t telemetry_port(const struct telemetry *t)
{
	return t->port;
}
