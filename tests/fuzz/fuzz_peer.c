/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Decodes a stream of frames from another daemon, the way its receivers do: header, then the fixed
 * body of DATA, ZERO and ERROR, or the whole message.  What decodes encodes to the same bytes.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/peer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool condition)
{
    if (!condition)
        abort();
}

static void check_placement(const PeerHeader *header, const uint8_t *body)
{
    PeerPlacement placement;

    if (peer_placement_decode(header, body, &placement))
        return;
    check(placement.count > 0 && placement.first + placement.count > placement.first);
    check(placement.code <= PEER_ERROR_LAST);
    if (header->type == PEER_DATA)
        check((header->length - PEER_PLACEMENT_SIZE) % placement.count == 0);
    else
        check(header->length == PEER_PLACEMENT_SIZE);
}

static void check_map(const PeerMessage *message)
{
    uint64_t end = 0;

    check(message->map.region < LIMIT_REGIONS && message->map.n <= PEER_MAP_EXTENTS);
    for (uint32_t i = 0; i < message->map.n; i++) {
        const PeerExtent *extent = &message->map.extents[i];
        check(extent->page >= end && extent->count > 0);
        end = extent->page + extent->count;
        check(end > extent->page && end <= message->map.next);
    }
}

static void check_keys(const PeerMessage *message)
{
    const PeerSpan *span = &message->keys.span;
    uint64_t end = span->page;

    check(message->keys.region < LIMIT_REGIONS && message->keys.state <= PEER_KEYS_LAST);
    if (message->keys.state != PEER_KEYS_SPAN) {
        check(span->count == 0 && message->keys.n == 0);
        return;
    }
    check(message->keys.seal != 0 && message->keys.n <= PEER_MAP_EXTENTS);
    check(span->count > 0 && span->count * LIMIT_PAGE_SIZE_MIN <= PEER_SPAN_MAX);
    check(span->page + span->count > span->page && span->page + span->count <= message->keys.next);
    for (uint32_t i = 0; i < message->keys.n; i++) {
        const PeerExtent *extent = &message->keys.zeroes[i];
        check(extent->page >= end && extent->count > 0);
        end = extent->page + extent->count;
        check(end > extent->page && end <= span->page + span->count);
    }
}

static void check_end(const PeerRdmaEnd *end)
{
    check(end->qpn < 1 << 24 && end->psn < 1 << 24);
    check(end->mtu >= 1 && end->mtu <= 5 && end->reads > 0);
}

static void check_message(const PeerHeader *header, const uint8_t *frame, size_t length)
{
    static PeerMessage message;
    static uint8_t again[PEER_HEADER_SIZE + PEER_CONTROL_MAX];

    if (peer_message_decode(header, frame + PEER_HEADER_SIZE, &message) ||
        message.type == PEER_UNKNOWN)
        return;
    if (message.type == PEER_MAP)
        check_map(&message);
    if (message.type == PEER_KEYS)
        check_keys(&message);
    if (message.type == PEER_RDMA_CONNECT)
        check_end(&message.rdma_connect.end);
    if (message.type == PEER_RDMA_CONNECTED && message.rdma_connected.code == PEER_ERROR_NONE)
        check_end(&message.rdma_connected.end);
    check(peer_message_encode(&message, again, sizeof again) == (ssize_t)length);
    if (message.type == PEER_START || message.type == PEER_STARTED)
        length--; /* a flag: any value but 0 is true */
    check(memcmp(frame, again, length) == 0);
}

/* One frame; the bytes it took, or 0 at the end of what can be read. */
static size_t take_frame(const uint8_t *data, size_t size)
{
    PeerHeader header;
    size_t length;

    if (size < PEER_HEADER_SIZE || peer_header_decode(data, &header))
        return 0;
    length = PEER_HEADER_SIZE + header.length;
    if (header.length >= PEER_PLACEMENT_SIZE && size >= PEER_HEADER_SIZE + PEER_PLACEMENT_SIZE)
        check_placement(&header, data + PEER_HEADER_SIZE);
    if (length > size)
        return 0;
    if (header.type != PEER_DATA)
        check_message(&header, data, length);
    return length;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t taken;

    while ((taken = take_frame(data, size)) > 0) {
        data += taken;
        size -= taken;
    }
    return 0;
}
