/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "pkg/base/base.h"

#define BATCH 64

enum kind { KIND_FD, KIND_TIMER, KIND_SIGNAL };

struct loop_source {
	struct loop *loop;
	struct loop_source *next, *prev; /* in loop->sources, or next alone in loop->dead */
	enum kind kind;
	bool removed;
	int fd; /* ours, unless KIND_FD */
	int signo;
	uint32_t events;
	union {
		loop_fd_fn on_fd;
		loop_timer_fn on_timer;
		loop_signal_fn on_signal;
	};
	void *ctx;
};

struct loop {
	int epoll_fd;
	struct loop_source *sources;
	/*
	 * Removed while a batch of events is handed out: events further on in the batch may point
	 * to them, so that they are freed behind it.
	 */
	struct loop_source *dead;
	bool dispatching;
	bool quit;
	int code;
	uint64_t turns;
};

int loop_new(struct loop **ret_loop, struct err *err)
{
	struct loop *loop = calloc(1, sizeof(*loop));

	if (!loop)
		return err_set(err, ENOMEM, "event loop: out of memory");
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (loop->epoll_fd < 0) {
		int code = errno;

		free(loop);
		return err_set(err, code, "event loop: epoll_create1: %s", strerror(code));
	}
	*ret_loop = loop;
	return 0;
}

static void free_dead(struct loop *loop)
{
	while (loop->dead) {
		struct loop_source *source = loop->dead;

		loop->dead = source->next;
		free(source);
	}
}

void loop_free(struct loop *loop)
{
	if (!loop)
		return;
	while (loop->sources)
		loop_remove(loop->sources);
	free_dead(loop);
	close(loop->epoll_fd);
	free(loop);
}

void loop_freep(struct loop **loop)
{
	loop_free(*loop);
	*loop = NULL;
}

static int add_source(
	struct loop *loop, const struct loop_source *like, struct loop_source **ret_source)
{
	struct loop_source *source = malloc(sizeof(*source));
	struct epoll_event event = {.events = like->events, .data.ptr = source};

	if (!source)
		return -ENOMEM;
	*source = *like;
	source->loop = loop;
	if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, source->fd, &event) < 0) {
		int code = errno;

		free(source);
		return -code;
	}
	source->prev = NULL;
	source->next = loop->sources;
	if (source->next)
		source->next->prev = source;
	loop->sources = source;
	if (ret_source)
		*ret_source = source;
	return 0;
}

int loop_add_fd(struct loop *loop, int fd, uint32_t events, loop_fd_fn fn, void *ctx,
	struct loop_source **ret_source)
{
	struct loop_source like = {
		.kind = KIND_FD, .fd = fd, .events = events, .on_fd = fn, .ctx = ctx};

	return add_source(loop, &like, ret_source);
}

int loop_change_fd(struct loop_source *source, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.ptr = source};

	if (epoll_ctl(source->loop->epoll_fd, EPOLL_CTL_MOD, source->fd, &event) < 0)
		return -errno;
	source->events = events;
	return 0;
}

static struct timespec timespec_of_ms(uint64_t ms)
{
	return (struct timespec){
		.tv_sec = (time_t)MIN(ms / 1000, (uint64_t)INT32_MAX),
		.tv_nsec = (long)(ms % 1000) * 1000000,
	};
}

static int set_timer(int fd, uint64_t first_ms, uint64_t interval_ms)
{
	struct itimerspec spec = {
		.it_value = timespec_of_ms(first_ms),
		.it_interval = timespec_of_ms(interval_ms),
	};

	if (first_ms == 0)
		spec.it_value.tv_nsec = 1; /* zero would disarm it */
	return timerfd_settime(fd, 0, &spec, NULL) < 0 ? -errno : 0;
}

