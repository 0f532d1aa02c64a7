/* SPDX-License-Identifier: Apache-2.0 */
/* The statuses: one EbpfDump at a time, written only when it says something else. */
#include <errno.h>

#include "pkg/operator/reconciler.h"

static void report_done(struct report *p)
{
	json_object_put(p->dump);
	json_object_put(p->before);
	json_object_put(p->status);
	*p = (struct report){0};
}

void report_drop(struct reconciler *r)
{
	kube_cancel(r->report.request);
	report_done(&r->report);
}

static void finish(struct reconciler *r, enum kube_outcome outcome)
{
	char key[KUBE_KEY_MAX];
	uint64_t after_ns = r->report.retry_after_ns;

	snprintf(key, sizeof(key), "%s", r->report.key);
	report_done(&r->report);
	kube_queue_finish(r->statuses, key, outcome, after_ns, kube_now_ns());
	work_on(r);
}

/* The status so far: the one that was written last, as long as the cache is behind it. A new
 * reference. */
static struct json_object *status_before(
	struct reconciler *r, const char *key, const struct json_object *dump)
{
	struct json_object *mine = NULL;

	if (json_object_object_get_ex(r->written, key, &mine) &&
		strcmp(kube_get_string(mine, "rv"),
			kube_get_string(dump, "metadata.resourceVersion")) == 0)
		return json_object_get(kube_get(mine, "status"));
	json_object_object_del(r->written, key);
	return part_of(dump, "status");
}

/* Until the watch brings it, unless it was faster than the answer. */
static void remember(struct reconciler *r)
{
	struct report *p = &r->report;
	struct maker m = {0};
	struct json_object *entry;

	if (kube_reflector_get(r->dumps, p->key) != p->dump)
		return;
	entry = make_object(&m, r->written, p->key);
	make_string(&m, entry, "rv", kube_get_string(p->dump, "metadata.resourceVersion"));
	make_share(&m, entry, "status", p->status);
}

/* ---- what has changed is an event ---- */

static const char *condition_string(
	const struct json_object *status, const char *type, const char *field)
{
	return kube_get_string(kube_condition_find(kube_get(status, "conditions"), type), field);
}

static bool turned(const struct report *p, const char *type, const char *field)
{
	return strcmp(condition_string(p->before, type, field),
		       condition_string(p->status, type, field)) != 0;
}

static void tell_changes(struct reconciler *r)
{
	const struct report *p = &r->report;
	bool accepted = strcmp(condition_string(p->status, "Accepted", "status"), "True") == 0;
	bool ready = strcmp(condition_string(p->status, "Ready", "status"), "True") == 0;
	bool degraded = strcmp(condition_string(p->status, "Degraded", "status"), "True") == 0;
	bool going = kube_get_string(p->dump, "metadata.deletionTimestamp")[0] != '\0';

	if (turned(p, "Accepted", "reason"))
		tell(r, p->dump, !accepted && !going,
			condition_string(p->status, "Accepted", "reason"),
			condition_string(p->status, "Accepted", "message"));
	if (ready && turned(p, "Ready", "status"))
		tell(r, p->dump, false, "Ready", condition_string(p->status, "Ready", "message"));
	if (degraded && turned(p, "Degraded", "reason"))
		tell(r, p->dump, true, condition_string(p->status, "Degraded", "reason"),
			condition_string(p->status, "Degraded", "message"));
}

/* ---- writing ---- */

static void on_written(void *ctx, const struct kube_response *response)
{
	struct reconciler *r = ctx;
	struct report *p = &r->report;
	enum kube_outcome outcome = KUBE_DONE;

	p->request = NULL;
	if (response->result == KUBE_OK) {
		r->status_writes++;
		remember(r);
		tell_changes(r);
	} else if (response->result != KUBE_NOT_FOUND) {
		r->status_failures++;
		outcome = KUBE_FAILED;
		p->retry_after_ns = (uint64_t)MAX(response->retry_after_s, 0) * KUBE_SECOND;
		if (response->result != KUBE_NOT_ALLOWED)
			log_warn("status of EbpfDump %s: %s: %s", p->key,
				kube_result_name(response->result), response->error);
	}
	finish(r, outcome);
}

