/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/control/departure_store.h"

#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "daemon/control/departure_libvirt.h"
#include "daemon/control/departure_steps.h"
#include "daemon/control/departure_stored.h"
#include "daemon/control/fd_store.h"
#include "daemon/core/log.h"
#include "daemon/core/process.h"

#define PREFIX "export-"

/* So long the guest stands still for a service manager that does not answer. */
#define WAIT_US (2 * (gint64)G_USEC_PER_SEC)

enum {
    ASK_FOR_TIME_TICKS = 100,
    NUMBER_MAX = 1023, /* more than any daemon gives a file: to be taken out all the same */
};

/* --- storing ------------------------------------------------------------------------------- */

typedef struct StoredJob {
    Control *control;
    guint64 departure;
    gboolean taken;
} StoredJob;

static void stop_waiting(Departure *departure)
{
    gboolean waits = departure->store_wait_us != 0 && departure->stage == DEPARTURE_SEALING;

    departure->store_wait_us = 0;
    if (waits)
        departure_seal_order(departure);
}

static void on_stored(Control *control, gpointer data)
{
    g_autofree StoredJob *job = data;
    Departure *departure = departure_by_id(control, job->departure);

    if (!departure)
        return;
    departure->stored = job->taken && departure->stored_as;
    stop_waiting(departure);
}

static void on_told(gpointer user, gboolean taken)
{
    StoredJob *job = user;

    job->taken = taken;
    control_post(job->control, on_stored, job);
}

/* Each seal has a name of its own: one VM may leave again before its last departure is forgotten. */
static char *name_of(const Departure *departure)
{
    g_autofree char *uuid = uuid_to_text(departure->export->uuid);

    return g_strdup_printf(PREFIX "%s-%016" G_GINT64_MODIFIER "x", uuid, departure->seal);
}

gboolean departure_store(Departure *departure)
{
    Control *control = departure->control;
    g_autofree char *name = NULL;
    StoredFiles files;
    StoredJob *job;
    gboolean begun;

    if (!control->store || !departure_to_files(departure, &files))
        return FALSE;
    name = name_of(departure);
    job = g_new0(StoredJob, 1);
    job->control = control;
    job->departure = departure->id;
    begun = fd_store_add(control->store, name, files.fds, files.n, on_told, job);
    close(files.fds[0]);
    if (!begun) {
        g_free(job);
        return FALSE;
    }
    departure->stored_as = g_steal_pointer(&name);
    departure->n_stored = files.n;
    departure->store_wait_us = g_get_monotonic_time() + WAIT_US;
    return TRUE;
}

void departure_store_drop(Departure *departure)
{
    if (departure->stored_as)
        fd_store_remove(departure->control->store, departure->stored_as, departure->n_stored);
    g_clear_pointer(&departure->stored_as, g_free);
    departure->stored = FALSE;
}

/* --- restoring ----------------------------------------------------------------------------- */

/* What was stored under one stem. */
typedef struct Found {
    char *stem;
    guint n;     /* fds of that stem */
    guint above; /* the highest number, and one more */
    gboolean sound;
    StoredFiles files;
} Found;

static void found_free(gpointer data)
{
    Found *found = data;

    for (guint i = 0; i <= LIMIT_REGIONS; i++)
        if (found->files.fds[i] >= 0)
            close(found->files.fds[i]);
    g_free(found->stem);
    g_free(found);
}

static Found *found_of(GPtrArray *all, const char *stem, gsize length)
{
    Found *found;

    for (guint i = 0; i < all->len; i++) {
        found = all->pdata[i];
        if (strlen(found->stem) == length && strncmp(found->stem, stem, length) == 0)
            return found;
    }
    found = g_new0(Found, 1);
    found->stem = g_strndup(stem, length);
    found->sound = TRUE;
    for (guint i = 0; i <= LIMIT_REGIONS; i++)
        found->files.fds[i] = -1;
    g_ptr_array_add(all, found);
    return found;
}

/* Takes the fd. */
static void sort_in(GPtrArray *all, const char *name, int fd)
{
    const char *dash = strrchr(name, '-');
    Found *found = found_of(all, name, (gsize)(dash - name));
    guint64 number = g_ascii_strtoull(dash + 1, NULL, 10);

    found->n++;
    found->above = MAX(found->above, (guint)MIN(number, NUMBER_MAX) + 1);
    if (number > LIMIT_REGIONS || found->files.fds[number] >= 0) {
        found->sound = FALSE;
        close(fd);
        return;
    }
    found->files.fds[number] = fd;
}

