/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pkg/sink/sink.h"

#define SMALL ((size_t)64 << 10)

/*
 * In place of libc's: on faulty_fd each call takes the next fault. A fault > 0 is an errno, one < 0
 * writes so many bytes at most, 0 is no fault. HANG does not return while hang is set.
 */
#define HANG 100000
static atomic_int faulty_fd = -1, faults[64], next_fault;
static atomic_bool hang;

ssize_t write(int fd, const void *p, size_t len);

ssize_t write(int fd, const void *p, size_t len)
{
	int fault = 0;

	if (fd == atomic_load(&faulty_fd) && atomic_load(&next_fault) < (int)ARRAY_SIZE(faults))
		fault = atomic_load(&faults[atomic_fetch_add(&next_fault, 1)]);
	if (fault == HANG) {
		while (atomic_load(&hang))
			usleep(1000);
	} else if (fault > 0) {
		errno = fault;
		return -1;
	} else if (fault < 0) {
		len = MIN(len, (size_t)-fault);
	}
	return syscall(SYS_write, fd, p, len);
}

static struct sink *new_sink(int fd, size_t bytes)
{
	struct sink *sink = NULL;
	struct err err;

	ck_assert_msg(sink_new(fd, bytes, &sink, &err) == 0, "%s", err.text);
	return sink;
}

static struct sink_stats stats_of(struct sink *sink)
{
	struct sink_stats s;
	uint64_t sum;

	sink_stats(sink, &s);
	sum = s.delivered + s.queued;
	for (int i = 0; i < SINK_DROP_MAX; i++)
		sum += s.dropped[i];
	ck_assert_uint_eq(s.emitted, sum);
	/* no term can be more than the whole: a sum that wrapped around */
	ck_assert_uint_le(s.queued, s.emitted);
	ck_assert_uint_le(s.delivered, s.emitted);
	return s;
}

