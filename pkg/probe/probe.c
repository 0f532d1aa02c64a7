/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel side: loading, attaching, draining. */
#include "pkg/probe/kernel.h"
#include "pkg/probe/probe.h"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bpf/capture.skel.h"

#define LINKS_MAX 8

struct probe {
	struct capture_bpf *skel;
	struct bpf_program
		*programs[LINKS_MAX]; /* of the plan, in the order in which they are attached */
	size_t n_programs;
	struct bpf_link *links[LINKS_MAX];
	size_t n_links;
	struct probe_plan plan;
	/* the ring buffer, as the kernel shows it */
	int ring_fd;
	uint64_t ring_bytes;
	uint64_t *consumer;	  /* a page of its own: how far we are */
	const uint64_t *producer; /* how far the kernel is; the data is one page behind */
	const char *data;
	uint64_t *ignore; /* the map of that name */
	uint64_t read;
	int n_cpus;
};

/* ---- libbpf's messages: kept to explain a failure, else only for debugging ---- */

static struct buf libbpf_said = {.max = 256 << 10};

static PRINTF(2, 0) int libbpf_print(enum libbpf_print_level level, const char *fmt, va_list args)
{
	char line[4096];
	int n = vsnprintf(line, sizeof(line), fmt, args);

	if (n <= 0)
		return n;
	n = MIN(n, (int)sizeof(line) - 1);
	while (n > 0 && line[n - 1] == '\n')
		line[--n] = 0;
	if (level != LIBBPF_DEBUG) {
		/* full: the beginning matters most */
		(void)(buf_append(&libbpf_said, line, n) || buf_append(&libbpf_said, "\n", 1));
	}
	log_debug("%s", line);
	return n;
}

/* Instructions, registers, source lines, statistics: what the verifier prints besides its verdict.
 */
static bool is_verifier_state(const char *p, size_t len)
{
	if (isdigit((unsigned char)p[0]) || strchr("; (", p[0]))
		return true;
	if (p[0] == 'R' && len > 3 && (memchr(p, '=', 6 < len ? 6 : len)))
		return true;
	return strncmp(p, "processed ", MIN(len, 10U)) == 0 ||
	       strncmp(p, "from ", MIN(len, 5U)) == 0 ||
	       memmem(p, len, "is safe for any args", 20) ||
	       memmem(p, len, "verification time", 17) || memmem(p, len, "stack depth", 11);
}

/* The most telling line of what libbpf said: the verifier's last word before its statistics. */
static void libbpf_reason(char *out, size_t size)
{
	const char *p = libbpf_said.data, *end = p + libbpf_said.len, *best = NULL;
	size_t best_len = 0;
	bool in_log = false;

	out[0] = 0;
	while (p && p < end) {
		const char *nl = memchr(p, '\n', end - p);
		size_t len = nl ? (size_t)(nl - p) : (size_t)(end - p);

		if (memmem(p, len, "BEGIN PROG LOAD LOG", 19)) {
			in_log = true;
		} else if (memmem(p, len, "END PROG LOAD LOG", 17)) {
			in_log = false;
		} else if (in_log && len && !is_verifier_state(p, len)) {
			best = p;
			best_len = len;
		}
		p += len + 1;
	}
	if (best)
		snprintf(out, size, "%.*s", (int)MIN(best_len, size - 1), best);
}

