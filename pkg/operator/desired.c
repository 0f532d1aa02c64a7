/* SPDX-License-Identifier: Apache-2.0 */
/* The loaders' DaemonSet and their Secret, as pure functions of the resource and the settings. */
#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#include "pkg/operator/internal.h"

#define MIB (UINT64_C(1024) * 1024)
/* What a loader needs besides the buffers whose sizes are options: program, type information while
 * it loads, connections, and room. Measured 96 MiB with 10 000 open connections, 64 MiB of them
 * buffers. */
#define MEMORY_BASE_MIB 160
/* What it and the kernel, which watches it, hold of a control group (pkg/identity). */
#define CGROUP_BYTES 1600
#define SECRET_DIR   "/etc/ebpfdump/callback"
#define MARKER_DIR   "/etc/ebpfdump/marker"
#define SPOOL_DIR    "/var/spool/ebpfdump"
#define CGROUP_DIR   "/sys/fs/cgroup"
/* Where the kubelet keeps pods' logs; the loader's default of --pod-logs. */
#define POD_LOGS_DIR "/var/log"
#define KEY_BYTES    32
#define GRACE_S	     10 /* beyond --flush-timeout, before a loader is killed */

static bool has_callback(const struct spec_resource *spec)
{
	return spec->loader.callback[0] != '\0';
}

static bool has_spool(const struct spec_resource *spec)
{
	return has_callback(spec) && spec->loader.spool_bytes > 0;
}

/* So that loaders know each other's POSTs. */
bool operator_needs_secret(const struct spec_resource *spec)
{
	return has_callback(spec);
}

/* ---- arguments ---- */

/* Kubernetes puts the values of variables in place of $(NAME); what a user wrote stays as it is. */
static void put_arg(struct maker *m, struct json_object *args, const char *text)
{
	char *out = malloc(2 * strlen(text) + 1);
	size_t len = 0;

	if (!out) {
		m->failed = true;
		return;
	}
	for (; *text; text++) {
		if (*text == '$')
			out[len++] = '$';
		out[len++] = *text;
	}
	out[len] = '\0';
	make_item_string(m, args, out);
	free(out);
}

/* "--flag=dir/name" */
static void put_file(struct maker *m, struct json_object *args, const char *flag, const char *dir,
	const char *name)
{
	char text[256];

	snprintf(text, sizeof(text), "--%s=%s/%s", flag, dir, name);
	make_item_string(m, args, text);
}

/* Keys of the user's Secret: the file each is mounted as, and the flag that reads it. */
static const struct secret_file {
	size_t offset; /* of the key's name */
	const char *file, *flag;
} secret_files[] = {
	{offsetof(struct spec_secret, headers), "headers", "callback-header-file"},
	{offsetof(struct spec_secret, hmac), "hmac", "callback-hmac-file"},
	{offsetof(struct spec_secret, ca), "ca.crt", "callback-ca"},
	{offsetof(struct spec_secret, cert), "tls.crt", "callback-cert"},
	{offsetof(struct spec_secret, key), "tls.key", "callback-key"},
};

static const char *key_named(const struct spec_secret *secret, const struct secret_file *f)
{
	return *(const char *const *)(const void *)((const char *)secret + f->offset);
}

static void put_args(
	struct maker *m, struct json_object *container, const struct spec_resource *spec)
{
	struct json_object *args = make_array(m, container, "args");
	char listen[32];

	make_item_string(m, args, "--node=$(NODE_NAME)");
	make_item_string(m, args, "--output=json");
	snprintf(listen, sizeof(listen), "--listen=:%d", OPERATOR_PORT);
	make_item_string(m, args, listen);
	for (int i = 1; i < spec->argc; i++)
		put_arg(m, args, spec->argv[i]);
	for (size_t i = 0; has_callback(spec) && i < ARRAY_SIZE(secret_files); i++)
		if (spec->secret.name && key_named(&spec->secret, &secret_files[i]))
			put_file(m, args, secret_files[i].flag, SECRET_DIR, secret_files[i].file);
	if (operator_needs_secret(spec))
		put_file(m, args, "marker-key-file", MARKER_DIR, OPERATOR_SECRET_KEY);
	if (has_spool(spec))
		make_item_string(m, args, "--spool-dir=" SPOOL_DIR);
}

/* ---- volumes ---- */

