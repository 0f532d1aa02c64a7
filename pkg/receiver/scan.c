/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#ifdef __SSE2__
#	include <emmintrin.h>
#endif

#include "pkg/receiver/scan.h"

/* Exactly what Number.MAX_SAFE_INTEGER is: more is not a number any more to many readers. */
#define NUMBER_MAX UINT64_C(9007199254740991)

enum kind { KIND_TEXT, KIND_NUMBER, KIND_HEADERS, KIND_REQUEST };

struct key {
	struct span name;
	enum kind kind;
	uint32_t at; /* enum message_text, enum message_number */
	uint64_t max;
	const char *must; /* of the ten: what is said if it is not so */
};

#define PORT 65535

/* In the order in which the loader writes them, so that the next key is mostly the one expected. */
static const struct key keys[] = {
	{SPAN("direction"), KIND_NUMBER, MSG_DIRECTION, 1, "must be 0 or 1"},
	{SPAN("timing_ms"), KIND_NUMBER, MSG_TIMING_MS, NUMBER_MAX,
		"must be a whole number, not negative"},
	{SPAN("remote_ip"), KIND_TEXT, MSG_REMOTE_IP, 0, "must be a string"},
	{SPAN("remote_port"), KIND_NUMBER, MSG_REMOTE_PORT, PORT, "must be a number of 0 to 65535"},
	{SPAN("method"), KIND_TEXT, MSG_METHOD, 0, "must be a string"},
	{SPAN("path"), KIND_TEXT, MSG_PATH, 0, "must be a string"},
	{SPAN("status_code"), KIND_NUMBER, MSG_STATUS_CODE, 65535,
		"must be a number of 0 to 65535"},
	{SPAN("version"), KIND_TEXT, MSG_VERSION, 0, "must be a string"},
	{SPAN("headers"), KIND_HEADERS, 0, 0, "must be an object of arrays of strings"},
	{SPAN("body"), KIND_TEXT, MSG_BODY, 0, "must be a string"},
	{SPAN("src_ip"), KIND_TEXT, MSG_SRC_IP, 0, NULL},
	{SPAN("src_port"), KIND_NUMBER, MSG_SRC_PORT, PORT, NULL},
	{SPAN("dst_ip"), KIND_TEXT, MSG_DST_IP, 0, NULL},
	{SPAN("dst_port"), KIND_NUMBER, MSG_DST_PORT, PORT, NULL},
	{SPAN("node"), KIND_TEXT, MSG_NODE, 0, NULL},
	{SPAN("comm"), KIND_TEXT, MSG_COMM, 0, NULL},
	{SPAN("namespace"), KIND_TEXT, MSG_NAMESPACE, 0, NULL},
	{SPAN("pod"), KIND_TEXT, MSG_POD, 0, NULL},
	{SPAN("exchange_id"), KIND_TEXT, MSG_EXCHANGE_ID, 0, NULL},
	{SPAN("body_bytes"), KIND_NUMBER, MSG_BODY_BYTES, NUMBER_MAX, NULL},
	{SPAN("error"), KIND_TEXT, MSG_ERROR, 0, NULL},
	{SPAN("latency_us"), KIND_NUMBER, MSG_LATENCY_US, NUMBER_MAX, NULL},
	{SPAN("request"), KIND_REQUEST, 0, 0, NULL},
};

#define REQUIRED ((1U << 10) - 1) /* the first ten keys */

/* ---- errors: the place is worked out only when it is wanted ---- */

static int wrong_at(struct scan *s, const char *at, const char *subject, const char *what)
{
	size_t line = 1;
	const char *begin = s->begin;

	for (const char *p; (p = memchr(begin, '\n', (size_t)(at - begin))); begin = p + 1)
		line++;
	s->p = s->end;
	return err_set(s->err, EBADMSG, "line %zu, column %zu: %s%s%s", line,
		(size_t)(at - begin) + 1, subject, subject[0] ? " " : "", what);
}

static int wrong_key(struct scan *s, const char *at, const struct key *key, const char *what)
{
	char subject[32];

	snprintf(subject, sizeof(subject), "`%.*s`", (int)key->name.len, key->name.p);
	return wrong_at(s, at, subject, what);
}

static int wrong(struct scan *s, const char *what)
{
	if (s->p == s->end)
		return wrong_at(s, s->p, "", "it ends too early");
	return wrong_at(s, s->p, "", what);
}

/* ---- tokens ---- */

static void skip_space(struct scan *s)
{
	const char *begin = s->p;

	while (s->p < s->end && (*s->p == ' ' || *s->p == '\n' || *s->p == '\r' || *s->p == '\t'))
		s->p++;
	s->space += (size_t)(s->p - begin);
}

