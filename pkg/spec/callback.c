/* SPDX-License-Identifier: Apache-2.0 */
/* The options of ebpfdump-callback. */
#include <errno.h>

#include "pkg/spec/spec.h"

#define KIB	UINT64_C(1024)
#define MIB	(1024 * KIB)
#define GIB	(1024 * MIB)
#define SECONDS UINT64_C(1000)

#define GROUP_IN      "What is taken in"
#define GROUP_OUT     "Where it goes"
#define GROUP_PAGE    "The page"
#define GROUP_SERVER  "The server"
#define GROUP_INSTEAD "Instead of running"

/* Each list is in the order of its enum. */
static const char *const log_levels[] = {"error", "warn", "info", "debug", NULL};
static const char *const log_formats[] = {"text", "json", NULL};

#define FIELD(name) .offset = offsetof(struct spec_callback, name)

static const struct spec_option options[] = {
	{
		.flag = "listen",
		.type = SPEC_STRING,
		.value = "HOST:PORT",
		.fallback = "127.0.0.1:8090",
		.min = 1,
		.max = 300,
		.group = GROUP_IN,
		.help = "Where it listens. An IPv6 address stands in brackets; no host: all "
			"addresses; port 0: any.",
		FIELD(listen),
	},
	{
		.flag = "host",
		.type = SPEC_NAMES,
		.value = "NAME",
		.min = 1,
		.max = 253,
		.name = SPEC_NAME_HOST,
		.group = GROUP_IN,
		.help = "A name under which it is called, as the Host header has it, without a "
			"port. Repeatable. Requests to other names are refused then, but for "
			"localhost and loopback addresses. None given: on a loopback address only "
			"those are taken, elsewhere any name.",
		FIELD(hosts),
	},
	{
		.flag = "body-bytes",
		.type = SPEC_SIZE,
		.value = "SIZE",
		.fallback = "64M",
		.min = KIB,
		.max = GIB,
		.group = GROUP_IN,
		.help = "Largest body of a POST, as sent and unpacked; a larger one is refused "
			"(413).",
		FIELD(body_bytes),
	},
	{
		.flag = "memory-bytes",
		.type = SPEC_SIZE,
		.value = "SIZE",
		.fallback = "256M",
		.min = MIB,
		.max = 64 * GIB,
		.group = GROUP_IN,
		.help = "Memory for all bodies that are being received. When it is used up, a "
			"POST is put off (429). At least twice --body-bytes.",
		FIELD(memory_bytes),
	},
	{
		.flag = "idempotency-keys",
		.type = SPEC_UINT,
		.value = "COUNT",
		.fallback = "65536",
		.min = 16,
		.max = 16 * MIB,
		.group = GROUP_IN,
		.help = "How many Idempotency-Keys are remembered, so that what comes twice is "
			"taken once.",
		FIELD(idempotency_keys),
	},
	{
		.flag = "token-file",
		.type = SPEC_STRING,
		.value = "FILE",
		.min = 1,
		.max = 4095,
		.group = GROUP_IN,
		.help = "Only who has the token in this file (Authorization: Bearer) may send "
			"messages and see them. Read again when it changes.",
		FIELD(token_file),
	},
	{
		.flag = "hmac-file",
		.type = SPEC_STRING,
		.value = "FILE",
		.min = 1,
		.max = 4095,
		.group = GROUP_IN,
		.help = "Only bodies signed with the key in this file are taken "
			"(X-Ebpfdump-Signature). Read again when it changes.",
		FIELD(hmac_file),
	},
	{
		.flag = "marker-key-file",
		.type = SPEC_STRING,
		.value = "FILE",
		.min = 1,
		.max = 4095,
		.group = GROUP_IN,
		.help = "The loaders' key of that name: they leave out traffic of the receiver "
			"that they know by it. Read again when it changes.",
		FIELD(marker_key_file),
	},
	{
		.flag = "dir",
		.type = SPEC_STRING,
		.value = "DIR",
		.min = 1,
		.max = 4000,
		.group = GROUP_OUT,
		.help = "Append messages to files in this directory, instead of standard output.",
		FIELD(dir),
	},
	{
		.flag = "file-bytes",
		.type = SPEC_SIZE,
		.value = "SIZE",
		.fallback = "64M",
		.min = 4 * KIB,
		.max = 64 * GIB,
		.group = GROUP_OUT,
		.help = "With --dir: a file that would grow beyond this is closed, and a new one "
			"begun.",
		FIELD(file_bytes),
	},
	{
		.flag = "files",
		.type = SPEC_UINT,
		.value = "COUNT",
		.fallback = "16",
		.min = 2,
		.max = 100000,
		.group = GROUP_OUT,
		.help = "With --dir: so many files are kept, the one being written included; the "
			"oldest is removed.",
		FIELD(files),
	},
	{
		.flag = "output-buffer",
		.type = SPEC_SIZE,
		.value = "SIZE",
		.fallback = "128M",
		.min = 64 * KIB,
		.max = 16 * GIB,
		.group = GROUP_OUT,
		.help = "Buffer for a slow reader of standard output; while it has no room for a "
			"POST, that is put off (429). More than --body-bytes.",
		FIELD(output_buffer),
	},
	{
		.flag = "log-level",
		.type = SPEC_CHOICE,
		.value = "LEVEL",
		.fallback = "info",
		.choices = log_levels,
		.group = GROUP_OUT,
		.help = "How much is logged to standard error.",
		FIELD(log_level),
	},
	{
		.flag = "log-format",
		.type = SPEC_CHOICE,
		.value = "FORMAT",
		.fallback = "text",
		.choices = log_formats,
		.group = GROUP_OUT,
		.help = "How log lines look.",
		FIELD(log_format),
	},
	{
		.flag = "keep",
		.type = SPEC_UINT,
		.value = "COUNT",
		.fallback = "10000",
		.min = 16,
		.max = 4 * MIB,
		.group = GROUP_PAGE,
		.help = "So many messages are kept in memory for the page, the newest.",
		FIELD(keep),
	},
	{
		.flag = "keep-bytes",
		.type = SPEC_SIZE,
		.value = "SIZE",
		.fallback = "128M",
		.min = MIB,
		.max = 64 * GIB,
		.group = GROUP_PAGE,
		.help = "And no more than fit into this much memory.",
		FIELD(keep_bytes),
	},
	{
		.flag = "streams",
		.type = SPEC_UINT,
		.value = "COUNT",
		.fallback = "32",
		.min = 1,
		.max = 1024,
		.group = GROUP_PAGE,
		.help = "Pages that may watch at a time (/api/stream); one more is put off (503).",
		FIELD(streams),
	},
	{
		.flag = "threads",
		.type = SPEC_UINT,
		.value = "COUNT",
		.fallback = "2",
		.min = 1,
		.max = 64,
		.group = GROUP_SERVER,
		.help = "Threads that take requests.",
		FIELD(threads),
	},
	{
		.flag = "connections",
		.type = SPEC_UINT,
		.value = "COUNT",
		.fallback = "512",
		.min = 4,
		.max = 65536,
		.group = GROUP_SERVER,
		.help = "Connections at a time; further ones wait. Must exceed --streams.",
		FIELD(connections),
	},
	{
		.flag = "request-timeout",
		.type = SPEC_DURATION,
		.value = "TIME",
		.fallback = "60s",
		.min = SECONDS,
		.max = 3600 * SECONDS,
		.group = GROUP_SERVER,
		.help = "A connection is closed if no request has arrived on it as a whole for so "
			"long.",
		FIELD(request_timeout_ms),
	},
	{
		.flag = "help",
		.type = SPEC_FLAG,
		.group = GROUP_INSTEAD,
		.help = "Show this text and exit. Also -h.",
		FIELD(help),
	},
	{
		.flag = "version",
		.type = SPEC_FLAG,
		.group = GROUP_INSTEAD,
		.help = "Show the version and exit.",
		FIELD(version),
	},
	{
		.flag = "reference",
		.type = SPEC_FLAG,
		.group = GROUP_INSTEAD,
		.help = "Show these options as the tables of docs/REFERENCE.md and exit.",
		FIELD(reference),
	},
};

