/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/fault/around.h"

enum {
    BYTES_MIN = 4096,
    FAST_NS = 300000,   /* a fault resolved sooner may take more along, */
    SLOW_NS = 1000000,  /* one that took longer took too much along */
    RATE_PARTS = 12000, /* of a second: 83 µs */
};

/* Faster, it is the hosts that bound a transfer and not the link: there fewer requests cost less. */
#define SLOW_LINK (UINT64_C(256) << 20)

void around_init(Around *around, uint64_t most)
{
    /* Aligned blocks never reach over a shard's end. */
    while (most & (most - 1))
        most &= most - 1;
    *around = (Around){.most = most, .bytes = most};
}

void around_waited(Around *around, uint64_t latency_ns)
{
    uint64_t bytes = atomic_load_explicit(&around->bytes, memory_order_relaxed);

    if (latency_ns > SLOW_NS && bytes > BYTES_MIN)
        atomic_store_explicit(&around->bytes, bytes / 2, memory_order_relaxed);
    else if (latency_ns < FAST_NS && bytes < around->most)
        atomic_store_explicit(&around->bytes, bytes * 2, memory_order_relaxed);
}

uint64_t around_bytes(const Around *around, uint64_t link_rate, uint64_t limit, bool *ret_apart)
{
    uint64_t rate = limit != 0 && (link_rate == 0 || limit < link_rate) ? limit : link_rate;
    uint64_t bytes = atomic_load_explicit(&around->bytes, memory_order_relaxed);

    *ret_apart = rate != 0 && rate < SLOW_LINK;
    while (*ret_apart && bytes > rate / RATE_PARTS)
        bytes /= 2;
    return bytes;
}
