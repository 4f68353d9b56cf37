/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where pages come to lie: long runs in place, a single page together with its head.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/unit/channel_peer.h"

/* Pages 0-7, then 8 zero pages, then 16-31. */
static size_t put_landing(const PeerReadItem *item)
{
    PeerMessage a = reply_to(PEER_DATA, item, 0, 8);
    PeerMessage b = reply_to(PEER_ZERO, item, 8, 8);
    PeerMessage c = reply_to(PEER_DATA, item, 16, 16);
    size_t length = put_reply(bytes, &a, item);

    length += put_reply(bytes + length, &b, item);
    return length + put_reply(bytes + length, &c, item);
}

static void long_answers_land_in_place(void **state)
{
    static const size_t splits[] = {1,    24,    47,    48,    49,    4143,  4144,
                                    4145, 32815, 32816, 32817, 32864, 32912, 40000};
    size_t length;

    (void)state;
    make_landing();
    for (unsigned i = 0; i < sizeof splits / sizeof splits[0]; i++) {
        memset(seen, 0, sizeof seen);
        memset(landing, 0xa5, PAGES * PAGE);
        landed = 0;
        channel_fetch(&channel, 0, i, 32);
        read_request(PEER_READ);
        length = put_landing(&request.read.items[0]);
        write_all(bytes, splits[i]);
        turn();
        write_all(bytes + splits[i], length - splits[i]);
        for (int k = 0; k < 100 && channel.used > 0; k++)
            turn();
        assert_seen_once(0, i, 32);
        assert_int_equal(landed, 24);
        /* Neither before, nor where zeroes were told, nor behind. */
        assert_true(i == 0 || landing[i * PAGE - 1] == 0xa5);
        for (uint64_t at = (i + 8) * PAGE; at < (i + 16) * PAGE; at++)
            assert_int_equal(landing[at], 0xa5);
        assert_int_equal(landing[(i + 32) * PAGE], 0xa5);
    }
    assert_int_equal(downs, 0);
    drop_landing();
}

/* What was received of a page counts for nothing, but that it spoiled the place. */
static void a_landing_that_is_cut_short_is_told(void **state)
{
    PeerMessage message;
    size_t length;

    (void)state;
    make_landing();
    channel_fetch(&channel, 0, 40, 16);
    read_request(PEER_READ);
    message = reply_to(PEER_DATA, &request.read.items[0], 0, 16);
    length = put_reply(bytes, &message, &request.read.items[0]);
    write_all(bytes, length - 10 * PAGE - 100);
    for (int k = 0; k < 20; k++)
        turn();
    close(source);
    source = -1;
    turn_until(&downs, 1);
    assert_seen_once(0, 40, 5);
    connect_source();
    read_request(PEER_READ);
    assert_int_equal(request.read.items[0].page, 45);
    assert_int_equal(request.read.items[0].count, 11);
    assert_true(channel.slots[request.read.items[0].cookie].spoiled);
    reply(PEER_DATA, &request.read.items[0], 0, 11);
    for (int k = 0; k < 100 && channel.used > 0; k++)
        turn();
    assert_seen_once(0, 40, 16);
    drop_landing();
}

/* --- a single page ------------------------------------------------------------------------- */

static void ask_one(uint64_t page)
{
    memset(seen, 0, sizeof seen);
    memset(landing, 0xa5, PAGES * PAGE);
    landed = 0;
    channel_fetch(&channel, 0, page, 1);
    read_request(PEER_READ);
}

static void turn_until_idle(void)
{
    for (int i = 0; i < 1000 && channel.used > 0; i++)
        turn();
    assert_int_equal(channel.used, 0);
}

static void assert_untouched_around(uint64_t page)
{
    assert_int_equal(landing[page * PAGE - 1], 0xa5);
    assert_int_equal(landing[(page + 1) * PAGE], 0xa5);
}

