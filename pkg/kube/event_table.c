/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What was told lately. The same event again within 6 minutes becomes a series of the first, which
 * is patched every 30 s at most; a new one of an object takes a token of that object's bucket.
 */
#include <errno.h>
#include <stdlib.h>

#include "pkg/kube/kube.h"

#define SERIES_NS    (360 * KUBE_SECOND) /* of silence, that close a series */
#define PATCH_NS     (30 * KUBE_SECOND)
#define OBJECTS_MAX  256
#define OBJECT_BURST 25
#define OBJECT_RATE  (1.0 / 300)

struct slot {
	char *key; /* NULL: free */
	char namespace[64], name[256];
	uint32_t count;
	bool pending; /* counted beyond what was last said */
	uint64_t seen_ns, said_ns, last_wall_ns;
};

struct object {
	uint64_t hash;
	bool used;
	struct kube_bucket bucket; /* at_ns: when it was last asked */
};

struct kube_event_table {
	struct slot slots[KUBE_EVENT_KEYS_MAX];
	struct object objects[OBJECTS_MAX];
	uint64_t names; /* given: two in one nanosecond */
};

int kube_event_table_new(struct kube_event_table **ret_table)
{
	struct kube_event_table *t = calloc(1, sizeof(*t));

	if (!t)
		return -ENOMEM;
	*ret_table = t;
	return 0;
}

void kube_event_table_free(struct kube_event_table *t)
{
	if (!t)
		return;
	for (size_t i = 0; i < KUBE_EVENT_KEYS_MAX; i++)
		free(t->slots[i].key);
	free(t);
}

void kube_event_table_freep(struct kube_event_table **table)
{
	kube_event_table_free(*table);
	*table = NULL;
}

static const char *text(const char *s)
{
	return s ? s : "";
}

static uint64_t hash_of(const struct kube_regarding *r)
{
	const char *const parts[] = {r->kind, r->namespace, r->name, r->uid};
	uint64_t hash = UINT64_C(14695981039346656037);

	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		for (const char *p = text(parts[i]); *p; p++)
			hash = (hash ^ (unsigned char)*p) * UINT64_C(1099511628211);
		hash = (hash ^ 0xff) * UINT64_C(1099511628211);
	}
	return hash;
}

/* The object's bucket; a new one in place of that which was asked longest ago. */
static struct kube_bucket *bucket_of(
	struct kube_event_table *t, const struct kube_regarding *r, uint64_t now)
{
	uint64_t hash = hash_of(r);
	struct object *oldest = &t->objects[0];

	for (size_t i = 0; i < OBJECTS_MAX; i++) {
		struct object *o = &t->objects[i];

		if (o->used && o->hash == hash)
			return &o->bucket;
		if (oldest->used && (!o->used || o->bucket.at_ns < oldest->bucket.at_ns))
			oldest = o;
	}
	*oldest = (struct object){.hash = hash, .used = true};
	kube_bucket_init(&oldest->bucket, OBJECT_RATE, OBJECT_BURST, now);
	return &oldest->bucket;
}

static int make_key(const struct kube_event *e, struct buf *out)
{
	const struct kube_regarding *r = &e->regarding;
	const char *const parts[] = {r->api_version, r->kind, r->namespace, r->name, r->uid,
		e->warning ? "w" : "n", e->reason, e->action, e->note};

	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		const char *s = text(parts[i]);
		int n = buf_append(out, s, strlen(s) + 1);

		if (n < 0)
			return n;
	}
	/* separators become visible, so that it is one string */
	for (size_t i = 0; i + 1 < out->len; i++) {
		if (out->data[i] == '\0')
			out->data[i] = '\n';
	}
	return 0;
}

static struct slot *slot_of(struct kube_event_table *t, const char *key)
{
	for (size_t i = 0; i < KUBE_EVENT_KEYS_MAX; i++) {
		if (t->slots[i].key && strcmp(t->slots[i].key, key) == 0)
			return &t->slots[i];
	}
	return NULL;
}

static struct slot *free_slot(struct kube_event_table *t)
{
	struct slot *oldest = &t->slots[0];

