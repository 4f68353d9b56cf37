/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/core/disposal.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

typedef struct Disposal {
    uint32_t n;
    int fds[LIMIT_REGIONS];
} Disposal;

static void *close_all(void *argument)
{
    Disposal *disposal = argument;

    for (uint32_t i = 0; i < disposal->n; i++)
        close(disposal->fds[i]);
    free(disposal);
    return NULL;
}

static int start(Disposal *disposal)
{
    pthread_attr_t attributes;
    pthread_t thread;
    int error = pthread_attr_init(&attributes);

    if (error)
        return error;
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    error = pthread_create(&thread, &attributes, close_all, disposal);
    pthread_attr_destroy(&attributes);
    return error;
}

void region_set_dispose(RegionSet *set)
{
    Disposal *disposal = calloc(1, sizeof *disposal);

    if (!disposal) {
        region_set_deinit(set);
        return;
    }
    for (uint32_t i = 0; i < set->n; i++)
        if (set->regions[i].fd >= 0)
            disposal->fds[disposal->n++] = set->regions[i].fd;
    set->n = 0;
    if (disposal->n == 0)
        free(disposal);
    else if (start(disposal))
        close_all(disposal);
}
