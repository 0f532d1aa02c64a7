/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include "pkg/spec/internal.h"

#define KIB	UINT64_C(1024)
#define MIB	(1024 * KIB)
#define GIB	(1024 * MIB)
#define SECONDS UINT64_C(1000)
#define HOURS	(3600 * SECONDS)

/* DUMP_LINE_MIN of pkg/dump, which this room does not see; test/unit/spec_test.c compares them. */
#define LINE_BYTES_MIN 2048

#define GROUP_CAPTURE  "What is captured"
#define GROUP_OUTPUT   "Output"
#define GROUP_OWN      "Its own traffic"
#define GROUP_CALLBACK "Callback"
#define GROUP_KERNEL   "Kernel side"
#define GROUP_LIMITS   "Limits"
#define GROUP_FILES    "Files"
#define GROUP_INSTEAD  "Instead of running"

/* Each list is in the order of its enum. */
static const char *const directions[] = {"egress", "ingress", NULL};
static const char *const messages[] = {"request", "response", NULL};
static const char *const outputs[] = {"auto", "json", "text", NULL};
static const char *const log_levels[] = {"error", "warn", "info", "debug", NULL};
static const char *const when_full[] = {"drop-oldest", "drop-newest", "drop-bodies", NULL};
static const char *const hooks[] = {"auto", "fentry", "kprobe", "tracepoint", NULL};

/* What proves who somebody is. */
static const char *const credentials[] = {
	"Authorization", "Proxy-Authorization", "Cookie", "Set-Cookie", "X-Api-Key", NULL};

#define FIELD(name) .offset = offsetof(struct spec, name)

