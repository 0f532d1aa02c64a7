/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Why loaders do not come up. The DaemonSet controller sets no conditions: a pod that was refused
 * shows as an event of the DaemonSet, one that does not start in its container's state.
 */
#include <errno.h>
#include <stdlib.h>

#include "pkg/operator/internal.h"

#define TEXT_MAX 300  /* of what the API says */
#define KEPT_MAX 1000 /* pods, events */

/* Reasons of a condition, the worse first: the first one that holds is told. */
enum cause { NONE, IMAGE, CONFIG, MOUNT, CRASH, START, UNSCHEDULABLE, NOT_READY, CAUSES };

static const char *const reasons[CAUSES] = {
	[IMAGE] = "ImagePullFailed",
	[CONFIG] = "ConfigurationFailed",
	[MOUNT] = "MountFailed",
	[CRASH] = "CrashLooping",
	[START] = "StartFailed",
	[UNSCHEDULABLE] = "Unschedulable",
	[NOT_READY] = "NotCapturing",
};

struct finding {
	uint32_t pods;
	const char *node;	 /* of the first one */
	const char *what, *text; /* "ImagePullBackOff", "Back-off pulling..." */
};

static bool any_of(const char *word, const char *const *words)
{
	for (; *words; words++)
		if (strcmp(word, *words) == 0)
			return true;
	return false;
}

static enum cause cause_of_waiting(const char *reason)
{
	static const char *const image[] = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName",
		"ErrImageNeverPull", "RegistryUnavailable", "ImageInspectError", NULL};
	static const char *const start[] = {
		"RunContainerError", "CreateContainerError", "PostStartHookError", NULL};

	if (any_of(reason, image))
		return IMAGE;
	if (strcmp(reason, "CreateContainerConfigError") == 0)
		return CONFIG;
	if (strcmp(reason, "CrashLoopBackOff") == 0)
		return CRASH;
	return any_of(reason, start) ? START : NONE;
}

static bool pod_condition_is(const struct json_object *pod, const char *type, const char *status)
{
	struct json_object *c = kube_condition_find(kube_get(pod, "status.conditions"), type);

	return c && strcmp(kube_get_string(c, "status"), status) == 0;
}

/* When it was last seen; 0: it does not say. core/v1 or events.k8s.io. */
static uint64_t event_time(const struct json_object *event)
{
	uint64_t at = 0;

	if (kube_time_parse(kube_get_string(event, "lastTimestamp"), &at) < 0 &&
		kube_time_parse(kube_get_string(event, "series.lastObservedTime"), &at) < 0 &&
		kube_time_parse(kube_get_string(event, "eventTime"), &at) < 0)
		return 0;
	return at;
}

/* The newest event about the object, with this reason; NULL: none. */
static struct json_object *newest_event(
	const struct json_object *events, const char *uid, const char *reason)
{
	struct json_object *list = kube_get(events, "items"), *newest = NULL;
	size_t n = json_object_is_type(list, json_type_array) ? json_object_array_length(list) : 0;
	uint64_t newest_at = 0;

	for (size_t i = 0; i < n; i++) {
		struct json_object *e = json_object_array_get_idx(list, i);
		struct json_object *about = kube_get(e, "involvedObject");
		uint64_t at = event_time(e);

		if (!about)
			about = kube_get(e, "regarding");
		if (strcmp(kube_get_string(about, "uid"), uid) != 0 ||
			strcmp(kube_get_string(e, "reason"), reason) != 0)
			continue;
		if (!newest || at >= newest_at) {
			newest = e;
			newest_at = at;
		}
	}
	return newest;
}

static const char *event_text(const struct json_object *event)
{
	const char *text = kube_get_string(event, "message");

	return text[0] ? text : kube_get_string(event, "note");
}

