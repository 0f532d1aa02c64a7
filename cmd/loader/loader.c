/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/loader/loader.h"

#include <errno.h>
#include <inttypes.h>
#include <malloc.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

/* Records taken in one turn of the loop, so that signals and scrapes get their turn. */
#define DRAIN_MAX 65536
/* Messages after which the writer is told that there are some. */
#define KICK_EVERY 512
/* How often it is looked whether a missing interface came to be. */
#define INTERFACES_MS 60000
#define TICK_MS	      100

/* ---- the pipeline ---- */

/* Messages with the same value are delivered in order: those of a connection. */
static uint64_t order_of(const struct dump_conn *c)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325);

#define MIX(value) h = (h ^ (uint64_t)(value)) * UINT64_C(0x100000001b3)
	for (size_t i = 0; i < c->local.ip_len; i++)
		MIX(c->local.ip[i]);
	for (size_t i = 0; i < c->remote.ip_len; i++)
		MIX(c->remote.ip[i]);
	MIX(c->local.port);
	MIX(c->remote.port);
#undef MIX
	return h;
}

/* A file can wait: nothing is dropped for a slow reader. */
static void wait_for_reader(struct loader *l)
{
	sink_wait(l->sink,
		l->spec->callback[0] ? l->spec->queue_bytes / 2 : l->spec->output_buffer / 2);
}

static void on_message(void *ctx, const struct dump_message *message)
{
	struct loader *l = ctx;
	struct dump_message m = *message;
	struct sink_message out;
	int r;

	traffic_count(&l->traffic, message);
	if (!dump_filter_pass(&l->filter, message) || !pods_pass(l, &m)) {
		l->filtered++;
		return;
	}
	if (!l->sink)
		return;
	m.seq = ++l->seq;
	out.body_left_out = m.body.len > 0 && !sink_wants_bodies(l->sink);
	if (out.body_left_out) {
		m.body.len = 0;
		m.body_truncated = true;
	}
	l->line.len = 0;
	r = l->text ? dump_text(&l->format, &m, &l->line) : dump_json(&l->format, &m, &l->line);
	if (r) {
		l->unwritable++;
		return;
	}
	if (l->spec->replay)
		wait_for_reader(l);
	out.line = span_of(l->line.data, l->line.len);
	out.order = l->spec->callback[0] ? order_of(m.conn) : 0;
	/* a full or closed sink counts what it drops */
	(void)sink_write_message(l->sink, &out);
	/* in a long batch the writer must not wait for its end */
	if (l->seq % KICK_EVERY == 0)
		sink_kick(l->sink);
}

/* What follows on this connection is no HTTP: the kernel side need not hand it over. */
static void on_tunnel(void *ctx, uint64_t connection)
{
	struct loader *l = ctx;

	if (l->probe)
		probe_ignore(l->probe, connection, false);
}

static void give_up_recording(struct loader *l, const struct err *err)
{
	log_error("--record: %s; no more records are written", err->text);
	(void)capture_writer_close(TAKE(l->writer), NULL);
	l->record_failed = true;
}

/* A full disk, a reader that is gone: once, when it begins. */
static void report_output(struct loader *l)
{
	struct sink_stats s;

	if (!l->sink)
		return;
	sink_stats(l->sink, &s);
	if (s.error && s.error != l->output_error && !l->spec->callback[0])
		log_error("standard output: %s; what does not fit the buffer is dropped",
			strerror(s.error));
	l->output_error = s.error;
}

static void on_record(void *ctx, const struct capture_record *record, const char *data)
{
	struct loader *l = ctx;
	struct err err = {0};

	if (l->writer && capture_writer_add(l->writer, record, data, l->wall_offset_ns, &err))
		give_up_recording(l, &err);
	flow_record(l->flow, record, data, l->wall_offset_ns);
}

static void loader_done(struct loader *l)
{
	telemetry_free(l->telemetry);
	probe_close(l->probe);
	flow_free(l->flow);
	sink_free(l->sink);
	own_done(l);
	identity_free(l->identity);
	loop_free(l->loop);
	(void)capture_writer_close(l->writer, NULL);
	buf_done(&l->line);
}

