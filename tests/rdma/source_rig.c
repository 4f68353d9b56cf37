/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/rdma/source_rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "tests/unit/core_regions.h"

enum { GENERATION = 1 };

Export *exports[2];
RdmaBudget near_budget, far_budget;
Lease leases[2];
Lane lanes[CHANNELS];
PeerMessage message;
static PeerMessage control_message[2];
static int file;

static void ignore(void *owner, Export *of, ExportEvent event)
{
    (void)owner;
    (void)of;
    (void)event;
}

/* --- control ------------------------------------------------------------------------------- */

static void *serve_control(void *argument)
{
    Lease *lease = argument;

    export_serve_control(lease->export, lease->far, &control_message[lease - leases]);
    return NULL;
}

void take_lease(unsigned number, Export *export)
{
    Lease *lease = &leases[number];
    int pair[2];

    lease->export = export;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
    lease->near = peer_socket_new(pair[0]);
    lease->far = peer_socket_new(pair[1]);
    assert_int_equal(pthread_create(&lease->thread, NULL, serve_control, lease), 0);
    assert_int_equal(peer_socket_receive(lease->near, &message, RIG_BOUND_MS), 0);
    assert_int_equal(message.type, PEER_ATTACHED);
    lease->session = message.session;
}

void end_lease(unsigned number)
{
    if (!leases[number].near)
        return;
    peer_socket_free(leases[number].near);
    pthread_join(leases[number].thread, NULL);
    leases[number].near = NULL;
}

/* --- data ---------------------------------------------------------------------------------- */

static void *serve_data(void *argument)
{
    Lane *lane = argument;

    server_run(lane->export, lane->channel, &lane->link);
    export_leave_channel(lane->export, lane->channel);
    shutdown(lane->far, SHUT_RDWR);
    return NULL;
}

void say(Lane *lane, PeerMessageType type)
{
    message.type = type;
    message.session = lane->link.session;
    message.generation = GENERATION;
    message.cookie = 0;
    assert_int_equal(peer_socket_send(lane->peer, &message), 0);
}

void hear(Lane *lane, PeerMessageType type)
{
    assert_int_equal(peer_socket_receive(lane->peer, &message, RIG_BOUND_MS), 0);
    assert_int_equal(message.type, type);
}

