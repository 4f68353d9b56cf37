/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/guest/clock.h"

static uint64_t khz;
static uint64_t ns_per_tick; /* 32.32 fixed point */

void clock_init(uint64_t tsc_khz)
{
    khz = tsc_khz ? tsc_khz : 1;
    ns_per_tick = (UINT64_C(1000000) << 32) / khz;
}

uint64_t clock_ns(uint64_t ticks)
{
    return (uint64_t)((unsigned __int128)ticks * ns_per_tick >> 32);
}

uint64_t clock_us(uint64_t ticks)
{
    return clock_ns(ticks) / 1000;
}

uint64_t clock_ticks(uint64_t us)
{
    return us * khz / 1000;
}
