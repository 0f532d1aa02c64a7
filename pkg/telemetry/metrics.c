/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdarg.h>

#include "pkg/telemetry/telemetry.h"

static void put(struct metrics *m, const char *p, size_t len)
{
	if (m->error == 0)
		m->error = buf_append(m->out, p, len);
}

static void put_str(struct metrics *m, const char *s)
{
	put(m, s, strlen(s));
}

/* As the format wants it, and never anything but UTF-8: a page with one wrong byte is no page. */
static void put_escaped(struct metrics *m, const char *s, bool quoted)
{
	size_t len = strlen(s);

	while (len > 0) {
		size_t n = 0, valid = utf8_valid(s, len);

		while (n < valid && s[n] != '\\' && s[n] != '\n' && !(quoted && s[n] == '"'))
			n++;
		put(m, s, n);
		s += n;
		len -= n;
		if (len == 0)
			break;
		if (n == valid)
			put_str(m, "\xef\xbf\xbd"); /* U+FFFD */
		else
			put_str(m, *s == '\n' ? "\\n" : *s == '"' ? "\\\"" : "\\\\");
		s++;
		len--;
	}
}

void metrics_family(struct metrics *m, const char *name, enum metrics_type type, const char *help)
{
	put_str(m, "# HELP ");
	put_str(m, name);
	put_str(m, " ");
	put_escaped(m, help, false);
	put_str(m, "\n# TYPE ");
	put_str(m, name);
	put_str(m, type == METRICS_COUNTER ? " counter\n"
		   : type == METRICS_GAUGE ? " gauge\n"
					   : " histogram\n");
}

static void put_sample(struct metrics *m, const char *name, const char *value, va_list labels)
{
	const char *label, *separator = "{";

	put_str(m, name);
	while ((label = va_arg(labels, const char *))) {
		put_str(m, separator);
		put_str(m, label);
		put_str(m, "=\"");
		put_escaped(m, va_arg(labels, const char *), true);
		put_str(m, "\"");
		separator = ",";
	}
	if (separator[0] == ',')
		put_str(m, "}");
	put_str(m, " ");
	put_str(m, value);
	put_str(m, "\n");
}

void metrics_u64(struct metrics *m, const char *name, uint64_t value, ...)
{
	char text[24];
	va_list labels;

	text[num_format(text, value)] = '\0';
	va_start(labels, value);
	put_sample(m, name, text, labels);
	va_end(labels);
}

void metrics_f64(struct metrics *m, const char *name, double value, ...)
{
	char text[32];
	va_list labels;

	if (isnan(value))
		snprintf(text, sizeof(text), "NaN");
	else if (isinf(value))
		snprintf(text, sizeof(text), value > 0 ? "+Inf" : "-Inf");
	else
		snprintf(text, sizeof(text), "%.15g", value);
	va_start(labels, value);
	put_sample(m, name, text, labels);
	va_end(labels);
}

void metrics_histogram(struct metrics *m, const char *name, const double *bounds,
	const uint64_t *counts, size_t n, double sum)
{
	char sample[128], bound[32];
	uint64_t total = 0;

	snprintf(sample, sizeof(sample), "%s_bucket", name);
	for (size_t i = 0; i <= n; i++) {
		total += counts[i];
		if (i < n)
			snprintf(bound, sizeof(bound), "%.15g", bounds[i]);
		else
			snprintf(bound, sizeof(bound), "+Inf");
		metrics_u64(m, sample, total, "le", bound, NULL);
	}
	snprintf(sample, sizeof(sample), "%s_sum", name);
	metrics_f64(m, sample, sum, NULL);
	snprintf(sample, sizeof(sample), "%s_count", name);
	metrics_u64(m, sample, total, NULL);
}

int metrics_table(struct buf *page, FILE *out)
{
	const char *p, *end;
	int r;

	fputs("| metric | type | what |\n| --- | --- | --- |\n", out);
	r = buf_append(page, "", 1); /* for sscanf() */
	if (r < 0)
		return r;
	end = page->data + page->len - 1;
	for (p = page->data; p < end; p += strcspn(p, "\n") + 1) {
		char name[128], help[512], type[32];

		if (sscanf(p, "# HELP %127s %511[^\n]\n# TYPE %*s %31s", name, help, type) == 3)
			fprintf(out, "| `%s` | %s | %s |\n", name, type, help);
	}
	return 0;
}
