/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/unit/protocol_samples.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define PAGE UINT64_C(4096)
#define MIB  (UINT64_C(1) << 20)

static void fill_bytes(uint8_t *bytes, size_t n, uint8_t first)
{
    for (size_t i = 0; i < n; i++)
        bytes[i] = (uint8_t)(first + i);
}

static ClientRegion client_region(uint32_t number, ClientRegionKind kind, int32_t fd)
{
    ClientRegion region = {
        .guest_address = number * 64 * MIB,
        .address = UINT64_C(0x7f0000000000) + number * 64 * MIB,
        .length = 32 * MIB,
        .page_size = number % 2 ? 2 * MIB : PAGE,
        .fd_offset = fd < 0 ? 0 : 2 * MIB,
        .kind = kind,
        .fd = fd,
    };

    snprintf(region.id, sizeof region.id, "pc.ram%u", number);
    return region;
}

static uint32_t hello(ClientHello *h)
{
    h->role = CLIENT_ROLE_SOURCE;
    h->features = 5;
    fill_bytes(h->uuid, sizeof h->uuid, 1);
    strcpy(h->name, "guest");
    h->n_regions = 3;
    h->regions[0] = client_region(0, CLIENT_REGION_SHARED, 0);
    h->regions[1] = client_region(1, CLIENT_REGION_PRIVATE, 1);
    h->regions[2] = client_region(2, CLIENT_REGION_ANONYMOUS, -1);
    h->n_vcpus = 2;
    h->vcpus[0] = 1234;
    h->vcpus[1] = 1235;
    return 2;
}

static uint32_t hello_armed(ClientHello *h)
{
    uint32_t n_fds = hello(h);

    h->role = CLIENT_ROLE_DESTINATION;
    h->flags = CLIENT_HELLO_ARMED;
    h->n_shards = 3;
    for (uint32_t i = 0; i < h->n_shards; i++)
        h->shards[i] = (ClientShard){.region = i, .start = 0, .length = 32 * MIB};
    h->table_fd = n_fds;
    h->blob_length = 7;
    fill_bytes(h->blob, h->blob_length, 200);
    return n_fds + 1 + h->n_shards;
}

/* Every field at its bound. */
static uint32_t hello_largest(ClientHello *h)
{
    h->role = CLIENT_ROLE_DESTINATION;
    h->flags = CLIENT_HELLO_ARMED;
    h->features = UINT64_MAX;
    memset(h->name, 'n', LIMIT_NAME);
    memset(h->problem, 'p', LIMIT_TEXT);
    h->n_regions = LIMIT_REGIONS;
    for (uint32_t i = 0; i < LIMIT_REGIONS; i++) {
        h->regions[i] = client_region(i, CLIENT_REGION_SHARED, (int32_t)i);
        memset(h->regions[i].id, 'i', LIMIT_REGION_ID);
    }
    h->n_vcpus = LIMIT_VCPUS;
    for (uint32_t i = 0; i < LIMIT_VCPUS; i++)
        h->vcpus[i] = i + 1;
    h->n_shards = LIMIT_SHARDS;
    for (uint32_t i = 0; i < LIMIT_SHARDS; i++)
        h->shards[i] = (ClientShard){.region = i % LIMIT_REGIONS, .length = PAGE};
    h->table_fd = LIMIT_REGIONS;
    h->blob_length = LIMIT_BLOB;
    return LIMIT_REGIONS + 1 + LIMIT_SHARDS;
}

static void status(ClientMessage *m, ClientMessageType type)
{
    m->type = type;
    m->status.status = type == CLIENT_ERROR ? -EBUSY : 0;
    m->status.seal = type == CLIENT_SEALED ? UINT64_C(0x1122334455667788) : 0;
    strcpy(m->status.text, type == CLIENT_ERROR ? "it is busy" : "");
}

static void arm(ClientMessage *m)
{
    m->arm.flags = CLIENT_ARM_DEVICE;
    m->arm.table_size = 65536;
    m->arm.n_shards = 2;
    m->arm.shards[0] =
        (ClientShard){.region = 0, .flags = CLIENT_SHARD_MINOR, .start = 0, .length = 16 * MIB};
    m->arm.shards[1] = (ClientShard){.region = 0, .start = 16 * MIB, .length = 16 * MIB};
}

static void state(ClientMessage *m)
{
    m->state.state = CLIENT_STATE_PAUSED;
    m->state.populated_bytes = 64 * MIB;
    m->state.present_bytes = 3 * MIB;
    m->state.faults = 77;
    strcpy(m->state.text, "the link is down");
}

