/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The first byte of an input chooses options, the second how the stream is cut, the rest is the
 * stream. See http_reader.h for what is checked of each call; here, that the split makes no
 * difference, that a head cut anywhere is parsed to its end, that a gap in a body is worth the
 * bytes it stands for, and that what a message looks like does not change with more bytes.
 */
#include "test/fuzz/http_reader.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
	const char *method;
	uint32_t max_fields;
	bool front;
	uint8_t seed;
	const char *p;
	size_t len;
};

static uint32_t next_random(uint32_t *state)
{
	*state = *state * 1664525 + 1013904223;
	return *state >> 16;
}

static void read_whole(struct reader *r, const struct input *in)
{
	reader_init(r, in->method);
	r->max_fields = in->max_fields;
	r->front = in->front;
	reader_feed(r, in->p, in->len);
	reader_end(r);
}

/* Pieces of random lengths; with seed 0, single bytes. */
static void read_split(struct reader *r, const struct input *in)
{
	uint32_t state = in->seed;

	reader_init(r, in->method);
	r->max_fields = in->max_fields;
	r->front = !in->front;
	for (size_t i = 0, n; i < in->len; i += n) {
		n = in->seed == 0 ? 1 : 1 + next_random(&state) % (1U << (in->seed % 8));
		n = MIN(n, in->len - i);
		reader_feed(r, in->p + i, n);
	}
	reader_end(r);
}

static void check_split(const struct input *in)
{
	struct reader whole, split;

	read_whole(&whole, in);
	read_split(&split, in);
	PROMISE(strcmp(whole.text.data, split.text.data) == 0);
	PROMISE(whole.consumed == split.consumed);
	reader_done(&whole);
	reader_done(&split);
}

static void check_cut_head(const struct input *in, size_t len)
{
	struct reader r;

	reader_init(&r, in->method);
	r.max_fields = in->max_fields;
	reader_head(&r, reader_guard(in->p, len, in->front), len);
	reader_done(&r);
}

/* A gap of n bytes at p against the n bytes themselves. */
static void check_gap(const struct http_body *body, const char *p, size_t n)
{
	struct http_body gap = *body, fed = *body;
	struct span run;
	uint64_t inside = http_body_gap(&gap, n);
	size_t used = http_body_feed(&fed, p, n, &run);

	PROMISE(inside <= n);
	/* the line end behind a chunk's data is part of the gap */
	if (inside < n && !gap.done && !gap.lost) {
		PROMISE(gap.framing == HTTP_BODY_CHUNKED && n - inside <= 2);
		PROMISE(n - inside < 2 || memcmp(p + inside, "\r\n", 2) != 0 ||
			(used == n && gap.state == fed.state && gap.left == fed.left));
	}
	PROMISE(!(gap.done && gap.lost));
	if (run.len == n) {
		/* nothing but payload */
		PROMISE(used == n && inside == n);
		PROMISE(gap.done == fed.done && gap.lost == fed.lost && gap.left == fed.left);
		PROMISE(gap.state == fed.state);
	} else if (inside > 0) {
		PROMISE(run.len == inside && run.p == p);
	}
}

static void check_gaps(const struct input *in, size_t head_size)
{
	struct http_field fields[4];
	struct http_head head = {.fields = fields, .max_fields = ARRAY_SIZE(fields)};
	struct http_body body;
	struct span run;
	uint64_t length = 0;
	uint32_t state = in->seed;
	enum http_framing framing;

	http_head_parse(in->p, head_size, &head);
	framing = http_framing(in->p, &head, span_str(in->method), &length);
	http_body_init(&body, framing, length);
	for (size_t i = head_size; i < in->len && !body.done && !body.lost;) {
		size_t n = 1 + next_random(&state) % 16;

		check_gap(&body, in->p + i, MIN(n, in->len - i));
		check_gap(&body, in->p + i, in->len - i);
		/* a step that may end inside anything */
		i += http_body_feed(&body, in->p + i, MIN(n, in->len - i), &run);
	}
}

static void check_looks(const struct input *in, enum http_looks (*looks)(const char *, size_t))
{
	enum http_looks before = HTTP_LOOKS_MAYBE;

	for (size_t len = 0; len <= MIN(in->len, (size_t)128); len++) {
		enum http_looks now = looks(reader_guard(in->p, len, in->front), len);

		PROMISE(before == HTTP_LOOKS_MAYBE || now == before);
		before = now;
	}
	PROMISE(in->len < 128 || before != HTTP_LOOKS_MAYBE);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const methods[] = {"", "GET", "HEAD", "CONNECT"};
	static const uint32_t max_fields[] = {READER_FIELDS, 0, 1, 5};
	struct input in;
	size_t scanned = 0, head_size;

	if (size < 2 || size > 65536)
		return 0;
	in = (struct input){
		.method = methods[data[0] & 3],
		.max_fields = max_fields[data[0] >> 2 & 3],
		.front = data[0] >> 4 & 1,
		.seed = data[1],
		.p = (const char *)data + 2,
		.len = size - 2,
	};
	check_split(&in);
	check_looks(&in, http_looks_like);
	check_looks(&in, http_looks_like_known);
	head_size = http_head_end(in.p, in.len, &scanned);
	if (head_size > 0) {
		check_cut_head(&in, head_size * in.seed / 256);
		check_gaps(&in, head_size);
	}
	return 0;
}
