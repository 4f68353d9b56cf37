/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Operator's requests about VMs that are no clients of ours (docs/OPERATOR.md). Control thread. */
#ifndef POSTCOPYD_CONTROL_OPERATOR_LEND_H
#define POSTCOPYD_CONTROL_OPERATOR_LEND_H

#include <json-glib/json-glib.h>

#include "daemon/control/departure.h"

/* Answers "lend" and "unlend"; FALSE: op is neither. */
gboolean operator_lend(Connection *connection, guint32 serial, const char *op, JsonObject *request);

/* "prepare" of a VM that libvirt runs; driver is what the request's regions and vCPUs say. */
void operator_prepare_lent(Connection *connection, guint32 serial, JsonObject *request,
                           const DriverRegions *driver);

#endif
