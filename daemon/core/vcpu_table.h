/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The vCPU threads of a VM and how long the faults of each took.
 *
 * Immutable but for its histograms, and published by an atomic pointer: looking a thread up takes no
 * lock, also while a client names other threads.  Tables replaced live on in a chain until the last
 * reader is gone.
 */
#ifndef POSTCOPYD_CORE_VCPU_TABLE_H
#define POSTCOPYD_CORE_VCPU_TABLE_H

#include <stdint.h>

#include "daemon/core/histogram.h"

typedef struct VcpuTable VcpuTable;
struct VcpuTable {
    VcpuTable *older;
    uint32_t n;
    uint32_t n_slots;   /* a power of two */
    uint32_t *tids;     /* by vCPU */
    uint64_t *slots;    /* tid << 32 | vCPU + 1, open addressing */
    Histogram *latency; /* by vCPU, and one more for all other threads */
};

/* A table of n (0 to LIMIT_VCPUS) thread ids; takes older into its chain. NULL: no memory, and older
 * stays the caller's. */
VcpuTable *vcpu_table_new(const uint32_t *tids, uint32_t n, VcpuTable *older);

/* Frees the whole chain. NULL is allowed. */
void vcpu_table_free(VcpuTable *table);

/* The vCPU of a thread id (of the client's pid namespace), n if it is none. Any thread. */
uint32_t vcpu_table_find(const VcpuTable *table, uint32_t tid);

#endif
