/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The one place where postcopyctl waits: for file descriptors, a deadline and Ctrl-C at once.
 *
 * SIGINT and SIGTERM are blocked and read from a descriptor, so nothing is left half done: they
 * count only where somebody waits and has not masked them.
 */
#ifndef POSTCOPYD_QMP_WAIT_H
#define POSTCOPYD_QMP_WAIT_H

#include <glib.h>

#define WAIT_FOREVER (-1)

typedef struct Interrupt {
    int fd;          /* a signalfd, -1 if there is none */
    gboolean masked; /* signals wait until this is cleared */
} Interrupt;

/* Blocks the signals of this process and opens the descriptor. */
gboolean interrupt_init(Interrupt *interrupt, GError **error);
void interrupt_deinit(Interrupt *interrupt);

/* Now, and so many milliseconds from now, in g_get_monotonic_time()'s microseconds. */
gint64 wait_deadline(gint64 milliseconds);

/*
 * Waits until one of the fds is readable or at its end; negative fds are left out.
 * CALL_ERROR_TIMEOUT at the deadline, CALL_ERROR_INTERRUPTED on a signal.
 */
gboolean wait_readable(const int *fds, guint n, const Interrupt *interrupt, gint64 deadline,
                       GError **error);

/* Sleeps until the deadline; FALSE if a signal came before. */
gboolean wait_until(const Interrupt *interrupt, gint64 deadline, GError **error);

#endif
