/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/operator/operator.h"

#include <sys/resource.h>
#include <unistd.h>

#define CONTACT_NS (60 * KUBE_SECOND)

static struct call_count *count_of(struct app *a, const struct kube_call *call)
{
	for (uint32_t i = 0; i < a->call_count; i++) {
		struct call_count *c = &a->calls[i];

		if (c->http_code == call->http_code && strcmp(c->verb, call->verb) == 0 &&
			strcmp(c->resource, call->resource) == 0)
			return c;
	}
	/* verbs, resources and codes are few; the last row takes what is one too many */
	if (a->call_count < CALLS_MAX) {
		struct call_count *c = &a->calls[a->call_count++];
		bool last = a->call_count == CALLS_MAX;

		snprintf(c->verb, sizeof(c->verb), "%s", last ? "other" : call->verb);
		snprintf(c->resource, sizeof(c->resource), "%s", last ? "other" : call->resource);
		c->http_code = last ? 0 : call->http_code;
		return c;
	}
	return &a->calls[CALLS_MAX - 1];
}

void app_count_call(void *ctx, const struct kube_call *call)
{
	struct call_count *c = count_of(ctx, call);

	c->calls++;
	c->latency_ns += call->latency_ns;
}

static void one(struct metrics *m, const char *name, enum metrics_type type, const char *help,
	uint64_t value)
{
	metrics_family(m, name, type, help);
	metrics_u64(m, name, value, NULL);
}

static void calls(const struct app *a, struct metrics *m)
{
	struct kube_client_stats s = {0};
	char code[16];

	metrics_family(m, "ebpfdump_operator_api_requests_total", METRICS_COUNTER,
		"Requests to the API server, by verb, resource and status; code 0: no answer.");
	for (uint32_t i = 0; i < a->call_count; i++) {
		snprintf(code, sizeof(code), "%d", a->calls[i].http_code);
		metrics_u64(m, "ebpfdump_operator_api_requests_total", a->calls[i].calls, "verb",
			a->calls[i].verb, "resource", a->calls[i].resource, "code", code, NULL);
	}
	metrics_family(m, "ebpfdump_operator_api_seconds_total", METRICS_COUNTER,
		"Time until they were answered; watches, until their headers.");
	for (uint32_t i = 0; i < a->call_count; i++) {
		snprintf(code, sizeof(code), "%d", a->calls[i].http_code);
		metrics_f64(m, "ebpfdump_operator_api_seconds_total",
			(double)a->calls[i].latency_ns / 1e9, "verb", a->calls[i].verb, "resource",
			a->calls[i].resource, "code", code, NULL);
	}
	if (a->client)
		kube_client_stats(a->client, &s);
	one(m, "ebpfdump_operator_api_retries_total", METRICS_COUNTER,
		"Requests that were sent again.", s.retries);
	one(m, "ebpfdump_operator_api_refused_total", METRICS_COUNTER,
		"Requests for which there was no room.", s.refused);
	one(m, "ebpfdump_operator_api_not_allowed_total", METRICS_COUNTER,
		"Writes that were not sent, since the lease was not certain.", s.not_allowed);
}

static void proxy(const struct app *a, struct metrics *m)
{
	struct kube_proxy_info i = {0};

	if (a->proxy)
		kube_proxy_info(a->proxy, &i);
	one(m, "ebpfdump_operator_proxy_up", METRICS_GAUGE, "Whether kubectl proxy answers.",
		a->proxy ? i.up : a->proxy_up);
	one(m, "ebpfdump_operator_proxy_starts_total", METRICS_COUNTER,
		"Times kubectl proxy was started.", i.starts);
	one(m, "ebpfdump_operator_proxy_deaths_total", METRICS_COUNTER, "Times it ended.",
		i.deaths);
	one(m, "ebpfdump_operator_proxy_hangs_total", METRICS_COUNTER,
		"Times it was killed because it did not answer, or did not listen for 30 s.",
		i.hangs);
}

