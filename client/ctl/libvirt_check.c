/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <stdlib.h>
#include <string.h>

#include "client/ctl/libvirt_migration.h"
#include "client/ctl/libvirt_monitor.h"
#include "client/ctl/libvirt_obstacle.h"
#include "client/operator/host_config.h"
#include "client/operator/opt_in.h"
#include "protocol/qmp/blocks.h"
#include "protocol/qmp/error.h"
#include "protocol/qmp/json.h"

enum { ANSWER_MS = 10 * 1000 };

static virConnect *connect_source(const LibvirtOptions *options, GError **error)
{
    g_autoptr(HostConfig) config = options->connect ? NULL : host_config_load(NULL);
    const char *uri = options->connect       ? options->connect
                      : *config->libvirt_uri ? config->libvirt_uri
                                             : DOMAIN_URI;

    return domain_connect(uri, FALSE, error);
}

gboolean libvirt_connect(LibvirtMigration *m, GError **error)
{
    const LibvirtOptions *options = m->options;

    m->address = libvirt_daemon_address(options->to, options->uri, error);
    if (!m->address)
        return FALSE;
    job_events_init();
    m->daemon = daemon_connect(options->socket, &m->interrupt, error);
    m->source = m->daemon ? connect_source(options, error) : NULL;
    m->domain = m->source ? domain_find(m->source, options->domain, error) : NULL;
    m->destination = m->domain ? domain_connect(options->uri, FALSE, error) : NULL;
    if (!m->destination) {
        if (m->domain)
            g_prefix_error(error, "the destination: ");
        return FALSE;
    }
    virDomainGetUUIDString(m->domain, m->uuid);
    return TRUE;
}

static gboolean fail(GError **error, const char *text)
{
    g_set_error(error, CALL_ERROR, CALL_ERROR_FAILED, "%s", text);
    return FALSE;
}

/* The daemon looks at the domain by itself, and does so through libvirt. */
static gboolean check_daemon(LibvirtMigration *m, GError **error)
{
    g_autoptr(JsonNode) answer = daemon_call(m->daemon, "status", NULL, -1, ANSWER_MS, error);
    JsonObject *libvirt = member_object(node_object(answer), "libvirt");

    if (!answer)
        return FALSE;
    if (member_bool(libvirt, "connected"))
        return TRUE;
    if (*member_string(libvirt, "uri"))
        g_set_error(
            error, CALL_ERROR, CALL_ERROR_FAILED,
            "this host's postcopyd has no connection to libvirt at %s: is libvirtd running? "
            "its journal says why",
            member_string(libvirt, "uri"));
    else
        fail(error, "this host's postcopyd does not use libvirt: write 'uri = qemu:///system' into "
                    "section [libvirt] of its configuration and restart it");
    return FALSE;
}

static gboolean check_state(LibvirtMigration *m, GError **error)
{
    virDomainJobInfo job;
    int state, reason;

    if (virDomainGetState(m->domain, &state, &reason, 0) < 0 ||
        virDomainGetJobInfo(m->domain, &job) < 0) {
        libvirt_set_error(error, "the domain's state");
        return FALSE;
    }
    if (state == VIR_DOMAIN_PAUSED)
        return fail(error, "the domain is paused: resume it first, or let virsh migrate move it");
    if (state != VIR_DOMAIN_RUNNING)
        return fail(error, "the domain does not run: there is no memory to bring");
    if (job.type != VIR_DOMAIN_JOB_NONE)
        return fail(error, "libvirt has another job for the domain, which is perhaps migrating "
                           "already: see virsh domjobinfo");
    return TRUE;
}

static gboolean check_devices(LibvirtMigration *m, GError **error)
{
    char *xml = virDomainGetXMLDesc(m->domain, 0);
    g_autoptr(GError) local = NULL;
    g_autofree char *obstacle = xml ? libvirt_obstacle(xml, &local) : NULL;

    if (!xml) {
        libvirt_set_error(error, "the domain's XML");
        return FALSE;
    }
    free(xml);
    if (local) {
        g_propagate_error(error, g_steal_pointer(&local));
        return FALSE;
    }
    return !obstacle || fail(error, obstacle);
}

/* Silence may mean yes: the destination's configuration may say enable = all. */
static gboolean check_opt_in(LibvirtMigration *m, GError **error)
{
    char *element = virDomainGetMetadata(m->domain, VIR_DOMAIN_METADATA_ELEMENT, OPT_IN_NAMESPACE,
                                         VIR_DOMAIN_AFFECT_LIVE);
    OptIn opt_in = opt_in_of_element(element);

    free(element);
    m->enabled = opt_in.wish == OPT_IN_YES;
    if (m->enabled)
        return TRUE;
    if (opt_in.wish == OPT_IN_SILENT) {
        report_note(&m->report,
                    "the domain is not enabled ('postcopyctl enable %s'): this works only if the "
                    "destination's configuration says enable = all",
                    m->options->domain);
        return TRUE;
    }
    g_set_error(error, CALL_ERROR, CALL_ERROR_FAILED,
                "the domain is disabled for postcopyd: 'postcopyctl enable %s' first",
                m->options->domain);
    return FALSE;
}

/* A vhost-user device that was plugged in by hand is in no XML. */
static gboolean check_backends(LibvirtMigration *m, GError **error)
{
    g_autofree char *network = monitor_human(&m->monitor, "info network", error);

    if (!network)
        return FALSE;
    if (strstr(network, "vhost-user"))
        return fail(error, "a vhost-user backend maps the guest's memory a second time, unseen by "
                           "post-copy: detach it");
    return TRUE;
}

static gboolean check_memory(LibvirtMigration *m, GError **error)
{
    g_autoptr(GPtrArray) blocks = blocks_query(&m->monitor, "domain", error);

    if (!blocks) {
        g_prefix_error(error, "in libvirt's words, <memoryBacking> needs <access mode='shared'/> "
                              "and <source type='memfd'/> or 'file': ");
        return FALSE;
    }
    m->regions = json_array_new();
    for (guint i = 0; i < blocks->len; i++) {
        const RamBlock *block = g_ptr_array_index(blocks, i);
        JsonObject *region = json_object_new();

        json_object_set_string_member(region, "id", block->id);
        json_object_set_int_member(region, "guest_address", (gint64)block->guest_address);
        json_object_set_int_member(region, "address", (gint64)block->address);
        json_object_set_int_member(region, "length", (gint64)block->length);
        json_object_set_int_member(region, "page_size", (gint64)block->page_size);
        json_array_add_object_element(m->regions, region);
    }
    return TRUE;
}

static gboolean check_destination(LibvirtMigration *m, GError **error)
{
    g_autoptr(virDomain) there = virDomainLookupByUUIDString(m->destination, m->uuid);
    g_autofree char *here_uri = virConnectGetURI(m->source);
    g_autofree char *there_uri = virConnectGetURI(m->destination);

    if (g_strcmp0(here_uri, there_uri) == 0)
        return fail(error, "the destination is this host's own libvirt");
    if (there && virDomainIsActive(there) == 1)
        return fail(error, "the destination runs a domain of that uuid already");
    return TRUE;
}

gboolean libvirt_check(LibvirtMigration *m, GError **error)
{
    if (!check_daemon(m, error) || !check_state(m, error) || !check_opt_in(m, error) ||
        !check_devices(m, error) || !libvirt_monitor(m->domain, &m->monitor, error) ||
        !check_backends(m, error) || !check_memory(m, error) || !check_destination(m, error))
        return FALSE;
    m->pid = libvirt_monitor_pid(m->domain, &m->monitor, error);
    return m->pid > 0;
}
