/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "pkg/kube/kube.h"

#define SEGMENT_MAX 64

void json_putp(struct json_object **object)
{
	json_object_put(*object);
	*object = NULL;
}

struct json_object *kube_get(const struct json_object *object, const char *path)
{
	struct json_object *value = NULL;
	char segment[SEGMENT_MAX];

	for (;;) {
		size_t len = strcspn(path, ".");

		if (len >= sizeof(segment) || !json_object_is_type(object, json_type_object))
			return NULL;
		memcpy(segment, path, len);
		segment[len] = '\0';
		if (!json_object_object_get_ex(object, segment, &value))
			return NULL;
		if (path[len] == '\0')
			return value;
		object = value;
		path += len + 1;
	}
}

const char *kube_get_string(const struct json_object *object, const char *path)
{
	struct json_object *value = kube_get(object, path);

	return json_object_is_type(value, json_type_string) ? json_object_get_string(value) : "";
}

int64_t kube_get_int(const struct json_object *object, const char *path, int64_t fallback)
{
	struct json_object *value = kube_get(object, path);

	return json_object_is_type(value, json_type_int) ? json_object_get_int64(value) : fallback;
}

bool kube_get_bool(const struct json_object *object, const char *path)
{
	struct json_object *value = kube_get(object, path);

	return json_object_is_type(value, json_type_boolean) && json_object_get_boolean(value);
}

int kube_key(const struct json_object *object, char *ret_key, size_t size)
{
	const char *namespace = kube_get_string(object, "metadata.namespace");
	const char *name = kube_get_string(object, "metadata.name");
	char key[KUBE_KEY_MAX];
	int n;

	if (*name == '\0')
		return -EINVAL;
	n = snprintf(key, sizeof(key), "%s%s%s", namespace, *namespace ? "/" : "", name);
	if (n < 0 || (size_t)n >= MIN(sizeof(key), size))
		return -EINVAL;
	memcpy(ret_key, key, (size_t)n + 1);
	return 0;
}

static bool is_space(char c)
{
	return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

static void tokener_freep(struct json_tokener **tokener)
{
	if (*tokener)
		json_tokener_free(*tokener);
}

int kube_json_parse(struct span text, struct json_object **ret_object, struct err *err)
{
	CLEANUP(tokener_freep)
	struct json_tokener *tokener = NULL;
	CLEANUP(json_putp)
	struct json_object *object = NULL;

	while (text.len > 0 && is_space(text.p[text.len - 1]))
		text.len--;
	if (text.len == 0)
		return err_set(err, EBADMSG, "empty");
	if (text.len > INT32_MAX)
		return err_set(err, EBADMSG, "too long");
	if (utf8_valid(text.p, text.len) != text.len || memchr(text.p, '\0', text.len))
		return err_set(err, EBADMSG, "not UTF-8");
	tokener = json_tokener_new_ex(KUBE_JSON_DEPTH + 2);
	if (!tokener)
		return err_set(err, ENOMEM, "out of memory");
	object = json_tokener_parse_ex(tokener, text.p, (int)text.len);
	if (!object) {
		enum json_tokener_error e = json_tokener_get_error(tokener);

		return err_set(err, EBADMSG, "not JSON at byte %zu: %s",
			json_tokener_get_parse_end(tokener),
			e == json_tokener_continue ? "it ends too early"
						   : json_tokener_error_desc(e));
	}
	if (json_tokener_get_parse_end(tokener) != text.len)
		return err_set(err, EBADMSG, "not JSON: more behind byte %zu",
			json_tokener_get_parse_end(tokener));
	if (!json_object_is_type(object, json_type_object))
		return err_set(err, EBADMSG, "not a JSON object");
	*ret_object = TAKE(object);
	return 0;
}

int kube_escape(struct buf *out, const char *text)
{
	static const char hex[] = "0123456789ABCDEF";

	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;
		bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
			     (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_' || c == '~';
		char escaped[3] = {'%', hex[c >> 4], hex[c & 15]};
		int r = plain ? buf_append(out, text, 1) : buf_append(out, escaped, 3);

		if (r < 0)
			return r;
	}
	return 0;
}
