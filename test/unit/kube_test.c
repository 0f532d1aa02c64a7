/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>

#include "pkg/kube/internal.h"
#include "pkg/kube/kube.h"

#define S	KUBE_SECOND
#define MS	UINT64_C(1000000)
#define T0	(1000 * S) /* when tests of time begin */
#define WALL	UINT64_C(1700000000123456789)
#define REPEATS 200
#define TEXT_70 "\"0123456789012345678901234567890123456789012345678901234567890123456789\""

static struct json_object *json(const char *text)
{
	struct json_object *object = NULL;
	struct err err = {0};

	ck_assert_msg(
		kube_json_parse(span_str(text), &object, &err) == 0, "%s: %s", text, err.text);
	return object;
}

/* ---- objects ---- */

START_TEST(reading_objects)
{
	struct json_object *o =
		json("{\"a\":{\"b\":{\"s\":\"x\",\"n\":7,\"t\":true,\"z\":null}},\"s\":\"y\"}");

	ck_assert_str_eq(kube_get_string(o, "a.b.s"), "x");
	ck_assert_str_eq(kube_get_string(o, "s"), "y");
	ck_assert_str_eq(kube_get_string(o, "a.b.n"), "");
	ck_assert_str_eq(kube_get_string(o, "a.c.s"), "");
	ck_assert_str_eq(kube_get_string(o, "s.s"), "");
	ck_assert_str_eq(kube_get_string(o, ""), "");
	ck_assert_str_eq(kube_get_string(NULL, "a"), "");
	ck_assert_int_eq(kube_get_int(o, "a.b.n", -1), 7);
	ck_assert_int_eq(kube_get_int(o, "a.b.s", -1), -1);
	ck_assert(kube_get_bool(o, "a.b.t"));
	ck_assert(!kube_get_bool(o, "a.b.s"));
	ck_assert_ptr_null(kube_get(o, "a.b.z"));
	json_object_put(o);
}
END_TEST

START_TEST(keys)
{
	struct json_object *o = json("{\"metadata\":{\"namespace\":\"n\",\"name\":\"x\"}}");
	struct json_object *bare = json("{\"metadata\":{\"name\":\"x\"}}");
	struct json_object *none = json("{\"metadata\":{\"namespace\":\"n\"}}");
	char key[KUBE_KEY_MAX];

	ck_assert_int_eq(kube_key(o, key, sizeof(key)), 0);
	ck_assert_str_eq(key, "n/x");
	ck_assert_int_eq(kube_key(o, key, 4), 0);
	ck_assert_int_eq(kube_key(o, key, 3), -EINVAL);
	ck_assert_int_eq(kube_key(bare, key, sizeof(key)), 0);
	ck_assert_str_eq(key, "x");
	ck_assert_int_eq(kube_key(none, key, sizeof(key)), -EINVAL);
	ck_assert_int_eq(kube_key(NULL, key, sizeof(key)), -EINVAL);
	json_object_put(o);
	json_object_put(bare);
	json_object_put(none);
}
END_TEST

START_TEST(json_texts)
{
	static const char *const bad[] = {
		"", " ", "[]", "1", "\"x\"", "{", "{]", "{}x", "{\"a\":\"\xff\"}", "x{}"};
	struct json_object *o = NULL;
	struct err err;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		ck_assert_msg(
			kube_json_parse(span_str(bad[i]), &o, &err) == -EBADMSG, "%s", bad[i]);
	ck_assert_int_eq(kube_json_parse(span_of("{\"a\":\"\0\"}", 9), &o, &err), -EBADMSG);
	o = json(" {\"a\":1,\"a\":2} \n");
	ck_assert_int_eq(kube_get_int(o, "a", 0), 2);
	json_object_put(o);
	o = json("{\"a\":\"\xc3\xa9\xe2\x82\xac\"}");
	ck_assert_str_eq(kube_get_string(o, "a"), "\xc3\xa9\xe2\x82\xac");
	json_object_put(o);
}
END_TEST

START_TEST(escaping)
{
	struct buf out = BUF_INIT(64);

	ck_assert_int_eq(kube_escape(&out, "a-Z.0_~/ =&%\xc3\xa9"), 0);
	ck_assert_int_eq(buf_append(&out, "", 1), 0);
	ck_assert_str_eq(out.data, "a-Z.0_~%2F%20%3D%26%25%C3%A9");
	buf_done(&out);
}
END_TEST

/* ---- times ---- */

START_TEST(time_texts)
{
	static const struct {
		const char *text;
		uint64_t ns;
	} good[] = {
		{"1970-01-01T00:00:00Z", 0},
		{"2023-11-14T22:13:20Z", 1700000000 * S},
		{"2023-11-14t22:13:20z", 1700000000 * S},
		{"2023-11-14T22:13:20.5Z", 1700000000 * S + 500 * MS},
		{"2023-11-14T22:13:20.123456Z", 1700000000 * S + 123456000},
		{"2023-11-14T22:13:20.1234567899Z", 1700000000 * S + 123456789},
		{"2023-11-15T00:13:20+02:00", 1700000000 * S},
		{"2023-11-14T16:43:20-05:30", 1700000000 * S},
		{"2024-02-29T00:00:00Z", 1709164800 * S},
		{"2000-02-29T00:00:00Z", 951782400 * S},
	};
	static const char *const bad[] = {"", "now", "2023-11-14", "2023-11-14T22:13:20",
		"2023-11-14 22:13:20Z", "2023-11-14T22:13:20.Z", "2023-13-14T22:13:20Z",
		"2023-02-29T00:00:00Z", "1900-02-29T00:00:00Z", "2023-04-31T00:00:00Z",
		"2023-11-14T24:13:20Z", "2023-11-14T22:60:20Z", "2023-11-14T22:13:61Z",
		"2023-11-14T22:13:20Zx", "2023-11-14T22:13:20+0200", "2023-11-00T22:13:20Z",
		" 2023-11-14T22:13:20Z", "+023-11-14T22:13:20Z"};
	char text[KUBE_TIME_MAX];
	uint64_t ns;

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		ck_assert_msg(kube_time_parse(good[i].text, &ns) == 0, "%s", good[i].text);
		ck_assert_uint_eq(ns, good[i].ns);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		ck_assert_msg(kube_time_parse(bad[i], &ns) == -EINVAL, "%s", bad[i]);
	ck_assert_int_eq(kube_time_parse("1969-12-31T23:59:59Z", &ns), -ERANGE);
	ck_assert_int_eq(kube_time_parse("9999-12-31T23:59:59Z", &ns), -ERANGE);
	kube_time_format(WALL, text);
	ck_assert_str_eq(text, "2023-11-14T22:13:20Z");
	kube_micro_time_format(WALL, text);
	ck_assert_str_eq(text, "2023-11-14T22:13:20.123456Z");
	ck_assert_int_eq(kube_time_parse(text, &ns), 0);
	ck_assert_uint_eq(ns, WALL / 1000 * 1000);
	kube_micro_time_format(1700000000 * S, text);
	ck_assert_str_eq(text, "2023-11-14T22:13:20.000000Z");
}
END_TEST

/* ---- conditions: conditions_test.go, and validation.go's rules ---- */

static struct kube_condition condition(const char *type, const char *status, const char *reason,
	const char *message, int64_t generation)
{
	return (struct kube_condition){.type = type,
		.status = status,
		.reason = reason,
		.message = message,
		.observed_generation = generation};
}

START_TEST(condition_transitions)
{
	struct json_object *list = json_object_new_array();
	struct kube_condition c = condition("Ready", "False", "Starting", "", 1);
	struct json_object *ready;

	ck_assert_int_eq(kube_condition_set(list, &c, WALL), 1);
	ck_assert_int_eq(kube_condition_set(list, &c, WALL + 60 * S), 0);
	ready = kube_condition_find(list, "Ready");
	ck_assert_str_eq(kube_get_string(ready, "lastTransitionTime"), "2023-11-14T22:13:20Z");
	/* only the status moves the time */
	c = condition("Ready", "False", "Other", "text", 2);
	ck_assert_int_eq(kube_condition_set(list, &c, WALL + 60 * S), 1);
	ck_assert_str_eq(kube_get_string(ready, "reason"), "Other");
	ck_assert_str_eq(kube_get_string(ready, "message"), "text");
	ck_assert_int_eq(kube_get_int(ready, "observedGeneration", 0), 2);
	ck_assert_str_eq(kube_get_string(ready, "lastTransitionTime"), "2023-11-14T22:13:20Z");
	c.status = "True";
	ck_assert_int_eq(kube_condition_set(list, &c, WALL + 60 * S), 1);
	ck_assert_str_eq(kube_get_string(ready, "lastTransitionTime"), "2023-11-14T22:14:20Z");
	/* types are unique, others stay */
	c = condition("Accepted", "Unknown", "Waiting", "", 2);
	ck_assert_int_eq(kube_condition_set(list, &c, WALL), 1);
	ck_assert_uint_eq(json_object_array_length(list), 2);
	ck_assert_ptr_null(kube_condition_find(list, "Degraded"));
	json_object_put(list);
}
END_TEST

