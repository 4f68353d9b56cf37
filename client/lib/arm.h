/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A destination's memory while its faults belong to a daemon: registered uffds and the page table.
 *
 * Our dups of the uffds are what keeps a guest from reading zeroes while no daemon lives: when the
 * last reference to a uffd is closed, the kernel resolves its faults with zero pages.  They are
 * therefore only closed after their ranges were unregistered.  The library's thread only.
 */
#ifndef POSTCOPY_ARM_H
#define POSTCOPY_ARM_H

#include "client/lib/reason.h"
#include "client/lib/region.h"
#include "client/lib/table.h"
#include "protocol/client.h"

typedef struct Armed {
    bool active;
    Table table;
    uint32_t n_shards;
    ClientShard shards[LIMIT_SHARDS];
    int uffds[LIMIT_SHARDS];
    int holder_pidfd;             /* of the daemon that serves it; -1: it cannot be seen */
    bool dontfork[LIMIT_REGIONS]; /* set by us, so taken back at the end */
} Armed;

/*
 * Registers all regions, each shard with a uffd of its own, and empties them.  Takes table_fd over;
 * device_fd (-1: none) stays the caller's.  On failure nothing stays registered, but memory may have
 * been emptied.  -EINVAL: shards or table do not fit the regions; -ESTALE: a region is no longer
 * mapped; -EOPNOTSUPP: this kind of memory cannot be served; or what the kernel said.
 */
int armed_begin(Armed *armed, const Regions *regions, const ClientMessage *arm, int table_fd,
                int device_fd, Reason *ret_reason);

/*
 * One region more, with the shards of an ARM that names no other; *ret_first is the first of them in
 * armed.  On failure it is not registered.  device_fd stays the caller's.
 */
int armed_add(Armed *armed, const Regions *regions, uint32_t index, const ClientMessage *arm,
              int device_fd, uint32_t *ret_first, Reason *ret_reason);

/* Lets go of one region, of which the daemon touches nothing any more, and wakes who waits there. */
void armed_remove(Armed *armed, const Regions *regions, uint32_t index);

/*
 * Lets go of the memory.  -EBUSY, and nothing changed: a page's content is still elsewhere, or, with
 * CLIENT_RELEASE_DISARM, the gate has been opened.
 */
int armed_end(Armed *armed, const Regions *regions, uint32_t flags, Reason *ret_reason);

#endif