static void put_mount(struct maker *m, struct json_object *mounts, const char *name,
	const char *path, bool read_only)
{
	struct json_object *mount = make_item_object(m, mounts);

	make_string(m, mount, "name", name);
	make_string(m, mount, "mountPath", path);
	if (read_only)
		make_bool(m, mount, "readOnly", true);
}

static struct json_object *put_volume(
	struct maker *m, struct json_object *volumes, const char *name)
{
	struct json_object *volume = make_item_object(m, volumes);

	make_string(m, volume, "name", name);
	return volume;
}

static struct json_object *put_secret_volume(struct maker *m, struct json_object *volumes,
	const char *name, const char *secret_name, struct json_object **ret_items)
{
	struct json_object *secret = make_object(m, put_volume(m, volumes, name), "secret");

	make_string(m, secret, "secretName", secret_name);
	make_int(m, secret, "defaultMode", 0400);
	*ret_items = make_array(m, secret, "items");
	return secret;
}

static void put_item(struct maker *m, struct json_object *items, const char *key, const char *path)
{
	struct json_object *item = make_item_object(m, items);

	make_string(m, item, "key", key);
	make_string(m, item, "path", path);
}

/* A directory of the node, where the node has it. */
static void put_host_directory(struct maker *m, struct json_object *mounts,
	struct json_object *volumes, const char *name, const char *path, const char *type)
{
	struct json_object *part;

	put_mount(m, mounts, name, path, true);
	part = make_object(m, put_volume(m, volumes, name), "hostPath");
	make_string(m, part, "path", path);
	make_string(m, part, "type", type);
}

static void put_volumes(struct maker *m, struct json_object *pod, struct json_object *container,
	const struct spec_resource *spec)
{
	struct json_object *mounts = make_array(m, container, "volumeMounts");
	struct json_object *volumes = make_array(m, pod, "volumes");
	struct json_object *part, *items = NULL;
	char limit[32];

	/* the node's root cgroup, where packets are seen from where sockets' functions are not, and
	 * whose names tell a process's container */
	put_host_directory(m, mounts, volumes, "cgroup", CGROUP_DIR, "Directory");
	/* what these hold has the pod's name in its own; a node without them still gets its loader
	 */
	put_host_directory(m, mounts, volumes, "pods", POD_LOGS_DIR "/pods", "DirectoryOrCreate");
	put_host_directory(
		m, mounts, volumes, "containers", POD_LOGS_DIR "/containers", "DirectoryOrCreate");
	if (has_callback(spec) && spec->secret.name) {
		put_mount(m, mounts, "callback", SECRET_DIR, true);
		put_secret_volume(m, volumes, "callback", spec->secret.name, &items);
		for (size_t i = 0; i < ARRAY_SIZE(secret_files); i++)
			if (key_named(&spec->secret, &secret_files[i]))
				put_item(m, items, key_named(&spec->secret, &secret_files[i]),
					secret_files[i].file);
	}
	if (operator_needs_secret(spec)) {
		put_mount(m, mounts, "marker", MARKER_DIR, true);
		put_secret_volume(m, volumes, "marker", OPERATOR_SECRET, &items);
		put_item(m, items, OPERATOR_SECRET_KEY, OPERATOR_SECRET_KEY);
	}
	if (has_spool(spec)) {
		put_mount(m, mounts, "spool", SPOOL_DIR, false);
		part = make_object(m, put_volume(m, volumes, "spool"), "emptyDir");
		/* a pod that goes beyond is evicted: the spool's own limit must come first */
		snprintf(limit, sizeof(limit), "%lluMi",
			(unsigned long long)(spec->loader.spool_bytes / MIB * 5 / 4 + 64));
		make_string(m, part, "sizeLimit", limit);
	}
}

/* ---- the container ---- */

