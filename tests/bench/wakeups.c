/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Many service threads wait on one userfaultfd while workers touch memory for the first time: how often
 * is a service thread woken for a fault, and how long does it all take?  Nothing is fetched; pages
 * become zero pages.
 *
 *   wakeups read|poll|ours WAITERS WORKERS MIB [WAITERS_CPU WORKERS_CPU]
 *
 *   read   each waiter blocks in read() of one message
 *   poll   each waiter blocks in poll(), then reads one message without blocking
 *   ours   each waiter has an io_uring with an exclusive poll, and reads batches: what a resolver does
 */
#include <errno.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "daemon/core/ring.h"
#include "tests/bench/bench_common.h"
#include "tests/bench/touch.h"

enum { BATCH = 32, SETTLE_US = 200000 };

typedef struct Bench {
    BenchMemory memory;
    uint64_t slice; /* pages of a worker */
    unsigned n_workers;
    int waiters_cpu; /* -1: any */
} Bench;

typedef struct Waiter {
    const Bench *bench;
    pthread_t thread;
    pid_t tid;        /* atomic; 0 until it runs */
    uint64_t returns; /* atomic: how often it came back from waiting */
    uint64_t faults;  /* atomic */
    Ring ring;
    RingWatch watch;
} Waiter;

/* Only its own thread adds. */
static void add(uint64_t *counter, uint64_t n)
{
    __atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

static void place(Waiter *self, uint64_t offset)
{
    const BenchMemory *memory = &self->bench->memory;
    struct uffdio_zeropage argument = {
        .range = {.start = (uintptr_t)memory->guest + offset, .len = BENCH_PAGE},
    };

    if (ioctl(memory->uffd, UFFDIO_ZEROPAGE, &argument) && errno != EEXIST)
        bench_die("UFFDIO_ZEROPAGE");
    add(&self->faults, 1);
}

static void begin(Waiter *self)
{
    bench_pin(self->bench->waiters_cpu);
    __atomic_store_n(&self->tid, gettid(), __ATOMIC_RELEASE);
}

static void *run_read(void *argument)
{
    Waiter *self = argument;
    uint64_t offset;

    begin(self);
    for (;;) {
        bool got = bench_memory_fault(&self->bench->memory, &offset);
        add(&self->returns, 1);
        if (got)
            place(self, offset);
    }
    return NULL;
}

static void *run_poll(void *argument)
{
    Waiter *self = argument;
    struct pollfd poller = {.fd = self->bench->memory.uffd, .events = POLLIN};
    uint64_t offset;

    begin(self);
    for (;;) {
        poll(&poller, 1, -1);
        add(&self->returns, 1);
        if (bench_memory_fault(&self->bench->memory, &offset))
            place(self, offset);
    }
    return NULL;
}

static void ready(RingWatch *watch, int result)
{
    Waiter *self = watch->owner;
    const BenchMemory *memory = &self->bench->memory;
    struct uffd_msg messages[BATCH];
    ssize_t n;

    (void)result;
    do {
        n = read(memory->uffd, messages, sizeof messages) / (ssize_t)sizeof *messages;
        for (ssize_t i = 0; i < n; i++)
            place(self, messages[i].arg.pagefault.address - (uintptr_t)memory->guest);
    } while (n == BATCH);
    ring_poll(&self->ring, watch, memory->uffd, POLLIN, true);
}

static void woken(void *owner)
{
    (void)owner;
}

static void *run_ours(void *argument)
{
    Waiter *self = argument;

    begin(self);
    self->watch = (RingWatch){.done = ready, .owner = self};
    if (ring_init(&self->ring, woken, self) || ring_start(&self->ring, 8))
        bench_die("io_uring");
    ring_poll(&self->ring, &self->watch, self->bench->memory.uffd, POLLIN, true);
    while (ring_wait(&self->ring, -1) == 0)
        add(&self->returns, 1);
    return NULL;
}

static const void *page_of(const void *owner, uint64_t number)
{
    const Bench *bench = owner;

    /* touch.h deals pages out in turn; here each worker goes through a slice of its own. */
    uint64_t page = number % bench->n_workers * bench->slice + number / bench->n_workers;
    return bench->memory.guest + page * BENCH_PAGE;
}

typedef struct Sum {
    BenchCost cost;
    uint64_t returns, faults;
} Sum;

static Sum sum_of(const Waiter *waiters, unsigned n)
{
    Sum sum = {0};

    for (unsigned i = 0; i < n; i++) {
        BenchCost cost = bench_cost(__atomic_load_n(&waiters[i].tid, __ATOMIC_ACQUIRE));
        sum.cost.cpu_ns += cost.cpu_ns;
        sum.cost.sleeps += cost.sleeps;
        sum.returns += __atomic_load_n(&waiters[i].returns, __ATOMIC_RELAXED);
        sum.faults += __atomic_load_n(&waiters[i].faults, __ATOMIC_RELAXED);
    }
    return sum;
}

static Waiter *start_waiters(const Bench *bench, unsigned n, void *(*function)(void *))
{
    Waiter *waiters = calloc(n, sizeof *waiters);

    if (!waiters)
        bench_die("memory");
    for (unsigned i = 0; i < n; i++) {
        waiters[i].bench = bench;
        if (pthread_create(&waiters[i].thread, NULL, function, &waiters[i]))
            bench_die("thread %u", i);
    }
    for (unsigned i = 0; i < n; i++)
        while (!__atomic_load_n(&waiters[i].tid, __ATOMIC_ACQUIRE))
            usleep(100);
    usleep(SETTLE_US);
    return waiters;
}

static void report(const Sum *before, const Sum *after, const TouchResult *result)
{
    double faults = (double)(after->faults - before->faults);

    printf("{\"ms\": %.2f, \"faults\": %.0f, \"returns_per_fault\": %.4f, "
           "\"wakeups_per_fault\": %.4f, \"cpu_us_per_fault\": %.3f, \"p50_us\": %.2f, "
           "\"p99_us\": %.2f}\n",
           (double)result->elapsed_ns / 1e6, faults,
           (double)(after->returns - before->returns) / faults,
           (double)(after->cost.sleeps - before->cost.sleeps) / faults,
           (double)(after->cost.cpu_ns - before->cost.cpu_ns) / 1e3 / faults,
           (double)result->all.p50_ns / 1e3, (double)result->all.p99_ns / 1e3);
    fflush(stdout);
}

typedef void *(*Row)(void *);

static Row row_of(const char *name)
{
    if (strcmp(name, "read") == 0)
        return run_read;
    if (strcmp(name, "poll") == 0)
        return run_poll;
    return strcmp(name, "ours") == 0 ? run_ours : NULL;
}

int main(int argc, char **argv)
{
    static Bench bench;
    Row function = argc == 5 || argc == 7 ? row_of(argv[1]) : NULL;
    TouchResult result;

    if (!function)
        bench_die("usage: wakeups read|poll|ours WAITERS WORKERS MIB [WAITERS_CPU WORKERS_CPU]");
    bench.waiters_cpu = argc == 7 ? bench_cpu(argv[5]) : -1;
    unsigned n_waiters = (unsigned)bench_number(argv[2], 1000);
    bench.n_workers = (unsigned)bench_number(argv[3], TOUCH_THREADS);
    bench_memory_init(&bench.memory, BENCH_ANONYMOUS, bench_number(argv[4], 1 << 16) << 20);
    bench_memory_register(&bench.memory, function == run_read);
    bench.slice = bench.memory.length / BENCH_PAGE / bench.n_workers;

    Waiter *waiters = start_waiters(&bench, n_waiters, function);
    const TouchPlan plan = {
        .page = page_of,
        .owner = &bench,
        .n_pages = bench.slice * bench.n_workers,
        .n = bench.slice * bench.n_workers,
        .n_threads = bench.n_workers,
        .cpu = argc == 7 ? bench_cpu(argv[6]) : -1,
    };
    Sum before = sum_of(waiters, n_waiters);
    touch_run(&plan, &result);
    Sum after = sum_of(waiters, n_waiters);
    report(&before, &after, &result);
    /* The waiters still wait; they end with the process. */
    _exit(0);
}
