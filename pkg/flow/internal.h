/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of this room share.
 *
 *   flow.c     records are checked, connections found, made, given up; memory
 *   order.c    one direction's records become a stream of bytes and gaps, in order
 *   message.c  the stream becomes messages
 *   pair.c     a response finds its request
 */
#ifndef EBPFDUMP_FLOW_INTERNAL_H
#define EBPFDUMP_FLOW_INTERNAL_H

#include "pkg/flow/flow.h"

/* ---- intrusive lists: circular, with a head; a link that is in no list points at itself ---- */

struct link {
	struct link *next, *prev;
};

#define LINK_OF(link, type, member) ((type *)(void *)((char *)(link)-offsetof(type, member)))

static inline void link_init(struct link *l)
{
	l->next = l->prev = l;
}

static inline bool link_alone(const struct link *l)
{
	return l->next == l;
}

static inline void link_remove(struct link *l)
{
	l->prev->next = l->next;
	l->next->prev = l->prev;
	link_init(l);
}

static inline void link_after(struct link *at, struct link *l)
{
	l->prev = at;
	l->next = at->next;
	at->next->prev = l;
	at->next = l;
}

/* ---- a connection ---- */

struct when {
	uint64_t mono_ns;
	uint64_t wall_ns;
};

/* A packet that came before those that precede it. */
struct held {
	struct held *next;
	struct when when;
	uint32_t seq;
	uint32_t length;
	uint32_t captured;
	char data[];
};

/* A request that waits for its response. */
struct pending {
	struct pending *next;
	uint64_t mono_ns;
	uint32_t size; /* of all this; charged */
	uint16_t method_len, path_len, host_len;
	uint8_t direction;
	bool left_out;
	uint64_t exchange_id;
	char text[];
};

struct message {
	struct http_head head;
	struct when when;  /* of the first byte */
	const char *bytes; /* the head */
	uint64_t raw;	   /* captured bytes */
	uint64_t body_bytes;
	uint64_t gap_bytes;
	const char *error;    /* flow's own */
	struct span body;     /* what is kept */
	bool scratch;	      /* body is in flow->body */
	bool body_cut;	      /* no memory to keep more of the body */
	bool borrowed;	      /* request stays in the queue (1xx) */
	uint8_t verdict;      /* enum flow_verdict */
	uint32_t seq;	      /* of the first byte, once the head is complete */
	uint64_t exchange_id; /* if it is a request; 0: unknown */
	struct pending *request;
};

/* A message whose head is not complete. */
struct partial {
	struct when when;
	size_t scanned;
	uint32_t len, cap;
	char data[];
};

/* A message whose body is not complete. The fields, then the bytes of the head follow. */
struct parked {
	struct message m;
	char *body;
	uint32_t body_cap;
	uint32_t size; /* of all this; charged */
	struct http_field fields[];
};

enum stream_state {
	STREAM_LOST, /* looks for the next message */
	STREAM_IDLE, /* between messages */
	STREAM_HEAD, /* partial */
	STREAM_BODY, /* parked; without it, the message has been given up already */
};

enum stream_role { ROLE_UNKNOWN, ROLE_REQUESTS, ROLE_RESPONSES };

struct stream {
	uint32_t next; /* sequence number that follows what came */
	uint32_t at;   /* sequence number of the byte that is looked at */
	uint8_t state;
	uint8_t role;
	bool started; /* next is known */
	bool ended;
	bool strict;	/* maybe out of step: only what is certainly a head is one */
	bool undecided; /* the partial head may turn out to be none */
	uint16_t n_held;
	struct http_body body;
	union {
		struct partial *partial;
		struct parked *parked;
	};
	struct held *held, *held_tail; /* by seq */
	uint64_t held_since_ns;	       /* how long `next` has been missing */
};

enum left { LEFT_NOT, LEFT_TUNNEL, LEFT_IGNORED };

struct conn {
	uint64_t id;
	struct conn *hash_next;
	struct link lru;
	struct link busy;    /* in flow->busy while charged > 0 */
	struct link ignored; /* in flow->ignored if LEFT_IGNORED */
	struct link holding; /* in flow->holding while packets are held */
	uint64_t last_ns;    /* of the last record */
	uint64_t lru_ns;     /* of the last one that moved it to the front of flow->lru */
	uint64_t holding_since_ns;
	uint64_t charged;
	struct pending *first, *last;
	uint32_t n_pending;
	uint32_t forgotten; /* outstanding requests that came before `first` */
	bool unsure;	    /* messages may be missing: pair only what is alone */
	bool crowded;	    /* unsure, and more than one request is outstanding */
	bool stray;	    /* a response without a request came since the last request */
	bool missed;	    /* the last of `forgotten` is one that pair_missed() assumed */
	bool isn_known;
	uint32_t isn_difference;  /* as its records have it, if isn_known */
	uint8_t left;		  /* enum left: no message is looked for any more */
	struct stream streams[2]; /* enum capture_direction */
	struct dump_conn dump;
};

