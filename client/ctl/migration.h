/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Direct-mode migration of one guest between two QEMUs, driven over their monitors.
 *
 *   step       what holds from here on              a failure now means
 *   CHECKING   nothing was changed                  nothing to undo
 *   SETTINGS   capabilities may be changed          restore them
 *   PREPARED   the daemons may hold a preparation   … and cancel it
 *   INCOMING   the destination listens              … it has to be started again
 *   STARTED    the source migrates                  … cancel that; the source must run again
 *   SEALED     the gate may be open                 destroy the destination, fence the export,
 *                                                   and only then let the source run
 *   CONTINUED  the destination may have run         the source must never run again
 *   RESUMED    the guest runs on the destination    only watching is left
 *
 * Exactly one side may run.  That is why each step is taken before the action it names, and why
 * signals are masked from SEALED on.
 */
#ifndef POSTCOPYD_CTL_MIGRATION_H
#define POSTCOPYD_CTL_MIGRATION_H

#include "client/ctl/report.h"
#include "client/ctl/side.h"
#include "client/operator/daemon.h"

typedef enum MigrationStep {
    MIGRATION_CHECKING,
    MIGRATION_SETTINGS,
    MIGRATION_PREPARED,
    MIGRATION_INCOMING,
    MIGRATION_STARTED,
    MIGRATION_SEALED,
    MIGRATION_CONTINUED,
    MIGRATION_RESUMED,
} MigrationStep;

typedef struct MigrationOptions {
    const char *socket;
    const char *vm;
    char *source_qmp;
    char *destination_qmp;
    char *destination; /* HOST:PORT */
    char *transport;   /* auto, tcp, rdma; NULL: auto */
    int timeout_s;     /* until the switchover, and once more for it */
    gboolean json;
    gboolean no_wait;
} MigrationOptions;

typedef struct Migration {
    const MigrationOptions *options;
    Interrupt interrupt;
    Report report;
    Daemon *daemon;
    Side source;
    Side destination;
    MigrationStep step;
    gint64 deadline;
    gboolean was_running; /* the source's guest, before */
    JsonArray *regions;   /* as "prepare" wants them */
    char *source_uri;
    char *destination_uri;
    char *seal;         /* of the export, as the daemon names it */
    double downtime_ms; /* negative: the guest did not run */
    Progress progress;
} Migration;

/* check.c: refuses what cannot work, before anything is changed. Sets was_running and regions. */
gboolean migration_check(Migration *migration, GError **error);

/* switchover.c: from there to a guest that runs on the destination. */
gboolean migration_switch_over(Migration *migration, GError **error);

/*
 * undo.c: after a failure up to CONTINUED, sees to it that exactly one side runs.  Extends the
 * error's message by what was done and what is left to do, and may make it CALL_ERROR_UNSAFE.
 */
void migration_undo(Migration *migration, GError **error);

/* undo.c: puts both QEMUs' settings back. */
void migration_restore(Migration *migration);

/* verify.c: watches until all memory is there (follow.h), and looks at both sides then. */
gboolean migration_follow(Migration *migration, GError **error);

/* Milliseconds until the deadline, at least 1. */
gint64 migration_time_left(const Migration *migration);

#endif
