/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/operator/operator.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#define ACCOUNT_NAMESPACE "/var/run/secrets/kubernetes.io/serviceaccount/namespace"
#define LEASE_NAME	  OPERATOR_MANAGER
#define DRAIN_MS	  5000 /* what is under way, at the end (R5.3) */
#define FLUSH_MS	  2000 /* events, then */
#define FLUSH_POLL_MS	  20
/* /readyz wants an answer within a minute. A lease brings one every 2 s; without it there are
 * bookmarks alone, and a server may send them as seldom as it likes. */
#define CONTACT_MS 20000
/* Of requests, as controller-runtime has it. */
#define QPS   20
#define BURST 30

/* ---- the end: drain, flush, release, stop the proxy ---- */

static void set_timer(struct app *a, uint64_t ms, loop_timer_fn fn)
{
	loop_remove(a->timer);
	a->timer = NULL;
	if (loop_add_timer(a->loop, ms, 0, fn, a, &a->timer))
		loop_quit(a->loop, EXIT_FAILED);
}

static void on_proxy_stopped(void *ctx)
{
	struct app *a = ctx;

	loop_quit(a->loop, EXIT_OK);
}

static void stop_proxy(struct app *a)
{
	if (a->proxy)
		kube_proxy_stop(a->proxy, on_proxy_stopped, a);
	else
		loop_quit(a->loop, EXIT_OK);
}

static void on_released(void *ctx, bool released)
{
	struct app *a = ctx;

	log_info(released ? "the lease is given up" : "the lease was not ours, or runs out");
	stop_proxy(a);
}

static void release(struct app *a)
{
	if (a->election)
		kube_election_release(a->election, on_released, a);
	else
		stop_proxy(a);
}

static void on_flush(void *ctx)
{
	struct app *a = ctx;
	struct kube_recorder_stats s;

	kube_recorder_stats(a->recorder, &s);
	if (s.pending > 0 && kube_now_ns() < a->flush_until_ns)
		set_timer(a, FLUSH_POLL_MS, on_flush);
	else
		release(a);
}

static void tell_leading(struct app *a, const char *what);

static void flush(struct app *a)
{
	if (a->election && kube_election_leading(a->election))
		tell_leading(a, "stopped leading");
	a->flush_until_ns = kube_now_ns() + FLUSH_MS * UINT64_C(1000000);
	kube_recorder_flush(a->recorder);
	set_timer(a, 1, on_flush);
}

static void on_drained(void *ctx)
{
	flush(ctx);
}

static void on_drain_over(void *ctx)
{
	struct app *a = ctx;

	log_warn("what was under way has not ended in time");
	/* it must not end beside the next leader's work, nor behind our own end */
	reconciler_freep(&a->reconciler);
	flush(a);
}

static void on_signal(void *ctx, int signo)
{
	struct app *a = ctx;

	if (a->stopping) {
		log_warn("once more: ending now");
		loop_quit(a->loop, EXIT_FAILED);
		return;
	}
	log_info("%s: finishing", signo == SIGINT ? "interrupted" : "terminated");
	a->stopping = true;
	if (!a->reconciler) {
		loop_quit(a->loop, EXIT_OK);
		return;
	}
	set_timer(a, DRAIN_MS, on_drain_over);
	reconciler_drain(a->reconciler, on_drained, a);
}

/* ---- leading ---- */

static void tell_leading(struct app *a, const char *what)
{
	struct kube_event event = {
		.regarding =
			{
				.api_version = "coordination.k8s.io/v1",
				.kind = "Lease",
				.namespace = a->namespace,
				.name = LEASE_NAME,
				.uid = "",
			},
		.reason = "LeaderElection",
		.action = "Lead",
	};
	char note[400];

	snprintf(note, sizeof(note), "%s %s", a->pod, what);
	event.note = note;
	kube_recorder_event(a->recorder, &event);
}

static void on_leading(void *ctx)
{
	struct app *a = ctx;

	/* the lease is given up in a moment */
	if (a->stopping)
		return;
	log_info("leading");
	tell_leading(a, "became leader");
	reconciler_lead(a->reconciler);
}

static void on_lost(void *ctx, const char *why)
{
	struct app *a = ctx;

	log_error("not the leader any more: %s", why);
	loop_quit(a->loop, EXIT_FAILED);
}

static void on_holder(void *ctx, const char *holder)
{
	log_info("the lease is held by %s", holder[0] ? holder : "nobody");
}

static bool may_act(void *ctx)
{
	struct app *a = ctx;

	return !a->spec->no_leader_election ? kube_election_may_write(a->election) : true;
}

/* ---- the proxy ---- */

static void on_up(void *ctx)
{
	struct app *a = ctx;

	a->proxy_up = true;
	log_info("kubectl proxy answers");
	if (a->reconciler)
		reconciler_kick(a->reconciler);
	if (a->election && !a->stopping)
		kube_election_kick(a->election);
}

static void on_down(void *ctx, const char *why)
{
	struct app *a = ctx;

	a->proxy_up = false;
	if (!a->stopping)
		log_warn("kubectl proxy: %s; it is started again", why);
}

