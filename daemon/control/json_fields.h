/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Members of a request that somebody sent: of the right type, or not there. */
#ifndef POSTCOPYD_CONTROL_JSON_FIELDS_H
#define POSTCOPYD_CONTROL_JSON_FIELDS_H

#include <json-glib/json-glib.h>

static inline JsonNode *json_field_value(JsonObject *object, const char *name, GType type)
{
    JsonNode *node = json_object_get_member(object, name);

    return node && JSON_NODE_HOLDS_VALUE(node) && json_node_get_value_type(node) == type ? node
                                                                                         : NULL;
}

/* NULL: it is none. */
static inline const char *json_field_string(JsonObject *object, const char *name)
{
    JsonNode *node = json_field_value(object, name, G_TYPE_STRING);

    return node ? json_node_get_string(node) : NULL;
}

/* FALSE: it is no integer, or below zero. */
static inline gboolean json_field_number(JsonObject *object, const char *name, guint64 *ret_value)
{
    JsonNode *node = json_field_value(object, name, G_TYPE_INT64);

    if (!node || json_node_get_int(node) < 0)
        return FALSE;
    *ret_value = (guint64)json_node_get_int(node);
    return TRUE;
}

/* FALSE: it says so, or nothing. */
static inline gboolean json_field_is_true(JsonObject *object, const char *name)
{
    JsonNode *node = json_field_value(object, name, G_TYPE_BOOLEAN);

    return node && json_node_get_boolean(node);
}

/* NULL: it is none. */
static inline JsonArray *json_field_array(JsonObject *object, const char *name)
{
    JsonNode *node = json_object_get_member(object, name);

    return node && JSON_NODE_HOLDS_ARRAY(node) ? json_node_get_array(node) : NULL;
}

static inline JsonObject *json_field_object(JsonObject *object, const char *name)
{
    JsonNode *node = json_object_get_member(object, name);

    return node && JSON_NODE_HOLDS_OBJECT(node) ? json_node_get_object(node) : NULL;
}

#endif
