/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One thread at the fault queue: order, laps, fullness, and when a wake is owed. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "daemon/core/fault_queue.h"

enum { CAPACITY = 8, BATCH = 3 };

static FaultPush push(FaultQueue *queue, uint64_t number)
{
    const FaultRecord record = {
        .address = number << 12,
        .since_ns = number * 3,
        .shard = (uint32_t)number % 7,
        .vcpu = (uint32_t)number + 100,
        .minor = number % 2,
    };

    return fault_queue_push(queue, &record);
}

static void assert_is(const FaultRecord *record, uint64_t number)
{
    assert_int_equal(record->address, number << 12);
    assert_int_equal(record->since_ns, number * 3);
    assert_int_equal(record->shard, number % 7);
    assert_int_equal(record->vcpu, number + 100);
    assert_int_equal(record->minor, number % 2);
}

static int setup(void **state)
{
    static FaultQueue queue;

    *state = &queue;
    return fault_queue_init(&queue, CAPACITY);
}

static int teardown(void **state)
{
    fault_queue_deinit(*state);
    return 0;
}

static void test_capacities(void **state)
{
    static const uint32_t wrong[] = {0, 1, 3, 12, FAULT_QUEUE_CAPACITY_MAX + 1, UINT32_MAX};
    FaultQueue queue;

    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(fault_queue_init(&queue, wrong[i]), -EINVAL);
        fault_queue_deinit(&queue);
    }
    assert_int_equal(fault_queue_init(&queue, 2), 0);
    fault_queue_deinit(&queue);
    fault_queue_deinit(&queue); /* all zero by now */
}

static void test_order_over_many_laps(void **state)
{
    FaultRecord records[BATCH];
    uint64_t pushed = 0, taken = 0;

    while (taken < 100 * CAPACITY) {
        unsigned n;
        for (unsigned i = 0; i < 1 + pushed % 5 && pushed - taken < CAPACITY; i++)
            assert_int_equal(push(*state, pushed++), FAULT_PUSHED);
        n = fault_queue_harvest(*state, records, BATCH);
        for (unsigned i = 0; i < n; i++)
            assert_is(&records[i], taken++);
    }
}

static void test_batches(void **state)
{
    FaultRecord records[CAPACITY];

    assert_int_equal(fault_queue_harvest(*state, records, CAPACITY), 0);
    for (uint64_t i = 0; i < 5; i++)
        push(*state, i);
    assert_int_equal(fault_queue_harvest(*state, records, 0), 0);
    assert_int_equal(fault_queue_harvest(*state, records, 2), 2);
    assert_is(&records[1], 1);
    assert_int_equal(fault_queue_harvest(*state, records, CAPACITY), 3);
    assert_is(&records[2], 4);
    assert_int_equal(fault_queue_harvest(*state, records, CAPACITY), 0);
}

static void test_full_is_told(void **state)
{
    FaultRecord record;

    for (uint64_t i = 0; i < CAPACITY; i++)
        assert_int_equal(push(*state, i), FAULT_PUSHED);
    assert_int_equal(push(*state, 99), FAULT_QUEUE_FULL);
    assert_int_equal(fault_queue_harvest(*state, &record, 1), 1);
    assert_is(&record, 0);
    assert_int_equal(push(*state, CAPACITY), FAULT_PUSHED);
    assert_int_equal(push(*state, 99), FAULT_QUEUE_FULL);
    for (uint64_t i = 1; i <= CAPACITY; i++) {
        assert_int_equal(fault_queue_harvest(*state, &record, 1), 1);
        assert_is(&record, i);
    }
}

static void test_one_wake_a_sleep(void **state)
{
    FaultRecord records[CAPACITY];

    assert_true(fault_queue_sleep(*state));
    assert_int_equal(push(*state, 1), FAULT_PUSHED_WAKE);
    assert_int_equal(push(*state, 2), FAULT_PUSHED);
    fault_queue_awake(*state);
    assert_int_equal(push(*state, 3), FAULT_PUSHED);
    assert_int_equal(fault_queue_harvest(*state, records, CAPACITY), 3);
    assert_true(fault_queue_sleep(*state));
    assert_int_equal(push(*state, 4), FAULT_PUSHED_WAKE);
}

static void test_no_sleep_over_a_record(void **state)
{
    FaultRecord record;

    push(*state, 1);
    assert_false(fault_queue_sleep(*state));
    assert_int_equal(push(*state, 2), FAULT_PUSHED); /* the announcement does not stand */
    assert_int_equal(fault_queue_harvest(*state, &record, 1), 1);
    assert_false(fault_queue_sleep(*state));
    assert_int_equal(fault_queue_harvest(*state, &record, 1), 1);
    assert_true(fault_queue_sleep(*state));
}

static void test_awake_by_itself(void **state)
{
    assert_true(fault_queue_sleep(*state));
    fault_queue_awake(*state);
    assert_int_equal(push(*state, 1), FAULT_PUSHED);
}

static void test_full_owes_nothing(void **state)
{
    for (uint64_t i = 0; i < CAPACITY; i++)
        push(*state, i);
    assert_false(fault_queue_sleep(*state));
    assert_int_equal(push(*state, 99), FAULT_QUEUE_FULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_capacities),
        cmocka_unit_test_setup_teardown(test_order_over_many_laps, setup, teardown),
        cmocka_unit_test_setup_teardown(test_batches, setup, teardown),
        cmocka_unit_test_setup_teardown(test_full_is_told, setup, teardown),
        cmocka_unit_test_setup_teardown(test_one_wake_a_sleep, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_sleep_over_a_record, setup, teardown),
        cmocka_unit_test_setup_teardown(test_awake_by_itself, setup, teardown),
        cmocka_unit_test_setup_teardown(test_full_owes_nothing, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
