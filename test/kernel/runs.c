/* SPDX-License-Identifier: Apache-2.0 */
/* The loader as a whole: its ledger, its flags, its end. Most checks here start one of their own.
 */
#include "test/kernel/traffic.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the loader itself ---- */

/* It never reports its own end of a connection. Ours it does. */
static void check_own_traffic(void)
{
	int before = loader_lines(), ours = 0;

	for (int i = 0; i < 5; i++) {
		char *page = loader_get("/metrics");

		EXPECT(page, "no metrics");
		free(page);
	}
	if (!barrier())
		return;
	for (int i = before; i < loader_lines(); i++) {
		struct json_object *m = loader_line(i);
		bool sent = key_int(m, "direction") == 0;
		int64_t local = key_int(m, sent ? "src_port" : "dst_port");
		struct json_object *answered = key(m, "request");
		const char *path = key_string(answered ? answered : m, "path");

		EXPECT(local != TELEMETRY_PORT, "the loader reports itself: %s",
			json_object_to_json_string_ext(m, JSON_C_TO_STRING_PLAIN));
		if (path && strcmp(path, "/metrics") == 0)
			ours++;
	}
	EXPECT(ours == 10, "%d messages of the scrapes' client instead of 10", ours);
}

/* ---- the ledger ---- */

struct row {
	const char *labels;
	const char *left, *right[5]; /* left = sum of right */
};

static const struct row rows[] = {
	{"program=\"egress\"", "ebpfdump_kernel_seen_bytes_total",
		{"ebpfdump_kernel_captured_bytes_total", "ebpfdump_kernel_skipped_bytes_total"}},
	{"program=\"ingress\"", "ebpfdump_kernel_seen_bytes_total",
		{"ebpfdump_kernel_captured_bytes_total", "ebpfdump_kernel_skipped_bytes_total"}},
	{"", "ebpfdump_kernel_seen_bytes_total",
		{"ebpfdump_kernel_captured_bytes_total", "ebpfdump_kernel_skipped_bytes_total"}},
	{"", "ebpfdump_records_submitted_total",
		{"ebpfdump_records_read_total", "ebpfdump_records_lost_total"}},
	{"", "ebpfdump_records_read_total", {"ebpfdump_flow_records_total"}},
	{"", "ebpfdump_kernel_captured_bytes_total", {"ebpfdump_flow_bytes_total"}},
	{"", "ebpfdump_flow_bytes_total",
		{"ebpfdump_flow_parsed_bytes_total", "ebpfdump_flow_repeated_bytes_total",
			"ebpfdump_flow_unparsed_bytes_total", "ebpfdump_flow_left_out_bytes_total",
			"ebpfdump_flow_unfinished_bytes"}},
	{"", "ebpfdump_messages_parsed_total",
		{"ebpfdump_messages_emitted_total", "ebpfdump_messages_filtered_total",
			"ebpfdump_messages_dropped_total"}},
	{"", "ebpfdump_messages_emitted_total",
		{"ebpfdump_output_delivered_total", "ebpfdump_output_dropped_total",
			"ebpfdump_output_queued"}},
};

/* One row of the ledger; `say` records what is wrong with it. */
static bool row_holds(const char *page, const struct row *r, bool say)
{
	double left = metric(page, r->left, r->labels), sum = 0;
	struct text terms = text("%s", "");
	bool holds = left >= 0;

	for (size_t t = 0; t < ARRAY_SIZE(r->right) && r->right[t]; t++) {
		double term = metric(page, r->right[t], r->labels);
		struct text one = text("%s%s %.0f", t ? " + " : "", r->right[t], term);

		/* a metric that does not exist is -1 */
		holds = holds && term >= 0;
		sum += term;
		text_add(&terms, one.p, one.n);
		text_free(&one);
	}
	holds = holds && left == sum;
	EXPECT(holds || !say, "%s{%s} %.0f is not %s", r->left, r->labels, left, terms.p);
	text_free(&terms);
	return holds;
}

/*
 * Everything that passed is accounted for, exactly. Returns the page. The counters of all
 * processors cannot be read at one moment: with other traffic about it is tried more than once.
 */
static char *compare_ledger(void)
{
	for (int left = 20;; left--) {
		char *page = loader_quiet_metrics();
		bool holds = page;

		for (size_t i = 0; page && i < ARRAY_SIZE(rows); i++)
			holds = row_holds(page, &rows[i], left == 0) && holds;
		if (holds || left == 0) {
			EXPECT(page, "no metrics");
			return page ? page : strdup("");
		}
		free(page);
	}
}

/* The same once all that was emitted is written. */
static char *compare_delivered(void)
{
	int64_t until = now_ms() + WAIT_MS;

	for (;;) {
		char *page = compare_ledger();

		if (metric(page, "ebpfdump_output_queued", "") == 0)
			return page;
		if (now_ms() > until) {
			check_fail("%.0f messages stay in the queue",
				metric(page, "ebpfdump_output_queued", ""));
			return page;
		}
		free(page);
	}
}

