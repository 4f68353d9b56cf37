/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Memory that knows what it should hold, and workers that look at it without end.
 *
 * The arena, from its start: filled pages; the generation of each of them; memory never written.
 * Each worker owns a share of the first and the last.  A pass visits every page of the share
 * exactly once: the first touch is timed, then every word is verified, and every eighth page
 * visited gets a new generation.  A new epoch ends the pass at hand and begins pass 0, so that
 * pass 0 of an epoch times the first touch of every filled page on that host.
 */
#ifndef GUEST_WORKLOAD_H
#define GUEST_WORKLOAD_H

#include "tests/guest/args.h"

/* Lays out the arena.  False, with a FATAL record, if it is too small. */
bool workload_init(const Args *args, uint64_t arena_pages);

/* What a worker does; any number up to args->workers at once.  Does not return. */
_Noreturn void workload_run(unsigned worker);

#endif
