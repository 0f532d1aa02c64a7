/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The supervisor of `kubectl proxy`. It is up when it answers, not when it runs. Any answer to any
 * request counts; without one for a while it is asked for a path that it must refuse by itself, so
 * that an API server that does not answer is not taken for a proxy that hangs.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pkg/kube/internal.h"

#define PROBE_PATH     "/ebpfdump-is-the-proxy-there" /* never among accept_paths */
#define FIRST_PROBE_MS 100			      /* while it starts */
#define ARGS_MAX       16
#define LINE_MAX_BYTES 512
#define LINES_MAX      20 /* of its output logged in a minute */
#define PORT	       8001U
#define REJECT_METHODS "^(CONNECT|OPTIONS|TRACE)$"

struct kube_proxy {
	struct kube_proxy_options options;
	char *program; /* with its folder */
	char *unix_socket;
	char *argv[ARGS_MAX];
	uint32_t argc;
	struct loop_source *timer; /* restart, probe, or SIGKILL */
	struct loop_source *output;
	int output_fd;
	struct kube_backoff backoff;
	struct kube_request *probe;
	uint32_t unanswered; /* probes in a row */
	uint64_t started_ns;
	uint64_t heard_ns; /* when it was last known to listen, or was started */
	uint64_t *deaths;  /* times of the last deaths_max */
	uint32_t deaths_at;
	bool restarting; /* the timer is for a start */
	const char *killed_why;
	bool stopping;
	void (*done)(void *ctx);
	void *done_ctx;
	char line[LINE_MAX_BYTES];
	size_t line_len;
	uint64_t lines_since_ns;
	uint32_t lines;
	char said[160]; /* its last line */
	struct kube_proxy_info info;
};

/* ---- its arguments ---- */

static int find_program(const char *name, char **ret_path)
{
	const char *path = getenv("PATH");
	char candidate[PATH_MAX];

	if (strchr(name, '/')) {
		*ret_path = access(name, X_OK) == 0 ? strdup(name) : NULL;
		return *ret_path ? 0 : -ENOENT;
	}
	for (path = path ? path : "/usr/local/bin:/usr/bin:/bin"; *path;) {
		size_t len = strcspn(path, ":");

		snprintf(candidate, sizeof(candidate), "%.*s/%s", (int)len, path, name);
		if (len > 0 && access(candidate, X_OK) == 0) {
			*ret_path = strdup(candidate);
			return *ret_path ? 0 : -ENOMEM;
		}
		path += len + (path[len] == ':');
	}
	return -ENOENT;
}

static int add_arg(struct kube_proxy *p, const char *name, const char *value)
{
	CLEANUP(buf_done)
	struct buf arg = BUF_INIT(16384);

	if (p->argc + 1 >= ARGS_MAX)
		return -E2BIG;
	if (buf_printf(&arg, "%s%s%s", name, value ? "=" : "", value ? value : "") < 0 ||
		buf_append(&arg, "", 1) < 0)
		return -ENOMEM;
	p->argv[p->argc++] = TAKE(arg.data);
	return 0;
}

/* kubectl splits the value at commas, so that none may be in a pattern. */
static int add_paths(struct kube_proxy *p, const char *const *paths, struct err *err)
{
	CLEANUP(buf_done)
	struct buf list = BUF_INIT(8192);

	for (uint32_t i = 0; paths && paths[i]; i++) {
		if (i == KUBE_ACCEPT_PATHS_MAX || strchr(paths[i], ',') || paths[i][0] != '^')
			return err_set(err, EINVAL,
				"kubectl proxy: accept path '%s': at most %d, anchored, no comma",
				paths[i], KUBE_ACCEPT_PATHS_MAX);
		if (buf_printf(&list, "%s%s", i ? "," : "", paths[i]) < 0)
			return err_set(err, ENOMEM, "kubectl proxy: out of memory");
	}
	if (list.len == 0)
		return err_set(err, EINVAL, "kubectl proxy: no accept paths");
	if (buf_append(&list, "", 1) < 0 || add_arg(p, "--accept-paths", list.data) < 0)
		return err_set(err, ENOMEM, "kubectl proxy: out of memory");
	return 0;
}

