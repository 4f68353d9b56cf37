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
    _Atomic uint64_t unresolved; /* pages in REQUESTED or RECEIVED */
} PageTable;

/* What a fault on a page asks of the one who read it. */
typedef enum PageClaim {
    PAGE_CLAIM_FETCH,   /* was MISSING (or HOLE, map incomplete): the caller fetches it */
    PAGE_CLAIM_ZERO,    /* was HOLE, map complete: the caller places zeroes */
    PAGE_CLAIM_WAIT,    /* somebody fetches it already and will wake: WAITED is set */
    PAGE_CLAIM_PRESENT, /* rule 6 */
    PAGE_CLAIM_REMOVED, /* rule 8 */
} PageClaim;

/* A new table for these regions, all HOLE.  0 or negative errno. */
int page_table_create(PageTable *table, const RegionSet *regions);

/*
 * Takes over a table that a client kept (takes fd).  Every size in it is checked against the
 * regions.  0; -EINVAL: not a table of ours, or of other regions; or negative errno.
 */
int page_table_adopt(PageTable *table, const RegionSet *regions, int fd);

void page_table_deinit(PageTable *table);

/* The state and mark of a page. */
uint64_t page_table_get(const PageTable *table, uint32_t region, uint64_t page);

PageClaim page_table_claim_fault(PageTable *table, uint32_t region, uint64_t page);

/* Claims MISSING pages from page on, as one run of at most limit; returns how many (0: none). */
uint64_t page_table_claim_run(PageTable *table, uint32_t region, uint64_t page, uint64_t limit);

/* The first MISSING page in [page, end), or end. */
uint64_t page_table_find_missing(const PageTable *table, uint32_t region, uint64_t page,
                                 uint64_t end);

/* REQUESTED or RECEIVED -> PRESENT, after the placing ioctl succeeded.  True if WAITED was set:
 * the caller wakes the page. */
bool page_table_finish(PageTable *table, uint32_t region, uint64_t page);

/* HOLE -> MISSING over a run: the source's map says it has content.  How many pages moved. */
uint64_t page_table_mark_missing(PageTable *table, uint32_t region, uint64_t page, uint64_t count);

/*
 * Adoption, before any thread of the import runs, when the earlier holder is proven dead: REQUESTED
 * -> MISSING.  Marks of waiters go too: adoption wakes every range anyway.
 */
void page_table_forget_requests(PageTable *table);

/* Bytes of PRESENT pages, by a walk over what was ever written of the table; adoption only. */
uint64_t page_table_present_bytes(const PageTable *table, const uint64_t *page_sizes);

static inline bool page_table_has(const PageTable *table, uint32_t progress)
{
    return (__atomic_load_n(&table->header->progress, __ATOMIC_ACQUIRE) & progress) == progress;
}

static inline void page_table_set(PageTable *table, uint32_t progress)
{
    __atomic_fetch_or(&table->header->progress, progress, __ATOMIC_ACQ_REL);
}

#endif