	for (size_t i = 0; i < KUBE_EVENT_KEYS_MAX; i++) {
		struct slot *s = &t->slots[i];

		if (!s->key)
			return s;
		if (s->seen_ns < oldest->seen_ns)
			oldest = s;
	}
	free(oldest->key);
	oldest->key = NULL;
	return oldest;
}

static struct kube_event_todo todo(enum kube_event_do what, const struct slot *s)
{
	struct kube_event_todo todo = {
		.what = what, .count = s->count, .last_wall_ns = s->last_wall_ns};

	memcpy(todo.namespace, s->namespace, sizeof(todo.namespace));
	memcpy(todo.name, s->name, sizeof(todo.name));
	return todo;
}

/* "<object>.<time>", as all recorders name them; without the object where that is too long. */
static void name_slot(struct kube_event_table *t, struct slot *s, const struct kube_regarding *r,
	uint64_t wall_ns)
{
	unsigned long long unique = wall_ns + t->names++;

	snprintf(s->namespace, sizeof(s->namespace), "%s",
		*text(r->namespace) ? r->namespace : "default");
	if (strlen(r->name) + 17 <= 253)
		snprintf(s->name, sizeof(s->name), "%s.%016llx", r->name, unique);
	else
		snprintf(s->name, sizeof(s->name), "event.%016llx", unique);
}

static struct kube_event_todo create(struct kube_event_table *t, const struct kube_event *event,
	char *key, uint64_t now, uint64_t wall_ns)
{
	struct slot *s = free_slot(t);

	*s = (struct slot){
		.key = key, .count = 1, .seen_ns = now, .said_ns = now, .last_wall_ns = wall_ns};
	name_slot(t, s, &event->regarding, wall_ns);
	return todo(KUBE_EVENT_CREATE, s);
}

void kube_event_seen(struct kube_event_table *t, const struct kube_event *event, uint64_t now,
	uint64_t wall_ns, struct kube_event_todo *ret_todo)
{
	CLEANUP(buf_done)
	struct buf key = BUF_INIT(8192);
	struct slot *s;

	*ret_todo = (struct kube_event_todo){.what = KUBE_EVENT_DROP};
	if (make_key(event, &key) < 0)
		return;
	s = slot_of(t, key.data);
	if (s && now < s->seen_ns + SERIES_NS) {
		s->seen_ns = now;
		s->last_wall_ns = wall_ns;
		if (s->count < INT32_MAX)
			s->count++;
		s->pending = now < s->said_ns + PATCH_NS;
		if (!s->pending)
			s->said_ns = now;
		*ret_todo = todo(s->pending ? KUBE_EVENT_COUNT : KUBE_EVENT_PATCH, s);
		return;
	}
	if (kube_bucket_take(bucket_of(t, &event->regarding, now), now) > 0)
		return;
	if (s) {
		free(s->key);
		s->key = NULL;
	}
	*ret_todo = create(t, event, TAKE(key.data), now, wall_ns);
	key = BUF_INIT(0);
}

bool kube_event_due(struct kube_event_table *t, uint64_t now, struct kube_event_todo *ret_todo)
{
	for (size_t i = 0; i < KUBE_EVENT_KEYS_MAX; i++) {
		struct slot *s = &t->slots[i];

		if (s->key && s->pending && now >= s->said_ns + PATCH_NS) {
			s->pending = false;
			if (now != UINT64_MAX)
				s->said_ns = now;
			*ret_todo = todo(KUBE_EVENT_PATCH, s);
			return true;
		}
	}
	return false;
}

uint64_t kube_event_due_ns(const struct kube_event_table *t)
{
	uint64_t due = UINT64_MAX;

	for (size_t i = 0; i < KUBE_EVENT_KEYS_MAX; i++) {
		if (t->slots[i].key && t->slots[i].pending)
			due = MIN(due, t->slots[i].said_ns + PATCH_NS);
	}
	return due;
}

void kube_event_gone(struct kube_event_table *t, const char *namespace, const char *name)
{
	for (size_t i = 0; i < KUBE_EVENT_KEYS_MAX; i++) {
		struct slot *s = &t->slots[i];

		if (s->key && strcmp(s->namespace, namespace) == 0 && strcmp(s->name, name) == 0) {
			free(s->key);
			*s = (struct slot){0};
		}
	}
}
