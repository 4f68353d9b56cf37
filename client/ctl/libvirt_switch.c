/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The switchover, as far as it is ours: libvirt runs it on another thread (libvirt_job.h), and here it is
 * waited for the source's guest to stand still, for its memory to be sealed.  Until the gate opens the
 * destination may be waiting for a page, so nothing here prints or sleeps then.
 */
#include <string.h>

#include "client/ctl/libvirt_migration.h"
#include "client/ctl/libvirt_monitor.h"
#include "protocol/qmp/error.h"
#include "protocol/qmp/json.h"

enum {
    LOOK_MS = 50, /* an event may be late: so often the state is asked for */
    SAVED_MS = 2 * 1000,
    SAVED_RETRY_MS = 2,
    SEAL_RETRY_MS = 5,
    SEAL_MS = 5 * 1000,
    AWAIT_MS = 30 * 1000,
};

static gint64 time_left(const LibvirtMigration *m)
{
    return MAX((m->deadline - g_get_monotonic_time()) / 1000, 1);
}

gboolean libvirt_await_news(LibvirtMigration *m, gint64 timeout_ms, GError **error)
{
    int fd = job_fd(m->job);
    g_autoptr(GError) local = NULL;

    if (!wait_readable(&fd, 1, &m->interrupt, wait_deadline(timeout_ms), &local) &&
        !g_error_matches(local, CALL_ERROR, CALL_ERROR_TIMEOUT)) {
        g_propagate_error(error, g_steal_pointer(&local));
        return FALSE;
    }
    job_news(m->job, &m->news);
    return TRUE;
}

/* Answered when the destination's daemon waits for the domain: libvirt may start it from then on. */
static gboolean prepare(LibvirtMigration *m, GError **error)
{
    JsonObject *request = json_object_new();
    g_autoptr(JsonNode) answer = NULL;
    g_autoptr(GError) local = NULL;

    json_object_set_boolean_member(request, "libvirt", TRUE);
    json_object_set_string_member(request, "vm", virDomainGetName(m->domain));
    json_object_set_string_member(request, "uuid", m->uuid);
    json_object_set_int_member(request, "pid", m->pid);
    json_object_set_string_member(request, "destination", m->address);
    json_object_set_array_member(request, "regions", json_array_ref(m->regions));
    if (m->options->transport)
        json_object_set_string_member(request, "transport", m->options->transport);
    m->step = LIBVIRT_PREPARED;
    answer = daemon_call(m->daemon, "prepare", request, -1, MIN(time_left(m), AWAIT_MS), &local);
    if (answer)
        return TRUE;
    if (g_error_matches(local, CALL_ERROR, CALL_ERROR_REFUSED))
        m->step = LIBVIRT_CHECKING;
    g_propagate_error(error, g_steal_pointer(&local));
    return FALSE;
}

/* libvirt leaves alone what it does not know. The destination's is the hook's to set, once it is armed. */
static gboolean set_capability(LibvirtMigration *m, GError **error)
{
    m->step = LIBVIRT_SETTINGS;
    return monitor_set_capability(&m->monitor, "x-ignore-shared", TRUE, error);
}

static void start(LibvirtMigration *m)
{
    const LibvirtOptions *options = m->options;

    m->job_options = (JobOptions){
        .uri = options->uri,
        .bandwidth = (guint64)options->bandwidth,
        .persistent = options->persistent,
        .undefine_source = options->undefine_source,
    };
    m->job = job_new(m->domain, m->destination);
    m->step = LIBVIRT_STARTED;
    report_phase(&m->report, "switchover", "libvirt migrates the domain without its memory", NULL);
    job_start(m->job, &m->job_options);
}

static gboolean fail_job(LibvirtMigration *m, GError **error)
{
    g_autofree char *hint =
        m->enabled ? g_strdup("")
                   : g_strdup_printf(" (perhaps because the domain is not enabled at the "
                                     "destination: 'postcopyctl enable %s' here)",
                                     m->options->domain);

    g_set_error(error, CALL_ERROR, CALL_ERROR_FAILED, "libvirt: %s%s",
                m->news.error ? m->news.error : "it gave up and does not say why", hint);
    return FALSE;
}

/* Somebody else may have paused the guest meanwhile: that is not the switchover. */
static gboolean is_switching(LibvirtMigration *m)
{
    static const char *const last[] = {"pre-switchover", "device", "completed", NULL};
    g_autofree char *status = monitor_query_status(&m->monitor, "query-migrate", NULL);

    return status && g_strv_contains(last, status);
}

static gboolean has_stopped(LibvirtMigration *m)
{
    int state, reason;

    return m->news.stopped_us || m->news.finished ||
           (virDomainGetState(m->domain, &state, &reason, 0) == 0 && state == VIR_DOMAIN_PAUSED &&
            is_switching(m));
}

