/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pkg/sink/segment.h"
#include "pkg/sink/spool.h"

#define MIB ((uint64_t)1 << 20)

/* ck_assert writes to a file each time: too slow for each message. */
#define MUST(condition)                                 \
	do {                                            \
		if (unlikely(!(condition)))             \
			ck_abort_msg("%s", #condition); \
	} while (0)

/* In place of libc's. Each call takes the next fault: > 0 an errno, < 0 writes so many bytes. */
static int write_faults[16], cut_fault;
static size_t next_write_fault;

ssize_t pwritev(int fd, const struct iovec *iov, int count, off_t at);

ssize_t pwritev(int fd, const struct iovec *iov, int count, off_t at)
{
	int fault = 0;

	if (next_write_fault < ARRAY_SIZE(write_faults))
		fault = write_faults[next_write_fault++];
	if (fault > 0) {
		errno = fault;
		return -1;
	}
	if (fault < 0) {
		struct iovec first = iov[0];

		first.iov_len = MIN(first.iov_len, (size_t)-fault);
		return syscall(SYS_pwrite64, fd, first.iov_base, first.iov_len, at);
	}
	return syscall(SYS_pwritev, fd, iov, count, at, 0);
}

int ftruncate(int fd, off_t size);

int ftruncate(int fd, off_t size)
{
	if (cut_fault) {
		errno = cut_fault;
		return -1;
	}
	return (int)syscall(SYS_ftruncate, fd, size);
}

static void set_faults(const int *faults, size_t n)
{
	memset(write_faults, 0, sizeof(write_faults));
	if (n > 0)
		memcpy(write_faults, faults, n * sizeof(*faults));
	next_write_fault = 0;
}

/* ---- directories ---- */

static char top[64];
static char dir[80], copy[80];

static void empty_dir(const char *path)
{
	DIR *d = opendir(path);
	const struct dirent *e;
	char name[400];

	while (d && (e = readdir(d))) {
		snprintf(name, sizeof(name), "%s/%s", path, e->d_name);
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 && unlink(name) < 0)
			rmdir(name);
	}
	if (d)
		closedir(d);
}

static void setup(void)
{
	/* in memory: thousands of spools that are synced */
	snprintf(top, sizeof(top), "%s/spool-test-XXXXXX",
		access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	ck_assert_ptr_nonnull(mkdtemp(top));
	snprintf(dir, sizeof(dir), "%s/a", top);
	snprintf(copy, sizeof(copy), "%s/b", top);
	memset(write_faults, 0, sizeof(write_faults));
	cut_fault = 0;
}

static void teardown(void)
{
	empty_dir(dir);
	empty_dir(copy);
	rmdir(dir);
	rmdir(copy);
	rmdir(top);
}

static size_t read_file(const char *path, char *out, size_t cap)
{
	int fd CLEANUP(closep)
	= open(path, O_RDONLY);
	ssize_t n = fd < 0 ? -1 : read(fd, out, cap);

	ck_assert_msg(n >= 0 && (size_t)n < cap, "%s", path);
	return (size_t)n;
}

static void write_file(const char *path, const char *p, size_t len)
{
	int fd CLEANUP(closep)
	= open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, p, len), (ssize_t)len);
}

/* The crash: what is in the directory now, without anybody having finished it. */
static void copy_dir(void)
{
	static char data[4 << 20];
	DIR *d = opendir(dir);
	const struct dirent *e;
	char from[400], to[400];

	mkdir(copy, 0700);
	empty_dir(copy);
	while ((e = readdir(d))) {
		if (e->d_name[0] == '.')
			continue;
		snprintf(from, sizeof(from), "%s/%s", dir, e->d_name);
		snprintf(to, sizeof(to), "%s/%s", copy, e->d_name);
		write_file(to, data, read_file(from, data, sizeof(data)));
	}
	closedir(d);
}

static int count_segments(const char *path)
{
	DIR *d = opendir(path);
	const struct dirent *e;
	uint64_t number;
	int n = 0;

	while (d && (e = readdir(d)))
		n += segment_number(e->d_name, &number);
	if (d)
		closedir(d);
	return n;
}

static uint64_t sum_sizes(const char *path)
{
	DIR *d = opendir(path);
	const struct dirent *e;
	uint64_t number, sum = 0;
	struct stat st;

	while (d && (e = readdir(d)))
		if (segment_number(e->d_name, &number) && fstatat(dirfd(d), e->d_name, &st, 0) == 0)
			sum += (uint64_t)st.st_size;
	if (d)
		closedir(d);
	return sum;
}

