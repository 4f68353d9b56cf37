/* SPDX-License-Identifier: GPL-2.0-or-later */
/* postcopyctl check: whether memory can travel by RDMA, and what is missing if it is to. */
#include <string.h>

#include "client/ctl/format.h"
#include "client/ctl/host_check.h"
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

static void check_networks(HostCheck *check, JsonObject *rdma)
{
    JsonArray *addresses = member_array(rdma, "addresses");
    const char *networks = member_string(rdma, "networks");
    gboolean loopback = member_bool(rdma, "loopback");

    if (element_count(addresses) == 0)
        host_say(check, "rdma-network", HOST_WARN,
                 "name the network between the hosts in [rdma] networks, and restart postcopyd",
                 "no address of this host is in [rdma] networks = %s%s: memory travels over TCP",
                 networks,
                 loopback ? " (no RDMA device is at a loopback address, though one may be named)"
                          : "");
    else
        host_say(check, "rdma-network", HOST_OK, NULL, "RDMA is trusted on %s, here with %s%s",
                 networks, json_array_get_string_element(addresses, 0),
                 loopback ? "; the loopback addresses among them are never used" : "");
}

static void check_device(HostCheck *check, JsonObject *rdma, const char *in_kernel)
{
    gboolean wanted = strcmp(member_string(rdma, "transport"), "rdma") == 0;

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
        check_networks(check, rdma);
        check_pinned(check, rdma);
    } else if (rdma && strcmp(member_string(rdma, "transport"), "rdma") == 0) {
        host_say(check, "rdma", HOST_FAIL,
                 "set [rdma] networks in postcopyd.conf to the network between the hosts, on both "
                 "of them, and restart postcopyd",
                 "[peer] transport = rdma, and [rdma] networks is empty: no VM can arrive");
    } else if (*in_kernel) {
        host_say(check, "rdma", HOST_OK,
                 "to use them, set [rdma] networks on both hosts to the network between them, if "
                 "nobody else can send on it",
                 "RDMA devices: %s; memory travels over TCP", in_kernel);
    } else {
        host_say(check, "rdma", HOST_OK, NULL, "no RDMA devices: memory travels over TCP");
    }
}
