/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The callback: what is sent when, and what becomes of it.
 *
 * A message waits in the queue, or in the spool behind it, until it is its turn; a parcel is what
 * one request carries: a message, or a batch. What becomes of a parcel:
 *
 *	queue | spool ─▶ out ─▶ delivered | refused
 *	                 ▲ └─failed─▶ waiting (for its backoff)
 *	                 └──────────────┘
 *
 * Order. Messages of a connection are in one lane, and a lane has one parcel out at a time. A
 * parcel that failed leaves its lane: others go on meanwhile, so that one that can never be
 * delivered holds up nothing. The spool is behind the queue: while there is anything in it, what
 * is new goes to its end, and nothing is read from it before the queue is empty.
 *
 * When nothing gets through any more (`down`: several requests in a row failed, or none of those
 * out was answered for a while), parcels are not tried one after another: one is, as a probe, at
 * least every PROBE_MOST_MS, on a connection of its own, alternately a new one and one that
 * failed. The first answer ends that. So a dead receiver is asked seldom, and fresh messages
 * arrive soon when it is back, whatever backoff the failed ones have reached.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/random.h>

#include "pkg/sink/internal.h"
#include "pkg/sink/queue.h"
#include "pkg/sink/retry.h"
#include "pkg/sink/secrets.h"
#include "pkg/sink/spool.h"
#include "pkg/sink/transport.h"

#define NEVER	       UINT64_MAX
#define NS_PER_MS      UINT64_C(1000000)
#define WAITING_MAX    64u   /* failed parcels; then only they are tried */
#define PROBES_MAX     6u    /* requests that may be out beyond `concurrency`: probes, or stalled */
#define PROBE_MOST_MS  2500u /* half of what a receiver that is back should wait for news */
#define STALLED_MS     2500u /* without any answer, all requests out: down */
#define SPOOL_MESSAGES 256u  /* read at a time, to be sent one by one */
#define SPOOL_BYTES    ((size_t)256 << 10)
#define SPOOL_SAID_MS  60000u /* how often a failing disk is said */
#define TICK_MS	       1000u

const double sink_latency_bounds[SINK_LATENCY_BUCKETS] = {
	0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10};

/* A batch of the spool that is handed out. */
struct open_batch {
	struct spool_batch *batch; /* NULL: unused */
	size_t done;		   /* messages whose fate is decided */
	size_t handed;		   /* messages that are in parcels, or were */
};

enum state { UNUSED, OUT, WAITING };

struct parcel {
	struct transport_request request;
	enum state state;
	uint32_t lane;
	bool in_lane; /* the lane is busy with it */
	uint32_t messages;
	size_t bytes;
	uint64_t seq, queued_ns;  /* of the first message */
	struct queue_range range; /* unless batch */
	struct queue_cursor cursor;
	uint32_t left;		  /* behind the cursor */
	struct open_batch *batch; /* NULL: from the queue */
	uint32_t attempts;	  /* that failed */
	uint64_t due_ns;
	uint64_t began_ns; /* of the present one */
	uint64_t secrets;  /* callback.secrets_read when it began */
	bool stalled;
	char key[SPOOL_KEY_MAX + 24];
};

struct callback {
	struct sink sink;
	struct loop *loop;
	struct loop_source *tick;
	struct transport *transport;
	struct secrets *secrets;
	struct queue queue;
	struct spool *spool;
	char *shown_url; /* without query */
	uint32_t concurrency, batch_messages;
	size_t batch_bytes;
	uint64_t batch_wait_ns;
	enum sink_when_full when_full;
	uint64_t spool_max;
	char instance[17]; /* of Idempotency-Key */
	uint64_t parcels_made;
	uint64_t random;

	uint64_t secrets_read; /* how often there were new ones */
	uint32_t n_parcels, n_out, n_stalled, n_waiting;
	struct parcel *parcels;
	uint32_t busy[QUEUE_LANES_MAX];
	uint32_t next_lane;

	/* the spool */
	bool spooling;	     /* what is new goes there */
	uint64_t spool_left; /* messages not handed out */
	struct open_batch open[WAITING_MAX + QUEUE_LANES_MAX];
	struct open_batch *current;	 /* being handed out */
	size_t lane_at[QUEUE_LANES_MAX]; /* of current, by lane: looked at so far */
	bool batch_out;			 /* of all lanes, as one request */
	uint64_t spool_done;		 /* messages of open batches whose fate is decided */
	uint64_t spool_said_ns;

	/* the receiver */
	bool down;
	uint32_t failures; /* in a row, first attempts only */
	uint32_t probes;   /* since down */
	uint64_t down_ns, probe_ns, heard_ns, hold_ns;
	long refusing; /* the status by which it refused what came last; 0: it did not */
	char trouble[TRANSPORT_TEXT_MAX + 64];
	uint8_t status_said[75]; /* bit by status */

