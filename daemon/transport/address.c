/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/transport/address.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

static bool port_is_sound(const char *port)
{
    char *end;
    unsigned long value;

    if (port[0] < '0' || port[0] > '9' || strlen(port) > 5)
        return false;
    value = strtoul(port, &end, 10);
    return *end == '\0' && value <= 65535;
}

int address_parse(const char *text, Address *ret_address)
{
    const char *colon = strrchr(text, ':');
    const char *host = text;
    size_t length;

    if (!colon || !port_is_sound(colon + 1))
        return -EINVAL;
    length = (size_t)(colon - text);
    if (host[0] == '[') {
        if (length < 3 || colon[-1] != ']')
            return -EINVAL;
        host++;
        length -= 2;
    } else if (memchr(host, ':', length)) {
        return -EINVAL; /* an IPv6 address without its brackets */
    }
    if (length >= sizeof ret_address->host)
        return -EINVAL;
    memcpy(ret_address->host, host, length);
    ret_address->host[length] = '\0';
    snprintf(ret_address->port, sizeof ret_address->port, "%s", colon + 1);
    return 0;
}

int address_format(const char *host, const char *port, char *ret_text)
{
    bool bare = strchr(host, ':') == NULL;
    int length = snprintf(ret_text, LIMIT_ADDRESS + 1, "%s%s%s:%s", bare ? "" : "[", host,
                          bare ? "" : "]", port);

    return length > 0 && length <= LIMIT_ADDRESS ? 0 : -EINVAL;
}

/* flags: AI_PASSIVE, AI_NUMERICHOST. */
static int resolve(const Address *address, int flags, struct addrinfo **ret_list)
{
    struct addrinfo hints = {
        .ai_family = AF_UNSPEC,
        .ai_socktype = SOCK_STREAM,
        .ai_flags = AI_NUMERICSERV | flags,
    };
    int error =
        getaddrinfo(address->host[0] ? address->host : NULL, address->port, &hints, ret_list);

    if (error == 0)
        return 0;
    if (error == EAI_NONAME && flags & AI_NUMERICHOST)
        return -EINVAL;
    return error == EAI_SYSTEM ? -errno : error == EAI_MEMORY ? -ENOMEM : -ENXIO;
}

const char *address_error(int error)
{
    return error == -ENXIO ? "its name cannot be looked up" : strerror(-error);
}

bool address_is_numeric(const Address *address)
{
    struct addrinfo *list;

    if (address->host[0] == '\0' || resolve(address, AI_NUMERICHOST, &list))
        return false;
    freeaddrinfo(list);
    return true;
}

void address_tune(int socket, int dead_ms)
{
    int one = 1;
    unsigned dead = (unsigned)dead_ms;

    setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, &dead, sizeof dead);
}

/* RFC 4594: signalling, which hosts and networks let pass first and do not police as they do voice;
 * and what may wait for everything else. */
enum { DSCP_CS1 = 8, DSCP_CS5 = 40, PRIORITY_URGENT = 6, PRIORITY_BULK = 2 };

void address_prioritise(int socket, bool urgent)
{
    int field = (urgent ? DSCP_CS5 : DSCP_CS1) << 2;
    int priority = urgent ? PRIORITY_URGENT : PRIORITY_BULK;

    /* Whichever fits the address family; after it, as it sets the priority too. */
    setsockopt(socket, IPPROTO_IP, IP_TOS, &field, sizeof field);
    setsockopt(socket, IPPROTO_IPV6, IPV6_TCLASS, &field, sizeof field);
    setsockopt(socket, SOL_SOCKET, SO_PRIORITY, &priority, sizeof priority);
}

void address_bound_unsent(int socket, int bytes)
{
    setsockopt(socket, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &bytes, sizeof bytes);
}

/* From the upper half on: the lower is for services. */
enum { RESERVED_FIRST = 512, RESERVED_END = 1024 };

/* Best effort; without one the port is the kernel's choice. */
static void bind_reserved(int fd, int family)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
    unsigned seed = 0, tries = RESERVED_END - RESERVED_FIRST;
    int result = -1;

    if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) < 0)
        seed = (unsigned)getpid();
    do {
        in_port_t port = htons((in_port_t)(RESERVED_FIRST + seed++ % tries));

        v4.sin_port = v6.sin6_port = port;
        result = family == AF_INET ? bind(fd, (struct sockaddr *)&v4, sizeof v4)
                                   : bind(fd, (struct sockaddr *)&v6, sizeof v6);
    } while (result && errno == EADDRINUSE && --tries);
}

