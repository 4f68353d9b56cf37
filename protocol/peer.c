/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "protocol/peer.h"

#include <errno.h>

#include "protocol/peer_wire.h"

/* Who knows the body of a frame. */
typedef enum Body {
    BODY_UNKNOWN,
    BODY_NONE, /* nothing but its header */
    BODY_CONTROL,
    BODY_PAGES,
    BODY_RDMA,
} Body;

static Body body_of(PeerMessageType type)
{
    switch (type) {
    case PEER_START:
    case PEER_STARTED:
    case PEER_HELLO:
    case PEER_INVITE:
    case PEER_ASK:
    case PEER_ASKED:
    case PEER_INVITED:
    case PEER_JOINED:
    case PEER_FENCED:
    case PEER_BYE:
    case PEER_ATTACH:
    case PEER_ATTACHED:
    case PEER_JOIN:
    case PEER_SEALED:
        return BODY_CONTROL;
    case PEER_PROGRESS:
    case PEER_MAP_REQUEST:
    case PEER_MAP:
    case PEER_FORECAST:
    case PEER_READ:
    case PEER_DATA:
    case PEER_ZERO:
    case PEER_ERROR:
        return BODY_PAGES;
    case PEER_RDMA_CONNECT:
    case PEER_RDMA_CONNECTED:
    case PEER_KEYS_REQUEST:
    case PEER_KEYS:
    case PEER_KEYS_DONE:
        return BODY_RDMA;
    case PEER_RELAY:
    case PEER_RUNNING:
    case PEER_CANCEL:
    case PEER_RELEASED:
    case PEER_PING:
    case PEER_PONG:
    case PEER_FORECAST_REQUEST:
    case PEER_SEAL:
    case PEER_AWAITED:
        return BODY_NONE;
    case PEER_UNKNOWN:
    default:
        return BODY_UNKNOWN;
    }
}

static void write_body(WireWriter *w, const PeerMessage *m)
{
    switch (body_of(m->type)) {
    case BODY_CONTROL:
        peer_write_control(w, m);
        break;
    case BODY_PAGES:
        peer_write_pages(w, m);
        break;
    case BODY_RDMA:
        peer_write_rdma(w, m);
        break;
    case BODY_NONE:
        break;
    case BODY_UNKNOWN:
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

    peer_write_items(&body, items, n);
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
    peer_read_placement(&r, ret_placement);
    if (!wire_read_complete(&r) || ret_placement->count == 0)
        return -EPROTO;
    if (header->type != PEER_DATA)
        return data == 0 ? 0 : -EPROTO;
    return data > 0 && data % ret_placement->count == 0 ? 0 : -EPROTO;
}

/* What a DATA has after its placement is not for a message: peer_placement_decode(). */
static void read_body(WireReader *r, PeerMessage *m)
{
    switch (m->type == PEER_DATA ? BODY_UNKNOWN : body_of(m->type)) {
    case BODY_CONTROL:
        peer_read_control(r, m);
        break;
    case BODY_PAGES:
        peer_read_pages(r, m);
        break;
    case BODY_RDMA:
        peer_read_rdma(r, m);
        break;
    case BODY_NONE:
        break;
    case BODY_UNKNOWN:
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
