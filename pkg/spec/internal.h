/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of this room share. */
#ifndef EBPFDUMP_SPEC_INTERNAL_H
#define EBPFDUMP_SPEC_INTERNAL_H

#include "pkg/spec/spec.h"

/* Whether one value of this option of the loader is within its type and bounds. */
bool spec_value_allowed(const struct spec_option *o, const char *value);

#endif
