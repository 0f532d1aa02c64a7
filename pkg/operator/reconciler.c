/* SPDX-License-Identifier: Apache-2.0 */
/* Caches, queues, and when to look at what. */
#include <errno.h>
#include <stdlib.h>

#include "pkg/operator/reconciler.h"

#define MS_NS	      UINT64_C(1000000)
#define CONTACT_NS    (60 * KUBE_SECOND) /* a watch that is being made anew may take so long */
#define RESYNC_JITTER 0.1
#define UNCERTAIN_MS  200
/* A roll-out over many nodes changes the DaemonSet many times a second: neither why pods are not
 * ready is asked that often, nor is the status written. Nor does it end in a storm when operators
 * of two installations contradict each other. */
#define EXPLAIN_RATE  0.2
#define EXPLAIN_BURST 2
#define SAY_RATE      1
#define SAY_BURST     5

bool is_transient(enum kube_result result)
{
	switch (result) {
	case KUBE_CONNECT:
	case KUBE_TIMEOUT:
	case KUBE_CUT:
	case KUBE_NOT_ALLOWED:
	case KUBE_UNREACHABLE:
	case KUBE_UNAUTHORIZED:
	case KUBE_TOO_MANY:
	case KUBE_SERVER:
	case KUBE_CONFLICT:
		return true;
	default:
		return false;
	}
}

void tell(struct reconciler *r, const struct json_object *about, bool warning, const char *reason,
	const char *note)
{
	if (!r->options.recorder || !about)
		return;
	kube_recorder_event(r->options.recorder, &(struct kube_event){
							 .regarding = kube_regarding_of(about),
							 .warning = warning,
							 .reason = reason,
							 .action = "Reconcile",
							 .note = note,
						 });
}

/* ---- what is known ---- */

/* As text: a tree of a thousand EbpfDumps would be most of the memory, and one of them is read. */
static int to_text(struct json_object *object, const char *part)
{
	struct json_object *tree = kube_get(object, part), *text;

	if (!tree)
		return 0;
	text = json_object_new_string(json_object_to_json_string_ext(tree, JSON_C_TO_STRING_PLAIN));
	if (text && json_object_object_add(object, part, text) == 0)
		return 0;
	json_object_put(text);
	return -ENOMEM;
}

static int shrink_dump(void *ctx, struct json_object *object)
{
	static const char *const kept[] = {"namespace", "name", "uid", "resourceVersion",
		"generation", "creationTimestamp", "deletionTimestamp"};
	struct json_object *metadata = kube_get(object, "metadata"), *value;
	struct maker m = {0};
	struct json_object *small = json_object_new_object();

	for (size_t i = 0; i < ARRAY_SIZE(kept); i++)
		if (json_object_object_get_ex(metadata, kept[i], &value))
			make_share(&m, small, kept[i], value);
	make_add(&m, object, "metadata", small);
	return m.failed || to_text(object, "spec") || to_text(object, "status") ? -ENOMEM : 0;
}

struct json_object *part_of(const struct json_object *dump, const char *part)
{
	const char *text = kube_get_string(dump, part);
	struct json_object *object = NULL;

	if (!text[0] || kube_json_parse(span_str(text), &object, NULL) < 0)
		return NULL;
	return object;
}

static int take_better(void *ctx, const char *key, struct json_object *object)
{
	struct json_object **winner = ctx;
	struct json_object *pair[] = {*winner, object};

	*winner = operator_winner(*winner ? pair : pair + 1, *winner ? 2 : 1);
	return 0;
}

struct json_object *current_winner(const struct reconciler *r)
{
	struct json_object *winner = NULL;

	(void)kube_reflector_each(r->dumps, take_better, &winner);
	return winner;
}

struct json_object *current_set(struct reconciler *r)
{
	return r->fresh ? r->fresh : kube_reflector_get(r->sets, r->set_key);
}

/* ---- queues ---- */

static bool has_work(const struct reconciler *r)
{
	return r->leading && !r->draining && reconciler_synced(r);
}

static bool may_act(const struct reconciler *r)
{
	return !r->options.may_act || r->options.may_act(r->options.ctx);
}

