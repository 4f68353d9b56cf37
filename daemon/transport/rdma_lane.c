/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/transport/rdma_lane.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    LANE_POLLED = 16, /* completions taken at once */
    LANE_WAITING = 256,
};

/*
 * Pieces and bytes of staging are counted from the beginning on, so that their differences are what is in
 * use; where they lie is the rest by depth and by size.
 */
struct RdmaLane {
    RdmaPair *pair;
    uint8_t *staging; /* mmapped */
    size_t size;
    RdmaMemory *memory;
    uint64_t given, returned; /* bytes of staging */
    LanePiece *pieces, *plan;
    unsigned depth;
    uint64_t posted, complete, popped; /* pieces */
    bool armed;                        /* an event comes, or came and was not taken */
    uint32_t waiting[LANE_WAITING];
    uint64_t queued, unqueued;
};

static size_t round_up(size_t bytes)
{
    return (bytes + LIMIT_PAGE_SIZE_MIN - 1) / LIMIT_PAGE_SIZE_MIN * LIMIT_PAGE_SIZE_MIN;
}

static void explain(int error, size_t bytes, char *ret_text)
{
    if (error == -ENOMEM)
        rdma_memory_hint(bytes, ret_text);
    else if (error == -EDQUOT)
        snprintf(ret_text, LIMIT_TEXT + 1,
                 "RDMA: %zu bytes to receive into are more than [rdma] pinned leaves", bytes);
    else
        snprintf(ret_text, LIMIT_TEXT + 1, "RDMA: %zu bytes could not be pinned: %s", bytes,
                 strerrordesc_np(-error));
}

