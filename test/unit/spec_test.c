/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>

#include "pkg/dump/dump.h"
#include "pkg/spec/spec.h"

#define MAX_ARGS 40

/* Parses words, ended by NULL. */
static int parse(struct spec *spec, struct err *err, const char *const words[])
{
	char *argv[MAX_ARGS + 1] = {(char *)"ebpfdump-loader"};
	int argc = 1;

	while (words[argc - 1]) {
		ck_assert_int_lt(argc, MAX_ARGS);
		argv[argc] = (char *)words[argc - 1];
		argc++;
	}
	return spec_parse_args(spec, argc, argv, err);
}

#define PARSE(spec, err, ...) parse(spec, err, (const char *const[]){__VA_ARGS__, NULL})

static const struct spec_option *option(const char *flag)
{
	size_t n;
	const struct spec_option *options = spec_options(&n);

	for (size_t i = 0; i < n; i++)
		if (strcmp(options[i].flag, flag) == 0)
			return &options[i];
	ck_abort_msg("no option %s", flag);
	return NULL;
}

START_TEST(defaults)
{
	struct spec s;
	struct err err;

	ck_assert_int_eq(parse(&s, &err, (const char *const[]){NULL}), 0);
	ck_assert_uint_eq(s.interfaces.count, 0);
	ck_assert_uint_eq(s.directions, 3);
	ck_assert_uint_eq(s.messages, 3);
	ck_assert_uint_eq(s.body_bytes, 4096);
	ck_assert_uint_eq(s.redact.count, 5);
	ck_assert_str_eq(s.redact.names[0], "Authorization");
	ck_assert_str_eq(s.redact.names[1], "Proxy-Authorization");
	ck_assert_str_eq(s.redact.names[2], "Cookie");
	ck_assert_str_eq(s.redact.names[3], "Set-Cookie");
	ck_assert_str_eq(s.redact.names[4], "X-Api-Key");
	ck_assert_uint_eq(s.output, SPEC_OUTPUT_AUTO);
	ck_assert_uint_eq(s.line_bytes, 16384);
	ck_assert_uint_eq(s.output_buffer, 8 << 20);
	ck_assert_str_eq(s.node, "");
	ck_assert_uint_eq(s.log_level, LOG_INFO);
	ck_assert_str_eq(s.listen, "127.0.0.1:9464");
	ck_assert_str_eq(s.callback, "");
	ck_assert_uint_eq(s.callback_concurrency, 4);
	ck_assert_uint_eq(s.callback_batch_messages, 1);
	ck_assert_uint_eq(s.queue_bytes, 32 << 20);
	ck_assert_uint_eq(s.when_full, 0);
	ck_assert_uint_eq(s.flush_timeout_ms, 10000);
	ck_assert_uint_eq(s.spool_bytes, 0);
	ck_assert_ptr_null(s.spool_dir);
	ck_assert_uint_eq(s.hook, SPEC_HOOK_AUTO);
	ck_assert_uint_eq(s.ring_bytes, 8 << 20);
	ck_assert_uint_eq(s.capture_bytes, 0);
	ck_assert_uint_eq(s.poll_interval_ms, 20);
	ck_assert_uint_eq(s.connections, 65536);
	ck_assert_uint_eq(s.buffer_bytes, 64 << 20);
	ck_assert_uint_eq(s.head_bytes, 72 << 10);
	ck_assert_uint_eq(s.headers, 256);
	ck_assert_uint_eq(s.pending, 64);
	ck_assert_uint_eq(s.hold_ms, 1000);
	ck_assert_uint_eq(s.idle_ms, 7200000);
	ck_assert_ptr_null(s.record);
	ck_assert_ptr_null(s.replay);
	ck_assert(!s.check && !s.help && !s.version && !s.reference);
}
END_TEST

static int parse_callback(struct spec_callback *spec, struct err *err, const char *a, const char *b)
{
	char *argv[] = {(char *)"ebpfdump-callback", (char *)a, (char *)b};

	return spec_parse(&spec_callback, spec, a ? (b ? 3 : 2) : 1, argv, err);
}

