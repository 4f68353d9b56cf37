/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Regions that the VMM has unmapped without saying so.
 */
#ifndef POSTCOPY_STALE_H
#define POSTCOPY_STALE_H

#include "client/lib/reason.h"
#include "client/lib/region.h"

/* 0 or mapping_check()'s error for the first region that is not mapped as described. */
int stale_check(const Regions *regions, Reason *ret_reason);

/* Drops them; the memory must not be in use.  True if there were any. */
bool stale_drop(Regions *regions);

#endif
