/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "pkg/base/base.h"

int mount_find(const char *type, char *ret_path, size_t size)
{
	CLEANUP(fclosep)
	FILE *f = fopen("/proc/self/mounts", "re");
	char line[4096], path[2048], kind[64];

	if (!f)
		return -errno;
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%*s %2047s %63s", path, kind) != 2 || strcmp(kind, type) != 0)
			continue;
		if (strlen(path) >= size)
			return -ENAMETOOLONG;
		memcpy(ret_path, path, strlen(path) + 1);
		return 0;
	}
	return -ENOENT;
}
