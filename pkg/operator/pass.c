/* SPDX-License-Identifier: Apache-2.0 */
/* The loaders: one run from what is known to what shall be, a request at a time. */
#include <errno.h>
#include <stdlib.h>

#include "pkg/operator/reconciler.h"

#define CONFLICT_MS   60000 /* until another's DaemonSet is looked at again */
#define SOON_MS	      1000
#define SAID_AFTER    10   /* failures in a row, 5 s with their backoff: then the status says it */
#define POLL_FIRST_MS 5000 /* why are they not ready? again after 5, 10, 20, 30 s, 30 s... */
#define POLL_MAX_MS   30000
#define REFUSED_NS    (30 * KUBE_SECOND) /* pods missing for so long are refused (R2.20) */
/* Of lists that only explain. A cluster has 5000 nodes at most, and as many loaders. */
#define PODS_PAGE   "250"
#define EVENTS_PAGE "500"
#define DUMPS_PAGE  "100"
#define PAGES_MAX   40

static void step(struct reconciler *r);

/* ---- the end of it ---- */

static void pass_done(struct pass *p)
{
	json_object_put(p->winner);
	json_object_put(p->intent);
	json_object_put(p->set);
	json_object_put(p->pods);
	json_object_put(p->events);
	json_object_put(p->live);
	free(p->next_page);
	spec_resource_done(&p->spec);
	json_object_put(p->spec_json);
	*p = (struct pass){0};
}

void pass_drop(struct reconciler *r)
{
	kube_cancel(r->pass.request);
	pass_done(&r->pass);
}

static uint64_t poll_after(struct reconciler *r)
{
	uint64_t ns =
		MIN((uint64_t)POLL_FIRST_MS << MIN(r->polls, 3U), (uint64_t)POLL_MAX_MS) * 1000000;
	uint64_t short_ns = r->short_since_ns ? kube_now_ns() - r->short_since_ns : REFUSED_NS;

	r->polls++;
	return short_ns < REFUSED_NS ? MIN(ns, REFUSED_NS - short_ns) : ns;
}

/* Pods are missing, and not only since a moment ago. One that was said to be refused is so since
 * longer than this process lives. */
static bool refused(struct reconciler *r, const struct json_object *set)
{
	uint64_t now = kube_now_ns();
	CLEANUP(json_putp)
	struct json_object *status = NULL;

	if (!operator_is_short(set)) {
		r->short_since_ns = 0;
		return false;
	}
	if (r->short_since_ns == 0) {
		r->short_since_ns = now;
		status = part_of(r->pass.winner, "status");
		if (strcmp(kube_get_string(
				   kube_condition_find(kube_get(status, "conditions"), "Degraded"),
				   "reason"),
			    "PodsRejected") == 0)
			r->short_since_ns -= REFUSED_NS;
	}
	return now - r->short_since_ns >= REFUSED_NS;
}

/* Why loaders are not ready: as it was, if that was not asked this time. */
static void explain(struct reconciler *r, const struct json_object *set, bool missing)
{
	struct pass *p = &r->pass;
	struct operator_trouble *t = &p->facts.trouble;

	if (p->explain_in_ns && operator_is_about(&r->facts, p->winner))
		*t = r->facts.trouble;
	else
		operator_find_trouble(set, p->pods, p->events, missing, t);
	/* it may be the loaders' key that somebody deleted */
	if (t->reason && (strcmp(t->reason, "MountFailed") == 0 ||
				 strcmp(t->reason, "ConfigurationFailed") == 0))
		r->secret_known = false;
}

/* What was found out about the accepted one; of a failed pass only what a failure itself says. */
static void keep_facts(struct reconciler *r)
{
	struct pass *p = &r->pass;
	struct json_object *set = current_set(r);
	bool said = p->facts.problem != OPERATOR_FINE, missing;

	if (!p->winner || !p->valid || (p->view.failed && !said))
		return;
	missing = refused(r, set);
	if (!said && set && !operator_rolled_out(set))
		explain(r, set, missing);
	json_object_put(r->facts.daemonset);
	r->facts = p->facts;
	snprintf(r->facts.uid, sizeof(r->facts.uid), "%s",
		kube_get_string(p->winner, "metadata.uid"));
	r->facts.generation = kube_get_int(p->winner, "metadata.generation", 0);
	/* loaders that run are counted though what they shall be could not be written */
	r->facts.daemonset =
		p->facts.problem == OPERATOR_NAME_CONFLICT ? NULL : json_object_get(set);
}

