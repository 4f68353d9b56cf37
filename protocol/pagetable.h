/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The page table of an import: a memfd that the daemon creates, seals against resizing and shares
 * with the client, so that a restarted daemon finds in it all it needs to go on.
 *
 * One header page, then 4 bits a page for every region, 16 pages in a 64-bit word, each region
 * starting at a word.  All zero is its initial state, so an idle table takes no memory.
 * Words are only changed by atomic operations, by the daemon's resolvers and stream, and, with no
 * daemon alive, by the client (REMOVED); in assist mode by the client at any time (HOLE, MISSING, FOUND).
 *
 * Behind them, a bit for every chunk of 2 MiB: its memory was allocated when the client armed, so its
 * pages are placed by CONTINUE.  The daemon sets the bits it would like before ARM, the client clears
 * those it could not allocate; from ARMED on they are constant.
 *
 * States (low three bits), besides the WAITED mark (the high bit):
 *
 *   HOLE      -> REQUESTED   a fault came: asked of the source while its map is incomplete, zero after
 *   HOLE      -> MISSING     the source's map says the page has content
 *   MISSING   -> REQUESTED   whoever makes this move, and no one else, fetches the page
 *   REQUESTED -> PRESENT     its placing ioctl succeeded (COPY, ZEROPAGE)
 *   REQUESTED -> RECEIVED    content is final in the second mapping (CONTINUE placement only)
 *   RECEIVED  -> PRESENT     CONTINUE succeeded
 *   REQUESTED -> MISSING     only at adoption, when the daemon that asked is proven dead
 *   any       -> REMOVED     the guest gave the page back; terminal, reads as zero
 *
 * In assist mode QEMU places pages too, and has to hear of every page that was there before it was
 * placed by either: that is how it finds pages that are stale.  There, too:
 *
 *   REQUESTED -> RECEIVED    the daemon is about to place it: who finds the page there between now and
 *                            the next move cannot tell whose it is; before and after he can
 *   REQUESTED, RECEIVED -> HOLE   it could not be read or placed; QEMU brings it, or a later fault asks again
 *   RECEIVED  -> FOUND       something was there already when the daemon came to place it
 *   HOLE, MISSING -> FOUND   something was there when QEMU listened; by the client
 *   FOUND     -> REQUESTED   it faults after all
 *   HOLE, MISSING, FOUND -> PRESENT   QEMU placed it; by the client
 *
 * WAITED may be set on REQUESTED and RECEIVED by whoever sees a fault on such a page; the one who
 * moves it on gets the mark with the same exchange, and wakes.
 */
#ifndef POSTCOPYD_PROTOCOL_PAGETABLE_H
#define POSTCOPYD_PROTOCOL_PAGETABLE_H

#include <stdint.h>

#include "protocol/limits.h"

typedef enum PageState {
    PAGE_HOLE = 0,
    PAGE_MISSING = 1,
    PAGE_REQUESTED = 2,
    PAGE_RECEIVED = 3,
    PAGE_PRESENT = 4,
    PAGE_REMOVED = 5,
    PAGE_FOUND = 6, /* something is there that neither daemon nor QEMU is known to have placed */
} PageState;

#define PAGE_STATE_MASK UINT64_C(7)
#define PAGE_WAITED     UINT64_C(8)

enum {
    PAGE_TABLE_BITS = 4,
    PAGE_TABLE_PAGES_PER_WORD = 64 / PAGE_TABLE_BITS,
    PAGE_TABLE_HEADER_SIZE = 32768,
    PAGE_TABLE_BUSY = 16,
    PAGE_TABLE_VCPUS = 2048,
    PAGE_TABLE_VERSION = 4,
    PAGE_TABLE_CHUNK_SHIFT = 21,
};

#define PAGE_TABLE_MAGIC UINT64_C(0x314c425459504350) /* "PCPYTBL1" */

typedef struct PageTableRegion {
    uint64_t length;           /* bytes */
    uint64_t page_size;        /* bytes */
    uint64_t first_word;       /* counted from the end of the header */
    uint64_t first_chunk_word; /* likewise; of its bits of chunks */
    char id[LIMIT_REGION_ID + 1];
    uint64_t guest_address;
} PageTableRegion;

