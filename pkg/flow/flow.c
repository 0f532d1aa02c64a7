/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#include "pkg/flow/internal.h"

#define TABLE_FIRST 256
/* A connection moves up no more often: its neighbours in the list are seldom in the cache. */
#define LRU_NS UINT64_C(10000000)
/* What is on its way of a connection that the kernel side was told to ignore has come by then. */
#define IGNORED_NS UINT64_C(10000000000)

/* ---- memory ---- */

void *(*flow_realloc)(void *old, size_t size) = realloc;

static void *zeroed(size_t n, size_t size)
{
	void *p = flow_realloc(NULL, n * size);

	return p ? memset(p, 0, n * size) : NULL;
}

bool flow_charge(struct flow *flow, struct conn *c, size_t n)
{
	if (n > flow->options.buffer_bytes - flow->stats.buffered)
		return false;
	if (c->charged == 0 && n > 0)
		link_after(flow->busy.prev, &c->busy);
	c->charged += n;
	flow->stats.buffered += n;
	return true;
}

void flow_uncharge(struct flow *flow, struct conn *c, size_t n)
{
	c->charged -= n;
	flow->stats.buffered -= n;
	if (c->charged == 0)
		link_remove(&c->busy);
}

/* All that c holds, for the memory. */
static void relieve(struct flow *flow, struct conn *c)
{
	flow->stats.over_memory++;
	flow->relieving = true;
	for (unsigned dir = 0; dir < 2; dir++) {
		struct stream *s = &c->streams[dir];
		uint32_t end = s->held_tail ? s->held_tail->seq + s->held_tail->length : 0;
		bool held = s->held;

		message_give_up(flow, c, dir, FLOW_ERROR_MEMORY);
		if (!held)
			continue;
		order_drop(flow, c, dir);
		message_lose(flow, c, dir);
		s->started = true;
		s->next = end;
	}
	flow->stats.pending_dropped += c->n_pending;
	pair_forget_all(flow, c);
	flow->relieving = false;
}

bool flow_charge_hard(struct flow *flow, struct conn *c, size_t n)
{
	if (likely(flow_charge(flow, c, n)))
		return true;
	if (n > flow->options.buffer_bytes || flow->relieving)
		return false;
	for (;;) {
		struct link *l = flow->busy.next;

		if (l == &c->busy)
			l = l->next;
		if (l == &flow->busy)
			return false;
		relieve(flow, LINK_OF(l, struct conn, busy));
		if (flow_charge(flow, c, n))
			return true;
	}
}

/* ---- connections ---- */

/* Nobody who chooses ids (a replayed file) can choose where they collide. */
static size_t hash(const struct flow *flow, uint64_t id)
{
	unsigned __int128 x = (unsigned __int128)(id ^ flow->seed[0]) * (flow->seed[1] | 1);
	uint64_t h = (uint64_t)x ^ (uint64_t)(x >> 64);

	x = (unsigned __int128)(h ^ flow->seed[1]) * UINT64_C(0x9e3779b97f4a7c15);
	h = (uint64_t)x ^ (uint64_t)(x >> 64);
	return (size_t)h & (flow->table_size - 1);
}

static struct conn *find(struct flow *flow, uint64_t id)
{
	struct conn *c;

	/* a call's records come one behind the other */
	if (flow->last && flow->last->id == id)
		return flow->last;
	for (c = flow->table[hash(flow, id)]; c && c->id != id; c = c->hash_next)
		;
	return c;
}

static void grow(struct flow *flow)
{
	size_t old_size = flow->table_size;
	struct conn **old = flow->table, **table = zeroed(old_size * 2, sizeof(*table));

	if (!table)
		return; /* longer chains, then */
	flow->table = table;
	flow->table_size = old_size * 2;
	for (size_t i = 0; i < old_size; i++) {
		while (old[i]) {
			struct conn *c = old[i], **at = &table[hash(flow, c->id)];

			old[i] = c->hash_next;
			c->hash_next = *at;
			*at = c;
		}
	}
	free(old);
}

