/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hierarchy, mirrored: a table of cgroups by id, and of those that are there by path and by the
 * inotify watch on each. What is gone keeps its place until it is needed (its last messages are
 * still on their way), the oldest first.
 *
 * That a cgroup is gone, its parent's watch tells. Its own does not: the kernel neither sends
 * IN_DELETE_SELF for one nor ends the watch, which keeps the inode until it is removed here.
 */
#include "pkg/identity/identity.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define BUCKETS	       4096
#define RETRY_FIRST_NS UINT64_C(100000000)
#define RETRY_MAX_NS   UINT64_C(60000000000)
#define SWEEP_NS       UINT64_C(60000000000)
/* Deeper than any runtime nests; the kernel's own limit (cgroup.max.depth) is none by default. */
#define DEPTH_MAX   32
#define EVENT_BYTES (sizeof(struct inotify_event) + NAME_MAX + 1)
#define WATCHED	    (IN_CREATE | IN_DELETE | IN_ONLYDIR | IN_DONT_FOLLOW | IN_EXCL_UNLINK)

/* A container's names, as far as they are known. */
struct container {
	struct identity_ids ids;
	struct identity_names names; /* parts of what the two below point to, or of ids */
	char *pod_dir, *link;
	uint64_t retry_ns, wait_ns;
};

struct cgroup {
	struct cgroup *next_id, *next_path, *next_watch; /* of the bucket */
	struct cgroup *next_gone;
	uint64_t id;
	int watch; /* -1: none */
	bool gone;
	struct container *container; /* NULL: none */
	char path[];
};

struct identity {
	struct identity_options options;
	int fd;
	struct cgroup *by_id[BUCKETS], *by_path[BUCKETS], *by_watch[BUCKETS];
	struct cgroup *oldest_gone, **last_gone;
	struct cgroup *latest; /* found last: the next question is mostly the same */
	struct identity_stats stats;
	uint64_t swept_ns, updated_ns;
	bool said_full, said_unwatched;
};

/* ---- the table ---- */

static struct cgroup **id_bucket(struct identity *d, uint64_t id)
{
	return &d->by_id[(id * UINT64_C(0x9e3779b97f4a7c15)) >> 52];
}

static struct cgroup **watch_bucket(struct identity *d, int watch)
{
	return &d->by_watch[(unsigned int)watch % BUCKETS];
}

/* FNV-1a */
static struct cgroup **path_bucket(struct identity *d, const char *path)
{
	uint32_t hash = 2166136261;

	for (; *path; path++)
		hash = (hash ^ (unsigned char)*path) * 16777619;
	return &d->by_path[(hash ^ hash >> 16) % BUCKETS];
}

static struct cgroup *cgroup_of_id(struct identity *d, uint64_t id)
{
	struct cgroup *c = *id_bucket(d, id);

	while (c && c->id != id)
		c = c->next_id;
	return c;
}

static struct cgroup *cgroup_of_watch(struct identity *d, int watch)
{
	struct cgroup *c = *watch_bucket(d, watch);

	while (c && c->watch != watch)
		c = c->next_watch;
	return c;
}

static void container_free(struct container *c)
{
	if (!c)
		return;
	free(c->pod_dir);
	free(c->link);
	free(c);
}

static void forget(struct identity *d, struct cgroup *c)
{
	struct cgroup **at = id_bucket(d, c->id);

	while (*at != c)
		at = &(*at)->next_id;
	*at = c->next_id;
	if (d->latest == c)
		d->latest = NULL;
	container_free(c->container);
	free(c);
	d->stats.cgroups--;
}

static void drop_watch(struct identity *d, struct cgroup *c)
{
	struct cgroup **at = watch_bucket(d, c->watch);

	while (*at != c)
		at = &(*at)->next_watch;
	*at = c->next_watch;
	c->watch = -1;
}

static void drop_path(struct identity *d, struct cgroup *c)
{
	struct cgroup **at = path_bucket(d, c->path);

	while (*at != c)
		at = &(*at)->next_path;
	*at = c->next_path;
}

static void set_gone(struct identity *d, struct cgroup *c)
{
	if (c->watch >= 0) {
		/* EINVAL: the kernel has ended it, as it does when the file system is unmounted */
		inotify_rm_watch(d->fd, c->watch);
		drop_watch(d, c);
	}
	drop_path(d, c);
	c->gone = true;
	*d->last_gone = c;
	d->last_gone = &c->next_gone;
}

static bool is_there(const struct cgroup *c)
{
	struct stat st;

	return stat(c->path, &st) == 0 && st.st_ino == c->id;
}

/* Looks which are gone, where no event told it. */
static void sweep(struct identity *d)
{
	for (size_t i = 0; i < BUCKETS; i++)
		for (struct cgroup *c = d->by_id[i]; c; c = c->next_id)
			if (!c->gone && !is_there(c))
				set_gone(d, c);
	d->swept_ns = clock_mono_ns();
}

