/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Whether settings that want RDMA can have it, by what they say alone: devices may be another host's. */
#ifndef POSTCOPYD_CONFIG_RDMA_H
#define POSTCOPYD_CONFIG_RDMA_H

#include <glib.h>

#include "daemon/control/settings.h"

/*
 * FALSE with one line in error: RDMA is insisted on, and off.  TRUE with a line in *ret_warning, the caller's, if
 * only some hosts can never have what is wanted for them; else NULL.
 */
gboolean config_rdma_check(const Settings *settings, char **ret_warning, GError **error);

#endif
