/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/lib/region.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "protocol/text.h"

static int check_layout(const struct postcopy_region *region, Reason *ret_reason)
{
    uint64_t address = (uintptr_t)region->address;
    uint64_t end;

    if (!limits_region_fits(region->length, region->page_size))
        return reason_set(ret_reason, -EINVAL, "a region's length or page size is out of bounds");
    if (region->flags & POSTCOPY_REGION_ABSENT)
        address = region->page_size;
    if (!address || ((address | region->fd_offset) & (region->page_size - 1)))
        return reason_set(ret_reason, -EINVAL, "a region is not aligned to its page size");
    if (__builtin_add_overflow(address, region->length, &end) ||
        __builtin_add_overflow(region->fd_offset, region->length, &end) || end > INT64_MAX ||
        (region->guest_address != POSTCOPY_GUEST_ADDRESS_UNKNOWN &&
         __builtin_add_overflow(region->guest_address, region->length, &end)))
        return reason_set(ret_reason, -EINVAL, "a region reaches beyond the end of memory");
    if (region->id &&
        (strlen(region->id) > LIMIT_REGION_ID || !text_is_plain(region->id, strlen(region->id))))
        return reason_set(ret_reason, -EINVAL, "a region's id is too long or not printable UTF-8");
    return 0;
}

/* A fault on hugetlbfs is as large as that file system's page; elsewhere it is a base page. */
static int check_file(const struct postcopy_region *region, Reason *ret_reason)
{
    uint64_t page_size = (uint64_t)sysconf(_SC_PAGESIZE);
    struct statfs fs;
    struct stat st;

    if (fstat(region->fd, &st) < 0 || fstatfs(region->fd, &fs) < 0)
        return reason_set(ret_reason, -EINVAL, "a region's fd %d: %s", region->fd, strerror(errno));
    if ((uint64_t)st.st_size < region->fd_offset + region->length)
        return reason_set(ret_reason, -EINVAL, "a region reaches beyond the end of its file");
    if (fs.f_type == HUGETLBFS_MAGIC)
        page_size = (uint64_t)fs.f_bsize;
    if (region->page_size != page_size)
        return reason_set(ret_reason, -EINVAL,
                          "a region's page size is %llu, but that of its file is %llu",
                          (unsigned long long)region->page_size, (unsigned long long)page_size);
    return 0;
}

static int check_absent(const struct postcopy_region *region, Reason *ret_reason)
{
    if (region->address || region->fd_offset || region->fd >= 0)
        return reason_set(ret_reason, -EINVAL, "an absent region has no address and no file");
    if (region->guest_address == POSTCOPY_GUEST_ADDRESS_UNKNOWN && !(region->id && *region->id))
        return reason_set(ret_reason, -EINVAL, "an absent region needs an id or a guest address");
    if ((unsigned)region->backing > POSTCOPY_PRIVATE)
        return reason_set(ret_reason, -EINVAL, "a region's backing is not known");
    return 0;
}

static int check_region(const struct postcopy_region *region, Reason *ret_reason)
{
    int error = check_layout(region, ret_reason);

    if (error)
        return error;
    if (region->flags & ~(POSTCOPY_REGION_REMOVABLE | POSTCOPY_REGION_ABSENT))
        return reason_set(ret_reason, -EINVAL, "a region has a flag that is not known");
    if (region->flags & POSTCOPY_REGION_ABSENT)
        return check_absent(region, ret_reason);
    switch (region->backing) {
    case POSTCOPY_ANONYMOUS:
        return 0;
    case POSTCOPY_SHARED:
    case POSTCOPY_PRIVATE:
        return check_file(region, ret_reason);
    }
    return reason_set(ret_reason, -EINVAL, "a region's backing is not known");
}

static bool overlap(const Region *region, const Region *other)
{
    uint64_t a = (uintptr_t)region->address;
    uint64_t b = (uintptr_t)other->address;

    return !region->absent && !other->absent && a < b + other->length && b < a + region->length;
}

