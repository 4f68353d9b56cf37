/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/transport/tcp_receive.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "daemon/core/clock.h"

enum {
    RECEIVE_MOVED = 8192,
    REPLY_HEAD = PEER_HEADER_SIZE + PEER_PLACEMENT_SIZE,
    LANDING_MIN = 16384, /* fewer bytes are sooner copied than received on their own */
};

#define RETRY_NS UINT64_C(50000000)

/* The rest of the pages to their place, and the next frame's head to the buffer, which is empty. */
static void receive_in_place(Channel *channel)
{
    uint64_t page_size = channel->page_sizes[channel->current->region];

    channel->head = channel->tail = 0;
    channel->vector[0] = (struct iovec){
        .iov_base = channel->place.memory + channel->landed,
        .iov_len = channel->current_left * page_size - channel->landed,
    };
    channel->vector[1] = (struct iovec){.iov_base = channel->in, .iov_len = REPLY_HEAD};
    channel->message = (struct msghdr){.msg_iov = channel->vector, .msg_iovlen = 2};
    ring_receive_message(channel->ring, &channel->receiving, channel->fd, &channel->message, false);
}

/* The single page that is all there is to come; NULL: more is, or nothing. */
static Fetch *lone_page(Channel *channel)
{
    Fetch *fetch = channel->slots;

    if (channel->used != 1 || channel->current || channel->head != channel->tail ||
        !channel->sink->place)
        return NULL;
    while (fetch->state == FETCH_FREE)
        fetch++;
    return fetch->state == FETCH_SENT && !fetch->by_rdma && fetch->count == 1 ? fetch : NULL;
}

/* False: it has no place. */
static bool receive_ahead(Channel *channel, Fetch *fetch)
{
    if (!channel->sink->place(channel->owner, fetch, 0, 1, &channel->place))
        return false;
    channel->ahead = fetch;
    channel->head = channel->tail = 0;
    channel->vector[0] = (struct iovec){.iov_base = channel->in, .iov_len = REPLY_HEAD};
    channel->vector[1] = (struct iovec){
        .iov_base = channel->place.memory,
        .iov_len = channel->page_sizes[fetch->region],
    };
    channel->message = (struct msghdr){.msg_iov = channel->vector, .msg_iovlen = 2};
    ring_receive_message(channel->ring, &channel->receiving, channel->fd, &channel->message, true);
    return true;
}

static void receive_to_buffer(Channel *channel)
{
    size_t rest = channel->tail - channel->head;
    size_t room;

    /* A little is moved at once, so that the buffer's start stays in the cache; much only if it must. */
    if (channel->head > 0 && (rest <= RECEIVE_MOVED || channel->tail == channel->in_size)) {
        memmove(channel->in, channel->in + channel->head, rest);
        channel->head = 0;
        channel->tail = rest;
    }
    /* Where pages land in place, what follows a head is not to be read with it. */
    room = channel->landed_last && rest < REPLY_HEAD ? REPLY_HEAD - rest
                                                     : channel->in_size - channel->tail;
    ring_receive(channel->ring, &channel->receiving, channel->fd, channel->in + channel->tail,
                 room);
}

void tcp_receive(Channel *channel)
{
    Fetch *fetch;

    if (channel->receiving.busy)
        return;
    if (channel->landing && channel->current) {
        receive_in_place(channel);
        return;
    }
    fetch = lone_page(channel);
    if (!fetch || !receive_ahead(channel, fetch))
        receive_to_buffer(channel);
}

/* The slot a reply is for, if the reply continues it exactly where it stands. */
static Fetch *match(Channel *channel, const PeerHeader *header, const PeerPlacement *placement)
{
    Fetch *fetch;

    if (header->session != channel->session || header->generation != channel->generation ||
        header->cookie >= CHANNEL_SLOTS || placement->seal != channel->seal)
        return NULL;
    fetch = &channel->slots[header->cookie];
    if (fetch->state != FETCH_SENT || fetch->by_rdma || placement->first != fetch->done ||
        placement->count > fetch->count - fetch->done)
        return NULL;
    return fetch;
}

/* A slot of its own for the next pages of a fetch; NULL: all are taken. */
static Fetch *split(Channel *channel, Fetch *fetch, uint32_t count)
{
    Fetch *part;

    if (!channel_has_room(channel))
        return NULL;
    part = channel_fetch(channel, fetch->region, fetch->page + fetch->done, count);
    channel->queued--;
    part->attempts = fetch->attempts;
    part->spoiled = fetch->spoiled;
    part->wanted = fetch->wanted;
    part->vcpu = fetch->vcpu;
    part->since_ns = fetch->since_ns;
    fetch->done += count;
    return part;
}

