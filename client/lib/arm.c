/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/lib/arm.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "client/lib/drain.h"
#include "client/lib/mapping.h"
#include "client/lib/shards.h"
#include "client/lib/uffd.h"

enum {
    ALLOCATE_STEP = 32 << 20,
    ALLOCATE_S = 10, /* what could not be allocated by then is when its pages come */
};

/*
 * A private mapping's missing page faults only where its file has a hole: elsewhere it shows the
 * file's content, whatever the source has.  hugetlbfs does not tell its holes.
 */
static int check_private(const Region *region, Reason *ret_reason)
{
    off_t data = lseek(region->fd, (off_t)region->fd_offset, SEEK_DATA);

    if (region->page_size != (uint64_t)sysconf(_SC_PAGESIZE))
        return reason_set(ret_reason, -EOPNOTSUPP,
                          "private huge page memory cannot be served: map it shared");
    if (data < 0 && errno != ENXIO)
        return reason_set(ret_reason, -errno, "the file of private memory: %s", strerror(errno));
    if (data >= 0 && (uint64_t)data < region->fd_offset + region->length)
        return reason_set(ret_reason, -EOPNOTSUPP,
                          "the file of private memory has content: map it shared");
    return 0;
}

static int check_minor(const ClientMessage *arm, const Regions *regions, Reason *ret_reason)
{
    for (uint32_t i = 0; i < arm->arm.n_shards; i++) {
        const ClientShard *shard = &arm->arm.shards[i];
        if ((shard->flags & CLIENT_SHARD_MINOR) &&
            regions->list[shard->region].backing != POSTCOPY_SHARED)
            return reason_set(ret_reason, -EINVAL, "only shared memory can be registered minor");
    }
    return 0;
}

static int check_region(const Region *region, Reason *ret_reason)
{
    int error = mapping_check(region, ret_reason);

    if (!error && region->backing == POSTCOPY_PRIVATE)
        error = check_private(region, ret_reason);
    return error;
}

static int check_regions(const Regions *regions, Reason *ret_reason)
{
    int error = 0;

    for (size_t i = 0; !error && i < regions->n; i++)
        if (!regions->list[i].absent)
            error = check_region(&regions->list[i], ret_reason);
    return error;
}

/* A forked child would not fault to the uffd; it would read zeroes. */
static int keep_region(Armed *armed, const Regions *regions, size_t i, Reason *ret_reason)
{
    const Region *region = &regions->list[i];

    if (region->absent || mapping_is_dontfork(region))
        return 0;
    if (madvise(region->address, region->length, MADV_DONTFORK) < 0)
        return reason_set(ret_reason, -errno, "cannot keep memory from children: %s",
                          strerror(errno));
    armed->dontfork[i] = true;
    return 0;
}

static int keep_from_children(Armed *armed, const Regions *regions, Reason *ret_reason)
{
    int error = 0;

    for (size_t i = 0; !error && i < regions->n; i++)
        error = keep_region(armed, regions, i, ret_reason);
    return error;
}

static uint8_t *shard_address(const Regions *regions, const ClientShard *shard)
{
    return regions->list[shard->region].address + shard->start;
}

static uint64_t features_of(const ClientShard *shard)
{
    uint64_t features = 0;

    if (shard->flags & CLIENT_SHARD_MINOR)
        features |= UFFD_FEATURE_MINOR_SHMEM;
    if (shard->flags & CLIENT_SHARD_EVENTS)
        features |= UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP;
    return features;
}

static int register_shards(Armed *armed, const Regions *regions, const ClientMessage *arm,
                           int device_fd, Reason *ret_reason)
{
    for (uint32_t i = 0; i < arm->arm.n_shards; i++) {
        const ClientShard *shard = &arm->arm.shards[i];
        bool minor = (shard->flags & CLIENT_SHARD_MINOR) != 0;
        int uffd = uffd_open(device_fd, features_of(shard), ret_reason);
        if (uffd < 0)
            return uffd;
        armed->shards[armed->n_shards] = *shard;
        armed->uffds[armed->n_shards++] = uffd;
        int error = uffd_register(
            uffd, shard_address(regions, shard), shard->length,
            UFFDIO_REGISTER_MODE_MISSING | (minor ? UFFDIO_REGISTER_MODE_MINOR : 0), ret_reason);
        if (error)
            return error;
    }
    return 0;
}

