/* SPDX-License-Identifier: Apache-2.0 */
/* probe: what is said about a kernel that lacks something, and whether it preempts itself. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>

#include "pkg/probe/kernel.h"

#define CAP(n) (UINT64_C(1) << (n))

static struct kernel_facts facts_of(const char *version, const char *cmdline, const char *config)
{
	struct kernel_facts facts = {
		.capabilities = UINT64_MAX, .cgroup2 = true, .config = BUF_INIT(4096)};

	snprintf(facts.version, sizeof(facts.version), "%s", version);
	snprintf(facts.cmdline, sizeof(facts.cmdline), "%s", cmdline);
	ck_assert_int_eq(buf_append(&facts.config, config, strlen(config)), 0);
	return facts;
}

/* ---- preemption ---- */

#define DYNAMIC	  "#1 SMP PREEMPT_DYNAMIC Debian 6.1.1-1 (2023-01-01)"
#define NONE	  "# CONFIG_PREEMPT is not set\nCONFIG_PREEMPT_NONE=y\n"
#define VOLUNTARY "CONFIG_PREEMPT_VOLUNTARY=y\n# CONFIG_PREEMPT is not set\n"

static const struct {
	const char *version, *cmdline, *config;
	enum kernel_preemption mode;
	bool preempts;
} preemptions[] = {
	/* built without, or for good */
	{"#1 SMP Debian 5.10.1-1", "", "", KERNEL_PREEMPT_UNKNOWN, false},
	{"#1 SMP PREEMPT Mon Jan 1", "", NONE, KERNEL_PREEMPT_UNKNOWN, true},
	{"#1 SMP PREEMPT_RT Mon Jan 1", "preempt=none", "", KERNEL_PREEMPT_UNKNOWN, true},
	/* the kernel itself knows best */
	{DYNAMIC, "preempt=full", "", KERNEL_PREEMPT_NONE, false},
	{DYNAMIC, "preempt=full", "", KERNEL_PREEMPT_VOLUNTARY, false},
	{DYNAMIC, "preempt=none", NONE, KERNEL_PREEMPT_FULL, true},
	{DYNAMIC, "preempt=none", NONE, KERNEL_PREEMPT_LAZY, true},
	/* then what was asked for: the last word */
	{DYNAMIC, "quiet preempt=none", "", KERNEL_PREEMPT_UNKNOWN, false},
	{DYNAMIC, "preempt=none preempt=lazy quiet", NONE, KERNEL_PREEMPT_UNKNOWN, true},
	{DYNAMIC, "preempt=full preempt=voluntary", "", KERNEL_PREEMPT_UNKNOWN, false},
	/* no such word */
	{DYNAMIC, "nopreempt=full preempt=fuller", NONE, KERNEL_PREEMPT_UNKNOWN, false},
	/* then what it was built to do */
	{DYNAMIC, "quiet", VOLUNTARY, KERNEL_PREEMPT_UNKNOWN, false},
	{DYNAMIC, "quiet", "CONFIG_PREEMPT_LAZY=y\n", KERNEL_PREEMPT_UNKNOWN, true},
	/* nobody says */
	{DYNAMIC, "", "", KERNEL_PREEMPT_UNKNOWN, true},
	{"", "", "", KERNEL_PREEMPT_UNKNOWN, true},
};

START_TEST(preemption)
{
	struct kernel_facts facts =
		facts_of(preemptions[_i].version, preemptions[_i].cmdline, preemptions[_i].config);

	facts.preemption = preemptions[_i].mode;
	ck_assert_int_eq(kernel_preempts(&facts), preemptions[_i].preempts);
	kernel_facts_done(&facts);
}
END_TEST

START_TEST(config)
{
	struct kernel_facts facts = facts_of("", "",
		"# CONFIG_KPROBES is not set\nCONFIG_BPF_JIT=y\nCONFIG_VETH=m\nCONFIG_A_LONG=y\nCONFIG_LAST=y");

	ck_assert_int_eq(kernel_config(&facts, "CONFIG_BPF_JIT"), 'y');
	ck_assert_int_eq(kernel_config(&facts, "CONFIG_VETH"), 'm');
	ck_assert_int_eq(kernel_config(&facts, "CONFIG_KPROBES"), 'n');
	ck_assert_int_eq(kernel_config(&facts, "CONFIG_A"), 'n');
	ck_assert_int_eq(kernel_config(&facts, "CONFIG_LAST"), 'y');
	facts.config.len = 0;
	ck_assert_int_eq(kernel_config(&facts, "CONFIG_BPF_JIT"), '?');
	kernel_facts_done(&facts);
}
END_TEST

/* ---- remedies ---- */

#define EVERYTHING                                                        \
	"CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS=y\nCONFIG_BPF_JIT=y\n"   \
	"CONFIG_KPROBES=y\nCONFIG_KRETPROBES=y\nCONFIG_KPROBE_EVENTS=y\n" \
	"CONFIG_BPF_EVENTS=y\nCONFIG_CGROUP_BPF=y\n"

