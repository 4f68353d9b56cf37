/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/control/arrival.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "daemon/control/arrival_regions.h"
#include "daemon/control/arrival_steps.h"
#include "daemon/control/ignore_shared.h"
#include "daemon/control/limits.h"
#include "daemon/control/report.h"
#include "daemon/control/transport_choice.h"
#include "daemon/core/log.h"

enum { RELEASE_RETRY_MS = 50 };

gboolean arrival_is_open(const Arrival *arrival)
{
    return arrival->stage < ARRIVAL_RELEASED;
}

/* --- ending -------------------------------------------------------------------------------- */

static void remove_incoming(Arrival *arrival)
{
    if (arrival->incoming[0])
        unlink(arrival->incoming);
    arrival->incoming[0] = '\0';
}

static void send_release(Arrival *arrival, guint32 flags)
{
    ClientMessage *reply = arrival->control->reply;

    if (!arrival->connection)
        return;
    reply->type = CLIENT_RELEASE;
    reply->serial = 0;
    reply->release.flags = flags;
    connection_send(arrival->connection, NULL, 0);
}

static void send_state(Arrival *arrival)
{
    Import *import = arrival->import;
    char text[LIMIT_TEXT + 1];

    if (!arrival->connection || !import)
        return;
    pthread_mutex_lock(&import->text_lock);
    memcpy(text, import->text, sizeof text);
    pthread_mutex_unlock(&import->text_lock);
    connection_send_state(
        arrival->connection, import_state(import), atomic_load(&import->counters.populated_bytes),
        import_present_bytes(import), atomic_load(&import->counters.faults), text);
}

/*
 * Its guest may be let run at any moment, by somebody who knows nothing of its memory: it has to be gone
 * first, and its manager sees that.
 */
static void end_process(Arrival *arrival)
{
    if (syscall(SYS_pidfd_send_signal, arrival->pidfd, SIGKILL, NULL, 0) == 0)
        log_warning("%s: its process %d is ended, as its memory does not come",
                    arrival->import->name, arrival->pid);
    else
        log_error(
            "%s: its process %d cannot be ended (%s) and waits for memory that does not come: "
            "destroy it",
            arrival->import->name, arrival->pid, strerror(errno));
}

/* Undone before the gate: the client lets go of memory that nobody touched. */
void arrival_abandon(Arrival *arrival, PeerErrorCode code, const char *text)
{
    /* A client that is still arming handles this after it: nothing stays registered. */
    gboolean armed = arrival->stage >= ARRIVAL_ARMING;
    gboolean may_run = arrival->managed && arrival->stage >= ARRIVAL_READY;

    log_warning("%s: arrival undone: %s", arrival->import->name, text);
    arrival->stage = ARRIVAL_ENDED;
    arrival_end_change(arrival);
    import_stop_data(arrival->import);
    atomic_store(&arrival->import->state, CLIENT_STATE_CANCELLED);
    if (may_run)
        end_process(arrival);
    else if (armed)
        send_release(arrival, CLIENT_RELEASE_DISARM);
    send_state(arrival);
    remove_incoming(arrival);
    arrival_answer(arrival, code, text);
}

void arrival_free(Arrival *arrival)
{
    arrival_answer(arrival, PEER_ERROR_CLIENT_GONE, "the destination's client is gone");
    remove_incoming(arrival);
    if (arrival->connection)
        arrival->connection->arrival = NULL;
    event_free(arrival->pid_event);
    event_free(arrival->timer);
    close(arrival->pidfd);
    report_keep(arrival->control, arrival->import, arrival->pid, arrival->limit);
    import_free(arrival->import);
    g_ptr_array_remove(arrival->control->arrivals, arrival);
    g_free(arrival);
}

static void on_process_gone(evutil_socket_t fd, short what, void *argument)
{
    Arrival *arrival = argument;

    (void)fd;
    (void)what;
    if (arrival_is_open(arrival))
        log_error("%s: its process %d died with memory still missing: import ended",
                  arrival->import->name, arrival->pid);
    arrival_free(arrival);
}

/* --- what the import tells ----------------------------------------------------------------- */

typedef struct Told {
    guint64 arrival;
    ImportEvent event;
    char text[LIMIT_TEXT + 1];
} Told;

static void on_told(Control *control, gpointer data);

void arrival_notify(void *owner, Import *import, ImportEvent event, const char *text)
{
    Told *told = g_new0(Told, 1);

    told->arrival = import->tag;
    told->event = event;
    g_strlcpy(told->text, text, sizeof told->text);
    control_post(owner, on_told, told);
}

