/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file of capture records, as --replay reads it: any bytes, through the reader, flow and the JSON
 * writer. The reader refuses what is damaged with an offset and a reason; what it lets through,
 * flow and dump must bear; the bytes of flow's ledger add up.
 */
#include <errno.h>
#include <stdlib.h>

#include "pkg/dump/dump.h"
#include "pkg/flow/flow.h"
#include "pkg/probe/probe.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct buf line = BUF_INIT(1U << 20);

static void on_message(void *ctx, const struct dump_message *message)
{
	static const struct dump_format json = {.node = "fuzz", .line_max = DUMP_LINE_MAX},
					text = {.node = "fuzz",
						.line_max = DUMP_LINE_MAX,
						.colour = true};

	line.len = 0;
	if (dump_json(&json, message, &line) || line.len > DUMP_LINE_MAX || line.len < 2 ||
		line.data[line.len - 1] != '\n')
		abort();
	line.len = 0;
	if (dump_text(&text, message, &line) || line.len < 1 || line.data[line.len - 1] != '\n')
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct capture_record *record;
	struct capture_reader *reader = NULL;
	const struct flow_stats *s;
	struct flow_options options;
	struct flow *flow = NULL;
	struct err err = {0};
	const char *bytes;
	int64_t offset;
	int r;

	r = capture_reader_open_memory(data, size, &reader, &err);
	if (r) {
		if (!strstr(err.text, "offset "))
			abort();
		return 0;
	}
	flow_options_default(&options);
	options.max_connections = 16;
	options.buffer_bytes = 1 << 20;
	if (flow_new(&options, on_message, NULL, &flow, &err))
		abort();
	while ((r = capture_reader_next(reader, &record, &bytes, &offset, &err)) == 1) {
		flow_record(flow, record, bytes, offset);
		flow_tick(flow, record->time_ns);
	}
	if (r != 0 && (r != -EBADMSG || !strstr(err.text, "offset ")))
		abort();
	flow_finish(flow);
	s = flow_stats(flow);
	if (s->bytes != s->bytes_parsed + s->bytes_repeated + s->bytes_unparsed +
				s->bytes_left_out + s->bytes_unfinished)
		abort();
	flow_free(flow);
	capture_reader_close(reader);
	return 0;
}
