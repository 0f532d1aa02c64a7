/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
#include <sys/uio.h>
#include <zlib.h>

#include "pkg/sink/cursor.h"

#define VERSION 1

/* Before a cursor in the file. */
struct slot {
	char magic[8];
	uint32_t version;
	uint32_t crc; /* of the cursor, as far as it is used */
};

_Static_assert(CURSOR_BYTES == 2 * (sizeof(struct slot) + sizeof(struct cursor)), "two places");

static const char MAGIC[8] = "EBDCURSR";

static size_t used(const struct cursor *c)
{
	return offsetof(struct cursor, batches) + c->count * sizeof(c->batches[0]);
}

static off_t slot_at(uint64_t generation)
{
	return (off_t)(generation % 2 * (sizeof(struct slot) + sizeof(struct cursor)));
}

static uint32_t cursor_crc(const struct cursor *c)
{
	return (uint32_t)crc32_z(0, (const Bytef *)c, used(c));
}

/* Empty where it cannot be known. */
static void boot_id(char id[CURSOR_BOOT])
{
	int fd CLEANUP(closep)
	= open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);

	memset(id, 0, CURSOR_BOOT);
	if (fd >= 0 && read(fd, id, CURSOR_BOOT - 1) < 0)
		memset(id, 0, CURSOR_BOOT);
}

static bool load_slot(int fd, uint64_t which, struct slot *slot, struct cursor *c)
{
	struct iovec iov[2] = {{slot, sizeof(*slot)}, {c, sizeof(*c)}};
	ssize_t n = preadv(fd, iov, 2, slot_at(which));

	return n >= (ssize_t)(sizeof(*slot) + offsetof(struct cursor, batches)) &&
	       memcmp(slot->magic, MAGIC, sizeof(MAGIC)) == 0 && slot->version == VERSION &&
	       c->generation % 2 == which && c->count <= ARRAY_SIZE(c->batches) &&
	       (size_t)n >= sizeof(*slot) + used(c) && slot->crc == cursor_crc(c);
}

int cursor_load(int fd, struct cursor *c)
{
	struct cursor *other CLEANUP(freep)
	= malloc(sizeof(*other));
	char boot[CURSOR_BOOT];
	struct slot slot = {0};
	bool even, odd, same;

	if (!other)
		return -ENOMEM;
	even = load_slot(fd, 0, &slot, c);
	odd = load_slot(fd, 1, &slot, other);
	if (odd && (!even || other->generation > c->generation))
		memcpy(c, other, used(other));
	else if (!even)
		memset(c, 0, offsetof(struct cursor, batches));
	boot_id(boot);
	same = boot[0] != '\0' && memcmp(boot, c->boot, CURSOR_BOOT) == 0;
	memcpy(c->boot, boot, CURSOR_BOOT);
	/* Where one is damaged, it may have been the newer one. */
	return same && ((even && odd) || c->generation == 1);
}

int cursor_store(int fd, struct cursor *c)
{
	struct slot slot = {.version = VERSION};
	struct iovec iov[2] = {{&slot, sizeof(slot)}, {c, used(c)}};
	ssize_t n;

	memcpy(slot.magic, MAGIC, sizeof(MAGIC));
	c->generation++;
	slot.crc = cursor_crc(c);
	n = pwritev(fd, iov, 2, slot_at(c->generation));
	if (n < 0)
		return -errno;
	return n == (ssize_t)(sizeof(slot) + used(c)) ? 0 : -ENOSPC;
}
