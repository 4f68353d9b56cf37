/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/control/awaited.h"

#include <errno.h>
#include <string.h>

#include "daemon/control/arrival_steps.h"
#include "daemon/control/operator.h"
#include "daemon/core/log.h"

enum {
    AWAITED_MAX = 64,
    AWAITED_PER_HOST_MAX = 8, /* nobody can take all the room */
    AWAITED_START_S = 90,     /* a management layer may have disks and networks to prepare first */
    AWAITED_HELLO_S = 10, /* the preload connects when QEMU has its memory, which it has by now */
};

typedef struct Awaited {
    Control *control;
    Invitation *invitation;
    struct event *timer;
    gboolean started; /* its hook said so: the rest is known */
    int pid;
    DriverRegions vm;
    Asker hook;
    char problem[LIMIT_TEXT + 1]; /* what it waits for since */
} Awaited;

void awaited_answer(Control *control, const Asker *hook, gboolean armed, const char *reason)
{
    Connection *connection = connection_by_id(control, hook->connection);
    JsonObject *object;
    JsonNode *node;

    if (!connection)
        return;
    if (!armed && reason) {
        operator_reply_error(connection, hook->serial, -ECANCELED, reason);
        return;
    }
    object = json_object_new();
    json_object_set_boolean_member(object, "armed", armed);
    node = json_node_new(JSON_NODE_OBJECT);
    json_node_take_object(node, object);
    operator_reply(connection, hook->serial, node);
}

/* --- life ---------------------------------------------------------------------------------- */

/* The invitation is somebody else's by now, or answered. */
static void awaited_free(Awaited *awaited)
{
    g_ptr_array_remove(awaited->control->awaited, awaited);
    event_free(awaited->timer);
    g_free(awaited);
}

static void refuse(Awaited *awaited, PeerErrorCode code, const char *text)
{
    log_warning("%s: invitation refused: %s", awaited->invitation->message->invite.name, text);
    invitation_answer(awaited->invitation, code, text, "");
    if (awaited->started)
        awaited_answer(awaited->control, &awaited->hook, FALSE, text);
    awaited_free(awaited);
}

static void on_timer(evutil_socket_t fd, short what, void *argument)
{
    Awaited *awaited = argument;
    char text[LIMIT_TEXT + 1];

    (void)fd;
    (void)what;
    if (!awaited->started) {
        refuse(awaited, PEER_ERROR_UNKNOWN_VM,
               "the VM was not started at the destination within 90 s, or postcopyd's hook is not "
               "installed there (postcopyctl check)");
        return;
    }
    g_strlcpy(text, awaited->problem, sizeof text);
    refuse(awaited, PEER_ERROR_REFUSED, text);
}

static void set_timer(Awaited *awaited, int seconds)
{
    const struct timeval timeout = {.tv_sec = seconds};

    event_add(awaited->timer, &timeout);
}

static Awaited *find_by_uuid(Control *control, const guint8 *uuid)
{
    for (guint i = 0; i < control->awaited->len; i++) {
        Awaited *awaited = control->awaited->pdata[i];
        if (memcmp(awaited->invitation->message->invite.uuid, uuid, LIMIT_UUID) == 0)
            return awaited;
    }
    return NULL;
}

static guint awaited_of(const Control *control, const char *host)
{
    guint n = 0;

    for (guint i = 0; i < control->awaited->len; i++) {
        const Awaited *other = control->awaited->pdata[i];
        n += strcmp(other->invitation->peer_host, host) == 0;
    }
    return n;
}

/* Why there is no room for another; NULL: there is. */
static const char *why_full(Control *control, const Invitation *invitation)
{
    if (control->awaited->len >= AWAITED_MAX)
        return "too many VMs are waited for at the destination";
    if (awaited_of(control, invitation->peer_host) >= AWAITED_PER_HOST_MAX)
        return "too many VMs of this host are waited for at the destination: migrate fewer at once";
    if (find_by_uuid(control, invitation->message->invite.uuid))
        return "the VM is waited for at the destination already";
    return NULL;
}

void awaited_invite(Control *control, Invitation *invitation)
{
    const guint8 *uuid = invitation->message->invite.uuid;
    const char *full;
    Awaited *awaited;

    if (!uuid_is_set(uuid)) {
        invitation_answer(invitation, PEER_ERROR_REFUSED,
                          "a VM without a uuid cannot be waited for", "");
        return;
    }
    full = why_full(control, invitation);
    if (full) {
        invitation_answer(invitation, PEER_ERROR_BUSY, full, "");
        return;
    }
    awaited = g_new0(Awaited, 1);
    awaited->control = control;
    awaited->invitation = invitation;
    awaited->timer = event_new(control->base, -1, 0, on_timer, awaited);
    g_ptr_array_add(control->awaited, awaited);
    set_timer(awaited, AWAITED_START_S);
    log_info("%s: waiting for it to be started here, invited by %s",
             invitation->message->invite.name, invitation->peer_host);
    pthread_mutex_lock(&invitation->lock);
    invitation->awaited = TRUE;
    pthread_cond_signal(&invitation->changed);
    pthread_mutex_unlock(&invitation->lock);
}

