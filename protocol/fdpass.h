/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One packet with file descriptors over a UNIX SOCK_SEQPACKET socket.
 *
 * No fd is lost and none leaks: a received fd is close-on-exec, and a packet whose control data the
 * kernel had to cut (MSG_CTRUNC: the receiver is out of fds, or the sender sent too many) is refused
 * after whatever did arrive has been closed.  Any thread; one sender and one receiver a socket.
 */
#ifndef POSTCOPYD_PROTOCOL_FDPASS_H
#define POSTCOPYD_PROTOCOL_FDPASS_H

#include <stddef.h>
#include <sys/types.h>

/*
 * Sends length bytes and n_fds fds (0 to LIMIT_FDS_PACKET) as one packet.  The fds stay the
 * caller's.  0, or negative errno: -EAGAIN if the socket is non-blocking and full.
 */
int fdpass_send(int socket, const void *data, size_t length, const int *fds, size_t n_fds);

/*
 * Receives one packet into data and its fds, at most max_fds, into ret_fds; the caller owns them.
 * Returns the packet's length, 0 at the end of the connection, or negative errno: -EMSGSIZE if the
 * packet was longer than size or its fds more than max_fds, -EAGAIN if none is there.
 */
ssize_t fdpass_receive(int socket, void *data, size_t size, int *ret_fds, size_t max_fds,
                       size_t *ret_n_fds);

/* Closes n fds and leaves -1 in their places. */
void fdpass_close(int *fds, size_t n);

#endif
