/* SPDX-License-Identifier: GPL-2.0-or-later */
/* postcopyctl check: whether memory can travel by RDMA, and what is missing if it is to. */
#include <string.h>

#include "client/ctl/format.h"
#include "client/ctl/host_check.h"
#include "client/ctl/rdma_port.h"
#include "client/ctl/transport.h"
#include "protocol/qmp/json.h"

/* What the kernel has; the daemon needs a library for each besides. */
static char *kernel_devices(void)
{
    g_autoptr(GDir) folder = g_dir_open("/sys/class/infiniband", 0, NULL);
    GString *names = g_string_new(NULL);
    const char *name;

    while (folder && (name = g_dir_read_name(folder)))
        g_string_append_printf(names, "%s%s", names->len ? ", " : "", name);
    return g_string_free(names, FALSE);
}

/* Whether all hosts are to be talked to by RDMA, but for exceptions. */
static gboolean always_rdma(JsonObject *rdma)
{
    return strcmp(member_string(rdma, "transport"), "rdma") == 0;
}

/* With which hosts no VM can arrive or leave where RDMA cannot be had; NULL: there are none. */
static const char *refused(JsonObject *rdma)
{
    if (always_rdma(rdma))
        return "no VM can arrive or leave with [peer] transport = rdma";
    if (transport_peers_with(rdma, "rdma") > 0)
        return "no VM can arrive from the hosts for which [rdma] peers wants rdma, or leave to "
               "them";
    return NULL;
}

/* RDMA is insisted on, and off. */
static void check_off(HostCheck *check, const char *text)
{
    host_say(check, "rdma", HOST_FAIL,
             "set [rdma] networks in postcopyd.conf to the network between the hosts, on both "
             "of them, and restart postcopyd",
             "%s", text);
}

static void check_pinned(HostCheck *check, JsonObject *rdma)
{
    guint64 most = (guint64)member_int(rdma, "pinned_most_bytes");
    g_autofree char *budget = format_bytes(most);
    g_autofree char *allowed = NULL;
    guint64 limit;

    if (!host_memlock(check, &limit)) {
        host_say(check, "rdma-memory", HOST_WARN, "run this check as root",
                 "whether the daemon may pin [rdma] pinned = %s cannot be told", budget);
        return;
    }
    allowed = format_bytes(limit);
    if (limit >= most)
        host_say(check, "rdma-memory", HOST_OK, NULL,
                 "the daemon may pin [rdma] pinned = %s for the device", budget);
    else
        host_say(
            check, "rdma-memory", HOST_WARN,
            "set LimitMEMLOCK=infinity in its unit, or a smaller [rdma] pinned, and restart it",
            "the daemon may lock %s of memory, less than [rdma] pinned = %s: what cannot be "
            "pinned goes by TCP",
            allowed, budget);
}

/* Of this host's addresses in the networks the first with a device, one with a link if there is any. */
static const char *address_with_device(JsonArray *addresses, char **ret_device,
                                       gboolean *ret_active)
{
    const char *best = NULL;

    *ret_device = NULL;
    *ret_active = FALSE;
    for (guint i = 0; i < element_count(addresses) && !*ret_active; i++) {
        const char *address = json_array_get_string_element(addresses, i);
        gboolean active;
        g_autofree char *device = rdma_port_of("/sys", address, &active);

        if (!device || (best && !active))
            continue;
        best = address;
        g_free(*ret_device);
        *ret_device = g_steal_pointer(&device);
        *ret_active = active;
    }
    return best;
}