/* Whether there is room for one more. */
static bool make_room(struct identity *d)
{
	struct cgroup *c;

	if (d->stats.cgroups < d->options.max)
		return true;
	if (!d->oldest_gone && clock_mono_ns() - d->swept_ns > SWEEP_NS)
		sweep(d);
	c = d->oldest_gone;
	if (!c) {
		d->stats.left_out++;
		if (!d->said_full)
			log_warn("more than %u cgroups: messages of further ones name no pod (see "
				 "--cgroups)",
				d->options.max);
		d->said_full = true;
		return false;
	}
	d->oldest_gone = c->next_gone;
	if (!d->oldest_gone)
		d->last_gone = &d->oldest_gone;
	forget(d, c);
	return true;
}

/* ---- names ---- */

static bool complete(const struct container *c)
{
	return c->names.container.len > 0 && (c->names.pod.len > 0 || !c->ids.uid[0]);
}

/* Calls fn with each name in a directory of the pods' logs until it says that it is done. */
static void each_name(const struct identity *d, const char *directory,
	bool (*fn)(struct container *, const char *name), struct container *c)
{
	CLEANUP(closedirp)
	DIR *dir = NULL;
	char path[PATH_MAX];
	struct dirent *e;

	snprintf(path, sizeof(path), "%s/%s", d->options.pod_logs, directory);
	dir = opendir(path);
	while (dir && (e = readdir(dir)))
		if (fn(c, e->d_name))
			return;
}

static bool take_pod_dir(struct container *c, const char *name)
{
	struct span namespace, pod;

	if (!identity_parse_pod_dir(name, c->ids.uid, &namespace, &pod))
		return false;
	c->pod_dir = strdup(name);
	if (c->pod_dir)
		identity_parse_pod_dir(c->pod_dir, c->ids.uid, &c->names.namespace, &c->names.pod);
	return true;
}

static bool take_link(struct container *c, const char *name)
{
	struct identity_names names;

	if (!identity_parse_link(name, c->ids.container, &names))
		return false;
	c->link = strdup(name);
	if (c->link)
		identity_parse_link(c->link, c->ids.container, &c->names);
	return true;
}

static void look_up(struct identity *d, struct container *c, uint64_t now_ns)
{
	if (!d->options.pod_logs[0])
		return;
	if (c->ids.container[0])
		each_name(d, "containers", take_link, c);
	if (!c->names.pod.len)
		each_name(d, "pods", take_pod_dir, c);
	c->retry_ns = now_ns + c->wait_ns;
	c->wait_ns = MIN(2 * c->wait_ns, RETRY_MAX_NS);
}

static struct container *container_new(const char *path)
{
	struct identity_ids ids;
	struct container *c;

	identity_parse_cgroup(path, &ids);
	if (!ids.uid[0] && !ids.container[0])
		return NULL;
	c = calloc(1, sizeof(*c));
	if (!c)
		return NULL;
	c->ids = ids;
	c->wait_ns = RETRY_FIRST_NS;
	if (!ids.uid[0])
		c->names.container = span_of(c->ids.container, 12);
	return c;
}

/* ---- the hierarchy ---- */

static void watch(struct identity *d, struct cgroup *c)
{
	int w = inotify_add_watch(d->fd, c->path, WATCHED);
	struct cgroup **at, *other;

	if (w >= 0) {
		/* one of the same path, gone between the look at it and the watch, which is now
		 * on this one */
		other = cgroup_of_watch(d, w);
		if (other)
			drop_watch(d, other);
		c->watch = w;
		at = watch_bucket(d, w);
		c->next_watch = *at;
		*at = c;
		return;
	}
	if (errno == ENOENT || errno == ENOTDIR)
		return; /* gone already */
	d->stats.unwatched++;
	if (!d->said_unwatched)
		log_warn("cgroup %s cannot be watched: %s; messages of containers that start in it "
			 "name no pod%s",
			c->path, strerror(errno),
			errno == ENOSPC ? ": raise fs.inotify.max_user_watches, and start anew"
					: "");
	d->said_unwatched = true;
}

/* Whether what is in it is worth a look: it is not gone, and there is room. */
static bool enter(struct identity *d, const char *path)
{
	size_t len = strlen(path);
	struct cgroup *c, **at;
	struct stat st;

	if (stat(path, &st))
		return false;
	if (cgroup_of_id(d, st.st_ino))
		return true;
	if (!make_room(d))
		return false;
	c = calloc(1, sizeof(*c) + len + 1);
	if (!c) {
		d->stats.left_out++;
		return false;
	}
	memcpy(c->path, path, len + 1);
	c->id = st.st_ino;
	c->watch = -1;
	c->container = container_new(path + strlen(d->options.cgroups));
	at = id_bucket(d, c->id);
	c->next_id = *at;
	*at = c;
	at = path_bucket(d, c->path);
	c->next_path = *at;
	*at = c;
	d->stats.cgroups++;
	/* watched first, read then: what is made in between is seen twice rather than never */
	watch(d, c);
	return true;
}

