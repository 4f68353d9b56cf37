/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How long the stream waits for keys before it goes on by TCP, and when it asks again.
 *
 * It holds back what lies where keys were not told yet (stream_keys.h).  That ends for a while if the map takes
 * long, or if the source can pin no more: until some of what this connection has is given back, or, if it has
 * nothing, for what other connections use may become free: then it asks again, after 0.2 s at first and 1 s at most.
 * Once keys are told again it holds again.  It ends for good on a connection whose source leaves a
 * question unanswered for 2 s.
 *
 * Pure: the clock is passed in.  The stream's thread.
 */
#ifndef POSTCOPYD_FAULT_KEYS_WAIT_H
#define POSTCOPYD_FAULT_KEYS_WAIT_H

#include <stdbool.h>
#include <stdint.h>

#define KEYS_IDLE_NS      UINT64_C(2000000000)
#define KEYS_IDLE_FULL_NS UINT64_C(250000000)
#define KEYS_AGAIN_MIN_NS UINT64_C(200000000)
#define KEYS_AGAIN_MAX_NS UINT64_C(1000000000)

/* All zero: nothing was asked yet, and all is held. */
typedef struct KeysWait {
    bool mapped;       /* all that is to come is known, so keys can be asked for */
    bool full;         /* the source may pin no more */
    bool lifted;       /* nothing is held for now, */
    bool over;         /* nor ever again */
    uint64_t again_ns; /* full, and not for what we have: not before then is it asked again; 0 */
    uint64_t pause_ns; /* the last one of these; 0: keys were told since */
    uint64_t idle_ns;  /* since when there is nothing to claim; 0: there was */
} KeysWait;

static inline bool keys_wait_holds(const KeysWait *wait)
{
    return !wait->lifted && !wait->over;
}

/* The map is known. */
void keys_wait_mapped(KeysWait *wait);

/* The source told keys; or that it may pin no more. */
void keys_wait_told(KeysWait *wait);
void keys_wait_full(KeysWait *wait);

/* While it is full: any: some spans were given back just now; live: how many are not. */
void keys_wait_tidied(KeysWait *wait, bool any, unsigned live, uint64_t now_ns);

/* The stream looked for pages: any: it found some. */
void keys_wait_claimed(KeysWait *wait, bool any, uint64_t now_ns);

#endif