START_TEST(callback_table)
{
	struct spec_callback s;
	struct err err;

	ck_assert_int_eq(parse_callback(&s, &err, NULL, NULL), 0);
	ck_assert_str_eq(s.listen, "127.0.0.1:8090");
	ck_assert_uint_eq(s.body_bytes, 64 << 20);
	ck_assert_uint_eq(s.keep, 10000);
	ck_assert_uint_eq(s.streams, 32);
	ck_assert_uint_eq(s.request_timeout_ms, 60000);
	ck_assert_ptr_null(s.dir);
	ck_assert_int_eq(parse_callback(&s, &err, "--host=a.example", "--host=A.Example"), 0);
	ck_assert_uint_eq(s.hosts.count, 1);
	ck_assert_int_eq(parse_callback(&s, &err, "--dir=/x", "--body-bytes=128M"), 0);
	ck_assert_str_eq(s.dir, "/x");

	ck_assert_int_eq(parse_callback(&s, &err, "--host=a:1", NULL), -EINVAL);
	ck_assert_str_eq(err.text,
		"--host: 'a:1' is not allowed: a name of 1 to 253 bytes without ':', '/', '@' and blanks");
	ck_assert_int_eq(parse_callback(&s, &err, "--listen=", NULL), -EINVAL);
	ck_assert_int_eq(parse_callback(&s, &err, "--listen=here", NULL), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "--listen: 'here' is not allowed"));
	ck_assert_int_eq(parse_callback(&s, &err, "--body-bytes=256M", NULL), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "--memory-bytes"));
	ck_assert_int_eq(parse_callback(&s, &err, "--output-buffer=64M", NULL), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "--output-buffer"));
	ck_assert_int_eq(parse_callback(&s, &err, "--connections=32", NULL), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "--connections"));
	/* the loader's flags are not this program's */
	ck_assert_int_eq(parse_callback(&s, &err, "--interface=lo", NULL), -EINVAL);
	ck_assert_int_eq(parse_callback(&s, &err, "--lisen=:1", NULL), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "did you mean --listen?"));
	ck_assert_uint_lt(spec_callback.count, SPEC_OPTIONS_MAX);
	ck_assert_uint_lt(spec_loader.count, SPEC_OPTIONS_MAX);
}
END_TEST

START_TEST(every_flag)
{
	struct spec s;
	struct err err;

	ck_assert_int_eq(PARSE(&s, &err, "--interface", "eth0", "--interface=lo", "--interface",
				 "eth0", "--direction", "ingress", "--message=response",
				 "--body-bytes", "1M", "--output=json", "--line-bytes", "2Ki"),
		0);
	ck_assert_uint_eq(s.interfaces.count, 2);
	ck_assert_str_eq(s.interfaces.names[0], "eth0");
	ck_assert_str_eq(s.interfaces.names[1], "lo");
	ck_assert_uint_eq(s.directions, 1 << DUMP_INGRESS);
	ck_assert_uint_eq(s.messages, 1 << HTTP_RESPONSE);
	ck_assert_uint_eq(s.body_bytes, 1 << 20);
	ck_assert_uint_eq(s.output, SPEC_OUTPUT_JSON);
	ck_assert_uint_eq(s.line_bytes, 2048);

	ck_assert_int_eq(PARSE(&s, &err, "--output-buffer", "64K", "--node", "n1", "--log-level",
				 "debug", "--listen=", "--hook=tracepoint", "--ring-bytes=4096",
				 "--capture-bytes=256", "--poll-interval=1s", "--connections=16",
				 "--buffer-bytes=16G", "--head-bytes=1K", "--headers=8",
				 "--pending=1", "--hold=0", "--idle=24h"),
		0);
	ck_assert_uint_eq(s.output_buffer, 65536);
	ck_assert_str_eq(s.node, "n1");
	ck_assert_uint_eq(s.log_level, LOG_DEBUG);
	ck_assert_str_eq(s.listen, "");
	ck_assert_uint_eq(s.hook, SPEC_HOOK_TRACEPOINT);
	ck_assert_uint_eq(s.ring_bytes, 4096);
	ck_assert_uint_eq(s.capture_bytes, 256);
	ck_assert_uint_eq(s.poll_interval_ms, 1000);
	ck_assert_uint_eq(s.connections, 16);
	ck_assert_uint_eq(s.buffer_bytes, UINT64_C(16) << 30);
	ck_assert_uint_eq(s.head_bytes, 1024);
	ck_assert_uint_eq(s.headers, 8);
	ck_assert_uint_eq(s.pending, 1);
	ck_assert_uint_eq(s.hold_ms, 0);
	ck_assert_uint_eq(s.idle_ms, 86400000);

	ck_assert_int_eq(PARSE(&s, &err, "--output-buffer=64K", "--line-bytes=32K"), 0);
	ck_assert_int_eq(PARSE(&s, &err, "--record", "-", "--check"), 0);
	ck_assert_str_eq(s.record, "-");
	ck_assert(s.check);
	ck_assert_int_eq(PARSE(&s, &err, "--record=--odd", "--output", "json"), 0);
	ck_assert_str_eq(s.record, "--odd");
	ck_assert_int_eq(PARSE(&s, &err, "--replay", "a=b", "--output", "json"), 0);
	ck_assert_str_eq(s.replay, "a=b");
	ck_assert_int_eq(PARSE(&s, &err, "-h"), 0);
	ck_assert(s.help);
	ck_assert_int_eq(PARSE(&s, &err, "--help", "--version", "--reference"), 0);
	ck_assert(s.help && s.version && s.reference && !s.check);
}
END_TEST

