/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The tests' VMM as a benchmark's guest: threads that touch each page once and time it. */
#ifndef VMM_TOUCH_H
#define VMM_TOUCH_H

#include "tests/bench/touch.h"
#include "tests/integration/vmm_memory.h"

/*
 * Reads "threads=N,first=N,pages=N,think=US,cpu=N" (any of them, in any order; the default is one
 * thread, all filled pages, no pause, any CPU) and sets the plan up to touch these pages of a random
 * order of all filled ones.  NULL, or what is wrong.
 */
const char *vmm_touch_plan(const VmmMemory *memory, char *words, TouchPlan *ret_plan);

#endif
