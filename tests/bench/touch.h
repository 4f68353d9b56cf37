/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Threads that touch pages, each page once by one thread, and what the touches took: the guest's side
 * of every benchmark of the fault path.
 */
#ifndef BENCH_TOUCH_H
#define BENCH_TOUCH_H

#include <stdbool.h>
#include <stdint.h>

enum {
    TOUCH_THREADS = 256,
    TOUCH_WAITED_NS = 20000, /* a touch that took this long waited for its page */
};

typedef struct TouchPlan {
    /* Where the page with a number below n_pages lies. */
    const void *(*page)(const void *owner, uint64_t number);
    const void *owner;
    uint64_t n_pages;
    uint64_t first, n; /* which of them, by their place in the order */
    bool random;       /* one order for all: the same first and n are the same pages */
    unsigned n_threads;
    unsigned think_us; /* between the touches of a thread */
    int cpu;           /* of all threads; -1: any */
    /* Called once when the threads exist, before the first touch; may be NULL. */
    void (*started)(void *owner, const uint32_t *tids, unsigned n);
    void *started_owner;
} TouchPlan;

/* Of all touches, and of those that waited. */
typedef struct TouchTimes {
    uint64_t n;
    uint64_t sum_ns, p50_ns, p90_ns, p99_ns, p999_ns, max_ns;
} TouchTimes;

typedef struct TouchResult {
    uint64_t elapsed_ns; /* from the first touch to the end of the last thread */
    TouchTimes all, waited;
} TouchResult;

void touch_run(const TouchPlan *plan, TouchResult *ret_result);

/* {"touches": …, "elapsed_ms": …, "all": {…}, "waited": {…}} in one line, without its end. */
void touch_format(const TouchResult *result, char *text, unsigned size);

#endif
