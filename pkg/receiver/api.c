/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include "pkg/receiver/server.h"
#include "pkg/telemetry/telemetry.h"

#define PIECE_BYTES   ((size_t)64 << 10) /* made at a time, and one exchange more */
#define METRICS_BYTES ((size_t)256 << 10)
#define LIMIT_DEFAULT 100

/* ---- the query ---- */

static int set_number(
	struct query *q, const char *name, const char *value, uint64_t max, uint64_t *out)
{
	if (num_parse(span_str(value), 0, max, out) < 0)
		return err_set(&q->err, EINVAL, "%s: a number of 0 to %llu", name,
			(unsigned long long)max);
	return 0;
}

static int set_choice(struct query *q, const char *name, const char *value, const char *no,
	const char *yes, bool *out)
{
	if (strcmp(value, yes) != 0 && strcmp(value, no) != 0)
		return err_set(&q->err, EINVAL, "%s: %s or %s", name, no, yes);
	*out = strcmp(value, yes) == 0;
	return 0;
}

static enum MHD_Result set_parameter(
	void *ctx, enum MHD_ValueKind kind, const char *name, const char *value)
{
	struct query *q = ctx;
	int r;

	value = value ? value : "";
	r = filter_set(&q->filter, name, value, &q->err);
	if (r == 0 && strcmp(name, "limit") == 0)
		r = set_number(q, name, value, UINT32_MAX, &q->limit);
	else if (r == 0 && strcmp(name, "before") == 0)
		r = set_number(q, name, value, UINT64_MAX, &q->before);
	else if (r == 0 && strcmp(name, "messages") == 0)
		r = set_choice(q, name, value, "true", "false", &q->summary);
	else if (r == 0 && strcmp(name, "format") == 0)
		r = set_choice(q, name, value, "json", "ndjson", &q->ndjson);
	else if (r == 0)
		r = err_set(&q->err, EINVAL, "%.64s: there is no such parameter", name);
	q->invalid = r < 0;
	return r < 0 ? MHD_NO : MHD_YES;
}

void query_parse(struct MHD_Connection *c, uint64_t limit, uint64_t limit_max, struct query *q)
{
	*q = (struct query){.limit = limit, .before = UINT64_MAX};
	MHD_get_connection_values(c, MHD_GET_ARGUMENT_KIND, set_parameter, q);
	q->limit = MIN(q->limit, limit_max);
}

/* ---- /api/exchanges: made piece by piece, as it is read ---- */

struct listing {
	struct receiver *r;
	struct query query;
	struct buf piece;
	size_t at;     /* of the piece */
	uint64_t next; /* id */
	uint64_t left; /* of the limit */
	bool first, ended;
};

static int put(struct listing *l, const char *text)
{
	return buf_append(&l->piece, text, strlen(text));
}

static int put_line(struct listing *l, const struct kept *k)
{
	int r = k ? buf_append(&l->piece, k->m.json.p, k->m.json.len) : 0;

	return r < 0 || !k ? r : put(l, "\n");
}

static int put_exchange(struct listing *l, const struct exchange *x)
{
	int r;

	if (l->query.ndjson) {
		r = put_line(l, x->request);
		return r < 0 ? r : put_line(l, x->response);
	}
	r = put(l, l->first ? "\n" : ",\n");
	l->first = false;
	return r < 0 ? r : row_write(x, !l->query.summary, &l->piece);
}

/* The newest first; as lines the oldest first. Under the store's lock. */
static const struct exchange *next_exchange(struct listing *l)
{
	struct store *s = l->r->store;

	if (l->query.ndjson) {
		l->next = MAX(l->next, store_first(s));
		return l->next < l->query.before ? store_find(s, l->next++) : NULL;
	}
	return l->next >= store_first(s) ? store_find(s, l->next--) : NULL;
}

static int make_piece(struct listing *l)
{
	int r = 0;

	l->piece.len = 0;
	l->at = 0;
	store_lock(l->r->store);
	while (r == 0 && l->piece.len < PIECE_BYTES) {
		const struct exchange *x = l->left > 0 ? next_exchange(l) : NULL;

		if (!x) {
			l->ended = true;
			break;
		}
		if (!filter_match(&l->query.filter, x))
			continue;
		l->left--;
		r = put_exchange(l, x);
	}
	store_unlock(l->r->store);
	if (r == 0 && l->ended && !l->query.ndjson)
		r = put(l, "\n]}\n");
	return r;
}

static ssize_t read_listing(void *ctx, uint64_t pos, char *out, size_t max)
{
	struct listing *l = ctx;
	size_t n;

	if (l->at == l->piece.len) {
		if (l->ended)
			return MHD_CONTENT_READER_END_OF_STREAM;
		if (make_piece(l) < 0)
			return MHD_CONTENT_READER_END_WITH_ERROR;
		if (l->piece.len == 0)
			return MHD_CONTENT_READER_END_OF_STREAM;
	}
	n = MIN(max, l->piece.len - l->at);
	memcpy(out, l->piece.data + l->at, n);
	l->at += n;
	return (ssize_t)n;
}

