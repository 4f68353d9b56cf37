/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How fast memory may arrive: a limit of the host, which the VMs that stream share, and one of each VM.
 * The destination decides, for it asks: each import's stream keeps to the share it is given here, and
 * counts what its faults take, which are never held back.  Control thread.
 */
#ifndef POSTCOPYD_CONTROL_LIMITS_H
#define POSTCOPYD_CONTROL_LIMITS_H

#include <json-glib/json-glib.h>

#include "daemon/control/connection.h"

/* Divides the host's limit among those that stream now; every tick, and when something changed. */
void limits_apply(Control *control);

/* bytes_per_s 0: none.  connection NULL: the host's.  FALSE: no memory arrives for that VM. */
gboolean limits_set(Control *control, Connection *connection, guint64 bytes_per_s);

/* The limits of the host and of its VMs, or of one. */
JsonNode *limits_report(Control *control, const Connection *connection);

#endif