static void json(ClientMessage *m)
{
    strcpy(m->json.text, "{\"op\": \"status\"}");
    m->json.length = (uint32_t)strlen(m->json.text);
    m->json.flags = m->type == CLIENT_REPLY ? CLIENT_REPLY_MORE : 0;
}

static void plan(ClientMessage *m)
{
    m->plan.flags = CLIENT_ARM_DEVICE;
    m->plan.table_size = 65536;
    m->plan.n_ranges = 2;
    for (uint32_t i = 0; i < m->plan.n_ranges; i++)
        m->plan.ranges[i] = (ClientRange){
            .address = UINT64_C(0x7f0000000000) + i * 64 * MIB,
            .length = 32 * MIB,
            .page_size = i % 2 ? 2 * MIB : PAGE,
        };
    m->plan.n_shards = 2;
    for (uint32_t i = 0; i < m->plan.n_shards; i++)
        m->plan.shards[i] = (ClientShard){.region = (uint16_t)i, .length = 32 * MIB};
}

/* The bodies that are more than a status. */
static uint32_t client_body(ClientMessage *m)
{
    switch (m->type) {
    case CLIENT_HELLO:
        return hello(&m->hello);
    case CLIENT_WELCOME:
        m->welcome.session = 9;
        return 0;
    case CLIENT_ARM:
        arm(m);
        return 2;
    case CLIENT_VCPUS:
        m->vcpus.n = 3;
        m->vcpus.tids[2] = 4711;
        return 0;
    case CLIENT_REGION_ADD:
        m->region = client_region(5, CLIENT_REGION_SHARED, 0);
        return 1;
    case CLIENT_REGION_REMOVE:
        m->region = client_region(5, CLIENT_REGION_ANONYMOUS, -1);
        return 0;
    case CLIENT_OFFER:
        strcpy(m->offer.destination, "[2001:db8::1]:16520");
        return 0;
    case CLIENT_STATE:
        state(m);
        return 0;
    case CLIENT_KEEP:
        m->keep.length = 5;
        fill_bytes(m->keep.blob, 5, 250);
        return 0;
    case CLIENT_OPERATOR:
        json(m);
        return 1;
    case CLIENT_REPLY:
        json(m);
        return 0;
    case CLIENT_ASSIST:
        fill_bytes(m->assist.uuid, sizeof m->assist.uuid, 1);
        strcpy(m->assist.name, "guest");
        return 0;
    case CLIENT_PLAN:
        plan(m);
        return 2;
    case CLIENT_DEVICE:
        return 1;
    case CLIENT_LISTEN:
        return 2;
    case CLIENT_RELEASE:
        m->release.flags = CLIENT_RELEASE_DISARM;
        return 0;
    default:
        return 0;
    }
}

static const struct {
    ClientMessageType type;
    const char *name;
} client_types[] = {
    {CLIENT_FDS, "fds"},
    {CLIENT_ERROR, "error"},
    {CLIENT_HELLO, "hello"},
    {CLIENT_WELCOME, "welcome"},
    {CLIENT_ARM, "arm"},
    {CLIENT_ARMED, "armed"},
    {CLIENT_RELEASE, "release"},
    {CLIENT_RELEASED, "released"},
    {CLIENT_EXPORT, "export"},
    {CLIENT_EXPORTED, "exported"},
    {CLIENT_VCPUS, "vcpus"},
    {CLIENT_REGION_ADD, "region_add"},
    {CLIENT_REGION_REMOVE, "region_remove"},
    {CLIENT_OFFER, "offer"},
    {CLIENT_OFFERED, "offered"},
    {CLIENT_SEAL, "seal"},
    {CLIENT_SEALED, "sealed"},
    {CLIENT_CANCEL, "cancel"},
    {CLIENT_RUNNING, "running"},
    {CLIENT_STATE, "state"},
    {CLIENT_KEEP, "keep"},
    {CLIENT_OPERATOR, "operator"},
    {CLIENT_REPLY, "reply"},
    {CLIENT_OK, "ok"},
    {CLIENT_DEVICE, "device"},
    {CLIENT_ASSIST, "assist"},
    {CLIENT_PLAN, "plan"},
    {CLIENT_LISTEN, "listen"},
    {CLIENT_END, "end"},
    {CLIENT_HELLO, "hello_armed"},
    {CLIENT_HELLO, "hello_largest"},
};

enum { CLIENT_TYPES = sizeof client_types / sizeof client_types[0] };

