/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "protocol/client.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "protocol/fdpass.h"
#include "protocol/wire.h"

static void write_region(WireWriter *w, const ClientRegion *region)
{
    wire_write_string(w, region->id, LIMIT_REGION_ID);
    wire_write_u64(w, region->guest_address);
    wire_write_u64(w, region->address);
    wire_write_u64(w, region->length);
    wire_write_u64(w, region->page_size);
    wire_write_u64(w, region->fd_offset);
    wire_write_u16(w, (uint16_t)region->kind);
    wire_write_u16(w, region->flags);
    wire_write_u32(w, (uint32_t)region->fd);
}

static bool region_is_sound(const ClientRegion *region, uint32_t n_fds)
{
    uint64_t end, fd_end;

    if (!limits_region_fits(region->length, region->page_size))
        return false;
    if ((region->address | region->fd_offset) & (region->page_size - 1))
        return false;
    if (__builtin_add_overflow(region->address, region->length, &end) ||
        __builtin_add_overflow(region->fd_offset, region->length, &fd_end) || fd_end > INT64_MAX)
        return false;
    if (region->guest_address != GUEST_ADDRESS_UNKNOWN &&
        __builtin_add_overflow(region->guest_address, region->length, &end))
        return false;
    if (region->kind > CLIENT_REGION_PRIVATE)
        return false;
    if (region->flags & CLIENT_REGION_ABSENT)
        return region->fd == -1 && region->address == 0 && region->fd_offset == 0;
    if (region->kind == CLIENT_REGION_ANONYMOUS)
        return region->fd == -1;
    return region->fd >= 0 && (uint32_t)region->fd < n_fds;
}

static void read_region(WireReader *r, ClientRegion *ret_region, uint32_t n_fds)
{
    wire_read_string(r, ret_region->id, LIMIT_REGION_ID);
    ret_region->guest_address = wire_read_u64(r);
    ret_region->address = wire_read_u64(r);
    ret_region->length = wire_read_u64(r);
    ret_region->page_size = wire_read_u64(r);
    ret_region->fd_offset = wire_read_u64(r);
    ret_region->kind = wire_read_u16(r);
    ret_region->flags = wire_read_u16(r);
    ret_region->fd = (int32_t)wire_read_u32(r);
    if (!region_is_sound(ret_region, n_fds))
        r->failed = true;
}

static void write_shards(WireWriter *w, const ClientShard *shards, uint32_t n)
{
    wire_write_u32(w, n);
    for (uint32_t i = 0; i < n; i++) {
        wire_write_u16(w, shards[i].region);
        wire_write_u16(w, shards[i].flags);
        wire_write_u64(w, shards[i].start);
        wire_write_u64(w, shards[i].length);
    }
}

/* That a shard lies within its region is for the holder of the regions to check. */
static uint32_t read_shards(WireReader *r, ClientShard *ret_shards)
{
    uint32_t n = wire_read_count(r, LIMIT_SHARDS);

    for (uint32_t i = 0; i < n; i++) {
        ret_shards[i].region = wire_read_u16(r);
        ret_shards[i].flags = wire_read_u16(r);
        ret_shards[i].start = wire_read_u64(r);
        ret_shards[i].length = wire_read_u64(r);
        if (ret_shards[i].region >= LIMIT_REGIONS || ret_shards[i].length == 0 ||
            ret_shards[i].length > LIMIT_REGION_LENGTH ||
            ret_shards[i].start > LIMIT_REGION_LENGTH - ret_shards[i].length)
            r->failed = true;
    }
    return n;
}

static void write_tids(WireWriter *w, const uint32_t *tids, uint32_t n)
{
    wire_write_u32(w, n);
    for (uint32_t i = 0; i < n; i++)
        wire_write_u32(w, tids[i]);
}

static uint32_t read_tids(WireReader *r, uint32_t *ret_tids)
{
    uint32_t n = wire_read_count(r, LIMIT_VCPUS);

    for (uint32_t i = 0; i < n; i++)
        ret_tids[i] = wire_read_u32(r);
    return n;
}

