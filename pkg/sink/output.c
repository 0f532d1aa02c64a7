/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A ring of bytes between two threads. Positions only grow; at = position modulo capacity.
 *
 *	tail  <=  published  <=  head
 *
 * The caller copies lines to head without telling anybody; sink_kick() publishes them. The writer
 * moves tail, and counts a line when its newline has been taken. Nobody locks per message: the lock
 * is for the writer's accounting after each write(2), and for sink_flush(), which must be able to
 * call off the writer at a moment when it is known what has been written.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "pkg/sink/internal.h"

#define BUFFER_MIN   ((size_t)64 << 10)
#define PIECE_MAX    ((size_t)256 << 10) /* of one write(2) */
#define DISK_WAIT_MS 500		 /* until a full disk is tried again */
#define EXIT_WAIT_MS 500		 /* that sink_free() gives the writer to come back */
#define CACHE_LINE   64

struct output {
	struct sink sink;
	char *ring;
	size_t cap;
	size_t batch;	/* unpublished bytes beyond which sink_write() publishes by itself */
	int fd;		/* what is written to: the caller's, or own_fd */
	int own_fd;	/* -1, or the same pipe opened once more, not blocking */
	int wake_fd;	/* eventfd: wakes the writer */
	bool is_socket; /* written by send(MSG_DONTWAIT) */
	bool may_block; /* write(2) can hang for as long as the reader likes */
	pthread_t thread;

	/* the caller's */
	alignas(CACHE_LINE) _Atomic uint64_t head;
	_Atomic uint64_t emitted;
	_Atomic uint64_t dropped[SINK_DROP_MAX]; /* CLOSED: the writer's as well */
	size_t head_at;
	uint64_t tail_seen; /* tail is at least this */

	/* from the caller to the writer */
	alignas(CACHE_LINE) _Atomic uint64_t published;
	atomic_bool sleeping;
	atomic_bool stop;

	/* the writer's */
	alignas(CACHE_LINE) _Atomic uint64_t tail;
	_Atomic uint64_t delivered;
	_Atomic uint64_t delivered_bytes;
	atomic_int error;
	atomic_bool closed;
	size_t tail_at;

	pthread_mutex_t lock;
	pthread_cond_t changed; /* the ring ran empty, or the writer exited */
	bool exited;		/* under lock */
	bool orphaned;		/* under lock: the writer frees it all */
};

static void destroy(struct output *s)
{
	closep(&s->own_fd);
	closep(&s->wake_fd);
	free(s->ring);
	free(s);
}

static void destroy_started(struct output *s)
{
	pthread_cond_destroy(&s->changed);
	pthread_mutex_destroy(&s->lock);
	destroy(s);
}

/* ---- the writer ---- */

static uint64_t count_lines(const char *p, size_t len)
{
	const char *end = p + len;
	uint64_t lines = 0;

	while (p < end) {
		p = memchr(p, '\n', (size_t)(end - p));
		if (!p)
			break;
		lines++;
		p++;
	}
	return lines;
}

static void wake_clear(struct output *s)
{
	uint64_t n;

	/* EAGAIN: somebody was faster than poll(); nothing is lost */
	(void)!read(s->wake_fd, &n, sizeof(n));
}

static void wake(struct output *s)
{
	uint64_t one = 1;

	/* EAGAIN: the counter is full, so that it is awake */
	(void)!write(s->wake_fd, &one, sizeof(one));
}

/* Until there is more to write, or to stop. */
static void sleep_until_kicked(struct output *s, uint64_t tail)
{
	struct pollfd pfd = {.fd = s->wake_fd, .events = POLLIN};

	pthread_mutex_lock(&s->lock);
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
	/*
	 * Both sides exchange this flag: either sink_kick() sees that we sleep, or our exchange
	 * comes after its one, and then we see what it published.
	 */
	atomic_exchange(&s->sleeping, true);
	if (atomic_load(&s->published) == tail && !atomic_load(&s->stop)) {
		poll(&pfd, 1, -1);
		wake_clear(s);
	}
	atomic_exchange(&s->sleeping, false);
}

/* Until fd may take more (fd -1: for timeout_ms), or to stop. */
static void wait_writable(struct output *s, int fd, int timeout_ms)
{
	struct pollfd pfds[] = {
		{.fd = s->wake_fd, .events = POLLIN},
		{.fd = fd, .events = POLLOUT},
	};

	poll(pfds, 2, timeout_ms);
	if (pfds[0].revents)
		wake_clear(s);
}

