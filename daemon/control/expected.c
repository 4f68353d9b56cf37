/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/control/expected.h"

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "daemon/control/arrival_regions.h"
#include "daemon/control/assist.h"
#include "daemon/control/json_fields.h"
#include "daemon/core/digits.h"
#include "daemon/core/log.h"
#include "daemon/core/process.h"
#include "protocol/text.h"

enum { EXPECTED_MAX = 4096, PORTS_MAX = 1024 };

/* --- reading the request --------------------------------------------------------------------- */

static gboolean complain(char *ret_text, const char *text)
{
    g_snprintf(ret_text, LIMIT_TEXT + 1, "expect: %s", text);
    return FALSE;
}

static gboolean is_name(const char *text, gsize most)
{
    return text && *text && strlen(text) <= most && text_is_plain(text, strlen(text));
}

static gboolean parse_region(JsonObject *object, Region *ret_region)
{
    const char *id = json_field_string(object, "id");
    ClientRegion region = {.kind = CLIENT_REGION_ANONYMOUS, .fd = -1};

    if (!is_name(id, LIMIT_REGION_ID) ||
        !json_field_number(object, "guest_address", &region.guest_address) ||
        !json_field_number(object, "address", &region.address) ||
        !json_field_number(object, "length", &region.length) ||
        !json_field_number(object, "page_size", &region.page_size) ||
        !limits_region_fits(region.length, region.page_size) || region.address == 0 ||
        (region.address & (region.page_size - 1)) != 0 ||
        region.address > G_MAXINT64 - region.length ||
        region.guest_address > G_MAXINT64 - region.length)
        return FALSE;
    g_strlcpy(region.id, id, sizeof region.id);
    region_init(ret_region, &region, -1);
    return TRUE;
}

static gboolean parse_regions(JsonObject *request, RegionSet *ret_regions, char *ret_text)
{
    JsonArray *array = json_field_array(request, "regions");
    guint n = array ? json_array_get_length(array) : 0;

    ret_regions->n = 0;
    if (n == 0 || n > LIMIT_REGIONS)
        return complain(ret_text, "regions are missing, or too many");
    for (guint i = 0; i < n; i++) {
        JsonNode *node = json_array_get_element(array, i);

        if (!JSON_NODE_HOLDS_OBJECT(node) ||
            !parse_region(json_node_get_object(node), &ret_regions->regions[i]))
            return complain(ret_text, "a region wants id, guest_address, address, length and "
                                      "page_size, as a VM's memory can have them");
        ret_regions->n = i + 1;
    }
    if (region_set_overlaps(ret_regions))
        return complain(ret_text, "two regions overlap");
    return TRUE;
}

static gboolean parse_vcpus(JsonObject *request, Expected *expected, char *ret_text)
{
    JsonArray *array = json_field_array(request, "vcpus");
    guint n = array ? json_array_get_length(array) : 0;

    if (n > LIMIT_VCPUS || (!array && json_object_has_member(request, "vcpus")))
        return complain(ret_text, "vcpus are malformed or too many");
    expected->vcpus = g_new0(guint32, n + 1);
    for (guint i = 0; i < n; i++) {
        JsonNode *node = json_array_get_element(array, i);

        if (!JSON_NODE_HOLDS_VALUE(node) || json_node_get_value_type(node) != G_TYPE_INT64 ||
            json_node_get_int(node) <= 0 || json_node_get_int(node) > G_MAXINT32)
            return complain(ret_text, "vcpus are thread ids");
        expected->vcpus[i] = (guint32)json_node_get_int(node);
    }
    expected->n_vcpus = n;
    return TRUE;
}

static gboolean parse_ports(JsonObject *request, Expected *expected, char *ret_text)
{
    JsonArray *array = json_field_array(request, "ports");
    guint n = array ? json_array_get_length(array) : 0;

    if (n > PORTS_MAX || (!array && json_object_has_member(request, "ports")))
        return complain(ret_text, "ports are malformed or too many");
    expected->ports = g_new0(guint16, n + 1);
    for (guint i = 0; i < n; i++) {
        JsonNode *node = json_array_get_element(array, i);

        if (!JSON_NODE_HOLDS_VALUE(node) || json_node_get_value_type(node) != G_TYPE_INT64 ||
            json_node_get_int(node) <= 0 || json_node_get_int(node) > G_MAXUINT16)
            return complain(ret_text, "ports are numbers from 1 to 65535");
        expected->ports[i] = (guint16)json_node_get_int(node);
    }
    expected->n_ports = n;
    return TRUE;
}

