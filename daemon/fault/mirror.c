/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/fault/mirror.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

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

/* What a client says it allocated and did not would be allocated here, in the daemon's name. */
static uint64_t allocated_bytes(int fd)
{
    struct stat status;

    return fd >= 0 && fstat(fd, &status) == 0 ? (uint64_t)status.st_blocks * 512 : 0;
}

static void begin(Mirror *mirror, const RegionSet *regions)
{
    mirror->until_ns = clock_ns() + UINT64_C(1000000000) * POPULATE_S;
    for (uint32_t i = 0; i < regions->n; i++)
        mirror->budget[i] = mirror->memory[i] ? allocated_bytes(regions->regions[i].fd) : 0;
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
        mirror->next_chunk++;
        if (length > mirror->budget[mirror->next_region])
            continue;
        mirror->budget[mirror->next_region] -= length;
        /* Where it fails, or on a kernel before 5.14, receiving faults, which is only slower. */
        (void)madvise(mirror->memory[mirror->next_region] + offset, length, MADV_POPULATE_WRITE);
    }
    return true;
}

bool mirror_populate(Mirror *mirror, const RegionSet *regions, const PageTable *table,
                     const _Atomic bool *present)
{
    if (mirror->until_ns == 0)
        begin(mirror, regions);
    if (clock_ns() < mirror->until_ns && populate(mirror, table, present))
        return true;
    atomic_store(&mirror->populated, true);
    return false;
}
