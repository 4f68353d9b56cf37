/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The switchover.  From the STOP of the source to the RESUME of the destination the guest stands
 * still, so nothing there prints, sleeps, or asks what an event tells by itself.
 */
#include <string.h>

#include "client/ctl/error.h"
#include "client/ctl/migration.h"
#include "protocol/qmp/json.h"

/* An event may be lost to whoever the monitor was lent to: so often QEMU is asked after all. */
enum { ASK_INTERVAL_MS = 250 };

gint64 migration_time_left(const Migration *m)
{
    return MAX((m->deadline - g_get_monotonic_time()) / 1000, 1);
}

/*
 * An incoming QEMU does not say whether it will run by itself once it has loaded.  "stop" makes
 * sure that it will not, with or without -S: it must wait until the source has said "completed".
 */
static gboolean hold_destination(Migration *m, GError **error)
{
    return qmp_run(m->destination.qmp, "stop", NULL, error);
}

static gboolean apply_settings(Migration *m, GError **error)
{
    m->step = MIGRATION_SETTINGS;
    return hold_destination(m, error) &&
           settings_apply(&m->destination.settings, m->destination.qmp, FALSE, error) &&
           settings_apply(&m->source.settings, m->source.qmp, TRUE, error);
}

static JsonObject *prepare_request(Migration *m)
{
    JsonObject *request = json_object_new();
    JsonArray *vcpus = side_vcpus(&m->destination, NULL);
    pid_t pid = qmp_peer(m->source.qmp);

    json_object_set_string_member(request, "vm", m->options->vm);
    json_object_set_string_member(request, "destination", m->options->destination);
    if (side_is_local(&m->source))
        json_object_set_int_member(request, "pid", pid);
    json_object_set_array_member(request, "regions", json_array_ref(m->regions));
    if (vcpus)
        json_object_set_array_member(request, "destination_vcpus", vcpus);
    json_object_set_boolean_member(request, "relay", TRUE);
    if (m->options->transport)
        json_object_set_string_member(request, "transport", m->options->transport);
    return request;
}

static gboolean prepare(Migration *m, GError **error)
{
    g_autoptr(JsonNode) answer = NULL;
    g_autoptr(GError) local = NULL;

    m->step = MIGRATION_PREPARED;
    answer =
        daemon_call(m->daemon, "prepare", prepare_request(m), -1, migration_time_left(m), &local);
    if (!answer) {
        if (g_error_matches(local, CALL_ERROR, CALL_ERROR_REFUSED))
            m->step = MIGRATION_SETTINGS;
        g_propagate_error(error, g_steal_pointer(&local));
        return FALSE;
    }
    m->source_uri = g_strdup(member_string(node_object(answer), "source_uri"));
    m->destination_uri = g_strdup(member_string(node_object(answer), "destination_uri"));
    if (*m->source_uri && *m->destination_uri)
        return TRUE;
    g_set_error(error, CALL_ERROR, CALL_ERROR_FAILED,
                "the daemon names no way for the device state");
    return FALSE;
}

static gboolean run_with_uri(Side *side, const char *command, const char *uri, GError **error)
{
    JsonObject *arguments = json_object_new();

    json_object_set_string_member(arguments, "uri", uri);
    return qmp_run(side->qmp, command, arguments, error);
}

static gboolean start_streams(Migration *m, GError **error)
{
    m->step = MIGRATION_INCOMING;
    if (!run_with_uri(&m->destination, "migrate-incoming", m->destination_uri, error) ||
        !daemon_vm_call(m->daemon, "relay", m->options->vm, migration_time_left(m), error))
        return FALSE;
    report_phase(&m->report, "switchover", "switching over to the destination", NULL);
    m->step = MIGRATION_STARTED;
    return run_with_uri(&m->source, "migrate", m->source_uri, error);
}

