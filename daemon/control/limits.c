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
        add(&sharing, control, assist->import, assist->limit,
            assist->import && import_state(assist->import) == CLIENT_STATE_RUNNING);
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

gboolean limits_set(Control *control, Connection *connection, guint64 bytes_per_s)
{
    if (connection && !may_arrive(connection))
        return FALSE;
    if (!connection) {
        control->limit = bytes_per_s;
    } else {
        connection->limit = bytes_per_s;
        if (connection->arrival)
            connection->arrival->limit = bytes_per_s;
    }
    limits_apply(control);
    return TRUE;
}

static JsonObject *vm_limit(const Connection *connection)
{
    const Arrival *arrival = connection->arrival;
    JsonObject *object = json_object_new();
    guint64 share = arrival && arrival->import && streams(arrival)
                        ? atomic_load_explicit(&arrival->import->limit, memory_order_relaxed)
                        : 0;

    json_object_set_string_member(object, "vm", connection->name);
    json_object_set_int_member(object, "limit_bytes_s", (gint64)connection->limit);
    json_object_set_boolean_member(object, "streams",
                                   arrival && arrival->import && streams(arrival));
    json_object_set_int_member(object, "share_bytes_s", (gint64)share);
    return object;
}

JsonNode *limits_report(Control *control, const Connection *connection)
{
    JsonNode *node = json_node_new(JSON_NODE_OBJECT);
    JsonObject *object = json_object_new();
    JsonArray *vms = json_array_new();

    json_object_set_int_member(object, "limit_bytes_s", (gint64)control->limit);
    json_object_set_int_member(object, "vm_limit_bytes_s", (gint64)control->settings->vm_limit);
    for (guint i = 0; i < control->connections->len; i++) {
        const Connection *each = control->connections->pdata[i];
        if (each->greeted && may_arrive(each) && (!connection || each == connection))
            json_array_add_object_element(vms, vm_limit(each));
    }
    json_object_set_array_member(object, "vms", vms);
    json_node_take_object(node, object);
    return node;
}
