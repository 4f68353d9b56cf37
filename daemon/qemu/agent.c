/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The agent's life: its connection, and what is remembered of domains.
 *
 * Two threads of its own: the connector opens the connection and looks after what was left undone; the
 * other one runs libvirt's event loop, which moves the data of every call and calls agent_events.c.
 */
#include "daemon/qemu/agent.h"

#include <string.h>

#include "daemon/core/log.h"
#include "daemon/qemu/agent_private.h"
#include "daemon/qemu/timed.h"

enum {
    LANES = 16,
    RETRY_MS = 5000,     /* what could not be done is tried again */
    OPEN_AGAIN_MS = 500, /* at first, then twice as late each time */
    OPEN_AGAIN_MS_MAX = 10000,
    KEEPALIVE_S = 5,
    KEEPALIVE_COUNT = 3,
    STOP_MS = 2000
};

char *agent_error(void)
{
    gboolean silent = virGetLastErrorCode() == VIR_ERR_OK;

    return g_strdelimit(
        g_strdup(silent ? "libvirt cannot be reached now" : virGetLastErrorMessage()), "\n", ' ');
}

/* --- domains, under the lock ----------------------------------------------------------------- */

AgentDomain *agent_domain(Agent *agent, const guint8 *uuid)
{
    for (guint i = 0; i < agent->domains->len; i++) {
        AgentDomain *domain = agent->domains->pdata[i];
        if (memcmp(domain->uuid, uuid, LIMIT_UUID) == 0)
            return domain;
    }
    return NULL;
}

AgentDomain *agent_domain_make(Agent *agent, const guint8 *uuid)
{
    AgentDomain *domain = agent_domain(agent, uuid);

    if (!domain) {
        domain = g_new0(AgentDomain, 1);
        memcpy(domain->uuid, uuid, LIMIT_UUID);
        g_ptr_array_add(agent->domains, domain);
    }
    return domain;
}

void agent_forget(Agent *agent, const guint8 *uuid)
{
    AgentDomain *domain;

    pthread_mutex_lock(&agent->lock);
    domain = agent_domain(agent, uuid);
    if (domain)
        g_ptr_array_remove_fast(agent->domains, domain);
    pthread_mutex_unlock(&agent->lock);
}

gboolean agent_is_enabled(Agent *agent, const guint8 *uuid)
{
    const AgentDomain *domain;
    gboolean enabled;

    pthread_mutex_lock(&agent->lock);
    domain = agent_domain(agent, uuid);
    enabled = domain && domain->enabled;
    pthread_mutex_unlock(&agent->lock);
    return enabled;
}

GByteArray *agent_enabled(Agent *agent)
{
    GByteArray *uuids = g_byte_array_new();

    pthread_mutex_lock(&agent->lock);
    for (guint i = 0; i < agent->domains->len; i++) {
        const AgentDomain *domain = agent->domains->pdata[i];
        if (domain->enabled)
            g_byte_array_append(uuids, domain->uuid, LIMIT_UUID);
    }
    pthread_mutex_unlock(&agent->lock);
    return uuids;
}

/* --- the connection -------------------------------------------------------------------------- */

virConnectPtr agent_connection(Agent *agent)
{
    virConnectPtr connection;

    pthread_mutex_lock(&agent->lock);
    connection = agent->connection;
    if (connection)
        virConnectRef(connection);
    pthread_mutex_unlock(&agent->lock);
    return connection;
}

gboolean agent_is_stopping(Agent *agent)
{
    gboolean stopping;

    pthread_mutex_lock(&agent->lock);
    stopping = agent->stopping;
    pthread_mutex_unlock(&agent->lock);
    return stopping;
}

gboolean agent_is_connected(Agent *agent)
{
    gboolean connected;

    pthread_mutex_lock(&agent->lock);
    connected = agent->connection != NULL;
    pthread_mutex_unlock(&agent->lock);
    return connected;
}

const char *agent_uri(const Agent *agent)
{
    return agent->uri;
}

