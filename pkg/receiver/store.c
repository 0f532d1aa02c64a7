/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Three tables. Exchanges lie in a ring by their id. Changes lie in another by their version, and
 * name the exchange: whoever watches goes through it with a number of his own. Those exchanges that
 * lack one half hang in a hash table by connection and the end that saw it.
 *
 * A response goes to the request with its exchange_id, whichever of the two comes first: loaders
 * send several POSTs at a time. Where one lacks that, to the request that it says it answers
 * (method and path, and when: its own time less its latency). One that does not say so, of a sender
 * that knows the seed's ten keys only, goes to the oldest request of its connection that waits.
 */
#include <errno.h>
#include <stdlib.h>

#include "pkg/receiver/internal.h"

#define WALK_MAX     256	    /* exchanges looked at to find the other half */
#define TOLERANCE_MS UINT64_C(1000) /* between when a response was asked for and the request */

struct store {
	pthread_mutex_t lock;
	uint64_t keep, keep_bytes, seed;
	struct exchange *ring; /* keep of them, by id */
	uint64_t first, last;  /* ids */
	uint64_t *changes;     /* ids, by version */
	uint64_t changes_max, version;
	struct exchange **waiting; /* chains, the latest first */
	uint64_t waiting_mask;
	struct store_stats stats;
};

int store_new(uint64_t keep, uint64_t keep_bytes, uint64_t seed, struct store **ret_store,
	struct err *err)
{
	struct store *s = calloc(1, sizeof(*s));
	uint64_t buckets = 64;

	if (!s)
		return err_set(err, ENOMEM, "store: out of memory");
	while (buckets < keep * 2)
		buckets *= 2;
	pthread_mutex_init(&s->lock, NULL);
	s->keep = keep;
	s->keep_bytes = keep_bytes;
	s->seed = seed;
	s->first = 1;
	/* A kept exchange's latest change is never further back than this: each change is a
	 * message. */
	s->changes_max = keep * 4;
	s->ring = calloc(keep, sizeof(*s->ring));
	s->changes = calloc(s->changes_max, sizeof(*s->changes));
	s->waiting = calloc(buckets, sizeof(*s->waiting));
	s->waiting_mask = buckets - 1;
	if (!s->ring || !s->changes || !s->waiting) {
		store_free(s);
		return err_set(err, ENOMEM, "store: no memory for %llu messages (--keep)",
			(unsigned long long)keep);
	}
	*ret_store = s;
	return 0;
}

