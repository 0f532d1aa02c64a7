/* SPDX-License-Identifier: Apache-2.0 */
/*
 * spec: the options, each named once.
 *
 * A table gives every option of a program its flag, its path in the EbpfDump resource (if a user of
 * the cluster may set it), type, default, bounds and help. The command line, --help and
 * docs/REFERENCE.md are read off it (and, with the operator, the decoding of the resource and its
 * validation). One parser, a table for each program: the loader's in spec.c, the receiver's in
 * callback.c.
 */
#ifndef EBPFDUMP_SPEC_H
#define EBPFDUMP_SPEC_H

#include "pkg/base/base.h"

#define SPEC_NAMES_MAX	 16
#define SPEC_OPTIONS_MAX 128 /* of a table */

enum spec_type {
	SPEC_FLAG, /* present or not */
	SPEC_UINT,
	SPEC_SIZE,     /* bytes, with suffix K, M, G (powers of 1024) */
	SPEC_DURATION, /* with unit ms, s, m, h; kept in milliseconds */
	SPEC_STRING,
	SPEC_CHOICE,  /* one of choices; kept as its index */
	SPEC_CHOICES, /* repeatable, of choices; kept as a bit set; none given: all */
	SPEC_NAMES,   /* repeatable; kept as a list of strings */
};

/* What the names of SPEC_NAMES may be, and when two are the same. */
enum spec_name {
	SPEC_NAME_INTERFACE,
	SPEC_NAME_HEADER, /* in any case */
	SPEC_NAME_HOST,	  /* in any case */
	SPEC_NAME_LABEL,  /* of DNS, lower case (RFC 1123): a Kubernetes namespace */
};

enum spec_output { SPEC_OUTPUT_AUTO, SPEC_OUTPUT_JSON, SPEC_OUTPUT_TEXT };
/* Choices of --hook, in the order of the table. */
enum spec_hook { SPEC_HOOK_AUTO, SPEC_HOOK_FENTRY, SPEC_HOOK_KPROBE, SPEC_HOOK_TRACEPOINT };

struct spec_names {
	const char *names[SPEC_NAMES_MAX];
	uint32_t count;
};

/* One field per option; strings point into argv or the table. */
struct spec {
	/* what is captured */
	struct spec_names interfaces;
	uint32_t directions;	      /* bit: enum dump_direction */
	uint32_t messages;	      /* bit: enum http_kind */
	struct spec_names namespaces; /* of pods */
	uint64_t body_bytes;
	struct spec_names redact; /* headers */
	/* output */
	uint32_t output; /* enum spec_output */
	uint64_t line_bytes;
	uint64_t output_buffer;
	const char *node;     /* "": the host's name */
	const char *pod_logs; /* "": messages name no pod */
	uint32_t log_level;   /* enum log_level */
	const char *listen;   /* "": no telemetry */
	/* its own traffic */
	const char *marker_key_file; /* "": none */
	uint64_t relayed_rate;
	/* callback */
	const char *callback; /* URL; "": standard output */
	uint64_t callback_concurrency;
	uint64_t callback_batch_messages;
	uint64_t callback_batch_bytes;
	uint64_t callback_batch_wait_ms;
	bool callback_gzip;
	uint64_t callback_timeout_ms;
	const char *callback_ca, *callback_cert, *callback_key; /* NULL: none */
	const char *callback_header_file, *callback_hmac_file;	/* NULL: none */
	uint64_t queue_bytes;
	uint32_t when_full;    /* enum sink_when_full */
	const char *spool_dir; /* NULL: none */
	uint64_t spool_bytes;  /* 0: none */
	uint64_t flush_timeout_ms;
	/* kernel side */
	uint32_t hook; /* enum spec_hook */
	uint64_t ring_bytes;
	uint64_t capture_bytes; /* 0: 16 KiB + body_bytes */
	uint64_t poll_interval_ms;
	/* limits of the user side */
	uint64_t connections;
	uint64_t buffer_bytes;
	uint64_t head_bytes;
	uint64_t headers;
	uint64_t pending;
	uint64_t cgroups;
	uint64_t hold_ms;
	uint64_t idle_ms;
	/* files */
	const char *record; /* NULL: none; "-": standard output */
	const char *replay; /* NULL: none; "-": standard input */
	/* instead of running */
	bool check, help, version, reference;
};

/* The receiver's, ebpfdump-callback. */
struct spec_callback {
	/* what is taken in */
	const char *listen;
	struct spec_names hosts; /* further names under which it may be called */
	uint64_t body_bytes;
	uint64_t memory_bytes; /* of bodies that are being received, together */
	uint64_t idempotency_keys;
	const char *token_file;	     /* NULL: none */
	const char *hmac_file;	     /* NULL: none */
	const char *marker_key_file; /* NULL: none */
	/* where it goes */
	const char *dir; /* NULL: standard output */
	uint64_t file_bytes;
	uint64_t files;
	uint64_t output_buffer;
	uint32_t log_level;  /* enum log_level */
	uint32_t log_format; /* enum log_format */
	/* the page */
	uint64_t keep;
	uint64_t keep_bytes;
	uint64_t streams;
	/* the server */
	uint64_t threads;
	uint64_t connections;
	uint64_t request_timeout_ms;
	/* instead of running */
	bool help, version, reference;
};

