/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the library does in a dead daemon's place: whoever gives memory back waits until that is
 * heard, and there is nobody else to hear it.
 *
 * Rule 8: reading events and placing pages never run side by side.  So events are only read while the
 * daemon that served this memory is proven dead, by a pidfd, and before another is greeted.  Faults
 * that are read along are not lost: its successor wakes all that wait.  The library's thread only.
 */
#ifndef POSTCOPY_DRAIN_H
#define POSTCOPY_DRAIN_H

#include <pthread.h>

#include "client/lib/arm.h"

/* A daemon serves this memory now: from its death on, which this will notice, events are ours. */
void drain_follow(Armed *armed);

/* Waits for delay_ms, or until wake (an eventfd) is readable; heeds events meanwhile. */
void drain_wait(Armed *armed, const Regions *regions, int wake, int delay_ms);

void drain_end(Armed *armed);

/*
 * While memory is emptied for arming, which is an event too: a thread reads the shards' uffds and
 * forgets what it read, of the shards from first on.  0 or negative errno.
 */
typedef struct Drainer {
    const Armed *armed;
    uint32_t first; /* the shards from here on */
    pthread_t thread;
    int stop; /* eventfd; -1: not needed */
} Drainer;

int drain_begin(Drainer *drainer, const Armed *armed, uint32_t first);

/* Ends it, and wakes whoever's fault was forgotten. */
void drain_finish(Drainer *drainer, const Regions *regions);

#endif
