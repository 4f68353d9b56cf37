/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What of a channel goes over its lane, as which READs, and how it is handed over.
 */
#include <string.h>
#include <sys/socket.h>

#include "daemon/core/clock.h"
#include "tests/unit/fake_pair.h"

enum { STAGING_PAGES = 8, DEPTH = 16 };

/* Region 0's pages have keys in spans of ten pages, but for those in [unkeyed, unkeyed + 1). */
static uint64_t unkeyed;

static uint32_t spans_of_ten(uint32_t region, uint64_t page, uint32_t count,
                             FetchSource *ret_source)
{
    uint64_t end = (page / 10 + 1) * 10;

    if (page == unkeyed || region != 0)
        return 0;
    if (page < unkeyed && unkeyed < end)
        end = unkeyed;
    return fake_source(region, page, end - page < count ? (uint32_t)(end - page) : count,
                       ret_source);
}

/* Region 0's pages below this land. */
static uint64_t landable;

static uint32_t land_below(const Fetch *fetch, uint32_t first, uint32_t count,
                           FetchLanding *ret_landing)
{
    uint64_t page = fetch->page + first;

    if (fetch->region != 0 || page >= landable)
        return 0;
    *ret_landing = (FetchLanding){.memory = landing + page * PAGE, .lkey = FAKE_LANDING_LKEY};
    return landable - page < count ? (uint32_t)(landable - page) : count;
}

static void attach_lane(size_t pages, unsigned depth)
{
    channel_drop(&channel, "for another");
    while (channel.fd >= 0)
        turn();
    downs = 0;
    fake_lane(pages * PAGE, depth);
    connect_source();
    turn(); /* whoever got a connection has something to do first */
    source_of = fake_source;
    unkeyed = UINT64_MAX;
    landable = 0;
}

static int set_up_lane(void **state)
{
    set_up(state);
    attach_lane(STAGING_PAGES, DEPTH);
    return 0;
}

static int tear_down_lane(void **state)
{
    tear_down(state);
    assert_false(fake.there);
    if (landing)
        drop_landing();
    return 0;
}

static void finish_all(void)
{
    for (int i = 0; i < 1000 && channel.used > 0; i++) {
        channel_flush(&channel);
        fake_execute(UINT32_MAX);
        assert_int_equal(ring_wait(&ring, 1), 0);
    }
    assert_int_equal(channel.used, 0);
}

