/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

#include "pkg/marker/internal.h"

#define RANDOM_KEY 32

static void key_done(struct key *key)
{
	EVP_MAC_CTX_free(key->mac); /* wipes its copy of the key */
	*key = (struct key){0};
}

static EVP_MAC_CTX *mac_new(const struct keys *k, const uint8_t *p, size_t len)
{
	char digest[] = "SHA256";
	OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
		OSSL_PARAM_construct_end()};
	EVP_MAC_CTX *mac = EVP_MAC_CTX_new(k->hmac);

	if (mac && EVP_MAC_init(mac, p, len, params) != 1) {
		EVP_MAC_CTX_free(mac);
		mac = NULL;
	}
	return mac;
}

/* Whether both make the same of the same. */
static bool same_key(EVP_MAC_CTX *a, EVP_MAC_CTX *b)
{
	static const unsigned char text[] = "the same key?";
	unsigned char out[2][EVP_MAX_MD_SIZE];
	EVP_MAC_CTX *macs[2] = {a, b};
	size_t len[2] = {0};

	for (unsigned i = 0; i < 2; i++)
		if (EVP_MAC_init(macs[i], NULL, 0, NULL) != 1 ||
			EVP_MAC_update(macs[i], text, sizeof(text)) != 1 ||
			EVP_MAC_final(macs[i], out[i], &len[i], sizeof(out[i])) != 1)
			return false;
	return len[0] == len[1] && CRYPTO_memcmp(out[0], out[1], len[0]) == 0;
}

/* The newest from now on; -EEXIST: it is so already. */
static int add(struct keys *k, const uint8_t *p, size_t len)
{
	struct key key = {.mac = mac_new(k, p, len), .since_s = k->now_s, .at_once = !k->from_file};

	if (!key.mac)
		return -ENOMEM;
	if (k->count > 0 && same_key(key.mac, k->keys[0].mac)) {
		key_done(&key);
		return -EEXIST;
	}
	if (k->count == KEYS_MAX)
		key_done(&k->keys[--k->count]);
	memmove(&k->keys[1], &k->keys[0], k->count * sizeof(k->keys[0]));
	k->keys[0] = key;
	k->count++;
	return 0;
}

static int add_random(struct keys *k)
{
	uint8_t key[RANDOM_KEY];
	int r;

	if (getrandom(key, sizeof(key), 0) != sizeof(key))
		return -errno;
	r = add(k, key, sizeof(key));
	OPENSSL_cleanse(key, sizeof(key));
	return r;
}

/* ---- the file ---- */

static int read_all(int fd, uint8_t *p, size_t max, size_t *ret_len)
{
	size_t len = 0;

	while (len < max) {
		ssize_t n = read(fd, p + len, max - len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		len += (size_t)n;
	}
	*ret_len = len;
	return 0;
}

/* Opens the key file and fills buffer, which has room for one byte more than a key may have. */
static int read_file(
	const char *path, uint8_t *buffer, size_t *ret_len, struct stat *ret_stat, struct err *err)
{
	CLEANUP(closep)
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	size_t len = 0;
	int r;

	if (fd < 0 || fstat(fd, ret_stat))
		return err_set(err, errno, "%s", strerror(errno));
	if (!S_ISREG(ret_stat->st_mode))
		return err_set(err, EINVAL, "it is no regular file");
	r = read_all(fd, buffer, MARKER_KEY_MAX + 1, &len);
	if (r)
		return err_set(err, -r, "%s", strerror(-r));
	while (len > 0 && (buffer[len - 1] == '\n' || buffer[len - 1] == '\r'))
		len--;
	if (len > MARKER_KEY_MAX)
		return err_set(err, EFBIG, "a key has at most %d bytes", MARKER_KEY_MAX);
	if (len < MARKER_KEY_MIN)
		return err_set(err, EMSGSIZE, "it holds %zu bytes, and a key has at least %d", len,
			MARKER_KEY_MIN);
	*ret_len = len;
	return 0;
}

static bool same(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
	       a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec &&
	       a->st_ctim.tv_sec == b->st_ctim.tv_sec && a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

static void loaded(struct keys *k, const struct stat *stat)
{
	if (k->from_file)
		log_info("marker key: %s changed; the new key is accepted now, and used in %d "
			 "seconds",
			k->file, MARKER_WINDOW_S);
	else
		log_info("marker key: from %s", k->file);
	if (stat->st_mode & (S_IRGRP | S_IWGRP | S_IROTH | S_IWOTH))
		log_warn("marker key: %s is open to others than its owner (mode %04o); who reads "
			 "it can hide traffic from the loaders",
			k->file, (unsigned)stat->st_mode & 07777U);
}

static void load(struct keys *k)
{
	uint8_t buffer[MARKER_KEY_MAX + 1];
	struct stat now = {0};
	struct err err = {0};
	size_t len = 0;
	bool changed = true;
	int r;

	if (stat(k->file, &now) == 0 && k->ok && same(&now, &k->stat))
		return;
	r = read_file(k->file, buffer, &len, &now, &err);
	if (!r) {
		r = add(k, buffer, len);
		changed = r != -EEXIST;
		if (!changed)
			r = 0;
		if (r)
			err_set(&err, -r, "%s", strerror(-r));
	}
	OPENSSL_cleanse(buffer, sizeof(buffer));
	k->ok = r == 0;
	if (r) {
		if (err.code != k->last_error)
			log_error("--marker-key-file %s: %s; until that is mended, %s", k->file,
				err.text,
				k->from_file ? "the key that it held before is used"
					     : "loaders on other machines do not know this "
					       "one's traffic, and report it");
		k->last_error = err.code;
		return;
	}
	k->last_error = 0;
	k->stat = now;
	if (changed)
		loaded(k, &now);
	k->from_file = true;
}

void keys_reload(struct keys *k, uint64_t mono_s)
{
	k->now_s = mono_s;
	if (k->file)
		load(k);
	/* the oldest first: a key is given up when the next one has been there for long */
	while (k->count > 1 &&
		mono_s - k->keys[k->count - 2].since_s > (uint64_t)2 * MARKER_WINDOW_S)
		key_done(&k->keys[--k->count]);
}

EVP_MAC_CTX *keys_signing(struct keys *k)
{
	unsigned i = 0;

	while (i + 1 < k->count && !k->keys[i].at_once &&
		k->now_s - k->keys[i].since_s < MARKER_WINDOW_S)
		i++;
	return k->keys[i].mac;
}

int keys_init(struct keys *k, const char *file, struct err *err)
{
	int r;

	k->hmac = EVP_MAC_fetch(NULL, "HMAC", NULL);
	if (!k->hmac)
		return err_set(err, ENOTSUP, "libcrypto has no HMAC");
	k->now_s = clock_mono_ns() / UINT64_C(1000000000);
	if (file) {
		k->file = strdup(file);
		if (!k->file)
			return err_set(err, ENOMEM, "out of memory");
		load(k);
	}
	r = k->count ? 0 : add_random(k);
	return r ? err_set(err, -r, "there is no key for markers: %s", strerror(-r)) : 0;
}

void keys_done(struct keys *k)
{
	while (k->count > 0)
		key_done(&k->keys[--k->count]);
	EVP_MAC_free(k->hmac);
	free(k->file);
}
