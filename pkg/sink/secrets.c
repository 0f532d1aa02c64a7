/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pkg/sink/secrets.h"

#define HIDE_MIN 5 /* so many bytes in a row are taken for the beginning of a secret */

struct file {
	char *path; /* NULL: not asked for */
	struct stat seen;
	bool ok;	 /* what was read last is in use */
	bool complained; /* since the file changed */
	char *text;	 /* as read; lines point into it */
	size_t len;
};

struct secrets {
	struct file headers, key;
	const char *lines[SECRETS_LINES_MAX];
	size_t n_lines;
	EVP_MAC *hmac;
	EVP_MAC_CTX *mac; /* has the key */
	char *query;	  /* of the URL; NULL: none */
};

static void wipe(char *text, size_t len)
{
	if (text)
		OPENSSL_cleanse(text, len);
	free(text);
}

/* ---- files ---- */

static bool same_file(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
	       a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec &&
	       a->st_ctim.tv_sec == b->st_ctim.tv_sec && a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

/* NUL-terminated. */
static int read_file(
	const char *path, char **ret_text, size_t *ret_len, struct stat *ret_stat, struct err *err)
{
	CLEANUP(closep)
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	size_t len = 0;
	char *text;
	ssize_t n;

	if (fd < 0 || fstat(fd, ret_stat) < 0)
		return err_set(err, errno, "%s: %s", path, strerror(errno));
	if (!S_ISREG(ret_stat->st_mode))
		return err_set(err, EINVAL, "%s: not a file", path);
	text = malloc(SECRETS_FILE_MAX + 2);
	if (!text)
		return err_set(err, ENOMEM, "%s: out of memory", path);
	while ((n = read(fd, text + len, SECRETS_FILE_MAX + 1 - len)) > 0)
		len += (size_t)n;
	if (n < 0 || len > SECRETS_FILE_MAX) {
		int code = n < 0 ? errno : EFBIG;

		wipe(text, len);
		return err_set(
			err, code, "%s: %s", path, n < 0 ? strerror(code) : "larger than 64 KiB");
	}
	text[len] = '\0';
	*ret_text = text;
	*ret_len = len;
	return 0;
}

/* ---- header lines ---- */

static bool reserved(struct span name)
{
	static const char *const names[] = {"Content-Type", "Content-Length", "Content-Encoding",
		"Transfer-Encoding", "Connection", "Expect", "Upgrade", "TE", "Trailer",
		"Idempotency-Key"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (span_eq_nocase(name, span_str(names[i])))
			return true;
	return name.len >= 11 && span_eq_nocase(span_of(name.p, 11), SPAN("X-Ebpfdump-"));
}

/* NULL, or what is wrong. Cuts blanks at the end; an empty value becomes "Name;". */
static const char *check_line(char *line)
{
	static const char token[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
				    "!#$%&'*+-.^_`|~";
	size_t name = strspn(line, token), len = strlen(line);

	while (len > 0 && (line[len - 1] == ' ' || line[len - 1] == '\t' || line[len - 1] == '\r'))
		line[--len] = '\0';
	if (name == 0 || line[name] != ':')
		return "not of the form 'Name: value'";
	if (reserved(span_of(line, name)))
		return "a header that the loader sets itself";
	for (size_t i = name; i < len; i++)
		if (((unsigned char)line[i] < 0x20 && line[i] != '\t') || line[i] == 0x7f)
			return "a control character in the value";
	if (len == name + 1)
		line[name] = ';';
	return NULL;
}

/* Takes the text over only if all of it is good. */
static int take_lines(struct secrets *s, char *text, size_t len, struct err *err)
{
	const char *lines[SECRETS_LINES_MAX];
	size_t n = 0, number = 0;
	char *p = text;

	if (memchr(text, '\0', len))
		return err_set(err, EINVAL, "%s: holds a zero byte", s->headers.path);
	while (*p) {
		char *line = p, *end = strchrnul(p, '\n');
		const char *wrong;

		p = *end ? end + 1 : end;
		*end = '\0';
		number++;
		if (line[strspn(line, " \t\r")] == '\0' || line[0] == '#')
			continue;
		if (n == SECRETS_LINES_MAX)
			return err_set(err, EINVAL, "%s: more than %d lines", s->headers.path,
				SECRETS_LINES_MAX);
		wrong = check_line(line);
		if (wrong)
			return err_set(
				err, EINVAL, "%s: line %zu: %s", s->headers.path, number, wrong);
		lines[n++] = line;
	}
	memcpy(s->lines, lines, n * sizeof(lines[0]));
	s->n_lines = n;
	return 0;
}

static int take_key(struct secrets *s, const char *text, size_t len, struct err *err)
{
	OSSL_PARAM params[] = {
		OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char[]){"SHA256"}, 0),
		OSSL_PARAM_construct_end(),
	};
	EVP_MAC_CTX *mac;

	while (len > 0 && (text[len - 1] == '\n' || text[len - 1] == '\r'))
		len--;
	if (len < SECRETS_KEY_MIN || len > SECRETS_KEY_MAX)
		return err_set(err, EINVAL, "%s: a key has %d to %d bytes, not %zu", s->key.path,
			SECRETS_KEY_MIN, SECRETS_KEY_MAX, len);
	mac = EVP_MAC_CTX_new(s->hmac);
	if (!mac || EVP_MAC_init(mac, (const unsigned char *)text, len, params) != 1) {
		EVP_MAC_CTX_free(mac);
		return err_set(err, EIO, "%s: libcrypto takes no key", s->key.path);
	}
	EVP_MAC_CTX_free(s->mac);
	s->mac = mac;
	return 0;
}

/* Returns whether something is different. */
static bool reload(struct secrets *s, struct file *f, const char *flag)
{
	struct err err = {0};
	struct stat st = {0};
	char *text = NULL;
	size_t len = 0;
	int r;

	if (!f->path)
		return false;
	if (stat(f->path, &st) == 0 && f->seen.st_ino && same_file(&st, &f->seen))
		return false;
	r = read_file(f->path, &text, &len, &st, &err);
	if (r == 0) {
		f->seen = st;
		f->complained = false;
		r = f == &s->key ? take_key(s, text, len, &err) : take_lines(s, text, len, &err);
	}
	if (r < 0) {
		wipe(text, len);
		if (!f->complained)
			log_error("--%s: %s; %s", flag, err.text,
				f->ok ? "what was read before stays in use"
				      : "nothing is sent until it is in order");
		f->complained = true;
		return false;
	}
	if (f->ok)
		log_info("--%s: %s changed: read again", flag, f->path);
	else if (f->complained)
		log_info("--%s: %s is in order now", flag, f->path);
	f->complained = false;
	wipe(f->text, f->len);
	f->text = text;
	f->len = len;
	f->ok = true;
	return true;
}

bool secrets_reload(struct secrets *s)
{
	bool changed = reload(s, &s->headers, "callback-header-file");

	return reload(s, &s->key, "callback-hmac-file") || changed;
}

bool secrets_ready(const struct secrets *s)
{
	return (!s->headers.path || s->headers.ok) && (!s->key.path || s->key.ok);
}

size_t secrets_lines(const struct secrets *s, const char *const **ret_lines)
{
	*ret_lines = s->lines;
	return s->n_lines;
}

int secrets_new(const char *header_file, const char *hmac_file, struct secrets **ret_secrets,
	struct err *err)
{
	struct secrets *s = calloc(1, sizeof(*s));

	if (!s)
		return err_set(err, ENOMEM, "callback: out of memory");
	s->headers.path = header_file ? strdup(header_file) : NULL;
	s->key.path = hmac_file ? strdup(hmac_file) : NULL;
	s->hmac = hmac_file ? EVP_MAC_fetch(NULL, "HMAC", NULL) : NULL;
	if ((header_file && !s->headers.path) || (hmac_file && (!s->key.path || !s->hmac))) {
		secrets_free(s);
		return err_set(err, ENOMEM, "callback: out of memory");
	}
	(void)secrets_reload(s);
	*ret_secrets = s;
	return 0;
}

int secrets_query(struct secrets *s, const char *url)
{
	const char *query = strchr(url, '?');

	if (!query || !query[1])
		return 0;
	s->query = strdup(query + 1);
	return s->query ? 0 : -ENOMEM;
}

void secrets_free(struct secrets *s)
{
	if (!s)
		return;
	wipe(s->headers.text, s->headers.len);
	wipe(s->key.text, s->key.len);
	if (s->query)
		wipe(s->query, strlen(s->query));
	free(s->headers.path);
	free(s->key.path);
	EVP_MAC_CTX_free(s->mac);
	EVP_MAC_free(s->hmac);
	free(s);
}

/* ---- signing ---- */

bool secrets_signs(const struct secrets *s)
{
	return s->mac != NULL;
}

bool secrets_sign_begin(struct secrets *s)
{
	return EVP_MAC_init(s->mac, NULL, 0, NULL) == 1;
}

bool secrets_sign_add(struct secrets *s, struct span piece)
{
	return EVP_MAC_update(s->mac, (const unsigned char *)piece.p, piece.len) == 1;
}

bool secrets_sign_end(struct secrets *s, char out[SECRETS_SIGNATURE_LEN + 1])
{
	static const char digits[] = "0123456789abcdef";
	unsigned char mac[32];
	size_t len;

	if (EVP_MAC_final(s->mac, mac, &len, sizeof(mac)) != 1 || len != sizeof(mac))
		return false;
	memcpy(out, "sha256=", 7);
	for (size_t i = 0; i < sizeof(mac); i++) {
		out[7 + 2 * i] = digits[mac[i] >> 4];
		out[8 + 2 * i] = digits[mac[i] & 15];
	}
	out[SECRETS_SIGNATURE_LEN] = '\0';
	return true;
}

/* ---- hiding ---- */

/* How much of the text at p is the beginning of this secret, if it is enough to be one. */
static size_t is_secret(const char *p, size_t len, const char *secret, size_t secret_len)
{
	size_t n = 0;

	while (n < len && n < secret_len && p[n] == secret[n])
		n++;
	return n > 0 && n >= MIN(secret_len, (size_t)HIDE_MIN) ? n : 0;
}

/* Each value of the query: what stands between = and &. */
static size_t query_at(const struct secrets *s, const char *p, size_t len)
{
	size_t most = 0, n;

	for (const char *q = s->query; q && *q; q += strspn(q, "&=")) {
		size_t value = strcspn(q, "&=");

		/* names are no secrets; a value without a name may be one */
		if (q[value] != '=') {
			n = is_secret(p, len, q, value);
			most = MAX(most, n);
		}
		q += value;
	}
	return most;
}

static size_t secret_at(const struct secrets *s, const char *p, size_t len)
{
	size_t most = query_at(s, p, len), n;

	for (size_t i = 0; i < s->n_lines; i++) {
		const char *value = s->lines[i] + strcspn(s->lines[i], ":;");

		/* the value, and each word of it: the scheme may be shown, what follows not */
		value += *value ? 1 : 0;
		while (*(value += strspn(value, " \t"))) {
			n = is_secret(p, len, value, strlen(value));
			most = MAX(most, n);
			value += strcspn(value, " \t");
		}
	}
	if (s->key.text) {
		n = is_secret(p, len, s->key.text, strcspn(s->key.text, "\r\n"));
		most = MAX(most, n);
	}
	return most;
}

void secrets_hide(const struct secrets *s, char *text, size_t len)
{
	for (size_t i = 0; i < len;) {
		size_t n = secret_at(s, text + i, len - i);

		memset(text + i, '*', n);
		i += MAX(n, (size_t)1);
	}
}
