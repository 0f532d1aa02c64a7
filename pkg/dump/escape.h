/* SPDX-License-Identifier: Apache-2.0 */
/*
 * escape: bytes from the wire become the inside of a JSON string. Private to dump.
 *
 * Whatever the bytes, what comes out is valid UTF-8 and free of control characters (C0, DEL, C1):
 * they are written as \n, \u001b and so on, so that a line is harmless on a terminal, too. No input
 * byte becomes more than ESCAPE_MAX bytes of output.
 */
#ifndef EBPFDUMP_DUMP_ESCAPE_H
#define EBPFDUMP_DUMP_ESCAPE_H

#include "pkg/base/base.h"

#ifdef __SSE2__
#	include <emmintrin.h>
#endif

#define ESCAPE_MAX 6
/* So many bytes behind what escape() and the others return may be overwritten, even behind `stop`.
 */
#define ESCAPE_SLACK 64

enum text_kind {
	TEXT_LINE,  /* anything that has no rule of its own */
	TEXT_NAME,  /* a header name: letters in the case of `User-Agent` */
	TEXT_VALUE, /* a header value: a line end with the blanks behind it becomes one space */
	TEXT_BODY,  /* is refused unless it is text, as dump_json() defines that */
};

enum text_encoding {
	TEXT_ASCII, /* as far as we have seen */
	TEXT_UTF8,
	TEXT_LATIN1,
};

struct text {
	const char *begin;
	const char *p;	      /* what is still to be written: from here */
	const char *end;      /* to here */
	const char *readable; /* memory may be read (not used) up to here; >= end */
	enum text_kind kind;
	enum text_encoding encoding;
	bool cut;    /* TEXT_BODY: the end of the text may be half a UTF-8 sequence: left out */
	bool binary; /* result, TEXT_BODY: this is not text; what was written is worthless */
};

static inline struct text text_of(struct span s, enum text_kind kind, const char *readable)
{
	const char *end = s.p + s.len;

	return (struct text){
		.begin = s.p,
		.p = s.p,
		.end = end,
		.readable = readable > end ? readable : end,
		.kind = kind,
	};
}

/*
 * Writes at d what fits before stop, in whole characters and whole escapes. Returns the end of what
 * was written and moves t->p to what is left; called again, it goes on there.
 */
char *escape(struct text *t, char *d, char *stop) MUST_CHECK;

/* How many bytes escape() would still write. */
size_t escape_size(struct text t);

/* Whether TEXT_BODY is not text. */
bool escape_is_binary(struct text t);

/* Lexical order of two header names as they are written; 0: the same key. */
int escape_compare_names(struct span a, struct span b);

/* The same for names that are the same key. */
uint32_t escape_hash_name(struct span name);

/* Writes 4 bytes for each 3, rounded up. Returns the end. */
char *escape_base64(char *d, struct span bytes) MUST_CHECK;

/* ---- most text needs no escape: it is checked and copied 16 bytes at a time ---- */

#define ESCAPE_BLOCK 16

/* Whether one of the eight bytes needs an escape or is not ASCII. */
static inline bool escape_any(uint64_t w)
{
	const uint64_t ones = UINT64_C(0x0101010101010101);
	uint64_t quote = w ^ ones * '"', backslash = w ^ ones * '\\', del = w ^ ones * 0x7f;

	/* The highest bit of a byte below the subtrahend is set: of others, too, but never in a
	 * word without such a byte. */
	return ((w | ((w - ones * ' ') & ~w) | ((quote - ones) & ~quote) |
			((backslash - ones) & ~backslash) | ((del - ones) & ~del)) &
		       ones * 0x80) != 0;
}

#ifdef __SSE2__

/* Bit n of the result is set if byte n of the block needs an escape or is not ASCII. */
static inline unsigned escape_which(__m128i v)
{
	__m128i bad;

	/* As signed numbers, the bytes from 0x80 are less than a blank, too. */
	bad = _mm_cmplt_epi8(v, _mm_set1_epi8(' '));
	bad = _mm_or_si128(bad, _mm_cmpeq_epi8(v, _mm_set1_epi8('"')));
	bad = _mm_or_si128(bad, _mm_cmpeq_epi8(v, _mm_set1_epi8('\\')));
	bad = _mm_or_si128(bad, _mm_cmpeq_epi8(v, _mm_set1_epi8(0x7f)));
	return (unsigned)_mm_movemask_epi8(bad);
}

