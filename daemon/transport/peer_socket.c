/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/transport/peer_socket.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "daemon/core/clock.h"
#include "daemon/transport/address.h"
#include "version.h"

/* What this daemon can do beyond the version; it requires none of it of others. */
#define FEATURES (PEER_FEATURE_RDMA | PEER_FEATURE_AHEAD)

PeerSocket *peer_socket_new(int fd)
{
    PeerSocket *peer = malloc(sizeof *peer);

    if (!peer) {
        close(fd);
        return NULL;
    }
    peer->fd = fd;
    peer->cancel_fd = -1;
    peer->timeout_ms = PEER_HANDSHAKE_MS;
    peer->features = 0;
    return peer;
}

void peer_socket_free(PeerSocket *peer)
{
    if (!peer)
        return;
    close(peer->fd);
    free(peer);
}

int peer_socket_steal(PeerSocket *peer)
{
    int fd = peer->fd;

    free(peer);
    return fd;
}

/* Waits until the socket is ready for events. 0 or negative errno. */
static int wait_ready(const PeerSocket *peer, short events, uint64_t deadline_ns)
{
    struct pollfd fds[2] = {
        {.fd = peer->fd, .events = events},
        {.fd = peer->cancel_fd, .events = POLLIN},
    };
    uint64_t now = clock_ns();
    int ready;

    if (now >= deadline_ns)
        return -ETIMEDOUT;
    ready = poll(fds, 2, (int)((deadline_ns - now + 999999) / 1000000));
    if (ready < 0)
        return errno == EINTR ? 0 : -errno;
    if (fds[1].revents)
        return -ECANCELED;
    return ready == 0 ? -ETIMEDOUT : 0;
}

int peer_socket_send(PeerSocket *peer, const PeerMessage *message)
{
    uint8_t frame[PEER_HEADER_SIZE + PEER_CONTROL_MAX];
    ssize_t length = peer_message_encode(message, frame, sizeof frame);
    uint64_t deadline = clock_ns() + UINT64_C(1000000) * (uint64_t)peer->timeout_ms;
    const uint8_t *at = frame;

    if (length < 0)
        return (int)length;
    while (length > 0) {
        ssize_t sent = send(peer->fd, at, (size_t)length, MSG_NOSIGNAL | MSG_DONTWAIT);
        int error = 0;

        if (sent < 0 && errno != EAGAIN && errno != EINTR)
            return -errno;
        if (sent < 0)
            error = wait_ready(peer, POLLOUT, deadline);
        if (error)
            return error;
        if (sent > 0) {
            at += sent;
            length -= sent;
        }
    }
    return 0;
}

static int receive_exactly(const PeerSocket *peer, uint8_t *at, size_t length, uint64_t deadline_ns)
{
    while (length > 0) {
        ssize_t received = recv(peer->fd, at, length, MSG_DONTWAIT);
        int error = 0;

        if (received == 0)
            return -ECONNRESET;
        if (received < 0 && errno != EAGAIN && errno != EINTR)
            return -errno;
        if (received < 0)
            error = wait_ready(peer, POLLIN, deadline_ns);
        if (error)
            return error;
        if (received > 0) {
            at += received;
            length -= (size_t)received;
        }
    }
    return 0;
}

int peer_socket_receive(PeerSocket *peer, PeerMessage *ret_message, int timeout_ms)
{
    uint64_t deadline = clock_ns() + UINT64_C(1000000) * (uint64_t)timeout_ms;
    PeerHeader header;
    int error = receive_exactly(peer, peer->frame, PEER_HEADER_SIZE, deadline);

    if (error)
        return error;
    error = peer_header_decode(peer->frame, &header);
    if (error)
        return error;
    if (header.type == PEER_DATA)
        return -EPROTO;
    error = receive_exactly(peer, peer->frame + PEER_HEADER_SIZE, header.length, deadline);
    if (error)
        return error;
    return peer_message_decode(&header, peer->frame + PEER_HEADER_SIZE, ret_message);
}

/* One handshake step: the frame that must come next, or what came instead, in words. */
static int expect(PeerSocket *peer, PeerMessage *message, PeerMessageType type, char *ret_text)
{
    int error = peer_socket_receive(peer, message, PEER_HANDSHAKE_MS);

    if (error) {
        snprintf(ret_text, LIMIT_TEXT + 1, "%s",
                 error == -EPROTO ? "it does not speak postcopyd's protocol" : strerror(-error));
        return error;
    }
    if (message->type == PEER_BYE) {
        char text[LIMIT_TEXT + 1];
        snprintf(text, sizeof text, "%s", message->status.text);
        snprintf(ret_text, LIMIT_TEXT + 1, "%s", text);
        return -ECONNREFUSED;
    }
    if (message->type != type) {
        snprintf(ret_text, LIMIT_TEXT + 1, "it sent frame %d where %d belongs", message->type,
                 type);
        return -EPROTO;
    }
    return 0;
}

static int send_hello(PeerSocket *peer, PeerMessage *message)
{
    struct utsname name;

    memset(message, 0, sizeof *message);
    message->type = PEER_HELLO;
    message->hello.version_lowest = PEER_VERSION_LOWEST;
    message->hello.version_highest = PEER_VERSION_HIGHEST;
    message->hello.features_optional = FEATURES;
    message->hello.page_size = (uint64_t)sysconf(_SC_PAGESIZE);
    if (uname(&name) == 0)
        snprintf(message->hello.machine, sizeof message->hello.machine, "%s", name.machine);
    snprintf(message->hello.agent, sizeof message->hello.agent, "postcopyd %s", POSTCOPYD_VERSION);
    return peer_socket_send(peer, message);
}

