/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How a connection to the source begins: connect, greet, attach the control connection, join the others.
 * These block, until link_stop() at most.
 */
#ifndef POSTCOPYD_FAULT_LINK_ATTACH_H
#define POSTCOPYD_FAULT_LINK_ATTACH_H

#include "daemon/fault/link.h"

/* The control connection. 0, or negative errno with a line in ret_text. Link thread. */
int link_attach(Link *link, char *ret_text);

/*
 * A joined connection (the caller's), or negative errno with a line in ret_text.  ret_lane: where its lane
 * goes, the caller's too, if this connection is to have one, else NULL; itself NULL for a relay.
 */
int link_join(Link *link, const LinkLease *lease, PeerMessage *message, PeerChannelKind kind,
              uint32_t index, RdmaLane **ret_lane, char *ret_text);

/* The link's: after how long a peer that says nothing is dead, and what is said on the way. */
unsigned link_dead_ms(const Link *link);
int link_take_message(Link *link);
void link_take_fence(Link *link, const char *text);

#endif