static ssize_t write_piece(struct output *s, const char *p, size_t len)
{
	ssize_t n;

	n = s->is_socket ? send(s->fd, p, len, MSG_DONTWAIT | MSG_NOSIGNAL) : write(s->fd, p, len);
	return n < 0 ? -errno : n;
}

/* len bytes behind tail left the ring; lines of them ended. Under lock. */
static void advance(struct output *s, size_t len)
{
	s->tail_at += len;
	if (s->tail_at >= s->cap)
		s->tail_at -= s->cap;
	atomic_store_explicit(&s->tail, atomic_load(&s->tail) + len, memory_order_release);
}

/* The next piece, whatever becomes of it. Returns 0, or why it has to wait. Under lock. */
static int account(struct output *s, const char *p, size_t len, ssize_t n)
{
	if (n > 0) {
		atomic_store(&s->delivered, atomic_load(&s->delivered) + count_lines(p, (size_t)n));
		atomic_store(&s->delivered_bytes, atomic_load(&s->delivered_bytes) + (uint64_t)n);
		atomic_store(&s->error, 0);
		advance(s, (size_t)n);
		return 0;
	}
	switch (n) {
	case 0:
	case -ENOSPC:
	case -EDQUOT:
	case -ENOMEM:
	case -ENOBUFS:
		atomic_store(&s->error, n == 0 ? EIO : (int)-n);
		return -ENOSPC;
	case -EAGAIN:
		return -EAGAIN;
	case -EINTR:
		return 0;
	default:
		atomic_store(&s->error, (int)-n);
		atomic_store(&s->closed, true);
		return 0;
	}
}

static void discard(struct output *s, const char *p, size_t len)
{
	atomic_fetch_add(&s->dropped[SINK_DROP_CLOSED], count_lines(p, len));
	advance(s, len);
}

static void *writer(void *ctx)
{
	struct output *s = ctx;
	bool orphaned;

	pthread_mutex_lock(&s->lock);
	/* stop is set under lock: after it nothing is written or counted here any more */
	while (!atomic_load(&s->stop)) {
		uint64_t tail = atomic_load_explicit(&s->tail, memory_order_relaxed);
		uint64_t ready = atomic_load(&s->published) - tail;
		const char *p = s->ring + s->tail_at;
		size_t len = MIN(MIN(ready, s->cap - s->tail_at), PIECE_MAX);
		ssize_t n;
		int r;

		if (len == 0) {
			pthread_mutex_unlock(&s->lock);
			sleep_until_kicked(s, tail);
			pthread_mutex_lock(&s->lock);
			continue;
		}
		if (atomic_load(&s->closed)) {
			discard(s, p, len);
			continue;
		}
		if (s->may_block)
			pthread_mutex_unlock(&s->lock);
		n = write_piece(s, p, len);
		if (s->may_block)
			pthread_mutex_lock(&s->lock);
		if (atomic_load(&s->stop))
			break;
		r = account(s, p, len, n);
		if (r < 0) {
			pthread_mutex_unlock(&s->lock);
			if (r == -EAGAIN)
				wait_writable(s, s->fd, -1);
			else
				wait_writable(s, -1, DISK_WAIT_MS);
			pthread_mutex_lock(&s->lock);
		}
	}
	s->exited = true;
	orphaned = s->orphaned;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
	if (orphaned)
		destroy_started(s);
	return NULL;
}

/* ---- making one ---- */

/*
 * O_NONBLOCK belongs to the open file, which others share (a shell's terminal, a pipe inherited by
 * children). A pipe can be opened once more, with a flag of its own; a socket has MSG_DONTWAIT.
 * Where neither goes, write(2) may hang, and the writer with it.
 */
static int choose_how(struct output *s, int fd, struct err *err)
{
	int flags = fcntl(fd, F_GETFL);
	char path[32];
	struct stat st;
	int code;

	if (flags < 0 || fstat(fd, &st) < 0) {
		code = errno;
		return err_set(err, code, "output: %s", strerror(code));
	}
	if ((flags & O_ACCMODE) == O_RDONLY)
		return err_set(err, EBADF, "output: not open for writing");
	s->fd = fd;
	s->is_socket = S_ISSOCK(st.st_mode);
	s->may_block = !s->is_socket && !(flags & O_NONBLOCK);
	if (S_ISFIFO(st.st_mode) && s->may_block) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		s->own_fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
		if (s->own_fd >= 0) {
			s->fd = s->own_fd;
			s->may_block = false;
		}
	}
	return 0;
}

