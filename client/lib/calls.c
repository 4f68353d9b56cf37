/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The public calls during an instance's life.  Each checks its arguments, changes what is under the
 * lock, and, where the daemon has to know or to answer, makes a request of it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/change.h"
#include "client/lib/error.h"
#include "client/lib/instance.h"
#include "client/lib/mapping.h"
#include "client/lib/postcopy.h"
#include "client/lib/request.h"
#include "client/lib/stale.h"
#include "protocol/text.h"

enum { TELL_TIMEOUT_MS = 5000 }; /* for calls without a time of their own */

static ClientMessage *new_message(ClientMessageType type)
{
    ClientMessage *message = calloc(1, sizeof *message);

    if (message)
        message->type = type;
    return message;
}

/* Under the lock. */
static int call(postcopy *pc, ClientMessage *message, int fd, int timeout_ms)
{
    RequestCall request = {.message = message, .fd = fd, .timeout_ms = timeout_ms};

    return request_run(pc, request, &error_of_thread);
}

static int call_plain(postcopy *pc, ClientMessageType type, int timeout_ms)
{
    ClientMessage *message = new_message(type);
    int error;

    if (!message)
        return error_set(-ENOMEM, "out of memory");
    pthread_mutex_lock(&pc->lock);
    error = call(pc, message, -1, timeout_ms);
    pthread_mutex_unlock(&pc->lock);
    return error_clear(error);
}

int postcopy_set_vcpus(postcopy *pc, const uint32_t *vcpus, size_t n_vcpus)
{
    ClientMessage *message;
    int error = 0;

    if (n_vcpus > LIMIT_VCPUS)
        return error_set(-EINVAL, "too many vCPUs");
    message = new_message(CLIENT_VCPUS);
    if (!message)
        return error_set(-ENOMEM, "out of memory");
    message->vcpus.n = (uint32_t)n_vcpus;
    if (n_vcpus)
        memcpy(message->vcpus.tids, vcpus, n_vcpus * sizeof *vcpus);

    pthread_mutex_lock(&pc->lock);
    pc->n_vcpus = message->vcpus.n;
    memcpy(pc->vcpus, message->vcpus.tids, n_vcpus * sizeof *vcpus);
    if (pc->link == LINK_DOWN)
        free(message);
    else
        error = call(pc, message, -1, TELL_TIMEOUT_MS);
    pthread_mutex_unlock(&pc->lock);
    return error_clear(error);
}

/* Under the lock: the daemon forgets what it knew, and hears everything anew. */
static void start_over(postcopy *pc)
{
    pc->reconnect = true;
    instance_wake(pc);
}

/* Under the lock: tells the daemon of a region just added.  fd is a dup for the message. */
static int tell_added(postcopy *pc, ClientMessage *message)
{
    Region *added = &pc->regions.list[pc->regions.n - 1];
    void *address = added->address;
    int fd = added->fd >= 0 ? fcntl(added->fd, F_DUPFD_CLOEXEC, 3) : -1;
    int error, index;

    region_to_wire(added, 0, &message->region);
    if (added->fd >= 0 && fd < 0) {
        free(message);
        error = error_set(-errno, strerror(errno));
    } else {
        error = call(pc, message, fd, TELL_TIMEOUT_MS);
    }
    index = regions_find(&pc->regions, address);
    if (error && index >= 0 && !pc->memory_in_use)
        regions_remove(&pc->regions, (size_t)index);
    return error;
}

/* Under the lock. */
static int add_region(postcopy *pc, const struct postcopy_region *region)
{
    ClientMessage *message;
    int error, absent;

    if (pc->armed_flag)
        return change_add(pc, region, &error_of_thread);
    if (pc->memory_in_use)
        return error_set(-EBUSY, "the memory is armed or exported");
    if (region->flags & POSTCOPY_REGION_ABSENT)
        return error_set(-EINVAL, "a region that is added must be mapped");
    if (stale_drop(&pc->regions) && pc->link != LINK_DOWN)
        start_over(pc);
    error = regions_add(&pc->regions, region, &error_of_thread);
    if (error)
        return error;
    if (mapping_check(&pc->regions.list[pc->regions.n - 1], &error_of_thread)) {
        regions_remove(&pc->regions, pc->regions.n - 1);
        return -EINVAL;
    }
    absent = regions_find_absent(&pc->regions, &pc->regions.list[pc->regions.n - 1]);
    if (absent >= 0)
        regions_remove(&pc->regions, (size_t)absent);
    if (pc->problem_told)
        start_over(pc);
    if (pc->link == LINK_DOWN || pc->reconnect)
        return 0;
    message = new_message(CLIENT_REGION_ADD);
    if (!message) {
        regions_remove(&pc->regions, pc->regions.n - 1);
        return error_set(-ENOMEM, "out of memory");
    }
    return tell_added(pc, message);
}

