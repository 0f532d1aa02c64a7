/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pkg/sink/cursor.h"
#include "pkg/sink/segment.h"
#include "pkg/sink/spool.h"
#include "pkg/sink/syncer.h"

#define SEGMENT_BYTES_MIN ((uint64_t)64 << 10)
#define SEGMENT_BYTES_MAX ((uint64_t)8 << 20)
/* A last segment of which nothing is left is removed beyond this size, so that a spool that is kept
 * empty does not make and remove a file for each message. */
#define EMPTY_BYTES   ((uint64_t)1 << 20)
#define FIRST_BODIES  ((size_t)64 << 10) /* room in a batch, to begin with */
#define FIRST_RECORDS 64
#define CURSOR	      "cursor"

struct batch {
	struct spool_batch pub;
	struct batch *next, *prev;
	struct segment *segment;
	uint64_t nonce;
	struct cursor_batch at;
	size_t records_cap, data_cap;
};

struct spool {
	char *dir;
	int dir_fd; /* locked */
	int cursor_fd;
	uint64_t max_bytes, segment_bytes;
	struct segment *first, *last; /* oldest first, newest last */
	struct segment *writer;	      /* last, or NULL: the next message begins one */
	uint64_t next_number;
	struct segment_window window;
	struct batch *out_first, *out_last; /* handed out, oldest first */
	struct cursor_batch *again; /* handed out by an earlier life, and not yet by this one */
	size_t again_count, again_next;
	size_t out_count;
	struct cursor cursor;
	struct syncer *syncer;
	bool opened;
	struct spool_stats stats; /* counters; what is now is worked out when asked for */
};

/* ---- the cursor ---- */

static struct segment *unread_segment(const struct spool *s)
{
	struct segment *seg = s->first;

	while (seg && segment_unread(seg) == 0)
		seg = seg->next;
	return seg;
}

static void store_cursor(struct spool *s)
{
	const struct segment *seg = unread_segment(s);
	struct cursor *c = &s->cursor;

	if (!seg)
		seg = s->last;
	c->segment = seg ? seg->number : s->next_number - 1;
	c->at = seg ? seg->read_at : UINT64_MAX;
	c->index = seg ? seg->read_index : UINT32_MAX;
	c->count = 0;
	for (size_t i = s->again_next; i < s->again_count; i++)
		c->batches[c->count++] = s->again[i];
	for (const struct batch *b = s->out_first; b; b = b->next)
		c->batches[c->count++] = b->at;
	if (cursor_store(s->cursor_fd, c) < 0)
		s->stats.cursor_errors++;
}

/* ---- the list of segments ---- */

static void list_append(struct spool *s, struct segment *seg)
{
	if (s->last)
		s->last->next = seg;
	else
		s->first = seg;
	s->last = seg;
}

/* Of a few hundred at most, and nearly always the first. */
static void list_remove(struct spool *s, struct segment *seg)
{
	struct segment **link = &s->first, *before = NULL;

	while (*link != seg) {
		before = *link;
		link = &before->next;
	}
	*link = seg->next;
	if (s->last == seg)
		s->last = before;
}

static void remove_segment(struct spool *s, struct segment *seg)
{
	char name[SEGMENT_NAME];

	segment_name(name, seg->number);
	if (!seg->nameless)
		unlinkat(s->dir_fd, name, 0);
	syncer_forget(s->syncer, seg->number);
	s->stats.disk_bytes -= segment_disk(seg);
	s->stats.segments--;
	if (s->window.of == seg)
		s->window.of = NULL;
	if (s->writer == seg)
		s->writer = NULL;
	list_remove(s, seg);
	segment_free(seg);
}

/* Removes it if nothing of it is left. May free seg. */
static void release(struct spool *s, struct segment *seg)
{
	bool over = segment_unread(seg) == 0 && seg->out == 0;

	if (over && (seg != s->writer || seg->end >= MIN(EMPTY_BYTES, s->segment_bytes / 2)))
		remove_segment(s, seg);
	else if (segment_unread(seg) == 0 && seg != s->writer && !seg->nameless)
		closep(&seg->fd);
}

