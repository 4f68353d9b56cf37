/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef POSTCOPY_QEMU_CLOCK_H
#define POSTCOPY_QEMU_CLOCK_H

#include <stdint.h>
#include <time.h>

#define CLOCK_MS UINT64_C(1000000)

/* CLOCK_MONOTONIC in ns, which is the daemon's clock too. */
static inline uint64_t clock_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

#endif
