/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ledger: where everything that passed went, as metrics. Once traffic pauses, exactly:
 *
 *   kernel:    seen bytes = captured + skipped{reason}         for each program
 *   records:   submitted = read + lost + waiting in the ring buffer
 *   bytes:     taken by flow = parsed + repeated + unparsed + left out + unfinished
 *   messages:  parsed = emitted + filtered + dropped{reason}
 *   delivery:  emitted + recovered = delivered + dropped{reason} + queued + spooled
 */
#include "cmd/loader/loader.h"

#include <errno.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

static const char *const skip_names[CAPTURE_SKIP_MAX] = {
	[CAPTURE_SKIP_OTHER] = "not_http",
	[CAPTURE_SKIP_OWN] = "own",
	[CAPTURE_SKIP_INTERFACE] = "interface",
	[CAPTURE_SKIP_LIMIT] = "limit",
	[CAPTURE_SKIP_PRESSURE] = "pressure",
	[CAPTURE_SKIP_RING_FULL] = "ring_full",
	[CAPTURE_SKIP_UNREADABLE] = "unreadable",
	[CAPTURE_SKIP_SEGMENTS] = "segments",
	[CAPTURE_SKIP_FAULT] = "fault",
	[CAPTURE_SKIP_TABLE_FULL] = "table_full",
};

static const char *const program_names[CAPTURE_P_MAX] = {"egress", "ingress", "state", "destroy"};

static void kernel_side(struct loader *l, struct metrics *m)
{
	struct probe_counters c = {0};

	/* not attached: nothing was seen */
	if (l->probe && probe_counters(l->probe, &c))
		return;
/* One family with a sample for each program. */
#define EACH(name, help, expression)                                                         \
	do {                                                                                 \
		metrics_family(m, name, METRICS_COUNTER, help);                              \
		for (int i = 0; i < CAPTURE_P_MAX; i++) {                                    \
			const struct capture_counters *p = &c.by_program[i];                 \
			(void)p;                                                             \
			metrics_u64(m, name, expression, "program", program_names[i], NULL); \
		}                                                                            \
	} while (0)
	EACH("ebpfdump_kernel_calls_total", "Hook hits that carried new bytes.", p->calls);
	EACH("ebpfdump_kernel_seen_bytes_total", "Bytes that passed a hook: captured plus skipped.",
		p->seen);
	EACH("ebpfdump_kernel_captured_bytes_total", "Bytes handed to user space.", p->captured);
	metrics_family(m, "ebpfdump_kernel_skipped_bytes_total", METRICS_COUNTER,
		"Bytes that passed a hook and were not captured, by reason.");
	for (int i = 0; i < CAPTURE_P_MAX; i++)
		for (int s = 0; s < CAPTURE_SKIP_MAX; s++)
			metrics_u64(m, "ebpfdump_kernel_skipped_bytes_total",
				c.by_program[i].skipped[s], "program", program_names[i], "reason",
				skip_names[s], NULL);
	EACH("ebpfdump_kernel_connections_total", "Connections for which state was made.",
		p->connections);
	EACH("ebpfdump_kernel_http_connections_total", "Connections found to be HTTP/1.",
		p->connections_http);
	EACH("ebpfdump_kernel_other_connections_total", "Connections found not to be HTTP/1.",
		p->connections_other);
	EACH("ebpfdump_kernel_not_understood_total",
		"Hook hits whose buffers or packet could not be understood.", p->not_placed);
	EACH("ebpfdump_kernel_missed_runs_total",
		"Runs of a program that the kernel left out (recursion).", c.missed[i]);
	EACH("ebpfdump_kernel_runs_total",
		"Runs of a program; counted by the kernel only while kernel.bpf_stats_enabled is 1.",
		c.runs[i]);
	metrics_family(m, "ebpfdump_kernel_run_seconds_total", METRICS_COUNTER,
		"Time in a program; measured by the kernel only while kernel.bpf_stats_enabled is 1.");
	for (int i = 0; i < CAPTURE_P_MAX; i++)
		metrics_f64(m, "ebpfdump_kernel_run_seconds_total", (double)c.run_ns[i] / 1e9,
			"program", program_names[i], NULL);
	EACH("ebpfdump_records_submitted_total",
		"Records meant for user space: read plus lost plus waiting.", p->submitted);
	EACH("ebpfdump_records_lost_total", "Records for which the ring buffer had no room.",
		p->lost);
	EACH("ebpfdump_ring_wakeups_total", "Times the kernel side woke the loader.", p->wakeups);
#undef EACH
	metrics_family(m, "ebpfdump_records_read_total", METRICS_COUNTER,
		"Records taken from the ring buffer.");
	metrics_u64(m, "ebpfdump_records_read_total", c.read, NULL);
	metrics_family(m, "ebpfdump_ring_size_bytes", METRICS_GAUGE, "Size of the ring buffer.");
	metrics_u64(m, "ebpfdump_ring_size_bytes", c.ring_bytes, NULL);
	metrics_family(m, "ebpfdump_ring_waiting_bytes", METRICS_GAUGE,
		"Bytes that wait in the ring buffer.");
	metrics_u64(m, "ebpfdump_ring_waiting_bytes", c.ring_waiting, NULL);
}