/* Between faults nothing is received, so that the next one decides where its page goes. */
static void a_single_page_lands_with_its_head(void **state)
{
    (void)state;
    make_landing();
    for (uint64_t page = 10; page < 20; page++) {
        ask_one(page);
        reply(PEER_DATA, &request.read.items[0], 0, 1);
        turn_until_idle();
        assert_seen_once(0, page, 1);
        assert_int_equal(landed, page > 10); /* the first was expected like any other */
        if (landed)
            assert_untouched_around(page);
        assert_false(channel.receiving.busy);
    }
    assert_int_equal(downs, 0);
    drop_landing();
}

static void warm_up(void)
{
    ask_one(1);
    reply(PEER_DATA, &request.read.items[0], 0, 1);
    turn_until_idle();
}

static void a_single_page_may_be_split_anywhere(void **state)
{
    static const size_t splits[] = {1, 23, 47, 48, 49, 100, 2000, 4095, 4096, 4097, 4143};
    size_t length;

    (void)state;
    make_landing();
    warm_up();
    for (unsigned i = 0; i < sizeof splits / sizeof splits[0]; i++) {
        PeerMessage message;

        ask_one(30 + i);
        message = reply_to(PEER_DATA, &request.read.items[0], 0, 1);
        length = put_reply(bytes, &message, &request.read.items[0]);
        write_all(bytes, splits[i]);
        turn();
        turn();
        assert_int_equal(channel.used, 1);
        write_all(bytes + splits[i], length - splits[i]);
        turn_until_idle();
        assert_seen_once(0, 30 + i, 1);
        assert_untouched_around(30 + i);
    }
    assert_int_equal(downs, 0);
    drop_landing();
}

/* Its answer is short, and what follows it comes to lie in the page: it is moved, and the page spoiled. */
static void what_follows_a_zero_page_is_no_page(void **state)
{
    static const size_t splits[] = {48, 49, 96, 100, 2048, 4144, 4145, 4192};
    PeerReadItem first, second;
    PeerMessage zero, data;
    size_t length;

    (void)state;
    make_landing();
    warm_up();
    for (unsigned i = 0; i < sizeof splits / sizeof splits[0]; i++) {
        ask_one(50);
        first = request.read.items[0];
        channel_fetch(&channel, 0, 60, 1);
        read_request(PEER_READ);
        second = request.read.items[0];
        zero = reply_to(PEER_ZERO, &first, 0, 1);
        data = reply_to(PEER_DATA, &second, 0, 1);
        length = put_reply(bytes, &zero, &first);
        length += put_reply(bytes + length, &data, &second);
        write_all(bytes, splits[i]);
        if (i % 2)
            turn();
        write_all(bytes + splits[i], length - splits[i]);
        turn_until_idle();
        assert_int_equal(seen[0][50], 1);
        assert_int_equal(seen[0][60], 1);
        assert_int_equal(landing[50 * PAGE] != 0xa5, channel.slots[first.cookie].spoiled);
        assert_untouched_around(50);
    }
    assert_int_equal(zeroes, sizeof splits / sizeof splits[0]);
    assert_int_equal(downs, 0);
    drop_landing();
}

/* The source may answer in any order. */
static void another_page_s_answer_may_come_first(void **state)
{
    PeerReadItem first;

    (void)state;
    make_landing();
    warm_up();
    ask_one(70);
    first = request.read.items[0];
    channel_fetch(&channel, 0, 80, 1);
    read_request(PEER_READ);
    reply(PEER_DATA, &request.read.items[0], 0, 1);
    reply(PEER_DATA, &first, 0, 1);
    turn_until_idle();
    assert_int_equal(seen[0][70], 1);
    assert_int_equal(seen[0][80], 1);
    assert_int_equal(landing[80 * PAGE], 0xa5); /* only page 70 had been given its place */
    assert_int_equal(downs, 0);
    drop_landing();
}

