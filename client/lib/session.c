/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/lib/session.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "client/lib/change.h"
#include "client/lib/event.h"
#include "client/lib/request.h"
#include "client/lib/stale.h"

static void hello_regions(postcopy *pc, ClientHello *hello, uint32_t *n_fds)
{
    hello->n_regions = (uint32_t)pc->regions.n;
    for (uint32_t i = 0; i < hello->n_regions; i++) {
        const Region *region = &pc->regions.list[i];
        region_to_wire(region, (int32_t)*n_fds, &hello->regions[i]);
        if (region->fd >= 0)
            pc->fds[(*n_fds)++] = region->fd;
    }
}

/* Hands a successor all it needs to go on with the import that its predecessor left. */
static void hello_armed(postcopy *pc, ClientHello *hello, uint32_t *n_fds)
{
    const Armed *armed = &pc->armed;

    if (!armed->active)
        return;
    hello->flags |= CLIENT_HELLO_ARMED;
    hello->n_shards = armed->n_shards;
    memcpy(hello->shards, armed->shards, armed->n_shards * sizeof armed->shards[0]);
    hello->table_fd = *n_fds;
    pc->fds[(*n_fds)++] = armed->table.fd;
    memcpy(pc->fds + *n_fds, armed->uffds, armed->n_shards * sizeof armed->uffds[0]);
    *n_fds += armed->n_shards;
}

static void hello_problem(postcopy *pc, ClientHello *hello, const char *problem)
{
    Reason reason = {0};

    if (problem)
        reason_set(&reason, 0, "%s", problem);
    else if (pc->regions.n == 0)
        reason_set(&reason, 0, "none of this guest's memory is mapped any more");
    memcpy(hello->problem, reason.text, sizeof hello->problem);
    pc->problem_told = reason.text[0] != '\0';
}

static uint32_t make_hello(postcopy *pc, const char *problem)
{
    ClientHello *hello = &pc->out.hello;
    uint32_t n_fds = 0;

    memset(&pc->out, 0, sizeof pc->out);
    pc->out.type = CLIENT_HELLO;
    pc->out.serial = ++pc->last_serial;
    hello->role = (ClientRole)pc->role;
    memcpy(hello->uuid, pc->uuid, sizeof hello->uuid);
    memcpy(hello->name, pc->name, sizeof hello->name);
    hello_regions(pc, hello, &n_fds);
    hello_problem(pc, hello, problem);
    hello->n_vcpus = pc->n_vcpus;
    memcpy(hello->vcpus, pc->vcpus, pc->n_vcpus * sizeof pc->vcpus[0]);
    hello_armed(pc, hello, &n_fds);
    hello->blob_length = pc->blob_length;
    memcpy(hello->blob, pc->blob, pc->blob_length);
    return n_fds;
}

int session_greet(postcopy *pc)
{
    const char *problem = instance_refuse(pc);
    uint32_t n_fds;

    pthread_mutex_lock(&pc->lock);
    if (!pc->memory_in_use) {
        stale_drop(&pc->regions);
        if (pc->role == POSTCOPY_SOURCE)
            regions_drop_absent(&pc->regions);
    }
    n_fds = make_hello(pc, problem);
    request_finish_told(pc);
    pc->link = LINK_GREETING;
    pc->reconnect = false;
    pthread_mutex_unlock(&pc->lock);
    return instance_send(pc, pc->fds, n_fds);
}

static int reply(postcopy *pc, ClientMessageType type, int status, const Reason *reason,
                 const int *fds, size_t n_fds)
{
    pc->out.type = type;
    pc->out.serial = pc->in.serial;
    pc->out.status.status = status;
    pc->out.status.seal = 0;
    memcpy(pc->out.status.text, reason->text, sizeof pc->out.status.text);
    return instance_send(pc, fds, n_fds);
}

/* Reserves the memory for a use that excludes every other. */
static int claim_memory(postcopy *pc, ClientMessageType use, Reason *ret_reason)
{
    int error = 0;

    pthread_mutex_lock(&pc->lock);
    if (pc->stop)
        error = reason_set(ret_reason, -ESHUTDOWN, "this guest is about to leave");
    else if (pc->armed_flag)
        error = reason_set(ret_reason, -EBUSY, "this guest still waits for its own memory");
    else if (pc->exported && use == CLIENT_ARM)
        error = reason_set(ret_reason, -EBUSY, "this guest's memory is exported");
    else if (pc->role == POSTCOPY_SOURCE && use == CLIENT_ARM)
        error = reason_set(ret_reason, -EPERM, "this guest runs: its memory must stay");
    else
        pc->memory_in_use = true;
    pthread_mutex_unlock(&pc->lock);
    return error;
}

/* The memory is claimed. */
static int ask_vmm(postcopy *pc, enum postcopy_role role, Reason *ret_reason)
{
    const char *problem = pc->refuse ? pc->refuse(pc->user, role) : NULL;

    if (problem)
        return reason_set(ret_reason, -EOPNOTSUPP, "%s", problem);
    if (pc->regions.n == 0)
        return reason_set(ret_reason, -ENODATA, "this guest has no memory to serve");
    return 0;
}

static int arm(postcopy *pc, int table_fd, int device_fd, Reason *ret_reason)
{
    int error = claim_memory(pc, CLIENT_ARM, ret_reason);

    if (error) {
        if (table_fd >= 0)
            close(table_fd);
        return error;
    }
    error = ask_vmm(pc, POSTCOPY_DESTINATION, ret_reason);
    if (error && table_fd >= 0)
        close(table_fd);
    if (!error)
        error = armed_begin(&pc->armed, &pc->regions, &pc->in, table_fd, device_fd, ret_reason);
    pthread_mutex_lock(&pc->lock);
    pc->armed_flag = pc->armed.active;
    pc->memory_in_use = pc->armed.active;
    pthread_mutex_unlock(&pc->lock);
    return error;
}

