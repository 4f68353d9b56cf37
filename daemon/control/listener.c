/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/control/listener.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "daemon/core/log.h"

enum { LISTENER_PAUSE_MS = 200 };

struct Listener {
    Control *control;
    const char *what;
    void (*accepted)(Control *control, int fd);
    struct event *event, *resume;
    LogLimit limit;
};

/* The connection that waits would wake us again at once. */
static void pause_listening(Listener *listener, int error)
{
    const struct timeval pause = {.tv_usec = LISTENER_PAUSE_MS * 1000L};

    event_del(listener->event);
    event_add(listener->resume, &pause);
    if (log_limit_allows(&listener->limit))
        log_error("cannot accept %s: %s; raise LimitNOFILE, or see who holds so many connections "
                  "(postcopyctl status)",
                  listener->what, strerror(error));
}

static void on_connection(evutil_socket_t fd, short what, void *argument)
{
    Listener *listener = argument;
    int accepted = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    int error = errno;

    (void)what;
    if (accepted >= 0)
        listener->accepted(listener->control, accepted);
    else if (error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM)
        pause_listening(listener, error);
}

static void on_resume(evutil_socket_t fd, short what, void *argument)
{
    Listener *listener = argument;

    (void)fd;
    (void)what;
    event_add(listener->event, NULL);
}

Listener *listener_new(Control *control, int fd, const char *what,
                       void (*accepted)(Control *control, int fd))
{
    Listener *listener = g_new0(Listener, 1);

    listener->control = control;
    listener->what = what;
    listener->accepted = accepted;
    listener->event = event_new(control->base, fd, EV_READ | EV_PERSIST, on_connection, listener);
    listener->resume = event_new(control->base, -1, 0, on_resume, listener);
    event_add(listener->event, NULL);
    return listener;
}
