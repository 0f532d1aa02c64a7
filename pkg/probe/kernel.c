/* SPDX-License-Identifier: Apache-2.0 */
#include "pkg/probe/kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <sys/utsname.h>
#include <unistd.h>
#include <zlib.h>

#define CONFIG_MAX (1U << 20)

/* ---- reading ---- */

/* The first line of a file, without its end; "" if there is none. */
static void read_line(const char *path, char *out, size_t size)
{
	CLEANUP(closep)
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, out, size - 1);

	out[n > 0 ? n : 0] = '\0';
	out[strcspn(out, "\n")] = '\0';
}

static uint64_t capabilities(void)
{
	CLEANUP(fclosep)
	FILE *f = fopen("/proc/self/status", "re");
	char line[256];
	uint64_t effective;

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "CapEff: %" SCNx64, &effective) == 1)
			return effective;
	return UINT64_MAX;
}

static bool cgroup2_mounted(void)
{
	char path[PATH_MAX];

	return mount_find("cgroup2", path, sizeof(path)) == 0;
}

/* Compressed or not. */
static bool read_config(const char *path, struct buf *config)
{
	gzFile f = gzopen(path, "re");
	char piece[16384];
	int n = 0;

	if (!f)
		return false;
	while ((n = gzread(f, piece, sizeof(piece))) > 0)
		if (buf_append(config, piece, (size_t)n))
			break;
	gzclose(f);
	return n == 0 && config->len > 0;
}

void kernel_facts_read(struct kernel_facts *facts)
{
	char line[256], path[128];
	struct utsname u;

	*facts = (struct kernel_facts){.config = BUF_INIT(CONFIG_MAX)};
	facts->capabilities = capabilities();
	facts->cgroup2 = cgroup2_mounted();
	read_line("/sys/kernel/security/lockdown", line, sizeof(line));
	facts->locked = strstr(line, "[confidentiality]") != NULL;
	read_line("/proc/sys/net/core/bpf_jit_enable", line, sizeof(line));
	facts->no_jit = strcmp(line, "0") == 0;
	read_line("/proc/cmdline", facts->cmdline, sizeof(facts->cmdline));
	if (uname(&u))
		return;
	snprintf(facts->machine, sizeof(facts->machine), "%s", u.machine);
	snprintf(facts->version, sizeof(facts->version), "%s", u.version);
	snprintf(path, sizeof(path), "/boot/config-%s", u.release);
	if (!read_config("/proc/config.gz", &facts->config) && !read_config(path, &facts->config))
		facts->config.len = 0;
}

void kernel_facts_done(struct kernel_facts *facts)
{
	buf_done(&facts->config);
}

uint64_t kernel_symbol(const char *name)
{
	CLEANUP(fclosep)
	FILE *f = fopen("/proc/kallsyms", "re");
	char line[512], found[256];
	uint64_t address;

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "%" SCNx64 " %*c %255s", &address, found) == 2 &&
			strcmp(found, name) == 0)
			return address;
	return 0;
}

/* ---- what follows from it ---- */

char kernel_config(const struct kernel_facts *facts, const char *option)
{
	const char *p = facts->config.data, *end = p + facts->config.len;
	size_t len = strlen(option);

	if (facts->config.len == 0)
		return '?';
	while (p < end) {
		const char *nl = memchr(p, '\n', (size_t)(end - p));
		size_t n = nl ? (size_t)(nl - p) : (size_t)(end - p);

		if (n > len + 1 && memcmp(p, option, len) == 0 && p[len] == '=')
			return p[len + 1];
		p += n + 1;
	}
	return 'n';
}

static bool ends_word(const char *p)
{
	return *p == '\0' || *p == ' ';
}

/* preempt=MODE, the last one that is given. */
static enum kernel_preemption preemption_asked_for(const char *cmdline)
{
	static const char *const modes[] = {"none", "voluntary", "full", "lazy"};
	static const char key[] = "preempt=";
	enum kernel_preemption found = KERNEL_PREEMPT_UNKNOWN;
	const char *p = cmdline;

	for (; (p = strstr(p, key)) != NULL; p += sizeof(key) - 1) {
		const char *value = p + sizeof(key) - 1;

		if (p > cmdline && p[-1] != ' ')
			continue;
		for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
			size_t len = strlen(modes[i]);

			if (strncmp(value, modes[i], len) == 0 && ends_word(value + len))
				found = (enum kernel_preemption)(KERNEL_PREEMPT_NONE + i);
		}
	}
	return found;
}

static bool mode_preempts(enum kernel_preemption mode)
{
	return mode != KERNEL_PREEMPT_NONE && mode != KERNEL_PREEMPT_VOLUNTARY;
}

