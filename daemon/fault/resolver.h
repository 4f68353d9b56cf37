/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A resolver: a thread that turns faults into pages, with its own ring and its own urgent channel.
 *
 * All resolvers of an import park on all its shards with exclusive wake-ups, so a fault wakes one.
 * It reads a batch of messages, claims each page, sends one READ for those it has to fetch, and goes
 * back to its ring: it never waits for one page.  Where faults go to the home resolver of their vCPU, it
 * puts those of others into their queues, and wakes who sleeps.  Read resolver.c from its bottom up: that is the
 * way of a fault.
 */
#ifndef POSTCOPYD_FAULT_RESOLVER_H
#define POSTCOPYD_FAULT_RESOLVER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "daemon/core/fault_queue.h"
#include "daemon/core/ring.h"
#include "daemon/fault/around.h"
#include "daemon/fault/offer.h"
#include "daemon/fault/shard.h"
#include "daemon/transport/channel.h"

struct Import;

/* One shard, as one resolver waits for it. */
typedef struct ShardWatch {
    RingWatch watch;
    Shard *shard;  /* NULL: not waited for yet */
    uint64_t life; /* of the shard that was in this slot then */
    bool unread;   /* ready, but there was no room to serve more */
    bool more;     /* and there may be more in the kernel than what was read */
    bool by_read;  /* the ring reads the messages; else it polls */
    bool polled;   /* for once, since a read was refused */
    unsigned refused;
    unsigned at, n; /* of messages: taken, read */
    struct uffd_msg messages[SHARD_INBOX];
} ShardWatch;

typedef struct Resolver {
    struct Import *import;
    unsigned index;
    pthread_t thread;
    bool started;
    bool follows;           /* it was put on its vCPUs' CPUs (affinity.h); control thread */
    _Atomic unsigned moves; /* how often it was decided where it runs, */
    unsigned heeded;        /* and how often it took notice */
    Ring ring;
    Offer offer;
    Channel channel;
    ShardWatch *watches; /* one a slot of shards */
    uint64_t polled;     /* the epoch of shards it waits for; 0: the gate is shut */
    uint64_t cancelled;  /* up to this retirement it has cancelled what it waited for, */
    uint64_t settled;    /* and up to this one nothing is left of it */
    Around around;
    Fetch *fetched[CHANNEL_SLOTS];
    unsigned n_fetched;         /* of the batch being read: they may take neighbours along */
    struct AssistWatch *assist; /* NULL in direct mode */
    FaultQueue
        queue; /* faults that others read and this one resolves; without home dispatch: none */
    _Atomic bool stop;
    _Atomic uint64_t faults, reads, wakeups;
    _Atomic uint64_t handed_over; /* faults it read and put into others' queues, */
    _Atomic uint64_t wakes_owed;  /* and how often it had to wake one of them for it, */
    _Atomic uint64_t queue_full;  /* or found the queue full and resolved the fault itself */
    _Atomic uint64_t taken_over;  /* faults from its own queue */
} Resolver;

/* The rest is for the control thread.  All are made before one is started, and all stopped before one is
 * taken apart: they reach into each other's queues. */

/* 0 or negative errno, nothing is left to be taken apart then. */
int resolver_init(Resolver *resolver, struct Import *import, unsigned index);

/* 0 or negative errno. */
int resolver_start(Resolver *resolver);

/* Stops and joins; what is asked of the source stays REQUESTED. Not started: nothing. */
void resolver_stop(Resolver *resolver);

/* Once, or again for nothing. */
void resolver_deinit(Resolver *resolver);

#endif
