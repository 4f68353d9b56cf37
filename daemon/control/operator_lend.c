/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/control/operator_lend.h"

#include <errno.h>
#include <string.h>

#include "daemon/control/departure_lent.h"
#include "daemon/control/operator.h"
#include "daemon/core/digits.h"
#include "daemon/core/log.h"
#include "protocol/qmp/json.h"
#include "protocol/text.h"

static void done(Connection *connection, guint32 serial)
{
    JsonNode *node = json_node_new(JSON_NODE_OBJECT);

    json_node_take_object(node, json_object_new());
    operator_reply(connection, serial, node);
}

static void on_lend(Connection *connection, guint32 serial, JsonObject *request)
{
    const char *name = member_string(request, "vm"), *monitor = member_string(request, "monitor");
    guint8 uuid[LIMIT_UUID], token[LIMIT_TOKEN];
    char text[LIMIT_TEXT + 1];
    int error;

    if (name[0] == '\0' || strlen(name) > LIMIT_NAME || !text_is_plain(name, strlen(name)) ||
        !uuid_from_text(member_string(request, "uuid"), uuid) || !uuid_is_set(uuid) ||
        !digits_to_bytes(member_string(request, "token"), token, LIMIT_TOKEN)) {
        operator_reply_error(connection, serial, -EINVAL,
                             "lend: vm, uuid or token (64 hexadecimal digits) are missing or "
                             "malformed");
        return;
    }
    error = guests_lend(connection->control->guests, uuid, name, monitor, token, text);
    if (error) {
        operator_reply_error(connection, serial, error, text);
        return;
    }
    log_info("%s: lent by an operator, its monitor is %s", name, monitor);
    done(connection, serial);
}

static void on_unlend(Connection *connection, guint32 serial, JsonObject *request)
{
    Guests *guests = connection->control->guests;
    const char *vm = member_string(request, "vm");
    guint8 uuid[LIMIT_UUID];

    if ((uuid_from_text(vm, uuid) || guests_find_lent(guests, vm, uuid)) &&
        guests_unlend(guests, uuid))
        done(connection, serial);
    else
        operator_reply_error(connection, serial, -ENOENT, "no VM of that name or uuid is lent");
}

gboolean operator_lend(Connection *connection, guint32 serial, const char *op, JsonObject *request)
{
    if (strcmp(op, "lend") == 0)
        on_lend(connection, serial, request);
    else if (strcmp(op, "unlend") == 0)
        on_unlend(connection, serial, request);
    else
        return FALSE;
    return TRUE;
}

void operator_prepare_lent(Connection *connection, guint32 serial, JsonObject *request,
                           const DriverRegions *driver)
{
    Asker asker = {connection->id, serial, CLIENT_REPLY};
    gint64 pid = member_int(request, "pid");
    guint8 uuid[LIMIT_UUID];

    if (!uuid_from_text(member_string(request, "uuid"), uuid) || pid <= 0 || pid > G_MAXINT32)
        operator_reply_error(
            connection, serial, -EINVAL,
            "prepare: the uuid or pid of libvirt's domain is missing or malformed");
    else if (member_bool(request, "relay"))
        operator_reply_error(connection, serial, -EINVAL,
                             "prepare: libvirt carries the device state itself, there is no relay");
    else
        departure_lent_prepare(connection->control, uuid, (int)pid,
                               member_string(request, "destination"), driver, asker,
                               connection->id);
}
