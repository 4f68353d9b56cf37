/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Waiting for another thread, but not for ever, by the monotonic clock. Any thread. */
#ifndef POSTCOPYD_QEMU_TIMED_H
#define POSTCOPYD_QEMU_TIMED_H

#include <glib.h>
#include <pthread.h>

void timed_init(pthread_cond_t *condition);

/* So many milliseconds from now, in microseconds of g_get_monotonic_time(). */
gint64 timed_deadline(gint64 milliseconds);

/* As pthread_cond_wait(). FALSE: the deadline has passed. */
gboolean timed_wait(pthread_cond_t *condition, pthread_mutex_t *lock, gint64 deadline);

#endif