/* Where cgroup v2 is mounted. -ENOENT: nowhere. */
static int open_root_cgroup(void)
{
	char path[PATH_MAX];
	int r = mount_find("cgroup2", path, sizeof(path)), fd;

	if (r)
		return r;
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* What is asked of the kernel's type information, once. */
static const struct facts {
	/* Parameters of tcp_recvmsg; 5 if that cannot be told. */
	uint32_t recvmsg_params;
	/*
	 * Whether there is the tracepoint (Linux 6.3) that tells who reads a socket. Without it the
	 * process of what comes as packets is known once it has sent.
	 */
	bool knows_readers;
} * facts_of_kernel(void)
{
	static struct facts facts;
	const struct btf_type *t;
	struct btf *btf;
	int id;

	if (facts.recvmsg_params)
		return &facts;
	facts.recvmsg_params = 5;
	btf = btf__load_vmlinux_btf();
	if (libbpf_get_error(btf))
		return &facts;
	id = btf__find_by_name_kind(btf, "tcp_recvmsg", BTF_KIND_FUNC);
	t = id > 0 ? btf__type_by_id(btf, (uint32_t)id) : NULL;
	t = t ? btf__type_by_id(btf, t->type) : NULL;
	if (t && btf_is_func_proto(t))
		facts.recvmsg_params = btf_vlen(t);
	facts.knows_readers =
		btf__find_by_name_kind(btf, "btf_trace_sock_recv_length", BTF_KIND_TYPEDEF) > 0;
	btf__free(btf);
	return &facts;
}

/* ---- loading and attaching ---- */

static uint64_t ring_size(uint64_t wanted)
{
	uint64_t size = (uint64_t)sysconf(_SC_PAGESIZE);

	while (size < wanted && size < 1ULL << 30)
		size <<= 1;
	return size;
}

/* The largest class of records (emit() in bpf/capture.bpf.c) of which at least four fit the ring
 * buffer. */
static uint32_t record_limit(uint64_t ring)
{
	static const uint32_t classes[] = {CAPTURE_DATA_MAX, 8704, 4608, 2304, 1152, 512};

	for (size_t i = 0; i < ARRAY_SIZE(classes); i++)
		if (4 * (8 + sizeof(struct capture_record) + classes[i]) <= ring)
			return classes[i];
	return 128;
}

static bool attach(struct probe *p, struct bpf_program *prog, int cgroup_fd)
{
	struct bpf_link *link = cgroup_fd >= 0 ? bpf_program__attach_cgroup(prog, cgroup_fd)
					       : bpf_program__attach(prog);

	if (libbpf_get_error(link))
		return false;
	p->links[p->n_links++] = link;
	return true;
}

/* The end of streams first: nothing that was seen may end unseen. */
static size_t programs_of(
	struct capture_bpf *skel, const struct probe_plan *plan, struct bpf_program **out)
{
	size_t n = 0;

	out[n++] = plan->socket_storage ? skel->progs.tp_btf__tcp_destroy_sock
					: skel->progs.raw_tp__tcp_destroy_sock;
	out[n++] = plan->socket_storage ? skel->progs.tp_btf__inet_sock_set_state
					: skel->progs.raw_tp__inet_sock_set_state;
	if (plan->ingress == PROBE_FEXIT)
		out[n++] = skel->progs.fexit__tcp_recvmsg;
	if (plan->ingress == PROBE_CLEANUP)
		out[n++] = skel->progs.kprobe__tcp_cleanup_rbuf;
	if (plan->ingress == PROBE_KRETPROBE)
		out[n++] = skel->progs.kretprobe__tcp_recvmsg;
	if (plan->ingress == PROBE_CLEANUP || plan->ingress == PROBE_KRETPROBE)
		out[n++] = skel->progs.kprobe__tcp_recvmsg;
	if (plan->ingress == PROBE_CGROUP_SKB)
		out[n++] = skel->progs.cgroup_skb__ingress;
	if (plan->ingress == PROBE_CGROUP_SKB && facts_of_kernel()->knows_readers)
		out[n++] = skel->progs.tp_btf__sock_recv_length;
	if (plan->egress == PROBE_FENTRY)
		out[n++] = skel->progs.fentry__tcp_sendmsg;
	if (plan->egress == PROBE_KPROBE)
		out[n++] = skel->progs.kprobe__tcp_sendmsg;
	if (plan->egress == PROBE_TRACEPOINT)
		out[n++] = skel->progs.tp_btf__tcp_sendmsg_locked;
	return n;
}

static int configure(
	struct capture_bpf *skel, const struct probe_options *o, const struct probe_plan *plan)
{
	uint64_t ring = ring_size(o->ring_bytes);
	struct bpf_program *prog;
	int r;

	bpf_object__for_each_program(prog, skel->obj)
	{
		r = bpf_program__set_autoload(prog, false);
		if (r)
			return r;
	}
	skel->rodata->use_storage = plan->socket_storage;
	skel->rodata->capture_limit = o->capture_bytes;
	skel->rodata->record_limit = record_limit(ring);
	skel->rodata->ring_bytes = (uint32_t)ring;
	skel->rodata->wakeup_bytes = (uint32_t)MIN(ring / 8, 1U << 20);
	skel->rodata->n_interfaces = o->n_interfaces;
	for (uint32_t i = 0; i < o->n_interfaces; i++)
		snprintf((char *)skel->rodata->interfaces[i], sizeof(skel->rodata->interfaces[i]),
			"%s", o->interfaces[i]);
	skel->rodata->recvmsg_params = facts_of_kernel()->recvmsg_params;
	skel->rodata->by_return = plan->ingress == PROBE_KRETPROBE;
	skel->rodata->ingress_packets = plan->ingress == PROBE_CGROUP_SKB;
	skel->rodata->count_fastopen = plan->egress == PROBE_TRACEPOINT;
	r = bpf_map__set_max_entries(skel->maps.ring, (uint32_t)ring);
	if (!r)
		r = bpf_map__set_max_entries(
			skel->maps.conns, plan->socket_storage ? 1 : o->connections);
	if (!r && plan->ingress != PROBE_CGROUP_SKB)
		r = bpf_map__set_max_entries(skel->maps.owners, 1);
	if (!r && plan->ingress != PROBE_CLEANUP && plan->ingress != PROBE_KRETPROBE)
		r = bpf_map__set_max_entries(skel->maps.receiving, 1);
	return r;
}

/* What this process is called in the initial pid namespace: the kernel side must know it by that.
 */
static void identify(struct probe *p)
{
	LIBBPF_OPTS(bpf_test_run_opts, opts);
	int r = bpf_prog_test_run_opts(bpf_program__fd(p->skel->progs.identify), &opts);

	/* before 5.10 a program cannot be run like this; right wherever there is one pid namespace
	 */
	if (r || p->skel->bss->own_tgid == 0)
		p->skel->bss->own_tgid = (uint32_t)getpid();
}

/* Loads and attaches the plan. -errno; err says what the kernel said. */
static int start(const struct probe_options *o, const struct probe_plan *plan, struct probe *p,
	struct err *err)
{
	CLEANUP(closep)
	int cgroup_fd = -1;
	char why[200];
	int r;

	p->skel = capture_bpf__open();
	if (!p->skel)
		return err_set(err, errno, "the eBPF object cannot be opened: %s", strerror(errno));
	r = configure(p->skel, o, plan);
	if (r)
		return err_set(err, -r, "the eBPF object cannot be set up: %s", strerror(-r));
	if (plan->ingress == PROBE_CGROUP_SKB) {
		cgroup_fd = open_root_cgroup();
		if (cgroup_fd < 0)
			return err_set(err, -cgroup_fd, "no cgroup2 file system is mounted");
	}
	p->n_programs = programs_of(p->skel, plan, p->programs);
	for (size_t i = 0; i < p->n_programs; i++)
		bpf_program__set_autoload(p->programs[i], true);
	bpf_program__set_autoload(p->skel->progs.identify, true);
	libbpf_said.len = 0;
	r = capture_bpf__load(p->skel);
	if (r) {
		libbpf_reason(why, sizeof(why));
		return err_set(
			err, -r, "it does not load: %s%s%s", strerror(-r), why[0] ? ": " : "", why);
	}
	identify(p);
	for (size_t i = 0; i < p->n_programs; i++) {
		bool packets = p->programs[i] == p->skel->progs.cgroup_skb__ingress;

		libbpf_said.len = 0;
		if (!attach(p, p->programs[i], packets ? cgroup_fd : -1)) {
			r = errno ? errno : EIO;
			return err_set(err, r, "%s does not attach: %s",
				bpf_program__name(p->programs[i]), strerror(r));
		}
	}
	return 0;
}

static void stop(struct probe *p)
{
	while (p->n_links > 0)
		bpf_link__destroy(p->links[--p->n_links]);
	capture_bpf__destroy(p->skel);
	p->skel = NULL;
}

/* ---- what this kernel can do ---- */

static int check_basics(
	const struct probe_options *o, const struct kernel_facts *facts, struct err *err)
{
	const char *lacks = kernel_missing_capability(facts, PROBE_NONE);
	struct btf *btf;
	int r;

	libbpf_set_print(libbpf_print);
	r = bpf_map_create(BPF_MAP_TYPE_ARRAY, "ebpfdump_try", 4, 4, 1, NULL);
	if (r < 0) {
		if (r == -EPERM || r == -EACCES)
			return err_set(err, EPERM,
				"eBPF is not permitted%s%s: run as root, or with CAP_BPF, CAP_PERFMON and "
				"CAP_NET_ADMIN (in a container: also no seccomp profile that forbids bpf(2))",
				lacks ? ", without the capability " : "", lacks ? lacks : "");
		return err_set(err, -r, "eBPF does not work here: %s%s", strerror(-r),
			r == -ENOSYS ? " (a kernel with CONFIG_BPF_SYSCALL=y is needed)" : "");
	}
	close(r);
	btf = btf__load_vmlinux_btf();
	if (libbpf_get_error(btf))
		return err_set(err, ENOTSUP,
			"this kernel carries no type information (BTF): /sys/kernel/btf/vmlinux is missing; "
			"a kernel with CONFIG_DEBUG_INFO_BTF=y is needed, as distributions have had since "
			"about 2020");
	btf__free(btf);
	r = o->missing & PROBE_MISSING_RING ? -EINVAL
					    : bpf_map_create(BPF_MAP_TYPE_RINGBUF, "ebpfdump_try",
						      0, 0, (uint32_t)sysconf(_SC_PAGESIZE), NULL);
	if (r < 0)
		return err_set(err, ENOTSUP,
			"this kernel has no eBPF ring buffer (%s): Linux 5.8 or later is needed",
			strerror(-r));
	close(r);
	return 0;
}

/* Reads from the kernel how it preempts now, where that can be changed while it runs. */
static void read_preemption(const struct probe_options *o, struct kernel_facts *facts)
{
	static const struct probe_plan nothing = {.egress = PROBE_NONE, .ingress = PROBE_NONE};
	LIBBPF_OPTS(bpf_test_run_opts, opts);
	struct capture_bpf *skel;
	uint64_t at;

	if (!strstr(facts->version, "PREEMPT_DYNAMIC"))
		return;
	at = kernel_symbol("preempt_dynamic_mode");
	skel = at ? capture_bpf__open() : NULL;
	if (!skel)
		return;
	if (configure(skel, o, &nothing) == 0) {
		skel->rodata->preempt_mode_at = at;
		bpf_program__set_autoload(skel->progs.identify, true);
		if (capture_bpf__load(skel) == 0 &&
			bpf_prog_test_run_opts(bpf_program__fd(skel->progs.identify), &opts) == 0 &&
			skel->bss->preempt_mode <= KERNEL_PREEMPT_LAZY)
			facts->preemption = (enum kernel_preemption)skel->bss->preempt_mode;
	}
	capture_bpf__destroy(skel);
}

/* Loads and attaches one hook by itself, with its state in the socket if it can, and lets it go
 * again. */
static void try_hook(const struct probe_options *o, const struct kernel_facts *facts,
	enum probe_hook h, struct probe_offer *offer)
{
	bool egress = probe_hook_direction(h) == CAPTURE_EGRESS;
	bool kprobe = h == PROBE_KPROBE || h == PROBE_KRETPROBE || h == PROBE_CLEANUP;
	struct err why = {0};

	for (int storage = kprobe ? 0 : 1; storage >= 0 && !offer->works[h]; storage--) {
		struct probe_plan plan = {
			.egress = egress ? h : PROBE_NONE,
			.ingress = egress ? PROBE_NONE : h,
			.socket_storage = storage,
		};
		struct probe p = {.ring_fd = -1};
		int r = start(o, &plan, &p, &why);

		stop(&p);
		offer->works[h] = r == 0;
		offer->storage[h] = r == 0 && storage;
		if (r == -EPERM)
			break;
	}
	if (offer->works[h])
		return;
	snprintf(offer->reason[h], sizeof(offer->reason[h]), "%.250s", why.text);
	kernel_remedy(facts, h, why.code, offer->remedy[h], sizeof(offer->remedy[h]));
}

int probe_try(const struct probe_options *options, bool all, struct probe_offer *ret_offer,
	struct err *err)
{
	struct probe_options small = *options;
	struct probe_offer offer = {0};
	bool found[2] = {false, false};
	CLEANUP(kernel_facts_done)
	struct kernel_facts facts;
	int r;

	kernel_facts_read(&facts);
	r = check_basics(options, &facts, err);
	if (r)
		return r;
	/* maps as small as can be: this only asks */
	small.ring_bytes = 4096;
	small.connections = 1;
	read_preemption(&small, &facts);
	offer.preempts = kernel_preempts(&facts);
	for (unsigned i = 0; i < PROBE_HOOK_MAX; i++) {
		enum probe_hook h = probe_hook_order(offer.preempts, i);
		enum capture_direction d = probe_hook_direction(h);

		if (options->missing & 1U << h)
			snprintf(offer.reason[h], sizeof(offer.reason[h]),
				"counts as missing (EBPFDUMP_TEST_MISSING)");
		else if (!all && (found[d] || !probe_hook_in_family(h, options->family)))
			snprintf(offer.reason[h], sizeof(offer.reason[h]), "not tried");
		else
			try_hook(&small, &facts, h, &offer);
		found[d] |= offer.works[h];
	}
	*ret_offer = offer;
	return 0;
}

void probe_print_offer(FILE *out, const struct probe_offer *offer, const struct probe_plan *plan)
{
	fprintf(out, "%-9s %-28s %-7s %s\n", "DIRECTION", "HOOK", "WORKS", "");
	for (enum probe_hook h = 0; h < PROBE_HOOK_MAX; h++) {
		bool chosen = plan && (plan->egress == h || plan->ingress == h);

		fprintf(out, "%-9s %-28s %-7s %s%s\n",
			probe_hook_direction(h) == CAPTURE_EGRESS ? "egress" : "ingress",
			probe_hook_name(h), offer->works[h] ? "yes" : "no", chosen ? "chosen" : "",
			offer->works[h] ? "" : offer->reason[h]);
		if (offer->remedy[h][0])
			fprintf(out, "%-46s to have it: %s\n", "", offer->remedy[h]);
	}
	if (offer->preempts && (offer->works[PROBE_FENTRY] || offer->works[PROBE_FEXIT]))
		fprintf(out, "This kernel preempts itself, and leaves out runs of fentry and fexit "
			     "programs under load: kprobes come first.\n");
	if (plan)
		fprintf(out, "Connections' state is kept in %s.\n",
			plan->socket_storage ? "the sockets" : "a table");
}

/* ---- running ---- */

/*
 * Of the producer's page and the data, which the kernel shows twice in a row so that no record is
 * cut at the end: of the second time, as much as the largest record needs. All of it would count as
 * resident.
 */
static size_t producer_bytes(const struct probe *p)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	size_t record = BPF_RINGBUF_HDR_SZ + sizeof(struct capture_record) + CAPTURE_DATA_MAX;
	size_t tail = MIN((record + page - 1) / page * page, p->ring_bytes);

	return page + p->ring_bytes + tail;
}

