/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/ctl/error.h"

int ctl_error_status(const GError *error)
{
    if (error->domain == G_OPTION_ERROR)
        return 2;
    if (error->domain != CALL_ERROR)
        return 1;
    switch ((CallError)error->code) {
    case CALL_ERROR_USAGE:
    case CALL_ERROR_UNSAFE:
        return 2;
    case CALL_ERROR_INTERRUPTED:
        return 130;
    case CALL_ERROR_FAILED:
    case CALL_ERROR_REFUSED:
    case CALL_ERROR_CLOSED:
    case CALL_ERROR_TIMEOUT:
        break;
    }
    return 1;
}
