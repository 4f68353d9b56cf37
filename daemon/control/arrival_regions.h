/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Regions of a VM that arrives: their shards, and those that come and go while its faults are served
 * (daemon/fault/hotplug.h).
 *
 *   REGION_ADD     -> ARM with the region's shards -> ARMED with uffds -> served -> OK
 *   REGION_REMOVE  -> the data threads let go -> OK -> the client unregisters
 *
 * One change at a time.  If the client's connection goes meanwhile, a region that was not armed stays
 * absent, and one that goes does go; the next HELLO says what the client has, and what differs from the
 * import is made so.  Control thread.
 */
#ifndef POSTCOPYD_CONTROL_ARRIVAL_REGIONS_H
#define POSTCOPYD_CONTROL_ARRIVAL_REGIONS_H

#include "daemon/control/arrival.h"

/* What is told where arrival_take_shards() gives NULL. */
#define ARRIVAL_NO_SHARDS                                                                       \
    "the client sent no userfaultfd for every shard, that is non-blocking and reports nothing " \
    "but "                                                                                      \
    "what it was asked for"

/*
 * The uffds that came with ARMED (or HELLO), first being the index of the first; by malloc. NULL: not
 * all, or other files, or such as report more than was agreed upon (userfaultfd.h).
 */
Shard *arrival_take_shards(Connection *connection, const ClientShard *shards, guint32 n,
                           guint32 first);

/* False with a line in ret_text[LIMIT_TEXT + 1] if pages of a region, of an absent one too as it may
 * come, are too large to be asked for one by one. */
gboolean arrival_pages_fit(const RegionSet *regions, char *ret_text);

/* True if a HELLO's shards lie in its regions, whose pages fit. */
gboolean arrival_shards_fit(const Connection *connection, const ClientHello *hello);

/* Begin, or refuse, the REGION_ADD or REGION_REMOVE in control->message. */
void arrival_add_region(Connection *connection);
void arrival_remove_region(Connection *connection);

/* The client's answer to the ARM of a region that comes. */
void arrival_region_armed(Arrival *arrival, const ClientStatus *status, guint32 n_fds);

/* No data thread touches the region that goes any more. */
void arrival_region_settled(Arrival *arrival);

/* The client is back at an import that lived on, with its regions (region_set_is_same()): what it has of
 * them by now. */
void arrival_compare_regions(Arrival *arrival, const ClientHello *hello);

/* The client's connection ended, or the arrival does. */
void arrival_asker_gone(Arrival *arrival);
void arrival_end_change(Arrival *arrival);

#endif
