/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "protocol/peer.h"

#include <errno.h>
#include <string.h>

#include "protocol/client.h"
#include "protocol/peer_wire.h"
#include "protocol/wire.h"

static void write_regions(WireWriter *w, const PeerRegions *regions)
{
    if (regions->n > LIMIT_REGIONS) {
        w->failed = true;
        return;
    }
    wire_write_u32(w, regions->n);
    for (uint32_t i = 0; i < regions->n; i++) {
        const PeerRegion *region = &regions->regions[i];
        wire_write_string(w, region->id, LIMIT_REGION_ID);
        wire_write_u64(w, region->guest_address);
        wire_write_u64(w, region->length);
        wire_write_u64(w, region->page_size);
        wire_write_u64(w, region->backing);
        wire_write_u64(w, region->address_hint);
    }
}

static void read_regions(WireReader *r, PeerRegions *ret_regions)
{
    ret_regions->n = wire_read_count(r, LIMIT_REGIONS);
    for (uint32_t i = 0; i < ret_regions->n; i++) {
        PeerRegion *region = &ret_regions->regions[i];
        wire_read_string(r, region->id, LIMIT_REGION_ID);
        region->guest_address = wire_read_u64(r);
        region->length = wire_read_u64(r);
        region->page_size = wire_read_u64(r);
        region->backing = wire_read_u64(r);
        region->address_hint = wire_read_u64(r);
        if (!limits_region_fits(region->length, region->page_size) ||
            region->page_size > PEER_PAGE_SIZE_MAX)
            r->failed = true;
    }
}

static void write_vcpus(WireWriter *w, const uint32_t *tids, uint32_t n)
{
    if (n > LIMIT_VCPUS) {
        w->failed = true;
        return;
    }
    wire_write_u32(w, n);
    for (uint32_t i = 0; i < n; i++)
        wire_write_u32(w, tids[i]);
}

static void write_placement(WireWriter *w, const PeerPlacement *placement)
{
    wire_write_u64(w, placement->seal);
    wire_write_u32(w, placement->first);
    wire_write_u32(w, placement->count);
    wire_write_u32(w, placement->code);
    wire_write_u32(w, 0);
}

static void read_placement(WireReader *r, PeerPlacement *ret_placement)
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

static void write_read(WireWriter *w, const PeerReadItem *items, uint32_t n)
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

