/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A connection's sending side.  A long answer to an operator is more than a socket takes at once: what
 * is left of it waits here until the socket is writable, and whatever is sent meanwhile waits behind
 * it.  Control thread.
 */
#ifndef POSTCOPYD_CONTROL_OUTBOX_H
#define POSTCOPYD_CONTROL_OUTBOX_H

#include <event2/event.h>
#include <glib.h>

#include "protocol/client.h"

/* Bytes of packets that may wait on one connection; as much as postcopyctl takes for an answer. */
enum { OUTBOX_MAX = 64 << 20 };

typedef struct Outbox {
    int fd;         /* the connection's, non-blocking */
    GQueue packets; /* of Packet, owned, in order */
    gsize bytes;    /* of all packets */
    struct event *writable;
    void (*emptied)(gpointer owner);
    gpointer owner;
} Outbox;

/*
 * emptied(owner) is called from the event loop when nothing waits any more: all was sent, or the
 * connection has ended, which reading from it shows then.
 */
void outbox_init(Outbox *outbox, struct event_base *base, int fd, void (*emptied)(gpointer owner),
                 gpointer owner);

/* Drops what waits, and closes its fds. */
void outbox_deinit(Outbox *outbox);

gboolean outbox_is_empty(const Outbox *outbox);

/*
 * Sends a message with its fds, which stay the caller's; or keeps it, and dups of them, if others wait
 * or if it is a REPLY.  scratch[CLIENT_PACKET_MAX] is used meanwhile.  0; -EAGAIN: the socket does not
 * take it, which nobody but the reader of a long answer is patient with; -ENOBUFS: more would wait than
 * may, and now nothing does (emptied() is not called); or another negative errno.
 */
int outbox_send(Outbox *outbox, const ClientMessage *message, const int *fds, gsize n_fds,
                void *scratch);

#endif
