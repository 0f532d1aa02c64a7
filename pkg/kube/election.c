/* SPDX-License-Identifier: Apache-2.0 */
/* The requests of a lease; what they are for is lease.c's to decide. */
#include <errno.h>
#include <stdlib.h>

#include "pkg/kube/internal.h"

#define GRACE_NS      (20 * KUBE_SECOND) /* R3.10 */
#define TIMEOUT_MIN   1000
#define RELEASE_TRIES 3
#define SAID_AFTER    3 /* tries in a row that failed: then the log says why */

struct kube_election {
	struct kube_election_options options;
	char *path, *collection, *namespace, *name;
	struct kube_lease lease;
	struct kube_lease_record writing; /* what the request that runs writes */
	struct json_object *object;	  /* the Lease as last read or written */
	struct kube_request *request;
	struct loop_source *timer; /* the next try, or the deadline if that is earlier */
	uint64_t next_try_ns;	   /* 0: one runs */
	char told[KUBE_IDENTITY_MAX];
	uint32_t failed_tries; /* in a row */
	bool failing;	       /* something of the try that runs has failed */
	bool writes;	       /* what runs is a write */
	bool over;	       /* lost, or released: no more tries */
	bool releasing;
	int release_tries;
	uint64_t release_until_ns;
	void (*done)(void *ctx, bool released);
	void *done_ctx;
	struct kube_election_stats stats;
};

static uint64_t wall(const struct kube_election *e)
{
	return clock_wall_ns() + (uint64_t)e->options.wall_offset_ns;
}

static void note_failure(struct kube_election *e, const char *why)
{
	e->stats.failures++;
	e->failing = true;
	kube_one_line(span_str(why), e->stats.last_error, sizeof(e->stats.last_error));
	log_debug("kube: lease %s/%s: %s", e->namespace, e->name, e->stats.last_error);
}

static void set_timer(struct kube_election *e)
{
	uint64_t now = kube_now_ns(), at = e->next_try_ns ? e->next_try_ns : UINT64_MAX;

	if (e->releasing)
		at = e->release_until_ns;
	else if (e->lease.leading)
		at = MIN(at, kube_lease_deadline_ns(&e->lease));
	if (at == UINT64_MAX)
		kube_set_timer(e->timer, KUBE_NEVER_MS);
	else
		kube_set_timer(e->timer, at > now ? (at - now) / KUBE_MS + 1 : 0);
}

/* ---- requests ---- */

static int put(struct json_object *object, const char *name, struct json_object *value)
{
	if (value && json_object_object_add(object, name, value) == 0)
		return 0;
	json_object_put(value);
	return -ENOMEM;
}

static int fill_spec(struct json_object *spec, const struct kube_lease_record *record)
{
	if (put(spec, "holderIdentity", json_object_new_string(record->holder)) < 0 ||
		put(spec, "leaseDurationSeconds", json_object_new_int64(record->duration_s)) < 0 ||
		put(spec, "acquireTime", json_object_new_string(record->acquire_time)) < 0 ||
		put(spec, "renewTime", json_object_new_string(record->renew_time)) < 0 ||
		put(spec, "leaseTransitions", json_object_new_int64(record->transitions)) < 0)
		return -ENOMEM;
	return 0;
}

/* A Lease with only what a new one needs. */
static struct json_object *new_lease(const struct kube_election *e)
{
	CLEANUP(json_putp)
	struct json_object *lease = json_object_new_object();
	struct json_object *metadata = json_object_new_object();

	if (!lease || put(lease, "metadata", metadata) < 0)
		return NULL;
	if (put(lease, "apiVersion", json_object_new_string("coordination.k8s.io/v1")) < 0 ||
		put(lease, "kind", json_object_new_string("Lease")) < 0 ||
		put(metadata, "namespace", json_object_new_string(e->namespace)) < 0 ||
		put(metadata, "name", json_object_new_string(e->name)) < 0)
		return NULL;
	return TAKE(lease);
}

