/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "pkg/kube/kube.h"

#define RETRY_AFTER_MAX 60

static const char *const result_names[KUBE_RESULT_MAX] = {
	[KUBE_OK] = "ok",
	[KUBE_CONNECT] = "connect",
	[KUBE_TIMEOUT] = "timeout",
	[KUBE_CUT] = "cut",
	[KUBE_TOO_BIG] = "too_big",
	[KUBE_BAD_ANSWER] = "bad_answer",
	[KUBE_NOT_ALLOWED] = "not_allowed",
	[KUBE_UNREACHABLE] = "unreachable",
	[KUBE_FILTERED] = "filtered",
	[KUBE_NOT_SERVED] = "not_served",
	[KUBE_NOT_FOUND] = "not_found",
	[KUBE_UNAUTHORIZED] = "unauthorized",
	[KUBE_FORBIDDEN] = "forbidden",
	[KUBE_CONFLICT] = "conflict",
	[KUBE_ALREADY_EXISTS] = "already_exists",
	[KUBE_EXPIRED] = "expired",
	[KUBE_RV_AHEAD] = "rv_ahead",
	[KUBE_INVALID] = "invalid",
	[KUBE_TOO_MANY] = "too_many",
	[KUBE_SERVER] = "server",
	[KUBE_OTHER] = "other",
};

const char *kube_result_name(enum kube_result result)
{
	return (unsigned int)result < KUBE_RESULT_MAX ? result_names[result] : "unknown";
}

static void parse_causes(const struct json_object *causes, struct kube_status *status)
{
	size_t n;

	if (!json_object_is_type(causes, json_type_array))
		return;
	n = json_object_array_length(causes);
	for (size_t i = 0; i < n && status->cause_count < KUBE_CAUSES_MAX; i++) {
		const char *reason =
			kube_get_string(json_object_array_get_idx(causes, i), "reason");

		if (*reason)
			status->causes[status->cause_count++] = reason;
	}
}

void kube_status_parse(const struct json_object *object, struct kube_status *ret_status)
{
	struct kube_status status = {.reason = "", .message = ""};
	int64_t seconds;

	*ret_status = status;
	if (strcmp(kube_get_string(object, "kind"), "Status") != 0 ||
		strcmp(kube_get_string(object, "apiVersion"), "v1") != 0)
		return;
	status.present = true;
	status.code = kube_get_int(object, "code", 0);
	status.reason = kube_get_string(object, "reason");
	status.message = kube_get_string(object, "message");
	seconds = kube_get_int(object, "details.retryAfterSeconds", 0);
	status.retry_after_s = MAX(0, MIN(seconds, RETRY_AFTER_MAX));
	parse_causes(kube_get(object, "details.causes"), &status);
	*ret_status = status;
}

bool kube_status_has_cause(const struct kube_status *status, const char *reason)
{
	for (uint32_t i = 0; i < status->cause_count; i++) {
		if (strcmp(status->causes[i], reason) == 0)
			return true;
	}
	return false;
}

/* R1.5: servers before 1.19 say it in words alone. */
static bool rv_ahead(const struct kube_status *status)
{
	return kube_status_has_cause(status, "ResourceVersionTooLarge") ||
	       strstr(status->message, "Too large resource version");
}

static enum kube_result of_code(int64_t code, const struct kube_status *status)
{
	switch (code) {
	case 401:
		return KUBE_UNAUTHORIZED;
	case 403:
		return KUBE_FORBIDDEN;
	case 404:
		return KUBE_NOT_FOUND;
	case 409:
		return strcmp(status->reason, "AlreadyExists") == 0 ? KUBE_ALREADY_EXISTS
								    : KUBE_CONFLICT;
	case 410:
		return KUBE_EXPIRED;
	case 429:
		return KUBE_TOO_MANY;
	case 400:
	case 413:
	case 415:
	case 422:
		return KUBE_INVALID;
	default:
		return code >= 500 && code <= 599 ? KUBE_SERVER : KUBE_OTHER;
	}
}

enum kube_result kube_classify_status(const struct kube_status *status)
{
	if (strcmp(status->reason, "Expired") == 0 || strcmp(status->reason, "Gone") == 0)
		return KUBE_EXPIRED;
	if (rv_ahead(status))
		return KUBE_RV_AHEAD;
	return of_code(status->code, status);
}

enum kube_result kube_classify(long http_code, bool json, const struct kube_status *status)
{
	if (http_code >= 200 && http_code <= 299)
		return KUBE_OK;
	if (!json) {
		if (http_code == 403)
			return KUBE_FILTERED;
		if (http_code == 404)
			return KUBE_NOT_SERVED;
		/* The API server's own filters say these in text: 429 and 503 with Retry-After,
		 * 504; the proxy's one is 500. Either way there is nobody who could answer. */
		if (http_code >= 500 && http_code <= 599)
			return KUBE_UNREACHABLE;
		return of_code(http_code, status);
	}
	if (status->present) {
		if (strcmp(status->reason, "Expired") == 0 || strcmp(status->reason, "Gone") == 0)
			return KUBE_EXPIRED;
		if (rv_ahead(status))
			return KUBE_RV_AHEAD;
	}
	return of_code(http_code, status);
}

int kube_retry_after(struct span value, uint32_t *ret_seconds)
{
	uint64_t seconds;
	int r;

	while (value.len > 0 && (*value.p == ' ' || *value.p == '\t')) {
		value.p++;
		value.len--;
	}
	while (value.len > 0 && (value.p[value.len - 1] == ' ' || value.p[value.len - 1] == '\t'))
		value.len--;
	r = num_parse(value, 0, RETRY_AFTER_MAX, &seconds);
	if (r == -ERANGE)
		seconds = RETRY_AFTER_MAX;
	else if (r < 0)
		return -EINVAL;
	*ret_seconds = (uint32_t)seconds;
	return 0;
}