START_TEST(condition_long_message)
{
	struct json_object *list = json_object_new_array();
	char *text = malloc(40001);
	struct kube_condition c = condition("Ready", "True", "X", text, 0);

	/* the last character that fits would be cut in two */
	for (int i = 0; i < 20000; i++)
		memcpy(text + 2 * i, "\xc3\xa9", 2);
	memmove(text + 1, text, 39999);
	text[0] = 'x';
	text[39999] = '\0';
	ck_assert_int_eq(kube_condition_set(list, &c, WALL), 1);
	ck_assert_uint_eq(
		strlen(kube_get_string(kube_condition_find(list, "Ready"), "message")), 32767);
	ck_assert_int_eq(kube_condition_set(list, &c, WALL), 0);
	json_object_put(list);
	free(text);
}
END_TEST

START_TEST(condition_rules)
{
	static const char *const types[] = {
		"Ready", "a", "A.b_c-d", "example.com/Ready", "a.b-c.d/X"};
	static const char *const bad_types[] = {"", "-a", "a-", "a b", "/a", "a/", "a/b/c",
		"A.com/x", "a..b/x", ".a/x", "a./x", "-a/x", "a-/x", "a-.b/x", "\xc3\xa9"};
	static const char *const reasons[] = {"A", "AllNodesReady", "a1_b", "A,b:C", "A_"};
	static const char *const bad_reasons[] = {"", "1a", "_a", "a-b", "a b", "a,", "a:", "a.b"};
	struct kube_condition c;
	struct err err;

	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		c = condition(types[i], "True", "X", "", 0);
		ck_assert_msg(kube_condition_check(&c, &err) == 0, "%s", types[i]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad_types); i++) {
		c = condition(bad_types[i], "True", "X", "", 0);
		ck_assert_msg(kube_condition_check(&c, &err) == -EINVAL, "%s", bad_types[i]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(reasons); i++) {
		c = condition("R", "True", reasons[i], "", 0);
		ck_assert_msg(kube_condition_check(&c, &err) == 0, "%s", reasons[i]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad_reasons); i++) {
		c = condition("R", "True", bad_reasons[i], "", 0);
		ck_assert_msg(kube_condition_check(&c, &err) == -EINVAL, "%s", bad_reasons[i]);
	}
	c = condition("R", "true", "X", "", 0);
	ck_assert_int_eq(kube_condition_check(&c, &err), -EINVAL);
	c = condition("R", "True", "X", NULL, 0);
	ck_assert_int_eq(kube_condition_check(&c, &err), -EINVAL);
	c = condition("R", "True", "X", "\xff", 0);
	ck_assert_int_eq(kube_condition_check(&c, &err), -EINVAL);
	c = condition("R", "True", "X", "", -1);
	ck_assert_int_eq(kube_condition_check(&c, &err), -EINVAL);
	c = condition("R", "True", "", "", 0);
	ck_assert_int_eq(kube_condition_set(NULL, &c, WALL), -EINVAL);
}
END_TEST

/* ---- answers ---- */

START_TEST(classification)
{
	static const struct {
		long code;
		bool json;
		const char *body;
		enum kube_result result;
	} table[] = {
		{200, true, "{}", KUBE_OK},
		{201, false, "{}", KUBE_OK},
		{500, false, "{}", KUBE_UNREACHABLE},
		{502, false, "{}", KUBE_UNREACHABLE},
		{503, false, "{}", KUBE_UNREACHABLE},
		{403, false, "{}", KUBE_FILTERED},
		{404, false, "{}", KUBE_NOT_SERVED},
		{401, false, "{}", KUBE_UNAUTHORIZED},
		{429, false, "{}", KUBE_TOO_MANY},
		{301, false, "{}", KUBE_OTHER},
		{401, true, "{}", KUBE_UNAUTHORIZED},
		{403, true, "{}", KUBE_FORBIDDEN},
		{404, true, "{}", KUBE_NOT_FOUND},
		{409, true, "{}", KUBE_CONFLICT},
		{409, true, "{'kind':'Status','apiVersion':'v1','reason':'Conflict'}",
			KUBE_CONFLICT},
		{409, true, "{'kind':'Status','apiVersion':'v1','reason':'AlreadyExists'}",
			KUBE_ALREADY_EXISTS},
		{410, true, "{}", KUBE_EXPIRED},
		{400, true, "{'kind':'Status','apiVersion':'v1','reason':'Expired'}", KUBE_EXPIRED},
		{400, true, "{'kind':'Status','apiVersion':'v1','reason':'Gone'}", KUBE_EXPIRED},
		{400, true, "{}", KUBE_INVALID},
		{415, true, "{}", KUBE_INVALID},
		{422, true, "{}", KUBE_INVALID},
		{429, true, "{}", KUBE_TOO_MANY},
		{500, true, "{}", KUBE_SERVER},
		{504, true, "{}", KUBE_SERVER},
		{504, true,
			"{'kind':'Status','apiVersion':'v1','details':{'causes':[{'reason':'x'},{'reason':"
			"'ResourceVersionTooLarge'}]}}",
			KUBE_RV_AHEAD},
		{504, true,
			"{'kind':'Status','apiVersion':'v1','message':'Too large resource version: 7'}",
			KUBE_RV_AHEAD},
		{504, true,
			"{'kind':'Other','apiVersion':'v1','message':'Too large resource version'}",
			KUBE_SERVER},
		{418, true, "{}", KUBE_OTHER},
	};

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		char text[256];
		struct json_object *body;
		struct kube_status status;

		snprintf(text, sizeof(text), "%s", table[i].body);
		for (char *p = text; *p; p++)
			*p = *p == '\'' ? '"' : *p;
		body = json(text);
		kube_status_parse(body, &status);
		ck_assert_msg(
			kube_classify(table[i].code, table[i].json, &status) == table[i].result,
			"%zu: %ld %s", i, table[i].code, text);
		json_object_put(body);
	}
}
END_TEST

START_TEST(statuses)
{
	struct json_object *o = json(
		"{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"code\":410,\"reason\":\"Expired\",\"message\":"
		"\"old\",\"details\":{\"retryAfterSeconds\":500,\"causes\":[{},{\"reason\":\"a\"},7]}}");
	struct json_object *other = json("{\"kind\":\"Pod\",\"apiVersion\":\"v1\"}");
	struct kube_status status;

	kube_status_parse(o, &status);
	ck_assert(status.present);
	ck_assert_int_eq(status.code, 410);
	ck_assert_str_eq(status.message, "old");
	ck_assert_int_eq(status.retry_after_s, 60);
	ck_assert_uint_eq(status.cause_count, 1);
	ck_assert(kube_status_has_cause(&status, "a"));
	ck_assert(!kube_status_has_cause(&status, "b"));
	ck_assert_int_eq(kube_classify_status(&status), KUBE_EXPIRED);
	kube_status_parse(other, &status);
	ck_assert(!status.present);
	ck_assert_str_eq(status.reason, "");
	kube_status_parse(NULL, &status);
	ck_assert(!status.present);
	json_object_put(o);
	json_object_put(other);
}
END_TEST

START_TEST(retry_after)
{
	static const struct {
		const char *text;
		int result;
		uint32_t seconds;
	} table[] = {
		{"0", 0, 0},
		{"5", 0, 5},
		{" 7\t", 0, 7},
		{"60", 0, 60},
		{"61", 0, 60},
		{"99999999999999999999999", 0, 60},
		{"", -EINVAL, 0},
		{"-1", -EINVAL, 0},
		{"1.5", -EINVAL, 0},
		{"1s", -EINVAL, 0},
		{"Wed, 21 Oct 2015 07:28:00 GMT", -EINVAL, 0},
	};

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		uint32_t seconds = 0;

		ck_assert_msg(
			kube_retry_after(span_str(table[i].text), &seconds) == table[i].result,
			"'%s'", table[i].text);
		ck_assert_uint_eq(seconds, table[i].seconds);
	}
}
END_TEST

START_TEST(names)
{
	for (int i = 0; i < KUBE_RESULT_MAX; i++)
		ck_assert_ptr_nonnull(kube_result_name((enum kube_result)i));
	ck_assert_str_eq(kube_result_name(KUBE_RESULT_MAX), "unknown");
	ck_assert_str_eq(kube_change_name(KUBE_DELETED_UNKNOWN), "deleted_unknown");
	ck_assert_str_eq(kube_reflector_phase_name(KUBE_WAITING), "waiting");
}
END_TEST

