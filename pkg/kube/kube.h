/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kube: the API server, spoken to through `kubectl proxy`: requests, list and watch with a cache,
 * the work queue, the lease, events, and the child process that the proxy is.
 *
 * All of it belongs to one thread, that of the event loop, and nothing here blocks. Callbacks are
 * called from the loop, never from inside the function that was given them. What a callback must
 * not do is free the object that calls it; it may start and cancel requests.
 *
 * Times named now are nanoseconds of a clock that only grows (kube_now_ns()), given by the caller
 * where the function is pure, so that tests have a clock of their own; times named wall are
 * nanoseconds since 1970, for what is written into objects. Numbers and their names (R1.13) are
 * those of the reference that the operator is written after, which follows client-go 1.36 unless it
 * says otherwise.
 *
 * JSON is json-c's. An object passed to a callback is the room's: keep it with json_object_get(),
 * never change it.
 */
#ifndef EBPFDUMP_KUBE_H
#define EBPFDUMP_KUBE_H

#include <json-c/json.h>
#include <sys/types.h>

#include "pkg/base/base.h"

#define KUBE_SECOND	      UINT64_C(1000000000)
#define KUBE_JSON_DEPTH	      100		/* R1.17: json-c's own default is 32 */
#define KUBE_EVENT_MAX	      ((size_t)8 << 20) /* bytes of one watch event: etcd allows about 1.5 MiB */
#define KUBE_TIME_MAX	      32		/* of a formatted time, with NUL */
#define KUBE_KEY_MAX	      320		/* namespace (63) / name (253), with NUL */
#define KUBE_ACCEPT_PATHS_MAX 16

/* CLOCK_BOOTTIME: goes on while the machine is suspended, so that a lease does too (R3.7). */
uint64_t kube_now_ns(void);

/* For CLEANUP. */
void json_putp(struct json_object **object);

/* ---- reading objects ---- */

/* The value at a path of names, "metadata.name"; NULL if there is none (or it is null). Names with
 * a dot are not reached. */
struct json_object *kube_get(const struct json_object *object, const char *path);
/* "" unless it is a string. Lives as long as the object. */
const char *kube_get_string(const struct json_object *object, const char *path);
/* fallback unless it is an integer. */
int64_t kube_get_int(const struct json_object *object, const char *path, int64_t fallback);
bool kube_get_bool(const struct json_object *object, const char *path);
/* "namespace/name", or "name" if it has no namespace. -EINVAL without a name, or too long. */
int kube_key(const struct json_object *object, char *ret_key, size_t size) MUST_CHECK;
/* A text of one JSON object, UTF-8, about KUBE_JSON_DEPTH deep at most, nothing around it but
 * space. -EBADMSG and why. A key given twice: the last one holds. */
int kube_json_parse(struct span text, struct json_object **ret_object, struct err *err) MUST_CHECK;
/* Appends text as it goes into a query, a path's segment or a form: all but letters, digits, and
 * -._~ as %XX. */
int kube_escape(struct buf *out, const char *text) MUST_CHECK;

/* ---- times of objects ---- */

/* metav1.Time, "2026-11-25T03:57:15Z", and MicroTime, exactly 6 digits: "...:15.000000Z". out has
 * KUBE_TIME_MAX bytes. */
void kube_time_format(uint64_t wall_ns, char *out);
void kube_micro_time_format(uint64_t wall_ns, char *out);
/* RFC 3339, with any fraction and offset. -EINVAL; -ERANGE before 1970 or after 2262. */
int kube_time_parse(const char *text, uint64_t *ret_wall_ns) MUST_CHECK;

/* ---- conditions: metav1.Condition in a JSON array, the list map `status.conditions` ---- */

struct kube_condition {
	const char *type;
	const char *status; /* "True", "False", "Unknown" */
	const char *reason; /* CamelCase, required */
	const char *message;
	int64_t observed_generation;
};

/* -EINVAL and the rule that is broken (R2.17). */
int kube_condition_check(const struct kube_condition *condition, struct err *err) MUST_CHECK;
/*
 * Sets it in the array, in place or as a new element. lastTransitionTime becomes wall_ns only if
 * status changes (R2.18). A message longer than the API allows (32768) is cut. 1: something
 * changed, 0: it was so already; -EINVAL, -ENOMEM.
 */
int kube_condition_set(struct json_object *conditions, const struct kube_condition *condition,
	uint64_t wall_ns) MUST_CHECK;
/* The element of that type, or NULL. */
struct json_object *kube_condition_find(const struct json_object *conditions, const char *type);

