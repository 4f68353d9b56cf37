/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/qemu/hold.h"

#include <time.h>

#include "client/qemu/marks.h"

#define NAP_NS (2 * CLOCK_MS)

/* A page of the plan may have come from the daemon, whoever was asked for it. */
static bool is_there(Plan *plan, uint64_t address)
{
    uint64_t piece;
    const Segment *segment = plan_find(plan, address, 1, &piece);
    const Region *range;
    PageState state;

    if (!segment)
        return false;
    range = &plan->ranges.list[segment->range];
    state = marks_state(&plan->table, segment->range,
                        (address - (uintptr_t)range->address) / range->page_size);
    return state == PAGE_PRESENT || state == PAGE_FOUND || state == PAGE_REMOVED;
}

/* True while somebody waits for QEMU; entries that are settled go. */
static bool qemu_is_awaited(Hold *hold, Plan *plan)
{
    bool awaited = false;

    for (unsigned i = 0; i < HOLD_ASKED; i++) {
        uint64_t address = __atomic_load_n(&hold->asked[i], __ATOMIC_ACQUIRE);

        if (address != 0 && is_there(plan, address))
            __atomic_compare_exchange_n(&hold->asked[i], &address, 0, false, __ATOMIC_ACQ_REL,
                                        __ATOMIC_RELAXED);
        else if (address != 0)
            awaited = true;
    }
    return awaited;
}

bool hold_is_due(Hold *hold, Plan *plan, uint64_t now)
{
    const PageTableHeader *header = plan->table.header;
    uint64_t ahead = __atomic_load_n(&header->ahead_ns, __ATOMIC_ACQUIRE);

    /* The daemon's word may be a moment younger than our look at the clock; later still it is no time. */
    if (ahead == 0 || (now > ahead ? now - ahead : ahead - now) >= HOLD_FRESH_NS)
        return false;
    if (__atomic_load_n(&header->serving, __ATOMIC_ACQUIRE) != 1 ||
        __atomic_load_n(&header->relaying, __ATOMIC_ACQUIRE) != 0)
        return false;
    if (__atomic_load_n(&hold->never, __ATOMIC_ACQUIRE) ||
        (__atomic_load_n(&hold->has_asked, __ATOMIC_ACQUIRE) && qemu_is_awaited(hold, plan)))
        return false;
    return __atomic_load_n(&hold->held_ns, __ATOMIC_RELAXED) < HOLD_MOST_NS;
}

void hold_wait(Hold *hold, Plan *plan)
{
    const struct timespec nap = {.tv_nsec = NAP_NS};
    uint64_t now, before;

    if (__atomic_load_n(&plan->table.header->ahead_ns, __ATOMIC_RELAXED) == 0)
        return; /* the head start is over: no look at the clock for each page */
    for (before = clock_ns(); hold_is_due(hold, plan, before); before = now) {
        nanosleep(&nap, NULL);
        now = clock_ns();
        __atomic_add_fetch(&hold->held_ns, now - before, __ATOMIC_RELAXED);
    }
}

void hold_placed(Hold *hold, uint64_t address, uint64_t length)
{
    if (!__atomic_load_n(&hold->has_asked, __ATOMIC_RELAXED))
        return;
    for (unsigned i = 0; i < HOLD_ASKED; i++) {
        uint64_t asked = __atomic_load_n(&hold->asked[i], __ATOMIC_ACQUIRE);

        if (asked != 0 && asked >= address && asked - address < length)
            __atomic_compare_exchange_n(&hold->asked[i], &asked, 0, false, __ATOMIC_ACQ_REL,
                                        __ATOMIC_RELAXED);
    }
}

void hold_asks(Hold *hold, uint64_t address)
{
    bool noted = false;

    for (unsigned i = 0; i < HOLD_ASKED && !noted; i++) {
        uint64_t none = 0;

        noted = __atomic_compare_exchange_n(&hold->asked[i], &none, address, false,
                                            __ATOMIC_ACQ_REL, __ATOMIC_RELAXED) ||
                none == address;
    }
    if (!noted)
        hold_never(hold);
    __atomic_store_n(&hold->has_asked, true, __ATOMIC_RELEASE);
}

void hold_never(Hold *hold)
{
    __atomic_store_n(&hold->never, true, __ATOMIC_RELEASE);
}