	bool flushing, closed;
	uint64_t queued, queued_bytes; /* in memory, those in parcels included */
	uint64_t emitted, delivered, delivered_bytes, dropped[SINK_DROP_MAX];
	struct sink_callback_stats stats;
};

const char *sink_retry_name(enum sink_retry reason)
{
	static const char *const names[SINK_RETRY_MAX] = {
		"resolve", "connect", "tls", "reset", "timeout", "busy", "server", "other"};

	return (unsigned int)reason < SINK_RETRY_MAX ? names[reason] : "unknown";
}

/* xorshift: for jitter, which must differ between nodes and nothing more */
static uint64_t next_random(struct callback *c)
{
	c->random ^= c->random << 13;
	c->random ^= c->random >> 7;
	c->random ^= c->random << 17;
	return c->random;
}

static bool batches(const struct callback *c)
{
	return c->batch_messages > 1;
}

/* ---- parcels ---- */

static struct parcel *parcel_of(struct transport_request *r)
{
	return (struct parcel *)r; /* its first member */
}

static void rewind_parcel(void *ctx)
{
	struct parcel *p = ctx;

	p->cursor = p->range.first;
	p->left = p->messages;
}

static struct span next_of_parcel(void *ctx)
{
	struct parcel *p = ctx;
	struct queue_item item;

	if (p->left == 0)
		return span_of(NULL, 0);
	p->left--;
	queue_next(&p->cursor, &item);
	return item.body;
}

static struct parcel *new_parcel(struct callback *c)
{
	for (uint32_t i = 0; i < c->n_parcels; i++)
		if (c->parcels[i].state == UNUSED)
			return &c->parcels[i];
	return NULL;
}

/* What is sent of a parcel: bytes of messages, each with its newline. */
static void address(struct callback *c, struct parcel *p, struct span whole)
{
	p->request = (struct transport_request){
		.bytes = p->bytes,
		.one = whole,
		.body = p,
		.rewind = rewind_parcel,
		.next = next_of_parcel,
		.ndjson = batches(c),
		.key = p->key,
	};
	if (!batches(c)) {
		p->request.one.len--; /* the newline is for lines */
		p->request.bytes--;
	}
}

static struct parcel *from_queue(struct callback *c, uint32_t lane)
{
	struct parcel *p = new_parcel(c);
	struct span whole = span_of(NULL, 0);

	if (!p)
		return NULL;
	*p = (struct parcel){.lane = lane};
	queue_take(&c->queue, lane, c->batch_messages, c->batch_bytes, &p->range);
	p->messages = p->range.messages;
	p->bytes = p->range.bytes;
	p->seq = p->range.seq;
	p->queued_ns = p->range.queued_ns;
	snprintf(p->key, sizeof(p->key), "%s-%" PRIx64, c->instance, ++c->parcels_made);
	rewind_parcel(p);
	if (p->messages == 1)
		whole = next_of_parcel(p);
	address(c, p, whole);
	return p;
}

/* Others of its lane may go. */
static void leave_lane(struct callback *c, struct parcel *p)
{
	if (!p->in_lane)
		return;
	p->in_lane = false;
	c->busy[p->lane]--;
	if (p->batch && batches(c))
		c->batch_out = false;
}

static void count_drop(struct callback *c, enum sink_drop reason, uint64_t messages)
{
	c->dropped[reason] += messages;
}

/* The fate of its messages is decided, and counted by the caller. */
static void finish(struct callback *c, struct parcel *p)
{
	struct open_batch *b = p->batch;

	if (p->state == WAITING)
		c->n_waiting--;
	p->state = UNUSED;
	if (!b) {
		queue_give_back(&c->queue, &p->range);
		c->queued -= p->messages;
		c->queued_bytes -= p->bytes;
		return;
	}
	b->done += p->messages;
	c->spool_done += p->messages;
	if (b->done < b->batch->count)
		return;
	c->spool_done -= b->batch->count;
	spool_ack(c->spool, TAKE(b->batch));
	if (c->current == b)
		c->current = NULL;
}

/* ---- the spool ---- */

static void say_spool(struct callback *c, const char *what, int code)
{
	uint64_t now = clock_mono_ns();

	if (c->spool_said_ns && now - c->spool_said_ns < SPOOL_SAID_MS * NS_PER_MS)
		return;
	c->spool_said_ns = now;
	log_error("callback: the spool cannot be %s: %s", what, strerror(code));
}

/* The next batch, once all that is older is on its way. */
static void read_spool(struct callback *c)
{
	struct open_batch *b = c->open;
	int r;

	if (!c->spool || c->current || c->flushing || c->spool_left == 0 || c->queue.messages > 0)
		return;
	while (b < c->open + ARRAY_SIZE(c->open) && b->batch)
		b++;
	if (b == c->open + ARRAY_SIZE(c->open))
		return;
	r = spool_read(c->spool, batches(c) ? c->batch_messages : SPOOL_MESSAGES,
		batches(c) ? c->batch_bytes : SPOOL_BYTES, &b->batch);
	if (r <= 0) {
		b->batch = NULL;
		if (r < 0)
			say_spool(c, "read", -r);
		else
			c->spool_left = 0; /* what was damaged is counted by the spool */
		return;
	}
	b->done = b->handed = 0;
	c->spool_left -= MIN(c->spool_left, (uint64_t)b->batch->count);
	c->current = b;
	memset(c->lane_at, 0, sizeof(c->lane_at));
}