static enum kube_outcome outcome_of(struct reconciler *r, uint64_t *ret_after)
{
	struct pass *p = &r->pass;

	*ret_after = 0;
	if (p->view.failed) {
		*ret_after = (uint64_t)p->retry_after_s * KUBE_SECOND;
		return KUBE_FAILED;
	}
	if (p->again_soon) {
		*ret_after = (uint64_t)SOON_MS * 1000000;
		return KUBE_AGAIN;
	}
	if (p->facts.problem != OPERATOR_FINE) {
		*ret_after = (uint64_t)CONFLICT_MS * 1000000;
		return KUBE_AGAIN;
	}
	if (p->winner && p->valid && !operator_rolled_out(current_set(r))) {
		*ret_after = p->explain_in_ns ? p->explain_in_ns : poll_after(r);
		return KUBE_AGAIN;
	}
	r->polls = 0;
	return KUBE_DONE;
}

static void finish(struct reconciler *r)
{
	struct pass *p = &r->pass;
	char key[KUBE_KEY_MAX];
	uint64_t now = kube_now_ns(), after;
	enum kube_outcome outcome;

	keep_facts(r);
	outcome = outcome_of(r, &after);
	if (p->winner)
		want_status(r, key_of(p->winner, key, sizeof(key)));
	r->passes[outcome]++;
	r->pass_ns += now - p->began_ns;
	r->pass_ns_max = MAX(r->pass_ns_max, now - p->began_ns);
	r->last_done_ns = now;
	pass_done(p);
	kube_queue_finish(r->loaders, CLUSTER_KEY, outcome, after, now);
	work_on(r);
}

/* ---- answers ---- */

/* A 500 that stays, a webhook's for instance, is no accident any more. */
static bool goes_on(const struct reconciler *r, enum kube_result result)
{
	return result == KUBE_SERVER && kube_queue_failures(r->loaders, CLUSTER_KEY) >= SAID_AFTER;
}

static void fail(struct reconciler *r, const struct kube_response *response, const char *what)
{
	struct pass *p = &r->pass;

	p->view.failed = true;
	p->retry_after_s = MAX(response->retry_after_s, 0);
	r->action_failures[p->action]++;
	if (response->result != KUBE_NOT_ALLOWED)
		log_warn("%s: %s: %s", operator_action_name(p->action),
			kube_result_name(response->result), response->error);
	if (is_transient(response->result) && !goes_on(r, response->result))
		return;
	p->facts.problem = OPERATOR_APPLY_FAILED;
	snprintf(p->facts.problem_text, sizeof(p->facts.problem_text), "%s: %.400s", what,
		response->error);
}

static void got_owner(struct reconciler *r, const struct kube_response *response)
{
	if (response->result == KUBE_OK) {
		snprintf(r->owner_uid, sizeof(r->owner_uid), "%s",
			kube_get_string(response->object, "metadata.uid"));
		r->owner_known = true;
	} else if (is_transient(response->result)) {
		fail(r, response, "The operator's Deployment cannot be read");
	} else {
		/* it works without, but for who deletes the operator */
		if (!r->owner_known)
			log_warn("Deployment %s: %s: the loaders will have no owner", r->deployment,
				response->error);
		r->owner_uid[0] = '\0';
		r->owner_known = true;
	}
}

static void got_secret(struct reconciler *r, const struct kube_response *response)
{
	if (response->result == KUBE_OK)
		r->secret_known = true;
	else if (response->result == KUBE_NOT_FOUND)
		r->pass.view.secret_missing = true;
	else
		fail(r, response, "The Secret " OPERATOR_SECRET " cannot be read");
}

static void made_secret(struct reconciler *r, const struct kube_response *response)
{
	/* another operator was faster: its key is as good */
	if (response->result == KUBE_OK || response->result == KUBE_ALREADY_EXISTS)
		r->secret_known = true;
	else
		fail(r, response, "The Secret " OPERATOR_SECRET " cannot be made");
}

static const char *intent_of(const struct json_object *set)
{
	return meta_value(set, "metadata.annotations", OPERATOR_INTENT);
}

