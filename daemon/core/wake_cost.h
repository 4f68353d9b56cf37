/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What it takes here to wake a thread that sleeps on another CPU: a few microseconds on a machine of its own,
 * a hundred and more where the host is itself a guest, or emulated: each wake-up then leaves it.
 */
#ifndef POSTCOPYD_CORE_WAKE_COST_H
#define POSTCOPYD_CORE_WAKE_COST_H

#include <stdint.h>

/*
 * Measures it: nanoseconds from a thread's write to an eventfd until another, which slept in a read of it on the
 * next CPU, has returned; in four places among the CPUs that the caller may use, the least of them.  0: could not
 * be measured, for want of descriptors, threads or time on those CPUs, or as the kernel knows more than
 * CPU_SETSIZE of them.  With one CPU it is what a change of threads takes.  Takes as long as 128 wake-ups, and some
 * 20 ms at most where CPUs are free; about half a second where they are kept from ordinary threads.  Its own
 * threads have ended then.  Any thread.
 */
uint64_t wake_cost_ns(void);

#endif