static void set_wake(struct reconciler *r, uint64_t now)
{
	uint64_t at = UINT64_MAX;

	if (!r->pass.running)
		at = MIN(at, kube_queue_next_ns(r->loaders));
	if (!r->report.running)
		at = MIN(at, kube_queue_next_ns(r->statuses));
	if (at == UINT64_MAX || !has_work(r))
		return;
	/* the lease is renewed in a moment, or it is lost */
	if (!may_act(r))
		at = MAX(at, now + UNCERTAIN_MS * MS_NS);
	if (loop_set_timer(r->wake, at > now ? (at - now) / MS_NS + 1 : 1, 0))
		log_error("the timer cannot be set");
}

void work_on(struct reconciler *r)
{
	if (r->draining && !r->pass.running && !r->report.running && r->drained) {
		void (*drained)(void *ctx) = r->drained;

		r->drained = NULL;
		drained(r->drained_ctx);
		return;
	}
	/* from the loop, not from within what has just ended */
	set_wake(r, kube_now_ns());
}

static void on_wake(void *ctx)
{
	struct reconciler *r = ctx;
	uint64_t now = kube_now_ns();
	char key[KUBE_KEY_MAX];

	if (!has_work(r) || !may_act(r)) {
		set_wake(r, now);
		return;
	}
	if (!r->pass.running && kube_queue_take(r->loaders, now, key))
		pass_begin(r);
	if (!r->report.running && kube_queue_take(r->statuses, now, key))
		report_begin(r, key);
	set_wake(r, kube_now_ns());
}

static void want_loaders(struct reconciler *r)
{
	uint64_t now = kube_now_ns();

	if (!r->leading)
		return;
	if (kube_queue_add(r->loaders, CLUSTER_KEY, now) < 0)
		log_debug("the queue takes nothing");
	set_wake(r, now);
}

void want_status(struct reconciler *r, const char *key)
{
	uint64_t now = kube_now_ns();

	if (!r->leading)
		return;
	if (kube_queue_add(r->statuses, key, now) < 0)
		log_debug("the queue takes no status of %s", key);
	set_wake(r, now);
}

static int want_one(void *ctx, const char *key, struct json_object *object)
{
	want_status(ctx, key);
	return 0;
}

/* Everything is looked at: at the beginning, now and then, and when another is acted on. */
static void want_all(struct reconciler *r)
{
	want_loaders(r);
	(void)kube_reflector_each(r->dumps, want_one, r);
}

/* ---- news ---- */

static bool matters(
	enum kube_change change, const struct json_object *object, const struct json_object *old)
{
	return change != KUBE_UPDATED || !old ||
	       kube_get_int(object, "metadata.generation", 0) !=
		       kube_get_int(old, "metadata.generation", 0) ||
	       strcmp(kube_get_string(object, "metadata.deletionTimestamp"),
		       kube_get_string(old, "metadata.deletionTimestamp")) != 0;
}

/* Whether another EbpfDump is acted on than before. */
static bool new_winner(struct reconciler *r)
{
	const struct json_object *winner = current_winner(r);
	const char *uid = kube_get_string(winner, "metadata.uid");

	key_of(winner, r->winner_key, sizeof(r->winner_key));
	if (strcmp(uid, r->winner_uid) == 0)
		return false;
	snprintf(r->winner_uid, sizeof(r->winner_uid), "%s", uid);
	return true;
}

/* Whether the change can make another one the winner: a list of thousands is not gone through for
 * each of them. */
static bool moves_winner(
	const struct reconciler *r, enum kube_change change, const struct json_object *object)
{
	const struct json_object *winner = kube_reflector_get(r->dumps, r->winner_key);

	if (!winner || strcmp(kube_get_string(winner, "metadata.uid"), r->winner_uid) != 0 ||
		strcmp(kube_get_string(object, "metadata.uid"), r->winner_uid) == 0)
		return true;
	return change == KUBE_ADDED && operator_before(object, winner);
}

static void on_dump(
	void *ctx, enum kube_change change, struct json_object *object, struct json_object *old)
{
	struct reconciler *r = ctx;
	char key[KUBE_KEY_MAX];

	key_of(object, key, sizeof(key));
	json_object_object_del(r->written, key);
	if (!reconciler_synced(r))
		return;
	/* a change of the status alone, ours most likely, moves no loader */
	if (matters(change, object, old)) {
		want_loaders(r);
		if (moves_winner(r, change, object) && new_winner(r))
			want_all(r);
	}
	want_status(r, key);
}