/* These pages are asked again later, or given up by their owner; the others go on. */
static bool fail(Channel *channel, Fetch *fetch, uint32_t count, PeerErrorCode code)
{
    if (count < fetch->count - fetch->done) {
        fetch = split(channel, fetch, count);
        if (!fetch)
            return false;
    } else {
        fetch->page += fetch->done;
        fetch->count -= fetch->done;
        fetch->done = 0;
    }
    fetch->attempts++;
    if (!channel->sink->failed(channel->owner, fetch, code)) {
        channel_free_fetch(channel, fetch);
        return true;
    }
    fetch->state = FETCH_RETRY;
    fetch->retry_ns = clock_ns() + RETRY_NS;
    channel->retrying++;
    return true;
}

static size_t available(const Channel *channel)
{
    return channel->tail - channel->head;
}

/* Pages of fetch come next. False: their number and their bytes differ. */
static bool expect_pages(Channel *channel, Fetch *fetch, uint32_t count, uint64_t length)
{
    if (length != (uint64_t)count * channel->page_sizes[fetch->region])
        return false;
    channel->current = fetch;
    channel->current_left = count;
    channel->landed = 0;
    if (channel->ahead) { /* its place was chosen before */
        channel->landing = true;
        return true;
    }
    channel->landing =
        channel->sink->place && length >= LANDING_MIN &&
        channel->sink->place(channel->owner, fetch, fetch->done, count, &channel->place);
    channel->landed_last = channel->landing;
    return true;
}

/* DATA, ZERO or ERROR, whose fixed part lies at body. False: nonsense. */
static bool take_placement(Channel *channel, const PeerHeader *header, const uint8_t *body)
{
    PeerPlacement placement;
    Fetch *fetch;

    if (peer_placement_decode(header, body, &placement))
        return false;
    fetch = match(channel, header, &placement);
    if (!fetch)
        return false;
    if (header->type == PEER_DATA)
        return expect_pages(channel, fetch, placement.count, header->length - PEER_PLACEMENT_SIZE);
    if (header->type == PEER_ERROR)
        return fail(channel, fetch, placement.count, placement.code);
    channel_hand_over(channel, fetch, placement.count, FETCH_ZERO, NULL);
    return true;
}

static bool take_map(Channel *channel, const PeerMessage *message)
{
    if (message->map.region != channel->wire_regions[channel->map_region] ||
        message->map.seal != channel->seal)
        return false;
    channel->sink->map(channel->owner, channel->map_region, message);
    return true;
}

static bool take_keys(Channel *channel, const PeerMessage *message)
{
    if (!channel->keys_asked || !channel->sink->keys ||
        message->keys.region != channel->wire_regions[channel->keys_region] ||
        message->keys.seal != channel->seal)
        return false;
    channel->keys_asked = false;
    channel->sink->keys(channel->owner, channel->keys_region, message);
    return true;
}

/* A frame that is neither pages nor zeroes. False: nonsense, or the source's good-bye. */
static bool take_message(Channel *channel, const PeerHeader *header, const uint8_t *body)
{
    PeerMessage *message = channel->scratch;
    bool keys = header->type == PEER_KEYS, sound;

    if ((header->type != PEER_MAP && !keys) || !message)
        return false;
    sound = peer_message_decode(header, body, message) == 0 &&
            (keys ? take_keys(channel, message) : take_map(channel, message));
    if (!sound && keys && channel->lane)
        channel_blame_lane(channel);
    return sound;
}

/* How much of a frame must lie in the buffer before it can be taken. */
static size_t needed(const PeerHeader *header)
{
    return PEER_HEADER_SIZE + (header->type == PEER_DATA ? PEER_PLACEMENT_SIZE : header->length);
}

/* One step through the buffer: 1 went on, 0 needs more bytes, -1 nonsense. */
static int parse_frame(Channel *channel)
{
    const uint8_t *at = channel->in + channel->head;
    PeerHeader header;
    bool sound;

    if (available(channel) < PEER_HEADER_SIZE)
        return 0;
    if (peer_header_decode(at, &header) ||
        (header.type == PEER_DATA && header.length < PEER_PLACEMENT_SIZE))
        return -1;
    if (available(channel) < needed(&header))
        return 0;
    channel->head += needed(&header);
    if (header.type == PEER_DATA || header.type == PEER_ZERO ||
        (header.type == PEER_ERROR && header.length >= PEER_PLACEMENT_SIZE))
        sound = header.length >= PEER_PLACEMENT_SIZE &&
                take_placement(channel, &header, at + PEER_HEADER_SIZE);
    else
        sound = take_message(channel, &header, at + PEER_HEADER_SIZE);
    return sound ? 1 : -1;
}

/* count pages of the frame under way were handed over. */
static void take_pages(Channel *channel, uint32_t count, FetchContent content, const void *data)
{
    Fetch *fetch = channel->current;

    channel->current_left -= count;
    if (channel->current_left == 0) {
        channel->current = NULL;
        channel->landing = false;
    }
    channel_hand_over(channel, fetch, count, content, data);
}

