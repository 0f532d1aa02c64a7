/* SPDX-License-Identifier: Apache-2.0 */
/*
 * List, then watch from the list's version, then watch again from the last version seen; a list
 * again only where kube_watch_next() says so.
 *
 * A list is built beside the cache and takes its place when it is complete; what then differs is
 * told to the handlers. A resource version is a text that is compared for equality and handed back.
 */
#include <errno.h>
#include <malloc.h>
#include <stdlib.h>

#include "pkg/kube/internal.h"

#define PAGE_LIMIT	100
#define OBJECTS_MAX	10000
#define WATCH_EXTRA_MS	30000 /* beyond what the server was told */
#define CONNECT_TRIES	10
#define INTERNAL_ERRORS 3
#define NOT_SERVED	3 /* lists, of some 5 s: a definition that is replaced is away for less */
#define SAID_AFTER	2 /* failures in a row: then the log says why */
#define SHORT_WATCHES	5 /* with events, in a row: then they are not at once any more */
#define QUERY_MAX	8192
#define RV_MAX		256
#define LAST_APPLIED	"kubectl.kubernetes.io/last-applied-configuration"

struct kube_reflector {
	struct kube_reflector_options options;
	char *path, *api_version, *kind, *label_selector, *field_selector;
	struct loop_source *timer; /* of the phase: the backoff, the headers, the idle limit */
	struct kube_request *request;
	struct kube_backoff backoff;
	uint32_t in_a_row;     /* failures since a watch stood */
	enum kube_result said; /* the problem that the log knows of; KUBE_OK: none */
	struct kube_cache cache;
	char rv[RV_MAX]; /* of the cache */
	struct kube_reflector_info info;

	/* a list */
	struct kube_cache building;
	char list_rv[RV_MAX];
	char *continue_token;
	uint32_t page_limit; /* shrinks when a page is too big */
	bool whole;	     /* without pages, since a token expired */
	uint32_t not_served; /* lists in a row that the API server knows nothing of */
	bool ahead_tried;
	uint64_t left_out;

	/* a watch */
	struct kube_frames frames;
	bool have_frames;
	struct kube_watch_end end; /* what is known of it so far */
	int64_t error_wait_s;	   /* that its ERROR event asked for; 0: nothing */
	uint64_t watch_began_ns, last_byte_ns;
	uint64_t healthy_since_ns; /* of watches without a failure; 0: not now */
	bool next_is_watch;	   /* behind the backoff */
};

static const char *const change_names[] = {"added", "updated", "deleted", "deleted_unknown"};
static const char *const phase_names[] = {"listing", "connecting", "watching", "waiting"};

const char *kube_change_name(enum kube_change change)
{
	return (unsigned int)change < ARRAY_SIZE(change_names) ? change_names[change] : "unknown";
}

const char *kube_reflector_phase_name(enum kube_reflector_phase phase)
{
	return (unsigned int)phase < ARRAY_SIZE(phase_names) ? phase_names[phase] : "unknown";
}

/* ---- what follows ---- */

static enum kube_watch_next after_good_end(const struct kube_watch_end *end)
{
	if (end->lasted_ms >= end->short_ms)
		return KUBE_REWATCH_NOW;
	if (end->events == 0)
		return KUBE_RELIST_LATER;
	/* Each time something new, each time cut off: it goes on, but not at full speed. */
	return end->short_before < SHORT_WATCHES ? KUBE_REWATCH_NOW : KUBE_REWATCH_LATER;
}

