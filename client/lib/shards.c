/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/lib/shards.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int compare(const void *a, const void *b)
{
    const ClientShard *x = a;
    const ClientShard *y = b;

    if (x->region != y->region)
        return x->region < y->region ? -1 : 1;
    if (x->start != y->start)
        return x->start < y->start ? -1 : 1;
    return 0;
}

/* How far the sorted shards cover this region; *index moves past its shards.  0 if they do not. */
static uint64_t covered(const ClientShard *sorted, uint32_t n, uint32_t region, uint64_t page_size,
                        uint32_t *index)
{
    uint64_t end = 0;

    for (; *index < n && sorted[*index].region == region; (*index)++) {
        const ClientShard *shard = &sorted[*index];
        if (shard->start != end || shard->length == 0 || (shard->length & (page_size - 1)) ||
            __builtin_add_overflow(end, shard->length, &end))
            return 0;
    }
    return end;
}

static int check(const ClientShard *shards, uint32_t n_shards, const Regions *regions,
                 const uint32_t *only, Reason *ret_reason)
{
    ClientShard *sorted = calloc(n_shards ? n_shards : 1, sizeof *sorted);
    uint32_t index = 0;
    bool good = sorted != NULL;

    if (!sorted)
        return reason_set(ret_reason, -ENOMEM, "out of memory");
    memcpy(sorted, shards, n_shards * sizeof *sorted);
    qsort(sorted, n_shards, sizeof *sorted, compare);
    for (uint32_t i = 0; good && i < regions->n; i++) {
        const Region *region = &regions->list[i];
        bool wanted = !region->absent && (!only || *only == i);
        good = covered(sorted, n_shards, i, region->page_size, &index) ==
               (wanted ? region->length : 0);
    }
    good = good && index == n_shards;
    free(sorted);
    return good ? 0
                : reason_set(ret_reason, -EINVAL,
                             "the shards do not cover the regions exactly once");
}

int shards_check(const ClientShard *shards, uint32_t n_shards, const Regions *regions,
                 Reason *ret_reason)
{
    return check(shards, n_shards, regions, NULL, ret_reason);
}

int shards_check_region(const ClientShard *shards, uint32_t n_shards, const Regions *regions,
                        uint32_t index, Reason *ret_reason)
{
    return check(shards, n_shards, regions, &index, ret_reason);
}
