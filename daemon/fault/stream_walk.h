/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where the stream goes next: which chunks of pages may still hold MISSING ones, those near the last
 * fault first.  Stream thread.
 */
#ifndef POSTCOPYD_FAULT_STREAM_WALK_H
#define POSTCOPYD_FAULT_STREAM_WALK_H

#include <stdbool.h>
#include <stdint.h>

#include "protocol/limits.h"

struct Import;

enum { WALK_CHUNK_PAGES = 512 };

typedef struct StreamWalk {
    struct Import *import;
    uint64_t *chunks[LIMIT_REGIONS]; /* a bit a chunk of WALK_CHUNK_PAGES pages */
    uint64_t chunks_left[LIMIT_REGIONS];
    uint32_t cursor_region;
    uint64_t cursor_chunk;
    uint64_t near_seen; /* the fault last followed */
    uint32_t near_region;
    uint64_t near_page, near_end;
    uint64_t held[LIMIT_REGIONS]; /* from this page on nothing is claimed for now; the owner's */
} StreamWalk;

/* Of an adopted import too, whose MISSING pages are in no map.  0 or -ENOMEM.  Control thread, before
 * the stream's. */
int stream_walk_init(StreamWalk *walk, struct Import *import);
void stream_walk_deinit(StreamWalk *walk); /* once, or again for nothing */

/* All that is MISSING in the page table by now. The stream's thread. */
void stream_walk_note_missing(StreamWalk *walk);

/* These pages may be MISSING. */
void stream_walk_note(StreamWalk *walk, uint32_t region, uint64_t page, uint64_t count);

/* Claims a run of at most so many bytes, and at least a page: how many pages.  0: none is left, or what is
 * left is held. */
uint64_t stream_walk_claim(StreamWalk *walk, uint64_t most, uint32_t *ret_region,
                           uint64_t *ret_page);

/* The first page from this one on that may be MISSING, or the region's page count. */
uint64_t stream_walk_next(const StreamWalk *walk, uint32_t region, uint64_t page);

/* True if there is a chunk to look at in a region that may be asked for. */
bool stream_walk_has_chunks(StreamWalk *walk);

/* Also in regions that are not there yet; what was removed is not missing. */
bool stream_walk_has_missing(const StreamWalk *walk);

#endif
