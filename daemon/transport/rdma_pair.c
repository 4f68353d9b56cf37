/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One end of a reliable connection between two devices, made with plain verbs.  Owns: the queue pair, its
 * completion queue and the file that tells of it.  One thread at a time, but for rdma_pair_break().
 *
 * What is posted is numbered; a completion tells that everything up to its number is complete.  The numbers
 * lie in the device's work requests, what callers call them in slots.
 */
#include "daemon/transport/rdma_pair.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "daemon/transport/rdma_private.h"

enum {
    QPN_FIRST = 2,      /* below are the ones that manage the fabric */
    BITS_24 = 0xffffff, /* the largest queue pair or packet number */
    LID_LAST = 0xbfff,  /* above are groups */
    ACK_TIMEOUT = 14,   /* 4.096 us << 14: 67 ms */
    RETRIES = 2,        /* soft RoCE takes 7 for "for ever" */
    RNR_RETRIES = 6,    /* 7 is "for ever" by the standard */
    RNR_TIMER = 12,     /* 0.64 ms */
    HOPS = 64,          /* as many as IP's */
    POLL_BATCH = 16,    /* completions taken with one call */
    ACK_EVENTS = 1024,  /* events told to be handled with one lock of the library */
    FLUSH_MS = 100,     /* for a device to give back what it was told to drop: takes 2 ms */
    FLUSH_SLEEP_NS = 50000,
};

typedef struct Slot {
    uint64_t cookie;
    bool told; /* its completion was asked for by the caller */
} Slot;

struct RdmaPair {
    RdmaDevice *device;
    struct ibv_comp_channel *channel; /* only with depth */
    struct ibv_cq *cq;
    struct ibv_qp *qp;
    uint32_t psn;
    bool connected;

    /* Lets one thread only break it, and nobody while connecting ends. */
    pthread_mutex_t break_lock;
    _Atomic bool broken; /* written under the lock */

    /* Of the thread that READs. */
    unsigned depth;
    unsigned unasked; /* posted since the last that was to be completed */
    unsigned events;  /* taken and not yet told to be handled */
    bool failed;
    uint64_t posted, completed;
    Slot slots[];
};

static bool pair_failed(const char *what, int error, char *ret_text)
{
    snprintf(ret_text, LIMIT_TEXT + 1, "RDMA: %s: %s", what, strerror(error ? error : EIO));
    return false;
}

static bool make_queue(RdmaPair *pair, uint32_t random, char *ret_text)
{
    struct ibv_context *context = pair->device->context;
    /* Different pairs interrupt different processors. */
    int vector = context->num_comp_vectors > 1 ? (int)(random >> 1) % context->num_comp_vectors : 0;
    int flags;

    if (pair->depth) {
        pair->channel = ibv_create_comp_channel(context);
        if (!pair->channel)
            return pair_failed("no completion channel", errno, ret_text);
        flags = fcntl(pair->channel->fd, F_GETFL);
        if (flags < 0 || fcntl(pair->channel->fd, F_SETFL, flags | O_NONBLOCK))
            return pair_failed("no completion channel", errno, ret_text);
    }
    /* Each READ may fail by itself, and so may what marks the end. */
    pair->cq = ibv_create_cq(context, (int)pair->depth + 2, NULL, pair->channel, vector);
    return pair->cq || pair_failed("no completion queue", errno, ret_text);
}

/* It leaves RESET at once, as the kernel breaks none that is there still. */
static bool make_pair(RdmaPair *pair, char *ret_text)
{
    struct ibv_qp_init_attr wish = {
        .send_cq = pair->cq,
        .recv_cq = pair->cq,
        .qp_type = IBV_QPT_RC,
        .cap = {.max_send_wr = pair->depth + 1,
                .max_recv_wr = 1,
                .max_send_sge = 1,
                .max_recv_sge = 1},
    };
    struct ibv_qp_attr init = {
        .qp_state = IBV_QPS_INIT,
        .pkey_index = pair->device->pkey_index,
        .port_num = pair->device->port,
        .qp_access_flags = pair->depth ? 0 : IBV_ACCESS_REMOTE_READ,
    };
    int error;

    pair->qp = ibv_create_qp(pair->device->pd, &wish);
    if (!pair->qp)
        return pair_failed("no queue pair", errno, ret_text);
    error = ibv_modify_qp(pair->qp, &init,
                          IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);
    return error == 0 || pair_failed("the queue pair cannot be set up", error, ret_text);
}

