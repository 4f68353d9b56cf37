/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The memory of a process that plays a QEMU in assist mode: two regions of private memory, their uffds, a
 * guest that reads them, and QEMU itself, which places pages too and marks them.
 *
 * A page's every word says which page it is (memory_word()), so the guest knows a wrong one.
 */
#ifndef POSTCOPYD_TESTS_ASSISTED_MEMORY_H
#define POSTCOPYD_TESTS_ASSISTED_MEMORY_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "protocol/client.h"
#include "protocol/pagetable.h"

enum { MEMORY_REGIONS = 2, MEMORY_PAGE = 4096, MEMORY_THREADS = 32 };

typedef struct AssistedMemory {
    uint64_t length[MEMORY_REGIONS];
    char *memory[MEMORY_REGIONS];
    uint32_t n_shards;
    ClientShard shards[LIMIT_SHARDS];
    int uffds[LIMIT_SHARDS];
    PageTableHeader *table; /* NULL: no PLAN yet */
    _Atomic uint64_t *words;
    pthread_t relay;
    _Atomic bool relaying;
    _Atomic uint64_t relayed; /* faults that it read for QEMU, which placed their pages */
} AssistedMemory;

/* What every word of a page holds. */
static inline uint64_t memory_word(uint32_t region, uint64_t page)
{
    return (uint64_t)(region + 1) << 48 | UINT64_C(0xa5) << 40 | page;
}

/* Exits on failure, as all that follows. */
void memory_init(AssistedMemory *memory, uint64_t length);

/* Takes the table. False: it is not as large as told. */
bool memory_take_table(AssistedMemory *memory, int fd, uint64_t size);

/* One with these features, by device (or -1: by the system call); the caller's. */
int memory_new_uffd(int device, uint64_t features);

/* A uffd, made by device (or -1), for each shard of the plan; MISSING. */
void memory_register(AssistedMemory *memory, int device);
void memory_unregister(AssistedMemory *memory);

/* Came before: written, and marked PRESENT. Before memory_register(). */
void memory_write(AssistedMemory *memory, uint64_t first, uint64_t count);

/* The hot set: marked MISSING. */
void memory_mark_hot(AssistedMemory *memory, uint64_t first, uint64_t count);

/* QEMU places pages of region 0 that came by its stream. How many were there already. */
uint64_t memory_place(AssistedMemory *memory, uint64_t first, uint64_t count);

/* How many pages of region 0 are in each state. */
void memory_count(const AssistedMemory *memory, uint64_t ret_counts[8]);

/* The client's thread: faults go to QEMU from now on, which places their pages; or no more. */
void memory_relay(AssistedMemory *memory, bool on);

/* The guest: so many threads read these pages between them; how many words were wrong. */
typedef struct GuestTouch {
    AssistedMemory *memory;
    uint32_t region;
    uint64_t first, count;
    unsigned threads;
    bool zero; /* that is what they should read */
    uint64_t bad, most_us;
} GuestTouch;

void memory_touch(GuestTouch *touch);

#endif
