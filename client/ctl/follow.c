/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/ctl/follow.h"

#include <string.h>

#include "client/ctl/error.h"
#include "protocol/qmp/json.h"

enum {
    POLL_MS = 100,
    ANSWER_MS = 10 * 1000,
    RECONNECT_MS = 30 * 1000,
    RELEASE_MS = 10 * 1000,
    RETURN_MS = 5 * 1000,
};

/* The daemon may be restarted under us: its exports come back, and so does the answer. */
static gboolean reconnect(const Follow *f, GError **error)
{
    gint64 deadline = wait_deadline(RECONNECT_MS);
    g_autoptr(GError) local = NULL;

    g_clear_pointer(f->daemon, daemon_free);
    while (!*f->daemon) {
        g_clear_error(&local);
        if (!wait_until(f->interrupt, wait_deadline(POLL_MS), error))
            return FALSE;
        *f->daemon = daemon_connect(f->socket, f->interrupt, &local);
        if (!*f->daemon && g_get_monotonic_time() >= deadline) {
            g_propagate_prefixed_error(error, g_steal_pointer(&local),
                                       "lost sight of the memory's transfer, which may go on: ");
            return FALSE;
        }
    }
    return TRUE;
}

static JsonNode *ask_once(const Follow *f, GError **error)
{
    JsonObject *request = json_object_new();

    json_object_set_string_member(request, "vm", f->vm);
    return daemon_call(*f->daemon, "progress", request, -1, ANSWER_MS, error);
}

/* What a daemon that began anew does not have again by now is lost with the process that held it. */
static void set_lost(const GError *cause, GError **error)
{
    g_set_error(error, CALL_ERROR, CALL_ERROR_UNSAFE,
                "the guest waits at the destination for memory that the source's daemon no longer "
                "has (%s), unless all of it had arrived: 'postcopyctl status' at the destination "
                "tells; the guest may not run at the source before it is gone from there",
                cause->message);
}

/* Clients come back to a new daemon one by one: until then it does not know of the VM. */
static gboolean ask(const Follow *f, GError **error)
{
    gint64 deadline = wait_deadline(RETURN_MS);

    for (;;) {
        g_autoptr(GError) local = NULL;
        g_autoptr(JsonNode) answer = ask_once(f, &local);

        if (answer) {
            progress_update(f->progress, node_object(answer), g_get_monotonic_time());
            return TRUE;
        }
        if (g_error_matches(local, CALL_ERROR, CALL_ERROR_CLOSED))
            return reconnect(f, error);
        if (!g_error_matches(local, CALL_ERROR, CALL_ERROR_REFUSED)) {
            g_propagate_error(error, g_steal_pointer(&local));
            return FALSE;
        }
        if (g_get_monotonic_time() >= deadline) {
            set_lost(local, error);
            return FALSE;
        }
        if (!wait_until(f->interrupt, wait_deadline(POLL_MS), error))
            return FALSE;
    }
}

static void report_change(const Follow *f, const char *before)
{
    const char *now = f->progress->state ? f->progress->state : "";
    const char *text = f->progress->text && *f->progress->text ? f->progress->text : NULL;

    if (strcmp(before, now) == 0)
        return;
    if (strcmp(now, "paused") == 0)
        report_phase(f->report, "paused",
                     text ? text : "the link to the source is down, missing pages wait", NULL);
    else if (strcmp(before, "paused") == 0)
        report_phase(f->report, now, "the link to the source is up again", NULL);
}

static gboolean fail_import(const Follow *f, GError **error)
{
    const char *reason =
        f->progress->text && *f->progress->text ? f->progress->text : "no reason given";

    g_set_error(error, CALL_ERROR, CALL_ERROR_FAILED,
                "the import is %s (%s); the guest on the destination cannot go on",
                f->progress->state, reason);
    return FALSE;
}

/* Complete memory is what matters; a client that is slow to let go only gets some time for it. */
static gboolean watch(const Follow *f, GError **error)
{
    gint64 complete_us = 0;

    for (;;) {
        g_autofree char *before = g_strdup(f->progress->state ? f->progress->state : "");
        g_autoptr(GError) local = NULL;
        ProgressVerdict verdict;

        if (!ask(f, &local)) {
            /* What was all there before needs no daemon any more. */
            if (complete_us && g_error_matches(local, CALL_ERROR, CALL_ERROR_UNSAFE))
                return TRUE;
            g_propagate_error(error, g_steal_pointer(&local));
            return FALSE;
        }
        report_change(f, before);
        verdict = progress_verdict(f->progress);
        if (verdict == PROGRESS_FAILED)
            return fail_import(f, error);
        if (verdict != PROGRESS_COMPLETE || !complete_us)
            report_progress(f->report, f->progress);
        if (verdict == PROGRESS_DONE)
            return TRUE;
        if (verdict == PROGRESS_COMPLETE) {
            complete_us = complete_us ? complete_us : g_get_monotonic_time();
            if (g_get_monotonic_time() - complete_us > (gint64)RELEASE_MS * 1000) {
                report_note(f->report, "all memory is there, but the destination has not let go "
                                       "of the daemon yet");
                return TRUE;
            }
        }
        if (!wait_until(f->interrupt, wait_deadline(POLL_MS), error))
            return FALSE;
    }
}

gboolean follow_memory(const Follow *f, GError **error)
{
    if (watch(f, error))
        return TRUE;
    if (g_error_matches(*error, CALL_ERROR, CALL_ERROR_INTERRUPTED))
        g_prefix_error(error, "the guest runs on the destination and its memory goes on coming "
                              "('postcopyctl status' shows it): ");
    return FALSE;
}
