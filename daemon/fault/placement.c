/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/fault/placement.h"

#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "daemon/core/clock.h"
#include "daemon/core/log.h"
#include "daemon/fault/assist.h"
#include "daemon/fault/uffd.h"

enum {
    AGAIN_TRIES = 500,
    AGAIN_SOON = 100,
    AGAIN_PAUSE_NS = 10000000,
    AGAIN_EVENT_NS = 50000,
    AGAIN_SPINS = 100,
    ASSIST_TRIES = 3, /* QEMU brings the page as well: nobody waits long for memory */
};

static const struct timespec again_pause = {.tv_nsec = AGAIN_PAUSE_NS};

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

static void record_waiter(void *owner, uint32_t vcpu, uint64_t since_ns)
{
    import_account(owner, vcpu, since_ns, clock_ns());
}

/* The exchange told that somebody waits for this page (rule 7). */
static void wake_waiters(void *user, uint32_t region, uint64_t page)
{
    Import *import = user;
    uint64_t address = address_of(import, region, page);
    const Shard *shard = import_shard(import, address);

    if (shard)
        uffd_wake(shard->uffd, address, import->page_sizes[region]);
    waiters_take(import->waiters, waiters_key(region, page), record_waiter, import);
}

/* PRESENT only now, after the ioctl succeeded. */
static void finish(Import *import, uint32_t region, uint64_t page, uint64_t count)
{
    if (count > 0)
        page_table_finish(&import->table, region, page, count, wake_waiters, import);
}

/*
 * Something was there when it was to be placed.  In assist mode that may be what QEMU placed just now, or
 * what nobody should have: QEMU has to hear of that when it brings the page, as it would without us.
 */
static void finish_present(Import *import, uint32_t region, uint64_t page)
{
    if (import->config.assist)
        page_table_found(&import->table, region, page, 1, wake_waiters, import);
    else
        finish(import, region, page, 1);
}

/* In assist mode nothing is lost by a page that cannot be placed: QEMU brings it (rule 9). */
static void halt_at(Import *import, uint32_t region, uint64_t page, const char *what)
{
    char text[LIMIT_TEXT + 1];

    if (import->config.assist)
        return;
    snprintf(text, sizeof text, "page %" PRIu64 " of region '%s' %s", page,
             import->regions.regions[region].id, what);
    import_halt(import, CLIENT_STATE_BROKEN, text);
}

/* Pages of one shard and one chunk, as they are being placed. */
typedef struct Batch {
    Import *import;
    Shard *shard;
    uint32_t region;
    uint64_t page, count;
    const char *data; /* NULL: zeroes, or in the mirror */
    bool allocated;   /* by CONTINUE */
    bool keep;        /* the client may not discard it: what is gone was taken by somebody else */
    bool demand;
    int by;
    unsigned tries;
    uint64_t removed; /* by all, at the last try */
} Batch;

/*
 * One page was there already.  Rule 5: from CONTINUE, or right after adoption (the dead daemon placed
 * it and did not come to say so), and in assist mode, where QEMU places pages too; anywhere else somebody
 * wrote memory that was not theirs.
 */
static bool accept_present(Batch *batch)
{
    Import *import = batch->import;

    atomic_fetch_add_explicit(&import->counters.eexist, 1, memory_order_relaxed);
    if (!import->adopted && !batch->allocated && !import->config.assist) {
        halt_at(import, batch->region, batch->page,
                "was present before it was placed: something else wrote the guest's memory");
        return false;
    }
    uffd_wake(batch->shard->uffd, address_of(import, batch->region, batch->page),
              import->page_sizes[batch->region]);
    return true;
}

static int put_zero(const Import *import, const Shard *shard, uint32_t region, uint64_t page,
                    uint64_t count, bool demand, uint64_t *ret_placed)
{
    uint64_t page_size = import->page_sizes[region];
    uint64_t address = address_of(import, region, page);

    if (import->regions.regions[region].page_shift == 12)
        return uffd_zero(shard->uffd, address, count * page_size, demand, ret_placed);
    _Static_assert(PEER_PAGE_SIZE_MAX == 2 << 20, "zeroes() are as long as a page can be");
    return uffd_copy(shard->uffd, address, zeroes(), page_size, demand, ret_placed);
}

