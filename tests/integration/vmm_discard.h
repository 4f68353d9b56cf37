/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Gives memory back as a balloon does: runs of pages of the last region, which the guest's threads
 * leave alone (VmmMemory.kept_pages), in whatever state they are.  What was given back has to read as
 * zero, then keep what is written there; what was not has to have its content.
 */
#ifndef VMM_DISCARD_H
#define VMM_DISCARD_H

#include "tests/integration/vmm_memory.h"

typedef struct VmmDiscard VmmDiscard;

/* What was given back is remembered as long as this lives. One thread. */
VmmDiscard *vmm_discard_new(const VmmMemory *memory, void (*print)(const char *format, ...));

/* Gives n runs back and checks all of the region afterwards.  How many words were wrong. */
uint64_t vmm_discard(VmmDiscard *discard, uint64_t n);

/* Gives n runs back without a look at any page, as if there were nobody to bring one. */
void vmm_discard_blindly(VmmDiscard *discard, uint64_t n);

#endif
