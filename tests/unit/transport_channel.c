/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Requests, answers and failures of a data channel.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/unit/channel_peer.h"

static void requests_go_out_in_one_batch(void **state)
{
    (void)state;
    channel_fetch(&channel, 0, 3, 1);
    channel_fetch(&channel, 0, 100, 16);
    channel_fetch(&channel, 1, 2, 1);
    read_request(PEER_READ);
    assert_int_equal(request.read.n, 3);
    assert_int_equal(request.read.items[1].region, SOURCE_REGION);
    assert_int_equal(request.read.items[1].page, 100);
    assert_int_equal(request.read.items[1].count, 16);
    assert_int_equal(request.read.items[2].region, SOURCE_REGION + 1);
    assert_int_equal(channel.used, 3);
}

static void slots_are_bounded_and_come_back(void **state)
{
    (void)state;
    for (unsigned i = 0; i < CHANNEL_SLOTS; i++) {
        assert_true(channel_has_room(&channel));
        channel_fetch(&channel, 0, i, 1);
    }
    assert_false(channel_has_room(&channel));
    read_request(PEER_READ);
    assert_int_equal(request.read.n, CHANNEL_SLOTS);
    for (unsigned i = CHANNEL_SLOTS; i-- > 0;) /* in any order */
        reply(i % 3 ? PEER_DATA : PEER_ZERO, &request.read.items[i], 0, 1);
    for (int i = 0; i < 2500 && channel.used > 0; i++)
        turn();
    assert_int_equal(channel.used, 0);
    assert_seen_once(0, 0, CHANNEL_SLOTS);
    assert_int_equal(zeroes, (CHANNEL_SLOTS + 2) / 3);
}

/* Two pages, one zero page, one page: as one item's answer. */
static size_t put_mixed(const PeerReadItem *item)
{
    PeerMessage a = reply_to(PEER_DATA, item, 0, 2);
    PeerMessage b = reply_to(PEER_ZERO, item, 2, 1);
    PeerMessage c = reply_to(PEER_DATA, item, 3, 1);
    size_t length = put_reply(bytes, &a, item);

    length += put_reply(bytes + length, &b, item);
    return length + put_reply(bytes + length, &c, item);
}

static void answers_may_be_split_anywhere(void **state)
{
    size_t length = PAGE;

    (void)state;
    for (size_t split = 1; split < length; split += 2) {
        memset(seen, 0, sizeof seen);
        channel_fetch(&channel, 0, split % 200, 4);
        read_request(PEER_READ);
        length = put_mixed(&request.read.items[0]);
        write_all(bytes, split);
        turn();
        write_all(bytes + split, length - split);
        for (int i = 0; i < 2500 && channel.used > 0; i++)
            turn();
        assert_seen_once(0, split % 200, 4);
    }
    assert_int_equal(downs, 0);
}

static void answers_may_come_in_crumbs(void **state)
{
    size_t length;

    (void)state;
    for (size_t crumb = 1; crumb < 60; crumb += 2) {
        memset(seen, 0, sizeof seen);
        channel_fetch(&channel, 0, 9, 4);
        read_request(PEER_READ);
        length = put_mixed(&request.read.items[0]);
        for (size_t at = 0; at < length; at += crumb) {
            write_all(bytes + at, length - at < crumb ? length - at : crumb);
            if (at % 16 == 0 || crumb > 20)
                turn();
        }
        for (int i = 0; i < 2500 && channel.used > 0; i++)
            turn();
        assert_seen_once(0, 9, 4);
    }
}

/* One page of a run cannot be read: only that one is asked again. */
static void a_bad_page_fails_alone(void **state)
{
    PeerReadItem item;

    (void)state;
    retry_failed = true;
    channel_fetch(&channel, 0, 60, 8);
    read_request(PEER_READ);
    item = request.read.items[0];
    reply(PEER_DATA, &item, 0, 3);
    reply(PEER_ERROR, &item, 3, 1);
    reply(PEER_DATA, &item, 4, 4);
    turn_until(&failures, 1);
    for (int k = 0; k < 20 && channel.used > 1; k++)
        turn();
    read_request(PEER_READ);
    assert_int_equal(request.read.n, 1);
    assert_int_equal(request.read.items[0].page, 63);
    assert_int_equal(request.read.items[0].count, 1);
    reply(PEER_DATA, &request.read.items[0], 0, 1);
    for (int k = 0; k < 100 && channel.used > 0; k++)
        turn();
    assert_seen_once(0, 60, 8);
    assert_int_equal(downs, 0);
}

