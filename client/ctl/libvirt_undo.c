/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <libvirt/virterror.h>

#include "client/ctl/libvirt_migration.h"
#include "protocol/qmp/error.h"

enum {
    ABORT_MS = 60 * 1000,
    ABORT_AGAIN_MS = 500, /* libvirt refuses while it has not got as far */
    CLEAR_MS = 10 * 1000,
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
 * Before the gate the daemon is told too: a destination that waits for a page hears nothing of libvirt,
 * and is ended by its own daemon then.
 */
static gboolean end_job(LibvirtMigration *m, gboolean cancel)
{
    gint64 deadline = wait_deadline(ABORT_MS), again = 0;

    while (!m->news.finished && g_get_monotonic_time() < deadline) {
        if (g_get_monotonic_time() >= again) {
            virDomainAbortJob(m->domain);
            again = wait_deadline(ABORT_AGAIN_MS);
            if (cancel)
                order(m, "cancel");
            cancel = FALSE;
        }
        libvirt_await_news(m, LOOK_MS, NULL);
    }
    return m->news.finished;
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
    gboolean before_gate = m->step < LIBVIRT_SEALED;

    m->interrupt.masked = TRUE;
    if (m->step >= LIBVIRT_STARTED && !end_job(m, before_gate)) {
        make_unsafe(error, "libvirt's migration cannot be aborted: see virsh domjobinfo on the "
                           "source");
        return FALSE;
    }
    if (m->step >= LIBVIRT_PREPARED && before_gate)
        order(m, "cancel");
    if (m->step >= LIBVIRT_STARTED)
        return judge(m, error);
    if (m->step >= LIBVIRT_SETTINGS)
        clear_capability(m);
    append(error, "nothing has changed for the guest");
    return FALSE;
}
