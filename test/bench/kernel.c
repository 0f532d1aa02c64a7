/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench-kernel: what the eBPF programs add to a send.
 *
 * A child, bound to one CPU, sends and receives a fixed number of times over a loopback connection
 * and measures itself; the parent loads the programs and drains the ring buffer between the
 * measured stretches. Each round measures every case once, in an order that rotates, each with a
 * connection of its own. Prints one JSON object: for each case, what a send with its receive took
 * in each round.
 */
#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "pkg/probe/probe.h"
#include "test/bench/reference.skel.h"

#define SEND_MAX   65536
#define ROUNDS_MAX 201
#define RING_BYTES (8U << 20)
#define WARM_UP	   64

/* ---- the child: traffic, and the clock ---- */

enum payload { PAYLOAD_HTTP, PAYLOAD_OTHER };

struct order {
	enum { OPEN, SEND, CLOSE } what;
	enum payload payload; /* OPEN */
	uint32_t bytes;	      /* OPEN: of each send */
	uint32_t sends;	      /* SEND */
};

static bool count_instructions; /* the time stamp counter, where it counts instructions */

static uint64_t now(void)
{
	struct timespec t;

#if defined(__x86_64__)
	if (count_instructions)
		return __builtin_ia32_rdtsc();
#endif
	/* of this thread alone: others may use the processor meanwhile */
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "bench-kernel: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void connect_pair(int fds[2])
{
	struct sockaddr_in a = {
		.sin_family = AF_INET, .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
	CLEANUP(closep)
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(a);
	int on = 1;

	fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (listener < 0 || fds[0] < 0 || bind(listener, (struct sockaddr *)&a, sizeof(a)) ||
		listen(listener, 1) || getsockname(listener, (struct sockaddr *)&a, &len) ||
		connect(fds[0], (struct sockaddr *)&a, sizeof(a)))
		die("connection");
	fds[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	if (fds[1] < 0 || setsockopt(fds[0], IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) ||
		setsockopt(fds[1], IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)))
		die("connection");
}

/* A whole message; of other payload, what TLS looks like. */
static void fill_payload(char *p, enum payload payload, uint32_t bytes)
{
	memset(p, payload == PAYLOAD_HTTP ? 'x' : 0x9b, bytes);
	if (payload == PAYLOAD_HTTP) {
		char head[128];
		int n = snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nContent-Length: ");
		uint32_t body = bytes - (uint32_t)n - 8;

		n += snprintf(head + n, sizeof(head) - (size_t)n, "%04u\r\n\r\n", body);
		memcpy(p, head, (size_t)n);
	} else {
		memcpy(p, "\x16\x03\x03\x03\xfb", 5);
	}
}

static void pass(int from, int to, const char *p, char *in, uint32_t bytes)
{
	uint32_t got = 0;

	if (send(from, p, bytes, 0) != (ssize_t)bytes)
		die("send");
	while (got < bytes) {
		ssize_t n = recv(to, in + got, bytes - got, 0);

		if (n <= 0)
			die("recv");
		got += (uint32_t)n;
	}
}

static _Noreturn void child(int orders, int cpu)
{
	static char out[SEND_MAX], in[SEND_MAX];
	struct order o = {0};
	uint32_t bytes = 0;
	cpu_set_t set;
	int fds[2] = {-1, -1};

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		die("sched_setaffinity");
	while (read(orders, &o, sizeof(o)) == sizeof(o)) {
		uint64_t took = 0;

		if (o.what == OPEN) {
			connect_pair(fds);
			bytes = o.bytes;
			fill_payload(out, o.payload, bytes);
			/* both directions speak, so that both are judged */
			pass(fds[0], fds[1], out, in, bytes);
			pass(fds[1], fds[0], out, in, bytes);
			for (int i = 0; i < WARM_UP; i++)
				pass(fds[0], fds[1], out, in, bytes);
		} else if (o.what == SEND) {
			took = now();
			for (uint32_t i = 0; i < o.sends; i++)
				pass(fds[0], fds[1], out, in, bytes);
			took = now() - took;
		} else {
			closep(&fds[0]);
			closep(&fds[1]);
		}
		if (write(orders, &took, sizeof(took)) != sizeof(took))
			break;
	}
	_exit(0);
}

static int orders = -1; /* to the child */

static uint64_t tell(struct order o)
{
	uint64_t took;

	if (write(orders, &o, sizeof(o)) != sizeof(o) ||
		read(orders, &took, sizeof(took)) != sizeof(took))
		die("the child ended");
	return took;
}

/* ---- the programs ---- */

enum subject { BASE, EMPTY, REFERENCE, EGRESS, WHOLE };

static const struct bench_case {
	const char *name;
	enum subject subject;
	enum payload payload;
} cases[] = {
	{"base", BASE, PAYLOAD_HTTP},
	{"empty", EMPTY, PAYLOAD_HTTP},
	{"reference", REFERENCE, PAYLOAD_HTTP},
	{"egress", EGRESS, PAYLOAD_HTTP},
	{"egress_other", EGRESS, PAYLOAD_OTHER},
	{"whole", WHOLE, PAYLOAD_HTTP},
	{"whole_other", WHOLE, PAYLOAD_OTHER},
};
#define N_CASES ARRAY_SIZE(cases)

static enum probe_family family = PROBE_AUTO;
static struct probe_options options;
static struct probe_plan plan;

struct loaded {
	struct probe *probe;
	struct reference_bpf *skel;
	struct ring_buffer *ring;
	struct bpf_link *link;
	uint64_t bytes; /* drained */
};

static void on_record(void *ctx, const struct capture_record *record, const char *data)
{
	struct loaded *l = ctx;

	if (record->direction == CAPTURE_EGRESS)
		l->bytes += record->captured;
}

static int on_reference(void *ctx, void *data, size_t size)
{
	struct loaded *l = ctx;

	l->bytes += size;
	return 0;
}

static struct bpf_program *reference_program(struct reference_bpf *skel, bool empty)
{
	switch (plan.egress) {
	case PROBE_FENTRY:
		return empty ? skel->progs.empty_fentry : skel->progs.reference_fentry;
	case PROBE_KPROBE:
		return empty ? skel->progs.empty_kprobe : skel->progs.reference_kprobe;
	default:
		return empty ? skel->progs.empty_tracepoint : skel->progs.reference_tracepoint;
	}
}

static void load(struct loaded *l, enum subject subject, uint32_t bytes)
{
	struct probe_options o = options;
	struct bpf_program *prog;
	struct err err = {0};

	*l = (struct loaded){0};
	if (subject == BASE)
		return;
	if (subject == EGRESS || subject == WHOLE) {
		o.directions = subject == EGRESS ? 1U << CAPTURE_EGRESS : 3;
		if (probe_open(&o, &plan, &l->probe, &err)) {
			fprintf(stderr, "bench-kernel: %s\n", err.text);
			exit(1);
		}
		return;
	}
	l->skel = reference_bpf__open();
	if (!l->skel)
		die("reference program");
	bpf_object__for_each_program(prog, l->skel->obj) bpf_program__set_autoload(prog, false);
	prog = reference_program(l->skel, subject == EMPTY);
	bpf_program__set_autoload(prog, true);
	l->skel->rodata->send_bytes = bytes;
	if (bpf_map__set_max_entries(l->skel->maps.ring, RING_BYTES) ||
		reference_bpf__load(l->skel))
		die("reference program");
	l->ring = ring_buffer__new(bpf_map__fd(l->skel->maps.ring), on_reference, l, NULL);
	l->link = bpf_program__attach(prog);
	if (!l->ring || !l->link)
		die("reference program");
}

static void drain(struct loaded *l)
{
	int n = 0;

	if (l->probe)
		n = probe_drain(l->probe, 0, on_record, l);
	else if (l->ring)
		n = ring_buffer__consume(l->ring);
	if (n < 0)
		die("drain");
}

static void unload(struct loaded *l)
{
	probe_close(l->probe);
	ring_buffer__free(l->ring);
	bpf_link__destroy(l->link);
	reference_bpf__destroy(l->skel);
}

/* ---- somebody else's programs: their cost would be taken for ours ---- */

static bool is_foreign(const struct bpf_link_info *info, const char *tracepoint, uint32_t func)
{
	if (info->type == BPF_LINK_TYPE_RAW_TRACEPOINT)
		return strcmp(tracepoint, "tcp_sendmsg_locked") == 0;
	return info->type == BPF_LINK_TYPE_TRACING && func && info->tracing.target_btf_id == func;
}

static uint32_t id_of_function(void)
{
	struct btf *btf = btf__load_vmlinux_btf();
	int id = btf ? btf__find_by_name_kind(btf, "tcp_sendmsg", BTF_KIND_FUNC) : 0;

	btf__free(btf);
	return id > 0 ? (uint32_t)id : 0;
}

static bool hook_is_free(void)
{
	static uint32_t func;
	CLEANUP(fclosep)
	FILE *f = fopen("/sys/kernel/debug/kprobes/list", "re");
	char line[256];
	uint32_t id = 0;
	bool is_free = true;

	if (!func)
		func = id_of_function();
	while (is_free && bpf_link_get_next_id(id, &id) == 0) {
		char tracepoint[64] = "";
		struct bpf_link_info info = {
			.raw_tracepoint = {.tp_name = (uint64_t)(uintptr_t)tracepoint,
				.tp_name_len = sizeof(tracepoint)}};
		uint32_t len = sizeof(info);
		CLEANUP(closep)
		int fd = bpf_link_get_fd_by_id(id);

		/* gone meanwhile: not attached */
		if (fd >= 0 && bpf_obj_get_info_by_fd(fd, &info, &len) == 0)
			is_free = !is_foreign(&info, tracepoint, func);
	}
	while (is_free && f && fgets(line, sizeof(line), f))
		is_free = !strstr(line, " tcp_sendmsg+") && !strstr(line, " tcp_sendmsg_locked+");
	return is_free;
}

/* Others come and go: waits a little for them. */
static void need_free_hook(void)
{
	for (int i = 0; i < 300; i++) {
		if (hook_is_free())
			return;
		nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
	}
	fputs("bench-kernel: another program is attached to tcp_sendmsg: nothing can be measured\n",
		stderr);
	exit(1);
}

/* ---- rounds ---- */

#define SIZES_MAX 4

struct result {
	double per_send[ROUNDS_MAX];
	uint64_t sent, captured; /* bytes */
};

/* What is measured. */
static uint32_t sizes[SIZES_MAX] = {1024}, n_sizes = 1;
static uint32_t rounds = 15, most_sends = 1000;
static struct result results[SIZES_MAX][N_CASES];

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *v, size_t n)
{
	qsort(v, n, sizeof(*v), compare);
	return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

/*
 * Stretches so short that the ring buffer, drained between them, is never half full: a record takes
 * at most twice its bytes, and a send may make two.
 */
#define STRETCHES 15

static uint32_t sends_of(uint32_t bytes)
{
	return MIN(RING_BYTES / 4 / (4 * (bytes + 128)), most_sends);
}

static void measure_size(const struct bench_case *c, struct loaded *l, uint32_t bytes,
	struct result *r, uint32_t round)
{
	uint32_t sends = sends_of(bytes);
	double stretch[STRETCHES];

	tell((struct order){.what = OPEN, .payload = c->payload, .bytes = bytes});
	drain(l);
	l->bytes = 0;
	for (int i = 0; i < STRETCHES; i++) {
		stretch[i] = (double)tell((struct order){.what = SEND, .sends = sends}) / sends;
		drain(l);
	}
	r->sent += (uint64_t)sends * STRETCHES * bytes;
	r->captured += l->bytes;
	r->per_send[round] = median(stretch, STRETCHES);
	tell((struct order){.what = CLOSE});
}

static void measure(size_t which, uint32_t round)
{
	const struct bench_case *c = &cases[which];
	/* the reference program is built for one size */
	bool each = c->subject == REFERENCE;
	struct loaded l;

	need_free_hook();
	for (uint32_t i = 0; i < n_sizes; i++) {
		if (i == 0 || each)
			load(&l, c->subject, sizes[i]);
		measure_size(c, &l, sizes[i], &results[i][which], round);
		if (i == n_sizes - 1 || each)
			unload(&l);
	}
}

static void print_size(uint32_t size)
{
	printf("  {\"bytes\": %u, \"sends\": %u, \"cases\": {\n", sizes[size],
		sends_of(sizes[size]) * STRETCHES);
	for (size_t i = 0; i < N_CASES; i++) {
		const struct result *r = &results[size][i];

		printf("    \"%s\": {\"sent\": %" PRIu64 ", \"captured\": %" PRIu64
		       ", \"per_send\": [",
			cases[i].name, r->sent, r->captured);
		for (uint32_t round = 0; round < rounds; round++)
			printf("%s%.1f", round ? ", " : "", r->per_send[round]);
		printf("]}%s\n", i + 1 < N_CASES ? "," : "");
	}
	printf("  }}%s\n", size + 1 < n_sizes ? "," : "");
}

/* No rounds: only whether the hook is free. */
static _Noreturn void usage(void)
{
	fputs("usage: bench-kernel [--family auto|fentry|kprobe|tracepoint] [--bytes N]... "
	      "[--rounds N] [--sends N] [--instructions] [--case NAME]\n",
		stderr);
	exit(2);
}

static uint32_t number(const char *text, uint32_t min, uint32_t max)
{
	uint64_t v;

	if (!text || num_parse(span_str(text), min, max, &v))
		usage();
	return (uint32_t)v;
}

static enum probe_family family_of(const char *text)
{
	static const char *const names[] = {"auto", "fentry", "kprobe", "tracepoint"};

	for (size_t i = 0; text && i < ARRAY_SIZE(names); i++)
		if (strcmp(text, names[i]) == 0)
			return (enum probe_family)i;
	usage();
}

static void start_child(void)
{
	int cpus = (int)sysconf(_SC_NPROCESSORS_ONLN), pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		die("socketpair");
	switch (fork()) {
	case -1:
		die("fork");
		break;
	case 0:
		close(pair[0]);
		child(pair[1], cpus - 1);
		break;
	default:
		close(pair[1]);
		orders = pair[0];
	}
}

/* A family that is named is taken at its word: trying takes long in an emulated machine. */
static void choose_hooks(void)
{
	struct probe_offer offer = {0};
	struct err err = {0};
	int r = 0;

	if (family == PROBE_AUTO) {
		r = probe_try(&options, false, &offer, &err);
	} else {
		for (enum probe_hook h = 0; h < PROBE_HOOK_MAX; h++) {
			offer.works[h] = true;
			offer.storage[h] = family != PROBE_FAMILY_KPROBE;
		}
	}
	if (r || probe_plan(&offer, family, false, &plan, &err)) {
		fprintf(stderr, "bench-kernel: %s\n", err.text);
		exit(1);
	}
}

int main(int argc, char **argv)
{
	const char *only = NULL; /* to look at one with a profiler */
	bool sized = false;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--instructions") == 0) {
			count_instructions = true;
		} else if (strcmp(argv[i], "--rounds") == 0) {
			rounds = number(argv[++i], 0, ROUNDS_MAX);
		} else if (strcmp(argv[i], "--sends") == 0) {
			most_sends = number(argv[++i], 1, 1000);
		} else if (strcmp(argv[i], "--bytes") == 0) {
			n_sizes = sized ? n_sizes + 1 : 1;
			sized = true;
			if (n_sizes > SIZES_MAX)
				usage();
			sizes[n_sizes - 1] = number(argv[++i], 64, 8192);
		} else if (strcmp(argv[i], "--family") == 0) {
			family = family_of(argv[++i]);
		} else if (strcmp(argv[i], "--case") == 0) {
			only = argv[++i];
		} else {
			usage();
		}
	}
	options = (struct probe_options){.ring_bytes = RING_BYTES,
		.capture_bytes = 20480,
		.connections = 65536,
		.directions = 3};
	need_free_hook();
	if (rounds == 0)
		return 0;
	choose_hooks();
	start_child();
	for (uint32_t round = 0; round < rounds; round++)
		for (size_t i = 0; i < N_CASES; i++) {
			size_t which = (i + round) % N_CASES;

			if (!only || strcmp(cases[which].name, only) == 0)
				measure(which, round);
		}
	printf("{\"unit\": \"%s\", \"rounds\": %u, \"egress\": \"%s\", \"ingress\": \"%s\", "
	       "\"sizes\": [\n",
		count_instructions ? "instructions" : "ns", rounds, probe_hook_name(plan.egress),
		probe_hook_name(plan.ingress));
	for (uint32_t i = 0; i < n_sizes; i++)
		print_size(i);
	printf("]}\n");
	close(orders);
	wait(NULL);
	return 0;
}
