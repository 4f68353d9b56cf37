/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/source/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/core/disposal.h"

enum {
    PAGEMAP_BATCH = 4096,
    MAP_SCAN = 1 << 18, /* pages of the process: 1 GiB, a whole number of pages of any region */
};

/* Documentation/admin-guide/mm/pagemap.rst */
#define PAGEMAP_PRESENT (UINT64_C(1) << 63)
#define PAGEMAP_SWAPPED (UINT64_C(1) << 62)

static int open_of_process(int pid, const char *name)
{
    char path[64];
    int fd;

    snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int memory_init(Memory *memory, const RegionSet *regions, int pid)
{
    bool process = false;
    int error;

    memory->mem_fd = memory->pagemap_fd = -1;
    error = region_set_copy(regions, &memory->regions);
    if (error)
        return error;
    for (uint32_t i = 0; i < regions->n; i++)
        process = process || regions->regions[i].kind != CLIENT_REGION_SHARED;
    if (!process)
        return 0;
    memory->mem_fd = open_of_process(pid, "mem");
    memory->pagemap_fd = open_of_process(pid, "pagemap");
    error = memory->mem_fd < 0 ? memory->mem_fd : memory->pagemap_fd < 0 ? memory->pagemap_fd : 0;
    if (error)
        memory_deinit(memory);
    return error;
}

void memory_deinit(Memory *memory)
{
    region_set_dispose(&memory->regions);
    if (memory->mem_fd >= 0)
        close(memory->mem_fd);
    if (memory->pagemap_fd >= 0)
        close(memory->pagemap_fd);
    memory->mem_fd = memory->pagemap_fd = -1;
}

static int read_exactly(int fd, void *data, size_t length, uint64_t offset)
{
    char *at = data;

    while (length > 0) {
        ssize_t n = pread(fd, at, length, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -EIO;
        at += n;
        length -= (size_t)n;
        offset += (uint64_t)n;
    }
    return 0;
}

int memory_read(const Memory *memory, uint32_t region, uint64_t page, uint32_t count,
                void *ret_data)
{
    const Region *from = &memory->regions.regions[region];
    uint64_t offset = page << from->page_shift;
    size_t length = (size_t)count << from->page_shift;

    if (from->kind == CLIENT_REGION_SHARED)
        return read_exactly(from->fd, ret_data, length, from->fd_offset + offset);
    return read_exactly(memory->mem_fd, ret_data, length, from->address + offset);
}

uint32_t memory_hole(const Memory *memory, uint32_t region, uint64_t page, uint32_t count)
{
    const Region *from = &memory->regions.regions[region];
    uint64_t at = from->fd_offset + (page << from->page_shift);
    uint64_t end = at + ((uint64_t)count << from->page_shift);
    struct stat status;
    off_t data;

    if (from->kind != CLIENT_REGION_SHARED)
        return 0;
    data = lseek(from->fd, (off_t)at, SEEK_DATA);
    if (data < 0 && errno != ENXIO)
        return 0;
    if (data >= 0 && (uint64_t)data < end)
        return (uint32_t)(((uint64_t)data - at) >> from->page_shift);
    /* The end of a file that was cut short looks the same: its pages are not zero but gone. */
    return fstat(from->fd, &status) || (uint64_t)status.st_size < end ? 0 : count;
}

int memory_next_data(const Memory *memory, uint32_t region, uint64_t page, uint64_t *ret_page)
{
    const Region *from = &memory->regions.regions[region];
    uint64_t end = from->fd_offset + from->length;
    uint64_t at = from->fd_offset + (page << from->page_shift);
    off_t data = lseek(from->fd, (off_t)at, SEEK_DATA);
    bool none = data < 0 && errno == ENXIO;
    struct stat status;

    /* Looked at afterwards: what was cut off meanwhile looked like a hole. */
    if (fstat(from->fd, &status) || (uint64_t)status.st_size < end)
        return -EIO;
    if (none || (data >= 0 && (uint64_t)data >= end))
        *ret_page = region_pages(from);
    else if (data < 0)
        *ret_page = page; /* a file that does not tell */
    else
        *ret_page = ((uint64_t)data - from->fd_offset) >> from->page_shift;
    return 0;
}

bool memory_is_zero(const void *data, uint64_t size)
{
    const uint64_t *words = data;

    for (uint64_t i = 0; i < size / sizeof *words; i += 8) {
        uint64_t any = words[i] | words[i + 1] | words[i + 2] | words[i + 3] | words[i + 4] |
                       words[i + 5] | words[i + 6] | words[i + 7];
        if (any)
            return false;
    }
    return true;
}

static int map_by_fd(const Region *region, uint64_t page, PeerExtent *ret_extents, uint32_t max,
                     uint32_t *ret_n, uint64_t *ret_next)
{
    uint64_t end = region->fd_offset + region->length;
    uint64_t at = region->fd_offset + (page << region->page_shift);
    struct stat status;

    /* A file that was cut short looks like a hole; its pages are not zero but gone (rule 11). */
    if (fstat(region->fd, &status) || (uint64_t)status.st_size < end)
        return -EIO;
    while (*ret_n < max && at < end) {
        off_t data = lseek(region->fd, (off_t)at, SEEK_DATA);
        off_t hole;

        if (data < 0 && errno == ENXIO) {
            at = end;
            break;
        }
        hole = data < 0 ? -1 : lseek(region->fd, data, SEEK_HOLE);
        if (hole < 0)
            return -errno;
        if ((uint64_t)data >= end) {
            at = end;
            break;
        }
        at = (uint64_t)hole < end ? (uint64_t)hole : end;
        /* In pages of the region, whole ones, whatever the file's granularity. */
        uint64_t first = ((uint64_t)data - region->fd_offset) >> region->page_shift;
        uint64_t last = (at - region->fd_offset + region->page_size - 1) >> region->page_shift;
        at = region->fd_offset + (last << region->page_shift);
        ret_extents[(*ret_n)++] = (PeerExtent){.page = first, .count = last - first};
    }
    *ret_next = (at - region->fd_offset) >> region->page_shift;
    return 0;
}

static void add_page(PeerExtent *extents, uint32_t *n, uint64_t page)
{
    if (*n > 0 && extents[*n - 1].page + extents[*n - 1].count == page)
        extents[*n - 1].count++;
    else
        extents[(*n)++] = (PeerExtent){.page = page, .count = 1};
}

/* A page of the region has content if any of the pages of the process in it has. */
static int map_by_pagemap(const Memory *memory, const Region *region, uint64_t page,
                          PeerExtent *ret_extents, uint32_t max, uint32_t *ret_n,
                          uint64_t *ret_next)
{
    uint64_t entries[PAGEMAP_BATCH] = {0};
    uint64_t base = region->address / LIMIT_PAGE_SIZE_MIN;
    unsigned shift = region->page_shift - 12;
    uint64_t end = region_pages(region) << shift;
    uint64_t at = page << shift;

    /* READs wait behind the answer, and much memory may be one extent. */
    if (end - at > MAP_SCAN)
        end = at + MAP_SCAN;
    while (at < end && *ret_n < max) {
        uint64_t n = end - at < PAGEMAP_BATCH ? end - at : PAGEMAP_BATCH;
        int error = read_exactly(memory->pagemap_fd, entries, n * sizeof entries[0],
                                 (base + at) * sizeof entries[0]);
        if (error)
            return error;
        for (uint64_t i = 0; i < n; i++) {
            uint64_t owner = (at + i) >> shift;
            bool told =
                *ret_n > 0 && ret_extents[*ret_n - 1].page + ret_extents[*ret_n - 1].count > owner;
            if (!(entries[i] & (PAGEMAP_PRESENT | PAGEMAP_SWAPPED)) || told)
                continue;
            if (*ret_n == max &&
                ret_extents[*ret_n - 1].page + ret_extents[*ret_n - 1].count != owner) {
                *ret_next = owner;
                return 0;
            }
            add_page(ret_extents, ret_n, owner);
        }
        at += n;
    }
    *ret_next = at >> shift;
    return 0;
}

int memory_map(const Memory *memory, uint32_t region, uint64_t page, PeerExtent *ret_extents,
               uint32_t max, uint32_t *ret_n, uint64_t *ret_next)
{
    const Region *from = &memory->regions.regions[region];

    *ret_n = 0;
    if (from->kind == CLIENT_REGION_SHARED)
        return map_by_fd(from, page, ret_extents, max, ret_n, ret_next);
    if (from->kind == CLIENT_REGION_ANONYMOUS)
        return map_by_pagemap(memory, from, page, ret_extents, max, ret_n, ret_next);
    /* A private file mapping shows the file where it was never written: all of it is content. */
    ret_extents[(*ret_n)++] = (PeerExtent){.page = page, .count = region_pages(from) - page};
    *ret_next = region_pages(from);
    return 0;
}
