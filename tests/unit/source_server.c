/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An export as a destination sees it on a data channel: sealed, fenced, read.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/source_reader.h"

static PeerMessage message;

static void assert_ended(void)
{
    assert_int_equal(recv(reader.pair[0], reader.frame, 1, 0), 0);
}

/* --- tests --------------------------------------------------------------------------------- */

static void nothing_is_read_before_the_seal(void **state)
{
    PeerReadItem item = {.cookie = 1, .page = 1, .count = 1};

    (void)state;
    reader_ask(&item, 1);
    reader_assert_error(PEER_ERROR_UNSEALED);
    assert_int_equal(reader.header.cookie, 1);
    assert_int_equal(reader.placement.seal, 0);
    uint64_t seal = export_seal(reader.export);
    assert_true(seal != 0);
    reader_ask(&item, 1);
    reader_take(PAGE);
    assert_int_equal(reader.header.type, PEER_DATA);
    assert_true(reader.placement.seal == seal);
    reader_assert_pages(1, 1);
}

static void a_fenced_export_is_never_read_again(void **state)
{
    PeerReadItem item = {.cookie = 1, .page = 1, .count = 1};

    (void)state;
    export_seal(reader.export);
    export_fence(reader.export, "the source ran again");
    reader_ask(&item, 1);
    reader_assert_error(PEER_ERROR_FENCED);
    export_seal(reader.export); /* not even sealed once more */
    reader_ask(&item, 1);
    reader_assert_error(PEER_ERROR_FENCED);
}

static void pages_and_zeroes_come_as_they_are(void **state)
{
    PeerReadItem items[3] = {
        {.cookie = 10, .page = 1, .count = 1},
        {.cookie = 11, .page = 2, .count = 1},
        {.cookie = 12, .page = PAGES - 5, .count = 5},
    };

    (void)state;
    export_seal(reader.export);
    reader_ask(items, 3);
    assert_int_equal(reader_take_item(&items[0]), 1);
    assert_int_equal(reader.header.type, PEER_DATA);
    assert_int_equal(reader_take_item(&items[1]), 1);
    assert_int_equal(reader.header.type, PEER_ZERO);
    assert_int_equal(reader_take_item(&items[2]), 5);
    assert_int_equal(atomic_load(&reader.export->pages_read), 7);
    assert_int_equal(atomic_load(&reader.export->zero_pages), 3);
    assert_int_equal(atomic_load(&reader.export->urgent_reads), 3);
}

/* More runs than one system call sends, more than once, and items behind them. */
static void many_runs_in_an_item_keep_their_content(void **state)
{
    PeerReadItem items[4] = {
        {.cookie = 1, .page = 0, .count = 512},
        {.cookie = 2, .page = 3, .count = 300},
        {.cookie = 3, .page = 700, .count = 1},
        {.cookie = 4, .page = 1001, .count = 511},
    };

    (void)state;
    export_seal(reader.export);
    for (unsigned round = 0; round < 5; round++) {
        reader_ask(items, 4);
        for (unsigned i = 0; i < 4; i++)
            assert_int_equal(reader_take_item(&items[i]), items[i].count);
    }
}

/* Every length around what fits one system call. */
static void every_number_of_runs_is_sent_whole(void **state)
{
    (void)state;
    export_seal(reader.export);
    for (uint32_t count = 250; count <= 260; count++) {
        PeerReadItem items[2] = {
            {.cookie = 1, .page = 5, .count = count},
            {.cookie = 2, .page = 9, .count = 3},
        };
        reader_ask(items, 2);
        reader_take_item(&items[0]);
        reader_take_item(&items[1]);
    }
}

static void a_full_batch_of_items_is_answered_in_order(void **state)
{
    PeerReadItem items[PEER_READ_ITEMS];

    (void)state;
    export_seal(reader.export);
    for (uint32_t i = 0; i < PEER_READ_ITEMS; i++)
        items[i] = (PeerReadItem){.cookie = 100 + i, .page = 17 * i, .count = 1 + i % 40};
    reader_ask(items, PEER_READ_ITEMS);
    for (uint32_t i = 0; i < PEER_READ_ITEMS; i++)
        reader_take_item(&items[i]);
}

static void huge_pages_are_read_whole(void **state)
{
    PeerReadItem items[3] = {
        {.cookie = 1, .region = 1, .page = 0, .count = 1},
        {.cookie = 2, .region = 1, .page = 1, .count = 1},
        {.cookie = 3, .region = 1, .page = 1, .count = 2}, /* more than a read may ask for */
    };

    (void)state;
    export_seal(reader.export);
    reader_ask(items, 3);
    reader_take(HUGE_PAGE);
    assert_int_equal(reader.header.type, PEER_ZERO);
    reader_take(HUGE_PAGE);
    assert_int_equal(reader.header.type, PEER_DATA);
    for (size_t at = 0; at < HUGE_PAGE; at++)
        if (reader.got[at] != reader_byte(1, at))
            fail();
    reader_assert_error(PEER_ERROR_RANGE);
}

