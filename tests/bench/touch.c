/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/bench/touch.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

typedef struct TouchThread {
    const TouchPlan *plan;
    pthread_t thread;
    unsigned index;
    uint32_t tid; /* atomic; 0 until it runs */
    uint32_t *latency_ns;
    pthread_barrier_t *barrier;
    const uint32_t *order; /* page numbers by place; NULL: their own order */
} TouchThread;

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* A shuffle that is the same every time. */
static uint32_t *shuffled(uint64_t n)
{
    uint32_t *order = malloc(n * sizeof *order);
    uint64_t state = UINT64_C(0x2545f4914f6cdd1d);

    if (!order)
        abort();
    for (uint64_t i = 0; i < n; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        uint64_t other = state % (i + 1);
        order[i] = order[other];
        order[other] = (uint32_t)i;
    }
    return order;
}

static uint32_t touch(const uint8_t *page)
{
    uint64_t before = now_ns(), took;

    (void)__atomic_load_n(page, __ATOMIC_RELAXED);
    took = now_ns() - before;
    return took < UINT32_MAX ? (uint32_t)took : UINT32_MAX;
}

static void think(unsigned us)
{
    struct timespec pause = {.tv_nsec = (long)us * 1000};

    if (us > 0)
        nanosleep(&pause, NULL);
}

static void pin(int cpu)
{
    cpu_set_t set;

    if (cpu < 0)
        return;
    CPU_ZERO(&set);
    CPU_SET((unsigned)cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set))
        abort();
}

static void *run(void *argument)
{
    TouchThread *self = argument;
    const TouchPlan *plan = self->plan;

    pin(plan->cpu);
    __atomic_store_n(&self->tid, (uint32_t)gettid(), __ATOMIC_RELEASE);
    pthread_barrier_wait(self->barrier);
    for (uint64_t i = self->index; i < plan->n; i += plan->n_threads) {
        uint64_t place = plan->first + i;
        uint64_t number = self->order ? self->order[place] : place;
        self->latency_ns[i] = touch(plan->page(plan->owner, number));
        think(plan->think_us);
    }
    return NULL;
}

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

/* Of sorted latencies. */
static TouchTimes times_of(const uint32_t *sorted, uint64_t n)
{
    TouchTimes times = {.n = n};

    if (n == 0)
        return times;
    for (uint64_t i = 0; i < n; i++)
        times.sum_ns += sorted[i];
    times.p50_ns = sorted[n / 2];
    times.p90_ns = sorted[n * 9 / 10];
    times.p99_ns = sorted[n * 99 / 100];
    times.p999_ns = sorted[n * 999 / 1000];
    times.max_ns = sorted[n - 1];
    return times;
}

static void summarise(uint32_t *latency_ns, uint64_t n, TouchResult *ret_result)
{
    uint64_t quick = 0;

    qsort(latency_ns, n, sizeof *latency_ns, compare);
    while (quick < n && latency_ns[quick] < TOUCH_WAITED_NS)
        quick++;
    ret_result->all = times_of(latency_ns, n);
    ret_result->waited = times_of(latency_ns + quick, n - quick);
}

static void start_threads(TouchThread *threads, const TouchPlan *plan, const uint32_t *order,
                          uint32_t *latency_ns, pthread_barrier_t *barrier)
{
    uint32_t tids[TOUCH_THREADS];

    for (unsigned i = 0; i < plan->n_threads; i++) {
        threads[i] = (TouchThread){
            .plan = plan,
            .index = i,
            .latency_ns = latency_ns,
            .barrier = barrier,
            .order = order,
        };
        if (pthread_create(&threads[i].thread, NULL, run, &threads[i]))
            abort();
    }
    for (unsigned i = 0; i < plan->n_threads; i++)
        while (!(tids[i] = __atomic_load_n(&threads[i].tid, __ATOMIC_ACQUIRE)))
            usleep(100);
    if (plan->started)
        plan->started(plan->started_owner, tids, plan->n_threads);
}

void touch_run(const TouchPlan *plan, TouchResult *ret_result)
{
    TouchThread *threads = calloc(plan->n_threads, sizeof *threads);
    uint32_t *latency_ns = calloc(plan->n, sizeof *latency_ns);
    uint32_t *order = plan->random ? shuffled(plan->n_pages) : NULL;
    pthread_barrier_t barrier;
    uint64_t begin;

    if (!threads || !latency_ns)
        abort();
    /* So that no first touch is one of this array. */
    for (uint64_t i = 0; i < plan->n; i++)
        __atomic_store_n(&latency_ns[i], 0, __ATOMIC_RELAXED);
    pthread_barrier_init(&barrier, NULL, plan->n_threads + 1);
    start_threads(threads, plan, order, latency_ns, &barrier);
    pthread_barrier_wait(&barrier);
    begin = now_ns();
    for (unsigned i = 0; i < plan->n_threads; i++)
        pthread_join(threads[i].thread, NULL);
    ret_result->elapsed_ns = now_ns() - begin;
    pthread_barrier_destroy(&barrier);
    summarise(latency_ns, plan->n, ret_result);
    free(order);
    free(latency_ns);
    free(threads);
}

static int format_times(char *text, unsigned size, const char *name, const TouchTimes *times)
{
    return snprintf(text, size,
                    ", \"%s\": {\"n\": %lu, \"sum_ms\": %.3f, \"p50_us\": %.2f, \"p90_us\": %.2f, "
                    "\"p99_us\": %.2f, \"p999_us\": %.2f, \"max_us\": %.2f}",
                    name, times->n, (double)times->sum_ns / 1e6, (double)times->p50_ns / 1e3,
                    (double)times->p90_ns / 1e3, (double)times->p99_ns / 1e3,
                    (double)times->p999_ns / 1e3, (double)times->max_ns / 1e3);
}

void touch_format(const TouchResult *result, char *text, unsigned size)
{
    unsigned used = (unsigned)snprintf(text, size, "{\"touches\": %lu, \"elapsed_ms\": %.3f",
                                       result->all.n, (double)result->elapsed_ns / 1e6);

    used += (unsigned)format_times(text + used, size - used, "all", &result->all);
    used += (unsigned)format_times(text + used, size - used, "waited", &result->waited);
    snprintf(text + used, size - used, "}");
}
