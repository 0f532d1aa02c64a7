/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pkg/marker/internal.h"

#define NOW  UINT64_C(1764042445)
#define KEY  "0123456789abcdef0123456789abcdef"
#define KEY2 "another key, of 29 characters"

/* Both made by Python's hmac, as the header says: KEY, NOW, sequence number 0xfedcba98;
 * 10.1.2.3:40000 to 10.1.2.4:8090. */
#define BY_SEQ                                                                                    \
	"1;s;1764042445;0011223344556677;8f915e28070e2e58a5e525f17cb2f1a4;5c5ed7f7237e4ba8131d63" \
	"ab102619fa"
#define BY_ENDS                                                                                   \
	"1;a;1764042445;0011223344556677;b618f84ab20601315d7a1ec4a2a41cf9;8517bb00a6bfad09724f5b" \
	"c801251ad6"

/* ---- key files ---- */

static char path[64];

static void write_file(const char *text, size_t len, mode_t mode)
{
	int fd;

	if (!path[0]) {
		snprintf(path, sizeof(path), "/tmp/ebpfdump-marker-XXXXXX");
		fd = mkstemp(path);
		ck_assert_int_ge(fd, 0);
		close(fd);
	}
	(void)unlink(path); /* a new inode each time, as of a mounted Secret */
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, text, len), (ssize_t)len);
	close(fd);
}

static void write_key(const char *key)
{
	write_file(key, strlen(key), 0600);
}

static void remove_file(void)
{
	if (path[0])
		(void)unlink(path);
}

static struct marker *with_key(const char *key)
{
	struct marker *m = NULL;
	struct err err;

	write_key(key);
	ck_assert_int_eq(marker_new(path, &m, &err), 0);
	ck_assert(marker_file_ok(m) && marker_has_file(m));
	return m;
}

/* ---- places ---- */

static struct marker_place at_seq(uint32_t seq)
{
	return (struct marker_place){.has_seq = true, .seq = seq};
}

static struct marker_place at(
	uint32_t seq, const char *src, uint16_t sport, const char *dst, uint16_t dport)
{
	struct marker_place p = at_seq(seq);

	ck_assert_int_eq(marker_place_ends(&p, src, sport, dst, dport), 0);
	ck_assert(p.has_ends);
	return p;
}

static enum marker_result check_at(struct marker *m, const char *value, uint32_t seq, uint64_t now)
{
	struct marker_place p = at_seq(seq);

	return marker_check(m, span_str(value), &p, now, 1, 0);
}

/* ---- values ---- */

START_TEST(known_values)
{
	struct marker *m = with_key(KEY);
	struct marker_place p = at(0xfedcba98, "10.1.2.3", 40000, "10.1.2.4", 8090);

	ck_assert_int_eq(marker_check(m, SPAN(BY_SEQ), &p, NOW, 7, 0), MARKER_ACCEPTED);
	ck_assert_int_eq(marker_check(m, SPAN(BY_ENDS), &p, NOW, 7, 0), MARKER_ACCEPTED);
	/* the other end sees the same */
	ck_assert_int_eq(marker_check(m, SPAN(BY_SEQ), &p, NOW, 8, 1), MARKER_ACCEPTED);
	p = at(1, "::ffff:10.1.2.3", 40000, "10.1.2.4", 8090);
	ck_assert_int_eq(marker_check(m, SPAN(BY_ENDS), &p, NOW, 7, 0), MARKER_ACCEPTED);
	marker_free(m);
}
END_TEST

