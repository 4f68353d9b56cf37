/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/lib/connection.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "client/lib/change.h"
#include "client/lib/drain.h"
#include "client/lib/event.h"
#include "client/lib/request.h"
#include "client/lib/session.h"

enum {
    DELAY_FIRST_MS = 20,
    DELAY_ARMED_MS = 500, /* a guest stalls meanwhile */
    DELAY_IDLE_MS = 1000,
    SEND_TIMEOUT_S = 5,    /* a daemon that takes nothing for so long is as good as gone */
    RECEIVE_TIMEOUT_S = 1, /* within a message; between messages it may be silent for ever */
};

int instance_send(postcopy *pc, const int *fds, size_t n_fds)
{
    return client_message_send(pc->socket, &pc->out, fds, n_fds, pc->scratch);
}

void instance_wake(postcopy *pc)
{
    eventfd_write(pc->wake, 1);
}

const char *instance_refuse(postcopy *pc)
{
    enum postcopy_role role;

    if (!pc->refuse)
        return NULL;
    pthread_mutex_lock(&pc->lock);
    role = pc->role;
    pthread_mutex_unlock(&pc->lock);
    return pc->refuse(pc->user, role);
}

static int open_socket(postcopy *pc, Reason *ret_reason)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct timeval send_timeout = {.tv_sec = SEND_TIMEOUT_S};
    struct timeval receive_timeout = {.tv_sec = RECEIVE_TIMEOUT_S};
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    int error;

    if (fd < 0)
        return reason_set(ret_reason, -errno, "socket: %s", strerror(errno));
    memcpy(address.sun_path, pc->socket_path, strlen(pc->socket_path) + 1);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &send_timeout, sizeof send_timeout);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &receive_timeout, sizeof receive_timeout);
    do
        error = connect(fd, (const struct sockaddr *)&address, sizeof address);
    while (error < 0 && errno == EINTR);
    if (error < 0) {
        error = -errno;
        close(fd);
        return reason_set(ret_reason, error, "%s: %s", pc->socket_path, strerror(-error));
    }
    pc->socket = fd;
    return 0;
}

static bool must_leave(postcopy *pc)
{
    bool leave;

    pthread_mutex_lock(&pc->lock);
    leave = pc->stop || pc->reconnect;
    pthread_mutex_unlock(&pc->lock);
    return leave;
}

static bool is_stopping(postcopy *pc)
{
    bool stop;

    pthread_mutex_lock(&pc->lock);
    stop = pc->stop;
    pthread_mutex_unlock(&pc->lock);
    return stop;
}

static int lost(int error, Reason *ret_reason)
{
    switch (error) {
    case 0:
        return reason_set(ret_reason, -ECONNRESET, "the daemon closed the connection");
    case -EPROTO:
    case -EMSGSIZE:
        return reason_set(ret_reason, error, "the daemon sent a malformed message");
    case -EPROTONOSUPPORT:
        return reason_set(ret_reason, error, "the daemon speaks another version of the protocol");
    case -ESTALE:
        return reason_set(ret_reason, error, "the guest's memory has changed");
    default:
        return reason_set(ret_reason, error, "the connection is lost: %s", strerror(-error));
    }
}

static int handle_message(postcopy *pc, Reason *ret_reason)
{
    int result = client_channel_receive(&pc->channel, &pc->in);
    int error;

    if (result == -EAGAIN)
        return 0;
    if (result != 1)
        return lost(result, ret_reason);
    error = session_handle(pc);
    return error ? lost(error, ret_reason) : 0;
}

/* Until the connection ends, with a negative errno, or we want it to end, with 0. */
static int serve(postcopy *pc, Reason *ret_reason)
{
    struct pollfd polls[] = {
        {.fd = pc->socket, .events = POLLIN},
        {.fd = pc->wake, .events = POLLIN},
    };
    eventfd_t ignored;
    int error = request_send_queued(pc);

    if (!error)
        error = change_send(pc);
    while (!error && !must_leave(pc)) {
        if (poll(polls, 2, -1) < 0)
            continue;
        if (polls[1].revents) {
            eventfd_read(pc->wake, &ignored);
            error = request_send_queued(pc);
            if (!error)
                error = change_send(pc);
        }
        if (!error && polls[0].revents) {
            error = handle_message(pc, ret_reason);
            if (error)
                return error;
        }
    }
    if (error)
        return lost(error, ret_reason);
    return is_stopping(pc) ? 0 : reason_set(ret_reason, 0, "this guest introduces itself anew");
}

