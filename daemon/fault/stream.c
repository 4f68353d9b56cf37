/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/fault/stream.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "daemon/core/clock.h"
#include "daemon/core/thread.h"
#include "daemon/fault/assist.h"
#include "daemon/fault/hotplug.h"
#include "daemon/fault/import.h"
#include "daemon/fault/import_transport.h"
#include "daemon/fault/placement.h"
#include "daemon/fault/stream_map.h"

enum {
    STREAM_TICK_MS = 5,  /* while it waits for faults' pages to come */
    STREAM_HELD_MS = 20, /* by its rate, before it looks again */
    STREAM_TIDY_MS = 50, /* what is pinned, here and at the source */
    STREAM_ATTEMPTS = 40,
};

/* --- what comes back ----------------------------------------------------------------------- */

static void map_arrived(void *owner, uint32_t region, const PeerMessage *map)
{
    StreamChannel *channel = owner;

    stream_map_arrived(channel->stream, &channel->channel, region, map);
}

static void keys_arrived(void *owner, uint32_t region, const PeerMessage *keys)
{
    StreamChannel *channel = owner;

    stream_keys_arrived(channel->stream, region, keys);
}

/* The answer to a request begins: how long that took tells how full the link is. */
static void answer_begins(Stream *stream, const Fetch *fetch)
{
    Import *import = stream->import;
    PaceSample sample = {
        .sent_ns = fetch->since_ns,
        .bytes = fetch->count * import->page_sizes[fetch->region],
        .in_flight = stream->in_flight,
        .urgent_ns = atomic_exchange_explicit(&import->urgent_ns, 0, memory_order_relaxed),
    };

    pace_answered(&stream->pace, &sample, clock_ns());
    atomic_store_explicit(&import->link_rate, stream->pace.filled ? stream->pace.rate : 0,
                          memory_order_relaxed);
}

static void pages_arrived(void *owner, Fetch *fetch, uint32_t first, uint32_t count,
                          FetchContent content, const void *data)
{
    StreamChannel *channel = owner;
    Import *import = channel->stream->import;
    Placement placement = {
        .region = fetch->region,
        .page = fetch->page + first,
        .count = count,
        .content = content,
        .data = data,
        .spoiled = fetch->spoiled,
        .by = PLACEMENT_STREAM,
    };
    uint64_t bytes = count * import->page_sizes[fetch->region];

    if (first == 0 && fetch->attempts == 0)
        answer_begins(channel->stream, fetch);
    if (fetch->attempts == 0)
        channel->stream->in_flight -= bytes;
    if (content == FETCH_ZERO)
        rate_give(&channel->stream->rate, bytes);
    placement_put(import, &placement);
    if (import_is_halted(import))
        return; /* what was not placed does not count */
    ahead_moved(&channel->stream->ahead, import, clock_ns());
    import_count_fetched(import, fetch->region, count, content == FETCH_ZERO);
    atomic_fetch_add_explicit(&import->counters.by_stream, count, memory_order_relaxed);
}

static bool place(void *owner, const Fetch *fetch, uint32_t first, uint32_t count,
                  FetchPlace *ret_place)
{
    StreamChannel *channel = owner;

    return import_place(channel->stream->import, fetch, first, count, ret_place);
}

static uint32_t source(void *owner, uint32_t region, uint64_t page, uint32_t count,
                       FetchSource *ret_source)
{
    StreamChannel *channel = owner;

    return import_source(channel->stream->import, region, page, count, ret_source);
}

static uint32_t land(void *owner, const Fetch *fetch, uint32_t first, uint32_t count,
                     FetchLanding *ret_landing)
{
    StreamChannel *channel = owner;

    return import_land(channel->stream->import, fetch, first, count, ret_landing);
}

static bool pages_failed(void *owner, Fetch *fetch, PeerErrorCode code)
{
    StreamChannel *channel = owner;
    Import *import = channel->stream->import;

    atomic_fetch_add_explicit(&import->counters.retried, 1, memory_order_relaxed);
    /* From the first failure on it is under way no more: what cannot be read holds nothing else up. */
    if (fetch->attempts == 1)
        channel->stream->in_flight -= fetch->count * import->page_sizes[fetch->region];
    if (code == PEER_ERROR_FENCED) {
        import_halt(import, CLIENT_STATE_FENCED, "the source ran again");
        return true;
    }
    if (import->config.assist) {
        assist_give_back(import, fetch->region, fetch->page, fetch->count);
        return false;
    }
    if (fetch->attempts < STREAM_ATTEMPTS)
        return true;
    placement_poison(import, fetch->region, fetch->page, fetch->count, PLACEMENT_STREAM);
    return false;
}

