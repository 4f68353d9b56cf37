/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/fault/ahead.h"

#include <stdatomic.h>

#include "daemon/core/log.h"
#include "daemon/fault/import.h"

static void publish(Import *import, uint64_t ns)
{
    __atomic_store_n(&import->table.header->ahead_ns, ns, __ATOMIC_RELEASE);
}

static void end(Ahead *ahead, Import *import)
{
    ahead->stage = AHEAD_OVER;
    publish(import, 0);
}

static uint64_t since_gate(const Import *import, uint64_t now_ns)
{
    uint64_t gate = atomic_load(&import->gate_ns);

    return now_ns > gate ? now_ns - gate : 0; /* it may have opened since */
}

static bool is_slow(const Import *import, uint64_t now_ns)
{
    uint64_t us = since_gate(import, now_ns) / 1000;

    return us >= UINT64_C(1000) * AHEAD_PROVE_MS &&
           import_received_bytes(import) < us * AHEAD_LEAST_MB_S;
}

static bool is_allowed(const Import *import, uint64_t now_ns)
{
    return since_gate(import, now_ns) < UINT64_C(1000000) * import->config.head_start_ms &&
           !import_is_halted(import) && !atomic_load(&import->withdrawn) &&
           atomic_load_explicit(&import->limit, memory_order_relaxed) == 0;
}

static void tell(const Import *import, uint64_t now_ns, const char *why)
{
    const ImportCounters *counters = &import->counters;
    uint64_t stream = atomic_load_explicit(&counters->by_stream, memory_order_relaxed);
    uint64_t faults = atomic_load_explicit(&counters->by_fault, memory_order_relaxed) +
                      atomic_load_explicit(&counters->by_around, memory_order_relaxed);

    log_info("%s: %llu pages came ahead of QEMU's stream in %llu ms, %llu with faults%s",
             import->name, (unsigned long long)stream,
             (unsigned long long)since_gate(import, now_ns) / 1000000, (unsigned long long)faults,
             why);
}

static const char *why_over(const Import *import, uint64_t now_ns)
{
    if (atomic_load_explicit(&import->limit, memory_order_relaxed) != 0)
        return "; no further: there is a limit now";
    if (since_gate(import, now_ns) >= UINT64_C(1000000) * import->config.head_start_ms)
        return "; no further: head_start_ms is over";
    return is_slow(import, now_ns) ? "; no further: less than 200 MB/s came" : "";
}

bool ahead_goes_on(Ahead *ahead, Import *import, uint64_t now_ns)
{
    if (!import->config.assist || import->config.head_start_ms == 0 ||
        ahead->stage >= AHEAD_CATCHING || atomic_load(&import->gate_ns) == 0)
        return false;
    if (is_allowed(import, now_ns) && !is_slow(import, now_ns))
        return true;
    if (ahead->stage == AHEAD_GOES)
        tell(import, now_ns, why_over(import, now_ns));
    end(ahead, import);
    return false;
}

void ahead_moved(Ahead *ahead, Import *import, uint64_t now_ns)
{
    if (!ahead_goes_on(ahead, import, now_ns))
        return;
    ahead->stage = AHEAD_GOES;
    publish(import, now_ns);
}

void ahead_lost(Ahead *ahead, Import *import, uint64_t now_ns)
{
    if (!ahead_goes_on(ahead, import, now_ns))
        return;
    tell(import, now_ns, "; no further: the connection was lost");
    end(ahead, import);
}

void ahead_complete(Ahead *ahead, Import *import, uint64_t now_ns)
{
    if (!ahead_goes_on(ahead, import, now_ns))
        return;
    tell(import, now_ns, "");
    ahead->stage = AHEAD_CATCHING;
    ahead->caught_ns = now_ns + since_gate(import, now_ns);
    publish(import, now_ns);
}

void ahead_catch_up(Ahead *ahead, Import *import, uint64_t now_ns)
{
    if (ahead->stage != AHEAD_CATCHING)
        return;
    if (now_ns < ahead->caught_ns && is_allowed(import, now_ns))
        publish(import, now_ns);
    else
        end(ahead, import);
}
