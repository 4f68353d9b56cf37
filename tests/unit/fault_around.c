/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/fault/around.h"

enum { MOST = 256 << 10, PAGE = 4096 };

#define US UINT64_C(1000)

static bool apart;

static uint64_t bytes_of(const Around *around)
{
    return around_bytes(around, 0, 0, &apart);
}

static void slow_faults_shrink_it_and_fast_ones_grow_it(void **state)
{
    Around around;

    (void)state;
    around_init(&around, MOST);
    assert_int_equal(bytes_of(&around), MOST);
    around_waited(&around, 500 * US);
    assert_int_equal(bytes_of(&around), MOST);
    around_waited(&around, 1100 * US);
    assert_int_equal(bytes_of(&around), MOST / 2);
    for (int i = 0; i < 100; i++)
        around_waited(&around, 10000 * US);
    assert_int_equal(bytes_of(&around), PAGE);
    around_waited(&around, 500 * US);
    assert_int_equal(bytes_of(&around), PAGE);
    for (int i = 0; i < 100; i++)
        around_waited(&around, 200 * US);
    assert_int_equal(bytes_of(&around), MOST);
    assert_false(apart);
}

/* Blocks are aligned, and a shard's end is. */
static void a_block_is_a_power_of_two(void **state)
{
    Around around;

    (void)state;
    around_init(&around, 200 << 10);
    assert_int_equal(bytes_of(&around), 128 << 10);
}

static void a_full_slow_link_and_a_limit_bound_it(void **state)
{
    Around around;

    (void)state;
    around_init(&around, MOST);
    assert_int_equal(around_bytes(&around, 125000000, 0, &apart), 8192);
    assert_true(apart);
    assert_int_equal(around_bytes(&around, UINT64_C(10000000000), 0, &apart), MOST);
    assert_false(apart);
    assert_in_range(around_bytes(&around, 0, 20 << 20, &apart), 0, PAGE);
    assert_true(apart);
    assert_in_range(around_bytes(&around, UINT64_C(10000000000), 20 << 20, &apart), 0, PAGE);
    assert_int_equal(around_bytes(&around, 125000000, UINT64_C(10000000000), &apart), 8192);
    assert_int_equal(bytes_of(&around), MOST);
}

static void none_is_none(void **state)
{
    Around around;

    (void)state;
    around_init(&around, PAGE);
    for (int i = 0; i < 100; i++)
        around_waited(&around, (uint64_t)(100 - i) * 20 * US);
    assert_int_equal(bytes_of(&around), PAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slow_faults_shrink_it_and_fast_ones_grow_it),
        cmocka_unit_test(a_block_is_a_power_of_two),
        cmocka_unit_test(a_full_slow_link_and_a_limit_bound_it),
        cmocka_unit_test(none_is_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