static void channel_down(void *owner, const char *reason)
{
    StreamChannel *channel = owner;

    if (channel == &channel->stream->channels[0]) {
        channel->stream->map_asked = false;
        ahead_lost(&channel->stream->ahead, channel->stream->import, clock_ns());
        stream_keys_down(channel->stream);
    }
    /* First the word, then the offer: once it is idle the link takes no word of it for new. */
    link_channel_down(&channel->stream->import->link, reason);
    offer_lost(&channel->offer);
}

static const FetchSink stream_sink = {
    .pages = pages_arrived,
    .place = place,
    .source = source,
    .land = land,
    .failed = pages_failed,
    .map = map_arrived,
    .keys = keys_arrived,
    .down = channel_down,
    .goes_on = true,
};

/* --- what to fetch next -------------------------------------------------------------------- */

static uint64_t chunk_bytes(const Stream *stream)
{
    return rate_chunk(&stream->rate, pace_chunk(&stream->pace));
}

static Channel *channel_with_room(Stream *stream)
{
    Channel *best = NULL;

    for (unsigned i = 0; i < stream->n_channels; i++) {
        Channel *channel = &stream->channels[i].channel;
        if (channel->fd >= 0 && channel_has_room(channel) && (!best || channel->used < best->used))
            best = channel;
    }
    return best;
}

/* What faults took counts, so that the stream gives way; they themselves are never held back. */
static void keep_rate(Stream *stream, uint64_t now_ns)
{
    Import *import = stream->import;
    uint64_t urgent = atomic_load_explicit(&import->counters.urgent_bytes, memory_order_relaxed);

    rate_set(&stream->rate, atomic_load_explicit(&import->limit, memory_order_relaxed), now_ns);
    rate_take(&stream->rate, urgent - stream->urgent_seen);
    stream->urgent_seen = urgent;
    atomic_store_explicit(&stream->window, stream->pace.window, memory_order_relaxed);
    atomic_store_explicit(&stream->chunk, chunk_bytes(stream), memory_order_relaxed);
}

static bool may_send(Stream *stream, uint64_t now_ns)
{
    if (!pace_may_send(&stream->pace, stream->in_flight))
        return false;
    stream->held_ns = rate_wait_ns(&stream->rate, now_ns);
    return stream->held_ns == 0;
}

static void fetch_more(Stream *stream)
{
    Import *import = stream->import;
    uint64_t now = clock_ns();
    Channel *channel;

    keep_rate(stream, now);
    while (may_send(stream, now) && (channel = channel_with_room(stream))) {
        uint32_t region = 0;
        uint64_t page = 0;
        uint64_t count = stream_walk_claim(&stream->walk, chunk_bytes(stream), &region, &page);

        stream_keys_claimed(stream, count > 0, now);
        if (count == 0)
            return;
        bool pinned =
            stream->keys.on && landing_reach(&import->landing, import->name, region, page);
        channel_fetch(channel, region, page, (uint32_t)count)->since_ns = now;
        stream->in_flight += count * import->page_sizes[region];
        rate_take(&stream->rate, count * import->page_sizes[region]);
        if (pinned) { /* which took a moment: first what has come meanwhile */
            ring_hurry(&stream->ring);
            return;
        }
    }
}

/* --- the thread ---------------------------------------------------------------------------- */

/* Whoever drives the switchover says when the guest runs; without a word the delay decides. */
static bool may_run(Stream *stream)
{
    Import *import = stream->import;
    uint64_t gate = atomic_load(&import->gate_ns);

    if (!stream->open || import_is_halted(import))
        return false;
    if (import->config.assist)
        return !stream->mapping || ahead_goes_on(&stream->ahead, import, clock_ns());
    if (page_table_has(&import->table, PAGE_TABLE_STREAMING))
        return true;
    if (clock_ns() - gate < UINT64_C(1000000) * import->config.stream_delay_ms)
        return false;
    page_table_set(&import->table, PAGE_TABLE_STREAMING);
    return true;
}

/*
 * Complete: the map is known, no page is MISSING (none becomes so again), none is on its way.
 * The chunks are looked at before the count: a page leaves the first by entering the second.
 */
static void check_complete(Stream *stream)
{
    Import *import = stream->import;

    if (stream->complete || import->config.assist || !stream->map_complete ||
        stream_walk_has_missing(&stream->walk) ||
        atomic_load_explicit(&import->table.unresolved, memory_order_acquire) > 0 ||
        import_is_halted(import))
        return;
    stream->complete = true;
    landing_tidy(&import->landing);
    atomic_store_explicit(&import->link_rate, 0, memory_order_relaxed);
    atomic_store(&import->complete_ns, clock_ns());
    import_set_state(import, CLIENT_STATE_COMPLETE, "");
    import->notify(import->owner, import, IMPORT_COMPLETE, "");
}