static void write_hello(WireWriter *w, const ClientHello *hello)
{
    if (hello->n_regions > LIMIT_REGIONS || hello->n_vcpus > LIMIT_VCPUS ||
        hello->n_shards > LIMIT_SHARDS || hello->blob_length > LIMIT_BLOB) {
        w->failed = true;
        return;
    }
    wire_write_u8(w, (uint8_t)hello->role);
    wire_write_u32(w, hello->flags);
    wire_write_u64(w, hello->features);
    wire_write_bytes(w, hello->uuid, LIMIT_UUID);
    wire_write_string(w, hello->name, LIMIT_NAME);
    wire_write_text(w, hello->problem, LIMIT_TEXT);
    wire_write_u32(w, hello->n_regions);
    for (uint32_t i = 0; i < hello->n_regions; i++)
        write_region(w, &hello->regions[i]);
    write_tids(w, hello->vcpus, hello->n_vcpus);
    write_shards(w, hello->shards, hello->n_shards);
    wire_write_u32(w, hello->table_fd);
    wire_write_u32(w, hello->blob_length);
    wire_write_bytes(w, hello->blob, hello->blob_length);
}

/* An armed client's table and uffds are the last of its fds: one table, then one uffd a shard. */
static bool armed_fds_are_sound(const ClientHello *hello, uint32_t n_fds)
{
    if (!(hello->flags & CLIENT_HELLO_ARMED))
        return hello->n_shards == 0;
    for (uint32_t i = 0; i < hello->n_shards; i++)
        if (hello->shards[i].region >= hello->n_regions)
            return false;
    return hello->n_shards > 0 && hello->table_fd < n_fds &&
           n_fds - hello->table_fd - 1 == hello->n_shards;
}

static void read_hello(WireReader *r, ClientHello *ret_hello, uint32_t n_fds)
{
    ret_hello->role = wire_read_u8(r);
    ret_hello->flags = wire_read_u32(r);
    ret_hello->features = wire_read_u64(r);
    wire_read_bytes(r, ret_hello->uuid, LIMIT_UUID);
    wire_read_string(r, ret_hello->name, LIMIT_NAME);
    wire_read_string(r, ret_hello->problem, LIMIT_TEXT);
    ret_hello->n_regions = wire_read_count(r, LIMIT_REGIONS);
    for (uint32_t i = 0; i < ret_hello->n_regions; i++)
        read_region(r, &ret_hello->regions[i], n_fds);
    ret_hello->n_vcpus = read_tids(r, ret_hello->vcpus);
    ret_hello->n_shards = read_shards(r, ret_hello->shards);
    ret_hello->table_fd = wire_read_u32(r);
    ret_hello->blob_length = wire_read_count(r, LIMIT_BLOB);
    wire_read_bytes(r, ret_hello->blob, ret_hello->blob_length);
    if (ret_hello->role != CLIENT_ROLE_SOURCE && ret_hello->role != CLIENT_ROLE_DESTINATION)
        r->failed = true;
    if (!armed_fds_are_sound(ret_hello, n_fds))
        r->failed = true;
}

static void write_plan(WireWriter *w, const ClientMessage *m)
{
    wire_write_u32(w, m->plan.flags);
    wire_write_u64(w, m->plan.table_size);
    wire_write_u32(w, m->plan.n_ranges);
    for (uint32_t i = 0; i < m->plan.n_ranges; i++) {
        wire_write_u64(w, m->plan.ranges[i].address);
        wire_write_u64(w, m->plan.ranges[i].length);
        wire_write_u64(w, m->plan.ranges[i].page_size);
    }
    write_shards(w, m->plan.shards, m->plan.n_shards);
}

