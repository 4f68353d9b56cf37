/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/fault/stream_keys.h"

#include "daemon/core/log.h"
#include "daemon/fault/import.h"
#include "daemon/fault/placement.h"

#define KEYS_IDLE_NS UINT64_C(2000000000) /* held up for so long, the stream goes on without keys */
#define KEYS_TIDY_NS UINT64_C(50000000)
#define KEYS_SOON_NS UINT64_C(5000000) /* while the source has no room for more */
#define KEYS_GRACE_NS \
    UINT64_C(200000000) /* longer than a READ takes; after it the device gives up */

static Channel *first_channel(Stream *stream)
{
    return &stream->channels[0].channel;
}

static void hold_from(Stream *stream, uint32_t region, uint64_t page)
{
    stream->walk.held[region] = page;
}

static void hold_nothing(Stream *stream)
{
    for (uint32_t i = 0; i < stream->import->regions.n; i++)
        hold_from(stream, i, UINT64_MAX);
    stream->keys.unheld = true;
}

/* --- a connection begins and ends ---------------------------------------------------------- */

static void begin(Stream *stream)
{
    stream->keys = (StreamKeys){.on = true};
    for (uint32_t i = 0; i < stream->import->regions.n; i++)
        hold_from(stream, i, 0);
}

void stream_keys_down(Stream *stream)
{
    stream->keys = (StreamKeys){0};
    hold_nothing(stream);
}

/* --- asking -------------------------------------------------------------------------------- */

/* Nothing of this region is held any more. */
static void next_region(Stream *stream)
{
    StreamKeys *keys = &stream->keys;

    hold_from(stream, keys->region, UINT64_MAX);
    keys->page = 0;
    if (++keys->region < stream->import->regions.n)
        return;
    keys->complete = true;
    if (keys->refused &&
        atomic_load_explicit(&stream->import->keys.told, memory_order_relaxed) == 0)
        atomic_store_explicit(&stream->import->keys.none, true, memory_order_relaxed);
}

/* What is not there now may come later, and then it comes by TCP. */
static void ask(Stream *stream)
{
    StreamKeys *keys = &stream->keys;
    Import *import = stream->import;

    while (!keys->complete) {
        uint64_t pages = import->table.pages[keys->region];

        keys->page = import_wants(import, keys->region)
                         ? stream_walk_next(&stream->walk, keys->region, keys->page)
                         : pages;
        if (keys->page < pages) {
            keys->asked = true;
            channel_ask_keys(first_channel(stream), keys->region, keys->page);
            return;
        }
        next_region(stream);
    }
}

/* --- what comes ---------------------------------------------------------------------------- */

static void place_zeroes(Stream *stream, uint32_t region, const PeerExtent *extent)
{
    Import *import = stream->import;
    uint64_t page = extent->page, end = page + extent->count;

    while (page < end && !import_is_halted(import)) {
        uint64_t count;

        page = page_table_find_missing(&import->table, region, page, end);
        if (page >= end)
            return;
        count = page_table_claim_run(&import->table, region, page, end - page);
        if (count == 0)
            continue; /* a resolver was quicker */
        placement_put(import, &(Placement){
                                  .region = region,
                                  .page = page,
                                  .count = count,
                                  .content = FETCH_ZERO,
                                  .by = PLACEMENT_STREAM,
                              });
        if (import_is_halted(import))
            return;
        import_count_fetched(import, region, count, true);
        atomic_fetch_add_explicit(&import->counters.by_stream, count, memory_order_relaxed);
        page += count;
    }
}

/* NULL: all of them lie in the span, in order. */
static const char *check_zeroes(const PeerMessage *keys)
{
    const PeerSpan *span = &keys->keys.span;
    uint64_t at = span->page, end = span->page + span->count;

    for (uint32_t i = 0; i < keys->keys.n; i++) {
        const PeerExtent *extent = &keys->keys.zeroes[i];

        if (extent->page < at || extent->count == 0 || extent->page > end ||
            extent->count > end - extent->page)
            return "the source's keys list zeroes that cannot be";
        at = extent->page + extent->count;
    }
    return NULL;
}

static const char *take_span(Stream *stream, const PeerMessage *message)
{
    StreamKeys *keys = &stream->keys;
    Import *import = stream->import;
    const char *wrong =
        keys_add(&import->keys, keys->region, keys->page, &message->keys.span, message->keys.next);

    if (!wrong)
        wrong = check_zeroes(message);
    if (wrong)
        return wrong;
    for (uint32_t i = 0; i < message->keys.n && import_wants(import, keys->region); i++)
        place_zeroes(stream, keys->region, &message->keys.zeroes[i]);
    keys->page = message->keys.next;
    if (!keys->unheld)
        hold_from(stream, keys->region, keys->page);
    return NULL;
}

