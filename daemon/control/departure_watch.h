/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Looks every few seconds whether the migration that a departure without a client was made for goes on:
 * its QEMU tells nobody when it is over.  What was only asked for is undone then, so that its destination
 * cannot have it sealed when the guest stops for another reason.  What is sealed is fenced if its guest runs,
 * or may run, here again.  Control thread.
 */
#ifndef POSTCOPYD_CONTROL_DEPARTURE_WATCH_H
#define POSTCOPYD_CONTROL_DEPARTURE_WATCH_H

#include "daemon/control/departure.h"

/* Every tick. */
void departure_watch_tick(Control *control);

#endif
