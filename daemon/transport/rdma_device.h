/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A device that can read another host's memory by itself, opened for one import or one export: a
 * protection domain of its own, so that a key of one VM is of no use to another.
 *
 * Which device: the one that has the local address of a connected TCP socket.  On Ethernet (RoCE) one of the
 * port's GIDs is that address, and the other end's must be that of the socket's peer: whoever was trusted by its
 * address is who is connected to.  On InfiniBand the interface's hardware address names the port.
 * Nothing of it works on loopback.
 *
 * While a device is open some drivers cannot be removed from the host (soft RoCE's waits for ever), so do not keep
 * one longer than an import or an export's session needs it.
 */
#ifndef POSTCOPYD_TRANSPORT_RDMA_DEVICE_H
#define POSTCOPYD_TRANSPORT_RDMA_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol/limits.h"

/* How many bytes may be pinned, by all imports and exports of this daemon together.  Atomic. */
typedef struct RdmaBudget {
    uint64_t most; /* set before any other thread runs */
    _Atomic uint64_t used;
    _Atomic uint64_t peak;
} RdmaBudget;

/*
 * What of it only lanes' staging may take: the last quarter, at least 16 MiB, but never more than half.  Blocks that
 * READs land in and spans take what they can get, early and for long; without this the next import could have
 * no lane at all.
 */
uint64_t rdma_budget_reserve(const RdmaBudget *budget);

/* How many bytes can be taken now if the reserve is left. */
uint64_t rdma_budget_room(const RdmaBudget *budget);

/* False: less than `left` bytes would be left, and nothing was taken. */
bool rdma_budget_take(RdmaBudget *budget, uint64_t bytes, uint64_t left);
void rdma_budget_give(RdmaBudget *budget, uint64_t bytes);

typedef struct RdmaDevice RdmaDevice;

/*
 * Opens the device behind a connected socket's local address.  NULL with a line in
 * ret_text[LIMIT_TEXT + 1]: there is none, or why it cannot be used.  budget must outlive it.  May block
 * for a moment; any thread.
 */
RdmaDevice *rdma_device_open(int socket, RdmaBudget *budget, char *ret_text);

/* One more user, and one less: the last one closes it.  NULL is fine for the latter.  Any thread. */
RdmaDevice *rdma_device_ref(RdmaDevice *device);
void rdma_device_unref(RdmaDevice *device);

/* Its budget. */
const RdmaBudget *rdma_device_budget(const RdmaDevice *device);

/* "rxe0", until the last unref. */
const char *rdma_device_name(const RdmaDevice *device);

/* Memory that the device may reach: pinned, and counted in the budget. */
typedef struct RdmaMemory RdmaMemory;

typedef enum RdmaAccess {
    RDMA_ACCESS_STAGE, /* our own READs go through it: takes of the budget what there is */
    RDMA_ACCESS_LAND, /* our own READs may land there; like the next one it leaves the budget's reserve */
    RDMA_ACCESS_EXPORT, /* the other end may READ it; nobody writes */
} RdmaAccess;

/*
 * memory: whole pages, mapped for as long as this lives.  For RDMA_ACCESS_EXPORT mapped PROT_READ, of a file that
 * was opened for writing, too: before Linux 6.2 the kernel pins only what is mapped writable, so the mapping is
 * made so for as long as pinning takes (-EACCES: the file forbids it).
 * length: bytes, whole pages.  NULL with *ret_error: -EDQUOT (the budget is used up, but for its reserve), -ENOMEM (also
 * RLIMIT_MEMLOCK; rdma_memory_hint() says what to do), or another negative errno.  Pins, so it takes a while:
 * never on a fault's way.  Holds a reference to the device.
 */
RdmaMemory *rdma_memory_new(RdmaDevice *device, void *memory, size_t length, RdmaAccess access,
                            int *ret_error);

/* Unpins.  No READ may be under way there.  NULL is fine. */
void rdma_memory_free(RdmaMemory *memory);

uint32_t rdma_memory_lkey(const RdmaMemory *memory);
uint32_t rdma_memory_rkey(const RdmaMemory *memory);

/* One line for whoever runs the host: that so many bytes could not be pinned, the limit, what to raise. */
void rdma_memory_hint(uint64_t bytes, char *ret_text);

/* For `postcopyctl check` and status: whether any device is there at all, and their names, separated by
 * blanks, in ret_names[size].  How many.  Any thread. */
unsigned rdma_list_devices(char *ret_names, size_t size);

#endif
