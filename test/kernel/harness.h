/* SPDX-License-Identifier: Apache-2.0 */
/*
 * harness: what the kernel checks stand on. A loader that runs and whose lines are read as they
 * come, connections to oneself of which both ends are at hand, and the comparison of what passed
 * with what the loader said.
 *
 * A check is a function that makes traffic, calls gather() and compares. Failures are recorded by
 * check_fail(); a check without any is passed. Nothing here measures time: whatever is awaited is
 * waited for WAIT_MS, which only a hang exceeds.
 */
#ifndef EBPFDUMP_TEST_KERNEL_HARNESS_H
#define EBPFDUMP_TEST_KERNEL_HARNESS_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#define WAIT_MS 30000
/* An emulated machine may take half a minute to verify the programs. */
#define START_MS       180000
#define ARRAY_SIZE(a)  (sizeof(a) / sizeof((a)[0]))
#define PRINTF(f, a)   __attribute__((format(printf, f, a)))
#define MIN(a, b)      ((a) < (b) ? (a) : (b))
#define BODY_BYTES     4096 /* the loader's default of --body-bytes */
#define TELEMETRY_PORT 9464

/* ---- checks ---- */

struct check {
	const char *name;
	void (*run)(void);
};

void check_fail(const char *fmt, ...) PRINTF(1, 2);
/* The check cannot be made here; counted and printed with its reason. */
void check_skip(const char *fmt, ...) PRINTF(1, 2);
#define EXPECT(condition, ...)                   \
	do {                                     \
		if (!(condition))                \
			check_fail(__VA_ARGS__); \
	} while (0)

/* Runs one check (if its name holds `only`) and prints its TAP line. */
void check_run(const char *prefix, const struct check *check, const char *only);
/* "N passed, N failed"; the exit status. */
int check_summary(void);

/* ---- the loader ---- */

/*
 * What the loopback device is called: "lo", or, with --alone, another name by which the loader is
 * told to look at nothing else. On a machine with other traffic the checks see theirs only.
 */
extern const char *loopback;

enum hook {
	HOOK_NONE,
	HOOK_FENTRY,
	HOOK_KPROBE,
	HOOK_TRACEPOINT,
	HOOK_FEXIT,
	HOOK_CLEANUP,
	HOOK_KRETPROBE,
	HOOK_CGROUP_SKB
};

/* What of an exchange is reported: a message and the end that reports it. */
enum view { REQ_OUT, REQ_IN, RESP_OUT, RESP_IN, VIEWS };
#define VIEWS_ALL 15

struct loader {
	pid_t pid;
	enum hook egress, ingress; /* as /readyz names them */
	uint32_t views;		   /* bits of enum view that this loader reports */
	char *ready;		   /* body of /readyz */
	int exit_status;	   /* after loader_stop(); -1: killed by a signal */
	bool pidns;
};

struct loader_options {
	char *const *argv;	 /* of the command line; the program first, NULL last */
	const char *const *more; /* further arguments, NULL last; may be NULL */
	uint32_t views;		 /* 0: all */
	bool pidns;		 /* in a pid namespace of its own */
	bool stopped;		 /* nobody reads its standard output until loader_read() */
	bool own_interfaces;	 /* `more` says which interfaces */
	size_t line_max;	 /* longest line allowed; 0: 16384 */
};

/* Starts it and waits until it is ready. False: it is not, which is recorded. */
bool loader_start(const struct loader_options *options);
/* Begin to read the standard output of a loader that was started `stopped`. */
void loader_read(void);
/* Close it instead: the reader is gone. */
void loader_hang_up(void);
/* SIGTERM; waits for the end. Records a failure if it takes longer than 5 s (of its own clock and
 * ours), does not exit with 0, or left a line unfinished. */
void loader_stop(void);
const struct loader *loader(void);
/* Its end without a signal from here: runs a loader to its end; its exit status (-1: a signal, or
 * it did not end and was killed). Both texts are malloc'd. */
int loader_run(char *const *argv, const char *const *more, char **ret_out, char **ret_err);
/* All of its standard error until now (malloc'd). */
char *loader_log(void);
/* GET of a path of its telemetry; the body (malloc'd), NULL: no answer with status 200. */
char *loader_get(const char *path);
/*
 * The metrics once nothing is on its way any more: the ring buffer is empty. Such a scrape leaves
 * no trace in what it reads: it begins with an empty line, which makes the connection not HTTP.
 */
