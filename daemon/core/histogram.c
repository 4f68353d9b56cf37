/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/core/histogram.h"

#include <string.h>

static unsigned bucket_of(uint64_t ns)
{
    unsigned octave, part, bucket;

    if (ns < HISTOGRAM_PARTS)
        return (unsigned)ns;
    octave = 63u - (unsigned)__builtin_clzll(ns);
    part = (unsigned)(ns >> (octave - 3)) & (HISTOGRAM_PARTS - 1);
    bucket = octave * HISTOGRAM_PARTS + part;
    return bucket < HISTOGRAM_BUCKETS ? bucket : HISTOGRAM_BUCKETS - 1;
}

/* The middle of a bucket: what a percentile that falls into it is reported as. */
static uint64_t bucket_middle(unsigned bucket)
{
    unsigned octave = bucket / HISTOGRAM_PARTS;
    uint64_t part = bucket % HISTOGRAM_PARTS;

    if (octave < 3) /* only the first eight of these are in use, one nanosecond each */
        return bucket;
    return ((HISTOGRAM_PARTS + part) << (octave - 3)) + (UINT64_C(1) << (octave - 3)) / 2;
}

void histogram_record(Histogram *histogram, uint64_t ns)
{
    uint64_t max = atomic_load_explicit(&histogram->max_ns, memory_order_relaxed);

    atomic_fetch_add_explicit(&histogram->counts[bucket_of(ns)], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&histogram->sum_ns, ns, memory_order_relaxed);
    while (ns > max &&
           !atomic_compare_exchange_weak_explicit(&histogram->max_ns, &max, ns,
                                                  memory_order_relaxed, memory_order_relaxed))
        ;
}

static uint64_t percentile(const uint32_t *counts, uint64_t total, unsigned percent)
{
    uint64_t rank = (total * percent + 99) / 100;
    uint64_t seen = 0;

    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += counts[i];
        if (seen >= rank && seen > 0)
            return bucket_middle(i);
    }
    return 0;
}

void histogram_summarise(const Histogram *histogram, HistogramSummary *ret_summary)
{
    uint32_t counts[HISTOGRAM_BUCKETS];

    memset(ret_summary, 0, sizeof *ret_summary);
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        uint64_t middle = bucket_middle(i);
        counts[i] = atomic_load_explicit(&histogram->counts[i], memory_order_relaxed);
        ret_summary->count += counts[i];
        ret_summary->octaves[middle ? 63 - __builtin_clzll(middle) : 0] += counts[i];
    }
    ret_summary->sum_ns = atomic_load_explicit(&histogram->sum_ns, memory_order_relaxed);
    ret_summary->max_ns = atomic_load_explicit(&histogram->max_ns, memory_order_relaxed);
    ret_summary->p50_ns = percentile(counts, ret_summary->count, 50);
    ret_summary->p90_ns = percentile(counts, ret_summary->count, 90);
    ret_summary->p99_ns = percentile(counts, ret_summary->count, 99);
}