static int init_lock(struct output *s)
{
	pthread_condattr_t attr;
	int r;

	r = pthread_mutex_init(&s->lock, NULL);
	if (r != 0)
		return -r;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	r = pthread_cond_init(&s->changed, &attr);
	pthread_condattr_destroy(&attr);
	if (r != 0)
		pthread_mutex_destroy(&s->lock);
	return -r;
}

static int start_writer(struct output *s, struct err *err)
{
	sigset_t all, before;
	int r;

	r = init_lock(s);
	if (r < 0)
		return err_set(err, -r, "output: %s", strerror(-r));
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = pthread_create(&s->thread, NULL, writer, s);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (r != 0) {
		pthread_cond_destroy(&s->changed);
		pthread_mutex_destroy(&s->lock);
		return err_set(err, r, "output: starting the writer: %s", strerror(r));
	}
	pthread_setname_np(s->thread, "sink");
	return 0;
}

static int new_output(int fd, size_t max_bytes, struct output **ret_output, struct err *err)
{
	struct output *s;
	int r;

	if (max_bytes < BUFFER_MIN)
		return err_set(err, EINVAL,
			"output: a buffer of %zu bytes is too small: %zu at least", max_bytes,
			BUFFER_MIN);
	s = aligned_alloc(CACHE_LINE, sizeof(*s));
	if (!s)
		return err_set(err, ENOMEM, "output: out of memory");
	memset(s, 0, sizeof(*s));
	s->cap = max_bytes;
	s->batch = MIN(PIECE_MAX, max_bytes / 4);
	s->own_fd = -1;
	s->wake_fd = -1;
	r = choose_how(s, fd, err);
	if (r == 0) {
		s->ring = malloc(max_bytes);
		s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (!s->ring)
			r = err_set(err, ENOMEM, "output: no memory for a buffer of %zu bytes",
				max_bytes);
		else if (s->wake_fd < 0)
			r = err_set(err, errno, "output: eventfd: %s", strerror(errno));
	}
	if (r == 0)
		r = start_writer(s, err);
	if (r < 0) {
		destroy(s);
		return r;
	}
	*ret_output = s;
	return 0;
}

static struct timespec deadline(uint64_t ms)
{
	uint64_t ns = clock_mono_ns() + MIN(ms, UINT64_C(1) << 32) * 1000000;

	return (struct timespec){
		.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};
}

static void output_free(struct sink *sink)
{
	struct output *s = (struct output *)sink;
	struct timespec until;
	pthread_t thread;
	bool exited;

	until = deadline(EXIT_WAIT_MS);
	pthread_mutex_lock(&s->lock);
	atomic_store(&s->stop, true);
	wake(s);
	while (!s->exited && pthread_cond_timedwait(&s->changed, &s->lock, &until) == 0)
		;
	exited = s->exited;
	thread = s->thread;
	/* If it hangs in write(2), with our memory, that is left to it. */
	s->orphaned = !exited;
	pthread_mutex_unlock(&s->lock);
	if (!exited) {
		pthread_detach(thread);
		return;
	}
	pthread_join(thread, NULL);
	destroy_started(s);
}

/* ---- the caller ---- */

static int drop(struct output *s, enum sink_drop reason)
{
	atomic_fetch_add(&s->dropped[reason], 1);
	return reason == SINK_DROP_FULL ? -ENOBUFS : -EPIPE;
}

static bool has_room(struct output *s, uint64_t head, size_t len)
{
	if (len <= s->cap - (head - s->tail_seen))
		return true;
	/* the writer's cache line: looked at only when what is known of it does not do */
	s->tail_seen = atomic_load_explicit(&s->tail, memory_order_acquire);
	return len <= s->cap - (head - s->tail_seen);
}

static void copy_in(struct output *s, const char *line, size_t len)
{
	size_t first = MIN(len, s->cap - s->head_at);

	memcpy(s->ring + s->head_at, line, first);
	if (first < len)
		memcpy(s->ring, line + first, len - first);
	s->head_at += len;
	if (s->head_at >= s->cap)
		s->head_at -= s->cap;
}

