/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/source/scan.h"

typedef struct Scan {
    const Region *from;
    uint64_t at;     /* pages before it were looked at */
    uint64_t zeroes; /* of those the last ones, from here on, are zero */
    uint64_t most;
    ScanSpan *span;
} Scan;

/* The next page has content.  False: the span has no room for the zeroes before it, and ends. */
static bool add_content(Scan *scan)
{
    ScanSpan *span = scan->span;

    if (span->count == 0) {
        span->page = scan->at;
    } else if (scan->zeroes < scan->at) {
        if (span->n == PEER_MAP_EXTENTS)
            return false;
        span->zeroes[span->n++] =
            (PeerExtent){.page = scan->zeroes, .count = scan->at - scan->zeroes};
    }
    scan->zeroes = ++scan->at;
    span->count = scan->at - span->page;
    return true;
}

/* The next page is zero.  False: so many are that they end the span. */
static bool add_zero(Scan *scan)
{
    scan->at++;
    return scan->span->count == 0 ||
           (scan->at - scan->zeroes) << scan->from->page_shift < SCAN_HOLE;
}

/* So many pages that were read.  False: the span is complete. */
static bool add_pages(Scan *scan, const uint8_t *data, uint64_t count)
{
    uint64_t size = scan->from->page_size;
    bool going = true;

    for (uint64_t i = 0; i < count && going; i++)
        going = memory_is_zero(data + i * size, size) ? add_zero(scan) : add_content(scan);
    return going;
}

/* How many pages to read next; 0: the span may not be longer, or the region is not. */
static uint64_t piece_pages(const Scan *scan)
{
    uint64_t pages = SCAN_PIECE >> scan->from->page_shift;
    uint64_t left = region_pages(scan->from) - scan->at;
    uint64_t room = scan->span->count ? scan->span->page + scan->most - scan->at : scan->most;

    pages = pages < left ? pages : left;
    return pages < room ? pages : room;
}

int scan_span(const Memory *memory, uint32_t region, uint64_t page, uint64_t most, void *scratch,
              ScanSpan *ret_span)
{
    Scan scan = {
        .from = &memory->regions.regions[region],
        .at = page,
        .zeroes = page,
        .most = most,
        .span = ret_span,
    };
    uint64_t bytes = 0;
    bool going = true;

    ret_span->page = page;
    ret_span->count = 0;
    ret_span->n = 0;
    while (going && bytes < SCAN_MOST) {
        uint64_t pages;
        int error = 0;

        if (ret_span->count == 0)
            error = memory_next_data(memory, region, scan.at, &scan.at);
        if (error)
            return error;
        pages = piece_pages(&scan);
        if (pages == 0)
            break;
        error = memory_read(memory, region, scan.at, (uint32_t)pages, scratch);
        /* What is before a page that cannot be read is told by itself. */
        if (error && ret_span->count == 0)
            return error;
        going = !error && add_pages(&scan, scratch, pages);
        bytes += pages << scan.from->page_shift;
    }
    ret_span->next = scan.at;
    return 0;
}