START_TEST(own_values)
{
	struct marker *m = with_key(KEY);
	char value[MARKER_VALUE_MAX + 1], second[MARKER_VALUE_MAX + 1], line[MARKER_LINE_MAX];

	for (uint64_t i = 0; i < 2000; i++) {
		struct marker_place p = at_seq((uint32_t)(i * 0x9e3779b9));
		size_t n = marker_make(m, &p, NOW + i, value);

		ck_assert_uint_eq(n, strlen(value));
		ck_assert_uint_le(n, MARKER_VALUE_MAX);
		ck_assert_int_eq(marker_check(m, span_of(value, n), &p, NOW + i, i + 1, i & 1),
			MARKER_ACCEPTED);
		p.seq++;
		ck_assert_int_eq(marker_check(m, span_of(value, n), &p, NOW + i, i + 1, i & 1),
			MARKER_COPIED);
	}
	/* none is like another */
	(void)marker_make(m, &(struct marker_place){.has_seq = true}, NOW, value);
	(void)marker_make(m, &(struct marker_place){.has_seq = true}, NOW, second);
	ck_assert_str_ne(value, second);
	ck_assert_uint_eq(
		marker_line(m, &(struct marker_place){.has_seq = true}, NOW, line), strlen(line));
	ck_assert(strncmp(line, "X-Ebpfdump-Loader: 1;s;1764042445;", 34) == 0);
	/* the longest there is */
	ck_assert_uint_eq(marker_line(m, &(struct marker_place){.has_seq = true}, UINT64_MAX, line),
		MARKER_LINE_MAX - 1);
	marker_free(m);
}
END_TEST

START_TEST(ends)
{
	struct marker *m = with_key(KEY);
	struct marker_place p = at(0, "fd00::1", 1, "10.0.0.2", 2), q;
	char value[MARKER_VALUE_MAX + 1];
	struct span v = {.p = value};

	p.has_seq = false;
	v.len = marker_make(m, &p, NOW, value);
	ck_assert_int_eq(value[2], 'a');
	ck_assert_int_eq(marker_check(m, v, &p, NOW, 1, 0), MARKER_ACCEPTED);
	q = at(0, "fd00::2", 1, "10.0.0.2", 2);
	ck_assert_int_eq(marker_check(m, v, &q, NOW, 1, 0), MARKER_COPIED);
	q = at(0, "fd00::1", 2, "10.0.0.2", 2);
	ck_assert_int_eq(marker_check(m, v, &q, NOW, 1, 0), MARKER_COPIED);
	q = at(0, "fd00::1", 1, "10.0.0.3", 2);
	ck_assert_int_eq(marker_check(m, v, &q, NOW, 1, 0), MARKER_COPIED);
	q = at(0, "fd00::1", 1, "10.0.0.2", 3);
	ck_assert_int_eq(marker_check(m, v, &q, NOW, 1, 0), MARKER_COPIED);
	/* the way back is another way */
	q = at(0, "10.0.0.2", 2, "fd00::1", 1);
	ck_assert_int_eq(marker_check(m, v, &q, NOW, 1, 0), MARKER_COPIED);
	/* nothing is known of the place */
	q = at_seq(0);
	ck_assert_int_eq(marker_check(m, v, &q, NOW, 1, 0), MARKER_COPIED);
	ck_assert_int_lt(marker_place_ends(&q, "10.0.0", 1, "10.0.0.1", 1), 0);
	ck_assert_int_lt(marker_place_ends(&q, "10.0.0.1", 1, "", 1), 0);
	ck_assert(!q.has_ends);
	marker_free(m);
}
END_TEST

