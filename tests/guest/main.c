/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/guest/arena.h"
#include "tests/guest/args.h"
#include "tests/guest/clock.h"
#include "tests/guest/epoch.h"
#include "tests/guest/layout.h"
#include "tests/guest/machine.h"
#include "tests/guest/pvh.h"
#include "tests/guest/serial.h"
#include "tests/guest/smp.h"
#include "tests/guest/workload.h"

_Noreturn void guest_main(unsigned cpu);

static unsigned ready;

static _Noreturn void stop(void)
{
    for (;;)
        pause();
}

static _Noreturn void fatal(const char *reason)
{
    Record record;

    record_begin(&record, "FATAL");
    record_text(&record, "reason", reason);
    record_send(&record);
    stop();
}

/* On the boot processor, before any other does more than wait. */
static void boot(void)
{
    const PvhStartInfo *info = pvh_info();
    Args args;

    serial_init();
    if (!info)
        fatal("pvh");
    args_parse(&args, info->command_line ? (const char *)info->command_line : "");
    if (!args.workers || args.workers > MAX_CPUS)
        fatal("workers");
    if (args.fill_mb * 256 < args.workers)
        fatal("fill_mb");
    clock_init(args.tsc_khz);
    epoch_init((uint16_t)args.marker);
    if (!workload_init(&args, arena_init(info)))
        stop();
    if (smp_start((unsigned)args.workers) < args.workers)
        fatal("vcpus");
    __atomic_store_n(&ready, 1, __ATOMIC_RELEASE);
}

/* Where every processor arrives, with its number, on its own stack, in ring 3. */
_Noreturn void guest_main(unsigned cpu)
{
    if (cpu == 0)
        boot();
    while (!__atomic_load_n(&ready, __ATOMIC_ACQUIRE))
        pause();
    workload_run(cpu);
}