/* What keeps this pod from being ready. */
static enum cause cause_of(const struct json_object *pod, const struct json_object *events,
	const char **ret_what, const char **ret_text)
{
	struct json_object *statuses = kube_get(pod, "status.containerStatuses");
	struct json_object *container = json_object_is_type(statuses, json_type_array)
						? json_object_array_get_idx(statuses, 0)
						: NULL;
	struct json_object *condition, *event;
	const char *waiting = kube_get_string(container, "state.waiting.reason");
	enum cause cause = cause_of_waiting(waiting);

	*ret_what = waiting;
	*ret_text = kube_get_string(container, "state.waiting.message");
	if (cause == CRASH && kube_get_string(container, "lastState.terminated.message")[0])
		*ret_text = kube_get_string(container, "lastState.terminated.message");
	if (cause != NONE)
		return cause;
	condition = kube_condition_find(kube_get(pod, "status.conditions"), "PodScheduled");
	if (condition && strcmp(kube_get_string(condition, "reason"), "Unschedulable") == 0) {
		*ret_what = "Unschedulable";
		*ret_text = kube_get_string(condition, "message");
		return UNSCHEDULABLE;
	}
	event = newest_event(events, kube_get_string(pod, "metadata.uid"), "FailedMount");
	if (event && !kube_get(container, "state.running")) {
		*ret_what = "FailedMount";
		*ret_text = event_text(event);
		return MOUNT;
	}
	if (kube_get(container, "state.running") && kube_get_bool(container, "started")) {
		event = newest_event(events, kube_get_string(pod, "metadata.uid"), "Unhealthy");
		*ret_what = "not ready";
		*ret_text = event ? event_text(event) : "";
		return NOT_READY;
	}
	return NONE;
}

/* One line of it, not too long. */
static void put_text(char *out, size_t size, const char *text)
{
	size_t len = strlen(text), n;

	while (len > 0 && (unsigned char)text[len - 1] <= ' ')
		len--;
	n = MIN(len, MIN((size_t)TEXT_MAX, size - 4));
	n = utf8_valid(text, n);
	for (size_t i = 0; i < n; i++)
		out[i] = (unsigned char)text[i] < ' ' || text[i] == 0x7f ? ' ' : text[i];
	snprintf(out + n, size - n, "%s", n < len ? "..." : "");
}

bool operator_is_short(const struct json_object *daemonset)
{
	return kube_get_int(daemonset, "status.currentNumberScheduled", 0) <
	       kube_get_int(daemonset, "status.desiredNumberScheduled", 0);
}

/* Whether a pod was made after that time: what was refused before is not any more. */
static bool made_since(const struct json_object *pods, uint64_t at)
{
	struct json_object *list = kube_get(pods, "items");
	size_t n = json_object_is_type(list, json_type_array) ? json_object_array_length(list) : 0;
	uint64_t made;

	for (size_t i = 0; i < n; i++)
		if (kube_time_parse(kube_get_string(json_object_array_get_idx(list, i),
					    "metadata.creationTimestamp"),
			    &made) == 0 &&
			made > at)
			return true;
	return false;
}

/* Pods were not even made: quota, pod security. */
static bool find_refusal(const struct json_object *daemonset, const struct json_object *pods,
	const struct json_object *events, struct operator_trouble *out)
{
	struct json_object *event =
		newest_event(events, kube_get_string(daemonset, "metadata.uid"), "FailedCreate");
	int64_t desired = kube_get_int(daemonset, "status.desiredNumberScheduled", 0);
	int64_t current = kube_get_int(daemonset, "status.currentNumberScheduled", 0);
	char text[TEXT_MAX + 4];

	if (!event || !operator_is_short(daemonset) || made_since(pods, event_time(event)))
		return false;
	put_text(text, sizeof(text), event_text(event));
	out->reason = "PodsRejected";
	snprintf(out->message, sizeof(out->message), "%lld of %lld loaders are refused: %s",
		(long long)(desired - current), (long long)desired, text);
	return true;
}

static bool is_waited_for(const struct json_object *pod)
{
	return !kube_get_string(pod, "metadata.deletionTimestamp")[0] &&
	       !pod_condition_is(pod, "Ready", "True");
}

/* ---- pages ---- */

static void share(struct maker *m, struct json_object *out, const struct json_object *object,
	const char *const *keys)
{
	for (struct json_object *value; *keys; keys++)
		if (json_object_object_get_ex(object, *keys, &value))
			make_share(m, out, *keys, value);
}

