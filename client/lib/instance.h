/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What is behind a postcopy pointer, and who may touch which part of it.
 *
 *   under lock       everything above the line; changed waits on nothing else
 *   library thread   everything below it
 *
 * One exception: while memory_in_use is set nobody but the library's thread changes the regions, so it
 * reads them without the lock, for ioctls on them may take long.
 */
#ifndef POSTCOPY_INSTANCE_H
#define POSTCOPY_INSTANCE_H

#include <pthread.h>

#include "client/lib/arm.h"
#include "client/lib/postcopy.h"
#include "client/lib/reason.h"
#include "client/lib/region.h"
#include "protocol/client.h"

typedef struct Request Request;

/* A region that comes or goes while the memory is armed (change.h). */
typedef enum ChangeKind { CHANGE_NONE, CHANGE_ADD, CHANGE_REMOVE } ChangeKind;

typedef struct Change {
    ChangeKind kind;
    uint32_t index;  /* among the regions */
    Region region;   /* ADD: as it comes; its fd is the list's once it is registered */
    bool sent;       /* the daemon was asked, over this connection */
    bool registered; /* ADD: the daemon has its uffds, or will by HELLO */
    bool done;       /* the caller may take the result */
    bool alone;      /* the caller no longer waits */
    uint32_t serial;
    int status;
    Reason reason;
} Change;

typedef enum LinkState {
    LINK_DOWN,
    LINK_GREETING, /* HELLO was made: what changes from now on needs a message */
    LINK_UP,
} LinkState;

struct postcopy {
    /* constant */
    char socket_path[LIMIT_ADDRESS + 1];
    char name[LIMIT_NAME + 1];
    uint8_t uuid[LIMIT_UUID];
    void (*notify)(void *user, const struct postcopy_notification *notification);
    const char *(*refuse)(void *user, enum postcopy_role role);
    void *user;
    pthread_t thread;
    int wake; /* eventfd: something was queued, or stop was set */

    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool stop;
    enum postcopy_role role;
    Regions regions;
    bool memory_in_use; /* armed, being armed, or exported */
    bool armed_flag;    /* armed.active, for other threads */
    bool exported;
    uint32_t n_vcpus;
    uint32_t vcpus[LIMIT_VCPUS];
    LinkState link;
    bool refused;    /* the daemon answered HELLO with an error, link_status */
    int link_status; /* why the link is down, negative errno */
    Reason link_reason;
    int event; /* the last POSTCOPY_*, connection events apart; 0: none */
    uint32_t last_serial;
    Change change;
    Request *requests; /* in the order they were made */
    bool reconnect;    /* what HELLO said of us is no longer so */
    bool problem_told; /* HELLO said why we cannot be served, which a new region may change */

    /* ---- the library's thread ---- */
    int socket;
    bool connected_notified;
    Armed armed;
    uint32_t blob_length;
    uint8_t blob[LIMIT_BLOB];
    ClientMessage in;
    ClientMessage out;
    ClientChannel channel;
    int fds[LIMIT_FDS];
    uint8_t scratch[CLIENT_PACKET_MAX];
};

/* Library thread: sends pc->out with its fds.  0 or negative errno: the connection is lost. */
int instance_send(postcopy *pc, const int *fds, size_t n_fds);

/* Makes the library's thread look at stop, reconnect and the requests. */
void instance_wake(postcopy *pc);

/* Asks the VMM: NULL, or why it cannot be served.  Library thread, without the lock. */
const char *instance_refuse(postcopy *pc);

#endif
