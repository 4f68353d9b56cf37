/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How long the first touch of pages took: a histogram with eight buckets an octave, up to 2^32 ns.
 * Owned by one worker.
 */
#ifndef GUEST_STALL_H
#define GUEST_STALL_H

#include <stdint.h>

enum { STALL_OCTAVES = 32, STALL_BUCKETS = (STALL_OCTAVES - 2) * 8 };

typedef struct Stall {
    uint32_t counts[STALL_BUCKETS];
    uint64_t n;
    uint64_t sum_ns;
    uint64_t max_ns;
} Stall;

void stall_reset(Stall *stall);
void stall_add(Stall *stall, uint64_t ns);

/* Sends STALL and STALLSUM, and with `fine` STALLFINE, the histogram in full. */
void stall_report(const Stall *stall, unsigned worker, unsigned epoch, uint64_t pass, int fine);

#endif
