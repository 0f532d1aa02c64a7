/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of this room share.
 *
 *   marker.c  values are made and checked
 *   key.c     keys: from the file, in rotation
 *   place.c   what a socket says of itself
 *   seen.c    the markers that were accepted or relayed
 */
#ifndef EBPFDUMP_MARKER_INTERNAL_H
#define EBPFDUMP_MARKER_INTERNAL_H

#include "pkg/marker/marker.h"

#include <openssl/evp.h>
#include <sys/stat.h>

#define MAC_LEN 16

/* ---- keys ---- */

/* The newest first. */
#define KEYS_MAX 3

struct key {
	EVP_MAC_CTX *mac;
	uint64_t since_s; /* when it came */
	bool at_once;	  /* there was none before that others knew */
};

struct keys {
	EVP_MAC *hmac;
	struct key keys[KEYS_MAX];
	unsigned count;
	uint64_t now_s;
	char *file;	  /* NULL: none */
	struct stat stat; /* of what was read last */
	bool ok;	  /* what the file holds now is in use */
	bool from_file;	  /* the newest is */
	int last_error;	  /* as last logged; errno */
};

int keys_init(struct keys *k, const char *file, struct err *err);
void keys_done(struct keys *k);
void keys_reload(struct keys *k, uint64_t mono_s);
/* The one to make markers with. */
EVP_MAC_CTX *keys_signing(struct keys *k);

/* ---- values ---- */

enum { KIND_SEQ = 's', KIND_ENDS = 'a' };

struct value {
	char kind;
	uint64_t time_s;
	uint8_t nonce[8];
	uint8_t origin[MAC_LEN];
	uint8_t place[MAC_LEN];
};

/* False: no such value. Of one value there is only one way to write it. */
bool value_parse(struct span text, struct value *ret_value);
/* Returns its length; out has room for MARKER_VALUE_MAX + 1, and gets a NUL. */
size_t value_format(const struct value *v, char *out);

/* ---- sockets ---- */

/* Sets ends and has_ends. */
int place_ends_of(int fd, struct marker_place *place);

/* ---- what was seen ---- */

#define SEEN_WAYS 4

struct seen {
	uint8_t nonce[8];
	uint64_t time_s;	/* the marker's; 0: free */
	uint64_t connection[2]; /* on which it was accepted, for each direction; 0: none */
	uint8_t relayed[2];
};

struct seen_table {
	struct seen *entries; /* MARKER_REMEMBERED */
	uint64_t seed;
};

int seen_init(struct seen_table *t);
void seen_done(struct seen_table *t);
/* The entry of this marker; a free one, or the oldest of those it may displace, becomes it. */
struct seen *seen_of(struct seen_table *t, const struct value *value);

struct marker {
	struct keys keys;
	uint64_t nonce; /* of the last marker: a random beginning, then counted */
	struct seen_table seen;
};

#endif