int loop_add_timer(struct loop *loop, uint64_t first_ms, uint64_t interval_ms, loop_timer_fn fn,
	void *ctx, struct loop_source **ret_source)
{
	CLEANUP(closep)
	int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	struct loop_source like = {
		.kind = KIND_TIMER, .fd = fd, .events = EPOLLIN, .on_timer = fn, .ctx = ctx};
	int r;

	if (fd < 0)
		return -errno;
	r = set_timer(fd, first_ms, interval_ms);
	if (r == 0)
		r = add_source(loop, &like, ret_source);
	if (r == 0)
		fd = -1; /* the source's now */
	return r;
}

int loop_set_timer(struct loop_source *source, uint64_t first_ms, uint64_t interval_ms)
{
	return set_timer(source->fd, first_ms, interval_ms);
}

int loop_add_signal(struct loop *loop, int signo, loop_signal_fn fn, void *ctx)
{
	struct loop_source like = {.kind = KIND_SIGNAL,
		.signo = signo,
		.events = EPOLLIN,
		.on_signal = fn,
		.ctx = ctx};
	CLEANUP(closep)
	int fd = -1;
	sigset_t set;
	int r;

	sigemptyset(&set);
	if (sigaddset(&set, signo) < 0)
		return -errno;
	fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = pthread_sigmask(SIG_BLOCK, &set, NULL);
	if (r != 0)
		return -r;
	like.fd = fd;
	r = add_source(loop, &like, NULL);
	if (r == 0)
		fd = -1; /* the source's now */
	return r;
}

void loop_remove(struct loop_source *source)
{
	struct loop *loop;

	if (!source || source->removed)
		return;
	loop = source->loop;
	source->removed = true;
	epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
	if (source->kind != KIND_FD)
		close(source->fd);

	if (source->prev)
		source->prev->next = source->next;
	else
		loop->sources = source->next;
	if (source->next)
		source->next->prev = source->prev;

	source->next = loop->dead;
	loop->dead = source;
	if (!loop->dispatching)
		free_dead(loop);
}

static void call(struct loop_source *source, uint32_t events)
{
	struct signalfd_siginfo info;
	uint64_t expirations;

	switch (source->kind) {
	case KIND_FD:
		/* An earlier callback of the batch may have changed what is wanted. */
		events &= source->events | EPOLLERR | EPOLLHUP;
		if (events)
			source->on_fd(source->ctx, source->fd, events);
		break;
	case KIND_TIMER:
		/* Nothing to read if an earlier callback of the batch set it anew. */
		if (read(source->fd, &expirations, sizeof(expirations)) == sizeof(expirations))
			source->on_timer(source->ctx);
		break;
	case KIND_SIGNAL:
		if (read(source->fd, &info, sizeof(info)) == sizeof(info))
			source->on_signal(source->ctx, source->signo);
		break;
	}
}

static int turn(struct loop *loop, int timeout_ms)
{
	struct epoll_event events[BATCH];
	int n = epoll_wait(loop->epoll_fd, events, BATCH, timeout_ms);

	if (n < 0 && errno != EINTR)
		return -errno;
	loop->turns++;
	loop->dispatching = true;
	/* What is left after a quit is reported again by the next run: level-triggered. */
	for (int i = 0; i < n && !loop->quit; i++) {
		struct loop_source *source = events[i].data.ptr;

		if (!source->removed)
			call(source, events[i].events);
	}
	loop->dispatching = false;
	free_dead(loop);
	return 0;
}

int loop_run(struct loop *loop)
{
	int r;

	while (!loop->quit) {
		r = turn(loop, -1);
		if (r < 0)
			return r;
	}
	loop->quit = false;
	return loop->code;
}

int loop_turn(struct loop *loop, uint64_t timeout_ms)
{
	int r = loop->quit ? 0 : turn(loop, (int)MIN(timeout_ms, (uint64_t)INT32_MAX));

	if (r < 0 || !loop->quit)
		return r;
	loop->quit = false;
	return 1;
}

void loop_quit(struct loop *loop, int code)
{
	loop->quit = true;
	loop->code = code;
}

uint64_t loop_turns(const struct loop *loop)
{
	return loop->turns;
}
