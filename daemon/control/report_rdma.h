/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Reports about RDMA: of the host, of imports and of exports (docs/RDMA.md). Control thread. */
#ifndef POSTCOPYD_CONTROL_REPORT_RDMA_H
#define POSTCOPYD_CONTROL_REPORT_RDMA_H

#include <json-glib/json-glib.h>

#include "daemon/control/control.h"
#include "daemon/fault/import.h"
#include "daemon/source/export.h"

/* Member "rdma": devices, networks, what is pinned. */
void report_rdma_host(Control *control, JsonObject *ret_object);

/* Member "transport". */
void report_rdma_import(Import *import, JsonObject *ret_object);

/* Member "rdma" of an export. */
void report_rdma_export(Export *export, JsonObject *ret_object);

#endif
