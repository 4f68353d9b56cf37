/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Answers to operators: JSON, in as many packets as it takes. */
#include <string.h>

#include "daemon/control/operator.h"

/* The generator copies strings as they are, and reasons were cut to fit wherever that happened to be. */
static char *to_text(JsonNode *node)
{
    char *text = json_to_string(node, FALSE);

    if (!g_utf8_validate(text, -1, NULL)) {
        char *valid = g_utf8_make_valid(text, -1);

        g_free(text);
        text = valid;
    }
    json_node_unref(node);
    return text;
}

void operator_reply(Connection *connection, guint32 serial, JsonNode *node)
{
    g_autofree char *text = to_text(node);
    ClientMessage *reply = connection->control->reply;
    gsize length = strlen(text), at = 0;

    do {
        gsize part = MIN(length - at, CLIENT_JSON_MAX);
        reply->type = CLIENT_REPLY;
        reply->serial = serial;
        reply->json.flags = at + part < length ? CLIENT_REPLY_MORE : 0;
        reply->json.length = (guint32)part;
        memcpy(reply->json.text, text + at, part);
        connection_send(connection, NULL, 0);
        at += part;
    } while (at < length);
}

void operator_reply_error(Connection *connection, guint32 serial, int status, const char *text)
{
    JsonNode *node = json_node_new(JSON_NODE_OBJECT);
    JsonObject *object = json_object_new();

    json_object_set_string_member(object, "error", text);
    json_object_set_int_member(object, "errno", -status);
    json_node_take_object(node, object);
    operator_reply(connection, serial, node);
}