static bool depth_fits(const RdmaDevice *device, unsigned depth)
{
    return device->limits.max_qp_wr > 0 && device->limits.max_cqe > 1 &&
           depth < (unsigned)device->limits.max_qp_wr &&
           depth < (unsigned)device->limits.max_cqe - 1;
}

RdmaPair *rdma_pair_new(RdmaDevice *device, unsigned depth, char *ret_text)
{
    RdmaPair *pair;
    uint32_t random[2];

    ret_text[0] = '\0';
    if (!depth_fits(device, depth)) {
        snprintf(ret_text, LIMIT_TEXT + 1, "RDMA: %s takes no %u requests at once",
                 rdma_device_name(device), depth);
        return NULL;
    }
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random) {
        pair_failed("no random number", errno, ret_text);
        return NULL;
    }
    pair = calloc(1, sizeof *pair + depth * sizeof pair->slots[0]);
    if (!pair) {
        pair_failed("no queue pair", ENOMEM, ret_text);
        return NULL;
    }
    pthread_mutex_init(&pair->break_lock, NULL);
    pair->device = rdma_device_ref(device);
    pair->depth = depth;
    pair->psn = random[0] & BITS_24;
    if (make_queue(pair, random[1], ret_text) && make_pair(pair, ret_text))
        return pair;
    rdma_pair_free(pair);
    return NULL;
}

static uint8_t at_most_255(int number)
{
    return (uint8_t)(number > UINT8_MAX ? UINT8_MAX : number);
}

void rdma_pair_describe(const RdmaPair *pair, PeerRdmaEnd *ret_end)
{
    const RdmaDevice *device = pair->device;

    *ret_end = (PeerRdmaEnd){
        .qpn = pair->qp->qp_num,
        .psn = pair->psn,
        .lid = rdma_device_is_ethernet(device) ? 0 : device->port_state.lid,
        .link_layer = device->port_state.link_layer,
        .mtu = (uint8_t)device->port_state.active_mtu,
        .reads = at_most_255(device->limits.max_qp_rd_atom),
    };
    memcpy(ret_end->gid, device->gid.raw, sizeof ret_end->gid);
}

/* NULL: sound; otherwise what is wrong with it. */
static const char *unsound_place(const RdmaDevice *device, const PeerRdmaEnd *theirs)
{
    static const uint8_t nobody[16];

    if (!rdma_device_is_ethernet(device)) {
        if (theirs->lid == 0 || theirs->lid > LID_LAST)
            return "no LID of one port";
        return memcmp(theirs->gid, device->gid.raw, 8) ? "a GID of another subnet" : NULL;
    }
    if (memcmp(theirs->gid, nobody, sizeof nobody) == 0)
        return "no GID";
    if (theirs->lid != 0)
        return "a LID on Ethernet";
    /* What the network was trusted for is the address at the other end of the connection. */
    if (memcmp(theirs->gid, device->peer_gid.raw, sizeof theirs->gid) != 0)
        return "a GID that is not of the address it has here";
    return NULL;
}

static const char *unsound(const RdmaDevice *device, const PeerRdmaEnd *theirs)
{
    if (theirs->link_layer != device->port_state.link_layer)
        return "another kind of link";
    if (theirs->qpn < QPN_FIRST || theirs->qpn > BITS_24)
        return "no number of a queue pair";
    if (theirs->psn > BITS_24)
        return "no packet number";
    if (theirs->mtu < IBV_MTU_256 || theirs->mtu > IBV_MTU_4096)
        return "no MTU";
    if (theirs->reads == 0)
        return "room for no READ";
    return unsound_place(device, theirs);
}

static void address_of(const RdmaDevice *device, const PeerRdmaEnd *theirs,
                       struct ibv_ah_attr *ret_address)
{
    *ret_address = (struct ibv_ah_attr){.dlid = theirs->lid, .port_num = device->port};
    if (!rdma_device_is_ethernet(device))
        return;
    ret_address->is_global = 1;
    ret_address->grh.sgid_index = device->gid_index;
    ret_address->grh.hop_limit = HOPS;
    memcpy(ret_address->grh.dgid.raw, theirs->gid, sizeof theirs->gid);
}

