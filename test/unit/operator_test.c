/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>

#include "pkg/operator/operator.h"

#define GOLDEN "test/unit/golden/"
#define WALL   UINT64_C(1764043035000000000) /* 2025-11-25T03:57:15Z */

static struct json_object *json(const char *text)
{
	struct json_object *object = json_tokener_parse(text);

	ck_assert_msg(object != NULL, "%s", text);
	return object;
}

static struct json_object *dump_of(const char *namespace, const char *name, const char *created,
	const char *deleted, const char *spec)
{
	char text[2048];

	snprintf(text, sizeof(text),
		"{\"apiVersion\":\"research.dynatrace.com/v1alpha1\",\"kind\":\"EbpfDump\","
		"\"metadata\":{\"namespace\":\"%s\",\"name\":\"%s\",\"uid\":\"uid-%s-%s\","
		"\"resourceVersion\":\"7\",\"generation\":3,\"creationTimestamp\":\"%s\"%s%s%s},"
		"\"spec\":%s}",
		namespace, name, namespace, name, created,
		deleted ? ",\"deletionTimestamp\":\"" : "", deleted ? deleted : "",
		deleted ? "\"" : "", spec);
	return json(text);
}

/* ---- which one ---- */

#define T1 "2026-01-01T00:00:00Z"
#define T2 "2026-01-01T00:00:01Z"

START_TEST(winner)
{
	static const struct {
		const char *of[4][4]; /* namespace, name, created, deleted */
		int wins;
	} cases[] = {
		{{{NULL}}, -1},
		{{{"a", "x", T1, NULL}}, 0},
		{{{"a", "x", T1, T2}}, -1},
		{{{"a", "x", T2, NULL}, {"b", "y", T1, NULL}}, 1},
		{{{"a", "x", T1, T2}, {"b", "y", T2, NULL}}, 1},
		{{{"b", "x", T1, NULL}, {"a", "y", T1, NULL}}, 1},
		/* byte by byte, of the whole key: '-' comes before '/' */
		{{{"a", "x", T1, NULL}, {"a-b", "x", T1, NULL}}, 1},
		{{{"a", "B", T1, NULL}, {"a", "a", T1, NULL}}, 0},
		{{{"a", "x", "nonsense", NULL}, {"b", "y", T2, NULL}}, 1},
		{{{"c", "z", T1, NULL}, {"a", "z", T1, T2}, {"b", "z", T1, NULL}}, 2},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct json_object *objects[4], *won;
		size_t n = 0;

		for (; n < 4 && cases[i].of[n][0]; n++)
			objects[n] = dump_of(cases[i].of[n][0], cases[i].of[n][1],
				cases[i].of[n][2], cases[i].of[n][3], "{}");
		won = operator_winner(objects, n);
		ck_assert_msg(
			won == (cases[i].wins < 0 ? NULL : objects[cases[i].wins]), "case %zu", i);
		while (n > 0)
			json_object_put(objects[--n]);
	}
}
END_TEST

/* ---- what shall be ---- */

static const struct operator_settings settings = {
	.namespace = "ebpfdump-operator-system",
	.image = "registry/loader@sha256:0",
	.pull_policy = "IfNotPresent",
	.account = "ebpfdump-loader",
	.deployment = "ebpfdump-operator",
	.owner_uid = "owner-uid",
};

static struct json_object *daemonset_of(const struct operator_settings *s, const char *spec_text)
{
	struct json_object *dump = dump_of("default", "web", T1, NULL, spec_text), *set = NULL;
	struct spec_resource spec;
	struct err err = {0};

	ck_assert_msg(
		spec_resource_decode(kube_get(dump, "spec"), &spec, &err) == 0, "%s", err.text);
	ck_assert_int_eq(operator_daemonset(s, dump, &spec, &set), 0);
	spec_resource_done(&spec);
	json_object_put(dump);
	return set;
}

static char *read_file(const char *path)
{
	char *text = calloc(1, 1 << 16);
	FILE *f = fopen(path, "re");

	ck_assert_msg(f != NULL, "%s: UPDATE_GOLDEN=1 writes it", path);
	ck_assert_uint_gt(fread(text, 1, (1 << 16) - 1, f), 0);
	fclose(f);
	return text;
}

