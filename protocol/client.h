/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Client <-> daemon: messages over a UNIX SOCK_SEQPACKET socket, fds by SCM_RIGHTS.
 *
 * One packet is one message: u16 type, u16 version, u32 serial, u32 number of fds, then the body.
 * A reply carries the serial of what it answers.  A message with more fds than one packet takes is
 * preceded by FDS packets; the receiver hands over message and fds together (ClientChannel).
 * An unknown type decodes as CLIENT_UNKNOWN and is answered with ERROR, not ignored.
 * docs/PROTOCOL.md tells who sends what when.
 */
#ifndef POSTCOPYD_PROTOCOL_CLIENT_H
#define POSTCOPYD_PROTOCOL_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "protocol/limits.h"

enum {
    CLIENT_VERSION = 1,
    CLIENT_PACKET_MAX = 64 * 1024,
    CLIENT_JSON_MAX = 48 * 1024, /* bytes of JSON in one OPERATOR or REPLY message */
};

typedef enum ClientMessageType {
    CLIENT_UNKNOWN = 0,
    CLIENT_FDS = 1,   /* both ways: fds of the message that follows */
    CLIENT_ERROR = 2, /* both ways: why the message with this serial was refused */
    CLIENT_HELLO =
        3, /* client: who I am, my memory, my threads; fds: RAM fds, and if armed the uffds and the table */
    CLIENT_WELCOME = 4,   /* daemon */
    CLIENT_ARM = 5,       /* daemon: become a destination; fds: table [, /dev/userfaultfd] */
    CLIENT_ARMED = 6,     /* client; fds: one uffd a shard, in the order of ARM */
    CLIENT_RELEASE = 7,   /* daemon: all memory is here (or, with DISARM, none will come): let go */
    CLIENT_RELEASED = 8,  /* client */
    CLIENT_EXPORT = 9,    /* daemon: become a source */
    CLIENT_EXPORTED = 10, /* client */
    CLIENT_VCPUS = 11,    /* client: the vCPU threads, anew */
    CLIENT_REGION_ADD = 12,    /* client; fds: its RAM fd */
    CLIENT_REGION_REMOVE = 13, /* client */
    CLIENT_OFFER = 14,         /* client: prepare my migration to that daemon */
    CLIENT_OFFERED = 15,       /* daemon: its destination is armed, or why not */
    CLIENT_SEAL = 16,          /* client: my vCPUs are stopped and my memory is final */
    CLIENT_SEALED = 17,        /* daemon: and the gate of the destination is open, or why not */
    CLIENT_CANCEL = 18,        /* client: undo OFFER; refused once the gate is open */
    CLIENT_RUNNING =
        19, /* client: my vCPUs run (a destination: the stream may start; a sealed source: fence) */
    CLIENT_STATE = 20,    /* daemon: how the import or export fares */
    CLIENT_KEEP = 21,     /* daemon: keep this and present it in the HELLO to my successor */
    CLIENT_OPERATOR = 22, /* operator: a request as JSON [; fds: the source's monitor] */
    CLIENT_REPLY = 23,    /* daemon: the answer as JSON, in parts */
    CLIENT_OK = 24,       /* both ways: the message with this serial was done */
    /* Without a HELLO: */
    CLIENT_DEVICE = 25, /* client: may I have /dev/userfaultfd? daemon: here it is; fds: it */
    /* Assist mode, on a connection of its own (client/qemu/assist.h): */
    CLIENT_ASSIST = 26, /* client: QEMU may soon receive memory by its own post-copy */
    CLIENT_PLAN = 27,   /* daemon: its source is found; what to register; fds: table [, device] */
    CLIENT_LISTEN = 28, /* client: it is registered; fds: one uffd a shard, in the order of PLAN */
    CLIENT_END = 29,    /* client: QEMU unregistered it: all memory is here, or it gave up */
} ClientMessageType;

typedef enum ClientRole {
    CLIENT_ROLE_SOURCE = 1,      /* runs, may be exported */
    CLIENT_ROLE_DESTINATION = 2, /* waits for its memory */
} ClientRole;

typedef enum ClientRegionKind {
    CLIENT_REGION_ANONYMOUS = 0, /* no fd; read through /proc/PID/mem */
    CLIENT_REGION_SHARED = 1,    /* MAP_SHARED of its fd */
    CLIENT_REGION_PRIVATE = 2,   /* MAP_PRIVATE of its fd; as anonymous */
} ClientRegionKind;

