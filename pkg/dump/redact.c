/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Redaction. The hash is SipHash-2-4 (Aumasson and Bernstein, 2012): without its key, nobody can
 * tell whether a value that he guesses is the one behind a hash.
 */
#include <endian.h>
#include <errno.h>
#include <sys/random.h>

#include "pkg/dump/dump.h"

struct sip {
	uint64_t a, b, c, d;
};

static inline uint64_t rotate(uint64_t x, unsigned n)
{
	return x << n | x >> (64 - n);
}

static inline void sip_round(struct sip *s)
{
	s->a += s->b;
	s->c += s->d;
	s->b = rotate(s->b, 13) ^ s->a;
	s->d = rotate(s->d, 16) ^ s->c;
	s->a = rotate(s->a, 32) + s->d;
	s->c += s->b;
	s->d = rotate(s->d, 21) ^ s->a;
	s->b = rotate(s->b, 17) ^ s->c;
	s->c = rotate(s->c, 32);
}

static inline void sip_word(struct sip *s, uint64_t word)
{
	s->d ^= word;
	sip_round(s);
	sip_round(s);
	s->a ^= word;
}

static uint64_t siphash(const uint64_t key[2], struct span bytes)
{
	struct sip s = {
		.a = key[0] ^ UINT64_C(0x736f6d6570736575),
		.b = key[1] ^ UINT64_C(0x646f72616e646f6d),
		.c = key[0] ^ UINT64_C(0x6c7967656e657261),
		.d = key[1] ^ UINT64_C(0x7465646279746573),
	};
	uint64_t word, last = (uint64_t)bytes.len << 56;
	size_t i = 0;

	for (; bytes.len - i >= sizeof(word); i += sizeof(word)) {
		memcpy(&word, bytes.p + i, sizeof(word));
		sip_word(&s, le64toh(word));
	}
	for (unsigned shift = 0; i < bytes.len; i++, shift += 8)
		last |= (uint64_t)(unsigned char)bytes.p[i] << shift;
	sip_word(&s, last);
	s.c ^= 0xff;
	for (int round = 0; round < 4; round++)
		sip_round(&s);
	return s.a ^ s.b ^ s.c ^ s.d;
}

static int random_key(uint64_t key[2])
{
	size_t size = 2 * sizeof(key[0]);
	ssize_t n;

	do
		n = getrandom(key, size, 0);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	return (size_t)n == size ? 0 : -EIO;
}

int dump_redaction_init(
	struct dump_redaction *r, const char *const *names, uint32_t count, const uint64_t *key)
{
	*r = (struct dump_redaction){.count = count};
	if (count > DUMP_REDACT_MAX)
		return -EINVAL;
	for (uint32_t i = 0; i < count; i++) {
		struct span name = span_str(names[i]);

		if (name.len < 1 || name.len > DUMP_REDACT_NAME_MAX)
			return -EINVAL;
		r->names[i] = name;
		r->marks |= dump_redaction_mark(name);
		r->host |= span_eq_nocase(name, SPAN("Host"));
	}
	if (!key)
		return random_key(r->key);
	memcpy(r->key, key, sizeof(r->key));
	return 0;
}

/* RFC 9110, 5.6.2 */
static bool in_token(char c)
{
	static const char other[] = "!#$%&'*+-.^_`|~";
	char lower = (char)(c | 0x20);

	return (lower >= 'a' && lower <= 'z') || (c >= '0' && c <= '9') ||
	       memchr(other, c, sizeof(other) - 1) != NULL;
}

enum dump_redact dump_redaction_match(const struct dump_redaction *r, struct span name)
{
	for (uint32_t i = 0; i < r->count; i++) {
		size_t len = r->names[i].len;

		if (name.len < len || ((name.p[0] ^ r->names[i].p[0]) & ~0x20) != 0 ||
			!span_eq_nocase(r->names[i], span_of(name.p, len)))
			continue;
		if (name.len == len)
			return DUMP_REDACT_VALUE;
		if (!in_token(name.p[len]))
			return DUMP_REDACT_ALL;
	}
	return DUMP_REDACT_NOTHING;
}

void dump_redact(const struct dump_redaction *r, struct span value, char out[DUMP_REDACTED_LEN])
{
	static const char prefix[] = "redacted:", hex[] = "0123456789abcdef";
	uint64_t hash = siphash(r->key, value);
	char *p = out + sizeof(prefix) - 1;

	_Static_assert(sizeof(prefix) - 1 + 2 * sizeof(hash) == DUMP_REDACTED_LEN, "as promised");
	memcpy(out, prefix, sizeof(prefix) - 1);
	for (int shift = 60; shift >= 0; shift -= 4)
		*p++ = hex[hash >> shift & 15];
}
