/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Exports with their destinations' connections, control and data, all in one process, and a device at both ends.  A
 * destination's part is played by the test; the source's by threads that run what the daemon's run.
 */
#ifndef POSTCOPYD_TESTS_RDMA_SOURCE_RIG_H
#define POSTCOPYD_TESTS_RDMA_SOURCE_RIG_H

#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/source/export_rdma.h"
#include "daemon/source/server.h"
#include "tests/rdma/rig.h"

enum {
    PAGES = RIG_LENGTH / RIG_PAGE,
    CHANNELS = 4,
};

/* A destination's control connection, and the source's thread that serves it. */
typedef struct Lease {
    PeerSocket *near, *far;
    Export *export;
    uint32_t session;
    pthread_t thread;
} Lease;

/* A data channel with a pair, or without. */
typedef struct Lane {
    Export *export;
    int near, far;
    PeerSocket *peer; /* of near */
    ExportChannel *channel;
    ServerLink link;
    RdmaDevice *device;
    RdmaPair *pair;
    uint8_t *target;
    RdmaMemory *landing;
    bool connected;
    pthread_t thread;
} Lane;

/* exports[0] is there from the set-up on, with the first lease; pages 0 to 99 and all from 1000 on have content. */
extern Export *exports[2];
extern RdmaBudget near_budget, far_budget;
extern Lease leases[2];
extern Lane lanes[CHANNELS];
extern PeerMessage message; /* the last one that was heard */

int source_up(void **state);
int source_down(void **state); /* fails if anything is pinned still */

/* Another VM with the same content. */
Export *add_export(void);

void take_lease(unsigned number, Export *export);
void end_lease(unsigned number);

/* A data channel of that lease, served; no pair yet. */
Lane *open_lane(unsigned number, const Lease *lease, PeerChannelKind kind);

/* What the source answers; the pair is ready if that is NONE. */
PeerErrorCode ask_pair(Lane *lane);

/* Both. */
Lane *connect_lane(unsigned number, const Lease *lease, PeerChannelKind kind);

/* The TCP connection ends, and with it all of the source's part. */
void end_channel(Lane *lane);
void close_lane(Lane *lane);

void say(Lane *lane, PeerMessageType type);
void hear(Lane *lane, PeerMessageType type);
PeerSpan ask_keys(Lane *lane, uint64_t page);

/* True if those pages of the span came, and are right. */
bool read_pages(Lane *lane, const PeerSpan *span, uint64_t page, uint32_t count);

/* Read by the destination's own device, not told by anybody. */
void assert_over(Lane *lane, const PeerSpan *span);

/* source_ends.c */
int run_ends(void); /* how many failed */

#endif
