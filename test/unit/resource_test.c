/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>

#include <json-c/json.h>

#include "pkg/spec/spec.h"

#define CRD_FILE "config/crd/bases/research.dynatrace.com_ebpfdumps.yaml"

/* The arguments that the spec comes to, with blanks between; or "error: ...". */
static const char *args_of(const char *json)
{
	static char text[4096];
	struct json_object *spec = json_tokener_parse(json);
	struct spec_resource r;
	struct err err = {0};
	size_t len = 0;

	text[0] = '\0';
	if (spec_resource_decode(spec, &r, &err)) {
		ck_assert_int_eq(err.code, EINVAL);
		snprintf(text, sizeof(text), "error: %s", err.text);
	} else {
		ck_assert_str_eq(r.argv[0], "ebpfdump-loader");
		ck_assert_ptr_null(r.argv[r.argc]);
		for (int i = 1; i < r.argc; i++) {
			snprintf(text + len, sizeof(text) - len, "%s%s", i > 1 ? " " : "",
				r.argv[i]);
			len = strlen(text);
		}
		spec_resource_done(&r);
	}
	json_object_put(spec);
	return text;
}

START_TEST(arguments)
{
	static const struct {
		const char *spec, *args;
	} cases[] = {
		{"{}", ""},
		{"{\"interfaces\":[]}", ""},
		{"{\"interfaces\":null,\"limits\":null}", ""},
		{"{\"interfaces\":[\"lo\"]}", "--interface=lo"},
		{"{\"interfaces\":[\"eth0\",\"lo\"],\"unknown\":{\"field\":1}}",
			"--interface=eth0 --interface=lo"},
		{"{\"directions\":[\"ingress\"],\"messages\":[\"request\",\"response\"]}",
			"--direction=ingress"},
		{"{\"bodyBytes\":4096}", ""},
		{"{\"bodyBytes\":0}", "--body-bytes=0"},
		{"{\"redactHeaders\":[\"Authorization\",\"Proxy-Authorization\",\"Cookie\","
		 "\"Set-Cookie\",\"X-Api-Key\"]}",
			""},
		{"{\"redactHeaders\":[]}", "--redact=none"},
		{"{\"redactHeaders\":[\"none\"]}", "--redact=none"},
		{"{\"redactHeaders\":[\"X-Token\",\"Cookie\"]}",
			"--redact=X-Token --redact=Cookie"},
		{"{\"limits\":{\"idle\":\"120m\",\"hold\":\"5s\",\"captureBytes\":0,\"lineBytes\":16384}}",
			"--hold=5s"},
		{"{\"limits\":{\"connections\":100},\"logLevel\":\"debug\",\"hook\":\"auto\"}",
			"--log-level=debug --connections=100"},
		{"{\"callback\":\"\"}", ""},
		{"{\"callback\":\"http://example.com\",\"delivery\":{\"gzip\":false,\"batch\":{"
		 "\"wait\":\"2s\"},\"spool\":{\"bytes\":0}}}",
			"--callback=http://example.com --callback-batch-wait=2s"},
		{"{\"image\":\"r/x:1\",\"nodeSelector\":{\"a\":\"b\"},\"tolerations\":[]}", ""},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		ck_assert_str_eq(args_of(cases[i].spec), cases[i].args);
}
END_TEST

START_TEST(refused)
{
	static const struct {
		const char *spec, *says;
	} cases[] = {
		{"[]", "spec: it is missing, or no object"},
		{"null", "spec: it is missing, or no object"},
		{"{\"interfaces\":\"lo\"}",
			"spec.interfaces: \"lo\" is not allowed: a list of at most 16 interface names of 1 "
			"to 15 bytes"},
		{"{\"interfaces\":[\"a/b\"]}", "spec.interfaces: \"a\\/b\" is not allowed: "},
		{"{\"interfaces\":[null]}", "spec.interfaces: [null] is not allowed: "},
		{"{\"interfaces\":[\"lo\\u0000x\"]}", "spec.interfaces: \"lo\\u0000x\" is not"},
		{"{\"interfaces\":[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\",\"10\",\"11\","
		 "\"12\",\"13\",\"14\",\"15\",\"16\",\"17\"]}",
			"spec.interfaces: "},
		{"{\"directions\":[\"up\"]}",
			"spec.directions: \"up\" is not allowed: a list of egress or ingress"},
		{"{\"bodyBytes\":\"1M\"}",
			"spec.bodyBytes: \"1M\" is not allowed: a number of bytes, 0 to 1048576"},
		{"{\"bodyBytes\":1048577}", "spec.bodyBytes: 1048577 is not allowed"},
		{"{\"bodyBytes\":-1}", "spec.bodyBytes: -1 is not allowed"},
		{"{\"bodyBytes\":18446744073709551616}", "spec.bodyBytes: "},
		{"{\"bodyBytes\":1.5}", "spec.bodyBytes: 1.5 is not allowed"},
		{"{\"bodyBytes\":true}", "spec.bodyBytes: true is not allowed"},
		{"{\"limits\":[]}", "spec.limits: [] is not allowed: an object"},
		{"{\"limits\":{\"captureBytes\":1}}",
			"spec.limits.captureBytes: 1 is not allowed: a number of bytes, 0, or 256 to"},
		{"{\"limits\":{\"hold\":5}}", "spec.limits.hold: 5 is not allowed: a time as text"},
		{"{\"limits\":{\"hold\":\"2m\"}}", "spec.limits.hold: \"2m\" is not allowed"},
		{"{\"limits\":{\"outputBytes\":65536,\"lineBytes\":65536}}",
			"spec.limits.outputBytes: '64K' is not allowed: at least twice --line-bytes"},
		{"{\"redactHeaders\":[\"none\",\"Cookie\"]}",
			"spec.redactHeaders: 'none' is not allowed"},
		{"{\"image\":\"a b\"}",
			"spec.image: \"a b\" is not allowed: text of 1 to 512 bytes"},
		{"{\"nodeSelector\":[]}", "spec.nodeSelector: [] is not allowed"},
		{"{\"callbackSecretRef\":{}}", "spec.callbackSecretRef.name: it is missing"},
		{"{\"callbackSecretRef\":{\"name\":\"s\"}}",
			"spec.callbackSecretRef: at least one of"},
		{"{\"callbackSecretRef\":{\"name\":\"s\",\"certKey\":\"c\"}}",
			"spec.callbackSecretRef: certKey and privateKeyKey come together"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const char *text = args_of(cases[i].spec);

		ck_assert_msg(strncmp(text, "error: ", 7) == 0 &&
				      strncmp(text + 7, cases[i].says, strlen(cases[i].says)) == 0,
			"%s: %s", cases[i].spec, text);
	}
}
END_TEST

START_TEST(of_the_pods)
{
	struct json_object *spec = json_tokener_parse(
		"{\"image\":\"x\",\"priorityClassName\":\"high\",\"nodeSelector\":{\"a\":\"b\"},"
		"\"resources\":{\"limits\":{\"memory\":\"1Gi\"}},\"tolerations\":[{\"operator\":"
		"\"Exists\"}],\"bodyBytes\":7,\"callbackSecretRef\":{\"name\":\"s\",\"hmacKey\":\"h\"}}");
	struct spec_resource r;
	struct err err;

	ck_assert_int_eq(spec_resource_decode(spec, &r, &err), 0);
	ck_assert_str_eq(r.image, "x");
	ck_assert_str_eq(r.priority_class, "high");
	ck_assert_ptr_nonnull(r.node_selector);
	ck_assert_ptr_nonnull(r.tolerations);
	ck_assert_ptr_nonnull(r.resources);
	ck_assert_str_eq(r.secret.name, "s");
	ck_assert_str_eq(r.secret.hmac, "h");
	ck_assert_ptr_null(r.secret.cert);
	ck_assert_uint_eq(r.loader.body_bytes, 7);
	spec_resource_done(&r);
	json_object_put(spec);
}
END_TEST

/* The committed file is what the table says; and every path of the table is in it. */
START_TEST(crd)
{
	char *text = NULL, *file = calloc(1, 1 << 20);
	size_t size = 0, n;
	const struct spec_option *o = spec_options(&n);
	FILE *memory = open_memstream(&text, &size), *f = fopen(CRD_FILE, "re");

	ck_assert_ptr_nonnull(memory);
	ck_assert_ptr_nonnull(file);
	ck_assert_msg(f != NULL, "%s is missing", CRD_FILE);
	spec_print_crd(memory);
	fclose(memory);
	ck_assert_uint_gt(fread(file, 1, (1 << 20) - 1, f), 0);
	fclose(f);
	ck_assert_msg(strcmp(file, text) == 0, "%s is not what the table says: make crd", CRD_FILE);
	/* what kubectl apply keeps a copy of must fit an annotation */
	ck_assert_uint_lt(size, 200000);
	for (size_t i = 0; i < n; i++) {
		char field[80];

		if (!o[i].path)
			continue;
		snprintf(field, sizeof(field), " %s:\n", strrchr(o[i].path, '.') + 1);
		ck_assert_msg(strstr(text, field) != NULL, "%s", o[i].path);
	}
	free(text);
	free(file);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("resource");
	TCase *t = tcase_create("resource");
	SRunner *runner;
	int failed;

	tcase_add_test(t, arguments);
	tcase_add_test(t, refused);
	tcase_add_test(t, of_the_pods);
	tcase_add_test(t, crd);
	suite_add_tcase(suite, t);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
