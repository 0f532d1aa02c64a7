/* SPDX-License-Identifier: Apache-2.0 */
/* Which hooks to use: names, and the choice as a pure function of what the kernel offers. */
#include "pkg/probe/probe.h"

#include <errno.h>

static const struct {
	const char *name; /* for people */
	const char *key;  /* in lists of missing hooks */
	enum capture_direction direction;
	enum probe_family family;
} hooks[PROBE_HOOK_MAX] = {
	[PROBE_FENTRY] = {"fentry/tcp_sendmsg", "fentry", CAPTURE_EGRESS, PROBE_FAMILY_FENTRY},
	[PROBE_KPROBE] = {"kprobe/tcp_sendmsg", "kprobe", CAPTURE_EGRESS, PROBE_FAMILY_KPROBE},
	[PROBE_TRACEPOINT] = {"tp_btf/tcp_sendmsg_locked", "tracepoint", CAPTURE_EGRESS,
		PROBE_FAMILY_TRACEPOINT},
	[PROBE_FEXIT] = {"fexit/tcp_recvmsg", "fexit", CAPTURE_INGRESS, PROBE_FAMILY_FENTRY},
	[PROBE_CLEANUP] = {"kprobe/tcp_cleanup_rbuf", "cleanup", CAPTURE_INGRESS,
		PROBE_FAMILY_KPROBE},
	[PROBE_KRETPROBE] = {"kretprobe/tcp_recvmsg", "kretprobe", CAPTURE_INGRESS,
		PROBE_FAMILY_KPROBE},
	[PROBE_CGROUP_SKB] = {"cgroup_skb/ingress", "cgroup_skb", CAPTURE_INGRESS,
		PROBE_FAMILY_TRACEPOINT},
};

const char *probe_hook_name(enum probe_hook hook)
{
	return hook < PROBE_HOOK_MAX ? hooks[hook].name : "none";
}

enum capture_direction probe_hook_direction(enum probe_hook hook)
{
	return hooks[hook].direction;
}

enum probe_hook probe_hook_order(bool preempts, unsigned i)
{
	static const enum probe_hook kprobes_first[PROBE_HOOK_MAX] = {PROBE_KPROBE, PROBE_FENTRY,
		PROBE_TRACEPOINT, PROBE_CLEANUP, PROBE_KRETPROBE, PROBE_FEXIT, PROBE_CGROUP_SKB};

	return preempts ? kprobes_first[i] : (enum probe_hook)i;
}

bool probe_hook_in_family(enum probe_hook hook, enum probe_family family)
{
	return family == PROBE_AUTO || hooks[hook].family == family;
}

int probe_parse_missing(const char *text, uint32_t *ret_mask, struct err *err)
{
	uint32_t mask = 0;

	while (*text) {
		struct span name = span_of(text, strcspn(text, ","));
		size_t i;

		for (i = 0; i < PROBE_HOOK_MAX; i++)
			if (span_eq(name, span_str(hooks[i].key)))
				break;
		if (i == PROBE_HOOK_MAX && !span_eq(name, SPAN("ring")))
			return err_set(err, EINVAL,
				"'%.*s' is no hook: fentry, kprobe, tracepoint, fexit, cleanup, "
				"kretprobe, cgroup_skb, ring",
				(int)name.len, name.p);
		mask |= 1U << i; /* behind the hooks: PROBE_MISSING_RING */
		text += name.len;
		text += *text == ',';
	}
	*ret_mask = mask;
	return 0;
}

/* The best that works; what fails is appended to why. */
static enum probe_hook choose(const struct probe_offer *offer, enum capture_direction direction,
	enum probe_family family, struct buf *why)
{
	for (unsigned i = 0; i < PROBE_HOOK_MAX; i++) {
		enum probe_hook h = probe_hook_order(offer->preempts, i);

		if (hooks[h].direction != direction)
			continue;
		if (!probe_hook_in_family(h, family))
			continue;
		if (offer->works[h])
			return h;
		/* a list that does not fit is cut */
		if (buf_printf(
			    why, "%s%s: %s", why->len ? "; " : "", hooks[h].name, offer->reason[h]))
			continue;
	}
	return PROBE_NONE;
}

int probe_plan(const struct probe_offer *offer, enum probe_family family, bool partial,
	struct probe_plan *ret_plan, struct err *err)
{
	CLEANUP(buf_done)
	struct buf no_egress = BUF_INIT(900), no_ingress = BUF_INIT(900);
	struct probe_plan plan = {
		.egress = choose(offer, CAPTURE_EGRESS, family, &no_egress),
		.ingress = choose(offer, CAPTURE_INGRESS, family, &no_ingress),
	};

	if (plan.egress == PROBE_NONE && (plan.ingress == PROBE_NONE || !partial))
		return err_set(err, ENOTSUP, "this kernel offers no hook for what is sent: %.*s",
			(int)no_egress.len, no_egress.data ? no_egress.data : "");
	if (plan.ingress == PROBE_NONE && !partial)
		return err_set(err, ENOTSUP,
			"this kernel offers no hook for what is received: %.*s",
			(int)no_ingress.len, no_ingress.data ? no_ingress.data : "");
	/* One place for the state: both must be able to use it. */
	plan.socket_storage = (plan.egress == PROBE_NONE || offer->storage[plan.egress]) &&
			      (plan.ingress == PROBE_NONE || offer->storage[plan.ingress]);
	*ret_plan = plan;
	return 0;
}
