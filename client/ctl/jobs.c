/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <stdio.h>
#include <string.h>

#include "client/ctl/command.h"
#include "client/ctl/format.h"
#include "client/operator/daemon.h"
#include "protocol/qmp/json.h"

enum { ANSWER_MS = 30 * 1000 };

/* Nothing moves any more, and nothing is kept for somebody who might come back. */
static gboolean is_over(const char *state)
{
    static const char *const over[] = {"complete", "released", "done", "cancelled", "fenced", NULL};

    return g_strv_contains(over, state);
}

static void add_word(JsonObject *job, const char *name, const char *value)
{
    json_object_set_string_member(job, name, value);
}

static void add_job(JsonArray *jobs, JsonObject *entry, gboolean arrives)
{
    JsonObject *figures = arrives ? entry : member_object(entry, "progress");
    const char *mode = member_string(entry, "mode");
    JsonObject *job;

    if (is_over(member_string(entry, "state")))
        return;
    job = json_object_new();
    add_word(job, "vm", member_string(entry, "vm"));
    add_word(job, "uuid", member_string(entry, "uuid"));
    add_word(job, "direction", arrives ? "in" : "out");
    /* A daemon that does not say knows of one mode only. */
    add_word(job, "mode", *mode ? mode : "direct");
    add_word(job, "state", member_string(entry, "state"));
    add_word(job, "peer", member_string(entry, arrives ? "source" : "destination"));
    if (arrives) /* the side that asks for the pages knows how they come */
        add_word(job, "transport", member_string(member_object(entry, "transport"), "kind"));
    json_object_set_int_member(job, "populated_bytes", member_int(figures, "populated_bytes"));
    json_object_set_int_member(job, "present_bytes", member_int(figures, "present_bytes"));
    json_object_set_int_member(job, "faults", member_int(figures, "faults"));
    add_word(job, "text", member_string(entry, "text"));
    json_array_add_object_element(jobs, job);
}

static JsonArray *collect(JsonObject *status)
{
    JsonArray *jobs = json_array_new();
    JsonArray *imports = member_array(status, "imports");
    JsonArray *exports = member_array(status, "exports");

    for (guint i = 0; i < element_count(imports); i++)
        add_job(jobs, element_object(imports, i), TRUE);
    for (guint i = 0; i < element_count(exports); i++)
        add_job(jobs, element_object(exports, i), FALSE);
    return jobs;
}

static void add_cell(Table *table, JsonObject *job, const char *member)
{
    const char *text = member_string(job, member);

    table_add(table, g_strdup(*text ? text : "-"));
}

static void print_jobs(JsonArray *jobs)
{
    g_autoptr(Table) table = table_new((const char *const[]){"VM", "DIRECTION", "MODE", "STATE",
                                                             ">PROGRESS", "PEER", "REMARK", NULL});
    g_autofree char *text = NULL;

    for (guint i = 0; i < element_count(jobs); i++) {
        JsonObject *job = element_object(jobs, i);

        add_cell(table, job, "vm");
        add_cell(table, job, "direction");
        add_cell(table, job, "mode");
        add_cell(table, job, "state");
        table_add(table, format_percent((guint64)member_int(job, "present_bytes"),
                                        (guint64)member_int(job, "populated_bytes")));
        add_cell(table, job, "peer");
        table_add(table, g_strdup(member_string(job, "text")));
    }
    if (element_count(jobs) == 0) {
        puts("no migrations are under way");
        return;
    }
    text = table_render(table, "");
    fputs(text, stdout);
}

static void print_line(JsonArray *jobs)
{
    g_autoptr(JsonNode) node = json_node_init_array(json_node_alloc(), jobs);
    g_autofree char *line = node_line(node);

    puts(line);
}

gboolean command_jobs(const char *socket, int argc, char **argv, GError **error)
{
    gboolean json = FALSE;
    const GOptionEntry entries[] = {
        {"json", 0, 0, G_OPTION_ARG_NONE, &json, "print an array with an object a migration", NULL},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    g_autoptr(Daemon) daemon = NULL;
    g_autoptr(JsonNode) answer = NULL;
    g_autoptr(JsonArray) jobs = NULL;

    if (!command_parse(NULL, "Shows the migrations from and to this host that are under way.",
                       entries, argc, argv, FALSE, NULL, error))
        return FALSE;
    daemon = daemon_connect(socket, NULL, error);
    answer = daemon ? daemon_call(daemon, "status", NULL, -1, ANSWER_MS, error) : NULL;
    if (!answer)
        return FALSE;
    jobs = collect(node_object(answer));
    if (json)
        print_line(jobs);
    else
        print_jobs(jobs);
    return TRUE;
}
