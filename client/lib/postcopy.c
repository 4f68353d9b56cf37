/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An instance's life: made, waited for, freed.
 */
#include "client/lib/postcopy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/un.h>
#include <unistd.h>

#include "client/lib/connection.h"
#include "client/lib/error.h"
#include "client/lib/event.h"
#include "client/lib/instance.h"
#include "client/lib/mapping.h"
#include "client/lib/request.h"
#include "protocol/text.h"

static int add_regions(postcopy *pc, const struct postcopy_config *config)
{
    int error = 0;

    for (size_t i = 0; !error && i < config->n_regions; i++) {
        error = regions_add(&pc->regions, &config->regions[i], &error_of_thread);
        if (!error && (config->regions[i].flags & POSTCOPY_REGION_ABSENT)) {
            if (config->role == POSTCOPY_SOURCE)
                error = error_set(-EINVAL, "a source's region cannot be absent");
            continue;
        }
        if (!error && mapping_check(&pc->regions.list[pc->regions.n - 1], &error_of_thread))
            error = -EINVAL;
    }
    return error;
}

static int check_config(const struct postcopy_config *config, const char *socket_path)
{
    struct sockaddr_un address;

    if (config->size < sizeof *config)
        return error_set(-EINVAL, "the configuration is of another version");
    if (config->role != POSTCOPY_SOURCE && config->role != POSTCOPY_DESTINATION)
        return error_set(-EINVAL, "the role is neither source nor destination");
    if (strlen(socket_path) >= sizeof address.sun_path)
        return error_set(-EINVAL, "the socket's path is too long");
    if (config->name && strlen(config->name) > LIMIT_NAME)
        return error_set(-EINVAL, "the name is too long");
    if (config->name && !text_is_plain(config->name, strlen(config->name)))
        return error_set(-EINVAL, "the name is not printable UTF-8");
    if ((config->n_regions == 0 && !config->refuse) || config->n_regions > LIMIT_REGIONS)
        return error_set(-EINVAL, "the number of regions is out of bounds");
    if (config->n_vcpus > LIMIT_VCPUS)
        return error_set(-EINVAL, "too many vCPUs");
    return 0;
}

static int configure(postcopy *pc, const struct postcopy_config *config, const char *socket_path)
{
    memcpy(pc->socket_path, socket_path, strlen(socket_path) + 1);
    if (config->name)
        memcpy(pc->name, config->name, strlen(config->name) + 1);
    memcpy(pc->uuid, config->uuid, sizeof pc->uuid);
    pc->notify = config->notify;
    pc->refuse = config->refuse;
    pc->user = config->user;
    pc->role = config->role;
    if (config->vcpus) {
        pc->n_vcpus = (uint32_t)config->n_vcpus;
        memcpy(pc->vcpus, config->vcpus, config->n_vcpus * sizeof pc->vcpus[0]);
    }
    return add_regions(pc, config);
}

static void destroy(postcopy *pc)
{
    regions_deinit(&pc->regions);
    if (pc->wake >= 0)
        close(pc->wake);
    pthread_cond_destroy(&pc->changed);
    pthread_mutex_destroy(&pc->lock);
    free(pc);
}

static postcopy *allocate(void)
{
    postcopy *pc = calloc(1, sizeof *pc);
    pthread_condattr_t attributes;

    if (!pc)
        return NULL;
    pthread_mutex_init(&pc->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&pc->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    pc->socket = -1;
    pc->wake = -1;
    return pc;
}

static void stop_and_destroy(postcopy *pc)
{
    instance_wake(pc);
    pthread_join(pc->thread, NULL);
    destroy(pc);
}

/* Stops the library in the same breath as it gives up, so that nothing can be armed in between. */
static int await_daemon(postcopy *pc, int timeout_ms)
{
    struct timespec deadline = request_deadline(timeout_ms);
    bool in_time = true;
    int status = 0;

    pthread_mutex_lock(&pc->lock);
    while (pc->link != LINK_UP && !pc->refused && in_time)
        in_time = request_wait(pc, timeout_ms, &deadline);
    if (pc->link != LINK_UP) {
        status = pc->refused ? pc->link_status : -ETIMEDOUT;
        error_of_thread = pc->link_reason;
        pc->stop = true;
    }
    pthread_mutex_unlock(&pc->lock);
    return status;
}

int postcopy_connect(const struct postcopy_config *config, unsigned flags, int timeout_ms,
                     postcopy **ret)
{
    const char *socket_path = config->socket ? config->socket : POSTCOPY_DEFAULT_SOCKET;
    int error = check_config(config, socket_path);
    postcopy *pc;

    *ret = NULL;
    if (error)
        return error;
    pc = allocate();
    if (!pc)
        return error_set(-ENOMEM, "out of memory");
    pc->armed.holder_pidfd = -1;
    error = configure(pc, config, socket_path);
    if (!error) {
        pc->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        error = pc->wake < 0 ? error_set(-errno, strerror(errno)) : 0;
    }
    if (!error) {
        error = connection_start(pc);
        if (error)
            error_set(error, strerror(-error));
    }
    if (error) {
        destroy(pc);
        return error;
    }
    if (flags & POSTCOPY_WAIT)
        error = await_daemon(pc, timeout_ms);
    if (error)
        stop_and_destroy(pc);
    else
        *ret = pc;
    return error_clear(error);
}

int postcopy_free(postcopy *pc)
{
    if (!pc)
        return error_clear(0);
    pthread_mutex_lock(&pc->lock);
    /* Not while it is being armed either: the daemon would be told that it is. */
    pc->stop = !pc->memory_in_use || pc->exported;
    bool stop = pc->stop;
    pthread_mutex_unlock(&pc->lock);
    if (!stop)
        return error_set(-EBUSY, "the memory is armed and not released");
    stop_and_destroy(pc);
    return error_clear(0);
}

const char *postcopy_error(const postcopy *pc)
{
    postcopy *locked = (postcopy *)pc;

    if (!error_of_thread.text[0] && locked) {
        pthread_mutex_lock(&locked->lock);
        if (locked->link != LINK_UP)
            error_of_thread = locked->link_reason;
        pthread_mutex_unlock(&locked->lock);
    }
    return error_of_thread.text;
}

int postcopy_wait(postcopy *pc, enum postcopy_event event, int timeout_ms)
{
    struct timespec deadline = request_deadline(timeout_ms);
    bool in_time = true;
    int result;

    pthread_mutex_lock(&pc->lock);
    while (!event_is_reached(pc, event) && in_time)
        in_time = request_wait(pc, timeout_ms, &deadline);
    if (!event_is_reached(pc, event))
        result = reason_set(&error_of_thread, -ETIMEDOUT, "it has not come in time");
    else if (event == POSTCOPY_CONNECTED || event == POSTCOPY_DISCONNECTED)
        result = (int)event;
    else
        result = pc->event;
    pthread_mutex_unlock(&pc->lock);
    return error_clear(result);
}