static void leader(const struct app *a, struct metrics *m)
{
	struct kube_election_stats s = {0};

	if (a->election)
		kube_election_stats(a->election, &s);
	one(m, "ebpfdump_operator_leader", METRICS_GAUGE, "Whether this operator leads.",
		a->election ? kube_election_leading(a->election) : a->reconciler != NULL);
	one(m, "ebpfdump_operator_lease_tries_total", METRICS_COUNTER,
		"Times the lease was tried for or renewed.", s.tries);
	one(m, "ebpfdump_operator_lease_failures_total", METRICS_COUNTER,
		"Of them those that failed.", s.failures);
}

static void events(const struct app *a, struct metrics *m)
{
	struct kube_recorder_stats s = {0};

	if (a->recorder)
		kube_recorder_stats(a->recorder, &s);
	metrics_family(m, "ebpfdump_operator_events_total", METRICS_COUNTER,
		"Events of Kubernetes that happened, by what became of them.");
	metrics_u64(m, "ebpfdump_operator_events_total", s.created, "result", "created", NULL);
	metrics_u64(m, "ebpfdump_operator_events_total", s.counted, "result", "counted", NULL);
	metrics_u64(m, "ebpfdump_operator_events_total", s.dropped, "result", "dropped", NULL);
	metrics_u64(m, "ebpfdump_operator_events_total", s.invalid, "result", "invalid", NULL);
	metrics_u64(m, "ebpfdump_operator_events_total", s.failed, "result", "failed", NULL);
}

static void process(const struct app *a, struct metrics *m)
{
	struct rusage u = {0};
	unsigned long long pages = 0;
	CLEANUP(fclosep)
	FILE *f = fopen("/proc/self/statm", "re");

	metrics_family(m, "ebpfdump_operator_build_info", METRICS_GAUGE, "Version; always 1.");
	metrics_u64(m, "ebpfdump_operator_build_info", 1, "version", EBPFDUMP_VERSION, NULL);
	if (f && fscanf(f, "%*u %llu", &pages) == 1)
		one(m, "process_resident_memory_bytes", METRICS_GAUGE, "Resident memory.",
			pages * (uint64_t)sysconf(_SC_PAGESIZE));
	getrusage(RUSAGE_SELF, &u);
	metrics_family(
		m, "process_cpu_seconds_total", METRICS_COUNTER, "CPU time, user and system.");
	metrics_f64(m, "process_cpu_seconds_total",
		(double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
			(double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6,
		NULL);
}

void app_metrics(void *ctx, struct metrics *m)
{
	struct app *a = ctx;

	leader(a, m);
	if (a->reconciler)
		reconciler_metrics(a->reconciler, m);
	calls(a, m);
	events(a, m);
	proxy(a, m);
	process(a, m);
}

static void say(struct buf *out, const char *what)
{
	if (buf_printf(out, "%s\n", what) < 0)
		log_debug("no room to say: %s", what);
}

/* A standby is ready: its cache is warm. */
bool app_ready(void *ctx, struct buf *out)
{
	const struct app *a = ctx;
	struct kube_client_stats s;
	bool ready;

	if (a->stopping || !a->reconciler) {
		say(out, a->stopping ? "shutting down" : "starting");
		return false;
	}
	kube_client_stats(a->client, &s);
	ready = reconciler_ready(a->reconciler, out);
	if (a->proxy && !a->proxy_up) {
		say(out, "kubectl proxy: does not answer");
		ready = false;
	}
	if (s.last_contact_ns == 0 || kube_now_ns() - s.last_contact_ns > CONTACT_NS) {
		say(out, "API server: no answer for a minute");
		ready = false;
	}
	if (ready)
		say(out, a->election && !kube_election_leading(a->election) ? "ready: standby"
									    : "ready: leader");
	return ready;
}

/* Not whether the API server is there: a restart would not bring it back. */
bool app_live(void *ctx, struct buf *out)
{
	const struct app *a = ctx;
	struct kube_proxy_info proxy_info = {0};

	if (a->proxy)
		kube_proxy_info(a->proxy, &proxy_info);
	if (proxy_info.fatal) {
		say(out, "kubectl proxy dies again and again");
		return false;
	}
	if (a->election && !kube_election_alive(a->election)) {
		say(out, "it believes to lead, but the lease is over");
		return false;
	}
	say(out, "ok");
	return true;
}
