/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/lib/change.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "client/lib/mapping.h"
#include "client/lib/request.h"

enum { CHANGE_TIMEOUT_MS = 30000 };

/* --- who asks for it ----------------------------------------------------------------------- */

static void clear(Change *change)
{
    if (change->kind == CHANGE_ADD && !change->registered && change->region.fd >= 0)
        close(change->region.fd);
    *change = (Change){.kind = CHANGE_NONE};
}

/* Under the lock: the caller takes the result, or nobody does. */
static void finish(postcopy *pc, int status, const char *text)
{
    Change *change = &pc->change;

    change->status = reason_set(&change->reason, status, "%s", text);
    change->done = true;
    if (change->alone)
        clear(change);
    pthread_cond_broadcast(&pc->changed);
}

static int await(postcopy *pc, Reason *ret_reason)
{
    struct timespec deadline = request_deadline(CHANGE_TIMEOUT_MS);
    Change *change = &pc->change;
    int status;

    instance_wake(pc);
    while (!change->done && request_wait(pc, CHANGE_TIMEOUT_MS, &deadline))
        ;
    if (change->done) {
        status = change->status;
        *ret_reason = change->reason;
        clear(change);
    } else if (change->sent || change->registered) {
        status = reason_set(ret_reason, -ETIMEDOUT, "the daemon did not answer in time");
        change->alone = true;
    } else {
        status = reason_set(ret_reason, -ETIMEDOUT, "not connected: %s", pc->link_reason.text);
        clear(change);
    }
    return status;
}

static int busy(const postcopy *pc, Reason *ret_reason)
{
    if (pc->change.kind == CHANGE_NONE)
        return 0;
    return reason_set(ret_reason, -EBUSY, "another region is coming or going");
}

int change_add(postcopy *pc, const struct postcopy_region *region, Reason *ret_reason)
{
    int error = busy(pc, ret_reason);
    Region added;
    int index;

    if (!error && (region->flags & POSTCOPY_REGION_ABSENT))
        error = reason_set(ret_reason, -EINVAL, "a region that is added must be mapped");
    if (!error)
        error = region_make(region, &added, ret_reason);
    if (error)
        return error;
    index = regions_find_absent(&pc->regions, &added);
    if (index < 0)
        error = reason_set(ret_reason, -EBUSY,
                           "the memory is armed, and no absent region has that id, guest address, "
                           "length and page size");
    else if (regions_overlap(&pc->regions, &added))
        error = reason_set(ret_reason, -EEXIST, "two regions overlap at %p", (void *)added.address);
    else
        error = mapping_check(&added, ret_reason);
    if (error) {
        if (added.fd >= 0)
            close(added.fd);
        return error;
    }
    pc->change = (Change){.kind = CHANGE_ADD, .index = (uint32_t)index, .region = added};
    return await(pc, ret_reason);
}

int change_remove(postcopy *pc, const void *address, Reason *ret_reason)
{
    int error = busy(pc, ret_reason);
    int index = regions_find(&pc->regions, address);

    if (error)
        return error;
    if (index < 0)
        return reason_set(ret_reason, -ENOENT, "no region starts there");
    pc->change = (Change){.kind = CHANGE_REMOVE, .index = (uint32_t)index};
    return await(pc, ret_reason);
}

/* --- the library's thread ------------------------------------------------------------------ */

/* Under the lock. */
static bool is_to_be_sent(postcopy *pc)
{
    Change *change = &pc->change;

    return change->kind != CHANGE_NONE && !change->done && !change->sent && !change->registered;
}

int change_send(postcopy *pc)
{
    Change *change = &pc->change;
    ClientMessage *message = &pc->out;
    int fd = -1;
    bool send;

    pthread_mutex_lock(&pc->lock);
    send = is_to_be_sent(pc);
    if (send && !pc->armed.active) {
        finish(pc, -EBUSY, "the memory was released meanwhile");
        send = false;
    }
    if (send) {
        const Region *region =
            change->kind == CHANGE_ADD ? &change->region : &pc->regions.list[change->index];
        change->sent = true;
        change->serial = message->serial = ++pc->last_serial;
        message->type = change->kind == CHANGE_ADD ? CLIENT_REGION_ADD : CLIENT_REGION_REMOVE;
        region_to_wire(region, 0, &message->region);
        if (change->kind == CHANGE_ADD) {
            fd = region->fd;
        } else { /* the message carries no fd, so the region goes as if it had none */
            message->region.kind = CLIENT_REGION_ANONYMOUS;
            message->region.fd = -1;
        }
    }
    pthread_mutex_unlock(&pc->lock);
    return send ? instance_send(pc, &fd, fd >= 0) : 0;
}