enum kube_watch_next kube_watch_next(const struct kube_watch_end *end)
{
	if (end->undecodable)
		return KUBE_RELIST_LATER;
	switch (end->result) {
	case KUBE_OK:
		return after_good_end(end);
	case KUBE_CUT:
	case KUBE_TIMEOUT:
		if (end->answered)
			return after_good_end(end);
		return end->connect_tries < CONNECT_TRIES ? KUBE_REWATCH_TRY : KUBE_RELIST_LATER;
	case KUBE_CONNECT:
	case KUBE_UNREACHABLE:
	case KUBE_TOO_MANY:
		return KUBE_REWATCH_LATER;
	case KUBE_SERVER:
		return end->error_event && end->internal_errors < INTERNAL_ERRORS
			       ? KUBE_REWATCH_LATER
			       : KUBE_RELIST_LATER;
	default:
		return KUBE_RELIST_LATER;
	}
}

/* ---- waiting ---- */

static void start_list(struct kube_reflector *r);
static void start_watch(struct kube_reflector *r);

static void set_problem(struct kube_reflector *r, enum kube_result result, const char *why)
{
	r->info.problem = result;
	kube_one_line(span_str(why), r->info.why, sizeof(r->info.why));
	log_debug("kube: %s: %s", r->path, r->info.why);
}

static void wait_then(struct kube_reflector *r, bool watch, uint64_t ns)
{
	r->info.phase = KUBE_WAITING;
	r->next_is_watch = watch;
	kube_set_timer(r->timer, ns / KUBE_MS);
}

static void go_on(struct kube_reflector *r)
{
	if (r->next_is_watch)
		start_watch(r);
	else
		start_list(r);
}

/* What stays is said, once; what is over the next time is not worth a line. */
static void say_problem(struct kube_reflector *r)
{
	if (++r->in_a_row < SAID_AFTER || r->said == r->info.problem)
		return;
	r->said = r->info.problem;
	log_warn("list and watch of %s: %s: %s", r->kind, kube_result_name(r->said), r->info.why);
}

static void say_recovered(struct kube_reflector *r)
{
	r->in_a_row = 0;
	if (r->said != KUBE_OK)
		log_info("list and watch of %s: it goes on", r->kind);
	r->said = KUBE_OK;
}

/* A step of the backoff, at least as long as the server asked for. */
static void back_off(struct kube_reflector *r, bool watch, int64_t retry_after_s)
{
	uint64_t healthy_ns = r->options.timing.healthy_ms * KUBE_MS, ns;

	if (r->healthy_since_ns && kube_now_ns() - r->healthy_since_ns >= healthy_ns)
		kube_backoff_reset(&r->backoff);
	r->healthy_since_ns = 0;
	ns = kube_backoff_next(&r->backoff, kube_random());
	if (retry_after_s > 0)
		ns = MAX(ns, (uint64_t)retry_after_s * KUBE_SECOND);
	say_problem(r);
	wait_then(r, watch, ns);
}

/* ---- list ---- */

static void abandon_list(struct kube_reflector *r)
{
	kube_cache_done(&r->building);
	free(r->continue_token);
	r->continue_token = NULL;
	r->left_out = 0;
}

static int append_selector(struct buf *out, const char *name, const char *value)
{
	int n;

	if (!value)
		return 0;
	n = buf_printf(out, "%s%s=", out->len ? "&" : "", name);
	return n < 0 ? n : kube_escape(out, value);
}

static int list_query(const struct kube_reflector *r, struct buf *out)
{
	int n = 0;

	if (!r->whole)
		n = buf_printf(out, "limit=%u", r->page_limit);
	if (n >= 0)
		n = append_selector(out, "labelSelector", r->label_selector);
	if (n >= 0)
		n = append_selector(out, "fieldSelector", r->field_selector);
	if (n >= 0)
		n = append_selector(out, "continue", r->continue_token);
	return n < 0 ? n : buf_append(out, "", 1);
}

static void on_page(void *ctx, const struct kube_response *response);

