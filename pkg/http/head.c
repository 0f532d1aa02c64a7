/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The head: where it ends, and what is in it.
 *
 * A well-formed line takes a short way; whatever is odd about a line is sorted out in functions of
 * their own (odd_...), so that leniency costs nothing on clean input.
 */
#include "pkg/http/http.h"
#include "pkg/http/scan.h"
#include "pkg/http/semantics.h"

/* Whether the line at i is empty: the length of its end, 0 if it is not (or not known yet). */
static inline size_t empty_line(const char *p, size_t i, size_t len)
{
	if (i < len && p[i] == '\n')
		return 1;
	if (len - i >= 2 && p[i] == '\r' && p[i + 1] == '\n')
		return 2;
	return 0;
}

/*
 * *scanned is either behind a leading empty line (or 0), or behind bytes in which the head does not
 * end. In the latter case the byte before it is never LF: an LF whose next line is not known yet is
 * looked at again.
 */
size_t http_head_end(const char *p, size_t len, size_t *scanned)
{
	size_t i = *scanned, n;

	if (i == 0 || p[i - 1] == '\n') {
		while ((n = empty_line(p, i, len)) > 0)
			i += n;
		*scanned = i;
		if (i == len || (p[i] == '\r' && i + 1 == len))
			return 0;
	}
	while (i < len) {
		i = http_find_head_end(p, i, len);
		if (i == len)
			break;
		n = empty_line(p, i + 1, len);
		if (n > 0) {
			*scanned = i;
			return i + 1 + n;
		}
		if (i + 1 == len || (p[i + 1] == '\r' && i + 2 == len))
			break;
		i++;
	}
	*scanned = i;
	return 0;
}

/*
 * The end of the text of the line that continues at i; *ret_next is where the next line begins. A
 * CR at the very end counts as half of a line end that was cut.
 */
static inline __attribute__((always_inline)) size_t line_end(
	const char *p, size_t i, size_t len, size_t *ret_next, struct http_head *head)
{
	for (;; i++) {
		i = http_find(p, i, len, HTTP_TO_CONTROL);
		if (i == len) {
			*ret_next = len;
			return i;
		}
		if (p[i] == '\n') {
			*ret_next = i + 1;
			return i;
		}
		if (p[i] == '\r' && (i + 1 == len || p[i + 1] == '\n')) {
			*ret_next = MIN(i + 2, len);
			return i;
		}
		http_set_fault(head, HTTP_FAULT_CONTROL);
	}
}

static inline struct http_slice slice(size_t from, size_t to)
{
	return (struct http_slice){.off = (uint32_t)from, .len = (uint32_t)(to - from)};
}

static inline size_t skip_blanks(const char *p, size_t i, size_t end)
{
	while (i < end && http_is_blank(p[i]))
		i++;
	return i;
}

/* The end of p[i..end) without its trailing blanks. */
static inline size_t trim_blanks(const char *p, size_t i, size_t end)
{
	while (end > i && http_is_blank(p[end - 1]))
		end--;
	return end;
}

/* ---- start line ---- */

static bool starts_with_http(const char *p, size_t i, size_t end)
{
	return end - i >= 5 && span_eq_nocase(span_of(p + i, 5), SPAN("HTTP/"));
}

static uint8_t small_number(const char *p, size_t *i, size_t end)
{
	unsigned int value = 0;

	for (; *i < end && http_is(p[*i], HTTP_C_DIGIT); (*i)++)
		value = MIN(value * 10 + (unsigned int)(p[*i] - '0'), 255U);
	return (uint8_t)value;
}

/* p[i..end) is "HTTP/..." in any case. */
static void version(const char *p, size_t i, size_t end, struct http_head *head)
{
	size_t k = i + 5;
	bool good = memcmp(p + i, "HTTP/", 5) == 0 && end - i == 8;

	head->version = slice(k, end);
	head->major = small_number(p, &k, end);
	head->minor = head->version.len > 0 ? 0 : 9;
	if (k < end && p[k] == '.') {
		k++;
		head->minor = small_number(p, &k, end);
	}
	if (!good || k != end || p[i + 6] != '.' || head->major != 1 || head->minor > 1)
		http_set_fault(head, HTTP_FAULT_VERSION);
}

/* The short way: "HTTP/1.1 200 ...". */
static bool status_line(const char *p, size_t i, size_t end, struct http_head *head)
{
	const char *s = p + i;

	if (end - i < 12 || memcmp(s, "HTTP/1.", 7) != 0 || (s[7] != '1' && s[7] != '0') ||
		s[8] != ' ' || s[9] < '1' || s[9] > '5' || !http_is(s[10], HTTP_C_DIGIT) ||
		!http_is(s[11], HTTP_C_DIGIT) || (end - i > 12 && s[12] != ' '))
		return false;
	head->kind = HTTP_RESPONSE;
	head->version = slice(i + 5, i + 8);
	head->major = 1;
	head->minor = (uint8_t)(s[7] - '0');
	head->status = (uint16_t)((s[9] - '0') * 100 + (s[10] - '0') * 10 + (s[11] - '0'));
	return true;
}

