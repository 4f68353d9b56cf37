/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who resolves a fault: the resolver that read it, or the home resolver of its vCPU.
 *
 * Resolvers park together, so that any of them may read the fault of any vCPU.  With homes it puts one
 * that is not its own into the queue of the resolver that serves this vCPU, and wakes that one only if
 * it sleeps.  A fault on removable memory stays with the shard's owner (rule 8).
 *
 * All on the resolver's own thread, unless it says otherwise.
 */
#ifndef POSTCOPYD_FAULT_DISPATCH_H
#define POSTCOPYD_FAULT_DISPATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/core/fault_queue.h"

struct Import;
struct Resolver;

/* Makes its queue, where there are homes; before any resolver runs.  0 or negative errno. */
int dispatch_init(struct Resolver *resolver);

/* Hands a fault that it read over to its home.  False: to be resolved here. */
bool dispatch_hand_over(struct Resolver *resolver, const FaultRecord *fault, uint32_t tid);

/* The next fault that another one read for it; false: none, or no slot to serve it with. */
bool dispatch_take(struct Resolver *resolver, FaultRecord *ret_fault);

/* Before it sleeps: from now on whoever hands over wakes it.  False: there is something to take. */
bool dispatch_sleep(struct Resolver *resolver);

/* After it slept. */
void dispatch_awake(struct Resolver *resolver);

#endif