static bool any_busy(const struct callback *c)
{
	for (uint32_t i = 0; i < c->queue.n_lanes; i++)
		if (c->busy[i] > 0)
			return true;
	return false;
}

static struct parcel *parcel_of_batch(
	struct callback *c, uint32_t lane, size_t first, size_t count, struct span body)
{
	struct parcel *p = new_parcel(c);
	struct open_batch *b = c->current;
	size_t len;

	if (!p)
		return NULL;
	*p = (struct parcel){
		.lane = lane,
		.batch = b,
		.messages = (uint32_t)count,
		.bytes = body.len,
		.queued_ns = b->batch->records[first].queued_ns,
	};
	len = spool_key(b->batch, p->key);
	if (!batches(c))
		snprintf(p->key + len, sizeof(p->key) - len, "-%zx", first);
	address(c, p, body);
	p->request.again = b->batch->again;
	b->handed += count;
	/* what is left of it is in parcels: on to the next one */
	if (b->handed == b->batch->count)
		c->current = NULL;
	return p;
}

/* Of the batch that is being handed out, what is next in this lane. */
static struct parcel *from_spool(struct callback *c, uint32_t lane)
{
	struct spool_batch *b = c->current->batch;

	if (batches(c)) {
		/* holds messages of all lanes */
		if ((any_busy(c) && !c->down) || !new_parcel(c))
			return NULL;
		c->batch_out = true;
		return parcel_of_batch(c, lane, 0, b->count, span_of(b->data, b->len));
	}
	for (size_t *i = &c->lane_at[lane]; *i < b->count; ++*i) {
		const struct spool_record *record = &b->records[*i];

		if (queue_lane_of(&c->queue, record->order) == lane && new_parcel(c))
			return parcel_of_batch(c, lane, (*i)++, 1, record->body);
	}
	return NULL;
}

/* ---- what is next ---- */

static bool is_due(const struct callback *c, uint32_t lane, uint64_t wall_ns, uint64_t *next_ns)
{
	const struct queue_lane *l = &c->queue.lanes[lane];
	uint64_t age;

	if (l->messages == 0)
		return false;
	if (l->messages >= c->batch_messages || l->bytes >= c->batch_bytes || c->flushing ||
		c->spooling || c->queue.used_bytes > c->queue.max_bytes / 2)
		return true;
	/* a clock that was set back makes it huge, and that is fine */
	age = wall_ns - queue_head_ns(&c->queue, lane);
	if (age >= c->batch_wait_ns)
		return true;
	*next_ns = MIN(*next_ns, c->batch_wait_ns - age);
	return false;
}

/* A parcel that was not tried yet. next_ns: in so long there will be one by itself. */
static struct parcel *fresh(struct callback *c, uint64_t *next_ns)
{
	uint64_t wall_ns = batches(c) ? clock_wall_ns() : 0;
	struct parcel *p = NULL;

	if (c->n_waiting >= WAITING_MAX || (c->batch_out && !c->down))
		return NULL;
	read_spool(c);
	for (uint32_t n = 0; !p && n < c->queue.n_lanes; n++) {
		uint32_t lane = c->next_lane;

		c->next_lane = lane + 1 < c->queue.n_lanes ? lane + 1 : 0;
		if (c->busy[lane] > 0 && !c->down)
			continue;
		if (c->current)
			p = from_spool(c, lane);
		else if (is_due(c, lane, wall_ns, next_ns))
			p = from_queue(c, lane);
	}
	if (p) {
		p->in_lane = true;
		c->busy[p->lane]++;
	}
	return p;
}

/* The failed parcel that is due first; *ret_due_ns: when. */
static struct parcel *first_waiting(struct callback *c, uint64_t *ret_due_ns)
{
	struct parcel *best = NULL;

	*ret_due_ns = NEVER;
	for (uint32_t i = 0; c->n_waiting > 0 && i < c->n_parcels; i++) {
		struct parcel *p = &c->parcels[i];

		if (p->state == WAITING && p->due_ns < *ret_due_ns) {
			*ret_due_ns = p->due_ns;
			best = p;
		}
	}
	return best;
}

static struct parcel *next_probe(struct callback *c, uint64_t now)
{
	uint64_t ignored = NEVER;
	struct parcel *p = c->probes % 2 ? first_waiting(c, &ignored) : fresh(c, &ignored);

