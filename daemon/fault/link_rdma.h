/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * RDMA of one import, as far as it is its link's: whether a connection to the source has it, the device, a lane
 * for each data channel, and why not.
 *
 * It may be used where the import's transport allows it, both daemons know it, the source's address lies in
 * a network that the configuration trusts, and a device owns our end's.  A source that refuses is heeded
 * until the next connection.  Whether the next one tries again after failures: rdma_policy.h.  What an import that
 * insists cannot have cancels its migration before the gate; behind it the import is PAUSED, tries again, and
 * goes by TCP after a while: at once where this host has no room for lanes.
 *
 * The link's thread, but for link_rdma_report().
 */
#ifndef POSTCOPYD_FAULT_LINK_RDMA_H
#define POSTCOPYD_FAULT_LINK_RDMA_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "daemon/fault/rdma_policy.h"
#include "daemon/transport/peer_socket.h"
#include "daemon/transport/rdma_lane.h"

struct Import;
struct ImportTransportReport;
struct Link;

enum { LINK_RDMA_DEVICE = 64 };

typedef struct LinkRdma {
    RdmaPolicy policy;
    RdmaDevice *device;     /* of this connection; NULL: it goes by TCP */
    bool begun;             /* keys and blocks may be in use */
    bool failed;            /* setting it up did, on this connection */
    uint64_t failures_seen; /* of the channels' count */
    uint64_t looked_ns;     /* when it was last looked whether READs complete */
    size_t staging;         /* bytes of the lanes being made */
    _Atomic unsigned lanes; /* handed over with this connection */
    _Atomic uint64_t staged, failures;
    pthread_mutex_t lock; /* of what follows, which reports read */
    bool active;
    char name[LINK_RDMA_DEVICE];
    char reason[LIMIT_TEXT + 1];
} LinkRdma;

/* Control thread.  The import's configuration is known. */
void link_rdma_init(struct Link *link);
void link_rdma_deinit(struct Link *link);

/* True if the import may ever use it: it has tables for keys and blocks then. */
bool link_rdma_is_possible(const struct Import *import);

/* Attached: decides for this connection.  0, or negative errno with a line in ret_text: it has to be RDMA
 * and cannot be. */
int link_rdma_attached(struct Link *link, char *ret_text);

/* True as long as this connection is to have it. */
bool link_rdma_is_on(const struct Link *link);

/*
 * A channel was joined: its lane, connected to the source's end.  0, and NULL where it goes by TCP; or
 * negative errno with a line in ret_text: the connection is of no use, or it has to be RDMA and cannot be.
 */
int link_rdma_lane(struct Link *link, PeerSocket *peer, PeerMessage *scratch, bool urgent,
                   RdmaLane **ret_lane, char *ret_text);

/* All n channels are joined, and are about to be handed over. */
void link_rdma_joined(struct Link *link, unsigned n);

/* Now and then.  Takes the connection down if READs have not completed for 5 s. */
void link_rdma_goes_on(struct Link *link);

/* The connection is gone, and no channel has a lane any more. */
void link_rdma_down(struct Link *link);

/* How long to wait before the next connection; 0: not at all. */
unsigned link_rdma_pause_ms(const struct Link *link);

/* Any thread: what the link knows of it. */
void link_rdma_report(struct Link *link, struct ImportTransportReport *ret_report);

#endif
