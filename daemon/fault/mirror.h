/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The mirror: our own mapping of a client's memory file, which pages are received into before they
 * are shown to the guest by CONTINUE (rule 4).
 *
 * Rule 13: only a file that cannot shrink is mapped, and only system calls touch the mapping: the
 * kernel answers them with an error where there is no memory, while the CPU would raise a signal.
 */
#ifndef POSTCOPYD_FAULT_MIRROR_H
#define POSTCOPYD_FAULT_MIRROR_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "daemon/core/page_table.h"
#include "daemon/core/region.h"

typedef struct Mirror {
    uint8_t *memory[LIMIT_REGIONS]; /* NULL: none */
    uint64_t length[LIMIT_REGIONS];
    uint64_t budget[LIMIT_REGIONS]; /* bytes that are allocated and not looked at yet */
    uint32_t next_region;           /* up to where page tables were filled in */
    uint64_t next_chunk;
    uint64_t until_ns; /* no longer than that; 0: not begun */
    _Atomic bool populated;
} Mirror;

/* True if this region's pages can be placed by CONTINUE. */
bool mirror_is_possible(const Region *region);

/* 0 or negative errno.  Both before the region is served, and after it is no longer. */
int mirror_map(Mirror *mirror, uint32_t index, const Region *region);
void mirror_unmap(Mirror *mirror, uint32_t index);
void mirror_deinit(Mirror *mirror);

/*
 * Fills in the mapping's page tables for some of the memory that the client allocated, so that
 * receiving does not fault for each page.  False: all is done, or the time is over.  The stream's
 * thread, before the gate.  Regions that are not present are left alone.
 */
bool mirror_populate(Mirror *mirror, const RegionSet *regions, const PageTable *table,
                     const _Atomic bool *present);

#endif