static int handle_arm_region(postcopy *pc)
{
    Reason reason = {0};
    int device_fd =
        pc->in.arm.flags & CLIENT_ARM_DEVICE ? client_channel_take_fd(&pc->channel, 0) : -1;
    uint32_t first = 0;
    int status = change_arm(pc, device_fd, &first, &reason);

    if (device_fd >= 0)
        close(device_fd);
    return reply(pc, CLIENT_ARMED, status, &reason, pc->armed.uffds + first,
                 status ? 0 : pc->armed.n_shards - first);
}

static int handle_arm(postcopy *pc)
{
    Reason reason = {0};
    int table_fd = client_channel_take_fd(&pc->channel, 0);
    int device_fd = -1;
    int status, error;

    if (pc->in.arm.flags & CLIENT_ARM_DEVICE)
        device_fd = client_channel_take_fd(&pc->channel, 1);
    status = arm(pc, table_fd, device_fd, &reason);
    if (device_fd >= 0)
        close(device_fd);
    /* Before the answer: by the time the source hears of it, whoever waits here has to see it. */
    if (!status)
        event_raise(pc, POSTCOPY_ARMED, "");
    error =
        reply(pc, CLIENT_ARMED, status, &reason, pc->armed.uffds, status ? 0 : pc->armed.n_shards);
    /* The daemon's picture of our memory is old: the next HELLO gives it a new one. */
    return status == -ESTALE ? -ESTALE : error;
}

static bool is_changing(postcopy *pc)
{
    bool changing;

    pthread_mutex_lock(&pc->lock);
    changing = change_is_under_way(pc);
    pthread_mutex_unlock(&pc->lock);
    return changing;
}

static int release(postcopy *pc, uint32_t flags, Reason *ret_reason)
{
    int error;

    if (!pc->armed.active)
        return reason_set(ret_reason, -EINVAL, "nothing is armed");
    if (!(flags & CLIENT_RELEASE_DISARM) && is_changing(pc))
        return reason_set(ret_reason, -EBUSY, "a region is coming or going");
    error = armed_end(&pc->armed, &pc->regions, flags, ret_reason);
    if (error)
        return error;
    pthread_mutex_lock(&pc->lock);
    pc->armed_flag = false;
    pc->memory_in_use = false;
    change_cancel(pc, "the memory was let go of meanwhile");
    /* Its memory is its own now.  One that was disarmed has none yet, and waits for a source still. */
    if (!(flags & CLIENT_RELEASE_DISARM)) {
        pc->role = POSTCOPY_SOURCE;
        regions_drop_absent(&pc->regions);
    }
    pthread_mutex_unlock(&pc->lock);
    return 0;
}

static int handle_release(postcopy *pc)
{
    Reason reason = {0};
    uint32_t flags = pc->in.release.flags;
    int status = release(pc, flags, &reason);
    int error = reply(pc, CLIENT_RELEASED, status, &reason, NULL, 0);

    if (!status)
        event_raise(pc, flags & CLIENT_RELEASE_DISARM ? POSTCOPY_CANCELLED : POSTCOPY_RELEASED, "");
    return error;
}

static int handle_export(postcopy *pc)
{
    Reason reason = {0};
    int status = claim_memory(pc, CLIENT_EXPORT, &reason);

    if (!status) {
        status = ask_vmm(pc, POSTCOPY_SOURCE, &reason);
        if (!status)
            status = stale_check(&pc->regions, &reason);
        pthread_mutex_lock(&pc->lock);
        pc->exported = pc->memory_in_use = status == 0;
        /* What is exported runs, or ran: it must not be emptied by an ARM any more. */
        if (!status)
            pc->role = POSTCOPY_SOURCE;
        pthread_mutex_unlock(&pc->lock);
    }
    int error = reply(pc, CLIENT_EXPORTED, status, &reason, NULL, 0);
    return status == -ESTALE ? -ESTALE : error;
}

static int handle_keep(postcopy *pc)
{
    pc->blob_length = pc->in.keep.length;
    memcpy(pc->blob, pc->in.keep.blob, pc->blob_length);
    pc->out.type = CLIENT_OK;
    pc->out.serial = pc->in.serial;
    return instance_send(pc, NULL, 0);
}

static int handle_unexpected(postcopy *pc)
{
    Reason reason = {0};

    reason_set(&reason, 0,
               pc->in.type == CLIENT_UNKNOWN ? "unknown message type"
                                             : "a client takes no such message");
    return reply(pc, CLIENT_ERROR, -EOPNOTSUPP, &reason, NULL, 0);
}

int session_handle(postcopy *pc)
{
    switch (pc->in.type) {
    case CLIENT_ARM:
        return pc->in.arm.flags & CLIENT_ARM_REGION ? handle_arm_region(pc) : handle_arm(pc);
    case CLIENT_RELEASE:
        return handle_release(pc);
    case CLIENT_EXPORT:
        return handle_export(pc);
    case CLIENT_KEEP:
        return handle_keep(pc);
    case CLIENT_STATE:
        event_from_state(pc, &pc->in);
        return 0;
    case CLIENT_OK:
    case CLIENT_ERROR:
    case CLIENT_OFFERED:
    case CLIENT_SEALED:
        /* An answer, also one that nobody waits for any more, is never answered itself. */
        if (!change_answer(pc))
            request_answer(pc, &pc->in);
        return 0;
    default:
        return handle_unexpected(pc);
    }
}
