/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What both wire formats bound.  A decoder refuses anything beyond these before it looks at the
 * rest; whoever holds a decoded message may rely on them.
 */
#ifndef POSTCOPYD_PROTOCOL_LIMITS_H
#define POSTCOPYD_PROTOCOL_LIMITS_H

#include <stdbool.h>
#include <stdint.h>

enum {
    LIMIT_NAME = 255,       /* bytes of a VM's name */
    LIMIT_REGION_ID = 127,  /* bytes of a region's id */
    LIMIT_ADDRESS = 255,    /* bytes of HOST:PORT, or of a socket's path */
    LIMIT_TEXT = 1023,      /* bytes of a reason meant for people */
    LIMIT_REGIONS = 128,    /* regions of a VM */
    LIMIT_VCPUS = 4096,     /* vCPU threads of a VM */
    LIMIT_SHARDS = 1024,    /* uffds of a VM */
    LIMIT_FDS = 1280,       /* fds that may accompany one message, over all its packets */
    LIMIT_FDS_PACKET = 200, /* fds in one packet; the kernel's bound is 253 (SCM_MAX_FD) */
    LIMIT_BLOB = 4096,      /* bytes of the state a client keeps for its daemon */
    LIMIT_UUID = 16,
    LIMIT_TOKEN = 32, /* bytes of a token, and of a secret */
};

/* Pages are 4 KiB to 1 GiB, regions 1 page to 16 TiB. */
#define LIMIT_PAGE_SIZE_MIN (UINT64_C(1) << 12)
#define LIMIT_PAGE_SIZE_MAX (UINT64_C(1) << 30)
#define LIMIT_REGION_LENGTH (UINT64_C(1) << 44)

/* Where a region lies in guest physical memory is not known. */
#define GUEST_ADDRESS_UNKNOWN UINT64_MAX

/* True if length and page size describe a region within the limits. */
static inline bool limits_region_fits(uint64_t length, uint64_t page_size)
{
    return page_size >= LIMIT_PAGE_SIZE_MIN && page_size <= LIMIT_PAGE_SIZE_MAX &&
           (page_size & (page_size - 1)) == 0 && length >= page_size &&
           length <= LIMIT_REGION_LENGTH && (length & (page_size - 1)) == 0;
}

#endif
