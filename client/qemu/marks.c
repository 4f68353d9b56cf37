/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/qemu/marks.h"

#define FROM(state) (1U << (state))

static uint64_t *words_of(const Table *table, uint32_t region)
{
    return (uint64_t *)((uint8_t *)table->header + PAGE_TABLE_HEADER_SIZE) +
           table->first_word[region];
}

static uint64_t move_pages(const Table *table, uint32_t region, uint64_t page, uint64_t count,
                           unsigned from, PageState to)
{
    uint64_t *words = words_of(table, region);
    uint64_t end = table->n_words[region] * PAGE_TABLE_PAGES_PER_WORD;
    uint64_t moved = 0;

    if (page >= end)
        return 0;
    end = count < end - page ? page + count : end;
    for (; page < end; page++) {
        uint64_t *word = &words[page / PAGE_TABLE_PAGES_PER_WORD];
        unsigned shift = (unsigned)(page % PAGE_TABLE_PAGES_PER_WORD) * PAGE_TABLE_BITS;
        uint64_t old = __atomic_load_n(word, __ATOMIC_RELAXED);

        while (from & FROM(old >> shift & PAGE_STATE_MASK)) {
            uint64_t now = (old & ~(PAGE_STATE_MASK << shift)) | (uint64_t)to << shift;
            if (__atomic_compare_exchange_n(word, &old, now, true, __ATOMIC_ACQ_REL,
                                            __ATOMIC_RELAXED)) {
                moved++;
                break;
            }
        }
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