static void on_fatal(void *ctx, const char *why)
{
	struct app *a = ctx;

	log_error("kubectl proxy: %s", why);
	loop_quit(a->loop, EXIT_FAILED);
}

static int start_proxy(struct app *a, struct err *err)
{
	const char *paths[KUBE_ACCEPT_PATHS_MAX];
	const struct spec_operator *s = a->spec;
	int r = operator_accept_paths(a->namespace, s->deployment, paths, ARRAY_SIZE(paths));

	if (r)
		return err_set(err, -r, "too many paths");
	return kube_proxy_new(
		&(struct kube_proxy_options){
			.loop = a->loop,
			.client = a->client,
			.program = s->kubectl,
			.kubeconfig = s->kubeconfig[0] ? s->kubeconfig : NULL,
			.unix_socket = s->proxy_socket[0] ? s->proxy_socket : NULL,
			.port = (uint16_t)s->proxy_port,
			.accept_paths = paths,
			.on_up = on_up,
			.on_down = on_down,
			.on_fatal = on_fatal,
			.ctx = a,
		},
		&a->proxy, err);
}

/* ---- is the API server there? ---- */

static void on_contact(void *ctx)
{
	struct app *a = ctx;
	struct kube_client_stats s;

	kube_client_stats(a->client, &s);
	if (a->stopping || kube_now_ns() - s.last_contact_ns < CONTACT_MS * UINT64_C(1000000))
		return;
	if (kube_request(a->client,
		    &(struct kube_request_options){
			    .path = "/version", .flags = KUBE_UNLIMITED | KUBE_NO_RETRY},
		    NULL) < 0)
		log_debug("the API server is not asked for its version");
}

/* ---- the beginning ---- */

/* A test's service account has none; elsewhere it is a pod's. */
static const char *account_namespace(void)
{
	static char text[64];
	FILE *f = fopen(ACCOUNT_NAMESPACE, "re");

	if (!f)
		return "";
	if (!fgets(text, sizeof(text), f))
		text[0] = '\0';
	fclose(f);
	text[strcspn(text, "\n")] = '\0';
	return text;
}

static const char *first_of(const char *a, const char *b, const char *c)
{
	return a && a[0] ? a : b && b[0] ? b : c;
}

/* As the API server has it: it goes into paths. */
static bool valid_namespace(const char *name)
{
	size_t len = strlen(name);

	return len > 0 && len <= 63 && strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == len;
}

/* Of a Deployment; "": there is none. */
static bool valid_name(const char *name)
{
	size_t len = strlen(name);

	return len <= 253 && strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-.") == len;
}

static int find_settings(struct app *a, struct err *err)
{
	static char host[256];

	if (gethostname(host, sizeof(host) - 1))
		snprintf(host, sizeof(host), "operator");
	a->pod = first_of(getenv("POD_NAME"), NULL, host);
	a->namespace = first_of(a->spec->namespace, getenv("POD_NAMESPACE"), account_namespace());
	a->image = first_of(a->spec->loader_image, getenv("LOADER_IMAGE"), "");
	if (!valid_namespace(a->namespace))
		return err_set(err, EINVAL,
			"there is no namespace: --namespace or $POD_NAMESPACE, not '%.70s'",
			a->namespace);
	if (!valid_name(a->spec->deployment))
		return err_set(err, EINVAL, "--deployment=%.253s: it is no name of a Deployment",
			a->spec->deployment);
	if (!a->image[0])
		return err_set(err, EINVAL,
			"there is no image for the loaders: --loader-image or $LOADER_IMAGE");
	return 0;
}

static int start_client(struct app *a, struct err *err)
{
	static char url[64];
	const struct spec_operator *s = a->spec;

	snprintf(url, sizeof(url), "http://127.0.0.1:%u", (unsigned int)s->proxy_port);
	return kube_client_new(
		&(struct kube_client_options){
			.loop = a->loop,
			.url = s->server[0]	    ? s->server
			       : s->proxy_socket[0] ? NULL
						    : url,
			.unix_socket = s->proxy_socket[0] && !s->server[0] ? s->proxy_socket : NULL,
			.qps = QPS,
			.burst = BURST,
			.observe = app_count_call,
			.may_write = may_act,
			.ctx = a,
		},
		&a->client, err);
}

static int start_election(struct app *a, struct err *err)
{
	const struct spec_operator *s = a->spec;
	struct kube_election_options o = {
		.client = a->client,
		.loop = a->loop,
		.namespace = a->namespace,
		.name = LEASE_NAME,
		.on_leading = on_leading,
		.on_lost = on_lost,
		.on_holder = on_holder,
		.ctx = a,
	};

	if (s->no_leader_election) {
		reconciler_lead(a->reconciler);
		return 0;
	}
	kube_lease_config_init(&o.config, a->pod);
	o.config.lease_ms = (uint32_t)s->lease_ms;
	o.config.renew_ms = (uint32_t)s->renew_ms;
	o.config.retry_ms = (uint32_t)s->retry_ms;
	return kube_election_new(&o, &a->election, err);
}

