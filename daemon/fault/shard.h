/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A shard: a sub-range of a region with a userfaultfd of its own, and what is read from it.
 *
 * Where the client does not ask for REMOVE events, any number of resolvers park on a shard.  Where it
 * does, reading and placing must never run side by side (rule 8): reading a REMOVE lets madvise go on,
 * and a page placed after that brings old data back.  Such a shard has one owner, the only one to read
 * it; whoever else places in it holds its token meanwhile, and so does the owner while it reads.  The
 * owner never waits for the token: it is told when it is free.
 */
#ifndef POSTCOPYD_FAULT_SHARD_H
#define POSTCOPYD_FAULT_SHARD_H

#include <linux/userfaultfd.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "daemon/core/ring.h"

struct Import;

enum {
    SHARD_SHARED = -1,
    SHARD_INBOX = 32,          /* messages a read */
    SHARD_INBOX_EVENTS = 4096, /* with events, which only come behind all faults */
};

/*
 * Slots of the import's table are LIVE while faults of theirs are served.  Data threads look at nothing
 * else of a slot that is not; the control thread frees a DEAD one after all of them said that they are
 * done with it (hotplug.h).
 */
typedef enum ShardState {
    SHARD_FREE = 0,
    SHARD_LIVE,
    SHARD_DEAD,
} ShardState;

typedef struct Shard {
    _Atomic uint32_t state; /* ShardState; the rest is written before LIVE is stored */
    uint64_t life;          /* its number, which tells it from others that this slot held */
    int uffd;               /* owned by the import */
    uint32_t region;
    uint64_t start; /* client address */
    uint64_t length;
    bool minor;     /* registered MINOR too */
    bool removable; /* its uffd reports REMOVE and UNMAP */
    int owner;      /* the one resolver that reads it, or SHARD_SHARED */
    Ring *owner_ring;
    _Atomic bool token;        /* removable: somebody reads or places */
    _Atomic bool token_wanted; /* the owner waits for it */
    _Atomic unsigned reads;    /* removable: that brought something */
    struct uffd_msg *inbox;    /* removable: faults read and not taken yet; the owner's */
    unsigned inbox_n, inbox_at;
} Shard;

static inline bool shard_is_live(const Shard *shard)
{
    return atomic_load_explicit(&shard->state, memory_order_acquire) == SHARD_LIVE;
}

/* Before it is live. 0 or -ENOMEM. */
int shard_init(Shard *shard);
void shard_deinit(Shard *shard); /* closes the uffd */

/*
 * A placer other than the owner: waits for the token, which is never held for long.  Nothing to do
 * for a shard without events.
 */
void shard_enter(Shard *shard);
void shard_leave(Shard *shard);

/*
 * The owner of a removable shard: reads what is there into the inbox, REMOVE and UNMAP being heeded
 * before anything is placed again.  False: somebody places; the owner's ring is woken after that.
 * *ret_read: messages read.
 */
bool shard_read(struct Import *import, Shard *shard, unsigned *ret_read);

#endif
