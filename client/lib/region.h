/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The guest's RAM as this process maps it.
 *
 * A Regions owns a dup of every region's fd.  Its order is that of HELLO: shards and the page table
 * name regions by their place in it, so it only changes while nothing is armed or exported; one that
 * comes or goes meanwhile keeps its place, and is absent as long as it is not mapped.
 */
#ifndef POSTCOPY_REGION_H
#define POSTCOPY_REGION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/lib/postcopy.h"
#include "client/lib/reason.h"
#include "protocol/client.h"

typedef struct Region {
    char id[LIMIT_REGION_ID + 1];
    uint64_t guest_address;
    uint8_t *address;
    uint64_t length;
    uint64_t page_size;
    uint64_t fd_offset;
    enum postcopy_backing backing;
    bool removable;
    bool absent; /* not mapped now: no address, no fd */
    int fd;      /* -1 if anonymous */
} Region;

typedef struct Regions {
    size_t n;
    Region list[LIMIT_REGIONS];
} Regions;

/*
 * Checks a region and adds it at the end.  -EINVAL: it is unusable; -EEXIST: it overlaps another;
 * -ENOSPC: there are too many; -EMFILE.
 */
int regions_add(Regions *regions, const struct postcopy_region *region, Reason *ret_reason);

/* Checks a region and makes it, with a dup of its fd; errors as above. */
int region_make(const struct postcopy_region *from, Region *ret_region, Reason *ret_reason);

/* It is no longer mapped: closes its fd. */
void region_take_away(Region *region);

/* Forgets the absent ones. */
void regions_drop_absent(Regions *regions);

/* The absent region that this one is, by id, guest address, length and page size; or -1. */
int regions_find_absent(const Regions *regions, const Region *wanted);

bool regions_overlap(const Regions *regions, const Region *region);

/* The place of the one that is mapped there, or -1. */
int regions_find(const Regions *regions, const void *address);

void regions_remove(Regions *regions, size_t index);
void regions_deinit(Regions *regions);

/*
 * As a message shows it, with fd as the index among the message's fds (ignored if anonymous).
 */
void region_to_wire(const Region *region, int32_t fd, ClientRegion *ret_region);

#endif
