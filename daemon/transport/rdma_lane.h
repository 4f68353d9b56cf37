/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A lane: a queue pair, and pinned memory to READ into, beside the connection of one data channel.  It
 * holds the READs under way in the order in which they were posted, which is the order in which they
 * complete, and gives out its memory in that order too.
 *
 * Made and connected by the link, as that takes a while, and handed over to the data thread that owns the
 * channel.  One thread at a time; nothing is allocated and nothing blocks between new and free.
 */
#ifndef POSTCOPYD_TRANSPORT_RDMA_LANE_H
#define POSTCOPYD_TRANSPORT_RDMA_LANE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/transport/rdma_pair.h"

typedef struct RdmaLane RdmaLane;

/*
 * staging: bytes that are pinned, rounded up to whole pages.  What takes more than half of it at once is not
 * staged: such a fetch goes by TCP, so it should be at least twice the largest one.  depth: READs under way
 * at most, not 0; a fetch that takes more goes by TCP.  NULL with a line in ret_text[LIMIT_TEXT + 1].
 */
RdmaLane *rdma_lane_new(RdmaDevice *device, size_t staging, unsigned depth, char *ret_text);

/* When it returns the device writes nowhere any more on behalf of this lane (rule 4).  NULL is fine. */
void rdma_lane_free(RdmaLane *lane);

/* For the link, to describe and connect it. */
RdmaPair *rdma_lane_pair(const RdmaLane *lane);

/* Bytes that are pinned for it. */
size_t rdma_lane_pinned(const RdmaLane *lane);

#endif
