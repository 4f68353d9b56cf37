/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A PLAN message over memory of the test's own, and its page table. */
#ifndef TEST_PRELOAD_PLAN_H
#define TEST_PRELOAD_PLAN_H

#include "client/qemu/plan.h"

enum {
    PLAN_PAGE = 4096,
    PLAN_PAGES = 64, /* of each range */
    PLAN_RANGES = 2,
    PLAN_SHARDS = 3, /* two of range 0, one of range 1 */
    PLAN_GAP = 16,   /* pages around and between the ranges */
    PLAN_ALL = PLAN_RANGES * PLAN_PAGES + (PLAN_RANGES + 1) * PLAN_GAP,
};

/* A table that fits the message's ranges, sealed or not; its fd, the caller's. */
int plan_make_table(const ClientMessage *message, bool sealed);

/* A message that plans two ranges of PLAN_ALL pages of memory from here on, with table_size set. */
void plan_make_message(ClientMessage *ret_message, const void *memory);

/* The first byte of a range, as plan_make_message() lays them out. */
uint8_t *plan_range(void *memory, unsigned range);

/* A page's state in the plan's table; setting it changes its word alone. */
void plan_set_state(const Plan *plan, unsigned range, unsigned page, PageState state);
PageState plan_state(const Plan *plan, unsigned range, unsigned page);

#endif
