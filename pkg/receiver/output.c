/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Standard output is pkg/sink's. Files are written here, at once: what was acknowledged is in the
 * kernel's hands, and survives the end of this process.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pkg/receiver/internal.h"
#include "pkg/sink/sink.h"

#define NAME_PREFIX "messages-"
#define NAME_SUFFIX ".ndjson"
#define NUMBER_MAX  UINT64_C(99999999)
#define FILE_MODE   0640 /* what is captured is not everybody's */

#define ERROR_HOLDS_NS UINT64_C(30000000000)

struct output {
	/* standard output */
	struct sink *sink;
	size_t buffer_bytes;
	atomic_bool closed;
	/* files */
	int dir_fd, fd;
	uint64_t file_bytes, files;
	uint64_t first, number; /* of the oldest file, of the one being written; 0: none */
	uint64_t size;		/* of the one being written */
	/* of both */
	_Atomic uint64_t bytes, rotated, removed, refused;
	atomic_int error;
	_Atomic uint64_t error_ns; /* when it was met last */
};

struct name {
	char s[48];
};

static struct name file_name(uint64_t number)
{
	struct name name;

	snprintf(name.s, sizeof(name.s), NAME_PREFIX "%08llu" NAME_SUFFIX,
		(unsigned long long)number);
	return name;
}

/* 0: not one of ours. */
static uint64_t file_number(const char *name)
{
	size_t len = strlen(name), prefix = strlen(NAME_PREFIX), suffix = strlen(NAME_SUFFIX);
	uint64_t number = 0;

	if (len != prefix + 8 + suffix || strncmp(name, NAME_PREFIX, prefix) != 0 ||
		strcmp(name + len - suffix, NAME_SUFFIX) != 0 ||
		num_parse(span_of(name + prefix, 8), 1, NUMBER_MAX, &number) < 0)
		return 0;
	return number;
}

/* ---- files ---- */

static int find_files(struct output *o)
{
	int fd = openat(o->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	int code = errno;

	if (!dir) {
		closep(&fd);
		return -code;
	}
	for (struct dirent *e; (e = readdir(dir));) {
		uint64_t number = file_number(e->d_name);

		if (number == 0)
			continue;
		o->first = o->first == 0 ? number : MIN(o->first, number);
		o->number = MAX(o->number, number);
	}
	closedir(dir);
	return 0;
}

/* There may be holes: somebody took a file away. */
static void remove_oldest(struct output *o)
{
	while (o->number - o->first + 1 > o->files) {
		if (unlinkat(o->dir_fd, file_name(o->first).s, 0) == 0)
			atomic_fetch_add(&o->removed, 1);
		o->first++;
	}
}

static int next_file(struct output *o)
{
	int fd;

	if (o->number == NUMBER_MAX)
		return -EOVERFLOW;
	fd = openat(o->dir_fd, file_name(o->number + 1).s,
		O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, FILE_MODE);
	if (fd < 0)
		return -errno;
	if (o->fd >= 0)
		atomic_fetch_add(&o->rotated, 1);
	closep(&o->fd);
	o->fd = fd;
	o->number++;
	o->size = 0;
	if (o->first == 0)
		o->first = o->number;
	remove_oldest(o);
	return 0;
}

/* The newest file goes on, if it ends with a whole line. */
static int continue_file(struct output *o)
{
	struct stat st;
	char last;
	int fd;

	if (o->number == 0)
		return next_file(o);
	fd = openat(o->dir_fd, file_name(o->number).s, O_RDWR | O_APPEND | O_CLOEXEC | O_NOFOLLOW);
	if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
		(st.st_size == 0 || (pread(fd, &last, 1, st.st_size - 1) == 1 && last == '\n'))) {
		o->fd = fd;
		o->size = (uint64_t)st.st_size;
		remove_oldest(o);
		return 0;
	}
	closep(&fd);
	return next_file(o);
}

static int open_dir(struct output *o, const char *dir, struct err *err)
{
	int r;

	o->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (o->dir_fd < 0)
		return err_set(err, errno, "--dir: %s: %s", dir, strerror(errno));
	if (flock(o->dir_fd, LOCK_EX | LOCK_NB) < 0)
		return err_set(err, EBUSY, "--dir: %s: another receiver writes there", dir);
	r = find_files(o);
	if (r == 0)
		r = continue_file(o);
	return r < 0 ? err_set(err, -r, "--dir: %s: %s", dir, strerror(-r)) : 0;
}

