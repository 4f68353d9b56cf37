/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/ctl/rdma_port.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <string.h>

enum {
    GID_BYTES = 16,
    HARDWARE_BYTES = 20, /* of an InfiniBand interface; its last are the port's GID */
};

typedef struct Gid {
    guint8 raw[GID_BYTES];
} Gid;

/* That a RoCE port has for an address: IPv4 ones as IPv6 writes them. */
static gboolean gid_of_address(const char *address, Gid *ret_gid)
{
    g_autofree char *bare = g_strndup(address, strcspn(address, "%"));

    memset(ret_gid, 0, sizeof *ret_gid);
    ret_gid->raw[10] = ret_gid->raw[11] = 0xff;
    return inet_pton(AF_INET, bare, ret_gid->raw + 12) == 1 ||
           inet_pton(AF_INET6, bare, ret_gid->raw) == 1;
}

static gboolean gid_of_interface(const struct ifaddrs *one, Gid *ret_gid)
{
    char text[INET6_ADDRSTRLEN];
    const void *raw;

    if (!one->ifa_addr)
        return FALSE;
    if (one->ifa_addr->sa_family == AF_INET)
        raw = &((const struct sockaddr_in *)(const void *)one->ifa_addr)->sin_addr;
    else if (one->ifa_addr->sa_family == AF_INET6)
        raw = &((const struct sockaddr_in6 *)(const void *)one->ifa_addr)->sin6_addr;
    else
        return FALSE;
    return inet_ntop(one->ifa_addr->sa_family, raw, text, sizeof text) &&
           gid_of_address(text, ret_gid);
}

/* Of the interface that has this address; NULL: none has. */
static char *interface_of(const Gid *address)
{
    struct ifaddrs *all = NULL;
    char *name = NULL;
    Gid gid;

    if (getifaddrs(&all))
        return NULL;
    for (const struct ifaddrs *one = all; one && !name; one = one->ifa_next)
        if (gid_of_interface(one, &gid) && memcmp(&gid, address, sizeof gid) == 0)
            name = g_strdup(one->ifa_name);
    freeifaddrs(all);
    return name;
}

/* A file of one line, and of a folder; NULL: it cannot be read. */
static char *read_line(const char *folder, const char *name)
{
    g_autofree char *path = g_build_filename(folder, name, NULL);
    char *text = NULL;

    if (!g_file_get_contents(path, &text, NULL, NULL))
        return NULL;
    return g_strstrip(text);
}

/* An InfiniBand interface's port is told by its hardware address; FALSE: it is not InfiniBand's. */
static gboolean gid_of_hardware(const char *sys, const char *interface, Gid *ret_gid)
{
    g_autofree char *folder = g_build_filename(sys, "class", "net", interface, NULL);
    g_autofree char *text = read_line(folder, "address");
    g_auto(GStrv) bytes = g_strsplit(text ? text : "", ":", -1);

    if (g_strv_length(bytes) != HARDWARE_BYTES)
        return FALSE;
    for (guint i = 0; i < GID_BYTES; i++)
        ret_gid->raw[i] = (guint8)g_ascii_strtoull(bytes[HARDWARE_BYTES - GID_BYTES + i], NULL, 16);
    return TRUE;
}

static gboolean has_gid(const char *port, const Gid *wanted)
{
    g_autofree char *folder = g_build_filename(port, "gids", NULL);
    g_autoptr(GDir) gids = g_dir_open(folder, 0, NULL);
    gboolean found = FALSE;
    const char *name;

    while (gids && !found && (name = g_dir_read_name(gids))) {
        g_autofree char *text = read_line(folder, name);
        Gid gid;

        /* The kernel writes all eight groups, as an IPv6 address may be written. */
        found = text && inet_pton(AF_INET6, text, gid.raw) == 1 &&
                memcmp(&gid, wanted, sizeof gid) == 0;
    }
    return found;
}

static gboolean has_port(const char *device, const Gid *wanted, gboolean *ret_active)
{
    g_autofree char *folder = g_build_filename(device, "ports", NULL);
    g_autofree char *kind = read_line(device, "node_type");
    g_autoptr(GDir) ports = g_dir_open(folder, 0, NULL);
    const char *name;

    if (!kind || !g_str_has_prefix(kind, "1:")) /* a channel adapter, of InfiniBand or RoCE */
        return FALSE;
    while (ports && (name = g_dir_read_name(ports))) {
        g_autofree char *port = g_build_filename(folder, name, NULL);
        g_autofree char *state = NULL;

        if (!has_gid(port, wanted))
            continue;
        state = read_line(port, "state");
        *ret_active = state && g_str_has_prefix(state, "4:");
        return TRUE;
    }
    return FALSE;
}

char *rdma_port_of(const char *sys, const char *address, gboolean *ret_active)
{
    g_autofree char *folder = g_build_filename(sys, "class", "infiniband", NULL);
    g_autoptr(GDir) devices = g_dir_open(folder, 0, NULL);
    g_autofree char *interface = NULL;
    const char *name;
    Gid wanted;

    *ret_active = FALSE;
    if (!gid_of_address(address, &wanted))
        return NULL;
    interface = interface_of(&wanted);
    if (!interface)
        return NULL;
    gid_of_hardware(sys, interface, &wanted);
    while (devices && (name = g_dir_read_name(devices))) {
        g_autofree char *device = g_build_filename(folder, name, NULL);

        if (has_port(device, &wanted, ret_active))
            return g_strdup(name);
    }
    return NULL;
}
