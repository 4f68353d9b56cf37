/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/control/operator.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "daemon/control/arrival.h"
#include "daemon/control/awaited.h"
#include "daemon/control/departure.h"
#include "daemon/control/departure_lent.h"
#include "daemon/control/expected.h"
#include "daemon/control/limits.h"
#include "daemon/control/operator_lend.h"
#include "daemon/control/report.h"
#include "daemon/control/transport_choice.h"
#include "protocol/qmp/json_depth.h"
#include "protocol/rate_text.h"

/* A request being handled. */
typedef struct Request {
    Connection *connection;
    guint32 serial;
    JsonObject *object;
    int fd; /* -1, or taken by whoever handles it */
} Request;

/* --- answers ------------------------------------------------------------------------------- */

static void refuse(const Request *request, int status, const char *text)
{
    operator_reply_error(request->connection, request->serial, status, text);
}

static void done(const Request *request)
{
    JsonNode *node = json_node_new(JSON_NODE_OBJECT);

    json_node_take_object(node, json_object_new());
    operator_reply(request->connection, request->serial, node);
}

/* --- fields -------------------------------------------------------------------------------- */

static const char *string_field(JsonObject *object, const char *name)
{
    JsonNode *node = json_object_get_member(object, name);

    return node && JSON_NODE_HOLDS_VALUE(node) && json_node_get_value_type(node) == G_TYPE_STRING
               ? json_node_get_string(node)
               : NULL;
}

static guint64 number_field(JsonObject *object, const char *name, guint64 fallback)
{
    JsonNode *node = json_object_get_member(object, name);

    return node && JSON_NODE_HOLDS_VALUE(node) && json_node_get_value_type(node) == G_TYPE_INT64
               ? (guint64)json_node_get_int(node)
               : fallback;
}

static JsonArray *array_field(JsonObject *object, const char *name)
{
    JsonNode *node = json_object_get_member(object, name);

    return node && JSON_NODE_HOLDS_ARRAY(node) ? json_node_get_array(node) : NULL;
}

static Connection *vm_field(const Request *request)
{
    const char *vm = string_field(request->object, "vm");
    Connection *connection = vm ? connection_by_text(request->connection->control, vm) : NULL;

    if (!vm)
        refuse(request, -EINVAL, "the request names no vm");
    else if (!connection) {
        g_autofree char *text = g_strdup_printf(
            "no VM '%s' is connected to this daemon: is it started with the preload, and with "
            "this daemon's socket? see postcopyctl status",
            vm);
        refuse(request, -ENOENT, text);
    }
    return connection;
}

static void refuse_not_leaving(const Request *request, const char *vm)
{
    g_autofree char *text =
        !vm ? g_strdup("the request names no vm")
        : connection_by_text(request->connection->control, vm)
            ? g_strdup_printf("VM '%s' is here, and is not leaving this host", vm)
            : g_strdup_printf(
                  "VM '%s' is not leaving this host, and none of that name is connected "
                  "to this daemon: see postcopyctl jobs",
                  vm);

    refuse(request, vm ? -ENOENT : -EINVAL, text);
}

/* The VM's departure, also when its process is gone. */
static Departure *departure_field(const Request *request)
{
    Control *control = request->connection->control;
    const char *vm = string_field(request->object, "vm");
    guint8 uuid[LIMIT_UUID];
    gboolean is_uuid = vm && uuid_from_text(vm, uuid);

    for (guint i = control->departures->len; vm && i-- > 0;) {
        Departure *departure = control->departures->pdata[i];
        const Export *export = departure->export;
        if (export && (strcmp(export->name, vm) == 0 ||
                       (is_uuid && memcmp(export->uuid, uuid, sizeof uuid) == 0)))
            return departure;
    }
    refuse_not_leaving(request, vm);
    return NULL;
}

/* --- requests ------------------------------------------------------------------------------ */