/* ---- what an answer means (R1.22) ---- */

enum kube_result {
	KUBE_OK,
	/* no answer */
	KUBE_CONNECT,	  /* nobody listens: the proxy is not up */
	KUBE_TIMEOUT,	  /* connected, no (whole) answer in time */
	KUBE_CUT,	  /* the connection ended in the middle of the answer */
	KUBE_TOO_BIG,	  /* the answer is longer than its limit */
	KUBE_BAD_ANSWER,  /* not HTTP, or a body that must be JSON and is not */
	KUBE_NOT_ALLOWED, /* may_write() said no: nothing was sent */
	/* answers of the proxy itself */
	KUBE_UNREACHABLE, /* 5xx that is not JSON: the proxy does not reach the API server */
	KUBE_FILTERED,	  /* 403 that is not JSON: --accept-paths lacks this path */
	/* answers of the API server */
	KUBE_NOT_SERVED, /* 404 that is not JSON: no such resource; the CRD is not installed */
	KUBE_NOT_FOUND,
	KUBE_UNAUTHORIZED,
	KUBE_FORBIDDEN, /* RBAC, or an admission's refusal */
	KUBE_CONFLICT,
	KUBE_ALREADY_EXISTS,
	KUBE_EXPIRED,  /* 410: a resource version or continue token is too old */
	KUBE_RV_AHEAD, /* "too large resource version": a server that is behind */
	KUBE_INVALID,  /* 400, 415, 422: the request is at fault */
	KUBE_TOO_MANY, /* 429 */
	KUBE_SERVER,   /* other 5xx */
	KUBE_OTHER,
	KUBE_RESULT_MAX
};
/* "ok", "connect", "timeout", ...: for logs and labels. */
const char *kube_result_name(enum kube_result result);

#define KUBE_CAUSES_MAX 8

/* The parts of a metav1.Status that decide something. Strings live as long as the response. */
struct kube_status {
	bool present;
	int64_t code;
	const char *reason; /* "" if none */
	const char *message;
	const char *causes[KUBE_CAUSES_MAX]; /* details.causes[].reason */
	uint32_t cause_count;
	int64_t retry_after_s; /* details.retryAfterSeconds; 0: none */
};

/* Reads a Status; anything else gives present = false. */
void kube_status_parse(const struct json_object *object, struct kube_status *ret_status);
bool kube_status_has_cause(const struct kube_status *status, const char *reason);
/* An answer that came. json: whether the body is JSON. */
enum kube_result kube_classify(long http_code, bool json, const struct kube_status *status);
/* Of an ERROR event: by its Status alone. */
enum kube_result kube_classify_status(const struct kube_status *status);
/* Retry-After in seconds: integers only, at most 60 (longer ones count as 60). -EINVAL. */
int kube_retry_after(struct span value, uint32_t *ret_seconds) MUST_CHECK;

/* ---- requests ---- */

struct kube_client;
struct kube_request;

enum kube_method { KUBE_GET, KUBE_POST, KUBE_PUT, KUBE_PATCH, KUBE_DELETE };

/* One attempt of a request, for metrics. Strings are valid during the call. */
struct kube_call {
	const char *verb;     /* get list watch create update patch apply delete */
	const char *resource; /* "ebpfdumps", "ebpfdumps/status"; "other" */
	int http_code;	      /* 0: no answer */
	enum kube_result result;
	uint64_t latency_ns; /* to the end of the answer; of a watch, to its headers */
};

struct kube_client_options {
	struct loop *loop;
	const char *url; /* NULL: http://127.0.0.1:8001; http://localhost with unix_socket */
	const char *unix_socket; /* path; NULL: TCP */
	const char *user_agent;	 /* NULL: ebpfdump-operator/VERSION. Never curl's own (R1.19). */
	double qps;		 /* 0: 5 requests/s, without watches (R1.15) */
	uint32_t burst;		 /* 0: 10 */
	size_t body_max;	 /* of an answer; 0: 16 MiB */
	uint32_t requests_max;	 /* waiting and running at once; 0: 256 */
	void (*observe)(void *ctx, const struct kube_call *call); /* NULL: nobody */
	/* Asked before each POST, PUT, PATCH and DELETE goes out. NULL: yes.
	 * Where `kube_election_may_write` goes in (R3.9). */
	bool (*may_write)(void *ctx);
	void *ctx;
};

/* curl_global_init() is done here, once; make the client before threads. */
int kube_client_new(const struct kube_client_options *options, struct kube_client **ret_client,
	struct err *err) MUST_CHECK;
