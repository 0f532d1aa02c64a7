/* SPDX-License-Identifier: Apache-2.0 */
/*
 * retry: what an answer means, and when to try again. Pure functions. Internal to this room.
 */
#ifndef EBPFDUMP_SINK_RETRY_H
#define EBPFDUMP_SINK_RETRY_H

#include "pkg/base/base.h"

#define RETRY_FIRST_MS	   500 /* the numbers: 0.5 s, twice as long each time, at most 30 s */
#define RETRY_MOST_MS	   30000
#define RETRY_AFTER_MAX_MS UINT64_C(300000) /* what a receiver may ask for: 5 minutes */

enum retry_verdict {
	RETRY_DELIVERED, /* 2xx */
	RETRY_AGAIN,	 /* 408, 425, 429, 5xx; and what is no status of a final answer */
	RETRY_NEVER,	 /* 3xx, other 4xx, what HTTP does not define */
};

enum retry_verdict retry_of_status(long status);

/* How long to wait after so many failed attempts (1: after the first): half of the backoff to all
 * of it, as random (any 64 bits) has it. */
uint64_t retry_backoff_ms(uint32_t attempts, uint64_t random);

/* The value of Retry-After: seconds, or a date in any of HTTP's three formats. At most
 * RETRY_AFTER_MAX_MS, 0 for what is past. now_s: Unix time. -EINVAL: it is neither. */
int retry_after(struct span value, uint64_t now_s, uint64_t *ret_ms);

#endif
