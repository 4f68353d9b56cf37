/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/control/connection.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "daemon/control/admission.h"
#include "daemon/control/arrival.h"
#include "daemon/control/assist.h"
#include "daemon/control/awaited.h"
#include "daemon/control/connection_regions.h"
#include "daemon/control/credentials.h"
#include "daemon/control/departure.h"
#include "daemon/control/operator.h"
#include "daemon/core/disposal.h"
#include "daemon/core/log.h"
#include "daemon/core/process.h"

/* --- names --------------------------------------------------------------------------------- */

gboolean uuid_is_set(const guint8 *uuid)
{
    for (int i = 0; i < LIMIT_UUID; i++)
        if (uuid[i])
            return TRUE;
    return FALSE;
}

char *uuid_to_text(const guint8 *uuid)
{
    GString *text = g_string_new(NULL);

    if (!uuid_is_set(uuid))
        return g_string_free(text, FALSE);
    for (int i = 0; i < LIMIT_UUID; i++)
        g_string_append_printf(text, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "",
                               uuid[i]);
    return g_string_free(text, FALSE);
}

gboolean uuid_from_text(const char *text, guint8 *ret_uuid)
{
    int digits = 0;

    memset(ret_uuid, 0, LIMIT_UUID);
    for (; *text; text++) {
        if (*text == '-')
            continue;
        if (!g_ascii_isxdigit(*text) || digits == 2 * LIMIT_UUID)
            return FALSE;
        ret_uuid[digits / 2] = (guint8)(ret_uuid[digits / 2] << 4 | g_ascii_xdigit_value(*text));
        digits++;
    }
    return digits == 2 * LIMIT_UUID;
}

const char *connection_vm(const Connection *connection)
{
    return connection->name[0] ? connection->name : "(unnamed)";
}

Connection *connection_by_id(Control *control, guint64 id)
{
    for (guint i = 0; i < control->connections->len; i++) {
        Connection *connection = control->connections->pdata[i];
        if (connection->id == id)
            return connection;
    }
    return NULL;
}

Connection *connection_by_vm(Control *control, const guint8 *uuid, const char *name)
{
    for (guint i = 0; i < control->connections->len; i++) {
        Connection *connection = control->connections->pdata[i];
        if (!connection->greeted)
            continue;
        if (uuid && uuid_is_set(uuid) ? memcmp(connection->uuid, uuid, LIMIT_UUID) == 0
                                      : name[0] && strcmp(connection->name, name) == 0)
            return connection;
    }
    return NULL;
}

Connection *connection_by_text(Control *control, const char *vm)
{
    Connection *connection = connection_by_vm(control, NULL, vm);
    guint8 uuid[LIMIT_UUID];

    if (!connection && uuid_from_text(vm, uuid))
        connection = connection_by_vm(control, uuid, "");
    return connection;
}

/* --- who it is ----------------------------------------------------------------------------- */

/* What it was when it connected: that does not change. */
static void identify(Connection *connection)
{
    const Control *control = connection->control;
    struct ucred *peer = &connection->peer;
    socklen_t length = sizeof *peer;

    *peer = (struct ucred){.uid = (uid_t)-1, .gid = (gid_t)-1};
    getsockopt(connection->fd, SOL_SOCKET, SO_PEERCRED, peer, &length);
    connection->is_operator = peer->uid == 0 || peer->uid == geteuid() ||
                              (control->has_operator_gid &&
                               credentials_have_group(connection->fd, peer, control->operator_gid));
    connection->pidfd = process_open_peer(connection->fd);
}

gboolean connection_is_operator(const Connection *connection)
{
    return connection->is_operator;
}

int connection_open_process(const Connection *connection, char *ret_text)
{
    gboolean lives = connection_process_lives(connection);
    int fd = lives ? fcntl(connection->pidfd, F_DUPFD_CLOEXEC, 0) : -1;
    int error = lives ? errno : connection->pidfd < 0 ? -connection->pidfd : ESRCH;

    if (fd < 0)
        g_snprintf(ret_text, LIMIT_TEXT + 1, "cannot watch over the VM's process %d: %s",
                   connection->peer.pid, strerror(error));
    return fd;
}

