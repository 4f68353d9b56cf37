/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "protocol/qmp/wait.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "protocol/qmp/error.h"

enum { WAIT_FDS_MAX = 4 };

gboolean interrupt_init(Interrupt *interrupt, GError **error)
{
    sigset_t signals;

    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    interrupt->masked = FALSE;
    interrupt->fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    if (interrupt->fd < 0) {
        g_set_error(error, CALL_ERROR, CALL_ERROR_FAILED, "signalfd: %s", g_strerror(errno));
        return FALSE;
    }
    return TRUE;
}

void interrupt_deinit(Interrupt *interrupt)
{
    if (interrupt->fd >= 0)
        close(interrupt->fd);
    interrupt->fd = -1;
}

gint64 wait_deadline(gint64 milliseconds)
{
    return g_get_monotonic_time() + milliseconds * 1000;
}

/* What is left until the deadline; the timeout of ppoll(), NULL without one. */
static const struct timespec *remaining(gint64 deadline, struct timespec *space)
{
    gint64 left;

    if (deadline == WAIT_FOREVER)
        return NULL;
    left = MAX(deadline - g_get_monotonic_time(), 0);
    space->tv_sec = left / G_USEC_PER_SEC;
    space->tv_nsec = left % G_USEC_PER_SEC * 1000;
    return space;
}

gboolean wait_readable(const int *fds, guint n, const Interrupt *interrupt, gint64 deadline,
                       GError **error)
{
    struct pollfd poll_fds[WAIT_FDS_MAX + 1];
    struct timespec space;
    int ready;

    g_assert(n <= WAIT_FDS_MAX);
    for (guint i = 0; i < n; i++)
        poll_fds[i] = (struct pollfd){.fd = fds[i], .events = POLLIN};
    poll_fds[n] = (struct pollfd){
        .fd = interrupt && !interrupt->masked ? interrupt->fd : -1,
        .events = POLLIN,
    };
    do
        ready = ppoll(poll_fds, n + 1, remaining(deadline, &space), NULL);
    while (ready < 0 && errno == EINTR);
    if (ready < 0) {
        g_set_error(error, CALL_ERROR, CALL_ERROR_FAILED, "poll: %s", g_strerror(errno));
        return FALSE;
    }
    if (poll_fds[n].revents) {
        g_set_error(error, CALL_ERROR, CALL_ERROR_INTERRUPTED, "interrupted");
        return FALSE;
    }
    if (ready == 0) {
        g_set_error(error, CALL_ERROR, CALL_ERROR_TIMEOUT, "timed out");
        return FALSE;
    }
    return TRUE;
}

gboolean wait_until(const Interrupt *interrupt, gint64 deadline, GError **error)
{
    g_autoptr(GError) local = NULL;

    if (wait_readable(NULL, 0, interrupt, deadline, &local) ||
        g_error_matches(local, CALL_ERROR, CALL_ERROR_TIMEOUT))
        return TRUE;
    g_propagate_error(error, g_steal_pointer(&local));
    return FALSE;
}