static int punch(const Region *region, uint64_t from)
{
    int error;

    do
        error = fallocate(region->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                          (off_t)(region->fd_offset + from), (off_t)(region->length - from));
    while (error < 0 && errno == EINTR);
    return error;
}

static int empty_region(const Region *region, Reason *ret_reason)
{
    int error;

    if (region->backing == POSTCOPY_SHARED) {
        error = punch(region, 0);
    } else {
        error = madvise(region->address, region->length, MADV_DONTNEED);
    }
    if (error < 0)
        return reason_set(ret_reason, -errno, "cannot empty the memory at %p: %s",
                          (void *)region->address, strerror(errno));
    return 0;
}

/* After registering: a page that slipped in before is then gone, and none can slip in unseen. */
/* Of all regions or of one, whose shards are those from first on. */
static int empty_regions(Armed *armed, const Regions *regions, const Region *only, uint32_t first,
                         Reason *ret_reason)
{
    Drainer drainer;
    int error = drain_begin(&drainer, armed, first);

    if (error)
        return reason_set(ret_reason, error, "cannot read what is removed: %s", strerror(-error));
    for (size_t i = 0; !error && i < regions->n; i++)
        if (!regions->list[i].absent && (!only || &regions->list[i] == only))
            error = empty_region(&regions->list[i], ret_reason);
    drain_finish(&drainer, regions);
    return error;
}

static bool is_minor(const Armed *armed, uint32_t region)
{
    for (uint32_t i = 0; i < armed->n_shards; i++)
        if (armed->shards[i].region == region)
            return (armed->shards[i].flags & CLIENT_SHARD_MINOR) != 0;
    return false;
}

/* False: memory or time is short. */
static bool allocate_chunks(const Region *region, uint64_t chunk, uint64_t n, time_t deadline)
{
    uint64_t at = chunk << PAGE_TABLE_CHUNK_SHIFT;
    uint64_t end = (chunk + n) << PAGE_TABLE_CHUNK_SHIFT;

    if (end > region->length)
        end = region->length;
    while (at < end) {
        uint64_t length = end - at < ALLOCATE_STEP ? end - at : ALLOCATE_STEP;
        int error = fallocate(region->fd, 0, (off_t)(region->fd_offset + at), (off_t)length);

        if (error && errno == EINTR)
            continue;
        if (error || time(NULL) > deadline)
            return false;
        at += length;
    }
    return true;
}

/*
 * Where the daemon expects content, memory is allocated now, before the guest waits for it; here and
 * not by the daemon, so that it is this process's and not the daemon's.  Only after the region is
 * registered MINOR too: else a page that is there would read as zero.
 */
static int allocate_wanted(Armed *armed, const Regions *regions, Reason *ret_reason)
{
    time_t deadline = time(NULL) + ALLOCATE_S;

    for (uint32_t i = 0; i < regions->n; i++) {
        const Region *region = &regions->list[i];
        uint64_t chunk = 0, n = 0;
        bool room = is_minor(armed, i);

        while (room && (n = table_next_wanted(&armed->table, i, chunk + n, &chunk)) > 0)
            room = allocate_chunks(region, chunk, n, deadline);
        if (room)
            continue;
        /* A chunk is allocated whole or not at all. */
        table_drop_wanted(&armed->table, i, chunk);
        if (is_minor(armed, i) && punch(region, chunk << PAGE_TABLE_CHUNK_SHIFT) < 0)
            return reason_set(ret_reason, -errno, "cannot empty the memory at %p: %s",
                              (void *)region->address, strerror(errno));
    }
    return 0;
}

static void give_to_children(Armed *armed, const Regions *regions, size_t i)
{
    const Region *region = &regions->list[i];

    if (armed->dontfork[i])
        (void)madvise(region->address, region->length, MADV_DOFORK);
    armed->dontfork[i] = false;
}

static void let_go(Armed *armed, const Regions *regions)
{
    for (uint32_t i = 0; i < armed->n_shards; i++) {
        const ClientShard *shard = &armed->shards[i];
        uffd_unregister(armed->uffds[i], shard_address(regions, shard), shard->length);
        close(armed->uffds[i]);
    }
    for (size_t i = 0; i < regions->n; i++)
        give_to_children(armed, regions, i);
    table_deinit(&armed->table);
    drain_end(armed);
    memset(armed, 0, sizeof *armed);
    armed->holder_pidfd = -1;
}

