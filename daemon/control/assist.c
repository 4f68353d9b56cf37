/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/control/assist.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

#include "daemon/control/admission.h"
#include "daemon/control/arrival_regions.h"
#include "daemon/control/assist_source.h"
#include "daemon/control/expected.h"
#include "daemon/control/limits.h"
#include "daemon/control/report.h"
#include "daemon/core/log.h"
#include "daemon/core/process.h"
#include "daemon/fault/assist.h"

enum { ENDING_S = 5 };

static void refuse(Connection *connection, guint32 serial, int status, const char *text)
{
    connection_send_status(connection, CLIENT_ERROR, serial, status, 0, text);
}

static Assist *find_by_id(Control *control, guint64 id)
{
    for (guint i = 0; i < control->assists->len; i++) {
        Assist *assist = control->assists->pdata[i];
        if (assist->id == id)
            return assist;
    }
    return NULL;
}

/* --- ending ---------------------------------------------------------------------------------- */

void assist_free(Assist *assist)
{
    if (assist->connection)
        assist->connection->assist = NULL;
    event_free(assist->timer);
    g_ptr_array_remove(assist->control->assists, assist);
    report_keep(assist->control, assist->import, assist->pid, assist->limit);
    import_free(assist->import); /* serving is 0 before its threads are joined */
    g_free(assist);
}

static void on_timer(evutil_socket_t fd, short what, void *argument)
{
    (void)fd;
    (void)what;
    assist_free(argument);
}

/* The source hears that nobody needs its memory any more, unless it never gave any. */
static void on_end(Connection *connection)
{
    const struct timeval patience = {.tv_sec = ENDING_S};
    Assist *assist = connection->assist;

    if (!assist)
        return;
    if (assist->stage != ASSIST_LISTENING || !import_gate_is_open(assist->import) ||
        import_is_halted(assist->import)) {
        assist_free(assist);
        return;
    }
    log_info("%s: QEMU has all memory", assist->import->name);
    assist->stage = ASSIST_ENDING;
    assist->connection = NULL;
    connection->assist = NULL;
    assist_complete(assist->import);
    import_finish(assist->import);
    event_add(assist->timer, &patience);
}

void assist_disconnected(Connection *connection)
{
    Assist *assist = connection->assist;

    if (!assist)
        return;
    if (assist->stage == ASSIST_LISTENING)
        log_warning("%s: its client in process %d is gone: QEMU goes on alone",
                    assist->import->name, assist->pid);
    assist_free(assist);
}

void assist_process_ended(Control *control, int pid)
{
    for (guint i = control->assists->len; i-- > 0;) {
        Assist *assist = control->assists->pdata[i];
        if (assist->pid == pid && assist->stage != ASSIST_ENDING)
            assist_free(assist);
    }
}

/* --- what the import tells ------------------------------------------------------------------- */

typedef struct Told {
    guint64 assist;
    ImportEvent event;
    char text[LIMIT_TEXT + 1];
} Told;

static void send_plan(Assist *assist)
{
    Control *control = assist->control;
    ClientMessage *reply = control->reply;
    const Import *import = assist->import;
    int fds[2] = {import->table.fd, control->uffd_device};
    gboolean device = control->uffd_device >= 0 && control->settings->grant_device;

    reply->type = CLIENT_PLAN;
    reply->serial = assist->serial;
    reply->plan.flags = device ? CLIENT_ARM_DEVICE : 0;
    reply->plan.table_size = import->table.size;
    reply->plan.n_ranges = import->regions.n;
    for (guint32 i = 0; i < import->regions.n; i++)
        reply->plan.ranges[i] = (ClientRange){
            .address = import->regions.regions[i].address,
            .length = import->regions.regions[i].length,
            .page_size = import->regions.regions[i].page_size,
        };
    reply->plan.n_shards = assist->n_shards;
    memcpy(reply->plan.shards, assist->shards, assist->n_shards * sizeof assist->shards[0]);
    connection_send(assist->connection, fds, device ? 2 : 1);
}

static void on_attached(Assist *assist)
{
    if (assist->stage != ASSIST_ATTACHING)
        return;
    assist->stage = ASSIST_PLANNED;
    assist->n_shards = import_plan_shards(assist->import, assist->shards);
    log_info("%s: may be assisted from %s", assist->import->name, assist->import->source);
    send_plan(assist);
}

