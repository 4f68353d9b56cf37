/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The words of a page table, as its own files see them: 16 nibbles, a page each. */
#ifndef POSTCOPYD_CORE_PAGE_TABLE_WORDS_H
#define POSTCOPYD_CORE_PAGE_TABLE_WORDS_H

#include "daemon/core/page_table.h"

/* 0x1111…: one in every nibble. */
#define EACH UINT64_C(0x1111111111111111)

static inline _Atomic uint64_t *word_of(const PageTable *table, uint32_t region, uint64_t page)
{
    return &table->words[table->first_word[region] + page / PAGE_TABLE_PAGES_PER_WORD];
}

static inline unsigned shift_of(uint64_t page)
{
    return (unsigned)(page % PAGE_TABLE_PAGES_PER_WORD) * PAGE_TABLE_BITS;
}

static inline uint64_t with_nibble(uint64_t word, unsigned shift, uint64_t nibble)
{
    return (word & ~(UINT64_C(15) << shift)) | (nibble << shift);
}

/* One bit (the lowest of its nibble) for every nibble of word that is in this state. */
static inline uint64_t state_bits(uint64_t word, uint64_t state)
{
    uint64_t other = word ^ (EACH * state);

    return ~(other | other >> 1 | other >> 2) & EACH;
}

#endif