static void put_security(struct maker *m, struct json_object *container,
	const struct operator_settings *settings, const struct spec_resource *spec)
{
	/* Load and attach; attach to a cgroup, and ask a socket for its sequence number; the lock
	 * limit of kernels before 5.11. */
	static const char *const needed[] = {"BPF", "PERFMON", "NET_ADMIN", "SYS_RESOURCE"};
	struct json_object *context = make_object(m, container, "securityContext"), *part, *add;

	make_bool(m, context, "readOnlyRootFilesystem", true);
	make_int(m, context, "runAsUser", 0);
	if (settings->privileged) {
		make_bool(m, context, "privileged", true);
		return;
	}
	make_bool(m, context, "privileged", false);
	make_bool(m, context, "allowPrivilegeEscalation", false);
	part = make_object(m, context, "capabilities");
	make_item_string(m, make_array(m, part, "drop"), "ALL");
	add = make_array(m, part, "add");
	for (size_t i = 0; i < ARRAY_SIZE(needed); i++)
		make_item_string(m, add, needed[i]);
	/* whether a device of that name is in any pod's namespace */
	if (spec->loader.interfaces.count)
		make_item_string(m, add, "SYS_PTRACE");
	/* the runtimes' default profiles refuse bpf() without CAP_SYS_ADMIN, old ones at least */
	make_string(m, make_object(m, context, "seccompProfile"), "type", "Unconfined");
	make_string(m, make_object(m, context, "seLinuxOptions"), "type", "spc_t");
}

static void put_probe(struct maker *m, struct json_object *container, const char *name,
	const char *path, int period, int failures)
{
	struct json_object *probe = make_object(m, container, name);
	struct json_object *get = make_object(m, probe, "httpGet");

	make_string(m, get, "path", path);
	make_string(m, get, "port", "metrics");
	make_int(m, probe, "periodSeconds", period);
	make_int(m, probe, "timeoutSeconds", 3);
	make_int(m, probe, "failureThreshold", failures);
}

static void put_resources(
	struct maker *m, struct json_object *container, const struct spec_resource *spec)
{
	const struct spec *l = &spec->loader;
	uint64_t bytes = l->buffer_bytes + l->output_buffer + l->ring_bytes +
			 l->cgroups * CGROUP_BYTES + (has_callback(spec) ? l->queue_bytes : 0);
	struct json_object *resources, *requests;
	char limit[32];

	if (spec->resources) {
		make_share(m, container, "resources", spec->resources);
		return;
	}
	resources = make_object(m, container, "resources");
	requests = make_object(m, resources, "requests");
	make_string(m, requests, "cpu", "50m");
	make_string(m, requests, "memory", "96Mi");
	snprintf(limit, sizeof(limit), "%lluMi",
		(unsigned long long)(MEMORY_BASE_MIB + bytes / MIB));
	make_string(m, make_object(m, resources, "limits"), "memory", limit);
}

static void put_container(struct maker *m, struct json_object *pod,
	const struct operator_settings *settings, const struct spec_resource *spec)
{
	struct json_object *container = make_item_object(m, make_array(m, pod, "containers"));
	struct json_object *env, *port;

	make_string(m, container, "name", "loader");
	make_string(m, container, "image", spec->image ? spec->image : settings->image);
	make_string(m, container, "imagePullPolicy", settings->pull_policy);
	put_args(m, container, spec);
	env = make_item_object(m, make_array(m, container, "env"));
	make_string(m, env, "name", "NODE_NAME");
	make_string(m, make_object(m, make_object(m, env, "valueFrom"), "fieldRef"), "fieldPath",
		"spec.nodeName");
	port = make_item_object(m, make_array(m, container, "ports"));
	make_string(m, port, "name", "metrics");
	make_int(m, port, "containerPort", OPERATOR_PORT);
	make_string(m, port, "protocol", "TCP");
	put_security(m, container, settings, spec);
	put_resources(m, container, spec);
	put_probe(m, container, "startupProbe", "/healthz", 2, 30);
	put_probe(m, container, "livenessProbe", "/healthz", 10, 3);
	put_probe(m, container, "readinessProbe", "/readyz", 5, 3);
	/* the reason of a crash is its last line */
	make_string(m, container, "terminationMessagePolicy", "FallbackToLogsOnError");
	put_volumes(m, pod, container, spec);
}

/* ---- the pod ---- */

static void put_selected_labels(struct maker *m, struct json_object *labels)
{
	make_string(m, labels, "app.kubernetes.io/name", "ebpfdump-operator");
	make_string(m, labels, "app.kubernetes.io/component", "loader");
}

static void put_labels(struct maker *m, struct json_object *metadata)
{
	struct json_object *labels = make_object(m, metadata, "labels");

	put_selected_labels(m, labels);
	make_string(m, labels, "app.kubernetes.io/part-of", "ebpfdump");
	make_string(m, labels, "app.kubernetes.io/managed-by", "ebpfdump-operator");
}

static void put_placement(
	struct maker *m, struct json_object *pod, const struct spec_resource *spec)
{
	struct json_object *nodes = make_object(m, pod, "nodeSelector");

