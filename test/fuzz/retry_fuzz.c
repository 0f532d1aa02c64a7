/* SPDX-License-Identifier: Apache-2.0 */
/* Retry-After, whatever a receiver puts into it. The first 8 bytes are the present time. */
#include "pkg/sink/retry.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint64_t now = 0, ms = UINT64_MAX;
	size_t n = MIN(size, sizeof(now));

	memcpy(&now, data, n);
	if (retry_after(span_of((const char *)data + n, size - n), now, &ms) == 0) {
		if (ms > RETRY_AFTER_MAX_MS)
			__builtin_trap();
	} else if (ms != UINT64_MAX) {
		__builtin_trap();
	}
	return 0;
}