/* HELLO.flags */
#define CLIENT_HELLO_ARMED UINT32_C(1) /* re-connecting: fds end with table and uffds */

/* ARM.flags */
#define CLIENT_ARM_DEVICE UINT32_C(1) /* fds[1] is an open /dev/userfaultfd to make uffds from */

#define CLIENT_ARM_REGION \
    UINT32_C(             \
        2) /* one region that REGION_ADD named, its shards only; no table: fds[0] is the device */

/* RELEASE.flags */
#define CLIENT_RELEASE_DISARM \
    UINT32_C(1) /* the gate never opened: unregister whatever the table says */

/* REPLY.flags */
#define CLIENT_REPLY_MORE UINT32_C(1)

/* ClientRegion.flags */
#define CLIENT_REGION_REMOVABLE \
    UINT16_C(1) /* parts of it may be given back (a balloon) while it arrives */
#define CLIENT_REGION_ABSENT \
    UINT16_C(2) /* HELLO of a destination: not mapped yet; no address, no fd */

typedef struct ClientRegion {
    char id[LIMIT_REGION_ID + 1]; /* "" if the client cannot know it */
    uint64_t guest_address;       /* GUEST_ADDRESS_UNKNOWN likewise */
    uint64_t address;             /* in the client's address space */
    uint64_t length;
    uint64_t page_size;
    uint64_t fd_offset;
    ClientRegionKind kind;
    uint16_t flags; /* CLIENT_REGION_* */
    int32_t fd;     /* index into the message's fds, -1 if anonymous */
} ClientRegion;

/* ClientShard.flags */
#define CLIENT_SHARD_MINOR \
    UINT16_C(1) /* registered MISSING and MINOR: pages may be placed by CONTINUE */
#define CLIENT_SHARD_EVENTS UINT16_C(2) /* its uffd reports REMOVE and UNMAP */

typedef struct ClientShard {
    uint16_t region; /* index into HELLO's regions */
    uint16_t flags;  /* CLIENT_SHARD_* */
    uint64_t start;  /* bytes from the region's start */
    uint64_t length;
} ClientShard;

typedef enum ClientState {
    CLIENT_STATE_IDLE = 0,
    CLIENT_STATE_ARMED = 1,     /* gate shut */
    CLIENT_STATE_RUNNING = 2,   /* gate open, memory on its way */
    CLIENT_STATE_PAUSED = 3,    /* the link is down; faults wait */
    CLIENT_STATE_COMPLETE = 4,  /* all memory is here */
    CLIENT_STATE_RELEASED = 5,  /* and the client let go */
    CLIENT_STATE_FENCED = 6,    /* the source ran again: this guest must not go on */
    CLIENT_STATE_BROKEN = 7,    /* integrity error; text says which */
    CLIENT_STATE_CANCELLED = 8, /* undone before the gate opened */
    CLIENT_STATE_EXPORTED = 9,  /* source: offered, not sealed */
    CLIENT_STATE_SEALED = 10,   /* source: sealed, being read */
    CLIENT_STATE_DONE = 11,     /* source: the destination has everything */
    CLIENT_STATE_LAST = CLIENT_STATE_DONE,
} ClientState;

typedef struct ClientHello {
    ClientRole role;
    uint32_t flags;
    uint64_t features;
    uint8_t uuid[LIMIT_UUID]; /* all zero: none; then the name identifies the VM */
    char name[LIMIT_NAME + 1];
    char problem[LIMIT_TEXT + 1]; /* why this VM cannot be served, "" if it can */
    uint32_t n_regions;
    ClientRegion regions[LIMIT_REGIONS];
    uint32_t n_vcpus;
    uint32_t vcpus[LIMIT_VCPUS]; /* thread ids, in vCPU order */
    uint32_t n_shards;           /* only with ARMED */
    ClientShard shards[LIMIT_SHARDS];
    uint32_t table_fd; /* only with ARMED: index of the table's fd; the uffds follow it */
    uint32_t blob_length;
    uint8_t blob[LIMIT_BLOB];
} ClientHello;

typedef struct ClientStatus {
    int32_t status; /* 0, or negative errno */
    uint64_t seal;  /* SEALED only */
    char text[LIMIT_TEXT + 1];
} ClientStatus;

