/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Keys to the source's memory, as a bulk channel asks for them and gives them back.
 */
#include "tests/unit/channel_peer.h"

static void keys_are_asked_for_and_given_back(void **state)
{
    PeerMessage answer = {
        .type = PEER_KEYS,
        .generation = 1,
        .keys = {.region = SOURCE_REGION + 1,
                 .state = PEER_KEYS_SPAN,
                 .seal = SEAL,
                 .next = 50,
                 .span = {.page = 10, .count = 40, .address = 1 << 20, .rkey = 9, .id = 3}},
    };
    ssize_t length;

    (void)state;
    for (uint32_t i = 0; i < CHANNEL_KEYS_DONE; i++)
        assert_true(channel_keys_done(&channel, 100 + i));
    assert_false(channel_keys_done(&channel, 1));
    channel_ask_keys(&channel, 1, 10);
    for (uint32_t i = 0; i < CHANNEL_KEYS_DONE; i++) {
        read_request(PEER_KEYS_DONE);
        assert_int_equal(request.keys_done.id, 100 + i);
    }
    read_request(PEER_KEYS_REQUEST);
    assert_int_equal(request.keys_request.region, SOURCE_REGION + 1);
    assert_int_equal(request.keys_request.page, 10);
    assert_true(channel_keys_done(&channel, 1));
    read_request(PEER_KEYS_DONE);
    answer.session = session;
    length = peer_message_encode(&answer, bytes, sizeof bytes);
    assert_true(length > 0);
    write_all(bytes, (size_t)length);
    turn_until(&keys, 1);
    assert_int_equal(last_keys.keys.span.rkey, 9);
    write_all(bytes, (size_t)length); /* nobody asked again */
    turn_until(&downs, 1);
    assert_int_equal(keys, 1);
}

static void keys_of_another_seal_end_the_connection(void **state)
{
    PeerMessage answer = {
        .type = PEER_KEYS,
        .session = session,
        .generation = 1,
        .keys = {.region = SOURCE_REGION + 1, .state = PEER_KEYS_NONE, .seal = SEAL + 1},
    };
    ssize_t length;

    (void)state;
    channel_ask_keys(&channel, 1, 0);
    read_request(PEER_KEYS_REQUEST);
    length = peer_message_encode(&answer, bytes, sizeof bytes);
    assert_true(length > 0);
    write_all(bytes, (size_t)length);
    turn_until(&downs, 1);
    assert_int_equal(keys, 0);
}

/* Keys are of one connection: neither the question nor what is given back goes over the next. */
static void what_was_asked_is_forgotten_with_the_connection(void **state)
{
    (void)state;
    channel_ask_keys(&channel, 1, 10);
    assert_true(channel_keys_done(&channel, 7));
    channel_drop(&channel, "the link was lost");
    turn_until(&downs, 1);
    channel_ask_keys(&channel, 1, 10);
    assert_true(channel_keys_done(&channel, 8));
    connect_source();
    channel_fetch(&channel, 0, 3, 1);
    read_request(PEER_READ);
    channel_ask_keys(&channel, 1, 20);
    read_request(PEER_KEYS_REQUEST);
    assert_int_equal(request.keys_request.page, 20);
}

#define KEYS_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        KEYS_TEST(keys_are_asked_for_and_given_back),
        KEYS_TEST(keys_of_another_seal_end_the_connection),
        KEYS_TEST(what_was_asked_is_forgotten_with_the_connection),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
