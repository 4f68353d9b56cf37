/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/fault/rate.h"

#include <stdbool.h>

#define SECOND_NS UINT64_C(1000000000)

enum {
    BURST_PARTS = 20, /* of a second: what may gather while nothing goes, as on a busy host */
    BURST_MIN = 4096,
    CHUNK_PARTS = 100,
    CHUNK_MIN = 16384,
};

static int64_t burst(const Rate *rate)
{
    uint64_t bytes = rate->bytes_per_s / BURST_PARTS;

    return (int64_t)(bytes < BURST_MIN ? BURST_MIN : bytes);
}

void rate_set(Rate *rate, uint64_t bytes_per_s, uint64_t now_ns)
{
    if (rate->bytes_per_s == bytes_per_s)
        return;
    *rate = (Rate){.bytes_per_s = bytes_per_s, .filled_ns = now_ns};
}

static void fill(Rate *rate, uint64_t now_ns)
{
    uint64_t passed = now_ns > rate->filled_ns ? now_ns - rate->filled_ns : 0;
    unsigned __int128 gained;

    rate->filled_ns = now_ns > rate->filled_ns ? now_ns : rate->filled_ns;
    gained = (unsigned __int128)passed * rate->bytes_per_s + rate->fraction;
    rate->fraction = (uint64_t)(gained % SECOND_NS);
    gained /= SECOND_NS;
    if (gained > (unsigned __int128)(burst(rate) - rate->tokens))
        rate->tokens = burst(rate);
    else
        rate->tokens += (int64_t)gained;
}

uint64_t rate_wait_ns(Rate *rate, uint64_t now_ns)
{
    if (rate->bytes_per_s == 0)
        return 0;
    fill(rate, now_ns);
    if (rate->tokens > 0)
        return 0;
    return (uint64_t)((unsigned __int128)(1 - rate->tokens) * SECOND_NS / rate->bytes_per_s) + 1;
}

/* The debt is bounded to what a second brings: nothing is held back for longer. */
void rate_take(Rate *rate, uint64_t bytes)
{
    int64_t least = -(int64_t)(rate->bytes_per_s < INT64_MAX ? rate->bytes_per_s : INT64_MAX);

    if (rate->bytes_per_s == 0)
        return;
    rate->tokens = bytes < (uint64_t)(rate->tokens - least) ? rate->tokens - (int64_t)bytes : least;
}

void rate_give(Rate *rate, uint64_t bytes)
{
    if (rate->bytes_per_s == 0)
        return;
    rate->tokens = bytes < (uint64_t)(burst(rate) - rate->tokens) ? rate->tokens + (int64_t)bytes
                                                                  : burst(rate);
}

uint64_t rate_chunk(const Rate *rate, uint64_t most)
{
    uint64_t chunk = rate->bytes_per_s / CHUNK_PARTS;

    if (rate->bytes_per_s == 0 || chunk > most)
        return most;
    return chunk < CHUNK_MIN ? CHUNK_MIN : chunk;
}

/* Whoever wants less than an equal share of what is left gets what he wants, until nobody does. */
void rate_share(uint64_t total, const uint64_t *wanted, uint32_t n, uint64_t *ret_shares)
{
    uint64_t left = total;
    uint32_t unserved = n;
    bool changed = true;

    for (uint32_t i = 0; i < n; i++)
        ret_shares[i] = total ? 0 : wanted[i];
    while (total && changed && unserved) {
        uint64_t even = left / unserved;

        changed = false;
        for (uint32_t i = 0; i < n; i++)
            if (ret_shares[i] == 0 && wanted[i] != 0 && wanted[i] <= even) {
                ret_shares[i] = wanted[i];
                left -= wanted[i];
                unserved--;
                changed = true;
            }
    }
    for (uint32_t i = 0; i < n && total && unserved; i++)
        if (ret_shares[i] == 0)
            ret_shares[i] = left / unserved ? left / unserved : 1;
}
