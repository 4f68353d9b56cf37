/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The client's view of the page table: protocol/pagetable.h, mapped and checked.
 *
 * The daemon keeps writing to it, so the layout is copied out once, and only the copy is used.
 */
#ifndef POSTCOPY_TABLE_H
#define POSTCOPY_TABLE_H

#include <stdint.h>

#include "client/lib/reason.h"
#include "client/lib/region.h"
#include "protocol/pagetable.h"

typedef struct Table {
    int fd;
    uint64_t size;
    PageTableHeader *header; /* shared; size bytes are mapped */
    uint32_t n_regions;
    uint64_t first_word[LIMIT_REGIONS];
    uint64_t n_words[LIMIT_REGIONS];
    uint64_t first_chunk_word[LIMIT_REGIONS];
    uint64_t n_chunk_words[LIMIT_REGIONS];
} Table;

typedef struct TableCounts {
    uint32_t region; /* the first one with such pages */
    uint64_t missing;
    uint64_t requested;
    uint64_t received;
} TableCounts;

/*
 * Takes fd over, also on failure, and maps it.  -EPERM: it could be shrunk under our feet;
 * -EINVAL: it does not describe these regions.
 */
int table_init(Table *table, int fd, uint64_t size, const Regions *regions, Reason *ret_reason);
void table_deinit(Table *table);

/* PAGE_TABLE_* of progress. */
uint32_t table_progress(const Table *table);
void table_set_armed(Table *table);

/*
 * Chunks (of 1 << PAGE_TABLE_CHUNK_SHIFT bytes) whose memory the daemon wants allocated: those from
 * *chunk on, as one run.  How many; 0: no more.  *ret_chunk is the first of them.
 */
uint64_t table_next_wanted(const Table *table, uint32_t region, uint64_t from, uint64_t *ret_chunk);

/* These chunks could not be allocated after all. */
void table_drop_wanted(Table *table, uint32_t region, uint64_t from);

/* These pages were given back: they are REMOVED from now on (with no daemon alive). */
void table_remove(Table *table, uint32_t region, uint64_t page, uint64_t count);

/* Counts the pages whose content is still elsewhere.  True if there are any. */
bool table_count_unresolved(const Table *table, TableCounts *ret_counts);

#endif
