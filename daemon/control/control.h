/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The control thread: libevent's loop, and everything that decides.
 *
 * It owns all client sessions, arrivals (imports and what surrounds them) and departures (exports).
 * Other threads reach them only by control_post(): a function that the control thread runs later.
 */
#ifndef POSTCOPYD_CONTROL_CONTROL_H
#define POSTCOPYD_CONTROL_CONTROL_H

#include <event2/event.h>
#include <glib.h>
#include <pthread.h>

#include "daemon/control/peer_crowd.h"
#include "daemon/control/settings.h"
#include "daemon/core/log.h"
#include "daemon/qemu/guest.h"
#include "daemon/transport/rdma_device.h"
#include "protocol/client.h"

typedef struct Control {
    const Settings *settings;
    struct event_base *base;
    struct event *posted_event, *tick_event;
    struct event *signal_events[2];
    pthread_mutex_t posted_lock; /* pthread's own, which the thread sanitizer understands */
    GQueue posted;
    int posted_fd;
    int client_listener, peer_listener;
    int lock_fd;
    char peer_port[8];     /* the listener's own, decimal */
    guint64 uffd_features; /* of this kernel */
    int uffd_device;       /* /dev/userfaultfd for clients that may not open it; -1 */
    gid_t operator_gid;
    gboolean has_operator_gid;
    GPtrArray *connections; /* of Connection, owned */
    GPtrArray *arrivals;    /* of Arrival, owned */
    GPtrArray *departures;  /* of Departure, owned */
    GPtrArray *awaited;     /* of Awaited (awaited.c), owned */
    GPtrArray *expected;    /* of Expected, owned */
    GPtrArray *assists;     /* of Assist, owned */
    GQueue past;            /* imports that are over (past.h) */
    GHashTable *refusals;   /* by pid: the last refusal of a HELLO that was logged */
    LogLimit crowd_limit;   /* for the line about too many connections */
    Guests *guests;         /* VMs that can be asked for without a client; thread-safe */
    struct FdStore *store;  /* systemd's; NULL: nothing outlives this process */
    gboolean stopping;      /* as soon as no VM is lost by it */
    struct Agent *agent; /* libvirt's; NULL: none; stays until exit, threads of peers may ask it */
    PeerCrowd peers;     /* connections of other daemons; their threads count too */
    RdmaBudget rdma_budget;            /* of all imports and exports; outlives them */
    char rdma_devices[LIMIT_TEXT + 1]; /* of this host, as last looked for, */
    gint64 rdma_looked_us;             /* then */
    guint64 limit;                     /* bytes/s at which memory may arrive; 0: none */
    guint64 next_id;
    guint64 ticks;
    gint64 started_us;
    ClientMessage *message; /* the one being handled */
    ClientMessage *reply;   /* the one being built */
    guint8 packet[CLIENT_PACKET_MAX];
} Control;

typedef void (*ControlFunction)(Control *control, gpointer data);

/* Opens the sockets. NULL with one line in error. */
Control *control_new(const Settings *settings, GError **error);

/* Serves until SIGTERM or SIGINT. FALSE with error. */
gboolean control_run(Control *control, GError **error);

/* Ends what control_new() and control_run() began, at the end of the process. */
void control_free(Control *control);

/* Runs function(control, data) on the control thread, soon. Any thread. */
void control_post(Control *control, ControlFunction function, gpointer data);

#endif