virDomainPtr agent_find(Agent *agent, const guint8 *uuid, gboolean *ret_gone)
{
    virConnectPtr connection = agent_connection(agent);
    virDomainPtr domain;
    int active = -1;

    *ret_gone = FALSE;
    virResetLastError();
    if (!connection)
        return NULL;
    domain = virDomainLookupByUUID(connection, uuid);
    if (domain)
        active = virDomainIsActive(domain);
    *ret_gone = domain ? active == 0 : virGetLastErrorCode() == VIR_ERR_NO_DOMAIN;
    virConnectClose(connection); /* the domain holds it as well */
    if (domain && active != 1) {
        virDomainFree(domain);
        return NULL;
    }
    return domain;
}

static void on_close(virConnectPtr connection, int reason, void *opaque)
{
    Agent *agent = opaque;

    (void)connection;
    (void)reason;
    pthread_mutex_lock(&agent->lock);
    agent->lost = TRUE;
    pthread_cond_broadcast(&agent->changed);
    pthread_mutex_unlock(&agent->lock);
}

/* --- the connector --------------------------------------------------------------------------- */

static void post_look(Agent *agent, virDomainPtr domain)
{
    AgentJob job = {.agent = agent, .reason = LOOK_CONNECTED};

    if (virDomainGetUUID(domain, job.uuid) == 0)
        agent_post(&job, LANE_DOMAIN, agent_look);
}

static gboolean is_listed(virDomainPtr *domains, int n, const guint8 *uuid)
{
    guint8 of_domain[LIMIT_UUID];

    for (int i = 0; i < n; i++)
        if (virDomainGetUUID(domains[i], of_domain) == 0 &&
            memcmp(of_domain, uuid, LIMIT_UUID) == 0)
            return TRUE;
    return FALSE;
}

/* A job for each domain that is known; they are posted without the lock. */
static GArray *collect_jobs(Agent *agent)
{
    GArray *jobs = g_array_new(FALSE, FALSE, sizeof(AgentJob));

    pthread_mutex_lock(&agent->lock);
    for (guint i = 0; i < agent->domains->len; i++) {
        const AgentDomain *domain = agent->domains->pdata[i];
        AgentJob job = {.agent = agent, .reason = LOOK_AGAIN};

        memcpy(job.uuid, domain->uuid, LIMIT_UUID);
        g_array_append_val(jobs, job);
    }
    pthread_mutex_unlock(&agent->lock);
    return jobs;
}

/* Those that may have ended while nobody told us: what a look at them finds counts, not the list, which
 * is older than what events told meanwhile. */
static void look_at_others(Agent *agent, virDomainPtr *domains, int n)
{
    g_autoptr(GArray) jobs = collect_jobs(agent);

    for (guint i = 0; i < jobs->len; i++) {
        const AgentJob *job = &g_array_index(jobs, AgentJob, i);
        if (!is_listed(domains, n, job->uuid))
            agent_post(job, LANE_DOMAIN, agent_look);
    }
}

static void look_at_all(Agent *agent, virConnectPtr connection)
{
    virDomainPtr *domains = NULL;
    int n = virConnectListAllDomains(connection, &domains, VIR_CONNECT_LIST_DOMAINS_ACTIVE);

    if (n < 0) {
        g_autofree char *why = agent_error();
        log_warning("libvirt does not list its domains: %s", why);
        return;
    }
    look_at_others(agent, domains, n);
    for (int i = 0; i < n; i++) {
        post_look(agent, domains[i]);
        virDomainFree(domains[i]);
    }
    free(domains);
}

static gboolean is_due(const AgentDomain *domain, AgentRetry retry)
{
    switch (retry) {
    case RETRY_LOOK:
        return domain->look_again;
    case RETRY_CHECK:
        return domain->check_again && !domain->clear_wanted;
    default:
        return domain->clear_wanted;
    }
}