static void finish_writer(struct spool *s)
{
	struct segment *seg = s->writer;

	if (!seg)
		return;
	s->writer = NULL;
	if (segment_unread(seg) == 0 && seg->out == 0) {
		remove_segment(s, seg);
		return;
	}
	if (!seg->sealed)
		segment_seal(seg);
	if (!syncer_add(s->syncer, seg->fd, seg->number) ||
		!syncer_add(s->syncer, s->cursor_fd, 0) || !syncer_add(s->syncer, s->dir_fd, 0))
		s->stats.unsynced++;
	if (!seg->nameless && seg != unread_segment(s))
		closep(&seg->fd);
}

/* ---- the directory ---- */

static int open_dir(struct spool *s, struct err *err)
{
	int dir_fd CLEANUP(closep)
	= -1, cursor_fd CLEANUP(closep)
	= -1;

	if (mkdir(s->dir, 0700) < 0 && errno != EEXIST)
		return err_set(err, errno, "cannot make the spool directory %s: %s", s->dir,
			strerror(errno));
	dir_fd = open(s->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir_fd < 0)
		return err_set(err, errno, "cannot open the spool directory %s: %s", s->dir,
			strerror(errno));
	if (flock(dir_fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno == EWOULDBLOCK)
			return err_set(err, EBUSY,
				"the spool directory %s is in use by another process: each needs its own",
				s->dir);
		return err_set(err, errno, "cannot lock the spool directory %s: %s", s->dir,
			strerror(errno));
	}
	cursor_fd = openat(dir_fd, CURSOR, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (cursor_fd < 0)
		return err_set(
			err, errno, "cannot write to %s/" CURSOR ": %s", s->dir, strerror(errno));
	closep(&s->dir_fd);
	closep(&s->cursor_fd);
	s->dir_fd = TAKE_FD(dir_fd);
	s->cursor_fd = TAKE_FD(cursor_fd);
	return 0;
}

static int compare_numbers(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

/* The numbers of the segments, in order. */
static int list_dir(struct spool *s, uint64_t **ret_numbers, size_t *ret_count, struct err *err)
{
	uint64_t *numbers CLEANUP(freep)
	= NULL, number;
	size_t count = 0, cap = 0;
	char stranger[256] = "";
	int fd = fcntl(s->dir_fd, F_DUPFD_CLOEXEC, 3);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *e;

	if (!dir) {
		err_set(err, errno, "cannot list the spool directory %s: %s", s->dir,
			strerror(errno));
		closep(&fd);
		return -err->code;
	}
	rewinddir(dir);
	while ((e = readdir(dir))) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
			strcmp(e->d_name, CURSOR) == 0)
			continue;
		if (!segment_number(e->d_name, &number)) {
			s->stats.foreign++;
			snprintf(stranger, sizeof(stranger), "%s", e->d_name);
			continue;
		}
		if (count == cap) {
			uint64_t *more = realloc(numbers, (cap * 2 + 64) * sizeof(*numbers));

			if (!more) {
				closedir(dir);
				return err_set(err, ENOMEM, "no memory for the spool %s", s->dir);
			}
			numbers = more;
			cap = cap * 2 + 64;
		}
		numbers[count++] = number;
	}
	closedir(dir);
	if (s->stats.foreign > 0)
		log_warn(
			"spool %s: %llu files there are not the spool's and are left alone, such as %s",
			s->dir, (unsigned long long)s->stats.foreign, stranger);
	if (count > 0)
		qsort(numbers, count, sizeof(*numbers), compare_numbers);
	*ret_numbers = TAKE(numbers);
	*ret_count = count;
	return 0;
}

/* ---- what an earlier life left ---- */