	make_string(m, nodes, "kubernetes.io/os", "linux");
	if (spec->node_selector) {
		json_object_object_foreach(spec->node_selector, key, value)
		{
			make_share(m, nodes, key, value);
		}
	}
	if (spec->tolerations && json_object_array_length(spec->tolerations) > 0)
		make_share(m, pod, "tolerations", spec->tolerations);
	else
		make_string(m, make_item_object(m, make_array(m, pod, "tolerations")), "operator",
			"Exists");
	if (spec->priority_class)
		make_string(m, pod, "priorityClassName", spec->priority_class);
}

static void put_pod(struct maker *m, struct json_object *template,
	const struct operator_settings *settings, const struct spec_resource *spec)
{
	struct json_object *pod = make_object(m, template, "spec");

	make_string(m, pod, "serviceAccountName", settings->account);
	make_bool(m, pod, "automountServiceAccountToken", false);
	make_bool(m, pod, "enableServiceLinks", false);
	/* other namespaces' devices are seen by their processes only */
	if (spec->loader.interfaces.count)
		make_bool(m, pod, "hostPID", true);
	/* what waits is delivered first */
	make_int(m, pod, "terminationGracePeriodSeconds",
		(int64_t)(spec->loader.flush_timeout_ms / 1000) + GRACE_S);
	put_placement(m, pod, spec);
	put_container(m, pod, settings, spec);
}

/* ---- the DaemonSet ---- */

static void put_owner(
	struct maker *m, struct json_object *metadata, const struct operator_settings *settings)
{
	struct json_object *owner;

	if (!settings->owner_uid || settings->owner_uid[0] == '\0')
		return;
	owner = make_item_object(m, make_array(m, metadata, "ownerReferences"));
	make_string(m, owner, "apiVersion", "apps/v1");
	make_string(m, owner, "kind", "Deployment");
	make_string(m, owner, "name", settings->deployment);
	make_string(m, owner, "uid", settings->owner_uid);
	make_bool(m, owner, "controller", true);
}

static void put_spec(struct maker *m, struct json_object *set,
	const struct operator_settings *settings, const struct spec_resource *resource)
{
	struct json_object *spec = make_object(m, set, "spec"), *part, *template, *annotations;
	char hash[17];

	put_selected_labels(m, make_object(m, make_object(m, spec, "selector"), "matchLabels"));
	part = make_object(m, spec, "updateStrategy");
	make_string(m, part, "type", "RollingUpdate");
	make_string(m, make_object(m, part, "rollingUpdate"), "maxUnavailable", "10%");
	make_int(m, spec, "minReadySeconds", 5);
	make_int(m, spec, "revisionHistoryLimit", 3);
	template = make_object(m, spec, "template");
	part = make_object(m, template, "metadata");
	put_labels(m, part);
	annotations = make_object(m, part, "annotations");
	make_string(m, annotations, "kubectl.kubernetes.io/default-container", "loader");
	put_pod(m, template, settings, resource);
	hash_of(kube_get(template, "spec"), hash);
	make_string(m, annotations, OPERATOR_SPEC_HASH, hash);
}

int operator_daemonset(const struct operator_settings *settings, const struct json_object *dump,
	const struct spec_resource *spec, struct json_object **ret_daemonset)
{
	struct maker m = {0};
	CLEANUP(json_putp)
	struct json_object *set = json_object_new_object();
	struct json_object *metadata, *annotations;
	char key[KUBE_KEY_MAX], hash[17];

	make_string(&m, set, "apiVersion", "apps/v1");
	make_string(&m, set, "kind", "DaemonSet");
	metadata = make_object(&m, set, "metadata");
	make_string(&m, metadata, "name", OPERATOR_DAEMONSET);
	make_string(&m, metadata, "namespace", settings->namespace);
	put_labels(&m, metadata);
	annotations = make_object(&m, metadata, "annotations");
	make_string(&m, annotations, OPERATOR_OF, key_of(dump, key, sizeof(key)));
	make_string(&m, annotations, OPERATOR_OF_UID, kube_get_string(dump, "metadata.uid"));
	put_owner(&m, metadata, settings);
	put_spec(&m, set, settings, spec);
	hash_of(set, hash);
	make_string(&m, annotations, OPERATOR_INTENT, hash);
	if (m.failed)
		return -ENOMEM;
	*ret_daemonset = TAKE(set);
	return 0;
}