#define SLAB_CONNS 64

struct slab {
	struct slab *next;
	struct conn conns[SLAB_CONNS];
};

struct flow {
	struct flow_options options;
	flow_emit_fn emit;
	void *emit_ctx;
	flow_tunnel_fn tunnel;
	void *tunnel_ctx;
	flow_head_fn head;
	void *head_ctx;
	struct flow_stats stats;
	struct conn **table;
	size_t table_size; /* a power of two */
	uint64_t seed[2];
	bool relieving;	     /* giving up others' work for memory */
	struct conn *last;   /* of the last record; NULL: unknown */
	struct link lru;     /* most recent first, to within LRU_NS */
	struct link busy;    /* longest busy first */
	struct link holding; /* longest holding first */
	struct link ignored; /* longest silent first */
	struct slab *slabs;
	struct conn *free_conns; /* by hash_next */
	struct pending *free_pending;
	uint32_t n_free_pending;
	struct http_field *fields;	    /* of the message in hand */
	struct http_field *fields_relieved; /* of a head given up while another is in hand */
	char *body;	 /* of the message in hand, if it comes in several pieces */
	char error[256]; /* two errors in one */
};

/* flow.c: memory */

/* All memory of the room comes from here: tests let it fail. */
extern void *(*flow_realloc)(void *old, size_t size);

/* Takes n bytes off the budget; false if they are not there. */
bool flow_charge(struct flow *flow, struct conn *c, size_t n) MUST_CHECK;
/* Gives up the longest unfinished work of other connections if it must. */
bool flow_charge_hard(struct flow *flow, struct conn *c, size_t n) MUST_CHECK;
void flow_uncharge(struct flow *flow, struct conn *c, size_t n);

/* order.c */

void order_data(struct flow *flow, struct conn *c, const struct capture_record *record,
	const char *data, struct when when);
/* The end of a direction: what is held, then what is missing. */
void order_end(
	struct flow *flow, struct conn *c, const struct capture_record *record, unsigned dir);
/* Gives up the bytes that are missing before what is held. */
void order_flush(struct flow *flow, struct conn *c, unsigned dir);
/* The same, if they have been missing for too long. */
void order_expire(struct flow *flow, struct conn *c, unsigned dir, uint64_t now_ns);
/* Forgets what is held. */
void order_drop(struct flow *flow, struct conn *c, unsigned dir);

/* message.c */

/* The beginning of a stream: `synced` if its first byte begins a message. */
void message_start(struct flow *flow, struct conn *c, unsigned dir, bool synced);
void message_bytes(struct flow *flow, struct conn *c, unsigned dir, const struct when *when,
	const char *p, size_t len);
void message_gap(struct flow *flow, struct conn *c, unsigned dir, uint64_t n);
/* The stream is over. */
void message_end(struct flow *flow, struct conn *c, unsigned dir, bool reset);
/* Emits what is unfinished as far as it goes. The stream looks for its next message, but if the
 * framing is known, behind the end of this one. */
void message_give_up(struct flow *flow, struct conn *c, unsigned dir, const char *error);
/* The framing is worth nothing any more. */
void message_lose(struct flow *flow, struct conn *c, unsigned dir);
/* Frees without emitting. */
void message_drop(struct flow *flow, struct conn *c, unsigned dir);
/* Whether the first byte of a stream whose past is unknown may begin a message. */
bool message_begins(const char *p, size_t len);

/* pair.c */

/* The id of the exchange whose request goes this way and begins there. */
uint64_t pair_exchange_id(const struct conn *c, unsigned dir, uint32_t seq);
void pair_push(struct flow *flow, struct conn *c, unsigned dir, const struct message *m);
/* Sets m->request, if there is one. */
void pair_take(struct flow *flow, struct conn *c, unsigned dir, struct message *m);
/* Bytes are lost in which requests (responses) may have been. */
void pair_lost(struct flow *flow, struct conn *c, enum stream_role role);
/* A request is missing in the stream of requests, between two messages. */
void pair_missed(struct flow *flow, struct conn *c);
/* A direction is joined in the middle. */
void pair_joined(struct flow *flow, struct conn *c);
/* The last request of this direction never left. */
void pair_retract(struct flow *flow, struct conn *c, unsigned dir);
void pair_forget_all(struct flow *flow, struct conn *c);
void pair_free(struct flow *flow, struct conn *c, struct pending *p);

#endif