static int load_segment(struct spool *s, uint64_t number, struct err *err)
{
	char name[SEGMENT_NAME];
	struct segment *seg = NULL;
	uint64_t torn;
	int rc;

	segment_name(name, number);
	rc = segment_load(s->dir_fd, number, &s->window, &seg, &torn);
	s->window.of = NULL; /* its memory may become another's */
	switch (rc) {
	case 0:
		s->stats.disk_bytes += segment_disk(seg);
		s->stats.segments++;
		list_append(s, seg);
		break;
	case -ENODATA:
		unlinkat(s->dir_fd, name, 0);
		break;
	case -EBADMSG:
		log_warn("spool %s: %s is damaged at both ends: its %llu bytes are lost", s->dir,
			name, (unsigned long long)torn);
		s->stats.lost_bytes += torn;
		unlinkat(s->dir_fd, name, 0);
		return 0;
	case -EPROTO:
		log_warn("spool %s: %s is not of this version, and is left alone", s->dir, name);
		s->stats.foreign++;
		return 0;
	default:
		return err_set(err, -rc, "cannot read %s/%s: %s", s->dir, name, strerror(-rc));
	}
	if (torn > 0) {
		s->stats.torn++;
		s->stats.torn_bytes += torn;
	}
	return 0;
}

static void skip_to(struct segment *seg, uint64_t at, uint32_t index)
{
	/* What is not consistent with the file (it was damaged) reads it from where it must end. */
	if (at >= seg->end || at < SEGMENT_MARK || index > seg->messages ||
		(uint64_t)index * SEGMENT_HEADER > at - SEGMENT_MARK ||
		(uint64_t)(seg->messages - index) * SEGMENT_HEADER > seg->end - at) {
		at = seg->end;
		index = seg->messages;
	}
	seg->read_at = at;
	seg->read_index = index;
}

static struct segment *find_segment(const struct spool *s, uint64_t number)
{
	struct segment *seg = s->first;

	while (seg && seg->number != number)
		seg = seg->next;
	return seg;
}

/* Sets each segment to where it was read, and notes the batches that are to be repeated. */
static int apply_cursor(struct spool *s, bool exact)
{
	struct cursor *c = &s->cursor;

	if (!exact)
		c->suspect = s->next_number - 1;
	for (struct segment *seg = s->first; seg; seg = seg->next) {
		if (seg->number < c->segment)
			skip_to(seg, UINT64_MAX, 0);
		else if (seg->number == c->segment)
			skip_to(seg, c->at, c->index);
		s->stats.recovered += segment_unread(seg);
	}
	if (c->count == 0)
		return 0;
	s->again = calloc(c->count, sizeof(*s->again));
	if (!s->again)
		return -ENOMEM;
	for (uint32_t i = 0; i < c->count; i++) {
		struct segment *seg = find_segment(s, c->batches[i].segment);

		s->stats.recovered += c->batches[i].count;
		if (!seg || c->batches[i].start < SEGMENT_MARK ||
			c->batches[i].start > c->batches[i].end) {
			s->stats.lost += c->batches[i].count;
			continue;
		}
		seg->out++;
		s->again[s->again_count++] = c->batches[i];
	}
	return 0;
}

static void release_all(struct spool *s)
{
	for (struct segment *seg = s->first, *next; seg; seg = next) {
		next = seg->next;
		release(s, seg);
	}
}

static int recover(struct spool *s, struct err *err)
{
	uint64_t *numbers CLEANUP(freep)
	= NULL;
	size_t count;
	int exact, rc;

	exact = cursor_load(s->cursor_fd, &s->cursor);
	if (exact < 0)
		return err_set(err, ENOMEM, "no memory for the spool %s", s->dir);
	/* So that a full disk does not keep the cursor from being written; no matter if not. */
	(void)!fallocate(s->cursor_fd, FALLOC_FL_KEEP_SIZE, 0, CURSOR_BYTES);
	rc = list_dir(s, &numbers, &count, err);
	if (rc < 0)
		return rc;
	s->next_number = s->cursor.segment + 1;
	for (size_t i = 0; i < count; i++) {
		rc = load_segment(s, numbers[i], err);
		if (rc < 0)
			return rc;
		s->next_number = MAX(s->next_number, numbers[i] + 1);
	}
	if (apply_cursor(s, exact == 1) < 0)
		return err_set(err, ENOMEM, "no memory for the spool %s", s->dir);
	release_all(s);
	store_cursor(s);
	return 0;
}