static bool small_pod(struct maker *m, struct json_object *out, const struct json_object *pod)
{
	static const char *const metadata[] = {"name", "uid", "creationTimestamp", NULL},
				 *const spec[] = {"nodeName", NULL},
				 *const status[] = {"conditions", "containerStatuses", NULL};

	if (!is_waited_for(pod))
		return false;
	share(m, make_object(m, out, "metadata"), kube_get(pod, "metadata"), metadata);
	share(m, make_object(m, out, "spec"), kube_get(pod, "spec"), spec);
	share(m, make_object(m, out, "status"), kube_get(pod, "status"), status);
	return true;
}

static bool small_event(struct maker *m, struct json_object *out, const struct json_object *event)
{
	static const char *const reasons_read[] = {
		"FailedCreate", "FailedMount", "Unhealthy", NULL};
	static const char *const keys[] = {"reason", "involvedObject", "regarding", "lastTimestamp",
		"series", "eventTime", "message", "note", NULL};

	if (!any_of(kube_get_string(event, "reason"), reasons_read))
		return false;
	share(m, out, event, keys);
	return true;
}

static int keep(struct json_object **kept, const struct json_object *page,
	bool (*make_small)(struct maker *, struct json_object *, const struct json_object *))
{
	struct json_object *items = kube_get(page, "items"), *list;
	size_t n =
		json_object_is_type(items, json_type_array) ? json_object_array_length(items) : 0;
	struct maker m = {0};
	int left_out = 0;

	if (!*kept)
		*kept = json_object_new_object();
	list = kube_get(*kept, "items");
	if (!list)
		list = make_array(&m, *kept, "items");
	for (size_t i = 0; i < n && !m.failed; i++) {
		struct json_object *small = json_object_new_object();

		if (!small || !make_small(&m, small, json_object_array_get_idx(items, i))) {
			m.failed |= !small;
			json_object_put(small);
		} else if (json_object_array_length(list) >= KEPT_MAX) {
			left_out++;
			json_object_put(small);
		} else {
			make_item(&m, list, small);
		}
	}
	return m.failed ? -ENOMEM : left_out;
}

int operator_keep_pods(struct json_object **kept, const struct json_object *page)
{
	return keep(kept, page, small_pod);
}

int operator_keep_events(struct json_object **kept, const struct json_object *page)
{
	return keep(kept, page, small_event);
}

/* ---- what it is ---- */

void operator_find_trouble(const struct json_object *daemonset, const struct json_object *pods,
	const struct json_object *events, bool refused, struct operator_trouble *ret_trouble)
{
	struct json_object *list = kube_get(pods, "items");
	size_t n = json_object_is_type(list, json_type_array) ? json_object_array_length(list) : 0;
	struct finding found[CAUSES] = {{0}};
	char text[TEXT_MAX + 4];

	*ret_trouble = (struct operator_trouble){0};
	if (refused && find_refusal(daemonset, pods, events, ret_trouble))
		return;
	for (size_t i = 0; i < n; i++) {
		struct json_object *pod = json_object_array_get_idx(list, i);
		const char *what, *why;
		enum cause cause;

		if (!is_waited_for(pod))
			continue;
		cause = cause_of(pod, events, &what, &why);
		if (found[cause].pods++ == 0)
			found[cause] = (struct finding){
				1, kube_get_string(pod, "spec.nodeName"), what, why};
	}
	for (int c = NONE + 1; c < CAUSES; c++) {
		const struct finding *f = &found[c];

		if (f->pods == 0)
			continue;
		put_text(text, sizeof(text), f->text);
		ret_trouble->reason = reasons[c];
		snprintf(ret_trouble->message, sizeof(ret_trouble->message),
			"%u of %lld loaders: %s%s%s%s%s", f->pods,
			(long long)kube_get_int(daemonset, "status.desiredNumberScheduled", 0),
			f->what, f->node[0] ? " on " : "", f->node, text[0] ? ": " : "", text);
		return;
	}
}
