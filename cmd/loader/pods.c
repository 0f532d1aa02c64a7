/* SPDX-License-Identifier: Apache-2.0 */
/* Whose messages they are. Without it the loader does its work all the same: what fails here is a
 * warning. */
#include "cmd/loader/loader.h"

#include <sys/epoll.h>

static void on_cgroups(void *ctx, int fd, uint32_t events)
{
	struct loader *l = ctx;

	identity_update(l->identity);
}

int pods_wire(struct loader *l)
{
	const struct identity_options options = {
		.cgroups = l->cgroups,
		.pod_logs = l->spec->pod_logs,
		.max = (uint32_t)l->spec->cgroups,
	};
	struct err err = {0};

	if (!l->spec->pod_logs[0])
		return 0;
	if (mount_find("cgroup2", l->cgroups, sizeof(l->cgroups))) {
		log_warn("no cgroup2 file system is mounted: messages name no pod");
		return 0;
	}
	if (identity_new(&options, &l->identity, &err)) {
		log_warn("messages name no pod: %s", err.text);
		return 0;
	}
	return loop_add_fd(l->loop, identity_fd(l->identity), EPOLLIN, on_cgroups, l,
		&(struct loop_source *){0});
}

void pods_name(struct loader *l, struct dump_message *m)
{
	const struct identity_names *names =
		l->identity ? identity_find(l->identity, m->conn->cgroup_id, l->turn_ns) : NULL;

	if (names)
		m->pod = (struct dump_pod){names->namespace, names->pod, names->container};
}
