/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Messages whose sender waits for the answer with the same serial.
 *
 * A call queues its request; the library's thread sends it once the link is up, and finishes it
 * when the answer came or the connection went.  A request that was never sent survives a connection:
 * it waits for the next one, within its time.  What HELLO tells anyway (regions, vCPUs) is done as
 * soon as the next HELLO is made.
 */
#ifndef POSTCOPY_REQUEST_H
#define POSTCOPY_REQUEST_H

#include "client/lib/instance.h"

typedef struct RequestCall {
    ClientMessage *message; /* by malloc; the callee frees it */
    int fd;                 /* goes with the message, -1: none; the callee closes it */
    int timeout_ms;         /* negative: for ever */
} RequestCall;

/* Any thread, under the lock, which is given up meanwhile.  The answer's status, 0 or negative. */
int request_run(postcopy *pc, RequestCall call, Reason *ret_reason);

/* Library thread, without the lock: sends what is queued.  Negative: the connection is lost. */
int request_send_queued(postcopy *pc);

/* Library thread, without the lock: pc->in is an answer. */
void request_answer(postcopy *pc, const ClientMessage *message);

/* Under the lock: the connection is lost, and with it the answers to what was sent. */
void request_fail(postcopy *pc, const char *text);

/* Under the lock: the HELLO just made tells all that was to be told about regions and vCPUs. */
void request_finish_told(postcopy *pc);

struct timespec request_deadline(int timeout_ms);

/* Under the lock: waits for changed.  False if the deadline, of the same timeout_ms, has passed. */
bool request_wait(postcopy *pc, int timeout_ms, const struct timespec *deadline);

#endif
