/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/fault/stream_map.h"

#include "daemon/core/clock.h"
#include "daemon/fault/import.h"

/* In assist mode the pages that changed last come first: they are noted, and no map is asked for until then. */
static bool may_go_ahead(Stream *stream)
{
    return (stream->mapping || !stream_walk_has_missing(&stream->walk)) &&
           ahead_goes_on(&stream->ahead, stream->import, clock_ns());
}

void stream_map_step(Stream *stream)
{
    Channel *channel = &stream->channels[0].channel;

    if (stream->map_complete || stream->map_asked || channel->fd < 0 || !stream->open ||
        (stream->import->config.assist && !may_go_ahead(stream)))
        return;
    stream->map_asked = stream->mapping = true;
    channel_ask_map(channel, stream->map_region, stream->map_page);
}

/* After the last region no HOLE has content any more: faults on them need not ask the source. */
static void advance_map(Stream *stream, uint64_t next)
{
    Import *import = stream->import;

    stream->map_asked = false;
    stream->map_page = next;
    if (next < import->table.pages[stream->map_region])
        return;
    stream->map_page = 0;
    if (++stream->map_region < import->regions.n)
        return;
    stream->map_complete = true;
    if (import->config.assist)
        return; /* a fault on a HOLE asks the source all the same: nothing rests on a map there */
    page_table_set(&import->table, PAGE_TABLE_MAP_COMPLETE);
}

void stream_map_arrived(Stream *stream, Channel *channel, uint32_t region, const PeerMessage *map)
{
    Import *import = stream->import;
    uint64_t pages = import->table.pages[stream->map_region];

    if (!stream->map_asked || region != stream->map_region || map->map.next <= stream->map_page ||
        map->map.next > pages || (map->map.n > 0 && map->map.extents[0].page < stream->map_page)) {
        channel_drop(channel, "the source sent a map nobody asked for");
        return;
    }
    for (uint32_t i = 0; i < map->map.n; i++) {
        const PeerExtent *extent = &map->map.extents[i];
        if (!import_is_gone(import, region)) {
            page_table_mark_missing(&import->table, region, extent->page, extent->count);
            stream_walk_note(&stream->walk, region, extent->page, extent->count);
        }
        stream->populated_bytes += extent->count * import->page_sizes[region];
    }
    if (!import->config.assist) /* QEMU brings part of it */
        atomic_store_explicit(&import->counters.populated_bytes, stream->populated_bytes,
                              memory_order_relaxed);
    ahead_moved(&stream->ahead, import, clock_ns());
    advance_map(stream, map->map.next);
}