static void golden(const char *name, struct json_object *object)
{
	const char *text = json_object_to_json_string_ext(object,
		JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE | JSON_C_TO_STRING_SPACED);
	char path[256], *want;

	snprintf(path, sizeof(path), GOLDEN "%s.json", name);
	if (getenv("UPDATE_GOLDEN")) {
		FILE *f = fopen(path, "we");

		ck_assert_ptr_nonnull(f);
		fprintf(f, "%s\n", text);
		fclose(f);
	}
	want = read_file(path);
	ck_assert_msg(
		strncmp(want, text, strlen(text)) == 0 && strcmp(want + strlen(text), "\n") == 0,
		"%s is not what is made: UPDATE_GOLDEN=1 writes it\n%s", path, text);
	free(want);
}

START_TEST(golden_daemonsets)
{
	struct operator_settings privileged = settings;
	struct json_object *set;

	set = daemonset_of(&settings, "{}");
	golden("daemonset-everything", set);
	json_object_put(set);
	set = daemonset_of(&settings,
		"{\"interfaces\":[\"lo\",\"eth0\"],\"directions\":[\"ingress\"],\"bodyBytes\":0,"
		"\"nodeSelector\":{\"pool\":\"web\"},\"tolerations\":[{\"key\":\"a\",\"operator\":"
		"\"Exists\"}],\"image\":\"mine:1\",\"priorityClassName\":\"high\",\"resources\":{"
		"\"requests\":{\"cpu\":\"0.1\"}},\"limits\":{\"connections\":1000}}");
	golden("daemonset-chosen", set);
	json_object_put(set);
	set = daemonset_of(&settings,
		"{\"callback\":\"http://x.y/$(NODE_NAME)\",\"delivery\":{\"batch\":{\"messages\":500},"
		"\"gzip\":true,\"queueBytes\":67108864,\"flushTimeout\":\"30s\",\"spool\":{"
		"\"bytes\":1073741824}},\"callbackSecretRef\":{\"name\":\"receiver\",\"headersKey\":"
		"\"token\",\"hmacKey\":\"hmac\",\"caKey\":\"ca\",\"certKey\":\"c\","
		"\"privateKeyKey\":\"k\"}}");
	golden("daemonset-callback", set);
	json_object_put(set);
	privileged.privileged = true;
	privileged.owner_uid = "";
	privileged.pull_policy = "Always";
	set = daemonset_of(&privileged, "{}");
	golden("daemonset-privileged", set);
	json_object_put(set);
}
END_TEST

START_TEST(pure)
{
	struct json_object *a = daemonset_of(&settings, "{\"interfaces\":[\"lo\"]}");
	struct json_object *b = daemonset_of(&settings, "{\"interfaces\":[\"lo\"]}");
	struct json_object *c = daemonset_of(&settings, "{\"interfaces\":[\"eth0\"]}");

	ck_assert(json_object_equal(a, b));
	ck_assert(!json_object_equal(a, c));
	/* a changed spec is a changed template */
	ck_assert(!json_object_equal(kube_get(a, "spec.template"), kube_get(c, "spec.template")));
	json_object_put(a);
	json_object_put(b);
	json_object_put(c);
}
END_TEST

/* $(NAME) of a user is no variable of ours. */
START_TEST(variables)
{
	struct json_object *set = daemonset_of(&settings, "{\"redactHeaders\":[\"$x\",\"$$\"]}");
	const char *text = json_object_to_json_string_ext(set, JSON_C_TO_STRING_PLAIN);

	ck_assert_ptr_nonnull(strstr(text, "--redact=$$x"));
	ck_assert_ptr_nonnull(strstr(text, "--redact=$$$$\""));
	ck_assert_ptr_nonnull(strstr(text, "--node=$(NODE_NAME)"));
	json_object_put(set);
}
END_TEST

START_TEST(secret)
{
	struct json_object *a = NULL, *b = NULL, *key = NULL;

	ck_assert_int_eq(operator_secret(&settings, &a), 0);
	ck_assert_int_eq(operator_secret(&settings, &b), 0);
	ck_assert_str_eq(kube_get_string(a, "metadata.name"), OPERATOR_SECRET);
	key = kube_get(a, "stringData.key");
	ck_assert_ptr_nonnull(key);
	ck_assert_int_eq(json_object_get_string_len(key), 64);
	ck_assert_str_ne(json_object_get_string(key), kube_get_string(b, "stringData.key"));
	json_object_put(a);
	json_object_put(b);
}
END_TEST