/* What others put into it stays: it is what was read, with another spec. */
static struct json_object *lease_with(
	const struct kube_election *e, bool anew, const struct kube_lease_record *record)
{
	CLEANUP(json_putp)
	struct json_object *lease = NULL;
	struct json_object *spec;

	if (anew || !e->object)
		lease = new_lease(e);
	else if (json_object_deep_copy(e->object, &lease, NULL) < 0)
		return NULL;
	if (!lease)
		return NULL;
	spec = kube_get(lease, "spec");
	if (!json_object_is_type(spec, json_type_object)) {
		spec = json_object_new_object();
		if (put(lease, "spec", spec) < 0)
			return NULL;
	}
	return fill_spec(spec, record) < 0 ? NULL : TAKE(lease);
}

static int ask(struct kube_election *e, enum kube_method method, bool anew,
	const struct kube_lease_record *record, kube_response_fn fn)
{
	CLEANUP(json_putp)
	struct json_object *body = NULL;
	struct kube_request_options options = {
		.method = method,
		.path = method == KUBE_POST ? e->collection : e->path,
		/* half of what there is: a second try must fit in */
		.timeout_ms =
			MAX(kube_lease_span_ms(&e->options.config) / 2, (uint32_t)TIMEOUT_MIN),
		.flags = KUBE_UNLIMITED | KUBE_UNGUARDED | KUBE_NO_RETRY,
		.fn = fn,
		.ctx = e,
	};

	e->writes = record != NULL;
	if (record) {
		body = lease_with(e, anew, record);
		if (!body)
			return -ENOMEM;
		options.body = span_str(json_object_to_json_string_ext(
			body, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
	}
	return kube_request(e->options.client, &options, &e->request);
}

static void remember(struct kube_election *e, struct json_object *object)
{
	struct json_object *old = e->object;

	e->object = json_object_get(object);
	json_object_put(old);
}

static void on_read(void *ctx, const struct kube_response *response);
static void on_written(void *ctx, const struct kube_response *response);

static void tell_holder(struct kube_election *e)
{
	const char *holder = e->lease.seen ? e->lease.observed.holder : "";

	if (strcmp(holder, e->told) == 0)
		return;
	memcpy(e->told, holder, strlen(holder) + 1);
	if (e->options.on_holder)
		e->options.on_holder(e->options.ctx, holder);
}

static void lost(struct kube_election *e)
{
	e->over = true;
	kube_cancel(e->request);
	e->request = NULL;
	e->next_try_ns = 0;
	set_timer(e);
	if (e->options.on_lost)
		e->options.on_lost(e->options.ctx, *e->stats.last_error
							   ? e->stats.last_error
							   : "the lease was not renewed in time");
}

static void try_is_over(struct kube_election *e)
{
	uint64_t now = kube_now_ns(), delay = kube_lease_delay_ns(&e->lease, kube_random());

	/* the slower the answers are, the sooner the next must be asked for */
	e->next_try_ns = e->lease.leading ? MAX(now, e->lease.try_ns + delay) : now + delay;
	set_timer(e);
}

static void carry_out(struct kube_election *e, enum kube_lease_action action)
{
	int r = 0;

	switch (action) {
	case KUBE_LEASE_GET:
		r = ask(e, KUBE_GET, false, NULL, on_read);
		break;
	case KUBE_LEASE_CREATE:
		r = ask(e, KUBE_POST, true, &e->writing, on_written);
		break;
	case KUBE_LEASE_UPDATE:
		r = ask(e, KUBE_PUT, false, &e->writing, on_written);
		break;
	case KUBE_LEASE_WAIT:
		try_is_over(e);
		return;
	case KUBE_LEASE_LOST:
		lost(e);
		return;
	}
	if (r < 0) {
		note_failure(e, strerror(-r));
		try_is_over(e);
	} else {
		set_timer(e);
	}
}

/* The try came to what it should: what failed before is over. */
static void note_success(struct kube_election *e)
{
	if (e->failed_tries >= SAID_AFTER)
		log_info("lease %s/%s: it goes on", e->namespace, e->name);
	e->failing = false;
	e->failed_tries = 0;
	e->stats.last_error[0] = '\0';
}

static void on_read(void *ctx, const struct kube_response *response)
{
	struct kube_election *e = ctx;
	struct kube_lease_record found;
	struct err err = {0};
	bool there = response->result == KUBE_OK;
	enum kube_lease_action action;

	e->request = NULL;
	if (there && kube_lease_parse(response->object, &found, &err) < 0) {
		there = false;
		note_failure(e, err.text);
	} else if (there) {
		remember(e, response->object);
	} else if (response->result != KUBE_NOT_FOUND) {
		note_failure(e, response->error);
	}
	action = kube_lease_got(&e->lease, there ? &found : NULL,
		response->result == KUBE_NOT_FOUND, kube_now_ns(), wall(e), &e->writing);
	if (there && action == KUBE_LEASE_LOST)
		note_failure(e, "another process holds the lease");
	else if (there && action == KUBE_LEASE_WAIT)
		note_success(e);
	tell_holder(e);
	carry_out(e, action);
}

static void give_back(struct kube_election *e);

static void on_written(void *ctx, const struct kube_response *response)
{
	struct kube_election *e = ctx;
	bool ok = response->result == KUBE_OK, before = e->lease.leading;
	enum kube_lease_action action;

	e->request = NULL;
	if (e->releasing) {
		give_back(e);
		return;
	}
	if (ok && response->object)
		remember(e, response->object);
	if (!ok)
		note_failure(e, response->error);
	else
		note_success(e);
	action = kube_lease_wrote(&e->lease, ok, &e->writing, kube_now_ns());
	tell_holder(e);
	if (e->lease.leading && !before) {
		e->stats.acquired++;
		if (e->options.on_leading)
			e->options.on_leading(e->options.ctx);
	}
	carry_out(e, action);
}

static void try(struct kube_election *e)
{
	if (e->failing && ++e->failed_tries == SAID_AFTER)
		log_warn("lease %s/%s: %s", e->namespace, e->name, e->stats.last_error);
	e->failing = false;
	e->next_try_ns = 0;
	e->stats.tries++;
	carry_out(e, kube_lease_try(&e->lease, kube_now_ns(), wall(e), &e->writing));
}

void kube_election_kick(struct kube_election *e)
{
	if (!e->lease.leading && !e->request && !e->over) {
		e->next_try_ns = kube_now_ns();
		set_timer(e);
	}
}

/* ---- giving it up ---- */

static void released(struct kube_election *e, bool ok)
{
	kube_cancel(e->request);
	e->request = NULL;
	e->releasing = false;
	set_timer(e);
	if (e->done)
		e->done(e->done_ctx, ok);
}

static void on_release_written(void *ctx, const struct kube_response *response);

static void on_release_read(void *ctx, const struct kube_response *response)
{
	struct kube_election *e = ctx;
	struct kube_lease_record found;

	e->request = NULL;
	if (response->result != KUBE_OK || kube_lease_parse(response->object, &found, NULL) < 0 ||
		!kube_lease_release(&e->lease, &found, wall(e), &e->writing)) {
		released(e, false);
		return;
	}
	remember(e, response->object);
	if (ask(e, KUBE_PUT, false, &e->writing, on_release_written) < 0)
		released(e, false);
}

static void on_release_written(void *ctx, const struct kube_response *response)
{
	struct kube_election *e = ctx;

	e->request = NULL;
	/* A renewal that was under way when it was called off may have come between. */
	if (response->result == KUBE_CONFLICT && ++e->release_tries < RELEASE_TRIES &&
		ask(e, KUBE_GET, false, NULL, on_release_read) == 0)
		return;
	released(e, response->result == KUBE_OK);
}

static void give_back(struct kube_election *e)
{
	if (ask(e, KUBE_GET, false, NULL, on_release_read) < 0)
		e->release_until_ns = 0;
	set_timer(e);
}

void kube_election_release(
	struct kube_election *e, void (*done)(void *ctx, bool released), void *ctx)
{
	bool leading = e->lease.leading;
	/* One that writes it in its first try will hold it, or does without knowing: called off,
	 * the write may still arrive, behind our back. A renewal that does is refused by its
	 * version. */
	bool wait = !leading && e->request && e->writes;

	if (!wait) {
		kube_cancel(e->request);
		e->request = NULL;
	}
	e->over = e->releasing = true;
	e->lease.leading = false;
	e->next_try_ns = 0;
	e->done = done;
	e->done_ctx = ctx;
	e->release_until_ns =
		leading || wait ? kube_now_ns() + e->options.config.renew_ms * KUBE_MS : 0;
	if (leading)
		give_back(e);
	else
		set_timer(e);
}

static void on_timer(void *ctx)
{
	struct kube_election *e = ctx;
	uint64_t now = kube_now_ns();

	if (e->releasing) {
		if (now >= e->release_until_ns)
			released(e, false);
		else
			set_timer(e);
		return;
	}
	if (e->over)
		return;
	if (e->lease.leading && now >= kube_lease_deadline_ns(&e->lease)) {
		e->lease.leading = false;
		lost(e);
	} else if (e->next_try_ns && now >= e->next_try_ns) {
		try(e);
	} else {
		set_timer(e);
	}
}

/* ---- made, freed, asked ---- */

static char *path_of(const char *namespace, const char *name)
{
	CLEANUP(buf_done)
	struct buf path = BUF_INIT(4096);

	if (buf_printf(&path, "/apis/coordination.k8s.io/v1/namespaces/") < 0 ||
		kube_escape(&path, namespace) < 0 || buf_printf(&path, "/leases") < 0)
		return NULL;
	if (name && (buf_append(&path, "/", 1) < 0 || kube_escape(&path, name) < 0))
		return NULL;
	return buf_append(&path, "", 1) < 0 ? NULL : TAKE(path.data);
}

int kube_election_new(const struct kube_election_options *options,
	struct kube_election **ret_election, struct err *err)
{
	CLEANUP(kube_election_freep)
	struct kube_election *e = NULL;
	int r = kube_lease_config_check(&options->config, err);

	if (r < 0)
		return r;
	e = calloc(1, sizeof(*e));
	if (!e)
		return err_set(err, ENOMEM, "lease: out of memory");
	e->options = *options;
	e->namespace = strdup(options->namespace);
	e->name = strdup(options->name);
	e->path = path_of(options->namespace, options->name);
	e->collection = path_of(options->namespace, NULL);
	if (!e->namespace || !e->name || !e->path || !e->collection)
		return err_set(err, ENOMEM, "lease: out of memory");
	kube_lease_init(&e->lease, &options->config);
	r = loop_add_timer(options->loop, 0, 0, on_timer, e, &e->timer);
	if (r < 0)
		return err_set(err, -r, "lease: no timer: %s", strerror(-r));
	e->next_try_ns = kube_now_ns();
	*ret_election = TAKE(e);
	return 0;
}

void kube_election_free(struct kube_election *e)
{
	if (!e)
		return;
	kube_cancel(e->request);
	loop_remove(e->timer);
	json_object_put(e->object);
	free(e->path);
	free(e->collection);
	free(e->namespace);
	free(e->name);
	free(e);
}

void kube_election_freep(struct kube_election **election)
{
	kube_election_free(*election);
	*election = NULL;
}

bool kube_election_may_write(void *election)
{
	const struct kube_election *e = election;

	return e && kube_lease_valid(&e->lease, kube_now_ns());
}

bool kube_election_leading(const struct kube_election *e)
{
	return e->lease.leading;
}

const char *kube_election_holder(const struct kube_election *e)
{
	return e->lease.seen ? e->lease.observed.holder : "";
}

bool kube_election_alive(const struct kube_election *e)
{
	uint64_t limit = e->options.config.lease_ms * KUBE_MS + GRACE_NS;

	return !e->lease.leading || kube_now_ns() < e->lease.renewed_ns + limit;
}

void kube_election_stats(const struct kube_election *e, struct kube_election_stats *ret_stats)
{
	*ret_stats = e->stats;
}