static void huge_pages_fit_the_buffer(void **state)
{
    (void)state;
    for (uint64_t page = 0; page < 6; page++) {
        channel_fetch(&channel, 1, page, 1);
        channel_fetch(&channel, 0, page, 1);
    }
    read_request(PEER_READ);
    for (uint32_t i = 0; i < request.read.n; i++)
        reply(PEER_DATA, &request.read.items[i], 0, 1);
    for (int i = 0; i < 1000 && channel.used > 0; i++)
        turn();
    assert_seen_once(1, 0, 6);
    assert_seen_once(0, 0, 6);
}

/* Sends what spoil() makes of a sound reply; the channel must drop the connection. */
static void assert_dropped(void (*spoil)(PeerMessage *))
{
    unsigned before = downs;
    PeerReadItem item;
    PeerMessage message;

    channel_fetch(&channel, 0, 20, 4);
    read_request(PEER_READ);
    item = request.read.items[0];
    message = reply_to(PEER_DATA, &item, 0, 2);
    spoil(&message);
    write_all(bytes, put_reply(bytes, &message, &item));
    turn_until(&downs, before + 1);
    assert_int_equal(channel.fd, -1);
    assert_string_equal(last_reason, "the source sent a malformed or unexpected frame");
    assert_int_equal(seen[0][20], 0);
    connect_source(); /* and the next connection serves it */
    read_request(PEER_READ);
    reply(PEER_ZERO, &request.read.items[0], 0, 4);
    turn_until(&zeroes, 4);
    memset(seen, 0, sizeof seen);
    zeroes = 0;
}

static void spoil_seal(PeerMessage *m)
{
    m->placement.seal++;
}

static void spoil_session(PeerMessage *m)
{
    m->session++;
}

static void spoil_generation(PeerMessage *m)
{
    m->generation++;
}

static void spoil_cookie(PeerMessage *m)
{
    m->cookie = 63; /* nobody's */
}

static void spoil_cookie_range(PeerMessage *m)
{
    m->cookie = UINT64_C(1) << 40;
}

static void spoil_first(PeerMessage *m)
{
    m->placement.first = 1;
}

static void spoil_count(PeerMessage *m)
{
    m->placement.count = 5;
}

static void spoil_type(PeerMessage *m)
{
    m->type = PEER_RUNNING;
}

static void spoil_zero_count(PeerMessage *m)
{
    m->type = PEER_ZERO;
    m->placement.count = 0;
}

static void spoil_map(PeerMessage *m) /* of no region it asked for */
{
    m->type = PEER_MAP;
    memset(&m->map, 0, 64);
    m->map.region = 99;
}

static void nonsense_ends_the_connection_only(void **state)
{
    (void)state;
    assert_dropped(spoil_seal);
    assert_dropped(spoil_session);
    assert_dropped(spoil_generation);
    assert_dropped(spoil_cookie);
    assert_dropped(spoil_cookie_range);
    assert_dropped(spoil_first);
    assert_dropped(spoil_count);
    assert_dropped(spoil_type);
    assert_dropped(spoil_zero_count);
    assert_dropped(spoil_map);
}

/* Pages of another size than the region's. */
static void a_data_frame_of_another_page_size_ends_it(void **state)
{
    PeerMessage message;

    (void)state;
    channel_fetch(&channel, 0, 20, 1);
    read_request(PEER_READ);
    message = reply_to(PEER_DATA, &request.read.items[0], 0, 1);
    assert_true(peer_data_encode(&message, 2 * PAGE, bytes, 64) > 0);
    write_all(bytes, PEER_HEADER_SIZE + PEER_PLACEMENT_SIZE);
    turn_until(&downs, 1);
}

static void garbage_ends_it(void **state)
{
    (void)state;
    memset(bytes, 0xff, 100);
    write_all(bytes, 100);
    turn_until(&downs, 1);
}

