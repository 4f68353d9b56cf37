/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * For stress tests: a source and a destination in this process, each a VMM with libpostcopy and the
 * daemon's control thread behind it, over loopback.  Memory has one region; every filled page's words
 * tell their place, and each read of a page at the source is counted.
 */
#ifndef STRESS_WORLD_H
#define STRESS_WORLD_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "client/lib/postcopy.h"
#include "daemon/control/control.h"

enum { WORLD_PAGE = 4096, WORLD_WORDS = WORLD_PAGE / 8, WORLD_CALL_MS = 60000 };

typedef struct WorldShape {
    bool shared; /* a memfd; else anonymous */
    bool sealed; /* and sealed, so that its pages are placed by CONTINUE */
    uint64_t n_pages;
    uint64_t stride; /* every stride-th page is filled */
    unsigned resolvers, shards, bulk_channels;
    ImportDispatch dispatch;
    uint64_t around;
    unsigned stream_delay_ms; /* 0: a minute */
    unsigned n_threads;       /* of the guest, registered as vCPUs by world_vcpus() */
} WorldShape;

typedef struct WorldSide {
    Settings *settings;
    Control *control;
    pthread_t thread;
    struct postcopy_region region;
    postcopy *pc;
} WorldSide;

typedef struct World {
    WorldShape shape;
    char folder[64];
    WorldSide source, destination;
    uint16_t *reads; /* atomic; of each page at the source */
} World;

/* Armed and sealed: the destination's memory may be touched.  Fails the test if it cannot be. */
World *world_new(const WorldShape *shape);

/* The stream may go. */
void world_stream(World *world);

/* Waits until all memory is at the destination; both sides are then free to end. */
void world_complete(World *world);

void world_free(World *world);

static inline bool world_is_filled(const World *world, uint64_t page)
{
    return page % world->shape.stride == 0;
}

static inline const uint64_t *world_words(const World *world, uint64_t page)
{
    return (const uint64_t *)((const char *)world->destination.region.address + page * WORLD_PAGE);
}

/* What a word of a filled page is; never 0. */
static inline uint64_t world_word(uint64_t page, unsigned word)
{
    return (page * WORLD_WORDS + word + 1) * UINT64_C(0x9e3779b97f4a7c15) | 1;
}

/* How often the source read that page. */
static inline unsigned world_reads(const World *world, uint64_t page)
{
    return __atomic_load_n(&world->reads[page], __ATOMIC_RELAXED);
}

#endif
