/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/control/departure_lent.h"

#include <errno.h>
#include <string.h>

#include "daemon/control/arrival.h"
#include "daemon/control/departure_libvirt.h"
#include "daemon/control/departure_steps.h"
#include "daemon/core/log.h"
#include "daemon/core/process.h"
#include "daemon/transport/address.h"

/* So long a destination that asked may take to attach. */
#define ATTACH_US (10 * (gint64)G_USEC_PER_SEC)
/* So long the memory of a process that has ended is still claimed: when QEMU ends its migration, the source
 * goes at once and the destination's last word may follow it. */
#define DEAD_US (2 * (gint64)G_USEC_PER_SEC)
/* So long memory that outlives its process is kept for a destination that does not read it. */
#define UNREAD_US (60 * (gint64)G_USEC_PER_SEC)

static Departure *find(Control *control, const guint8 *uuid)
{
    for (guint i = control->departures->len; i-- > 0;) {
        Departure *departure = control->departures->pdata[i];
        if (departure->lent && departure->export &&
            memcmp(departure->export->uuid, uuid, LIMIT_UUID) == 0)
            return departure;
    }
    return NULL;
}

gboolean departure_lent_busy(Control *control, const guint8 *uuid)
{
    const Departure *departure = find(control, uuid);

    return departure && !departure_is_over(departure);
}

gboolean departure_lent_is_held(Departure *departure)
{
    gboolean held;

    pthread_mutex_lock(&departure->export->lock);
    held = departure->export->control != NULL;
    pthread_mutex_unlock(&departure->export->lock);
    return held;
}

/* Why this VM cannot leave now, or NULL. */
static const char *check_client(Control *control, const guint8 *uuid)
{
    const Connection *connection = connection_by_vm(control, uuid, "");

    if (connection && connection->arrival && arrival_is_open(connection->arrival))
        return "the VM's own memory is still arriving";
    if (connection && connection->departure && !departure_is_over(connection->departure))
        return "the VM is leaving already";
    return NULL;
}

/* One in assist mode that nobody reads gives way to a new one. */
static const char *make_room(Control *control, const guint8 *uuid, DepartureMode mode)
{
    const char *reason = check_client(control, uuid);
    Departure *departure;

    while (!reason && (departure = find(control, uuid))) {
        if (!departure_is_over(departure) &&
            (mode == DEPARTURE_DIRECT || departure->mode == DEPARTURE_DIRECT))
            return "the VM is leaving already";
        if (!departure_is_over(departure) && departure->stage == DEPARTURE_SEALED &&
            departure_lent_is_held(departure))
            return "another destination reads the VM's memory already";
        departure_cancel(departure, "another one takes its place");
        departure_free(departure);
    }
    return reason;
}

/* Takes the process.  NULL with *ret_error and a reason. */
static Departure *make(Control *control, const guint8 *uuid, const char *name,
                       GuestProcess *process, const RegionSet *regions, DepartureMode mode,
                       int *ret_error, char *ret_text)
{
    Departure *departure = g_new0(Departure, 1);

    departure->control = control;
    departure->id = control->next_id++;
    departure->lent = TRUE;
    departure->withdraw_fd = -1;
    departure->mode = mode;
    departure->pid = process->pid;
    departure->pidfd = process->pidfd;
    departure->n_vcpus = process->n_vcpus;
    departure->vcpus = g_steal_pointer(&process->vcpus);
    process->pidfd = -1;
    departure->stage = DEPARTURE_INVITING;
    g_ptr_array_add(control->departures, departure);
    departure->export =
        export_new(uuid, name, departure->pid, regions, departure_notify, control, ret_error);
    if (departure->export && !process_has_ended(departure->pidfd))
        return departure;
    if (departure->export)
        *ret_error = -ESRCH;
    g_snprintf(ret_text, LIMIT_TEXT + 1, "cannot read the VM's memory: %s", strerror(-*ret_error));
    departure_free(departure);
    return NULL;
}

/* --- asked for ----------------------------------------------------------------------------- */

static Departure *lend(Control *control, Lending *lending, PeerErrorCode *ret_code, char *ret_text)
{
    const char *reason = make_room(control, lending->uuid, DEPARTURE_ASSIST);
    Departure *departure;
    int error;

    *ret_code = reason ? PEER_ERROR_BUSY : PEER_ERROR_REFUSED;
    if (reason) {
        g_strlcpy(ret_text, reason, LIMIT_TEXT + 1);
        return NULL;
    }
    departure = make(control, lending->uuid, lending->name, &lending->process, lending->regions,
                     DEPARTURE_ASSIST, &error, ret_text);
    if (!departure)
        return NULL;
    *ret_code = PEER_ERROR_NONE;
    departure->export->asked_for = true;
    departure->outgoing = *lending->outgoing;
    departure->stage = DEPARTURE_OFFERED;
    departure->until_us = g_get_monotonic_time() + ATTACH_US;
    g_strlcpy(departure->destination, lending->peer_host, sizeof departure->destination);
    log_info("%s: asked for by the daemon at %s, to which its QEMU migrates it",
             departure->export->name, departure->destination);
    return departure;
}

