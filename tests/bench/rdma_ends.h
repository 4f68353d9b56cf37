/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Two ends of an RDMA connection in one process, between two addresses of this host that a device has, and
 * the least that fetches a page: a READ, looked for until it is complete.
 *
 * Whatever fails ends the program with one line.  One thread.
 */
#ifndef BENCH_RDMA_ENDS_H
#define BENCH_RDMA_ENDS_H

#include <stddef.h>
#include <stdint.h>

#include "daemon/transport/rdma_pair.h"

typedef struct RdmaEnd {
    RdmaDevice *device;
    RdmaPair *pair;
    RdmaMemory *memory;
    uint8_t *pages;
} RdmaEnd;

typedef struct RdmaEnds {
    RdmaEnd near, far;
} RdmaEnds;

/* READs land in to[length], mapped and populated, which is the caller's; the far end has as much of its own. */
void rdma_ends_init(RdmaEnds *ends, const char *near_address, const char *far_address, void *to,
                    size_t length);

/* READs a page to its own place in to[]; offset in bytes, of a whole page. */
void rdma_ends_read(const RdmaEnds *ends, uint64_t offset);

#endif
