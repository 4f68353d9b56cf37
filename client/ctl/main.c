/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <locale.h>
#include <stdio.h>
#include <string.h>

#include "client/ctl/command.h"
#include "client/ctl/error.h"
#include "paths.h"
#include "version.h"

static const Command commands[] = {
    {"status", "[--json]", "the daemon, its clients, and the memory on its way", command_status,
     FALSE},
    {"stats", "[--watch[=SECONDS]] [--json] [VM]", "live figures of imports and exports",
     command_stats, FALSE},
    {"migrate", "DOM DESTURI | OPTIONS VM", "move a running guest to another host", command_migrate,
     TRUE},
    {"jobs", "[--json]", "the migrations under way", command_jobs, FALSE},
    {"check", "[--peer HOST[:PORT]] [--json]", "whether this host is fit for it", command_check,
     FALSE},
    {"enable", "[--connect URI] DOM", "let a libvirt domain take part", command_enable, FALSE},
    {"disable", "[--connect URI] DOM", "keep a libvirt domain out", command_disable, FALSE},
    {"limit", "[--json] [VM] [RATE|none]", "how fast memory may arrive", command_limit, FALSE},
    {"cancel", "VM", "undo a migration's preparation", command_cancel, FALSE},
    {"abandon", "VM", "give up a switchover that failed half-way", command_abandon, FALSE},
};

static char *describe_commands(void)
{
    GString *text = g_string_new("Commands:\n");

    for (guint i = 0; i < G_N_ELEMENTS(commands); i++) {
        g_autofree char *call = g_strdup_printf("%s %s", commands[i].name, commands[i].arguments);
        g_string_append_printf(text, "  %-40s %s\n", call, commands[i].summary);
    }
    g_string_append(text,
                    "\n'postcopyctl COMMAND --help' tells more.\n\n"
                    "Exit status: 0 done; 1 failed, with the reason on stderr; 2 wrong usage, "
                    "or both sides\nof a migration have to be looked at; 130 interrupted.");
    return g_string_free(text, FALSE);
}

static const Command *find_command(const char *name, GError **error)
{
    for (guint i = 0; i < G_N_ELEMENTS(commands); i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    g_set_error(error, CALL_ERROR, CALL_ERROR_USAGE, "no command '%s'; see postcopyctl --help",
                name);
    return NULL;
}

static gboolean parse_options(int *argc, char ***argv, char **ret_socket, gboolean *ret_version,
                              GError **error)
{
    const GOptionEntry entries[] = {
        {"socket", 's', 0, G_OPTION_ARG_FILENAME, ret_socket,
         "the daemon's socket (" POSTCOPYD_SOCKET ")", "PATH"},
        {"version", 0, 0, G_OPTION_ARG_NONE, ret_version, "print the version", NULL},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    g_autoptr(GOptionContext) context = g_option_context_new("COMMAND …");
    g_autofree char *description = describe_commands();
    g_autoptr(GError) local = NULL;

    g_option_context_set_summary(context, "Operates the host's postcopyd.");
    g_option_context_set_description(context, description);
    g_option_context_add_main_entries(context, entries, NULL);
    /* Options behind the command are the command's. */
    g_option_context_set_strict_posix(context, TRUE);
    if (g_option_context_parse(context, argc, argv, &local))
        return TRUE;
    g_set_error(error, CALL_ERROR, CALL_ERROR_USAGE, "%s; see postcopyctl --help", local->message);
    return FALSE;
}

static int fail(const GError *error, gboolean reported)
{
    if (!reported)
        fprintf(stderr, "postcopyctl: %s\n", error->message);
    return ctl_error_status(error);
}

int main(int argc, char **argv)
{
    g_autofree char *socket = NULL;
    gboolean version = FALSE;
    g_autoptr(GError) error = NULL;
    const Command *command;

    setlocale(LC_ALL, "");
    /* Numbers are written the same way everywhere. */
    setlocale(LC_NUMERIC, "C");
    if (!parse_options(&argc, &argv, &socket, &version, &error))
        return fail(error, FALSE);
    if (version) {
        puts("postcopyctl " POSTCOPYD_VERSION);
        return 0;
    }
    if (argc < 2) {
        g_set_error(&error, CALL_ERROR, CALL_ERROR_USAGE, "no command; see postcopyctl --help");
        return fail(error, FALSE);
    }
    command = find_command(argv[1], &error);
    if (!command)
        return fail(error, FALSE);
    if (!command->run(socket ? socket : POSTCOPYD_SOCKET, argc - 1, argv + 1, &error))
        return fail(error, command->reports);
    return 0;
}
