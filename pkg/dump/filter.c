/* SPDX-License-Identifier: Apache-2.0 */
#include "pkg/dump/dump.h"

bool dump_filter_pass(const struct dump_filter *filter, const struct dump_message *message)
{
	return (filter->directions >> message->direction & 1) &&
	       (filter->kinds >> message->head->kind & 1);
}