START_TEST(repeated)
{
	struct spec s;
	struct err err;

	ck_assert_int_eq(PARSE(&s, &err, "--body-bytes=1", "--body-bytes=2", "--node=a", "--node=b",
				 "--output=json", "--output=text"),
		0);
	ck_assert_uint_eq(s.body_bytes, 2);
	ck_assert_str_eq(s.node, "b");
	ck_assert_uint_eq(s.output, SPEC_OUTPUT_TEXT);
	ck_assert_int_eq(
		PARSE(&s, &err, "--direction=egress", "--direction=ingress", "--direction=egress"),
		0);
	ck_assert_uint_eq(s.directions, 3);
	ck_assert_int_eq(PARSE(&s, &err, "--message=request"), 0);
	ck_assert_uint_eq(s.messages, 1 << HTTP_REQUEST);
}
END_TEST

static const struct {
	const char *words[4];
	const char *error;
} wrong[] = {
	{{"--body-bytes", "x"},
		"--body-bytes: 'x' is not allowed: a size, 0 to 1M, in bytes or with suffix K, M, "
		"G"},
	{{"--body-bytes=1048577"},
		"--body-bytes: '1048577' is not allowed: a size, 0 to 1M, in bytes or with suffix "
		"K, M, G"},
	{{"--line-bytes=2047"},
		"--line-bytes: '2047' is not allowed: a size, 2K to 1M, in bytes or with suffix K, "
		"M, G"},
	{{"--capture-bytes", "255"},
		"--capture-bytes: '255' is not allowed: a size, 0, or 256 to 1M, in bytes or with "
		"suffix K, M, G"},
	{{"--poll-interval", "0"},
		"--poll-interval: '0' is not allowed: a time, 1ms to 1s, with unit ms, s, m, h"},
	{{"--hold", "61s"}, "--hold: '61s' is not allowed: a time, 0 to 1m, with unit ms, s, m, h"},
	{{"--idle=25h"}, "--idle: '25h' is not allowed: a time, 0 to 24h, with unit ms, s, m, h"},
	{{"--headers=7"}, "--headers: '7' is not allowed: a number, 8 to 4096"},
	{{"--headers=1K"}, "--headers: '1K' is not allowed: a number, 8 to 4096"},
	{{"--connections", "-5"}, "--connections: '-5' is not allowed: a number, 16 to 4194304"},
	{{"--output=xml"}, "--output: 'xml' is not allowed: auto, json or text"},
	{{"--output="}, "--output: '' is not allowed: auto, json or text"},
	{{"--direction", "both"}, "--direction: 'both' is not allowed: egress or ingress"},
	{{"--interface", "a/b"},
		"--interface: 'a/b' is not allowed: a name of 1 to 15 bytes without blanks and "
		"'/', not '.' or '..'"},
	{{"--namespace", "Shop"},
		"--namespace: 'Shop' is not allowed: a name of 1 to 63 bytes of a-z, 0-9 and '-', "
		"which is neither first nor last"},
	{{"--namespace", "shop", "--pod-logs="},
		"--namespace: 'shop' is not allowed: without --pod-logs no pod is known"},
	{{"--namespace", "shop", "--replay=x"},
		"--namespace: 'shop' is not allowed: a --replay knows no pods"},
	{{"--redact", "a b"},
		"--redact: 'a b' is not allowed: none, or a header name of 1 to 64 bytes"},
	{{"--redact=none", "--redact=Cookie"},
		"--redact: 'none' is not allowed: names are given as well"},
	{{"--redact=Cookie", "--redact", "None"},
		"--redact: 'None' is not allowed: names are given as well"},
	{{"--redact"}, "--redact: its value is missing: none, or a header name of 1 to 64 bytes"},
	{{"--record="}, "--record: '' is not allowed: 1 to 4095 bytes"},
	{{"--check=yes"}, "--check: 'yes' is not allowed: no value"},
	{{"--check="}, "--check: '' is not allowed: no value"},
	{{"--output"}, "--output: its value is missing: auto, json or text"},
	{{"--output", "--check"}, "--output: its value is missing: auto, json or text"},
	{{"--bodybytes", "5"}, "--bodybytes: there is no such flag: did you mean --body-bytes?"},
	{{"--body_bytes=5"}, "--body_bytes=5: there is no such flag: did you mean --body-bytes?"},
	{{"--interfaces", "lo"}, "--interfaces: there is no such flag: did you mean --interface?"},
	{{"--conn=5"}, "--conn=5: there is no such flag: did you mean --connections?"},
	{{"-help"}, "-help: there is no such flag: did you mean --help?"},
	{{"-x"}, "-x: there is no such flag: --help lists them"},
	{{"--"}, "--: there is no such flag: --help lists them"},
	{{"---"}, "---: there is no such flag: --help lists them"},
	{{"--=x"}, "--=x: there is no such flag: --help lists them"},
	{{"--quite-another-thing"},
		"--quite-another-thing: there is no such flag: --help lists them"},
	{{"file"}, "'file' is not allowed: flags only, --help lists them"},
	{{"-"}, "'-' is not allowed: flags only, --help lists them"},
	{{""}, "'' is not allowed: flags only, --help lists them"},
	{{"--check", "yes"}, "'yes' is not allowed: flags only, --help lists them"},
	{{"--node", "ok", "--output", "a\nb\x1b"},
		"--output: 'a?b?' is not allowed: auto, json or text"},
	{{"--record=f", "--replay=g"},
		"--record: 'f' is not allowed: together with --replay nothing is captured"},
	{{"--record", "-", "--output", "json"},
		"--record: '-' is not allowed: --output json goes to standard output as well"},
	{{"--output=text", "--record=-"},
		"--record: '-' is not allowed: --output text goes to standard output as well"},
	{{"--output-buffer=64K", "--line-bytes", "32769"},
		"--output-buffer: '64K' is not allowed: at least twice --line-bytes, 32769"},
	{{"--listen", "9464"},
		"--listen: '9464' is not allowed: HOST:PORT, [IPV6]:PORT, :PORT or nothing"},
};

