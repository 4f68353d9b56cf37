/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The page table of one import (layout and states: protocol/pagetable.h).
 *
 * It alone decides who fetches a page, so "exactly once" needs no lock.  All functions on pages are
 * lock-free and allowed on the fault path, from any thread.
 */
#ifndef POSTCOPYD_CORE_PAGE_TABLE_H
#define POSTCOPYD_CORE_PAGE_TABLE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/core/region.h"
#include "protocol/pagetable.h"

typedef struct PageTable {
    int fd;
    size_t size;
    PageTableHeader *header;
    _Atomic uint64_t *words;
    uint32_t n_regions;
    uint64_t first_word[LIMIT_REGIONS]; /* copied: the header is the client's to spoil */
    uint64_t pages[LIMIT_REGIONS];
    uint64_t first_chunk_word[LIMIT_REGIONS];
    uint64_t n_chunk_words[LIMIT_REGIONS];
    uint64_t *allocated[LIMIT_REGIONS]; /* bits of chunks, copied when armed; NULL: none */
    _Atomic uint64_t unresolved;        /* pages in REQUESTED or RECEIVED */
} PageTable;

/* What a fault on a page asks of the one who read it. */
typedef enum PageClaim {
    PAGE_CLAIM_FETCH,   /* was MISSING, FOUND (or HOLE, map incomplete): the caller fetches it */
    PAGE_CLAIM_ZERO,    /* was HOLE, map complete: the caller places zeroes */
    PAGE_CLAIM_WAIT,    /* somebody fetches it already and will wake: WAITED is set */
    PAGE_CLAIM_PRESENT, /* rule 6 */
    PAGE_CLAIM_REMOVED, /* rule 8 */
} PageClaim;

/* A new table for these regions, all HOLE.  0; -ENOSPC: no memory for it; or negative errno. */
int page_table_create(PageTable *table, const RegionSet *regions);

/*
 * Gives all of it its memory, so that who maps it can write to any page without a SIGBUS; else it has what was
 * written to.  -ENOSPC: there is not enough.
 */
int page_table_allocate(PageTable *table);

/*
 * Takes over a table that a client kept (takes fd).  Every size in it is checked against the
 * regions.  0; -EINVAL: not a table of ours, or of other regions; or negative errno.
 */
int page_table_adopt(PageTable *table, const RegionSet *regions, int fd);

void page_table_deinit(PageTable *table);

/* Chunks of 1 << PAGE_TABLE_CHUNK_SHIFT bytes: before ARM, which the client should allocate. */
void page_table_want_chunks(PageTable *table, uint32_t region, uint64_t chunk, uint64_t count);

/* Armed: which it did allocate, as a copy that it cannot spoil any more. 0 or -ENOMEM. */
int page_table_keep_chunks(PageTable *table);

/* True if the memory of this byte of a region was allocated by the client, so that it is placed by
 * CONTINUE. */
static inline bool page_table_is_allocated(const PageTable *table, uint32_t region, uint64_t offset)
{
    uint64_t chunk = offset >> PAGE_TABLE_CHUNK_SHIFT;

    return table->allocated[region] && (table->allocated[region][chunk / 64] >> (chunk % 64) & 1);
}

/* Called for a page whose WAITED mark came off. */
typedef void (*PageWaited)(void *user, uint32_t region, uint64_t page);

/* The state and mark of a page. */
uint64_t page_table_get(const PageTable *table, uint32_t region, uint64_t page);

PageClaim page_table_claim_fault(PageTable *table, uint32_t region, uint64_t page);

/* Claims MISSING pages from page on, as one run of at most limit; returns how many (0: none). */
uint64_t page_table_claim_run(PageTable *table, uint32_t region, uint64_t page, uint64_t limit);

/* The same for pages that are HOLE or MISSING: assist mode, where no map tells them apart. */
uint64_t page_table_claim_any_run(PageTable *table, uint32_t region, uint64_t page, uint64_t limit);

/*
 * Assist mode: REQUESTED or RECEIVED -> HOLE for a run that will not be placed; all else stays.  Whoever
 * else brings these pages, or faults on them, finds them as if nobody had asked.  waited is called
 * for each page that had the mark: nobody wakes those who wait for it.
 */
