/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * All RAM above 64 MiB as one range of pages at ARENA_BASE, whatever holes lie between: the parts
 * below and above 4 GiB meet there without a seam.  At most 512 GiB.
 */
#ifndef GUEST_ARENA_H
#define GUEST_ARENA_H

#include <stdint.h>

#include "tests/guest/layout.h"
#include "tests/guest/pvh.h"

enum { PAGE_WORDS = 512 };

/* Maps it; called once, before other processors run.  Returns its size in pages. */
uint64_t arena_init(const PvhStartInfo *info);

static inline uint64_t *arena_page(uint64_t page)
{
    return (uint64_t *)ARENA_BASE + page * PAGE_WORDS;
}

#endif
