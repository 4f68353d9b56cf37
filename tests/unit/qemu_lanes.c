/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Lanes keep their order, do not wait for each other, and end though one of them hangs. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/qemu/lanes.h"

enum { N_LANES = 7, N_JOBS = 400, THREADS = 3 };

typedef struct Job {
    int lane, number;
} Job;

static Job jobs[N_LANES][N_JOBS];
static int next[N_LANES]; /* of one thread at a time: the thread sanitizer would see another */
static atomic_int n_run, n_dropped, n_wrong;

static LaneKey key(int lane)
{
    return (LaneKey){.kind = (guint8)lane};
}

static void run(void *data)
{
    const Job *job = data;

    if (next[job->lane]++ != job->number)
        atomic_fetch_add(&n_wrong, 1);
    atomic_fetch_add(&n_run, 1);
}

static void drop(void *data)
{
    (void)data;
    atomic_fetch_add(&n_dropped, 1);
}

static void wait_for(atomic_int *count, int wanted)
{
    for (int i = 0; i < 10000 && atomic_load(count) < wanted; i++)
        usleep(1000);
    assert_int_equal(atomic_load(count), wanted);
}

static int set_up(void **state)
{
    (void)state;
    for (int lane = 0; lane < N_LANES; lane++)
        next[lane] = 0;
    atomic_store(&n_run, 0);
    atomic_store(&n_dropped, 0);
    atomic_store(&n_wrong, 0);
    return 0;
}

static void order(void **state)
{
    Lanes *lanes = lanes_new(THREADS);

    (void)state;
    for (int number = 0; number < N_JOBS; number++)
        for (int lane = 0; lane < N_LANES; lane++) {
            LaneKey to = key(lane);
            jobs[lane][number] = (Job){.lane = lane, .number = number};
            lanes_post(lanes, &to, run, drop, &jobs[lane][number]);
        }
    wait_for(&n_run, N_LANES * N_JOBS);
    assert_int_equal(atomic_load(&n_wrong), 0);
    assert_true(lanes_stop(lanes, 5000));
    lanes_free(lanes);
    assert_int_equal(atomic_load(&n_dropped), 0);
}

/* Holds its thread until it is let go. */
typedef struct Held {
    atomic_int begun, let_go, ended;
} Held;

static void hold(void *data)
{
    Held *held = data;

    atomic_store(&held->begun, 1);
    while (!atomic_load(&held->let_go))
        usleep(1000);
    atomic_store(&held->ended, 1);
}

static void one_hangs(void **state)
{
    static Held held;
    static Lanes *lanes; /* is never freed, as what hangs could still use it */
    LaneKey stuck = key(0), other = key(1);

    (void)state;
    lanes = lanes_new(2);
    held = (Held){0};
    lanes_post(lanes, &stuck, hold, drop, &held);
    for (int i = 0; i < 10; i++)
        lanes_post(lanes, &stuck, run, drop, &jobs[0][i]);
    for (int i = 0; i < 10; i++)
        lanes_post(lanes, &other, run, drop, &jobs[1][i]);
    wait_for(&n_run, 10); /* the other lane's */
    assert_true(atomic_load(&held.begun));
    assert_false(lanes_stop(lanes, 50));
    assert_int_equal(atomic_load(&n_dropped), 10);
    lanes_post(lanes, &other, run, drop, &jobs[1][0]);
    assert_int_equal(atomic_load(&n_dropped), 11);
    atomic_store(&held.let_go, 1);
    wait_for(&held.ended, 1);
    usleep(50000); /* its thread goes; what it uses stays, as in the daemon */
}

static void stopped_at_once(void **state)
{
    Lanes *lanes = lanes_new(4);
    LaneKey to = key(0);

    (void)state;
    for (int i = 0; i < 100; i++)
        lanes_post(lanes, &to, run, drop, &jobs[0][i]);
    assert_true(lanes_stop(lanes, 5000));
    lanes_free(lanes);
    assert_int_equal(atomic_load(&n_run) + atomic_load(&n_dropped), 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(order, set_up),
        cmocka_unit_test_setup(one_hangs, set_up),
        cmocka_unit_test_setup(stopped_at_once, set_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