/* One ioctl for as many pages as go. */
static int put_once(const Batch *batch, uint64_t *ret_pages)
{
    const Import *import = batch->import;
    uint64_t page_size = import->page_sizes[batch->region];
    uint64_t address = address_of(import, batch->region, batch->page);
    uint64_t length = batch->count * page_size;
    uint64_t placed;
    int result;

    if (batch->allocated) {
        result = uffd_continue(batch->shard->uffd, address, length, batch->demand, &placed);
        if (result == UFFD_ABSENT && placed == 0 && !batch->keep)
            result = put_zero(import, batch->shard, batch->region, batch->page, 1, batch->demand,
                              &placed);
    } else if (batch->data) {
        result =
            uffd_copy(batch->shard->uffd, address, batch->data, length, batch->demand, &placed);
    } else {
        result = put_zero(import, batch->shard, batch->region, batch->page, batch->count,
                          batch->demand, &placed);
    }
    *ret_pages = placed / page_size;
    return result == UFFD_PLACED && *ret_pages < batch->count ? UFFD_AGAIN : result;
}

/*
 * Whoever removes memory is in the way from before its event is queued until it runs again after the
 * event was read.  A balloon goes on at once to its next page: what is between two is met by trying
 * without a pause, and hardly ever by one try after each pause.
 */
static int put_between(const Batch *batch, uint64_t *ret_pages)
{
    unsigned spins = batch->shard->removable && batch->tries ? AGAIN_SPINS : 0;
    int result = put_once(batch, ret_pages);

    while (result == UFFD_AGAIN && *ret_pages == 0 && spins--) {
        sched_yield();
        result = put_once(batch, ret_pages);
    }
    return result;
}

typedef enum Outcome {
    OUTCOME_DONE,
    OUTCOME_LATER, /* try again, after a look at what was removed meanwhile */
    OUTCOME_FAILED,
} Outcome;

/*
 * The address space is changing, or memory is short.  Where events are asked for, one of them stands
 * in the way until it is read, and may remove pages of this batch.
 */
static Outcome try_again(Batch *batch)
{
    Import *import = batch->import;
    uint64_t removed = atomic_load_explicit(&import->counters.removed, memory_order_relaxed);

    /* As long as memory is being removed, that is the reason. */
    if (removed != batch->removed)
        batch->tries = 0;
    batch->removed = removed;
    if (++batch->tries > (import->config.assist ? ASSIST_TRIES : AGAIN_TRIES)) {
        halt_at(import, batch->region, batch->page, "could not be placed for want of memory");
        return OUTCOME_FAILED;
    }
    atomic_fetch_add_explicit(&import->counters.retried, 1, memory_order_relaxed);
    if (batch->shard->removable)
        return OUTCOME_LATER;
    if (batch->tries > 1)
        nanosleep(&again_pause, NULL);
    return OUTCOME_DONE;
}

/* What to do about an ioctl that placed nothing. DONE: go on. */
static Outcome go_on(Batch *batch, int result)
{
    Import *import = batch->import;

    switch (result) {
    case UFFD_PRESENT:
        return accept_present(batch) ? OUTCOME_DONE : OUTCOME_FAILED;
    case UFFD_AGAIN:
        return try_again(batch);
    case UFFD_ABSENT:
        halt_at(import, batch->region, batch->page,
                "was received and is gone: something else discarded the guest's memory");
        return OUTCOME_FAILED;
    case UFFD_GONE:
        /* The client is ending, as its socket and pidfd tell; or it let go of a hole just touched. */
        uffd_wake(batch->shard->uffd, address_of(import, batch->region, batch->page),
                  import->page_sizes[batch->region]);
        return OUTCOME_FAILED;
    default:
        halt_at(import, batch->region, batch->page, strerrordesc_np(-result));
        return OUTCOME_FAILED;
    }
}

/* Moves batch on as far as it came. */
static Outcome put_batch(Batch *batch)
{
    Import *import = batch->import;
    uint64_t page_size = import->page_sizes[batch->region];

    while (batch->count > 0) {
        uint64_t placed;
        int result = put_between(batch, &placed);

        if (placed > 0)
            batch->tries = 0;
        finish(import, batch->region, batch->page, placed);
        if (batch->allocated)
            atomic_fetch_add_explicit(&import->counters.continued, placed, memory_order_relaxed);
        if (placed == 0) {
            Outcome outcome = go_on(batch, result);
            if (outcome != OUTCOME_DONE)
                return outcome;
        }
        if (placed == 0 && result == UFFD_PRESENT) {
            finish_present(import, batch->region, batch->page);
            placed = 1;
        }
        batch->page += placed;
        batch->count -= placed;
        batch->data = batch->data ? batch->data + placed * page_size : NULL;
    }
    return OUTCOME_DONE;
}

/* Into the file, by a system call (rule 13). */
static Outcome write_pages(Batch *batch, const char *data, uint64_t length)
{
    const Region *region = &batch->import->regions.regions[batch->region];
    uint64_t at = region->fd_offset + (batch->page << region->page_shift);

    while (length > 0) {
        ssize_t n = pwrite(region->fd, data, length, (off_t)at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == ENOMEM) { /* as for the ioctls */
            Outcome outcome = try_again(batch);
            if (outcome != OUTCOME_DONE)
                return outcome;
            continue;
        }
        if (n <= 0) {
            halt_at(batch->import, batch->region, batch->page, "could not be written");
            return OUTCOME_FAILED;
        }
        data += n;
        at += (uint64_t)n;
        length -= (uint64_t)n;
    }
    return OUTCOME_DONE;
}

