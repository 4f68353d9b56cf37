/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/core/wake_cost.h"

#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "daemon/core/clock.h"

enum { PLACES = 4, ROUNDS = 16, PLACE_MS = 5, JOIN_MS = 50 };

/* What is written to either: the one that reads it is asked or answered, or both shall end. */
enum { GO = 1, END = 1 << 16 };

typedef struct Pair {
    int asked, answered; /* eventfds */
    uint64_t cost_ns;    /* 0: not known */
} Pair;

static bool send_count(int fd, uint64_t count)
{
    return write(fd, &count, sizeof count) == sizeof count;
}

/* Sleeps until there is something; false: it is the end. */
static bool awaited(int fd)
{
    uint64_t count;

    return read(fd, &count, sizeof count) == sizeof count && count == GO;
}

static void *answer(void *argument)
{
    const Pair *pair = argument;

    while (awaited(pair->asked) && send_count(pair->answered, GO))
        ;
    return NULL;
}

static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/*
 * Each sleeps until the other wakes it, so a round is two wake-ups.  The lower quartile: what others do on
 * these CPUs only ever adds to it.
 */
static void *ask(void *argument)
{
    Pair *pair = argument;
    uint64_t took_ns[ROUNDS], begin = clock_ns(), before = begin, now;
    unsigned n = 0;

    while (n < ROUNDS && before - begin < UINT64_C(1000000) * PLACE_MS) {
        if (!send_count(pair->asked, GO) || !awaited(pair->answered))
            return NULL;
        now = clock_ns();
        took_ns[n++] = now - before;
        before = now;
    }
    qsort(took_ns, n, sizeof took_ns[0], by_size);
    pair->cost_ns = took_ns[n / 4] / 2;
    return NULL;
}

/* The index-th of these CPUs, counted round and round. */
static cpu_set_t one_of(const cpu_set_t *cpus, unsigned index)
{
    cpu_set_t one;

    CPU_ZERO(&one);
    index %= (unsigned)CPU_COUNT(cpus);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, cpus) && index-- == 0)
            CPU_SET(cpu, &one);
    return one;
}

/* The kernel would have such a pair share a CPU now and then, where a wake-up is but a change of threads. */
static bool start(pthread_t *ret_thread, void *(*run)(void *), Pair *pair, cpu_set_t cpu)
{
    pthread_attr_t attributes;
    bool started;

    if (pthread_attr_init(&attributes))
        return false;
    started = pthread_attr_setaffinity_np(&attributes, sizeof cpu, &cpu) == 0 &&
              pthread_create(ret_thread, &attributes, run, pair) == 0;
    pthread_attr_destroy(&attributes);
    return started;
}

/* False: it is still at it. */
static bool has_ended(pthread_t thread)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 1000000L * JOIN_MS;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    return pthread_timedjoin_np(thread, NULL, &until) == 0;
}

/*
 * Somebody may keep a CPU for himself, by priority: who has to get on there to end does so where the caller is,
 * who evidently gets on.  The caller's own CPUs are set again, as for a thread that ends just then glibc 2.36
 * names the kernel thread 0, which is the caller.
 */
static void end(pthread_t thread, const cpu_set_t *allowed)
{
    int cpu = sched_getcpu();
    cpu_set_t here;

    if (has_ended(thread))
        return;
    CPU_ZERO(&here);
    if (cpu >= 0 && cpu < CPU_SETSIZE)
        CPU_SET(cpu, &here);
    pthread_setaffinity_np(thread, sizeof here, &here);
    pthread_join(thread, NULL);
    sched_setaffinity(0, sizeof *allowed, allowed);
}

/* On two CPUs that are neighbours, or one if there is no other. */
static void measure(Pair *pair, const cpu_set_t *allowed, unsigned first)
{
    pthread_t asker, answerer;

    if (!start(&answerer, answer, pair, one_of(allowed, first)))
        return;
    bool asks = start(&asker, ask, pair, one_of(allowed, first + 1)) && !has_ended(asker);
    send_count(pair->asked, END);
    send_count(pair->answered, END);
    if (asks)
        end(asker, allowed);
    end(answerer, allowed);
}

static uint64_t measure_at(const cpu_set_t *allowed, unsigned first)
{
    Pair pair = {.asked = eventfd(0, EFD_CLOEXEC), .answered = eventfd(0, EFD_CLOEXEC)};

    if (pair.asked >= 0 && pair.answered >= 0)
        measure(&pair, allowed, first);
    if (pair.asked >= 0)
        close(pair.asked);
    if (pair.answered >= 0)
        close(pair.answered);
    return pair.cost_ns;
}

/* The least of several places: a guest that runs on one of these CPUs would make each wake-up there look dear. */
uint64_t wake_cost_ns(void)
{
    cpu_set_t allowed;
    uint64_t least = 0;

    if (sched_getaffinity(0, sizeof allowed, &allowed) || CPU_COUNT(&allowed) == 0)
        return 0;
    for (unsigned place = 0; place < PLACES; place++) {
        uint64_t cost = measure_at(&allowed, place * (unsigned)CPU_COUNT(&allowed) / PLACES);

        if (cost > 0 && (least == 0 || cost < least))
            least = cost;
    }
    return least;
}
