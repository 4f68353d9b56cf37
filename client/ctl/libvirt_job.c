/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/ctl/libvirt_job.h"

#include <errno.h>
#include <libvirt/virterror.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct Job {
    virDomain *domain;
    virConnect *source, *destination;
    char uuid[VIR_UUID_STRING_BUFLEN];
    const JobOptions *options;
    GThread *thread;
    int fd;
    int callbacks[3];
    GMutex lock; /* guards the rest */
    JobNews news;
};

/* --- libvirt's event loop ------------------------------------------------------------------ */

/* It lives as long as the process: a callback may come until the last connection is closed. */
static gpointer run_events(gpointer unused)
{
    (void)unused;
    for (;;)
        virEventRunDefaultImpl();
    return NULL;
}

void job_events_init(void)
{
    static gsize once;

    if (!g_once_init_enter(&once))
        return;
    virEventRegisterDefaultImpl();
    g_thread_unref(g_thread_new("libvirt-events", run_events, NULL));
    g_once_init_leave(&once, 1);
}

static void tell(Job *job)
{
    guint64 one = 1;

    while (write(job->fd, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

static gboolean is_ours(const Job *job, virDomain *domain)
{
    char uuid[VIR_UUID_STRING_BUFLEN];

    return virDomainGetUUIDString(domain, uuid) == 0 && strcmp(uuid, job->uuid) == 0;
}

static int on_source(virConnect *connection, virDomain *domain, int event, int detail, void *user)
{
    Job *job = user;

    (void)connection;
    if (event != VIR_DOMAIN_EVENT_SUSPENDED || detail != VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED ||
        !is_ours(job, domain))
        return 0;
    g_mutex_lock(&job->lock);
    if (!job->news.stopped_us)
        job->news.stopped_us = g_get_monotonic_time();
    g_mutex_unlock(&job->lock);
    tell(job);
    return 0;
}

static int on_destination(virConnect *connection, virDomain *domain, int event, int detail,
                          void *user)
{
    Job *job = user;

    (void)connection;
    (void)detail;
    if (event != VIR_DOMAIN_EVENT_RESUMED || !is_ours(job, domain))
        return 0;
    g_mutex_lock(&job->lock);
    if (!job->news.resumed_us)
        job->news.resumed_us = g_get_monotonic_time();
    g_mutex_unlock(&job->lock);
    tell(job);
    return 0;
}

static void on_completed(virConnect *connection, virDomain *domain, virTypedParameterPtr parameters,
                         int n, void *user)
{
    Job *job = user;
    unsigned long long bytes = 0;

    (void)connection;
    if (!is_ours(job, domain) ||
        virTypedParamsGetULLong(parameters, n, VIR_DOMAIN_JOB_DATA_PROCESSED, &bytes) <= 0)
        return;
    g_mutex_lock(&job->lock);
    job->news.stream_bytes = bytes;
    g_mutex_unlock(&job->lock);
}

/* --- life ---------------------------------------------------------------------------------- */

static void clear(gpointer data)
{
    Job *job = data;

    close(job->fd);
    g_mutex_clear(&job->lock);
    g_free(job->news.error);
}

/* libvirt's callbacks hold it too: one may be under way when it is no longer wanted. */
static void unref(void *job)
{
    g_atomic_rc_box_release_full(job, clear);
}

static int watch(Job *job, virConnect *connection, int event,
                 virConnectDomainEventGenericCallback callback)
{
    int id = virConnectDomainEventRegisterAny(connection, NULL, event, callback,
                                              g_atomic_rc_box_acquire(job), unref);

    if (id < 0)
        unref(job);
    return id;
}

Job *job_new(virDomain *domain, virConnect *destination)
{
    Job *job = g_atomic_rc_box_new0(Job);

    job->domain = domain;
    job->source = virDomainGetConnect(domain);
    job->destination = destination;
    job->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    g_mutex_init(&job->lock);
    virDomainGetUUIDString(domain, job->uuid);
    job->callbacks[0] = watch(job, job->source, VIR_DOMAIN_EVENT_ID_LIFECYCLE,
                              VIR_DOMAIN_EVENT_CALLBACK(on_source));
    job->callbacks[1] = watch(job, job->source, VIR_DOMAIN_EVENT_ID_JOB_COMPLETED,
                              VIR_DOMAIN_EVENT_CALLBACK(on_completed));
    job->callbacks[2] = watch(job, destination, VIR_DOMAIN_EVENT_ID_LIFECYCLE,
                              VIR_DOMAIN_EVENT_CALLBACK(on_destination));
    return job;
}

void job_free(Job *job)
{
    if (!job)
        return;
    if (job->thread)
        g_thread_join(job->thread);
    for (guint i = 0; i < G_N_ELEMENTS(job->callbacks); i++)
        if (job->callbacks[i] >= 0)
            virConnectDomainEventDeregisterAny(i < 2 ? job->source : job->destination,
                                               job->callbacks[i]);
    unref(job);
}

static gpointer run(gpointer argument)
{
    Job *job = argument;
    const JobOptions *options = job->options;
    unsigned flags = VIR_MIGRATE_LIVE | VIR_MIGRATE_PEER2PEER |
                     (options->persistent ? VIR_MIGRATE_PERSIST_DEST : 0) |
                     (options->undefine_source ? VIR_MIGRATE_UNDEFINE_SOURCE : 0);
    virTypedParameterPtr parameters = NULL;
    int n = 0, max = 0, result;

    if (options->bandwidth)
        virTypedParamsAddULLong(&parameters, &n, &max, VIR_MIGRATE_PARAM_BANDWIDTH,
                                options->bandwidth);
    result = virDomainMigrateToURI3(job->domain, options->uri, parameters, (unsigned)n, flags);
    g_mutex_lock(&job->lock);
    job->news.finished = TRUE;
    job->news.done = result == 0;
    if (result < 0 && virGetLastErrorCode() != VIR_ERR_OK)
        job->news.error = g_strdelimit(g_strdup(virGetLastErrorMessage()), "\n", ' ');
    g_mutex_unlock(&job->lock);
    virTypedParamsFree(parameters, n);
    tell(job);
    return NULL;
}

void job_start(Job *job, const JobOptions *options)
{
    job->options = options;
    job->thread = g_thread_new("libvirt-migrate", run, job);
}

int job_fd(const Job *job)
{
    return job->fd;
}

void job_news(Job *job, JobNews *ret_news)
{
    guint64 count;

    if (read(job->fd, &count, sizeof count) < 0)
        count = 0; /* nothing new, and what is old is told again */
    g_mutex_lock(&job->lock);
    *ret_news = job->news;
    g_mutex_unlock(&job->lock);
}
