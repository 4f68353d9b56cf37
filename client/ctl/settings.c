/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/ctl/settings.h"

#include <string.h>

#include "client/ctl/error.h"
#include "protocol/qmp/json.h"

/* As fast as can be: what is left in QEMU's stream is small, and the guest is waiting. */
#define DOWNTIME_LIMIT_MS G_GINT64_CONSTANT(2000000)
#define MAX_BANDWIDTH     (G_GINT64_CONSTANT(100) << 30)

static const char *const needed[] = {"x-ignore-shared", "events", NULL};

/*
 * These change how RAM travels, or forbid x-ignore-shared, or hold back the destination's disks, or
 * make the source stand and wait for an order or for the destination's word, for which the guest
 * would be waiting too.
 */
static const char *const conflicting[] = {
    "postcopy-ram",
    "postcopy-blocktime",
    "postcopy-preempt",
    "background-snapshot",
    "release-ram",
    "multifd",
    "xbzrle",
    "compress",
    "block",
    "x-colo",
    "rdma-pin-all",
    "zero-copy-send",
    "auto-converge",
    "dirty-limit",
    "mapped-ram",
    "return-path",
    "switchover-ack",
    "pause-before-switchover",
    NULL,
};

static gboolean wanted(const char *name, gboolean now)
{
    if (g_strv_contains(needed, name))
        return TRUE;
    return g_strv_contains(conflicting, name) ? FALSE : now;
}

static void add_capability(JsonArray *array, const char *name, gboolean state)
{
    JsonObject *object = json_object_new();

    json_object_set_string_member(object, "capability", name);
    json_object_set_boolean_member(object, "state", state);
    json_array_add_object_element(array, object);
}

static gboolean has_capability(JsonArray *present, const char *name)
{
    for (guint i = 0; i < element_count(present); i++)
        if (strcmp(member_string(element_object(present, i), "capability"), name) == 0)
            return TRUE;
    return FALSE;
}

static gboolean check_needed(JsonArray *present, GError **error)
{
    for (const char *const *names = needed; *names; names++) {
        if (has_capability(present, *names))
            continue;
        g_set_error(error, CALL_ERROR, CALL_ERROR_FAILED,
                    "this QEMU has no migration capability '%s'; QEMU 4.0 or newer is needed",
                    *names);
        return FALSE;
    }
    return TRUE;
}

static gboolean set_capabilities(Qmp *qmp, JsonArray *capabilities, GError **error)
{
    JsonObject *arguments = json_object_new();

    json_object_set_array_member(arguments, "capabilities", capabilities);
    return qmp_run(qmp, "migrate-set-capabilities", arguments, error);
}

static gboolean apply_capabilities(Settings *settings, Qmp *qmp, GError **error)
{
    g_autoptr(JsonNode) answer = qmp_call(qmp, "query-migrate-capabilities", NULL, error);
    g_autoptr(JsonArray) changes = json_array_new();
    JsonArray *present = node_array(answer);

    if (!answer || !check_needed(present, error))
        return FALSE;
    settings->capabilities = json_array_new();
    for (guint i = 0; i < element_count(present); i++) {
        const char *name = member_string(element_object(present, i), "capability");
        gboolean now = member_bool(element_object(present, i), "state");
        gboolean then = wanted(name, now);

        if (now == then)
            continue;
        add_capability(changes, name, then);
        add_capability(settings->capabilities, name, now);
    }
    return element_count(changes) == 0 || set_capabilities(qmp, g_steal_pointer(&changes), error);
}

static gboolean apply_parameters(Settings *settings, Qmp *qmp, GError **error)
{
    g_autoptr(JsonNode) answer = qmp_call(qmp, "query-migrate-parameters", NULL, error);
    JsonObject *present = node_object(answer);
    JsonObject *changes = NULL;

    if (!answer)
        return FALSE;
    settings->parameters = json_object_new();
    json_object_set_int_member(settings->parameters, "downtime-limit",
                               member_int(present, "downtime-limit"));
    json_object_set_int_member(settings->parameters, "max-bandwidth",
                               member_int(present, "max-bandwidth"));
    changes = json_object_new();
    json_object_set_int_member(changes, "downtime-limit", DOWNTIME_LIMIT_MS);
    json_object_set_int_member(changes, "max-bandwidth", MAX_BANDWIDTH);
    return qmp_run(qmp, "migrate-set-parameters", changes, error);
}

gboolean settings_apply(Settings *settings, Qmp *qmp, gboolean is_source, GError **error)
{
    return apply_capabilities(settings, qmp, error) &&
           (!is_source || apply_parameters(settings, qmp, error));
}

gboolean settings_restore(Settings *settings, Qmp *qmp, GError **error)
{
    g_autoptr(JsonArray) capabilities = g_steal_pointer(&settings->capabilities);
    g_autoptr(JsonObject) parameters = g_steal_pointer(&settings->parameters);
    gboolean done = TRUE;

    if (element_count(capabilities) > 0)
        done = set_capabilities(qmp, g_steal_pointer(&capabilities), error);
    if (parameters)
        done = qmp_run(qmp, "migrate-set-parameters", g_steal_pointer(&parameters),
                       done ? error : NULL) &&
               done;
    return done;
}

void settings_deinit(Settings *settings)
{
    g_clear_pointer(&settings->capabilities, json_array_unref);
    g_clear_pointer(&settings->parameters, json_object_unref);
}
