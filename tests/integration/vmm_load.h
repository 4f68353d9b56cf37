/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guest of the tests' VMM: threads that touch and verify all memory, pass after pass.
 *
 * Every thread visits all pages with content in an order of its own, so that the same page is often
 * wanted by several at once.  A quarter of the pages belong to a thread each, which rewrites them in
 * a new generation and finds them so at the next visit; the others only touch them.
 */
#ifndef VMM_LOAD_H
#define VMM_LOAD_H

#include <pthread.h>

#include "tests/integration/vmm_memory.h"

enum { VMM_THREADS = 256 };

typedef struct VmmCounts {
    uint64_t words; /* verified, with content */
    uint64_t bad;
    uint64_t pages;
    uint64_t zero_words; /* verified, of holes */
    uint64_t max_stall_us;
} VmmCounts;

typedef struct VmmLoad VmmLoad;

/*
 * Starts the threads; hole_samples bounds the holes that a thread looks at in a pass (0: all).  The
 * line of every pass is handed to print.  Each thread rests so long after every page.
 */
VmmLoad *vmm_load_start(const VmmMemory *memory, unsigned n_threads, uint64_t hole_samples,
                        bool rewrite, unsigned pause_us, void (*print)(const char *format, ...));

/* The threads' ids in ret_tids[n_threads]. */
void vmm_load_tids(VmmLoad *load, uint32_t *ret_tids);

/* How many bad words they saw so far. */
uint64_t vmm_load_bad(const VmmLoad *load);

/* Ends the threads; how many bad words they saw. */
uint64_t vmm_load_stop(VmmLoad *load);

#endif
