/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Time, from the time stamp counter alone; it is the same on all processors. */
#ifndef GUEST_CLOCK_H
#define GUEST_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

/* A moment that passes again and again, and is seen by exactly one processor each time. */
typedef struct Deadline {
    uint64_t at; /* ticks */
} Deadline;

void clock_init(uint64_t tsc_khz);

/* Ticks to microseconds and nanoseconds. */
uint64_t clock_us(uint64_t ticks);
uint64_t clock_ns(uint64_t ticks);

uint64_t clock_ticks(uint64_t us);

/* True for the one caller that finds the deadline over; it is then `period` ticks after now. */
static inline bool deadline_take(Deadline *deadline, uint64_t now, uint64_t period)
{
    uint64_t at = __atomic_load_n(&deadline->at, __ATOMIC_RELAXED);

    return now >= at && __atomic_compare_exchange_n(&deadline->at, &at, now + period, false,
                                                    __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

/* The next to ask finds the deadline over. */
static inline void deadline_expire(Deadline *deadline)
{
    __atomic_store_n(&deadline->at, 0, __ATOMIC_RELAXED);
}

#endif