START_TEST(calls)
{
	static const struct {
		enum kube_method method;
		const char *path, *type;
		bool stream;
		const char *verb, *resource;
	} table[] = {
		{KUBE_GET, "/apis/g/v1/things", NULL, false, "list", "things"},
		{KUBE_GET, "/apis/g/v1/things", NULL, true, "watch", "things"},
		{KUBE_GET, "/apis/g/v1/namespaces/n/things", NULL, false, "list", "things"},
		{KUBE_GET, "/apis/g/v1/namespaces/n/things/x", NULL, false, "get", "things"},
		{KUBE_PATCH, "/apis/g/v1/namespaces/n/things/x/status", KUBE_APPLY_PATCH, false,
			"apply", "things/status"},
		{KUBE_PATCH, "/api/v1/pods/x", KUBE_MERGE_PATCH, false, "patch", "pods"},
		{KUBE_POST, "/api/v1/namespaces/n/pods", NULL, false, "create", "pods"},
		{KUBE_PUT, "/api/v1/namespaces/n/status", NULL, false, "update",
			"namespaces/status"},
		{KUBE_DELETE, "/api/v1/namespaces/n", NULL, false, "delete", "namespaces"},
		{KUBE_GET, "/version", NULL, false, "get", "other"},
		{KUBE_GET, "/api/", NULL, false, "get", "other"},
		{KUBE_GET, "/apis/g/v1/", NULL, false, "list", "other"},
		{KUBE_GET, "/apis/g/v1/A%20b", NULL, false, "list", "other"},
		{KUBE_GET, "/apis/g/v1/things/x/y/z", NULL, false, "get", "other"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		char resource[64];

		kube_call_resource(table[i].path, resource, sizeof(resource));
		ck_assert_str_eq(resource, table[i].resource);
		ck_assert_str_eq(kube_call_verb(table[i].method, table[i].path, table[i].type,
					 table[i].stream),
			table[i].verb);
	}
}
END_TEST

START_TEST(texts_of_headers)
{
	char out[16];

	ck_assert_uint_eq(kube_warning_text(SPAN("299 - \"a \\\"b\\\" c\" \"date\""), out, 16), 7);
	ck_assert_str_eq(out, "a \"b\" c");
	ck_assert_uint_eq(kube_warning_text(SPAN("nothing quoted"), out, 16), 14);
	ck_assert_uint_eq(kube_warning_text(SPAN("299 - \"x\\"), out, 16), 2);
	ck_assert_uint_eq(kube_warning_text(SPAN("299 - \"0123456789abcd\xc3\xa9\""), out, 16), 14);
	ck_assert_uint_eq(kube_warning_text(SPAN(""), out, 16), 0);
	kube_one_line(SPAN("a\nb\t\xff"), out, sizeof(out));
	ck_assert_str_eq(out, "a b");
	kube_one_line(SPAN("0123456789abcd\xc3\xa9"), out, sizeof(out));
	ck_assert_str_eq(out, "0123456789abcd");
	kube_one_line(span_of(NULL, 0), out, sizeof(out));
	ck_assert_str_eq(out, "");
}
END_TEST

/* ---- waiting ---- */

/* TestReflectorListAndWatchInitConnBackoff's bounds */
START_TEST(backoff)
{
	static const uint64_t steps_ms[] = {800, 1600, 3200, 6400, 12800, 25600, 30000, 30000};
	struct kube_backoff b = {.initial_ns = 800 * MS, .cap_ns = 30 * S, .jitter = 1};

	for (int k = 0; k < 3; k++) {
		for (size_t i = 0; i < ARRAY_SIZE(steps_ms); i++) {
			double random = k == 0 ? 0 : k == 1 ? 0.5 : 0.999999;
			uint64_t d = kube_backoff_next(&b, random);

			ck_assert_uint_ge(d, steps_ms[i] * MS);
			ck_assert_uint_lt(d, 2 * steps_ms[i] * MS);
			if (k == 1)
				ck_assert_uint_eq(d, steps_ms[i] * MS * 3 / 2);
		}
		kube_backoff_reset(&b);
	}
	for (int i = 0; i < 1000; i++)
		kube_backoff_next(&b, kube_random());
	ck_assert_uint_le(kube_backoff_next(&b, 0.99), 60 * S);
}
END_TEST

START_TEST(random_numbers)
{
	double least = 1, most = 0;

	for (int i = 0; i < 1000; i++) {
		double r = kube_random();

		ck_assert(r >= 0 && r < 1);
		least = MIN(least, r);
		most = MAX(most, r);
	}
	ck_assert(least < 0.1 && most > 0.9);
}
END_TEST

START_TEST(bucket)
{
	struct kube_bucket b;
	uint64_t wait;

	kube_bucket_init(&b, 5, 10, T0);
	for (int i = 0; i < 10; i++)
		ck_assert_uint_eq(kube_bucket_take(&b, T0), 0);
	wait = kube_bucket_take(&b, T0);
	ck_assert(wait >= 200 * MS && wait <= 201 * MS);
	ck_assert_uint_ne(kube_bucket_take(&b, T0 + 100 * MS), 0);
	ck_assert_uint_eq(kube_bucket_take(&b, T0 + wait), 0);
	/* a clock that goes back gives nothing and takes nothing */
	ck_assert_uint_ne(kube_bucket_take(&b, T0), 0);
	/* never more than the burst */
	for (int i = 0; i < 10; i++)
		ck_assert_uint_eq(kube_bucket_take(&b, T0 + 3600 * S), 0);
	ck_assert_uint_ne(kube_bucket_take(&b, T0 + 3600 * S), 0);
	kube_bucket_init(&b, 10, 2, T0);
	ck_assert_uint_eq(kube_bucket_reserve(&b, T0), 0);
	ck_assert_uint_eq(kube_bucket_reserve(&b, T0), 0);
	ck_assert_uint_eq(kube_bucket_reserve(&b, T0) / MS, 100);
	ck_assert_uint_eq(kube_bucket_reserve(&b, T0) / MS, 200);
}
END_TEST

/* ---- framing ---- */

struct framed {
	char text[4096];
	int stop_after;
	int count;
};

static int note_frame(void *ctx, struct json_object *object, size_t bytes)
{
	struct framed *f = ctx;
	size_t len = strlen(f->text);

	snprintf(f->text + len, sizeof(f->text) - len, "%s;",
		json_object_to_json_string_ext(object, JSON_C_TO_STRING_PLAIN));
	f->count++;
	return f->stop_after && f->count >= f->stop_after ? -ECANCELED : 0;
}

static int frame_pieces(
	const char *p, size_t len, size_t a, size_t b, struct framed *out, bool *partial)
{
	struct kube_frames frames;
	int r;

	ck_assert_int_eq(kube_frames_init(&frames, 1 << 20), 0);
	r = kube_frames_feed(&frames, p, a, note_frame, out);
	if (r == 0)
		r = kube_frames_feed(&frames, p + a, b - a, note_frame, out);
	if (r == 0)
		r = kube_frames_feed(&frames, p + b, len - b, note_frame, out);
	*partial = kube_frames_partial(&frames);
	kube_frames_done(&frames);
	return r;
}

static const char stream[] =
	"{\"type\":\"ADDED\",\"object\":{\"a\":\"\\n\\\"}{[\\\\\",\"b\":[1,{}]}}\n"
	"{\"u\":\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"}{\"next\":{}}\r\n\t {\"last\":null}\n";

static void frame_whole(struct framed *out)
{
	bool partial;

	memset(out, 0, sizeof(*out));
	ck_assert_int_eq(frame_pieces(stream, sizeof(stream) - 1, 0, 0, out, &partial), 0);
	ck_assert_int_eq(out->count, 4);
	ck_assert(!partial);
}

START_TEST(frames_at_every_split)
{
	size_t len = sizeof(stream) - 1;
	struct framed whole, split;
	bool partial;

	frame_whole(&whole);
	for (size_t a = 0; a <= len; a++) {
		for (size_t b = a; b <= len; b++) {
			memset(&split, 0, sizeof(split));
			ck_assert_int_eq(frame_pieces(stream, len, a, b, &split, &partial), 0);
			ck_assert_str_eq(split.text, whole.text);
		}
	}
}
END_TEST

START_TEST(frames_byte_by_byte)
{
	struct framed whole, bytes = {0};
	struct kube_frames frames;
	size_t opened = 0;

	frame_whole(&whole);
	ck_assert_int_eq(kube_frames_init(&frames, 1 << 20), 0);
	for (size_t i = 0; i < sizeof(stream) - 1; i++) {
		ck_assert_int_eq(kube_frames_feed(&frames, stream + i, 1, note_frame, &bytes), 0);
		opened += kube_frames_partial(&frames);
	}
	ck_assert_str_eq(bytes.text, whole.text);
	/* all but the last byte of each document, and what is between them */
	ck_assert_uint_eq(opened, sizeof(stream) - 1 - 4 - 6);
	kube_frames_done(&frames);
}
END_TEST

START_TEST(frames_cut_anywhere)
{
	struct framed f;
	bool partial;

	for (size_t n = 0; n < sizeof(stream) - 1; n++) {
		memset(&f, 0, sizeof(f));
		ck_assert_int_eq(frame_pieces(stream, n, 0, 0, &f, &partial), 0);
		ck_assert(partial || strchr("\n}\r\t ", stream[n - (n > 0)]) || n == 0);
	}
}
END_TEST

START_TEST(bad_frames)
{
	static const char *const bad[] = {"x", "1", "\"a\"", "[]", "null", "}", "{]}", "{\"a\":}",
		"{\"a\":\"\xff\"}", "{\"\xc3\":1}", "{\"a\":\"\xed\xa0\x80\"}", "{} x",
		"\xef\xbb\xbf{}"};
	struct kube_frames frames;
	struct framed f = {0};
	char deep[512] = "{\"a\":";
	bool partial;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		for (size_t cut = 0; cut <= strlen(bad[i]); cut++)
			ck_assert_msg(frame_pieces(bad[i], strlen(bad[i]), cut, cut, &f,
					      &partial) == -EBADMSG,
				"%s", bad[i]);
	}
	ck_assert_int_eq(frame_pieces("{\"a\":\"\0\"}", 9, 0, 0, &f, &partial), -EBADMSG);
	/* 100 deep is allowed, 101 not */
	memset(deep + 5, '[', KUBE_JSON_DEPTH - 1);
	memset(deep + 5 + KUBE_JSON_DEPTH - 1, ']', KUBE_JSON_DEPTH - 1);
	strncat(deep, "}", 2);
	f.count = 0;
	f.text[0] = '\0';
	ck_assert_int_eq(frame_pieces(deep, strlen(deep), 7, 9, &f, &partial), 0);
	ck_assert_int_eq(f.count, 1);
	memset(deep + 5, '[', KUBE_JSON_DEPTH);
	ck_assert_int_eq(frame_pieces(deep, strlen(deep), 7, 9, &f, &partial), -EBADMSG);
	/* a failure stays one */
	ck_assert_int_eq(kube_frames_init(&frames, 100), 0);
	ck_assert_int_eq(kube_frames_feed(&frames, "x", 1, note_frame, &f), -EBADMSG);
	ck_assert_int_eq(kube_frames_feed(&frames, "{}", 2, note_frame, &f), -EBADMSG);
	kube_frames_done(&frames);
}
END_TEST

