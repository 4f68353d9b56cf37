/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/transport/rdma_fetch.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "daemon/transport/tcp_receive.h"

enum { READ_MOST = 4 << 20 }; /* bytes of one READ: every device can do that */

_Static_assert(READ_MOST >= PEER_PAGE_SIZE_MAX, "a page is one READ");
_Static_assert(CHANNEL_SLOTS <= 256, "all slots can wait for the lane");

/* Over the lane, or not. */
typedef enum Way {
    WAY_POSTED,
    WAY_LATER, /* there is no room now */
    WAY_TCP,
    WAY_GONE, /* the channel was dropped */
} Way;

/* A sink may drop the channel while it is being told of what came; then there may be no lane any more. */
static bool is_up(const Channel *channel)
{
    return channel->fd >= 0 && !channel->reason;
}

static void count(_Atomic uint64_t *counter, uint64_t by)
{
    atomic_fetch_add_explicit(counter, by, memory_order_relaxed);
}

static void fail(Channel *channel, const char *reason)
{
    if (!is_up(channel))
        return;
    count(&channel->rdma_failures, 1);
    snprintf(channel->text, sizeof channel->text, "RDMA: %s", reason);
    channel_drop(channel, channel->text);
}

/* --- what comes ---------------------------------------------------------------------------- */

static void hand_over_oldest(Channel *channel)
{
    RdmaLane *lane = channel->lane;
    const LanePiece *piece = rdma_lane_oldest(lane);
    Fetch *fetch = &channel->slots[piece->slot];

    count(&channel->rdma_bytes, piece->length);
    if (piece->landing) {
        count(&channel->rdma_landed_pages, piece->count);
        channel_hand_over(channel, fetch, piece->count, FETCH_LANDED, NULL);
    } else {
        count(&channel->rdma_staged_pages, piece->count);
        channel_hand_over(channel, fetch, piece->count, FETCH_DATA, piece->to);
    }
    rdma_lane_pop(lane);
    count(&channel->rdma_done, 1);
}

/* Hands over what is complete.  False: nothing was. */
static bool collect(Channel *channel)
{
    const char *reason;
    int complete = rdma_lane_poll(channel->lane, &reason);

    if (complete < 0)
        fail(channel, reason);
    if (complete <= 0)
        return false;
    channel->handing = true;
    for (; complete > 0 && is_up(channel); complete--)
        hand_over_oldest(channel);
    channel->handing = false;
    channel_finish_drop(channel);
    return true;
}

void rdma_fetch_ready(RingWatch *watch, int result)
{
    Channel *channel = watch->owner;

    if (channel->reason) {
        channel_finish_drop(channel);
        return;
    }
    if (!channel->lane)
        return;
    if (result < 0) {
        fail(channel, strerrordesc_np(-result));
        return;
    }
    /* So it would be for ever, and no READ would complete. */
    if (result & (POLLERR | POLLHUP | POLLNVAL)) {
        fail(channel, "the device is gone");
        return;
    }
    rdma_lane_disarm(channel->lane);
    collect(channel);
}

/* --- what goes ----------------------------------------------------------------------------- */

/*
 * A fetch as READs: how many, and the bytes of them that are to be staged.  0: not all of it can go so.  What
 * the source could not read before goes by TCP, over which it says why.
 */
static unsigned plan(Channel *channel, const Fetch *fetch, size_t *ret_staged)
{
    const FetchSink *sink = channel->sink;
    uint64_t page_size = channel->page_sizes[fetch->region];
    unsigned depth, n = 0;
    LanePiece *pieces = rdma_lane_plan(channel->lane, &depth);
    uint32_t pages;

    *ret_staged = 0;
    if (!sink->source || fetch->attempts > 0)
        return 0;
    for (uint32_t at = 0; at < fetch->count; at += pages) {
        uint32_t most = (uint32_t)(READ_MOST / page_size), landing = 0;
        FetchLanding place = {0};
        FetchSource from;

        if (most > fetch->count - at)
            most = fetch->count - at;
        pages = sink->source(channel->owner, fetch->region, fetch->page + at, most, &from);
        if (pages == 0 || pages > most || n == depth)
            return 0;
        if (sink->land)
            landing = sink->land(channel->owner, fetch, at, pages, &place);
        if (landing > 0 && landing < pages)
            pages = landing;
        pieces[n++] = (LanePiece){
            .from = from.address,
            .rkey = from.rkey,
            .lkey = place.lkey,
            .to = place.memory,
            .landing = landing > 0,
            .length = (uint32_t)(pages * page_size),
            .count = pages,
            .region = fetch->region,
            .slot = (uint32_t)(fetch - channel->slots),
        };
        *ret_staged += landing > 0 ? 0 : pages * page_size;
    }
    return n;
}

/* Posts it, unless others have to go before. */
static Way send_fetch(Channel *channel, Fetch *fetch, bool others_first)
{
    RdmaLane *lane = channel->lane;
    size_t staged;
    unsigned n = plan(channel, fetch, &staged);
    int error;

    if (n == 0 || !rdma_lane_suits(lane, n, staged))
        return WAY_TCP;
    if (others_first || !rdma_lane_has_room(lane, n, staged))
        return WAY_LATER;
    fetch->state = FETCH_SENT;
    fetch->by_rdma = true;
    channel->queued--;
    count(&channel->rdma_reads, n);
    error = rdma_lane_post(lane, n, staged);
    if (!error)
        return WAY_POSTED;
    fail(channel, strerrordesc_np(-error));
    return WAY_GONE;
}