static void read_plan(WireReader *r, ClientMessage *m)
{
    m->plan.flags = wire_read_u32(r);
    m->plan.table_size = wire_read_u64(r);
    m->plan.n_ranges = wire_read_count(r, LIMIT_REGIONS);
    for (uint32_t i = 0; i < m->plan.n_ranges; i++) {
        ClientRange *range = &m->plan.ranges[i];
        uint64_t end;

        range->address = wire_read_u64(r);
        range->length = wire_read_u64(r);
        range->page_size = wire_read_u64(r);
        if (!limits_region_fits(range->length, range->page_size) ||
            range->address & (range->page_size - 1) ||
            __builtin_add_overflow(range->address, range->length, &end))
            r->failed = true;
    }
    m->plan.n_shards = read_shards(r, m->plan.shards);
    for (uint32_t i = 0; i < m->plan.n_shards; i++)
        if (m->plan.shards[i].region >= m->plan.n_ranges)
            r->failed = true;
}

static void write_body(WireWriter *w, const ClientMessage *m)
{
    switch (m->type) {
    case CLIENT_HELLO:
        write_hello(w, &m->hello);
        break;
    case CLIENT_WELCOME:
        wire_write_u64(w, m->welcome.session);
        wire_write_u64(w, m->welcome.features);
        break;
    case CLIENT_ARM:
        wire_write_u32(w, m->arm.flags);
        wire_write_u64(w, m->arm.table_size);
        write_shards(w, m->arm.shards, m->arm.n_shards);
        break;
    case CLIENT_ERROR:
    case CLIENT_ARMED:
    case CLIENT_RELEASED:
    case CLIENT_EXPORTED:
    case CLIENT_OFFERED:
    case CLIENT_SEALED:
        wire_write_u32(w, (uint32_t)m->status.status);
        wire_write_u64(w, m->status.seal);
        wire_write_text(w, m->status.text, LIMIT_TEXT);
        break;
    case CLIENT_RELEASE:
        wire_write_u32(w, m->release.flags);
        break;
    case CLIENT_VCPUS:
        write_tids(w, m->vcpus.tids, m->vcpus.n);
        break;
    case CLIENT_REGION_ADD:
    case CLIENT_REGION_REMOVE:
        write_region(w, &m->region);
        break;
    case CLIENT_OFFER:
        wire_write_string(w, m->offer.destination, LIMIT_ADDRESS);
        break;
    case CLIENT_STATE:
        wire_write_u32(w, m->state.state);
        wire_write_u64(w, m->state.populated_bytes);
        wire_write_u64(w, m->state.present_bytes);
        wire_write_u64(w, m->state.faults);
        wire_write_text(w, m->state.text, LIMIT_TEXT);
        break;
    case CLIENT_KEEP:
        wire_write_u32(w, m->keep.length);
        wire_write_bytes(w, m->keep.blob, m->keep.length);
        break;
    case CLIENT_OPERATOR:
    case CLIENT_REPLY:
        wire_write_u32(w, m->json.flags);
        wire_write_u32(w, m->json.length);
        wire_write_bytes(w, m->json.text, m->json.length);
        break;
    case CLIENT_ASSIST:
        wire_write_bytes(w, m->assist.uuid, LIMIT_UUID);
        wire_write_string(w, m->assist.name, LIMIT_NAME);
        break;
    case CLIENT_PLAN:
        write_plan(w, m);
        break;
    case CLIENT_FDS:
    case CLIENT_EXPORT:
    case CLIENT_SEAL:
    case CLIENT_CANCEL:
    case CLIENT_RUNNING:
    case CLIENT_OK:
    case CLIENT_DEVICE:
    case CLIENT_LISTEN:
    case CLIENT_END:
        break;
    case CLIENT_UNKNOWN:
    default:
        w->failed = true;
    }
}

/* Counts that index a struct's own array are bounded before the encoder walks it. */
static bool counts_fit(const ClientMessage *m)
{
    switch (m->type) {
    case CLIENT_ARM:
        return m->arm.n_shards <= LIMIT_SHARDS;
    case CLIENT_PLAN:
        return m->plan.n_shards <= LIMIT_SHARDS && m->plan.n_ranges <= LIMIT_REGIONS;
    case CLIENT_VCPUS:
        return m->vcpus.n <= LIMIT_VCPUS;
    case CLIENT_KEEP:
        return m->keep.length <= LIMIT_BLOB;
    case CLIENT_OPERATOR:
    case CLIENT_REPLY:
        return m->json.length <= CLIENT_JSON_MAX;
    default:
        return true;
    }
}