static void request_page(struct kube_reflector *r)
{
	CLEANUP(buf_done)
	struct buf query = BUF_INIT(QUERY_MAX);
	/* One attempt: the backoff honours Retry-After, and what is wrong is seen at once. */
	struct kube_request_options options = {
		.path = r->path, .flags = KUBE_NO_RETRY, .fn = on_page, .ctx = r};
	int n = list_query(r, &query);

	r->info.phase = KUBE_LISTING;
	r->info.lists++;
	options.query = query.len > 1 ? query.data : NULL;
	if (n >= 0)
		n = kube_request(r->options.client, &options, &r->request);
	if (n < 0) {
		abandon_list(r);
		r->info.failures++;
		set_problem(r, KUBE_OTHER, strerror(-n));
		back_off(r, false, -1);
	}
}

static void start_list(struct kube_reflector *r)
{
	abandon_list(r);
	r->whole = false;
	request_page(r);
}

static void list_failed(
	struct kube_reflector *r, enum kube_result result, const char *why, int64_t retry_after_s)
{
	abandon_list(r);
	r->info.failures++;
	if (result == KUBE_EXPIRED)
		r->info.expired++;
	set_problem(r, result, why);
	back_off(r, false, retry_after_s);
}

/* An answer that is no page: another try of the same list, where there is one. */
static bool list_again(struct kube_reflector *r, enum kube_result result)
{
	if (result == KUBE_EXPIRED && r->continue_token) {
		/* The pages are of a state that is gone: all at once (R1.4). */
		abandon_list(r);
		r->whole = true;
	} else if (result == KUBE_RV_AHEAD && !r->ahead_tried) {
		r->ahead_tried = true;
		abandon_list(r);
	} else if (result == KUBE_TOO_BIG && !r->whole && r->page_limit > 1) {
		/* the same page, shorter */
		r->page_limit /= 2;
	} else {
		return false;
	}
	r->info.failures++;
	request_page(r);
	return true;
}

static bool has_kind(const struct kube_reflector *r, const struct json_object *object)
{
	return strcmp(kube_get_string(object, "kind"), r->kind) == 0 &&
	       strcmp(kube_get_string(object, "apiVersion"), r->api_version) == 0;
}

static int tidy(const struct kube_reflector *r, struct json_object *object)
{
	struct json_object *metadata = kube_get(object, "metadata");
	struct json_object *annotations = kube_get(object, "metadata.annotations");

	if (!r->options.keep_all) {
		json_object_object_del(metadata, "managedFields");
		if (json_object_is_type(annotations, json_type_object))
			json_object_object_del(annotations, LAST_APPLIED);
	}
	/* Items of built-in kinds come without these. */
	if (!kube_get(object, "kind") &&
		json_object_object_add(object, "kind", json_object_new_string(r->kind)) < 0)
		return -ENOMEM;
	if (!kube_get(object, "apiVersion") && json_object_object_add(object, "apiVersion",
						       json_object_new_string(r->api_version)) < 0)
		return -ENOMEM;
	if (r->options.shrink) {
		int n = r->options.shrink(r->options.ctx, object);

		if (n < 0)
			return n;
	}
	kube_compact(object);
	return 0;
}

static int add_item(struct kube_reflector *r, struct json_object *item)
{
	struct json_object *old = NULL;
	char key[KUBE_KEY_MAX];
	int n;

	if (kube_key(item, key, sizeof(key)) < 0) {
		r->info.skipped++;
		return 0;
	}
	n = tidy(r, item);
	if (n < 0)
		return n;
	if (!has_kind(r, item)) {
		r->info.skipped++;
		return 0;
	}
	n = kube_cache_put(&r->building, key, item, r->options.objects_max, &old);
	json_object_put(old);
	if (n == -ENOSPC) {
		r->left_out++;
		n = 0;
	}
	return n;
}