START_TEST(frames_have_a_limit)
{
	char text[256] = "{\"a\":\"";
	struct kube_frames frames;
	struct framed f = {0};

	memset(text + 6, 'x', 100 - 8);
	strncat(text, "\"}", 3);
	ck_assert_uint_eq(strlen(text), 100);
	for (size_t piece = 1; piece <= 100; piece += 33) {
		for (size_t max = 99; max <= 100; max++) {
			int r = 0;

			ck_assert_int_eq(kube_frames_init(&frames, max), 0);
			for (size_t i = 0; i < 100 && r == 0; i += piece)
				r = kube_frames_feed(
					&frames, text + i, MIN(piece, 100 - i), note_frame, &f);
			ck_assert_int_eq(r, max == 100 ? 0 : -EMSGSIZE);
			kube_frames_done(&frames);
			f.text[0] = '\0';
		}
	}
}
END_TEST

START_TEST(frames_can_be_stopped)
{
	struct framed f = {.stop_after = 2};
	bool partial;

	ck_assert_int_eq(frame_pieces(stream, sizeof(stream) - 1, 3, 70, &f, &partial), -ECANCELED);
	ck_assert_int_eq(f.count, 2);
}
END_TEST

/* ---- what follows a watch ---- */

START_TEST(after_a_watch)
{
	static const struct {
		struct kube_watch_end end;
		enum kube_watch_next next;
	} table[] = {
		/* clean ends */
		{{.answered = true, .lasted_ms = 1000}, KUBE_REWATCH_NOW},
		{{.answered = true, .lasted_ms = 999}, KUBE_RELIST_LATER},
		{{.answered = true, .lasted_ms = 10, .events = 1}, KUBE_REWATCH_NOW},
		{{.answered = true, .lasted_ms = 10, .events = 1, .short_before = 5},
			KUBE_REWATCH_LATER},
		/* cut off: the same */
		{{.result = KUBE_CUT, .answered = true, .lasted_ms = 1000}, KUBE_REWATCH_NOW},
		{{.result = KUBE_CUT, .answered = true, .lasted_ms = 1}, KUBE_RELIST_LATER},
		{{.result = KUBE_TIMEOUT, .answered = true, .lasted_ms = 90000}, KUBE_REWATCH_NOW},
		/* connecting */
		{{.result = KUBE_CUT}, KUBE_REWATCH_TRY},
		{{.result = KUBE_TIMEOUT, .connect_tries = 9}, KUBE_REWATCH_TRY},
		{{.result = KUBE_TIMEOUT, .connect_tries = 10}, KUBE_RELIST_LATER},
		{{.result = KUBE_CONNECT, .connect_tries = 99}, KUBE_REWATCH_LATER},
		{{.result = KUBE_UNREACHABLE}, KUBE_REWATCH_LATER},
		{{.result = KUBE_TOO_MANY}, KUBE_REWATCH_LATER},
		{{.result = KUBE_TOO_MANY, .answered = true, .error_event = true},
			KUBE_REWATCH_LATER},
		/* expired */
		{{.result = KUBE_EXPIRED}, KUBE_RELIST_LATER},
		{{.result = KUBE_EXPIRED, .answered = true, .error_event = true},
			KUBE_RELIST_LATER},
		{{.result = KUBE_RV_AHEAD}, KUBE_RELIST_LATER},
		/* 500: only as an event, and three times */
		{{.result = KUBE_SERVER}, KUBE_RELIST_LATER},
		{{.result = KUBE_SERVER,
			 .answered = true,
			 .error_event = true,
			 .internal_errors = 2},
			KUBE_REWATCH_LATER},
		{{.result = KUBE_SERVER,
			 .answered = true,
			 .error_event = true,
			 .internal_errors = 3},
			KUBE_RELIST_LATER},
		/* all else */
		{{.result = KUBE_FORBIDDEN}, KUBE_RELIST_LATER},
		{{.result = KUBE_NOT_SERVED}, KUBE_RELIST_LATER},
		{{.result = KUBE_BAD_ANSWER, .answered = true, .undecodable = true, .events = 7},
			KUBE_RELIST_LATER},
		{{.result = KUBE_TOO_BIG, .answered = true, .undecodable = true, .lasted_ms = 5000},
			KUBE_RELIST_LATER},
	};

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		struct kube_watch_end end = table[i].end;

		end.short_ms = 1000;
		ck_assert_msg(kube_watch_next(&end) == table[i].next, "%zu", i);
	}
}
END_TEST

/* ---- cache ---- */

static struct json_object *numbered(int n)
{
	char text[64];

	snprintf(text, sizeof(text), "{\"n\":%d,\"a\":[{\"b\":{}},2]}", n);
	return json(text);
}

START_TEST(cache)
{
	struct kube_cache c = {0};
	struct json_object *old, *one_more;
	char key[16], before[16] = "";

	for (int i = 0; i < REPEATS; i++) {
		struct json_object *o = numbered(i);

		snprintf(key, sizeof(key), "k%03d", i * 37 % REPEATS);
		kube_compact(o);
		ck_assert_int_eq(kube_cache_put(&c, key, o, REPEATS, &old), 0);
		ck_assert_ptr_null(old);
		json_object_put(o);
	}
	for (size_t i = 0; i < c.count; i++) {
		ck_assert_int_lt(strcmp(before, c.items[i].key), 0);
		memcpy(before, c.items[i].key, 5);
		ck_assert_ptr_eq(kube_cache_get(&c, c.items[i].key), c.items[i].object);
		ck_assert_uint_eq(json_object_array_length(kube_get(c.items[i].object, "a")), 2);
	}
	one_more = numbered(7);
	ck_assert_int_eq(kube_cache_put(&c, "new", one_more, REPEATS, &old), -ENOSPC);
	ck_assert_ptr_null(old);
	json_object_put(one_more);
	ck_assert_ptr_null(kube_cache_get(&c, "new"));
	ck_assert_ptr_null(kube_cache_remove(&c, "new"));
	for (int i = 0; i < REPEATS; i++) {
		snprintf(key, sizeof(key), "k%03d", i * 91 % REPEATS);
		old = kube_cache_remove(&c, key);
		ck_assert_ptr_nonnull(old);
		json_object_put(old);
	}
	ck_assert_uint_eq(c.count, 0);
	kube_cache_done(&c);
}
END_TEST

START_TEST(compact_objects_can_grow)
{
	struct json_object *o = json("{\"a\":1,\"b\":{},\"c\":[]}");
	char name[16];

	kube_compact(o);
	for (int i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "x%d", i);
		ck_assert_int_eq(json_object_object_add(o, name, json_object_new_int(i)), 0);
	}
	ck_assert_int_eq(json_object_object_length(o), 103);
	ck_assert_int_eq(kube_get_int(o, "x99", 0), 99);
	ck_assert_int_eq(kube_get_int(o, "a", 0), 1);
	json_object_put(o);
}
END_TEST

/* ---- queue: queue_test.go, default_rate_limiters_test.go ---- */

static struct kube_queue *new_queue(uint32_t max)
{
	struct kube_queue *q = NULL;

	ck_assert_int_eq(kube_queue_new(max, &q), 0);
	return q;
}

static const char *take(struct kube_queue *q, uint64_t now)
{
	static char key[KUBE_KEY_MAX];

	return kube_queue_take(q, now, key) ? key : "-";
}

static uint32_t depth(struct kube_queue *q)
{
	struct kube_queue_stats s;

	kube_queue_stats(q, &s);
	return s.depth;
}

