/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/lib/error.h"

__thread Reason error_of_thread;

int error_set(int error, const char *text)
{
    return reason_set(&error_of_thread, error, "%s", text);
}

int error_clear(int status)
{
    if (status >= 0)
        error_of_thread.text[0] = '\0';
    return status;
}
