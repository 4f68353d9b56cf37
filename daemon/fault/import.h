/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An import: a VM's memory being filled on its destination.
 *
 * Threads of an import, all started and joined here:
 *   resolvers  turn faults into pages (resolver.c)
 *   stream     fetches what nobody asked for yet (stream.c)
 *   link       keeps the connection to the source's daemon (link.c)
 * They share the page table, the counters and this struct's constants; everything they change is
 * atomic.  The control thread creates, arms, watches and frees an import.
 *
 * Life: import_new() attaches to the source; ATTACHED; the client arms; import_arm(); READY;
 * the source seals, the gate opens; COMPLETE; the client lets go; import_finish().
 */
#ifndef POSTCOPYD_FAULT_IMPORT_H
#define POSTCOPYD_FAULT_IMPORT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "daemon/core/histogram.h"
#include "daemon/core/page_table.h"
#include "daemon/core/region.h"
#include "daemon/core/vcpu_table.h"
#include "daemon/core/waiters.h"
#include "daemon/fault/keys.h"
#include "daemon/fault/landing.h"
#include "daemon/fault/link.h"
#include "daemon/fault/mirror.h"
#include "daemon/fault/resolver.h"
#include "daemon/fault/shard.h"
#include "daemon/fault/stream.h"
#include "protocol/client.h"

enum { IMPORT_RESOLVERS_MAX = 16 };

/* Who resolves a fault. */
typedef enum ImportDispatch {
    IMPORT_DISPATCH_DIRECT, /* the resolver that read it */
    IMPORT_DISPATCH_HOME,   /* the home resolver of its vCPU, to whose queue it is handed over */
    IMPORT_DISPATCHES,
} ImportDispatch;

/* How pages come: what an import is to use, by configuration or by the word of whoever drives it. */
typedef enum ImportTransport {
    IMPORT_TRANSPORT_AUTO, /* RDMA where both ends can and may, TCP otherwise */
    IMPORT_TRANSPORT_TCP,
    IMPORT_TRANSPORT_RDMA, /* or not at all */
    IMPORT_TRANSPORTS,
} ImportTransport;

struct Networks;
struct RdmaBudget;

typedef struct ImportConfig {
    unsigned resolvers;       /* 1 to IMPORT_RESOLVERS_MAX */
    unsigned dispatch;        /* ImportDispatch */
    unsigned shards;          /* a region is split into at most so many */
    unsigned bulk_channels;   /* 1 to STREAM_CHANNELS_MAX */
    uint64_t around;          /* bytes fetched with a page that faulted, itself included */
    uint64_t chunk;           /* bytes of one bulk request at most */
    uint64_t window;          /* bytes of bulk requests under way at most */
    unsigned ping_ms;         /* a peer silent for three of these is gone */
    unsigned stream_delay_ms; /* the stream starts so long after the gate if nobody says RUNNING */
    unsigned head_start_ms;   /* of assist mode (ahead.h); 0: none */
    unsigned busy_poll_us;    /* a resolver looks so long before it sleeps, if a core is spare */
    int preallocate;          /* boolean: memory expected to have content is allocated before ARM */
    bool minor;               /* this kernel's userfaultfds know MINOR faults of shared memory */
    bool assist;              /* QEMU's own post-copy brings the memory too: rule 9, assist.h */
    unsigned transport;       /* ImportTransport, of this import */
    bool rdma_overruled;      /* this host insists on RDMA, the source on TCP, which counts */
    const struct Networks *rdma_networks; /* that are trusted; outlives the import; NULL: none */
    struct RdmaBudget *rdma_budget;       /* the daemon's; outlives the import; NULL: no RDMA */
} ImportConfig;

typedef enum ImportEvent {
    IMPORT_ATTACHED,      /* the source's regions match: arm the client */
    IMPORT_ATTACH_FAILED, /* the first attempt; later ones are tried again for ever */
    IMPORT_READY,         /* armed and all channels are joined */
    IMPORT_CHANGED,       /* state or text changed */
    IMPORT_COMPLETE,      /* nothing is missing any more */
    IMPORT_CANCELLED, /* before the gate: the source took the invitation back, or it cannot be; in
                         assist mode at any time: the source knows it no more */
    IMPORT_SETTLED,   /* no data thread touches the region that was retired (hotplug.h) */
    IMPORT_FINISHED,  /* the source knows that all is here: import_stop_data() */
} ImportEvent;