START_TEST(wrong_flags)
{
	struct spec s, before;
	struct err err;

	memset(&s, 0x55, sizeof(s));
	memcpy(&before, &s, sizeof(s));
	/* words[3] may be the last: parse() stops there */
	const char *words[5] = {wrong[_i].words[0], wrong[_i].words[1], wrong[_i].words[2],
		wrong[_i].words[3], NULL};
	ck_assert_int_eq(parse(&s, &err, words), -EINVAL);
	ck_assert_str_eq(err.text, wrong[_i].error);
	ck_assert_int_eq(err.code, EINVAL);
	ck_assert_mem_eq(&s, &before, sizeof(s));
}
END_TEST

START_TEST(namespaces)
{
	static const char *const bad[] = {"", "-", "-a", "a-", "A", "a.b", "a_b", "a b", "\xc3\xa9",
		"a234567890123456789012345678901234567890123456789012345678901234"};
	static const char *const good[] = {"a", "0", "kube-system", "a--b",
		"a23456789012345678901234567890123456789012345678901234567890123"};
	struct spec s;
	struct err err;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		ck_assert_msg(PARSE(&s, &err, "--namespace", bad[i]) == -EINVAL, "%s", bad[i]);
	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		ck_assert_msg(PARSE(&s, &err, "--namespace", good[i]) == 0, "%s", good[i]);
}
END_TEST

