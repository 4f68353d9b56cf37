/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/fault/link_channels.h"

#include <unistd.h>

#include "daemon/fault/import.h"
#include "daemon/fault/link_attach.h"
#include "daemon/fault/link_rdma.h"
#include "daemon/transport/address.h"

typedef struct Joined {
    int fd;
    RdmaLane *lane;
} Joined;

static Offer *channel_offer(Import *import, unsigned index)
{
    return index < import->n_resolvers
               ? &import->resolvers[index].offer
               : &import->stream.channels[index - import->n_resolvers].offer;
}

/* The data threads are there for good once the link was told so. */
static unsigned channel_count(Link *link)
{
    Import *import = link->import;

    return atomic_load(&link->armed) ? import->n_resolvers + import->stream.n_channels : 0;
}

static int join_one(Link *link, unsigned index, Joined *ret_joined, char *ret_text)
{
    bool urgent = index < link->import->n_resolvers;

    ret_joined->fd = link_join(
        link, &link->lease, link->message, urgent ? PEER_CHANNEL_URGENT : PEER_CHANNEL_BULK,
        urgent ? index : index - link->import->n_resolvers, &ret_joined->lane, ret_text);
    if (ret_joined->fd < 0)
        return ret_joined->fd;
    address_prioritise(ret_joined->fd, urgent);
    return 0;
}

/* Before the gate opens already: the first faults after it should not wait for handshakes. */
int link_channels_join(Link *link, char *ret_text)
{
    Joined joined[IMPORT_RESOLVERS_MAX + STREAM_CHANNELS_MAX] = {0};
    unsigned n = channel_count(link), made = 0;
    Import *import = link->import;
    int error = 0;

    for (; made < n && !error; made += !error)
        error = join_one(link, made, &joined[made], ret_text);
    for (unsigned i = 0; i < made; i++)
        if (error || !link_rdma_is_on(link)) {
            rdma_lane_free(joined[i].lane);
            joined[i].lane = NULL;
        }
    for (unsigned i = 0; i < made; i++)
        if (error)
            close(joined[i].fd);
    if (error)
        return error;
    link_rdma_joined(link, n);
    for (unsigned i = 0; i < n; i++)
        offer_put(channel_offer(import, i), joined[i].fd, link->lease.session, import->generation,
                  joined[i].lane);
    return 0;
}

void link_channels_revoke(Link *link)
{
    for (unsigned i = 0; i < channel_count(link); i++)
        offer_revoke(channel_offer(link->import, i));
}

bool link_channels_are_idle(Link *link)
{
    for (unsigned i = 0; i < channel_count(link); i++)
        if (!offer_is_idle(channel_offer(link->import, i)))
            return false;
    return true;
}