static gboolean fail_source(Migration *m, GError **error)
{
    g_autoptr(JsonNode) answer = qmp_call(m->source.qmp, "query-migrate", NULL, NULL);
    const char *reason = member_string(node_object(answer), "error-desc");

    g_set_error(error, CALL_ERROR, CALL_ERROR_FAILED, "the source's QEMU %s%s%s",
                qmp_is_closed(m->source.qmp) ? "is gone" : "gave up the migration",
                *reason ? ": " : "", reason);
    return FALSE;
}

static gboolean still_possible(Migration *m, GError **error)
{
    if (qmp_is_closed(m->source.qmp) || side_migration_failed(&m->source))
        return fail_source(m, error);
    if (!qmp_is_closed(m->destination.qmp) && !side_migration_failed(&m->destination))
        return TRUE;
    g_set_error(error, CALL_ERROR, CALL_ERROR_FAILED,
                "the destination's QEMU %s; its own log says why",
                qmp_is_closed(m->destination.qmp) ? "is gone, or could not load the guest's devices"
                                                  : "could not load the guest's devices");
    return FALSE;
}

/*
 * Without a return path the source says so once it has written its last byte.  From then on it
 * never runs its guest by itself, whatever becomes of the destination, and its memory is final.
 */
static gboolean source_completed(Migration *m)
{
    return side_migration_is(&m->source, "completed");
}

static gboolean both_completed(Migration *m)
{
    return source_completed(m) && side_migration_is(&m->destination, "completed");
}

/* Nothing came for a while.  The destination is not asked: it may be waiting for a page itself. */
static gboolean ask_source(Migration *m, GError **error)
{
    g_autofree char *status = NULL;

    if (!side_refresh(&m->source, error))
        return FALSE;
    status = qmp_query_status(m->source.qmp, "query-status", error);
    if (status && m->was_running && !m->source.stop_us && strcmp(status, "running") != 0)
        m->source.stop_us = g_get_real_time();
    return status != NULL;
}

static gboolean wait_for(Migration *m, gboolean (*reached)(Migration *), const char *what,
                         GError **error)
{
    Qmp *const both[] = {m->source.qmp, m->destination.qmp};

    while (!reached(m)) {
        gint64 deadline = MIN(m->deadline, wait_deadline(ASK_INTERVAL_MS));
        g_autoptr(GError) local = NULL;

        if (!still_possible(m, error))
            return FALSE;
        if (qmp_wait(both, G_N_ELEMENTS(both), &m->interrupt, deadline, &local))
            continue;
        if (!g_error_matches(local, CALL_ERROR, CALL_ERROR_TIMEOUT)) {
            g_propagate_error(error, g_steal_pointer(&local));
            return FALSE;
        }
        if (g_get_monotonic_time() >= m->deadline) {
            g_set_error(error, CALL_ERROR, CALL_ERROR_TIMEOUT, "%s within %d s (--timeout)", what,
                        m->options->timeout_s);
            return FALSE;
        }
        if (!ask_source(m, error))
            return FALSE;
    }
    return TRUE;
}

/* A refusal in the daemon's own words is certain; anything else leaves the gate's state unknown. */
static gboolean seal(Migration *m, GError **error)
{
    JsonObject *request = json_object_new();
    g_autoptr(JsonNode) answer = NULL;
    g_autoptr(GError) local = NULL;

    json_object_set_string_member(request, "vm", m->options->vm);
    m->interrupt.masked = TRUE;
    m->step = MIGRATION_SEALED;
    answer = daemon_call(m->daemon, "seal", request, qmp_fd(m->source.qmp), migration_time_left(m),
                         &local);
    qmp_resume(m->source.qmp);
    if (!answer) {
        if (g_error_matches(local, CALL_ERROR, CALL_ERROR_REFUSED))
            m->step = MIGRATION_STARTED;
        g_propagate_error(error, g_steal_pointer(&local));
        return FALSE;
    }
    m->seal = g_strdup(member_string(node_object(answer), "seal"));
    return TRUE;
}

