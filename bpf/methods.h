/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * methods.h: does this look like the beginning of an HTTP/1.x message?
 *
 * A method of the IANA HTTP Method Registry and a blank, or "HTTP/1.". The first 16 bytes, as two
 * little-endian words, are compared under a mask; the two methods that are longer are told by their
 * first 16 bytes. "PRI" is HTTP/2's preface and not here.
 */
#ifndef EBPFDUMP_METHODS_H
#define EBPFDUMP_METHODS_H

#define B(s, i) ((i) < sizeof(s) - 1 ? (u64)(u8)(s)[(i) < sizeof(s) ? (i) : 0] : 0)
#define M(s, i) ((i) < sizeof(s) - 1 ? 0xffULL : 0)
#define WORD(f, s, o)                                                                             \
	(f(s, o) | f(s, o + 1) << 8 | f(s, o + 2) << 16 | f(s, o + 3) << 24 | f(s, o + 4) << 32 | \
		f(s, o + 5) << 40 | f(s, o + 6) << 48 | f(s, o + 7) << 56)
#define METHOD(s)                                    \
	{                                            \
		{WORD(B, s, 0), WORD(B, s, 8)},      \
		{                                    \
			WORD(M, s, 0), WORD(M, s, 8) \
		}                                    \
	}

struct method {
	u64 word[2];
	u64 mask[2];
};

/* The common ones first. */
static const struct method methods[] = {
	METHOD("HTTP/1."),
	METHOD("GET "),
	METHOD("POST "),
	METHOD("PUT "),
	METHOD("DELETE "),
	METHOD("HEAD "),
	METHOD("OPTIONS "),
	METHOD("PATCH "),
	METHOD("CONNECT "),
	METHOD("TRACE "),
	METHOD("QUERY "),
	METHOD("ACL "),
	METHOD("BASELINE-CONTROL "),
	METHOD("BIND "),
	METHOD("CHECKIN "),
	METHOD("CHECKOUT "),
	METHOD("COPY "),
	METHOD("LABEL "),
	METHOD("LINK "),
	METHOD("LOCK "),
	METHOD("MERGE "),
	METHOD("MKACTIVITY "),
	METHOD("MKCALENDAR "),
	METHOD("MKCOL "),
	METHOD("MKREDIRECTREF "),
	METHOD("MKWORKSPACE "),
	METHOD("MOVE "),
	METHOD("ORDERPATCH "),
	METHOD("PROPFIND "),
	METHOD("PROPPATCH "),
	METHOD("REBIND "),
	METHOD("REPORT "),
	METHOD("SEARCH "),
	METHOD("UNBIND "),
	METHOD("UNCHECKOUT "),
	METHOD("UNLINK "),
	METHOD("UNLOCK "),
	METHOD("UPDATE "),
	METHOD("UPDATEREDIRECTREF "),
	METHOD("VERSION-CONTROL "),
};

#undef B
#undef M
#undef WORD
#undef METHOD

#endif