int spool_open(const struct spool_options *options, struct spool **ret_spool, struct err *err)
{
	struct spool *s CLEANUP(spool_freep)
	= NULL;
	int rc;

	if (options->max_bytes < SPOOL_BYTES_MIN)
		return err_set(err, EINVAL, "the spool %s cannot be limited to less than %d bytes",
			options->dir, SPOOL_BYTES_MIN);
	s = calloc(1, sizeof(*s));
	if (!s)
		return err_set(err, ENOMEM, "no memory for the spool %s", options->dir);
	s->dir_fd = s->cursor_fd = -1;
	s->max_bytes = options->max_bytes;
	s->segment_bytes =
		options->segment_bytes
			? options->segment_bytes
			: MIN(MAX(options->max_bytes / 8, SEGMENT_BYTES_MIN), SEGMENT_BYTES_MAX);
	s->dir = strdup(options->dir);
	if (!s->dir || syncer_new(&s->syncer) < 0)
		return err_set(err, ENOMEM, "no memory for the spool %s", options->dir);
	rc = open_dir(s, err);
	if (rc < 0)
		return rc;
	rc = recover(s, err);
	if (rc < 0)
		return rc;
	s->opened = true;
	*ret_spool = TAKE(s);
	return 0;
}

/* ---- append ---- */

/* The directory may have been removed under us: it is made again once. */
static int begin_segment(struct spool *s)
{
	struct segment *seg = NULL;
	int rc = segment_create(s->dir_fd, s->next_number, &seg);

	if (rc == -ENOENT && open_dir(s, NULL) == 0) {
		store_cursor(s);
		rc = segment_create(s->dir_fd, s->next_number, &seg);
	}
	if (rc == -EEXIST) {
		s->next_number++; /* somebody else's: it is the next one's turn */
		rc = segment_create(s->dir_fd, s->next_number, &seg);
	}
	if (rc < 0)
		return rc;
	s->next_number++;
	list_append(s, seg);
	s->writer = seg;
	s->stats.disk_bytes += segment_disk(seg);
	s->stats.segments++;
	return 0;
}

static bool is_nameless(const struct segment *seg)
{
	struct stat st;

	return fstat(seg->fd, &st) == 0 && st.st_nlink == 0;
}

/* Makes sure of a segment with room for `need`. -ENOSPC: the limit. */
static int make_room(struct spool *s, uint64_t need)
{
	struct segment *seg = s->writer;

	if (seg && is_nameless(seg)) {
		seg->nameless = true;
		finish_writer(s);
	} else if (seg && seg->messages > 0 && segment_disk(seg) + need > s->segment_bytes) {
		finish_writer(s);
	}
	seg = s->writer;
	need += seg ? 0 : 2 * SEGMENT_MARK;
	if (s->stats.disk_bytes + need > s->max_bytes && seg && segment_unread(seg) == 0 &&
		seg->out == 0) {
		remove_segment(s, seg);
		need += 2 * SEGMENT_MARK;
	}
	if (s->stats.disk_bytes + need > s->max_bytes)
		return -ENOSPC;
	return 0;
}

/* How many of the items the segment and the limit have room for; the first has. */
static size_t fitting(const struct spool *s, const struct spool_item *items, size_t n)
{
	uint64_t in_segment = segment_disk(s->writer), in_all = s->stats.disk_bytes;
	size_t fit = 0;

	while (fit < n && fit < SEGMENT_APPEND && items[fit].body.len <= UINT32_MAX) {
		uint64_t need = SEGMENT_HEADER + items[fit].body.len;

		in_segment += need;
		in_all += need;
		if (fit > 0 && (in_segment > s->segment_bytes || in_all > s->max_bytes))
			break;
		fit++;
	}
	return fit;
}

static int write_failed(struct spool *s, int rc)
{
	s->stats.write_errors++;
	s->stats.error = -rc;
	return rc;
}

