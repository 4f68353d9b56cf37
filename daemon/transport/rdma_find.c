/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which device a socket's local address belongs to, asked of the tables of its ports: a RoCE port has a GID
 * for each address of its interface, and the hardware address of an InfiniBand interface has the port's GID
 * in it.  Owns nothing; any thread; may block for a moment.
 *
 * Not asked of librdmacm: whatever that once opened it never closes, and until then a driver cannot be
 * removed from the host.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/transport/rdma_private.h"

/* Bytes of an InfiniBand interface's hardware address, and of them before the GID. */
enum { HARDWARE_BYTES = 20, HARDWARE_GID = 4 };

/* What to look for in the devices' tables. */
typedef struct Wanted {
    union ibv_gid gid;
    unsigned interface; /* that has it; 0: does not matter */
} Wanted;

/* An IPv4 address in IPv6's clothes is one: devices know it as such. */
static void unmap(RdmaHost *host)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET};

    memcpy(&v4.sin_addr, &host->address.v6.sin6_addr.s6_addr[12], sizeof v4.sin_addr);
    memset(&host->address, 0, sizeof host->address);
    host->address.v4 = v4;
}

static bool settle(RdmaHost *host)
{
    const void *raw;

    if (host->address.any.sa_family == AF_INET6 &&
        IN6_IS_ADDR_V4MAPPED(&host->address.v6.sin6_addr))
        unmap(host);
    if (host->address.any.sa_family == AF_INET) {
        raw = &host->address.v4.sin_addr;
        host->address.v4.sin_port = 0;
        host->gid.raw[10] = host->gid.raw[11] = 0xff;
        memcpy(&host->gid.raw[12], raw, 4);
        host->loopback = host->gid.raw[12] == 127;
    } else if (host->address.any.sa_family == AF_INET6) {
        raw = &host->address.v6.sin6_addr;
        host->address.v6.sin6_port = 0;
        memcpy(host->gid.raw, raw, 16);
        host->loopback = IN6_IS_ADDR_LOOPBACK(&host->address.v6.sin6_addr);
    } else {
        return false;
    }
    return inet_ntop(host->address.any.sa_family, raw, host->text, sizeof host->text) != NULL;
}

bool rdma_hosts(int socket, RdmaHost *ret_own, RdmaHost *ret_peer)
{
    socklen_t own = sizeof ret_own->address, peer = sizeof ret_peer->address;

    *ret_own = *ret_peer = (RdmaHost){0};
    return getsockname(socket, &ret_own->address.any, &own) == 0 &&
           getpeername(socket, &ret_peer->address.any, &peer) == 0 && settle(ret_own) &&
           settle(ret_peer);
}

static bool has_address(const struct ifaddrs *interface, const RdmaHost *host)
{
    const struct sockaddr *address = interface->ifa_addr;
    const struct sockaddr_in6 *v6 = (const void *)address;

    if (!address || address->sa_family != host->address.any.sa_family)
        return false;
    if (address->sa_family == AF_INET)
        return ((const struct sockaddr_in *)(const void *)address)->sin_addr.s_addr ==
               host->address.v4.sin_addr.s_addr;
    /* Two interfaces may have the same link-local one. */
    return IN6_ARE_ADDR_EQUAL(&v6->sin6_addr, &host->address.v6.sin6_addr) &&
           (!IN6_IS_ADDR_LINKLOCAL(&v6->sin6_addr) ||
            v6->sin6_scope_id == host->address.v6.sin6_scope_id);
}

/* The name of the interface that has this address; false: none has. */
static bool interface_of(const RdmaHost *host, char ret_name[IF_NAMESIZE])
{
    struct ifaddrs *list = NULL;
    bool found = false;

    if (getifaddrs(&list))
        return false;
    for (const struct ifaddrs *one = list; one && !found; one = one->ifa_next) {
        found = has_address(one, host);
        if (found) {
            snprintf(ret_name, IF_NAMESIZE, "%s", one->ifa_name);
            ret_name[strcspn(ret_name, ":")] = '\0'; /* an alias as of old */
        }
    }
    freeifaddrs(list);
    return found;
}

/* What the kernel tells of an interface, one line; "" if nothing. */
static void read_attribute(const char *interface, const char *attribute, char *ret_text, int size)
{
    char path[64 + IF_NAMESIZE];
    FILE *file;

    ret_text[0] = '\0';
    snprintf(path, sizeof path, "/sys/class/net/%s/%s", interface, attribute);
    file = fopen(path, "re");
    if (!file)
        return;
    if (!fgets(ret_text, size, file))
        ret_text[0] = '\0';
    fclose(file);
}

