/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dump: NetworkDump, the record that users see: its JSON, its line of text, the filter.
 *
 * A dump_message is a view: everything in it belongs to the caller (the flow room) and is valid
 * during the call only. Writers append one line to a buffer and keep nothing.
 *
 * The keys of the JSON object are documented in README.md and DESIGN.md ("NetworkDump"); the first
 * ten are the seed's, in its order, always present.
 */
#ifndef EBPFDUMP_DUMP_H
#define EBPFDUMP_DUMP_H

#include "pkg/base/base.h"
#include "pkg/http/http.h"

enum dump_direction { DUMP_EGRESS = 0, DUMP_INGRESS = 1 };

struct dump_peer {
	char ip[46]; /* text form, NUL-terminated (INET6_ADDRSTRLEN) */
	uint8_t ip_len;
	uint16_t port;
};

/* What the messages of one connection share. */
struct dump_conn {
	struct dump_peer local; /* the end on this machine */
	struct dump_peer remote;
	uint32_t pid;	    /* 0 unknown */
	char comm[16];	    /* NUL-terminated, may hold any bytes; "" unknown */
	char interface[16]; /* NUL-terminated; "" unknown */
	uint64_t cgroup_id; /* of that process; 0 unknown. Not written: the pod is found by it */
};

/* Whose process it is: what is not known is empty, and not written. */
struct dump_pod {
	struct span namespace, pod, container;
};

struct dump_message {
	const struct dump_conn *conn;
	struct dump_pod pod;
	enum dump_direction direction;
	uint64_t time_ns;     /* wall-clock time at which the first byte passed the hook */
	uint64_t seq;	      /* number of this message among those the loader emitted */
	uint64_t exchange_id; /* of a request and its responses, at both ends; 0: unknown */
	const char *bytes; /* what head's slices are relative to; not NULL. The first head->size of
			      them may all be read */
	const struct http_head *head;
	struct span body;    /* decoded payload: at most the body limit of it, gaps left out */
	uint64_t body_bytes; /* full length of the payload that passed, gaps included */
	uint64_t gap_bytes;  /* of the whole message: passed, but not captured (limit, loss) */
	bool body_truncated; /* body holds less than body_bytes */
	const char *error;   /* what is wrong, as http_fault_text() or flow's own phrases; NULL:
				nothing */
	/* Only on a response whose request was seen (request_method.len > 0): */
	struct span request_method;
	struct span request_path;
	struct span request_host;
	uint64_t latency_us; /* first byte of the request to first byte of the response */
};

#define DUMP_REDACT_MAX	     16
#define DUMP_REDACT_NAME_MAX 64
/* "redacted:" and 16 hexadecimal digits, lower-case. */
#define DUMP_REDACTED_LEN 25

/*
 * Headers whose values are written as dump_redact() makes them. The key is the process's own, so
 * equal values can be told from different ones within one run, and nothing else can be told. An
 * empty value stays empty. Neither the body nor the path is redacted.
 */
struct dump_redaction {
	struct span names[DUMP_REDACT_MAX];
	uint32_t count;
	bool host;	/* Host is among them: it is also redacted where it stands elsewhere */
	uint64_t marks; /* private: which names may be among them, by dump_redaction_mark() */
	uint64_t key[2];
};

/*
 * The names (1..DUMP_REDACT_NAME_MAX bytes each, at most DUMP_REDACT_MAX of them, any case) stay
 * the caller's. key: two words, for tests; NULL: from getrandom(2). -EINVAL, or a negative errno of
 * getrandom().
 */
int dump_redaction_init(struct dump_redaction *r, const char *const *names, uint32_t count,
	const uint64_t *key) MUST_CHECK;

enum dump_redact {
	DUMP_REDACT_NOTHING,
	DUMP_REDACT_VALUE,
	/* A line in which something else than a colon follows the name, as in "Cookie a=b": what
	 * the parser takes for its name is redacted, too. */
	DUMP_REDACT_ALL,
};

enum dump_redact dump_redaction_match(const struct dump_redaction *r, struct span name);

/* A bit that equal names share, whatever their case (name.len > 0). */
static inline uint64_t dump_redaction_mark(struct span name)
{
	uint32_t first = (unsigned char)name.p[0] | 0x20;
	uint32_t last = (unsigned char)name.p[name.len - 1] | 0x20;

	return UINT64_C(1) << ((last << 16 ^ first << 8 ^ (uint32_t)name.len) *
				       UINT32_C(0x85ebca6b) >>
			       26);
}

/* Writes the keyed hash of the value, as it was on the wire. */
void dump_redact(const struct dump_redaction *r, struct span value, char out[DUMP_REDACTED_LEN]);

struct dump_format {
	const char *node; /* NUL-terminated; "" if unknown: the key is written all the same */
	size_t line_max;  /* longest JSON line with its newline; the default is 16384, container
			     runtimes' limit */
	const struct dump_redaction *redaction; /* NULL: nothing is redacted */
	bool colour;				/* dump_text() only */
};

/* The default of line_max: `containerd` splits a log line at 16 KiB. */
#define DUMP_LINE_MAX 16384
/* The smallest line_max that dump_json() can honour: all fixed keys with values cut to nothing. */
#define DUMP_LINE_MIN 2048

/*
 * Appends the message as one line of JSON and '\n'. Always valid JSON and valid UTF-8, whatever the
 * bytes; control characters (C0, DEL, C1) only as escapes. Returns 0, or -ENOMEM/-ENOBUFS from out
 * (then out is as before). It is quickest if out can hold format->line_max and 512 bytes more.
 *
 * The line has at most format->line_max bytes (DUMP_LINE_MIN, if that is more). One that would be
 * longer is cut in this order:
 *  - the body ("body_truncated": true), in whole characters, base64 in whole groups of four;
 *  - header values and other long texts (path, method, node, ...), the longest first
 *    ("headers_truncated": true, for any of them);
 *  - headers are left out, the last ones first, those with a very long name before.
 *
 * Header names are written as `User-Agent` whatever their case on the wire; repeated ones collect
 * in one list in order. Each line end in a value, with the blanks behind it, becomes one space.
 * Text that is not valid UTF-8 (any but the body) is taken as Latin-1. The body is text if it is
 * valid UTF-8 (a sequence cut by the body limit does not count, and is left off) without control
 * characters other than tab, LF, CR, VT, FF, BS and ESC; else base64 with "body_encoding":
 * "base64".
 */
int dump_json(const struct dump_format *format, const struct dump_message *message,
	struct buf *out) MUST_CHECK;

/*
 * Appends the message as one line for people: local time (hh:mm:ss.mmm), ↑ sent or ↓ received by
 * this machine, client → server of a request and client ← server of a response, status, method,
 * host and path (of a response: what it answers), size, latency, what is wrong, process, pod.
 * Control characters and those that turn the direction of writing never reach the terminal. Long
 * texts are cut, a line is shorter than 3500 bytes. -ENOMEM/-ENOBUFS from out (then out is as
 * before).
 */
int dump_text(const struct dump_format *format, const struct dump_message *message,
	struct buf *out) MUST_CHECK;

/* Bit n set: value n of the enum passes. */
struct dump_filter {
	uint8_t directions; /* of enum dump_direction */
	uint8_t kinds;	    /* of enum http_kind */
};

bool dump_filter_pass(const struct dump_filter *filter, const struct dump_message *message);

#endif
