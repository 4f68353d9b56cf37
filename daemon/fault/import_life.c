/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How an import begins (new, or adopted from a dead daemon), gets its shards and threads, and ends.
 * Control thread.
 */
#include "daemon/fault/import.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "daemon/core/clock.h"
#include "daemon/core/disposal.h"
#include "daemon/core/process.h"
#include "daemon/fault/affinity.h"
#include "daemon/fault/assist.h"
#include "daemon/fault/hotplug.h"
#include "daemon/fault/uffd.h"
#include "protocol/text.h"

/* 2 s for all pages together: other VMs wait for the control thread meanwhile. */
enum { ADOPT_TRIES = 10000, ADOPT_PAUSE_NS = 200000 };

typedef struct Adoption {
    Import *import;
    unsigned tries;
} Adoption;

static Import *new_without_table(const ImportConfig *config, const ImportIdentity *identity,
                                 const RegionSet *regions, ImportNotify notify, void *owner)
{
    Import *import = calloc(1, sizeof *import);

    if (!import)
        return NULL;
    /* Of absent regions too: they may come. */
    for (uint32_t i = 0; i < regions->n; i++)
        if (regions->regions[i].page_size > PEER_PAGE_SIZE_MAX) {
            free(import);
            return NULL;
        }
    import->config = *config;
    if (config->assist) { /* who reads a fault answers for it, and QEMU's memory is as it is */
        import->config.dispatch = IMPORT_DISPATCH_DIRECT;
        import->config.preallocate = false;
        import->config.minor = false;
    }
    import->notify = notify;
    import->owner = owner;
    import->client_pid = identity->client_pid;
    import->tag = identity->tag;
    import->table.fd = -1;
    import->link.wake_fd = import->link.stop_fd = -1;
    import->stream.ring.wake_fd = -1;
    pthread_mutex_init(&import->text_lock, NULL);
    memcpy(import->uuid, identity->uuid, sizeof import->uuid);
    snprintf(import->name, sizeof import->name, "%s", identity->name);
    snprintf(import->incoming, sizeof import->incoming, "%s",
             identity->incoming ? identity->incoming : "");
    import->waiters = calloc(1, sizeof *import->waiters);
    import->shards =
        calloc(LIMIT_SHARDS, sizeof *import->shards); /* untouched, it takes no memory */
    atomic_store(&import->epoch, 1);
    import_set_vcpus(import, identity->vcpus, identity->n_vcpus);
    if (!import->waiters || !import->shards || !atomic_load(&import->vcpus) ||
        region_set_copy(regions, &import->regions) || link_init(&import->link, import)) {
        import_free(import);
        return NULL;
    }
    for (uint32_t i = 0; i < regions->n; i++) {
        import->page_sizes[i] = regions->regions[i].page_size;
        atomic_store(&import->present[i], !regions->regions[i].absent);
    }
    for (uint32_t i = 0; i < LIMIT_REGIONS; i++)
        import->wire_regions[i] = i;
    return import;
}

static void hold(Import *import)
{
    const VcpuTable *vcpus = atomic_load(&import->vcpus);
    PageTableHeader *header = import->table.header;

    import->generation = ++header->generation;
    header->holder_pid = (uint64_t)getpid();
    header->holder_start = process_start(getpid());
    page_table_keep_vcpus(&import->table, vcpus->tids, vcpus->n);
}

/* Adoption wakes every range anyway. */
static void ignore_waiter(void *user, uint32_t region, uint64_t page)
{
    (void)user;
    (void)region;
    (void)page;
}

/* Any thread of it may still be placing pages. */
static bool earlier_holder_lives(const PageTableHeader *header)
{
    uint64_t pid = header->holder_pid;

    return pid <= INT_MAX && pid != (uint64_t)getpid() &&
           process_lives((int)pid, header->holder_start);
}

/* How each region will be registered, and so how its pages may be placed. */
static void choose_placement(Import *import)
{
    for (uint32_t i = 0; i < import->regions.n; i++) {
        const Region *region = &import->regions.regions[i];
        import->minor[i] = import->config.minor && import->config.preallocate && !region->absent &&
                           mirror_is_possible(region) &&
                           mirror_map(&import->mirror, i, region) == 0;
    }
}

