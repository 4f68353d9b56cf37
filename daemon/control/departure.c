/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/control/departure.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "daemon/control/departure_keep.h"
#include "daemon/control/departure_lent.h"
#include "daemon/control/departure_libvirt.h"
#include "daemon/control/departure_relay.h"
#include "daemon/control/departure_steps.h"
#include "daemon/control/departure_store.h"
#include "daemon/control/departure_watch.h"
#include "daemon/control/operator.h"
#include "daemon/core/log.h"
#include "daemon/core/process.h"
#include "daemon/source/watch.h"

/* So long whoever drives may still ask how a departure ended whose client is gone. */
#define LINGER_US (G_GINT64_CONSTANT(60) * G_USEC_PER_SEC)

gboolean departure_is_open(const Departure *departure)
{
    return departure->stage < DEPARTURE_DONE;
}

gboolean departure_is_over(const Departure *departure)
{
    return !departure_is_open(departure) ||
           (departure->export && atomic_load(&departure->export->fenced));
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

void departure_answer(Departure *departure, int status, guint64 seal, const char *text)
{
    if (!departure->waiting)
        return;
    departure->waiting = FALSE;
    asker_answer(departure->control, &departure->asker, status, seal, text);
}

void departure_send_state(Departure *departure, const char *text)
{
    if (departure->connection)
        connection_send_state(departure->connection, departure_state(departure), 0, 0, 0, text);
}

void departure_welcome_back(Departure *departure)
{
    departure_keep(departure);
    departure_send_state(departure, "");
}

/* The driver of a QEMU also learns where the device state goes in and comes out. */
void departure_answer_prepared(Departure *departure)
{
    Connection *connection = connection_by_id(departure->control, departure->asker.connection);
    JsonObject *object;
    JsonNode *node;

    if (departure->asker.answer != CLIENT_REPLY || !connection) {
        departure_answer(departure, 0, 0, "");
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

static void drop_relay(Departure *departure, const char *text)
{
    if (departure->relay_path[0])
        unlink(departure->relay_path);
    departure->relay_path[0] = '\0';
    if (departure->relay_waiting)
        asker_answer(departure->control, &departure->relay_asker, -ECANCELED, 0,
                     text[0] ? text : "the migration ended");
    departure->relay_waiting = FALSE;
}

int departure_order(Departure *departure, PeerMessageType type)
{
    g_autofree PeerMessage *message = g_new0(PeerMessage, 1);

    message->type = type;
    return departure->export ? export_order(departure->export, message) : -ENOTCONN;
}

/* A destination that still waits for its VM takes the end of its connection for the answer. */
static void hang_up(Departure *departure)
{
    guint64 one = 1;

    if (departure->withdraw_fd < 0)
        return;
    while (write(departure->withdraw_fd, &one, sizeof one) < 0 && errno == EINTR)
        ;
    close(departure->withdraw_fd);
    departure->withdraw_fd = -1;
}

void departure_end(Departure *departure, DepartureStage stage, int status, const char *text)
{
    departure->stage = stage;
    departure->ended_us = g_get_monotonic_time();
    hang_up(departure);
    departure_libvirt_ended(departure);
    drop_relay(departure, text);
    /* Its client first: once the destination has its answer, nobody serves this export again. */
    departure_keep(departure);
    departure_store_drop(departure);
    if (stage == DEPARTURE_DONE)
        departure_order(departure, PEER_RELEASED);
    if (departure->export)
        export_close(departure->export);
    departure_send_state(departure, text);
    departure_answer(departure, status, 0, text);
}

void departure_undo(Departure *departure, const char *reason)
{
    const char *name = departure->export ? departure->export->name : departure->destination;

    /* Nothing is undone there: QEMU's migration goes on without us, or has come to its end. */
    if (departure->mode == DEPARTURE_ASSIST)
        log_info("%s: its migration is QEMU's alone: %s", name, reason);
    else
        log_warning("%s: departure undone: %s", name, reason);
    departure_order(departure, PEER_CANCEL);
    departure_end(departure, DEPARTURE_ENDED, -ECANCELED, reason);
}

gboolean departure_cancel(Departure *departure, const char *reason)
{
    if (departure->stage >= DEPARTURE_SEALED)
        return FALSE;
    if (!departure_libvirt_drift(departure, reason))
        departure_undo(departure, reason);
    return TRUE;
}

void departure_free(Departure *departure)
{
    if (departure->connection)
        departure->connection->departure = NULL;
    if (departure_is_open(departure))
        departure_end(departure, DEPARTURE_ENDED, -ECANCELED, "ended");
    if (departure->export)
        export_close(departure->export); /* however it came here: nobody may find it any more */
    hang_up(departure);
    export_unref(departure->export);
    close(departure->pidfd);
    g_ptr_array_remove(departure->control->departures, departure);
    departure_store_drop(departure);
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

Departure *departure_by_id(Control *control, guint64 id)
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
    departure_end(departure, DEPARTURE_DONE, 0, "");
}

static void on_relayed(Departure *departure)
{
    departure->relayed = TRUE;
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
        else if (told->event == EXPORT_LEASED)
            departure->leased = TRUE;
        else if (told->event == EXPORT_SEAL_WANTED)
            departure_lent_listens(departure);
        else if (told->event == EXPORT_LOST && departure->stage < DEPARTURE_SEALED)
            departure_cancel(departure, "the destination's daemon is gone");
    }
    export_unref(told->export);
}

void departure_notify(void *owner, Export *export, ExportEvent event)
{
    Told *told = g_new(Told, 1);

    *told = (Told){.export = export_ref(export), .event = event};
    control_post(owner, on_told, told);
}

gboolean departure_start_thread(void *(*function)(void *), void *argument)
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

Departure *departure_new(Connection *connection, char *ret_text)
{
    int pidfd = connection_open_process(connection, ret_text);
    Departure *departure;

    if (pidfd < 0)
        return NULL;
    departure = g_new0(Departure, 1);
    departure->control = connection->control;
    departure->withdraw_fd = -1;
    departure->connection = connection;
    departure->id = connection->control->next_id++;
    departure->pid = connection->peer.pid;
    departure->pidfd = pidfd;
    departure->n_vcpus = connection->n_vcpus;
    departure->vcpus =
        g_memdup2(connection->vcpus, connection->n_vcpus * sizeof *connection->vcpus);
    connection->departure = departure;
    g_ptr_array_add(connection->control->departures, departure);
    return departure;
}

/*
 * The departure lives on without its client, which came back on another connection, and may have
 * missed that it was sealed, fenced or done.  One that ended counts only for a client that still
 * keeps something of it.
 */
static Departure *find_orphan(const Connection *connection)
{
    for (guint i = connection->control->departures->len; i-- > 0;) {
        Departure *departure = connection->control->departures->pdata[i];
        if (!departure->connection && !departure->lent && departure->export &&
            departure->stage >= DEPARTURE_SEALED &&
            (departure->stage != DEPARTURE_ENDED || connection->blob_length > 0) &&
            departure->pid == connection->peer.pid && !process_has_ended(departure->pidfd) &&
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
    if (connection->blob_length == 0)
        return TRUE;
    departure = departure_new(connection, ret_text);
    if (!departure)
        return FALSE;
    departure->stage = DEPARTURE_ENDED; /* until it is whole: nothing to undo */
    if (!departure_unpack(departure, connection, departure_notify, ret_text)) {
        departure_free(departure);
        return FALSE;
    }
    log_info("%s: exported again, as under an earlier daemon", departure->export->name);
    return TRUE;
}

void departure_relay(Departure *departure, Asker asker)
{
    int error = departure->stage == DEPARTURE_OFFERED && departure->relay ? 0 : -EINVAL;

    if (departure->relay_waiting || departure->relayed) {
        asker_answer(departure->control, &asker, -EALREADY, 0, "the relay was made already");
        return;
    }
    if (!error)
        error = departure_order(departure, PEER_RELAY);
    if (error) {
        asker_answer(departure->control, &asker, error, 0, "the destination is not armed");
        return;
    }
    departure->relay_asker = asker;
    departure->relay_waiting = TRUE;
}

void departure_running(Departure *departure)
{
    if (departure->stage == DEPARTURE_SEALED)
        departure_order(departure, PEER_RUNNING);
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
    departure->ended_us = g_get_monotonic_time();
    departure_libvirt_ended(departure);
    departure_keep(departure);
    departure_store_drop(departure);
    departure_send_state(departure, reason);
}

/* Of one that has ended and whose client is gone the figures stay for a while, the memory does not. */
static void let_go(Departure *departure)
{
    if (departure->connection || !departure_is_over(departure))
        return;
    if (departure->export)
        export_drop_memory(departure->export);
    if (!departure->export || g_get_monotonic_time() - departure->ended_us > LINGER_US)
        departure_free(departure);
}

void departure_check_stopped(Departure *departure)
{
    /* A process that is gone cannot run, and its thread ids may be another's by now. */
    if (departure->stage != DEPARTURE_SEALED || !departure->watched ||
        process_has_ended(departure->pidfd) || atomic_load(&departure->export->fenced))
        return;
    if (watch_means_running(departure->cpu_at_seal_ns,
                            watch_cpu_ns(departure->pid, departure->vcpus, departure->n_vcpus)))
        departure_fence(departure, "the source's vCPUs ran after the seal");
}

void departure_tick(Control *control)
{
    departure_lent_tick(control);
    departure_libvirt_tick(control);
    departure_store_tick(control);
    departure_watch_tick(control);
    for (guint i = control->departures->len; i-- > 0;)
        let_go(control->departures->pdata[i]);
    for (guint i = 0; i < control->departures->len; i++)
        departure_check_stopped(control->departures->pdata[i]);
}
