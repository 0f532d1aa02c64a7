/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include "pkg/kube/internal.h"

#define PENDING_MAX 64
#define NOTE_MAX    1024
#define WORD_MAX    128

struct kube_recorder {
	struct kube_recorder_options options;
	char *controller, *instance;
	struct kube_event_table *table;
	struct loop_source *timer; /* the next series that is due */
	struct sending *sending;
	struct kube_recorder_stats stats;
	uint32_t requests;
};

/* A request under way. */
struct sending {
	struct kube_recorder *recorder;
	struct sending *next, *prev;
	struct kube_request *request;
	bool creates;
	char namespace[64], name[256];
};

struct kube_regarding kube_regarding_of(const struct json_object *object)
{
	return (struct kube_regarding){
		.api_version = kube_get_string(object, "apiVersion"),
		.kind = kube_get_string(object, "kind"),
		.namespace = kube_get_string(object, "metadata.namespace"),
		.name = kube_get_string(object, "metadata.name"),
		.uid = kube_get_string(object, "metadata.uid"),
		.resource_version = kube_get_string(object, "metadata.resourceVersion"),
	};
}

/* ---- requests ---- */

static void free_sending(struct sending *s)
{
	struct kube_recorder *r = s->recorder;

	if (s->prev)
		s->prev->next = s->next;
	else
		r->sending = s->next;
	if (s->next)
		s->next->prev = s->prev;
	r->requests--;
	if (s->creates)
		r->stats.pending--;
	free(s);
}

static void on_sent(void *ctx, const struct kube_response *response)
{
	struct sending *s = ctx;
	struct kube_recorder *r = s->recorder;
	bool ok = response->result == KUBE_OK;

	if (ok && s->creates)
		r->stats.created++;
	else if (ok)
		r->stats.patches++;
	else if (s->creates)
		r->stats.failed++;
	if (!ok) {
		/* The next one is created anew: this one never came to be, or is gone (1 h). */
		kube_event_gone(r->table, s->namespace, s->name);
		/* A namespace that is being deleted takes no events: nothing to tell (R4.4). */
		if (!kube_status_has_cause(&response->status, "NamespaceTerminating"))
			log_debug("kube: event: %s", response->error);
	}
	free_sending(s);
}

static int path_of(const struct kube_event_todo *todo, bool named, struct buf *out)
{
	int n = buf_printf(out, "/apis/events.k8s.io/v1/namespaces/");

	if (n >= 0)
		n = kube_escape(out, todo->namespace);
	if (n >= 0)
		n = buf_printf(out, "/events%s", named ? "/" : "");
	if (n >= 0 && named)
		n = kube_escape(out, todo->name);
	return n < 0 ? n : buf_append(out, "", 1);
}

static int send(
	struct kube_recorder *r, const struct kube_event_todo *todo, struct json_object *body)
{
	CLEANUP(buf_done)
	struct buf path = BUF_INIT(4096);
	CLEANUP(freep)
	struct sending *s = calloc(1, sizeof(*s));
	bool creates = todo->what == KUBE_EVENT_CREATE;
	struct kube_request_options options = {
		.method = creates ? KUBE_POST : KUBE_PATCH,
		.content_type = creates ? NULL : KUBE_MERGE_PATCH,
		.fn = on_sent,
		.ctx = s,
	};
	int n;

