/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every answer says that it is the receiver's, by a marker (pkg/marker), so that loaders on its
 * machine leave its traffic out. Without a key that they share it says nothing.
 */
#include <errno.h>
#include <stdlib.h>

#include "pkg/marker/marker.h"
#include "pkg/receiver/server.h"

struct own {
	pthread_mutex_t lock; /* of marker: every thread of the server answers */
	struct marker *marker;
};

int own_new(const char *key_file, struct own **ret_own, struct err *err)
{
	struct own *own = calloc(1, sizeof(*own));
	int n;

	if (!own)
		return err_set(err, ENOMEM, "out of memory");
	n = marker_new(key_file, &own->marker, err);
	if (n < 0) {
		free(own);
		return n;
	}
	pthread_mutex_init(&own->lock, NULL);
	*ret_own = own;
	return 0;
}

void own_free(struct own *own)
{
	if (!own)
		return;
	marker_free(own->marker);
	pthread_mutex_destroy(&own->lock);
	free(own);
}

void own_refresh(struct own *own)
{
	if (!own)
		return;
	pthread_mutex_lock(&own->lock);
	marker_reload(own->marker, clock_mono_ns() / UINT64_C(1000000000));
	pthread_mutex_unlock(&own->lock);
}

void own_mark(struct own *own, struct MHD_Connection *c, struct MHD_Response *response)
{
	const union MHD_ConnectionInfo *info;
	char value[MARKER_VALUE_MAX + 1];
	struct marker_place place;

	if (!own)
		return;
	/* what went before on this connection has been written, so the answer begins here */
	info = MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);
	if (!info || marker_place_of(info->connect_fd, &place))
		return;
	pthread_mutex_lock(&own->lock);
	(void)marker_make(own->marker, &place, clock_wall_ns() / UINT64_C(1000000000), value);
	pthread_mutex_unlock(&own->lock);
	/* without it the answer is as good as with it */
	(void)MHD_add_response_header(response, MARKER_HEADER, value);
}
