/* SPDX-License-Identifier: Apache-2.0 */
/*
 * usage: driver URL|unix:PATH
 *
 * The room as a process: commands on standard input, one a line, and what handlers see as lines on
 * standard output. The end of the input ends it.
 *
 *   reflect PATH APIVERSION KIND [NAME=NUMBER...]   list and watch; a timing, or a limit
 *   unreflect | kick | info | cache
 *   request METHOD PATH QUERY|- TYPE|- FLAGS [BODY]   BODY: the rest of the line
 *   timeout MS    of requests from now on; 0: the room's own
 *   stats
 *   elect NAMESPACE NAME IDENTITY LEASE RENEW RETRY WALL_OFFSET_MS     times in ms
 *   guard 0|1     writes are asked for (by the election)
 *   lease | release
 *   event KIND NAMESPACE NAME REASON NOTE | flush | events
 *   proxy PROGRAM PORT [NAME=NUMBER...] | proxyinfo | stopproxy
 *   quit
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "pkg/kube/kube.h"

#define WORDS_MAX 24

static struct {
	struct loop *loop;
	struct kube_client *client;
	struct kube_reflector *reflector;
	struct kube_election *election;
	struct kube_recorder *recorder;
	struct kube_proxy *proxy;
	const char *unix_socket;
	bool guard;
	uint32_t timeout_ms;
	bool quiet; /* changes are counted, not printed */
	uint64_t changes[4], calls;
	struct buf in;
} d;

static void say(const char *fmt, ...) PRINTF(1, 2);

static void say(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	fflush(stdout);
}