/* Requests that run are dropped, their callbacks not called. Reflectors, elections and recorders
 * are freed before it. */
void kube_client_free(struct kube_client *client);
void kube_client_freep(struct kube_client **client);

#define KUBE_WARNINGS_MAX 8

struct kube_response {
	enum kube_result result;
	int http_code;	   /* 0: none came */
	const char *error; /* one line that a person can act on; "" if KUBE_OK */
	const char *content_type;
	struct span body;
	struct json_object *object;		 /* of a JSON body; NULL else */
	struct kube_status status;		 /* of an answer that is one */
	const char *warnings[KUBE_WARNINGS_MAX]; /* texts of Warning: headers, without the code
						    (R2.14) */
	uint32_t warning_count;
	int64_t retry_after_s; /* -1: no such header */
};

/* The response is gone when it returns. */
typedef void (*kube_response_fn)(void *ctx, const struct kube_response *response);

enum kube_request_flag {
	KUBE_UNLIMITED = 1, /* not held to qps: leases */
	KUBE_UNGUARDED = 2, /* may_write() is not asked: leases */
	KUBE_NO_RETRY = 4,  /* one attempt */
};

struct kube_request_options {
	enum kube_method method;
	const char *path;	  /* "/apis/...": each segment escaped by the caller */
	const char *query;	  /* without '?', escaped; NULL: none */
	struct span body;	  /* copied */
	const char *content_type; /* of the body; NULL: application/json */
	uint32_t timeout_ms;	  /* of one attempt; 0: 30 s (R1.21) */
	uint32_t flags;		  /* enum kube_request_flag */
	kube_response_fn fn;	  /* NULL: nobody waits for it */
	void *ctx;
};

#define KUBE_APPLY_PATCH "application/apply-patch+yaml"
#define KUBE_MERGE_PATCH "application/merge-patch+json"
#define KUBE_JSON_PATCH	 "application/json-patch+json"

/*
 * Starts it; fn is called exactly once, unless it is cancelled. A GET whose answer is 429 or 5xx
 * with Retry-After is tried again then, one that was cut after 1 s, up to 10 times (R1.14;
 * client-go repeats writes as well, with a body that may be minutes old by then). Everything else
 * is fn's. *ret_request (NULL: not wanted) is valid until fn is called. -ENOBUFS beyond
 * requests_max, -EINVAL, -ENOMEM.
 */
int kube_request(struct kube_client *client, const struct kube_request_options *options,
	struct kube_request **ret_request) MUST_CHECK;
/* fn is not called any more. NULL is allowed. */
void kube_cancel(struct kube_request *request);

struct kube_client_stats {
	uint32_t pending;	       /* requests that wait or run, without watches */
	uint64_t calls;		       /* attempts */
	uint64_t retries;	       /* of them again */
	uint64_t refused;	       /* beyond requests_max */
	uint64_t not_allowed;	       /* stopped by may_write() */
	uint64_t last_answer_ns;       /* when anybody answered, the proxy at least; 0: never */
	uint64_t last_contact_ns;      /* when the API server answered; 0: never */
	uint64_t tls_trouble_since_ns; /* the proxy's errors name TLS since then; 0: they do not */
};
void kube_client_stats(const struct kube_client *client, struct kube_client_stats *ret_stats);

/* ---- pure parts of waiting ---- */

/* d, d*2, d*4, ... up to cap; the sleep is d + random * jitter * d, random in [0,1). */
struct kube_backoff {
	uint64_t initial_ns, cap_ns;
	double jitter;
	uint64_t next_ns; /* 0: initial */
};
uint64_t kube_backoff_next(struct kube_backoff *backoff, double random);
void kube_backoff_reset(struct kube_backoff *backoff);

struct kube_bucket {
	double rate; /* tokens a second */
	double burst;
	double tokens;
	uint64_t at_ns;
};
void kube_bucket_init(struct kube_bucket *bucket, double rate, double burst, uint64_t now);
/* Takes a token: 0. If there is none takes none, and returns in how many ns there is. */
uint64_t kube_bucket_take(struct kube_bucket *bucket, uint64_t now);
/* Takes a token in any case; returns in how many ns it is there. */
uint64_t kube_bucket_reserve(struct kube_bucket *bucket, uint64_t now);
/* [0,1). */
double kube_random(void);

/* ---- framing of watch events (R1.16 to R1.18): pure, incremental ---- */

