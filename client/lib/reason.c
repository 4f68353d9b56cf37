/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/lib/reason.h"

#include <stdarg.h>
#include <stdio.h>

int reason_set(Reason *ret_reason, int error, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(ret_reason->text, sizeof ret_reason->text, format, arguments);
    va_end(arguments);
    for (char *c = ret_reason->text; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = ' ';
    return error;
}
