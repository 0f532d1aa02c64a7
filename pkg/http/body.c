/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The body. Chunked is a state machine over bytes, but for data and trailer text, which are taken
 * in runs. A byte that cannot be part of the body is never consumed: it may begin the next message.
 */
#include "pkg/http/http.h"
#include "pkg/http/scan.h"

#define CHUNK_DIGITS_MAX 32	     /* of a chunk size, with leading zeros */
#define CHUNK_LINE_MAX	 4096	     /* chunk size and extensions */
#define TRAILER_MAX	 (64 * 1024) /* all trailer lines together */

enum {
	SIZE,	     /* the digits of a chunk size */
	SIZE_BLANK,  /* blanks behind them */
	EXT,	     /* chunk extensions */
	EXT_QUOTED,  /* a quoted string in them */
	EXT_ESCAPED, /* behind its backslash */
	SIZE_LF,     /* CR was seen at the end of the line */
	DATA,
	DATA_END,     /* the line end behind the data */
	DATA_LF,      /* CR was seen there */
	TRAILER,      /* the beginning of a trailer line, or of the last, empty one */
	TRAILER_NAME, /* in the name of a trailer field */
	TRAILER_TEXT, /* behind the colon */
	TRAILER_CR,   /* CR was seen in the line */
	TRAILER_LF,   /* CR was seen at the beginning of a line */
};

void http_body_init(struct http_body *body, enum http_framing framing, uint64_t length)
{
	*body = (struct http_body){.framing = framing, .left = length};
	body->done = framing == HTTP_BODY_NONE || framing == HTTP_BODY_TUNNEL ||
		     (framing == HTTP_BODY_LENGTH && length == 0);
}

static void set_fault(struct http_body *body, enum http_fault fault)
{
	if (body->fault == HTTP_OK)
		body->fault = fault;
}

/* The end of the body cannot be told. The byte at hand is not consumed. */
static bool lose(struct http_body *body)
{
	set_fault(body, HTTP_FAULT_CHUNK);
	body->lost = true;
	return false;
}

static void begin_line(struct http_body *body, unsigned int state)
{
	body->state = (uint8_t)state;
	body->digits = 0;
	body->line = 0;
}

/* The line end of a chunk size: data follows, or the trailer. */
static bool end_size(struct http_body *body)
{
	if (body->digits == 0)
		return lose(body);
	if (body->left == 0)
		begin_line(body, TRAILER);
	else
		body->state = DATA;
	return true;
}

static unsigned int hex_value(char c)
{
	return c <= '9' ? (unsigned int)(c - '0') : (unsigned int)((c | 0x20) - 'a' + 10);
}

static bool size_digit(struct http_body *body, char c)
{
	if (body->digits == CHUNK_DIGITS_MAX || body->left > UINT64_MAX >> 4)
		return lose(body);
	body->left = body->left << 4 | hex_value(c);
	body->digits++;
	return true;
}

/* One byte of a chunk's size line. False: it is not consumed, and the body is lost. */
static bool size_byte(struct http_body *body, char c)
{
	if (++body->line > CHUNK_LINE_MAX)
		return lose(body);
	if (body->state == SIZE_LF)
		return c == '\n' ? end_size(body) : lose(body);
	if (body->state == SIZE && http_is(c, HTTP_C_HEX))
		return size_digit(body, c);
	if (body->digits == 0)
		return lose(body);
	if (c == '\n' || c == '\r') {
		/* no string goes over a line end, but somebody may take it for one */
		if (body->state == EXT_QUOTED || body->state == EXT_ESCAPED)
			return lose(body);
		if (body->state == SIZE_BLANK || c == '\n')
			set_fault(body, HTTP_FAULT_CHUNK);
		if (c == '\n')
			return end_size(body);
		body->state = SIZE_LF;
		return true;
	}
	if (http_is(c, HTTP_C_CONTROL))
		return lose(body);
	switch (body->state) {
	case SIZE:
	case SIZE_BLANK:
		if (c == ';')
			body->state = EXT;
		else if (http_is_blank(c))
			body->state = SIZE_BLANK;
		else
			return lose(body);
		break;
	case EXT:
		if (c == '"')
			body->state = EXT_QUOTED;
		break;
	case EXT_QUOTED:
		if (c == '"')
			body->state = EXT;
		else if (c == '\\')
			body->state = EXT_ESCAPED;
		break;
	case EXT_ESCAPED:
		body->state = EXT_QUOTED;
		break;
	}
	return true;
}

/* The line end behind a chunk's data. */
static bool data_end_byte(struct http_body *body, char c)
{
	if (c == '\n') {
		if (body->state == DATA_END)
			set_fault(body, HTTP_FAULT_CHUNK);
		begin_line(body, SIZE);
		return true;
	}
	if (c != '\r' || body->state == DATA_LF)
		return lose(body);
	body->state = DATA_LF;
	return true;
}

