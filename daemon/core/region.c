/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/core/region.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void region_init(Region *region, const ClientRegion *from, int fd)
{
    memcpy(region->id, from->id, sizeof region->id);
    region->guest_address = from->guest_address;
    region->address = from->address;
    region->length = from->length;
    region->page_size = from->page_size;
    region->fd_offset = from->fd_offset;
    region->kind = from->kind;
    region->absent = (from->flags & CLIENT_REGION_ABSENT) != 0;
    region->removable = (from->flags & CLIENT_REGION_REMOVABLE) != 0;
    region->page_shift = (unsigned)__builtin_ctzll(from->page_size);
    region->fd = fd;
}

void region_set_deinit(RegionSet *set)
{
    for (uint32_t i = 0; i < set->n; i++)
        if (set->regions[i].fd >= 0)
            close(set->regions[i].fd);
    set->n = 0;
}

void region_make_absent(Region *region)
{
    if (region->fd >= 0)
        close(region->fd);
    region->fd = -1;
    region->address = region->fd_offset = 0;
    region->absent = true;
}

void region_set_drop_absent(RegionSet *set)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < set->n; i++)
        if (!set->regions[i].absent)
            set->regions[n++] = set->regions[i];
    set->n = n;
}

uint32_t region_set_find_absent(const RegionSet *set, const ClientRegion *wanted)
{
    for (uint32_t i = 0; i < set->n; i++) {
        const Region *region = &set->regions[i];
        if (region->absent && strcmp(region->id, wanted->id) == 0 &&
            region->guest_address == wanted->guest_address && region->length == wanted->length &&
            region->page_size == wanted->page_size)
            return i;
    }
    return set->n;
}

int region_set_copy(const RegionSet *from, RegionSet *ret_set)
{
    ret_set->n = 0;
    for (uint32_t i = 0; i < from->n; i++) {
        Region *to = &ret_set->regions[i];

        *to = from->regions[i];
        if (to->fd >= 0 && (to->fd = fcntl(to->fd, F_DUPFD_CLOEXEC, 3)) < 0) {
            int error = -errno;
            region_set_deinit(ret_set);
            return error;
        }
        ret_set->n = i + 1;
    }
    return 0;
}

uint64_t region_set_length(const RegionSet *set)
{
    uint64_t length = 0;

    for (uint32_t i = 0; i < set->n; i++)
        length += set->regions[i].length;
    return length;
}

bool region_set_overlaps(const RegionSet *set)
{
    for (uint32_t i = 0; i < set->n; i++)
        for (uint32_t j = 0; j < i; j++) {
            const Region *a = &set->regions[i], *b = &set->regions[j];
            if (!a->absent && !b->absent && a->address < b->address + b->length &&
                b->address < a->address + a->length)
                return true;
        }
    return false;
}

static uint64_t mix(uint64_t hash, const void *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++)
        hash = (hash ^ ((const uint8_t *)bytes)[i]) * UINT64_C(0x100000001b3);
    return hash;
}

bool region_file_is_memory(int fd)
{
    /* Memfds and files of tmpfs and hugetlbfs have seals, all others -EINVAL. */
    return fcntl(fd, F_GET_SEALS) >= 0;
}

uint64_t region_backing(const Region *region)
{
    char boot_id[64];
    struct stat status;
    ssize_t n;
    int fd;

    if (region->fd < 0 || fstat(region->fd, &status))
        return 0;
    fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    n = fd < 0 ? 0 : read(fd, boot_id, sizeof boot_id);
    if (fd >= 0)
        close(fd);
    if (n <= 0)
        return 0;
    uint64_t hash = mix(UINT64_C(0xcbf29ce484222325), boot_id, (size_t)n);
    hash = mix(hash, &status.st_dev, sizeof status.st_dev);
    hash = mix(hash, &status.st_ino, sizeof status.st_ino);
    return mix(hash, &region->fd_offset, sizeof region->fd_offset);
}

uint32_t region_set_shared_with(const RegionSet *set, const PeerRegions *source,
                                const uint32_t *map)
{
    for (uint32_t i = 0; i < set->n; i++) {
        uint64_t backing = region_backing(&set->regions[i]);
        if (backing != 0 && backing == source->regions[map[i]].backing)
            return i;
    }
    return set->n;
}

void region_set_describe(const RegionSet *set, PeerRegions *ret_regions)
{
    ret_regions->n = set->n;
    for (uint32_t i = 0; i < set->n; i++) {
        PeerRegion *to = &ret_regions->regions[i];
        memcpy(to->id, set->regions[i].id, sizeof to->id);
        to->guest_address = set->regions[i].guest_address;
        to->length = set->regions[i].length;
        to->page_size = set->regions[i].page_size;
        to->backing = region_backing(&set->regions[i]);
        to->address_hint = 0;
    }
}

