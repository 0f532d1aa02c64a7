/* SPDX-License-Identifier: Apache-2.0 */
#include "pkg/dump/escape.h"

/*
 * What becomes of a byte: itself, a backslash and this letter, \u00XX ('u'), or
 * not ASCII: the text's encoding decides ('x').
 */
static const char escape_of[256] = {
	[0x00 ... 0x07] = 'u',
	['\b'] = 'b',
	['\t'] = 't',
	['\n'] = 'n',
	['\v'] = 'u',
	['\f'] = 'f',
	['\r'] = 'r',
	[0x0e ... 0x1f] = 'u',
	['"'] = '"',
	['\\'] = '\\',
	[0x7f] = 'u',
	[0x80 ... 0xff] = 'x',
};

static unsigned char byte(const char *p)
{
	return (unsigned char)*p;
}

/* ---- characters ---- */

static void put_u00(char *d, unsigned c)
{
	static const char hex[] = "0123456789abcdef";

	memcpy(d, "\\u00", 4);
	d[4] = hex[c >> 4 & 15];
	d[5] = hex[c & 15];
}

/* p is at the first byte that is not ASCII. False: a body that is not text. */
static bool find_encoding(struct text *t, const char *p)
{
	size_t len = (size_t)(t->end - p), valid = utf8_valid(p, len);

	t->encoding = TEXT_UTF8;
	if (valid == len)
		return true;
	if (t->kind != TEXT_BODY) {
		t->encoding = TEXT_LATIN1;
		return true;
	}
	if (!t->cut || !utf8_incomplete(p + valid, len - valid))
		return false;
	t->end = p + valid;
	return true;
}

/* A line end, if one is at p: the end of it and of the blanks behind it; else
 * NULL. */
static const char *fold_end(const struct text *t, const char *p)
{
	if (*p == '\r' && p + 1 < t->end && p[1] == '\n')
		p++;
	if (*p != '\n')
		return NULL;
	for (p++; p < t->end && (*p == ' ' || *p == '\t'); p++)
		;
	return p;
}

/*
 * One character that needs more than a copy, at t->p. Returns the new end;
 * NULL: there is no room, or the text is not text.
 */
static char *put_special(struct text *t, char *d, const char *stop)
{
	size_t room = (size_t)(stop - d), n = 1;
	unsigned c = byte(t->p);
	char letter = escape_of[c];
	const char *behind;

	if (letter == 'x') {
		if (t->encoding == TEXT_ASCII && !find_encoding(t, t->p)) {
			t->binary = true;
			return NULL;
		}
		if (t->p == t->end)
			return d;
		if (t->encoding == TEXT_UTF8)
			n = c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
		if (c == 0xc2 && n == 2)
			c = byte(t->p + 1);
		if (c >= 0xa0) {
			if (room < MAX(n, (size_t)2))
				return NULL;
			if (t->encoding == TEXT_LATIN1) {
				d[0] = (char)(0xc0 | c >> 6);
				d[1] = (char)(0x80 | (c & 0x3f));
				t->p++;
				return d + 2;
			}
			for (size_t i = 0; i < n; i++)
				*d++ = *t->p++;
			return d;
		}
		letter = 'u';
	}
	if (t->kind == TEXT_VALUE && (behind = fold_end(t, t->p)) != NULL) {
		if (room < 1)
			return NULL;
		*d = ' ';
		t->p = behind;
		return d + 1;
	}
	if (letter == 'u') {
		if (t->kind == TEXT_BODY && c != '\v' && c != 0x1b) {
			t->binary = true;
			return NULL;
		}
		if (room < ESCAPE_MAX)
			return NULL;
		put_u00(d, c);
		t->p += n;
		return d + ESCAPE_MAX;
	}
	if (room < 2)
		return NULL;
	d[0] = '\\';
	d[1] = letter;
	t->p++;
	return d + 2;
}

#define WINDOW 64

/*
 * Windows, as far as their specials are a backslash and a letter (the quotes of a JSON body): the
 * marks stay valid while the rest of the window moves on, so nothing is searched twice. Needs a
 * window and a block of text behind each, and three of room.
 */
static char *put_windows(struct text *t, char *d, const char *stop)
{
	const char *p = t->p;

	while (t->end - p >= 2 * WINDOW && stop - d >= 3 * WINDOW) {
		uint64_t special = escape_look64(p);
		unsigned done = 0;

		for (; special; special &= special - 1) {
			unsigned at = (unsigned)__builtin_ctzll(special);
			char letter = escape_of[byte(p + at)];

			if (letter == 'u' || letter == 'x' ||
				(t->kind == TEXT_VALUE && (letter == 'n' || letter == 'r')))
				break;
			for (unsigned i = done; i < at; i += ESCAPE_BLOCK)
				memcpy(d + i - done, p + i, ESCAPE_BLOCK);
			d += at - done;
			d[0] = '\\';
			d[1] = letter;
			d += 2;
			done = at + 1;
		}
		memcpy(d, p + done, WINDOW);
		if (special) {
			unsigned at = (unsigned)__builtin_ctzll(special);

			t->p = p + at;
			return d + (at - done);
		}
		d += WINDOW - done;
		p += WINDOW;
	}
	t->p = p;
	return d;
}

