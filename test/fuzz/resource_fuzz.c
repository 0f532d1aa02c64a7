/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any EbpfDump, whatever its JSON: it is decoded or refused with a reason; what is decoded the
 * loader accepts, and it becomes a DaemonSet; a status of it is one that says the same a second
 * time.
 */
#include "pkg/operator/operator.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool right)
{
	if (!right)
		__builtin_trap();
}

static void check_daemonset(const struct json_object *dump, const struct spec_resource *spec)
{
	static const struct operator_settings settings = {
		.namespace = "ns",
		.image = "loader",
		.pull_policy = "Always",
		.account = "loader",
		.deployment = "operator",
		.owner_uid = "uid",
	};
	CLEANUP(json_putp)
	struct json_object *set = NULL, *pods = NULL, *events = NULL;
	struct operator_trouble trouble, kept;

	check(operator_daemonset(&settings, dump, spec, &set) == 0);
	check(operator_holds(set, set));
	check(operator_is_ours(set, &settings) && operator_selects(set));
	check(!operator_rolled_out(set) || kube_get_int(dump, "metadata.generation", 0) >= 0);
	/* the input is as good a DaemonSet, list of pods or of events as any */
	(void)operator_holds(set, dump);
	(void)operator_holds(dump, set);
	(void)operator_is_ours(dump, &settings);
	operator_find_trouble(dump, dump, dump, true, &trouble);
	check(operator_keep_pods(&pods, dump) >= 0 && operator_keep_events(&events, dump) >= 0);
	operator_find_trouble(dump, pods, events, true, &kept);
	check(!trouble.reason == !kept.reason && strcmp(trouble.message, kept.message) == 0);
}

static void check_status(const struct json_object *dump, const char *invalid)
{
	struct operator_facts facts = {.generation = 1};
	CLEANUP(json_putp)
	struct json_object *first = NULL, *second = NULL;

	if (operator_status(dump, dump, invalid, &facts, kube_get(dump, "status"),
		    UINT64_C(1764043035000000000), &first) < 0)
		return;
	check(operator_status(dump, dump, invalid, &facts, first, UINT64_C(1764043099000000000),
		      &second) == 0);
	check(operator_same_status(first, second));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	CLEANUP(json_putp)
	struct json_object *dump = NULL;
	struct spec_resource spec;
	struct spec again;
	struct err err = {0};

	if (kube_json_parse(span_of((const char *)data, size), &dump, NULL) < 0)
		return 0;
	if (spec_resource_decode(kube_get(dump, "spec"), &spec, &err)) {
		check(err.code != 0 && err.text[0] != '\0' && strchr(err.text, '\n') == NULL);
		check_status(dump, err.text);
		return 0;
	}
	check(spec_parse_args(&again, spec.argc, spec.argv, &err) == 0);
	check_daemonset(dump, &spec);
	spec_resource_done(&spec);
	check_status(dump, NULL);
	return 0;
}