static int to_receive(RdmaPair *pair, const PeerRdmaEnd *theirs)
{
    const RdmaDevice *device = pair->device;
    int own_mtu = (int)device->port_state.active_mtu;
    struct ibv_qp_attr attr = {
        .qp_state = IBV_QPS_RTR,
        .path_mtu = (enum ibv_mtu)(theirs->mtu < own_mtu ? theirs->mtu : own_mtu),
        .dest_qp_num = theirs->qpn,
        .rq_psn = theirs->psn,
        .max_dest_rd_atomic = at_most_255(device->limits.max_qp_rd_atom),
        .min_rnr_timer = RNR_TIMER,
    };

    address_of(device, theirs, &attr.ah_attr);
    return -ibv_modify_qp(pair->qp, &attr,
                          IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN |
                              IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER);
}

static int to_send(RdmaPair *pair, const PeerRdmaEnd *theirs)
{
    uint8_t own = at_most_255(pair->device->limits.max_qp_init_rd_atom);
    struct ibv_qp_attr attr = {
        .qp_state = IBV_QPS_RTS,
        .sq_psn = pair->psn,
        .timeout = ACK_TIMEOUT,
        .retry_cnt = RETRIES,
        .rnr_retry = RNR_RETRIES,
        .max_rd_atomic = theirs->reads < own ? theirs->reads : own,
    };

    return -ibv_modify_qp(pair->qp, &attr,
                          IBV_QP_STATE | IBV_QP_SQ_PSN | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT |
                              IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC);
}

static void to_error(RdmaPair *pair)
{
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};

    /* It fails only where the device is gone, which then does nothing more either. */
    ibv_modify_qp(pair->qp, &attr, IBV_QP_STATE);
}

int rdma_pair_connect(RdmaPair *pair, const PeerRdmaEnd *theirs, char *ret_text)
{
    const char *reason = unsound(pair->device, theirs);
    int error;

    ret_text[0] = '\0';
    if (reason) {
        snprintf(ret_text, LIMIT_TEXT + 1, "RDMA: the other side tells %s", reason);
        return -EPROTO;
    }
    error = pair->connected ? -EISCONN : to_receive(pair, theirs);
    if (error == 0)
        error = to_send(pair, theirs);

    /* Not all drivers keep a pair that is being connected from being broken in between, so that it would
     * live on. */
    pthread_mutex_lock(&pair->break_lock);
    if (atomic_load(&pair->broken)) {
        to_error(pair);
        error = -EPIPE;
    } else if (error == 0) {
        pair->connected = true;
    }
    pthread_mutex_unlock(&pair->break_lock);
    if (error)
        pair_failed("the queue pair cannot be connected", -error, ret_text);
    return error;
}

void rdma_pair_break(RdmaPair *pair)
{
    pthread_mutex_lock(&pair->break_lock);
    if (!atomic_load(&pair->broken)) {
        atomic_store(&pair->broken, true);
        to_error(pair);
    }
    pthread_mutex_unlock(&pair->break_lock);
}

static int post(RdmaPair *pair, const RdmaRead *read, bool signalled)
{
    struct ibv_sge piece = {
        .addr = (uintptr_t)read->to, .length = read->length, .lkey = read->lkey};
    struct ibv_send_wr request = {
        .wr_id = pair->posted,
        .sg_list = &piece,
        .num_sge = 1,
        .opcode = IBV_WR_RDMA_READ,
        .send_flags = signalled ? IBV_SEND_SIGNALED : 0,
        .wr.rdma = {.remote_addr = read->from, .rkey = read->rkey},
    };
    struct ibv_send_wr *bad;

    return -ibv_post_send(pair->qp, &request, &bad);
}

int rdma_pair_read(RdmaPair *pair, const RdmaRead *read)
{
    /* So that room comes back however many there are before one that is the last. */
    bool signalled = read->last || pair->unasked + 1 >= (pair->depth + 1) / 2;
    int error;

    if (pair->failed || !pair->connected ||
        atomic_load_explicit(&pair->broken, memory_order_relaxed))
        return -EPIPE;
    if (pair->posted - pair->completed >= pair->depth)
        return -EAGAIN;
    if (read->length == 0)
        return -EINVAL; /* which a device would take for 2 GiB */
    pair->slots[pair->posted % pair->depth] = (Slot){.cookie = read->cookie, .told = read->last};
    error = post(pair, read, signalled);
    if (error) {
        pair->failed = true;
        return error == -EAGAIN ? -EIO : error;
    }
    pair->posted++;
    pair->unasked = signalled ? 0 : pair->unasked + 1;
    return 0;
}

