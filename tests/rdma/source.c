/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An export as a destination's device sees it: what it may READ, and that nothing of it is READ any more once the
 * source runs again, ends, or belongs to another session.
 *
 * Usage: rdma_source NEAR-ADDRESS FAR-ADDRESS
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/source/export_rdma.h"
#include "daemon/source/server.h"
#include "tests/rdma/rig.h"
#include "tests/unit/core_regions.h"

enum {
    PAGES = RIG_LENGTH / RIG_PAGE,
    GENERATION = 1,
    CHANNELS = 4,
    RACES = 16,
};

/* A destination's control connection, and the source's thread that serves it. */
typedef struct Lease {
    PeerSocket *near, *far;
    uint32_t session;
    pthread_t thread;
} Lease;

/* A data channel with a pair, or without. */
typedef struct Lane {
    int near, far;
    PeerSocket *peer; /* of near */
    ExportChannel *channel;
    ServerLink link;
    RdmaDevice *device;
    RdmaPair *pair;
    uint8_t *target;
    RdmaMemory *landing;
    bool connected;
    pthread_t thread;
} Lane;

static Export *export;
static RdmaBudget near_budget, far_budget;
static Lease leases[2];
static Lane lanes[CHANNELS];
static PeerMessage message, control_message[2];
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

    export_serve_control(export, lease->far, &control_message[lease - leases]);
    return NULL;
}

static void take_lease(unsigned number)
{
    Lease *lease = &leases[number];
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
    lease->near = peer_socket_new(pair[0]);
    lease->far = peer_socket_new(pair[1]);
    assert_int_equal(pthread_create(&lease->thread, NULL, serve_control, lease), 0);
    assert_int_equal(peer_socket_receive(lease->near, &message, RIG_BOUND_MS), 0);
    assert_int_equal(message.type, PEER_ATTACHED);
    lease->session = message.session;
}

static void end_lease(unsigned number)
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

    server_run(export, lane->channel, &lane->link);
    export_leave_channel(export, lane->channel);
    shutdown(lane->far, SHUT_RDWR);
    return NULL;
}

static void say(Lane *lane, PeerMessageType type)
{
    message.type = type;
    message.session = lane->link.session;
    message.generation = GENERATION;
    message.cookie = 0;
    assert_int_equal(peer_socket_send(lane->peer, &message), 0);
}

static void hear(Lane *lane, PeerMessageType type)
{
    assert_int_equal(peer_socket_receive(lane->peer, &message, RIG_BOUND_MS), 0);
    assert_int_equal(message.type, type);
}

