/* SPDX-License-Identifier: Apache-2.0 */
/*
 * http: HTTP/1.x messages (RFC 9112, RFC 9110). Bytes in, messages out.
 *
 * Two parts, both pure functions of their input, without I/O and without allocation:
 *  - the head (request or status line and the header fields), parsed in one go once all of it lies
 * in one piece of memory; the result holds offsets into these bytes, so they may be moved
 * afterwards;
 *  - the body, decoded incrementally in any split, with missing bytes accounted for.
 *
 * The bytes are an attacker's. Whatever they are: no read outside of the input, time linear in it.
 * What a strict server would reject is parsed as far as it goes and carries a fault; nothing is
 * refused.
 */
#ifndef EBPFDUMP_HTTP_H
#define EBPFDUMP_HTTP_H

#include "pkg/base/base.h"

enum http_kind { HTTP_REQUEST, HTTP_RESPONSE };

/*
 * What was wrong on the wire; the first one found stays. http_fault_text() is what users see as
 * `error`.
 *
 * Tolerated without a fault: a bare LF as line end in a head or trailer; empty lines before the
 * message; a status line without the blank behind the code; any byte from 0x80 up in a target, a
 * reason or a value; any visible ASCII character in a target; equal Content-Lengths, also as a list
 * ("5, 5").
 */
enum http_fault {
	HTTP_OK,
	/* The request or status line: a method that is no token, other blanks than one space
	 * between the parts, no target, a target of none of the four forms, a status that is not
	 * three digits or not in 100..599. */
	HTTP_FAULT_START_LINE,
	/* Neither HTTP/1.0 nor HTTP/1.1 to the letter, or none (HTTP/0.9). */
	HTTP_FAULT_VERSION,
	/* A header or trailer line without colon, an empty or illegal name, space before the colon.
	 * Without a colon the line is kept as a name without value. */
	HTTP_FAULT_FIELD,
	/* NUL, bare CR or another control character (tab is none) in the head or a trailer. */
	HTTP_FAULT_CONTROL,
	/* Obsolete line folding (RFC 9112, 5.2): the value is continued. Also an indented line
	 * below the start line: it is kept as a field, but counts for nothing. */
	HTTP_FAULT_FOLDING,
	/* Content-Length values that differ: what follows the head cannot be told. */
	HTTP_FAULT_LENGTHS,
	/* A Content-Length that is not a decimal number, or beyond 2^63 - 1: likewise. */
	HTTP_FAULT_LENGTH,
	/* Both Content-Length and Transfer-Encoding (request smuggling): the latter wins. */
	HTTP_FAULT_LENGTH_AND_CHUNKED,
	/* chunked twice or not the last coding, a request without chunked, a coding that is not
	 * registered ("identity" is one, and otherwise ignored), or HTTP/1.0 with any. */
	HTTP_FAULT_TRANSFER_ENCODING,
	/* A bad chunk size, extension or chunk end: the rest of the body cannot be told. But for
	 * blanks behind the size, and bare LF: these go on. */
	HTTP_FAULT_CHUNK,
	/* HTTP/1.1 request without Host, a request with two, or with one that names no host. */
	HTTP_FAULT_HOST,
	/* More header fields than the caller has room for; the rest is left out, but still counts
	 * for framing. */
	HTTP_FAULT_TOO_MANY_FIELDS,
	HTTP_FAULT_MAX
};

/* A short lower-case English phrase, NULL for HTTP_OK. Static. */
const char *http_fault_text(enum http_fault fault);

/* Offsets are from the first byte given to http_head_parse(). */
struct http_slice {
	uint32_t off;
	uint32_t len;
};

struct http_field {
	struct http_slice name; /* as on the wire, without surrounding blanks */
	struct http_slice
		value; /* without surrounding blanks; a folded value still contains its line ends */
};

/* Header fields that somebody needs again, found while parsing: index into fields of the first one,
 * -1 absent. */
enum http_known {
	HTTP_HOST,
	HTTP_CONTENT_LENGTH,
	HTTP_TRANSFER_ENCODING,
	HTTP_CONNECTION,
	HTTP_UPGRADE,
	HTTP_CONTENT_TYPE,
	HTTP_CONTENT_ENCODING,
	HTTP_EXPECT,
	HTTP_KNOWN_MAX
};

struct http_head {
	/* Set by the caller before the call: room for fields. */
	struct http_field *fields;
	uint32_t max_fields;
	/* Results. */
	uint32_t n_fields;
	uint32_t size; /* bytes of the whole head, with leading empty lines and the final one */
	enum http_kind kind;
	enum http_fault fault;
	uint8_t major, minor;	   /* HTTP version, at most 255; 0.9 if there is none */
	uint16_t status;	   /* 0 on a request, or if it is not three digits */
	struct http_slice method;  /* empty on a response */
	struct http_slice target;  /* request target as on the wire; empty on a response */
	struct http_slice version; /* "1.1": the text behind "HTTP/"; empty if there is none */
	int16_t known[HTTP_KNOWN_MAX];
	/* Private: what the fields said about framing, for http_framing() and http_keep_alive().
	 */
	uint16_t private_flags;
	uint64_t private_length;
};

