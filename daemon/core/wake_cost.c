/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/core/wake_cost.h"

#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "daemon/core/clock.h"

enum { ROUNDS = 64, ENOUGH_MS = 50 };

/* What is written to `asked`: the other thread answers once, or ends. */
enum { ASK = 1, END = 2 };

typedef struct Pair {
    int asked, answered; /* eventfds */
    uint64_t cost_ns;
} Pair;

static bool send_count(int fd, uint64_t count)
{
    return write(fd, &count, sizeof count) == sizeof count;
}

static uint64_t await_count(int fd)
{
    uint64_t count;

    return read(fd, &count, sizeof count) == sizeof count ? count : END;
}

static void *answer(void *argument)
{
    const Pair *pair = argument;

    while (await_count(pair->asked) == ASK && send_count(pair->answered, ASK))
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

    while (n < ROUNDS && before - begin < UINT64_C(1000000) * ENOUGH_MS) {
        if (!send_count(pair->asked, ASK) || await_count(pair->answered) != ASK)
            return NULL;
        now = clock_ns();
        took_ns[n++] = now - before;
        before = now;
    }
    qsort(took_ns, n, sizeof took_ns[0], by_size);
    pair->cost_ns = took_ns[n / 4] / 2;
    return NULL;
}

/* The index-th CPU that this thread may use, or any if there are not so many. */
static cpu_set_t one_cpu(unsigned index)
{
    cpu_set_t allowed, one;

    CPU_ZERO(&one);
    if (sched_getaffinity(0, sizeof allowed, &allowed))
        CPU_ZERO(&allowed);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &allowed) && index-- == 0) {
            CPU_SET(cpu, &one);
            return one;
        }
    return allowed;
}

/* The kernel would have such a pair share a CPU now and then, where a wake-up is but a change of threads. */
static bool start(pthread_t *ret_thread, void *(*run)(void *), Pair *pair, unsigned cpu_index)
{
    cpu_set_t cpu = one_cpu(cpu_index);
    pthread_attr_t attributes;
    bool started;

    if (pthread_attr_init(&attributes))
        return false;
    started = pthread_attr_setaffinity_np(&attributes, sizeof cpu, &cpu) == 0 &&
              pthread_create(ret_thread, &attributes, run, pair) == 0;
    pthread_attr_destroy(&attributes);
    return started;
}

static void measure(Pair *pair)
{
    pthread_t asker, answerer;

    if (!start(&answerer, answer, pair, 0))
        return;
    if (start(&asker, ask, pair, 1))
        pthread_join(asker, NULL);
    send_count(pair->asked, END);
    pthread_join(answerer, NULL);
}

uint64_t wake_cost_ns(void)
{
    Pair pair = {.asked = eventfd(0, EFD_CLOEXEC), .answered = eventfd(0, EFD_CLOEXEC)};

    if (pair.asked >= 0 && pair.answered >= 0)
        measure(&pair);
    if (pair.asked >= 0)
        close(pair.asked);
    if (pair.answered >= 0)
        close(pair.answered);
    return pair.cost_ns;
}