	if (!s || !body || path_of(todo, !creates, &path) < 0)
		return -ENOMEM;
	options.path = path.data;
	options.body = span_str(json_object_to_json_string_ext(
		body, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
	s->recorder = r;
	s->creates = creates;
	memcpy(s->namespace, todo->namespace, sizeof(s->namespace));
	memcpy(s->name, todo->name, sizeof(s->name));
	n = kube_request(r->options.client, &options, &s->request);
	if (n < 0)
		return n;
	s->next = r->sending;
	if (s->next)
		s->next->prev = s;
	r->sending = s;
	r->requests++;
	if (creates)
		r->stats.pending++;
	s = NULL; /* the list's now */
	return 0;
}

/* ---- bodies ---- */

static int put_text(struct json_object *object, const char *name, const char *text, size_t max)
{
	struct json_object *value;
	size_t len = text ? strlen(text) : 0;

	if (len == 0)
		return 0;
	value = json_object_new_string_len(text, (int)utf8_valid(text, MIN(len, max)));
	if (value && json_object_object_add(object, name, value) == 0)
		return 0;
	json_object_put(value);
	return -ENOMEM;
}

static struct json_object *put_object(struct json_object *object, const char *name)
{
	struct json_object *value = json_object_new_object();

	if (value && json_object_object_add(object, name, value) == 0)
		return value;
	json_object_put(value);
	return NULL;
}

static int put_regarding(struct json_object *body, const struct kube_regarding *r)
{
	struct json_object *o = put_object(body, "regarding");

	if (!o || put_text(o, "apiVersion", r->api_version, WORD_MAX) < 0 ||
		put_text(o, "kind", r->kind, WORD_MAX) < 0 ||
		put_text(o, "namespace", r->namespace, WORD_MAX) < 0 ||
		put_text(o, "name", r->name, 253) < 0 || put_text(o, "uid", r->uid, WORD_MAX) < 0 ||
		put_text(o, "resourceVersion", r->resource_version, WORD_MAX) < 0)
		return -ENOMEM;
	return 0;
}

static struct json_object *event_body(const struct kube_recorder *r, const struct kube_event *event,
	const struct kube_event_todo *todo)
{
	CLEANUP(json_putp)
	struct json_object *body = json_object_new_object();
	struct json_object *metadata = body ? put_object(body, "metadata") : NULL;
	char time[KUBE_TIME_MAX];

	kube_micro_time_format(todo->last_wall_ns, time);
	if (!metadata || put_text(metadata, "namespace", todo->namespace, WORD_MAX) < 0 ||
		put_text(metadata, "name", todo->name, 253) < 0 ||
		put_text(body, "apiVersion", "events.k8s.io/v1", WORD_MAX) < 0 ||
		put_text(body, "kind", "Event", WORD_MAX) < 0 ||
		put_text(body, "eventTime", time, WORD_MAX) < 0 ||
		put_text(body, "type", event->warning ? "Warning" : "Normal", WORD_MAX) < 0 ||
		put_text(body, "reason", event->reason, WORD_MAX) < 0 ||
		put_text(body, "action", event->action, WORD_MAX) < 0 ||
		put_text(body, "note", event->note, NOTE_MAX) < 0 ||
		put_text(body, "reportingController", r->controller, WORD_MAX) < 0 ||
		put_text(body, "reportingInstance", r->instance, WORD_MAX) < 0 ||
		put_regarding(body, &event->regarding) < 0)
		return NULL;
	return TAKE(body);
}

static struct json_object *series_body(const struct kube_event_todo *todo)
{
	CLEANUP(json_putp)
	struct json_object *body = json_object_new_object();
	struct json_object *series = body ? put_object(body, "series") : NULL;
	struct json_object *count = json_object_new_int64(todo->count);
	char time[KUBE_TIME_MAX];

	kube_micro_time_format(todo->last_wall_ns, time);
	if (!series || !count || json_object_object_add(series, "count", count) < 0) {
		json_object_put(count);
		return NULL;
	}
	if (put_text(series, "lastObservedTime", time, WORD_MAX) < 0)
		return NULL;
	return TAKE(body);
}

/* ---- what happens ---- */

/* A patch would arrive first, and find nothing. */
static bool is_being_created(const struct kube_recorder *r, const struct kube_event_todo *todo)
{
	for (const struct sending *s = r->sending; s; s = s->next) {
		if (s->creates && strcmp(s->name, todo->name) == 0 &&
			strcmp(s->namespace, todo->namespace) == 0)
			return true;
	}
	return false;
}

static void patch(struct kube_recorder *r, const struct kube_event_todo *todo)
{
	CLEANUP(json_putp)
	struct json_object *body = NULL;

	/* What is not sent is still in the table: the next patch says it. */
	if (r->requests >= r->options.pending_max || is_being_created(r, todo))
		return;
	body = series_body(todo);
	if (send(r, todo, body) < 0)
		log_debug("kube: event: the series of %s is not sent", todo->name);
}

static void set_timer(struct kube_recorder *r)
{
	uint64_t due = kube_event_due_ns(r->table), now = kube_now_ns();

	if (due == UINT64_MAX)
		kube_set_timer(r->timer, KUBE_NEVER_MS);
	else
		kube_set_timer(r->timer, due > now ? (due - now) / KUBE_MS + 1 : 0);
}

static void patch_due(struct kube_recorder *r, uint64_t now)
{
	struct kube_event_todo todo;

	while (kube_event_due(r->table, now, &todo))
		patch(r, &todo);
	set_timer(r);
}

static void on_timer(void *ctx)
{
	patch_due(ctx, kube_now_ns());
}

void kube_recorder_flush(struct kube_recorder *r)
{
	patch_due(r, UINT64_MAX);
}

static bool is_valid(const struct kube_event *event)
{
	const char *name = event->regarding.name, *namespace = event->regarding.namespace;

	return name && *name && event->reason && *event->reason &&
	       strlen(event->reason) <= WORD_MAX && event->action && *event->action &&
	       strlen(event->action) <= WORD_MAX && (!namespace || strlen(namespace) < 64);
}

static void create(
	struct kube_recorder *r, const struct kube_event *event, const struct kube_event_todo *todo)
{
	CLEANUP(json_putp)
	struct json_object *body = NULL;

	if (r->requests >= r->options.pending_max) {
		r->stats.dropped++;
		kube_event_gone(r->table, todo->namespace, todo->name);
		return;
	}
	body = event_body(r, event, todo);
	if (send(r, todo, body) < 0) {
		r->stats.failed++;
		kube_event_gone(r->table, todo->namespace, todo->name);
	}
}

void kube_recorder_event(struct kube_recorder *r, const struct kube_event *event)
{
	struct kube_event_todo todo;

	r->stats.seen++;
	if (!is_valid(event)) {
		r->stats.invalid++;
		return;
	}
	kube_event_seen(r->table, event, kube_now_ns(), clock_wall_ns(), &todo);
	switch (todo.what) {
	case KUBE_EVENT_CREATE:
		create(r, event, &todo);
		break;
	case KUBE_EVENT_PATCH:
		r->stats.counted++;
		patch(r, &todo);
		break;
	case KUBE_EVENT_COUNT:
		r->stats.counted++;
		set_timer(r);
		break;
	case KUBE_EVENT_DROP:
		r->stats.dropped++;
		break;
	}
}

int kube_recorder_new(const struct kube_recorder_options *options,
	struct kube_recorder **ret_recorder, struct err *err)
{
	CLEANUP(kube_recorder_freep)
	struct kube_recorder *r = calloc(1, sizeof(*r));
	int n;

	if (!r)
		return err_set(err, ENOMEM, "events: out of memory");
	r->options = *options;
	if (r->options.pending_max == 0)
		r->options.pending_max = PENDING_MAX;
	r->controller = strdup(options->controller);
	r->instance = strdup(options->instance);
	if (!r->controller || !r->instance || kube_event_table_new(&r->table) < 0)
		return err_set(err, ENOMEM, "events: out of memory");
	n = loop_add_timer(options->loop, KUBE_NEVER_MS, 0, on_timer, r, &r->timer);
	if (n < 0)
		return err_set(err, -n, "events: no timer: %s", strerror(-n));
	*ret_recorder = TAKE(r);
	return 0;
}

void kube_recorder_free(struct kube_recorder *r)
{
	if (!r)
		return;
	while (r->sending) {
		kube_cancel(r->sending->request);
		free_sending(r->sending);
	}
	loop_remove(r->timer);
	kube_event_table_free(r->table);
	free(r->controller);
	free(r->instance);
	free(r);
}

void kube_recorder_freep(struct kube_recorder **recorder)
{
	kube_recorder_free(*recorder);
	*recorder = NULL;
}

void kube_recorder_stats(const struct kube_recorder *r, struct kube_recorder_stats *ret_stats)
{
	*ret_stats = r->stats;
}
