/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The traffic of loaders, on this machine and on others, is known by its markers (pkg/marker), and
 * left out: a callback does not feed itself.
 */
#include "cmd/loader/loader.h"

#include <errno.h>

/* How often it is looked whether the key file changed. */
#define KEY_MS 2000
/* Fields of that name in one head that are looked at. */
#define MARKERS_MAX 4
/* The next warning of markers that were handed on comes no sooner. */
#define WARN_NS UINT64_C(600000000000)

static struct span slice(const struct flow_head *h, struct http_slice s)
{
	return span_of(h->bytes + s.off, s.len);
}

/* The first field of that name from *at on; false: none. */
static bool next_marker(const struct flow_head *h, uint32_t *at, struct span *ret_value)
{
	for (; *at < h->head->n_fields; (*at)++) {
		const struct http_field *f = &h->head->fields[*at];

		if (likely(f->name.len != sizeof(MARKER_HEADER) - 1) ||
			!span_eq_nocase(slice(h, f->name), SPAN(MARKER_HEADER)))
			continue;
		*ret_value = slice(h, f->value);
		(*at)++;
		return true;
	}
	return false;
}

static struct marker_place place_of(const struct flow_head *h)
{
	const struct dump_peer *local = &h->conn->local, *remote = &h->conn->remote;
	bool out = h->direction == DUMP_EGRESS;
	const struct dump_peer *src = out ? local : remote, *dst = out ? remote : local;
	struct marker_place place = {.has_seq = true, .seq = h->seq};

	/* without text there is no such place, and nothing that was made for it */
	(void)marker_place_ends(&place, src->ip, src->port, dst->ip, dst->port);
	return place;
}

static void warn_relayed(struct loader *l, uint64_t now_ns)
{
	if (l->own.warned_ns && now_ns - l->own.warned_ns < WARN_NS)
		return;
	l->own.warned_ns = now_ns;
	log_warn("messages with copied markers are left out beyond %llu a minute "
		 "(--relayed-rate): an HTTP proxy between loaders and receiver, or somebody "
		 "who hides",
		(unsigned long long)l->own.budget.per_minute);
}

/* A marker that proves the key, but not for this message. */
static enum flow_verdict copied(struct loader *l, const struct flow_head *h, struct span value)
{
	if (marker_budget_take(&l->own.budget, h->time_ns) ||
		!marker_relayed(l->own.marker, value, h->direction))
		return FLOW_KEEP;
	warn_relayed(l, h->time_ns);
	return FLOW_LEAVE_OUT;
}

static enum flow_verdict on_head(void *ctx, const struct flow_head *h)
{
	struct loader *l = ctx;
	enum flow_verdict verdict = FLOW_KEEP;
	struct marker_place place;
	struct span value;
	uint32_t at = 0;

	if (likely(!next_marker(h, &at, &value)))
		return FLOW_KEEP;
	place = place_of(h);
	for (int i = 0; i < MARKERS_MAX; i++) {
		enum marker_result result = marker_check(l->own.marker, value, &place,
			h->time_ns / UINT64_C(1000000000), h->connection, h->direction);

		l->own.results[result]++;
		if (result == MARKER_ACCEPTED) {
			if (l->probe)
				probe_ignore(l->probe, h->connection, true);
			return FLOW_IGNORE;
		}
		if (result == MARKER_COPIED && verdict == FLOW_KEEP)
			verdict = copied(l, h, value);
		if (!next_marker(h, &at, &value))
			break;
	}
	return verdict;
}

int own_init(struct loader *l, struct err *err)
{
	int r = marker_new(l->spec->marker_key_file, &l->own.marker, err);

	if (r)
		return r;
	l->own.budget.per_minute = l->spec->relayed_rate;
	flow_on_head(l->flow, on_head, l);
	if (l->spec->callback[0] && !marker_has_file(l->own.marker))
		log_info("no --marker-key-file: loaders on other machines do not know this one's "
			 "POSTs, and report them where they see them; they would need the same "
			 "key in a file");
	return 0;
}

static void on_key_timer(void *ctx)
{
	struct loader *l = ctx;

	marker_reload(l->own.marker, clock_mono_ns() / UINT64_C(1000000000));
}

int own_wire(struct loader *l)
{
	if (!marker_has_file(l->own.marker))
		return 0;
	return loop_add_timer(l->loop, KEY_MS, KEY_MS, on_key_timer, l, &(struct loop_source *){0});
}

void own_done(struct loader *l)
{
	marker_free(l->own.marker);
}

size_t own_line(void *ctx, int fd, char *line, size_t size)
{
	struct loader *l = ctx;
	char text[MARKER_LINE_MAX];
	struct marker_place place;
	size_t len;

	if (marker_place_of(fd, &place) < 0)
		return 0;
	len = marker_line(l->own.marker, &place, clock_wall_ns() / 1000000000, text);
	if (len + 1 > size)
		return 0;
	memcpy(line, text, len + 1);
	return len;
}
