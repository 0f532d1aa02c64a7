/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdlib.h>

#include "pkg/operator/internal.h"

struct json_object *make_add(
	struct maker *m, struct json_object *parent, const char *key, struct json_object *child)
{
	if (parent && child && json_object_object_add(parent, key, child) == 0)
		return child;
	m->failed = true;
	json_object_put(child);
	return NULL;
}

struct json_object *make_object(struct maker *m, struct json_object *parent, const char *key)
{
	return make_add(m, parent, key, json_object_new_object());
}

struct json_object *make_array(struct maker *m, struct json_object *parent, const char *key)
{
	return make_add(m, parent, key, json_object_new_array());
}

void make_string(struct maker *m, struct json_object *parent, const char *key, const char *value)
{
	make_add(m, parent, key, json_object_new_string(value));
}

void make_int(struct maker *m, struct json_object *parent, const char *key, int64_t value)
{
	make_add(m, parent, key, json_object_new_int64(value));
}

void make_bool(struct maker *m, struct json_object *parent, const char *key, bool value)
{
	make_add(m, parent, key, json_object_new_boolean(value));
}

struct json_object *make_item(struct maker *m, struct json_object *array, struct json_object *item)
{
	if (array && item && json_object_array_add(array, item) == 0)
		return item;
	m->failed = true;
	json_object_put(item);
	return NULL;
}

struct json_object *make_item_object(struct maker *m, struct json_object *array)
{
	return make_item(m, array, json_object_new_object());
}

void make_item_string(struct maker *m, struct json_object *array, const char *value)
{
	make_item(m, array, json_object_new_string(value));
}

struct json_object *make_share(
	struct maker *m, struct json_object *parent, const char *key, struct json_object *shared)
{
	return make_add(m, parent, key, json_object_get(shared));
}

/*
 * FNV-1a: it tells one spec from the next, and nothing is kept safe by it. Whoever could make two
 * specs of one hash writes the spec: all that is won is that the own change is not seen. A
 * cryptographic hash would cost this process half its memory, libcrypto's.
 */
void hash_of(struct json_object *object, char out[static 17])
{
	const char *text = json_object_to_json_string_ext(object, JSON_C_TO_STRING_PLAIN);
	uint64_t hash = 0xcbf29ce484222325;

	for (; *text; text++)
		hash = (hash ^ (unsigned char)*text) * 0x100000001b3;
	snprintf(out, 17, "%016" PRIx64, hash);
}

const char *key_of(const struct json_object *object, char *out, size_t size)
{
	if (kube_key(object, out, size) < 0)
		snprintf(out, size, "?");
	return out;
}

const char *meta_value(const struct json_object *object, const char *path, const char *name)
{
	struct json_object *map = kube_get(object, path), *value = NULL;

	if (!json_object_is_type(map, json_type_object) ||
		!json_object_object_get_ex(map, name, &value) ||
		!json_object_is_type(value, json_type_string))
		return "";
	return json_object_get_string(value);
}

struct json_object *item_with(const struct json_object *array, const char *key, const char *value)
{
	size_t n =
		json_object_is_type(array, json_type_array) ? json_object_array_length(array) : 0;

	for (size_t i = 0; i < n; i++) {
		struct json_object *item = json_object_array_get_idx(array, i);

		if (strcmp(kube_get_string(item, key), value) == 0)
			return item;
	}
	return NULL;
}
