/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the parts of the peer protocol's codec share: peer.c has the frames, and their bodies are in
 *
 *   peer_control.c  who speaks, of which VM, and what becomes of it
 *   peer_pages.c    which pages there are, which are wanted, and which come
 *   peer_rdma.c     what brings RDMA about
 *
 * Each fails the writer or the reader for a type that is not its own.  Nobody else includes it.
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

/* The items of a READ; more than PEER_READ_ITEMS fail the writer. */
void peer_write_items(WireWriter *w, const PeerReadItem *items, uint32_t n);

/* What DATA begins with, and ZERO and ERROR are. */
void peer_read_placement(WireReader *r, PeerPlacement *ret_placement);

/*
 * START, STARTED, HELLO, INVITE, INVITED, ASK, ASKED, ATTACH, ATTACHED, JOIN, JOINED, SEALED, FENCED, BYE.
 */
void peer_write_control(WireWriter *w, const PeerMessage *m);
void peer_read_control(WireReader *r, PeerMessage *m);

/* PROGRESS, MAP_REQUEST, MAP, FORECAST, READ, ZERO, ERROR; DATA, which is only written. */
void peer_write_pages(WireWriter *w, const PeerMessage *m);
void peer_read_pages(WireReader *r, PeerMessage *m);

/* The body of RDMA_CONNECT, RDMA_CONNECTED, KEYS_REQUEST, KEYS or KEYS_DONE, as m->type says. */
void peer_write_rdma(WireWriter *w, const PeerMessage *m);
void peer_read_rdma(WireReader *r, PeerMessage *m);

#endif
