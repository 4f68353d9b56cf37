/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A data thread's ring: wake-ups from outside, exclusive polls, sockets.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/core/clock.h"
#include "daemon/core/ring.h"

enum { RINGS = 3, EVENTS = 1000, WAKES = 2000, PATIENCE_MS = 10000 };

typedef struct Worker {
    Ring ring;
    RingWatch watch;
    pthread_t thread;
    int fd;
    _Atomic bool stop, ready;
    _Atomic unsigned woken, polled, result;
    unsigned seen; /* of the number written before the wake-up; plain on purpose */
} Worker;

static unsigned number;
static _Atomic unsigned handled;

static bool patient(bool (*done)(const void *), const void *argument)
{
    uint64_t until = clock_ns() + UINT64_C(1000000) * PATIENCE_MS;

    while (!done(argument))
        if (clock_ns() > until)
            return false;
        else
            sched_yield();
    return true;
}

static void on_woken(void *owner)
{
    Worker *worker = owner;

    worker->seen = number;
    atomic_fetch_add(&worker->woken, 1);
}

static void on_event(RingWatch *watch, int result)
{
    Worker *worker = watch->owner;
    uint64_t count;

    (void)result;
    atomic_fetch_add(&worker->polled, 1);
    if (read(worker->fd, &count, sizeof count) > 0)
        atomic_fetch_add(&handled, 1);
    ring_poll(&worker->ring, watch, worker->fd, POLLIN, true);
}

static void *run(void *argument)
{
    Worker *worker = argument;

    if (ring_start(&worker->ring, 8))
        abort();
    if (worker->fd >= 0)
        ring_poll(&worker->ring, &worker->watch, worker->fd, POLLIN, true);
    ring_wait(&worker->ring, 0);
    atomic_store(&worker->ready, true);
    while (!atomic_load(&worker->stop))
        if (ring_wait(&worker->ring, -1))
            abort();
    ring_stop(&worker->ring);
    return NULL;
}

static bool is_ready(const void *argument)
{
    return atomic_load(&((const Worker *)argument)->ready);
}

static void start(Worker *worker, int fd)
{
    memset(worker, 0, sizeof *worker);
    assert_int_equal(ring_init(&worker->ring, on_woken, worker), 0);
    worker->fd = fd;
    worker->watch = (RingWatch){.done = on_event, .owner = worker};
    pthread_create(&worker->thread, NULL, run, worker);
    assert_true(patient(is_ready, worker));
}

static void finish(Worker *worker)
{
    atomic_store(&worker->stop, true);
    ring_wake(&worker->ring);
    pthread_join(worker->thread, NULL);
    ring_deinit(&worker->ring);
}

static bool was_woken(const void *argument)
{
    return atomic_load(&((const Worker *)argument)->woken) > 0;
}

static void another_thread_wakes_it_and_what_it_wrote_is_seen(void **state)
{
    static Worker worker;

    (void)state;
    start(&worker, -1);
    for (unsigned i = 1; i <= WAKES; i++) {
        atomic_store(&worker.woken, 0);
        number = i;
        ring_wake(&worker.ring);
        assert_true(patient(was_woken, &worker));
        assert_int_equal(worker.seen, i);
    }
    finish(&worker);
}

static bool all_handled(const void *argument)
{
    return atomic_load(&handled) >= *(const unsigned *)argument;
}

/* A herd would be woken about three times for each event. */
static void one_ring_of_many_is_woken_for_an_event(void **state)
{
    static Worker workers[RINGS];
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    unsigned polled = 0;
    uint64_t one = 1;

    (void)state;
    atomic_store(&handled, 0);
    for (unsigned i = 0; i < RINGS; i++)
        start(&workers[i], fd);
    for (unsigned i = 1; i <= EVENTS; i++) {
        assert_int_equal(write(fd, &one, sizeof one), sizeof one);
        assert_true(patient(all_handled, &i));
        usleep(200); /* until its handler polls again: a new poll looks first */
    }
    for (unsigned i = 0; i < RINGS; i++) {
        polled += atomic_load(&workers[i].polled);
        finish(&workers[i]);
    }
    print_message("%u wake-ups for %u events\n", polled, EVENTS);
    assert_in_range(polled, EVENTS, EVENTS + EVENTS / 5);
    close(fd);
}

static void keep_result(RingWatch *watch, int result)
{
    *(int *)watch->owner = result;
}

static void it_sends_and_receives(void **state)
{
    int pair[2], sent = 0, received = 0;
    char out[5000], in[5000];
    RingWatch sending = {.done = keep_result, .owner = &sent};
    RingWatch receiving = {.done = keep_result, .owner = &received};
    Ring ring;

    (void)state;
    memset(out, 'x', sizeof out);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
    assert_int_equal(ring_init(&ring, on_woken, NULL), 0);
    assert_int_equal(ring_start(&ring, 8), 0);
    ring_receive(&ring, &receiving, pair[1], in, sizeof in);
    assert_int_equal(ring_wait(&ring, 0), 0);
    assert_true(receiving.busy); /* an empty non-blocking socket is waited for */
    ring_send(&ring, &sending, pair[0], out, sizeof out);
    while (sending.busy || receiving.busy)
        assert_int_equal(ring_wait(&ring, 1000), 0);
    assert_int_equal(sent, sizeof out);
    assert_int_equal(received, sizeof out);
    assert_memory_equal(in, out, sizeof out);
    ring_receive(&ring, &receiving, pair[1], in, sizeof in);
    close(pair[0]);
    while (receiving.busy)
        assert_int_equal(ring_wait(&ring, 1000), 0);
    assert_int_equal(received, 0);
    ring_stop(&ring);
    ring_deinit(&ring);
    close(pair[1]);
}

