/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A connection to the daemon that never makes anybody wait: POSTCOPY_SOCKET, or the default socket.
 */
#ifndef POSTCOPY_QEMU_DIAL_H
#define POSTCOPY_QEMU_DIAL_H

/* A non-blocking, close-on-exec socket, the caller's; or negative errno (-EAGAIN: it is too busy). */
int dial(void);

#endif
