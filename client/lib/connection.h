/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The library's thread: connects, greets, serves the connection, and starts over when it is lost.
 */
#ifndef POSTCOPY_CONNECTION_H
#define POSTCOPY_CONNECTION_H

#include "client/lib/instance.h"

/* Starts pc->thread with all signals blocked.  0 or negative errno. */
int connection_start(postcopy *pc);

#endif
