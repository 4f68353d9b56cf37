/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A queue pair: one end of a reliable connection between two devices, over which the destination READs
 * the source's memory.  The source's end only answers, by its device alone: nobody there waits for it.
 *
 * The two ends are told to each other over the channel's TCP connection (PeerRdmaEnd), which stays open:
 * its end is how either side learns that the other is gone.  A peer that vanishes while a READ is under way
 * is noticed by the device too, after a bounded number of retries (about 0.5 s).
 *
 * One thread at a time; made by one, used by another, after it was handed over.
 */
#ifndef POSTCOPYD_TRANSPORT_RDMA_PAIR_H
#define POSTCOPYD_TRANSPORT_RDMA_PAIR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/transport/rdma_device.h"
#include "protocol/peer.h"

typedef struct RdmaPair RdmaPair;

/* depth: READs posted and not completed at most; 0: an end that only answers.  One with depth answers nothing.
 * NULL with a line in
 * ret_text[LIMIT_TEXT + 1].  Holds a reference to the device. */
RdmaPair *rdma_pair_new(RdmaDevice *device, unsigned depth, char *ret_text);

/*
 * Breaks it first, unless that is done.  When it returns the device writes nowhere any more on behalf of
 * this pair (rule 4).  NULL is fine.
 */
void rdma_pair_free(RdmaPair *pair);

/* What the other end has to know. */
void rdma_pair_describe(const RdmaPair *pair, PeerRdmaEnd *ret_end);

/* Ready to READ, or to be read.  theirs is hostile until checked here.  0, or negative errno with a line
 * in ret_text: -EPROTO: theirs is unsound; -EPIPE: it was broken meanwhile.  May take a second or so, on Ethernet,
 * where the kernel asks the network who has the other end's address. */
int rdma_pair_connect(RdmaPair *pair, const PeerRdmaEnd *theirs, char *ret_text);

/*
 * From now on it does nothing more: what was posted completes as failed, and the other end's READs fail.
 * The one function that any thread may call, at any time before rdma_pair_free() begins.
 */
void rdma_pair_break(RdmaPair *pair);

/* The rest only of a pair with depth. */

typedef struct RdmaRead {
    void *to; /* in memory whose key lkey is */
    uint32_t lkey;
    uint32_t length; /* bytes, not 0 */
    uint64_t from;   /* as the source's device knows it */
    uint32_t rkey;
    uint64_t cookie;
    bool last; /* its completion is told; those before it are complete then, too */
} RdmaRead;

/* Posts one.  0; -EAGAIN: as many as fit are under way; another negative errno: the pair is broken.
 * The last one of those posted before a wait must have `last`, unless -EAGAIN stopped them: room comes back without
 * one.  The file may then become readable, and rdma_pair_poll() make room, without any completion to tell. */
int rdma_pair_read(RdmaPair *pair, const RdmaRead *read);

typedef struct RdmaCompletion {
    uint64_t cookie;
    bool failed;
    const char *reason; /* of a failure, a constant string */
} RdmaCompletion;

/* What is complete: up to max, in the order of posting; of those not `last` only what failed.  After the first that
 * failed all others do, and the pair takes no more.  How many, or negative errno. */
int rdma_pair_poll(RdmaPair *pair, RdmaCompletion *ret_completions, unsigned max);

/*
 * To wait: arm, poll once more (what completed before is not told), then wait until the file is readable,
 * then take what it has and poll.  The file is the pair's, non-blocking.
 */
int rdma_pair_fd(const RdmaPair *pair);
int rdma_pair_arm(RdmaPair *pair);
void rdma_pair_take_events(RdmaPair *pair);

#endif
