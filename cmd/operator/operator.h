/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The operator's process: PID 1 of its container. It starts `kubectl proxy`, and takes part in the
 * election; while it leads it reconciles. At the end the order matters: no new work, what is under
 * way, events, the lease, and the proxy last, since all the others need it.
 */
#ifndef EBPFDUMP_CMD_OPERATOR_H
#define EBPFDUMP_CMD_OPERATOR_H

#include "pkg/operator/operator.h"

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

#define CALLS_MAX 96

/* Requests that ended alike. */
struct call_count {
	char verb[12], resource[32];
	int http_code;
	uint64_t calls, latency_ns;
};

struct app {
	const struct spec_operator *spec;
	const char *namespace, *image, *pod;
	struct loop *loop;
	struct kube_client *client;
	struct kube_proxy *proxy; /* NULL: --server */
	struct kube_recorder *recorder;
	struct kube_election *election; /* NULL: --no-leader-election */
	struct reconciler *reconciler;
	struct telemetry *telemetry;
	bool proxy_up, stopping, released;
	struct loop_source *timer;   /* of the step of the shut-down */
	struct loop_source *contact; /* whether the API server is there, where nothing else asks */
	uint64_t flush_until_ns;
	struct call_count calls[CALLS_MAX];
	uint32_t call_count;
	uint64_t started_ns;
};

/* Runs until a signal ends it; the exit status of the process. */
int operator_run(const struct spec_operator *spec);

/* For telemetry: metrics.c. */
void app_count_call(void *ctx, const struct kube_call *call);
void app_metrics(void *ctx, struct metrics *m);
bool app_ready(void *ctx, struct buf *out);
bool app_live(void *ctx, struct buf *out);
/* All metrics as a table in Markdown, for docs/REFERENCE.md. -errno. */
int app_reference(const struct spec_operator *spec, FILE *out);

#endif