/* Sets what is at a path to a JSON text, or removes it (NULL). */
static void change(struct json_object *object, const char *parent, const char *key, const char *to)
{
	struct json_object *at = parent[0] ? kube_get(object, parent) : object;

	ck_assert_ptr_nonnull(at);
	if (to)
		json_object_object_add(at, key, json(to));
	else
		json_object_object_del(at, key);
}

START_TEST(holds)
{
	struct json_object *want = daemonset_of(&settings, "{\"interfaces\":[\"lo\"]}"),
			   *live = NULL;
	struct json_object *container, *list;

	ck_assert_int_eq(json_object_deep_copy(want, &live, NULL), 0);
	ck_assert(operator_holds(want, live));
	/* what the server adds does not matter */
	change(live, "metadata", "generation", "1");
	change(live, "", "status", "{\"numberReady\":1}");
	change(live, "spec.template.spec", "dnsPolicy", "\"ClusterFirst\"");
	list = kube_get(live, "spec.template.spec.containers");
	container = json_object_array_get_idx(list, 0);
	json_object_object_add(container, "terminationMessagePath", json("\"/dev/x\""));
	json_object_array_add(kube_get(container, "env"), json("{\"name\":\"MORE\"}"));
	json_object_array_add(kube_get(container, "volumeMounts"),
		json("{\"name\":\"cgroup\",\"mountPath\":\"/more\"}"));
	change(live, "metadata.annotations", "deprecated.daemonset.template.generation", "\"1\"");
	ck_assert(operator_holds(want, live));
	ck_assert(!operator_holds(live, want));
	/* what is ours and differs does */
	json_object_object_add(container, "image", json("\"other\""));
	ck_assert(!operator_holds(want, live));
	json_object_object_add(container, "image", json("\"registry/loader@sha256:0\""));
	ck_assert(operator_holds(want, live));
	json_object_array_add(kube_get(container, "args"), json("\"--more\""));
	ck_assert(!operator_holds(want, live));
	json_object_array_del_idx(kube_get(container, "args"),
		json_object_array_length(kube_get(container, "args")) - 1, 1);
	ck_assert(operator_holds(want, live));
	change(live, "metadata.labels", "app.kubernetes.io/part-of", NULL);
	ck_assert(!operator_holds(want, live));
	json_object_put(want);
	json_object_put(live);
}
END_TEST

START_TEST(ours)
{
	struct json_object *set = daemonset_of(&settings, "{}");

	ck_assert(operator_is_ours(set, &settings));
	ck_assert(operator_selects(set));
	change(set, "metadata.labels", "app.kubernetes.io/managed-by", "\"helm\"");
	ck_assert(operator_is_ours(set, &settings));
	change(set, "metadata", "annotations", NULL);
	ck_assert(operator_is_ours(set, &settings));
	change(set, "metadata", "ownerReferences", NULL);
	ck_assert(!operator_is_ours(set, &settings));
	change(set, "spec.selector.matchLabels", "more", "\"x\"");
	ck_assert(!operator_selects(set));
	json_object_put(set);
}
END_TEST

/* ---- why loaders do not come up ---- */

#define POD(name, condition, container)                                                     \
	"{\"metadata\":{\"name\":\"" name "\",\"uid\":\"" name                              \
	"\"},\"spec\":{\"nodeName\":\"n-" name "\"},\"status\":{\"conditions\":[" condition \
	"],\"containerStatuses\":[" container "]}}"

