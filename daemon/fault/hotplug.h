/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Regions that come and go while faults run, as memory that is plugged and unplugged.
 *
 * Data threads read the import's shards without a lock, so none goes while one may look at it:
 *
 *   coming   address and file are set, then the shards made LIVE, then epoch is raised: whoever sees a
 *            LIVE shard sees the rest, and whoever sees the epoch waits for its faults
 *   going    gone is set (nothing of the region is asked for or placed from then on), its shards are
 *            made DEAD, retired is raised.  Every data thread ends what it waits for there and, at the
 *            top of its loop, where it is in the midst of nothing, says that it is settled: the last one
 *            tells IMPORT_SETTLED.  Only then are uffds closed, the mirror unmapped, the slots free.
 *
 * A region that was removed reads as zero if it comes back: its pages are REMOVED, which is terminal, or
 * HOLEs that count as such, so that a sparse terabyte need not be written.  One change at a time, all by
 * the control thread, except for hotplug_settled().
 */
#ifndef POSTCOPYD_FAULT_HOTPLUG_H
#define POSTCOPYD_FAULT_HOTPLUG_H

#include "daemon/fault/import.h"

/*
 * An absent region comes: as is how it is mapped (its fd is duplicated), shards what the client
 * registered, of which the uffds are taken.  0, or negative errno, then it is absent as before.
 */
int hotplug_add(Import *import, uint32_t region, const Region *as, const Shard *shards, uint32_t n);

/* It goes; IMPORT_SETTLED follows, and hotplug_forget() is called after that. */
void hotplug_retire(Import *import, uint32_t region);

/* No data thread touches it any more: it is absent from now on. */
void hotplug_forget(Import *import, uint32_t region);

/* Adoption, before any thread runs: what a dead daemon removed, or began to. */
void hotplug_adopt(Import *import);

/* A data thread is done with the region that is retiring. */
void hotplug_settled(Import *import);

#endif