/* path: a buffer of PATH_MAX bytes, changed behind its end while it runs. */
static void walk(struct identity *d, char *path, int depth)
{
	CLEANUP(closedirp)
	DIR *dir = NULL;
	size_t len = strlen(path);
	struct dirent *e;

	if (depth > DEPTH_MAX || !enter(d, path))
		return;
	dir = opendir(path);
	while (dir && (e = readdir(dir))) {
		if (e->d_type != DT_DIR || strcmp(e->d_name, ".") == 0 ||
			strcmp(e->d_name, "..") == 0 || len + strlen(e->d_name) + 2 > PATH_MAX)
			continue;
		snprintf(path + len, PATH_MAX - len, "/%s", e->d_name);
		walk(d, path, depth + 1);
		path[len] = '\0';
	}
}

static void walk_all(struct identity *d)
{
	char path[PATH_MAX];
	int n = snprintf(path, sizeof(path), "%s", d->options.cgroups);

	if (n > 0 && (size_t)n < sizeof(path))
		walk(d, path, 0);
}

/* One of that path is gone, and perhaps there is another one already. */
static void on_deleted(struct identity *d, const char *path)
{
	struct cgroup *c = *path_bucket(d, path), *next;

	for (; c; c = next) {
		next = c->next_path;
		if (strcmp(c->path, path) == 0 && !is_there(c))
			set_gone(d, c);
	}
}

static void on_event(struct identity *d, const struct inotify_event *e)
{
	const struct cgroup *c = cgroup_of_watch(d, e->wd);
	char path[PATH_MAX];
	int n;

	if (e->mask & IN_Q_OVERFLOW) {
		d->stats.overflows++;
		sweep(d);
		walk_all(d);
	}
	if (!c || !(e->mask & IN_ISDIR) || e->len == 0)
		return;
	n = snprintf(path, sizeof(path), "%s/%s", c->path, e->name);
	if (n < 0 || (size_t)n >= sizeof(path))
		return;
	if (e->mask & IN_CREATE)
		walk(d, path, 0);
	else
		on_deleted(d, path);
}

/* What is in the queue now, and no more: who makes cgroups without a pause does not keep us here.
 */
void identity_update(struct identity *d)
{
	_Alignas(struct inotify_event) char events[16 * EVENT_BYTES];
	int queued = 0;
	ssize_t n;

	if (ioctl(d->fd, FIONREAD, &queued))
		return;
	for (; queued > 0 && (n = read(d->fd, events, sizeof(events))) > 0; queued -= (int)n) {
		const char *p = events;

		while (p < events + n) {
			const struct inotify_event *e = (const void *)p;

			on_event(d, e);
			p += sizeof(*e) + e->len;
		}
	}
}

const struct identity_names *identity_find(struct identity *d, uint64_t cgroup_id, uint64_t now_ns)
{
	struct cgroup *c = d->latest;
	struct container *box;

	if (cgroup_id == 0)
		return NULL;
	if (!c || c->id != cgroup_id)
		c = cgroup_of_id(d, cgroup_id);
	if (!c && now_ns != d->updated_ns) {
		/* it may have been made a moment ago */
		d->updated_ns = now_ns;
		identity_update(d);
		c = cgroup_of_id(d, cgroup_id);
	}
	if (!c)
		return NULL;
	d->latest = c;
	box = c->container;
	if (!box)
		return NULL;
	if (!complete(box) && now_ns >= box->retry_ns)
		look_up(d, box, now_ns);
	return &box->names;
}

void identity_stats(const struct identity *d, struct identity_stats *ret_stats)
{
	*ret_stats = d->stats;
}

int identity_fd(const struct identity *d)
{
	return d->fd;
}

int identity_new(
	const struct identity_options *options, struct identity **ret_identity, struct err *err)
{
	struct identity *d = calloc(1, sizeof(*d));

	if (!d)
		return err_set(err, ENOMEM, "no memory");
	d->options = *options;
	d->last_gone = &d->oldest_gone;
	d->fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (d->fd < 0) {
		int r = err_set(err, errno, "cgroups cannot be watched: %s%s", strerror(errno),
			errno == EMFILE ? ": raise fs.inotify.max_user_instances" : "");

		identity_free(d);
		return r;
	}
	walk_all(d);
	if (d->stats.cgroups == 0) {
		int r = err_set(err, ENOENT, "%s: no cgroups can be read there", options->cgroups);

		identity_free(d);
		return r;
	}
	*ret_identity = d;
	return 0;
}

void identity_free(struct identity *d)
{
	if (!d)
		return;
	for (size_t i = 0; i < BUCKETS; i++)
		while (d->by_id[i])
			forget(d, d->by_id[i]);
	if (d->fd >= 0)
		close(d->fd);
	free(d);
}
