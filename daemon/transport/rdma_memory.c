/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Memory that a device may reach, and the bound on how much of it there is.  Owns: the registrations, and
 * what they take of the budget.  Any thread but never a fault's way: pinning takes as long as it takes.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "daemon/transport/rdma_private.h"

#define RESERVE_MIN (UINT64_C(16) << 20)

struct RdmaMemory {
    RdmaDevice *device;
    struct ibv_mr *region;
    uint64_t length;
};

static void note_peak(RdmaBudget *budget, uint64_t used)
{
    uint64_t peak = atomic_load_explicit(&budget->peak, memory_order_relaxed);

    while (peak < used && !atomic_compare_exchange_weak(&budget->peak, &peak, used))
        ;
}

uint64_t rdma_budget_reserve(const RdmaBudget *budget)
{
    uint64_t half = budget->most / 2, quarter = budget->most / 4;
    uint64_t least = half < RESERVE_MIN ? half : RESERVE_MIN;

    return quarter > least ? quarter : least;
}

uint64_t rdma_budget_room(const RdmaBudget *budget)
{
    uint64_t taken = atomic_load(&budget->used) + rdma_budget_reserve(budget);

    return taken < budget->most ? budget->most - taken : 0;
}

bool rdma_budget_take(RdmaBudget *budget, uint64_t bytes, uint64_t left)
{
    uint64_t most = left < budget->most ? budget->most - left : 0;
    uint64_t used = atomic_load(&budget->used);

    do {
        if (bytes > most || used > most - bytes)
            return false;
    } while (!atomic_compare_exchange_weak(&budget->used, &used, used + bytes));
    note_peak(budget, used + bytes);
    return true;
}

void rdma_budget_give(RdmaBudget *budget, uint64_t bytes)
{
    atomic_fetch_sub(&budget->used, bytes);
}

/*
 * Before Linux 6.2 the kernel pins a shared mapping only if it may be written, although the device may not.
 * So it is made writable for as long as pinning takes.
 */
static struct ibv_mr *register_shut(struct ibv_pd *pd, void *memory, size_t length)
{
    struct ibv_mr *region = ibv_reg_mr(pd, memory, length, IBV_ACCESS_REMOTE_READ);

    if (region || errno != EFAULT)
        return region;
    if (mprotect(memory, length, PROT_READ | PROT_WRITE) == 0) {
        region = ibv_reg_mr(pd, memory, length, IBV_ACCESS_REMOTE_READ);
        int error = errno;

        if (mprotect(memory, length, PROT_READ) && region) {
            error = errno;
            rdma_must(ibv_dereg_mr(region));
            region = NULL;
        }
        errno = error;
    }
    return region;
}

static int register_region(RdmaMemory *memory, void *address, RdmaAccess access)
{
    struct ibv_pd *pd = memory->device->pd;

    errno = 0;
    if (access == RDMA_ACCESS_EXPORT)
        memory->region = register_shut(pd, address, memory->length);
    else
        memory->region = ibv_reg_mr(pd, address, memory->length, IBV_ACCESS_LOCAL_WRITE);
    if (memory->region)
        return 0;
    /* What libraries of devices fail at by themselves need not have a number. */
    return errno ? -errno : -EIO;
}

RdmaMemory *rdma_memory_new(RdmaDevice *device, void *memory, size_t length, RdmaAccess access,
                            int *ret_error)
{
    uint64_t left = access == RDMA_ACCESS_STAGE ? 0 : rdma_budget_reserve(device->budget);
    RdmaMemory *made;
    int error;

    *ret_error = -EDQUOT;
    if (!rdma_budget_take(device->budget, length, left))
        return NULL;
    made = malloc(sizeof *made);
    if (made) {
        *made = (RdmaMemory){.device = rdma_device_ref(device), .length = length};
        error = register_region(made, memory, access);
        *ret_error = error;
        if (error == 0)
            return made;
        rdma_device_unref(device);
        free(made);
    } else {
        *ret_error = -ENOMEM;
    }
    rdma_budget_give(device->budget, length);
    return NULL;
}

void rdma_memory_free(RdmaMemory *memory)
{
    if (!memory)
        return;
    rdma_must(ibv_dereg_mr(memory->region));
    rdma_budget_give(memory->device->budget, memory->length);
    rdma_device_unref(memory->device);
    free(memory);
}

uint32_t rdma_memory_lkey(const RdmaMemory *memory)
{
    return memory->region->lkey;
}

uint32_t rdma_memory_rkey(const RdmaMemory *memory)
{
    return memory->region->rkey;
}

void rdma_memory_hint(uint64_t bytes, char *ret_text)
{
    uint64_t kib = (bytes + 1023) / 1024;
    struct rlimit limit;

    if (getrlimit(RLIMIT_MEMLOCK, &limit) || limit.rlim_cur == RLIM_INFINITY)
        snprintf(ret_text, LIMIT_TEXT + 1,
                 "%" PRIu64
                 " KiB could not be pinned for RDMA although the daemon's memlock limit is "
                 "unlimited: free memory on this host, or lower [rdma] pinned",
                 kib);
    else
        snprintf(ret_text, LIMIT_TEXT + 1,
                 "%" PRIu64
                 " KiB could not be pinned for RDMA: the daemon's memlock limit is %" PRIu64
                 " KiB; set LimitMEMLOCK=infinity in its unit (ulimit -l elsewhere), or lower "
                 "[rdma] pinned",
                 kib, (uint64_t)limit.rlim_cur / 1024);
}