static int open_sink(struct loader *l, struct err *err)
{
	const struct spec *spec = l->spec;
	const struct sink_callback callback = {
		.url = spec->callback,
		.concurrency = (uint32_t)spec->callback_concurrency,
		.batch_messages = (uint32_t)spec->callback_batch_messages,
		.batch_bytes = spec->callback_batch_bytes,
		.batch_wait_ms = spec->callback_batch_wait_ms,
		.gzip = spec->callback_gzip,
		.timeout_ms = spec->callback_timeout_ms,
		.ca = spec->callback_ca,
		.cert = spec->callback_cert,
		.key = spec->callback_key,
		.header_file = spec->callback_header_file,
		.hmac_file = spec->callback_hmac_file,
		.queue_bytes = spec->queue_bytes,
		.when_full = (enum sink_when_full)spec->when_full,
		.spool_dir = spec->spool_bytes ? spec->spool_dir : NULL,
		.spool_bytes = spec->spool_bytes,
		.line = own_line,
		.line_ctx = l,
	};

	if (!spec->callback[0])
		return sink_new(STDOUT_FILENO, spec->output_buffer, &l->sink, err);
	return sink_callback_new(l->loop, &callback, &l->sink, err);
}

static void on_signal(void *ctx, int signo)
{
	struct loader *l = ctx;

	log_info("%s: finishing", signo == SIGINT ? "interrupted" : "terminated");
	loop_quit(l->loop, 0);
}

static int open_loop(struct loader *l, struct err *err)
{
	int r = loop_new(&l->loop, err);

	if (r)
		return r;
	/* signals first: threads inherit what is blocked */
	r = loop_add_signal(l->loop, SIGTERM, on_signal, l);
	if (!r)
		r = loop_add_signal(l->loop, SIGINT, on_signal, l);
	return r ? err_set(err, -r, "the event loop cannot be set up: %s", strerror(-r)) : 0;
}

/* What capturing and replaying have in common. */
static int loader_init(struct loader *l, const struct spec *spec, struct err *err)
{
	static char host[256];
	struct flow_options fo;
	bool records_only = spec->record && strcmp(spec->record, "-") == 0;
	int r;

	if (gethostname(host, sizeof(host) - 1))
		host[0] = 0;
	*l = (struct loader){.spec = spec, .node = spec->node[0] ? spec->node : host};
	l->text = !spec->callback[0] &&
		  (spec->output == SPEC_OUTPUT_TEXT ||
			  (spec->output == SPEC_OUTPUT_AUTO && isatty(STDOUT_FILENO)));
	l->format = (struct dump_format){
		.node = l->node,
		.line_max = spec->line_bytes,
		.redaction = spec->redact.count ? &l->redaction : NULL,
		.colour = l->text && isatty(STDOUT_FILENO) && !getenv("NO_COLOR"),
	};
	l->filter = (struct dump_filter){
		.directions = (uint8_t)spec->directions, .kinds = (uint8_t)spec->messages};
	log_setup(
		spec->log_level, l->text || records_only ? LOG_TEXT : LOG_JSON, "loader", l->node);
	signal(SIGPIPE, SIG_IGN);
	l->line = BUF_INIT(64U << 20);

	flow_options_default(&fo);
	fo.max_connections = (uint32_t)spec->connections;
	fo.body_bytes = (uint32_t)spec->body_bytes;
	fo.head_bytes = (uint32_t)spec->head_bytes;
	fo.max_fields = (uint32_t)spec->headers;
	fo.buffer_bytes = spec->buffer_bytes;
	fo.max_pending = (uint32_t)spec->pending;
	fo.hold_ms = (uint32_t)spec->hold_ms;
	fo.idle_ms = (uint32_t)spec->idle_ms;
	r = dump_redaction_init(&l->redaction, spec->redact.names, spec->redact.count, NULL);
	if (r)
		return err_set(err, -r, "there is no key for --redact: %s", strerror(-r));
	r = flow_new(&fo, on_message, l, &l->flow, err);
	if (!r) {
		flow_on_tunnel(l->flow, on_tunnel, l);
		r = own_init(l, err);
	}
	if (!r && spec->record)
		r = capture_writer_open(spec->record, &l->writer, err);
	/* a replay to standard output needs none, and Ctrl-C ends it */
	if (!r && (!spec->replay || spec->callback[0]))
		r = open_loop(l, err);
	if (!r && !records_only)
		r = open_sink(l, err);
	return r;
}