static int make_argv(struct kube_proxy *p, struct err *err)
{
	const struct kube_proxy_options *o = &p->options;
	char port[8];
	int r = 0;

	snprintf(port, sizeof(port), "%u", o->port ? o->port : PORT);
	if (add_arg(p, p->program, NULL) < 0 || add_arg(p, "proxy", NULL) < 0 ||
		(o->kubeconfig && add_arg(p, "--kubeconfig", o->kubeconfig) < 0) ||
		(o->context && add_arg(p, "--context", o->context) < 0) ||
		(p->unix_socket && add_arg(p, "--unix-socket", p->unix_socket) < 0) ||
		(!p->unix_socket && add_arg(p, "--address", "127.0.0.1") < 0) ||
		(!p->unix_socket && add_arg(p, "--port", port) < 0) ||
		add_arg(p, "--reject-methods", REJECT_METHODS) < 0)
		return err_set(err, ENOMEM, "kubectl proxy: out of memory");
	r = add_paths(p, o->accept_paths, err);
	return r;
}

/* ---- its output: each line to the log, not more than a few ---- */

static void log_line(struct kube_proxy *p)
{
	uint64_t now = kube_now_ns();

	kube_one_line(span_of(p->line, p->line_len), p->said, sizeof(p->said));
	p->line_len = 0;
	if (p->said[0] == '\0')
		return;
	if (now - p->lines_since_ns >= 60 * KUBE_SECOND) {
		if (p->lines > LINES_MAX)
			log_info("kubectl proxy: %u more lines", p->lines - LINES_MAX);
		p->lines_since_ns = now;
		p->lines = 0;
	}
	if (p->lines++ < LINES_MAX)
		log_info("kubectl proxy: %s", p->said);
}

static void close_output(struct kube_proxy *p)
{
	if (p->line_len > 0)
		log_line(p);
	loop_remove(p->output);
	p->output = NULL;
	closep(&p->output_fd);
	p->output_fd = -1;
}

static void take_output(struct kube_proxy *p, const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (text[i] == '\n')
			log_line(p);
		else if (p->line_len < sizeof(p->line))
			p->line[p->line_len++] = text[i];
	}
}

/* Returns false at its end. */
static bool read_output(struct kube_proxy *p)
{
	char text[4096];
	ssize_t n = read(p->output_fd, text, sizeof(text));

	if (n > 0)
		take_output(p, text, (size_t)n);
	return n > 0 || (n < 0 && (errno == EINTR || errno == EAGAIN));
}

static void on_output(void *ctx, int fd, uint32_t events)
{
	struct kube_proxy *p = ctx;

	if (!read_output(p))
		close_output(p);
}

/* ---- its process ---- */

