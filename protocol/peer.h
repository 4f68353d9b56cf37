/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Daemon <-> daemon: little-endian frames over a byte stream (TCP).
 *
 * A frame is a header of 24 bytes (length of the body, type, flags, session, generation, cookie) and
 * its body.  DATA carries pages behind its fixed body.  docs/PROTOCOL.md tells who sends what when.
 * The destination connects and pulls; INVITE alone goes the other way round.
 */
#ifndef POSTCOPYD_PROTOCOL_PEER_H
#define POSTCOPYD_PROTOCOL_PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "protocol/limits.h"

enum {
    PEER_VERSION_LOWEST = 1,
    PEER_VERSION_HIGHEST = 1,
    PEER_HEADER_SIZE = 24,
    PEER_PLACEMENT_SIZE = 24,     /* the fixed body of DATA, ZERO and ERROR */
    PEER_CONTROL_MAX = 64 * 1024, /* body of any frame but DATA */
    PEER_READ_ITEMS = 64,
    PEER_MAP_EXTENTS = 2048,
    PEER_FORECAST_BYTES = 16384,
    PEER_FORECAST_SHIFT_MIN = 21,
    PEER_FORECAST_SHIFT_MAX = 44,
};

/* Bytes of pages in one DATA frame, and that one READ item may ask for. */
#define PEER_DATA_MAX (UINT32_C(2) << 20)
#define PEER_READ_MAX (UINT32_C(2) << 20)
/* Bytes of one span. */
#define PEER_SPAN_MAX (UINT32_C(64) << 20)
/* Regions with larger pages do not travel. */
#define PEER_PAGE_SIZE_MAX (UINT64_C(2) << 20)

#define PEER_MAGIC UINT64_C(0x0031445950435450) /* "PTCPYD1\0" */

typedef enum PeerMessageType {
    PEER_UNKNOWN = 0,
    PEER_START = 1,     /* connector: magic, wants TLS? */
    PEER_STARTED = 2,   /* listener: TLS or not follows */
    PEER_HELLO = 3,     /* both: versions, features, machine */
    PEER_INVITE = 4,    /* source -> destination: come and fetch this VM */
    PEER_INVITED = 5,   /* destination -> source: I am attached and armed, or why not */
    PEER_ATTACH = 6,    /* destination -> source: uuid and token; this connection becomes control */
    PEER_ATTACHED = 7,  /* source: session, secret, regions, or why not */
    PEER_JOIN = 8,      /* destination: this connection becomes a channel of that session */
    PEER_JOINED = 9,    /* source */
    PEER_SEALED = 10,   /* control, source: the guest is stopped, reads may start */
    PEER_RELAY = 11,    /* control, source: join a relay channel to your guest's incoming socket */
    PEER_RUNNING = 12,  /* control, source: whoever drives says the destination runs */
    PEER_CANCEL = 13,   /* control, source: undo, the gate never opened */
    PEER_FENCED = 14,   /* control, source: the source ran again */
    PEER_PROGRESS = 15, /* control, destination */
    PEER_RELEASED = 16, /* control, destination: everything is here, drop the export */
    PEER_MAP_REQUEST = 17, /* bulk channel, destination */
    PEER_MAP = 18,         /* bulk channel, source */
    PEER_READ = 19,        /* urgent and bulk channels, destination */
    PEER_DATA = 20,        /* urgent and bulk channels, source */
    PEER_ZERO = 21,
    PEER_ERROR = 22, /* for a read; or for a connection, with cookie 0 */
    PEER_PING = 23,
    PEER_PONG = 24,
    PEER_BYE = 25,
    PEER_FORECAST_REQUEST = 26, /* control, destination, before the seal */
    PEER_FORECAST = 27,         /* control, source */
    /* Assist mode: the source was not offered to anybody, its destination asks for it. */
    PEER_ASK = 28,   /* destination -> source: this VM comes to me over that connection */
    PEER_ASKED = 29, /* source -> destination: the token to attach with, or why not */
    PEER_SEAL = 30,  /* control, destination: its QEMU listens, so yours must have stopped */
    /* destination -> source, to an INVITE with AWAIT: it is kept; INVITED follows once the VM came */
    PEER_AWAITED = 31,
    /* Where both sides have PEER_FEATURE_RDMA: on a channel that was JOINed, before its first READ. */
    PEER_RDMA_CONNECT =
        32, /* destination: my end of a queue pair, to be joined with one of yours */
    PEER_RDMA_CONNECTED = 33, /* source: my end, or why there is none */
    PEER_KEYS_REQUEST = 34,   /* bulk channel, destination: where may I read by myself? */
    PEER_KEYS = 35,           /* bulk channel, source: one span of memory, and what of it is zero */
    PEER_KEYS_DONE = 36, /* bulk channel, destination: I shall not read in that span any more */
} PeerMessageType;

