/* SPDX-License-Identifier: Apache-2.0 */
/*
 * secrets: header lines and the signing key, from files that may change at any time. Internal to
 * this room. Their content is in no log and no error.
 */
#ifndef EBPFDUMP_SINK_SECRETS_H
#define EBPFDUMP_SINK_SECRETS_H

#include "pkg/base/base.h"

#define SECRETS_LINES_MAX     64
#define SECRETS_FILE_MAX      (64 << 10)
#define SECRETS_KEY_MIN	      16
#define SECRETS_KEY_MAX	      4096
#define SECRETS_SIGNATURE_LEN 71 /* "sha256=" and 64 hexadecimal digits */

struct secrets;

/*
 * Paths may be NULL; they are copied. Reads the files; one that cannot be used is logged, and
 * secrets_ready() is false until it can. -ENOMEM.
 */
int secrets_new(const char *header_file, const char *hmac_file, struct secrets **ret_secrets,
	struct err *err) MUST_CHECK;
void secrets_free(struct secrets *s);
/* What stands behind the ? of the URL may be a secret, too: secrets_hide() hides it and each of its
 * values. -ENOMEM. */
int secrets_query(struct secrets *s, const char *url) MUST_CHECK;

/*
 * Looks whether the files changed, and reads them. A file that cannot be used any more is logged
 * once, and what was read before stays in use. Returns whether anything is different now. Blocks as
 * long as the file system does.
 */
bool secrets_reload(struct secrets *s);
bool secrets_ready(const struct secrets *s);

/* The lines ("Name: value", or "Name;" for an empty value, as libcurl has it); until the next
 * reload. */
size_t secrets_lines(const struct secrets *s, const char *const **ret_lines);

/* ---- the signature of a body, in pieces ---- */

bool secrets_signs(const struct secrets *s);
/* Each is false if libcrypto fails. */
bool secrets_sign_begin(struct secrets *s) MUST_CHECK;
bool secrets_sign_add(struct secrets *s, struct span piece) MUST_CHECK;
/* NUL-terminated. */
bool secrets_sign_end(struct secrets *s, char out[SECRETS_SIGNATURE_LEN + 1]) MUST_CHECK;

/* Puts '*' over what may be (the beginning of) a secret: answers of servers repeat what they got.
 */
void secrets_hide(const struct secrets *s, char *text, size_t len);

#endif
