/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/guest/epoch.h"

#include "tests/guest/clock.h"
#include "tests/guest/machine.h"
#include "tests/guest/serial.h"

/* Reading the marker costs an exit to the hypervisor's user space. */
enum { POLL_US = 1000, STALL_US = 50, POLL_AFTER_STALL_US = 100 };

static uint16_t port;
static uint8_t marker;
static unsigned epoch;
static Deadline next;
static uint64_t poll_ticks, stall_ticks, hurry_ticks;

void epoch_init(uint16_t marker_port)
{
    port = marker_port;
    marker = inb(port);
    poll_ticks = clock_ticks(POLL_US);
    stall_ticks = clock_ticks(STALL_US);
    hurry_ticks = clock_ticks(POLL_US - POLL_AFTER_STALL_US);
}

unsigned epoch_now(void)
{
    return __atomic_load_n(&epoch, __ATOMIC_RELAXED);
}

static void begin(uint8_t value, uint64_t now)
{
    Record record;
    unsigned n = __atomic_add_fetch(&epoch, 1, __ATOMIC_RELAXED);
    record_begin(&record, "EPOCH");
    record_number(&record, "n", n);
    record_hex(&record, "marker", value);
    record_number(&record, "t_us", clock_us(now));
    record_send(&record);
}

bool epoch_poll(uint64_t now, uint64_t stall)
{
    uint64_t hurry = stall >= stall_ticks ? hurry_ticks : 0;

    if (now + hurry < __atomic_load_n(&next.at, __ATOMIC_RELAXED))
        return false;
    /* Deadlines count from the true now, or hurrying would push them into the future. */
    if (!deadline_take(&next, now + hurry, poll_ticks - hurry))
        return false;
    uint8_t before = __atomic_load_n(&marker, __ATOMIC_RELAXED);
    uint8_t value = inb(port);
    /* A look may take longer than the time between two: only one of them sees the change. */
    if (value == before || !__atomic_compare_exchange_n(&marker, &before, value, false,
                                                        __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        return false;
    begin(value, now);
    return true;
}
