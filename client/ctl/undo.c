/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <string.h>

#include "client/ctl/error.h"
#include "client/ctl/migration.h"
#include "protocol/qmp/json.h"

enum {
    CANCEL_MS = 10 * 1000,
    DESTROY_MS = 3 * 1000, /* each of up to three tries; the guest is waiting */
    SETTLE_MS = 2 * 1000,
    RUN_MS = 5 * 1000,
    ANSWER_MS = 1000, /* of a source that may be hanging; it is asked again */
    LOOK_MS = 10,
};

static void append(GError **error, const char *text)
{
    g_autofree char *before = (*error)->message;

    (*error)->message = g_strconcat(before, "; ", text, NULL);
}

static void restore_side(Migration *m, Side *side)
{
    g_autoptr(GError) error = NULL;

    if (!side_restore(side, &error))
        report_note(&m->report, "%s", error->message);
}

void migration_restore(Migration *m)
{
    restore_side(m, &m->source);
    restore_side(m, &m->destination);
}

/* Over a new connection if the daemon was restarted meanwhile. */
static gboolean order(Migration *m, const char *op, GError **error)
{
    g_autoptr(GError) local = NULL;

    if (daemon_vm_call(m->daemon, op, m->options->vm, CANCEL_MS, &local))
        return TRUE;
    if (g_error_matches(local, CALL_ERROR, CALL_ERROR_CLOSED)) {
        g_autoptr(Daemon) daemon = daemon_connect(m->options->socket, &m->interrupt, NULL);

        if (daemon && daemon_vm_call(daemon, op, m->options->vm, CANCEL_MS, NULL))
            return TRUE;
    }
    g_propagate_error(error, g_steal_pointer(&local));
    return FALSE;
}

/* Refused is also what has ended by itself meanwhile, of which nobody gets anything any more. */
static gboolean is_fenced(Migration *m)
{
    JsonObject *request = json_object_new();
    g_autoptr(JsonNode) answer = NULL;

    json_object_set_string_member(request, "vm", m->options->vm);
    answer = daemon_call(m->daemon, "progress", request, -1, CANCEL_MS, NULL);
    return g_strv_contains((const char *const[]){"fenced", "cancelled", NULL},
                           member_string(node_object(answer), "state"));
}

static void order_abandon(Migration *m)
{
    g_autoptr(GError) error = NULL;

    if (!order(m, "abandon", &error) && !is_fenced(m))
        report_note(&m->report, "the daemon did not confirm that it gave up the export: %s",
                    error->message);
}

static gboolean has_ended(Side *side)
{
    return side_migration_is(side, "cancelled") || side_migration_is(side, "failed") ||
           side_migration_is(side, "completed") || side_migration_is(side, "none") ||
           side_migration_is(side, "");
}

/* Waits until the source's migration is over, however it ended. False: it is not known to be. */
static gboolean await_end(Migration *m, gint64 timeout_ms)
{
    gint64 deadline = wait_deadline(timeout_ms);

    for (;;) {
        if (side_refresh(&m->source, NULL) && has_ended(&m->source))
            return TRUE;
        if (qmp_is_closed(m->source.qmp) || g_get_monotonic_time() >= deadline)
            return FALSE;
        wait_until(NULL, wait_deadline(LOOK_MS), NULL);
    }
}

/* A cancelled QEMU lets its guest run by itself a moment later; one that completed does not. */
static gboolean await_running(Migration *m, char **ret_status)
{
    gint64 deadline = wait_deadline(RUN_MS);
    gboolean asked = FALSE;

    for (;;) {
        g_free(*ret_status);
        *ret_status = qmp_query_status(m->source.qmp, "query-status", NULL);
        if (*ret_status && strcmp(*ret_status, "running") == 0)
            return TRUE;
        if (qmp_is_closed(m->source.qmp) || g_get_monotonic_time() >= deadline)
            return FALSE;
        if (!asked && *ret_status && strcmp(*ret_status, "finish-migrate") != 0) {
            qmp_run(m->source.qmp, "cont", NULL, NULL);
            asked = TRUE;
            continue;
        }
        wait_until(NULL, wait_deadline(LOOK_MS), NULL);
    }
}

