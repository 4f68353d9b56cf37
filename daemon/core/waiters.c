/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/core/waiters.h"

enum { KEY_FREE = 0, KEY_WRITING = 1 };

static unsigned first_slot(uint64_t key)
{
    return (unsigned)((key * UINT64_C(0x9e3779b97f4a7c15)) >> 32) % WAITERS_SLOTS;
}

int waiters_enter(Waiters *waiters, uint64_t key, uint32_t vcpu, uint64_t since_ns)
{
    unsigned first = first_slot(key);

    for (unsigned i = 0; i < WAITERS_NEIGHBOURS; i++) {
        unsigned at = (first + i) % WAITERS_SLOTS;
        Waiter *slot = &waiters->slots[at];
        uint64_t expected = KEY_FREE;

        if (atomic_load_explicit(&slot->key, memory_order_relaxed) != KEY_FREE ||
            !atomic_compare_exchange_strong_explicit(&slot->key, &expected, KEY_WRITING,
                                                     memory_order_acquire, memory_order_relaxed))
            continue;
        slot->vcpu = vcpu;
        slot->since_ns = since_ns;
        atomic_store_explicit(&slot->key, key, memory_order_release);
        return (int)at;
    }
    atomic_fetch_add_explicit(&waiters->dropped, 1, memory_order_relaxed);
    return -1;
}

/* Takes the slot away from everybody else before it is read, then frees it. */
static int take_slot(Waiter *slot, uint64_t key, uint32_t *ret_vcpu, uint64_t *ret_since_ns)
{
    if (!atomic_compare_exchange_strong_explicit(&slot->key, &key, KEY_WRITING,
                                                 memory_order_acquire, memory_order_relaxed))
        return 0;
    *ret_vcpu = slot->vcpu;
    *ret_since_ns = slot->since_ns;
    atomic_store_explicit(&slot->key, KEY_FREE, memory_order_release);
    return 1;
}

int waiters_leave(Waiters *waiters, int slot, uint64_t key)
{
    uint32_t vcpu;
    uint64_t since_ns;

    return slot >= 0 && take_slot(&waiters->slots[slot], key, &vcpu, &since_ns);
}

void waiters_take(Waiters *waiters, uint64_t key,
                  void (*each)(void *owner, uint32_t vcpu, uint64_t since_ns), void *owner)
{
    unsigned first = first_slot(key);

    for (unsigned i = 0; i < WAITERS_NEIGHBOURS; i++) {
        Waiter *slot = &waiters->slots[(first + i) % WAITERS_SLOTS];
        uint32_t vcpu;
        uint64_t since_ns;

        if (atomic_load_explicit(&slot->key, memory_order_relaxed) == key &&
            take_slot(slot, key, &vcpu, &since_ns))
            each(owner, vcpu, since_ns);
    }
}