/* What the destination loads may touch the guest's memory: it is not done before the gate opens. */
static gboolean hand_over(Migration *m, GError **error)
{
    m->deadline = wait_deadline((gint64)m->options->timeout_s * 1000);
    return wait_for(m, both_completed, "the device state did not arrive", error);
}

/* Refused means that the guest did not run there, so the source may still. */
static gboolean continue_destination(Migration *m, GError **error)
{
    g_autoptr(GError) local = NULL;

    /* A destination that died since it had loaded is found out while that still is no harm. */
    qmp_wait(&m->destination.qmp, 1, NULL, 0, NULL);
    if (!still_possible(m, error))
        return FALSE;
    m->step = MIGRATION_CONTINUED;
    if (qmp_run(m->destination.qmp, "cont", NULL, &local))
        return TRUE;
    if (g_error_matches(local, CALL_ERROR, CALL_ERROR_REFUSED)) {
        g_autofree char *status = qmp_query_status(m->destination.qmp, "query-status", NULL);

        if (status && strcmp(status, "running") != 0)
            m->step = MIGRATION_SEALED;
    }
    g_propagate_error(error, g_steal_pointer(&local));
    return FALSE;
}

/* "cont" answers after RESUME, but another process may have been reading: ask then. */
static void await_resume(Migration *m)
{
    gint64 deadline = wait_deadline(ASK_INTERVAL_MS);

    while (!m->destination.resume_us &&
           qmp_wait(&m->destination.qmp, 1, &m->interrupt, deadline, NULL))
        if (qmp_is_closed(m->destination.qmp))
            return;
}

/* Time stamps of two hosts' clocks cannot be compared; then the times of reading count. */
static double downtime(const Migration *m)
{
    gboolean one_clock = side_is_local(&m->source) && side_is_local(&m->destination);

    if (one_clock && m->source.stop_us && m->destination.resume_us)
        return (double)(m->destination.resume_us - m->source.stop_us) / 1000;
    if (m->source.stop_seen_us && m->destination.resume_seen_us)
        return (double)(m->destination.resume_seen_us - m->source.stop_seen_us) / 1000;
    return -1;
}

static void report_resumed(Migration *m)
{
    JsonObject *more = json_object_new();
    g_autofree char *text = NULL;

    json_object_set_string_member(more, "seal", m->seal ? m->seal : "");
    json_object_set_boolean_member(more, "running", m->was_running);
    if (m->downtime_ms >= 0)
        json_object_set_double_member(more, "downtime_ms", m->downtime_ms);
    if (!m->was_running)
        text = g_strdup("the guest is on the destination, paused as it was");
    else if (m->downtime_ms < 0)
        text = g_strdup("the guest runs on the destination");
    else
        text = g_strdup_printf("the guest runs on the destination, it stood still for %.1f ms",
                               m->downtime_ms);
    report_phase(&m->report, "resumed", text, more);
}

static void tell_running(Migration *m)
{
    g_autoptr(GError) error = NULL;

    if (!daemon_vm_call(m->daemon, "running", m->options->vm, (gint64)m->options->timeout_s * 1000,
                        &error))
        report_note(&m->report, "the daemon was not told that the guest runs: %s", error->message);
}

static gboolean resume(Migration *m, GError **error)
{
    m->downtime_ms = -1;
    if (m->was_running) {
        if (!continue_destination(m, error))
            return FALSE;
        await_resume(m);
        m->downtime_ms = downtime(m);
    }
    m->step = MIGRATION_RESUMED;
    tell_running(m);
    report_resumed(m);
    return TRUE;
}

gboolean migration_switch_over(Migration *m, GError **error)
{
    if (!apply_settings(m, error) || !prepare(m, error))
        return FALSE;
    report_phase(&m->report, "prepared", "the destination is armed", NULL);
    return start_streams(m, error) &&
           wait_for(m, source_completed, "the source did not hand over its guest", error) &&
           qmp_drain(m->source.qmp, error) && still_possible(m, error) && seal(m, error) &&
           hand_over(m, error) && resume(m, error);
}