static void check_ledger(void)
{
	char *page;
	int64_t until = now_ms() + WAIT_MS;
	int lines;
	double delivered;

	barrier();
	page = compare_delivered();
	EXPECT(metric(page, "ebpfdump_records_lost_total", "") == 0, "records were lost");
	EXPECT(metric(page, "ebpfdump_flow_bad_records_total", "") == 0, "there are bad records");
	EXPECT(metric(page, "ebpfdump_kernel_seen_bytes_total", "program=\"egress\"") > 1e6 ||
			!(loader()->views & (1 << REQ_OUT)),
		"hardly anything was seen");
	delivered = metric(page, "ebpfdump_output_delivered_total", "");
	while ((lines = loader_lines()) < delivered && now_ms() < until)
		sleep_ms(20);
	EXPECT(lines >= delivered, "%d lines were read, %.0f delivered", lines, delivered);
	/* Only the answer to that scrape came after it. */
	for (int i = (int)delivered; i < lines; i++)
		EXPECT(key_int(loader_line(i), "src_port") == TELEMETRY_PORT,
			"%d lines were read, %.0f delivered", lines, delivered);
	free(page);
}

/* seq numbers the messages without a hole. */
static void check_seq(void)
{
	int n = loader_lines();
	int64_t last = n ? key_int(loader_line(0), "seq") : 0;

	for (int i = 1; i < n; i++) {
		int64_t seq = key_int(loader_line(i), "seq");

		EXPECT(seq == last + 1, "line %d has seq %lld after %lld", i, (long long)seq,
			(long long)last);
		last = seq;
	}
	EXPECT(n > 0, "no lines");
}

/* Requests on 8 connections, as fast as they go, with 1 KiB bodies. */
#define BURST_CONNECTIONS 8
#define BURST_REQUESTS	  100
static struct conn burst[BURST_CONNECTIONS];

static void make_burst(void)
{
	for (int c = 0; c < BURST_CONNECTIONS; c++) {
		bool ok = conn_open(&burst[c], V4);

		for (int i = 0; ok && i < BURST_REQUESTS; i++) {
			struct text path = text("/burst/%d/%d", c, i);
			struct text req = request("POST", path.p, 1000, seed_of(c, i, 0));
			struct text resp = response(200, 1000, seed_of(c, i, 1));

			ok = exchange(&burst[c], &req, &resp);
			text_free(&path);
			text_free(&req);
			text_free(&resp);
		}
		conn_close(&burst[c]);
	}
}

/* What is reported whole is what was sent, however much is lost around it. */
static void compare_burst(void)
{
	for (int c = 0; c < BURST_CONNECTIONS; c++) {
		for (int l = 0; l < loader_lines(); l++) {
			struct json_object *m = loader_line(l);
			const char *path = key_string(m, "path"), *body = key_string(m, "body");
			char want[1000];
			int id, i;

			if (!path || sscanf(path, "/burst/%d/%d", &id, &i) != 2 || id != c)
				continue;
			if (key(m, "error") || key_int(m, "gap_bytes") > 0)
				continue;
			fill(want, sizeof(want), seed_of(id, i, 0));
			EXPECT(body && json_object_get_string_len(key(m, "body")) == 1000 &&
					memcmp(body, want, 1000) == 0,
				"%s has another body than was sent, and no gap", path);
		}
	}
}

/* ---- sizes ---- */

/* Sends of 2^n - 1, 2^n, 2^n + 1 bytes up to 64 KiB, each byte of each body compared. The loader
 * keeps bodies whole here (LARGE). */
#define LARGE_BODY 131072
static void check_sizes(void)
{
	for (int exp = 0; exp <= 16; exp++) {
		for (int d = -1; d <= 1; d++) {
			size_t n = (1ul << exp) + (size_t)d, head, body;
			struct text req = request("PUT", "/size", n ? n : 1, (uint32_t)n);
			struct text resp = response(200, n, (uint32_t)n + 1);
			struct pump pump;
			struct conn k;
			bool ok;

			if (!conn_open(&k, V4))
				return;
			/* Once the body alone is a send of n bytes, once head and body together. */
			head = (size_t)(body_of(&req) - req.p);
			body = req.n - head;
			ok = send_all(k.c, req.p, head);
			pump_recv_same(&pump, k.s, req.p, req.n);
			ok = ok && send_all(k.c, req.p + head, body);
			pump_join(&pump);
			if (n >= 256) {
				/* the whole response: n bytes */
				size_t cut = n - ((size_t)(body_of(&resp) - resp.p) + 8);

				text_free(&resp);
				resp = response(200, cut, (uint32_t)n + 1);
			}
			pump_recv_same(&pump, k.c, resp.p, resp.n);
			ok = ok && send_all(k.s, resp.p, resp.n);
			pump_join(&pump);
			conn_close(&k);
			if (ok && gather(&k, 1, 1, &seen))
				compare_all(&k, &seen, 0,
					&(struct want){.method = "PUT",
						.path = "/size",
						.body = body_of(&req),
						.n = body,
						.limit = LARGE_BODY},
					&(struct want){.status = 200,
						.body = body_of(&resp),
						.n = resp.n - (size_t)(body_of(&resp) - resp.p),
						.limit = LARGE_BODY,
						.answers = "PUT /size"});
			text_free(&req);
			text_free(&resp);
		}
	}
}

