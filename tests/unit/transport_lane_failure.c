/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A lane that fails, and a channel that is dropped while READs are under way: what becomes of the fetches.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/unit/fake_pair.h"

static uint32_t land_all(const Fetch *fetch, uint32_t first, uint32_t count,
                         FetchLanding *ret_landing)
{
    if (fetch->region != 0 || fetch->page >= 100)
        return 0;
    *ret_landing =
        (FetchLanding){.memory = landing + (fetch->page + first) * PAGE, .lkey = FAKE_LANDING_LKEY};
    return count;
}

static int attach_lane(void)
{
    channel_drop(&channel, "for another");
    while (channel.fd >= 0)
        turn();
    downs = 0;
    make_landing();
    fake_lane((size_t)64 * PAGE, 32);
    connect_source();
    source_of = fake_source;
    return 0;
}

static int set_up_lane(void **state)
{
    set_up(state);
    return attach_lane();
}

static int set_up_urgent_lane(void **state)
{
    set_up_urgent(state);
    return attach_lane();
}

static int tear_down_lane(void **state)
{
    tear_down(state);
    assert_false(fake.there);
    drop_landing();
    return 0;
}

/* Down, and the device writes nothing any more by then. */
static void assert_down(const char *reason)
{
    turn_until(&downs, 1);
    assert_false(fake.there);
    assert_int_equal(fake.downs_at_free, 0);
    assert_string_equal(last_reason, reason);
    assert_int_equal(channel.fd, -1);
    assert_null(channel.lane);
}

/* What was outstanding, n fetches, is answered by TCP; nothing else is asked for. */
static void go_on_by_tcp(uint32_t n)
{
    PeerMessage asked;

    connect_source();
    read_request(PEER_READ);
    asked = request;
    assert_int_equal(asked.read.n, n);
    for (uint32_t i = 0; i < n; i++)
        reply(PEER_DATA, &asked.read.items[i], 0, asked.read.items[i].count);
    for (int i = 0; i < 1000 && channel.used > 0; i++)
        turn();
    assert_int_equal(channel.used, 0);
}

/* Of three fetches the first has come, the second fails. */
static void a_failed_read_takes_the_connection_down(void **state)
{
    (void)state;
    fake.fail_at = 1;
    for (unsigned i = 0; i < 3; i++)
        channel_fetch(&channel, 0, 100 + i * 2, 2);
    channel_flush(&channel);
    fake_execute(1);
    for (int i = 0; i < 5; i++)
        turn();
    fake_execute(1);
    assert_down("RDMA: the other end does not answer");
    assert_int_equal(channel.rdma_failures, 1);
    assert_seen_once(0, 100, 2);
    go_on_by_tcp(2);
    assert_seen_once(0, 100, 6);
    assert_false(spoiled[102] || spoiled[104]);
}

/* Else its thread would be woken again and again, for nothing. */
static void a_device_that_is_gone_takes_the_connection_down(void **state)
{
    (void)state;
    channel_fetch(&channel, 0, 100, 2);
    channel_flush(&channel);
    turn();
    assert_int_equal(downs, 0);
    fake_vanish();
    assert_down("RDMA: the device is gone");
    assert_int_equal(channel.rdma_failures, 1);
    assert_int_equal(channel.rdma_done, channel.rdma_reads);
    go_on_by_tcp(1);
    assert_seen_once(0, 100, 2);
}

static bool look_often(void)
{
    for (unsigned i = 0; i < CHANNEL_STALLED - 1; i++)
        assert_false(channel_has_stalled(&channel));
    return channel_has_stalled(&channel);
}

static void a_read_that_does_not_complete_is_noticed(void **state)
{
    (void)state;
    assert_false(look_often()); /* nothing is asked for */
    for (unsigned i = 0; i < 3; i++)
        channel_fetch(&channel, 0, 100 + i * 2, 2);
    channel_flush(&channel);
    for (unsigned i = 0; i < CHANNEL_STALLED / 2; i++)
        assert_false(channel_has_stalled(&channel));
    fake_execute(1);
    for (int i = 0; i < 5; i++)
        turn();
    assert_int_equal(channel.rdma_done, 1);
    assert_false(channel_has_stalled(&channel)); /* one has, since */
    assert_true(look_often());
    assert_true(channel_has_stalled(&channel));
    fake_execute(2);
    for (int i = 0; i < 5; i++)
        turn();
    assert_int_equal(channel.rdma_done, 3);
    assert_false(look_often());
    channel_fetch(&channel, 0, 90, 1);
    channel_flush(&channel);
    assert_false(channel_has_stalled(&channel));
    channel_drop(&channel, "for another");
    while (channel.fd >= 0)
        turn();
    assert_int_equal(channel.rdma_done, channel.rdma_reads);
    assert_false(look_often()); /* given up */
    downs = 0;
    go_on_by_tcp(1);
}