/* TestCollapse, TestCollapseWhileProcessing, TestAddWhileProcessing, TestReinsert */
START_TEST(queue_collapses)
{
	struct kube_queue *q = new_queue(0);

	ck_assert_int_eq(kube_queue_add(q, "a", T0), 0);
	ck_assert_int_eq(kube_queue_add(q, "a", T0), 0);
	ck_assert_int_eq(kube_queue_add(q, "b", T0), 0);
	ck_assert_uint_eq(depth(q), 2);
	ck_assert_str_eq(take(q, T0), "a");
	/* in work: not twice at once, but once more afterwards */
	ck_assert_int_eq(kube_queue_add(q, "a", T0), 0);
	ck_assert_int_eq(kube_queue_add(q, "a", T0), 0);
	ck_assert_str_eq(take(q, T0), "b");
	ck_assert_str_eq(take(q, T0), "-");
	kube_queue_done(q, "a", T0);
	ck_assert_str_eq(take(q, T0), "a");
	kube_queue_done(q, "a", T0);
	kube_queue_done(q, "b", T0);
	ck_assert_str_eq(take(q, T0), "-");
	/* reinserted */
	ck_assert_int_eq(kube_queue_add(q, "a", T0), 0);
	ck_assert_str_eq(take(q, T0), "a");
	kube_queue_done(q, "a", T0);
	kube_queue_done(q, "a", T0);
	kube_queue_done(q, "never", T0);
	ck_assert_uint_eq(depth(q), 0);
	kube_queue_free(q);
}
END_TEST

START_TEST(queue_delays)
{
	struct kube_queue *q = new_queue(0);

	ck_assert_uint_eq(kube_queue_next_ns(q), UINT64_MAX);
	ck_assert_int_eq(kube_queue_add_after(q, "a", 50, T0), 0);
	ck_assert_int_eq(kube_queue_add_after(q, "b", 30, T0), 0);
	ck_assert_int_eq(kube_queue_add_after(q, "c", 40, T0), 0);
	/* the earlier of two holds */
	ck_assert_int_eq(kube_queue_add_after(q, "a", 10, T0), 0);
	ck_assert_int_eq(kube_queue_add_after(q, "a", 90, T0), 0);
	ck_assert_uint_eq(kube_queue_next_ns(q), T0 + 10);
	ck_assert_str_eq(take(q, T0 + 9), "-");
	ck_assert_str_eq(take(q, T0 + 45), "a");
	ck_assert_str_eq(take(q, T0 + 45), "b");
	ck_assert_str_eq(take(q, T0 + 45), "c");
	ck_assert_str_eq(take(q, T0 + 95), "-");
	ck_assert_int_eq(kube_queue_add_after(q, "d", 0, T0), 0);
	ck_assert_uint_eq(kube_queue_next_ns(q), 0);
	ck_assert_int_eq(kube_queue_add_after(q, "e", UINT64_MAX, T0), 0);
	ck_assert_str_eq(take(q, T0), "d");
	ck_assert_uint_eq(kube_queue_next_ns(q), UINT64_MAX - 1);
	kube_queue_free(q);
}
END_TEST

/* TestItemExponentialFailureRateLimiter, and its overflow */
START_TEST(queue_backs_off)
{
	struct kube_queue *q = new_queue(0);
	uint64_t now = T0;

	for (int i = 0; i < 60; i++) {
		uint64_t want = i < 18 ? (5 * MS) << i : 1000 * S;

		ck_assert_uint_eq(kube_queue_failures(q, "a"), i);
		ck_assert_int_eq(kube_queue_add_limited(q, "a", 0, now), 0);
		ck_assert_uint_eq(kube_queue_next_ns(q) - now, want);
		now += want;
		ck_assert_str_eq(take(q, now), "a");
		kube_queue_done(q, "a", now);
	}
	kube_queue_forget(q, "a");
	ck_assert_uint_eq(kube_queue_failures(q, "a"), 0);
	ck_assert_int_eq(kube_queue_add_limited(q, "a", 0, now), 0);
	ck_assert_uint_eq(kube_queue_next_ns(q) - now, 5 * MS);
	kube_queue_free(q);
}
END_TEST

/* TestMaxOfRateLimiter with the bucket: 100 at once, then 10/s */
START_TEST(queue_has_a_bucket)
{
	struct kube_queue *q = new_queue(0);
	char key[16];

	for (int i = 0; i < 110; i++) {
		snprintf(key, sizeof(key), "k%d", i);
		ck_assert_int_eq(kube_queue_add_limited(q, key, 0, T0), 0);
	}
	for (int i = 0; i < 100; i++)
		ck_assert_str_ne(take(q, T0 + 5 * MS), "-");
	ck_assert_str_eq(take(q, T0 + 99 * MS), "-");
	ck_assert_str_ne(take(q, T0 + 101 * MS), "-");
	ck_assert_str_eq(take(q, T0 + 199 * MS), "-");
	kube_queue_free(q);
}
END_TEST

START_TEST(queue_outcomes)
{
	struct kube_queue *q = new_queue(0);
	struct kube_queue_stats s;

	ck_assert_int_eq(kube_queue_add(q, "a", T0), 0);
	ck_assert_str_eq(take(q, T0 + MS), "a");
	kube_queue_finish(q, "a", KUBE_FAILED, 77, T0 + 2 * MS);
	ck_assert_uint_eq(kube_queue_next_ns(q), T0 + 7 * MS);
	ck_assert_str_eq(take(q, T0 + 7 * MS), "a");
	kube_queue_finish(q, "a", KUBE_FAILED, 0, T0 + 7 * MS);
	ck_assert_uint_eq(kube_queue_next_ns(q), T0 + 17 * MS);
	ck_assert_str_eq(take(q, T0 + 17 * MS), "a");
	/* again after a time: no failure */
	kube_queue_finish(q, "a", KUBE_AGAIN, 600 * S, T0 + 17 * MS);
	ck_assert_uint_eq(kube_queue_failures(q, "a"), 0);
	ck_assert_uint_eq(kube_queue_next_ns(q), T0 + 17 * MS + 600 * S);
	/* an event comes earlier; the time stays */
	ck_assert_int_eq(kube_queue_add(q, "a", T0 + S), 0);
	ck_assert_str_eq(take(q, T0 + S), "a");
	kube_queue_finish(q, "a", KUBE_TERMINAL, 0, T0 + S);
	ck_assert_uint_eq(kube_queue_next_ns(q), T0 + 17 * MS + 600 * S);
	ck_assert_str_eq(take(q, T0 + 1000 * S), "a");
	ck_assert_int_eq(kube_queue_add(q, "a", T0 + 1000 * S), 0);
	kube_queue_finish(q, "a", KUBE_DONE, 0, T0 + 1000 * S);
	ck_assert_str_eq(take(q, T0 + 1000 * S), "a");
	kube_queue_finish(q, "a", KUBE_DONE, 0, T0 + 1000 * S);
	ck_assert_uint_eq(kube_queue_next_ns(q), UINT64_MAX);
	/* a failure that says when */
	ck_assert_int_eq(kube_queue_add(q, "a", T0 + 1000 * S), 0);
	ck_assert_str_eq(take(q, T0 + 1000 * S), "a");
	kube_queue_finish(q, "a", KUBE_FAILED, 3 * S, T0 + 1000 * S);
	ck_assert_uint_eq(kube_queue_failures(q, "a"), 1);
	ck_assert_uint_eq(kube_queue_next_ns(q), T0 + 1003 * S);
	ck_assert_str_eq(take(q, T0 + 1003 * S), "a");
	kube_queue_finish(q, "a", KUBE_DONE, 0, T0 + 1003 * S);
	kube_queue_stats(q, &s);
	ck_assert_uint_eq(s.keys, 0);
	ck_assert_uint_eq(s.taken, 8);
	ck_assert_uint_eq(s.retries, 3);
	kube_queue_free(q);
}
END_TEST

START_TEST(queue_limits)
{
	struct kube_queue *q = new_queue(3);
	char key[KUBE_KEY_MAX + 1];
	struct kube_queue_stats s;

	memset(key, 'x', KUBE_KEY_MAX);
	key[KUBE_KEY_MAX] = '\0';
	ck_assert_int_eq(kube_queue_add(q, key, T0), -ENAMETOOLONG);
	ck_assert_int_eq(kube_queue_add(q, "a", T0), 0);
	ck_assert_int_eq(kube_queue_add_after(q, "b", 1, T0), 0);
	ck_assert_int_eq(kube_queue_add_limited(q, "c", 0, T0), 0);
	ck_assert_int_eq(kube_queue_add(q, "d", T0), -ENOBUFS);
	ck_assert_int_eq(kube_queue_add(q, "a", T0), 0);
	kube_queue_stats(q, &s);
	ck_assert_uint_eq(s.refused, 2);
	ck_assert_str_eq(take(q, T0), "a");
	kube_queue_done(q, "a", T0);
	ck_assert_int_eq(kube_queue_add(q, "d", T0), 0);
	kube_queue_shut_down(q);
	ck_assert_int_eq(kube_queue_add(q, "d", T0), -ESHUTDOWN);
	ck_assert_int_eq(kube_queue_add_limited(q, "d", 0, T0), -ESHUTDOWN);
	ck_assert_int_eq(kube_queue_add_after(q, "d", 5, T0), -ESHUTDOWN);
	/* what is there is still given out */
	ck_assert_str_eq(take(q, T0), "d");
	kube_queue_free(q);
}
END_TEST