void import_take_forecast(Import *import, const PeerMessage *forecast)
{
    uint64_t first[LIMIT_REGIONS] = {0}; /* byte of each of the source's regions */
    uint32_t shift = forecast->forecast.shift;
    uint64_t at = 0;

    for (uint32_t wire = 0; wire < import->regions.n; wire++)
        for (uint32_t i = 0; i < import->regions.n; i++)
            if (import->wire_regions[i] == wire) {
                first[i] = at;
                at += peer_forecast_bytes(import->regions.regions[i].length, shift);
            }
    if (at != forecast->forecast.n)
        return; /* nothing is known, or nothing that makes sense */
    for (uint32_t i = 0; i < import->regions.n; i++) {
        uint64_t bits = ((import->regions.regions[i].length - 1) >> shift) + 1;
        uint64_t chunks = UINT64_C(1) << (shift - PAGE_TABLE_CHUNK_SHIFT);

        for (uint64_t bit = 0; import->minor[i] && bit < bits; bit++)
            if (forecast->forecast.bits[first[i] + bit / 8] >> bit % 8 & 1)
                page_table_want_chunks(&import->table, i, bit * chunks, chunks);
    }
}

Import *import_new(const ImportConfig *config, const ImportIdentity *identity,
                   const RegionSet *regions, const char *source, const uint8_t token[LIMIT_TOKEN],
                   ImportNotify notify, void *owner, int *ret_error)
{
    Import *import = new_without_table(config, identity, regions, notify, owner);

    *ret_error = import ? page_table_create(&import->table, &import->regions) : -ENOMEM;
    if (*ret_error == 0 && import->config.assist) /* QEMU's own threads write to it */
        *ret_error = page_table_allocate(&import->table);
    if (*ret_error == 0) {
        choose_placement(import);
        memcpy(import->token, token, LIMIT_TOKEN);
        snprintf(import->source, sizeof import->source, "%s", source);
        memcpy(import->table.header->token, token, LIMIT_TOKEN);
        memcpy(import->table.header->source, import->source, sizeof import->source);
        hold(import);
        *ret_error = link_start(&import->link);
    }
    if (*ret_error == 0)
        return import;
    import_free(import);
    return NULL;
}

static bool is_removed(const Import *import, uint32_t region, uint64_t page)
{
    bool removed;

    page_table_same_run(&import->table, region, page, 1, &removed);
    return removed;
}

/*
 * No other thread runs yet.  Where memory is being removed an event may stand in the way: it is read
 * here, and may be of this very page.  False: it cannot be shown.
 */
static bool show_received(Adoption *adoption, Shard *shard, uint32_t region, uint64_t page)
{
    static const struct timespec pause = {.tv_nsec = ADOPT_PAUSE_NS};
    Import *import = adoption->import;
    uint64_t page_size = import->page_sizes[region];
    uint64_t address = import->regions.regions[region].address + page * page_size;
    uint64_t placed;

    for (; adoption->tries < ADOPT_TRIES && !is_removed(import, region, page); adoption->tries++) {
        unsigned read;
        int result = uffd_continue(shard->uffd, address, page_size, true, &placed);

        /* Its file let go of it and its mapping will: the guest gave it back. */
        if (result == UFFD_ABSENT && shard->removable)
            result = uffd_zero(shard->uffd, address, page_size, true, &placed);
        if (result == UFFD_PLACED || result == UFFD_PRESENT)
            return true;
        if (result != UFFD_AGAIN)
            return false;
        if (shard->removable)
            shard_read(import, shard, &read);
        nanosleep(&pause, NULL);
    }
    return is_removed(import, region, page);
}

/* Its content lies there, whether it was shown already or not (rule 4). */
static void finish_received(void *user, uint32_t region, uint64_t page)
{
    Adoption *adoption = user;
    Import *import = adoption->import;
    const Region *of = &import->regions.regions[region];
    Shard *shard;

    if (import_is_halted(import))
        return;
    shard = import_wants(import, region)
                ? import_shard(import, of->address + page * import->page_sizes[region])
                : NULL;
    if (!shard || !show_received(adoption, shard, region, page)) {
        import_halt(import, CLIENT_STATE_BROKEN, "a page that was received cannot be shown");
        return;
    }
    atomic_fetch_add(&import->table.unresolved, 1);
    page_table_finish(&import->table, region, page, 1, ignore_waiter, NULL);
}

static void count_received(void *user, uint32_t region, uint64_t page)
{
    uint64_t *count = user;

    (void)region;
    (void)page;
    ++*count;
}