/* Written with relaxed atomics by the data threads, read by anyone. */
typedef struct ImportCounters {
    _Atomic uint64_t copied, zero, hole, continued;  /* pages, by kind */
    _Atomic uint64_t by_fault, by_around, by_stream; /* pages fetched, by cause */
    _Atomic uint64_t waited, eexist, retried, poisoned, removed;
    _Atomic uint64_t urgent_bytes; /* of pages with content that came because of faults */
    _Atomic uint64_t faults, faults_present;
    _Atomic uint64_t present_bytes; /* of those the source has content for; or given back */
    _Atomic uint64_t populated_bytes;
} ImportCounters;

typedef struct Import Import;

/* Called on the import's threads; posts to the control thread and returns. */
typedef void (*ImportNotify)(void *owner, Import *import, ImportEvent event, const char *text);

struct Import {
    ImportConfig config;
    uint8_t uuid[LIMIT_UUID];
    char name[LIMIT_NAME + 1];
    int client_pid;
    uint64_t tag;                     /* the owner's */
    char incoming[LIMIT_ADDRESS + 1]; /* where the client's QEMU listens for its device state */
    ImportNotify notify;
    void *owner;

    RegionSet regions; /* in the client's order; of a region that is not present nobody looks at
                          address, file and kind */
    _Atomic bool present[LIMIT_REGIONS];
    _Atomic bool gone[LIMIT_REGIONS]; /* was removed whole once: all of it is REMOVED (hotplug.h) */
    uint64_t page_sizes[LIMIT_REGIONS];
    uint32_t wire_regions[LIMIT_REGIONS]; /* the source's numbers; set by the first attach */
    bool minor[LIMIT_REGIONS]; /* registered MINOR too, so that it may be placed by CONTINUE */
    Mirror mirror;
    Keys keys;       /* of this connection; of an import without RDMA all zero, as is landing */
    Landing landing; /* what is pinned of the mirror */
    PageTable table;
    /* Also in the table's header, for a successor only: the client can write there. */
    char source[LIMIT_ADDRESS + 1]; /* HOST:PORT of the source's daemon */
    uint8_t token[LIMIT_TOKEN];
    uint32_t generation;
    _Atomic uint64_t seal;      /* 0: the gate is shut */
    bool adopted;               /* from a dead daemon: EEXIST is success (rule 5) */
    uint64_t adopted_bytes;     /* that were PRESENT then */
    _Atomic uint32_t n_shards;  /* slots that were ever in use */
    Shard *shards;              /* LIMIT_SHARDS slots, of which only LIVE ones are looked at */
    uint64_t lives;             /* shards there ever were; control thread */
    _Atomic uint64_t epoch;     /* of the last change of shards */
    _Atomic uint64_t retired;   /* of the last change that took shards away, */
    uint32_t retiring;          /* the region whose they were, */
    _Atomic uint32_t unsettled; /* and how many threads may still touch it */

    _Atomic uint32_t state; /* ClientState */
    _Atomic bool halted;    /* FENCED or BROKEN: nothing is placed any more */
    _Atomic bool withdrawn; /* assist mode: it serves no more, whatever becomes of its link */
    pthread_mutex_t text_lock;
    char text[LIMIT_TEXT + 1];

    ImportCounters counters;
    Histogram latency;
    _Atomic(VcpuTable *) vcpus; /* never NULL */
    Waiters *waiters;
    _Atomic uint64_t limit;      /* bytes/s of its memory, 0: none; the control thread's to set */
    _Atomic uint64_t urgent_ns;  /* what faults took since the stream last looked; 0: none came */
    _Atomic uint64_t link_rate;  /* bytes/s, while the stream fills the link; 0: it does not */
    _Atomic uint64_t last_fault; /* (region + 1) << 48 | page: where the stream goes first */
    _Atomic uint64_t gate_ns, running_ns, complete_ns;
    _Atomic uint64_t present_at_running; /* bytes */

    bool armed; /* the data threads run, or ran */
    unsigned n_resolvers;
    Resolver *resolvers;
    Stream stream;
    Link link;
};

typedef struct ImportIdentity {
    uint8_t uuid[LIMIT_UUID];
    const char *name;
    int client_pid;
    uint64_t tag; /* the owner's: tells this import from one that was at its address before */
    const char *incoming;
    const uint32_t *vcpus;
    uint32_t n_vcpus;
} ImportIdentity;