static int map_ring(struct probe *p, struct err *err)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	void *m;

	p->ring_fd = bpf_map__fd(p->skel->maps.ring);
	p->ring_bytes = bpf_map__max_entries(p->skel->maps.ring);
	m = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, p->ring_fd, 0);
	if (m == MAP_FAILED)
		return err_set(err, errno, "the ring buffer cannot be mapped: %s", strerror(errno));
	p->consumer = m;
	m = mmap(NULL, producer_bytes(p), PROT_READ, MAP_SHARED, p->ring_fd, (off_t)page);
	if (m == MAP_FAILED)
		return err_set(err, errno, "the ring buffer cannot be mapped: %s", strerror(errno));
	p->producer = m;
	p->data = (const char *)m + page;
	m = mmap(NULL, CAPTURE_IGNORE_SLOTS * sizeof(uint64_t), PROT_READ | PROT_WRITE, MAP_SHARED,
		bpf_map__fd(p->skel->maps.ignore), 0);
	if (m == MAP_FAILED)
		return err_set(err, errno, "a map cannot be mapped: %s", strerror(errno));
	p->ignore = m;
	return 0;
}

int probe_open(const struct probe_options *options, const struct probe_plan *plan,
	struct probe **ret_probe, struct err *err)
{
	CLEANUP(probe_closep)
	struct probe *p = calloc(1, sizeof(*p));
	struct probe_plan wanted = *plan;
	int r;