static void on_set(
	void *ctx, enum kube_change change, struct json_object *object, struct json_object *old)
{
	struct reconciler *r = ctx;
	bool gone = change == KUBE_DELETED || change == KUBE_DELETED_UNKNOWN;

	if (gone)
		snprintf(r->gone_uid, sizeof(r->gone_uid), "%s",
			kube_get_string(object, "metadata.uid"));
	/* the cache has caught up with the last answer, or overtaken it */
	if (r->fresh && (gone ||
				strcmp(kube_get_string(object, "metadata.uid"),
					kube_get_string(r->fresh, "metadata.uid")) != 0 ||
				kube_get_int(object, "metadata.generation", 0) >=
					kube_get_int(r->fresh, "metadata.generation", 0))) {
		json_object_put(r->fresh);
		r->fresh = NULL;
	}
	if (reconciler_synced(r))
		want_loaders(r);
}

static void on_synced(void *ctx)
{
	struct reconciler *r = ctx;

	if (!reconciler_synced(r))
		return;
	new_winner(r);
	want_all(r);
}

/* What waits after failures, for up to a quarter of an hour, waits for no more. */
static void on_recovered(void *ctx)
{
	struct reconciler *r = ctx;

	if (reconciler_synced(r))
		want_all(r);
}

static void on_sets_synced(void *ctx)
{
	struct reconciler *r = ctx;

	/* What was made after the last list and deleted before this one no event will ever tell.
	 * If it is there after all, it is asked for. */
	if (r->fresh && !kube_reflector_get(r->sets, r->set_key)) {
		json_object_put(r->fresh);
		r->fresh = NULL;
	}
	on_synced(ctx);
}

static void on_resync(void *ctx)
{
	struct reconciler *r = ctx;

	/* what is only remembered is asked for again */
	r->owner_known = r->deployment[0] == '\0';
	r->secret_known = false;
	want_all(r);
}

/* ---- the whole ---- */

bool reconciler_synced(const struct reconciler *r)
{
	struct kube_reflector_info dumps, sets;

	if (!r->dumps || !r->sets)
		return false;
	kube_reflector_info(r->dumps, &dumps);
	kube_reflector_info(r->sets, &sets);
	return dumps.synced && sets.synced;
}

static int copy_settings(struct reconciler *r)
{
	struct operator_settings *s = &r->options.settings;

	r->namespace = strdup(s->namespace);
	r->image = strdup(s->image);
	r->account = strdup(s->account);
	r->deployment = strdup(s->deployment);
	if (!r->namespace || !r->image || !r->account || !r->deployment)
		return -ENOMEM;
	s->namespace = r->namespace;
	s->image = r->image;
	s->account = r->account;
	s->deployment = r->deployment;
	s->owner_uid = r->owner_uid;
	r->owner_known = r->deployment[0] == '\0';
	snprintf(r->set_key, sizeof(r->set_key), "%s/%s", r->namespace, OPERATOR_DAEMONSET);
	return 0;
}

static int set_up(struct reconciler *r)
{
	uint64_t resync = r->options.resync_ms;
	int err = copy_settings(r);

	/* operators that were started together do not ask together */
	resync += (uint64_t)((double)resync * RESYNC_JITTER * kube_random());
	kube_bucket_init(&r->explain, EXPLAIN_RATE, EXPLAIN_BURST, kube_now_ns());
	kube_bucket_init(&r->say, SAY_RATE, SAY_BURST, kube_now_ns());
	r->written = json_object_new_object();
	if (err == 0 && !r->written)
		err = -ENOMEM;
	if (err == 0)
		err = kube_queue_new(1, &r->loaders);
	if (err == 0)
		err = kube_queue_new(16384, &r->statuses);
	if (err == 0)
		err = loop_add_timer(r->options.loop, 1, 0, on_wake, r, &r->wake);
	if (err == 0)
		err = loop_add_timer(r->options.loop, resync, resync, on_resync, r, &r->resync);
	return err;
}

