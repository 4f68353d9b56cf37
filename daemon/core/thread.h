/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Joining a thread that may sit in a system call: a peer or a client must not be able to hold up the
 * one that joins.  The thread is asked to stop by its owner first (a flag, a wake-up); whatever call
 * it sits in then ends with EINTR.
 */
#ifndef POSTCOPYD_CORE_THREAD_H
#define POSTCOPYD_CORE_THREAD_H

#include <pthread.h>

/* SIGUSR1 interrupts system calls from now on, and does nothing else. Any thread, any number of times. */
void thread_catch_signal(void);

/*
 * Joins a thread that was told to stop, and that looks whether it was after every system call.
 * Interrupts it again and again until it is gone, so one signal that comes just before a call is not
 * missed.
 */
void thread_join(pthread_t thread);

/*
 * The calling thread goes before others on its core, as far as this process may have it so: what it does
 * is short, and a guest waits for it.
 */
void thread_hurry(void);

#endif
