/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The spec of an EbpfDump, read through the loader's table: each row with a path is looked up in
 * the JSON, checked as a flag would be, and becomes an argument where it is not the default.
 */
#include <errno.h>
#include <stdlib.h>

#include <json-c/json.h>

#include "pkg/spec/internal.h"

#define ARGS_MAX   256 /* names of lists count one by one */
#define TEXT_MAX   60  /* of a user's value within an error */
#define SECRET_KEY 253

struct decoder {
	struct json_object *spec;
	struct spec_resource *out;
	size_t capacity;
	struct err *err;
};

/* ---- errors: path, value, what is allowed ---- */

static int refuse(struct decoder *d, const char *path, const char *value, const char *allowed)
{
	size_t len = strlen(value), n = MIN(len, (size_t)TEXT_MAX);
	char shown[TEXT_MAX + 4];

	for (size_t i = 0; i < n; i++)
		shown[i] = (unsigned char)value[i] < 0x20 || value[i] == 0x7f ? '?' : value[i];
	if (n < len)
		n = utf8_valid(shown, n);
	snprintf(shown + n, sizeof(shown) - n, "%s", n < len ? "..." : "");
	return err_set(d->err, EINVAL, "%s: %s is not allowed: %s", path, shown, allowed);
}

static int refuse_json(
	struct decoder *d, const char *path, struct json_object *value, const char *allowed)
{
	return refuse(
		d, path, json_object_to_json_string_ext(value, JSON_C_TO_STRING_PLAIN), allowed);
}

/* What the resource may say; the flag's own wording speaks of suffixes, which it does not take. */
static const char *allowed_text(const struct spec_option *o, char *out, size_t size)
{
	const char *zero = o->or_zero ? "0, or " : "";
	size_t len;

	switch (o->type) {
	case SPEC_FLAG:
		return "true or false";
	case SPEC_UINT:
	case SPEC_SIZE:
		snprintf(out, size, "a number%s, %s%llu to %llu",
			o->type == SPEC_SIZE ? " of bytes" : "", zero, (unsigned long long)o->min,
			(unsigned long long)o->max);
		return out;
	case SPEC_DURATION:
		snprintf(out, size, "a time as text, %s%llums to %llums, with unit ms, s, m, h",
			zero, (unsigned long long)o->min, (unsigned long long)o->max);
		return out;
	case SPEC_STRING:
		snprintf(out, size, "text of at most %llu bytes", (unsigned long long)o->max);
		return out;
	case SPEC_CHOICE:
	case SPEC_CHOICES:
		snprintf(out, size, "%s", o->type == SPEC_CHOICES ? "a list of " : "");
		for (size_t i = 0; o->choices[i]; i++) {
			len = strlen(out);
			snprintf(out + len, size - len, "%s%s",
				i == 0		    ? ""
				: o->choices[i + 1] ? ", "
						    : " or ",
				o->choices[i]);
		}
		return out;
	case SPEC_NAMES:
		snprintf(out, size, "a list of at most %d %s of %llu to %llu bytes", SPEC_NAMES_MAX,
			o->name == SPEC_NAME_HEADER	 ? "header names"
			: o->name == SPEC_NAME_INTERFACE ? "interface names"
			: o->name == SPEC_NAME_LABEL	 ? "names in lower case"
							 : "names",
			(unsigned long long)o->min, (unsigned long long)o->max);
		return out;
	}
	return "";
}

static int refuse_option(struct decoder *d, const struct spec_option *o, struct json_object *value)
{
	char allowed[256];

	return refuse_json(d, o->path, value, allowed_text(o, allowed, sizeof(allowed)));
}

/* ---- look-up ---- */

/* Text without a NUL in it; NULL: it is something else. */
static const char *text_of(struct json_object *value)
{
	const char *text;

	if (!json_object_is_type(value, json_type_string))
		return NULL;
	text = json_object_get_string(value);
	return strlen(text) == (size_t)json_object_get_string_len(value) ? text : NULL;
}

/* What is at "spec.a.b"; NULL if nothing or null is. -EINVAL: what is on the way is no object. */
static int look_up(struct decoder *d, const char *path, struct json_object **ret_value)
{
	struct json_object *at = d->spec;
	const char *rest = strchr(path, '.');

	while (rest && at) {
		const char *name = rest + 1;
		char key[64], way[128];
		size_t len = strcspn(name, ".");

		if (!json_object_is_type(at, json_type_object)) {
			snprintf(way, sizeof(way), "%.*s", (int)(rest - path), path);
			return refuse_json(d, way, at, "an object");
		}
		snprintf(key, sizeof(key), "%.*s", (int)len, name);
		if (!json_object_object_get_ex(at, key, &at))
			at = NULL;
		rest = strchr(name, '.');
	}
	*ret_value = at;
	return 0;
}

/* ---- arguments ---- */