/* PageTableHeader.progress */
#define PAGE_TABLE_ARMED        UINT32_C(1) /* the client registered its memory */
#define PAGE_TABLE_GATE_OPEN    UINT32_C(2) /* the source is sealed: its memory may be read */
#define PAGE_TABLE_MAP_COMPLETE UINT32_C(4) /* every HOLE is known to be zero at the source */
#define PAGE_TABLE_STREAMING    UINT32_C(8) /* the destination runs: the stream may go on */
/* A management layer lets the guest run by itself: undone before the gate, its process has to end. */
#define PAGE_TABLE_MANAGED UINT32_C(16)
/* What whoever drove the migration wanted, or the source's configuration: at most one of the two. */
#define PAGE_TABLE_TCP  UINT32_C(32)
#define PAGE_TABLE_RDMA UINT32_C(64)

typedef struct PageTableHeader {
    uint64_t magic;
    uint32_t version;
    uint32_t n_regions;
    uint64_t n_words;      /* of pages' states and of chunks' bits together */
    uint32_t progress;     /* PAGE_TABLE_*, set by atomic or */
    uint32_t generation;   /* how often a daemon took this import on, the first time included */
    uint64_t seal;         /* of the source's export, 0 before the gate opened */
    uint64_t holder_pid;   /* of the daemon that serves it, or served it last */
    uint64_t holder_start; /* its start time (field 22 of /proc/PID/stat) */
    uint64_t populated_pages[LIMIT_REGIONS]; /* so far as the map is known */
    uint8_t token[LIMIT_TOKEN];              /* opens the export */
    char source[LIMIT_ADDRESS + 1];          /* HOST:PORT of the source's daemon */
    PageTableRegion regions[LIMIT_REGIONS];
    uint64_t removed[LIMIT_REGIONS / 64]; /* a bit a region that was removed whole: its pages are
                                             REMOVED, or HOLEs that count as such */
    /*
     * Assist mode, where QEMU's own post-copy goes on whatever becomes of the daemon (rule 9).  Each
     * word has one side that writes it; all are atomic.
     */
    uint32_t serving;  /* the daemon: it reads faults and resolves them */
    uint32_t relaying; /* the client: it reads the faults itself, for QEMU; the daemon keeps off */
    uint64_t busy_since[PAGE_TABLE_BUSY]; /* the daemon, a resolver each, CLOCK_MONOTONIC in ns: all
                                             faults that it read before then are resolved; set before it
                                             reads one, 0 while it has none */
    uint64_t reads
        [PAGE_TABLE_BUSY]; /* the daemon, a resolver each: how often it read faults; moves on as
                                        long as it does, however many there are */
    uint64_t
        ahead_ns; /* the daemon: when it last got on with bringing memory ahead of QEMU's own stream,
                          CLOCK_MONOTONIC, so that the client holds that back; 0: it does not bring any */
    /* The VM's vCPU threads as the daemon knows them: who drove the migration may have told them, and is gone when
     * another daemon takes over.  0: not known, or more than there is room for. */
    uint32_t n_vcpus;
    uint32_t vcpus[PAGE_TABLE_VCPUS];
} PageTableHeader;

_Static_assert(sizeof(PageTableHeader) <= PAGE_TABLE_HEADER_SIZE, "the header outgrew its pages");

/* Words that a region takes in the table. */
static inline uint64_t page_table_region_words(uint64_t length, uint64_t page_size)
{
    return (length / page_size + PAGE_TABLE_PAGES_PER_WORD - 1) / PAGE_TABLE_PAGES_PER_WORD;
}

/* Words of its chunks' bits. */
static inline uint64_t page_table_chunk_words(uint64_t length)
{
    return ((length - 1) >> PAGE_TABLE_CHUNK_SHIFT) / 64 + 1;
}

/* True if the client may not let go of a page in this state: its content is still elsewhere. */
static inline bool page_state_is_unresolved(uint64_t nibble)
{
    uint64_t state = nibble & PAGE_STATE_MASK;

    return state == PAGE_MISSING || state == PAGE_REQUESTED || state == PAGE_RECEIVED;
}

#endif