/* Those that found no room before. */
static bool send_waiting(Channel *channel)
{
    bool handed = false;
    Way way = WAY_POSTED;

    while (way != WAY_LATER && is_up(channel) && rdma_lane_waiting(channel->lane) > 0) {
        Fetch *fetch = &channel->slots[rdma_lane_next(channel->lane)];

        way = send_fetch(channel, fetch, false);
        if (way == WAY_LATER || way == WAY_GONE)
            break;
        rdma_lane_unqueue(channel->lane);
        fetch->by_rdma = way == WAY_POSTED;
        if (way == WAY_POSTED)
            handed |= collect(channel);
    }
    return handed;
}

/*
 * Each is looked for right after it was posted: what is there by then is handed over before the others are
 * asked for, and looking costs next to nothing.
 */
static bool send_new(Channel *channel)
{
    bool handed = false;
    unsigned left; /* that neither wait for room nor were looked at */

    if (!is_up(channel))
        return false;
    left = channel->queued - rdma_lane_waiting(channel->lane);
    for (uint32_t i = 0; left > 0 && i < CHANNEL_SLOTS && is_up(channel); i++) {
        Fetch *fetch = &channel->slots[i];
        Way way;

        if (fetch->state != FETCH_QUEUED || fetch->by_rdma)
            continue;
        left--;
        way = send_fetch(channel, fetch, rdma_lane_waiting(channel->lane) > 0);
        fetch->by_tcp = way == WAY_TCP;
        if (way == WAY_LATER) {
            fetch->by_rdma = true;
            rdma_lane_queue(channel->lane, i);
        } else if (way == WAY_POSTED) {
            handed |= collect(channel);
        }
    }
    return handed;
}

/* --- waiting ------------------------------------------------------------------------------- */

static bool is_under_way(const Channel *channel)
{
    return is_up(channel) && rdma_lane_under_way(channel->lane) > 0;
}

static Channel *channel_of(RingAside *aside)
{
    return (Channel *)((char *)aside - offsetof(Channel, aside));
}

static bool glance(RingAside *aside)
{
    Channel *channel = channel_of(aside);

    return is_under_way(channel) && collect(channel);
}

/*
 * What is under way wakes the ring, or is there.  Only who is about to sleep asks for that: an event costs an
 * interrupt, a wake-up and two reads, and who looks needs none.
 */
static bool settle(RingAside *aside)
{
    Channel *channel = channel_of(aside);
    bool handed;
    int armed;

    if (!is_under_way(channel))
        return false;
    armed = rdma_lane_arm(channel->lane);
    if (armed < 0)
        fail(channel, strerrordesc_np(-armed));
    handed = armed > 0 && collect(channel);
    if (is_under_way(channel) && !channel->completing.busy)
        ring_poll(channel->ring, &channel->completing, rdma_pair_fd(rdma_lane_pair(channel->lane)),
                  POLLIN, false);
    return handed;
}

/* --- its turn ------------------------------------------------------------------------------ */

void rdma_fetch_flush(Channel *channel)
{
    bool handed = false, full = !channel_has_room(channel);

    if (is_under_way(channel))
        handed = collect(channel); /* each turn: whoever never sleeps hears of no event */
    if (is_up(channel) && channel->queued > 0) {
        handed |= send_waiting(channel);
        handed |= send_new(channel);
    }
    if (is_under_way(channel))
        tcp_receive(channel); /* the connection's end is told meanwhile */
    /* Slots are free, and there may be nothing to come that would wake their owner.  One that fetches only what
     * is wanted has asked for all of it, unless there was no room. */
    if (handed && (full || channel->queued > 0 || channel->sink->goes_on))
        ring_hurry(channel->ring);
}

/* --- its life ------------------------------------------------------------------------------ */

void rdma_fetch_begin(Channel *channel)
{
    channel->aside = (RingAside){.glance = glance, .settle = settle};
    ring_add_aside(channel->ring, &channel->aside);
}

void rdma_fetch_stop(Channel *channel)
{
    rdma_pair_break(rdma_lane_pair(channel->lane));
    ring_cancel(channel->ring, &channel->completing);
}

void rdma_fetch_end(Channel *channel)
{
    RdmaLane *lane = channel->lane;

    ring_remove_aside(channel->ring, &channel->aside);
    for (; rdma_lane_under_way(lane) > 0; rdma_lane_pop(lane))
        if (rdma_lane_oldest(lane)->landing)
            channel->slots[rdma_lane_oldest(lane)->slot].spoiled = true;
    atomic_store_explicit(&channel->rdma_done,
                          atomic_load_explicit(&channel->rdma_reads, memory_order_relaxed),
                          memory_order_relaxed);
    rdma_lane_free(lane);
    channel->lane = NULL;
}

bool channel_has_stalled(Channel *channel)
{
    uint64_t done = atomic_load_explicit(&channel->rdma_done, memory_order_relaxed);
    uint64_t reads = atomic_load_explicit(&channel->rdma_reads, memory_order_relaxed);

    /* The former is read first: what is done was posted. */
    if (reads == done || done != channel->done_seen)
        channel->stalled = 0;
    else
        channel->stalled++;
    channel->done_seen = done;
    return channel->stalled >= CHANNEL_STALLED;
}
