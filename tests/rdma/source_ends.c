/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Nothing of an export is READ any more, nor stays pinned, once the source runs again, ends, belongs to another
 * session, or its destination is gone.
 *
 * The device's own orders pass through here, so that one can be slow, and something happen in between.
 */
#include <dlfcn.h>
#include <infiniband/verbs.h>
#include <stdatomic.h>

#include "tests/rdma/source_rig.h"

enum {
    SLOW_MS = 1500,     /* the device's answer, if it is slow */
    SILENCE_MS = 25000, /* longer than a destination may say nothing */
};

static struct {
    _Atomic bool slow;   /* to break a pair */
    _Atomic bool fences; /* the source runs again as soon as its next pair is connected */
    pthread_t near;      /* whose pairs are left alone */
} device;

/* In the place of the library's. */
int ibv_modify_qp(struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask)
{
    static int (*next)(struct ibv_qp *, struct ibv_qp_attr *, int);
    bool ours = !pthread_equal(pthread_self(), device.near);
    int error;

    if (!next)
        *(void **)&next = dlsym(RTLD_NEXT, "ibv_modify_qp");
    if (ours && attr->qp_state == IBV_QPS_ERR && atomic_load(&device.slow))
        usleep(SLOW_MS * 1000);
    error = next(qp, attr, mask);
    if (ours && attr->qp_state == IBV_QPS_RTS && atomic_exchange(&device.fences, false))
        export_fence(exports[0], "the source ran again");
    return error;
}

static int ends_up(void **state)
{
    device.near = pthread_self();
    atomic_store(&device.slow, false);
    atomic_store(&device.fences, false);
    return source_up(state);
}

/* Nothing is pinned after so long at most, and the export says so. */
static void assert_let_go(uint64_t ms)
{
    uint64_t end = rig_now_ms() + ms;
    ExportRdmaReport report;

    while (atomic_load(&far_budget.used) > 0 && rig_now_ms() < end)
        usleep(1000);
    assert_int_equal(atomic_load(&far_budget.used), 0);
    export_rdma_report(exports[0], &report);
    assert_int_equal(report.pairs, 0);
    assert_int_equal(report.pinned, 0);
    assert_string_equal(report.device, "");
}

static void nothing_is_read_after_a_fence(void **state)
{
    Lane *bulk = connect_lane(0, &leases[0], PEER_CHANNEL_BULK);
    Lane *urgent = connect_lane(1, &leases[0], PEER_CHANNEL_URGENT);
    Lane *late = open_lane(2, &leases[0], PEER_CHANNEL_URGENT);
    PeerSpan span;

    (void)state;
    export_seal(exports[0]);
    span = ask_keys(bulk, 0);
    assert_true(read_pages(bulk, &span, 0, 1));
    assert_true(read_pages(urgent, &span, 0, 1));
    export_fence(exports[0], "the source ran again");
    assert_over(bulk, &span);
    assert_over(urgent, &span);
    assert_int_equal(ask_pair(late), PEER_ERROR_REFUSED);
    assert_let_go(5000); /* although nobody has hung up */
}

static void nothing_is_read_after_the_end(void **state)
{
    Lane *bulk = connect_lane(0, &leases[0], PEER_CHANNEL_BULK);
    PeerSpan span;

    (void)state;
    export_seal(exports[0]);
    span = ask_keys(bulk, 0);
    assert_true(read_pages(bulk, &span, 0, 1));
    export_close(exports[0]);
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
    export_seal(exports[0]);
    old_span = ask_keys(old, 0);
    assert_true(read_pages(old, &old_span, 0, 1));
    take_lease(1, exports[0]);
    assert_over(old, &old_span);
    new = connect_lane(1, &leases[1], PEER_CHANNEL_BULK);
    new_span = ask_keys(new, 0);
    assert_true(read_pages(new, &new_span, 0, 1));
}

