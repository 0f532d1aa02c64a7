/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "pkg/base/base.h"

/* Formats beside err->text first: the arguments may point into it. */

int err_set(struct err *err, int code, const char *fmt, ...)
{
	char text[sizeof(err->text)];
	va_list ap;

	if (!err)
		return -code;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	err->code = code;
	memcpy(err->text, text, sizeof(text));
	return -code;
}

int err_wrap(struct err *err, const char *fmt, ...)
{
	char text[sizeof(err->text)];
	size_t len, room;
	va_list ap;
	int n;

	if (!err)
		return -EIO;
	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	len = n < 0 ? 0 : MIN((size_t)n, sizeof(text) - 1);
	room = sizeof(text) - 1 - len;
	memcpy(text + len, ": ", MIN(room, 2));
	len += MIN(room, 2);
	room = MIN(sizeof(text) - 1 - len, strnlen(err->text, sizeof(err->text)));
	memcpy(text + len, err->text, room);
	text[len + room] = '\0';
	memcpy(err->text, text, len + room + 1);
	return -err->code;
}