/* HELLO.features_* */
#define PEER_FEATURE_RDMA UINT64_C(1) /* knows the frames above; not that there is a device */

#define PEER_FEATURE_AHEAD UINT64_C(2) /* knows ASKED.flags */

/* ASKED.flags, where both sides have PEER_FEATURE_AHEAD; left out if 0 */
#define PEER_ASKED_AHEAD \
    UINT32_C(1) /* nobody limits QEMU's own stream: memory may be fetched ahead of it */

/* INVITE.flags */
#define PEER_INVITE_AWAIT UINT32_C(1) /* the VM is not there yet: wait for it to be started */
#define PEER_INVITE_TCP \
    UINT32_C(2) /* whoever drives it wants this transport; at most one of the two */
#define PEER_INVITE_RDMA UINT32_C(4)

typedef enum PeerChannelKind {
    PEER_CHANNEL_CONTROL = 0,
    PEER_CHANNEL_URGENT = 1,
    PEER_CHANNEL_BULK = 2,
    PEER_CHANNEL_RELAY = 3,
} PeerChannelKind;

typedef enum PeerErrorCode {
    PEER_ERROR_NONE = 0,
    PEER_ERROR_PROTOCOL = 1, /* malformed, or out of turn */
    PEER_ERROR_VERSION = 2,
    PEER_ERROR_UNKNOWN_VM = 3,
    PEER_ERROR_TOKEN = 4,
    PEER_ERROR_BUSY = 5,     /* another destination holds the export, or this VM already moves */
    PEER_ERROR_REGIONS = 6,  /* the two sides' memory differs */
    PEER_ERROR_UNSEALED = 7, /* rule 1: no read before the seal */
    PEER_ERROR_FENCED = 8,   /* rule 1: no read after the source ran again */
    PEER_ERROR_RANGE = 9,    /* no such region or page */
    PEER_ERROR_IO = 10,      /* rule 11: the memory could not be read; never answered as zeroes */
    PEER_ERROR_REFUSED = 11, /* the client, its memory or the configuration forbids it */
    PEER_ERROR_CLIENT_GONE = 12,
    PEER_ERROR_LAST = PEER_ERROR_CLIENT_GONE,
} PeerErrorCode;

typedef struct PeerHeader {
    uint32_t length; /* of the body */
    uint16_t type;
    uint16_t flags;
    uint32_t session;
    uint32_t generation;
    uint64_t cookie;
} PeerHeader;

typedef struct PeerRegion {
    char id[LIMIT_REGION_ID + 1];
    uint64_t guest_address;
    uint64_t length;
    uint64_t page_size;
    uint64_t backing; /* tells the same file of the same host; 0: none, or unknown */
    uint64_t
        address_hint; /* INVITE: where the driver says it lies in the destination's client; 0 */
} PeerRegion;

typedef struct PeerRegions {
    uint32_t n;
    PeerRegion regions[LIMIT_REGIONS];
} PeerRegions;

/* Pages first .. first + count of the READ item whose cookie the header carries. */
typedef struct PeerPlacement {
    uint64_t seal;
    uint32_t first;
    uint32_t count;
    uint32_t code; /* ERROR: PeerErrorCode; else 0 */
} PeerPlacement;

typedef struct PeerReadItem {
    uint64_t cookie;
    uint64_t page; /* in the region, counted in its pages */
    uint32_t region;
    uint32_t count; /* pages; count * page size is at most PEER_READ_MAX */
} PeerReadItem;

