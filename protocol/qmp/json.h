/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reading JSON that another program wrote: a member that is missing, or of another type than
 * expected, reads as empty, never as a crash.
 */
#ifndef POSTCOPYD_QMP_JSON_H
#define POSTCOPYD_QMP_JSON_H

#include <json-glib/json-glib.h>

/* Borrowed from object; "" if there is none. */
const char *member_string(JsonObject *object, const char *member);
gint64 member_int(JsonObject *object, const char *member);
double member_double(JsonObject *object, const char *member);
gboolean member_bool(JsonObject *object, const char *member);

/* Borrowed; NULL if there is none, which the functions here take as empty. */
JsonObject *member_object(JsonObject *object, const char *member);
JsonArray *member_array(JsonObject *object, const char *member);

/* What is at this place of an array; NULL or 0 if it is something else. */
JsonObject *element_object(JsonArray *array, guint index);
gint64 element_int(JsonArray *array, guint index);
guint element_count(JsonArray *array);

/* The node's object or array, NULL if it is something else. */
JsonObject *node_object(JsonNode *node);
JsonArray *node_array(JsonNode *node);

/* One line of text; the caller's. */
char *node_line(JsonNode *node);
/* Takes the object. */
char *object_line(JsonObject *object);

JsonNode *node_parse(const char *text, gssize length, GError **error);

#endif