static void restore(Control *control, Found *found)
{
    char text[LIMIT_TEXT + 1] = "some of its files are missing, or are there twice";
    Departure *departure = NULL;

    found->files.n = found->above;
    if (found->sound && found->n == found->above)
        departure = departure_from_files(control, &found->files, text);
    if (!departure) {
        log_error(
            "%s, which an earlier daemon left, cannot be exported again: %s; its VM, if it has not "
            "all its memory yet, is lost",
            found->stem, text);
        if (control->store)
            fd_store_remove(control->store, found->stem, found->above);
        return;
    }
    if (control->store) {
        departure->stored_as = g_strdup(found->stem);
        departure->n_stored = found->n;
        departure->stored = TRUE;
    }
    log_info("%s: exported again, as under an earlier daemon", departure->export->name);
    departure_check_stopped(departure);
}

void departure_store_restore(Control *control)
{
    g_autoptr(GPtrArray) all = g_ptr_array_new_with_free_func(found_free);
    g_auto(GStrv) names = NULL;
    int n = sd_listen_fds_with_names(0, &names);

    for (int i = 0; i < n; i++)
        if (g_str_has_prefix(names[i], PREFIX))
            sort_in(all, names[i], SD_LISTEN_FDS_START + i);
    for (guint i = 0; i < all->len; i++) {
        Found *found = all->pdata[i];

        if (control->store)
            fd_store_count(control->store, found->n);
        restore(control, found);
    }
}

/* --- the daemon's end ---------------------------------------------------------------------- */

static gboolean is_shared(const RegionSet *regions)
{
    for (guint32 i = 0; i < regions->n; i++)
        if (regions->regions[i].kind != CLIENT_REGION_SHARED)
            return FALSE;
    return TRUE;
}

/*
 * In assist mode QEMU brings everything; a client that lives keeps its memory and presents the seal; and what
 * was not shared has gone with its process, so that there is nothing to wait for.
 */
static gboolean is_lost_by_stop(const Departure *departure)
{
    if (departure_libvirt_is_between(departure))
        return TRUE;
    return (departure->stage == DEPARTURE_SEALED || departure->store_wait_us != 0) &&
           !departure_is_over(departure) && departure->mode == DEPARTURE_DIRECT &&
           (departure->lent || process_has_ended(departure->pidfd)) &&
           is_shared(&departure->export->memory.regions) &&
           !(departure->stored && fd_store_outlives_stop(departure->control->store));
}

static char *missing_of(Export *export)
{
    guint64 missing = 0;
    gboolean known;

    pthread_mutex_lock(&export->lock);
    known = export->progress.known;
    if (export->progress.populated_bytes > export->progress.present_bytes)
        missing = export->progress.populated_bytes - export->progress.present_bytes;
    pthread_mutex_unlock(&export->lock);
    return known ? g_strdup_printf("%" G_GINT64_MODIFIER "u KiB", missing >> 10)
                 : g_strdup("an unknown part");
}

static void tell(const Departure *departure)
{
    g_autofree char *missing = missing_of(departure->export);

    log_error(
        "%s: not stopping: %s of its memory, missing at %s, would be lost with this daemon, which "
        "ends when all has arrived; or at a second signal%s",
        departure->export->name, missing, departure->destination,
        departure->stored
            ? ", after which the VM goes on only if systemd was restarting the service"
            : ", and then the VM is lost");
}

gboolean departure_store_may_stop(Control *control)
{
    gboolean may = TRUE;

    for (guint i = 0; i < control->departures->len; i++) {
        const Departure *departure = control->departures->pdata[i];

        if (!is_lost_by_stop(departure))
            continue;
        if (!control->stopping)
            tell(departure);
        may = FALSE;
    }
    return may;
}

static void look_at_stop(Control *control)
{
    if (departure_store_may_stop(control))
        event_base_loopbreak(control->base);
    else if (control->store && control->ticks % ASK_FOR_TIME_TICKS == 0)
        fd_store_ask_for_time(control->store);
}

void departure_store_tick(Control *control)
{
    gint64 now = g_get_monotonic_time();

    for (guint i = 0; i < control->departures->len; i++) {
        Departure *departure = control->departures->pdata[i];

        if (departure->store_wait_us == 0 || now < departure->store_wait_us)
            continue;
        log_warning(
            "%s: the service manager does not say that it took the export, which may not outlive "
            "this daemon",
            departure->export->name);
        stop_waiting(departure);
    }
    if (control->stopping)
        look_at_stop(control);
}
