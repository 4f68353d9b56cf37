/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/fault/mirror.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

#include "daemon/core/clock.h"

enum { POPULATE_CHUNKS = 4, POPULATE_S = 5 };

bool mirror_is_possible(const Region *region)
{
    int seals = region->kind == CLIENT_REGION_SHARED ? fcntl(region->fd, F_GET_SEALS) : -1;

    return seals >= 0 && (seals & F_SEAL_SHRINK) && !(seals & F_SEAL_WRITE) &&
           region->page_size == LIMIT_PAGE_SIZE_MIN;
}

int mirror_map(Mirror *mirror, uint32_t index, const Region *region)
{
    void *memory = mmap(NULL, region->length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
                        region->fd, (off_t)region->fd_offset);

    if (memory == MAP_FAILED)
        return -errno;
    madvise(memory, region->length, MADV_DONTDUMP);
    mirror->memory[index] = memory;
    mirror->length[index] = region->length;
    return 0;
}

void mirror_unmap(Mirror *mirror, uint32_t index)
{
    if (mirror->memory[index])
        munmap(mirror->memory[index], mirror->length[index]);
    mirror->memory[index] = NULL;
}

void mirror_deinit(Mirror *mirror)
{
    for (uint32_t i = 0; i < LIMIT_REGIONS; i++)
        mirror_unmap(mirror, i);
}

static uint64_t chunks_of(const Mirror *mirror, uint32_t region, const _Atomic bool *present)
{
    if (!atomic_load_explicit(&present[region], memory_order_acquire))
        return 0;
    return mirror->memory[region] ? ((mirror->length[region] - 1) >> PAGE_TABLE_CHUNK_SHIFT) + 1
                                  : 0;
}

/* The next allocated chunk from where the last call ended. */
static bool find_next(Mirror *mirror, const PageTable *table, const _Atomic bool *present)
{
    while (mirror->next_region < table->n_regions) {
        uint64_t chunks = chunks_of(mirror, mirror->next_region, present);

        while (mirror->next_chunk < chunks) {
            if (page_table_is_allocated(table, mirror->next_region,
                                        mirror->next_chunk << PAGE_TABLE_CHUNK_SHIFT))
                return true;
            mirror->next_chunk++;
        }
        mirror->next_region++;
        mirror->next_chunk = 0;
    }
    return false;
}

static bool populate(Mirror *mirror, const PageTable *table, const _Atomic bool *present)
{
    for (unsigned i = 0; i < POPULATE_CHUNKS; i++) {
        uint64_t offset, length;

        if (!find_next(mirror, table, present))
            return false;
        offset = mirror->next_chunk << PAGE_TABLE_CHUNK_SHIFT;
        length = mirror->length[mirror->next_region] - offset;
        if (length > UINT64_C(1) << PAGE_TABLE_CHUNK_SHIFT)
            length = UINT64_C(1) << PAGE_TABLE_CHUNK_SHIFT;
        /* Where it fails, or on a kernel before 5.14, receiving faults, which is only slower. */
        (void)madvise(mirror->memory[mirror->next_region] + offset, length, MADV_POPULATE_WRITE);
        mirror->next_chunk++;
    }
    return true;
}

bool mirror_populate(Mirror *mirror, const PageTable *table, const _Atomic bool *present)
{
    uint64_t now = clock_ns();

    if (mirror->until_ns == 0)
        mirror->until_ns = now + UINT64_C(1000000000) * POPULATE_S;
    if (now < mirror->until_ns && populate(mirror, table, present))
        return true;
    atomic_store(&mirror->populated, true);
    return false;
}
