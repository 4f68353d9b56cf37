/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/fault/pending.h"

static Pending pending;

static int set_up(void **state)
{
    (void)state;
    pending.n = 0;
    return 0;
}

static void add(uint32_t region, uint64_t page, uint64_t since_ns)
{
    pending_add(&pending, &(PendingFault){.region = region, .page = page, .since_ns = since_ns});
}

/* Odd pages are resolved; of the others it notes that they were asked for. */
static bool odd_is_resolved(void *owner, PendingFault *fault)
{
    fault->asked_ns = *(uint64_t *)owner;
    return fault->page % 2 != 0;
}

static bool all_is_resolved(void *owner, PendingFault *fault)
{
    (void)owner;
    (void)fault;
    return true;
}

static void the_oldest_is_told(void **state)
{
    (void)state;
    assert_int_equal(pending_oldest(&pending), 0);
    add(0, 1, 100);
    add(0, 2, 200);
    assert_int_equal(pending_oldest(&pending), 100);
}

static void what_is_resolved_goes_and_the_rest_keeps_its_order(void **state)
{
    uint64_t now = 77;

    (void)state;
    add(0, 1, 100);
    add(0, 4, 200);
    add(1, 3, 250);
    add(1, 6, 300);
    pending_prune(&pending, odd_is_resolved, &now);
    assert_int_equal(pending.n, 2);
    assert_int_equal(pending_oldest(&pending), 200);
    assert_int_equal(pending.faults[1].page, 6);
    assert_int_equal(pending.faults[1].region, 1);
    assert_int_equal(pending.faults[1].asked_ns, 77);
    pending_prune(&pending, all_is_resolved, NULL);
    assert_int_equal(pending_oldest(&pending), 0);
}

static void a_page_stands_once_for_all_who_wait_for_it(void **state)
{
    (void)state;
    add(0, 1, 100);
    add(0, 1, 200);
    add(1, 1, 300);
    assert_int_equal(pending.n, 2);
    assert_int_equal(pending_oldest(&pending), 100);
}

static void it_is_bounded(void **state)
{
    (void)state;
    for (uint64_t page = 0; page < PENDING_MAX; page++) {
        assert_int_equal(pending_room(&pending), PENDING_MAX - page);
        add(0, page, page + 1);
    }
    assert_int_equal(pending_room(&pending), 0);
    add(0, PENDING_MAX, 5000);
    assert_int_equal(pending.n, PENDING_MAX);
    assert_int_equal(pending_oldest(&pending), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(the_oldest_is_told, set_up),
        cmocka_unit_test_setup(what_is_resolved_goes_and_the_rest_keeps_its_order, set_up),
        cmocka_unit_test_setup(a_page_stands_once_for_all_who_wait_for_it, set_up),
        cmocka_unit_test_setup(it_is_bounded, set_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
