/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What it takes here to wake a thread that sleeps on another core: a few microseconds on a machine of its own,
 * a hundred and more where the host is itself a guest, or emulated: each wake-up then leaves it.
 */
#ifndef POSTCOPYD_CORE_WAKE_COST_H
#define POSTCOPYD_CORE_WAKE_COST_H

#include <stdint.h>

/*
 * Measures it: nanoseconds from a thread's write to an eventfd until another, which slept in a read of it on
 * another CPU (the first two that the caller may use), has returned.  0: could not be measured, for want of
 * descriptors or of threads.  Takes 64 times two wake-ups, or 50 ms if that is less and both threads get on;
 * they are joined then.  Any thread, while nothing urgent waits.
 */
uint64_t wake_cost_ns(void);

#endif