/* Nothing but zeroes, as far as the source looked: that is soon asked for by TCP. */
static const char *take_end(Stream *stream, const PeerMessage *message)
{
    StreamKeys *keys = &stream->keys;
    uint64_t pages = stream->import->table.pages[keys->region];

    if (message->keys.next <= keys->page || message->keys.next > pages)
        return "the source's keys make no sense";
    keys->page = message->keys.next;
    if (keys->page == pages)
        next_region(stream);
    else if (!keys->unheld)
        hold_from(stream, keys->region, keys->page);
    return NULL;
}

static const char *take(Stream *stream, uint32_t region, const PeerMessage *message)
{
    StreamKeys *keys = &stream->keys;

    if (!keys->on || !keys->asked || region != keys->region)
        return "the source sent keys nobody asked for";
    keys->asked = false;
    keys->idle_ns = 0;
    switch (message->keys.state) {
    case PEER_KEYS_SPAN:
        return take_span(stream, message);
    case PEER_KEYS_FULL:
        keys->full = true;
        return NULL;
    case PEER_KEYS_END:
        return take_end(stream, message);
    case PEER_KEYS_NONE:
        keys->refused = keys->refused || message->keys.state == PEER_KEYS_NONE;
        next_region(stream);
        return NULL;
    default:
        return "the source's keys make no sense";
    }
}

void stream_keys_arrived(Stream *stream, uint32_t region, const PeerMessage *keys)
{
    const char *wrong = take(stream, region, keys);

    if (!wrong)
        return;
    log_warning("%s: %s", stream->import->name, wrong);
    channel_drop(first_channel(stream), wrong);
}

/* --- giving back --------------------------------------------------------------------------- */

static bool all_came(const Import *import, uint32_t region, KeySpan *span)
{
    uint64_t end = span->page + span->count;

    if (import_is_gone(import, region))
        return true;
    span->checked = page_table_find_unplaced(&import->table, region, span->checked, end);
    return span->checked == end;
}

/* True once no READ is under way there. */
static bool is_over(const Import *import, uint32_t region, KeySpan *span, uint64_t now_ns)
{
    bool removed = import_is_gone(import, region) || import->regions.regions[region].removable;

    if (!atomic_load_explicit(&span->closed, memory_order_relaxed)) {
        if (!all_came(import, region, span))
            return false;
        keys_close(span, now_ns);
        span->checked = span->page; /* a page that was passed over may have been claimed since */
    }
    return all_came(import, region, span) && (!removed || now_ns - span->closed_ns > KEYS_GRACE_NS);
}

static bool give_back(Stream *stream, uint32_t region, uint64_t now_ns)
{
    Import *import = stream->import;
    KeyRegion *of = &import->keys.regions[region];
    uint32_t n = atomic_load_explicit(&of->n, memory_order_relaxed);
    bool any = false;

    for (uint32_t i = of->oldest; i < n; i++) {
        KeySpan *span = &of->spans[i];

        if (span->done || !is_over(import, region, span, now_ns))
            continue;
        if (!channel_keys_done(first_channel(stream), span->id))
            break;
        keys_done(&import->keys, region, span);
        any = true;
    }
    return any;
}

/* The rest of the memory comes by TCP, unless some of what the source has pinned becomes free. */
static void tidy(Stream *stream, uint64_t now_ns)
{
    Import *import = stream->import;
    StreamKeys *keys = &stream->keys;
    bool any = false;

    if (now_ns - keys->tidied_ns < (keys->full ? KEYS_SOON_NS : KEYS_TIDY_NS))
        return;
    keys->tidied_ns = now_ns;
    landing_tidy(&import->landing);
    for (uint32_t i = 0; i < import->regions.n; i++)
        any = give_back(stream, i, now_ns) || any;
    if (!keys->full)
        return;
    if (any) {
        keys->full = false;
    } else if (atomic_load_explicit(&import->keys.live, memory_order_relaxed) == 0) {
        keys->complete = true;
        hold_nothing(stream);
        log_info("%s: the source can pin no memory for RDMA: what is left comes by TCP",
                 import->name);
    }
}

/* --- the stream ---------------------------------------------------------------------------- */

void stream_keys_step(Stream *stream, uint64_t now_ns)
{
    StreamKeys *keys = &stream->keys;
    Channel *channel = first_channel(stream);

    if (stream->import->config.assist || channel->fd < 0 || channel->reason || !channel->lane)
        return;
    if (!keys->on)
        begin(stream);
    if (!stream->map_complete || import_is_halted(stream->import))
        return;
    tidy(stream, now_ns);
    if (!keys->complete && !keys->asked && !keys->full)
        ask(stream);
}

void stream_keys_claimed(Stream *stream, bool any, uint64_t now_ns)
{
    StreamKeys *keys = &stream->keys;

    if (!keys->on || keys->unheld)
        return;
    if (any)
        keys->idle_ns = 0;
    else if (keys->idle_ns == 0)
        keys->idle_ns = now_ns;
    else if (now_ns - keys->idle_ns > KEYS_IDLE_NS)
        hold_nothing(stream);
}
