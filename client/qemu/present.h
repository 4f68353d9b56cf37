/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Tells the page table, once QEMU listens, which pages were there before: FOUND.  The daemon serves
 * meanwhile; what it has asked for is left alone.
 * The assist thread's, in steps, so that faults are not kept waiting meanwhile.
 */
#ifndef POSTCOPY_QEMU_PRESENT_H
#define POSTCOPY_QEMU_PRESENT_H

#include "client/qemu/listen.h"

typedef struct Present {
    uint32_t range;
    uint64_t page;
    uint64_t found; /* pages so far */
} Present;

/* Goes on by some thousand pages.  True once all have been looked at. */
bool present_step(Present *present, Listen *listen);

#endif
