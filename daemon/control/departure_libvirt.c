/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/control/departure_libvirt.h"

#include <errno.h>
#include <string.h>

#include "daemon/control/departure_lent.h"
#include "daemon/control/departure_steps.h"
#include "daemon/core/log.h"
#include "daemon/core/process.h"
#include "daemon/qemu/agent.h"
#include "daemon/qemu/answers.h"

/* Between the hook's end and QEMU's first byte libvirt shows no migration yet. */
#define OVER_US (3 * (gint64)G_USEC_PER_SEC)
/* While a guest stands still its devices are saved, and some machines' write to memory then. */
#define SETTLED_US (1 * (gint64)G_USEC_PER_SEC)

static gboolean is_libvirts(const Departure *departure)
{
    return departure->lent && departure->mode == DEPARTURE_DIRECT;
}

/* The destination may be armed, whether its word has come here or not. */
static gboolean may_be_armed(const Departure *departure)
{
    return is_libvirts(departure) &&
           (departure->stage == DEPARTURE_OFFERED || departure->stage == DEPARTURE_SEALING ||
            (departure->stage == DEPARTURE_INVITING && departure->leased));
}

gboolean departure_libvirt_is_between(const Departure *departure)
{
    return may_be_armed(departure);
}

/* --- the capability ------------------------------------------------------------------------ */

typedef struct SetJob {
    Control *control;
    guint64 departure;
    guint8 uuid[LIMIT_UUID];
    char *problem;
} SetJob;

static void on_set(Control *control, gpointer data)
{
    SetJob *job = data;
    Departure *departure = departure_by_id(control, job->departure);

    if (!departure || !departure_is_open(departure))
        agent_clear_ignore_shared(control->agent, job->uuid, NULL, NULL);
    else if (job->problem && departure->stage < DEPARTURE_SEALED) {
        departure_order(departure, PEER_CANCEL); /* it may be armed by now */
        departure_end(departure, DEPARTURE_ENDED, -EIO, job->problem);
    } else if (departure->waiting) {
        departure_answer_prepared(departure);
    }
    g_free(job->problem);
    g_free(job);
}

static void on_agent_set(void *user, const guint8 *uuid, const char *problem)
{
    SetJob *job = user;

    (void)uuid;
    if (problem)
        job->problem = g_strdup_printf("x-ignore-shared: %s", problem);
    control_post(job->control, on_set, job);
}

void departure_libvirt_awaited(Departure *departure)
{
    Control *control = departure->control;
    SetJob *job;

    if (departure->awaited || !departure->waiting)
        return;
    departure->awaited = TRUE;
    if (!control->agent) { /* a lent VM: whoever lent it sets it */
        departure_answer_prepared(departure);
        return;
    }
    job = g_new0(SetJob, 1);
    job->control = control;
    job->departure = departure->id;
    memcpy(job->uuid, departure->export->uuid, LIMIT_UUID);
    agent_set_ignore_shared(control->agent, job->uuid, on_agent_set, job);
}

void departure_libvirt_ended(Departure *departure)
{
    Control *control = departure->control;

    if (is_libvirts(departure) && control->agent && departure->export &&
        !process_has_ended(departure->pidfd))
        agent_clear_ignore_shared(control->agent, departure->export->uuid, NULL, NULL);
}

/* --- drifting ------------------------------------------------------------------------------ */

typedef enum Verdict {
    VERDICT_UNKNOWN, /* nobody answers: it is asked again */
    VERDICT_MIGRATES,
    VERDICT_STOPPED,
    VERDICT_OVER, /* nothing migrates it, nor has it gone */
} Verdict;

typedef struct LookJob {
    Control *control;
    guint64 departure;
    guint8 uuid[LIMIT_UUID];
    int pid;
    GuestProcess process;
    guint64 cpu_ns;
    Verdict verdict;
} LookJob;