/* Random calls against the rules: no key is in work twice, none that was added is lost. */
START_TEST(queue_at_random)
{
	struct kube_queue *q = new_queue(0);
	bool wanted[20] = {false}, working[20] = {false};
	char key[KUBE_KEY_MAX];
	uint64_t now = T0;

	srandom(7);
	for (int i = 0; i < 100000; i++) {
		int n = (int)(random() % 20);

		now += (uint64_t)random() % MS;
		snprintf(key, sizeof(key), "k%d", n);
		switch (random() % 5) {
		case 0:
			ck_assert_int_eq(kube_queue_add(q, key, now), 0);
			wanted[n] = true;
			break;
		case 1:
			ck_assert_int_eq(
				kube_queue_add_after(q, key, (uint64_t)random() % S, now), 0);
			break;
		case 2:
			if (working[n])
				kube_queue_finish(
					q, key, (enum kube_outcome)(random() % 4), MS, now);
			working[n] = false;
			break;
		default:
			if (!kube_queue_take(q, now, key)) {
				for (int k = 0; k < 20; k++)
					ck_assert(!wanted[k] || working[k]);
				break;
			}
			n = (int)strtol(key + 1, NULL, 10);
			ck_assert(!working[n]);
			working[n] = true;
			wanted[n] = false;
		}
	}
	kube_queue_free(q);
}
END_TEST

/* ---- lease: leaderelection_test.go ---- */

static struct kube_lease_config config_of(const char *identity)
{
	struct kube_lease_config c = {
		.lease_ms = 15000, .renew_ms = 10000, .retry_ms = 2000, .jitter = 1.2};

	snprintf(c.identity, sizeof(c.identity), "%s", identity);
	return c;
}

static struct kube_lease lease_of(const char *identity)
{
	struct kube_lease_config c = config_of(identity);
	struct kube_lease l;

	kube_lease_init(&l, &c);
	return l;
}

static struct kube_lease_record held_by(const char *holder, const char *renew_time)
{
	struct kube_lease_record r = {.duration_s = 15, .transitions = 3};

	snprintf(r.holder, sizeof(r.holder), "%s", holder);
	snprintf(r.renew_time, sizeof(r.renew_time), "%s", renew_time);
	snprintf(r.acquire_time, sizeof(r.acquire_time), "acquired");
	return r;
}

/* One that leads since now. */
static struct kube_lease leader(const char *identity, uint64_t now)
{
	struct kube_lease l = lease_of(identity);
	struct kube_lease_record w;

	ck_assert_int_eq(kube_lease_try(&l, now, WALL, &w), KUBE_LEASE_GET);
	ck_assert_int_eq(kube_lease_got(&l, NULL, true, now, WALL, &w), KUBE_LEASE_CREATE);
	ck_assert_int_eq(kube_lease_wrote(&l, true, &w, now), KUBE_LEASE_WAIT);
	ck_assert(l.leading);
	return l;
}

START_TEST(lease_acquired_from_no_object)
{
	struct kube_lease l = lease_of("me");
	struct kube_lease_record w;

	ck_assert(!kube_lease_valid(&l, T0));
	ck_assert_int_eq(kube_lease_try(&l, T0, WALL, &w), KUBE_LEASE_GET);
	ck_assert_int_eq(kube_lease_got(&l, NULL, true, T0, WALL, &w), KUBE_LEASE_CREATE);
	ck_assert_str_eq(w.holder, "me");
	ck_assert_int_eq(w.duration_s, 15);
	ck_assert_int_eq(w.transitions, 0);
	ck_assert_str_eq(w.renew_time, "2023-11-14T22:13:20.123456Z");
	ck_assert_str_eq(w.acquire_time, w.renew_time);
	/* somebody else was faster */
	ck_assert_int_eq(kube_lease_wrote(&l, false, &w, T0), KUBE_LEASE_WAIT);
	ck_assert(!l.leading);
	ck_assert_int_eq(kube_lease_try(&l, T0, WALL, &w), KUBE_LEASE_GET);
	ck_assert_int_eq(kube_lease_got(&l, NULL, true, T0, WALL, &w), KUBE_LEASE_CREATE);
	ck_assert_int_eq(kube_lease_wrote(&l, true, &w, T0 + 1), KUBE_LEASE_WAIT);
	ck_assert(kube_lease_valid(&l, T0 + 10 * S - 1));
	ck_assert(!kube_lease_valid(&l, T0 + 10 * S));
}
END_TEST

START_TEST(lease_acquired_from_unled_object)
{
	struct kube_lease l = lease_of("me");
	struct kube_lease_record found = held_by("", "then"), w;

	ck_assert_int_eq(kube_lease_try(&l, T0, WALL, &w), KUBE_LEASE_GET);
	ck_assert_int_eq(kube_lease_got(&l, &found, false, T0, WALL, &w), KUBE_LEASE_UPDATE);
	ck_assert_int_eq(w.transitions, 4);
	ck_assert_str_eq(w.holder, "me");
}
END_TEST

/* Led, unacked or acked: only what is seen to change counts, never what the times say (R3.7). */
START_TEST(lease_of_another)
{
	static const char *const times[] = {
		"1999-01-01T00:00:00.000000Z", "2099-01-01T00:00:00.000000Z", ""};

	for (size_t i = 0; i < ARRAY_SIZE(times); i++) {
		struct kube_lease l = lease_of("me");
		struct kube_lease_record found = held_by("other", times[i]), w;

		ck_assert_int_eq(kube_lease_got(&l, &found, false, T0, WALL, &w), KUBE_LEASE_WAIT);
		ck_assert_int_eq(kube_lease_got(&l, &found, false, T0 + 15 * S - 1, WALL, &w),
			KUBE_LEASE_WAIT);
		/* it is renewed: it begins anew */
		snprintf(found.renew_time, sizeof(found.renew_time), "later");
		ck_assert_int_eq(kube_lease_got(&l, &found, false, T0 + 15 * S - 1, WALL, &w),
			KUBE_LEASE_WAIT);
		ck_assert_int_eq(kube_lease_got(&l, &found, false, T0 + 30 * S - 2, WALL, &w),
			KUBE_LEASE_WAIT);
		ck_assert_int_eq(kube_lease_got(&l, &found, false, T0 + 30 * S - 1, WALL, &w),
			KUBE_LEASE_UPDATE);
		ck_assert_int_eq(w.transitions, 4);
		ck_assert_str_eq(w.acquire_time, "2023-11-14T22:13:20.123456Z");
	}
}
END_TEST

START_TEST(lease_by_the_holders_duration)
{
	struct kube_lease l = lease_of("me");
	struct kube_lease_record found = held_by("other", "x"), w;

	found.duration_s = 60;
	ck_assert_int_eq(kube_lease_got(&l, &found, false, T0, WALL, &w), KUBE_LEASE_WAIT);
	ck_assert_int_eq(
		kube_lease_got(&l, &found, false, T0 + 60 * S - 1, WALL, &w), KUBE_LEASE_WAIT);
	ck_assert_int_eq(
		kube_lease_got(&l, &found, false, T0 + 60 * S, WALL, &w), KUBE_LEASE_UPDATE);
}
END_TEST

START_TEST(lease_renewed_fast)
{
	struct kube_lease l = leader("me", T0);
	struct kube_lease_record w;

	ck_assert_int_eq(kube_lease_try(&l, T0 + 2 * S, WALL + 2 * S, &w), KUBE_LEASE_UPDATE);
	ck_assert_str_eq(w.renew_time, "2023-11-14T22:13:22.123456Z");
	ck_assert_str_eq(w.acquire_time, "2023-11-14T22:13:20.123456Z");
	ck_assert_int_eq(w.transitions, 0);
	/* an answer that took 3 s: the lease counts from the question */
	ck_assert_int_eq(kube_lease_wrote(&l, true, &w, T0 + 5 * S), KUBE_LEASE_WAIT);
	ck_assert(kube_lease_valid(&l, T0 + 12 * S - 1));
	ck_assert(!kube_lease_valid(&l, T0 + 12 * S));
	ck_assert_uint_eq(kube_lease_deadline_ns(&l), T0 + 14500 * MS);
	/* the fast path fails: read, then write over what is there */
	ck_assert_int_eq(kube_lease_try(&l, T0 + 6 * S, WALL + 6 * S, &w), KUBE_LEASE_UPDATE);
	ck_assert_int_eq(kube_lease_wrote(&l, false, &w, T0 + 6 * S), KUBE_LEASE_GET);
	ck_assert_int_eq(kube_lease_got(&l, &l.observed, false, T0 + 6 * S, WALL + 6 * S, &w),
		KUBE_LEASE_UPDATE);
	ck_assert_int_eq(kube_lease_wrote(&l, true, &w, T0 + 6 * S), KUBE_LEASE_WAIT);
	ck_assert_uint_eq(kube_lease_deadline_ns(&l), T0 + 18500 * MS);
	ck_assert_uint_eq(kube_lease_delay_ns(&l, 0.99), 2 * S);
}
END_TEST

