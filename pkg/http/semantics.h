/* SPDX-License-Identifier: Apache-2.0 */
/* Private to the room: what the parts of a head mean. Called while it is parsed. */
#ifndef EBPFDUMP_HTTP_SEMANTICS_H
#define EBPFDUMP_HTTP_SEMANTICS_H

#include "pkg/http/http.h"

/* The first fault stays. */
static inline void http_set_fault(struct http_head *head, enum http_fault fault)
{
	if (head->fault == HTTP_OK)
		head->fault = fault;
}

/* The target has a form that RFC 9112, 3.2 knows, and that goes with the method. */
void http_check_target(const char *p, struct http_head *head);
/* A field of a known name is complete. */
void http_known_value(
	const char *p, struct http_head *head, enum http_known known, struct http_slice value);
/* All fields are known. */
void http_head_done(struct http_head *head);

#endif
