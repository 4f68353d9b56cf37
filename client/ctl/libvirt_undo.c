/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <libvirt/virterror.h>
#include <string.h>

#include "client/ctl/libvirt_migration.h"
#include "protocol/qmp/error.h"
#include "protocol/qmp/json.h"

enum {
    ABORT_MS = 60 * 1000,
    ABORT_AGAIN_MS = 500, /* libvirt refuses while it has not got as far */
    CLEAR_MS = 10 * 1000,
    CANCEL_MS = 6 * 1000,
    ANSWER_MS = 10 * 1000,
    LOOK_MS = 50,
};

static void append(GError **error, const char *text)
{
    g_autofree char *before = (*error)->message;

    (*error)->message = g_strconcat(before, "; ", text, NULL);
}

static void make_unsafe(GError **error, const char *text)
{
    g_autoptr(GError) cause = g_steal_pointer(error);

    *error = g_error_new(CALL_ERROR, CALL_ERROR_UNSAFE, "%s; %s", cause->message, text);
}

/* Over a new connection if the daemon was restarted meanwhile. */
static gboolean order(LibvirtMigration *m, const char *op)
{
    g_autoptr(GError) local = NULL;
    g_autoptr(Daemon) daemon = NULL;

    if (daemon_vm_call(m->daemon, op, m->uuid, ANSWER_MS, &local))
        return TRUE;
    if (!g_error_matches(local, CALL_ERROR, CALL_ERROR_CLOSED))
        return FALSE;
    daemon = daemon_connect(m->options->socket, &m->interrupt, NULL);
    return daemon && daemon_vm_call(daemon, op, m->uuid, ANSWER_MS, NULL);
}

/*
 * A migration too far to be aborted ends only if the destination gets the pages that it waits for: "cancel"
 * has the daemon look after that, and undo what it has when libvirt has given up, never before.
 */
static gboolean end_job(LibvirtMigration *m)
{
    gint64 deadline = wait_deadline(ABORT_MS), again = 0;
    gboolean told = FALSE;

    while (!m->news.finished && g_get_monotonic_time() < deadline) {
        if (g_get_monotonic_time() >= again) {
            virDomainAbortJob(m->domain);
            again = wait_deadline(ABORT_AGAIN_MS);
            if (!told)
                order(m, "cancel");
            told = TRUE;
        }
        libvirt_await_news(m, LOOK_MS, NULL);
    }
    return m->news.finished;
}

static gboolean is_undone(LibvirtMigration *m)
{
    JsonObject *request = json_object_new();
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonNode) answer = NULL;

    json_object_set_string_member(request, "vm", m->uuid);
    answer = daemon_call(m->daemon, "progress", request, -1, ANSWER_MS, &error);
    return answer ? strcmp(member_string(node_object(answer), "state"), "cancelled") == 0
                  : g_error_matches(error, CALL_ERROR, CALL_ERROR_REFUSED);
}

/* So that the next attempt does not find the domain leaving still. */
static void cancel(LibvirtMigration *m)
{
    gint64 deadline = wait_deadline(CANCEL_MS);

    order(m, "cancel");
    while (!is_undone(m) && g_get_monotonic_time() < deadline)
        wait_until(NULL, wait_deadline(LOOK_MS), NULL);
}

/* QEMU refuses while its migration is not quite over. */
static void clear_capability(LibvirtMigration *m)
{
    gint64 deadline = wait_deadline(CLEAR_MS);
    g_autoptr(GError) local = NULL;

    while (!monitor_set_capability(&m->monitor, "x-ignore-shared", FALSE, &local)) {
        if (virDomainIsActive(m->domain) != 1)
            return;
        if (g_get_monotonic_time() >= deadline) {
            report_note(&m->report,
                        "x-ignore-shared is still on at the source, do not save the domain: %s",
                        local->message);
            return;
        }
        g_clear_error(&local);
        wait_until(NULL, wait_deadline(LOOK_MS), NULL);
    }
}

/* A domain that is not there has no state: -1. */
static int state_of(virDomain *domain)
{
    int state = -1, reason;

    return domain && virDomainGetState(domain, &state, &reason, 0) == 0 ? state : -1;
}

static int state_there(LibvirtMigration *m)
{
    g_autoptr(virDomain) there = virDomainLookupByUUIDString(m->destination, m->uuid);

    return state_of(there);
}

static gboolean is_asleep(int state)
{
    return state == -1 || state == VIR_DOMAIN_SHUTOFF || state == VIR_DOMAIN_CRASHED;
}

/* libvirt has decided; what is asked here is only how. */
static gboolean judge(LibvirtMigration *m, GError **error)
{
    int here = state_of(m->domain), there = state_there(m);

    if (here == VIR_DOMAIN_RUNNING) {
        if (m->step >= LIBVIRT_SEALED)
            order(m, "abandon");
        clear_capability(m);
        append(error, "the guest runs on on the source");
        return FALSE;
    }
    if (there == VIR_DOMAIN_RUNNING && is_asleep(here) && m->step >= LIBVIRT_SEALED) {
        /* libvirt's call may fail without a reason, its migration did not. */
        if (!m->news.finished || m->news.done || m->news.error)
            report_note(&m->report, "%s; but the guest runs on the destination", (*error)->message);
        g_clear_error(error);
        return TRUE;
    }
    if (here == VIR_DOMAIN_PAUSED && is_asleep(there)) {
        if (m->step >= LIBVIRT_SEALED)
            order(m, "abandon");
        clear_capability(m);
        make_unsafe(error, "the guest is paused on the source and gone from the destination: "
                           "'virsh resume' lets it run");
        return FALSE;
    }
    make_unsafe(error, "CAUTION: look at both hosts with 'virsh list --all' before either guest is "
                       "run: only one of them may");
    return FALSE;
}

gboolean libvirt_undo(LibvirtMigration *m, GError **error)
{
    m->interrupt.masked = TRUE;
    if (m->step >= LIBVIRT_STARTED && !end_job(m)) {
        make_unsafe(error, "libvirt's migration cannot be aborted: see virsh domjobinfo on the "
                           "source");
        return FALSE;
    }
    if (m->step >= LIBVIRT_STARTED && m->news.done)
        m->step = LIBVIRT_SEALED; /* or will be: its guest runs there */
    else if (m->step >= LIBVIRT_PREPARED && m->step < LIBVIRT_SEALED)
        cancel(m);
    if (m->step >= LIBVIRT_STARTED)
        return judge(m, error);
    if (m->step >= LIBVIRT_SETTINGS)
        clear_capability(m);
    append(error, "nothing has changed for the guest");
    return FALSE;
}