static int start_caches(struct reconciler *r, struct err *err)
{
	char path[PATH_MAX_];
	struct kube_reflector_options o = {
		.client = r->options.client,
		.path = "/apis/" OPERATOR_VERSION "/ebpfdumps",
		.api_version = OPERATOR_VERSION,
		.kind = OPERATOR_KIND,
		.timing = r->options.timing,
		.shrink = shrink_dump,
		.on_change = on_dump,
		.on_synced = on_synced,
		.on_recovered = on_recovered,
		.ctx = r,
	};
	int status = kube_reflector_new(&o, &r->dumps, err);

	if (status)
		return status;
	/* by name: one that is not ours is seen as well, and no more than this one may be */
	snprintf(path, sizeof(path), "/apis/apps/v1/namespaces/%s/daemonsets", r->namespace);
	o.path = path;
	o.api_version = "apps/v1";
	o.kind = "DaemonSet";
	o.field_selector = "metadata.name=" OPERATOR_DAEMONSET;
	o.shrink = NULL;
	o.on_change = on_set;
	o.on_synced = on_sets_synced;
	return kube_reflector_new(&o, &r->sets, err);
}

int reconciler_new(const struct reconciler_options *options, struct reconciler **ret_reconciler,
	struct err *err)
{
	CLEANUP(reconciler_freep)
	struct reconciler *r = calloc(1, sizeof(*r));
	int status;

	if (!r)
		return err_set(err, ENOMEM, "out of memory");
	r->options = *options;
	status = set_up(r);
	if (status)
		return err_set(err, -status, "reconciler: %s", strerror(-status));
	status = start_caches(r, err);
	if (status)
		return status;
	*ret_reconciler = TAKE(r);
	return 0;
}

void reconciler_free(struct reconciler *r)
{
	if (!r)
		return;
	pass_drop(r);
	report_drop(r);
	kube_reflector_free(r->dumps);
	kube_reflector_free(r->sets);
	kube_queue_free(r->loaders);
	kube_queue_free(r->statuses);
	loop_remove(r->wake);
	loop_remove(r->resync);
	json_object_put(r->fresh);
	json_object_put(r->written);
	json_object_put(r->facts.daemonset);
	free(r->namespace);
	free(r->image);
	free(r->account);
	free(r->deployment);
	free(r);
}

void reconciler_freep(struct reconciler **r)
{
	reconciler_free(*r);
	*r = NULL;
}

void reconciler_lead(struct reconciler *r)
{
	r->leading = true;
	if (reconciler_synced(r)) {
		new_winner(r);
		want_all(r);
	}
}

void reconciler_drain(struct reconciler *r, void (*done)(void *ctx), void *ctx)
{
	r->draining = true;
	r->drained = done;
	r->drained_ctx = ctx;
	kube_queue_shut_down(r->loaders);
	kube_queue_shut_down(r->statuses);
	work_on(r);
}

void reconciler_kick(struct reconciler *r)
{
	kube_reflector_kick(r->dumps);
	kube_reflector_kick(r->sets);
	want_loaders(r);
}

/* ---- what is said about it ---- */

static bool cache_ready(const struct kube_reflector *reflector, const char *name, struct buf *out)
{
	struct kube_reflector_info i;
	bool young;

	kube_reflector_info(reflector, &i);
	young = i.last_contact_ns && kube_now_ns() - i.last_contact_ns < CONTACT_NS;
	if (i.synced && (i.phase == KUBE_WATCHING || young))
		return true;
	if (buf_printf(out, "%s: %s%s%s\n", name,
		    i.synced ? kube_reflector_phase_name(i.phase) : "not listed yet",
		    i.why[0] ? ": " : "", i.why) < 0)
		log_debug("no room to say that %s is not ready", name);
	return false;
}

bool reconciler_ready(const struct reconciler *r, struct buf *out)
{
	bool dumps = cache_ready(r->dumps, "ebpfdumps", out);
	bool sets = cache_ready(r->sets, "daemonsets", out);

	return dumps && sets;
}

static void cache_metrics(struct metrics *m, const char *name, const char *help,
	enum metrics_type type, uint64_t dumps, uint64_t sets)
{
	metrics_family(m, name, type, help);
	metrics_u64(m, name, dumps, "resource", "ebpfdumps", NULL);
	metrics_u64(m, name, sets, "resource", "daemonsets", NULL);
}

