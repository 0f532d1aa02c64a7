/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "pkg/receiver/internal.h"

static char lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

static bool put(struct filter_text *t, const char *p, size_t len)
{
	if (len > sizeof(t->p) - t->len)
		return false;
	memcpy(t->p + t->len, p, len);
	t->len += len;
	return true;
}

/* As the loader's JSON has it, in lower case: what is looked for is looked for in JSON. */
static bool set_text(struct filter_text *t, const char *value)
{
	static const char escaped[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";
	char text[7];
	bool fits = true;

	t->len = 0;
	for (; fits && *value; value++) {
		const char *e = strchr(escaped, *value);
		size_t n;

		if (e)
			n = (size_t)snprintf(text, sizeof(text), "\\%c", letters[e - escaped]);
		else if ((unsigned char)*value < 0x20)
			n = (size_t)snprintf(text, sizeof(text), "\\u%04x", (unsigned char)*value);
		else
			n = (size_t)snprintf(text, sizeof(text), "%c", lower(*value));
		fits = put(t, text, n);
	}
	return fits;
}

static bool valid_status(const char *value)
{
	return strcmp(value, "error") == 0 ||
	       (strlen(value) <= 3 && strspn(value, "0123456789xX") == strlen(value));
}

int filter_set(struct filter *f, const char *name, const char *value, struct err *err)
{
	const struct {
		const char *name;
		struct filter_text *text;
	} parts[] = {{"method", &f->method}, {"status", &f->status}, {"host", &f->host},
		{"path", &f->path}, {"node", &f->node}, {"seen", &f->seen}, {"q", &f->text}};

	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		if (strcmp(parts[i].name, name) != 0)
			continue;
		if (!set_text(parts[i].text, value))
			return err_set(
				err, EINVAL, "%s: longer than %d bytes", name, FILTER_TEXT_MAX);
		if (parts[i].text == &f->status && !valid_status(value))
			return err_set(err, EINVAL, "status: 404, 4xx, 4 or error");
		if (parts[i].text == &f->seen && value[0] && strcmp(value, "client") != 0 &&
			strcmp(value, "server") != 0)
			return err_set(err, EINVAL, "seen: client or server");
		return 1;
	}
	return 0;
}

static bool starts(struct span text, const struct filter_text *t)
{
	if (text.len < t->len)
		return false;
	for (size_t i = 0; i < t->len; i++)
		if (lower(text.p[i]) != t->p[i])
			return false;
	return true;
}

static bool contains(struct span text, const struct filter_text *t)
{
	char first, other;

	if (t->len == 0)
		return true;
	first = t->p[0];
	other = first >= 'a' && first <= 'z' ? (char)(first - 32) : first;
	while (text.len >= t->len) {
		if ((*text.p == first || *text.p == other) && starts(text, t))
			return true;
		text.p++;
		text.len--;
	}
	return false;
}

static bool match_status(const struct filter_text *t, uint64_t status)
{
	char digits[24];
	size_t len;

	if (t->len == 0)
		return true;
	if (t->p[0] == 'e')
		return status >= 400;
	len = num_format(digits, status);
	if (status == 0 || len < t->len)
		return false;
	for (size_t i = 0; i < t->len; i++)
		if (t->p[i] != 'x' && t->p[i] != digits[i])
			return false;
	return true;
}

static bool match_seen(const struct filter_text *t, const struct exchange *x)
{
	const struct kept *any = x->request ? x->request : x->response;

	return t->len == 0 || seen_by_client(&any->m) == (t->p[0] == 'c');
}

bool filter_match(const struct filter *f, const struct exchange *x)
{
	const struct kept *any = x->request ? x->request : x->response;

	return starts(exchange_method(x), &f->method) &&
	       match_status(&f->status, exchange_status(x)) &&
	       contains(exchange_host(x), &f->host) && contains(exchange_path(x), &f->path) &&
	       contains(any->m.text[MSG_NODE], &f->node) && match_seen(&f->seen, x) &&
	       (f->text.len == 0 || (x->request && contains(x->request->m.json, &f->text)) ||
		       (x->response && contains(x->response->m.json, &f->text)));
}