START_TEST(interfaces)
{
	static const char *const bad[] = {
		"", ".", "..", "a b", "a\tb", "a\nb", "/", "eth0:1", "abcdefghijklmnop"};
	static const char *const good[] = {"a", "...", "abcdefghijklmno", "veth-1.2@x", "\xc3\xa9"};
	char names[17][16];
	const char *words[36] = {NULL};
	struct spec s;
	struct err err;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		ck_assert_msg(PARSE(&s, &err, "--interface", bad[i]) == -EINVAL, "%s", bad[i]);
	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		ck_assert_msg(PARSE(&s, &err, "--interface", good[i]) == 0, "%s", good[i]);
	for (int i = 0; i < 17; i++) {
		snprintf(names[i], sizeof(names[i]), "if%d", i);
		words[2 * i] = "--interface";
		words[2 * i + 1] = names[i];
	}
	ck_assert_int_eq(parse(&s, &err, words), -EINVAL);
	ck_assert_str_eq(err.text, "--interface: 'if16' is one too many: at most 16 names");
	words[33] = "if3"; /* a repeated one does not count */
	ck_assert_int_eq(parse(&s, &err, words), 0);
	ck_assert_uint_eq(s.interfaces.count, 16);
	ck_assert_str_eq(s.interfaces.names[15], "if15");
}
END_TEST

START_TEST(redact)
{
	static const char *const bad[] = {"", " ", "a b", "a:", "Cookie,X", "a\t", "a(b)", "\"a\"",
		"a/b", "a@b", "[a]", "{a}", "a;b", "a=b", "a?", "<a>", "a\\", "\x7f", "\xc3\xa9"};
	static const char every[] = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz";
	char long_name[66], names[17][16];
	const char *words[36] = {NULL};
	struct spec s;
	struct err err;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		ck_assert_msg(PARSE(&s, &err, "--redact", bad[i]) == -EINVAL, "%s", bad[i]);
	ck_assert_int_eq(PARSE(&s, &err, "--redact", every), 0);
	memset(long_name, 'A', sizeof(long_name));
	long_name[65] = '\0';
	ck_assert_int_eq(PARSE(&s, &err, "--redact", long_name), -EINVAL);
	long_name[64] = '\0';
	ck_assert_int_eq(PARSE(&s, &err, "--redact", long_name), 0);

	/* instead of the default; the same in another case does not count */
	ck_assert_int_eq(
		PARSE(&s, &err, "--redact", "X-Token", "--redact=Cookie", "--redact=x-TOKEN"), 0);
	ck_assert_uint_eq(s.redact.count, 2);
	ck_assert_str_eq(s.redact.names[0], "X-Token");
	ck_assert_str_eq(s.redact.names[1], "Cookie");
	ck_assert_uint_eq(s.interfaces.count, 0);
	ck_assert_int_eq(PARSE(&s, &err, "--redact=none"), 0);
	ck_assert_uint_eq(s.redact.count, 0);
	ck_assert_int_eq(PARSE(&s, &err, "--redact", "NONE", "--redact=none"), 0);
	ck_assert_uint_eq(s.redact.count, 0);
	/* an interface may have any name, twice in different cases */
	ck_assert_int_eq(PARSE(&s, &err, "--interface=none", "--interface=None"), 0);
	ck_assert_uint_eq(s.interfaces.count, 2);
	ck_assert_uint_eq(s.redact.count, 5);

	for (int i = 0; i < 17; i++) {
		snprintf(names[i], sizeof(names[i]), "h%d", i);
		words[2 * i] = "--redact";
		words[2 * i + 1] = names[i];
	}
	ck_assert_int_eq(parse(&s, &err, words), -EINVAL);
	ck_assert_str_eq(err.text, "--redact: 'h16' is one too many: at most 16 names");
	words[33] = "H3";
	ck_assert_int_eq(parse(&s, &err, words), 0);
	ck_assert_uint_eq(s.redact.count, 16);
}
END_TEST

