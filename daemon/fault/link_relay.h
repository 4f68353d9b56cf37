/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The destination's end of the device state relay: a thread between the incoming socket of the
 * client's QEMU and a relay channel to the source's daemon.
 */
#ifndef POSTCOPYD_FAULT_LINK_RELAY_H
#define POSTCOPYD_FAULT_LINK_RELAY_H

#include "daemon/fault/link.h"

/* Link thread; once an import. */
void link_relay_start(Link *link);

/* Control thread. */
void link_relay_stop(Link *link);

#endif