/* NULL, or what is wrong with the page. */
static const char *read_page(struct kube_reflector *r, struct json_object *page)
{
	const char *kind = kube_get_string(page, "kind"), *rv, *token;
	struct json_object *items = kube_get(page, "items");
	size_t kind_len = strlen(r->kind), n;

	if (strncmp(kind, r->kind, kind_len) != 0 || strcmp(kind + kind_len, "List") != 0)
		return "the answer is a list of another kind";
	if (items && !json_object_is_type(items, json_type_array))
		return "the list has no items";
	n = items ? json_object_array_length(items) : 0;
	for (size_t i = 0; i < n; i++) {
		if (add_item(r, json_object_array_get_idx(items, i)) < 0)
			return "out of memory";
	}
	rv = kube_get_string(page, "metadata.resourceVersion");
	token = kube_get_string(page, "metadata.continue");
	if (!r->continue_token) {
		/* The version to watch from is the first page's (R1.3). */
		if (*rv == '\0' || strcmp(rv, "0") == 0 || strlen(rv) >= sizeof(r->list_rv))
			return "the list has no resourceVersion";
		memcpy(r->list_rv, rv, strlen(rv) + 1);
	}
	free(r->continue_token);
	r->continue_token = NULL;
	if (*token) {
		r->continue_token = strdup(token);
		if (!r->continue_token)
			return "out of memory";
	}
	return NULL;
}

static void tell(struct kube_reflector *r, enum kube_change change, struct json_object *object,
	struct json_object *old)
{
	if (r->options.on_change)
		r->options.on_change(r->options.ctx, change, object, old);
}

static bool same_uid(const struct json_object *a, const struct json_object *b)
{
	return strcmp(kube_get_string(a, "metadata.uid"), kube_get_string(b, "metadata.uid")) == 0;
}

static bool same_version(const struct json_object *a, const struct json_object *b)
{
	const char *rv = kube_get_string(a, "metadata.resourceVersion");

	return *rv && strcmp(rv, kube_get_string(b, "metadata.resourceVersion")) == 0;
}

static void tell_put(struct kube_reflector *r, struct json_object *object, struct json_object *old,
	enum kube_change gone)
{
	if (!old) {
		tell(r, KUBE_ADDED, object, NULL);
	} else if (!same_uid(object, old)) {
		tell(r, gone, old, NULL);
		tell(r, KUBE_ADDED, object, NULL);
	} else if (!same_version(object, old)) {
		tell(r, KUBE_UPDATED, object, old);
	}
}

/* Both are in order of keys. */
static void tell_difference(struct kube_reflector *r, const struct kube_cache *old)
{
	const struct kube_cache *now = &r->cache;
	size_t i = 0, j = 0;

	while (i < old->count || j < now->count) {
		int order = i == old->count   ? 1
			    : j == now->count ? -1
					      : strcmp(old->items[i].key, now->items[j].key);

		if (order < 0)
			tell(r, KUBE_DELETED_UNKNOWN, old->items[i].object, NULL);
		else
			tell_put(r, now->items[j].object, order == 0 ? old->items[i].object : NULL,
				KUBE_DELETED_UNKNOWN);
		i += order <= 0;
		j += order >= 0;
	}
}

static void list_complete(struct kube_reflector *r)
{
	struct kube_cache old = r->cache;

	r->cache = r->building;
	r->building = (struct kube_cache){0};
	memcpy(r->rv, r->list_rv, sizeof(r->rv));
	r->info.synced = true;
	r->info.left_out += r->left_out;
	r->info.incomplete = r->left_out > 0;
	r->whole = r->ahead_tried = false;
	r->end.internal_errors = r->end.connect_tries = 0;
	r->left_out = 0;
	tell_difference(r, &old);
	kube_cache_done(&old);
	/* a page is several times what is kept of it: 5 MiB of 15, with 1000 EbpfDumps */
	malloc_trim(0);
	if (r->options.on_synced)
		r->options.on_synced(r->options.ctx);
}

/* No such resource, several times: its definition is gone, and with it all objects. It may come
 * back. */