	if (!p)
		return err_set(err, ENOMEM, "out of memory");
	p->ring_fd = -1;
	if (!(options->directions & 1U << CAPTURE_EGRESS))
		wanted.egress = PROBE_NONE;
	if (!(options->directions & 1U << CAPTURE_INGRESS))
		wanted.ingress = PROBE_NONE;
	p->plan = wanted;
	p->n_cpus = libbpf_num_possible_cpus();
	if (p->n_cpus < 1)
		return err_set(err, EIO, "the number of CPUs cannot be told");
	r = start(options, &wanted, p, err);
	if (r)
		return r;
	r = map_ring(p, err);
	if (r)
		return r;
	*ret_probe = TAKE(p);
	return 0;
}

void probe_close(struct probe *p)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	if (!p)
		return;
	if (p->ignore)
		munmap(p->ignore, CAPTURE_IGNORE_SLOTS * sizeof(uint64_t));
	if (p->producer)
		munmap((void *)p->producer, producer_bytes(p));
	if (p->consumer)
		munmap(p->consumer, page);
	stop(p);
	free(p);
}

void probe_closep(struct probe **p)
{
	probe_close(*p);
}

int probe_fd(const struct probe *p)
{
	return p->ring_fd;
}

void probe_ignore(struct probe *p, uint64_t connection, bool own)
{
	__atomic_store_n(&p->ignore[CAPTURE_IGNORE_SLOT(connection)],
		connection | (own ? CAPTURE_IGNORE_OWN : 0), __ATOMIC_RELAXED);
}

