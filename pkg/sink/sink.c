/* SPDX-License-Identifier: Apache-2.0 */
#include "pkg/sink/internal.h"

const char *sink_drop_name(enum sink_drop reason)
{
	static const char *const names[SINK_DROP_MAX] = {
		"full", "closed", "shutdown", "refused", "damaged"};

	return (unsigned int)reason < SINK_DROP_MAX ? names[reason] : "unknown";
}

int sink_write_message(struct sink *sink, const struct sink_message *message)
{
	return sink->ops->write(sink, message);
}

int sink_write(struct sink *sink, const char *line, size_t len)
{
	struct sink_message message = {.line = span_of(line, len)};

	return sink->ops->write(sink, &message);
}

bool sink_wants_bodies(const struct sink *sink)
{
	return !sink->ops->wants_bodies || sink->ops->wants_bodies(sink);
}

void sink_kick(struct sink *sink)
{
	sink->ops->kick(sink);
}

void sink_wait(struct sink *sink, uint64_t most_bytes)
{
	sink->ops->wait(sink, most_bytes);
}

uint64_t sink_flush(struct sink *sink, uint64_t timeout_ms)
{
	return sink->ops->flush(sink, timeout_ms);
}

void sink_free(struct sink *sink)
{
	if (sink)
		sink->ops->free(sink);
}

void sink_freep(struct sink **sink)
{
	sink_free(*sink);
	*sink = NULL;
}

void sink_stats(struct sink *sink, struct sink_stats *ret_stats)
{
	sink->ops->stats(sink, ret_stats);
}

int sink_describe(struct sink *sink, struct buf *out)
{
	return sink->ops->describe ? sink->ops->describe(sink, out) : 0;
}

const struct sink_callback_stats *sink_callback_stats(struct sink *sink)
{
	return sink->ops->callback_stats ? sink->ops->callback_stats(sink) : NULL;
}