static void only_what_never_came_is_asked_again(void **state)
{
    PeerReadItem item;
    PeerMessage message;
    size_t length;

    (void)state;
    channel_fetch(&channel, 0, 10, 8);
    channel_fetch(&channel, 0, 50, 2);
    read_request(PEER_READ);
    item = request.read.items[0];
    message = reply_to(PEER_DATA, &item, 0, 6);
    length = put_reply(bytes, &message, &item);
    write_all(bytes, length - 2 * PAGE - 100); /* three pages and most of the fourth */
    for (int i = 0; i < 100 && seen[0][12] == 0; i++)
        turn();
    close(source);
    source = -1;
    turn_until(&downs, 1);
    assert_string_equal(last_reason, "the source closed it");
    assert_int_equal(channel.used, 2);
    channel_fetch(&channel, 0, 70, 1); /* while there is no connection */
    connect_source();
    read_request(PEER_READ);
    assert_int_equal(request.read.n, 3);
    assert_int_equal(request.read.items[0].page, 13);
    assert_int_equal(request.read.items[0].count, 5);
    assert_int_equal(request.read.items[1].page, 50);
    assert_int_equal(request.read.items[1].count, 2);
    for (unsigned i = 0; i < 3; i++)
        reply(PEER_DATA, &request.read.items[i], 0, request.read.items[i].count);
    for (int i = 0; i < 2500 && channel.used > 0; i++)
        turn();
    for (uint64_t page = 0; page < PAGES; page++)
        assert_int_equal(seen[0][page],
                         (page >= 10 && page < 18) || page == 50 || page == 51 || page == 70);
}

static void a_failed_read_is_asked_again_later(void **state)
{
    (void)state;
    channel_fetch(&channel, 0, 30, 4);
    read_request(PEER_READ);
    reply(PEER_DATA, &request.read.items[0], 0, 1);
    reply(PEER_ERROR, &request.read.items[0], 1, 3);
    turn_until(&failures, 1);
    assert_int_equal(last_code, PEER_ERROR_IO);
    assert_int_equal(seen[0][30], 1);
    read_request(PEER_READ);
    assert_int_equal(request.read.items[0].page, 31);
    assert_int_equal(request.read.items[0].count, 3);
    reply(PEER_DATA, &request.read.items[0], 0, 3);
    for (int i = 0; i < 2500 && channel.used > 0; i++)
        turn();
    assert_seen_once(0, 30, 4);
}

static void a_failed_read_may_be_given_up(void **state)
{
    (void)state;
    retry_failed = false;
    channel_fetch(&channel, 0, 30, 4);
    read_request(PEER_READ);
    reply(PEER_ERROR, &request.read.items[0], 0, 4);
    turn_until(&failures, 1);
    assert_int_equal(channel.used, 0);
    assert_int_equal(downs, 0);
}

static void a_map_is_asked_for(void **state)
{
    PeerMessage map = {.type = PEER_MAP, .session = session, .generation = 1};
    ssize_t length;

    (void)state;
    channel_ask_map(&channel, 0, 40);
    read_request(PEER_MAP_REQUEST);
    assert_int_equal(request.map_request.region, SOURCE_REGION);
    assert_int_equal(request.map_request.page, 40);
    map.map.region = SOURCE_REGION;
    map.map.seal = SEAL;
    map.map.next = 100;
    map.map.n = 1;
    map.map.extents[0] = (PeerExtent){.page = 41, .count = 2};
    length = peer_message_encode(&map, bytes, sizeof bytes);
    write_all(bytes, (size_t)length);
    turn_until(&maps, 1);
    map.map.seal++;
    length = peer_message_encode(&map, bytes, sizeof bytes);
    write_all(bytes, (size_t)length);
    turn_until(&downs, 1);
    assert_int_equal(maps, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(requests_go_out_in_one_batch, set_up, tear_down),
        cmocka_unit_test_setup_teardown(slots_are_bounded_and_come_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(answers_may_be_split_anywhere, set_up, tear_down),
        cmocka_unit_test_setup_teardown(answers_may_come_in_crumbs, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_bad_page_fails_alone, set_up, tear_down),
        cmocka_unit_test_setup_teardown(huge_pages_fit_the_buffer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(nonsense_ends_the_connection_only, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_data_frame_of_another_page_size_ends_it, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(garbage_ends_it, set_up, tear_down),
        cmocka_unit_test_setup_teardown(only_what_never_came_is_asked_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_failed_read_is_asked_again_later, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_failed_read_may_be_given_up, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_map_is_asked_for, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