bool kernel_preempts(const struct kernel_facts *facts)
{
	enum kernel_preemption asked;

	if (facts->version[0] && !strstr(facts->version, "PREEMPT"))
		return false;
	/* built for one mode: PREEMPT, PREEMPT_RT */
	if (facts->version[0] && !strstr(facts->version, "PREEMPT_DYNAMIC"))
		return true;
	if (facts->preemption != KERNEL_PREEMPT_UNKNOWN)
		return mode_preempts(facts->preemption);
	asked = preemption_asked_for(facts->cmdline);
	if (asked != KERNEL_PREEMPT_UNKNOWN)
		return mode_preempts(asked);
	/* what it does if nobody asks */
	return kernel_config(facts, "CONFIG_PREEMPT_NONE") != 'y' &&
	       kernel_config(facts, "CONFIG_PREEMPT_VOLUNTARY") != 'y';
}

const char *kernel_missing_capability(const struct kernel_facts *facts, enum probe_hook hook)
{
	uint64_t have = facts->capabilities;

	if (have >> CAP_SYS_ADMIN_ & 1)
		return NULL;
	if (!(have >> CAP_BPF_ & 1))
		return "CAP_BPF";
	if (!(have >> CAP_PERFMON_ & 1))
		return "CAP_PERFMON";
	if (hook == PROBE_CGROUP_SKB && !(have >> CAP_NET_ADMIN_ & 1))
		return "CAP_NET_ADMIN";
	return NULL;
}

/* What a kernel must be built with, first the options that say most; and since when it can. */
static const struct {
	const char *options[3];
	const char *since;
} needs[PROBE_HOOK_MAX] = {
	[PROBE_FENTRY] = {{"CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS", "CONFIG_BPF_JIT"},
		"Linux 5.5 or later (on arm64: 6.0)"},
	[PROBE_KPROBE] = {{"CONFIG_KPROBES", "CONFIG_KPROBE_EVENTS", "CONFIG_BPF_EVENTS"},
		"Linux 4.17 or later"},
	[PROBE_TRACEPOINT] = {{"CONFIG_BPF_EVENTS"}, "Linux 6.16 or later"},
	[PROBE_FEXIT] = {{"CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS", "CONFIG_BPF_JIT"},
		"Linux 5.5 or later (on arm64: 6.0)"},
	[PROBE_CLEANUP] = {{"CONFIG_KPROBES", "CONFIG_KPROBE_EVENTS", "CONFIG_BPF_EVENTS"},
		"Linux 4.17 or later"},
	[PROBE_KRETPROBE] = {{"CONFIG_KRETPROBES", "CONFIG_KPROBE_EVENTS", "CONFIG_BPF_EVENTS"},
		"Linux 4.17 or later"},
	[PROBE_CGROUP_SKB] = {{"CONFIG_CGROUP_BPF"}, "Linux 5.10 or later"},
};

/* "A=y, B=y": those that are not there, or all if that cannot be told. False: all are there. */
static bool missing_options(
	const struct kernel_facts *facts, enum probe_hook hook, char *out, size_t size)
{
	size_t used = 0;

	out[0] = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(needs[hook].options); i++) {
		const char *option = needs[hook].options[i];

		if (option && kernel_config(facts, option) != 'y' && used < size)
			used += (size_t)snprintf(
				out + used, size - used, "%s%s=y", used ? ", " : "", option);
	}
	return used > 0;
}

void kernel_remedy(
	const struct kernel_facts *facts, enum probe_hook hook, int code, char *out, size_t size)
{
	const char *capability = kernel_missing_capability(facts, hook);
	bool fentry = hook == PROBE_FENTRY || hook == PROBE_FEXIT;
	char options[160];

	if (capability)
		snprintf(out, size,
			"give it the capability %s (docker run --cap-add %s; Kubernetes: "
			"securityContext.capabilities.add), or run it as root",
			capability, capability + sizeof("CAP_") - 1);
	else if (hook == PROBE_CGROUP_SKB && !facts->cgroup2)
		snprintf(out, size,
			"mount cgroup v2: mkdir -p /sys/fs/cgroup/unified && "
			"mount -t cgroup2 none /sys/fs/cgroup/unified");
	else if (facts->locked)
		snprintf(out, size,
			"the kernel is locked down for confidentiality: boot it without "
			"lockdown=confidentiality");
	else if (fentry && facts->no_jit)
		snprintf(out, size, "switch the compiler on: sysctl net.core.bpf_jit_enable=1");
	else if (missing_options(facts, hook, options, sizeof(options)) && facts->config.len > 0)
		snprintf(out, size, "a kernel built with %s", options);
	else if (code == EPERM || code == EACCES)
		snprintf(out, size,
			"something besides capabilities forbids it: a seccomp profile (allow bpf(2) "
			"and perf_event_open(2)), a security module, or the kernel itself");
	else if (options[0])
		snprintf(out, size, "%s, built with %s", needs[hook].since, options);
	else
		snprintf(out, size, "%s; --log-level debug shows all that the kernel said",
			needs[hook].since);
}