static Verdict look(LookJob *job)
{
    g_autoptr(Guest) guest = NULL;
    g_autofree char *status = NULL;
    char text[LIMIT_TEXT + 1];
    int error = guests_open(job->control->guests, job->uuid, &guest, text);

    if (!error)
        error = guest_process(guest, &job->process, text);
    if (error || job->process.pid != job->pid)
        return VERDICT_UNKNOWN;
    error = guest_check_stopped(guest, text);
    if (!error) {
        job->cpu_ns = departure_seal_cpu_ns(job->pid, job->process.vcpus, job->process.n_vcpus);
        error = guest_check_stopped(guest, text);
    }
    if (error != -EBUSY)
        return error ? VERDICT_UNKNOWN : VERDICT_STOPPED;
    status = monitor_query_status(&guest->monitor, "query-migrate", NULL);
    if (!status)
        return VERDICT_UNKNOWN;
    if (answers_migrating(status))
        return VERDICT_MIGRATES;
    return answers_failed(status) || guest_says_running(guest) ? VERDICT_OVER : VERDICT_UNKNOWN;
}

/* Its memory is final when it has stood still for a while. */
static void count_stopped(Departure *departure, const LookJob *job)
{
    gint64 now = g_get_monotonic_time();

    if (departure->stopped_us == 0)
        departure->stopped_us = now;
    if (now - departure->stopped_us < SETTLED_US)
        return;
    departure->stage = DEPARTURE_SEALING;
    departure_seal_proven(departure, job->process.vcpus, job->process.n_vcpus, job->cpu_ns);
}

/* What was migrated and runs is over at once; before QEMU's first byte it only looks so. */
static void count_over(Departure *departure)
{
    gint64 now = g_get_monotonic_time();

    if (departure->over_us == 0)
        departure->over_us = now;
    if (now - departure->over_us >= OVER_US)
        departure_undo(departure, "libvirt does not migrate it any more");
}

static void on_looked(Control *control, gpointer data)
{
    LookJob *job = data;
    Departure *departure = departure_by_id(control, job->departure);

    if (departure) {
        departure->looking = FALSE;
        if (job->verdict != VERDICT_OVER)
            departure->over_us = 0;
        if (job->verdict != VERDICT_STOPPED)
            departure->stopped_us = 0;
        if (departure->stage == DEPARTURE_OFFERED && job->verdict == VERDICT_STOPPED)
            count_stopped(departure, job);
        else if (may_be_armed(departure) && job->verdict == VERDICT_OVER)
            count_over(departure);
    }
    guest_process_clear(&job->process);
    g_free(job);
}

static void *look_thread(void *argument)
{
    LookJob *job = argument;

    job->verdict = look(job);
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
    job->process.pidfd = -1;
    departure->looking = departure_start_thread(look_thread, job);
    if (!departure->looking)
        g_free(job);
}

gboolean departure_libvirt_drift(Departure *departure, const char *reason)
{
    if (!may_be_armed(departure))
        return FALSE;
    if (!departure->drifts)
        log_warning("%s: %s, but libvirt may be about to run it at its destination: it is sealed "
                    "when it stands still there, and undone when libvirt has given up",
                    departure->export->name, reason);
    departure->drifts = TRUE;
    departure->owner = 0;
    return TRUE;
}

gboolean departure_libvirt_outlived(Departure *departure)
{
    if (!may_be_armed(departure))
        return FALSE;
    if (departure->stage == DEPARTURE_OFFERED) {
        departure->stage = DEPARTURE_SEALING;
        departure_seal_proven(departure, NULL, 0, 0);
    }
    return TRUE;
}

void departure_libvirt_tick(Control *control)
{
    for (guint i = 0; i < control->departures->len; i++) {
        Departure *departure = control->departures->pdata[i];

        if (departure->drifts && !departure->looking && may_be_armed(departure) &&
            !process_has_ended(departure->pidfd))
            start_looking(departure);
    }
}
