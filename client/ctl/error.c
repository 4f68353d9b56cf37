/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/ctl/error.h"

G_DEFINE_QUARK(postcopyctl - error, ctl_error)

int ctl_error_status(const GError *error)
{
    if (error->domain == G_OPTION_ERROR)
        return 2;
    if (error->domain != CTL_ERROR)
        return 1;
    switch ((CtlError)error->code) {
    case CTL_ERROR_USAGE:
    case CTL_ERROR_UNSAFE:
        return 2;
    case CTL_ERROR_INTERRUPTED:
        return 130;
    case CTL_ERROR_FAILED:
    case CTL_ERROR_REFUSED:
    case CTL_ERROR_CLOSED:
    case CTL_ERROR_TIMEOUT:
        break;
    }
    return 1;
}
