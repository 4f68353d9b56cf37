/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A VM whose memory arrives by QEMU's own post-copy, and whose faults we resolve beside it.
 *
 *   ASKING     ASSIST came: a thread looks for the source's daemon and asks it (assist_source.h)
 *   ATTACHING  the import attaches to it
 *   PLANNED    the client knows what to register (PLAN)
 *   LISTENING  it did (LISTEN): faults are served as soon as the source is sealed
 *   ENDING     QEMU has all (END): the source is told
 *
 * Whatever goes wrong ends it and nothing else: QEMU goes on alone (rule 9).  It lives as long as its
 * client's connection, which is one of its own, without a HELLO.  Control thread.
 */
#ifndef POSTCOPYD_CONTROL_ASSIST_H
#define POSTCOPYD_CONTROL_ASSIST_H

#include "daemon/control/connection.h"
#include "daemon/fault/import.h"

typedef enum AssistStage {
    ASSIST_ASKING,
    ASSIST_ATTACHING,
    ASSIST_PLANNED,
    ASSIST_LISTENING,
    ASSIST_ENDING,
} AssistStage;

typedef struct Assist {
    Control *control;
    guint64 id;
    Connection *connection; /* NULL: ENDING */
    int pid;
    guint64 expected; /* the id of what was told of it */
    AssistStage stage;
    guint32 serial; /* of the last ASSIST */
    Import *import; /* NULL: ASKING */
    guint64 limit;  /* bytes/s; 0: none */
    guint32 n_shards;
    ClientShard shards[LIMIT_SHARDS]; /* as sent in PLAN */
    struct event *timer;              /* ENDING: how long the source is told */
} Assist;

/* Handles control->message if it belongs to a client's assist connection, or asks for the device. */
gboolean assist_message(Connection *connection);

/* The connection ended. Nothing to do for others. */
void assist_disconnected(Connection *connection);

/* The process of an expected VM ended. */
void assist_process_ended(Control *control, int pid);

/* Ends it here and now; at the daemon's end. */
void assist_free(Assist *assist);

#endif
