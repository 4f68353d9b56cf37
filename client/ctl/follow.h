/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Watches the memory of a guest that runs at its destination already, until all of it is there. */
#ifndef POSTCOPYD_CTL_FOLLOW_H
#define POSTCOPYD_CTL_FOLLOW_H

#include "client/ctl/report.h"
#include "client/operator/daemon.h"

/* Everything is the caller's; *daemon is replaced if the daemon was restarted meanwhile. */
typedef struct Follow {
    const char *socket;
    const char *vm; /* name or uuid */
    const Interrupt *interrupt;
    Daemon **daemon;
    Report *report;
    Progress *progress;
} Follow;

/* FALSE with error: the import failed, the daemon is gone, or CALL_ERROR_INTERRUPTED. */
gboolean follow_memory(const Follow *follow, GError **error);

#endif
