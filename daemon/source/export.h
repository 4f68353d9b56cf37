/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An export: a VM's memory, readable by one destination.
 *
 * Rule 1: nothing is read before the seal; a fenced export is never read again; one destination at a
 * time holds the lease, and a new holder of the token ends the connections of the one before it.
 *
 * Reference-counted: the control thread holds one, every connection thread one.  What changes is
 * atomic or under the export's lock, with which nobody waits for anything, a device's answer included:
 * the control thread takes it too.  It may be taken under the registry's lock, not the other way round.
 */
#ifndef POSTCOPYD_SOURCE_EXPORT_H
#define POSTCOPYD_SOURCE_EXPORT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "daemon/source/memory.h"
#include "daemon/transport/peer_socket.h"
#include "daemon/transport/relay.h"
#include "protocol/client.h"

enum { EXPORT_CHANNELS_MAX = 32 };

typedef enum ExportEvent {
    EXPORT_LEASED,   /* a destination attached */
    EXPORT_RELAYED,  /* its relay channel is joined */
    EXPORT_RELEASED, /* it has everything; once, and never before the seal */
    EXPORT_LOST,     /* its control connection ended */
    EXPORT_SEAL_WANTED, /* its destination's QEMU waits for the seal; once until seal_wanted is cleared */
} ExportEvent;

typedef struct Export Export;
typedef void (*ExportNotify)(void *owner, Export *export, ExportEvent event);

/* A data or relay connection being served. */
typedef struct ExportChannel {
    int fd; /* its thread's; -1: free */
    PeerChannelKind kind;
    uint32_t index;
    _Atomic uint64_t requests, bytes;
    struct ExportRdma *rdma; /* its thread's; NULL: no pair */
    struct RdmaPair *pair;   /* under the export's lock: whoever takes it out breaks and frees it */
} ExportChannel;

typedef struct ExportProgress {
    bool known;
    uint32_t state;
    uint64_t populated_bytes, present_bytes, missing_at_running, faults, received_bytes;
    uint64_t fault_p50_ns, fault_p99_ns;
    char text[LIMIT_TEXT + 1];
} ExportProgress;

struct Export {
    _Atomic int references;
    uint8_t uuid[LIMIT_UUID];
    char name[LIMIT_NAME + 1];
    int client_pid;
    ExportNotify notify;
    void *owner;

    Memory memory;
    uint8_t token[LIMIT_TOKEN];
    _Atomic uint64_t seal; /* 0: not sealed */
    _Atomic bool fenced;
    _Atomic bool closed;
    _Atomic bool released;
    _Atomic bool seal_wanted;
    bool
        asked_for; /* by a destination that may know it by another name; set before its token is told */
    _Atomic uint64_t reads, urgent_reads, pages_read, zero_pages, bytes;
    _Atomic uint64_t rdma_spans;  /* told; export_rdma.h has the rest */
    _Atomic uint64_t rdma_pinned; /* bytes, of all its sessions */

    pthread_mutex_t lock; /* of all below */
    uint32_t session;     /* 0: no lease yet */
    uint8_t secret[LIMIT_TOKEN];
    PeerSocket *control; /* its thread's; sends go under the lock, and never wait */
    char destination[LIMIT_ADDRESS + 1];
    ExportChannel channels[EXPORT_CHANNELS_MAX];
    ExportProgress progress;
    char reason[LIMIT_TEXT + 1]; /* why it was fenced */
    int relay_listener;          /* for the source's QEMU; -1 */
    Relay relay;
    pthread_cond_t changed;  /* what is told of RDMA below */
    struct ExportRdma *rdma; /* the lease's; NULL: none of its channels has a pair */
    unsigned rdma_unbroken;  /* sessions that have ended, with pairs that may not be broken yet */
    char rdma_refusal[LIMIT_TEXT + 1]; /* why the last channel that wanted a pair got none; "" */
};

/* A new export of these regions, known to export_find_*(). NULL with *ret_error. */
Export *export_new(const uint8_t uuid[LIMIT_UUID], const char *name, int client_pid,
                   const RegionSet *regions, ExportNotify notify, void *owner, int *ret_error);

/* The same with the token and the seal of an export that an earlier daemon held. */
Export *export_restore(const uint8_t uuid[LIMIT_UUID], const char *name, int client_pid,
                       const RegionSet *regions, const uint8_t token[LIMIT_TOKEN], uint64_t seal,
                       ExportNotify notify, void *owner, int *ret_error);

Export *export_ref(Export *export);
void export_unref(Export *export); /* NULL is allowed */

/* Ends it for good: not found any more, all its connections end. */
void export_close(Export *export);

/* Lets go of the memory of a closed export, unless somebody else still holds a reference. */
void export_drop_memory(Export *export);

/* References for whoever shows the token, or session and secret; NULL if none does. */
Export *export_find_by_token(const uint8_t token[LIMIT_TOKEN]);
Export *export_find_by_secret(uint32_t session, const uint8_t secret[LIMIT_TOKEN]);

/* Whether a destination is attached to an export of this VM. Any thread. */
bool export_is_attended(const uint8_t uuid[LIMIT_UUID]);

/* Serves a destination's control connection (taken) until it ends. Blocks. */
void export_serve_control(Export *export, PeerSocket *peer, PeerMessage *message);

/* Sends an order over the control connection, without waiting. 0, -ENOTCONN, or negative errno: then
 * the connection ends. Any thread. */
int export_order(Export *export, PeerMessage *message);

/* The guest is proven stopped: from now on it may be read. A seal id, never 0. */
uint64_t export_seal(Export *export);

/* The same in two steps, for who has to write the id down before anybody may learn it. */
uint64_t export_draw_seal(void);
void export_seal_as(Export *export, uint64_t seal);

/*
 * The source ran again, or its switchover was undone after the seal: never read again.  Returns once no device reads
 * it any more, but waits 250 ms at most for one that does not do as it is told (export_rdma.h).
 */
void export_fence(Export *export, const char *reason);

/* The same where nothing went wrong: nobody needs it any more. */
void export_retire(Export *export, const char *reason);

/* What stops a read now: PEER_ERROR_NONE, _UNSEALED or _FENCED. */
PeerErrorCode export_refuses(const Export *export);

/* Registers a connection of this export so that it can be ended; NULL if there are too many. */
ExportChannel *export_enter_channel(Export *export, int fd, uint32_t session, PeerChannelKind kind,
                                    uint32_t index);
void export_leave_channel(Export *export, ExportChannel *channel);

/* Compares secrets in a time that does not depend on where they differ. */
bool export_secrets_equal(const uint8_t *a, const uint8_t *b, size_t length);

/* Fills bytes with the kernel's randomness. */
void export_random(void *ret_bytes, size_t length);

#endif
