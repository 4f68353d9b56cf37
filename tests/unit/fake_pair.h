/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A queue pair that a test is the device of: it READs the pages of channel_peer's source when it is told to,
 * and not before.  One at a time.
 */
#ifndef POSTCOPYD_TESTS_FAKE_PAIR_H
#define POSTCOPYD_TESTS_FAKE_PAIR_H

#include "tests/unit/channel_peer.h"

enum { FAKE_DEPTH = 256, FAKE_RKEY = 4711, FAKE_LKEY = 42, FAKE_LANDING_LKEY = 43 };

typedef struct FakePair {
    bool there;      /* made and not freed */
    bool at_once;    /* READs complete within the post */
    bool mute;       /* no completion makes the file readable */
    bool before_arm; /* what was posted completes just before the next arming */
    int refuse;      /* errno of the next post; 0: none */
    int fail_at;     /* READs until one fails; -1: none */
    bool forge;      /* the next completion is of nothing */
    unsigned depth;
    unsigned posts, told; /* READs, and those of them whose completion is to be told */
    unsigned arms;
    bool broken;
    unsigned downs_at_free; /* what the sink had been told when it was freed */
    RdmaRead last;          /* posted */
} FakePair;

extern FakePair fake;

/* The device does the next n READs that were posted.  How many there were. */
unsigned fake_execute(unsigned n);
unsigned fake_posted(void); /* READs posted and not done */

/* The device is taken away: no READ completes any more, and its file says that nothing is to come. */
void fake_vanish(void);

/* A lane over it, for the next connection. */
void fake_lane(size_t staging, unsigned depth);

/* The keys of all pages. */
uint32_t fake_source(uint32_t region, uint64_t page, uint32_t count, FetchSource *ret_source);

#endif