static const char *reason_of(enum ibv_wc_status status)
{
    switch (status) {
    case IBV_WC_RETRY_EXC_ERR:
    case IBV_WC_RNR_RETRY_EXC_ERR:
        return "the other end does not answer";
    case IBV_WC_REM_ACCESS_ERR:
        return "the other end's device does not allow that READ";
    case IBV_WC_WR_FLUSH_ERR:
        return "the queue pair was broken";
    case IBV_WC_LOC_PROT_ERR:
        return "the own device may not write there";
    default:
        return ibv_wc_status_str(status);
    }
}

/* True if the caller is to be told. */
static bool complete(RdmaPair *pair, const struct ibv_wc *done, RdmaCompletion *ret)
{
    const Slot *slot = &pair->slots[done->wr_id % pair->depth];
    bool failed = done->status != IBV_WC_SUCCESS;

    pair->completed = done->wr_id + 1;
    pair->failed = pair->failed || failed;
    *ret = (RdmaCompletion){.cookie = slot->cookie,
                            .failed = failed,
                            .reason = failed ? reason_of(done->status) : NULL};
    return failed || slot->told;
}

int rdma_pair_poll(RdmaPair *pair, RdmaCompletion *ret_completions, unsigned max)
{
    struct ibv_wc done[POLL_BATCH];
    unsigned n = 0;

    while (n < max) {
        int most = max - n < POLL_BATCH ? (int)(max - n) : POLL_BATCH;
        int got = ibv_poll_cq(pair->cq, most, done);

        if (got < 0) {
            pair->failed = true;
            return n ? (int)n : -EIO;
        }
        for (int i = 0; i < got; i++)
            n += complete(pair, &done[i], &ret_completions[n]);
        if (got < most)
            break;
    }
    return (int)n;
}

int rdma_pair_fd(const RdmaPair *pair)
{
    return pair->channel->fd;
}

int rdma_pair_arm(RdmaPair *pair)
{
    return -ibv_req_notify_cq(pair->cq, 0);
}

void rdma_pair_take_events(RdmaPair *pair)
{
    struct ibv_cq *cq;
    void *context;

    while (ibv_get_cq_event(pair->channel, &cq, &context) == 0)
        pair->events++;
    if (pair->events >= ACK_EVENTS) {
        ibv_ack_cq_events(pair->cq, pair->events);
        pair->events = 0;
    }
}

static uint64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/*
 * Waits until a broken pair has given everything back, which is so when it has given back one request more:
 * of what was posted before without asking for a completion there may be none.
 *
 * A courtesy, and a bounded one, as a data thread waits: it is destroying the pair, next, that the device writes
 * nowhere any more after, also where this gave up.
 */
static void flush(RdmaPair *pair)
{
    struct timespec pause = {.tv_nsec = FLUSH_SLEEP_NS};
    uint64_t end = now_ms() + FLUSH_MS, marker = pair->posted;
    RdmaRead nothing = {.length = 1};
    struct ibv_wc done;
    int got;

    if (post(pair, &nothing, true))
        return;
    do {
        while ((got = ibv_poll_cq(pair->cq, 1, &done)) > 0)
            if (done.wr_id == marker)
                return;
        nanosleep(&pause, NULL);
    } while (got == 0 && now_ms() < end);
}

void rdma_pair_free(RdmaPair *pair)
{
    if (!pair)
        return;
    if (pair->qp) {
        rdma_pair_break(pair);
        if (pair->connected && pair->depth)
            flush(pair);
        rdma_must(ibv_destroy_qp(pair->qp));
    }
    if (pair->cq) {
        if (pair->events)
            ibv_ack_cq_events(pair->cq, pair->events);
        rdma_must(ibv_destroy_cq(pair->cq));
    }
    if (pair->channel)
        rdma_must(ibv_destroy_comp_channel(pair->channel));
    rdma_device_unref(pair->device);
    pthread_mutex_destroy(&pair->break_lock);
    free(pair);
}
