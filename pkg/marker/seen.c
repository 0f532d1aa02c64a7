/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#include "pkg/marker/internal.h"

_Static_assert(MARKER_REMEMBERED % SEEN_WAYS == 0, "whole sets");

int seen_init(struct seen_table *t)
{
	if (getrandom(&t->seed, sizeof(t->seed), 0) != sizeof(t->seed))
		return -errno;
	t->entries = calloc(MARKER_REMEMBERED, sizeof(*t->entries));
	return t->entries ? 0 : -ENOMEM;
}

void seen_done(struct seen_table *t)
{
	free(t->entries);
	t->entries = NULL;
}

struct seen *seen_of(struct seen_table *t, const struct value *value)
{
	struct seen *set, *oldest;
	uint64_t h;

	/* who has the key makes the nonces: they are not chosen to collide */
	memcpy(&h, value->nonce, sizeof(h));
	h = (h ^ t->seed) * UINT64_C(0x9e3779b97f4a7c15);
	set = &t->entries[(h >> 32) % (MARKER_REMEMBERED / SEEN_WAYS) * SEEN_WAYS];
	oldest = set;
	for (unsigned i = 0; i < SEEN_WAYS; i++) {
		if (set[i].time_s == value->time_s &&
			memcmp(set[i].nonce, value->nonce, sizeof(value->nonce)) == 0)
			return &set[i];
		if (set[i].time_s < oldest->time_s)
			oldest = &set[i];
	}
	*oldest = (struct seen){.time_s = value->time_s};
	memcpy(oldest->nonce, value->nonce, sizeof(value->nonce));
	return oldest;
}
