/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a head means: target, Host, lengths, transfer codings, connection options, and from these
 * the framing of the body.
 *
 * Values are judged when their field is complete, so that every occurrence counts, also of fields
 * that the caller had no room for. What was found is kept in head->private_flags.
 */
#include "pkg/http/http.h"
#include "pkg/http/scan.h"
#include "pkg/http/semantics.h"

enum {
	HAS_LENGTH = 1 << 0,
	BAD_LENGTH = 1 << 1, /* not a number, too large, or different ones */
	HAS_CODING = 1 << 2, /* a Transfer-Encoding other than the obsolete "identity" */
	HAS_CHUNKED = 1 << 3,
	LAST_CHUNKED = 1 << 4,
	HAS_HOST = 1 << 5,
	SAYS_CLOSE = 1 << 6,
	SAYS_KEEP_ALIVE = 1 << 7,
};

static struct span span_slice(const char *p, struct http_slice s)
{
	return span_of(p + s.off, s.len);
}

/*
 * Cuts the next element off a comma-separated list and trims it; false at the end. "" has one
 * element, which is empty. rest->p is NULL behind the last one.
 */
static bool next_element(struct span *rest, struct span *ret_element)
{
	const char *comma;
	struct span e;

	if (!rest->p)
		return false;
	comma = memchr(rest->p, ',', rest->len);
	e = *rest;
	if (comma) {
		e.len = (size_t)(comma - rest->p);
		*rest = span_of(comma + 1, rest->len - e.len - 1);
	} else {
		*rest = span_of(NULL, 0);
	}
	for (; e.len > 0 && http_is_blank(e.p[0]); e.p++)
		e.len--;
	while (e.len > 0 && http_is_blank(e.p[e.len - 1]))
		e.len--;
	*ret_element = e;
	return true;
}

/* uri-host [ ":" port ] of RFC 9112, 3.2. May be empty. */
static bool host_valid(struct span host, bool *ret_port)
{
	size_t i = 0;

	*ret_port = false;
	if (host.len > 0 && host.p[0] == '[') {
		for (i = 1; i < host.len && host.p[i] != ']'; i++)
			if (host.p[i] != ':' && !http_is(host.p[i], HTTP_C_HOST))
				return false;
		if (i++ >= host.len)
			return false;
	} else {
		while (i < host.len && http_is(host.p[i], HTTP_C_HOST))
			i++;
	}
	if (i == host.len)
		return true;
	if (host.p[i] != ':')
		return false;
	*ret_port = i + 1 < host.len;
	for (i++; i < host.len; i++)
		if (!http_is(host.p[i], HTTP_C_DIGIT))
			return false;
	return true;
}

/* scheme ":" something: absolute-form. */
static bool absolute_uri(struct span target)
{
	size_t i = 0;

	if (!http_is(target.p[0], HTTP_C_ALPHA))
		return false;
	while (i < target.len &&
		(http_is(target.p[i], HTTP_C_ALPHA | HTTP_C_DIGIT) || target.p[i] == '+' ||
			target.p[i] == '-' || target.p[i] == '.'))
		i++;
	return i + 1 < target.len && target.p[i] == ':';
}

void http_check_target(const char *p, struct http_head *head)
{
	struct span target = span_slice(p, head->target), method = span_slice(p, head->method);
	bool good, port;

	if (target.len == 0)
		return; /* is a fault already */
	if (method.len == 7 && span_eq(method, SPAN("CONNECT")))
		good = target.p[0] != ':' && host_valid(target, &port) && port;
	else if (target.p[0] == '/')
		good = true;
	else if (target.p[0] == '*')
		good = target.len == 1 && span_eq(method, SPAN("OPTIONS"));
	else
		good = absolute_uri(target);
	if (!good)
		http_set_fault(head, HTTP_FAULT_START_LINE);
}

/* 1*DIGIT, at most 2^63 - 1: nobody sends more, and signed arithmetic elsewhere stays right. */
static bool length_value(struct span text, uint64_t *ret_value)
{
	uint64_t value = 0;

	if (text.len == 0)
		return false;
	for (size_t i = 0; i < text.len; i++) {
		uint64_t digit = (uint64_t)(text.p[i] - '0');

		if (!http_is(text.p[i], HTTP_C_DIGIT) || value > (INT64_MAX - digit) / 10)
			return false;
		value = value * 10 + digit;
	}
	*ret_value = value;
	return true;
}

/* "5, 5" is one length said twice (RFC 9110, 8.6). */
static void content_length(struct span value, struct http_head *head)
{
	struct span element;
	uint64_t length;

	while (next_element(&value, &element)) {
		if (!length_value(element, &length)) {
			http_set_fault(head, HTTP_FAULT_LENGTH);
			head->private_flags |= BAD_LENGTH;
		} else if (!(head->private_flags & HAS_LENGTH)) {
			head->private_length = length;
		} else if (head->private_length != length) {
			http_set_fault(head, HTTP_FAULT_LENGTHS);
			head->private_flags |= BAD_LENGTH;
		}
		head->private_flags |= HAS_LENGTH;
	}
}

/* The registered codings; parameters are allowed by the grammar, but none of these has one. */
static bool coding_registered(struct span coding)
{
	return span_eq_nocase(coding, SPAN("gzip")) || span_eq_nocase(coding, SPAN("deflate")) ||
	       span_eq_nocase(coding, SPAN("compress")) || span_eq_nocase(coding, SPAN("x-gzip")) ||
	       span_eq_nocase(coding, SPAN("x-compress"));
}

