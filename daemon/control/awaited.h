/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Invitations of VMs that are still to be started here, by a management layer (PEER_INVITE_AWAIT).
 *
 *   kept -> (its hook says "arrive") -> waits for the HELLO of that process -> an arrival
 *   nobody came in time, the source or the hook went away -> refused, and both are told
 *
 * The hook is answered {"armed":true} when the arrival is READY, so that the management layer goes on only
 * then.  Control thread.
 */
#ifndef POSTCOPYD_CONTROL_AWAITED_H
#define POSTCOPYD_CONTROL_AWAITED_H

#include "daemon/control/arrival.h"

/* Keeps an invitation with AWAIT, or refuses it. */
void awaited_invite(Control *control, Invitation *invitation);

/* A control_post() function: the source hung up. data: the invitation's token, LIMIT_TOKEN bytes; taken. */
void awaited_withdraw(Control *control, gpointer data);

/*
 * The request "arrive": this VM was started, as process pid, with its memory there (names.address_hint)
 * and those vCPUs (destination_vcpus).  vm is copied.  The answer may come later.
 */
void awaited_arrive(Control *control, const guint8 *uuid, int pid, const DriverRegions *vm,
                    Asker hook);

/* A client said HELLO, or has one more region. */
void awaited_client_changed(Connection *connection);

/* A connection ended: a hook that waited, perhaps. */
void awaited_asker_gone(Control *control, guint64 connection);

/* Answers a hook: armed, or why not (as ECANCELED, by which it knows); NULL: it was not announced. */
void awaited_answer(Control *control, const Asker *hook, gboolean armed, const char *reason);

#endif