static void note_not_served(struct kube_reflector *r)
{
	if (++r->not_served < NOT_SERVED || (r->info.synced && r->cache.count == 0))
		return;
	abandon_list(r);
	r->list_rv[0] = '\0'; /* none to watch from: a list is next */
	list_complete(r);
}

static void on_page(void *ctx, const struct kube_response *response)
{
	struct kube_reflector *r = ctx;
	const char *wrong;

	r->request = NULL;
	if (response->result != KUBE_NOT_SERVED)
		r->not_served = 0;
	if (response->result != KUBE_OK) {
		if (list_again(r, response->result))
			return;
		if (response->result == KUBE_NOT_SERVED)
			note_not_served(r);
		list_failed(r, response->result, response->error, response->retry_after_s);
		return;
	}
	r->info.last_contact_ns = kube_now_ns();
	r->info.bytes += response->body.len;
	wrong = response->object ? read_page(r, response->object) : "the answer is not JSON";
	if (wrong) {
		list_failed(r, KUBE_BAD_ANSWER, wrong, -1);
		return;
	}
	if (r->continue_token) {
		request_page(r);
		return;
	}
	list_complete(r);
	start_watch(r);
}

/* ---- watch ---- */

static void advance(struct kube_reflector *r, const struct json_object *object)
{
	const char *rv = kube_get_string(object, "metadata.resourceVersion");

	if (*rv && strlen(rv) < sizeof(r->rv))
		memcpy(r->rv, rv, strlen(rv) + 1);
}

static int take_put(struct kube_reflector *r, const char *key, struct json_object *object)
{
	struct json_object *old = NULL;
	int n = tidy(r, object);

	if (n < 0)
		return n;
	n = kube_cache_put(&r->cache, key, object, r->options.objects_max, &old);
	if (n == -ENOSPC) {
		r->info.left_out++;
		r->info.incomplete = true;
		return 0;
	}
	if (n < 0)
		return n;
	tell_put(r, object, old, KUBE_DELETED);
	json_object_put(old);
	return 0;
}

static int take_delete(struct kube_reflector *r, const char *key, struct json_object *object)
{
	struct json_object *old = kube_cache_remove(&r->cache, key);
	int n = tidy(r, object);

	if (old)
		tell(r, KUBE_DELETED, object, NULL);
	json_object_put(old);
	return n;
}

/* An event of an object. */
static int take_object(struct kube_reflector *r, bool deleted, struct json_object *object)
{
	char key[KUBE_KEY_MAX];
	int n;

	if (!has_kind(r, object) || kube_key(object, key, sizeof(key)) < 0 ||
		*kube_get_string(object, "metadata.resourceVersion") == '\0') {
		r->info.skipped++;
		return 0;
	}
	r->info.events++;
	/* Before the handlers, which may look at what the cache is of. */
	advance(r, object);
	n = deleted ? take_delete(r, key, object) : take_put(r, key, object);
	return n;
}

static int take_error(struct kube_reflector *r, const struct json_object *object)
{
	struct kube_status status;

	kube_status_parse(object, &status);
	r->end.error_event = true;
	r->end.result = status.present ? kube_classify_status(&status) : KUBE_BAD_ANSWER;
	r->error_wait_s = status.retry_after_s;
	set_problem(r, r->end.result,
		status.present ? status.message : "an ERROR event without a Status");
	return -ECANCELED;
}

static int on_event(void *ctx, struct json_object *event, size_t bytes)
{
	struct kube_reflector *r = ctx;
	const char *type = kube_get_string(event, "type");
	struct json_object *object = kube_get(event, "object");

	r->end.events++;
	if (strcmp(type, "BOOKMARK") == 0) {
		if (!has_kind(r, object)) {
			r->info.skipped++;
			return 0;
		}
		r->info.bookmarks++;
		advance(r, object);
		return 0;
	}
	if (strcmp(type, "ADDED") == 0 || strcmp(type, "MODIFIED") == 0)
		return take_object(r, false, object);
	if (strcmp(type, "DELETED") == 0)
		return take_object(r, true, object);
	if (strcmp(type, "ERROR") == 0)
		return take_error(r, object);
	/* What it changed is not known: the version must not move past it. */
	r->info.skipped++;
	return -EPROTO;
}

