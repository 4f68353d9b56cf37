/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What postcopy_error() tells: the outcome of a thread's last call.
 */
#ifndef POSTCOPY_ERROR_H
#define POSTCOPY_ERROR_H

#include "client/lib/reason.h"

/* Of this thread's last call, "" if it succeeded. */
extern __thread Reason error_of_thread __attribute__((visibility("hidden")));

/* Both return their number, so that a call ends with one statement. */
int error_set(int error, const char *text);
int error_clear(int status); /* a call's last step: forgets the text unless status is negative */

#endif
