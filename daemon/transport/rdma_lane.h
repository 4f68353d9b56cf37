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

/* The rest is the channel's, on its thread. */

/* One READ: pages that lie together at both ends. */
typedef struct LanePiece {
    uint64_t from; /* as the source's device knows it */
    uint32_t rkey;
    uint32_t lkey;
    uint8_t *to; /* where they belong if landing, else in the lane's memory */
    bool landing;
    uint32_t length; /* bytes */
    uint32_t count;  /* pages */
    uint32_t region;
    uint32_t slot;       /* the channel's fetch */
    bool last;           /* of that fetch */
    uint64_t staged_end; /* the lane's own: of its memory this much was given out up to here */
} LanePiece;

/* Room for depth pieces: what is to be posted next is written here. */
LanePiece *rdma_lane_plan(RdmaLane *lane, unsigned *ret_depth);

/* Whether so many pieces, so many bytes of them staged, can be posted ever, or now.  What ever can, can once
 * nothing is under way. */
bool rdma_lane_suits(const RdmaLane *lane, unsigned pieces, size_t staged);
bool rdma_lane_has_room(const RdmaLane *lane, unsigned pieces, size_t staged);

/* Posts that many pieces of the plan; has_room() must hold.  0 or negative errno: the lane is of no use
 * any more, and part of them may be under way. */
int rdma_lane_post(RdmaLane *lane, unsigned pieces, size_t staged);

/* How many pieces are under way, or complete and not popped. */
unsigned rdma_lane_under_way(const RdmaLane *lane);

/* How many of them are complete, from the oldest on.  Negative: one failed, and *ret_reason says why. */
int rdma_lane_poll(RdmaLane *lane, const char **ret_reason);

/* The oldest; some must be under way.  Its memory is given out again once it is popped. */
const LanePiece *rdma_lane_oldest(const RdmaLane *lane);
void rdma_lane_pop(RdmaLane *lane);

/* True while a READ of this region's pages to where they belong is under way. */
bool rdma_lane_is_landing(const RdmaLane *lane, uint32_t region);

/*
 * To wait: arm, poll, then wait for the file to be readable, then disarm and poll.  Arming tells whether it
 * has to be polled: 1 armed just now, 0 it was armed already, or negative errno.
 */
int rdma_lane_arm(RdmaLane *lane);
void rdma_lane_disarm(RdmaLane *lane);

/* Fetches of the channel's, by slot, that wait for room, first come first served.  256 at most. */
unsigned rdma_lane_waiting(const RdmaLane *lane);
void rdma_lane_queue(RdmaLane *lane, uint32_t slot);
uint32_t rdma_lane_next(const RdmaLane *lane);
void rdma_lane_unqueue(RdmaLane *lane);

#endif