START_TEST(trouble)
{
	static const struct {
		const char *set, *pods, *events, *reason, *says;
	} cases[] = {
		{"{}", NULL, NULL, NULL, ""},
		{"{\"status\":{\"desiredNumberScheduled\":2}}",
			"{\"items\":[" POD(
				"a", "{\"type\":\"Ready\",\"status\":\"True\"}", "") "]}",
			"{\"items\":[]}", NULL, ""},
		{"{\"status\":{\"desiredNumberScheduled\":2}}",
			"{\"items\":[" POD("a", "",
				"{\"state\":{\"waiting\":{\"reason\":\"ContainerCreating\"}}}") "]}",
			"{\"items\":[]}", NULL, ""},
		{"{\"status\":{\"desiredNumberScheduled\":2}}",
			"{\"items\":[" POD("a", "",
				"{\"state\":{\"waiting\":{\"reason\":\"ImagePullBackOff\",\"message\":"
				"\"Back-off pulling image\\nx\"}}}") "]}",
			NULL, "ImagePullFailed",
			"1 of 2 loaders: ImagePullBackOff on n-a: Back-off pulling image x"},
		{"{\"status\":{\"desiredNumberScheduled\":2}}",
			"{\"items\":[" POD("a", "",
				"{\"state\":{\"waiting\":{\"reason\":\"CrashLoopBackOff\",\"message\":\"back-"
				"off\"}},\"lastState\":{\"terminated\":{\"message\":\"no BTF\\n\"}}}") "," POD("b",
				"",
				"{\"state\":{\"waiting\":{\"reason\":\"CrashLoopBackOff\"}}}") "]}",
			NULL, "CrashLooping", "2 of 2 loaders: CrashLoopBackOff on n-a: no BTF"},
		{"{\"status\":{\"desiredNumberScheduled\":1}}",
			"{\"items\":[" POD("a",
				"{\"type\":\"PodScheduled\",\"status\":\"False\",\"reason\":"
				"\"Unschedulable\",\"message\":\"no room\"}",
				"") "]}",
			NULL, "Unschedulable", "1 of 1 loaders: Unschedulable on n-a: no room"},
		{"{\"status\":{\"desiredNumberScheduled\":1}}",
			"{\"items\":[" POD("a", "",
				"{\"state\":{\"waiting\":{\"reason\":\"ContainerCreating\"}}}") "]}",
			"{\"items\":[{\"involvedObject\":{\"uid\":\"a\"},\"reason\":\"FailedMount\","
			"\"message\":\"secret \\\"s\\\" not found\"}]}",
			"MountFailed",
			"1 of 1 loaders: FailedMount on n-a: secret \"s\" not found"},
		{"{\"status\":{\"desiredNumberScheduled\":1}}",
			"{\"items\":[" POD(
				"a", "", "{\"started\":true,\"state\":{\"running\":{}}}") "]}",
			"{\"items\":[{\"regarding\":{\"uid\":\"a\"},\"reason\":\"Unhealthy\",\"note\":"
			"\"Readiness probe failed: 503\"}]}",
			"NotCapturing",
			"1 of 1 loaders: not ready on n-a: Readiness probe failed: 503"},
		/* the newest refusal */
		{"{\"metadata\":{\"uid\":\"s\"},\"status\":{\"desiredNumberScheduled\":3,"
		 "\"currentNumberScheduled\":1}}",
			"{\"items\":[]}",
			"{\"items\":[{\"involvedObject\":{\"uid\":\"s\"},\"reason\":\"FailedCreate\","
			"\"lastTimestamp\":\"2026-01-01T00:00:02Z\",\"message\":\"violates "
			"PodSecurity\"},{\"involvedObject\":{\"uid\":\"s\"},\"reason\":\"FailedCreate\","
			"\"lastTimestamp\":\"2026-01-01T00:00:01Z\",\"message\":\"old\"}]}",
			"PodsRejected", "2 of 3 loaders are refused: violates PodSecurity"},
		/* a pod was made since: a long rollout, and the refusal is an old one */
		{"{\"metadata\":{\"uid\":\"s\"},\"status\":{\"desiredNumberScheduled\":3,"
		 "\"currentNumberScheduled\":1}}",
			"{\"items\":[{\"metadata\":{\"creationTimestamp\":\"2026-01-01T00:00:03Z\"}}]}",
			"{\"items\":[{\"involvedObject\":{\"uid\":\"s\"},\"reason\":\"FailedCreate\","
			"\"lastTimestamp\":\"2026-01-01T00:00:02Z\",\"message\":\"old\"}]}",
			NULL, ""},
		/* all pods are there: what was refused is over */
		{"{\"metadata\":{\"uid\":\"s\"},\"status\":{\"desiredNumberScheduled\":1,"
		 "\"currentNumberScheduled\":1}}",
			"{\"items\":[]}",
			"{\"items\":[{\"involvedObject\":{\"uid\":\"s\"},\"reason\":\"FailedCreate\","
			"\"message\":\"old\"}]}",
			NULL, ""},
		/* nonsense */
		{"[]", "{\"items\":[1,null,{\"status\":[]}]}", "{\"items\":{}}", NULL, ""},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct json_object *set = json(cases[i].set);
		struct json_object *pods = cases[i].pods ? json(cases[i].pods) : NULL;
		struct json_object *events = cases[i].events ? json(cases[i].events) : NULL;
		struct json_object *few_pods = NULL, *few_events = NULL;
		struct operator_trouble t, kept;

		operator_find_trouble(set, pods, events, true, &t);
		/* what is kept of them says the same, also in pages */
		ck_assert_int_eq(operator_keep_pods(&few_pods, NULL), 0);
		ck_assert_int_eq(operator_keep_pods(&few_pods, pods), 0);
		ck_assert_int_eq(operator_keep_events(&few_events, events), 0);
		ck_assert_int_eq(operator_keep_events(&few_events, events), 0);
		operator_find_trouble(set, few_pods, few_events, true, &kept);
		ck_assert_str_eq(kept.message, t.message);
		json_object_put(few_pods);
		json_object_put(few_events);
		operator_find_trouble(set, pods, events, false, &kept);
		ck_assert(!kept.reason || strcmp(kept.reason, "PodsRejected") != 0);
		ck_assert_msg(!t.reason == !cases[i].reason, "case %zu: %s", i, t.message);
		if (t.reason)
			ck_assert_str_eq(t.reason, cases[i].reason);
		ck_assert_str_eq(t.message, cases[i].says);
		json_object_put(set);
		json_object_put(pods);
		json_object_put(events);
	}
}
END_TEST

