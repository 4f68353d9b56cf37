/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "protocol/qmp/error.h"

/* Looked up each time: what G_DEFINE_QUARK() keeps is written by any thread without a lock. */
GQuark call_error_quark(void)
{
    return g_quark_from_static_string("postcopyd-call-error-quark");
}
