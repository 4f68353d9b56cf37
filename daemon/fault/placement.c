/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/fault/placement.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "daemon/core/clock.h"
#include "daemon/core/log.h"
#include "daemon/fault/uffd.h"

enum { AGAIN_TRIES = 500, AGAIN_PAUSE_NS = 10000000 };

/* 2 MiB of zeroes for hugetlbfs, which has no ZEROPAGE. Never written, so it takes no memory. */
static const void *zeroes(void)
{
    static _Atomic(void *) shared;
    void *pages = atomic_load(&shared);
    void *none = NULL;

    if (pages)
        return pages;
    pages = mmap(NULL, PEER_PAGE_SIZE_MAX, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                 -1, 0);
    if (pages == MAP_FAILED)
        return NULL;
    if (!atomic_compare_exchange_strong(&shared, &none, pages)) {
        munmap(pages, PEER_PAGE_SIZE_MAX);
        pages = none;
    }
    return pages;
}

static uint64_t address_of(const Import *import, uint32_t region, uint64_t page)
{
    return import->regions.regions[region].address + (page * import->page_sizes[region]);
}

/* The shard that holds a client address; shards are few and sorted by region, then start. */
static const Shard *shard_of(const Import *import, uint64_t address)
{
    for (uint32_t i = 0; i < import->n_shards; i++)
        if (address - import->shards[i].start < import->shards[i].length)
            return &import->shards[i];
    return NULL;
}

static void record_waiter(void *owner, uint32_t vcpu, uint64_t since_ns)
{
    import_account(owner, vcpu, since_ns, clock_ns());
}

/* PRESENT only now, after the ioctl succeeded; the exchange tells who has to be woken (rule 7). */
static void finish(Import *import, const Shard *shard, uint32_t region, uint64_t page,
                   uint64_t count)
{
    uint64_t page_size = import->page_sizes[region];

    for (uint64_t i = page; i < page + count; i++) {
        if (!page_table_finish(&import->table, region, i))
            continue;
        uffd_wake(shard->uffd, address_of(import, region, i), page_size);
        waiters_take(import->waiters, waiters_key(region, i), record_waiter, import);
    }
}

static void halt_at(Import *import, uint32_t region, uint64_t page, const char *what)
{
    char text[LIMIT_TEXT + 1];

    snprintf(text, sizeof text, "page %" PRIu64 " of region '%s' %s", page,
             import->regions.regions[region].id, what);
    import_halt(import, CLIENT_STATE_BROKEN, text);
}

/*
 * One page was there already.  Rule 5: right after adoption (the dead daemon placed it and did not
 * come to say so); anywhere else somebody wrote memory that was not theirs.
 */
static bool accept_present(Import *import, const Shard *shard, uint32_t region, uint64_t page)
{
    atomic_fetch_add_explicit(&import->counters.eexist, 1, memory_order_relaxed);
    if (!import->adopted) {
        halt_at(import, region, page,
                "was present before it was placed: something else wrote the guest's memory");
        return false;
    }
    uffd_wake(shard->uffd, address_of(import, region, page), import->page_sizes[region]);
    return true;
}

/* One ioctl for as many pages as go. */
static int put_once(const Import *import, const Shard *shard, uint32_t region, uint64_t page,
                    uint64_t count, const void *data, bool demand, uint64_t *ret_pages)
{
    uint64_t page_size = import->page_sizes[region];
    uint64_t address = address_of(import, region, page);
    uint64_t placed;
    int result;

    if (data)
        result = uffd_copy(shard->uffd, address, data, count * page_size, demand, &placed);
    else if (import->regions.regions[region].page_shift == 12)
        result = uffd_zero(shard->uffd, address, count * page_size, demand, &placed);
    else
        result = uffd_copy(shard->uffd, address, zeroes(), page_size, demand, &placed);
    *ret_pages = placed / page_size;
    return result == UFFD_PLACED && *ret_pages < count ? UFFD_AGAIN : result;
}

