/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How long the first touch of pages took: a histogram with eight buckets an octave, up to 2^32 ns.
 * Owned by one worker.
 */
#ifndef GUEST_STALL_H
#define GUEST_STALL_H

#include <stdint.h>

enum {
    STALL_OCTAVES = 32,
    STALL_BUCKETS = (STALL_OCTAVES - 2) * 8,
    /* A touch that took so long waited for its page; a hypervisor's own faults are shorter.  Where a
     * bucket starts, so that the histogram and the sum tell of the same touches. */
    STALL_WAITED_NS = 20480,
};

typedef struct Stall {
    uint32_t counts[STALL_BUCKETS];
    uint64_t n;
    uint64_t sum_ns;
    uint64_t max_ns;
    uint64_t waited; /* touches, */
    uint64_t waited_ns;
} Stall;

void stall_reset(Stall *stall);
void stall_add(Stall *stall, uint64_t ns);

/* Sends STALL and STALLSUM, and with `fine` STALLFINE, the histogram in full. */
void stall_report(const Stall *stall, unsigned worker, unsigned epoch, uint64_t pass, int fine);

#endif