START_TEST(listen)
{
	static const char *const good[] = {"", ":0", ":9464", "127.0.0.1:1", "[::1]:9464",
		"localhost:65535", "[fe80::1%lo]:1"};
	static const char *const bad[] = {"x", ":", "::1", "::1:80", "h:65536", "h:-1",
		"h:", "[]:1", "[::1]", "[::1:5", "[::1]x:5", "a b:1", "http://x:1", "h:1 ", "a]:1",
		":x"};
	struct spec s;
	struct err err;

	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		ck_assert_msg(PARSE(&s, &err, "--listen", good[i]) == 0, "%s", good[i]);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		ck_assert_msg(PARSE(&s, &err, "--listen", bad[i]) == -EINVAL, "%s", bad[i]);
}
END_TEST

START_TEST(long_values)
{
	static char value[5000];
	struct spec s;
	struct err err;

	memset(value, 'x', sizeof(value) - 1);
	ck_assert_int_eq(PARSE(&s, &err, "--output", value), -EINVAL);
	ck_assert_uint_lt(strlen(err.text), 200);
	ck_assert_ptr_nonnull(strstr(err.text, "xxx...' is not allowed: auto, json or text"));
	ck_assert_int_eq(PARSE(&s, &err, value), -EINVAL);
	ck_assert_uint_lt(strlen(err.text), 200);
	value[0] = value[1] = '-';
	ck_assert_int_eq(PARSE(&s, &err, value), -EINVAL);
	ck_assert_uint_lt(strlen(err.text), 200);
	/* cut between characters, not through them */
	for (size_t i = 1; i + 1 < sizeof(value) - 1; i += 2)
		memcpy(value + i, "\xc3\xa9", 2);
	ck_assert_int_eq(PARSE(&s, &err, "--output", value), -EINVAL);
	ck_assert_uint_eq(utf8_valid(err.text, strlen(err.text)), strlen(err.text));
	value[254] = '\0';
	ck_assert_int_eq(PARSE(&s, &err, "--node", value), -EINVAL);
	value[253] = '\0';
	ck_assert_int_eq(PARSE(&s, &err, "--node", value), 0);
}
END_TEST

/* Every number's bounds hold, and what is said of them is what is done. */
START_TEST(bounds)
{
	size_t n;
	const struct spec_option *options = spec_options(&n);
	struct spec s;
	struct err err;

	for (size_t i = 0; i < n; i++) {
		const struct spec_option *o = &options[i];
		const char *unit = o->type == SPEC_DURATION ? "ms" : "";
		char flag[64], value[64];

		if (o->type != SPEC_UINT && o->type != SPEC_SIZE && o->type != SPEC_DURATION)
			continue;
		for (int step = -1; step <= 1; step++) {
			snprintf(flag, sizeof(flag), "--%s", o->flag);
			if (o->min > 0 || step >= 0) {
				snprintf(value, sizeof(value), "%lld%s", (long long)o->min + step,
					unit);
				ck_assert_msg(
					PARSE(&s, &err, flag, value) == (step < 0 ? -EINVAL : 0),
					"%s %s", flag, value);
			}
			snprintf(value, sizeof(value), "%lld%s", (long long)o->max + step, unit);
			ck_assert_msg(PARSE(&s, &err, flag, value) == (step > 0 ? -EINVAL : 0),
				"%s %s", flag, value);
			if (step == 0)
				ck_assert_uint_eq(*(uint64_t *)((char *)&s + o->offset), o->max);
		}
		ck_assert_msg(PARSE(&s, &err, flag, "0") == (o->min && !o->or_zero ? -EINVAL : 0),
			"%s", flag);
	}
}
END_TEST