/* What to do about an ioctl that did not place all; false: give up. */
static bool go_on(Import *import, const Shard *shard, uint32_t region, uint64_t page, int result,
                  unsigned *tries)
{
    static const struct timespec pause = {.tv_nsec = AGAIN_PAUSE_NS};

    switch (result) {
    case UFFD_PRESENT:
        return accept_present(import, shard, region, page);
    case UFFD_AGAIN:
        if (++*tries > AGAIN_TRIES) {
            halt_at(import, region, page, "could not be placed for want of memory");
            return false;
        }
        atomic_fetch_add_explicit(&import->counters.retried, 1, memory_order_relaxed);
        if (*tries > 1)
            nanosleep(&pause, NULL);
        return true;
    case UFFD_GONE:
        /* The client is ending, as its socket and pidfd tell; or it let go of a hole just touched. */
        uffd_wake(shard->uffd, address_of(import, region, page), import->page_sizes[region]);
        return false;
    default:
        halt_at(import, region, page, strerrordesc_np(-result));
        return false;
    }
}

/* Pages of one shard. */
static bool put_in_shard(Import *import, const Shard *shard, uint32_t region, uint64_t page,
                         uint64_t count, const void *data, bool demand)
{
    const uint64_t page_size = import->page_sizes[region];
    unsigned tries = 0;

    while (count > 0) {
        uint64_t placed;
        int result = put_once(import, shard, region, page, count, data, demand, &placed);

        if (placed > 0)
            tries = 0;
        finish(import, shard, region, page, placed);
        if (placed < count && placed == 0 && !go_on(import, shard, region, page, result, &tries))
            return false;
        if (placed == 0 && result == UFFD_PRESENT) {
            finish(import, shard, region, page, 1);
            placed = 1;
        }
        page += placed;
        count -= placed;
        data = data ? (const char *)data + placed * page_size : NULL;
    }
    return true;
}

void placement_put(Import *import, uint32_t region, uint64_t page, uint64_t count, const void *data,
                   bool demand)
{
    const uint64_t page_size = import->page_sizes[region];

    while (count > 0 && !import_is_halted(import)) {
        uint64_t address = address_of(import, region, page);
        const Shard *shard = shard_of(import, address);
        uint64_t fits, n;

        if (!shard) {
            halt_at(import, region, page, "lies in no shard its client handed over");
            return;
        }
        fits = (shard->start + shard->length - address) / page_size;
        n = count < fits ? count : fits;
        if (!put_in_shard(import, shard, region, page, n, data, demand))
            return;
        page += n;
        count -= n;
        data = data ? (const char *)data + n * page_size : NULL;
    }
}

/*
 * The page was placed, yet it faults: its fault was queued before the placing and read after it, or
 * its mapping was zapped or its hole punched since.  A bare WAKE would loop for ever.
 */
void placement_again(Import *import, uint32_t region, uint64_t page, bool minor)
{
    uint64_t page_size = import->page_sizes[region];
    uint64_t address = address_of(import, region, page);
    const Shard *shard = shard_of(import, address);
    uint64_t placed;
    int result;

    if (minor)
        result = uffd_continue(shard->uffd, address, page_size, true, &placed);
    else if (import->regions.regions[region].page_shift == 12)
        result = uffd_zero(shard->uffd, address, page_size, true, &placed);
    else
        result = uffd_copy(shard->uffd, address, zeroes(), page_size, true, &placed);
    if (result != UFFD_PLACED)
        uffd_wake(shard->uffd, address, page_size);
}

void placement_poison(Import *import, uint32_t region, uint64_t page, uint64_t count)
{
    uint64_t page_size = import->page_sizes[region];

    log_error("%s: %" PRIu64 " pages from page %" PRIu64
              " of region '%s' on cannot be read at the source: poisoned",
              import->name, count, page, import->regions.regions[region].id);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t address = address_of(import, region, page + i);
        const Shard *shard = shard_of(import, address);

        if (!shard || uffd_poison(shard->uffd, address, page_size) != UFFD_PLACED) {
            halt_at(import, region, page + i, "cannot be read at the source, nor poisoned here");
            return;
        }
        atomic_fetch_add_explicit(&import->counters.poisoned, 1, memory_order_relaxed);
        finish(import, shard, region, page + i, 1);
        uffd_wake(shard->uffd, address, page_size);
    }
}
