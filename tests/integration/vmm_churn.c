/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/integration/vmm_churn.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

/* So that it takes next to nothing of the cores, which others are measured on. */
enum { PAUSE_US = 10000 };

struct VmmChurn {
    VmmPlug *plug;
    pthread_t thread;
    int stop; /* atomic */
    int error;
    int64_t rounds;
};

static int go_and_come(VmmChurn *churn)
{
    int error = vmm_plug_out(churn->plug);

    return error ? error : vmm_plug_in(churn->plug);
}

static void *run(void *argument)
{
    VmmChurn *churn = argument;

    while (!churn->error && !__atomic_load_n(&churn->stop, __ATOMIC_RELAXED)) {
        churn->error = go_and_come(churn);
        churn->rounds += !churn->error;
        usleep(PAUSE_US);
    }
    return NULL;
}

VmmChurn *vmm_churn_start(VmmPlug *plug)
{
    VmmChurn *churn = calloc(1, sizeof *churn);

    if (!churn)
        abort();
    churn->plug = plug;
    if (go_and_come(churn)) {
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
    free(churn);
    return result;
}
