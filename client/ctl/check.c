/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <string.h>

#include "client/ctl/error.h"
#include "client/ctl/migration.h"
#include "protocol/qmp/blocks.h"
#include "protocol/qmp/json.h"

static gboolean check_source(Migration *m, GError **error)
{
    static const char *const busy[] = {
        "setup",      "active",          "pre-switchover",  "device",           "wait-unplug",
        "cancelling", "postcopy-active", "postcopy-paused", "postcopy-recover", "colo",
        NULL};
    g_autofree char *status = qmp_query_status(m->source.qmp, "query-status", error);

    if (!status || !side_refresh(&m->source, error))
        return FALSE;
    m->was_running = strcmp(status, "running") == 0;
    if (!m->was_running && strcmp(status, "paused") != 0) {
        g_set_error(error, CALL_ERROR, CALL_ERROR_FAILED,
                    "the source's guest is '%s'; it must be running or paused", status);
        return FALSE;
    }
    if (g_strv_contains(busy, m->source.migration)) {
        g_set_error(error, CALL_ERROR, CALL_ERROR_FAILED,
                    "the source is already migrating ('%s'); wait for it or cancel it",
                    m->source.migration);
        return FALSE;
    }
    return TRUE;
}

static gboolean check_destination(Migration *m, GError **error)
{
    g_autofree char *status = qmp_query_status(m->destination.qmp, "query-status", error);

    if (!status || !side_refresh(&m->destination, error))
        return FALSE;
    if (strcmp(status, "inmigrate") != 0) {
        g_set_error(error, CALL_ERROR, CALL_ERROR_FAILED,
                    "the destination's QEMU is '%s', it does not wait for a migration; start it "
                    "with -incoming defer -S",
                    status);
        return FALSE;
    }
    if (*m->destination.migration && !side_migration_is(&m->destination, "none")) {
        g_set_error(error, CALL_ERROR, CALL_ERROR_FAILED,
                    "the destination's QEMU already has a migration ('%s'); start it again with "
                    "-incoming defer -S",
                    m->destination.migration);
        return FALSE;
    }
    return TRUE;
}

static char *query_uuid(Side *side, GError **error)
{
    g_autoptr(JsonNode) answer = qmp_call(side->qmp, "query-uuid", NULL, error);

    return answer ? g_strdup(member_string(node_object(answer), "UUID")) : NULL;
}

/* Two QEMUs without a uuid pass: the daemon then goes by the VM's name. */
static gboolean check_same_vm(Migration *m, GError **error)
{
    g_autofree char *source = query_uuid(&m->source, error);
    g_autofree char *destination = source ? query_uuid(&m->destination, error) : NULL;

    if (!destination)
        return FALSE;
    if (strcmp(source, destination) == 0)
        return TRUE;
    g_set_error(error, CALL_ERROR, CALL_ERROR_FAILED,
                "the two QEMUs are not the same VM: uuid %s on the source, %s on the destination; "
                "start both with the same -uuid",
                source, destination);
    return FALSE;
}

static gboolean check_vcpus(Migration *m, GError **error)
{
    g_autoptr(JsonArray) source = side_vcpus(&m->source, error);
    g_autoptr(JsonArray) destination = source ? side_vcpus(&m->destination, error) : NULL;

    if (!destination)
        return FALSE;
    if (element_count(source) == element_count(destination))
        return TRUE;
    g_set_error(error, CALL_ERROR, CALL_ERROR_FAILED,
                "the source has %u vCPUs, the destination %u; start both QEMUs with the same -smp",
                element_count(source), element_count(destination));
    return FALSE;
}

static void add_region(JsonArray *regions, const RamBlock *source, const RamBlock *destination)
{
    JsonObject *region = json_object_new();

    json_object_set_string_member(region, "id", source->id);
    json_object_set_int_member(region, "guest_address", (gint64)source->guest_address);
    json_object_set_int_member(region, "address", (gint64)source->address);
    json_object_set_int_member(region, "length", (gint64)source->length);
    json_object_set_int_member(region, "destination_address", (gint64)destination->address);
    json_array_add_object_element(regions, region);
}

static gboolean check_memory(Migration *m, GError **error)
{
    const Monitor at_source = qmp_monitor(m->source.qmp);
    const Monitor at_destination = qmp_monitor(m->destination.qmp);
    g_autoptr(GPtrArray) source = blocks_query(&at_source, m->source.word, error);
    g_autoptr(GPtrArray) destination =
        source ? blocks_query(&at_destination, m->destination.word, error) : NULL;

    if (!destination || !layout_compare(source, destination, error))
        return FALSE;
    m->regions = json_array_new();
    for (guint i = 0; i < source->len; i++) {
        const RamBlock *block = g_ptr_array_index(source, i);

        add_region(m->regions, block, layout_find(destination, block->id));
    }
    return TRUE;
}

gboolean migration_check(Migration *m, GError **error)
{
    return check_source(m, error) && check_destination(m, error) && check_same_vm(m, error) &&
           check_vcpus(m, error) && check_memory(m, error);
}
