/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/ctl/host_check.h"

#include <stdarg.h>
#include <stdio.h>

#include "client/ctl/address.h"
#include "client/ctl/command.h"
#include "client/ctl/domain.h"
#include "protocol/qmp/error.h"
#include "protocol/qmp/json.h"

static const char *const levels[] = {"ok", "warn", "fail"};

static void finding_free(gpointer data)
{
    HostFinding *finding = data;

    g_free(finding->text);
    g_free(finding->advice);
    g_free(finding);
}

void host_say(HostCheck *check, const char *id, HostLevel level, const char *advice,
              const char *format, ...)
{
    HostFinding *finding = g_new0(HostFinding, 1);
    va_list arguments;

    finding->id = id;
    finding->level = level;
    finding->advice = g_strdup(advice ? advice : "");
    va_start(arguments, format);
    finding->text = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    g_ptr_array_add(check->findings, finding);
}

static guint count(const HostCheck *check, HostLevel level)
{
    guint n = 0;

    for (guint i = 0; i < check->findings->len; i++) {
        const HostFinding *finding = check->findings->pdata[i];

        n += finding->level == level;
    }
    return n;
}

static void print_lines(const HostCheck *check)
{
    for (guint i = 0; i < check->findings->len; i++) {
        const HostFinding *finding = check->findings->pdata[i];

        printf("%-5s %-12s %s%s%s\n", levels[finding->level], finding->id, finding->text,
               *finding->advice ? ": " : "", finding->advice);
    }
}

static void print_json(const HostCheck *check)
{
    JsonObject *object = json_object_new();
    JsonArray *array = json_array_new();
    g_autofree char *line = NULL;

    for (guint i = 0; i < check->findings->len; i++) {
        const HostFinding *finding = check->findings->pdata[i];
        JsonObject *row = json_object_new();

        json_object_set_string_member(row, "id", finding->id);
        json_object_set_string_member(row, "level", levels[finding->level]);
        json_object_set_string_member(row, "text", finding->text);
        json_object_set_string_member(row, "advice", finding->advice);
        json_array_add_object_element(array, row);
    }
    json_object_set_boolean_member(object, "ok", count(check, HOST_FAIL) == 0);
    json_object_set_array_member(object, "checks", array);
    line = object_line(object);
    puts(line);
}

static gboolean look(HostCheck *check, gboolean json, GError **error)
{
    guint failed;

    host_check_kernel(check);
    host_check_daemon(check);
    if (check->peer)
        host_check_peer(check);
    host_check_libvirt(check);
    if (json)
        print_json(check);
    else
        print_lines(check);
    fflush(stdout); /* before the summary, which goes to stderr */
    failed = count(check, HOST_FAIL);
    if (failed == 0)
        return TRUE;
    g_set_error(error, CALL_ERROR, CALL_ERROR_FAILED, "%u of %u checks failed", failed,
                check->findings->len);
    return FALSE;
}

gboolean command_check(const char *socket, int argc, char **argv, GError **error)
{
    gboolean json = FALSE, done;
    g_autofree char *peer = NULL, *uri = NULL, *address = NULL;
    const GOptionEntry entries[] = {
        {"peer", 'p', 0, G_OPTION_ARG_STRING, &peer, "also try to reach the daemon of another host",
         "HOST[:PORT]"},
        {"connect", 'c', 0, G_OPTION_ARG_STRING, &uri,
         "libvirt's URI (that of the daemon's configuration, else " DOMAIN_URI ")", "URI"},
        {"json", 0, 0, G_OPTION_ARG_NONE, &json, "print an object with all findings", NULL},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    g_autoptr(HostConfig) config = host_config_load(g_getenv("POSTCOPYD_CONFIG"));
    HostCheck check = {.config = config, .socket = socket};

    if (!command_parse(NULL,
                       "Looks whether this host can send and receive guests, and says what to do "
                       "about what is missing.",
                       entries, argc, argv, FALSE, NULL, error))
        return FALSE;
    if (peer && !(address = address_complete("check: --peer", peer, error)))
        return FALSE;
    check.peer = address;
    check.uri = uri ? uri : *config->libvirt_uri ? config->libvirt_uri : DOMAIN_URI;
    check.findings = g_ptr_array_new_with_free_func(finding_free);
    done = look(&check, json, error);
    g_ptr_array_unref(check.findings);
    return done;
}
