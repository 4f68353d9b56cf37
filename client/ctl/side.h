/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One of the two QEMUs of a migration: its monitor, what its events told, and whether it is dead.
 */
#ifndef POSTCOPYD_CTL_SIDE_H
#define POSTCOPYD_CTL_SIDE_H

#include "client/ctl/settings.h"
#include "protocol/qmp/qmp.h"

typedef struct Side {
    const char *word; /* "source" or "destination" */
    gboolean is_source;
    Qmp *qmp;
    Settings settings;
    char *migration;     /* the newest word on its migration, "" if there was none */
    gint64 stop_us;      /* QEMU's time stamp of STOP, 0: has not happened */
    gint64 resume_us;    /* of RESUME */
    gint64 stop_seen_us; /* the same by the clock of wait_deadline() */
    gint64 resume_seen_us;
    gboolean shut_down; /* it said SHUTDOWN, or agreed to quit */
    int pidfd;          /* of a QEMU on this host, else -1 */
} Side;

gboolean side_connect(Side *side, const char *path, const char *word, const Interrupt *interrupt,
                      GError **error);
void side_deinit(Side *side);

/* A QEMU whose process this host can see. */
gboolean side_is_local(const Side *side);

/* The kernel thread ids of its vCPUs; the caller's. */
JsonArray *side_vcpus(const Side *side, GError **error);

/* Says what the side's migration is at, by its newest event. */
gboolean side_migration_is(const Side *side, const char *status);
gboolean side_migration_failed(const Side *side);

/* Asks instead of relying on events, which are lost while the monitor is lent. */
gboolean side_refresh(Side *side, GError **error);

/* Puts the settings back; a QEMU that is gone has none. FALSE with a reason otherwise. */
gboolean side_restore(Side *side, GError **error);

/*
 * Ends this QEMU, by a signal if it is local and deaf, and waits until that is certain.  A monitor
 * that merely went silent proves nothing: the process must be seen to end, or QEMU itself must have
 * said that it shuts down before the connection ended (its vCPUs are stopped by then).
 */
gboolean side_destroy(Side *side, gint64 timeout_ms, GError **error);

#endif
