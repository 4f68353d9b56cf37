/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where our own device may READ pages to where they belong: blocks of the mirror (mirror.h) that are pinned,
 * as far as the daemon's budget goes: without its reserve, and at most half of it for one import.  Pages elsewhere are READ into the channel's own buffer first.
 *
 * The stream's thread pins blocks as it comes to them, and unpins those of which all has come; all data
 * threads look, without a lock.  Only chunks that the client allocated are pinned: pinning allocates, and a
 * page that is there when it is to be placed by COPY would end the import.  Nothing is pinned of memory that can
 * be removed while it arrives: no page lands there (import_place()), and what was given back would be allocated.
 *
 * Unpinning (rules 4 and 8): first nobody finds the block any more, then each of its pages is looked at: one on its way
 * is REQUESTED or RECEIVED, since whoever READs claimed it before he looked here.  Only a block without any
 * is unpinned.  Pages that can be REMOVED on their way never land in place (import_place()).  When a
 * connection goes its lanes go first, when a region goes its data threads say that nothing lands there:
 * then there is nothing left to look for.
 */
#ifndef POSTCOPYD_FAULT_LANDING_H
#define POSTCOPYD_FAULT_LANDING_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "daemon/core/page_table.h"
#include "daemon/core/region.h"
#include "daemon/fault/mirror.h"
#include "daemon/transport/rdma_device.h"

enum {
    /* 4 MiB: blocks begin and end at multiples of it at the latest.  Pinning one takes less than a
     * millisecond, for which the stream's own READs wait. */
    LANDING_BLOCK_CHUNKS = 2,
    LANDING_BLOCKS = 4096, /* at a time: 16 GiB; a device does not have any number of them */
};

/* Chunks of one region that are pinned as one. */
typedef struct LandingBlock {
    uint32_t region;
    uint64_t chunk, count;
    RdmaMemory *memory;
    bool closed;      /* nobody finds it any more */
    uint64_t checked; /* nothing before this page of the region is to come any more */
} LandingBlock;

typedef struct Landing {
    const PageTable *table;
    const Mirror *mirror;
    const RegionSet *regions;
    const _Atomic bool *present;
    _Atomic uint64_t
        *pins[LIMIT_REGIONS]; /* a word a chunk: its lkey, and that there is one; NULL: none */
    uint64_t chunks[LIMIT_REGIONS];
    pthread_mutex_t lock; /* of what follows; never taken on a fault's way */
    RdmaDevice *device;   /* NULL: no connection that has one */
    LandingBlock *blocks;
    unsigned n_blocks;
    uint64_t left[LIMIT_REGIONS]; /* bytes of the file that may be pinned on this connection */
    uint64_t refused_ns;          /* until then nothing is tried */
    bool hinted;                  /* it was said that memory could not be pinned */
    uint32_t next_region;         /* before the gate: up to where a first part was pinned */
    uint64_t next_chunk;
    uint64_t until_ns;       /* and no longer than that */
    _Atomic bool prepared;   /* that is done, on this connection */
    _Atomic uint64_t pinned; /* bytes; for reports */
} Landing;

/* After the mirrors are mapped and the chunks are known; all outlive it.  0 or -ENOMEM.  Control thread. */
int landing_init(Landing *landing, const PageTable *table, const Mirror *mirror,
                 const RegionSet *regions, const _Atomic bool *present);
void landing_deinit(Landing *landing); /* once, or again for nothing; or of one that is all zero */

/* From now on blocks are pinned for this device (which it keeps).  The link. */
void landing_begin(Landing *landing, RdmaDevice *device);

/* Unpins all, and lets go of the device.  The link, when no lane is left. */
void landing_end(Landing *landing);

/* What the stream does: pins what lies around this page, if it can be.  True: it did, which took a moment. */
bool landing_reach(Landing *landing, const char *name, uint32_t region, uint64_t page);

/* Before the gate, so that first faults find it: pins one more block.  False: nothing is left to do. */
bool landing_prepare(Landing *landing, const char *name);

/* Unpins blocks of which all has come. */
void landing_tidy(Landing *landing);

/* A region goes, and nothing lands there any more. */
void landing_forget(Landing *landing, uint32_t region);

/* True if something of this region is pinned, or may be. The stream's thread. */
bool landing_has(Landing *landing, uint32_t region);

/*
 * How many bytes from offset of a region on, at most length, lie in one pinned block, and its key.  Any
 * thread that claimed the pages before.
 */
uint64_t landing_find(const Landing *landing, uint32_t region, uint64_t offset, uint64_t length,
                      uint32_t *ret_lkey);

/* --- the parts that need no device --------------------------------------------------------- */

/* The chunks around this one that can be pinned with it: how many, from *ret_first on.  0: none. */
uint64_t landing_run(const Landing *landing, uint32_t region, uint64_t chunk, uint64_t *ret_first);

/* They are found from now on; or no more, but are not to be pinned again yet; or may be. */
void landing_mark(Landing *landing, uint32_t region, uint64_t chunk, uint64_t count, uint32_t lkey);
void landing_close(Landing *landing, uint32_t region, uint64_t chunk, uint64_t count);
void landing_unmark(Landing *landing, uint32_t region, uint64_t chunk, uint64_t count);

/* True if all of a block has come: it can be unpinned.  Closes it first. */
bool landing_is_over(Landing *landing, LandingBlock *block);

#endif