/* ---- what is said ---- */

/* "Accepted=True/Accepted Ready=..." */
static const char *conditions_of(const struct json_object *status)
{
	static const char *const types[] = {"Accepted", "Ready", "Progressing", "Degraded"};
	static char text[512];
	size_t len = 0;

	text[0] = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		struct json_object *c =
			kube_condition_find(kube_get(status, "conditions"), types[i]);

		ck_assert_ptr_nonnull(c);
		ck_assert_int_eq(kube_get_int(c, "observedGeneration", 0), 3);
		snprintf(text + len, sizeof(text) - len, "%s%s=%s/%s", i ? " " : "", types[i],
			kube_get_string(c, "status"), kube_get_string(c, "reason"));
		len = strlen(text);
	}
	return text;
}

#define SET(generation, observed, desired, updated, ready, available)                             \
	"{\"metadata\":{\"generation\":" #generation                                              \
	"},\"status\":{\"observedGeneration\":" #observed ",\"desiredNumberScheduled\":" #desired \
	",\"updatedNumberScheduled\":" #updated ",\"numberReady\":" #ready                        \
	",\"numberAvailable\":" #available "}}"

START_TEST(rollout)
{
	static const struct {
		const char *set, *conditions, *nodes;
		const char *trouble;
		enum operator_problem problem;
	} cases[] = {
		{NULL,
			"Accepted=True/Accepted Ready=False/RolloutInProgress "
			"Progressing=True/RolloutInProgress Degraded=False/AsExpected",
			"0/0", NULL, OPERATOR_FINE},
		{SET(2, 1, 3, 3, 3, 3),
			"Accepted=True/Accepted Ready=False/RolloutInProgress "
			"Progressing=True/RolloutInProgress Degraded=False/AsExpected",
			"3/3", NULL, OPERATOR_FINE},
		{SET(2, 2, 3, 1, 3, 3),
			"Accepted=True/Accepted Ready=False/RolloutInProgress "
			"Progressing=True/RolloutInProgress Degraded=False/AsExpected",
			"3/3", NULL, OPERATOR_FINE},
		{SET(2, 2, 3, 3, 2, 2),
			"Accepted=True/Accepted Ready=False/PodsUnavailable "
			"Progressing=True/RolloutInProgress Degraded=False/AsExpected",
			"2/3", NULL, OPERATOR_FINE},
		{SET(2, 2, 3, 3, 2, 2),
			"Accepted=True/Accepted Ready=False/CrashLooping "
			"Progressing=False/CrashLooping Degraded=True/CrashLooping",
			"2/3", "CrashLooping", OPERATOR_FINE},
		{SET(2, 2, 3, 2, 2, 2),
			"Accepted=True/Accepted Ready=False/CrashLooping "
			"Progressing=True/RolloutInProgress Degraded=True/CrashLooping",
			"2/3", "CrashLooping", OPERATOR_FINE},
		{SET(2, 2, 3, 3, 3, 3),
			"Accepted=True/Accepted Ready=True/AllNodesReady "
			"Progressing=False/RolloutComplete Degraded=False/AsExpected",
			"3/3", NULL, OPERATOR_FINE},
		{SET(2, 3, 0, 0, 0, 0),
			"Accepted=True/Accepted Ready=False/NoMatchingNodes "
			"Progressing=False/NoMatchingNodes Degraded=False/AsExpected",
			"0/0", NULL, OPERATOR_FINE},
		{NULL,
			"Accepted=True/Accepted Ready=False/NameConflict Progressing=False/NameConflict "
			"Degraded=True/NameConflict",
			"0/0", NULL, OPERATOR_NAME_CONFLICT},
		{NULL,
			"Accepted=True/Accepted Ready=False/ApplyFailed Progressing=False/ApplyFailed "
			"Degraded=True/ApplyFailed",
			"0/0", NULL, OPERATOR_APPLY_FAILED},
		{SET(2, 2, 3, 3, 3, 3),
			"Accepted=True/Accepted Ready=False/ApplyFailed Progressing=False/ApplyFailed "
			"Degraded=True/ApplyFailed",
			"3/3", NULL, OPERATOR_APPLY_FAILED},
		{NULL,
			"Accepted=True/Accepted Ready=False/SelectorConflict "
			"Progressing=False/SelectorConflict Degraded=True/SelectorConflict",
			"0/0", NULL, OPERATOR_SELECTOR_CONFLICT},
	};
	struct json_object *dump = dump_of("a", "x", T1, NULL, "{}");

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct operator_facts facts = {.uid = "uid-a-x",
			.generation = 3,
			.problem = cases[i].problem,
			.problem_text = "why",
			.trouble = {.reason = cases[i].trouble, .message = "why"}};
		struct json_object *status = NULL;

		if (cases[i].set)
			facts.daemonset = json(cases[i].set);
		ck_assert_int_eq(operator_status(dump, dump, NULL, &facts, NULL, WALL, &status), 0);
		ck_assert_str_eq(conditions_of(status), cases[i].conditions);
		ck_assert_str_eq(kube_get_string(status, "nodes"), cases[i].nodes);
		ck_assert_int_eq(kube_get_int(status, "observedGeneration", 0), 3);
		ck_assert_int_eq(kube_get_int(status, "updatedNodes", -1),
			cases[i].problem != OPERATOR_FINE
				? 0
				: kube_get_int(
					  facts.daemonset, "status.updatedNumberScheduled", 0));
		ck_assert_int_eq(
			operator_rolled_out(facts.daemonset) && cases[i].problem == OPERATOR_FINE,
			cases[i].set && !cases[i].trouble && cases[i].problem == OPERATOR_FINE &&
				strstr(cases[i].conditions, "Progressing=False") != NULL);
		json_object_put(status);
		json_object_put(facts.daemonset);
	}
	json_object_put(dump);
}
END_TEST

