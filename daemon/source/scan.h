/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Looks for memory that is worth being read by the destination itself: content, with what of it is zero.
 *
 * The memory is read for it, in large pieces: a page of zeroes costs nothing on the network then, and nobody
 * pins what has no content.  Holes and zeroes are told apart no further.  Any thread; it takes some 10 ms.
 */
#ifndef POSTCOPYD_SOURCE_SCAN_H
#define POSTCOPYD_SOURCE_SCAN_H

#include "daemon/source/memory.h"

enum {
    SCAN_PIECE = 2 << 20, /* bytes read at once */
    SCAN_HOLE = 2 << 20,  /* bytes of zeroes that end a span; fewer are in it, and listed */
    SCAN_MOST = 64 << 20, /* bytes read at most, in all */
};

typedef struct ScanSpan {
    uint64_t page;  /* the first and */
    uint64_t count; /* the last one of so many have content; 0: there is none before .next */
    uint64_t next;  /* all between are zero, as are those from where it began up to .page */
    uint32_t n;
    PeerExtent *zeroes; /* [PEER_MAP_EXTENTS], the caller's: in the span, ascending, apart */
} ScanSpan;

/*
 * From a page on, which must lie in a region of shared memory: the first span, of `most` pages (not 0) at most.
 * scratch: SCAN_PIECE bytes, for whole words.  0 or -EIO: a page at the beginning cannot be read, or the
 * file is shorter than the region.
 */
int scan_span(const Memory *memory, uint32_t region, uint64_t page, uint64_t most, void *scratch,
              ScanSpan *ret_span);

#endif
