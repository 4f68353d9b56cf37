/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "protocol/qmp/json.h"

#include <string.h>

#include "protocol/qmp/error.h"
#include "protocol/qmp/json_depth.h"

static JsonNode *value(JsonObject *object, const char *member)
{
    JsonNode *node = object ? json_object_get_member(object, member) : NULL;

    return node && JSON_NODE_HOLDS_VALUE(node) ? node : NULL;
}

static gint64 node_int(JsonNode *node)
{
    if (!node || !JSON_NODE_HOLDS_VALUE(node))
        return 0;
    if (json_node_get_value_type(node) == G_TYPE_DOUBLE)
        return (gint64)CLAMP(json_node_get_double(node), -0x1p62, 0x1p62);
    return json_node_get_value_type(node) == G_TYPE_INT64 ? json_node_get_int(node) : 0;
}

const char *member_string(JsonObject *object, const char *member)
{
    JsonNode *node = value(object, member);
    const char *text = node ? json_node_get_string(node) : NULL;

    return text ? text : "";
}

gint64 member_int(JsonObject *object, const char *member)
{
    return node_int(value(object, member));
}

double member_double(JsonObject *object, const char *member)
{
    JsonNode *node = value(object, member);

    if (node && json_node_get_value_type(node) == G_TYPE_DOUBLE)
        return json_node_get_double(node);
    return (double)member_int(object, member);
}

gboolean member_bool(JsonObject *object, const char *member)
{
    JsonNode *node = value(object, member);

    return node && json_node_get_value_type(node) == G_TYPE_BOOLEAN && json_node_get_boolean(node);
}

JsonObject *member_object(JsonObject *object, const char *member)
{
    return object ? node_object(json_object_get_member(object, member)) : NULL;
}

JsonArray *member_array(JsonObject *object, const char *member)
{
    return object ? node_array(json_object_get_member(object, member)) : NULL;
}

JsonObject *element_object(JsonArray *array, guint index)
{
    return index < element_count(array) ? node_object(json_array_get_element(array, index)) : NULL;
}

gint64 element_int(JsonArray *array, guint index)
{
    return index < element_count(array) ? node_int(json_array_get_element(array, index)) : 0;
}

guint element_count(JsonArray *array)
{
    return array ? json_array_get_length(array) : 0;
}

JsonObject *node_object(JsonNode *node)
{
    return node && JSON_NODE_HOLDS_OBJECT(node) ? json_node_get_object(node) : NULL;
}

JsonArray *node_array(JsonNode *node)
{
    return node && JSON_NODE_HOLDS_ARRAY(node) ? json_node_get_array(node) : NULL;
}

char *node_line(JsonNode *node)
{
    return json_to_string(node, FALSE);
}

char *object_line(JsonObject *object)
{
    g_autoptr(JsonNode) node = json_node_init_object(json_node_alloc(), object);

    json_object_unref(object);
    return node_line(node);
}

JsonNode *node_parse(const char *text, gssize length, GError **error)
{
    g_autoptr(JsonParser) parser = json_parser_new();
    JsonNode *root;

    if (!json_depth_is_bounded(text, length < 0 ? strlen(text) : (gsize)length)) {
        g_set_error(error, CALL_ERROR, CALL_ERROR_FAILED, "nested too deeply");
        return NULL;
    }
    if (!json_parser_load_from_data(parser, text, length, error))
        return NULL;
    root = json_parser_steal_root(parser);
    if (!root)
        g_set_error(error, CALL_ERROR, CALL_ERROR_FAILED, "empty answer");
    return root;
}
