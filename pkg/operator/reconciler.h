/* SPDX-License-Identifier: Apache-2.0 */
/* The reconciler's state, shared by its parts: reconciler.c (caches and queues), pass.c (the
 * loaders), report.c (the statuses). */
#ifndef EBPFDUMP_OPERATOR_RECONCILER_H
#define EBPFDUMP_OPERATOR_RECONCILER_H

#include "pkg/operator/internal.h"

#define CLUSTER_KEY "cluster" /* the one key of the loaders' queue; EbpfDumps' have a '/' */
#define PATH_MAX_   768

/* One run over the loaders, from taking the key to finishing it. */
struct pass {
	bool running;
	uint64_t began_ns;
	struct json_object *winner; /* own reference; NULL: none */
	struct json_object *intent; /* NULL: not (yet) known */
	struct json_object *set;    /* own reference: as it was when the request was sent; NULL */
	struct json_object *spec_json; /* own reference; the next points into it */
	struct spec_resource spec;     /* of the winner, if it is valid */
	bool valid;
	struct operator_view view;   /* the part that is of this pass */
	struct operator_facts facts; /* daemonset is not used */
	/* of a list that is read in pages: what was kept of them, and where the next begins */
	struct json_object *pods, *events;
	struct json_object *live; /* the winner, as the API server has it; NULL: none so far */
	char *next_page;	  /* NULL: there is none */
	uint32_t pages;
	uint64_t explain_in_ns; /* pods and events were not read: not before then; 0: they were */
	bool again_soon;	/* the cache is behind, or somebody was faster */
	int64_t retry_after_s;	/* that a failure's answer asked for; 0: nothing */
	struct kube_request *request;
	enum operator_action action;
};

/* One status being written. */
struct report {
	bool running;
	char key[KUBE_KEY_MAX];
	struct json_object *dump, *before, *status; /* own references */
	uint64_t retry_after_ns;
	struct kube_request *request;
};

struct reconciler {
	struct reconciler_options options;
	char *namespace, *image, *account, *deployment; /* settings' strings */
	char owner_uid[64];
	char set_key[KUBE_KEY_MAX];
	struct kube_reflector *dumps, *sets;
	struct kube_queue *loaders, *statuses;
	struct loop_source *wake, *resync;
	bool leading, draining;
	void (*drained)(void *ctx);
	void *drained_ctx;

	/* memory, none of it needed for being right */
	bool owner_known, secret_known;
	char winner_uid[64]; /* as of the last look: a change is news to all */
	char winner_key[KUBE_KEY_MAX];
	char applied_intent[17];     /* what was applied last, */
	char applied_uid[64];	     /* to which DaemonSet, */
	int64_t applied_generation;  /* and what its generation was then */
	struct json_object *fresh;   /* an answer that is newer than the cache; NULL */
	char gone_uid[64];	     /* the DaemonSet whose end was seen last: no answer is newer */
	struct json_object *written; /* key -> {rv, status}: newer than the cache */
	uint32_t polls;		     /* passes in a row that found loaders not ready */
	struct kube_bucket explain;  /* reads of pods and events */
	struct kube_bucket say;	     /* statuses of the EbpfDump that is acted on */
	uint64_t short_since_ns;     /* pods are fewer than wanted; 0: they are not */

	struct operator_facts facts;
	struct pass pass;
	struct report report;

	/* counters */
	uint64_t passes[KUBE_TERMINAL + 1]; /* by outcome */
	uint64_t actions[OPERATOR_ACTION_MAX], action_failures[OPERATOR_ACTION_MAX];
	uint64_t pass_ns, pass_ns_max, status_writes, status_failures, last_done_ns, left_out;
};

/* The EbpfDump that is acted on, by the cache; not a reference. */
struct json_object *current_winner(const struct reconciler *r);
/* The DaemonSet, by the cache or an answer that is newer; not a reference. */
struct json_object *current_set(struct reconciler *r);
/* A part of a cached EbpfDump, "spec" or "status": a new reference; NULL: there is none. */
struct json_object *part_of(const struct json_object *dump, const char *part);
/* What is under way has ended: looks for more. */
void work_on(struct reconciler *r);
void want_status(struct reconciler *r, const char *key);
/* Best effort. about: the object. */
void tell(struct reconciler *r, const struct json_object *about, bool warning, const char *reason,
	const char *note);
/* Whether the failure may be over the next time, and says nothing about what was asked. */
bool is_transient(enum kube_result result);

void pass_begin(struct reconciler *r);
void pass_drop(struct reconciler *r);
void report_begin(struct reconciler *r, const char *key);
void report_drop(struct reconciler *r);

#endif
