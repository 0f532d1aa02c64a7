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
	int r;

	if (!l->spec->pod_logs[0])
		return 0;
	r = mount_find("cgroup2", l->cgroups, sizeof(l->cgroups));
	if (r)
		err_set(&err, -r, "no cgroup2 file system is mounted");
	else
		r = identity_new(&options, &l->identity, &err);
	if (r) {
		log_warn("messages name no pod%s: %s",
			l->spec->namespaces.count ? ", so that --namespace lets none through" : "",
			err.text);
		return 0;
	}
	return loop_add_fd(l->loop, identity_fd(l->identity), EPOLLIN, on_cgroups, l,
		&(struct loop_source *){0});
}

bool pods_pass(struct loader *l, struct dump_message *m)
{
	const struct identity_names *names =
		l->identity ? identity_find(l->identity, m->conn->cgroup_id, l->turn_ns) : NULL;
	const struct spec_names *wanted = &l->spec->namespaces;

	if (names)
		m->pod = (struct dump_pod){names->namespace, names->pod, names->container};
	for (uint32_t i = 0; i < wanted->count; i++)
		if (span_eq(m->pod.namespace, span_str(wanted->names[i])))
			return true;
	return wanted->count == 0;
}