/* What was to land may have come in part; what was staged touched nobody's memory. */
static void what_was_to_land_is_marked(void **state)
{
    (void)state;
    landing_of = land_all;
    channel_fetch(&channel, 0, 10, 4);
    channel_fetch(&channel, 0, 100, 4);
    channel_fetch(&channel, 0, 20, 4);
    channel_flush(&channel);
    assert_true(channel_is_landing(&channel, 0));
    fake_execute(1);
    for (int i = 0; i < 5; i++)
        turn();
    assert_seen_once(0, 10, 4);
    fake.fail_at = 0;
    fake_execute(1);
    assert_down("RDMA: the other end does not answer");
    assert_false(channel_is_landing(&channel, 0));
    go_on_by_tcp(2);
    assert_false(spoiled[10]);
    assert_false(spoiled[100]);
    assert_true(spoiled[20]);
    assert_int_equal(seen[0][100] + seen[0][20] + seen[0][10], 3);
}

/* Over another lane, too. */
static void what_failed_is_asked_again_over_the_next_lane(void **state)
{
    (void)state;
    landing_of = land_all;
    channel_fetch(&channel, 0, 10, 4);
    channel_flush(&channel);
    fake.fail_at = 0;
    fake_execute(1);
    assert_down("RDMA: the other end does not answer");
    fake_lane((size_t)64 * PAGE, 32);
    connect_source();
    channel_flush(&channel);
    assert_int_equal(fake.posts, 1);
    fake_execute(1);
    for (int i = 0; i < 100 && channel.used > 0; i++)
        turn();
    assert_seen_once(0, 10, 4);
    assert_true(spoiled[10]);
}

static void a_refused_post_takes_the_connection_down(void **state)
{
    (void)state;
    channel_fetch(&channel, 0, 1, 1);
    channel_flush(&channel);
    channel_fetch(&channel, 0, 2, 1);
    channel_fetch(&channel, 0, 3, 1);
    fake.refuse = EPIPE;
    assert_down("RDMA: Broken pipe");
    assert_int_equal(channel.rdma_failures, 1);
    go_on_by_tcp(3);
    assert_seen_once(0, 1, 3);
}

static void a_completion_of_nothing_takes_the_connection_down(void **state)
{
    (void)state;
    fake.forge = true;
    channel_fetch(&channel, 0, 1, 1);
    channel_flush(&channel);
    fake_execute(1);
    assert_down("RDMA: a completion of no READ that is under way");
    go_on_by_tcp(1);
    assert_seen_once(0, 1, 1);
}

/* Keys that are refused are RDMA's fault; the same source without a lane has nothing to do with it. */
static void refused_keys_are_blamed_on_the_lane(void **state)
{
    PeerMessage answer = {
        .type = PEER_KEYS,
        .session = session,
        .generation = 1,
        .keys = {.region = SOURCE_REGION, .state = PEER_KEYS_NONE, .seal = SEAL + 1},
    };
    ssize_t length = peer_message_encode(&answer, bytes, sizeof bytes);

    (void)state;
    assert_true(length > 0);
    write_all(bytes, (size_t)length);
    turn_until(&downs, 1);
    assert_int_equal(channel.rdma_failures, 1);
    next_lane = NULL;
    connect_source();
    answer.session = session;
    length = peer_message_encode(&answer, bytes, sizeof bytes);
    write_all(bytes, (size_t)length);
    turn_until(&downs, 2);
    assert_int_equal(channel.rdma_failures, 1);
}

/* The connection's end is the lane's. */
static void the_connection_ends_first(void **state)
{
    (void)state;
    landing_of = land_all;
    channel_fetch(&channel, 0, 1, 4);
    turn();
    close(source);
    source = -1;
    assert_down("the source closed it");
    assert_int_equal(channel.rdma_failures, 0);
    go_on_by_tcp(1);
    assert_seen_once(0, 1, 4);
    assert_true(spoiled[1]);
}

/* Of those that wait for room, too. */
static void who_waits_is_asked_again(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 4; i++)
        channel_fetch(&channel, 0, i * 30, 30);
    turn();
    assert_int_equal(fake.posts, 2);
    channel_drop(&channel, "the link was lost");
    assert_down("the link was lost");
    go_on_by_tcp(4);
    assert_seen_once(0, 0, 120);
}

static unsigned told;

static void drop_at_the_second(Fetch *fetch, uint32_t first, uint32_t count)
{
    (void)fetch;
    (void)first;
    (void)count;
    if (++told != 2)
        return;
    channel_drop(&channel, "the sink would not have it");
    assert_int_equal(downs, 0); /* what it is being told of must stay */
    assert_true(fake.there);
}

/* Three keys, so three pieces of one fetch: two are handed over. */
static uint32_t two_pages(uint32_t region, uint64_t page, uint32_t count, FetchSource *ret_source)
{
    return fake_source(region, page, count < 2 ? count : 2, ret_source);
}