/* False: the interface is not InfiniBand's. */
static bool infiniband_gid(const char *interface, union ibv_gid *ret_gid)
{
    char text[128];
    const char *at = text;
    unsigned char bytes[HARDWARE_BYTES];

    read_attribute(interface, "address", text, sizeof text);
    for (int i = 0; i < HARDWARE_BYTES; i++) {
        char *end;

        bytes[i] = (unsigned char)strtoul(at, &end, 16);
        if (end != at + 2 || (i + 1 < HARDWARE_BYTES && *end != ':'))
            return false;
        at = end + 1;
    }
    memcpy(ret_gid->raw, bytes + HARDWARE_GID, sizeof ret_gid->raw);
    return true;
}

static void decide(const RdmaHost *own, const char *interface, Wanted *ret_wanted,
                   RdmaPlace *ret_place)
{
    char text[32];

    if (infiniband_gid(interface, &ret_wanted->gid)) {
        read_attribute(interface, "pkey", text, sizeof text);
        ret_place->pkey = (uint16_t)strtoul(text, NULL, 16);
        ret_wanted->interface = 0;
    } else {
        ret_wanted->gid = own->gid;
        ret_wanted->interface = if_nametoindex(interface);
    }
}

static bool matches(const struct ibv_gid_entry *entry, const Wanted *wanted)
{
    return entry->port_num <= UINT8_MAX && entry->gid_index <= UINT8_MAX &&
           (wanted->interface == 0 || entry->ndev_ifindex == 0 ||
            entry->ndev_ifindex == wanted->interface) &&
           memcmp(entry->gid.raw, wanted->gid.raw, sizeof entry->gid.raw) == 0;
}

/* How many entries the tables of all ports have. */
static size_t gid_entries(struct ibv_context *context)
{
    struct ibv_device_attr device;
    struct ibv_port_attr port;
    size_t n = 0;

    if (ibv_query_device(context, &device))
        return 0;
    for (unsigned i = 1; i <= device.phys_port_cnt; i++)
        if (ibv_query_port(context, (uint8_t)i, &port) == 0 && port.gid_tbl_len > 0)
            n += (size_t)port.gid_tbl_len;
    return n;
}

/* Looks in one device's tables, for RoCE v2 first: only that can be routed. */
static bool search(struct ibv_context *context, const Wanted *wanted, RdmaPlace *ret_place)
{
    size_t most = gid_entries(context);
    struct ibv_gid_entry *entries = calloc(most ? most : 1, sizeof *entries);
    const struct ibv_gid_entry *found = NULL;
    ssize_t n = entries && most ? ibv_query_gid_table(context, entries, most, 0) : 0;

    for (ssize_t i = 0; i < n; i++)
        if (matches(&entries[i], wanted) &&
            (!found || (found->gid_type != IBV_GID_TYPE_ROCE_V2 &&
                        entries[i].gid_type == IBV_GID_TYPE_ROCE_V2)))
            found = &entries[i];
    if (found) {
        ret_place->context = context;
        ret_place->gid = found->gid;
        ret_place->port = (uint8_t)found->port_num;
        ret_place->gid_index = (uint8_t)found->gid_index;
    }
    free(entries);
    return found != NULL;
}

/* ret_text is written only where a device could not be asked. */
static bool search_all(const Wanted *wanted, RdmaPlace *ret_place, int *ret_devices, char *ret_text)
{
    struct ibv_device **list = ibv_get_device_list(ret_devices);
    bool found = false;

    if (!list)
        *ret_devices = 0;
    for (int i = 0; i < *ret_devices && !found; i++) {
        struct ibv_context *context;

        errno = 0;
        context = ibv_open_device(list[i]);
        if (!context) {
            snprintf(ret_text, LIMIT_TEXT + 1, "the RDMA device %s cannot be opened: %s",
                     ibv_get_device_name(list[i]), strerror(errno ? errno : EIO));
            continue;
        }
        found = search(context, wanted, ret_place);
        if (!found)
            ibv_close_device(context);
    }
    if (list)
        ibv_free_device_list(list);
    return found;
}

bool rdma_find(const RdmaHost *own, RdmaPlace *ret_place, char *ret_text)
{
    char interface[IF_NAMESIZE];
    Wanted wanted;
    int devices = 0;

    *ret_place = (RdmaPlace){0};
    ret_text[0] = '\0';
    if (own->loopback) {
        snprintf(ret_text, LIMIT_TEXT + 1,
                 "the connection uses the loopback address %s, and RDMA does not work there",
                 own->text);
        return false;
    }
    if (!interface_of(own, interface)) {
        snprintf(ret_text, LIMIT_TEXT + 1, "no interface of this host has the address %s",
                 own->text);
        return false;
    }
    decide(own, interface, &wanted, ret_place);
    if (search_all(&wanted, ret_place, &devices, ret_text))
        return true;
    if (devices == 0)
        snprintf(ret_text, LIMIT_TEXT + 1, "this host has no RDMA device");
    else if (ret_text[0] == '\0')
        snprintf(ret_text, LIMIT_TEXT + 1, "no RDMA device has the local address %s of %s",
                 own->text, interface);
    return false;
}
