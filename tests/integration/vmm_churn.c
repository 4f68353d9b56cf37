/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/integration/vmm_churn.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/integration/vmm_memory.h"

/* So that it takes next to nothing of the cores, which others are measured on. */
enum { PAUSE_US = 1000 };

struct VmmChurn {
    postcopy *pc;
    struct postcopy_region region;
    pthread_t thread;
    int stop; /* atomic */
    int error;
    int64_t rounds;
};

static int come_and_go(VmmChurn *churn)
{
    int error = postcopy_add_region(churn->pc, &churn->region);

    return error ? error : postcopy_remove_region(churn->pc, churn->region.address);
}

static void *run(void *argument)
{
    VmmChurn *churn = argument;

    while (!churn->error && !__atomic_load_n(&churn->stop, __ATOMIC_RELAXED)) {
        churn->error = come_and_go(churn);
        churn->rounds += !churn->error;
        usleep(PAUSE_US);
    }
    return NULL;
}

VmmChurn *vmm_churn_start(postcopy *pc, uint64_t length)
{
    VmmChurn *churn = calloc(1, sizeof *churn);

    if (!churn)
        abort();
    churn->pc = pc;
    churn->region = (struct postcopy_region){
        .id = "churn",
        .guest_address = UINT64_C(1) << 46,
        .length = length,
        .page_size = VMM_PAGE,
        .backing = POSTCOPY_ANONYMOUS,
        .fd = -1,
    };
    churn->region.address = mmap(NULL, length, PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (churn->region.address == MAP_FAILED)
        abort();
    if (come_and_go(churn)) {
        munmap(churn->region.address, length);
        free(churn);
        return NULL;
    }
    if (pthread_create(&churn->thread, NULL, run, churn))
        abort();
    return churn;
}

int64_t vmm_churn_stop(VmmChurn *churn)
{
    int64_t result;

    __atomic_store_n(&churn->stop, 1, __ATOMIC_RELAXED);
    pthread_join(churn->thread, NULL);
    result = churn->error ? churn->error : churn->rounds;
    if (!churn->error)
        munmap(churn->region.address, churn->region.length);
    free(churn);
    return result;
}