static int check_hello(const PeerMessage *message, char *ret_text)
{
    struct utsname name;

    if (message->hello.version_lowest > PEER_VERSION_HIGHEST ||
        message->hello.version_highest < PEER_VERSION_LOWEST) {
        snprintf(ret_text, LIMIT_TEXT + 1,
                 "%s speaks versions %u to %u of the protocol, this daemon %d to %d: upgrade one",
                 message->hello.agent, message->hello.version_lowest,
                 message->hello.version_highest, PEER_VERSION_LOWEST, PEER_VERSION_HIGHEST);
        return -EPROTONOSUPPORT;
    }
    if (message->hello.features_required & ~FEATURES) {
        snprintf(ret_text, LIMIT_TEXT + 1, "%s requires features this daemon does not have",
                 message->hello.agent);
        return -EPROTONOSUPPORT;
    }
    if (uname(&name) || strcmp(name.machine, message->hello.machine) != 0 ||
        message->hello.page_size != (uint64_t)sysconf(_SC_PAGESIZE)) {
        snprintf(ret_text, LIMIT_TEXT + 1, "the hosts differ: it is %s with pages of %llu bytes",
                 message->hello.machine, (unsigned long long)message->hello.page_size);
        return -EPROTONOSUPPORT;
    }
    return 0;
}

static int exchange_hellos(PeerSocket *peer, PeerMessage *message, char *ret_text)
{
    int error = send_hello(peer, message);

    if (error) {
        snprintf(ret_text, LIMIT_TEXT + 1, "%s", strerror(-error));
        return error;
    }
    error = expect(peer, message, PEER_HELLO, ret_text);
    if (!error)
        error = check_hello(message, ret_text);
    if (!error)
        peer->features =
            (message->hello.features_optional | message->hello.features_required) & FEATURES;
    return error;
}

static int send_start(PeerSocket *peer, PeerMessage *message, PeerMessageType type)
{
    memset(message, 0, sizeof *message);
    message->type = type;
    message->start.magic = PEER_MAGIC;
    return peer_socket_send(peer, message);
}

int peer_socket_greet(PeerSocket *peer, PeerMessage *scratch, char *ret_text)
{
    int error = send_start(peer, scratch, PEER_START);

    if (error)
        snprintf(ret_text, LIMIT_TEXT + 1, "%s", strerror(-error));
    else
        error = expect(peer, scratch, PEER_STARTED, ret_text);
    if (!error && scratch->start.magic != PEER_MAGIC)
        error = -EPROTO;
    return error ? error : exchange_hellos(peer, scratch, ret_text);
}

int peer_socket_welcome(PeerSocket *peer, PeerMessage *scratch, char *ret_text)
{
    int error = expect(peer, scratch, PEER_START, ret_text);

    if (error)
        return error;
    if (scratch->start.magic != PEER_MAGIC) {
        snprintf(ret_text, LIMIT_TEXT + 1, "it does not speak postcopyd's protocol");
        return -EPROTO;
    }
    if (scratch->start.tls) {
        snprintf(ret_text, LIMIT_TEXT + 1, "it wants TLS, which this daemon does not offer");
        return -EPROTONOSUPPORT;
    }
    error = send_start(peer, scratch, PEER_STARTED);
    return error ? error : exchange_hellos(peer, scratch, ret_text);
}

typedef int (*Connect)(const Address *address, int timeout_ms, int dead_ms, int cancel_fd);

static PeerSocket *connect_by(Connect connect, const char *address, int dead_ms, int cancel_fd,
                              PeerMessage *scratch, int *ret_error, char *ret_text)
{
    char text[LIMIT_TEXT + 1] = "";
    PeerSocket *peer = NULL;
    Address parsed;
    int fd = address_parse(address, &parsed);

    if (fd == 0)
        fd = connect(&parsed, PEER_HANDSHAKE_MS / 2, dead_ms, cancel_fd);
    if (fd >= 0)
        peer = peer_socket_new(fd);
    *ret_error = fd < 0 ? fd : peer ? 0 : -ENOMEM;
    if (peer) {
        peer->cancel_fd = cancel_fd;
        *ret_error = peer_socket_greet(peer, scratch, text);
    }
    if (*ret_error == 0)
        return peer;
    snprintf(ret_text, LIMIT_TEXT + 1, "daemon at %.200s: %.700s", address,
             text[0] ? text : address_error(*ret_error));
    peer_socket_free(peer);
    return NULL;
}

PeerSocket *peer_socket_connect(const char *address, int dead_ms, int cancel_fd,
                                PeerMessage *scratch, int *ret_error, char *ret_text)
{
    return connect_by(address_connect, address, dead_ms, cancel_fd, scratch, ret_error, ret_text);
}

PeerSocket *peer_socket_connect_reserved(const char *address, int dead_ms, int cancel_fd,
                                         PeerMessage *scratch, int *ret_error, char *ret_text)
{
    return connect_by(address_connect_reserved, address, dead_ms, cancel_fd, scratch, ret_error,
                      ret_text);
}

void peer_socket_refuse(PeerSocket *peer, PeerMessage *scratch, PeerErrorCode code,
                        const char *text)
{
    char copy[LIMIT_TEXT + 1];

    snprintf(copy, sizeof copy, "%s", text);
    memset(scratch, 0, sizeof *scratch);
    scratch->type = PEER_BYE;
    scratch->status.code = code;
    memcpy(scratch->status.text, copy, sizeof copy);
    peer_socket_send(peer, scratch);
}