static void caches_metrics(const struct reconciler *r, struct metrics *m)
{
	struct kube_reflector_info d, s;

	kube_reflector_info(r->dumps, &d);
	kube_reflector_info(r->sets, &s);
	cache_metrics(m, "ebpfdump_operator_cache_objects", "Objects in the cache.", METRICS_GAUGE,
		d.objects, s.objects);
	cache_metrics(m, "ebpfdump_operator_lists_total", "Lists asked for.", METRICS_COUNTER,
		d.lists, s.lists);
	cache_metrics(m, "ebpfdump_operator_watches_total", "Watches begun.", METRICS_COUNTER,
		d.watches, s.watches);
	cache_metrics(m, "ebpfdump_operator_watch_events_total", "Events of watches.",
		METRICS_COUNTER, d.events, s.events);
	cache_metrics(m, "ebpfdump_operator_watch_failures_total",
		"Lists and watches that did not end as they should.", METRICS_COUNTER, d.failures,
		s.failures);
	cache_metrics(m, "ebpfdump_operator_watch_expired_total",
		"Of them those whose version was too old.", METRICS_COUNTER, d.expired, s.expired);
	cache_metrics(m, "ebpfdump_operator_watch_skipped_total",
		"Events that could not be understood.", METRICS_COUNTER, d.skipped, s.skipped);
	cache_metrics(m, "ebpfdump_operator_cache_left_out_total",
		"Objects for which the cache had no room.", METRICS_COUNTER, d.left_out,
		s.left_out);
}

static void queue_metrics(const struct reconciler *r, struct metrics *m)
{
	static const char *const names[] = {"loaders", "statuses"};
	struct kube_queue_stats s[2];

	kube_queue_stats(r->loaders, &s[0]);
	kube_queue_stats(r->statuses, &s[1]);
#define EACH(name, type, help, field)                                              \
	do {                                                                       \
		metrics_family(m, name, type, help);                               \
		for (int i = 0; i < 2; i++)                                        \
			metrics_u64(m, name, s[i].field, "queue", names[i], NULL); \
	} while (0)
	EACH("ebpfdump_operator_queue_depth", METRICS_GAUGE, "Keys that wait.", depth);
	EACH("ebpfdump_operator_queue_delayed", METRICS_GAUGE, "Keys whose time has not come.",
		delayed);
	EACH("ebpfdump_operator_queue_adds_total", METRICS_COUNTER, "Keys added.", adds);
	EACH("ebpfdump_operator_queue_retries_total", METRICS_COUNTER,
		"Keys added again after a failure.", retries);
	EACH("ebpfdump_operator_queue_refused_total", METRICS_COUNTER,
		"Keys for which there was no room.", refused);
#undef EACH
	metrics_family(m, "ebpfdump_operator_queue_wait_seconds_total", METRICS_COUNTER,
		"Time that keys waited.");
	for (int i = 0; i < 2; i++)
		metrics_f64(m, "ebpfdump_operator_queue_wait_seconds_total",
			(double)s[i].wait_ns / 1e9, "queue", names[i], NULL);
}

