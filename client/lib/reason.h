/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Why something failed, in one line for people.
 */
#ifndef POSTCOPY_REASON_H
#define POSTCOPY_REASON_H

#include "protocol/limits.h"

typedef struct Reason {
    char text[LIMIT_TEXT + 1];
} Reason;

/*
 * Sets the text, cut to fit and without control characters, which neither the wire nor a terminal
 * takes.  Returns error, so that a failure is told and returned in one statement.
 */
int reason_set(Reason *ret_reason, int error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