static void on_answer(void *ctx)
{
	struct kube_reflector *r = ctx;
	uint64_t now = kube_now_ns();
	bool recovered = r->info.problem != KUBE_OK;

	r->info.phase = KUBE_WATCHING;
	r->info.problem = KUBE_OK;
	r->info.why[0] = '\0';
	say_recovered(r);
	r->info.last_contact_ns = r->last_byte_ns = r->watch_began_ns = now;
	if (!r->healthy_since_ns)
		r->healthy_since_ns = now;
	r->end.answered = true;
	r->end.connect_tries = 0;
	kube_set_timer(r->timer, r->options.timing.idle_ms);
	if (recovered && r->options.on_recovered)
		r->options.on_recovered(r->options.ctx);
}

static const char *feed_error(int error)
{
	switch (error) {
	case -EMSGSIZE:
		return "an event is longer than its limit";
	case -EPROTO:
		return "an event of an unknown type";
	case -ENOMEM:
		return "out of memory";
	default:
		return "an event that cannot be decoded";
	}
}

static int on_data(void *ctx, const char *p, size_t len)
{
	struct kube_reflector *r = ctx;
	int n;

	r->last_byte_ns = r->info.last_contact_ns = kube_now_ns();
	r->info.bytes += len;
	n = kube_frames_feed(&r->frames, p, len, on_event, r);
	if (n < 0 && n != -ECANCELED) {
		r->end.undecodable = true;
		r->end.result = n == -EMSGSIZE ? KUBE_TOO_BIG : KUBE_BAD_ANSWER;
		set_problem(r, r->end.result, feed_error(n));
	}
	return n;
}

static void close_watch(struct kube_reflector *r)
{
	if (r->have_frames)
		kube_frames_done(&r->frames);
	r->have_frames = false;
}

static bool is_failure(enum kube_watch_next next)
{
	return next != KUBE_REWATCH_NOW;
}

static void note_end(struct kube_reflector *r, enum kube_watch_next next)
{
	struct kube_watch_end *end = &r->end;
	bool is_short = end->answered && end->lasted_ms < end->short_ms;

	if (is_failure(next)) {
		r->info.failures++;
		if (end->result == KUBE_EXPIRED)
			r->info.expired++;
	}
	end->short_before = is_short ? end->short_before + 1 : 0;
	if (!end->answered)
		end->connect_tries++;
	if (end->error_event && end->result == KUBE_SERVER)
		end->internal_errors++;
	else if (end->lasted_ms >= 60000)
		end->internal_errors = 0;
}

/* r->end is complete but for its duration. */
static void watch_ended(struct kube_reflector *r, const char *why, int64_t retry_after_s)
{
	enum kube_watch_next next;

	close_watch(r);
	r->end.lasted_ms = r->end.answered ? (kube_now_ns() - r->watch_began_ns) / KUBE_MS : 0;
	r->end.short_ms = r->options.timing.short_ms;
	next = kube_watch_next(&r->end);
	note_end(r, next);
	/* What an event said is known already. */
	if (is_failure(next) && r->info.problem == KUBE_OK)
		set_problem(r, r->end.result == KUBE_OK ? KUBE_OTHER : r->end.result,
			*why ? why : "watches end at once");
	switch (next) {
	case KUBE_REWATCH_NOW:
		/* A cache that was full and has room again only a list can fill. */
		if (r->info.incomplete && r->cache.count < r->options.objects_max)
			start_list(r);
		else
			start_watch(r);
		break;
	case KUBE_REWATCH_TRY:
		wait_then(r, true, r->options.timing.retry_ms * KUBE_MS);
		break;
	case KUBE_REWATCH_LATER:
		back_off(r, true, retry_after_s);
		break;
	case KUBE_RELIST_LATER:
		r->end.connect_tries = 0;
		back_off(r, false, retry_after_s);
		break;
	}
}

