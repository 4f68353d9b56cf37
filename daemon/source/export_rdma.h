/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How a destination reads an export's memory by itself: a device, a protection domain and spans of the
 * lease's own, and a queue pair for each of its data channels that asks for one.
 *
 * Rule 1: a pair is known to its export, under the export's lock, before its other end hears of it; a fence, the
 * end of the export or of its lease and a new lease take all pairs under that lock.  So there is no pair that
 * outlives them, and a key is worth nothing without a pair of its own session.
 *
 * A device takes its time to break a pair, and nobody waits for that under the lock: each session has a thread that
 * sleeps until the session ends, then breaks all its pairs, frees them, unpins and closes the device, whatever
 * becomes of the channels' TCP connections.  Who ended it awaits the breaking, for EXPORT_RDMA_BREAK_MS at most: so
 * long the control thread may be held up by a device that hangs, and no longer.
 *
 * The rest of a session's part is freed with the last of its channels.  Each channel is its thread's.
 */
#ifndef POSTCOPYD_SOURCE_EXPORT_RDMA_H
#define POSTCOPYD_SOURCE_EXPORT_RDMA_H

#include "daemon/source/export.h"
#include "daemon/source/spans.h"
#include "daemon/transport/rdma_device.h"

/* Thirty-two orders of a device that works take a tenth of it. */
enum { EXPORT_RDMA_BREAK_MS = 250 };

/* Of one lease; what its channels share. */
typedef struct ExportRdma {
    unsigned users;     /* channels; under the export's lock, as are the next two */
    bool ended;         /* for good: no pair is made for it any more */
    RdmaDevice *device; /* NULL: closed, after the end */
    struct RdmaPair *ending[EXPORT_CHANNELS_MAX]; /* from the end on its thread's */
    unsigned n_ending;
    pthread_t thread;
    Export *export;
    Spans *spans;
    RdmaBudget *budget;
    bool
        limit_told; /* the log says once why something cannot be pinned; under the spans' own lock */
} ExportRdma;

/* What the export has for it. */
void export_rdma_init(Export *export);
void export_rdma_deinit(Export *export);

/*
 * Takes the device's reference, in any case.  pins NULL: the device's, within the budget; a test has others and no
 * device.  One user; export_rdma_disconnect() of its channel frees it, before the export is.  NULL: no memory.
 */
ExportRdma *export_rdma_new(Export *export, RdmaDevice *device, RdmaBudget *budget,
                            const SpanPins *pins);

/*
 * Answers RDMA_CONNECT on a channel of that session, whose connected socket is fd: *message becomes
 * RDMA_CONNECTED.  budget NULL, or refusal not NULL: it is refused, with refusal as the reason.
 */
void export_rdma_connect(Export *export, ExportChannel *channel, int fd, uint32_t session,
                         RdmaBudget *budget, const char *refusal, PeerMessage *message);

/* The channel's pair ends, and what it shared if nobody else does. */
void export_rdma_disconnect(Export *export, ExportChannel *channel);

/* Under the export's lock: the lease's part ends, soon.  export_rdma_wait() is the other half. */
void export_rdma_end(Export *export);

/*
 * Not under the lock: returns once nothing is read any more through any pair of what has ended, or after
 * EXPORT_RDMA_BREAK_MS, which the log says.  What is pinned is let go after that, soon.  Any thread.
 */
void export_rdma_wait(Export *export);

typedef struct ExportRdmaReport {
    char device[64]; /* "": no channel has a pair */
    unsigned pairs;  /* channels that have one */
    uint64_t pinned; /* bytes, with what an ended session has not let go of yet */
    uint64_t spans;  /* told so far, over all sessions */
    char refusal[LIMIT_TEXT +
                 1]; /* why the last channel that asked got none; "": it got one, or none asked */
} ExportRdmaReport;

/* Any thread. */
void export_rdma_report(Export *export, ExportRdmaReport *ret_report);

#endif
