/* SPDX-License-Identifier: Apache-2.0 */
/*
 * syncer: fsync(2) in a thread of its own, so that the loop does not wait for a disk. Internal to
 * this room. The thread starts with the first file; all signals are blocked in it.
 */
#ifndef EBPFDUMP_SINK_SYNCER_H
#define EBPFDUMP_SINK_SYNCER_H

#include "pkg/base/base.h"

struct syncer;

int syncer_new(struct syncer **ret_syncer) MUST_CHECK;
/* Waits for what was begun. */
void syncer_free(struct syncer *s);
/* Takes a duplicate of fd; false: too many wait already (or there are no threads, no fds). tag: for
 * syncer_forget(), or 0. */
bool syncer_add(struct syncer *s, int fd, uint64_t tag);
/* Lets go of what waits under this tag: its file is removed, and its room shall be free. */
void syncer_forget(struct syncer *s, uint64_t tag);
/* Waits until nothing is waiting. */
void syncer_wait(struct syncer *s);
/* Files that could not be synced. */
uint64_t syncer_failed(struct syncer *s);

#endif
