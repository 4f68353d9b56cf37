/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/fault/rdma_policy.h"

#define SECOND UINT64_C(1000000000)
#define MIB    (UINT64_C(1) << 20)

/* A connection that RDMA ends a moment after it began. */
static bool fail_at(RdmaPolicy *policy, uint64_t now, uint64_t bytes)
{
    assert_true(rdma_policy_may_try(policy, now));
    rdma_policy_begins(policy, now, bytes);
    return rdma_policy_ends(policy, now + 1, bytes, true, true);
}

static void three_failures_in_a_row_are_enough(void **state)
{
    RdmaPolicy policy;

    (void)state;
    rdma_policy_init(&policy, false);
    assert_false(fail_at(&policy, 1 * SECOND, 0));
    assert_false(fail_at(&policy, 2 * SECOND, 0));
    assert_true(fail_at(&policy, 3 * SECOND, 0));
    assert_false(rdma_policy_may_try(&policy, 4 * SECOND));
    assert_int_equal(rdma_policy_pause_ms(&policy), 0); /* TCP is there at once */
    /* Other ends of connections meanwhile change nothing. */
    assert_false(rdma_policy_ends(&policy, 5 * SECOND, 0, false, true));
    assert_false(rdma_policy_may_try(&policy, 3 * SECOND + RDMA_POLICY_REST_NS));
}

static void after_a_rest_one_more_is_enough(void **state)
{
    RdmaPolicy policy;

    (void)state;
    rdma_policy_init(&policy, false);
    for (int i = 1; i <= RDMA_POLICY_FAILURES; i++)
        fail_at(&policy, (uint64_t)i * SECOND, 0);
    assert_true(fail_at(&policy, 64 * SECOND, 0));
    assert_false(rdma_policy_may_try(&policy, 65 * SECOND));
    /* And once it went well, it takes three again. */
    assert_true(rdma_policy_may_try(&policy, 200 * SECOND));
    rdma_policy_begins(&policy, 200 * SECOND, 0);
    assert_false(rdma_policy_ends(&policy, 211 * SECOND, 0, true, true));
    assert_true(rdma_policy_may_try(&policy, 212 * SECOND));
}

static void what_went_well_forgets_failures(void **state)
{
    RdmaPolicy policy;

    (void)state;
    rdma_policy_init(&policy, false);
    /* By bytes, counted from where the connection began. */
    fail_at(&policy, 1 * SECOND, 500 * MIB);
    fail_at(&policy, 2 * SECOND, 500 * MIB);
    rdma_policy_begins(&policy, 3 * SECOND, 500 * MIB);
    rdma_policy_goes_on(&policy, 3 * SECOND, 564 * MIB);
    assert_int_equal(policy.failures, 0);
    assert_false(rdma_policy_ends(&policy, 4 * SECOND, 564 * MIB, true, true));
    /* Neither a little nor a moment is enough. */
    fail_at(&policy, 5 * SECOND, 564 * MIB);
    rdma_policy_begins(&policy, 6 * SECOND, 564 * MIB);
    rdma_policy_goes_on(&policy, 15 * SECOND, 627 * MIB);
    assert_true(rdma_policy_ends(&policy, 15 * SECOND, 627 * MIB, true, true));
}

static void what_the_network_ends_is_no_failure(void **state)
{
    RdmaPolicy policy;

    (void)state;
    rdma_policy_init(&policy, false);
    for (unsigned i = 1; i < 10; i++) {
        assert_true(rdma_policy_may_try(&policy, i * SECOND));
        rdma_policy_begins(&policy, i * SECOND, 0);
        assert_false(rdma_policy_ends(&policy, i * SECOND, 0, false, true));
    }
}

static void who_insists_goes_on_with_pauses(void **state)
{
    RdmaPolicy policy;
    unsigned pause = 0;

    (void)state;
    rdma_policy_init(&policy, true);
    assert_int_equal(rdma_policy_pause_ms(&policy), 0);
    for (unsigned i = 1; i < 100; i++) {
        assert_true(rdma_policy_may_try(&policy, i * SECOND));
        assert_true(rdma_policy_must(&policy));
        assert_false(rdma_policy_ends(&policy, i * SECOND, 0, true, false));
        assert_true(rdma_policy_pause_ms(&policy) >= pause);
        pause = rdma_policy_pause_ms(&policy);
        assert_in_range(pause, 1, 1000);
    }
    rdma_policy_begins(&policy, 120 * SECOND, 0);
    rdma_policy_goes_on(&policy, 131 * SECOND, 0);
    assert_int_equal(rdma_policy_pause_ms(&policy), 0);
}

/* Where its guest can run nowhere else even one that insists goes by TCP after a while. */
static void no_guest_waits_for_ever(void **state)
{
    RdmaPolicy policy;

    (void)state;
    rdma_policy_init(&policy, true);
    assert_false(rdma_policy_ends(&policy, 90 * SECOND, 0, true, false));
    for (unsigned i = 100; i < 110; i++) {
        assert_true(rdma_policy_must(&policy));
        assert_false(fail_at(&policy, i * SECOND, 0)); /* however often */
    }
    assert_true(fail_at(&policy, 110 * SECOND, 0));
    assert_false(rdma_policy_may_try(&policy, 111 * SECOND));
    assert_false(rdma_policy_must(&policy));
    assert_int_equal(rdma_policy_pause_ms(&policy), 0);
    /* After the rest RDMA is a must again, until it fails once more. */
    assert_true(rdma_policy_may_try(&policy, 171 * SECOND));
    assert_true(rdma_policy_must(&policy));
    assert_true(fail_at(&policy, 171 * SECOND, 0));
    /* And once it went well it is waited for as long as at first. */
    assert_true(rdma_policy_may_try(&policy, 300 * SECOND));
    rdma_policy_begins(&policy, 300 * SECOND, 0);
    assert_false(rdma_policy_ends(&policy, 311 * SECOND, 0, true, true));
    assert_true(rdma_policy_must(&policy));
    assert_false(fail_at(&policy, 320 * SECOND, 0));
    assert_true(fail_at(&policy, 322 * SECOND, 0));
}

static void who_may_choose_must_not(void **state)
{
    RdmaPolicy policy;

    (void)state;
    rdma_policy_init(&policy, false);
    assert_false(rdma_policy_must(&policy));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(three_failures_in_a_row_are_enough),
        cmocka_unit_test(after_a_rest_one_more_is_enough),
        cmocka_unit_test(what_went_well_forgets_failures),
        cmocka_unit_test(what_the_network_ends_is_no_failure),
        cmocka_unit_test(who_insists_goes_on_with_pauses),
        cmocka_unit_test(no_guest_waits_for_ever),
        cmocka_unit_test(who_may_choose_must_not),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
