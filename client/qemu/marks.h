/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the client says in the page table while QEMU receives memory by itself: atomic words, any
 * thread.  It only touches pages that nobody has asked for (HOLE, MISSING): all others are the daemon's.
 */
#ifndef POSTCOPY_QEMU_MARKS_H
#define POSTCOPY_QEMU_MARKS_H

#include <stdbool.h>
#include <stdint.h>

#include "client/lib/table.h"

/* These pages are here: HOLE and MISSING become PRESENT. */
void marks_present(const Table *table, uint32_t region, uint64_t page, uint64_t count);

/* Whether this page is known to be here, whoever placed it. */
bool marks_is_present(const Table *table, uint32_t region, uint64_t page);

/* These pages were here and changed at the source since: HOLE becomes MISSING.  How many did. */
uint64_t marks_hot(const Table *table, uint32_t region, uint64_t page, uint64_t count);

#endif