/* Notes that it is posted now. FALSE: there is nothing to do, or it waits behind a call that hangs. */
static gboolean take_retry(AgentJob *job, AgentRetry retry)
{
    AgentDomain *domain;
    gboolean taken;

    pthread_mutex_lock(&job->agent->lock);
    domain = agent_domain(job->agent, job->uuid);
    taken = domain && is_due(domain, retry) && !domain->posted[retry];
    if (taken)
        domain->posted[retry] = TRUE;
    pthread_mutex_unlock(&job->agent->lock);
    job->is_retry = taken;
    job->retry = retry;
    return taken;
}

static void retry(Agent *agent)
{
    static void (*const run[AGENT_RETRIES])(AgentJob * job) = {
        [RETRY_LOOK] = agent_look,
        [RETRY_CHECK] = agent_check_capability,
        [RETRY_CLEAR] = agent_clear_capability,
    };
    g_autoptr(GArray) jobs = collect_jobs(agent);

    for (guint i = 0; i < jobs->len; i++)
        for (AgentRetry kind = 0; kind < AGENT_RETRIES; kind++) {
            AgentJob job = g_array_index(jobs, AgentJob, i);

            if (take_retry(&job, kind))
                agent_post(&job, LANE_DOMAIN, run[kind]);
        }
}

static void publish(Agent *agent, virConnectPtr connection)
{
    pthread_mutex_lock(&agent->lock);
    agent->connection = connection;
    pthread_mutex_unlock(&agent->lock);
}

/* Until the time is over or there is news. FALSE: there is. */
static gboolean rest(Agent *agent, gint64 milliseconds)
{
    gint64 deadline = timed_deadline(milliseconds);
    gboolean news;

    pthread_mutex_lock(&agent->lock);
    while (!agent->stopping && !agent->lost && timed_wait(&agent->changed, &agent->lock, deadline))
        ;
    news = agent->stopping || agent->lost;
    pthread_mutex_unlock(&agent->lock);
    return !news;
}

/* From its opening to its end. */
static void serve(Agent *agent, virConnectPtr connection)
{
    /* What a driver inside this process cannot do is not needed there either. */
    gboolean tells = virConnectRegisterCloseCallback(connection, on_close, agent, NULL) == 0;

    virConnectSetKeepAlive(connection, KEEPALIVE_S, KEEPALIVE_COUNT);
    agent_events_register(agent, connection);
    publish(agent, connection);
    log_info("libvirt: connected to %s", agent->uri);
    look_at_all(agent, connection);
    while (rest(agent, RETRY_MS) && virConnectIsAlive(connection) == 1)
        retry(agent);
    publish(agent, NULL);
    if (!agent_is_stopping(agent))
        log_warning("libvirt: the connection to %s is lost; connecting again", agent->uri);
    agent_events_deregister(agent, connection);
    if (tells)
        virConnectUnregisterCloseCallback(connection, on_close);
    virConnectClose(connection);
}

static void *connector(void *argument)
{
    Agent *agent = argument;
    gint64 pause_ms = OPEN_AGAIN_MS;
    gboolean complained = FALSE;

    while (!agent_is_stopping(agent)) {
        virConnectPtr connection = virConnectOpen(agent->uri);
        if (connection) {
            pthread_mutex_lock(&agent->lock);
            agent->lost = FALSE;
            pthread_mutex_unlock(&agent->lock);
            serve(agent, connection);
            pause_ms = OPEN_AGAIN_MS;
            complained = TRUE; /* that it is gone was said */
        } else if (!complained) {
            g_autofree char *why = agent_error();
            log_warning("libvirt: cannot connect to %s: %s; trying again", agent->uri, why);
            complained = TRUE;
        }
        pthread_mutex_lock(&agent->lock);
        agent->lost = FALSE;
        pthread_mutex_unlock(&agent->lock);
        rest(agent, pause_ms);
        pause_ms = MIN(2 * pause_ms, (gint64)OPEN_AGAIN_MS_MAX);
    }
    pthread_mutex_lock(&agent->lock);
    agent->connector_ended = TRUE;
    pthread_cond_broadcast(&agent->changed);
    pthread_mutex_unlock(&agent->lock);
    return NULL;
}

