/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "pkg/sink/syncer.h"

#define WAITING 48 /* files: a segment's end brings three */

struct syncer {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	pthread_t thread;
	bool started;
	bool stop;
	bool busy;
	struct {
		int fd; /* -1: forgotten */
		uint64_t tag;
	} files[WAITING];
	size_t first, count;
	uint64_t failed;
};

int syncer_new(struct syncer **ret_syncer)
{
	struct syncer *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->changed, NULL);
	*ret_syncer = s;
	return 0;
}

static void *run(void *ctx)
{
	struct syncer *s = ctx;

	pthread_mutex_lock(&s->lock);
	for (;;) {
		int fd, rc;

		while (s->count == 0 && !s->stop)
			pthread_cond_wait(&s->changed, &s->lock);
		if (s->count == 0)
			break;
		fd = s->files[s->first].fd;
		s->first = (s->first + 1) % WAITING;
		s->count--;
		s->busy = true;
		pthread_mutex_unlock(&s->lock);
		rc = fd < 0 ? 0 : fsync(fd);
		closep(&fd);
		pthread_mutex_lock(&s->lock);
		s->busy = false;
		s->failed += rc < 0;
		pthread_cond_broadcast(&s->changed);
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

static int start(struct syncer *s)
{
	sigset_t all, old;
	int rc;

	if (s->started)
		return 0;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	rc = pthread_create(&s->thread, NULL, run, s);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	s->started = rc == 0;
	return -rc;
}

bool syncer_add(struct syncer *s, int fd, uint64_t tag)
{
	bool added = false;
	int copy;

	if (start(s) < 0)
		return false;
	copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (copy < 0)
		return false;
	pthread_mutex_lock(&s->lock);
	if (s->count < WAITING) {
		size_t at = (s->first + s->count++) % WAITING;

		s->files[at].fd = TAKE_FD(copy);
		s->files[at].tag = tag;
		added = true;
		pthread_cond_broadcast(&s->changed);
	}
	pthread_mutex_unlock(&s->lock);
	closep(&copy);
	return added;
}

void syncer_forget(struct syncer *s, uint64_t tag)
{
	pthread_mutex_lock(&s->lock);
	for (size_t i = 0; i < s->count; i++) {
		size_t at = (s->first + i) % WAITING;

		if (s->files[at].tag == tag)
			closep(&s->files[at].fd);
	}
	pthread_mutex_unlock(&s->lock);
}

void syncer_wait(struct syncer *s)
{
	pthread_mutex_lock(&s->lock);
	while (s->count > 0 || s->busy)
		pthread_cond_wait(&s->changed, &s->lock);
	pthread_mutex_unlock(&s->lock);
}

uint64_t syncer_failed(struct syncer *s)
{
	uint64_t failed;

	pthread_mutex_lock(&s->lock);
	failed = s->failed;
	pthread_mutex_unlock(&s->lock);
	return failed;
}

void syncer_free(struct syncer *s)
{
	if (!s)
		return;
	pthread_mutex_lock(&s->lock);
	s->stop = true;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
	if (s->started)
		pthread_join(s->thread, NULL);
	pthread_cond_destroy(&s->changed);
	pthread_mutex_destroy(&s->lock);
	free(s);
}
