/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A table of hashes, chained twice: by bucket, and from the latest to the oldest. 128 bits of
 * SHA-256 stand for a key: nobody makes two that are alike.
 */
#include <errno.h>
#include <openssl/sha.h>
#include <stdlib.h>

#include "pkg/receiver/internal.h"

#define NONE UINT32_MAX

struct entry {
	uint64_t hash[2];
	uint32_t next;	       /* of the bucket */
	uint32_t newer, older; /* of all */
};

struct seen {
	uint32_t max, count, newest, oldest;
	uint32_t mask;
	struct entry *entries;
	uint32_t *buckets;
};

int seen_new(uint64_t max, struct seen **ret_seen)
{
	struct seen *s = calloc(1, sizeof(*s));
	uint32_t buckets = 16;

	if (!s)
		return -ENOMEM;
	while (buckets < max)
		buckets *= 2;
	s->max = (uint32_t)max;
	s->mask = buckets - 1;
	s->newest = s->oldest = NONE;
	s->entries = calloc(max, sizeof(*s->entries));
	s->buckets = malloc(buckets * sizeof(*s->buckets));
	if (!s->entries || !s->buckets) {
		seen_free(s);
		return -ENOMEM;
	}
	memset(s->buckets, 0xff, buckets * sizeof(*s->buckets));
	*ret_seen = s;
	return 0;
}

void seen_free(struct seen *s)
{
	if (!s)
		return;
	free(s->entries);
	free(s->buckets);
	free(s);
}

static void hash_key(struct span key, uint64_t ret_hash[2])
{
	unsigned char digest[SHA256_DIGEST_LENGTH];

	SHA256((const unsigned char *)key.p, key.len, digest);
	memcpy(ret_hash, digest, 2 * sizeof(*ret_hash));
}

static uint32_t find(const struct seen *s, const uint64_t hash[2])
{
	uint32_t i = s->buckets[hash[0] & s->mask];

	while (i != NONE && (s->entries[i].hash[0] != hash[0] || s->entries[i].hash[1] != hash[1]))
		i = s->entries[i].next;
	return i;
}

static void unlink_age(struct seen *s, uint32_t i)
{
	struct entry *e = &s->entries[i];

	*(e->newer == NONE ? &s->newest : &s->entries[e->newer].older) = e->older;
	*(e->older == NONE ? &s->oldest : &s->entries[e->older].newer) = e->newer;
}

static void make_newest(struct seen *s, uint32_t i)
{
	struct entry *e = &s->entries[i];

	e->newer = NONE;
	e->older = s->newest;
	*(s->newest == NONE ? &s->oldest : &s->entries[s->newest].newer) = i;
	s->newest = i;
}

static void unlink_bucket(struct seen *s, uint32_t i)
{
	uint32_t *link = &s->buckets[s->entries[i].hash[0] & s->mask];

	while (*link != i)
		link = &s->entries[*link].next;
	*link = s->entries[i].next;
}

bool seen_has(struct seen *s, struct span key)
{
	uint64_t hash[2];
	uint32_t i;

	hash_key(key, hash);
	i = find(s, hash);
	if (i == NONE)
		return false;
	unlink_age(s, i);
	make_newest(s, i);
	return true;
}

void seen_put(struct seen *s, struct span key)
{
	uint64_t hash[2];
	struct entry *e;
	uint32_t i;

	hash_key(key, hash);
	if (s->count < s->max) {
		i = s->count++;
	} else {
		i = s->oldest;
		unlink_age(s, i);
		unlink_bucket(s, i);
	}
	e = &s->entries[i];
	memcpy(e->hash, hash, sizeof(hash));
	e->next = s->buckets[hash[0] & s->mask];
	s->buckets[hash[0] & s->mask] = i;
	make_newest(s, i);
}
