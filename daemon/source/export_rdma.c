/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/source/export_rdma.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#include "daemon/core/log.h"
#include "daemon/transport/rdma_pair.h"

static const char gone[] = "this session has ended, or its guest may not be read any more";

/* --- what pins ----------------------------------------------------------------------------- */

/* So that one VM leaves something for others. */
static uint64_t share_of(const ExportRdma *rdma)
{
    return rdma->budget->most / 2;
}

static uint64_t device_room(void *owner)
{
    const ExportRdma *rdma = owner;
    uint64_t own = atomic_load(&rdma->export->rdma_pinned);
    uint64_t left = rdma_budget_room(rdma->budget);
    uint64_t share = own < share_of(rdma) ? share_of(rdma) - own : 0;

    return left < share ? left : share;
}

/* ENOMEM is what a device says, too, that has as many regions as it can have: nobody can tell which it was. */
static void tell_limit(ExportRdma *rdma, size_t length, int error)
{
    char text[LIMIT_TEXT + 1];

    if (rdma->limit_told)
        return;
    rdma->limit_told = true;
    if (error != -ENOMEM) {
        log_warning("%s: RDMA: its memory cannot be pinned for %s: %s", rdma->export->name,
                    rdma_device_name(rdma->device), strerrordesc_np(-error));
        return;
    }
    rdma_memory_hint(length, text);
    log_warning("%s: RDMA: %s; or %s has no memory region left: then move fewer VMs at once",
                rdma->export->name, text, rdma_device_name(rdma->device));
}

static void *device_pin(void *owner, void *memory, size_t length, uint32_t *ret_rkey,
                        int *ret_error)
{
    ExportRdma *rdma = owner;
    _Atomic uint64_t *own = &rdma->export->rdma_pinned;
    RdmaMemory *pinned = NULL;

    *ret_error = -EDQUOT;
    if (atomic_fetch_add(own, length) + length <= share_of(rdma))
        pinned = rdma_memory_new(rdma->device, memory, length, RDMA_ACCESS_EXPORT, ret_error);
    if (pinned) {
        *ret_rkey = rdma_memory_rkey(pinned);
        return pinned;
    }
    atomic_fetch_sub(own, length);
    if (*ret_error != -EDQUOT)
        tell_limit(rdma, length, *ret_error);
    return NULL;
}

static void device_unpin(void *owner, void *pinned, size_t length)
{
    ExportRdma *rdma = owner;

    rdma_memory_free(pinned);
    atomic_fetch_sub(&rdma->export->rdma_pinned, length);
}

/* --- the end of a session ------------------------------------------------------------------ */

void export_rdma_init(Export *export)
{
    pthread_condattr_t attributes;

    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&export->changed, &attributes);
    pthread_condattr_destroy(&attributes);
}

void export_rdma_deinit(Export *export)
{
    pthread_cond_destroy(&export->changed);
}

/* Under the lock: its thread begins. */
static void end_session(Export *export, ExportRdma *rdma)
{
    if (rdma->ended)
        return;
    rdma->ended = true;
    export->rdma_unbroken++;
    if (export->rdma == rdma)
        export->rdma = NULL;
    pthread_cond_broadcast(&export->changed);
}

void export_rdma_end(Export *export)
{
    ExportRdma *rdma = export->rdma;

    if (!rdma)
        return;
    for (unsigned i = 0; i < EXPORT_CHANNELS_MAX; i++) {
        if (export->channels[i].pair)
            rdma->ending[rdma->n_ending++] = export->channels[i].pair;
        export->channels[i].pair = NULL;
    }
    end_session(export, rdma);
}

void export_rdma_wait(Export *export)
{
    struct timespec end;
    bool late;

    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_nsec += EXPORT_RDMA_BREAK_MS * 1000000L;
    end.tv_sec += end.tv_nsec / 1000000000L;
    end.tv_nsec %= 1000000000L;
    pthread_mutex_lock(&export->lock);
    while (export->rdma_unbroken > 0 &&
           pthread_cond_timedwait(&export->changed, &export->lock, &end) == 0)
        ;
    late = export->rdma_unbroken > 0;
    pthread_mutex_unlock(&export->lock);
    if (late)
        log_error("%s: RDMA: the device may still read its memory, %d ms after it was told not to",
                  export->name, EXPORT_RDMA_BREAK_MS);
}

/*
 * A session's own thread, made with it, so that its end needs nothing that may be lacking by then.  Orders to a
 * device take as long as its firmware likes: first those that matter to a guest that runs again.
 */
