/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the kernel says is mapped where, from /proc/self/maps and smaps.
 *
 * A VMM may have unmapped or replaced a region since it named it.  Punching a file that is no longer
 * guest memory would destroy something else, so the mapping is looked at before it is trusted.
 */
#ifndef POSTCOPY_MAPPING_H
#define POSTCOPY_MAPPING_H

#include <stdbool.h>

#include "client/lib/reason.h"
#include "client/lib/region.h"

/* 0; -ESTALE if the region is not, or not as described, mapped; or why /proc cannot be read. */
int mapping_check(const Region *region, Reason *ret_reason);

/*
 * True if a part of the region is already kept from forked children (MADV_DONTFORK), or if that
 * cannot be told: then it is not ours to change back.
 */
bool mapping_is_dontfork(const Region *region);

#endif