static int start_reconciler(struct app *a, struct err *err)
{
	static const char *const pull[] = {"Always", "IfNotPresent", "Never"};
	const struct spec_operator *s = a->spec;

	return reconciler_new(
		&(struct reconciler_options){
			.loop = a->loop,
			.client = a->client,
			.recorder = a->recorder,
			.settings =
				{
					.namespace = a->namespace,
					.image = a->image,
					.pull_policy = pull[s->pull_policy],
					.account = s->loader_account,
					.privileged = s->loader_privileged,
					.deployment = s->deployment,
				},
			.resync_ms = s->resync_ms,
			.may_act = may_act,
			.ctx = a,
		},
		&a->reconciler, err);
}

static int start(struct app *a, struct err *err)
{
	static const struct telemetry_ops ops = {
		.metrics = app_metrics, .ready = app_ready, .live = app_live};
	int r = loop_new(&a->loop, err);

	if (r)
		return r;
	/* signals first: threads inherit what is blocked */
	r = loop_add_signal(a->loop, SIGTERM, on_signal, a);
	if (!r)
		r = loop_add_signal(a->loop, SIGINT, on_signal, a);
	if (!r)
		r = loop_add_timer(a->loop, CONTACT_MS, CONTACT_MS, on_contact, a, &a->contact);
	if (r)
		return err_set(err, -r, "the event loop cannot be set up: %s", strerror(-r));
	r = start_client(a, err);
	if (!r && a->spec->listen[0])
		r = telemetry_new(a->loop, a->spec->listen, &ops, a, &a->telemetry, err);
	if (!r && !a->spec->server[0])
		r = start_proxy(a, err);
	a->proxy_up = a->spec->server[0] != '\0';
	if (!r)
		r = kube_recorder_new(
			&(struct kube_recorder_options){
				.client = a->client,
				.loop = a->loop,
				.controller = OPERATOR_CONTROLLER,
				.instance = a->pod,
			},
			&a->recorder, err);
	if (!r)
		r = start_reconciler(a, err);
	return r ? r : start_election(a, err);
}

/* The proxy's end waits for its child: last, as the lease may just have been given up. */
static void app_done(struct app *a)
{
	telemetry_free(a->telemetry);
	kube_election_free(a->election);
	reconciler_free(a->reconciler);
	kube_recorder_free(a->recorder);
	kube_proxy_free(a->proxy);
	kube_client_free(a->client);
	loop_free(a->loop);
}

int operator_run(const struct spec_operator *spec)
{
	struct app a = {.spec = spec, .started_ns = kube_now_ns()};
	struct err err = {0};
	int r, status = EXIT_FAILED;

	log_setup(spec->log_level, spec->log_format ? LOG_JSON : LOG_TEXT, "operator", "");
	signal(SIGPIPE, SIG_IGN);
	r = find_settings(&a, &err);
	if (!r)
		r = start(&a, &err);
	if (r) {
		log_error("%s", err.text);
	} else {
		log_info("ebpfdump-operator " EBPFDUMP_VERSION ": loaders in namespace %s are %s",
			a.namespace, a.image);
		status = loop_run(a.loop);
		if (status < 0)
			status = EXIT_FAILED;
	}
	app_done(&a);
	return status;
}

/* ---- reference ---- */

static int make_idle(struct app *a, struct err *err)
{
	int r = loop_new(&a->loop, err);

	/* nothing listens there, and the loop is not run */
	if (!r)
		r = kube_client_new(&(struct kube_client_options){.loop = a->loop,
					    .url = "http://127.0.0.1:1",
					    .observe = app_count_call,
					    .ctx = a},
			&a->client, err);
	if (!r)
		r = kube_recorder_new(&(struct kube_recorder_options){.client = a->client,
					      .loop = a->loop,
					      .controller = "x",
					      .instance = "x"},
			&a->recorder, err);
	return r ? r : start_reconciler(a, err);
}

int app_reference(const struct spec_operator *spec, FILE *out)
{
	struct app a = {.spec = spec, .namespace = "x", .image = "x", .pod = "x"};
	CLEANUP(buf_done)
	struct buf text = BUF_INIT(1U << 20);
	struct metrics m = {.out = &text};
	struct err err = {0};
	int r = make_idle(&a, &err);

	if (!r) {
		app_metrics(&a, &m);
		r = m.error ? m.error : buf_append(&text, "", 1); /* for sscanf() */
	}
	app_done(&a);
	if (r)
		return r;
	fputs("| metric | type | what |\n| --- | --- | --- |\n", out);
	for (const char *p = text.data; *p; p += strcspn(p, "\n") + 1) {
		char name[128], help[512], type[32];

		if (sscanf(p, "# HELP %127s %511[^\n]\n# TYPE %*s %31s", name, help, type) == 3)
			fprintf(out, "| `%s` | %s | %s |\n", name, type, help);
	}
	return 0;
}
