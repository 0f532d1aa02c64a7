/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a document ends is found by counting braces outside of strings; what it holds is json-c's
 * to say, of the whole. A document inside one piece is parsed where it is, without a copy.
 */
#include <errno.h>

#include "pkg/kube/kube.h"

#define KEEP_MAX ((size_t)64 << 10) /* of memory, between documents */

int kube_frames_init(struct kube_frames *f, size_t event_max)
{
	*f = (struct kube_frames){.buf = BUF_INIT(event_max)};
	/* An own count decides how deep: json-c's one counts otherwise. */
	f->tokener = json_tokener_new_ex(KUBE_JSON_DEPTH + 2);
	if (!f->tokener)
		return -ENOMEM;
	/* Not strict: json-c 0.18 then takes all that is not ASCII for control characters (its
	 * issue 875), and what an API server writes needs no strictness. */
	return 0;
}

void kube_frames_done(struct kube_frames *f)
{
	if (f->tokener)
		json_tokener_free(f->tokener);
	f->tokener = NULL;
	buf_done(&f->buf);
}

bool kube_frames_partial(const struct kube_frames *f)
{
	return f->depth > 0;
}

static int parse(struct kube_frames *f, const char *p, size_t len, kube_frame_fn fn, void *ctx)
{
	CLEANUP(json_putp)
	struct json_object *object = NULL;

	if (len > INT32_MAX)
		return -EMSGSIZE;
	if (utf8_valid(p, len) != len || memchr(p, '\0', len))
		return -EBADMSG;
	json_tokener_reset(f->tokener);
	object = json_tokener_parse_ex(f->tokener, p, (int)len);
	if (!object || json_tokener_get_parse_end(f->tokener) != len)
		return -EBADMSG;
	return fn(ctx, object, len);
}

/* Goes on in a document. Returns how many bytes of p belong to it; *ret_end: it ends there. */
static int scan(struct kube_frames *f, const char *p, size_t len, size_t *ret_used, bool *ret_end)
{
	size_t i = 0;

	*ret_end = false;
	while (i < len) {
		char c;

		if (f->in_string) {
			if (f->escaped) {
				f->escaped = false;
				i++;
				continue;
			}
			while (i < len && p[i] != '"' && p[i] != '\\')
				i++;
			if (i == len)
				break;
			if (p[i++] == '"')
				f->in_string = false;
			else
				f->escaped = true;
			continue;
		}
		c = p[i++];
		if (c == '"') {
			f->in_string = true;
		} else if (c == '{' || c == '[') {
			if (++f->depth > KUBE_JSON_DEPTH)
				return -EBADMSG;
		} else if ((c == '}' || c == ']') && --f->depth == 0) {
			*ret_end = true;
			break;
		}
	}
	*ret_used = i;
	return 0;
}

static int take(
	struct kube_frames *f, const char *p, size_t used, bool end, kube_frame_fn fn, void *ctx)
{
	int r;

	if (used > f->buf.max - f->buf.len)
		return -EMSGSIZE;
	if (end && f->buf.len == 0)
		return parse(f, p, used, fn, ctx);
	r = buf_append(&f->buf, p, used);
	if (r < 0)
		return r == -ENOBUFS ? -EMSGSIZE : r;
	if (!end)
		return 0;
	r = parse(f, f->buf.data, f->buf.len, fn, ctx);
	f->buf.len = 0;
	if (f->buf.cap > KEEP_MAX)
		buf_done(&f->buf);
	return r;
}

static int feed(struct kube_frames *f, const char *p, size_t len, kube_frame_fn fn, void *ctx)
{
	while (len > 0) {
		size_t used;
		bool end;
		int r;

		if (f->depth == 0) {
			if (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t') {
				p++;
				len--;
				continue;
			}
			if (*p != '{')
				return -EBADMSG;
		}
		r = scan(f, p, len, &used, &end);
		if (r == 0)
			r = take(f, p, used, end, fn, ctx);
		if (r < 0)
			return r;
		p += used;
		len -= used;
	}
	return 0;
}

int kube_frames_feed(struct kube_frames *f, const char *p, size_t len, kube_frame_fn fn, void *ctx)
{
	if (f->error == 0)
		f->error = feed(f, p, len, fn, ctx);
	return f->error;
}
