/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "pkg/flow/internal.h"

/* What is remembered of a request. */
#define METHOD_MAX    64
#define PATH_MAX_KEPT 2048
#define HOST_MAX_KEPT 255

/* Nearly all requests fit in one of these, and reuse it. */
#define PENDING_SMALL 256
#define FREE_MAX      1024

void pair_free(struct flow *flow, struct conn *c, struct pending *p)
{
	flow_uncharge(flow, c, p->size);
	if (p->size > PENDING_SMALL || flow->n_free_pending >= FREE_MAX) {
		free(p);
		return;
	}
	p->next = flow->free_pending;
	flow->free_pending = p;
	flow->n_free_pending++;
}

/*
 * The request's place: the sequence number of its first byte, and how far the client's initial
 * sequence number is from the server's. Both ends know both, and no translation of addresses
 * changes them. The client is who opened the connection, all but always, and is corrected for it.
 * The rest spreads the bits (splitmix64's last steps, a bijection): two exchanges with one id would
 * have the same place.
 */
uint64_t pair_exchange_id(const struct conn *c, unsigned dir, uint32_t seq)
{
	uint32_t apart = dir == CAPTURE_EGRESS ? c->isn_difference + 1 : -c->isn_difference;
	uint64_t id = (uint64_t)apart << 32 | seq;

	if (!c->isn_known)
		return 0;
	id = (id ^ id >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	id = (id ^ id >> 27) * UINT64_C(0x94d049bb133111eb);
	id ^= id >> 31;
	return id ? id : 1;
}

static struct pending *pending_new(struct flow *flow, struct conn *c, size_t text)
{
	size_t size = MAX(sizeof(struct pending) + text, (size_t)PENDING_SMALL);
	struct pending *p;

	if (!flow_charge_hard(flow, c, size))
		return NULL;
	if (size == PENDING_SMALL && flow->free_pending) {
		p = flow->free_pending;
		flow->free_pending = p->next;
		flow->n_free_pending--;
	} else {
		p = flow_realloc(NULL, size);
		if (!p) {
			flow_uncharge(flow, c, size);
			return NULL;
		}
	}
	p->next = NULL;
	p->size = (uint32_t)size;
	return p;
}

static struct pending *pop(struct conn *c)
{
	struct pending *p = c->first;

	c->first = p->next;
	if (!c->first)
		c->last = NULL;
	c->n_pending--;
	return p;
}

void pair_forget_all(struct flow *flow, struct conn *c)
{
	while (c->first) {
		pair_free(flow, c, pop(c));
		c->forgotten++;
	}
}

void pair_retract(struct flow *flow, struct conn *c, unsigned dir)
{
	struct pending **at = &c->first, *before = NULL, *last = c->last;

	if (c->missed) {
		c->missed = false;
		c->forgotten--;
		return;
	}
	if (!last || last->direction != dir)
		return;
	while (*at != last) {
		before = *at;
		at = &before->next;
	}
	*at = NULL;
	c->last = before;
	c->n_pending--;
	pair_free(flow, c, last);
}

/* A request that cannot be remembered. Those before it are forgotten as well: the order is what
 * counts. */
static void forget_this_too(struct flow *flow, struct conn *c)
{
	flow->stats.pending_dropped += c->n_pending + 1;
	pair_forget_all(flow, c);
	c->forgotten++;
}

static void cut(struct span *s, size_t max)
{
	s->len = MIN(s->len, max);
}

void pair_push(struct flow *flow, struct conn *c, unsigned dir, const struct message *m)
{
	const struct http_head *h = &m->head;
	struct span method = span_of(m->bytes + h->method.off, h->method.len);
	struct span path = span_of(m->bytes + h->target.off, h->target.len);
	struct span host = {0};
	struct pending *p;

	if (method.len == 0)
		return;
	c->stray = c->missed = false;
	if (c->unsure && c->forgotten > 0 && !c->crowded) {
		/* behind one that is missing: it may be more than one */
		pair_forget_all(flow, c);
		c->forgotten++;
		return;
	}
	if (c->unsure && (c->crowded || c->first)) {
		pair_forget_all(flow, c);
		c->forgotten = 0;
		c->missed = false;
		c->crowded = true;
		return;
	}
	if (flow->relieving) {
		forget_this_too(flow, c);
		return;
	}
	if (h->known[HTTP_HOST] >= 0) {
		const struct http_field *f = &h->fields[h->known[HTTP_HOST]];

		host = span_of(m->bytes + f->value.off, f->value.len);
	}
	cut(&method, METHOD_MAX);
	cut(&path, PATH_MAX_KEPT);
	cut(&host, HOST_MAX_KEPT);
	if (c->n_pending >= flow->options.max_pending) {
		pair_free(flow, c, pop(c));
		c->forgotten++;
		flow->stats.pending_dropped++;
	}
	p = pending_new(flow, c, method.len + path.len + host.len);
	if (!p) {
		forget_this_too(flow, c);
		return;
	}
	p->mono_ns = m->when.mono_ns;
	p->direction = (uint8_t)dir;
	p->left_out = m->verdict != FLOW_KEEP;
	p->exchange_id = m->exchange_id;
	p->method_len = (uint16_t)method.len;
	p->path_len = (uint16_t)path.len;
	p->host_len = (uint16_t)host.len;
	memcpy(p->text, method.p, method.len);
	memcpy(p->text + method.len, path.p, path.len);
	if (host.len > 0)
		memcpy(p->text + method.len + path.len, host.p, host.len);
	if (c->last)
		c->last->next = p;
	else
		c->first = p;
	c->last = p;
	c->n_pending++;
}

void pair_take(struct flow *flow, struct conn *c, unsigned dir, struct message *m)
{
	bool interim = m->head.status >= 100 && m->head.status < 200;

	if (c->forgotten > 0) {
		if (!interim) {
			c->forgotten--;
			c->missed = false;
		}
		return;
	}
	if (c->first && c->first->direction != dir) {
		m->borrowed = interim;
		m->request = interim ? c->first : pop(c);
		if (m->request->left_out)
			m->verdict = FLOW_LEAVE_OUT;
	}
	if (!interim) {
		c->unsure = c->unsure && !m->request;
		c->crowded = false;
		c->stray |= !m->request;
	}
}

void pair_lost(struct flow *flow, struct conn *c, enum stream_role role)
{
	/* The responses to these may be among what was lost. Lost requests come behind those known.
	 */
	if (role != ROLE_REQUESTS) {
		pair_forget_all(flow, c);
		c->forgotten = 0;
		c->missed = false;
	}
	c->unsure = true;
}

void pair_missed(struct flow *flow, struct conn *c)
{
	c->unsure = true;
	/* it has been answered already, most likely */
	if (c->stray || c->crowded)
		return;
	/* Its answer comes before those to requests behind it. */
	pair_forget_all(flow, c);
	c->forgotten++;
	c->missed = true;
}

void pair_joined(struct flow *flow, struct conn *c)
{
	/* one outstanding request is answered next, most likely; of several it cannot be told which
	 */
	if (c->n_pending > 1) {
		pair_forget_all(flow, c);
		c->forgotten = 0;
		c->missed = false;
		c->crowded = true;
	}
	c->unsure = true;
}
