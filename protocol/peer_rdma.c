/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The bodies of the frames by which two daemons agree on RDMA, and tell what may be read with it.
 */
#include <string.h>

#include "protocol/peer_wire.h"

#define NUMBER_MAX UINT32_C(0xffffff) /* of a queue pair, and of a packet */

enum {
    MTU_LOWEST = 1, /* enum ibv_mtu: 256 bytes */
    MTU_HIGHEST = 5,
};

static void write_end(WireWriter *w, const PeerRdmaEnd *end)
{
    wire_write_bytes(w, end->gid, sizeof end->gid);
    wire_write_u32(w, end->qpn);
    wire_write_u32(w, end->psn);
    wire_write_u16(w, end->lid);
    wire_write_u8(w, end->link_layer);
    wire_write_u8(w, end->mtu);
    wire_write_u8(w, end->reads);
}

static void read_end(WireReader *r, PeerRdmaEnd *ret_end)
{
    wire_read_bytes(r, ret_end->gid, sizeof ret_end->gid);
    ret_end->qpn = wire_read_count(r, NUMBER_MAX);
    ret_end->psn = wire_read_count(r, NUMBER_MAX);
    ret_end->lid = wire_read_u16(r);
    ret_end->link_layer = wire_read_u8(r);
    ret_end->mtu = wire_read_u8(r);
    ret_end->reads = wire_read_u8(r);
    if (ret_end->mtu < MTU_LOWEST || ret_end->mtu > MTU_HIGHEST || ret_end->reads == 0)
        r->failed = true;
}

static void write_keys(WireWriter *w, const PeerMessage *m)
{
    const PeerSpan *span = &m->keys.span;

    wire_write_u32(w, m->keys.region);
    wire_write_u32(w, m->keys.state);
    wire_write_u64(w, m->keys.seal);
    wire_write_u64(w, m->keys.next);
    if (m->keys.state != PEER_KEYS_SPAN)
        return;
    wire_write_u64(w, span->page);
    wire_write_u64(w, span->count);
    wire_write_u64(w, span->address);
    wire_write_u32(w, span->rkey);
    wire_write_u32(w, span->id);
    peer_write_extents(w, m->keys.zeroes, m->keys.n);
}

/* How many pages the region has, and of what size, its user knows; no span is longer than this with any. */
static bool span_fits(const PeerSpan *span, uint64_t next)
{
    uint64_t end;

    return span->count > 0 && span->count <= PEER_SPAN_MAX / LIMIT_PAGE_SIZE_MIN &&
           !__builtin_add_overflow(span->page, span->count, &end) && end <= next &&
           span->address <= UINT64_MAX - PEER_SPAN_MAX;
}

static void read_keys(WireReader *r, PeerMessage *m)
{
    PeerSpan *span = &m->keys.span;
    uint64_t end;

    m->keys.region = wire_read_count(r, LIMIT_REGIONS - 1);
    m->keys.state = wire_read_count(r, PEER_KEYS_LAST);
    m->keys.seal = wire_read_u64(r);
    m->keys.next = wire_read_u64(r);
    memset(span, 0, sizeof *span);
    m->keys.n = 0;
    if (m->keys.state != PEER_KEYS_SPAN)
        return;
    span->page = wire_read_u64(r);
    span->count = wire_read_u64(r);
    span->address = wire_read_u64(r);
    span->rkey = wire_read_u32(r);
    span->id = wire_read_u32(r);
    end = peer_read_extents(r, m->keys.zeroes, &m->keys.n, span->page);
    if (m->keys.seal == 0 || !span_fits(span, m->keys.next) || end > span->page + span->count)
        r->failed = true;
}

void peer_write_rdma(WireWriter *w, const PeerMessage *m)
{
    switch (m->type) {
    case PEER_RDMA_CONNECT:
        write_end(w, &m->rdma_connect.end);
        break;
    case PEER_RDMA_CONNECTED:
        wire_write_u32(w, m->rdma_connected.code);
        wire_write_text(w, m->rdma_connected.text, LIMIT_TEXT);
        if (m->rdma_connected.code == PEER_ERROR_NONE)
            write_end(w, &m->rdma_connected.end);
        break;
    case PEER_KEYS_REQUEST:
        wire_write_u32(w, m->keys_request.region);
        wire_write_u64(w, m->keys_request.page);
        break;
    case PEER_KEYS:
        write_keys(w, m);
        break;
    case PEER_KEYS_DONE:
        wire_write_u32(w, m->keys_done.id);
        break;
    default:
        w->failed = true;
    }
}

void peer_read_rdma(WireReader *r, PeerMessage *m)
{
    switch (m->type) {
    case PEER_RDMA_CONNECT:
        read_end(r, &m->rdma_connect.end);
        break;
    case PEER_RDMA_CONNECTED:
        m->rdma_connected.code = wire_read_count(r, PEER_ERROR_LAST);
        wire_read_string(r, m->rdma_connected.text, LIMIT_TEXT);
        memset(&m->rdma_connected.end, 0, sizeof m->rdma_connected.end);
        if (m->rdma_connected.code == PEER_ERROR_NONE)
            read_end(r, &m->rdma_connected.end);
        break;
    case PEER_KEYS_REQUEST:
        m->keys_request.region = wire_read_count(r, LIMIT_REGIONS - 1);
        m->keys_request.page = wire_read_u64(r);
        break;
    case PEER_KEYS:
        read_keys(r, m);
        break;
    case PEER_KEYS_DONE:
        m->keys_done.id = wire_read_u32(r);
        break;
    default:
        r->failed = true;
    }
}