static void free_listing(void *ctx)
{
	struct listing *l = ctx;

	buf_done(&l->piece);
	free(l);
}

/* Where the limit lets a listing of lines begin. Under the store's lock. */
static uint64_t first_of_lines(struct receiver *r, const struct query *q)
{
	uint64_t id = MIN(store_last(r->store) + 1, q->before), left = q->limit;

	while (left > 0 && id > store_first(r->store)) {
		const struct exchange *x = store_find(r->store, --id);

		if (x && filter_match(&q->filter, x))
			left--;
	}
	return id;
}

enum MHD_Result api_exchanges(struct receiver *r, struct MHD_Connection *c)
{
	struct answer a = {.status = MHD_HTTP_OK, .type = "application/json"};
	struct listing *l = calloc(1, sizeof(*l));

	if (!l)
		return MHD_NO;
	l->r = r;
	l->piece = BUF_INIT(r->options.keep_bytes + 2 * r->options.body_bytes + PIECE_BYTES);
	query_parse(c, LIMIT_DEFAULT, r->options.keep, &l->query);
	if (l->query.invalid || put(l, "{\"exchanges\":[") < 0) {
		enum MHD_Result result =
			answer_error(r, c, MHD_HTTP_BAD_REQUEST, l->query.err.text);

		free_listing(l);
		return result;
	}
	store_lock(r->store);
	l->next = l->query.ndjson ? first_of_lines(r, &l->query)
				  : MIN(store_last(r->store), l->query.before - 1);
	if (l->query.before == 0)
		l->left = 0;
	store_unlock(r->store);
	l->left = l->query.before == 0 ? 0 : l->query.limit;
	l->first = true;
	if (l->query.ndjson) {
		l->piece.len = 0;
		a.type = "application/x-ndjson";
		a.download = "ebpfdump.ndjson";
	}
	return answer_with(r, c, &a,
		MHD_create_response_from_callback(
			MHD_SIZE_UNKNOWN, PIECE_BYTES, read_listing, l, free_listing));
}

enum MHD_Result api_exchange(struct receiver *r, struct MHD_Connection *c, const char *id)
{
	struct answer a = {.status = MHD_HTTP_OK, .type = "application/json"};
	CLEANUP(buf_done)
	struct buf out = BUF_INIT(r->options.keep_bytes + 2 * r->options.body_bytes + PIECE_BYTES);
	const struct exchange *x;
	uint64_t number;
	int n = -ENOENT;

	if (num_parse(span_str(id), 1, UINT64_MAX, &number) < 0)
		return answer_error(r, c, MHD_HTTP_NOT_FOUND, "an exchange has a number");
	store_lock(r->store);
	x = store_find(r->store, number);
	if (x)
		n = row_write(x, true, &out);
	store_unlock(r->store);
	if (n == -ENOENT)
		return answer_error(r, c, MHD_HTTP_NOT_FOUND,
			"this exchange is not kept (any more): see --keep");
	if (n < 0)
		return answer_error(r, c, MHD_HTTP_SERVICE_UNAVAILABLE, strerror(-n));
	return answer_text(r, c, &a, out.data, out.len);
}

/* ---- /metrics ---- */

#define COUNTER(name, help) metrics_family(m, "ebpfdump_receiver_" name, METRICS_COUNTER, help)
#define GAUGE(name, help)   metrics_family(m, "ebpfdump_receiver_" name, METRICS_GAUGE, help)
#define VALUE(name, ...)    metrics_u64(m, "ebpfdump_receiver_" name, __VA_ARGS__)

static uint64_t now(const _Atomic int64_t *gauge)
{
	int64_t value = atomic_load(gauge);

	return value > 0 ? (uint64_t)value : 0;
}

static void put_taken(struct metrics *m, struct counters *k)
{
	COUNTER("requests_total", "POSTs to /ingest.");
	VALUE("requests_total", atomic_load(&k->requests), NULL);
	COUNTER("messages_total", "Messages that were taken over.");
	VALUE("messages_total", atomic_load(&k->messages), NULL);
	COUNTER("duplicates_total",
		"Messages whose Idempotency-Key had been taken before: acknowledged, and left out.");
	VALUE("duplicates_total", atomic_load(&k->duplicates), NULL);
	COUNTER("received_bytes_total", "Bytes of bodies, as they were sent.");
	VALUE("received_bytes_total", atomic_load(&k->bytes), NULL);
	COUNTER("refused_total", "POSTs that were not taken, by reason.");
	for (unsigned int i = 0; i < REFUSED_MAX; i++)
		VALUE("refused_total", atomic_load(&k->refused[i]), "reason",
			refusal_name((enum refusal)i), NULL);
	COUNTER("aborted_total", "Requests whose sender left before the end.");
	VALUE("aborted_total", atomic_load(&k->aborted), NULL);
	GAUGE("receiving_bytes", "Memory of bodies that are being received.");
	VALUE("receiving_bytes", now(&k->memory), NULL);
}

