/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What of a data channel goes over its lane: which fetches do, their READs, and handing over what came, in
 * the order of asking.
 *
 * Used by the channel alone, on its data thread, and only while it has a lane.
 */
#ifndef POSTCOPYD_TRANSPORT_RDMA_FETCH_H
#define POSTCOPYD_TRANSPORT_RDMA_FETCH_H

#include "daemon/transport/channel.h"

/* A lane was attached. */
void rdma_fetch_begin(Channel *channel);

/*
 * Posts what is queued and can go over the lane; by_tcp is set for what cannot.  Hands over what is complete,
 * and sees to it that the ring wakes for what is not.  May take the channel down.
 */
void rdma_fetch_flush(Channel *channel);

/* The completion of waiting for the lane. */
void rdma_fetch_ready(RingWatch *watch, int result);

/* The channel is being dropped: nothing more is to come. */
void rdma_fetch_stop(Channel *channel);

/* Afterwards the device writes nowhere any more (rule 4), and what it may have written is marked. */
void rdma_fetch_end(Channel *channel);

#endif