static gboolean parse_region(JsonObject *object, PeerRegion *ret_region, guint64 *ret_destination)
{
    const char *id = string_field(object, "id");

    if (!id || strlen(id) > LIMIT_REGION_ID)
        return FALSE;
    memset(ret_region, 0, sizeof *ret_region);
    g_strlcpy(ret_region->id, id, sizeof ret_region->id);
    ret_region->guest_address = number_field(object, "guest_address", GUEST_ADDRESS_UNKNOWN);
    ret_region->length = number_field(object, "length", 0);
    ret_region->address_hint = number_field(object, "address", 0);
    *ret_destination = number_field(object, "destination_address", 0);
    return TRUE;
}

static gboolean parse_regions(JsonObject *object, DriverRegions *ret_driver)
{
    JsonArray *array = array_field(object, "regions");
    guint n = array ? json_array_get_length(array) : 0;

    ret_driver->names.n = 0;
    if (n > LIMIT_REGIONS)
        return FALSE;
    for (guint i = 0; i < n; i++) {
        JsonNode *node = json_array_get_element(array, i);
        if (!JSON_NODE_HOLDS_OBJECT(node) ||
            !parse_region(json_node_get_object(node), &ret_driver->names.regions[i],
                          &ret_driver->destination_addresses[i]))
            return FALSE;
    }
    ret_driver->names.n = n;
    return TRUE;
}

static gboolean parse_vcpus(JsonObject *object, const char *name, guint32 *ret_tids, guint32 *ret_n)
{
    JsonArray *array = array_field(object, name);
    guint n = array ? json_array_get_length(array) : 0;

    if (n > LIMIT_VCPUS)
        return FALSE;
    for (guint i = 0; i < n; i++) {
        JsonNode *node = json_array_get_element(array, i);
        if (!JSON_NODE_HOLDS_VALUE(node) || json_node_get_value_type(node) != G_TYPE_INT64)
            return FALSE;
        ret_tids[i] = (guint32)json_node_get_int(node);
    }
    *ret_n = n;
    return TRUE;
}

/* FALSE: it was refused. */
static gboolean take_transport(const Request *request, DriverRegions *driver)
{
    char text[LIMIT_TEXT + 1];
    gboolean sound =
        transport_asked(request->connection->control, request->object, &driver->transport, text);

    if (!sound)
        refuse(request, -EINVAL, text);
    return sound;
}

/* The VM is libvirt's, and no client of ours. */
static void on_prepare_libvirt(const Request *request)
{
    g_autofree DriverRegions *driver = g_new0(DriverRegions, 1);

    if (!take_transport(request, driver))
        return;
    if (parse_regions(request->object, driver) &&
        parse_vcpus(request->object, "destination_vcpus", driver->destination_vcpus,
                    &driver->n_destination_vcpus))
        operator_prepare_lent(request->connection, request->serial, request->object, driver);
    else
        refuse(request, -EINVAL, "prepare: regions or destination_vcpus are malformed");
}

static void on_prepare(const Request *request)
{
    g_autofree DriverRegions *driver = g_new0(DriverRegions, 1);
    Asker asker = {request->connection->id, request->serial, CLIENT_REPLY};
    const char *destination = string_field(request->object, "destination");
    Connection *vm = vm_field(request);
    guint64 pid = number_field(request->object, "pid", 0);

    if (!vm || !take_transport(request, driver))
        return;
    if (pid != 0 && pid != (guint64)vm->peer.pid) {
        g_autofree char *text = g_strdup_printf(
            "the VM of that name is process %d, the monitor belongs to process %" G_GUINT64_FORMAT,
            vm->peer.pid, pid);
        refuse(request, -EINVAL, text);
    } else if (!destination || !parse_regions(request->object, driver) ||
               !parse_vcpus(request->object, "destination_vcpus", driver->destination_vcpus,
                            &driver->n_destination_vcpus)) {
        refuse(request, -EINVAL,
               "prepare: destination, regions or destination_vcpus are missing or malformed");
    } else {
        departure_offer(
            vm, destination, driver,
            json_object_get_boolean_member_with_default(request->object, "relay", FALSE), asker,
            request->connection->id);
    }
}