static void put_output(struct metrics *m, struct output *output)
{
	struct output_stats s;

	output_stats(output, &s);
	COUNTER("output_bytes_total", "Bytes of lines taken over.");
	VALUE("output_bytes_total", s.bytes, NULL);
	COUNTER("output_lost_total",
		"Messages that were taken over and could not be written: standard output broke.");
	VALUE("output_lost_total", s.lost, NULL);
	GAUGE("output_queued", "Messages that wait for standard output.");
	VALUE("output_queued", s.queued, NULL);
	GAUGE("output_queued_bytes", "Bytes that wait for standard output.");
	VALUE("output_queued_bytes", s.queued_bytes, NULL);
	COUNTER("files_begun_total", "Files begun because the one before was full.");
	VALUE("files_begun_total", s.rotated, NULL);
	COUNTER("files_removed_total", "Files removed, the oldest beyond --files.");
	VALUE("files_removed_total", s.removed, NULL);
	GAUGE("output_error", "Whether the output cannot be written now.");
	VALUE("output_error", s.error != 0, NULL);
}

static void put_store(struct metrics *m, struct receiver *r)
{
	struct store_stats s;

	store_lock(r->store);
	store_stats(r->store, &s);
	store_unlock(r->store);
	GAUGE("kept_messages", "Messages in memory for the page.");
	VALUE("kept_messages", s.messages, NULL);
	GAUGE("kept_bytes", "Memory of these.");
	VALUE("kept_bytes", s.bytes, NULL);
	GAUGE("kept_exchanges", "Exchanges in memory for the page.");
	VALUE("kept_exchanges", s.exchanges, NULL);
	COUNTER("paired_total", "Responses that found their request.");
	VALUE("paired_total", s.paired, NULL);
	COUNTER("forgotten_total", "Messages that made room in memory for newer ones.");
	VALUE("forgotten_total", s.evicted, NULL);
	COUNTER("not_kept_total", "Messages that were written and not kept: no memory.");
	VALUE("not_kept_total", atomic_load(&r->counters.store_failed), NULL);
}

static void put_server(struct metrics *m, struct receiver *r)
{
	static const char *const classes[] = {"other", "1xx", "2xx", "3xx", "4xx", "5xx"};
	struct counters *k = &r->counters;

	GAUGE("streams", "Pages that watch.");
	VALUE("streams", now(&k->streams), NULL);
	COUNTER("streams_refused_total", "Pages that found no place to watch.");
	VALUE("streams_refused_total", atomic_load(&k->streams_refused), NULL);
	COUNTER("stream_rows_total", "Rows sent to pages.");
	VALUE("stream_rows_total", atomic_load(&k->stream_events), NULL);
	COUNTER("stream_lost_total", "Changes that a page was too slow to see.");
	VALUE("stream_lost_total", atomic_load(&k->stream_lost), NULL);
	GAUGE("connections", "Connections.");
	VALUE("connections", now(&k->connections), NULL);
	COUNTER("connections_total", "Connections accepted.");
	VALUE("connections_total", atomic_load(&k->connections_accepted), NULL);
	COUNTER("connections_timed_out_total", "Connections closed by --request-timeout.");
	VALUE("connections_timed_out_total", atomic_load(&k->connections_timed_out), NULL);
	COUNTER("answers_total", "Answers by class of status.");
	for (unsigned int i = 1; i < ARRAY_SIZE(classes); i++)
		VALUE("answers_total", atomic_load(&r->answers[i]), "class", classes[i], NULL);
}

static void put_all(struct receiver *r, struct metrics *m)
{
	put_taken(m, &r->counters);
	put_output(m, r->output);
	put_store(m, r);
	put_server(m, r);
}

enum MHD_Result api_metrics(struct receiver *r, struct MHD_Connection *c)
{
	struct answer a = {
		.status = MHD_HTTP_OK, .type = "text/plain; version=0.0.4; charset=utf-8"};
	CLEANUP(buf_done)
	struct buf out = BUF_INIT(METRICS_BYTES);
	struct metrics m = {.out = &out};

	put_all(r, &m);
	if (m.error)
		return answer_error(r, c, MHD_HTTP_INTERNAL_SERVER_ERROR, strerror(-m.error));
	return answer_text(r, c, &a, out.data, out.len);
}

int receiver_reference(FILE *out)
{
	CLEANUP(buf_done)
	struct buf page = BUF_INIT(METRICS_BYTES);
	struct metrics m = {.out = &page};
	struct receiver r = {0};
	struct err err;
	int n;

	n = store_new(1, 1, 0, &r.store, &err);
	if (n == 0)
		n = output_new(fileno(out), NULL, 0, 0, 64 << 10, &r.output, &err);
	if (n == 0) {
		put_all(&r, &m);
		n = m.error ? m.error : metrics_table(&page, out);
	}
	output_free(r.output);
	store_free(r.store);
	return n;
}