static int add_arg(struct decoder *d, const char *flag, const char *value)
{
	struct spec_resource *r = d->out;
	size_t len = strlen(flag) + (value ? strlen(value) : 0) + 4;
	char *arg;

	if ((size_t)r->argc + 2 > d->capacity)
		return err_set(d->err, E2BIG, "spec: more than %d arguments", ARGS_MAX);
	arg = malloc(len);
	if (!arg)
		return err_set(d->err, ENOMEM, "out of memory");
	snprintf(arg, len, "--%s%s%s", flag, value ? "=" : "", value ? value : "");
	r->argv[r->argc++] = arg;
	r->argv[r->argc] = NULL;
	return 0;
}

/* ---- by type ---- */

static bool same_number(const struct spec_option *o, const char *a, const char *b)
{
	uint64_t x = 0, y = 0;

	if (o->type == SPEC_DURATION)
		return num_parse_duration(span_str(a), 0, UINT64_MAX, &x) == 0 &&
		       num_parse_duration(span_str(b), 0, UINT64_MAX, &y) == 0 && x == y;
	return num_parse_size(span_str(a), 0, UINT64_MAX, &x) == 0 &&
	       num_parse_size(span_str(b), 0, UINT64_MAX, &y) == 0 && x == y;
}

static int take_number(struct decoder *d, const struct spec_option *o, struct json_object *value)
{
	/* an integer's text is its decimal digits, a negative one's is refused for the sign */
	const char *text = o->type == SPEC_DURATION ? text_of(value)
			   : json_object_is_type(value, json_type_int)
				   ? json_object_get_string(value)
				   : NULL;

	if (!text || !spec_value_allowed(o, text))
		return refuse_option(d, o, value);
	return o->fallback && same_number(o, text, o->fallback) ? 0 : add_arg(d, o->flag, text);
}

static int take_text(struct decoder *d, const struct spec_option *o, struct json_object *value)
{
	const char *text = text_of(value);

	if (text && text[0] == '\0' && o->type == SPEC_STRING)
		return 0; /* as if not given */
	if (!text || !spec_value_allowed(o, text))
		return refuse_option(d, o, value);
	return o->fallback && strcmp(text, o->fallback) == 0 ? 0 : add_arg(d, o->flag, text);
}

/* Whether the list is what holds without it, in this order. */
static bool is_default(const struct spec_option *o, struct json_object *list)
{
	const char *const *names = o->type == SPEC_CHOICES ? o->choices : o->names;
	size_t n = json_object_array_length(list), i = 0;

	for (i = 0; names && names[i] && i < n; i++) {
		const char *text = text_of(json_object_array_get_idx(list, i));

		if (!text || strcmp(text, names[i]) != 0)
			return false;
	}
	return i == n && (!names || !names[i]);
}

static int take_list(struct decoder *d, const struct spec_option *o, struct json_object *value)
{
	size_t n;
	int r = 0;

	if (!json_object_is_type(value, json_type_array))
		return refuse_option(d, o, value);
	n = json_object_array_length(value);
	if (n > SPEC_NAMES_MAX)
		return refuse_option(d, o, value);
	/* of names with a default, none at all is something to say; elsewhere it means all */
	if (n == 0 && o->names)
		return add_arg(d, o->flag, "none");
	if (is_default(o, value))
		return 0;
	for (size_t i = 0; r == 0 && i < n; i++) {
		struct json_object *item = json_object_array_get_idx(value, i);
		const char *text = text_of(item);

		if (!text || !spec_value_allowed(o, text))
			r = refuse_option(d, o, item ? item : value);
		else
			r = add_arg(d, o->flag, text);
	}
	return r;
}

static int take(struct decoder *d, const struct spec_option *o)
{
	struct json_object *value = NULL;
	int r = look_up(d, o->path, &value);

	if (r < 0 || !value)
		return r;
	switch (o->type) {
	case SPEC_FLAG:
		if (!json_object_is_type(value, json_type_boolean))
			return refuse_option(d, o, value);
		return json_object_get_boolean(value) ? add_arg(d, o->flag, NULL) : 0;
	case SPEC_UINT:
	case SPEC_SIZE:
	case SPEC_DURATION:
		return take_number(d, o, value);
	case SPEC_STRING:
	case SPEC_CHOICE:
		return take_text(d, o, value);
	case SPEC_CHOICES:
	case SPEC_NAMES:
		return take_list(d, o, value);
	}
	return 0;
}

/* ---- of the pods ---- */

static bool no_blank(const char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text <= 0x20 || *text == 0x7f)
			return false;
	return true;
}

static int take_word(struct decoder *d, const char *path, size_t max, const char **ret_text)
{
	struct json_object *value = NULL;
	char allowed[64];
	const char *text;
	int r = look_up(d, path, &value);

	if (r < 0 || !value)
		return r;
	text = text_of(value);
	if (text && text[0] == '\0')
		return 0;
	snprintf(allowed, sizeof(allowed), "text of 1 to %zu bytes without blanks", max);
	if (!text || strlen(text) > max || !no_blank(text))
		return refuse_json(d, path, value, allowed);
	*ret_text = text;
	return 0;
}