void departure_lend(Control *control, gpointer data)
{
    Lending *lending = data;
    char text[LIMIT_TEXT + 1] = "";
    PeerErrorCode code;
    const Departure *departure = lend(control, lending, &code, text);

    pthread_mutex_lock(&lending->lock);
    if (departure)
        memcpy(lending->token, departure->export->token, sizeof lending->token);
    lending->code = code;
    g_strlcpy(lending->text, text, sizeof lending->text);
    lending->answered = TRUE;
    pthread_cond_signal(&lending->changed);
    pthread_mutex_unlock(&lending->lock);
}

/* --- prepared ------------------------------------------------------------------------------ */

typedef struct PrepareJob {
    Control *control;
    guint8 uuid[LIMIT_UUID];
    int pid;
    char destination[LIMIT_ADDRESS + 1];
    DriverRegions driver;
    Asker asker;
    guint64 owner;
    char name[LIMIT_NAME + 1];
    GuestProcess process;
    RegionSet regions;
    int error;
    char text[LIMIT_TEXT + 1];
} PrepareJob;

static void prepare_job_free(PrepareJob *job)
{
    guest_process_clear(&job->process);
    region_set_deinit(&job->regions);
    g_free(job);
}

static void on_prepared(Control *control, gpointer data)
{
    PrepareJob *job = data;
    const char *reason = NULL;
    Departure *departure = NULL;

    if (!job->error)
        reason = make_room(control, job->uuid, DEPARTURE_DIRECT);
    if (reason) {
        job->error = -EBUSY;
        g_strlcpy(job->text, reason, sizeof job->text);
    }
    /* Whoever drives is gone: nobody would undo it. */
    if (!job->error && connection_by_id(control, job->owner))
        departure = make(control, job->uuid, job->name, &job->process, &job->regions,
                         DEPARTURE_DIRECT, &job->error, job->text);
    if (departure) {
        departure->asker = job->asker;
        departure->waiting = TRUE;
        departure->owner = job->owner;
        departure->driver = job->driver;
        g_strlcpy(departure->destination, job->destination, sizeof departure->destination);
        departure_invite(departure);
    } else {
        asker_answer(control, &job->asker, job->error ? job->error : -ECANCELED, 0, job->text);
    }
    prepare_job_free(job);
}

/* Only what a file holds can be left out of QEMU's own stream, and read once its process has ended. */
static int keep_shared(PrepareJob *job)
{
    RegionSet *all = &job->regions;
    guint32 n = 0;

    for (guint32 i = 0; i < all->n; i++) {
        if (all->regions[i].kind == CLIENT_REGION_SHARED)
            all->regions[n++] = all->regions[i];
    }
    all->n = n;
    g_strlcpy(job->text,
              "none of its RAM is shared memory: give the domain <memoryBacking> with "
              "<source type='memfd'/> and <access mode='shared'/>",
              sizeof job->text);
    return n > 0 ? 0 : -EINVAL;
}

static int take_named(PrepareJob *job, const PeerRegion *name, RegionSet *wanted)
{
    for (guint32 i = 0; i < job->regions.n; i++) {
        Region *region = &job->regions.regions[i];

        if (strcmp(region->id, name->id) != 0 || region->guest_address != name->guest_address ||
            region->length != name->length)
            continue;
        if (region->kind != CLIENT_REGION_SHARED) {
            g_snprintf(job->text, sizeof job->text,
                       "RAM '%.100s' is not shared memory, so it cannot come through us: give the "
                       "domain <memoryBacking> with <access mode='shared'/>",
                       name->id);
            return -EINVAL;
        }
        wanted->regions[wanted->n++] = *region;
        region->id[0] = '\0'; /* taken: nobody is named twice */
        region->fd = -1;
        return 0;
    }
    g_snprintf(job->text, sizeof job->text,
               "its QEMU has no RAM '%.100s' of 0x%" G_GINT64_MODIFIER
               "x bytes at guest address 0x%" G_GINT64_MODIFIER "x",
               name->id, name->length, name->guest_address);
    return -EINVAL;
}

static int restrict_regions(PrepareJob *job)
{
    const PeerRegions *names = &job->driver.names;
    g_autofree RegionSet *wanted = g_new0(RegionSet, 1);
    int error = 0;

    if (names->n == 0)
        return keep_shared(job);
    for (guint32 i = 0; i < names->n && !error; i++)
        error = take_named(job, &names->regions[i], wanted);
    region_set_deinit(&job->regions);
    job->regions = *wanted;
    return error;
}