static void *finish(void *argument)
{
    ExportRdma *rdma = argument;
    Export *export = rdma->export;
    RdmaDevice *device;

    prctl(PR_SET_NAME, "rdma-end");
    pthread_mutex_lock(&export->lock);
    while (!rdma->ended)
        pthread_cond_wait(&export->changed, &export->lock);
    pthread_mutex_unlock(&export->lock);
    for (unsigned i = 0; i < rdma->n_ending; i++)
        rdma_pair_break(rdma->ending[i]);
    pthread_mutex_lock(&export->lock);
    export->rdma_unbroken--;
    pthread_cond_broadcast(&export->changed);
    pthread_mutex_unlock(&export->lock);
    for (unsigned i = 0; i < rdma->n_ending; i++)
        rdma_pair_free(rdma->ending[i]);
    spans_end(rdma->spans);
    pthread_mutex_lock(&export->lock);
    device = rdma->device;
    rdma->device = NULL;
    pthread_mutex_unlock(&export->lock);
    rdma_device_unref(device);
    return NULL;
}

/* --- what the channels of a lease share ---------------------------------------------------- */

static void free_shared(ExportRdma *rdma)
{
    spans_free(rdma->spans);
    rdma_device_unref(rdma->device);
    free(rdma);
}

ExportRdma *export_rdma_new(Export *export, RdmaDevice *device, RdmaBudget *budget,
                            const SpanPins *pins)
{
    ExportRdma *rdma = calloc(1, sizeof *rdma);
    SpanPins own = {
        .owner = rdma,
        .room = device_room,
        .pin = device_pin,
        .unpin = device_unpin,
    };

    if (!rdma) {
        rdma_device_unref(device);
        return NULL;
    }
    rdma->users = 1;
    rdma->export = export;
    rdma->device = device;
    rdma->budget = budget;
    rdma->spans = spans_new(&export->memory, pins ? pins : &own);
    if (rdma->spans && pthread_create(&rdma->thread, NULL, finish, rdma) == 0)
        return rdma;
    free_shared(rdma);
    return NULL;
}

/* Under the lock: whether a session may have pairs at all. */
static bool may_connect(const Export *export, uint32_t session)
{
    return export->session == session && !atomic_load(&export->fenced) &&
           !atomic_load(&export->closed);
}

/* One user more of what the session has.  made: what it gets if it has none; NULL: none. */
static ExportRdma *use_shared(Export *export, uint32_t session, ExportRdma *made)
{
    ExportRdma *rdma = NULL;

    pthread_mutex_lock(&export->lock);
    if (may_connect(export, session)) {
        rdma = export->rdma;
        if (rdma)
            rdma->users++;
        else
            rdma = export->rdma = made;
    }
    pthread_mutex_unlock(&export->lock);
    return rdma;
}

/* The last one waits until nothing of it is left. */
static void leave_shared(Export *export, ExportRdma *rdma)
{
    bool last;

    pthread_mutex_lock(&export->lock);
    last = --rdma->users == 0;
    if (last)
        end_session(export, rdma);
    pthread_mutex_unlock(&export->lock);
    if (!last)
        return;
    pthread_join(rdma->thread, NULL);
    free_shared(rdma);
}

/* Opening a device may take a while: without the lock.  Of two channels that do so one is in vain. */
static ExportRdma *enter_shared(Export *export, int fd, uint32_t session, RdmaBudget *budget,
                                char *ret_text)
{
    ExportRdma *rdma = use_shared(export, session, NULL);
    ExportRdma *made;
    RdmaDevice *device;

    if (rdma)
        return rdma;
    device = rdma_device_open(fd, budget, ret_text);
    if (!device)
        return NULL;
    made = export_rdma_new(export, device, budget, NULL);
    if (made)
        rdma = use_shared(export, session, made);
    if (made && rdma != made)
        leave_shared(export, made);
    if (!rdma)
        snprintf(ret_text, LIMIT_TEXT + 1, "%s", made ? gone : strerrordesc_np(ENOMEM));
    return rdma;
}

/* --- a channel's pair ---------------------------------------------------------------------- */

/* NULL: the session has ended, and the device may be closed. */
static RdmaPair *new_pair(Export *export, const ExportRdma *rdma, char *ret_text)
{
    RdmaDevice *device = NULL;
    RdmaPair *pair = NULL;

    pthread_mutex_lock(&export->lock);
    if (!rdma->ended)
        device = rdma_device_ref(rdma->device);
    pthread_mutex_unlock(&export->lock);
    if (device)
        pair = rdma_pair_new(device, 0, ret_text);
    else
        snprintf(ret_text, LIMIT_TEXT + 1, "%s", gone);
    rdma_device_unref(device);
    return pair;
}

/*
 * From now on whatever ends the session breaks it.  Whoever fenced or took the lease before did not know it:
 * so that is looked at under the same lock.
 */
