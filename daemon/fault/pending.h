/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Faults that a resolver of an assist import read and that are not resolved yet, oldest first, so that the
 * client can be told how long the oldest has waited (rule 9).  Pure; one resolver's.
 */
#ifndef POSTCOPYD_FAULT_PENDING_H
#define POSTCOPYD_FAULT_PENDING_H

#include <stdbool.h>
#include <stdint.h>

enum { PENDING_MAX = 1024 };

typedef struct PendingFault {
    uint64_t page;
    uint64_t since_ns; /* before it was read */
    uint64_t asked_ns; /* when its page was last asked for */
    uint32_t region;
    uint32_t vcpu;
} PendingFault;

typedef struct Pending {
    unsigned n;
    PendingFault faults[PENDING_MAX];
} Pending;

/* A fault that was just read. One on a page that is waited for already adds nothing: whatever resolves the
 * one resolves both.  There is room: see pending_room(). */
void pending_add(Pending *pending, const PendingFault *fault);

static inline unsigned pending_room(const Pending *pending)
{
    return PENDING_MAX - pending->n;
}

/* When the oldest was read; 0: there is none. */
static inline uint64_t pending_oldest(const Pending *pending)
{
    return pending->n ? pending->faults[0].since_ns : 0;
}

/* Forgets those of which is_resolved() says so, which may change asked_ns of the others. */
void pending_prune(Pending *pending, bool (*is_resolved)(void *owner, PendingFault *fault),
                   void *owner);

#endif
