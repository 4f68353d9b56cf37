/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/fault/import.h"

enum { SHARD_ALIGNMENT_SHIFT = 21, SHARD_MINIMUM = 64 << 20 };

static uint64_t shards_of(const Region *region, uint64_t most)
{
    uint64_t n = region->length / SHARD_MINIMUM;

    if (n > most)
        n = most;
    return n ? n : 1;
}

/*
 * Removable memory too where it can be: a page that is placed between its client's punch and its
 * madvise stays in the file, and must not be touched, and so written, before that is punched again.
 */
static bool is_minor(const Import *import, uint32_t index)
{
    const Region *region = &import->regions.regions[index];

    return import->minor[index] ||
           (import->config.minor && region->removable && region->kind == CLIENT_REGION_SHARED &&
            region->page_size == LIMIT_PAGE_SIZE_MIN);
}

static uint32_t split(const Import *import, uint32_t index, uint64_t room, ClientShard *ret_shards)
{
    const Region *region = &import->regions.regions[index];
    uint64_t wanted =
        shards_of(region, room < import->config.shards ? room : import->config.shards);
    uint64_t step = region->length / wanted >> SHARD_ALIGNMENT_SHIFT << SHARD_ALIGNMENT_SHIFT;
    uint32_t n = 0;

    if (step == 0)
        step = region->length;
    for (uint64_t at = 0; n < wanted; n++, at += step)
        ret_shards[n] = (ClientShard){
            .region = (uint16_t)index,
            .start = at,
            .length = n + 1 == wanted ? region->length - at : step,
            .flags = (uint16_t)((is_minor(import, index) ? CLIENT_SHARD_MINOR : 0) |
                                (region->removable ? CLIENT_SHARD_EVENTS : 0)),
        };
    return n;
}

/* Absent regions are left their share. */
uint32_t import_plan_shards(const Import *import, ClientShard *ret_shards)
{
    uint32_t room = LIMIT_SHARDS, n = 0;

    for (uint32_t i = 0; i < import->regions.n; i++) {
        uint32_t share = room / (import->regions.n - i);
        uint32_t taken = share;

        if (!import->regions.regions[i].absent) {
            taken = split(import, i, share, ret_shards + n);
            n += taken;
        } else if (taken > import->config.shards) {
            taken = import->config.shards;
        }
        room -= taken;
    }
    return n;
}

uint32_t import_plan_region(const Import *import, uint32_t region, ClientShard *ret_shards)
{
    uint32_t free_slots = 0, absent = 0;

    for (uint32_t i = 0; i < LIMIT_SHARDS; i++)
        free_slots += atomic_load(&import->shards[i].state) == SHARD_FREE;
    for (uint32_t i = 0; i < import->regions.n; i++)
        absent += !atomic_load(&import->present[i]);
    if (absent == 0 || free_slots < absent)
        return 0;
    return split(import, region, free_slots / absent, ret_shards);
}
