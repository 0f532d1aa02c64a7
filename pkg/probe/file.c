/* SPDX-License-Identifier: Apache-2.0 */
/* Files of capture records: --record writes them, --replay reads them. docs/REFERENCE.md describes
 * the format. */
#include "pkg/probe/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

static const char magic[8] = "EBPFDUMP";

struct file_header {
	char magic[8];
	uint32_t version;     /* CAPTURE_VERSION */
	uint32_t record_size; /* of the record header */
	uint64_t byte_order;  /* BYTE_ORDER_MARK, as the writer stores it */
};

#define BYTE_ORDER_MARK 0x0102030405060708ULL
#define WRITE_BUFFER	(1U << 20)
/* A clock record is due when the wall clock moved by so much against the monotonic one. */
#define CLOCK_STEP_NS 1000000

/* Records begin at multiples of 8. */
static size_t padding(size_t captured)
{
	return -captured & 7;
}

/* ---- writing ---- */

struct capture_writer {
	FILE *f;
	char *buffer;
	char *path;
	bool clock_known;
	int64_t wall_offset_ns;
};

static void writer_free(struct capture_writer **w)
{
	if (!*w)
		return;
	if ((*w)->f && (*w)->f != stdout)
		fclose((*w)->f);
	free((*w)->buffer);
	free((*w)->path);
	free(*w);
}

static int put(struct capture_writer *w, const void *p, size_t len, struct err *err)
{
	if (fwrite(p, 1, len, w->f) != len)
		return err_set(err, errno, "%s: %s", w->path, strerror(errno));
	return 0;
}

int capture_writer_open(const char *path, struct capture_writer **ret_writer, struct err *err)
{
	struct file_header header = {
		.version = CAPTURE_VERSION,
		.record_size = sizeof(struct capture_record),
		.byte_order = BYTE_ORDER_MARK,
	};
	CLEANUP(writer_free)
	struct capture_writer *w = calloc(1, sizeof(*w));
	bool std = strcmp(path, "-") == 0;
	CLEANUP(closep)
	int fd = -1;
	int r;

	if (!w)
		return err_set(err, ENOMEM, "out of memory");
	w->path = strdup(std ? "standard output" : path);
	w->buffer = malloc(WRITE_BUFFER);
	if (!w->path || !w->buffer)
		return err_set(err, ENOMEM, "out of memory");
	/* the records are the traffic, with all its secrets: for the owner alone */
	fd = std ? -1 : open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	w->f = std ? stdout : fd < 0 ? NULL : fdopen(fd, "w");
	if (!w->f)
		return err_set(err, errno, "%s: %s", path, strerror(errno));
	if (!std)
		(void)TAKE_FD(fd);
	setvbuf(w->f, w->buffer, _IOFBF, WRITE_BUFFER);
	memcpy(header.magic, magic, sizeof(magic));
	r = put(w, &header, sizeof(header), err);
	if (r)
		return r;
	*ret_writer = TAKE(w);
	return 0;
}

static int put_record(struct capture_writer *w, const struct capture_record *record,
	const char *data, struct err *err)
{
	static const char zeros[8];
	int r = put(w, record, sizeof(*record), err);

	if (!r && record->captured)
		r = put(w, data, record->captured, err);
	if (!r && padding(record->captured))
		r = put(w, zeros, padding(record->captured), err);
	return r;
}

int capture_writer_add(struct capture_writer *w, const struct capture_record *record,
	const char *data, int64_t wall_offset_ns, struct err *err)
{
	int64_t moved = wall_offset_ns - w->wall_offset_ns;

	if (!w->clock_known || moved > CLOCK_STEP_NS || moved < -CLOCK_STEP_NS) {
		struct capture_record clock = {
			.version = CAPTURE_VERSION,
			.type = CAPTURE_CLOCK,
			.size = sizeof(clock),
			.time_ns = record->time_ns,
			.connection = record->time_ns + (uint64_t)wall_offset_ns,
		};
		int r = put_record(w, &clock, NULL, err);

		if (r)
			return r;
		w->clock_known = true;
		w->wall_offset_ns = wall_offset_ns;
	}
	return put_record(w, record, data, err);
}

int capture_writer_flush(struct capture_writer *w, struct err *err)
{
	return fflush(w->f) ? err_set(err, errno, "%s: %s", w->path, strerror(errno)) : 0;
}

int capture_writer_close(struct capture_writer *w, struct err *err)
{
	int r = 0;

	if (!w)
		return 0;
	if (fflush(w->f))
		r = err_set(err, errno, "%s: %s", w->path, strerror(errno));
	/* the buffer goes away before stdout does */
	if (w->f == stdout)
		setvbuf(w->f, NULL, _IONBF, 0);
	writer_free(&w);
	return r;
}

/* ---- reading ---- */

struct capture_reader {
	FILE *f; /* NULL: memory */
	const char *memory;
	size_t len;
	uint64_t at; /* offset of the next byte */
	char *path;
	int64_t wall_offset_ns;
	struct capture_record record;
	char data[CAPTURE_DATA_MAX + 8];
};

/* Reads exactly len bytes. 0: the end, before the first of them; -EBADMSG: the end in their midst.
 */
