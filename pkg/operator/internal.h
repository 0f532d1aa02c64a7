/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of this room share: making JSON. */
#ifndef EBPFDUMP_OPERATOR_INTERNAL_H
#define EBPFDUMP_OPERATOR_INTERNAL_H

#include "pkg/operator/operator.h"

/* Remembers the first failure, so that what is made needs one check at its end. */
struct maker {
	bool failed;
};

/* Each adds and returns what it added; a parent that is NULL (failed before) takes nothing. */
struct json_object *make_add(
	struct maker *m, struct json_object *parent, const char *key, struct json_object *child);
struct json_object *make_object(struct maker *m, struct json_object *parent, const char *key);
struct json_object *make_array(struct maker *m, struct json_object *parent, const char *key);
void make_string(struct maker *m, struct json_object *parent, const char *key, const char *value);
void make_int(struct maker *m, struct json_object *parent, const char *key, int64_t value);
void make_bool(struct maker *m, struct json_object *parent, const char *key, bool value);
/* To an array. */
struct json_object *make_item(struct maker *m, struct json_object *array, struct json_object *item);
struct json_object *make_item_object(struct maker *m, struct json_object *array);
void make_item_string(struct maker *m, struct json_object *array, const char *value);
/* The same object once more (it is not copied, and must not be changed). */
struct json_object *make_share(
	struct maker *m, struct json_object *parent, const char *key, struct json_object *shared);

/* Tells objects apart by their text, as 16 digits and NUL. It is no cryptographic hash. */
void hash_of(struct json_object *object, char out[static 17]);
/* "namespace/name"; "?" if it has none. */
const char *key_of(const struct json_object *object, char *out, size_t size);
/* A label or annotation, whose names have dots; path: of the map. "" if there is none. */
const char *meta_value(const struct json_object *object, const char *path, const char *name);
/* The value of the first object of an array whose member `key` is `value`. */
struct json_object *item_with(const struct json_object *array, const char *key, const char *value);
/* Whether what is known is about this EbpfDump and its present spec. */
bool operator_is_about(const struct operator_facts *facts, const struct json_object *dump);

#endif
