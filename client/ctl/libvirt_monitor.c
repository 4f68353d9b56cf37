/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/ctl/libvirt_monitor.h"

#include <libvirt/libvirt-qemu.h>
#include <libvirt/virterror.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "protocol/qmp/error.h"
#include "protocol/qmp/json.h"
#include "protocol/qmp/libvirt_pid.h"

void libvirt_set_error(GError **error, const char *what)
{
    g_autofree char *why = g_strdup(virGetLastErrorMessage());

    g_set_error(error, CALL_ERROR, CALL_ERROR_FAILED, "%s: %s", what, g_strdelimit(why, "\n", ' '));
}

/* QEMU's answer without what it returned: it refused. */
static JsonNode *take_return(const char *command, const char *text, GError **error)
{
    g_autoptr(JsonNode) node = node_parse(text, -1, NULL);
    JsonObject *answer = node_object(node);
    JsonObject *refusal = member_object(answer, "error");
    JsonNode *result;

    if (answer && (result = json_object_dup_member(answer, "return")))
        return result;
    g_set_error(error, CALL_ERROR, refusal ? CALL_ERROR_REFUSED : CALL_ERROR_FAILED,
                "the monitor's \"%s\": %s", command,
                refusal ? member_string(refusal, "desc") : "an answer that is not understood");
    return NULL;
}

static JsonNode *call(void *user, const char *command, JsonObject *arguments, GError **error)
{
    g_autofree char *text = NULL;
    char *answer = NULL;
    JsonObject *request = json_object_new();
    JsonNode *result;

    json_object_set_string_member(request, "execute", command);
    if (arguments)
        json_object_set_object_member(request, "arguments", arguments);
    text = object_line(request);
    if (virDomainQemuMonitorCommand(user, text, &answer, VIR_DOMAIN_QEMU_MONITOR_COMMAND_DEFAULT) <
        0) {
        g_autofree char *what = g_strdup_printf("the monitor's \"%s\"", command);

        libvirt_set_error(error, what);
        return NULL;
    }
    result = take_return(command, answer, error);
    free(answer);
    return result;
}

gboolean libvirt_monitor(virDomain *domain, Monitor *ret_monitor, GError **error)
{
    g_autoptr(JsonNode) answer = NULL;
    JsonObject *version;

    *ret_monitor = (Monitor){.call = call, .user = domain};
    answer = monitor_call(ret_monitor, "query-version", NULL, error);
    version = member_object(node_object(answer), "qemu");
    ret_monitor->version =
        (int)(member_int(version, "major") * 1000 + member_int(version, "minor"));
    return answer != NULL;
}

/* A thread id that QEMU names is checked against the process, and never leads to one. */
static gboolean has_threads(pid_t pid, JsonArray *vcpus)
{
    for (guint i = 0; i < element_count(vcpus); i++) {
        gint64 tid = member_int(element_object(vcpus, i), "thread-id");
        g_autofree char *path = g_strdup_printf("/proc/%d/task/%" G_GINT64_FORMAT, (int)pid, tid);

        if (tid <= 0 || access(path, F_OK))
            return FALSE;
    }
    return element_count(vcpus) > 0;
}

int libvirt_monitor_pid(virDomain *domain, const Monitor *monitor, GError **error)
{
    g_autoptr(JsonNode) answer = NULL;
    pid_t pid = libvirt_pid(libvirt_run_folder(), virDomainGetName(domain), error);

    if (pid == 0)
        return 0;
    answer = monitor_call(monitor, "query-cpus-fast", NULL, error);
    if (!answer)
        return 0;
    if (has_threads(pid, node_array(answer)))
        return (int)pid;
    g_set_error(error, CALL_ERROR, CALL_ERROR_FAILED,
                "the vCPUs that the domain's QEMU names are no threads of process %d, which "
                "libvirt started for it: run this on its source host",
                (int)pid);
    return 0;
}
