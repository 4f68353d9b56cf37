/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sealed exports in the service manager's fd store, so that they outlive this daemon when nobody else has
 * their memory: the source's QEMU ends as soon as its guest has moved on.
 *
 * Stored are the files of the memory and, in a sealed memfd, what the export is.  Only memory that is all
 * shared can be stored.  It is stored before the destination hears of the seal, and taken out when the
 * departure is over.  Control thread.
 */
#ifndef POSTCOPYD_CONTROL_DEPARTURE_STORE_H
#define POSTCOPYD_CONTROL_DEPARTURE_STORE_H

#include "daemon/control/departure.h"

/* A departure that has drawn its seal.  TRUE: departure_seal_order() follows when it is stored, or when that
 * takes too long.  FALSE: there is nothing to wait for. */
gboolean departure_store(Departure *departure);

/* It is over: nothing of it is stored any more. */
void departure_store_drop(Departure *departure);

/* Nobody waits for a service manager for ever; every tick. */
void departure_store_tick(Control *control);

/* At the start: what earlier daemons stored is exported again. */
void departure_store_restore(Control *control);

/*
 * The daemon is told to end.  TRUE if nobody would lose a VM by it; else says in the log which.  From then on
 * departure_store_tick() ends the loop as soon as that is so.
 */
gboolean departure_store_may_stop(Control *control);

#endif
