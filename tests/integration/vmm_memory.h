/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The memory of the tests' VMM, and what each word of it has to be.
 *
 * Pages are numbered over all regions.  The first n_filled places of a permutation, which the seed
 * makes, are the pages with content; the places behind are holes.  Both sides compute the same, so
 * nothing but the guest's memory has to travel.
 */
#ifndef VMM_MEMORY_H
#define VMM_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

#include "client/lib/postcopy.h"

enum { VMM_PAGE = 4096, VMM_WORDS = VMM_PAGE / 8, VMM_REGIONS = 64 };

typedef struct VmmShape {
    uint64_t n_pages;
    uint64_t n_filled;
    uint64_t seed;
    unsigned n_regions;
    bool removable;      /* the last region: its pages are given back */
    bool pluggable;      /* the last region: it comes and goes */
    bool absent;         /* and is not there at first */
    const char *backing; /* anonymous, memfd (sealed), unsealed, private, hugetlb, file:PATH */
} VmmShape;

typedef struct VmmMemory {
    VmmShape shape;
    uint64_t region_pages;
    uint64_t kept_pages; /* the guest's threads leave those from here on alone */
    uint64_t run_pages;  /* pages that stay neighbours in the permutation */
    uint64_t factor;
    uint64_t shift;
    struct postcopy_region regions[VMM_REGIONS];
    char ids[VMM_REGIONS][24];
} VmmMemory;

/* Maps it.  False, with the reason on stderr, if it cannot. */
bool vmm_memory_init(VmmMemory *memory, const VmmShape *shape);
void vmm_memory_deinit(VmmMemory *memory);

/* The page at a place of the permutation, below n_pages. */
uint64_t vmm_memory_page(const VmmMemory *memory, uint64_t place);

/* Its words. */
uint64_t *vmm_memory_words(const VmmMemory *memory, uint64_t page);

/* A factor that makes i -> (i * factor + shift) % n a permutation of 0 … n-1. */
uint64_t vmm_permutation_factor(uint64_t n, uint64_t seed);
uint64_t vmm_permute(uint64_t i, uint64_t n, uint64_t factor, uint64_t shift);

uint64_t vmm_mix(uint64_t x);

/* What word number word of a page is in its generation; the source fills generation 0. */
static inline uint64_t vmm_word(uint64_t key, unsigned word)
{
    uint64_t x = (key + word) * UINT64_C(0x9e3779b97f4a7c15);

    return x ^ x >> 29;
}

static inline uint64_t vmm_key(const VmmMemory *memory, uint64_t page, uint32_t generation)
{
    return vmm_mix(memory->shape.seed ^ vmm_mix(page << 20 ^ generation));
}

void vmm_memory_write(const VmmMemory *memory, uint64_t page, uint32_t generation);

/* Writes all pages that have content, and zeroes to so many of the others. */
void vmm_memory_fill(const VmmMemory *memory, uint64_t n_zeroed);

#endif
