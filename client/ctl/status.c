/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <inttypes.h>
#include <stdio.h>

#include "client/ctl/command.h"
#include "client/ctl/format.h"
#include "client/ctl/transport.h"
#include "client/operator/daemon.h"
#include "protocol/qmp/json.h"

enum { ANSWER_MS = 30 * 1000 };

static void add_text(Table *table, JsonObject *object, const char *member)
{
    const char *text = member_string(object, member);

    table_add(table, g_strdup(*text ? text : "-"));
}

static void add_number(Table *table, JsonObject *object, const char *member)
{
    table_add(table, g_strdup_printf("%" G_GINT64_FORMAT, member_int(object, member)));
}

static void add_bytes(Table *table, JsonObject *object, const char *member)
{
    table_add(table, format_bytes((guint64)member_int(object, member)));
}

/* A daemon that does not say knows of one mode only. */
static void add_mode(Table *table, JsonObject *object)
{
    const char *mode = member_string(object, "mode");

    table_add(table, g_strdup(*mode ? mode : "direct"));
}

static void add_session(Table *table, JsonObject *status, JsonObject *session)
{
    const char *problem = member_string(session, "problem");

    (void)status;
    add_text(table, session, "vm");
    add_text(table, session, "role");
    add_text(table, session, "state");
    add_number(table, session, "pid");
    add_number(table, session, "uid");
    add_bytes(table, session, "memory_bytes");
    add_number(table, session, "regions");
    add_number(table, session, "vcpus");
    table_add(table, format_seconds(member_double(session, "connected_s")));
    table_add(table, g_strconcat(*problem ? "not in direct mode: " : "", problem, NULL));
}

static void add_import(Table *table, JsonObject *status, JsonObject *import)
{
    const char *text = member_string(import, "text");
    g_autofree char *remark = transport_remark(status, import);
    guint64 present = (guint64)member_int(import, "present_bytes");
    guint64 populated = (guint64)member_int(import, "populated_bytes");
    g_autofree char *rate = format_bytes((guint64)member_int(import, "rate_bytes_s"));

    add_text(table, import, "vm");
    add_mode(table, import);
    add_text(table, import, "state");
    add_number(table, import, "pid");
    add_text(table, import, "source");
    table_add(table, transport_word(import));
    add_bytes(table, import, "memory_bytes");
    table_add(table, format_percent(present, populated));
    table_add(table, g_strconcat(rate, "/s", NULL));
    add_number(table, import, "faults");
    table_add(table, g_strconcat(text, *text && *remark ? "; " : "", remark, NULL));
}

static void add_export(Table *table, JsonObject *status, JsonObject *export)
{
    JsonObject *progress = member_object(export, "progress");

    (void)status;
    add_text(table, export, "vm");
    add_mode(table, export);
    add_text(table, export, "state");
    add_number(table, export, "pid");
    add_text(table, export, "destination");
    add_number(table, export, "reads");
    add_bytes(table, export, "bytes");
    table_add(table, format_percent((guint64)member_int(progress, "present_bytes"),
                                    (guint64)member_int(progress, "populated_bytes")));
    table_add(table, g_strdup(member_bool(export, "fenced") ? "fenced" : ""));
}

/* rows: the name of the status's member. */
static void print_section(const char *title, Table *table, JsonObject *status, const char *rows,
                          void (*add)(Table *, JsonObject *, JsonObject *))
{
    JsonArray *array = member_array(status, rows);
    g_autofree char *text = NULL;

    if (element_count(array) == 0)
        return;
    for (guint i = 0; i < element_count(array); i++)
        add(table, status, element_object(array, i));
    text = table_render(table, "  ");
    printf("\n%s\n%s", title, text);
}

static void print_listen(JsonObject *status)
{
    JsonArray *addresses = member_array(status, "listen");
    const char *address = member_string(status, "listen");

    if (*address)
        printf(", listening on %s", address);
    for (guint i = 0; i < element_count(addresses); i++) {
        JsonNode *node = json_array_get_element(addresses, i);

        if (JSON_NODE_HOLDS_VALUE(node) && json_node_get_string(node))
            printf("%s %s", i ? "," : ", listening on", json_node_get_string(node));
    }
    putchar('\n');
}

static void print_status(JsonObject *status)
{
    g_autoptr(Table) sessions =
        table_new((const char *const[]){"VM", "ROLE", "STATE", ">PID", ">UID", ">MEMORY",
                                        ">REGIONS", ">VCPUS", ">CONNECTED", "REMARK", NULL});
    g_autoptr(Table) imports = table_new(
        (const char *const[]){"VM", "MODE", "STATE", ">PID", "SOURCE", "TRANSPORT", ">MEMORY",
                              ">PROGRESS", ">RATE", ">FAULTS", "REMARK", NULL});
    g_autoptr(Table) exports =
        table_new((const char *const[]){"VM", "MODE", "STATE", ">PID", "DESTINATION", ">READS",
                                        ">BYTES", ">PROGRESS", "REMARK", NULL});
    guint n = element_count(member_array(status, "sessions"));
    guint64 limit = (guint64)member_int(status, "limit_bytes_s");
    g_autofree char *rdma = transport_host_line(status);

    printf("postcopyd %s, pid %" G_GINT64_FORMAT, member_string(status, "version"),
           member_int(status, "pid"));
    print_listen(status);
    if (limit) {
        g_autofree char *rate = format_bytes(limit);
        printf("memory arrives at no more than %s/s\n", rate);
    }
    if (rdma)
        puts(rdma);
    print_section("Virtual machines", sessions, status, "sessions", add_session);
    print_section("Imports", imports, status, "imports", add_import);
    print_section("Exports", exports, status, "exports", add_export);
    if (n == 0)
        puts("no virtual machines are connected");
}

gboolean command_status(const char *socket, int argc, char **argv, GError **error)
{
    gboolean json = FALSE;
    const GOptionEntry entries[] = {
        {"json", 0, 0, G_OPTION_ARG_NONE, &json, "print the daemon's answer as it is", NULL},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    g_autoptr(Daemon) daemon = NULL;
    g_autoptr(JsonNode) answer = NULL;

    if (!command_parse(NULL,
                       "Shows the daemon, the VMs that are connected to it, and memory on "
                       "its way.",
                       entries, argc, argv, FALSE, NULL, error))
        return FALSE;
    daemon = daemon_connect(socket, NULL, error);
    answer = daemon ? daemon_call(daemon, "status", NULL, -1, ANSWER_MS, error) : NULL;
    if (!answer)
        return FALSE;
    if (json) {
        g_autofree char *line = node_line(answer);
        puts(line);
    } else {
        print_status(node_object(answer));
    }
    return TRUE;
}