static int append_some(struct spool *s, const struct spool_item *items, size_t n)
{
	uint64_t need = SEGMENT_HEADER + (uint64_t)items[0].body.len, before;
	int rc;

	if (items[0].body.len > UINT32_MAX || need + 2 * SEGMENT_MARK > s->max_bytes)
		return -EMSGSIZE;
	rc = make_room(s, need);
	if (rc < 0) {
		s->stats.error = 0;
		return rc;
	}
	if (!s->writer) {
		rc = begin_segment(s);
		if (rc < 0)
			return write_failed(s, rc);
	}
	before = s->writer->end;
	rc = segment_append(s->writer, items, fitting(s, items, n));
	s->stats.disk_bytes += s->writer->end - before;
	if (s->writer->sealed)
		finish_writer(s);
	if (rc < 0)
		return write_failed(s, rc);
	s->stats.appended += (uint64_t)rc;
	s->stats.error = 0;
	return rc;
}

int spool_append(struct spool *s, const struct spool_item *items, size_t n)
{
	size_t done = 0;

	while (done < n && done < INT32_MAX - SEGMENT_APPEND) {
		int rc = append_some(s, items + done, n - done);

		if (rc < 0)
			return done > 0 ? (int)done : rc;
		done += (size_t)rc;
	}
	return (int)done;
}

/* ---- read ---- */

static void batch_free(struct batch *b)
{
	if (!b)
		return;
	free(b->pub.records);
	free(b->pub.data);
	free(b);
}

static void batch_freep(struct batch **b)
{
	batch_free(*b);
}

/* Room for one more record, and its body. */
static int batch_reserve(struct batch *b, size_t len, size_t max_messages)
{
	if (b->pub.count == b->records_cap) {
		size_t cap = MAX(b->records_cap * 2, MIN(max_messages, (size_t)FIRST_RECORDS));
		struct spool_record *more = realloc(b->pub.records, cap * sizeof(*more));

		if (!more)
			return -ENOMEM;
		b->pub.records = more;
		b->records_cap = cap;
	}
	if (len > b->data_cap - b->pub.len || !b->pub.data) {
		size_t first = max_messages > 1 ? FIRST_BODIES : 1;
		size_t cap = MAX(MAX(b->data_cap * 2, b->pub.len + len), first);
		char *more = realloc(b->pub.data, cap);

		if (!more)
			return -ENOMEM;
		b->pub.data = more;
		b->data_cap = cap;
	}
	return 0;
}

static void batch_add(struct batch *b, const struct segment_found *f)
{
	if (b->pub.count == 0) {
		b->at.start = f->at;
		b->at.first = f->index;
	}
	b->pub.records[b->pub.count++] = (struct spool_record){.body = {.len = f->len},
		.seq = f->seq,
		.order = f->order,
		.queued_ns = f->queued_ns};
	b->pub.len += f->len;
	b->at.end = f->at + SEGMENT_HEADER + f->len;
}

/* Where a segment is read. */
struct place {
	uint64_t at;
	uint32_t index;
	uint64_t lost; /* messages and bytes that were skipped on the way here */
	uint64_t lost_bytes;
};

static void pass(struct place *p, uint64_t at, uint32_t index, bool good)
{
	if (!good) {
		p->lost += index - p->index;
		p->lost_bytes += at - p->at;
	}
	p->at = at;
	p->index = index;
}

/* Reads records into the batch, from p to `end`, where the index is `index`. 0: also where nothing
 * good was found; p is behind it then. */
static int take(struct spool *s, struct batch *b, struct place *p, uint64_t end, uint32_t index,
	size_t max_messages, size_t max_bytes)
{
	int rc = segment_open(s->dir_fd, b->segment);

	if (rc == -ENOENT)
		pass(p, end, index, false);
	else if (rc < 0)
		return rc;
	while (b->pub.count < max_messages && p->at < end) {
		struct segment_found f;
		uint64_t behind;
		bool good;

		if (!segment_find(b->segment, &s->window, p->at, p->index, end, &f) ||
			f.index >= index) {
			pass(p, end, index, false);
			break;
		}
		if (f.at > p->at || f.index > p->index)
			pass(p, f.at, f.index, false);
		if (b->pub.count > 0 && f.len > max_bytes - MIN(max_bytes, b->pub.len))
			break;
		rc = batch_reserve(b, f.len, max_messages);
		if (rc < 0)
			return rc;
		behind = f.at + SEGMENT_HEADER + f.len;
		good = segment_body(b->segment, &s->window, &f, b->pub.data + b->pub.len);
		if (good)
			batch_add(b, &f);
		pass(p, behind, f.index + 1, good);
	}
	return 0;
}

