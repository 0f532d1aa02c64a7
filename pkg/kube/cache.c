/* SPDX-License-Identifier: Apache-2.0 */
/* Sorted by key: a list comes in that order, so that filling it appends. */
#include <errno.h>
#include <stdlib.h>

#include "pkg/kube/internal.h"

void kube_cache_done(struct kube_cache *cache)
{
	for (size_t i = 0; i < cache->count; i++) {
		free(cache->items[i].key);
		json_object_put(cache->items[i].object);
	}
	free(cache->items);
	*cache = (struct kube_cache){0};
}

/* Where it is, or where it belongs. */
static size_t position(const struct kube_cache *cache, const char *key, bool *ret_found)
{
	size_t low = 0, high = cache->count;

	*ret_found = false;
	/* behind the last one: as a list comes */
	if (high > 0 && strcmp(cache->items[high - 1].key, key) < 0)
		return high;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		int order = strcmp(cache->items[middle].key, key);

		if (order == 0) {
			*ret_found = true;
			return middle;
		}
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

struct json_object *kube_cache_get(const struct kube_cache *cache, const char *key)
{
	bool found;
	size_t at = position(cache, key, &found);

	return found ? cache->items[at].object : NULL;
}

static int grow(struct kube_cache *cache)
{
	size_t room = cache->room ? cache->room * 2 : 16;
	struct kube_cached *items;

	if (cache->count < cache->room)
		return 0;
	items = realloc(cache->items, room * sizeof(*items));
	if (!items)
		return -ENOMEM;
	cache->items = items;
	cache->room = room;
	return 0;
}

int kube_cache_put(struct kube_cache *cache, const char *key, struct json_object *object,
	size_t max, struct json_object **ret_old)
{
	bool found;
	size_t at = position(cache, key, &found);
	char *copy;

	*ret_old = NULL;
	if (found) {
		*ret_old = cache->items[at].object;
		cache->items[at].object = json_object_get(object);
		return 0;
	}
	if (cache->count >= max)
		return -ENOSPC;
	copy = strdup(key);
	if (!copy || grow(cache) < 0) {
		free(copy);
		return -ENOMEM;
	}
	memmove(cache->items + at + 1, cache->items + at,
		(cache->count - at) * sizeof(*cache->items));
	cache->items[at] = (struct kube_cached){.key = copy, .object = json_object_get(object)};
	cache->count++;
	return 0;
}

struct json_object *kube_cache_remove(struct kube_cache *cache, const char *key)
{
	struct json_object *object;
	bool found;
	size_t at = position(cache, key, &found);

	if (!found)
		return NULL;
	object = cache->items[at].object;
	free(cache->items[at].key);
	cache->count--;
	memmove(cache->items + at, cache->items + at + 1,
		(cache->count - at) * sizeof(*cache->items));
	return object;
}

void kube_compact(struct json_object *object)
{
	if (json_object_is_type(object, json_type_array)) {
		size_t n = json_object_array_length(object);

		for (size_t i = 0; i < n; i++)
			kube_compact(json_object_array_get_idx(object, i));
	} else if (json_object_is_type(object, json_type_object)) {
		struct lh_table *table = json_object_get_object(object);
		struct json_object_iterator it = json_object_iter_begin(object);
		struct json_object_iterator end = json_object_iter_end(object);
		int n = lh_table_length(table);
		/* The least that json-c fills without growing (its load factor is 0.66). If it
		 * cannot be had, all stays as it is. */
		int size = n > 0 ? (n - 1) * 50 / 33 + 1 : 1;

		for (; !json_object_iter_equal(&it, &end); json_object_iter_next(&it))
			kube_compact(json_object_iter_peek_value(&it));
		if (size < table->size)
			lh_table_resize(table, size);
	}
}