static void on_told(Control *control, gpointer data)
{
    g_autofree Told *told = data;
    Assist *assist = find_by_id(control, told->assist);

    if (!assist)
        return;
    switch (told->event) {
    case IMPORT_ATTACHED:
        on_attached(assist);
        break;
    case IMPORT_ATTACH_FAILED:
        if (assist->stage != ASSIST_ATTACHING)
            break;
        refuse(assist->connection, assist->serial, -ECONNREFUSED, told->text);
        assist_free(assist);
        break;
    case IMPORT_READY:
        log_info("%s: listens in process %d, faults are asked of %s", assist->import->name,
                 assist->pid, assist->import->source);
        break;
    case IMPORT_CANCELLED:
        log_info("%s: assisted no more: %s", assist->import->name, told->text);
        /* Also a plan that it has: unless it hears of that it waits with a dead one. */
        if (assist->stage == ASSIST_ATTACHING || assist->stage == ASSIST_PLANNED)
            refuse(assist->connection, assist->serial, -ECANCELED, told->text);
        assist_free(assist);
        break;
    case IMPORT_FINISHED:
        assist_free(assist);
        break;
    case IMPORT_CHANGED:
    case IMPORT_COMPLETE:
    case IMPORT_SETTLED:
        break;
    }
    limits_apply(control);
}

static void notify(void *owner, Import *import, ImportEvent event, const char *text)
{
    Told *told = g_new0(Told, 1);

    told->assist = import->tag;
    told->event = event;
    g_strlcpy(told->text, text, sizeof told->text);
    control_post(owner, on_told, told);
}

/* --- beginning ------------------------------------------------------------------------------- */

static Import *make_import(const Assist *assist, const Expected *expected,
                           const AssistSource *found, int *ret_error)
{
    ImportConfig config = assist->control->settings->import;
    ImportIdentity identity = {
        .name = expected->name,
        .client_pid = expected->pid,
        .tag = assist->id,
        .vcpus = expected->vcpus,
        .n_vcpus = expected->n_vcpus,
    };

    memcpy(identity.uuid, expected->uuid, sizeof identity.uuid);
    config.assist = true;
    if (!found->ahead && config.head_start_ms > 0) {
        log_info(
            "%s: no head start: its source's QEMU holds post-copy to a bandwidth, or its daemon "
            "does not say",
            expected->name);
        config.head_start_ms = 0;
    }
    return import_new(&config, &identity, &expected->regions, found->source, found->token, notify,
                      assist->control, ret_error);
}

static Assist *find_asking(Control *control, guint64 expected)
{
    for (guint i = 0; i < control->assists->len; i++) {
        Assist *assist = control->assists->pdata[i];
        if (assist->stage == ASSIST_ASKING && assist->expected == expected)
            return assist;
    }
    return NULL;
}

static void describe_failure(int error, char *ret_text)
{
    g_strlcpy(ret_text,
              error == -ENOSPC
                  ? "this host, or the daemon's cgroup, has no memory for the table of "
                    "the VM's pages, which takes 1/8192 of the VM's"
                  : strerror(-error),
              LIMIT_TEXT + 1);
}

/* Whoever asked first may have hung up, and come again: the answer is his who waits now. */
static void on_found(Control *control, gpointer data)
{
    g_autofree AssistSource *found = data;
    Assist *assist = find_asking(control, found->expected);
    Expected *expected = expected_by_id(control, found->expected);
    int error = found->error;

    if (expected)
        expected->asking = FALSE;
    if (!assist)
        return;
    if (!error && (!expected || process_has_ended(expected->pidfd))) {
        error = -ESRCH;
        g_strlcpy(found->text, "the VM is not expected any more", sizeof found->text);
    }
    if (!error) {
        assist->import = make_import(assist, expected, found, &error);
        if (assist->import) {
            assist->stage = ASSIST_ATTACHING;
            /* Shards are found by their place in it. */
            region_set_copy(&expected->regions, &assist->connection->regions);
            limits_apply(control);
            return;
        }
        describe_failure(error, found->text);
    }
    if (error != -EAGAIN) { /* asked too early, as it has to be now and then */
        g_autofree char *line =
            g_strdup_printf("%s goes on with QEMU alone: %s", found->name, found->text);
        admission_log_refusal(assist->connection, line);
    }
    refuse(assist->connection, assist->serial, error, found->text);
    assist_free(assist);
}

/* However often a process asks, hangs up and asks again: one thread at a time looks for its source. */
static void begin(Connection *connection, Expected *expected, guint32 serial)
{
    Control *control = connection->control;
    Assist *assist = g_new0(Assist, 1);

    assist->control = control;
    assist->id = control->next_id++;
    assist->connection = connection;
    assist->pid = connection->peer.pid;
    assist->expected = expected->id;
    assist->serial = serial;
    assist->limit = expected->limit;
    assist->timer = event_new(control->base, -1, 0, on_timer, assist);
    connection->assist = assist;
    g_ptr_array_add(control->assists, assist);
    expected->asking = expected->asking || assist_source_find(expected, on_found);
    if (expected->asking)
        return;
    refuse(connection, serial, -EAGAIN, "no thread could be started");
    assist_free(assist);
}