static void a_sink_may_drop_it_meanwhile(bool within_the_post)
{
    told = 0;
    while_told = drop_at_the_second;
    source_of = two_pages;
    fake.at_once = within_the_post;
    channel_fetch(&channel, 0, 30, 6);
    channel_fetch(&channel, 0, 40, 2);
    channel_flush(&channel);
    fake_execute(UINT32_MAX);
    assert_down("the sink would not have it");
    assert_int_equal(channel.rdma_failures, 0);
    assert_seen_once(0, 30, 4);
    connect_source();
    read_request(PEER_READ);
    assert_int_equal(request.read.n, 2);
    assert_int_equal(request.read.items[0].page, 34);
    assert_int_equal(request.read.items[0].count, 2);
    assert_int_equal(request.read.items[1].page, 40);
}

static void a_sink_may_drop_it_within_the_post(void **state)
{
    (void)state;
    a_sink_may_drop_it_meanwhile(true);
}

static void a_sink_may_drop_it_at_the_wake_up(void **state)
{
    (void)state;
    a_sink_may_drop_it_meanwhile(false);
}

/* An urgent channel that expects nothing over its connection, and so does not listen there. */
static void come_to_rest(void)
{
    PeerReadItem item;

    source_of = NULL;
    channel_fetch(&channel, 0, 200, 1);
    read_request(PEER_READ);
    item = request.read.items[0];
    reply(PEER_DATA, &item, 0, 1);
    for (int i = 0; i < 100 && channel.used > 0; i++)
        turn();
    assert_false(channel.receiving.busy);
    source_of = fake_source;
    memset(seen, 0, sizeof seen);
}

static void drop_at_once(Fetch *fetch, uint32_t first, uint32_t count)
{
    (void)fetch;
    (void)first;
    (void)count;
    while_told = NULL;
    channel_drop(&channel, "the sink would not have it");
    assert_int_equal(downs, 0);
    assert_true(fake.there);
}

/* Nothing but what is being handed over holds it up. */
static void a_sink_may_drop_it_where_nothing_is_awaited(void **state)
{
    (void)state;
    come_to_rest();
    fake.at_once = true;
    while_told = drop_at_once;
    channel_fetch(&channel, 0, 30, 2);
    channel_fetch(&channel, 0, 40, 2);
    channel_flush(&channel);
    assert_down("the sink would not have it");
    assert_seen_once(0, 30, 2);
    go_on_by_tcp(1);
    assert_int_equal(seen[0][40], 1);
}

/* A device alone may be long in noticing. */
static void the_connection_s_end_is_heard_while_it_reads(void **state)
{
    (void)state;
    come_to_rest();
    channel_fetch(&channel, 0, 30, 2);
    turn();
    assert_int_equal(fake_posted(), 1);
    close(source);
    source = -1;
    assert_down("the source closed it");
    go_on_by_tcp(1);
    assert_seen_once(0, 30, 2);
}

/* A source that answers what it was not asked would have the pages placed twice. */
static void an_answer_to_a_read_of_ours_is_nonsense(void **state)
{
    PeerReadItem item = {.region = SOURCE_REGION, .page = 1, .count = 1};

    (void)state;
    item.cookie = (uint64_t)(channel_fetch(&channel, 0, 1, 1) - channel.slots);
    turn();
    assert_int_equal(fake_posted(), 1);
    reply(PEER_DATA, &item, 0, 1);
    assert_down("the source sent a malformed or unexpected frame");
    assert_int_equal(seen[0][1], 0);
}

/* With READs under way. */
static void the_end_of_all(void **state)
{
    (void)state;
    landing_of = land_all;
    channel_fetch(&channel, 0, 1, 1);
    turn();
    assert_int_equal(fake_posted(), 1);
}

#define LANE_TEST(name)   cmocka_unit_test_setup_teardown(name, set_up_lane, tear_down_lane)
#define URGENT_TEST(name) cmocka_unit_test_setup_teardown(name, set_up_urgent_lane, tear_down_lane)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LANE_TEST(a_failed_read_takes_the_connection_down),
        LANE_TEST(a_device_that_is_gone_takes_the_connection_down),
        LANE_TEST(a_read_that_does_not_complete_is_noticed),
        LANE_TEST(what_was_to_land_is_marked),
        LANE_TEST(what_failed_is_asked_again_over_the_next_lane),
        LANE_TEST(a_refused_post_takes_the_connection_down),
        LANE_TEST(a_completion_of_nothing_takes_the_connection_down),
        LANE_TEST(the_connection_ends_first),
        LANE_TEST(refused_keys_are_blamed_on_the_lane),
        LANE_TEST(who_waits_is_asked_again),
        LANE_TEST(a_sink_may_drop_it_within_the_post),
        LANE_TEST(a_sink_may_drop_it_at_the_wake_up),
        URGENT_TEST(a_sink_may_drop_it_where_nothing_is_awaited),
        URGENT_TEST(the_connection_s_end_is_heard_while_it_reads),
        LANE_TEST(an_answer_to_a_read_of_ours_is_nonsense),
        LANE_TEST(the_end_of_all),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
