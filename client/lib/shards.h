/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef POSTCOPY_SHARDS_H
#define POSTCOPY_SHARDS_H

#include "client/lib/reason.h"
#include "client/lib/region.h"
#include "protocol/client.h"

/*
 * 0 if the shards cover every region that is not absent fully, without overlap and on its page boundaries, in whatever
 * order; else -EINVAL.  Memory left out would read as zero, and shards that overlap cannot both be
 * registered.
 */
int shards_check(const ClientShard *shards, uint32_t n_shards, const Regions *regions,
                 Reason *ret_reason);

/* The same for shards of one region only. */
int shards_check_region(const ClientShard *shards, uint32_t n_shards, const Regions *regions,
                        uint32_t index, Reason *ret_reason);

#endif
