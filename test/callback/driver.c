/* SPDX-License-Identifier: Apache-2.0 */
/*
 * usage: callback-driver [the loader's flags for a callback]...
 *
 * The callback sink without a capture in front of it. Commands come on standard input, one a line;
 * each is answered by one line of JSON:
 *
 *   write N SIZE LANES  N messages of about SIZE bytes, of LANES connections
 *   pump N SIZE LANES   the same, but waits while the queue is half full, and then until all is
 *                       delivered; says how long it took, and the CPU time
 *   stats               what sink_stats() and sink_callback_stats() say
 *   turn MS             nothing, for so long
 *   flush               sink_flush(); nothing can be written afterwards
 *
 * The end of input flushes, says the stats once more, and ends. Numbers of messages go on through a
 * run and begin at --node (0).
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include "pkg/sink/sink.h"
#include "pkg/spec/spec.h"

static struct spec spec;
static struct sink *sink;
static struct loop *loop;
static uint64_t number;
static char input[4096];
static size_t input_len;

static void die(const char *text)
{
	fprintf(stderr, "callback-driver: %s\n", text);
	exit(1);
}

/* Looks like a NetworkDump, and is as long. */
static size_t make_line(char *line, size_t size, uint64_t connection)
{
	int n = snprintf(line, size,
		"{\"direction\":0,\"timing_ms\":1750000000000,\"remote_ip\":\"10.1.2.3\","
		"\"remote_port\":%" PRIu64 ",\"method\":\"GET\",\"path\":\"/items?id=%" PRIu64
		"\",\"status_code\":0,\"version\":\"1.1\",\"headers\":{\"Host\":[\"shop\"]},"
		"\"body\":\"",
		1024 + connection, number);
	size_t len = (size_t)n;
	int end = snprintf(line + len, size - len,
		"\",\"src_ip\":\"10.1.2.3\",\"src_port\":%" PRIu64
		",\"dst_ip\":\"10.1.2.4\",\"dst_port\":80,\"interface\":\"eth0\",\"node\":\"n\","
		"\"pid\":1,\"comm\":\"x\",\"body_bytes\":0,\"body_truncated\":false,"
		"\"gap_bytes\":0,\"seq\":%" PRIu64 "}\n",
		1024 + connection, number);
	size_t want = (size_t)(n + end);

	if (size > want + 1) {
		/* the body in between */
		size_t fill = size - want - 1;

		memmove(line + len + fill, line + len, (size_t)end);
		memset(line + len, 'b', fill);
		want += fill;
	}
	return want;
}

static void write_one(uint64_t size, uint64_t lanes)
{
	static char line[2 << 20];
	struct sink_message m = {.order = number % lanes};

	number++;
	/* room for what is fixed */
	m.line = span_of(line, make_line(line, MAX(size, (uint64_t)640), m.order));
	(void)sink_write_message(sink, &m);
}