	if (!p)
		p = c->probes % 2 ? fresh(c, &ignored) : first_waiting(c, &ignored);
	if (!p)
		return NULL;
	c->probes++;
	c->probe_ns =
		now + MIN(retry_backoff_ms(c->probes, next_random(c)), (uint64_t)PROBE_MOST_MS) *
			      NS_PER_MS;
	p->request.fresh = true;
	return p;
}

/* What may be sent now; if nothing, *ret_next_ns is when to ask again. */
static struct parcel *next_parcel(struct callback *c, uint64_t now, uint64_t *ret_next_ns)
{
	uint64_t due_ns, wait_ns = NEVER;
	struct parcel *p;

	*ret_next_ns = NEVER;
	if (c->closed || !secrets_ready(c->secrets))
		return NULL;
	if (c->hold_ns > now) {
		*ret_next_ns = c->hold_ns;
		return NULL;
	}
	if (c->down) {
		if (c->probe_ns <= now && c->n_out < c->concurrency + PROBES_MAX)
			return next_probe(c, now);
		*ret_next_ns = c->probe_ns <= now ? NEVER : c->probe_ns;
		return NULL;
	}
	if (c->n_out - c->n_stalled >= c->concurrency || c->n_out >= c->concurrency + PROBES_MAX) {
		*ret_next_ns = c->heard_ns + STALLED_MS * NS_PER_MS;
		return NULL;
	}
	p = first_waiting(c, &due_ns);
	if (!p || due_ns > now)
		p = fresh(c, &wait_ns);
	if (p)
		p->request.fresh = false;
	else
		*ret_next_ns = MIN(due_ns, wait_ns == NEVER ? NEVER : now + wait_ns);
	return p;
}

/* ---- what the receiver does ---- */

static void set_down(struct callback *c, uint64_t now)
{
	c->down = true;
	c->down_ns = now;
	c->probes = 0;
	c->probe_ns = now + retry_backoff_ms(1, next_random(c)) * NS_PER_MS;
	log_warn("callback: %s: nothing gets through (%s); messages queue, and it is tried again",
		c->shown_url, c->trouble);
}

/* It answers, and will not always say no. */
static void set_up(struct callback *c, uint64_t now)
{
	c->failures = 0;
	if (!c->down)
		return;
	c->down = false;
	log_info("callback: %s answers again after %" PRIu64 " s", c->shown_url,
		(now - c->down_ns) / 1000000000);
	for (uint32_t i = 0; i < c->n_parcels; i++)
		if (c->parcels[i].state == WAITING)
			c->parcels[i].due_ns =
				MIN(c->parcels[i].due_ns, now + next_random(c) % 1000 * NS_PER_MS);
}

/* Nothing waits any more for what is out for so long, or for the probes among it. */
static void set_aside(struct callback *c, uint64_t now, bool probes_only)
{
	for (uint32_t i = 0; i < c->n_parcels; i++) {
		struct parcel *p = &c->parcels[i];

		if (p->state != OUT || p->stalled || now - p->began_ns < STALLED_MS * NS_PER_MS ||
			(probes_only && !p->request.fresh))
			continue;
		leave_lane(c, p);
		p->stalled = true;
		c->n_stalled++;
	}
}

/*
 * None of the requests that are out was answered for a while. They may hang for as long as the
 * time-out lets them: nothing else waits for them any more. Should they be answered after all, that
 * is fine, too.
 */
static void check_stall(struct callback *c, uint64_t now)
{
	if (now - c->heard_ns < STALLED_MS * NS_PER_MS || c->n_out == c->n_stalled ||
		(!c->down && c->n_out - c->n_stalled < c->concurrency))
		return;
	set_aside(c, now, false);
	if (c->down)
		return;
	snprintf(c->trouble, sizeof(c->trouble), "no answer to %u requests", c->n_out);
	set_down(c, now);
	c->probe_ns = now;
}

static void failed(
	struct callback *c, struct parcel *p, const struct transport_answer *a, uint64_t now);

static void came_back(struct callback *c, struct parcel *p)
{
	leave_lane(c, p);
	c->n_stalled -= p->stalled;
	p->stalled = false;
	c->n_out--;
}

/* All that can be out hang: the one that does longest makes room for a probe. */
static void give_one_up(struct callback *c, uint64_t now)
{
	struct transport_answer a = {.failure = SINK_RETRY_TIMEOUT};
	struct parcel *longest = NULL;

	for (uint32_t i = 0; i < c->n_parcels; i++)
		if (c->parcels[i].state == OUT &&
			(!longest || c->parcels[i].began_ns < longest->began_ns))
			longest = &c->parcels[i];
	if (!longest || !longest->stalled)
		return;
	transport_abort(c->transport, &longest->request);
	came_back(c, longest);
	snprintf(a.text, sizeof(a.text), "given up without an answer");
	failed(c, longest, &a, now);
}

static enum sink_retry reason_of(const struct transport_answer *a)
{
	return a->status == 0 ? a->failure : a->status >= 500 ? SINK_RETRY_SERVER : SINK_RETRY_BUSY;
}

