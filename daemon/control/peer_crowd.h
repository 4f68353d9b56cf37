/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How many connections of other daemons there may be.
 *
 * Strangers, who have not shown yet that they belong to a migration, are counted apart from those who
 * have, and those of each host by themselves.  However many come from elsewhere, an import that lost its
 * link finds room to come back.
 *
 * Any thread.
 */
#ifndef POSTCOPYD_CONTROL_PEER_CROWD_H
#define POSTCOPYD_CONTROL_PEER_CROWD_H

#include <glib.h>
#include <pthread.h>

#include "daemon/core/log.h"

enum {
    PEER_STRANGERS_MAX = 256,
    PEER_STRANGERS_PER_HOST_MAX = 64, /* VMs of one host that may be shaking hands at once */
    PEER_PROVEN_MAX = 8192,           /* a VM with 16 resolvers has about 18 */
};

typedef struct PeerCrowd {
    pthread_mutex_t lock;
    guint strangers, proven;
    GHashTable *hosts; /* by numeric address: how many of the strangers */
    LogLimit limit;    /* for the lines about who was turned away */
} PeerCrowd;

/* Nobody is there. */
void peer_crowd_init(PeerCrowd *crowd);

/* When everybody has left. */
void peer_crowd_deinit(PeerCrowd *crowd);

/* A stranger connected from there. FALSE, and seldom a line in the log: there is no room. */
gboolean peer_crowd_enter(PeerCrowd *crowd, const char *host);

/* It showed a token or a secret, or was let in otherwise. FALSE, with such a line: it stays a stranger. */
gboolean peer_crowd_prove(PeerCrowd *crowd, const char *host);

/* Its connection ended. */
void peer_crowd_leave(PeerCrowd *crowd, const char *host, gboolean proven);

#endif
