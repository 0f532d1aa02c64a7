/* SPDX-License-Identifier: Apache-2.0 */
/*
 * client-go's tryAcquireOrRenew, cut at its requests. Times of others are compared for equality
 * alone: what counts is when this process saw them change (R3.7).
 *
 * Our own renewals count from when their write began, not from when its answer came: another
 * process sees the new renewTime at that moment at the earliest, so that it waits at least as long
 * as we believe.
 *
 * What client-go does at once is two things here: renew_ms after a renewal nothing is written any
 * more, and half of what is left of the lease later it is lost. In between is time for an API
 * server that takes half of renew_ms for each answer: such a leader pauses, and goes on.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#include "pkg/kube/kube.h"

#define MS UINT64_C(1000000)

static int copy_string(
	const struct json_object *lease, const char *path, char *out, size_t size, struct err *err)
{
	struct json_object *value = kube_get(lease, path);
	const char *text = "";

	if (value) {
		if (!json_object_is_type(value, json_type_string))
			return err_set(err, EBADMSG, "lease: %s is not a string", path);
		text = json_object_get_string(value);
	}
	if (strlen(text) >= size)
		return err_set(err, EBADMSG, "lease: %s is longer than %zu", path, size - 1);
	memcpy(out, text, strlen(text) + 1);
	return 0;
}

static int copy_int(
	const struct json_object *lease, const char *path, int64_t *ret, struct err *err)
{
	struct json_object *value = kube_get(lease, path);

	*ret = 0;
	if (!value)
		return 0;
	if (!json_object_is_type(value, json_type_int))
		return err_set(err, EBADMSG, "lease: %s is not an integer", path);
	*ret = json_object_get_int64(value);
	if (*ret < 0 || *ret > INT32_MAX)
		return err_set(err, EBADMSG, "lease: %s is out of bounds", path);
	return 0;
}

int kube_lease_parse(
	const struct json_object *lease, struct kube_lease_record *ret_record, struct err *err)
{
	struct kube_lease_record r = {0};

	if (strcmp(kube_get_string(lease, "kind"), "Lease") != 0)
		return err_set(err, EBADMSG, "lease: the object is not a Lease");
	if (copy_string(lease, "spec.holderIdentity", r.holder, sizeof(r.holder), err) < 0 ||
		copy_string(lease, "spec.acquireTime", r.acquire_time, sizeof(r.acquire_time),
			err) < 0 ||
		copy_string(lease, "spec.renewTime", r.renew_time, sizeof(r.renew_time), err) < 0 ||
		copy_int(lease, "spec.leaseDurationSeconds", &r.duration_s, err) < 0 ||
		copy_int(lease, "spec.leaseTransitions", &r.transitions, err) < 0)
		return -EBADMSG;
	*ret_record = r;
	return 0;
}

void kube_lease_config_init(struct kube_lease_config *config, const char *name)
{
	unsigned char u[16];

	if (getrandom(u, sizeof(u), 0) != sizeof(u)) {
		uint64_t t[2] = {clock_wall_ns(), clock_mono_ns()};

		memcpy(u, t, sizeof(u));
	}
	u[6] = (unsigned char)((u[6] & 0x0f) | 0x40);
	u[8] = (unsigned char)((u[8] & 0x3f) | 0x80);
	*config = (struct kube_lease_config){
		.lease_ms = 15000, .renew_ms = 10000, .retry_ms = 2000, .jitter = 1.2};
	snprintf(config->identity, sizeof(config->identity),
		"%.253s_%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", name,
		u[0], u[1], u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12],
		u[13], u[14], u[15]);
}

int kube_lease_config_check(const struct kube_lease_config *c, struct err *err)
{
	if (c->identity[0] == '\0')
		return err_set(err, EINVAL, "lease: the identity is empty");
	if (c->retry_ms == 0 || !(c->jitter > 0))
		return err_set(err, EINVAL, "lease: the retry period must be more than 0");
	if ((double)c->renew_ms <= c->jitter * (double)c->retry_ms)
		return err_set(err, EINVAL,
			"lease: the renew deadline (%u ms) must be more than %g times the retry period (%u ms)",
			c->renew_ms, c->jitter, c->retry_ms);
	if (c->lease_ms <= c->renew_ms)
		return err_set(err, EINVAL,
			"lease: its duration (%u ms) must be more than the renew deadline (%u ms)",
			c->lease_ms, c->renew_ms);
	if (c->lease_ms % 1000 != 0)
		return err_set(err, EINVAL, "lease: its duration (%u ms) must be whole seconds",
			c->lease_ms);
	return 0;
}

void kube_lease_init(struct kube_lease *l, const struct kube_lease_config *config)
{
	*l = (struct kube_lease){.config = *config};
}

static bool is_ours(const struct kube_lease *l, const struct kube_lease_record *r)
{
	return strcmp(r->holder, l->config.identity) == 0;
}

static bool same(const struct kube_lease_record *a, const struct kube_lease_record *b)
{
	return strcmp(a->holder, b->holder) == 0 && a->duration_s == b->duration_s &&
	       strcmp(a->acquire_time, b->acquire_time) == 0 &&
	       strcmp(a->renew_time, b->renew_time) == 0 && a->transitions == b->transitions;
}

static void observe(struct kube_lease *l, const struct kube_lease_record *r, uint64_t now)
{
	l->observed = *r;
	l->observed_ns = now;
	l->seen = true;
}

static struct kube_lease_record record_now(const struct kube_lease *l, uint64_t wall_ns)
{
	struct kube_lease_record r = {.duration_s = l->config.lease_ms / 1000};

	memcpy(r.holder, l->config.identity, sizeof(r.holder));
	kube_micro_time_format(wall_ns, r.renew_time);
	memcpy(r.acquire_time, r.renew_time, sizeof(r.acquire_time));
	return r;
}

static struct kube_lease_record renewal(
	const struct kube_lease *l, const struct kube_lease_record *old, uint64_t wall_ns)
{
	struct kube_lease_record r = record_now(l, wall_ns);

	if (is_ours(l, old)) {
		memcpy(r.acquire_time, old->acquire_time, sizeof(r.acquire_time));
		r.transitions = old->transitions;
	} else {
		r.transitions = old->transitions + 1;
	}
	return r;
}

/* Whether its holder may still believe to hold it. */
static bool unexpired(const struct kube_lease *l, uint64_t now)
{
	return now < l->observed_ns + (uint64_t)l->observed.duration_s * KUBE_SECOND;
}

