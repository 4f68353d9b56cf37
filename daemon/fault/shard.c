/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/fault/shard.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "daemon/fault/import.h"
#include "daemon/fault/uffd.h"

enum { TOKEN_PAUSE_NS = 20000 };

int shard_init(Shard *shard)
{
    if (!shard->removable || shard->inbox)
        return 0;
    shard->inbox = calloc(SHARD_INBOX_EVENTS, sizeof *shard->inbox);
    return shard->inbox ? 0 : -ENOMEM;
}

void shard_deinit(Shard *shard)
{
    free(shard->inbox);
    shard->inbox = NULL;
    if (shard->uffd >= 0)
        close(shard->uffd);
    shard->uffd = -1;
}

static bool take_token(Shard *shard)
{
    bool taken = false;

    return atomic_compare_exchange_strong_explicit(&shard->token, &taken, true,
                                                   memory_order_acquire, memory_order_relaxed);
}

void shard_enter(Shard *shard)
{
    const struct timespec pause = {.tv_nsec = TOKEN_PAUSE_NS};

    while (shard->removable && !take_token(shard))
        nanosleep(&pause, NULL);
}

/* Token first, then the wish: the owner sets its wish first and tries the token once more after. */
void shard_leave(Shard *shard)
{
    if (!shard->removable)
        return;
    atomic_store(&shard->token, false);
    if (atomic_exchange(&shard->token_wanted, false))
        ring_wake(shard->owner_ring);
}

static bool owner_takes_token(Shard *shard)
{
    if (take_token(shard))
        return true;
    atomic_store(&shard->token_wanted, true);
    return atomic_load(&shard->token) ? false : take_token(shard);
}

static void forget_waiter(void *owner, uint32_t vcpu, uint64_t since_ns)
{
    (void)owner;
    (void)vcpu;
    (void)since_ns;
}

/* A fault marked as waiting for a page that is no more: it faults again and reads zeroes. */
static void wake_page(void *user, uint32_t region, uint64_t page)
{
    Import *import = user;
    const Region *of = &import->regions.regions[region];
    uint64_t address = of->address + (page << of->page_shift);
    Shard *shard = import_shard(import, address);

    if (shard)
        uffd_wake(shard->uffd, address, of->page_size);
    waiters_take(import->waiters, waiters_key(region, page), forget_waiter, NULL);
}

/*
 * The guest gave these pages back.  They are marked before anything is placed again; then the file
 * lets go of what was placed between the client's own punch and its madvise.
 */
static void remove_range(Import *import, const Shard *shard, uint64_t start, uint64_t end,
                         bool unmapped)
{
    const Region *region = &import->regions.regions[shard->region];
    uint64_t first, count, missing;

    if (start < shard->start)
        start = shard->start;
    if (end > shard->start + shard->length)
        end = shard->start + shard->length;
    if (start >= end)
        return;
    first = (start - region->address) >> region->page_shift;
    count = (end - start + region->page_size - 1) >> region->page_shift;
    missing = page_table_remove(&import->table, shard->region, first, count, wake_page, import);
    atomic_fetch_add_explicit(&import->counters.removed, count, memory_order_relaxed);
    atomic_fetch_add_explicit(&import->counters.present_bytes, missing * region->page_size,
                              memory_order_relaxed);
    if (!unmapped && region->kind == CLIENT_REGION_SHARED)
        (void)fallocate(region->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                        (off_t)(region->fd_offset + (first << region->page_shift)),
                        (off_t)(count << region->page_shift));
}

/* Events are heeded at once and only faults stay in the inbox. */
static unsigned heed(Import *import, Shard *shard, const struct uffd_msg *messages, unsigned n)
{
    unsigned faults = 0;

    for (unsigned i = 0; i < n; i++) {
        const struct uffd_msg *message = &messages[i];
        if (message->event == UFFD_EVENT_REMOVE || message->event == UFFD_EVENT_UNMAP)
            remove_range(import, shard, message->arg.remove.start, message->arg.remove.end,
                         message->event == UFFD_EVENT_UNMAP);
        else
            shard->inbox[shard->inbox_n + faults++] = *message;
    }
    return faults;
}

bool shard_read(Import *import, Shard *shard, unsigned *ret_read)
{
    ssize_t n = 0;

    *ret_read = 0;
    if (!owner_takes_token(shard))
        return false;
    if (shard->inbox_at == shard->inbox_n)
        shard->inbox_at = shard->inbox_n = 0;
    do {
        unsigned room = SHARD_INBOX_EVENTS - shard->inbox_n;

        n = room ? uffd_read(shard->uffd, shard->inbox + shard->inbox_n, room) : 0;
        if (n > 0) {
            *ret_read += (unsigned)n;
            shard->inbox_n += heed(import, shard, shard->inbox + shard->inbox_n, (unsigned)n);
        }
    } while (n > 0);
    if (*ret_read)
        atomic_fetch_add(&shard->reads, 1);
    atomic_store(&shard->token, false);
    return true;
}
