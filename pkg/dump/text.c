/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The line for people:
 *
 *     12:34:56.789 ↑ 10.0.0.1:50000 → 10.0.0.2:80        GET  example.org/path  curl[4242]
 *     12:34:56.792 ↓ 10.0.0.1:50000 ← 10.0.0.2:80    200 GET  example.org/path  1.2 kB  3.4 ms ...
 *
 * and at the end, where there is one, the pod: shop/web-5f7/nginx.
 *
 * Sent or received by this machine, then always client and server, with the arrow the way the
 * message went. What does not fit its column pushes the rest to the right.
 */
#include <time.h>

#include "pkg/dump/dump.h"

#define PEERS_COLUMNS  36
#define METHOD_COLUMNS 4
/* Columns after which a text is cut. */
#define METHOD_MAX    24
#define HOST_MAX      80
#define TARGET_MAX    120
#define ERROR_MAX     120
#define NAMESPACE_MAX 40
#define POD_MAX	      80
#define CONTAINER_MAX 40
/* Everything at its longest: about 560 columns of up to 6 bytes. */
#define LINE_MAX_BYTES 4096

#define RED    "31"
#define GREEN  "32"
#define YELLOW "33"
#define CYAN   "36"
#define BOLD   "1"
#define DIM    "2"

struct line {
	const struct dump_redaction *redaction; /* NULL: hosts are shown */
	bool colour;
	size_t columns;
	size_t len;
	char text[LINE_MAX_BYTES];
};

static void put(struct line *l, const char *p, size_t len)
{
	len = MIN(len, sizeof(l->text) - l->len);
	memcpy(l->text + l->len, p, len);
	l->len += len;
}

/* ASCII of our own. */
static void put_str(struct line *l, const char *s)
{
	size_t len = strlen(s);

	put(l, s, len);
	l->columns += len;
}

static void put_number(struct line *l, uint64_t value)
{
	char digits[20];
	size_t n = num_format(digits, value);

	put(l, digits, n);
	l->columns += n;
}

/* One column that is not ASCII. */
static void put_sign(struct line *l, const char *utf8)
{
	put(l, utf8, strlen(utf8));
	l->columns++;
}

static void put_spaces_to(struct line *l, size_t column)
{
	while (l->columns < column)
		put_str(l, " ");
}

static void colour(struct line *l, const char *code)
{
	if (!l->colour)
		return;
	put(l, "\033[", 2);
	put(l, code, strlen(code));
	put(l, "m", 1);
}

static void plain(struct line *l)
{
	colour(l, "0");
}

/* ---- text from the wire ---- */

/*
 * Characters that a terminal does not show as such: controls, line and paragraph separators, and
 * those that turn the direction of writing (they make a line look like another one).
 */
static bool hidden(uint32_t c)
{
	return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0xad || c == 0x61c ||
	       (c >= 0x200b && c <= 0x200f) || (c >= 0x2028 && c <= 0x202e) ||
	       (c >= 0x2060 && c <= 0x206f) || c == 0xfeff || (c >= 0xfff9 && c <= 0xfffb) ||
	       (c >= 0xe0000 && c <= 0xe007f);
}

