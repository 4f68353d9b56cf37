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

/* A range of 1 << shift bytes, and how much of it has content. */
typedef struct Range {
    uint64_t number, bytes;
} Range;

/* Half of it at least, or allocating all of it costs more than it saves. */
static void end_range(const Range *range, uint32_t shift, uint8_t *bits)
{
    if (range->bytes >= UINT64_C(1) << (shift - 1))
        bits[range->number / 8] |= (uint8_t)(1 << range->number % 8);
}

static void add_extent(Range *range, uint64_t from, uint64_t to, uint32_t shift, uint8_t *bits)
{
    while (from < to) {
        uint64_t number = from >> shift;
        uint64_t end = (number + 1) << shift;

        if (number != range->number) {
            end_range(range, shift, bits);
            *range = (Range){.number = number};
        }
        end = end < to ? end : to;
        range->bytes += end - from;
        from = end;
    }
}

/* Only what the file system tells at once: reading a large process's pagemap takes too long here. */
static void mark_region(const Region *region, uint32_t shift, uint8_t *bits, uint64_t until_ns)
{
    off_t start = (off_t)region->fd_offset, at = start;
    off_t end = (off_t)(region->fd_offset + region->length);
    Range range = {0};

    if (region->kind != CLIENT_REGION_SHARED || region->page_size != LIMIT_PAGE_SIZE_MIN)
        return;
    while (at < end && clock_ns() < until_ns) {
        off_t data = lseek(region->fd, at, SEEK_DATA);
        off_t hole = data < 0 ? data : lseek(region->fd, data, SEEK_HOLE);

        if (hole < 0 || data >= end)
            break;
        at = hole < end ? hole : end;
        add_extent(&range, (uint64_t)(data - start), (uint64_t)(at - start), shift, bits);
    }
    /* What a region's last range lacks is no hole. */
    if (range.number == (region->length - 1) >> shift)
        range.bytes += ((range.number + 1) << shift) - region->length;
    end_range(&range, shift, bits);
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