static void waiting_ends_with_the_time(void **state)
{
    uint64_t before = clock_ns();
    Ring ring;

    (void)state;
    assert_int_equal(ring_init(&ring, on_woken, NULL), 0);
    assert_int_equal(ring_start(&ring, 8), 0);
    assert_int_equal(ring_wait(&ring, 20), 0);
    assert_true(clock_ns() - before >= UINT64_C(19000000));
    ring_stop(&ring);
    ring_deinit(&ring);
}

static void more_operations_than_entries_are_queued(void **state)
{
    RingWatch watches[40];
    int results[40], fds[40];
    uint64_t one = 1;
    Ring ring;

    (void)state;
    assert_int_equal(ring_init(&ring, on_woken, NULL), 0);
    assert_int_equal(ring_start(&ring, 8), 0);
    for (unsigned i = 0; i < 40; i++) {
        results[i] = -1;
        fds[i] = eventfd(0, EFD_NONBLOCK);
        watches[i] = (RingWatch){.done = keep_result, .owner = &results[i]};
        ring_poll(&ring, &watches[i], fds[i], POLLIN, true);
    }
    for (unsigned i = 0; i < 40; i++)
        assert_int_equal(write(fds[i], &one, sizeof one), sizeof one);
    for (unsigned i = 0; i < 40; i++) {
        while (watches[i].busy)
            assert_int_equal(ring_wait(&ring, 1000), 0);
        assert_true(results[i] & POLLIN);
        close(fds[i]);
    }
    ring_stop(&ring);
    ring_deinit(&ring);
}

static void what_is_cancelled_ends_and_only_that(void **state)
{
    Ring ring;
    int results[2] = {0, 0};
    RingWatch gone = {.done = keep_result, .owner = &results[0]};
    RingWatch kept = {.done = keep_result, .owner = &results[1]};
    uint64_t one = 1;
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    (void)state;
    assert_int_equal(ring_init(&ring, on_woken, &(Worker){0}), 0);
    assert_int_equal(ring_start(&ring, 8), 0);
    ring_poll(&ring, &gone, fd, POLLIN, true);
    ring_poll(&ring, &kept, fd, POLLIN, true);
    assert_int_equal(ring_wait(&ring, 1), 0);
    ring_cancel(&ring, &gone);
    for (int i = 0; i < 100 && gone.busy; i++)
        assert_int_equal(ring_wait(&ring, 10), 0);
    assert_int_equal(results[0], -ECANCELED);
    assert_true(kept.busy);
    assert_int_equal(write(fd, &one, sizeof one), sizeof one);
    for (int i = 0; i < 100 && kept.busy; i++)
        assert_int_equal(ring_wait(&ring, 10), 0);
    assert_true(results[1] & POLLIN);
    ring_cancel(&ring, &gone); /* what is over is left alone */
    assert_int_equal(ring_wait(&ring, 1), 0);
    assert_int_equal(results[0], -ECANCELED);
    close(fd);
    ring_stop(&ring);
    ring_deinit(&ring);
}

/* What comes while it looks is found without sleeping; where nothing comes, looking ends. */
static void it_looks_before_it_sleeps(void **state)
{
    Ring ring;
    RingWatch watch = {.done = keep_result, .owner = &(int){0}};
    uint64_t one = 1;
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    (void)state;
    assert_int_equal(ring_init(&ring, on_woken, &(Worker){0}), 0);
    assert_int_equal(ring_start(&ring, 8), 0);
    spin_init(&ring.spin, 200000000);
    ring_poll(&ring, &watch, fd, POLLIN, true);
    assert_int_equal(write(fd, &one, sizeof one), sizeof one);
    assert_int_equal(ring_wait(&ring, -1), 0);
    assert_false(watch.busy);
    assert_int_equal(ring.spin.hits, 1);
    spin_init(&ring.spin, 8000);
    for (unsigned i = 0; i < 20; i++)
        assert_int_equal(ring_wait(&ring, 1), 0);
    assert_int_equal(ring.spin.now_ns, 0);
    assert_true(ring.spin.tried <= 5);
    assert_int_equal(ring.spin.hits, 0);
    close(fd);
    ring_stop(&ring);
    ring_deinit(&ring);
}

