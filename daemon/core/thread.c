/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/core/thread.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <sys/resource.h>

/* Most threads are gone in less than a round; a signal is for those that are stuck. */
enum { JOIN_ROUND_MS = 1, JOIN_SIGNAL_ROUNDS = 20 };

enum { NICE_IN_A_HURRY = -15 };

static void ignore(int signal_number)
{
    (void)signal_number;
}

static void install(void)
{
    struct sigaction action = {.sa_handler = ignore}; /* without SA_RESTART: calls end with EINTR */

    sigaction(SIGUSR1, &action, NULL);
}

void thread_catch_signal(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, install);
}

void thread_join(pthread_t thread)
{
    thread_catch_signal();
    for (unsigned round = 1; pthread_tryjoin_np(thread, NULL) == EBUSY; round++) {
        poll(NULL, 0, JOIN_ROUND_MS);
        if (round % JOIN_SIGNAL_ROUNDS == 0)
            pthread_kill(thread, SIGUSR1);
    }
}

/* Linux: a nice value is a thread's own, and 0 is the calling one (setpriority(2)). */
void thread_hurry(void)
{
    (void)setpriority(PRIO_PROCESS, 0, NICE_IN_A_HURRY);
}