/*
 * Where the head that begins at p ends. Returns its size (> 0) once the empty line is there, 0 if
 * more bytes are needed. Leading empty lines belong to the head. A bare LF ends a line as CR LF
 * does. *scanned (start with 0) keeps how far the search came, so that the whole is linear however
 * the bytes are split; the bytes before must stay the same between calls.
 */
size_t http_head_end(const char *p, size_t len, size_t *scanned);

/*
 * Parses a whole head: len is what http_head_end() said (or less, of a head cut by lost bytes: then
 * what is there is parsed, and a last line without end counts as complete). Always succeeds; the
 * fault says what is wrong.
 */
void http_head_parse(const char *p, size_t len, struct http_head *head);

/*
 * What the first bytes of a message look like. MAYBE: too few to tell; any other answer stays when
 * more bytes come. REQUEST: a token (of at most 64 bytes), blanks and a visible ASCII character
 * follow, whatever the method. RESPONSE: "HTTP/" in any case and a digit. Whatever passes here, the
 * parser tells what is wrong with it. Up to 16 bytes of leading empty lines are skipped.
 */
enum http_looks { HTTP_LOOKS_OTHER, HTTP_LOOKS_MAYBE, HTTP_LOOKS_REQUEST, HTTP_LOOKS_RESPONSE };
enum http_looks http_looks_like(const char *p, size_t len);
/*
 * Strictly, for resynchronising inside foreign bytes: a method of the IANA HTTP Method Registry,
 * one space and the beginning of a target; or "HTTP/1.x 123" and a blank or line end.
 */
enum http_looks http_looks_like_known(const char *p, size_t len);

/* ---- body ---- */

enum http_framing {
	HTTP_BODY_NONE,	  /* the message ends with the head */
	HTTP_BODY_LENGTH, /* Content-Length */
	HTTP_BODY_CHUNKED,
	HTTP_BODY_CLOSE,  /* until the connection closes */
	HTTP_BODY_TUNNEL, /* 101, or 2xx to CONNECT: the message ends here, and so does HTTP on this
			     connection */
};

/*
 * How the body of this message is delimited (RFC 9112, 6.3). For a response, `method` is that of
 * the request which it answers, empty if that is not known (then neither HEAD nor CONNECT is
 * assumed). ret_length is set for HTTP_BODY_LENGTH only (0 never is: that is HTTP_BODY_NONE).
 *
 * HTTP_BODY_NONE is also the answer where nobody can tell, always with a fault: bad lengths, a
 * request whose last coding is not chunked, a response without a status and without a length. There
 * may be body bytes behind such a head, so look for the next message with http_looks_like_known().
 */
enum http_framing http_framing(
	const char *p, struct http_head *head, struct span method, uint64_t *ret_length);

/* Whether the connection persists behind this message (RFC 9112, 9.3). */
bool http_keep_alive(const char *p, const struct http_head *head);

struct http_body {
	enum http_framing framing;
	enum http_fault fault;
	bool done;
	bool lost;     /* the end cannot be told any more: a bad chunk, or bytes missing where they
			  matter */
	uint8_t state; /* private from here on */
	uint8_t digits;
	uint64_t left;
	uint32_t line; /* length of the current chunk or trailer line, bounded */
};

void http_body_init(struct http_body *body, enum http_framing framing, uint64_t length);

/*
 * Decodes from p. Returns how many bytes it consumed: with body->done, those behind belong to the
 * next message; with body->lost, the caller resynchronises there. *ret_data is the payload among
 * the consumed bytes (at most one run a call; call again while bytes are left and it is neither
 * done nor lost). When len > 0 and it is neither done nor lost on entry, it consumes at least one
 * byte or becomes lost: the byte that cannot belong to the body is left, it may begin the next
 * message. Chunk extensions (to 4 KiB a chunk) and trailers (to 64 KiB) are skipped; what is odd
 * but clear there sets body->fault and nothing else.
 */
size_t http_body_feed(struct http_body *body, const char *p, size_t len, struct span *ret_data);

/*
 * n bytes of the stream are missing here. Returns how many of them lie in the payload of this body
 * for certain (they cost only themselves). Fewer than n: the body is done (the rest belongs to what
 * follows), or lost, or the rest was exactly the line end behind a chunk's data.
 */
uint64_t http_body_gap(struct http_body *body, uint64_t n);

/* The stream ended. True if that completes the body (close-delimited, or done before). */
bool http_body_end(struct http_body *body);

#endif