/* Why this process cannot be assisted; NULL: it may be, as *ret_expected. */
static const char *why_not(const Connection *connection, const guint8 *uuid,
                           Expected **ret_expected)
{
    Expected *expected = expected_by_pid(connection->control, connection->peer.pid);

    *ret_expected = expected;
    if (!connection_process_lives(connection))
        return "the process that made this connection has ended, or cannot be watched over";
    if (connection->greeted)
        return "ASSIST belongs on a connection of its own, without HELLO";
    if (!expected)
        return "it expects this process once libvirt's hook has told it of the VM";
    if (uuid_is_set(uuid) && memcmp(uuid, expected->uuid, LIMIT_UUID) != 0)
        return "this process is expected to be a VM of another uuid";
    if (expected->refusal[0])
        return expected->refusal;
    if (!expected->has_token)
        return "the VM came without a token: is postcopyd enabled for it at its source?";
    return NULL;
}

static gboolean has_hung_up(const Connection *connection)
{
    struct pollfd poller = {.fd = connection->fd, .events = POLLRDHUP};

    return poll(&poller, 1, 0) == 1 && (poller.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

/*
 * The process may have come back before the end of its last connection was noticed.  FALSE: it is
 * served over another one that lives.
 */
static gboolean replace_dead(Connection *connection)
{
    GPtrArray *all = connection->control->assists;

    for (guint i = all->len; i-- > 0;) {
        Assist *other = all->pdata[i];

        if (other->pid != connection->peer.pid || other->connection == connection ||
            other->stage == ASSIST_ENDING)
            continue;
        if (!has_hung_up(other->connection) && !(other->import && import_is_halted(other->import)))
            return FALSE;
        assist_free(other);
    }
    return TRUE;
}

/* It may come again and again: nobody knows when QEMU's migration connection will be there. */
static void on_assist(Connection *connection)
{
    const ClientMessage *message = connection->control->message;
    guint32 serial = message->serial;
    Assist *assist = connection->assist;
    Expected *expected;
    const char *reason = why_not(connection, message->assist.uuid, &expected);

    if (!reason && !replace_dead(connection))
        reason = "this process is assisted already, over another connection";
    if (reason) {
        /* QEMU opens its first userfaultfds before libvirt says that it has started. */
        refuse(connection, serial, expected || connection->greeted ? -EPERM : -EAGAIN, reason);
        return;
    }
    if (assist && assist->stage >= ASSIST_PLANNED && import_is_halted(assist->import)) {
        assist_free(assist);
        assist = NULL;
    }
    if (!assist) {
        begin(connection, expected, serial);
    } else if (assist->stage == ASSIST_LISTENING) {
        refuse(connection, serial, -EALREADY, "this process listens already");
    } else {
        assist->serial = serial;
        if (assist->stage == ASSIST_PLANNED)
            send_plan(assist);
    }
}

/* --- listening ------------------------------------------------------------------------------- */

static void on_listen(Connection *connection)
{
    const ClientMessage *message = connection->control->message;
    guint32 serial = message->serial;
    Assist *assist = connection->assist;
    Shard *shards = NULL;
    int error;

    if (!assist || assist->stage != ASSIST_PLANNED) {
        refuse(connection, serial, -EPROTO, "LISTEN wants a PLAN first, and once");
        return;
    }
    if (message->n_fds == assist->n_shards)
        shards = arrival_take_shards(connection, assist->shards, assist->n_shards, 0);
    if (!shards) {
        refuse(connection, serial, -EINVAL,
               "LISTEN wants a userfaultfd for every shard, non-blocking and without any events");
        return;
    }
    error = import_arm(assist->import, shards, assist->n_shards);
    if (error) {
        refuse(connection, serial, error, strerror(-error));
        assist_free(assist);
        return;
    }
    assist->stage = ASSIST_LISTENING;
    connection_send_simple(connection, CLIENT_OK, serial);
}

/* Whoever may connect at all may make userfaultfds: of its own memory, which is nobody else's business. */
static void on_device(Connection *connection)
{
    Control *control = connection->control;
    guint32 serial = control->message->serial;

    if (control->uffd_device < 0 || !control->settings->grant_device) {
        refuse(connection, serial, -EACCES,
               control->settings->grant_device
                   ? "this daemon has no /dev/userfaultfd to give"
                   : "this daemon gives /dev/userfaultfd to nobody (grant_device = no)");
        return;
    }
    control->reply->type = CLIENT_DEVICE;
    control->reply->serial = serial;
    connection_send(connection, &control->uffd_device, 1);
}

gboolean assist_message(Connection *connection)
{
    switch (connection->control->message->type) {
    case CLIENT_ASSIST:
        on_assist(connection);
        return TRUE;
    case CLIENT_LISTEN:
        on_listen(connection);
        return TRUE;
    case CLIENT_END:
        on_end(connection);
        return TRUE;
    case CLIENT_DEVICE:
        on_device(connection);
        return TRUE;
    default:
        return FALSE;
    }
}
