/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/fault/pace.h"

enum {
    CHUNK_MIN = 16 << 10,
    CHUNK_PARTS = 4, /* of the window: an even flow */
    WINDOW_MIN = 2 * CHUNK_MIN,
    WINDOW_FIRST = 256 << 10,
    QUANTUM_PARTS = 16384,     /* of a second: 61 µs */
    FAST_QUANTUM_PARTS = 6144, /* 163 µs, where the hosts' time for each request counts */
    FAST_PARTS = 500,          /* of a second: 2 ms */
    FAST_WINDOW = 2 << 20,
    RATE_FORGET = 64,
    RATE_BYTES = 1 << 20,
    RAMP_PARTS = 8,
    ROUND_SAMPLES = 3,
    PATIENCE_MAX = 1,
    CALM_ROUNDS = 16,
};

#define SECOND_NS UINT64_C(1000000000)
#define PERIOD_NS UINT64_C(3000000000)
#define RATE_NS   UINT64_C(20000000)
#define TARGET_NS UINT64_C(250000)
#define FAST_LINK (UINT64_C(256) << 20) /* bytes/s */
#define SLACK_NS  UINT64_C(100000)      /* of the latency of faults: what a busy host does to it */

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static void least_seen(PaceLeast *best, uint64_t value)
{
    best->now = least(best->now, value);
}

static uint64_t least_of(const PaceLeast *best)
{
    return least(best->now, best->before);
}

static void least_forget(PaceLeast *best)
{
    best->before = best->now;
    best->now = UINT64_MAX;
}

void pace_init(Pace *pace, uint64_t window_most, uint64_t chunk_most, uint64_t now_ns)
{
    *pace = (Pace){
        .window_most = window_most,
        .chunk_most = chunk_most,
        .window = least(WINDOW_FIRST, window_most),
        .base = {UINT64_MAX, UINT64_MAX},
        .urgent = {UINT64_MAX, UINT64_MAX},
        .period_ns = now_ns,
        .ramp = UINT64_MAX,
        .starting = true,
        .round_ns = now_ns,
        .measured_ns = now_ns,
        .round_least = UINT64_MAX,
    };
}

/* Less at once saves no time that could be noticed, but costs a fast host its speed. */
static uint64_t quantum(const Pace *pace)
{
    uint64_t parts = pace->rate < FAST_LINK ? QUANTUM_PARTS : FAST_QUANTUM_PARTS;
    uint64_t bytes = least(pace->rate / parts, pace->chunk_most);

    return bytes < CHUNK_MIN ? CHUNK_MIN : bytes;
}

uint64_t pace_chunk(const Pace *pace)
{
    uint64_t chunk = pace->window / CHUNK_PARTS;

    if (chunk < quantum(pace))
        chunk = quantum(pace);
    return least(chunk / CHUNK_MIN * CHUNK_MIN, pace->chunk_most);
}

bool pace_may_send(const Pace *pace, uint64_t in_flight)
{
    return pace->alone ? in_flight == 0 : in_flight < least(pace->window, pace->ramp);
}

/* --- a round ------------------------------------------------------------------------------- */

/* Long ways vary by more, and a queue that is short beside the way itself harms nobody. */
static uint64_t target(const Pace *pace)
{
    return (TARGET_NS + least_of(&pace->base) / 4) >> pace->patience;
}

/*
 * On a fast link it is mostly the hosts that make requests wait, and that looks like a queue: there the
 * window is never less than what passes at the best rate in a moment.
 */
static uint64_t floor_of(const Pace *pace)
{
    uint64_t bytes =
        pace->rate < FAST_LINK ? 0 : least(pace->rate / FAST_PARTS >> pace->patience, FAST_WINDOW);

    return bytes < 2 * quantum(pace) ? 2 * quantum(pace) : bytes;
}

static void resize(Pace *pace, uint64_t window)
{
    if (window < floor_of(pace))
        window = floor_of(pace);
    pace->window = least(window, pace->window_most);
}

