/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/fault/stream_walk.h"

#include <errno.h>
#include <stdlib.h>

#include "daemon/fault/import.h"

enum { WALK_NEAR_PAGES = 1024 }; /* how far ahead of a fault its neighbourhood reaches */

static bool may_hold_missing(const StreamWalk *walk, uint32_t region, uint64_t chunk)
{
    return walk->chunks[region][chunk / 64] >> (chunk % 64) & 1;
}

void stream_walk_note(StreamWalk *walk, uint32_t region, uint64_t page, uint64_t count)
{
    uint64_t last = (page + count - 1) / WALK_CHUNK_PAGES;

    for (uint64_t chunk = page / WALK_CHUNK_PAGES; chunk <= last; chunk++)
        if (!may_hold_missing(walk, region, chunk)) {
            walk->chunks[region][chunk / 64] |= UINT64_C(1) << (chunk % 64);
            walk->chunks_left[region]++;
        }
}

static void clear_chunk(StreamWalk *walk, uint32_t region, uint64_t chunk)
{
    walk->chunks[region][chunk / 64] &= ~(UINT64_C(1) << (chunk % 64));
    walk->chunks_left[region]--;
}

/* A fault since the last look moves the neighbourhood that goes first. */
static void follow_faults(StreamWalk *walk)
{
    uint64_t key = atomic_load_explicit(&walk->import->last_fault, memory_order_relaxed);

    if (key == walk->near_seen)
        return;
    walk->near_seen = key;
    walk->near_region = (uint32_t)(key >> 48) - 1;
    walk->near_page = key & ((UINT64_C(1) << 48) - 1);
    walk->near_end = walk->near_page + WALK_NEAR_PAGES;
    if (walk->near_end > walk->import->table.pages[walk->near_region])
        walk->near_end = walk->import->table.pages[walk->near_region];
}

static uint64_t earlier(uint64_t one, uint64_t other)
{
    return one < other ? one : other;
}

/* From *page on, which moves on to what was claimed; end is not behind what is held. */
static uint64_t claim_at(StreamWalk *walk, uint32_t region, uint64_t *page, uint64_t end,
                         uint64_t most)
{
    Import *import = walk->import;
    uint64_t limit = most / import->page_sizes[region];

    *page = page_table_find_missing(&import->table, region, *page, end);
    if (*page >= end)
        return 0;
    limit = limit ? limit : 1;
    if (limit > walk->held[region] - *page)
        limit = walk->held[region] - *page;
    return page_table_claim_run(&import->table, region, *page, limit);
}

static uint64_t claim_near(StreamWalk *walk, uint64_t most, uint32_t *ret_region,
                           uint64_t *ret_page)
{
    uint64_t count = 0, end;

    follow_faults(walk);
    if (!import_wants(walk->import, walk->near_region))
        return 0;
    end = earlier(walk->near_end, walk->held[walk->near_region]);
    while (count == 0 && walk->near_page < end) {
        *ret_region = walk->near_region;
        count = claim_at(walk, walk->near_region, &walk->near_page, end, most);
        *ret_page = walk->near_page;
        walk->near_page += count;
    }
    return count;
}

static void next_region(StreamWalk *walk)
{
    walk->cursor_chunk = 0;
    walk->cursor_region = (walk->cursor_region + 1) % walk->import->regions.n;
}

/* True if there is a chunk to look at in a region that may be asked for; the cursor is in one then. */
bool stream_walk_has_chunks(StreamWalk *walk)
{
    for (uint32_t i = 0; i < walk->import->regions.n; i++) {
        if (walk->chunks_left[walk->cursor_region] > 0 &&
            import_wants(walk->import, walk->cursor_region))
            return true;
        next_region(walk);
    }
    return false;
}

/* Also in regions that are not there yet; what was removed is not missing. */
bool stream_walk_has_missing(const StreamWalk *walk)
{
    for (uint32_t i = 0; i < walk->import->regions.n; i++)
        if (walk->chunks_left[i] > 0 && !import_is_gone(walk->import, i))
            return true;
    return false;
}

