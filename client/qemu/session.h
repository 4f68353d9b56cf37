/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The assist thread's connection to the daemon: when to ask for a plan, and what is said.  Nothing in
 * here waits; a daemon that takes no message at once is as good as gone.
 */
#ifndef POSTCOPY_QEMU_SESSION_H
#define POSTCOPY_QEMU_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "client/qemu/plan.h"
#include "client/qemu/process.h"
#include "protocol/client.h"

typedef struct Session {
    QemuOptions options;
    int socket;                   /* -1: none */
    bool asked;                   /* ASSIST is not answered yet */
    bool again;                   /* QEMU opened another userfaultfd meanwhile */
    uint64_t ask_at;              /* CLOCK_MONOTONIC in ns; 0: not until QEMU opens one */
    uint64_t ask_until;           /* no attempt of our own after that */
    uint64_t delay;               /* before the next one */
    char not_yet[LIMIT_TEXT + 1]; /* what was logged last of an attempt that came too early */
    uint32_t serial;
    ClientChannel channel;
    ClientMessage in;
    ClientMessage out;
    uint8_t scratch[CLIENT_PACKET_MAX];
} Session;

void session_init(Session *session, const QemuOptions *options);

/* QEMU opened a userfaultfd and there is no plan: ask for one. */
void session_want(Session *session, uint64_t now);

/* No plan is wanted any more. */
void session_content(Session *session);

/* Asks if it is time to, connecting first.  False if the connection was lost. */
bool session_ask(Session *session, uint64_t now);

/*
 * What came: 1 a plan is proposed in session->in, to be answered by session_take_plan(); 2: the daemon
 * refuses, or takes its plan back; 0 nothing; negative: the connection is lost.
 */
int session_receive(Session *session, uint64_t now);
enum { SESSION_PLAN = 1, SESSION_REFUSED = 2 };

/* The plan that came, or NULL after telling the daemon why not.  busy: another is in use. */
Plan *session_take_plan(Session *session, bool busy);

/* Both: false if the connection was lost. */
bool session_listen(Session *session, const Plan *plan);
bool session_end(Session *session);

/* Ends the connection, if there is one. */
void session_close(Session *session);

#endif
