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

/*
 * Places count claimed pages from page on, data NULL for zeroes, and moves each to PRESENT.
 * demand: somebody waits for sure, so the placing ioctl itself wakes.
 * What cannot be placed halts the import (integrity) or is left to the client's death.
 */
void placement_put(Import *import, uint32_t region, uint64_t page, uint64_t count, const void *data,
                   bool demand);

/* Rule 6: a fault came for a page that is PRESENT; rule 8: or REMOVED. */
void placement_again(Import *import, uint32_t region, uint64_t page, bool minor);

/* Rule 11: the source cannot read this page and it has been retried: poisons it, loudly. */
void placement_poison(Import *import, uint32_t region, uint64_t page, uint64_t count);

#endif
