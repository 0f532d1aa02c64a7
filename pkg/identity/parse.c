/* SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>

#include "pkg/identity/identity.h"

static bool is_hex(const char *p, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (!isxdigit((unsigned char)p[i]))
			return false;
	return true;
}

static bool ends_with(struct span s, const char *end)
{
	size_t len = strlen(end);

	return s.len >= len && memcmp(s.p + s.len - len, end, len) == 0;
}

static struct span without(struct span s, const char *end)
{
	if (ends_with(s, end))
		s.len -= strlen(end);
	return s;
}

/* "0a1b2c3d-....", systemd's driver has _ for each -; a static pod's is a hash of 32 digits. */
static bool parse_uid(struct span s, char out[IDENTITY_UID_LEN + 1])
{
	static const size_t parts[] = {8, 4, 4, 4, 12};
	size_t at = 0;

	if (s.len != IDENTITY_UID_LEN && s.len != 32)
		return false;
	if (s.len == 32 && !is_hex(s.p, 32))
		return false;
	for (size_t i = 0; s.len == IDENTITY_UID_LEN && i < ARRAY_SIZE(parts); i++) {
		if (i > 0 && s.p[at] != '-' && s.p[at] != '_')
			return false;
		at += i > 0;
		if (!is_hex(s.p + at, parts[i]))
			return false;
		at += parts[i];
	}
	for (size_t i = 0; i < s.len; i++)
		out[i] = s.p[i] == '_' ? '-' : s.p[i];
	out[s.len] = '\0';
	return true;
}

/* "kubepods-burstable-podUID.slice", "podUID" */
static bool parse_pod(struct span part, char out[IDENTITY_UID_LEN + 1])
{
	static const size_t lengths[] = {IDENTITY_UID_LEN, 32};

	part = without(part, ".slice");
	for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
		struct span before = part;

		if (part.len < lengths[i] + 3)
			continue;
		before.len -= lengths[i];
		if (ends_with(before, "pod") &&
			(before.len == 3 || before.p[before.len - 4] == '-') &&
			parse_uid(span_of(part.p + before.len, lengths[i]), out))
			return true;
	}
	return false;
}

/* "cri-containerd-ID.scope", "ID" */
static bool parse_container(struct span part, char out[IDENTITY_CONTAINER_LEN + 1])
{
	size_t before;

	part = without(part, ".scope");
	if (part.len < IDENTITY_CONTAINER_LEN)
		return false;
	before = part.len - IDENTITY_CONTAINER_LEN;
	if ((before > 0 && part.p[before - 1] != '-') ||
		!is_hex(part.p + before, IDENTITY_CONTAINER_LEN))
		return false;
	memcpy(out, part.p + before, IDENTITY_CONTAINER_LEN);
	out[IDENTITY_CONTAINER_LEN] = '\0';
	return true;
}

void identity_parse_cgroup(const char *path, struct identity_ids *ret_ids)
{
	struct identity_ids ids = {.uid = ""};

	while (*path) {
		size_t len = strcspn(path, "/");
		struct span part = span_of(path, len);

		if (parse_container(part, ids.container))
			break;
		if (!ids.uid[0])
			parse_pod(part, ids.uid);
		path += len + (path[len] == '/');
	}
	*ret_ids = ids;
}

/* The part of s before the next '_'; s is what follows. */
static bool cut(struct span *s, struct span *ret_part)
{
	const char *p = memchr(s->p, '_', s->len);

	if (!p || p == s->p)
		return false;
	*ret_part = span_of(s->p, (size_t)(p - s->p));
	*s = span_of(p + 1, s->len - ret_part->len - 1);
	return true;
}

bool identity_parse_pod_dir(
	const char *name, const char *uid, struct span *ret_namespace, struct span *ret_pod)
{
	struct span rest = span_str(name), namespace, pod;

	if (!cut(&rest, &namespace) || !cut(&rest, &pod) || !span_eq(rest, span_str(uid)))
		return false;
	*ret_namespace = namespace;
	*ret_pod = pod;
	return true;
}

bool identity_parse_link(
	const char *name, const char *container_id, struct identity_names *ret_names)
{
	struct span rest = without(span_str(name), ".log"), namespace, pod;

	if (rest.len == strlen(name) || !cut(&rest, &pod) || !cut(&rest, &namespace) ||
		!ends_with(rest, container_id))
		return false;
	rest.len -= strlen(container_id);
	if (rest.len < 2 || rest.p[rest.len - 1] != '-')
		return false;
	rest.len--;
	*ret_names = (struct identity_names){.namespace = namespace, .pod = pod, .container = rest};
	return true;
}