/* JSON documents one after another, with or without white space between them, cut anywhere. */
struct kube_frames {
	struct buf buf; /* of a document that is not at its end */
	uint32_t depth; /* of open braces and brackets */
	bool in_string, escaped;
	int error; /* first failure: nothing is taken any more */
	struct json_tokener *tokener;
};

/* Returns < 0 to stop; that becomes the feed's result. object is the caller's of the feed. */
typedef int (*kube_frame_fn)(void *ctx, struct json_object *object, size_t bytes);

int kube_frames_init(struct kube_frames *frames, size_t event_max) MUST_CHECK;
void kube_frames_done(struct kube_frames *frames);
/*
 * Calls fn for each document that is complete. -EBADMSG: not JSON, not an object, not UTF-8, or
 * deeper than KUBE_JSON_DEPTH; -EMSGSIZE: longer than event_max; -ENOMEM. After a failure it stays
 * failed.
 */
int kube_frames_feed(struct kube_frames *frames, const char *p, size_t len, kube_frame_fn fn,
	void *ctx) MUST_CHECK;
/* Whether the end of the stream here cuts a document in two. */
bool kube_frames_partial(const struct kube_frames *frames);

/* ---- reflector: list and watch into a cache (R1.1 to R1.23) ---- */

struct kube_reflector;

enum kube_change {
	KUBE_ADDED,
	KUBE_UPDATED,
	KUBE_DELETED,
	/* Gone while nobody watched: object is the last state known, which may be old (R1.6). */
	KUBE_DELETED_UNKNOWN,
};
const char *kube_change_name(enum kube_change change);

/* Zero: the default. Tests shorten them. */
struct kube_reflector_timing {
	uint32_t backoff_ms, backoff_cap_ms; /* 800 and 30000 (R1.13) */
	uint32_t watch_s;		     /* 300: the server ends it after 1 to 2 times this */
	uint32_t idle_ms;		     /* 180000 without a byte: dead (R1.21) */
	uint32_t headers_ms;		     /* 30000 until the watch is answered */
	uint32_t short_ms;		     /* 1000: "very short watch" */
	uint32_t retry_ms;		     /* 1000 between 10 tries to connect */
	uint32_t healthy_ms;		     /* 60000 of watching: the backoff begins anew */
};

struct kube_reflector_options {
	struct kube_client *client;
	const char *path;	 /* of the collection, "/apis/apps/v1/namespaces/x/daemonsets" */
	const char *api_version; /* "apps/v1" */
	const char *kind;	 /* "DaemonSet" */
	const char *label_selector, *field_selector; /* not escaped; NULL: none */
	/* Objects of one page; 0: 100. client-go asks for 500, which json-c turns into 15 MiB. */
	uint32_t page_limit;
	uint32_t objects_max; /* of the cache; 0: 10000. More are left out, counted, and said. */
	/* false: metadata.managedFields and kubectl's copy of the last applied object are dropped,
	 * most of the memory. */
	bool keep_all;
	struct kube_reflector_timing timing;
	/* Makes an object smaller before it is kept: the owner knows what it needs. NULL: nothing
	 * more is dropped. -errno (-ENOMEM): the list or watch fails. */
	int (*shrink)(void *ctx, struct json_object *object);
	/* old: the state before (UPDATED), else NULL. The cache already has the new state. Same
	 * name with another UID comes as DELETED, then ADDED. */
	void (*on_change)(void *ctx, enum kube_change change, struct json_object *object,
		struct json_object *old);
	/* After each complete list, behind its changes. NULL: not wanted. */
	void (*on_synced)(void *ctx);
	/* A watch stands again after a failure, without a list: the API server is back. NULL: not
	 * wanted. */
	void (*on_recovered)(void *ctx);
	void *ctx;
};

/* Starts at once. Strings are copied. */
int kube_reflector_new(const struct kube_reflector_options *options,
	struct kube_reflector **ret_reflector, struct err *err) MUST_CHECK;
void kube_reflector_free(struct kube_reflector *reflector);
void kube_reflector_freep(struct kube_reflector **reflector);
/* Ends a backoff now: the proxy is back. The next failure waits as long as it would have. */
void kube_reflector_kick(struct kube_reflector *reflector);

size_t kube_reflector_count(const struct kube_reflector *reflector);
/* key: "namespace/name"; NULL if it is not there. */
struct json_object *kube_reflector_get(const struct kube_reflector *reflector, const char *key);
/* All objects, in order of their keys; fn must not wait for changes (none happen meanwhile).
 * fn returns < 0 to stop, which is then the result. */
