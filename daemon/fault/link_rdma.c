/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/fault/link_rdma.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "daemon/core/clock.h"
#include "daemon/core/log.h"
#include "daemon/fault/import.h"
#include "daemon/fault/import_transport.h"
#include "daemon/transport/address.h"
#include "daemon/transport/networks.h"

enum {
    LANE_DEPTH_URGENT = 128,
    LANE_DEPTH_BULK = 256,
    LANE_STAGING_URGENT = 2 << 20, /* at least */
    LANE_STAGING_BULK = 4 << 20,
    LANE_AROUNDS = 8, /* faults' blocks, half of them at once */
    LANE_PAGES = 4,   /* the same of huge pages */
    STALL_LOOK_MS = 500,
    LANE_EXCHANGE_MS = 4000, /* it asks its network where we are: a second or so */
};

_Static_assert(LANE_STAGING_BULK >= 2 * PEER_READ_MAX, "a lane stages at most half of it at once");

/* For reports.  True: it differs from what was noted before. */
static bool note(Link *link, bool active, const char *name, const char *reason)
{
    LinkRdma *rdma = &link->rdma;
    bool news;

    pthread_mutex_lock(&rdma->lock);
    news = strcmp(rdma->reason, reason) != 0 || strcmp(rdma->name, name) != 0;
    rdma->active = active;
    snprintf(rdma->name, sizeof rdma->name, "%s", name);
    snprintf(rdma->reason, sizeof rdma->reason, "%s", reason);
    pthread_mutex_unlock(&rdma->lock);
    return news;
}

bool link_rdma_is_possible(const Import *import)
{
    return import->config.transport != IMPORT_TRANSPORT_TCP && !import->config.assist &&
           import->config.rdma_budget && !networks_is_empty(import->config.rdma_networks);
}

void link_rdma_init(Link *link)
{
    LinkRdma *rdma = &link->rdma;

    *rdma = (LinkRdma){0};
    pthread_mutex_init(&rdma->lock, NULL);
    rdma_policy_init(&rdma->policy, link->import->config.transport == IMPORT_TRANSPORT_RDMA);
}

void link_rdma_deinit(Link *link)
{
    LinkRdma *rdma = &link->rdma;

    rdma_device_unref(rdma->device);
    rdma->device = NULL;
    /* Of a connection that never broke the channels had the lanes until now, and reports go on. */
    atomic_store(&rdma->lanes, 0);
    atomic_store(&rdma->staged, 0);
}

/* --- may this connection have it? ---------------------------------------------------------- */

static bool peer_is_trusted(const Link *link, char *ret_host, size_t size)
{
    return address_peer_host(link->control->fd, ret_host, size) == 0 &&
           networks_match(link->import->config.rdma_networks, ret_host);
}

/* NULL with a line in ret_reason, which is empty if nobody asked for RDMA. */
static RdmaDevice *open_device(Link *link, char *ret_reason)
{
    const ImportConfig *config = &link->import->config;
    char host[LIMIT_ADDRESS + 1] = "";

    ret_reason[0] = '\0';
    if (config->transport == IMPORT_TRANSPORT_TCP && !config->rdma_overruled)
        return NULL;
    if (config->transport == IMPORT_TRANSPORT_TCP)
        snprintf(ret_reason, LIMIT_TEXT + 1,
                 "the source is configured for TCP, or the driver asked for it, which counts "
                 "before this host's transport = rdma");
    else if (config->assist)
        snprintf(ret_reason, LIMIT_TEXT + 1, "assist mode has no RDMA");
    else if (!link_rdma_is_possible(link->import))
        snprintf(ret_reason, LIMIT_TEXT + 1, "[rdma] networks names no network for RDMA");
    else if (!peer_is_trusted(link, host, sizeof host))
        snprintf(ret_reason, LIMIT_TEXT + 1,
                 "the source's address %s is in none of [rdma] networks", host);
    else if (!(link->control->features & PEER_FEATURE_RDMA))
        snprintf(ret_reason, LIMIT_TEXT + 1, "the source's daemon knows no RDMA");
    else if (!rdma_policy_may_try(&link->rdma.policy, clock_ns()))
        snprintf(ret_reason, LIMIT_TEXT + 1,
                 "RDMA failed again and again; it is tried again at a reconnect in a minute");
    else
        return rdma_device_open(link->control->fd, config->rdma_budget, ret_reason);
    return NULL;
}

/*
 * Not on this connection.  An import that may choose goes on by TCP, and so does one that insists while it
 * rests.  Else the connection is of no use: before the gate the guest may as well stay where it is, so a
 * migration that had begun is cancelled; behind it the import tries again.
 */
