/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench-spool: messages of a usual size, one by one or in groups, onto the disk; all of them
 * synced; then read back in batches of 500 and acknowledged, once from the page cache and once with
 * it emptied.
 *
 * Prints one JSON object: for each round the seconds of each part, the longest call in it, and CPU
 * time per message.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "pkg/sink/spool.h"

#define MESSAGE_BYTES 1000 /* of a usual line of JSON */
#define BATCH	      500
#define GROUP_MAX     64
#define ROUNDS_MAX    51

struct part {
	double seconds;
	double cpu_ns;	/* of this thread, per message */
	double longest; /* call, in seconds */
};

struct watch {
	uint64_t start, cpu, longest, messages;
};

static _Noreturn void die(const char *what, const char *why)
{
	fprintf(stderr, "bench-spool: %s: %s\n", what, why);
	exit(1);
}

static uint64_t cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static struct watch watch_begin(void)
{
	return (struct watch){.start = clock_mono_ns(), .cpu = cpu_ns()};
}

static struct part watch_end(const struct watch *w)
{
	return (struct part){.seconds = (double)(clock_mono_ns() - w->start) / 1e9,
		.cpu_ns = (double)(cpu_ns() - w->cpu) / (double)MAX(w->messages, 1),
		.longest = (double)w->longest / 1e9};
}

/* Appends `group` with each call. */
static void fill(struct spool *spool, uint64_t messages, size_t group, struct watch *w)
{
	static char body[MESSAGE_BYTES];
	struct spool_item items[GROUP_MAX];

	for (size_t i = 0; i < sizeof(body); i++)
		body[i] = "{\"headers\":[a-z] }"[i * 7 % 18];
	for (uint64_t i = 0; i < messages; i += group) {
		size_t n = (size_t)MIN(group, messages - i);
		uint64_t before;
		int rc;

		for (size_t j = 0; j < n; j++)
			items[j] = (struct spool_item){
				.body = span_of(body, sizeof(body)), .seq = i + j, .order = j};
		before = clock_mono_ns();
		rc = spool_append(spool, items, n);
		if (rc != (int)n)
			die("append", rc < 0 ? strerror(-rc) : "not all of them");
		w->longest = MAX(w->longest, clock_mono_ns() - before);
		w->messages += n;
	}
}

/* Reads `messages` of them. */
static void drain(struct spool *spool, uint64_t messages, struct watch *w)
{
	while (w->messages < messages) {
		uint64_t before = clock_mono_ns();
		struct spool_batch *b;
		int rc = spool_read(spool, BATCH, SIZE_MAX, &b);

		if (rc != 1 || b->records[0].seq >= UINT32_MAX)
			die("read", rc < 0 ? strerror(-rc) : "messages are missing");
		w->messages += b->count;
		spool_ack(spool, b);
		w->longest = MAX(w->longest, clock_mono_ns() - before);
	}
}

/* Takes what was synced out of the page cache. */
static void forget_pages(const char *dir)
{
	DIR *d = opendir(dir);
	const struct dirent *e;

	while (d && (e = readdir(d))) {
		int fd CLEANUP(closep)
		= openat(dirfd(d), e->d_name, O_RDONLY | O_NONBLOCK);

		if (fd >= 0)
			(void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	}
	if (d)
		closedir(d);
}

static void print(const char *name, struct part p, const char *end)
{
	printf("\"%s\": {\"seconds\": %.6f, \"cpu_ns\": %.1f, \"longest\": %.6f}%s", name,
		p.seconds, p.cpu_ns, p.longest, end);
}

int main(int argc, char **argv)
{
	uint64_t rounds = 3, mib = 512, group = 1, messages;
	struct spool_options options = {0};
	struct spool *spool = NULL;
	struct err err;

	for (int i = 1; i + 1 < argc; i += 2) {
		if (strcmp(argv[i], "--dir") == 0)
			options.dir = argv[i + 1];
		else if (strcmp(argv[i], "--mib") == 0 &&
			 num_parse(span_str(argv[i + 1]), 1, 65536, &mib) == 0)
			continue;
		else if (strcmp(argv[i], "--group") == 0 &&
			 num_parse(span_str(argv[i + 1]), 1, GROUP_MAX, &group) == 0)
			continue;
		else if (strcmp(argv[i], "--rounds") != 0 ||
			 num_parse(span_str(argv[i + 1]), 1, ROUNDS_MAX, &rounds))
			options.dir = NULL;
	}
	if (!options.dir)
		die("usage", "bench-spool --dir DIR [--mib N] [--group N] [--rounds N]");
	options.max_bytes = mib * 3 << 20;
	messages = (mib << 20) / MESSAGE_BYTES;
	if (spool_open(&options, &spool, &err))
		die("open", err.text);
	printf("{\"messages\": %" PRIu64 ", \"message_bytes\": %d, \"rounds\": [\n", messages,
		MESSAGE_BYTES);
	for (uint64_t i = 0; i < rounds; i++) {
		struct part append, synced, warm, cold;
		struct watch w = watch_begin();
		int rc;

		fill(spool, messages, (size_t)group, &w);
		append = watch_end(&w);
		rc = spool_sync(spool);
		if (rc < 0)
			die("sync", strerror(-rc));
		synced = watch_end(&w);
		w = watch_begin();
		drain(spool, messages, &w);
		warm = watch_end(&w);
		fill(spool, messages, (size_t)group, &w);
		if (spool_sync(spool) < 0)
			die("sync", strerror(errno));
		forget_pages(options.dir);
		w = watch_begin();
		drain(spool, messages, &w);
		cold = watch_end(&w);
		printf("  {");
		print("append", append, ", ");
		print("synced", synced, ", ");
		print("warm", warm, ", ");
		print("cold", cold, i + 1 < rounds ? "},\n" : "}\n");
	}
	printf("]}\n");
	spool_free(spool);
	return 0;
}
