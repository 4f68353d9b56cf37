/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The books of waiting faults: each waiter is taken once, by its placer or by itself.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/core/waiters.h"

enum { THREADS = 4, TURNS = 20000 };

static Waiters waiters;
static _Atomic uint64_t taken, left;

static void add(void *owner, uint32_t vcpu, uint64_t since_ns)
{
    uint64_t *sum = owner;

    sum[0]++;
    sum[1] += vcpu;
    sum[2] += since_ns;
}

static int set_up(void **state)
{
    (void)state;
    memset(&waiters, 0, sizeof waiters);
    return 0;
}

static void all_waiters_of_a_page_are_taken(void **state)
{
    uint64_t sum[3] = {0};

    (void)state;
    for (uint32_t vcpu = 1; vcpu <= 3; vcpu++)
        assert_true(waiters_enter(&waiters, waiters_key(0, 7), vcpu, 100 * vcpu) >= 0);
    assert_true(waiters_enter(&waiters, waiters_key(1, 7), 50, 1) >= 0);
    waiters_take(&waiters, waiters_key(0, 7), add, sum);
    assert_int_equal(sum[0], 3);
    assert_int_equal(sum[1], 6);
    assert_int_equal(sum[2], 600);
    waiters_take(&waiters, waiters_key(0, 7), add, sum);
    assert_int_equal(sum[0], 3);
    waiters_take(&waiters, waiters_key(1, 7), add, sum);
    assert_int_equal(sum[0], 4);
}

static void a_slot_is_given_back_once(void **state)
{
    uint64_t sum[3] = {0};
    int slot = waiters_enter(&waiters, waiters_key(0, 7), 1, 1);

    (void)state;
    assert_true(waiters_leave(&waiters, slot, waiters_key(0, 7)));
    assert_false(waiters_leave(&waiters, slot, waiters_key(0, 7)));
    assert_false(waiters_leave(&waiters, -1, waiters_key(0, 7)));
    waiters_take(&waiters, waiters_key(0, 7), add, sum);
    assert_int_equal(sum[0], 0);
}

static void a_full_neighbourhood_drops_the_entry(void **state)
{
    uint64_t sum[3] = {0};

    (void)state;
    for (unsigned i = 0; i < WAITERS_NEIGHBOURS; i++)
        assert_true(waiters_enter(&waiters, waiters_key(3, 9), 1, 0) >= 0);
    assert_int_equal(waiters_enter(&waiters, waiters_key(3, 9), 1, 0), -1);
    assert_int_equal(atomic_load(&waiters.dropped), 1);
    waiters_take(&waiters, waiters_key(3, 9), add, sum);
    assert_int_equal(sum[0], WAITERS_NEIGHBOURS);
    assert_true(waiters_enter(&waiters, waiters_key(3, 9), 1, 0) >= 0);
}

static void *run(void *argument)
{
    uint32_t vcpu = *(uint32_t *)argument;
    uint64_t sum[3] = {0};

    for (unsigned i = 0; i < TURNS; i++) {
        uint64_t key = waiters_key(0, i % 5);
        int slot = waiters_enter(&waiters, key, vcpu, 1);
        if (i % 3 == 0)
            waiters_take(&waiters, waiters_key(0, (i + 1) % 5), add, sum);
        else if (waiters_leave(&waiters, slot, key))
            atomic_fetch_add(&left, 1);
    }
    atomic_fetch_add(&taken, sum[0]);
    return NULL;
}

static void nobody_is_taken_twice(void **state)
{
    pthread_t threads[THREADS];
    uint32_t vcpus[THREADS];
    uint64_t sum[3] = {0};

    (void)state;
    for (uint32_t i = 0; i < THREADS; i++) {
        vcpus[i] = i;
        pthread_create(&threads[i], NULL, run, &vcpus[i]);
    }
    for (uint32_t i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (uint64_t page = 0; page < 5; page++)
        waiters_take(&waiters, waiters_key(0, page), add, sum);
    assert_int_equal(atomic_load(&taken) + atomic_load(&left) + sum[0] +
                         atomic_load(&waiters.dropped),
                     (uint64_t)THREADS * TURNS);
    for (unsigned i = 0; i < WAITERS_SLOTS; i++)
        assert_int_equal(atomic_load(&waiters.slots[i].key), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(all_waiters_of_a_page_are_taken, set_up),
        cmocka_unit_test_setup(a_slot_is_given_back_once, set_up),
        cmocka_unit_test_setup(a_full_neighbourhood_drops_the_entry, set_up),
        cmocka_unit_test_setup(nobody_is_taken_twice, set_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