int kube_reflector_each(const struct kube_reflector *reflector,
	int (*fn)(void *ctx, const char *key, struct json_object *object), void *ctx);

enum kube_reflector_phase { KUBE_LISTING, KUBE_CONNECTING, KUBE_WATCHING, KUBE_WAITING };
const char *kube_reflector_phase_name(enum kube_reflector_phase phase);

struct kube_reflector_info {
	enum kube_reflector_phase phase;
	bool synced;	 /* a list was complete, once; or three in a row said "no such resource" */
	bool incomplete; /* objects were left out: objects_max */
	enum kube_result
		problem; /* of the last failure since the watch was last established; KUBE_OK */
	char why[512];	 /* in words; "" */
	uint64_t last_contact_ns; /* last byte of the API server; 0: never */
	size_t objects;
	const char *version; /* resource version that the cache is of; as long as the reflector */
	/* counters */
	uint64_t lists, watches;    /* requests */
	uint64_t events, bookmarks; /* of watches; events: taken */
	uint64_t skipped;	    /* events of an unknown type, wrong kind, without a name */
	uint64_t cut_events;	    /* that the end of a watch cut in two: not taken */
	uint64_t left_out;	    /* objects beyond objects_max */
	uint64_t failures;	    /* ends of lists and watches that were none of the good ones */
	uint64_t expired;	    /* of them 410 */
	uint64_t bytes;
};
void kube_reflector_info(
	const struct kube_reflector *reflector, struct kube_reflector_info *ret_info);

/* Pure: what follows the end of a watch (R1.8). */
enum kube_watch_next {
	KUBE_REWATCH_NOW,   /* from the last resource version */
	KUBE_REWATCH_TRY,   /* the same after retry_ms */
	KUBE_REWATCH_LATER, /* the same after a step of the backoff */
	KUBE_RELIST_LATER,  /* list after a step of the backoff */
};

struct kube_watch_end {
	enum kube_result
		result;	  /* KUBE_OK: ended as it should; else of the answer or the ERROR event */
	bool answered;	  /* 200 and headers came */
	bool error_event; /* result is of an ERROR event */
	bool undecodable; /* a document that is not one, or an unknown type */
	uint64_t lasted_ms, events;
	uint32_t short_before;	  /* watches before it that were shorter than short_ms, in a row */
	uint32_t connect_tries;	  /* that failed before this one, in a row */
	uint32_t internal_errors; /* ERROR events 500 before this one, in a row */
	uint32_t short_ms;
};
enum kube_watch_next kube_watch_next(const struct kube_watch_end *end);

/* ---- work queue (R2.1 to R2.3): pure ---- */

struct kube_queue;

/* keys_max: keys known at once (queued, delayed, in work, or with failures); 0: 4096. */
int kube_queue_new(uint32_t keys_max, struct kube_queue **ret_queue) MUST_CHECK;
void kube_queue_free(struct kube_queue *queue);
void kube_queue_freep(struct kube_queue **queue);
/* A key that is queued already stays so once; one in work is queued again when it is done. -ENOBUFS
 * beyond keys_max, -ENAMETOOLONG beyond KUBE_KEY_MAX: counted. Nothing is added after
 * kube_queue_shut_down() (-ESHUTDOWN). */
int kube_queue_add(struct kube_queue *queue, const char *key, uint64_t now);
/* Two delays of one key: the earlier holds. */
int kube_queue_add_after(
	struct kube_queue *queue, const char *key, uint64_t delay_ns, uint64_t now);
/* After 5 ms * 2^failures, at most 1000 s, what the bucket (10/s, burst 100) allows, and least_ns:
 * the longest. */
int kube_queue_add_limited(
	struct kube_queue *queue, const char *key, uint64_t least_ns, uint64_t now);
/* Failures begin at 0 again. */
void kube_queue_forget(struct kube_queue *queue, const char *key);
uint32_t kube_queue_failures(const struct kube_queue *queue, const char *key);
/* The next key that is due, in order; it is in work until kube_queue_done(). false: none. ret_key
 * has KUBE_KEY_MAX bytes. */
bool kube_queue_take(struct kube_queue *queue, uint64_t now, char *ret_key);
void kube_queue_done(struct kube_queue *queue, const char *key, uint64_t now);

