/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/fault/resolver_watch.h"

#include <errno.h>
#include <poll.h>

#include "daemon/fault/assist.h"
#include "daemon/fault/hotplug.h"
#include "daemon/fault/import.h"
#include "daemon/fault/uffd.h"

/* Takes what was read, as far as there are slots to serve it with. False: some are left. */
static bool take_inbox(Resolver *resolver, ShardWatch *watch)
{
    bool room = true;

    while (watch->at < watch->n && room) {
        room = channel_has_room(&resolver->channel) && !import_is_halted(resolver->import);
        if (room)
            resolver_take_message(resolver, watch->shard, &watch->messages[watch->at++]);
    }
    resolver_fetch_neighbours(resolver);
    return room;
}

/* The next message ends in the ring: with the messages themselves where nobody else waits for them. */
static void wait_for_faults(Resolver *resolver, ShardWatch *watch)
{
    if (watch->by_read)
        ring_read(&resolver->ring, &watch->watch, watch->shard->uffd, watch->messages,
                  sizeof watch->messages);
    else
        ring_poll(&resolver->ring, &watch->watch, watch->shard->uffd, POLLIN,
                  watch->shard->owner == SHARD_SHARED);
}

/*
 * A batch that was not full emptied the queue, and the new poll looks before it sleeps: no read is
 * spent on hearing that there is nothing.
 */
static bool read_more(Resolver *resolver, ShardWatch *watch)
{
    ssize_t n;

    if (resolver->assist)
        assist_before_read(resolver);
    n = uffd_read(watch->shard->uffd, watch->messages, SHARD_INBOX);
    atomic_fetch_add_explicit(&resolver->reads, 1, memory_order_relaxed);
    watch->at = 0;
    watch->n = n > 0 ? (unsigned)n : 0;
    if (resolver->assist)
        assist_after_read(resolver, watch->shard, watch->messages, watch->n);
    return watch->n == SHARD_INBOX;
}

/* Reads faults until there are none, or no free slot to serve one with: the rest waits for one. */
static void read_faults(Resolver *resolver, ShardWatch *watch, bool more)
{
    watch->unread = true;
    while (take_inbox(resolver, watch)) {
        if (!more) {
            watch->unread = false;
            wait_for_faults(resolver, watch);
            return;
        }
        if (resolver->assist && !assist_may_read(resolver))
            break; /* the loop looks again */
        more = read_more(resolver, watch);
    }
    watch->more = more;
}

/* The same for a shard that reports what is removed (shard.h): events are heeded first. */
static void read_events(Resolver *resolver, ShardWatch *watch)
{
    Shard *shard = watch->shard;
    unsigned n;

    watch->unread = true;
    if (!shard_read(resolver->import, shard, &n))
        return;
    atomic_fetch_add_explicit(&resolver->reads, 1, memory_order_relaxed);
    while (shard->inbox_at < shard->inbox_n) {
        if (!channel_has_room(&resolver->channel) || import_is_halted(resolver->import))
            break;
        resolver_take_message(resolver, shard, &shard->inbox[shard->inbox_at++]);
    }
    resolver_fetch_neighbours(resolver);
    if (!watch->watch.busy)
        wait_for_faults(resolver, watch);
    watch->unread = shard->inbox_at < shard->inbox_n;
}

static void serve_watch(Resolver *resolver, ShardWatch *watch, bool more)
{
    if (watch->shard->removable)
        read_events(resolver, watch);
    else
        read_faults(resolver, watch, more);
}

/*
 * A read that failed took nothing, and poll tells whether it may be tried again: it found a signal instead of a
 * fault (-EINTR: of ours, a debugger's, a freezer's), or the kernel will not wait in a read of a non-blocking uffd
 * (-EAGAIN: with some kernels always, seldom with others).
 */
static void poll_instead(Resolver *resolver, ShardWatch *watch, int error)
{
    if (error != -EINTR)
        watch->by_read = error == -EAGAIN && ++watch->refused < 3;
    watch->polled = true;
    ring_poll(&resolver->ring, &watch->watch, watch->shard->uffd, POLLIN, false);
}

