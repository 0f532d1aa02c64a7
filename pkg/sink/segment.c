/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>
#include <zlib.h>

#include "pkg/sink/segment.h"

#define VERSION 1
#define SYNC	0xd5ec04e1U /* one byte is a control character: JSON text does not hold it */

struct mark {
	char magic[8];
	uint32_t version;
	uint32_t messages; /* the trailer's, as end and first_ns */
	uint64_t number;
	uint64_t nonce;
	uint64_t end;
	uint64_t first_ns;
	uint8_t zero[12];
	uint32_t crc;
};

struct header {
	uint32_t sync;
	uint32_t len;
	uint32_t index;
	uint32_t body_crc;
	uint64_t seq;
	uint64_t order;
	uint64_t queued_ns;
	uint32_t zero;
	uint32_t crc;
};

_Static_assert(sizeof(struct mark) == SEGMENT_MARK, "no padding");
_Static_assert(sizeof(struct header) == SEGMENT_HEADER, "no padding");

static const char HEAD[8] = "EBDSPOOL", TAIL[8] = "EBDSPEND";

/* ---- names ---- */

void segment_name(char name[SEGMENT_NAME], uint64_t number)
{
	snprintf(name, SEGMENT_NAME, "spool-%016llx.seg", (unsigned long long)number);
}

bool segment_number(const char *name, uint64_t *ret_number)
{
	char again[SEGMENT_NAME];
	uint64_t number = 0;

	if (strlen(name) != strlen("spool-.seg") + 16)
		return false;
	for (int i = 0; i < 16; i++) {
		char c = name[strlen("spool-") + (size_t)i];

		if (c >= '0' && c <= '9')
			number = number << 4 | (uint64_t)(c - '0');
		else if (c >= 'a' && c <= 'f')
			number = number << 4 | (uint64_t)(c - 'a' + 10);
		else
			return false;
	}
	segment_name(again, number);
	if (strcmp(again, name) != 0)
		return false;
	*ret_number = number;
	return true;
}

/* ---- checksums ---- */

static uint32_t mark_crc(const struct mark *m)
{
	return (uint32_t)crc32_z(0, (const Bytef *)m, offsetof(struct mark, crc));
}

static uint32_t header_crc(const struct segment *s, uint64_t at, const struct header *h)
{
	uint64_t place[2] = {s->nonce, at};
	uLong crc = crc32_z(0, (const Bytef *)place, sizeof(place));

	return (uint32_t)crc32_z(crc, (const Bytef *)h, offsetof(struct header, crc));
}

static uint32_t body_crc(const void *p, size_t len)
{
	return (uint32_t)crc32_z(0, p, len);
}

/* ---- whole reads and writes ---- */

/* How much there is: less than len at the end of the file, or where the disk cannot read. */
static size_t read_at(int fd, void *p, size_t len, uint64_t at)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = pread(fd, (char *)p + done, len - done, (off_t)(at + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		done += (size_t)n;
	}
	return done;
}

