/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include "pkg/base/base.h"

#define BUF_FIRST 256

void buf_done(struct buf *b)
{
	free(b->data);
	b->data = NULL;
	b->len = b->cap = 0;
}

int buf_reserve(struct buf *b, size_t more)
{
	size_t need, cap;
	char *data;

	if (more <= b->cap - b->len)
		return 0;
	if (b->len > b->max || more > b->max - b->len)
		return -ENOBUFS;
	need = b->len + more;
	cap = b->cap > b->max / 2 ? b->max : MAX(b->cap * 2, (size_t)BUF_FIRST);
	cap = MIN(MAX(cap, need), b->max);
	if (cap == SIZE_MAX)
		return -ENOMEM;
	/* One byte more than cap, for the NUL that vsnprintf() insists on. */
	data = realloc(b->data, cap + 1);
	if (!data)
		return -ENOMEM;
	b->data = data;
	b->cap = cap;
	return 0;
}

int buf_append(struct buf *b, const void *p, size_t len)
{
	int r;

	if (len == 0)
		return 0;
	r = buf_reserve(b, len);
	if (r < 0)
		return r;
	memcpy(b->data + b->len, p, len);
	b->len += len;
	return 0;
}

int buf_printf(struct buf *b, const char *fmt, ...)
{
	size_t room = b->cap - b->len;
	va_list ap;
	int n, r;

	va_start(ap, fmt);
	n = b->data ? vsnprintf(b->data + b->len, room + 1, fmt, ap) : vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0)
		return -EINVAL;
	if ((size_t)n > room) {
		r = buf_reserve(b, (size_t)n);
		if (r < 0)
			return r;
		va_start(ap, fmt);
		vsnprintf(b->data + b->len, (size_t)n + 1, fmt, ap);
		va_end(ap);
	}
	b->len += (size_t)n;
	return 0;
}

void buf_consume(struct buf *b, size_t n)
{
	if (n == 0)
		return;
	b->len -= n;
	if (b->len > 0)
		memmove(b->data, b->data + n, b->len);
}