START_TEST(not_accepted)
{
	struct json_object *dump = dump_of("b", "y", T2, NULL, "{}");
	struct json_object *winner_ = dump_of("a", "x", T1, NULL, "{}"), *status = NULL;
	struct operator_facts facts = {0};

	ck_assert_int_eq(operator_status(dump, winner_, NULL, &facts, NULL, WALL, &status), 0);
	ck_assert_str_eq(conditions_of(status),
		"Accepted=False/Conflict Ready=False/NotAccepted Progressing=False/NotAccepted "
		"Degraded=False/NotAccepted");
	ck_assert_str_eq(
		kube_get_string(
			kube_condition_find(kube_get(status, "conditions"), "Accepted"), "message"),
		"EbpfDump a/x (created " T1
		") is active; this one is ignored until that is deleted");
	ck_assert_ptr_null(kube_get(status, "nodes"));
	json_object_put(status);
	ck_assert_int_eq(operator_status(dump, dump, "spec.x: no", &facts, NULL, WALL, &status), 0);
	ck_assert_str_eq(conditions_of(status),
		"Accepted=False/InvalidSpec Ready=False/NotAccepted Progressing=False/NotAccepted "
		"Degraded=False/NotAccepted");
	json_object_put(status);
	/* accepted, and nothing is known yet; then of an older spec */
	ck_assert_int_eq(operator_status(dump, dump, NULL, &facts, NULL, WALL, &status), 0);
	ck_assert_str_eq(conditions_of(status),
		"Accepted=True/Accepted Ready=Unknown/Reconciling Progressing=Unknown/Reconciling "
		"Degraded=Unknown/Reconciling");
	json_object_put(status);
	snprintf(facts.uid, sizeof(facts.uid), "uid-b-y");
	facts.generation = 2;
	ck_assert_int_eq(operator_status(dump, dump, NULL, &facts, NULL, WALL, &status), 0);
	ck_assert_ptr_nonnull(strstr(conditions_of(status), "Ready=Unknown/Reconciling"));
	json_object_put(status);
	json_object_put(dump);
	/* on its way out: whether or not there is another */
	dump = dump_of("b", "y", T1, T2, "{}");
	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(operator_status(dump, i ? winner_ : NULL, NULL, &facts, NULL, WALL,
					 &status),
			0);
		ck_assert_str_eq(conditions_of(status),
			"Accepted=False/Deleting Ready=False/NotAccepted "
			"Progressing=False/NotAccepted Degraded=False/NotAccepted");
		json_object_put(status);
	}
	json_object_put(dump);
	json_object_put(winner_);
}
END_TEST

