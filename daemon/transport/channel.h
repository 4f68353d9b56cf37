/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The destination's end of one data channel: requests go out in batches, pages come in and are
 * handed over in runs as long as what has arrived: where they lie in the receive buffer, or, where
 * the owner names a place for them, received there directly.
 *
 * A channel is a TCP connection, and may have a lane beside it, over which our device READs the source's
 * memory (rdma_lane.h).  Then each fetch goes whole either way: over the lane if the owner knows keys
 * for all its pages, else by the connection's READ.  The connection's end is the lane's end.
 *
 * Owned by one data thread, driven by its ring; nothing here blocks or allocates after init.
 * A request occupies a slot until all its pages have come.  When the connection is lost the slots
 * stay, and what is outstanding of them is asked again over the next connection: only what never
 * came, so no page is handed over twice.
 */
#ifndef POSTCOPYD_TRANSPORT_CHANNEL_H
#define POSTCOPYD_TRANSPORT_CHANNEL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/core/ring.h"
#include "daemon/transport/rdma_lane.h"
#include "protocol/peer.h"

enum {
    CHANNEL_SLOTS = 64,
    CHANNEL_KEYS_DONE = 16, /* spans that can be given back with one flush */
    CHANNEL_STALLED = 10,   /* looks in a row that found no READ complete */
};

typedef enum FetchState {
    FETCH_FREE = 0,
    FETCH_QUEUED, /* goes out with the next flush; by_rdma: when the lane has room */
    FETCH_SENT,
    FETCH_RETRY, /* failed; queued again after a pause */
} FetchState;

/* One request: count pages of a region, from page on. */
typedef struct Fetch {
    FetchState state;
    uint32_t region;
    uint32_t count;
    uint32_t done; /* pages handed over since it was last sent */
    uint64_t page;
    uint64_t retry_ns;
    unsigned attempts;
    bool by_rdma;    /* over the lane, and nothing of it by the connection */
    bool by_tcp;     /* by the connection, though there is a lane */
    bool spoiled;    /* a part of it may have been received in place, before its connection went */
    uint64_t wanted; /* the owner's: the page somebody waits for */
    uint32_t vcpu;   /* the owner's: who waits */
    uint64_t since_ns; /* the owner's: since when */
} Fetch;

typedef enum FetchContent {
    FETCH_ZERO,   /* the pages are zero */
    FETCH_DATA,   /* they lie in a buffer of the channel's, until the callback returns */
    FETCH_LANDED, /* they are where the owner wanted them */
} FetchContent;

/* Where pages are received to: memory, which is also a file's from offset on. */
typedef struct FetchPlace {
    uint8_t *memory;
    int fd;
    uint64_t offset;
} FetchPlace;

/* Pages in the source's memory, as its device knows them. */
typedef struct FetchSource {
    uint64_t address;
    uint32_t rkey;
} FetchSource;

/* Where a device of ours may write pages to. */
typedef struct FetchLanding {
    uint8_t *memory;
    uint32_t lkey;
} FetchLanding;

/*
 * What the owner is told, on its own thread.  It may fetch more, ask for more, or drop the channel
 * meanwhile.
 */
typedef struct FetchSink {
    /* Pages first .. first + count of a fetch; data is NULL unless content is FETCH_DATA. */
    void (*pages)(void *owner, Fetch *fetch, uint32_t first, uint32_t count, FetchContent content,
                  const void *data);
    /*
     * Where these pages, which come next, are to be received.  False: nowhere in particular.
     * Nothing writes there any more once they were handed over.  May be NULL.
     */
    bool (*place)(void *owner, const Fetch *fetch, uint32_t first, uint32_t count,
                  FetchPlace *ret_place);
    /*
     * Up to count pages from page on that can be READ with one key: how many.  0: the fetch goes by TCP.
     * Asked only where there is a lane, when a fetch is about to go out.  May be NULL.
     */
    uint32_t (*source)(void *owner, uint32_t region, uint64_t page, uint32_t count,
                       FetchSource *ret_source);
    /*
     * Up to count pages of a fetch, from its first on, that may land where they belong, with one key:
     * how many.  0: none of them, and a buffer takes them.  Asked when they are about to be READ; what it
     * named must stay until channel_is_landing() is false.  May be NULL.
     */
    uint32_t (*land)(void *owner, const Fetch *fetch, uint32_t first, uint32_t count,
                     FetchLanding *ret_landing);
    /* The source cannot read a page. The fetch is retried after this returns true. */
    bool (*failed)(void *owner, Fetch *fetch, PeerErrorCode code);
    /* MAP; bulk channels only. */
    void (*map)(void *owner, uint32_t region, const PeerMessage *map);
    /* KEYS for the region that was asked about, with the channel's seal; bulk channels only. May be NULL:
     * then such a frame ends the connection. */
    void (*keys)(void *owner, uint32_t region, const PeerMessage *keys);
    /* The connection is gone (and closed), and so is the lane: no device writes anything any more. */
    void (*down)(void *owner, const char *reason);
    /* The owner has more to fetch whenever something came; else only if it found no room. */
    bool goes_on;
} FetchSink;