static void conn_free(struct flow *flow, struct conn *c)
{
	struct conn **at = &flow->table[hash(flow, c->id)];

	for (unsigned dir = 0; dir < 2; dir++) {
		order_drop(flow, c, dir);
		message_drop(flow, c, dir);
	}
	pair_forget_all(flow, c);
	while (*at != c)
		at = &(*at)->hash_next;
	*at = c->hash_next;
	link_remove(&c->lru);
	link_remove(&c->ignored);
	if (flow->last == c)
		flow->last = NULL;
	c->hash_next = flow->free_conns;
	flow->free_conns = c;
	flow->stats.connections--;
}

/* Everything that is unfinished goes out as it is. */
static void conn_give_up(struct flow *flow, struct conn *c, const char *error)
{
	/* the side of the requests first */
	unsigned first = c->streams[1].role == ROLE_REQUESTS;

	for (unsigned i = 0; i < 2; i++) {
		order_flush(flow, c, i ^ first);
		message_give_up(flow, c, i ^ first, error);
	}
	conn_free(flow, c);
}

static struct conn *conn_alloc(struct flow *flow)
{
	struct conn *c;

	if (!flow->free_conns) {
		struct slab *slab = flow_realloc(NULL, sizeof(*slab));

		if (!slab)
			return NULL;
		slab->next = flow->slabs;
		flow->slabs = slab;
		for (size_t i = 0; i < SLAB_CONNS; i++) {
			slab->conns[i].hash_next = flow->free_conns;
			flow->free_conns = &slab->conns[i];
		}
	}
	c = flow->free_conns;
	flow->free_conns = c->hash_next;
	return c;
}

static void set_peer(struct dump_peer *peer, uint16_t family, const uint8_t *addr, uint16_t port)
{
	if (!inet_ntop(family, addr, peer->ip, sizeof(peer->ip)))
		peer->ip[0] = '\0';
	peer->ip_len = (uint8_t)strlen(peer->ip);
	peer->port = port;
}

static struct conn *conn_new(struct flow *flow, const struct capture_record *record)
{
	struct conn *c, **at;

	if (flow->stats.connections >= flow->options.max_connections) {
		flow->stats.evicted++;
		conn_give_up(flow, LINK_OF(flow->lru.prev, struct conn, lru), FLOW_ERROR_EVICTED);
	}
	c = conn_alloc(flow);
	if (!c)
		return NULL;
	memset(c, 0, sizeof(*c));
	c->id = record->connection;
	c->lru_ns = record->time_ns;
	link_init(&c->lru);
	link_init(&c->busy);
	link_init(&c->ignored);
	link_init(&c->holding);
	set_peer(&c->dump.local, record->family, record->local_addr, record->local_port);
	set_peer(&c->dump.remote, record->family, record->remote_addr, record->remote_port);
	if (flow->stats.connections >= flow->table_size)
		grow(flow);
	at = &flow->table[hash(flow, c->id)];
	c->hash_next = *at;
	*at = c;
	link_after(&flow->lru, &c->lru);
	flow->stats.connections++;
	flow->stats.connections_total++;
	return c;
}

/* Who has the connection now: it may be handed from one process to another. */
static void conn_owner(struct conn *c, const struct capture_record *record)
{
	if (unlikely(record->pid != c->dump.pid && record->pid != 0) ||
		unlikely(c->dump.comm[0] == '\0' && record->comm[0] != '\0')) {
		c->dump.pid = record->pid ? record->pid : c->dump.pid;
		memcpy(c->dump.comm, record->comm, sizeof(c->dump.comm));
	}
	/* a process may be moved, too */
	if (record->cgroup_id != 0)
		c->dump.cgroup_id = record->cgroup_id;
	if (unlikely(!c->isn_known) && record->flags & CAPTURE_F_ISN) {
		c->isn_known = true;
		c->isn_difference = record->isn_difference;
	}
	if (unlikely(c->dump.interface[0] == '\0' && record->interface[0] != '\0'))
		memcpy(c->dump.interface, record->interface, sizeof(c->dump.interface));
}

/* ---- public ---- */