/* There is an address. */
static void check_address(HostCheck *check, JsonObject *rdma, const char *in_kernel)
{
    JsonArray *addresses = member_array(rdma, "addresses");
    const char *networks = member_string(rdma, "networks");
    const char *unused =
        member_bool(rdma, "loopback") ? "; the loopback addresses among them are never used" : "";
    HostLevel lacking = refused(rdma) ? HOST_FAIL : HOST_WARN;
    g_autofree char *device = NULL;
    gboolean active;
    const char *address = address_with_device(addresses, &device, &active);

    if (address && active)
        host_say(check, "rdma-network", HOST_OK, NULL,
                 "RDMA is trusted on %s, here with %s of %s%s", networks, address, device, unused);
    else if (address)
        host_say(check, "rdma-network", lacking, "'rdma link show' tells its state",
                 "the port of %s with this host's address %s in [rdma] networks has no link",
                 device, address);
    else if (*in_kernel)
        host_say(check, "rdma-network", lacking,
                 "'rdma link show' tells each device's interface: give that one an address in the "
                 "network, or name the network that its address is in",
                 "no RDMA device (%s) has this host's address %s in [rdma] networks = %s",
                 in_kernel, json_array_get_string_element(addresses, 0), networks);
    else
        host_say(check, "rdma-network", HOST_OK, NULL, "RDMA is trusted on %s, here with %s%s",
                 networks, json_array_get_string_element(addresses, 0), unused);
}

static void check_networks(HostCheck *check, JsonObject *rdma, const char *in_kernel)
{
    const char *refusal = refused(rdma);

    if (element_count(member_array(rdma, "addresses")) > 0)
        check_address(check, rdma, in_kernel);
    else
        host_say(check, "rdma-network", refusal ? HOST_FAIL : HOST_WARN,
                 "name the network between the hosts in [rdma] networks, and restart postcopyd",
                 "no address of this host is in [rdma] networks = %s%s: unless it lists other "
                 "hosts alone, %s",
                 member_string(rdma, "networks"),
                 member_bool(rdma, "loopback")
                     ? " (no RDMA device is at a loopback address, though one may be named)"
                     : "",
                 refusal ? refusal : "memory travels over TCP");
}

static void check_device(HostCheck *check, JsonObject *rdma, const char *in_kernel)
{
    const char *refusal = refused(rdma);

    if (element_count(member_array(rdma, "devices")) > 0)
        host_say(check, "rdma", HOST_OK, NULL, "RDMA devices: %s", in_kernel);
    else if (*in_kernel)
        host_say(check, "rdma", refusal ? HOST_FAIL : HOST_WARN,
                 "install rdma-core and the library of the device (ibverbs-providers), and let the "
                 "daemon open /dev/infiniband",
                 "the kernel has RDMA devices (%s) that the daemon cannot use", in_kernel);
    else
        host_say(check, "rdma", refusal ? HOST_FAIL : HOST_WARN,
                 "'rdma link show' lists devices: is the adapter's driver loaded? "
                 "(docs/RDMA.md)",
                 "[rdma] networks is set, and this host has no RDMA device: %s",
                 refusal ? refusal : "memory travels over TCP");
}

void host_check_rdma(HostCheck *check, JsonObject *status)
{
    JsonObject *rdma = status ? member_object(status, "rdma") : NULL;
    g_autofree char *in_kernel = kernel_devices();
    gboolean set_up = rdma && *member_string(rdma, "networks");

    if (set_up && transport_never_rdma(rdma)) {
        host_say(check, "rdma", HOST_OK, NULL,
                 "[peer] transport = tcp forbids RDMA, whatever [rdma] networks says: memory "
                 "travels over TCP");
    } else if (set_up) {
        check_device(check, rdma, in_kernel);
        check_networks(check, rdma, in_kernel);
        check_pinned(check, rdma);
    } else if (rdma && always_rdma(rdma)) {
        check_off(
            check,
            "[peer] transport = rdma, and [rdma] networks is empty: no VM can arrive or leave");
    } else if (rdma && transport_peers_with(rdma, "rdma") > 0) {
        check_off(check, "[rdma] peers wants rdma for some hosts, and [rdma] networks is empty: no "
                         "VM can arrive from them, or leave to them");
    } else if (*in_kernel) {
        host_say(check, "rdma", HOST_OK,
                 "to use them, set [rdma] networks on both hosts to the network between them, if "
                 "nobody else can send on it",
                 "RDMA devices: %s; memory travels over TCP", in_kernel);
    } else {
        host_say(check, "rdma", HOST_OK, NULL, "no RDMA devices: memory travels over TCP");
    }
}
