/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "daemon/control/arrival.h"
#include "daemon/control/departure_lent.h"
#include "daemon/control/departure_libvirt.h"
#include "daemon/control/departure_relay.h"
#include "daemon/control/departure_steps.h"
#include "daemon/control/transport_choice.h"
#include "daemon/core/log.h"
#include "daemon/transport/address.h"

enum {
    INVITE_ANSWER_MS = 25000,
    /* With starting the VM there; the destination gives up before, and says why. */
    INVITE_AWAIT_MS = 130000,
    INVITE_DEAD_MS = 15000,
};

/* --- inviting ------------------------------------------------------------------------------ */

typedef struct InviteJob {
    Control *control;
    guint64 departure;
    char destination[LIMIT_ADDRESS + 1];
    PeerMessage *message; /* the INVITE; then the INVITED */
    unsigned transport;   /* ImportTransport that was asked for */
    int answer_ms;
    int withdraw_fd; /* readable: nobody waits for it any more; -1: it cannot be taken back */
    int error;
    char text[LIMIT_TEXT + 1];
} InviteJob;

static void on_invited(Control *control, gpointer data)
{
    g_autofree InviteJob *job = data;
    g_autofree PeerMessage *message = job->message;
    Departure *departure = departure_by_id(control, job->departure);

    if (!departure || departure->stage != DEPARTURE_INVITING)
        return;
    if (job->error) {
        /* Whoever drives hears it too, and may be a program that keeps it to itself. */
        log_warning("%s: invitation to %s failed: %s", departure->export->name,
                    departure->destination, job->text);
        departure_order(departure, PEER_CANCEL);
        departure_end(departure, DEPARTURE_ENDED, job->error, job->text);
        return;
    }
    departure->stage = DEPARTURE_OFFERED;
    g_strlcpy(departure->incoming, message->status.incoming, sizeof departure->incoming);
    log_info("%s: destination %s is armed", departure->export->name, departure->destination);
    departure_send_state(departure, "");
    if (departure->lent)
        departure_libvirt_awaited(departure);
    else if (departure->waiting)
        departure_answer_prepared(departure);
}

/* The destination keeps the invitation: from now on the VM may be started there. */
static void on_awaited(Control *control, gpointer data)
{
    g_autofree guint64 *id = data;
    Departure *departure = departure_by_id(control, *id);

    if (departure && departure->stage == DEPARTURE_INVITING)
        departure_libvirt_awaited(departure);
}

static void run_invite(InviteJob *job)
{
    g_autofree PeerMessage *invite = g_memdup2(job->message, sizeof *job->message);
    PeerSocket *peer = peer_socket_connect(job->destination, INVITE_DEAD_MS, -1, job->message,
                                           &job->error, job->text);

    guint32 flags;

    if (!peer)
        return;
    if (!transport_invite(job->control->settings, job->transport, peer, &flags, job->text)) {
        job->error = -EINVAL;
        peer_socket_free(peer);
        return;
    }
    invite->invite.flags |= flags;
    job->error = peer_socket_send(peer, invite);
    peer->cancel_fd = job->withdraw_fd;
    if (!job->error)
        job->error = peer_socket_receive(peer, job->message, job->answer_ms);
    if (!job->error && job->message->type == PEER_AWAITED) {
        control_post(job->control, on_awaited, g_memdup2(&job->departure, sizeof job->departure));
        job->error = peer_socket_receive(peer, job->message, job->answer_ms);
    }
    if (!job->error && job->message->type != PEER_INVITED && job->message->type != PEER_BYE)
        job->error = -EPROTO;
    if (job->error)
        g_snprintf(job->text, sizeof job->text, "daemon at %s: %s", job->destination,
                   strerror(-job->error));
    else if (job->message->status.code != PEER_ERROR_NONE) {
        job->error = -ECONNREFUSED;
        g_snprintf(job->text, sizeof job->text, "destination: %.1000s", job->message->status.text);
    }
    peer_socket_free(peer);
}

static void *invite_thread(void *argument)
{
    InviteJob *job = argument;

    run_invite(job);
    if (job->withdraw_fd >= 0)
        close(job->withdraw_fd);
    control_post(job->control, on_invited, job);
    return NULL;
}

/* The regions as the source names them, with where the driver says they lie over there. */
static void describe_regions(const Departure *departure, PeerRegions *ret_regions)
{
    region_set_describe(&departure->export->memory.regions, ret_regions);
    for (guint32 i = 0; i < ret_regions->n; i++)
        for (guint32 j = 0; j < departure->driver.names.n; j++) {
            const PeerRegion *name = &departure->driver.names.regions[j];
            if (strcmp(name->id, ret_regions->regions[i].id) == 0 &&
                name->guest_address == ret_regions->regions[i].guest_address)
                ret_regions->regions[i].address_hint = departure->driver.destination_addresses[j];
        }
}

