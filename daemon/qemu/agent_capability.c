/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * x-ignore-shared: on while a domain migrates in direct mode, never after.  QEMU keeps it on, and a domain
 * that is saved like this loses its memory.  On lanes.
 */
#include <string.h>

#include "daemon/core/log.h"
#include "daemon/qemu/agent_private.h"

#define CAPABILITY "x-ignore-shared"

/* States of query-migrate in which no migration is under way. */
static const char *const idle_states[] = {"", "none", "completed", "failed", "cancelled"};

static gboolean is_migrating(const Monitor *monitor, gboolean *ret_migrating, GError **error)
{
    g_autofree char *status = monitor_query_status(monitor, "query-migrate", error);

    *ret_migrating = TRUE;
    for (gsize i = 0; status && i < G_N_ELEMENTS(idle_states); i++)
        if (strcmp(status, idle_states[i]) == 0)
            *ret_migrating = FALSE;
    return status != NULL;
}

/* What the agent has still to do about it. */
static void plan(const AgentJob *job, gboolean check_again, gboolean clear_wanted)
{
    AgentDomain *known;

    pthread_mutex_lock(&job->agent->lock);
    known = agent_domain(job->agent, job->uuid);
    if (!known && (check_again || clear_wanted))
        known = agent_domain_make(job->agent, job->uuid);
    if (known) {
        known->check_again = check_again;
        known->clear_wanted = clear_wanted;
    }
    pthread_mutex_unlock(&job->agent->lock);
}

/* Whether somebody told us already that it has to be off. */
static gboolean is_clear_wanted(const AgentJob *job)
{
    const AgentDomain *known;
    gboolean wanted;

    pthread_mutex_lock(&job->agent->lock);
    known = agent_domain(job->agent, job->uuid);
    wanted = known && known->clear_wanted;
    pthread_mutex_unlock(&job->agent->lock);
    return wanted;
}

/* The note in the metadata that it may be on. */
static gboolean note(virDomainPtr domain, gboolean on)
{
    gboolean known;
    Mark mark;

    if (!agent_read_mark(domain, &mark, &known))
        return FALSE;
    if (mark.ignore_shared == on)
        return TRUE;
    if (!known || agent_is_busy(domain))
        return FALSE; /* what is not known would be written over */
    mark.ignore_shared = on;
    return agent_write_mark(domain, &mark);
}

/* Off; the note goes last, and comes off with a later look if it cannot now. */
static gboolean switch_off(AgentJob *job, virDomainPtr domain, gboolean *ret_was_on, GError **error)
{
    Monitor monitor = agent_domain_monitor(domain);

    *ret_was_on = FALSE;
    if (!monitor_get_capability(&monitor, CAPABILITY, ret_was_on, error) ||
        (*ret_was_on && !monitor_set_capability(&monitor, CAPABILITY, FALSE, error)))
        return FALSE;
    plan(job, !note(domain, FALSE), FALSE);
    return TRUE;
}

void agent_check_capability(AgentJob *job)
{
    g_autoptr(GError) error = NULL;
    gboolean gone, on = FALSE, migrating = TRUE;
    virDomainPtr domain = agent_find(job->agent, job->uuid, &gone);
    Monitor monitor;

    if (!domain)
        return;
    monitor = agent_domain_monitor(domain);
    if (is_clear_wanted(job))
        ; /* that is tried by itself */
    else if (!monitor_get_capability(&monitor, CAPABILITY, &on, &error) ||
             (on && !is_migrating(&monitor, &migrating, &error)))
        plan(job, TRUE, FALSE);
    else if (on) {
        plan(job, TRUE, FALSE);
        if (!migrating && job->agent->found_ignore_shared && !agent_is_stopping(job->agent))
            job->agent->found_ignore_shared(job->agent->user, job->uuid, virDomainGetName(domain));
    } else
        plan(job, !note(domain, FALSE), FALSE);
    virDomainFree(domain);
}

void agent_clear_capability(AgentJob *job)
{
    g_autoptr(GError) error = NULL;
    gboolean gone, was_on;
    virDomainPtr domain = agent_find(job->agent, job->uuid, &gone);

    if (!domain) {
        plan(job, FALSE, !gone);
        agent_job_done(job, gone ? NULL : "libvirt cannot be reached now");
        return;
    }
    if (switch_off(job, domain, &was_on, &error)) {
        if (was_on)
            log_info("domain %s: migration capability " CAPABILITY " is off again",
                     virDomainGetName(domain));
        agent_job_done(job, NULL);
    } else {
        plan(job, FALSE, TRUE);
        agent_job_done(job, error->message);
    }
    virDomainFree(domain);
}

static void set_capability(AgentJob *job)
{
    g_autoptr(GError) error = NULL;
    gboolean gone;
    virDomainPtr domain = agent_find(job->agent, job->uuid, &gone);
    Monitor monitor;

    if (!domain) {
        agent_job_done(job, gone ? "libvirt has no such domain running"
                                 : "libvirt cannot be reached now");
        return;
    }
    /* Looked after from now on, also if this call is the one that does not come back. */
    plan(job, TRUE, FALSE);
    monitor = agent_domain_monitor(domain);
    if (!note(domain, TRUE))
        agent_job_done(job, "the domain's metadata cannot be written now, is it being migrated?");
    else if (!monitor_set_capability(&monitor, CAPABILITY, TRUE, &error))
        agent_job_done(job, error->message);
    else
        agent_job_done(job, NULL);
    virDomainFree(domain);
}

static void post(Agent *agent, const guint8 *uuid, AgentDone done, void *user,
                 void (*run)(AgentJob *job))
{
    AgentJob job = {.agent = agent, .done = done, .user = user};

    memcpy(job.uuid, uuid, sizeof job.uuid);
    agent_post(&job, LANE_DOMAIN, run);
}

void agent_set_ignore_shared(Agent *agent, const guint8 *uuid, AgentDone done, void *user)
{
    post(agent, uuid, done, user, set_capability);
}

void agent_clear_ignore_shared(Agent *agent, const guint8 *uuid, AgentDone done, void *user)
{
    post(agent, uuid, done, user, agent_clear_capability);
}
