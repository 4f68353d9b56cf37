/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/source/spans.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

typedef struct Span {
    uint32_t id;
    uint32_t region;
    uint64_t page, count;
    void *pinned;
} Span;

struct Spans {
    const Memory *memory;
    SpanPins pins;
    pthread_mutex_t lock; /* of all below */
    void *mappings[LIMIT_REGIONS];
    Span spans[SPANS_MOST]; /* by their ids, ascending */
    uint32_t n;
    uint32_t last_id;
    bool ended;
};

Spans *spans_new(const Memory *memory, const SpanPins *pins)
{
    Spans *spans = calloc(1, sizeof *spans);

    if (!spans)
        return NULL;
    spans->memory = memory;
    spans->pins = *pins;
    pthread_mutex_init(&spans->lock, NULL);
    return spans;
}

static void unpin(Spans *spans, const Span *span)
{
    unsigned shift = spans->memory->regions.regions[span->region].page_shift;

    spans->pins.unpin(spans->pins.owner, span->pinned, span->count << shift);
}

void spans_end(Spans *spans)
{
    pthread_mutex_lock(&spans->lock);
    spans->ended = true;
    while (spans->n > 0)
        unpin(spans, &spans->spans[--spans->n]);
    for (uint32_t i = 0; i < spans->memory->regions.n; i++) {
        if (spans->mappings[i])
            munmap(spans->mappings[i], spans->memory->regions.regions[i].length);
        spans->mappings[i] = NULL;
    }
    pthread_mutex_unlock(&spans->lock);
}

void spans_free(Spans *spans)
{
    if (!spans)
        return;
    spans_end(spans);
    pthread_mutex_destroy(&spans->lock);
    free(spans);
}

/*
 * All of a region; a device's keys are of addresses.  No huge pages are set aside for what has no content,
 * and a crash of this daemon does not write the guest to the disk.
 */
static uint8_t *mapping(Spans *spans, uint32_t region)
{
    const Region *from = &spans->memory->regions.regions[region];
    void *memory = spans->mappings[region];

    if (memory)
        return memory;
    memory = mmap(NULL, from->length, PROT_READ, MAP_SHARED | MAP_NORESERVE, from->fd,
                  (off_t)from->fd_offset);
    if (memory == MAP_FAILED)
        return NULL;
    madvise(memory, from->length, MADV_DONTDUMP);
    spans->mappings[region] = memory;
    return memory;
}

/* Pages that a span may have now; 0: too few to be worth it. */
static uint64_t pages_allowed(Spans *spans, const Region *region, uint64_t page)
{
    uint64_t room = spans->pins.room(spans->pins.owner);
    uint64_t left = (region_pages(region) - page) << region->page_shift;

    if (spans->n == SPANS_MOST || room < (left < SCAN_HOLE ? left : SCAN_HOLE))
        return 0;
    return (room < PEER_SPAN_MAX ? room : PEER_SPAN_MAX) >> region->page_shift;
}

/* Nobody who follows what was told asks so; who does might have the same memory pinned again and again. */
static bool is_told(const Spans *spans, uint32_t region, const ScanSpan *found)
{
    for (uint32_t i = 0; i < spans->n; i++) {
        const Span *span = &spans->spans[i];

        if (span->region == region && found->page < span->page + span->count &&
            span->page < found->page + found->count)
            return true;
    }
    return false;
}

/* Pins the span that was found. */
static PeerKeysState pin(Spans *spans, uint32_t region, PeerSpan *span)
{
    const Region *from = &spans->memory->regions.regions[region];
    uint64_t length = span->count << from->page_shift;
    uint8_t *memory = mapping(spans, region);
    Span *made = &spans->spans[spans->n];
    int error;

    if (!memory)
        return PEER_KEYS_NONE;
    memory += span->page << from->page_shift;
    made->pinned = spans->pins.pin(spans->pins.owner, memory, length, &span->rkey, &error);
    /* What the host does not let us pin it will let us pin once some of ours is unpinned. */
    if (!made->pinned)
        return error == -EDQUOT || (error == -ENOMEM && spans->n > 0) ? PEER_KEYS_FULL
                                                                      : PEER_KEYS_NONE;
    made->id = span->id = ++spans->last_id;
    made->region = region;
    made->page = span->page;
    made->count = span->count;
    span->address = (uintptr_t)memory;
    spans->n++;
    return PEER_KEYS_SPAN;
}

/* Under the lock.  0, with what is to be told, or negative errno. */
static int find(Spans *spans, uint32_t region, uint64_t page, void *scratch, PeerMessage *keys)
{
    const Region *from = &spans->memory->regions.regions[region];
    ScanSpan found = {.zeroes = keys->keys.zeroes};
    uint64_t most;

    if (spans->ended)
        return -ECANCELED;
    keys->keys.state = PEER_KEYS_NONE;
    if (from->kind != CLIENT_REGION_SHARED)
        return 0;
    most = pages_allowed(spans, from, page);
    if (most == 0) {
        keys->keys.state = PEER_KEYS_FULL;
        return 0;
    }
    if (scan_span(spans->memory, region, page, most, scratch, &found))
        return 0;
    if (is_told(spans, region, &found))
        return -EPROTO;
    keys->keys.next = found.next;
    keys->keys.n = found.n;
    keys->keys.span.page = found.page;
    keys->keys.span.count = found.count;
    keys->keys.state = found.count ? pin(spans, region, &keys->keys.span) : PEER_KEYS_END;
    return 0;
}

int spans_find(Spans *spans, uint32_t region, uint64_t page, void *scratch, PeerMessage *ret_keys)
{
    int error;

    ret_keys->type = PEER_KEYS;
    ret_keys->keys.region = region;
    pthread_mutex_lock(&spans->lock);
    error = find(spans, region, page, scratch, ret_keys);
    pthread_mutex_unlock(&spans->lock);
    if (error)
        return error;
    if (ret_keys->keys.state == PEER_KEYS_FULL)
        ret_keys->keys.next = page;
    if (ret_keys->keys.state == PEER_KEYS_NONE)
        ret_keys->keys.next = region_pages(&spans->memory->regions.regions[region]);
    return 0;
}

int spans_retire(Spans *spans, uint32_t id)
{
    int error = -ENOENT;

    pthread_mutex_lock(&spans->lock);
    if (spans->ended)
        error = 0; /* it was, with all others */
    for (uint32_t i = 0; i < spans->n && error; i++)
        if (spans->spans[i].id == id) {
            unpin(spans, &spans->spans[i]);
            memmove(&spans->spans[i], &spans->spans[i + 1],
                    (--spans->n - i) * sizeof spans->spans[0]);
            error = 0;
        }
    pthread_mutex_unlock(&spans->lock);
    return error;
}
