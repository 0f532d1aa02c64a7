/* SPDX-License-Identifier: Apache-2.0 */
/* What a request is called in metrics, and the texts of an answer: pure. */
#include "pkg/kube/internal.h"

/* Behind "/api/V/" or "/apis/G/V/", and behind "namespaces/NS/" if more follows. */
static const char *resource_of(const char *path)
{
	int skip;

	if (strncmp(path, "/api/", 5) == 0)
		skip = 2;
	else if (strncmp(path, "/apis/", 6) == 0)
		skip = 3;
	else
		return NULL;
	for (; skip > 0; skip--) {
		path = strchr(path + 1, '/');
		if (!path)
			return NULL;
	}
	path++;
	if (strncmp(path, "namespaces/", 11) == 0) {
		const char *behind = strchr(path + 11, '/');

		/* a namespace itself, or its status, are of the resource "namespaces" */
		if (behind && strcmp(behind, "/status") != 0 && strcmp(behind, "/finalize") != 0)
			path = behind + 1;
	}
	return path;
}

static bool is_named(const char *path)
{
	const char *resource = resource_of(path);

	return resource && strchr(resource, '/');
}

const char *kube_call_verb(
	enum kube_method method, const char *path, const char *content_type, bool stream)
{
	switch (method) {
	case KUBE_GET:
		if (stream)
			return "watch";
		return resource_of(path) && !is_named(path) ? "list" : "get";
	case KUBE_POST:
		return "create";
	case KUBE_PUT:
		return "update";
	case KUBE_PATCH:
		return content_type && strncmp(content_type, "application/apply-patch", 23) == 0
			       ? "apply"
			       : "patch";
	case KUBE_DELETE:
		return "delete";
	}
	return "other";
}

void kube_call_resource(const char *path, char *out, size_t size)
{
	const char *resource = resource_of(path);
	const char *sub;
	size_t len;

	snprintf(out, size, "other");
	if (!resource)
		return;
	len = strcspn(resource, "/");
	if (len == 0 || strspn(resource, "abcdefghijklmnopqrstuvwxyz0123456789") < len)
		return;
	/* the name is left out, what follows it is not */
	sub = resource[len] ? strchr(resource + len + 1, '/') : NULL;
	if (sub && strspn(sub + 1, "abcdefghijklmnopqrstuvwxyz") < strlen(sub + 1))
		return;
	snprintf(out, size, "%.*s%s", (int)len, resource, sub ? sub : "");
}

size_t kube_warning_text(struct span value, char *out, size_t size)
{
	const char *p = memchr(value.p, '"', value.len), *end = value.p + value.len;
	size_t n = 0;

	if (!p) {
		p = value.p;
	} else {
		p++;
	}
	for (; p < end && n + 1 < size; p++) {
		if (*p == '"')
			break;
		if (*p == '\\' && p + 1 < end)
			p++;
		out[n++] = (unsigned char)*p < 0x20 ? ' ' : *p;
	}
	/* not in the middle of a character */
	n = utf8_valid(out, n);
	out[n] = '\0';
	return n;
}

void kube_one_line(struct span text, char *out, size_t size)
{
	size_t n = 0;

	text.len = utf8_valid(text.p, text.len);
	for (size_t i = 0; i < text.len && n + 1 < size; i++) {
		unsigned char c = (unsigned char)text.p[i];

		out[n++] = c < 0x20 || c == 0x7f ? ' ' : (char)c;
	}
	n = utf8_valid(out, n);
	while (n > 0 && out[n - 1] == ' ')
		n--;
	out[n] = '\0';
}