/* What other rooms call by number, and the number that dump owns. */
START_TEST(agreements)
{
	ck_assert_uint_eq(option("line-bytes")->min, DUMP_LINE_MIN);
	ck_assert_str_eq(option("line-bytes")->fallback, "16K");
	ck_assert_uint_eq(option("redact")->max, DUMP_REDACT_NAME_MAX);
	ck_assert_uint_eq(SPEC_NAMES_MAX, DUMP_REDACT_MAX);
	ck_assert_str_eq(option("redact")->path, "spec.redactHeaders");
	ck_assert_uint_eq(DUMP_LINE_MAX, 16 << 10);
	ck_assert_str_eq(option("direction")->choices[DUMP_EGRESS], "egress");
	ck_assert_str_eq(option("direction")->choices[DUMP_INGRESS], "ingress");
	ck_assert_str_eq(option("message")->choices[HTTP_REQUEST], "request");
	ck_assert_str_eq(option("message")->choices[HTTP_RESPONSE], "response");
	ck_assert_str_eq(option("output")->choices[SPEC_OUTPUT_JSON], "json");
	ck_assert_str_eq(option("output")->choices[SPEC_OUTPUT_TEXT], "text");
	ck_assert_str_eq(option("log-level")->choices[LOG_ERROR], "error");
	ck_assert_str_eq(option("log-level")->choices[LOG_WARN], "warn");
	ck_assert_str_eq(option("log-level")->choices[LOG_INFO], "info");
	ck_assert_str_eq(option("log-level")->choices[LOG_DEBUG], "debug");
	ck_assert_str_eq(option("hook")->choices[SPEC_HOOK_FENTRY], "fentry");
	ck_assert_str_eq(option("hook")->choices[SPEC_HOOK_KPROBE], "kprobe");
	ck_assert_str_eq(option("hook")->choices[SPEC_HOOK_TRACEPOINT], "tracepoint");
	ck_assert_str_eq(option("interface")->path, "spec.interfaces");
	ck_assert_str_eq(option("direction")->path, "spec.directions");
	ck_assert_str_eq(option("message")->path, "spec.messages");
	ck_assert_str_eq(option("body-bytes")->path, "spec.bodyBytes");
}
END_TEST

START_TEST(callback_url)
{
	static const char *const good[] = {"http://h", "https://h/", "HTTP://h:1/p?q=a@b:c",
		"http://[::1]:8090/ingest", "http://[fd00::1]", "https://h?x"};
	static const char *const bad[] = {"h", "ftp://h/", "http:/h", "http://", "http:///x",
		"http://u@h/", "http://u:p@h/", "http://h:0/", "http://h:x",
		"http://h:", "http://:1/", "http://h:65536/", "http://::1/", "http://h/ x",
		"http://h/\n", "http://h#f", "http://h\\x@y"};
	struct spec s;
	struct err err;

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		ck_assert_msg(spec_url_fault(good[i]) == NULL, "%s", good[i]);
		ck_assert_int_eq(PARSE(&s, &err, "--callback", good[i]), 0);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		ck_assert_msg(spec_url_fault(bad[i]) != NULL, "%s", bad[i]);
	/* what may be a secret is in no error */
	ck_assert_int_eq(PARSE(&s, &err, "--callback", "http://me:geheim@h/?t=geheim"), -EINVAL);
	ck_assert_ptr_null(strstr(err.text, "geheim"));
	ck_assert_ptr_nonnull(strstr(err.text, "--callback-header-file"));
	ck_assert_int_eq(PARSE(&s, &err, "--callback", "geheim"), -EINVAL);
	ck_assert_ptr_null(strstr(err.text, "geheim"));
}
END_TEST

START_TEST(callback_together)
{
	struct spec s;
	struct err err;

	ck_assert_int_eq(PARSE(&s, &err, "--callback-cert", "c"), -EINVAL);
	ck_assert_int_eq(PARSE(&s, &err, "--callback-cert", "c", "--callback-key", "k"), 0);
	ck_assert_int_eq(PARSE(&s, &err, "--spool-dir", "/d"), -EINVAL);
	ck_assert_int_eq(PARSE(&s, &err, "--spool-dir", "/d", "--spool-bytes", "1G"), 0);
	ck_assert_int_eq(
		PARSE(&s, &err, "--queue-bytes=1M", "--line-bytes=1M", "--output-buffer=8M"),
		-EINVAL);
	ck_assert_int_eq(PARSE(&s, &err, "--callback", "http://h", "--output", "text"), -EINVAL);
	ck_assert_int_eq(PARSE(&s, &err, "--callback", "http://h", "--record", "-"), -EINVAL);
	ck_assert_int_eq(PARSE(&s, &err, "--when-full", "drop-bodies"), 0);
	ck_assert_uint_eq(s.when_full, 2);
}
END_TEST