/* A part of the guest's RAM, as PLAN names it. */
typedef struct ClientRange {
    uint64_t address; /* in the client's address space */
    uint64_t length;
    uint64_t page_size;
} ClientRange;

typedef struct ClientMessage {
    ClientMessageType type;
    uint32_t serial;
    uint32_t n_fds; /* set by client_message_decode(): over all packets */
    union {
        ClientHello hello;
        struct {
            uint64_t session;
            uint64_t features;
        } welcome;
        struct {
            uint32_t flags;
            uint64_t table_size;
            uint32_t n_shards;
            ClientShard shards[LIMIT_SHARDS];
        } arm;
        struct {
            uint8_t uuid[LIMIT_UUID];
            char name[LIMIT_NAME + 1];
        } assist;
        struct {
            uint32_t flags; /* CLIENT_ARM_DEVICE */
            uint64_t table_size;
            uint32_t n_ranges; /* the table's regions, in its order */
            ClientRange ranges[LIMIT_REGIONS];
            uint32_t n_shards;
            ClientShard shards[LIMIT_SHARDS];
        } plan;
        ClientStatus status; /* ERROR ARMED RELEASED EXPORTED OFFERED SEALED */
        struct {
            uint32_t flags;
        } release;
        struct {
            uint32_t n;
            uint32_t tids[LIMIT_VCPUS];
        } vcpus;
        ClientRegion region; /* REGION_ADD; REGION_REMOVE: address and length count */
        struct {
            char destination[LIMIT_ADDRESS + 1]; /* HOST:PORT */
        } offer;
        struct {
            ClientState state;
            uint64_t populated_bytes; /* of guest memory with content, 0 until known */
            uint64_t present_bytes;   /* of those, already here */
            uint64_t faults;
            char text[LIMIT_TEXT + 1];
        } state;
        struct {
            uint32_t length;
            uint8_t blob[LIMIT_BLOB];
        } keep;
        struct {
            uint32_t flags;
            uint32_t length;
            char text[CLIENT_JSON_MAX + 1];
        } json; /* OPERATOR REPLY */
    };
} ClientMessage;

/*
 * Encodes the message, which goes with n_fds fds, into packet[CLIENT_PACKET_MAX].
 * Its length, or -EMSGSIZE if a field is out of bounds.
 */
ssize_t client_message_encode(const ClientMessage *message, uint32_t n_fds, void *ret_packet);

/*
 * Decodes one packet.  0; -EPROTO if malformed; -EPROTONOSUPPORT if of another version.  All bounds
 * of limits.h hold afterwards, and every fd index is -1 or below n_fds.
 */
int client_message_decode(const void *packet, size_t length, ClientMessage *ret_message);

/* The field's word for a state, "running", never NULL. */
const char *client_state_name(ClientState state);

/*
 * A connection's receiving side: collects fds until their message is complete.
 * Owns the fds it holds; one thread.
 */
typedef struct ClientChannel {
    int socket;    /* the caller's */
    bool complete; /* the fds are those of the message handed over last */
    size_t n_fds;
    int fds[LIMIT_FDS];
    uint8_t packet[CLIENT_PACKET_MAX];
} ClientChannel;

void client_channel_init(ClientChannel *channel, int socket);
void client_channel_deinit(ClientChannel *channel); /* closes fds not taken */

/*
 * Receives one whole message; its fds are channel->fds[0 .. message->n_fds), the channel's until
 * client_channel_take_fd() or the next receive, which closes what was not taken.
 * 1 message; 0 end of connection; -EAGAIN: not yet (non-blocking socket); -EPROTO, -EMSGSIZE,
 * -EPROTONOSUPPORT: refuse this peer.
 */
int client_channel_receive(ClientChannel *channel, ClientMessage *ret_message);

/* Takes fd number index; the caller owns it.  -1 if there is none or it was taken. */
int client_channel_take_fd(ClientChannel *channel, size_t index);

/*
 * Sends a message with its fds, split over packets as needed; the fds stay the caller's.
 * scratch[CLIENT_PACKET_MAX] is used meanwhile.  0 or negative errno.
 */
int client_message_send(int socket, const ClientMessage *message, const int *fds, size_t n_fds,
                        void *scratch);

#endif