/* ---- runs of their own ---- */

static void check_one_page(void)
{
	static const char *const flags[] = {"--ring-bytes", "4096", NULL};
	char *page;

	if (!loader_start(&(struct loader_options){.argv = loader_argv, .more = flags}))
		return;
	make_burst();
	page = compare_ledger();
	EXPECT(metric(page, "ebpfdump_records_lost_total", "") +
				metric(page, "ebpfdump_kernel_skipped_bytes_total",
					"reason=\"pressure\"") >
			0,
		"a ring buffer of one page lost nothing: the check checks nothing");
	free(page);
	loader_stop();
	compare_burst();
}

static void check_stopped_reader(void)
{
	static const char *const flags[] = {"--output-buffer", "64K", NULL};
	double delivered;
	char *page;

	if (!loader_start(
		    &(struct loader_options){.argv = loader_argv, .more = flags, .stopped = true}))
		return;
	make_burst();
	page = compare_ledger();
	EXPECT(metric(page, "ebpfdump_output_dropped_total", "reason=\"full\"") > 0,
		"nothing was dropped although nobody reads");
	EXPECT(metric(page, "ebpfdump_output_queued", "") > 0, "nothing is queued");
	EXPECT(metric(page, "ebpfdump_messages_parsed_total", "") >=
			4 * BURST_CONNECTIONS * BURST_REQUESTS,
		"a stopped reader holds up the capture");
	free(page);
	loader_read();
	page = compare_delivered();
	delivered = metric(page, "ebpfdump_output_delivered_total", "");
	free(page);
	loader_stop();
	EXPECT(loader_lines() >= delivered, "%d lines were read, %.0f delivered", loader_lines(),
		delivered);
	compare_burst();
}

static void check_gone_reader(void)
{
	int64_t until = now_ms() + WAIT_MS;
	char *page;
	double closed;

	if (!loader_start(&(struct loader_options){.argv = loader_argv, .stopped = true}))
		return;
	loader_hang_up();
	make_burst();
	do {
		page = compare_ledger();
		closed = metric(page, "ebpfdump_output_dropped_total", "reason=\"closed\"");
		free(page);
	} while (closed < 4 * BURST_CONNECTIONS * BURST_REQUESTS && now_ms() < until);
	EXPECT(closed >= 4 * BURST_CONNECTIONS * BURST_REQUESTS,
		"%.0f messages are counted as dropped: closed", closed);
	loader_stop();
}

/* What passed just before the signal is written. */
static void check_sigterm(void)
{
	struct conn k;
	bool ok;

	if (!loader_start(&(struct loader_options){.argv = loader_argv}))
		return;
	ok = conn_open(&k, V4);
	for (int i = 0; ok && i < 20; i++)
		ok = exchange_plain(&k, "/last");
	loader_stop();
	conn_close(&k);
	if (ok && gather(&k, 20, 20, &seen))
		for (int i = 0; i < 20; i++)
			compare_plain(&k, &seen, i, "/last");
}

static void check_sizes_run(void)
{
	static const char *const flags[] = {"--body-bytes", "128K", "--line-bytes", "512K", NULL};

	if (!loader_start(&(struct loader_options){
		    .argv = loader_argv, .more = flags, .line_max = 512 << 10}))
		return;
	check_sizes();
	loader_stop();
}

/* A container has a pid namespace of its own; the pids reported are the machine's all the same. */
static void check_pid_namespace(void)
{
	if (!loader_start(&(struct loader_options){.argv = loader_argv, .pidns = true}))
		return;
	check_own_traffic();
	check_simple();
	loader_stop();
}

static void check_interface(void)
{
	const char *const flags[] = {"--interface", "nosuch0", "--interface", loopback, NULL};
	char *page, *log, label[64];

	if (!loader_start(&(struct loader_options){
		    .argv = loader_argv, .more = flags, .own_interfaces = true}))
		return;
	log = loader_log();
	EXPECT(strstr(log, "nosuch0") && strstr(log, "warn"),
		"no warning of the interface that is not there: %s", log);
	exchange_over(V4);
	snprintf(label, sizeof(label), "interface=\"%s\"", loopback);
	page = loader_quiet_metrics();
	EXPECT(metric(page, "ebpfdump_interface_missing", "interface=\"nosuch0\"") == 1 &&
			metric(page, "ebpfdump_interface_missing", label) == 0,
		"ebpfdump_interface_missing does not tell");
	free(page);
	free(log);
	loader_stop();
}

