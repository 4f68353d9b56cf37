/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The link: one thread an import that keeps the connection to the source's daemon.
 *
 * It attaches (control channel), joins a connection for every data channel and hands it to the thread
 * that owns the channel, answers the source's orders (SEALED, RUNNING, RELAY, CANCEL, FENCED),
 * reports progress, and notices a dead peer by pings.  When anything of the connection breaks, all of
 * it is taken down and made anew, for ever, with growing pauses: the import is PAUSED meanwhile, and
 * nothing that is PRESENT is asked for twice.
 *
 * In assist mode nobody drives the source: once armed and joined it is asked to seal (SEAL), and a
 * source that knows no more of the import ends it.
 */
#ifndef POSTCOPYD_FAULT_LINK_H
#define POSTCOPYD_FAULT_LINK_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "daemon/fault/link_rdma.h"
#include "daemon/transport/peer_socket.h"
#include "daemon/transport/relay.h"

struct Import;

/* What a connection needs to join the attached one. */
typedef struct LinkLease {
    uint32_t session;
    uint8_t secret[LIMIT_TOKEN];
} LinkLease;

typedef struct Link {
    struct Import *import;
    pthread_t thread;
    bool started;
    int wake_fd;
    int stop_fd; /* readable from link_stop() on: ends every wait for the network */
    _Atomic bool stop;
    _Atomic bool armed;                 /* the data threads run: their channels may be joined */
    _Atomic bool released;              /* tell the source that everything is here */
    _Atomic(const char *) channel_down; /* why a data channel is; NULL: none is */

    PeerSocket *control;
    PeerMessage *message;
    LinkLease lease;
    uint64_t seal; /* 0: the source has not said it yet */
    bool attached_once;
    bool joined;
    bool ready_told;   /* of this connection */
    bool told_release; /* on this connection */
    bool finished;     /* the source knows it: nothing is left to tell */
    uint64_t heard_ns, pinged_ns, reported_ns;
    uint64_t seal_asked_ns; /* assist mode: last, on this connection; 0 */
    uint64_t unknown_ns; /* since when the source knows nothing of an import before its gate; 0 */
    unsigned pause_ms;
    _Atomic bool connected; /* for the statistics */
    _Atomic uint32_t reconnects;
    char reason[LIMIT_TEXT + 1];      /* of the last loss */
    char join_failed[LIMIT_TEXT + 1]; /* why channels could not be joined; "" since they were */
    bool join_failed_again;           /* for the same reason: that was logged */
    LinkRdma rdma;

    pthread_t relay_thread;
    bool relay_started;
    LinkLease relay_lease; /* of when it was started */
    Relay relay;
} Link;

/* Before any thread of the import runs: each may tell it something. 0 or -errno. Control thread. */
int link_init(Link *link, struct Import *import);

/* Its own thread, which attaches to the source. 0 or -errno. Control thread. */
int link_start(Link *link);
void link_stop(Link *link);

/* After link_stop(), once no data thread runs that might still tell it of its channel. */
void link_deinit(Link *link);

/* The mirror's page tables are filled in. The stream's thread. */
void link_populated(Link *link);

/* The data threads run: join their channels. Control thread. */
void link_arm(Link *link);

/* Everything is here: tell the source until it has heard it, then close. Control thread. */
void link_release(Link *link);

/* A data channel lost its connection. Any data thread; reason is a constant string. */
void link_channel_down(Link *link, const char *reason);

#endif
