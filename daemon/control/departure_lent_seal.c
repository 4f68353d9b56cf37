/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "daemon/control/departure_lent.h"
#include "daemon/control/departure_libvirt.h"
#include "daemon/control/departure_steps.h"
#include "daemon/core/log.h"
#include "daemon/core/process.h"

enum {
    LOOK_EVERY_US = 20 * 1000,
    LOOK_FOR_US = 2 * G_USEC_PER_SEC, /* then its destination has to say again that it waits */
};

typedef struct StopJob {
    Control *control;
    guint64 departure;
    guint8 uuid[LIMIT_UUID];
    int pid;
    DepartureMode mode;
    Outgoing outgoing;
    GuestProcess process;
    guint64 cpu_ns;
    int error;
    char text[LIMIT_TEXT + 1];
} StopJob;

static void stop_job_free(StopJob *job)
{
    guest_process_clear(&job->process);
    g_free(job);
}

/* Nobody waits for an answer in assist mode; its destination looks again by itself. */
static void not_stopped(Departure *departure, const StopJob *job)
{
    departure->stage = DEPARTURE_OFFERED;
    if (job->mode == DEPARTURE_ASSIST && job->error != -EBUSY)
        log_warning("%s: cannot tell whether its guest has stopped: %s", departure->export->name,
                    job->text);
    departure_answer(departure, job->error, 0, job->text);
    atomic_store(&departure->export->seal_wanted, false);
}

static void on_looked(Control *control, gpointer data)
{
    StopJob *job = data;
    Departure *departure = departure_by_id(control, job->departure);

    if (departure && departure->stage == DEPARTURE_SEALING) {
        if (job->error)
            not_stopped(departure, job);
        else
            departure_seal_proven(departure, job->process.vcpus, job->process.n_vcpus, job->cpu_ns);
    }
    stop_job_free(job);
}

/* The last moment before post-copy takes QEMU a while, and its destination waits from its first on. */
static int wait_for_postcopy(const Guest *guest, char *ret_text)
{
    gint64 end = g_get_monotonic_time() + LOOK_FOR_US;
    int error = guest_check_postcopy(guest, ret_text);

    while (error == -EBUSY && g_get_monotonic_time() < end) {
        g_usleep(LOOK_EVERY_US);
        error = guest_check_postcopy(guest, ret_text);
    }
    return error;
}

static int look(StopJob *job)
{
    g_autoptr(Guest) guest = NULL;
    int error = guests_open(job->control->guests, job->uuid, &guest, job->text);

    if (!error)
        error = guest_process(guest, &job->process, job->text);
    if (error)
        return error;
    if (job->process.pid != job->pid) {
        g_snprintf(job->text, sizeof job->text,
                   "its monitor belongs to process %d, its memory to process %d", job->process.pid,
                   job->pid);
        return -ESRCH;
    }
    error = job->mode == DEPARTURE_DIRECT ? guest_check_stopped(guest, job->text)
                                          : wait_for_postcopy(guest, job->text);
    if (error)
        return error;
    job->cpu_ns = departure_seal_cpu_ns(job->pid, job->process.vcpus, job->process.n_vcpus);
    if (job->mode == DEPARTURE_DIRECT)
        return guest_check_stopped(guest, job->text);
    error = guest_check_postcopy(guest, job->text);
    /* Asked last: as it is there still, all that was said was said of the migration it was asked for. */
    return error ? error : outgoing_check(job->pid, &job->outgoing, job->text);
}

static void *look_thread(void *argument)
{
    StopJob *job = argument;

    job->error = look(job);
    control_post(job->control, on_looked, job);
    return NULL;
}

static void start_looking(Departure *departure)
{
    StopJob *job = g_new0(StopJob, 1);

    departure->stage = DEPARTURE_SEALING;
    job->control = departure->control;
    job->departure = departure->id;
    memcpy(job->uuid, departure->export->uuid, LIMIT_UUID);
    job->pid = departure->pid;
    job->mode = departure->mode;
    job->outgoing = departure->outgoing;
    job->process.pidfd = -1;
    if (departure_start_thread(look_thread, job))
        return;
    job->error = -EAGAIN;
    g_strlcpy(job->text, "cannot start a thread", sizeof job->text);
    on_looked(departure->control, job);
}

void departure_lent_listens(Departure *departure)
{
    if (departure->lent && departure->mode == DEPARTURE_ASSIST &&
        departure->stage == DEPARTURE_OFFERED)
        start_looking(departure);
}

void departure_lent_seal(Departure *departure, Asker asker)
{
    if (departure->stage == DEPARTURE_SEALED && departure->mode == DEPARTURE_DIRECT) {
        /* As its process had ended, or nobody seemed to drive it. */
        asker_answer(departure->control, &asker, 0, atomic_load(&departure->export->seal), "");
        return;
    }
    if (departure->mode != DEPARTURE_DIRECT || departure->stage != DEPARTURE_OFFERED ||
        departure->waiting) {
        asker_answer(departure->control, &asker, -EINVAL, 0,
                     "the destination is not armed, or the export is sealed already");
        return;
    }
    departure->asker = asker;
    departure->waiting = TRUE;
    if (!process_has_ended(departure->pidfd) || !departure_libvirt_outlived(departure))
        start_looking(departure);
}