static void check_no_interface(void)
{
	static const char *const flags[] = {"--interface", "nosuch0", NULL};
	struct conn k;
	char *page;

	if (!loader_start(&(struct loader_options){
		    .argv = loader_argv, .more = flags, .own_interfaces = true}))
		return;
	if (conn_open(&k, V4))
		exchange_plain(&k, "/nowhere");
	conn_close(&k);
	page = compare_ledger();
	EXPECT(metric(page, "ebpfdump_kernel_skipped_bytes_total", "reason=\"interface\"") > 0,
		"nothing was skipped for its interface");
	EXPECT(metric(page, "ebpfdump_kernel_captured_bytes_total", "") == 0,
		"something was captured");
	free(page);
	loader_stop();
	EXPECT(loader_lines() == 0, "%d messages from an interface that is not there",
		loader_lines());
}

static void filtered(const char *flag, const char *value, uint32_t views)
{
	const char *const flags[] = {flag, value, NULL};
	struct text resp = response(200, 5, 1);
	struct conn k;
	char *page;
	bool ok;

	if (!loader_start(
		    &(struct loader_options){.argv = loader_argv, .more = flags, .views = views})) {
		text_free(&resp);
		return;
	}
	ok = conn_open(&k, V4) && exchange_plain(&k, "/f/1") && exchange_plain(&k, "/f/2");
	conn_close(&k);
	if (ok && gather(&k, 2, 2, &seen))
		for (int i = 0; i < 2; i++)
			compare_all(&k, &seen, i,
				&(struct want){
					.method = "GET", .path = i ? "/f/2" : "/f/1", .body = ""},
				&(struct want){.status = 200, .body = body_of(&resp), .n = 5});
	page = compare_ledger();
	free(page);
	loader_stop();
	text_free(&resp);
}

static void check_direction(void)
{
	filtered("--direction", "egress", 1 << REQ_OUT | 1 << RESP_OUT);
	filtered("--direction", "ingress", 1 << REQ_IN | 1 << RESP_IN);
}

static void check_message(void)
{
	filtered("--message", "request", 1 << REQ_OUT | 1 << REQ_IN);
	filtered("--message", "response", 1 << RESP_OUT | 1 << RESP_IN);
}

/* --check names every hook, and exits with 0. */
static void check_table(void)
{
	static const char *const hooks[] = {"fentry/tcp_sendmsg", "kprobe/tcp_sendmsg",
		"tp_btf/tcp_sendmsg_locked", "fexit/tcp_recvmsg", "kprobe/tcp_cleanup_rbuf",
		"kretprobe/tcp_recvmsg", "cgroup_skb/ingress"};
	static const char *const flags[] = {"--check", NULL};
	char *out, *err;
	int status = loader_run(loader_argv, flags, &out, &err);

	EXPECT(status == 0, "exit status %d: %s", status, err);
	for (size_t i = 0; i < ARRAY_SIZE(hooks); i++)
		EXPECT(strstr(out, hooks[i]), "%s is not in: %s", hooks[i], out);
	/* and how to have those that do not work, but where a test took them away */
	for (const char *row = out; *row; row += strcspn(row, "\n"), row += *row == '\n') {
		const char *next = row + strcspn(row, "\n");

		if (strncmp(row, "egress", 6) != 0 && strncmp(row, "ingress", 7) != 0)
			continue;
		if (!memmem(row, (size_t)(next - row), " no ", 4) ||
			memmem(row, (size_t)(next - row), "counts as missing", 17))
			continue;
		next += strspn(next, "\n ");
		EXPECT(strncmp(next, "to have it: ", 12) == 0, "no remedy follows '%.*s': %s",
			(int)strcspn(row, "\n"), row, out);
	}
	free(out);
	free(err);
}

const struct check ledger_checks[] = {
	{"own traffic", check_own_traffic},
	{"ledger", check_ledger},
	{"seq", check_seq},
	{},
};

const struct check runs_checks[] = {
	{"sizes around powers of two", check_sizes_run},
	{"--interface, one of two is there", check_interface},
	{"--interface, none is there", check_no_interface},
	{"--direction", check_direction},
	{"--message", check_message},
	{"ring buffer of one page", check_one_page},
	{"stopped reader", check_stopped_reader},
	{"reader gone", check_gone_reader},
	{"SIGTERM", check_sigterm},
	{"pid namespace", check_pid_namespace},
	{"--check", check_table},
	{},
};
