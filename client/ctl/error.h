/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What can go wrong in postcopyctl; the message is one line for people. */
#ifndef POSTCOPYD_CTL_ERROR_H
#define POSTCOPYD_CTL_ERROR_H

#include <glib.h>

#define CTL_ERROR (ctl_error_quark())

typedef enum CtlError {
    CTL_ERROR_FAILED = 1,
    CTL_ERROR_USAGE,       /* the command line */
    CTL_ERROR_REFUSED,     /* the other side answered, and said no */
    CTL_ERROR_CLOSED,      /* the other side is gone */
    CTL_ERROR_TIMEOUT,     /* the other side did not answer in time */
    CTL_ERROR_INTERRUPTED, /* SIGINT or SIGTERM */
    CTL_ERROR_UNSAFE,      /* neither side may be run without a look at both */
} CtlError;

GQuark ctl_error_quark(void);

/* The exit status that goes with an error. */
int ctl_error_status(const GError *error);

#endif