/* Each thread has a chunk at most between RECEIVED and PRESENT, and each adoption shows them all. */
static bool received_are_plausible(const Import *import)
{
    const uint64_t most = (IMPORT_RESOLVERS_MAX + 1ULL) << (PAGE_TABLE_CHUNK_SHIFT - 12);
    uint64_t count = 0;

    page_table_each_received(&import->table, count_received, &count);
    return count <= most;
}

/* One resolver needs nobody's leave to read; removable shards must have one (shard.h). */
static void give_owner(Import *import, Shard *shard)
{
    unsigned owner = (unsigned)(shard - import->shards) % import->config.resolvers;

    shard->owner = shard->removable || import->config.resolvers == 1 ? (int)owner : SHARD_SHARED;
    shard->owner_ring = &import->resolvers[owner].ring;
}

Shard *import_fill_slot(Import *import, const Shard *shard)
{
    uint32_t index = 0;
    Shard *slot;

    while (index < LIMIT_SHARDS && atomic_load(&import->shards[index].state) != SHARD_FREE)
        index++;
    if (index == LIMIT_SHARDS) {
        close(shard->uffd);
        return NULL;
    }
    slot = &import->shards[index];
    slot->life = ++import->lives;
    slot->uffd = shard->uffd;
    slot->region = shard->region;
    slot->start = shard->start;
    slot->length = shard->length;
    slot->minor = shard->minor;
    slot->removable = shard->removable;
    slot->inbox = NULL;
    slot->inbox_n = slot->inbox_at = 0;
    atomic_store(&slot->token, false);
    atomic_store(&slot->token_wanted, false);
    give_owner(import, slot);
    if (shard_init(slot)) {
        shard_deinit(slot);
        return NULL;
    }
    if (index >= atomic_load(&import->n_shards))
        atomic_store_explicit(&import->n_shards, index + 1, memory_order_release);
    return slot;
}

/* Before any thread runs.  Takes the list and its uffds. */
static int take_shards(Import *import, Shard *shards, uint32_t n)
{
    int error = 0;

    import->resolvers = calloc(import->config.resolvers, sizeof *import->resolvers);
    if (!import->resolvers)
        error = -ENOMEM;
    for (uint32_t i = 0; i < n; i++) {
        Shard *slot = error ? NULL : import_fill_slot(import, &shards[i]);

        if (slot)
            atomic_store_explicit(&slot->state, SHARD_LIVE, memory_order_release);
        else if (error)
            close(shards[i].uffd);
        else
            error = -ENOMEM;
    }
    free(shards);
    return error;
}

/* Nothing of it outlives a daemon, or a connection: an adopted import begins anew, too. */
static int ready_rdma(Import *import)
{
    int error;

    if (!link_rdma_is_possible(import))
        return 0;
    error = keys_init(&import->keys, import->table.pages, import->page_sizes, import->regions.n);
    return error ? error
                 : landing_init(&import->landing, &import->table, &import->mirror, &import->regions,
                                import->present);
}

static int start_data(Import *import)
{
    int error = page_table_keep_chunks(&import->table);
    if (!error)
        error = ready_rdma(import);
    if (error)
        return error;
    for (unsigned i = 0; i < import->config.resolvers && !error; i++) {
        error = resolver_init(&import->resolvers[i], import, i);
        if (!error)
            import->n_resolvers = i + 1;
    }
    /* Each may reach for any other as soon as it runs. */
    if (!error)
        error = stream_start(&import->stream, import);
    for (unsigned i = 0; i < import->n_resolvers && !error; i++)
        error = resolver_start(&import->resolvers[i]);
    if (error)
        return error;
    affinity_apply(import);
    import->armed = true;
    if (!import->adopted)
        import_set_state(import, CLIENT_STATE_ARMED, "");
    link_arm(&import->link);
    return 0;
}

/* The client could write to the header: these strings are shown to operators. */
static bool strings_are_plain(const Import *import)
{
    bool plain = text_is_plain(import->source, strlen(import->source));

    for (uint32_t i = 0; i < import->regions.n; i++) {
        const char *id = import->regions.regions[i].id;
        plain = plain && text_is_plain(id, strlen(id));
    }
    return plain;
}

/* A client may know them itself, and then knows better. */
static void recall_vcpus(Import *import)
{
    const VcpuTable *known = atomic_load(&import->vcpus);
    uint32_t kept[PAGE_TABLE_VCPUS];

    if (known->n == 0)
        import_set_vcpus(import, kept, page_table_kept_vcpus(&import->table, kept));
}

/*
 * What a dead daemon left: REQUESTED pages are asked again, which is safe only because nobody can
 * place them any more.  Faults it read and did not resolve are not reported again until woken.
 */