static int take_json(struct decoder *d, const char *path, enum json_type type, const char *allowed,
	struct json_object **ret_value)
{
	struct json_object *value = NULL;
	int r = look_up(d, path, &value);

	if (r < 0 || !value)
		return r;
	if (!json_object_is_type(value, type))
		return refuse_json(d, path, value, allowed);
	*ret_value = value;
	return 0;
}

static int take_secret(struct decoder *d)
{
	static const struct {
		const char *path;
		size_t offset;
	} keys[] = {
		{"spec.callbackSecretRef.name", offsetof(struct spec_secret, name)},
		{"spec.callbackSecretRef.headersKey", offsetof(struct spec_secret, headers)},
		{"spec.callbackSecretRef.hmacKey", offsetof(struct spec_secret, hmac)},
		{"spec.callbackSecretRef.caKey", offsetof(struct spec_secret, ca)},
		{"spec.callbackSecretRef.certKey", offsetof(struct spec_secret, cert)},
		{"spec.callbackSecretRef.privateKeyKey", offsetof(struct spec_secret, key)},
	};
	struct spec_secret *s = &d->out->secret;
	struct json_object *value = NULL;
	int r = look_up(d, "spec.callbackSecretRef", &value);

	if (r < 0 || !value)
		return r;
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(keys); i++)
		r = take_word(d, keys[i].path, SECRET_KEY,
			(const char **)(void *)((char *)s + keys[i].offset));
	if (r < 0)
		return r;
	if (!s->name)
		return err_set(d->err, EINVAL, "spec.callbackSecretRef.name: it is missing");
	if (!s->headers && !s->hmac && !s->ca && !s->cert && !s->key)
		return err_set(d->err, EINVAL,
			"spec.callbackSecretRef: at least one of headersKey, hmacKey, caKey, certKey is "
			"needed");
	if (!s->cert != !s->key)
		return err_set(d->err, EINVAL,
			"spec.callbackSecretRef: certKey and privateKeyKey come together");
	return 0;
}

static int take_pod(struct decoder *d)
{
	struct spec_resource *out = d->out;
	int r = take_word(d, "spec.image", 512, &out->image);

	if (r == 0)
		r = take_word(d, "spec.priorityClassName", 253, &out->priority_class);
	if (r == 0)
		r = take_json(d, "spec.nodeSelector", json_type_object,
			"an object of label names and values", &out->node_selector);
	if (r == 0)
		r = take_json(d, "spec.tolerations", json_type_array, "a list of tolerations",
			&out->tolerations);
	if (r == 0)
		r = take_json(d, "spec.resources", json_type_object,
			"an object of requests and limits", &out->resources);
	return r == 0 ? take_secret(d) : r;
}

/* ---- the whole ---- */

/* What options must be together is told of flags; a user of the resource knows the path. */
static void name_path(struct err *err)
{
	size_t n, len = strcspn(err->text + 2, ":");
	const struct spec_option *o = spec_options(&n);
	char rest[sizeof(err->text)];

	if (strncmp(err->text, "--", 2) != 0)
		return;
	for (size_t i = 0; i < n; i++) {
		if (!o[i].path || strlen(o[i].flag) != len ||
			memcmp(o[i].flag, err->text + 2, len) != 0)
			continue;
		snprintf(rest, sizeof(rest), "%s", err->text + 2 + len);
		snprintf(err->text, sizeof(err->text), "%.100s%.900s", o[i].path, rest);
		return;
	}
}

int spec_resource_decode(
	struct json_object *spec, struct spec_resource *ret_resource, struct err *err)
{
	CLEANUP(spec_resource_done)
	struct spec_resource out = {0};
	struct decoder d = {.spec = spec, .out = &out, .capacity = ARGS_MAX, .err = err};
	struct err why = {0};
	size_t n;
	const struct spec_option *options = spec_options(&n);
	int r = 0;

	if (!json_object_is_type(spec, json_type_object))
		return err_set(err, EINVAL, "spec: it is missing, or no object");
	out.argv = calloc(ARGS_MAX + 1, sizeof(*out.argv));
	if (!out.argv || !(out.argv[0] = strdup(spec_loader.program)))
		return err_set(err, ENOMEM, "out of memory");
	out.argc = 1;
	for (size_t i = 0; r == 0 && i < n; i++)
		if (options[i].path)
			r = take(&d, &options[i]);
	if (r == 0)
		r = take_pod(&d);
	if (r < 0)
		return r;
	r = spec_parse_args(&out.loader, out.argc, out.argv, &why);
	if (r < 0) {
		name_path(&why);
		return err_set(err, EINVAL, "%s", why.text);
	}
	*ret_resource = out;
	out = (struct spec_resource){0};
	return 0;
}

void spec_resource_done(struct spec_resource *resource)
{
	for (int i = 0; i < resource->argc; i++)
		free(resource->argv[i]);
	free(resource->argv);
	*resource = (struct spec_resource){0};
}
