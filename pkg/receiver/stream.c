/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /api/stream: server-sent events. A stream is a number, the version up to which its page knows all
 * changes, and nothing else that grows: what a slow page does not fetch in time is gone from the
 * store, and it is told how much that was. libmicrohttpd asks for more whenever the socket takes
 * more; where there is nothing, the connection is suspended, and the event loop's tick resumes it.
 */
#include <stdlib.h>
#include <sys/types.h>

#include "pkg/receiver/server.h"

#define BLOCK_BYTES  ((size_t)64 << 10)
#define TICK_ROWS    500		  /* at most, of a stream that has seen the past */
#define BEAT_NS	     UINT64_C(1000000000) /* totals, so that silence is known to be that */
#define HEAD_BYTES   256		  /* what surrounds the rows */
#define CHANGES_ONCE 4096		  /* looked at under one lock */

struct stream {
	struct stream *next, **link; /* under streams_lock */
	struct receiver *r;
	struct MHD_Connection *connection;
	bool suspended; /* under streams_lock */
	struct query query;
	uint64_t version; /* the last that was sent */
	uint64_t past;	  /* what was there at the beginning: not held back */
	uint64_t oldest;  /* no exchange before this id */
	uint64_t lost;	  /* not said yet */
	uint64_t beat_ns;
	unsigned int budget; /* rows until the next tick */
	bool greeted;
};

/* ---- events ---- */

static int put_greeting(struct stream *st, struct buf *out)
{
	struct receiver *r = st->r;

	return buf_printf(out,
		"retry: 1000\nevent: hello\ndata: {\"version\":\"%s\",\"instance\":\"%s\",\"keep\":%llu}\n\n",
		EBPFDUMP_VERSION, r->instance, (unsigned long long)r->options.keep);
}

static int put_totals(struct stream *st, struct buf *out)
{
	struct counters *k = &st->r->counters;
	uint64_t refused = 0;

	for (unsigned int i = 0; i < REFUSED_MAX; i++)
		refused += atomic_load(&k->refused[i]);
	return buf_printf(out,
		"event: totals\ndata: {\"now_ms\":%llu,\"messages\":%llu,\"duplicates\":%llu,\"refused\":%llu}\n\n",
		(unsigned long long)(clock_wall_ns() / 1000000),
		(unsigned long long)atomic_load(&k->messages),
		(unsigned long long)atomic_load(&k->duplicates), (unsigned long long)refused);
}

/* Changes that the store has forgotten. Under the store's lock. */
static void skip_forgotten(struct stream *st)
{
	uint64_t oldest = store_oldest_change(st->r->store);

	if (st->version + 1 >= oldest)
		return;
	st->lost += oldest - 1 - st->version;
	st->version = oldest - 1;
}

/* Rows of what changed, as many as fit. Returns how many. Under the store's lock. */
static unsigned int put_rows(struct stream *st, struct buf *out)
{
	struct store *s = st->r->store;
	unsigned int rows = 0;

	for (int i = 0; i < CHANGES_ONCE && st->version < store_version(s); i++) {
		const struct exchange *x = store_change(s, st->version + 1);

		if (x && x->id >= st->oldest && filter_match(&st->query.filter, x)) {
			size_t before = out->len;

			if (st->budget == 0 && st->version >= st->past)
				break;
			if (buf_append(out, rows ? "," : "data: [", rows ? 1 : 7) < 0 ||
				row_write(x, false, out) < 0) {
				out->len = before;
				if (rows > 0)
					break;
				/* it fits into no block of this size: not tried for ever */
				st->lost++;
			} else {
				rows++;
				st->budget -= st->budget > 0;
			}
		}
		st->version++;
	}
	return rows;
}

static bool is_caught_up(struct stream *st)
{
	return st->version >= store_version(st->r->store) ||
	       (st->budget == 0 && st->version >= st->past);
}

static int put_changes(struct stream *st, struct buf *out)
{
	struct buf rows = BUF_INIT(out->max - out->len - HEAD_BYTES);
	unsigned int n;
	bool done;
	int r = 0;

	do {
		store_lock(st->r->store);
		skip_forgotten(st);
		n = put_rows(st, &rows);
		done = n > 0 || is_caught_up(st);
		store_unlock(st->r->store);
	} while (!done);
	if (st->lost > 0)
		r = buf_printf(out, "event: lost\ndata: %llu\n\n", (unsigned long long)st->lost);
	atomic_fetch_add(&st->r->counters.stream_lost, st->lost);
	st->lost = 0;
	if (r == 0 && n > 0)
		r = buf_printf(
			out, "id: %s-%llu\n", st->r->instance, (unsigned long long)st->version);
	if (r == 0 && n > 0)
		r = buf_append(out, rows.data, rows.len);
	if (r == 0 && n > 0)
		r = buf_append(out, "]\n\n", 3);
	atomic_fetch_add(&st->r->counters.stream_events, n);
	buf_done(&rows);
	return r;
}

