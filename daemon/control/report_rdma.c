/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/control/report_rdma.h"

#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>

#include "daemon/control/transport_choice.h"
#include "daemon/fault/import_transport.h"
#include "daemon/source/export_rdma.h"

/* Looking for devices asks the kernel for each; who watches figures asks more often. */
#define LOOK_US G_USEC_PER_SEC

static void set_number(JsonObject *object, const char *name, guint64 value)
{
    json_object_set_int_member(object, name, (gint64)value);
}

/* None while RDMA is off: nobody would use them. */
static JsonArray *devices(Control *control)
{
    gint64 now = g_get_monotonic_time();
    g_auto(GStrv) names = NULL;
    JsonArray *array = json_array_new();

    if (networks_is_empty(control->settings->rdma_networks.parsed))
        return array;
    if (control->rdma_looked_us == 0 || now - control->rdma_looked_us >= LOOK_US) {
        rdma_list_devices(control->rdma_devices, sizeof control->rdma_devices);
        control->rdma_looked_us = now;
    }
    names = g_strsplit(control->rdma_devices, " ", -1);
    for (guint i = 0; names[i]; i++)
        if (*names[i])
            json_array_add_string_element(array, names[i]);
    return array;
}

static gboolean numeric(const struct ifaddrs *one, char *ret_host)
{
    socklen_t length;

    if (!one->ifa_addr || one->ifa_flags & IFF_LOOPBACK || !(one->ifa_flags & IFF_UP))
        return FALSE;
    length = one->ifa_addr->sa_family == AF_INET    ? sizeof(struct sockaddr_in)
             : one->ifa_addr->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6)
                                                    : 0;
    return length &&
           getnameinfo(one->ifa_addr, length, ret_host, NI_MAXHOST, NULL, 0, NI_NUMERICHOST) == 0;
}

/* This host's own in the networks that are trusted: without any, no RDMA comes about. */
static JsonArray *addresses(const Networks *networks)
{
    JsonArray *array = json_array_new();
    struct ifaddrs *all = NULL;
    char host[NI_MAXHOST];

    if (networks_is_empty(networks) || getifaddrs(&all))
        return array;
    for (const struct ifaddrs *one = all; one; one = one->ifa_next)
        if (numeric(one, host) && networks_match(networks, host))
            json_array_add_string_element(array, host);
    freeifaddrs(all);
    return array;
}

void report_rdma_host(Control *control, JsonObject *ret_object)
{
    const Settings *settings = control->settings;
    const NetworkList *networks = &settings->rdma_networks, *peers = &settings->rdma_peers;
    const RdmaBudget *budget = &control->rdma_budget;
    JsonObject *object = json_object_new();

    json_object_set_array_member(object, "devices", devices(control));
    json_object_set_string_member(object, "networks", networks->text ? networks->text : "");
    json_object_set_string_member(object, "peers", peers->text ? peers->text : "");
    json_object_set_array_member(object, "addresses", addresses(networks->parsed));
    json_object_set_boolean_member(object, "loopback", networks_name_loopback(networks->parsed));
    json_object_set_string_member(object, "transport", transport_name(settings->transport));
    set_number(object, "pinned_bytes", atomic_load(&budget->used));
    set_number(object, "pinned_peak_bytes", atomic_load(&budget->peak));
    set_number(object, "pinned_most_bytes", budget->most);
    json_object_set_object_member(ret_object, "rdma", object);
}

void report_rdma_import(Import *import, JsonObject *ret_object)
{
    g_autofree ImportTransportReport *report = g_new0(ImportTransportReport, 1);
    JsonObject *object = json_object_new();

    import_transport(import, report);
    json_object_set_string_member(object, "kind", report->kind);
    json_object_set_string_member(object, "wanted", transport_name(import->config.transport));
    json_object_set_string_member(object, "device", report->device);
    json_object_set_string_member(object, "reason", report->reason);
    set_number(object, "pairs", report->pairs);
    set_number(object, "pinned_bytes", report->pinned_bytes);
    set_number(object, "reads", report->reads);
    set_number(object, "bytes", report->read_bytes);
    set_number(object, "landed_pages", report->landed_pages);
    set_number(object, "staged_pages", report->staged_pages);
    set_number(object, "spans", report->spans);
    set_number(object, "failures", report->failures);
    json_object_set_object_member(ret_object, "transport", object);
}

void report_rdma_export(Export *export, JsonObject *ret_object)
{
    g_autofree ExportRdmaReport *report = g_new0(ExportRdmaReport, 1);
    JsonObject *object = json_object_new();

    export_rdma_report(export, report);
    json_object_set_string_member(object, "device", report->device);
    set_number(object, "pairs", report->pairs);
    set_number(object, "pinned_bytes", report->pinned);
    set_number(object, "spans", report->spans);
    json_object_set_string_member(object, "reason", report->refusal);
    json_object_set_object_member(ret_object, "rdma", object);
}