START_TEST(lease_lost)
{
	struct kube_lease l = leader("me", T0);
	struct kube_lease_record w, other = held_by("other", "x");

	for (int i = 2; i < 12; i += 2) {
		ck_assert_int_eq(
			kube_lease_try(&l, T0 + (uint64_t)i * S, WALL, &w), KUBE_LEASE_UPDATE);
		ck_assert_int_eq(
			kube_lease_wrote(&l, false, &w, T0 + (uint64_t)i * S), KUBE_LEASE_GET);
		ck_assert_int_eq(kube_lease_got(&l, NULL, false, T0 + (uint64_t)i * S, WALL, &w),
			KUBE_LEASE_WAIT);
		ck_assert(l.leading);
	}
	ck_assert(!kube_lease_valid(&l, T0 + 10 * S));
	/* a try that began in time and ended too late */
	ck_assert_int_eq(kube_lease_try(&l, T0 + 12500 * MS - 1, WALL, &w), KUBE_LEASE_UPDATE);
	ck_assert_int_eq(kube_lease_wrote(&l, false, &w, T0 + 12500 * MS), KUBE_LEASE_LOST);
	ck_assert(!l.leading);
	/* asleep for too long: known before anything is sent */
	l = leader("me", T0);
	ck_assert_int_eq(kube_lease_try(&l, T0 + 60 * S, WALL, &w), KUBE_LEASE_LOST);
	/* somebody took it */
	l = leader("me", T0);
	ck_assert_int_eq(kube_lease_try(&l, T0 + 2 * S, WALL, &w), KUBE_LEASE_UPDATE);
	ck_assert_int_eq(kube_lease_wrote(&l, false, &w, T0 + 2 * S), KUBE_LEASE_GET);
	ck_assert_int_eq(kube_lease_got(&l, &other, false, T0 + 2 * S, WALL, &w), KUBE_LEASE_LOST);
	ck_assert(!kube_lease_valid(&l, T0 + 2 * S));
}
END_TEST

/* Each answer takes 6 s: it is kept, with pauses in which nothing is written. */
START_TEST(lease_of_a_slow_server)
{
	struct kube_lease l = lease_of("me");
	struct kube_lease_record w;
	uint64_t now = T0;

	ck_assert_int_eq(kube_lease_try(&l, now, WALL, &w), KUBE_LEASE_GET);
	now += 6 * S;
	/* from when it is written, not from when it was asked for */
	ck_assert_int_eq(kube_lease_got(&l, NULL, true, now, WALL, &w), KUBE_LEASE_CREATE);
	for (int i = 0; i < 5; i++) {
		now += 6 * S;
		ck_assert_int_eq(kube_lease_wrote(&l, true, &w, now), KUBE_LEASE_WAIT);
		ck_assert(kube_lease_valid(&l, now + 4 * S - 1));
		ck_assert(!kube_lease_valid(&l, now + 4 * S));
		ck_assert_int_eq(kube_lease_try(&l, now, WALL, &w), KUBE_LEASE_UPDATE);
	}
	/* nobody else has it by then */
	ck_assert_uint_lt(kube_lease_deadline_ns(&l), l.renewed_ns + 15 * S);
}
END_TEST

START_TEST(lease_written_too_late)
{
	struct kube_lease l = lease_of("me");
	struct kube_lease_record w;

	ck_assert_int_eq(kube_lease_try(&l, T0, WALL, &w), KUBE_LEASE_GET);
	ck_assert_int_eq(kube_lease_got(&l, NULL, true, T0, WALL, &w), KUBE_LEASE_CREATE);
	ck_assert_int_eq(kube_lease_wrote(&l, true, &w, T0 + 11 * S), KUBE_LEASE_WAIT);
	ck_assert(!l.leading);
	/* it is ours all the same */
	ck_assert_int_eq(kube_lease_try(&l, T0 + 12 * S, WALL, &w), KUBE_LEASE_GET);
	ck_assert_int_eq(
		kube_lease_got(&l, &l.observed, false, T0 + 12 * S, WALL, &w), KUBE_LEASE_UPDATE);
	ck_assert_int_eq(kube_lease_wrote(&l, true, &w, T0 + 12 * S), KUBE_LEASE_WAIT);
	ck_assert(l.leading);
}
END_TEST

START_TEST(lease_released)
{
	struct kube_lease l = leader("me", T0);
	struct kube_lease_record ours = l.observed, other = held_by("other", "x"), w;

	ours.transitions = 7;
	ck_assert(kube_lease_release(&l, &ours, WALL + S, &w));
	ck_assert_str_eq(w.holder, "");
	ck_assert_int_eq(w.duration_s, 1);
	ck_assert_int_eq(w.transitions, 7);
	ck_assert_str_eq(w.renew_time, "2023-11-14T22:13:21.123456Z");
	ck_assert(!kube_lease_release(&l, &other, WALL, &w));
	other.holder[0] = '\0';
	ck_assert(!kube_lease_release(&l, &other, WALL, &w));
}
END_TEST

START_TEST(lease_delays)
{
	struct kube_lease l = lease_of("me");

	ck_assert_uint_eq(kube_lease_delay_ns(&l, 0), 2 * S);
	ck_assert_uint_eq(kube_lease_delay_ns(&l, 0.5), 3200 * MS);
	ck_assert_uint_lt(kube_lease_delay_ns(&l, 0.999999), 4400 * MS);
}
END_TEST

START_TEST(lease_configs)
{
	struct kube_lease_config c, other;
	struct err err;

	kube_lease_config_init(&c, "pod-1");
	kube_lease_config_init(&other, "pod-1");
	ck_assert_int_eq(kube_lease_config_check(&c, &err), 0);
	ck_assert_int_eq(strncmp(c.identity, "pod-1_", 6), 0);
	ck_assert_uint_eq(strlen(c.identity), 6 + 36);
	ck_assert_str_ne(c.identity, other.identity);
	c = config_of("");
	ck_assert_int_eq(kube_lease_config_check(&c, &err), -EINVAL);
	c = config_of("x");
	c.renew_ms = 15000;
	ck_assert_int_eq(kube_lease_config_check(&c, &err), -EINVAL);
	c = config_of("x");
	c.retry_ms = 9000;
	ck_assert_int_eq(kube_lease_config_check(&c, &err), -EINVAL);
	c = config_of("x");
	c.retry_ms = 0;
	ck_assert_int_eq(kube_lease_config_check(&c, &err), -EINVAL);
	c = config_of("x");
	c.lease_ms = 15500;
	ck_assert_int_eq(kube_lease_config_check(&c, &err), -EINVAL);
}
END_TEST

START_TEST(lease_objects)
{
	static const char *const bad[] = {"{}", "{\"kind\":\"Pod\"}",
		"{\"kind\":\"Lease\",\"spec\":{\"holderIdentity\":1}}",
		"{\"kind\":\"Lease\",\"spec\":{\"leaseDurationSeconds\":\"15\"}}",
		"{\"kind\":\"Lease\",\"spec\":{\"leaseDurationSeconds\":-1}}",
		"{\"kind\":\"Lease\",\"spec\":{\"leaseTransitions\":99999999999}}",
		"{\"kind\":\"Lease\",\"spec\":{\"renewTime\":" TEXT_70 "}}"};
	struct json_object *o =
		json("{\"kind\":\"Lease\",\"spec\":{\"holderIdentity\":\"x\","
		     "\"leaseDurationSeconds\":15,\"renewTime\":\"r\",\"acquireTime\":"
		     "\"a\",\"leaseTransitions\":2}}");
	struct kube_lease_record r;
	struct err err;

	ck_assert_int_eq(kube_lease_parse(o, &r, &err), 0);
	ck_assert_str_eq(r.holder, "x");
	ck_assert_int_eq(r.duration_s, 15);
	ck_assert_int_eq(r.transitions, 2);
	json_object_put(o);
	o = json("{\"kind\":\"Lease\",\"spec\":null}");
	ck_assert_int_eq(kube_lease_parse(o, &r, &err), 0);
	ck_assert_str_eq(r.holder, "");
	json_object_put(o);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		o = json(bad[i]);
		ck_assert_msg(kube_lease_parse(o, &r, &err) == -EBADMSG, "%s", bad[i]);
		json_object_put(o);
	}
}
END_TEST

/*
 * Two of them over one object, with requests that fail, hang and are answered late, and processes
 * that sleep: never are both valid at once.
 */
struct player {
	struct kube_lease lease;
	uint64_t next, asleep_until;
	uint32_t version; /* of the object as it was read or written */
};

struct shared {
	struct kube_lease_record record;
	uint32_t version; /* 0: it is not there */
};

static bool write_shared(
	struct player *p, struct shared *s, const struct kube_lease_record *w, bool anew)
{
	if (anew ? s->version != 0 : s->version != p->version)
		return false;
	s->record = *w;
	p->version = ++s->version;
	return true;
}

static void play(struct player *p, struct shared *s, uint64_t *now, int fail_percent)
{
	struct kube_lease_record w;
	enum kube_lease_action a = kube_lease_try(&p->lease, *now, WALL + *now, &w);

	while (a == KUBE_LEASE_GET || a == KUBE_LEASE_CREATE || a == KUBE_LEASE_UPDATE) {
		bool fails = random() % 100 < fail_percent,
		     answered = random() % 100 >= fail_percent;
		bool ok = false;

		if (a != KUBE_LEASE_GET && !fails)
			ok = write_shared(p, s, &w, a == KUBE_LEASE_CREATE);
		*now += (uint64_t)random() % (random() % 10 == 0 ? 5 * S : 50 * MS);
		if (a != KUBE_LEASE_GET) {
			a = kube_lease_wrote(&p->lease, ok && answered, &w, *now);
		} else if (fails) {
			a = kube_lease_got(&p->lease, NULL, false, *now, WALL + *now, &w);
		} else {
			p->version = s->version;
			a = kube_lease_got(&p->lease, s->version ? &s->record : NULL,
				s->version == 0, *now, WALL + *now, &w);
		}
	}
	p->next = *now + kube_lease_delay_ns(&p->lease, (double)(random() % 1000) / 1000);
}