char *loader_quiet_metrics(void);
/* Number of messages read until now. */
int loader_lines(void);
/* The n-th message. */
struct json_object *loader_line(int n);

/* A sample of a page of metrics: the sum of all whose name is `name` and whose labels hold
 * `labels` (as `reason="limit"`; "": all). -1: there is none. */
double metric(const char *page, const char *name, const char *labels);
/* The same of loader_quiet_metrics(). */
double metric_now(const char *name, const char *labels);

/* ---- connections to oneself ---- */

enum net { V4, V6, MAPPED_CLIENT, MAPPED_SERVER };

struct process {
	pid_t pid;
	const char *comm;
};

struct conn {
	int c, s; /* client's and server's end */
	uint16_t client_port, server_port;
	enum net net;
	struct process client, server; /* who uses them */
	/* NULL: as `net` says, and "lo" */
	const char *client_ip, *server_ip, *client_interface, *server_interface;
};

/* Opens one; client ports are never used twice. False: recorded. */
bool conn_open(struct conn *k, enum net net);
/* Only the client's end, connecting; the server's is accepted by somebody else from
 * listener(net). */
bool conn_connect(struct conn *k, enum net net);
int listener(enum net net);
/* Closes what is open. */
void conn_close(struct conn *k);
void close_fd(int *fd);

/* Whole, or a recorded failure. */
bool send_all(int fd, const void *p, size_t n);
bool recv_all(int fd, void *p, size_t n);
/* Reads n bytes and compares them with what was sent. */
bool recv_same(int fd, const void *p, size_t n);

/* The same in threads. */
struct pump {
	int fd;
	const void *p;
	size_t n;
	unsigned long thread;
};
void pump_send(struct pump *pump, int fd, const void *p, size_t n);
void pump_recv_same(struct pump *pump, int fd, const void *p, size_t n);
void pump_join(struct pump *pump);

/* ---- bytes ---- */

struct text {
	char *p;
	size_t n;
};

/* Letters that depend on seed and position: no two bodies are alike. */
void fill(char *p, size_t n, uint32_t seed);
struct text text(const char *fmt, ...) PRINTF(1, 2);
void text_add(struct text *t, const void *p, size_t n);
void text_free(struct text *t);

/* ---- what the loader said ---- */

struct seen {
	struct json_object *m[VIEWS][512]; /* in the order of the lines */
	int n[VIEWS];
};

/*
 * Waits until each view of the connection has so many messages, then for all that was on its way
 * (by a request of its own that goes after it), and checks that there are no more. False if the
 * numbers are not as wanted, which is recorded.
 */
bool gather(const struct conn *k, int requests, int responses, struct seen *ret_seen);
/* The same, with a number for each view. */
bool gather_views(const struct conn *k, const int want[VIEWS], struct seen *ret_seen);
/* Whatever there is once all that was on its way has come. */
void gather_any(const struct conn *k, struct seen *ret_seen);
/* A request and its response on a connection of their own, waited for. False: recorded. */
bool barrier(void);

struct want {
	const char *method, *path; /* of a request; NULL: a response */
	int status;
	const char *body;    /* payload; NULL: not compared */
	size_t n;	     /* its length */
	size_t limit;	     /* of what is kept of it; 0: BODY_BYTES */
	uint64_t gap[VIEWS]; /* gap_bytes */
	bool any_gap;	     /* instead: whatever gap_bytes says */
	bool any_text;	     /* the body's bytes are not compared, only their number */
	bool any_error;	     /* with or without the key `error` */
	const char *answers; /* of a response: "METHOD path" of its request; NULL: not compared */
};

/* Compares a message with what passed: all keys. */
void compare(const struct conn *k, enum view view, struct json_object *m, const struct want *want);
/* The i-th request and response in every view. resp may be NULL. */
void compare_all(const struct conn *k, const struct seen *seen, int i, const struct want *req,
	const struct want *resp);

const char *view_name(enum view view);
struct json_object *key(struct json_object *m, const char *name);
const char *key_string(struct json_object *m, const char *name);
int64_t key_int(struct json_object *m, const char *name);
/* The first value of a header; NULL: none. */
const char *header(struct json_object *m, const char *name);

int64_t now_ms(void); /* monotonic */
void sleep_ms(int ms);

#endif
