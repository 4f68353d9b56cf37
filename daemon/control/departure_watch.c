/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/control/departure_watch.h"

#include <errno.h>
#include <string.h>

#include "daemon/control/departure_lent.h"
#include "daemon/control/departure_steps.h"
#include "daemon/core/process.h"
#include "daemon/qemu/answers.h"

#define LOOK_EVERY_US (3 * (gint64)G_USEC_PER_SEC)

typedef struct LookJob {
    Control *control;
    guint64 departure;
    guint8 uuid[LIMIT_UUID];
    int pid;
    gboolean sealed;
    Outgoing outgoing; /* unless sealed */
    gboolean over, runs;
    char text[LIMIT_TEXT + 1];
} LookJob;

/* What nobody can tell now is asked again. */
static gboolean is_over(LookJob *job)
{
    g_autoptr(Guest) guest = NULL;
    GuestProcess process = {.pidfd = -1};
    g_autofree char *migration = NULL;
    int error = guests_open(job->control->guests, job->uuid, &guest, job->text);
    int pid;

    if (!error)
        error = guest_process(guest, &process, job->text);
    pid = process.pid;
    guest_process_clear(&process);
    if (error || pid != job->pid)
        return FALSE;
    job->runs = guest_says_running(guest);
    migration = monitor_query_status(&guest->monitor, "query-migrate", NULL);
    if (migration && (job->sealed ? answers_failed(migration) : !answers_migrating(migration))) {
        g_snprintf(job->text, sizeof job->text, "its migration has ended: '%.50s'", migration);
        return TRUE;
    }
    return !job->sealed && outgoing_check(job->pid, &job->outgoing, job->text) == -ENOTCONN;
}

/*
 * A migration that has failed does not mean that the guest runs nowhere, as long as its destination is there:
 * so that counts only when it is gone, and still is the next time.
 */
static void consider_fence(Departure *departure, const LookJob *job)
{
    gint64 now = g_get_monotonic_time();

    if (job->runs) {
        departure_fence(departure, "the source's guest runs after the seal");
        return;
    }
    if (!job->over || departure_lent_is_held(departure))
        departure->over_us = 0;
    else if (departure->over_us == 0)
        departure->over_us = now;
    else
        departure_fence(departure, job->text);
}

static void on_looked(Control *control, gpointer data)
{
    g_autofree LookJob *job = data;
    Departure *departure = departure_by_id(control, job->departure);

    if (!departure)
        return;
    departure->looking = FALSE;
    if (departure->stage == DEPARTURE_SEALED && job->sealed)
        consider_fence(departure, job);
    else if (job->over && departure->stage == DEPARTURE_OFFERED)
        departure_cancel(departure, job->text);
}

static void *look_thread(void *argument)
{
    LookJob *job = argument;

    job->over = is_over(job);
    control_post(job->control, on_looked, job);
    return NULL;
}

static void start_looking(Departure *departure)
{
    LookJob *job = g_new0(LookJob, 1);

    job->control = departure->control;
    job->departure = departure->id;
    memcpy(job->uuid, departure->export->uuid, LIMIT_UUID);
    job->pid = departure->pid;
    job->outgoing = departure->outgoing;
    job->sealed = departure->stage == DEPARTURE_SEALED;
    departure->looking = departure_start_thread(look_thread, job);
    if (!departure->looking)
        g_free(job);
}

static gboolean is_watched(const Departure *departure)
{
    gboolean offered = departure->stage == DEPARTURE_OFFERED && departure->mode == DEPARTURE_ASSIST;

    return departure->lent && !departure_is_over(departure) &&
           (offered || departure->stage == DEPARTURE_SEALED) &&
           !process_has_ended(departure->pidfd);
}

void departure_watch_tick(Control *control)
{
    gint64 now = g_get_monotonic_time();

    for (guint i = 0; i < control->departures->len; i++) {
        Departure *departure = control->departures->pdata[i];

        if (!is_watched(departure) || departure->looking ||
            now - departure->looked_us < LOOK_EVERY_US)
            continue;
        departure->looked_us = now;
        start_looking(departure);
    }
}
