/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What comes from the API server. The first byte of an input chooses what the rest is:
 *   0 the bytes of a watch: however they are cut, the same documents, and the same end
 *   1 a Status, as an answer and as an event
 *   2 Leases, one a line, read by two who want it: never do both hold it
 *   3 values of headers, and times
 */
#include <errno.h>
#include <stdlib.h>

#include "pkg/kube/internal.h"
#include "pkg/kube/kube.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define PROMISE(condition)        \
	do {                      \
		if (!(condition)) \
			abort();  \
	} while (0)
#define EVENT_MAX 4096

/* ---- framing ---- */

struct read_frames {
	struct buf text;
	size_t bytes;
	int result;
	bool partial;
};

static int on_frame(void *ctx, struct json_object *object, size_t bytes)
{
	struct read_frames *r = ctx;
	const char *text = json_object_to_json_string_ext(object, JSON_C_TO_STRING_PLAIN);

	PROMISE(json_object_is_type(object, json_type_object));
	PROMISE(bytes <= EVENT_MAX);
	r->bytes += bytes;
	PROMISE(buf_printf(&r->text, "%s\n", text) >= 0);
	return 0;
}

static uint32_t next_random(uint32_t *state)
{
	*state = *state * 1664525 + 1013904223;
	return *state >> 16;
}

static struct read_frames read_frames(const char *p, size_t len, uint32_t seed, bool whole)
{
	struct read_frames r = {.text = BUF_INIT(16U << 20)};
	struct kube_frames frames;

	PROMISE(kube_frames_init(&frames, EVENT_MAX) == 0);
	for (size_t i = 0, n; i < len && r.result == 0; i += n) {
		n = whole ? len : 1 + next_random(&seed) % (1U << seed % 8);
		n = MIN(n, len - i);
		/* a copy of its own: reading beyond it is seen */
		char *piece = malloc(n);

		PROMISE(piece);
		memcpy(piece, p + i, n);
		r.result = kube_frames_feed(&frames, piece, n, on_frame, &r);
		free(piece);
	}
	PROMISE(r.result == 0 || r.result == -EBADMSG || r.result == -EMSGSIZE);
	r.partial = kube_frames_partial(&frames);
	kube_frames_done(&frames);
	PROMISE(buf_append(&r.text, "", 1) == 0);
	return r;
}

static void fuzz_frames(const char *p, size_t len, uint32_t seed)
{
	struct read_frames whole = read_frames(p, len, seed, true);
	struct read_frames split = read_frames(p, len, seed, false);

	PROMISE(strcmp(whole.text.data, split.text.data) == 0);
	PROMISE(whole.bytes == split.bytes && whole.bytes <= len);
	/* one may find first that it is too long, the other that it is nothing */
	PROMISE((whole.result == 0) == (split.result == 0));
	PROMISE(whole.result < 0 || whole.partial == split.partial);
	buf_done(&whole.text);
	buf_done(&split.text);
}

/* ---- objects ---- */

static struct json_object *parse(const char *p, size_t len)
{
	struct json_object *object = NULL;
	struct err err;
	int r = kube_json_parse(span_of(p, len), &object, &err);

	PROMISE((r == 0) == (object != NULL));
	PROMISE(r == 0 || (r == -EBADMSG && err.text[0]));
	return object;
}

static void fuzz_status(const char *p, size_t len, long code)
{
	struct json_object *object = parse(p, len);
	struct kube_status status;
	char key[KUBE_KEY_MAX];

	kube_status_parse(object, &status);
	PROMISE(status.retry_after_s >= 0 && status.retry_after_s <= 60);
	PROMISE(status.cause_count <= KUBE_CAUSES_MAX);
	PROMISE(strlen(kube_result_name(kube_classify_status(&status))) > 0);
	PROMISE(kube_classify_status(&status) != KUBE_OK);
	PROMISE((kube_classify(code, true, &status) == KUBE_OK) == (code >= 200 && code <= 299));
	PROMISE((kube_classify(code, false, &status) == KUBE_OK) == (code >= 200 && code <= 299));
	PROMISE(kube_key(object, key, sizeof(key)) < 0 || strlen(key) < sizeof(key));
	kube_compact(object);
	json_object_put(object);
}

/* ---- lease ---- */

struct player {
	struct kube_lease lease;
	bool stale; /* what it read is not what is there */
};