static void send_arm(Arrival *arrival)
{
    Control *control = arrival->control;
    ClientMessage *reply = control->reply;
    int fds[2] = {arrival->import->table.fd, control->uffd_device};

    arrival->stage = ARRIVAL_ARMING;
    arrival->n_shards = import_plan_shards(arrival->import, arrival->shards);
    reply->type = CLIENT_ARM;
    reply->serial = arrival->arm_serial = ++arrival->connection->next_serial;
    reply->arm.flags = control->uffd_device >= 0 ? CLIENT_ARM_DEVICE : 0;
    reply->arm.table_size = arrival->import->table.size;
    reply->arm.n_shards = arrival->n_shards;
    memcpy(reply->arm.shards, arrival->shards, arrival->n_shards * sizeof arrival->shards[0]);
    connection_send(arrival->connection, fds, control->uffd_device >= 0 ? 2 : 1);
}

static void on_attached(Arrival *arrival)
{
    if (arrival->stage != ARRIVAL_INVITED)
        return;
    if (arrival->connection)
        send_arm(arrival);
    else
        arrival_abandon(arrival, PEER_ERROR_CLIENT_GONE, "the destination's client is gone");
}

static void on_ready(Arrival *arrival)
{
    if (arrival->stage != ARRIVAL_JOINING)
        return;
    arrival->stage = ARRIVAL_READY;
    event_del(arrival->timer);
    log_info("%s: armed, gate shut, fetching from %s", arrival->import->name,
             arrival->import->source);
    arrival_answer(arrival, PEER_ERROR_NONE, "");
}

static void on_complete(Arrival *arrival)
{
    log_info("%s: all memory is here", arrival->import->name);
    arrival->stage = ARRIVAL_RELEASING;
    send_release(arrival, 0);
}

static Arrival *find_by_id(Control *control, guint64 id)
{
    for (guint i = 0; i < control->arrivals->len; i++) {
        Arrival *arrival = control->arrivals->pdata[i];
        if (arrival->id == id)
            return arrival;
    }
    return NULL;
}

/* Not before its guest may have its devices; an arrival may be complete before the next tick. */
static void clear_capability(Arrival *arrival)
{
    if (!arrival->managed || arrival->clearing || !import_gate_is_open(arrival->import))
        return;
    ignore_shared_clear(arrival->import->name, arrival->pid, arrival->pidfd);
    arrival->clearing = TRUE;
}

static void on_told(Control *control, gpointer data)
{
    g_autofree Told *told = data;
    Arrival *arrival = find_by_id(control, told->arrival);

    if (!arrival || !arrival->import || arrival->stage == ARRIVAL_ENDED)
        return;
    switch (told->event) {
    case IMPORT_ATTACHED:
        on_attached(arrival);
        break;
    case IMPORT_ATTACH_FAILED:
        if (arrival->invitation)
            arrival_abandon(arrival, PEER_ERROR_REFUSED, told->text);
        break;
    case IMPORT_READY:
        on_ready(arrival);
        break;
    case IMPORT_CHANGED:
        send_state(arrival);
        clear_capability(arrival);
        break;
    case IMPORT_COMPLETE:
        on_complete(arrival);
        break;
    case IMPORT_CANCELLED:
        if (!import_gate_is_open(arrival->import)) /* it may have opened since */
            arrival_abandon(arrival, PEER_ERROR_REFUSED, told->text);
        break;
    case IMPORT_SETTLED:
        arrival_region_settled(arrival);
        break;
    case IMPORT_FINISHED:
        import_stop_data(arrival->import);
        break;
    }
    limits_apply(control);
}

/* --- its beginning ------------------------------------------------------------------------- */

/* Before READY: the invitation took too long.  RELEASING: the client was busy, ask again. */
static void on_timer(evutil_socket_t fd, short what, void *argument)
{
    Arrival *arrival = argument;

    (void)fd;
    (void)what;
    if (arrival->stage < ARRIVAL_READY)
        arrival_abandon(arrival, PEER_ERROR_REFUSED,
                        "the destination's client or the source's daemon did not answer in time");
    else if (arrival->stage == ARRIVAL_RELEASING)
        send_release(arrival, 0);
}

