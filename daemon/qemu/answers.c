/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/qemu/answers.h"

#include <string.h>

#include "protocol/qmp/json.h"

/* States in which a QEMU runs no vCPU and starts none by itself (qapi/run-state.json). */
static const char *const stopped_states[] = {"finish-migrate", "postmigrate", "paused", NULL};

/* qapi/migration.json */
static const char *const migrating_states[] = {"setup",
                                               "active",
                                               "pre-switchover",
                                               "device",
                                               "postcopy-device",
                                               "postcopy-active",
                                               "postcopy-paused",
                                               "postcopy-recover-setup",
                                               "postcopy-recover",
                                               NULL};
static const char *const moved_on_states[] = {"postcopy-device",
                                              "postcopy-active",
                                              "postcopy-paused",
                                              "postcopy-recover-setup",
                                              "postcopy-recover",
                                              "completed",
                                              NULL};

gboolean answers_running(JsonNode *status)
{
    JsonObject *object = node_object(status);

    return !object || json_object_get_boolean_member_with_default(object, "running", TRUE);
}

gboolean answers_say_running(JsonNode *status)
{
    JsonObject *object = node_object(status);

    return object && json_object_get_boolean_member_with_default(object, "running", FALSE);
}

gboolean answers_stopped(JsonNode *status, char **ret_status)
{
    *ret_status = g_strdup(member_string(node_object(status), "status"));
    return !answers_running(status) && g_strv_contains(stopped_states, *ret_status);
}

guint32 answers_vcpus(JsonNode *cpus, guint32 *ret_tids, guint32 most)
{
    JsonArray *array = node_array(cpus);
    guint32 n = 0;

    for (guint i = 0; i < element_count(array) && n < most; i++) {
        gint64 id = member_int(element_object(array, i), "thread-id");

        if (id > 0 && id <= G_MAXINT32)
            ret_tids[n++] = (guint32)id;
    }
    return n;
}

gboolean answers_migrating(const char *status)
{
    return g_strv_contains(migrating_states, status);
}

gboolean answers_stopped_for(JsonNode *status, const char *migration, char **ret_status)
{
    if (!answers_stopped(status, ret_status))
        return FALSE;
    if (strcmp(*ret_status, "finish-migrate") == 0 || strcmp(migration, "device") == 0)
        return TRUE;
    /* After "completed" QEMU says "postmigrate": a guest that is paused then ran since. */
    return answers_moved_on(migration) &&
           (strcmp(*ret_status, "postmigrate") == 0 || strcmp(migration, "completed") != 0);
}

gboolean answers_failed(const char *status)
{
    return strcmp(status, "failed") == 0 || strcmp(status, "cancelled") == 0 ||
           strcmp(status, "") == 0 || strcmp(status, "none") == 0;
}

gboolean answers_moved_on(const char *status)
{
    return g_strv_contains(moved_on_states, status);
}

gboolean answers_postcopy_limited(JsonNode *parameters)
{
    JsonObject *object = node_object(parameters);

    return !object ||
           json_object_get_int_member_with_default(object, "max-postcopy-bandwidth", 1) != 0;
}