/* Blocks, up to the first special that put_quotes() leaves, or the end of the
 * text or the room. */
static char *put_blocks(struct text *t, char *d, const char *stop)
{
	if (t->kind != TEXT_NAME)
		d = put_windows(t, d, stop);
	while (t->p < t->end) {
		size_t left = (size_t)(t->end - t->p), room = (size_t)(stop - d), n;
		char block[ESCAPE_BLOCK] = {0};
		const char *p = t->p;
		unsigned special;

		if (unlikely(t->readable - p < ESCAPE_BLOCK)) {
			memcpy(block, p, MIN(left, sizeof(block)));
			p = block;
		}
		special = escape_copy(d, p);
		if (t->kind == TEXT_NAME)
			escape_name_case(d, p, t->p > t->begin ? t->p[-1] : '-');
		if (!special && left >= ESCAPE_BLOCK && room >= ESCAPE_BLOCK) {
			t->p += ESCAPE_BLOCK;
			d += ESCAPE_BLOCK;
			continue;
		}
		n = (size_t)__builtin_ctz(special | 1u << ESCAPE_BLOCK);
		n = MIN(n, MIN(left, room));
		t->p += n;
		return d + n;
	}
	return d;
}

char *escape(struct text *t, char *d, char *stop)
{
	while (t->p < t->end) {
		d = put_blocks(t, d, stop);
		while (t->p < t->end && escape_of[byte(t->p)]) {
			char *next = put_special(t, d, stop);

			if (!next)
				return d;
			d = next;
		}
		if (d == stop)
			break;
	}
	return d;
}

/* Goes through the rest of the text; returns how much output that makes. */
static size_t escape_away(struct text *t)
{
	char piece[1024 + ESCAPE_SLACK];
	size_t size = 0;

	while (t->p < t->end && !t->binary)
		size += (size_t)(escape(t, piece, piece + 1024) - piece);
	return size;
}

size_t escape_size(struct text t)
{
	return escape_away(&t);
}

bool escape_is_binary(struct text t)
{
	escape_away(&t);
	return t.binary;
}

/* ---- names ---- */

struct decoder {
	const char *p, *end;
	enum text_encoding encoding;
	int pending; /* second byte of a Latin-1 character, 0: none */
};

/* The next byte of the name as UTF-8, in lower case; -1 at its end. */
static int decode(struct decoder *s)
{
	int c = s->pending;

	if (c) {
		s->pending = 0;
		return c;
	}
	if (s->p == s->end)
		return -1;
	if (byte(s->p) >= 0x80 && s->encoding == TEXT_ASCII) {
		size_t len = (size_t)(s->end - s->p);

		s->encoding = utf8_valid(s->p, len) == len ? TEXT_UTF8 : TEXT_LATIN1;
	}
	c = byte(s->p++);
	if (c >= 0x80 && s->encoding == TEXT_LATIN1) {
		s->pending = 0x80 | (c & 0x3f);
		return 0xc0 | c >> 6;
	}
	return c >= 'A' && c <= 'Z' ? c | 0x20 : c;
}

/* FNV-1a */
uint32_t escape_hash_name(struct span name)
{
	struct decoder s = {.p = name.p, .end = name.p + name.len};
	uint32_t hash = UINT32_C(2166136261);
	int c;

	while ((c = decode(&s)) >= 0)
		hash = (hash ^ (uint32_t)c) * UINT32_C(16777619);
	return hash ^ hash >> 16;
}

int escape_compare_names(struct span a, struct span b)
{
	size_t same = 0, len = MIN(a.len, b.len);
	struct decoder x, y;
	int c, d;

	/* Equal blocks are skipped in large steps, so that long names that differ at
	 * their ends cost little. Only ASCII: behind other bytes the encoding
	 * matters. */
	for (; len - same >= 8; same += 8) {
		uint64_t v, w;

		memcpy(&v, a.p + same, 8);
		memcpy(&w, b.p + same, 8);
		if (v != w || (v & UINT64_C(0x8080808080808080)))
			break;
	}
	x = (struct decoder){.p = a.p + same, .end = a.p + a.len};
	y = (struct decoder){.p = b.p + same, .end = b.p + b.len};
	do {
		c = decode(&x);
		d = decode(&y);
	} while (c == d && c >= 0);
	return c - d;
}

/* ---- base64 ---- */

char *escape_base64(char *d, struct span bytes)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const unsigned char *p = (const unsigned char *)bytes.p;
	size_t left = bytes.len;

	for (; left >= 3; left -= 3, p += 3, d += 4) {
		uint32_t v = (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2];

		d[0] = digits[v >> 18];
		d[1] = digits[v >> 12 & 63];
		d[2] = digits[v >> 6 & 63];
		d[3] = digits[v & 63];
	}
	if (left == 0)
		return d;
	d[0] = digits[p[0] >> 2];
	d[1] = digits[(p[0] & 3) << 4 | (left == 2 ? p[1] >> 4 : 0)];
	d[2] = left == 2 ? digits[(p[1] & 15) << 2] : '=';
	d[3] = '=';
	return d + 4;
}
