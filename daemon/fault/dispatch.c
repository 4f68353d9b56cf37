/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/fault/dispatch.h"

#include "daemon/fault/import.h"

enum { QUEUE_CAPACITY = 1024 };

static bool has_homes(const Import *import)
{
    return import->config.dispatch == IMPORT_DISPATCH_HOME && import->config.resolvers > 1;
}

/* Of a thread that is no vCPU, one by its id. */
static Resolver *home_of(const Import *import, uint32_t vcpu, uint32_t tid)
{
    const VcpuTable *table = atomic_load_explicit(&import->vcpus, memory_order_acquire);
    uint32_t key = vcpu < table->n ? vcpu : tid * UINT32_C(0x9e3779b9) >> 16;

    return &import->resolvers[key % import->config.resolvers];
}

int dispatch_init(Resolver *resolver)
{
    return has_homes(resolver->import) ? fault_queue_init(&resolver->queue, QUEUE_CAPACITY) : 0;
}

bool dispatch_hand_over(Resolver *resolver, const FaultRecord *fault, uint32_t tid)
{
    const Import *import = resolver->import;
    Resolver *home;

    if (!has_homes(import) || import->shards[fault->shard].removable)
        return false;
    home = home_of(import, fault->vcpu, tid);
    if (home == resolver)
        return false;
    switch (fault_queue_push(&home->queue, fault)) {
    case FAULT_QUEUE_FULL:
        atomic_fetch_add_explicit(&resolver->queue_full, 1, memory_order_relaxed);
        return false;
    case FAULT_PUSHED_WAKE:
        atomic_fetch_add_explicit(&resolver->wakes_owed, 1, memory_order_relaxed);
        ring_wake(&home->ring);
        break;
    case FAULT_PUSHED:
        break;
    }
    atomic_fetch_add_explicit(&resolver->handed_over, 1, memory_order_relaxed);
    return true;
}

static bool can_serve(const Resolver *resolver)
{
    return channel_has_room(&resolver->channel) && !import_is_halted(resolver->import);
}

bool dispatch_take(Resolver *resolver, FaultRecord *ret_fault)
{
    if (!resolver->queue.cells || !can_serve(resolver) ||
        fault_queue_harvest(&resolver->queue, ret_fault, 1) == 0)
        return false;
    atomic_fetch_add_explicit(&resolver->taken_over, 1, memory_order_relaxed);
    return true;
}

/* Without a free slot only a completion helps: then nobody need wake it for its queue. */
bool dispatch_sleep(Resolver *resolver)
{
    return !resolver->queue.cells || !can_serve(resolver) || fault_queue_sleep(&resolver->queue);
}

void dispatch_awake(Resolver *resolver)
{
    fault_queue_awake(&resolver->queue);
}