/*
 * A new import of these regions (copied, with own fds), which starts attaching to the daemon at
 * source, HOST:PORT.  NULL with *ret_error.
 */
Import *import_new(const ImportConfig *config, const ImportIdentity *identity,
                   const RegionSet *regions, const char *source, const uint8_t token[LIMIT_TOKEN],
                   ImportNotify notify, void *owner, int *ret_error);

/*
 * Takes over from a daemon that is proven dead: table (a fd, taken) and uffds are what the client
 * kept.  shards and their uffds are taken.  Wakes all waiters, so that they fault again.
 */
Import *import_adopt(const ImportConfig *config, const ImportIdentity *identity,
                     const RegionSet *regions, int table_fd, Shard *shards, uint32_t n_shards,
                     ImportNotify notify, void *owner, int *ret_error);

/* How the memory is split: into ret_shards[LIMIT_SHARDS]; how many. */
uint32_t import_plan_shards(const Import *import, ClientShard *ret_shards);

/* The same for one region that comes, of what room is left.  0: none. */
uint32_t import_plan_region(const Import *import, uint32_t region, ClientShard *ret_shards);

/* The client registered its memory: takes the shards and starts the data threads. 0 or -errno. */
int import_arm(Import *import, Shard *shards, uint32_t n_shards);

/* Stops the data threads; the memory stays registered and faults wait. */
void import_stop_data(Import *import);

/* All is here and the client let go: tells the source, keeps the figures. */
void import_finish(Import *import);

/* Stops and joins everything. NULL is allowed. */
void import_free(Import *import);

/* Other vCPU threads; the figures of each begin anew. Control thread. */
void import_set_vcpus(Import *import, const uint32_t *tids, uint32_t n);

/* Readies a free slot for this shard, which is still to be made LIVE.  Takes its uffd.  NULL: no slot or
 * no memory.  Control thread. */
Shard *import_fill_slot(Import *import, const Shard *shard);

/* Lets the data threads see a change.  Any thread. */
void import_wake_data_threads(Import *import);

/* The rest is for the import's own threads. */

static inline bool import_is_gone(const Import *import, uint32_t region)
{
    return atomic_load_explicit(&import->gone[region], memory_order_acquire);
}

/* Its pages may be asked for: it is there, and always was. */
static inline bool import_wants(const Import *import, uint32_t region)
{
    return atomic_load_explicit(&import->present[region], memory_order_acquire) &&
           !import_is_gone(import, region);
}

static inline ClientState import_state(const Import *import)
{
    return atomic_load_explicit(&import->state, memory_order_acquire);
}

static inline bool import_gate_is_open(const Import *import)
{
    return atomic_load_explicit(&import->seal, memory_order_acquire) != 0;
}

static inline bool import_is_halted(const Import *import)
{
    return atomic_load_explicit(&import->halted, memory_order_acquire);
}

void import_set_state(Import *import, ClientState state, const char *text);

/* FENCED or BROKEN: nothing is placed any more, waiting faults stay where they are. */
void import_halt(Import *import, ClientState state, const char *text);

/* The source is sealed: faults are served from now on. */
void import_open_gate(Import *import, uint64_t seal);

/* The destination's guest runs: the stream may go. */
void import_running(Import *import);

/* The shard that holds a client address; NULL: none. */
Shard *import_shard(const Import *import, uint64_t address);

/* Where pages of a fetch may be received to at once (FetchSink.place). */
bool import_place(const Import *import, const Fetch *fetch, uint32_t first, uint32_t count,
                  FetchPlace *ret_place);

/* Before ARM: the source's word on where its memory has content.  The link's thread. */
void import_take_forecast(Import *import, const PeerMessage *forecast);

/* The vCPU of a thread id; some other number if it is none of them. */
uint32_t import_vcpu(const Import *import, uint32_t tid);

/* A fault of this vCPU was resolved. */
void import_account(Import *import, uint32_t vcpu, uint64_t since_ns, uint64_t now_ns);

/* Bytes of a channel's receive buffer: small enough to stay in a core's cache, large enough for a page
 * of this import and a half. */
size_t import_buffer_size(const Import *import);

/* For reports, any thread; lag behind by what is under way. */
uint64_t import_present_bytes(const Import *import);
uint64_t import_missing_at_running(const Import *import);
uint64_t import_received_bytes(const Import *import);

/* Pages came from the source, as content or as zeroes. */
void import_count_fetched(Import *import, uint32_t region, uint64_t pages, bool zero);

#endif
