/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Finds and opens the device behind a socket's local address.  Owns: the context, the protection domain.
 * Any thread; constant once it is open.
 *
 * rdma_cm only tells which device and port an address belongs to: the device is opened a second time, as
 * rdma_cm's own context is shared by the whole process and never closed.
 */
#include "daemon/transport/rdma_device.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <rdma/rdma_cma.h>

#include "daemon/transport/rdma_private.h"

/* One end of a socket, as RDMA sees it. */
typedef struct End {
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
        struct sockaddr_storage room;
    } address;
    char text[INET6_ADDRSTRLEN];
    union ibv_gid gid; /* that a RoCE port has for such an address */
    bool loopback;
} End;

/* What rdma_cm knows. */
typedef struct Place {
    char name[IBV_SYSFS_NAME_MAX];
    uint8_t port;
    __be16 pkey; /* of InfiniBand's partition; 0: not told */
} Place;

/* An IPv4 address in IPv6's clothes is one: devices know it as such. */
static void unmap(End *end)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET};

    memcpy(&v4.sin_addr, &end->address.v6.sin6_addr.s6_addr[12], sizeof v4.sin_addr);
    memset(&end->address, 0, sizeof end->address);
    end->address.v4 = v4;
}

static bool end_settle(End *end)
{
    const void *raw;

    if (end->address.any.sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&end->address.v6.sin6_addr))
        unmap(end);
    if (end->address.any.sa_family == AF_INET) {
        raw = &end->address.v4.sin_addr;
        end->address.v4.sin_port = 0;
        end->gid.raw[10] = end->gid.raw[11] = 0xff;
        memcpy(&end->gid.raw[12], raw, 4);
        end->loopback = end->gid.raw[12] == 127;
    } else if (end->address.any.sa_family == AF_INET6) {
        raw = &end->address.v6.sin6_addr;
        end->address.v6.sin6_port = 0;
        memcpy(end->gid.raw, raw, 16);
        end->loopback = IN6_IS_ADDR_LOOPBACK(&end->address.v6.sin6_addr);
    } else {
        return false;
    }
    return inet_ntop(end->address.any.sa_family, raw, end->text, sizeof end->text) != NULL;
}

/* Both ends of a connected socket. */
static bool socket_ends(int socket, End *ret_own, End *ret_peer)
{
    socklen_t own = sizeof ret_own->address, peer = sizeof ret_peer->address;

    *ret_own = *ret_peer = (End){0};
    return getsockname(socket, &ret_own->address.any, &own) == 0 &&
           getpeername(socket, &ret_peer->address.any, &peer) == 0 && end_settle(ret_own) &&
           end_settle(ret_peer);
}

static int place_of_id(struct rdma_cm_id *id, End *own, Place *ret_place)
{
    if (rdma_bind_addr(id, &own->address.any))
        return -errno;
    if (!id->verbs)
        return -ENODEV;
    snprintf(ret_place->name, sizeof ret_place->name, "%s", ibv_get_device_name(id->verbs->device));
    ret_place->port = id->port_num;
    ret_place->pkey = id->route.addr.addr.ibaddr.pkey;
    return 0;
}

static int find_place(End *own, Place *ret_place)
{
    struct rdma_event_channel *events = rdma_create_event_channel();
    struct rdma_cm_id *id;
    int error;

    if (!events)
        return -errno;
    if (rdma_create_id(events, &id, NULL, RDMA_PS_TCP) == 0) {
        error = place_of_id(id, own, ret_place);
        rdma_destroy_id(id);
    } else {
        error = -errno;
    }
    rdma_destroy_event_channel(events);
    return error;
}

static struct ibv_context *open_named(const char *name, int *ret_error)
{
    int n = 0;
    struct ibv_device **list = ibv_get_device_list(&n);
    struct ibv_context *context = NULL;

    *ret_error = -ENODEV;
    for (int i = 0; list && i < n; i++)
        if (strcmp(ibv_get_device_name(list[i]), name) == 0) {
            context = ibv_open_device(list[i]);
            *ret_error = context ? 0 : errno ? -errno : -EIO;
            break;
        }
    if (list)
        ibv_free_device_list(list);
    return context;
}

bool rdma_device_is_ethernet(const RdmaDevice *device)
{
    return device->port_state.link_layer == IBV_LINK_LAYER_ETHERNET;
}

