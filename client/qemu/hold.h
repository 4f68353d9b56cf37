/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Holds QEMU's own stream back while the daemon's brings memory ahead of it (the head start): every page of
 * the first is one that the second has brought already or will bring, and costs CPU and link for nothing.
 * QEMU's threads wait in their COPY; what they have not read yet makes the source's QEMU wait too.
 *
 * Never for longer than the daemon gets on, never while somebody waits for a page that QEMU was asked for,
 * and for no more than HOLD_MOST_NS in all, whatever the daemon says.
 */
#ifndef POSTCOPY_QEMU_HOLD_H
#define POSTCOPY_QEMU_HOLD_H

#include <stdbool.h>
#include <stdint.h>

#include "client/qemu/clock.h"
#include "client/qemu/plan.h"

#define HOLD_FRESH_NS (50 * CLOCK_MS)    /* a daemon that has brought nothing for so long hangs */
#define HOLD_MOST_NS  (10000 * CLOCK_MS) /* of all threads together */

enum { HOLD_ASKED = 32 };

/* All words are atomic, and 0 at first. */
typedef struct Hold {
    uint64_t
        asked[HOLD_ASKED]; /* addresses of faults that went to QEMU and are not resolved; 0: none */
    bool has_asked;        /* there was one */
    bool never;            /* who waits for QEMU cannot be told any more */
    uint64_t held_ns;      /* so long the stream was held */
} Hold;

/* The decision alone.  QEMU's threads. */
bool hold_is_due(Hold *hold, Plan *plan, uint64_t now);

/* Before each page: returns when it may be placed.  QEMU's threads. */
void hold_wait(Hold *hold, Plan *plan);

/* QEMU has placed memory that is not the plan's.  QEMU's threads. */
void hold_placed(Hold *hold, uint64_t address, uint64_t length);

/* A fault goes to QEMU: said before it does.  The assist thread. */
void hold_asks(Hold *hold, uint64_t address);

/*
 * There are others who wait for QEMU, whose faults we do not see: a vhost-user back end's come over a
 * userfaultfd of its own, and are resolved by QEMU alone.  Nothing is held any more.  Any thread.
 */
void hold_never(Hold *hold);

#endif