/* length more bytes are in their place; whole pages are handed over. */
static void land(Channel *channel, size_t length)
{
    uint64_t page_size = channel->page_sizes[channel->current->region];
    uint64_t count = (channel->landed + length) / page_size;

    channel->landed = (channel->landed + length) % page_size;
    channel->place.memory += count * page_size;
    channel->place.offset += count * page_size;
    if (count > 0)
        take_pages(channel, (uint32_t)count, FETCH_LANDED, NULL);
}

/* What came along with the frame's head. By a system call: that memory is the client's (rule 13). */
static int land_buffered(Channel *channel)
{
    uint64_t page_size = channel->page_sizes[channel->current->region];
    size_t left = channel->current_left * page_size - channel->landed;
    size_t length = available(channel) < left ? available(channel) : left;
    ssize_t written;

    if (length == 0)
        return 0;
    written = pwrite(channel->place.fd, channel->in + channel->head, length,
                     (off_t)(channel->place.offset + channel->landed));
    if (written <= 0) {
        channel_drop(channel, "the guest's memory could not be written");
        return 0;
    }
    channel->head += (size_t)written;
    land(channel, (size_t)written);
    return 1;
}

static int parse_pages(Channel *channel)
{
    uint64_t page_size = channel->page_sizes[channel->current->region];
    uint64_t count = available(channel) / page_size;
    const uint8_t *data = channel->in + channel->head;

    if (channel->landing)
        return land_buffered(channel);
    if (count == 0)
        return 0;
    if (count > channel->current_left)
        count = channel->current_left;
    channel->head += count * page_size;
    take_pages(channel, (uint32_t)count, FETCH_DATA, data);
    return 1;
}

/* A sink may drop the channel while it is being told of what came. */
static bool is_up(const Channel *channel)
{
    return channel->fd >= 0 && !channel->reason;
}

/* What came is in the buffer, or first in place and then in the buffer. */
static void take_bytes(Channel *channel, size_t length)
{
    size_t in_place = 0;

    if (channel->landing) {
        in_place = length < channel->vector[0].iov_len ? length : channel->vector[0].iov_len;
        land(channel, in_place);
    }
    channel->tail += length - in_place;
}

static bool announces(const Channel *channel, const Fetch *fetch)
{
    PeerHeader header;

    return peer_header_decode(channel->in, &header) == 0 && header.type == PEER_DATA &&
           header.cookie == (uint64_t)(fetch - channel->slots);
}

/* What lies in the page is something else, such as the answers that follow that of a zero page. */
static bool move_to_buffer(Channel *channel, size_t length)
{
    if (pread(channel->place.fd, channel->in + channel->tail, length,
              (off_t)channel->place.offset) != (ssize_t)length)
        return false;
    channel->tail += length;
    return true;
}

/* A head, and what was received with it as if it were its page.  False: nonsense. */
static bool take_ahead(Channel *channel, size_t length)
{
    Fetch *fetch = channel->ahead;
    size_t head = length < REPLY_HEAD ? length : REPLY_HEAD;
    bool sound = true;

    channel->tail = head;
    if (length > head) {
        fetch->spoiled = true;
        if (announces(channel, fetch)) {
            sound = parse_frame(channel) > 0;
            if (sound)
                land(channel, length - head);
        } else {
            sound = move_to_buffer(channel, length - head);
        }
    }
    channel->ahead = NULL;
    return sound;
}

/* Nothing is to come: what is asked next decides how it is received. */
static bool is_at_rest(const Channel *channel)
{
    return channel->used == 0 && !channel->scratch && channel->head == channel->tail;
}

void tcp_received(RingWatch *watch, int result)
{
    Channel *channel = watch->owner;
    int step = 1;

    if (channel->reason) {
        channel_finish_drop(channel);
        return;
    }
    if (result <= 0 && result != -EAGAIN && result != -EINTR) {
        channel_drop(channel, result ? strerrordesc_np(-result) : "the source closed it");
        return;
    }
    if (result > 0) {
        atomic_fetch_add_explicit(&channel->bytes, (uint64_t)result, memory_order_relaxed);
        if (!channel->ahead)
            take_bytes(channel, (size_t)result);
        else if (!take_ahead(channel, (size_t)result))
            step = -1;
    } else {
        channel->ahead = NULL; /* nothing came: what is next is decided anew */
    }
    while (step > 0 && is_up(channel))
        step = channel->current ? parse_pages(channel) : parse_frame(channel);
    if (step < 0)
        channel_drop(channel, "the source sent a malformed or unexpected frame");
    else if (is_up(channel) && !is_at_rest(channel))
        tcp_receive(channel);
}
