/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernel-checks: does the loader see what really passes through this kernel's TCP?
 *
 *   kernel-checks [--only TEXT] [--quick] [--alone NAME] [--expect HOOKS] -- LOADER [FLAG...]
 *   kernel-checks --refused TEXT [--unprivileged] -- LOADER [FLAG...]
 *
 * Runs the loader with the flags (and its own), makes awkward traffic with plain sockets, and
 * compares each message that the loader prints, at the sender's end and at the receiver's. The same
 * program runs on the machine's own kernel and in the virtual machines (matrix.sh). Traffic is in a
 * network namespace of its own.
 *
 *   --only TEXT      the checks whose name holds TEXT
 *   --alone NAME     there is other traffic on this machine: the loopback device is called NAME,
 * and the loader looks at nothing else
 *   --quick          without those that start further loaders
 *   --expect HOOKS   which hooks are in use, as "kprobe+kretprobe"; anything else fails
 *   --refused TEXT   the loader must not start, and say why in one line that holds TEXT
 *   --unprivileged   as an ordinary user
 *
 * What a kind of hook cannot see is said where it is expected, never left out.
 */
#include "test/kernel/netns.h"
#include "test/kernel/traffic.h"

#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

static void start_main(void)
{
	loader_start(&(struct loader_options){.argv = loader_argv});
}

static const char *refused_text, *expected_hooks;

static const char *hooks_text(void)
{
	static const char *const names[] = {"none", "fentry", "kprobe", "tracepoint", "fexit",
		"cleanup", "kretprobe", "cgroup_skb"};
	static char text[64];

	snprintf(text, sizeof(text), "%s+%s", names[loader()->egress], names[loader()->ingress]);
	return text;
}

static void check_hooks(void)
{
	EXPECT(strcmp(hooks_text(), expected_hooks) == 0, "%s are in use instead of %s",
		hooks_text(), expected_hooks);
}

static void check_refused(void)
{
	char *out, *err;
	int status = loader_run(loader_argv, NULL, &out, &err);
	size_t lines = 0;

	for (const char *at = err; (at = strchr(at, '\n')); at++)
		lines++;
	EXPECT(status == 1, "exit status %d instead of 1", status);
	EXPECT(strstr(err, refused_text), "'%s' is not said: %s", refused_text, err);
	EXPECT(lines == 1 && strlen(err) < 2000, "it takes %zu lines to say: %s", lines, err);
	EXPECT(!*out, "there is output: %s", out);
	free(out);
	free(err);
}

static void run_list(const char *prefix, const struct check *list, const char *only)
{
	for (; list->name; list++)
		check_run(prefix, list, only);
}

int main(int argc, char **argv)
{
	const struct check start = {"the loader is ready", start_main};
	const struct check stop = {"the loader ends", loader_stop};
	const struct check hooks = {"the hooks are as expected", check_hooks};
	const struct check refused = {"the loader refuses this kernel", check_refused};
	const char *only = NULL;
	char prefix[128] = "";
	bool quick = false, unprivileged = false;
	int at = 1, err;

	for (; at < argc && strcmp(argv[at], "--") != 0; at++) {
		if (strcmp(argv[at], "--only") == 0 && at + 1 < argc)
			only = argv[++at];
		else if (strcmp(argv[at], "--refused") == 0 && at + 1 < argc)
			refused_text = argv[++at];
		else if (strcmp(argv[at], "--expect") == 0 && at + 1 < argc)
			expected_hooks = argv[++at];
		else if (strcmp(argv[at], "--unprivileged") == 0)
			unprivileged = true;
		else if (strcmp(argv[at], "--quick") == 0)
			quick = true;
		else if (strcmp(argv[at], "--alone") == 0 && at + 1 < argc)
			loopback = argv[++at];
		else
			break;
	}
	if (at + 1 >= argc || strcmp(argv[at], "--") != 0) {
		fprintf(stderr,
			"usage: kernel-checks [--only TEXT] [--quick] [--alone NAME] [--expect HOOKS] "
			"[--refused TEXT] [--unprivileged] -- LOADER [FLAG...]\n");
		return 2;
	}
	loader_argv = argv + at + 1;
	prctl(PR_SET_NAME, "kernel-checks");
	err = netns_own(loopback);
	if (err) {
		fprintf(stderr, "kernel-checks: no network namespace of its own: %s\n",
			strerror(-err));
		return 2;
	}
	if (refused_text) {
		if (unprivileged &&
			(setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534)))
			perror("kernel-checks: setresuid");
		check_run("", &refused, NULL);
		return check_summary();
	}
	open_early();
	open_half();
	check_run("", &start, NULL);
	if (loader()->ready) {
		snprintf(prefix, sizeof(prefix), "%s: ", hooks_text());
		if (expected_hooks)
			check_run(prefix, &hooks, NULL);
		run_list(prefix, messages_checks, only);
		run_list(prefix, calls_checks, only);
		run_list(prefix, ledger_checks, only);
		check_run(prefix, &stop, NULL);
		if (!quick)
			run_list(prefix, runs_checks, only);
	}
	return check_summary();
}
