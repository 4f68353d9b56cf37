/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/source/forecast.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "daemon/core/clock.h"

static uint64_t total_bytes(const RegionSet *regions, uint32_t shift)
{
    uint64_t total = 0;

    for (uint32_t i = 0; i < regions->n; i++)
        total += peer_forecast_bytes(regions->regions[i].length, shift);
    return total;
}

enum { PATIENCE_MS = 500 }; /* its connection is silent meanwhile; what is left is not foretold */

/* Only what the file system tells at once: reading a large process's pagemap takes too long here. */
static void mark_region(const Region *region, uint32_t shift, uint8_t *bits, uint64_t until_ns)
{
    off_t at = (off_t)region->fd_offset;
    off_t end = (off_t)(region->fd_offset + region->length);

    if (region->kind != CLIENT_REGION_SHARED || region->page_size != LIMIT_PAGE_SIZE_MIN)
        return;
    while (at < end && clock_ns() < until_ns) {
        off_t data = lseek(region->fd, at, SEEK_DATA);
        off_t hole = data < 0 ? data : lseek(region->fd, data, SEEK_HOLE);

        if (hole < 0 || data >= end)
            return;
        at = hole < end ? hole : end;
        uint64_t first = ((uint64_t)data - region->fd_offset) >> shift;
        uint64_t last = ((uint64_t)at - region->fd_offset - 1) >> shift;
        for (uint64_t bit = first; bit <= last; bit++)
            bits[bit / 8] |= (uint8_t)(1 << bit % 8);
        /* The rest of this bit's range is told already. */
        uint64_t next = region->fd_offset + ((last + 1) << shift);
        if (next > (uint64_t)at)
            at = (off_t)next;
    }
}

void forecast_make(const Memory *memory, PeerMessage *ret_message)
{
    const RegionSet *regions = &memory->regions;
    uint32_t shift = PEER_FORECAST_SHIFT_MIN;
    uint64_t until_ns = clock_ns() + UINT64_C(1000000) * PATIENCE_MS;
    uint8_t *bits = ret_message->forecast.bits;

    while (total_bytes(regions, shift) > PEER_FORECAST_BYTES)
        shift++;
    ret_message->type = PEER_FORECAST;
    ret_message->forecast.shift = shift;
    ret_message->forecast.n = (uint32_t)total_bytes(regions, shift);
    memset(bits, 0, ret_message->forecast.n);
    for (uint32_t i = 0; i < regions->n; i++) {
        mark_region(&regions->regions[i], shift, bits, until_ns);
        bits += peer_forecast_bytes(regions->regions[i].length, shift);
    }
}