/* Everything that is left goes out; what that cost is said. */
static int loader_finish(struct loader *l)
{
	struct sink_stats s = {0};
	struct err err = {0};
	uint64_t dropped = 0;
	int status = l->record_failed ? EXIT_FAILED : EXIT_OK;

	flow_finish(l->flow);
	l->finishing = true;
	if (l->sink) {
		sink_kick(l->sink);
		(void)sink_flush(l->sink, l->spec->flush_timeout_ms);
		report_output(l);
		sink_stats(l->sink, &s);
		for (size_t i = 0; i < SINK_DROP_MAX; i++)
			dropped += s.dropped[i];
	}
	if (capture_writer_close(TAKE(l->writer), &err)) {
		log_error("--record: %s", err.text);
		status = EXIT_FAILED;
	}
	if (l->spec->callback[0])
		log_info("%" PRIu64 " messages delivered, %" PRIu64 " dropped, %" PRIu64
			 " in the spool, %" PRIu64 " filtered",
			s.delivered, dropped + l->unwritable, s.spooled, l->filtered);
	else
		log_info("%" PRIu64 " messages written, %" PRIu64 " dropped, %" PRIu64 " filtered",
			s.delivered, dropped + l->unwritable, l->filtered);
	return status;
}

/* ---- replay ---- */

int loader_replay(const struct spec *spec)
{
	CLEANUP(capture_reader_closep)
	struct capture_reader *reader = NULL;
	const struct capture_record *record;
	const char *data;
	int64_t offset;
	struct loader l;
	struct err err = {0};
	uint64_t records = 0;
	bool quit = false;
	int r = loader_init(&l, spec, &err), status;

	if (!r)
		r = capture_reader_open(spec->replay, &reader, &err);
	while (!r && !quit &&
		(r = capture_reader_next(reader, &record, &data, &offset, &err)) > 0) {
		l.wall_offset_ns = offset;
		on_record(&l, record, data);
		flow_tick(l.flow, record->time_ns);
		if (l.loop && ++records % KICK_EVERY == 0)
			quit = loop_turn(l.loop, 0) != 0;
		r = 0;
	}
	if (r < 0)
		log_error("%s", err.text);
	if (l.flow && l.sink) {
		flow_finish(l.flow);
		if (!quit)
			sink_wait(l.sink, 0);
	}
	status = l.flow && l.sink ? loader_finish(&l) : EXIT_FAILED;
	loader_done(&l);
	return r < 0 ? EXIT_FAILED : status;
}

/* ---- capture ---- */

static void drain(struct loader *l)
{
	int n;

	/* the loop goes on for a callback to be flushed; nothing new comes then */
	if (l->finishing)
		return;
	l->turn_ns = clock_mono_ns();
	l->wall_offset_ns = clock_offset_ns();
	n = probe_drain(l->probe, DRAIN_MAX, on_record, l);
	if (l->sink && n > 0)
		sink_kick(l->sink);
	/* more waits: come back at once */
	if (n == DRAIN_MAX && loop_set_timer(l->drain_timer, 1, l->spec->poll_interval_ms))
		log_debug("the timer cannot be set");
}

static void on_ring(void *ctx, int fd, uint32_t events)
{
	drain(ctx);
}

static void on_drain_timer(void *ctx)
{
	drain(ctx);
}

static void on_tick(void *ctx)
{
	struct loader *l = ctx;
	struct err err = {0};

	if (l->finishing)
		return;
	flow_tick(l->flow, clock_mono_ns());
	if (l->sink)
		sink_kick(l->sink);
	if (l->writer && capture_writer_flush(l->writer, &err))
		give_up_recording(l, &err);
	report_output(l);
}

static void on_interfaces(void *ctx)
{
	struct loader *l = ctx;
	uint32_t before = l->unknown_interfaces;

	l->unknown_interfaces = probe_unknown_interfaces(&l->options);
	for (uint32_t i = 0; i < l->options.n_interfaces; i++)
		if (before & ~l->unknown_interfaces & 1U << i)
			log_info("interface '%s' is there now", l->options.interfaces[i]);
}

static int options_of(const struct spec *spec, struct probe_options *o, struct err *err)
{
	const char *missing = getenv("EBPFDUMP_TEST_MISSING");

	*o = (struct probe_options){
		.ring_bytes = spec->ring_bytes,
		.capture_bytes = (uint32_t)(spec->capture_bytes ? spec->capture_bytes
								: 16384 + spec->body_bytes),
		.connections = (uint32_t)spec->connections,
		.interfaces = spec->interfaces.names,
		.n_interfaces = spec->interfaces.count,
		.directions = spec->directions,
		.family = (enum probe_family)spec->hook,
	};
	if (missing && probe_parse_missing(missing, &o->missing, err))
		return err_wrap(err, "EBPFDUMP_TEST_MISSING");
	return 0;
}

