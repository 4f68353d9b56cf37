/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is asked of libvirt for one domain, on its way to a lane and back. */
#include <string.h>

#include "daemon/qemu/agent_private.h"

typedef struct PostedJob {
    AgentJob job;
    void (*run)(AgentJob *job);
} PostedJob;

/* Whoever asked may be gone, if a thread that was left at the stop comes here. */
void agent_job_done(AgentJob *job, const char *problem)
{
    AgentDone done = job->done;
    gboolean left;

    job->done = NULL;
    pthread_mutex_lock(&job->agent->lock);
    left = job->agent->left;
    pthread_mutex_unlock(&job->agent->lock);
    if (done && !left)
        done(job->user, job->uuid, problem);
}

/* From now on it may be posted again: what it does not get done is found due. */
static void leave_lane(const AgentJob *job)
{
    AgentDomain *domain;

    if (!job->is_retry)
        return;
    pthread_mutex_lock(&job->agent->lock);
    domain = agent_domain(job->agent, job->uuid);
    if (domain)
        domain->posted[job->retry] = FALSE;
    pthread_mutex_unlock(&job->agent->lock);
}

static void drop(void *data)
{
    PostedJob *posted = data;

    agent_job_done(&posted->job, "the daemon is stopping");
    g_free(posted);
}

static void run(void *data)
{
    PostedJob *posted = data;

    leave_lane(&posted->job);
    posted->run(&posted->job);
    g_free(posted);
}

void agent_post(const AgentJob *job, AgentLane kind, void (*function)(AgentJob *job))
{
    PostedJob *posted = g_new(PostedJob, 1);
    LaneKey key = {.kind = (guint8)kind};

    *posted = (PostedJob){.job = *job, .run = function};
    memcpy(key.uuid, job->uuid, sizeof key.uuid);
    lanes_post(job->agent->lanes, &key, run, drop, posted);
}