static void say_json(const char *what, struct json_object *object)
{
	say("%s %s", what,
		json_object_to_json_string_ext(
			object, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(object);
}

static void put_u64(struct json_object *o, const char *name, uint64_t value)
{
	json_object_object_add(o, name, json_object_new_int64((int64_t)value));
}

static void put_string(struct json_object *o, const char *name, const char *value)
{
	json_object_object_add(o, name, json_object_new_string(value));
}

/* ---- client ---- */

static bool may_write(void *ctx)
{
	return !d.guard || kube_election_may_write(d.election);
}

static void observe(void *ctx, const struct kube_call *call)
{
	d.calls++;
	if (!d.quiet)
		say("call %s %s %d %s", call->verb, call->resource, call->http_code,
			kube_result_name(call->result));
}

static void on_response(void *ctx, const struct kube_response *r)
{
	struct json_object *o = json_object_new_object();
	struct json_object *warnings = json_object_new_array();

	put_string(o, "result", kube_result_name(r->result));
	put_u64(o, "code", (uint64_t)r->http_code);
	put_string(o, "error", r->error);
	put_string(o, "reason", r->status.reason);
	put_string(o, "type", r->content_type);
	put_u64(o, "bytes", r->body.len);
	json_object_object_add(o, "object", json_object_get(r->object));
	json_object_object_add(o, "retry_after", json_object_new_int64(r->retry_after_s));
	for (uint32_t i = 0; i < r->warning_count; i++)
		json_object_array_add(warnings, json_object_new_string(r->warnings[i]));
	json_object_object_add(o, "warnings", warnings);
	say_json("response", o);
}

static void do_request(char **words, int n)
{
	static const char *const methods[] = {"GET", "POST", "PUT", "PATCH", "DELETE"};
	struct kube_request_options o = {.fn = on_response};
	int r;

	for (size_t i = 0; i < ARRAY_SIZE(methods); i++) {
		if (strcmp(words[1], methods[i]) == 0)
			o.method = (enum kube_method)i;
	}
	o.path = words[2];
	o.query = strcmp(words[3], "-") == 0 ? NULL : words[3];
	o.content_type = strcmp(words[4], "-") == 0 ? NULL : words[4];
	o.flags = (uint32_t)strtoul(words[5], NULL, 10);
	o.timeout_ms = d.timeout_ms;
	if (n > 6)
		o.body = span_str(words[6]);
	r = kube_request(d.client, &o, NULL);
	if (r < 0)
		say("refused %d", r);
}

static void do_stats(void)
{
	struct json_object *o = json_object_new_object();
	struct kube_client_stats s;

	kube_client_stats(d.client, &s);
	put_u64(o, "pending", s.pending);
	put_u64(o, "calls", s.calls);
	put_u64(o, "retries", s.retries);
	put_u64(o, "refused", s.refused);
	put_u64(o, "not_allowed", s.not_allowed);
	put_u64(o, "observed", d.calls);
	json_object_object_add(o, "answered", json_object_new_boolean(s.last_answer_ns > 0));
	json_object_object_add(o, "contact", json_object_new_boolean(s.last_contact_ns > 0));
	json_object_object_add(o, "tls", json_object_new_boolean(s.tls_trouble_since_ns > 0));
	say_json("stats", o);
}

/* ---- reflector ---- */

static void on_change(
	void *ctx, enum kube_change change, struct json_object *object, struct json_object *old)
{
	char key[KUBE_KEY_MAX] = "?";

	d.changes[change]++;
	if (d.quiet)
		return;
	if (kube_key(object, key, sizeof(key)) < 0)
		say("broken");
	say("%s %s uid=%s rv=%s x=%s old=%s", kube_change_name(change), key,
		kube_get_string(object, "metadata.uid"),
		kube_get_string(object, "metadata.resourceVersion"),
		kube_get_string(object, "spec.x"),
		old ? kube_get_string(old, "metadata.resourceVersion") : "-");
}

static void on_synced(void *ctx)
{
	say("synced %zu", d.reflector ? kube_reflector_count(d.reflector) : 0);
}

static uint32_t number(char **words, int n, const char *name)
{
	size_t len = strlen(name);

	for (int i = 0; i < n; i++) {
		if (strncmp(words[i], name, len) == 0 && words[i][len] == '=')
			return (uint32_t)strtoul(words[i] + len + 1, NULL, 10);
	}
	return 0;
}

static void do_reflect(char **words, int n)
{
	struct kube_reflector_options o = {
		.client = d.client,
		.path = words[1],
		.api_version = words[2],
		.kind = words[3],
		.on_change = on_change,
		.on_synced = on_synced,
		.page_limit = number(words, n, "page"),
		.objects_max = number(words, n, "objects"),
		.label_selector = number(words, n, "labels") ? "a=b,c in (d e)" : NULL,
		.timing =
			{
				.backoff_ms = number(words, n, "backoff"),
				.backoff_cap_ms = number(words, n, "cap"),
				.watch_s = number(words, n, "watch"),
				.idle_ms = number(words, n, "idle"),
				.headers_ms = number(words, n, "headers"),
				.short_ms = number(words, n, "short"),
				.retry_ms = number(words, n, "retry"),
				.healthy_ms = number(words, n, "healthy"),
			},
	};
	struct err err;

	d.quiet = number(words, n, "quiet");
	if (kube_reflector_new(&o, &d.reflector, &err) < 0)
		say("failed %s", err.text);
}

static void do_info(void)
{
	struct json_object *o = json_object_new_object();
	struct kube_reflector_info i;

	kube_reflector_info(d.reflector, &i);
	put_string(o, "phase", kube_reflector_phase_name(i.phase));
	json_object_object_add(o, "synced", json_object_new_boolean(i.synced));
	json_object_object_add(o, "incomplete", json_object_new_boolean(i.incomplete));
	put_string(o, "problem", kube_result_name(i.problem));
	put_string(o, "why", i.why);
	put_u64(o, "objects", i.objects);
	put_u64(o, "lists", i.lists);
	put_u64(o, "watches", i.watches);
	put_u64(o, "events", i.events);
	put_u64(o, "bookmarks", i.bookmarks);
	put_u64(o, "skipped", i.skipped);
	put_u64(o, "cut_events", i.cut_events);
	put_u64(o, "left_out", i.left_out);
	put_u64(o, "failures", i.failures);
	put_u64(o, "expired", i.expired);
	put_u64(o, "bytes", i.bytes);
	for (int c = 0; c < 4; c++)
		put_u64(o, kube_change_name((enum kube_change)c), d.changes[c]);
	say_json("info", o);
}

static int print_cached(void *ctx, const char *key, struct json_object *object)
{
	if (kube_reflector_get(d.reflector, key) != object)
		say("broken");
	say("cached %s uid=%s rv=%s x=%s", key, kube_get_string(object, "metadata.uid"),
		kube_get_string(object, "metadata.resourceVersion"),
		kube_get_string(object, "spec.x"));
	return 0;
}

static void do_cache(void)
{
	struct kube_reflector_info i;

	kube_reflector_info(d.reflector, &i);
	kube_reflector_each(d.reflector, print_cached, NULL);
	say("cache-end %zu %s", kube_reflector_count(d.reflector), i.version);
}

/* ---- election ---- */

static void on_leading(void *ctx)
{
	say("leading");
}

static void on_lost(void *ctx, const char *why)
{
	say("lost %s", why);
}

static void on_holder(void *ctx, const char *holder)
{
	say("holder %s", holder);
}

static void on_released(void *ctx, bool released)
{
	say("released %d", released);
}

static void do_elect(char **words, int n)
{
	struct kube_election_options o = {
		.client = d.client,
		.loop = d.loop,
		.namespace = words[1],
		.name = words[2],
		.config = {.jitter = 1.2},
		.on_leading = on_leading,
		.on_lost = on_lost,
		.on_holder = on_holder,
	};
	struct err err;

	snprintf(o.config.identity, sizeof(o.config.identity), "%s", words[3]);
	o.config.lease_ms = (uint32_t)strtoul(words[4], NULL, 10);
	o.config.renew_ms = (uint32_t)strtoul(words[5], NULL, 10);
	o.config.retry_ms = (uint32_t)strtoul(words[6], NULL, 10);
	o.wall_offset_ns = strtoll(words[7], NULL, 10) * 1000000;
	if (kube_election_new(&o, &d.election, &err) < 0)
		say("failed %s", err.text);
}

static void do_lease(void)
{
	struct json_object *o = json_object_new_object();
	struct kube_election_stats s;

	kube_election_stats(d.election, &s);
	json_object_object_add(
		o, "leading", json_object_new_boolean(kube_election_leading(d.election)));
	json_object_object_add(
		o, "may_write", json_object_new_boolean(kube_election_may_write(d.election)));
	json_object_object_add(
		o, "alive", json_object_new_boolean(kube_election_alive(d.election)));
	put_string(o, "holder", kube_election_holder(d.election));
	put_u64(o, "tries", s.tries);
	put_u64(o, "failures", s.failures);
	put_string(o, "last_error", s.last_error);
	say_json("lease", o);
}

/* ---- events ---- */

static void do_event(char **words)
{
	struct kube_event e = {
		.regarding = {.api_version = "research.dynatrace.com/v1alpha1",
			.kind = words[1],
			.namespace = words[2],
			.name = words[3],
			.uid = "uid-1"},
		.reason = words[4],
		.action = "Test",
		.note = words[5],
	};
	struct kube_recorder_options o = {.client = d.client,
		.loop = d.loop,
		.controller = "research.dynatrace.com/ebpfdump-operator",
		.instance = "driver"};
	struct err err;

	if (!d.recorder && kube_recorder_new(&o, &d.recorder, &err) < 0)
		say("failed %s", err.text);
	else
		kube_recorder_event(d.recorder, &e);
}

static void do_events(void)
{
	struct json_object *o = json_object_new_object();
	struct kube_recorder_stats s;

	kube_recorder_stats(d.recorder, &s);
	put_u64(o, "seen", s.seen);
	put_u64(o, "created", s.created);
	put_u64(o, "counted", s.counted);
	put_u64(o, "dropped", s.dropped);
	put_u64(o, "invalid", s.invalid);
	put_u64(o, "failed", s.failed);
	put_u64(o, "pending", s.pending);
	put_u64(o, "patches", s.patches);
	say_json("events", o);
}

/* ---- proxy ---- */

static void on_up(void *ctx)
{
	say("up");
	if (d.reflector)
		kube_reflector_kick(d.reflector);
}

static void on_down(void *ctx, const char *why)
{
	say("down %s", why);
}

static void on_fatal(void *ctx, const char *why)
{
	say("fatal %s", why);
}

static void on_orphan(void *ctx, pid_t pid, int status)
{
	say("orphan %d %d", (int)pid, status);
}

static void on_stopped(void *ctx)
{
	say("stopped");
}

static void do_proxy(char **words, int n)
{
	static const char *const paths[] = {"^/apis/", "^/version$", NULL};
	struct kube_proxy_options o = {
		.loop = d.loop,
		.client = d.client,
		.program = words[1],
		.port = (uint16_t)strtoul(words[2], NULL, 10),
		.unix_socket = d.unix_socket,
		.accept_paths = paths,
		.timing =
			{
				.backoff_ms = number(words, n, "backoff"),
				.deaths_max = number(words, n, "deaths"),
				.probe_ms = number(words, n, "probe"),
				.probe_timeout_ms = number(words, n, "timeout"),
				.stop_ms = number(words, n, "stop"),
				.deaf_ms = number(words, n, "deaf"),
				.tls_ms = number(words, n, "tls"),
			},
		.on_up = on_up,
		.on_down = on_down,
		.on_fatal = on_fatal,
		.on_orphan = on_orphan,
	};
	struct err err;

	if (kube_proxy_new(&o, &d.proxy, &err) < 0)
		say("failed %s", err.text);
}

static void do_proxy_info(void)
{
	struct json_object *o = json_object_new_object();
	struct kube_proxy_info i;

	kube_proxy_info(d.proxy, &i);
	put_u64(o, "pid", (uint64_t)i.pid);
	json_object_object_add(o, "up", json_object_new_boolean(i.up));
	put_u64(o, "starts", i.starts);
	put_u64(o, "deaths", i.deaths);
	put_u64(o, "hangs", i.hangs);
	put_string(o, "last", i.last);
	say_json("proxyinfo", o);
}

/* ---- commands ---- */

/* The sixth word of a request, and the fifth of an event, take the rest of the line. */
static int split(char *line, char **words)
{
	int n = 0, rest = strncmp(line, "request ", 8) == 0 ? 6
			  : strncmp(line, "event ", 6) == 0 ? 5
							    : WORDS_MAX;

	while (*line && n < WORDS_MAX) {
		words[n++] = line;
		if (n == rest + 1)
			break;
		line += strcspn(line, " ");
		if (*line)
			*line++ = '\0';
	}
	return n;
}

static bool is(char **words, int n, const char *name, int args)
{
	return strcmp(words[0], name) == 0 && n >= args + 1;
}

static void obey(char *line)
{
	char *words[WORDS_MAX + 1] = {line};
	int n = split(line, words);

	if (is(words, n, "reflect", 3)) {
		do_reflect(words, n);
	} else if (is(words, n, "unreflect", 0)) {
		kube_reflector_freep(&d.reflector);
	} else if (is(words, n, "kick", 0)) {
		kube_reflector_kick(d.reflector);
	} else if (is(words, n, "info", 0)) {
		do_info();
	} else if (is(words, n, "cache", 0)) {
		do_cache();
	} else if (is(words, n, "request", 5)) {
		do_request(words, n);
	} else if (is(words, n, "timeout", 1)) {
		d.timeout_ms = (uint32_t)strtoul(words[1], NULL, 10);
	} else if (is(words, n, "stats", 0)) {
		do_stats();
	} else if (is(words, n, "elect", 7)) {
		do_elect(words, n);
	} else if (is(words, n, "guard", 1)) {
		d.guard = words[1][0] == '1';
	} else if (is(words, n, "lease", 0)) {
		do_lease();
	} else if (is(words, n, "release", 0)) {
		kube_election_release(d.election, on_released, NULL);
	} else if (is(words, n, "event", 5)) {
		do_event(words);
	} else if (is(words, n, "flush", 0)) {
		kube_recorder_flush(d.recorder);
	} else if (is(words, n, "events", 0)) {
		do_events();
	} else if (is(words, n, "proxy", 2)) {
		do_proxy(words, n);
	} else if (is(words, n, "proxyinfo", 0)) {
		do_proxy_info();
	} else if (is(words, n, "stopproxy", 0)) {
		kube_proxy_stop(d.proxy, on_stopped, NULL);
	} else if (is(words, n, "quit", 0)) {
		loop_quit(d.loop, 0);
	} else {
		say("unknown %s", words[0]);
	}
}

static void on_input(void *ctx, int fd, uint32_t events)
{
	char text[65536], *end;
	ssize_t n = read(fd, text, sizeof(text));

	if (n <= 0) {
		if (n == 0 || errno != EAGAIN)
			loop_quit(d.loop, 0);
		return;
	}
	if (buf_append(&d.in, text, (size_t)n) < 0)
		loop_quit(d.loop, 1);
	while (d.in.len > 0 && (end = memchr(d.in.data, '\n', d.in.len)) != NULL) {
		*end = '\0';
		obey(d.in.data);
		buf_consume(&d.in, (size_t)(end - d.in.data) + 1);
	}
}

int main(int argc, char **argv)
{
	struct kube_client_options options = {
		.observe = observe, .may_write = may_write, .ctx = &d, .qps = 1000, .burst = 1000};
	struct loop_source *source;
	struct err err;
	int r;

	if (argc < 2)
		return 2;
	signal(SIGPIPE, SIG_IGN);
	log_setup(getenv("DRIVER_DEBUG") ? LOG_DEBUG : LOG_WARN, LOG_TEXT, "driver", "");
	d.in = BUF_INIT((size_t)64 << 20);
	if (strncmp(argv[1], "unix:", 5) == 0)
		options.unix_socket = d.unix_socket = argv[1] + 5;
	else
		options.url = argv[1];
	if (argc > 2) {
		options.qps = strtod(argv[2], NULL);
		options.burst = 2;
		options.requests_max = 8;
	}
	if (loop_new(&d.loop, &err) < 0)
		return 1;
	options.loop = d.loop;
	if (kube_client_new(&options, &d.client, &err) < 0)
		return 1;
	if (fcntl(0, F_SETFL, O_NONBLOCK) < 0 ||
		loop_add_fd(d.loop, 0, EPOLLIN, on_input, NULL, &source) < 0)
		return 1;
	say("ready");
	r = loop_run(d.loop);
	kube_reflector_free(d.reflector);
	kube_election_free(d.election);
	kube_recorder_free(d.recorder);
	kube_proxy_free(d.proxy);
	kube_client_free(d.client);
	loop_free(d.loop);
	buf_done(&d.in);
	return r;
}