/* Faults that take twice their best have something in front of them. */
static void mind_faults(Pace *pace)
{
    if (pace->round_urgent && pace->round_urgent > 2 * least_of(&pace->urgent) + SLACK_NS) {
        if (pace->patience < PATIENCE_MAX)
            pace->patience++;
        pace->calm = 0;
    } else if (++pace->calm >= CALM_ROUNDS && pace->patience > 0) {
        pace->patience--;
        pace->calm = 0;
    }
}

/*
 * By how much the queue differs from the target, in parts of 256 of it, -256 to 256.  A queue is as long
 * as most requests say; single ones that a busy host kept waiting count for little.
 */
static int64_t lack(const Pace *pace, uint64_t wanted)
{
    uint64_t delay = (pace->round_sum / pace->round_n + 3 * pace->round_least) / 4;
    uint64_t queue = delay - least_of(&pace->base);

    if (queue >= 2 * wanted)
        return -256;
    return ((int64_t)wanted - (int64_t)queue) * 256 / (int64_t)wanted;
}

/*
 * Over more than a round where that is short: a shaper lets a burst pass at the speed of its wire, and a
 * window made for that speed would be a long queue.
 */
static void measure_rate(Pace *pace, uint64_t now_ns)
{
    uint64_t time = now_ns - pace->measured_ns + 1;

    pace->filled = pace->used;
    if (pace->measured < RATE_BYTES && time < RATE_NS)
        return;
    pace->rate -= pace->rate / RATE_FORGET;
    if (pace->measured * SECOND_NS / time > pace->rate)
        pace->rate = pace->measured * SECOND_NS / time;
    pace->measured_ns = now_ns;
    pace->measured = 0;
}

/* The longer the way beside the queue, the more a step overshoots before it shows: smaller steps. */
static void adjust(Pace *pace)
{
    uint64_t wanted = target(pace);
    int64_t lacking = lack(pace, wanted);
    uint64_t step = pace->window / 512 * wanted / (wanted + least_of(&pace->base));

    if (pace->starting && lacking < 128)
        pace->starting = false;
    if (lacking > 0 && !pace->used)
        return; /* it was not this window that kept the queue short */
    if (pace->starting)
        resize(pace, 2 * pace->window);
    else
        resize(pace, (uint64_t)((int64_t)pace->window + (int64_t)step * lacking));
}

static void begin_round(Pace *pace, uint64_t now_ns)
{
    pace->round_ns = now_ns;
    pace->round_bytes = pace->round_sum = 0;
    pace->round_least = UINT64_MAX;
    pace->round_n = 0;
    pace->round_urgent = 0;
    pace->used = false;
}

static void begin_period(Pace *pace, uint64_t now_ns)
{
    least_forget(&pace->base);
    least_forget(&pace->urgent);
    pace->period_ns = now_ns;
    pace->alone = true;
}

void pace_answered(Pace *pace, const PaceSample *sample, uint64_t now_ns)
{
    uint64_t delay = now_ns > sample->sent_ns ? now_ns - sample->sent_ns : 1;

    least_seen(&pace->base, delay);
    if (sample->urgent_ns) {
        least_seen(&pace->urgent, sample->urgent_ns);
        pace->round_urgent = sample->urgent_ns;
    }
    pace->measured += sample->bytes;
    if (pace->ramp < pace->window)
        pace->ramp += 2 * sample->bytes;
    if (sample->sent_ns < pace->round_ns)
        return;
    if (pace->alone) {
        pace->alone = false;
        pace->ramp = WINDOW_MIN + pace->window / RAMP_PARTS;
        begin_round(pace, now_ns);
        return;
    }
    pace->round_bytes += sample->bytes;
    pace->round_sum += delay;
    pace->round_least = least(pace->round_least, delay);
    pace->round_n++;
    pace->used = pace->used || sample->in_flight + pace_chunk(pace) > pace->window;
    if (pace->round_bytes < pace->window || pace->round_n < ROUND_SAMPLES)
        return;
    mind_faults(pace);
    measure_rate(pace, now_ns);
    adjust(pace);
    begin_round(pace, now_ns);
    if (now_ns - pace->period_ns > PERIOD_NS)
        begin_period(pace, now_ns);
}
