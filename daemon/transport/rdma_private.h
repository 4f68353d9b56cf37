/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the files of the RDMA transport know of a device; nobody else includes this.
 */
#ifndef POSTCOPYD_TRANSPORT_RDMA_PRIVATE_H
#define POSTCOPYD_TRANSPORT_RDMA_PRIVATE_H

#include <stdatomic.h>

#include <infiniband/verbs.h>

#include "daemon/transport/rdma_device.h"

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

/* False on InfiniBand. */
bool rdma_device_is_ethernet(const RdmaDevice *device);

#endif
