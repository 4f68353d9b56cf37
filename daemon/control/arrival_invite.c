/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Invitations: which VM one is for, whether its memory fits, and the answer to whoever waits. */
#include <string.h>

#include "daemon/control/arrival_regions.h"
#include "daemon/control/arrival_steps.h"
#include "daemon/control/awaited.h"
#include "daemon/control/limits.h"
#include "daemon/control/transport_choice.h"
#include "daemon/core/log.h"
#include "daemon/transport/address.h"

enum { INVITE_TIMEOUT_S = 20 };

/* --- the answer ---------------------------------------------------------------------------- */

void invitation_answer(Invitation *invitation, PeerErrorCode code, const char *text,
                       const char *incoming)
{
    pthread_mutex_lock(&invitation->lock);
    invitation->code = code;
    g_strlcpy(invitation->text, text, sizeof invitation->text);
    g_strlcpy(invitation->incoming, incoming, sizeof invitation->incoming);
    invitation->answered = TRUE;
    pthread_cond_signal(&invitation->changed);
    pthread_mutex_unlock(&invitation->lock);
}

static void accept_invitation(Arrival *arrival, Invitation *invitation)
{
    arrival->invitation = invitation;
    pthread_mutex_lock(&invitation->lock);
    invitation->accepted = TRUE;
    pthread_cond_signal(&invitation->changed);
    pthread_mutex_unlock(&invitation->lock);
}

void arrival_answer(Arrival *arrival, PeerErrorCode code, const char *text)
{
    if (!arrival->invitation)
        return;
    invitation_answer(arrival->invitation, code, text, arrival->incoming);
    arrival->invitation = NULL;
    if (arrival->managed)
        awaited_answer(arrival->control, &arrival->arriver, code == PEER_ERROR_NONE, text);
}

/* --- the invitation ------------------------------------------------------------------------ */

ImportIdentity arrival_identity(const Connection *connection, const Arrival *arrival)
{
    ImportIdentity identity = {
        .name = connection->name,
        .client_pid = connection->peer.pid,
        .tag = arrival->id,
        .incoming = arrival->incoming,
        .vcpus = connection->vcpus,
        .n_vcpus = connection->n_vcpus,
    };

    memcpy(identity.uuid, connection->uuid, sizeof identity.uuid);
    return identity;
}

PeerErrorCode arrival_check(const Connection *connection, const char **ret_text)
{
    if (!connection) {
        *ret_text = "no such VM waits at the destination's daemon: is it started with -incoming, "
                    "the preload and the same name or uuid?";
        return PEER_ERROR_UNKNOWN_VM;
    }
    if (connection->role != CLIENT_ROLE_DESTINATION) {
        *ret_text = "the VM of that name at the destination is not waiting for memory";
        return PEER_ERROR_REFUSED;
    }
    if (connection->problem[0]) {
        *ret_text = connection->problem;
        return PEER_ERROR_REFUSED;
    }
    if (connection->arrival && arrival_is_open(connection->arrival)) {
        *ret_text = "the VM at the destination is arriving already";
        return PEER_ERROR_BUSY;
    }
    return PEER_ERROR_NONE;
}

/* ":PORT" means the host that invited us.  A name of the peer's choice is not looked up. */
static gboolean source_address(const Invitation *invitation, char *ret_source)
{
    Address address;

    return address_parse(invitation->message->invite.source, &address) == 0 &&
           (address.host[0] == '\0' || address_is_numeric(&address)) &&
           address_format(address.host[0] ? address.host : invitation->peer_host, address.port,
                          ret_source) == 0;
}