static int look_at_guest(PrepareJob *job)
{
    g_autoptr(Guest) guest = NULL;
    int error = guests_open(job->control->guests, job->uuid, &guest, job->text);

    if (!error)
        error = guest_process(guest, &job->process, job->text);
    if (error)
        return error;
    if (job->process.pid != job->pid) {
        g_snprintf(job->text, sizeof job->text,
                   "the VM with that uuid is process %d, the request is about process %d",
                   job->process.pid, job->pid);
        return -EINVAL;
    }
    g_strlcpy(job->name, guest->name, sizeof job->name);
    error = guest_regions(guest, job->pid, &job->regions, job->text);
    return error ? error : restrict_regions(job);
}

static void *prepare_thread(void *argument)
{
    PrepareJob *job = argument;

    job->error = look_at_guest(job);
    control_post(job->control, on_prepared, job);
    return NULL;
}

void departure_lent_prepare(Control *control, const guint8 *uuid, int pid, const char *destination,
                            const DriverRegions *driver, Asker asker, guint64 owner)
{
    PrepareJob *job;
    Address address;

    if (address_parse(destination, &address) || address.host[0] == '\0') {
        asker_answer(control, &asker, -EINVAL, 0,
                     "the destination must be HOST:PORT, with a port up to 65535 and an IPv6 "
                     "address in brackets");
        return;
    }
    job = g_new0(PrepareJob, 1);
    job->control = control;
    memcpy(job->uuid, uuid, LIMIT_UUID);
    job->pid = pid;
    job->process.pidfd = -1;
    job->driver = *driver;
    job->asker = asker;
    job->owner = owner;
    g_strlcpy(job->destination, destination, sizeof job->destination);
    if (departure_start_thread(prepare_thread, job))
        return;
    asker_answer(control, &asker, -EAGAIN, 0, "cannot start a thread");
    prepare_job_free(job);
}

/* --- ending by itself ---------------------------------------------------------------------- */

static gboolean outlives_process(const Departure *departure)
{
    const RegionSet *regions = &departure->export->memory.regions;

    for (guint32 i = 0; i < regions->n; i++)
        if (regions->regions[i].kind != CLIENT_REGION_SHARED)
            return FALSE;
    return TRUE;
}

/* Nobody may read it any more, and its destination hears why. */
static void give_up(Departure *departure, const char *reason)
{
    export_fence(departure->export, reason);
    departure_end(departure, DEPARTURE_ENDED, -ECANCELED, reason);
}

/* The same, where that is how a migration comes to its end. */
static void retire(Departure *departure, const char *reason)
{
    export_retire(departure->export, reason);
    departure_end(departure, DEPARTURE_ENDED, -ECANCELED, reason);
}

/* Its process has ended after the seal.  In direct mode that is how a migration ends, and shared memory is
 * kept until it has arrived; in assist mode whoever does not read it by now has no use for it. */
static void outlived(Departure *departure)
{
    gint64 now = g_get_monotonic_time();
    gboolean outlives = outlives_process(departure);
    guint64 reads = atomic_load(&departure->export->reads);

    if (outlives && departure->mode == DEPARTURE_DIRECT)
        return;
    /* A destination that is attached, and reads nothing, could keep it for ever. */
    if (departure->unread_us == 0 || (outlives && reads != departure->reads))
        departure->unread_us = now;
    departure->reads = reads;
    if (now - departure->unread_us <= (outlives ? UNREAD_US : DEAD_US))
        return;
    if (departure->mode == DEPARTURE_ASSIST)
        retire(departure,
               "its process has ended, and its memory with it: QEMU's stream goes on alone");
    else
        give_up(departure, outlives ? "its process has ended, and nobody reads its memory"
                                    : "its process has ended, and its memory with it");
}

static void tick(Departure *departure)
{
    if (process_has_ended(departure->pidfd)) {
        if (departure->stage == DEPARTURE_SEALED)
            outlived(departure);
        else if (!departure_libvirt_outlived(departure))
            departure_cancel(departure, "its process has ended");
    } else if (departure->mode == DEPARTURE_ASSIST && departure->stage == DEPARTURE_OFFERED &&
               !departure->leased && g_get_monotonic_time() > departure->until_us) {
        departure_cancel(departure, "the daemon that asked for it did not attach in time");
    }
}

void departure_lent_tick(Control *control)
{
    for (guint i = 0; i < control->departures->len; i++) {
        Departure *departure = control->departures->pdata[i];

        if (departure->lent && !departure_is_over(departure))
            tick(departure);
    }
}