static bool nothing_sent(void)
{
    uint8_t byte;

    return recv(source, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0;
}

/* --- READs ----------------------------------------------------------------------------------- */

static void a_page_with_a_key_needs_no_frame(void **state)
{
    (void)state;
    channel_fetch(&channel, 0, 3, 1);
    channel_flush(&channel);
    assert_int_equal(fake.posts, 1);
    assert_int_equal(fake.last.length, PAGE);
    assert_int_equal(seen[0][3], 0);
    finish_all();
    assert_seen_once(0, 3, 1);
    assert_true(nothing_sent());
    assert_int_equal(channel.rdma_reads, 1);
    assert_int_equal(channel.rdma_bytes, PAGE);
    assert_int_equal(channel.rdma_staged_pages, 1);
    assert_int_equal(channel.rdma_landed_pages, 0);
}

/* One READ for each key, and only the last one is told of. */
static void a_fetch_is_cut_where_keys_end(void **state)
{
    (void)state;
    attach_lane(64, DEPTH);
    source_of = spans_of_ten;
    channel_fetch(&channel, 0, 5, 20);
    channel_flush(&channel);
    assert_int_equal(fake.posts, 3);
    assert_int_equal(fake.told, 1);
    assert_true(fake.last.last);
    assert_int_equal(fake.last.length, 5 * PAGE);
    fake_execute(2); /* nobody is told of these */
    turn();
    assert_int_equal(seen[0][5], 0);
    fake_execute(1);
    for (int i = 0; i < 10; i++)
        turn();
    assert_seen_once(0, 5, 20);
    assert_int_equal(channel.used, 0);
}

static void a_page_without_a_key_takes_its_fetch_along(void **state)
{
    (void)state;
    source_of = spans_of_ten;
    unkeyed = 7;
    channel_fetch(&channel, 0, 5, 4);
    read_request(PEER_READ);
    assert_int_equal(request.read.n, 1);
    assert_int_equal(request.read.items[0].page, 5);
    assert_int_equal(request.read.items[0].count, 4);
    assert_int_equal(fake.posts, 0);
    reply(PEER_DATA, &request.read.items[0], 0, 4);
    for (int i = 0; i < 100 && channel.used > 0; i++)
        turn();
    assert_seen_once(0, 5, 4);
    assert_int_equal(channel.rdma_reads, 0);
}

static void both_ways_at_once(void **state)
{
    (void)state;
    source_of = spans_of_ten;
    unkeyed = 50;
    channel_fetch(&channel, 0, 50, 1);
    channel_fetch(&channel, 0, 51, 3);
    channel_fetch(&channel, 1, 2, 1);
    channel_fetch(&channel, 0, 60, 2);
    read_request(PEER_READ);
    assert_int_equal(request.read.n, 2);
    assert_int_equal(request.read.items[0].page, 50);
    assert_int_equal(request.read.items[1].region, SOURCE_REGION + 1);
    assert_int_equal(fake.posts, 2);
    reply(PEER_DATA, &request.read.items[1], 0, 1);
    fake_execute(1);
    reply(PEER_DATA, &request.read.items[0], 0, 1);
    fake_execute(1);
    for (int i = 0; i < 1000 && channel.used > 0; i++)
        turn();
    assert_int_equal(channel.used, 0);
    assert_int_equal(seen[1][2], 1);
    for (uint64_t page = 0; page < PAGES; page++)
        assert_int_equal(seen[0][page], (page >= 50 && page < 54) || (page >= 60 && page < 62));
    assert_int_equal(downs, 0);
}

/* What the source could not read is asked for where it says why. */
static void a_failed_page_is_asked_again_by_tcp(void **state)
{
    (void)state;
    source_of = NULL;
    channel_fetch(&channel, 0, 9, 1);
    read_request(PEER_READ);
    source_of = fake_source;
    reply(PEER_ERROR, &request.read.items[0], 0, 1);
    turn_until(&failures, 1);
    read_request(PEER_READ);
    assert_int_equal(request.read.items[0].page, 9);
    assert_int_equal(fake.posts, 0);
    reply(PEER_DATA, &request.read.items[0], 0, 1);
    for (int i = 0; i < 100 && channel.used > 0; i++)
        turn();
    assert_seen_once(0, 9, 1);
}

/* --- where pages go -------------------------------------------------------------------------- */

static void pages_land_where_they_can(void **state)
{
    (void)state;
    make_landing();
    landing_of = land_below;
    landable = 6;
    channel_fetch(&channel, 0, 2, 7);
    channel_flush(&channel);
    assert_int_equal(fake.posts, 2);
    assert_int_equal(fake.told, 1);
    assert_int_equal(fake.last.lkey, FAKE_LKEY);
    assert_int_equal(fake.last.length, 3 * PAGE);
    assert_true(channel_is_landing(&channel, 0));
    assert_false(channel_is_landing(&channel, 1));
    finish_all();
    assert_false(channel_is_landing(&channel, 0));
    assert_seen_once(0, 2, 7);
    assert_int_equal(landed, 4);
    assert_int_equal(channel.rdma_landed_pages, 4);
    assert_int_equal(channel.rdma_staged_pages, 3);
}

/* All of it is pages that land: of staging nothing is needed, however small it is. */
static void what_lands_needs_no_staging(void **state)
{
    (void)state;
    make_landing();
    landing_of = land_below;
    landable = PAGES;
    for (unsigned i = 0; i < 4; i++)
        channel_fetch(&channel, 0, i * 32, 32);
    channel_flush(&channel);
    assert_int_equal(fake.posts, 4);
    finish_all();
    assert_seen_once(0, 0, 128);
    assert_int_equal(landed, 128);
}

static void staging_is_given_out_round_and_round(void **state)
{
    uint64_t page = 0;
    uint32_t seed = 1;

    (void)state;
    while (page + 4 < PAGES) {
        uint32_t count;

        seed = seed * 1103515245 + 12345;
        count = 1 + (seed >> 16) % 4;
        channel_fetch(&channel, 0, page, count);
        page += count;
        channel_flush(&channel);
        /* Some are complete and not handed over, some are not complete, when the next is posted. */
        fake_execute((seed >> 20) % 3);
        if ((seed >> 24) % 3 == 0 || channel.used > CHANNEL_SLOTS - 2)
            turn();
        assert_true(channel_has_room(&channel));
    }
    finish_all();
    assert_seen_once(0, 0, page);
    assert_true(nothing_sent());
    assert_int_equal(downs, 0);
}

/* Nothing that waits goes by TCP instead, nor is it overtaken. */
static void who_finds_no_staging_waits_its_turn(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 5; i++)
        channel_fetch(&channel, 0, i * 10, i == 2 ? 4 : 3);
    channel_flush(&channel);
    assert_int_equal(fake.posts, 2);
    channel_fetch(&channel, 0, 60, 1); /* there would be room for this one */
    for (int i = 0; i < 5; i++)
        turn();
    assert_int_equal(fake.posts, 2);
    fake_execute(1);
    for (int i = 0; i < 5; i++)
        turn();
    assert_int_equal(seen[0][0], 1);
    assert_int_equal(fake.posts, 2); /* what is free does not lie together */
    fake_execute(1);
    for (int i = 0; i < 5; i++)
        turn();
    assert_int_equal(fake.posts, 4);
    assert_int_equal(fake.last.length, 3 * PAGE);
    fake_execute(1);
    for (int i = 0; i < 5; i++)
        turn();
    assert_int_equal(seen[0][20], 1);
    assert_int_equal(fake.posts, 6);
    finish_all();
    assert_int_equal(fake.posts, 6);
    assert_true(nothing_sent());
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(seen[0][i * 10], 1);
    assert_int_equal(seen[0][23], 1);
    assert_int_equal(seen[0][60], 1);
}