static void write_hello(WireWriter *w, const PeerMessage *m)
{
    wire_write_u16(w, m->hello.version_lowest);
    wire_write_u16(w, m->hello.version_highest);
    wire_write_u64(w, m->hello.features_required);
    wire_write_u64(w, m->hello.features_optional);
    wire_write_u64(w, m->hello.page_size);
    wire_write_string(w, m->hello.machine, LIMIT_REGION_ID);
    wire_write_string(w, m->hello.agent, LIMIT_REGION_ID);
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

static void read_hello(WireReader *r, PeerMessage *m)
{
    m->hello.version_lowest = wire_read_u16(r);
    m->hello.version_highest = wire_read_u16(r);
    m->hello.features_required = wire_read_u64(r);
    m->hello.features_optional = wire_read_u64(r);
    m->hello.page_size = wire_read_u64(r);
    wire_read_string(r, m->hello.machine, LIMIT_REGION_ID);
    wire_read_string(r, m->hello.agent, LIMIT_REGION_ID);
}

static void write_invite(WireWriter *w, const PeerMessage *m)
{
    wire_write_bytes(w, m->invite.uuid, LIMIT_UUID);
    wire_write_string(w, m->invite.name, LIMIT_NAME);
    wire_write_bytes(w, m->invite.token, LIMIT_TOKEN);
    wire_write_string(w, m->invite.source, LIMIT_ADDRESS);
    write_regions(w, &m->invite.regions);
    write_vcpus(w, m->invite.vcpus, m->invite.n_vcpus);
    wire_write_u32(w, m->invite.flags);
}

static void write_asked(WireWriter *w, const PeerMessage *m)
{
    wire_write_u32(w, m->asked.code);
    wire_write_text(w, m->asked.text, LIMIT_TEXT);
    wire_write_bytes(w, m->asked.token, LIMIT_TOKEN);
    if (m->asked.flags)
        wire_write_u32(w, m->asked.flags);
}

static void write_status(WireWriter *w, const PeerMessage *m)
{
    wire_write_u32(w, m->status.code);
    wire_write_text(w, m->status.text, LIMIT_TEXT);
    wire_write_string(w, m->status.incoming, LIMIT_ADDRESS);
}

static void write_attached(WireWriter *w, const PeerMessage *m)
{
    wire_write_u32(w, m->attached.code);
    wire_write_text(w, m->attached.text, LIMIT_TEXT);
    wire_write_u64(w, m->attached.seal);
    wire_write_bytes(w, m->attached.secret, LIMIT_TOKEN);
    write_regions(w, &m->attached.regions);
}

static void write_ask(WireWriter *w, const PeerMessage *m)
{
    wire_write_bytes(w, m->ask.uuid, LIMIT_UUID);
    wire_write_string(w, m->ask.name, LIMIT_NAME);
    wire_write_bytes(w, m->ask.token, LIMIT_TOKEN);
    wire_write_string(w, m->ask.connection, LIMIT_ADDRESS);
}

static void write_attach(WireWriter *w, const PeerMessage *m)
{
    wire_write_bytes(w, m->attach.uuid, LIMIT_UUID);
    wire_write_string(w, m->attach.name, LIMIT_NAME);
    wire_write_bytes(w, m->attach.token, LIMIT_TOKEN);
}

static void write_join(WireWriter *w, const PeerMessage *m)
{
    wire_write_bytes(w, m->join.secret, LIMIT_TOKEN);
    wire_write_u32(w, m->join.kind);
    wire_write_u32(w, m->join.index);
}

static void write_body(WireWriter *w, const PeerMessage *m)
{
    switch (m->type) {
    case PEER_START:
    case PEER_STARTED:
        wire_write_u64(w, m->start.magic);
        wire_write_u8(w, m->start.tls);
        break;
    case PEER_HELLO:
        write_hello(w, m);
        break;
    case PEER_INVITE:
        write_invite(w, m);
        break;
    case PEER_ASK:
        write_ask(w, m);
        break;
    case PEER_ASKED:
        write_asked(w, m);
        break;
    case PEER_INVITED:
    case PEER_JOINED:
    case PEER_FENCED:
    case PEER_BYE:
        write_status(w, m);
        break;
    case PEER_ATTACH:
        write_attach(w, m);
        break;
    case PEER_ATTACHED:
        write_attached(w, m);
        break;
    case PEER_JOIN:
        write_join(w, m);
        break;
    case PEER_SEALED:
        wire_write_u64(w, m->sealed.seal);
        break;
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
        write_read(w, m->read.items, m->read.n);
        break;
    case PEER_DATA:
    case PEER_ZERO:
    case PEER_ERROR:
        write_placement(w, &m->placement);
        break;
    case PEER_RELAY:
    case PEER_RUNNING:
    case PEER_CANCEL:
    case PEER_RELEASED:
    case PEER_PING:
    case PEER_PONG:
    case PEER_FORECAST_REQUEST:
    case PEER_SEAL:
    case PEER_AWAITED:
        break;
    case PEER_RDMA_CONNECT:
    case PEER_RDMA_CONNECTED:
    case PEER_KEYS_REQUEST:
    case PEER_KEYS:
    case PEER_KEYS_DONE:
        peer_write_rdma(w, m);
        break;
    case PEER_UNKNOWN:
    default:
        w->failed = true;
    }
}

static void write_header(void *frame, PeerMessageType type, uint32_t length, uint32_t session,
                         uint32_t generation, uint64_t cookie)
{
    WireWriter w = {.data = frame, .size = PEER_HEADER_SIZE};

    wire_write_u32(&w, length);
    wire_write_u16(&w, (uint16_t)type);
    wire_write_u16(&w, 0);
    wire_write_u32(&w, session);
    wire_write_u32(&w, generation);
    wire_write_u64(&w, cookie);
}

/* Where a frame's body goes; failed if there is no room for any. */
static WireWriter body_writer(void *frame, size_t size)
{
    size_t room = size > PEER_HEADER_SIZE ? size - PEER_HEADER_SIZE : 0;

    return (WireWriter){
        .data = (uint8_t *)frame + PEER_HEADER_SIZE,
        .size = room < PEER_CONTROL_MAX ? room : PEER_CONTROL_MAX,
        .failed = size < PEER_HEADER_SIZE,
    };
}

ssize_t peer_data_encode(const PeerMessage *message, uint32_t data_length, void *ret_frame,
                         size_t size)
{
    WireWriter body = body_writer(ret_frame, size);

    write_body(&body, message);
    if (body.failed)
        return -EMSGSIZE;
    write_header(ret_frame, message->type, (uint32_t)body.used + data_length, message->session,
                 message->generation, message->cookie);
    return (ssize_t)(PEER_HEADER_SIZE + body.used);
}

ssize_t peer_message_encode(const PeerMessage *message, void *ret_frame, size_t size)
{
    return peer_data_encode(message, 0, ret_frame, size);
}

ssize_t peer_read_encode(uint32_t session, uint32_t generation, const PeerReadItem *items,
                         uint32_t n, void *ret_frame, size_t size)
{
    WireWriter body = body_writer(ret_frame, size);

    write_read(&body, items, n);
    if (body.failed)
        return -EMSGSIZE;
    write_header(ret_frame, PEER_READ, (uint32_t)body.used, session, generation, 0);
    return (ssize_t)(PEER_HEADER_SIZE + body.used);
}

int peer_header_decode(const uint8_t bytes[PEER_HEADER_SIZE], PeerHeader *ret_header)
{
    WireReader r = {.data = bytes, .left = PEER_HEADER_SIZE};
    uint32_t limit;

    ret_header->length = wire_read_u32(&r);
    ret_header->type = wire_read_u16(&r);
    ret_header->flags = wire_read_u16(&r);
    ret_header->session = wire_read_u32(&r);
    ret_header->generation = wire_read_u32(&r);
    ret_header->cookie = wire_read_u64(&r);
    limit = ret_header->type == PEER_DATA ? PEER_PLACEMENT_SIZE + PEER_DATA_MAX : PEER_CONTROL_MAX;
    if (!wire_read_complete(&r) || ret_header->length > limit || ret_header->flags != 0)
        return -EPROTO;
    return 0;
}

int peer_placement_decode(const PeerHeader *header, const uint8_t bytes[PEER_PLACEMENT_SIZE],
                          PeerPlacement *ret_placement)
{
    WireReader r = {.data = bytes, .left = PEER_PLACEMENT_SIZE};
    uint32_t data = header->length - PEER_PLACEMENT_SIZE;

    if (header->length < PEER_PLACEMENT_SIZE)
        return -EPROTO;
    read_placement(&r, ret_placement);
    if (!wire_read_complete(&r) || ret_placement->count == 0)
        return -EPROTO;
    if (header->type != PEER_DATA)
        return data == 0 ? 0 : -EPROTO;
    return data > 0 && data % ret_placement->count == 0 ? 0 : -EPROTO;
}

static void read_invite(WireReader *r, PeerMessage *m)
{
    wire_read_bytes(r, m->invite.uuid, LIMIT_UUID);
    wire_read_string(r, m->invite.name, LIMIT_NAME);
    wire_read_bytes(r, m->invite.token, LIMIT_TOKEN);
    wire_read_string(r, m->invite.source, LIMIT_ADDRESS);
    read_regions(r, &m->invite.regions);
    m->invite.n_vcpus = wire_read_count(r, LIMIT_VCPUS);
    for (uint32_t i = 0; i < m->invite.n_vcpus; i++)
        m->invite.vcpus[i] = wire_read_u32(r);
    m->invite.flags = wire_read_u32(r);
}

static void read_asked(WireReader *r, PeerMessage *m)
{
    m->asked.code = wire_read_count(r, PEER_ERROR_LAST);
    wire_read_string(r, m->asked.text, LIMIT_TEXT);
    wire_read_bytes(r, m->asked.token, LIMIT_TOKEN);
    if (r->left > 0) {
        m->asked.flags = wire_read_u32(r);
        r->failed =
            r->failed || m->asked.flags == 0; /* left out then: there is one way to say it */
    } else {
        m->asked.flags = 0;
    }
}

static void read_status(WireReader *r, PeerMessage *m)
{
    m->status.code = wire_read_count(r, PEER_ERROR_LAST);
    wire_read_string(r, m->status.text, LIMIT_TEXT);
    wire_read_string(r, m->status.incoming, LIMIT_ADDRESS);
}

static void read_attached(WireReader *r, PeerMessage *m)
{
    m->attached.code = wire_read_count(r, PEER_ERROR_LAST);
    wire_read_string(r, m->attached.text, LIMIT_TEXT);
    m->attached.seal = wire_read_u64(r);
    wire_read_bytes(r, m->attached.secret, LIMIT_TOKEN);
    read_regions(r, &m->attached.regions);
}

static void read_ask(WireReader *r, PeerMessage *m)
{
    wire_read_bytes(r, m->ask.uuid, LIMIT_UUID);
    wire_read_string(r, m->ask.name, LIMIT_NAME);
    wire_read_bytes(r, m->ask.token, LIMIT_TOKEN);
    wire_read_string(r, m->ask.connection, LIMIT_ADDRESS);
}

static void read_attach(WireReader *r, PeerMessage *m)
{
    wire_read_bytes(r, m->attach.uuid, LIMIT_UUID);
    wire_read_string(r, m->attach.name, LIMIT_NAME);
    wire_read_bytes(r, m->attach.token, LIMIT_TOKEN);
}

static void read_join(WireReader *r, PeerMessage *m)
{
    wire_read_bytes(r, m->join.secret, LIMIT_TOKEN);
    m->join.kind = wire_read_count(r, PEER_CHANNEL_RELAY);
    m->join.index = wire_read_u32(r);
}

static void read_body(WireReader *r, PeerMessage *m)
{
    switch (m->type) {
    case PEER_START:
    case PEER_STARTED:
        m->start.magic = wire_read_u64(r);
        m->start.tls = wire_read_u8(r) != 0;
        break;
    case PEER_HELLO:
        read_hello(r, m);
        break;
    case PEER_INVITE:
        read_invite(r, m);
        break;
    case PEER_ASK:
        read_ask(r, m);
        break;
    case PEER_ASKED:
        read_asked(r, m);
        break;
    case PEER_INVITED:
    case PEER_JOINED:
    case PEER_FENCED:
    case PEER_BYE:
        read_status(r, m);
        break;
    case PEER_ATTACH:
        read_attach(r, m);
        break;
    case PEER_ATTACHED:
        read_attached(r, m);
        break;
    case PEER_JOIN:
        read_join(r, m);
        break;
    case PEER_SEALED:
        m->sealed.seal = wire_read_u64(r);
        break;
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
        read_placement(r, &m->placement);
        break;
    case PEER_RELAY:
    case PEER_RUNNING:
    case PEER_CANCEL:
    case PEER_RELEASED:
    case PEER_PING:
    case PEER_PONG:
    case PEER_FORECAST_REQUEST:
    case PEER_SEAL:
    case PEER_AWAITED:
        break;
    case PEER_RDMA_CONNECT:
    case PEER_RDMA_CONNECTED:
    case PEER_KEYS_REQUEST:
    case PEER_KEYS:
    case PEER_KEYS_DONE:
        peer_read_rdma(r, m);
        break;
    case PEER_DATA:
    case PEER_UNKNOWN:
    default:
        m->type = PEER_UNKNOWN;
        r->left = 0;
    }
}

int peer_message_decode(const PeerHeader *header, const void *body, PeerMessage *ret_message)
{
    WireReader r = {.data = body, .left = header->length};

    ret_message->type = header->type;
    ret_message->session = header->session;
    ret_message->generation = header->generation;
    ret_message->cookie = header->cookie;
    read_body(&r, ret_message);
    return wire_read_complete(&r) ? 0 : -EPROTO;
}

const char *peer_error_name(PeerErrorCode code)
{
    static const char *const names[] = {
        "none",     "protocol", "version", "unknown VM",   "token",   "busy",        "regions",
        "unsealed", "fenced",   "range",   "input/output", "refused", "client gone",
    };

    return (unsigned)code <= PEER_ERROR_LAST ? names[code] : "unknown";
}