static void pass_metrics(const struct reconciler *r, struct metrics *m)
{
	static const char *const outcomes[] = {
		[KUBE_DONE] = "done",
		[KUBE_FAILED] = "failed",
		[KUBE_AGAIN] = "again",
		[KUBE_TERMINAL] = "terminal",
	};

	metrics_family(m, "ebpfdump_operator_reconciles_total", METRICS_COUNTER,
		"Runs over the loaders, by how they ended.");
	for (size_t i = 0; i < ARRAY_SIZE(outcomes); i++)
		metrics_u64(m, "ebpfdump_operator_reconciles_total", r->passes[i], "outcome",
			outcomes[i], NULL);
	metrics_family(m, "ebpfdump_operator_reconcile_seconds_total", METRICS_COUNTER,
		"Time that they took.");
	metrics_f64(m, "ebpfdump_operator_reconcile_seconds_total", (double)r->pass_ns / 1e9, NULL);
	metrics_family(m, "ebpfdump_operator_reconcile_seconds_max", METRICS_GAUGE,
		"Time that the longest took.");
	metrics_f64(
		m, "ebpfdump_operator_reconcile_seconds_max", (double)r->pass_ns_max / 1e9, NULL);
	metrics_family(m, "ebpfdump_operator_actions_total", METRICS_COUNTER,
		"Requests of the runs, by what they ask.");
	for (int i = 0; i < OPERATOR_FINISH; i++)
		metrics_u64(m, "ebpfdump_operator_actions_total", r->actions[i], "action",
			operator_action_name((enum operator_action)i), NULL);
	metrics_family(m, "ebpfdump_operator_action_failures_total", METRICS_COUNTER,
		"Of them those that failed.");
	for (int i = 0; i < OPERATOR_FINISH; i++)
		metrics_u64(m, "ebpfdump_operator_action_failures_total", r->action_failures[i],
			"action", operator_action_name((enum operator_action)i), NULL);
	metrics_family(m, "ebpfdump_operator_status_writes_total", METRICS_COUNTER,
		"Statuses of EbpfDumps written.");
	metrics_u64(m, "ebpfdump_operator_status_writes_total", r->status_writes, NULL);
	metrics_family(m, "ebpfdump_operator_explanations_left_out_total", METRICS_COUNTER,
		"Pods and events that may tell why loaders are not ready, and had no room.");
	metrics_u64(m, "ebpfdump_operator_explanations_left_out_total", r->left_out, NULL);
	metrics_family(m, "ebpfdump_operator_status_failures_total", METRICS_COUNTER,
		"Statuses that could not be written.");
	metrics_u64(m, "ebpfdump_operator_status_failures_total", r->status_failures, NULL);
}

/* What the loaders' nodes do, for alerts: of the DaemonSet itself, so that they end with it. */
static void node_metrics(const struct reconciler *r, struct metrics *m)
{
	const struct json_object *set = r->leading ? kube_reflector_get(r->sets, r->set_key) : NULL;

	if (set && !operator_is_ours(set, &r->options.settings))
		set = NULL;
	metrics_family(m, "ebpfdump_operator_nodes_desired", METRICS_GAUGE,
		"Nodes that shall have a loader; as of the leader.");
	metrics_u64(m, "ebpfdump_operator_nodes_desired",
		(uint64_t)MAX(kube_get_int(set, "status.desiredNumberScheduled", 0), 0), NULL);
	metrics_family(m, "ebpfdump_operator_nodes_ready", METRICS_GAUGE,
		"Nodes whose loader is ready; as of the leader.");
	metrics_u64(m, "ebpfdump_operator_nodes_ready",
		(uint64_t)MAX(kube_get_int(set, "status.numberReady", 0), 0), NULL);
}

void reconciler_metrics(const struct reconciler *r, struct metrics *m)
{
	caches_metrics(r, m);
	queue_metrics(r, m);
	pass_metrics(r, m);
	node_metrics(r, m);
}

int operator_accept_paths(
	const char *namespace, const char *deployment, const char **ret_paths, size_t size)
{
	static char texts[4][512];
	size_t n = 0;

	if (size < 8)
		return -ENOBUFS;
	snprintf(texts[0], sizeof(texts[0]),
		"^/apis/apps/v1/namespaces/%s/(daemonsets(/" OPERATOR_DAEMONSET
		")?|deployments/%s)$",
		namespace, deployment[0] ? deployment : "none");
	snprintf(texts[1], sizeof(texts[1]),
		"^/apis/coordination[.]k8s[.]io/v1/namespaces/%s/leases(/" OPERATOR_MANAGER ")?$",
		namespace);
	snprintf(texts[2], sizeof(texts[2]),
		"^/api/v1/namespaces/%s/(pods|events|secrets(/" OPERATOR_SECRET ")?)$", namespace);
	ret_paths[n++] = "^/apis/research[.]dynatrace[.]com/v1alpha1/"
			 "(namespaces/[^/]+/)?ebpfdumps(/[^/]+/status)?$";
	ret_paths[n++] = texts[0];
	ret_paths[n++] = texts[1];
	ret_paths[n++] = texts[2];
	ret_paths[n++] = "^/apis/events[.]k8s[.]io/v1/namespaces/[^/]+/events(/[^/]+)?$";
	ret_paths[n++] = "^/(version|readyz)$";
	ret_paths[n] = NULL;
	return 0;
}