START_TEST(damaged)
{
	static const char good[] = BY_SEQ;
	struct marker *m = with_key(KEY);
	char value[sizeof(good) + 1];

	/* each byte replaced by each other one: nothing passes but the whole */
	for (size_t i = 0; i < sizeof(good) - 1; i++) {
		memcpy(value, good, sizeof(good));
		for (int c = 0; c < 256; c++) {
			enum marker_result r;

			if (c == (unsigned char)good[i])
				continue;
			value[i] = (char)c;
			r = marker_check(m, span_of(value, sizeof(good) - 1),
				&(struct marker_place){.has_seq = true, .seq = 0xfedcba98}, NOW, 1,
				0);
			/* the place's code is the last: whoever damages it has copied the rest */
			ck_assert_int_eq(
				r, i >= sizeof(good) - 33 && strchr("0123456789abcdef", c) && c
					   ? MARKER_COPIED
					   : MARKER_WRONG);
		}
	}
	/* cut anywhere, or longer */
	for (size_t n = 0; n < sizeof(good) - 1; n++)
		ck_assert_int_eq(marker_check(m, span_of(good, n),
					 &(struct marker_place){.has_seq = true, .seq = 0xfedcba98},
					 NOW, 1, 0),
			MARKER_WRONG);
	ck_assert_int_eq(check_at(m, BY_SEQ "0", 0xfedcba98, NOW), MARKER_WRONG);
	ck_assert_int_eq(check_at(m, BY_SEQ " ", 0xfedcba98, NOW), MARKER_WRONG);
	ck_assert_int_eq(check_at(m, " " BY_SEQ, 0xfedcba98, NOW), MARKER_WRONG);
	ck_assert_int_eq(check_at(m, "", 0, NOW), MARKER_WRONG);
	ck_assert_int_eq(marker_check(m, span_of(NULL, 0), &(struct marker_place){0}, NOW, 1, 0),
		MARKER_WRONG);
	/* no second way to write a number */
	ck_assert_int_eq(check_at(m, "1;s;01764042445;" BY_SEQ, 0, NOW), MARKER_WRONG);
	ck_assert_int_eq(
		check_at(m, "1;s;99999999999999999999999;0011223344556677;", 0, NOW), MARKER_WRONG);
	marker_free(m);
}
END_TEST

START_TEST(huge)
{
	struct marker *m = with_key(KEY);
	size_t len = 4 << 20;
	char *p = malloc(len);

	ck_assert_ptr_nonnull(p);
	memset(p, '7', len);
	memcpy(p, "1;s;", 4);
	ck_assert_int_eq(marker_check(m, span_of(p, len), &(struct marker_place){.has_seq = true},
				 NOW, 1, 0),
		MARKER_WRONG);
	memcpy(p, BY_SEQ, sizeof(BY_SEQ) - 1);
	ck_assert_int_eq(
		marker_check(m, span_of(p, len),
			&(struct marker_place){.has_seq = true, .seq = 0xfedcba98}, NOW, 1, 0),
		MARKER_WRONG);
	free(p);
	marker_free(m);
}
END_TEST

START_TEST(window)
{
	struct marker *m = with_key(KEY);

	ck_assert_int_eq(check_at(m, BY_SEQ, 0xfedcba98, NOW + MARKER_WINDOW_S), MARKER_ACCEPTED);
	ck_assert_int_eq(check_at(m, BY_SEQ, 0xfedcba98, NOW - MARKER_WINDOW_S), MARKER_ACCEPTED);
	ck_assert_int_eq(check_at(m, BY_SEQ, 0xfedcba98, NOW + MARKER_WINDOW_S + 1), MARKER_OLD);
	ck_assert_int_eq(check_at(m, BY_SEQ, 0xfedcba98, NOW - MARKER_WINDOW_S - 1), MARKER_OLD);
	ck_assert_int_eq(check_at(m, BY_SEQ, 0xfedcba98, 0), MARKER_OLD);
	ck_assert_int_eq(check_at(m, BY_SEQ, 0xfedcba98, UINT64_MAX), MARKER_OLD);
	/* in time, but elsewhere */
	ck_assert_int_eq(check_at(m, BY_SEQ, 0xfedcba99, NOW), MARKER_COPIED);
	ck_assert_int_eq(check_at(m, BY_SEQ, 0xfedcba99, 0), MARKER_OLD);
	marker_free(m);
}
END_TEST

