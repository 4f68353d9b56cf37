/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reading a source's memory, which no longer changes.
 *
 * Rule 11: by fd only what the VM maps shared; everything else as the process sees it, through
 * /proc/PID/mem.  A short read is an error, never zeroes.  Rule 13: only system calls touch it, so a
 * client that truncates its memfd gets errors and we no signal.  Any thread.
 *
 * Nothing is mapped for it even where that were safe: a page is read once, and what a mapping's page table
 * costs for it is more than the copy it saves.  A read of a hole allocates nothing, as the read
 * fault of a mapping would.
 */
#ifndef POSTCOPYD_SOURCE_MEMORY_H
#define POSTCOPYD_SOURCE_MEMORY_H

#include "daemon/core/region.h"
#include "protocol/peer.h"

typedef struct Memory {
    RegionSet regions; /* owned, with their fds */
    int mem_fd;        /* /proc/PID/mem, -1 if every region is shared */
    int pagemap_fd;    /* /proc/PID/pagemap, likewise */
} Memory;

/* Copies the regions; opens the process's memory where it is needed. 0 or negative errno. */
int memory_init(Memory *memory, const RegionSet *regions, int pid);
void memory_deinit(Memory *memory);

/* Reads count pages, which must lie in the region. 0, or -EIO. */
int memory_read(const Memory *memory, uint32_t region, uint64_t page, uint32_t count,
                void *ret_data);

/* How many of count pages, which must lie in the region, from the first on are known to be a hole:
 * zero, and not to be read.  Shared memory only, else 0. */
uint32_t memory_hole(const Memory *memory, uint32_t region, uint64_t page, uint32_t count);

/* The first page from page on, which must lie in the region, that is not known to be a hole; the
 * region's page count: there is none.  Shared memory only.  0; -EIO: the file is shorter than the region. */
int memory_next_data(const Memory *memory, uint32_t region, uint64_t page, uint64_t *ret_page);

/* Whether so many bytes, a multiple of 64, are zero. */
bool memory_is_zero(const void *data, uint64_t size);

/*
 * Which pages from page on have content: at most max extents, at least a little progress.
 * *ret_next is where to go on; the region's page count: complete.  0 or negative errno.
 */
int memory_map(const Memory *memory, uint32_t region, uint64_t page, PeerExtent *ret_extents,
               uint32_t max, uint32_t *ret_n, uint64_t *ret_next);

#endif
