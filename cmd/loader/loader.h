/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loader: the rooms wired together.
 *
 *   probe ─records─▶ flow ─messages─▶ filter ─▶ dump ─▶ sink
 *
 * loader_run() captures until a signal ends it, loader_replay() takes the records from a file. Both
 * write to standard output, or to a callback, and end with the exit status of the process.
 */
#ifndef EBPFDUMP_LOADER_H
#define EBPFDUMP_LOADER_H

#include "pkg/dump/dump.h"
#include "pkg/flow/flow.h"
#include "pkg/identity/identity.h"
#include "pkg/marker/marker.h"
#include "pkg/probe/probe.h"
#include "pkg/sink/sink.h"
#include "pkg/spec/spec.h"
#include "pkg/telemetry/telemetry.h"

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

/* What is known of loaders' own traffic: own.c. */
struct own {
	struct marker *marker;
	struct marker_budget budget;
	uint64_t results[MARKER_RESULT_MAX]; /* headers found */
	uint64_t warned_ns;
};

#define TRAFFIC_LATENCY_BUCKETS 14

/* traffic.c: what passed, by enum dump_direction. */
struct traffic {
	uint64_t requests[2];
	uint64_t responses[2][6]; /* by class of status */
	uint64_t body_bytes[2];
	struct traffic_latency {
		uint64_t counts[TRAFFIC_LATENCY_BUCKETS + 1]; /* the last: longer than all bounds */
		double sum;				      /* seconds */
	} latency[2];
};

struct loader {
	const struct spec *spec;
	const char *node;
	bool text; /* output is for people */
	struct dump_format format;
	struct dump_redaction redaction;
	struct dump_filter filter;
	struct buf line; /* of the message being written */
	struct flow *flow;
	struct sink *sink;	       /* NULL: standard output carries the records (--record -) */
	struct capture_writer *writer; /* NULL: no --record */
	struct own own;
	bool record_failed; /* --record: the file lacks something */
	int output_error;   /* errno of standard output, as last reported */
	bool finishing;	    /* nothing new is taken */
	struct loop *loop;  /* when capturing, or with a callback */
	/* only when capturing */
	struct loop_source *drain_timer;
	struct telemetry *telemetry;
	struct probe_options options;
	struct probe_offer offer;
	struct probe_plan plan;
	struct probe *probe;
	struct identity *identity;   /* NULL: messages name no pod */
	char cgroups[512];	     /* where cgroup v2 is mounted */
	uint64_t turn_ns;	     /* when the last turn began: monotonic */
	int64_t wall_offset_ns;	     /* as of the last turn */
	uint32_t unknown_interfaces; /* bit n: interface n of the spec exists nowhere */
	/* counters */
	struct traffic traffic;
	uint64_t filtered;   /* messages that --direction, --message, --namespace left out */
	uint64_t unwritable; /* messages for which memory ran out */
	uint64_t seq;	     /* of the last message that was not filtered */
};

int loader_check(const struct spec *spec);
int loader_run(const struct spec *spec);
int loader_replay(const struct spec *spec);

/* own.c. Behind flow_new(); with the loop; at the end. */
int own_init(struct loader *l, struct err *err);
int own_wire(struct loader *l);
void own_done(struct loader *l);
/* The marker of a request that goes out on this socket: for sink_callback. */
size_t own_line(void *loader, int fd, char *line, size_t size);

/* pods.c. With the loop. */
int pods_wire(struct loader *l);
/* Names the message's pod. Whether --namespace lets it through. */
bool pods_pass(struct loader *l, struct dump_message *m);

void traffic_count(struct traffic *t, const struct dump_message *m);
void traffic_metrics(const struct traffic *t, struct metrics *m);

/* What telemetry asks for: ledger.c. */
void ledger_metrics(void *loader, struct metrics *m);
bool ledger_ready(void *loader, struct buf *out);
/* All metrics as a table in Markdown, for docs/REFERENCE.md. -errno. */
int ledger_reference(FILE *out);

#endif
