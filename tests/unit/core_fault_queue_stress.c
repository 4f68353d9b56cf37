/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Several producers and one consumer that really sleeps, on a small ring that is often full and often
 * empty.  Every record is handed over once or was refused to its producer, whole and in its order;
 * nobody sleeps over a record; no more wakes are owed than sleeps were announced.
 */
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/core/fault_queue.h"

enum { PRODUCERS = 4, EACH = 30000, BATCH = 5, PATIENCE_MS = 30000 };

typedef struct Producer {
    pthread_t thread;
    struct Stress *stress;
    uint32_t index;
    unsigned pause_of; /* it lets the queue run empty once in so many records; 0: never */
    uint64_t pushed, refused, wakes;
} Producer;

typedef struct Stress {
    FaultQueue queue;
    int wake_fd;
    _Atomic unsigned done;
    Producer producers[PRODUCERS];
    uint64_t next[PRODUCERS]; /* of each producer, the lowest number that may still come */
    uint64_t taken, announced, sleeps, wrong;
    bool forgotten;
} Stress;

static void wake(Stress *stress)
{
    uint64_t one = 1;

    if (write(stress->wake_fd, &one, sizeof one) != sizeof one)
        abort();
}

/* Each field says the same, so that a torn record shows. */
static FaultRecord make(uint32_t producer, uint64_t number)
{
    return (FaultRecord){
        .address = number,
        .since_ns = ~number,
        .shard = producer,
        .vcpu = (uint32_t)number ^ producer,
        .minor = number & 1,
    };
}

static void *produce(void *argument)
{
    Producer *self = argument;
    struct timespec pause = {.tv_nsec = 20000};

    for (uint64_t i = 0; i < EACH; i++) {
        FaultRecord record = make(self->index, i);
        switch (fault_queue_push(&self->stress->queue, &record)) {
        case FAULT_PUSHED_WAKE:
            self->wakes++;
            wake(self->stress);
            self->pushed++;
            break;
        case FAULT_PUSHED:
            self->pushed++;
            break;
        case FAULT_QUEUE_FULL:
            self->refused++;
            sched_yield();
            break;
        }
        if (self->pause_of && i % self->pause_of == 0)
            nanosleep(&pause, NULL);
    }
    /* The last one makes the consumer look once more, as who stops a resolver does. */
    if (atomic_fetch_add(&self->stress->done, 1) + 1 == PRODUCERS)
        wake(self->stress);
    return NULL;
}

static void take(Stress *stress, const FaultRecord *record)
{
    uint32_t who = record->shard;
    FaultRecord good = make(who, record->address);

    stress->taken++;
    if (who >= PRODUCERS || record->address < stress->next[who] ||
        record->since_ns != good.since_ns || record->vcpu != good.vcpu ||
        record->minor != good.minor) {
        stress->wrong++;
        return;
    }
    stress->next[who] = record->address + 1;
}

static bool sleep_until_woken(Stress *stress)
{
    struct pollfd poll_fd = {.fd = stress->wake_fd, .events = POLLIN};
    uint64_t count;

    stress->sleeps++;
    if (poll(&poll_fd, 1, PATIENCE_MS) != 1)
        return false;
    if (read(stress->wake_fd, &count, sizeof count) != sizeof count)
        abort();
    return true;
}

static void consume(Stress *stress)
{
    FaultRecord records[BATCH];

    for (;;) {
        bool last = atomic_load(&stress->done) == PRODUCERS;
        unsigned n = fault_queue_harvest(&stress->queue, records, BATCH);
        for (unsigned i = 0; i < n; i++)
            take(stress, &records[i]);
        if (n > 0)
            continue;
        if (last)
            return;
        stress->announced++;
        if (!fault_queue_sleep(&stress->queue))
            continue;
        stress->forgotten = !sleep_until_woken(stress);
        fault_queue_awake(&stress->queue);
        if (stress->forgotten)
            return;
    }
}

static void run(uint32_t capacity, unsigned pause_of)
{
    Stress *stress = aligned_alloc(FAULT_QUEUE_LINE, sizeof *stress);
    uint64_t pushed = 0, refused = 0, wakes = 0;

    assert_non_null(stress);
    *stress = (Stress){.wake_fd = eventfd(0, EFD_CLOEXEC)};
    assert_int_equal(fault_queue_init(&stress->queue, capacity), 0);
    for (uint32_t i = 0; i < PRODUCERS; i++) {
        Producer *producer = &stress->producers[i];
        *producer = (Producer){.stress = stress, .index = i, .pause_of = pause_of};
        pthread_create(&producer->thread, NULL, produce, producer);
    }
    consume(stress);
    for (uint32_t i = 0; i < PRODUCERS; i++) {
        pthread_join(stress->producers[i].thread, NULL);
        pushed += stress->producers[i].pushed;
        refused += stress->producers[i].refused;
        wakes += stress->producers[i].wakes;
    }
    print_message(
        "capacity %u: %lu handed over, %lu refused, %lu announced, %lu slept, %lu wakes\n",
        capacity, stress->taken, refused, stress->announced, stress->sleeps, wakes);
    assert_false(stress->forgotten);
    assert_int_equal(stress->wrong, 0);
    assert_int_equal(stress->taken, pushed);
    assert_int_equal(pushed + refused, (uint64_t)PRODUCERS * EACH);
    assert_true(wakes <= stress->announced);
    fault_queue_deinit(&stress->queue);
    close(stress->wake_fd);
    free(stress);
}

static void test_often_full(void **state)
{
    (void)state;
    run(4, 0);
}

static void test_often_empty(void **state)
{
    (void)state;
    run(64, 20);
}

static void test_roomy(void **state)
{
    (void)state;
    run(1 << 16, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_often_full),
        cmocka_unit_test(test_often_empty),
        cmocka_unit_test(test_roomy),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