static void transfer_encoding(struct span value, struct http_head *head)
{
	struct span coding;

	while (next_element(&value, &coding)) {
		bool chunked = span_eq_nocase(coding, SPAN("chunked"));

		if (!chunked && !coding_registered(coding))
			http_set_fault(head, HTTP_FAULT_TRANSFER_ENCODING);
		/* HTTP/1.0 programs send "identity" with a Content-Length; a list may have empty
		 * elements */
		if (span_eq_nocase(coding, SPAN("identity")) ||
			(coding.len == 0 && (head->private_flags & HAS_CODING)))
			continue;
		if (head->private_flags & HAS_CHUNKED)
			http_set_fault(head, HTTP_FAULT_TRANSFER_ENCODING);
		head->private_flags |= HAS_CODING;
		if (chunked)
			head->private_flags |= HAS_CHUNKED | LAST_CHUNKED;
		else
			head->private_flags &= (uint16_t)~LAST_CHUNKED;
	}
}

static void connection(struct span value, struct http_head *head)
{
	struct span option;

	while (next_element(&value, &option)) {
		if (option.len == 5 && span_eq_nocase(option, SPAN("close")))
			head->private_flags |= SAYS_CLOSE;
		else if (option.len == 10 && span_eq_nocase(option, SPAN("keep-alive")))
			head->private_flags |= SAYS_KEEP_ALIVE;
	}
}

static void host(struct span value, struct http_head *head)
{
	bool port;

	if (head->kind == HTTP_REQUEST &&
		((head->private_flags & HAS_HOST) || !host_valid(value, &port)))
		http_set_fault(head, HTTP_FAULT_HOST);
	head->private_flags |= HAS_HOST;
}

void http_known_value(
	const char *p, struct http_head *head, enum http_known known, struct http_slice value)
{
	struct span text = span_slice(p, value);

	switch (known) {
	case HTTP_HOST:
		host(text, head);
		break;
	case HTTP_CONTENT_LENGTH:
		content_length(text, head);
		break;
	case HTTP_TRANSFER_ENCODING:
		transfer_encoding(text, head);
		break;
	case HTTP_CONNECTION:
		connection(text, head);
		break;
	default:
		break;
	}
}

static bool at_least_1_1(const struct http_head *head)
{
	return head->major > 1 || (head->major == 1 && head->minor >= 1);
}

void http_head_done(struct http_head *head)
{
	unsigned int flags = head->private_flags;

	if ((flags & HAS_LENGTH) && (flags & HAS_CODING))
		http_set_fault(head, HTTP_FAULT_LENGTH_AND_CHUNKED);
	if ((flags & HAS_CODING) && !at_least_1_1(head))
		http_set_fault(head, HTTP_FAULT_TRANSFER_ENCODING);
	if (head->kind == HTTP_RESPONSE)
		return;
	if ((flags & HAS_CODING) && !(flags & LAST_CHUNKED))
		http_set_fault(head, HTTP_FAULT_TRANSFER_ENCODING);
	if (!(flags & HAS_HOST) && at_least_1_1(head))
		http_set_fault(head, HTTP_FAULT_HOST);
}

enum http_framing http_framing(
	const char *p, struct http_head *head, struct span method, uint64_t *ret_length)
{
	unsigned int flags = head->private_flags, status = head->status;
	bool response = head->kind == HTTP_RESPONSE;

	if (response) {
		if (status == 101 || (status / 100 == 2 && span_eq(method, SPAN("CONNECT"))))
			return HTTP_BODY_TUNNEL;
		if (status / 100 == 1 || status == 204 || status == 304 ||
			span_eq(method, SPAN("HEAD")))
			return HTTP_BODY_NONE;
	}
	if (flags & LAST_CHUNKED)
		return HTTP_BODY_CHUNKED;
	if (flags & HAS_CODING)
		return response ? HTTP_BODY_CLOSE : HTTP_BODY_NONE;
	if (flags & BAD_LENGTH)
		return HTTP_BODY_NONE;
	if (flags & HAS_LENGTH) {
		if (head->private_length == 0)
			return HTTP_BODY_NONE;
		*ret_length = head->private_length;
		return HTTP_BODY_LENGTH;
	}
	return response && status != 0 ? HTTP_BODY_CLOSE : HTTP_BODY_NONE;
}

bool http_keep_alive(const char *p, const struct http_head *head)
{
	if (head->private_flags & SAYS_CLOSE)
		return false;
	return at_least_1_1(head) || (head->major == 1 && (head->private_flags & SAYS_KEEP_ALIVE));
}

const char *http_fault_text(enum http_fault fault)
{
	switch (fault) {
	case HTTP_FAULT_START_LINE:
		return "malformed start line";
	case HTTP_FAULT_VERSION:
		return "unsupported http version";
	case HTTP_FAULT_FIELD:
		return "malformed header field";
	case HTTP_FAULT_CONTROL:
		return "control character in head";
	case HTTP_FAULT_FOLDING:
		return "obsolete line folding";
	case HTTP_FAULT_LENGTHS:
		return "different content-length values";
	case HTTP_FAULT_LENGTH:
		return "invalid content-length";
	case HTTP_FAULT_LENGTH_AND_CHUNKED:
		return "both content-length and transfer-encoding";
	case HTTP_FAULT_TRANSFER_ENCODING:
		return "invalid transfer-encoding";
	case HTTP_FAULT_CHUNK:
		return "malformed chunk";
	case HTTP_FAULT_HOST:
		return "missing or invalid host";
	case HTTP_FAULT_TOO_MANY_FIELDS:
		return "too many header fields";
	case HTTP_OK:
	case HTTP_FAULT_MAX:
		break;
	}
	return NULL;
}
