/* SPDX-License-Identifier: GPL-2.0-or-later */
/* postcopyctl check: whether memory can travel by RDMA, and what is missing if it is to. */
#include <string.h>

#include "client/ctl/format.h"
#include "client/ctl/host_check.h"
#include "client/ctl/rdma_port.h"
#include "protocol/qmp/json.h"

/* Its bit in CapEff: whoever has it may lock any amount of memory. */
enum { CAP_IPC_LOCK_BIT = 14 };

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

static gboolean may_lock_anything(pid_t pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/status", (int)pid);
    g_autofree char *text = NULL;
    const char *line;

    if (!g_file_get_contents(path, &text, NULL, NULL))
        return FALSE;
    line = strstr(text, "\nCapEff:");
    return line && g_ascii_strtoull(line + strlen("\nCapEff:"), NULL, 16) >> CAP_IPC_LOCK_BIT & 1;
}

/* Whether all hosts are to be talked to by RDMA, but for exceptions. */
static gboolean always_rdma(JsonObject *rdma)
{
    return strcmp(member_string(rdma, "transport"), "rdma") == 0;
}

/* Whether [rdma] peers, which the daemon has understood, says so of some. */
static gboolean some_rdma(JsonObject *rdma)
{
    g_auto(GStrv) entries = g_strsplit(member_string(rdma, "peers"), ",", -1);

    for (guint i = 0; entries[i]; i++) {
        const char *word = strchr(entries[i], '=');

        if (word && strcmp(g_strstrip(entries[i] + (word + 1 - entries[i])), "rdma") == 0)
            return TRUE;
    }
    return FALSE;
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
    if (limit >= most || may_lock_anything(check->daemon))
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
    HostLevel lacking = always_rdma(rdma) ? HOST_FAIL : HOST_WARN;
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
    if (element_count(member_array(rdma, "addresses")) > 0)
        check_address(check, rdma, in_kernel);
    else
        host_say(check, "rdma-network", HOST_WARN,
                 "name the network between the hosts in [rdma] networks, and restart postcopyd",
                 "no address of this host is in [rdma] networks = %s%s: memory travels over TCP",
                 member_string(rdma, "networks"),
                 member_bool(rdma, "loopback")
                     ? " (no RDMA device is at a loopback address, though one may be named)"
                     : "");
}

static void check_device(HostCheck *check, JsonObject *rdma, const char *in_kernel)
{
    gboolean wanted = always_rdma(rdma);

    if (element_count(member_array(rdma, "devices")) > 0)
        host_say(check, "rdma", HOST_OK, NULL, "RDMA devices: %s", in_kernel);
    else if (*in_kernel)
        host_say(check, "rdma", wanted ? HOST_FAIL : HOST_WARN,
                 "install rdma-core and the library of the device (ibverbs-providers), and let the "
                 "daemon open /dev/infiniband",
                 "the kernel has RDMA devices (%s) that the daemon cannot use", in_kernel);
    else
        host_say(check, "rdma", wanted ? HOST_FAIL : HOST_WARN,
                 "'rdma link show' lists devices: is the adapter's driver loaded? "
                 "(docs/RDMA.md)",
                 "[rdma] networks is set, and this host has no RDMA device: %s",
                 wanted ? "no VM can arrive with [peer] transport = rdma"
                        : "memory travels over TCP");
}

void host_check_rdma(HostCheck *check, JsonObject *status)
{
    JsonObject *rdma = status ? member_object(status, "rdma") : NULL;
    g_autofree char *in_kernel = kernel_devices();
    gboolean set_up = rdma && *member_string(rdma, "networks");

    if (set_up) {
        check_device(check, rdma, in_kernel);
        check_networks(check, rdma, in_kernel);
        check_pinned(check, rdma);
    } else if (rdma && always_rdma(rdma)) {
        check_off(
            check,
            "[peer] transport = rdma, and [rdma] networks is empty: no VM can arrive or leave");
    } else if (rdma && some_rdma(rdma)) {
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