/* Times move with the status only; the same again is the same. */
START_TEST(times)
{
	struct json_object *dump = dump_of("a", "x", T1, NULL, "{}"), *first = NULL, *second = NULL;
	struct operator_facts facts = {.uid = "uid-a-x", .generation = 3};
	struct json_object *ready;

	facts.daemonset = json(SET(2, 2, 3, 3, 2, 2));
	ck_assert_int_eq(operator_status(dump, dump, NULL, &facts, NULL, WALL, &first), 0);
	ck_assert_int_eq(
		operator_status(dump, dump, NULL, &facts, first, WALL + 5 * KUBE_SECOND, &second),
		0);
	ck_assert(operator_same_status(first, second));
	ck_assert(!operator_same_status(first, NULL));
	ck_assert(!operator_same_status(NULL, first));
	json_object_put(second);
	json_object_put(facts.daemonset);

	facts.daemonset = json(SET(2, 2, 3, 3, 3, 3));
	ck_assert_int_eq(
		operator_status(dump, dump, NULL, &facts, first, WALL + 5 * KUBE_SECOND, &second),
		0);
	ck_assert(!operator_same_status(first, second));
	ready = kube_condition_find(kube_get(second, "conditions"), "Ready");
	ck_assert_str_eq(kube_get_string(ready, "lastTransitionTime"), "2025-11-25T03:57:20Z");
	ready = kube_condition_find(kube_get(second, "conditions"), "Accepted");
	ck_assert_str_eq(kube_get_string(ready, "lastTransitionTime"), "2025-11-25T03:57:15Z");
	json_object_put(first);
	json_object_put(second);
	json_object_put(facts.daemonset);
	json_object_put(dump);
}
END_TEST

/* ---- which step is next ---- */

START_TEST(steps)
{
	static const struct operator_view wanted = {.wanted = true, .owner_known = true};
	static const struct operator_view there = {.wanted = true,
		.owner_known = true,
		.daemonset = true,
		.ours = true,
		.selects = true};
	static const struct operator_view unwanted = {
		.daemonset = true, .ours = true, .selects = true, .others = true};
	struct operator_view v = {0};

#define NEXT(base, change, action)                                                              \
	do {                                                                                    \
		v = (base);                                                                     \
		change;                                                                         \
		ck_assert_str_eq(                                                               \
			operator_action_name(operator_next(&v)), operator_action_name(action)); \
	} while (0)
	NEXT(v, , OPERATOR_FINISH);
	NEXT(wanted, v.owner_known = false, OPERATOR_GET_OWNER);
	NEXT(wanted, v.needs_secret = true, OPERATOR_GET_SECRET);
	NEXT(wanted, v.needs_secret = v.secret_missing = true, OPERATOR_CREATE_SECRET);
	NEXT(wanted, , OPERATOR_GET_DAEMONSET);
	NEXT(wanted, v.daemonset_asked = true, OPERATOR_APPLY);
	NEXT(wanted, v.failed = true, OPERATOR_FINISH);
	NEXT(there, , OPERATOR_APPLY);
	NEXT(there, v.ours = false, OPERATOR_FINISH);
	NEXT(there, v.selects = false, OPERATOR_FINISH);
	NEXT(there, v.going = true, OPERATOR_FINISH);
	NEXT(there, v.holds = true, OPERATOR_LIST_PODS);
	NEXT(there, v.applied = true, OPERATOR_LIST_PODS);
	NEXT(there, v.holds = v.pods_asked = true, OPERATOR_LIST_EVENTS);
	NEXT(there, v.holds = v.pods_asked = v.events_asked = true, OPERATOR_FINISH);
	NEXT(there, v.holds = v.rolled_out = true, OPERATOR_FINISH);
	NEXT(unwanted, , OPERATOR_LIST_DUMPS);
	NEXT(unwanted, v.dumps_asked = true, OPERATOR_FINISH);
	NEXT(unwanted, v.dumps_asked = v.confirmed = true, OPERATOR_DELETE);
	NEXT(unwanted, v.dumps_asked = v.confirmed = v.deleted = true, OPERATOR_FINISH);
	NEXT(unwanted, v.ours = false, OPERATOR_FINISH);
	NEXT(unwanted, v.going = true, OPERATOR_FINISH);
	/* an invalid spec of the same EbpfDump: its loaders stay as they are */
	NEXT(unwanted, v.others = false, OPERATOR_FINISH);
}
END_TEST

