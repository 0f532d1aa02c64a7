/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the room share. */
#ifndef EBPFDUMP_KUBE_INTERNAL_H
#define EBPFDUMP_KUBE_INTERNAL_H

#include "pkg/kube/kube.h"

#define KUBE_MS	      UINT64_C(1000000)
#define KUBE_NEVER_MS 86400000 /* of a timer that is not wanted */

/* Once, after ms. */
void kube_set_timer(struct loop_source *timer, uint64_t ms);

struct loop *kube_client_loop(const struct kube_client *client);

/*
 * A request whose 200 is a stream: not held to qps, one attempt. on_answer is called when its
 * headers are there, on_data for each piece (< 0 ends the stream). Both are called from inside
 * curl: they may start and cancel requests. fn is called at the end; the response's body is empty
 * if the stream was answered 200.
 */
struct kube_stream {
	void (*on_answer)(void *ctx);
	int (*on_data)(void *ctx, const char *p, size_t len);
};
int kube_request_stream(struct kube_client *client, const struct kube_request_options *options,
	const struct kube_stream *stream, struct kube_request **ret_request) MUST_CHECK;

/* The verb and the resource of a request, for metrics: pure. out is a buffer for the resource. */
const char *kube_call_verb(
	enum kube_method method, const char *path, const char *content_type, bool stream);
void kube_call_resource(const char *path, char *out, size_t size);
/* The text of a Warning: header's value, `299 - "text"`: the length of what is written to out. */
size_t kube_warning_text(struct span value, char *out, size_t size);
/* One printable line of at most size - 1 bytes. */
void kube_one_line(struct span text, char *out, size_t size);

/* ---- cache: objects by key, in order of keys ---- */

struct kube_cached {
	char *key;
	struct json_object *object;
};

struct kube_cache {
	struct kube_cached *items;
	size_t count, room;
};

void kube_cache_done(struct kube_cache *cache);
struct json_object *kube_cache_get(const struct kube_cache *cache, const char *key);
/* Takes a reference; *ret_old (with its reference) is what was there, or NULL. -ENOSPC: a new key
 * beyond max. */
int kube_cache_put(struct kube_cache *cache, const char *key, struct json_object *object,
	size_t max, struct json_object **ret_old) MUST_CHECK;
/* What was there, with its reference, or NULL. */
struct json_object *kube_cache_remove(struct kube_cache *cache, const char *key);
/* Tables of the object no larger than it needs: json-c gives each object room for 16 names. */
void kube_compact(struct json_object *object);

#endif
