/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QEMU's UFFDIO_COPY and UFFDIO_ZEROPAGE on memory that the daemon places pages in as well: a page that
 * it placed is a success.  Any other that is there already is the error that it is without us: QEMU has
 * no other way to find that a page is stale.  Any thread.
 */
#ifndef POSTCOPY_QEMU_PLACE_H
#define POSTCOPY_QEMU_PLACE_H

#include <stdbool.h>
#include <stdint.h>

#include "client/qemu/plan.h"

typedef struct Placing {
    bool zero;       /* ZEROPAGE, and no source */
    uint64_t to;     /* address */
    uint64_t from;   /* address */
    uint64_t length; /* bytes */
    uint64_t mode;
} Placing;

/* Atomic. */
typedef struct PlaceCounts {
    uint64_t placed; /* pages */
    uint64_t there;  /* pages that the daemon had placed before */
    bool passed_on;  /* a fault of the plan's memory was given to QEMU; set before it is */
    bool abandoned;  /* the daemon did not finish placing a page */
} PlaceCounts;

/*
 * Places the first length bytes of a Placing beyond *done, which lie in this segment, and marks their
 * pages.  *done moves on by what is there now.  0 or negative errno.
 */
int place(const Plan *plan, const Segment *segment, const Placing *placing, uint64_t length,
          uint64_t *done, PlaceCounts *counts);

#endif