const char *client_sample(unsigned number, ClientMessage *ret_message, uint32_t *ret_n_fds)
{
    if (number >= CLIENT_TYPES)
        return NULL;
    memset(ret_message, 0, sizeof *ret_message);
    ret_message->type = client_types[number].type;
    ret_message->serial = 100 + number;
    *ret_n_fds = 0;
    if (number == CLIENT_TYPES - 1)
        *ret_n_fds = hello_largest(&ret_message->hello);
    else if (number == CLIENT_TYPES - 2)
        *ret_n_fds = hello_armed(&ret_message->hello);
    else if (ret_message->type == CLIENT_ERROR || ret_message->type == CLIENT_SEALED ||
             ret_message->type == CLIENT_ARMED)
        status(ret_message, ret_message->type);
    else
        *ret_n_fds = client_body(ret_message);
    return client_types[number].name;
}

/* --- between daemons ----------------------------------------------------------------------- */

static void peer_regions(PeerRegions *regions)
{
    regions->n = 2;
    for (uint32_t i = 0; i < regions->n; i++) {
        regions->regions[i] = (PeerRegion){
            .guest_address = i * 64 * MIB,
            .length = 32 * MIB,
            .page_size = i % 2 ? 2 * MIB : PAGE,
            .backing = 5 + i,
            .address_hint = UINT64_C(0x7f0000000000) * i,
        };
        snprintf(regions->regions[i].id, sizeof regions->regions[i].id, "pc.ram%u", i);
    }
}

static void peer_hello(PeerMessage *m)
{
    m->hello.version_lowest = PEER_VERSION_LOWEST;
    m->hello.version_highest = PEER_VERSION_HIGHEST;
    m->hello.features_optional = 3;
    m->hello.page_size = PAGE;
    strcpy(m->hello.machine, "x86_64");
    strcpy(m->hello.agent, "postcopyd 0.1.0");
}

static void peer_invite(PeerMessage *m)
{
    fill_bytes(m->invite.uuid, sizeof m->invite.uuid, 1);
    strcpy(m->invite.name, "guest");
    fill_bytes(m->invite.token, sizeof m->invite.token, 100);
    strcpy(m->invite.source, ":16520");
    m->invite.flags = PEER_INVITE_AWAIT;
    peer_regions(&m->invite.regions);
}

static void peer_attached(PeerMessage *m)
{
    m->attached.seal = 42;
    fill_bytes(m->attached.secret, sizeof m->attached.secret, 3);
    peer_regions(&m->attached.regions);
}

static void peer_status(PeerMessage *m)
{
    m->status.code = m->type == PEER_BYE ? PEER_ERROR_TOKEN : PEER_ERROR_NONE;
    strcpy(m->status.text, m->type == PEER_BYE ? "no VM is exported for that token" : "");
    strcpy(m->status.incoming, m->type == PEER_INVITED ? "/run/postcopyd/relay/in-1-1" : "");
}

static void peer_progress(PeerMessage *m)
{
    m->progress.state = CLIENT_STATE_RUNNING;
    m->progress.populated_bytes = 64 * MIB;
    m->progress.present_bytes = 3 * MIB;
    m->progress.missing_at_running = 60 * MIB;
    m->progress.faults = 12;
    m->progress.received_bytes = 4 * MIB;
    m->progress.fault_p50_ns = 90000;
    m->progress.fault_p99_ns = 900000;
}

static void peer_map(PeerMessage *m)
{
    m->map.region = 1;
    m->map.seal = 42;
    m->map.next = 2000;
    m->map.n = 3;
    m->map.extents[0] = (PeerExtent){.page = 0, .count = 10};
    m->map.extents[1] = (PeerExtent){.page = 10, .count = 1};
    m->map.extents[2] = (PeerExtent){.page = 1000, .count = 1000};
}

static void peer_read(PeerMessage *m)
{
    m->read.n = 3;
    for (uint32_t i = 0; i < m->read.n; i++)
        m->read.items[i] = (PeerReadItem){.cookie = i, .page = 16 * i, .region = 0, .count = 16};
}

static void peer_placement(PeerMessage *m)
{
    m->cookie = 7;
    m->placement = (PeerPlacement){
        .seal = 42,
        .first = 3,
        .count = 2,
        .code = m->type == PEER_ERROR ? PEER_ERROR_IO : PEER_ERROR_NONE,
    };
}

static PeerRdmaEnd rdma_end(void)
{
    PeerRdmaEnd end = {
        .qpn = 0xfedcba,
        .psn = 0x123456,
        .lid = 7,
        .link_layer = 2,
        .mtu = 3,
        .reads = 16,
    };

    fill_bytes(end.gid, sizeof end.gid, 60);
    return end;
}

static void peer_keys(PeerMessage *m)
{
    m->keys.region = 1;
    m->keys.seal = 42;
    m->keys.next = 2000;
    m->keys.span = (PeerSpan){
        .page = 100,
        .count = 1000,
        .address = UINT64_C(0x7f1234567000),
        .rkey = 0xdeadbeef,
        .id = 9,
    };
    m->keys.n = 2;
    m->keys.zeroes[0] = (PeerExtent){.page = 100, .count = 1};
    m->keys.zeroes[1] = (PeerExtent){.page = 1000, .count = 100};
}

