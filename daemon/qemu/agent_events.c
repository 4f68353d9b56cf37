/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What libvirt tells us about domains.  The functions it calls are on its event thread, or on any thread that
 * is in a call of its: they only take the agent's lock and post to lanes.
 */
#include <string.h>

#include "daemon/core/log.h"
#include "daemon/qemu/agent_private.h"

enum {
    AWAIT_MS = 1000, /* for a destination that may have no daemon */
    AWAIT_STEP_MS = 10,
    AWAIT_PLAN_MS = 30, /* from its being attached until its QEMU knows */
};

static gboolean start_job(Agent *agent, virDomainPtr domain, AgentJob *ret_job)
{
    *ret_job = (AgentJob){.agent = agent};
    return virDomainGetUUID(domain, ret_job->uuid) == 0;
}

static void look(Agent *agent, virDomainPtr domain, LookReason reason)
{
    AgentJob job;

    if (!start_job(agent, domain, &job))
        return;
    job.reason = reason;
    agent_post(&job, LANE_DOMAIN, agent_look);
}

/* --- life ----------------------------------------------------------------------------------- */

/*
 * While a domain arrives libvirt lets nobody change it, so the first look is when it has: with post-copy
 * that is when all its memory is there, not when it runs.
 */
static void on_started(Agent *agent, virDomainPtr domain, int detail)
{
    if (detail != VIR_DOMAIN_EVENT_STARTED_MIGRATED)
        look(agent, domain, LOOK_STARTED);
}

static void on_resumed(Agent *agent, virDomainPtr domain, int detail)
{
    if (detail == VIR_DOMAIN_EVENT_RESUMED_MIGRATED)
        look(agent, domain, LOOK_ARRIVED);
    else if (detail != VIR_DOMAIN_EVENT_RESUMED_POSTCOPY)
        look(agent, domain, LOOK_STARTED);
}

static int on_lifecycle(virConnectPtr connection, virDomainPtr domain, int event, int detail,
                        void *opaque)
{
    AgentJob job;

    (void)connection;
    switch (event) {
    case VIR_DOMAIN_EVENT_STARTED:
        on_started(opaque, domain, detail);
        break;
    case VIR_DOMAIN_EVENT_RESUMED:
        on_resumed(opaque, domain, detail);
        break;
    case VIR_DOMAIN_EVENT_SUSPENDED:
        /* One that arrived, and was paused where it came from. */
        if (detail == VIR_DOMAIN_EVENT_SUSPENDED_PAUSED)
            look(opaque, domain, LOOK_STARTED);
        break;
    case VIR_DOMAIN_EVENT_STOPPED:
        if (start_job(opaque, domain, &job))
            agent_forget(opaque, job.uuid);
        look(opaque, domain, LOOK_AGAIN); /* one that is at it could remember it again */
        break;
    default:
        break;
    }
    return 0;
}

static void on_metadata(virConnectPtr connection, virDomainPtr domain, int type, const char *uri,
                        void *opaque)
{
    (void)connection;
    if (type == VIR_DOMAIN_METADATA_ELEMENT && g_strcmp0(uri, MARK_NAMESPACE) == 0)
        look(opaque, domain, LOOK_CHANGED);
}

/* --- migration ------------------------------------------------------------------------------ */

/* Whether it takes part is asked again: the word may be newer than our last look. */
static gboolean takes_part(Agent *agent, virDomainPtr domain)
{
    gboolean known;
    Mark mark;

    return agent_read_mark(domain, &mark, &known) && known && mark_takes_part(&mark, agent->all);
}

/* Another try with the next pass. */
static void undecide(AgentJob *job)
{
    AgentDomain *known;

    pthread_mutex_lock(&job->agent->lock);
    known = agent_domain(job->agent, job->uuid);
    if (known)
        known->passes.decided = false;
    pthread_mutex_unlock(&job->agent->lock);
}

/* A migration that may not become a post-copy one is nobody's mistake, and not worth a word. */
static gboolean is_harmless(int code)
{
    return code == VIR_ERR_OPERATION_INVALID || code == VIR_ERR_OPERATION_UNSUPPORTED ||
           code == VIR_ERR_ARGUMENT_UNSUPPORTED || code == VIR_ERR_NO_SUPPORT;
}