static void a_channel_that_ends_is_read_through_no_more(void **state)
{
    Lane *bulk = connect_lane(0, &leases[0], PEER_CHANNEL_BULK);
    Lane *urgent = connect_lane(1, &leases[0], PEER_CHANNEL_URGENT);
    PeerSpan span;

    (void)state;
    export_seal(exports[0]);
    span = ask_keys(bulk, 0);
    assert_true(read_pages(bulk, &span, 0, 1));
    end_channel(bulk);
    assert_over(bulk, &span);
    assert_true(read_pages(urgent, &span, 5, 10)); /* what is shared stays with the others */
    assert_int_equal(atomic_load(&far_budget.used), span.count * RIG_PAGE);
    end_channel(urgent);
    assert_int_equal(atomic_load(&far_budget.used), 0);
}

/* It breaks nobody's connection, and says nothing any more. */
static void a_silent_destination_keeps_nothing_pinned(void **state)
{
    Lane *bulk = connect_lane(0, &leases[0], PEER_CHANNEL_BULK);
    PeerSpan span;
    char byte;

    (void)state;
    export_seal(exports[0]);
    span = ask_keys(bulk, 0);
    assert_true(read_pages(bulk, &span, 0, 1));
    assert_let_go(SILENCE_MS);
    assert_over(bulk, &span);
    assert_int_equal(recv(bulk->near, &byte, 1, 0), 0);
}

/* No firmware holds up whoever takes the export's lock, nor the control thread for longer than was promised. */
static void a_slow_device_holds_up_nobody(void **state)
{
    Lane *bulk = connect_lane(0, &leases[0], PEER_CHANNEL_BULK);
    Lane *urgent = connect_lane(1, &leases[0], PEER_CHANNEL_URGENT);
    uint64_t begin, took;
    ExportRdmaReport report;
    PeerSpan span;

    (void)state;
    export_seal(exports[0]);
    span = ask_keys(bulk, 0);
    assert_true(read_pages(urgent, &span, 0, 1));
    atomic_store(&device.slow, true);
    begin = rig_now_ms();
    export_fence(exports[0], "the source ran again");
    took = rig_now_ms() - begin;
    assert_true(took >= EXPORT_RDMA_BREAK_MS && took < SLOW_MS);
    export_rdma_report(exports[0], &report);
    assert_true(rig_now_ms() - begin < SLOW_MS);
    assert_int_equal(report.pairs, 0);
    assert_int_equal(report.pinned, span.count * RIG_PAGE); /* still */
    assert_let_go(2 * SLOW_MS + 5000);
    assert_over(bulk, &span);
    assert_over(urgent, &span);
}

/* --- a fence while a pair is made ---------------------------------------------------------- */

/* The key is one of before. */
static void assert_fenced_between(void **state, bool connected)
{
    Lane *bulk = connect_lane(0, &leases[0], PEER_CHANNEL_BULK);
    Lane *late;
    PeerSpan span;

    (void)state;
    export_seal(exports[0]);
    span = ask_keys(bulk, 0);
    late = open_lane(1, &leases[0], PEER_CHANNEL_URGENT);
    atomic_store(&device.fences, !connected);
    assert_int_equal(ask_pair(late), connected ? PEER_ERROR_NONE : PEER_ERROR_REFUSED);
    assert_false(atomic_load(&device.fences));
    if (connected) {
        assert_true(read_pages(late, &span, 0, 1));
        export_fence(exports[0], "the source ran again");
        assert_over(late, &span);
    }
    assert_over(bulk, &span);
    assert_let_go(5000);
}

static void a_fence_is_too_late_for_no_pair(void **state)
{
    assert_fenced_between(state, true);
}

static void a_fence_refuses_a_pair_that_is_being_made(void **state)
{
    assert_fenced_between(state, false);
}

int run_ends(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, ends_up, source_down)
    const struct CMUnitTest ends[] = {
        TEST(nothing_is_read_after_a_fence),
        TEST(nothing_is_read_after_the_end),
        TEST(a_new_lease_ends_the_one_before),
        TEST(a_channel_that_ends_is_read_through_no_more),
        TEST(a_silent_destination_keeps_nothing_pinned),
        TEST(a_slow_device_holds_up_nobody),
        TEST(a_fence_is_too_late_for_no_pair),
        TEST(a_fence_refuses_a_pair_that_is_being_made),
    };

    return cmocka_run_group_tests(ends, NULL, NULL);
}
