/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

#include "pkg/base/base.h"

/* A pipe takes so many bytes whole, and without blocking once poll() says it is writable. */
#define LINE_MAX_BYTES 4096
#define TAIL_ROOM      8 /* `..."}` and the newline */
/* How long a line waits for a reader of standard error; none waits again until one came through. */
#define WAIT_MS 100

static struct {
	enum log_level level;
	enum log_format format;
	char component[64];
	char node[256];
} config = {.level = LOG_INFO, .format = LOG_TEXT, .component = "ebpfdump"};

static atomic_ullong lost;

struct line {
	char text[LINE_MAX_BYTES];
	size_t len;
	bool cut;
};

void log_setup(
	enum log_level level, enum log_format format, const char *component, const char *node)
{
	config.level = level;
	config.format = format;
	snprintf(config.component, sizeof(config.component), "%s", component);
	snprintf(config.node, sizeof(config.node), "%s", node);
}

bool log_enabled(enum log_level level)
{
	return level <= config.level;
}

/* All or nothing, and nothing more once something was left out. */
static void put(struct line *line, const char *p, size_t len)
{
	line->cut = line->cut || len > sizeof(line->text) - TAIL_ROOM - line->len;
	if (line->cut)
		return;
	memcpy(line->text + line->len, p, len);
	line->len += len;
}

static void put_str(struct line *line, const char *s)
{
	put(line, s, strlen(s));
}

/* Text that may hold any bytes: nothing of it reaches a terminal or a JSON parser as control. */
static void put_escaped(struct line *line, const char *s)
{
	size_t len = strlen(s), i = 0;
	char esc[8];

	while (i < len && !line->cut) {
		unsigned char c = (unsigned char)s[i];
		size_t n = 1;

		if (c >= 0x80)
			n = utf8_valid(s + i, MIN(len - i, 4));
		if (config.format == LOG_JSON && (c == '"' || c == '\\')) {
			put(line, (char[]){'\\', (char)c}, 2);
		} else if (c < 0x20 || c == 0x7f || n == 0) {
			snprintf(esc, sizeof(esc),
				config.format == LOG_JSON ? "\\u%04x" : "\\x%02x", c);
			put_str(line, esc);
			n = 1;
		} else if (c == 0xc2 && (unsigned char)s[i + 1] < 0xa0) {
			/* U+0080..U+009F: terminals take them for control, too */
			snprintf(esc, sizeof(esc), "\\u%04x", (unsigned char)s[i + 1]);
			put_str(line, esc);
			n = 2;
		} else {
			/* utf8_valid() may have passed several sequences: take the first */
			n = c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
			put(line, s + i, n);
		}
		i += n;
	}
}

static void put_time(struct line *line)
{
	uint64_t now = clock_wall_ns();
	time_t seconds = (time_t)(now / 1000000000);
	char date[32], text[48];
	struct tm tm;

	gmtime_r(&seconds, &tm);
	strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(text, sizeof(text), "%s.%03uZ", date, (unsigned int)(now / 1000000 % 1000));
	put_str(line, text);
}

static void format_text(struct line *line, enum log_level level, const char *message)
{
	static const char *const names[] = {"ERROR", "WARN", "INFO", "DEBUG"};

	put_time(line);
	put_str(line, " ");
	put_str(line, names[level]);
	put_str(line, " ");
	put_escaped(line, config.component);
	if (config.node[0]) {
		put_str(line, "@");
		put_escaped(line, config.node);
	}
	put_str(line, ": ");
	put_escaped(line, message);
}

static void format_json(struct line *line, enum log_level level, const char *message)
{
	static const char *const names[] = {"error", "warn", "info", "debug"};

	put_str(line, "{\"time\":\"");
	put_time(line);
	put_str(line, "\",\"level\":\"");
	put_str(line, names[level]);
	put_str(line, "\",\"component\":\"");
	put_escaped(line, config.component);
	if (config.node[0]) {
		put_str(line, "\",\"node\":\"");
		put_escaped(line, config.node);
	}
	put_str(line, "\",\"msg\":\"");
	put_escaped(line, message);
}

static void finish(struct line *line)
{
	const char *tail = config.format == LOG_JSON ? "\"}\n" : "\n";
	size_t len = strlen(tail);

	if (line->cut) {
		memcpy(line->text + line->len, "...", 3);
		line->len += 3;
	}
	memcpy(line->text + line->len, tail, len);
	line->len += len;
}

static void format_line(struct line *line, enum log_level level, const char *message)
{
	line->len = 0;
	line->cut = false;
	if (config.format == LOG_JSON)
		format_json(line, level, message);
	else
		format_text(line, level, message);
	finish(line);
}

static bool send_line(const struct line *line)
{
	struct pollfd pfd = {.fd = STDERR_FILENO, .events = POLLOUT};
	size_t done = 0;
	ssize_t n;

	while (done < line->len) {
		if (poll(&pfd, 1, atomic_load(&lost) > 0 ? 0 : WAIT_MS) == 0)
			return false;
		n = write(STDERR_FILENO, line->text + done, line->len - done);
		if (n < 0 && errno != EINTR && errno != EAGAIN)
			return false;
		if (n > 0)
			done += (size_t)n;
	}
	return true;
}

void log_write(enum log_level level, const char *fmt, ...)
{
	unsigned long long before;
	char message[LINE_MAX_BYTES];
	int saved = errno;
	struct line line;
	va_list ap;

	if (!log_enabled(level))
		return;
	va_start(ap, fmt);
	vsnprintf(message, sizeof(message), fmt, ap);
	va_end(ap);

	format_line(&line, level, message);
	if (!send_line(&line)) {
		atomic_fetch_add(&lost, 1);
	} else if (atomic_load(&lost) > 0) {
		before = atomic_exchange(&lost, 0);
		snprintf(message, sizeof(message),
			"%llu lines of log lost: nobody read standard error", before);
		format_line(&line, LOG_WARN, message);
		if (!send_line(&line))
			atomic_fetch_add(&lost, before);
	}
	errno = saved;
}
