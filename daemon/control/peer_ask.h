/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ASK: a destination's daemon asks for a VM that its QEMU receives.  Whether that is so is found out
 * here: its token, its monitor and its sockets have to say so.  Threads of peers; may take seconds.
 */
#ifndef POSTCOPYD_CONTROL_PEER_ASK_H
#define POSTCOPYD_CONTROL_PEER_ASK_H

#include "daemon/control/control.h"
#include "protocol/peer.h"

/* The VM, if it is known and its token was shown; the caller's.  Else NULL, and *ret_asked says why.
 * Nothing has been asked of anybody then. */
Guest *peer_ask_open(Control *control, const PeerMessage *ask, PeerMessage *ret_asked);

/* Looks at the VM (taken) and makes it a departure; *ret_asked is what to answer. */
void peer_ask_serve(Control *control, Guest *guest, const char *peer_host, const PeerMessage *ask,
                    PeerMessage *ret_asked);

#endif