static void hand_out(struct spool *s, struct batch *b, struct spool_batch **ret_batch)
{
	const char *body = b->pub.data;

	for (size_t i = 0; i < b->pub.count; i++) {
		b->pub.records[i].body.p = body;
		body += b->pub.records[i].body.len;
	}
	b->nonce = b->segment->nonce;
	b->at.segment = b->segment->number;
	b->at.count = (uint32_t)b->pub.count;
	b->at.bytes = b->pub.len;
	b->prev = s->out_last;
	if (s->out_last)
		s->out_last->next = b;
	else
		s->out_first = b;
	s->out_last = b;
	s->out_count++;
	store_cursor(s);
	*ret_batch = &b->pub;
}

/* The next batch of an earlier life. 0: nothing of it is left. */
static int read_again(struct spool *s, struct spool_batch **ret_batch)
{
	const struct cursor_batch *old = &s->again[s->again_next];
	struct batch *b CLEANUP(batch_freep)
	= calloc(1, sizeof(*b));
	struct place p = {.at = old->start, .index = old->first};
	int rc;

	if (!b)
		return -ENOMEM;
	b->segment = find_segment(s, old->segment);
	b->pub.again = true;
	rc = take(s, b, &p, MIN(old->end, b->segment->end), b->segment->messages, old->count,
		SIZE_MAX);
	if (rc < 0)
		return rc;
	s->stats.lost += old->count - b->pub.count;
	s->stats.lost_bytes += p.lost_bytes;
	/* The name is what it was, though it may hold less. */
	b->at.start = old->start;
	b->at.end = old->end;
	b->at.first = old->first;
	s->again_next++;
	if (b->pub.count == 0) {
		b->segment->out--;
		release(s, b->segment);
		store_cursor(s);
		return 0;
	}
	hand_out(s, TAKE(b), ret_batch);
	return 1;
}

static int read_fresh(struct spool *s, struct segment *seg, size_t max_messages, size_t max_bytes,
	struct spool_batch **ret_batch)
{
	struct batch *b CLEANUP(batch_freep)
	= calloc(1, sizeof(*b));
	struct place p = {.at = seg->read_at, .index = seg->read_index};
	int rc;

	if (!b)
		return -ENOMEM;
	b->segment = seg;
	b->pub.again = seg->number <= s->cursor.suspect;
	rc = take(s, b, &p, seg->end, seg->messages, max_messages, max_bytes);
	if (rc < 0)
		return rc;
	seg->read_at = p.at;
	seg->read_index = p.index;
	s->stats.lost += p.lost;
	s->stats.lost_bytes += p.lost_bytes;
	if (b->pub.count == 0) {
		release(s, seg);
		store_cursor(s);
		return 0;
	}
	seg->read_ns = b->pub.records[b->pub.count - 1].queued_ns;
	seg->out++;
	hand_out(s, TAKE(b), ret_batch);
	return 1;
}

int spool_read(
	struct spool *s, size_t max_messages, size_t max_bytes, struct spool_batch **ret_batch)
{
	struct segment *seg;
	int rc = 0;

	while (rc == 0 && s->again_next < s->again_count)
		rc = read_again(s, ret_batch);
	while (rc == 0 && max_messages > 0 && s->out_count < SPOOL_BATCHES_MAX &&
		(seg = unread_segment(s)))
		rc = read_fresh(s, seg, max_messages, max_bytes, ret_batch);
	return rc;
}

void spool_ack(struct spool *s, struct spool_batch *batch)
{
	struct batch *b = (struct batch *)batch;

	if (!b)
		return;
	if (b->prev)
		b->prev->next = b->next;
	else
		s->out_first = b->next;
	if (b->next)
		b->next->prev = b->prev;
	else
		s->out_last = b->prev;
	s->out_count--;
	s->stats.acknowledged += b->at.count;
	b->segment->out--;
	/* First what is over, then what is gone. */
	store_cursor(s);
	release(s, b->segment);
	batch_free(b);
}

