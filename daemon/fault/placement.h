/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Puts pages where they belong and wakes who waits: the last step of a fault.
 * Resolver and stream threads; no allocation, no lock.
 */
#ifndef POSTCOPYD_FAULT_PLACEMENT_H
#define POSTCOPYD_FAULT_PLACEMENT_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/fault/import.h"

/* A run of claimed pages and what they hold. */
typedef struct Placement {
    uint32_t region;
    uint64_t page, count;
    FetchContent content;
    const void *data; /* only of FETCH_DATA */
    bool spoiled; /* FETCH_ZERO: something may have been received there before (Fetch.spoiled) */
    bool demand;  /* somebody waits for sure: the placing ioctl itself wakes */
    int by;       /* the resolver whose thread this is; PLACEMENT_STREAM */
} Placement;

enum { PLACEMENT_STREAM = -2 };

/*
 * Places the pages and moves each to PRESENT.  Memory that its client allocated ahead is placed by
 * CONTINUE, all else by COPY or ZEROPAGE.  What cannot be placed halts the import (integrity) or is
 * left to the client's death; in assist mode it is given back (assist.h), for nothing is lost by it.
 */
void placement_put(Import *import, const Placement *placement);

/* Rule 6: a fault came for a page that is PRESENT; rule 8: or REMOVED. */
void placement_again(Import *import, uint32_t region, uint64_t page, bool minor);

/* Rule 11: the source cannot read this page and it has been retried: poisons it, loudly. */
void placement_poison(Import *import, uint32_t region, uint64_t page, uint64_t count, int by);

#endif