ssize_t client_message_encode(const ClientMessage *message, uint32_t n_fds, void *ret_packet)
{
    WireWriter w = {.data = ret_packet, .size = CLIENT_PACKET_MAX};

    if (n_fds > LIMIT_FDS || !counts_fit(message))
        return -EMSGSIZE;
    wire_write_u16(&w, (uint16_t)message->type);
    wire_write_u16(&w, CLIENT_VERSION);
    wire_write_u32(&w, message->serial);
    wire_write_u32(&w, n_fds);
    write_body(&w, message);
    return w.failed ? -EMSGSIZE : (ssize_t)w.used;
}

static void read_state(WireReader *r, ClientMessage *m)
{
    m->state.state = wire_read_u32(r);
    m->state.populated_bytes = wire_read_u64(r);
    m->state.present_bytes = wire_read_u64(r);
    m->state.faults = wire_read_u64(r);
    wire_read_string(r, m->state.text, LIMIT_TEXT);
    if (m->state.state > CLIENT_STATE_LAST)
        r->failed = true;
}

static void read_json(WireReader *r, ClientMessage *m)
{
    m->json.flags = wire_read_u32(r);
    m->json.length = wire_read_count(r, CLIENT_JSON_MAX);
    wire_read_bytes(r, m->json.text, m->json.length);
    m->json.text[m->json.length] = '\0';
}

static void read_body(WireReader *r, ClientMessage *m)
{
    switch (m->type) {
    case CLIENT_HELLO:
        read_hello(r, &m->hello, m->n_fds);
        break;
    case CLIENT_WELCOME:
        m->welcome.session = wire_read_u64(r);
        m->welcome.features = wire_read_u64(r);
        break;
    case CLIENT_ARM:
        m->arm.flags = wire_read_u32(r);
        m->arm.table_size = wire_read_u64(r);
        m->arm.n_shards = read_shards(r, m->arm.shards);
        break;
    case CLIENT_ERROR:
    case CLIENT_ARMED:
    case CLIENT_RELEASED:
    case CLIENT_EXPORTED:
    case CLIENT_OFFERED:
    case CLIENT_SEALED:
        m->status.status = (int32_t)wire_read_u32(r);
        m->status.seal = wire_read_u64(r);
        wire_read_string(r, m->status.text, LIMIT_TEXT);
        break;
    case CLIENT_RELEASE:
        m->release.flags = wire_read_u32(r);
        break;
    case CLIENT_VCPUS:
        m->vcpus.n = read_tids(r, m->vcpus.tids);
        break;
    case CLIENT_REGION_ADD:
    case CLIENT_REGION_REMOVE:
        read_region(r, &m->region, m->n_fds);
        break;
    case CLIENT_OFFER:
        wire_read_string(r, m->offer.destination, LIMIT_ADDRESS);
        break;
    case CLIENT_STATE:
        read_state(r, m);
        break;
    case CLIENT_KEEP:
        m->keep.length = wire_read_count(r, LIMIT_BLOB);
        wire_read_bytes(r, m->keep.blob, m->keep.length);
        break;
    case CLIENT_OPERATOR:
    case CLIENT_REPLY:
        read_json(r, m);
        break;
    case CLIENT_ASSIST:
        wire_read_bytes(r, m->assist.uuid, LIMIT_UUID);
        wire_read_string(r, m->assist.name, LIMIT_NAME);
        break;
    case CLIENT_PLAN:
        read_plan(r, m);
        break;
    case CLIENT_FDS:
    case CLIENT_EXPORT:
    case CLIENT_SEAL:
    case CLIENT_CANCEL:
    case CLIENT_RUNNING:
    case CLIENT_OK:
    case CLIENT_DEVICE:
    case CLIENT_LISTEN:
    case CLIENT_END:
        break;
    case CLIENT_UNKNOWN:
    default:
        m->type = CLIENT_UNKNOWN;
        r->left = 0;
    }
}

