/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the client says in the page table while QEMU receives memory by itself: atomic words, any
 * thread.  It only touches pages that nobody has asked for (HOLE, MISSING, FOUND): all others are the
 * daemon's.
 */
#ifndef POSTCOPY_QEMU_MARKS_H
#define POSTCOPY_QEMU_MARKS_H

#include <stdint.h>

#include "client/lib/table.h"

/* QEMU placed these pages: HOLE, MISSING and FOUND become PRESENT. */
void marks_present(const Table *table, uint32_t region, uint64_t page, uint64_t count);

/* Something is here that nobody is known to have placed: HOLE and MISSING become FOUND. */
void marks_found(const Table *table, uint32_t region, uint64_t page, uint64_t count);

/* The state of this page, without its mark; REMOVED for one that the region has not. */
PageState marks_state(const Table *table, uint32_t region, uint64_t page);

/* These pages were here and changed at the source since: HOLE becomes MISSING.  How many did. */
uint64_t marks_hot(const Table *table, uint32_t region, uint64_t page, uint64_t count);

#endif