/* 0 or negative errno. */
static int pin_staging(RdmaLane *lane, RdmaDevice *device, size_t bytes)
{
    int error = 0;

    lane->size = round_up(bytes);
    lane->staging =
        mmap(NULL, lane->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (lane->staging == MAP_FAILED) {
        lane->staging = NULL;
        return -errno;
    }
    lane->memory = rdma_memory_new(device, lane->staging, lane->size, RDMA_ACCESS_STAGE, &error);
    return lane->memory ? 0 : error;
}

RdmaLane *rdma_lane_new(RdmaDevice *device, size_t staging, unsigned depth, char *ret_text)
{
    RdmaLane *lane = calloc(1, sizeof *lane);
    int error;

    if (lane) {
        lane->depth = depth;
        lane->pieces = calloc(depth, sizeof *lane->pieces);
        lane->plan = calloc(depth, sizeof *lane->plan);
    }
    if (!lane || !lane->pieces || !lane->plan) {
        snprintf(ret_text, LIMIT_TEXT + 1, "RDMA: no memory for a channel");
        rdma_lane_free(lane);
        return NULL;
    }
    error = pin_staging(lane, device, staging);
    if (error)
        explain(error, lane->size, ret_text);
    else
        lane->pair = rdma_pair_new(device, depth, ret_text);
    if (!lane->pair) {
        rdma_lane_free(lane);
        return NULL;
    }
    return lane;
}

void rdma_lane_free(RdmaLane *lane)
{
    if (!lane)
        return;
    rdma_pair_free(lane->pair); /* first: it may write to what is unpinned next */
    rdma_memory_free(lane->memory);
    if (lane->staging)
        munmap(lane->staging, lane->size);
    free(lane->pieces);
    free(lane->plan);
    free(lane);
}

RdmaPair *rdma_lane_pair(const RdmaLane *lane)
{
    return lane->pair;
}

size_t rdma_lane_pinned(const RdmaLane *lane)
{
    return lane->size;
}

LanePiece *rdma_lane_plan(RdmaLane *lane, unsigned *ret_depth)
{
    *ret_depth = lane->depth;
    return lane->plan;
}

bool rdma_lane_suits(const RdmaLane *lane, unsigned pieces, size_t staged)
{
    return pieces <= lane->depth && staged <= lane->size / 2;
}

/* Where a fetch's bytes begin: they lie together, so what is left at the end may be too short.  That is
 * less than they take themselves: of two halves one is always free if nothing else is in use. */
static uint64_t begin_of(const RdmaLane *lane, size_t staged)
{
    size_t left = lane->size - lane->given % lane->size;

    return staged <= left ? lane->given : lane->given + left;
}

bool rdma_lane_has_room(const RdmaLane *lane, unsigned pieces, size_t staged)
{
    return pieces <= lane->depth - rdma_lane_under_way(lane) &&
           begin_of(lane, staged) + staged - lane->returned <= lane->size;
}

static void stage(RdmaLane *lane, LanePiece *piece)
{
    if (!piece->landing) {
        piece->to = lane->staging + lane->given % lane->size;
        piece->lkey = rdma_memory_lkey(lane->memory);
        lane->given += piece->length;
    }
    piece->staged_end = lane->given;
}

int rdma_lane_post(RdmaLane *lane, unsigned pieces, size_t staged)
{
    lane->given = begin_of(lane, staged);
    for (unsigned i = 0; i < pieces; i++) {
        LanePiece *piece = &lane->pieces[lane->posted % lane->depth];
        int error;

        *piece = lane->plan[i];
        piece->last = i + 1 == pieces;
        stage(lane, piece);
        RdmaRead read = {
            .to = piece->to,
            .lkey = piece->lkey,
            .length = piece->length,
            .from = piece->from,
            .rkey = piece->rkey,
            .cookie = lane->posted,
            .last = piece->last,
        };
        lane->posted++; /* also if it fails: nobody need know how far it came */
        error = rdma_pair_read(lane->pair, &read);
        if (error)
            return error;
    }
    return 0;
}

unsigned rdma_lane_under_way(const RdmaLane *lane)
{
    return (unsigned)(lane->posted - lane->popped);
}

/* NULL: it is complete, and so is all before it. */
static const char *take(RdmaLane *lane, const RdmaCompletion *completion)
{
    uint64_t number = completion->cookie;

    if (completion->failed)
        return completion->reason;
    if (number < lane->complete || number >= lane->posted ||
        !lane->pieces[number % lane->depth].last)
        return "a completion of no READ that is under way";
    lane->complete = number + 1;
    return NULL;
}

int rdma_lane_poll(RdmaLane *lane, const char **ret_reason)
{
    RdmaCompletion completions[LANE_POLLED];
    int n = LANE_POLLED;

    while (n == LANE_POLLED && lane->complete < lane->posted) {
        n = rdma_pair_poll(lane->pair, completions, LANE_POLLED);
        if (n < 0) {
            *ret_reason = strerrordesc_np(-n);
            return n;
        }
        for (int i = 0; i < n; i++)
            if ((*ret_reason = take(lane, &completions[i])))
                return -EIO;
    }
    return (int)(lane->complete - lane->popped);
}

const LanePiece *rdma_lane_oldest(const RdmaLane *lane)
{
    return &lane->pieces[lane->popped % lane->depth];
}

void rdma_lane_pop(RdmaLane *lane)
{
    lane->returned = rdma_lane_oldest(lane)->staged_end;
    lane->popped++;
    if (lane->popped == lane->posted) /* so that few pages at a time stay in the core's cache */
        lane->given = lane->returned = 0;
}

bool rdma_lane_is_landing(const RdmaLane *lane, uint32_t region)
{
    for (uint64_t i = lane->popped; i < lane->posted; i++) {
        const LanePiece *piece = &lane->pieces[i % lane->depth];
        if (piece->landing && piece->region == region)
            return true;
    }
    return false;
}

int rdma_lane_arm(RdmaLane *lane)
{
    int error;

    if (lane->armed)
        return 0;
    error = rdma_pair_arm(lane->pair);
    lane->armed = !error;
    return error ? error : 1;
}

void rdma_lane_disarm(RdmaLane *lane)
{
    rdma_pair_take_events(lane->pair);
    lane->armed = false;
}

unsigned rdma_lane_waiting(const RdmaLane *lane)
{
    return (unsigned)(lane->queued - lane->unqueued);
}

void rdma_lane_queue(RdmaLane *lane, uint32_t slot)
{
    lane->waiting[lane->queued++ % LANE_WAITING] = slot;
}

uint32_t rdma_lane_next(const RdmaLane *lane)
{
    return lane->waiting[lane->unqueued % LANE_WAITING];
}

void rdma_lane_unqueue(RdmaLane *lane)
{
    lane->unqueued++;
}