int postcopy_add_region(postcopy *pc, const struct postcopy_region *region)
{
    int error;

    pthread_mutex_lock(&pc->lock);
    error = add_region(pc, region);
    pthread_mutex_unlock(&pc->lock);
    return error_clear(error);
}

/* Under the lock. */
static int remove_region(postcopy *pc, const void *address)
{
    int index = regions_find(&pc->regions, address);
    ClientMessage *message;
    Region *region;

    if (pc->armed_flag)
        return change_remove(pc, address, &error_of_thread);
    if (pc->memory_in_use)
        return error_set(-EBUSY, "the memory is armed or exported");
    if (index < 0)
        return error_set(-ENOENT, "no region starts there");
    message = new_message(CLIENT_REGION_REMOVE);
    if (!message)
        return error_set(-ENOMEM, "out of memory");
    /* The message carries no fd, so the region goes as if it had none. */
    region = &pc->regions.list[index];
    region_to_wire(region, -1, &message->region);
    message->region.kind = CLIENT_REGION_ANONYMOUS;
    message->region.fd = -1;
    regions_remove(&pc->regions, (size_t)index);
    if (pc->link == LINK_DOWN) {
        free(message);
        return 0;
    }
    return call(pc, message, -1, TELL_TIMEOUT_MS);
}

int postcopy_remove_region(postcopy *pc, const void *address)
{
    int error;

    pthread_mutex_lock(&pc->lock);
    error = remove_region(pc, address);
    pthread_mutex_unlock(&pc->lock);
    return error_clear(error);
}

int postcopy_offer(postcopy *pc, const char *destination, int timeout_ms)
{
    ClientMessage *message;
    int error;

    if (!destination || !*destination || strlen(destination) > LIMIT_ADDRESS ||
        !text_is_plain(destination, strlen(destination)))
        return error_set(-EINVAL, "the destination is not HOST:PORT");
    message = new_message(CLIENT_OFFER);
    if (!message)
        return error_set(-ENOMEM, "out of memory");
    memcpy(message->offer.destination, destination, strlen(destination) + 1);
    pthread_mutex_lock(&pc->lock);
    error = call(pc, message, -1, timeout_ms);
    pthread_mutex_unlock(&pc->lock);
    return error_clear(error);
}

int postcopy_seal(postcopy *pc, int timeout_ms)
{
    return call_plain(pc, CLIENT_SEAL, timeout_ms);
}

int postcopy_cancel(postcopy *pc, int timeout_ms)
{
    return call_plain(pc, CLIENT_CANCEL, timeout_ms);
}

/* A destination that runs although nothing was armed got its memory in another way: from now on it
 * is a source like any other, and must never be armed. */
static bool is_nobodys_concern(postcopy *pc)
{
    bool changed, released;

    pthread_mutex_lock(&pc->lock);
    changed = pc->role == POSTCOPY_DESTINATION && !pc->memory_in_use;
    if (changed) {
        pc->role = POSTCOPY_SOURCE;
        start_over(pc);
    }
    /* Released and not exported since: the daemon has no more to do with whether it runs. */
    released = pc->event == POSTCOPY_RELEASED && !pc->memory_in_use;
    pthread_mutex_unlock(&pc->lock);
    return changed || released;
}

int postcopy_running(postcopy *pc, int timeout_ms)
{
    if (is_nobodys_concern(pc))
        return error_clear(0);
    return call_plain(pc, CLIENT_RUNNING, timeout_ms);
}