static double cpu_seconds(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (double)u.ru_utime.tv_sec + (double)u.ru_stime.tv_sec +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static uint64_t resident(void)
{
	unsigned long pages = 0;
	FILE *f = fopen("/proc/self/statm", "r");

	if (f && fscanf(f, "%*u %lu", &pages) != 1)
		pages = 0;
	if (f)
		fclose(f);
	return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void say_stats(void)
{
	const struct sink_callback_stats *c = sink_callback_stats(sink);
	struct sink_stats s;

	sink_stats(sink, &s);
	printf("{\"emitted\":%" PRIu64 ",\"recovered\":%" PRIu64 ",\"delivered\":%" PRIu64
	       ",\"queued\":%" PRIu64 ",\"queued_bytes\":%" PRIu64 ",\"spooled\":%" PRIu64,
		s.emitted, s.recovered, s.delivered, s.queued, s.queued_bytes, s.spooled);
	for (enum sink_drop i = 0; i < SINK_DROP_MAX; i++)
		printf(",\"%s\":%" PRIu64, sink_drop_name(i), s.dropped[i]);
	for (enum sink_retry i = 0; i < SINK_RETRY_MAX; i++)
		printf(",\"retry_%s\":%" PRIu64, sink_retry_name(i), c->retries[i]);
	for (int i = 0; i < 600; i++)
		if (c->refused[i])
			printf(",\"status_%d\":%" PRIu64, i, c->refused[i]);
	printf(",\"requests\":%" PRIu64 ",\"in_flight\":%u,\"waiting\":%u,\"up\":%d,\"oldest\":%d,"
	       "\"bodies_left_out\":%" PRIu64 ",\"sent_bytes\":%" PRIu64 ",\"rss\":%" PRIu64
	       ",\"torn\":%" PRIu64 "}\n",
		c->requests, c->in_flight, c->waiting, c->up, c->oldest_ns != 0, c->bodies_left_out,
		c->sent_bytes, resident(), c->spool_torn);
}

static void pump(uint64_t n, uint64_t size, uint64_t lanes)
{
	uint64_t start = clock_mono_ns(), most = spec.queue_bytes / 2;
	double cpu = cpu_seconds();
	struct sink_stats s;

	for (uint64_t i = 0; i < n; i++) {
		write_one(size, lanes);
		/* as the loader does it */
		if (i % 512 == 511) {
			sink_kick(sink);
			(void)loop_turn(loop, 0);
			sink_wait(sink, most);
		}
	}
	sink_wait(sink, 0);
	sink_stats(sink, &s);
	printf("{\"seconds\":%.6f,\"cpu_seconds\":%.6f,\"delivered\":%" PRIu64 "}\n",
		(double)(clock_mono_ns() - start) / 1e9, cpu_seconds() - cpu, s.delivered);
}

static void command(const char *line)
{
	uint64_t n = 0, size = 700, lanes = 16;

	if (sscanf(line, "write %" SCNu64 " %" SCNu64 " %" SCNu64, &n, &size, &lanes) >= 1) {
		for (uint64_t i = 0; i < n; i++) {
			write_one(size, lanes);
			if (i % 512 == 511) {
				sink_kick(sink);
				(void)loop_turn(loop, 0);
			}
		}
		sink_kick(sink);
		printf("{\"number\":%" PRIu64 "}\n", number);
	} else if (sscanf(line, "pump %" SCNu64 " %" SCNu64 " %" SCNu64, &n, &size, &lanes) >= 1) {
		pump(n, size, lanes);
	} else if (strcmp(line, "stats") == 0) {
		say_stats();
	} else if (sscanf(line, "turn %" SCNu64, &n) == 1) {
		uint64_t end = clock_mono_ns() + n * 1000000;

		while (clock_mono_ns() < end)
			(void)loop_turn(loop, 10);
		printf("{}\n");
	} else if (strcmp(line, "flush") == 0) {
		printf("{\"dropped\":%" PRIu64 "}\n", sink_flush(sink, spec.flush_timeout_ms));
	} else {
		die(line);
	}
	fflush(stdout);
}

/* Whether there may be more. */
static bool read_commands(void)
{
	ssize_t n = read(STDIN_FILENO, input + input_len, sizeof(input) - input_len - 1);
	char *end;

	if (n <= 0)
		return false;
	input_len += (size_t)n;
	while ((end = memchr(input, '\n', input_len))) {
		size_t len = (size_t)(end - input);
		char line[sizeof(input)];

		memcpy(line, input, len);
		line[len] = '\0';
		input_len -= len + 1;
		memmove(input, end + 1, input_len);
		command(line);
	}
	return true;
}

int main(int argc, char **argv)
{
	struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
	struct err err = {0};

	if (spec_parse_args(&spec, argc, argv, &err))
		die(err.text);
	log_setup(spec.log_level, LOG_TEXT, "driver", "");
	signal(SIGPIPE, SIG_IGN);
	(void)num_parse(span_str(spec.node), 0, UINT64_MAX, &number);
	struct sink_callback o = {
		.url = spec.callback,
		.concurrency = (uint32_t)spec.callback_concurrency,
		.batch_messages = (uint32_t)spec.callback_batch_messages,
		.batch_bytes = spec.callback_batch_bytes,
		.batch_wait_ms = spec.callback_batch_wait_ms,
		.gzip = spec.callback_gzip,
		.timeout_ms = spec.callback_timeout_ms,
		.ca = spec.callback_ca,
		.cert = spec.callback_cert,
		.key = spec.callback_key,
		.header_file = spec.callback_header_file,
		.hmac_file = spec.callback_hmac_file,
		.queue_bytes = spec.queue_bytes,
		.when_full = (enum sink_when_full)spec.when_full,
		.spool_dir = spec.spool_bytes ? spec.spool_dir : NULL,
		.spool_bytes = spec.spool_bytes,
	};
	if (loop_new(&loop, &err) || sink_callback_new(loop, &o, &sink, &err))
		die(err.text);
	for (;;) {
		/* a turn of the sink's loop, and a look at what is asked */
		if (loop_turn(loop, poll(&in, 1, 0) > 0 ? 0 : 5) < 0)
			die("the loop");
		if (poll(&in, 1, 0) > 0 && !read_commands())
			break;
	}
	sink_flush(sink, spec.flush_timeout_ms);
	say_stats();
	fflush(stdout);
	sink_free(sink);
	loop_free(loop);
	return 0;
}
