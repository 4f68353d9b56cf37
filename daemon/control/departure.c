/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/control/departure.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "daemon/control/arrival.h"
#include "daemon/control/departure_keep.h"
#include "daemon/control/departure_relay.h"
#include "daemon/control/monitor.h"
#include "daemon/control/operator.h"
#include "daemon/core/log.h"
#include "daemon/source/watch.h"
#include "daemon/transport/address.h"

enum { INVITE_ANSWER_MS = 25000, INVITE_DEAD_MS = 15000 };

/* So long whoever drives may still ask how a departure ended whose client is gone. */
#define LINGER_US (60 * G_USEC_PER_SEC)

gboolean departure_is_open(const Departure *departure)
{
    return departure->stage < DEPARTURE_DONE;
}

ClientState departure_state(const Departure *departure)
{
    if (departure->export && atomic_load(&departure->export->fenced))
        return CLIENT_STATE_FENCED;
    switch (departure->stage) {
    case DEPARTURE_SEALED:
        return CLIENT_STATE_SEALED;
    case DEPARTURE_DONE:
        return CLIENT_STATE_DONE;
    case DEPARTURE_ENDED:
        return CLIENT_STATE_CANCELLED;
    default:
        return CLIENT_STATE_EXPORTED;
    }
}

/* --- answers ------------------------------------------------------------------------------- */

static void answer_operator(Connection *connection, guint32 serial, int status, guint64 seal,
                            const char *text)
{
    JsonNode *node;
    JsonObject *object;

    if (status < 0) {
        operator_reply_error(connection, serial, status, text);
        return;
    }
    object = json_object_new();
    if (seal) {
        g_autofree char *id = g_strdup_printf("%016" G_GINT64_MODIFIER "x", seal);
        json_object_set_string_member(object, "seal", id);
    }
    node = json_node_new(JSON_NODE_OBJECT);
    json_node_take_object(node, object);
    operator_reply(connection, serial, node);
}

void asker_answer(Control *control, const Asker *asker, int status, guint64 seal, const char *text)
{
    Connection *connection = connection_by_id(control, asker->connection);

    if (!connection)
        return;
    if (asker->answer == CLIENT_REPLY)
        answer_operator(connection, asker->serial, status, seal, text);
    else if (asker->answer == CLIENT_OK && status == 0)
        connection_send_simple(connection, CLIENT_OK, asker->serial);
    else
        connection_send_status(connection,
                               asker->answer == CLIENT_OK ? CLIENT_ERROR : asker->answer,
                               asker->serial, status, seal, text);
}

static void answer_step(Departure *departure, int status, guint64 seal, const char *text)
{
    if (!departure->waiting)
        return;
    departure->waiting = FALSE;
    asker_answer(departure->control, &departure->asker, status, seal, text);
}

static void send_state(Departure *departure, const char *text)
{
    if (departure->connection)
        connection_send_state(departure->connection, departure_state(departure), 0, 0, 0, text);
}

void departure_tell(Departure *departure)
{
    send_state(departure, "");
}

/* The driver of a QEMU also learns where the device state goes in and comes out. */
static void answer_prepared(Departure *departure)
{
    Connection *connection = connection_by_id(departure->control, departure->asker.connection);
    JsonObject *object;
    JsonNode *node;

    if (departure->asker.answer != CLIENT_REPLY || !connection) {
        answer_step(departure, 0, 0, "");
        return;
    }
    departure->waiting = FALSE;
    object = json_object_new();
    if (departure->relay) {
        g_autofree char *source = g_strconcat("unix:", departure->relay_path, NULL);
        g_autofree char *destination = g_strconcat("unix:", departure->incoming, NULL);
        json_object_set_string_member(object, "source_uri", source);
        json_object_set_string_member(object, "destination_uri", destination);
    }
    node = json_node_new(JSON_NODE_OBJECT);
    json_node_take_object(node, object);
    operator_reply(connection, departure->asker.serial, node);
}

/* --- ending -------------------------------------------------------------------------------- */

static void drop_relay(Departure *departure)
{
    if (departure->relay_path[0])
        unlink(departure->relay_path);
    departure->relay_path[0] = '\0';
    if (departure->relay_waiting)
        asker_answer(departure->control, &departure->relay_asker, -ECANCELED, 0,
                     "the migration ended");
    departure->relay_waiting = FALSE;
}

