/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How much the stream has under way: as much as keeps the link busy, and hardly more, for whatever waits
 * on the link in front of a page that a guest needs delays it.
 *
 * A bulk request's delay is the time until its answer begins.  Its least is what link and source need
 * by themselves (the base); what is above is the queue that the window made.  The window grows while that
 * queue is shorter than a target and shrinks while it is longer, by an amount in proportion, once a
 * round: a window's worth of requests that were sent since the last change.  Where faults take much
 * longer than they did at best, the target itself shrinks.  The base is forgotten after a while, and
 * found again by a request that goes out alone.
 *
 * Pure: the clock is passed in.  Stream thread.
 */
#ifndef POSTCOPYD_FAULT_PACE_H
#define POSTCOPYD_FAULT_PACE_H

#include <stdbool.h>
#include <stdint.h>

/* The least of what was seen lately: in this period or in the one before. */
typedef struct PaceLeast {
    uint64_t now, before;
} PaceLeast;

typedef struct Pace {
    uint64_t window_most, chunk_most;
    uint64_t window;                /* bytes */
    PaceLeast base;                 /* ns until an answer begins */
    PaceLeast urgent;               /* ns that faults took */
    uint64_t period_ns;             /* when the period of both began */
    bool starting;                  /* the window doubles until there is a queue */
    bool alone;                     /* nothing more is sent until a request went alone, */
    uint64_t ramp;                  /* and then more and more: no burst of a whole window */
    bool used;                      /* in this round all of the window was under way */
    unsigned patience;              /* the target is divided by 1 << patience */
    unsigned calm;                  /* rounds without a slow fault */
    uint64_t rate;                  /* bytes/s of the best round, slowly forgotten */
    bool filled;                    /* in the last round it was the window that bounded the rate */
    uint64_t round_ns;              /* requests sent since count */
    uint64_t measured_ns, measured; /* since when for the rate, and bytes of all answers since */
    uint64_t round_bytes, round_sum, round_least, round_urgent;
    unsigned round_n;
} Pace;

typedef struct PaceSample {
    uint64_t sent_ns;
    uint64_t bytes;     /* asked for */
    uint64_t in_flight; /* bytes, itself included */
    uint64_t urgent_ns; /* what faults took since the last sample; 0: there were none */
} PaceSample;

void pace_init(Pace *pace, uint64_t window_most, uint64_t chunk_most, uint64_t now_ns);

/* The answer to a request begins. */
void pace_answered(Pace *pace, const PaceSample *sample, uint64_t now_ns);

/* True if more may be asked for while so many bytes are under way. */
bool pace_may_send(const Pace *pace, uint64_t in_flight);

/* Bytes of one request. */
uint64_t pace_chunk(const Pace *pace);

#endif