static gboolean await_stop(LibvirtMigration *m, GError **error)
{
    for (;;) {
        if (!libvirt_await_news(m, LOOK_MS, error))
            return FALSE;
        if (m->news.finished && !m->news.done)
            return fail_job(m, error);
        /* Finished: so quick that its guest runs there already, and waits for the seal. */
        if (has_stopped(m))
            return TRUE;
        if (g_get_monotonic_time() < m->deadline)
            continue;
        g_set_error(error, CALL_ERROR, CALL_ERROR_TIMEOUT,
                    "the switchover did not begin within %d s (--timeout)", m->options->timeout_s);
        return FALSE;
    }
}

/*
 * A guest that is paused still has its devices saved, and some machines' devices write to memory then.  All is
 * written once QEMU says "completed", which it does by itself, unless a return path makes it wait
 * for a destination that waits for us.
 */
static void await_saved(LibvirtMigration *m)
{
    gint64 deadline = wait_deadline(SAVED_MS);
    gboolean return_path = FALSE, saving = TRUE;

    if (!monitor_get_capability(&m->monitor, "return-path", &return_path, NULL))
        return;
    while (saving && g_get_monotonic_time() < deadline) {
        g_autofree char *status = monitor_query_status(&m->monitor, "query-migrate", NULL);

        job_news(m->job, &m->news);
        saving = status && !m->news.finished &&
                 (strcmp(status, "pre-switchover") == 0 || strcmp(status, "active") == 0 ||
                  (strcmp(status, "device") == 0 && !return_path));
        if (saving)
            wait_until(NULL, wait_deadline(SAVED_RETRY_MS), NULL);
    }
}

/* The daemon knows that nothing came of it; libvirt knows why, and may be about to say so. */
static gboolean fail_seal(LibvirtMigration *m, GError *refusal, GError **error)
{
    gint64 deadline = wait_deadline(SEAL_MS);

    while (!m->news.finished && g_get_monotonic_time() < deadline)
        if (!libvirt_await_news(m, LOOK_MS, NULL))
            break;
    if (m->news.finished && !m->news.done) {
        g_error_free(refusal);
        return fail_job(m, error);
    }
    g_propagate_error(error, refusal);
    return FALSE;
}

/*
 * A refusal may be too early a question: QEMU still writes out what its disks had under way, or the word
 * that the destination is armed is on its way here.
 */
static gboolean seal(LibvirtMigration *m, GError **error)
{
    gint64 deadline = wait_deadline(SEAL_MS);

    m->interrupt.masked = TRUE;
    m->step = LIBVIRT_SEALED;
    for (;;) {
        JsonObject *request = json_object_new();
        g_autoptr(GError) local = NULL;
        g_autoptr(JsonNode) answer = NULL;

        json_object_set_string_member(request, "vm", m->uuid);
        answer = daemon_call(m->daemon, "seal", request, -1, time_left(m), &local);
        if (answer) {
            m->seal = g_strdup(member_string(node_object(answer), "seal"));
            return TRUE;
        }
        job_news(m->job, &m->news);
        if (m->news.finished || g_get_monotonic_time() >= deadline ||
            !g_error_matches(local, CALL_ERROR, CALL_ERROR_REFUSED)) {
            if (!g_error_matches(local, CALL_ERROR, CALL_ERROR_REFUSED)) {
                g_propagate_error(error, g_steal_pointer(&local));
                return FALSE;
            }
            m->step = LIBVIRT_STARTED;
            return fail_seal(m, g_steal_pointer(&local), error);
        }
        wait_until(NULL, wait_deadline(SEAL_RETRY_MS), NULL);
    }
}

static gboolean await_done(LibvirtMigration *m, GError **error)
{
    m->deadline = wait_deadline((gint64)m->options->timeout_s * 1000);
    while (!m->news.finished) {
        if (!libvirt_await_news(m, LOOK_MS, error))
            return FALSE;
        if (!m->news.finished && g_get_monotonic_time() >= m->deadline) {
            g_set_error(error, CALL_ERROR, CALL_ERROR_TIMEOUT,
                        "libvirt did not come to an end within %d s (--timeout)",
                        m->options->timeout_s);
            return FALSE;
        }
    }
    return m->news.done || fail_job(m, error);
}

gboolean libvirt_switch_over(LibvirtMigration *m, GError **error)
{
    if (!prepare(m, error))
        return FALSE;
    report_phase(&m->report, "prepared", "the destination's daemon waits for the domain", NULL);
    if (!set_capability(m, error))
        return FALSE;
    start(m);
    if (!await_stop(m, error))
        return FALSE;
    await_saved(m);
    return seal(m, error) && await_done(m, error);
}
