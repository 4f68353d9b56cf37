/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A VM that arrives: its import, from the source's invitation until its client let go.
 *
 *   INVITED -> (import attaches) -> ARMING -> (client armed) -> JOINING -> READY
 *   READY: the invitation is answered; the import runs by itself from here on
 *   COMPLETE -> RELEASING -> RELEASED
 *   before the gate: anything wrong -> the client disarms, the invitation is refused
 *
 * A management layer (libvirt) lets its guest run by itself once the device state is loaded, whatever
 * became of the memory.  Undone between READY and the gate, the process of such a VM ("managed") is
 * therefore ended, and never disarmed: it would read zeroes.  Its manager then lets the source run.
 *
 * Control thread.  The import lives on without its client's connection as long as the process lives.
 */
#ifndef POSTCOPYD_CONTROL_ARRIVAL_H
#define POSTCOPYD_CONTROL_ARRIVAL_H

#include "daemon/control/connection.h"
#include "daemon/control/departure.h"
#include "daemon/fault/import.h"

typedef enum ArrivalStage {
    ARRIVAL_INVITED,
    ARRIVAL_ARMING,
    ARRIVAL_JOINING,
    ARRIVAL_READY,
    ARRIVAL_RELEASING,
    ARRIVAL_RELEASED,
    ARRIVAL_ENDED, /* cancelled, or its client died */
} ArrivalStage;

/* An invitation waiting for its answer on a peer connection's thread. */
typedef struct Invitation {
    pthread_mutex_t lock;
    pthread_cond_t changed; /* any of the following three */
    gboolean awaited;       /* kept until its VM comes (awaited.h) */
    gboolean accepted;      /* the VM is being armed: an answer will come */
    gboolean answered;
    PeerMessage *message; /* the INVITE; the thread's, which waits */
    const char *peer_host;
    PeerErrorCode code;
    char text[LIMIT_TEXT + 1];
    char incoming[LIMIT_ADDRESS + 1];
} Invitation;

/* A region that comes or goes while faults run; one at a time (arrival_regions.h). */
typedef enum ChangeKind {
    CHANGE_NONE,
    CHANGE_ADD,    /* the client is registering it */
    CHANGE_REMOVE, /* the data threads are letting go of it */
} ChangeKind;

typedef struct Change {
    ChangeKind kind;
    guint32 region;
    gboolean asked; /* the client waits for an answer to this serial */
    guint32 serial;
} Change;

typedef struct Arrival {
    Control *control;
    guint64 id;
    Connection *connection; /* NULL while its client is reconnecting */
    int pid;
    int pidfd; /* of its client's process */
    struct event *pid_event, *timer;
    ArrivalStage stage;
    Import *import;
    guint64 limit;          /* bytes/s, its own; 0: none */
    Invitation *invitation; /* not answered yet */
    gboolean managed;       /* a management layer lets it run */
    Asker arriver;          /* its hook, answered with the invitation */
    gboolean clearing;      /* its QEMU's capability is being cleared (ignore_shared.h) */
    guint32 arm_serial;     /* of the ARM whose answer counts */
    guint32 n_shards;
    ClientShard shards[LIMIT_SHARDS]; /* as sent in the last ARM */
    Change change;
    guint64 source_files[LIMIT_REGIONS]; /* the source's own (region_backing()); 0: not known */
    char incoming[LIMIT_ADDRESS + 1];
} Arrival;

/* A control_post() function; data is an Invitation. */
void arrival_invite(Control *control, gpointer invitation);

/* HELLO of a client that is armed: joins the living import, or adopts a dead daemon's. FALSE with a
 * line in ret_text. */
gboolean arrival_resume(Connection *connection, const ClientHello *hello, char *ret_text);

/* HELLO of a client that is not armed: if it was asked to let go it has, and its answer was lost. */
void arrival_let_go(Connection *connection);

/* Messages of the client. */
void arrival_armed(Connection *connection, const ClientStatus *status, guint32 n_fds);
void arrival_released(Connection *connection, const ClientStatus *status);
void arrival_running(Connection *connection);

/* The client's connection ended. */
void arrival_disconnected(Arrival *arrival);

/* Tells clients how their imports fare; every tick. */
void arrival_tick(Control *control);

void arrival_free(Arrival *arrival);

/* True while the memory is not yet the client's own (rule 10). */
gboolean arrival_is_open(const Arrival *arrival);

#endif