static int give_up(Link *link, bool must, const char *reason, char *ret_text)
{
    LinkRdma *rdma = &link->rdma;
    Import *import = link->import;
    bool news;

    rdma->failed = rdma->failed || must;
    rdma_device_unref(rdma->device);
    rdma->device = NULL;
    news = note(link, false, "", reason) && reason[0];
    if (!must) {
        if (news && rdma->policy.insists)
            log_warning("%s: pages come by TCP, although RDMA was asked for: %s", import->name,
                        reason);
        else if (news && (link_rdma_is_possible(import) || import->config.rdma_overruled))
            /* else it is not set up */
            log_info("%s: pages come by TCP: %s", import->name, reason);
        return 0;
    }
    snprintf(ret_text, LIMIT_TEXT + 1, "RDMA cannot be used: %.900s", reason);
    if (!import_gate_is_open(import) && !import->adopted && link->attached_once)
        import->notify(import->owner, import, IMPORT_CANCELLED, ret_text);
    else if (import_state(import) == CLIENT_STATE_PAUSED)
        import_set_state(import, CLIENT_STATE_PAUSED, ret_text);
    return -EOPNOTSUPP;
}

int link_rdma_attached(Link *link, char *ret_text)
{
    LinkRdma *rdma = &link->rdma;
    char reason[LIMIT_TEXT + 1];
    int error;

    rdma->failed = false;
    rdma->staging = 0;
    rdma->device = open_device(link, reason);
    if (rdma->device)
        return 0;
    error = give_up(link, rdma_policy_must(&rdma->policy), reason, ret_text);
    if (error)
        link_rdma_down(link); /* counts it */
    return error;
}

bool link_rdma_is_on(const Link *link)
{
    return link->rdma.device != NULL;
}

/* --- lanes --------------------------------------------------------------------------------- */

static size_t at_least(size_t size, size_t least)
{
    return size > least ? size : least;
}

/*
 * A page that is wanted fits in however large it is, and so does what is fetched around it: half of this can go at
 * once, and single pages should not have to wait for the neighbours of others.
 */
static size_t staging_of(const Import *import, bool urgent)
{
    size_t size = urgent ? at_least(LANE_STAGING_URGENT, LANE_AROUNDS * import->config.around)
                         : LANE_STAGING_BULK;

    for (uint32_t i = 0; i < import->regions.n; i++)
        size = at_least(size, (urgent ? LANE_PAGES : 2) * import->page_sizes[i]);
    return size;
}

/* What the source says to our end.  0, or negative errno: the connection is of no use. */
static int exchange(Link *link, PeerSocket *peer, PeerMessage *m, const RdmaLane *lane)
{
    int error;

    memset(m, 0, sizeof *m);
    m->type = PEER_RDMA_CONNECT;
    m->session = link->lease.session;
    m->generation = link->import->generation;
    rdma_pair_describe(rdma_lane_pair(lane), &m->rdma_connect.end);
    error = peer_socket_send(peer, m);
    if (!error)
        error = peer_socket_receive(peer, m, LANE_EXCHANGE_MS);
    if (!error && m->type != PEER_RDMA_CONNECTED)
        error = -EPROTO;
    return error;
}

/*
 * This host has no room for it, because of other VMs often.  A guest that can run nowhere else does not wait
 * until they are done.
 */
static int no_lane(Link *link, const char *reason, char *ret_text)
{
    bool must = rdma_policy_must(&link->rdma.policy) && !import_gate_is_open(link->import);

    return give_up(link, must, reason, ret_text);
}

/* Joins the two ends.  0; 1: RDMA cannot be used, and *ret_failed if that is a failure of it; or negative errno. */
static int connect_lane(Link *link, PeerSocket *peer, PeerMessage *scratch, RdmaLane *lane,
                        bool *ret_failed, char *ret_text)
{
    int error = exchange(link, peer, scratch, lane);

    *ret_failed = false;
    if (error) {
        /* Whatever it is, it came of asking for RDMA: without it this channel would do. */
        link->rdma.failed = !atomic_load(&link->stop);
        snprintf(ret_text, LIMIT_TEXT + 1, "setting up RDMA: %s", strerror(-error));
        return error;
    }
    if (scratch->rdma_connected.code != PEER_ERROR_NONE) {
        snprintf(ret_text, LIMIT_TEXT + 1, "the source refused it: %.900s",
                 scratch->rdma_connected.text);
        return 1;
    }
    *ret_failed =
        rdma_pair_connect(rdma_lane_pair(lane), &scratch->rdma_connected.end, ret_text) != 0;
    return *ret_failed;
}

int link_rdma_lane(Link *link, PeerSocket *peer, PeerMessage *scratch, bool urgent,
                   RdmaLane **ret_lane, char *ret_text)
{
    size_t staging = staging_of(link->import, urgent);
    char reason[LIMIT_TEXT + 1] = "";
    RdmaLane *lane;
    bool failed;
    int error;

    *ret_lane = NULL;
    if (!link_rdma_is_on(link))
        return 0;
    lane = rdma_lane_new(link->rdma.device, staging, urgent ? LANE_DEPTH_URGENT : LANE_DEPTH_BULK,
                         reason);
    if (!lane)
        return no_lane(link, reason, ret_text);
    error = connect_lane(link, peer, scratch, lane, &failed, reason);
    if (error) {
        rdma_lane_free(lane);
        link->rdma.failed = link->rdma.failed || failed;
        if (error > 0)
            return give_up(link, rdma_policy_must(&link->rdma.policy), reason, ret_text);
        snprintf(ret_text, LIMIT_TEXT + 1, "%s", reason);
        return error;
    }
    link->rdma.staging += rdma_lane_pinned(lane);
    *ret_lane = lane;
    return 0;
}