static int check(const void *parsed, struct err *err)
{
	const struct spec_callback *spec = parsed;

	if (spec->listen[0] == '\0' || !spec_valid_listen(spec->listen))
		return err_set(err, EINVAL,
			"--listen: '%.60s' is not allowed: HOST:PORT, [IPV6]:PORT or :PORT",
			spec->listen);
	if (spec->memory_bytes / 2 < spec->body_bytes)
		return err_set(err, EINVAL,
			"--memory-bytes: %llu is not allowed: at least twice --body-bytes, %llu",
			(unsigned long long)spec->memory_bytes,
			(unsigned long long)spec->body_bytes);
	if (!spec->dir && spec->output_buffer <= spec->body_bytes)
		return err_set(err, EINVAL,
			"--output-buffer: %llu is not allowed: more than --body-bytes, %llu",
			(unsigned long long)spec->output_buffer,
			(unsigned long long)spec->body_bytes);
	if (spec->connections <= spec->streams)
		return err_set(err, EINVAL,
			"--connections: %llu is not allowed: more than --streams, %llu",
			(unsigned long long)spec->connections, (unsigned long long)spec->streams);
	return 0;
}

const struct spec_table spec_callback = {
	.program = "ebpfdump-callback",
	.about = "Receives what loaders POST to /ingest, writes each message as one line of JSON, "
		 "and shows\nthem on a page.\n",
	.options = options,
	.count = ARRAY_SIZE(options),
	.size = sizeof(struct spec_callback),
	.check = check,
};
