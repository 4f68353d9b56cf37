/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/fault/offer.h"

#include <unistd.h>

void offer_init(Offer *offer, Ring *ring)
{
    *offer = (Offer){.ring = ring, .fd = -1};
    pthread_mutex_init(&offer->lock, NULL);
}

void offer_deinit(Offer *offer)
{
    if (offer->fd >= 0)
        close(offer->fd);
    rdma_lane_free(offer->lane);
    offer->fd = -1;
    offer->lane = NULL;
    pthread_mutex_destroy(&offer->lock);
}

void offer_put(Offer *offer, int fd, uint32_t session, uint32_t generation, RdmaLane *lane)
{
    pthread_mutex_lock(&offer->lock);
    offer->fd = fd;
    offer->session = session;
    offer->generation = generation;
    offer->lane = lane;
    offer->drop = false;
    atomic_store(&offer->news, true);
    pthread_mutex_unlock(&offer->lock);
    ring_wake(offer->ring);
}

void offer_revoke(Offer *offer)
{
    RdmaLane *lane;

    pthread_mutex_lock(&offer->lock);
    if (offer->fd >= 0)
        close(offer->fd);
    lane = offer->lane;
    offer->lane = NULL;
    offer->fd = -1;
    offer->drop = true;
    atomic_store(&offer->news, true);
    pthread_mutex_unlock(&offer->lock);
    rdma_lane_free(lane); /* takes a while */
    ring_wake(offer->ring);
}

bool offer_is_idle(Offer *offer)
{
    bool idle;

    pthread_mutex_lock(&offer->lock);
    idle = !offer->attached && offer->fd < 0;
    pthread_mutex_unlock(&offer->lock);
    return idle;
}

void offer_serve(Offer *offer, Channel *channel)
{
    RdmaLane *lane = NULL;
    bool drop, attach;
    int fd;

    if (!atomic_load(&offer->news))
        return; /* woken for something else: no lock */
    pthread_mutex_lock(&offer->lock);
    drop = offer->drop;
    offer->drop = false;
    attach = offer->fd >= 0 && channel->fd < 0;
    fd = attach ? offer->fd : -1;
    if (attach) {
        lane = offer->lane;
        offer->lane = NULL;
        offer->fd = -1;
        offer->attached = true;
    }
    atomic_store(&offer->news, offer->fd >= 0);
    pthread_mutex_unlock(&offer->lock);
    if (drop)
        channel_drop(channel, "the link was lost");
    if (attach)
        channel_attach(channel, fd, offer->session, offer->generation, lane);
}

void offer_lost(Offer *offer)
{
    pthread_mutex_lock(&offer->lock);
    offer->attached = false;
    pthread_mutex_unlock(&offer->lock);
}