/* Bytes of a string up to the first that needs a look: quote, backslash, control, not ASCII. */
static const char *skip_plain(const char *p, const char *end)
{
#ifdef __SSE2__
	const __m128i quote = _mm_set1_epi8('"'), backslash = _mm_set1_epi8('\\'),
		      space = _mm_set1_epi8(0x20);

	while (end - p >= 16) {
		__m128i x = _mm_loadu_si128((const __m128i *)(const void *)p);
		/* signed: what is not ASCII is less than a blank as well */
		__m128i special = _mm_or_si128(_mm_cmplt_epi8(x, space),
			_mm_or_si128(_mm_cmpeq_epi8(x, quote), _mm_cmpeq_epi8(x, backslash)));
		int mask = _mm_movemask_epi8(special);

		if (mask)
			return p + __builtin_ctz((unsigned int)mask);
		p += 16;
	}
#endif
	while (p < end && (signed char)*p >= 0x20 && *p != '"' && *p != '\\')
		p++;
	return p;
}

/* The sequence at p, 0 if it is none. */
static size_t utf8_sequence(const char *p, const char *end)
{
	unsigned char c = (unsigned char)*p;
	size_t len = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : 2;

	if ((size_t)(end - p) < len || utf8_valid(p, len) != len)
		return 0;
	return len;
}

