/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What both QEMUs have to say once all memory is on the destination. */
#include <string.h>

#include "client/ctl/error.h"
#include "client/ctl/follow.h"
#include "client/ctl/migration.h"

static gboolean verify_destination(Migration *m, GError **error)
{
    g_autoptr(GError) local = NULL;
    g_autofree char *status = qmp_query_status(m->destination.qmp, "query-status", &local);

    if (status && strcmp(status, m->was_running ? "running" : "paused") == 0)
        return TRUE;
    g_set_error(error, CALL_ERROR, CALL_ERROR_FAILED,
                "all memory is on the destination, but its guest is not as expected: %s",
                status ? status : local->message);
    return FALSE;
}

static gboolean verify_source(Migration *m, GError **error)
{
    g_autofree char *status = qmp_query_status(m->source.qmp, "query-status", NULL);

    if (!status && !qmp_is_closed(m->source.qmp))
        report_note(&m->report, "the source's QEMU does not answer");
    if (!status || strcmp(status, "running") != 0)
        return TRUE;
    g_set_error(error, CALL_ERROR, CALL_ERROR_UNSAFE,
                "CAUTION: the guest runs on the source as well; stop it at once, both write to the "
                "same disks");
    return FALSE;
}

gboolean migration_follow(Migration *m, GError **error)
{
    const Follow follow = {
        .socket = m->options->socket,
        .vm = m->options->vm,
        .interrupt = &m->interrupt,
        .daemon = &m->daemon,
        .report = &m->report,
        .progress = &m->progress,
    };

    return follow_memory(&follow, error) && verify_source(m, error) && verify_destination(m, error);
}
