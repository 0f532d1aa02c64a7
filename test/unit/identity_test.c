/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The names are tested as the runtimes and the kubelet write them; the hierarchy as plain
 * directories of a tmpfs, whose inode numbers are their ids, and not used again, as those of
 * cgroups are; and as cgroups where those may be made. Processes in them: the native tests.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pkg/identity/identity.h"

#define UID    "0a1b2c3d-1111-2222-3333-444455556666"
#define UID_   "0a1b2c3d_1111_2222_3333_444455556666"
#define STATIC "0123456789abcdef0123456789abcdef"
#define ID     "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define OTHER  "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100"
#define S      UINT64_C(1000000000)

/* ---- names ---- */

START_TEST(cgroup_paths)
{
	static const struct {
		const char *path, *uid, *container;
	} cases[] = {
		/* systemd's driver: containerd, CRI-O, cri-dockerd; guaranteed, burstable */
		{"/kubepods.slice/kubepods-pod" UID_ ".slice/cri-containerd-" ID ".scope", UID, ID},
		{"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" UID_
		 ".slice/cri-containerd-" ID ".scope",
			UID, ID},
		{"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod" UID_
		 ".slice/crio-" ID ".scope",
			UID, ID},
		{"/kubepods.slice/kubepods-pod" UID_ ".slice/crio-" ID ".scope/container", UID, ID},
		{"/kubepods.slice/kubepods-pod" UID_ ".slice/docker-" ID ".scope", UID, ID},
		/* a static pod's uid is a hash */
		{"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" STATIC
		 ".slice/cri-containerd-" ID ".scope",
			STATIC, ID},
		/* the cgroupfs driver */
		{"/kubepods/burstable/pod" UID "/" ID, UID, ID},
		{"/kubepods/pod" STATIC "/" ID, STATIC, ID},
		{"/kubepods/burstable/pod" UID, UID, ""},
		/* kind: a node that is a container, as its loader sees it; as the machine's does */
		{"/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod" UID_
		 ".slice/cri-containerd-" ID ".scope",
			UID, ID},
		{"/system.slice/docker-" OTHER
		 ".scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod" UID_
		 ".slice/cri-containerd-" ID ".scope",
			"", OTHER},
		/* Docker in a pod; a container that would like to be another pod */
		{"/kubepods/pod" UID "/" ID "/docker/" OTHER, UID, ID},
		{"/kubepods/pod" UID "/" ID "/kubepods/pod" STATIC "/" OTHER, UID, ID},
		/* likewise, and its runtime names containers otherwise */
		{"/kubepods/pod" UID "/web-1/pod" STATIC "/" OTHER, UID, OTHER},
		/* no pod */
		{"/system.slice/docker-" ID ".scope", "", ID},
		{"/docker/" ID, "", ID},
		{"/machine.slice/libpod-" ID ".scope/container", "", ID},
		{"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" ID ".scope", "",
			ID},
		{"/docker/" ID "/docker/" OTHER, "", ID},
		/* nothing of the kind */
		{"", "", ""},
		{"/", "", ""},
		{"/system.slice/ssh.service", "", ""},
		{"/system.slice/pod-cleaner.service", "", ""},
		{"/machine.slice/libpod_pod_" ID ".slice", "", ""},
		{"/a/x" ID, "", ""},
		{"/a/" ID "0", "", ""},
		{"/a/kubepods-pod0a1b2c3d-1111-2222-3333-44445555666g.slice", "", ""},
		{"/a/kubepods-pod0a1b2c3d.1111_2222_3333_444455556666.slice", "", ""},
		{"/a/nopod" UID, "", ""},
		{"/a/pod", "", ""},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct identity_ids ids;

		identity_parse_cgroup(cases[i].path, &ids);
		ck_assert_msg(strcmp(ids.uid, cases[i].uid) == 0 &&
				      strcmp(ids.container, cases[i].container) == 0,
			"%s: %s, %s", cases[i].path, ids.uid, ids.container);
	}
}
END_TEST