static void on_arrive(const Request *request)
{
    g_autofree DriverRegions *driver = g_new0(DriverRegions, 1);
    Asker asker = {request->connection->id, request->serial, CLIENT_REPLY};
    const char *uuid = string_field(request->object, "uuid");
    guint64 pid = number_field(request->object, "pid", 0);
    guint8 bytes[LIMIT_UUID];

    if (!uuid || !uuid_from_text(uuid, bytes) || pid == 0 || pid > G_MAXINT32 ||
        !parse_regions(request->object, driver) ||
        !parse_vcpus(request->object, "vcpus", driver->destination_vcpus,
                     &driver->n_destination_vcpus))
        refuse(request, -EINVAL, "arrive: uuid, pid, regions or vcpus are missing or malformed");
    else
        awaited_arrive(request->connection->control, bytes, (int)pid, driver, asker);
}

static void on_relay(const Request *request)
{
    Asker asker = {request->connection->id, request->serial, CLIENT_REPLY};
    Departure *departure = departure_field(request);

    if (departure)
        departure_relay(departure, asker);
}

static void on_seal(Request *request)
{
    Asker asker = {request->connection->id, request->serial, CLIENT_REPLY};
    Departure *departure = departure_field(request);

    if (!departure)
        return;
    if (request->fd >= 0)
        departure_seal(departure, request->fd, asker);
    else if (departure->lent)
        departure_lent_seal(departure, asker);
    else
        refuse(request, -EINVAL, "seal: the source's monitor did not come along");
    request->fd = -1;
}

static void on_running(const Request *request)
{
    Departure *departure = departure_field(request);

    if (!departure)
        return;
    departure_running(departure);
    done(request);
}

static void on_abandon(const Request *request)
{
    Departure *departure = departure_field(request);

    if (!departure)
        return;
    if (departure_is_over(departure)) {
        refuse(request, -EBUSY, "that migration has ended");
    } else if (departure->mode == DEPARTURE_ASSIST) {
        refuse(request, -EINVAL,
               "QEMU's own stream brings that VM's memory, with or without this daemon (assist "
               "mode): there is nothing to abandon");
    } else {
        departure_fence(departure, "its switchover failed");
        done(request);
    }
}

static void on_cancel(const Request *request)
{
    Departure *departure = departure_field(request);

    if (!departure)
        return;
    if (departure_is_open(departure) && departure_cancel(departure, "cancelled by the operator"))
        done(request);
    else
        refuse(request, -EBUSY,
               departure_is_open(departure)
                   ? "the gate is open: the guest may run at its destination already, and its "
                     "memory must go on arriving"
                   : "that migration has ended");
}

static void on_progress(const Request *request)
{
    Departure *departure = departure_field(request);

    if (departure)
        operator_reply(request->connection, request->serial, report_progress(departure));
}

static void on_vcpus(const Request *request)
{
    g_autofree guint32 *tids = g_new0(guint32, LIMIT_VCPUS);
    Connection *vm = vm_field(request);
    guint32 n;

    if (!vm)
        return;
    if (!parse_vcpus(request->object, "tids", tids, &n)) {
        refuse(request, -EINVAL, "vcpus: tids are malformed or too many");
        return;
    }
    connection_set_vcpus(vm, tids, n);
    done(request);
}

static void on_expect(const Request *request)
{
    char text[LIMIT_TEXT + 1] = "";

    if (expected_add(request->connection->control, request->object, text))
        done(request);
    else
        refuse(request, -EINVAL, text);
}

/* Of whom a limit is set. FALSE: the request was refused. */
static gboolean limited_vm(const Request *request, LimitedVm *ret_vm)
{
    const char *vm = string_field(request->object, "vm");

    *ret_vm = (LimitedVm){0};
    if (!json_object_has_member(request->object, "vm") ||
        (vm && limits_find(request->connection->control, vm, ret_vm)))
        return TRUE;
    if (vm) {
        g_autofree char *text = g_strdup_printf(
            "no memory arrives here for a VM '%s' (postcopyctl jobs shows those that arrive): "
            "limits are set at the destination's daemon",
            vm);
        refuse(request, -ENOENT, text);
    } else {
        refuse(request, -EINVAL, "the request names no vm");
    }
    return FALSE;
}