static void odd_status_line(const char *p, size_t i, size_t end, struct http_head *head)
{
	size_t k = i;
	unsigned int status = 0;

	head->kind = HTTP_RESPONSE;
	while (k < end && !http_is_blank(p[k]))
		k++;
	version(p, i, k, head);
	i = skip_blanks(p, k, end);
	if (i != k + 1 || p[k] != ' ')
		http_set_fault(head, HTTP_FAULT_START_LINE);
	for (k = i; k < end && k < i + 3 && http_is(p[k], HTTP_C_DIGIT); k++)
		status = status * 10 + (unsigned int)(p[k] - '0');
	/* "HTTP/1.1 200" without the blank behind is common, and clear */
	if (k != i + 3 || (k < end && p[k] != ' ')) {
		http_set_fault(head, HTTP_FAULT_START_LINE);
		return;
	}
	head->status = (uint16_t)status;
	if (status < 100 || status > 599)
		http_set_fault(head, HTTP_FAULT_START_LINE);
}

/* A request line that the short way did not take: p[i..end). */
static void odd_request_line(const char *p, size_t i, size_t end, struct http_head *head)
{
	size_t k, last, to;

	k = skip_blanks(p, i, end);
	to = trim_blanks(p, k, end);
	if (k != i || to != end)
		http_set_fault(head, HTTP_FAULT_START_LINE);
	i = k;
	while (k < to && !http_is_blank(p[k]))
		k++;
	head->method = slice(i, k);
	if (k == i || http_skip_token(p, i, k) != k)
		http_set_fault(head, HTTP_FAULT_START_LINE);
	i = skip_blanks(p, k, to);
	if (i != k + 1 || p[k] != ' ')
		http_set_fault(head, HTTP_FAULT_START_LINE);
	/* the version is the last word, if it looks like one */
	for (last = to; last > i && !http_is_blank(p[last - 1]);)
		last--;
	if (starts_with_http(p, last, to)) {
		k = trim_blanks(p, i, last);
		if (last != k + 1 || p[k] != ' ')
			http_set_fault(head, HTTP_FAULT_START_LINE);
		version(p, last, to, head);
	} else {
		k = to;
		head->major = 0;
		head->minor = 9;
	}
	head->target = slice(i, k);
	if (k == i || memchr(p + i, ' ', k - i) || memchr(p + i, '\t', k - i))
		http_set_fault(head, HTTP_FAULT_START_LINE);
	if (head->version.len == 0)
		http_set_fault(head, HTTP_FAULT_VERSION);
}

/* Parses the line at i and returns where the next one begins. */
static size_t start_line(const char *p, size_t i, size_t len, struct http_head *head)
{
	size_t method, target, end, next;

	head->kind = HTTP_REQUEST;
	method = http_skip_token(p, i, len);
	if (likely(method > i && method < len && p[method] == ' ')) {
		target = http_find(p, method + 1, len, HTTP_TO_BLANK);
		if (likely(target > method + 1 && len - target >= 10 &&
			    memcmp(p + target, " HTTP/1.", 8) == 0 &&
			    (p[target + 8] == '1' || p[target + 8] == '0'))) {
			end = target + 9;
			next = end + empty_line(p, end, len);
			if (likely(next > end)) {
				head->method = slice(i, method);
				head->target = slice(method + 1, target);
				head->version = slice(end - 3, end);
				head->major = 1;
				head->minor = (uint8_t)(p[end - 1] - '0');
				http_check_target(p, head);
				return next;
			}
		}
	}
	end = line_end(p, i, len, &next, head);
	if (status_line(p, i, end, head))
		return next;
	if (starts_with_http(p, i, end)) {
		odd_status_line(p, i, end, head);
	} else {
		odd_request_line(p, i, end, head);
		http_check_target(p, head);
	}
	return next;
}

/* ---- fields ---- */

static inline uint64_t load8(const char *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return v | 0x2020202020202020;
}

static inline uint32_t load4(const char *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return v | 0x20202020;
}

/* name is a token of literal's length, and literal is of lower-case letters and '-', at least 4. */
static inline __attribute__((always_inline)) bool same(
	const char *name, const char *literal, size_t len)
{
	if (len > 16 && load8(name + 8) != load8(literal + 8))
		return false;
	if (len >= 8)
		return load8(name) == load8(literal) &&
		       load8(name + len - 8) == load8(literal + len - 8);
	return load4(name) == load4(literal) && load4(name + len - 4) == load4(literal + len - 4);
}

#define SAME(name, literal) same(name, literal, sizeof(literal) - 1)

