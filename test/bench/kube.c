/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench-kube: watch events from bytes in memory, in pieces as they come from a socket, to objects.
 *
 * Prints one JSON object: for each round the CPU nanoseconds per event of decoding alone, and of
 * decoding and keeping the object in a cache of 1000 as the reflector does; and the bytes of memory
 * that one object of the cache takes.
 */
#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <time.h>

#include "pkg/kube/internal.h"
#include "pkg/kube/kube.h"

#define EVENTS	   20000
#define OBJECTS	   1000
#define PIECE	   16384 /* what curl hands on at most */
#define ROUNDS_MAX 101

static struct kube_cache cache;

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "bench-kube: %s\n", what);
	exit(1);
}

/* An EbpfDump as `kubectl apply` makes it, with a status. */
static int make_event(struct buf *out, unsigned i)
{
	return buf_printf(out,
		"{\"type\":\"MODIFIED\",\"object\":{\"apiVersion\":\"research.dynatrace.com/v1alpha1\","
		"\"kind\":\"EbpfDump\",\"metadata\":{\"annotations\":{"
		"\"kubectl.kubernetes.io/last-applied-configuration\":\"{\\\"apiVersion\\\":"
		"\\\"research.dynatrace.com/v1alpha1\\\",\\\"kind\\\":\\\"EbpfDump\\\",\\\"metadata\\\":"
		"{\\\"annotations\\\":{},\\\"name\\\":\\\"dump-%u\\\",\\\"namespace\\\":\\\"team-%u\\\"},"
		"\\\"spec\\\":{\\\"callback\\\":\\\"http://receiver.team:8080/\\\",\\\"interfaces\\\":["
		"\\\"eth0\\\"]}}\\n\"},\"creationTimestamp\":\"2026-11-25T03:57:15Z\",\"generation\":1,"
		"\"managedFields\":[{\"apiVersion\":\"research.dynatrace.com/v1alpha1\",\"fieldsType\":"
		"\"FieldsV1\",\"fieldsV1\":{\"f:metadata\":{\"f:annotations\":{\".\":{},"
		"\"f:kubectl.kubernetes.io/last-applied-configuration\":{}}},\"f:spec\":{\".\":{},"
		"\"f:callback\":{},\"f:interfaces\":{}}},\"manager\":\"kubectl\",\"operation\":"
		"\"Update\",\"time\":\"2026-11-25T03:57:15Z\"}],\"name\":\"dump-%u\",\"namespace\":"
		"\"team-%u\",\"resourceVersion\":\"%u\",\"uid\":\"0b9f1e6a-3f0f-4a55-9b4b-%012u\"},"
		"\"spec\":{\"callback\":\"http://receiver.team:8080/\",\"interfaces\":[\"eth0\"]},"
		"\"status\":{\"observedGeneration\":1,\"conditions\":[{\"type\":\"Accepted\",\"status\":"
		"\"False\",\"reason\":\"Conflict\",\"message\":\"EbpfDump a/b is active\","
		"\"lastTransitionTime\":\"2026-11-25T03:57:15Z\",\"observedGeneration\":1}]}}}\n",
		i % OBJECTS, i % 7, i % OBJECTS, i % 7, 1000 + i, i % OBJECTS);
}

static int drop_event(void *ctx, struct json_object *event, size_t bytes)
{
	(*(uint64_t *)ctx)++;
	return 0;
}

static int keep_event(void *ctx, struct json_object *event, size_t bytes)
{
	struct json_object *object = kube_get(event, "object"), *old = NULL;
	char key[KUBE_KEY_MAX];

	(*(uint64_t *)ctx)++;
	json_object_object_del(kube_get(object, "metadata"), "managedFields");
	if (kube_key(object, key, sizeof(key)) < 0)
		return -EINVAL;
	kube_compact(object);
	if (kube_cache_put(&cache, key, object, OBJECTS * 7, &old) < 0)
		return -ENOMEM;
	json_object_put(old);
	return 0;
}

static uint64_t cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * KUBE_SECOND + (uint64_t)ts.tv_nsec;
}

static double decode(const struct buf *stream, kube_frame_fn fn)
{
	struct kube_frames frames;
	uint64_t events = 0, start = cpu_ns();

	if (kube_frames_init(&frames, KUBE_EVENT_MAX) < 0)
		die("out of memory");
	for (size_t at = 0; at < stream->len; at += PIECE) {
		if (kube_frames_feed(&frames, stream->data + at,
			    MIN((size_t)PIECE, stream->len - at), fn, &events) < 0)
			die("an event cannot be decoded");
	}
	kube_frames_done(&frames);
	if (events != EVENTS)
		die("an event is missing");
	return (double)(cpu_ns() - start) / EVENTS;
}

int main(int argc, char **argv)
{
	struct buf stream = BUF_INIT((size_t)256 << 20);
	double decoded[ROUNDS_MAX], kept[ROUNDS_MAX];
	int rounds = argc > 1 ? (int)strtol(argv[1], NULL, 10) : 9;
	size_t before, memory = 0;

	if (rounds < 1 || rounds > ROUNDS_MAX)
		die("usage: bench-kube [ROUNDS]");
	for (unsigned i = 0; i < EVENTS; i++) {
		if (make_event(&stream, i) < 0)
			die("out of memory");
	}
	for (int r = 0; r < rounds; r++) {
		decoded[r] = decode(&stream, drop_event);
		before = mallinfo2().uordblks;
		kept[r] = decode(&stream, keep_event);
		if (r == 0)
			memory = (mallinfo2().uordblks - before) / cache.count;
	}
	printf("{\"event_bytes\":%zu,\"object_memory\":%zu,\"rounds\":[", stream.len / EVENTS,
		memory);
	for (int r = 0; r < rounds; r++)
		printf("%s{\"decode_ns\":%.1f,\"keep_ns\":%.1f}", r ? "," : "", decoded[r],
			kept[r]);
	printf("]}\n");
	kube_cache_done(&cache);
	buf_done(&stream);
	return 0;
}
