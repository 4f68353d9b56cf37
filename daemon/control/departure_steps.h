/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of a departure share: its life (departure.c), its offer (departure_offer.c), its
 * seal (departure_seal.c). Control thread. */
#ifndef POSTCOPYD_CONTROL_DEPARTURE_STEPS_H
#define POSTCOPYD_CONTROL_DEPARTURE_STEPS_H

#include "daemon/control/departure.h"

/* A departure of this client, in its first stage. NULL with a line in ret_text: its process cannot be
 * watched. */
Departure *departure_new(Connection *connection, char *ret_text);

Departure *departure_by_id(Control *control, guint64 id);

/* Answers whoever asked for the step under way, if nobody did so far. */
void departure_answer(Departure *departure, int status, guint64 seal, const char *text);
void departure_answer_prepared(Departure *departure);

void departure_send_state(Departure *departure, const char *text);

/* Tells the destination, if there is one, something without a body: CANCEL, RELEASED. 0 or negative
 * errno. */
int departure_order(Departure *departure, PeerMessageType type);

/* Undone before the seal, here and now. */
void departure_undo(Departure *departure, const char *reason);

/* Fences it if its vCPUs ran after the seal. */
void departure_check_stopped(Departure *departure);

/* It is over: nothing is read any more, whoever waits is answered. */
void departure_end(Departure *departure, DepartureStage stage, int status, const char *text);

/*
 * The CPU time of these vCPUs, by the ids we know them by, that a seal starts from.  Taken between two answers
 * that the guest has stopped: before the first, what it used until it stopped would count against it; after the
 * second, what a guest uses that runs again at once would be missed.  Any thread.
 */
guint64 departure_seal_cpu_ns(int pid, const guint32 *vcpus, guint32 n);

/* The guest is proven stopped, with these vCPUs by the ids we know them by (none: those known before),
 * and their CPU time: from here on its memory is final. */
void departure_seal_proven(Departure *departure, const guint32 *vcpus, guint32 n, guint64 cpu_ns);

/* The second step of that: the export may be read, and its destination is told. */
void departure_seal_order(Departure *departure);

/* Sends the INVITE to departure->destination; its answer makes it OFFERED, or ends it. */
void departure_invite(Departure *departure);

/* An ExportNotify. */
void departure_notify(void *owner, Export *export, ExportEvent event);

/* A detached thread. */
gboolean departure_start_thread(void *(*function)(void *), void *argument);

#endif