typedef struct Channel {
    Ring *ring;
    const FetchSink *sink;
    void *owner;
    const uint64_t *page_sizes;   /* by region */
    const uint32_t *wire_regions; /* the source's number of each region */
    uint32_t n_regions;
    int fd; /* -1: no connection */
    uint32_t session;
    uint32_t generation;
    uint64_t seal;      /* the owner's to set before it fetches: replies must carry it */
    const char *reason; /* not NULL: being taken down */
    Fetch slots[CHANNEL_SLOTS];
    unsigned used, queued, retrying;
    RingWatch receiving, sending;
    uint8_t out[4096];
    const uint8_t *unsent; /* of out, what sending is at */
    size_t unsent_length;
    bool map_wanted;
    uint32_t map_region;
    uint64_t map_page;
    bool keys_wanted, keys_asked; /* to be asked for; asked for and not answered */
    uint32_t keys_region;
    uint64_t keys_page;
    uint32_t keys_done[CHANNEL_KEYS_DONE], n_keys_done;
    uint8_t *in; /* mmapped; [head, tail) is unread */
    size_t in_size, head, tail;
    Fetch *current; /* its pages come next in the stream */
    uint32_t current_left;
    Fetch *ahead; /* its page is received together with the frame's head */
    bool landing; /* and go to place; how much of its first page is there already */
    FetchPlace place;
    size_t landed;
    bool landed_last; /* a frame like the last one is likely next */
    struct iovec vector[2];
    struct msghdr message;
    PeerMessage *scratch;      /* for MAP and KEYS; bulk channels only */
    RdmaLane *lane;            /* NULL: TCP only */
    RingWatch completing;      /* the lane has completions */
    RingAside aside;           /* and they are looked for */
    bool handing;              /* the lane's pages are being handed over: it must stay */
    char text[LIMIT_TEXT + 1]; /* what reason may point to */
    _Atomic uint64_t requests; /* written by the owner; read by anyone */
    _Atomic uint64_t bytes;    /* received by the connection */
    _Atomic uint64_t rdma_reads;
    _Atomic uint64_t rdma_done; /* of these: complete, or given up */
    _Atomic uint64_t rdma_bytes;
    _Atomic uint64_t rdma_landed_pages;
    _Atomic uint64_t rdma_staged_pages;
    _Atomic uint64_t rdma_failures; /* connections that the lane, or keys, brought down */
    _Atomic bool connected;
    uint64_t done_seen; /* of whoever looks whether it has stalled */
    unsigned stalled;
} Channel;

/* page_sizes and wire_regions are the owner's and may be set until the first attach.
 * in_size: bytes of receive buffer, at least twice the largest page. 0 or -ENOMEM. */
int channel_init(Channel *channel, Ring *ring, const FetchSink *sink, void *owner,
                 const uint64_t *page_sizes, const uint32_t *wire_regions, uint32_t n_regions,
                 size_t in_size, bool maps);
void channel_deinit(Channel *channel);

/* Takes a JOINed socket, and a connected lane (NULL: TCP only), and asks again for what is outstanding.
 * Only while it has none. */
void channel_attach(Channel *channel, int fd, uint32_t session, uint32_t generation,
                    RdmaLane *lane);

/* The connection is about to be taken down, and the lane, or what was told for it, is to blame. */
static inline void channel_blame_lane(Channel *channel)
{
    atomic_fetch_add_explicit(&channel->rdma_failures, 1, memory_order_relaxed);
}

/* Takes the connection down; sink->down() follows. */
void channel_drop(Channel *channel, const char *reason);

/* True while the kernel or a device may write to a place in memory of this region that its owner named. */
bool channel_is_landing(const Channel *channel, uint32_t region);

/*
 * Looks whether a READ has completed since the last look.  True: READs were under way at each of the last
 * CHANNEL_STALLED looks and none did.  Looks are counted, not time, so that a host that stood still has not
 * stalled.  Any thread, one and the same.
 */
bool channel_has_stalled(Channel *channel);

static inline bool channel_has_room(const Channel *channel)
{
    return channel->used < CHANNEL_SLOTS;
}

/* Queues a request; has_room() must hold.  The slot is the owner's to annotate. */
Fetch *channel_fetch(Channel *channel, uint32_t region, uint64_t page, uint32_t count);

/* Asks for the map of a region from page on; one at a time. */
void channel_ask_map(Channel *channel, uint32_t region, uint64_t page);

/*
 * Asks for the keys of a region from page on; one question at a time.  It is forgotten when the connection
 * goes.
 */
void channel_ask_keys(Channel *channel, uint32_t region, uint64_t page);

/* Nothing will be READ from that span any more.  False: too many at once, so later.  It is forgotten when
 * the connection goes, as all keys are then. */
bool channel_keys_done(Channel *channel, uint32_t id);

/*
 * Sends what is queued; cheap if nothing is.  Once before each wait on the ring, and nowhere else: what
 * it sends is gone when that wait begins.  What a lane brings meanwhile is handed over at once, and then
 * that wait does not sleep.
 */
void channel_flush(Channel *channel);

/* The transport's own. */

/* Closes a dropped connection once the kernel holds none of its buffers. */
void channel_finish_drop(Channel *channel);

/* The next count pages of a fetch have come; the last ones free it. */
void channel_hand_over(Channel *channel, Fetch *fetch, uint32_t count, FetchContent content,
                       const void *data);
void channel_free_fetch(Channel *channel, Fetch *fetch);

#endif
