/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/control/limits.h"

#include "daemon/control/arrival.h"
#include "daemon/control/assist.h"
#include "daemon/fault/rate.h"

static gboolean streams(const Arrival *arrival)
{
    return arrival->stage == ARRIVAL_READY && import_gate_is_open(arrival->import) &&
           import_state(arrival->import) == CLIENT_STATE_RUNNING;
}

static gboolean assist_streams(const Assist *assist)
{
    return assist->import && import_state(assist->import) == CLIENT_STATE_RUNNING;
}

static guint64 smaller_limit(guint64 a, guint64 b)
{
    return a != 0 && (b == 0 || a < b) ? a : b;
}

/* Whose memory is on its way, and what each of them may have at most. */
typedef struct Sharing {
    guint n;
    Import **imports;
    guint64 *wanted;
} Sharing;

/* Until it streams, what it could get alone: it may begin before we hear of it. */
static void add(Sharing *sharing, const Control *control, Import *import, guint64 limit,
                gboolean is_streaming)
{
    if (!import)
        return;
    if (!is_streaming) {
        atomic_store_explicit(&import->limit, smaller_limit(limit, control->limit),
                              memory_order_relaxed);
        return;
    }
    sharing->imports[sharing->n] = import;
    sharing->wanted[sharing->n++] = limit;
}

void limits_apply(Control *control)
{
    guint n = control->arrivals->len + control->assists->len;
    g_autofree guint64 *wanted = g_new(guint64, n);
    g_autofree guint64 *shares = g_new(guint64, n);
    g_autofree Import **imports = g_new(Import *, n);
    Sharing sharing = {.imports = imports, .wanted = wanted};

    for (guint i = 0; i < control->arrivals->len; i++) {
        const Arrival *arrival = control->arrivals->pdata[i];
        add(&sharing, control, arrival->import, arrival->limit,
            arrival->import && streams(arrival));
    }
    for (guint i = 0; i < control->assists->len; i++) {
        const Assist *assist = control->assists->pdata[i];
        add(&sharing, control, assist->import, assist->limit, assist_streams(assist));
    }
    rate_share(control->limit, wanted, sharing.n, shares);
    for (guint i = 0; i < sharing.n; i++)
        atomic_store_explicit(&imports[i]->limit, shares[i], memory_order_relaxed);
}

static gboolean may_arrive(const Connection *connection)
{
    return connection->role == CLIENT_ROLE_DESTINATION ||
           (connection->arrival && arrival_is_open(connection->arrival));
}

/* The one that assists this VM; NULL: none yet, or no more. */
static Assist *assist_of(const Expected *expected)
{
    GPtrArray *all = expected->control->assists;

    for (guint i = 0; i < all->len; i++) {
        Assist *assist = all->pdata[i];
        if (assist->pid == expected->pid && assist->stage != ASSIST_ENDING)
            return assist;
    }
    return NULL;
}

gboolean limits_find(Control *control, const char *text, LimitedVm *ret_vm)
{
    Connection *connection = connection_by_text(control, text);

    *ret_vm = (LimitedVm){.connection = connection};
    if (connection && may_arrive(connection))
        return TRUE;
    ret_vm->expected = expected_by_text(control, text);
    if (ret_vm->expected)
        ret_vm->connection = NULL;
    return ret_vm->connection || ret_vm->expected;
}

static void set_expected(Expected *expected, guint64 bytes_per_s)
{
    Assist *assist = assist_of(expected);

    expected->limit = bytes_per_s;
    if (assist)
        assist->limit = bytes_per_s;
}

gboolean limits_set(Control *control, const LimitedVm *vm, guint64 bytes_per_s)
{
    Connection *connection = vm->connection;

    if (connection && !may_arrive(connection))
        return FALSE;
    if (vm->expected) {
        set_expected(vm->expected, bytes_per_s);
    } else if (!connection) {
        control->limit = bytes_per_s;
    } else {
        connection->limit = bytes_per_s;
        if (connection->arrival)
            connection->arrival->limit = bytes_per_s;
    }
    limits_apply(control);
    return TRUE;
}

/* import: NULL unless it streams. */
static JsonObject *vm_limit(const char *name, guint64 limit, const Import *import)
{
    JsonObject *object = json_object_new();
    guint64 share = import ? atomic_load_explicit(&import->limit, memory_order_relaxed) : 0;

    json_object_set_string_member(object, "vm", name);
    json_object_set_int_member(object, "limit_bytes_s", (gint64)limit);
    json_object_set_boolean_member(object, "streams", import != NULL);
    json_object_set_int_member(object, "share_bytes_s", (gint64)share);
    return object;
}

static JsonObject *connected_limit(const Connection *connection)
{
    const Arrival *arrival = connection->arrival;
    gboolean is_streaming = arrival && arrival->import && streams(arrival);

    return vm_limit(connection->name, connection->limit, is_streaming ? arrival->import : NULL);
}

static JsonObject *expected_limit(const Expected *expected)
{
    const Assist *assist = assist_of(expected);

    return vm_limit(expected->name, expected->limit,
                    assist && assist_streams(assist) ? assist->import : NULL);
}

static void list_all(const Control *control, JsonArray *vms)
{
    for (guint i = 0; i < control->connections->len; i++) {
        const Connection *each = control->connections->pdata[i];
        if (each->greeted && may_arrive(each))
            json_array_add_object_element(vms, connected_limit(each));
    }
    for (guint i = 0; i < control->expected->len; i++) {
        const Expected *each = control->expected->pdata[i];
        if (assist_of(each))
            json_array_add_object_element(vms, expected_limit(each));
    }
}

JsonNode *limits_report(Control *control, const LimitedVm *vm)
{
    JsonNode *node = json_node_new(JSON_NODE_OBJECT);
    JsonObject *object = json_object_new();
    JsonArray *vms = json_array_new();

    json_object_set_int_member(object, "limit_bytes_s", (gint64)control->limit);
    json_object_set_int_member(object, "vm_limit_bytes_s", (gint64)control->settings->vm_limit);
    if (vm->expected)
        json_array_add_object_element(vms, expected_limit(vm->expected));
    else if (!vm->connection)
        list_all(control, vms);
    else if (vm->connection->greeted && may_arrive(vm->connection))
        json_array_add_object_element(vms, connected_limit(vm->connection));
    json_object_set_array_member(object, "vms", vms);
    json_node_take_object(node, object);
    return node;
}