int client_message_decode(const void *packet, size_t length, ClientMessage *ret_message)
{
    WireReader r = {.data = packet, .left = length};
    uint16_t version;

    ret_message->type = wire_read_u16(&r);
    version = wire_read_u16(&r);
    ret_message->serial = wire_read_u32(&r);
    ret_message->n_fds = wire_read_count(&r, LIMIT_FDS);
    if (r.failed)
        return -EPROTO;
    if (version != CLIENT_VERSION)
        return -EPROTONOSUPPORT;
    read_body(&r, ret_message);
    return wire_read_complete(&r) ? 0 : -EPROTO;
}

const char *client_state_name(ClientState state)
{
    static const char *const names[] = {
        "idle",   "armed",  "running",   "paused",   "complete", "released",
        "fenced", "broken", "cancelled", "exported", "sealed",   "done",
    };

    return (unsigned)state <= CLIENT_STATE_LAST ? names[state] : "unknown";
}

void client_channel_init(ClientChannel *channel, int socket)
{
    channel->socket = socket;
    channel->n_fds = 0;
    channel->complete = false;
}

void client_channel_deinit(ClientChannel *channel)
{
    fdpass_close(channel->fds, channel->n_fds);
    channel->n_fds = 0;
    channel->complete = false;
}

/* One packet, its fds appended to those collected so far. */
static int receive_packet(ClientChannel *channel, ClientMessage *ret_message)
{
    size_t room = LIMIT_FDS - channel->n_fds;
    size_t n_fds;
    ssize_t length = fdpass_receive(channel->socket, channel->packet, sizeof channel->packet,
                                    channel->fds + channel->n_fds, room, &n_fds);

    if (length < 0)
        return (int)length;
    channel->n_fds += n_fds;
    if (length == 0)
        return 0;
    int error = client_message_decode(channel->packet, (size_t)length, ret_message);
    if (error)
        return error;
    /* Each brings fds, so a peer cannot keep its receiver in the loop for ever. */
    if (ret_message->type == CLIENT_FDS && (n_fds == 0 || ret_message->n_fds != n_fds))
        return -EPROTO;
    return 1;
}

int client_channel_receive(ClientChannel *channel, ClientMessage *ret_message)
{
    int result;

    if (channel->complete)
        client_channel_deinit(channel);
    do
        result = receive_packet(channel, ret_message);
    while (result == 1 && ret_message->type == CLIENT_FDS);
    if (result != 1)
        return result;
    channel->complete = true;
    return ret_message->n_fds == channel->n_fds ? 1 : -EPROTO;
}

int client_channel_take_fd(ClientChannel *channel, size_t index)
{
    int fd = -1;

    if (index < channel->n_fds) {
        fd = channel->fds[index];
        channel->fds[index] = -1;
    }
    return fd;
}

/* Sends all but the last packet's worth of the fds ahead; moves *fds and *n_fds past them. */
static int send_fds_ahead(int socket, uint32_t serial, const int **fds, size_t *n_fds)
{
    uint8_t header[12];

    while (*n_fds > LIMIT_FDS_PACKET) {
        WireWriter w = {.data = header, .size = sizeof header};
        wire_write_u16(&w, CLIENT_FDS);
        wire_write_u16(&w, CLIENT_VERSION);
        wire_write_u32(&w, serial);
        wire_write_u32(&w, LIMIT_FDS_PACKET);
        int error = fdpass_send(socket, header, w.used, *fds, LIMIT_FDS_PACKET);
        if (error)
            return error;
        *fds += LIMIT_FDS_PACKET;
        *n_fds -= LIMIT_FDS_PACKET;
    }
    return 0;
}

int client_message_send(int socket, const ClientMessage *message, const int *fds, size_t n_fds,
                        void *scratch)
{
    ssize_t length = client_message_encode(message, (uint32_t)n_fds, scratch);
    int error;

    if (length < 0)
        return (int)length;
    error = send_fds_ahead(socket, message->serial, &fds, &n_fds);
    return error ? error : fdpass_send(socket, scratch, (size_t)length, fds, n_fds);
}
