/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A spool's directory that anybody may have written to. The first byte of the input says how:
 *
 *  - any bytes as a segment and as a cursor
 *  - a segment and a cursor whose checksums are right and whose numbers are not
 *  - a spool of our own, some of whose bytes are changed, moved or cut off by the input: no message
 *    comes out that was not put in, none twice without a mark
 *
 * In all, the counts add up, and the spool goes on working.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <zlib.h>

#include "pkg/sink/cursor.h"
#include "pkg/sink/segment.h"
#include "pkg/sink/spool.h"

#define CHECK(condition)          \
	do {                      \
		if (!(condition)) \
			abort();  \
	} while (0)
#define SEGMENT_BYTES 1500
#define MESSAGES      60

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char dir[64];

static void remove_dir(void)
{
	DIR *d = opendir(dir);
	const struct dirent *e;

	while (d && (e = readdir(d)))
		(void)unlinkat(dirfd(d), e->d_name, 0);
	if (d)
		closedir(d);
	(void)rmdir(dir);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	snprintf(dir, sizeof(dir), "%s/spool-fuzz-XXXXXX",
		access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	CHECK(mkdtemp(dir));
	CHECK(atexit(remove_dir) == 0);
	log_setup(LOG_ERROR, LOG_TEXT, "fuzz", "");
	return 0;
}

static void write_file(const char *name, const void *p, size_t len)
{
	char path[100];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	CHECK(fd >= 0 && write(fd, p, len) == (ssize_t)len);
	close(fd);
}

static size_t body_of(uint64_t seq, char *out)
{
	size_t len = (size_t)(seq * 37 % 90);

	memset(out, (int)('a' + seq % 26), len);
	return len;
}

static struct spool *open_it(void)
{
	struct spool_options o = {.dir = dir, .max_bytes = 1 << 20, .segment_bytes = SEGMENT_BYTES};
	struct spool *spool = NULL;

	CHECK(spool_open(&o, &spool, NULL) == 0);
	return spool;
}

static void append(struct spool *spool, uint64_t seq)
{
	char body[100];
	struct spool_item item = {
		.body = span_of(body, body_of(seq, body)), .seq = seq, .queued_ns = 1};

	CHECK(spool_append(spool, &item, 1) == 1);
}

static struct spool_stats stats_of(const struct spool *spool)
{
	struct spool_stats s;

	spool_stats(spool, &s);
	CHECK(s.recovered + s.appended == s.acknowledged + s.dropped + s.lost + s.messages);
	CHECK(s.messages <= s.recovered + s.appended);
	return s;
}

/* Reads it all. ours: it can only be what append() wrote. */
static void drain(struct spool *spool, bool ours, bool seen[])
{
	struct spool_batch *b;
	char want[100];

	while (spool_read(spool, 5, 300, &b) == 1) {
		CHECK(b->count > 0);
		for (size_t i = 0; i < b->count; i++) {
			const struct spool_record *r = &b->records[i];

			if (!ours)
				continue;
			CHECK(r->seq < MESSAGES && r->body.len == body_of(r->seq, want));
			CHECK(memcmp(r->body.p, want, r->body.len) == 0);
			CHECK(b->again || !seen[r->seq]);
			seen[r->seq] = true;
		}
		spool_ack(spool, b);
	}
	CHECK(stats_of(spool).messages == 0 && stats_of(spool).bytes == 0);
}

static void use(void)
{
	struct spool *spool = open_it();

	append(spool, 1);
	drain(spool, false, NULL);
	spool_free(spool);
}

static void any_bytes(const uint8_t *data, size_t size)
{
	size_t split = size > 2 ? (size_t)(data[0] | data[1] << 8) % size : 0;

	write_file("spool-0000000000000001.seg", data + MIN(size, 2), size - MIN(size, 2));
	if (split)
		write_file("cursor", data + split, size - split);
	use();
}

/* ---- right checksums ---- */

struct input {
	const uint8_t *p;
	size_t left;
};

/* 0 when there is no more. Small numbers, and now and then a very large one. */
static uint64_t number(struct input *in)
{
	uint64_t v;

	if (in->left == 0)
		return 0;
	v = *in->p++;
	in->left--;
	return v < 0xf0 ? v : UINT64_MAX >> ((v & 7) * 8);
}

static void put(struct buf *b, uint64_t value, size_t len)
{
	CHECK(buf_append(b, &value, len) == 0);
}

static void put_crc(struct buf *b, size_t from, uLong crc)
{
	put(b, crc32_z(crc, (const Bytef *)b->data + from, b->len - from), 4);
}

static void put_mark(struct buf *b, const char *magic, struct input *in, bool end)
{
	size_t from = b->len;

	CHECK(buf_append(b, magic, 8) == 0);
	put(b, 1, 4);
	put(b, end ? number(in) : 0, 4);
	put(b, 1, 8); /* number */
	put(b, 7, 8); /* nonce */
	put(b, end ? from : 0, 8);
	put(b, end ? number(in) : 0, 8);
	put(b, 0, 8);
	put(b, 0, 4);
	put_crc(b, from, 0);
}

static void put_record(struct buf *b, struct input *in)
{
	static const char body[256];
	uint64_t place[2] = {7, b->len};
	size_t from = b->len, len;

	put(b, 0xd5ec04e1, 4);
	len = (size_t)number(in);
	put(b, len, 4);
	put(b, number(in), 4); /* index */
	len = MIN(len, sizeof(body));
	put(b, crc32_z(0, (const Bytef *)body, len), 4);
	for (int i = 0; i < 3; i++)
		put(b, number(in), 8);
	put(b, 0, 4);
	put_crc(b, from, crc32_z(0, (const Bytef *)place, sizeof(place)));
	CHECK(buf_append(b, body, len) == 0);
}

static void put_cursor(struct buf *b, struct input *in)
{
	static struct cursor c;
	size_t used;

	memset(&c, 0, sizeof(c));
	c.generation = 2; /* the first place */
	c.segment = number(in);
	c.at = number(in);
	c.suspect = number(in);
	c.index = (uint32_t)number(in);
	c.count = (uint32_t)(number(in) % 8);
	for (uint32_t i = 0; i < c.count; i++)
		c.batches[i] = (struct cursor_batch){.segment = number(in),
			.start = number(in),
			.end = number(in),
			.bytes = number(in),
			.first = (uint32_t)number(in),
			.count = (uint32_t)number(in)};
	used = offsetof(struct cursor, batches) + c.count * sizeof(c.batches[0]);
	CHECK(buf_append(b, "EBDCURSR", 8) == 0);
	put(b, 1, 4);
	put(b, crc32_z(0, (const Bytef *)&c, used), 4);
	CHECK(buf_append(b, &c, used) == 0);
}

static void forged(const uint8_t *data, size_t size)
{
	struct buf b = BUF_INIT(1 << 20);
	struct input in = {.p = data, .left = size};
	uint64_t records = number(&in) % 32;

	put_cursor(&b, &in);
	write_file("cursor", b.data, b.len);
	b.len = 0;
	put_mark(&b, "EBDSPOOL", &in, false);
	for (uint64_t i = 0; i < records; i++)
		put_record(&b, &in);
	if (number(&in) & 1)
		put_mark(&b, "EBDSPEND", &in, true);
	write_file("spool-0000000000000001.seg", b.data, b.len);
	buf_done(&b);
	use();
}

/* ---- our own, damaged ---- */

/* Three bytes say what happens to which file, and a fourth where in it. */
static void damage(const uint8_t *data, size_t size)
{
	static const char *const names[] = {"spool-0000000000000001.seg",
		"spool-0000000000000002.seg", "spool-0000000000000003.seg", "cursor"};
	static uint8_t bytes[1 << 17];

	for (; size >= 4; data += 4, size -= 4) {
		const char *name = names[data[0] % 4];
		char path[100];
		ssize_t len;
		size_t at;
		int fd;

		snprintf(path, sizeof(path), "%s/%s", dir, name);
		fd = open(path, O_RDONLY);
		if (fd < 0)
			continue;
		len = read(fd, bytes, sizeof(bytes));
		close(fd);
		if (len <= 0)
			continue;
		at = (size_t)(data[1] << 8 | data[2]) % (size_t)len;
		if (data[0] & 0x80)
			write_file(name, bytes, at);
		else if (data[0] & 0x40)
			memmove(bytes + at, bytes, MIN(data[3], (size_t)len - at));
		else
			bytes[at] ^= data[3];
		if (!(data[0] & 0x80))
			write_file(name, bytes, (size_t)len);
	}
}

static void our_bytes(const uint8_t *data, size_t size)
{
	bool seen[MESSAGES] = {false};
	struct spool_batch *out[4] = {NULL};
	struct spool *spool = open_it();
	uint64_t seq = 0;

	for (; seq < MESSAGES / 2; seq++)
		append(spool, seq);
	for (size_t i = 0; i < 4; i++) {
		CHECK(spool_read(spool, 1 + data[0] % 8, 1000, &out[i]) == 1);
		for (size_t j = 0; j < out[i]->count; j++)
			seen[out[i]->records[j].seq] = true;
	}
	spool_ack(spool, out[data[0] % 4]);
	spool_free(spool);
	damage(data + 1, size - 1);
	spool = open_it();
	stats_of(spool);
	for (; seq < MESSAGES - 5; seq++)
		append(spool, seq);
	if (data[0] & 0x10) {
		(void)spool_drop_oldest(spool, NULL);
		stats_of(spool);
	}
	if (data[0] & 0x20) {
		spool_free(spool);
		spool = open_it();
	}
	append(spool, seq);
	drain(spool, true, seen);
	/* what comes after the damage always comes */
	CHECK(seen[seq] || (data[0] & 0x10));
	spool_free(spool);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 2 || size > 20000)
		return 0;
	remove_dir();
	CHECK(mkdir(dir, 0700) == 0);
	if (data[0] & 1)
		any_bytes(data + 1, size - 1);
	else if (data[0] & 2)
		forged(data + 1, size - 1);
	else
		our_bytes(data + 1, size - 1);
	return 0;
}
