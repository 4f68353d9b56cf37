/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Faults that wait for a page somebody else fetches, so that whoever places it can account how long
 * they waited.  Statistics only: a full neighbourhood drops the entry, never the fault.
 * Lock-free, no allocation, any thread.
 *
 * Order: a waiter is entered before the page is marked WAITED, and taken after the exchange to
 * PRESENT returned the mark, so a marked page's waiters are found.
 */
#ifndef POSTCOPYD_CORE_WAITERS_H
#define POSTCOPYD_CORE_WAITERS_H

#include <stdatomic.h>
#include <stdint.h>

enum { WAITERS_SLOTS = 1024, WAITERS_NEIGHBOURS = 64 };

typedef struct Waiter {
    _Atomic uint64_t key; /* 0: free; 1: being written */
    uint32_t vcpu;
    uint64_t since_ns;
} Waiter;

typedef struct Waiters {
    Waiter slots[WAITERS_SLOTS];
    _Atomic uint64_t dropped;
} Waiters;

/* Keys: any value above 1 that identifies region and page. */
static inline uint64_t waiters_key(uint32_t region, uint64_t page)
{
    return ((uint64_t)(region + 1) << 48) | page;
}

/* The slot taken, or -1. */
int waiters_enter(Waiters *waiters, uint64_t key, uint32_t vcpu, uint64_t since_ns);

/* Gives an own slot back: the page turned out to be present. False if a placer took it already. */
int waiters_leave(Waiters *waiters, int slot, uint64_t key);

/* Takes every waiter of a page. */
void waiters_take(Waiters *waiters, uint64_t key,
                  void (*each)(void *owner, uint32_t vcpu, uint64_t since_ns), void *owner);

#endif
