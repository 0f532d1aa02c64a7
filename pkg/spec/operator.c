/* SPDX-License-Identifier: Apache-2.0 */
/* The options of ebpfdump-operator. */
#include <errno.h>

#include "pkg/spec/spec.h"

#define SECONDS UINT64_C(1000)
#define MINUTES (60 * SECONDS)

#define GROUP_LOADERS "The loaders"
#define GROUP_SERVER  "The API server"
#define GROUP_LEADER  "One of several"
#define GROUP_OUTPUT  "Output"
#define GROUP_INSTEAD "Instead of running"

/* Each list is in the order of its enum. */
static const char *const pull_policies[] = {"Always", "IfNotPresent", "Never", NULL};
static const char *const log_levels[] = {"error", "warn", "info", "debug", NULL};
static const char *const log_formats[] = {"text", "json", NULL};

#define FIELD(name) .offset = offsetof(struct spec_operator, name)

static const struct spec_option options[] = {
	{
		.flag = "namespace",
		.type = SPEC_STRING,
		.value = "NAME",
		.fallback = "",
		.max = 63,
		.group = GROUP_LOADERS,
		.help = "Where the loaders live, and the lease. Not given: $POD_NAMESPACE.",
		FIELD(namespace),
	},
	{
		.flag = "loader-image",
		.type = SPEC_STRING,
		.value = "IMAGE",
		.fallback = "",
		.max = 512,
		.group = GROUP_LOADERS,
		.help = "The loaders' image. Not given: $LOADER_IMAGE.",
		FIELD(loader_image),
	},
	{
		.flag = "loader-pull-policy",
		.type = SPEC_CHOICE,
		.value = "POLICY",
		.fallback = "IfNotPresent",
		.choices = pull_policies,
		.group = GROUP_LOADERS,
		.help = "When nodes fetch the image.",
		FIELD(pull_policy),
	},
	{
		.flag = "loader-privileged",
		.type = SPEC_FLAG,
		.group = GROUP_LOADERS,
		.help = "Run loaders as privileged containers, where single capabilities do not do.",
		FIELD(loader_privileged),
	},
	{
		.flag = "loader-account",
		.type = SPEC_STRING,
		.value = "NAME",
		.fallback = "ebpfdump-loader",
		.min = 1,
		.max = 253,
		.group = GROUP_LOADERS,
		.help = "The loaders' service account. It needs no rights.",
		FIELD(loader_account),
	},
	{
		.flag = "deployment",
		.type = SPEC_STRING,
		.value = "NAME",
		.fallback = "ebpfdump-operator",
		.max = 253,
		.group = GROUP_LOADERS,
		.help = "The operator's own Deployment; it owns the loaders, so that they go when it "
			"is deleted. Empty: nothing owns them.",
		FIELD(deployment),
	},
	{
		.flag = "resync",
		.type = SPEC_DURATION,
		.value = "TIME",
		.fallback = "10m",
		.min = SECONDS,
		.max = 1440 * MINUTES,
		.group = GROUP_LOADERS,
		.help = "How often everything is looked at again, without a cause.",
		FIELD(resync_ms),
	},
	{
		.flag = "kubectl",
		.type = SPEC_STRING,
		.value = "FILE",
		.fallback = "kubectl",
		.min = 1,
		.max = 4095,
		.group = GROUP_SERVER,
		.help = "The kubectl whose proxy leads to the API server.",
		FIELD(kubectl),
	},
	{
		.flag = "kubeconfig",
		.type = SPEC_STRING,
		.value = "FILE",
		.fallback = "",
		.max = 4095,
		.group = GROUP_SERVER,
		.help = "Its kubeconfig. Not given: the pod's service account or, outside a cluster, "
			"what kubectl finds.",
		FIELD(kubeconfig),
	},
	{
		.flag = "proxy-port",
		.type = SPEC_UINT,
		.value = "PORT",
		.fallback = "8001",
		.min = 1,
		.max = 65535,
		.group = GROUP_SERVER,
		.help = "Where the proxy listens, on 127.0.0.1.",
		FIELD(proxy_port),
	},
	{
		.flag = "proxy-socket",
		.type = SPEC_STRING,
		.value = "FILE",
		.fallback = "",
		.max = 107,
		.group = GROUP_SERVER,
		.help = "A unix socket for the proxy instead, which nothing else in the pod reaches.",
		FIELD(proxy_socket),
	},
	{
		.flag = "server",
		.type = SPEC_STRING,
		.value = "URL",
		.fallback = "",
		.max = 300,
		.group = GROUP_SERVER,
		.help = "A proxy that runs already, such as http://127.0.0.1:8001; none is started.",
		FIELD(server),
	},
	{
		.flag = "no-leader-election",
		.type = SPEC_FLAG,
		.group = GROUP_LEADER,
		.help = "Act without a lease; no second operator may run.",
		FIELD(no_leader_election),
	},
	{
		.flag = "lease-duration",
		.type = SPEC_DURATION,
		.value = "TIME",
		.fallback = "15s",
		.min = SECONDS,
		.max = 60 * MINUTES,
		.group = GROUP_LEADER,
		.help = "How long others wait for a leader that is silent.",
		FIELD(lease_ms),
	},
	{
		.flag = "renew-deadline",
		.type = SPEC_DURATION,
		.value = "TIME",
		.fallback = "10s",
		.min = SECONDS / 2,
		.max = 60 * MINUTES,
		.group = GROUP_LEADER,
		.help = "How long after the last renewal of its lease a leader still writes. Half of "
			"what is left of --lease-duration later it gives up and ends.",
		FIELD(renew_ms),
	},
	{
		.flag = "retry-period",
		.type = SPEC_DURATION,
		.value = "TIME",
		.fallback = "2s",
		.min = SECONDS / 10,
		.max = 60 * MINUTES,
		.group = GROUP_LEADER,
		.help = "How often the lease is renewed or tried for. Less than --renew-deadline / 1.2.",
		FIELD(retry_ms),
	},
	{
		.flag = "listen",
		.type = SPEC_STRING,
		.value = "HOST:PORT",
		.fallback = ":8081",
		.max = 300,
		.group = GROUP_OUTPUT,
		.help = "Where /livez, /readyz and /metrics are served. An IPv6 address stands in "
			"brackets; no host: all addresses; port 0: any. Empty: not served.",
		FIELD(listen),
	},
	{
		.flag = "log-level",
		.type = SPEC_CHOICE,
		.value = "LEVEL",
		.fallback = "info",
		.choices = log_levels,
		.group = GROUP_OUTPUT,
		.help = "How much is logged to standard error.",
		FIELD(log_level),
	},
	{
		.flag = "log-format",
		.type = SPEC_CHOICE,
		.value = "FORMAT",
		.fallback = "json",
		.choices = log_formats,
		.group = GROUP_OUTPUT,
		.help = "How log lines look.",
		FIELD(log_format),
	},
	{
		.flag = "crd",
		.type = SPEC_FLAG,
		.group = GROUP_INSTEAD,
		.help = "Show the CustomResourceDefinition and exit.",
		FIELD(crd),
	},
	{
		.flag = "help",
		.type = SPEC_FLAG,
		.group = GROUP_INSTEAD,
		.help = "Show this text and exit. Also -h.",
		FIELD(help),
	},
	{
		.flag = "version",
		.type = SPEC_FLAG,
		.group = GROUP_INSTEAD,
		.help = "Show the version and exit.",
		FIELD(version),
	},
	{
		.flag = "reference",
		.type = SPEC_FLAG,
		.group = GROUP_INSTEAD,
		.help = "Show these options as the tables of docs/REFERENCE.md and exit.",
		FIELD(reference),
	},
};

