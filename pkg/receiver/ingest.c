/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <zlib.h>

#include "pkg/receiver/internal.h"

#define FEW 16 /* messages that need no memory of their own */

const char *refusal_name(enum refusal r)
{
	static const char *const names[REFUSED_MAX] = {"syntax", "type", "size", "token",
		"signature", "origin", "memory", "output", "broken"};

	return (unsigned int)r < REFUSED_MAX ? names[r] : "unknown";
}

/* ---- gzip ---- */

/* Room in out, at least some: 1. 0: it is as large as may be. */
static int make_room(struct buf *out)
{
	size_t more = MIN(MAX(out->cap, (size_t)64 << 10), out->max - out->len);
	int r;

	if (out->len < out->cap)
		return 1;
	if (more == 0)
		return 0;
	r = buf_reserve(out, more);
	return r < 0 ? r : 1;
}

/* Until the end of one member. 0, or -errno. */
static int unpack_member(z_stream *z, struct buf *out)
{
	int r, status;

	do {
		r = make_room(out);
		if (r <= 0)
			return r < 0 ? r : -EFBIG;
		z->next_out = (unsigned char *)out->data + out->len;
		z->avail_out = (uInt)MIN(out->cap - out->len, (size_t)1 << 30);
		status = inflate(z, Z_NO_FLUSH);
		out->len = (size_t)((char *)z->next_out - out->data);
		if (status == Z_MEM_ERROR)
			return -ENOMEM;
		if (status != Z_OK && status != Z_STREAM_END)
			return -EBADMSG;
	} while (status != Z_STREAM_END);
	return 0;
}

int ingest_unpack(struct span packed, struct buf *out)
{
	z_stream z = {
		.next_in = (unsigned char *)(uintptr_t)packed.p, .avail_in = (uInt)packed.len};
	int r;

	if (packed.len > UINT32_MAX)
		return -EFBIG;
	/* 16: gzip, nothing else */
	if (inflateInit2(&z, 16 + MAX_WBITS) != Z_OK)
		return -ENOMEM;
	do {
		r = unpack_member(&z, out);
		if (r == 0 && z.avail_in > 0 && inflateReset(&z) != Z_OK)
			r = -ENOMEM;
	} while (r == 0 && z.avail_in > 0);
	inflateEnd(&z);
	return r;
}

/* ---- reading a body ---- */

/* The messages that will be kept, the last ones of a body, in a ring. */
struct batch {
	struct message few[FEW];
	struct message *messages;
	size_t cap, max; /* max: of the store */
	uint64_t count;	 /* of all */
	/* What is written: the body itself, where its messages are lines already. */
	struct span body, lines;
	bool copied;
	struct buf copy;
	const char *expected; /* where the next message must begin, to be a line of the body */
};

static void batch_done(struct batch *b)
{
	if (b->messages != b->few)
		free(b->messages);
	buf_done(&b->copy);
}

static int batch_grow(struct batch *b)
{
	size_t cap = MIN(b->cap * 4, b->max);
	struct message *messages = malloc(cap * sizeof(*messages));

	if (!messages)
		return -ENOMEM;
	memcpy(messages, b->messages, b->cap * sizeof(*messages));
	if (b->messages != b->few)
		free(b->messages);
	b->messages = messages;
	b->cap = cap;
	return 0;
}

static int batch_keep(struct batch *b, const struct message *m)
{
	int r = 0;

	if (b->count == b->cap && b->cap < b->max)
		r = batch_grow(b);
	if (r == 0)
		b->messages[b->count++ % b->cap] = *m;
	return r;
}

/* From here on lines are made; so far they were the body's. */
static int start_copy(struct batch *b)
{
	int r;

	b->copied = true;
	/* Lines never need more: where two messages meet there is a byte at least. Nothing moves
	 * then, and spans into it stay true. */
	b->copy = BUF_INIT(b->body.len + 1);
	r = buf_reserve(&b->copy, b->body.len + 1);
	return r < 0 ? r : buf_append(&b->copy, b->body.p, (size_t)(b->expected - b->body.p));
}

