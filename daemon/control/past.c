/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/control/past.h"

#include <string.h>

#include "daemon/control/connection.h"
#include "protocol/qmp/json.h"

/* A VM may have thousands of vCPUs, and each a histogram. */
static JsonArray *busy_vcpus(JsonObject *import)
{
    JsonArray *all = member_array(import, "vcpus"), *busy = json_array_new();

    for (guint i = 0; i < element_count(all); i++) {
        JsonObject *vcpu = element_object(all, i);

        if (member_int(vcpu, "faults") == 0)
            continue;
        json_object_remove_member(member_object(vcpu, "latency"), "histogram");
        json_array_add_object_element(busy, json_object_ref(vcpu));
    }
    return busy;
}

void past_add(GQueue *imports, JsonObject *import)
{
    json_object_set_array_member(import, "vcpus", busy_vcpus(import));
    json_object_set_int_member(import, "ended_us", g_get_real_time());
    g_queue_push_head(imports, import);
    if (imports->length > PAST_MOST)
        json_object_unref(g_queue_pop_tail(imports));
}

/* uuid: the same as it is written in imports; NULL: vm is a name. */
static gboolean is_of(JsonObject *import, const char *vm, const char *uuid)
{
    return strcmp(member_string(import, "vm"), vm) == 0 ||
           (uuid && strcmp(member_string(import, "uuid"), uuid) == 0);
}

static JsonObject *few_words(JsonObject *import)
{
    static const char *const members[] = {"vm", "uuid", "mode", "state", "source", "ended_us"};
    JsonObject *few = json_object_new();

    for (guint i = 0; i < G_N_ELEMENTS(members); i++)
        json_object_set_member(few, members[i], json_object_dup_member(import, members[i]));
    return few;
}

JsonArray *past_list(GQueue *imports, const char *vm)
{
    guint8 bytes[LIMIT_UUID];
    g_autofree char *uuid = vm && uuid_from_text(vm, bytes) ? uuid_to_text(bytes) : NULL;
    JsonArray *array = json_array_new();

    for (GList *at = imports->head; at; at = at->next) {
        gboolean newest = json_array_get_length(array) == 0;

        if (vm && !is_of(at->data, vm, uuid))
            continue;
        json_array_add_object_element(array, vm && newest ? json_object_ref(at->data)
                                                          : few_words(at->data));
    }
    return array;
}

void past_clear(GQueue *imports)
{
    g_queue_clear_full(imports, (GDestroyNotify)json_object_unref);
}
