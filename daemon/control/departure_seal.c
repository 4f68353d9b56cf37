/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "daemon/control/departure_keep.h"
#include "daemon/control/departure_steps.h"
#include "daemon/control/departure_store.h"
#include "daemon/control/monitor.h"
#include "daemon/core/log.h"
#include "daemon/core/process.h"
#include "daemon/source/watch.h"

typedef struct SealJob {
    Control *control;
    guint64 departure;
    int monitor_fd;
    int pid;
    int error;
    MonitorVcpus vcpus; /* then by the ids we know them by */
    guint64 cpu_ns;
    char text[LIMIT_TEXT + 1];
} SealJob;

/* The guest is proven stopped: from here on its memory is final. */
static void seal(Departure *departure)
{
    departure->stage = DEPARTURE_SEALING;
    departure->seal = export_draw_seal();
    departure->cpu_at_seal_ns = watch_cpu_ns(departure->pid, departure->vcpus, departure->n_vcpus);
    if (!departure_store(departure))
        departure_seal_order(departure);
}

void departure_seal_order(Departure *departure)
{
    g_autofree PeerMessage *message = g_new0(PeerMessage, 1);
    int error;

    /* Whoever keeps it comes first: a daemon that dies right after the order must find the seal again. */
    export_seal_as(departure->export, departure->seal);
    departure->stage = DEPARTURE_SEALED;
    departure_keep(departure);
    message->type = PEER_SEALED;
    message->sealed.seal = departure->seal;
    error = export_order(departure->export, message);
    /* libvirt may let the guest run there all the same: a daemon that comes back finds the seal. */
    if (error && !(departure->lent && departure->mode == DEPARTURE_DIRECT)) {
        /* Nobody has read anything, and nobody will: as if it had never been sealed. */
        export_fence(departure->export, "the destination's daemon was gone at the seal");
        departure_order(departure, PEER_CANCEL);
        departure_end(departure, DEPARTURE_ENDED, error, "the destination's daemon is gone");
        return;
    }
    log_info("%s: sealed, read by %s from now on", departure->export->name, departure->destination);
    departure_send_state(departure, "");
    departure_answer(departure, 0, departure->seal, "");
}

/* The monitor knows its vCPUs by what they are; a client may only guess them by their names. */
static void watch_vcpus(Departure *departure, const guint32 *vcpus, guint32 n)
{
    if (n > 0) {
        g_free(departure->vcpus);
        departure->vcpus = g_memdup2(vcpus, n * sizeof vcpus[0]);
        departure->n_vcpus = n;
    }
    departure->n_vcpus = MIN(departure->n_vcpus, DEPARTURE_WATCHED_MAX);
    if (departure->n_vcpus == 0)
        log_warning("%s: neither its monitor nor its client names its vCPU threads: should it run "
                    "again, nobody notices",
                    departure->export->name);
}

guint64 departure_seal_cpu_ns(int pid, const guint32 *vcpus, guint32 n)
{
    return watch_cpu_ns(pid, vcpus, MIN(n, DEPARTURE_WATCHED_MAX));
}

void departure_seal_proven(Departure *departure, const guint32 *vcpus, guint32 n, guint64 cpu_ns)
{
    departure->watched = TRUE;
    watch_vcpus(departure, vcpus, n);
    departure->cpu_at_seal_ns =
        n > 0 ? cpu_ns
              : departure_seal_cpu_ns(departure->pid, departure->vcpus, departure->n_vcpus);
    seal(departure);
}

static void on_checked(Control *control, gpointer data)
{
    g_autofree SealJob *job = data;
    Departure *departure = departure_by_id(control, job->departure);

    if (!departure || departure->stage != DEPARTURE_SEALING)
        return;
    if (job->error) {
        departure->stage = DEPARTURE_OFFERED;
        departure_answer(departure, job->error, 0, job->text);
        return;
    }
    departure_seal_proven(departure, job->vcpus.tids, job->vcpus.n, job->cpu_ns);
}

static void *check_thread(void *argument)
{
    SealJob *job = argument;
    g_autofree MonitorVcpus *vcpus = g_new0(MonitorVcpus, 1);

    job->error = monitor_check_stopped(job->monitor_fd, job->pid, vcpus, job->text);
    job->vcpus.n = process_find_threads(job->pid, vcpus->tids, vcpus->n, job->vcpus.tids);
    job->cpu_ns = departure_seal_cpu_ns(job->pid, job->vcpus.tids, job->vcpus.n);
    if (!job->error)
        job->error = monitor_check_stopped(job->monitor_fd, job->pid, vcpus, job->text);
    close(job->monitor_fd);
    control_post(job->control, on_checked, job);
    return NULL;
}

void departure_seal(Departure *departure, int monitor_fd, Asker asker)
{
    SealJob *job;

    if (departure->stage != DEPARTURE_OFFERED) {
        if (monitor_fd >= 0)
            close(monitor_fd);
        asker_answer(departure->control, &asker, -EINVAL, 0,
                     "the destination is not armed, or the export is sealed already");
        return;
    }
    departure->asker = asker;
    departure->waiting = TRUE;
    departure->stage = DEPARTURE_SEALING;
    departure->watched = monitor_fd >= 0;
    if (monitor_fd < 0) {
        seal(departure);
        return;
    }
    job = g_new0(SealJob, 1);
    job->control = departure->control;
    job->departure = departure->id;
    job->monitor_fd = monitor_fd;
    job->pid = departure->pid;
    if (departure_start_thread(check_thread, job))
        return;
    job->error = -EAGAIN;
    g_strlcpy(job->text, "cannot start a thread", sizeof job->text);
    close(monitor_fd);
    on_checked(departure->control, job);
}