static void on_end(void *ctx, const struct kube_response *response)
{
	struct kube_reflector *r = ctx;
	bool known = r->end.error_event || r->end.undecodable;

	r->request = NULL;
	if (!known)
		r->end.result = response->result;
	if (!known && kube_frames_partial(&r->frames)) {
		/* Not applied; it comes again with the next watch. */
		r->info.cut_events++;
		log_debug("kube: %s: the watch ended in the middle of an event", r->path);
	}
	watch_ended(r, response->error, MAX(response->retry_after_s, r->error_wait_s));
}

static int watch_query(const struct kube_reflector *r, uint32_t seconds, struct buf *out)
{
	int n = buf_printf(out,
		"watch=1&allowWatchBookmarks=true&timeoutSeconds=%u&resourceVersion=", seconds);

	if (n >= 0)
		n = kube_escape(out, r->rv);
	if (n >= 0)
		n = append_selector(out, "labelSelector", r->label_selector);
	if (n >= 0)
		n = append_selector(out, "fieldSelector", r->field_selector);
	return n < 0 ? n : buf_append(out, "", 1);
}

static void start_watch(struct kube_reflector *r)
{
	static const struct kube_stream stream = {.on_answer = on_answer, .on_data = on_data};
	CLEANUP(buf_done)
	struct buf query = BUF_INIT(QUERY_MAX);
	uint32_t seconds = r->options.timing.watch_s;
	struct kube_request_options options = {.path = r->path, .fn = on_end, .ctx = r};
	int n;

	/* Not all of them at once, over all reflectors and processes. */
	seconds += (uint32_t)(kube_random() * seconds);
	options.timeout_ms = seconds * 1000 + WATCH_EXTRA_MS;
	r->end = (struct kube_watch_end){.short_before = r->end.short_before,
		.connect_tries = r->end.connect_tries,
		.internal_errors = r->end.internal_errors};
	r->error_wait_s = 0;
	r->info.phase = KUBE_CONNECTING;
	r->info.watches++;
	n = kube_frames_init(&r->frames, KUBE_EVENT_MAX);
	r->have_frames = n == 0;
	if (n == 0)
		n = watch_query(r, seconds, &query);
	options.query = query.data;
	if (n >= 0)
		n = kube_request_stream(r->options.client, &options, &stream, &r->request);
	if (n < 0) {
		close_watch(r);
		r->info.failures++;
		set_problem(r, KUBE_OTHER, strerror(-n));
		back_off(r, true, -1);
		return;
	}
	kube_set_timer(r->timer, r->options.timing.headers_ms);
}

/* Nothing came for too long: as if the connection had been cut. */
static void watch_is_dead(struct kube_reflector *r, const char *why)
{
	kube_cancel(r->request);
	r->request = NULL;
	r->end.result = KUBE_TIMEOUT;
	watch_ended(r, why, -1);
}

static void on_timer(void *ctx)
{
	struct kube_reflector *r = ctx;
	uint64_t idle_ns = r->options.timing.idle_ms * KUBE_MS, silent_ns;

	switch (r->info.phase) {
	case KUBE_LISTING:
		break;
	case KUBE_CONNECTING:
		watch_is_dead(r, "the watch was not answered in time");
		break;
	case KUBE_WATCHING:
		silent_ns = kube_now_ns() - r->last_byte_ns;
		if (silent_ns >= idle_ns)
			watch_is_dead(r, "the watch was silent for too long");
		else
			kube_set_timer(r->timer, (idle_ns - silent_ns) / KUBE_MS + 1);
		break;
	case KUBE_WAITING:
		go_on(r);
		break;
	}
}

