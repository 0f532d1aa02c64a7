/* SPDX-License-Identifier: Apache-2.0 */
/* ebpfdump-callback: flags, the receiver, the loop. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "cmd/callback/page.h"
#include "pkg/spec/spec.h"

#define FLUSH_MS 5000 /* that a slow reader of standard output is given at the end */
#define CHECK_MS 200

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

struct callback {
	struct loop *loop;
	struct receiver *receiver;
};

static void stop(void *ctx, int signo)
{
	struct callback *c = ctx;

	log_info("signal %d: stopping", signo);
	loop_quit(c->loop, EXIT_OK);
}

/* Without a reader there is nothing to live for (`ebpfdump-callback | head`). */
static void check_output(void *ctx)
{
	struct callback *c = ctx;

	if (!receiver_is_closed(c->receiver))
		return;
	log_error("standard output has been closed by its reader");
	loop_quit(c->loop, EXIT_FAILED);
}

static void fill_options(const struct spec_callback *spec, struct receiver_options *o)
{
	*o = (struct receiver_options){
		.listen = spec->listen,
		.hosts_count = spec->hosts.count,
		.body_bytes = spec->body_bytes,
		.memory_bytes = spec->memory_bytes,
		.idempotency_keys = spec->idempotency_keys,
		.token_file = spec->token_file,
		.hmac_file = spec->hmac_file,
		.marker_key_file = spec->marker_key_file,
		.dir = spec->dir,
		.output_fd = STDOUT_FILENO,
		.file_bytes = spec->file_bytes,
		.files = spec->files,
		.output_buffer = spec->output_buffer,
		.keep = spec->keep,
		.keep_bytes = spec->keep_bytes,
		.streams = spec->streams,
		.threads = spec->threads,
		.connections = spec->connections,
		.request_timeout_ms = spec->request_timeout_ms,
	};
	_Static_assert(SPEC_NAMES_MAX <= RECEIVER_HOSTS_MAX, "all names of --host fit");
	for (uint32_t i = 0; i < spec->hosts.count; i++)
		o->hosts[i] = spec->hosts.names[i];
}

static int prepare(struct callback *c, const struct receiver_options *options, struct err *err)
{
	struct loop_source *timer;
	int r = loop_new(&c->loop, err);

	if (r < 0)
		return r;
	if (loop_add_signal(c->loop, SIGINT, stop, c) < 0 ||
		loop_add_signal(c->loop, SIGTERM, stop, c) < 0 ||
		loop_add_timer(c->loop, CHECK_MS, CHECK_MS, check_output, c, &timer) < 0)
		return err_set(err, ENOMEM, "event loop: no memory");
	return receiver_new(c->loop, options, &c->receiver, err);
}

static int run(const struct spec_callback *spec)
{
	struct receiver_file files[PAGE_FILES];
	struct receiver_options options;
	struct callback c = {0};
	struct err err = {0};
	uint64_t lost;
	int status;

	fill_options(spec, &options);
	page_files(files);
	options.pages = files;
	options.pages_count = PAGE_FILES;
	signal(SIGPIPE, SIG_IGN);
	if (prepare(&c, &options, &err) < 0) {
		log_error("%s", err.text);
		receiver_free(c.receiver);
		loop_free(c.loop);
		return EXIT_FAILED;
	}
	log_info("listening on port %u: POST /ingest, the page at /, /metrics",
		(unsigned int)receiver_port(c.receiver));
	status = loop_run(c.loop);
	lost = receiver_stop(c.receiver, FLUSH_MS);
	if (lost > 0)
		log_error("%llu messages were acknowledged and could not be written",
			(unsigned long long)lost);
	log_info("%llu messages taken", (unsigned long long)receiver_messages(c.receiver));
	receiver_free(c.receiver);
	loop_free(c.loop);
	return status < 0 || lost > 0 ? EXIT_FAILED : status;
}

int main(int argc, char **argv)
{
	struct spec_callback spec;
	struct err err = {0};

	if (spec_parse(&spec_callback, &spec, argc, argv, &err) < 0) {
		fprintf(stderr, "ebpfdump-callback: %s\n", err.text);
		return EXIT_USAGE;
	}
	if (spec.help) {
		spec_help(&spec_callback, stdout);
		return EXIT_OK;
	}
	if (spec.version) {
		puts("ebpfdump-callback " EBPFDUMP_VERSION);
		return EXIT_OK;
	}
	if (spec.reference) {
		spec_reference(&spec_callback, stdout);
		puts("\n## Metrics\n");
		return receiver_reference(stdout) ? EXIT_FAILED : EXIT_OK;
	}
	log_setup((enum log_level)spec.log_level, (enum log_format)spec.log_format, "callback", "");
	return run(&spec);
}