/* Packets come in no process's name: who reads them is in a map by now, most times. */
static void find_owner(struct probe *p, struct capture_record *rec)
{
	struct capture_owner owner;

	if (bpf_map_lookup_elem(bpf_map__fd(p->skel->maps.owners), &rec->connection, &owner))
		return;
	rec->pid = owner.pid;
	rec->cgroup_id = owner.cgroup_id;
	memcpy(rec->comm, owner.comm, sizeof(rec->comm));
}

int probe_drain(struct probe *p, uint32_t max_records, probe_record_fn fn, void *ctx)
{
	uint64_t at = *p->consumer, mask = p->ring_bytes - 1;
	uint32_t n = 0;

	/* From now on the kernel side asks again; what it did not ask for is seen below. */
	__atomic_store_n(&p->skel->bss->wakeup_asked, 0, __ATOMIC_SEQ_CST);
	while (at < __atomic_load_n(p->producer, __ATOMIC_ACQUIRE)) {
		const char *head = p->data + (at & mask);
		uint32_t len = __atomic_load_n((const uint32_t *)head, __ATOMIC_ACQUIRE);
		const struct capture_record *rec = (const void *)(head + BPF_RINGBUF_HDR_SZ);
		struct capture_record named;

		if (len & BPF_RINGBUF_BUSY_BIT)
			break;
		at += (uint64_t)((len & ~BPF_RINGBUF_DISCARD_BIT) + BPF_RINGBUF_HDR_SZ + 7) / 8 * 8;
		if (!(len & BPF_RINGBUF_DISCARD_BIT)) {
			const char *data = (const char *)(rec + 1);

			if (rec->pid == 0 && rec->type == CAPTURE_DATA &&
				p->plan.ingress == PROBE_CGROUP_SKB) {
				named = *rec;
				find_owner(p, &named);
				rec = &named;
			}
			fn(ctx, rec, data);
			n++;
		}
		/* One store a record: room for the kernel as soon as possible. */
		__atomic_store_n(p->consumer, at, __ATOMIC_RELEASE);
		if (max_records && n >= max_records)
			break;
	}
	p->read += n;
	return (int)n;
}

