/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A device that is open.  Owns: its context, so that another import has nothing in common with this one, and
 * the protection domain.  Any thread; constant once it is open.
 */
#include "daemon/transport/rdma_device.h"

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/transport/rdma_private.h"

bool rdma_device_is_ethernet(const RdmaDevice *device)
{
    return device->port_state.link_layer == IBV_LINK_LAYER_ETHERNET;
}

/* NULL: it can be used; otherwise what is in the way, as the end of a sentence. */
static const char *unfit(const RdmaDevice *device)
{
    const struct ibv_port_attr *port = &device->port_state;

    if (device->context->device->transport_type != IBV_TRANSPORT_IB)
        return "is neither InfiniBand nor RoCE";
    if (port->link_layer != IBV_LINK_LAYER_ETHERNET &&
        port->link_layer != IBV_LINK_LAYER_INFINIBAND)
        return "has a port of an unknown kind";
    if (port->state != IBV_PORT_ACTIVE)
        return "has no link: its port is not active";
    if (device->limits.max_qp_rd_atom < 1 || device->limits.max_qp_init_rd_atom < 1)
        return "cannot READ";
    return NULL;
}

/* False: the port is not of the interface's partition (any more). */
static bool find_partition(RdmaDevice *device, uint16_t pkey)
{
    int index = pkey ? ibv_get_pkey_index(device->context, device->port, (__be16)htobe16(pkey)) : 0;

    if (index < 0 || index > UINT16_MAX)
        return false;
    device->pkey_index = (uint16_t)index;
    return true;
}

/* NULL: it is ready; otherwise what is in the way. */
static const char *prepare(RdmaDevice *device, uint16_t pkey)
{
    const char *obstacle;

    if (ibv_query_device(device->context, &device->limits) ||
        ibv_query_port(device->context, device->port, &device->port_state))
        return "does not tell what it can do";
    obstacle = unfit(device);
    if (obstacle)
        return obstacle;
    if (!rdma_device_is_ethernet(device) && !find_partition(device, pkey))
        return "is not in the interface's partition";
    device->pd = ibv_alloc_pd(device->context);
    return device->pd ? NULL : "has no protection domain left";
}

RdmaDevice *rdma_device_open(int socket, RdmaBudget *budget, char *ret_text)
{
    RdmaHost own, peer;
    RdmaPlace place;
    RdmaDevice *device;
    const char *obstacle;

    if (!rdma_hosts(socket, &own, &peer)) {
        snprintf(ret_text, LIMIT_TEXT + 1, "the connection is not one over IP, or has ended");
        return NULL;
    }
    if (!rdma_find(&own, &place, ret_text))
        return NULL;
    device = calloc(1, sizeof *device);
    if (!device) {
        snprintf(ret_text, LIMIT_TEXT + 1, "no memory for an RDMA device");
        ibv_close_device(place.context);
        return NULL;
    }
    atomic_init(&device->refs, 1);
    device->budget = budget;
    device->context = place.context;
    device->port = place.port;
    device->gid = place.gid;
    device->gid_index = place.gid_index;
    device->peer_gid = peer.gid;
    obstacle = prepare(device, place.pkey);
    if (!obstacle)
        return device;
    snprintf(ret_text, LIMIT_TEXT + 1, "the RDMA device %s %s", rdma_device_name(device), obstacle);
    rdma_device_unref(device);
    return NULL;
}

RdmaDevice *rdma_device_ref(RdmaDevice *device)
{
    atomic_fetch_add_explicit(&device->refs, 1, memory_order_relaxed);
    return device;
}

void rdma_device_unref(RdmaDevice *device)
{
    if (!device || atomic_fetch_sub_explicit(&device->refs, 1, memory_order_acq_rel) != 1)
        return;
    if (device->pd)
        ibv_dealloc_pd(device->pd);
    ibv_close_device(device->context);
    free(device);
}

const RdmaBudget *rdma_device_budget(const RdmaDevice *device)
{
    return device->budget;
}

const char *rdma_device_name(const RdmaDevice *device)
{
    return ibv_get_device_name(device->context->device);
}

unsigned rdma_list_devices(char *ret_names, size_t size)
{
    int n = 0;
    struct ibv_device **list = ibv_get_device_list(&n);
    size_t used = 0;

    if (size)
        ret_names[0] = '\0';
    for (int i = 0; list && i < n; i++) {
        int length = snprintf(ret_names + used, size - used, "%s%s", used ? " " : "",
                              ibv_get_device_name(list[i]));

        if (length < 0 || (size_t)length >= size - used) {
            if (used < size)
                ret_names[used] = '\0'; /* no half a name */
            break;
        }
        used += (size_t)length;
    }
    if (list)
        ibv_free_device_list(list);
    return list && n > 0 ? (unsigned)n : 0;
}
