/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a page holds: every word depends on seed, page, generation and place, so that a page from
 * elsewhere, of another time, or torn, is told apart.  Word 0 names page and generation in clear.
 */
#ifndef GUEST_PATTERN_H
#define GUEST_PATTERN_H

#include <stdint.h>

#include "tests/guest/arena.h"

static inline uint64_t pattern_mix(uint64_t x)
{
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static inline uint64_t pattern_head(uint64_t page, uint32_t generation)
{
    return page << 32 | generation;
}

static inline uint64_t pattern_key(uint64_t seed, uint64_t page, uint32_t generation)
{
    return pattern_mix(pattern_mix(seed) ^ pattern_head(page, generation));
}

static inline uint64_t pattern_word(uint64_t key, unsigned word)
{
    uint64_t x = key + word * UINT64_C(0x9e3779b97f4a7c15);

    return x ^ x >> 32;
}

static inline void pattern_fill(uint64_t *words, uint64_t seed, uint64_t page, uint32_t generation)
{
    uint64_t key = pattern_key(seed, page, generation);

    words[0] = pattern_head(page, generation);
    for (unsigned i = 1; i < PAGE_WORDS; i++)
        words[i] = pattern_word(key, i);
}

#endif