bool regions_overlap(const Regions *regions, const Region *region)
{
    for (size_t i = 0; i < regions->n; i++)
        if (overlap(&regions->list[i], region))
            return true;
    return false;
}

int region_make(const struct postcopy_region *region, Region *added, Reason *ret_reason)
{
    int error = check_region(region, ret_reason);

    if (error)
        return error;
    *added = (Region){
        .guest_address = region->guest_address,
        .address = region->address,
        .length = region->length,
        .page_size = region->page_size,
        .backing = region->backing,
        .removable = (region->flags & POSTCOPY_REGION_REMOVABLE) != 0,
        .absent = (region->flags & POSTCOPY_REGION_ABSENT) != 0,
        .fd = -1,
    };
    if (region->id)
        memcpy(added->id, region->id, strlen(region->id) + 1);
    if (region->backing != POSTCOPY_ANONYMOUS && !added->absent) {
        added->fd_offset = region->fd_offset;
        added->fd = fcntl(region->fd, F_DUPFD_CLOEXEC, 3);
        if (added->fd < 0)
            return reason_set(ret_reason, -errno, "a region's fd: %s", strerror(errno));
    }
    return 0;
}

int regions_add(Regions *regions, const struct postcopy_region *region, Reason *ret_reason)
{
    Region added;
    int error = region_make(region, &added, ret_reason);

    if (error)
        return error;
    if (regions->n == LIMIT_REGIONS)
        error = reason_set(ret_reason, -ENOSPC, "more than %d regions", LIMIT_REGIONS);
    else if (regions_overlap(regions, &added))
        error = reason_set(ret_reason, -EEXIST, "two regions overlap at %p", region->address);
    if (error) {
        if (added.fd >= 0)
            close(added.fd);
        return error;
    }
    regions->list[regions->n++] = added;
    return 0;
}

void region_take_away(Region *region)
{
    if (region->fd >= 0)
        close(region->fd);
    region->fd = -1;
    region->address = NULL;
    region->fd_offset = 0;
    region->absent = true;
}

void regions_drop_absent(Regions *regions)
{
    for (size_t i = regions->n; i-- > 0;)
        if (regions->list[i].absent)
            regions_remove(regions, i);
}

int regions_find_absent(const Regions *regions, const Region *wanted)
{
    for (size_t i = 0; i < regions->n; i++) {
        const Region *region = &regions->list[i];
        if (region->absent && strcmp(region->id, wanted->id) == 0 &&
            region->guest_address == wanted->guest_address && region->length == wanted->length &&
            region->page_size == wanted->page_size)
            return (int)i;
    }
    return -1;
}

int regions_find(const Regions *regions, const void *address)
{
    for (size_t i = 0; i < regions->n; i++)
        if (!regions->list[i].absent && regions->list[i].address == address)
            return (int)i;
    return -1;
}

void regions_remove(Regions *regions, size_t index)
{
    if (regions->list[index].fd >= 0)
        close(regions->list[index].fd);
    regions->n--;
    memmove(&regions->list[index], &regions->list[index + 1],
            (regions->n - index) * sizeof regions->list[0]);
}

void regions_deinit(Regions *regions)
{
    while (regions->n)
        regions_remove(regions, regions->n - 1);
}

void region_to_wire(const Region *region, int32_t fd, ClientRegion *ret_region)
{
    *ret_region = (ClientRegion){
        .guest_address = region->guest_address,
        .address = (uintptr_t)region->address,
        .length = region->length,
        .page_size = region->page_size,
        .fd_offset = region->fd_offset,
        .kind = (ClientRegionKind)region->backing,
        .flags = (uint16_t)((region->removable ? CLIENT_REGION_REMOVABLE : 0) |
                            (region->absent ? CLIENT_REGION_ABSENT : 0)),
        .fd = region->backing == POSTCOPY_ANONYMOUS || region->absent ? -1 : fd,
    };
    memcpy(ret_region->id, region->id, sizeof ret_region->id);
}