/* The operator's, ebpfdump-operator. */
struct spec_operator {
	/* the loaders */
	const char *namespace;	  /* "": POD_NAMESPACE, or the kubeconfig's */
	const char *loader_image; /* "": LOADER_IMAGE */
	uint32_t pull_policy;	  /* enum spec_pull */
	bool loader_privileged;
	const char *loader_account;
	const char *deployment; /* "": nothing owns the loaders */
	uint64_t resync_ms;
	/* the way to the API server */
	const char *kubectl;
	const char *kubeconfig; /* "": what kubectl finds by itself */
	uint64_t proxy_port;
	const char *proxy_socket; /* "": TCP */
	const char *server;	  /* "": by kubectl proxy */
	/* one of several */
	bool no_leader_election;
	uint64_t lease_ms, renew_ms, retry_ms;
	/* output */
	const char *listen;  /* "": no telemetry */
	uint32_t log_level;  /* enum log_level */
	uint32_t log_format; /* enum log_format */
	/* instead of running */
	bool crd, help, version, reference;
};

enum spec_pull { SPEC_PULL_ALWAYS, SPEC_PULL_IF_NOT_PRESENT, SPEC_PULL_NEVER };

/* A row of a table. */
struct spec_option {
	const char *flag; /* without the dashes */
	const char *path; /* in the resource, "spec.bodyBytes"; NULL: the command line only */
	enum spec_type type;
	const char *value;	    /* what --help calls the value; NULL for SPEC_FLAG */
	const char *fallback;	    /* the default as text, parsed as if given; NULL: none */
	uint64_t min, max;	    /* of numbers, in bytes or milliseconds; of strings: length */
	bool or_zero;		    /* of numbers: 0 is allowed although min is more */
	const char *const *choices; /* NULL-terminated */
	enum spec_name name;	    /* of SPEC_NAMES: which */
	/* Of SPEC_NAMES: those that hold if none is given, NULL-terminated. With them, "none" alone
	 * stands for no name at all. NULL: none hold, and "none" is a name. */
	const char *const *names;
	const char *group; /* heading in --help */
	const char *help;  /* a sentence or two */
	size_t offset;	   /* of the field in the program's struct */
};

struct spec_table {
	const char *program;
	const char *about; /* a line or more: what it does */
	const struct spec_option *options;
	size_t count; /* <= SPEC_OPTIONS_MAX */
	size_t size;  /* of the program's struct */
	/* What options must be together; NULL: no such rule. */
	int (*check)(const void *parsed, struct err *err);
};

extern const struct spec_table spec_loader;   /* fills a struct spec */
extern const struct spec_table spec_callback; /* fills a struct spec_callback */
extern const struct spec_table spec_operator; /* fills a struct spec_operator */

/* The loader's table; *ret_count rows. */
const struct spec_option *spec_options(size_t *ret_count);

/*
 * Fills spec, the struct of the table, with the defaults, then with the arguments (`--flag value`,
 * `--flag=value`; argv[0] is skipped). -EINVAL: err is one line that names the flag, the value and
 * what is allowed; spec is then as before. A flag that is given twice holds as given last, unless
 * it is repeatable.
 *
 * `--record -` excludes an --output other than auto: standard output then carries the records
 * alone.
 */
int spec_parse(const struct spec_table *table, void *spec, int argc, char *const argv[],
	struct err *err) MUST_CHECK;
/* What `--help` prints; each option with its default. */
void spec_help(const struct spec_table *table, FILE *out);
/* The options as Markdown tables, for docs/REFERENCE.md. */
void spec_reference(const struct spec_table *table, FILE *out);
/* "HOST:PORT", "[V6]:PORT", ":PORT" or nothing. */
bool spec_valid_listen(const char *listen);
/* NULL, or what is wrong with the URL of a callback: http or https, a host, no user or password.
 * The URL itself may hold a secret, and is in no error. */
const char *spec_url_fault(const char *url);

/* The same with the loader's table. */
int spec_parse_args(struct spec *spec, int argc, char *const argv[], struct err *err) MUST_CHECK;
void spec_print_help(FILE *out);
void spec_print_reference(FILE *out);

/* ---- the EbpfDump resource ---- */

struct json_object;

/* Names a Secret of the operator's namespace and the keys in it that are used; NULL: not given. */
struct spec_secret {
	const char *name;
	const char *headers;	/* lines "Name: value" */
	const char *hmac;	/* signs bodies */
	const char *ca;		/* trusted instead of the system's */
	const char *cert, *key; /* of the client, both or neither */
};

/* An EbpfDump's spec, decoded. */
struct spec_resource {
	/* The loader's arguments, "--flag=value" each, defaults left out, in the order of the
	 * table; argv[0] is the program, argv[argc] is NULL. Owned. */
	char **argv;
	int argc;
	struct spec loader; /* what they say; strings point into argv */
	/* Of the pods; NULL: not given. These point into the JSON. */
	const char *image, *priority_class;
	struct json_object *node_selector, *tolerations, *resources;
	struct spec_secret secret; /* name is NULL: none */
};

/*
 * spec: the object at .spec, which must outlive the result. -EINVAL: err names the path, the value,
 * and what is allowed. What is not known is skipped: the resource may be of a newer version. What
 * comes out as arguments, spec_parse_args() has accepted: no loader ends for a wrong flag.
 */
int spec_resource_decode(
	struct json_object *spec, struct spec_resource *ret_resource, struct err *err) MUST_CHECK;
void spec_resource_done(struct spec_resource *resource);

/* The CustomResourceDefinition as YAML, config/crd/bases; its schema is read off the loader's
 * table.
 */
void spec_print_crd(FILE *out);

#endif