static int send_status(struct reconciler *r)
{
	struct report *p = &r->report;
	struct maker m = {0};
	CLEANUP(json_putp)
	struct json_object *body = json_object_new_object();
	struct json_object *metadata;
	const char *namespace = kube_get_string(p->dump, "metadata.namespace");
	const char *name = kube_get_string(p->dump, "metadata.name");
	char path[PATH_MAX_];

	make_string(&m, body, "apiVersion", OPERATOR_VERSION);
	make_string(&m, body, "kind", OPERATOR_KIND);
	metadata = make_object(&m, body, "metadata");
	make_string(&m, metadata, "name", name);
	make_string(&m, metadata, "namespace", namespace);
	/* not to one that was made anew meanwhile */
	make_string(&m, metadata, "uid", kube_get_string(p->dump, "metadata.uid"));
	make_share(&m, body, "status", p->status);
	if (m.failed)
		return -ENOMEM;
	snprintf(path, sizeof(path), "/apis/" OPERATOR_VERSION "/namespaces/%s/ebpfdumps/%s/status",
		namespace, name);
	return kube_request(r->options.client,
		&(struct kube_request_options){
			.method = KUBE_PATCH,
			.path = path,
			.query = "fieldManager=" OPERATOR_STATUS_MANAGER "&force=true",
			.body = span_str(json_object_to_json_string_ext(
				body, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE)),
			.content_type = KUBE_APPLY_PATCH,
			.fn = on_written,
			.ctx = r,
		},
		&p->request);
}

/* Accepted before, and the loaders have not been looked at since the start or the change: they will
 * be in a moment, and then there is something to say. */
static bool too_early(const struct reconciler *r)
{
	const struct report *p = &r->report;

	return strcmp(condition_string(p->before, "Accepted", "status"), "True") == 0 &&
	       !operator_is_about(&r->facts, p->dump);
}

/* Leaves it out (NULL) if there is nothing to say yet. */
static int make_status(struct reconciler *r)
{
	struct report *p = &r->report;
	const struct json_object *winner = current_winner(r);
	struct spec_resource spec = {0};
	struct err invalid = {0};

	/* the others' specs do not matter yet */
	if (winner == p->dump) {
		CLEANUP(json_putp)
		struct json_object *text = part_of(p->dump, "spec");

		if (spec_resource_decode(text, &spec, &invalid) == 0)
			spec_resource_done(&spec);
		if (!invalid.code && too_early(r))
			return 0;
	}
	return operator_status(p->dump, winner, invalid.code ? invalid.text : NULL, &r->facts,
		p->before, clock_wall_ns(), &p->status);
}

void report_begin(struct reconciler *r, const char *key)
{
	struct report *p = &r->report;
	struct json_object *dump = kube_reflector_get(r->dumps, key);
	int err;

	*p = (struct report){.running = true};
	snprintf(p->key, sizeof(p->key), "%s", key);
	if (!dump) {
		json_object_object_del(r->written, key);
		finish(r, KUBE_DONE);
		return;
	}
	p->dump = json_object_get(dump);
	p->before = status_before(r, key, dump);
	err = make_status(r);
	if (err == 0 && (!p->status || operator_same_status(p->before, p->status))) {
		finish(r, KUBE_DONE);
		return;
	}
	if (err == 0 && dump == current_winner(r))
		p->retry_after_ns = kube_bucket_take(&r->say, kube_now_ns());
	if (p->retry_after_ns > 0) {
		finish(r, KUBE_AGAIN);
		return;
	}
	if (err == 0)
		err = send_status(r);
	if (err == 0)
		return;
	log_warn("status of EbpfDump %s: %s", key, strerror(-err));
	finish(r, KUBE_FAILED);
}
