/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/transport/channel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/core/clock.h"
#include "daemon/transport/rdma_fetch.h"
#include "daemon/transport/tcp_receive.h"

static void sent(RingWatch *watch, int result);

int channel_init(Channel *channel, Ring *ring, const FetchSink *sink, void *owner,
                 const uint64_t *page_sizes, const uint32_t *wire_regions, uint32_t n_regions,
                 size_t in_size, bool maps)
{
    memset(channel, 0, sizeof *channel);
    channel->ring = ring;
    channel->sink = sink;
    channel->owner = owner;
    channel->page_sizes = page_sizes;
    channel->wire_regions = wire_regions;
    channel->n_regions = n_regions;
    channel->fd = -1;
    channel->receiving = (RingWatch){.done = tcp_received, .owner = channel};
    channel->sending = (RingWatch){.done = sent, .owner = channel};
    channel->completing = (RingWatch){.done = rdma_fetch_ready, .owner = channel};
    channel->in_size = in_size;
    channel->in = mmap(NULL, in_size, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (channel->in == MAP_FAILED) {
        channel->in = NULL;
        return -ENOMEM;
    }
    if (maps && !(channel->scratch = malloc(sizeof *channel->scratch))) {
        channel_deinit(channel);
        return -ENOMEM;
    }
    return 0;
}

void channel_deinit(Channel *channel)
{
    if (channel->lane)
        rdma_fetch_end(channel);
    if (channel->fd >= 0)
        close(channel->fd);
    if (channel->in)
        munmap(channel->in, channel->in_size);
    free(channel->scratch);
    channel->fd = -1;
    channel->in = NULL;
    channel->scratch = NULL;
}

/*
 * Once the kernel holds neither end of the buffers any more, and nobody is at the lane's.  The lane goes
 * before anybody is told: what it was asked for may be asked for again then.
 */
void channel_finish_drop(Channel *channel)
{
    const char *reason = channel->reason;

    if (!reason || channel->fd < 0 || channel->receiving.busy || channel->sending.busy ||
        channel->completing.busy || channel->handing)
        return;
    if (channel->lane)
        rdma_fetch_end(channel);
    ring_hurry(channel->ring); /* its owner may have waited for just that */
    close(channel->fd);
    channel->fd = -1;
    channel->reason = NULL;
    channel->unsent_length = 0;
    channel->map_wanted = channel->keys_wanted = channel->keys_asked = false;
    channel->n_keys_done = 0;
    channel->sink->down(channel->owner, reason);
}

void channel_drop(Channel *channel, const char *reason)
{
    if (channel->fd < 0 || channel->reason)
        return;
    channel->reason = reason;
    atomic_store_explicit(&channel->connected, false, memory_order_relaxed);
    if (channel->lane)
        rdma_fetch_stop(channel);
    shutdown(channel->fd, SHUT_RDWR);
    channel_finish_drop(channel);
}

/* What was sent and has not come is asked again; nothing that came is. */
static void requeue(Channel *channel)
{
    channel->queued = 0;
    for (unsigned i = 0; i < CHANNEL_SLOTS; i++) {
        Fetch *fetch = &channel->slots[i];
        if (fetch->state != FETCH_SENT && fetch->state != FETCH_QUEUED)
            continue;
        fetch->page += fetch->done;
        fetch->count -= fetch->done;
        fetch->done = 0;
        fetch->by_rdma = false;
        fetch->state = FETCH_QUEUED;
        channel->queued++;
    }
}

void channel_attach(Channel *channel, int fd, uint32_t session, uint32_t generation, RdmaLane *lane)
{
    channel->fd = fd;
    channel->lane = lane;
    channel->session = session;
    channel->generation = generation;
    channel->head = channel->tail = 0;
    if (channel->landing)
        channel->current->spoiled = true;
    if (channel->ahead)
        channel->ahead->spoiled = true;
    channel->ahead = NULL;
    channel->landing = channel->landed_last = false;
    channel->current = NULL;
    channel->current_left = 0;
    atomic_store_explicit(&channel->connected, true, memory_order_relaxed);
    if (lane)
        rdma_fetch_begin(channel);
    requeue(channel);
    tcp_receive(channel);
}

Fetch *channel_fetch(Channel *channel, uint32_t region, uint64_t page, uint32_t count)
{
    Fetch *fetch = channel->slots;

    while (fetch->state != FETCH_FREE)
        fetch++;
    *fetch = (Fetch){.state = FETCH_QUEUED, .region = region, .page = page, .count = count};
    channel->used++;
    channel->queued++;
    atomic_fetch_add_explicit(&channel->requests, 1, memory_order_relaxed);
    return fetch;
}

void channel_free_fetch(Channel *channel, Fetch *fetch)
{
    fetch->state = FETCH_FREE;
    channel->used--;
}

void channel_hand_over(Channel *channel, Fetch *fetch, uint32_t count, FetchContent content,
                       const void *data)
{
    channel->sink->pages(channel->owner, fetch, fetch->done, count, content, data);
    fetch->done += count;
    if (fetch->done == fetch->count)
        channel_free_fetch(channel, fetch);
}

void channel_ask_map(Channel *channel, uint32_t region, uint64_t page)
{
    channel->map_wanted = true;
    channel->map_region = region;
    channel->map_page = page;
}

void channel_ask_keys(Channel *channel, uint32_t region, uint64_t page)
{
    channel->keys_wanted = channel->fd >= 0;
    channel->keys_region = region;
    channel->keys_page = page;
}

bool channel_keys_done(Channel *channel, uint32_t id)
{
    if (channel->fd < 0)
        return true;
    if (channel->n_keys_done == CHANNEL_KEYS_DONE)
        return false;
    channel->keys_done[channel->n_keys_done++] = id;
    return true;
}

bool channel_is_landing(const Channel *channel, uint32_t region)
{
    const Fetch *fetch = channel->ahead ? channel->ahead : channel->current;

    if (channel->lane && rdma_lane_is_landing(channel->lane, region))
        return true;
    return (channel->ahead || channel->landing) && channel->receiving.busy && fetch &&
           fetch->region == region;
}

static void requeue_retries(Channel *channel)
{
    uint64_t now = clock_ns();

    for (unsigned i = 0; i < CHANNEL_SLOTS; i++) {
        Fetch *fetch = &channel->slots[i];
        if (fetch->state == FETCH_RETRY && fetch->retry_ns <= now) {
            fetch->state = FETCH_QUEUED;
            channel->retrying--;
            channel->queued++;
        }
    }
}

static size_t encode(Channel *channel, size_t used, const PeerMessage *message)
{
    ssize_t length = peer_message_encode(message, channel->out + used, sizeof channel->out - used);

    return length > 0 ? used + (size_t)length : used;
}

/* All queued fetches that are not the lane's as one READ; CHANNEL_SLOTS items always fit the frame and the
 * buffer, and so does what else goes with them. */
static size_t encode_reads(Channel *channel, size_t used)
{
    PeerReadItem items[CHANNEL_SLOTS];
    uint32_t n = 0;

    for (unsigned i = 0; i < CHANNEL_SLOTS && n < channel->queued; i++) {
        Fetch *fetch = &channel->slots[i];
        if (fetch->state != FETCH_QUEUED || (channel->lane && !fetch->by_tcp))
            continue;
        items[n++] = (PeerReadItem){
            .cookie = i,
            .region = channel->wire_regions[fetch->region],
            .page = fetch->page,
            .count = fetch->count,
        };
        fetch->state = FETCH_SENT;
    }
    if (n == 0)
        return used;
    channel->queued -= n;
    ssize_t length = peer_read_encode(channel->session, channel->generation, items, n,
                                      channel->out + used, sizeof channel->out - used);
    return length > 0 ? used + (size_t)length : used;
}

static size_t encode_map_request(Channel *channel, size_t used)
{
    PeerMessage *message = channel->scratch;

    message->type = PEER_MAP_REQUEST;
    message->session = channel->session;
    message->generation = channel->generation;
    message->cookie = 0;
    message->map_request.region = channel->wire_regions[channel->map_region];
    message->map_request.page = channel->map_page;
    channel->map_wanted = false;
    return encode(channel, used, message);
}

static size_t encode_keys(Channel *channel, size_t used)
{
    PeerMessage *message = channel->scratch;

    message->session = channel->session;
    message->generation = channel->generation;
    message->cookie = 0;
    /* First what is given back: that makes room for what is asked for. */
    message->type = PEER_KEYS_DONE;
    for (uint32_t i = 0; i < channel->n_keys_done; i++) {
        message->keys_done.id = channel->keys_done[i];
        used = encode(channel, used, message);
    }
    channel->n_keys_done = 0;
    if (!channel->keys_wanted)
        return used;
    message->type = PEER_KEYS_REQUEST;
    message->keys_request.region = channel->wire_regions[channel->keys_region];
    message->keys_request.page = channel->keys_page;
    channel->keys_wanted = false;
    channel->keys_asked = true;
    return encode(channel, used, message);
}

void channel_flush(Channel *channel)
{
    size_t used = 0;

    if (channel->fd < 0 || channel->reason)
        return;
    if (channel->retrying)
        requeue_retries(channel);
    if (channel->lane)
        rdma_fetch_flush(channel);
    if (channel->fd < 0 || channel->reason || channel->sending.busy)
        return;
    if (channel->queued)
        used = encode_reads(channel, used);
    if (channel->map_wanted && channel->scratch)
        used = encode_map_request(channel, used);
    if ((channel->keys_wanted || channel->n_keys_done > 0) && channel->scratch)
        used = encode_keys(channel, used);
    if (used == 0)
        return;
    channel->unsent = channel->out;
    channel->unsent_length = used;
    ring_send_now(channel->ring, &channel->sending, channel->fd, channel->out, used);
    tcp_receive(channel);
}

/* Not all of it went at once: the rest goes when there is room for it. */
static void sent(RingWatch *watch, int result)
{
    Channel *channel = watch->owner;

    if (channel->reason) {
        channel_finish_drop(channel);
        return;
    }
    if (channel->unsent_length == 0)
        return; /* of a connection that is closed */
    if (result < 0 && result != -EAGAIN && result != -EINTR) {
        channel_drop(channel, strerrordesc_np(-result));
        return;
    }
    if (result > 0) {
        channel->unsent += result;
        channel->unsent_length -= (size_t)result;
    }
    if (channel->unsent_length > 0)
        ring_send(channel->ring, &channel->sending, channel->fd, channel->unsent,
                  channel->unsent_length);
}
