/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a resolver waits for: the shards it watches, and how their messages are read.  Resolver thread.
 */
#ifndef POSTCOPYD_FAULT_RESOLVER_WATCH_H
#define POSTCOPYD_FAULT_RESOLVER_WATCH_H

#include "daemon/fault/resolver.h"

/* Once the gate is open: waits for faults of all shards there are, and of new ones. */
void resolver_watch_shards(Resolver *resolver);

/* A region goes: what waits for its faults is ended, and once nothing is left of it that is told. */
void resolver_heed_retirement(Resolver *resolver);

/* What could not be read or served when it came.  After each wait. */
void resolver_serve_unread(Resolver *resolver);

/* Something of that was left, and nothing waits for it in the ring. */
bool resolver_has_unread(const Resolver *resolver);

/* The resolver's: one message of a shard, and the end of a batch of them. */
void resolver_take_message(Resolver *resolver, const Shard *shard, const struct uffd_msg *message);
void resolver_fetch_neighbours(Resolver *resolver);

#endif