static inline unsigned escape_look(const char *p)
{
	return escape_which(_mm_loadu_si128((const __m128i *)p));
}

/* The same, and copies the block. */
static inline unsigned escape_copy(char *d, const char *p)
{
	__m128i v = _mm_loadu_si128((const __m128i *)p);

	_mm_storeu_si128((__m128i *)d, v);
	return escape_which(v);
}

/* Copies a block with the letters in the case of a header name; before: the character in front. */
static inline void escape_name_case(char *d, const char *p, char before)
{
	__m128i v = _mm_loadu_si128((const __m128i *)p);
	__m128i bit = _mm_set1_epi8(0x20);
	__m128i lower, letter, first;

	letter = _mm_and_si128(_mm_cmpgt_epi8(v, _mm_set1_epi8('A' - 1)),
		_mm_cmplt_epi8(v, _mm_set1_epi8('Z' + 1)));
	lower = _mm_or_si128(v, _mm_and_si128(letter, bit));
	letter = _mm_and_si128(_mm_cmpgt_epi8(lower, _mm_set1_epi8('a' - 1)),
		_mm_cmplt_epi8(lower, _mm_set1_epi8('z' + 1)));
	first = _mm_or_si128(_mm_slli_si128(v, 1), _mm_cvtsi32_si128((unsigned char)before));
	first = _mm_cmpeq_epi8(first, _mm_set1_epi8('-'));
	v = _mm_xor_si128(lower, _mm_and_si128(_mm_and_si128(letter, first), bit));
	_mm_storeu_si128((__m128i *)d, v);
}

#else

/* Bit n of the result is set if byte n of the eight needs an escape or is not ASCII. */
static inline unsigned escape_which(const char *p)
{
	const uint64_t ones = UINT64_C(0x0101010101010101), low = ones * 0x7f;
	uint64_t w = 0, plain;

	/* one load, where byte 0 is the lowest */
	for (unsigned i = 0; i < 8; i++)
		w |= (uint64_t)(unsigned char)p[i] << 8 * i;
	/* No sum of two numbers below 0x80 carries into the next byte. The highest bit of each is
	 * set if: from the blank on; different from quote; from backslash; from DEL. */
	plain = (w & low) + ones * (0x80 - ' ');
	plain &= ((w ^ ones * '"') & low) + low;
	plain &= ((w ^ ones * '\\') & low) + low;
	plain &= ((w ^ ones * 0x7f) & low) + low;
	/* the highest bits side by side: the products do not meet */
	return (unsigned)(((((~plain | w) >> 7) & ones) * UINT64_C(0x0102040810204080)) >> 56);
}

static inline unsigned escape_look(const char *p)
{
	return escape_which(p) | escape_which(p + 8) << 8;
}

static inline unsigned escape_copy(char *d, const char *p)
{
	uint64_t low, high;

	memcpy(&low, p, 8);
	memcpy(&high, p + 8, 8);
	memcpy(d, p, ESCAPE_BLOCK);
	return likely(!escape_any(low) && !escape_any(high)) ? 0 : escape_look(p);
}

static inline void escape_name_case(char *d, const char *p, char before)
{
	for (unsigned i = 0; i < ESCAPE_BLOCK; i++) {
		char c = p[i];

		if (before == '-' && c >= 'a' && c <= 'z')
			d[i] = (char)(c - 0x20);
		else if (before != '-' && c >= 'A' && c <= 'Z')
			d[i] = (char)(c + 0x20);
		else
			d[i] = c;
		before = c;
	}
}

#endif

/*
 * Many short texts out of one piece of memory, as the fields of a head: all of it is looked at
 * once, without a branch that depends on the bytes. Whether one of the texts needs more than a copy
 * is in the bits then, and a processor need not guess how long each of them is.
 */
#define ESCAPE_MAP_BYTES 4096

