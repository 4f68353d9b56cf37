/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How a destination reads an export's memory by itself: a device, a protection domain and spans of the
 * lease's own, and a queue pair for each of its data channels that asks for one.
 *
 * Rule 1: a pair is known to its export, under the export's lock, before its other end hears of it; a fence, the
 * end of the export and a new lease break all pairs under that lock.  So there is no pair that outlives
 * them unbroken, and a key is worth nothing without a pair of its own session.
 *
 * The lease's part is freed with the last of its channels.  Each channel is its thread's; what breaks its
 * pair may be any thread.
 */
#ifndef POSTCOPYD_SOURCE_EXPORT_RDMA_H
#define POSTCOPYD_SOURCE_EXPORT_RDMA_H

#include "daemon/source/export.h"
#include "daemon/source/spans.h"
#include "daemon/transport/rdma_device.h"

/* Of one lease; what its channels share. */
typedef struct ExportRdma {
    unsigned users; /* channels; under the export's lock */
    RdmaDevice *device;
    Spans *spans;
    RdmaBudget *budget;
    const char *name; /* the VM's */
    bool
        limit_told; /* the log says once why something cannot be pinned; under the spans' own lock */
} ExportRdma;

/*
 * Takes the device's reference, in any case.  pins NULL: the device's, within the budget; a test has others and no
 * device.  One user; export_rdma_disconnect() of its channel frees it.  NULL: no memory.
 */
ExportRdma *export_rdma_new(const Export *export, RdmaDevice *device, RdmaBudget *budget,
                            const SpanPins *pins);

/*
 * Answers RDMA_CONNECT on a channel of that session, whose connected socket is fd: *message becomes
 * RDMA_CONNECTED.  budget NULL, or refusal not NULL: it is refused, with refusal as the reason.
 */
void export_rdma_connect(Export *export, ExportChannel *channel, int fd, uint32_t session,
                         RdmaBudget *budget, const char *refusal, PeerMessage *message);

/* The channel's pair ends, and what it shared if nobody else does. */
void export_rdma_disconnect(Export *export, ExportChannel *channel);

/* Under the export's lock: from now on no pair of its channels reads anything. */
void export_rdma_break(Export *export);

typedef struct ExportRdmaReport {
    char device[64]; /* "": no channel has a pair */
    unsigned pairs;  /* channels that have one */
    uint64_t pinned; /* bytes */
    uint64_t spans;  /* told so far, over all sessions */
    char refusal[LIMIT_TEXT +
                 1]; /* why the last channel that asked got none; "": it got one, or none asked */
} ExportRdmaReport;

/* Any thread. */
void export_rdma_report(Export *export, ExportRdmaReport *ret_report);

#endif