/* True if it came to another region. */
static bool next_chunk(StreamWalk *walk)
{
    const PageTable *table = &walk->import->table;
    uint64_t pages = earlier(table->pages[walk->cursor_region], walk->held[walk->cursor_region]);
    uint64_t chunks = (pages + WALK_CHUNK_PAGES - 1) / WALK_CHUNK_PAGES;

    /* Whole words of chunks without content are passed over at once. */
    if (++walk->cursor_chunk % 64 == 0)
        while (walk->cursor_chunk < chunks &&
               walk->chunks[walk->cursor_region][walk->cursor_chunk / 64] == 0)
            walk->cursor_chunk += 64;
    if (walk->cursor_chunk < chunks)
        return false;
    next_region(walk);
    return true;
}

/*
 * The next run in the chunk at the cursor.  A chunk without any MISSING page never gets one again (its part
 * of the map is known), so its bit goes, unless a part of it is held.
 */
static uint64_t claim_in_chunk(StreamWalk *walk, uint64_t most, uint64_t *ret_page)
{
    uint32_t region = walk->cursor_region;
    uint64_t page = walk->cursor_chunk * WALK_CHUNK_PAGES;
    uint64_t last = earlier(page + WALK_CHUNK_PAGES, walk->import->table.pages[region]);
    uint64_t end = earlier(last, walk->held[region]);

    while (page < end && may_hold_missing(walk, region, walk->cursor_chunk)) {
        uint64_t count = claim_at(walk, region, &page, end, most);
        if (count > 0) {
            *ret_page = page;
            return count;
        }
        if (page >= last)
            clear_chunk(walk, region, walk->cursor_chunk);
        /* else a resolver was quicker at that page: look again */
    }
    return 0;
}

/* Once around at most: what is held keeps its bits. */
static uint64_t claim_anywhere(StreamWalk *walk, uint64_t most, uint32_t *ret_region,
                               uint64_t *ret_page)
{
    uint32_t regions = 0;

    while (regions <= walk->import->regions.n && stream_walk_has_chunks(walk)) {
        uint64_t count = claim_in_chunk(walk, most, ret_page);

        *ret_region = walk->cursor_region;
        if (count > 0)
            return count;
        regions += next_chunk(walk);
    }
    return 0;
}

uint64_t stream_walk_next(const StreamWalk *walk, uint32_t region, uint64_t page)
{
    uint64_t pages = walk->import->table.pages[region];

    while (page < pages) {
        uint64_t chunk = page / WALK_CHUNK_PAGES;

        if (may_hold_missing(walk, region, chunk)) {
            uint64_t end = earlier((chunk + 1) * WALK_CHUNK_PAGES, pages);

            page = page_table_find_missing(&walk->import->table, region, page, end);
            if (page < end)
                return page;
        } else if (walk->chunks[region][chunk / 64] >> (chunk % 64) == 0) {
            page = (chunk / 64 + 1) * 64 * WALK_CHUNK_PAGES;
        } else {
            page = (chunk + 1) * WALK_CHUNK_PAGES;
        }
    }
    return pages;
}

static void set_chunk_of(void *user, uint32_t region, uint64_t page)
{
    stream_walk_note(user, region, page, 1);
}

void stream_walk_note_missing(StreamWalk *walk)
{
    page_table_walk_missing(&walk->import->table, set_chunk_of, walk);
}

int stream_walk_init(StreamWalk *walk, Import *import)
{
    *walk = (StreamWalk){.import = import};
    for (uint32_t i = 0; i < import->regions.n; i++) {
        uint64_t chunks = import->table.pages[i] / WALK_CHUNK_PAGES + 1;
        walk->held[i] = UINT64_MAX;
        walk->chunks[i] = calloc(chunks / 64 + 1, sizeof(uint64_t));
        if (!walk->chunks[i])
            return -ENOMEM;
    }
    /* A hole that a dead daemon had asked for is MISSING now, and in no extent of the map. */
    if (import->adopted)
        stream_walk_note_missing(walk);
    return 0;
}

void stream_walk_deinit(StreamWalk *walk)
{
    for (uint32_t i = 0; walk->import && i < walk->import->regions.n; i++)
        free(walk->chunks[i]);
    walk->import = NULL;
}

uint64_t stream_walk_claim(StreamWalk *walk, uint64_t most, uint32_t *ret_region,
                           uint64_t *ret_page)
{
    uint64_t count = claim_near(walk, most, ret_region, ret_page);

    return count ? count : claim_anywhere(walk, most, ret_region, ret_page);
}
