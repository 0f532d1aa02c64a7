/* SPDX-License-Identifier: Apache-2.0 */
#include "pkg/operator/internal.h"

/* What has no readable time has the latest. */
static uint64_t created(const struct json_object *object)
{
	uint64_t wall_ns;

	return kube_time_parse(kube_get_string(object, "metadata.creationTimestamp"), &wall_ns) < 0
		       ? UINT64_MAX
		       : wall_ns;
}

bool operator_before(const struct json_object *a, const struct json_object *b)
{
	uint64_t at = created(a), bt = created(b);
	char a_key[KUBE_KEY_MAX], b_key[KUBE_KEY_MAX];

	if (at != bt)
		return at < bt;
	return strcmp(key_of(a, a_key, sizeof(a_key)), key_of(b, b_key, sizeof(b_key))) < 0;
}

struct json_object *operator_winner(struct json_object *const *objects, size_t count)
{
	struct json_object *winner = NULL;

	for (size_t i = 0; i < count; i++) {
		if (kube_get_string(objects[i], "metadata.deletionTimestamp")[0])
			continue;
		if (!winner || operator_before(objects[i], winner))
			winner = objects[i];
	}
	return winner;
}
