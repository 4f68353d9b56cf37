/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/guest/stall.h"

#include <stddef.h>

#include "tests/guest/serial.h"

/* Buckets 0..7 are 0..7 ns; from there each octave has eight. */
static unsigned bucket_of(uint64_t ns)
{
    if (ns < 8)
        return (unsigned)ns;
    if (ns >> STALL_OCTAVES)
        return STALL_BUCKETS - 1;
    unsigned octave = 63 - (unsigned)__builtin_clzll(ns);
    return (octave - 2) * 8 + (unsigned)(ns >> (octave - 3) & 7);
}

static unsigned bucket_octave(unsigned bucket)
{
    if (bucket >= 8)
        return bucket / 8 + 2;
    return bucket >= 4 ? 2 : bucket >= 2;
}

static uint64_t bucket_middle(unsigned bucket)
{
    if (bucket < 16)
        return bucket;
    unsigned shift = bucket / 8 - 1;
    return (((uint64_t)bucket % 8 + 8) << shift) + ((UINT64_C(1) << shift) / 2);
}

void stall_reset(Stall *stall)
{
    for (size_t i = 0; i < STALL_BUCKETS; i++)
        stall->counts[i] = 0;
    stall->n = stall->sum_ns = stall->max_ns = 0;
    stall->waited = stall->waited_ns = 0;
}

void stall_add(Stall *stall, uint64_t ns)
{
    stall->counts[bucket_of(ns)]++;
    stall->n++;
    stall->sum_ns += ns;
    if (ns >= STALL_WAITED_NS) {
        stall->waited++;
        stall->waited_ns += ns;
    }
    if (ns > stall->max_ns)
        stall->max_ns = ns;
}

static uint64_t percentile(const Stall *stall, unsigned percent)
{
    uint64_t rank = stall->n * percent / 100, seen = 0;

    for (unsigned i = 0; i < STALL_BUCKETS; i++) {
        seen += stall->counts[i];
        if (seen > rank)
            return bucket_middle(i) < stall->max_ns ? bucket_middle(i) : stall->max_ns;
    }
    return stall->max_ns;
}

static void begin(Record *record, const char *word, unsigned worker, unsigned epoch, uint64_t pass)
{
    record_begin(record, word);
    record_number(record, "worker", worker);
    record_number(record, "epoch", epoch);
    record_number(record, "pass", pass);
}

static void report_octaves(Record *record, const Stall *stall)
{
    uint64_t octaves[STALL_OCTAVES] = {0};

    for (unsigned i = 0; i < STALL_BUCKETS; i++)
        octaves[bucket_octave(i)] += stall->counts[i];
    record_text(record, "hist", "");
    for (unsigned i = 0; i < STALL_OCTAVES; i++) {
        record_append(record, i ? "," : "");
        record_append_number(record, octaves[i]);
    }
    record_send(record);
}

static void report_fine(Record *record, const Stall *stall)
{
    const char *separator = "";

    record_text(record, "hist", "");
    for (unsigned i = 0; i < STALL_BUCKETS; i++) {
        if (!stall->counts[i])
            continue;
        record_append(record, separator);
        record_append_number(record, i);
        record_append(record, ":");
        record_append_number(record, stall->counts[i]);
        separator = ",";
    }
    record_send(record);
}

void stall_report(const Stall *stall, unsigned worker, unsigned epoch, uint64_t pass, int fine)
{
    Record record;

    begin(&record, "STALL", worker, epoch, pass);
    report_octaves(&record, stall);
    begin(&record, "STALLSUM", worker, epoch, pass);
    record_number(&record, "n", stall->n);
    record_number(&record, "sum_us", stall->sum_ns / 1000);
    record_number(&record, "max_us", stall->max_ns / 1000);
    record_number(&record, "waited", stall->waited);
    record_number(&record, "waited_us", stall->waited_ns / 1000);
    record_number(&record, "p50_ns", percentile(stall, 50));
    record_number(&record, "p99_ns", percentile(stall, 99));
    record_send(&record);
    if (fine) {
        begin(&record, "STALLFINE", worker, epoch, pass);
        report_fine(&record, stall);
    }
}
