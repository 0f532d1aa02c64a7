/* SPDX-License-Identifier: Apache-2.0 */
/* What an EbpfDump's status says. */
#include <errno.h>

#include "pkg/operator/internal.h"

/* Of a DaemonSet's status; what is missing is 0. */
struct counts {
	int64_t desired, updated, ready, available;
	bool observed; /* they are about the present spec */
};

static struct counts counts_of(const struct json_object *daemonset)
{
	return (struct counts){
		.desired = kube_get_int(daemonset, "status.desiredNumberScheduled", 0),
		.updated = kube_get_int(daemonset, "status.updatedNumberScheduled", 0),
		.ready = kube_get_int(daemonset, "status.numberReady", 0),
		.available = kube_get_int(daemonset, "status.numberAvailable", 0),
		.observed = kube_get_int(daemonset, "status.observedGeneration", -1) >=
			    kube_get_int(daemonset, "metadata.generation", 0),
	};
}

bool operator_rolled_out(const struct json_object *daemonset)
{
	struct counts c = counts_of(daemonset);

	return daemonset && c.observed && c.updated >= c.desired && c.available >= c.desired;
}

bool operator_is_about(const struct operator_facts *facts, const struct json_object *dump)
{
	return strcmp(facts->uid, kube_get_string(dump, "metadata.uid")) == 0 &&
	       facts->generation == kube_get_int(dump, "metadata.generation", 0);
}

struct verdict {
	const char *accepted, *accepted_reason;
	const char *ready, *ready_reason;
	const char *progressing, *progressing_reason;
	const char *degraded, *degraded_reason;
	char accepted_text[600], text[600];
	struct counts counts;
};

static void refuse(struct verdict *v, const char *reason)
{
	*v = (struct verdict){"False", reason, "False", "NotAccepted", "False", "NotAccepted",
		"False", "NotAccepted", "", "", {0}};
}

static void lost(struct verdict *v, const struct json_object *winner)
{
	char key[KUBE_KEY_MAX];

	refuse(v, "Conflict");
	snprintf(v->accepted_text, sizeof(v->accepted_text),
		"EbpfDump %s (created %s) is active; this one is ignored until that is deleted",
		key_of(winner, key, sizeof(key)),
		kube_get_string(winner, "metadata.creationTimestamp"));
	snprintf(v->text, sizeof(v->text), "%s", v->accepted_text);
}

/* Of the accepted one: what its loaders do. */
static void judge_rollout(struct verdict *v, const struct operator_facts *facts)
{
	const struct counts *c = &v->counts;
	long long desired = c->desired, updated = c->updated, ready = c->ready;
	long long available = c->available;

	v->ready = "False";
	v->progressing = "True";
	v->progressing_reason = "RolloutInProgress";
	v->ready_reason = "RolloutInProgress";
	if (!facts->daemonset || !c->observed) {
		snprintf(v->text, sizeof(v->text), "The loaders' DaemonSet is being %s",
			facts->daemonset ? "looked at by its controller" : "created");
	} else if (desired == 0) {
		v->ready_reason = v->progressing_reason = "NoMatchingNodes";
		v->progressing = "False";
		snprintf(v->text, sizeof(v->text),
			"No node is to have a loader: see spec.nodeSelector and spec.tolerations");
	} else if (updated < desired) {
		snprintf(v->text, sizeof(v->text), "%lld of %lld loaders have the present spec",
			updated, desired);
	} else if (available < desired) {
		v->ready_reason = "PodsUnavailable";
		if (ready < desired)
			snprintf(v->text, sizeof(v->text), "%lld of %lld loaders are ready", ready,
				desired);
		else
			snprintf(v->text, sizeof(v->text),
				"%lld of %lld loaders are ready, %lld of them for long enough (5 s)",
				ready, desired, available);
	} else {
		v->ready = "True";
		v->ready_reason = "AllNodesReady";
		v->progressing = "False";
		v->progressing_reason = "RolloutComplete";
		snprintf(
			v->text, sizeof(v->text), "%lld of %lld loaders are ready", ready, desired);
	}
}

static void judge(struct verdict *v, const struct operator_facts *facts)
{
	static const char *const problems[] = {
		[OPERATOR_APPLY_FAILED] = "ApplyFailed",
		[OPERATOR_NAME_CONFLICT] = "NameConflict",
		[OPERATOR_SELECTOR_CONFLICT] = "SelectorConflict",
	};

	judge_rollout(v, facts);
	v->degraded = "False";
	v->degraded_reason = "AsExpected";
	if (facts->problem != OPERATOR_FINE) {
		/* of those that run none is known to have the present spec */
		v->counts.updated = 0;
		v->ready = v->progressing = "False";
		v->degraded = "True";
		v->ready_reason = v->progressing_reason = v->degraded_reason =
			problems[facts->problem];
		snprintf(v->text, sizeof(v->text), "%s", facts->problem_text);
	} else if (facts->trouble.reason && strcmp(v->ready, "True") != 0) {
		v->degraded = "True";
		v->ready_reason = v->degraded_reason = facts->trouble.reason;
		/* nothing is being replaced any more: a loader that crashes for days is no roll-out
		 */
		if (v->counts.observed && v->counts.updated >= v->counts.desired) {
			v->progressing = "False";
			v->progressing_reason = facts->trouble.reason;
		}
		snprintf(v->text, sizeof(v->text), "%s", facts->trouble.message);
	}
}

/* What was cut to fit does not end in the middle of a character: the API takes none of it then. */
static void cut(char *text)
{
	text[utf8_valid(text, strlen(text))] = '\0';
}

