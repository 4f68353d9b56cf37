/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/qemu/marks.h"

#define FROM(state) (1U << (state))

/* One in every nibble of a word. */
#define EACH UINT64_C(0x1111111111111111)

static uint64_t *words_of(const Table *table, uint32_t region)
{
    return (uint64_t *)((uint8_t *)table->header + PAGE_TABLE_HEADER_SIZE) +
           table->first_word[region];
}

/* The lowest bit of each of the word's n nibbles from this one on. */
static uint64_t span(unsigned nibble, uint64_t n)
{
    uint64_t all =
        n == PAGE_TABLE_PAGES_PER_WORD ? ~UINT64_C(0) : (UINT64_C(1) << n * PAGE_TABLE_BITS) - 1;

    return (EACH & all) << nibble * PAGE_TABLE_BITS;
}

/* Those nibbles of a word that are in one of these states. */
static uint64_t in_states(uint64_t word, unsigned from)
{
    uint64_t bits = 0;

    for (unsigned state = 0; state <= PAGE_STATE_MASK; state++) {
        uint64_t other = word ^ EACH * state;
        if (from & FROM(state))
            bits |= ~(other | other >> 1 | other >> 2) & EACH;
    }
    return bits;
}

/* By one exchange a word: there may be some hundred million pages, and others change the words as well. */
static uint64_t move_pages(const Table *table, uint32_t region, uint64_t page, uint64_t count,
                           unsigned from, PageState to)
{
    uint64_t *words = words_of(table, region);
    uint64_t end = table->n_words[region] * PAGE_TABLE_PAGES_PER_WORD;
    uint64_t moved = 0;

    if (page >= end)
        return 0;
    end = count < end - page ? page + count : end;
    for (uint64_t n; page < end; page += n) {
        uint64_t *word = &words[page / PAGE_TABLE_PAGES_PER_WORD];
        unsigned nibble = (unsigned)(page % PAGE_TABLE_PAGES_PER_WORD);
        uint64_t old = __atomic_load_n(word, __ATOMIC_RELAXED), bits, now;

        n = PAGE_TABLE_PAGES_PER_WORD - nibble;
        n = end - page < n ? end - page : n;
        do {
            bits = in_states(old, from) & span(nibble, n);
            now = (old & ~(bits * PAGE_STATE_MASK)) | bits * to;
        } while (bits && !__atomic_compare_exchange_n(word, &old, now, true, __ATOMIC_ACQ_REL,
                                                      __ATOMIC_RELAXED));
        moved += (uint64_t)__builtin_popcountll(bits);
    }
    return moved;
}

void marks_present(const Table *table, uint32_t region, uint64_t page, uint64_t count)
{
    move_pages(table, region, page, count, FROM(PAGE_HOLE) | FROM(PAGE_MISSING) | FROM(PAGE_FOUND),
               PAGE_PRESENT);
}

void marks_found(const Table *table, uint32_t region, uint64_t page, uint64_t count)
{
    move_pages(table, region, page, count, FROM(PAGE_HOLE) | FROM(PAGE_MISSING), PAGE_FOUND);
}

PageState marks_state(const Table *table, uint32_t region, uint64_t page)
{
    uint64_t word;

    if (page >= table->n_words[region] * PAGE_TABLE_PAGES_PER_WORD)
        return PAGE_REMOVED;
    word = __atomic_load_n(&words_of(table, region)[page / PAGE_TABLE_PAGES_PER_WORD],
                           __ATOMIC_ACQUIRE);
    return (PageState)(word >> (page % PAGE_TABLE_PAGES_PER_WORD) * PAGE_TABLE_BITS &
                       PAGE_STATE_MASK);
}

uint64_t marks_hot(const Table *table, uint32_t region, uint64_t page, uint64_t count)
{
    return move_pages(table, region, page, count, FROM(PAGE_HOLE), PAGE_MISSING);
}
