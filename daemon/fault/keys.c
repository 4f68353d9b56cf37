/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/fault/keys.h"

#include <errno.h>
#include <sys/mman.h>

/*
 * Spans are split by holes of 2 MiB and more, or are large: no source needs as many as that.  Some more, for
 * one whose room for pinned memory runs out again and again.
 */
enum { KEYS_BYTES_A_SPAN = 1 << 20, KEYS_SPARE = 64 };

static uint32_t most_spans(uint64_t pages, uint64_t page_size)
{
    uint64_t most = pages * page_size / KEYS_BYTES_A_SPAN + KEYS_SPARE;

    return (uint32_t)(most < pages ? most : pages);
}

_Static_assert(LIMIT_REGION_LENGTH / KEYS_BYTES_A_SPAN + KEYS_SPARE < UINT32_MAX,
               "a region's spans can be counted");

int keys_init(Keys *keys, const uint64_t *pages, const uint64_t *page_sizes, uint32_t n_regions)
{
    size_t n = 0;

    *keys = (Keys){.n_regions = n_regions};
    for (uint32_t i = 0; i < n_regions; i++) {
        keys->regions[i].pages = pages[i];
        keys->regions[i].page_size = page_sizes[i];
        keys->regions[i].most = most_spans(pages[i], page_sizes[i]);
        n += keys->regions[i].most;
    }
    keys->size = n * sizeof *keys->memory;
    keys->memory = mmap(NULL, keys->size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (keys->memory == MAP_FAILED) {
        keys->memory = NULL;
        return -ENOMEM;
    }
    n = 0;
    for (uint32_t i = 0; i < n_regions; i++) {
        keys->regions[i].spans = keys->memory + n;
        n += keys->regions[i].most;
    }
    return 0;
}

void keys_deinit(Keys *keys)
{
    if (keys->memory)
        munmap(keys->memory, keys->size);
    keys->memory = NULL;
    keys->n_regions = 0;
}

void keys_forget(Keys *keys)
{
    for (uint32_t i = 0; i < keys->n_regions; i++) {
        atomic_store_explicit(&keys->regions[i].n, 0, memory_order_release);
        keys->regions[i].oldest = 0;
    }
    keys->least_id = 0;
    atomic_store_explicit(&keys->told, 0, memory_order_relaxed);
    atomic_store_explicit(&keys->live, 0, memory_order_relaxed);
    atomic_store_explicit(&keys->none, false, memory_order_relaxed);
}

const char *keys_add(Keys *keys, uint32_t region, uint64_t page, const PeerSpan *span,
                     uint64_t next)
{
    KeyRegion *of = &keys->regions[region];
    uint32_t n = atomic_load_explicit(&of->n, memory_order_relaxed);
    const KeySpan *last = n > 0 ? &of->spans[n - 1] : NULL;

    if (span->count == 0 || span->page < page || span->page >= of->pages ||
        span->count > of->pages - span->page || span->count * of->page_size > PEER_SPAN_MAX)
        return "the source told a key of memory that it was not asked for";
    if (last && span->page < last->page + last->count)
        return "the source told two keys of the same memory";
    if (next < span->page + span->count || next > of->pages)
        return "the source's keys make no sense";
    if (span->address > UINT64_MAX - span->count * of->page_size)
        return "the source told a key of memory that cannot be";
    if (span->id < keys->least_id)
        return "the source gave two keys the same name";
    if (n >= of->most || !of->spans)
        return "the source told more keys than its memory can need";
    of->spans[n] = (KeySpan){
        .page = span->page,
        .count = span->count,
        .address = span->address,
        .rkey = span->rkey,
        .id = span->id,
        .checked = span->page,
    };
    keys->least_id = (uint64_t)span->id + 1;
    atomic_store_explicit(&of->n, n + 1, memory_order_release);
    atomic_fetch_add_explicit(&keys->told, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&keys->live, 1, memory_order_relaxed);
    return NULL;
}

/* The last span that begins at this page or before it; NULL: none. */
static const KeySpan *span_before(const KeyRegion *region, uint64_t page)
{
    uint32_t n = atomic_load_explicit(&region->n, memory_order_acquire);
    uint32_t low = 0, high = n;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;

        if (region->spans[middle].page <= page)
            low = middle + 1;
        else
            high = middle;
    }
    return low > 0 ? &region->spans[low - 1] : NULL;
}

uint32_t keys_find(const Keys *keys, uint32_t region, uint64_t page, uint32_t count,
                   uint64_t *ret_address, uint32_t *ret_rkey)
{
    const KeySpan *span =
        region < keys->n_regions ? span_before(&keys->regions[region], page) : NULL;
    uint64_t at;

    if (!span || page - span->page >= span->count)
        return 0;
    /* The claim of these pages before, the look at closed behind: against keys_close(). */
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&span->closed, memory_order_relaxed))
        return 0;
    at = page - span->page;
    *ret_address = span->address + at * keys->regions[region].page_size;
    *ret_rkey = span->rkey;
    return span->count - at < count ? (uint32_t)(span->count - at) : count;
}

void keys_close(KeySpan *span, uint64_t now_ns)
{
    span->closed_ns = now_ns;
    atomic_store_explicit(&span->closed, true, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst);
}

void keys_done(Keys *keys, uint32_t region, KeySpan *span)
{
    KeyRegion *of = &keys->regions[region];
    uint32_t n = atomic_load_explicit(&of->n, memory_order_relaxed);

    span->done = true;
    atomic_fetch_sub_explicit(&keys->live, 1, memory_order_relaxed);
    while (of->oldest < n && of->spans[of->oldest].done)
        of->oldest++;
}
