/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What can go wrong where another process is asked for something; the message is one line for people. */
#ifndef POSTCOPYD_QMP_ERROR_H
#define POSTCOPYD_QMP_ERROR_H

#include <glib.h>

#define CALL_ERROR (call_error_quark())

typedef enum CallError {
    CALL_ERROR_FAILED = 1,
    CALL_ERROR_USAGE,       /* the command line */
    CALL_ERROR_REFUSED,     /* the other side answered, and said no */
    CALL_ERROR_CLOSED,      /* the other side is gone */
    CALL_ERROR_TIMEOUT,     /* the other side did not answer in time */
    CALL_ERROR_INTERRUPTED, /* SIGINT or SIGTERM */
    CALL_ERROR_UNSAFE,      /* neither side may be run without a look at both */
} CallError;

GQuark call_error_quark(void);

#endif
