/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * When guest memory's faults are the daemon's and when QEMU's (rule 9): the decision alone.
 *
 * They are the daemon's as long as it serves.  Once it is stale (gone, halted, or a fault is 50 ms
 * old) they are relayed to QEMU's own fault thread, until the daemon has been well for a while.  The
 * registration is never moved back: whoever waited meanwhile would read zeroes.  One that only took its
 * time to begin has them at once.
 * No I/O and no clock in here; one thread.
 */
#ifndef POSTCOPY_QEMU_RELAY_H
#define POSTCOPY_QEMU_RELAY_H

#include <stdbool.h>
#include <stdint.h>

#include "protocol/pagetable.h"

/* All times in ns of CLOCK_MONOTONIC. */
#define RELAY_BOUND_NS    UINT64_C(50000000) /* how old a fault may get */
#define RELAY_WELL_NS     UINT64_C(200000000) /* how long the daemon must be well to have them back */
#define RELAY_WELL_MAX_NS UINT64_C(1600000000)

typedef struct Relay {
    bool relaying;
    bool served;          /* the daemon did once */
    bool early;           /* while relaying: since before it did, so it need not prove itself */
    uint64_t well_since;  /* while relaying; 0: it is not */
    uint64_t wanted_well; /* doubled each time that giving them back did not last */
    uint64_t left_at;     /* 0: never */
    uint64_t woken_at;
} Relay;

/* What the decision is made of. */
typedef struct RelayView {
    uint64_t now;
    uint64_t registered_at;
    uint64_t readable_since; /* that uffd which has been readable the longest; 0: none is */
    bool connected;
    bool serving;
    uint64_t busy_since[PAGE_TABLE_BUSY];
} RelayView;

typedef enum RelayStep {
    RELAY_STAY,
    RELAY_ENTER, /* set header.relaying, then wake all; from now on our uffds are read */
    RELAY_WAKE,  /* wake all: the daemon may have read faults just before it kept off */
    RELAY_LEAVE, /* clear header.relaying: our uffds are no longer read */
} RelayStep;

void relay_init(Relay *relay);

/* What is to be done now; called every 10 ms or so while any memory is registered. */
RelayStep relay_tick(Relay *relay, const RelayView *view);

#endif
