/* SPDX-License-Identifier: Apache-2.0 */
/* The page, as it is built in: page/ is all of it. */
#ifndef EBPFDUMP_CALLBACK_PAGE_H
#define EBPFDUMP_CALLBACK_PAGE_H

#include "pkg/receiver/receiver.h"

#define PAGE_FILES 4

void page_files(struct receiver_file files[PAGE_FILES]);

#endif
