/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the destination of one session may read by itself: spans of memory, each pinned for a device and
 * told with its key, until the destination is done with it or the session ends.
 *
 * Shared memory only (rule 11), mapped for reading when its first span is made.  Rule 13: nobody but the kernel
 * and the device touches the mapping, so that a client which truncates its memfd raises no signal here.
 *
 * Any thread, one at a time inside; it waits for another one's pinning, so the control thread keeps away.
 */
#ifndef POSTCOPYD_SOURCE_SPANS_H
#define POSTCOPYD_SOURCE_SPANS_H

#include "daemon/source/scan.h"

enum {
    SPANS_MOST = 4096, /* at once, however small they are */
};

/* What pins: a device, or what a test has for one. */
typedef struct SpanPins {
    void *owner;
    /* Bytes that may still be pinned. */
    uint64_t (*room)(void *owner);
    /* Whole pages.  NULL with *ret_error: -EDQUOT, -ENOMEM: not now; anything else: not this memory. */
    void *(*pin)(void *owner, void *memory, size_t length, uint32_t *ret_rkey, int *ret_error);
    void (*unpin)(void *owner, void *pinned, size_t length);
} SpanPins;

typedef struct Spans Spans;

/* memory must outlive its spans.  NULL: no memory. */
Spans *spans_new(const Memory *memory, const SpanPins *pins);

/* Unpins and unmaps all; nothing is found any more. */
void spans_end(Spans *spans);

/* Ends them first, unless that is done.  NULL is fine. */
void spans_free(Spans *spans);

/*
 * The next span of a region from a page on, which must lie in it: region, state, next, span and zeroes of
 * a KEYS; its seal is the caller's to fill in.  Reads and pins 64 MiB at most.  scratch: SCAN_PIECE bytes.
 * 0; -EPROTO: some of it is in a span that was told and not retired, so that nobody has a reason to ask;
 * -ECANCELED: they have ended.
 */
int spans_find(Spans *spans, uint32_t region, uint64_t page, void *scratch, PeerMessage *ret_keys);

/* Unpins the span that was told with this id.  0, also once they have ended, or -ENOENT. */
int spans_retire(Spans *spans, uint32_t id);

#endif