static void failed(
	struct callback *c, struct parcel *p, const struct transport_answer *a, uint64_t now)
{
	uint64_t wait_ms = retry_backoff_ms(++p->attempts, next_random(c));

	c->stats.retries[reason_of(a)]++;
	if (a->status)
		snprintf(c->trouble, sizeof(c->trouble), "status %ld%s%s", a->status,
			a->text[0] ? ": " : "", a->text);
	else
		snprintf(c->trouble, sizeof(c->trouble), "%s", a->text);
	if (a->has_retry_after) {
		wait_ms = a->retry_after_ms;
		c->hold_ns = MAX(c->hold_ns, now + wait_ms * NS_PER_MS);
	}
	p->due_ns = now + wait_ms * NS_PER_MS;
	p->state = WAITING;
	c->n_waiting++;
	log_debug("callback: attempt %u: %s", p->attempts, c->trouble);
	/* what fails again says something about itself; what fails at once, about the receiver */
	if (p->attempts == 1 && !c->down && ++c->failures >= 2 * c->concurrency)
		set_down(c, now);
}

static const char *hint_of(long status)
{
	if (status >= 300 && status < 400)
		return "; redirects are not followed: give the address that it points to";
	if (status == 401 || status == 403)
		return "; see --callback-header-file";
	if (status == 404 || status == 405)
		return "; is it the right path?";
	if (status == 413)
		return "; see --line-bytes and --callback-batch-bytes";
	if (status == 415)
		return "; does it take batches (NDJSON) and gzip?";
	return "";
}

static void refused(struct callback *c, struct parcel *p, const struct transport_answer *a)
{
	long status = MIN(a->status, 599L);
	uint8_t *said = &c->status_said[status / 8], bit = (uint8_t)(1U << status % 8);

	c->stats.refused[status] += p->messages;
	count_drop(c, SINK_DROP_REFUSED, p->messages);
	c->refusing = a->status;
	if (!(*said & bit))
		log_error("callback: %s refused %u messages, which are dropped: status %ld%s%s%s "
			  "(said once for each status)",
			c->shown_url, p->messages, a->status, a->text[0] ? ": " : "", a->text,
			hint_of(a->status));
	*said |= bit;
	finish(c, p);
}

static void count_answer(struct callback *c, const struct transport_answer *a)
{
	double seconds = (double)a->latency_ns / 1e9;
	size_t i = 0;

	c->stats.requests++;
	c->stats.sent_bytes += a->sent_bytes;
	if (a->status == 0)
		return;
	while (i < SINK_LATENCY_BUCKETS && seconds > sink_latency_bounds[i])
		i++;
	c->stats.latency[i]++;
	c->stats.latency_sum += seconds;
}

static void look_at_secrets(struct callback *c)
{
	if (!secrets_reload(c->secrets))
		return;
	c->secrets_read++;
	transport_secrets_changed(c->transport);
}

/* The credentials changed since it was sent: worth one more attempt. */
static bool had_old_secrets(struct callback *c, const struct parcel *p, long status)
{
	if (status != 401 && status != 403)
		return false;
	look_at_secrets(c);
	return p->secrets != c->secrets_read;
}

static void on_done(void *ctx, struct transport_request *r, const struct transport_answer *a)
{
	struct callback *c = ctx;
	struct parcel *p = parcel_of(r);
	uint64_t now = clock_mono_ns();
	enum retry_verdict verdict = retry_of_status(a->status);

	c->heard_ns = now;
	came_back(c, p);
	count_answer(c, a);
	if (verdict == RETRY_NEVER && had_old_secrets(c, p, a->status))
		verdict = RETRY_AGAIN;
	if (verdict == RETRY_AGAIN) {
		failed(c, p, a, now);
		return;
	}
	set_up(c, now);
	if (verdict == RETRY_NEVER) {
		refused(c, p, a);
		return;
	}
	c->refusing = 0;
	c->stats.delivered++;
	c->delivered += p->messages;
	c->delivered_bytes += p->bytes;
	finish(c, p);
}

static uint64_t on_idle(void *ctx)
{
	struct callback *c = ctx;
	uint64_t now = clock_mono_ns(), next_ns = NEVER;
	struct parcel *p;

	check_stall(c, now);
	if (c->down && c->probe_ns <= now && c->n_out == c->concurrency + PROBES_MAX)
		give_one_up(c, now);
	while ((p = next_parcel(c, now, &next_ns))) {
		if (c->n_out == 0)
			c->heard_ns = now; /* it is waited for from now on */
		if (p->state == WAITING)
			c->n_waiting--;
		if (transport_start(c->transport, &p->request) == 0) {
			p->state = OUT;
			p->began_ns = now;
			p->secrets = c->secrets_read;
			c->n_out++;
			continue;
		}
		/* no memory: as if it had failed */
		leave_lane(c, p);
		p->state = WAITING;
		c->n_waiting++;
		c->stats.retries[SINK_RETRY_OTHER]++;
		p->due_ns = now + retry_backoff_ms(++p->attempts, next_random(c)) * NS_PER_MS;
	}
	return next_ns;
}

