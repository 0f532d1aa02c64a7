/* SPDX-License-Identifier: Apache-2.0 */
#include "pkg/operator/operator.h"

const char *operator_action_name(enum operator_action action)
{
	static const char *const names[OPERATOR_ACTION_MAX] = {
		[OPERATOR_GET_OWNER] = "get owner",
		[OPERATOR_GET_SECRET] = "get secret",
		[OPERATOR_CREATE_SECRET] = "create secret",
		[OPERATOR_GET_DAEMONSET] = "get daemonset",
		[OPERATOR_APPLY] = "apply",
		[OPERATOR_LIST_DUMPS] = "list ebpfdumps",
		[OPERATOR_DELETE] = "delete",
		[OPERATOR_LIST_PODS] = "list pods",
		[OPERATOR_LIST_EVENTS] = "list events",
		[OPERATOR_FINISH] = "finish",
	};

	return names[action];
}

/* Nobody wants loaders, or nobody may have these. */
static enum operator_action take_away(const struct operator_view *v)
{
	if (!v->daemonset || v->going || !v->ours || !v->others || v->deleted)
		return OPERATOR_FINISH;
	if (!v->dumps_asked)
		return OPERATOR_LIST_DUMPS;
	return v->confirmed ? OPERATOR_DELETE : OPERATOR_FINISH;
}

enum operator_action operator_next(const struct operator_view *v)
{
	if (v->failed)
		return OPERATOR_FINISH;
	if (!v->wanted)
		return take_away(v);
	/* its deletion is seen, and then it is made anew */
	if (v->daemonset && v->going)
		return OPERATOR_FINISH;
	/* another's, or one that cannot become ours: it is left alone, and said */
	if (v->daemonset && (!v->ours || !v->selects))
		return OPERATOR_FINISH;
	if (!v->owner_known)
		return OPERATOR_GET_OWNER;
	if (v->needs_secret && !v->secret_known)
		return v->secret_missing ? OPERATOR_CREATE_SECRET : OPERATOR_GET_SECRET;
	if (!v->daemonset && !v->daemonset_asked)
		return OPERATOR_GET_DAEMONSET;
	if (!v->holds && !v->applied)
		return OPERATOR_APPLY;
	if (!v->rolled_out && v->daemonset && !v->pods_asked)
		return OPERATOR_LIST_PODS;
	if (!v->rolled_out && v->daemonset && !v->events_asked)
		return OPERATOR_LIST_EVENTS;
	return OPERATOR_FINISH;
}
