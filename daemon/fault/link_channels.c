/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/fault/link_channels.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "daemon/core/clock.h"
#include "daemon/fault/import.h"
#include "daemon/fault/link_attach.h"
#include "daemon/fault/link_rdma.h"
#include "daemon/fault/link_report.h"
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

static void free_joined(Joined *joined, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        rdma_lane_free(joined[i].lane);
        if (joined[i].fd >= 0)
            close(joined[i].fd);
        joined[i] = (Joined){.fd = -1};
    }
}

/*
 * The source's daemon answered just now, and is to know that ours lives: all channels together may take longer than
 * either waits.
 */
static int keep_alive(Link *link)
{
    uint64_t now = clock_ns();

    link->heard_ns = now;
    if (now - link->pinged_ns <= UINT64_C(1000000) * link->import->config.ping_ms)
        return 0;
    link->pinged_ns = now;
    return link_send(link, PEER_PING);
}

static int join_one(Link *link, unsigned index, Joined *ret_joined, char *ret_text)
{
    bool urgent = index < link->import->n_resolvers;
    int error;

    ret_joined->fd = link_join(
        link, &link->lease, link->message, urgent ? PEER_CHANNEL_URGENT : PEER_CHANNEL_BULK,
        urgent ? index : index - link->import->n_resolvers, &ret_joined->lane, ret_text);
    if (ret_joined->fd < 0)
        return ret_joined->fd;
    address_prioritise(ret_joined->fd, urgent);
    error = keep_alive(link);
    if (error) {
        snprintf(ret_text, LIMIT_TEXT + 1, "joining a channel: %s", strerror(-error));
        free_joined(ret_joined, 1);
    }
    return error;
}

/*
 * RDMA was refused after some had their lanes: these are joined anew, since the source would keep its end, and
 * report it, for as long as the connection lasts.
 */
static int join_without_lanes(Link *link, Joined *joined, unsigned n, char *ret_text)
{
    int error = 0;

    for (unsigned i = 0; i < n; i++)
        if (joined[i].lane) {
            rdma_lane_free(joined[i].lane);
            close(joined[i].fd);
            joined[i] = (Joined){.fd = -1};
        }
    for (unsigned i = 0; i < n && !error; i++)
        if (joined[i].fd < 0)
            error = join_one(link, i, &joined[i], ret_text);
    return error;
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
    if (!error && !link_rdma_is_on(link))
        error = join_without_lanes(link, joined, made, ret_text);
    if (error) {
        free_joined(joined, made);
        return error;
    }
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