/* Whatever the facts: a pass ends, and asks each thing at most once. */
START_TEST(steps_end)
{
	for (uint32_t bits = 0; bits < 1U << 12; bits++) {
		struct operator_view v = {
			.wanted = bits & 1,
			.others = bits & 2,
			.daemonset = bits & 4,
			.going = bits & 8,
			.ours = bits & 16,
			.selects = bits & 32,
			.holds = bits & 64,
			.rolled_out = bits & 128,
			.needs_secret = bits & 256,
			.owner_known = bits & 512,
			.secret_known = bits & 1024,
			.confirmed = bits & 2048,
		};
		enum operator_action action;
		int n = 0;

		while ((action = operator_next(&v)) != OPERATOR_FINISH) {
			ck_assert_int_lt(n++, 8);
			/* loaders are taken away only after they were looked for live, and only
			 * ours */
			if (action == OPERATOR_DELETE)
				ck_assert(v.dumps_asked && v.confirmed && v.ours && !v.wanted);
			if (action == OPERATOR_APPLY)
				ck_assert(v.wanted && (!v.daemonset || (v.ours && v.selects)));
			v.owner_known |= action == OPERATOR_GET_OWNER;
			v.secret_missing |= action == OPERATOR_GET_SECRET;
			v.secret_known |= action == OPERATOR_CREATE_SECRET;
			v.daemonset_asked |= action == OPERATOR_GET_DAEMONSET;
			v.applied |= action == OPERATOR_APPLY;
			v.dumps_asked |= action == OPERATOR_LIST_DUMPS;
			v.deleted |= action == OPERATOR_DELETE;
			v.pods_asked |= action == OPERATOR_LIST_PODS;
			v.events_asked |= action == OPERATOR_LIST_EVENTS;
		}
	}
}
END_TEST

START_TEST(paths)
{
	const char *list[KUBE_ACCEPT_PATHS_MAX];
	size_t n = 0;

	ck_assert_int_eq(
		operator_accept_paths("ns", "ebpfdump-operator", list, ARRAY_SIZE(list)), 0);
	for (; list[n]; n++) {
		/* kubectl splits at commas */
		ck_assert_ptr_null(strchr(list[n], ','));
		ck_assert_int_eq(list[n][0], '^');
		ck_assert_int_eq(list[n][strlen(list[n]) - 1], '$');
	}
	ck_assert_uint_eq(n, 6);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("operator");
	TCase *t = tcase_create("operator");
	SRunner *runner;
	int failed;

	tcase_add_test(t, winner);
	tcase_add_test(t, golden_daemonsets);
	tcase_add_test(t, pure);
	tcase_add_test(t, variables);
	tcase_add_test(t, secret);
	tcase_add_test(t, holds);
	tcase_add_test(t, ours);
	tcase_add_test(t, trouble);
	tcase_add_test(t, rollout);
	tcase_add_test(t, not_accepted);
	tcase_add_test(t, times);
	tcase_add_test(t, steps);
	tcase_add_test(t, steps_end);
	tcase_add_test(t, paths);
	suite_add_tcase(suite, t);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