/* An answer is newer than the cache, unless the watch was faster. */
static void set_fresh(struct reconciler *r, struct json_object *set)
{
	struct json_object *cached = kube_reflector_get(r->sets, r->set_key);

	json_object_put(r->fresh);
	r->fresh = NULL;
	if (strcmp(r->gone_uid, kube_get_string(set, "metadata.uid")) == 0)
		return;
	if (cached &&
		strcmp(kube_get_string(cached, "metadata.uid"),
			kube_get_string(set, "metadata.uid")) == 0 &&
		kube_get_int(cached, "metadata.generation", 0) >=
			kube_get_int(set, "metadata.generation", 0) &&
		strcmp(intent_of(cached), intent_of(set)) == 0)
		return;
	r->fresh = json_object_get(set);
}

static void got_daemonset(struct reconciler *r, const struct kube_response *response)
{
	r->pass.view.daemonset_asked = true;
	if (response->result == KUBE_OK)
		set_fresh(r, response->object);
	else if (response->result != KUBE_NOT_FOUND)
		fail(r, response, "The DaemonSet cannot be read");
}

static void tell_warnings(struct reconciler *r, const struct kube_response *response)
{
	for (uint32_t i = 0; i < response->warning_count; i++) {
		log_warn("the API server warns: %s", response->warnings[i]);
		tell(r, r->pass.winner, true, "AdmissionWarning", response->warnings[i]);
	}
}

static void applied(struct reconciler *r, const struct kube_response *response)
{
	struct pass *p = &r->pass;
	int64_t generation = kube_get_int(response->object, "metadata.generation", 0);

	p->view.applied = true;
	/* there is nothing to see yet */
	p->view.pods_asked = p->view.events_asked = true;
	if (response->result != KUBE_OK) {
		fail(r, response, "The DaemonSet cannot be applied");
		return;
	}
	if (response->http_code == 201) {
		log_info("DaemonSet " OPERATOR_DAEMONSET " is made");
		tell(r, p->winner, false, "LoaderCreated",
			"DaemonSet " OPERATOR_DAEMONSET " is made");
	} else if (generation != kube_get_int(p->set, "metadata.generation", 0)) {
		log_info("DaemonSet " OPERATOR_DAEMONSET " is changed");
		tell(r, p->winner, false, "LoaderUpdated",
			"DaemonSet " OPERATOR_DAEMONSET " is changed; its pods follow");
	}
	tell_warnings(r, response);
	hash_of(p->intent, r->applied_intent);
	snprintf(r->applied_uid, sizeof(r->applied_uid), "%s",
		kube_get_string(response->object, "metadata.uid"));
	r->applied_generation = generation;
	set_fresh(r, response->object);
}

static void forget_pages(struct pass *p)
{
	free(p->next_page);
	p->next_page = NULL;
	p->pages = 0;
}

/* Whether the list goes on: the same action is next, then. */
static bool more_pages(struct pass *p, const struct kube_response *response, uint32_t max)
{
	const char *token = kube_get_string(response->object, "metadata.continue");
	uint32_t pages = p->pages + 1;

	forget_pages(p);
	if (!token[0] || pages >= max)
		return false;
	p->pages = pages;
	p->next_page = strdup(token);
	return p->next_page;
}

/* Whether the API server, asked just now, sees it as the cache does. */
static void listed_dumps(struct reconciler *r, const struct kube_response *response)
{
	struct pass *p = &r->pass;
	struct json_object *items = kube_get(response->object, "items"), *winner;

	p->view.dumps_asked = true;
	if (response->result == KUBE_NOT_SERVED && !p->winner) {
		/* the CustomResourceDefinition is gone, and all of its resources with it */
		p->view.confirmed = true;
		return;
	}
	if (response->result == KUBE_EXPIRED) {
		p->again_soon = true; /* the pages are of a state that is gone */
		return;
	}
	if (response->result != KUBE_OK || !json_object_is_type(items, json_type_array)) {
		fail(r, response, "The EbpfDumps cannot be listed");
		return;
	}
	for (size_t i = 0; i < json_object_array_length(items); i++) {
		struct json_object *pair[] = {p->live, json_object_array_get_idx(items, i)};

		winner = operator_winner(p->live ? pair : pair + 1, p->live ? 2 : 1);
		if (winner == p->live)
			continue;
		json_object_put(p->live);
		p->live = json_object_get(winner);
	}
	if (more_pages(p, response, UINT32_MAX)) {
		p->view.dumps_asked = false;
		return;
	}
	winner = p->live;
	if (!winner || !p->winner)
		p->view.confirmed = !winner && !p->winner;
	else
		p->view.confirmed =
			strcmp(kube_get_string(winner, "metadata.resourceVersion"),
				kube_get_string(p->winner, "metadata.resourceVersion")) == 0;
	if (!p->view.confirmed) {
		log_info("the cache is behind: the loaders stay for now");
		p->again_soon = true;
	}
}

