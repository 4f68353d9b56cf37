/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <netdb.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "client/ctl/address.h"
#include "client/ctl/host_check.h"
#include "protocol/peer.h"
#include "version.h"

enum { PATIENCE_S = 5 };

/*
 * The io_uring that another check has just closed interrupts whatever call this thread sits in when the kernel
 * comes to take it apart.  Linux goes on with a connect() that is asked for again.
 */
static int connect_patiently(int fd, const struct addrinfo *address)
{
    int result;

    do
        result = connect(fd, address->ai_addr, address->ai_addrlen);
    while (result < 0 && errno == EINTR);
    return result;
}

static gboolean receive_all(int fd, void *buffer, gsize length)
{
    gsize done = 0;

    while (done < length) {
        gssize got = recv(fd, (guint8 *)buffer + done, length - done, 0);

        if (got > 0)
            done += (gsize)got;
        else if (got == 0 || errno != EINTR)
            return FALSE;
    }
    return TRUE;
}

static int connect_one(const struct addrinfo *address)
{
    const struct timeval patience = {.tv_sec = PATIENCE_S};
    int fd = socket(address->ai_family, address->ai_socktype | SOCK_CLOEXEC, address->ai_protocol);
    int error;

    if (fd < 0)
        return -1;
    /* Linux takes the first for connect(), too. */
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (connect_patiently(fd, address) == 0)
        return fd;
    error = errno;
    close(fd);
    errno = error == EINPROGRESS ? ETIMEDOUT : error;
    return -1;
}

static int connect_any(const char *host, const char *port, char **ret_why)
{
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *all = NULL;
    int result = getaddrinfo(host, port, &hints, &all);
    int fd = -1;

    if (result) {
        *ret_why = g_strdup(gai_strerror(result));
        return -1;
    }
    for (const struct addrinfo *one = all; one && fd < 0; one = one->ai_next)
        fd = connect_one(one);
    if (fd < 0)
        *ret_why = g_strdup(g_strerror(errno));
    freeaddrinfo(all);
    return fd;
}

static gboolean send_message(int fd, const PeerMessage *message)
{
    guint8 frame[1024];
    gssize length = peer_message_encode(message, frame, sizeof frame);

    return length > 0 && send(fd, frame, (gsize)length, MSG_NOSIGNAL) == length;
}

static gboolean receive_message(int fd, PeerMessage *ret_message)
{
    guint8 bytes[PEER_HEADER_SIZE], body[1024];
    PeerHeader header;

    return receive_all(fd, bytes, sizeof bytes) && peer_header_decode(bytes, &header) == 0 &&
           header.length <= sizeof body && receive_all(fd, body, header.length) &&
           peer_message_decode(&header, body, ret_message) == 0;
}

/* The greeting that every connection between daemons begins with, and no more. */
static gboolean greet(int fd, const struct utsname *host, PeerMessage *message)
{
    memset(message, 0, sizeof *message);
    message->type = PEER_START;
    message->start.magic = PEER_MAGIC;
    if (!send_message(fd, message) || !receive_message(fd, message) ||
        message->type != PEER_STARTED || message->start.magic != PEER_MAGIC)
        return FALSE;
    memset(message, 0, sizeof *message);
    message->type = PEER_HELLO;
    message->hello.version_lowest = PEER_VERSION_LOWEST;
    message->hello.version_highest = PEER_VERSION_HIGHEST;
    message->hello.page_size = (guint64)sysconf(_SC_PAGESIZE);
    g_strlcpy(message->hello.machine, host->machine, sizeof message->hello.machine);
    g_strlcpy(message->hello.agent, "postcopyctl " POSTCOPYD_VERSION, sizeof message->hello.agent);
    return send_message(fd, message) && receive_message(fd, message) && message->type == PEER_HELLO;
}

/* As the daemons judge each other. */
static void judge(HostCheck *check, const char *host, const char *port, const struct utsname *self,
                  const PeerMessage *greeting)
{
    if (greeting->hello.version_lowest > PEER_VERSION_HIGHEST ||
        greeting->hello.version_highest < PEER_VERSION_LOWEST)
        host_say(check, "peer", HOST_FAIL, "install the same version on both hosts",
                 "%s at %s port %s speaks another protocol than this host", greeting->hello.agent,
                 host, port);
    else if (strcmp(greeting->hello.machine, self->machine) != 0 ||
             greeting->hello.page_size != (guint64)sysconf(_SC_PAGESIZE))
        host_say(
            check, "peer", HOST_FAIL, "guests can only move between hosts of one kind",
            "%s at %s port %s is on a host of another kind: %s with pages of %" G_GUINT64_FORMAT
            " bytes",
            greeting->hello.agent, host, port, greeting->hello.machine,
            (guint64)greeting->hello.page_size);
    else
        host_say(check, "peer", HOST_OK, NULL, "%s answers at %s port %s", greeting->hello.agent,
                 host, port);
}

void host_check_peer(HostCheck *check)
{
    g_autofree char *host = NULL, *port = NULL, *why = NULL;
    g_autofree PeerMessage *message = g_new0(PeerMessage, 1);
    struct utsname self = {.machine = ""};
    int fd;

    if (!address_split(check->peer, &host, &port) || uname(&self))
        return;
    fd = connect_any(host, port, &why);
    if (fd < 0)
        host_say(
            check, "peer", HOST_FAIL,
            "is postcopyd running there, with [peer] listen on that address, and the port open "
            "in the firewall?",
            "%s does not answer on port %s: %s", host, port, why);
    else if (!greet(fd, &self, message))
        host_say(check, "peer", HOST_FAIL, "is it postcopyd that listens there?",
                 "%s answers on port %s, but not as postcopyd does", host, port);
    else
        judge(check, host, port, &self, message);
    if (fd >= 0)
        close(fd);
}
