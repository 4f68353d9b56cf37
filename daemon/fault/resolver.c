/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/fault/resolver.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "daemon/core/clock.h"
#include "daemon/core/log.h"
#include "daemon/core/thread.h"
#include "daemon/fault/affinity.h"
#include "daemon/fault/assist.h"
#include "daemon/fault/dispatch.h"
#include "daemon/fault/hotplug.h"
#include "daemon/fault/import.h"
#include "daemon/fault/import_transport.h"
#include "daemon/fault/placement.h"
#include "daemon/fault/resolver_watch.h"
#include "daemon/fault/uffd.h"

enum {
    RESOLVER_RETRY_MS = 50,
    RETIRING_MS = 10,
    RESOLVER_ATTEMPTS = 40, /* of a page the source cannot read, before it is poisoned */
    AROUND_SLOTS = CHANNEL_SLOTS * 3 / 4, /* the rest is for pages that are wanted */
};

#define NOT_WANTED UINT64_MAX

/* --- what comes back from the source ------------------------------------------------------- */

/* Also for the stream, which gives way where faults take long. */
static void tell_latency(Resolver *resolver, uint64_t latency_ns)
{
    _Atomic uint64_t *told = &resolver->import->urgent_ns;
    uint64_t before = atomic_load_explicit(told, memory_order_relaxed);

    around_waited(&resolver->around, latency_ns);
    atomic_store_explicit(told, before ? (3 * before + latency_ns) / 4 : latency_ns,
                          memory_order_relaxed);
}

static void pages_arrived(void *owner, Fetch *fetch, uint32_t first, uint32_t count,
                          FetchContent content, const void *data)
{
    Resolver *resolver = owner;
    Import *import = resolver->import;
    bool wanted = fetch->wanted - (fetch->page + first) < count;
    Placement placement = {
        .region = fetch->region,
        .page = fetch->page + first,
        .count = count,
        .content = content,
        .data = data,
        .spoiled = fetch->spoiled,
        .demand = wanted,
        .by = (int)resolver->index,
    };
    uint64_t bytes = count * import->page_sizes[fetch->region];
    uint64_t now;

    placement_put(import, &placement);
    if (import_is_halted(import))
        return; /* what was not placed does not count */
    import_count_fetched(import, fetch->region, count, content == FETCH_ZERO);
    if (content != FETCH_ZERO)
        atomic_fetch_add_explicit(&import->counters.urgent_bytes, bytes, memory_order_relaxed);
    atomic_fetch_add_explicit(&import->counters.by_around, count - wanted, memory_order_relaxed);
    if (!wanted)
        return;
    now = clock_ns();
    atomic_fetch_add_explicit(&import->counters.by_fault, 1, memory_order_relaxed);
    import_account(import, fetch->vcpu, fetch->since_ns, now);
    tell_latency(resolver, now - fetch->since_ns);
}

static bool place(void *owner, const Fetch *fetch, uint32_t first, uint32_t count,
                  FetchPlace *ret_place)
{
    Resolver *resolver = owner;

    return import_place(resolver->import, fetch, first, count, ret_place);
}

static uint32_t source(void *owner, uint32_t region, uint64_t page, uint32_t count,
                       FetchSource *ret_source)
{
    Resolver *resolver = owner;

    return import_source(resolver->import, region, page, count, ret_source);
}

static uint32_t land(void *owner, const Fetch *fetch, uint32_t first, uint32_t count,
                     FetchLanding *ret_landing)
{
    Resolver *resolver = owner;

    return import_land(resolver->import, fetch, first, count, ret_landing);
}

static bool page_failed(void *owner, Fetch *fetch, PeerErrorCode code)
{
    Resolver *resolver = owner;
    Import *import = resolver->import;

    atomic_fetch_add_explicit(&import->counters.retried, 1, memory_order_relaxed);
    if (code == PEER_ERROR_FENCED) {
        import_halt(import, CLIENT_STATE_FENCED, "the source ran again");
        return true;
    }
    if (import->config.assist) {
        assist_give_back(import, fetch->region, fetch->page, fetch->count);
        return false;
    }
    if (fetch->attempts < RESOLVER_ATTEMPTS)
        return true;
    placement_poison(import, fetch->region, fetch->page, fetch->count, (int)resolver->index);
    return false;
}

static void channel_down(void *owner, const char *reason)
{
    Resolver *resolver = owner;

    /* First the word, then the offer: once it is idle the link takes no word of it for new. */
    link_channel_down(&resolver->import->link, reason);
    offer_lost(&resolver->offer);
}

static const FetchSink resolver_sink = {
    .pages = pages_arrived,
    .place = place,
    .source = source,
    .land = land,
    .failed = page_failed,
    .down = channel_down,
};

/* --- what comes from the guest ------------------------------------------------------------- */

