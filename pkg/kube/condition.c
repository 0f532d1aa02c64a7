/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include "pkg/kube/kube.h"

#define TYPE_MAX    316
#define REASON_MAX  1024
#define MESSAGE_MAX 32768

static bool is_lower(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static bool is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_alnum(char c)
{
	return is_letter(c) || (c >= '0' && c <= '9');
}

/* Labels of lower case letters, digits and dashes, with dots between. */
static bool valid_prefix(const char *p, size_t len)
{
	bool begin = true;

	for (size_t i = 0; i < len; i++) {
		bool last = i + 1 == len || p[i + 1] == '.';

		if (p[i] == '.') {
			if (begin)
				return false;
			begin = true;
			continue;
		}
		if (!is_lower(p[i]) && (p[i] != '-' || begin || last))
			return false;
		begin = false;
	}
	return len > 0 && !begin;
}

static bool valid_type(const char *type)
{
	const char *slash = strchr(type, '/');
	const char *name = slash ? slash + 1 : type;
	size_t len = strlen(name);

	if (strlen(type) > TYPE_MAX || len == 0 || !is_alnum(name[0]) || !is_alnum(name[len - 1]))
		return false;
	for (size_t i = 0; i < len; i++) {
		if (!is_alnum(name[i]) && name[i] != '-' && name[i] != '_' && name[i] != '.')
			return false;
	}
	return !slash || valid_prefix(type, (size_t)(slash - type));
}

static bool valid_reason(const char *reason)
{
	size_t len = strlen(reason);

	if (len == 0 || len > REASON_MAX || !is_letter(reason[0]))
		return false;
	for (size_t i = 1; i < len; i++) {
		bool inside = reason[i] == ',' || reason[i] == ':';

		if (!is_alnum(reason[i]) && reason[i] != '_' && (!inside || i + 1 == len))
			return false;
	}
	return true;
}

int kube_condition_check(const struct kube_condition *c, struct err *err)
{
	if (!c->type || !valid_type(c->type))
		return err_set(err, EINVAL, "condition type '%s' is not a qualified name",
			c->type ? c->type : "");
	if (!c->status || (strcmp(c->status, "True") != 0 && strcmp(c->status, "False") != 0 &&
				  strcmp(c->status, "Unknown") != 0))
		return err_set(err, EINVAL,
			"condition %s: status '%s' is not True, False or Unknown", c->type,
			c->status ? c->status : "");
	if (!c->reason || !valid_reason(c->reason))
		return err_set(err, EINVAL,
			"condition %s: reason '%s' is not a letter followed by letters, digits and _",
			c->type, c->reason ? c->reason : "");
	if (!c->message || utf8_valid(c->message, strlen(c->message)) != strlen(c->message))
		return err_set(err, EINVAL, "condition %s: the message is not UTF-8", c->type);
	if (c->observed_generation < 0)
		return err_set(
			err, EINVAL, "condition %s: observedGeneration is negative", c->type);
	return 0;
}

struct json_object *kube_condition_find(const struct json_object *conditions, const char *type)
{
	size_t n;

	if (!json_object_is_type(conditions, json_type_array))
		return NULL;
	n = json_object_array_length(conditions);
	for (size_t i = 0; i < n; i++) {
		struct json_object *c = json_object_array_get_idx(conditions, i);

		if (strcmp(kube_get_string(c, "type"), type) == 0)
			return c;
	}
	return NULL;
}

static int put(struct json_object *object, const char *name, struct json_object *value)
{
	if (!value)
		return -ENOMEM;
	if (json_object_object_add(object, name, value) < 0) {
		json_object_put(value);
		return -ENOMEM;
	}
	return 0;
}

/* 1: changed. */
static int put_string(struct json_object *object, const char *name, const char *text, size_t len)
{
	struct json_object *old = kube_get(object, name);
	int r;

	if (json_object_is_type(old, json_type_string) &&
		(size_t)json_object_get_string_len(old) == len &&
		memcmp(json_object_get_string(old), text, len) == 0)
		return 0;
	r = put(object, name, json_object_new_string_len(text, (int)len));
	return r < 0 ? r : 1;
}

static int put_int(struct json_object *object, const char *name, int64_t value)
{
	int r;

	if (json_object_is_type(kube_get(object, name), json_type_int) &&
		kube_get_int(object, name, 0) == value)
		return 0;
	r = put(object, name, json_object_new_int64(value));
	return r < 0 ? r : 1;
}

static int update(struct json_object *object, const struct kube_condition *c, uint64_t wall_ns)
{
	char time[KUBE_TIME_MAX];
	int r, changed;

	changed = put_string(object, "status", c->status, strlen(c->status));
	if (changed > 0 || *kube_get_string(object, "lastTransitionTime") == '\0') {
		kube_time_format(wall_ns, time);
		r = put_string(object, "lastTransitionTime", time, strlen(time));
		if (r < 0)
			return r;
		changed |= r;
	}
	if (changed < 0)
		return changed;
	r = put_string(object, "reason", c->reason, strlen(c->reason));
	if (r < 0)
		return r;
	changed |= r;
	r = put_string(object, "message", c->message,
		utf8_valid(c->message, MIN(strlen(c->message), (size_t)MESSAGE_MAX)));
	if (r < 0)
		return r;
	changed |= r;
	r = put_int(object, "observedGeneration", c->observed_generation);
	return r < 0 ? r : changed | r;
}

int kube_condition_set(
	struct json_object *conditions, const struct kube_condition *c, uint64_t wall_ns)
{
	CLEANUP(json_putp)
	struct json_object *object = NULL;
	struct json_object *there;
	int r;

	if (kube_condition_check(c, NULL) < 0 || !json_object_is_type(conditions, json_type_array))
		return -EINVAL;
	there = kube_condition_find(conditions, c->type);
	if (there)
		return update(there, c, wall_ns);
	object = json_object_new_object();
	if (!object)
		return -ENOMEM;
	r = put_string(object, "type", c->type, strlen(c->type));
	if (r >= 0)
		r = update(object, c, wall_ns);
	if (r < 0)
		return r;
	if (json_object_array_add(conditions, object) < 0)
		return -ENOMEM;
	object = NULL; /* the array's now */
	return 1;
}