static void trailer_byte(struct http_body *body, char c)
{
	/* a line without a colon */
	if (body->state == TRAILER_NAME && (c == '\n' || c == '\r'))
		set_fault(body, HTTP_FAULT_FIELD);
	if (c == '\n') {
		body->done = body->state == TRAILER || body->state == TRAILER_LF;
		body->state = TRAILER;
		return;
	}
	/* a CR that no LF followed */
	if (body->state == TRAILER_CR || body->state == TRAILER_LF) {
		set_fault(body, HTTP_FAULT_CONTROL);
		body->state = TRAILER_TEXT;
	}
	if (c == '\r') {
		body->state = body->state == TRAILER ? TRAILER_LF : TRAILER_CR;
		return;
	}
	if (http_is(c, HTTP_C_CONTROL))
		set_fault(body, HTTP_FAULT_CONTROL);
	if (body->state == TRAILER_TEXT)
		return;
	if (body->state == TRAILER && http_is_blank(c)) {
		set_fault(body, HTTP_FAULT_FOLDING);
		body->state = TRAILER_TEXT;
	} else if (c == ':') {
		if (body->state == TRAILER)
			set_fault(body, HTTP_FAULT_FIELD);
		body->state = TRAILER_TEXT;
	} else {
		if (!http_is(c, HTTP_C_TOKEN))
			set_fault(body, HTTP_FAULT_FIELD);
		body->state = TRAILER_NAME;
	}
}

/* Consumes up to and with a run of data. */
static size_t feed_chunked(struct http_body *body, const char *p, size_t len, struct span *ret_data)
{
	size_t i = 0, n;

	while (i < len && !body->done) {
		switch (body->state) {
		case DATA:
			if (ret_data->len > 0)
				return i;
			n = (size_t)MIN(body->left, (uint64_t)(len - i));
			*ret_data = span_of(p + i, n);
			body->left -= n;
			if (body->left == 0)
				body->state = DATA_END;
			i += n;
			break;
		case DATA_END:
		case DATA_LF:
			if (!data_end_byte(body, p[i]))
				return i;
			i++;
			break;
		case TRAILER:
		case TRAILER_NAME:
		case TRAILER_TEXT:
		case TRAILER_CR:
		case TRAILER_LF:
			if (++body->line > TRAILER_MAX) {
				lose(body);
				return i;
			}
			trailer_byte(body, p[i++]);
			break;
		default:
			if (!size_byte(body, p[i]))
				return i;
			i++;
			break;
		}
	}
	return i;
}

size_t http_body_feed(struct http_body *body, const char *p, size_t len, struct span *ret_data)
{
	size_t n;

	*ret_data = span_of(NULL, 0);
	if (body->done || body->lost || len == 0)
		return 0;
	if (body->framing == HTTP_BODY_CHUNKED)
		return feed_chunked(body, p, len, ret_data);
	n = len;
	if (body->framing == HTTP_BODY_LENGTH) {
		n = (size_t)MIN(body->left, (uint64_t)len);
		body->left -= n;
		body->done = body->left == 0;
	}
	*ret_data = span_of(p, n);
	return n;
}

/*
 * n bytes behind a chunk's data are missing. The line end there is CR LF (RFC 9112, 7.1): as long
 * as the gap does not go beyond it, where it ends is certain.
 */
static bool gap_ends_chunk(struct http_body *body, uint64_t n)
{
	if (body->state == DATA || body->state == DATA_END) {
		if (n == 1) {
			body->state = DATA_LF;
			return true;
		}
		n--;
	} else if (body->state != DATA_LF) {
		return false;
	}
	if (n != 1)
		return false;
	begin_line(body, SIZE);
	return true;
}

uint64_t http_body_gap(struct http_body *body, uint64_t n)
{
	uint64_t inside;

	if (body->done || body->lost || n == 0)
		return 0;
	if (body->framing == HTTP_BODY_CLOSE)
		return n;
	inside = body->framing == HTTP_BODY_LENGTH || body->state == DATA ? MIN(n, body->left) : 0;
	body->left -= inside;
	if (body->framing == HTTP_BODY_LENGTH)
		body->done = body->left == 0;
	else if (inside == n)
		body->state = body->left == 0 ? DATA_END : body->state;
	else if (!gap_ends_chunk(body, n - inside))
		body->lost = true;
	return inside;
}

bool http_body_end(struct http_body *body)
{
	if (body->framing == HTTP_BODY_CLOSE && !body->lost)
		body->done = true;
	return body->done;
}