static void a_single_page_cut_short_is_asked_again(void **state)
{
    PeerMessage message;

    (void)state;
    make_landing();
    warm_up();
    ask_one(90);
    message = reply_to(PEER_DATA, &request.read.items[0], 0, 1);
    put_reply(bytes, &message, &request.read.items[0]);
    write_all(bytes, 1000);
    turn();
    close(source);
    source = -1;
    turn_until(&downs, 1);
    assert_int_equal(seen[0][90], 0);
    connect_source();
    read_request(PEER_READ);
    assert_int_equal(request.read.items[0].page, 90);
    assert_true(channel.slots[request.read.items[0].cookie].spoiled);
    reply(PEER_DATA, &request.read.items[0], 0, 1);
    turn_until_idle();
    assert_seen_once(0, 90, 1);
    drop_landing();
}

static void nonsense_for_a_single_page_ends_the_connection(void **state)
{
    PeerMessage message;

    (void)state;
    make_landing();
    warm_up();
    ask_one(100);
    message = reply_to(PEER_DATA, &request.read.items[0], 0, 1);
    message.placement.seal++;
    write_all(bytes, put_reply(bytes, &message, &request.read.items[0]));
    turn_until(&downs, 1);
    assert_int_equal(seen[0][100], 0);
    assert_true(channel.slots[request.read.items[0].cookie].spoiled);
    drop_landing();
}

/* Nobody listens for the end of a connection between faults: the next one meets it. */
static void an_end_between_faults_is_met_by_the_next(void **state)
{
    (void)state;
    make_landing();
    warm_up();
    close(source);
    source = -1;
    turn();
    assert_int_equal(downs, 0);
    channel_fetch(&channel, 0, 110, 1);
    turn_until(&downs, 1);
    connect_source();
    read_request(PEER_READ);
    assert_int_equal(request.read.items[0].page, 110);
    drop_landing();
}

/* --- requests ------------------------------------------------------------------------------ */

/* How much the socket takes before it blocks. */
static size_t stuff(int socket)
{
    static const uint8_t filler[64];
    size_t stuffed = 0;
    ssize_t n;

    while ((n = send(socket, filler, sizeof filler, MSG_DONTWAIT | MSG_NOSIGNAL)) > 0)
        stuffed += (size_t)n;
    assert_int_equal(errno, EAGAIN);
    return stuffed;
}

static void a_request_waits_where_the_socket_is_full(void **state)
{
    size_t stuffed;

    (void)state;
    stuffed = stuff(channel.fd);
    channel_fetch(&channel, 0, 120, 1);
    turn();
    turn();
    assert_true(channel.sending.busy);
    while (stuffed > 0) {
        ssize_t n = recv(source, bytes, stuffed < BYTES ? stuffed : BYTES, 0);
        assert_true(n > 0);
        stuffed -= (size_t)n;
    }
    read_request(PEER_READ);
    assert_int_equal(request.read.items[0].page, 120);
    reply(PEER_DATA, &request.read.items[0], 0, 1);
    turn_until_idle();
    assert_int_equal(seen[0][120], 1);
    assert_false(channel.sending.busy);
    assert_int_equal(downs, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(long_answers_land_in_place, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_landing_that_is_cut_short_is_told, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_single_page_lands_with_its_head, set_up_urgent,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_single_page_may_be_split_anywhere, set_up_urgent,
                                        tear_down),
        cmocka_unit_test_setup_teardown(what_follows_a_zero_page_is_no_page, set_up_urgent,
                                        tear_down),
        cmocka_unit_test_setup_teardown(another_page_s_answer_may_come_first, set_up_urgent,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_single_page_cut_short_is_asked_again, set_up_urgent,
                                        tear_down),
        cmocka_unit_test_setup_teardown(nonsense_for_a_single_page_ends_the_connection,
                                        set_up_urgent, tear_down),
        cmocka_unit_test_setup_teardown(an_end_between_faults_is_met_by_the_next, set_up_urgent,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_request_waits_where_the_socket_is_full, set_up_urgent,
                                        tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
