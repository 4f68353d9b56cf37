/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/qemu/lanes.h"

#include <pthread.h>
#include <string.h>

#include "daemon/qemu/timed.h"

typedef struct Job {
    LaneFunction run, drop;
    void *data;
} Job;

/* There is one only while it has jobs. */
typedef struct Lane {
    LaneKey key;
    GQueue jobs; /* of Job */
} Lane;

struct Lanes {
    pthread_mutex_t lock;
    pthread_cond_t work; /* ready has grown, or stopping */
    pthread_cond_t over; /* a thread has ended */
    GPtrArray *lanes;    /* all */
    GQueue ready;        /* those of them that no thread runs */
    pthread_t *threads;
    unsigned n_threads, threads_max, waiting, ended;
    gboolean stopping;
};

Lanes *lanes_new(unsigned threads)
{
    Lanes *lanes = g_new0(Lanes, 1);

    pthread_mutex_init(&lanes->lock, NULL);
    timed_init(&lanes->work);
    timed_init(&lanes->over);
    lanes->lanes = g_ptr_array_new();
    g_queue_init(&lanes->ready);
    lanes->threads = g_new0(pthread_t, threads);
    lanes->threads_max = threads;
    return lanes;
}

/* Under the lock. */
static Lane *find_lane(const Lanes *lanes, const LaneKey *key)
{
    for (guint i = 0; i < lanes->lanes->len; i++) {
        Lane *lane = lanes->lanes->pdata[i];
        if (memcmp(&lane->key, key, sizeof *key) == 0)
            return lane;
    }
    return NULL;
}

/* Under the lock: the lane's job is done. */
static void go_on(Lanes *lanes, Lane *lane)
{
    if (g_queue_is_empty(&lane->jobs)) {
        g_ptr_array_remove_fast(lanes->lanes, lane);
        g_free(lane);
    } else {
        g_queue_push_tail(&lanes->ready, lane);
    }
}

static void *work(void *argument)
{
    Lanes *lanes = argument;

    pthread_mutex_lock(&lanes->lock);
    while (!lanes->stopping) {
        Lane *lane = g_queue_pop_head(&lanes->ready);
        Job *job;

        if (!lane) {
            lanes->waiting++;
            pthread_cond_wait(&lanes->work, &lanes->lock);
            lanes->waiting--;
            continue;
        }
        job = g_queue_pop_head(&lane->jobs);
        pthread_mutex_unlock(&lanes->lock);
        job->run(job->data);
        g_free(job);
        pthread_mutex_lock(&lanes->lock);
        go_on(lanes, lane);
    }
    lanes->ended++;
    pthread_cond_broadcast(&lanes->over);
    pthread_mutex_unlock(&lanes->lock);
    return NULL;
}

/* Under the lock: somebody shall come for what is ready. */
static void call_thread(Lanes *lanes)
{
    if (g_queue_get_length(&lanes->ready) > lanes->waiting &&
        lanes->n_threads < lanes->threads_max &&
        pthread_create(&lanes->threads[lanes->n_threads], NULL, work, lanes) == 0)
        lanes->n_threads++;
    pthread_cond_signal(&lanes->work);
}

void lanes_post(Lanes *lanes, const LaneKey *key, LaneFunction run, LaneFunction drop, void *data)
{
    Job *job;
    Lane *lane;

    pthread_mutex_lock(&lanes->lock);
    if (lanes->stopping) {
        pthread_mutex_unlock(&lanes->lock);
        drop(data);
        return;
    }
    job = g_new(Job, 1);
    *job = (Job){.run = run, .drop = drop, .data = data};
    lane = find_lane(lanes, key);
    if (!lane) {
        lane = g_new0(Lane, 1);
        lane->key = *key;
        g_queue_init(&lane->jobs);
        g_ptr_array_add(lanes->lanes, lane);
        g_queue_push_tail(&lanes->ready, lane);
    }
    g_queue_push_tail(&lane->jobs, job);
    call_thread(lanes);
    pthread_mutex_unlock(&lanes->lock);
}

/* Under the lock. */
static void take_jobs(Lanes *lanes, GQueue *ret_jobs)
{
    for (guint i = 0; i < lanes->lanes->len; i++) {
        Lane *lane = lanes->lanes->pdata[i];
        Job *job;
        while ((job = g_queue_pop_head(&lane->jobs)))
            g_queue_push_tail(ret_jobs, job);
    }
}

gboolean lanes_stop(Lanes *lanes, gint64 milliseconds)
{
    gint64 deadline = timed_deadline(milliseconds);
    GQueue jobs = G_QUEUE_INIT;
    gboolean all;
    Job *job;

    pthread_mutex_lock(&lanes->lock);
    lanes->stopping = TRUE;
    take_jobs(lanes, &jobs);
    pthread_cond_broadcast(&lanes->work);
    pthread_mutex_unlock(&lanes->lock);
    while ((job = g_queue_pop_head(&jobs))) {
        job->drop(job->data);
        g_free(job);
    }
    pthread_mutex_lock(&lanes->lock);
    while (lanes->ended < lanes->n_threads && timed_wait(&lanes->over, &lanes->lock, deadline))
        ;
    all = lanes->ended == lanes->n_threads;
    pthread_mutex_unlock(&lanes->lock);
    for (unsigned i = 0; i < lanes->n_threads; i++)
        if (all)
            pthread_join(lanes->threads[i], NULL);
        else
            pthread_detach(lanes->threads[i]);
    return all;
}

void lanes_free(Lanes *lanes)
{
    /* Lanes that nobody came for any more are still there, without jobs. */
    for (guint i = 0; i < lanes->lanes->len; i++)
        g_free(lanes->lanes->pdata[i]);
    g_ptr_array_free(lanes->lanes, TRUE);
    g_queue_clear(&lanes->ready);
    g_free(lanes->threads);
    pthread_cond_destroy(&lanes->work);
    pthread_cond_destroy(&lanes->over);
    pthread_mutex_destroy(&lanes->lock);
    g_free(lanes);
}