size_t spool_key(const struct spool_batch *batch, char key[SPOOL_KEY_MAX])
{
	const struct batch *b = (const struct batch *)batch;

	return (size_t)snprintf(key, SPOOL_KEY_MAX, "%016llx-%llx-%llx",
		(unsigned long long)b->nonce, (unsigned long long)b->at.start,
		(unsigned long long)b->at.end);
}

uint64_t spool_drop_oldest(struct spool *s, uint64_t *ret_bytes)
{
	struct segment *seg = unread_segment(s);
	uint64_t cost, bytes;
	int rc = 0;

	if (!seg)
		return 0;
	cost = segment_unread(seg);
	bytes = segment_unread_bytes(seg);
	if (seg->out > 0) {
		rc = segment_open(s->dir_fd, seg);
		if (rc < 0 && rc != -ENOENT)
			return 0; /* what cannot be cut off would come again in the next life */
	}
	if (seg == s->writer)
		s->writer = NULL;
	s->stats.disk_bytes -= seg->end - seg->read_at;
	if (s->window.of == seg)
		s->window.of = NULL;
	if (seg->out > 0 && rc == 0) {
		segment_cut(seg);
	} else {
		seg->end = seg->read_at;
		seg->messages = seg->read_index;
	}
	s->stats.dropped += cost;
	if (ret_bytes)
		*ret_bytes += bytes;
	store_cursor(s);
	release(s, seg);
	return cost;
}

/* ---- the rest ---- */

int spool_sync(struct spool *s)
{
	uint64_t failed = syncer_failed(s->syncer);

	syncer_wait(s->syncer);
	if (s->writer && fsync(s->writer->fd) < 0)
		return -errno;
	if (fsync(s->cursor_fd) < 0 || fsync(s->dir_fd) < 0)
		return -errno;
	return syncer_failed(s->syncer) > failed ? -EIO : 0;
}

void spool_free(struct spool *s)
{
	struct spool_stats stats;

	if (!s)
		return;
	if (s->opened) {
		finish_writer(s);
		release_all(s);
		spool_stats(s, &stats);
		if (stats.messages == 0)
			unlinkat(s->dir_fd, CURSOR, 0);
		else if (spool_sync(s) < 0)
			log_warn("spool %s: cannot sync it", s->dir);
	}
	syncer_free(s->syncer);
	while (s->out_first) {
		struct batch *next = s->out_first->next;

		batch_free(s->out_first);
		s->out_first = next;
	}
	while (s->first) {
		struct segment *next = s->first->next;

		segment_free(s->first);
		s->first = next;
	}
	free(s->again);
	free(s->window.data);
	closep(&s->cursor_fd);
	closep(&s->dir_fd);
	free(s->dir);
	free(s);
}

void spool_freep(struct spool **s)
{
	spool_free(*s);
}

static uint64_t oldest_ns(const struct spool *s)
{
	const struct segment *seg;

	if (s->again_next < s->again_count) {
		seg = find_segment(s, s->again[s->again_next].segment);
		return seg->first_ns;
	}
	if (s->out_first)
		return s->out_first->pub.records[0].queued_ns;
	seg = unread_segment(s);
	if (!seg)
		return 0;
	return seg->read_ns ? seg->read_ns : seg->first_ns;
}

void spool_stats(const struct spool *s, struct spool_stats *ret)
{
	*ret = s->stats;
	for (const struct batch *b = s->out_first; b; b = b->next) {
		ret->out += b->pub.count;
		ret->bytes += b->pub.len;
	}
	ret->messages = ret->out;
	for (size_t i = s->again_next; i < s->again_count; i++) {
		ret->messages += s->again[i].count;
		ret->bytes += s->again[i].bytes;
	}
	for (const struct segment *seg = s->first; seg; seg = seg->next) {
		ret->messages += segment_unread(seg);
		ret->bytes += segment_unread_bytes(seg);
	}
	ret->oldest_ns = oldest_ns(s);
	ret->unsynced += syncer_failed(s->syncer);
}
