/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where things lie in the guest, for C and assembly alike.
 *
 *   0 .. 1 MiB      firmware, PVH start info, the processors' trampoline
 *   1 MiB ..        this program, its stacks and counters
 *   16 .. 64 MiB    page tables of the arena
 *   64 MiB ..       all RAM from here on is the arena, seen as one range at ARENA_BASE
 */
#ifndef GUEST_LAYOUT_H
#define GUEST_LAYOUT_H

#define MAX_CPUS 16

#define SELECTOR_CODE64      0x08
#define SELECTOR_DATA        0x10
#define SELECTOR_USER_CODE64 0x1b
#define SELECTOR_USER_DATA   0x23
#define SELECTOR_CODE32      0x28

#define AP_TRAMPOLINE 0x8000
#define STACK_SIZE    0x8000

#define TABLES_START    0x1000000
#define TABLES_END      0x4000000
#define ARENA_RAM_START 0x4000000
#define ARENA_BASE      0x8000000000 /* the second entry of the top level table */

#endif
