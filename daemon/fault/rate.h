/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Rates: a token bucket that holds a stream to so many bytes a second, and how a host's rate is shared
 * among several.  Pure: the clock is passed in.  A bucket belongs to one thread.
 */
#ifndef POSTCOPYD_FAULT_RATE_H
#define POSTCOPYD_FAULT_RATE_H

#include <stdint.h>

typedef struct Rate {
    uint64_t bytes_per_s; /* 0: no limit */
    uint64_t filled_ns;   /* when tokens was right */
    int64_t tokens;       /* bytes that may go; below 0: what was taken in advance */
    uint64_t fraction;    /* of a token, in bytes * ns */
} Rate;

/* A new limit counts from now on; the same one again changes nothing. */
void rate_set(Rate *rate, uint64_t bytes_per_s, uint64_t now_ns);

/* 0: something may go.  Else so many ns until then. */
uint64_t rate_wait_ns(Rate *rate, uint64_t now_ns);

/* Bytes that go now, allowed or not: what is too much holds back what comes later. */
void rate_take(Rate *rate, uint64_t bytes);

/* Bytes that were taken and did not go after all. */
void rate_give(Rate *rate, uint64_t bytes);

/* How much of one request keeps the flow even: a hundredth of a second. */
uint64_t rate_chunk(const Rate *rate, uint64_t most);

/*
 * Shares total (0: no limit) among n who want at most so much each (0: all they can get): equal shares,
 * and what one does not want is left to the others.  A share of 0 means no limit.
 */
void rate_share(uint64_t total, const uint64_t *wanted, uint32_t n, uint64_t *ret_shares);

#endif