START_TEST(once)
{
	struct marker *m = with_key(KEY);
	struct marker_place p = at_seq(77);
	char value[MARKER_VALUE_MAX + 1];
	struct span v = {.p = value};

	v.len = marker_make(m, &p, NOW, value);
	ck_assert_int_eq(marker_check(m, v, &p, NOW, 10, 0), MARKER_ACCEPTED);
	ck_assert_int_eq(marker_check(m, v, &p, NOW, 10, 0), MARKER_ACCEPTED); /* sent again */
	ck_assert_int_eq(marker_check(m, v, &p, NOW, 11, 1), MARKER_ACCEPTED); /* the other end */
	/* the same sequence number, made by force */
	ck_assert_int_eq(marker_check(m, v, &p, NOW, 12, 0), MARKER_COPIED);
	ck_assert_int_eq(marker_check(m, v, &p, NOW, 12, 1), MARKER_COPIED);
	for (int dir = 0; dir < 2; dir++) {
		for (int i = 0; i < MARKER_RELAYED_MAX; i++)
			ck_assert(marker_relayed(m, v, (unsigned)dir));
		ck_assert(!marker_relayed(m, v, (unsigned)dir));
	}
	ck_assert(!marker_relayed(m, SPAN("1;s;"), 0));
	/* many others do not disturb it, as long as there are not too many */
	for (int i = 0; i < MARKER_REMEMBERED / 8; i++) {
		char other[MARKER_VALUE_MAX + 1];

		(void)marker_make(m, &p, NOW - 100, other);
		ck_assert_int_eq(check_at(m, other, 77, NOW), MARKER_ACCEPTED);
	}
	ck_assert_int_eq(marker_check(m, v, &p, NOW, 12, 0), MARKER_COPIED);
	marker_free(m);
}
END_TEST

START_TEST(budget)
{
	const uint64_t second = UINT64_C(1000000000);
	struct marker_budget b = {.per_minute = 10};
	uint64_t now = 1000 * second;

	for (int i = 0; i < 10; i++)
		ck_assert(marker_budget_take(&b, now));
	ck_assert(!marker_budget_take(&b, now));
	ck_assert(!marker_budget_take(&b, now + 5 * second));
	ck_assert(marker_budget_take(&b, now + 6 * second));
	ck_assert(!marker_budget_take(&b, now + 6 * second));
	/* asking in vain does not put it off */
	for (uint64_t i = 6000; i < 12000; i++)
		ck_assert(!marker_budget_take(&b, now + i * (second / 1000)));
	ck_assert(marker_budget_take(&b, now + 12 * second));
	/* the clock goes back */
	ck_assert(!marker_budget_take(&b, second));
	ck_assert(!marker_budget_take(&b, 2 * second));
	ck_assert(marker_budget_take(&b, 7 * second));
	/* a long silence fills it, and no more than that */
	for (int i = 0; i < 10; i++)
		ck_assert(marker_budget_take(&b, UINT64_MAX));
	ck_assert(!marker_budget_take(&b, UINT64_MAX));
	b = (struct marker_budget){0};
	ck_assert(!marker_budget_take(&b, now));
	b.per_minute = 60000;
	for (int i = 0; i < 60000; i++)
		ck_assert(marker_budget_take(&b, now));
	ck_assert(!marker_budget_take(&b, now));
}
END_TEST

/* ---- keys ---- */

static void refused(const char *text, size_t len)
{
	struct marker *m = NULL;
	struct err err;

	write_file(text, len, 0600);
	ck_assert_int_eq(marker_new(path, &m, &err), 0);
	ck_assert(marker_has_file(m) && !marker_file_ok(m));
	/* it has a key all the same, that nobody knows */
	ck_assert_int_eq(check_at(m, BY_SEQ, 0xfedcba98, NOW), MARKER_WRONG);
	marker_free(m);
}

