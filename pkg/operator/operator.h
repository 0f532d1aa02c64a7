/* SPDX-License-Identifier: Apache-2.0 */
/*
 * operator: one EbpfDump of the cluster becomes a DaemonSet of loaders in the operator's namespace.
 *
 * What shall be is computed by pure functions of what is known: which EbpfDump is acted on
 * (operator_winner), its DaemonSet (operator_daemonset), whether the one that is there will do
 * (operator_holds), what an EbpfDump's status says (operator_status), and which step comes next
 * (operator_next). The reconciler does nothing but ask and write: level-triggered, from the cache
 * and live answers, never from the kind of an event, so that it may end between any two requests
 * and start again.
 *
 * Two queues: the loaders have one key, the status of each EbpfDump its own; a thousand statuses do
 * not hold up the loaders. All of it belongs to the loop's thread; nothing blocks.
 */
#ifndef EBPFDUMP_OPERATOR_H
#define EBPFDUMP_OPERATOR_H

#include "pkg/kube/kube.h"
#include "pkg/spec/spec.h"
#include "pkg/telemetry/telemetry.h"

#define OPERATOR_GROUP	    "research.dynatrace.com"
#define OPERATOR_VERSION    OPERATOR_GROUP "/v1alpha1"
#define OPERATOR_KIND	    "EbpfDump"
#define OPERATOR_DAEMONSET  "ebpfdump-loader"
#define OPERATOR_SECRET	    "ebpfdump-marker-key"
#define OPERATOR_SECRET_KEY "key"
/* For ever the same: another name would leave the fields of the old one behind (R2.9). */
#define OPERATOR_MANAGER	"ebpfdump-operator"
#define OPERATOR_STATUS_MANAGER "ebpfdump-operator-status"
#define OPERATOR_CONTROLLER	OPERATOR_GROUP "/ebpfdump-operator"
/* On the DaemonSet: whose it is, and what it was made from. */
#define OPERATOR_OF	OPERATOR_GROUP "/ebpfdump"
#define OPERATOR_OF_UID OPERATOR_GROUP "/ebpfdump-uid"
#define OPERATOR_INTENT OPERATOR_GROUP "/intent"
/* On the pods. */
#define OPERATOR_SPEC_HASH OPERATOR_GROUP "/spec-hash"

#define OPERATOR_PORT 9464 /* of the loaders' telemetry, in their own network namespace */

/* ---- which one ---- */

/* Whether a comes before b: older, or as old and first by namespace/name, byte by byte (R7.6). */
bool operator_before(const struct json_object *a, const struct json_object *b);
/* The EbpfDump that is acted on: the first that is not being deleted. NULL: none. */
struct json_object *operator_winner(struct json_object *const *objects, size_t count);

/* ---- what shall be ---- */

struct operator_settings {
	const char *namespace;
	const char *image;	 /* unless the resource names one */
	const char *pull_policy; /* "IfNotPresent" */
	const char *account;
	bool privileged;	/* instead of single capabilities */
	const char *deployment; /* owner; "": none */
	const char *owner_uid;	/* ""; none */
};

/* The whole intent for server-side apply; dump: the EbpfDump, spec: its decoded spec. -ENOMEM. */
int operator_daemonset(const struct operator_settings *settings, const struct json_object *dump,
	const struct spec_resource *spec, struct json_object **ret_daemonset) MUST_CHECK;
/* Whether its loaders need the marker's key. */
bool operator_needs_secret(const struct spec_resource *spec);
/* A Secret with a new key in it. -ENOMEM, or the errno of the random numbers. */
int operator_secret(
	const struct operator_settings *settings, struct json_object **ret_secret) MUST_CHECK;
/* Whether everything that the intent says is so in the live object: what else is there (defaults,
 * other managers' fields) does not matter. Lists with names are compared by name. */
bool operator_holds(const struct json_object *intent, const struct json_object *live);
/* Whether the DaemonSet is one of ours: by label, owner or annotation. */
bool operator_is_ours(
	const struct json_object *daemonset, const struct operator_settings *settings);
/* Whether its selector, which cannot be changed, is the one that we want. */
bool operator_selects(const struct json_object *daemonset);

/* ---- what is said about it ---- */

enum operator_problem {
	OPERATOR_FINE,
	OPERATOR_APPLY_FAILED,
	OPERATOR_NAME_CONFLICT,
	OPERATOR_SELECTOR_CONFLICT,
};

/* Why loaders do not come up, as far as pods and events tell. */
struct operator_trouble {
	const char *reason; /* of the condition; NULL: none is known */
	char message[512];
};

/* What is known of the accepted EbpfDump's loaders. */
struct operator_facts {
	char uid[64];	    /* of the EbpfDump that it is about; "": nothing is known */
	int64_t generation; /* and its spec */
	enum operator_problem problem;
	char problem_text[512];
	struct json_object *daemonset; /* NULL: there is none */
	struct operator_trouble trouble;
};