/* Somebody else fetches the page: enter the books first, then mark it (waiters.h). */
static PageClaim claim(Import *import, uint32_t region, uint64_t page, uint32_t vcpu,
                       uint64_t now_ns)
{
    uint64_t state = page_table_get(&import->table, region, page) & PAGE_STATE_MASK;
    uint64_t key = waiters_key(region, page);
    PageClaim result;
    int slot = -1;

    if (state == PAGE_REQUESTED || state == PAGE_RECEIVED)
        slot = waiters_enter(import->waiters, key, vcpu, now_ns);
    result = page_table_claim_fault(&import->table, region, page);
    if (result == PAGE_CLAIM_WAIT)
        atomic_fetch_add_explicit(&import->counters.waited, 1, memory_order_relaxed);
    else
        waiters_leave(import->waiters, slot, key);
    return result;
}

static void fetch_run(Resolver *resolver, uint32_t region, uint64_t page, uint64_t count)
{
    if (count > 0)
        channel_fetch(&resolver->channel, region, page, (uint32_t)count)->wanted = NOT_WANTED;
}

static uint64_t claim_neighbours(Import *import, uint32_t region, uint64_t page, uint64_t limit)
{
    return import->config.assist ? page_table_claim_any_run(&import->table, region, page, limit)
                                 : page_table_claim_run(&import->table, region, page, limit);
}

/*
 * All memory has to come anyway: a fault takes the MISSING pages next to its own along, in the aligned
 * block around it, as far as they are known to have content (in assist mode nothing is known: as far as
 * nobody brought them).  They go with it in one request; where
 * that would hold it up, behind the pages of all faults of a batch: on a slow link, and in assist mode,
 * where QEMU's own threads want the cores as well.  Over a lane, too: a READ is there as a whole or not at all, and
 * one more costs next to nothing.
 */
static void fetch_around(Resolver *resolver, Fetch *fetch)
{
    Import *import = resolver->import;
    uint64_t page = fetch->page, first = page, after = 0;
    bool apart;
    uint64_t block =
        around_bytes(&resolver->around,
                     atomic_load_explicit(&import->link_rate, memory_order_relaxed),
                     atomic_load_explicit(&import->limit, memory_order_relaxed), &apart) /
        import->page_sizes[fetch->region];
    uint64_t start, end;

    if (block <= 1 || resolver->channel.used + 2 > AROUND_SLOTS)
        return;
    start = page / block * block;
    end = start + block;
    if (end > import->table.pages[fetch->region])
        end = import->table.pages[fetch->region];
    if (page + 1 < end)
        after = claim_neighbours(import, fetch->region, page + 1, end - page - 1);
    while (first > start && claim_neighbours(import, fetch->region, first - 1, 1) == 1)
        first--;
    if (apart || import->config.assist || resolver->channel.lane) {
        fetch_run(resolver, fetch->region, page + 1, after);
        fetch_run(resolver, fetch->region, first, page - first);
    } else {
        fetch->page = first;
        fetch->count += (uint32_t)(page - first + after);
    }
}

/* Before anything of the batch is sent. */
void resolver_fetch_neighbours(Resolver *resolver)
{
    for (unsigned i = 0; i < resolver->n_fetched; i++)
        fetch_around(resolver, resolver->fetched[i]);
    resolver->n_fetched = 0;
}

/* Of a shard that was retired since nobody needs an answer: its client wakes whoever waited. */
static bool is_served(const Import *import, const FaultRecord *fault)
{
    const Shard *shard = &import->shards[fault->shard];

    return shard_is_live(shard) && fault->address - shard->start < shard->length;
}

static void resolve(Resolver *resolver, const FaultRecord *fault)
{
    Import *import = resolver->import;
    const Shard *shard = &import->shards[fault->shard];
    const Region *region = &import->regions.regions[shard->region];
    uint64_t page;
    uint64_t now = fault->since_ns;
    uint32_t vcpu = fault->vcpu;
    Fetch *fetch;

    if (!is_served(import, fault))
        return;
    page = (fault->address - region->address) >> region->page_shift;
    switch (import_is_gone(import, shard->region) ? PAGE_CLAIM_REMOVED
                                                  : claim(import, shard->region, page, vcpu, now)) {
    case PAGE_CLAIM_FETCH:
        fetch = channel_fetch(&resolver->channel, shard->region, page, 1);
        fetch->wanted = page;
        fetch->vcpu = vcpu;
        fetch->since_ns = now;
        resolver->fetched[resolver->n_fetched++] = fetch;
        atomic_store_explicit(&import->last_fault, waiters_key(shard->region, page),
                              memory_order_relaxed);
        break;
    case PAGE_CLAIM_ZERO:
        placement_put(import, &(Placement){
                                  .region = shard->region,
                                  .page = page,
                                  .count = 1,
                                  .content = FETCH_ZERO,
                                  .demand = true,
                                  .by = (int)resolver->index,
                              });
        atomic_fetch_add_explicit(&import->counters.hole, 1, memory_order_relaxed);
        import_account(import, vcpu, now, clock_ns());
        break;
    case PAGE_CLAIM_WAIT:
        break;
    case PAGE_CLAIM_PRESENT:
    case PAGE_CLAIM_REMOVED:
        placement_again(import, shard->region, page, fault->minor);
        atomic_fetch_add_explicit(&import->counters.faults_present, 1, memory_order_relaxed);
        import_account(import, vcpu, now, clock_ns());
        break;
    }
}

