/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Latencies in nanoseconds, in buckets of an eighth of an octave (at most 12.5 % wide), up to 2^40.
 * Recording is wait-free and allowed on the fault path, from any thread; reading gives a snapshot
 * that may lag behind by what is recorded meanwhile.
 */
#ifndef POSTCOPYD_CORE_HISTOGRAM_H
#define POSTCOPYD_CORE_HISTOGRAM_H

#include <stdatomic.h>
#include <stdint.h>

enum {
    HISTOGRAM_OCTAVES = 40,
    HISTOGRAM_PARTS = 8, /* of an octave */
    HISTOGRAM_BUCKETS = HISTOGRAM_OCTAVES * HISTOGRAM_PARTS,
};

typedef struct Histogram {
    _Atomic uint32_t counts[HISTOGRAM_BUCKETS];
    _Atomic uint64_t sum_ns;
    _Atomic uint64_t max_ns;
} Histogram;

typedef struct HistogramSummary {
    uint64_t count;
    uint64_t sum_ns;
    uint64_t p50_ns;
    uint64_t p90_ns;
    uint64_t p99_ns;
    uint64_t max_ns;
    uint64_t octaves[HISTOGRAM_OCTAVES]; /* [i]: from 2^i to 2^(i+1) ns */
} HistogramSummary;

void histogram_record(Histogram *histogram, uint64_t ns);
void histogram_summarise(const Histogram *histogram, HistogramSummary *ret_summary);

#endif