static void kick(struct output *s)
{
	uint64_t head = atomic_load_explicit(&s->head, memory_order_relaxed);

	if (head == atomic_load_explicit(&s->published, memory_order_relaxed))
		return;
	atomic_store_explicit(&s->published, head, memory_order_release);
	if (atomic_exchange(&s->sleeping, false))
		wake(s);
}

static int output_write(struct sink *sink, const struct sink_message *message)
{
	struct output *s = (struct output *)sink;
	const char *line = message->line.p;
	size_t len = message->line.len;
	uint64_t head = atomic_load_explicit(&s->head, memory_order_relaxed);
	uint64_t emitted = atomic_load_explicit(&s->emitted, memory_order_relaxed);

	if (len == 0 || line[len - 1] != '\n')
		return -EINVAL;
	/* Before the line itself, or its drop: nobody ever sees more of these than emitted. */
	atomic_store_explicit(&s->emitted, emitted + 1, memory_order_relaxed);
	if (unlikely(atomic_load_explicit(&s->closed, memory_order_relaxed)))
		return drop(s, SINK_DROP_CLOSED);
	if (unlikely(atomic_load_explicit(&s->stop, memory_order_relaxed)))
		return drop(s, SINK_DROP_SHUTDOWN);
	if (unlikely(!has_room(s, head, len))) {
		kick(s);
		return drop(s, SINK_DROP_FULL);
	}
	copy_in(s, line, len);
	head += len;
	atomic_store_explicit(&s->head, head, memory_order_relaxed);
	if (head - atomic_load_explicit(&s->published, memory_order_relaxed) >= s->batch)
		kick(s);
	return 0;
}

static void output_stats(struct sink *sink, struct sink_stats *ret_stats)
{
	struct output *s = (struct output *)sink;
	struct sink_stats stats = {0};
	uint64_t done, tail;

	/*
	 * What became of messages is read before how many there were: nothing counts there that
	 * was not emitted before.
	 */
	stats.delivered_bytes = atomic_load(&s->delivered_bytes);
	done = stats.delivered = atomic_load(&s->delivered);
	for (int i = 0; i < SINK_DROP_MAX; i++)
		done += stats.dropped[i] = atomic_load(&s->dropped[i]);
	stats.error = atomic_load(&s->error);
	stats.emitted = atomic_load(&s->emitted);
	stats.queued = stats.emitted - done;
	tail = atomic_load(&s->tail);
	if (!atomic_load(&s->stop))
		stats.queued_bytes = atomic_load(&s->head) - tail;
	*ret_stats = stats;
}

static uint64_t output_flush(struct sink *sink, uint64_t timeout_ms)
{
	struct output *s = (struct output *)sink;
	struct timespec until = deadline(timeout_ms);
	struct sink_stats stats;
	uint64_t left = 0;

	kick(s);
	pthread_mutex_lock(&s->lock);
	while (!atomic_load(&s->stop) && atomic_load(&s->tail) != atomic_load(&s->head) &&
		pthread_cond_timedwait(&s->changed, &s->lock, &until) == 0)
		;
	if (!atomic_load(&s->stop) && atomic_load(&s->tail) != atomic_load(&s->head)) {
		output_stats(sink, &stats);
		left = stats.queued;
		atomic_store(&s->stop, true);
		atomic_fetch_add(&s->dropped[SINK_DROP_SHUTDOWN], left);
		wake(s);
	}
	pthread_mutex_unlock(&s->lock);
	return left;
}

static void output_kick(struct sink *sink)
{
	kick((struct output *)sink);
}

static void output_wait(struct sink *sink, uint64_t most_bytes)
{
	const struct timespec nap = {.tv_nsec = 1000000};
	struct sink_stats stats;

	for (;;) {
		output_stats(sink, &stats);
		/* a full disk may stay full: what waits for it is dropped in the end, and counted
		 */
		if (stats.queued_bytes <= most_bytes || stats.dropped[SINK_DROP_CLOSED] ||
			stats.error)
			return;
		output_kick(sink);
		nanosleep(&nap, NULL);
	}
}

int sink_new(int fd, size_t max_bytes, struct sink **ret_sink, struct err *err)
{
	static const struct sink_ops ops = {
		.write = output_write,
		.kick = output_kick,
		.wait = output_wait,
		.flush = output_flush,
		.free = output_free,
		.stats = output_stats,
	};
	struct output *s = NULL;
	int r = new_output(fd, max_bytes, &s, err);

	if (r == 0) {
		s->sink.ops = &ops;
		*ret_sink = &s->sink;
	}
	return r;
}
