/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A plan as the preload has it, and what QEMU does with the userfaultfd that it gets for it. */
#ifndef TEST_PRELOAD_WORLD_H
#define TEST_PRELOAD_WORLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/qemu/faults.h"
#include "client/qemu/listen.h"
#include "tests/unit/preload_plan.h"

enum { WORLD_SIZE = PLAN_ALL * PLAN_PAGE };

typedef struct World {
    int wake;
    int proxy;
    uint8_t *memory;
    Listen *listen;
    Faults faults;
} World;

/* What world_copy() brings: 'q' in every byte. */
extern uint8_t world_content[4 * PLAN_PAGE];

/* Whether this process may have a userfaultfd at all; else there is nothing to test here. */
bool world_is_allowed(void);

/* A plan that nobody has used so far; world_end() frees it. */
void world_plan(World *world);

/* The same, with QEMU's userfaultfd opened, and its interface chosen. */
void world_open(World *world);

/* Closes the proxy, too. */
void world_end(World *world);

/* As QEMU opens a userfaultfd; whose it is, listen_owns() tells. */
int world_open_native(int flags);

/* As QEMU registers memory; its result is the ioctl()'s. */
int world_register(World *world, void *start, size_t length, uint64_t *ret_ioctls);

/* All of the world's memory, which has to be accepted as planned. */
void world_register_all(World *world);

/* As QEMU places pages; its result is the ioctl()'s. */
int world_copy(World *world, const void *to, size_t length, int64_t *ret_copied);

/* A thread that reads the byte at the address, and returns it. */
void *world_touch(void *address);

/* The fault that QEMU reads from the proxy, within a second; 0: none. */
uint64_t world_read_fault(World *world, bool relaying);

#endif