static void what_is_out_of_range_is_refused(void **state)
{
    PeerReadItem items[] = {
        {.region = 3, .count = 1},
        {.region = UINT32_MAX, .count = 1},
        {.page = PAGES, .count = 1},
        {.page = UINT64_MAX, .count = 1},
        {.page = PAGES - 1, .count = 2},
        {.page = 0, .count = 0},
        {.page = 0, .count = UINT32_MAX},
        {.page = 0, .count = 513},
        {.page = UINT64_MAX - 1, .count = 3},
    };
    PeerReadItem good = {.cookie = 5, .page = 3, .count = 1};
    uint32_t n = sizeof items / sizeof items[0];

    (void)state;
    export_seal(reader.export);
    reader_ask(items, n);
    for (uint32_t i = 0; i < n; i++)
        reader_assert_error(PEER_ERROR_RANGE);
    reader_ask(&good, 1); /* and the connection lives */
    reader_take_item(&good);
}

static void ask_map(uint32_t region, uint64_t page)
{
    memset(&message, 0, sizeof message);
    message.type = PEER_MAP_REQUEST;
    message.session = SESSION;
    message.generation = GENERATION;
    message.map_request.region = region;
    message.map_request.page = page;
    ssize_t length = peer_message_encode(&message, reader.frame, sizeof reader.frame);
    assert_true(length > 0);
    reader_send((size_t)length);
}

static void take_map(void)
{
    reader_receive(reader.frame, PEER_HEADER_SIZE);
    assert_int_equal(peer_header_decode(reader.frame, &reader.header), 0);
    reader_receive(reader.frame + PEER_HEADER_SIZE, reader.header.length);
    assert_int_equal(peer_message_decode(&reader.header, reader.frame + PEER_HEADER_SIZE, &message),
                     0);
    assert_int_equal(message.type, PEER_MAP);
}

static void the_map_is_answered(void **state)
{
    uint64_t seal = export_seal(reader.export);
    PeerReadItem item = {.cookie = 5, .page = 3, .count = 2};

    (void)state;
    reader_ask(&item, 1); /* mixed with reads, in order */
    ask_map(0, 10);
    reader_take_item(&item);
    take_map();
    assert_int_equal(message.map.region, 0);
    assert_true(message.map.seal == seal);
    assert_int_equal(message.map.next, PAGES);
    assert_int_equal(message.map.n, (PAGES - 10) / 2);
    assert_int_equal(message.map.extents[0].page, 11);
    ask_map(1, 0);
    take_map();
    assert_int_equal(message.map.n, 1);
    assert_int_equal(message.map.extents[0].page, 1);
}

static void a_map_before_the_seal_ends_it(void **state)
{
    (void)state;
    ask_map(0, 0);
    assert_ended();
}

static void a_map_out_of_range_ends_it(void **state)
{
    (void)state;
    export_seal(reader.export);
    ask_map(0, PAGES);
    assert_ended();
}

static void another_session_ends_it(void **state)
{
    PeerReadItem item = {.page = 1, .count = 1};

    (void)state;
    export_seal(reader.export);
    assert_true(
        peer_read_encode(SESSION + 1, GENERATION, &item, 1, reader.frame, sizeof reader.frame) > 0);
    reader_send(PEER_HEADER_SIZE + 4 + 24);
    assert_ended();
}

static void garbage_ends_it(void **state)
{
    (void)state;
    memset(reader.frame, 0xff, PEER_HEADER_SIZE);
    reader_send(PEER_HEADER_SIZE);
    assert_ended();
}

static void a_frame_out_of_turn_ends_it(void **state)
{
    (void)state;
    message = (PeerMessage){.type = PEER_PING, .session = SESSION, .generation = GENERATION};
    assert_true(peer_message_encode(&message, reader.frame, sizeof reader.frame) > 0);
    reader_send(PEER_HEADER_SIZE);
    assert_ended();
}

static void requests_may_come_in_crumbs(void **state)
{
    PeerReadItem items[2] = {{.cookie = 1, .page = 1, .count = 2},
                             {.cookie = 2, .page = 8, .count = 1}};
    ssize_t length =
        peer_read_encode(SESSION, GENERATION, items, 2, reader.frame, sizeof reader.frame);
    uint8_t copy[200];

    (void)state;
    export_seal(reader.export);
    memcpy(copy, reader.frame, (size_t)length);
    for (ssize_t i = 0; i < length; i++) {
        assert_int_equal(send(reader.pair[0], copy + i, 1, 0), 1);
        usleep(100);
    }
    reader_take_item(&items[0]);
    reader_take_item(&items[1]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, reader_set_up, reader_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(nothing_is_read_before_the_seal),
        TEST(a_fenced_export_is_never_read_again),
        TEST(pages_and_zeroes_come_as_they_are),
        TEST(many_runs_in_an_item_keep_their_content),
        TEST(every_number_of_runs_is_sent_whole),
        TEST(a_full_batch_of_items_is_answered_in_order),
        TEST(huge_pages_are_read_whole),
        TEST(what_is_out_of_range_is_refused),
        TEST(the_map_is_answered),
        TEST(a_map_before_the_seal_ends_it),
        TEST(a_map_out_of_range_ends_it),
        TEST(another_session_ends_it),
        TEST(garbage_ends_it),
        TEST(a_frame_out_of_turn_ends_it),
        TEST(requests_may_come_in_crumbs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
