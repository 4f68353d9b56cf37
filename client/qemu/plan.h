/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A PLAN of the daemon, checked and made ready: which memory our own userfaultfds are to have, those
 * userfaultfds, and the page table.
 *
 * Made by the assist thread before QEMU needs it.  From then on it is constant, but for what is said to
 * be atomic and the table's words.
 */
#ifndef POSTCOPY_QEMU_PLAN_H
#define POSTCOPY_QEMU_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "client/lib/mapping.h"
#include "client/lib/reason.h"
#include "client/lib/region.h"
#include "client/lib/table.h"
#include "protocol/client.h"

/* A shard, by its place in memory. */
typedef struct Segment {
    uint64_t start;
    uint64_t end;
    uint32_t range;
    int uffd;        /* one of Plan.uffds */
    bool registered; /* atomic: its faults are this uffd's */
} Segment;

typedef struct Plan {
    Regions ranges; /* in the table's order; only address, length and page_size are set */
    MappedFile files[LIMIT_REGIONS];
    uint32_t n_segments;
    Segment segments[LIMIT_SHARDS]; /* by address */
    int uffds[LIMIT_SHARDS];        /* in the order of PLAN */
    Table table;
} Plan;

/*
 * Makes a plan of a PLAN message; the table's fd becomes the plan's, also on failure, device_fd (-1:
 * none) stays the caller's.  NULL if it asks for anything but memory that this process has mapped.
 */
Plan *plan_new(const ClientMessage *message, int table_fd, int device_fd, Reason *ret_reason);

/* Closes the uffds and unmaps the table.  NULL is fine. */
void plan_free(Plan *plan);

/*
 * The segment that an address lies in, and how many of the next length bytes do as well; or NULL, and
 * how many do not lie in any.
 */
Segment *plan_find(Plan *plan, uint64_t address, uint64_t length, uint64_t *ret_length);

#endif