static int write_all(struct output *o, const char *p, size_t len)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = write(o->fd, p + done, len - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			int code = n < 0 ? errno : EIO;

			/* nobody reads half a POST; if even that fails, a line is torn */
			(void)!ftruncate(o->fd, (off_t)o->size);
			return -code;
		}
		done += (size_t)n;
	}
	o->size += len;
	return 0;
}

static int write_file(struct output *o, const char *p, size_t len)
{
	struct stat st;
	int r = 0;

	if ((o->size > 0 && o->size + len > o->file_bytes) ||
		(fstat(o->fd, &st) == 0 && st.st_nlink == 0))
		r = next_file(o);
	return r < 0 ? r : write_all(o, p, len);
}

/* ---- standard output ---- */

static int write_sink(struct output *o, const char *p, size_t len)
{
	const char *end = p + len;
	struct sink_stats stats;

	if (atomic_load(&o->closed))
		return -EPIPE;
	sink_stats(o->sink, &stats);
	/* only the writer takes from it meanwhile, so that there is room for all or more */
	if (len > o->buffer_bytes - stats.queued_bytes)
		return -ENOBUFS;
	while (p < end) {
		const char *next = (const char *)memchr(p, '\n', (size_t)(end - p)) + 1;

		if (sink_write(o->sink, p, (size_t)(next - p)) == -EPIPE) {
			atomic_store(&o->closed, true);
			return -EPIPE;
		}
		p = next;
	}
	sink_kick(o->sink);
	return 0;
}

/* ---- both ---- */

int output_new(int fd, const char *dir, uint64_t file_bytes, uint64_t files, uint64_t buffer_bytes,
	struct output **ret_output, struct err *err)
{
	struct output *o = calloc(1, sizeof(*o));
	int r;

	if (!o)
		return err_set(err, ENOMEM, "output: out of memory");
	o->dir_fd = o->fd = -1;
	o->buffer_bytes = buffer_bytes;
	o->file_bytes = file_bytes;
	o->files = files;
	r = dir ? open_dir(o, dir, err) : sink_new(fd, buffer_bytes, &o->sink, err);
	if (r < 0) {
		output_free(o);
		return r;
	}
	*ret_output = o;
	return 0;
}

static void note_error(struct output *o, int error)
{
	atomic_store(&o->error_ns, clock_mono_ns());
	atomic_store(&o->error, error);
}

/* As of now: what nobody has met for a while may have passed, and only a POST can tell. Without
 * this, a receiver that gets no POSTs for being unhealthy would stay so. */
static int recent_error(struct output *o)
{
	bool recent = clock_mono_ns() - atomic_load(&o->error_ns) < ERROR_HOLDS_NS;

	return recent ? atomic_load(&o->error) : 0;
}

int output_write(struct output *o, const char *lines, size_t len)
{
	int r = o->sink ? write_sink(o, lines, len) : write_file(o, lines, len);

	if (r < 0) {
		atomic_fetch_add(&o->refused, 1);
		if (r != -ENOBUFS)
			note_error(o, -r);
		return r;
	}
	atomic_store(&o->error, 0);
	atomic_fetch_add(&o->bytes, len);
	return 0;
}

uint64_t output_flush(struct output *o, uint64_t timeout_ms)
{
	return o->sink ? sink_flush(o->sink, timeout_ms) : 0;
}

void output_free(struct output *o)
{
	if (!o)
		return;
	sink_free(o->sink);
	closep(&o->fd);
	closep(&o->dir_fd);
	free(o);
}

void output_stats(struct output *o, struct output_stats *ret_stats)
{
	struct sink_stats sink = {0};

	if (o->sink)
		sink_stats(o->sink, &sink);
	*ret_stats = (struct output_stats){
		.bytes = atomic_load(&o->bytes),
		.queued = sink.queued,
		.queued_bytes = sink.queued_bytes,
		.lost = sink.dropped[SINK_DROP_CLOSED] + sink.dropped[SINK_DROP_SHUTDOWN],
		.rotated = atomic_load(&o->rotated),
		.removed = atomic_load(&o->removed),
		.refused = atomic_load(&o->refused),
		.error = sink.error ? sink.error : recent_error(o),
	};
}

bool output_is_closed(struct output *o)
{
	struct sink_stats stats = {0};

	if (o->sink)
		sink_stats(o->sink, &stats);
	return atomic_load(&o->closed) || stats.dropped[SINK_DROP_CLOSED] > 0;
}
