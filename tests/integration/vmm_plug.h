/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Memory that is plugged and unplugged while a destination's guest runs: the last region, which the
 * guest's threads leave alone (VmmShape.pluggable).  What is plugged in for the first time has the
 * source's content, afterwards it is fresh memory.
 */
#ifndef VMM_PLUG_H
#define VMM_PLUG_H

#include "tests/integration/vmm_memory.h"

typedef struct VmmPlug VmmPlug;

VmmPlug *vmm_plug_new(const VmmMemory *memory, postcopy *pc,
                      void (*print)(const char *format, ...));
void vmm_plug_free(VmmPlug *plug);

/* 0, or what libpostcopy said. */
int vmm_plug_in(VmmPlug *plug);
int vmm_plug_out(VmmPlug *plug);

/* Checks every word of it, while it is plugged in, and writes to it.  How many were wrong. */
uint64_t vmm_plug_check(VmmPlug *plug);

/*
 * n_threads share out all pages with content of the other regions and touch each once; if churn, another
 * one plugs in and out meanwhile, and touches what it plugged in.  Prints
 *   FAULTED pages=… us=… per_second=… changes=… bad=…
 * with what all threads touched together in a second, the last one's pages apart, and how often a region
 * came or went.  How many words were wrong.
 */
uint64_t vmm_plug_run(VmmPlug *plug, unsigned n_threads, bool churn);

#endif
