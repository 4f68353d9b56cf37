/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Departures without a client: of VMs that are read by their monitor and /proc (daemon/qemu).
 *
 * In assist mode the destination's daemon asks for them (ASK), and for their seal (SEAL): then whether the
 * guest has stopped is asked of its monitor, on a thread of its own.  In direct mode an operator prepares
 * and seals them.  What they were made for and never happened ends them by itself.
 */
#ifndef POSTCOPYD_CONTROL_DEPARTURE_LENT_H
#define POSTCOPYD_CONTROL_DEPARTURE_LENT_H

#include <pthread.h>

#include "daemon/control/departure.h"
#include "daemon/qemu/guest.h"
#include "daemon/qemu/outgoing.h"

/* What a peer's thread has found out of a VM that it was asked for; it waits until that is answered. */
typedef struct Lending {
    const guint8 *uuid;
    const char *name;
    const char *peer_host;
    GuestProcess process; /* taken from here if it is accepted */
    const Outgoing *outgoing;
    const RegionSet *regions;
    pthread_mutex_t lock; /* of all below */
    pthread_cond_t changed;
    gboolean answered;
    PeerErrorCode code;
    char text[LIMIT_TEXT + 1];
    guint8 token[LIMIT_TOKEN]; /* of the export */
} Lending;

/* A ControlFunction: makes a departure of a Lending, for its destination to attach to, in place of one
 * that is not being read. */
void departure_lend(Control *control, gpointer lending);

/*
 * An operator's "prepare" of a VM that libvirt runs as process pid: finds its memory, restricts it to
 * what driver names, and has the destination await it.  asker is answered later.
 */
void departure_lent_prepare(Control *control, const guint8 *uuid, int pid, const char *destination,
                            const DriverRegions *driver, Asker asker, guint64 owner);

/* Seals it if its monitor says that its guest has stopped, and cannot run by itself. */
void departure_lent_seal(Departure *departure, Asker asker);

/* Its destination wants the seal. */
void departure_lent_listens(Departure *departure);

/* True if a departure without a client of this VM is under way. */
gboolean departure_lent_busy(Control *control, const guint8 *uuid);

/* Whether a destination is attached to it. */
gboolean departure_lent_is_held(Departure *departure);

/* Ends those whose process has ended, or that nobody came for; every tick. */
void departure_lent_tick(Control *control);

#endif