gboolean connection_process_lives(const Connection *connection)
{
    return connection->pidfd >= 0 && !process_has_ended(connection->pidfd);
}

/* --- sending ------------------------------------------------------------------------------- */

static void on_outbox_emptied(gpointer owner)
{
    Connection *connection = owner;

    event_add(connection->event, NULL);
}

void connection_send(Connection *connection, const int *fds, gsize n_fds)
{
    Outbox *outbox = &connection->outbox;
    int error =
        outbox_send(outbox, connection->control->reply, fds, n_fds, connection->control->packet);
    gboolean reads = error != -EAGAIN && error != -ENOBUFS;

    if (error && error != -EPIPE && error != -ECONNRESET)
        log_warning("%s: cannot answer pid %d: %s", connection_vm(connection), connection->peer.pid,
                    reads ? strerror(-error) : "it does not read");
    if (!reads)
        shutdown(connection->fd, SHUT_RDWR); /* the loop sees the end and cleans up */
    if (outbox_is_empty(outbox))
        event_add(connection->event, NULL);
    else
        event_del(connection->event);
}

void connection_send_status(Connection *connection, ClientMessageType type, guint32 serial,
                            int status, guint64 seal, const char *text)
{
    ClientMessage *reply = connection->control->reply;

    reply->type = type;
    reply->serial = serial;
    reply->status.status = status;
    reply->status.seal = seal;
    g_strlcpy(reply->status.text, text, sizeof reply->status.text);
    connection_send(connection, NULL, 0);
}

void connection_send_simple(Connection *connection, ClientMessageType type, guint32 serial)
{
    connection->control->reply->type = type;
    connection->control->reply->serial = serial;
    connection_send(connection, NULL, 0);
}

void connection_send_state(Connection *connection, ClientState state, guint64 populated,
                           guint64 present, guint64 faults, const char *text)
{
    ClientMessage *reply = connection->control->reply;

    reply->type = CLIENT_STATE;
    reply->serial = 0;
    reply->state.state = state;
    reply->state.populated_bytes = populated;
    reply->state.present_bytes = present;
    reply->state.faults = faults;
    g_strlcpy(reply->state.text, text, sizeof reply->state.text);
    connection_send(connection, NULL, 0);
}

/* --- HELLO --------------------------------------------------------------------------------- */

void connection_set_vcpus(Connection *connection, const guint32 *tids, guint32 n)
{
    g_free(connection->vcpus);
    connection->vcpus = g_memdup2(tids, n * sizeof *tids);
    connection->n_vcpus = n;
    if (connection->arrival && connection->arrival->import)
        import_set_vcpus(connection->arrival->import, tids, n);
}

/* Either key names the VM: everything else finds it by one of them alone. */
static gboolean is_same_vm(const Connection *other, const ClientHello *hello)
{
    return other->greeted &&
           ((uuid_is_set(hello->uuid) && memcmp(other->uuid, hello->uuid, LIMIT_UUID) == 0) ||
            (hello->name[0] && strcmp(other->name, hello->name) == 0));
}

/* One VM, one connection: a second process cannot take a uuid or a name over. */
static gboolean check_unique(const Connection *connection, const ClientHello *hello, char *ret_text)
{
    GPtrArray *all = connection->control->connections;

    for (guint i = 0; i < all->len; i++) {
        const Connection *other = all->pdata[i];
        if (!is_same_vm(other, hello) || other->peer.pid == connection->peer.pid)
            continue;
        g_snprintf(
            ret_text, LIMIT_TEXT + 1,
            "VM '%s' is already served for process %d: give one of them another name or uuid",
            hello->name, other->peer.pid);
        return FALSE;
    }
    /* Its process came back before its old end was noticed.  The last one moves into a gap. */
    for (guint i = all->len; i-- > 0;)
        if (is_same_vm(all->pdata[i], hello))
            connection_close(all->pdata[i]);
    return TRUE;
}