void departure_invite(Departure *departure)
{
    Control *control = departure->control;
    InviteJob *job = g_new0(InviteJob, 1);
    PeerMessage *message = g_new0(PeerMessage, 1);

    job->control = control;
    job->departure = departure->id;
    job->message = message;
    job->transport = departure->driver.transport;
    g_strlcpy(job->destination, departure->destination, sizeof job->destination);
    message->type = PEER_INVITE;
    memcpy(message->invite.uuid, departure->export->uuid, LIMIT_UUID);
    g_strlcpy(message->invite.name, departure->export->name, sizeof message->invite.name);
    memcpy(message->invite.token, departure->export->token, LIMIT_TOKEN);
    if (control->settings->advertise)
        g_strlcpy(message->invite.source, control->settings->advertise,
                  sizeof message->invite.source);
    else
        g_snprintf(message->invite.source, sizeof message->invite.source, ":%s",
                   control->peer_port);
    job->answer_ms = departure->lent ? INVITE_AWAIT_MS : INVITE_ANSWER_MS;
    message->invite.flags = departure->lent ? PEER_INVITE_AWAIT : 0;
    describe_regions(departure, &message->invite.regions);
    message->invite.n_vcpus = departure->driver.n_destination_vcpus;
    memcpy(message->invite.vcpus, departure->driver.destination_vcpus,
           sizeof message->invite.vcpus);
    departure->stage = DEPARTURE_INVITING;
    if (departure->lent)
        departure->withdraw_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    job->withdraw_fd =
        departure->withdraw_fd >= 0 ? fcntl(departure->withdraw_fd, F_DUPFD_CLOEXEC, 3) : -1;
    if (departure_start_thread(invite_thread, job))
        return;
    if (job->withdraw_fd >= 0)
        close(job->withdraw_fd);
    g_free(message);
    g_free(job);
    departure_end(departure, DEPARTURE_ENDED, -EAGAIN, "cannot start a thread");
}

/* --- offering ------------------------------------------------------------------------------ */

static int make_export(Departure *departure, char *ret_text)
{
    Connection *connection = departure->connection;
    int error = 0;

    if (departure->driver.names.n > 0)
        error = region_set_name(&connection->regions, &departure->driver.names, ret_text);
    if (error)
        return error;
    departure->export =
        export_new(connection->uuid, connection->name, connection->peer.pid, &connection->regions,
                   departure_notify, departure->control, &error);
    if (!departure->export) {
        g_snprintf(ret_text, LIMIT_TEXT + 1, "cannot read the VM's memory: %s", strerror(-error));
        return error ? error : -ENOMEM;
    }
    if (!departure->relay)
        return 0;
    g_snprintf(departure->relay_path, sizeof departure->relay_path,
               "%s/relay/out-%d-%" G_GUINT64_FORMAT, departure->control->settings->runtime_dir,
               connection->peer.pid, departure->id);
    departure->export->relay_listener =
        departure_relay_listen(departure->relay_path, connection->peer.uid);
    if (departure->export->relay_listener >= 0)
        return 0;
    error = departure->export->relay_listener;
    g_snprintf(ret_text, LIMIT_TEXT + 1, "cannot listen on %s: %s", departure->relay_path,
               strerror(-error));
    return error;
}

/* Why this VM cannot leave now, or NULL. */
static const char *check_offer(const Connection *connection, const char *destination)
{
    Address address;

    if (connection->role != CLIENT_ROLE_SOURCE)
        return "the VM is a destination that has not received its memory";
    if (connection->problem[0])
        return connection->problem;
    if (connection->arrival && arrival_is_open(connection->arrival))
        return "the VM's own memory is still arriving";
    if (connection->departure && !departure_is_over(connection->departure))
        return "the VM is leaving already";
    if (connection->departure && connection->departure->stage == DEPARTURE_DONE)
        return "the VM has left already";
    if (departure_lent_busy(connection->control, connection->uuid))
        return "the VM is leaving already";
    if (address_parse(destination, &address) || address.host[0] == '\0')
        return "the destination must be HOST:PORT, with a port up to 65535 and an IPv6 address in "
               "brackets";
    return NULL;
}

void departure_offer(Connection *connection, const char *destination, const DriverRegions *driver,
                     gboolean relay, Asker asker, guint64 owner)
{
    const char *reason = check_offer(connection, destination);
    Control *control = connection->control;
    char text[LIMIT_TEXT + 1];
    Departure *departure;

    if (reason) {
        asker_answer(control, &asker, -EINVAL, 0, reason);
        return;
    }
    if (connection->departure)
        departure_free(connection->departure);
    departure = departure_new(connection, text);
    if (!departure) {
        asker_answer(control, &asker, -EIO, 0, text);
        return;
    }
    departure->relay = relay;
    departure->asker = asker;
    departure->waiting = TRUE;
    departure->owner = owner;
    g_strlcpy(departure->destination, destination, sizeof departure->destination);
    if (driver)
        departure->driver = *driver;
    connection_send_simple(connection, CLIENT_EXPORT, ++connection->next_serial);
}

void departure_exported(Connection *connection, const ClientStatus *status)
{
    Departure *departure = connection->departure;
    char text[LIMIT_TEXT + 1] = "";
    int error;

    if (!departure || departure->stage != DEPARTURE_ASKING)
        return;
    if (status->status < 0) {
        g_strlcpy(text, status->text, sizeof text);
        departure_end(departure, DEPARTURE_ENDED, status->status, text);
        return;
    }
    error = make_export(departure, text);
    if (error)
        departure_end(departure, DEPARTURE_ENDED, error, text);
    else
        departure_invite(departure);
}