enum kube_outcome {
	KUBE_DONE,     /* forget */
	KUBE_FAILED,   /* add_limited, not before after_ns: what Retry-After asks for */
	KUBE_AGAIN,    /* forget, add_after after_ns */
	KUBE_TERMINAL, /* will not become better: neither */
};
/* done, and what the outcome asks for (R2.3). */
void kube_queue_finish(struct kube_queue *queue, const char *key, enum kube_outcome outcome,
	uint64_t after_ns, uint64_t now);
/* When take() may have something: now or earlier if at once, UINT64_MAX: never by itself. */
uint64_t kube_queue_next_ns(const struct kube_queue *queue);
void kube_queue_shut_down(struct kube_queue *queue);

struct kube_queue_stats {
	uint32_t depth, delayed, working, keys; /* now */
	uint64_t adds, retries, refused;
	uint64_t wait_ns; /* sum, from due to taken */
	uint64_t work_ns; /* sum, from taken to done */
	uint64_t taken;
};
void kube_queue_stats(const struct kube_queue *queue, struct kube_queue_stats *ret_stats);

/* ---- lease: pure decisions (R3.4, R3.5, R3.8) ---- */

#define KUBE_IDENTITY_MAX 320

struct kube_lease_record {
	char holder[KUBE_IDENTITY_MAX];
	int64_t duration_s;
	char acquire_time[64], renew_time[64]; /* as they stand there: compared, never read */
	int64_t transitions;
};

/* Of a Lease object; missing fields are empty. -EBADMSG: not a Lease, or a field of a wrong type
 * or length. */
int kube_lease_parse(const struct json_object *lease, struct kube_lease_record *ret_record,
	struct err *err) MUST_CHECK;

struct kube_lease_config {
	char identity[KUBE_IDENTITY_MAX];
	uint32_t lease_ms, renew_ms, retry_ms; /* 15000, 10000, 2000 */
	double jitter;			       /* 1.2 */
};
/* The defaults, and an identity "NAME_UUID" (R3.2). */
void kube_lease_config_init(struct kube_lease_config *config, const char *name);
/* lease > renew > jitter * retry > 0, an identity, whole seconds of lease. */
int kube_lease_config_check(const struct kube_lease_config *config, struct err *err) MUST_CHECK;

struct kube_lease {
	struct kube_lease_config config;
	struct kube_lease_record observed; /* last one seen */
	bool seen;			   /* there is one */
	uint64_t observed_ns;		   /* local time at which it changed */
	uint64_t try_ns;		   /* at which the write in progress, or the try, began */
	uint64_t renewed_ns;		   /* at which the last write that succeeded began */
	bool leading;
	bool fast; /* the write in progress is by the remembered version */
};

enum kube_lease_action {
	KUBE_LEASE_GET,
	KUBE_LEASE_CREATE, /* POST record */
	KUBE_LEASE_UPDATE, /* PUT record over what was read (or, fast, remembered) */
	KUBE_LEASE_WAIT,   /* the try is over: next after kube_lease_delay_ns() */
	KUBE_LEASE_LOST,   /* was the leader, and is not any more */
};

void kube_lease_init(struct kube_lease *lease, const struct kube_lease_config *config);
/* A try begins. *ret_record is filled for CREATE and UPDATE. */
enum kube_lease_action kube_lease_try(struct kube_lease *lease, uint64_t now, uint64_t wall_ns,
	struct kube_lease_record *ret_record);
/* The answer to GET: found, 404 (found false, missing true), or a failure (both false). */
enum kube_lease_action kube_lease_got(struct kube_lease *lease,
	const struct kube_lease_record *found, bool missing, uint64_t now, uint64_t wall_ns,
	struct kube_lease_record *ret_record);
/* The answer to CREATE or UPDATE of record. */
enum kube_lease_action kube_lease_wrote(
	struct kube_lease *lease, bool ok, const struct kube_lease_record *record, uint64_t now);
/* Until the next try: from the beginning of this one's write for the leader, else from its end. */
uint64_t kube_lease_delay_ns(const struct kube_lease *lease, double random);
/* Leading, and the last renewal began less than renew_ms ago. Nobody else can hold it then. */
bool kube_lease_valid(const struct kube_lease *lease, uint64_t now);
/* When leading ends unless it is renewed before; it may not write any more by then. */
uint64_t kube_lease_deadline_ns(const struct kube_lease *lease);
/* How long that is from a renewal: between renew_ms and lease_ms, 12500. */
uint32_t kube_lease_span_ms(const struct kube_lease_config *config);
/* What to write over found to give it up; false: it is not ours. */
bool kube_lease_release(const struct kube_lease *lease, const struct kube_lease_record *found,
	uint64_t wall_ns, struct kube_lease_record *ret_record);