START_TEST(lease_of_two)
{
	struct player players[2] = {{.lease = lease_of("one")}, {.lease = lease_of("two")}};
	struct shared s = {0};
	uint64_t now = T0;
	int terms[2] = {0, 0};

	srandom(11);
	for (int i = 0; i < 200000; i++) {
		struct player *p = &players[players[1].next < players[0].next];
		bool led = p->lease.leading;

		now = MAX(now, p->next);
		/* sleeps through its time, now and then */
		if (random() % 50 == 0) {
			p->next = now + (uint64_t)random() % (60 * S);
			continue;
		}
		play(p, &s, &now, i / 1000 % 2 ? 40 : 5);
		terms[p == &players[1]] += !led && p->lease.leading;
		ck_assert(!kube_lease_valid(&players[0].lease, now) ||
			  !kube_lease_valid(&players[1].lease, now));
	}
	ck_assert_int_gt(terms[0], 20);
	ck_assert_int_gt(terms[1], 20);
}
END_TEST

/* ---- events ---- */

static struct kube_event event_of(const char *name, const char *reason, const char *note)
{
	return (struct kube_event){.regarding = {.api_version = "g/v1",
					   .kind = "EbpfDump",
					   .namespace = "n",
					   .name = name,
					   .uid = "u"},
		.reason = reason,
		.action = "Act",
		.note = note};
}

static struct kube_event_todo see(
	struct kube_event_table *t, const char *name, const char *reason, uint64_t now)
{
	struct kube_event e = event_of(name, reason, "note");
	struct kube_event_todo todo;

	kube_event_seen(t, &e, now, WALL, &todo);
	return todo;
}

static struct kube_event_table *new_table(void)
{
	struct kube_event_table *t = NULL;

	ck_assert_int_eq(kube_event_table_new(&t), 0);
	return t;
}

START_TEST(event_series)
{
	struct kube_event_table *t = new_table();
	struct kube_event_todo first = see(t, "x", "Conflict", T0), todo;

	ck_assert_int_eq(first.what, KUBE_EVENT_CREATE);
	ck_assert_str_eq(first.namespace, "n");
	ck_assert_str_eq(first.name, "x.17979cfe3d85cd15");
	for (int i = 0; i < 5; i++)
		ck_assert_int_eq(
			see(t, "x", "Conflict", T0 + (uint64_t)i * S).what, KUBE_EVENT_COUNT);
	ck_assert(!kube_event_due(t, T0 + 30 * S - 1, &todo));
	ck_assert_uint_eq(kube_event_due_ns(t), T0 + 30 * S);
	ck_assert(kube_event_due(t, T0 + 30 * S, &todo));
	ck_assert_int_eq(todo.what, KUBE_EVENT_PATCH);
	ck_assert_uint_eq(todo.count, 6);
	ck_assert_str_eq(todo.name, first.name);
	ck_assert(!kube_event_due(t, T0 + 1000 * S, &todo));
	ck_assert_uint_eq(kube_event_due_ns(t), UINT64_MAX);
	/* after 30 s at once */
	todo = see(t, "x", "Conflict", T0 + 61 * S);
	ck_assert_int_eq(todo.what, KUBE_EVENT_PATCH);
	ck_assert_uint_eq(todo.count, 7);
	/* silence closes it */
	todo = see(t, "x", "Conflict", T0 + 61 * S + 360 * S);
	ck_assert_int_eq(todo.what, KUBE_EVENT_CREATE);
	ck_assert_str_ne(todo.name, first.name);
	/* one that is gone is created anew */
	kube_event_gone(t, todo.namespace, todo.name);
	ck_assert_int_eq(see(t, "x", "Conflict", T0 + 430 * S).what, KUBE_EVENT_CREATE);
	kube_event_table_free(t);
}
END_TEST

START_TEST(events_differ)
{
	struct kube_event_table *t = new_table();
	struct kube_event e = event_of("x", "R", "note");
	struct kube_event_todo todo;

	kube_event_seen(t, &e, T0, WALL, &todo);
	ck_assert_int_eq(todo.what, KUBE_EVENT_CREATE);
	kube_event_seen(t, &e, T0, WALL, &todo);
	ck_assert_int_eq(todo.what, KUBE_EVENT_COUNT);
	e.note = "other";
	kube_event_seen(t, &e, T0, WALL, &todo);
	ck_assert_int_eq(todo.what, KUBE_EVENT_CREATE);
	e.warning = true;
	kube_event_seen(t, &e, T0, WALL, &todo);
	ck_assert_int_eq(todo.what, KUBE_EVENT_CREATE);
	e.regarding.uid = "v";
	kube_event_seen(t, &e, T0, WALL, &todo);
	ck_assert_int_eq(todo.what, KUBE_EVENT_CREATE);
	e.regarding.namespace = NULL;
	kube_event_seen(t, &e, T0, WALL, &todo);
	ck_assert_str_eq(todo.namespace, "default");
	kube_event_table_free(t);
}
END_TEST

/* TestEventSpamFilter: 25 of one object, then one in 300 s */
START_TEST(events_too_many)
{
	struct kube_event_table *t = new_table();
	char reason[16];

	for (int i = 0; i < 40; i++) {
		snprintf(reason, sizeof(reason), "R%d", i);
		ck_assert_int_eq(
			see(t, "x", reason, T0).what, i < 25 ? KUBE_EVENT_CREATE : KUBE_EVENT_DROP);
	}
	ck_assert_int_eq(see(t, "y", "R", T0).what, KUBE_EVENT_CREATE);
	ck_assert_int_eq(see(t, "x", "Late", T0 + 299 * S).what, KUBE_EVENT_DROP);
	ck_assert_int_eq(see(t, "x", "Late", T0 + 301 * S).what, KUBE_EVENT_CREATE);
	ck_assert_int_eq(see(t, "x", "Later", T0 + 302 * S).what, KUBE_EVENT_DROP);
	kube_event_table_free(t);
}
END_TEST

START_TEST(events_of_many_objects)
{
	struct kube_event_table *t = new_table();
	char name[300];

	for (int i = 0; i < 2000; i++) {
		snprintf(name, sizeof(name), "o%d", i);
		ck_assert_int_eq(see(t, name, "R", T0 + (uint64_t)i).what, KUBE_EVENT_CREATE);
	}
	/* the oldest are forgotten, the newest are not */
	ck_assert_int_eq(see(t, "o1999", "R", T0 + S).what, KUBE_EVENT_COUNT);
	ck_assert_int_eq(see(t, "o0", "R", T0 + S).what, KUBE_EVENT_CREATE);
	/* a name that leaves no room for the time */
	memset(name, 'n', 253);
	name[253] = '\0';
	ck_assert_int_eq(strncmp(see(t, name, "R", T0).name, "event.", 6), 0);
	kube_event_table_free(t);
}
END_TEST

#define ADD(test) tcase_add_test(tc, test)

int main(void)
{
	Suite *suite = suite_create("kube");
	TCase *tc = tcase_create("kube");
	SRunner *runner;
	int failed;

	ADD(reading_objects);
	ADD(keys);
	ADD(json_texts);
	ADD(escaping);
	ADD(time_texts);
	ADD(condition_transitions);
	ADD(condition_long_message);
	ADD(condition_rules);
	ADD(classification);
	ADD(statuses);
	ADD(retry_after);
	ADD(names);
	ADD(calls);
	ADD(texts_of_headers);
	ADD(backoff);
	ADD(random_numbers);
	ADD(bucket);
	ADD(frames_at_every_split);
	ADD(frames_byte_by_byte);
	ADD(frames_cut_anywhere);
	ADD(bad_frames);
	ADD(frames_have_a_limit);
	ADD(frames_can_be_stopped);
	ADD(after_a_watch);
	ADD(cache);
	ADD(compact_objects_can_grow);
	ADD(queue_collapses);
	ADD(queue_delays);
	ADD(queue_backs_off);
	ADD(queue_has_a_bucket);
	ADD(queue_outcomes);
	ADD(queue_limits);
	ADD(queue_at_random);
	ADD(lease_acquired_from_no_object);
	ADD(lease_acquired_from_unled_object);
	ADD(lease_of_another);
	ADD(lease_by_the_holders_duration);
	ADD(lease_renewed_fast);
	ADD(lease_lost);
	ADD(lease_of_a_slow_server);
	ADD(lease_written_too_late);
	ADD(lease_released);
	ADD(lease_delays);
	ADD(lease_configs);
	ADD(lease_objects);
	ADD(lease_of_two);
	ADD(event_series);
	ADD(events_differ);
	ADD(events_too_many);
	ADD(events_of_many_objects);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