/* Names that look like these, and are not: memory of exactly their size, for the sanitizers. */
START_TEST(nearly)
{
	static const char *const texts[] = {"/kubepods.slice/kubepods-pod" UID_
					    ".slice/cri-containerd-" ID ".scope",
		"/kubepods/pod" STATIC "/" ID, "shop_web-5f7d_" UID, "web_shop_nginx-" ID ".log"};
	static const char odd[] = "/_-.ag\x80\xff";

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		size_t len = strlen(texts[i]);

		for (size_t cut = 0; cut <= len; cut++) {
			for (size_t at = 0; at < cut; at++) {
				char *text = strndup(texts[i], cut);
				struct identity_names names;
				struct identity_ids ids;

				text[at] = odd[(at + cut) % (sizeof(odd) - 1)];
				identity_parse_cgroup(text, &ids);
				ck_assert_uint_le(strlen(ids.uid), IDENTITY_UID_LEN);
				ck_assert(!ids.container[0] ||
					  strlen(ids.container) == IDENTITY_CONTAINER_LEN);
				if (identity_parse_link(text, ID, &names))
					ck_assert(names.pod.len && names.namespace.len &&
						  names.container.len);
				if (identity_parse_pod_dir(text, UID, &names.namespace, &names.pod))
					ck_assert(names.pod.len && names.namespace.len);
				free(text);
			}
		}
	}
}
END_TEST

#define ck_assert_span(s, text) ck_assert(span_eq(s, span_str(text)))

START_TEST(kubelets_names)
{
	struct span namespace = {0}, pod = {0};
	struct identity_names n = {0};
	static const char *const no_dirs[] = {"", "shop", "shop_web", "shop_web_" STATIC,
		"_web_" UID, "shop__" UID, "shop_web_" UID "_", "shop_web-" UID, UID};
	static const char *const no_links[] = {"", ".log", ID ".log", "-" ID ".log",
		"web_shop_nginx-" ID, "web_shop_-" ID ".log", "web_shop" ID ".log",
		"web_shop_nginx" ID ".log", "web_shop_nginx-" OTHER ".log",
		"_shop_nginx-" ID ".log", "web__nginx-" ID ".log", "web-nginx-" ID ".log"};

	ck_assert(identity_parse_pod_dir("shop_web-5f7d.x_" UID, UID, &namespace, &pod));
	ck_assert_span(namespace, "shop");
	ck_assert_span(pod, "web-5f7d.x");
	ck_assert(
		identity_parse_pod_dir("kube-system_etcd-node_" STATIC, STATIC, &namespace, &pod));
	for (size_t i = 0; i < ARRAY_SIZE(no_dirs); i++)
		ck_assert_msg(!identity_parse_pod_dir(no_dirs[i], UID, &namespace, &pod), "%s",
			no_dirs[i]);
	ck_assert(identity_parse_link("web-5f7d.x_shop_my-nginx-" ID ".log", ID, &n));
	ck_assert_span(n.namespace, "shop");
	ck_assert_span(n.pod, "web-5f7d.x");
	ck_assert_span(n.container, "my-nginx");
	for (size_t i = 0; i < ARRAY_SIZE(no_links); i++)
		ck_assert_msg(!identity_parse_link(no_links[i], ID, &n), "%s", no_links[i]);
}
END_TEST

/* ---- a hierarchy ---- */

struct world {
	char root[64];
	char cgroups[80], logs[80];
	struct identity *identity;
	uint64_t now;
};

static uint64_t make(struct world *w, const char *part, const char *path)
{
	char full[PATH_MAX];
	struct stat st;

	snprintf(full, sizeof(full), "%s%s", w->root, part);
	/* each directory on the way */
	for (const char *p = path; p; p = strchr(p + 1, '/')) {
		const char *end = strchr(p + 1, '/');

		snprintf(full, sizeof(full), "%s%s%.*s", w->root, part,
			(int)(end ? end - path : (long)strlen(path)), path);
		ck_assert(mkdir(full, 0700) == 0 || errno == EEXIST);
	}
	ck_assert_int_eq(stat(full, &st), 0);
	return st.st_ino;
}

static uint64_t make_cgroup(struct world *w, const char *path)
{
	return make(w, "/cgroups", path);
}

static void remove_cgroup(struct world *w, const char *path)
{
	char full[PATH_MAX];

	snprintf(full, sizeof(full), "%s%s", w->cgroups, path);
	ck_assert_int_eq(rmdir(full), 0);
}

static void make_link(struct world *w, const char *name)
{
	char full[PATH_MAX];

	snprintf(full, sizeof(full), "%s/containers/%s", w->logs, name);
	ck_assert_int_eq(symlink("nowhere", full), 0);
}

