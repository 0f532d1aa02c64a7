/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <sys/random.h>

#include "pkg/marker/internal.h"

#define ORIGIN "ebpfdump-origin-1"
#define PLACE  "ebpfdump-place-1"

const char *marker_result_name(enum marker_result result)
{
	static const char *const names[MARKER_RESULT_MAX] = {"accepted", "wrong", "old", "copied"};

	return names[result];
}

/* ---- text ---- */

static bool take_char(struct span *s, char ch)
{
	if (s->len == 0 || s->p[0] != ch)
		return false;
	s->p++;
	s->len--;
	return true;
}

static bool take_hex(struct span *s, uint8_t *out, size_t bytes)
{
	if (s->len < bytes * 2)
		return false;
	for (size_t i = 0; i < bytes * 2; i++) {
		char ch = s->p[i];
		int digit = ch >= '0' && ch <= '9'   ? ch - '0'
			    : ch >= 'a' && ch <= 'f' ? ch - 'a' + 10
						     : -1;

		if (digit < 0)
			return false;
		out[i / 2] = (uint8_t)(i % 2 ? out[i / 2] | digit : digit << 4);
	}
	s->p += bytes * 2;
	s->len -= bytes * 2;
	return true;
}

static bool take_number(struct span *s, uint64_t *ret_number)
{
	size_t n = 0;

	while (n < s->len && s->p[n] >= '0' && s->p[n] <= '9')
		n++;
	if (n == 0 || s->p[0] == '0' || num_parse(span_of(s->p, n), 1, UINT64_MAX, ret_number))
		return false;
	s->p += n;
	s->len -= n;
	return true;
}

bool value_parse(struct span s, struct value *ret_value)
{
	struct value v = {0};

	if (!take_char(&s, '1') || !take_char(&s, ';') || s.len == 0)
		return false;
	v.kind = s.p[0];
	if ((v.kind != KIND_SEQ && v.kind != KIND_ENDS) || !take_char(&s, v.kind) ||
		!take_char(&s, ';') || !take_number(&s, &v.time_s) || !take_char(&s, ';') ||
		!take_hex(&s, v.nonce, sizeof(v.nonce)) || !take_char(&s, ';') ||
		!take_hex(&s, v.origin, sizeof(v.origin)) || !take_char(&s, ';') ||
		!take_hex(&s, v.place, sizeof(v.place)) || s.len > 0)
		return false;
	*ret_value = v;
	return true;
}

static char *put_hex(char *out, const uint8_t *p, size_t len)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < len; i++) {
		*out++ = digits[p[i] >> 4];
		*out++ = digits[p[i] & 15];
	}
	return out;
}

size_t value_format(const struct value *v, char *out)
{
	char *p = out;

	*p++ = '1';
	*p++ = ';';
	*p++ = v->kind;
	*p++ = ';';
	p += num_format(p, v->time_s);
	*p++ = ';';
	p = put_hex(p, v->nonce, sizeof(v->nonce));
	*p++ = ';';
	p = put_hex(p, v->origin, sizeof(v->origin));
	*p++ = ';';
	p = put_hex(p, v->place, sizeof(v->place));
	*p = '\0';
	return (size_t)(p - out);
}

/* ---- what is authenticated ---- */

static bool mac(EVP_MAC_CTX *key, struct span domain, const struct value *v, const void *more,
	size_t more_len, uint8_t out[MAC_LEN])
{
	uint8_t head[17], full[EVP_MAX_MD_SIZE];
	size_t len = 0;

	head[0] = (uint8_t)v->kind;
	for (unsigned i = 0; i < 8; i++)
		head[1 + i] = (uint8_t)(v->time_s >> (56 - 8 * i));
	memcpy(head + 9, v->nonce, sizeof(v->nonce));
	if (EVP_MAC_init(key, NULL, 0, NULL) != 1 ||
		EVP_MAC_update(key, (const unsigned char *)domain.p, domain.len) != 1 ||
		EVP_MAC_update(key, head, sizeof(head)) != 1 ||
		(more_len > 0 && EVP_MAC_update(key, more, more_len) != 1) ||
		EVP_MAC_final(key, full, &len, sizeof(full)) != 1 || len < MAC_LEN)
		return false;
	memcpy(out, full, MAC_LEN);
	return true;
}

static bool mac_origin(EVP_MAC_CTX *key, const struct value *v, uint8_t out[MAC_LEN])
{
	return mac(key, SPAN(ORIGIN), v, NULL, 0, out);
}

/* False also where nothing is known of such a place. */
static bool mac_place(EVP_MAC_CTX *key, const struct value *v, const struct marker_place *place,
	uint8_t out[MAC_LEN])
{
	uint8_t seq[4];

	if (v->kind == KIND_ENDS)
		return place->has_ends &&
		       mac(key, SPAN(PLACE), v, place->ends, sizeof(place->ends), out);
	for (unsigned i = 0; i < 4; i++)
		seq[i] = (uint8_t)(place->seq >> (24 - 8 * i));
	return place->has_seq && mac(key, SPAN(PLACE), v, seq, sizeof(seq), out);
}