static void one(struct metrics *m, const char *name, enum metrics_type type, const char *help,
	uint64_t value)
{
	metrics_family(m, name, type, help);
	metrics_u64(m, name, value, NULL);
}

static void streams(const struct loader *l, struct metrics *m)
{
	const struct flow_stats *s = flow_stats(l->flow);

	one(m, "ebpfdump_flow_records_total", METRICS_COUNTER, "Records taken.", s->records);
	one(m, "ebpfdump_flow_bad_records_total", METRICS_COUNTER,
		"Records that contradict themselves.", s->records_bad);
	one(m, "ebpfdump_flow_bytes_total", METRICS_COUNTER, "Captured bytes taken.", s->bytes);
	one(m, "ebpfdump_flow_repeated_bytes_total", METRICS_COUNTER,
		"Captured bytes seen before (retransmissions, repeated calls).", s->bytes_repeated);
	one(m, "ebpfdump_flow_parsed_bytes_total", METRICS_COUNTER,
		"Captured bytes that are in a message.", s->bytes_parsed);
	one(m, "ebpfdump_flow_unfinished_bytes", METRICS_GAUGE,
		"Captured bytes in unfinished messages and held packets.", s->bytes_unfinished);
	one(m, "ebpfdump_flow_unparsed_bytes_total", METRICS_COUNTER,
		"Captured bytes that are in no message.", s->bytes_unparsed);
	one(m, "ebpfdump_flow_left_out_bytes_total", METRICS_COUNTER,
		"Captured bytes of loaders' own traffic, and of relayed messages left out.",
		s->bytes_left_out);
	one(m, "ebpfdump_flow_gap_bytes_total", METRICS_COUNTER,
		"Bytes that passed on HTTP connections but were not captured.", s->gap_bytes);
	metrics_family(m, "ebpfdump_messages_parsed_total", METRICS_COUNTER,
		"HTTP messages found: emitted plus filtered plus dropped.");
	metrics_u64(m, "ebpfdump_messages_parsed_total", s->parsed[HTTP_REQUEST], "kind", "request",
		NULL);
	metrics_u64(m, "ebpfdump_messages_parsed_total", s->parsed[HTTP_RESPONSE], "kind",
		"response", NULL);
	one(m, "ebpfdump_messages_faulty_total", METRICS_COUNTER, "Messages with an error.",
		s->faults);
	one(m, "ebpfdump_messages_unpaired_total", METRICS_COUNTER,
		"Responses whose request was not seen.", s->unpaired);
	one(m, "ebpfdump_messages_filtered_total", METRICS_COUNTER,
		"Messages left out by --direction, --message and --namespace.", l->filtered);
	metrics_family(m, "ebpfdump_messages_dropped_total", METRICS_COUNTER,
		"Messages that were not emitted, by reason: memory, there was none; own_marker, "
		"a loader's own (what follows on the connection is not even parsed); relayed, "
		"with a copied marker, beyond --relayed-rate, and their responses.");
	metrics_u64(m, "ebpfdump_messages_dropped_total", l->unwritable, "reason", "memory", NULL);
	metrics_u64(m, "ebpfdump_messages_dropped_total", s->ignored, "reason", "own_marker", NULL);
	metrics_u64(m, "ebpfdump_messages_dropped_total", s->left_out, "reason", "relayed", NULL);
	metrics_family(m, "ebpfdump_markers_total", METRICS_COUNTER,
		"Headers X-Ebpfdump-Loader found, by result: accepted (the connection is ignored), "
		"wrong, old, copied.");
	for (enum marker_result i = 0; i < MARKER_RESULT_MAX; i++)
		metrics_u64(m, "ebpfdump_markers_total", l->own.results[i], "result",
			marker_result_name(i), NULL);
	one(m, "ebpfdump_marker_key_file_ok", METRICS_GAUGE,
		"1 if what --marker-key-file holds is in use, 0 if it is not given or cannot be "
		"used.",
		l->own.marker && marker_file_ok(l->own.marker));
	one(m, "ebpfdump_flow_pending_dropped_total", METRICS_COUNTER,
		"Requests forgotten because too many were outstanding (--pending).",
		s->pending_dropped);
	one(m, "ebpfdump_flow_resyncs_total", METRICS_COUNTER,
		"Times a stream had to look for the next message.", s->resyncs);
	one(m, "ebpfdump_flow_held_total", METRICS_COUNTER,
		"Packets that came early and were held.", s->held);
	one(m, "ebpfdump_flow_evicted_total", METRICS_COUNTER,
		"Connections given up for newer ones (--connections).", s->evicted);
	one(m, "ebpfdump_flow_expired_total", METRICS_COUNTER,
		"Connections given up after a long silence (--idle).", s->expired);
	one(m, "ebpfdump_flow_over_memory_total", METRICS_COUNTER,
		"Times --buffer-bytes forced a message to be cut or given up.", s->over_memory);
	one(m, "ebpfdump_flow_connections_total", METRICS_COUNTER, "HTTP connections followed.",
		s->connections_total);
	one(m, "ebpfdump_flow_ignored_connections_total", METRICS_COUNTER,
		"Connections ignored for an accepted marker.", s->connections_ignored);
	one(m, "ebpfdump_flow_tunnels_total", METRICS_COUNTER,
		"Connections that left HTTP (101, CONNECT).", s->tunnels);
	one(m, "ebpfdump_flow_connections", METRICS_GAUGE, "HTTP connections followed now.",
		s->connections);
	one(m, "ebpfdump_flow_buffered_bytes", METRICS_GAUGE,
		"Memory in use for unfinished messages and held packets.", s->buffered);
}