/* ---- election: the lease with its requests ---- */

struct kube_election;

struct kube_election_options {
	struct kube_client *client;
	struct loop *loop;
	const char *namespace, *name;
	struct kube_lease_config config;
	int64_t wall_offset_ns; /* added to what is written as time: tests of clocks that jump */
	void (*on_leading)(void *ctx);
	/* Not the leader any more: stop writing, and end the process non-zero (R3.6). It does not
	 * try again. */
	void (*on_lost)(void *ctx, const char *why);
	/* Somebody else, or we, hold it now; NULL: not wanted. */
	void (*on_holder)(void *ctx, const char *holder);
	void *ctx;
};

/* Starts at once. */
int kube_election_new(const struct kube_election_options *options,
	struct kube_election **ret_election, struct err *err) MUST_CHECK;
void kube_election_free(struct kube_election *election);
void kube_election_freep(struct kube_election **election);
/* kube_lease_valid(), now: for may_write. ctx is the election; NULL: false. */
bool kube_election_may_write(void *election);
/* The API server may be there now: the next try is at once, unless one runs or this process leads.
 */
void kube_election_kick(struct kube_election *election);
bool kube_election_leading(const struct kube_election *election);
/* "" if nobody is known. */
const char *kube_election_holder(const struct kube_election *election);
/* R3.10: false if it believes to lead although the lease is over since 20 s. */
bool kube_election_alive(const struct kube_election *election);
/* Ends it: gives the lease up if it is ours, at most renew_ms; done is called exactly once, also if
 * that failed. on_lost is not called. */
void kube_election_release(
	struct kube_election *election, void (*done)(void *ctx, bool released), void *ctx);

struct kube_election_stats {
	uint64_t tries, failures, acquired;
	char last_error[256]; /* since the last try that succeeded; "" */
};
void kube_election_stats(
	const struct kube_election *election, struct kube_election_stats *ret_stats);

/* ---- events (R4.1 to R4.5), best effort ---- */

#define KUBE_EVENT_KEYS_MAX 256

struct kube_regarding {
	const char *api_version, *kind, *namespace, *name, *uid;
	const char *resource_version; /* "" or NULL: none */
};

struct kube_event {
	struct kube_regarding regarding;
	bool warning;	    /* type Warning, else Normal */
	const char *reason; /* at most 128 */
	const char *action; /* at most 128, required */
	const char *note;   /* cut at 1024 */
};

/* Of an object, pointing into it. */
struct kube_regarding kube_regarding_of(const struct json_object *object);

/* Pure: what to do with the events that happen. */
struct kube_event_table;

enum kube_event_do {
	KUBE_EVENT_CREATE, /* POST; kube_event_gone() if that fails */
	KUBE_EVENT_PATCH,  /* PATCH the series of the name */
	KUBE_EVENT_COUNT,  /* counted: a later patch says it */
	KUBE_EVENT_DROP,   /* beyond 25 of one object, and one in 300 s */
};

struct kube_event_todo {
	enum kube_event_do what;
	char namespace[64], name[256];
	uint32_t count;	       /* of the series, >= 2 for PATCH */
	uint64_t last_wall_ns; /* when it was last observed */
};

int kube_event_table_new(struct kube_event_table **ret_table) MUST_CHECK;
void kube_event_table_free(struct kube_event_table *table);
void kube_event_table_freep(struct kube_event_table **table);
void kube_event_seen(struct kube_event_table *table, const struct kube_event *event, uint64_t now,
	uint64_t wall_ns, struct kube_event_todo *ret_todo);
/* Series whose patch is due: true and what, until false. now UINT64_MAX: all that have one. */
bool kube_event_due(struct kube_event_table *table, uint64_t now, struct kube_event_todo *ret_todo);
/* When kube_event_due() may have something; UINT64_MAX: never. */
uint64_t kube_event_due_ns(const struct kube_event_table *table);
/* It is not there any more (404): the next one is created anew. */
void kube_event_gone(struct kube_event_table *table, const char *namespace, const char *name);

struct kube_recorder;

struct kube_recorder_options {
	struct kube_client *client;
	struct loop *loop;
	const char
		*controller;  /* reportingController, "research.dynatrace.com/ebpfdump-operator" */
	const char *instance; /* reportingInstance: the pod's name */
	uint32_t pending_max; /* requests at once; 0: 64 */
};

