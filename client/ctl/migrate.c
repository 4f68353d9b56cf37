/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <string.h>

#include "client/ctl/address.h"
#include "client/ctl/command.h"
#include "client/ctl/error.h"
#include "client/ctl/format.h"
#include "client/ctl/libvirt_migration.h"
#include "client/ctl/migration.h"
#include "client/ctl/transport.h"
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

static gboolean complete_destination(MigrationOptions *options, GError **error)
{
    char *address = address_complete("--destination", options->destination, error);

    if (!address)
        return FALSE;
    g_free(options->destination);
    options->destination = address;
    return TRUE;
}

static gboolean check_options(MigrationOptions *options, GError **error)
{
    const char *missing = !options->source_qmp        ? "--source-qmp PATH"
                          : !options->destination_qmp ? "--destination-qmp PATH"
                          : !options->destination     ? "--destination HOST"
                                                      : NULL;

    if (!options->source_qmp && !options->destination_qmp && !options->destination) {
        g_set_error(
            error, CALL_ERROR, CALL_ERROR_USAGE,
            "migrate wants where to: DOMAIN URI for a domain of libvirt's, as "
            "qemu+ssh://root@HOST/system; or --source-qmp, --destination-qmp and --destination");
        return FALSE;
    }
    if (missing) {
        g_set_error(error, CALL_ERROR, CALL_ERROR_USAGE, "migrate needs %s", missing);
        return FALSE;
    }
    if (!complete_destination(options, error))
        return FALSE;
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
    g_free(options->transport);
}

static gboolean check_libvirt_options(const LibvirtOptions *options, const MigrationOptions *qemu,
                                      GError **error)
{
    const char *wrong = qemu->source_qmp        ? "--source-qmp"
                        : qemu->destination_qmp ? "--destination-qmp"
                        : qemu->destination     ? "--destination"
                                                : NULL;

    if (wrong) {
        g_set_error(error, CALL_ERROR, CALL_ERROR_USAGE,
                    "%s is for a QEMU without libvirt; a domain goes by 'migrate DOM DESTURI'",
                    wrong);
        return FALSE;
    }
    if (options->timeout_s <= 0 || options->bandwidth < 0) {
        g_set_error(error, CALL_ERROR, CALL_ERROR_USAGE, "%s must be at least %d",
                    options->timeout_s <= 0 ? "--timeout" : "--bandwidth",
                    options->timeout_s <= 0 ? 1 : 0);
        return FALSE;
    }
    return TRUE;
}

/* What only a domain of libvirt can have. */
static gboolean check_no_libvirt_options(const LibvirtOptions *options, GError **error)
{
    const char *wrong = options->to                ? "--to"
                        : options->connect         ? "--connect"
                        : options->persistent      ? "--persistent"
                        : options->undefine_source ? "--undefine-source"
                        : options->bandwidth       ? "--bandwidth"
                                                   : NULL;

    if (!wrong)
        return TRUE;
    g_set_error(error, CALL_ERROR, CALL_ERROR_USAGE,
                "%s is for a libvirt domain, which goes by 'migrate DOM DESTURI'", wrong);
    return FALSE;
}

/* One word is a QEMU's VM, two are a libvirt domain and where it goes. */
static gboolean migrate_words(char **words, MigrationOptions *qemu, LibvirtOptions *libvirt,
                              gboolean *ret_reported, GError **error)
{
    if (!words[0]) {
        g_set_error(error, CALL_ERROR, CALL_ERROR_USAGE,
                    "migrate needs a libvirt domain and its destination's URI, or the name or uuid "
                    "of a VM");
        return FALSE;
    }
    libvirt->domain = qemu->vm = words[0];
    libvirt->uri = words[1];
    libvirt->timeout_s = qemu->timeout_s;
    libvirt->json = qemu->json;
    libvirt->no_wait = qemu->no_wait;
    libvirt->transport = qemu->transport;
    if (!transport_check_word(qemu->transport, error) ||
        !(words[1] ? check_libvirt_options(libvirt, qemu, error)
                   : check_no_libvirt_options(libvirt, error) && check_options(qemu, error)))
        return FALSE;
    *ret_reported = TRUE;
    return words[1] ? libvirt_migrate(libvirt, error) : run(qemu, error);
}

static void libvirt_options_clear(LibvirtOptions *options)
{
    g_free(options->connect);
    g_free(options->to);
}

gboolean command_migrate(const char *socket, int argc, char **argv, GError **error)
{
    MigrationOptions options = {.socket = socket, .timeout_s = TIMEOUT_S};
    LibvirtOptions libvirt = {.socket = socket};
    const GOptionEntry entries[] = {
        {"connect", 'c', 0, G_OPTION_ARG_STRING, &libvirt.connect,
         "libvirt's URI of this host (that of the daemon's configuration, else " DOMAIN_URI ")",
         "URI"},
        {"to", 0, 0, G_OPTION_ARG_STRING, &libvirt.to,
         "where the destination's daemon listens (DESTURI's host, port 16520)", "HOST[:PORT]"},
        {"persistent", 0, 0, G_OPTION_ARG_NONE, &libvirt.persistent,
         "define the domain on the destination", NULL},
        {"undefine-source", 0, 0, G_OPTION_ARG_NONE, &libvirt.undefine_source,
         "undefine the domain on the source", NULL},
        {"bandwidth", 0, 0, G_OPTION_ARG_INT, &libvirt.bandwidth,
         "of QEMU's own small stream; the memory's is set by 'postcopyctl limit' at the "
         "destination",
         "MIB/S"},
        {"source-qmp", 0, 0, G_OPTION_ARG_FILENAME, &options.source_qmp,
         "QMP socket of the QEMU that runs the guest", "PATH"},
        {"destination-qmp", 0, 0, G_OPTION_ARG_FILENAME, &options.destination_qmp,
         "QMP socket of the QEMU that waits for it (-incoming defer -S)", "PATH"},
        {"destination", 0, 0, G_OPTION_ARG_STRING, &options.destination,
         "where the destination's daemon listens (port 16520)", "HOST[:PORT]"},
        {"transport", 0, 0, G_OPTION_ARG_STRING, &options.transport,
         "how its memory travels; auto: as both hosts' configurations say", "auto|tcp|rdma"},
        {"timeout", 0, 0, G_OPTION_ARG_INT, &options.timeout_s,
         "give up and undo if the switchover takes longer (60)", "SECONDS"},
        {"no-wait", 0, 0, G_OPTION_ARG_NONE, &options.no_wait,
         "return as soon as the guest runs on the destination", NULL},
        {"json", 0, 0, G_OPTION_ARG_NONE, &options.json, "report in JSON, one object a line", NULL},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    g_auto(GStrv) words = NULL;
    gboolean done, reported = FALSE;
    g_autoptr(GError) local = NULL;

    done = command_parse_words("DOM DESTURI | OPTIONS VM",
                               "Moves a running guest to another host; its memory follows.",
                               entries, argc, argv, 2, &words, &local) &&
           migrate_words(words, &options, &libvirt, &reported, &local);
    if (!done && !reported)
        g_printerr("postcopyctl: %s\n", local->message);
    if (!done)
        g_propagate_error(error, g_steal_pointer(&local));
    options_clear(&options);
    libvirt_options_clear(&libvirt);
    return done;
}