void kube_reflector_kick(struct kube_reflector *r)
{
	if (r->info.phase == KUBE_WAITING)
		kube_set_timer(r->timer, 0);
}

/* ---- made, freed, read ---- */

static int copy(char **out, const char *text)
{
	*out = text ? strdup(text) : NULL;
	return !text || *out ? 0 : -ENOMEM;
}

#define DEFAULT(field, value)              \
	do {                               \
		if ((field) == 0)          \
			(field) = (value); \
	} while (0)

static void set_defaults(struct kube_reflector_options *o)
{
	DEFAULT(o->page_limit, PAGE_LIMIT);
	DEFAULT(o->objects_max, OBJECTS_MAX);
	DEFAULT(o->timing.backoff_ms, 800);
	DEFAULT(o->timing.backoff_cap_ms, 30000);
	DEFAULT(o->timing.watch_s, 300);
	DEFAULT(o->timing.idle_ms, 180000);
	DEFAULT(o->timing.headers_ms, 30000);
	DEFAULT(o->timing.short_ms, 1000);
	DEFAULT(o->timing.retry_ms, 1000);
	DEFAULT(o->timing.healthy_ms, 60000);
}

int kube_reflector_new(const struct kube_reflector_options *options,
	struct kube_reflector **ret_reflector, struct err *err)
{
	CLEANUP(kube_reflector_freep)
	struct kube_reflector *r = calloc(1, sizeof(*r));
	int n;

	if (!r)
		return err_set(err, ENOMEM, "kube: out of memory");
	r->options = *options;
	set_defaults(&r->options);
	r->page_limit = r->options.page_limit;
	r->backoff = (struct kube_backoff){
		.initial_ns = r->options.timing.backoff_ms * KUBE_MS,
		.cap_ns = r->options.timing.backoff_cap_ms * KUBE_MS,
		.jitter = 1,
	};
	if (copy(&r->path, options->path) < 0 || copy(&r->api_version, options->api_version) < 0 ||
		copy(&r->kind, options->kind) < 0 ||
		copy(&r->label_selector, options->label_selector) < 0 ||
		copy(&r->field_selector, options->field_selector) < 0)
		return err_set(err, ENOMEM, "kube: out of memory");
	n = loop_add_timer(
		kube_client_loop(options->client), KUBE_NEVER_MS, 0, on_timer, r, &r->timer);
	if (n < 0)
		return err_set(err, -n, "kube: %s: no timer: %s", r->path, strerror(-n));
	start_list(r);
	*ret_reflector = TAKE(r);
	return 0;
}

void kube_reflector_free(struct kube_reflector *r)
{
	if (!r)
		return;
	kube_cancel(r->request);
	loop_remove(r->timer);
	close_watch(r);
	abandon_list(r);
	kube_cache_done(&r->cache);
	free(r->path);
	free(r->api_version);
	free(r->kind);
	free(r->label_selector);
	free(r->field_selector);
	free(r);
}

void kube_reflector_freep(struct kube_reflector **reflector)
{
	kube_reflector_free(*reflector);
	*reflector = NULL;
}

size_t kube_reflector_count(const struct kube_reflector *r)
{
	return r->cache.count;
}

struct json_object *kube_reflector_get(const struct kube_reflector *r, const char *key)
{
	return kube_cache_get(&r->cache, key);
}

int kube_reflector_each(const struct kube_reflector *r,
	int (*fn)(void *ctx, const char *key, struct json_object *object), void *ctx)
{
	for (size_t i = 0; i < r->cache.count; i++) {
		int n = fn(ctx, r->cache.items[i].key, r->cache.items[i].object);

		if (n < 0)
			return n;
	}
	return 0;
}

void kube_reflector_info(const struct kube_reflector *r, struct kube_reflector_info *ret_info)
{
	*ret_info = r->info;
	ret_info->objects = r->cache.count;
	ret_info->version = r->rv;
}
