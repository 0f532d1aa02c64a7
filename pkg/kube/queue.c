/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Upstream's three structures in one entry for each key: dirty and working are its two sets, the
 * list is its queue (dirty and not working), the heap its delaying queue.
 */
#include <errno.h>
#include <stdlib.h>

#include "pkg/kube/kube.h"

#define KEYS_DEFAULT 4096
#define CHAINS	     1024
#define BASE_NS	     UINT64_C(5000000)
#define CAP_NS	     (1000 * KUBE_SECOND)
#define RATE	     10
#define BURST	     100

struct entry {
	struct entry *chain; /* the next of the same hash */
	struct entry *next;  /* in the list */
	uint32_t failures;
	uint32_t heap_at;  /* 1 based; 0: not delayed */
	uint64_t due_ns;   /* of the delay */
	uint64_t since_ns; /* in the list or in work since then */
	bool dirty, working;
	char key[];
};

struct kube_queue {
	struct entry *chains[CHAINS];
	struct entry *first, **last;
	struct entry **heap; /* [1..delayed] */
	struct kube_bucket bucket;
	bool bucket_filled;
	bool shut_down;
	uint32_t keys_max;
	struct kube_queue_stats stats;
};

int kube_queue_new(uint32_t keys_max, struct kube_queue **ret_queue)
{
	struct kube_queue *q = calloc(1, sizeof(*q));

	if (!q)
		return -ENOMEM;
	q->keys_max = keys_max ? keys_max : KEYS_DEFAULT;
	q->last = &q->first;
	q->heap = calloc((size_t)q->keys_max + 1, sizeof(*q->heap));
	if (!q->heap) {
		free(q);
		return -ENOMEM;
	}
	*ret_queue = q;
	return 0;
}

void kube_queue_free(struct kube_queue *q)
{
	if (!q)
		return;
	for (size_t i = 0; i < CHAINS; i++) {
		while (q->chains[i]) {
			struct entry *e = q->chains[i];

			q->chains[i] = e->chain;
			free(e);
		}
	}
	free(q->heap);
	free(q);
}

void kube_queue_freep(struct kube_queue **queue)
{
	kube_queue_free(*queue);
	*queue = NULL;
}

/* ---- keys ---- */

static struct entry **slot_of(struct kube_queue *q, const char *key)
{
	uint32_t hash = 2166136261;
	struct entry **slot;

	for (const char *p = key; *p; p++)
		hash = (hash ^ (unsigned char)*p) * 16777619;
	slot = &q->chains[hash % CHAINS];
	while (*slot && strcmp((*slot)->key, key) != 0)
		slot = &(*slot)->chain;
	return slot;
}

static struct entry *find(const struct kube_queue *q, const char *key)
{
	return *slot_of((struct kube_queue *)q, key);
}

static int find_or_make(struct kube_queue *q, const char *key, struct entry **ret_entry)
{
	struct entry **slot = slot_of(q, key);
	size_t len = strlen(key);

	if (*slot) {
		*ret_entry = *slot;
		return 0;
	}
	if (len >= KUBE_KEY_MAX || q->stats.keys == q->keys_max) {
		q->stats.refused++;
		return len >= KUBE_KEY_MAX ? -ENAMETOOLONG : -ENOBUFS;
	}
	*slot = calloc(1, sizeof(**slot) + len + 1);
	if (!*slot) {
		q->stats.refused++;
		return -ENOMEM;
	}
	memcpy((*slot)->key, key, len + 1);
	q->stats.keys++;
	*ret_entry = *slot;
	return 0;
}

/* Forgotten as soon as there is nothing to know of it. */
static void drop_idle(struct kube_queue *q, struct entry *e)
{
	if (e->dirty || e->working || e->heap_at || e->failures)
		return;
	*slot_of(q, e->key) = e->chain;
	q->stats.keys--;
	free(e);
}

/* ---- heap of the delayed ---- */

static void place(struct kube_queue *q, uint32_t at, struct entry *e)
{
	q->heap[at] = e;
	e->heap_at = at;
}

static void heap_up(struct kube_queue *q, uint32_t at)
{
	struct entry *e = q->heap[at];

	for (; at > 1 && q->heap[at / 2]->due_ns > e->due_ns; at /= 2)
		place(q, at, q->heap[at / 2]);
	place(q, at, e);
}

static void heap_down(struct kube_queue *q, uint32_t at)
{
	struct entry *e = q->heap[at];
	uint32_t child;

	while ((child = at * 2) <= q->stats.delayed) {
		if (child < q->stats.delayed && q->heap[child + 1]->due_ns < q->heap[child]->due_ns)
			child++;
		if (q->heap[child]->due_ns >= e->due_ns)
			break;
		place(q, at, q->heap[child]);
		at = child;
	}
	place(q, at, e);
}

static void heap_insert(struct kube_queue *q, struct entry *e)
{
	place(q, ++q->stats.delayed, e);
	heap_up(q, e->heap_at);
}

static struct entry *heap_pop(struct kube_queue *q)
{
	struct entry *e = q->heap[1], *end = q->heap[q->stats.delayed--];

	if (end != e) {
		place(q, 1, end);
		heap_down(q, 1);
	}
	e->heap_at = 0;
	return e;
}

/* ---- adding ---- */

