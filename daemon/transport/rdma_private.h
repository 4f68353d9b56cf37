/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the files of the RDMA transport know of a device; nobody else includes this.
 */
#ifndef POSTCOPYD_TRANSPORT_RDMA_PRIVATE_H
#define POSTCOPYD_TRANSPORT_RDMA_PRIVATE_H

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <sys/socket.h>

#include <infiniband/verbs.h>

#include "daemon/transport/rdma_device.h"

/* One end of a socket, as RDMA sees it. */
typedef struct RdmaHost {
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
        struct sockaddr_storage room;
    } address; /* IPv4 ones never mapped; without a port */
    char text[INET6_ADDRSTRLEN];
    union ibv_gid gid; /* that a RoCE port has for such an address */
    bool loopback;
} RdmaHost;

/* Where the device of an address is. */
typedef struct RdmaPlace {
    struct ibv_context *context; /* the finder's caller closes it */
    union ibv_gid gid;
    uint8_t port;
    uint8_t gid_index;
    uint16_t pkey; /* of InfiniBand's partition; 0: the first there is */
} RdmaPlace;

/* The two ends of a connected socket; false: it is none, or not over IP. */
bool rdma_hosts(int socket, RdmaHost *ret_own, RdmaHost *ret_peer);

/* Opens the device that has this address of this host.  False with a line in ret_text. */
bool rdma_find(const RdmaHost *own, RdmaPlace *ret_place, char *ret_text);

/* All but refs is constant from rdma_device_open() on. */
struct RdmaDevice {
    atomic_uint refs;
    RdmaBudget *budget;
    struct ibv_context *context;
    struct ibv_pd *pd;
    struct ibv_device_attr limits;
    struct ibv_port_attr port_state; /* as it was when it was opened */
    uint8_t port;
    uint8_t gid_index;
    uint16_t pkey_index;
    union ibv_gid gid;
    union ibv_gid peer_gid; /* Ethernet: of the address at the other end of the socket */
};

/*
 * What cannot be destroyed might be written to still, and stays pinned.  Only where the device itself is gone
 * that is no worry, and otherwise the end of the process is what stops it.
 */
static inline void rdma_must(int error)
{
    assert(error == 0 || error == EIO || error == ENODEV);
}

/* False on InfiniBand. */
bool rdma_device_is_ethernet(const RdmaDevice *device);

#endif
