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
#include "daemon/control/expected.h"

/* A VM whose memory arrives, or may: connected as a client, or expected to be assisted.  Both NULL: none,
 * the host is meant. */
typedef struct LimitedVm {
    Connection *connection;
    Expected *expected;
} LimitedVm;

/* Divides the host's limit among those that stream now; every tick, and when something changed. */
void limits_apply(Control *control);

/* The VM of that name or uuid. FALSE: there is none. */
gboolean limits_find(Control *control, const char *text, LimitedVm *ret_vm);

/* bytes_per_s 0: none.  FALSE: no memory arrives for that VM. */
gboolean limits_set(Control *control, const LimitedVm *vm, guint64 bytes_per_s);

/* The limits of the host and of its VMs, or of one. */
JsonNode *limits_report(Control *control, const LimitedVm *vm);

#endif