/* The entry of the port's table that has this GID, for RoCE v2 if there is one. */
static int find_gid(RdmaDevice *device, const union ibv_gid *wanted)
{
    size_t most = (size_t)device->port_state.gid_tbl_len * device->limits.phys_port_cnt;
    struct ibv_gid_entry *entries = calloc(most ? most : 1, sizeof *entries);
    const struct ibv_gid_entry *found = NULL;
    ssize_t n;

    if (!entries)
        return -ENOMEM;
    n = ibv_query_gid_table(device->context, entries, most, 0);
    for (ssize_t i = 0; i < n; i++) {
        const struct ibv_gid_entry *entry = &entries[i];

        if (entry->port_num != device->port || entry->gid_index > UINT8_MAX ||
            memcmp(entry->gid.raw, wanted->raw, sizeof wanted->raw) != 0)
            continue;
        if (!found || entry->gid_type == IBV_GID_TYPE_ROCE_V2)
            found = entry;
    }
    if (found) {
        device->gid = found->gid;
        device->gid_index = (uint8_t)found->gid_index;
    }
    free(entries);
    return n < 0 ? (int)n : found ? 0 : -EADDRNOTAVAIL;
}

static int settle_infiniband(RdmaDevice *device, __be16 pkey)
{
    int index = pkey ? ibv_get_pkey_index(device->context, device->port, pkey) : 0;

    if (index < 0)
        return -ENOENT;
    device->pkey_index = (uint16_t)index;
    return ibv_query_gid(device->context, device->port, 0, &device->gid) ? -EIO : 0;
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

static bool open_failed(const char *name, const char *what, int error, char *ret_text)
{
    snprintf(ret_text, LIMIT_TEXT + 1, "the RDMA device %s cannot be used: %s: %s", name, what,
             strerror(-error));
    return false;
}

static bool settle(RdmaDevice *device, const Place *place, const End *own, const End *peer,
                   char *ret_text)
{
    const char *obstacle;
    int error;

    device->context = open_named(place->name, &error);
    if (!device->context)
        return open_failed(place->name, "opening it failed", error, ret_text);
    device->port = place->port;
    if ((error = ibv_query_device(device->context, &device->limits)) ||
        (error = ibv_query_port(device->context, device->port, &device->port_state)))
        return open_failed(place->name, "it does not tell what it can do", -error, ret_text);
    obstacle = unfit(device);
    if (obstacle) {
        snprintf(ret_text, LIMIT_TEXT + 1, "the RDMA device %s %s", place->name, obstacle);
        return false;
    }
    device->peer_gid = peer->gid;
    error = rdma_device_is_ethernet(device) ? find_gid(device, &own->gid)
                                            : settle_infiniband(device, place->pkey);
    if (error)
        return open_failed(place->name,
                           rdma_device_is_ethernet(device) ? "it has no GID of the local address"
                                                           : "it has no such partition",
                           error, ret_text);
    errno = 0;
    device->pd = ibv_alloc_pd(device->context);
    if (!device->pd)
        return open_failed(place->name, "no protection domain", errno ? -errno : -EIO, ret_text);
    return true;
}

static bool find(End *own, Place *ret_place, char *ret_text)
{
    char names[LIMIT_TEXT + 1];
    int error;

    if (own->loopback) {
        snprintf(ret_text, LIMIT_TEXT + 1,
                 "the connection uses the loopback address %s, and RDMA does not work there",
                 own->text);
        return false;
    }
    if (rdma_list_devices(names, sizeof names) == 0) {
        snprintf(ret_text, LIMIT_TEXT + 1, "this host has no RDMA device");
        return false;
    }
    error = find_place(own, ret_place);
    if (error == -ENODEV || error == -EADDRNOTAVAIL)
        snprintf(ret_text, LIMIT_TEXT + 1, "no RDMA device has the local address %s", own->text);
    else if (error)
        snprintf(
            ret_text, LIMIT_TEXT + 1,
            "the RDMA device of the local address %s cannot be found: %s (is the module rdma_ucm "
            "loaded, and may the daemon open /dev/infiniband/rdma_cm?)",
            own->text, strerror(-error));
    return error == 0;
}

RdmaDevice *rdma_device_open(int socket, RdmaBudget *budget, char *ret_text)
{
    End own, peer;
    Place place = {0};
    RdmaDevice *device;

    ret_text[0] = '\0';
    if (!socket_ends(socket, &own, &peer)) {
        snprintf(ret_text, LIMIT_TEXT + 1, "the connection is not one over IP, or has ended");
        return NULL;
    }
    if (!find(&own, &place, ret_text))
        return NULL;
    device = calloc(1, sizeof *device);
    if (!device) {
        snprintf(ret_text, LIMIT_TEXT + 1, "no memory for an RDMA device");
        return NULL;
    }
    atomic_init(&device->refs, 1);
    device->budget = budget;
    if (settle(device, &place, &own, &peer, ret_text))
        return device;
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
    if (device->context)
        ibv_close_device(device->context);
    free(device);
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