struct escape_map {
	/* Bit n: byte n needs an escape or is not ASCII. One word more, so that two can be read. */
	uint64_t words[ESCAPE_MAP_BYTES / 64 + 1];
};

static inline uint64_t escape_look64(const char *p)
{
	return (uint64_t)escape_look(p) | (uint64_t)escape_look(p + 16) << 16 |
	       (uint64_t)escape_look(p + 32) << 32 | (uint64_t)escape_look(p + 48) << 48;
}

/* len: at most ESCAPE_MAP_BYTES. Reads nothing behind it. */
static inline void escape_map(struct escape_map *map, const char *p, size_t len)
{
	char rest[64] = {0};
	uint64_t *word = map->words;

	for (; len >= sizeof(rest); len -= sizeof(rest), p += sizeof(rest))
		*word++ = escape_look64(p);
	if (len > 0) {
		memcpy(rest, p, len);
		*word++ = escape_look64(rest);
	}
	*word = 0;
}

/* Whether a text in what was looked at can be copied as it is. */
static inline bool escape_map_plain(const struct escape_map *map, size_t off, size_t len)
{
	uint64_t bits = 0, word;

	for (;; off += 64, len -= 64) {
		word = map->words[off / 64] >> off % 64 | map->words[off / 64 + 1]
								  << 1 << (63 - off % 64);
		if (len <= 64)
			break;
		bits |= word;
	}
	/* no shift by 64 */
	bits |= len > 0 ? word << (64 - len) : 0;
	return bits == 0;
}

/* Copies len bytes, mostly with the same few instructions whatever len is: up to ESCAPE_SLACK - 1
 * bytes more are written, and read if they are readable. */
static inline char *escape_copy_text(char *d, const char *p, size_t len, const char *readable)
{
	const size_t step = ESCAPE_SLACK;

	if (unlikely((size_t)(readable - p) < len + step)) {
		memcpy(d, p, len);
		return d + len;
	}
	memcpy(d, p, step);
	for (size_t i = step; unlikely(i < len); i += step)
		memcpy(d + i, p + i, step);
	return d + len;
}

/* Copies less than a block if nothing needs an escape. Reads nothing behind the text. */
static inline bool escape_short(char *d, const char *p, size_t len)
{
	uint64_t first = 0, last = 0;

	if (len >= 8) {
		memcpy(&first, p, 8);
		memcpy(&last, p + len - 8, 8);
		memcpy(d, &first, 8);
		memcpy(d + len - 8, &last, 8);
		return !escape_any(first) && !escape_any(last);
	}
	if (len >= 4) {
		memcpy(&first, p, 4);
		memcpy(&last, p + len - 4, 4);
		memcpy(d, &first, 4);
		memcpy(d + len - 4, &last, 4);
		return !escape_any((first << 32 | last));
	}
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)p[i];

		d[i] = p[i];
		if (c < ' ' || c >= 0x7f || c == '"' || c == '\\')
			return false;
	}
	return true;
}

/*
 * The part of escape() that texts seldom leave: copies from *p until something is in the way; then
 * the caller goes on with escape(). The branches are meant to be predicted: no block waits for the
 * result of the one before.
 */
static inline char *escape_plain(const char **p, const char *end, const char *readable,
	enum text_kind kind, char *d, const char *stop)
{
	char before = '-';

	while (stop - d >= ESCAPE_BLOCK) {
		size_t left = (size_t)(end - *p);
		unsigned special;

		if (unlikely(readable - *p < ESCAPE_BLOCK)) {
			if (kind != TEXT_NAME && left < ESCAPE_BLOCK && escape_short(d, *p, left)) {
				*p = end;
				return d + left;
			}
			break;
		}
		special = escape_copy(d, *p);
		if (kind == TEXT_NAME) {
			escape_name_case(d, *p, before);
			before = (*p)[ESCAPE_BLOCK - 1];
		}
		if (left <= ESCAPE_BLOCK) {
			if (unlikely(special & ((1u << left) - 1)))
				break;
			*p = end;
			return d + left;
		}
		if (unlikely(special))
			break;
		*p += ESCAPE_BLOCK;
		d += ESCAPE_BLOCK;
	}
	return d;
}

#endif
