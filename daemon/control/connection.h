/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One connection to the UNIX socket: a client with its VM (after HELLO), or an operator.
 * Who it is comes from SO_PEERCRED and SO_PEERGROUPS; a client acts on its own VM only.  Control thread.
 */
#ifndef POSTCOPYD_CONTROL_CONNECTION_H
#define POSTCOPYD_CONTROL_CONNECTION_H

#include <sys/socket.h>

#include "daemon/control/control.h"
#include "daemon/control/outbox.h"
#include "daemon/core/region.h"

struct Arrival;
struct Assist;
struct Departure;

typedef struct Connection {
    Control *control;
    guint64 id;
    int fd;
    struct event *event; /* added only while outbox is empty: who does not read is not read from */
    ClientChannel channel;
    Outbox outbox;
    struct ucred peer;
    int pidfd; /* of the process that connected, while its pid may become another's; or negative errno */
    gboolean is_operator; /* it may act for the operator */
    gint64 since_us;

    gboolean greeted; /* HELLO came: the rest describes its VM */
    ClientRole role;
    guint8 uuid[LIMIT_UUID];
    char name[LIMIT_NAME + 1];
    char problem[LIMIT_TEXT + 1];
    RegionSet regions;
    guint32 n_vcpus;
    guint32 *vcpus;
    guint32 blob_length;
    guint8 blob[LIMIT_BLOB];
    guint64 limit;               /* bytes/s at which its memory may arrive; 0: none */
    struct Arrival *arrival;     /* its memory being filled, or filled; owned by Control */
    struct Departure *departure; /* its memory being read; owned by Control */
    struct Assist *assist;       /* not greeted: QEMU's own post-copy, assisted; owned by Control */
    guint32 next_serial;
} Connection;

/* Takes the accepted socket. */
void connection_new(Control *control, int fd);

/* Closes it; what hangs on it is told. */
void connection_close(Connection *connection);

Connection *connection_by_id(Control *control, guint64 id);

/* A greeted one whose VM has this uuid (if not all zero), else this name. */
Connection *connection_by_vm(Control *control, const guint8 *uuid, const char *name);

/* The same by what an operator typed: a name or a uuid. */
Connection *connection_by_text(Control *control, const char *vm);

/*
 * True while the process that connected lives: else its pid, which may be another's by now, tells nothing.
 */
gboolean connection_process_lives(const Connection *connection);

/*
 * A new pidfd of its process: without one, nobody would notice that it died.  -1 with a line in
 * ret_text[LIMIT_TEXT + 1]: no fd is free, or the process has ended and left its connection to another.
 */
int connection_open_process(const Connection *connection, char *ret_text);

/* True if the peer may act for the operator. */
gboolean connection_is_operator(const Connection *connection);

/*
 * Sends control->reply, with fds that stay the caller's.  A REPLY may wait until its reader has read what
 * came before, and what follows waits behind it.  Any other client that does not read loses us.
 */
void connection_send(Connection *connection, const int *fds, gsize n_fds);

/* Short forms of common replies. */
void connection_send_status(Connection *connection, ClientMessageType type, guint32 serial,
                            int status, guint64 seal, const char *text);
void connection_send_simple(Connection *connection, ClientMessageType type, guint32 serial);
void connection_send_state(Connection *connection, ClientState state, guint64 populated,
                           guint64 present, guint64 faults, const char *text);

/* Its vCPUs' thread ids, in order. */
void connection_set_vcpus(Connection *connection, const guint32 *tids, guint32 n);

/* "name" or its uuid, for logs. */
const char *connection_vm(const Connection *connection);

char *uuid_to_text(const guint8 *uuid);
gboolean uuid_from_text(const char *text, guint8 *ret_uuid);
gboolean uuid_is_set(const guint8 *uuid);

#endif