static void delivery(const struct loader *l, struct metrics *m)
{
	struct sink_stats s = {0};

	if (!l->sink)
		return;
	sink_stats(l->sink, &s);
	one(m, "ebpfdump_messages_emitted_total", METRICS_COUNTER,
		"Messages given to the output: with those recovered, delivered plus dropped plus "
		"queued plus spooled.",
		s.emitted);
	one(m, "ebpfdump_output_recovered_total", METRICS_COUNTER,
		"Messages that were in the spool when the loader started.", s.recovered);
	one(m, "ebpfdump_output_delivered_total", METRICS_COUNTER,
		"Messages written to standard output, or taken by the callback.", s.delivered);
	one(m, "ebpfdump_output_delivered_bytes_total", METRICS_COUNTER,
		"Their bytes, newlines included.", s.delivered_bytes);
	metrics_family(m, "ebpfdump_output_dropped_total", METRICS_COUNTER,
		"Messages that the output lost, by reason.");
	for (enum sink_drop i = 0; i < SINK_DROP_MAX; i++)
		metrics_u64(m, "ebpfdump_output_dropped_total", s.dropped[i], "reason",
			sink_drop_name(i), NULL);
	one(m, "ebpfdump_output_queued", METRICS_GAUGE,
		"Messages in memory that wait for the reader or the callback.", s.queued);
	one(m, "ebpfdump_output_queued_bytes", METRICS_GAUGE, "Their bytes.", s.queued_bytes);
	one(m, "ebpfdump_output_spooled", METRICS_GAUGE, "Messages in the spool.", s.spooled);
}

