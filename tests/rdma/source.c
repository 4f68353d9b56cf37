/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An export as a destination's device sees it: what it may READ, and with which key.  source_ends.c: and until when.
 *
 * Usage: rdma_source NEAR-ADDRESS FAR-ADDRESS
 */
#include <stdio.h>

#include "tests/rdma/source_rig.h"

static void content_is_read_with_the_keys_on_any_channel(void **state)
{
    Lane *bulk = connect_lane(0, &leases[0], PEER_CHANNEL_BULK);
    Lane *urgent = connect_lane(1, &leases[0], PEER_CHANNEL_URGENT);
    uint64_t seal = export_seal(exports[0]);
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
    export_rdma_report(exports[0], &report);
    assert_int_equal(report.pairs, 2);
    assert_int_equal(report.spans, 2);
    assert_int_equal(report.pinned, (100 + PAGES - 1000) * RIG_PAGE);
    assert_int_equal(atomic_load(&far_budget.used), report.pinned);
    assert_string_equal(report.device, rdma_device_name(bulk->device));
    assert_string_equal(report.refusal, "");
}

/* Two VMs of one host: both keys work all the while, each for its own pair only. */
static void a_key_is_worth_nothing_in_another_session(void **state)
{
    Lane *one = connect_lane(0, &leases[0], PEER_CHANNEL_BULK);
    PeerSpan one_span, other_span;
    Lane *other;

    (void)state;
    take_lease(1, add_export());
    other = connect_lane(1, &leases[1], PEER_CHANNEL_BULK);
    export_seal(exports[0]);
    export_seal(exports[1]);
    one_span = ask_keys(one, 0);
    other_span = ask_keys(other, 0);
    assert_true(read_pages(one, &one_span, 0, 1));
    assert_true(read_pages(other, &other_span, 0, 1));
    assert_over(other, &one_span);
    assert_true(read_pages(one, &one_span, 0, 1)); /* it was not the key that had ended */
    assert_over(one, &other_span);
}

static void one_vm_leaves_room_for_another(void **state)
{
    Lane *one = connect_lane(0, &leases[0], PEER_CHANNEL_BULK);
    PeerSpan span;
    Lane *other;

    (void)state;
    far_budget.most = 16 << 20;
    take_lease(1, add_export());
    other = connect_lane(1, &leases[1], PEER_CHANNEL_BULK);
    export_seal(exports[0]);
    export_seal(exports[1]);
    ask_keys(one, 1000);
    assert_int_equal(message.keys.state, PEER_KEYS_SPAN);
    ask_keys(one, 0);
    assert_int_equal(message.keys.state, PEER_KEYS_FULL);
    span = ask_keys(other, 1000);
    assert_int_equal(message.keys.state, PEER_KEYS_SPAN);
    assert_int_equal(span.count, 1024);
    assert_true(read_pages(other, &span, 1000, 1024));
}

/* Asked for one page again and again, the source pins no more than once. */
static void what_has_a_key_is_not_pinned_again(void **state)
{
    Lane *bulk = connect_lane(0, &leases[0], PEER_CHANNEL_BULK);
    uint64_t pinned;
    char byte;

    (void)state;
    export_seal(exports[0]);
    ask_keys(bulk, 1000);
    assert_int_equal(message.keys.state, PEER_KEYS_SPAN);
    pinned = atomic_load(&far_budget.used);
    memset(&message, 0, sizeof message);
    message.keys_request.page = 1000;
    say(bulk, PEER_KEYS_REQUEST);
    assert_int_not_equal(peer_socket_receive(bulk->peer, &message, RIG_BOUND_MS), 0);
    assert_int_equal(recv(bulk->near, &byte, 1, MSG_DONTWAIT), 0);
    assert_int_equal(atomic_load(&far_budget.peak), pinned);
}

static void what_was_done_with_is_read_no_more(void **state)
{
    Lane *bulk = connect_lane(0, &leases[0], PEER_CHANNEL_BULK);
    PeerSpan spans[2];

    (void)state;
    far_budget.most = 16 << 20; /* half is the reserve, and of the rest half for one VM */
    export_seal(exports[0]);
    spans[0] = ask_keys(bulk, 1000);
    assert_int_equal(spans[0].count, 1024); /* as much as may be pinned */
    ask_keys(bulk, 0);
    assert_int_equal(message.keys.state, PEER_KEYS_FULL);
    message.keys_done.id = spans[0].id;
    say(bulk, PEER_KEYS_DONE);
    spans[1] = ask_keys(bulk, 0);
    assert_int_equal(message.keys.state, PEER_KEYS_SPAN);
    assert_true(read_pages(bulk, &spans[1], 0, 1));
    assert_true(atomic_load(&far_budget.peak) <= far_budget.most / 4);
    assert_false(read_pages(bulk, &spans[0], 1000, 1));
}

int main(int argc, char **argv)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, source_up, source_down)
    const struct CMUnitTest tests[] = {
        TEST(content_is_read_with_the_keys_on_any_channel),
        TEST(a_key_is_worth_nothing_in_another_session),
        TEST(one_vm_leaves_room_for_another),
        TEST(what_has_a_key_is_not_pinned_again),
        TEST(what_was_done_with_is_read_no_more),
    };

    if (argc != 3) {
        fprintf(stderr, "usage: %s NEAR-ADDRESS FAR-ADDRESS\n", argv[0]);
        return 2;
    }
    rig_near_host = argv[1];
    rig_far_host = argv[2];
    return cmocka_run_group_tests(tests, NULL, NULL) + run_ends();
}