/* What there is to say now; may be nothing. */
static int put_events(struct stream *st, struct buf *out)
{
	uint64_t now = clock_mono_ns();
	int r = 0;

	if (!st->greeted)
		r = put_greeting(st, out);
	st->greeted = true;
	if (r == 0 && now - st->beat_ns >= BEAT_NS) {
		st->beat_ns = now;
		r = put_totals(st, out);
	}
	return r < 0 ? r : put_changes(st, out);
}

/* ---- the connection ---- */

static ssize_t suspend(struct stream *st)
{
	struct receiver *r = st->r;
	ssize_t n = 0;

	pthread_mutex_lock(&r->streams_lock);
	if (atomic_load(&r->stopping)) {
		n = MHD_CONTENT_READER_END_OF_STREAM;
	} else {
		st->suspended = true;
		MHD_suspend_connection(st->connection);
	}
	pthread_mutex_unlock(&r->streams_lock);
	return n;
}

static ssize_t read_stream(void *ctx, uint64_t pos, char *p, size_t max)
{
	struct buf out = BUF_INIT(MIN(max, BLOCK_BYTES));
	struct stream *st = ctx;
	ssize_t n;

	if (atomic_load(&st->r->stopping) || out.max < 4 * HEAD_BYTES)
		return MHD_CONTENT_READER_END_OF_STREAM;
	if (put_events(st, &out) < 0)
		n = MHD_CONTENT_READER_END_WITH_ERROR;
	else if (out.len == 0)
		n = suspend(st);
	else
		n = (ssize_t)out.len;
	if (n > 0)
		memcpy(p, out.data, out.len);
	buf_done(&out);
	return n;
}

static void free_stream(void *ctx)
{
	struct stream *st = ctx;
	struct receiver *r = st->r;

	pthread_mutex_lock(&r->streams_lock);
	if (st->link) {
		*st->link = st->next;
		if (st->next)
			st->next->link = st->link;
		atomic_fetch_sub(&r->counters.streams, 1);
	}
	pthread_mutex_unlock(&r->streams_lock);
	free(st);
}

void streams_wake(struct receiver *r)
{
	bool stopping = atomic_load(&r->stopping);
	uint64_t version, now = clock_mono_ns();

	store_lock(r->store);
	version = store_version(r->store);
	store_unlock(r->store);
	pthread_mutex_lock(&r->streams_lock);
	for (struct stream *st = r->streams; st; st = st->next) {
		/* it is ours while it is suspended */
		if (!st->suspended ||
			(!stopping && st->version >= version && now - st->beat_ns < BEAT_NS))
			continue;
		st->suspended = false;
		st->budget = TICK_ROWS;
		MHD_resume_connection(st->connection);
	}
	pthread_mutex_unlock(&r->streams_lock);
}

/* "INSTANCE-VERSION", as an earlier stream of ours sent it. */
static bool known_position(struct receiver *r, const char *id, uint64_t *ret_version)
{
	size_t len = strlen(r->instance);

	return id && strncmp(id, r->instance, len) == 0 && id[len] == '-' &&
	       num_parse(span_str(id + len + 1), 0, store_version(r->store), ret_version) == 0;
}

/* Where it begins: behind what its page had, or with all that is kept. */
static void position(struct stream *st, const char *last_id)
{
	struct store *s = st->r->store;

	store_lock(s);
	st->past = store_version(s);
	if (!known_position(st->r, last_id, &st->version)) {
		st->version = store_oldest_change(s) - 1;
		st->oldest = store_last(s) + 1 - MIN(store_last(s), st->query.limit);
	}
	store_unlock(s);
}

static bool join(struct receiver *r, struct stream *st)
{
	bool room;

	pthread_mutex_lock(&r->streams_lock);
	room = atomic_load(&r->counters.streams) < (int64_t)r->options.streams &&
	       !atomic_load(&r->stopping);
	if (room) {
		st->next = r->streams;
		st->link = &r->streams;
		if (st->next)
			st->next->link = &st->next;
		r->streams = st;
		atomic_fetch_add(&r->counters.streams, 1);
	}
	pthread_mutex_unlock(&r->streams_lock);
	return room;
}

enum MHD_Result api_stream(struct receiver *r, struct MHD_Connection *c)
{
	struct answer a = {.status = MHD_HTTP_OK, .type = "text/event-stream"};
	struct stream *st = calloc(1, sizeof(*st));
	enum MHD_Result result;

	if (!st)
		return MHD_NO;
	st->r = r;
	st->connection = c;
	st->budget = TICK_ROWS;
	query_parse(c, r->options.keep, r->options.keep, &st->query);
	if (st->query.invalid) {
		result = answer_error(r, c, MHD_HTTP_BAD_REQUEST, st->query.err.text);
		free(st);
		return result;
	}
	position(st, MHD_lookup_connection_value(c, MHD_HEADER_KIND, "Last-Event-ID"));
	if (!join(r, st)) {
		free(st);
		atomic_fetch_add(&r->counters.streams_refused, 1);
		return answer_error(r, c, MHD_HTTP_SERVICE_UNAVAILABLE,
			"too many watch already: see --streams");
	}
	return answer_with(r, c, &a,
		MHD_create_response_from_callback(
			MHD_SIZE_UNKNOWN, BLOCK_BYTES, read_stream, st, free_stream));
}