static int check(const void *parsed, struct err *err)
{
	const struct spec_operator *s = parsed;

	if (!spec_valid_listen(s->listen))
		return err_set(err, EINVAL,
			"--listen: '%.60s' is not allowed: HOST:PORT, [IPV6]:PORT, :PORT or nothing",
			s->listen);
	if (s->server[0] && strncmp(s->server, "http://", 7) != 0)
		return err_set(
			err, EINVAL, "--server: '%.60s' is not allowed: http:// only", s->server);
	if (s->renew_ms >= s->lease_ms)
		return err_set(err, EINVAL,
			"--renew-deadline: %llums is not allowed: less than --lease-duration, %llums",
			(unsigned long long)s->renew_ms, (unsigned long long)s->lease_ms);
	if (s->lease_ms % 1000)
		return err_set(err, EINVAL,
			"--lease-duration: %llums is not allowed: whole seconds",
			(unsigned long long)s->lease_ms);
	if (s->retry_ms * 12 >= s->renew_ms * 10)
		return err_set(err, EINVAL,
			"--retry-period: %llums is not allowed: less than --renew-deadline / 1.2, %llums",
			(unsigned long long)s->retry_ms,
			(unsigned long long)(s->renew_ms * 10 / 12));
	return 0;
}

const struct spec_table spec_operator = {
	.program = "ebpfdump-operator",
	.about = "Turns the EbpfDump of a cluster into a loader on each of its nodes.\n",
	.options = options,
	.count = ARRAY_SIZE(options),
	.size = sizeof(struct spec_operator),
	.check = check,
};