static void on_tick(void *ctx)
{
	struct callback *c = ctx;

	look_at_secrets(c);
	/* others may be answered by now: it went out a moment before the receiver was back */
	set_aside(c, clock_mono_ns(), true);
	transport_run(c->transport);
}

/* ---- taking messages ---- */

static bool to_spool(struct callback *c, const struct queue_item *item)
{
	struct spool_item s = {.body = item->body,
		.seq = c->emitted,
		.order = item->order,
		.queued_ns = item->queued_ns};
	int r = spool_append(c->spool, &s, 1);
	uint64_t n;

	if (r == -ENOSPC && c->when_full != SINK_DROP_NEWEST) {
		n = spool_drop_oldest(c->spool, NULL);
		count_drop(c, SINK_DROP_FULL, n);
		c->spool_left -= MIN(c->spool_left, n);
		if (n > 0)
			r = spool_append(c->spool, &s, 1);
	}
	if (r == 1) {
		c->spooling = true;
		c->spool_left++;
		return true;
	}
	if (r != -ENOSPC)
		say_spool(c, "written", -r);
	return false;
}

/* Gives up the oldest messages that are not on their way. */
static bool drop_oldest(struct callback *c)
{
	uint64_t seq = UINT64_MAX, queued_ns, bytes, n;
	int lane = queue_oldest(&c->queue, &seq, &queued_ns);
	struct parcel *oldest = NULL;

	for (uint32_t i = 0; c->n_waiting > 0 && i < c->n_parcels; i++) {
		struct parcel *p = &c->parcels[i];

		if (p->state == WAITING && !p->batch && p->seq < seq) {
			seq = p->seq;
			oldest = p;
		}
	}
	if (oldest) {
		count_drop(c, SINK_DROP_FULL, oldest->messages);
		finish(c, oldest);
		return true;
	}
	if (lane < 0)
		return false;
	n = queue_drop(&c->queue, (uint32_t)lane, &bytes);
	c->queued -= n;
	c->queued_bytes -= bytes;
	count_drop(c, SINK_DROP_FULL, n);
	return true;
}

static int to_queue(struct callback *c, const struct queue_item *item, bool make_room)
{
	int r;

	while ((r = queue_push(&c->queue, item)) == -ENOBUFS && make_room && drop_oldest(c))
		;
	if (r < 0)
		return r;
	c->queued++;
	c->queued_bytes += item->body.len;
	return 0;
}

static int callback_write(struct sink *sink, const struct sink_message *m)
{
	struct callback *c = (struct callback *)sink;
	struct queue_item item = {.order = m->order, .body = m->line};
	int r;

	if (m->line.len < 2 || m->line.p[m->line.len - 1] != '\n')
		return -EINVAL;
	c->emitted++;
	c->stats.bodies_left_out += m->body_left_out;
	if (c->closed) {
		count_drop(c, SINK_DROP_SHUTDOWN, 1);
		return -EPIPE;
	}
	item.queued_ns = clock_wall_ns();
	if (c->spooling && c->spool_left == 0)
		c->spooling = false;
	if (c->spooling && to_spool(c, &item))
		return 0;
	r = to_queue(c, &item, !c->spool && c->when_full != SINK_DROP_NEWEST);
	if (r < 0 && c->spool && !c->spooling && to_spool(c, &item))
		return 0;
	if (r < 0)
		count_drop(c, SINK_DROP_FULL, 1);
	return r;
}

static bool callback_wants_bodies(const struct sink *sink)
{
	const struct callback *c = (const struct callback *)sink;
	struct spool_stats s;

	if (c->when_full != SINK_DROP_BODIES || c->queue.used_bytes <= c->queue.max_bytes / 2)
		return true;
	if (!c->spool)
		return false;
	spool_stats(c->spool, &s);
	return s.disk_bytes <= c->spool_max / 2;
}

static void callback_kick(struct sink *sink)
{
	transport_run(((struct callback *)sink)->transport);
}

/* ---- waiting, and the end ---- */

/* Lets the loop turn. Whether that was ended from outside. */
static bool turn(struct callback *c, uint64_t timeout_ms)
{
	transport_run(c->transport);
	return loop_turn(c->loop, timeout_ms) != 0;
}

static void callback_wait(struct sink *sink, uint64_t most_bytes)
{
	struct callback *c = (struct callback *)sink;
	struct sink_stats s;

	if (c->queued_bytes <= most_bytes && most_bytes > 0)
		return;
	c->flushing = most_bytes == 0 && !c->spool;
	for (;;) {
		sink_stats(sink, &s);
		if (s.queued_bytes <= most_bytes && (most_bytes > 0 || s.spooled == 0))
			break;
		if (turn(c, 100)) {
			loop_quit(c->loop, 0); /* for whoever asks next */
			break;
		}
	}
	c->flushing = false;
}

