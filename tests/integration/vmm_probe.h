/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vCPU threads whose faults can be counted: each touches pages of its own, one after the other, and
 * nobody else does.  Where a fault takes no other page along and nothing streams, a page is a fault.
 */
#ifndef VMM_PROBE_H
#define VMM_PROBE_H

#include "tests/integration/vmm_memory.h"

typedef struct VmmProbe {
    const VmmMemory *memory;
    unsigned n_threads;
    uint64_t step;    /* thread i touches (i + 1) * step pages with content */
    const char *cpus; /* "0,1": thread i is kept to the CPU i % 2 of them; "": anywhere */
    void (*tell)(void *user, const uint32_t *tids, unsigned n); /* before they touch anything */
    void *user;
    void (*print)(const char *format, ...); /* "PROBED vcpu=… tid=… pages=… bad=…" each */
} VmmProbe;

/* Runs the threads to their end.  False if there are not enough pages, or no such CPU. */
bool vmm_probe(const VmmProbe *probe);

#endif