/*
 * Rule 4: content first, then RECEIVED, and from there on the file's page is not written again; then
 * CONTINUE shows it.  Allocated memory is zero until something was received there.
 */
static Outcome put_allocated(Batch *batch, const Placement *placement)
{
    Import *import = batch->import;
    uint64_t length = batch->count * import->page_sizes[batch->region];
    const char *data = batch->data;
    Outcome outcome;

    if (placement->content == FETCH_ZERO && (placement->spoiled || import->adopted))
        data = zeroes();
    outcome = data ? write_pages(batch, data, length) : OUTCOME_DONE;
    if (outcome != OUTCOME_DONE)
        return outcome;
    batch->data = NULL;
    page_table_receive(&import->table, batch->region, batch->page, batch->count);
    return put_batch(batch);
}

/* Another thread's turn to read, and this one's right after. */
static void let_owner_read(Shard *shard, const struct timespec *pause)
{
    unsigned reads = atomic_load(&shard->reads);

    shard_leave(shard);
    for (int i = 0; i < AGAIN_SPINS && atomic_load(&shard->reads) == reads; i++)
        sched_yield();
    if (atomic_load(&shard->reads) == reads)
        nanosleep(pause, NULL);
    shard_enter(shard);
}

/* An event has to be read before anything can be placed: by the owner right here. */
static void let_events_pass(Batch *batch)
{
    const struct timespec pause = {
        .tv_nsec = batch->tries < AGAIN_SOON ? AGAIN_EVENT_NS : AGAIN_PAUSE_NS,
    };
    unsigned read;

    if (batch->shard->owner != batch->by) {
        let_owner_read(batch->shard, &pause);
        return;
    }
    shard_read(batch->import, batch->shard, &read);
    /* Faults that came with it: their poll ends in vain, and this thread may be on its way to sleep. */
    if (batch->shard->inbox_at < batch->shard->inbox_n)
        ring_hurry(batch->shard->owner_ring);
    if (!read)
        nanosleep(&pause, NULL);
}

/* Where pages may have been REMOVED since they were asked for, those are passed over (rule 8). */
static Outcome put_present(Batch *batch, const Placement *placement)
{
    Import *import = batch->import;
    uint64_t page_size = import->page_sizes[batch->region];
    uint64_t first = batch->page, page = first, end = first + batch->count;
    const char *data = batch->data;

    while (page < end) {
        bool removed;
        uint64_t n = page_table_same_run(&import->table, batch->region, page, end - page, &removed);
        Outcome outcome;

        if (removed) {
            finish(import, batch->region, page, n);
            page += n;
            continue;
        }
        batch->page = page;
        batch->count = n;
        batch->data = data ? data + (page - first) * page_size : NULL;
        outcome = batch->allocated ? put_allocated(batch, placement) : put_batch(batch);
        page = batch->page;
        if (outcome == OUTCOME_FAILED)
            return outcome;
        if (outcome == OUTCOME_LATER)
            let_events_pass(batch);
    }
    return OUTCOME_DONE;
}

static Outcome put_in_shard(Batch *batch, const Placement *placement)
{
    bool enter = batch->shard->owner != placement->by;
    Outcome outcome;

    if (!batch->shard->removable)
        return batch->allocated ? put_allocated(batch, placement) : put_batch(batch);
    if (enter)
        shard_enter(batch->shard);
    outcome = put_present(batch, placement);
    if (enter)
        shard_leave(batch->shard);
    return outcome;
}

/* The part of [page, page + count) that lies in one shard and one chunk. */
static uint64_t fits_in(const Shard *shard, uint64_t address, uint64_t offset, uint64_t count,
                        uint64_t page_size)
{
    uint64_t chunk = UINT64_C(1) << PAGE_TABLE_CHUNK_SHIFT;
    uint64_t fits = shard->start + shard->length - address;

    if (shard->minor && page_size < chunk && chunk - (offset & (chunk - 1)) < fits)
        fits = chunk - (offset & (chunk - 1));
    return fits / page_size < count ? fits / page_size : count;
}

/* Pages of a region that was removed are REMOVED, or will be before it comes back: nobody waits. */
static void no_waiter(void *user, uint32_t region, uint64_t page)
{
    Import *import = user;

    waiters_take(import->waiters, waiters_key(region, page), record_waiter, import);
}

static void drop(Import *import, uint32_t region, uint64_t page, uint64_t count)
{
    if (count > 0)
        page_table_finish(&import->table, region, page, count, no_waiter, import);
}

