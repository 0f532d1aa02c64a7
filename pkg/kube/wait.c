/* SPDX-License-Identifier: Apache-2.0 */
#include "pkg/kube/kube.h"

uint64_t kube_backoff_next(struct kube_backoff *b, double random)
{
	uint64_t d = b->next_ns ? b->next_ns : b->initial_ns;

	d = MIN(d, b->cap_ns);
	b->next_ns = d > b->cap_ns / 2 ? b->cap_ns : d * 2;
	return d + (uint64_t)(random * b->jitter * (double)d);
}

void kube_backoff_reset(struct kube_backoff *b)
{
	b->next_ns = 0;
}

void kube_bucket_init(struct kube_bucket *b, double rate, double burst, uint64_t now)
{
	*b = (struct kube_bucket){.rate = rate, .burst = burst, .tokens = burst, .at_ns = now};
}

static void fill(struct kube_bucket *b, uint64_t now)
{
	if (now <= b->at_ns)
		return;
	b->tokens += b->rate * (double)(now - b->at_ns) / (double)KUBE_SECOND;
	if (b->tokens > b->burst)
		b->tokens = b->burst;
	b->at_ns = now;
}

static uint64_t until(const struct kube_bucket *b, double tokens)
{
	/* rounded up: at that time it is there for certain */
	return (uint64_t)(tokens / b->rate * (double)KUBE_SECOND) + 1;
}

uint64_t kube_bucket_take(struct kube_bucket *b, uint64_t now)
{
	fill(b, now);
	if (b->tokens < 1)
		return until(b, 1 - b->tokens);
	b->tokens -= 1;
	return 0;
}

uint64_t kube_bucket_reserve(struct kube_bucket *b, uint64_t now)
{
	fill(b, now);
	b->tokens -= 1;
	return b->tokens < 0 ? until(b, -b->tokens) : 0;
}
