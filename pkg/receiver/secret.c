/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pkg/receiver/internal.h"

#define SECRET_MAX 4096
#define HEX_LEN	   64 /* of SHA-256 */

struct secret {
	char *path;
	const char *what; /* "--token-file" */
	pthread_mutex_t lock;
	enum secret_kind kind;
	char value[SECRET_MAX + 1]; /* under lock */
	size_t len;
	struct stat read_as; /* of the file as it was read */
	bool complained;
};

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static int take_whole(
	const struct secret *s, char *buf, size_t len, size_t *ret_len, struct err *err)
{
	while (len > 0 && (buf[len - 1] == '\n' || buf[len - 1] == '\r'))
		len--;
	if (len == 0 || len > SECRET_MAX)
		return err_set(err, EINVAL, "%s: %s: a key has 1 to %d bytes", s->what, s->path,
			SECRET_MAX);
	*ret_len = len;
	return 0;
}

/* What counts of the file, in buf[SECRET_MAX + 1]. */
static int read_secret(
	const struct secret *s, char *buf, size_t *ret_len, struct stat *ret_st, struct err *err)
{
	CLEANUP(closep)
	int fd = open(s->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	size_t begin = 0, len = 0;
	ssize_t n = 0;

	if (fd < 0 || fstat(fd, ret_st) < 0)
		return err_set(err, errno, "%s: %s: %s", s->what, s->path, strerror(errno));
	while (len <= SECRET_MAX && (n = read(fd, buf + len, SECRET_MAX + 1 - len)) > 0)
		len += (size_t)n;
	if (n < 0)
		return err_set(err, errno, "%s: %s: %s", s->what, s->path, strerror(errno));
	if (s->kind == SECRET_KEY)
		return take_whole(s, buf, len, ret_len, err);
	if (memchr(buf, '\n', len))
		len = (size_t)((char *)memchr(buf, '\n', len) - buf);
	while (len > 0 && is_space(buf[len - 1]))
		len--;
	while (begin < len && is_space(buf[begin]))
		begin++;
	if (begin == len)
		return err_set(err, EINVAL, "%s: %s: its first line is empty", s->what, s->path);
	if (len - begin > SECRET_MAX || memchr(buf, '\0', len))
		return err_set(err, EINVAL, "%s: %s: its first line is no text of at most %d bytes",
			s->what, s->path, SECRET_MAX);
	memmove(buf, buf + begin, len - begin);
	buf[len - begin] = '\0';
	*ret_len = len - begin;
	return 0;
}

int secret_new(const char *path, enum secret_kind kind, const char *what,
	struct secret **ret_secret, struct err *err)
{
	struct secret *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return err_set(err, ENOMEM, "%s: out of memory", what);
	pthread_mutex_init(&s->lock, NULL);
	s->kind = kind;
	s->what = what;
	s->path = strdup(path);
	r = s->path ? read_secret(s, s->value, &s->len, &s->read_as, err)
		    : err_set(err, ENOMEM, "%s: out of memory", what);
	if (r < 0) {
		secret_free(s);
		return r;
	}
	*ret_secret = s;
	return 0;
}

void secret_free(struct secret *s)
{
	if (!s)
		return;
	OPENSSL_cleanse(s->value, sizeof(s->value));
	pthread_mutex_destroy(&s->lock);
	free(s->path);
	free(s);
}

static bool same_file(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
	       a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

void secret_refresh(struct secret *s)
{
	char value[SECRET_MAX + 1];
	struct err err = {0};
	struct stat st;
	size_t len;

	if (!s || (stat(s->path, &st) == 0 && same_file(&st, &s->read_as)))
		return;
	if (read_secret(s, value, &len, &st, &err) < 0) {
		if (!s->complained)
			log_warn("%s; what it said before holds", err.text);
		s->complained = true;
		return;
	}
	pthread_mutex_lock(&s->lock);
	memcpy(s->value, value, len + 1);
	s->len = len;
	s->read_as = st;
	pthread_mutex_unlock(&s->lock);
	OPENSSL_cleanse(value, sizeof(value));
	s->complained = false;
	log_info("%s has been read again", s->what);
}

static void hex(const unsigned char *p, size_t len, char *out)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < len; i++) {
		*out++ = digits[p[i] >> 4];
		*out++ = digits[p[i] & 15];
	}
	*out = '\0';
}

static void hmac_hex(const void *key, size_t key_len, struct span text, char out[HEX_LEN + 1])
{
	unsigned char mac[EVP_MAX_MD_SIZE];
	unsigned int len = 0;

	out[0] = '\0';
	if (HMAC(EVP_sha256(), key, (int)key_len, (const unsigned char *)text.p, text.len, mac,
		    &len))
		hex(mac, len, out);
}

bool secret_equal(const char *a, const char *b)
{
	size_t len = strlen(a);

	return len == strlen(b) && CRYPTO_memcmp(a, b, len) == 0;
}

bool secret_is_bearer(struct secret *s, const char *header)
{
	static const char key[] = "ebpfdump";
	char given[HEX_LEN + 1], wanted[HEX_LEN + 1];

	if (!header || !span_eq_nocase(span_of(header, strnlen(header, 7)), SPAN("Bearer ")))
		return false;
	header += 7;
	header += strspn(header, " ");
	/* hashes, so that not even the length shows */
	hmac_hex(key, sizeof(key), span_str(header), given);
	pthread_mutex_lock(&s->lock);
	hmac_hex(key, sizeof(key), span_of(s->value, s->len), wanted);
	pthread_mutex_unlock(&s->lock);
	return wanted[0] && secret_equal(given, wanted);
}

bool secret_signed(struct secret *s, struct span body, const char *header)
{
	char wanted[HEX_LEN + 1];

	char key[SECRET_MAX];
	size_t len;

	if (!header || strncmp(header, "sha256=", 7) != 0)
		return false;
	/* not under the lock: a body may be large */
	pthread_mutex_lock(&s->lock);
	len = s->len;
	memcpy(key, s->value, len);
	pthread_mutex_unlock(&s->lock);
	hmac_hex(key, len, body, wanted);
	OPENSSL_cleanse(key, len);
	return wanted[0] && secret_equal(header + 7, wanted);
}

void secret_cookie(struct secret *s, const uint8_t key[32], char ret_cookie[65])
{
	pthread_mutex_lock(&s->lock);
	hmac_hex(key, 32, span_of(s->value, s->len), ret_cookie);
	pthread_mutex_unlock(&s->lock);
}
