/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/control/ignore_shared.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "daemon/core/log.h"
#include "protocol/qmp/error.h"
#include "protocol/qmp/qmp.h"
#include "protocol/qmp/second_monitor.h"

enum { RETRY_MS = 100, COMPLAIN_S = 30 };

#define CAPABILITY "x-ignore-shared"

typedef struct ClearJob {
    char *path; /* of the monitor */
    int pid;
    int pidfd;
} ClearJob;

static void job_free(ClearJob *job)
{
    if (job->pidfd >= 0)
        close(job->pidfd);
    g_free(job->path);
    g_free(job);
}

/* QEMU looks at the capability while it loads: in the middle of that it may not change. */
static gboolean clear(const ClearJob *job, GError **error)
{
    g_autoptr(Qmp) qmp = qmp_connect(job->path, "destination", NULL, error);
    g_autofree char *status = NULL;
    gboolean on = FALSE;
    Monitor monitor;

    if (!qmp)
        return FALSE;
    if (qmp_peer(qmp) != job->pid) {
        g_set_error(error, CALL_ERROR, CALL_ERROR_FAILED, "%s is not the monitor of process %d",
                    job->path, job->pid);
        return FALSE;
    }
    status = qmp_query_status(qmp, "query-status", error);
    if (!status)
        return FALSE;
    if (strcmp(status, "inmigrate") == 0) {
        g_set_error(error, CALL_ERROR, CALL_ERROR_FAILED, "QEMU has not loaded its devices yet");
        return FALSE;
    }
    monitor = qmp_monitor(qmp);
    if (!monitor_get_capability(&monitor, CAPABILITY, &on, error))
        return FALSE;
    return !on || monitor_set_capability(&monitor, CAPABILITY, FALSE, error);
}

static gboolean has_ended(const ClearJob *job, int wait_ms)
{
    struct pollfd fd = {.fd = job->pidfd, .events = POLLIN};

    return poll(&fd, 1, wait_ms) > 0;
}

static void *run(void *argument)
{
    ClearJob *job = argument;
    gint64 complained_us = g_get_monotonic_time();
    gboolean done = FALSE;

    prctl(PR_SET_NAME, "capability");
    while (!done && !has_ended(job, 0)) {
        g_autoptr(GError) error = NULL;

        done = clear(job, &error);
        if (done) {
            log_info("process %d: " CAPABILITY " is off again", job->pid);
        } else if (has_ended(job, RETRY_MS)) {
            break;
        } else if (g_get_monotonic_time() - complained_us > (gint64)COMPLAIN_S * G_USEC_PER_SEC) {
            complained_us = g_get_monotonic_time();
            log_warning("process %d: " CAPABILITY " is still on, do not save its guest: %s",
                        job->pid, error->message);
        }
    }
    job_free(job);
    return NULL;
}

void ignore_shared_clear(const char *name, int pid, int pidfd)
{
    ClearJob *job = g_new0(ClearJob, 1);
    pthread_attr_t attributes;
    pthread_t thread;

    job->path = second_monitor_path(NULL, name);
    job->pid = pid;
    job->pidfd = fcntl(pidfd, F_DUPFD_CLOEXEC, 3);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    if (!job->path || job->pidfd < 0 || pthread_create(&thread, &attributes, run, job)) {
        log_error("process %d: cannot clear " CAPABILITY ": do not save its guest", pid);
        job_free(job);
    }
    pthread_attr_destroy(&attributes);
}