struct kube_recorder_stats {
	uint64_t seen;	  /* = created + counted + dropped + invalid + failed + pending */
	uint64_t created; /* accepted by the API server */
	uint64_t counted; /* taken into the series of one that was created */
	uint64_t dropped; /* by the bucket, or beyond pending_max */
	uint64_t invalid; /* without reason, action or name */
	uint64_t failed;  /* refused, or no answer */
	uint64_t pending; /* now */
	uint64_t patches; /* of series, that were accepted */
};

int kube_recorder_new(const struct kube_recorder_options *options,
	struct kube_recorder **ret_recorder, struct err *err) MUST_CHECK;
void kube_recorder_free(struct kube_recorder *recorder);
void kube_recorder_freep(struct kube_recorder **recorder);
/* Never fails towards the caller. */
void kube_recorder_event(struct kube_recorder *recorder, const struct kube_event *event);
/* Series that have uncounted repetitions are patched now: at the end. */
void kube_recorder_flush(struct kube_recorder *recorder);
void kube_recorder_stats(
	const struct kube_recorder *recorder, struct kube_recorder_stats *ret_stats);

/* ---- `kubectl proxy` as a child (R5.5 to R5.17) ---- */

struct kube_proxy;

struct kube_proxy_timing {		     /* zero: the default; tests shorten them */
	uint32_t backoff_ms, backoff_cap_ms; /* 200 and 10000 */
	uint32_t deaths_max, deaths_ms;	     /* 5 deaths in 60000: given up */
	uint32_t probe_ms;		     /* 5000: without any answer since then it is asked */
	uint32_t probe_timeout_ms;	     /* 3000 */
	uint32_t probes_max;		     /* 3 in a row unanswered: hung, killed */
	uint32_t deaf_ms;		     /* 30000 without anybody who listens: killed */
	uint32_t stop_ms;		     /* 1000 from SIGTERM to SIGKILL */
	uint32_t tls_ms;		     /* each 300000 of TLS errors: restarted (R5.16) */
};

struct kube_proxy_options {
	struct loop *loop;
	struct kube_client *client; /* speaks to it: by its answers is known whether it hangs */
	const char *program;	    /* NULL: kubectl, from PATH */
	const char *kubeconfig;	    /* NULL: in the cluster, or as kubectl finds it */
	const char *context;	    /* NULL: the current one */
	const char *unix_socket;    /* NULL: TCP on 127.0.0.1 */
	uint16_t port;		    /* 0: 8001 */
	/* Regular expressions of paths, anchored by the caller, without commas: kubectl splits at
	 * them (R5.10). All others are refused by the proxy. Ended by NULL; at most
	 * KUBE_ACCEPT_PATHS_MAX. */
	const char *const *accept_paths;
	struct kube_proxy_timing timing;
	/* Answers again, after its start or a silence. NULL: not wanted. */
	void (*on_up)(void *ctx);
	void (*on_down)(
		void *ctx, const char *why); /* died, or was killed; it is being restarted */
	/* deaths_max in deaths_ms, or it cannot be started at all: the process should end (R5.6).
	 */
	void (*on_fatal)(void *ctx, const char *why);
	/* Children that were not ours (a PID 1 inherits orphans) are reaped, and told here. NULL.
	 */
	void (*on_orphan)(void *ctx, pid_t pid, int status);
	void *ctx;
};

/*
 * Starts it: own process group, SIGKILL at our death, no signals blocked, no descriptors but its
 * output, which goes to our log. Takes over SIGCHLD: waits for every child of the process. The
 * program not found: -ENOENT. After a failure the loop must not run.
 */
int kube_proxy_new(const struct kube_proxy_options *options, struct kube_proxy **ret_proxy,
	struct err *err) MUST_CHECK;
/* SIGTERM, after stop_ms SIGKILL; then done. Nothing is restarted any more. */
void kube_proxy_stop(struct kube_proxy *proxy, void (*done)(void *ctx), void *ctx);
/* Kills the child that is left, and waits for it: it ends at once by SIGKILL. SIGCHLD stays taken:
 * the loop does not run any more. */
void kube_proxy_free(struct kube_proxy *proxy);
void kube_proxy_freep(struct kube_proxy **proxy);

struct kube_proxy_info {
	pid_t pid; /* 0: none runs */
	bool up;   /* has answered since its start, and does not hang */
	bool fatal;
	uint64_t starts;
	uint64_t deaths;
	uint64_t hangs; /* of them killed because it hung */
	char last[256]; /* how it ended last, and what it said; "" */
};
void kube_proxy_info(const struct kube_proxy *proxy, struct kube_proxy_info *ret_info);

#endif
