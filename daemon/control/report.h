/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Sessions, imports and exports as JSON (docs/OPERATOR.md). Control thread. */
#ifndef POSTCOPYD_CONTROL_REPORT_H
#define POSTCOPYD_CONTROL_REPORT_H

#include <json-glib/json-glib.h>

#include "daemon/control/arrival.h"
#include "daemon/control/departure.h"

/* For status and stats: all, or one VM, or (pid >= 0) only the VMs of that process. */
JsonNode *report_all(Control *control, const char *vm, int pid, gboolean full);

/* The import ends: what it cost is kept, for stats, if its gate was open.  NULL is fine. */
void report_keep(Control *control, Import *import, int pid, guint64 limit);

/* For progress: the newest word of an export's destination. */
JsonNode *report_progress(const Departure *departure);

#endif
