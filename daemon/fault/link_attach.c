/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/fault/link_attach.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "daemon/core/clock.h"
#include "daemon/fault/import.h"
#include "daemon/fault/link_rdma.h"

/* The first attach tells the source's order of regions; later ones must tell the same. */
static int map_regions(Link *link, const PeerRegions *theirs, char *ret_text)
{
    Import *import = link->import;
    uint32_t map[LIMIT_REGIONS];
    int error = import->config.assist ? region_set_map_part(&import->regions, theirs, map, ret_text)
                                      : region_set_map(&import->regions, theirs, map, ret_text);
    size_t size = import->regions.n * sizeof map[0];

    if (error)
        return error;
    if (link->attached_once && memcmp(map, import->wire_regions, size) != 0) {
        snprintf(ret_text, LIMIT_TEXT + 1, "the source changed the order of its regions");
        return -EPROTO;
    }
    if (!link->attached_once)
        memcpy(import->wire_regions, map, size);
    return 0;
}

/* What came for an answer; the source's own words if it said good-bye instead. */
static int check_answer(const PeerMessage *m, PeerMessageType type, int error, const char *what,
                        char *ret_text)
{
    if (!error && m->type == type)
        return 0;
    if (!error && m->type == PEER_BYE) {
        snprintf(ret_text, LIMIT_TEXT + 1, "%.1000s", m->status.text);
        return m->status.code == PEER_ERROR_TOKEN ? -ENOKEY : -ECONNREFUSED;
    }
    if (!error)
        error = -EPROTO;
    snprintf(ret_text, LIMIT_TEXT + 1, "%s: %s", what, strerror(-error));
    return error;
}

static int attach(Link *link, char *ret_text)
{
    Import *import = link->import;
    PeerMessage *m = link->message;
    int error;

    memset(m, 0, sizeof *m);
    m->type = PEER_ATTACH;
    memcpy(m->attach.uuid, import->uuid, sizeof m->attach.uuid);
    memcpy(m->attach.name, import->name, sizeof m->attach.name);
    memcpy(m->attach.token, import->token, sizeof m->attach.token);
    error = peer_socket_send(link->control, m);
    if (!error)
        error = peer_socket_receive(link->control, m, PEER_HANDSHAKE_MS);
    error = check_answer(m, PEER_ATTACHED, error, "attaching", ret_text);
    if (error)
        return error;
    if (m->attached.code == PEER_ERROR_FENCED)
        link_take_fence(link, m->attached.text);
    if (m->attached.code != PEER_ERROR_NONE) {
        snprintf(ret_text, LIMIT_TEXT + 1, "%s", m->attached.text);
        return -ECONNREFUSED;
    }
    error = map_regions(link, &m->attached.regions, ret_text);
    if (error)
        return error;
    link->lease.session = m->session;
    memcpy(link->lease.secret, m->attached.secret, sizeof link->lease.secret);
    link->seal = m->attached.seal;
    return 0;
}

/* So that the destination allocates what it will need before anybody waits for it. */
static int ask_forecast(Link *link)
{
    PeerMessage *m = link->message;
    uint64_t until = clock_ns() + link_dead_ms(link) * UINT64_C(1000000);
    int error;

    memset(m, 0, sizeof *m);
    m->type = PEER_FORECAST_REQUEST;
    m->session = link->lease.session;
    error = peer_socket_send(link->control, m);
    while (!error) {
        /* A source that talks without end must not keep whoever joins this thread. */
        if (atomic_load(&link->stop) || clock_ns() > until)
            return -ETIMEDOUT;
        error = peer_socket_receive(link->control, m, (int)link_dead_ms(link));
        if (!error && m->type == PEER_FORECAST) {
            import_take_forecast(link->import, m);
            return 0;
        }
        if (!error)
            error = link_take_message(link);
    }
    return error;
}

int link_attach(Link *link, char *ret_text)
{
    int error;

    link->control = peer_socket_connect(link->import->source, (int)link_dead_ms(link),
                                        link->stop_fd, link->message, &error, ret_text);
    if (!link->control)
        return error;
    error = attach(link, ret_text);
    if (!error && !link->attached_once && !link->import->adopted && !link->import->config.assist) {
        error = ask_forecast(link);
        if (error)
            snprintf(ret_text, LIMIT_TEXT + 1, "asking for its memory's extent: %s",
                     strerror(-error));
    }
    if (!error)
        error = link_rdma_attached(link, ret_text);
    if (error) {
        peer_socket_free(link->control);
        link->control = NULL;
        return error;
    }
    link->heard_ns = clock_ns();
    link->pinged_ns = link->heard_ns;
    atomic_store(&link->connected, true);
    return 0;
}

int link_join(Link *link, const LinkLease *lease, PeerMessage *message, PeerChannelKind kind,
              uint32_t index, RdmaLane **ret_lane, char *ret_text)
{
    PeerSocket *peer;
    int error;

    if (ret_lane)
        *ret_lane = NULL;
    peer = peer_socket_connect(link->import->source, (int)link_dead_ms(link), link->stop_fd,
                               message, &error, ret_text);
    if (!peer)
        return error;
    memset(message, 0, sizeof *message);
    message->type = PEER_JOIN;
    message->session = lease->session;
    message->generation = link->import->generation;
    memcpy(message->join.secret, lease->secret, sizeof message->join.secret);
    message->join.kind = kind;
    message->join.index = index;
    error = peer_socket_send(peer, message);
    if (!error)
        error = peer_socket_receive(peer, message, PEER_HANDSHAKE_MS);
    error = check_answer(message, PEER_JOINED, error, "joining a channel", ret_text);
    if (!error && ret_lane)
        error =
            link_rdma_lane(link, peer, message, kind == PEER_CHANNEL_URGENT, ret_lane, ret_text);
    if (!error)
        return peer_socket_steal(peer);
    peer_socket_free(peer);
    return error;
}