void resolver_take_message(Resolver *resolver, const Shard *shard, const struct uffd_msg *message)
{
    uint32_t tid = message->arg.pagefault.feat.ptid;
    FaultRecord fault = {
        .address = message->arg.pagefault.address,
        .since_ns = clock_ns(),
        .shard = (uint32_t)(shard - resolver->import->shards),
        .vcpu = import_vcpu(resolver->import, tid),
        .minor = (message->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_MINOR) != 0,
    };

    if (message->event != UFFD_EVENT_PAGEFAULT || fault.address - shard->start >= shard->length)
        return;
    atomic_fetch_add_explicit(&resolver->faults, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&resolver->import->counters.faults, 1, memory_order_relaxed);
    if (!dispatch_hand_over(resolver, &fault, tid))
        resolve(resolver, &fault);
}

/* --- the thread ---------------------------------------------------------------------------- */

/* What others read for it. */
static void drain_queue(Resolver *resolver)
{
    FaultRecord fault;

    while (dispatch_take(resolver, &fault)) {
        resolver_watch_shards(resolver); /* who handed it over saw the gate open */
        resolve(resolver, &fault);
    }
    resolver_fetch_neighbours(resolver);
}

static void woken(void *owner)
{
    Resolver *resolver = owner;

    offer_serve(&resolver->offer, &resolver->channel);
    resolver_watch_shards(resolver);
}

static int patience_ms(Resolver *resolver)
{
    uint64_t retired = atomic_load_explicit(&resolver->import->retired, memory_order_acquire);
    int most = resolver->channel.retrying ? RESOLVER_RETRY_MS : -1;

    if (!dispatch_sleep(resolver))
        return 0;
    if (resolver->assist)
        most = assist_patience_ms(resolver);
    /* What keeps a region from settling may end without waking anybody. */
    return resolver->settled != retired && (most < 0 || most > RETIRING_MS) ? RETIRING_MS : most;
}

static void *run(void *argument)
{
    Resolver *resolver = argument;
    char name[16];
    int error;

    snprintf(name, sizeof name, "resolver-%u", resolver->index);
    prctl(PR_SET_NAME, name);
    if (resolver->import->config.assist)
        thread_hurry(); /* QEMU's own stream has threads on the same cores */
    error = ring_start(&resolver->ring, 256);
    if (error) {
        import_halt(resolver->import, CLIENT_STATE_BROKEN,
                    "a resolver could not make its io_uring");
        return NULL;
    }
    while (!error && !atomic_load_explicit(&resolver->stop, memory_order_acquire)) {
        affinity_heed(resolver);
        resolver_heed_retirement(resolver);
        drain_queue(resolver);
        if (resolver->assist)
            assist_review(resolver);
        channel_flush(&resolver->channel);
        error = ring_wait(&resolver->ring, patience_ms(resolver));
        dispatch_awake(resolver);
        resolver_serve_unread(resolver);
    }
    if (error)
        import_halt(resolver->import, CLIENT_STATE_BROKEN, strerrordesc_np(-error));
    ring_stop(&resolver->ring);
    return NULL;
}

static int init_parts(Resolver *resolver)
{
    Import *import = resolver->import;
    int error;

    resolver->watches = calloc(LIMIT_SHARDS, sizeof *resolver->watches);
    if (import->config.assist)
        resolver->assist = assist_watch_new();
    if (!resolver->watches || (import->config.assist && !resolver->assist))
        return -ENOMEM;
    error = dispatch_init(resolver);
    if (!error)
        error = ring_init(&resolver->ring, woken, resolver);
    if (error)
        return error;
    offer_init(&resolver->offer, &resolver->ring);
    return channel_init(&resolver->channel, &resolver->ring, &resolver_sink, resolver,
                        import->page_sizes, import->wire_regions, import->regions.n,
                        import_buffer_size(import), false);
}

int resolver_init(Resolver *resolver, Import *import, unsigned index)
{
    int error;

    *resolver = (Resolver){
        .import = import,
        .index = index,
        .ring.wake_fd = -1,
        .channel.fd = -1,
    };
    around_init(&resolver->around, import->config.around);
    error = init_parts(resolver);
    if (error)
        resolver_deinit(resolver);
    return error;
}

int resolver_start(Resolver *resolver)
{
    int error = -pthread_create(&resolver->thread, NULL, run, resolver);

    resolver->started = !error;
    if (!error)
        ring_wake(&resolver->ring); /* an adopted import's gate may be open already */
    return error;
}

void resolver_stop(Resolver *resolver)
{
    if (!resolver->started)
        return;
    atomic_store_explicit(&resolver->stop, true, memory_order_release);
    ring_wake(&resolver->ring);
    thread_join(resolver->thread);
    resolver->started = false;
}

void resolver_deinit(Resolver *resolver)
{
    fault_queue_deinit(&resolver->queue);
    free(resolver->watches);
    resolver->watches = NULL;
    free(resolver->assist);
    resolver->assist = NULL;
    if (resolver->ring.wake_fd < 0)
        return;
    channel_deinit(&resolver->channel);
    offer_deinit(&resolver->offer);
    ring_deinit(&resolver->ring);
}