/* In the child: nothing but system calls, for there may be other threads. */
static _Noreturn void become(struct kube_proxy *p, pid_t parent, int out)
{
	struct sigaction action = {.sa_handler = SIG_DFL};
	sigset_t none;
	int null;

	setpgid(0, 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* it may be dead already */
	if (getppid() != parent)
		_exit(1);
	for (int signo = 1; signo < NSIG; signo++)
		sigaction(signo, &action, NULL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	null = open("/dev/null", O_RDONLY);
	if (null < 0 || dup2(null, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0)
		_exit(1);
	/* where the kernel does not know it (before 5.9), O_CLOEXEC has to do */
	(void)close_range(3, ~0U, 0);
	execv(p->program, p->argv);
	_exit(127);
}

static int start(struct kube_proxy *p, struct err *err)
{
	CLEANUP(closep)
	int in = -1;
	CLEANUP(closep)
	int out = -1;
	pid_t parent = getpid(), pid;
	int fds[2], r;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return err_set(err, errno, "kubectl proxy: pipe: %s", strerror(errno));
	in = fds[0];
	out = fds[1];
	if (fcntl(in, F_SETFL, O_NONBLOCK) < 0)
		return err_set(err, errno, "kubectl proxy: pipe: %s", strerror(errno));
	if (p->unix_socket)
		(void)unlink(p->unix_socket);
	pid = fork();
	if (pid < 0)
		return err_set(err, errno, "kubectl proxy: fork: %s", strerror(errno));
	if (pid == 0)
		become(p, parent, out);
	r = loop_add_fd(p->options.loop, in, EPOLLIN, on_output, p, &p->output);
	if (r == 0)
		p->output_fd = TAKE_FD(in);
	p->info.pid = pid;
	p->info.starts++;
	p->started_ns = p->heard_ns = kube_now_ns();
	p->unanswered = 0;
	p->killed_why = NULL;
	p->said[0] = '\0';
	log_debug("kubectl proxy: started, pid %d", (int)pid);
	return 0;
}

static void kill_child(struct kube_proxy *p, int signo)
{
	/* its group: kubectl's credential helpers are its children */
	if (p->info.pid > 0 && kill(-p->info.pid, signo) < 0)
		(void)kill(p->info.pid, signo);
}

/* ---- is it there? ---- */

static void set_down(struct kube_proxy *p, const char *why)
{
	bool was_up = p->info.up;

	p->info.up = false;
	if (was_up && p->options.on_down)
		p->options.on_down(p->options.ctx, why);
}

static void set_up(struct kube_proxy *p)
{
	p->unanswered = 0;
	p->heard_ns = kube_now_ns();
	if (p->info.up)
		return;
	p->info.up = true;
	if (p->options.on_up)
		p->options.on_up(p->options.ctx);
}

static void kill_for(struct kube_proxy *p, const char *why)
{
	set_down(p, why);
	p->killed_why = why;
	log_warn("kubectl proxy: %s: killed", why);
	kill_child(p, SIGKILL);
}

static void schedule(struct kube_proxy *p)
{
	kube_set_timer(p->timer, p->info.up ? p->options.timing.probe_ms : FIRST_PROBE_MS);
}

static void ask(struct kube_proxy *p);

static void on_probed(void *ctx, const struct kube_response *response)
{
	struct kube_proxy *p = ctx;

	p->probe = NULL;
	if (p->stopping || p->info.pid == 0)
		return;
	if (response->http_code) {
		set_up(p);
	} else if (response->result == KUBE_TIMEOUT) {
		if (++p->unanswered < p->options.timing.probes_max) {
			ask(p);
			return;
		}
		p->info.hangs++;
		kill_for(p, "it does not answer");
		return;
	} else if (kube_now_ns() - p->heard_ns >= p->options.timing.deaf_ms * KUBE_MS) {
		/* it was stopped before it listened, say, or its socket's file was deleted */
		p->info.hangs++;
		kill_for(p, "it does not listen");
		return;
	} else {
		/* It runs and nobody listens. */
		set_down(p, response->error);
	}
	schedule(p);
}

static void ask(struct kube_proxy *p)
{
	struct kube_request_options options = {
		.path = PROBE_PATH,
		.timeout_ms = p->options.timing.probe_timeout_ms,
		.flags = KUBE_UNLIMITED | KUBE_NO_RETRY,
		.fn = on_probed,
		.ctx = p,
	};

	if (kube_request(p->options.client, &options, &p->probe) < 0)
		schedule(p);
}

static void check(struct kube_proxy *p)
{
	struct kube_client_stats stats;
	uint64_t now = kube_now_ns(), quiet = p->options.timing.probe_ms * KUBE_MS;

	kube_client_stats(p->options.client, &stats);
	if (stats.tls_trouble_since_ns && now - MAX(stats.tls_trouble_since_ns, p->started_ns) >=
						  p->options.timing.tls_ms * KUBE_MS) {
		/* A CA that was replaced is read at its start alone (R5.16). It may reach the pod
		 * later than the first restart: then that was not the last one. */
		kill_for(p, "TLS to the API server fails");
		return;
	}
	if (stats.last_answer_ns > p->started_ns && now - stats.last_answer_ns < quiet) {
		set_up(p);
		schedule(p);
		return;
	}
	ask(p);
}

/* ---- its end ---- */

static void finish_stop(struct kube_proxy *p)
{
	void (*done)(void *ctx) = p->done;

	p->done = NULL;
	kube_set_timer(p->timer, KUBE_NEVER_MS);
	if (done)
		done(p->done_ctx);
}

static void describe(struct kube_proxy *p, int status)
{
	char how[64];

	if (WIFSIGNALED(status))
		snprintf(how, sizeof(how), "killed by signal %d", WTERMSIG(status));
	else
		snprintf(how, sizeof(how), "exit status %d", WEXITSTATUS(status));
	snprintf(p->info.last, sizeof(p->info.last), "%s%s%s%s%s", how, p->killed_why ? ": " : "",
		p->killed_why ? p->killed_why : "", p->said[0] ? ": " : "", p->said);
}

static bool too_many_deaths(struct kube_proxy *p)
{
	uint64_t now = kube_now_ns(), oldest;

	p->deaths[p->deaths_at] = now;
	p->deaths_at = (p->deaths_at + 1) % p->options.timing.deaths_max;
	oldest = p->deaths[p->deaths_at];
	return oldest && now - oldest <= p->options.timing.deaths_ms * KUBE_MS;
}

static void give_up(struct kube_proxy *p, const char *why)
{
	p->info.fatal = true;
	kube_set_timer(p->timer, KUBE_NEVER_MS);
	if (p->options.on_fatal)
		p->options.on_fatal(p->options.ctx, why);
}

static void restart_later(struct kube_proxy *p)
{
	/* A child that lived long begins anew. */
	if (kube_now_ns() - p->started_ns > p->options.timing.deaths_ms * KUBE_MS)
		kube_backoff_reset(&p->backoff);
	p->restarting = true;
	kube_set_timer(p->timer, kube_backoff_next(&p->backoff, 0) / KUBE_MS);
}

static void on_death(struct kube_proxy *p, int status)
{
	p->info.pid = 0;
	if (p->output && read_output(p))
		log_debug("kubectl proxy: had more to say");
	close_output(p);
	describe(p, status);
	kube_cancel(p->probe);
	p->probe = NULL;
	if (p->stopping) {
		p->info.up = false;
		finish_stop(p);
		return;
	}
	p->info.deaths++;
	log_warn("kubectl proxy: ended: %s", p->info.last);
	set_down(p, p->info.last);
	if (too_many_deaths(p))
		give_up(p, p->info.last);
	else
		restart_later(p);
}

static void on_child(void *ctx, int signo)
{
	struct kube_proxy *p = ctx;
	int status;
	pid_t pid;

	/* One signal may stand for many children. */
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid == p->info.pid)
			on_death(p, status);
		else if (p->options.on_orphan)
			p->options.on_orphan(p->options.ctx, pid, status);
	}
}

static void on_timer(void *ctx)
{
	struct kube_proxy *p = ctx;
	struct err err;

	if (p->info.fatal)
		return;
	if (p->stopping) {
		if (p->info.pid)
			kill_child(p, SIGKILL);
		else
			finish_stop(p);
		return;
	}
	if (!p->restarting) {
		if (p->info.pid && !p->probe)
			check(p);
		return;
	}
	p->restarting = false;
	if (start(p, &err) < 0) {
		snprintf(p->info.last, sizeof(p->info.last), "%.*s", (int)sizeof(p->info.last) - 1,
			err.text);
		p->info.deaths++;
		if (too_many_deaths(p))
			give_up(p, p->info.last);
		else
			restart_later(p);
		return;
	}
	schedule(p);
}

void kube_proxy_stop(struct kube_proxy *p, void (*done)(void *ctx), void *ctx)
{
	p->stopping = true;
	p->restarting = false;
	p->done = done;
	p->done_ctx = ctx;
	if (p->info.pid == 0) {
		/* from the loop: behind this call */
		p->info.fatal = false;
		kube_set_timer(p->timer, 0);
		return;
	}
	kill_child(p, SIGTERM);
	kube_set_timer(p->timer, p->options.timing.stop_ms);
}

/* ---- made, freed, asked ---- */

#define DEFAULT(field, value)              \
	do {                               \
		if ((field) == 0)          \
			(field) = (value); \
	} while (0)

static void set_defaults(struct kube_proxy_timing *t)
{
	DEFAULT(t->backoff_ms, 200);
	DEFAULT(t->backoff_cap_ms, 10000);
	DEFAULT(t->deaths_max, 5);
	DEFAULT(t->deaths_ms, 60000);
	DEFAULT(t->probe_ms, 5000);
	DEFAULT(t->probe_timeout_ms, 3000);
	DEFAULT(t->probes_max, 3);
	DEFAULT(t->deaf_ms, 30000);
	DEFAULT(t->stop_ms, 1000);
	DEFAULT(t->tls_ms, 300000);
}

static int set_up_proxy(struct kube_proxy *p, struct err *err)
{
	const struct kube_proxy_options *o = &p->options;
	const char *program = o->program ? o->program : "kubectl";
	int r = find_program(program, &p->program);

	if (r < 0)
		return err_set(
			err, -r, "kubectl proxy: '%s' is not there, or not executable", program);
	if (o->unix_socket) {
		p->unix_socket = strdup(o->unix_socket);
		if (!p->unix_socket)
			return err_set(err, ENOMEM, "kubectl proxy: out of memory");
	}
	r = make_argv(p, err);
	if (r < 0)
		return r;
	p->deaths = calloc(o->timing.deaths_max, sizeof(*p->deaths));
	if (!p->deaths)
		return err_set(err, ENOMEM, "kubectl proxy: out of memory");
	r = loop_add_signal(o->loop, SIGCHLD, on_child, p);
	if (r == 0)
		r = loop_add_timer(o->loop, FIRST_PROBE_MS, 0, on_timer, p, &p->timer);
	if (r < 0)
		return err_set(err, -r, "kubectl proxy: %s", strerror(-r));
	return start(p, err);
}

int kube_proxy_new(
	const struct kube_proxy_options *options, struct kube_proxy **ret_proxy, struct err *err)
{
	CLEANUP(kube_proxy_freep)
	struct kube_proxy *p = calloc(1, sizeof(*p));
	int r;

	if (!p)
		return err_set(err, ENOMEM, "kubectl proxy: out of memory");
	p->options = *options;
	p->output_fd = -1;
	set_defaults(&p->options.timing);
	p->backoff = (struct kube_backoff){
		.initial_ns = p->options.timing.backoff_ms * KUBE_MS,
		.cap_ns = p->options.timing.backoff_cap_ms * KUBE_MS,
	};
	r = set_up_proxy(p, err);
	if (r < 0)
		return r;
	*ret_proxy = TAKE(p);
	return 0;
}

void kube_proxy_free(struct kube_proxy *p)
{
	if (!p)
		return;
	if (p->info.pid > 0) {
		kill_child(p, SIGKILL);
		while (waitpid(p->info.pid, NULL, 0) < 0 && errno == EINTR)
			;
	}
	kube_cancel(p->probe);
	close_output(p);
	loop_remove(p->timer);
	for (uint32_t i = 0; i < p->argc; i++)
		free(p->argv[i]);
	free(p->deaths);
	free(p->unix_socket);
	free(p->program);
	free(p);
}

void kube_proxy_freep(struct kube_proxy **proxy)
{
	kube_proxy_free(*proxy);
	*proxy = NULL;
}

void kube_proxy_info(const struct kube_proxy *p, struct kube_proxy_info *ret_info)
{
	*ret_info = p->info;
}
