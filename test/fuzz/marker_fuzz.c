/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Values of the header X-Ebpfdump-Loader. The first byte chooses: a value as it comes, or one that
 * was made with the key and then changed in a few places (offset, what to add).
 */
#include <stdlib.h>

#include "pkg/marker/internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define NOW UINT64_C(1764042445)

#define CHECK(condition)          \
	do {                      \
		if (!(condition)) \
			abort();  \
	} while (0)

/* Each has a key of its own: the fuzzer learns what is compared, and would find out the codes of
 * one. */
static struct marker *marker(bool own)
{
	static struct marker *m[2];
	struct err err;

	if (!m[own])
		CHECK(marker_new(NULL, &m[own], &err) == 0);
	return m[own];
}

/* In memory of exactly its size. What can be read is what would be written. */
static void as_it_comes(const uint8_t *data, size_t size)
{
	static const struct marker_place place = {.has_seq = true, .seq = 7};
	char *exact = malloc(size ? size : 1), again[MARKER_VALUE_MAX + 1];
	struct value v;

	CHECK(exact);
	if (size)
		memcpy(exact, data, size);
	if (value_parse(span_of(exact, size), &v)) {
		CHECK(size <= MARKER_VALUE_MAX);
		CHECK(value_format(&v, again) == size);
		CHECK(memcmp(again, exact, size) == 0);
	}
	/* nobody guesses a key */
	CHECK(marker_check(marker(false), span_of(exact, size), &place, NOW, 1, 0) == MARKER_WRONG);
	CHECK(!marker_relayed(marker(false), span_of(exact, size), 0) || size <= MARKER_VALUE_MAX);
	free(exact);
}

static void changed(const uint8_t *data, size_t size)
{
	struct marker_place place = {.has_seq = size & 1, .has_ends = true, .seq = (uint32_t)size};
	char value[MARKER_VALUE_MAX + 1], before[MARKER_VALUE_MAX + 1];
	static uint64_t connection;
	enum marker_result r;
	size_t n;

	memcpy(place.ends, data, MIN(size, sizeof(place.ends)));
	n = marker_make(marker(true), &place, NOW, value);
	memcpy(before, value, sizeof(value));
	for (; size >= 2; data += 2, size -= 2)
		value[data[0] % n] = (char)(value[data[0] % n] + (char)data[1]);
	r = marker_check(marker(true), span_of(value, n), &place, NOW, ++connection, 1);
	CHECK((r == MARKER_ACCEPTED) == (memcmp(value, before, n) == 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0)
		return 0;
	if (data[0] & 1)
		changed(data + 1, size - 1);
	else
		as_it_comes(data + 1, size - 1);
	return 0;
}