/* Without a rate it only tells. */
static void on_limit(const Request *request)
{
    Control *control = request->connection->control;
    gboolean set = json_object_has_member(request->object, "bytes_per_s");
    guint64 rate = number_field(request->object, "bytes_per_s", G_MAXUINT64);
    LimitedVm vm;

    if (!limited_vm(request, &vm))
        return;
    if (set && rate != 0 && (rate < RATE_LEAST || rate > RATE_MOST)) {
        refuse(request, -EINVAL,
               "limit: bytes_per_s must be 0, for none, or a number from 65536 to 1099511627776");
        return;
    }
    if (set && !limits_set(control, &vm, rate))
        refuse(request, -EINVAL,
               "no memory arrives for that VM: limits are set at the destination's daemon");
    else
        operator_reply(request->connection, request->serial, limits_report(control, &vm));
}

static void on_report(const Request *request, gboolean full)
{
    const Connection *asker = request->connection;
    int own = connection_process_lives(asker) ? asker->peer.pid : 0;
    int pid = connection_is_operator(asker) ? -1 : own;

    operator_reply(
        request->connection, request->serial,
        report_all(request->connection->control, string_field(request->object, "vm"), pid, full));
}

static void on_operator_op(Request *request, const char *op)
{
    if (!connection_is_operator(request->connection))
        refuse(request, -EPERM, "only root, the daemon's user and the operator group may do that");
    else if (strcmp(op, "prepare") == 0 &&
             json_object_get_boolean_member_with_default(request->object, "libvirt", FALSE))
        on_prepare_libvirt(request);
    else if (strcmp(op, "prepare") == 0)
        on_prepare(request);
    else if (strcmp(op, "arrive") == 0)
        on_arrive(request);
    else if (strcmp(op, "relay") == 0)
        on_relay(request);
    else if (strcmp(op, "seal") == 0)
        on_seal(request);
    else if (strcmp(op, "running") == 0)
        on_running(request);
    else if (strcmp(op, "abandon") == 0)
        on_abandon(request);
    else if (strcmp(op, "cancel") == 0)
        on_cancel(request);
    else if (strcmp(op, "progress") == 0)
        on_progress(request);
    else if (strcmp(op, "vcpus") == 0)
        on_vcpus(request);
    else if (strcmp(op, "expect") == 0)
        on_expect(request);
    else if (strcmp(op, "limit") == 0)
        on_limit(request);
    else if (!operator_lend(request->connection, request->serial, op, request->object))
        refuse(request, -EOPNOTSUPP, "this daemon does not know that request");
}

void operator_request(Connection *connection, int fd)
{
    const ClientMessage *message = connection->control->message;
    Request request = {.connection = connection, .serial = message->serial, .fd = fd};
    g_autoptr(JsonParser) parser = json_parser_new();
    JsonNode *root = NULL;
    const char *op;

    if (json_depth_is_bounded(message->json.text, message->json.length) &&
        json_parser_load_from_data(parser, message->json.text, message->json.length, NULL))
        root = json_parser_get_root(parser);
    if (!root || !JSON_NODE_HOLDS_OBJECT(root)) {
        refuse(&request, -EINVAL, "the request is not a JSON object, or nested too deep");
    } else {
        request.object = json_node_get_object(root);
        op = string_field(request.object, "op");
        if (op && strcmp(op, "status") == 0)
            on_report(&request, FALSE);
        else if (op && strcmp(op, "stats") == 0)
            on_report(&request, TRUE);
        else
            on_operator_op(&request, op ? op : "");
    }
    if (request.fd >= 0)
        close(request.fd);
}
