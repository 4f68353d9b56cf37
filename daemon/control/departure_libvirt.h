/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Departures in direct mode whose migration is libvirt's, and not whoever asked us for it.
 *
 * Once the destination is armed, libvirt may let the guest run there at any moment, and end the source.
 * Taking the memory away then would destroy a guest.  So such a departure is never just cancelled,
 * whoever is gone: it drifts, and is looked after until its guest either stands still, and is sealed, or
 * runs with no migration under way, and only then is it undone.  Control thread.
 */
#ifndef POSTCOPYD_CONTROL_DEPARTURE_LIBVIRT_H
#define POSTCOPYD_CONTROL_DEPARTURE_LIBVIRT_H

#include "daemon/control/departure.h"

/* The destination waits for its VM, or has it: leaves the RAM out of QEMU's stream, and answers "prepare" once
 * that is so.  The second time it does nothing. */
void departure_libvirt_awaited(Departure *departure);

/* TRUE: it drifts from now on, and is not to be undone here and now. */
gboolean departure_libvirt_drift(Departure *departure, const char *reason);

/* Its process has ended before the seal.  TRUE: it is sealed, or will be: nobody can stand more still. */
gboolean departure_libvirt_outlived(Departure *departure);

/* It has ended, or is fenced: QEMU's stream is to carry the RAM again. */
void departure_libvirt_ended(Departure *departure);

/* Looks at those that drift; every tick. */
void departure_libvirt_tick(Control *control);

/* Its destination may be armed, and libvirt may let the guest run there at any moment: only while this daemon
 * lives can it be sealed, or undone. */
gboolean departure_libvirt_is_between(const Departure *departure);

#endif