static void decide(struct verdict *v, const struct json_object *dump,
	const struct json_object *winner, const char *invalid, const struct operator_facts *facts)
{
	const char *uid = kube_get_string(dump, "metadata.uid");

	*v = (struct verdict){0};
	if (!winner || kube_get_string(dump, "metadata.deletionTimestamp")[0]) {
		refuse(v, "Deleting");
		snprintf(v->text, sizeof(v->text), "It is being deleted");
		snprintf(v->accepted_text, sizeof(v->accepted_text), "%s", v->text);
		return;
	}
	if (winner && strcmp(kube_get_string(winner, "metadata.uid"), uid) != 0) {
		lost(v, winner);
		return;
	}
	if (invalid) {
		refuse(v, "InvalidSpec");
		snprintf(v->text, sizeof(v->text), "%s", invalid);
		snprintf(v->accepted_text, sizeof(v->accepted_text), "%s", invalid);
		return;
	}
	v->accepted = "True";
	v->accepted_reason = "Accepted";
	snprintf(v->accepted_text, sizeof(v->accepted_text),
		"This EbpfDump is acted on by all nodes' loaders");
	if (operator_is_about(facts, dump)) {
		v->counts = counts_of(facts->daemonset);
		judge(v, facts);
		return;
	}
	v->ready = v->progressing = v->degraded = "Unknown";
	v->ready_reason = v->progressing_reason = v->degraded_reason = "Reconciling";
	snprintf(v->text, sizeof(v->text), "The operator is at it");
}

static int put_conditions(
	struct json_object *list, const struct verdict *v, int64_t generation, uint64_t wall_ns)
{
	const struct kube_condition conditions[] = {
		{"Accepted", v->accepted, v->accepted_reason, v->accepted_text, generation},
		{"Ready", v->ready, v->ready_reason, v->text, generation},
		{"Progressing", v->progressing, v->progressing_reason, v->text, generation},
		{"Degraded", v->degraded, v->degraded_reason,
			strcmp(v->degraded, "True") == 0 ? v->text : "", generation},
	};
	int r = 0;

	for (size_t i = 0; r >= 0 && i < ARRAY_SIZE(conditions); i++)
		r = kube_condition_set(list, &conditions[i], wall_ns);
	return r < 0 ? r : 0;
}

/* The conditions so far, to be changed; only ours, so that the status is the whole of what we say.
 */
static struct json_object *conditions_of(struct maker *m, const struct json_object *before)
{
	static const char *const types[] = {"Accepted", "Ready", "Progressing", "Degraded"};
	struct json_object *list = json_object_new_array();

	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		struct json_object *old =
			kube_condition_find(kube_get(before, "conditions"), types[i]);
		struct json_object *copy = NULL;

		if (!old)
			continue;
		if (json_object_deep_copy(old, &copy, NULL) < 0)
			m->failed = true;
		else
			make_item(m, list, copy);
	}
	return list;
}

int operator_status(const struct json_object *dump, const struct json_object *winner,
	const char *invalid, const struct operator_facts *facts, const struct json_object *before,
	uint64_t wall_ns, struct json_object **ret_status)
{
	struct maker m = {0};
	CLEANUP(json_putp)
	struct json_object *status = json_object_new_object();
	struct json_object *conditions = conditions_of(&m, before);
	int64_t generation = kube_get_int(dump, "metadata.generation", 0);
	struct verdict v;
	char nodes[32];
	int r;

	decide(&v, dump, winner, invalid, facts);
	cut(v.accepted_text);
	cut(v.text);
	make_int(&m, status, "observedGeneration", generation);
	if (strcmp(v.accepted, "True") == 0) {
		snprintf(nodes, sizeof(nodes), "%lld/%lld", (long long)v.counts.ready,
			(long long)v.counts.desired);
		make_string(&m, status, "nodes", nodes);
		make_int(&m, status, "desiredNodes", v.counts.desired);
		make_int(&m, status, "readyNodes", v.counts.ready);
		make_int(&m, status, "updatedNodes", v.counts.updated);
	}
	conditions = make_add(&m, status, "conditions", conditions);
	if (m.failed)
		return -ENOMEM;
	r = put_conditions(conditions, &v, generation, wall_ns);
	if (r < 0)
		return r;
	*ret_status = TAKE(status);
	return 0;
}

/* Each condition of a has one in b that is equal, its time included: that moves with its status
 * only. */
static bool same_conditions(const struct json_object *a, const struct json_object *b)
{
	size_t n = json_object_is_type(a, json_type_array) ? json_object_array_length(a) : 0;
	size_t m = json_object_is_type(b, json_type_array) ? json_object_array_length(b) : 0;

	if (n != m)
		return false;
	for (size_t i = 0; i < n; i++) {
		struct json_object *one = json_object_array_get_idx(a, i);
		struct json_object *other = kube_condition_find(b, kube_get_string(one, "type"));

		if (!other || !json_object_equal(one, other))
			return false;
	}
	return true;
}

bool operator_same_status(const struct json_object *a, const struct json_object *b)
{
	static const char *const fields[] = {
		"observedGeneration", "nodes", "desiredNodes", "readyNodes", "updatedNodes"};

	for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
		struct json_object *x = kube_get(a, fields[i]), *y = kube_get(b, fields[i]);

		if (!x != !y || (x && !json_object_equal(x, y)))
			return false;
	}
	return same_conditions(kube_get(a, "conditions"), kube_get(b, "conditions"));
}
