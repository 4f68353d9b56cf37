/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/fault/hotplug.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

static void free_slot(Shard *shard)
{
    shard_deinit(shard);
    atomic_store_explicit(&shard->state, SHARD_FREE, memory_order_release);
}

/* How it is mapped; who it is stays. */
static int map_as(Region *region, const Region *as)
{
    int fd = as->fd >= 0 ? fcntl(as->fd, F_DUPFD_CLOEXEC, 3) : -1;

    if (as->fd >= 0 && fd < 0)
        return -errno;
    region->fd = fd;
    region->address = as->address;
    region->fd_offset = as->fd_offset;
    region->kind = as->kind;
    region->removable = as->removable;
    region->absent = false;
    return 0;
}

int hotplug_add(Import *import, uint32_t region, const Region *as, const Shard *shards, uint32_t n)
{
    Shard *slots[LIMIT_SHARDS];
    int error = map_as(&import->regions.regions[region], as);
    uint32_t filled = 0;

    for (uint32_t i = 0; i < n; i++) {
        Shard *slot = error ? NULL : import_fill_slot(import, &shards[i]);

        if (error)
            close(shards[i].uffd);
        else if (!slot)
            error = -ENOMEM;
        else
            slots[filled++] = slot;
        if (slot) /* taken, but not yet looked at */
            atomic_store_explicit(&slot->state, SHARD_DEAD, memory_order_relaxed);
    }
    if (error) {
        while (filled > 0)
            free_slot(slots[--filled]);
        region_make_absent(&import->regions.regions[region]);
        return error;
    }
    import->minor[region] = false; /* what was allocated for it is not known */
    for (uint32_t i = 0; i < filled; i++)
        atomic_store_explicit(&slots[i]->state, SHARD_LIVE, memory_order_release);
    /* Last: what is fetched for it must find its shard. */
    atomic_store_explicit(&import->present[region], true, memory_order_release);
    atomic_fetch_add_explicit(&import->epoch, 1, memory_order_acq_rel);
    import_wake_data_threads(import);
    return 0;
}

static void mark_gone(Import *import, uint32_t region)
{
    atomic_store_explicit(&import->gone[region], true, memory_order_release);
    __atomic_fetch_or(&import->table.header->removed[region / 64], UINT64_C(1) << region % 64,
                      __ATOMIC_ACQ_REL);
}

void hotplug_retire(Import *import, uint32_t region)
{
    uint32_t n = atomic_load(&import->n_shards);

    mark_gone(import, region);
    for (uint32_t i = 0; i < n; i++)
        if (shard_is_live(&import->shards[i]) && import->shards[i].region == region)
            atomic_store_explicit(&import->shards[i].state, SHARD_DEAD, memory_order_release);
    atomic_store_explicit(&import->present[region], false, memory_order_release);
    import->retiring = region;
    atomic_store(&import->unsettled, import->n_resolvers + 1); /* and the stream */
    atomic_fetch_add_explicit(&import->retired, 1, memory_order_acq_rel);
    import_wake_data_threads(import);
}

void hotplug_settled(Import *import)
{
    switch (atomic_fetch_sub_explicit(&import->unsettled, 1, memory_order_acq_rel)) {
    case 1:
        import->notify(import->owner, import, IMPORT_SETTLED, "");
        break;
    case 2:
        stream_wake(&import->stream); /* it may have to be the last */
        break;
    }
}

static void forget_waiter(void *owner, uint32_t vcpu, uint64_t since_ns)
{
    (void)owner;
    (void)vcpu;
    (void)since_ns;
}

/* The client wakes all of the region once it has let go of it. */
static void no_waiter(void *user, uint32_t region, uint64_t page)
{
    Import *import = user;

    waiters_take(import->waiters, waiters_key(region, page), forget_waiter, NULL);
}

void hotplug_forget(Import *import, uint32_t region)
{
    uint32_t n = atomic_load(&import->n_shards);

    page_table_remove_region(&import->table, region, no_waiter, import);
    for (uint32_t i = 0; i < n; i++)
        if (atomic_load(&import->shards[i].state) == SHARD_DEAD &&
            import->shards[i].region == region)
            free_slot(&import->shards[i]);
    mirror_unmap(&import->mirror, region);
    import->minor[region] = false;
    region_make_absent(&import->regions.regions[region]);
    stream_wake(&import->stream); /* it may have been all that was missing */
}

void hotplug_adopt(Import *import)
{
    for (uint32_t i = 0; i < import->regions.n; i++) {
        if (!(import->table.header->removed[i / 64] >> i % 64 & 1))
            continue;
        atomic_store(&import->gone[i], true);
        page_table_remove_region(&import->table, i, no_waiter, import);
    }
}
