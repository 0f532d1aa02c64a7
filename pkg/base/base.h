/* SPDX-License-Identifier: Apache-2.0 */
/*
 * base: what every room needs. Spans, errors, log, byte buffers, numbers, clock, event loop.
 *
 * Conventions of the whole project:
 *  - A function that can fail returns 0 (or a count) on success and a negative errno on failure.
 * Where a person must read why, the last parameter is a `struct err *`, filled on failure only.
 *  - Outputs are named ret_x and written on success only.
 *  - x_new/x_free make and destroy a whole object, x_init/x_done one in place. Destructors take
 * NULL and half-built objects.
 *  - Nothing here is locked: an object belongs to the thread that made it, unless its comment says
 * more.
 */
#ifndef EBPFDUMP_BASE_H
#define EBPFDUMP_BASE_H

#include <dirent.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define CLEANUP(fn)   __attribute__((cleanup(fn)))
#define PRINTF(f, a)  __attribute__((format(printf, f, a)))
#define MUST_CHECK    __attribute__((warn_unused_result))
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define likely(x)     __builtin_expect(!!(x), 1)
#define unlikely(x)   __builtin_expect(!!(x), 0)
#define MIN(a, b)     ((a) < (b) ? (a) : (b))
#define MAX(a, b)     ((a) > (b) ? (a) : (b))
/* Hand ownership out of a CLEANUP variable: `return TAKE(ptr);` */
#define TAKE(ptr)                              \
	({                                     \
		__typeof__(ptr) take_ = (ptr); \
		(ptr) = NULL;                  \
		take_;                         \
	})
#define TAKE_FD(fd)               \
	({                        \
		int take_ = (fd); \
		(fd) = -1;        \
		take_;            \
	})

/* For CLEANUP: free(*p), close(*fd) if >= 0, fclose(*f) and closedir(*d) if not NULL. */
void freep(void *p);
void closep(int *fd);
void fclosep(FILE **f);
void closedirp(DIR **d);

/* ---- spans: bytes that somebody else owns. Not NUL-terminated; p may be NULL only if len is 0.
 * ---- */

struct span {
	const char *p;
	size_t len;
};

#define SPAN(literal) ((struct span){.p = (literal), .len = sizeof(literal) - 1})

static inline struct span span_of(const char *p, size_t len)
{
	return (struct span){.p = p, .len = len};
}

static inline struct span span_str(const char *s)
{
	return (struct span){.p = s, .len = strlen(s)};
}

static inline bool span_eq(struct span a, struct span b)
{
	return a.len == b.len && (a.len == 0 || memcmp(a.p, b.p, a.len) == 0);
}

/* Equal but for the case of ASCII letters. */
bool span_eq_nocase(struct span a, struct span b);

/* ---- errors ---- */

/* A message that a person can act on. No allocation: text too long for the buffer is cut. */
struct err {
	int code; /* positive errno, 0: no error */
	char text[1024];
};

/* Both return -code, so that a caller can `return err_set(...)`. err may be NULL. code is a
 * positive errno. */
int err_set(struct err *err, int code, const char *fmt, ...) PRINTF(3, 4);
/* Prepends "context: " to the text that is there. Returns -err->code (-EIO if err is NULL). */
int err_wrap(struct err *err, const char *fmt, ...) PRINTF(2, 3);

/* ---- log: standard error only, one line each, from any thread ---- */

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };
enum log_format { LOG_TEXT, LOG_JSON };

/* component and node appear in each line ("" leaves node out); copied. Call once, before threads.
 */
void log_setup(
	enum log_level level, enum log_format format, const char *component, const char *node);
bool log_enabled(enum log_level level);
/* The text is the message alone: no newline, no level. JSON:
 * {"time","level","component","node","msg"}. A line never exceeds 4 KiB; bytes that are not UTF-8
 * and control characters are escaped in both formats. */
void log_write(enum log_level level, const char *fmt, ...) PRINTF(2, 3);
#define log_error(...) log_write(LOG_ERROR, __VA_ARGS__)
#define log_warn(...)  log_write(LOG_WARN, __VA_ARGS__)
#define log_info(...)  log_write(LOG_INFO, __VA_ARGS__)
#define log_debug(...)                                     \
	do {                                               \
		if (log_enabled(LOG_DEBUG))                \
			log_write(LOG_DEBUG, __VA_ARGS__); \
	} while (0)

/* ---- growable byte buffers; each is created with its maximum ---- */

struct buf {
	char *data; /* NULL while cap is 0; not NUL-terminated */
	size_t len;
	size_t cap;
	size_t max; /* cap never exceeds it */
};

#define BUF_INIT(maximum) ((struct buf){.max = (maximum)})

