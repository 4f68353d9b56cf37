/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "protocol/qmp/error.h"

G_DEFINE_QUARK(postcopyd - call - error, call_error)
