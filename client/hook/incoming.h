/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a QEMU that waits for its guest says of itself on its second monitor. */
#ifndef POSTCOPYD_HOOK_INCOMING_H
#define POSTCOPYD_HOOK_INCOMING_H

#include "client/hook/place.h"
#include "protocol/qmp/qmp.h"

typedef struct Incoming {
    Qmp *qmp;
    gboolean waits; /* for a migration; nothing else was asked if it does not */
    gboolean postcopy;
    JsonObject *report; /* fields of the requests "expect" and "arrive" */
} Incoming;

/*
 * Connects and asks.  The process at the other end has to be the one that libvirt started for the domain,
 * and what it says is bounded.
 */
gboolean incoming_open(Incoming *incoming, const Place *place, GError **error);
void incoming_close(Incoming *incoming);

#endif
