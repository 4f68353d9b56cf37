/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "protocol/qmp/monitor.h"

#include <string.h>

#include "protocol/qmp/error.h"
#include "protocol/qmp/json.h"

JsonNode *monitor_call(const Monitor *monitor, const char *command, JsonObject *arguments,
                       GError **error)
{
    return monitor->call(monitor->user, command, arguments, error);
}

gboolean monitor_run(const Monitor *monitor, const char *command, JsonObject *arguments,
                     GError **error)
{
    g_autoptr(JsonNode) answer = monitor_call(monitor, command, arguments, error);

    return answer != NULL;
}

char *monitor_query_status(const Monitor *monitor, const char *query, GError **error)
{
    g_autoptr(JsonNode) answer = monitor_call(monitor, query, NULL, error);

    return answer ? g_strdup(member_string(node_object(answer), "status")) : NULL;
}

char *monitor_human(const Monitor *monitor, const char *line, GError **error)
{
    JsonObject *arguments = json_object_new();
    g_autoptr(JsonNode) answer = NULL;

    json_object_set_string_member(arguments, "command-line", line);
    answer = monitor_call(monitor, "human-monitor-command", arguments, error);
    if (!answer)
        return NULL;
    if (JSON_NODE_HOLDS_VALUE(answer) && json_node_get_value_type(answer) == G_TYPE_STRING)
        return g_strdup(json_node_get_string(answer));
    g_set_error(error, CALL_ERROR, CALL_ERROR_FAILED, "\"%s\" was not answered with text", line);
    return NULL;
}

gboolean monitor_get_capability(const Monitor *monitor, const char *name, gboolean *ret_on,
                                GError **error)
{
    g_autoptr(JsonNode) answer = monitor_call(monitor, "query-migrate-capabilities", NULL, error);
    JsonArray *all = node_array(answer);

    *ret_on = FALSE;
    for (guint i = 0; i < element_count(all); i++)
        if (strcmp(member_string(element_object(all, i), "capability"), name) == 0)
            *ret_on = member_bool(element_object(all, i), "state");
    return answer != NULL;
}

gboolean monitor_set_capability(const Monitor *monitor, const char *name, gboolean on,
                                GError **error)
{
    JsonObject *arguments = json_object_new();
    JsonObject *capability = json_object_new();
    JsonArray *all = json_array_new();

    json_object_set_string_member(capability, "capability", name);
    json_object_set_boolean_member(capability, "state", on);
    json_array_add_object_element(all, capability);
    json_object_set_array_member(arguments, "capabilities", all);
    return monitor_run(monitor, "migrate-set-capabilities", arguments, error);
}
