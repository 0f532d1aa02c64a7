/* SPDX-License-Identifier: Apache-2.0 */
/* What the sinks have in common with the interface. */
#ifndef EBPFDUMP_SINK_INTERNAL_H
#define EBPFDUMP_SINK_INTERNAL_H

#include "pkg/sink/sink.h"

/* As in sink.h. NULL where there is nothing to do. */
struct sink_ops {
	int (*write)(struct sink *sink, const struct sink_message *message);
	void (*kick)(struct sink *sink);
	void (*wait)(struct sink *sink, uint64_t most_bytes);
	uint64_t (*flush)(struct sink *sink, uint64_t timeout_ms);
	void (*free)(struct sink *sink);
	void (*stats)(struct sink *sink, struct sink_stats *ret_stats);
	bool (*wants_bodies)(const struct sink *sink);
	int (*describe)(struct sink *sink, struct buf *out);
	const struct sink_callback_stats *(*callback_stats)(struct sink *sink);
};

/* The first member of each sink. */
struct sink {
	const struct sink_ops *ops;
};

#endif