Arrival *arrival_new(Connection *connection, char *ret_text)
{
    int pidfd = connection_open_process(connection, ret_text);
    Arrival *arrival;

    if (pidfd < 0)
        return NULL;
    arrival = g_new0(Arrival, 1);
    arrival->control = connection->control;
    arrival->id = connection->control->next_id++;
    arrival->connection = connection;
    arrival->limit = connection->limit;
    arrival->pid = connection->peer.pid;
    arrival->pidfd = pidfd;
    arrival->pid_event =
        event_new(arrival->control->base, arrival->pidfd, EV_READ, on_process_gone, arrival);
    event_add(arrival->pid_event, NULL);
    arrival->timer = event_new(arrival->control->base, -1, 0, on_timer, arrival);
    connection->arrival = arrival;
    g_ptr_array_add(arrival->control->arrivals, arrival);
    return arrival;
}

/* --- what the client tells ----------------------------------------------------------------- */

void arrival_armed(Connection *connection, const ClientStatus *status, guint32 n_fds)
{
    Arrival *arrival = connection->arrival;
    Shard *shards = NULL;
    int error = 0;

    if (arrival && arrival->change.kind == CHANGE_ADD) {
        arrival_region_armed(arrival, status, n_fds);
        return;
    }
    if (!arrival || arrival->stage != ARRIVAL_ARMING ||
        connection->control->message->serial != arrival->arm_serial)
        return; /* or the answer to an ARM that was taken back */
    if (status->status < 0) {
        arrival_abandon(arrival, PEER_ERROR_REFUSED, status->text);
        return;
    }
    if (n_fds == arrival->n_shards)
        shards = arrival_take_shards(connection, arrival->shards, arrival->n_shards, 0);
    arrival->stage = ARRIVAL_JOINING;
    if (shards)
        error = import_arm(arrival->import, shards, arrival->n_shards);
    if (!shards || error)
        arrival_abandon(arrival, PEER_ERROR_REFUSED, shards ? strerror(-error) : ARRIVAL_NO_SHARDS);
}

/* The memory is the client's own. */
static void finish(Arrival *arrival)
{
    arrival->stage = ARRIVAL_RELEASED;
    arrival->connection->role = CLIENT_ROLE_SOURCE;
    remove_incoming(arrival);
    arrival_end_change(arrival);
    region_set_drop_absent(&arrival->connection->regions); /* a source has none */
    import_finish(arrival->import);
    log_info("%s: released", arrival->import->name);
}

void arrival_released(Connection *connection, const ClientStatus *status)
{
    const struct timeval pause = {.tv_usec = RELEASE_RETRY_MS * 1000L};
    Arrival *arrival = connection->arrival;

    if (!arrival || arrival->stage != ARRIVAL_RELEASING)
        return;
    if (status->status == -EBUSY) { /* a last fault on a hole is being answered */
        event_add(arrival->timer, &pause);
        return;
    }
    if (status->status < 0) {
        log_error("%s: its client will not let go: %s", arrival->import->name, status->text);
        return;
    }
    finish(arrival);
}

void arrival_running(Connection *connection)
{
    if (connection->arrival->import)
        import_running(connection->arrival->import);
}

void arrival_disconnected(Arrival *arrival)
{
    arrival->connection->arrival = NULL;
    arrival->connection = NULL;
    arrival_asker_gone(arrival);
    if (arrival->stage < ARRIVAL_READY)
        arrival_abandon(arrival, PEER_ERROR_CLIENT_GONE, "the destination's client is gone");
    else if (arrival_is_open(arrival))
        log_warning("%s: its client disconnected; its import goes on while process %d lives",
                    arrival->import->name, arrival->pid);
}

/* --- coming back --------------------------------------------------------------------------- */

/* One that nobody else is connected for: a VM without a name is not told from another by it. */
static Arrival *find_by_pid(Control *control, const Connection *connection)
{
    for (guint i = 0; i < control->arrivals->len; i++) {
        Arrival *arrival = control->arrivals->pdata[i];
        if (arrival->pid == connection->peer.pid && !arrival->connection &&
            arrival_is_open(arrival) && strcmp(arrival->import->name, connection->name) == 0)
            return arrival;
    }
    return NULL;
}

/* Two imports over one page table would both place its pages.  Only what has seals is looked at. */
static gboolean is_held(const Control *control, int table)
{
    struct stat offered, held;

    if (fcntl(table, F_GET_SEALS) < 0 || fstat(table, &offered))
        return FALSE;
    for (guint i = 0; i < control->arrivals->len; i++) {
        const Arrival *arrival = control->arrivals->pdata[i];

        if (arrival_is_open(arrival) && arrival->import && arrival->import->table.fd >= 0 &&
            fstat(arrival->import->table.fd, &held) == 0 && held.st_ino == offered.st_ino &&
            held.st_dev == offered.st_dev)
            return TRUE;
    }
    return FALSE;
}