static const struct {
	uint64_t lacks; /* capabilities */
	bool no_cgroup2, locked, no_jit;
	const char *config;
	enum probe_hook hook;
	int code;
	const char *says, *not ;
} remedies[] = {
	{.lacks = CAP(CAP_SYS_ADMIN_) | CAP(CAP_BPF_),
		.config = "",
		.hook = PROBE_FENTRY,
		.code = EPERM,
		.says = "capability CAP_BPF (docker run --cap-add BPF;"},
	{.lacks = CAP(CAP_SYS_ADMIN_) | CAP(CAP_PERFMON_),
		.config = EVERYTHING,
		.hook = PROBE_KPROBE,
		.code = EACCES,
		.says = "capability CAP_PERFMON"},
	{.lacks = CAP(CAP_SYS_ADMIN_) | CAP(CAP_NET_ADMIN_),
		.config = EVERYTHING,
		.hook = PROBE_CGROUP_SKB,
		.code = EPERM,
		.says = "capability CAP_NET_ADMIN"},
	{.lacks = CAP(CAP_SYS_ADMIN_) | CAP(CAP_NET_ADMIN_),
		.config = EVERYTHING,
		.hook = PROBE_FENTRY,
		.code = EINVAL,
		.says = "Linux 5.5 or later",
		.not = "CAP_"},
	/* CAP_SYS_ADMIN is all of them */
	{.lacks = CAP(CAP_BPF_) | CAP(CAP_PERFMON_),
		.config = EVERYTHING,
		.hook = PROBE_FENTRY,
		.code = EPERM,
		.says = "seccomp",
		.not = "CAP_"},
	{.no_cgroup2 = true,
		.config = EVERYTHING,
		.hook = PROBE_CGROUP_SKB,
		.code = ENOENT,
		.says = "mount -t cgroup2 none"},
	{.no_cgroup2 = true,
		.config = EVERYTHING,
		.hook = PROBE_KPROBE,
		.code = ENOENT,
		.says = "Linux 4.17 or later",
		.not = "mount"},
	{.locked = true,
		.config = EVERYTHING,
		.hook = PROBE_KPROBE,
		.code = EPERM,
		.says = "without lockdown=confidentiality"},
	{.no_jit = true,
		.config = EVERYTHING,
		.hook = PROBE_FEXIT,
		.code = EINVAL,
		.says = "sysctl net.core.bpf_jit_enable=1"},
	{.no_jit = true,
		.config = EVERYTHING,
		.hook = PROBE_TRACEPOINT,
		.code = EINVAL,
		.says = "Linux 6.16 or later",
		.not = "sysctl"},
	/* what is not there is named, and nothing else */
	{.config = "CONFIG_BPF_JIT=y\n",
		.hook = PROBE_FENTRY,
		.code = EINVAL,
		.says = "a kernel built with CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS=y",
		.not = "CONFIG_BPF_JIT"},
	{.config = "CONFIG_KPROBES=y\nCONFIG_BPF_EVENTS=y\n",
		.hook = PROBE_KRETPROBE,
		.code = ENOENT,
		.says = "a kernel built with CONFIG_KRETPROBES=y, CONFIG_KPROBE_EVENTS=y",
		.not = "CONFIG_BPF_EVENTS"},
	/* the configuration cannot be read: all that it takes */
	{.config = "",
		.hook = PROBE_CLEANUP,
		.code = ENOENT,
		.says = "Linux 4.17 or later, built with CONFIG_KPROBES=y, CONFIG_KPROBE_EVENTS=y, "
			"CONFIG_BPF_EVENTS=y"},
	{.config = "", .hook = PROBE_CGROUP_SKB, .code = EINVAL, .says = "CONFIG_CGROUP_BPF=y"},
};

START_TEST(remedy)
{
	struct kernel_facts facts = facts_of("", "", remedies[_i].config);
	char text[256];

	facts.capabilities &= ~remedies[_i].lacks;
	facts.cgroup2 = !remedies[_i].no_cgroup2;
	facts.locked = remedies[_i].locked;
	facts.no_jit = remedies[_i].no_jit;
	kernel_remedy(&facts, remedies[_i].hook, remedies[_i].code, text, sizeof(text));
	ck_assert_msg(strstr(text, remedies[_i].says) != NULL, "'%s' does not say '%s'", text,
		remedies[_i].says);
	if (remedies[_i].not )
		ck_assert_msg(strstr(text, remedies[_i].not ) == NULL, "'%s' says '%s'", text,
			remedies[_i].not );
	kernel_facts_done(&facts);
}
END_TEST

/* Whatever is wrong, there is an answer, and it is whole. */
START_TEST(remedy_fits)
{
	struct kernel_facts facts = facts_of("", "", "");
	char text[256];

	for (enum probe_hook h = 0; h < PROBE_HOOK_MAX; h++)
		for (unsigned i = 0; i < 32; i++) {
			facts.capabilities = i & 1 ? UINT64_MAX : 0;
			facts.cgroup2 = i & 2;
			facts.locked = i & 4;
			facts.no_jit = i & 8;
			kernel_remedy(&facts, h, i & 16 ? EPERM : ENOENT, text, sizeof(text));
			ck_assert_uint_gt(strlen(text), 0);
			ck_assert_uint_lt(strlen(text), sizeof(text) - 1);
		}
	kernel_facts_done(&facts);
}
END_TEST

/* Of the machine that runs this: only that it can be asked. */
START_TEST(this_kernel)
{
	struct kernel_facts facts;

	kernel_facts_read(&facts);
	ck_assert_uint_gt(strlen(facts.version), 0);
	ck_assert_uint_gt(strlen(facts.machine), 0);
	ck_assert_uint_eq(kernel_symbol("there is no such symbol"), 0);
	kernel_facts_done(&facts);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("kernel");
	TCase *t = tcase_create("kernel");
	SRunner *runner;
	int failed;

	tcase_add_loop_test(t, preemption, 0, ARRAY_SIZE(preemptions));
	tcase_add_test(t, config);
	tcase_add_loop_test(t, remedy, 0, ARRAY_SIZE(remedies));
	tcase_add_test(t, remedy_fits);
	tcase_add_test(t, this_kernel);
	suite_add_tcase(s, t);
	runner = srunner_create(s);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
