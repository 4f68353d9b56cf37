/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The messages of a connection.  The library's thread only, without the lock.
 */
#ifndef POSTCOPY_SESSION_H
#define POSTCOPY_SESSION_H

#include "client/lib/instance.h"

/* Sends HELLO.  From then on what changes is told by messages.  0 or negative errno. */
int session_greet(postcopy *pc);

/* pc->in and its fds, after WELCOME.  Negative errno: end this connection and make another. */
int session_handle(postcopy *pc);

#endif
