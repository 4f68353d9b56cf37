/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/guest/smp.h"

#include "tests/guest/clock.h"
#include "tests/guest/layout.h"
#include "tests/guest/machine.h"

#define LAPIC_SPURIOUS 0xfee000f0
#define LAPIC_ICR_LOW  0xfee00300

#define SPURIOUS_ENABLE    0x1ff
#define ICR_INIT_OTHERS    0x000c4500
#define ICR_STARTUP_OTHERS (0x000c4600 | AP_TRAMPOLINE >> 12)

extern char ap_trampoline[], ap_trampoline_end[];
extern unsigned cpus_started, cpus_wanted; /* entry.S */

static void lapic_write(uintptr_t reg, uint32_t value)
{
    *(volatile uint32_t *)reg = value;
}

static unsigned started(void)
{
    return __atomic_load_n(&cpus_started, __ATOMIC_ACQUIRE);
}

static void wait_started(unsigned n, uint64_t us)
{
    uint64_t end = clock_us(rdtsc()) + us;

    while (started() < n && clock_us(rdtsc()) < end)
        pause();
}

unsigned smp_start(unsigned n)
{
    volatile char *trampoline = (volatile char *)AP_TRAMPOLINE;

    if (n <= 1)
        return 1;
    for (char *code = ap_trampoline; code < ap_trampoline_end; code++)
        *trampoline++ = *code;
    __atomic_store_n(&cpus_wanted, n, __ATOMIC_RELEASE);
    lapic_write(LAPIC_SPURIOUS, SPURIOUS_ENABLE);
    lapic_write(LAPIC_ICR_LOW, ICR_INIT_OTHERS);
    wait_started(MAX_CPUS + 1, 10000);
    lapic_write(LAPIC_ICR_LOW, ICR_STARTUP_OTHERS);
    wait_started(n, 100000);
    if (started() < n) {
        lapic_write(LAPIC_ICR_LOW, ICR_STARTUP_OTHERS);
        wait_started(n, 3000000);
    }
    return started() < n ? started() : n;
}