static void who_finds_the_queue_full_waits_its_turn(void **state)
{
    (void)state;
    attach_lane(64, 4);
    for (unsigned i = 0; i < 10; i++)
        channel_fetch(&channel, 0, i, 1);
    channel_flush(&channel);
    assert_int_equal(fake.posts, 4);
    finish_all();
    assert_seen_once(0, 0, 10);
    assert_true(nothing_sent());
}

/* Half of staging is what can always be had at once. */
static void what_never_fits_goes_by_tcp(void **state)
{
    (void)state;
    source_of = spans_of_ten;
    channel_fetch(&channel, 0, 0, STAGING_PAGES / 2 + 1);
    channel_fetch(&channel, 0, 20, STAGING_PAGES / 2);
    read_request(PEER_READ);
    assert_int_equal(request.read.n, 1);
    assert_int_equal(request.read.items[0].page, 0);
    assert_int_equal(fake.posts, 1);
    reply(PEER_DATA, &request.read.items[0], 0, STAGING_PAGES / 2 + 1);
    finish_all();
    attach_lane(64, 2);
    source_of = spans_of_ten;
    channel_fetch(&channel, 0, 105, 20); /* three keys */
    read_request(PEER_READ);
    assert_int_equal(request.read.items[0].count, 20);
    assert_int_equal(fake.posts, 0);
    reply(PEER_DATA, &request.read.items[0], 0, 20);
    finish_all();
    assert_int_equal(seen[0][4], 1);
    assert_int_equal(seen[0][23], 1);
    assert_int_equal(seen[0][124], 1);
}

/* --- waiting --------------------------------------------------------------------------------- */

static uint64_t wait_ms_long(void)
{
    uint64_t before = clock_ns();

    channel_flush(&channel);
    assert_int_equal(ring_wait(&ring, 5000), 0);
    return (clock_ns() - before) / 1000000;
}

/* Whoever owns the channel may have waited for a slot, and nothing else is to come. */
static void what_came_within_the_post_lets_nobody_sleep(void **state)
{
    (void)state;
    fake.at_once = true;
    for (unsigned i = 0; i < CHANNEL_SLOTS; i++)
        channel_fetch(&channel, 0, i, 1);
    assert_true(wait_ms_long() < 2000);
    assert_seen_once(0, 0, CHANNEL_SLOTS);
    assert_int_equal(channel.used, 0);
    assert_int_equal(fake.arms, 0);
    assert_false(ring.hurried); /* once */
}

static void what_came_before_the_arming_is_found(void **state)
{
    (void)state;
    fake.before_arm = true;
    channel_fetch(&channel, 0, 8, 1);
    assert_true(wait_ms_long() < 2000);
    assert_seen_once(0, 8, 1);
}

static void what_comes_later_wakes(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 20; i++) {
        channel_fetch(&channel, 0, i, 1);
        turn(); /* slept for a moment, and asked to be told before */
        fake_execute(1);
        assert_true(wait_ms_long() < 2000);
        assert_int_equal(channel.used, 0);
        assert_int_equal(fake.arms, i + 1);
    }
    assert_seen_once(0, 0, 20);
}