void placement_put(Import *import, const Placement *placement)
{
    const uint64_t page_size = import->page_sizes[placement->region];
    uint64_t page = placement->page, count = placement->count;
    const char *data = placement->data;

    while (count > 0 && !import_is_halted(import)) {
        if (import_is_gone(import, placement->region)) {
            drop(import, placement->region, page, count);
            return;
        }
        uint64_t address = address_of(import, placement->region, page);
        Shard *shard = import_shard(import, address);
        uint64_t offset = page * page_size;
        Batch batch = {
            .import = import,
            .shard = shard,
            .region = placement->region,
            .page = page,
            .data = data,
            .keep = placement->content != FETCH_ZERO && shard && !shard->removable,
            /* In assist mode somebody may wait whose fault went to QEMU. */
            .demand = placement->demand || import->config.assist,
            .by = placement->by,
        };

        if (!shard && import_is_gone(import, placement->region))
            continue; /* only just */
        if (!shard) {
            halt_at(import, placement->region, page, "lies in no shard its client handed over");
            if (import->config.assist)
                assist_give_back(import, placement->region, page, count);
            return;
        }
        batch.count = fits_in(shard, address, offset, count, page_size);
        batch.allocated =
            shard->minor && page_table_is_allocated(&import->table, placement->region, offset);
        /* From here on the client cannot tell who placed it; up to here it was not us. */
        if (import->config.assist)
            page_table_receive(&import->table, placement->region, page, batch.count);
        page += batch.count;
        count -= batch.count;
        data = data ? data + batch.count * page_size : NULL;
        if (put_in_shard(&batch, placement) == OUTCOME_DONE)
            continue;
        if (import_is_gone(import, placement->region))
            drop(import, placement->region, batch.page, batch.count + count);
        else if (import->config.assist)
            assist_give_back(import, placement->region, batch.page, batch.count + count);
        return;
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
    const Shard *shard = import_shard(import, address);
    uint64_t placed;
    int result;

    if (!shard)
        return;
    if (minor)
        result = uffd_continue(shard->uffd, address, page_size, true, &placed);
    else
        result = put_zero(import, shard, region, page, 1, true, &placed);
    if (result != UFFD_PLACED)
        uffd_wake(shard->uffd, address, page_size);
}

/* One page, its shard's token being held.  False: the import is stopped. */
static bool poison_page(Batch *batch)
{
    Import *import = batch->import;
    uint64_t page_size = import->page_sizes[batch->region];
    uint64_t address = address_of(import, batch->region, batch->page);
    bool removed = false;
    int result = UFFD_AGAIN;

    for (; result == UFFD_AGAIN && !removed; batch->tries++) {
        uint64_t by_all = atomic_load_explicit(&import->counters.removed, memory_order_relaxed);

        /* As long as memory is being removed, that is the reason. */
        if (by_all != batch->removed)
            batch->tries = 0;
        batch->removed = by_all;

        if (batch->tries > 0 && batch->shard->removable)
            let_events_pass(batch);
        else if (batch->tries > 0)
            nanosleep(&again_pause, NULL);
        page_table_same_run(&import->table, batch->region, batch->page, 1, &removed);
        if (removed) /* the guest gave it back meanwhile: it reads as zero */
            break;
        result = uffd_poison(batch->shard->uffd, address, page_size);
        if (result == UFFD_PLACED)
            atomic_fetch_add_explicit(&import->counters.poisoned, 1, memory_order_relaxed);
        else if (!(result == UFFD_AGAIN && batch->tries < AGAIN_TRIES) &&
                 !(result == UFFD_PRESENT && import->adopted)) {
            halt_at(import, batch->region, batch->page,
                    "cannot be read at the source, nor poisoned here");
            return false;
        }
    }
    finish(import, batch->region, batch->page, 1);
    uffd_wake(batch->shard->uffd, address, page_size);
    return true;
}

void placement_poison(Import *import, uint32_t region, uint64_t page, uint64_t count, int by)
{
    log_error("%s: %" PRIu64 " pages from page %" PRIu64
              " of region '%s' on cannot be read at the source: poisoned",
              import->name, count, page, import->regions.regions[region].id);
    for (; count > 0; page++, count--) {
        Shard *shard = import_shard(import, address_of(import, region, page));
        Batch batch = {.import = import, .shard = shard, .region = region, .page = page, .by = by};
        bool enter = shard && shard->owner != by, poisoned;

        if (import_is_gone(import, region)) {
            drop(import, region, page, count);
            return;
        }
        if (!shard) {
            halt_at(import, region, page, "lies in no shard its client handed over");
            return;
        }
        if (enter)
            shard_enter(shard);
        poisoned = poison_page(&batch);
        if (enter)
            shard_leave(shard);
        if (!poisoned)
            return;
    }
}