START_TEST(key_files)
{
	static char big[MARKER_KEY_MAX + 8];
	struct marker *m = NULL;
	struct err err;

	memset(big, 'k', sizeof(big));
	refused("", 0);
	refused("\n\n\r\n", 4);
	refused(KEY, MARKER_KEY_MIN - 1);
	refused(big, MARKER_KEY_MAX + 1);
	refused(big, sizeof(big));
	/* newlines behind the longest are one too many to be looked at */
	write_file(big, MARKER_KEY_MAX, 0600);
	ck_assert_int_eq(marker_new(path, &m, &err), 0);
	ck_assert(marker_file_ok(m));
	marker_free(m);
	m = with_key(KEY "\r\n\n");
	ck_assert_int_eq(check_at(m, BY_SEQ, 0xfedcba98, NOW), MARKER_ACCEPTED);
	marker_free(m);
	/* any bytes */
	write_file("\0\1\2\3\4\5\6\7\0\1\2\3\4\5\6\7", 16, 0644);
	ck_assert_int_eq(marker_new(path, &m, &err), 0);
	ck_assert(marker_file_ok(m));
	marker_free(m);
	/* neither a folder nor a device nor nothing */
	ck_assert_int_eq(marker_new("/tmp", &m, &err), 0);
	ck_assert(!marker_file_ok(m));
	marker_free(m);
	ck_assert_int_eq(marker_new("/dev/zero", &m, &err), 0);
	ck_assert(!marker_file_ok(m));
	marker_free(m);
	ck_assert_int_eq(marker_new("/nonexistent/key", &m, &err), 0);
	ck_assert(!marker_file_ok(m));
	marker_free(m);
	ck_assert_int_eq(marker_new(NULL, &m, &err), 0);
	ck_assert(!marker_has_file(m) && !marker_file_ok(m));
	marker_free(m);
	remove_file();
}
END_TEST

START_TEST(random_keys)
{
	struct marker *a = NULL, *b = NULL;
	char value[MARKER_VALUE_MAX + 1];
	struct marker_place p = at_seq(5);
	struct err err;

	ck_assert_int_eq(marker_new(NULL, &a, &err), 0);
	ck_assert_int_eq(marker_new("", &b, &err), 0);
	(void)marker_make(a, &p, NOW, value);
	ck_assert_int_eq(check_at(a, value, 5, NOW), MARKER_ACCEPTED);
	ck_assert_int_eq(check_at(b, value, 5, NOW), MARKER_WRONG);
	marker_reload(a, 1 << 30);
	ck_assert_int_eq(check_at(a, value, 5, NOW), MARKER_ACCEPTED);
	marker_free(a);
	marker_free(b);
}
END_TEST

static enum marker_result of(struct marker *maker, struct marker *reader)
{
	char value[MARKER_VALUE_MAX + 1];
	struct marker_place p = at_seq(5);

	(void)marker_make(maker, &p, NOW, value);
	return check_at(reader, value, 5, NOW);
}

START_TEST(late_file)
{
	struct marker *m = NULL, *other = with_key(KEY);
	char before[MARKER_VALUE_MAX + 1];
	struct marker_place p = at_seq(5);
	uint64_t now = clock_mono_ns() / UINT64_C(1000000000);
	struct err err;

	remove_file();
	ck_assert_int_eq(marker_new(path, &m, &err), 0);
	ck_assert(!marker_file_ok(m));
	(void)marker_make(m, &p, NOW, before);
	ck_assert_int_eq(of(m, other), MARKER_WRONG);
	write_key(KEY);
	marker_reload(m, now + 1);
	ck_assert(marker_file_ok(m));
	/* used at once: nobody knew the one before; what was made with it still counts here */
	ck_assert_int_eq(of(m, other), MARKER_ACCEPTED);
	ck_assert_int_eq(check_at(m, before, 5, NOW), MARKER_ACCEPTED);
	/* gone again: it stays */
	remove_file();
	marker_reload(m, now + 2);
	ck_assert(!marker_file_ok(m));
	ck_assert_int_eq(of(m, other), MARKER_ACCEPTED);
	marker_free(m);
	marker_free(other);
}
END_TEST