void buf_done(struct buf *b); /* frees; b can be used again */
/* Room for `more` bytes behind len. -ENOBUFS beyond max, -ENOMEM. On failure nothing changes. */
int buf_reserve(struct buf *b, size_t more) MUST_CHECK;
int buf_append(struct buf *b, const void *p, size_t len) MUST_CHECK;
int buf_printf(struct buf *b, const char *fmt, ...) PRINTF(2, 3) MUST_CHECK;
/* Drops the first n bytes (n <= len). */
void buf_consume(struct buf *b, size_t n);

/* ---- numbers from text: the whole text must be the number ---- */

/* Decimal, min..max. -EINVAL not a number, -ERANGE out of bounds. */
int num_parse(struct span text, uint64_t min, uint64_t max, uint64_t *ret_value);
/* Also with a suffix K, M, G or Ki, Mi, Gi (all powers of 1024). */
int num_parse_size(struct span text, uint64_t min, uint64_t max, uint64_t *ret_value);
/* With a unit ms, s, m, h; result in milliseconds. */
int num_parse_duration(struct span text, uint64_t min_ms, uint64_t max_ms, uint64_t *ret_ms);
/* Writes value as decimal digits, returns their number (at most 20). No NUL. */
size_t num_format(char *out, uint64_t value);

/* ---- UTF-8 ---- */

/* Length of the longest prefix that is valid UTF-8 (RFC 3629: no surrogates, no overlong forms). */
size_t utf8_valid(const char *p, size_t len);
/* Whether p[0..len) could be the beginning of one sequence that continues behind it (len 1..3). */
bool utf8_incomplete(const char *p, size_t len);

/* ---- clock ---- */

uint64_t clock_mono_ns(void); /* CLOCK_MONOTONIC, the clock of bpf_ktime_get_ns() */
uint64_t clock_wall_ns(void); /* CLOCK_REALTIME */
/* What to add to a monotonic time to get the wall-clock time, measured now (a step of the wall
 * clock changes it). */
int64_t clock_offset_ns(void);

/* ---- mounts ---- */

/* Where the first file system of this type ("cgroup2") is mounted. -ENOENT: nowhere. */
int mount_find(const char *type, char *ret_path, size_t size) MUST_CHECK;

/* ---- listening ---- */

/*
 * A listening socket, not blocking, at "HOST:PORT", "[V6]:PORT" or ":PORT" (all addresses); port 0
 * picks one. Returns the fd; what cannot be is an error that names the address. ret_local: only
 * this machine can reach it. May block where HOST is a name.
 */
int listen_open(const char *text, bool *ret_local, uint16_t *ret_port, struct err *err) MUST_CHECK;

/* ---- event loop: epoll, timers, signals; one thread ---- */

struct loop;
struct loop_source; /* owned by the loop; loop_remove() frees it, loop_free() frees all */

/* events: EPOLLIN and so on, as epoll gives them. */
typedef void (*loop_fd_fn)(void *ctx, int fd, uint32_t events);
typedef void (*loop_timer_fn)(void *ctx);
typedef void (*loop_signal_fn)(void *ctx, int signo);

int loop_new(struct loop **ret_loop, struct err *err) MUST_CHECK;
void loop_free(struct loop *loop);
void loop_freep(struct loop **loop);
/* The fd stays the caller's; remove the source before closing it. */
int loop_add_fd(struct loop *loop, int fd, uint32_t events, loop_fd_fn fn, void *ctx,
	struct loop_source **ret_source) MUST_CHECK;
int loop_change_fd(struct loop_source *source, uint32_t events) MUST_CHECK;
/* First after first_ms, then every interval_ms (0: once; the source stays and can be set again). */
int loop_add_timer(struct loop *loop, uint64_t first_ms, uint64_t interval_ms, loop_timer_fn fn,
	void *ctx, struct loop_source **ret_source) MUST_CHECK;
int loop_set_timer(struct loop_source *source, uint64_t first_ms, uint64_t interval_ms) MUST_CHECK;
/* Blocks the signal in this thread (make the loop before threads) and delivers it here. */
int loop_add_signal(struct loop *loop, int signo, loop_signal_fn fn, void *ctx) MUST_CHECK;
/* Safe inside a callback, also on the source that is being called. NULL is allowed. */
void loop_remove(struct loop_source *source);
/* Runs until loop_quit(). Returns the code given to it, or a negative errno. */
int loop_run(struct loop *loop);
/* One turn, waiting for it for so long at most; not from inside a callback. 1: loop_quit() was
 * called (and is forgotten), 0, or a negative errno. */
int loop_turn(struct loop *loop, uint64_t timeout_ms);
void loop_quit(struct loop *loop, int code);
/* How often the loop turned: for /healthz and tests. */
uint64_t loop_turns(const struct loop *loop);

#endif
