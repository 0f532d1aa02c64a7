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

/* What was wrong on the wire; the first one found stays. http_fault_text() is what users see as
 * `error`. */
enum http_fault {
	HTTP_OK,
	HTTP_FAULT_START_LINE, /* the request or status line is malformed */
	HTTP_FAULT_VERSION,    /* neither HTTP/1.0 nor HTTP/1.1, or none (HTTP/0.9) */
	HTTP_FAULT_FIELD, /* a header line without colon, an empty or illegal name, space before the
			     colon */
	HTTP_FAULT_CONTROL, /* NUL, bare CR or another control character in the head */
	HTTP_FAULT_FOLDING, /* obsolete line folding (RFC 9112, 5.2): the value is unfolded */
	HTTP_FAULT_LENGTHS, /* Content-Length values that differ */
	HTTP_FAULT_LENGTH,  /* a Content-Length that is not a number, or too large */
	HTTP_FAULT_LENGTH_AND_CHUNKED, /* both Content-Length and Transfer-Encoding (request
					  smuggling) */
	HTTP_FAULT_TRANSFER_ENCODING, /* chunked is not the last coding, or twice, or in HTTP/1.0 */
	HTTP_FAULT_CHUNK, /* a bad chunk size or chunk end: the rest of the body cannot be told */
	HTTP_FAULT_HOST,  /* HTTP/1.1 request without Host, or with two different ones */
	HTTP_FAULT_TOO_MANY_FIELDS, /* more header fields than the caller has room for; the rest is
				       left out */
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
	struct http_slice name; /* as on the wire */
	struct http_slice
		value; /* without surrounding blanks; a folded value still contains its line ends */
};

/* Header fields that somebody needs again, found while parsing: index into fields, -1 absent (first
 * occurrence). */
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
	uint8_t major, minor;	   /* HTTP version; 0.9 for a request line without one */
	uint16_t status;	   /* 0 on a request */
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
 * What the first bytes of a message look like. MAYBE: too few to tell. REQUEST: a token, a blank
 * and the beginning of a target follow (any method, registered or not). Used to find the next
 * message after a fault or lost bytes; the kernel side has its own, narrower test for the first
 * bytes of a connection. Leading empty lines are skipped.
 */
enum http_looks { HTTP_LOOKS_OTHER, HTTP_LOOKS_MAYBE, HTTP_LOOKS_REQUEST, HTTP_LOOKS_RESPONSE };
enum http_looks http_looks_like(const char *p, size_t len);
/* Same, but REQUEST only for a registered method (IANA HTTP Method Registry): for resynchronising
 * inside foreign bytes. */
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
 * the request which it answers, empty if that is not known (then HEAD is not assumed). May set
 * head->fault. ret_length is set for HTTP_BODY_LENGTH (0 never is: that is HTTP_BODY_NONE).
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
 * for certain (they cost only themselves). Fewer than n: the body is either done (the rest belongs
 * to what follows) or lost.
 */
uint64_t http_body_gap(struct http_body *body, uint64_t n);

/* The stream ended. True if that completes the body (close-delimited, or done before). */
bool http_body_end(struct http_body *body);

#endif
