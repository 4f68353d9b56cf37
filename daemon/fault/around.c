/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/fault/around.h"

enum {
    BYTES_MIN = 8192, /* one neighbour, so that its cost is known */
    COST_NS = 150000,
    CHEAP_COSTS = 4,    /* in a row before the block grows */
    RATE_PARTS = 12000, /* of a second: 83 µs */
    LATE_TIMES = 4,
    LATE_NS = 300000,
    FORGET = 256,
};

static uint64_t bytes_of(const Around *around)
{
    return atomic_load_explicit(&around->bytes, memory_order_relaxed);
}

static void set_bytes(Around *around, uint64_t bytes)
{
    atomic_store_explicit(&around->bytes, bytes, memory_order_relaxed);
    around->cheap = 0;
}

static void shrink(Around *around)
{
    set_bytes(around, bytes_of(around) > BYTES_MIN ? bytes_of(around) / 2 : bytes_of(around));
}

void around_init(Around *around, uint64_t most)
{
    *around = (Around){.most = most, .bytes = most};
}

void around_came(Around *around, uint64_t bytes, uint64_t took_ns)
{
    uint64_t block = bytes_of(around);
    uint64_t bound = around->least_ns / 2 > COST_NS ? around->least_ns / 2 : COST_NS;
    uint64_t cost;

    around->came += bytes;
    around->took_ns += took_ns;
    if (around->came < block)
        return;
    cost = (uint64_t)((unsigned __int128)around->took_ns * block / around->came);
    around->came = around->took_ns = 0;
    if (cost > bound)
        shrink(around);
    else if (2 * cost > bound)
        around->cheap = 0;
    else if (++around->cheap >= CHEAP_COSTS && block < around->most)
        set_bytes(around, 2 * block);
}

void around_waited(Around *around, uint64_t latency_ns)
{
    around->least_ns += around->least_ns / FORGET;
    if (latency_ns < around->least_ns || around->least_ns == 0)
        around->least_ns = latency_ns;
    if (latency_ns > LATE_TIMES * around->least_ns + LATE_NS)
        shrink(around); /* it stood behind the neighbours of others */
}

uint64_t around_bytes(const Around *around, uint64_t link_rate, uint64_t limit)
{
    uint64_t rate = limit != 0 && (link_rate == 0 || limit < link_rate) ? limit : link_rate;
    uint64_t bytes = bytes_of(around);

    while (rate != 0 && bytes > rate / RATE_PARTS)
        bytes /= 2;
    return bytes;
}