/* Each row is whole, each flag and field is there once, each group is in one piece. */
START_TEST(table)
{
	size_t n;
	const struct spec_option *o = spec_options(&n);

	for (size_t i = 0; i < n; i++) {
		ck_assert_uint_lt(strlen(o[i].flag), 24);
		ck_assert_int_eq(o[i].value == NULL, o[i].type == SPEC_FLAG);
		ck_assert_int_eq(o[i].choices != NULL,
			o[i].type == SPEC_CHOICE || o[i].type == SPEC_CHOICES);
		ck_assert(o[i].type == SPEC_NAMES || o[i].names == NULL);
		ck_assert_int_eq(o[i].help[strlen(o[i].help) - 1], '.');
		ck_assert_uint_lt(o[i].offset, sizeof(struct spec));
		for (size_t j = 0; j < i; j++) {
			ck_assert_str_ne(o[i].flag, o[j].flag);
			ck_assert_uint_ne(o[i].offset, o[j].offset);
			if (strcmp(o[i].group, o[j].group) == 0)
				ck_assert_str_eq(o[i].group, o[i - 1].group);
		}
	}
}
END_TEST

static char *printed(void (*print)(FILE *))
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	print(f);
	fclose(f);
	return text;
}

START_TEST(help)
{
	size_t n;
	const struct spec_option *o = spec_options(&n);
	char *text = printed(spec_print_help), *save = NULL;
	char want[200];

	for (size_t i = 0; i < n; i++) {
		snprintf(want, sizeof(want), "\n  --%s%s%s", o[i].flag, o[i].value ? " " : "",
			o[i].value ? o[i].value : "");
		ck_assert_msg(strstr(text, want) != NULL, "%s", want);
		snprintf(want, sizeof(want), "\n\n%s:\n", o[i].group);
		ck_assert_msg(strstr(text, want) != NULL, "%s", want);
	}
	ck_assert_ptr_nonnull(strstr(text, "Default: 4096."));
	ck_assert_ptr_nonnull(strstr(text, "Default: 127.0.0.1:9464."));
	ck_assert_ptr_nonnull(strstr(text, "Default: Authorization, Proxy-Authorization, "));
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		ck_assert_msg(strlen(line) <= 97, "%s", line);
		ck_assert_int_ne(line[strlen(line) - 1], ' ');
	}
	free(text);
}
END_TEST

START_TEST(reference)
{
	size_t n, rows = 0;
	const struct spec_option *o = spec_options(&n);
	char *text = printed(spec_print_reference), *save = NULL;

	ck_assert_ptr_nonnull(strstr(text,
		"| `--capture-bytes SIZE` | `spec.limits.captureBytes` | `0` | 0, or 256 to 1M | How much of one send"));
	ck_assert_ptr_nonnull(
		strstr(text, "| `--body-bytes SIZE` | `spec.bodyBytes` | `4096` | 0 to 1M | "));
	ck_assert_ptr_nonnull(strstr(text,
		"| `--redact NAME` | `spec.redactHeaders` | `Authorization, Proxy-Authorization, "
		"Cookie, Set-Cookie, X-Api-Key` | | "));
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		int bars = 0;

		if (line[0] != '|')
			continue;
		for (const char *c = line; *c; c++)
			bars += *c == '|';
		ck_assert_msg(bars == 6, "%s", line);
		rows += strncmp(line, "| `--", 5) == 0;
	}
	ck_assert_uint_eq(rows, n);
	ck_assert_str_eq(o[0].flag, "interface");
	free(text);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("spec");
	TCase *t = tcase_create("spec");
	SRunner *runner;
	int failed;

	tcase_add_test(t, defaults);
	tcase_add_test(t, callback_table);
	tcase_add_test(t, every_flag);
	tcase_add_test(t, repeated);
	tcase_add_loop_test(t, wrong_flags, 0, ARRAY_SIZE(wrong));
	tcase_add_test(t, interfaces);
	tcase_add_test(t, namespaces);
	tcase_add_test(t, redact);
	tcase_add_test(t, listen);
	tcase_add_test(t, long_values);
	tcase_add_test(t, bounds);
	tcase_add_test(t, agreements);
	tcase_add_test(t, table);
	tcase_add_test(t, callback_url);
	tcase_add_test(t, callback_together);
	tcase_add_test(t, help);
	tcase_add_test(t, reference);
	suite_add_tcase(s, t);
	runner = srunner_create(s);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
