/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/core/page_table.h"

#include "daemon/core/page_table_words.h"

uint64_t page_table_get(const PageTable *table, uint32_t region, uint64_t page)
{
    uint64_t word = atomic_load_explicit(word_of(table, region, page), memory_order_acquire);

    return (word >> shift_of(page)) & 15;
}

/* What a fault on a page in this state means, and the state it leads to (or stays in). */
static PageClaim judge(uint64_t nibble, bool mapped, uint64_t *ret_next)
{
    *ret_next = PAGE_REQUESTED;
    switch (nibble & PAGE_STATE_MASK) {
    case PAGE_HOLE:
        return mapped ? PAGE_CLAIM_ZERO : PAGE_CLAIM_FETCH;
    case PAGE_MISSING:
    case PAGE_FOUND: /* or it would not have faulted */
        return PAGE_CLAIM_FETCH;
    case PAGE_REQUESTED:
    case PAGE_RECEIVED:
        *ret_next = nibble | PAGE_WAITED;
        return PAGE_CLAIM_WAIT;
    case PAGE_PRESENT:
        *ret_next = nibble;
        return PAGE_CLAIM_PRESENT;
    default:
        *ret_next = nibble;
        return PAGE_CLAIM_REMOVED;
    }
}

/*
 * Two orders matter here.  The map bit is read before the word: once it is set no HOLE becomes
 * MISSING any more, so a HOLE read after it is a hole for good.  And unresolved goes up before the
 * page leaves MISSING, so whoever finds no MISSING page and then unresolved at 0 knows that all is
 * here.
 */
PageClaim page_table_claim_fault(PageTable *table, uint32_t region, uint64_t page)
{
    bool mapped = page_table_has(table, PAGE_TABLE_MAP_COMPLETE);
    _Atomic uint64_t *at = word_of(table, region, page);
    unsigned shift = shift_of(page);
    uint64_t word, next;
    PageClaim claim;

    atomic_fetch_add_explicit(&table->unresolved, 1, memory_order_acq_rel);
    word = atomic_load_explicit(at, memory_order_acquire);
    do
        claim = judge((word >> shift) & 15, mapped, &next);
    while (claim != PAGE_CLAIM_PRESENT && claim != PAGE_CLAIM_REMOVED &&
           !atomic_compare_exchange_weak_explicit(at, &word, with_nibble(word, shift, next),
                                                  memory_order_acq_rel, memory_order_acquire));
    if (claim != PAGE_CLAIM_FETCH && claim != PAGE_CLAIM_ZERO)
        atomic_fetch_sub_explicit(&table->unresolved, 1, memory_order_acq_rel);
    return claim;
}

_Static_assert(PAGE_HOLE == 0 && PAGE_MISSING == 1, "free_run() compares them as numbers");

/* How many nibbles from least to MISSING follow each other in word from shift on, at most limit. */
static uint64_t free_run(uint64_t word, unsigned shift, uint64_t limit, uint64_t least)
{
    uint64_t n = 0;

    while (n < limit && shift < 64 && ((word >> shift) & 15) <= PAGE_MISSING &&
           ((word >> shift) & 15) >= least) {
        shift += PAGE_TABLE_BITS;
        n++;
    }
    return n;
}

/* Nibbles [shift, shift + n) of a word, all set to value. */
static uint64_t fill(unsigned shift, uint64_t n, uint64_t value)
{
    uint64_t mask =
        n == PAGE_TABLE_PAGES_PER_WORD ? ~UINT64_C(0) : (UINT64_C(1) << (n * PAGE_TABLE_BITS)) - 1;

    return ((EACH * value) & mask) << shift;
}

/* Claims what it can of one word; 0 when the page at its start is not free. */
static uint64_t claim_word(_Atomic uint64_t *at, unsigned shift, uint64_t limit, uint64_t least)
{
    uint64_t word = atomic_load_explicit(at, memory_order_acquire);
    uint64_t n, next;

    do {
        n = free_run(word, shift, limit, least);
        if (n == 0)
            return 0;
        next = (word & ~fill(shift, n, 15)) | fill(shift, n, PAGE_REQUESTED);
    } while (!atomic_compare_exchange_weak_explicit(at, &word, next, memory_order_acq_rel,
                                                    memory_order_acquire));
    return n;
}