int loader_check(const struct spec *spec)
{
	struct probe_options options;
	struct probe_offer offer;
	struct probe_plan plan;
	struct err err = {0};
	int r;

	log_setup(spec->log_level, LOG_TEXT, "loader", "");
	r = options_of(spec, &options, &err);
	if (!r)
		r = probe_try(&options, true, &offer, &err);
	if (r) {
		fprintf(stderr, "ebpfdump-loader: %s\n", err.text);
		return EXIT_FAILED;
	}
	r = probe_plan(&offer, options.family, false, &plan, &err);
	probe_print_offer(stdout, &offer, r ? NULL : &plan);
	if (r) {
		fflush(stdout);
		fprintf(stderr, "ebpfdump-loader: %s\n", err.text);
		return EXIT_FAILED;
	}
	return EXIT_OK;
}

static int attach(struct loader *l, struct err *err)
{
	int r = options_of(l->spec, &l->options, err);

	if (!r)
		r = probe_try(&l->options, false, &l->offer, err);
	if (!r)
		r = probe_plan(&l->offer, l->options.family, true, &l->plan, err);
	if (!r)
		r = probe_open(&l->options, &l->plan, &l->probe, err);
	if (r)
		return r;
	for (int d = 0; d < 2; d++) {
		enum probe_hook hook = d ? l->plan.ingress : l->plan.egress;

		if (!(l->options.directions & 1U << d))
			continue;
		if (hook == PROBE_NONE)
			log_warn("what is %s is not captured: no hook works here (see --check)",
				d ? "received" : "sent");
		else
			log_info("%s by %s", d ? "received" : "sent", probe_hook_name(hook));
		if (l->offer.preempts && (hook == PROBE_FENTRY || hook == PROBE_FEXIT))
			log_warn(
				"this kernel preempts itself: under load it leaves out runs of %s, and "
				"what passes meanwhile is missing (ebpfdump_kernel_missed_runs_total)",
				probe_hook_name(hook));
	}
	l->unknown_interfaces = probe_unknown_interfaces(&l->options);
	for (uint32_t i = 0; i < l->options.n_interfaces; i++)
		if (l->unknown_interfaces & 1U << i)
			log_warn("interface '%s' is in no network namespace: nothing is captured "
				 "from it until it is",
				l->options.interfaces[i]);
	return 0;
}

static int wire(struct loader *l, struct err *err)
{
	int r = loop_add_timer(l->loop, l->spec->poll_interval_ms, l->spec->poll_interval_ms,
		on_drain_timer, l, &l->drain_timer);

	if (!r)
		r = loop_add_timer(
			l->loop, TICK_MS, TICK_MS, on_tick, l, &(struct loop_source *){0});
	if (!r)
		r = own_wire(l);
	if (!r)
		r = pods_wire(l);
	if (!r && l->spec->interfaces.count)
		r = loop_add_timer(l->loop, INTERFACES_MS, INTERFACES_MS, on_interfaces, l,
			&(struct loop_source *){0});
	if (r)
		return err_set(err, -r, "the event loop cannot be set up: %s", strerror(-r));
	return 0;
}

/* Says where the metrics are: with the port that was picked, if any would do. */
static void log_capturing(const struct loader *l)
{
	const char *listen = l->spec->listen, *colon = strrchr(listen, ':');

	if (l->telemetry && colon)
		log_info("capturing; metrics at %.*s:%u", (int)(colon - listen), listen,
			telemetry_port(l->telemetry));
	else
		log_info("capturing");
}

int loader_run(const struct spec *spec)
{
	static const struct telemetry_ops ops = {.metrics = ledger_metrics, .ready = ledger_ready};
	struct loader l;
	struct err err = {0};
	int r = loader_init(&l, spec, &err), status = EXIT_FAILED;

	if (!r)
		r = wire(&l, &err);
	if (!r)
		r = attach(&l, &err);
	/* The kernel side knows the loader's sockets from their first day on: it comes first. */
	if (!r && spec->listen[0])
		r = telemetry_new(l.loop, spec->listen, &ops, &l, &l.telemetry, &err);
	if (!r) {
		/* Edge-triggered: only when the kernel side asks, not whenever something waits. */
		r = loop_add_fd(l.loop, probe_fd(l.probe), EPOLLIN | EPOLLET, on_ring, &l,
			&(struct loop_source *){0});
		if (r)
			r = err_set(
				&err, -r, "the ring buffer cannot be watched: %s", strerror(-r));
	}
	if (r) {
		log_error("%s", err.text);
	} else {
		/* libbpf read the kernel's type information, some 10 MiB of it, and is done with it
		 */
		malloc_trim(0);
		log_capturing(&l);
		r = loop_run(l.loop);
		drain(&l);
		status = loader_finish(&l);
		if (r < 0)
			status = EXIT_FAILED;
	}
	loader_done(&l);
	return status;
}
