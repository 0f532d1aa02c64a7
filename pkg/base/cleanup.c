/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <unistd.h>

#include "pkg/base/base.h"

void freep(void *p)
{
	void **pp = p;

	free(*pp);
	*pp = NULL;
}

void closep(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void fclosep(FILE **f)
{
	if (*f)
		fclose(*f);
	*f = NULL;
}

void closedirp(DIR **d)
{
	if (*d)
		closedir(*d);
	*d = NULL;
}