static bool is_hex(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* At the backslash. */
static int skip_escape(struct scan *s)
{
	size_t left = (size_t)(s->end - s->p);

	if (left < 2) {
		s->p = s->end;
		return wrong(s, "");
	}
	if (s->p[1] != 'u') {
		if (!memchr("\"\\/bfnrt", s->p[1], 8))
			return wrong(s, "no such escape sequence");
		s->p += 2;
		return 0;
	}
	for (size_t i = 2; i < 6; i++) {
		if (i >= left) {
			s->p = s->end;
			return wrong(s, "");
		}
		if (!is_hex(s->p[i]))
			return wrong(s, "\\u needs four hexadecimal digits");
	}
	s->p += 6;
	return 0;
}

/* At the opening quote; ret_text is what is between the quotes. */
static int take_string(struct scan *s, struct span *ret_text)
{
	const char *begin = ++s->p;

	for (;;) {
		size_t n;
		int r;

		s->p = skip_plain(s->p, s->end);
		if (s->p == s->end)
			return wrong(s, "");
		if (*s->p == '"')
			break;
		if (*s->p == '\\') {
			r = skip_escape(s);
			if (r < 0)
				return r;
			continue;
		}
		if ((unsigned char)*s->p < 0x20)
			return wrong(s, "a control character within a string");
		n = utf8_sequence(s->p, s->end);
		if (n == 0)
			return wrong_at(s, s->p, "", "not UTF-8");
		s->p += n;
	}
	*ret_text = span_of(begin, (size_t)(s->p - begin));
	s->p++;
	return 0;
}

static bool is_digit(const struct scan *s)
{
	return s->p < s->end && *s->p >= '0' && *s->p <= '9';
}

static int skip_digits(struct scan *s)
{
	if (!is_digit(s))
		return wrong(s, "a digit is missing");
	while (is_digit(s))
		s->p++;
	return 0;
}

static int skip_number(struct scan *s)
{
	int r = 0;

	if (*s->p == '-')
		s->p++;
	if (s->p < s->end && *s->p == '0')
		s->p++;
	else
		r = skip_digits(s);
	if (r == 0 && s->p < s->end && *s->p == '.') {
		s->p++;
		r = skip_digits(s);
	}
	if (r == 0 && s->p < s->end && (*s->p == 'e' || *s->p == 'E')) {
		s->p++;
		if (s->p < s->end && (*s->p == '+' || *s->p == '-'))
			s->p++;
		r = skip_digits(s);
	}
	return r;
}

static int skip_word(struct scan *s, struct span word)
{
	if ((size_t)(s->end - s->p) < word.len || memcmp(s->p, word.p, word.len) != 0)
		return wrong_at(s, s->p, "", "not a JSON value");
	s->p += word.len;
	return 0;
}

/* ---- values ---- */

static int skip_value(struct scan *s, unsigned int depth);

/* Between the elements of an array or an object. 1: there is another, 0: it is closed. */
static int next_element(struct scan *s, bool *first, char close)
{
	skip_space(s);
	if (s->p < s->end && *s->p == close) {
		s->p++;
		return 0;
	}
	if (!*first) {
		if (s->p == s->end || *s->p != ',')
			return wrong(s,
				close == ']' ? "',' or ']' is missing" : "',' or '}' is missing");
		s->p++;
		skip_space(s);
	}
	*first = false;
	if (s->p == s->end)
		return wrong(s, "");
	return 1;
}

/* The next key and its colon, in an object whose white space does not matter yet. */
static int next_key(struct scan *s, bool *first, struct span *ret_key)
{
	int r = next_element(s, first, '}');

	if (r <= 0)
		return r;
	if (*s->p != '"')
		return wrong(s, "a key is missing");
	r = take_string(s, ret_key);
	if (r < 0)
		return r;
	skip_space(s);
	if (s->p == s->end || *s->p != ':')
		return wrong(s, "':' is missing");
	s->p++;
	skip_space(s);
	return s->p == s->end ? wrong(s, "") : 1;
}

static int skip_array(struct scan *s, unsigned int depth)
{
	bool first = true;
	int r;

	s->p++;
	while ((r = next_element(s, &first, ']')) > 0) {
		r = skip_value(s, depth);
		if (r < 0)
			return r;
	}
	return r;
}

static int skip_object(struct scan *s, unsigned int depth)
{
	bool first = true;
	struct span key;
	int r;

	s->p++;
	while ((r = next_key(s, &first, &key)) > 0) {
		r = skip_value(s, depth);
		if (r < 0)
			return r;
	}
	return r;
}

/* depth: of what the value is in. */
static int skip_value(struct scan *s, unsigned int depth)
{
	struct span text;

	if (s->p == s->end)
		return wrong(s, "");
	switch (*s->p) {
	case '"':
		return take_string(s, &text);
	case '{':
	case '[':
		if (depth == SCAN_DEPTH)
			return wrong(s, "nested too deeply");
		return *s->p == '{' ? skip_object(s, depth + 1) : skip_array(s, depth + 1);
	case 't':
		return skip_word(s, SPAN("true"));
	case 'f':
		return skip_word(s, SPAN("false"));
	case 'n':
		return skip_word(s, SPAN("null"));
	default:
		if (*s->p == '-' || is_digit(s))
			return skip_number(s);
		return wrong(s, "not a JSON value");
	}
}

/* ---- what is known of a message ---- */

/* A whole number up to max. 1, or 0: it is something else, nothing is read. */
static int take_number(struct scan *s, uint64_t max, uint64_t *ret_value)
{
	const char *p = s->p;
	uint64_t value = 0;

	if (p < s->end && *p == '0') {
		p++;
	} else {
		for (; p < s->end && *p >= '0' && *p <= '9'; p++) {
			value = value * 10 + (uint64_t)(*p - '0');
			if (value > max)
				return 0;
		}
	}
	if (p == s->p || value > max)
		return 0;
	if (p < s->end && ((*p >= '0' && *p <= '9') || *p == '.' || *p == 'e' || *p == 'E'))
		return 0;
	s->p = p;
	*ret_value = value;
	return 1;
}

static int take_headers(struct scan *s, struct message *m, const struct key *key)
{
	bool first = true, first_value;
	struct span name, value;
	int r;

	s->p++;
	while ((r = next_key(s, &first, &name)) > 0) {
		bool is_host = !m->text[MSG_HOST].p && span_eq_nocase(name, SPAN("Host"));

		if (*s->p != '[')
			return wrong_key(s, s->p, key, key->must);
		s->p++;
		first_value = true;
		while ((r = next_element(s, &first_value, ']')) > 0) {
			if (*s->p != '"')
				return wrong_key(s, s->p, key, key->must);
			r = take_string(s, &value);
			if (r < 0)
				return r;
			if (is_host && !m->text[MSG_HOST].p)
				m->text[MSG_HOST] = value;
		}
		if (r < 0)
			return r;
	}
	return r;
}

static int take_request(struct scan *s, struct message *m)
{
	static const struct span names[] = {SPAN("method"), SPAN("path"), SPAN("host")};
	bool first = true;
	struct span name;
	int r;

	s->p++;
	while ((r = next_key(s, &first, &name)) > 0) {
		struct span ignored, *out = &ignored;

		for (size_t i = 0; i < ARRAY_SIZE(names); i++)
			if (span_eq(name, names[i]))
				out = &m->text[MSG_REQUEST_METHOD + i];
		r = *s->p == '"' ? take_string(s, out) : skip_value(s, 2);
		if (r < 0)
			return r;
	}
	return r;
}

static int take_value(struct scan *s, struct message *m, const struct key *key)
{
	switch (key->kind) {
	case KIND_TEXT:
		if (*s->p == '"')
			return take_string(s, &m->text[key->at]);
		break;
	case KIND_NUMBER:
		if (take_number(s, key->max, &m->number[key->at])) {
			m->has |= 1U << key->at;
			return 0;
		}
		break;
	case KIND_HEADERS:
		if (*s->p == '{')
			return take_headers(s, m, key);
		break;
	case KIND_REQUEST:
		if (*s->p == '{')
			return take_request(s, m);
		break;
	}
	if (!key->must)
		return skip_value(s, 1);
	return wrong_key(s, s->p, key, key->must);
}

/* hint: where the key is likely to be; moves behind it. */
static const struct key *find_key(struct span name, size_t *hint)
{
	for (size_t n = 0, i = *hint; n < ARRAY_SIZE(keys); n++, i++) {
		if (i >= ARRAY_SIZE(keys))
			i = 0;
		if (keys[i].name.len == name.len && memcmp(keys[i].name.p, name.p, name.len) == 0) {
			*hint = i + 1;
			return &keys[i];
		}
	}
	return NULL;
}

static int take_known(struct scan *s, struct message *m, const struct key *key, uint32_t *seen)
{
	uint32_t bit = 1U << (key - keys);

	if (key->must && *seen & bit)
		return wrong_key(s, s->p, key, "is there twice");
	*seen |= bit;
	return take_value(s, m, key);
}

/* At the { of a message. */
static int take_message(struct scan *s, struct message *m)
{
	const char *begin = s->p;
	size_t space = s->space, hint = 0;
	bool first = true;
	uint32_t seen = 0;
	struct span name;
	int r;

	*m = (struct message){.json = {begin, 0}};
	s->p++;
	while ((r = next_key(s, &first, &name)) > 0) {
		const struct key *key = find_key(name, &hint);

		r = key ? take_known(s, m, key, &seen) : skip_value(s, 1);
		if (r < 0)
			return r;
	}
	if (r < 0)
		return r;
	if ((seen & REQUIRED) != REQUIRED)
		return wrong_key(s, begin, &keys[__builtin_ctz(~seen)], "is missing");
	m->json.len = (size_t)(s->p - begin);
	m->spaced = s->space != space;
	return 0;
}

/* ---- the body ---- */

void scan_init(struct scan *s, struct span body, struct err *err)
{
	*s = (struct scan){.begin = body.p, .p = body.p, .end = body.p + body.len, .err = err};
}

/* To the next message of an array. 1: there is one, 0: the array is over, and so is the body. */
static int next_in_array(struct scan *s, bool *first)
{
	int r = next_element(s, first, ']');

	if (r != 0)
		return r;
	s->array = false;
	skip_space(s);
	return s->p < s->end ? wrong(s, "something stands behind the array") : 0;
}

/* The same where there is no array around the messages. */
static int next_in_lines(struct scan *s, bool first)
{
	const char *begin = s->p;

	skip_space(s);
	if (s->p == s->end)
		return first ? wrong_at(s, s->p, "", "there is no message") : 0;
	if (!first && !memchr(begin, '\n', (size_t)(s->p - begin)))
		return wrong(s, "something stands behind the object on its line");
	return 1;
}

int scan_next(struct scan *s, struct message *ret_message)
{
	bool first = !s->started;
	int r;

	if (s->p == s->end && s->started && !s->array)
		return 0;
	if (first) {
		skip_space(s);
		s->array = s->p < s->end && *s->p == '[';
		if (s->array)
			s->p++;
		s->started = true;
	}
	r = s->array ? next_in_array(s, &first) : next_in_lines(s, first);
	if (r <= 0)
		return r;
	if (*s->p != '{')
		return wrong(s, "a message must be a JSON object");
	r = take_message(s, ret_message);
	return r < 0 ? r : 1;
}

int scan_compact(struct span json, struct buf *out)
{
	struct scan s;
	struct span text;
	int r;

	/* it has been checked */
	scan_init(&s, json, NULL);
	while (s.p < s.end) {
		const char *begin;

		skip_space(&s);
		begin = s.p;
		while (s.p < s.end && !strchr(" \n\r\t", *s.p)) {
			if (*s.p != '"')
				s.p++;
			else if (take_string(&s, &text) < 0)
				return -EBADMSG;
		}
		r = buf_append(out, begin, (size_t)(s.p - begin));
		if (r < 0)
			return r;
	}
	return 0;
}

struct span scan_cut(struct span text, size_t max)
{
	size_t len = 0;

	if (text.len <= max)
		return text;
	while (len < max) {
		unsigned char c = (unsigned char)text.p[len];
		size_t n = c >= 0xf0		    ? 4
			   : c >= 0xe0		    ? 3
			   : c >= 0xc0		    ? 2
			   : c != '\\'		    ? 1
			   : text.p[len + 1] == 'u' ? 6
						    : 2;

		if (len + n > max)
			break;
		len += n;
	}
	return span_of(text.p, len);
}
