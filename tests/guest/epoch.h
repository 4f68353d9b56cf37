/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which host do we run on?  A guest cannot tell that it was migrated, so the two hosts give an
 * I/O port ("marker", an isa-debugcon device's `readback`) different values: that value is a
 * property of the machine, not part of the migrated state.  Each change begins a new epoch.
 */
#ifndef GUEST_EPOCH_H
#define GUEST_EPOCH_H

#include <stdbool.h>
#include <stdint.h>

void epoch_init(uint16_t marker_port);

/*
 * Looks at the marker once a millisecond, or sooner when the caller just met a long stall, which
 * is how a migration begins to show.  Any processor; one of them does the looking.  True for the
 * one that found a new epoch.
 */
bool epoch_poll(uint64_t now, uint64_t stall);

unsigned epoch_now(void);

#endif