/* ---- public ---- */

int marker_new(const char *key_file, struct marker **ret_marker, struct err *err)
{
	CLEANUP(marker_freep)
	struct marker *m = calloc(1, sizeof(*m));
	int r;

	if (!m)
		return err_set(err, ENOMEM, "out of memory");
	r = getrandom(&m->nonce, sizeof(m->nonce), 0) == sizeof(m->nonce) ? seen_init(&m->seen)
									  : -errno;
	if (r)
		return err_set(err, -r, "no memory, or no random numbers: %s", strerror(-r));
	r = keys_init(&m->keys, key_file && key_file[0] ? key_file : NULL, err);
	if (r)
		return r;
	*ret_marker = TAKE(m);
	return 0;
}

void marker_free(struct marker *m)
{
	if (!m)
		return;
	keys_done(&m->keys);
	seen_done(&m->seen);
	free(m);
}

void marker_freep(struct marker **m)
{
	marker_free(*m);
	*m = NULL;
}

void marker_reload(struct marker *m, uint64_t mono_s)
{
	keys_reload(&m->keys, mono_s);
}

bool marker_has_file(const struct marker *m)
{
	return m->keys.file != NULL;
}

bool marker_file_ok(const struct marker *m)
{
	return m->keys.ok;
}

size_t marker_make(struct marker *m, const struct marker_place *place, uint64_t wall_s,
	char out[static MARKER_VALUE_MAX + 1])
{
	EVP_MAC_CTX *key = keys_signing(&m->keys);
	struct value v = {
		.kind = place->has_seq ? KIND_SEQ : KIND_ENDS, .time_s = wall_s ? wall_s : 1};

	/* it need not be secret, only another one each time */
	m->nonce++;
	memcpy(v.nonce, &m->nonce, sizeof(v.nonce));
	/* What fails leaves zeroes: a marker that proves nothing, and is counted where it is seen.
	 */
	if (mac_origin(key, &v, v.origin))
		(void)mac_place(key, &v, place, v.place);
	return value_format(&v, out);
}

size_t marker_line(struct marker *m, const struct marker_place *place, uint64_t wall_s,
	char out[static MARKER_LINE_MAX])
{
	static const char name[] = MARKER_HEADER ": ";
	char value[MARKER_VALUE_MAX + 1];
	size_t len = marker_make(m, place, wall_s, value);

	memcpy(out, name, sizeof(name) - 1);
	memcpy(out + sizeof(name) - 1, value, len + 1);
	return sizeof(name) - 1 + len;
}

/* Accepted at this place, unless it was accepted on another connection before. */
static enum marker_result accept_once(
	struct marker *m, const struct value *v, uint64_t connection, unsigned direction)
{
	struct seen *seen = seen_of(&m->seen, v);
	uint64_t *by = &seen->connection[direction & 1];

	if (*by != 0 && *by != connection)
		return MARKER_COPIED;
	*by = connection;
	return MARKER_ACCEPTED;
}

static bool in_window(const struct value *v, uint64_t wall_s)
{
	uint64_t apart = v->time_s > wall_s ? v->time_s - wall_s : wall_s - v->time_s;

	return apart <= MARKER_WINDOW_S;
}

enum marker_result marker_check(struct marker *m, struct span value,
	const struct marker_place *place, uint64_t wall_s, uint64_t connection, unsigned direction)
{
	uint8_t expected[MAC_LEN];
	struct value v;

	if (!value_parse(value, &v))
		return MARKER_WRONG;
	for (unsigned i = 0; i < m->keys.count; i++) {
		EVP_MAC_CTX *key = m->keys.keys[i].mac;

		if (!mac_origin(key, &v, expected) ||
			CRYPTO_memcmp(expected, v.origin, MAC_LEN) != 0)
			continue;
		if (!in_window(&v, wall_s))
			return MARKER_OLD;
		if (!mac_place(key, &v, place, expected) ||
			CRYPTO_memcmp(expected, v.place, MAC_LEN) != 0)
			return MARKER_COPIED;
		return accept_once(m, &v, connection, direction);
	}
	return MARKER_WRONG;
}

bool marker_relayed(struct marker *m, struct span value, unsigned direction)
{
	struct seen *seen;
	struct value v;

	if (!value_parse(value, &v))
		return false;
	seen = seen_of(&m->seen, &v);
	if (seen->relayed[direction & 1] >= MARKER_RELAYED_MAX)
		return false;
	seen->relayed[direction & 1]++;
	return true;
}

bool marker_budget_take(struct marker_budget *b, uint64_t now_ns)
{
	const uint64_t minute = UINT64_C(60000000000);
	uint64_t cost;

	if (b->per_minute == 0)
		return false;
	cost = minute / b->per_minute;
	if (b->last_ns == 0)
		b->nanos = minute;
	else if (now_ns > b->last_ns)
		b->nanos = MIN(b->nanos + MIN(now_ns - b->last_ns, minute), minute);
	b->last_ns = now_ns;
	if (b->nanos < cost)
		return false;
	b->nanos -= cost;
	return true;
}
