/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Sets of regions for tests. */
#ifndef POSTCOPYD_TESTS_CORE_REGIONS_H
#define POSTCOPYD_TESTS_CORE_REGIONS_H

#include <stdio.h>
#include <string.h>

#include "daemon/core/region.h"

/* Appends a region of so many pages; fd (-1: anonymous) becomes the set's. */
static inline Region *add_region(RegionSet *set, uint64_t pages, uint64_t page_size, int fd)
{
    Region *region = &set->regions[set->n];

    memset(region, 0, sizeof *region);
    snprintf(region->id, sizeof region->id, "ram%u", set->n);
    region->guest_address = UINT64_C(0x100000000) * set->n;
    region->address = UINT64_C(0x7f0000000000) + UINT64_C(0x10000000000) * set->n;
    region->length = pages * page_size;
    region->page_size = page_size;
    region->page_shift = (unsigned)__builtin_ctzll(page_size);
    region->kind = fd < 0 ? CLIENT_REGION_ANONYMOUS : CLIENT_REGION_SHARED;
    region->fd = fd;
    set->n++;
    return region;
}

#endif