START_TEST(rotation)
{
	uint64_t now = clock_mono_ns() / UINT64_C(1000000000);
	struct marker *a = with_key(KEY), *late = with_key(KEY), *fresh;

	ck_assert_int_eq(of(a, late), MARKER_ACCEPTED);
	fresh = with_key(KEY2);
	marker_reload(a, now + 10);
	ck_assert(marker_file_ok(a));
	/* nodes that have not got it yet know what this one makes, and it knows theirs */
	ck_assert_int_eq(of(a, late), MARKER_ACCEPTED);
	ck_assert_int_eq(of(late, a), MARKER_ACCEPTED);
	/* and those that have nothing else any more */
	ck_assert_int_eq(of(fresh, a), MARKER_ACCEPTED);
	ck_assert_int_eq(of(fresh, late), MARKER_WRONG);
	/* the same file written anew is no new key */
	write_key(KEY2);
	marker_reload(a, now + 20);
	write_key(KEY2 "\n");
	marker_reload(a, now + 30);
	ck_assert_int_eq(of(a, late), MARKER_ACCEPTED);
	marker_reload(a, now + 10 + MARKER_WINDOW_S - 1);
	ck_assert_int_eq(of(a, late), MARKER_ACCEPTED);
	marker_reload(a, now + 10 + MARKER_WINDOW_S);
	ck_assert_int_eq(of(a, late), MARKER_WRONG);
	ck_assert_int_eq(of(a, fresh), MARKER_ACCEPTED);
	ck_assert_int_eq(of(late, a), MARKER_ACCEPTED);
	marker_reload(a, now + 10 + 2 * MARKER_WINDOW_S);
	ck_assert_int_eq(of(late, a), MARKER_ACCEPTED);
	marker_reload(a, now + 11 + 2 * MARKER_WINDOW_S);
	ck_assert_int_eq(of(late, a), MARKER_WRONG);
	/* a damaged file changes nothing */
	write_key("short");
	marker_reload(a, now + 2000);
	ck_assert(!marker_file_ok(a));
	ck_assert_int_eq(of(a, fresh), MARKER_ACCEPTED);
	/* more changes than are kept */
	for (int i = 0; i < 10; i++) {
		char key[64];

		snprintf(key, sizeof(key), "key number %d, as long as it must", i);
		write_key(key);
		marker_reload(a, now + 2001 + (uint64_t)i);
		ck_assert(marker_file_ok(a));
		ck_assert_int_eq(of(a, a), MARKER_ACCEPTED);
	}
	marker_free(a);
	marker_free(late);
	marker_free(fresh);
	remove_file();
}
END_TEST

/* ---- sockets ---- */

static void tcp_pair(const char *ip, int fds[2])
{
	bool six = strchr(ip, ':') != NULL;
	struct sockaddr_in6 a6 = {.sin6_family = AF_INET6};
	struct sockaddr_in a4 = {.sin_family = AF_INET};
	struct sockaddr *a = six ? (struct sockaddr *)&a6 : (struct sockaddr *)&a4;
	socklen_t len = six ? sizeof(a6) : sizeof(a4);
	int l = socket(a->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	ck_assert_int_eq(
		inet_pton(a->sa_family, ip, six ? (void *)&a6.sin6_addr : (void *)&a4.sin_addr), 1);
	ck_assert_int_eq(bind(l, a, len), 0);
	ck_assert_int_eq(listen(l, 1), 0);
	ck_assert_int_eq(getsockname(l, a, &len), 0);
	fds[0] = socket(a->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(connect(fds[0], a, len), 0);
	fds[1] = accept4(l, NULL, NULL, SOCK_CLOEXEC);
	ck_assert_int_ge(fds[1], 0);
	close(l);
}

static struct marker_place place_of(int fd)
{
	struct marker_place p = {0};

	ck_assert_int_eq(marker_place_of(fd, &p), 0);
	ck_assert(p.has_ends != p.has_seq);
	ck_assert_int_eq(place_ends_of(fd, &p), 0);
	ck_assert(p.has_ends);
	return p;
}

/* What this end received so far ends there: read in another way than by pkg/marker. */
static uint32_t received_to(int fd)
{
	int on = 1, off = -1, queue = TCP_RECV_QUEUE;
	socklen_t len = sizeof(uint32_t);
	uint32_t seq;

	ck_assert_int_eq(setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &on, sizeof(on)), 0);
	ck_assert_int_eq(setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, &queue, sizeof(queue)), 0);
	ck_assert_int_eq(getsockopt(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, &seq, &len), 0);
	ck_assert_int_eq(setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &off, sizeof(off)), 0);
	return seq;
}