static void step(struct player *p, struct kube_lease_record *there, bool *exists, uint64_t now,
	uint32_t *seed, struct player *other)
{
	struct kube_lease_record w;
	enum kube_lease_action a = kube_lease_try(&p->lease, now, now, &w);

	for (int i = 0; a != KUBE_LEASE_WAIT && a != KUBE_LEASE_LOST; i++) {
		bool ok = next_random(seed) % 8 != 0;

		PROMISE(i < 8);
		if (a == KUBE_LEASE_GET) {
			p->stale = p->stale && !ok;
			a = kube_lease_got(&p->lease, ok && *exists ? there : NULL, ok && !*exists,
				now, now, &w);
			continue;
		}
		PROMISE(strcmp(w.holder, p->lease.config.identity) == 0);
		ok = ok && (a == KUBE_LEASE_CREATE ? !*exists : *exists && !p->stale);
		if (ok) {
			*there = w;
			*exists = true;
			other->stale = true;
		}
		a = kube_lease_wrote(&p->lease, ok, &w, now);
	}
}

static void fuzz_lease(const char *p, size_t len, uint32_t seed)
{
	struct kube_lease_config config = {
		.lease_ms = 15000, .renew_ms = 10000, .retry_ms = 2000, .jitter = 1.2};
	struct kube_lease_record there = {0};
	struct player players[2];
	uint64_t now = 1000 * KUBE_SECOND;
	bool exists = false;

	for (int i = 0; i < 2; i++) {
		snprintf(config.identity, sizeof(config.identity), "player-%d", i);
		players[i] = (struct player){0};
		kube_lease_init(&players[i].lease, &config);
	}
	while (len > 0) {
		const char *end = memchr(p, '\n', len);
		size_t n = end ? (size_t)(end - p) : len;
		struct json_object *object = parse(p, n);
		int who = (int)(next_random(&seed) % 2);
		struct kube_lease_record read;

		/* what the input says is what a third one writes */
		if (object && kube_lease_parse(object, &read, NULL) == 0 &&
			strncmp(read.holder, "player-", 7) != 0) {
			there = read;
			exists = true;
			players[0].stale = players[1].stale = true;
		}
		json_object_put(object);
		step(&players[who], &there, &exists, now, &seed, &players[!who]);
		PROMISE(!kube_lease_valid(&players[0].lease, now) ||
			!kube_lease_valid(&players[1].lease, now) || exists);
		now += next_random(&seed) % 8 * KUBE_SECOND;
		p += MIN(len, n + 1);
		len -= MIN(len, n + 1);
	}
}

/* ---- texts ---- */

static void fuzz_texts(const char *p, size_t len)
{
	char *text = strndup(p, len), again[KUBE_TIME_MAX], out[64];
	uint32_t seconds = 0;
	uint64_t ns, ns2;

	PROMISE(text);
	if (kube_retry_after(span_of(p, len), &seconds) == 0)
		PROMISE(seconds <= 60);
	if (kube_time_parse(text, &ns) == 0) {
		kube_micro_time_format(ns, again);
		PROMISE(strlen(again) == 27 && kube_time_parse(again, &ns2) == 0 &&
			ns2 == ns / 1000 * 1000);
		kube_time_format(ns, again);
		PROMISE(strlen(again) == 20 && kube_time_parse(again, &ns2) == 0 &&
			ns2 == ns / KUBE_SECOND * KUBE_SECOND);
	}
	PROMISE(kube_warning_text(span_of(p, len), out, sizeof(out)) == strnlen(out, sizeof(out)));
	PROMISE(utf8_valid(out, strlen(out)) == strlen(out));
	kube_one_line(span_of(p, len), out, sizeof(out));
	PROMISE(!strchr(out, '\n') && utf8_valid(out, strlen(out)) == strlen(out));
	kube_call_resource(text, out, sizeof(out));
	PROMISE(strspn(out, "abcdefghijklmnopqrstuvwxyz0123456789/") == strlen(out));
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *p = (const char *)data + 2;

	if (size < 2 || size > 65536)
		return 0;
	size -= 2;
	switch (data[0] % 4) {
	case 0:
		fuzz_frames(p, size, data[1]);
		break;
	case 1:
		fuzz_status(p, size, 200 + data[1] * 2);
		break;
	case 2:
		fuzz_lease(p, size, data[1]);
		break;
	default:
		fuzz_texts(p, size);
		break;
	}
	return 0;
}
