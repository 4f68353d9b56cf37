/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of an arrival share: its life (arrival.c), its invitation (arrival_invite.c), and those
 * that wait for their VM (awaited.c).  Control thread. */
#ifndef POSTCOPYD_CONTROL_ARRIVAL_STEPS_H
#define POSTCOPYD_CONTROL_ARRIVAL_STEPS_H

#include "daemon/control/arrival.h"

/* An arrival of this client, without its import. NULL with a line in ret_text: its process cannot be
 * watched. */
Arrival *arrival_new(Connection *connection, char *ret_text);

/* What the import has to know of its VM; borrows from both. */
ImportIdentity arrival_identity(const Connection *connection, const Arrival *arrival);

/* An ImportNotify. */
void arrival_notify(void *owner, Import *import, ImportEvent event, const char *text);

/* Why this VM (NULL: there is none) cannot be invited now, or NONE. */
PeerErrorCode arrival_check(const Connection *connection, const char **ret_text);

/*
 * Arms the VM's client for an invitation that arrival_check() let pass, which is answered later, or at
 * once if it cannot be.  arriver: the hook that started the VM for a management layer, answered with
 * it; NULL: somebody drives its QEMU by hand.
 */
void arrival_begin(Connection *connection, Invitation *invitation, const Asker *arriver);

/* Undone before the gate. */
void arrival_abandon(Arrival *arrival, PeerErrorCode code, const char *text);

/* Answers the invitation, and the hook, if nobody did so far. */
void arrival_answer(Arrival *arrival, PeerErrorCode code, const char *text);

/* The same for an invitation that no arrival came of. */
void invitation_answer(Invitation *invitation, PeerErrorCode code, const char *text,
                       const char *incoming);

#endif