static Import *make_import(Arrival *arrival, Invitation *invitation, char *ret_text)
{
    Control *control = arrival->control;
    ImportIdentity identity = arrival_identity(arrival->connection, arrival);
    ImportConfig config = control->settings->import;
    guint32 map[LIMIT_REGIONS];
    char source[LIMIT_ADDRESS + 1];
    Import *import;
    int error;

    if (!source_address(invitation, source)) {
        g_strlcpy(ret_text, "the source's address is unusable: it must be numeric, ADDRESS:PORT",
                  LIMIT_TEXT + 1);
        return NULL;
    }
    if (!arrival_pages_fit(&arrival->connection->regions, ret_text) ||
        region_set_map(&arrival->connection->regions, &invitation->message->invite.regions, map,
                       ret_text))
        return NULL;
    guint32 shared = region_set_shared_with(&arrival->connection->regions,
                                            &invitation->message->invite.regions, map);
    if (shared < arrival->connection->regions.n) {
        g_snprintf(ret_text, LIMIT_TEXT + 1,
                   "region '%s' is the source's own memory: give the destination a file of its own",
                   invitation->message->invite.regions.regions[map[shared]].id);
        return NULL;
    }
    for (guint32 i = 0; i < arrival->connection->regions.n; i++)
        arrival->source_files[i] = invitation->message->invite.regions.regions[map[i]].backing;
    region_set_take_names(&arrival->connection->regions, &invitation->message->invite.regions, map);
    if (arrival->connection->n_vcpus == 0) { /* a client that could not know, as a preload may be */
        connection_set_vcpus(arrival->connection, invitation->message->invite.vcpus,
                             invitation->message->invite.n_vcpus);
        identity = arrival_identity(arrival->connection, arrival);
    }
    transport_configure(control, source, invitation->message->invite.flags, &config);
    config.minor = (control->uffd_features & UFFD_FEATURE_MINOR_SHMEM) != 0;
    import = import_new(&config, &identity, &arrival->connection->regions, source,
                        invitation->message->invite.token, arrival_notify, control, &error);
    if (!import)
        g_strlcpy(ret_text, strerror(-error), LIMIT_TEXT + 1);
    else
        transport_remember(&import->table, invitation->message->invite.flags);
    if (import && arrival->managed)
        page_table_set(&import->table, PAGE_TABLE_MANAGED);
    return import;
}

/* The hook that started the VM, if one did, is told the same. */
static void refuse(Control *control, Invitation *invitation, const Asker *arriver,
                   PeerErrorCode code, const char *text)
{
    log_warning("%s: invitation refused: %s", invitation->message->invite.name, text);
    invitation_answer(invitation, code, text, "");
    if (arriver)
        awaited_answer(control, arriver, FALSE, text);
}

/* A relay is for whoever drives QEMU by itself. */
static void name_incoming(Arrival *arrival)
{
    Control *control = arrival->control;

    if (!arrival->managed)
        g_snprintf(arrival->incoming, sizeof arrival->incoming, "%s/relay/in-%d-%" G_GUINT64_FORMAT,
                   control->settings->runtime_dir, arrival->pid, control->next_id++);
}

void arrival_begin(Connection *connection, Invitation *invitation, const Asker *arriver)
{
    const struct timeval timeout = {.tv_sec = INVITE_TIMEOUT_S};
    Control *control = connection->control;
    char text[LIMIT_TEXT + 1] = "";
    Arrival *arrival;

    if (connection->arrival)
        arrival_free(connection->arrival);
    arrival = arrival_new(connection, text);
    if (!arrival) {
        refuse(control, invitation, arriver, PEER_ERROR_REFUSED, text);
        return;
    }
    arrival->managed = arriver != NULL;
    if (arriver)
        arrival->arriver = *arriver;
    name_incoming(arrival);
    arrival->import = make_import(arrival, invitation, text);
    if (!arrival->import) {
        refuse(control, invitation, arriver, PEER_ERROR_REGIONS, text);
        arrival->incoming[0] = '\0';
        arrival_free(arrival);
        return;
    }
    accept_invitation(arrival, invitation);
    limits_apply(control);
    event_add(arrival->timer, &timeout);
}

void arrival_invite(Control *control, gpointer data)
{
    Invitation *invitation = data;
    const PeerMessage *message = invitation->message;
    Connection *connection;
    const char *reason = "";
    char text[LIMIT_TEXT + 1];
    PeerErrorCode code;

    if (!transport_accept(control, invitation, text)) {
        refuse(control, invitation, NULL, PEER_ERROR_REFUSED, text);
        return;
    }
    if (message->invite.flags & PEER_INVITE_AWAIT) {
        awaited_invite(control, invitation);
        return;
    }
    connection = connection_by_vm(control, message->invite.uuid, message->invite.name);
    code = arrival_check(connection, &reason);
    if (code != PEER_ERROR_NONE)
        invitation_answer(invitation, code, reason, "");
    else
        arrival_begin(connection, invitation, NULL);
}
