/* SPDX-License-Identifier: Apache-2.0 */
/* Which of the wanted network devices exist, in any network namespace that can be seen from here.
 */
#include "pkg/probe/probe.h"

#include <ctype.h>
#include <dirent.h>
#include <stdlib.h>
#include <sys/stat.h>

/* Names in /proc/PID/net/dev: "  eth0: 1 2 3". Returns the names that are still missing. */
static uint32_t look(const char *pid, const struct probe_options *o, uint32_t missing)
{
	char path[300], line[512];
	CLEANUP(fclosep)
	FILE *f = NULL;

	snprintf(path, sizeof(path), "/proc/%s/net/dev", pid);
	f = fopen(path, "re");
	while (f && missing && fgets(line, sizeof(line), f)) {
		const char *name = line + strspn(line, " ");
		size_t len = strcspn(name, ":");

		for (uint32_t i = 0; i < o->n_interfaces; i++)
			if (span_eq(span_of(name, len), span_str(o->interfaces[i])))
				missing &= ~(1U << i);
	}
	return missing;
}

static void closedirp(DIR **d)
{
	if (*d)
		closedir(*d);
}

uint32_t probe_unknown_interfaces(const struct probe_options *o)
{
	uint32_t missing = o->n_interfaces < 32 ? (1U << o->n_interfaces) - 1 : ~0U;
	CLEANUP(closedirp)
	DIR *proc = opendir("/proc");
	ino_t seen[1024]; /* namespaces looked at; of more, some are looked at twice */
	size_t n_seen = 0;
	struct dirent *e;

	missing = look("self", o, missing);
	while (missing && proc && (e = readdir(proc))) {
		struct stat st;
		char path[300];
		size_t i;

		if (!isdigit((unsigned char)e->d_name[0]))
			continue;
		snprintf(path, sizeof(path), "/proc/%s/ns/net", e->d_name);
		if (stat(path, &st))
			continue;
		for (i = 0; i < n_seen && seen[i] != st.st_ino; i++)
			;
		if (i < n_seen)
			continue;
		if (n_seen < ARRAY_SIZE(seen))
			seen[n_seen++] = st.st_ino;
		missing = look(e->d_name, o, missing);
	}
	return missing;
}
