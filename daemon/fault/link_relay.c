/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/fault/link_relay.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/core/log.h"
#include "daemon/core/thread.h"
#include "daemon/fault/import.h"
#include "daemon/fault/link_attach.h"

enum { CONNECT_TRIES = 250, CONNECT_PAUSE_MS = 20 };

/* The socket's path is in a folder others may write to: only the client itself will do. */
static int check_peer(int fd, int client_pid)
{
    struct ucred peer;
    socklen_t length = sizeof peer;

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length))
        return -errno;
    return peer.pid == client_pid ? 0 : -EACCES;
}

/* A backlog that is full makes a connection wait for as long as its owner likes: we do not. */
static int connect_in_time(const Link *link, int fd, const struct sockaddr_un *address)
{
    struct pollfd stop = {.fd = link->stop_fd, .events = POLLIN};

    for (unsigned try = 0; try < CONNECT_TRIES; try++) {
        if (connect(fd, (const struct sockaddr *)address, sizeof *address) == 0)
            return 0;
        if (errno != EAGAIN && errno != EINTR)
            return -errno;
        if (poll(&stop, 1, CONNECT_PAUSE_MS) > 0)
            return -ECANCELED;
    }
    return -ETIMEDOUT;
}

static int connect_client(const Link *link)
{
    const Import *import = link->import;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd, error;

    if (strlen(import->incoming) >= sizeof address.sun_path)
        return -ENAMETOOLONG;
    memcpy(address.sun_path, import->incoming, strlen(import->incoming) + 1);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    error = connect_in_time(link, fd, &address);
    if (!error)
        error = check_peer(fd, import->client_pid);
    if (!error)
        return fd;
    close(fd);
    return error;
}

/* The source's driver waits for the relay, and its guest can still stay where it is. */
static void give_up(Import *import, const char *why)
{
    char text[LIMIT_TEXT + 1];

    log_error("%s: no relay for the device state: %s", import->name, why);
    snprintf(text, sizeof text, "no relay for the device state: %.900s", why);
    if (!import_gate_is_open(import))
        import->notify(import->owner, import, IMPORT_CANCELLED, text);
}

static void *run(void *argument)
{
    Link *link = argument;
    Import *import = link->import;
    PeerMessage *message = calloc(1, sizeof *message);
    char text[LIMIT_TEXT + 1] = "out of memory";
    int client, channel = -1;

    prctl(PR_SET_NAME, "relay");
    client = message ? connect_client(link) : -ENOMEM;
    if (client < 0)
        snprintf(text, sizeof text, "the destination's incoming socket %s: %s", import->incoming,
                 strerror(-client));
    else
        channel = link_join(link, &link->relay_lease, message, PEER_CHANNEL_RELAY, 0, NULL, text);
    if (channel >= 0)
        relay_run(&link->relay, client, channel);
    else
        give_up(import, text);
    if (client >= 0)
        close(client);
    if (channel >= 0)
        close(channel);
    free(message);
    return NULL;
}

void link_relay_start(Link *link)
{
    if (link->relay_started || link->import->incoming[0] == '\0')
        return;
    link->relay_lease = link->lease; /* that of the link changes when it is built up anew */
    link->relay_started = pthread_create(&link->relay_thread, NULL, run, link) == 0;
}

void link_relay_stop(Link *link)
{
    if (!link->relay_started)
        return;
    atomic_store(&link->relay.stop, true);
    thread_join(link->relay_thread);
    link->relay_started = false;
}
