/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which TCP connections a process has, as /proc tells: by them a destination finds out where its QEMU's
 * migration comes from, and a source that it goes to who asks.  Files are read: worker threads only.
 */
#ifndef POSTCOPYD_QEMU_SOCKETS_H
#define POSTCOPYD_QEMU_SOCKETS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { SOCKETS_TEXT = 64 }; /* bytes of an end as text, its terminator included */

typedef enum SocketState {
    SOCKET_OTHER = 0,
    SOCKET_ESTABLISHED = 1, /* the kernel's TCP_ESTABLISHED */
    SOCKET_LISTENING = 10,  /* TCP_LISTEN */
} SocketState;

/* One end. An IPv4 address that came mapped into IPv6 is IPv4 here, so that ends compare. */
typedef struct SocketEnd {
    bool ipv6;
    uint8_t address[16]; /* in network order; of IPv4 the first four bytes, the rest zero */
    uint16_t port;       /* in the host's order */
} SocketEnd;

typedef struct ProcessSocket {
    SocketEnd local, remote;
    SocketState state;
    uint64_t inode;
} ProcessSocket;

/* Ports, by number. */
typedef struct PortSet {
    uint8_t bits[(UINT16_MAX + 1) / 8];
} PortSet;

void port_set_add(PortSet *set, uint16_t port);
bool port_set_has(const PortSet *set, uint16_t port);

/*
 * The connection over which an incoming migration came: an established one to a port at which the process
 * itself listens, and that is not among others (NULL: none), at which it listens for something else.
 * 1; 0: there is none (yet); -ENOTUNIQ: there are some, from more than one host, so one of them
 * could be anybody's; other negative errno: the process cannot be looked at.
 */
int sockets_find_incoming(int pid, const PortSet *others, ProcessSocket *ret_socket);

/* How many established connections to that end the process has, at most counts, and their inodes; or negative
 * errno. */
int sockets_find_remote(int pid, const SocketEnd *remote, uint64_t *ret_inodes, uint32_t most);

/* "10.0.0.1:49152", "[fd00::1]:49152". */
void socket_end_format(const SocketEnd *end, char ret_text[SOCKETS_TEXT]);

/* The same without the port, and without brackets. */
void socket_end_format_host(const SocketEnd *end, char ret_text[SOCKETS_TEXT]);

/* The reverse of socket_end_format(). False: it is no numeric address with a port. */
bool socket_end_parse(const char *text, SocketEnd *ret_end);

bool socket_end_equals(const SocketEnd *a, const SocketEnd *b);

/* For those above, and their tests: a line of /proc/PID/net/tcp (or tcp6). False: it is none. */
bool sockets_parse_line(const char *line, bool ipv6, ProcessSocket *ret_socket);

typedef void (*SocketVisit)(void *user, const ProcessSocket *socket);

/* The same: shows each of a whole such file whose inode is among inodes[n_inodes], which are sorted. */
void sockets_select(FILE *file, bool ipv6, const uint64_t *inodes, size_t n_inodes,
                    SocketVisit visit, void *user);

/* The same: sees every socket as a listener, then every one as a connection. */
typedef struct IncomingSearch {
    const PortSet *others; /* NULL: none */
    PortSet listening;
    bool found, several; /* several: from more than one host */
    ProcessSocket socket;
} IncomingSearch;

void incoming_search_listener(void *search, const ProcessSocket *socket);
void incoming_search_connection(void *search, const ProcessSocket *socket);

#endif
