/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/ctl/follow.h"
#include "client/ctl/format.h"
#include "client/ctl/libvirt_migration.h"
#include "protocol/qmp/error.h"

/* Both hosts' events are told here by one clock: what counts is when they came. */
static double downtime_ms(const LibvirtMigration *m)
{
    return m->news.stopped_us && m->news.resumed_us
               ? (double)(m->news.resumed_us - m->news.stopped_us) / 1000
               : -1;
}

static void report_resumed(LibvirtMigration *m)
{
    JsonObject *more = json_object_new();
    double downtime = downtime_ms(m);
    g_autofree char *stood =
        downtime < 0 ? g_strdup("") : g_strdup_printf(", it stood still for %.1f ms", downtime);
    g_autofree char *text = g_strdup_printf("the guest runs on the destination%s", stood);

    json_object_set_string_member(more, "seal", m->seal ? m->seal : "");
    if (downtime >= 0)
        json_object_set_double_member(more, "downtime_ms", downtime);
    report_phase(&m->report, "resumed", text, more);
}

static void tell_running(LibvirtMigration *m)
{
    g_autoptr(GError) error = NULL;

    if (!daemon_vm_call(m->daemon, "running", m->uuid, (gint64)m->options->timeout_s * 1000,
                        &error))
        report_note(&m->report, "the daemon was not told that the guest runs: %s", error->message);
}

static gboolean follow(LibvirtMigration *m, GError **error)
{
    const Follow what = {
        .socket = m->options->socket,
        .vm = m->uuid,
        .interrupt = &m->interrupt,
        .daemon = &m->daemon,
        .report = &m->report,
        .progress = &m->progress,
    };

    return follow_memory(&what, error);
}

static gboolean migrate(LibvirtMigration *m, GError **error)
{
    m->deadline = wait_deadline((gint64)m->options->timeout_s * 1000);
    if (!libvirt_connect(m, error) || !libvirt_check(m, error))
        return FALSE;
    report_phase(&m->report, "checked", "the domain's memory can be served, libvirt is ready",
                 NULL);
    if (!libvirt_switch_over(m, error) && !libvirt_undo(m, error))
        return FALSE;
    m->step = LIBVIRT_RESUMED;
    tell_running(m);
    report_resumed(m);
    m->interrupt.masked = FALSE;
    return m->options->no_wait || follow(m, error);
}

static void report_summary(LibvirtMigration *m)
{
    g_autofree char *received = format_bytes(m->progress.received_bytes);
    g_autofree char *populated = format_bytes(m->progress.populated_bytes);
    g_autofree char *stream = format_bytes(m->news.stream_bytes);
    g_autofree char *text = NULL;

    if (m->options->no_wait) {
        report_phase(&m->report, "following", "its memory follows; 'postcopyctl status' shows it",
                     NULL);
        return;
    }
    text = g_strdup_printf("all memory is on the destination: %s, %s received, %" G_GUINT64_FORMAT
                           " faults; QEMU's own stream took %s",
                           populated, received, m->progress.faults, stream);
    report_phase(&m->report, "complete", text, NULL);
}

static JsonObject *result_members(const LibvirtMigration *m)
{
    JsonObject *result = json_object_new();
    ProgressVerdict verdict = progress_verdict(&m->progress);

    if (m->progress.state)
        progress_to_json(&m->progress, result);
    if (m->step >= LIBVIRT_RESUMED && downtime_ms(m) >= 0)
        json_object_set_double_member(result, "downtime_ms", downtime_ms(m));
    if (m->news.stream_bytes)
        json_object_set_int_member(result, "stream_bytes", (gint64)m->news.stream_bytes);
    json_object_set_boolean_member(result, "resumed", m->step >= LIBVIRT_RESUMED);
    json_object_set_boolean_member(result, "complete",
                                   verdict == PROGRESS_DONE || verdict == PROGRESS_COMPLETE);
    return result;
}

static void deinit(LibvirtMigration *m)
{
    job_free(m->job);
    if (m->domain)
        virDomainFree(m->domain);
    if (m->destination)
        virConnectClose(m->destination);
    if (m->source)
        virConnectClose(m->source);
    daemon_free(m->daemon);
    g_clear_pointer(&m->regions, json_array_unref);
    g_free(m->address);
    g_free(m->seal);
    progress_deinit(&m->progress);
    interrupt_deinit(&m->interrupt);
}

gboolean libvirt_migrate(const LibvirtOptions *options, GError **error)
{
    LibvirtMigration migration = {.options = options, .interrupt.fd = -1};
    LibvirtMigration *m = &migration;
    g_autoptr(GError) local = NULL;

    report_init(&m->report, options->domain, options->json);
    if (interrupt_init(&m->interrupt, &local) && migrate(m, &local))
        report_summary(m);
    if (m->job)
        job_news(m->job, &m->news);
    report_result(&m->report, result_members(m), local);
    deinit(m);
    if (!local)
        return TRUE;
    g_propagate_error(error, g_steal_pointer(&local));
    return FALSE;
}
