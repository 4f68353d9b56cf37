/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/config_rdma.h"

gboolean config_rdma_check(const Settings *settings, char **ret_warning, GError **error)
{
    const Networks *trusted = settings->rdma_networks.parsed;
    char network[NETWORK_TEXT + 1];

    *ret_warning = NULL;
    if (settings->transport == IMPORT_TRANSPORT_RDMA && networks_is_empty(trusted)) {
        g_set_error(error, g_quark_from_static_string("postcopyd-config-rdma"), 0,
                    "[peer] transport = rdma can never be had, as [rdma] networks is empty: name "
                    "the network between the hosts there, on both hosts, or set transport = auto");
        return FALSE;
    }
    if (networks_find_outside(settings->rdma_peers.parsed, IMPORT_TRANSPORT_RDMA, trusted, network))
        *ret_warning = g_strdup_printf(
            "[rdma] peers wants rdma for %s, of which nothing is in [rdma] networks: migrations "
            "from and to there are refused unless they are told to go by TCP; name it in [rdma] "
            "networks too, on both hosts, or take it out of peers",
            network);
    else if (settings->transport != IMPORT_TRANSPORT_TCP && networks_are_loopback(trusted))
        *ret_warning = g_strdup(
            "[rdma] networks lists loopback addresses alone, over which memory never goes by RDMA: "
            "name the network between the hosts there, on both hosts");
    return TRUE;
}