/* Of the pages of lists, what operator_find_trouble() needs: pods that are not ready, without most
 * of what pods are made of; events of the reasons that it reads. *kept is made with the first.
 * Returns how many had no room: a thousand of each are kept. -ENOMEM. */
int operator_keep_pods(struct json_object **kept, const struct json_object *page) MUST_CHECK;
int operator_keep_events(struct json_object **kept, const struct json_object *page) MUST_CHECK;
/* pods, events: lists of the namespace, or what was kept of them; NULL: not known. refused: pods
 * have been fewer than wanted for so long that an event tells why (R2.20), and not that one node is
 * new; an event counts unless a pod was made since. */
void operator_find_trouble(const struct json_object *daemonset, const struct json_object *pods,
	const struct json_object *events, bool refused, struct operator_trouble *ret_trouble);
/* Whether fewer pods are there than there shall be, as the DaemonSet's status says. */
bool operator_is_short(const struct json_object *daemonset);
/* Whether the DaemonSet's loaders are all there, new and ready, as its status says. */
bool operator_rolled_out(const struct json_object *daemonset);

/*
 * The status of an EbpfDump, whole. winner: the one that is acted on (it may be dump itself; NULL:
 * none). invalid: what is wrong with dump's spec; NULL: nothing. before: its status so far, for the
 * times of the conditions. -ENOMEM, -EINVAL.
 */
int operator_status(const struct json_object *dump, const struct json_object *winner,
	const char *invalid, const struct operator_facts *facts, const struct json_object *before,
	uint64_t wall_ns, struct json_object **ret_status) MUST_CHECK;
/* Whether two statuses say the same. */
bool operator_same_status(const struct json_object *a, const struct json_object *b);

/* ---- which step is next ---- */

enum operator_action {
	OPERATOR_GET_OWNER,
	OPERATOR_GET_SECRET,
	OPERATOR_CREATE_SECRET,
	OPERATOR_GET_DAEMONSET, /* live: one of that name that is not in the cache */
	OPERATOR_APPLY,
	OPERATOR_LIST_DUMPS, /* live: before loaders are taken away */
	OPERATOR_DELETE,
	OPERATOR_LIST_PODS,
	OPERATOR_LIST_EVENTS,
	OPERATOR_FINISH,
	OPERATOR_ACTION_MAX
};
const char *operator_action_name(enum operator_action action);

/* What the cache and the memory say, and what this pass has found out. */
struct operator_view {
	bool wanted; /* there is a winner, and its spec is valid */
	bool others; /* not wanted: the DaemonSet is not of the (invalid) winner, or there is none
		      */
	bool daemonset;	 /* one is there */
	bool going;	 /* it is being deleted */
	bool ours;	 /* it is ours */
	bool selects;	 /* its selector is ours */
	bool holds;	 /* it is as it shall be */
	bool rolled_out; /* and its loaders are all ready */
	bool needs_secret;
	bool owner_known, secret_known;
	/* of this pass */
	bool secret_missing;
	bool daemonset_asked, applied, dumps_asked, confirmed, deleted, pods_asked, events_asked;
	bool failed; /* a request of this pass: it ends */
};
enum operator_action operator_next(const struct operator_view *view);

/* ---- the reconciler ---- */

struct reconciler;

struct reconciler_options {
	struct loop *loop;
	struct kube_client *client;
	struct kube_recorder *recorder;	   /* NULL: no events */
	struct operator_settings settings; /* owner_uid is found out */
	uint64_t resync_ms;
	struct kube_reflector_timing timing; /* of the caches; zero: the defaults */
	/* Whether it may act now; asked before each step. NULL: yes. */
	bool (*may_act)(void *ctx);
	void *ctx;
};

/* Strings of settings are copied. Its caches fill at once; it acts once both are full, and
 * reconciler_lead() was called. */
int reconciler_new(const struct reconciler_options *options, struct reconciler **ret_reconciler,
	struct err *err) MUST_CHECK;
void reconciler_free(struct reconciler *r);
void reconciler_freep(struct reconciler **r);
/* From now on it acts. */
void reconciler_lead(struct reconciler *r);
/* No new work; done (once) when what is under way has ended. */
void reconciler_drain(struct reconciler *r, void (*done)(void *ctx), void *ctx);
/* The way to the API server is back. */
void reconciler_kick(struct reconciler *r);
/* Lists were complete once, and watches stand or are young; else out says what is not. */
bool reconciler_ready(const struct reconciler *r, struct buf *out);
bool reconciler_synced(const struct reconciler *r);
void reconciler_metrics(const struct reconciler *r, struct metrics *m);
/* What `kubectl proxy` must let through, for its accept_paths; ended by NULL. Strings live as long
 * as the process. */
int operator_accept_paths(const char *namespace, const char *deployment, const char **ret_paths,
	size_t size) MUST_CHECK;

#endif