static void push(struct kube_queue *q, struct entry *e, uint64_t now)
{
	e->since_ns = now;
	e->next = NULL;
	*q->last = e;
	q->last = &e->next;
	q->stats.depth++;
}

static void mark(struct kube_queue *q, struct entry *e, uint64_t now)
{
	if (e->dirty)
		return;
	e->dirty = true;
	q->stats.adds++;
	if (!e->working)
		push(q, e, now);
}

int kube_queue_add(struct kube_queue *q, const char *key, uint64_t now)
{
	struct entry *e;
	int r;

	if (q->shut_down)
		return -ESHUTDOWN;
	r = find_or_make(q, key, &e);
	if (r == 0)
		mark(q, e, now);
	return r;
}

static void delay(struct kube_queue *q, struct entry *e, uint64_t due_ns)
{
	if (!e->heap_at) {
		e->due_ns = due_ns;
		heap_insert(q, e);
	} else if (due_ns < e->due_ns) {
		e->due_ns = due_ns;
		heap_up(q, e->heap_at);
	}
}

static uint64_t later(uint64_t now, uint64_t delay_ns)
{
	return delay_ns > UINT64_MAX - 1 - now ? UINT64_MAX - 1 : now + delay_ns;
}

int kube_queue_add_after(struct kube_queue *q, const char *key, uint64_t delay_ns, uint64_t now)
{
	struct entry *e;
	int r;

	if (delay_ns == 0)
		return kube_queue_add(q, key, now);
	if (q->shut_down)
		return -ESHUTDOWN;
	r = find_or_make(q, key, &e);
	if (r == 0)
		delay(q, e, later(now, delay_ns));
	return r;
}

static uint64_t failure_delay(uint32_t failures)
{
	/* 5 ms * 2^18 is beyond the cap */
	return failures >= 18 ? CAP_NS : MIN(BASE_NS << failures, CAP_NS);
}

int kube_queue_add_limited(struct kube_queue *q, const char *key, uint64_t least_ns, uint64_t now)
{
	uint64_t wait_ns;
	struct entry *e;
	int r;

	if (q->shut_down)
		return -ESHUTDOWN;
	r = find_or_make(q, key, &e);
	if (r < 0)
		return r;
	if (!q->bucket_filled)
		kube_bucket_init(&q->bucket, RATE, BURST, now);
	q->bucket_filled = true;
	wait_ns = kube_bucket_reserve(&q->bucket, now);
	q->stats.retries++;
	wait_ns = MAX(wait_ns, failure_delay(e->failures));
	delay(q, e, later(now, MAX(wait_ns, least_ns)));
	if (e->failures < UINT32_MAX)
		e->failures++;
	return 0;
}

void kube_queue_forget(struct kube_queue *q, const char *key)
{
	struct entry *e = find(q, key);

	if (!e)
		return;
	e->failures = 0;
	drop_idle(q, e);
}

uint32_t kube_queue_failures(const struct kube_queue *q, const char *key)
{
	const struct entry *e = find(q, key);

	return e ? e->failures : 0;
}

/* ---- taking ---- */

bool kube_queue_take(struct kube_queue *q, uint64_t now, char *ret_key)
{
	struct entry *e;

	while (q->stats.delayed > 0 && q->heap[1]->due_ns <= now) {
		e = heap_pop(q);
		mark(q, e, e->due_ns);
	}
	e = q->first;
	if (!e)
		return false;
	q->first = e->next;
	if (!q->first)
		q->last = &q->first;
	q->stats.depth--;
	q->stats.working++;
	q->stats.taken++;
	q->stats.wait_ns += now > e->since_ns ? now - e->since_ns : 0;
	e->since_ns = now;
	e->dirty = false;
	e->working = true;
	memcpy(ret_key, e->key, strlen(e->key) + 1);
	return true;
}

void kube_queue_done(struct kube_queue *q, const char *key, uint64_t now)
{
	struct entry *e = find(q, key);

	if (!e || !e->working)
		return;
	e->working = false;
	q->stats.working--;
	q->stats.work_ns += now > e->since_ns ? now - e->since_ns : 0;
	if (e->dirty)
		push(q, e, now);
	else
		drop_idle(q, e);
}

void kube_queue_finish(struct kube_queue *q, const char *key, enum kube_outcome outcome,
	uint64_t after_ns, uint64_t now)
{
	/* It is in work: its entry is there, so that adding needs no memory and cannot fail but
	 * for the shut-down. */
	switch (outcome) {
	case KUBE_FAILED:
		(void)kube_queue_add_limited(q, key, after_ns, now);
		break;
	case KUBE_AGAIN:
		kube_queue_forget(q, key);
		(void)kube_queue_add_after(q, key, after_ns, now);
		break;
	case KUBE_DONE:
		kube_queue_forget(q, key);
		break;
	case KUBE_TERMINAL:
		break;
	}
	kube_queue_done(q, key, now);
}

uint64_t kube_queue_next_ns(const struct kube_queue *q)
{
	if (q->first)
		return 0;
	return q->stats.delayed > 0 ? q->heap[1]->due_ns : UINT64_MAX;
}

void kube_queue_shut_down(struct kube_queue *q)
{
	q->shut_down = true;
}

void kube_queue_stats(const struct kube_queue *q, struct kube_queue_stats *ret_stats)
{
	*ret_stats = q->stats;
}
