/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/qemu/timed.h"

void timed_init(pthread_cond_t *condition)
{
    pthread_condattr_t attributes;

    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(condition, &attributes);
    pthread_condattr_destroy(&attributes);
}

gint64 timed_deadline(gint64 milliseconds)
{
    return g_get_monotonic_time() + milliseconds * 1000;
}

gboolean timed_wait(pthread_cond_t *condition, pthread_mutex_t *lock, gint64 deadline)
{
    struct timespec until = {.tv_sec = deadline / G_USEC_PER_SEC,
                             .tv_nsec = deadline % G_USEC_PER_SEC * 1000};

    return pthread_cond_timedwait(condition, lock, &until) == 0;
}