/* ---- the marker's key ---- */

int operator_secret(const struct operator_settings *settings, struct json_object **ret_secret)
{
	static const char digits[] = "0123456789abcdef";
	struct maker m = {0};
	CLEANUP(json_putp)
	struct json_object *secret = json_object_new_object();
	struct json_object *metadata;
	unsigned char bytes[KEY_BYTES];
	char text[2 * KEY_BYTES + 1];

	if (getrandom(bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes))
		return -errno;
	for (size_t i = 0; i < KEY_BYTES; i++) {
		text[2 * i] = digits[bytes[i] >> 4];
		text[2 * i + 1] = digits[bytes[i] & 15];
	}
	text[2 * KEY_BYTES] = '\0';
	make_string(&m, secret, "apiVersion", "v1");
	make_string(&m, secret, "kind", "Secret");
	metadata = make_object(&m, secret, "metadata");
	make_string(&m, metadata, "name", OPERATOR_SECRET);
	make_string(&m, metadata, "namespace", settings->namespace);
	put_labels(&m, metadata);
	put_owner(&m, metadata, settings);
	make_string(&m, secret, "type", "Opaque");
	make_string(&m, make_object(&m, secret, "stringData"), OPERATOR_SECRET_KEY, text);
	explicit_bzero(bytes, sizeof(bytes));
	explicit_bzero(text, sizeof(text));
	if (m.failed)
		return -ENOMEM;
	*ret_secret = TAKE(secret);
	return 0;
}

/* ---- whether what is there will do ---- */

/* The member by which the API server tells the elements of a list apart; NULL: order does. */
static const char *list_key(const struct json_object *list)
{
	static const char *const keys[] = {"name", "mountPath", "uid"};
	struct json_object *first = json_object_array_get_idx(list, 0);

	/* mounts carry a volume's name as well, several may have the same */
	if (kube_get_string(first, "mountPath")[0])
		return "mountPath";
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		if (kube_get_string(first, keys[i])[0])
			return keys[i];
	return NULL;
}

static bool list_holds(const struct json_object *intent, const struct json_object *live)
{
	size_t n = json_object_array_length(intent);
	const char *key = n > 0 ? list_key(intent) : NULL;

	if (!key && json_object_array_length(live) != n)
		return false;
	for (size_t i = 0; i < n; i++) {
		struct json_object *want = json_object_array_get_idx(intent, i);
		struct json_object *have = key ? item_with(live, key, kube_get_string(want, key))
					       : json_object_array_get_idx(live, i);

		if (!operator_holds(want, have))
			return false;
	}
	return true;
}

bool operator_holds(const struct json_object *intent, const struct json_object *live)
{
	enum json_type type = json_object_get_type(intent);

	if (!live || json_object_get_type(live) != type)
		return intent == live;
	if (type == json_type_array)
		return list_holds(intent, live);
	if (type != json_type_object)
		return json_object_equal((struct json_object *)(uintptr_t)intent,
			       (struct json_object *)(uintptr_t)live) != 0;
	json_object_object_foreach((struct json_object *)(uintptr_t)intent, key, want)
	{
		struct json_object *have = NULL;

		if (!json_object_object_get_ex(live, key, &have) || !operator_holds(want, have))
			return false;
	}
	return true;
}

bool operator_is_ours(const struct json_object *daemonset, const struct operator_settings *settings)
{
	struct json_object *owner =
		item_with(kube_get(daemonset, "metadata.ownerReferences"), "kind", "Deployment");

	if (strcmp(meta_value(daemonset, "metadata.labels", "app.kubernetes.io/managed-by"),
		    "ebpfdump-operator") == 0 ||
		meta_value(daemonset, "metadata.annotations", OPERATOR_INTENT)[0])
		return true;
	return owner && settings->deployment[0] &&
	       strcmp(kube_get_string(owner, "name"), settings->deployment) == 0;
}

bool operator_selects(const struct json_object *daemonset)
{
	struct maker m = {0};
	CLEANUP(json_putp)
	struct json_object *labels = json_object_new_object();
	struct json_object *have = kube_get(daemonset, "spec.selector.matchLabels");

	put_selected_labels(&m, labels);
	return !m.failed && !kube_get(daemonset, "spec.selector.matchExpressions") && have &&
	       json_object_equal(labels, have);
}
