/* SPDX-License-Identifier: Apache-2.0 */
/* Is this the beginning of a message? All of it looks at a bounded number of bytes. */
#include "pkg/http/http.h"
#include "pkg/http/scan.h"

#define EMPTY_LINES_MAX 16 /* bytes of leading empty lines */
#define METHOD_MAX	64 /* a longer token is no method */
#define BLANKS_MAX	16 /* between method and target */

/* IANA HTTP Method Registry, the common ones first. PRI is the preface of HTTP/2, "*" no method. */
static const struct span methods[] = {
#define METHOD(literal)                      \
	{                                    \
		literal, sizeof(literal) - 1 \
	}
	METHOD("GET"),
	METHOD("POST"),
	METHOD("PUT"),
	METHOD("DELETE"),
	METHOD("HEAD"),
	METHOD("OPTIONS"),
	METHOD("PATCH"),
	METHOD("CONNECT"),
	METHOD("TRACE"),
	METHOD("QUERY"),
	METHOD("ACL"),
	METHOD("BASELINE-CONTROL"),
	METHOD("BIND"),
	METHOD("CHECKIN"),
	METHOD("CHECKOUT"),
	METHOD("COPY"),
	METHOD("LABEL"),
	METHOD("LINK"),
	METHOD("LOCK"),
	METHOD("MERGE"),
	METHOD("MKACTIVITY"),
	METHOD("MKCALENDAR"),
	METHOD("MKCOL"),
	METHOD("MKREDIRECTREF"),
	METHOD("MKWORKSPACE"),
	METHOD("MOVE"),
	METHOD("ORDERPATCH"),
	METHOD("PROPFIND"),
	METHOD("PROPPATCH"),
	METHOD("REBIND"),
	METHOD("REPORT"),
	METHOD("SEARCH"),
	METHOD("UNBIND"),
	METHOD("UNCHECKOUT"),
	METHOD("UNLINK"),
	METHOD("UNLOCK"),
	METHOD("UPDATE"),
	METHOD("UPDATEREDIRECTREF"),
	METHOD("VERSION-CONTROL"),
#undef METHOD
};

/* What begins behind leading empty lines; nothing if the bytes end before. */
static struct span skip_empty_lines(const char *p, size_t len)
{
	size_t i = 0;

	while (i < len && i <= EMPTY_LINES_MAX) {
		if (p[i] == '\r' && i + 1 == len)
			return span_of(p, 0);
		if (p[i] == '\n')
			i++;
		else if (p[i] == '\r' && p[i + 1] == '\n')
			i += 2;
		else
			break;
	}
	return span_of(p + i, len - i);
}

/* "HTTP/" and a digit, in any case; the parser tells what is wrong with it. */
static enum http_looks version_any(struct span s)
{
	size_t n = MIN(s.len, (size_t)5);

	if (!span_eq_nocase(span_of(s.p, n), span_of("HTTP/", n)))
		return HTTP_LOOKS_OTHER;
	if (s.len <= 5)
		return HTTP_LOOKS_MAYBE;
	return http_is(s.p[5], HTTP_C_DIGIT) ? HTTP_LOOKS_RESPONSE : HTTP_LOOKS_OTHER;
}

/* "HTTP/1.x 123" and a blank or the end of the line. */
static enum http_looks status_line(struct span s)
{
	static const char pattern[] = "HTTP/1.0 000";
	size_t n = sizeof(pattern) - 1;

	for (size_t i = 0; i < MIN(s.len, n); i++)
		if (pattern[i] == '0' ? !http_is(s.p[i], HTTP_C_DIGIT) : s.p[i] != pattern[i])
			return HTTP_LOOKS_OTHER;
	if (s.len <= n)
		return HTTP_LOOKS_MAYBE;
	return s.p[n] == ' ' || s.p[n] == '\r' || s.p[n] == '\n' ? HTTP_LOOKS_RESPONSE
								 : HTTP_LOOKS_OTHER;
}

static bool visible(char c)
{
	return c > 0x20 && c < 0x7f;
}

static enum http_looks request_any(struct span s)
{
	size_t i = 0, blanks;

	while (i < s.len && i <= METHOD_MAX && http_is(s.p[i], HTTP_C_TOKEN))
		i++;
	if (i > METHOD_MAX)
		return HTTP_LOOKS_OTHER;
	if (i == s.len)
		return HTTP_LOOKS_MAYBE;
	for (blanks = 0; i < s.len && blanks <= BLANKS_MAX && http_is_blank(s.p[i]); blanks++)
		i++;
	if (i == blanks || blanks == 0 || blanks > BLANKS_MAX)
		return HTTP_LOOKS_OTHER;
	if (i == s.len)
		return HTTP_LOOKS_MAYBE;
	return visible(s.p[i]) ? HTTP_LOOKS_REQUEST : HTTP_LOOKS_OTHER;
}

static bool target_begins(char c)
{
	return c == '/' || c == '*' || c == '[' || http_is(c, HTTP_C_ALPHA | HTTP_C_DIGIT);
}

static enum http_looks request_known(struct span s)
{
	if (s.p[0] < 'A' || s.p[0] > 'V')
		return HTTP_LOOKS_OTHER;
	for (size_t i = 0; i < ARRAY_SIZE(methods); i++) {
		const struct span *m = &methods[i];

		if (m->p[0] != s.p[0] || memcmp(m->p, s.p, MIN(m->len, s.len)) != 0)
			continue;
		if (s.len <= m->len)
			return HTTP_LOOKS_MAYBE;
		if (s.p[m->len] != ' ')
			continue;
		if (s.len == m->len + 1)
			return HTTP_LOOKS_MAYBE;
		return target_begins(s.p[m->len + 1]) ? HTTP_LOOKS_REQUEST : HTTP_LOOKS_OTHER;
	}
	return HTTP_LOOKS_OTHER;
}

static enum http_looks looks(const char *p, size_t len, enum http_looks (*response)(struct span),
	enum http_looks (*request)(struct span))
{
	enum http_looks as_response, as_request;
	struct span s = skip_empty_lines(p, len);

	if (s.len == 0)
		return HTTP_LOOKS_MAYBE;
	as_response = response(s);
	if (as_response == HTTP_LOOKS_RESPONSE)
		return as_response;
	as_request = request(s);
	return as_request == HTTP_LOOKS_OTHER ? as_response : as_request;
}

enum http_looks http_looks_like(const char *p, size_t len)
{
	return looks(p, len, version_any, request_any);
}

enum http_looks http_looks_like_known(const char *p, size_t len)
{
	return looks(p, len, status_line, request_known);
}
