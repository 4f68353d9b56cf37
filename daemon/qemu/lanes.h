/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Threads for calls that may block for any time: what is posted to one lane runs in order, one after the
 * other, and lanes do not wait for each other (as long as a thread is left: one that hangs takes one
 * thread away, not one for each thing that waits behind it).
 */
#ifndef POSTCOPYD_QEMU_LANES_H
#define POSTCOPYD_QEMU_LANES_H

#include <glib.h>

#include "protocol/limits.h"

typedef struct Lanes Lanes;

typedef struct LaneKey {
    guint8 uuid[LIMIT_UUID];
    guint8 kind;
} LaneKey;

typedef void (*LaneFunction)(void *data);

/* At most so many threads, which begin when they are needed. Any thread. */
Lanes *lanes_new(unsigned threads);

/*
 * Runs run(data) later on a thread of the lanes, or drop(data) instead (on any thread) once they were
 * stopped.  Any thread; without a lock held that run or drop take.
 */
void lanes_post(Lanes *lanes, const LaneKey *key, LaneFunction run, LaneFunction drop, void *data);

/*
 * Drops what has not begun, and waits so long for what has.  FALSE: some of it goes on for now, so
 * that what it uses must stay.  Once.
 */
gboolean lanes_stop(Lanes *lanes, gint64 milliseconds);

/* Only after lanes_stop() said TRUE, and if nobody posts any more. */
void lanes_free(Lanes *lanes);

#endif