/* m->json is the message compact; where it stood with white space, it is a copy of that. */
static int copy_line(struct batch *b, struct message *m)
{
	size_t at = b->copy.len;
	struct scan again;
	int r;

	if (m->spaced) {
		r = scan_compact(m->json, &b->copy);
		if (r == 0) {
			scan_init(&again, span_of(b->copy.data + at, b->copy.len - at), NULL);
			r = scan_next(&again, m) == 1 ? 0 : -EBADMSG;
		}
	} else {
		r = buf_append(&b->copy, m->json.p, m->json.len);
	}
	return r < 0 ? r : buf_append(&b->copy, "\n", 1);
}

static int take_line(struct batch *b, struct message *m)
{
	const char *end = m->json.p + m->json.len;
	int r = 0;

	if (!b->copied && !m->spaced && m->json.p == b->expected && end < b->body.p + b->body.len &&
		*end == '\n') {
		b->expected = end + 1;
		return batch_keep(b, m);
	}
	if (!b->copied)
		r = start_copy(b);
	if (r == 0)
		r = copy_line(b, m);
	return r < 0 ? r : batch_keep(b, m);
}

static int read_batch(struct batch *b, struct span body, size_t max, struct err *err)
{
	struct message m;
	struct scan scan;
	int r;

	*b = (struct batch){.cap = MIN((size_t)FEW, max), .max = max, .body = body};
	b->messages = b->few;
	b->expected = body.p;
	scan_init(&scan, body, err);
	while ((r = scan_next(&scan, &m)) > 0) {
		r = take_line(b, &m);
		if (r < 0)
			return err_set(err, -r, "out of memory");
	}
	if (r < 0)
		return r;
	b->lines = b->copied ? span_of(b->copy.data, b->copy.len)
			     : span_of(body.p, (size_t)(b->expected - body.p));
	return 0;
}

/* ---- taking it over ---- */

static void refuse(struct verdict *v, unsigned int status, enum refusal why, const char *text)
{
	v->status = status;
	v->refusal = why;
	if (text)
		err_set(&v->err, EIO, "%s", text);
}

static void keep_batch(struct intake *in, const struct batch *b)
{
	uint64_t n = MIN(b->count, (uint64_t)b->cap);

	store_lock(in->store);
	for (uint64_t i = b->count - n; i < b->count; i++)
		if (store_add(in->store, &b->messages[i % b->cap]) < 0)
			atomic_fetch_add(&in->counters->store_failed, 1);
	store_unlock(in->store);
}

/* Under lock. */
static void take_batch(struct intake *in, const struct batch *b, struct span key, struct verdict *v)
{
	int r;

	if (key.len > 0 && seen_has(in->seen, key)) {
		v->duplicate = true;
		atomic_fetch_add(&in->counters->duplicate_bodies, 1);
		atomic_fetch_add(&in->counters->duplicates, b->count);
		return;
	}
	r = b->count > 0 ? output_write(in->output, b->lines.p, b->lines.len) : 0;
	if (r == -ENOBUFS) {
		refuse(v, 429, REFUSED_OUTPUT, "standard output is slow: later");
		return;
	}
	if (r < 0) {
		refuse(v, 503, REFUSED_BROKEN, "it cannot be written: later");
		return;
	}
	if (key.len > 0)
		seen_put(in->seen, key);
	atomic_fetch_add(&in->counters->messages, b->count);
	keep_batch(in, b);
}

void ingest_take(struct intake *in, struct span body, struct span key, struct verdict *v)
{
	CLEANUP(batch_done)
	struct batch b;
	int r;

	*v = (struct verdict){.status = 200};
	r = read_batch(&b, body, in->keep, &v->err);
	if (r < 0) {
		if (r == -EBADMSG)
			refuse(v, 400, REFUSED_SYNTAX, NULL);
		else
			refuse(v, 429, REFUSED_MEMORY, NULL);
		return;
	}
	v->messages = b.count;
	pthread_mutex_lock(&in->lock);
	take_batch(in, &b, key, v);
	pthread_mutex_unlock(&in->lock);
}