static gboolean greet(Connection *connection, const ClientHello *hello, char *ret_text)
{
    if (!connection_process_lives(connection)) {
        g_snprintf(ret_text, LIMIT_TEXT + 1,
                   "process %d, which made this connection, cannot be watched over: %s",
                   connection->peer.pid,
                   connection->pidfd < 0 ? strerror(-connection->pidfd) : "it has ended");
        return FALSE;
    }
    if (hello->n_regions == 0 && hello->problem[0] == '\0') {
        g_snprintf(ret_text, LIMIT_TEXT + 1, "it names no memory");
        return FALSE;
    }
    if (!check_unique(connection, hello, ret_text) ||
        !connection_take_regions(connection, hello, ret_text))
        return FALSE;
    connection->role = hello->role;
    memcpy(connection->uuid, hello->uuid, sizeof connection->uuid);
    g_strlcpy(connection->name, hello->name, sizeof connection->name);
    g_strlcpy(connection->problem, hello->problem, sizeof connection->problem);
    connection_set_vcpus(connection, hello->vcpus, hello->n_vcpus);
    connection->blob_length = hello->blob_length;
    memcpy(connection->blob, hello->blob, hello->blob_length);
    connection->greeted = TRUE;
    if (hello->flags & CLIENT_HELLO_ARMED)
        return arrival_resume(connection, hello, ret_text);
    arrival_let_go(connection);
    return departure_restore(connection, ret_text);
}

static void on_hello(Connection *connection)
{
    ClientMessage *message = connection->control->message;
    guint32 serial = message->serial;
    char text[LIMIT_TEXT + 1] = "";

    if (connection->greeted || connection->assist || !greet(connection, &message->hello, text)) {
        admission_log_refusal(connection, text[0] ? text : "a second HELLO");
        connection_send_status(connection, CLIENT_ERROR, serial, -EINVAL, 0,
                               text[0] ? text : "a second HELLO");
        connection_close(connection);
        return;
    }
    log_info("%s: client pid %d uid %d, %s, %u regions, %" G_GUINT64_FORMAT " MiB%s%s",
             connection_vm(connection), connection->peer.pid, connection->peer.uid,
             connection->role == CLIENT_ROLE_SOURCE ? "source" : "destination",
             connection->regions.n, region_set_length(&connection->regions) >> 20,
             connection->problem[0] ? "; cannot be served: " : "", connection->problem);
    connection->control->reply->type = CLIENT_WELCOME;
    connection->control->reply->serial = serial;
    connection->control->reply->welcome.session = connection->id;
    connection->control->reply->welcome.features = 0;
    connection_send(connection, NULL, 0);
    if (connection->departure)
        departure_welcome_back(connection->departure);
    awaited_client_changed(connection);
}

/* --- other messages ------------------------------------------------------------------------ */

static void on_vcpus(Connection *connection)
{
    const ClientMessage *message = connection->control->message;

    connection_set_vcpus(connection, message->vcpus.tids, message->vcpus.n);
    connection_send_simple(connection, CLIENT_OK, message->serial);
}

static void on_cancel(Connection *connection)
{
    Asker asker = {connection->id, connection->control->message->serial, CLIENT_OK};
    gboolean done = connection->departure && departure_is_open(connection->departure) &&
                    departure_cancel(connection->departure, "cancelled by its client");

    asker_answer(connection->control, &asker, done ? 0 : -EBUSY, 0,
                 done ? "" : "there is nothing to cancel, or the destination may run already");
}

static void on_running(Connection *connection)
{
    Asker asker = {connection->id, connection->control->message->serial, CLIENT_OK};

    if (connection->arrival && arrival_is_open(connection->arrival))
        arrival_running(connection);
    else if (connection->departure && departure_is_open(connection->departure))
        departure_fence(connection->departure, "its client says it runs again");
    asker_answer(connection->control, &asker, 0, 0, "");
}

static void on_seal(Connection *connection)
{
    Asker asker = {connection->id, connection->control->message->serial, CLIENT_SEALED};

    if (connection->departure && departure_is_open(connection->departure))
        departure_seal(connection->departure, -1, asker);
    else
        asker_answer(connection->control, &asker, -EINVAL, 0, "nothing was offered");
}

static void on_offer(Connection *connection)
{
    const ClientMessage *message = connection->control->message;
    Asker asker = {connection->id, message->serial, CLIENT_OFFERED};

    departure_offer(connection, message->offer.destination, NULL, FALSE, asker, 0);
}

