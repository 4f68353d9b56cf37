/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/fault/import.h"

#include <stdio.h>
#include <string.h>

#include "daemon/core/clock.h"
#include "daemon/core/log.h"
#include "daemon/fault/affinity.h"
#include "daemon/fault/assist.h"

enum { CHANNEL_BUFFER = 512 << 10, VCPU_TABLES_MAX = 64 };

/* --- state --------------------------------------------------------------------------------- */

void import_set_state(Import *import, ClientState state, const char *text)
{
    bool final;

    /* Whoever comes late with a word about the link does not hide that the import stopped. */
    pthread_mutex_lock(&import->text_lock);
    final =
        import_is_halted(import) && state != CLIENT_STATE_FENCED && state != CLIENT_STATE_BROKEN;
    if (!final) {
        snprintf(import->text, sizeof import->text, "%s", text);
        atomic_store_explicit(&import->state, state, memory_order_release);
    }
    pthread_mutex_unlock(&import->text_lock);
    if (final)
        return;
    import->notify(import->owner, import, IMPORT_CHANGED, text);
}

void import_halt(Import *import, ClientState state, const char *text)
{
    if (atomic_exchange_explicit(&import->halted, true, memory_order_acq_rel))
        return;
    assist_set_serving(import, false);
    log_error("%s: import stopped (%s): %s", import->name, client_state_name(state), text);
    import_set_state(import, state, text);
}

void import_wake_data_threads(Import *import)
{
    for (unsigned i = 0; i < import->n_resolvers; i++)
        ring_wake(&import->resolvers[i].ring);
    stream_wake(&import->stream);
}

void import_open_gate(Import *import, uint64_t seal)
{
    if (import_gate_is_open(import)) {
        if (atomic_load(&import->seal) != seal)
            import_halt(import, CLIENT_STATE_FENCED, "the source was sealed a second time");
        return;
    }
    atomic_store(&import->gate_ns, clock_ns());
    import->table.header->seal = seal;
    page_table_set(&import->table, PAGE_TABLE_GATE_OPEN);
    atomic_store_explicit(&import->seal, seal, memory_order_release);
    import_wake_data_threads(import);
    import_set_state(import, CLIENT_STATE_RUNNING, "");
}

void import_running(Import *import)
{
    if (atomic_load(&import->running_ns) != 0)
        return;
    atomic_store(&import->present_at_running, import_present_bytes(import));
    atomic_store(&import->running_ns, clock_ns());
    page_table_set(&import->table, PAGE_TABLE_STREAMING);
    import_wake_data_threads(import);
}

Shard *import_shard(const Import *import, uint64_t address)
{
    uint32_t n = atomic_load_explicit(&import->n_shards, memory_order_acquire);

    for (uint32_t i = 0; i < n; i++)
        if (shard_is_live(&import->shards[i]) &&
            address - import->shards[i].start < import->shards[i].length)
            return &import->shards[i];
    return NULL;
}

/* Not where REMOVE may come: nothing must be on its way into a page that is given back. */
bool import_place(const Import *import, const Fetch *fetch, uint32_t first, uint32_t count,
                  FetchPlace *ret_place)
{
    const Region *region = &import->regions.regions[fetch->region];
    uint64_t offset = (fetch->page + first) << region->page_shift;
    uint64_t last = offset + ((uint64_t)count << region->page_shift) - 1;
    const Shard *shard;

    if (!import_wants(import, fetch->region))
        return false;
    shard = import_shard(import, region->address + offset);
    if (!import->mirror.memory[fetch->region] || !shard || shard->removable || !shard->minor)
        return false;
    for (uint64_t at = offset; at <= last; at += UINT64_C(1) << PAGE_TABLE_CHUNK_SHIFT)
        if (!page_table_is_allocated(&import->table, fetch->region, at))
            return false;
    if (!page_table_is_allocated(&import->table, fetch->region, last))
        return false;
    *ret_place = (FetchPlace){
        .memory = import->mirror.memory[fetch->region] + offset,
        .fd = region->fd,
        .offset = region->fd_offset + offset,
    };
    return true;
}

/* --- figures ------------------------------------------------------------------------------- */

uint64_t import_present_bytes(const Import *import)
{
    uint64_t present = atomic_load(&import->counters.present_bytes) + import->adopted_bytes;
    uint64_t populated = atomic_load(&import->counters.populated_bytes);

    /* What was given back before the map named it was never counted, and is not missing either. */
    if (atomic_load(&import->complete_ns) != 0 && !import->config.assist)
        return populated;
    return page_table_has(&import->table, PAGE_TABLE_MAP_COMPLETE) && present > populated
               ? populated
               : present;
}

uint64_t import_missing_at_running(const Import *import)
{
    uint64_t populated = atomic_load(&import->counters.populated_bytes);
    uint64_t present = atomic_load(&import->present_at_running);

    return populated > present ? populated - present : 0;
}

uint64_t import_received_bytes(const Import *import)
{
    uint64_t bytes = 0;

    for (unsigned i = 0; i < import->n_resolvers; i++)
        bytes += atomic_load(&import->resolvers[i].channel.bytes);
    for (unsigned i = 0; i < import->stream.n_channels; i++)
        bytes += atomic_load(&import->stream.channels[i].channel.bytes);
    return bytes;
}

size_t import_buffer_size(const Import *import)
{
    size_t size = CHANNEL_BUFFER;

    for (uint32_t i = 0; i < import->regions.n; i++)
        if (size < 2 * import->page_sizes[i])
            size = 2 * import->page_sizes[i];
    return size;
}

void import_count_fetched(Import *import, uint32_t region, uint64_t pages, bool zero)
{
    atomic_fetch_add_explicit(zero ? &import->counters.zero : &import->counters.copied, pages,
                              memory_order_relaxed);
    atomic_fetch_add_explicit(&import->counters.present_bytes, pages * import->page_sizes[region],
                              memory_order_relaxed);
}

uint32_t import_vcpu(const Import *import, uint32_t tid)
{
    return vcpu_table_find(atomic_load_explicit(&import->vcpus, memory_order_acquire), tid);
}

/* The number may be of a table that was replaced since. */
void import_account(Import *import, uint32_t vcpu, uint64_t since_ns, uint64_t now_ns)
{
    VcpuTable *table = atomic_load_explicit(&import->vcpus, memory_order_acquire);

    histogram_record(&import->latency, now_ns - since_ns);
    histogram_record(&table->latency[vcpu < table->n ? vcpu : table->n], now_ns - since_ns);
}

void import_set_vcpus(Import *import, const uint32_t *tids, uint32_t n)
{
    VcpuTable *older = atomic_load(&import->vcpus);
    unsigned tables = 0;
    VcpuTable *table;

    if (older && older->n == n && (n == 0 || memcmp(older->tids, tids, n * sizeof *tids) == 0))
        return;
    for (const VcpuTable *each = older; each; each = each->older)
        if (++tables > VCPU_TABLES_MAX)
            return; /* a client that keeps changing its mind gets no more figures */
    table = vcpu_table_new(tids, n, older);
    if (!table)
        return;
    if (import->table.header)
        page_table_keep_vcpus(&import->table, tids, n);
    atomic_store_explicit(&import->vcpus, table, memory_order_release);
    affinity_apply(import);
}