static void program_info(
	const struct bpf_program *prog, uint64_t *missed, uint64_t *runs, uint64_t *run_ns)
{
	struct bpf_prog_info info = {0};
	uint32_t len = sizeof(info);
	int fd = bpf_program__fd(prog);

	if (fd < 0 || bpf_obj_get_info_by_fd(fd, &info, &len))
		return;
	*missed += info.recursion_misses;
	*runs += info.run_cnt;
	*run_ns += info.run_time_ns;
}

static enum capture_program row_of(const struct capture_bpf *skel, const struct bpf_program *prog)
{
	if (prog == skel->progs.fentry__tcp_sendmsg || prog == skel->progs.kprobe__tcp_sendmsg ||
		prog == skel->progs.tp_btf__tcp_sendmsg_locked)
		return CAPTURE_P_EGRESS;
	if (prog == skel->progs.tp_btf__inet_sock_set_state ||
		prog == skel->progs.raw_tp__inet_sock_set_state)
		return CAPTURE_P_STATE;
	if (prog == skel->progs.tp_btf__tcp_destroy_sock ||
		prog == skel->progs.raw_tp__tcp_destroy_sock)
		return CAPTURE_P_DESTROY;
	return CAPTURE_P_INGRESS;
}

int probe_counters(struct probe *p, struct probe_counters *ret_counters)
{
	CLEANUP(freep)
	struct capture_counters *cpus = calloc((size_t)p->n_cpus, sizeof(*cpus));
	struct probe_counters c = {.read = p->read, .ring_bytes = p->ring_bytes};

	if (!cpus)
		return -ENOMEM;
	for (uint32_t row = 0; row < CAPTURE_P_MAX; row++) {
		uint64_t *sum = (uint64_t *)&c.by_program[row];

		if (bpf_map_lookup_elem(bpf_map__fd(p->skel->maps.counters), &row, cpus))
			return -errno;
		for (int cpu = 0; cpu < p->n_cpus; cpu++)
			for (size_t i = 0; i < sizeof(*cpus) / sizeof(uint64_t); i++)
				sum[i] += ((const uint64_t *)&cpus[cpu])[i];
	}
	for (size_t i = 0; i < p->n_programs; i++) {
		enum capture_program row = row_of(p->skel, p->programs[i]);

		program_info(p->programs[i], &c.missed[row], &c.runs[row], &c.run_ns[row]);
	}
	c.ring_waiting = __atomic_load_n(p->producer, __ATOMIC_ACQUIRE) - *p->consumer;
	*ret_counters = c;
	return 0;
}