/* A region goes: once nothing is on its way into it any more that is told. */
static void heed_retirement(Stream *stream)
{
    Import *import = stream->import;
    uint64_t retired = atomic_load_explicit(&import->retired, memory_order_acquire);

    if (stream->settled == retired)
        return;
    for (unsigned i = 0; i < stream->n_channels; i++)
        if (channel_is_landing(&stream->channels[i].channel, import->retiring))
            return;
    /* What is pinned of it goes when nobody's READ lands there: the last to settle, then (hotplug.h). */
    if (landing_has(&import->landing, import->retiring)) {
        if (atomic_load_explicit(&import->unsettled, memory_order_acquire) > 1)
            return;
        landing_forget(&import->landing, import->retiring);
    }
    stream->settled = retired;
    hotplug_settled(import);
}

/*
 * Looked at once a step: what is asked for must be answered with a seal that the channels know, and the
 * gate may open at any moment.
 */
static void heed_gate(Stream *stream)
{
    uint64_t seal = atomic_load(&stream->import->seal);

    for (unsigned i = 0; i < stream->n_channels; i++)
        stream->channels[i].channel.seal = seal;
    stream->open = seal != 0;
}

/* Blocks of which all has come, whether or not there is a connection with lanes now. */
static void tidy_blocks(Stream *stream, uint64_t now_ns)
{
    Landing *landing = &stream->import->landing;

    if (now_ns - stream->tidied_ns < UINT64_C(1000000) * STREAM_TIDY_MS ||
        atomic_load_explicit(&landing->pinned, memory_order_relaxed) == 0)
        return;
    stream->tidied_ns = now_ns;
    landing_tidy(landing);
}

/* What the client marked is there before the import is; QEMU is held from the moment the gate opens. */
static void step_assist(Stream *stream, uint64_t now)
{
    Import *import = stream->import;

    if (!stream->noted)
        stream_walk_note_missing(&stream->walk);
    stream->noted = true;
    if (stream->open && stream->ahead.stage == AHEAD_DUE)
        ahead_moved(&stream->ahead, import, now);
    if (stream->map_complete && stream->in_flight == 0 && !stream_walk_has_missing(&stream->walk))
        ahead_complete(&stream->ahead, import, now);
    ahead_catch_up(&stream->ahead, import, now);
}

static void step(Stream *stream)
{
    Import *import = stream->import;
    uint64_t now = clock_ns();

    heed_gate(stream);
    heed_retirement(stream);
    if (stream->populating && !stream->open) {
        stream->populating =
            mirror_populate(&import->mirror, &import->regions, &import->table, import->present);
        if (!stream->populating)
            link_populated(&import->link);
    }
    if (!stream->open && !stream->populating) {
        bool before = atomic_load(&import->landing.prepared);

        stream->preparing = landing_prepare(&import->landing, import->name);
        if (!before && atomic_load(&import->landing.prepared))
            link_populated(&import->link);
    }
    if (import->config.assist)
        step_assist(stream, now);
    stream_map_step(stream);
    stream_keys_step(stream, now);
    tidy_blocks(stream, now);
    stream->held_ns = 0;
    if (may_run(stream))
        fetch_more(stream);
    for (unsigned i = 0; i < stream->n_channels; i++)
        channel_flush(&stream->channels[i].channel);
    check_complete(stream);
}

/* Nothing is left to ask for: until all that was pinned for it is given back. */
static int rest_ms(const Stream *stream)
{
    const Import *import = stream->import;

    return atomic_load_explicit(&import->keys.live, memory_order_relaxed) > 0 ||
                   atomic_load_explicit(&import->landing.pinned, memory_order_relaxed) > 0
               ? STREAM_TIDY_MS
               : -1;
}

/*
 * While faults alone are served: until the delay is over, or until it is to look whether all has come.  Who says that
 * the guest runs wakes us.
 */
static int delayed_ms(const Stream *stream)
{
    const Import *import = stream->import;
    uint64_t delay = UINT64_C(1000000) * import->config.stream_delay_ms;
    uint64_t gone = clock_ns() - atomic_load(&import->gate_ns);

    if (gone >= delay)
        return 0;
    return delay - gone < UINT64_C(1000000) * STREAM_TIDY_MS ? (int)((delay - gone) / 1000000 + 1)
                                                             : STREAM_TIDY_MS;
}