/* What only a client that introduced itself may send. TRUE: it was such a message. */
static gboolean on_client_message(Connection *connection)
{
    ClientMessage *message = connection->control->message;

    switch (message->type) {
    case CLIENT_OK: /* to KEEP */
        return TRUE;
    case CLIENT_ARMED:
        arrival_armed(connection, &message->status, message->n_fds);
        return TRUE;
    case CLIENT_RELEASED:
        arrival_released(connection, &message->status);
        return TRUE;
    case CLIENT_EXPORTED:
        departure_exported(connection, &message->status);
        return TRUE;
    case CLIENT_VCPUS:
        on_vcpus(connection);
        return TRUE;
    case CLIENT_REGION_ADD:
        connection_add_region(connection);
        return TRUE;
    case CLIENT_REGION_REMOVE:
        connection_remove_region(connection);
        return TRUE;
    case CLIENT_OFFER:
        on_offer(connection);
        return TRUE;
    case CLIENT_SEAL:
        on_seal(connection);
        return TRUE;
    case CLIENT_CANCEL:
        on_cancel(connection);
        return TRUE;
    case CLIENT_RUNNING:
        on_running(connection);
        return TRUE;
    default:
        return FALSE;
    }
}

static void dispatch(Connection *connection)
{
    ClientMessage *message = connection->control->message;

    if (message->type == CLIENT_HELLO)
        on_hello(connection);
    else if (message->type == CLIENT_OPERATOR)
        operator_request(connection, client_channel_take_fd(&connection->channel, 0));
    else if (message->type == CLIENT_ERROR)
        log_warning("%s: client pid %d: %s", connection_vm(connection), connection->peer.pid,
                    message->status.text);
    else if (assist_message(connection))
        return;
    else if (!connection->greeted)
        connection_send_status(connection, CLIENT_ERROR, message->serial, -EPROTO, 0,
                               "HELLO must come first");
    else if (!on_client_message(connection))
        connection_send_status(connection, CLIENT_ERROR, message->serial, -EOPNOTSUPP, 0,
                               "this daemon does not know that message");
}

static void on_readable(evutil_socket_t fd, short what, void *argument)
{
    Connection *connection = argument;
    Control *control = connection->control;
    guint64 id = connection->id;
    int result;

    (void)fd;
    (void)what;
    result = client_channel_receive(&connection->channel, control->message);
    if (result == 1) {
        dispatch(connection);
        return;
    }
    if (result == -EAGAIN)
        return;
    if (result == -EPROTONOSUPPORT || result == -EPROTO || result == -EMSGSIZE) {
        const char *text = result == -EPROTONOSUPPORT
                               ? "this daemon speaks version 1 of the client protocol"
                               : "malformed message";
        log_warning("%s: client pid %d disconnected: %s", connection_vm(connection),
                    connection->peer.pid, text);
        connection_send_status(connection, CLIENT_ERROR, 0, result, 0, text);
    }
    if (connection_by_id(control, id))
        connection_close(connection);
}

/* --- life ---------------------------------------------------------------------------------- */

void connection_new(Control *control, int fd)
{
    Connection *connection = g_new0(Connection, 1);

    connection->control = control;
    connection->id = control->next_id++;
    connection->fd = fd;
    connection->limit = control->settings->vm_limit;
    connection->since_us = g_get_monotonic_time();
    identify(connection);
    client_channel_init(&connection->channel, fd);
    outbox_init(&connection->outbox, control->base, fd, on_outbox_emptied, connection);
    connection->event = event_new(control->base, fd, EV_READ | EV_PERSIST, on_readable, connection);
    event_add(connection->event, NULL);
    g_ptr_array_add(control->connections, connection);
}

void connection_close(Connection *connection)
{
    Control *control = connection->control;

    g_ptr_array_remove_fast(control->connections, connection);
    if (connection->arrival)
        arrival_disconnected(connection->arrival);
    if (connection->departure)
        departure_disconnected(connection->departure);
    assist_disconnected(connection);
    departure_owner_gone(control, connection->id);
    awaited_asker_gone(control, connection->id);
    outbox_deinit(&connection->outbox);
    event_free(connection->event);
    client_channel_deinit(&connection->channel);
    region_set_dispose(&connection->regions);
    close(connection->fd);
    if (connection->pidfd >= 0)
        close(connection->pidfd);
    g_free(connection->vcpus);
    g_free(connection);
}