/* Pages whose state is from least to MISSING. */
static inline uint64_t claim_run(PageTable *table, uint32_t region, uint64_t page, uint64_t limit,
                                 uint64_t least)
{
    uint64_t claimed = 0;

    if (limit > table->pages[region] - page)
        limit = table->pages[region] - page;
    atomic_fetch_add_explicit(&table->unresolved, limit, memory_order_acq_rel);
    while (claimed < limit) {
        unsigned shift = shift_of(page + claimed);
        uint64_t fits = (64 - shift) / PAGE_TABLE_BITS;
        uint64_t want = limit - claimed < fits ? limit - claimed : fits;
        uint64_t n = claim_word(word_of(table, region, page + claimed), shift, want, least);

        claimed += n;
        if (n < want)
            break;
    }
    atomic_fetch_sub_explicit(&table->unresolved, limit - claimed, memory_order_acq_rel);
    return claimed;
}

uint64_t page_table_claim_run(PageTable *table, uint32_t region, uint64_t page, uint64_t limit)
{
    return claim_run(table, region, page, limit, PAGE_MISSING);
}

uint64_t page_table_claim_any_run(PageTable *table, uint32_t region, uint64_t page, uint64_t limit)
{
    return claim_run(table, region, page, limit, PAGE_HOLE);
}

/* One bit (the lowest of its nibble) for every nibble of word that is exactly MISSING. */
static uint64_t missing_bits(uint64_t word)
{
    uint64_t other = word ^ (EACH * PAGE_MISSING);

    return ~(other | other >> 1 | other >> 2 | other >> 3) & EACH;
}

uint64_t page_table_find_missing(const PageTable *table, uint32_t region, uint64_t page,
                                 uint64_t end)
{
    if (end > table->pages[region])
        end = table->pages[region];
    while (page < end) {
        uint64_t word = atomic_load_explicit(word_of(table, region, page), memory_order_relaxed);
        uint64_t bits = missing_bits(word) >> shift_of(page);

        if (bits) {
            page += (uint64_t)__builtin_ctzll(bits) / PAGE_TABLE_BITS;
            return page < end ? page : end;
        }
        page = (page / PAGE_TABLE_PAGES_PER_WORD + 1) * PAGE_TABLE_PAGES_PER_WORD;
    }
    return end;
}

uint64_t page_table_find_unplaced(const PageTable *table, uint32_t region, uint64_t page,
                                  uint64_t end)
{
    if (end > table->pages[region])
        end = table->pages[region];
    while (page < end) {
        uint64_t word = atomic_load_explicit(word_of(table, region, page), memory_order_acquire);
        uint64_t bits = (state_bits(word, PAGE_MISSING) | state_bits(word, PAGE_REQUESTED) |
                         state_bits(word, PAGE_RECEIVED)) >>
                        shift_of(page);

        if (bits) {
            page += (uint64_t)__builtin_ctzll(bits) / PAGE_TABLE_BITS;
            return page < end ? page : end;
        }
        page = (page / PAGE_TABLE_PAGES_PER_WORD + 1) * PAGE_TABLE_PAGES_PER_WORD;
    }
    return end;
}

/* What a word's nibbles, one bit each in nibbles, become. */
typedef uint64_t (*NextWord)(uint64_t word, uint64_t nibbles);

/*
 * Changes the pages of a run word by word, and reports the WAITED marks that came off.  How many of
 * them were MISSING.
 */
static uint64_t change(PageTable *table, uint32_t region, uint64_t page, uint64_t count,
                       NextWord next, PageWaited waited, void *user)
{
    uint64_t end = page + count;
    uint64_t missing = 0;

    while (page < end) {
        _Atomic uint64_t *at = word_of(table, region, page);
        unsigned shift = shift_of(page);
        uint64_t fits = (64 - shift) / PAGE_TABLE_BITS;
        uint64_t n = end - page < fits ? end - page : fits;
        uint64_t nibbles = fill(shift, n, 1);
        uint64_t word = atomic_load_explicit(at, memory_order_acquire);
        uint64_t came_off, changed;

        do
            changed = next(word, nibbles);
        while (!atomic_compare_exchange_weak_explicit(at, &word, changed, memory_order_acq_rel,
                                                      memory_order_acquire));
        missing += (uint64_t)__builtin_popcountll(missing_bits(word) & nibbles);
        came_off = (word & ~changed) >> 3 & nibbles;
        for (; came_off; came_off &= came_off - 1)
            waited(user, region,
                   page + ((unsigned)__builtin_ctzll(came_off) - shift) / PAGE_TABLE_BITS);
        page += n;
    }
    return missing;
}