/* The answer to HELLO; requests wait meanwhile.  1 WELCOME, 0 to leave, or negative errno. */
static int await_welcome(postcopy *pc, bool *ret_refused, Reason *ret_reason)
{
    struct pollfd polls[] = {
        {.fd = pc->socket, .events = POLLIN},
        {.fd = pc->wake, .events = POLLIN},
    };
    int result = -EAGAIN;
    eventfd_t ignored;

    while (result == -EAGAIN) {
        if (must_leave(pc))
            return 0;
        if (poll(polls, 2, -1) < 0)
            continue;
        if (polls[1].revents)
            eventfd_read(pc->wake, &ignored);
        if (polls[0].revents)
            result = client_channel_receive(&pc->channel, &pc->in);
    }
    if (result != 1)
        return lost(result, ret_reason);
    if (pc->in.type == CLIENT_WELCOME)
        return 1;
    if (pc->in.type != CLIENT_ERROR)
        return lost(-EPROTO, ret_reason);
    *ret_refused = true;
    return reason_set(ret_reason, pc->in.status.status < 0 ? pc->in.status.status : -EPROTO, "%s",
                      pc->in.status.text);
}

static void link_up(postcopy *pc)
{
    pthread_mutex_lock(&pc->lock);
    pc->link = LINK_UP;
    pc->refused = false;
    change_welcomed(pc);
    pthread_cond_broadcast(&pc->changed);
    pthread_mutex_unlock(&pc->lock);
    pc->connected_notified = true;
    if (pc->armed.active) /* an adopting daemon has put itself into the table by now */
        drain_follow(&pc->armed);
    event_raise(pc, POSTCOPY_CONNECTED, "");
}

static void link_down(postcopy *pc, int status, bool refused, const Reason *reason)
{
    pthread_mutex_lock(&pc->lock);
    pc->link = LINK_DOWN;
    pc->refused = refused;
    pc->link_status = status;
    pc->link_reason = *reason;
    /* A daemon that still exports it says so after the next WELCOME. */
    if (pc->exported) {
        pc->exported = false;
        pc->memory_in_use = false;
    }
    request_fail(pc, reason->text);
    change_disconnected(pc, reason->text);
    pthread_cond_broadcast(&pc->changed);
    pthread_mutex_unlock(&pc->lock);
    if (pc->connected_notified)
        event_raise(pc, POSTCOPY_DISCONNECTED, reason->text);
    pc->connected_notified = false;
}

/* One connection from its start to its end.  True if the daemon welcomed us. */
static bool connect_once(postcopy *pc)
{
    Reason reason = {0};
    bool refused = false;
    int result = open_socket(pc, &reason);
    bool welcomed = false;

    if (!result) {
        client_channel_init(&pc->channel, pc->socket);
        result = session_greet(pc);
        if (result)
            result = lost(result, &reason);
        else
            result = await_welcome(pc, &refused, &reason);
        welcomed = result == 1;
        if (welcomed) {
            link_up(pc);
            result = serve(pc, &reason);
        }
        client_channel_deinit(&pc->channel);
        close(pc->socket);
        pc->socket = -1;
    }
    link_down(pc, result, refused, &reason);
    return welcomed;
}

/* Waits before the next attempt; a new request cuts it short. */
static void pause_before(postcopy *pc, int delay_ms)
{
    eventfd_t ignored;

    drain_wait(&pc->armed, &pc->regions, pc->wake, delay_ms);
    eventfd_read(pc->wake, &ignored); /* non-blocking */
}

static void *run(void *argument)
{
    postcopy *pc = argument;
    int delay = DELAY_FIRST_MS;

    while (!is_stopping(pc)) {
        int most = pc->armed.active ? DELAY_ARMED_MS : DELAY_IDLE_MS;
        if (connect_once(pc))
            delay = DELAY_FIRST_MS;
        else if (pc->refused)
            delay = DELAY_IDLE_MS;
        if (is_stopping(pc))
            break;
        pause_before(pc, delay);
        delay = delay * 2 < most ? delay * 2 : most;
    }
    return NULL;
}

int connection_start(postcopy *pc)
{
    sigset_t all, before;
    int error;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    error = pthread_create(&pc->thread, NULL, run, pc);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!error)
        (void)pthread_setname_np(pc->thread, "postcopy");
    return -error;
}
