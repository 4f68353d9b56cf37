/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/fault/around.h"

enum { MOST = 256 << 10, PAGE = 4096 };

#define US UINT64_C(1000)

/* Faults over a link that carries so many bytes in a microsecond, each with all its block. */
static void fault(Around *around, unsigned times, uint64_t bytes_per_us, uint64_t latency_ns)
{
    for (unsigned i = 0; i < times; i++) {
        uint64_t bytes = around_bytes(around, 0, 0) - PAGE;
        around_waited(around, latency_ns);
        around_came(around, bytes, bytes * US / bytes_per_us);
    }
}

static void a_fast_link_carries_all_of_it(void **state)
{
    Around around;

    (void)state;
    around_init(&around, MOST);
    fault(&around, 1000, 3000, 60 * US);
    assert_int_equal(around_bytes(&around, 0, 0), MOST);
}

static void a_slow_link_carries_little_and_a_faster_one_more(void **state)
{
    Around around;

    (void)state;
    around_init(&around, MOST);
    fault(&around, 1000, 125, 100 * US);
    assert_in_range(around_bytes(&around, 0, 0), 8192, 32 << 10);
    fault(&around, 1000, 12, 100 * US);
    assert_int_equal(around_bytes(&around, 0, 0), 8192);
    fault(&around, 1000, 3000, 60 * US);
    assert_int_equal(around_bytes(&around, 0, 0), MOST);
}

static void a_long_way_allows_more(void **state)
{
    Around around;

    (void)state;
    around_init(&around, MOST);
    fault(&around, 1000, 125, 20000 * US);
    assert_int_equal(around_bytes(&around, 0, 0), MOST);
}

static void late_faults_shrink_it(void **state)
{
    Around around;

    (void)state;
    around_init(&around, MOST);
    around_waited(&around, 60 * US);
    around_waited(&around, 500 * US);
    assert_int_equal(around_bytes(&around, 0, 0), MOST);
    around_waited(&around, 700 * US);
    assert_int_equal(around_bytes(&around, 0, 0), MOST / 2);
    for (int i = 0; i < 100; i++)
        around_waited(&around, 10000 * US);
    assert_int_equal(around_bytes(&around, 0, 0), 8192);
}

static void a_full_link_and_a_limit_bound_it(void **state)
{
    Around around;

    (void)state;
    around_init(&around, MOST);
    assert_int_equal(around_bytes(&around, 125000000, 0), 8192);
    assert_int_equal(around_bytes(&around, UINT64_C(10000000000), 0), MOST);
    assert_in_range(around_bytes(&around, 0, 20 << 20), 0, PAGE);
    assert_in_range(around_bytes(&around, UINT64_C(10000000000), 20 << 20), 0, PAGE);
    assert_int_equal(around_bytes(&around, 125000000, UINT64_C(10000000000)), 8192);
    assert_int_equal(around_bytes(&around, 0, 0), MOST);
}

static void none_is_none(void **state)
{
    Around around;

    (void)state;
    around_init(&around, PAGE);
    for (int i = 0; i < 100; i++)
        around_waited(&around, (uint64_t)(i + 1) * 1000 * US);
    assert_int_equal(around_bytes(&around, 0, 0), PAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_fast_link_carries_all_of_it),
        cmocka_unit_test(a_slow_link_carries_little_and_a_faster_one_more),
        cmocka_unit_test(a_long_way_allows_more),
        cmocka_unit_test(late_faults_shrink_it),
        cmocka_unit_test(a_full_link_and_a_limit_bound_it),
        cmocka_unit_test(none_is_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
