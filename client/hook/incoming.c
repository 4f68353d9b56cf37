/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/hook/incoming.h"

#include <string.h>
#include <unistd.h>

#include "client/hook/ports.h"
#include "client/hook/time_limit.h"
#include "protocol/limits.h"
#include "protocol/qmp/blocks.h"
#include "protocol/qmp/error.h"
#include "protocol/qmp/json.h"

/* Smaller blocks are firmware and video memory: not worth a round trip each. */
#define LEAST_BLOCK (G_GUINT64_CONSTANT(1) << 20)

/* Thread ids only help to place threads and to name them in statistics: as many as fit a request. */
enum { VCPUS_MAX = 2048 };

static gboolean check_process(const Incoming *incoming, const Place *place, pid_t *ret_pid,
                              GError **error)
{
    pid_t peer = qmp_peer(incoming->qmp);
    pid_t expected = place_pid(place);

    *ret_pid = peer;
    if (peer > 0 && peer == expected)
        return TRUE;
    g_set_error(error, CALL_ERROR, CALL_ERROR_FAILED,
                "at %s listens process %d, and not %d, which libvirt started for the domain",
                place->monitor, (int)peer, (int)expected);
    return FALSE;
}

static gboolean check_waiting(Incoming *incoming, const Monitor *monitor, GError **error)
{
    g_autofree char *status = monitor_query_status(monitor, "query-status", error);

    incoming->waits = status && strcmp(status, "inmigrate") == 0;
    return status != NULL;
}

static gboolean add_capabilities(Incoming *incoming, const Monitor *monitor, GError **error)
{
    JsonObject *capabilities = json_object_new();
    gboolean release = FALSE;

    json_object_set_object_member(incoming->report, "capabilities", capabilities);
    if (!monitor_get_capability(monitor, "postcopy-ram", &incoming->postcopy, error) ||
        !monitor_get_capability(monitor, "release-ram", &release, error))
        return FALSE;
    json_object_set_boolean_member(capabilities, "postcopy-ram", incoming->postcopy);
    json_object_set_boolean_member(capabilities, "release-ram", release);
    return TRUE;
}

static gboolean block_is_sound(const RamBlock *block)
{
    return strlen(block->id) <= LIMIT_REGION_ID && g_utf8_validate(block->id, -1, NULL) &&
           block->address <= G_MAXINT64 && block->guest_address <= G_MAXINT64 &&
           block->length <= LIMIT_REGION_LENGTH && block->page_size <= LIMIT_PAGE_SIZE_MAX;
}

static void add_region(JsonArray *regions, const RamBlock *block)
{
    JsonObject *region = json_object_new();

    json_object_set_string_member(region, "id", block->id);
    json_object_set_int_member(region, "guest_address", (gint64)block->guest_address);
    json_object_set_int_member(region, "address", (gint64)block->address);
    json_object_set_int_member(region, "length", (gint64)block->length);
    json_object_set_int_member(region, "page_size", (gint64)block->page_size);
    json_array_add_object_element(regions, region);
}

static gboolean add_regions(Incoming *incoming, const Monitor *monitor, GError **error)
{
    g_autoptr(GPtrArray) blocks = blocks_query_any(monitor, LEAST_BLOCK, error);
    JsonArray *regions = json_array_new();

    json_object_set_array_member(incoming->report, "regions", regions);
    if (!blocks)
        return FALSE;
    for (guint i = 0; i < blocks->len && block_is_sound(blocks->pdata[i]); i++)
        add_region(regions, blocks->pdata[i]);
    if (blocks->len > 0 && blocks->len <= LIMIT_REGIONS && element_count(regions) == blocks->len)
        return TRUE;
    g_set_error(error, CALL_ERROR, CALL_ERROR_FAILED,
                "the guest's memory is in %u blocks; from 1 to %d of at most %" G_GUINT64_FORMAT
                " GiB can be served",
                blocks->len, LIMIT_REGIONS, LIMIT_REGION_LENGTH >> 30);
    return FALSE;
}

static gboolean is_thread_of(pid_t pid, gint64 tid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/task/%" G_GINT64_FORMAT, (int)pid, tid);

    return tid > 0 && access(path, F_OK) == 0;
}

static gboolean add_vcpus(Incoming *incoming, const Monitor *monitor, pid_t pid, GError **error)
{
    g_autoptr(JsonNode) answer = monitor_call(monitor, "query-cpus-fast", NULL, error);
    JsonArray *all = node_array(answer);
    JsonArray *tids = json_array_new();

    for (guint i = 0; i < element_count(all) && i < VCPUS_MAX; i++) {
        gint64 tid = member_int(element_object(all, i), "thread-id");

        if (is_thread_of(pid, tid))
            json_array_add_int_element(tids, tid);
    }
    json_object_set_array_member(incoming->report, "vcpus", tids);
    return answer != NULL;
}

/* True if QEMU says that its migration comes to that port. */
static gboolean is_migration(JsonArray *addresses, gint64 port)
{
    for (guint i = 0; i < element_count(addresses); i++) {
        const char *text = member_string(element_object(addresses, i), "port");

        if (g_ascii_strtoll(text, NULL, 10) == port)
            return TRUE;
    }
    return FALSE;
}

/*
 * Where QEMU listens for anything but its migration: its console, its disks.  libvirt has had it listen
 * for that by now; should it do so later, no port is left out here.
 */
static gboolean add_ports(Incoming *incoming, const Monitor *monitor, pid_t pid, GError **error)
{
    g_autoptr(JsonArray) all = ports_of_process(pid, error);
    g_autoptr(JsonNode) answer = all ? monitor_call(monitor, "query-migrate", NULL, error) : NULL;
    JsonArray *addresses = member_array(node_object(answer), "socket-address");
    JsonArray *others;

    if (!answer)
        return FALSE;
    others = json_array_new();
    for (guint i = 0; i < json_array_get_length(all); i++) {
        gint64 port = json_array_get_int_element(all, i);

        if (!is_migration(addresses, port))
            json_array_add_int_element(others, port);
    }
    json_object_set_array_member(incoming->report, "ports", others);
    return TRUE;
}

gboolean incoming_open(Incoming *incoming, const Place *place, GError **error)
{
    Monitor monitor;
    pid_t pid;

    memset(incoming, 0, sizeof *incoming);
    incoming->qmp = qmp_connect(place->monitor, "arriving guest", NULL, error);
    if (!incoming->qmp)
        return FALSE;
    qmp_set_timeout(incoming->qmp, time_limit_left());
    monitor = qmp_monitor(incoming->qmp);
    if (!check_process(incoming, place, &pid, error) || !check_waiting(incoming, &monitor, error))
        return FALSE;
    place_close_to_others(place);
    if (!incoming->waits)
        return TRUE;
    incoming->report = json_object_new();
    json_object_set_string_member(incoming->report, "vm", place->name);
    json_object_set_string_member(incoming->report, "uuid", place->uuid);
    json_object_set_int_member(incoming->report, "pid", pid);
    return add_ports(incoming, &monitor, pid, error) &&
           add_capabilities(incoming, &monitor, error) && add_regions(incoming, &monitor, error) &&
           add_vcpus(incoming, &monitor, pid, error);
}

void incoming_close(Incoming *incoming)
{
    g_clear_pointer(&incoming->qmp, qmp_free);
    g_clear_pointer(&incoming->report, json_object_unref);
}
