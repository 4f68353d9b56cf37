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

enum {
    SOCKETS_MAX = 256, /* of one process, that a caller need look at */
    SOCKETS_TEXT = 64, /* bytes of an end as text, its terminator included */
};

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

/*
 * The TCP sockets that a process holds, in its own network namespace: how many, at most most, into
 * ret_sockets; negative errno if the process cannot be looked at.
 */
int sockets_of_process(int pid, ProcessSocket *ret_sockets, uint32_t most);

/*
 * The connection over which an incoming migration came: an established one to a port that the process
 * itself listens at.  NULL: there is none.
 */
const ProcessSocket *sockets_find_accepted(const ProcessSocket *sockets, uint32_t n);

/* "10.0.0.1:49152", "[fd00::1]:49152". */
void socket_end_format(const SocketEnd *end, char ret_text[SOCKETS_TEXT]);

/* The same without the port, and without brackets. */
void socket_end_format_host(const SocketEnd *end, char ret_text[SOCKETS_TEXT]);

/* The reverse of socket_end_format(). False: it is no numeric address with a port. */
bool socket_end_parse(const char *text, SocketEnd *ret_end);

bool socket_end_equals(const SocketEnd *a, const SocketEnd *b);

/* For those above, and their tests: a line of /proc/PID/net/tcp (or tcp6). False: it is none. */
bool sockets_parse_line(const char *line, bool ipv6, ProcessSocket *ret_socket);

/* Those of a whole such file whose inode is among inodes[n_inodes], which are sorted.  How many. */
uint32_t sockets_select(FILE *file, bool ipv6, const uint64_t *inodes, size_t n_inodes,
                        ProcessSocket *ret_sockets, uint32_t most);

#endif
