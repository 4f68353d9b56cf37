/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/guest/arena.h"

#include <stddef.h>

#define LARGE_PAGE             UINT64_C(0x200000)
#define LARGE_PAGE_SMALL_PAGES 512
#define FOUR_GIB               (UINT64_C(1) << 32)

/* Firmware uses the top of low memory as scratch space and leaves it dirty. */
#define FIRMWARE_SCRATCH (UINT64_C(16) << 20)

#define TABLE_FLAGS 0x7  /* present, writable, user */
#define LARGE_FLAGS 0x87 /* the same, for a 2 MiB page */

enum { TABLE_ENTRIES = 512 };

extern uint64_t boot_pml4[]; /* entry.S */

typedef struct Tables {
    uint64_t next; /* where the next table goes */
    uint64_t *directories;
    uint64_t n_large;
} Tables;

/* NULL when the room for tables is used up.  The low 4 GiB are mapped one to one. */
static uint64_t *table_new(Tables *tables)
{
    uint64_t *table = (uint64_t *)tables->next;

    if (tables->next >= TABLES_END)
        return NULL;
    tables->next += TABLE_ENTRIES * sizeof *table;
    for (size_t i = 0; i < TABLE_ENTRIES; i++)
        table[i] = 0;
    return table;
}

/* Appends one large page; entries that become present need no TLB flush. */
static void map_large(Tables *tables, uint64_t address)
{
    uint64_t *entry = &tables->directories[tables->n_large / TABLE_ENTRIES];

    if (tables->n_large == TABLE_ENTRIES * TABLE_ENTRIES)
        return;
    if (!*entry) {
        uint64_t *directory = table_new(tables);

        if (!directory)
            return;
        *entry = (uintptr_t)directory | TABLE_FLAGS;
    }
    uint64_t *directory = (uint64_t *)(*entry & ~UINT64_C(0xfff));
    directory[tables->n_large++ % TABLE_ENTRIES] = address | LARGE_FLAGS;
}

static void map_memory(Tables *tables, const PvhMemory *memory)
{
    uint64_t start = memory->address;
    uint64_t end = memory->address + memory->size;

    if (start < ARENA_RAM_START)
        start = ARENA_RAM_START;
    if (end <= FOUR_GIB)
        end -= end > FIRMWARE_SCRATCH ? FIRMWARE_SCRATCH : end;
    start = (start + LARGE_PAGE - 1) & ~(LARGE_PAGE - 1);
    for (; start + LARGE_PAGE <= end; start += LARGE_PAGE)
        map_large(tables, start);
}

uint64_t arena_init(const PvhStartInfo *info)
{
    const PvhMemory *memory = (const PvhMemory *)info->memory_map;
    Tables tables = {.next = TABLES_START};

    tables.directories = table_new(&tables);
    boot_pml4[ARENA_BASE >> 39] = (uintptr_t)tables.directories | TABLE_FLAGS;
    for (uint32_t i = 0; i < info->n_memory_map; i++)
        if (memory[i].type == PVH_MEMORY_RAM)
            map_memory(&tables, &memory[i]);
    return tables.n_large * LARGE_PAGE_SMALL_PAGES;
}