/* Found by who looked before sleeping; then its event is there and nothing with it. */
static void an_event_may_come_late(void **state)
{
    (void)state;
    channel_fetch(&channel, 0, 1, 1);
    turn(); /* armed */
    assert_int_equal(fake.arms, 1);
    fake_execute(1);
    channel_fetch(&channel, 0, 2, 1);
    channel_flush(&channel); /* hands over the first */
    assert_seen_once(0, 1, 1);
    assert_int_equal(ring_wait(&ring, 1), 0);
    assert_int_equal(ring_wait(&ring, 1), 0);
    channel_flush(&channel);
    fake_execute(1);
    assert_true(wait_ms_long() < 2000);
    assert_seen_once(0, 1, 2);
    assert_int_equal(channel.used, 0);
}

static uint64_t more_at;

static void fetch_one_more(Fetch *fetch, uint32_t first, uint32_t count)
{
    (void)fetch;
    (void)first;
    (void)count;
    if (more_at < 200 && channel_has_room(&channel))
        channel_fetch(&channel, 0, more_at++, 1);
}

static void more_may_be_fetched_meanwhile(void **state)
{
    (void)state;
    uint64_t before = clock_ns();

    fake.at_once = true;
    while_told = fetch_one_more;
    channel_fetch(&channel, 0, 0, 1);
    more_at = 1;
    channel_flush(&channel);
    for (unsigned i = 0; i < 400 && channel.used > 0; i++) {
        assert_int_equal(ring_wait(&ring, 5000), 0);
        assert_true(clock_ns() - before < 2000000000U);
        channel_flush(&channel);
    }
    assert_seen_once(0, 0, 200);
    assert_true(nothing_sent());
}

static uint64_t look_ms_long(void)
{
    uint64_t before = clock_ns();

    spin_init(&ring.spin, UINT64_C(4000000000));
    assert_int_equal(ring_wait(&ring, 5000), 0);
    assert_int_equal(ring.spin.hits, 1);
    spin_init(&ring.spin, 0);
    return (clock_ns() - before) / 1000000;
}

/* A ring that looks before it sleeps need not be woken, so nobody asks the device for that. */
static void a_ring_that_looks_finds_it(void **state)
{
    (void)state;
    fake.mute = true;
    channel_fetch(&channel, 0, 5, 1);
    channel_flush(&channel);
    assert_int_equal(ring_wait(&ring, 0), 0); /* whatever else there is */
    fake_execute(1);
    assert_true(look_ms_long() < 2000);
    assert_seen_once(0, 5, 1);
    assert_int_equal(fake.arms, 0);
}

/* Its channel is dropped then, which somebody has to go on with. */
static void a_ring_that_looks_finds_a_failure(void **state)
{
    (void)state;
    fake.mute = true;
    fake.fail_at = 0;
    channel_fetch(&channel, 0, 5, 1);
    channel_flush(&channel);
    assert_int_equal(ring_wait(&ring, 0), 0);
    fake_execute(1);
    assert_true(look_ms_long() < 2000);
    assert_true(channel.fd < 0 || channel.reason);
    assert_int_equal(channel.rdma_failures, 1);
}

/* Whoever has always something else to do never sleeps, and hears of it all the same. */
static void who_never_sleeps_finds_it(void **state)
{
    (void)state;
    fake.mute = true;
    channel_fetch(&channel, 0, 6, 1);
    channel_flush(&channel);
    fake_execute(1);
    ring_hurry(&ring);
    turn();
    assert_seen_once(0, 6, 1);
    assert_int_equal(fake.arms, 0);
}

#define LANE_TEST(name) cmocka_unit_test_setup_teardown(name, set_up_lane, tear_down_lane)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LANE_TEST(a_page_with_a_key_needs_no_frame),
        LANE_TEST(a_fetch_is_cut_where_keys_end),
        LANE_TEST(a_page_without_a_key_takes_its_fetch_along),
        LANE_TEST(both_ways_at_once),
        LANE_TEST(a_failed_page_is_asked_again_by_tcp),
        LANE_TEST(pages_land_where_they_can),
        LANE_TEST(what_lands_needs_no_staging),
        LANE_TEST(staging_is_given_out_round_and_round),
        LANE_TEST(who_finds_no_staging_waits_its_turn),
        LANE_TEST(who_finds_the_queue_full_waits_its_turn),
        LANE_TEST(what_never_fits_goes_by_tcp),
        LANE_TEST(what_came_within_the_post_lets_nobody_sleep),
        LANE_TEST(what_came_before_the_arming_is_found),
        LANE_TEST(what_comes_later_wakes),
        LANE_TEST(an_event_may_come_late),
        LANE_TEST(more_may_be_fetched_meanwhile),
        LANE_TEST(a_ring_that_looks_finds_it),
        LANE_TEST(a_ring_that_looks_finds_a_failure),
        LANE_TEST(who_never_sleeps_finds_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