/*
 * A destination asks for the guest when the migration begins, and what it was not told in time QEMU does
 * alone.  One without a daemon never asks.
 */
static void await_destination(const AgentJob *job)
{
    Agent *agent = job->agent;

    for (int waited = 0; agent->is_attended && waited < AWAIT_MS; waited += AWAIT_STEP_MS) {
        gboolean ready = agent->is_attended(agent->user, job->uuid);

        g_usleep((gulong)(ready ? AWAIT_PLAN_MS : AWAIT_STEP_MS) * 1000);
        if (ready || agent_is_stopping(agent))
            return;
    }
}

static void start_postcopy(AgentJob *job)
{
    gboolean gone;
    virDomainPtr domain = agent_find(job->agent, job->uuid, &gone);

    if (!domain)
        return;
    if (takes_part(job->agent, domain)) {
        await_destination(job);
        if (virDomainMigrateStartPostCopy(domain, 0) == 0) {
            log_info("domain %s: post-copy after pass %d has begun", virDomainGetName(domain),
                     job->pass);
        } else if (!is_harmless(virGetLastErrorCode())) {
            g_autofree char *why = agent_error();
            log_warning("domain %s: post-copy was not started in pass %d: %s",
                        virDomainGetName(domain), job->pass, why);
            undecide(job);
        }
    }
    virDomainFree(domain);
}

static void on_iteration(virConnectPtr connection, virDomainPtr domain, int iteration, void *opaque)
{
    Agent *agent = opaque;
    gboolean now;
    AgentJob job;

    (void)connection;
    if (agent->start_postcopy == 0 || !start_job(agent, domain, &job))
        return;
    pthread_mutex_lock(&agent->lock);
    now =
        passes_begin(&agent_domain_make(agent, job.uuid)->passes, iteration, agent->start_postcopy);
    pthread_mutex_unlock(&agent->lock);
    job.pass = iteration;
    if (now)
        agent_post(&job, LANE_POSTCOPY, start_postcopy);
}

static void on_job_completed(virConnectPtr connection, virDomainPtr domain,
                             virTypedParameterPtr parameters, int n, void *opaque)
{
    Agent *agent = opaque;
    AgentDomain *known;
    AgentJob job;

    (void)connection;
    (void)parameters;
    (void)n;
    if (!start_job(agent, domain, &job))
        return;
    pthread_mutex_lock(&agent->lock);
    known = agent_domain(agent, job.uuid);
    if (known)
        known->passes = (Passes){0};
    pthread_mutex_unlock(&agent->lock);
}

/* --- registration --------------------------------------------------------------------------- */

/* A libvirt that does not know an event goes without it. */
void agent_events_register(Agent *agent, virConnectPtr connection)
{
    static const struct {
        int id;
        virConnectDomainEventGenericCallback function;
    } events[AGENT_EVENTS] = {
        {VIR_DOMAIN_EVENT_ID_LIFECYCLE, VIR_DOMAIN_EVENT_CALLBACK(on_lifecycle)},
        {VIR_DOMAIN_EVENT_ID_METADATA_CHANGE, VIR_DOMAIN_EVENT_CALLBACK(on_metadata)},
        {VIR_DOMAIN_EVENT_ID_MIGRATION_ITERATION, VIR_DOMAIN_EVENT_CALLBACK(on_iteration)},
        {VIR_DOMAIN_EVENT_ID_JOB_COMPLETED, VIR_DOMAIN_EVENT_CALLBACK(on_job_completed)},
    };

    for (int i = 0; i < AGENT_EVENTS; i++) {
        agent->callbacks[i] = virConnectDomainEventRegisterAny(connection, NULL, events[i].id,
                                                               events[i].function, agent, NULL);
        if (agent->callbacks[i] < 0) {
            g_autofree char *why = agent_error();
            log_warning("libvirt does not tell of events of kind %d: %s", events[i].id, why);
        }
    }
}

void agent_events_deregister(Agent *agent, virConnectPtr connection)
{
    for (int i = 0; i < AGENT_EVENTS; i++)
        if (agent->callbacks[i] >= 0)
            virConnectDomainEventDeregisterAny(connection, agent->callbacks[i]);
}
