/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "protocol/client.h"
#include "protocol/peer_wire.h"

void peer_write_extents(WireWriter *w, const PeerExtent *extents, uint32_t n)
{
    if (n > PEER_MAP_EXTENTS) {
        w->failed = true;
        return;
    }
    wire_write_u32(w, n);
    for (uint32_t i = 0; i < n; i++) {
        wire_write_u64(w, extents[i].page);
        wire_write_u64(w, extents[i].count);
    }
}

uint64_t peer_read_extents(WireReader *r, PeerExtent *ret_extents, uint32_t *ret_n, uint64_t first)
{
    uint64_t end = first;

    *ret_n = wire_read_count(r, PEER_MAP_EXTENTS);
    for (uint32_t i = 0; i < *ret_n; i++) {
        PeerExtent *extent = &ret_extents[i];
        extent->page = wire_read_u64(r);
        extent->count = wire_read_u64(r);
        if (extent->page < end || extent->count == 0 ||
            __builtin_add_overflow(extent->page, extent->count, &end))
            r->failed = true;
    }
    return end;
}

static void write_map(WireWriter *w, const PeerMessage *m)
{
    wire_write_u32(w, m->map.region);
    wire_write_u64(w, m->map.seal);
    wire_write_u64(w, m->map.next);
    peer_write_extents(w, m->map.extents, m->map.n);
}

static void read_map(WireReader *r, PeerMessage *m)
{
    uint64_t end;

    m->map.region = wire_read_u32(r);
    m->map.seal = wire_read_u64(r);
    m->map.next = wire_read_u64(r);
    end = peer_read_extents(r, m->map.extents, &m->map.n, 0);
    if (m->map.region >= LIMIT_REGIONS || end > m->map.next)
        r->failed = true;
}

void peer_write_items(WireWriter *w, const PeerReadItem *items, uint32_t n)
{
    if (n > PEER_READ_ITEMS) {
        w->failed = true;
        return;
    }
    wire_write_u32(w, n);
    for (uint32_t i = 0; i < n; i++) {
        wire_write_u64(w, items[i].cookie);
        wire_write_u64(w, items[i].page);
        wire_write_u32(w, items[i].region);
        wire_write_u32(w, items[i].count);
    }
}

static void read_read(WireReader *r, PeerMessage *m)
{
    m->read.n = wire_read_count(r, PEER_READ_ITEMS);
    for (uint32_t i = 0; i < m->read.n; i++) {
        m->read.items[i].cookie = wire_read_u64(r);
        m->read.items[i].page = wire_read_u64(r);
        m->read.items[i].region = wire_read_u32(r);
        m->read.items[i].count = wire_read_u32(r);
    }
}

static void write_placement(WireWriter *w, const PeerPlacement *placement)
{
    wire_write_u64(w, placement->seal);
    wire_write_u32(w, placement->first);
    wire_write_u32(w, placement->count);
    wire_write_u32(w, placement->code);
    wire_write_u32(w, 0);
}

void peer_read_placement(WireReader *r, PeerPlacement *ret_placement)
{
    uint32_t last;

    ret_placement->seal = wire_read_u64(r);
    ret_placement->first = wire_read_u32(r);
    ret_placement->count = wire_read_u32(r);
    ret_placement->code = wire_read_u32(r);
    if (wire_read_u32(r) != 0 || ret_placement->code > PEER_ERROR_LAST ||
        __builtin_add_overflow(ret_placement->first, ret_placement->count, &last))
        r->failed = true;
}

static void write_forecast(WireWriter *w, const PeerMessage *m)
{
    if (m->forecast.n > PEER_FORECAST_BYTES) {
        w->failed = true;
        return;
    }
    wire_write_u32(w, m->forecast.shift);
    wire_write_u32(w, m->forecast.n);
    wire_write_bytes(w, m->forecast.bits, m->forecast.n);
}

static void read_forecast(WireReader *r, PeerMessage *m)
{
    m->forecast.shift = wire_read_count(r, PEER_FORECAST_SHIFT_MAX);
    m->forecast.n = wire_read_count(r, PEER_FORECAST_BYTES);
    wire_read_bytes(r, m->forecast.bits, m->forecast.n);
    if (m->forecast.shift < PEER_FORECAST_SHIFT_MIN)
        r->failed = true;
}

static void write_progress(WireWriter *w, const PeerMessage *m)
{
    wire_write_u32(w, m->progress.state);
    wire_write_u64(w, m->progress.populated_bytes);
    wire_write_u64(w, m->progress.present_bytes);
    wire_write_u64(w, m->progress.missing_at_running);
    wire_write_u64(w, m->progress.faults);
    wire_write_u64(w, m->progress.received_bytes);
    wire_write_u64(w, m->progress.fault_p50_ns);
    wire_write_u64(w, m->progress.fault_p99_ns);
    wire_write_text(w, m->progress.text, LIMIT_TEXT);
}

static void read_progress(WireReader *r, PeerMessage *m)
{
    m->progress.state = wire_read_u32(r);
    m->progress.populated_bytes = wire_read_u64(r);
    m->progress.present_bytes = wire_read_u64(r);
    m->progress.missing_at_running = wire_read_u64(r);
    m->progress.faults = wire_read_u64(r);
    m->progress.received_bytes = wire_read_u64(r);
    m->progress.fault_p50_ns = wire_read_u64(r);
    m->progress.fault_p99_ns = wire_read_u64(r);
    wire_read_string(r, m->progress.text, LIMIT_TEXT);
    if (m->progress.state > CLIENT_STATE_LAST)
        r->failed = true;
}

void peer_write_pages(WireWriter *w, const PeerMessage *m)
{
    switch (m->type) {
    case PEER_PROGRESS:
        write_progress(w, m);
        break;
    case PEER_MAP_REQUEST:
        wire_write_u32(w, m->map_request.region);
        wire_write_u64(w, m->map_request.page);
        break;
    case PEER_MAP:
        write_map(w, m);
        break;
    case PEER_FORECAST:
        write_forecast(w, m);
        break;
    case PEER_READ:
        peer_write_items(w, m->read.items, m->read.n);
        break;
    case PEER_DATA:
    case PEER_ZERO:
    case PEER_ERROR:
        write_placement(w, &m->placement);
        break;
    default:
        w->failed = true;
    }
}

void peer_read_pages(WireReader *r, PeerMessage *m)
{
    switch (m->type) {
    case PEER_PROGRESS:
        read_progress(r, m);
        break;
    case PEER_MAP_REQUEST:
        m->map_request.region = wire_read_count(r, LIMIT_REGIONS - 1);
        m->map_request.page = wire_read_u64(r);
        break;
    case PEER_MAP:
        read_map(r, m);
        break;
    case PEER_FORECAST:
        read_forecast(r, m);
        break;
    case PEER_READ:
        read_read(r, m);
        break;
    case PEER_ZERO:
    case PEER_ERROR:
        peer_read_placement(r, &m->placement);
        break;
    default:
        r->failed = true;
    }
}
