/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A region: a contiguous range of guest RAM.  Immutable once its import or export exists, so any
 * thread may read it; where one comes or goes, its address, file and kind change (fault/hotplug.h).
 */
#ifndef POSTCOPYD_CORE_REGION_H
#define POSTCOPYD_CORE_REGION_H

#include <stdbool.h>
#include <stdint.h>

#include "protocol/client.h"
#include "protocol/peer.h"

typedef struct Region {
    char id[LIMIT_REGION_ID + 1];
    uint64_t guest_address;
    uint64_t address; /* in the client's address space */
    uint64_t length;
    uint64_t page_size;
    uint64_t fd_offset;
    ClientRegionKind kind;
    bool removable; /* parts of it may be given back while it arrives */
    bool absent; /* not mapped now: it may come, as memory that is plugged in; no address, no fd */
    unsigned page_shift;
    int fd; /* of shared memory, else -1; owned by the RegionSet */
} Region;

typedef struct RegionSet {
    uint32_t n;
    Region regions[LIMIT_REGIONS];
} RegionSet;

/* Fills in a region from a client's description, which the decoder has bounded; takes fd. */
void region_init(Region *region, const ClientRegion *from, int fd);

/* Closes the fds. */
void region_set_deinit(RegionSet *set);

/* Its memory is gone: closes the fd; id, guest address and size stay. */
void region_make_absent(Region *region);

/* Forgets the absent ones. */
void region_set_drop_absent(RegionSet *set);

/* The absent region that this one is, by id, guest address, length and page size; set->n: none. */
uint32_t region_set_find_absent(const RegionSet *set, const ClientRegion *wanted);

/*
 * True if these are a set's regions in its own order, by length, page size, id and guest address.  Of one
 * that has neither of the latter, as its client could not know them, only the sizes count.
 */
bool region_set_is_same(const RegionSet *set, const RegionSet *told);

/* A copy with its own fds.  0 or negative errno, then empty. */
int region_set_copy(const RegionSet *from, RegionSet *ret_set);

/* Bytes over all regions. */
uint64_t region_set_length(const RegionSet *set);

/* True if two regions overlap in the client's address space. */
bool region_set_overlaps(const RegionSet *set);

static inline uint64_t region_pages(const Region *region)
{
    return region->length >> region->page_shift;
}

/*
 * True if a client's fd is a file in memory: a memfd, or one on tmpfs or hugetlbfs.  Only of such are
 * status, size and content asked: for a file of anybody's file server these could wait for ever
 * (rule 13).  This itself never waits.
 */
bool region_file_is_memory(int fd);

/*
 * A number that two regions share only if they are the same file of the same running host: arming
 * such a destination would punch holes into its own source.  0 without a file.
 */
uint64_t region_backing(const Region *region);

/* What goes over the wire to describe the set. */
void region_set_describe(const RegionSet *set, PeerRegions *ret_regions);

/* The index of a region that is the very memory of its counterpart; set->n if there is none. */
uint32_t region_set_shared_with(const RegionSet *set, const PeerRegions *source,
                                const uint32_t *map);

/*
 * Rule 12: finds each region's counterpart at the source, by id and guest physical address, never by
 * order or size; ret_map[own index] is the source's index.  A region whose client knew neither is
 * found by the entry whose address_hint is its address.  0, or -EINVAL with a line in
 * ret_text[LIMIT_TEXT + 1].
 */
int region_set_map(const RegionSet *set, const PeerRegions *source, uint32_t *ret_map,
                   char *ret_text);

/*
 * The same where the source may tell of more: in assist mode QEMU brings those, as the destination's
 * guest does not see them before its devices are set up (a graphics card's memory).
 */
int region_set_map_part(const RegionSet *set, const PeerRegions *source, uint32_t *ret_map,
                        char *ret_text);

/* Gives regions whose client knew neither the ids and guest addresses of their counterparts. */
void region_set_take_names(RegionSet *set, const PeerRegions *source, const uint32_t *map);

/* Names the regions a driver described (by address_hint) of a client that could not know them. 0 or
 * -EINVAL with a line in ret_text. */
int region_set_name(RegionSet *set, const PeerRegions *names, char *ret_text);

#endif
