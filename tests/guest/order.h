/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Visits 0..count-1, each exactly once, in order or at random, with no memory for a list: every
 * step is a bijection on the numbers of as many bits as count has, and what lies beyond count is
 * passed over.
 */
#ifndef GUEST_ORDER_H
#define GUEST_ORDER_H

#include <stdbool.h>
#include <stdint.h>

typedef struct Order {
    uint64_t count;
    uint64_t mask; /* all ones, >= count - 1 */
    uint64_t next;
    uint64_t key;
    unsigned shift; /* 0: in order */
} Order;

static inline Order order_begin(uint64_t count, uint64_t key, bool linear)
{
    Order order = {.count = count, .mask = 1, .key = key};
    unsigned bits = 1;

    for (; order.mask + 1 < count; bits++)
        order.mask = order.mask << 1 | 1;
    order.shift = linear ? 0 : bits / 2 + 1;
    return order;
}

static inline uint64_t order_shuffle(const Order *order, uint64_t x)
{
    x = (x + order->key) * UINT64_C(0x9e3779b97f4a7c15) & order->mask;
    x ^= x >> order->shift;
    x = (x ^ order->key >> 32) * UINT64_C(0xbf58476d1ce4e5b9) & order->mask;
    return x ^ x >> order->shift;
}

/* False when all were visited. */
static inline bool order_next(Order *order, uint64_t *ret_index)
{
    while (order->next <= order->mask) {
        uint64_t x = order->next++;

        if (order->shift)
            x = order_shuffle(order, x);
        if (x < order->count) {
            *ret_index = x;
            return true;
        }
    }
    return false;
}

#endif