static gboolean adopt(Connection *connection, const ClientHello *hello, int table, char *ret_text)
{
    Control *control = connection->control;
    Arrival *arrival = arrival_new(connection, ret_text);
    ImportConfig config = control->settings->import;
    ImportIdentity identity;
    int error = -EPROTO;
    Shard *shards;

    if (!arrival) {
        close(table);
        return FALSE;
    }
    identity = arrival_identity(connection, arrival);
    transport_configure_adopted(control, table, &config);
    shards = arrival_take_shards(connection, hello->shards, hello->n_shards, hello->table_fd + 1);
    arrival->stage = ARRIVAL_READY;
    arrival->n_shards = hello->n_shards;
    memcpy(arrival->shards, hello->shards, hello->n_shards * sizeof hello->shards[0]);
    if (shards)
        arrival->import = import_adopt(&config, &identity, &connection->regions, table, shards,
                                       hello->n_shards, arrival_notify, control, &error);
    else
        close(table);
    if (!arrival->import) {
        g_snprintf(ret_text, LIMIT_TEXT + 1, "cannot take over its memory: %s", strerror(-error));
        arrival_free(arrival);
        return FALSE;
    }
    arrival->managed = page_table_has(&arrival->import->table, PAGE_TABLE_MANAGED);
    log_info("%s: taken over from an earlier daemon, fetching from %s", arrival->import->name,
             arrival->import->source);
    return TRUE;
}

/* A client that does not know its vCPUs does not bring them when it comes back: its import has kept them. */
static void recall_vcpus(Connection *connection)
{
    const VcpuTable *kept = atomic_load(&connection->arrival->import->vcpus);

    if (connection->n_vcpus == 0)
        connection_set_vcpus(connection, kept->tids, kept->n);
}

static gboolean take_over(Connection *connection, const ClientHello *hello, char *ret_text)
{
    int table = client_channel_take_fd(&connection->channel, hello->table_fd);

    if (!is_held(connection->control, table)) {
        if (!adopt(connection, hello, table, ret_text))
            return FALSE;
        recall_vcpus(connection);
        return TRUE;
    }
    close(table);
    g_strlcpy(ret_text, "its memory arrives here already, over a connection that has not ended yet",
              LIMIT_TEXT + 1);
    return FALSE;
}

gboolean arrival_resume(Connection *connection, const ClientHello *hello, char *ret_text)
{
    const struct timeval soon = {.tv_usec = RELEASE_RETRY_MS * 1000L};
    Arrival *arrival = find_by_pid(connection->control, connection);

    connection->role = CLIENT_ROLE_DESTINATION;
    if (!arrival_pages_fit(&connection->regions, ret_text))
        return FALSE;
    if (!arrival_shards_fit(connection, hello)) {
        g_strlcpy(ret_text, "its shards do not fit its regions", LIMIT_TEXT + 1);
        return FALSE;
    }
    if (!arrival)
        return take_over(connection, hello, ret_text);
    /* Everything of the import is found by a region's place in its connection's list. */
    if (!region_set_is_same(&arrival->import->regions, &connection->regions)) {
        g_strlcpy(ret_text, "its regions are not those that its memory arrives in", LIMIT_TEXT + 1);
        return FALSE;
    }
    arrival->connection = connection;
    connection->arrival = arrival;
    connection->limit = arrival->limit;
    recall_vcpus(connection);
    arrival_compare_regions(arrival, hello);
    if (arrival->stage == ARRIVAL_RELEASING) /* after the WELCOME that follows */
        event_add(arrival->timer, &soon);
    return TRUE;
}

void arrival_let_go(Connection *connection)
{
    Arrival *arrival = find_by_pid(connection->control, connection);

    if (!arrival || arrival->stage != ARRIVAL_RELEASING)
        return;
    arrival->connection = connection;
    connection->arrival = arrival;
    finish(arrival);
}

void arrival_tick(Control *control)
{
    for (guint i = 0; i < control->arrivals->len; i++) {
        Arrival *arrival = control->arrivals->pdata[i];
        if (arrival->stage == ARRIVAL_READY && import_gate_is_open(arrival->import))
            send_state(arrival);
        clear_capability(arrival);
    }
}
