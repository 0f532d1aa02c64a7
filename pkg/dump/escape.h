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

#define ESCAPE_MAX 6
/* So many bytes behind what escape() returns may be overwritten, even behind `stop`. */
#define ESCAPE_SLACK 16

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

/* Writes 4 bytes for each 3, rounded up. Returns the end. */
char *escape_base64(char *d, struct span bytes) MUST_CHECK;

#endif