static void move(int from, int to, size_t n)
{
	static char block[65536], back[65536];

	for (size_t i = 0; i < n; i++)
		block[i] = (char)(i * 7 + n);
	ck_assert_int_eq(send(from, block, n, MSG_NOSIGNAL), (ssize_t)n);
	ck_assert_int_eq(recv(to, back, n, MSG_WAITALL), (ssize_t)n);
	ck_assert(memcmp(block, back, n) == 0);
}

static uint64_t segments_out(int fd)
{
	struct tcp_info info = {0};
	socklen_t len = sizeof(info);

	ck_assert_int_eq(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len), 0);
	return info.tcpi_segs_out;
}

START_TEST(socket_places)
{
	static const char *const addresses[] = {"127.0.0.1", "::1"};
	struct marker_place a, b;
	int fds[2];

	for (size_t i = 0; i < ARRAY_SIZE(addresses); i++) {
		uint64_t segments;

		tcp_pair(addresses[i], fds);
		segments = segments_out(fds[0]);
		a = place_of(fds[0]);
		/* sender's end first */
		b = place_of(fds[1]);
		ck_assert(memcmp(a.ends, b.ends + 18, 18) == 0);
		ck_assert(memcmp(a.ends + 18, b.ends, 18) == 0);
		if (!a.has_seq) {
			printf("skipped: sequence numbers need CAP_NET_ADMIN\n");
			continue;
		}
		/* nothing was sent */
		ck_assert_uint_eq(segments_out(fds[0]), segments);
		for (size_t n = 1; n <= 65536; n *= 4) {
			a = place_of(fds[0]);
			ck_assert_uint_eq(a.seq, received_to(fds[1]));
			move(fds[0], fds[1], n);
			ck_assert_uint_eq(place_of(fds[0]).seq, a.seq + n);
			/* the receiver's own answers (its choice of queue is another now: asked
			 * for anew) */
			move(fds[1], fds[0], n);
		}
		/* with data on its way, and while it waits for the window */
		a = place_of(fds[0]);
		ck_assert_int_eq(send(fds[0], "waits", 5, 0), 5);
		ck_assert_uint_eq(place_of(fds[0]).seq, a.seq + 5);
		close(fds[0]);
		close(fds[1]);
	}
}
END_TEST

START_TEST(busy_socket)
{
	static char block[1 << 16];
	struct marker_place p = {0};
	int fds[2];

	/* the first question comes too late: bytes wait to leave. They must not be held up. */
	tcp_pair("127.0.0.1", fds);
	while (send(fds[0], block, sizeof(block), MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
		;
	ck_assert_int_eq(marker_place_of(fds[0], &p), 0);
	ck_assert(p.has_ends && !p.has_seq);
	close(fds[1]);
	close(fds[0]);
}
END_TEST

START_TEST(no_place)
{
	struct marker_place p = {.seq = 1};
	int fds[2], fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	ck_assert_int_lt(marker_place_of(-1, &p), 0);
	ck_assert_int_lt(marker_place_of(fd, &p), 0); /* not connected */
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	ck_assert_int_lt(marker_place_of(fds[0], &p), 0);
	ck_assert_uint_eq(p.seq, 1);
	close(fd);
	close(fds[0]);
	close(fds[1]);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("marker");
	TCase *t = tcase_create("marker");
	SRunner *runner;
	int failed;

	tcase_set_timeout(t, 120);
	tcase_add_checked_fixture(t, NULL, remove_file);
	tcase_add_test(t, known_values);
	tcase_add_test(t, own_values);
	tcase_add_test(t, ends);
	tcase_add_test(t, damaged);
	tcase_add_test(t, huge);
	tcase_add_test(t, window);
	tcase_add_test(t, once);
	tcase_add_test(t, budget);
	tcase_add_test(t, key_files);
	tcase_add_test(t, random_keys);
	tcase_add_test(t, late_file);
	tcase_add_test(t, rotation);
	tcase_add_test(t, socket_places);
	tcase_add_test(t, busy_socket);
	tcase_add_test(t, no_place);
	suite_add_tcase(s, t);
	runner = srunner_create(s);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