/* What comes soon after it fell asleep would have been seen: the second time, it looks again. */
static void it_looks_again_after_short_sleeps(void **state)
{
    Ring ring;

    (void)state;
    assert_int_equal(ring_init(&ring, on_woken, &(Worker){0}), 0);
    assert_int_equal(ring_start(&ring, 8), 0);
    spin_init(&ring.spin, UINT64_C(4000000000));
    while (spin_budget(&ring.spin) > 0)
        spin_learn(&ring.spin, false);
    ring.spin.tried = 0;
    for (unsigned i = 0; i < 3; i++) {
        ring_wake(&ring);
        assert_int_equal(ring_wait(&ring, -1), 0);
        assert_int_equal(ring.spin.tried, i == 2);
    }
    assert_int_equal(ring.spin.hits, 1);
    ring_stop(&ring);
    ring_deinit(&ring);
}

typedef struct Beside {
    RingAside aside;
    Ring *ring;
    unsigned glances, settles;
    bool glance_finds, settle_finds, leaves, hurries;
} Beside;

static bool glance_beside(RingAside *aside)
{
    Beside *beside = (Beside *)aside;

    beside->glances++;
    if (beside->leaves)
        ring_remove_aside(beside->ring, aside);
    if (beside->hurries)
        ring_hurry(beside->ring);
    return beside->glance_finds;
}

static bool settle_beside(RingAside *aside)
{
    Beside *beside = (Beside *)aside;

    beside->settles++;
    if (beside->leaves)
        ring_remove_aside(beside->ring, aside);
    if (beside->hurries)
        ring_hurry(beside->ring);
    return beside->settle_finds;
}

static void start_with_three(Ring *ring, Beside three[3])
{
    assert_int_equal(ring_init(ring, on_woken, &(Worker){0}), 0);
    assert_int_equal(ring_start(ring, 8), 0);
    for (unsigned i = 0; i < 3; i++) {
        three[i] =
            (Beside){.aside = {.glance = glance_beside, .settle = settle_beside}, .ring = ring};
        ring_add_aside(ring, &three[i].aside);
    }
}

static uint64_t wait_ms_long(Ring *ring, int most_ms)
{
    uint64_t before = clock_ns();

    assert_int_equal(ring_wait(ring, most_ms), 0);
    return (clock_ns() - before) / 1000000;
}

static bool sleeps(Ring *ring)
{
    return wait_ms_long(ring, 50) >= 50;
}

static bool stays_awake(Ring *ring)
{
    return wait_ms_long(ring, 5000) < 2500;
}

/* None of them is forgotten before it sleeps, for nothing else would wake it. */
static void all_that_is_aside_is_settled(void **state)
{
    Ring ring;
    Beside three[3];

    (void)state;
    start_with_three(&ring, three);
    assert_true(sleeps(&ring));
    three[2].settle_finds = true; /* the first to be asked */
    assert_true(stays_awake(&ring));
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(three[i].settles, 2);
    ring_hurry(&ring);
    assert_true(stays_awake(&ring));
    assert_int_equal(ring_wait(&ring, 0), 0);
    three[2].settle_finds = false;
    assert_int_equal(three[0].settles, 2); /* who does not sleep need not be told */
    three[1].leaves = three[1].hurries = true;
    assert_true(stays_awake(&ring));
    assert_true(sleeps(&ring));
    ring_remove_aside(&ring, &three[1].aside); /* is not there */
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(three[i].settles, i == 1 ? 3 : 4);
    assert_int_equal(three[0].glances, 0);
    ring_stop(&ring);
    ring_deinit(&ring);
}

static void all_that_is_aside_is_glanced_at(void **state)
{
    Ring ring;
    Beside three[3];

    (void)state;
    start_with_three(&ring, three);
    spin_init(&ring.spin, UINT64_C(4000000000));
    three[2].glance_finds = true;
    assert_true(stays_awake(&ring));
    three[2].glance_finds = false;
    three[1].leaves = three[1].hurries = true;
    assert_true(stays_awake(&ring));
    three[0].glance_finds = true;
    assert_true(stays_awake(&ring));
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(three[i].glances, i == 1 ? 2 : 3);
        assert_int_equal(three[i].settles, 0);
    }
    ring_stop(&ring);
    ring_deinit(&ring);
}

static bool host_has_io_uring(void)
{
    Ring ring;
    int error = ring_init(&ring, on_woken, NULL);

    if (!error)
        error = ring_start(&ring, 8);
    if (!error)
        ring_stop(&ring);
    else
        printf("skipped: io_uring: %s\n", strerror(-error));
    ring_deinit(&ring);
    return !error;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(another_thread_wakes_it_and_what_it_wrote_is_seen),
        cmocka_unit_test(one_ring_of_many_is_woken_for_an_event),
        cmocka_unit_test(it_sends_and_receives),
        cmocka_unit_test(waiting_ends_with_the_time),
        cmocka_unit_test(what_is_cancelled_ends_and_only_that),
        cmocka_unit_test(it_looks_before_it_sleeps),
        cmocka_unit_test(it_looks_again_after_short_sleeps),
        cmocka_unit_test(all_that_is_aside_is_settled),
        cmocka_unit_test(all_that_is_aside_is_glanced_at),
        cmocka_unit_test(more_operations_than_entries_are_queued),
    };

    return host_has_io_uring() ? cmocka_run_group_tests(tests, NULL, NULL) : 77;
}
