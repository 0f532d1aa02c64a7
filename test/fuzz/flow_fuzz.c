/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Capture records from bytes. The first byte chooses the limits; then come commands: an operation,
 * an argument, and for data a length and so many bytes.
 *
 *   operation  bits 0-1 connection, bit 2 direction, bits 3-5 what (below), bit 6 packet, bit 7
 * first argument   signed, of what
 */
#include <arpa/inet.h>
#include <stdlib.h>

#include "pkg/flow/flow.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
	IN_ORDER,  /* argument: none */
	AROUND,	   /* ahead of or behind the place it should have */
	NOT_WHOLE, /* stands for more bytes than it holds */
	FAR,	   /* somewhere else */
	END,	   /* bits of the argument: both, reset, with its place */
	TIME,	   /* passes, argument * 100 ms, back as well */
	LIE,	   /* one byte of the header is the argument */
	FINISH,
};

#define CHECK(condition)          \
	do {                      \
		if (!(condition)) \
			abort();  \
	} while (0)

struct state {
	struct flow *flow;
	uint64_t messages[2], faults;
	uint32_t body_bytes;
	unsigned sum; /* so that nothing read is optimised out */
};

static void touch(struct state *s, const char *p, size_t len)
{
	for (size_t i = 0; i < len; i++)
		s->sum += (unsigned char)p[i];
}

static void touch_slice(struct state *s, const struct dump_message *m, struct http_slice slice)
{
	CHECK(slice.len == 0 || (size_t)slice.off + slice.len <= m->head->size);
	touch(s, m->bytes + slice.off, slice.len);
}

static void on_message(void *ctx, const struct dump_message *m)
{
	struct state *s = ctx;

	CHECK(m->head->kind == HTTP_REQUEST || m->head->kind == HTTP_RESPONSE);
	s->messages[m->head->kind]++;
	s->faults += m->error != NULL;
	touch_slice(s, m, m->head->method);
	touch_slice(s, m, m->head->target);
	touch_slice(s, m, m->head->version);
	for (uint32_t i = 0; i < m->head->n_fields; i++) {
		touch_slice(s, m, m->head->fields[i].name);
		touch_slice(s, m, m->head->fields[i].value);
	}
	CHECK(m->body.len <= s->body_bytes);
	CHECK(m->body.len <= m->body_bytes);
	CHECK(m->body_truncated == (m->body.len < m->body_bytes));
	touch(s, m->body.p, m->body.len);
	if (m->request_method.len > 0) {
		CHECK(m->head->kind == HTTP_RESPONSE);
		touch(s, m->request_method.p, m->request_method.len);
		touch(s, m->request_path.p, m->request_path.len);
		touch(s, m->request_host.p, m->request_host.len);
	}
	touch(s, m->conn->local.ip, m->conn->local.ip_len);
	touch(s, m->conn->comm, strlen(m->conn->comm));
	if (m->error)
		touch(s, m->error, strlen(m->error));
}

/* What the first letter of the target or reason says. */
static enum flow_verdict on_head(void *ctx, const struct flow_head *h)
{
	struct state *s = ctx;
	struct http_slice what = h->head->target.len ? h->head->target : h->head->version;
	size_t at = (size_t)what.off + what.len;

	touch(s, h->bytes, h->head->size);
	touch(s, h->conn->remote.ip, h->conn->remote.ip_len);
	switch (at > 0 ? h->bytes[at - 1] : 0) {
	case 'i':
		return FLOW_IGNORE;
	case 'l':
		return FLOW_LEAVE_OUT;
	}
	return FLOW_KEEP;
}