bool address_peer_is_reserved(int socket)
{
    struct sockaddr_storage peer = {0};
    socklen_t length = sizeof peer;
    in_port_t port = 0;

    if (getpeername(socket, (struct sockaddr *)&peer, &length))
        return false;
    if (peer.ss_family == AF_INET)
        port = ((struct sockaddr_in *)&peer)->sin_port;
    else if (peer.ss_family == AF_INET6)
        port = ((struct sockaddr_in6 *)&peer)->sin6_port;
    return port != 0 && ntohs(port) < RESERVED_END;
}

static int connect_one(const struct addrinfo *info, bool reserved, int timeout_ms, int cancel_fd)
{
    int fd = socket(info->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct pollfd fds[2] = {{.fd = fd, .events = POLLOUT}, {.fd = cancel_fd, .events = POLLIN}};
    int error = 0, ready;
    socklen_t length = sizeof error;

    if (fd < 0)
        return -errno;
    if (reserved)
        bind_reserved(fd, info->ai_family);
    if (connect(fd, info->ai_addr, info->ai_addrlen) == 0)
        return fd;
    if (errno != EINPROGRESS) {
        error = errno;
    } else {
        while ((ready = poll(fds, 2, timeout_ms)) < 0 && errno == EINTR)
            ;
        if (ready == 0)
            error = ETIMEDOUT;
        else if (ready > 0 && fds[1].revents)
            error = ECANCELED;
        else if (ready < 0 || getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length))
            error = errno;
    }
    if (error == 0)
        return fd;
    close(fd);
    return -error;
}

static int connect_from(const Address *address, bool reserved, int timeout_ms, int dead_ms,
                        int cancel_fd)
{
    struct addrinfo *list;
    int fd = resolve(address, cancel_fd >= 0 ? AI_NUMERICHOST : 0, &list);

    if (fd)
        return fd;
    fd = -EHOSTUNREACH;
    for (const struct addrinfo *info = list; info && fd < 0; info = info->ai_next)
        fd = connect_one(info, reserved, timeout_ms, cancel_fd);
    freeaddrinfo(list);
    if (fd >= 0)
        address_tune(fd, dead_ms);
    return fd;
}

int address_connect(const Address *address, int timeout_ms, int dead_ms, int cancel_fd)
{
    return connect_from(address, false, timeout_ms, dead_ms, cancel_fd);
}

int address_connect_reserved(const Address *address, int timeout_ms, int dead_ms, int cancel_fd)
{
    return connect_from(address, true, timeout_ms, dead_ms, cancel_fd);
}

static int listen_one(const struct addrinfo *info)
{
    int fd = socket(info->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int one = 1;
    int error;

    if (fd < 0)
        return -errno;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0 &&
        bind(fd, info->ai_addr, info->ai_addrlen) == 0 && listen(fd, 64) == 0)
        return fd;
    error = -errno;
    close(fd);
    return error;
}

int address_listen(const Address *address)
{
    struct addrinfo *list;
    int fd = resolve(address, AI_PASSIVE, &list);

    if (fd)
        return fd;
    fd = -EHOSTUNREACH;
    for (const struct addrinfo *info = list; info && fd < 0; info = info->ai_next)
        fd = listen_one(info);
    freeaddrinfo(list);
    return fd;
}

static bool is_loopback(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)(const void *)address)->sin_addr.s_addr) >> 24 ==
               127;
    return address->sa_family == AF_INET6 &&
           IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)address)->sin6_addr);
}

bool address_is_loopback(const Address *address)
{
    struct addrinfo *list;
    bool all = true;

    if (address->host[0] == '\0' || resolve(address, 0, &list))
        return false;
    for (const struct addrinfo *info = list; info; info = info->ai_next)
        all = all && is_loopback(info->ai_addr);
    freeaddrinfo(list);
    return all;
}

int address_peer_host(int socket, char *ret_host, size_t size)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof address;

    if (getpeername(socket, (struct sockaddr *)&address, &length))
        return -errno;
    return getnameinfo((struct sockaddr *)&address, length, ret_host, (socklen_t)size, NULL, 0,
                       NI_NUMERICHOST)
               ? -EINVAL
               : 0;
}

int address_own_port(int socket, char *ret_port, size_t size)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof address;

    if (getsockname(socket, (struct sockaddr *)&address, &length))
        return -errno;
    return getnameinfo((struct sockaddr *)&address, length, NULL, 0, ret_port, (socklen_t)size,
                       NI_NUMERICSERV)
               ? -EINVAL
               : 0;
}