/* REMOVED stays: it is terminal, whatever was placed meanwhile (rule 8). */
static uint64_t to_present(uint64_t word, uint64_t nibbles)
{
    uint64_t present = nibbles & ~state_bits(word, PAGE_REMOVED);

    return (word & ~(present * 15) & ~(nibbles * PAGE_WAITED)) | present * PAGE_PRESENT;
}

static uint64_t to_received(uint64_t word, uint64_t nibbles)
{
    uint64_t received = nibbles & state_bits(word, PAGE_REQUESTED);

    return (word & ~(received * PAGE_STATE_MASK)) | received * PAGE_RECEIVED;
}

/* Those of nibbles that somebody has claimed and not placed yet. */
static uint64_t claimed_bits(uint64_t word, uint64_t nibbles)
{
    return nibbles & (state_bits(word, PAGE_REQUESTED) | state_bits(word, PAGE_RECEIVED));
}

static uint64_t to_hole(uint64_t word, uint64_t nibbles)
{
    return word & ~(claimed_bits(word, nibbles) * 15);
}

static uint64_t to_found(uint64_t word, uint64_t nibbles)
{
    uint64_t found = claimed_bits(word, nibbles);

    return (word & ~(found * 15) & ~(nibbles * PAGE_WAITED)) | found * PAGE_FOUND;
}

static uint64_t to_removed(uint64_t word, uint64_t nibbles)
{
    return (word & ~(nibbles * 15)) | nibbles * PAGE_REMOVED;
}

void page_table_finish(PageTable *table, uint32_t region, uint64_t page, uint64_t count,
                       PageWaited waited, void *user)
{
    change(table, region, page, count, to_present, waited, user);
    atomic_fetch_sub_explicit(&table->unresolved, count, memory_order_acq_rel);
}

void page_table_found(PageTable *table, uint32_t region, uint64_t page, uint64_t count,
                      PageWaited waited, void *user)
{
    change(table, region, page, count, to_found, waited, user);
    atomic_fetch_sub_explicit(&table->unresolved, count, memory_order_acq_rel);
}

void page_table_give_back(PageTable *table, uint32_t region, uint64_t page, uint64_t count,
                          PageWaited waited, void *user)
{
    change(table, region, page, count, to_hole, waited, user);
    atomic_fetch_sub_explicit(&table->unresolved, count, memory_order_acq_rel);
}

void page_table_receive(PageTable *table, uint32_t region, uint64_t page, uint64_t count)
{
    change(table, region, page, count, to_received, NULL, NULL);
}

uint64_t page_table_remove(PageTable *table, uint32_t region, uint64_t page, uint64_t count,
                           PageWaited waited, void *user)
{
    return change(table, region, page, count, to_removed, waited, user);
}

uint64_t page_table_same_run(const PageTable *table, uint32_t region, uint64_t page, uint64_t count,
                             bool *ret_removed)
{
    uint64_t end = page + count;
    uint64_t at = page;

    *ret_removed = (page_table_get(table, region, page) & PAGE_STATE_MASK) == PAGE_REMOVED;
    while (at < end) {
        uint64_t word = atomic_load_explicit(word_of(table, region, at), memory_order_acquire);
        uint64_t removed = state_bits(word, PAGE_REMOVED);
        uint64_t other = (*ret_removed ? ~removed & EACH : removed) >> shift_of(at);

        if (other) {
            at += (uint64_t)__builtin_ctzll(other) / PAGE_TABLE_BITS;
            break;
        }
        at = (at / PAGE_TABLE_PAGES_PER_WORD + 1) * PAGE_TABLE_PAGES_PER_WORD;
    }
    return (at < end ? at : end) - page;
}

uint64_t page_table_mark_missing(PageTable *table, uint32_t region, uint64_t page, uint64_t count)
{
    uint64_t end = page + count;
    uint64_t marked = 0;

    while (page < end) {
        _Atomic uint64_t *at = word_of(table, region, page);
        unsigned shift = shift_of(page);
        uint64_t fits = (64 - shift) / PAGE_TABLE_BITS;
        uint64_t n = end - page < fits ? end - page : fits;
        uint64_t mask = fill(shift, n, 1);
        uint64_t word = atomic_load_explicit(at, memory_order_acquire);
        uint64_t holes;

        do /* a nibble that is zero is a HOLE without a mark */
            holes = ~(word | word >> 1 | word >> 2 | word >> 3) & mask;
        while (holes &&
               !atomic_compare_exchange_weak_explicit(at, &word, word | holes * PAGE_MISSING,
                                                      memory_order_acq_rel, memory_order_acquire));
        marked += (uint64_t)__builtin_popcountll(holes);
        page += n;
    }
    return marked;
}