void flow_options_default(struct flow_options *options)
{
	*options = (struct flow_options){
		.max_connections = 65536,
		.body_bytes = 4096,
		.head_bytes = 65536 + 8192,
		.max_fields = 256,
		.buffer_bytes = 64 << 20,
		.max_pending = 64,
		.hold_ms = 1000,
		.idle_ms = 2 * 60 * 60 * 1000,
	};
}

int flow_new(const struct flow_options *options, flow_emit_fn emit, void *ctx,
	struct flow **ret_flow, struct err *err)
{
	CLEANUP(flow_freep)
	struct flow *flow = NULL;

	if (options->max_connections == 0)
		return err_set(err, EINVAL, "room for at least one connection is needed");
	if (options->head_bytes == 0 || options->head_bytes > 1 << 30)
		return err_set(err, EINVAL, "the longest head must be of 1 byte to 1 GiB");
	if (options->max_fields == 0 || options->max_fields > INT16_MAX)
		return err_set(err, EINVAL, "a message can have 1 to %d header fields", INT16_MAX);
	if (options->max_pending == 0)
		return err_set(err, EINVAL, "room for at least one outstanding request is needed");

	flow = zeroed(1, sizeof(*flow));
	if (!flow)
		return err_set(err, ENOMEM, "out of memory");
	link_init(&flow->lru);
	link_init(&flow->busy);
	link_init(&flow->holding);
	link_init(&flow->ignored);
	flow->options = *options;
	flow->emit = emit;
	flow->emit_ctx = ctx;
	if (getrandom(flow->seed, sizeof(flow->seed), GRND_NONBLOCK) != sizeof(flow->seed)) {
		flow->seed[0] = clock_mono_ns();
		flow->seed[1] = clock_wall_ns();
	}
	flow->table_size = TABLE_FIRST;
	flow->table = zeroed(flow->table_size, sizeof(*flow->table));
	flow->fields = zeroed(options->max_fields, sizeof(*flow->fields));
	flow->fields_relieved = zeroed(options->max_fields, sizeof(*flow->fields_relieved));
	flow->body = flow_realloc(NULL, (size_t)options->body_bytes + 1);
	if (!flow->table || !flow->fields || !flow->fields_relieved || !flow->body)
		return err_set(err, ENOMEM, "out of memory");
	*ret_flow = TAKE(flow);
	return 0;
}

void flow_free(struct flow *flow)
{
	if (!flow)
		return;
	while (!link_alone(&flow->lru))
		conn_free(flow, LINK_OF(flow->lru.next, struct conn, lru));
	while (flow->free_pending) {
		CLEANUP(freep)
		struct pending *p = flow->free_pending;

		flow->free_pending = p->next;
	}
	while (flow->slabs) {
		CLEANUP(freep)
		struct slab *slab = flow->slabs;

		flow->slabs = slab->next;
	}
	free(flow->table);
	free(flow->fields);
	free(flow->fields_relieved);
	free(flow->body);
	free(flow);
}

void flow_freep(struct flow **flow)
{
	flow_free(*flow);
	*flow = NULL;
}

void flow_on_tunnel(struct flow *flow, flow_tunnel_fn fn, void *ctx)
{
	flow->tunnel = fn;
	flow->tunnel_ctx = ctx;
}

void flow_on_head(struct flow *flow, flow_head_fn fn, void *ctx)
{
	flow->head = fn;
	flow->head_ctx = ctx;
}

static bool record_ok(const struct capture_record *r)
{
	if (r->version != CAPTURE_VERSION || r->captured > CAPTURE_DATA_MAX ||
		r->size != sizeof(*r) + r->captured || r->captured > r->length ||
		r->connection == 0 || (r->family != AF_INET && r->family != AF_INET6) ||
		r->comm[sizeof(r->comm) - 1] != '\0' ||
		r->interface[sizeof(r->interface) - 1] != '\0')
		return false;
	switch (r->type) {
	case CAPTURE_DATA:
		return r->direction < CAPTURE_BOTH && r->flags & CAPTURE_F_SEQ;
	case CAPTURE_END:
		return r->direction <= CAPTURE_BOTH && r->captured == 0;
	}
	return false;
}

