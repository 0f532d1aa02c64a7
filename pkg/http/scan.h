/* SPDX-License-Identifier: Apache-2.0 */
/* Private to the room: classes of bytes, and the search for those that end something. */
#ifndef EBPFDUMP_HTTP_SCAN_H
#define EBPFDUMP_HTTP_SCAN_H

#include "pkg/base/base.h"

#ifdef __SSE2__
#	include <emmintrin.h>
#endif

enum {
	HTTP_C_TOKEN = 1 << 0, /* RFC 9110, 5.6.2 */
	HTTP_C_DIGIT = 1 << 1,
	HTTP_C_HEX = 1 << 2,
	HTTP_C_ALPHA = 1 << 3,
	HTTP_C_HOST = 1 << 4,	 /* reg-name of RFC 3986, 3.2.2 */
	HTTP_C_CONTROL = 1 << 5, /* below 0x20 but for tab, and 0x7f */
};

extern const uint8_t http_class[256];

static inline bool http_is(char c, unsigned int class)
{
	return (http_class[(unsigned char)c] & class) != 0;
}

static inline bool http_is_blank(char c)
{
	return c == ' ' || c == '\t';
}

/* HTTP_TO_CONTROL stops at control characters; HTTP_TO_BLANK at tab and space, too. */
enum http_stop { HTTP_TO_CONTROL, HTTP_TO_BLANK };

static inline bool http_stops(char c, enum http_stop stop)
{
	return http_is(c, HTTP_C_CONTROL) || (stop == HTTP_TO_BLANK && http_is_blank(c));
}

/*
 * The first i in [i, len) whose byte stops, len if there is none. Reads p[0..len) only.
 *
 * 8 bytes at a time; a word that holds a control character is looked at byte by byte.
 */
static inline size_t http_find_portable(const char *p, size_t i, size_t len, enum http_stop stop)
{
	const uint64_t ones = 0x0101010101010101, highs = 0x8080808080808080;
	const uint64_t del = 0x7f * ones, limit = (stop == HTTP_TO_BLANK ? 0x21 : 0x20) * ones;

	for (; len - i >= 8; i += 8) {
		uint64_t v, x;

		memcpy(&v, p + i, 8);
		x = v ^ del;
		if ((((v - limit) & ~v) | ((x - ones) & ~x)) & highs)
			for (size_t k = i; k < i + 8; k++)
				if (http_stops(p[k], stop))
					return k;
	}
	while (i < len && !http_stops(p[i], stop))
		i++;
	return i;
}

#ifdef __SSE2__

/* Bit i is set if byte i of the 16 at p stops the search. */
static inline unsigned int http_stop_mask(const char *p, enum http_stop stop)
{
	__m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
	__m128i top = _mm_set1_epi8(stop == HTTP_TO_BLANK ? 0x20 : 0x1f);
	__m128i hit = _mm_cmpeq_epi8(_mm_min_epu8(v, top), v);

	if (stop == HTTP_TO_CONTROL)
		hit = _mm_andnot_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('\t')), hit);
	hit = _mm_or_si128(hit, _mm_cmpeq_epi8(v, _mm_set1_epi8(0x7f)));
	return (unsigned int)_mm_movemask_epi8(hit);
}

/* As http_find_portable(). */
static inline size_t http_find(const char *p, size_t i, size_t len, enum http_stop stop)
{
	unsigned int mask;

	for (; len - i >= 16; i += 16) {
		mask = http_stop_mask(p + i, stop);
		if (mask)
			return i + (size_t)__builtin_ctz(mask);
	}
	if (len >= 16) {
		/* the last 16 bytes; those before i are shifted out */
		mask = http_stop_mask(p + len - 16, stop) >> (i - (len - 16));
		return mask ? i + (size_t)__builtin_ctz(mask) : len;
	}
	while (i < len && !http_stops(p[i], stop))
		i++;
	return i;
}

/* Bit i is set if byte i of the 16 at p is LF and the next one (p[16] for the last) CR or LF. */
static inline unsigned int http_head_end_mask(const char *p)
{
	__m128i lf = _mm_set1_epi8('\n'), v, next;

	v = _mm_loadu_si128((const __m128i *)(const void *)p);
	next = _mm_loadu_si128((const __m128i *)(const void *)(p + 1));
	next = _mm_or_si128(_mm_cmpeq_epi8(next, lf), _mm_cmpeq_epi8(next, _mm_set1_epi8('\r')));
	return (unsigned int)_mm_movemask_epi8(_mm_and_si128(_mm_cmpeq_epi8(v, lf), next));
}

/*
 * How many of the 16 bytes at p are letters, digits and '-': most field names are nothing else. (A
 * byte of another kind may still be part of a token.)
 */
static inline size_t http_plain_run(const char *p)
{
	__m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
	__m128i letter = _mm_sub_epi8(_mm_or_si128(v, _mm_set1_epi8(0x20)), _mm_set1_epi8('a'));
	__m128i digit = _mm_sub_epi8(v, _mm_set1_epi8('0'));
	__m128i plain = _mm_or_si128(
		_mm_or_si128(_mm_cmpeq_epi8(_mm_min_epu8(letter, _mm_set1_epi8(25)), letter),
			_mm_cmpeq_epi8(_mm_min_epu8(digit, _mm_set1_epi8(9)), digit)),
		_mm_cmpeq_epi8(v, _mm_set1_epi8('-')));

	return (size_t)__builtin_ctz(~(unsigned int)_mm_movemask_epi8(plain));
}

#else

static inline size_t http_find(const char *p, size_t i, size_t len, enum http_stop stop)
{
	return http_find_portable(p, i, len, stop);
}

#endif

/* The first i in [i, len) where LF is followed by CR, LF or nothing, len if there is none. */
static inline size_t http_find_head_end(const char *p, size_t i, size_t len)
{
#ifdef __SSE2__
	for (; len - i > 16; i += 16) {
		unsigned int mask = http_head_end_mask(p + i);

		if (mask)
			return i + (size_t)__builtin_ctz(mask);
	}
#endif
	for (; i < len; i++) {
		const char *lf = memchr(p + i, '\n', len - i);

		if (!lf)
			return len;
		i = (size_t)(lf - p);
		if (i + 1 == len || p[i + 1] == '\n' || p[i + 1] == '\r')
			return i;
	}
	return len;
}

/* The first i in [i, len) whose byte cannot be in a token, len if there is none. */
static inline size_t http_skip_token(const char *p, size_t i, size_t len)
{
#ifdef __SSE2__
	if (likely(len - i >= 16))
		i += http_plain_run(p + i);
#endif
	while (i < len && http_is(p[i], HTTP_C_TOKEN))
		i++;
	return i;
}

#endif