/* What is in memory goes to the spool, or is dropped. Returns how many were dropped. */
static uint64_t put_away(struct callback *c, struct queue_cursor cursor, uint32_t messages)
{
	struct queue_item item;
	uint64_t dropped = 0;

	for (uint32_t i = 0; i < messages; i++) {
		queue_next(&cursor, &item);
		if (!c->spool || !to_spool(c, &item))
			dropped++;
	}
	count_drop(c, SINK_DROP_SHUTDOWN, dropped);
	return dropped;
}

static uint64_t put_all_away(struct callback *c)
{
	struct queue_range range;
	uint64_t dropped = 0;

	for (uint32_t i = 0; i < c->n_parcels; i++) {
		struct parcel *p = &c->parcels[i];

		if (p->state == OUT) {
			transport_abort(c->transport, &p->request);
			c->n_out--;
		}
		if (p->state == UNUSED)
			continue;
		if (p->state == WAITING)
			c->n_waiting--;
		p->state = UNUSED;
		/* what is from the spool stays in it, and comes again */
		if (p->batch)
			continue;
		dropped += put_away(c, p->range.first, p->messages);
		queue_give_back(&c->queue, &p->range);
	}
	for (uint32_t i = 0; i < c->queue.n_lanes; i++)
		while (c->queue.lanes[i].messages > 0) {
			queue_take(&c->queue, i, UINT32_MAX, SIZE_MAX, &range);
			dropped += put_away(c, range.first, range.messages);
			queue_give_back(&c->queue, &range);
		}
	c->queued = c->queued_bytes = 0;
	return dropped;
}

static uint64_t callback_flush(struct sink *sink, uint64_t timeout_ms)
{
	struct callback *c = (struct callback *)sink;
	uint64_t end = clock_mono_ns() + timeout_ms * NS_PER_MS, now, left, dropped;

	if (c->closed)
		return 0;
	c->flushing = true;
	while ((c->queued > 0 || c->n_out > 0) && (now = clock_mono_ns()) < end)
		if (turn(c, MIN((end - now) / NS_PER_MS + 1, (uint64_t)100)))
			break;
	c->closed = true;
	left = c->queued;
	dropped = put_all_away(c);
	if (left > 0)
		log_warn("callback: %" PRIu64 " messages were not delivered in time: %" PRIu64
			 " spooled, %" PRIu64 " dropped",
			left, left - dropped, dropped);
	return dropped;
}

static void callback_free(struct sink *sink)
{
	struct callback *c = (struct callback *)sink;

	loop_remove(c->tick);
	if (c->parcels && c->transport && !c->closed)
		(void)put_all_away(c);
	transport_free(c->transport);
	spool_free(c->spool);
	secrets_free(c->secrets);
	if (c->queue.n_lanes > 0)
		queue_done(&c->queue);
	free(c->parcels);
	free(c->shown_url);
	free(c);
}

/* ---- what is told ---- */

static void callback_stats(struct sink *sink, struct sink_stats *ret_stats)
{
	struct callback *c = (struct callback *)sink;
	struct spool_stats s = {0};

	if (c->spool)
		spool_stats(c->spool, &s);
	*ret_stats = (struct sink_stats){
		.emitted = c->emitted,
		.recovered = s.recovered,
		.delivered = c->delivered,
		.queued = c->queued,
		.queued_bytes = c->queued_bytes,
		.spooled = s.messages - c->spool_done,
		.delivered_bytes = c->delivered_bytes,
		.error = s.error,
	};
	memcpy(ret_stats->dropped, c->dropped, sizeof(c->dropped));
	ret_stats->dropped[SINK_DROP_DAMAGED] = s.lost;
}

static uint64_t oldest_of(const struct callback *c)
{
	uint64_t oldest = NEVER, seq, ns;

	if (queue_oldest(&c->queue, &seq, &ns) >= 0)
		oldest = ns;
	for (uint32_t i = 0; i < c->n_parcels; i++)
		if (c->parcels[i].state != UNUSED)
			oldest = MIN(oldest, c->parcels[i].queued_ns);
	return oldest;
}

static const struct sink_callback_stats *callback_details(struct sink *sink)
{
	struct callback *c = (struct callback *)sink;
	struct spool_stats s = {0};
	uint64_t oldest = oldest_of(c);

	if (c->spool)
		spool_stats(c->spool, &s);
	if (s.oldest_ns)
		oldest = MIN(oldest, s.oldest_ns);
	c->stats.oldest_ns = oldest == NEVER ? 0 : oldest;
	c->stats.in_flight = c->n_out;
	c->stats.waiting = c->n_waiting;
	c->stats.up = !c->down && !c->refusing && secrets_ready(c->secrets);
	c->stats.has_spool = c->spool != NULL;
	c->stats.spool_bytes = s.bytes;
	c->stats.spool_disk_bytes = s.disk_bytes;
	c->stats.spool_torn = s.torn;
	c->stats.spool_lost_bytes = s.lost_bytes;
	c->stats.spool_write_errors = s.write_errors;
	return &c->stats;
}

