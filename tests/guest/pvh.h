/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the loader leaves for a PVH kernel (Xen's public/arch-x86/hvm/start_info.h). */
#ifndef GUEST_PVH_H
#define GUEST_PVH_H

#include <stdint.h>

#define PVH_MAGIC      0x336ec578
#define PVH_MEMORY_RAM 1

typedef struct PvhStartInfo {
    uint32_t magic;
    uint32_t version; /* the memory map is there from version 1 on */
    uint32_t flags;
    uint32_t n_modules;
    uint64_t modules;
    uint64_t command_line;
    uint64_t rsdp;
    uint64_t memory_map;
    uint32_t n_memory_map;
    uint32_t reserved;
} PvhStartInfo;

typedef struct PvhMemory {
    uint64_t address;
    uint64_t size;
    uint32_t type;
    uint32_t reserved;
} PvhMemory;

/* NULL if the guest was not entered the PVH way. */
const PvhStartInfo *pvh_info(void);

#endif
