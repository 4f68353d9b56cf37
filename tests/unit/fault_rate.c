/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/fault/rate.h"

enum { CHUNK = 64 << 10 };

#define MIB    (UINT64_C(1) << 20)
#define MS     UINT64_C(1000000)
#define SECOND UINT64_C(1000000000)

/* Takes as much as the bucket allows for so long, in chunks, looking when it is told to; bytes. */
static uint64_t take_for(Rate *rate, uint64_t *now, uint64_t duration_ns, uint64_t chunk)
{
    uint64_t end = *now + duration_ns, bytes = 0;

    while (*now < end) {
        uint64_t wait = rate_wait_ns(rate, *now);

        if (wait == 0) {
            rate_take(rate, chunk);
            bytes += chunk;
        }
        *now += wait;
    }
    return bytes;
}

static void without_a_limit_nothing_waits(void **state)
{
    Rate rate = {0};

    (void)state;
    for (int i = 0; i < 100; i++) {
        assert_int_equal(rate_wait_ns(&rate, 5), 0);
        rate_take(&rate, UINT64_C(1) << 40);
    }
    assert_int_equal(rate_chunk(&rate, 256 << 10), 256 << 10);
}

static void a_limit_is_met(void **state)
{
    static const uint64_t limits[] = {16 << 10, 20 * MIB, 125000000, UINT64_C(12500000000)};

    (void)state;
    for (unsigned i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        Rate rate = {0};
        uint64_t now = 7 * SECOND, chunk, bytes;

        rate_set(&rate, limits[i], now);
        chunk = rate_chunk(&rate, 256 << 10);
        bytes = take_for(&rate, &now, 10 * SECOND, chunk);
        assert_in_range(bytes, limits[i] * 98 / 10, limits[i] * 102 / 10 + chunk);
    }
}

static void rest_is_not_saved_up(void **state)
{
    Rate rate = {0};
    uint64_t now = 0, bytes;

    (void)state;
    rate_set(&rate, 20 * MIB, now);
    now += 100 * SECOND;
    bytes = take_for(&rate, &now, SECOND, CHUNK);
    assert_in_range(bytes, 20 * MIB * 98 / 100, 20 * MIB * 107 / 100);
}

static void what_is_urgent_is_taken_from_the_rest(void **state)
{
    Rate rate = {0};
    uint64_t now = 0, bytes = 0;

    (void)state;
    rate_set(&rate, 20 * MIB, now);
    for (int i = 0; i < 1000; i++, now += MS) { /* 5 MiB/s of urgent pages, never asked about */
        rate_take(&rate, 5 * MIB / 1000);
        while (rate_wait_ns(&rate, now) == 0) {
            rate_take(&rate, CHUNK);
            bytes += CHUNK;
        }
    }
    assert_in_range(bytes, 15 * MIB * 95 / 100, 15 * MIB * 105 / 100);
}

static void debts_are_bounded(void **state)
{
    Rate rate = {0};

    (void)state;
    rate_set(&rate, MIB, 0);
    for (int i = 0; i < 1000; i++)
        rate_take(&rate, 100 * MIB);
    assert_in_range(rate_wait_ns(&rate, 0), SECOND, SECOND + 1000);
    assert_int_equal(rate_wait_ns(&rate, SECOND + 1000), 0);
}

static void what_did_not_go_is_given_back(void **state)
{
    Rate rate = {0};

    (void)state;
    rate_set(&rate, MIB, 0);
    assert_int_equal(rate_wait_ns(&rate, SECOND), 0);
    rate_take(&rate, MIB / 2);
    assert_true(rate_wait_ns(&rate, SECOND) > 0);
    rate_give(&rate, MIB / 2);
    assert_int_equal(rate_wait_ns(&rate, SECOND), 0);
    rate_give(&rate, 100 * MIB); /* no more than a burst */
    rate_take(&rate, MIB / 10);
    assert_true(rate_wait_ns(&rate, SECOND) > 0);
}

static void a_limit_changes_at_once(void **state)
{
    Rate rate = {0};
    uint64_t now = 0;

    (void)state;
    rate_set(&rate, MIB, now);
    rate_take(&rate, MIB); /* a second of debt */
    rate_set(&rate, MIB, now);
    assert_true(rate_wait_ns(&rate, now) > 900 * MS);
    rate_set(&rate, 40 * MIB, now);
    assert_in_range(take_for(&rate, &now, SECOND, CHUNK), 39 * MIB, 41 * MIB);
    rate_set(&rate, 0, now);
    assert_int_equal(rate_wait_ns(&rate, now), 0);
}

static void a_clock_that_stands_still_brings_nothing(void **state)
{
    Rate rate = {0};

    (void)state;
    rate_set(&rate, MIB, SECOND);
    assert_true(rate_wait_ns(&rate, SECOND) > 0);
    assert_true(rate_wait_ns(&rate, SECOND / 2) > 0);
}

static void assert_shares(uint64_t total, const uint64_t *wanted, const uint64_t *expected,
                          uint32_t n)
{
    uint64_t shares[8];

    rate_share(total, wanted, n, shares);
    for (uint32_t i = 0; i < n; i++)
        assert_int_equal(shares[i], expected[i]);
}

static void shares_are_fair(void **state)
{
    (void)state;
    assert_shares(0, (uint64_t[]){0, 5}, (uint64_t[]){0, 5}, 2);
    assert_shares(100, (uint64_t[]){0, 0}, (uint64_t[]){50, 50}, 2);
    assert_shares(100, (uint64_t[]){0, 20, 0}, (uint64_t[]){40, 20, 40}, 3);
    assert_shares(100, (uint64_t[]){80, 30, 0}, (uint64_t[]){35, 30, 35}, 3);
    assert_shares(100, (uint64_t[]){45, 10, 0, 0}, (uint64_t[]){30, 10, 30, 30}, 4);
    assert_shares(100, (uint64_t[]){10, 20}, (uint64_t[]){10, 20}, 2);
    assert_shares(100, (uint64_t[]){500}, (uint64_t[]){100}, 1);
    assert_shares(2, (uint64_t[]){0, 0, 0}, (uint64_t[]){1, 1, 1}, 3); /* never "no limit" */
    rate_share(100, NULL, 0, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_limit_nothing_waits),
        cmocka_unit_test(a_limit_is_met),
        cmocka_unit_test(rest_is_not_saved_up),
        cmocka_unit_test(what_is_urgent_is_taken_from_the_rest),
        cmocka_unit_test(debts_are_bounded),
        cmocka_unit_test(what_did_not_go_is_given_back),
        cmocka_unit_test(a_limit_changes_at_once),
        cmocka_unit_test(a_clock_that_stands_still_brings_nothing),
        cmocka_unit_test(shares_are_fair),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