static void end(struct flow *flow, struct conn *c, const struct capture_record *record)
{
	unsigned first = c->streams[1].role == ROLE_REQUESTS;

	for (unsigned i = 0; i < 2; i++) {
		unsigned dir = i ^ first;

		if (record->direction == CAPTURE_BOTH ? c->streams[dir].ended
						      : record->direction != dir)
			continue;
		if (c->left == LEFT_IGNORED)
			c->streams[dir].ended = true;
		else
			order_end(flow, c, record, dir);
	}
	if (c->streams[0].ended && c->streams[1].ended)
		conn_free(flow, c);
}

static void ignored(struct flow *flow, struct conn *c, const struct capture_record *record)
{
	flow->stats.bytes_left_out += record->captured;
	link_remove(&c->ignored);
	link_after(flow->ignored.prev, &c->ignored);
}

void flow_record(struct flow *flow, const struct capture_record *record, const char *data,
	int64_t wall_offset_ns)
{
	struct when when = {
		.mono_ns = record->time_ns, .wall_ns = record->time_ns + (uint64_t)wall_offset_ns};
	struct conn *c;

	flow->stats.records++;
	if (unlikely(!record_ok(record))) {
		flow->stats.records_bad++;
		return;
	}
	flow->stats.bytes += record->captured;
	c = find(flow, record->connection);
	if (unlikely(!c)) {
		if (record->type == CAPTURE_END)
			return;
		c = conn_new(flow, record);
		if (!c) {
			flow->stats.bytes_unparsed += record->captured;
			flow->stats.over_memory++;
			return;
		}
	}
	c->last_ns = record->time_ns;
	flow->last = c;
	/* also if time goes backwards */
	if (record->time_ns - c->lru_ns >= LRU_NS) {
		c->lru_ns = record->time_ns;
		link_remove(&c->lru);
		link_after(&flow->lru, &c->lru);
	}
	conn_owner(c, record);
	if (unlikely(record->type == CAPTURE_END))
		end(flow, c, record);
	else if (unlikely(c->left == LEFT_IGNORED))
		ignored(flow, c, record);
	else
		order_data(flow, c, record, data, when);
}

void flow_tick(struct flow *flow, uint64_t now_ns)
{
	const uint64_t hold_ns = flow->options.hold_ms * UINT64_C(1000000);
	const uint64_t idle_ns = flow->options.idle_ms * UINT64_C(1000000);

	/* Both lists begin with who waits longest. */
	while (!link_alone(&flow->holding)) {
		struct conn *c = LINK_OF(flow->holding.next, struct conn, holding);

		if (now_ns <= c->holding_since_ns || now_ns - c->holding_since_ns <= hold_ns)
			break;
		order_expire(flow, c, 0, now_ns);
		order_expire(flow, c, 1, now_ns);
		if (!link_alone(&c->holding)) {
			c->holding_since_ns = now_ns;
			link_remove(&c->holding);
			link_after(flow->holding.prev, &c->holding);
		}
	}
	while (!link_alone(&flow->ignored)) {
		struct conn *c = LINK_OF(flow->ignored.next, struct conn, ignored);

		if (now_ns <= c->last_ns || now_ns - c->last_ns <= IGNORED_NS)
			break;
		conn_free(flow, c);
	}
	while (idle_ns > 0 && !link_alone(&flow->lru)) {
		struct conn *c = LINK_OF(flow->lru.prev, struct conn, lru);

		if (now_ns <= c->last_ns || now_ns - c->last_ns <= idle_ns)
			break;
		flow->stats.expired++;
		conn_give_up(flow, c, FLOW_ERROR_EXPIRED);
	}
}

void flow_finish(struct flow *flow)
{
	while (!link_alone(&flow->lru))
		conn_give_up(flow, LINK_OF(flow->lru.prev, struct conn, lru), FLOW_ERROR_STOPPED);
}

const struct flow_stats *flow_stats(const struct flow *flow)
{
	return &flow->stats;
}