static bool publish(Export *export, ExportChannel *channel, const ExportRdma *rdma, RdmaPair *pair)
{
    bool may;

    pthread_mutex_lock(&export->lock);
    may = !rdma->ended;
    if (may)
        channel->pair = pair;
    pthread_mutex_unlock(&export->lock);
    return may;
}

/* Once it is published it is not ours to look at. */
static bool make_pair(Export *export, ExportChannel *channel, const ExportRdma *rdma,
                      const PeerRdmaEnd *theirs, PeerRdmaEnd *ret_ours, char *ret_text)
{
    RdmaPair *pair = new_pair(export, rdma, ret_text);

    if (!pair)
        return false;
    if (rdma_pair_connect(pair, theirs, ret_text) == 0) {
        rdma_pair_describe(pair, ret_ours);
        if (publish(export, channel, rdma, pair))
            return true;
        snprintf(ret_text, LIMIT_TEXT + 1, "%s", gone);
    }
    rdma_pair_free(pair);
    return false;
}

static bool connect_channel(Export *export, ExportChannel *channel, int fd, uint32_t session,
                            RdmaBudget *budget, const PeerRdmaEnd *theirs, PeerRdmaEnd *ret_ours,
                            char *ret_text)
{
    ExportRdma *rdma = enter_shared(export, fd, session, budget, ret_text);

    if (!rdma)
        return false;
    if (!make_pair(export, channel, rdma, theirs, ret_ours, ret_text)) {
        leave_shared(export, rdma);
        return false;
    }
    channel->rdma = rdma;
    return true;
}

/* All channels of a destination are refused for the same reason, and those of its next attempt. */
static void note(Export *export, const char *refusal)
{
    bool news;

    pthread_mutex_lock(&export->lock);
    news = strcmp(export->rdma_refusal, refusal) != 0;
    snprintf(export->rdma_refusal, sizeof export->rdma_refusal, "%s", refusal);
    pthread_mutex_unlock(&export->lock);
    if (news && refusal[0] && strcmp(refusal, gone) != 0)
        log_info("%s: its memory is read by TCP, not by RDMA: %s", export->name, refusal);
}

static bool any_shared(const RegionSet *regions)
{
    for (uint32_t i = 0; i < regions->n; i++)
        if (regions->regions[i].kind == CLIENT_REGION_SHARED)
            return true;
    return false;
}

void export_rdma_connect(Export *export, ExportChannel *channel, int fd, uint32_t session,
                         RdmaBudget *budget, const char *refusal, PeerMessage *message)
{
    PeerRdmaEnd theirs = message->rdma_connect.end, ours;
    char *text = message->rdma_connected.text;
    bool connected = false;

    message->type = PEER_RDMA_CONNECTED;
    memset(&message->rdma_connected, 0, sizeof message->rdma_connected);
    if (!refusal && !budget)
        refusal = "RDMA is off at the source";
    if (!refusal && !any_shared(&export->memory.regions))
        refusal = "the VM's memory is private to its process: only what is shared, as of a memfd, "
                  "can be read by RDMA";
    if (refusal)
        snprintf(text, LIMIT_TEXT + 1, "%s", refusal);
    else
        connected = connect_channel(export, channel, fd, session, budget, &theirs, &ours, text);
    if (connected) {
        message->rdma_connected.end = ours;
        text[0] = '\0';
    } else {
        message->rdma_connected.code = PEER_ERROR_REFUSED;
    }
    note(export, text);
}

void export_rdma_disconnect(Export *export, ExportChannel *channel)
{
    ExportRdma *rdma = channel->rdma;
    RdmaPair *pair;

    if (!rdma)
        return;
    pthread_mutex_lock(&export->lock);
    pair = channel->pair;
    channel->pair = NULL;
    pthread_mutex_unlock(&export->lock);
    rdma_pair_free(pair);
    channel->rdma = NULL;
    leave_shared(export, rdma);
}

void export_rdma_report(Export *export, ExportRdmaReport *ret_report)
{
    memset(ret_report, 0, sizeof *ret_report);
    ret_report->spans = atomic_load(&export->rdma_spans);
    ret_report->pinned = atomic_load(&export->rdma_pinned);
    pthread_mutex_lock(&export->lock);
    for (unsigned i = 0; i < EXPORT_CHANNELS_MAX; i++)
        ret_report->pairs += export->channels[i].pair != NULL;
    if (export->rdma)
        snprintf(ret_report->device, sizeof ret_report->device, "%s",
                 rdma_device_name(export->rdma->device));
    memcpy(ret_report->refusal, export->rdma_refusal, sizeof ret_report->refusal);
    pthread_mutex_unlock(&export->lock);
}
