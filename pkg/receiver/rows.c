/* SPDX-License-Identifier: Apache-2.0 */
#include "pkg/receiver/internal.h"

/* Of a text in a row; the whole is in the message. */
#define ROW_TEXT_MAX 1024

struct writer {
	struct buf *out;
	int error;
	const char *separator;
};

static void put(struct writer *w, const char *p, size_t len)
{
	if (w->error == 0)
		w->error = buf_append(w->out, p, len);
}

static void put_str(struct writer *w, const char *s)
{
	put(w, s, strlen(s));
}

static void put_key(struct writer *w, const char *key)
{
	put_str(w, w->separator);
	put_str(w, "\"");
	put_str(w, key);
	put_str(w, "\":");
	w->separator = ",";
}

static void put_digits(struct writer *w, uint64_t value)
{
	char digits[20];

	put(w, digits, num_format(digits, value));
}

static void put_number(struct writer *w, const char *key, uint64_t value)
{
	put_key(w, key);
	put_digits(w, value);
}

/* A text of a message, escaped as it is. */
static void put_text(struct writer *w, const char *key, struct span text)
{
	text = scan_cut(text, ROW_TEXT_MAX);
	put_key(w, key);
	put_str(w, "\"");
	put(w, text.p, text.len);
	put_str(w, "\"");
}

static void put_address(struct writer *w, const char *key, struct span ip, uint64_t port)
{
	bool v6 = ip.len > 0 && memchr(ip.p, ':', ip.len);

	if (!ip.p)
		return;
	ip = scan_cut(ip, ROW_TEXT_MAX);
	put_key(w, key);
	put_str(w, v6 ? "\"[" : "\"");
	put(w, ip.p, ip.len);
	put_str(w, v6 ? "]:" : ":");
	put_digits(w, port);
	put_str(w, "\"");
}

/* ---- what an exchange is ---- */

static struct span either(
	const struct exchange *x, enum message_text of_request, enum message_text of_response)
{
	if (x->request)
		return x->request->m.text[of_request];
	return x->response->m.text[of_response];
}

struct span exchange_method(const struct exchange *x)
{
	return either(x, MSG_METHOD, MSG_REQUEST_METHOD);
}

struct span exchange_path(const struct exchange *x)
{
	return either(x, MSG_PATH, MSG_REQUEST_PATH);
}

struct span exchange_host(const struct exchange *x)
{
	return either(x, MSG_HOST, MSG_REQUEST_HOST);
}

uint64_t exchange_status(const struct exchange *x)
{
	return x->response ? x->response->m.number[MSG_STATUS_CODE] : 0;
}

static bool latency_us(const struct exchange *x, uint64_t *ret_us)
{
	uint64_t from, to;

	if (!x->response)
		return false;
	*ret_us = x->response->m.number[MSG_LATENCY_US];
	if (message_has(&x->response->m, MSG_LATENCY_US))
		return true;
	if (!x->request)
		return false;
	/* a sender that does not measure it */
	from = x->request->m.number[MSG_TIMING_MS];
	to = x->response->m.number[MSG_TIMING_MS];
	*ret_us = to > from ? (to - from) * 1000 : 0;
	return true;
}

/* When it began. */
static uint64_t began_ms(const struct exchange *x)
{
	const struct message *m;

	if (x->request)
		return x->request->m.number[MSG_TIMING_MS];
	m = &x->response->m;
	return m->number[MSG_TIMING_MS] -
	       MIN(m->number[MSG_TIMING_MS], m->number[MSG_LATENCY_US] / 1000);
}

/* ---- writing it ---- */

static void put_summary(struct writer *w, const struct exchange *x)
{
	const struct message *request = x->request ? &x->request->m : NULL,
			     *response = x->response ? &x->response->m : NULL,
			     *any = request ? request : response;
	enum message_text ip = request ? MSG_DST_IP : MSG_SRC_IP;
	enum message_number port = request ? MSG_DST_PORT : MSG_SRC_PORT;
	uint64_t us;

	put_number(w, "id", x->id);
	put_number(w, "time_ms", began_ms(x));
	if (any->text[MSG_NODE].len > 0)
		put_text(w, "node", any->text[MSG_NODE]);
	put_text(w, "seen", seen_by_client(any) ? SPAN("client") : SPAN("server"));
	put_address(w, "client", any->text[MSG_REMOTE_IP], any->number[MSG_REMOTE_PORT]);
	put_address(w, "server", any->text[ip], any->number[port]);
	if (any->text[MSG_COMM].len > 0)
		put_text(w, "comm", any->text[MSG_COMM]);
	if (any->text[MSG_POD].len > 0) {
		put_text(w, "namespace", any->text[MSG_NAMESPACE]);
		put_text(w, "pod", any->text[MSG_POD]);
	}
	put_text(w, "method", exchange_method(x));
	put_text(w, "host", exchange_host(x));
	put_text(w, "path", exchange_path(x));
	put_number(w, "status", exchange_status(x));
	if (latency_us(x, &us))
		put_number(w, "latency_us", us);
	if (request && message_has(request, MSG_BODY_BYTES))
		put_number(w, "request_bytes", request->number[MSG_BODY_BYTES]);
	if (response && message_has(response, MSG_BODY_BYTES))
		put_number(w, "response_bytes", response->number[MSG_BODY_BYTES]);
	if ((request && request->text[MSG_ERROR].p) || (response && response->text[MSG_ERROR].p)) {
		put_key(w, "damaged");
		put_str(w, "true");
	}
}

static void put_message(struct writer *w, const char *key, const struct kept *k)
{
	put_key(w, key);
	if (k)
		put(w, k->m.json.p, k->m.json.len);
	else
		put_str(w, "null");
}

int row_write(const struct exchange *x, bool whole, struct buf *out)
{
	struct writer w = {.out = out, .separator = ""};
	size_t before = out->len;

	put_str(&w, "{");
	put_summary(&w, x);
	if (whole) {
		put_message(&w, "request", x->request);
		put_message(&w, "response", x->response);
	}
	put_str(&w, "}");
	if (w.error)
		out->len = before;
	return w.error;
}