static bool is_nameless(const Region *region)
{
    return region->id[0] == '\0' && region->guest_address == GUEST_ADDRESS_UNKNOWN;
}

bool region_set_is_same(const RegionSet *set, const RegionSet *told)
{
    if (set->n != told->n)
        return false;
    for (uint32_t i = 0; i < set->n; i++) {
        const Region *a = &set->regions[i], *b = &told->regions[i];

        if (a->length != b->length || a->page_size != b->page_size ||
            (!is_nameless(b) &&
             (a->guest_address != b->guest_address || strcmp(a->id, b->id) != 0)))
            return false;
    }
    return true;
}

static bool is_counterpart(const Region *region, const PeerRegion *theirs)
{
    if (is_nameless(region))
        return theirs->address_hint != 0 && region->address == theirs->address_hint;
    return strcmp(region->id, theirs->id) == 0 && region->guest_address == theirs->guest_address;
}

static int mismatch(char *ret_text, const PeerRegion *wanted, const char *what, uint64_t here)
{
    snprintf(ret_text, LIMIT_TEXT + 1,
             "region '%s' at guest address 0x%" PRIx64 " has %s 0x%" PRIx64 " here and 0x%" PRIx64
             " at the source: start both sides with the same memory",
             wanted->id, wanted->guest_address, what, here,
             what[0] == 'p' ? wanted->page_size : wanted->length);
    return -EINVAL;
}

static int check_counterpart(const Region *region, unsigned matches, const PeerRegion *theirs,
                             char *ret_text)
{
    if (matches != 1) {
        snprintf(ret_text, LIMIT_TEXT + 1,
                 "the source has %s region like '%s' at guest address 0x%" PRIx64 " (0x%" PRIx64
                 " bytes) here: start both sides with the same memory",
                 matches ? "more than one" : "no", region->id, region->guest_address,
                 region->length);
        return -EINVAL;
    }
    if (region->length != theirs->length)
        return mismatch(ret_text, theirs, "length", region->length);
    if (region->page_size != theirs->page_size)
        return mismatch(ret_text, theirs, "page size", region->page_size);
    return 0;
}

int region_set_map(const RegionSet *set, const PeerRegions *source, uint32_t *ret_map,
                   char *ret_text)
{
    if (set->n == source->n)
        return region_set_map_part(set, source, ret_map, ret_text);
    snprintf(ret_text, LIMIT_TEXT + 1,
             "%u regions here and %u at the source: start both sides with the same memory", set->n,
             source->n);
    return -EINVAL;
}

int region_set_map_part(const RegionSet *set, const PeerRegions *source, uint32_t *ret_map,
                        char *ret_text)
{
    bool taken[LIMIT_REGIONS] = {false};

    for (uint32_t i = 0; i < set->n; i++) {
        uint32_t found = 0;
        unsigned matches = 0;
        int error;

        for (uint32_t j = 0; j < source->n; j++)
            if (is_counterpart(&set->regions[i], &source->regions[j])) {
                found = j;
                matches += taken[j] ? 2 : 1;
            }
        error = check_counterpart(&set->regions[i], matches, &source->regions[found], ret_text);
        if (error)
            return error;
        taken[found] = true;
        ret_map[i] = found;
    }
    return 0;
}

void region_set_take_names(RegionSet *set, const PeerRegions *source, const uint32_t *map)
{
    for (uint32_t i = 0; i < set->n; i++) {
        memcpy(set->regions[i].id, source->regions[map[i]].id, sizeof set->regions[i].id);
        set->regions[i].guest_address = source->regions[map[i]].guest_address;
    }
}

int region_set_name(RegionSet *set, const PeerRegions *names, char *ret_text)
{
    for (uint32_t i = 0; i < set->n; i++) {
        Region *region = &set->regions[i];
        const PeerRegion *name = NULL;

        if (!is_nameless(region))
            continue;
        for (uint32_t j = 0; j < names->n; j++)
            if (names->regions[j].address_hint == region->address)
                name = &names->regions[j];
        if (!name || name->length != region->length) {
            snprintf(ret_text, LIMIT_TEXT + 1,
                     "the region of 0x%" PRIx64 " bytes at 0x%" PRIx64
                     " is not known to the guest's monitor",
                     region->length, region->address);
            return -EINVAL;
        }
        memcpy(region->id, name->id, sizeof region->id);
        region->guest_address = name->guest_address;
    }
    return 0;
}
