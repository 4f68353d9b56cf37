/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/lib/mapping.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

typedef struct MapLine {
    uint64_t start;
    uint64_t end;
    uint64_t offset;
    dev_t device;
    uint64_t inode;
    bool shared;
    bool writable;
} MapLine;

/* A number that ends with this character; *text moves behind it.  False if it is none. */
static bool take_number(const char **text, int base, char terminator, uint64_t *ret_number)
{
    char *end;

    *ret_number = strtoull(*text, &end, base);
    if (end == *text || *end != terminator)
        return false;
    *text = end + 1;
    return true;
}

/*
 * "7f0000000000-7f0000200000 rw-s 00001000 00:01 1057 /memfd:ram (deleted)".  False for a line that
 * describes no mapping, of which smaps has many.
 */
static bool parse(const char *line, MapLine *ret_map)
{
    uint64_t major_number, minor_number;
    const char *flags;

    if (!take_number(&line, 16, '-', &ret_map->start) ||
        !take_number(&line, 16, ' ', &ret_map->end) || strlen(line) < 5)
        return false;
    flags = line;
    line += 5;
    ret_map->writable = flags[1] == 'w';
    ret_map->shared = flags[3] == 's';
    if (!take_number(&line, 16, ' ', &ret_map->offset) ||
        !take_number(&line, 16, ':', &major_number) ||
        !take_number(&line, 16, ' ', &minor_number) || *line < '0' || *line > '9')
        return false;
    ret_map->inode = strtoull(line, NULL, 10);
    ret_map->device = makedev((unsigned)major_number, (unsigned)minor_number);
    return true;
}

static bool is_as_described(const Region *region, const struct stat *st, const MapLine *map,
                            uint64_t at)
{
    if (!map->writable || map->shared != (region->backing == POSTCOPY_SHARED))
        return false;
    if (region->backing == POSTCOPY_ANONYMOUS)
        return map->inode == 0;
    return map->inode == st->st_ino && map->device == st->st_dev &&
           map->offset + (at - map->start) == region->fd_offset + (at - (uintptr_t)region->address);
}

/* How far from the region's start on all is mapped as described. */
static uint64_t described_up_to(FILE *maps, const Region *region, const struct stat *st)
{
    uint64_t at = (uintptr_t)region->address;
    uint64_t end = at + region->length;
    char *line = NULL;
    size_t size = 0;
    MapLine map;

    while (at < end && getline(&line, &size, maps) > 0) {
        if (!parse(line, &map) || map.end <= at)
            continue;
        if (map.start > at || !is_as_described(region, st, &map, at))
            break;
        at = map.end;
    }
    free(line);
    return at;
}

int mapping_check(const Region *region, Reason *ret_reason)
{
    uint64_t end = (uintptr_t)region->address + region->length;
    struct stat st = {0};
    FILE *maps;
    uint64_t at;

    if (region->fd >= 0 && fstat(region->fd, &st) < 0)
        return reason_set(ret_reason, -errno, "region at %p: %s", (void *)region->address,
                          strerror(errno));
    maps = fopen("/proc/self/maps", "re");
    if (!maps)
        return reason_set(ret_reason, -errno, "/proc/self/maps: %s", strerror(errno));
    at = described_up_to(maps, region, &st);
    fclose(maps);
    if (at < end)
        return reason_set(ret_reason, -ESTALE,
                          "the region at %p is not mapped as described from 0x%" PRIx64 " on",
                          (void *)region->address, at);
    return 0;
}

bool mapping_is_dontfork(const Region *region)
{
    uint64_t start = (uintptr_t)region->address;
    FILE *smaps = fopen("/proc/self/smaps", "re");
    bool inside = false;
    bool found = false;
    char *line = NULL;
    size_t size = 0;
    MapLine map;

    if (!smaps)
        return true;
    while (!found && getline(&line, &size, smaps) > 0) {
        if (parse(line, &map)) {
            if (map.start >= start + region->length)
                break;
            inside = map.end > start;
        } else if (inside && strncmp(line, "VmFlags:", 8) == 0) {
            found = strstr(line, " dc") != NULL;
        }
    }
    free(line);
    fclose(smaps);
    return found;
}

static MappedFile file_at(const MapLine *map, uint64_t at)
{
    return (MappedFile){
        .device = map->inode ? map->device : 0,
        .inode = map->inode,
        .offset = map->inode ? map->offset + (at - map->start) : 0,
        .shared = map->shared,
    };
}

/* Whether this is the range's file, further on by so many bytes. */
static bool goes_on(const MappedFile *file, const MappedFile *other, uint64_t by)
{
    return file->device == other->device && file->inode == other->inode &&
           file->shared == other->shared &&
           (file->inode == 0 || file->offset + by == other->offset);
}

int mapping_find(uint64_t start, uint64_t length, MappedFile *ret_file, Reason *ret_reason)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    uint64_t at = start, end = start + length;
    char *line = NULL;
    size_t size = 0;
    MapLine map;

    if (!maps)
        return reason_set(ret_reason, -errno, "/proc/self/maps: %s", strerror(errno));
    while (at < end && getline(&line, &size, maps) > 0) {
        if (!parse(line, &map) || map.end <= at)
            continue;
        if (map.start > at || !map.writable)
            break;
        MappedFile file = file_at(&map, at);
        if (at == start)
            *ret_file = file;
        else if (!goes_on(ret_file, &file, at - start))
            break;
        at = map.end;
    }
    free(line);
    fclose(maps);
    if (at < end)
        return reason_set(ret_reason, -ESTALE,
                          "the memory at 0x%" PRIx64 " is not mapped in one piece from 0x%" PRIx64
                          " on",
                          start, at);
    return 0;
}