/* Only called when no other side can be running. */
static void run_source(Migration *m, GError **error)
{
    g_autofree char *status = NULL;
    g_autofree char *text = NULL;

    if (!m->was_running) {
        append(error, "the source's guest is paused as it was");
        return;
    }
    if (await_running(m, &status)) {
        append(error, "the guest runs on on the source");
        return;
    }
    if (qmp_is_closed(m->source.qmp))
        text = g_strdup("and the source's QEMU is gone");
    else
        text = g_strdup_printf("the source's guest is '%s' and must be looked at ('cont' lets it "
                               "run; the destination is gone)",
                               status ? status : "unknown");
    append(error, text);
}

/* It cannot be asked to listen again, and may have loaded half a guest. */
static void end_destination(Migration *m, GError **error)
{
    g_autoptr(GError) local = NULL;

    if (m->step < MIGRATION_INCOMING)
        return;
    if (m->step >= MIGRATION_STARTED) {
        if (!side_destroy(&m->destination, DESTROY_MS, &local))
            report_note(&m->report, "%s", local->message);
    }
    append(error, "start the destination's QEMU again before the next attempt");
}

static void make_unsafe(GError **error, const char *text)
{
    g_autoptr(GError) cause = g_steal_pointer(error);

    *error = g_error_new(CALL_ERROR, CALL_ERROR_UNSAFE, "%s; %s", cause->message, text);
}

static void undo_after_gate(Migration *m, GError **error)
{
    g_autoptr(GError) local = NULL;

    if (!side_destroy(&m->destination, DESTROY_MS, &local)) {
        g_autofree char *text = g_strdup_printf(
            "CAUTION: %s, so the source's guest is not run: both would write to the same disks. "
            "See to it that the destination is gone, then run 'postcopyctl abandon %s', and on the "
            "source's monitor 'cont' (after 'migrate_cancel' if it still migrates)",
            local->message, m->options->vm);
        make_unsafe(error, text);
        /* Its settings can only be put back when it has ended. */
        await_end(m, SETTLE_MS);
        return;
    }
    append(error, "the destination's QEMU was destroyed");
    order_abandon(m);
    side_refresh(&m->source, NULL);
    if (!has_ended(&m->source)) {
        qmp_run(m->source.qmp, "migrate_cancel", NULL, NULL);
        await_end(m, CANCEL_MS);
    }
    run_source(m, error);
}

/*
 * The daemon is told between the cancelling and its end: closing the relay is what wakes a source
 * that hangs in it.
 */
static void undo_before_gate(Migration *m, GError **error)
{
    if (m->step >= MIGRATION_STARTED)
        qmp_run(m->source.qmp, "migrate_cancel", NULL, NULL);
    /* It refuses if its gate is open after all; what it has then must not reach anybody. */
    if (m->step >= MIGRATION_PREPARED && !order(m, "cancel", NULL))
        order_abandon(m);
    /* Where it came to its end, as far as is known, the destination may hold the whole guest. */
    if (m->step >= MIGRATION_STARTED &&
        (!await_end(m, CANCEL_MS) || side_migration_is(&m->source, "completed"))) {
        undo_after_gate(m, error);
        return;
    }
    /* Cancelled before its end, and nobody told the destination to run: the source may. */
    if (m->step >= MIGRATION_STARTED)
        run_source(m, error);
    else
        append(error, "nothing has changed for the guest on the source");
    end_destination(m, error);
}

void migration_undo(Migration *m, GError **error)
{
    m->interrupt.masked = TRUE;
    qmp_set_timeout(m->source.qmp, ANSWER_MS);
    if (m->step >= MIGRATION_CONTINUED)
        make_unsafe(error, "CAUTION: the destination was told to run the guest and may have done "
                           "so; the source's guest is not run again, its disks may have changed. "
                           "Look at the destination's QEMU");
    else if (m->step >= MIGRATION_SEALED)
        undo_after_gate(m, error);
    else if (m->step > MIGRATION_CHECKING)
        undo_before_gate(m, error);
    qmp_set_timeout(m->source.qmp, RUN_MS);
    migration_restore(m);
}
