/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/source/watch.h"

#include <stdio.h>
#include <stdlib.h>

/* Saving the state of a vCPU takes well under a millisecond of its thread; a guest that was
 * continued uses this up in moments, or is idle and changes nothing yet. */
#define TOLERATED_NS UINT64_C(30000000)

uint64_t watch_cpu_ns(int pid, const uint32_t *tids, uint32_t n)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < n; i++) {
        char path[64], text[64];
        FILE *file;

        snprintf(path, sizeof path, "/proc/%d/task/%u/schedstat", pid, tids[i]);
        file = fopen(path, "re");
        if (!file)
            continue;
        if (fgets(text, sizeof text, file)) /* the first of three figures */
            sum += strtoull(text, NULL, 10);
        fclose(file);
    }
    return sum;
}

bool watch_means_running(uint64_t at_seal_ns, uint64_t now_ns)
{
    return now_ns > at_seal_ns && now_ns - at_seal_ns > TOLERATED_NS;
}
