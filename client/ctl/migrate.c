/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <string.h>

#include "client/ctl/command.h"
#include "client/ctl/error.h"
#include "client/ctl/format.h"
#include "client/ctl/migration.h"
#include "protocol/qmp/json.h"

enum { TIMEOUT_S = 60 };

static gboolean connect_all(Migration *m, GError **error)
{
    const MigrationOptions *options = m->options;

    m->daemon = daemon_connect(options->socket, &m->interrupt, error);
    return m->daemon &&
           side_connect(&m->source, options->source_qmp, "source", &m->interrupt, error) &&
           side_connect(&m->destination, options->destination_qmp, "destination", &m->interrupt,
                        error);
}

static void migration_deinit(Migration *m)
{
    side_deinit(&m->source);
    side_deinit(&m->destination);
    daemon_free(m->daemon);
    g_clear_pointer(&m->regions, json_array_unref);
    g_free(m->seal);
    g_free(m->source_uri);
    g_free(m->destination_uri);
    progress_deinit(&m->progress);
    interrupt_deinit(&m->interrupt);
}

static gboolean migrate(Migration *m, GError **error)
{
    m->deadline = wait_deadline((gint64)m->options->timeout_s * 1000);
    if (!connect_all(m, error) || !migration_check(m, error))
        return FALSE;
    report_phase(&m->report, "checked", "both QEMUs have the same memory and can migrate", NULL);
    if (!migration_switch_over(m, error)) {
        migration_undo(m, error);
        return FALSE;
    }
    migration_restore(m);
    m->interrupt.masked = FALSE;
    return m->options->no_wait || migration_follow(m, error);
}

static void add_status(JsonObject *result, const char *member, const Side *side)
{
    g_autofree char *status = NULL;

    if (!side->qmp)
        return;
    status = qmp_query_status(side->qmp, "query-status", NULL);
    json_object_set_string_member(result, member,
                                  status                     ? status
                                  : qmp_is_closed(side->qmp) ? "gone"
                                                             : "unknown");
}

static JsonObject *result_members(Migration *m)
{
    JsonObject *result = json_object_new();

    if (m->progress.state)
        progress_to_json(&m->progress, result);
    if (m->step >= MIGRATION_RESUMED && m->downtime_ms >= 0)
        json_object_set_double_member(result, "downtime_ms", m->downtime_ms);
    json_object_set_boolean_member(result, "resumed", m->step >= MIGRATION_RESUMED);
    json_object_set_boolean_member(result, "complete",
                                   progress_verdict(&m->progress) == PROGRESS_DONE ||
                                       progress_verdict(&m->progress) == PROGRESS_COMPLETE);
    m->interrupt.masked = TRUE;
    add_status(result, "source_status", &m->source);
    add_status(result, "destination_status", &m->destination);
    return result;
}

static void report_summary(Migration *m)
{
    g_autofree char *received = format_bytes(m->progress.received_bytes);
    g_autofree char *populated = format_bytes(m->progress.populated_bytes);
    g_autofree char *downtime = NULL;
    g_autofree char *text = NULL;

    if (m->options->no_wait) {
        report_phase(&m->report, "following", "its memory follows; 'postcopyctl status' shows it",
                     NULL);
        return;
    }
    downtime =
        m->downtime_ms < 0 ? g_strdup("") : g_strdup_printf(", downtime %.1f ms", m->downtime_ms);
    text = g_strdup_printf("all memory is on the destination: %s, %s received, %" G_GUINT64_FORMAT
                           " faults%s",
                           populated, received, m->progress.faults, downtime);
    report_phase(&m->report, "complete", text, NULL);
}

static gboolean run(const MigrationOptions *options, GError **error)
{
    Migration migration = {.options = options, .downtime_ms = -1};
    Migration *m = &migration;
    g_autoptr(GError) local = NULL;

    m->source.pidfd = m->destination.pidfd = m->interrupt.fd = -1;
    report_init(&m->report, options->vm, options->json);
    if (interrupt_init(&m->interrupt, &local) && migrate(m, &local))
        report_summary(m);
    report_result(&m->report, result_members(m), local);
    migration_deinit(m);
    if (!local)
        return TRUE;
    g_propagate_error(error, g_steal_pointer(&local));
    return FALSE;
}

static gboolean check_options(const MigrationOptions *options, GError **error)
{
    const char *missing = !options->source_qmp        ? "--source-qmp PATH"
                          : !options->destination_qmp ? "--destination-qmp PATH"
                          : !options->destination     ? "--destination HOST:PORT"
                                                      : NULL;

    if (missing) {
        g_set_error(error, CALL_ERROR, CALL_ERROR_USAGE, "migrate needs %s", missing);
        return FALSE;
    }
    if (!strchr(options->destination, ':')) {
        g_set_error(error, CALL_ERROR, CALL_ERROR_USAGE,
                    "--destination '%s' has no port; it wants the other daemon's HOST:PORT",
                    options->destination);
        return FALSE;
    }
    if (options->timeout_s <= 0) {
        g_set_error(error, CALL_ERROR, CALL_ERROR_USAGE, "--timeout must be at least 1 second");
        return FALSE;
    }
    return TRUE;
}

static void options_clear(MigrationOptions *options)
{
    g_free(options->source_qmp);
    g_free(options->destination_qmp);
    g_free(options->destination);
}

gboolean command_migrate(const char *socket, int argc, char **argv, GError **error)
{
    MigrationOptions options = {.socket = socket, .timeout_s = TIMEOUT_S};
    const GOptionEntry entries[] = {
        {"source-qmp", 0, 0, G_OPTION_ARG_FILENAME, &options.source_qmp,
         "QMP socket of the QEMU that runs the guest", "PATH"},
        {"destination-qmp", 0, 0, G_OPTION_ARG_FILENAME, &options.destination_qmp,
         "QMP socket of the QEMU that waits for it (-incoming defer -S)", "PATH"},
        {"destination", 0, 0, G_OPTION_ARG_STRING, &options.destination,
         "where the destination's daemon listens", "HOST:PORT"},
        {"timeout", 0, 0, G_OPTION_ARG_INT, &options.timeout_s,
         "give up and undo if the switchover takes longer (60)", "SECONDS"},
        {"no-wait", 0, 0, G_OPTION_ARG_NONE, &options.no_wait,
         "return as soon as the guest runs on the destination", NULL},
        {"json", 0, 0, G_OPTION_ARG_NONE, &options.json, "report in JSON, one object a line", NULL},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    g_autofree char *vm = NULL;
    gboolean done = FALSE;
    g_autoptr(GError) local = NULL;

    if (command_parse("VM", "Moves a running guest to another host; its memory follows.", entries,
                      argc, argv, TRUE, &vm, &local) &&
        check_options(&options, &local)) {
        options.vm = vm;
        done = run(&options, error);
    } else {
        g_printerr("postcopyctl: %s\n", local->message);
        g_propagate_error(error, g_steal_pointer(&local));
    }
    options_clear(&options);
    return done;
}
