/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where the source's memory may be READ by our own device: spans of regions, each with a key, as the source
 * told them on this connection.
 *
 * The stream's thread adds spans and closes them, all data threads look, without a lock: a region's spans
 * ascend, lie apart, and stay as they are until the connection goes.  The link empties the table when no
 * channel has a connection, and so nobody looks: keys of one session are never used in another, where
 * the same number may open other memory.
 *
 * Each span is hostile until checked here.  A source that lies about what lies where harms its own VM only.
 */
#ifndef POSTCOPYD_FAULT_KEYS_H
#define POSTCOPYD_FAULT_KEYS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol/peer.h"

typedef struct KeySpan {
    uint64_t page, count; /* of the region; these five are constant once it is told */
    uint64_t address;     /* of its first byte, as the source's device knows it */
    uint32_t rkey, id;
    _Atomic bool closed; /* nobody begins to READ there any more */
    /* The stream's. */
    uint64_t checked;   /* nothing before this page is to come any more */
    uint64_t closed_ns; /* since when it is closed */
    bool done;          /* the source was told so */
} KeySpan;

typedef struct KeyRegion {
    uint64_t pages, page_size;
    KeySpan *spans;
    uint32_t most;
    _Atomic uint32_t n;
    uint32_t oldest; /* the stream's: spans before this one are done */
} KeyRegion;

typedef struct Keys {
    uint32_t n_regions;
    KeyRegion regions[LIMIT_REGIONS];
    KeySpan *memory; /* of all spans; mmapped, takes what is written to */
    size_t size;
    uint64_t least_id; /* the stream's: of the next span */
    _Atomic uint32_t
        told; /* spans of this connection, and of those that are not done; for reports */
    _Atomic uint32_t live;
    _Atomic bool none; /* the source was asked for all, and had not one; for reports */
} Keys;

/* 0 or -ENOMEM. */
int keys_init(Keys *keys, const uint64_t *pages, const uint64_t *page_sizes, uint32_t n_regions);
void keys_deinit(Keys *keys); /* once, or again for nothing; or of one that is all zero */

/* A new connection, which knows none yet.  The link, while nobody looks. */
void keys_forget(Keys *keys);

/*
 * The source told of this span when it was asked from page on, and to be asked on from next.  NULL: it is
 * taken; or why it cannot be, a constant string.  The stream's thread.
 */
const char *keys_add(Keys *keys, uint32_t region, uint64_t page, const PeerSpan *span,
                     uint64_t next);

/*
 * How many of count pages can be READ with one key, and from where.  0: not even the first one.  Whoever
 * READs claimed these pages before: that is what keys_close() relies on.  Any thread.
 */
uint32_t keys_find(const Keys *keys, uint32_t region, uint64_t page, uint32_t count,
                   uint64_t *ret_address, uint32_t *ret_rkey);

/*
 * Nobody finds it any more.  Whoever had claimed a page of it and found it before has that page claimed
 * still, as seen by a look at the page table after this.  The stream's thread.
 */
void keys_close(KeySpan *span, uint64_t now_ns);

/* The stream's thread, once the source knows. */
void keys_done(Keys *keys, uint32_t region, KeySpan *span);

#endif