static int take_over(Import *import)
{
    PageTableHeader *header = import->table.header;
    bool open = page_table_has(&import->table, PAGE_TABLE_GATE_OPEN) && header->seal != 0;
    int error;

    if (earlier_holder_lives(header))
        return -EBUSY;
    import->adopted = true;
    memcpy(import->token, header->token, LIMIT_TOKEN);
    memcpy(import->source, header->source, LIMIT_ADDRESS); /* the terminator is calloc's */
    atomic_store(&import->seal, open ? header->seal : 0);
    for (uint32_t i = 0; i < import->regions.n; i++) {
        Region *region = &import->regions.regions[i];
        memcpy(region->id, header->regions[i].id, LIMIT_REGION_ID); /* ends with its own zero */
        region->guest_address = header->regions[i].guest_address;
    }
    if (!strings_are_plain(import) || !received_are_plausible(import))
        return -EINVAL;
    hotplug_adopt(import);
    for (uint32_t i = 0; i < import->n_shards; i++)
        import->minor[import->shards[i].region] |= import->shards[i].minor;
    for (uint32_t i = 0; i < import->regions.n; i++)
        if (import->minor[i] &&
            mirror_is_possible(
                &import->regions
                     .regions[i])) /* without it pages are written instead of received there */
            (void)mirror_map(&import->mirror, i, &import->regions.regions[i]);
    page_table_each_received(&import->table, finish_received, &(Adoption){.import = import});
    page_table_forget_requests(&import->table);
    import->adopted_bytes = page_table_present_bytes(&import->table, import->page_sizes);
    recall_vcpus(import);
    hold(import);
    if (open)
        atomic_store(&import->gate_ns, clock_ns());
    atomic_store(&import->state, open ? CLIENT_STATE_PAUSED : CLIENT_STATE_ARMED);
    error = start_data(import);
    if (!error)
        error = link_start(&import->link);
    for (uint32_t i = 0; i < import->n_shards && !error; i++)
        uffd_wake(import->shards[i].uffd, import->shards[i].start, import->shards[i].length);
    return error;
}

Import *import_adopt(const ImportConfig *config, const ImportIdentity *identity,
                     const RegionSet *regions, int table_fd, Shard *shards, uint32_t n_shards,
                     ImportNotify notify, void *owner, int *ret_error)
{
    Import *import = new_without_table(config, identity, regions, notify, owner);

    if (import) {
        *ret_error = page_table_adopt(&import->table, &import->regions, table_fd);
    } else {
        *ret_error = -ENOMEM;
        close(table_fd);
    }
    if (*ret_error == 0) {
        *ret_error = take_shards(import, shards, n_shards);
        if (*ret_error == 0)
            *ret_error = take_over(import);
        if (*ret_error == 0)
            return import;
    } else {
        for (uint32_t i = 0; i < n_shards; i++)
            close(shards[i].uffd);
        free(shards);
    }
    import_free(import);
    return NULL;
}

int import_arm(Import *import, Shard *shards, uint32_t n_shards)
{
    int error = take_shards(import, shards, n_shards);

    return error ? error : start_data(import);
}

/* The link goes first: it hands connections to the data threads. */
void import_stop_data(Import *import)
{
    assist_withdraw(import);
    link_stop(&import->link);
    for (unsigned i = 0; i < import->n_resolvers; i++)
        resolver_stop(&import->resolvers[i]);
    stream_stop(&import->stream);
    for (unsigned i = 0; i < import->n_resolvers; i++)
        resolver_deinit(&import->resolvers[i]);
    /* Behind the channels, whose lanes are gone with them. */
    landing_deinit(&import->landing);
    keys_deinit(&import->keys);
    link_deinit(&import->link);
}

void import_finish(Import *import)
{
    link_release(&import->link);
}

void import_free(Import *import)
{
    if (!import)
        return;
    import_stop_data(import);
    for (uint32_t i = 0; i < import->n_shards; i++)
        if (atomic_load(&import->shards[i].state) != SHARD_FREE)
            shard_deinit(&import->shards[i]);
    free(import->shards);
    free(import->resolvers);
    vcpu_table_free(atomic_load(&import->vcpus));
    free(import->waiters);
    mirror_deinit(&import->mirror);
    page_table_deinit(&import->table);
    region_set_dispose(&import->regions);
    pthread_mutex_destroy(&import->text_lock);
    free(import);
}
