/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/fault/assist.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "daemon/core/clock.h"
#include "daemon/fault/import.h"
#include "daemon/fault/resolver.h"
#include "daemon/fault/resolver_watch.h"
#include "daemon/fault/uffd.h"

_Static_assert((int)IMPORT_RESOLVERS_MAX <= (int)PAGE_TABLE_BUSY,
               "each resolver has a word of its own");

/* A page that was given back is asked for again after so long, while somebody waits for it. */
#define ASK_AGAIN_NS UINT64_C(100000000)

struct AssistWatch {
    Pending pending;
    uint64_t reading_ns; /* when it began the read under way */
};

/* --- words of the header -------------------------------------------------------------------- */

/* Whoever halts or withdraws says so first and clears the word then; so either it sees this, or this sees it. */
void assist_set_serving(Import *import, bool serving)
{
    uint32_t *word;

    if (!import->config.assist)
        return;
    word = &import->table.header->serving;
    __atomic_store_n(word, serving ? 1 : 0, __ATOMIC_SEQ_CST);
    if (serving && (atomic_load(&import->halted) || atomic_load(&import->withdrawn)))
        __atomic_store_n(word, 0, __ATOMIC_SEQ_CST);
}

void assist_withdraw(Import *import)
{
    atomic_store(&import->withdrawn, true);
    if (import->table.header) /* it may have failed before it had one */
        assist_set_serving(import, false);
}

void assist_complete(Import *import)
{
    assist_withdraw(import);
    atomic_store(&import->complete_ns, clock_ns());
}

static bool is_relaying(const Import *import)
{
    return __atomic_load_n(&import->table.header->relaying, __ATOMIC_SEQ_CST) != 0;
}

static void set_busy(const Resolver *resolver, uint64_t since_ns)
{
    __atomic_store_n(&resolver->import->table.header->busy_since[resolver->index], since_ns,
                     __ATOMIC_SEQ_CST);
}

static void count_read(const Resolver *resolver)
{
    __atomic_fetch_add(&resolver->import->table.header->reads[resolver->index], 1,
                       __ATOMIC_RELEASE);
}

/* --- a resolver's loop ---------------------------------------------------------------------- */

AssistWatch *assist_watch_new(void)
{
    return calloc(1, sizeof(AssistWatch));
}

bool assist_may_read(const Resolver *resolver)
{
    const Import *import = resolver->import;

    return !is_relaying(import) && !import_is_halted(import) &&
           !atomic_load_explicit(&import->withdrawn, memory_order_acquire) &&
           pending_room(&resolver->assist->pending) >= SHARD_INBOX;
}

/* If it dies in that read or right after it, the word tells the client that there may be a fault. */
void assist_before_read(Resolver *resolver)
{
    resolver->assist->reading_ns = clock_ns();
    if (resolver->assist->pending.n == 0)
        set_busy(resolver, resolver->assist->reading_ns);
}

void assist_after_read(Resolver *resolver, const Shard *shard, const struct uffd_msg *messages,
                       unsigned n)
{
    Import *import = resolver->import;
    const Region *region = &import->regions.regions[shard->region];
    Pending *pending = &resolver->assist->pending;

    if (n > 0)
        count_read(resolver);
    for (unsigned i = 0; i < n; i++) {
        uint64_t address = messages[i].arg.pagefault.address;
        PendingFault fault = {
            .page = (address - region->address) >> region->page_shift,
            .since_ns = resolver->assist->reading_ns,
            .asked_ns = resolver->assist->reading_ns,
            .region = shard->region,
            .vcpu = import_vcpu(import, messages[i].arg.pagefault.feat.ptid),
        };

        if (messages[i].event == UFFD_EVENT_PAGEFAULT && address - shard->start < shard->length)
            pending_add(pending, &fault);
    }
    if (pending->n == 0)
        set_busy(resolver, 0);
}

/* Somebody waits for it, and nobody fetches it any more. */
static void ask_again(Resolver *resolver, PendingFault *fault, uint64_t now_ns)
{
    Import *import = resolver->import;
    Fetch *fetch;

    if (now_ns - fault->asked_ns < ASK_AGAIN_NS || !channel_has_room(&resolver->channel) ||
        import_is_halted(import))
        return;
    fault->asked_ns = now_ns;
    if (page_table_claim_any_run(&import->table, fault->region, fault->page, 1) == 0)
        return;
    fetch = channel_fetch(&resolver->channel, fault->region, fault->page, 1);
    fetch->wanted = fault->page;
    fetch->vcpu = fault->vcpu;
    fetch->since_ns = fault->since_ns;
}

static void wake(const Import *import, const PendingFault *fault)
{
    uint64_t page_size = import->page_sizes[fault->region];
    uint64_t address = import->regions.regions[fault->region].address + fault->page * page_size;
    const Shard *shard = import_shard(import, address);

    if (shard)
        uffd_wake(shard->uffd, address, page_size);
}

static bool is_resolved(void *owner, PendingFault *fault)
{
    Resolver *resolver = owner;
    uint64_t state =
        page_table_get(&resolver->import->table, fault->region, fault->page) & PAGE_STATE_MASK;

    if (state == PAGE_PRESENT || state == PAGE_REMOVED)
        return true;
    if (state ==
        PAGE_FOUND) { /* what was found may have come without a wake; if it went it faults again */
        wake(resolver->import, fault);
        return true;
    }
    if (state == PAGE_HOLE || state == PAGE_MISSING)
        ask_again(resolver, fault, clock_ns());
    return false;
}

void assist_review(Resolver *resolver)
{
    Pending *pending = &resolver->assist->pending;

    if (pending->n == 0)
        return;
    pending_prune(pending, is_resolved, resolver);
    set_busy(resolver, pending_oldest(pending));
}

/*
 * What was left unread has no poll of its own, so whatever made it stop it has to look again.  Why it did is
 * not asked anew: the client may have changed its mind since.
 */
int assist_patience_ms(const Resolver *resolver)
{
    bool reads = !import_is_halted(resolver->import) &&
                 !atomic_load_explicit(&resolver->import->withdrawn, memory_order_acquire);

    return resolver->assist->pending.n > 0 || (reads && resolver_has_unread(resolver))
               ? ASSIST_TICK_MS
               : -1;
}

/* --- what is not placed ---------------------------------------------------------------------- */

static void forget_waiter(void *owner, uint32_t vcpu, uint64_t since_ns)
{
    (void)owner;
    (void)vcpu;
    (void)since_ns;
}

/* The fault itself is still among its resolver's pending ones, or the client's to relay. */
static void lose_mark(void *user, uint32_t region, uint64_t page)
{
    Import *import = user;

    waiters_take(import->waiters, waiters_key(region, page), forget_waiter, NULL);
}

void assist_give_back(Import *import, uint32_t region, uint64_t page, uint64_t count)
{
    if (count > 0)
        page_table_give_back(&import->table, region, page, count, lose_mark, import);
}
