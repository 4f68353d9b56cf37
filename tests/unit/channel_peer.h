/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The destination's end of a data channel against a scripted source: one of each, made by a test's set-up
 * and used by one thread.
 */
#ifndef POSTCOPYD_TESTS_CHANNEL_PEER_H
#define POSTCOPYD_TESTS_CHANNEL_PEER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/transport/channel.h"

enum {
    PAGE = 4096,
    HUGE_PAGE = 2 << 20,
    PAGES = 256,
    SEAL = 77,
    IN_SIZE = 2 * HUGE_PAGE,
    BYTES = 3 * HUGE_PAGE,
    SOURCE_REGION = 5, /* the source's number of region 0; region 1 is one more */
};

extern const uint64_t page_sizes[2];

extern Ring ring;
extern Channel channel;
extern int source; /* the source's socket; -1: it is gone */
extern uint32_t session;

/* What the sink was told. */
extern unsigned seen[2][PAGES], zeroes, failures, maps, downs;
extern bool retry_failed;
extern PeerErrorCode last_code;
extern char last_reason[200];

/* Where pages of region 0 land, if they are to: a memfd and our mapping of it; NULL: nowhere. */
extern uint8_t *landing;
extern unsigned landed;
void make_landing(void);
void drop_landing(void);

/* What the next connection has beside it, and what its owner then says of pages; NULL: nothing. */
extern RdmaLane *next_lane;
extern uint32_t (*source_of)(uint32_t region, uint64_t page, uint32_t count,
                             FetchSource *ret_source);
extern uint32_t (*landing_of)(const Fetch *fetch, uint32_t first, uint32_t count,
                              FetchLanding *ret_landing);

/* Called at the end of each word to the sink of pages; NULL: none. */
extern void (*while_told)(Fetch *fetch, uint32_t first, uint32_t count);
extern bool spoiled[PAGES]; /* what it was told of them last */
extern PeerMessage last_keys;
extern unsigned keys;

/* The source's pages. */
void fill_pages(uint32_t region, uint64_t page, uint64_t count, uint8_t *to);

/* A channel that also carries maps, or one for faults alone. */
int set_up(void **state);
int set_up_urgent(void **state);
int tear_down(void **state);

/* Another connection, once the last one is gone. */
void connect_source(void);

/* One round of the channel's thread. */
void turn(void);
void turn_until(const unsigned *counter, unsigned value);

/* The source sends all of this; the channel takes it meanwhile. */
void write_all(const uint8_t *data, size_t length);

/* The next frame that the channel sent. */
extern PeerMessage request;
void read_request(PeerMessageType type);

PeerMessage reply_to(PeerMessageType type, const PeerReadItem *item, uint32_t first,
                     uint32_t count);

/* A frame with its pages; its length. */
size_t put_reply(uint8_t *out, const PeerMessage *reply, const PeerReadItem *item);

extern uint8_t bytes[BYTES]; /* for frames that a test puts together */
void reply(PeerMessageType type, const PeerReadItem *item, uint32_t first, uint32_t count);

/* These pages of a region, and no others. */
void assert_seen_once(uint32_t region, uint64_t first, uint64_t count);

#endif