void store_free(struct store *s)
{
	if (!s)
		return;
	for (uint64_t i = 0; s->ring && i < s->keep; i++) {
		free(s->ring[i].request);
		free(s->ring[i].response);
	}
	free(s->ring);
	free(s->changes);
	free(s->waiting);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

void store_lock(struct store *s)
{
	pthread_mutex_lock(&s->lock);
}

void store_unlock(struct store *s)
{
	pthread_mutex_unlock(&s->lock);
}

void store_stats(const struct store *s, struct store_stats *ret_stats)
{
	*ret_stats = s->stats;
}

uint64_t store_first(const struct store *s)
{
	return s->first;
}

uint64_t store_last(const struct store *s)
{
	return s->last;
}

uint64_t store_version(const struct store *s)
{
	return s->version;
}

uint64_t store_oldest_change(const struct store *s)
{
	return s->version > s->changes_max ? s->version - s->changes_max + 1 : 1;
}

static struct exchange *find(const struct store *s, uint64_t id)
{
	return id >= s->first && id <= s->last ? &s->ring[id % s->keep] : NULL;
}

const struct exchange *store_find(const struct store *s, uint64_t id)
{
	return find(s, id);
}

const struct exchange *store_change(const struct store *s, uint64_t version)
{
	const struct exchange *x;

	if (version < store_oldest_change(s) || version > s->version)
		return NULL;
	x = store_find(s, s->changes[version % s->changes_max]);
	return x && x->version == version ? x : NULL;
}

/* ---- the connection that a message belongs to ---- */

struct end {
	struct span ip;
	uint64_t port;
};

static bool is_response(const struct message *m)
{
	return m->number[MSG_STATUS_CODE] != 0;
}

/* The server's end; no address where the sender does not know it. */
static struct end server_of(const struct message *m)
{
	if (is_response(m))
		return (struct end){m->text[MSG_SRC_IP], m->number[MSG_SRC_PORT]};
	return (struct end){m->text[MSG_DST_IP], m->number[MSG_DST_PORT]};
}

static uint64_t hash_bytes(uint64_t h, struct span bytes)
{
	for (size_t i = 0; i < bytes.len; i++)
		h = (h ^ (unsigned char)bytes.p[i]) * UINT64_C(0x100000001b3);
	return h ^ h >> 29;
}

static uint64_t hash_of(const struct store *s, const struct message *m)
{
	struct end server = server_of(m);
	uint64_t h = s->seed;

	h = hash_bytes(h, m->text[MSG_REMOTE_IP]);
	h = hash_bytes(h, server.ip);
	h = hash_bytes(h, m->text[MSG_NODE]);
	h ^= m->number[MSG_REMOTE_PORT] << 32 | server.port << 1 | seen_by_client(m);
	h *= UINT64_C(0x9e3779b97f4a7c15);
	return h ^ h >> 32;
}

static bool same_connection(const struct message *a, const struct message *b)
{
	struct end x = server_of(a), y = server_of(b);

	return a->number[MSG_REMOTE_PORT] == b->number[MSG_REMOTE_PORT] && x.port == y.port &&
	       seen_by_client(a) == seen_by_client(b) &&
	       span_eq(a->text[MSG_REMOTE_IP], b->text[MSG_REMOTE_IP]) && span_eq(x.ip, y.ip) &&
	       span_eq(a->text[MSG_NODE], b->text[MSG_NODE]);
}

/* ---- who belongs together ---- */

/* An answer of the kind that another follows: 100 Continue, 103 Early Hints. */
static bool is_interim(const struct message *m)
{
	uint64_t status = m->number[MSG_STATUS_CODE];

	return status >= 100 && status < 200 && status != 101;
}

/* How far they are from belonging together, in ms; UINT64_MAX: they do not. */
static uint64_t distance(const struct message *request, const struct message *response)
{
	uint64_t asked = response->number[MSG_TIMING_MS], at = request->number[MSG_TIMING_MS], d;

	if (request->text[MSG_EXCHANGE_ID].len > 0 && response->text[MSG_EXCHANGE_ID].len > 0)
		return span_eq(request->text[MSG_EXCHANGE_ID], response->text[MSG_EXCHANGE_ID])
			       ? 0
			       : UINT64_MAX;
	if (!response->text[MSG_REQUEST_METHOD].p)
		return response->text[MSG_SRC_IP].p ? UINT64_MAX : 0;
	if (!span_eq(request->text[MSG_METHOD], response->text[MSG_REQUEST_METHOD]) ||
		!span_eq(request->text[MSG_PATH], response->text[MSG_REQUEST_PATH]))
		return UINT64_MAX;
	if (!message_has(response, MSG_LATENCY_US))
		return 0;
	asked -= MIN(asked, response->number[MSG_LATENCY_US] / 1000);
	d = asked > at ? asked - at : at - asked;
	return d <= TOLERANCE_MS ? d : UINT64_MAX;
}

static struct exchange *find_other_half(const struct store *s, const struct message *m)
{
	struct exchange *best = NULL;
	uint64_t best_distance = UINT64_MAX;
	int walked = 0;

	for (struct exchange *x = s->waiting[hash_of(s, m) & s->waiting_mask];
		x && walked < WALK_MAX; x = x->next, walked++) {
		const struct kept *half = is_response(m) ? x->request : x->response;
		uint64_t d;

		if (!half || !same_connection(m, &half->m))
			continue;
		/* what lacks a request takes none but that */
		if (!is_response(m) && x->request)
			continue;
		d = is_response(m) ? distance(&half->m, m) : distance(m, &half->m);
		/* the older one, where they are alike: the chain has the latest first */
		if (d != UINT64_MAX && d <= best_distance) {
			best = x;
			best_distance = d;
		}
	}
	return best;
}

static void wait_for_other(struct store *s, struct exchange *x, const struct message *m)
{
	struct exchange **head = &s->waiting[hash_of(s, m) & s->waiting_mask];

	x->next = *head;
	x->link = head;
	if (x->next)
		x->next->link = &x->next;
	*head = x;
}

static void wait_no_more(struct exchange *x)
{
	if (!x->link)
		return;
	*x->link = x->next;
	if (x->next)
		x->next->link = x->link;
	x->next = NULL;
	x->link = NULL;
}

/* ---- keeping ---- */

static uint64_t cost(const struct kept *k)
{
	return sizeof(*k) + k->m.json.len;
}

static struct kept *keep_copy(const struct message *m)
{
	struct kept *k = malloc(sizeof(*k) + m->json.len);

	if (!k)
		return NULL;
	k->m = *m;
	memcpy(k->bytes, m->json.p, m->json.len);
	k->m.json.p = k->bytes;
	for (size_t i = 0; i < MSG_TEXTS; i++)
		if (m->text[i].p)
			k->m.text[i].p = k->bytes + (m->text[i].p - m->json.p);
	return k;
}

static void drop(struct store *s, struct kept *k)
{
	if (!k)
		return;
	s->stats.messages--;
	s->stats.bytes -= cost(k);
	s->stats.evicted++;
	free(k);
}

static void evict_oldest(struct store *s)
{
	struct exchange *x = find(s, s->first);

	wait_no_more(x);
	drop(s, x->request);
	drop(s, x->response);
	*x = (struct exchange){0};
	s->first++;
}

static struct exchange *new_exchange(struct store *s)
{
	struct exchange *x;

	if (s->last - s->first + 1 == s->keep)
		evict_oldest(s);
	s->last++;
	x = &s->ring[s->last % s->keep];
	*x = (struct exchange){.id = s->last};
	return x;
}

/* Everything but the newest exchange may have to go for it. */
static void enforce_limits(struct store *s)
{
	while ((s->stats.messages > s->keep || s->stats.bytes > s->keep_bytes) &&
		s->first < s->last)
		evict_oldest(s);
}

static bool is_complete(const struct exchange *x)
{
	return x->request && x->response && !is_interim(&x->response->m);
}

/* A response that does not say what it answers can only have come after it. */
static bool may_wait(const struct message *m)
{
	return !is_response(m) || m->text[MSG_REQUEST_METHOD].p || is_interim(m);
}

int store_add(struct store *s, const struct message *m)
{
	struct kept *k = keep_copy(m);
	struct exchange *x;

	if (!k)
		return -ENOMEM;
	x = find_other_half(s, m);
	if (!x) {
		x = new_exchange(s);
		if (may_wait(m))
			wait_for_other(s, x, m);
	}
	if (!is_response(m)) {
		x->request = k;
	} else {
		drop(s, x->response); /* an interim one */
		x->response = k;
	}
	if (is_complete(x)) {
		wait_no_more(x);
		s->stats.paired++;
	}
	s->stats.messages++;
	s->stats.bytes += cost(k);
	x->version = ++s->version;
	s->changes[s->version % s->changes_max] = x->id;
	enforce_limits(s);
	s->stats.exchanges = s->last - s->first + 1;
	return 0;
}
