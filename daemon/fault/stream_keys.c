/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/fault/stream_keys.h"

#include <string.h>

#include "daemon/core/log.h"
#include "daemon/fault/import.h"
#include "daemon/fault/placement.h"

#define KEYS_TIDY_NS  UINT64_C(50000000)
#define KEYS_SOON_NS  UINT64_C(5000000)    /* while the source has no room for more */
#define KEYS_GRACE_NS UINT64_C(1500000000) /* by far longer than until the device gives up a READ */
#define KEYS_ZEROES   (UINT64_C(1) << 20)  /* bytes placed between two looks at the channels */

static Channel *first_channel(Stream *stream)
{
    return &stream->channels[0].channel;
}

static void hold_from(Stream *stream, uint32_t region, uint64_t page)
{
    stream->walk.held[region] = page;
}

/* What lies behind where it stands, and the zeroes that are still to be placed; or nothing. */
static void hold(Stream *stream)
{
    const StreamKeys *keys = &stream->keys;
    bool holds = keys->on && keys_wait_holds(&keys->wait);

    for (uint32_t i = 0; i < stream->import->regions.n; i++)
        hold_from(stream, i, holds && i > keys->region ? 0 : UINT64_MAX);
    if (holds && !keys->complete)
        hold_from(stream, keys->region,
                  keys->zero < keys->n_zeroes ? keys->zeroes[keys->zero].page : keys->page);
}

/* --- a connection begins and ends ---------------------------------------------------------- */

static void forget(Stream *stream)
{
    StreamKeys *keys = &stream->keys;

    keys->on = keys->asked = keys->complete = keys->full_told = keys->refused = false;
    keys->region = keys->zero = keys->n_zeroes = 0;
    keys->page = keys->tidied_ns = 0;
    keys->wait = (KeysWait){0};
}

static void begin(Stream *stream)
{
    forget(stream);
    stream->keys.on = true;
    hold(stream);
}

void stream_keys_down(Stream *stream)
{
    forget(stream);
    hold(stream);
}

/* --- asking -------------------------------------------------------------------------------- */

/* Nothing of this region is held any more. */
static void next_region(Stream *stream)
{
    StreamKeys *keys = &stream->keys;

    keys->page = 0;
    ++keys->region;
    keys->complete = keys->region == stream->import->regions.n;
    hold(stream);
    if (keys->complete && keys->refused &&
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

/* From the extent's beginning on, which moves on: most pages of them at most.  How many. */
static uint64_t place_zeroes(Import *import, uint32_t region, PeerExtent *extent, uint64_t most)
{
    uint64_t end = extent->page + extent->count, count;
    uint64_t page = page_table_find_missing(&import->table, region, extent->page, end);

    if (most > end - page)
        most = end - page;
    count = most > 0 ? page_table_claim_run(&import->table, region, page, most) : 0;
    extent->page = page + count; /* if it is none a resolver was quicker */
    extent->count = end - extent->page;
    if (count == 0)
        return 0;
    placement_put(import, &(Placement){
                              .region = region,
                              .page = page,
                              .count = count,
                              .content = FETCH_ZERO,
                              .by = PLACEMENT_STREAM,
                          });
    if (import_is_halted(import))
        return count;
    import_count_fetched(import, region, count, true);
    atomic_fetch_add_explicit(&import->counters.by_stream, count, memory_order_relaxed);
    return count;
}

bool stream_keys_have_zeroes(const Stream *stream)
{
    return stream->keys.zero < stream->keys.n_zeroes && !stream->channels[0].channel.reason;
}

static void place_portion(Stream *stream)
{
    StreamKeys *keys = &stream->keys;
    Import *import = stream->import;
    uint64_t left = KEYS_ZEROES / import->page_sizes[keys->region];

    if (!stream_keys_have_zeroes(stream))
        return;
    left = left ? left : 1;
    while (left > 0 && stream_keys_have_zeroes(stream) && !import_is_halted(import)) {
        PeerExtent *extent = &keys->zeroes[keys->zero];

        if (!import_wants(import, keys->region))
            keys->zero = keys->n_zeroes;
        else if (extent->count == 0)
            keys->zero++;
        else
            left -= place_zeroes(import, keys->region, extent, left);
    }
    keys->wait.idle_ns = 0;
    hold(stream);
}

static const char *take_span(Stream *stream, const PeerMessage *message)
{
    StreamKeys *keys = &stream->keys;
    Import *import = stream->import;
    const char *wrong =
        keys_add(&import->keys, keys->region, keys->page, &message->keys.span, message->keys.next);

    if (wrong)
        return wrong;
    /* They lie in the span, in order: peer_message_decode(). */
    memcpy(keys->zeroes, message->keys.zeroes, message->keys.n * sizeof keys->zeroes[0]);
    keys->n_zeroes = message->keys.n;
    keys->zero = 0;
    keys->page = message->keys.next;
    keys_wait_told(&keys->wait);
    hold(stream);
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
    else
        hold(stream);
    return NULL;
}

static const char *take(Stream *stream, uint32_t region, const PeerMessage *message)
{
    StreamKeys *keys = &stream->keys;

    if (!keys->on || !keys->asked || region != keys->region)
        return "the source sent keys nobody asked for";
    keys->asked = false;
    keys->wait.idle_ns = 0;
    switch (message->keys.state) {
    case PEER_KEYS_SPAN:
        return take_span(stream, message);
    case PEER_KEYS_FULL:
        keys_wait_full(&keys->wait);
        return NULL;
    case PEER_KEYS_END:
        return take_end(stream, message);
    case PEER_KEYS_NONE:
        keys->refused = true;
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
    channel_blame_lane(first_channel(stream));
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

static void tidy(Stream *stream, uint64_t now_ns)
{
    Import *import = stream->import;
    StreamKeys *keys = &stream->keys;
    bool any = false;

    if (now_ns - keys->tidied_ns < (keys->wait.full ? KEYS_SOON_NS : KEYS_TIDY_NS))
        return;
    keys->tidied_ns = now_ns;
    for (uint32_t i = 0; i < import->regions.n; i++)
        any = give_back(stream, i, now_ns) || any;
    keys_wait_tidied(&keys->wait, any,
                     atomic_load_explicit(&import->keys.live, memory_order_relaxed), now_ns);
    hold(stream);
    if (keys->wait.again_ns == 0 || keys->full_told)
        return;
    keys->full_told = true;
    log_info("%s: the source can pin no memory for RDMA now: it is read by TCP until it can",
             import->name);
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
    keys_wait_mapped(&keys->wait);
    place_portion(stream);
    tidy(stream, now_ns);
    if (!keys->complete && !keys->asked && !keys->wait.full && !stream_keys_have_zeroes(stream))
        ask(stream);
}

void stream_keys_claimed(Stream *stream, bool any, uint64_t now_ns)
{
    StreamKeys *keys = &stream->keys;

    if (!keys->on || keys->complete)
        return;
    keys_wait_claimed(&keys->wait, any, now_ns);
    if (!keys_wait_holds(&keys->wait))
        hold(stream);
}