static void callback(const struct loader *l, struct metrics *m)
{
	static const char *const latency = "ebpfdump_callback_answer_seconds";
	const struct sink_callback_stats *s = l->sink ? sink_callback_stats(l->sink) : NULL;
	uint64_t now = clock_wall_ns();

	if (!s)
		return;
	one(m, "ebpfdump_callback_up", METRICS_GAUGE,
		"1 if the last that was heard of the receiver is good.", s->up);
	one(m, "ebpfdump_callback_requests_total", METRICS_COUNTER,
		"Requests that were answered or failed.", s->requests);
	metrics_family(m, latency, METRICS_HISTOGRAM, "Time from a request to its answer.");
	metrics_histogram(
		m, latency, sink_latency_bounds, s->latency, SINK_LATENCY_BUCKETS, s->latency_sum);
	metrics_family(m, "ebpfdump_callback_retries_total", METRICS_COUNTER,
		"Requests that have to be tried again, by reason.");
	for (enum sink_retry i = 0; i < SINK_RETRY_MAX; i++)
		metrics_u64(m, "ebpfdump_callback_retries_total", s->retries[i], "reason",
			sink_retry_name(i), NULL);
	metrics_family(m, "ebpfdump_callback_refused_total", METRICS_COUNTER,
		"Messages dropped because the receiver refused them, by status.");
	for (size_t i = 0; i < ARRAY_SIZE(s->refused); i++) {
		char status[8];

		if (!s->refused[i])
			continue;
		snprintf(status, sizeof(status), "%zu", i);
		metrics_u64(m, "ebpfdump_callback_refused_total", s->refused[i], "status", status,
			NULL);
	}
	one(m, "ebpfdump_callback_bodies_left_out_total", METRICS_COUNTER,
		"Messages sent without their body (--when-full drop-bodies).", s->bodies_left_out);
	one(m, "ebpfdump_callback_sent_bytes_total", METRICS_COUNTER,
		"Bytes of request bodies, as sent.", s->sent_bytes);
	one(m, "ebpfdump_callback_in_flight", METRICS_GAUGE, "Requests on their way.",
		s->in_flight);
	one(m, "ebpfdump_callback_waiting", METRICS_GAUGE,
		"Requests that failed and wait for their next attempt.", s->waiting);
	metrics_family(m, "ebpfdump_callback_oldest_seconds", METRICS_GAUGE,
		"Age of the oldest message that is not delivered; 0: there is none.");
	metrics_f64(m, "ebpfdump_callback_oldest_seconds",
		s->oldest_ns && s->oldest_ns < now ? (double)(now - s->oldest_ns) / 1e9 : 0, NULL);
	one(m, "ebpfdump_spool_bytes", METRICS_GAUGE, "Bytes of messages in the spool.",
		s->spool_bytes);
	one(m, "ebpfdump_spool_disk_bytes", METRICS_GAUGE, "Size of its files.",
		s->spool_disk_bytes);
	one(m, "ebpfdump_spool_torn_total", METRICS_COUNTER,
		"Unfinished ends of files that were cut off at the start.", s->spool_torn);
	one(m, "ebpfdump_spool_lost_bytes_total", METRICS_COUNTER,
		"Bytes of its files that were skipped as damaged.", s->spool_lost_bytes);
	one(m, "ebpfdump_spool_write_errors_total", METRICS_COUNTER,
		"Messages that could not be spooled though there was room.", s->spool_write_errors);
}

/* "off": not wanted; "none": wanted, and there is none. */
static const char *hook_in_use(const struct loader *l, int direction)
{
	if (!(l->spec->directions & 1U << direction))
		return "off";
	return l->probe ? probe_hook_name(direction ? l->plan.ingress : l->plan.egress) : "none";
}

static void hooks(const struct loader *l, struct metrics *m)
{
	static const char *const name = "ebpfdump_hook_info";

	metrics_family(m, name, METRICS_GAUGE,
		"The hook in use for each direction; none: there is none that works, off: not wanted.");
	for (int d = 0; d < 2; d++)
		metrics_u64(m, name, 1, "direction", d ? "ingress" : "egress", "hook",
			hook_in_use(l, d), NULL);
	if (!l->options.n_interfaces)
		return;
	metrics_family(m, "ebpfdump_interface_missing", METRICS_GAUGE,
		"1 if no network namespace has an interface of this name.");
	for (uint32_t i = 0; i < l->options.n_interfaces; i++)
		metrics_u64(m, "ebpfdump_interface_missing", l->unknown_interfaces >> i & 1,
			"interface", l->options.interfaces[i], NULL);
}

