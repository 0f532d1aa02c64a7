/* SPDX-License-Identifier: Apache-2.0 */
/* The traffic itself as metrics: how much HTTP there is, how it is answered, how quickly. Before
 * the filters: it is what passed. */
#include "cmd/loader/loader.h"

/* Seconds: from a cache's answer to a time-out. */
static const double bounds[TRAFFIC_LATENCY_BUCKETS] = {
	0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10};

static const char *const direction_names[] = {
	[DUMP_EGRESS] = "egress",
	[DUMP_INGRESS] = "ingress",
};
/* By the first digit; 0: none of these. */
static const char *const class_names[] = {"other", "1xx", "2xx", "3xx", "4xx", "5xx"};

void traffic_count(struct traffic *t, const struct dump_message *m)
{
	unsigned int class = m->head->status / 100;
	struct traffic_latency *latency = &t->latency[m->direction];
	double seconds = (double)m->latency_us / 1e6;
	size_t i = 0;

	t->body_bytes[m->direction] += m->body_bytes;
	if (m->head->kind == HTTP_REQUEST) {
		t->requests[m->direction]++;
		return;
	}
	t->responses[m->direction][class < ARRAY_SIZE(class_names) ? class : 0]++;
	if (!m->request_method.len)
		return;
	while (i < TRAFFIC_LATENCY_BUCKETS && seconds > bounds[i])
		i++;
	latency->counts[i]++;
	latency->sum += seconds;
}

static void put_latency(struct metrics *m, const char *name, const char *help,
	const struct traffic_latency *latency)
{
	metrics_family(m, name, METRICS_HISTOGRAM, help);
	metrics_histogram(m, name, bounds, latency->counts, TRAFFIC_LATENCY_BUCKETS, latency->sum);
}

void traffic_metrics(const struct traffic *t, struct metrics *m)
{
	metrics_family(m, "ebpfdump_http_requests_total", METRICS_COUNTER,
		"HTTP requests that passed, before the filters: sent (egress) or received "
		"(ingress).");
	for (int d = 0; d < 2; d++)
		metrics_u64(m, "ebpfdump_http_requests_total", t->requests[d], "direction",
			direction_names[d], NULL);
	metrics_family(m, "ebpfdump_http_responses_total", METRICS_COUNTER,
		"HTTP responses that passed, before the filters, by class of status.");
	for (int d = 0; d < 2; d++)
		for (size_t i = 0; i < ARRAY_SIZE(class_names); i++)
			metrics_u64(m, "ebpfdump_http_responses_total", t->responses[d][i],
				"direction", direction_names[d], "class", class_names[i], NULL);
	metrics_family(m, "ebpfdump_http_body_bytes_total", METRICS_COUNTER,
		"Payload of these messages, whole bodies.");
	for (int d = 0; d < 2; d++)
		metrics_u64(m, "ebpfdump_http_body_bytes_total", t->body_bytes[d], "direction",
			direction_names[d], NULL);
	put_latency(m, "ebpfdump_http_server_seconds",
		"Time from a request to its response, as servers on this node answered.",
		&t->latency[DUMP_EGRESS]);
	put_latency(m, "ebpfdump_http_client_seconds",
		"Time from a request to its response, as clients on this node waited.",
		&t->latency[DUMP_INGRESS]);
}