/* Those of the same types that are shorter. */
static void peer_keys_full(PeerMessage *m)
{
    m->type = PEER_KEYS;
    m->keys.region = 1;
    m->keys.state = PEER_KEYS_FULL;
    m->keys.seal = 42;
    m->keys.next = 2000;
}

static void peer_rdma_refused(PeerMessage *m)
{
    m->type = PEER_RDMA_CONNECTED;
    m->rdma_connected.code = PEER_ERROR_REFUSED;
    strcpy(m->rdma_connected.text, "no device has the address 192.0.2.1");
}

static void peer_rdma_body(PeerMessage *m)
{
    switch (m->type) {
    case PEER_RDMA_CONNECT:
        m->rdma_connect.end = rdma_end();
        break;
    case PEER_RDMA_CONNECTED:
        m->rdma_connected.end = rdma_end();
        break;
    case PEER_KEYS_REQUEST:
        m->keys_request.region = 1;
        m->keys_request.page = 2000;
        break;
    case PEER_KEYS:
        peer_keys(m);
        break;
    case PEER_KEYS_DONE:
        m->keys_done.id = 9;
        break;
    default:
        break;
    }
}

static void peer_body(PeerMessage *m)
{
    switch (m->type) {
    case PEER_START:
    case PEER_STARTED:
        m->start.magic = PEER_MAGIC;
        m->start.tls = m->type == PEER_START;
        break;
    case PEER_HELLO:
        peer_hello(m);
        break;
    case PEER_INVITE:
        peer_invite(m);
        break;
    case PEER_INVITED:
    case PEER_JOINED:
    case PEER_FENCED:
    case PEER_BYE:
        peer_status(m);
        break;
    case PEER_ATTACH:
        fill_bytes(m->attach.token, sizeof m->attach.token, 100);
        strcpy(m->attach.name, "guest");
        break;
    case PEER_ATTACHED:
        peer_attached(m);
        break;
    case PEER_JOIN:
        m->join.kind = PEER_CHANNEL_BULK;
        m->join.index = 1;
        break;
    case PEER_SEALED:
        m->sealed.seal = 42;
        break;
    case PEER_PROGRESS:
        peer_progress(m);
        break;
    case PEER_MAP_REQUEST:
        m->map_request.region = 1;
        m->map_request.page = 2000;
        break;
    case PEER_MAP:
        peer_map(m);
        break;
    case PEER_FORECAST:
        m->forecast.shift = PEER_FORECAST_SHIFT_MIN;
        m->forecast.n = 32;
        fill_bytes(m->forecast.bits, 32, 9);
        break;
    case PEER_ASK:
        fill_bytes(m->ask.uuid, sizeof m->ask.uuid, 1);
        fill_bytes(m->ask.token, sizeof m->ask.token, 7);
        strcpy(m->ask.name, "guest");
        strcpy(m->ask.connection, "192.0.2.1:49152");
        break;
    case PEER_ASKED:
        fill_bytes(m->asked.token, sizeof m->asked.token, 8);
        break;
    case PEER_READ:
        peer_read(m);
        break;
    case PEER_DATA:
    case PEER_ZERO:
    case PEER_ERROR:
        peer_placement(m);
        break;
    default:
        peer_rdma_body(m);
        break;
    }
}

const char *peer_sample(unsigned number, PeerMessage *ret_message)
{
    static const char *const names[] = {
        "start",
        "started",
        "hello",
        "invite",
        "invited",
        "attach",
        "attached",
        "join",
        "joined",
        "sealed",
        "relay",
        "running",
        "cancel",
        "fenced",
        "progress",
        "released",
        "map_request",
        "map",
        "read",
        "data",
        "zero",
        "error",
        "ping",
        "pong",
        "bye",
        "forecast_request",
        "forecast",
        "ask",
        "asked",
        "seal",
        "awaited",
        "rdma_connect",
        "rdma_connected",
        "keys_request",
        "keys",
        "keys_done",
        "keys_full",
        "rdma_refused",
    };

    if (number >= sizeof names / sizeof names[0])
        return NULL;
    memset(ret_message, 0, sizeof *ret_message);
    ret_message->type = PEER_START + number;
    ret_message->session = 3;
    ret_message->generation = 1;
    if (strcmp(names[number], "keys_full") == 0)
        peer_keys_full(ret_message);
    else if (strcmp(names[number], "rdma_refused") == 0)
        peer_rdma_refused(ret_message);
    else
        peer_body(ret_message);
    return names[number];
}
