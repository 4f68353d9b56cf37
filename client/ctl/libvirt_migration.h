/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Direct-mode migration of a libvirt domain: libvirt moves it, QEMU's stream leaves its RAM out
 * (x-ignore-shared), and the daemons bring that.
 *
 *   step       what holds from here on                   a failure now means
 *   CHECKING   nothing was changed                       nothing to undo
 *   PREPARED   both daemons may hold a preparation       cancel it
 *   SETTINGS   the source's capability may be on         … and clear it
 *   STARTED    libvirt migrates                          … and abort that; the source runs on
 *   SEALED     the gate may be open                      libvirt lets one side run: see which
 *   RESUMED    the guest runs on the destination         only watching is left
 *
 * Rule 2 is libvirt's to keep: it continues the destination only when the source's migration has completed,
 * and else destroys it before it lets the source run.  The destination's daemon sees to it that a
 * destination without its memory cannot be continued (arrival.h).
 */
#ifndef POSTCOPYD_CTL_LIBVIRT_MIGRATION_H
#define POSTCOPYD_CTL_LIBVIRT_MIGRATION_H

#include "client/ctl/domain.h"
#include "client/ctl/libvirt_job.h"
#include "client/ctl/report.h"
#include "client/operator/daemon.h"
#include "protocol/qmp/monitor.h"

typedef enum LibvirtStep {
    LIBVIRT_CHECKING,
    LIBVIRT_PREPARED,
    LIBVIRT_SETTINGS,
    LIBVIRT_STARTED,
    LIBVIRT_SEALED,
    LIBVIRT_RESUMED,
} LibvirtStep;

typedef struct LibvirtOptions {
    const char *socket;
    const char *domain;    /* name or uuid */
    const char *uri;       /* of the destination's libvirt */
    char *connect;         /* of the source's; NULL: as the daemon's configuration says */
    char *to;              /* HOST[:PORT] of the destination's daemon; NULL: by the uri */
    const char *transport; /* auto, tcp, rdma; NULL: auto */
    gboolean persistent;
    gboolean undefine_source;
    int bandwidth; /* MiB/s; 0: libvirt's own */
    int timeout_s; /* until the switchover, and once more for it */
    gboolean json;
    gboolean no_wait;
} LibvirtOptions;

typedef struct LibvirtMigration {
    const LibvirtOptions *options;
    Interrupt interrupt;
    Report report;
    Daemon *daemon;
    virConnect *source, *destination;
    virDomain *domain; /* at the source */
    char uuid[VIR_UUID_STRING_BUFLEN];
    char *address;       /* of the destination's daemon */
    gboolean enable_all; /* this host's daemon serves every domain that is not disabled */
    Monitor monitor;
    int pid;
    gboolean enabled;   /* the domain says that it takes part */
    JsonArray *regions; /* as "prepare" wants them */
    JobOptions job_options;
    Job *job;
    JobNews news;
    LibvirtStep step;
    gint64 deadline;
    char *seal;
    Progress progress;
} LibvirtMigration;

/* Takes a whole migration from its options to its result, and reports it.  FALSE with error, which has
 * been printed. */
gboolean libvirt_migrate(const LibvirtOptions *options, GError **error);

/* libvirt_check.c: connects to everybody and refuses what cannot work. Nothing is changed. */
gboolean libvirt_connect(LibvirtMigration *migration, GError **error);
gboolean libvirt_check(LibvirtMigration *migration, GError **error);

/* libvirt_switch.c: from there to a guest that runs on the destination. */
gboolean libvirt_switch_over(LibvirtMigration *migration, GError **error);

/* Waits for news of the job, not longer than so; FALSE with CALL_ERROR_INTERRUPTED. */
gboolean libvirt_await_news(LibvirtMigration *migration, gint64 timeout_ms, GError **error);

/*
 * libvirt_undo.c: after a failure, sees to it that libvirt's migration has ended and which side runs.
 * Extends the error's message by that, and may make it CALL_ERROR_UNSAFE.  TRUE without error: the guest
 * runs on the destination after all.
 */
gboolean libvirt_undo(LibvirtMigration *migration, GError **error);

#endif
