/* SPDX-License-Identifier: Apache-2.0 */
#include "pkg/http/scan.h"

#define CONTROL HTTP_C_CONTROL
#define TOKEN	HTTP_C_TOKEN
#define HOST	HTTP_C_HOST
#define PUNCT	(HTTP_C_TOKEN | HTTP_C_HOST)
#define DIGIT	(HTTP_C_TOKEN | HTTP_C_HOST | HTTP_C_HEX | HTTP_C_DIGIT)
#define HEX	(HTTP_C_TOKEN | HTTP_C_HOST | HTTP_C_HEX | HTTP_C_ALPHA)
#define ALPHA	(HTTP_C_TOKEN | HTTP_C_HOST | HTTP_C_ALPHA)

const uint8_t http_class[256] = {
	[0x00 ... 0x08] = CONTROL,
	[0x0a ... 0x1f] = CONTROL,
	[0x7f] = CONTROL,
	['0' ... '9'] = DIGIT,
	['A' ... 'F'] = HEX,
	['a' ... 'f'] = HEX,
	['G' ... 'Z'] = ALPHA,
	['g' ... 'z'] = ALPHA,
	['!'] = PUNCT,
	['#'] = TOKEN,
	['$'] = PUNCT,
	['%'] = PUNCT,
	['&'] = PUNCT,
	['\''] = PUNCT,
	['('] = HOST,
	[')'] = HOST,
	['*'] = PUNCT,
	['+'] = PUNCT,
	[','] = HOST,
	['-'] = PUNCT,
	['.'] = PUNCT,
	[';'] = HOST,
	['='] = HOST,
	['^'] = TOKEN,
	['_'] = PUNCT,
	['`'] = TOKEN,
	['|'] = TOKEN,
	['~'] = PUNCT,
};