void page_table_give_back(PageTable *table, uint32_t region, uint64_t page, uint64_t count,
                          PageWaited waited, void *user);

/*
 * Assist mode: REQUESTED or RECEIVED -> FOUND for a run that could not be placed as there was something
 * already; all else stays.  waited is called as by page_table_finish().
 */
void page_table_found(PageTable *table, uint32_t region, uint64_t page, uint64_t count,
                      PageWaited waited, void *user);

/* The first MISSING page in [page, end), or end. */
uint64_t page_table_find_missing(const PageTable *table, uint32_t region, uint64_t page,
                                 uint64_t end);

/* The first page in [page, end) that is still to come or on its way (MISSING, REQUESTED, RECEIVED), or end. */
uint64_t page_table_find_unplaced(const PageTable *table, uint32_t region, uint64_t page,
                                  uint64_t end);

/*
 * REQUESTED or RECEIVED -> PRESENT for a run, after the placing ioctl succeeded; REMOVED stays, for
 * it is terminal.  waited is called for each page that had the mark: its caller wakes it.
 */
void page_table_finish(PageTable *table, uint32_t region, uint64_t page, uint64_t count,
                       PageWaited waited, void *user);

/* REQUESTED -> RECEIVED for a run, marks kept: its content is final (rule 4), or about to be placed. */
void page_table_receive(PageTable *table, uint32_t region, uint64_t page, uint64_t count);

/*
 * Anything -> REMOVED for a run; waited is called as by page_table_finish().  How many pages were
 * MISSING, and will not be fetched any more.
 */
uint64_t page_table_remove(PageTable *table, uint32_t region, uint64_t page, uint64_t count,
                           PageWaited waited, void *user);

/* The same for all of a region that was ever written of it; no other thread claims pages of it. */
void page_table_remove_region(PageTable *table, uint32_t region, PageWaited waited, void *user);

/* How many pages from page on, at most count, are alike in being REMOVED or not. */
uint64_t page_table_same_run(const PageTable *table, uint32_t region, uint64_t page, uint64_t count,
                             bool *ret_removed);

/* HOLE -> MISSING over a run: the source's map says it has content.  How many pages moved. */
uint64_t page_table_mark_missing(PageTable *table, uint32_t region, uint64_t page, uint64_t count);

/*
 * Adoption, before any thread of the import runs, when the earlier holder is proven dead: REQUESTED
 * -> MISSING.  Marks of waiters go too: adoption wakes every range anyway.
 */
void page_table_forget_requests(PageTable *table);

/* Adoption: calls each for every page that is RECEIVED: its content lies there, to be continued. */
void page_table_each_received(const PageTable *table, PageWaited each, void *user);

/*
 * Calls each for every word that holds a MISSING page, with the first page of the word; holes of the memfd
 * are skipped.  Pages that others claim meanwhile may be told of.
 */
void page_table_walk_missing(const PageTable *table,
                             void (*each)(void *user, uint32_t region, uint64_t page), void *user);

/* Bytes of PRESENT and REMOVED pages, by a walk over what was ever written of the table; adoption only. */
uint64_t page_table_present_bytes(const PageTable *table, const uint64_t *page_sizes);

/* The VM's vCPU threads, for whoever adopts it; none if they are more than PAGE_TABLE_VCPUS.  The thread that
 * made or adopted the table. */
void page_table_keep_vcpus(PageTable *table, const uint32_t *tids, uint32_t n);

/* What was kept: how many, into ret_tids[PAGE_TABLE_VCPUS]. */
uint32_t page_table_kept_vcpus(const PageTable *table, uint32_t *ret_tids);

static inline bool page_table_has(const PageTable *table, uint32_t progress)
{
    return (__atomic_load_n(&table->header->progress, __ATOMIC_ACQUIRE) & progress) == progress;
}

static inline void page_table_set(PageTable *table, uint32_t progress)
{
    __atomic_fetch_or(&table->header->progress, progress, __ATOMIC_ACQ_REL);
}

#endif
