/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/control/fd_store.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "daemon/core/log.h"

/* FileDescriptorStoreMax of the unit, where systemd does not tell. */
enum { FD_STORE_MAX = 4096 };

#define TAKEN_US ((guint64)5 * G_USEC_PER_SEC)
#define CLOSE_US (2 * (gint64)G_USEC_PER_SEC)

typedef enum JobKind { JOB_ADD, JOB_REMOVE, JOB_TIME, JOB_END } JobKind;

typedef struct Job {
    JobKind kind;
    char *stem;
    guint n;
    int *fds;
    FdStored stored;
    gpointer user;
} Job;

struct FdStore {
    guint n, max;
    gboolean outlives_stop;
    gboolean closed;
    pthread_mutex_t lock; /* of the rest; pthread's own, which the thread sanitizer understands */
    pthread_cond_t changed;
    GQueue jobs;    /* of Job */
    gboolean ended; /* its thread */
};

static void job_free(Job *job)
{
    for (guint i = 0; job->fds && i < job->n; i++)
        close(job->fds[i]);
    g_free(job->fds);
    g_free(job->stem);
    g_free(job);
}

/* --- its thread ---------------------------------------------------------------------------- */

static gboolean add(const Job *job)
{
    int error = 1;

    for (guint i = 0; i < job->n && error > 0; i++) {
        g_autofree char *text = g_strdup_printf("FDSTORE=1\nFDPOLL=0\nFDNAME=%s-%u", job->stem, i);
        error = sd_pid_notify_with_fds(0, 0, text, &job->fds[i], 1);
    }
    if (error > 0)
        error = sd_notify_barrier(0, TAKEN_US);
    if (error <= 0)
        log_warning("%s: the service manager did not take it: %s", job->stem,
                    error ? strerror(-error) : "it is gone");
    return error > 0;
}

static void remove_all(const Job *job)
{
    for (guint i = 0; i < job->n; i++)
        sd_notifyf(0, "FDSTOREREMOVE=1\nFDNAME=%s-%u", job->stem, i);
}

static Job *pop(FdStore *store)
{
    Job *job;

    pthread_mutex_lock(&store->lock);
    while (!(job = g_queue_pop_head(&store->jobs)))
        pthread_cond_wait(&store->changed, &store->lock);
    pthread_mutex_unlock(&store->lock);
    return job;
}

static void *run(void *argument)
{
    FdStore *store = argument;
    JobKind kind;

    do {
        Job *job = pop(store);

        kind = job->kind;
        if (kind == JOB_ADD)
            job->stored(job->user, add(job));
        else if (kind == JOB_REMOVE)
            remove_all(job);
        else if (kind == JOB_TIME)
            sd_notify(0, "EXTEND_TIMEOUT_USEC=30000000");
        job_free(job);
    } while (kind != JOB_END);
    sd_notify_barrier(0, TAKEN_US);
    pthread_mutex_lock(&store->lock);
    store->ended = TRUE;
    pthread_cond_broadcast(&store->changed);
    pthread_mutex_unlock(&store->lock);
    return NULL;
}

/* --- the control thread -------------------------------------------------------------------- */

static gboolean start(FdStore *store)
{
    pthread_t thread;

    if (pthread_create(&thread, NULL, run, store))
        return FALSE;
    pthread_detach(thread);
    return TRUE;
}

FdStore *fd_store_new(void)
{
    const char *max = g_getenv("FDSTORE");
    FdStore *store;

    if (!g_getenv("NOTIFY_SOCKET"))
        return NULL;
    store = g_new0(FdStore, 1);
    /* Who tells how much it stores (systemd 254) also knows the unit's FileDescriptorStorePreserve. */
    store->outlives_stop = max != NULL;
    store->max = max ? (guint)MIN(g_ascii_strtoull(max, NULL, 10), G_MAXUINT) : FD_STORE_MAX;
    pthread_mutex_init(&store->lock, NULL);
    pthread_cond_init(&store->changed, NULL);
    if (start(store))
        return store;
    log_error("cannot start a thread: exports will not outlive this daemon");
    g_free(store);
    return NULL;
}

gboolean fd_store_outlives_stop(const FdStore *store)
{
    return store && store->outlives_stop;
}

/* Takes the job. */
static void push(FdStore *store, Job *job)
{
    pthread_mutex_lock(&store->lock);
    g_queue_push_tail(&store->jobs, job);
    pthread_cond_broadcast(&store->changed);
    pthread_mutex_unlock(&store->lock);
}

static Job *job_new(JobKind kind, const char *stem, guint n)
{
    Job *job = g_new0(Job, 1);

    job->kind = kind;
    job->stem = g_strdup(stem);
    job->n = n;
    return job;
}

static gboolean copy_fds(Job *job, const int *fds, guint n)
{
    job->n = 0;
    job->fds = g_new0(int, n);
    for (; job->n < n; job->n++) {
        job->fds[job->n] = fcntl(fds[job->n], F_DUPFD_CLOEXEC, 3);
        if (job->fds[job->n] < 0)
            return FALSE;
    }
    return TRUE;
}

gboolean fd_store_add(FdStore *store, const char *stem, const int *fds, guint n, FdStored stored,
                      gpointer user)
{
    Job *job;

    if (store->closed || store->n + n > store->max) {
        log_warning(
            "%s: no room for %u more file descriptors in the service manager's store: raise "
            "FileDescriptorStoreMax",
            stem, n);
        return FALSE;
    }
    job = job_new(JOB_ADD, stem, n);
    if (!copy_fds(job, fds, n)) {
        log_warning("%s: no file descriptor is free: raise LimitNOFILE", stem);
        job_free(job);
        return FALSE;
    }
    job->stored = stored;
    job->user = user;
    store->n += n;
    push(store, job);
    return TRUE;
}

void fd_store_remove(FdStore *store, const char *stem, guint n)
{
    if (store->closed)
        return;
    store->n -= MIN(n, store->n);
    push(store, job_new(JOB_REMOVE, stem, n));
}

void fd_store_count(FdStore *store, guint n)
{
    store->n += n;
}

void fd_store_ask_for_time(FdStore *store)
{
    push(store, job_new(JOB_TIME, NULL, 0));
}

/* The thread, if it does not end in time, goes with the process; nothing of it is taken apart. */
void fd_store_close(FdStore *store)
{
    struct timespec until;

    if (!store)
        return;
    store->closed = TRUE;
    push(store, job_new(JOB_END, NULL, 0));
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += CLOSE_US / G_USEC_PER_SEC;
    pthread_mutex_lock(&store->lock);
    while (!store->ended && pthread_cond_timedwait(&store->changed, &store->lock, &until) == 0)
        ;
    pthread_mutex_unlock(&store->lock);
}