static int get(struct capture_reader *r, void *to, size_t len, struct err *err)
{
	size_t n;

	if (r->f) {
		n = fread(to, 1, len, r->f);
		if (n < len && ferror(r->f))
			return err_set(err, EIO, "%s: offset %" PRIu64 ": it cannot be read: %s",
				r->path, r->at, strerror(errno));
	} else {
		n = MIN(len, r->len - (size_t)r->at);
		memcpy(to, r->memory + r->at, n);
	}
	r->at += n;
	if (n == len)
		return 1;
	if (n == 0)
		return 0;
	return err_set(err, EBADMSG, "%s: offset %" PRIu64 ": the file ends inside a record",
		r->path, r->at);
}

static int open_reader(struct capture_reader *r, struct err *err)
{
	struct file_header h = {0};
	int n = get(r, &h, sizeof(h), err);

	if (n <= 0 || memcmp(h.magic, magic, sizeof(magic)) != 0)
		return err_set(err, EBADMSG,
			"%s: offset 0: this is no file of capture records (it does not begin with EBPFDUMP)",
			r->path);
	if (h.byte_order != BYTE_ORDER_MARK)
		return err_set(err, EBADMSG,
			"%s: offset 16: it was written on a machine of the other byte order",
			r->path);
	if (h.version != CAPTURE_VERSION || h.record_size != sizeof(struct capture_record))
		return err_set(err, EBADMSG,
			"%s: offset 8: version %" PRIu32 " with records of %" PRIu32
			" bytes; this program reads version %d with %zu",
			r->path, h.version, h.record_size, CAPTURE_VERSION,
			sizeof(struct capture_record));
	return 0;
}

static struct capture_reader *new_reader(const char *path)
{
	struct capture_reader *r = calloc(1, sizeof(*r));

	if (r)
		r->path = strdup(path);
	if (r && !r->path) {
		free(r);
		r = NULL;
	}
	return r;
}

int capture_reader_open(const char *path, struct capture_reader **ret_reader, struct err *err)
{
	bool std = strcmp(path, "-") == 0;
	CLEANUP(capture_reader_closep)
	struct capture_reader *r = new_reader(std ? "standard input" : path);
	int n;

	if (!r)
		return err_set(err, ENOMEM, "out of memory");
	r->f = std ? stdin : fopen(path, "re");
	if (!r->f)
		return err_set(err, errno, "%s: %s", path, strerror(errno));
	n = open_reader(r, err);
	if (n)
		return n;
	*ret_reader = TAKE(r);
	return 0;
}

int capture_reader_open_memory(
	const void *p, size_t len, struct capture_reader **ret_reader, struct err *err)
{
	CLEANUP(capture_reader_closep)
	struct capture_reader *r = new_reader("memory");
	int n;

	if (!r)
		return err_set(err, ENOMEM, "out of memory");
	r->memory = p;
	r->len = len;
	n = open_reader(r, err);
	if (n)
		return n;
	*ret_reader = TAKE(r);
	return 0;
}

static const char *fault_of(const struct capture_record *rec)
{
	if (rec->version != CAPTURE_VERSION)
		return "unknown version of the record";
	if (rec->type < CAPTURE_DATA || rec->type > CAPTURE_CLOCK)
		return "unknown type of record";
	if (rec->direction > CAPTURE_BOTH)
		return "unknown direction";
	if (rec->captured > CAPTURE_DATA_MAX)
		return "more bytes than a record can hold";
	if (rec->size != sizeof(*rec) + rec->captured)
		return "the size contradicts the number of bytes";
	if (rec->length < rec->captured)
		return "more bytes captured than there were";
	return NULL;
}

int capture_reader_next(struct capture_reader *r, const struct capture_record **ret_record,
	const char **ret_data, int64_t *ret_wall_offset_ns, struct err *err)
{
	for (;;) {
		uint64_t offset = r->at;
		const char *fault, *data;
		size_t size;
		int n = get(r, &r->record, sizeof(r->record), err);

		if (n <= 0)
			return n;
		fault = fault_of(&r->record);
		if (fault)
			return err_set(
				err, EBADMSG, "%s: offset %" PRIu64 ": %s", r->path, offset, fault);
		size = r->record.captured + padding(r->record.captured);
		data = r->memory ? r->memory + r->at : r->data;
		if (r->memory && size <= r->len - (size_t)r->at)
			r->at += size;
		else if (size && (n = get(r, r->data, size, err)) <= 0)
			return n ? n
				 : err_set(err, EBADMSG,
					   "%s: offset %" PRIu64 ": the file ends inside a record",
					   r->path, r->at);
		if (r->record.type != CAPTURE_CLOCK) {
			*ret_record = &r->record;
			*ret_data = data;
			*ret_wall_offset_ns = r->wall_offset_ns;
			return 1;
		}
		r->wall_offset_ns = (int64_t)(r->record.connection - r->record.time_ns);
	}
}

void capture_reader_close(struct capture_reader *r)
{
	if (!r)
		return;
	if (r->f && r->f != stdin)
		fclose(r->f);
	free(r->path);
	free(r);
}

void capture_reader_closep(struct capture_reader **r)
{
	capture_reader_close(*r);
}