static void end(Departure *departure, DepartureStage stage, int status, const char *text)
{
    departure->stage = stage;
    departure->ended_us = g_get_monotonic_time();
    drop_relay(departure);
    if (departure->export)
        export_close(departure->export);
    departure_keep(departure);
    send_state(departure, text);
    answer_step(departure, status, 0, text);
}

static void order_cancel(Departure *departure)
{
    g_autofree PeerMessage *message = g_new0(PeerMessage, 1);

    message->type = PEER_CANCEL;
    if (departure->export)
        export_order(departure->export, message);
}

gboolean departure_cancel(Departure *departure, const char *reason)
{
    if (departure->stage >= DEPARTURE_SEALED)
        return FALSE;
    log_warning("%s: departure undone: %s",
                departure->export ? departure->export->name : departure->destination, reason);
    order_cancel(departure);
    end(departure, DEPARTURE_ENDED, -ECANCELED, reason);
    return TRUE;
}

void departure_free(Departure *departure)
{
    if (departure->connection)
        departure->connection->departure = NULL;
    if (departure_is_open(departure))
        end(departure, DEPARTURE_ENDED, -ECANCELED, "ended");
    export_unref(departure->export);
    g_ptr_array_remove(departure->control->departures, departure);
    g_free(departure->vcpus);
    g_free(departure);
}

/* Its RAM fds are ours, so a sealed source may go; anything before the seal is undone. */
void departure_disconnected(Departure *departure)
{
    departure->connection->departure = NULL;
    departure->connection = NULL;
    if (departure->stage < DEPARTURE_SEALED)
        departure_cancel(departure, "the source's client is gone");
}

void departure_owner_gone(Control *control, guint64 connection)
{
    for (guint i = 0; i < control->departures->len; i++) {
        Departure *departure = control->departures->pdata[i];
        if (departure->owner == connection && departure->stage < DEPARTURE_SEALED)
            departure_cancel(departure, "whoever drove the migration is gone");
    }
}

static Departure *departure_by_id(Control *control, guint64 id)
{
    for (guint i = 0; i < control->departures->len; i++) {
        Departure *departure = control->departures->pdata[i];
        if (departure->id == id)
            return departure;
    }
    return NULL;
}

/* --- what the export tells ----------------------------------------------------------------- */

typedef struct Told {
    Export *export;
    ExportEvent event;
} Told;

static Departure *departure_by_export(Control *control, const Export *export)
{
    for (guint i = 0; i < control->departures->len; i++) {
        Departure *departure = control->departures->pdata[i];
        if (departure->export == export)
            return departure;
    }
    return NULL;
}

static void on_released(Departure *departure)
{
    if (departure->stage != DEPARTURE_SEALED)
        return;
    log_info("%s: its destination has everything", departure->export->name);
    end(departure, DEPARTURE_DONE, 0, "");
}

static void on_relayed(Departure *departure)
{
    if (departure->relay_waiting)
        asker_answer(departure->control, &departure->relay_asker, 0, 0, "");
    departure->relay_waiting = FALSE;
}

static void on_told(Control *control, gpointer data)
{
    g_autofree Told *told = data;

    Departure *departure = departure_by_export(control, told->export);

    if (departure && departure_is_open(departure)) {
        if (told->event == EXPORT_RELEASED)
            on_released(departure);
        else if (told->event == EXPORT_RELAYED)
            on_relayed(departure);
        else if (told->event == EXPORT_LOST && departure->stage < DEPARTURE_SEALED)
            departure_cancel(departure, "the destination's daemon is gone");
    }
    export_unref(told->export);
}

static void notify(void *owner, Export *export, ExportEvent event)
{
    Told *told = g_new(Told, 1);

    *told = (Told){.export = export_ref(export), .event = event};
    control_post(owner, on_told, told);
}

/* --- inviting ------------------------------------------------------------------------------ */

typedef struct InviteJob {
    Control *control;
    guint64 departure;
    char destination[LIMIT_ADDRESS + 1];
    PeerMessage *message; /* the INVITE; then the INVITED */
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
        order_cancel(departure);
        end(departure, DEPARTURE_ENDED, job->error, job->text);
        return;
    }
    departure->stage = DEPARTURE_OFFERED;
    g_strlcpy(departure->incoming, message->status.incoming, sizeof departure->incoming);
    log_info("%s: destination %s is armed", departure->export->name, departure->destination);
    send_state(departure, "");
    answer_prepared(departure);
}