/* Ticks only while something can change that nobody would wake us for. */
static int wait_ms(Stream *stream)
{
    Import *import = stream->import;

    if (!import_gate_is_open(import))
        return stream->populating || stream->preparing ? 0 : -1;
    if (import_is_halted(import))
        return -1;
    if (stream->complete)
        return rest_ms(stream);
    if (stream_keys_have_zeroes(stream))
        return 0;
    for (unsigned i = 0; i < stream->n_channels; i++)
        if (stream->channels[i].channel.retrying)
            return STREAM_TICK_MS;
    if (stream->held_ns > 0) /* not for so long that another limit would be late */
        return stream->held_ns / 1000000 < STREAM_HELD_MS ? (int)(stream->held_ns / 1000000 + 1)
                                                          : STREAM_HELD_MS;
    if (stream->in_flight > 0)
        return -1;
    if (stream->ahead.stage == AHEAD_CATCHING)
        return AHEAD_TICK_MS;
    if (import->config.assist && !may_run(stream))
        return -1; /* the head start is over */
    if (import->config.assist && !stream_walk_has_missing(&stream->walk) &&
        !ahead_goes_on(&stream->ahead, import, clock_ns()))
        return -1; /* all that its client marked was fetched */
    if (stream->map_complete && stream_walk_has_missing(&stream->walk) &&
        !stream_walk_has_chunks(&stream->walk))
        return rest_ms(stream); /* only regions that are not there miss something */
    if (stream->map_complete && !import->config.assist && !stream->keys.wait.full &&
        !page_table_has(&import->table, PAGE_TABLE_STREAMING))
        return delayed_ms(stream);
    return STREAM_TICK_MS;
}

static void woken(void *owner)
{
    Stream *stream = owner;

    for (unsigned i = 0; i < stream->n_channels; i++)
        offer_serve(&stream->channels[i].offer, &stream->channels[i].channel);
}

static void *run(void *argument)
{
    Stream *stream = argument;
    int error;

    prctl(PR_SET_NAME, "stream");
    if (stream->import->config.assist)
        thread_hurry(); /* faults wait for what it asked for, too, and its head start is short */
    error = ring_start(&stream->ring, 64);
    if (error) {
        import_halt(stream->import, CLIENT_STATE_BROKEN, "the stream could not make its io_uring");
        return NULL;
    }
    while (!error && !atomic_load_explicit(&stream->stop, memory_order_acquire)) {
        step(stream);
        error = ring_wait(&stream->ring, wait_ms(stream));
        atomic_fetch_add_explicit(&stream->wakeups, 1, memory_order_relaxed);
    }
    if (error)
        import_halt(stream->import, CLIENT_STATE_BROKEN, strerrordesc_np(-error));
    ring_stop(&stream->ring);
    return NULL;
}

static int init_parts(Stream *stream)
{
    Import *import = stream->import;
    int error = ring_init(&stream->ring, woken, stream);

    for (unsigned i = 0; i < import->config.bulk_channels && !error; i++) {
        StreamChannel *channel = &stream->channels[i];
        channel->stream = stream;
        offer_init(&channel->offer, &stream->ring);
        stream->n_channels = i + 1;
        error = channel_init(&channel->channel, &stream->ring, &stream_sink, channel,
                             import->page_sizes, import->wire_regions, import->regions.n,
                             import_buffer_size(import), i == 0);
    }
    return error ? error : stream_walk_init(&stream->walk, import);
}

int stream_start(Stream *stream, Import *import)
{
    int error;

    *stream =
        (Stream){.import = import, .initialised = true, .populating = true, .ring.wake_fd = -1};
    pace_init(&stream->pace, import->config.window, import->config.chunk, clock_ns());
    error = init_parts(stream);
    if (!error)
        error = -pthread_create(&stream->thread, NULL, run, stream);
    stream->started = !error;
    if (error)
        stream_stop(stream);
    return error;
}

void stream_stop(Stream *stream)
{
    if (stream->started) {
        atomic_store_explicit(&stream->stop, true, memory_order_release);
        ring_wake(&stream->ring);
        thread_join(stream->thread);
        stream->started = false;
    }
    if (!stream->initialised)
        return;
    for (unsigned i = 0; i < stream->n_channels; i++) {
        channel_deinit(&stream->channels[i].channel);
        offer_deinit(&stream->channels[i].offer);
    }
    stream_walk_deinit(&stream->walk);
    ring_deinit(&stream->ring);
    stream->initialised = false;
}

void stream_wake(Stream *stream)
{
    if (stream->started)
        ring_wake(&stream->ring);
}