static void shard_ready(RingWatch *ring_watch, int result)
{
    ShardWatch *watch = (ShardWatch *)((char *)ring_watch - offsetof(ShardWatch, watch));
    Resolver *resolver = ring_watch->owner;
    bool was_read = watch->by_read && !watch->polled;

    if (!shard_is_live(watch->shard))
        return;
    atomic_fetch_add_explicit(&resolver->wakeups, 1, memory_order_relaxed);
    if (was_read && result < 0) {
        poll_instead(resolver, watch, result);
    } else if (was_read) {
        watch->refused = 0;
        watch->at = 0;
        watch->n = (unsigned)result / sizeof(struct uffd_msg);
        serve_watch(resolver, watch, watch->n == SHARD_INBOX);
    } else if (result < 0 || (result & (POLLERR | POLLNVAL))) {
        /* Rule 13: a client that changed its uffd's flags harms only itself. */
        import_halt(resolver->import, CLIENT_STATE_BROKEN,
                    "the client's userfaultfd became unusable: it is no longer non-blocking");
    } else {
        watch->polled = false;
        serve_watch(resolver, watch, true);
    }
}

static bool is_mine(const Resolver *resolver, const Shard *shard)
{
    return shard->owner == SHARD_SHARED || shard->owner == (int)resolver->index;
}

/* A slot's watch is made anew for each shard that lives in it; the last one's has ended by then. */
static void watch_shard(Resolver *resolver, ShardWatch *watch, Shard *shard)
{
    watch->watch = (RingWatch){.done = shard_ready, .owner = resolver};
    watch->shard = shard;
    watch->life = shard->life;
    /* A fault that the ring read would be nobody's until it is looked at. */
    watch->by_read = shard->owner != SHARD_SHARED && !shard->removable && !resolver->assist;
    watch->unread = watch->more = watch->polled = false;
    watch->refused = watch->at = watch->n = 0;
    if (is_mine(resolver, shard))
        wait_for_faults(resolver, watch);
}

void resolver_watch_shards(Resolver *resolver)
{
    Import *import = resolver->import;
    uint64_t epoch = atomic_load_explicit(&import->epoch, memory_order_acquire);
    uint32_t n;

    if (resolver->polled == epoch || !import_gate_is_open(import))
        return;
    resolver->polled = epoch;
    resolver->channel.seal = atomic_load(&import->seal);
    n = atomic_load_explicit(&import->n_shards, memory_order_acquire);
    for (uint32_t i = 0; i < n; i++) {
        Shard *shard = &import->shards[i];
        ShardWatch *watch = &resolver->watches[i];
        if (shard_is_live(shard) && (!watch->shard || watch->life != shard->life))
            watch_shard(resolver, watch, shard);
    }
}

static bool is_retired(const ShardWatch *watch)
{
    return watch->shard && !shard_is_live(watch->shard);
}

/* A region goes: what waits for its faults is ended, and once nothing is left of it that is told. */
void resolver_heed_retirement(Resolver *resolver)
{
    Import *import = resolver->import;
    uint64_t retired = atomic_load_explicit(&import->retired, memory_order_acquire);
    uint32_t n = atomic_load_explicit(&import->n_shards, memory_order_acquire);
    bool busy;

    if (resolver->settled == retired)
        return;
    busy = channel_is_landing(&resolver->channel, import->retiring);
    for (uint32_t i = 0; i < n; i++) {
        ShardWatch *watch = &resolver->watches[i];
        if (!is_retired(watch))
            continue;
        watch->unread = false;
        if (resolver->cancelled != retired)
            ring_cancel(&resolver->ring, &watch->watch);
        busy = busy || watch->watch.busy;
    }
    resolver->cancelled = retired;
    if (busy)
        return;
    resolver->settled = retired;
    hotplug_settled(import);
}

/* Also faults that were read on the way to an event, while a page was being placed. */
static bool has_unread(const Resolver *resolver, const ShardWatch *watch)
{
    const Shard *shard = watch->shard;

    if (!shard || !shard_is_live(shard))
        return false;
    return watch->unread ||
           (shard->owner == (int)resolver->index && shard->inbox_at < shard->inbox_n);
}

bool resolver_has_unread(const Resolver *resolver)
{
    uint32_t n = atomic_load_explicit(&resolver->import->n_shards, memory_order_acquire);

    for (uint32_t i = 0; i < n; i++)
        if (has_unread(resolver, &resolver->watches[i]))
            return true;
    return false;
}

void resolver_serve_unread(Resolver *resolver)
{
    uint32_t n = atomic_load_explicit(&resolver->import->n_shards, memory_order_acquire);

    /* Events are read even where there is no slot for a fault: whoever removes memory waits for that. */
    for (uint32_t i = 0; i < n; i++) {
        ShardWatch *watch = &resolver->watches[i];

        if (has_unread(resolver, watch) &&
            (watch->shard->removable || channel_has_room(&resolver->channel)))
            serve_watch(resolver, watch, watch->more);
    }
}
