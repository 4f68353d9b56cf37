/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A resolver: a thread that turns faults into pages, with its own ring and its own urgent channel.
 *
 * All resolvers of an import park on all its shards with exclusive wake-ups, so a fault wakes one.
 * It reads a batch of messages, claims each page, sends one READ for those it has to fetch, and goes
 * back to its ring: it never waits for one page.  Read resolver.c from its bottom up: that is the
 * way of a fault.
 */
#ifndef POSTCOPYD_FAULT_RESOLVER_H
#define POSTCOPYD_FAULT_RESOLVER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "daemon/core/ring.h"
#include "daemon/fault/around.h"
#include "daemon/fault/offer.h"
#include "daemon/fault/shard.h"
#include "daemon/transport/tcp_channel.h"

struct Import;

/* One shard, as one resolver waits for it. */
typedef struct ShardWatch {
    RingWatch watch;
    Shard *shard;
    bool unread;  /* ready, but there was no room to serve more */
    bool more;    /* and there may be more in the kernel than what was read */
    bool by_read; /* the ring reads the messages; else it polls */
    bool polled;  /* for once, since a read was refused */
    unsigned refused;
    unsigned at, n; /* of messages: taken, read */
    struct uffd_msg messages[SHARD_INBOX];
} ShardWatch;

typedef struct FetchedPage {
    uint32_t region;
    uint64_t page;
} FetchedPage;

typedef struct Resolver {
    struct Import *import;
    unsigned index;
    pthread_t thread;
    bool started;
    Ring ring;
    Offer offer;
    TcpChannel channel;
    ShardWatch *watches; /* one a shard */
    bool polling;        /* the gate is open */
    Around around;
    uint64_t arrived_ns; /* when the last pages came */
    FetchedPage fetched[TCP_CHANNEL_SLOTS];
    unsigned n_fetched; /* of the batch being read: they may take neighbours along */
    _Atomic bool stop;
    _Atomic uint64_t faults, reads, wakeups;
} Resolver;

/* Control thread. 0 or negative errno. */
int resolver_start(Resolver *resolver, struct Import *import, unsigned index);

/* Stops and joins; what is asked of the source stays REQUESTED.  Control thread. */
void resolver_stop(Resolver *resolver);

#endif