/* --- its VM came --------------------------------------------------------------------------- */

/* What the preload calls by its address only, the source calls by its id: the hook knew both. */
static void place_regions(Awaited *awaited)
{
    PeerRegions *wanted = &awaited->invitation->message->invite.regions;
    const PeerRegions *here = &awaited->vm.names;

    for (guint32 i = 0; i < wanted->n; i++) {
        PeerRegion *region = &wanted->regions[i];

        region->address_hint = 0;
        for (guint32 j = 0; j < here->n; j++)
            if (strcmp(region->id, here->regions[j].id) == 0 &&
                region->guest_address == here->regions[j].guest_address &&
                region->length == here->regions[j].length)
                region->address_hint = here->regions[j].address_hint;
    }
}

/* Begins the arrival if the client is there with all its memory; else it goes on waiting. */
static void try_begin(Awaited *awaited)
{
    PeerMessage *message = awaited->invitation->message;
    Connection *connection = connection_by_vm(awaited->control, message->invite.uuid, "");
    guint32 map[LIMIT_REGIONS];
    const char *reason = "";
    PeerErrorCode code;

    if (!connection || connection->peer.pid != awaited->pid ||
        !connection_process_lives(connection)) {
        g_snprintf(awaited->problem, sizeof awaited->problem,
                   "the VM's process %d has not connected to the destination's daemon: is the "
                   "preload in it (postcopyctl check)?",
                   awaited->pid);
        return;
    }
    code = arrival_check(connection, &reason);
    if (code != PEER_ERROR_NONE) {
        refuse(awaited, code, reason);
        return;
    }
    if (region_set_map(&connection->regions, &message->invite.regions, map, awaited->problem))
        return;
    arrival_begin(connection, awaited->invitation, &awaited->hook);
    awaited_free(awaited);
}

void awaited_arrive(Control *control, const guint8 *uuid, int pid, const DriverRegions *vm,
                    Asker hook)
{
    Awaited *awaited = find_by_uuid(control, uuid);

    if (!awaited || awaited->started) {
        awaited_answer(control, &hook, FALSE, awaited ? "that VM is arriving already" : NULL);
        return;
    }
    awaited->started = TRUE;
    awaited->pid = pid;
    awaited->vm = *vm;
    awaited->hook = hook;
    awaited->invitation->message->invite.n_vcpus = vm->n_destination_vcpus;
    memcpy(awaited->invitation->message->invite.vcpus, vm->destination_vcpus,
           sizeof vm->destination_vcpus);
    place_regions(awaited);
    set_timer(awaited, AWAITED_HELLO_S);
    try_begin(awaited);
}

void awaited_client_changed(Connection *connection)
{
    Awaited *awaited = find_by_uuid(connection->control, connection->uuid);

    if (awaited && awaited->started)
        try_begin(awaited);
}

/* --- somebody went away -------------------------------------------------------------------- */

void awaited_withdraw(Control *control, gpointer data)
{
    static const char reason[] = "the source took its invitation back";
    g_autofree guint8 *token = data;

    for (guint i = 0; i < control->awaited->len; i++) {
        Awaited *awaited = control->awaited->pdata[i];
        if (memcmp(awaited->invitation->message->invite.token, token, LIMIT_TOKEN) == 0) {
            refuse(awaited, PEER_ERROR_REFUSED, reason);
            return;
        }
    }
    for (guint i = 0; i < control->arrivals->len; i++) {
        Arrival *arrival = control->arrivals->pdata[i];
        if (arrival->invitation &&
            memcmp(arrival->invitation->message->invite.token, token, LIMIT_TOKEN) == 0) {
            arrival_abandon(arrival, PEER_ERROR_REFUSED, reason);
            return;
        }
    }
}

void awaited_asker_gone(Control *control, guint64 connection)
{
    static const char reason[] = "the hook at the destination ended before the VM was armed";

    for (guint i = control->awaited->len; i-- > 0;) {
        Awaited *awaited = control->awaited->pdata[i];
        if (awaited->started && awaited->hook.connection == connection)
            refuse(awaited, PEER_ERROR_REFUSED, reason);
    }
    for (guint i = 0; i < control->arrivals->len; i++) {
        Arrival *arrival = control->arrivals->pdata[i];
        if (arrival->managed && arrival->stage < ARRIVAL_READY &&
            arrival->arriver.connection == connection)
            arrival_abandon(arrival, PEER_ERROR_REFUSED, reason);
    }
}