/* Without a token it is remembered all the same, so that its client is told what is missing. */
static gboolean parse_names(JsonObject *request, Expected *expected, char *ret_text)
{
    const char *name = json_field_string(request, "vm"), *uuid = json_field_string(request, "uuid");
    const char *mode = json_field_string(request, "mode");
    const char *token = json_field_string(request, "token");
    guint64 pid;

    if (g_strcmp0(mode, "assist") != 0)
        return complain(ret_text, "mode must be assist");
    if (!is_name(name, LIMIT_NAME) || !uuid || !uuid_from_text(uuid, expected->uuid) ||
        !uuid_is_set(expected->uuid))
        return complain(ret_text, "vm and uuid must name the VM");
    if (!json_field_number(request, "pid", &pid) || pid == 0 || pid > G_MAXINT32)
        return complain(ret_text, "pid must be that of the VM's process");
    if (json_object_has_member(request, "token") && !token)
        return complain(ret_text, "token must be 64 hexadecimal digits");
    expected->has_token = token && *token;
    if (expected->has_token && !digits_to_bytes(token, expected->token, LIMIT_TOKEN))
        return complain(ret_text, "token must be 64 hexadecimal digits");
    g_strlcpy(expected->name, name, sizeof expected->name);
    expected->pid = (int)pid;
    return TRUE;
}

/* What is right as a request, and yet no VM that can be assisted: its client is told when it asks.  A source
 * that gives its pages away as it sends them has nothing that could be asked for. */
static void look_for_obstacles(JsonObject *request, Expected *expected)
{
    JsonObject *capabilities = json_field_object(request, "capabilities");

    if (!arrival_pages_fit(&expected->regions, expected->refusal))
        return;
    if (capabilities && json_field_is_true(capabilities, "release-ram"))
        g_strlcpy(expected->refusal,
                  "the migration capability release-ram is on: memory that was sent cannot be "
                  "asked for again",
                  sizeof expected->refusal);
}

/* --- the list -------------------------------------------------------------------------------- */

void expected_free(Expected *expected)
{
    g_ptr_array_remove(expected->control->expected, expected);
    if (expected->ended)
        event_free(expected->ended);
    if (expected->pidfd >= 0)
        close(expected->pidfd);
    g_free(expected->vcpus);
    g_free(expected->ports);
    g_free(expected);
}

Expected *expected_by_pid(Control *control, int pid)
{
    for (guint i = 0; i < control->expected->len; i++) {
        Expected *expected = control->expected->pdata[i];
        if (expected->pid == pid && !process_has_ended(expected->pidfd))
            return expected;
    }
    return NULL;
}

Expected *expected_by_id(Control *control, guint64 id)
{
    for (guint i = 0; i < control->expected->len; i++) {
        Expected *expected = control->expected->pdata[i];
        if (expected->id == id)
            return expected;
    }
    return NULL;
}

Expected *expected_by_text(Control *control, const char *vm)
{
    guint8 uuid[LIMIT_UUID];
    gboolean is_uuid = uuid_from_text(vm, uuid);

    for (guint i = 0; i < control->expected->len; i++) {
        Expected *expected = control->expected->pdata[i];
        if ((strcmp(expected->name, vm) == 0 ||
             (is_uuid && memcmp(expected->uuid, uuid, sizeof uuid) == 0)) &&
            !process_has_ended(expected->pidfd))
            return expected;
    }
    return NULL;
}

static void on_ended(evutil_socket_t fd, short what, void *argument)
{
    Expected *expected = argument;

    (void)fd;
    (void)what;
    assist_process_ended(expected->control, expected->pid);
    expected_free(expected);
}

static gboolean watch_over(Expected *expected, char *ret_text)
{
    expected->pidfd = (int)syscall(SYS_pidfd_open, expected->pid, 0);
    if (expected->pidfd < 0) {
        g_snprintf(ret_text, LIMIT_TEXT + 1, "expect: cannot watch over process %d: %s",
                   expected->pid, strerror(errno));
        return FALSE;
    }
    expected->ended =
        event_new(expected->control->base, expected->pidfd, EV_READ, on_ended, expected);
    event_add(expected->ended, NULL);
    return TRUE;
}

/* A limit that was set meanwhile stays with the process. */
static void replace_earlier(Expected *expected)
{
    GPtrArray *all = expected->control->expected;

    for (guint i = all->len; i-- > 0;) {
        Expected *other = all->pdata[i];
        if (other == expected ||
            (other->pid != expected->pid && memcmp(other->uuid, expected->uuid, LIMIT_UUID) != 0))
            continue;
        if (other->pid == expected->pid)
            expected->limit = other->limit;
        expected_free(other);
    }
}

gboolean expected_add(Control *control, JsonObject *request, char *ret_text)
{
    Expected *expected = g_new0(Expected, 1);

    expected->control = control;
    expected->id = control->next_id++;
    expected->pidfd = -1;
    expected->limit = control->settings->vm_limit;
    g_ptr_array_add(control->expected, expected);
    if (control->expected->len > EXPECTED_MAX) {
        expected_free(expected);
        return complain(ret_text, "too many VMs are expected");
    }
    if (!parse_names(request, expected, ret_text) ||
        !parse_regions(request, &expected->regions, ret_text) ||
        !parse_vcpus(request, expected, ret_text) || !parse_ports(request, expected, ret_text) ||
        !watch_over(expected, ret_text)) {
        expected_free(expected);
        return FALSE;
    }
    look_for_obstacles(request, expected);
    replace_earlier(expected);
    log_info("%s: expected to arrive in process %d%s%s", expected->name, expected->pid,
             expected->refusal[0] ? "; will not be assisted: " : "", expected->refusal);
    return TRUE;
}
