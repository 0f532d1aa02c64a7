/* SPDX-License-Identifier: Apache-2.0 */
/* Which of the wanted network devices exist, in any network namespace that can be seen from here.
 */
#include "pkg/probe/probe.h"

#include <ctype.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/stat.h>

/* Names in a file like /proc/PID/net/dev: "  eth0: 1 2 3". Returns those still missing. */
static uint32_t look(const char *path, const struct probe_options *o, uint32_t missing)
{
	CLEANUP(fclosep)
	FILE *f = fopen(path, "re");
	char line[512];

	while (f && missing && fgets(line, sizeof(line), f)) {
		const char *name = line + strspn(line, " ");
		size_t len = strcspn(name, ":");

		for (uint32_t i = 0; i < o->n_interfaces; i++)
			if (span_eq(span_of(name, len), span_str(o->interfaces[i])))
				missing &= ~(1U << i);
	}
	return missing;
}

/* The namespaces seen so far; of more, some are looked at twice. */
struct seen {
	ino_t inodes[1024];
	size_t n;
};

static bool seen_before(struct seen *seen, const char *path)
{
	struct stat st;

	if (stat(path, &st))
		return true;
	for (size_t i = 0; i < seen->n; i++)
		if (seen->inodes[i] == st.st_ino)
			return true;
	if (seen->n < ARRAY_SIZE(seen->inodes))
		seen->inodes[seen->n++] = st.st_ino;
	return false;
}

/* A namespace without processes must be entered to be looked at: by a thread, which ends in it. */
struct visit {
	const char *path;
	const struct probe_options *options;
	uint32_t missing;
};

static void *visit(void *ctx)
{
	struct visit *v = ctx;
	CLEANUP(closep)
	int fd = open(v->path, O_RDONLY | O_CLOEXEC);

	if (fd >= 0 && setns(fd, CLONE_NEWNET) == 0)
		v->missing = look("/proc/thread-self/net/dev", v->options, v->missing);
	return NULL;
}

/* Namespaces with a name, as `ip netns` and container runtimes keep them. */
static uint32_t look_at_named(
	const char *folder, const struct probe_options *o, struct seen *seen, uint32_t missing)
{
	CLEANUP(closedirp)
	DIR *dir = opendir(folder);
	struct dirent *e;

	while (missing && dir && (e = readdir(dir))) {
		struct visit v = {.options = o, .missing = missing};
		char path[512];
		pthread_t thread;

		snprintf(path, sizeof(path), "%s/%s", folder, e->d_name);
		if (e->d_name[0] == '.' || seen_before(seen, path))
			continue;
		v.path = path;
		if (pthread_create(&thread, NULL, visit, &v) == 0) {
			pthread_join(thread, NULL);
			missing = v.missing;
		}
	}
	return missing;
}

uint32_t probe_unknown_interfaces(const struct probe_options *o)
{
	uint32_t missing = o->n_interfaces < 32 ? (1U << o->n_interfaces) - 1 : ~0U;
	CLEANUP(closedirp)
	DIR *proc = opendir("/proc");
	struct seen seen = {.n = 0};
	struct dirent *e;

	missing = look("/proc/self/net/dev", o, missing);
	while (missing && proc && (e = readdir(proc))) {
		char path[300];

		if (!isdigit((unsigned char)e->d_name[0]))
			continue;
		snprintf(path, sizeof(path), "/proc/%s/ns/net", e->d_name);
		if (seen_before(&seen, path))
			continue;
		snprintf(path, sizeof(path), "/proc/%s/net/dev", e->d_name);
		missing = look(path, o, missing);
	}
	missing = look_at_named("/run/netns", o, &seen, missing);
	return look_at_named("/run/docker/netns", o, &seen, missing);
}
