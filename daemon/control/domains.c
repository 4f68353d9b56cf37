/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/control/domains.h"

#include <string.h>

#include "daemon/control/arrival.h"
#include "daemon/control/connection.h"
#include "daemon/control/departure.h"
#include "daemon/qemu/agent.h"

/* A domain that somebody may have to look after. */
typedef struct Found {
    guint8 uuid[LIMIT_UUID];
    char *name;
} Found;

gboolean domains_is_moving(const Control *control, const guint8 *uuid)
{
    for (guint i = 0; i < control->arrivals->len; i++) {
        const Arrival *arrival = control->arrivals->pdata[i];
        if (arrival->import && arrival_is_open(arrival) &&
            memcmp(arrival->import->uuid, uuid, LIMIT_UUID) == 0)
            return TRUE;
    }
    for (guint i = 0; i < control->departures->len; i++) {
        const Departure *departure = control->departures->pdata[i];
        if (departure->export && !departure_is_over(departure) &&
            memcmp(departure->export->uuid, uuid, LIMIT_UUID) == 0)
            return TRUE;
    }
    return FALSE;
}

/* Whoever switched it on is gone: an earlier daemon, or a driver of a migration that failed. */
static void clear_leftover(Control *control, gpointer data)
{
    Found *found = data;

    if (!domains_is_moving(control, found->uuid)) {
        log_warning(
            "domain %s: x-ignore-shared is on and no migration is under way: saved like this "
            "it would lose its memory, so it is switched off",
            found->name);
        agent_clear_ignore_shared(control->agent, found->uuid, NULL, NULL);
    }
    g_free(found->name);
    g_free(found);
}

static void on_ignore_shared(void *user, const guint8 *uuid, const char *name)
{
    Found *found = g_new0(Found, 1);

    memcpy(found->uuid, uuid, LIMIT_UUID);
    found->name = g_strdup(name);
    control_post(user, clear_leftover, found);
}

static gboolean is_attended(void *user, const guint8 *uuid)
{
    (void)user;
    return export_is_attended(uuid);
}

void domains_start(Control *control)
{
    const Settings *settings = control->settings;

    if (!settings->libvirt_uri)
        return;
    control->agent = agent_start(&(AgentConfig){
        .uri = settings->libvirt_uri,
        .start_postcopy = settings->start_postcopy,
        .all = settings->libvirt_enable == LIBVIRT_ENABLE_ALL,
        .found_ignore_shared = on_ignore_shared,
        .is_attended = is_attended,
        .user = control,
    });
    if (control->agent) {
        GuestProvider provider = agent_provider(control->agent);

        guests_provide(control->guests, &provider);
    }
}

void domains_stop(Control *control)
{
    if (control->agent)
        agent_stop(control->agent);
}
