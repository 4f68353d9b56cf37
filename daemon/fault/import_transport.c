/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/fault/import_transport.h"

#include <stdio.h>

uint32_t import_source(const Import *import, uint32_t region, uint64_t page, uint32_t count,
                       FetchSource *ret_source)
{
    if (import_is_gone(import, region))
        return 0;
    return keys_find(&import->keys, region, page, count, &ret_source->address, &ret_source->rkey);
}

uint32_t import_land(const Import *import, const Fetch *fetch, uint32_t first, uint32_t count,
                     FetchLanding *ret_landing)
{
    const Region *region = &import->regions.regions[fetch->region];
    uint64_t offset = (fetch->page + first) << region->page_shift;
    uint64_t length = (uint64_t)count << region->page_shift;
    FetchPlace place;

    length = landing_find(&import->landing, fetch->region, offset, length, &ret_landing->lkey);
    count = (uint32_t)(length >> region->page_shift);
    if (count == 0 || !import_place(import, fetch, first, count, &place))
        return 0;
    ret_landing->memory = place.memory;
    return count;
}

static void add_channel(ImportTransportReport *report, const Channel *channel)
{
    report->reads += atomic_load_explicit(&channel->rdma_reads, memory_order_relaxed);
    report->read_bytes += atomic_load_explicit(&channel->rdma_bytes, memory_order_relaxed);
    report->landed_pages += atomic_load_explicit(&channel->rdma_landed_pages, memory_order_relaxed);
    report->staged_pages += atomic_load_explicit(&channel->rdma_staged_pages, memory_order_relaxed);
}

void import_transport(Import *import, ImportTransportReport *ret_report)
{
    *ret_report = (ImportTransportReport){0};
    link_rdma_report(&import->link, ret_report);
    if (ret_report->device[0] && atomic_load_explicit(&import->keys.none, memory_order_relaxed)) {
        ret_report->kind = "tcp";
        ret_report->device[0] = '\0';
        snprintf(ret_report->reason, sizeof ret_report->reason,
                 "the source's memory is private to its process, or cannot be pinned");
    }
    ret_report->pinned_bytes += atomic_load_explicit(&import->landing.pinned, memory_order_relaxed);
    ret_report->spans = atomic_load_explicit(&import->keys.told, memory_order_relaxed);
    for (unsigned i = 0; i < import->n_resolvers; i++)
        add_channel(ret_report, &import->resolvers[i].channel);
    for (unsigned i = 0; i < import->stream.n_channels; i++)
        add_channel(ret_report, &import->stream.channels[i].channel);
}