static void deleted(struct reconciler *r, const struct kube_response *response)
{
	struct pass *p = &r->pass;

	p->view.deleted = true;
	if (response->result == KUBE_OK || response->result == KUBE_NOT_FOUND) {
		log_info("DaemonSet " OPERATOR_DAEMONSET " is deleted: no EbpfDump wants it");
		tell(r, p->set, false, "LoaderDeleted", "No EbpfDump is accepted");
		json_object_put(r->fresh);
		r->fresh = NULL;
	} else if (response->result == KUBE_CONFLICT) {
		p->again_soon = true; /* it changed meanwhile: look again */
	} else {
		fail(r, response, "The DaemonSet cannot be deleted");
	}
}

/* Pods and events only explain: without them, or without the rest of them, it goes on. */
static void listed(struct reconciler *r, const struct kube_response *response, bool *asked,
	int (*keep)(struct json_object **kept, const struct json_object *page),
	struct json_object **kept)
{
	struct pass *p = &r->pass;
	int left_out = 0;

	*asked = true;
	if (response->result == KUBE_OK) {
		left_out = keep(kept, response->object);
		r->left_out += (uint64_t)MAX(left_out, 0);
		if (left_out >= 0)
			*asked = !more_pages(p, response, PAGES_MAX);
		return;
	}
	forget_pages(p);
	r->action_failures[p->action]++;
	log_debug("%s: %s", operator_action_name(p->action), response->error);
}

static void on_answer(void *ctx, const struct kube_response *response)
{
	struct reconciler *r = ctx;
	struct pass *p = &r->pass;

	p->request = NULL;
	switch (p->action) {
	case OPERATOR_GET_OWNER:
		got_owner(r, response);
		break;
	case OPERATOR_GET_SECRET:
		got_secret(r, response);
		break;
	case OPERATOR_CREATE_SECRET:
		made_secret(r, response);
		break;
	case OPERATOR_GET_DAEMONSET:
		got_daemonset(r, response);
		break;
	case OPERATOR_APPLY:
		applied(r, response);
		break;
	case OPERATOR_LIST_DUMPS:
		listed_dumps(r, response);
		break;
	case OPERATOR_DELETE:
		deleted(r, response);
		break;
	case OPERATOR_LIST_PODS:
		listed(r, response, &p->view.pods_asked, operator_keep_pods, &p->pods);
		break;
	case OPERATOR_LIST_EVENTS:
		listed(r, response, &p->view.events_asked, operator_keep_events, &p->events);
		break;
	case OPERATOR_FINISH:
	case OPERATOR_ACTION_MAX:
		break;
	}
	step(r);
}

/* ---- requests ---- */