/* Others look at the list under the lock, to find and compare. */
static void set_region(postcopy *pc, const Region *region)
{
    pthread_mutex_lock(&pc->lock);
    pc->regions.list[pc->change.index] = *region;
    pthread_mutex_unlock(&pc->lock);
}

static void set_absent(postcopy *pc)
{
    Region region = pc->regions.list[pc->change.index];

    region_take_away(&region);
    set_region(pc, &region);
}

int change_arm(postcopy *pc, int device_fd, uint32_t *ret_first, Reason *ret_reason)
{
    Change *change = &pc->change;
    Region absent;
    bool awaited;
    int error;

    pthread_mutex_lock(&pc->lock);
    awaited = change->kind == CHANGE_ADD && change->sent && !change->registered && !change->done;
    pthread_mutex_unlock(&pc->lock);
    if (!awaited || !pc->armed.active)
        return reason_set(ret_reason, -EINVAL, "no region is to be added");
    absent = pc->regions.list[change->index];
    set_region(pc, &change->region);
    error = armed_add(&pc->armed, &pc->regions, change->index, &pc->in, device_fd, ret_first,
                      ret_reason);
    if (error) {
        set_region(pc, &absent); /* its fd stays the change's */
        return error;
    }
    pthread_mutex_lock(&pc->lock);
    change->registered = true;
    pthread_mutex_unlock(&pc->lock);
    return 0;
}

/* What the answer means for the memory. */
static int conclude(postcopy *pc, int status)
{
    Change *change = &pc->change;

    if (change->kind == CHANGE_ADD && status == 0 && !change->registered)
        return -EPROTO;
    if ((change->kind == CHANGE_REMOVE && status == 0) ||
        (change->kind == CHANGE_ADD && status < 0 && change->registered)) {
        armed_remove(&pc->armed, &pc->regions, change->index);
        set_absent(pc);
    }
    return status;
}

bool change_answer(postcopy *pc)
{
    const ClientMessage *message = &pc->in;
    Change *change = &pc->change;
    const char *text = message->type == CLIENT_OK ? "" : message->status.text;
    int status = message->type == CLIENT_OK ? 0 : message->status.status;
    bool mine;

    pthread_mutex_lock(&pc->lock);
    mine = change->kind != CHANGE_NONE && change->sent && !change->done &&
           change->serial == message->serial;
    pthread_mutex_unlock(&pc->lock);
    if (!mine)
        return false;
    if (status > 0 || (message->type != CLIENT_OK && status == 0))
        status = -EPROTO;
    status = conclude(pc, status);
    pthread_mutex_lock(&pc->lock);
    finish(pc, status, text);
    pthread_mutex_unlock(&pc->lock);
    return true;
}

bool change_is_under_way(const postcopy *pc)
{
    const Change *change = &pc->change;

    return change->kind != CHANGE_NONE && !change->done && (change->sent || change->registered);
}

void change_cancel(postcopy *pc, const char *text)
{
    if (pc->change.kind != CHANGE_NONE && !pc->change.done)
        finish(pc, -ECANCELED, text);
}

void change_welcomed(postcopy *pc)
{
    if (pc->change.registered && !pc->change.done)
        finish(pc, 0, "");
}

void change_disconnected(postcopy *pc, const char *text)
{
    Change *change = &pc->change;

    if (change->kind == CHANGE_NONE || change->done || !change->sent)
        return;
    if (change->kind == CHANGE_REMOVE)
        change->sent = false;
    else if (!change->registered)
        finish(pc, -ECONNRESET, text);
}
