/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <string.h>

#include "client/ctl/error.h"
#include "client/ctl/migration.h"
#include "protocol/qmp/json.h"

enum {
    POLL_MS = 100,
    ANSWER_MS = 10 * 1000,
    RECONNECT_MS = 30 * 1000,
    RELEASE_MS = 10 * 1000,
};

/* The daemon may be restarted under us: its exports come back, and so does the answer. */
static gboolean reconnect(Migration *m, GError **error)
{
    gint64 deadline = wait_deadline(RECONNECT_MS);
    g_autoptr(GError) local = NULL;

    g_clear_pointer(&m->daemon, daemon_free);
    while (!m->daemon) {
        g_clear_error(&local);
        if (!wait_until(&m->interrupt, wait_deadline(POLL_MS), error))
            return FALSE;
        m->daemon = daemon_connect(m->options->socket, &m->interrupt, &local);
        if (!m->daemon && g_get_monotonic_time() >= deadline) {
            g_propagate_prefixed_error(error, g_steal_pointer(&local),
                                       "lost sight of the memory's transfer, which may go on: ");
            return FALSE;
        }
    }
    return TRUE;
}

static gboolean ask(Migration *m, GError **error)
{
    JsonObject *request = json_object_new();
    g_autoptr(JsonNode) answer = NULL;
    g_autoptr(GError) local = NULL;

    json_object_set_string_member(request, "vm", m->options->vm);
    answer = daemon_call(m->daemon, "progress", request, -1, ANSWER_MS, &local);
    if (answer) {
        progress_update(&m->progress, node_object(answer), g_get_monotonic_time());
        return TRUE;
    }
    if (g_error_matches(local, CALL_ERROR, CALL_ERROR_CLOSED))
        return reconnect(m, error);
    g_propagate_error(error, g_steal_pointer(&local));
    return FALSE;
}

static void report_change(Migration *m, const char *before)
{
    const char *now = m->progress.state ? m->progress.state : "";
    const char *text = m->progress.text && *m->progress.text ? m->progress.text : NULL;

    if (strcmp(before, now) == 0)
        return;
    if (strcmp(now, "paused") == 0)
        report_phase(&m->report, "paused",
                     text ? text : "the link to the source is down, missing pages wait", NULL);
    else if (strcmp(before, "paused") == 0)
        report_phase(&m->report, now, "the link to the source is up again", NULL);
}

static gboolean fail_import(Migration *m, GError **error)
{
    const char *reason =
        m->progress.text && *m->progress.text ? m->progress.text : "no reason given";

    g_set_error(error, CALL_ERROR, CALL_ERROR_FAILED,
                "the import is %s (%s); the guest on the destination cannot go on",
                m->progress.state, reason);
    return FALSE;
}

/* Complete memory is what matters; a client that is slow to let go only gets some time for it. */
static gboolean watch(Migration *m, GError **error)
{
    gint64 complete_us = 0;

    for (;;) {
        g_autofree char *before = g_strdup(m->progress.state ? m->progress.state : "");
        ProgressVerdict verdict;

        if (!ask(m, error))
            return FALSE;
        report_change(m, before);
        verdict = progress_verdict(&m->progress);
        if (verdict == PROGRESS_FAILED)
            return fail_import(m, error);
        if (verdict != PROGRESS_COMPLETE || !complete_us)
            report_progress(&m->report, &m->progress);
        if (verdict == PROGRESS_DONE)
            return TRUE;
        if (verdict == PROGRESS_COMPLETE) {
            complete_us = complete_us ? complete_us : g_get_monotonic_time();
            if (g_get_monotonic_time() - complete_us > (gint64)RELEASE_MS * 1000) {
                report_note(&m->report, "all memory is there, but the destination has not let go "
                                        "of the daemon yet");
                return TRUE;
            }
        }
        if (!wait_until(&m->interrupt, wait_deadline(POLL_MS), error))
            return FALSE;
    }
}

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
    if (!watch(m, error)) {
        if (g_error_matches(*error, CALL_ERROR, CALL_ERROR_INTERRUPTED))
            g_prefix_error(error, "the guest runs on the destination and its memory goes on coming "
                                  "('postcopyctl status' shows it): ");
        return FALSE;
    }
    return verify_source(m, error) && verify_destination(m, error);
}