/* ---- a try ---- */

static enum kube_lease_action finish(struct kube_lease *l, uint64_t now)
{
	if (l->leading && now >= kube_lease_deadline_ns(l)) {
		l->leading = false;
		return KUBE_LEASE_LOST;
	}
	return KUBE_LEASE_WAIT;
}

enum kube_lease_action kube_lease_try(
	struct kube_lease *l, uint64_t now, uint64_t wall_ns, struct kube_lease_record *ret_record)
{
	if (finish(l, now) == KUBE_LEASE_LOST)
		return KUBE_LEASE_LOST;
	l->try_ns = now;
	l->fast = l->leading && l->seen && is_ours(l, &l->observed) && unexpired(l, now);
	if (!l->fast)
		return KUBE_LEASE_GET;
	*ret_record = renewal(l, &l->observed, wall_ns);
	return KUBE_LEASE_UPDATE;
}

enum kube_lease_action kube_lease_got(struct kube_lease *l, const struct kube_lease_record *found,
	bool missing, uint64_t now, uint64_t wall_ns, struct kube_lease_record *ret_record)
{
	/* counts from the write, which is yet to come, not from what was read before it */
	l->try_ns = now;
	if (missing) {
		*ret_record = record_now(l, wall_ns);
		return KUBE_LEASE_CREATE;
	}
	if (!found)
		return finish(l, now);
	if (!l->seen || !same(found, &l->observed))
		observe(l, found, now);
	if (!is_ours(l, found) && found->holder[0] != '\0' && unexpired(l, now)) {
		/* Somebody took it: there is no sense in waiting for our own deadline. */
		if (l->leading) {
			l->leading = false;
			return KUBE_LEASE_LOST;
		}
		return KUBE_LEASE_WAIT;
	}
	*ret_record = renewal(l, found, wall_ns);
	return KUBE_LEASE_UPDATE;
}

enum kube_lease_action kube_lease_wrote(
	struct kube_lease *l, bool ok, const struct kube_lease_record *record, uint64_t now)
{
	if (!ok) {
		bool again = l->fast;

		l->fast = false;
		return again && now < kube_lease_deadline_ns(l) ? KUBE_LEASE_GET : finish(l, now);
	}
	observe(l, record, now);
	l->fast = false;
	l->renewed_ns = l->try_ns;
	/* It may have taken so long that it is worth nothing: then somebody else may have it next.
	 */
	if (!l->leading && now >= l->renewed_ns + l->config.renew_ms * MS)
		return KUBE_LEASE_WAIT;
	l->leading = true;
	return finish(l, now);
}

uint64_t kube_lease_delay_ns(const struct kube_lease *l, double random)
{
	uint64_t retry = l->config.retry_ms * MS;

	/* jitter keeps those who wait apart; the holder is alone */
	return l->leading ? retry : retry + (uint64_t)(random * l->config.jitter * (double)retry);
}

bool kube_lease_valid(const struct kube_lease *l, uint64_t now)
{
	return l->leading && now < l->renewed_ns + l->config.renew_ms * MS;
}

uint64_t kube_lease_deadline_ns(const struct kube_lease *l)
{
	return l->renewed_ns + kube_lease_span_ms(&l->config) * MS;
}

uint32_t kube_lease_span_ms(const struct kube_lease_config *config)
{
	return config->renew_ms + (config->lease_ms - config->renew_ms) / 2;
}

bool kube_lease_release(const struct kube_lease *l, const struct kube_lease_record *found,
	uint64_t wall_ns, struct kube_lease_record *ret_record)
{
	struct kube_lease_record r;

	if (!is_ours(l, found))
		return false;
	r = record_now(l, wall_ns);
	r.holder[0] = '\0';
	r.duration_s = 1;
	r.transitions = found->transitions;
	*ret_record = r;
	return true;
}
