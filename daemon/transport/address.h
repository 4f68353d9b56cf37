/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * HOST:PORT as people write it ("[::1]:16520" for IPv6), and TCP sockets from it.
 * Any thread; resolving a name may block.
 */
#ifndef POSTCOPYD_TRANSPORT_ADDRESS_H
#define POSTCOPYD_TRANSPORT_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>

#include "protocol/limits.h"

typedef struct Address {
    char host[LIMIT_ADDRESS + 1]; /* "" in ":PORT" */
    char port[8];                 /* decimal, 0 to 65535 */
} Address;

/* 0, or -EINVAL. */
int address_parse(const char *text, Address *ret_address);

/* Writes "HOST:PORT" into ret_text[LIMIT_ADDRESS + 1]; 0 or -EINVAL if it would not fit. */
int address_format(const char *host, const char *port, char *ret_text);

/*
 * A connected socket, non-blocking, close-on-exec, without Nagle's delay, that notices a dead peer
 * within dead_ms.  Negative errno after timeout_ms (-ETIMEDOUT) or a failure; -ECANCELED as soon as
 * cancel_fd (-1: none) is readable.  With a cancel_fd the host must be numeric (-EINVAL): looking a
 * name up may take long, and cannot be cancelled.
 */
int address_connect(const Address *address, int timeout_ms, int dead_ms, int cancel_fd);

/* The same from a port below 1024, as far as this process may have one: the other side then knows that
 * no ordinary user of this host speaks to it. */
int address_connect_reserved(const Address *address, int timeout_ms, int dead_ms, int cancel_fd);

/* True if the peer's port is such a one. */
bool address_peer_is_reserved(int socket);

/* A listening socket, non-blocking; -EADDRINUSE and so on. */
int address_listen(const Address *address);

/* What connecting and listening say, in words; -ENXIO is that the host's name could not be looked up.  Any thread. */
const char *address_error(int error);

/* True if the host is an address, not a name: nobody needs to be asked. Never blocks. */
bool address_is_numeric(const Address *address);

/* True if every address the name stands for is a loopback one. */
bool address_is_loopback(const Address *address);

/* The peer's host, or the own port, of a socket, as text. 0 or negative errno. */
int address_peer_host(int socket, char *ret_host, size_t size);
int address_own_port(int socket, char *ret_port, size_t size);

/* What every data socket gets: no Nagle, a bound on how long a dead peer stays unnoticed. */
void address_tune(int socket, int dead_ms);

/* Marks a data socket, best effort, for the queues of this host and of the network: urgent goes before
 * bulk wherever they look at it. */
void address_prioritise(int socket, bool urgent);

/* What is written goes into the kernel only while fewer bytes than that wait there to be sent. */
void address_bound_unsent(int socket, int bytes);

#endif
