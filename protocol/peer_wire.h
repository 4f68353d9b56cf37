/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the two halves of the peer protocol's codec share: peer.c, and peer_rdma.c for the bodies of the
 * frames that bring RDMA about.  Nobody else includes it.
 */
#ifndef POSTCOPYD_PROTOCOL_PEER_WIRE_H
#define POSTCOPYD_PROTOCOL_PEER_WIRE_H

#include "protocol/peer.h"
#include "protocol/wire.h"

/* A count and so many extents; more than PEER_MAP_EXTENTS fail the writer. */
void peer_write_extents(WireWriter *w, const PeerExtent *extents, uint32_t n);

/*
 * The same into ret_extents[PEER_MAP_EXTENTS].  Their receiver walks them blindly, so they begin at page
 * first or later, ascend, do not touch backwards and are not empty.  Where the last one ends.
 */
uint64_t peer_read_extents(WireReader *r, PeerExtent *ret_extents, uint32_t *ret_n, uint64_t first);

/* The body of RDMA_CONNECT, RDMA_CONNECTED, KEYS_REQUEST, KEYS or KEYS_DONE, as m->type says. */
void peer_write_rdma(WireWriter *w, const PeerMessage *m);
void peer_read_rdma(WireReader *r, PeerMessage *m);

#endif