Lane *open_lane(unsigned number, const Lease *lease, PeerChannelKind kind)
{
    Lane *lane = &lanes[number];
    char text[LIMIT_TEXT + 1];
    int error;

    *lane = (Lane){.export = lease->export};
    rig_sockets(AF_INET, 0, rig_near_host, rig_far_host, &lane->near, &lane->far);
    lane->peer = peer_socket_new(lane->near);
    lane->link = (ServerLink){
        .fd = lane->far,
        .session = lease->session,
        .generation = GENERATION,
        .features = PEER_FEATURE_RDMA,
        .budget = &far_budget,
    };
    lane->channel = export_enter_channel(lane->export, lane->far, lease->session, kind, number);
    assert_non_null(lane->channel);
    lane->device = rdma_device_open(lane->near, &near_budget, text);
    assert_non_null(lane->device);
    lane->target =
        mmap(NULL, RIG_LENGTH, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    lane->landing =
        rdma_memory_new(lane->device, lane->target, RIG_LENGTH, RDMA_ACCESS_STAGE, &error);
    assert_non_null(lane->landing);
    lane->pair = rig_pair(lane->device, RIG_DEPTH);
    assert_int_equal(pthread_create(&lane->thread, NULL, serve_data, lane), 0);
    return lane;
}

PeerErrorCode ask_pair(Lane *lane)
{
    char text[LIMIT_TEXT + 1];

    memset(&message, 0, sizeof message);
    rdma_pair_describe(lane->pair, &message.rdma_connect.end);
    say(lane, PEER_RDMA_CONNECT);
    hear(lane, PEER_RDMA_CONNECTED);
    if (message.rdma_connected.code != PEER_ERROR_NONE)
        return message.rdma_connected.code;
    assert_int_equal(rdma_pair_connect(lane->pair, &message.rdma_connected.end, text), 0);
    lane->connected = true;
    return PEER_ERROR_NONE;
}

Lane *connect_lane(unsigned number, const Lease *lease, PeerChannelKind kind)
{
    Lane *lane = open_lane(number, lease, kind);

    if (ask_pair(lane) != PEER_ERROR_NONE)
        fail_msg("%s", message.rdma_connected.text);
    return lane;
}

void end_channel(Lane *lane)
{
    if (!lane->peer)
        return;
    peer_socket_free(lane->peer);
    pthread_join(lane->thread, NULL);
    close(lane->far);
    lane->peer = NULL;
}

void close_lane(Lane *lane)
{
    end_channel(lane);
    if (!lane->device)
        return;
    rdma_pair_free(lane->pair);
    rdma_memory_free(lane->landing);
    rdma_device_unref(lane->device);
    munmap(lane->target, RIG_LENGTH);
    lane->device = NULL;
}

PeerSpan ask_keys(Lane *lane, uint64_t page)
{
    memset(&message, 0, sizeof message);
    message.keys_request.page = page;
    say(lane, PEER_KEYS_REQUEST);
    hear(lane, PEER_KEYS);
    return message.keys.span;
}

bool read_pages(Lane *lane, const PeerSpan *span, uint64_t page, uint32_t count)
{
    RdmaRead read = {
        .to = lane->target,
        .lkey = rdma_memory_lkey(lane->landing),
        .length = count * RIG_PAGE,
        .from = span->address + (page - span->page) * RIG_PAGE,
        .rkey = span->rkey,
        .last = true,
    };
    const uint64_t *words = (const void *)lane->target;
    RdmaCompletion done;

    memset(lane->target, RIG_PATTERN, (size_t)count * RIG_PAGE);
    if (rdma_pair_read(lane->pair, &read))
        return false;
    if (!rig_wait(lane->pair, &done))
        fail_msg("a READ took longer than %d ms", RIG_BOUND_MS);
    if (done.failed)
        return false;
    for (uint64_t i = 0; i < (uint64_t)count * RIG_PAGE / 8; i++)
        assert_true(words[i] == rig_word(page * RIG_PAGE / 8 + i));
    return true;
}

void assert_over(Lane *lane, const PeerSpan *span)
{
    assert_false(read_pages(lane, span, span->page, 1));
}

/* --- set-up -------------------------------------------------------------------------------- */

static Export *make_export(uint8_t id)
{
    uint8_t uuid[LIMIT_UUID] = {id};
    RegionSet regions = {0};
    Export *export;
    int error;

    add_region(&regions, PAGES, RIG_PAGE, file);
    export = export_new(uuid, "guest", getpid(), &regions, ignore, NULL, &error);
    assert_non_null(export);
    return export;
}

Export *add_export(void)
{
    exports[1] = make_export(2);
    return exports[1];
}

int source_up(void **state)
{
    static uint64_t words[RIG_PAGE / 8];

    (void)state;
    near_budget = (RdmaBudget){.most = UINT64_C(1) << 30};
    far_budget = (RdmaBudget){.most = UINT64_C(1) << 30};
    file = memfd_create("ram", MFD_CLOEXEC);
    assert_int_equal(ftruncate(file, RIG_LENGTH), 0);
    for (uint64_t page = 0; page < PAGES; page = page == 99 ? 1000 : page + 1) {
        for (uint64_t i = 0; i < RIG_PAGE / 8; i++)
            words[i] = rig_word(page * RIG_PAGE / 8 + i);
        assert_int_equal(pwrite(file, words, RIG_PAGE, (off_t)(page * RIG_PAGE)), RIG_PAGE);
    }
    exports[0] = make_export(1);
    exports[1] = NULL;
    take_lease(0, exports[0]);
    return 0;
}

int source_down(void **state)
{
    (void)state;
    for (unsigned i = 0; i < CHANNELS; i++)
        close_lane(&lanes[i]);
    for (unsigned i = 0; i < 2; i++)
        if (exports[i])
            export_close(exports[i]);
    end_lease(0);
    end_lease(1);
    for (unsigned i = 0; i < 2; i++)
        export_unref(exports[i]);
    close(file);
    return atomic_load(&far_budget.used) || atomic_load(&near_budget.used);
}
