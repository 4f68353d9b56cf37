/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The stream's part in RDMA: it asks the source for keys, a span at a time and one question at a time, in the order
 * of the memory, while nothing is missing any more where it has been (keys.h).
 *
 * What a span lists as zero is placed at once, so that it need not cross the wire: a portion at a time, as faults may wait
 * for what the stream's own channels bring meanwhile.  What lies where keys were not
 * told yet is held: it would go by TCP, at the price of the source's CPU, a moment before it could be READ.
 * Faults never wait for a key.  Nor does the stream for long: if there is nothing left to claim for a
 * while, and still no key, it goes on by TCP (keys_wait.h).
 *
 * A source that has pinned as much as it may says so; spans whose pages have all come are given back, and then it is asked
 * again.  Not before nobody READs there (keys_close()); a page that was REMOVED while it was
 * read shows in no table, so where that can be a moment passes first.  If that is not enough the READ fails,
 * and the connection is made anew: nothing wrong is ever placed by it.
 *
 * No keys are asked for in assist mode: its map is of the head start only, and what QEMU
 * brings meanwhile would leave spans half used.  All goes by TCP there.
 *
 * The stream's thread.
 */
#ifndef POSTCOPYD_FAULT_STREAM_KEYS_H
#define POSTCOPYD_FAULT_STREAM_KEYS_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/fault/keys_wait.h"
#include "protocol/peer.h"

struct Stream;

typedef struct StreamKeys {
    bool on;         /* this connection has them */
    bool asked;      /* a question is under way */
    bool complete;   /* it has been asked for all */
    bool full_told;  /* it was said that the source may pin no more */
    bool refused;    /* some memory cannot be READ */
    uint32_t region; /* where it stands */
    uint64_t page;
    KeysWait wait;
    uint64_t tidied_ns;      /* when spans were last looked through */
    uint32_t zero, n_zeroes; /* of the last span's, these are still to be placed */
    PeerExtent zeroes[PEER_MAP_EXTENTS];
} StreamKeys;

/* Once a step, before it claims. */
void stream_keys_step(struct Stream *stream, uint64_t now_ns);

/* FetchSink.keys, of the first channel. */
void stream_keys_arrived(struct Stream *stream, uint32_t region, const PeerMessage *keys);

/* The first channel's connection is gone, and all keys with it. */
void stream_keys_down(struct Stream *stream);

/* The stream found something to claim, or nothing. */
void stream_keys_claimed(struct Stream *stream, bool any, uint64_t now_ns);

/* True if a next step has zeroes to place: nobody will wake the stream for that. */
bool stream_keys_have_zeroes(const struct Stream *stream);

#endif