static int callback_describe(struct sink *sink, struct buf *out)
{
	struct callback *c = (struct callback *)sink;
	uint64_t now = clock_mono_ns();

	if (!secrets_ready(c->secrets))
		return buf_printf(out, "callback: waits for its header or key file\n");
	if (c->down)
		return buf_printf(out, "callback: down for %" PRIu64 " s: %s\n",
			(now - c->down_ns) / 1000000000, c->trouble);
	if (c->hold_ns > now)
		return buf_printf(out, "callback: told to wait for %" PRIu64 " s\n",
			(c->hold_ns - now) / 1000000000 + 1);
	if (c->refusing)
		return buf_printf(out, "callback: refused, status %ld\n", c->refusing);
	return buf_printf(out, c->stats.delivered ? "callback: delivering\n"
						  : "callback: nothing delivered yet\n");
}

/* ---- making one ---- */

static char *without_query(const char *url)
{
	return strndup(url, strcspn(url, "?#"));
}

static void open_spool(struct callback *c, const struct sink_callback *o)
{
	struct spool_options options = {.dir = o->spool_dir, .max_bytes = o->spool_bytes};
	struct spool_stats s;
	struct err err = {0};

	if (!o->spool_dir)
		return;
	if (spool_open(&options, &c->spool, &err) < 0) {
		log_error("callback: there is no spool: %s", err.text);
		return;
	}
	spool_stats(c->spool, &s);
	c->spool_max = o->spool_bytes;
	c->spool_left = s.messages;
	c->spooling = s.messages > 0;
	if (s.messages > 0)
		log_info("callback: %" PRIu64 " messages are in the spool", s.messages);
}

static int init(struct callback *c, const struct sink_callback *o, struct err *err)
{
	static const struct transport_ops ops = {.done = on_done, .idle = on_idle};
	uint64_t seed[2];
	int r;

	if (getrandom(seed, sizeof(seed), 0) != sizeof(seed))
		return err_set(err, EIO, "callback: no random numbers");
	c->random = seed[0] | 1;
	snprintf(c->instance, sizeof(c->instance), "%016" PRIx64, seed[1]);
	c->n_parcels = c->concurrency + PROBES_MAX + WAITING_MAX;
	c->parcels = calloc(c->n_parcels, sizeof(*c->parcels));
	c->shown_url = without_query(o->url);
	if (!c->parcels || !c->shown_url)
		return err_set(err, ENOMEM, "callback: out of memory");
	queue_init(&c->queue, o->queue_bytes, c->concurrency);
	r = secrets_new(o->header_file, o->hmac_file, &c->secrets, err);
	if (r == 0 && secrets_query(c->secrets, o->url))
		r = err_set(err, ENOMEM, "callback: out of memory");
	if (r == 0)
		r = transport_new(c->loop, o, c->concurrency + PROBES_MAX, c->secrets, &ops, c,
			&c->transport, err);
	if (r < 0)
		return r;
	r = loop_add_timer(c->loop, TICK_MS, TICK_MS, on_tick, c, &c->tick);
	if (r < 0)
		return err_set(err, -r, "callback: event loop: %s", strerror(-r));
	open_spool(c, o);
	log_info("callback: messages go to %s", c->shown_url);
	return 0;
}

int sink_callback_new(
	struct loop *loop, const struct sink_callback *o, struct sink **ret_sink, struct err *err)
{
	static const struct sink_ops ops = {
		.write = callback_write,
		.kick = callback_kick,
		.wait = callback_wait,
		.flush = callback_flush,
		.free = callback_free,
		.stats = callback_stats,
		.wants_bodies = callback_wants_bodies,
		.describe = callback_describe,
		.callback_stats = callback_details,
	};
	struct callback *c;
	int r;

	if (o->concurrency < 1 || o->concurrency > SINK_CONCURRENCY_MAX ||
		o->queue_bytes < SINK_QUEUE_MIN || o->batch_messages < 1)
		return err_set(err, EINVAL, "callback: options out of bounds");
	c = calloc(1, sizeof(*c));
	if (!c)
		return err_set(err, ENOMEM, "callback: out of memory");
	c->sink.ops = &ops;
	c->loop = loop;
	c->concurrency = o->concurrency;
	c->batch_messages = o->batch_messages;
	c->batch_bytes = o->batch_bytes;
	c->batch_wait_ns = o->batch_wait_ms * NS_PER_MS;
	c->when_full = o->when_full;
	r = init(c, o, err);
	if (r < 0) {
		callback_free(&c->sink);
		return r;
	}
	*ret_sink = &c->sink;
	return 0;
}
