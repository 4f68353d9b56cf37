/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How the link hands a joined connection to the data thread that owns the channel, and takes it back.
 * Guarded by a lock that is never taken on the way of a fault: only when a connection comes or goes.
 */
#ifndef POSTCOPYD_FAULT_OFFER_H
#define POSTCOPYD_FAULT_OFFER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "daemon/core/ring.h"
#include "daemon/transport/channel.h"

typedef struct Offer {
    _Atomic bool news; /* something below was changed for the channel's thread */
    pthread_mutex_t lock;
    Ring *ring; /* of the channel's thread */
    int fd;     /* joined, waiting to be taken; -1: none */
    uint32_t session;
    uint32_t generation;
    RdmaLane *lane; /* goes with fd; NULL: none */
    bool drop;      /* the link wants the connection back down */
    bool attached;  /* the channel has it */
} Offer;

void offer_init(Offer *offer, Ring *ring);
void offer_deinit(Offer *offer); /* closes a connection nobody took */

/* Link: here is a connection, and a connected lane that belongs to it or NULL (both taken). */
void offer_put(Offer *offer, int fd, uint32_t session, uint32_t generation, RdmaLane *lane);

/* Link: the connection has to go. */
void offer_revoke(Offer *offer);

/* Link: true once the channel's thread has none any more. */
bool offer_is_idle(Offer *offer);

/* The channel's thread, after a wake-up: attaches or drops as was asked. */
void offer_serve(Offer *offer, Channel *channel);

/* The channel's thread: its connection is gone. */
void offer_lost(Offer *offer);

#endif