int armed_begin(Armed *armed, const Regions *regions, const ClientMessage *arm, int table_fd,
                int device_fd, Reason *ret_reason)
{
    int error = table_init(&armed->table, table_fd, arm->arm.table_size, regions, ret_reason);

    if (error)
        return error;
    error = shards_check(arm->arm.shards, arm->arm.n_shards, regions, ret_reason);
    if (!error)
        error = check_minor(arm, regions, ret_reason);
    if (!error)
        error = check_regions(regions, ret_reason);
    if (!error)
        error = keep_from_children(armed, regions, ret_reason);
    if (!error)
        error = register_shards(armed, regions, arm, device_fd, ret_reason);
    if (!error)
        error = empty_regions(armed, regions, NULL, 0, ret_reason);
    if (!error)
        error = allocate_wanted(armed, regions, ret_reason);
    if (error) {
        let_go(armed, regions);
        return error;
    }
    table_set_armed(&armed->table);
    armed->active = true;
    drain_follow(armed);
    return 0;
}

void armed_remove(Armed *armed, const Regions *regions, uint32_t index)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < armed->n_shards; i++) {
        const ClientShard *shard = &armed->shards[i];
        if (shard->region == index) {
            uffd_unregister(armed->uffds[i], shard_address(regions, shard), shard->length);
            close(armed->uffds[i]);
            continue;
        }
        armed->shards[kept] = *shard;
        armed->uffds[kept++] = armed->uffds[i];
    }
    armed->n_shards = kept;
    give_to_children(armed, regions, index);
}

int armed_add(Armed *armed, const Regions *regions, uint32_t index, const ClientMessage *arm,
              int device_fd, uint32_t *ret_first, Reason *ret_reason)
{
    const Region *region = &regions->list[index];
    int error;

    *ret_first = armed->n_shards;
    if (arm->arm.n_shards > LIMIT_SHARDS - armed->n_shards)
        return reason_set(ret_reason, -ENOSPC, "more than %d shards", LIMIT_SHARDS);
    error = shards_check_region(arm->arm.shards, arm->arm.n_shards, regions, index, ret_reason);
    if (!error)
        error = check_minor(arm, regions, ret_reason);
    if (!error)
        error = check_region(region, ret_reason);
    if (error)
        return error;
    /* For good: how it was before is only told by smaps, which walks all memory there is. */
    if (madvise(region->address, region->length, MADV_DONTFORK) < 0)
        error =
            reason_set(ret_reason, -errno, "cannot keep memory from children: %s", strerror(errno));
    if (!error)
        error = register_shards(armed, regions, arm, device_fd, ret_reason);
    if (!error)
        error = empty_regions(armed, regions, region, *ret_first, ret_reason);
    if (error)
        armed_remove(armed, regions, index);
    return error;
}

/* Until the map is complete a HOLE may have content at the source as well. */
static int check_complete(const Armed *armed, const Regions *regions, Reason *ret_reason)
{
    TableCounts counts;

    if (!(table_progress(&armed->table) & PAGE_TABLE_MAP_COMPLETE))
        return reason_set(ret_reason, -EBUSY, "it is not known yet which pages have content");
    if (!table_count_unresolved(&armed->table, &counts))
        return 0;
    return reason_set(ret_reason, -EBUSY,
                      "pages are still elsewhere: %" PRIu64 " missing, %" PRIu64
                      " requested, %" PRIu64 " received, the first in region %" PRIu32 " %s",
                      counts.missing, counts.requested, counts.received, counts.region,
                      regions->list[counts.region].id);
}

int armed_end(Armed *armed, const Regions *regions, uint32_t flags, Reason *ret_reason)
{
    int error = 0;

    if (!(flags & CLIENT_RELEASE_DISARM))
        error = check_complete(armed, regions, ret_reason);
    else if (table_progress(&armed->table) & PAGE_TABLE_GATE_OPEN)
        error = reason_set(ret_reason, -EBUSY, "the gate is open: the guest may have run");
    if (!error)
        let_go(armed, regions);
    return error;
}
