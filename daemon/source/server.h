/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Answers READ and MAP_REQUEST on one data channel, and what lets its destination read by itself (RDMA_CONNECT;
 * KEYS_REQUEST and KEYS_DONE on bulk channels).  A thread a channel, so that a demand page never waits
 * behind the stream; no state but the export's.
 */
#ifndef POSTCOPYD_SOURCE_SERVER_H
#define POSTCOPYD_SOURCE_SERVER_H

#include "daemon/source/export.h"
#include "daemon/transport/rdma_device.h"

/* The connection of a channel, and what its two daemons agreed on. */
typedef struct ServerLink {
    int fd; /* stays the caller's, and blocks */
    uint32_t session, generation;
    uint64_t features;        /* PEER_FEATURE_*: what both sides have */
    RdmaBudget *budget;       /* what may be pinned; NULL: no RDMA */
    const char *rdma_refusal; /* why this destination may not have it; NULL: it may */
} ServerLink;

/* Serves until the connection ends or its peer misbehaves. */
void server_run(Export *export, ExportChannel *channel, const ServerLink *link);

#endif
