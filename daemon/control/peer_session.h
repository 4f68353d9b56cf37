/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A connection from another daemon: a thread each, from the handshake to its end.  What it turns out
 * to be (an invitation, a control or a data channel) decides what the thread does.
 */
#ifndef POSTCOPYD_CONTROL_PEER_SESSION_H
#define POSTCOPYD_CONTROL_PEER_SESSION_H

#include "daemon/control/control.h"

/* Takes the accepted socket; refuses it if there are too many. */
void peer_session_start(Control *control, int fd);

#endif
