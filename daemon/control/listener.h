/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A listening socket on the control thread's loop.  When the process has no file descriptor left it
 * pauses instead of being told of the same connection over and over.
 */
#ifndef POSTCOPYD_CONTROL_LISTENER_H
#define POSTCOPYD_CONTROL_LISTENER_H

#include "daemon/control/control.h"

typedef struct Listener Listener;

/* accepted() takes the connection. what: of whom, for the log; a constant. Lives until exit. */
Listener *listener_new(Control *control, int fd, const char *what,
                       void (*accepted)(Control *control, int fd));

#endif