static int count_fds(void)
{
	int n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

/* ---- messages: what is in one depends on its number alone ---- */

static size_t longest = 300;

static size_t body_of(uint64_t seq, char *out)
{
	size_t len = (size_t)(seq * 7919 % (longest + 1));

	for (size_t i = 0; i < len; i++)
		out[i] = (char)(seq * 31 + i * 7);
	return len;
}

static struct spool_item item_of(uint64_t seq, char *body)
{
	return (struct spool_item){.body = span_of(body, body_of(seq, body)),
		.seq = seq,
		.order = seq % 7,
		.queued_ns = 1000 + seq};
}

static int try_append(struct spool *spool, uint64_t seq)
{
	static char body[1 << 20];
	struct spool_item item = item_of(seq, body);

	return spool_append(spool, &item, 1);
}

static void append(struct spool *spool, uint64_t from, uint64_t count)
{
	for (uint64_t i = from; i < from + count; i++)
		MUST(try_append(spool, i) == 1);
}

static void check_record(const struct spool_record *r)
{
	static char want[1 << 20];

	MUST(r->body.len == body_of(r->seq, want));
	MUST(memcmp(r->body.p, want, r->body.len) == 0);
	MUST(r->order == r->seq % 7);
	MUST(r->queued_ns == 1000 + r->seq);
}

static struct spool *open_at(const char *path, uint64_t max, uint64_t segment)
{
	struct spool_options o = {.dir = path, .max_bytes = max, .segment_bytes = segment};
	struct spool *spool = NULL;
	struct err err;

	ck_assert_msg(spool_open(&o, &spool, &err) == 0, "%s", err.text);
	return spool;
}

static struct spool_stats stats_of(const struct spool *spool)
{
	struct spool_stats s;

	spool_stats(spool, &s);
	MUST(s.recovered + s.appended == s.acknowledged + s.dropped + s.lost + s.messages);
	MUST(s.messages <= s.recovered + s.appended);
	MUST(s.out <= s.messages);
	MUST(s.bytes < (uint64_t)1 << 40);
	MUST(s.disk_bytes < (uint64_t)1 << 40);
	MUST((s.messages == 0) == (s.oldest_ns == 0));
	return s;
}

static struct spool_batch *read_batch(struct spool *spool, size_t messages, size_t bytes)
{
	struct spool_batch *b = NULL;
	int rc = spool_read(spool, messages, bytes, &b);
	const char *p;

	MUST(rc >= 0);
	if (rc == 0)
		return NULL;
	MUST(b->count >= 1);
	p = b->data;
	for (size_t i = 0; i < b->count; i++) {
		check_record(&b->records[i]);
		MUST(b->records[i].body.p == p);
		p += b->records[i].body.len;
	}
	MUST(b->len == (size_t)(p - b->data));
	return b;
}

/* Reads all there is, in batches of so many, each message later than the one before it, and
 * acknowledges it. How many; *ret_first and *ret_again (how many with the mark) may be NULL. */
static uint64_t drain(struct spool *spool, size_t batch, uint64_t *ret_first, uint64_t *ret_again)
{
	uint64_t n = 0, last = 0, again = 0;
	struct spool_batch *b;

	while ((b = read_batch(spool, batch, 1 << 20))) {
		for (size_t i = 0; i < b->count; i++) {
			if (n++ == 0 && ret_first)
				*ret_first = b->records[i].seq;
			else
				MUST(n == 1 || b->records[i].seq > last);
			last = b->records[i].seq;
			again += b->again;
		}
		spool_ack(spool, b);
		stats_of(spool);
	}
	MUST(stats_of(spool).messages == 0);
	MUST(stats_of(spool).bytes == 0);
	if (ret_again)
		*ret_again = again;
	return n;
}

/* ---- in one life ---- */

START_TEST(refused)
{
	struct spool_options o = {.dir = "/tmp/no such/place", .max_bytes = MIB};
	struct spool *spool = NULL, *other = NULL;
	struct err err;
	int before = count_fds();

	ck_assert_int_eq(spool_open(&o, &spool, &err), -ENOENT);
	ck_assert_ptr_nonnull(strstr(err.text, "/tmp/no such/place"));
	o.dir = "/dev/null";
	ck_assert_int_eq(spool_open(&o, &spool, &err), -ENOTDIR);
	ck_assert_ptr_nonnull(strstr(err.text, "/dev/null"));
	o.dir = dir;
	o.max_bytes = SPOOL_BYTES_MIN - 1;
	ck_assert_int_eq(spool_open(&o, &spool, &err), -EINVAL);
	/* two loaders */
	o.max_bytes = MIB;
	spool = open_at(dir, MIB, 0);
	ck_assert_int_eq(spool_open(&o, &other, &err), -EBUSY);
	ck_assert_ptr_nonnull(strstr(err.text, dir));
	append(spool, 1, 10);
	ck_assert_uint_eq(drain(spool, 3, NULL, NULL), 10);
	spool_free(spool);
	spool = open_at(dir, MIB, 0);
	spool_free(spool);
	spool_free(NULL);
	ck_assert_int_eq(count_fds(), before);
}
END_TEST

START_TEST(first_in_first_out)
{
	struct spool *spool = open_at(dir, 64 * MIB, 20000);
	struct spool_batch *b;
	struct stat st;
	uint64_t first = 0;
	char name[120];

	ck_assert_ptr_null(read_batch(spool, 10, 1000));
	ck_assert_int_eq(stat(dir, &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0700);
	append(spool, 1, 1000);
	snprintf(name, sizeof(name), "%s/spool-0000000000000001.seg", dir);
	ck_assert_int_eq(stat(name, &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0600);
	ck_assert_int_eq(count_segments(dir), (int)stats_of(spool).segments);
	ck_assert_uint_gt(stats_of(spool).segments, 5);
	ck_assert_uint_eq(stats_of(spool).messages, 1000);
	ck_assert_uint_eq(stats_of(spool).oldest_ns, 1001);
	/* what is on the disk, but for the trailer that the last one is to have */
	ck_assert_uint_eq(stats_of(spool).disk_bytes, sum_sizes(dir) + SEGMENT_MARK);
	/* what each limit says */
	b = read_batch(spool, 7, 1 << 20);
	ck_assert_uint_eq(b->count, 7);
	ck_assert(!b->again);
	ck_assert_uint_eq(b->records[0].seq, 1);
	ck_assert_uint_eq(stats_of(spool).out, 7);
	ck_assert_uint_eq(stats_of(spool).oldest_ns, 1001);
	spool_ack(spool, b);
	ck_assert_uint_eq(stats_of(spool).messages, 993);
	b = read_batch(spool, 1000, 1000);
	ck_assert_uint_gt(b->count, 1);
	ck_assert_uint_le(b->len, 1000);
	first = b->records[0].seq + b->count;
	spool_ack(spool, b);
	b = read_batch(spool, 1000, 0);
	ck_assert_uint_ge(b->count, 1);
	ck_assert_uint_eq(b->records[0].seq, first);
	spool_ack(spool, b);
	drain(spool, 100, NULL, NULL);
	ck_assert_uint_eq(stats_of(spool).acknowledged, 1000);
	ck_assert_int_le(count_segments(dir), 1);
	spool_free(spool);
	/* nothing is left of an empty one */
	ck_assert_int_eq(rmdir(dir), 0);
}
END_TEST

/* Many items at once, bodies of no length, bodies beyond a segment and beyond what is read ahead.
 */
START_TEST(sizes)
{
	static char big[3 << 20];
	struct spool *spool = open_at(dir, 16 * MIB, 100000);
	struct spool_item items[200];
	struct spool_batch *b;
	char bodies[200][301];

	for (size_t i = 0; i < 200; i++)
		items[i] = item_of(i, bodies[i]);
	ck_assert_int_eq(spool_append(spool, items, 200), 200);
	ck_assert_uint_eq(drain(spool, 1000, NULL, NULL), 200);
	for (size_t i = 0; i < sizeof(big); i++)
		big[i] = (char)(i * 31 >> 3);
	for (size_t len = 0; len <= sizeof(big); len = len * 3 + 1) {
		struct spool_item item = {.body = span_of(big, len), .seq = len};

		ck_assert_int_eq(spool_append(spool, &item, 1), 1);
	}
	for (size_t len = 0; len <= sizeof(big); len = len * 3 + 1) {
		ck_assert_int_eq(spool_read(spool, 1, 1, &b), 1);
		ck_assert_uint_eq(b->count, 1);
		ck_assert_uint_eq(b->len, len);
		ck_assert(memcmp(b->data, big, len) == 0);
		spool_ack(spool, b);
	}
	ck_assert_int_eq(spool_read(spool, 1, 1, &b), 0);
	ck_assert_uint_eq(stats_of(spool).lost, 0);
	spool_free(spool);
}
END_TEST

START_TEST(limit)
{
	struct spool *spool = open_at(dir, 100000, 20000);
	struct spool_item huge = {.body = span_of("", 0)};
	uint64_t n = 0, cost, bytes = 0, before;
	int rc;

	huge.body.len = 100000;
	ck_assert_int_eq(spool_append(spool, &huge, 1), -EMSGSIZE);
	while ((rc = try_append(spool, n)) == 1)
		n++;
	ck_assert_int_eq(rc, -ENOSPC);
	ck_assert_int_eq(stats_of(spool).error, 0);
	ck_assert_uint_eq(stats_of(spool).write_errors, 0);
	ck_assert_uint_le(stats_of(spool).disk_bytes, 100000);
	ck_assert_uint_le(sum_sizes(dir), 100000);
	ck_assert_uint_eq(stats_of(spool).messages, n);
	before = stats_of(spool).bytes;
	cost = spool_drop_oldest(spool, &bytes);
	ck_assert_uint_gt(cost, 0);
	ck_assert_uint_eq(stats_of(spool).messages, n - cost);
	ck_assert_uint_eq(stats_of(spool).bytes, before - bytes);
	ck_assert_uint_eq(stats_of(spool).dropped, cost);
	ck_assert_int_eq(try_append(spool, n++), 1);
	before = 0;
	ck_assert_uint_eq(drain(spool, 10, &before, NULL), n - cost);
	ck_assert_uint_eq(before, cost);
	/* the last segment as well, and then there is none */
	append(spool, n, 3);
	ck_assert_uint_eq(spool_drop_oldest(spool, NULL), 3);
	ck_assert_uint_eq(spool_drop_oldest(spool, NULL), 0);
	ck_assert_uint_eq(stats_of(spool).messages, 0);
	/* acknowledged room is room */
	for (int i = 0; i < 2000; i++) {
		append(spool, n + (uint64_t)i, 1);
		spool_ack(spool, read_batch(spool, 1, 1));
	}
	spool_free(spool);
}
END_TEST

/* What is handed out stays: on the disk too, for the next life. */
START_TEST(drop_while_out)
{
	struct spool *spool = open_at(dir, 100000, 20000);
	struct spool_batch *a, *b;
	uint64_t n = 0, cost, first = 0, again = 0;

	while (try_append(spool, n) == 1)
		n++;
	a = read_batch(spool, 3, 10000);
	b = read_batch(spool, 3, 10000);
	cost = spool_drop_oldest(spool, NULL);
	ck_assert_uint_gt(cost, 10);
	ck_assert_uint_eq(stats_of(spool).messages, n - cost);
	ck_assert_int_eq(try_append(spool, n++), 1);
	spool_ack(spool, a);
	copy_dir();
	spool_ack(spool, b);
	ck_assert_uint_eq(drain(spool, 100, &first, NULL), n - cost - 6);
	ck_assert_uint_eq(first, cost + 6);
	spool_free(spool);

	spool = open_at(copy, 100000, 20000);
	ck_assert_uint_eq(stats_of(spool).messages, n - cost - 3);
	b = read_batch(spool, 1, 1);
	ck_assert(b->again);
	ck_assert_uint_eq(b->count, 3);
	ck_assert_uint_eq(b->records[0].seq, 3);
	spool_ack(spool, b);
	ck_assert_uint_eq(drain(spool, 100, &first, &again), n - cost - 6);
	ck_assert_uint_eq(first, cost + 6);
	ck_assert_uint_eq(again, 0);
	ck_assert_uint_eq(stats_of(spool).lost, 0);
	spool_free(spool);
}
END_TEST

/* ---- another life ---- */

/* _i: 0 the process ends well, 1 it does not. */
START_TEST(restart)
{
	struct spool *spool = open_at(dir, MIB, 20000);
	struct spool_batch *b[6];
	char keys[6][SPOOL_KEY_MAX], key[SPOOL_KEY_MAX];
	uint64_t first = 0, again = 0;

	append(spool, 0, 500);
	for (int i = 0; i < 6; i++) {
		b[i] = read_batch(spool, 20, 1 << 20);
		ck_assert_uint_eq(b[i]->count, 20);
		ck_assert(spool_key(b[i], keys[i]) == strlen(keys[i]));
		for (int j = 0; j < i; j++)
			ck_assert_str_ne(keys[i], keys[j]);
	}
	spool_ack(spool, b[3]);
	spool_ack(spool, b[0]);
	append(spool, 500, 100);
	if (_i == 1)
		copy_dir();
	spool_free(spool);

	spool = open_at(_i == 1 ? copy : dir, MIB, 20000);
	ck_assert_uint_eq(stats_of(spool).recovered, 560);
	ck_assert_uint_eq(stats_of(spool).messages, 560);
	append(spool, 600, 50);
	for (int i = 0; i < 6; i++) {
		if (i == 3 || i == 0)
			continue;
		b[i] = read_batch(spool, 3, 10);
		ck_assert(b[i]->again);
		ck_assert_uint_eq(b[i]->count, 20);
		ck_assert_uint_eq(b[i]->records[0].seq, 20 * (uint64_t)i);
		spool_key(b[i], key);
		ck_assert_str_eq(key, keys[i]);
	}
	spool_ack(spool, b[5]);
	spool_ack(spool, b[1]);
	spool_ack(spool, b[2]);
	spool_ack(spool, b[4]);
	ck_assert_uint_eq(drain(spool, 50, &first, &again), 530);
	ck_assert_uint_eq(first, 120);
	ck_assert_uint_eq(again, 0);
	spool_free(spool);
}
END_TEST

/* Without the cursor, nobody knows what has been delivered. */
START_TEST(no_cursor)
{
	struct spool *spool = open_at(dir, MIB, 20000);
	char name[120];
	uint64_t again = 0;

	append(spool, 0, 300);
	spool_ack(spool, read_batch(spool, 20, 1 << 20));
	spool_free(spool);
	snprintf(name, sizeof(name), "%s/cursor", dir);
	ck_assert_int_eq(unlink(name), 0);
	spool = open_at(dir, MIB, 20000);
	spool_free(spool); /* it is not forgotten by another life */
	spool = open_at(dir, MIB, 20000);
	append(spool, 300, 10);
	ck_assert_uint_eq(drain(spool, 50, NULL, &again), 310);
	ck_assert_uint_eq(again, 300);
	spool_free(spool);
}
END_TEST

/* Random operations, with ends of the process between them, against a list. */
START_TEST(model)
{
	enum { TOTAL = 6000 };
	static uint8_t state[TOTAL]; /* 0 not there, 1 spooled, 2 out, 3 over */
	static struct spool_batch *out[64];
	struct spool *spool = open_at(dir, 120000, 15000);
	uint64_t next = 0, dropped = 0, acked = 0;
	size_t outs = 0;

	memset(state, 0, sizeof(state));
	srandom((unsigned int)_i);
	while (next < TOTAL) {
		long what = random() % 100;

		if (what < 45) {
			int rc = try_append(spool, next);

			MUST(rc == 1 || rc == -ENOSPC);
			if (rc == 1)
				state[next++] = 1;
		} else if (what < 70 && outs < 64) {
			struct spool_batch *b = read_batch(spool, 1 + (size_t)random() % 20, 4000);

			if (!b)
				continue;
			for (size_t i = 0; i < b->count; i++) {
				/* the oldest first, but for what is repeated */
				MUST(state[b->records[i].seq] == (b->again ? 2 : 1));
				for (uint64_t j = 0; !b->again && j < b->records[i].seq; j++)
					MUST(state[j] != 1);
				state[b->records[i].seq] = 2;
			}
			out[outs++] = b;
		} else if (what < 96 && outs > 0) {
			size_t which = (size_t)random() % outs;

			for (size_t i = 0; i < out[which]->count; i++)
				state[out[which]->records[i].seq] = 3;
			acked += out[which]->count;
			spool_ack(spool, out[which]);
			out[which] = out[--outs];
		} else if (what < 98) {
			uint64_t cost = spool_drop_oldest(spool, NULL);

			dropped += cost;
			for (uint64_t j = 0; cost > 0; j++)
				if (state[j] == 1) {
					state[j] = 3;
					cost--;
				}
		} else if (random() % 5 == 0) {
			spool_free(spool);
			spool = open_at(dir, 120000, 15000);
			outs = 0;
			MUST(stats_of(spool).torn == 0);
		}
		MUST(stats_of(spool).messages == next - acked - dropped);
		MUST(stats_of(spool).lost == 0);
	}
	for (size_t i = 0; i < outs; i++)
		spool_ack(spool, out[i]);
	spool_free(spool);
}
END_TEST

/* ---- kill -9 ---- */

enum { KILL_TOTAL = 200000 };
struct shared {
	uint64_t next; /* number that was not tried yet */
	uint8_t kept[KILL_TOTAL], out[KILL_TOTAL], acking[KILL_TOTAL], acked[KILL_TOTAL];
};

static void victim_ack(struct shared *sh, struct spool *spool, struct spool_batch *b)
{
	uint64_t seqs[20];
	size_t n = b->count;

	for (size_t i = 0; i < n; i++) {
		seqs[i] = b->records[i].seq;
		sh->acking[seqs[i]] = 1;
	}
	spool_ack(spool, b);
	for (size_t i = 0; i < n; i++)
		sh->acked[seqs[i]] = 1;
}

static void victim(struct shared *sh)
{
	struct spool_options o = {.dir = dir, .max_bytes = 64 * MIB, .segment_bytes = 60000};
	struct spool *spool = NULL;
	struct spool_batch *out[8], *b;
	static char body[4][301];
	size_t outs = 0;

	if (spool_open(&o, &spool, NULL) < 0)
		_exit(1); /* Check's own functions would write to what its parent reads */
	for (;;) {
		struct spool_item items[4];
		size_t n = 1 + (size_t)random() % 4;
		uint64_t seq = sh->next;
		int rc;

		for (size_t i = 0; i < n; i++)
			items[i] = item_of(seq + i, body[i]);
		sh->next += n;
		while (sh->next >= KILL_TOTAL)
			pause();
		rc = spool_append(spool, items, n);
		for (int i = 0; i < rc; i++)
			sh->kept[seq + (uint64_t)i] = 1;
		if (random() % 3 == 0 && outs < 8 && spool_read(spool, 20, 3000, &b) == 1) {
			for (size_t i = 0; i < b->count; i++)
				sh->out[b->records[i].seq] = 1;
			out[outs++] = b;
		}
		if (random() % 3 == 0 && outs > 0) {
			size_t which = (size_t)random() % outs;

			victim_ack(sh, spool, out[which]);
			out[which] = out[--outs];
		}
	}
}

/* Until the victim has spooled something, however long it takes to be run at all. */
static void wait_for_first(const struct shared *sh, pid_t pid)
{
	const volatile uint8_t *kept = sh->kept;
	bool any = false;

	while (!any) {
		usleep(100);
		MUST(waitpid(pid, NULL, WNOHANG) == 0);
		/* the first that it tries are among these */
		for (size_t i = 0; i < 4; i++)
			any = any || kept[i];
	}
}

/* Each life goes on with what the one before left, until the last looks at it all. The first is
 * killed when it has spooled something; the others at any moment, their first one as well. */
START_TEST(killed)
{
	struct shared *sh =
		mmap(NULL, sizeof(*sh), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct spool *spool;
	struct spool_batch *b;
	uint64_t kept = 0;

	MUST(sh != MAP_FAILED);
	srandom((unsigned int)_i + 1);
	for (int life = 0; life < 3; life++) {
		pid_t pid = fork();
		int status;

		if (pid == 0) {
			srandom((unsigned int)(_i * 3 + life));
			victim(sh);
		}
		if (life == 0)
			wait_for_first(sh, pid);
		usleep((useconds_t)(1000 + random() % 20000));
		kill(pid, SIGKILL);
		MUST(waitpid(pid, &status, 0) == pid);
		MUST(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	}
	spool = open_at(dir, 64 * MIB, 60000);
	while ((b = read_batch(spool, 100, 1 << 20))) {
		for (size_t i = 0; i < b->count; i++) {
			uint64_t seq = b->records[i].seq;

			MUST(seq < sh->next);
			MUST(!sh->acked[seq]); /* what is over does not come again */
			MUST(b->again || !sh->out[seq]);
			sh->acked[seq] = 1;
		}
		spool_ack(spool, b);
	}
	for (uint64_t i = 0; i < sh->next; i++) {
		MUST(!sh->kept[i] || sh->acking[i] || sh->acked[i]);
		kept += sh->kept[i];
	}
	ck_assert_uint_gt(kept, 0);
	MUST(stats_of(spool).lost == 0);
	MUST(stats_of(spool).lost_bytes == 0);
	spool_free(spool);
	munmap(sh, sizeof(*sh));
}
END_TEST

/* ---- damage ---- */

static char image[1 << 20], cursor_image[1 << 20];
static size_t image_len, cursor_len;
static uint64_t ends[64]; /* where records end */
enum { FEW = 12 };

static void load_image(void)
{
	char name[120];

	snprintf(name, sizeof(name), "%s/spool-0000000000000001.seg", dir);
	image_len = read_file(name, image, sizeof(image));
	snprintf(name, sizeof(name), "%s/cursor", dir);
	cursor_len = read_file(name, cursor_image, sizeof(cursor_image));
	mkdir(copy, 0700);
}

/* Leaves one small segment in `image`: as a crash leaves it, or finished. */
static void make_image(bool finished)
{
	struct spool *spool = open_at(dir, MIB, 0);
	uint64_t at = SEGMENT_MARK;

	longest = 60;
	append(spool, 0, FEW);
	for (uint64_t i = 0; i < FEW; i++)
		ends[i] = at += SEGMENT_HEADER + i * 7919 % 61;
	if (!finished)
		load_image();
	spool_free(spool);
	if (finished)
		load_image();
	ck_assert_uint_eq(image_len, at + (finished ? SEGMENT_MARK : 0));
}

static struct spool *open_damaged(const char *segment, size_t len)
{
	char name[120];

	empty_dir(copy);
	snprintf(name, sizeof(name), "%s/spool-0000000000000001.seg", copy);
	write_file(name, segment, len);
	snprintf(name, sizeof(name), "%s/cursor", copy);
	write_file(name, cursor_image, cursor_len);
	return open_at(copy, MIB, 0);
}

/* Every length that a segment can be cut to. _i: finished or not. */
START_TEST(cut_short)
{
	make_image(_i == 1);
	for (size_t len = 0; len <= image_len; len++) {
		struct spool *spool = open_damaged(image, len);
		struct spool_stats s = stats_of(spool);
		uint64_t whole = 0, first = 0;

		while (whole < FEW && ends[whole] <= len)
			whole++;
		ck_assert_uint_eq(s.recovered, whole);
		if (len >= SEGMENT_MARK && len != image_len) {
			uint64_t good = whole ? ends[whole - 1] : SEGMENT_MARK;

			ck_assert_uint_eq(s.torn_bytes, len - good);
			ck_assert_uint_eq(s.torn, len > good);
		}
		append(spool, 100, 2);
		ck_assert_uint_eq(drain(spool, 5, &first, NULL), whole + 2);
		ck_assert_uint_eq(first, whole ? 0 : 100);
		ck_assert_uint_eq(stats_of(spool).lost, 0);
		spool_free(spool);
		ck_assert_int_eq(count_segments(copy), 0);
	}
}
END_TEST

/* Every byte of a segment, changed. _i: finished or not, one bit or all. */
START_TEST(flipped)
{
	make_image(_i % 2 == 1);
	for (size_t at = 0; at < image_len; at++) {
		char change = (char)(_i >= 2 ? 0xff : 1 << at % 8);
		struct spool *spool;
		struct spool_stats s;
		uint64_t n, hit = 0;

		image[at] ^= change;
		spool = open_damaged(image, image_len);
		s = stats_of(spool);
		n = drain(spool, 5, NULL, NULL);
		while (hit < FEW && at >= ends[hit])
			hit++;
		if (at < SEGMENT_MARK)
			/* a segment that was finished is known by its other end */
			ck_assert_uint_eq(n, _i % 2 ? FEW : 0);
		else if (hit == FEW) /* the trailer */
			ck_assert_uint_eq(n, FEW);
		else
			ck_assert_uint_eq(n, FEW - 1);
		/* the last record of one that was not finished cannot be told from a torn one */
		if (at >= SEGMENT_MARK && hit < FEW && (_i % 2 == 1 || hit < FEW - 1)) {
			ck_assert_uint_eq(stats_of(spool).lost, 1);
			ck_assert_uint_eq(stats_of(spool).lost_bytes,
				ends[hit] - (hit ? ends[hit - 1] : SEGMENT_MARK));
			ck_assert_uint_eq(s.recovered, FEW);
		} else {
			ck_assert_uint_eq(stats_of(spool).lost, 0);
		}
		spool_free(spool);
		image[at] ^= change;
	}
}
END_TEST

/* Every byte of the cursor, changed: nothing is lost, and nothing comes again without a mark. */
START_TEST(flipped_cursor)
{
	struct spool *spool = open_at(dir, MIB, 0);
	struct spool_batch *over;

	longest = 60;
	append(spool, 0, FEW);
	over = read_batch(spool, 2, 1000);
	read_batch(spool, 2, 1000);
	spool_ack(spool, over);
	spool_free(spool);
	load_image();
	for (size_t at = 0; at < cursor_len; at++) {
		uint64_t n, again;

		cursor_image[at] ^= (char)(1 << at % 8);
		spool = open_damaged(image, image_len);
		n = drain(spool, 5, NULL, &again);
		ck_assert_uint_ge(n, FEW - 2);
		ck_assert_uint_ge(again, n - (FEW - 4));
		ck_assert_uint_eq(stats_of(spool).lost, 0);
		spool_free(spool);
		cursor_image[at] ^= (char)(1 << at % 8);
	}
}
END_TEST

/* Pieces of a larger spool overwritten, with zeros, other bytes, or bytes of another place. */
START_TEST(overwritten)
{
	struct spool *spool = open_at(dir, 4 * MIB, 40000);
	uint64_t number, n, total = 1500;
	const struct dirent *e;
	DIR *d;

	longest = 2000;
	srandom((unsigned int)_i);
	append(spool, 0, total);
	spool_free(spool);
	d = opendir(dir);
	while ((e = readdir(d))) {
		size_t len, at, from, piece;
		char name[400];

		if (!segment_number(e->d_name, &number) || random() % 2)
			continue;
		snprintf(name, sizeof(name), "%s/%s", dir, e->d_name);
		len = read_file(name, image, sizeof(image));
		piece = (size_t)random() % 9000;
		at = (size_t)random() % (len - MIN(len - 1, piece));
		from = (size_t)random() % (len - MIN(len - 1, piece));
		piece = MIN(piece, len - MAX(at, from));
		if (_i % 3 == 0)
			memset(image + at, 0, piece);
		else if (_i % 3 == 1)
			memmove(image + at, image + from, piece);
		else
			for (size_t i = at; i < at + piece; i++)
				image[i] = (char)random();
		write_file(name, image, len);
	}
	closedir(d);
	spool = open_at(dir, 4 * MIB, 40000);
	n = drain(spool, 20, NULL, NULL);
	ck_assert_uint_gt(n, total / 3);
	ck_assert_uint_le(n + stats_of(spool).lost, total);
	ck_assert(n == total || stats_of(spool).lost_bytes + stats_of(spool).torn_bytes > 0);
	spool_free(spool);
	ck_assert_int_eq(count_segments(dir), 0);
}
END_TEST

/* Files that are not its own. */
START_TEST(strangers)
{
	static const char *const names[] = {"notes.txt", "spool-1.seg",
		"spool-00000000000000ZZ.seg", "spool-000000000000000A.seg", "lost+found"};
	struct spool *spool = open_at(dir, MIB, 0);
	char name[400], other[400];

	append(spool, 0, 10);
	spool_free(spool);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(name, sizeof(name), "%s/%s", dir, names[i]);
		write_file(name, "mine", 4);
	}
	/* its names, but no files of its own */
	snprintf(name, sizeof(name), "%s/spool-0000000000000077.seg", dir);
	ck_assert_int_eq(mkfifo(name, 0600), 0);
	snprintf(name, sizeof(name), "%s/spool-0000000000000078.seg", dir);
	ck_assert_int_eq(mkdir(name, 0700), 0);
	snprintf(name, sizeof(name), "%s/spool-0000000000000079.seg", dir);
	ck_assert_int_eq(symlink("/etc/passwd", name), 0);
	/* a segment under another's name */
	snprintf(name, sizeof(name), "%s/spool-0000000000000001.seg", dir);
	snprintf(other, sizeof(other), "%s/spool-0000000000000080.seg", dir);
	ck_assert_int_eq(link(name, other), 0);
	spool = open_at(dir, MIB, 0);
	ck_assert_uint_eq(stats_of(spool).foreign, 9);
	append(spool, 10, 5);
	ck_assert_uint_eq(drain(spool, 4, NULL, NULL), 15);
	spool_free(spool);
	ck_assert_int_eq(count_segments(dir), 4);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(name, sizeof(name), "%s/%s", dir, names[i]);
		ck_assert_uint_eq(read_file(name, image, sizeof(image)), 4);
	}
}
END_TEST

/* The directory goes away: what is open is read, the rest is counted, and it goes on. */
START_TEST(vanished)
{
	struct spool *spool = open_at(dir, 4 * MIB, 20000);
	uint64_t n;

	longest = 300;
	append(spool, 0, 1000);
	spool_ack(spool, read_batch(spool, 3, 10000));
	empty_dir(dir);
	ck_assert_int_eq(rmdir(dir), 0);
	append(spool, 1000, 500);
	ck_assert_int_gt(count_segments(dir), 3);
	n = drain(spool, 10, NULL, NULL);
	ck_assert_uint_gt(n, 500);
	ck_assert_uint_lt(n, 1497);
	ck_assert_uint_eq(stats_of(spool).lost, 1497 - n);
	append(spool, 2000, 10);
	spool_free(spool);
	spool = open_at(dir, 4 * MIB, 20000);
	ck_assert_uint_eq(drain(spool, 10, NULL, NULL), 10);
	spool_free(spool);
}
END_TEST

/* ---- writes that fail ---- */

/* Nothing half written stays, whatever fails, and it works again. */
START_TEST(failing_writes)
{
	static const int plans[][6] = {
		{ENOSPC},
		{-20, ENOSPC},
		{-SEGMENT_HEADER, ENOSPC},
		{-SEGMENT_HEADER, -100, EIO},
		{-1, -1, -1, -1, EDQUOT},
		{EINTR, -10, EINTR, -30, EINTR},
	};
	struct spool *spool = open_at(dir, MIB, 0);
	uint64_t n = 0, errors = 0;

	longest = 300;
	for (int round = 0; round < 20; round++)
		for (size_t i = 0; i < ARRAY_SIZE(plans); i++) {
			bool passes = i == ARRAY_SIZE(plans) - 1;
			int rc;

			set_faults(plans[i], 6);
			rc = try_append(spool, n);
			set_faults(NULL, 0);
			if (passes || rc == 1) { /* or its body has no byte to fail at */
				ck_assert_int_eq(rc, 1);
				n++;
				continue;
			}
			ck_assert_int_lt(rc, 0);
			ck_assert_int_eq(stats_of(spool).error, -rc);
			ck_assert_uint_eq(stats_of(spool).write_errors, ++errors);
			ck_assert_uint_eq(stats_of(spool).messages, n);
			if (stats_of(spool).segments)
				ck_assert_uint_eq(
					sum_sizes(dir) + SEGMENT_MARK, stats_of(spool).disk_bytes);
			copy_dir();
			append(spool, n++, 1);
			ck_assert_int_eq(stats_of(spool).error, 0);
		}
	copy_dir();
	ck_assert_uint_eq(drain(spool, 7, NULL, NULL), n);
	spool_free(spool);
	spool = open_at(copy, MIB, 0);
	ck_assert_uint_eq(stats_of(spool).torn, 0);
	ck_assert_uint_eq(drain(spool, 7, NULL, NULL), n);
	spool_free(spool);
}
END_TEST

/* Of many, those that were written whole are in; the file cannot even be cut. */
START_TEST(failing_in_the_middle)
{
	static const int plan[] = {-SEGMENT_HEADER, ENOSPC};
	struct spool *spool = open_at(dir, MIB, 0);
	struct spool_item items[3];
	char bodies[3][301];

	longest = 300;
	append(spool, 1, 5);
	for (size_t i = 0; i < 3; i++)
		items[i] = item_of(i + 10, bodies[i]);
	items[0].body.len = 0; /* its header is all there is of it */
	set_faults(plan, 2);
	cut_fault = _i ? EIO : 0;
	ck_assert_int_eq(spool_append(spool, items, 1), 1);
	set_faults(plan, 2);
	ck_assert_int_eq(spool_append(spool, items + 1, 2), -ENOSPC);
	set_faults(NULL, 0);
	cut_fault = 0;
	items[0] = item_of(20, bodies[0]);
	ck_assert_int_eq(spool_append(spool, items, 1), 1);
	ck_assert_uint_eq(stats_of(spool).messages, 7);
	copy_dir();
	for (int life = 0; life < 2; life++) {
		struct spool_batch *b;
		uint64_t n = 0;

		while (spool_read(spool, 100, 10000, &b) == 1) {
			n += b->count;
			spool_ack(spool, b);
		}
		ck_assert_uint_eq(n, 7);
		ck_assert_uint_eq(stats_of(spool).lost, 0);
		spool_free(spool);
		if (life == 0)
			spool = open_at(copy, MIB, 0);
	}
}
END_TEST

/* The cursor cannot be written: what was handed out comes again, and nothing is lost. */
START_TEST(failing_cursor)
{
	static const int plan[] = {ENOSPC, ENOSPC, ENOSPC, ENOSPC};
	struct spool *spool = open_at(dir, MIB, 0);

	append(spool, 0, 10);
	set_faults(plan, 4);
	spool_ack(spool, read_batch(spool, 5, 10000));
	copy_dir();
	ck_assert_uint_ge(stats_of(spool).cursor_errors, 2);
	set_faults(NULL, 0);
	ck_assert_uint_eq(drain(spool, 5, NULL, NULL), 5);
	spool_free(spool);
	spool = open_at(copy, MIB, 0);
	ck_assert_uint_eq(drain(spool, 5, NULL, NULL), 10);
	spool_free(spool);
}
END_TEST

/* In a mount namespace of its own, where that is allowed. */
static bool mount_small(const char *options, unsigned long flags)
{
	mkdir(dir, 0700);
	return unshare(CLONE_NEWNS) == 0 && mount("", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
	       mount("tmpfs", dir, "tmpfs", flags, options) == 0;
}

START_TEST(disk_full)
{
	struct spool *spool;
	uint64_t n = 0, cost, first;
	int rc;

	if (!mount_small("size=1m", 0))
		return;
	longest = 3000;
	spool = open_at(dir, 64 * MIB, 100000);
	while ((rc = try_append(spool, n)) == 1)
		n++;
	ck_assert_int_eq(rc, -ENOSPC);
	ck_assert_int_eq(stats_of(spool).error, ENOSPC);
	ck_assert_int_eq(try_append(spool, n), -ENOSPC);
	ck_assert_uint_eq(stats_of(spool).messages, n);
	copy_dir();
	/* reading and acknowledging goes on, and makes room */
	spool_ack(spool, read_batch(spool, 20, 1 << 20));
	cost = spool_drop_oldest(spool, NULL);
	ck_assert_uint_gt(cost, 0);
	/* one that is being synced goes away a little later */
	for (uint64_t i = n; i < n + 10; i += rc == 1) {
		rc = try_append(spool, i);
		if (rc != 1)
			usleep(1000);
	}
	ck_assert_int_eq(stats_of(spool).error, 0);
	ck_assert_uint_eq(drain(spool, 10, &first, NULL), n + 10 - cost - 20);
	spool_free(spool);
	/* another life begins on a full disk */
	spool = open_at(copy, 64 * MIB, 100000);
	ck_assert_uint_eq(drain(spool, 10, &first, NULL), n);
	ck_assert_uint_eq(first, 0);
	ck_assert_uint_eq(stats_of(spool).torn, 0);
	spool_free(spool);
	umount(dir);
}
END_TEST

START_TEST(read_only)
{
	struct spool_options o = {.dir = dir, .max_bytes = MIB};
	struct spool *spool = NULL;
	struct err err;

	if (!mount_small("size=1m", MS_RDONLY))
		return;
	ck_assert_int_eq(spool_open(&o, &spool, &err), -EROFS);
	ck_assert_ptr_nonnull(strstr(err.text, dir));
	umount(dir);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("spool");
	TCase *t = tcase_create("spool");
	SRunner *runner;
	int failed;

	tcase_set_timeout(t, 300);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, refused);
	tcase_add_test(t, first_in_first_out);
	tcase_add_test(t, sizes);
	tcase_add_test(t, limit);
	tcase_add_test(t, drop_while_out);
	tcase_add_loop_test(t, restart, 0, 2);
	tcase_add_test(t, no_cursor);
	tcase_add_loop_test(t, model, 0, 8);
	tcase_add_loop_test(t, killed, 0, 20);
	tcase_add_loop_test(t, cut_short, 0, 2);
	tcase_add_loop_test(t, flipped, 0, 4);
	tcase_add_test(t, flipped_cursor);
	tcase_add_loop_test(t, overwritten, 0, 12);
	tcase_add_test(t, strangers);
	tcase_add_test(t, vanished);
	tcase_add_test(t, failing_writes);
	tcase_add_loop_test(t, failing_in_the_middle, 0, 2);
	tcase_add_test(t, failing_cursor);
	tcase_add_test(t, disk_full);
	tcase_add_test(t, read_only);
	suite_add_tcase(s, t);
	runner = srunner_create(s);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