/* Writes all of it, or as much as can be: *ret_done. 0 or what stopped it. */
static int write_at(int fd, struct iovec *iov, int count, uint64_t at, uint64_t *ret_done)
{
	uint64_t done = 0;
	int rc = 0;

	while (count > 0) {
		ssize_t n = pwritev(fd, iov, count, (off_t)(at + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			rc = n < 0 ? -errno : -EIO;
			break;
		}
		done += (uint64_t)n;
		while (count > 0 && (size_t)n >= iov->iov_len) {
			n -= (ssize_t)iov->iov_len;
			iov++;
			count--;
		}
		if (count > 0) {
			iov->iov_base = (char *)iov->iov_base + n;
			iov->iov_len -= (size_t)n;
		}
	}
	*ret_done = done;
	return rc;
}

static int write_mark(const struct segment *s, const char magic[8], uint64_t at)
{
	struct mark m = {.version = VERSION, .number = s->number, .nonce = s->nonce};
	struct iovec iov = {.iov_base = &m, .iov_len = sizeof(m)};
	uint64_t done;

	memcpy(m.magic, magic, sizeof(m.magic));
	if (magic == TAIL) {
		m.messages = s->messages;
		m.end = s->end;
		m.first_ns = s->first_ns;
	}
	m.crc = mark_crc(&m);
	return write_at(s->fd, &iov, 1, at, &done);
}

/* ---- the writer's side ---- */

static struct segment *segment_alloc(uint64_t number)
{
	struct segment *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->number = number;
	s->fd = -1;
	s->end = s->read_at = SEGMENT_MARK;
	return s;
}

void segment_free(struct segment *s)
{
	if (!s)
		return;
	closep(&s->fd);
	free(s);
}

static void segment_freep(struct segment **s)
{
	segment_free(*s);
}

int segment_create(int dir_fd, uint64_t number, struct segment **ret_segment)
{
	struct segment *s CLEANUP(segment_freep)
	= segment_alloc(number);
	char name[SEGMENT_NAME];
	int rc;

	if (!s)
		return -ENOMEM;
	if (getrandom(&s->nonce, sizeof(s->nonce), 0) != sizeof(s->nonce))
		return -EIO;
	segment_name(name, number);
	s->fd = openat(dir_fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (s->fd < 0)
		return -errno;
	rc = write_mark(s, HEAD, 0);
	if (rc < 0) {
		unlinkat(dir_fd, name, 0);
		return rc;
	}
	*ret_segment = TAKE(s);
	return 0;
}

int segment_open(int dir_fd, struct segment *s)
{
	char name[SEGMENT_NAME];

	if (s->fd >= 0)
		return 0;
	segment_name(name, s->number);
	s->fd = openat(dir_fd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	return s->fd < 0 ? -errno : 0;
}

static void cut_file(struct segment *s)
{
	if (ftruncate(s->fd, (off_t)s->end) < 0)
		s->sealed = true; /* what is behind the end must not be taken for the end */
}

/* Of n records written one behind the other, those that are whole. */
static int keep_whole(struct segment *s, const struct spool_item *items, size_t n, uint64_t written)
{
	size_t kept = 0;

	while (kept < n && written >= SEGMENT_HEADER + items[kept].body.len) {
		written -= SEGMENT_HEADER + items[kept].body.len;
		s->end += SEGMENT_HEADER + items[kept].body.len;
		kept++;
	}
	if (s->messages == 0 && kept > 0)
		s->first_ns = items[0].queued_ns;
	s->messages += (uint32_t)kept;
	if (written > 0)
		cut_file(s);
	return (int)kept;
}

int segment_append(struct segment *s, const struct spool_item *items, size_t n)
{
	struct header headers[SEGMENT_APPEND];
	struct iovec iov[2 * SEGMENT_APPEND];
	uint64_t at = s->end, done;
	int rc, kept;

	n = MIN(n, SEGMENT_APPEND);
	for (size_t i = 0; i < n; i++) {
		struct span body = items[i].body;

		headers[i] = (struct header){.sync = SYNC,
			.len = (uint32_t)body.len,
			.index = s->messages + (uint32_t)i,
			.body_crc = body_crc(body.p, body.len),
			.seq = items[i].seq,
			.order = items[i].order,
			.queued_ns = items[i].queued_ns};
		headers[i].crc = header_crc(s, at, &headers[i]);
		iov[2 * i] = (struct iovec){&headers[i], SEGMENT_HEADER};
		iov[2 * i + 1] = (struct iovec){(char *)body.p, body.len};
		at += SEGMENT_HEADER + body.len;
	}
	rc = write_at(s->fd, iov, 2 * (int)n, s->end, &done);
	kept = keep_whole(s, items, n, done);
	return kept > 0 ? kept : rc;
}

void segment_seal(struct segment *s)
{
	s->sealed = true;
	if (write_mark(s, TAIL, s->end) < 0)
		cut_file(s);
}

void segment_cut(struct segment *s)
{
	s->end = s->read_at;
	s->messages = s->read_index;
	cut_file(s);
	segment_seal(s);
}

/* ---- the reader's side ---- */

/* len bytes at `at`, which stay until the next call. NULL: they are not there, or beyond what a
 * window holds. */
static const char *window_get(
	const struct segment *s, struct segment_window *w, uint64_t at, size_t len, uint64_t end)
{
	if (len > SEGMENT_WINDOW || at > end || len > end - at)
		return NULL;
	if (w->of != s || at < w->at || at + len > w->at + w->len) {
		if (!w->data)
			w->data = malloc(SEGMENT_WINDOW);
		if (!w->data)
			return NULL;
		w->of = s;
		w->at = at;
		w->len = read_at(s->fd, w->data, (size_t)MIN(end - at, SEGMENT_WINDOW), at);
		if (w->len < len)
			return NULL;
	}
	return w->data + (at - w->at);
}

static bool header_at(const struct segment *s, struct segment_window *w, uint64_t at,
	uint32_t index, uint64_t end, struct segment_found *ret)
{
	const char *p = window_get(s, w, at, SEGMENT_HEADER, end);
	struct header h;

	if (!p)
		return false;
	memcpy(&h, p, sizeof(h));
	/* As many records as its index says must have room before it. */
	if (h.sync != SYNC || h.crc != header_crc(s, at, &h) || h.index < index ||
		h.index > (at - SEGMENT_MARK) / SEGMENT_HEADER || h.len > end - at - SEGMENT_HEADER)
		return false;
	/* And so must those that are known to follow it have behind it. */
	if (h.index < s->messages && (uint64_t)(s->messages - h.index - 1) * SEGMENT_HEADER >
					     s->end - at - SEGMENT_HEADER - h.len)
		return false;
	*ret = (struct segment_found){.at = at,
		.len = h.len,
		.index = h.index,
		.body_crc = h.body_crc,
		.seq = h.seq,
		.order = h.order,
		.queued_ns = h.queued_ns};
	return true;
}

/* The next place at or behind `at` that begins like a header. end: there is none. */
static uint64_t next_sync(
	const struct segment *s, struct segment_window *w, uint64_t at, uint64_t end)
{
	static const uint32_t sync = SYNC;

	while (at + SEGMENT_HEADER <= end) {
		const char *p = window_get(s, w, at, SEGMENT_HEADER, end), *hit;
		size_t len;

		if (!p)
			break;
		len = w->len - (size_t)(at - w->at);
		hit = memmem(p, len, &sync, sizeof(sync));
		if (hit)
			return at + (uint64_t)(hit - p);
		at += len - (sizeof(sync) - 1);
	}
	return end;
}

bool segment_find(const struct segment *s, struct segment_window *w, uint64_t at, uint32_t index,
	uint64_t end, struct segment_found *ret_found)
{
	while (at < end) {
		if (header_at(s, w, at, index, end, ret_found))
			return true;
		at = next_sync(s, w, at + 1, end);
	}
	return false;
}

bool segment_body(
	const struct segment *s, struct segment_window *w, const struct segment_found *f, char *out)
{
	uint64_t at = f->at + SEGMENT_HEADER;
	const char *p = f->len <= SEGMENT_WINDOW / 4 ? window_get(s, w, at, f->len, s->end) : NULL;

	if (p)
		memcpy(out, p, f->len);
	else if (read_at(s->fd, out, f->len, at) != f->len)
		return false;
	return body_crc(out, f->len) == f->body_crc;
}

/* ---- what an earlier life left ---- */

static bool read_mark(int fd, const char magic[8], uint64_t at, struct mark *ret)
{
	struct mark m;

	if (read_at(fd, &m, sizeof(m), at) != sizeof(m) || memcmp(m.magic, magic, 8) != 0 ||
		m.crc != mark_crc(&m))
		return false;
	*ret = m;
	return true;
}

/* Counts the records of a segment whose end is not known, and finds it. */
static int scan(struct segment *s, struct segment_window *w, uint64_t size)
{
	struct segment_found f;
	uint64_t at = SEGMENT_MARK;
	char *body CLEANUP(freep)
	= NULL;
	size_t cap = 0;

	s->end = size;
	while (segment_find(s, w, at, s->messages, size, &f)) {
		at = f.at + SEGMENT_HEADER + f.len;
		if (f.len > cap || !body) {
			freep(&body);
			cap = MAX(f.len, 4096);
			body = malloc(cap);
			if (!body)
				return -ENOMEM;
		}
		if (!segment_body(s, w, &f, body))
			continue;
		if (s->messages == 0)
			s->first_ns = f.queued_ns;
		s->messages = f.index + 1;
		s->read_at = at; /* the end of the last good one, for now */
	}
	s->end = s->read_at;
	s->read_at = SEGMENT_MARK;
	return 0;
}

/* Takes from the trailer what it says. false: there is no trailer. */
static bool load_trailer(struct segment *s, uint64_t size)
{
	struct mark m;

	if (size < 2 * SEGMENT_MARK || !read_mark(s->fd, TAIL, size - SEGMENT_MARK, &m) ||
		m.version != VERSION || m.number != s->number || m.end != size - SEGMENT_MARK ||
		m.messages > (m.end - SEGMENT_MARK) / SEGMENT_HEADER)
		return false;
	s->nonce = m.nonce;
	s->end = m.end;
	s->messages = m.messages;
	s->first_ns = m.first_ns;
	s->sealed = true;
	return true;
}

int segment_load(int dir_fd, uint64_t number, struct segment_window *w,
	struct segment **ret_segment, uint64_t *ret_torn)
{
	struct segment *s CLEANUP(segment_freep)
	= segment_alloc(number);
	struct stat st;
	struct mark m;
	bool known;
	int rc;

	*ret_torn = 0;
	if (!s)
		return -ENOMEM;
	rc = segment_open(dir_fd, s);
	if (rc < 0)
		return rc == -ELOOP || rc == -EISDIR || rc == -ENXIO ? -EPROTO : rc;
	if (fstat(s->fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EPROTO;
	if (st.st_size == 0)
		return -ENODATA;
	w->of = NULL;
	known = read_mark(s->fd, HEAD, 0, &m);
	if (known && (m.version != VERSION || m.number != number))
		return -EPROTO;
	if (!load_trailer(s, (uint64_t)st.st_size)) {
		*ret_torn = (uint64_t)st.st_size;
		if (!known)
			return -EBADMSG;
		s->nonce = m.nonce;
		rc = scan(s, w, (uint64_t)st.st_size);
		if (rc < 0)
			return rc;
		*ret_torn -= s->end;
		cut_file(s);
		segment_seal(s);
	}
	if (s->messages == 0)
		return -ENODATA;
	closep(&s->fd);
	*ret_segment = TAKE(s);
	return 0;
}