static void process(struct metrics *m)
{
	CLEANUP(fclosep)
	FILE *f = fopen("/proc/self/statm", "re");
	unsigned long pages = 0;
	struct rusage u;

	metrics_family(
		m, "ebpfdump_build_info", METRICS_GAUGE, "1, with what was built as labels.");
	metrics_u64(m, "ebpfdump_build_info", 1, "version", EBPFDUMP_VERSION, "compiler",
		__VERSION__, NULL);
	if (f && fscanf(f, "%*u %lu", &pages) == 1)
		one(m, "process_resident_memory_bytes", METRICS_GAUGE, "Resident memory.",
			pages * (uint64_t)sysconf(_SC_PAGESIZE));
	if (getrusage(RUSAGE_SELF, &u) == 0) {
		metrics_family(m, "process_cpu_seconds_total", METRICS_COUNTER,
			"CPU time of the loader, user and system.");
		metrics_f64(m, "process_cpu_seconds_total",
			(double)u.ru_utime.tv_sec + (double)u.ru_stime.tv_sec +
				(double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6,
			NULL);
	}
}

static void pods(const struct loader *l, struct metrics *m)
{
	struct identity_stats s = {0};

	if (l->identity)
		identity_stats(l->identity, &s);
	one(m, "ebpfdump_cgroups", METRICS_GAUGE,
		"Control groups known, those gone a while ago included (--cgroups).", s.cgroups);
	one(m, "ebpfdump_cgroups_left_out_total", METRICS_COUNTER,
		"Control groups that are not known because there were --cgroups already: messages "
		"from them name no pod.",
		s.left_out);
	one(m, "ebpfdump_cgroups_unwatched_total", METRICS_COUNTER,
		"Control groups in which new ones go unseen (fs.inotify.max_user_watches).",
		s.unwatched);
	one(m, "ebpfdump_cgroups_overflows_total", METRICS_COUNTER,
		"Times the kernel's queue of new control groups was full, and all were read anew.",
		s.overflows);
}

void ledger_metrics(void *ctx, struct metrics *m)
{
	struct loader *l = ctx;

	kernel_side(l, m);
	streams(l, m);
	delivery(l, m);
	traffic_metrics(&l->traffic, m);
	callback(l, m);
	hooks(l, m);
	pods(l, m);
	process(m);
}

int ledger_reference(FILE *out)
{
	static const struct flow_options tiny = {.max_connections = 1,
		.head_bytes = 1024,
		.max_fields = 8,
		.buffer_bytes = 65536,
		.max_pending = 1};
	CLEANUP(buf_done)
	struct buf text = BUF_INIT(1U << 20);
	CLEANUP(flow_freep)
	struct flow *flow = NULL;
	CLEANUP(loop_freep)
	struct loop *loop = NULL;
	CLEANUP(sink_freep)
	struct sink *sink = NULL;
	static const struct sink_callback callback_options = {.url = "http://localhost/",
		.concurrency = 1,
		.batch_messages = 1,
		.timeout_ms = 1000,
		.queue_bytes = SINK_QUEUE_MIN};
	const char *interfaces[] = {"eth0"};
	static const struct spec wants_both = {.directions = 3};
	struct loader l = {
		.spec = &wants_both, .options = {.interfaces = interfaces, .n_interfaces = 1}};
	struct metrics m = {.out = &text};
	struct err err = {0};

	log_setup(LOG_ERROR, LOG_TEXT, "loader", "");
	if (flow_new(&tiny, NULL, NULL, &flow, &err) || loop_new(&loop, &err) ||
		sink_callback_new(loop, &callback_options, &sink, &err))
		return err.code;
	l.flow = flow;
	l.sink = sink;
	ledger_metrics(&l, &m);
	if (m.error)
		return m.error;
	return metrics_table(&text, out);
}

bool ledger_ready(void *ctx, struct buf *out)
{
	const struct loader *l = ctx;
	bool ready = l->probe != NULL;

	for (int d = 0; d < 2; d++) {
		const char *direction = d ? "ingress" : "egress";
		enum probe_hook hook = d ? l->plan.ingress : l->plan.egress;
		int r;

		if (!(l->options.directions & 1U << d) && l->probe) {
			r = buf_printf(out, "%s: not asked for\n", direction);
		} else if (!l->probe || hook == PROBE_NONE) {
			ready = false;
			r = buf_printf(out, "%s: not attached\n", direction);
		} else {
			r = buf_printf(out, "%s: %s\n", direction, probe_hook_name(hook));
		}
		if (r)
			return false;
	}
	if (l->probe && l->spec->namespaces.count && !l->identity) {
		ready = false;
		if (buf_printf(out, "namespaces: not known here: see the log\n"))
			return false;
	}
	/* A receiver that is away does not make the loader less ready: it captures, and queues. */
	if (l->sink && sink_describe(l->sink, out))
		return false;
	return ready;
}
