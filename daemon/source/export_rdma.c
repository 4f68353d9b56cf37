/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/source/export_rdma.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/log.h"
#include "daemon/transport/rdma_pair.h"

static const char gone[] = "this session has ended, or its guest may not be read any more";

/* --- what pins ----------------------------------------------------------------------------- */

static uint64_t device_room(void *owner)
{
    const ExportRdma *rdma = owner;

    return rdma_budget_room(rdma->budget);
}

static void *device_pin(void *owner, void *memory, size_t length, uint32_t *ret_rkey,
                        int *ret_error)
{
    ExportRdma *rdma = owner;
    RdmaMemory *pinned =
        rdma_memory_new(rdma->device, memory, length, RDMA_ACCESS_EXPORT, ret_error);
    char text[LIMIT_TEXT + 1];

    if (pinned) {
        *ret_rkey = rdma_memory_rkey(pinned);
        return pinned;
    }
    if (*ret_error == -EDQUOT || rdma->limit_told)
        return NULL;
    rdma->limit_told = true;
    if (*ret_error == -ENOMEM)
        rdma_memory_hint(length, text);
    else
        snprintf(text, sizeof text, "its memory cannot be pinned for %s: %s",
                 rdma_device_name(rdma->device), strerrordesc_np(-*ret_error));
    log_warning("%s: RDMA: %s", rdma->name, text);
    return NULL;
}

static void device_unpin(void *pinned)
{
    rdma_memory_free(pinned);
}

/* --- what the channels of a lease share ---------------------------------------------------- */

ExportRdma *export_rdma_new(const Export *export, RdmaDevice *device, RdmaBudget *budget,
                            const SpanPins *pins)
{
    ExportRdma *rdma = calloc(1, sizeof *rdma);
    SpanPins own = {
        .owner = rdma,
        .room = device_room,
        .pin = device_pin,
        .unpin = device_unpin,
    };

    if (rdma)
        rdma->spans = spans_new(&export->memory, pins ? pins : &own);
    if (!rdma || !rdma->spans) {
        rdma_device_unref(device);
        free(rdma);
        return NULL;
    }
    rdma->users = 1;
    rdma->device = device;
    rdma->budget = budget;
    rdma->name = export->name;
    return rdma;
}

static void free_shared(ExportRdma *rdma)
{
    spans_free(rdma->spans);
    rdma_device_unref(rdma->device);
    free(rdma);
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

static void leave_shared(Export *export, ExportRdma *rdma)
{
    bool last;

    pthread_mutex_lock(&export->lock);
    last = --rdma->users == 0;
    if (last && export->rdma == rdma)
        export->rdma = NULL;
    pthread_mutex_unlock(&export->lock);
    if (last)
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
        free_shared(made);
    if (!rdma)
        snprintf(ret_text, LIMIT_TEXT + 1, "%s", made ? gone : strerrordesc_np(ENOMEM));
    return rdma;
}

/* --- a channel's pair ---------------------------------------------------------------------- */

/*
 * From now on whatever ends the session breaks it.  Whoever fenced or took the lease before did not know it:
 * so that is looked at under the same lock.
 */
static bool publish(Export *export, ExportChannel *channel, uint32_t session, RdmaPair *pair)
{
    bool may;

    pthread_mutex_lock(&export->lock);
    may = may_connect(export, session);
    if (may)
        channel->pair = pair;
    pthread_mutex_unlock(&export->lock);
    return may;
}

static RdmaPair *make_pair(Export *export, ExportChannel *channel, uint32_t session,
                           const ExportRdma *rdma, const PeerRdmaEnd *theirs, char *ret_text)
{
    RdmaPair *pair = rdma_pair_new(rdma->device, 0, ret_text);

    if (!pair)
        return NULL;
    if (rdma_pair_connect(pair, theirs, ret_text) == 0) {
        if (publish(export, channel, session, pair))
            return pair;
        snprintf(ret_text, LIMIT_TEXT + 1, "%s", gone);
    }
    rdma_pair_free(pair);
    return NULL;
}

static bool connect_channel(Export *export, ExportChannel *channel, int fd, uint32_t session,
                            RdmaBudget *budget, const PeerRdmaEnd *theirs, char *ret_text)
{
    ExportRdma *rdma = enter_shared(export, fd, session, budget, ret_text);

    if (!rdma)
        return false;
    if (!make_pair(export, channel, session, rdma, theirs, ret_text)) {
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
    PeerRdmaEnd theirs = message->rdma_connect.end;
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
        connected = connect_channel(export, channel, fd, session, budget, &theirs, text);
    if (connected) {
        rdma_pair_describe(channel->pair, &message->rdma_connected.end);
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

void export_rdma_break(Export *export)
{
    for (unsigned i = 0; i < EXPORT_CHANNELS_MAX; i++)
        if (export->channels[i].pair)
            rdma_pair_break(export->channels[i].pair);
    export->rdma = NULL; /* its channels still have it, until they end */
}

void export_rdma_report(Export *export, ExportRdmaReport *ret_report)
{
    memset(ret_report, 0, sizeof *ret_report);
    ret_report->spans = atomic_load(&export->rdma_spans);
    pthread_mutex_lock(&export->lock);
    for (unsigned i = 0; i < EXPORT_CHANNELS_MAX; i++)
        ret_report->pairs += export->channels[i].pair != NULL;
    if (export->rdma) {
        snprintf(ret_report->device, sizeof ret_report->device, "%s",
                 rdma_device_name(export->rdma->device));
        ret_report->pinned = spans_pinned(export->rdma->spans);
    }
    memcpy(ret_report->refusal, export->rdma_refusal, sizeof ret_report->refusal);
    pthread_mutex_unlock(&export->lock);
}