static int count_fds(void)
{
	int n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

/* "<number> aaaa...\n", of a length that depends on the number. */
static size_t make_line(char *line, uint64_t number, size_t longest)
{
	size_t len = num_format(line, number), want = 24 + (size_t)(number * 7919) % longest;

	line[len++] = ' ';
	while (len < want)
		line[len++] = (char)('a' + number % 26);
	line[len++] = '\n';
	return len;
}

/* Reads lines until the end of fd, or until `most` bytes; each must be whole, and later than the
 * one before. */
struct reader {
	int fd;
	size_t longest;
	uint64_t most;
	useconds_t pause; /* between reads */
	uint64_t lines, bytes, last_missing;
	bool torn;
};

static void *read_lines(void *ctx)
{
	static const size_t chunk = 40000;
	struct reader *r = ctx;
	char *data = malloc(chunk + 70000), *want = malloc(70000);
	uint64_t expected = 0;
	size_t kept = 0;
	ssize_t n;

	while (!r->torn && r->bytes < r->most && (n = read(r->fd, data + kept, chunk)) > 0) {
		char *p = data, *end = data + kept + n, *newline;

		r->bytes += (uint64_t)n;
		while ((newline = memchr(p, '\n', (size_t)(end - p)))) {
			uint64_t number = strtoull(p, NULL, 10);
			size_t len = make_line(want, number, r->longest);

			if (number < expected || len != (size_t)(newline + 1 - p) ||
				memcmp(p, want, len) != 0)
				r->torn = true;
			r->last_missing = number - expected;
			expected = number + 1;
			r->lines++;
			p = newline + 1;
		}
		kept = (size_t)(end - p);
		memmove(data, p, kept);
		if (r->pause)
			usleep(r->pause);
	}
	free(want);
	free(data);
	return NULL;
}

static void feed(struct sink *sink, uint64_t from, uint64_t count, size_t longest)
{
	char *line = malloc(longest + 64);

	for (uint64_t i = from; i < from + count; i++) {
		sink_write(sink, line, make_line(line, i, longest));
		if (i % 100 == 0)
			sink_kick(sink);
	}
	sink_kick(sink);
	free(line);
}

START_TEST(refused)
{
	struct sink *sink = NULL;
	struct err err;
	int fds[2], before = count_fds();

	ck_assert_int_eq(sink_new(1, SMALL - 1, &sink, &err), -EINVAL);
	ck_assert_int_eq(sink_new(999, SMALL, &sink, &err), -EBADF);
	ck_assert_int_eq(pipe(fds), 0);
	ck_assert_int_eq(sink_new(fds[0], SMALL, &sink, &err), -EBADF);
	ck_assert_ptr_nonnull(strstr(err.text, "not open for writing"));
	close(fds[0]);
	close(fds[1]);
	ck_assert_ptr_null(sink);
	ck_assert_int_eq(count_fds(), before);
	sink_free(NULL);
	ck_assert_str_eq(sink_drop_name(SINK_DROP_FULL), "full");
	ck_assert_str_eq(sink_drop_name(SINK_DROP_CLOSED), "closed");
	ck_assert_str_eq(sink_drop_name(SINK_DROP_SHUTDOWN), "shutdown");
}
END_TEST

/* 0: pipe, 1: pipe that does not block, 2: stream socket, 3: pipe of one page */
static void open_pair(int kind, int fds[2])
{
	if (kind == 2)
		ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	else
		ck_assert_int_eq(pipe(fds), 0);
	if (kind == 1)
		ck_assert_int_eq(fcntl(fds[1], F_SETFL, O_NONBLOCK), 0);
	if (kind == 3)
		ck_assert_int_gt(fcntl(fds[1], F_SETPIPE_SZ, 4096), 0);
}

/* With room for all of it, all of it comes, in order; a flush is no end. */
START_TEST(delivers)
{
	struct reader r = {.longest = 3000, .most = UINT64_MAX};
	int fds[2], flags, before = count_fds();
	struct sink_stats s;
	struct sink *sink;
	pthread_t thread;

	open_pair(_i, fds);
	r.fd = fds[0];
	flags = fcntl(fds[1], F_GETFL);
	sink = new_sink(fds[1], (size_t)16 << 20);
	ck_assert_int_eq(fcntl(fds[1], F_GETFL), flags);
	ck_assert_int_eq(sink_write(sink, "", 0), -EINVAL);
	ck_assert_int_eq(sink_write(sink, "x", 1), -EINVAL);
	ck_assert_uint_eq(sink_flush(sink, 0), 0);
	ck_assert_int_eq(pthread_create(&thread, NULL, read_lines, &r), 0);
	for (int i = 0; i < 4; i++) {
		feed(sink, (uint64_t)i * 1000, 1000, r.longest);
		if (i % 2 == 1) {
			ck_assert_uint_eq(sink_flush(sink, 60000), 0);
			s = stats_of(sink);
			ck_assert_uint_eq(s.queued, 0);
			ck_assert_uint_eq(s.queued_bytes, 0);
			ck_assert_uint_eq(s.delivered, (uint64_t)(i + 1) * 1000);
		}
	}
	s = stats_of(sink);
	sink_freep(&sink);
	close(fds[1]);
	pthread_join(thread, NULL);
	close(fds[0]);
	ck_assert(!r.torn);
	ck_assert_uint_eq(r.lines, 4000);
	ck_assert_uint_eq(s.delivered_bytes, r.bytes);
	ck_assert_int_eq(s.error, 0);
	ck_assert_int_eq(count_fds(), before);
}
END_TEST

/* The smallest buffer and a reader that is slow: lines are missing, none is torn, all are counted.
 */
START_TEST(slow_reader)
{
	struct reader r = {.longest = 2000, .most = UINT64_MAX, .pause = 200};
	struct sink_stats s;
	struct sink *sink;
	pthread_t thread;
	int fds[2];

	open_pair(_i, fds);
	r.fd = fds[0];
	sink = new_sink(fds[1], SMALL + 17);
	ck_assert_int_eq(pthread_create(&thread, NULL, read_lines, &r), 0);
	feed(sink, 0, 20000, r.longest);
	ck_assert_uint_eq(sink_flush(sink, 60000), 0);
	s = stats_of(sink);
	sink_free(sink);
	close(fds[1]);
	pthread_join(thread, NULL);
	ck_assert(!r.torn);
	ck_assert_uint_eq(s.emitted, 20000);
	ck_assert_uint_gt(s.dropped[SINK_DROP_FULL], 0);
	ck_assert_uint_eq(s.delivered, r.lines);
	ck_assert_uint_eq(s.delivered_bytes, r.bytes);
	ck_assert_uint_eq(s.queued, 0);
}
END_TEST

/* Nobody reads: the caller goes on, the flush gives up, and what counts as delivered is there. */
START_TEST(stopped_reader)
{
	struct reader r = {.longest = 2000, .most = UINT64_MAX};
	struct sink_stats s;
	struct sink *sink;
	uint64_t left;
	int fds[2];

	open_pair(_i, fds);
	sink = new_sink(fds[1], (size_t)1 << 20);
	feed(sink, 0, 5000, r.longest);
	s = stats_of(sink);
	ck_assert_uint_eq(s.emitted, 5000);
	ck_assert_uint_gt(s.dropped[SINK_DROP_FULL], 0);
	ck_assert_uint_gt(s.queued, 0);
	ck_assert_uint_gt(s.queued_bytes, SMALL);
	left = sink_flush(sink, 50);
	ck_assert_uint_gt(left, 0);
	s = stats_of(sink);
	ck_assert_uint_eq(s.dropped[SINK_DROP_SHUTDOWN], left);
	ck_assert_uint_eq(s.queued, 0);
	ck_assert_uint_eq(s.queued_bytes, 0);
	/* it is closed now */
	ck_assert_int_eq(sink_write(sink, "x\n", 2), -EPIPE);
	ck_assert_uint_eq(sink_flush(sink, 1000), 0);
	s = stats_of(sink);
	ck_assert_uint_eq(s.dropped[SINK_DROP_SHUTDOWN], left + 1);
	sink_free(sink);
	close(fds[1]);
	r.fd = fds[0];
	read_lines(&r);
	ck_assert(!r.torn);
	ck_assert_uint_eq(s.delivered, r.lines);
	ck_assert_uint_eq(s.delivered_bytes, r.bytes);
}
END_TEST

START_TEST(closed_reader)
{
	struct sink_stats s;
	struct sink *sink;
	int fds[2];

	open_pair(_i, fds);
	signal(SIGPIPE, SIG_IGN);
	sink = new_sink(fds[1], SMALL);
	close(fds[0]);
	feed(sink, 0, 10, 100);
	ck_assert_uint_eq(sink_flush(sink, 60000), 0);
	s = stats_of(sink);
	ck_assert_uint_eq(s.dropped[SINK_DROP_CLOSED], 10);
	ck_assert_int_eq(s.error, EPIPE);
	ck_assert_int_eq(sink_write(sink, "x\n", 2), -EPIPE);
	s = stats_of(sink);
	ck_assert_uint_eq(s.dropped[SINK_DROP_CLOSED], 11);
	ck_assert_uint_eq(s.queued, 0);
	sink_free(sink);
}
END_TEST

/* A reader that is killed with a part of it read. */
START_TEST(killed_reader)
{
	struct sink_stats s;
	struct sink *sink;
	int fds[2], back[2];
	pid_t child;
	char c;

	open_pair(_i, fds);
	ck_assert_int_eq(pipe(back), 0);
	signal(SIGPIPE, SIG_IGN);
	child = fork();
	if (child == 0) {
		struct reader r = {.fd = fds[0], .longest = 2000, .most = 200000};

		close(fds[1]);
		read_lines(&r);
		c = r.torn ? 't' : 'k';
		if (write(back[1], &c, 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(fds[0]);
	sink = new_sink(fds[1], (size_t)16 << 20);
	feed(sink, 0, 5000, 2000);
	ck_assert_int_eq(read(back[0], &c, 1), 1);
	ck_assert_int_eq(c, 'k');
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	feed(sink, 5000, 5000, 2000);
	ck_assert_uint_eq(sink_flush(sink, 60000), 0);
	s = stats_of(sink);
	ck_assert_uint_eq(s.emitted, 10000);
	ck_assert_uint_gt(s.delivered, 0);
	ck_assert_uint_gt(s.dropped[SINK_DROP_CLOSED], 0);
	ck_assert_uint_eq(s.queued, 0);
	ck_assert_int_ne(s.error, 0);
	sink_free(sink);
}
END_TEST

struct watcher {
	struct sink *sink;
	atomic_bool stop;
	uint64_t looks;
};

static void *watch(void *ctx)
{
	struct watcher *w = ctx;
	struct sink_stats last = {0};

	while (!atomic_load(&w->stop)) {
		struct sink_stats s = stats_of(w->sink);

		ck_assert_uint_ge(s.emitted, last.emitted);
		ck_assert_uint_ge(s.delivered, last.delivered);
		last = s;
		w->looks++;
	}
	return NULL;
}

/* A million, with one thread that only looks at the sums. */
START_TEST(million)
{
	struct reader r = {.longest = 100, .most = UINT64_MAX};
	struct watcher w = {0};
	pthread_t reader, watcher;
	struct sink_stats s;
	int fds[2];

	open_pair(0, fds);
	r.fd = fds[0];
	w.sink = new_sink(fds[1], (size_t)256 << 10);
	ck_assert_int_eq(pthread_create(&reader, NULL, read_lines, &r), 0);
	ck_assert_int_eq(pthread_create(&watcher, NULL, watch, &w), 0);
	feed(w.sink, 0, 1000000, r.longest);
	ck_assert_uint_eq(sink_flush(w.sink, 100000), 0);
	atomic_store(&w.stop, true);
	pthread_join(watcher, NULL);
	s = stats_of(w.sink);
	sink_free(w.sink);
	close(fds[1]);
	pthread_join(reader, NULL);
	ck_assert(!r.torn);
	ck_assert_uint_gt(w.looks, 0);
	ck_assert_uint_eq(s.emitted, 1000000);
	ck_assert_uint_eq(s.delivered, r.lines);
	ck_assert_uint_eq(s.delivered + s.dropped[SINK_DROP_FULL], 1000000);
	ck_assert_uint_eq(s.delivered_bytes, r.bytes);
}
END_TEST

/* Lines around the size of the buffer, at every position of the ring. */
START_TEST(wrap)
{
	size_t longest = SMALL + 2;
	char *line = malloc(longest), *got = malloc(longest);
	struct sink *sink;
	int fds[2];

	memset(line, 'x', longest);
	ck_assert_int_eq(pipe(fds), 0);
	/* so that a flush needs no reader */
	ck_assert_int_ge(fcntl(fds[1], F_SETPIPE_SZ, 1 << 18), 1 << 18);
	sink = new_sink(fds[1], SMALL);
	for (size_t len = SMALL - 20; len <= longest; len++) {
		line[len - 1] = '\n';
		ck_assert_int_eq(sink_write(sink, line, len), len <= SMALL ? 0 : -ENOBUFS);
		ck_assert_uint_eq(sink_flush(sink, 60000), 0);
		for (size_t done = 0; len <= SMALL && done < len;) {
			ssize_t n = read(fds[0], got + done, len - done);

			ck_assert_int_gt(n, 0);
			done += (size_t)n;
		}
		if (len <= SMALL)
			ck_assert_mem_eq(line, got, len);
		line[len - 1] = 'x';
	}
	/* one byte more, and two */
	ck_assert_uint_eq(stats_of(sink).dropped[SINK_DROP_FULL], 2);
	sink_free(sink);
	free(line);
	free(got);
}
END_TEST

/* What write(2) may do. A file, so that the fd is not opened once more and the faults are met. */
static struct sink *faulty_sink(FILE **ret_file, const int *list, size_t n)
{
	*ret_file = tmpfile();
	for (size_t i = 0; i < n; i++)
		atomic_store(&faults[i], list[i]);
	atomic_store(&next_fault, 0);
	atomic_store(&faulty_fd, fileno(*ret_file));
	return new_sink(fileno(*ret_file), SMALL);
}

#define FAULTY_SINK(file, ...)                        \
	faulty_sink(file, (const int[]){__VA_ARGS__}, \
		sizeof((const int[]){__VA_ARGS__}) / sizeof(int))

START_TEST(faults_that_pass)
{
	struct reader r = {.longest = 100, .most = UINT64_MAX};
	struct sink_stats s;
	struct sink *sink;
	FILE *file;

	sink = FAULTY_SINK(
		&file, EINTR, -1, -1, EINTR, -30, EAGAIN, -7, ENOMEM, -100, ENOSPC, -1, EDQUOT, -1);
	feed(sink, 0, 100, r.longest);
	ck_assert_uint_eq(sink_flush(sink, 60000), 0);
	s = stats_of(sink);
	sink_free(sink);
	ck_assert_int_eq(s.error, 0);
	ck_assert_uint_eq(s.delivered, 100);
	ck_assert_int_gt(atomic_load(&next_fault), 12);
	lseek(fileno(file), 0, SEEK_SET);
	r.fd = fileno(file);
	read_lines(&r);
	ck_assert(!r.torn);
	ck_assert_uint_eq(r.lines, 100);
	fclose(file);
}
END_TEST

START_TEST(faults_that_close)
{
	static const int codes[] = {EIO, EPIPE, EFBIG, EBADF, ECONNRESET};
	struct sink_stats s;
	struct sink *sink;
	FILE *file;

	/* half of the second line was taken */
	sink = FAULTY_SINK(&file, -60, codes[_i], codes[_i]);
	ck_assert_int_eq(sink_write(sink, "0123456789012345678901234567890123456789\n", 41), 0);
	ck_assert_int_eq(sink_write(sink, "0123456789012345678901234567890123456789\n", 41), 0);
	ck_assert_int_eq(sink_write(sink, "0123456789012345678901234567890123456789\n", 41), 0);
	ck_assert_uint_eq(sink_flush(sink, 60000), 0);
	s = stats_of(sink);
	ck_assert_int_eq(s.error, codes[_i]);
	ck_assert_uint_eq(s.delivered, 1);
	ck_assert_uint_eq(s.delivered_bytes, 60);
	ck_assert_uint_eq(s.dropped[SINK_DROP_CLOSED], 2);
	ck_assert_uint_eq(s.queued, 0);
	/* closed for good: it is not tried again */
	ck_assert_int_eq(sink_write(sink, "x\n", 2), -EPIPE);
	ck_assert_int_eq(atomic_load(&next_fault), 2);
	sink_free(sink);
	fclose(file);
}
END_TEST

START_TEST(disk_full)
{
	int fd = open("/dev/full", O_WRONLY);
	struct sink *sink = new_sink(fd, SMALL);
	struct sink_stats s;

	feed(sink, 0, 2000, 100);
	/* once it was tried, which is another thread's */
	while (stats_of(sink).error == 0)
		usleep(1000);
	ck_assert_uint_gt(sink_flush(sink, 50), 0);
	s = stats_of(sink);
	ck_assert_int_eq(s.error, ENOSPC);
	ck_assert_uint_eq(s.delivered, 0);
	ck_assert_uint_gt(s.dropped[SINK_DROP_FULL], 0);
	ck_assert_uint_eq(s.dropped[SINK_DROP_FULL] + s.dropped[SINK_DROP_SHUTDOWN], 2000);
	sink_free(sink);
	close(fd);
}
END_TEST

/* A write(2) that does not come back: flush and free do, and when it does later, it finds its
 * memory. */
START_TEST(hanging_write)
{
	struct sink_stats s;
	struct sink *sink;
	FILE *file;

	atomic_store(&hang, true);
	sink = FAULTY_SINK(&file, HANG, HANG, HANG);
	feed(sink, 0, 10, 100);
	ck_assert_uint_eq(sink_flush(sink, 50), 10);
	s = stats_of(sink);
	ck_assert_uint_eq(s.dropped[SINK_DROP_SHUTDOWN], 10);
	ck_assert_uint_eq(s.queued, 0);
	sink_free(sink);
	atomic_store(&hang, false);
	usleep(50000);
	/* it was in its first write, and began no other */
	ck_assert_int_le(atomic_load(&next_fault), 1);
	fclose(file);
}
END_TEST

/* Freed in every state: idle, with lines that nobody published, while writing, while waiting. */
START_TEST(freed)
{
	int fds[2], before = count_fds();

	for (int i = 0; i < 200; i++) {
		struct sink *sink;

		ck_assert_int_eq(pipe(fds), 0);
		sink = new_sink(fds[1], SMALL);
		if (i % 4 == 1)
			sink_write(sink, "x\n", 2);
		if (i % 4 == 2)
			feed(sink, 0, 5, 1000);
		if (i % 4 == 3)
			feed(sink, 0, 1000, 1000);
		sink_free(sink);
		close(fds[0]);
		close(fds[1]);
	}
	ck_assert_int_eq(count_fds(), before);
}
END_TEST

/* Published by itself, without a kick, before the ring is full of what nobody knows of. */
START_TEST(no_kick)
{
	struct reader r = {.longest = 100, .most = 100000};
	struct sink *sink;
	char line[200];
	int fds[2];

	ck_assert_int_eq(pipe(fds), 0);
	sink = new_sink(fds[1], (size_t)1 << 20);
	for (uint64_t i = 0; stats_of(sink).queued_bytes + stats_of(sink).delivered_bytes < 300000;
		i++)
		ck_assert_int_eq(sink_write(sink, line, make_line(line, i, 100)), 0);
	r.fd = fds[0];
	read_lines(&r);
	ck_assert(!r.torn);
	ck_assert_uint_ge(r.bytes, 100000);
	sink_free(sink);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("sink");
	TCase *t = tcase_create("sink");
	SRunner *runner;
	int failed;

	tcase_set_timeout(t, 300);
	tcase_add_test(t, refused);
	tcase_add_loop_test(t, delivers, 0, 4);
	tcase_add_loop_test(t, slow_reader, 0, 4);
	tcase_add_loop_test(t, stopped_reader, 0, 4);
	tcase_add_loop_test(t, closed_reader, 0, 4);
	tcase_add_loop_test(t, killed_reader, 0, 4);
	tcase_add_test(t, million);
	tcase_add_test(t, wrap);
	tcase_add_test(t, faults_that_pass);
	tcase_add_loop_test(t, faults_that_close, 0, 5);
	tcase_add_test(t, disk_full);
	tcase_add_test(t, hanging_write);
	tcase_add_test(t, freed);
	tcase_add_test(t, no_kick);
	suite_add_tcase(s, t);
	runner = srunner_create(s);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