/* The field names that matter here all differ in length. -1: another name. */
static inline int known_of(const char *name, size_t len)
{
	switch (len) {
	case 4:
		return SAME(name, "host") ? HTTP_HOST : -1;
	case 6:
		return SAME(name, "expect") ? HTTP_EXPECT : -1;
	case 7:
		return SAME(name, "upgrade") ? HTTP_UPGRADE : -1;
	case 10:
		return SAME(name, "connection") ? HTTP_CONNECTION : -1;
	case 12:
		return SAME(name, "content-type") ? HTTP_CONTENT_TYPE : -1;
	case 14:
		return SAME(name, "content-length") ? HTTP_CONTENT_LENGTH : -1;
	case 16:
		return SAME(name, "content-encoding") ? HTTP_CONTENT_ENCODING : -1;
	case 17:
		return SAME(name, "transfer-encoding") ? HTTP_TRANSFER_ENCODING : -1;
	default:
		return -1;
	}
}

/* The field whose value may still be continued by the next line. */
struct current {
	struct http_field *field; /* NULL: none yet */
	int known;		  /* enum http_known, or -1 */
	struct http_field spare;  /* where it is if the caller has no room for it */
};

static inline struct http_field *new_field(struct http_head *head, struct current *current)
{
	if (likely(head->n_fields < head->max_fields)) {
		current->field = &head->fields[head->n_fields++];
	} else {
		http_set_fault(head, HTTP_FAULT_TOO_MANY_FIELDS);
		current->field = &current->spare;
	}
	current->known = -1;
	return current->field;
}

static inline void set_known(struct http_head *head, struct current *current, int known)
{
	uint32_t index = head->n_fields - 1;

	current->known = known;
	if (known >= 0 && head->known[known] < 0 && current->field != &current->spare &&
		index <= INT16_MAX)
		head->known[known] = (int16_t)index;
}

/* A line p[i..end) that does not begin with a token and a colon. */
static void odd_field(
	const char *p, size_t i, size_t end, struct http_head *head, struct current *current)
{
	bool indented = http_is_blank(p[i]);
	struct http_field *field;
	size_t colon, from, to;
	const char *at;

	if (indented) {
		http_set_fault(head, HTTP_FAULT_FOLDING);
		from = skip_blanks(p, i, end);
		to = trim_blanks(p, from, end);
		if (from == to)
			return;
		if (current->field) {
			field = current->field;
			if (field->value.len > 0)
				from = field->value.off;
			field->value = slice(from, to);
			return;
		}
		i = from;
	}
	at = memchr(p + i, ':', end - i);
	colon = at ? (size_t)(at - p) : end;
	to = trim_blanks(p, i, colon);
	from = skip_blanks(p, MIN(colon + 1, end), end);
	field = new_field(head, current);
	field->name = slice(i, to);
	field->value = slice(from, trim_blanks(p, from, end));
	/* blanks before the colon hide nothing from us; a line indented below the start line counts
	 * for nothing (RFC 9112, 2.2) */
	if (at && to > i && http_skip_token(p, i, to) == to) {
		if (!indented)
			set_known(head, current, known_of(p + i, to - i));
		if (to == colon)
			return;
	}
	http_set_fault(head, HTTP_FAULT_FIELD);
}

/*
 * Parses the line at i and returns where the next one begins. That is found first and on its own,
 * so that a processor can begin with the next line while it still works on this one.
 */
static inline size_t field_line(
	const char *p, size_t i, size_t len, struct http_head *head, struct current *current)
{
	size_t next, end = line_end(p, i, len, &next, head);
	size_t colon = http_skip_token(p, i, len), from;
	struct http_field *field;

	if (current->known >= 0 && !http_is_blank(p[i]))
		http_known_value(p, head, (enum http_known)current->known, current->field->value);
	if (unlikely(colon == len || p[colon] != ':' || colon == i)) {
		odd_field(p, i, end, head, current);
		return next;
	}
	from = skip_blanks(p, colon + 1, end);
	field = new_field(head, current);
	field->name = slice(i, colon);
	field->value = slice(from, trim_blanks(p, from, end));
	set_known(head, current, known_of(p + i, colon - i));
	return next;
}

/* Member by member: clearing it as a whole is a slow instruction. */
static inline void reset(struct http_head *head)
{
	head->n_fields = head->size = 0;
	head->kind = HTTP_REQUEST;
	head->fault = HTTP_OK;
	head->major = head->minor = 0;
	head->status = 0;
	head->method = head->target = head->version = slice(0, 0);
	memset(head->known, 0xff, sizeof(head->known)); /* -1 */
	head->private_flags = 0;
	head->private_length = 0;
}

void http_head_parse(const char *p, size_t len, struct http_head *head)
{
	struct current current = {.known = -1};
	size_t i = 0, n;

	len = MIN(len, (size_t)UINT32_MAX);
	reset(head);
	while ((n = empty_line(p, i, len)) > 0)
		i += n;
	i = start_line(p, i, len, head);
	while (i < len) {
		n = empty_line(p, i, len);
		if (n == 0 && p[i] == '\r' && i + 1 == len)
			n = 1;
		if (n > 0) {
			i += n;
			break;
		}
		i = field_line(p, i, len, head, &current);
	}
	if (current.known >= 0)
		http_known_value(p, head, (enum http_known)current.known, current.field->value);
	http_head_done(head);
	head->size = (uint32_t)i;
}