/* The near end, and the source's thread; no pair yet. */
static Lane *open_lane(unsigned number, const Lease *lease, PeerChannelKind kind)
{
    Lane *lane = &lanes[number];
    char text[LIMIT_TEXT + 1];
    int error;

    *lane = (Lane){0};
    rig_sockets(AF_INET, 0, rig_near_host, rig_far_host, &lane->near, &lane->far);
    lane->peer = peer_socket_new(lane->near);
    lane->link = (ServerLink){
        .fd = lane->far,
        .session = lease->session,
        .generation = GENERATION,
        .features = PEER_FEATURE_RDMA,
        .budget = &far_budget,
    };
    lane->channel = export_enter_channel(export, lane->far, lease->session, kind, number);
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

/* What the source answers; the pair is ready if that is NONE. */
static PeerErrorCode ask_pair(Lane *lane)
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

static Lane *connect_lane(unsigned number, const Lease *lease, PeerChannelKind kind)
{
    Lane *lane = open_lane(number, lease, kind);

    if (ask_pair(lane) != PEER_ERROR_NONE)
        fail_msg("%s", message.rdma_connected.text);
    return lane;
}

/* The TCP connection ends, and with it all of the source's part. */
static void end_channel(Lane *lane)
{
    if (!lane->peer)
        return;
    peer_socket_free(lane->peer);
    pthread_join(lane->thread, NULL);
    close(lane->far);
    lane->peer = NULL;
}

static void close_lane(Lane *lane)
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

static PeerSpan ask_keys(Lane *lane, uint64_t page)
{
    memset(&message, 0, sizeof message);
    message.keys_request.page = page;
    say(lane, PEER_KEYS_REQUEST);
    hear(lane, PEER_KEYS);
    return message.keys.span;
}

/* True if those pages of the span came, and are right. */
static bool read_pages(Lane *lane, const PeerSpan *span, uint64_t page, uint32_t count)
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

/* --- set-up -------------------------------------------------------------------------------- */

/* Pages 0 to 99 and all from 1000 on have content. */
static int set_up(void **state)
{
    static uint64_t words[RIG_PAGE / 8];
    uint8_t uuid[LIMIT_UUID] = {1};
    RegionSet regions = {0};
    int error;

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
    add_region(&regions, PAGES, RIG_PAGE, file);
    export = export_new(uuid, "guest", getpid(), &regions, ignore, NULL, &error);
    assert_non_null(export);
    take_lease(0);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    for (unsigned i = 0; i < CHANNELS; i++)
        close_lane(&lanes[i]);
    export_close(export);
    end_lease(0);
    end_lease(1);
    export_unref(export);
    close(file);
    /* All of it was given back. */
    return atomic_load(&far_budget.used) || atomic_load(&near_budget.used);
}

/* --- tests --------------------------------------------------------------------------------- */

static void content_is_read_with_the_keys_on_any_channel(void **state)
{
    Lane *bulk = connect_lane(0, &leases[0], PEER_CHANNEL_BULK);
    Lane *urgent = connect_lane(1, &leases[0], PEER_CHANNEL_URGENT);
    uint64_t seal = export_seal(export);
    ExportRdmaReport report;
    PeerSpan spans[2];

    (void)state;
    spans[0] = ask_keys(bulk, 0);
    assert_int_equal(message.keys.state, PEER_KEYS_SPAN);
    assert_true(message.keys.seal == seal);
    assert_int_equal(spans[0].count, 100);
    spans[1] = ask_keys(bulk, message.keys.next);
    assert_int_equal(spans[1].page, 1000);
    assert_int_equal(spans[1].count, PAGES - 1000);
    assert_int_equal(message.keys.next, PAGES);
    assert_true(read_pages(bulk, &spans[0], 0, 100));
    assert_true(read_pages(urgent, &spans[1], 1000, PAGES - 1000));
    assert_true(read_pages(urgent, &spans[0], 99, 1));
    export_rdma_report(export, &report);
    assert_int_equal(report.pairs, 2);
    assert_int_equal(report.spans, 2);
    assert_int_equal(report.pinned, (100 + PAGES - 1000) * RIG_PAGE);
    assert_int_equal(atomic_load(&far_budget.used), report.pinned);
    assert_string_equal(report.device, rdma_device_name(bulk->device));
    assert_string_equal(report.refusal, "");
}

/* Read by the destination's own device, not told by anybody. */
static void assert_over(Lane *lane, const PeerSpan *span)
{
    assert_false(read_pages(lane, span, 0, 1));
}

static void nothing_is_read_after_a_fence(void **state)
{
    Lane *bulk = connect_lane(0, &leases[0], PEER_CHANNEL_BULK);
    Lane *urgent = connect_lane(1, &leases[0], PEER_CHANNEL_URGENT);
    Lane *late = open_lane(2, &leases[0], PEER_CHANNEL_URGENT);
    PeerSpan span;

    (void)state;
    export_seal(export);
    span = ask_keys(bulk, 0);
    assert_true(read_pages(bulk, &span, 0, 1));
    assert_true(read_pages(urgent, &span, 0, 1));
    export_fence(export, "the source ran again");
    assert_over(bulk, &span);
    assert_over(urgent, &span);
    assert_int_equal(ask_pair(late), PEER_ERROR_REFUSED);
}

static void nothing_is_read_after_the_end(void **state)
{
    Lane *bulk = connect_lane(0, &leases[0], PEER_CHANNEL_BULK);
    PeerSpan span;

    (void)state;
    export_seal(export);
    span = ask_keys(bulk, 0);
    assert_true(read_pages(bulk, &span, 0, 1));
    export_close(export);
    assert_over(bulk, &span);
    end_channel(bulk);
    assert_int_equal(atomic_load(&far_budget.used), 0);
}

static void a_new_lease_ends_the_one_before(void **state)
{
    Lane *old = connect_lane(0, &leases[0], PEER_CHANNEL_BULK);
    Lane *new;
    PeerSpan old_span, new_span;

    (void)state;
    export_seal(export);
    old_span = ask_keys(old, 0);
    assert_true(read_pages(old, &old_span, 0, 1));
    take_lease(1);
    assert_over(old, &old_span);
    new = connect_lane(1, &leases[1], PEER_CHANNEL_BULK);
    new_span = ask_keys(new, 0);
    assert_true(read_pages(new, &new_span, 0, 1));
}

/* Two VMs of one host, or two sessions: a key is of no use in another. */
static void a_key_is_worth_nothing_in_another_session(void **state)
{
    Lane *old = connect_lane(0, &leases[0], PEER_CHANNEL_BULK);
    Lane *new;
    PeerSpan span;

    (void)state;
    export_seal(export);
    span = ask_keys(old, 0);
    assert_true(read_pages(old, &span, 0, 1));
    take_lease(1);
    new = connect_lane(1, &leases[1], PEER_CHANNEL_BULK);
    assert_over(new, &span);
}

static void a_channel_that_ends_is_read_through_no_more(void **state)
{
    Lane *bulk = connect_lane(0, &leases[0], PEER_CHANNEL_BULK);
    Lane *urgent = connect_lane(1, &leases[0], PEER_CHANNEL_URGENT);
    PeerSpan span;

    (void)state;
    export_seal(export);
    span = ask_keys(bulk, 0);
    assert_true(read_pages(bulk, &span, 0, 1));
    end_channel(bulk);
    assert_over(bulk, &span);
    assert_true(read_pages(urgent, &span, 5, 10)); /* what is shared stays with the others */
    assert_int_equal(atomic_load(&far_budget.used), span.count * RIG_PAGE);
    end_channel(urgent);
    assert_int_equal(atomic_load(&far_budget.used), 0);
}

static void what_was_done_with_is_read_no_more(void **state)
{
    Lane *bulk = connect_lane(0, &leases[0], PEER_CHANNEL_BULK);
    PeerSpan spans[2];

    (void)state;
    far_budget.most = 8 << 20; /* of which half is the reserve */
    export_seal(export);
    spans[0] = ask_keys(bulk, 1000);
    assert_int_equal(spans[0].count, 1024); /* as much as may be pinned */
    ask_keys(bulk, 0);
    assert_int_equal(message.keys.state, PEER_KEYS_FULL);
    message.keys_done.id = spans[0].id;
    say(bulk, PEER_KEYS_DONE);
    spans[1] = ask_keys(bulk, 0);
    assert_int_equal(message.keys.state, PEER_KEYS_SPAN);
    assert_true(read_pages(bulk, &spans[1], 0, 1));
    assert_true(atomic_load(&far_budget.peak) <= rdma_budget_reserve(&far_budget));
    assert_false(read_pages(bulk, &spans[0], 1000, 1));
}

/* --- a fence while a pair is made ---------------------------------------------------------- */

static void *fence_soon(void *argument)
{
    usleep(*(useconds_t *)argument);
    export_fence(export, "the source ran again");
    return NULL;
}

/* Whenever it comes, no pair is left that reads; the key is one of before. */
static void a_fence_breaks_pairs_that_are_being_made(void **state)
{
    unsigned made = 0, refused = 0;

    for (unsigned i = 0; i < RACES; i++) {
        useconds_t delay = i * 150;
        Lane *bulk, *late;
        pthread_t thread;
        PeerSpan span;

        if (i > 0)
            assert_int_equal(set_up(state), 0);
        bulk = connect_lane(0, &leases[0], PEER_CHANNEL_BULK);
        export_seal(export);
        span = ask_keys(bulk, 0);
        late = open_lane(1, &leases[0], PEER_CHANNEL_URGENT);
        assert_int_equal(pthread_create(&thread, NULL, fence_soon, &delay), 0);
        if (ask_pair(late) == PEER_ERROR_NONE)
            made++;
        else
            refused++;
        pthread_join(thread, NULL);
        assert_over(bulk, &span);
        if (late->connected)
            assert_over(late, &span);
        if (i + 1 < RACES)
            assert_int_equal(tear_down(state), 0);
    }
    printf("# pairs made before the fence: %u, refused after it: %u\n", made, refused);
}

int main(int argc, char **argv)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(content_is_read_with_the_keys_on_any_channel),
        TEST(nothing_is_read_after_a_fence),
        TEST(nothing_is_read_after_the_end),
        TEST(a_new_lease_ends_the_one_before),
        TEST(a_key_is_worth_nothing_in_another_session),
        TEST(a_channel_that_ends_is_read_through_no_more),
        TEST(what_was_done_with_is_read_no_more),
        TEST(a_fence_breaks_pairs_that_are_being_made),
    };

    if (argc != 3) {
        fprintf(stderr, "usage: %s NEAR-ADDRESS FAR-ADDRESS\n", argv[0]);
        return 2;
    }
    rig_near_host = argv[1];
    rig_far_host = argv[2];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
