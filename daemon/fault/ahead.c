/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/fault/ahead.h"

#include <stdatomic.h>

#include "daemon/core/log.h"
#include "daemon/fault/import.h"

static void publish(Import *import, uint64_t ns)
{
    __atomic_store_n(&import->table.header->ahead_ns, ns, __ATOMIC_RELEASE);
}

bool ahead_goes_on(Ahead *ahead, Import *import, uint64_t now_ns)
{
    const ImportConfig *config = &import->config;
    uint64_t gate = atomic_load(&import->gate_ns);

    if (!config->assist || config->head_start_ms == 0 || ahead->over || gate == 0)
        return false;
    if (now_ns - gate < UINT64_C(1000000) * config->head_start_ms && !import_is_halted(import) &&
        !atomic_load(&import->withdrawn) &&
        atomic_load_explicit(&import->limit, memory_order_relaxed) == 0)
        return true;
    ahead_end(ahead, import, now_ns);
    return false;
}

void ahead_moved(Ahead *ahead, Import *import, uint64_t now_ns)
{
    if (!ahead_goes_on(ahead, import, now_ns))
        return;
    ahead->begun = true;
    publish(import, now_ns);
}

void ahead_end(Ahead *ahead, Import *import, uint64_t now_ns)
{
    if (ahead->over || !import->config.assist)
        return;
    ahead->over = true;
    publish(import, 0);
    if (ahead->begun)
        log_info("%s: %llu pages came ahead of QEMU's stream in %llu ms, %llu with faults",
                 import->name,
                 (unsigned long long)atomic_load_explicit(&import->counters.by_stream,
                                                          memory_order_relaxed),
                 (unsigned long long)(now_ns - atomic_load(&import->gate_ns)) / 1000000,
                 (unsigned long long)(atomic_load_explicit(&import->counters.by_fault,
                                                           memory_order_relaxed) +
                                      atomic_load_explicit(&import->counters.by_around,
                                                           memory_order_relaxed)));
}