typedef struct PeerExtent {
    uint64_t page;
    uint64_t count;
} PeerExtent;

/* One end of a reliable queue pair, for the other one to connect to. */
typedef struct PeerRdmaEnd {
    uint8_t gid[16];
    uint32_t qpn;       /* 24 bits */
    uint32_t psn;       /* 24 bits */
    uint16_t lid;       /* 0 on Ethernet */
    uint8_t link_layer; /* IBV_LINK_LAYER_*: both ends' must be the same */
    uint8_t mtu;        /* enum ibv_mtu, the larger one this end can take */
    uint8_t reads;      /* READs under way that this end can answer, 1 to 255 */
} PeerRdmaEnd;

/* Memory of one region that may be read with one key. */
typedef struct PeerSpan {
    uint64_t page; /* in the region */
    uint64_t count;
    uint64_t address; /* of its first byte, as the source's device knows it */
    uint32_t rkey;
    uint32_t id; /* names it in KEYS_DONE; never given twice in a session */
} PeerSpan;

typedef enum PeerKeysState {
    /* Pages from the one asked for up to .next that are not in the span are zero. */
    PEER_KEYS_SPAN = 0, /* here is one */
    PEER_KEYS_END = 1,  /* there is none up to .next: all zero */
    PEER_KEYS_FULL = 2, /* no more may be pinned at once: ask again when a span is done with */
    PEER_KEYS_NONE = 3, /* this region cannot be read so, from the page asked for on */
    PEER_KEYS_LAST = PEER_KEYS_NONE,
} PeerKeysState;