/* The character at p of valid UTF-8. */
static uint32_t character(const char *p, size_t *ret_len)
{
	static const unsigned char mask[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
	unsigned char first = (unsigned char)*p;
	size_t len = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
	uint32_t c = first & mask[len];

	for (size_t i = 1; i < len; i++)
		c = c << 6 | ((unsigned char)p[i] & 0x3f);
	*ret_len = len;
	return c;
}

/* Hidden characters as \xNN or \u{N}; bytes that are not UTF-8 as Latin-1; cut at max columns. */
static void put_wire(struct line *l, struct span s, size_t max)
{
	/* No more can matter: a character has at most four bytes. */
	struct span seen = span_of(s.p, MIN(s.len, 4 * max + 4));
	size_t valid = utf8_valid(seen.p, seen.len);
	bool utf8 = valid == seen.len ||
		    (seen.len < s.len && utf8_incomplete(seen.p + valid, seen.len - valid));
	size_t limit = l->columns + max, len;

	if (utf8)
		seen.len = valid;
	for (size_t i = 0; i < seen.len; i += len) {
		uint32_t c = (unsigned char)seen.p[i];
		char code[16], *p = code;

		len = 1;
		if (utf8)
			c = character(seen.p + i, &len);
		if (l->columns >= limit) {
			put_sign(l, "…");
			return;
		}
		if (hidden(c)) {
			(void)snprintf(code, sizeof(code), c < 0x100 ? "\\x%02x" : "\\u{%x}", c);
			put_str(l, code);
		} else if (c < 0x80 || utf8) {
			put(l, seen.p + i, len);
			l->columns++;
		} else {
			*p++ = (char)(0xc0 | c >> 6);
			*p++ = (char)(0x80 | (c & 0x3f));
			put(l, code, 2);
			l->columns++;
		}
	}
}

/* ---- parts ---- */

static void put_time(struct line *l, uint64_t time_ns)
{
	time_t seconds = (time_t)(time_ns / 1000000000);
	char text[32] = "";
	struct tm tm;

	if (localtime_r(&seconds, &tm))
		(void)snprintf(text, sizeof(text), "%02d:%02d:%02d.%03u", tm.tm_hour % 100,
			tm.tm_min % 100, tm.tm_sec % 100, (unsigned)(time_ns / 1000000 % 1000));
	colour(l, DIM);
	put_str(l, text);
	plain(l);
}

static void put_peer(struct line *l, const struct dump_peer *peer)
{
	bool v6 = memchr(peer->ip, ':', sizeof(peer->ip)) != NULL;

	put_str(l, v6 ? "[" : "");
	put_wire(l, span_of(peer->ip, MIN(peer->ip_len, sizeof(peer->ip) - 1)), sizeof(peer->ip));
	put_str(l, v6 ? "]:" : ":");
	put_number(l, peer->port);
}

static void put_peers(struct line *l, const struct dump_message *m)
{
	bool request = m->head->kind == HTTP_REQUEST;
	bool local = (m->direction == DUMP_EGRESS) == request;
	size_t begin;

	put_sign(l, m->direction == DUMP_EGRESS ? "↑" : "↓");
	put_str(l, " ");
	begin = l->columns;
	put_peer(l, local ? &m->conn->local : &m->conn->remote);
	put_str(l, " ");
	put_sign(l, request ? "→" : "←");
	put_str(l, " ");
	put_peer(l, local ? &m->conn->remote : &m->conn->local);
	put_spaces_to(l, begin + PEERS_COLUMNS);
}

static void put_status(struct line *l, uint16_t status)
{
	static const char *const colours[] = {RED, CYAN, GREEN, CYAN, YELLOW, RED};
	char text[8];

	(void)snprintf(text, sizeof(text), "%3u", (unsigned)status);
	colour(l, status / 100 < ARRAY_SIZE(colours) ? colours[status / 100] : RED);
	put_str(l, text);
	plain(l);
}

static void put_method(struct line *l, struct span method)
{
	size_t begin = l->columns;

	colour(l, BOLD);
	put_wire(l, method, METHOD_MAX);
	plain(l);
	put_spaces_to(l, begin + METHOD_COLUMNS);
	put_str(l, " ");
}

static void put_target(struct line *l, struct span host, struct span target)
{
	bool asterisk = span_eq(target, SPAN("*"));
	char redacted[DUMP_REDACTED_LEN];

	if (l->redaction && host.len > 0) {
		dump_redact(l->redaction, host, redacted);
		host = span_of(redacted, sizeof(redacted));
	}
	/* An absolute target and that of CONNECT name the host themselves. */
	if (target.len == 0 || target.p[0] == '/' || asterisk)
		put_wire(l, host, HOST_MAX);
	if (asterisk && host.len > 0)
		put_str(l, " ");
	put_wire(l, target, TARGET_MAX);
}

static void put_tenths(struct line *l, uint64_t tenths, const char *unit)
{
	put_number(l, tenths / 10);
	put_str(l, ".");
	put_number(l, tenths % 10);
	put_str(l, unit);
}

static void put_size(struct line *l, uint64_t bytes)
{
	static const char *const units[] = {" kB", " MB", " GB", " TB", " PB", " EB"};
	size_t unit = 0;

	if (bytes < 1000) {
		put_number(l, bytes);
		put_str(l, " B");
		return;
	}
	/* What would be rounded to 1000.0 of a unit is 1.0 of the next. */
	for (; bytes >= 999950; bytes /= 1000)
		unit++;
	put_tenths(l, (bytes + 50) / 100, units[unit]);
}

static void put_latency(struct line *l, uint64_t us)
{
	if (us >= 999950) {
		put_tenths(l, (us / 1000 + 50) / 100, " s");
	} else if (us >= 1000) {
		put_tenths(l, (us + 50) / 100, " ms");
	} else {
		put_number(l, us);
		put_str(l, " ");
		put_sign(l, "µ");
		put_str(l, "s");
	}
}

static struct span request_host(const struct dump_message *m)
{
	int16_t i = m->head->known[HTTP_HOST];

	if (i < 0 || (uint32_t)i >= m->head->n_fields)
		return span_of(NULL, 0);
	return span_of(m->bytes + m->head->fields[i].value.off, m->head->fields[i].value.len);
}

static void put_request(struct line *l, const struct dump_message *m)
{
	const struct http_head *head = m->head;

	put_str(l, "    ");
	put_method(l, span_of(m->bytes + head->method.off, head->method.len));
	put_target(l, request_host(m), span_of(m->bytes + head->target.off, head->target.len));
	if (m->body_bytes > 0) {
		put_str(l, "  ");
		put_size(l, m->body_bytes);
	}
}

static void put_response(struct line *l, const struct dump_message *m)
{
	put_status(l, m->head->status);
	put_str(l, " ");
	if (m->request_method.len > 0) {
		put_method(l, m->request_method);
		put_target(l, m->request_host, m->request_path);
	} else {
		put_str(l, "(request not seen)");
	}
	put_str(l, "  ");
	put_size(l, m->body_bytes);
	if (m->request_method.len > 0) {
		put_str(l, "  ");
		put_latency(l, m->latency_us);
	}
}

static void put_faults(struct line *l, const struct dump_message *m)
{
	if (!m->error && m->gap_bytes == 0)
		return;
	put_str(l, "  ");
	colour(l, RED);
	if (m->error) {
		put_str(l, "! ");
		put_wire(l, span_str(m->error), ERROR_MAX);
	}
	if (m->gap_bytes > 0) {
		put_str(l, m->error ? " (" : "(");
		put_size(l, m->gap_bytes);
		put_str(l, " not captured)");
	}
	plain(l);
}

static void put_process(struct line *l, const struct dump_conn *conn)
{
	size_t len = strnlen(conn->comm, sizeof(conn->comm));

	if (len == 0 && conn->pid == 0)
		return;
	put_str(l, "  ");
	colour(l, DIM);
	put_wire(l, span_of(conn->comm, len), sizeof(conn->comm));
	if (conn->pid > 0) {
		put_str(l, "[");
		put_number(l, conn->pid);
		put_str(l, "]");
	}
	plain(l);
}

/* "shop/web-5f7/nginx", or a container alone */
static void put_pod(struct line *l, const struct dump_pod *pod)
{
	if (pod->pod.len == 0 && pod->container.len == 0)
		return;
	put_str(l, "  ");
	colour(l, DIM);
	if (pod->pod.len > 0) {
		put_wire(l, pod->namespace, NAMESPACE_MAX);
		put_str(l, "/");
		put_wire(l, pod->pod, POD_MAX);
	}
	if (pod->pod.len > 0 && pod->container.len > 0)
		put_str(l, "/");
	put_wire(l, pod->container, CONTAINER_MAX);
	plain(l);
}

int dump_text(const struct dump_format *format, const struct dump_message *message, struct buf *out)
{
	struct line l;

	l.redaction = format->redaction && format->redaction->host ? format->redaction : NULL;
	l.colour = format->colour;
	l.columns = l.len = 0;
	put_time(&l, message->time_ns);
	put_str(&l, " ");
	put_peers(&l, message);
	put_str(&l, " ");
	if (message->head->kind == HTTP_REQUEST)
		put_request(&l, message);
	else
		put_response(&l, message);
	put_faults(&l, message);
	put_process(&l, message->conn);
	put_pod(&l, &message->pod);
	put(&l, "\n", 1);
	return buf_append(out, l.text, l.len);
}