static int send_json(struct reconciler *r, enum kube_method method, const char *path,
	const char *query, struct json_object *body, const char *type)
{
	struct kube_request_options o = {
		.method = method,
		.path = path,
		.query = query,
		.content_type = type,
		.fn = on_answer,
		.ctx = r,
	};

	if (body)
		o.body = span_str(json_object_to_json_string_ext(
			body, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
	return kube_request(r->options.client, &o, &r->pass.request);
}

static int send_secret(struct reconciler *r, const char *path)
{
	struct operator_settings settings = r->options.settings;
	CLEANUP(json_putp)
	struct json_object *secret = NULL;
	int err = operator_secret(&settings, &secret);

	return err ? err : send_json(r, KUBE_POST, path, NULL, secret, NULL);
}

static int send_delete(struct reconciler *r, const char *path)
{
	struct json_object *set = current_set(r);
	struct maker m = {0};
	CLEANUP(json_putp)
	struct json_object *body = json_object_new_object();
	struct json_object *must;

	make_string(&m, body, "kind", "DeleteOptions");
	make_string(&m, body, "apiVersion", "v1");
	make_string(&m, body, "propagationPolicy", "Background");
	must = make_object(&m, body, "preconditions");
	make_string(&m, must, "uid", kube_get_string(set, "metadata.uid"));
	make_string(&m, must, "resourceVersion", kube_get_string(set, "metadata.resourceVersion"));
	return m.failed ? -ENOMEM : send_json(r, KUBE_DELETE, path, NULL, body, NULL);
}

/* A page of a list, the first or the one that follows. */
static int send_list(struct reconciler *r, const char *path, const char *query)
{
	CLEANUP(buf_done)
	struct buf text = BUF_INIT(8192);
	int err = buf_printf(&text, "%s", query);

	if (err >= 0 && r->pass.next_page) {
		err = buf_printf(&text, "&continue=");
		if (err >= 0)
			err = kube_escape(&text, r->pass.next_page);
	}
	if (err >= 0)
		err = buf_append(&text, "", 1);
	return err < 0 ? err : send_json(r, KUBE_GET, path, text.data, NULL, NULL);
}

static int send_action(struct reconciler *r)
{
	static const char pods[] = "labelSelector=app.kubernetes.io%2Fname%3Debpfdump-operator%2C"
				   "app.kubernetes.io%2Fcomponent%3Dloader&limit=" PODS_PAGE;
	struct pass *p = &r->pass;
	char path[PATH_MAX_];

	switch (p->action) {
	case OPERATOR_GET_OWNER:
		snprintf(path, sizeof(path), "/apis/apps/v1/namespaces/%s/deployments/%s",
			r->namespace, r->deployment);
		return send_json(r, KUBE_GET, path, NULL, NULL, NULL);
	case OPERATOR_GET_SECRET:
		snprintf(path, sizeof(path), "/api/v1/namespaces/%s/secrets/" OPERATOR_SECRET,
			r->namespace);
		return send_json(r, KUBE_GET, path, NULL, NULL, NULL);
	case OPERATOR_CREATE_SECRET:
		snprintf(path, sizeof(path), "/api/v1/namespaces/%s/secrets", r->namespace);
		return send_secret(r, path);
	case OPERATOR_LIST_DUMPS:
		return send_list(r, "/apis/" OPERATOR_VERSION "/ebpfdumps", "limit=" DUMPS_PAGE);
	case OPERATOR_LIST_PODS:
		snprintf(path, sizeof(path), "/api/v1/namespaces/%s/pods", r->namespace);
		return send_list(r, path, pods);
	case OPERATOR_LIST_EVENTS:
		snprintf(path, sizeof(path), "/api/v1/namespaces/%s/events", r->namespace);
		return send_list(r, path, "fieldSelector=type%3DWarning&limit=" EVENTS_PAGE);
	default:
		break;
	}
	snprintf(path, sizeof(path), "/apis/apps/v1/namespaces/%s/daemonsets/" OPERATOR_DAEMONSET,
		r->namespace);
	if (p->action == OPERATOR_DELETE)
		return send_delete(r, path);
	if (p->action == OPERATOR_GET_DAEMONSET)
		return send_json(r, KUBE_GET, path, NULL, NULL, NULL);
	return send_json(r, KUBE_PATCH, path,
		"fieldManager=" OPERATOR_MANAGER "&force=true&fieldValidation=Strict", p->intent,
		KUBE_APPLY_PATCH);
}

/* ---- a step ---- */

static int make_intent(struct reconciler *r)
{
	struct operator_settings settings = r->options.settings;

	settings.owner_uid = r->owner_uid;
	json_object_put(r->pass.intent);
	r->pass.intent = NULL;
	return operator_daemonset(&settings, r->pass.winner, &r->pass.spec, &r->pass.intent);
}

/* What the server made of the same intent, and nobody has changed since, is as good: numbers in
 * another notation, webhooks. */
static bool remembered(const struct reconciler *r, const struct json_object *set, const char *hash)
{
	return strcmp(r->applied_intent, hash) == 0 &&
	       strcmp(r->applied_uid, kube_get_string(set, "metadata.uid")) == 0 &&
	       r->applied_generation == kube_get_int(set, "metadata.generation", 0);
}

static bool holds(const struct reconciler *r, const struct json_object *set)
{
	const struct json_object *intent = r->pass.intent;
	char hash[17];

	if (!set || !intent ||
		!operator_holds(kube_get(intent, "metadata"), kube_get(set, "metadata")))
		return false;
	hash_of(r->pass.intent, hash);
	return remembered(r, set, hash) ||
	       operator_holds(kube_get(intent, "spec"), kube_get(set, "spec"));
}

/* Whether the DaemonSet was made for another EbpfDump than the present one. */
static bool of_another(const struct reconciler *r, const struct json_object *set)
{
	return !r->pass.winner || strcmp(meta_value(set, "metadata.annotations", OPERATOR_OF_UID),
					  kube_get_string(r->pass.winner, "metadata.uid")) != 0;
}

static void look(struct reconciler *r)
{
	struct pass *p = &r->pass;
	struct operator_view *v = &p->view;
	struct json_object *set = current_set(r);

	v->wanted = p->winner && p->valid;
	v->daemonset = set != NULL;
	v->going = kube_get_string(set, "metadata.deletionTimestamp")[0] != '\0';
	v->ours = set && operator_is_ours(set, &r->options.settings);
	v->selects = set && operator_selects(set);
	v->others = set && of_another(r, set);
	v->rolled_out = operator_rolled_out(set);
	v->needs_secret = v->wanted && operator_needs_secret(&p->spec);
	v->owner_known = r->owner_known;
	v->secret_known = r->secret_known;
	v->holds = false;
	if (v->wanted && v->owner_known && make_intent(r) == 0)
		v->holds = holds(r, set);
}

/* What keeps the pass from going on, if something does. */
static void note_conflict(struct reconciler *r)
{
	struct operator_facts *f = &r->pass.facts;
	const struct operator_view *v = &r->pass.view;

	if (!v->wanted || !v->daemonset || v->going || f->problem != OPERATOR_FINE)
		return;
	if (!v->ours) {
		f->problem = OPERATOR_NAME_CONFLICT;
		snprintf(f->problem_text, sizeof(f->problem_text),
			"There is a DaemonSet %s/" OPERATOR_DAEMONSET
			" that is not the operator's; it is left alone. Delete or rename it.",
			r->namespace);
	} else if (!v->selects) {
		f->problem = OPERATOR_SELECTOR_CONFLICT;
		snprintf(f->problem_text, sizeof(f->problem_text),
			"DaemonSet %s/" OPERATOR_DAEMONSET
			" has another selector, which cannot be changed. Delete it; it is made anew.",
			r->namespace);
	}
	if (f->problem != OPERATOR_FINE)
		log_warn("%s", f->problem_text);
}

/* What shall be done next. */
static enum operator_action next(struct reconciler *r)
{
	struct pass *p = &r->pass;
	enum operator_action action;

	if (r->draining)
		p->view.failed = true;
	look(r);
	action = operator_next(&p->view);
	if (action != OPERATOR_LIST_PODS || p->pages > 0)
		return action;
	p->explain_in_ns = kube_bucket_take(&r->explain, kube_now_ns());
	if (p->explain_in_ns == 0)
		return action;
	p->view.pods_asked = p->view.events_asked = true;
	return operator_next(&p->view);
}

static void step(struct reconciler *r)
{
	struct pass *p = &r->pass;
	int err;

	p->action = next(r);
	if (p->action == OPERATOR_FINISH) {
		note_conflict(r);
		finish(r);
		return;
	}
	r->actions[p->action]++;
	json_object_put(p->set);
	p->set = json_object_get(current_set(r));
	err = send_action(r);
	if (err == 0)
		return;
	log_warn("%s: %s", operator_action_name(p->action), strerror(-err));
	p->view.failed = true;
	finish(r);
}

void pass_begin(struct reconciler *r)
{
	struct pass *p = &r->pass;
	struct err err = {0};

	*p = (struct pass){.running = true, .began_ns = kube_now_ns()};
	p->winner = json_object_get(current_winner(r));
	p->spec_json = part_of(p->winner, "spec");
	if (p->winner)
		p->valid = spec_resource_decode(p->spec_json, &p->spec, &err) == 0;
	if (p->winner && !p->valid)
		log_warn("EbpfDump %s/%s: %s", kube_get_string(p->winner, "metadata.namespace"),
			kube_get_string(p->winner, "metadata.name"), err.text);
	step(r);
}