/* --- a connection's life ------------------------------------------------------------------- */

typedef struct ChannelSums {
    uint64_t bytes, failures;
} ChannelSums;

static void add_channel(ChannelSums *sums, const Channel *channel)
{
    sums->bytes += atomic_load_explicit(&channel->rdma_bytes, memory_order_relaxed);
    sums->failures += atomic_load_explicit(&channel->rdma_failures, memory_order_relaxed);
}

static ChannelSums add_up(const Link *link)
{
    const Import *import = link->import;
    ChannelSums sums = {0};

    if (!atomic_load(&link->armed))
        return sums;
    for (unsigned i = 0; i < import->n_resolvers; i++)
        add_channel(&sums, &import->resolvers[i].channel);
    for (unsigned i = 0; i < import->stream.n_channels; i++)
        add_channel(&sums, &import->stream.channels[i].channel);
    return sums;
}

void link_rdma_joined(Link *link, unsigned n)
{
    LinkRdma *rdma = &link->rdma;

    if (!link_rdma_is_on(link))
        return;
    landing_begin(&link->import->landing, rdma->device);
    rdma->begun = true;
    rdma->looked_ns = clock_ns();
    atomic_store(&rdma->lanes, n);
    atomic_store(&rdma->staged, rdma->staging);
    rdma_policy_begins(&rdma->policy, clock_ns(), add_up(link).bytes);
    if (note(link, true, rdma_device_name(rdma->device), ""))
        log_info("%s: pages come by RDMA (%s)", link->import->name, rdma_device_name(rdma->device));
}

/*
 * A device that was taken away, or has hung up, may never complete a READ, and its channel's thread sleeps
 * until it does.  So the link looks, at no cost to the faults.
 */
static bool has_stalled(Link *link)
{
    Import *import = link->import;
    bool stalled = false;

    for (unsigned i = 0; i < import->n_resolvers; i++)
        stalled = channel_has_stalled(&import->resolvers[i].channel) || stalled;
    for (unsigned i = 0; i < import->stream.n_channels; i++)
        stalled = channel_has_stalled(&import->stream.channels[i].channel) || stalled;
    return stalled;
}

void link_rdma_goes_on(Link *link)
{
    LinkRdma *rdma = &link->rdma;
    uint64_t now = clock_ns();

    if (rdma->policy.up)
        rdma_policy_goes_on(&rdma->policy, now, add_up(link).bytes);
    if (!rdma->begun || now - rdma->looked_ns < UINT64_C(1000000) * STALL_LOOK_MS)
        return;
    rdma->looked_ns = now;
    if (has_stalled(link)) {
        rdma->failed = true;
        link_channel_down(link, "RDMA: READs do not complete");
    }
}

/* Each connection counts once, however many of its channels say that their lanes failed. */
void link_rdma_down(Link *link)
{
    LinkRdma *rdma = &link->rdma;
    ChannelSums sums = add_up(link);
    bool failed = rdma->failed || sums.failures != rdma->failures_seen;

    rdma->failures_seen = sums.failures;
    if (failed)
        atomic_fetch_add(&rdma->failures, 1);
    if (rdma_policy_ends(&rdma->policy, clock_ns(), sums.bytes, failed,
                         import_gate_is_open(link->import)))
        log_warning("%s: RDMA failed again and again: it goes on by TCP for a minute at least",
                    link->import->name);
    rdma->failed = false;
    if (rdma->begun) {
        keys_forget(&link->import->keys);
        landing_end(&link->import->landing);
        rdma->begun = false;
    }
    atomic_store(&rdma->lanes, 0);
    atomic_store(&rdma->staged, 0);
    rdma_device_unref(rdma->device);
    rdma->device = NULL;
}

unsigned link_rdma_pause_ms(const Link *link)
{
    return rdma_policy_pause_ms(&link->rdma.policy);
}

void link_rdma_report(Link *link, ImportTransportReport *ret_report)
{
    LinkRdma *rdma = &link->rdma;

    pthread_mutex_lock(&rdma->lock);
    ret_report->kind = rdma->active ? "rdma" : "tcp";
    snprintf(ret_report->device, sizeof ret_report->device, "%s", rdma->name);
    memcpy(ret_report->reason, rdma->reason, sizeof ret_report->reason);
    pthread_mutex_unlock(&rdma->lock);
    ret_report->pairs = atomic_load(&rdma->lanes);
    ret_report->pinned_bytes = atomic_load(&rdma->staged);
    ret_report->failures = atomic_load(&rdma->failures);
}