typedef struct PeerMessage {
    PeerMessageType type;
    uint32_t session;
    uint32_t generation;
    uint64_t cookie;
    union {
        struct {
            uint64_t magic;
            bool tls; /* START: wanted; STARTED: follows */
        } start;
        struct {
            uint16_t version_lowest;
            uint16_t version_highest;
            uint64_t features_required;
            uint64_t features_optional;
            uint64_t page_size;
            char machine[LIMIT_REGION_ID + 1]; /* uname -m */
            char agent[LIMIT_REGION_ID + 1];   /* "postcopyd 0.1.0" */
        } hello;
        struct {
            uint8_t uuid[LIMIT_UUID];
            char name[LIMIT_NAME + 1];
            uint8_t token[LIMIT_TOKEN];
            char source[LIMIT_ADDRESS +
                        1]; /* HOST:PORT to attach to; ":PORT": the host I come from */
            PeerRegions regions;
            uint32_t n_vcpus;
            uint32_t vcpus[LIMIT_VCPUS]; /* the destination's thread ids, if a driver knows them */
            uint32_t flags;              /* PEER_INVITE_* */
        } invite;
        struct {
            uint8_t uuid[LIMIT_UUID];
            char name[LIMIT_NAME + 1];
            uint8_t token[LIMIT_TOKEN]; /* of the VM, as its management layer brought it along */
            char
                connection[LIMIT_ADDRESS + 1]; /* ADDRESS:PORT at which the asker's QEMU receives */
        } ask;
        struct {
            uint32_t code; /* PeerErrorCode */
            char text[LIMIT_TEXT + 1];
            uint8_t token[LIMIT_TOKEN]; /* of the export */
            uint32_t flags;             /* PEER_ASKED_* */
        } asked;
        struct {
            uint32_t code; /* PeerErrorCode */
            char text[LIMIT_TEXT + 1];
            char incoming[LIMIT_ADDRESS +
                          1]; /* INVITED: path for the destination's migrate-incoming */
        } status;             /* INVITED JOINED BYE FENCED */
        struct {
            uint8_t uuid[LIMIT_UUID];
            char name[LIMIT_NAME + 1];
            uint8_t token[LIMIT_TOKEN];
        } attach;
        struct {
            uint32_t code;
            char text[LIMIT_TEXT + 1];
            uint64_t seal; /* 0: not sealed yet */
            uint8_t secret[LIMIT_TOKEN];
            PeerRegions regions;
        } attached;
        struct {
            uint8_t secret[LIMIT_TOKEN];
            PeerChannelKind kind;
            uint32_t index;
        } join;
        struct {
            uint64_t seal;
        } sealed;
        struct {
            uint32_t state; /* ClientState */
            uint64_t populated_bytes;
            uint64_t present_bytes;
            uint64_t missing_at_running; /* bytes; of those populated, when RUNNING came */
            uint64_t faults;
            uint64_t received_bytes;
            uint64_t fault_p50_ns;
            uint64_t fault_p99_ns;
            char text[LIMIT_TEXT + 1];
        } progress;
        struct {
            uint32_t region;
            uint64_t page; /* from here on */
        } map_request;
        struct {
            uint32_t region;
            uint64_t seal;
            uint64_t next; /* ask on from this page; the region's page count: complete */
            uint32_t n;
            PeerExtent extents[PEER_MAP_EXTENTS]; /* ascending, apart */
        } map;
        /*
         * Where the source has content by now: what the destination may allocate ahead, and no
         * more than that (rule 1).  Regions in the source's order, each from a byte of its own on, a
         * bit (lowest first) for every 1 << shift bytes.
         */
        struct {
            uint32_t shift;
            uint32_t n; /* bytes; 0: nothing is known */
            uint8_t bits[PEER_FORECAST_BYTES];
        } forecast;
        struct {
            PeerRdmaEnd end;
        } rdma_connect;
        struct {
            uint32_t code; /* PeerErrorCode */
            char text[LIMIT_TEXT + 1];
            PeerRdmaEnd end; /* only with PEER_ERROR_NONE */
        } rdma_connected;
        struct {
            uint32_t region;
            uint64_t page; /* from here on */
        } keys_request;
        struct {
            uint32_t region;
            uint32_t state; /* PeerKeysState */
            uint64_t seal;
            uint64_t next; /* ask on from this page; the region's page count: complete */
            PeerSpan span; /* only of PEER_KEYS_SPAN, as is what follows */
            uint32_t n;
            PeerExtent
                zeroes[PEER_MAP_EXTENTS]; /* in the span, ascending, apart: never to be read */
        } keys;
        struct {
            uint32_t id;
        } keys_done;
        struct {
            uint32_t n;
            PeerReadItem items[PEER_READ_ITEMS];
        } read;
        PeerPlacement placement; /* ZERO ERROR; DATA, whose pages follow the frame's fixed body */
    };
} PeerMessage;

/* Header and body into ret_frame[size]; the frame's length, or -EMSGSIZE. DATA: without its pages,
 * but with their count * page_size in the header's length. */
ssize_t peer_message_encode(const PeerMessage *message, void *ret_frame, size_t size);
ssize_t peer_data_encode(const PeerMessage *message, uint32_t data_length, void *ret_frame,
                         size_t size);

/* A READ of n items (1 to PEER_READ_ITEMS), without a whole PeerMessage around it. */
ssize_t peer_read_encode(uint32_t session, uint32_t generation, const PeerReadItem *items,
                         uint32_t n, void *ret_frame, size_t size);

/* 0, or -EPROTO: the length is more than this type may have. */
int peer_header_decode(const uint8_t bytes[PEER_HEADER_SIZE], PeerHeader *ret_header);

/* The body of any frame but DATA; an unknown type decodes as PEER_UNKNOWN.  0 or -EPROTO. */
int peer_message_decode(const PeerHeader *header, const void *body, PeerMessage *ret_message);

/* The fixed body of DATA, ZERO and ERROR.  0 or -EPROTO (a DATA frame's length says otherwise than
 * a whole number of bytes for each of count pages, or count is 0). */
int peer_placement_decode(const PeerHeader *header, const uint8_t bytes[PEER_PLACEMENT_SIZE],
                          PeerPlacement *ret_placement);

/* Bytes of a region's bits in a FORECAST. */
static inline uint64_t peer_forecast_bytes(uint64_t length, uint32_t shift)
{
    return ((length - 1) >> shift) / 8 + 1;
}

const char *peer_error_name(PeerErrorCode code);

#endif
