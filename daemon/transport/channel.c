/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/transport/channel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/core/clock.h"
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
    if (channel->fd >= 0)
        close(channel->fd);
    if (channel->in)
        munmap(channel->in, channel->in_size);
    free(channel->scratch);
    channel->fd = -1;
    channel->in = NULL;
    channel->scratch = NULL;
}

/* Once the kernel holds neither end of the buffers any more. */
void channel_finish_drop(Channel *channel)
{
    const char *reason = channel->reason;

    if (!reason || channel->fd < 0 || channel->receiving.busy || channel->sending.busy)
        return;
    close(channel->fd);
    channel->fd = -1;
    channel->reason = NULL;
    channel->unsent_length = 0;
    channel->sink->down(channel->owner, reason);
}

void channel_drop(Channel *channel, const char *reason)
{
    if (channel->fd < 0 || channel->reason)
        return;
    channel->reason = reason;
    atomic_store_explicit(&channel->connected, false, memory_order_relaxed);
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

void channel_ask_map(Channel *channel, uint32_t region, uint64_t page)
{
    channel->map_wanted = true;
    channel->map_region = region;
    channel->map_page = page;
}

void channel_ask_keys(Channel *channel, uint32_t region, uint64_t page)
{
    channel->keys_wanted = true;
    channel->keys_region = region;
    channel->keys_page = page;
}

bool channel_keys_done(Channel *channel, uint32_t id)
{
    if (channel->n_keys_done == CHANNEL_KEYS_DONE)
        return false;
    channel->keys_done[channel->n_keys_done++] = id;
    return true;
}

bool channel_is_landing(const Channel *channel, uint32_t region)
{
    const Fetch *fetch = channel->ahead ? channel->ahead : channel->current;

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

/* All queued fetches as one READ; CHANNEL_SLOTS items always fit the frame and the buffer. */
static size_t encode_reads(Channel *channel, size_t used)
{
    PeerReadItem items[CHANNEL_SLOTS];
    uint32_t n = 0;

    for (unsigned i = 0; i < CHANNEL_SLOTS && n < channel->queued; i++) {
        Fetch *fetch = &channel->slots[i];
        if (fetch->state != FETCH_QUEUED)
            continue;
        items[n++] = (PeerReadItem){
            .cookie = i,
            .region = channel->wire_regions[fetch->region],
            .page = fetch->page,
            .count = fetch->count,
        };
        fetch->state = FETCH_SENT;
    }
    channel->queued = 0;
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

void channel_flush(Channel *channel)
{
    size_t used = 0;

    if (channel->fd < 0 || channel->reason || channel->sending.busy)
        return;
    if (channel->retrying)
        requeue_retries(channel);
    if (channel->queued)
        used = encode_reads(channel, used);
    if (channel->map_wanted && channel->scratch)
        used = encode_map_request(channel, used);
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
    if (result < 0 && result != -EAGAIN) {
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