/* --- the event loop -------------------------------------------------------------------------- */

static void on_waker(int timer, void *opaque)
{
    (void)opaque;
    virEventUpdateTimeout(timer, -1);
}

static void *events(void *argument)
{
    Agent *agent = argument;

    /* The connector's last calls need the loop. */
    for (;;) {
        gboolean over;
        pthread_mutex_lock(&agent->lock);
        over = agent->stopping && agent->connector_ended;
        pthread_mutex_unlock(&agent->lock);
        if (over)
            break;
        if (virEventRunDefaultImpl() < 0)
            g_usleep(10000);
    }
    pthread_mutex_lock(&agent->lock);
    agent->events_ended = TRUE;
    pthread_cond_broadcast(&agent->changed);
    pthread_mutex_unlock(&agent->lock);
    return NULL;
}

/* --- life ------------------------------------------------------------------------------------ */

/* libvirt's own habit is to print what we log in our words. */
static void be_quiet(void *opaque, virErrorPtr error)
{
    (void)opaque;
    (void)error;
}

static void initialise(void)
{
    virInitialize();
    virSetErrorFunc(NULL, be_quiet);
    virEventRegisterDefaultImpl();
}

Agent *agent_start(const AgentConfig *config)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    Agent *agent = g_new0(Agent, 1);

    pthread_once(&once, initialise);
    agent->uri = g_strdup(config->uri);
    agent->start_postcopy = config->start_postcopy;
    agent->all = config->all;
    agent->found_ignore_shared = config->found_ignore_shared;
    agent->is_attended = config->is_attended;
    agent->user = config->user;
    pthread_mutex_init(&agent->lock, NULL);
    timed_init(&agent->changed);
    agent->domains = g_ptr_array_new_with_free_func(g_free);
    agent->lanes = lanes_new(LANES);
    agent->waker = virEventAddTimeout(-1, on_waker, NULL, NULL);
    pthread_create(&agent->events, NULL, events, agent);
    pthread_create(&agent->connector, NULL, connector, agent);
    return agent;
}

/* FALSE: the deadline has passed. */
static gboolean wait_end(Agent *agent, const gboolean *ended, gint64 deadline)
{
    gboolean has_ended;

    pthread_mutex_lock(&agent->lock);
    while (!*ended && timed_wait(&agent->changed, &agent->lock, deadline))
        ;
    has_ended = *ended;
    pthread_mutex_unlock(&agent->lock);
    return has_ended;
}

static gboolean end_thread(Agent *agent, pthread_t thread, const gboolean *ended, gint64 deadline)
{
    if (!wait_end(agent, ended, deadline)) {
        pthread_detach(thread);
        return FALSE;
    }
    pthread_join(thread, NULL);
    return TRUE;
}

void agent_stop(Agent *agent)
{
    gint64 deadline = timed_deadline(STOP_MS);
    gboolean all;

    pthread_mutex_lock(&agent->lock);
    agent->stopping = TRUE;
    pthread_cond_broadcast(&agent->changed);
    pthread_mutex_unlock(&agent->lock);
    all = lanes_stop(agent->lanes, STOP_MS / 2);
    all &= end_thread(agent, agent->connector, &agent->connector_ended, deadline);
    virEventUpdateTimeout(agent->waker, 0);
    all &= end_thread(agent, agent->events, &agent->events_ended, deadline);
    pthread_mutex_lock(&agent->lock);
    agent->left = !all;
    pthread_mutex_unlock(&agent->lock);
    if (!all)
        log_warning("libvirt does not give back all calls: left as they are");
    else
        virEventRemoveTimeout(agent->waker);
}

void agent_free(Agent *agent)
{
    if (agent->left)
        return; /* what is left uses it */
    lanes_free(agent->lanes);
    g_ptr_array_free(agent->domains, TRUE);
    pthread_cond_destroy(&agent->changed);
    pthread_mutex_destroy(&agent->lock);
    g_free(agent->uri);
    g_free(agent);
}