static void run_invite(InviteJob *job)
{
    g_autofree PeerMessage *invite = g_memdup2(job->message, sizeof *job->message);
    PeerSocket *peer = peer_socket_connect(job->destination, INVITE_DEAD_MS, -1, job->message,
                                           &job->error, job->text);

    if (!peer)
        return;
    job->error = peer_socket_send(peer, invite);
    if (!job->error)
        job->error = peer_socket_receive(peer, job->message, INVITE_ANSWER_MS);
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
    control_post(job->control, on_invited, job);
    return NULL;
}

static gboolean start_thread(void *(*function)(void *), void *argument)
{
    pthread_attr_t attributes;
    pthread_t thread;
    int error;

    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    error = pthread_create(&thread, &attributes, function, argument);
    pthread_attr_destroy(&attributes);
    return error == 0;
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

static void invite(Departure *departure)
{
    Control *control = departure->control;
    InviteJob *job = g_new0(InviteJob, 1);
    PeerMessage *message = g_new0(PeerMessage, 1);

    job->control = control;
    job->departure = departure->id;
    job->message = message;
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
    describe_regions(departure, &message->invite.regions);
    message->invite.n_vcpus = departure->driver.n_destination_vcpus;
    memcpy(message->invite.vcpus, departure->driver.destination_vcpus,
           sizeof message->invite.vcpus);
    departure->stage = DEPARTURE_INVITING;
    if (start_thread(invite_thread, job))
        return;
    g_free(message);
    g_free(job);
    end(departure, DEPARTURE_ENDED, -EAGAIN, "cannot start a thread");
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
    departure->export = export_new(connection->uuid, connection->name, connection->peer.pid,
                                   &connection->regions, notify, departure->control, &error);
    if (!departure->export) {
        g_snprintf(ret_text, LIMIT_TEXT + 1, "cannot read the VM's memory: %s", strerror(-error));
        return error;
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
    if (connection->departure && departure_is_open(connection->departure))
        return "the VM is leaving already";
    if (connection->departure && connection->departure->stage == DEPARTURE_DONE)
        return "the VM has left already";
    if (address_parse(destination, &address) || address.host[0] == '\0')
        return "the destination must be HOST:PORT, with an IPv6 address in brackets";
    return NULL;
}

static Departure *departure_new(Connection *connection)
{
    Departure *departure = g_new0(Departure, 1);

    departure->control = connection->control;
    departure->connection = connection;
    departure->id = connection->control->next_id++;
    departure->pid = connection->peer.pid;
    departure->n_vcpus = connection->n_vcpus;
    departure->vcpus =
        g_memdup2(connection->vcpus, connection->n_vcpus * sizeof *connection->vcpus);
    connection->departure = departure;
    g_ptr_array_add(connection->control->departures, departure);
    return departure;
}

/* The departure lives on without its client; the client came back on another connection. */
static Departure *find_orphan(const Connection *connection)
{
    for (guint i = 0; i < connection->control->departures->len; i++) {
        Departure *departure = connection->control->departures->pdata[i];
        if (!departure->connection && departure->stage == DEPARTURE_SEALED &&
            departure->pid == connection->peer.pid &&
            strcmp(departure->export->name, connection->name) == 0)
            return departure;
    }
    return NULL;
}

gboolean departure_restore(Connection *connection, char *ret_text)
{
    Departure *departure = find_orphan(connection);

    if (departure) {
        departure->connection = connection;
        connection->departure = departure;
        return TRUE;
    }
    departure = departure_new(connection);
    departure->stage = DEPARTURE_ENDED; /* until it is whole: nothing to undo */
    if (!departure_unpack(departure, connection, notify, ret_text)) {
        departure_free(departure);
        return FALSE;
    }
    log_info("%s: exported again, as under an earlier daemon", departure->export->name);
    return TRUE;
}

void departure_offer(Connection *connection, const char *destination, const DriverRegions *driver,
                     gboolean relay, Asker asker, guint64 owner)
{
    const char *reason = check_offer(connection, destination);
    Control *control = connection->control;
    Departure *departure;

    if (reason) {
        asker_answer(control, &asker, -EINVAL, 0, reason);
        return;
    }
    if (connection->departure)
        departure_free(connection->departure);
    departure = departure_new(connection);
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
        end(departure, DEPARTURE_ENDED, status->status, text);
        return;
    }
    error = make_export(departure, text);
    if (error)
        end(departure, DEPARTURE_ENDED, error, text);
    else
        invite(departure);
}

/* --- sealing ------------------------------------------------------------------------------- */

typedef struct SealJob {
    Control *control;
    guint64 departure;
    int monitor_fd;
    int pid;
    int error;
    char text[LIMIT_TEXT + 1];
} SealJob;

/* The guest is proven stopped: from here on its memory is final. */
static void seal(Departure *departure)
{
    g_autofree PeerMessage *message = g_new0(PeerMessage, 1);
    guint64 id = export_seal(departure->export);
    int error;

    departure->cpu_at_seal_ns = watch_cpu_ns(departure->pid, departure->vcpus, departure->n_vcpus);
    message->type = PEER_SEALED;
    message->sealed.seal = id;
    error = export_order(departure->export, message);
    if (error) {
        /* Nobody has read anything, and nobody will: as if it had never been sealed. */
        export_fence(departure->export, "the destination's daemon was gone at the seal");
        order_cancel(departure);
        end(departure, DEPARTURE_ENDED, error, "the destination's daemon is gone");
        return;
    }
    departure->stage = DEPARTURE_SEALED;
    log_info("%s: sealed, read by %s from now on", departure->export->name, departure->destination);
    departure_keep(departure);
    send_state(departure, "");
    answer_step(departure, 0, id, "");
}

static void on_checked(Control *control, gpointer data)
{
    g_autofree SealJob *job = data;
    Departure *departure = departure_by_id(control, job->departure);

    if (!departure || departure->stage != DEPARTURE_SEALING)
        return;
    if (job->error) {
        departure->stage = DEPARTURE_OFFERED;
        answer_step(departure, job->error, 0, job->text);
        return;
    }
    seal(departure);
}

static void *check_thread(void *argument)
{
    SealJob *job = argument;

    job->error = monitor_check_stopped(job->monitor_fd, job->pid, job->text);
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
    if (start_thread(check_thread, job))
        return;
    job->error = -EAGAIN;
    g_strlcpy(job->text, "cannot start a thread", sizeof job->text);
    close(monitor_fd);
    on_checked(departure->control, job);
}

void departure_relay(Departure *departure, Asker asker)
{
    g_autofree PeerMessage *message = g_new0(PeerMessage, 1);
    int error;

    message->type = PEER_RELAY;
    error = departure->stage == DEPARTURE_OFFERED && departure->relay
                ? export_order(departure->export, message)
                : -EINVAL;
    if (error) {
        asker_answer(departure->control, &asker, error, 0, "the destination is not armed");
        return;
    }
    departure->relay_asker = asker;
    departure->relay_waiting = TRUE;
}

void departure_running(Departure *departure)
{
    g_autofree PeerMessage *message = g_new0(PeerMessage, 1);

    message->type = PEER_RUNNING;
    if (departure->stage == DEPARTURE_SEALED)
        export_order(departure->export, message);
}

void departure_fence(Departure *departure, const char *reason)
{
    if (departure->stage < DEPARTURE_SEALED) {
        departure_cancel(departure, reason);
        return;
    }
    if (departure->stage != DEPARTURE_SEALED)
        return;
    export_fence(departure->export, reason);
    departure_keep(departure);
    send_state(departure, reason);
}

/* Of one that has ended and whose client is gone the figures stay for a while, the memory does not. */
static void let_go(Departure *departure)
{
    if (departure->connection || departure_is_open(departure))
        return;
    if (departure->export)
        export_drop_memory(departure->export);
    if (!departure->export || g_get_monotonic_time() - departure->ended_us > LINGER_US)
        departure_free(departure);
}

void departure_tick(Control *control)
{
    for (guint i = control->departures->len; i-- > 0;)
        let_go(control->departures->pdata[i]);
    for (guint i = 0; i < control->departures->len; i++) {
        Departure *departure = control->departures->pdata[i];

        if (departure->stage != DEPARTURE_SEALED || !departure->watched ||
            atomic_load(&departure->export->fenced))
            continue;
        if (watch_means_running(departure->cpu_at_seal_ns,
                                watch_cpu_ns(departure->pid, departure->vcpus, departure->n_vcpus)))
            departure_fence(departure, "the source's vCPUs ran after the seal");
    }
}