static const struct spec_option loader_options[] = {
	{
		.flag = "interface",
		.path = "spec.interfaces",
		.type = SPEC_NAMES,
		.value = "NAME",
		.min = 1,
		.max = 15,
		.group = GROUP_CAPTURE,
		.help = "Only connections whose traffic is carried by this network device, as it "
			"is named in the socket's own network namespace (lo, eth0). Repeatable. "
			"None given: all.",
		FIELD(interfaces),
	},
	{
		.flag = "direction",
		.path = "spec.directions",
		.type = SPEC_CHOICES,
		.value = "WAY",
		.choices = directions,
		.group = GROUP_CAPTURE,
		.help = "Only messages that this machine sends (egress) or receives (ingress). "
			"Repeatable. None given: both.",
		FIELD(directions),
	},
	{
		.flag = "message",
		.path = "spec.messages",
		.type = SPEC_CHOICES,
		.value = "KIND",
		.choices = messages,
		.group = GROUP_CAPTURE,
		.help = "Only requests, or only responses. Repeatable. None given: both.",
		FIELD(messages),
	},
	{
		.flag = "namespace",
		.path = "spec.namespaces",
		.type = SPEC_NAMES,
		.value = "NAME",
		.min = 1,
		.max = 63,
		.name = SPEC_NAME_LABEL,
		.group = GROUP_CAPTURE,
		.help = "Only messages that a pod of this Kubernetes namespace sends or receives, "
			"seen at its own end of the connection. Repeatable. None given: all, also "
			"of what is in no pod.",
		FIELD(namespaces),
	},
	{
		.flag = "body-bytes",
		.path = "spec.bodyBytes",
		.type = SPEC_SIZE,
		.value = "SIZE",
		.fallback = "4096",
		.min = 0,
		.max = MIB,
		.group = GROUP_CAPTURE,
		.help = "How much of each body is kept; the rest is counted only. 0: no bodies.",
		FIELD(body_bytes),
	},
	{
		.flag = "redact",
		.path = "spec.redactHeaders",
		.type = SPEC_NAMES,
		.value = "NAME",
		.min = 1,
		.max = 64,
		.name = SPEC_NAME_HEADER,
		.names = credentials,
		.group = GROUP_CAPTURE,
		.help = "Headers whose values are replaced by a hash, with a key that each start "
			"draws anew: it tells equal values from different ones, and nothing else. "
			"Bodies and paths are not redacted. Repeatable; what is given holds "
			"instead of the default. none: nothing is redacted.",
		FIELD(redact),
	},
	{
		.flag = "output",
		.type = SPEC_CHOICE,
		.value = "FORMAT",
		.fallback = "auto",
		.choices = outputs,
		.group = GROUP_OUTPUT,
		.help = "How messages are written to standard output: json, one object a line; "
			"text, one line for people; auto, text on a terminal and json elsewhere.",
		FIELD(output),
	},
	{
		.flag = "line-bytes",
		.path = "spec.limits.lineBytes",
		.type = SPEC_SIZE,
		.value = "SIZE",
		.fallback = "16K",
		.min = LINE_BYTES_MIN,
		.max = MIB,
		.group = GROUP_OUTPUT,
		.help = "Longest line of JSON, newline included. A longer message is cut: its body "
			"first, then its header values. Container runtimes split what exceeds 16K.",
		FIELD(line_bytes),
	},
	{
		.flag = "output-buffer",
		.path = "spec.limits.outputBytes",
		.type = SPEC_SIZE,
		.value = "SIZE",
		.fallback = "8M",
		.min = 64 * KIB,
		.max = GIB,
		.group = GROUP_OUTPUT,
		.help = "Buffer for a slow reader of standard output; when it is full, messages "
			"are dropped and counted. At least twice --line-bytes.",
		FIELD(output_buffer),
	},
	{
		.flag = "node",
		.type = SPEC_STRING,
		.value = "NAME",
		.fallback = "",
		.max = 253,
		.group = GROUP_OUTPUT,
		.help = "What messages and log lines call this machine. Not given: its host name.",
		FIELD(node),
	},
	{
		.flag = "pod-logs",
		.type = SPEC_STRING,
		.value = "DIR",
		.fallback = "/var/log",
		.max = 1023,
		.group = GROUP_OUTPUT,
		.help = "Where the kubelet keeps pods' logs: the names of what is in its directories "
			"pods and containers tell whose process a message belongs to. No log is "
			"read. Empty: messages name no pod.",
		FIELD(pod_logs),
	},
	{
		.flag = "log-level",
		.path = "spec.logLevel",
		.type = SPEC_CHOICE,
		.value = "LEVEL",
		.fallback = "info",
		.choices = log_levels,
		.group = GROUP_OUTPUT,
		.help = "How much is logged to standard error.",
		FIELD(log_level),
	},
	{
		.flag = "listen",
		.type = SPEC_STRING,
		.value = "HOST:PORT",
		.fallback = "127.0.0.1:9464",
		.max = 300,
		.group = GROUP_OUTPUT,
		.help = "Where /healthz, /readyz and /metrics are served. An IPv6 address stands "
			"in brackets; no host: all addresses; port 0: any. Empty: not served.",
		FIELD(listen),
	},
	{
		.flag = "marker-key-file",
		.type = SPEC_STRING,
		.value = "FILE",
		.fallback = "",
		.max = 4095,
		.group = GROUP_OWN,
		.help = "The key by which loaders and the receiver know each other's traffic and "
			"leave it out; the same everywhere. 16 bytes to 4 KiB (32 random ones are "
			"right), newlines at the end do not count; read anew when it changes. "
			"Empty: a random key, which only this loader knows.",
		FIELD(marker_key_file),
	},
	{
		.flag = "relayed-rate",
		.type = SPEC_UINT,
		.value = "COUNT",
		.fallback = "10",
		.min = 0,
		.max = 60000,
		.group = GROUP_OWN,
		.help = "Messages with a copied marker that are captured in a minute. More are left out and "
			"counted: an HTTP proxy between loaders and receiver hands on every POST, "
			"and each one captured would make the next.",
		FIELD(relayed_rate),
	},
	{
		.flag = "callback",
		.path = "spec.callback",
		.type = SPEC_STRING,
		.value = "URL",
		.fallback = "",
		.max = 2048,
		.group = GROUP_CALLBACK,
		.help = "Messages are POSTed to this URL, as JSON, instead of being written to standard output. Empty: they are not. http or https, no user or password in it: these go into --callback-header-file. docs/CALLBACK.md says what a receiver can rely on.",
		FIELD(callback),
	},
	{
		.flag = "callback-concurrency",
		.path = "spec.delivery.concurrency",
		.type = SPEC_UINT,
		.value = "COUNT",
		.fallback = "4",
		.min = 1,
		.max = 32,
		.group = GROUP_CALLBACK,
		.help = "Requests on their way at a time. Messages of one connection are never in two of them.",
		FIELD(callback_concurrency),
	},
	{
		.flag = "callback-batch-messages",
		.path = "spec.delivery.batch.messages",
		.type = SPEC_UINT,
		.value = "COUNT",
		.fallback = "1",
		.min = 1,
		.max = 100000,
		.group = GROUP_CALLBACK,
		.help = "Messages in one request, one a line (application/x-ndjson). 1: each has its own request (application/json).",
		FIELD(callback_batch_messages),
	},
	{
		.flag = "callback-batch-bytes",
		.path = "spec.delivery.batch.bytes",
		.type = SPEC_SIZE,
		.value = "SIZE",
		.fallback = "512K",
		.min = KIB,
		.max = 64 * MIB,
		.group = GROUP_CALLBACK,
		.help = "A batch of so many bytes is not made larger.",
		FIELD(callback_batch_bytes),
	},
	{
		.flag = "callback-batch-wait",
		.path = "spec.delivery.batch.wait",
		.type = SPEC_DURATION,
		.value = "TIME",
		.fallback = "1s",
		.min = 0,
		.max = 60 * SECONDS,
		.group = GROUP_CALLBACK,
		.help = "A batch that is not full is sent when its oldest message has waited for so long.",
		FIELD(callback_batch_wait_ms),
	},
	{
		.flag = "callback-gzip",
		.path = "spec.delivery.gzip",
		.type = SPEC_FLAG,
		.group = GROUP_CALLBACK,
		.help = "Request bodies are packed (Content-Encoding: gzip).",
		FIELD(callback_gzip),
	},
	{
		.flag = "callback-timeout",
		.path = "spec.delivery.timeout",
		.type = SPEC_DURATION,
		.value = "TIME",
		.fallback = "10s",
		.min = 100,
		.max = 600 * SECONDS,
		.group = GROUP_CALLBACK,
		.help = "A request that is not answered for so long has failed, and is tried again.",
		FIELD(callback_timeout_ms),
	},
	{
		.flag = "callback-ca",
		.type = SPEC_STRING,
		.value = "FILE",
		.min = 1,
		.max = 4095,
		.group = GROUP_CALLBACK,
		.help = "Certificates in PEM that the receiver's certificate is checked against, instead of the system's.",
		FIELD(callback_ca),
	},
	{
		.flag = "callback-cert",
		.type = SPEC_STRING,
		.value = "FILE",
		.min = 1,
		.max = 4095,
		.group = GROUP_CALLBACK,
		.help = "Client certificate in PEM. Read again for each connection.",
		FIELD(callback_cert),
	},
	{
		.flag = "callback-key",
		.type = SPEC_STRING,
		.value = "FILE",
		.min = 1,
		.max = 4095,
		.group = GROUP_CALLBACK,
		.help = "Its private key in PEM.",
		FIELD(callback_key),
	},
	{
		.flag = "callback-header-file",
		.type = SPEC_STRING,
		.value = "FILE",
		.min = 1,
		.max = 4095,
		.group = GROUP_CALLBACK,
		.help = "Lines of the form Name: value, which each request carries; for Authorization, say. Read again when it changes.",
		FIELD(callback_header_file),
	},
	{
		.flag = "callback-hmac-file",
		.type = SPEC_STRING,
		.value = "FILE",
		.min = 1,
		.max = 4095,
		.group = GROUP_CALLBACK,
		.help = "Key with which each body is signed, 16 bytes to 4K (X-Ebpfdump-Signature: sha256=...). Read again when it changes.",
		FIELD(callback_hmac_file),
	},
	{
		.flag = "queue-bytes",
		.path = "spec.delivery.queueBytes",
		.type = SPEC_SIZE,
		.value = "SIZE",
		.fallback = "32M",
		.min = MIB,
		.max = 16 * GIB,
		.group = GROUP_CALLBACK,
		.help = "Memory for messages that the receiver does not have yet.",
		FIELD(queue_bytes),
	},
	{
		.flag = "when-full",
		.path = "spec.delivery.whenFull",
		.type = SPEC_CHOICE,
		.value = "WHAT",
		.fallback = "drop-oldest",
		.choices = when_full,
		.group = GROUP_CALLBACK,
		.help = "What gives way when neither memory nor spool has room: the oldest messages, the new one, or the bodies of new ones once half is full, and then the oldest.",
		FIELD(when_full),
	},
	{
		.flag = "spool-dir",
		.type = SPEC_STRING,
		.value = "DIR",
		.min = 1,
		.max = 4000,
		.group = GROUP_CALLBACK,
		.help = "A folder for what memory has no room for, if --spool-bytes is given. It outlives the loader.",
		FIELD(spool_dir),
	},
	{
		.flag = "spool-bytes",
		.path = "spec.delivery.spool.bytes",
		.type = SPEC_SIZE,
		.value = "SIZE",
		.fallback = "0",
		.min = MIB,
		.max = 1024 * GIB,
		.or_zero = true,
		.group = GROUP_CALLBACK,
		.help = "How much --spool-dir may hold. 0: nothing is spooled.",
		FIELD(spool_bytes),
	},
	{
		.flag = "flush-timeout",
		.path = "spec.delivery.flushTimeout",
		.type = SPEC_DURATION,
		.value = "TIME",
		.fallback = "10s",
		.min = 0,
		.max = 600 * SECONDS,
		.group = GROUP_CALLBACK,
		.help = "How long what waits may take at the end, whether for a callback or a slow reader; then it is spooled, or dropped and counted.",
		FIELD(flush_timeout_ms),
	},
	{
		.flag = "hook",
		.path = "spec.hook",
		.type = SPEC_CHOICE,
		.value = "KIND",
		.fallback = "auto",
		.choices = hooks,
		.group = GROUP_KERNEL,
		.help = "How the programs hang in the kernel. auto takes, per direction, the best "
			"that this kernel can load and attach; --check shows which that is.",
		FIELD(hook),
	},
	{
		.flag = "ring-bytes",
		.path = "spec.limits.ringBytes",
		.type = SPEC_SIZE,
		.value = "SIZE",
		.fallback = "8M",
		.min = 4 * KIB,
		.max = GIB,
		.group = GROUP_KERNEL,
		.help = "Ring buffer between kernel and loader, rounded up to a power of two. When "
			"it is full, records are lost and counted.",
		FIELD(ring_bytes),
	},
	{
		.flag = "capture-bytes",
		.path = "spec.limits.captureBytes",
		.type = SPEC_SIZE,
		.value = "SIZE",
		.fallback = "0",
		.min = 256,
		.max = MIB,
		.or_zero = true,
		.group = GROUP_KERNEL,
		.help = "How much of one send or receive call is copied; the rest is skipped and "
			"counted. 0: 16K for headers, and --body-bytes.",
		FIELD(capture_bytes),
	},
	{
		.flag = "poll-interval",
		.type = SPEC_DURATION,
		.value = "TIME",
		.fallback = "20ms",
		.min = 1,
		.max = SECONDS,
		.group = GROUP_KERNEL,
		.help = "The ring buffer is emptied at least so often. Longer: fewer wake-ups, "
			"later lines.",
		FIELD(poll_interval_ms),
	},
	{
		.flag = "connections",
		.path = "spec.limits.connections",
		.type = SPEC_UINT,
		.value = "COUNT",
		.fallback = "65536",
		.min = 16,
		.max = 4 * MIB,
		.group = GROUP_LIMITS,
		.help = "Connections followed at a time; beyond it the least recently used one is "
			"given up and counted.",
		FIELD(connections),
	},
	{
		.flag = "buffer-bytes",
		.path = "spec.limits.bufferBytes",
		.type = SPEC_SIZE,
		.value = "SIZE",
		.fallback = "64M",
		.min = 64 * KIB,
		.max = 16 * GIB,
		.group = GROUP_LIMITS,
		.help = "Memory for the unfinished messages of all connections together.",
		FIELD(buffer_bytes),
	},
	{
		.flag = "head-bytes",
		.path = "spec.limits.headBytes",
		.type = SPEC_SIZE,
		.value = "SIZE",
		.fallback = "72K",
		.min = KIB,
		.max = MIB,
		.group = GROUP_LIMITS,
		.help = "Longest head of a message, its first line and headers. A longer one is "
			"reported as far as it goes, with an error.",
		FIELD(head_bytes),
	},
	{
		.flag = "headers",
		.path = "spec.limits.headers",
		.type = SPEC_UINT,
		.value = "COUNT",
		.fallback = "256",
		.min = 8,
		.max = 4096,
		.group = GROUP_LIMITS,
		.help = "Most header fields of a message.",
		FIELD(headers),
	},
	{
		.flag = "pending",
		.path = "spec.limits.pendingRequests",
		.type = SPEC_UINT,
		.value = "COUNT",
		.fallback = "64",
		.min = 1,
		.max = 4096,
		.group = GROUP_LIMITS,
		.help = "Requests without a response yet that are remembered per connection, to "
			"say what a response answers.",
		FIELD(pending),
	},
	{
		.flag = "cgroups",
		.path = "spec.limits.cgroups",
		.type = SPEC_UINT,
		.value = "COUNT",
		.fallback = "16384",
		.min = 16,
		.max = 1048576,
		.group = GROUP_LIMITS,
		.help = "Most control groups of the node that are known at once, to say whose "
			"container a message belongs to.",
		FIELD(cgroups),
	},
	{
		.flag = "hold",
		.path = "spec.limits.hold",
		.type = SPEC_DURATION,
		.value = "TIME",
		.fallback = "1s",
		.min = 0,
		.max = 60 * SECONDS,
		.group = GROUP_LIMITS,
		.help = "How long bytes that came too early wait for those before them.",
		FIELD(hold_ms),
	},
	{
		.flag = "idle",
		.path = "spec.limits.idle",
		.type = SPEC_DURATION,
		.value = "TIME",
		.fallback = "2h",
		.min = 0,
		.max = 24 * HOURS,
		.group = GROUP_LIMITS,
		.help = "A connection without traffic for so long is forgotten. 0: never.",
		FIELD(idle_ms),
	},
	{
		.flag = "record",
		.type = SPEC_STRING,
		.value = "FILE",
		.min = 1,
		.max = 4095,
		.group = GROUP_FILES,
		.help = "Also write the raw capture records to this file, for --replay. -: to "
			"standard output, which then carries no messages.",
		FIELD(record),
	},
	{
		.flag = "replay",
		.type = SPEC_STRING,
		.value = "FILE",
		.min = 1,
		.max = 4095,
		.group = GROUP_FILES,
		.help = "Read capture records from this file instead of the kernel, then exit. -: "
			"from standard input.",
		FIELD(replay),
	},
	{
		.flag = "check",
		.type = SPEC_FLAG,
		.group = GROUP_INSTEAD,
		.help = "Show what this kernel can run and what is missing for the rest, and exit.",
		FIELD(check),
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

const struct spec_option *spec_options(size_t *ret_count)
{
	*ret_count = ARRAY_SIZE(loader_options);
	return loader_options;
}

/* ---- numbers and what is allowed, for people ---- */

struct text {
	char s[256];
};

static const char *number_text(enum spec_type type, uint64_t value, struct text *out)
{
	static const struct unit {
		uint64_t size;
		const char *suffix;
	} sizes[] = {{GIB, "G"}, {MIB, "M"}, {KIB, "K"}, {1, ""}},
	  durations[] = {{HOURS, "h"}, {60 * SECONDS, "m"}, {SECONDS, "s"}, {1, "ms"}},
	  plain[] = {{1, ""}};
	const struct unit *unit = type == SPEC_SIZE	  ? sizes
				  : type == SPEC_DURATION ? durations
							  : plain;

	/* the largest unit that it is a whole number of */
	while (value > 0 && value % unit->size != 0)
		unit++;
	if (value == 0)
		snprintf(out->s, sizeof(out->s), "0");
	else
		snprintf(out->s, sizeof(out->s), "%llu%s", (unsigned long long)(value / unit->size),
			unit->suffix);
	return out->s;
}

static void add(struct text *out, const char *text)
{
	size_t len = strlen(out->s);

	snprintf(out->s + len, sizeof(out->s) - len, "%s", text);
}

/* "auto, json or text" */
static void add_choices(struct text *out, const char *const *choices)
{
	for (size_t i = 0; choices[i]; i++) {
		if (i > 0)
			add(out, choices[i + 1] ? ", " : " or ");
		add(out, choices[i]);
	}
}

/* "64K to 1G". */
static void add_range(struct text *out, const struct spec_option *o)
{
	struct text number;

	if (o->or_zero)
		add(out, "0, or ");
	add(out, number_text(o->type, o->min, &number));
	add(out, " to ");
	add(out, number_text(o->type, o->max, &number));
}

/* "64K to 1G", "auto, json or text": for tables. Empty where anything goes. */
static const char *bounds_text(const struct spec_option *o, struct text *out)
{
	out->s[0] = '\0';
	switch (o->type) {
	case SPEC_UINT:
	case SPEC_SIZE:
	case SPEC_DURATION:
		add_range(out, o);
		break;
	case SPEC_CHOICE:
	case SPEC_CHOICES:
		add_choices(out, o->choices);
		break;
	case SPEC_FLAG:
	case SPEC_STRING:
	case SPEC_NAMES:
		break;
	}
	return out->s;
}

/* What an error says: it must be enough to get it right. */
static const char *allowed_text(const struct spec_option *o, struct text *out)
{
	struct text bounds, number;

	bounds_text(o, &bounds);
	out->s[0] = '\0';
	switch (o->type) {
	case SPEC_FLAG:
		add(out, "no value");
		break;
	case SPEC_UINT:
		add(out, "a number, ");
		add(out, bounds.s);
		break;
	case SPEC_SIZE:
		add(out, "a size, ");
		add(out, bounds.s);
		add(out, ", in bytes or with suffix K, M, G");
		break;
	case SPEC_DURATION:
		add(out, "a time, ");
		add(out, bounds.s);
		add(out, ", with unit ms, s, m, h");
		break;
	case SPEC_CHOICE:
	case SPEC_CHOICES:
		add(out, bounds.s);
		break;
	case SPEC_STRING:
		add(out, o->min > 0 ? "1 to " : "at most ");
		add(out, number_text(SPEC_UINT, o->max, &number));
		add(out, " bytes");
		break;
	case SPEC_NAMES:
		if (o->names)
			add(out, "none, or ");
		add(out, o->name == SPEC_NAME_HEADER ? "a header name of " : "a name of ");
		add(out, number_text(SPEC_UINT, o->min, &number));
		add(out, " to ");
		add(out, number_text(SPEC_UINT, o->max, &number));
		add(out, " bytes");
		if (o->name == SPEC_NAME_INTERFACE)
			add(out, " without blanks and '/', not '.' or '..'");
		if (o->name == SPEC_NAME_HOST)
			add(out, " without ':', '/', '@' and blanks");
		if (o->name == SPEC_NAME_LABEL)
			add(out, " of a-z, 0-9 and '-', which is neither first nor last");
		break;
	}
	return out->s;
}

/* A user's text within an error: one line, not too long. */
static const char *shown(const char *value, struct text *out)
{
	size_t len = strlen(value), n = MIN(len, (size_t)60);

	for (size_t i = 0; i < n; i++)
		out->s[i] = (unsigned char)value[i] < 0x20 || value[i] == 0x7f ? '?' : value[i];
	/* not through the middle of a character */
	if (n < len)
		n = utf8_valid(out->s, n);
	out->s[n] = '\0';
	if (n < len)
		add(out, "...");
	return out->s;
}

static int not_allowed(struct err *err, const struct spec_option *o, const char *value)
{
	struct text text, allowed;

	return err_set(err, EINVAL, "--%s: '%s' is not allowed: %s", o->flag, shown(value, &text),
		allowed_text(o, &allowed));
}

/* ---- values ---- */

static int find_choice(const struct spec_option *o, const char *value)
{
	for (int i = 0; o->choices[i]; i++)
		if (strcmp(o->choices[i], value) == 0)
			return i;
	return -EINVAL;
}

/* As the kernel's dev_valid_name() has it. */
static bool valid_interface(const char *name)
{
	return strcmp(name, ".") != 0 && strcmp(name, "..") != 0 &&
	       strpbrk(name, "/: \t\n\v\f\r") == NULL;
}

/* A token of RFC 9110, 5.6.2. */
static bool valid_header(const char *name)
{
	return name[strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
				 "!#$%&'*+-.^_`|~")] == '\0';
}

static bool valid_label(const char *name)
{
	size_t len = strlen(name);

	return name[0] != '-' && name[len - 1] != '-' &&
	       strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == len;
}

static bool valid_name(const struct spec_option *o, const char *name)
{
	size_t len = strlen(name);

	if (len < o->min || len > o->max)
		return false;
	if (o->name == SPEC_NAME_HOST)
		return strpbrk(name, "/:@ \t\n\v\f\r") == NULL;
	if (o->name == SPEC_NAME_LABEL)
		return valid_label(name);
	return o->name == SPEC_NAME_HEADER ? valid_header(name) : valid_interface(name);
}

static bool same_name(const struct spec_option *o, const char *a, const char *b)
{
	if (o->name != SPEC_NAME_INTERFACE)
		return span_eq_nocase(span_str(a), span_str(b));
	return strcmp(a, b) == 0;
}

static int add_name(const struct spec_option *o, const char *value, bool first,
	struct spec_names *names, struct err *err)
{
	struct text text;

	if (!valid_name(o, value))
		return not_allowed(err, o, value);
	if (first)
		names->count = 0;
	for (uint32_t i = 0; i < names->count; i++)
		if (same_name(o, names->names[i], value))
			return 0;
	if (names->count == SPEC_NAMES_MAX)
		return err_set(err, EINVAL, "--%s: '%s' is one too many: at most %d names", o->flag,
			shown(value, &text), SPEC_NAMES_MAX);
	names->names[names->count++] = value;
	return 0;
}

/* "none" becomes an empty list. */
static int take_none(const struct spec_option *o, struct spec_names *names, struct err *err)
{
	for (uint32_t i = 0; i < names->count; i++) {
		if (!same_name(o, names->names[i], "none"))
			continue;
		if (names->count > 1)
			return err_set(err, EINVAL,
				"--%s: '%s' is not allowed: names are given as well", o->flag,
				names->names[i]);
		*names = (struct spec_names){0};
	}
	return 0;
}

static int parse_number(const struct spec_option *o, const char *value, uint64_t *ret_value)
{
	uint64_t min = o->or_zero ? 0 : o->min, number;
	struct span text = span_str(value);
	int r;

	if (o->type == SPEC_SIZE)
		r = num_parse_size(text, min, o->max, &number);
	else if (o->type == SPEC_DURATION)
		r = num_parse_duration(text, min, o->max, &number);
	else
		r = num_parse(text, min, o->max, &number);
	if (r < 0)
		return r;
	if (number < o->min && number != 0)
		return -ERANGE;
	*ret_value = number;
	return 0;
}

static int set_value(
	void *spec, const struct spec_option *o, const char *value, bool first, struct err *err)
{
	void *field = (char *)spec + o->offset;
	int r = 0;

	switch (o->type) {
	case SPEC_FLAG:
		*(bool *)field = true;
		return 0;
	case SPEC_UINT:
	case SPEC_SIZE:
	case SPEC_DURATION:
		r = parse_number(o, value, field);
		break;
	case SPEC_STRING:
		if (strlen(value) < o->min || strlen(value) > o->max)
			r = -EINVAL;
		else
			*(const char **)field = value;
		break;
	case SPEC_CHOICE:
		r = find_choice(o, value);
		if (r >= 0)
			*(uint32_t *)field = (uint32_t)r;
		break;
	case SPEC_CHOICES:
		r = find_choice(o, value);
		if (r >= 0)
			*(uint32_t *)field = (first ? 0 : *(uint32_t *)field) | UINT32_C(1) << r;
		break;
	case SPEC_NAMES:
		return add_name(o, value, first, field, err);
	}
	return r < 0 ? not_allowed(err, o, value) : 0;
}

bool spec_value_allowed(const struct spec_option *o, const char *value)
{
	struct spec scratch = {0};

	return set_value(&scratch, o, value, true, NULL) == 0;
}

static int set_defaults(const struct spec_table *table, void *spec, struct err *err)
{
	memset(spec, 0, table->size);
	for (size_t i = 0; i < table->count; i++) {
		const struct spec_option *o = &table->options[i];
		int r = 0;

		if (o->fallback)
			r = set_value(spec, o, o->fallback, true, err);
		for (uint32_t n = 0; o->type == SPEC_CHOICES && o->choices[n]; n++)
			*(uint32_t *)((char *)spec + o->offset) |= UINT32_C(1) << n;
		for (uint32_t n = 0; r == 0 && o->names && o->names[n]; n++)
			r = set_value(spec, o, o->names[n], n == 0, err);
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- flags ---- */

/* Levenshtein's distance; words longer than the row are as far as can be. */
static size_t distance(struct span a, struct span b)
{
	size_t row[32];

	if (b.len >= ARRAY_SIZE(row) || a.len >= ARRAY_SIZE(row))
		return SIZE_MAX;
	for (size_t j = 0; j <= b.len; j++)
		row[j] = j;
	for (size_t i = 0; i < a.len; i++) {
		size_t diagonal = row[0];

		row[0] = i + 1;
		for (size_t j = 0; j < b.len; j++) {
			size_t change = diagonal + (a.p[i] != b.p[j]);

			diagonal = row[j + 1];
			row[j + 1] = MIN(MIN(row[j], row[j + 1]) + 1, change);
		}
	}
	return row[b.len];
}

static int unknown_flag(const struct spec_table *table, struct err *err, const char *arg)
{
	const char *name = arg + strspn(arg, "-");
	struct span word = span_of(name, strcspn(name, "="));
	const struct spec_option *best = NULL;
	size_t best_distance = 3;
	struct text text;

	for (size_t i = 0; i < table->count; i++) {
		struct span flag = span_str(table->options[i].flag);
		size_t d = distance(word, flag);

		/* what is cut short or has an ending too many is near as well */
		if (word.len >= 3 && memcmp(word.p, flag.p, MIN(word.len, flag.len)) == 0)
			d = MIN(d, (size_t)1);
		if (d < best_distance && d < word.len) {
			best = &table->options[i];
			best_distance = d;
		}
	}
	if (best)
		return err_set(err, EINVAL, "%s: there is no such flag: did you mean --%s?",
			shown(arg, &text), best->flag);
	return err_set(
		err, EINVAL, "%s: there is no such flag: --help lists them", shown(arg, &text));
}

static const struct spec_option *find_option(const struct spec_table *table, struct span name)
{
	for (size_t i = 0; i < table->count; i++)
		if (span_eq(span_str(table->options[i].flag), name))
			return &table->options[i];
	return NULL;
}

/* One flag, argv[*i]; moves *i over its value. */
static int parse_flag(const struct spec_table *table, void *spec, int argc, char *const argv[],
	int *i, bool *given, struct err *err)
{
	const char *arg = argv[*i], *name, *value;
	const struct spec_option *o;
	struct text text;
	bool first;

	if (strcmp(arg, "-h") == 0)
		arg = "--help";
	if (arg[0] != '-' || arg[1] == '\0')
		return err_set(err, EINVAL, "'%s' is not allowed: flags only, --help lists them",
			shown(arg, &text));
	name = arg + 2;
	if (strncmp(arg, "--", 2) != 0 || name[0] == '\0')
		return unknown_flag(table, err, arg);
	value = strchr(name, '=');
	o = find_option(table, span_of(name, value ? (size_t)(value - name) : strlen(name)));
	if (!o)
		return unknown_flag(table, err, arg);

	if (value)
		value++;
	if (o->type == SPEC_FLAG && value)
		return not_allowed(err, o, value);
	if (o->type != SPEC_FLAG && !value) {
		/* `--record --check` has forgotten a value; `--record=--check` means it */
		if (*i + 1 >= argc || strncmp(argv[*i + 1], "--", 2) == 0)
			return err_set(err, EINVAL, "--%s: its value is missing: %s", o->flag,
				allowed_text(o, &text));
		value = argv[++*i];
	}
	first = !given[o - table->options];
	given[o - table->options] = true;
	return set_value(spec, o, value, first, err);
}

/* "HOST:PORT", "[V6]:PORT", ":PORT" or nothing. That the host exists is telemetry's to find out. */
bool spec_valid_listen(const char *listen)
{
	const char *port = strrchr(listen, ':');
	const char *host_end = port;
	uint64_t number;

	if (listen[0] == '\0')
		return true;
	if (!port || num_parse(span_str(port + 1), 0, UINT16_MAX, &number) < 0)
		return false;
	if (listen[0] == '[')
		return host_end - listen > 2 && host_end[-1] == ']';
	return strcspn(listen, ":[]/ ") == (size_t)(host_end - listen);
}

const char *spec_url_fault(const char *url)
{
	size_t scheme = strncasecmp(url, "http://", 7) == 0    ? 7
			: strncasecmp(url, "https://", 8) == 0 ? 8
							       : 0;
	const char *host = url + scheme, *colon;
	struct span authority;
	uint64_t port;

	for (const char *p = url; *p; p++)
		if ((unsigned char)*p <= 0x20 || *p == 0x7f || *p == '\\' || *p == '#')
			return "a blank, control character, '\\' or '#' in it";
	if (scheme == 0)
		return "it must begin with http:// or https://";
	authority = span_of(host, strcspn(host, "/?"));
	if (memchr(authority.p, '@', authority.len))
		return "user and password are not allowed in it (everybody sees arguments): see "
		       "--callback-header-file";
	colon = memrchr(authority.p, ':', authority.len);
	if (colon && !memchr(colon, ']', authority.len - (size_t)(colon - host))) {
		size_t rest = authority.len - (size_t)(colon + 1 - host);

		if (num_parse(span_of(colon + 1, rest), 1, UINT16_MAX, &port) < 0)
			return "its port is not a number from 1 to 65535";
		authority.len = (size_t)(colon - host);
	}
	if (authority.len == 0)
		return "it has no host";
	if (authority.p[0] != '[' && memchr(authority.p, ':', authority.len))
		return "an IPv6 address stands in brackets";
	return NULL;
}

static int check_callback(const struct spec *spec, struct err *err)
{
	const char *fault = spec->callback[0] ? spec_url_fault(spec->callback) : NULL;
	struct text text, line;

	if (fault)
		return err_set(err, EINVAL, "--callback: the URL is not allowed: %s", fault);
	if (!spec->callback_cert != !spec->callback_key)
		return err_set(err, EINVAL, "--callback-cert and --callback-key come together");
	if (spec->spool_dir && !spec->spool_bytes)
		return err_set(err, EINVAL, "--spool-dir: --spool-bytes is missing");
	/* A replay waits until half of the queue is free; a line must fit into that. */
	if (spec->queue_bytes / 2 < spec->line_bytes + 4 * KIB)
		return err_set(err, EINVAL,
			"--queue-bytes: '%s' is not allowed: more than twice --line-bytes, %s",
			number_text(SPEC_SIZE, spec->queue_bytes, &text),
			number_text(SPEC_SIZE, spec->line_bytes, &line));
	if (spec->callback[0] && spec->output == SPEC_OUTPUT_TEXT)
		return err_set(err, EINVAL,
			"--output: 'text' is not allowed: what --callback gets is JSON");
	if (spec->callback[0] && spec->record && strcmp(spec->record, "-") == 0)
		return err_set(err, EINVAL,
			"--record: '-' is not allowed: together with --callback it needs a file");
	return 0;
}

static int check_loader(const void *parsed, struct err *err)
{
	const struct spec *spec = parsed;
	struct text text, line;

	if (!spec_valid_listen(spec->listen))
		return err_set(err, EINVAL,
			"--listen: '%s' is not allowed: HOST:PORT, [IPV6]:PORT, :PORT or nothing",
			shown(spec->listen, &text));
	/* A replay waits until half of the buffer is free; a line must fit into that. */
	if (spec->output_buffer / 2 < spec->line_bytes)
		return err_set(err, EINVAL,
			"--output-buffer: '%s' is not allowed: at least twice --line-bytes, %s",
			number_text(SPEC_SIZE, spec->output_buffer, &text),
			number_text(SPEC_SIZE, spec->line_bytes, &line));
	if (spec->namespaces.count && !spec->pod_logs[0])
		return err_set(err, EINVAL,
			"--namespace: '%s' is not allowed: without --pod-logs no pod is known",
			spec->namespaces.names[0]);
	if (spec->namespaces.count && spec->replay)
		return err_set(err, EINVAL,
			"--namespace: '%s' is not allowed: a --replay knows no pods",
			spec->namespaces.names[0]);
	if (spec->record && spec->replay)
		return err_set(err, EINVAL,
			"--record: '%s' is not allowed: together with --replay nothing is captured",
			shown(spec->record, &text));
	if (spec->record && strcmp(spec->record, "-") == 0 && spec->output != SPEC_OUTPUT_AUTO)
		return err_set(err, EINVAL,
			"--record: '-' is not allowed: --output %s goes to standard output as well",
			outputs[spec->output]);
	return check_callback(spec, err);
}

int spec_parse(
	const struct spec_table *table, void *spec, int argc, char *const argv[], struct err *err)
{
	bool given[SPEC_OPTIONS_MAX] = {false};
	CLEANUP(freep)
	void *parsed = malloc(table->size);
	int r;

	if (!parsed)
		return err_set(err, ENOMEM, "out of memory");
	r = set_defaults(table, parsed, err);
	for (int i = 1; r == 0 && i < argc; i++)
		r = parse_flag(table, parsed, argc, argv, &i, given, err);
	for (size_t i = 0; r == 0 && i < table->count; i++)
		if (table->options[i].names)
			r = take_none(&table->options[i],
				(struct spec_names *)((char *)parsed + table->options[i].offset),
				err);
	if (r == 0 && table->check)
		r = table->check(parsed, err);
	if (r == 0)
		memcpy(spec, parsed, table->size);
	return r;
}

/* ---- help ---- */

#define HELP_COLUMN 27
#define HELP_WIDTH  96

/* Appends words at *column, breaking lines between them. */
static void print_words(FILE *out, const char *text, size_t *column)
{
	while (*text) {
		size_t len = strcspn(text, " ");

		if (*column + 1 + len > HELP_WIDTH) {
			fprintf(out, "\n%*s", HELP_COLUMN, "");
			*column = HELP_COLUMN;
		} else {
			fputc(' ', out);
			*column += 1;
		}
		/* the first word of a line stands right at the column */
		fwrite(text, 1, len, out);
		*column += len;
		text += len;
		text += strspn(text, " ");
	}
}

/* The default, for people; empty: there is none to speak of. */
static const char *default_text(const struct spec_option *o, struct text *out)
{
	out->s[0] = '\0';
	if (o->fallback)
		add(out, o->fallback);
	for (size_t i = 0; o->names && o->names[i]; i++) {
		add(out, i > 0 ? ", " : "");
		add(out, o->names[i]);
	}
	return out->s;
}

static void print_option(FILE *out, const struct spec_option *o)
{
	struct text bounds, text;
	size_t column;
	int n;

	n = fprintf(out, "  --%s%s%s", o->flag, o->value ? " " : "", o->value ? o->value : "");
	if (n >= HELP_COLUMN - 1)
		n = fprintf(out, "\n") - 1;
	fprintf(out, "%*s", HELP_COLUMN - 1 - MAX(n, 0), "");
	column = HELP_COLUMN - 1;
	print_words(out, o->help, &column);
	bounds_text(o, &bounds);
	if (bounds.s[0]) {
		print_words(out, "Allowed:", &column);
		print_words(out, bounds.s, &column);
		fputc('.', out);
		column++;
	}
	if (default_text(o, &text)[0]) {
		print_words(out, "Default:", &column);
		print_words(out, text.s, &column);
		fputc('.', out);
	}
	fputc('\n', out);
}

static bool starts_group(const struct spec_table *table, size_t i)
{
	return i == 0 || strcmp(table->options[i - 1].group, table->options[i].group) != 0;
}

void spec_help(const struct spec_table *table, FILE *out)
{
	fprintf(out, "Usage: %s [--FLAG VALUE | --FLAG=VALUE]...\n\n%s", table->program,
		table->about);
	for (size_t i = 0; i < table->count; i++) {
		if (starts_group(table, i))
			fprintf(out, "\n%s:\n", table->options[i].group);
		print_option(out, &table->options[i]);
	}
	fputs("\n"
	      "SIZE is a number of bytes, or has a suffix K, M, G (powers of 1024); TIME has a unit\n"
	      "ms, s, m, h. A flag that is given twice holds as given last, unless it is repeatable.\n",
		out);
}

static void print_cell(FILE *out, const char *text, bool code)
{
	fputs(text[0] == '\0' ? " |" : code ? " `" : " ", out);
	for (; *text; text++) {
		if (*text == '|')
			fputc('\\', out);
		fputc(*text, out);
		if (text[1] == '\0')
			fputs(code ? "` |" : " |", out);
	}
}

void spec_reference(const struct spec_table *table, FILE *out)
{
	for (size_t i = 0; i < table->count; i++) {
		const struct spec_option *o = &table->options[i];
		struct text text;

		if (starts_group(table, i))
			fprintf(out,
				"%s### %s\n\n"
				"| flag | in the resource | default | allowed | meaning |\n"
				"| --- | --- | --- | --- | --- |\n",
				i > 0 ? "\n" : "", o->group);
		snprintf(text.s, sizeof(text.s), "--%s%s%s", o->flag, o->value ? " " : "",
			o->value ? o->value : "");
		fputc('|', out);
		print_cell(out, text.s, true);
		print_cell(out, o->path ? o->path : "", true);
		print_cell(out, default_text(o, &text), true);
		print_cell(out, bounds_text(o, &text), false);
		print_cell(out, o->help, false);
		fputc('\n', out);
	}
}

/* ---- the loader's ---- */

const struct spec_table spec_loader = {
	.program = "ebpfdump-loader",
	.about = "Captures every HTTP/1.x message that a process of this machine sends or "
		 "receives,\nand writes each as one line to standard output. Needs root.\n",
	.options = loader_options,
	.count = ARRAY_SIZE(loader_options),
	.size = sizeof(struct spec),
	.check = check_loader,
};

int spec_parse_args(struct spec *spec, int argc, char *const argv[], struct err *err)
{
	return spec_parse(&spec_loader, spec, argc, argv, err);
}

void spec_print_help(FILE *out)
{
	spec_help(&spec_loader, out);
}

void spec_print_reference(FILE *out)
{
	spec_reference(&spec_loader, out);
}
