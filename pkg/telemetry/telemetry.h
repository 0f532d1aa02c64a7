/* SPDX-License-Identifier: Apache-2.0 */
/*
 * telemetry: /healthz (also /livez), /readyz, /metrics by libmicrohttpd.
 *
 * The HTTP server has a thread of its own, with few connections and short time-outs. What it
 * answers is rendered by the event loop's thread on request (an eventfd wakes it), so that all
 * numbers of one scrape belong to one moment and no counter needs a lock; a rendering is reused for
 * 100 ms, so that many clients cost the loop no more than one. A loop that does not answer within 2
 * s is what /healthz calls unhealthy.
 */
#ifndef EBPFDUMP_TELEMETRY_H
#define EBPFDUMP_TELEMETRY_H

#include "pkg/base/base.h"

/* ---- Prometheus text format 0.0.4 ---- */

struct metrics {
	struct buf *out;
	int error; /* first failure of an append; the page is then refused as a whole */
};

enum metrics_type { METRICS_COUNTER, METRICS_GAUGE, METRICS_HISTOGRAM };

/* HELP and TYPE lines; the samples of that name follow. Names end in _total for counters (checked
 * in tests by promtool). */
void metrics_family(struct metrics *m, const char *name, enum metrics_type type, const char *help);
/*
 * One sample of the family. Labels are pairs of name and value, ended by NULL:
 *   metrics_u64(m, "x_total", 7, "reason", "limit", NULL); values are escaped here.
 */
void metrics_u64(struct metrics *m, const char *name, uint64_t value, ...)
	__attribute__((sentinel));
void metrics_f64(struct metrics *m, const char *name, double value, ...) __attribute__((sentinel));
/* All samples of a family without labels. counts: of each bound alone, not added up, and of what is
 * beyond the last; n + 1 of them. sum: of all values. */
void metrics_histogram(struct metrics *m, const char *name, const double *bounds,
	const uint64_t *counts, size_t n, double sum);

/* A page as a table in Markdown, for docs/: name, type, help of each family. */
int metrics_table(struct buf *page, FILE *out);

/* ---- server ---- */

struct telemetry;

struct telemetry_ops {
	/* Both run in the loop's thread. */
	void (*metrics)(void *ctx, struct metrics *m);
	/* Appends a line or more that say what is (not) ready; returns whether it is. */
	bool (*ready)(void *ctx, struct buf *out);
	/* The same for /healthz; NULL: that the loop answers is all. */
	bool (*live)(void *ctx, struct buf *out);
};

/*
 * listen: "HOST:PORT", "[V6]:PORT" or ":PORT" (all addresses); port 0 picks one. The address in
 * use, unresolvable or not permitted is an error that names it. Only GET and HEAD (405 else); other
 * paths 404. Each connection is closed after its answer, and 5 s after its beginning in any case.
 * Its thread has all signals blocked. telemetry_free() belongs to the loop's thread, whether the
 * loop runs or not, and before loop_free().
 */
int telemetry_new(struct loop *loop, const char *listen, const struct telemetry_ops *ops, void *ctx,
	struct telemetry **ret_telemetry, struct err *err) MUST_CHECK;
void telemetry_free(struct telemetry *t);
void telemetry_freep(struct telemetry **t);
/* The port that it listens on. */
uint16_t telemetry_port(const struct telemetry *t);

#endif