static void world_init(struct world *w)
{
	*w = (struct world){.root = "/dev/shm/ebpfdump-identity-XXXXXX", .now = 1000 * S};
	ck_assert_ptr_nonnull(mkdtemp(w->root));
	make(w, "", "/cgroups");
	make(w, "", "/logs");
	make(w, "/logs", "/pods");
	make(w, "/logs", "/containers");
	snprintf(w->cgroups, sizeof(w->cgroups), "%s/cgroups", w->root);
	snprintf(w->logs, sizeof(w->logs), "%s/logs", w->root);
}

static void world_open(struct world *w, uint32_t max)
{
	struct identity_options options = {.cgroups = w->cgroups, .pod_logs = w->logs, .max = max};
	struct err err = {0};

	ck_assert_msg(identity_new(&options, &w->identity, &err) == 0, "%s", err.text);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static void world_done(struct world *w)
{
	identity_free(w->identity);
	nftw(w->root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

#define WORLD               \
	CLEANUP(world_done) \
	struct world

static void check_names(
	struct world *w, uint64_t id, const char *namespace, const char *pod, const char *container)
{
	const struct identity_names *n = identity_find(w->identity, id, w->now);

	ck_assert_ptr_nonnull(n);
	ck_assert_msg(span_eq(n->namespace, span_str(namespace)), "%.*s", (int)n->namespace.len,
		n->namespace.p);
	ck_assert_msg(span_eq(n->pod, span_str(pod)), "%.*s", (int)n->pod.len, n->pod.p);
	ck_assert_msg(span_eq(n->container, span_str(container)), "%.*s", (int)n->container.len,
		n->container.p);
}

static struct identity_stats stats_of(struct world *w)
{
	struct identity_stats s;

	identity_stats(w->identity, &s);
	return s;
}

#define POD   "/kubepods.slice/kubepods-pod" UID_ ".slice"
#define WEB   POD "/cri-containerd-" ID ".scope"
#define PROXY POD "/cri-containerd-" OTHER ".scope"

START_TEST(what_is_there)
{
	WORLD w;
	uint64_t web, proxy, inner, ssh, docker;

	world_init(&w);
	web = make_cgroup(&w, WEB);
	proxy = make_cgroup(&w, PROXY);
	inner = make_cgroup(&w, WEB "/inner/most");
	ssh = make_cgroup(&w, "/system.slice/ssh.service");
	docker = make_cgroup(&w, "/docker/" OTHER);
	make(&w, "/logs/pods", "/shop_web-5f7d_" UID);
	make(&w, "/logs/pods", "/other_one_" STATIC);
	make_link(&w, "web-5f7d_shop_nginx-" ID ".log");
	make_link(&w, "web-5f7d_shop_proxy-" OTHER ".log");
	world_open(&w, 100);
	ck_assert_uint_eq(stats_of(&w).cgroups, 11);
	for (int i = 0; i < 3; i++) {
		check_names(&w, web, "shop", "web-5f7d", "nginx");
		check_names(&w, proxy, "shop", "web-5f7d", "proxy");
		check_names(&w, inner, "shop", "web-5f7d", "nginx");
		check_names(&w, docker, "", "", "ffeeddccbbaa");
	}
	ck_assert_ptr_null(identity_find(w.identity, ssh, w.now));
	ck_assert_ptr_null(identity_find(w.identity, 0, w.now));
	ck_assert_ptr_null(identity_find(w.identity, UINT64_MAX, w.now));
}
END_TEST

START_TEST(comes_and_goes)
{
	WORLD w;
	uint64_t web, proxy;

	world_init(&w);
	world_open(&w, 100);
	/* a whole path at once: no event for what is made before its parent is watched */
	web = make_cgroup(&w, WEB);
	check_names(&w, web, "", "", "");
	make(&w, "/logs/pods", "/shop_web_" UID);
	/* not asked again at once */
	check_names(&w, web, "", "", "");
	w.now += S / 10;
	check_names(&w, web, "shop", "web", "");
	make_link(&w, "web_shop_nginx-" ID ".log");
	check_names(&w, web, "shop", "web", "");
	w.now += S;
	check_names(&w, web, "shop", "web", "nginx");
	/* its last messages come when it is gone */
	remove_cgroup(&w, WEB);
	identity_update(w.identity);
	check_names(&w, web, "shop", "web", "nginx");
	/* one of the same name is another one */
	proxy = make_cgroup(&w, PROXY);
	make_link(&w, "web_shop_proxy-" OTHER ".log");
	w.now += 1;
	check_names(&w, proxy, "shop", "web", "proxy");
	check_names(&w, web, "shop", "web", "nginx");
	ck_assert_uint_eq(stats_of(&w).left_out, 0);
}
END_TEST

/* Each name is asked for ever more seldom: a container that never gets one costs next to nothing.
 */
START_TEST(backs_off)
{
	WORLD w;
	uint64_t web, asked = 0;
	char from[PATH_MAX], to[PATH_MAX];

	world_init(&w);
	web = make_cgroup(&w, WEB);
	world_open(&w, 100);
	check_names(&w, web, "", "", "");
	snprintf(from, sizeof(from), "%s/hidden", w.logs);
	make(&w, "/logs", "/hidden");
	make(&w, "/logs/hidden", "/shop_web_" UID);
	/* for an hour, ten times a second: when would it be found? */
	for (int i = 0; i < 36000; i++, w.now += S / 10)
		if (i % 600 == 0)
			check_names(&w, web, "", "", "");
	snprintf(to, sizeof(to), "%s/pods/shop_web_" UID, w.logs);
	snprintf(from, sizeof(from), "%s/hidden/shop_web_" UID, w.logs);
	ck_assert_int_eq(rename(from, to), 0);
	while (identity_find(w.identity, web, w.now)->pod.len == 0) {
		w.now += S;
		asked++;
		ck_assert_uint_le(asked, 61);
	}
	check_names(&w, web, "shop", "web", "");
}
END_TEST

START_TEST(full)
{
	WORLD w;
	uint64_t first, second, third;

	world_init(&w);
	first = make_cgroup(&w, "/docker/" ID);
	world_open(&w, 3);
	check_names(&w, first, "", "", "001122334455");
	second = make_cgroup(&w, "/docker/" OTHER);
	identity_update(w.identity);
	ck_assert_uint_eq(stats_of(&w).cgroups, 3);
	ck_assert_uint_eq(stats_of(&w).left_out, 1);
	w.now++;
	ck_assert_ptr_null(identity_find(w.identity, second, w.now));
	/* what is gone makes room, and not before */
	remove_cgroup(&w, "/docker/" ID);
	identity_update(w.identity);
	check_names(&w, first, "", "", "001122334455");
	third = make_cgroup(&w, "/docker/docker-" OTHER ".scope");
	identity_update(w.identity);
	check_names(&w, third, "", "", "ffeeddccbbaa");
	ck_assert_ptr_null(identity_find(w.identity, first, w.now));
	ck_assert_uint_eq(stats_of(&w).cgroups, 3);
}
END_TEST

static unsigned watches(const struct world *w)
{
	char line[256];
	unsigned n = 0;
	FILE *f;

	snprintf(line, sizeof(line), "/proc/self/fdinfo/%d", identity_fd(w->identity));
	f = fopen(line, "re");
	ck_assert_ptr_nonnull(f);
	while (fgets(line, sizeof(line), f))
		n += strncmp(line, "inotify ", 8) == 0;
	fclose(f);
	return n;
}

static void gone_is_gone(struct world *w)
{
	uint64_t first, second;

	make_cgroup(w, "/docker");
	world_open(w, 3);
	for (int i = 0; i < 10; i++) {
		first = make_cgroup(w, "/docker/" ID);
		identity_update(w->identity);
		ck_assert_uint_eq(watches(w), 3);
		remove_cgroup(w, "/docker/" ID);
		identity_update(w->identity);
		ck_assert_uint_eq(watches(w), 2);
		check_names(w, first, "", "", "001122334455");
	}
	/* all of this is told at once: the events of the first are about the second's path */
	first = make_cgroup(w, "/docker/" ID);
	remove_cgroup(w, "/docker/" ID);
	second = make_cgroup(w, "/docker/" ID);
	identity_update(w->identity);
	ck_assert_uint_ne(first, second);
	check_names(w, second, "", "", "001122334455");
	ck_assert_uint_eq(watches(w), 3);
	/* it is not taken for one that is gone */
	make_cgroup(w, "/docker/" OTHER);
	identity_update(w->identity);
	check_names(w, second, "", "", "001122334455");
	ck_assert_uint_eq(stats_of(w).left_out, 1);
	ck_assert_uint_eq(stats_of(w).cgroups, 3);
	remove_cgroup(w, "/docker/" OTHER);
	remove_cgroup(w, "/docker/" ID);
	remove_cgroup(w, "/docker");
	identity_update(w->identity);
	ck_assert_uint_eq(watches(w), 1);
}

START_TEST(gone)
{
	WORLD w;

	world_init(&w);
	gone_is_gone(&w);
}
END_TEST

static void remove_root(char (*root)[80])
{
	rmdir(*root);
}

/* The kernel tells less of these than of directories: nothing to those who watch one itself. */
START_TEST(gone_cgroup)
{
	CLEANUP(remove_root)
	char root[80] = "";
	WORLD w;
	char mount[40], path[80];

	world_init(&w);
	if (mount_find("cgroup2", mount, sizeof(mount))) {
		puts("gone_cgroup: SKIPPED, no cgroup2 file system is mounted here");
		return;
	}
	snprintf(w.cgroups, sizeof(w.cgroups), "%s/ebpfdump-identity-%d", mount, getpid());
	if (mkdir(w.cgroups, 0700)) {
		printf("gone_cgroup: SKIPPED, %s: %s\n", w.cgroups, strerror(errno));
		return;
	}
	memcpy(root, w.cgroups, sizeof(root));
	/* where make() makes them */
	snprintf(path, sizeof(path), "%s/cgroups", w.root);
	ck_assert_int_eq(rmdir(path), 0);
	ck_assert_int_eq(symlink(root, path), 0);
	gone_is_gone(&w);
}
END_TEST

/* A name that readdir() shows and most tools do not. */
START_TEST(hidden)
{
	WORLD w;
	uint64_t id;

	world_init(&w);
	id = make_cgroup(&w, "/docker/" ID "/.inner");
	world_open(&w, 100);
	check_names(&w, id, "", "", "001122334455");
}
END_TEST

START_TEST(no_logs)
{
	WORLD w;
	struct identity_options options = {.pod_logs = "", .max = 10};
	struct err err = {0};
	uint64_t web;

	world_init(&w);
	web = make_cgroup(&w, WEB);
	options.cgroups = w.cgroups;
	ck_assert_int_eq(identity_new(&options, &w.identity, &err), 0);
	check_names(&w, web, "", "", "");
	identity_free(w.identity);
	w.identity = NULL;
	options.cgroups = "/nowhere/at/all";
	ck_assert_int_eq(identity_new(&options, &w.identity, &err), -ENOENT);
	ck_assert_ptr_nonnull(strstr(err.text, "/nowhere/at/all"));
}
END_TEST

/* More comes than the kernel's queue holds. */
START_TEST(overflow)
{
	WORLD w;
	uint64_t max = 16384, last = 0;
	char path[64];
	FILE *f = fopen("/proc/sys/fs/inotify/max_queued_events", "re");

	if (f) {
		ck_assert_int_eq(fscanf(f, "%lu", &max), 1);
		fclose(f);
	}
	world_init(&w);
	make_cgroup(&w, "/busy");
	make_cgroup(&w, "/docker");
	world_open(&w, 1000);
	for (uint64_t i = 0; i <= max + 10; i++) {
		snprintf(path, sizeof(path), "/busy/%lu", i);
		make_cgroup(&w, path);
		remove_cgroup(&w, path);
	}
	last = make_cgroup(&w, "/docker/" ID);
	check_names(&w, last, "", "", "001122334455");
	ck_assert_uint_ge(stats_of(&w).overflows, 1);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("identity");
	TCase *t = tcase_create("identity");
	SRunner *runner;
	int failed;

	tcase_set_timeout(t, 120);
	tcase_add_test(t, cgroup_paths);
	tcase_add_test(t, kubelets_names);
	tcase_add_test(t, nearly);
	tcase_add_test(t, what_is_there);
	tcase_add_test(t, comes_and_goes);
	tcase_add_test(t, backs_off);
	tcase_add_test(t, full);
	tcase_add_test(t, gone);
	tcase_add_test(t, gone_cgroup);
	tcase_add_test(t, hidden);
	tcase_add_test(t, no_logs);
	tcase_add_test(t, overflow);
	suite_add_tcase(s, t);
	runner = srunner_create(s);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