static void check(const struct state *s, const struct flow_options *options)
{
	const struct flow_stats *st = flow_stats(s->flow);

	CHECK(st->bytes == st->bytes_parsed + st->bytes_repeated + st->bytes_unparsed +
				   st->bytes_left_out + st->bytes_unfinished);
	CHECK(st->buffered <= options->buffer_bytes);
	CHECK(st->connections <= options->max_connections);
	CHECK(st->parsed[0] + st->parsed[1] ==
		s->messages[0] + s->messages[1] + st->ignored + st->left_out);
	CHECK(st->faults == s->faults);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint32_t next[4][2] = {{0xffffff00, 0xffffff80}, {1, 1}, {0x7fffffff, 0x7ffffff0}};
	struct flow_options options;
	struct state s = {0};
	uint64_t now = 1000000000;
	uint8_t limits;

	if (size == 0)
		return 0;
	limits = *data++;
	size--;
	flow_options_default(&options);
	if (limits & 1)
		options.max_connections = 2;
	if (limits & 2)
		options.body_bytes = 7;
	if (limits & 4)
		options.head_bytes = 60;
	if (limits & 8)
		options.max_fields = 2;
	if (limits & 16)
		options.buffer_bytes = 1500;
	if (limits & 32)
		options.max_pending = 2;
	if (limits & 64)
		options.idle_ms = 5000;
	s.body_bytes = options.body_bytes;
	CHECK(flow_new(&options, on_message, &s, &s.flow, NULL) == 0);
	if (limits & 128)
		flow_on_head(s.flow, on_head, &s);

	while (size >= 2) {
		uint8_t op = data[0], what = op >> 3 & 7, id = op & 3, dir = op >> 2 & 1;
		int8_t argument = (int8_t)data[1];
		uint8_t *exact;
		size_t n;
		struct capture_record r = {
			.version = CAPTURE_VERSION,
			.type = CAPTURE_DATA,
			.direction = dir,
			.time_ns = now,
			.connection = id + 1U,
			.seq = next[id][dir],
			.flags = CAPTURE_F_SEQ | (op & 64 ? CAPTURE_F_PACKET : 0) |
				 (op & 128 ? CAPTURE_F_FIRST : 0),
			.family = id & 1 ? AF_INET6 : AF_INET,
		};

		data += 2;
		size -= 2;
		switch (what) {
		case AROUND:
			r.seq += (uint32_t)argument;
			if (argument & 1)
				r.flags |= CAPTURE_F_RETRACT;
			break;
		case NOT_WHOLE:
			r.length = (uint8_t)argument;
			break;
		case FAR:
			r.seq += (uint32_t)argument << 24;
			break;
		case END:
			r.type = CAPTURE_END;
			r.size = sizeof(r);
			r.flags = argument & 4 ? CAPTURE_F_SEQ : 0;
			if (argument & 2)
				r.flags |= CAPTURE_F_RESET;
			if (argument & 1)
				r.direction = CAPTURE_BOTH;
			r.seq += (uint32_t)(argument >> 3);
			flow_record(s.flow, &r, NULL, argument);
			check(&s, &options);
			continue;
		case TIME:
			now += (uint64_t)(argument * INT64_C(100000000));
			flow_tick(s.flow, now);
			check(&s, &options);
			continue;
		case FINISH:
			flow_finish(s.flow);
			check(&s, &options);
			CHECK(flow_stats(s.flow)->buffered == 0);
			continue;
		}
		if (size == 0)
			break;
		n = MIN((size_t)*data, size - 1);
		data++;
		size--;
		/* memory of exactly that size, gone afterwards */
		exact = malloc(n ? n : 1);
		CHECK(exact);
		if (n)
			memcpy(exact, data, n);
		data += n;
		size -= n;
		r.captured = (uint32_t)n;
		r.length += r.captured;
		r.size = (uint32_t)(sizeof(r) + n);
		next[id][dir] = r.seq + r.length;
		if (what == LIE && n > 0) {
			/* sizes may not lie about the memory that is there: the reader of the ring
			 * buffer and of files knows it */
			uint32_t captured = r.captured;

			((uint8_t *)&r)[exact[0] % sizeof(r)] = (uint8_t)argument;
			if (r.captured > captured)
				r.captured = captured;
		}
		flow_record(s.flow, &r, (const char *)exact, argument);
		free(exact);
		check(&s, &options);
	}
	flow_finish(s.flow);
	check(&s, &options);
	CHECK(flow_stats(s.flow)->buffered == 0);
	CHECK(flow_stats(s.flow)->bytes_unfinished == 0);
	flow_free(s.flow);
	return 0;
}
